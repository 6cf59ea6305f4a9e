/* recipes/data/store_join.c - the ranks' parts become one token store, the same everywhere.
 *
 * First labels are made one table. Then the descriptions of all rows are exchanged, so that every
 * rank knows the place of each row (chunk after chunk is the order of the files), and the tokens are
 * broadcast part by part.
 *
 * What a rank does alone (memory, tables) may fail on it alone: the ranks agree on it before the next
 * broadcast, so that all of them end, with that rank's sentence.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "recipes/data/store_inside.h"

/* The place of a name in sorted[], or where it would go. */
static size_t name_slot(const struct mb_names *t, const char *name, bool *found)
{
    size_t lo = 0, hi = t->n;

    *found = false;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const int order = strcmp(name, t->at[t->sorted[mid]]);

        if (order == 0) {
            *found = true;
            return mid;
        }
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* The number of a name, which is added when it is new. */
mb_status mb_names_id(struct mb_names *t, const char *name, int32_t *out)
{
    bool found;
    const size_t slot = name_slot(t, name, &found);

    if (found) {
        *out = t->sorted[slot];
        return MB_OK;
    }
    MB_TRY(mb_grow((void **)&t->at, &t->capacity, t->n + 1, sizeof t->at[0], "labels"));
    MB_TRY(
        mb_grow((void **)&t->sorted, &t->sorted_capacity, t->n + 1, sizeof t->sorted[0], "labels"));
    MB_TRY(mb_strdup(name, &t->at[t->n]));
    memmove(t->sorted + slot + 1, t->sorted + slot, (t->n - slot) * sizeof t->sorted[0]);
    t->sorted[slot] = (int32_t)t->n;
    *out = (int32_t)t->n++;
    return MB_OK;
}

void mb_names_release(struct mb_names *t)
{
    for (size_t i = 0; i < t->n; i++)
        mb_free(t->at[i]);
    mb_free(t->at);
    mb_free(t->sorted);
    *t = (struct mb_names){0};
}

/* The labels of one rank as JSON text, for broadcasting. */
static mb_status labels_text(const struct mb_names *t, char **out)
{
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_json_doc_new_array("labels", &doc));
    for (size_t i = 0; i < t->n; i++)
        MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), NULL, t->at[i]), st, done);
    st = mb_json_text(mb_json_root(doc), 0, out, NULL);
done:
    mb_json_free(doc);
    return st;
}

static mb_status labels_add(struct mb_names *all, const char *text, int32_t **map)
{
    mb_json_doc *doc;
    mb_status st = MB_OK;

    MB_TRY(mb_json_parse(text, strlen(text), "labels", 0, MB_EBUG, &doc));
    MB_TRY_GOTO(MB_NEW_ARRAY(map, mb_json_count(mb_json_root(doc)) + 1), st, done);
    for (size_t i = 0; i < mb_json_count(mb_json_root(doc)); i++) {
        const char *name;

        MB_TRY_GOTO(mb_json_string(mb_json_at(mb_json_root(doc), i), &name, NULL), st, done);
        MB_TRY_GOTO(mb_names_id(all, name, &(*map)[i]), st, done);
    }
done:
    mb_json_free(doc);
    return st;
}

/* The class of every name: its place among the model's labels, or in byte order. */
static mb_status number_names(struct mb_store_builder *b, const struct mb_names *all,
                              int32_t *class_of)
{
    const mb_store_options *o = b->o;

    for (size_t i = 0; i < all->n; i++) {
        const char *name = all->at[all->sorted[i]];
        int k = 0;

        if (o->n_label_names == 0) {
            class_of[all->sorted[i]] = (int32_t)i;
            continue;
        }
        while (k < o->n_label_names && strcmp(o->label_names[k], name) != 0)
            k++;
        MB_REQUIRE(k < o->n_label_names, MB_EDATA,
                   "%s: the label \"%s\" is not one of the model's %d (\"%s\", ...)",
                   o->source[0].path, name, o->n_label_names, o->label_names[0]);
        class_of[all->sorted[i]] = k;
    }
    return MB_OK;
}

static mb_status name_store_labels(struct mb_store_builder *b, const struct mb_names *all)
{
    mb_store *s = b->store;
    const mb_store_options *o = b->o;
    int n = o->n_label_names;

    if (n == 0)
        n = b->word_labels ? (int)all->n : b->integer_labels ? (int)b->top_label + 1 : 0;
    MB_REQUIRE(b->word_labels || b->top_label < n, MB_EDATA,
               "%s: the label %lld is outside the model's %d labels", o->source[0].path,
               (long long)b->top_label, n);
    MB_TRY(MB_NEW_ARRAY(&s->label_name, n + 1));
    s->n_labels = n;
    for (int i = 0; i < n; i++) {
        if (o->n_label_names > 0)
            MB_TRY(mb_strdup(o->label_names[i], &s->label_name[i]));
        else if (b->word_labels)
            MB_TRY(mb_strdup(all->at[all->sorted[i]], &s->label_name[i]));
        else
            MB_TRY(mb_asprintf(&s->label_name[i], "%d", i));
    }
    return MB_OK;
}

/* What turns a rank's label numbers into classes: class_of[of_rank[r][label]]. */
struct classes {
    int32_t **of_rank; /* (size) NULL where labels are integers */
    int32_t *class_of;
};

static void classes_release(struct classes *c, int size)
{
    for (int r = 0; c->of_rank != NULL && r < size; r++)
        mb_free(c->of_rank[r]);
    mb_free(c->of_rank);
    mb_free(c->class_of);
}

/* Rank r's labels go into the table of all. */
static mb_status take_labels(struct mb_store_builder *b, int r, struct mb_names *all, int32_t **map)
{
    char *text = NULL;
    mb_status st = r == b->comm->rank ? labels_text(&b->labels, &text) : MB_OK;

    MB_TRY_GOTO(mb_comm_agree(b->comm, st), st, done);
    MB_TRY_GOTO(mb_comm_broadcast_string(b->comm, &text, r), st, done);
    MB_TRY_GOTO(mb_comm_agree(b->comm, labels_add(all, text, map)), st, done);
done:
    mb_free(text);
    return st;
}

static mb_status number_classes(struct mb_store_builder *b, const struct mb_names *all,
                                struct classes *out)
{
    MB_TRY(MB_NEW_ARRAY(&out->class_of, all->n + 1));
    MB_TRY(number_names(b, all, out->class_of));
    return name_store_labels(b, all);
}

/* Makes the ranks' labels one table. */
static mb_status merge_labels(struct mb_store_builder *b, struct classes *out)
{
    struct mb_names all = {0};
    mb_status st = MB_OK;

    MB_REQUIRE(!b->word_labels || !b->integer_labels, MB_EDATA, /* known to all alike */
               "%s: some labels are numbers and some are words", b->o->source[0].path);
    MB_TRY(mb_comm_agree(b->comm, MB_NEW_ARRAY(&out->of_rank, b->comm->size)));
    for (int r = 0; r < b->comm->size && b->word_labels; r++)
        MB_TRY_GOTO(take_labels(b, r, &all, &out->of_rank[r]), st, done);
    MB_TRY_GOTO(mb_comm_agree(b->comm, number_classes(b, &all, out)), st, done);
done:
    mb_names_release(&all);
    return st;
}

/* All ranks' rows, rank after rank, and where each goes. */
struct layout {
    int64_t *rows, *tokens, *extras, *media; /* (size) per rank */
    int64_t n_rows, n_tokens, n_media;
    struct mb_store_about *about; /* (n_rows) */
    int64_t *to;                  /* (n_rows) row of the store */
};

static void layout_release(struct layout *l)
{
    mb_free(l->rows);
    mb_free(l->about);
    mb_free(l->to);
}

static mb_status exchange_about(struct mb_store_builder *b, struct layout *l)
{
    const int size = b->comm->size;
    int64_t at = 0;

    MB_TRY(mb_comm_agree(b->comm, MB_NEW_ARRAY(&l->rows, 4 * size)));
    l->tokens = l->rows + size;
    l->extras = l->tokens + size;
    l->extras[b->comm->rank] = (int64_t)b->n_extra;
    l->rows[b->comm->rank] = (int64_t)b->n_rows;
    l->tokens[b->comm->rank] = (int64_t)b->n_tokens;
    l->media = l->extras + size;
    l->media[b->comm->rank] = (int64_t)b->n_media;
    MB_TRY(b->comm->ops->all_reduce(b->comm, l->rows, 4 * size, MB_DTYPE_I64, MB_SUM));
    for (int r = 0; r < size; r++) {
        l->n_rows += l->rows[r];
        l->n_tokens += l->tokens[r];
        l->n_media += l->media[r];
    }
    mb_status st = MB_NEW_ARRAY(&l->about, l->n_rows + 1);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&l->to, l->n_rows + 1);
    MB_TRY(mb_comm_agree(b->comm, st));
    for (int r = 0; r < size; r++) {
        if (r == b->comm->rank && b->n_rows > 0)
            memcpy(l->about + at, b->about, b->n_rows * sizeof *b->about);
        MB_TRY(b->comm->ops->broadcast(b->comm, l->about + at,
                                       l->rows[r] * (int64_t)sizeof *l->about, r));
        at += l->rows[r];
    }
    return MB_OK;
}

/* Chunk after chunk: the order of the files. */
static mb_status place_rows(const struct mb_store_builder *b, struct layout *l)
{
    const int size = b->comm->size;
    int64_t *at, row = 0;

    MB_TRY(MB_NEW_ARRAY(&at, size + 1));
    for (int r = 1; r <= size; r++)
        at[r] = at[r - 1] + l->rows[r - 1];
    int64_t *next = at; /* of each rank; its end is its start + rows */

    for (int64_t c = 0; c < b->chunk.number; c++) {
        const int r = (int)(c % size);
        int64_t end = l->rows[r];

        for (int k = 0; k < r; k++)
            end += l->rows[k];
        while (next[r] < end && l->about[next[r]].chunk == c)
            l->to[next[r]++] = row++;
    }
    mb_free(at);
    MB_ASSERT(row == l->n_rows);
    return MB_OK;
}

/* A score belongs to every row or to none. */
static mb_status all_alike(const struct layout *l, const mb_store *s)
{
    for (int64_t i = 0; i < l->n_rows; i++)
        MB_REQUIRE((l->about[i].scored != 0) == s->scored, MB_EDATA,
                   "%s:%lld: some rows have a score and this one has none",
                   s->source_name[l->about[i].source], (long long)l->about[i].line);
    return MB_OK;
}

static mb_status make_arrays(struct mb_store_builder *b, const struct layout *l,
                             const struct classes *c)
{
    mb_store *s = b->store;
    int64_t i = 0;

    s->n_rows = l->n_rows;
    s->n_tokens = l->n_tokens;
    s->n_media = l->n_media;
    MB_TRY(MB_NEW_ARRAY(&s->media, s->n_media + 1));
    MB_TRY(MB_NEW_ARRAY(&s->media_at, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->offset, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->extra_offset, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->trained, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->label, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->source, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->line, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->record, s->n_rows));
    for (int r = 0; r < b->comm->size; r++) {
        for (int64_t k = 0; k < l->rows[r]; k++, i++) {
            const struct mb_store_about *a = &l->about[i];
            const int64_t to = l->to[i];

            s->offset[to + 1] = a->tokens;
            s->extra_offset[to + 1] = a->extras;
            s->scored = s->scored || a->scored != 0;
            s->media_at[to + 1] = a->media;
            s->trained[to] = a->trained;
            s->source[to] = a->source;
            s->line[to] = a->line;
            s->record[to] = a->record;
            s->label[to] =
                a->label < 0 || !b->word_labels ? a->label : c->class_of[c->of_rank[r][a->label]];
        }
    }
    for (int64_t k = 0; k < s->n_rows; k++) {
        s->offset[k + 1] += s->offset[k];
        s->media_at[k + 1] += s->media_at[k];
        s->extra_offset[k + 1] += s->extra_offset[k];
    }
    return all_alike(l, s);
}

/* Rank r's tokens go where its rows are. */
static void scatter(mb_store *s, const struct layout *l, int64_t first, int64_t rows,
                    const int32_t *ids, const uint8_t *flags)
{
    int64_t from = 0;

    for (int64_t i = first; i < first + rows; i++) {
        const int64_t to = s->offset[l->to[i]], n = l->about[i].tokens;

        memcpy(s->ids + to, ids + from, (size_t)n * sizeof *ids);
        memcpy(s->flags + to, flags + from, (size_t)n);
        from += n;
    }
}

/* The same for the paths of the files that rows are about. */
static mb_status exchange_media(struct mb_store_builder *b, const struct layout *l)
{
    mb_store *s = b->store;
    char *part = NULL;
    int64_t i = 0;
    mb_status st = MB_OK;

    if (s->n_media == 0)
        return MB_OK;
    MB_TRY_GOTO(mb_comm_agree(b->comm, MB_NEW_ARRAY(&part, s->n_media)), st, done);
    for (int r = 0; r < b->comm->size; r++) {
        const char *from = part;

        if (r == b->comm->rank && b->n_media > 0)
            memcpy(part, b->media, b->n_media);
        MB_TRY_GOTO(b->comm->ops->broadcast(b->comm, part, l->media[r], r), st, done);
        for (int64_t k = 0; k < l->rows[r]; k++, i++) {
            memcpy(s->media + s->media_at[l->to[i]], from, (size_t)l->about[i].media);
            from += l->about[i].media;
        }
    }
done:
    mb_free(part);
    return st;
}

static mb_status exchange_tokens(struct mb_store_builder *b, const struct layout *l)
{
    mb_store *s = b->store;
    int32_t *ids = NULL;
    uint8_t *flags = NULL;
    int64_t first = 0, most = 0;
    mb_status st = MB_OK;

    if (b->comm->size == 1) { /* one part, in order */
        s->ids = b->ids, s->flags = b->flags;
        b->ids = NULL, b->flags = NULL;
        return MB_OK;
    }
    for (int r = 0; r < b->comm->size; r++)
        most = l->tokens[r] > most ? l->tokens[r] : most;
    st = MB_NEW_ARRAY(&s->ids, s->n_tokens);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&s->flags, s->n_tokens);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&ids, most);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&flags, most);
    MB_TRY_GOTO(mb_comm_agree(b->comm, st), st, done);
    for (int r = 0; r < b->comm->size; r++) {
        if (r == b->comm->rank && b->n_tokens > 0) {
            memcpy(ids, b->ids, b->n_tokens * sizeof *ids);
            memcpy(flags, b->flags, b->n_tokens);
        }
        MB_TRY_GOTO(b->comm->ops->broadcast(b->comm, ids, l->tokens[r] * 4, r), st, done);
        MB_TRY_GOTO(b->comm->ops->broadcast(b->comm, flags, l->tokens[r], r), st, done);
        scatter(s, l, first, l->rows[r], ids, flags);
        first += l->rows[r];
    }
done:
    mb_free(ids);
    mb_free(flags);
    return st;
}

/* Rank r's extras go where its rows are; those that are labels become classes. */
static void scatter_extras(mb_store *s, const struct layout *l, int64_t first, int64_t rows,
                           const int32_t *extra, const int32_t *class_of, const int32_t *of_rank)
{
    int64_t from = 0;

    for (int64_t i = first; i < first + rows; i++) {
        int32_t *to = s->extra + s->extra_offset[l->to[i]];

        for (int64_t k = 0; k < l->about[i].extras; k++, from++)
            to[k] =
                of_rank != NULL && extra[from] >= 0 ? class_of[of_rank[extra[from]]] : extra[from];
    }
}

static mb_status exchange_extras(struct mb_store_builder *b, const struct layout *l,
                                 const struct classes *c)
{
    mb_store *s = b->store;
    const bool named =
        b->word_labels && (b->o->rows == MB_WANT_CLASSES || b->o->rows == MB_WANT_WORDS);
    int64_t first = 0, most = 0;
    int32_t *extra = NULL;
    mb_status st = MB_OK;

    for (int r = 0; r < b->comm->size; r++)
        most = l->extras[r] > most ? l->extras[r] : most;
    st = MB_NEW_ARRAY(&s->extra, s->extra_offset[s->n_rows]);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&extra, most);
    st = mb_comm_agree(b->comm, st);
    for (int r = 0; r < b->comm->size && st == MB_OK; r++) {
        if (r == b->comm->rank && b->n_extra > 0)
            memcpy(extra, b->extra, b->n_extra * sizeof *extra);
        st = b->comm->ops->broadcast(b->comm, extra, l->extras[r] * 4, r);
        if (st == MB_OK)
            scatter_extras(s, l, first, l->rows[r], extra, c->class_of,
                           named ? c->of_rank[r] : NULL);
        first += l->rows[r];
    }
    mb_free(extra);
    return st;
}

mb_status mb_store_join(struct mb_store_builder *b)
{
    struct classes classes = {0};
    struct layout layout = {0};
    mb_status st = MB_OK;

    if (b->o->rows == MB_WANT_CLASS || b->o->rows == MB_WANT_CLASSES || b->o->rows == MB_WANT_WORDS)
        MB_TRY_GOTO(merge_labels(b, &classes), st, done);
    MB_TRY_GOTO(exchange_about(b, &layout), st, done);
    st = place_rows(b, &layout);
    if (st == MB_OK)
        st = make_arrays(b, &layout, &classes);
    MB_TRY_GOTO(mb_comm_agree(b->comm, st), st, done);
    MB_TRY_GOTO(exchange_media(b, &layout), st, done);
    MB_TRY_GOTO(exchange_tokens(b, &layout), st, done);
    st = exchange_extras(b, &layout, &classes);
done:
    classes_release(&classes, b->comm->size);
    layout_release(&layout);
    return st;
}
