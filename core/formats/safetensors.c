/* core/formats/safetensors.c - see core/formats/safetensors.h. */
#include "core/formats/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"

/* What the reference reader accepts at most. */
enum { MAX_HEADER = 100 * 1000 * 1000 };

static bool is_known_elsewhere(const char *dtype)
{
    static const char *const tags[] = {
        "F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4", "C64",
    };

    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        if (strcmp(dtype, tags[i]) == 0)
            return true;
    return false;
}

static mb_status read_dtype(const char *path, const char *name, mb_json v, mb_dtype *out)
{
    const char *tag;

    MB_TRY(mb_json_string(v, &tag, NULL));
    if (mb_dtype_from_name(tag, out) && !mb_dtype_is_quantised(*out))
        return MB_OK;
    MB_REQUIRE(!is_known_elsewhere(tag), MB_ENOTSUP,
               "%s: tensor '%.200s' has dtype %s, which is not supported", path, name, tag);
    return MB_RAISE(MB_EMODEL, "%s: tensor '%.200s' has the unknown dtype '%.40s'", path, name,
                    tag);
}

static mb_status read_count(mb_json v, int64_t *out)
{
    if (!mb_json_is(v, MB_JSON_INT))
        return mb_json_fault(v, "must be an integer");
    MB_TRY(mb_json_int(v, out));
    if (*out < 0)
        return mb_json_fault(v, "is negative");
    return MB_OK;
}

static mb_status read_shape(const char *path, mb_json v, mb_tensor_info *t)
{
    const int64_t size = mb_dtype_block_bytes(t->dtype);

    MB_REQUIRE(mb_json_count(v) <= MB_MAX_DIMS, MB_ENOTSUP,
               "%s: tensor '%.200s' has %zu dimensions, at most %d are supported", path, t->name,
               mb_json_count(v), MB_MAX_DIMS);
    t->bytes = size;
    for (size_t i = 0; i < mb_json_count(v); i++) {
        int64_t *d = &t->dim[t->ndim++];
        MB_TRY(read_count(mb_json_at(v, i), d));
        MB_REQUIRE(!__builtin_mul_overflow(t->bytes, *d, &t->bytes), MB_EMODEL,
                   "%s: the shape of tensor '%.200s' has more than 2^63 bytes", path, t->name);
    }
    return MB_OK;
}

static mb_status read_tensor(const char *path, const char *name, mb_json v, int64_t data_at,
                             int64_t data_bytes, mb_tensor_info *t)
{
    mb_json dtype, shape, offsets;
    int64_t begin, end;

    t->name = name;
    if (!mb_json_is(v, MB_JSON_OBJECT))
        return mb_json_fault(v, "must be an object with dtype, shape and data_offsets");
    MB_TRY(mb_json_need(v, "dtype", MB_JSON_STRING, &dtype));
    MB_TRY(mb_json_need(v, "shape", MB_JSON_ARRAY, &shape));
    MB_TRY(mb_json_need(v, "data_offsets", MB_JSON_ARRAY, &offsets));
    MB_TRY(read_dtype(path, name, dtype, &t->dtype));
    MB_TRY(read_shape(path, shape, t));
    if (mb_json_count(offsets) != 2)
        return mb_json_fault(offsets, "must be two numbers");
    MB_TRY(read_count(mb_json_at(offsets, 0), &begin));
    MB_TRY(read_count(mb_json_at(offsets, 1), &end));
    MB_REQUIRE(begin <= end && end <= data_bytes, MB_EMODEL,
               "%s: tensor '%.200s' has data_offsets [%lld, %lld], the file holds %lld bytes of "
               "data",
               path, name, (long long)begin, (long long)end, (long long)data_bytes);
    MB_REQUIRE(end - begin == t->bytes, MB_EMODEL,
               "%s: tensor '%.200s' has %lld bytes of data, its shape and dtype %s need %lld", path,
               name, (long long)(end - begin), mb_dtype_name(t->dtype), (long long)t->bytes);
    t->offset = data_at + begin;
    return MB_OK;
}

static mb_status check_name(const char *path, mb_json v, const char *name)
{
    const size_t n = strlen(name);

    MB_REQUIRE(n <= MB_TENSOR_NAME_MAX, MB_EMODEL,
               "%s: the tensor name '%.40s...' has %zu bytes, at most %d are allowed", path, name,
               n, MB_TENSOR_NAME_MAX);
    if (n == 0)
        return MB_RAISE(MB_EMODEL, "%s: a tensor has an empty name", path);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return mb_json_fault(v, "has a control character in its name");
    return MB_OK;
}

/* Keeps a copy of __metadata__, so that the large header can go. */
static mb_status read_metadata(mb_json v, mb_safetensors_header *h)
{
    if (!mb_json_is_set(v))
        return MB_OK;
    if (!mb_json_is(v, MB_JSON_OBJECT))
        return mb_json_fault(v, "must be an object of strings");
    MB_TRY(mb_json_doc_new("__metadata__", &h->metadata));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        if (!mb_json_is(it.value, MB_JSON_STRING))
            return mb_json_fault(it.value, "must be a string");
        MB_TRY(mb_json_set(mb_json_root(h->metadata), it.key, it.value));
    }
    return MB_OK;
}

static int by_offset(const void *a, const void *b)
{
    const mb_tensor_info *s = a, *t = b;

    if (s->offset != t->offset)
        return s->offset < t->offset ? -1 : 1;
    if (s->bytes != t->bytes) /* an empty tensor comes before the one that begins where it is */
        return s->bytes < t->bytes ? -1 : 1;
    return strcmp(s->name, t->name);
}

static mb_status check_cover(const char *path, const mb_safetensors_header *h, int64_t data_at,
                             int64_t size)
{
    int64_t at = data_at;

    for (size_t i = 0; i < h->n; i++) {
        const mb_tensor_info *t = &h->info[i];
        MB_REQUIRE(t->offset == at, MB_EMODEL,
                   "%s: the data of tensor '%.200s' begins at byte %lld, %s %lld", path, t->name,
                   (long long)(t->offset - data_at),
                   t->offset > at ? "nothing describes the bytes from"
                                  : "inside another that ends at",
                   (long long)(at - data_at));
        at += t->bytes;
    }
    MB_REQUIRE(at == size, MB_EMODEL, "%s: %lld bytes after the last tensor belong to none", path,
               (long long)(size - at));
    return MB_OK;
}

static mb_status read_tensors(const char *path, mb_json root, int64_t data_at, int64_t size,
                              mb_safetensors_header *h)
{
    size_t name_bytes = 0;
    char *name;

    for (mb_json_it it = mb_json_first(root); mb_json_more(&it); mb_json_next(&it))
        name_bytes += strlen(it.key) + 1;
    MB_TRY(MB_NEW_ARRAY(&h->info, mb_json_count(root)));
    MB_TRY(mb_alloc(name_bytes, "tensor names", (void **)&h->names));
    name = h->names;
    for (mb_json_it it = mb_json_first(root); mb_json_more(&it); mb_json_next(&it)) {
        if (strcmp(it.key, "__metadata__") == 0) {
            MB_TRY(read_metadata(it.value, h));
            continue;
        }
        MB_TRY(check_name(path, it.value, it.key));
        memcpy(name, it.key, strlen(it.key) + 1);
        MB_TRY(read_tensor(path, name, it.value, data_at, size - data_at, &h->info[h->n]));
        name += strlen(name) + 1;
        h->n++;
    }
    if (h->n > 0)
        qsort(h->info, h->n, sizeof *h->info, by_offset);
    return check_cover(path, h, data_at, size);
}

static mb_status read_header(const char *path, int fd, int64_t size, char **text, int64_t *n)
{
    uint64_t length;

    MB_REQUIRE(size >= 8, MB_EMODEL, "%s: not a safetensors file: %lld bytes is too short", path,
               (long long)size);
    MB_TRY(mb_pread_all(fd, &length, sizeof length, 0, path));
    MB_REQUIRE(length <= MAX_HEADER, MB_EMODEL,
               "%s: not a safetensors file: its header would have %llu bytes, at most %d are read",
               path, (unsigned long long)length, MAX_HEADER);
    MB_REQUIRE(length >= 2 && (int64_t)length <= size - 8, MB_EMODEL,
               "%s: not a safetensors file: a header of %llu bytes in a file of %lld", path,
               (unsigned long long)length, (long long)size);
    MB_TRY(mb_alloc((size_t)length, "a safetensors header", (void **)text));
    *n = (int64_t)length;
    MB_TRY(mb_pread_all(fd, *text, (size_t)length, 8, path));
    MB_REQUIRE((*text)[0] == '{', MB_EMODEL,
               "%s: not a safetensors file: its header does not begin with '{'", path);
    return MB_OK;
}

mb_status mb_safetensors_open(const char *path, int fd, int64_t size, mb_safetensors_header *out)
{
    mb_safetensors_header h = {0};
    mb_json_doc *doc = NULL;
    char *text = NULL;
    int64_t n = 0;
    mb_status st = MB_OK;

    MB_TRY_GOTO(read_header(path, fd, size, &text, &n), st, done);
    MB_TRY_GOTO(mb_json_parse(text, (size_t)n, path, 0, MB_EMODEL, &doc), st, done);
    MB_TRY_GOTO(read_tensors(path, mb_json_root(doc), 8 + n, size, &h), st, done);
    *out = h;
    h = (mb_safetensors_header){0};
done:
    mb_safetensors_header_free(&h);
    mb_json_free(doc);
    mb_free(text);
    return st;
}

void mb_safetensors_header_free(mb_safetensors_header *h)
{
    mb_free(h->info);
    mb_free(h->names);
    mb_json_free(h->metadata);
    *h = (mb_safetensors_header){0};
}

const char *mb_safetensors_metadata(const mb_safetensors_header *h, const char *key)
{
    const char *value = NULL;

    if (h->metadata == NULL)
        return NULL;
    /* checked to be strings when it was read */
    if (mb_json_get_string(mb_json_root(h->metadata), key, NULL, &value) != MB_OK)
        MB_BUG("a value of __metadata__ is not a string");
    return value;
}
