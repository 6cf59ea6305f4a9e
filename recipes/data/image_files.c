/* recipes/data/image_files.c - see recipes/data/image_files.h.
 *
 *     rank 0 lists -> all ranks have the list -> chunk c of 256 pictures is decoded by rank c mod
 *     size -> sizes and digests are added up -> every rank makes the same store
 */
#include "recipes/data/image_files.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/rng.h"
#include "recipes/data/image_list.h"
#include "recipes/media/image.h"

enum { CHUNK = 256 };

/* Of a picture, as numbers that can be added up over ranks. */
enum { BAD, WIDTH, HEIGHT, BYTES, HASH, FACTS };

struct build {
    const mb_store_options *o;
    mb_comm *comm;
    mb_image_list list;
    int64_t *fact; /* (n, FACTS) */
    int64_t first_bad;
    mb_status bad_status;
    char *why; /* of the first bad picture of this rank */
    mb_store *store;
};

/* ---- the list ----------------------------------------------------------------------------- */

static mb_status make_list(struct build *b)
{
    for (int i = 0; i < b->o->n_sources; i++)
        MB_TRY(mb_image_list_add(&b->list, &b->o->source[i], i));
    return MB_OK;
}

/* Folders may change while ranks look at them: one looks for all. */
static mb_status share_list(struct build *b)
{
    mb_image_list *l = &b->list;
    int64_t head[3];
    mb_status st = b->comm->rank == 0 ? make_list(b) : MB_OK;

    MB_TRY(mb_comm_agree(b->comm, st));
    head[0] = l->n, head[1] = l->n_text, head[2] = l->other_files;
    MB_TRY(b->comm->ops->broadcast(b->comm, head, sizeof head, 0));
    if (b->comm->rank != 0) {
        l->n = head[0], l->n_text = head[1], l->other_files = head[2];
        st = MB_NEW_ARRAY(&l->entry, l->n);
        if (st == MB_OK)
            st = MB_NEW_ARRAY(&l->text, l->n_text);
    }
    MB_TRY(mb_comm_agree(b->comm, st));
    MB_TRY(b->comm->ops->broadcast(b->comm, l->entry, l->n * (int64_t)sizeof *l->entry, 0));
    return b->comm->ops->broadcast(b->comm, l->text, l->n_text, 0);
}

/* ---- looking at pictures ------------------------------------------------------------------ */

static void note_bad(struct build *b, int64_t i, mb_status st)
{
#pragma omp critical(mb_image_files_bad)
    if (i < b->first_bad) {
        mb_free(b->why);
        b->why = NULL;
        b->first_bad = i;
        b->bad_status = st;
        if (mb_strdup(mb_status_sentence(), &b->why) != MB_OK)
            b->why = NULL;
    }
    mb_status_clear();
}

static void look(struct build *b, mb_image *im, int64_t i)
{
    const char *path = b->list.text + b->list.entry[i].path;
    int64_t *fact = b->fact + i * FACTS, size = 0;
    uint8_t digest[MB_DIGEST_BYTES];
    mb_status st = mb_image_read(path, MB_ALPHA_DROP, im, &size);

    if (st == MB_OK)
        st = mb_digest_memory(im->file, (size_t)size, digest);
    if (st != MB_OK) {
        fact[BAD] = 1;
        if (st == MB_EDATA && b->o->source[b->list.entry[i].source].skip_bad)
            mb_status_clear();
        else
            note_bad(b, i, st);
        return;
    }
    fact[WIDTH] = im->width;
    fact[HEIGHT] = im->height;
    fact[BYTES] = size;
    memcpy(&fact[HASH], digest, sizeof fact[HASH]);
}

static void look_at_mine(struct build *b)
{
    const int64_t n = b->list.n, mine = b->comm->rank, size = b->comm->size;

#pragma omp parallel
    {
        mb_image im = {0};
#pragma omp for schedule(dynamic, 16)
        for (int64_t i = 0; i < n; i++)
            if (i / CHUNK % size == mine)
                look(b, &im, i);
        mb_image_release(&im);
    }
}

/* Where bad rows are errors, the rank with the first one speaks. */
static mb_status refuse_bad(struct build *b)
{
    int64_t first = b->first_bad;

    MB_TRY(b->comm->ops->all_reduce(b->comm, &first, 1, MB_DTYPE_I64, MB_MIN));
    return mb_comm_agree(
        b->comm, first < INT64_MAX && b->first_bad == first
                     ? MB_RAISE(b->bad_status, "%s", b->why != NULL ? b->why : "not enough memory")
                     : MB_OK);
}

/* ---- classes ------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A whole number from 0 that is written as such; -1 otherwise. */
static int64_t number_of(const char *s)
{
    char *end;
    const int64_t v = strtoll(s, &end, 10);

    return s[0] >= '0' && s[0] <= '9' && (s[0] != '0' || s[1] == '\0') && *end == '\0' &&
                   v < 1000000
               ? v
               : -1;
}

static const char *label_of(const struct build *b, int64_t i)
{
    return b->list.text + b->list.entry[i].label;
}

static mb_status name_classes(struct build *b, const char **names, int64_t n)
{
    mb_store *s = b->store;

    MB_TRY(MB_NEW_ARRAY(&s->label_name, n + 1));
    for (int64_t i = 0; i < n; i++, s->n_labels++)
        MB_TRY(names != NULL ? mb_strdup(names[i], &s->label_name[i])
                             : mb_asprintf(&s->label_name[i], "%lld", (long long)i));
    return MB_OK;
}

static mb_status find_classes(struct build *b, const int64_t *row, const char **sorted)
{
    const mb_store_options *o = b->o;
    int64_t top = -1, n = 0;
    bool numbers = true;

    if (o->n_label_names > 0)
        return name_classes(b, (const char **)(uintptr_t)o->label_names, o->n_label_names);
    for (int64_t i = 0; i < b->store->n_rows; i++) {
        sorted[i] = label_of(b, row[i]);
        const int64_t v = number_of(sorted[i]);
        numbers = numbers && v >= 0;
        top = v > top ? v : top;
    }
    if (numbers)
        return name_classes(b, NULL, top + 1);
    qsort(sorted, (size_t)b->store->n_rows, sizeof *sorted, by_name);
    for (int64_t i = 0; i < b->store->n_rows; i++)
        if (n == 0 || strcmp(sorted[n - 1], sorted[i]) != 0)
            sorted[n++] = sorted[i];
    return name_classes(b, sorted, n);
}

/* By name, else by number. */
static mb_status class_of(const struct build *b, int64_t i, int32_t *out)
{
    const mb_store *s = b->store;
    const char *name = label_of(b, i);
    const int64_t v = number_of(name);
    const bool found = *out < s->n_labels && *out >= 0 && strcmp(s->label_name[*out], name) == 0;

    for (int k = 0; k < s->n_labels && !found; k++)
        if (strcmp(s->label_name[k], name) == 0) {
            *out = k;
            return MB_OK;
        }
    if (found)
        return MB_OK;
    MB_REQUIRE(v >= 0 && v < s->n_labels, MB_EDATA,
               "%s: the label \"%s\" is not one of the model's %d (\"%s\", ...)",
               b->list.text + b->list.entry[i].path, name, s->n_labels, s->label_name[0]);
    *out = (int32_t)v;
    return MB_OK;
}

/* ---- the store ---------------------------------------------------------------------------- */

static mb_status take_rows(struct build *b, int64_t tokens, int64_t *row)
{
    mb_store *s = b->store;
    int64_t text = 0;

    for (int64_t i = 0; i < b->list.n; i++) {
        s->stats.rows_read++;
        s->stats.bad += b->fact[i * FACTS + BAD] != 0;
        if (b->fact[i * FACTS + BAD] == 0)
            row[s->n_rows++] = i;
    }
    MB_REQUIRE(s->n_rows > 0, MB_EDATA, "%s: no picture is left: %lld of %lld cannot be read",
               b->o->source[0].path, (long long)s->stats.bad, (long long)s->stats.rows_read);
    for (int64_t i = 0; i < s->n_rows; i++)
        text += (int64_t)strlen(b->list.text + b->list.entry[row[i]].path) + 1;
    MB_TRY(MB_NEW_ARRAY(&s->offset, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->trained, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->label, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->source, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->line, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->record, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->hash, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->picture, s->n_rows));
    s->rows = MB_WANT_CLASS;
    s->n_sentences = 1;
    MB_TRY(MB_NEW_ARRAY(&s->media, text + 1));
    MB_TRY(MB_NEW_ARRAY(&s->media_at, s->n_rows + 1));
    s->n_media = text;
    s->n_tokens = s->n_rows * tokens;
    s->stats.trained = s->n_rows;
    s->stats.min_length = s->stats.max_length = tokens;
    return MB_OK;
}

static mb_status fill_rows(struct build *b, int64_t tokens, const int64_t *row)
{
    mb_store *s = b->store;
    int32_t class = -1;
    int64_t text = 0;

    for (int64_t i = 0; i < s->n_rows; i++) {
        const mb_image_entry *e = &b->list.entry[row[i]];
        const int64_t *fact = b->fact + row[i] * FACTS;
        const char *path = b->list.text + e->path;
        const int64_t n = (int64_t)strlen(path) + 1;
        MB_TRY(class_of(b, row[i], &class));
        s->offset[i + 1] = (i + 1) * tokens;
        s->trained[i] = 1;
        s->label[i] = class;
        s->source[i] = e->source;
        s->line[i] = e->line;
        s->record[i] = e->record;
        s->hash[i] = mb_rng_key((uint64_t)fact[HASH], 0, (uint64_t) class);
        s->picture[i] =
            (mb_picture){.width = fact[WIDTH], .height = fact[HEIGHT], .bytes = fact[BYTES]};
        memcpy(s->media + text, path, (size_t)n);
        text += n;
        s->media_at[i + 1] = text;
    }
    return MB_OK;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void count_duplicates(mb_store *s, uint64_t *work)
{
    memcpy(work, s->hash, (size_t)s->n_rows * sizeof *work);
    qsort(work, (size_t)s->n_rows, sizeof *work, by_value);
    for (int64_t i = 1; i < s->n_rows; i++)
        s->stats.duplicates += work[i] == work[i - 1];
}

/* Order, classes and content of all pictures; not where they lie. */
static mb_status identify(mb_store *s)
{
    uint8_t bytes[MB_DIGEST_BYTES];
    mb_digest *d;
    mb_status st;

    MB_TRY(mb_digest_new(&d));
    MB_TRY_GOTO(mb_digest_add(d, "pictures/1", 10), st, done);
    MB_TRY_GOTO(mb_digest_add(d, s->hash, (size_t)s->n_rows * sizeof *s->hash), st, done);
    MB_TRY_GOTO(mb_digest_add(d, s->label, (size_t)s->n_rows * sizeof *s->label), st, done);
    MB_TRY_GOTO(mb_digest_end(d, bytes), st, done);
    mb_digest_hex(bytes, s->digest);
done:
    mb_digest_free(d);
    return st;
}

static mb_status make_store(struct build *b, int64_t tokens)
{
    mb_store *s = b->store;
    int64_t *row = NULL;
    const char **names = NULL;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&row, b->list.n + 1));
    MB_TRY_GOTO(take_rows(b, tokens, row), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&names, s->n_rows + 1), st, done);
    MB_TRY_GOTO(find_classes(b, row, names), st, done);
    MB_TRY_GOTO(fill_rows(b, tokens, row), st, done);
    count_duplicates(s, (uint64_t *)row);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->source_name, b->o->n_sources), st, done);
    for (int i = 0; i < b->o->n_sources; i++, s->n_sources++)
        MB_TRY_GOTO(mb_strdup(b->o->source[i].path, &s->source_name[i]), st, done);
    st = identify(s);
done:
    mb_free(row);
    mb_free(names);
    return st;
}

static mb_status build(struct build *b, int64_t tokens)
{
    MB_REQUIRE(b->o->n_sources > 0, MB_EARG, "datasets is empty: there is nothing to train on");
    MB_TRY(share_list(b));
    MB_TRY(mb_comm_agree(b->comm, MB_NEW_ARRAY(&b->fact, b->list.n * FACTS)));
    look_at_mine(b);
    MB_TRY(refuse_bad(b));
    MB_TRY(b->comm->ops->all_reduce(b->comm, b->fact, b->list.n * FACTS, MB_DTYPE_I64, MB_SUM));
    if (b->list.other_files > 0 && b->comm->rank == 0)
        mb_log_info("%s: %lld files are neither .png nor .jpg and were left out",
                    b->o->source[0].path, (long long)b->list.other_files);
    return mb_comm_agree(b->comm, make_store(b, tokens));
}

mb_status mb_image_store_build(const mb_store_options *o, int64_t tokens, mb_comm *comm,
                               mb_store **out)
{
    struct build b = {.o = o, .comm = comm, .first_bad = INT64_MAX};
    mb_status st = mb_comm_agree(comm, MB_NEW(&b.store));

    if (st == MB_OK)
        st = build(&b, tokens);
    mb_image_list_release(&b.list);
    mb_free(b.fact);
    mb_free(b.why);
    if (st == MB_OK)
        *out = b.store;
    else
        mb_store_free(b.store);
    return st;
}
