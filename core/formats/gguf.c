/* core/formats/gguf.c - the parser of core/formats/gguf.h; how it is kept: core/formats/gguf_store.h.
 *
 * Nothing the file says is used before it was compared with the length of the file, and memory grows
 * with what was really read, so a hostile count costs nothing.
 */
#include "core/formats/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/formats/gguf_store.h"
#include "core/path.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF values are used as they lie");

enum { FIRST_READ = 1 << 20, MAX_ALIGNMENT = 1 << 20, MAX_DIMS = 4 };
/* The least a pair (key, type, one byte) and a tensor info (name, dims, type, offset) take. */
enum { MIN_PAIR = 8 + 4 + 1, MIN_TENSOR = 8 + 4 + 4 + 8 };

/* Tensor types by number (enum ggml_type). dtype MB_DTYPE_COUNT: known, not supported. */
static const struct {
    uint32_t id;
    const char *name;
    mb_dtype dtype;
} tensor_types[] = {
    {0, "F32", MB_DTYPE_F32},        {1, "F16", MB_DTYPE_F16},
    {2, "Q4_0", MB_DTYPE_Q4_0},      {3, "Q4_1", MB_DTYPE_Q4_1},
    {6, "Q5_0", MB_DTYPE_Q5_0},      {7, "Q5_1", MB_DTYPE_Q5_1},
    {8, "Q8_0", MB_DTYPE_Q8_0},      {9, "Q8_1", MB_DTYPE_COUNT},
    {10, "Q2_K", MB_DTYPE_Q2_K},     {11, "Q3_K", MB_DTYPE_Q3_K},
    {12, "Q4_K", MB_DTYPE_Q4_K},     {13, "Q5_K", MB_DTYPE_Q5_K},
    {14, "Q6_K", MB_DTYPE_Q6_K},     {15, "Q8_K", MB_DTYPE_COUNT},
    {16, "IQ2_XXS", MB_DTYPE_COUNT}, {17, "IQ2_XS", MB_DTYPE_COUNT},
    {18, "IQ3_XXS", MB_DTYPE_COUNT}, {19, "IQ1_S", MB_DTYPE_COUNT},
    {20, "IQ4_NL", MB_DTYPE_COUNT},  {21, "IQ3_S", MB_DTYPE_COUNT},
    {22, "IQ2_S", MB_DTYPE_COUNT},   {23, "IQ4_XS", MB_DTYPE_COUNT},
    {24, "I8", MB_DTYPE_I8},         {25, "I16", MB_DTYPE_I16},
    {26, "I32", MB_DTYPE_I32},       {27, "I64", MB_DTYPE_I64},
    {28, "F64", MB_DTYPE_F64},       {29, "IQ1_M", MB_DTYPE_COUNT},
    {30, "BF16", MB_DTYPE_BF16},     {34, "TQ1_0", MB_DTYPE_COUNT},
    {35, "TQ2_0", MB_DTYPE_COUNT},   {39, "MXFP4", MB_DTYPE_COUNT},
    {40, "NVFP4", MB_DTYPE_COUNT},   {41, "Q1_0", MB_DTYPE_COUNT},
};

bool mb_gguf_type_id(mb_dtype d, uint32_t *id)
{
    for (size_t i = 0; i < sizeof tensor_types / sizeof tensor_types[0]; i++)
        if (d < MB_DTYPE_COUNT && tensor_types[i].dtype == d) {
            *id = tensor_types[i].id;
            return true;
        }
    return false;
}

struct reader {
    mb_gguf *g;
    int fd;
    size_t pos, size; /* 0 <= pos <= n_head <= size, the file's length */
};

/* Makes n bytes at pos available in head. */
static mb_status need(struct reader *r, size_t n, const char *what)
{
    mb_gguf *g = r->g;

    MB_REQUIRE(n <= r->size - r->pos, MB_EMODEL,
               "%s: not a complete GGUF file: it ends at byte %zu, inside %s", g->path, r->size,
               what);
    if (n <= g->n_head - r->pos)
        return MB_OK;
    size_t wanted = r->pos + n > 2 * g->n_head ? r->pos + n : 2 * g->n_head;
    wanted = wanted < FIRST_READ ? FIRST_READ : wanted;
    wanted = wanted > r->size ? r->size : wanted;
    MB_TRY(mb_grow((void **)&g->head, &g->head_capacity, wanted, 1, "a GGUF header"));
    MB_TRY(
        mb_pread_all(r->fd, g->head + g->n_head, wanted - g->n_head, (int64_t)g->n_head, g->path));
    g->n_head = wanted;
    return MB_OK;
}

static mb_status take(struct reader *r, void *dst, size_t n, const char *what)
{
    MB_TRY(need(r, n, what));
    memcpy(dst, r->g->head + r->pos, n);
    r->pos += n;
    return MB_OK;
}

static uint64_t left(const struct reader *r)
{
    return r->size - r->pos;
}

/* Reads a string and leaves it in place, shifted and terminated; *at is where it begins. */
static mb_status take_string(struct reader *r, const char *what, size_t *at)
{
    uint64_t n = 0;

    MB_TRY(take(r, &n, GGUF_LENGTH, what));
    MB_REQUIRE(n <= left(r), MB_EMODEL,
               "%s: %s at byte %zu would have %" PRIu64 " bytes, the file has %" PRIu64 " more",
               r->g->path, what, r->pos - GGUF_LENGTH, n, left(r));
    MB_TRY(need(r, (size_t)n, what));
    char *s = r->g->head + r->pos;
    memmove(s - 1, s, (size_t)n);
    s[n - 1] = '\0'; /* n = 0: the last byte of the length */
    *at = r->pos - 1;
    r->pos += (size_t)n;
    return MB_OK;
}

/* UTF-8 (RFC 3629) without control characters. */
static bool is_printable(const char *text, size_t n)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const uint8_t *s = (const uint8_t *)text, *end = s + n;

    while (s < end) {
        const int more = *s < 0x80       ? 0
                         : *s >> 5 == 6  ? 1
                         : *s >> 4 == 14 ? 2
                         : *s >> 3 == 30 ? 3
                                         : -1;
        if (more < 0 || end - s <= more)
            return false;
        uint32_t c = more == 0 ? *s : *s & (0x3fu >> more);
        for (int i = 1; i <= more; i++) {
            if (s[i] >> 6 != 2)
                return false;
            c = c << 6 | (s[i] & 0x3fu);
        }
        if (c < 32 || c == 127 || c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return false;
        s += more + 1;
    }
    return true;
}

static mb_status take_name(struct reader *r, const char *what, size_t least, size_t most,
                           uint64_t which, size_t *at)
{
    MB_TRY(take_string(r, what, at));
    const size_t n = mb_gguf_length(r->g, *at);
    MB_REQUIRE(n >= least && n <= most, MB_EMODEL,
               "%s: %s %" PRIu64 " has %zu bytes, between %zu and %zu are allowed", r->g->path,
               what, which, n, least, most);
    MB_REQUIRE(is_printable(r->g->head + *at, n), MB_EMODEL,
               "%s: %s %" PRIu64 " is not printable UTF-8", r->g->path, what, which);
    return MB_OK;
}

static mb_status take_strings(struct reader *r, struct gguf_pair *p)
{
    mb_gguf *g = r->g;

    p->at = g->n_strings;
    for (uint64_t i = 0; i < p->n; i++) {
        size_t at;
        if (g->n_strings == g->string_capacity)
            MB_TRY(mb_grow((void **)&g->strings, &g->string_capacity, g->n_strings + 1,
                           sizeof *g->strings, "a GGUF string table"));
        MB_TRY(take_string(r, "a string value", &at));
        g->strings[g->n_strings++] = at;
    }
    return MB_OK;
}

static mb_status take_value(struct reader *r, struct gguf_pair *p)
{
    mb_gguf *g = r->g;
    const char *key = g->head + p->key;

    MB_TRY(take(r, &p->type, sizeof p->type, "a value's type"));
    key = g->head + p->key;
    p->n = 1;
    if (p->type == GGUF_ARRAY) {
        p->is_array = true;
        MB_TRY(take(r, &p->type, sizeof p->type, "an array's type"));
        MB_TRY(take(r, &p->n, sizeof p->n, "an array's length"));
        key = g->head + p->key;
        MB_REQUIRE(p->type != GGUF_ARRAY, MB_ENOTSUP, "%s: '%.200s' is an array of arrays", g->path,
                   key);
    }
    MB_REQUIRE(p->type < GGUF_N_TYPES, MB_EMODEL, "%s: '%.200s' has the unknown type %" PRIu32,
               g->path, key, p->type);
    const size_t size = p->type == GGUF_STRING ? GGUF_LENGTH : mb_gguf_types[p->type].bytes;
    MB_REQUIRE(p->n <= left(r) / size, MB_EMODEL,
               "%s: '%.200s' would have %" PRIu64 " values of type %s, the file has %" PRIu64
               " more bytes",
               g->path, key, p->n, mb_gguf_types[p->type].name, left(r));
    if (p->type == GGUF_STRING)
        return take_strings(r, p);
    MB_TRY(need(r, (size_t)p->n * size, "an array"));
    p->at = r->pos;
    r->pos += (size_t)p->n * size;
    for (uint64_t i = 0; p->type == GGUF_BOOL && i < p->n; i++)
        MB_REQUIRE((uint8_t)g->head[p->at + i] <= 1, MB_EMODEL,
                   "%s: '%.200s' has the boolean %d, which is neither 0 nor 1", g->path,
                   g->head + p->key, (uint8_t)g->head[p->at + i]);
    return MB_OK;
}

static mb_status take_pairs(struct reader *r, uint64_t n)
{
    mb_gguf *g = r->g;

    for (uint64_t i = 0; i < n; i++) {
        struct gguf_pair p = {0};
        MB_TRY(take_name(r, "key", 1, MB_GGUF_KEY_MAX, i, &p.key));
        MB_TRY(take_value(r, &p));
        MB_TRY(mb_grow((void **)&g->pair, &g->pair_capacity, g->n_pairs + 1, sizeof p,
                       "GGUF key-value pairs"));
        g->pair[g->n_pairs++] = p;
    }
    return MB_OK;
}

static int by_key(const void *a, const void *b, void *gguf)
{
    const mb_gguf *g = gguf;

    return strcmp(g->head + g->pair[*(const uint32_t *)a].key,
                  g->head + g->pair[*(const uint32_t *)b].key);
}

static mb_status sort_keys(mb_gguf *g)
{
    MB_TRY(MB_NEW_ARRAY(&g->by_key, g->n_pairs));
    for (size_t i = 0; i < g->n_pairs; i++)
        g->by_key[i] = (uint32_t)i;
    if (g->n_pairs > 0)
        qsort_r(g->by_key, g->n_pairs, sizeof *g->by_key, by_key, g);
    for (size_t i = 1; i < g->n_pairs; i++)
        MB_REQUIRE(by_key(&g->by_key[i - 1], &g->by_key[i], g) != 0, MB_EMODEL,
                   "%s: the key '%.200s' is there twice", g->path,
                   g->head + g->pair[g->by_key[i]].key);
    return MB_OK;
}

static mb_status find_dtype(const mb_gguf *g, const char *name, uint32_t id, mb_dtype *out)
{
    for (size_t i = 0; i < sizeof tensor_types / sizeof tensor_types[0]; i++) {
        if (tensor_types[i].id != id)
            continue;
        MB_REQUIRE(tensor_types[i].dtype != MB_DTYPE_COUNT, MB_ENOTSUP,
                   "%s: tensor '%s' has type %s, which is not supported", g->path, name,
                   tensor_types[i].name);
        *out = tensor_types[i].dtype;
        return MB_OK;
    }
    return MB_RAISE(MB_EMODEL, "%s: tensor '%s' has the unknown type %" PRIu32, g->path, name, id);
}

/* Reverses ne into t->dim and finds t->bytes. */
static mb_status set_shape(const mb_gguf *g, const char *name, const uint64_t *ne, uint32_t dims,
                           mb_tensor_info *t)
{
    const int64_t block = mb_dtype_block(t->dtype);
    int64_t count = 1;

    for (uint32_t i = 0; i < dims; i++) {
        MB_REQUIRE(ne[i] > 0 && ne[i] <= INT64_MAX, MB_EMODEL,
                   "%s: tensor '%s' has a dimension of %" PRIu64, g->path, name, ne[i]);
        MB_REQUIRE(!__builtin_mul_overflow(count, (int64_t)ne[i], &count), MB_EMODEL,
                   "%s: the shape of tensor '%s' has more than 2^63 elements", g->path, name);
        t->dim[dims - 1 - i] = (int64_t)ne[i];
    }
    t->ndim = (int)dims;
    MB_REQUIRE((dims > 0 ? (int64_t)ne[0] : 1) % block == 0, MB_EMODEL,
               "%s: tensor '%s' has type %s, its rows of %" PRIu64 " are no multiple of %lld",
               g->path, name, mb_dtype_name(t->dtype), dims > 0 ? ne[0] : 1, (long long)block);
    MB_REQUIRE(!__builtin_mul_overflow(count / block, mb_dtype_block_bytes(t->dtype), &t->bytes),
               MB_EMODEL, "%s: the shape of tensor '%s' has more than 2^63 bytes", g->path, name);
    return MB_OK;
}

/* One tensor info; its offset is still relative to the data. */
static mb_status take_tensor(struct reader *r, uint64_t which, size_t *name_at, mb_tensor_info *t)
{
    uint64_t ne[MAX_DIMS] = {0}, offset = 0;
    uint32_t dims = 0, type = 0;

    MB_TRY(take_name(r, "tensor name", 1, MB_GGUF_NAME_MAX, which, name_at));
    MB_TRY(take(r, &dims, sizeof dims, "a tensor's shape"));
    MB_REQUIRE(dims <= MAX_DIMS, MB_EMODEL,
               "%s: tensor '%s' has %" PRIu32 " dimensions, at most %d are allowed", r->g->path,
               r->g->head + *name_at, dims, MAX_DIMS);
    MB_TRY(take(r, ne, dims * sizeof ne[0], "a tensor's shape"));
    MB_TRY(take(r, &type, sizeof type, "a tensor's type"));
    MB_TRY(take(r, &offset, sizeof offset, "a tensor's offset"));
    const char *name = r->g->head + *name_at;
    MB_TRY(find_dtype(r->g, name, type, &t->dtype));
    MB_TRY(set_shape(r->g, name, ne, dims, t));
    MB_REQUIRE(offset <= r->size, MB_EMODEL,
               "%s: tensor '%s' is at offset %" PRIu64 " of a file of %zu bytes", r->g->path, name,
               offset, r->size);
    t->offset = (int64_t)offset;
    return MB_OK;
}

static mb_status take_tensors(struct reader *r, uint64_t n)
{
    mb_gguf *g = r->g;
    size_t *name_at = NULL, capacity = 0;
    mb_status st = MB_OK;

    for (uint64_t i = 0; i < n; i++) {
        mb_tensor_info t = {0};
        MB_TRY_GOTO(mb_grow((void **)&name_at, &capacity, i + 1, sizeof *name_at, "names"), st,
                    done);
        MB_TRY_GOTO(take_tensor(r, i, &name_at[i], &t), st, done);
        MB_TRY_GOTO(mb_grow((void **)&g->info, &g->info_capacity, i + 1, sizeof t, "tensor infos"),
                    st, done);
        g->info[g->n_info++] = t;
    }
    for (size_t i = 0; i < g->n_info; i++) /* head moves no more */
        g->info[i].name = g->head + name_at[i];
done:
    mb_free(name_at);
    return st;
}

/* Tensors follow each other, each padded to the alignment, and end within the file. */
static mb_status place_data(struct reader *r, uint64_t alignment)
{
    mb_gguf *g = r->g;
    const uint64_t data_at = (r->pos + alignment - 1) / alignment * alignment;
    uint64_t at = 0;

    for (size_t i = 0; i < g->n_info; i++) {
        mb_tensor_info *t = &g->info[i];
        MB_REQUIRE((uint64_t)t->offset == at, MB_EMODEL,
                   "%s: the data of tensor '%s' is at offset %lld, %" PRIu64 " was expected",
                   g->path, t->name, (long long)t->offset, at);
        MB_REQUIRE(data_at + at <= r->size && (uint64_t)t->bytes <= r->size - data_at - at,
                   MB_EMODEL,
                   "%s: tensor '%s' needs %lld bytes from byte %" PRIu64
                   " on, the file has %zu: it is not complete",
                   g->path, t->name, (long long)t->bytes, data_at + at, r->size);
        t->offset = (int64_t)(data_at + at);
        at += ((uint64_t)t->bytes + alignment - 1) / alignment * alignment;
    }
    return MB_OK;
}

static mb_status take_start(struct reader *r, uint64_t *n_tensors, uint64_t *n_pairs)
{
    const mb_gguf *g = r->g;
    uint32_t version;
    char magic[4];

    MB_TRY(take(r, magic, sizeof magic, "its first bytes"));
    MB_REQUIRE(memcmp(magic, "GGUF", 4) == 0, MB_EMODEL,
               "%s: not a GGUF file: it does not begin with \"GGUF\"", g->path);
    MB_TRY(take(r, &version, sizeof version, "its version"));
    MB_REQUIRE(version != 1, MB_ENOTSUP, "%s: GGUF version 1 is not supported, 2 and 3 are",
               g->path);
    MB_REQUIRE((version & 0xffff) != 0, MB_ENOTSUP, "%s: big-endian GGUF is not supported",
               g->path);
    MB_REQUIRE(version == 2 || version == 3, MB_EMODEL,
               "%s: GGUF version %" PRIu32 " is unknown, 2 and 3 are read", g->path, version);
    MB_TRY(take(r, n_tensors, sizeof *n_tensors, "its counts"));
    MB_TRY(take(r, n_pairs, sizeof *n_pairs, "its counts"));
    MB_REQUIRE(*n_tensors <= left(r) / MIN_TENSOR && *n_pairs <= left(r) / MIN_PAIR &&
                   *n_tensors < UINT32_MAX && *n_pairs < UINT32_MAX,
               MB_EMODEL,
               "%s: %" PRIu64 " tensors and %" PRIu64 " keys do not fit in a file of %zu bytes",
               g->path, *n_tensors, *n_pairs, r->size);
    return MB_OK;
}

static mb_status read_all(struct reader *r)
{
    mb_gguf *g = r->g;
    uint64_t n_tensors, n_pairs;
    int64_t alignment, parts;

    MB_TRY(take_start(r, &n_tensors, &n_pairs));
    MB_TRY(take_pairs(r, n_pairs));
    MB_TRY(sort_keys(g));
    MB_TRY(mb_gguf_opt_i64(g, "split.count", 1, &parts));
    MB_REQUIRE(parts <= 1, MB_ENOTSUP,
               "%s: is one of %lld parts of a split model, join them first (llama-gguf-split "
               "--merge)",
               g->path, (long long)parts);
    MB_TRY(mb_gguf_opt_i64(g, "general.alignment", 32, &alignment));
    MB_REQUIRE(alignment > 0 && alignment <= MAX_ALIGNMENT && (alignment & (alignment - 1)) == 0,
               MB_EMODEL, "%s: general.alignment is %lld, a power of two up to %d is needed",
               g->path, (long long)alignment, MAX_ALIGNMENT);
    MB_TRY(take_tensors(r, n_tensors));
    return place_data(r, (uint64_t)alignment);
}

mb_status mb_gguf_open(const char *path, int fd, int64_t size, mb_gguf **out)
{
    mb_gguf *g = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&g));
    MB_TRY_GOTO(mb_strdup(path, &g->path), st, done);
    struct reader r = {.g = g, .fd = fd, .size = (size_t)size};
    MB_TRY_GOTO(read_all(&r), st, done);
    *out = g;
    g = NULL;
done:
    mb_gguf_free(g);
    return st;
}

void mb_gguf_free(mb_gguf *g)
{
    if (g == NULL)
        return;
    mb_free(g->path);
    mb_free(g->head);
    mb_free(g->pair);
    mb_free(g->by_key);
    mb_free(g->strings);
    mb_free(g->info);
    mb_free(g);
}

bool mb_gguf_has_tensor(const mb_gguf *g, const char *name)
{
    for (size_t i = 0; i < g->n_info; i++)
        if (strcmp(g->info[i].name, name) == 0)
            return true;
    return false;
}

size_t mb_gguf_tensors(const mb_gguf *g, const mb_tensor_info **info)
{
    *info = g->info;
    return g->n_info;
}
