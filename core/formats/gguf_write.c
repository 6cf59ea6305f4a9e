/* core/formats/gguf_write.c - see core/formats/gguf_write.h. */
#include "core/formats/gguf_write.h"

#include <string.h>

#include "core/alloc.h"
#include "core/formats/gguf_store.h"
#include "core/path.h"

enum { ALIGNMENT = 32, VERSION = 3, START = 4 + 4 + 8 + 8 };

/* Bytes that grow. */
struct text {
    char *p;
    size_t n, capacity;
};

struct mb_gguf_writer {
    mb_newfile file;
    struct text pairs, tensors;
    struct text keys, names; /* the same, each with a terminator: to find one twice */
    uint64_t n_pairs, n_tensors;
    uint64_t left; /* values that the open array still wants */
    uint64_t array_kind;
    int64_t *end; /* of each tensor's data, from the first's; then padding */
    size_t end_capacity;
    int64_t data_bytes; /* of the tensors, padded */
    uint64_t at;        /* the tensor being written */
    int64_t written;    /* data bytes so far */
    int64_t data_at;    /* in the file; 0: the header is not written */
};

static int64_t aligned(int64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

mb_status mb_gguf_writer_new(const char *path, mb_gguf_writer **out)
{
    mb_gguf_writer *w;

    MB_TRY(MB_NEW(&w));
    w->file.fd = -1;
    const mb_status st = mb_newfile_open(path, &w->file);
    if (st != MB_OK)
        mb_free(w);
    else
        *out = w;
    return st;
}

void mb_gguf_writer_free(mb_gguf_writer *w)
{
    if (w == NULL)
        return;
    mb_newfile_abandon(&w->file);
    mb_free(w->pairs.p);
    mb_free(w->tensors.p);
    mb_free(w->keys.p);
    mb_free(w->names.p);
    mb_free(w->end);
    mb_free(w);
}

static mb_status add(struct text *t, const void *bytes, size_t n)
{
    MB_TRY(mb_grow((void **)&t->p, &t->capacity, t->n + n, 1, "a GGUF header"));
    if (n > 0)
        memcpy(t->p + t->n, bytes, n);
    t->n += n;
    return MB_OK;
}

static mb_status add_string(struct text *t, const char *text, size_t n)
{
    const uint64_t length = n;

    MB_TRY(add(t, &length, sizeof length));
    return add(t, text, n);
}

/* ---- pairs -------------------------------------------------------------------------------- */

static bool listed(const struct text *list, const char *name)
{
    for (size_t i = 0; i < list->n; i += strlen(list->p + i) + 1)
        if (strcmp(list->p + i, name) == 0)
            return true;
    return false;
}

static mb_status begin(mb_gguf_writer *w, const char *key, uint32_t type)
{
    MB_REQUIRE(w->data_at == 0 && w->left == 0, MB_EBUG, "%s: '%s' comes too late", w->file.path,
               key);
    MB_REQUIRE(!listed(&w->keys, key), MB_EBUG, "%s: '%s' is set twice", w->file.path, key);
    MB_TRY(add(&w->keys, key, strlen(key) + 1));
    MB_TRY(add_string(&w->pairs, key, strlen(key)));
    w->n_pairs++;
    return add(&w->pairs, &type, sizeof type);
}

mb_status mb_gguf_put_u32(mb_gguf_writer *w, const char *key, uint32_t value)
{
    MB_TRY(begin(w, key, GGUF_U32));
    return add(&w->pairs, &value, sizeof value);
}

mb_status mb_gguf_put_f32(mb_gguf_writer *w, const char *key, float value)
{
    MB_TRY(begin(w, key, GGUF_F32));
    return add(&w->pairs, &value, sizeof value);
}

mb_status mb_gguf_put_bool(mb_gguf_writer *w, const char *key, bool value)
{
    const uint8_t byte = value;

    MB_TRY(begin(w, key, GGUF_BOOL));
    return add(&w->pairs, &byte, sizeof byte);
}

mb_status mb_gguf_put_string(mb_gguf_writer *w, const char *key, const char *value)
{
    MB_TRY(begin(w, key, GGUF_STRING));
    return add_string(&w->pairs, value, strlen(value));
}

static const uint32_t kinds[] = {[MB_GGUF_STRINGS] = GGUF_STRING,
                                 [MB_GGUF_I32S] = GGUF_I32,
                                 [MB_GGUF_F32S] = GGUF_F32,
                                 [MB_GGUF_U8S] = GGUF_U8};

mb_status mb_gguf_begin_array(mb_gguf_writer *w, const char *key, mb_gguf_kind kind, uint64_t n)
{
    MB_TRY(begin(w, key, GGUF_ARRAY));
    MB_TRY(add(&w->pairs, &kinds[kind], sizeof kinds[kind]));
    w->left = n;
    w->array_kind = kind;
    return add(&w->pairs, &n, sizeof n);
}

static mb_status take(mb_gguf_writer *w, mb_gguf_kind kind, uint64_t n)
{
    MB_REQUIRE(w->left >= n && w->array_kind == kind, MB_EBUG,
               "%s: an array has other values than it was begun with", w->file.path);
    w->left -= n;
    return MB_OK;
}

mb_status mb_gguf_add_string(mb_gguf_writer *w, const char *text, size_t n)
{
    MB_TRY(take(w, MB_GGUF_STRINGS, 1));
    return add_string(&w->pairs, text, n);
}

mb_status mb_gguf_add_i32(mb_gguf_writer *w, int32_t value)
{
    MB_TRY(take(w, MB_GGUF_I32S, 1));
    return add(&w->pairs, &value, sizeof value);
}

mb_status mb_gguf_add_f32(mb_gguf_writer *w, float value)
{
    MB_TRY(take(w, MB_GGUF_F32S, 1));
    return add(&w->pairs, &value, sizeof value);
}

mb_status mb_gguf_add_u8s(mb_gguf_writer *w, const uint8_t *value, size_t n)
{
    MB_TRY(take(w, MB_GGUF_U8S, n));
    return add(&w->pairs, value, n);
}

/* ---- tensors ------------------------------------------------------------------------------ */

mb_status mb_gguf_declare(mb_gguf_writer *w, const char *name, mb_dtype dtype, int ndim,
                          const int64_t *dim)
{
    const uint32_t dims = (uint32_t)ndim;
    const uint64_t offset = (uint64_t)w->data_bytes;
    uint32_t type;
    int64_t count = 1;

    MB_REQUIRE(w->data_at == 0, MB_EBUG, "%s: tensor '%s' comes too late", w->file.path, name);
    MB_REQUIRE(strlen(name) > 0 && strlen(name) <= MB_GGUF_NAME_MAX, MB_ENOTSUP,
               "%s: the name of tensor '%s' is longer than GGUF allows (%d bytes)", w->file.path,
               name, MB_GGUF_NAME_MAX);
    MB_REQUIRE(!listed(&w->names, name), MB_EBUG, "%s: tensor '%s' is there twice", w->file.path,
               name);
    MB_REQUIRE(mb_gguf_type_id(dtype, &type), MB_EBUG, "%s: tensor '%s' has type %s", w->file.path,
               name, mb_dtype_name(dtype));
    MB_REQUIRE(ndim >= 1 && ndim <= 4 && dim[ndim - 1] % mb_dtype_block(dtype) == 0, MB_EBUG,
               "%s: the rows of tensor '%s' are no whole blocks of %s", w->file.path, name,
               mb_dtype_name(dtype));
    MB_TRY(add(&w->names, name, strlen(name) + 1));
    MB_TRY(add_string(&w->tensors, name, strlen(name)));
    MB_TRY(add(&w->tensors, &dims, sizeof dims));
    for (int i = ndim - 1; i >= 0; i--) {
        const uint64_t ne = (uint64_t)dim[i];
        count *= dim[i];
        MB_TRY(add(&w->tensors, &ne, sizeof ne));
    }
    MB_TRY(add(&w->tensors, &type, sizeof type));
    MB_TRY(add(&w->tensors, &offset, sizeof offset));
    MB_TRY(mb_grow((void **)&w->end, &w->end_capacity, w->n_tensors + 1, sizeof *w->end,
                   "a tensor list"));
    w->end[w->n_tensors++] = w->data_bytes + mb_dtype_bytes(dtype, count);
    w->data_bytes = aligned(w->end[w->n_tensors - 1]);
    return MB_OK;
}

static mb_status write_header(mb_gguf_writer *w)
{
    static const char zeros[ALIGNMENT];
    const uint32_t version = VERSION;
    char start[START];
    int64_t at = START;

    MB_REQUIRE(w->left == 0, MB_EBUG, "%s: an array is not complete", w->file.path);
    memcpy(start, "GGUF", 4);
    memcpy(start + 4, &version, 4);
    memcpy(start + 8, &w->n_tensors, 8);
    memcpy(start + 16, &w->n_pairs, 8);
    MB_TRY(mb_pwrite_all(w->file.fd, start, START, 0, w->file.path));
    MB_TRY(mb_pwrite_all(w->file.fd, w->pairs.p, w->pairs.n, at, w->file.path));
    at += (int64_t)w->pairs.n;
    MB_TRY(mb_pwrite_all(w->file.fd, w->tensors.p, w->tensors.n, at, w->file.path));
    at += (int64_t)w->tensors.n;
    w->data_at = aligned(at);
    return mb_pwrite_all(w->file.fd, zeros, (size_t)(w->data_at - at), at, w->file.path);
}

/* The zeros behind a tensor that is complete. */
static mb_status pad(mb_gguf_writer *w)
{
    static const char zeros[ALIGNMENT];

    while (w->at < w->n_tensors && w->written == w->end[w->at]) {
        const int64_t n = aligned(w->written) - w->written;
        MB_TRY(mb_pwrite_all(w->file.fd, zeros, (size_t)n, w->data_at + w->written, w->file.path));
        w->written += n;
        w->at++;
    }
    return MB_OK;
}

mb_status mb_gguf_append(mb_gguf_writer *w, const void *data, int64_t bytes)
{
    const char *from = data;

    if (w->data_at == 0)
        MB_TRY(write_header(w));
    MB_TRY(pad(w));
    while (bytes > 0) {
        MB_REQUIRE(w->at < w->n_tensors, MB_EBUG, "%s: more bytes than the tensors have",
                   w->file.path);
        const int64_t room = w->end[w->at] - w->written, n = bytes < room ? bytes : room;
        MB_TRY(mb_pwrite_all(w->file.fd, from, (size_t)n, w->data_at + w->written, w->file.path));
        w->written += n;
        from += n;
        bytes -= n;
        MB_TRY(pad(w));
    }
    return MB_OK;
}

mb_status mb_gguf_writer_finish(mb_gguf_writer *w)
{
    MB_TRY(mb_gguf_append(w, NULL, 0));
    MB_REQUIRE(w->at == w->n_tensors, MB_EBUG, "%s: bytes of the last tensors are missing",
               w->file.path);
    MB_TRY(mb_newfile_sync(&w->file));
    return mb_newfile_publish(&w->file);
}
