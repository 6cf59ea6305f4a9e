/* recipes/data/store_build.c - a token store from the cache, or from files.
 *
 *     digest of everything the rows depend on -> cached? -> store_read.c on every rank -> agree ->
 *     store_join.c -> written to the cache by rank 0 -> hashes and counts, on every rank alike
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "core/rng.h"
#include "recipes/data/hdf5.h"
#include "recipes/data/store_cache.h"
#include "recipes/data/store_inside.h"

/* FNV-1a over the words of a row, finished by a mix so that all bits count. */
static uint64_t content_hash(const mb_store *s, int64_t r)
{
    const int64_t from = s->offset[r], n = s->offset[r + 1] - from;
    const int32_t *id = s->ids + from;
    const uint8_t *flags = s->flags + from;
    uint64_t h = 0xcbf29ce484222325ull ^ (uint64_t)(int64_t)s->label[r];

    for (int64_t i = s->extra_offset[r]; i < s->extra_offset[r + 1]; i++)
        h = (h ^ (uint32_t)s->extra[i]) * 0x100000001b3ull;
    for (const char *media = mb_store_media(s, r); media != NULL && *media != '\0'; media++)
        h = (h ^ (unsigned char)*media) * 0x100000001b3ull;
    for (int64_t i = 0; i < n; i++) {
        h = (h ^ (uint32_t)id[i]) * 0x100000001b3ull;
        h = (h ^ (flags[i] & MB_MARK_TRAINED)) * 0x100000001b3ull;
    }
    return mb_rng_key(h, 0, 0);
}

/* Adds up what the ranks counted. */
static mb_status sum_stats(struct mb_store_builder *b)
{
    mb_store_stats *s = &b->stats;
    int64_t v[] = {s->rows_read, s->bad,        s->empty,       s->untrained,      s->dropped,
                   s->truncated, s->double_bos, b->word_labels, b->integer_labels, s->long_sounds};

    MB_TRY(b->comm->ops->all_reduce(b->comm, v, 10, MB_DTYPE_I64, MB_SUM));
    MB_TRY(b->comm->ops->all_reduce(b->comm, &b->top_label, 1, MB_DTYPE_I64, MB_MAX));
    s->rows_read = v[0], s->bad = v[1], s->empty = v[2], s->untrained = v[3];
    s->dropped = v[4], s->truncated = v[5], s->double_bos = v[6];
    b->word_labels = v[7] > 0, b->integer_labels = v[8] > 0;
    s->long_sounds = v[9];
    return MB_OK;
}

/* Nothing to train on: says why, with rows. Rank 0 has the first chunk. */
static mb_status nothing_left(const struct mb_store_builder *b)
{
    const mb_store_stats *s = &b->stats;
    char rows[600];
    size_t at = 0;

    if (s->long_sounds > 0)
        return MB_RAISE(MB_EDATA,
                        "%s: no row is left: %lld read, %lld of them about sounds longer than %g "
                        "seconds (audio_seconds)",
                        b->o->source[0].path, (long long)s->rows_read, (long long)s->long_sounds,
                        b->o->most_seconds);
    if (s->untrained == 0)
        return MB_RAISE(MB_EDATA,
                        "%s: no row is left: %lld read, %lld bad, %lld empty, %lld longer than "
                        "max_length",
                        b->o->source[0].path, (long long)s->rows_read, (long long)s->bad,
                        (long long)s->empty, (long long)s->dropped);
    rows[0] = '\0';
    for (int i = 0; i < b->n_untrained && at < sizeof rows; i++)
        at += (size_t)snprintf(rows + at, sizeof rows - at, "%s%s:%lld: %s", i ? "; " : "",
                               b->o->source[b->untrained[i].source].path,
                               (long long)b->untrained[i].line, b->untrained[i].why);
    return MB_RAISE(MB_EDATA, "no row has a trained token (%lld of %lld rows): %s",
                    (long long)s->untrained, (long long)s->rows_read, rows);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int64_t extras_of(const mb_store *s, int64_t r)
{
    return s->extra_offset[r + 1] - s->extra_offset[r];
}

/* How many numbers or sentences a row has. */
static mb_status measure_extras(mb_store *s)
{
    char place[4200];

    s->n_sentences = 1;
    for (int64_t r = 0; r < s->n_rows; r++) {
        const int64_t n = extras_of(s, r) - (s->rows == MB_WANT_SENTENCES && s->scored);

        if (s->rows == MB_WANT_SENTENCES && n > s->n_sentences)
            s->n_sentences = n;
        if (s->rows != MB_WANT_NUMBERS || n == 0)
            continue;
        MB_REQUIRE(s->n_values == 0 || s->n_values == n, MB_EDATA,
                   "%s: the row has %lld numbers, rows before it have %lld",
                   mb_store_place(s, r, place, sizeof place), (long long)n, (long long)s->n_values);
        s->n_values = n;
    }
    return MB_OK;
}

/* What follows from the rows themselves: hashes, duplicates, lengths, counts of special tokens. */
static mb_status measure(mb_store *s, const mb_tokenizer *tok)
{
    const int32_t bos = mb_tokenizer_role(tok, MB_TOKEN_BOS);
    const int32_t eos = mb_tokenizer_role(tok, MB_TOKEN_EOS);
    mb_store_stats *c = &s->stats;
    uint64_t *sorted;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&s->hash, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&sorted, s->n_rows + 1));
    c->trained = c->bos = c->eos = c->duplicates = c->max_length = 0;
    c->min_length = INT64_MAX;
    for (int64_t r = 0; r < s->n_rows; r++) {
        const int64_t n = s->offset[r + 1] - s->offset[r];

        s->hash[r] = sorted[r] = content_hash(s, r);
        c->trained += s->trained[r];
        c->min_length = n < c->min_length ? n : c->min_length;
        c->max_length = n > c->max_length ? n : c->max_length;
    }
    for (int64_t t = 0; t < s->n_tokens; t++) {
        c->bos += s->ids[t] == bos;
        c->eos += s->ids[t] == eos;
    }
    MB_TRY_GOTO(measure_extras(s), st, done);
    qsort(sorted, (size_t)s->n_rows, sizeof *sorted, by_value);
    for (int64_t r = 1; r < s->n_rows; r++)
        c->duplicates += sorted[r] == sorted[r - 1];
    for (int64_t r = 1; r < s->n_rows && s->rows == MB_WANT_QUESTIONS; r++)
        if (mb_store_media(s, r) == NULL)
            s->hash[r] = s->hash[r - 1]; /* windows of one context are not split */
done:
    mb_free(sorted);
    return st;
}

static mb_status name_sources(mb_store *s, const mb_store_options *o)
{
    MB_TRY(MB_NEW_ARRAY(&s->source_name, o->n_sources));
    s->n_sources = o->n_sources;
    for (int i = 0; i < o->n_sources; i++)
        MB_TRY(mb_strdup(o->source[i].path, &s->source_name[i]));
    return MB_OK;
}

static mb_status add_text(mb_digest *d, const char *s)
{
    return mb_digest_add(d, s != NULL ? s : "", (s != NULL ? strlen(s) : 0) + 1);
}

/* sha256 of everything the rows depend on. */
static mb_status identity(const struct mb_store_builder *b, mb_digest *d)
{
    const mb_store_options *o = b->o;
    const int64_t numbers[] = {4 /* format */, o->n_sources,     o->max_length, o->excess,
                               o->rows,        o->n_label_names, o->doc_stride, o->unlabelled};

    MB_TRY(mb_digest_add(d, numbers, sizeof numbers));
    MB_TRY(mb_digest_add(d, &o->most_seconds, sizeof o->most_seconds));
    MB_TRY(add_text(d, mb_tokenizer_sha256(o->render.tokenizer)));
    MB_TRY(add_text(d, mb_renderer_identity(b->renderer)));
    for (int i = 0; i < o->n_label_names; i++)
        MB_TRY(add_text(d, o->label_names[i]));
    for (int i = 0; i < o->n_sources; i++) {
        const mb_source *s = &o->source[i];
        char group[MB_PATH_MAX], path[MB_PATH_MAX], side[2][MB_PATH_MAX];
        uint8_t bytes[MB_DIGEST_BYTES];
        int64_t size;
        int fd;

        MB_TRY(mb_source_file(s, group, sizeof group));
        mb_hdf5_file(group, path, sizeof path, NULL);
        MB_TRY(mb_file_open(path, MB_EDATA, &fd, &size));
        close(fd);
        MB_TRY(mb_digest_file(path, bytes));
        MB_TRY(mb_digest_add(d, bytes, sizeof bytes));
        if (mb_source_sides(s, path, side[0], side[1]))
            for (int k = 0; k < 2; k++) {
                MB_TRY(mb_source_may_open(s, side[k], path));
                MB_TRY(add_text(d, side[k]));
                MB_TRY(mb_digest_file(side[k], bytes));
                MB_TRY(mb_digest_add(d, bytes, sizeof bytes));
            }
        MB_TRY(add_text(d, s->path));
        MB_TRY(add_text(d, s->type));
        MB_TRY(add_text(d, s->split));
        MB_TRY(mb_digest_add(d, &s->skip_bad, sizeof s->skip_bad));
        /* data files were held to it above; which files rows name, and how, it decides for sounds alone */
        for (int k = 0; o->rows == MB_WANT_SOUND && s->within != NULL && s->within[k] != NULL; k++)
            MB_TRY(add_text(d, s->within[k]));
        for (int f = 0; f < s->n_fields; f++) {
            MB_TRY(add_text(d, s->field[f].canonical));
            MB_TRY(add_text(d, s->field[f].column));
        }
    }
    return MB_OK;
}

static mb_status compute_digest(const struct mb_store_builder *b, char hex[MB_DIGEST_HEX])
{
    uint8_t bytes[MB_DIGEST_BYTES];
    mb_digest *d;
    mb_status st;

    MB_TRY(mb_digest_new(&d));
    MB_TRY_GOTO(identity(b, d), st, done);
    MB_TRY_GOTO(mb_digest_end(d, bytes), st, done);
    mb_digest_hex(bytes, hex);
done:
    mb_digest_free(d);
    return st;
}

/* Rank 0 reads the files' digest and perhaps the cached store, and tells the others. */
static mb_status look_in_cache(struct mb_store_builder *b, bool *hit)
{
    mb_store *s = b->store;
    const char *dir = b->o->cache_dir;
    mb_status st = MB_OK;
    int64_t found = 0;

    if (b->comm->rank == 0) {
        st = compute_digest(b, s->digest);
        if (st == MB_OK && dir != NULL && dir[0] != '\0')
            st = mb_store_cache_read(dir, s, &s->from_cache);
        found = s->from_cache;
    }
    MB_TRY(mb_comm_agree(b->comm, st));
    MB_TRY(b->comm->ops->broadcast(b->comm, s->digest, sizeof s->digest, 0));
    MB_TRY(b->comm->ops->broadcast(b->comm, &found, sizeof found, 0));
    *hit = found != 0;
    if (!*hit)
        return MB_OK;
    st = mb_store_cache_share(s, b->comm);
    return mb_comm_agree(b->comm, st);
}

/* When several ranks failed, the one with the first row speaks: whoever reads the message mends the
 * file from the top. */
static mb_status first_failure(struct mb_store_builder *b, mb_status st)
{
    const int64_t at = st == MB_OK ? INT64_MAX : b->chunk.number;
    int64_t first = at;

    MB_TRY(b->comm->ops->all_reduce(b->comm, &first, 1, MB_DTYPE_I64, MB_MIN));
    if (st != MB_OK && at > first) {
        mb_status_clear();
        st = MB_OK;
    }
    return mb_comm_agree(b->comm, st);
}

static mb_status tokenise(struct mb_store_builder *b)
{
    const char *dir = b->o->cache_dir;
    mb_status st = mb_store_read(b);

    MB_TRY(first_failure(b, st));
    MB_TRY(sum_stats(b));

    int64_t rows = (int64_t)b->n_rows;

    MB_TRY(b->comm->ops->all_reduce(b->comm, &rows, 1, MB_DTYPE_I64, MB_SUM));
    st = rows == 0 && b->comm->rank == 0 ? nothing_left(b) : MB_OK;
    MB_TRY(mb_comm_agree(b->comm, st));
    st = mb_store_join(b);
    MB_TRY(mb_comm_agree(b->comm, st));
    b->store->stats = b->stats;
    if (b->comm->rank == 0 && dir != NULL && dir[0] != '\0' &&
        mb_store_cache_write(dir, b->store) != MB_OK) {
        mb_log_warn("the token store is not cached: %s", mb_status_sentence());
        mb_status_clear();
    }
    return MB_OK;
}

static void builder_release(struct mb_store_builder *b)
{
    if (b == NULL)
        return;
    mb_renderer_free(b->renderer);
    mb_free(b->chunk.text);
    for (int i = 0; b->result != NULL && i < MB_CHUNK_ROWS; i++) {
        mb_tokens_release(&b->result[i].tokens);
        mb_record_release(&b->result[i].record);
        mb_free(b->result[i].sentence);
    }
    mb_free(b->result);
    mb_free(b->about);
    mb_free(b->ids);
    mb_free(b->flags);
    mb_free(b->media);
    mb_free(b->extra);
    mb_ids_release(&b->row_extra);
    mb_tokens_release(&b->window);
    mb_names_release(&b->labels);
    mb_free(b);
}

static mb_status prepare(struct mb_store_builder *b)
{
    const mb_store_options *o = b->o;

    MB_REQUIRE(o->n_sources > 0, MB_EARG, "datasets is empty: there is nothing to train on");
    MB_REQUIRE(o->max_length >= 0 && o->max_length < INT32_MAX, MB_EARG, "max_length is %lld",
               (long long)o->max_length);
    MB_TRY(mb_renderer_new(&o->render, &b->renderer));
    const mb_chat *chat = mb_renderer_chat(b->renderer);
    b->store->dated = chat != NULL && mb_chat_says_date(chat);
    return name_sources(b->store, o);
}

mb_status mb_store_build(const mb_store_options *o, mb_comm *comm, mb_store **out)
{
    struct mb_store_builder *b = NULL;
    bool hit = false;
    mb_status st;

    st = MB_NEW(&b);
    if (st == MB_OK) {
        b->o = o;
        b->comm = comm;
        st = MB_NEW(&b->store);
    }
    if (st == MB_OK) {
        b->store->rows = o->rows;
        st = prepare(b);
    }
    MB_TRY_GOTO(mb_comm_agree(comm, st), st, fail);
    MB_TRY_GOTO(look_in_cache(b, &hit), st, fail);
    if (!hit)
        MB_TRY_GOTO(tokenise(b), st, fail);
    MB_TRY_GOTO(mb_comm_agree(comm, measure(b->store, o->render.tokenizer)), st, fail);
    *out = b->store;
    builder_release(b);
    return MB_OK;
fail:
    if (b != NULL)
        mb_store_free(b->store);
    builder_release(b);
    return st;
}
