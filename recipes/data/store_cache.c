/* recipes/data/store_cache.c - see recipes/data/store_cache.h. */
#include "recipes/data/store_cache.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/log.h"
#include "core/path.h"
#include "dist/h5.h"
#include "recipes/data/store_inside.h"

static const char *const FORMAT = "mbuyu-tokens-3";

/* The counts that cannot be had from the rows; in the order of the attribute "counts". */
enum { COUNTS = 8 };

static void counts_out(const mb_store_stats *c, int64_t v[COUNTS])
{
    const int64_t all[COUNTS] = {c->rows_read, c->bad,       c->empty,      c->untrained,
                                 c->dropped,   c->truncated, c->double_bos, c->long_sounds};

    memcpy(v, all, sizeof all);
}

static void counts_in(mb_store_stats *c, const int64_t v[COUNTS])
{
    c->rows_read = v[0], c->bad = v[1], c->empty = v[2], c->untrained = v[3];
    c->dropped = v[4], c->truncated = v[5], c->double_bos = v[6];
    c->long_sounds = v[7];
}

static mb_status cache_path(char *out, size_t size, const char *dir, const mb_store *s,
                            const char *ending)
{
    char name[MB_DIGEST_HEX + 16];

    snprintf(name, sizeof name, "%s%s", s->digest, ending);
    return mb_path_join(out, size, dir, name);
}

/* Ids below 2^16 take two bytes each. */
static mb_status put_ids(mb_h5 *f, const mb_store *s)
{
    bool narrow = true;
    uint16_t *small = NULL;
    mb_status st;

    for (int64_t t = 0; t < s->n_tokens && narrow; t++)
        narrow = s->ids[t] < 65536;
    if (!narrow)
        return mb_h5_put(f, "/tokens", MB_DTYPE_U32, s->n_tokens, s->ids);
    MB_TRY(MB_NEW_ARRAY(&small, s->n_tokens));
    for (int64_t t = 0; t < s->n_tokens; t++)
        small[t] = (uint16_t)s->ids[t];
    st = mb_h5_put(f, "/tokens", MB_DTYPE_U16, s->n_tokens, small);
    mb_free(small);
    return st;
}

static mb_status put_labels(mb_h5 *f, const mb_store *s)
{
    mb_json_doc *doc;
    char *text = NULL;
    mb_status st;

    MB_TRY(mb_json_doc_new_array("labels", &doc));
    for (int i = 0; i < s->n_labels; i++)
        MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), NULL, s->label_name[i]), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, NULL), st, done);
    st = mb_h5_put_text(f, "/labels", text);
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

static mb_status fill_image(const mb_store *s, mb_h5 *f)
{
    const int64_t scored = s->scored;
    int64_t counts[COUNTS];

    counts_out(&s->stats, counts);
    MB_TRY(put_ids(f, s));
    MB_TRY(mb_h5_put(f, "/mask", MB_DTYPE_U8, s->n_tokens, s->flags));
    MB_TRY(mb_h5_put(f, "/offsets", MB_DTYPE_U64, s->n_rows + 1, s->offset));
    MB_TRY(mb_h5_put(f, "/label", MB_DTYPE_I32, s->n_rows, s->label));
    MB_TRY(mb_h5_put(f, "/extra_offsets", MB_DTYPE_U64, s->n_rows + 1, s->extra_offset));
    MB_TRY(mb_h5_put(f, "/extra", MB_DTYPE_I32, s->extra_offset[s->n_rows], s->extra));
    MB_TRY(mb_h5_set_ints(f, "/", "scored", 1, &scored));
    MB_TRY(mb_h5_put(f, "/source", MB_DTYPE_I32, s->n_rows, s->source));
    MB_TRY(mb_h5_put(f, "/line", MB_DTYPE_I64, s->n_rows, s->line));
    MB_TRY(mb_h5_put(f, "/record", MB_DTYPE_I64, s->n_rows, s->record));
    MB_TRY(mb_h5_put(f, "/media", MB_DTYPE_U8, s->n_media, s->media));
    MB_TRY(mb_h5_put(f, "/media_at", MB_DTYPE_I64, s->n_rows + 1, s->media_at));
    MB_TRY(put_labels(f, s));
    MB_TRY(mb_h5_set_text(f, "/", "format", FORMAT));
    MB_TRY(mb_h5_set_text(f, "/", "digest", s->digest));
    return mb_h5_set_ints(f, "/", "counts", COUNTS, counts);
}

mb_status mb_store_cache_write(const char *dir, const mb_store *s)
{
    char path[MB_PATH_MAX], hex[MB_DIGEST_HEX];
    uint8_t digest[MB_DIGEST_BYTES];
    void *bytes = NULL;
    size_t n = 0;
    mb_h5 *f;
    mb_status st;

    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(cache_path(path, sizeof path, dir, s, ".h5"));
    MB_TRY(mb_h5_create_image(
        path, (size_t)s->n_tokens * 3 + (size_t)s->n_rows * 32 + (size_t)s->n_media, &f));
    st = fill_image(s, f);
    if (st != MB_OK) {
        (void)!mb_h5_close(f);
        return st;
    }
    MB_TRY(mb_h5_close_image(f, &bytes, &n));
    st = mb_file_write_atomic(path, bytes, n);
    if (st == MB_OK)
        st = mb_digest_memory(bytes, n, digest);
    mb_free(bytes);
    MB_TRY(st);
    mb_digest_hex(digest, hex);
    MB_TRY(cache_path(path, sizeof path, dir, s, ".sha256"));
    return mb_file_write_atomic(path, hex, strlen(hex));
}

/* A 1-D dataset that must have n elements. */
static mb_status get(mb_h5 *f, const char *path, mb_dtype d, int64_t n, void *out)
{
    int64_t dim[MB_MAX_DIMS];
    mb_dtype stored;
    int ndim;

    MB_TRY(mb_h5_shape(f, path, &stored, &ndim, dim));
    MB_REQUIRE(ndim == 1 && dim[0] == n, MB_EIO, "the cache's %s has the wrong shape", path);
    return mb_h5_read_range(f, path, d, 0, n, out);
}

static mb_status get_labels(mb_h5 *f, mb_store *s)
{
    mb_json_doc *doc = NULL;
    char *text = NULL;
    mb_status st;
    int n;

    MB_TRY(mb_h5_read_text(f, "/labels", &text));
    MB_TRY_GOTO(mb_json_parse(text, strlen(text), "labels", 0, MB_EIO, &doc), st, done);
    n = (int)mb_json_count(mb_json_root(doc));
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->label_name, n + 1), st, done);
    s->n_labels = n;
    for (int i = 0; i < n; i++) {
        const char *name;

        MB_TRY_GOTO(mb_json_string(mb_json_at(mb_json_root(doc), (size_t)i), &name, NULL), st,
                    done);
        MB_TRY_GOTO(mb_strdup(name, &s->label_name[i]), st, done);
    }
done:
    mb_json_free(doc);
    mb_free(text);
    return st;
}

static mb_status make_arrays(mb_store *s, int64_t n_extra)
{
    MB_TRY(MB_NEW_ARRAY(&s->ids, s->n_tokens));
    MB_TRY(MB_NEW_ARRAY(&s->flags, s->n_tokens));
    MB_TRY(MB_NEW_ARRAY(&s->offset, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->media, s->n_media + 1));
    MB_TRY(MB_NEW_ARRAY(&s->media_at, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->extra, n_extra));
    MB_TRY(MB_NEW_ARRAY(&s->extra_offset, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->trained, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->label, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->source, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->line, s->n_rows));
    return MB_NEW_ARRAY(&s->record, s->n_rows);
}

static mb_status check_rows(mb_store *s, int64_t n_extra)
{
    MB_REQUIRE(s->offset[0] == 0 && s->offset[s->n_rows] == s->n_tokens &&
                   s->extra_offset[0] == 0 && s->extra_offset[s->n_rows] == n_extra,
               MB_EIO, "the cache's offsets do not fit its tokens");
    MB_REQUIRE(s->media_at[0] == 0 && s->media_at[s->n_rows] == s->n_media, MB_EIO,
               "the cache's paths do not fit its rows");
    for (int64_t r = 0; r < s->n_rows; r++) {
        MB_REQUIRE(
            s->offset[r] <= s->offset[r + 1] && s->source[r] >= 0 && s->source[r] < s->n_sources &&
                s->extra_offset[r] <= s->extra_offset[r + 1] &&
                s->media_at[r] <= s->media_at[r + 1] &&
                (s->media_at[r] == s->media_at[r + 1] || s->media[s->media_at[r + 1] - 1] == '\0'),
            MB_EIO, "row %lld of the cache is out of order", (long long)r);
        s->trained[r] =
            mb_store_count_trained(s->flags + s->offset[r], s->offset[r + 1] - s->offset[r]);
    }
    return MB_OK;
}

static mb_status get_store(mb_h5 *f, mb_store *s)
{
    int64_t counts[COUNTS], dim[MB_MAX_DIMS], n_extra, scored;
    char *text = NULL;
    mb_dtype d;
    int ndim;
    bool same;

    MB_TRY(mb_h5_get_text(f, "/", "format", &text));
    same = strcmp(text, FORMAT) == 0;
    mb_free(text);
    MB_REQUIRE(same, MB_EIO, "the cache has another format");
    MB_TRY(mb_h5_shape(f, "/tokens", &d, &ndim, dim));
    MB_REQUIRE(ndim == 1, MB_EIO, "the cache's tokens have the wrong shape");
    s->n_tokens = dim[0];
    MB_TRY(mb_h5_shape(f, "/label", &d, &ndim, dim));
    MB_REQUIRE(ndim == 1, MB_EIO, "the cache's labels have the wrong shape");
    s->n_rows = dim[0];
    MB_TRY(mb_h5_shape(f, "/media", &d, &ndim, dim));
    MB_REQUIRE(ndim == 1, MB_EIO, "the cache's paths have the wrong shape");
    s->n_media = dim[0];
    MB_TRY(mb_h5_shape(f, "/extra", &d, &ndim, dim));
    MB_REQUIRE(ndim == 1, MB_EIO, "the cache's labels have the wrong shape");
    n_extra = dim[0];
    MB_TRY(make_arrays(s, n_extra));
    MB_TRY(get(f, "/extra_offsets", MB_DTYPE_I64, s->n_rows + 1, s->extra_offset));
    MB_TRY(get(f, "/extra", MB_DTYPE_I32, n_extra, s->extra));
    MB_TRY(mb_h5_get_ints(f, "/", "scored", 1, &scored));
    s->scored = scored != 0;
    MB_TRY(get(f, "/media", MB_DTYPE_U8, s->n_media, s->media));
    MB_TRY(get(f, "/media_at", MB_DTYPE_I64, s->n_rows + 1, s->media_at));
    MB_TRY(get(f, "/tokens", MB_DTYPE_I32, s->n_tokens, s->ids));
    MB_TRY(get(f, "/mask", MB_DTYPE_U8, s->n_tokens, s->flags));
    MB_TRY(get(f, "/offsets", MB_DTYPE_I64, s->n_rows + 1, s->offset));
    MB_TRY(get(f, "/label", MB_DTYPE_I32, s->n_rows, s->label));
    MB_TRY(get(f, "/source", MB_DTYPE_I32, s->n_rows, s->source));
    MB_TRY(get(f, "/line", MB_DTYPE_I64, s->n_rows, s->line));
    MB_TRY(get(f, "/record", MB_DTYPE_I64, s->n_rows, s->record));
    MB_TRY(mb_h5_get_ints(f, "/", "counts", COUNTS, counts));
    counts_in(&s->stats, counts);
    MB_TRY(check_rows(s, n_extra));
    return get_labels(f, s);
}

/* Back to a store without rows. */
static void forget(mb_store *s)
{
    for (int i = 0; s->label_name != NULL && i < s->n_labels; i++)
        mb_free(s->label_name[i]);
    mb_free(s->label_name);
    mb_free(s->ids);
    mb_free(s->flags);
    mb_free(s->offset);
    mb_free(s->trained);
    mb_free(s->label);
    mb_free(s->source);
    mb_free(s->line);
    mb_free(s->record);
    mb_free(s->media);
    mb_free(s->media_at);
    s->media = NULL, s->media_at = NULL, s->n_media = 0;
    mb_free(s->extra);
    mb_free(s->extra_offset);
    s->extra = NULL, s->extra_offset = NULL;
    s->label_name = NULL, s->ids = NULL, s->flags = NULL, s->offset = NULL, s->trained = NULL;
    s->label = NULL, s->source = NULL, s->line = NULL, s->record = NULL;
    s->n_labels = 0, s->n_rows = s->n_tokens = 0;
    s->stats = (mb_store_stats){0};
}

/* The bytes of the file, when they are what was written. */
static mb_status checked_bytes(const char *dir, const mb_store *s, char **bytes, size_t *n)
{
    char path[MB_PATH_MAX], sum[MB_PATH_MAX], hex[MB_DIGEST_HEX], *want = NULL;
    uint8_t digest[MB_DIGEST_BYTES];
    size_t n_want;
    bool same;

    MB_TRY(cache_path(path, sizeof path, dir, s, ".h5"));
    MB_TRY(cache_path(sum, sizeof sum, dir, s, ".sha256"));
    MB_TRY(mb_file_read(sum, 4096, &want, &n_want));
    if (mb_file_read(path, SIZE_MAX / 2, bytes, n) != MB_OK ||
        mb_digest_memory(*bytes, *n, digest) != MB_OK) {
        mb_free(want);
        return mb_status_recorded();
    }
    mb_digest_hex(digest, hex);
    same = strcmp(hex, want) == 0;
    mb_free(want);
    MB_REQUIRE(same, MB_EIO, "%s: its digest is not that of %s", path, sum);
    return MB_OK;
}

mb_status mb_store_cache_read(const char *dir, mb_store *s, bool *hit)
{
    char path[MB_PATH_MAX];
    char *bytes = NULL;
    size_t n = 0;
    mb_h5 *f = NULL;
    mb_status st;

    *hit = false;
    MB_TRY(cache_path(path, sizeof path, dir, s, ".sha256"));
    if (!mb_path_exists(path))
        return MB_OK;
    st = checked_bytes(dir, s, &bytes, &n);
    if (st == MB_OK)
        st = mb_h5_open_image("a cached token store", bytes, n, MB_EIO, &f); /* no file's name */
    if (st == MB_OK)
        st = get_store(f, s);
    if (f != NULL && mb_h5_close(f) != MB_OK && st == MB_OK)
        st = MB_EIO;
    mb_free(bytes);
    *hit = st == MB_OK;
    if (*hit)
        return MB_OK;
    forget(s);
    mb_log_warn("the cached token store is not used and will be made again: %s",
                mb_status_sentence());
    mb_status_clear();
    return MB_OK;
}

static mb_status share_labels(mb_store *s, mb_comm *comm)
{
    for (int i = 0; i < s->n_labels; i++)
        MB_TRY(mb_comm_broadcast_string(comm, &s->label_name[i], 0));
    return MB_OK;
}

mb_status mb_store_cache_share(mb_store *s, mb_comm *comm)
{
    int64_t head[6 + COUNTS] = {s->n_rows,   s->n_tokens,
                                s->n_labels, s->n_rows > 0 ? s->extra_offset[s->n_rows] : 0,
                                s->scored,   s->n_media};
    mb_status st = MB_OK;

    if (comm->size == 1)
        return MB_OK;
    counts_out(&s->stats, head + 6);
    MB_TRY(comm->ops->broadcast(comm, head, sizeof head, 0));
    if (comm->rank != 0) {
        s->n_rows = head[0], s->n_tokens = head[1], s->n_media = head[5];
        counts_in(&s->stats, head + 6);
        s->scored = head[4] != 0;
        s->from_cache = true;
        st = make_arrays(s, head[3]);
        if (st == MB_OK)
            st = MB_NEW_ARRAY(&s->label_name, head[2] + 1);
        s->n_labels = st == MB_OK ? (int)head[2] : 0;
    }
    MB_TRY(mb_comm_agree(comm, st));

    const struct {
        void *at;
        int64_t bytes;
    } part[] = {
        {s->ids, 4 * s->n_tokens},        {s->flags, s->n_tokens},
        {s->offset, 8 * (s->n_rows + 1)}, {s->trained, 4 * s->n_rows},
        {s->label, 4 * s->n_rows},        {s->source, 4 * s->n_rows},
        {s->line, 8 * s->n_rows},         {s->record, 8 * s->n_rows},
        {s->extra, 4 * head[3]},          {s->extra_offset, 8 * (s->n_rows + 1)},
        {s->media, s->n_media},           {s->media_at, 8 * (s->n_rows + 1)},
    };
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++)
        MB_TRY(comm->ops->broadcast(comm, part[i].at, part[i].bytes, 0));
    return share_labels(s, comm);
}
