/* core/formats/tensor_file.c - see core/formats/tensor_file.h.
 *
 * Each part (a shard, or the only file) is opened and its header parsed by its format; the tensor
 * lists are joined and sorted by name once, which finds duplicates across shards and serves lookups.
 */
#include "core/formats/tensor_file.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/formats/gguf.h"
#include "core/formats/safetensors.h"
#include "core/path.h"

/* an index is a line or so per tensor */
enum { MAX_INDEX_BYTES = 256 << 20, MAX_PARTS = 100000 };

struct part {
    char *path;
    int fd;
    mb_safetensors_header st; /* one of these two has been filled */
    mb_gguf *gguf;
};

struct mb_tensor_file {
    char *path;
    struct part *part;
    size_t n_parts, part_capacity;
    mb_tensor_info *info;
    size_t n, capacity;
    uint32_t *by_name; /* indices of info, sorted by name */
};

static bool is_pickle_name(const char *name)
{
    static const char *const suffixes[] = {".bin", ".pt", ".pth", ".ckpt"};

    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (mb_path_has_suffix(name, suffixes[i]))
            return true;
    return false;
}

static mb_status refuse_pickle(const char *path, const char *name)
{
    return MB_RAISE(MB_ENOTSUP,
                    "%s: '%s' holds pickled weights, which can run code when opened and are not "
                    "read; convert them once in Python: load the model with transformers' "
                    "from_pretrained and call save_pretrained(folder, safe_serialization=True)",
                    path, name);
}

static mb_status add_infos(mb_tensor_file *f, const mb_tensor_info *info, size_t n)
{
    MB_REQUIRE(n < UINT32_MAX - f->n, MB_ENOTSUP, "%s: more than 2^32 tensors", f->path);
    MB_TRY(mb_grow((void **)&f->info, &f->capacity, f->n + n, sizeof *f->info, "a tensor list"));
    for (size_t i = 0; i < n; i++) {
        f->info[f->n] = info[i];
        f->info[f->n].part = (int)f->n_parts - 1;
        f->n++;
    }
    return MB_OK;
}

/* Opens one file and adds its tensors. What was opened stays in f->part, also after a failure. */
static mb_status add_part(mb_tensor_file *f, const char *path)
{
    char magic[4] = "";
    int64_t size;
    struct part *p;

    MB_TRY(mb_grow((void **)&f->part, &f->part_capacity, f->n_parts + 1, sizeof *f->part,
                   "a file list"));
    p = &f->part[f->n_parts++];
    p->fd = -1;
    MB_TRY(mb_strdup(path, &p->path));
    MB_TRY(mb_file_open(path, MB_EMODEL, &p->fd, &size));
    if (size >= 4)
        MB_TRY(mb_pread_all(p->fd, magic, sizeof magic, 0, path));
    if (memcmp(magic, "PK\3\4", 4) == 0 || is_pickle_name(path))
        return refuse_pickle(path, mb_path_base(path));
    if (memcmp(magic, "GGUF", 4) == 0 || mb_path_has_suffix(path, ".gguf")) {
        const mb_tensor_info *info;
        MB_TRY(mb_gguf_open(path, p->fd, size, &p->gguf));
        const size_t n = mb_gguf_tensors(p->gguf, &info);
        return add_infos(f, info, n);
    }
    MB_TRY(mb_safetensors_open(path, p->fd, size, &p->st));
    return add_infos(f, p->st.info, p->st.n);
}

static int by_name(const void *a, const void *b, void *info)
{
    const mb_tensor_info *t = info;

    return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

static mb_status sort_names(mb_tensor_file *f)
{
    MB_TRY(MB_NEW_ARRAY(&f->by_name, f->n));
    for (size_t i = 0; i < f->n; i++)
        f->by_name[i] = (uint32_t)i;
    if (f->n > 0)
        qsort_r(f->by_name, f->n, sizeof *f->by_name, by_name, f->info);
    for (size_t i = 1; i < f->n; i++) {
        const mb_tensor_info *a = &f->info[f->by_name[i - 1]], *b = &f->info[f->by_name[i]];
        if (strcmp(a->name, b->name) != 0)
            continue;
        if (a->part == b->part)
            return MB_RAISE(MB_EMODEL, "%s: tensor '%s' is there twice", f->part[a->part].path,
                            a->name);
        return MB_RAISE(MB_EMODEL, "%s: tensor '%s' is also in '%s'", f->part[a->part].path,
                        a->name, mb_path_base(f->part[b->part].path));
    }
    return MB_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Opens every shard an index names, in the order of their names. */
static mb_status add_shards(mb_tensor_file *f, const char *dir, mb_json map)
{
    const size_t n = mb_json_count(map);
    const char **shard = NULL;
    char path[MB_PATH_MAX];
    size_t at = 0;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&shard, n));
    for (mb_json_it it = mb_json_first(map); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY_GOTO(mb_json_string(it.value, &shard[at], NULL), st, done);
        if (!mb_path_is_component(shard[at]) || !mb_path_has_suffix(shard[at], ".safetensors")) {
            st = mb_json_fault(it.value,
                               "is not the name of a .safetensors file in the same folder");
            goto done;
        }
        at++;
    }
    if (n > 0)
        qsort(shard, n, sizeof *shard, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && strcmp(shard[i], shard[i - 1]) == 0)
            continue;
        if (f->n_parts == MAX_PARTS) {
            st = MB_RAISE(MB_ENOTSUP, "%s: more than %d shards", f->path, MAX_PARTS);
            goto done;
        }
        MB_TRY_GOTO(mb_path_join(path, sizeof path, dir, shard[i]), st, done);
        MB_TRY_GOTO(add_part(f, path), st, done);
        if (f->part[f->n_parts - 1].gguf != NULL) {
            st = MB_RAISE(MB_EMODEL, "%s: a shard must be a safetensors file, this is GGUF", path);
            goto done;
        }
    }
done:
    mb_free(shard);
    return st;
}

/* Every tensor must be in the shard the index says. */
static mb_status check_index(const mb_tensor_file *f, mb_json map)
{
    for (mb_json_it it = mb_json_first(map); mb_json_more(&it); mb_json_next(&it)) {
        const int64_t i = mb_tensor_file_find(f, it.key);
        const char *shard;
        MB_TRY(mb_json_string(it.value, &shard, NULL));
        if (i < 0 || strcmp(mb_path_base(mb_tensor_file_path(f, i)), shard) != 0)
            return mb_json_fault(it.value, "says '%s', which does not hold this tensor", shard);
    }
    return MB_OK;
}

static mb_status open_sharded(mb_tensor_file *f, const char *dir, const char *index)
{
    mb_json_doc *doc;
    mb_json map;
    mb_status st = MB_OK;

    MB_TRY(mb_json_read(index, MB_EMODEL, MAX_INDEX_BYTES, &doc));
    MB_TRY_GOTO(mb_json_need(mb_json_root(doc), "weight_map", MB_JSON_OBJECT, &map), st, done);
    MB_TRY_GOTO(add_shards(f, dir, map), st, done);
    MB_TRY_GOTO(sort_names(f), st, done);
    MB_TRY_GOTO(check_index(f, map), st, done);
done:
    mb_json_free(doc);
    return st;
}

/* A folder without safetensors: its only .gguf, or why there is nothing to open. */
static mb_status open_gguf_in(mb_tensor_file *f, const char *dir)
{
    const char *gguf = NULL, *second = NULL, *pickle = NULL;
    char path[MB_PATH_MAX], **names;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n; i++) {
        if (mb_path_has_suffix(names[i], ".gguf")) {
            second = gguf;
            gguf = names[i];
        } else if (strcmp(names[i], "training_args.bin") != 0 && is_pickle_name(names[i])) {
            pickle = names[i];
        }
    }
    if (second != NULL)
        st = MB_RAISE(MB_EMODEL, "%s: has several .gguf files ('%s', '%s'), give the path of one",
                      dir, second, gguf);
    else if (gguf == NULL && pickle != NULL)
        st = refuse_pickle(dir, pickle);
    else if (gguf == NULL)
        st = MB_RAISE(MB_EMODEL,
                      "%s: the folder has neither model.safetensors nor "
                      "model.safetensors.index.json nor a .gguf file",
                      dir);
    if (st == MB_OK)
        st = mb_path_join(path, sizeof path, dir, gguf);
    if (st == MB_OK)
        st = add_part(f, path);
    mb_path_list_free(names, n);
    return st;
}

static mb_status open_any(mb_tensor_file *f, const char *path)
{
    char file[MB_PATH_MAX];

    MB_TRY(mb_strdup(path, &f->path));
    if (!mb_path_is_dir(path)) {
        MB_TRY(add_part(f, path));
        return sort_names(f);
    }
    MB_TRY(mb_path_join(file, sizeof file, path, "model.safetensors"));
    if (mb_path_exists(file)) {
        MB_TRY(add_part(f, file));
        return sort_names(f);
    }
    MB_TRY(mb_path_join(file, sizeof file, path, "model.safetensors.index.json"));
    if (mb_path_exists(file))
        return open_sharded(f, path, file);
    MB_TRY(open_gguf_in(f, path));
    return sort_names(f);
}

mb_status mb_tensor_file_open(const char *path, mb_tensor_file **out)
{
    mb_tensor_file *f = NULL;

    MB_TRY(MB_NEW(&f));
    const mb_status st = open_any(f, path);
    if (st != MB_OK) {
        mb_tensor_file_close(f);
        return st;
    }
    *out = f;
    return MB_OK;
}

void mb_tensor_file_close(mb_tensor_file *f)
{
    if (f == NULL)
        return;
    for (size_t i = 0; i < f->n_parts; i++) {
        struct part *p = &f->part[i];
        if (p->fd >= 0)
            close(p->fd);
        mb_safetensors_header_free(&p->st);
        mb_gguf_free(p->gguf);
        mb_free(p->path);
    }
    mb_free(f->part);
    mb_free(f->info);
    mb_free(f->by_name);
    mb_free(f->path);
    mb_free(f);
}

int64_t mb_tensor_file_count(const mb_tensor_file *f)
{
    return (int64_t)f->n;
}

const mb_tensor_info *mb_tensor_file_info(const mb_tensor_file *f, int64_t i)
{
    MB_ASSERT(i >= 0 && (size_t)i < f->n);
    return &f->info[i];
}

int64_t mb_tensor_file_find(const mb_tensor_file *f, const char *name)
{
    size_t lo = 0, hi = f->n;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const int order = strcmp(name, f->info[f->by_name[mid]].name);
        if (order == 0)
            return f->by_name[mid];
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return -1;
}

mb_status mb_tensor_file_read(const mb_tensor_file *f, int64_t i, void *dst, int64_t from,
                              int64_t bytes)
{
    const mb_tensor_info *t = mb_tensor_file_info(f, i);
    const struct part *p = &f->part[t->part];

    MB_REQUIRE(from >= 0 && bytes >= 0 && from <= t->bytes && bytes <= t->bytes - from, MB_EBUG,
               "%s: tensor '%s' has %lld bytes, %lld were asked from byte %lld", p->path, t->name,
               (long long)t->bytes, (long long)bytes, (long long)from);
    return mb_pread_all(p->fd, dst, (size_t)bytes, t->offset + from, p->path);
}

mb_status mb_tensor_file_stamp(const mb_tensor_file *f, uint64_t *stamp)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, by words */

    for (size_t i = 0; i < f->n_parts; i++) {
        struct stat s;

        MB_REQUIRE(fstat(f->part[i].fd, &s) == 0, MB_EIO, "%s: %s", f->part[i].path,
                   strerror(errno));
        const uint64_t words[] = {s.st_dev, s.st_ino, (uint64_t)s.st_size,
                                  (uint64_t)s.st_ctim.tv_sec, (uint64_t)s.st_ctim.tv_nsec};
        for (size_t k = 0; k < sizeof words / sizeof words[0]; k++)
            h = (h ^ words[k]) * 0x100000001b3u;
    }
    *stamp = h;
    return MB_OK;
}

const char *mb_tensor_file_path(const mb_tensor_file *f, int64_t i)
{
    return f->part[mb_tensor_file_info(f, i)->part].path;
}

const char *mb_tensor_file_name(const mb_tensor_file *f)
{
    return f->path;
}

const mb_gguf *mb_tensor_file_gguf(const mb_tensor_file *f)
{
    return f->n_parts == 1 ? f->part[0].gguf : NULL;
}

const char *mb_tensor_file_metadata(const mb_tensor_file *f, const char *key)
{
    for (size_t i = 0; i < f->n_parts; i++) {
        const char *value = mb_safetensors_metadata(&f->part[i].st, key);
        if (value != NULL)
            return value;
    }
    return NULL;
}
