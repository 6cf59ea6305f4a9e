/* core/formats/safetensors_writer.c - see core/formats/safetensors_writer.h. */
#include "core/formats/safetensors_writer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/formats/safetensors.h"
#include "core/json.h"
#include "core/path.h"

struct entry {
    char *name;
    mb_dtype dtype;
    int ndim;
    int64_t dim[MB_MAX_DIMS];
    int64_t bytes;
};

/* Tensors [first, first + n) of the list. */
struct shard {
    size_t first, n;
    int64_t bytes; /* of data */
    mb_newfile file;
};

struct mb_safetensors_writer {
    char *dir, *stem;
    int64_t max_shard_bytes;
    mb_json_doc *metadata;
    struct entry *entry;
    size_t n, capacity;
    struct shard *shard; /* planned at the first append */
    size_t n_shards;
    size_t at;        /* the shard being written */
    int64_t file_at;  /* where its next byte goes */
    int64_t data_end; /* and where its data ends */
};

mb_status mb_safetensors_writer_new(const char *dir, const char *stem, int64_t max_shard_bytes,
                                    mb_safetensors_writer **out)
{
    mb_safetensors_writer *w = NULL;
    mb_status st = MB_OK;

    MB_REQUIRE(mb_path_is_component(stem), MB_EARG, "'%s' cannot be the name of a file", stem);
    MB_TRY(MB_NEW(&w));
    w->max_shard_bytes = max_shard_bytes > 0 ? max_shard_bytes : INT64_MAX;
    MB_TRY_GOTO(mb_strdup(dir, &w->dir), st, done);
    MB_TRY_GOTO(mb_strdup(stem, &w->stem), st, done);
    MB_TRY_GOTO(mb_json_doc_new("__metadata__", &w->metadata), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(w->metadata), "format", "pt"), st, done);
    *out = w;
    w = NULL;
done:
    mb_safetensors_writer_free(w);
    return st;
}

void mb_safetensors_writer_free(mb_safetensors_writer *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->n_shards; i++)
        mb_newfile_abandon(&w->shard[i].file);
    for (size_t i = 0; i < w->n; i++)
        mb_free(w->entry[i].name);
    mb_json_free(w->metadata);
    mb_free(w->shard);
    mb_free(w->entry);
    mb_free(w->stem);
    mb_free(w->dir);
    mb_free(w);
}

mb_status mb_safetensors_metadata_set(mb_safetensors_writer *w, const char *key, const char *value)
{
    MB_REQUIRE(w->shard == NULL, MB_EBUG, "%s: metadata after the first data", w->dir);
    return mb_json_set_string(mb_json_root(w->metadata), key, value);
}

mb_status mb_safetensors_declare(mb_safetensors_writer *w, const char *name, mb_dtype dtype,
                                 int ndim, const int64_t *dim)
{
    struct entry e = {.dtype = dtype, .ndim = ndim, .bytes = mb_dtype_block_bytes(dtype)};
    const size_t length = strlen(name);

    MB_REQUIRE(w->shard == NULL, MB_EBUG, "%s: tensor '%s' declared after the first data", w->dir,
               name);
    MB_REQUIRE(!mb_dtype_is_quantised(dtype), MB_ENOTSUP,
               "%s: tensor '%s' has type %s, which safetensors cannot store", w->dir, name,
               mb_dtype_name(dtype));
    MB_REQUIRE(ndim >= 0 && ndim <= MB_MAX_DIMS, MB_EBUG, "tensor '%s' has %d dimensions", name,
               ndim);
    MB_REQUIRE(length > 0 && length <= MB_TENSOR_NAME_MAX && strcmp(name, "__metadata__") != 0,
               MB_EBUG, "'%.80s' cannot be the name of a tensor", name);
    for (int i = 0; i < ndim; i++) {
        e.dim[i] = dim[i];
        MB_REQUIRE(dim[i] >= 0 && !__builtin_mul_overflow(e.bytes, dim[i], &e.bytes), MB_EBUG,
                   "tensor '%s' has a dimension of %lld", name, (long long)dim[i]);
    }
    MB_TRY(mb_grow((void **)&w->entry, &w->capacity, w->n + 1, sizeof e, "a tensor list"));
    MB_TRY(mb_strdup(name, &e.name));
    w->entry[w->n++] = e;
    return MB_OK;
}

/* Fills shards greedily in the order of declaration. An empty model is one file with none. */
static mb_status plan(mb_safetensors_writer *w)
{
    struct shard *s;

    MB_TRY(MB_NEW_ARRAY(&w->shard, w->n + 1));
    w->n_shards = 1;
    s = w->shard;
    for (size_t i = 0; i < w->n; i++) {
        const int64_t bytes = w->entry[i].bytes;
        if (s->n > 0 && bytes > w->max_shard_bytes - s->bytes) {
            s = &w->shard[w->n_shards++];
            s->first = i;
        }
        s->n++;
        MB_REQUIRE(!__builtin_add_overflow(s->bytes, bytes, &s->bytes), MB_EBUG,
                   "%s: more than 2^63 bytes", w->dir);
    }
    for (size_t i = 0; i < w->n_shards; i++)
        w->shard[i].file.fd = -1;
    return MB_OK;
}

static void shard_name(const mb_safetensors_writer *w, size_t i, char *out, size_t size)
{
    if (w->n_shards == 1)
        snprintf(out, size, "%s.safetensors", w->stem);
    else
        snprintf(out, size, "%s-%05zu-of-%05zu.safetensors", w->stem, i + 1, w->n_shards);
}

static mb_status describe(const mb_safetensors_writer *w, const struct shard *s, mb_json root)
{
    int64_t at = 0;

    MB_TRY(mb_json_set(root, "__metadata__", mb_json_root(w->metadata)));
    for (size_t i = s->first; i < s->first + s->n; i++) {
        const struct entry *e = &w->entry[i];
        mb_json t, list;
        MB_REQUIRE(!mb_json_is_set(mb_json_get(root, e->name)), MB_EBUG,
                   "%s: tensor '%s' was declared twice", w->dir, e->name);
        MB_TRY(mb_json_set_object(root, e->name, &t));
        MB_TRY(mb_json_set_string(t, "dtype", mb_dtype_name(e->dtype)));
        MB_TRY(mb_json_set_array(t, "shape", &list));
        for (int d = 0; d < e->ndim; d++)
            MB_TRY(mb_json_set_int(list, NULL, e->dim[d]));
        MB_TRY(mb_json_set_array(t, "data_offsets", &list));
        MB_TRY(mb_json_set_int(list, NULL, at));
        at += e->bytes;
        MB_TRY(mb_json_set_int(list, NULL, at));
    }
    return MB_OK;
}

/* Writes the header of the current shard into its temporary file. */
static mb_status begin_shard(mb_safetensors_writer *w)
{
    struct shard *s = &w->shard[w->at];
    char name[300], path[MB_PATH_MAX], *text = NULL;
    mb_json_doc *doc = NULL;
    size_t n;
    mb_status st = MB_OK;

    shard_name(w, w->at, name, sizeof name);
    MB_TRY(mb_path_join(path, sizeof path, w->dir, name));
    MB_TRY(mb_newfile_open(path, &s->file));
    MB_TRY_GOTO(mb_json_doc_new(path, &doc), st, done);
    MB_TRY_GOTO(describe(w, s, mb_json_root(doc)), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, &n), st, done);
    const uint64_t padded = (n + 7) / 8 * 8;
    MB_TRY_GOTO(mb_pwrite_all(s->file.fd, &padded, 8, 0, path), st, done);
    MB_TRY_GOTO(mb_pwrite_all(s->file.fd, text, n, 8, path), st, done);
    MB_TRY_GOTO(mb_pwrite_all(s->file.fd, "       ", padded - n, 8 + (int64_t)n, path), st, done);
    w->file_at = 8 + (int64_t)padded;
    w->data_end = w->file_at + s->bytes;
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

mb_status mb_safetensors_append(mb_safetensors_writer *w, const void *data, int64_t bytes)
{
    const char *from = data;

    if (w->shard == NULL) {
        MB_TRY(plan(w));
        MB_TRY(begin_shard(w));
    }
    while (bytes > 0) {
        if (w->file_at == w->data_end) {
            MB_REQUIRE(w->at + 1 < w->n_shards, MB_EBUG,
                       "%s: %lld bytes more than the declared tensors have", w->dir,
                       (long long)bytes);
            MB_TRY(mb_newfile_sync(&w->shard[w->at].file));
            w->at++;
            MB_TRY(begin_shard(w));
            continue;
        }
        const int64_t room = w->data_end - w->file_at;
        const int64_t n = bytes < room ? bytes : room;
        const mb_newfile *f = &w->shard[w->at].file;
        MB_TRY(mb_pwrite_all(f->fd, from, (size_t)n, w->file_at, f->path));
        w->file_at += n;
        from += n;
        bytes -= n;
    }
    return MB_OK;
}

static mb_status write_index(const mb_safetensors_writer *w, const char *path)
{
    mb_json_doc *doc = NULL;
    mb_json inner;
    char name[300];
    int64_t total = 0;
    mb_status st = MB_OK;

    for (size_t i = 0; i < w->n_shards; i++)
        total += w->shard[i].bytes;
    MB_TRY(mb_json_doc_new(path, &doc));
    MB_TRY_GOTO(mb_json_set_object(mb_json_root(doc), "metadata", &inner), st, done);
    MB_TRY_GOTO(mb_json_set_int(inner, "total_size", total), st, done);
    MB_TRY_GOTO(mb_json_set_object(mb_json_root(doc), "weight_map", &inner), st, done);
    for (size_t i = 0; i < w->n_shards; i++) {
        const struct shard *s = &w->shard[i];
        shard_name(w, i, name, sizeof name);
        for (size_t k = s->first; k < s->first + s->n; k++) {
            if (mb_json_is_set(mb_json_get(inner, w->entry[k].name))) {
                st = MB_RAISE(MB_EBUG, "%s: tensor '%s' was declared twice", w->dir,
                              w->entry[k].name);
                goto done;
            }
            MB_TRY_GOTO(mb_json_set_string(inner, w->entry[k].name, name), st, done);
        }
    }
    MB_TRY_GOTO(mb_json_write(mb_json_root(doc), 2, path), st, done);
done:
    mb_json_free(doc);
    return st;
}

mb_status mb_safetensors_finish(mb_safetensors_writer *w)
{
    char single[MB_PATH_MAX], index[MB_PATH_MAX], name[300];

    MB_TRY(mb_safetensors_append(w, NULL, 0)); /* an empty model has no other call */
    while (w->file_at == w->data_end && w->at + 1 < w->n_shards) {
        MB_TRY(mb_newfile_sync(&w->shard[w->at].file));
        w->at++;
        MB_TRY(begin_shard(w)); /* shards of empty tensors only */
    }
    MB_REQUIRE(w->file_at == w->data_end, MB_EBUG, "%s: %lld bytes of the last tensors are missing",
               w->dir, (long long)(w->data_end - w->file_at));
    snprintf(name, sizeof name, "%s.safetensors", w->stem);
    MB_TRY(mb_path_join(single, sizeof single, w->dir, name));
    snprintf(name, sizeof name, "%s.safetensors.index.json", w->stem);
    MB_TRY(mb_path_join(index, sizeof index, w->dir, name));
    MB_TRY(mb_newfile_sync(&w->shard[w->at].file));
    for (size_t i = 0; i < w->n_shards; i++)
        MB_TRY(mb_newfile_publish(&w->shard[i].file));
    if (w->n_shards > 1) {
        MB_TRY(write_index(w, index));
        unlink(single);
    } else {
        unlink(index);
    }
    return mb_path_sync_dir(w->dir);
}
