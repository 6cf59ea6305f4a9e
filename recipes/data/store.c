/* recipes/data/store.c - see recipes/data/store.h.
 *
 * Rows are dealt out in chunks: chunk c is parsed, rendered and tokenised by rank c mod size, on all
 * its threads; the others only look for the ends of its rows. A rank's results are its *part*. After
 * all have agreed that nothing failed, the descriptions of all rows are exchanged, every row's place
 * in the store follows from (chunk, order in the chunk), and the tokens are broadcast part by part.
 */
#include "recipes/data/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/log.h"
#include "core/path.h"
#include "core/rng.h"
#include "recipes/data/store_cache.h"

enum {
    CHUNK_ROWS = 256,
    CHUNK_BYTES = 8 << 20,
    PLACES = 3 /* rows named when nothing is trained */
};

/* What is known of a row besides its tokens; broadcast as bytes. */
struct about {
    int64_t chunk, line;
    int32_t tokens, trained, label, source;
};

/* Row texts of one chunk. */
struct chunk {
    int64_t number;
    char *text;
    size_t bytes, capacity;
    mb_row_text row[CHUNK_ROWS];
    size_t at[CHUNK_ROWS];
    int n;
};

/* What became of one row of a chunk; the buffers are used again. */
struct result {
    mb_tokens tokens;
    mb_record_kind kind;
    bool whole_text, double_bos, empty;
    char *label; /* owned; NULL: label_id */
    int64_t label_id;
    mb_status st;
    char *sentence; /* owned; of a failure */
};

struct names {
    char **at; /* in order of appearance, owned */
    size_t n, capacity;
    int32_t *sorted; /* indices of `at` by name */
    size_t sorted_capacity;
};

struct builder {
    const mb_store_options *o;
    mb_comm *comm;
    mb_renderer *renderer;
    struct chunk chunk;
    struct result *result; /* CHUNK_ROWS */
    struct about *about;
    size_t n_rows, about_capacity;
    int32_t *ids;
    uint8_t *flags;
    size_t n_tokens, ids_capacity, flags_capacity;
    struct names labels;
    bool integer_labels, word_labels;
    int64_t top_label;
    mb_store_stats stats;
    struct {
        int32_t source;
        int64_t line;
        const char *why;
    } untrained[PLACES];
    int n_untrained;
    mb_store *store;
};

mb_store_options mb_store_defaults(void)
{
    return (mb_store_options){
        .excess = MB_EXCESS_TRUNCATE,
        .render = {.add_bos = -1,
                   .add_eos = -1,
                   .train = {.on = MB_TRAIN_ASSISTANT, .eos = MB_EOS_TURN}},
    };
}

void mb_store_free(mb_store *s)
{
    if (s == NULL)
        return;
    mb_free(s->ids);
    mb_free(s->flags);
    mb_free(s->offset);
    mb_free(s->trained);
    mb_free(s->label);
    mb_free(s->source);
    mb_free(s->line);
    mb_free(s->hash);
    for (int i = 0; s->source_name != NULL && i < s->n_sources; i++)
        mb_free(s->source_name[i]);
    mb_free(s->source_name);
    for (int i = 0; s->label_name != NULL && i < s->n_labels; i++)
        mb_free(s->label_name[i]);
    mb_free(s->label_name);
    mb_free(s);
}

const char *mb_store_place(const mb_store *s, int64_t r, char *text, size_t size)
{
    snprintf(text, size, "%s:%lld", s->source_name[s->source[r]], (long long)s->line[r]);
    return text;
}

/* FNV-1a over the words of a row, finished by a mix so that all bits count. */
static uint64_t content_hash(const int32_t *id, const uint8_t *flags, int64_t n, int64_t label)
{
    uint64_t h = 0xcbf29ce484222325ull ^ (uint64_t)label;

    for (int64_t i = 0; i < n; i++) {
        h = (h ^ (uint32_t)id[i]) * 0x100000001b3ull;
        h = (h ^ (flags[i] & MB_MARK_TRAINED)) * 0x100000001b3ull;
    }
    return mb_rng_key(h, 0, 0);
}

/* The place of a name in sorted[], or where it would go. */
static size_t name_slot(const struct names *t, const char *name, bool *found)
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
static mb_status name_id(struct names *t, const char *name, int32_t *out)
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

static void names_release(struct names *t)
{
    for (size_t i = 0; i < t->n; i++)
        mb_free(t->at[i]);
    mb_free(t->at);
    mb_free(t->sorted);
    *t = (struct names){0};
}

/* Parses, renders and tokenises one row. Runs on any thread: the failure record is per thread, so
 * the sentence is carried in the result. */
static void render_row(const struct builder *b, const mb_source *source, const mb_records *records,
                       int i)
{
    struct result *out = &b->result[i];
    mb_record rec;

    out->st = mb_records_parse(records, &b->chunk.row[i], &rec);
    if (out->st == MB_OK) {
        out->kind = rec.kind;
        out->whole_text = rec.whole_text;
        out->label_id = rec.label_id;
        out->st = mb_render(b->renderer, &rec, &out->tokens, &out->double_bos);
        if (out->st == MB_OK && rec.label != NULL)
            out->st = mb_strdup(rec.label, &out->label);
        if (out->st != MB_OK)
            mb_status_prefix(out->st, "%s:%lld: ", source->path, (long long)b->chunk.row[i].line);
        mb_record_release(&rec);
    }
    if (out->st != MB_OK) {
        if (mb_strdup(mb_status_sentence(), &out->sentence) != MB_OK)
            out->sentence = NULL;
        mb_status_clear();
    }
}

static void note_untrained(struct builder *b, int source, int64_t line, const char *why)
{
    b->stats.untrained++;
    if (b->n_untrained < PLACES) {
        b->untrained[b->n_untrained].source = source;
        b->untrained[b->n_untrained].line = line;
        b->untrained[b->n_untrained].why = why;
        b->n_untrained++;
    }
}

/* Appends ids with their marks as a row of the part. */
static mb_status append(struct builder *b, const struct about *about, const int32_t *id,
                        const uint8_t *mark, int64_t n)
{
    struct about *row;

    MB_TRY(mb_grow((void **)&b->about, &b->about_capacity, b->n_rows + 1, sizeof *row, "rows"));
    MB_TRY(mb_grow((void **)&b->ids, &b->ids_capacity, b->n_tokens + (size_t)n, sizeof *b->ids,
                   "tokens of a data set"));
    MB_TRY(mb_grow((void **)&b->flags, &b->flags_capacity, b->n_tokens + (size_t)n, 1,
                   "marks of a data set"));
    row = &b->about[b->n_rows++];
    *row = *about;
    row->tokens = (int32_t)n;
    row->trained = 0;
    memcpy(b->ids + b->n_tokens, id, (size_t)n * sizeof *id);
    memcpy(b->flags + b->n_tokens, mark, (size_t)n);
    b->flags[b->n_tokens] &= (uint8_t)~MB_MARK_TRAINED; /* nothing predicts the first token */
    for (int64_t t = 1; t < n; t++)
        row->trained += (mark[t] & MB_MARK_TRAINED) != 0;
    b->n_tokens += (size_t)n;
    return MB_OK;
}

/* Pieces of max_length; where rows begin with BOS each piece does. A last piece of one token has
 * nothing to predict and is left out. */
static mb_status append_pieces(struct builder *b, const struct about *about, const mb_tokens *t)
{
    const int32_t bos = mb_tokenizer_role(b->o->render.tokenizer, MB_TOKEN_BOS);
    const bool framed = t->ids.n > 0 && bos >= 0 && t->ids.id[0] == bos && b->o->max_length > 2;
    const size_t each = (size_t)b->o->max_length - framed;
    mb_tokens piece = {0};
    mb_status st = MB_OK;

    for (size_t from = framed; from < t->ids.n && st == MB_OK; from += each) {
        const size_t n = t->ids.n - from < each ? t->ids.n - from : each;

        mb_tokens_clear(&piece);
        if (framed)
            MB_TRY_GOTO(mb_ids_push(&piece.ids, bos), st, done);
        MB_TRY_GOTO(mb_ids_append(&piece.ids, t->ids.id + from, n), st, done);
        if (piece.ids.n < 2)
            break;
        MB_TRY_GOTO(mb_tokens_mark(&piece, b->o->render.tokenizer, 0, MB_MARK_TRAINED), st, done);
        memcpy(piece.mark + framed, t->mark + from, n);
        st = append(b, about, piece.ids.id, piece.mark, (int64_t)piece.ids.n);
    }
done:
    mb_tokens_release(&piece);
    return st;
}

static mb_status check_ids(const struct builder *b, const mb_tokens *t, const char *path,
                           int64_t line)
{
    for (size_t i = 0; b->o->vocab_size > 0 && i < t->ids.n; i++) {
        MB_REQUIRE(t->ids.id[i] >= 0 && t->ids.id[i] < b->o->vocab_size, MB_EMODEL,
                   "%s:%lld: the tokenizer gives id %d, the model's embedding has %lld rows; the "
                   "tokenizer is not this model's",
                   path, (long long)line, t->ids.id[i], (long long)b->o->vocab_size);
    }
    return MB_OK;
}

static mb_status note_label(struct builder *b, struct result *r, int32_t *label)
{
    if (r->label != NULL) {
        b->word_labels = true;
        return name_id(&b->labels, r->label, label);
    }
    b->integer_labels = true;
    if (r->label_id > b->top_label)
        b->top_label = r->label_id;
    *label = (int32_t)r->label_id;
    return MB_OK;
}

/* Takes one row's result into the part: counts, cuts, drops. */
static mb_status take_result(struct builder *b, int source, int i)
{
    const mb_store_options *o = b->o;
    struct result *r = &b->result[i];
    const char *path = o->source[source].path;
    const int64_t line = b->chunk.row[i].line;
    struct about about = {.chunk = b->chunk.number, .line = line, .label = -1, .source = source};
    const bool framed = r->kind == MB_RECORD_CLASS || o->render.masked_lm;
    bool cut = false;
    int64_t trained = 0;

    b->stats.rows_read++;
    if (r->st == MB_EDATA && o->source[source].skip_bad) {
        b->stats.bad++;
        return MB_OK;
    }
    if (r->st != MB_OK)
        return MB_RAISE(r->st, "%s", r->sentence != NULL ? r->sentence : "not enough memory");
    MB_REQUIRE((r->kind == MB_RECORD_CLASS) == o->classification, MB_EDATA,
               "%s:%lld: the row has %s label, and the task wants %s", path, (long long)line,
               o->classification ? "no" : "a", o->classification ? "one" : "none");
    b->stats.double_bos += r->double_bos;
    for (size_t t = 0; t < r->tokens.ids.n; t++)
        trained += !(r->tokens.mark[t] & MB_MARK_SPECIAL);
    if (trained == 0) { /* nothing but special tokens */
        b->stats.empty++;
        return MB_OK;
    }
    MB_TRY(check_ids(b, &r->tokens, path, line));
    if (r->kind == MB_RECORD_CLASS)
        MB_TRY(note_label(b, r, &about.label));
    if (o->max_length > 0 && (int64_t)r->tokens.ids.n > o->max_length) {
        if (r->whole_text || (o->excess == MB_EXCESS_SPLIT && r->kind == MB_RECORD_TEXT && !framed))
            return append_pieces(b, &about, &r->tokens);
        MB_REQUIRE(o->excess != MB_EXCESS_RAISE, MB_EDATA,
                   "%s:%lld: the row has %lld tokens, max_length is %lld", path, (long long)line,
                   (long long)r->tokens.ids.n, (long long)o->max_length);
        if (o->excess == MB_EXCESS_DROP) {
            b->stats.dropped++;
            return MB_OK;
        }
        mb_render_truncate(&r->tokens, framed ? MB_RECORD_CLASS : r->kind, o->max_length);
        b->stats.truncated++;
        cut = true;
    }
    trained = 0;
    for (size_t t = 1; t < r->tokens.ids.n; t++)
        trained += (r->tokens.mark[t] & MB_MARK_TRAINED) != 0;
    if (trained == 0 && !framed) {
        note_untrained(b, source, line,
                       cut ? "its first max_length tokens hold nothing that is trained"
                           : "nothing in it is trained");
        return MB_OK;
    }
    return append(b, &about, r->tokens.ids.id, r->tokens.mark, (int64_t)r->tokens.ids.n);
}

/* Parses the rows of the chunk on all threads, then takes them in order. */
static mb_status work_chunk(struct builder *b, int source, const mb_records *records)
{
    mb_status st = MB_OK;

    for (int i = 0; i < b->chunk.n; i++)
        b->chunk.row[i].text = b->chunk.text + b->chunk.at[i];
#pragma omp parallel for schedule(dynamic, 8)
    for (int i = 0; i < b->chunk.n; i++)
        render_row(b, &b->o->source[source], records, i);
    for (int i = 0; i < b->chunk.n && st == MB_OK; i++)
        st = take_result(b, source, i);
    for (int i = 0; i < b->chunk.n; i++) {
        mb_free(b->result[i].label);
        mb_free(b->result[i].sentence);
        b->result[i].label = b->result[i].sentence = NULL;
    }
    return st;
}

static mb_status end_chunk(struct builder *b, int source, const mb_records *records)
{
    const bool mine = b->chunk.number % b->comm->size == b->comm->rank;

    if (mine && b->chunk.n > 0)
        MB_TRY(work_chunk(b, source, records));
    b->chunk.number++;
    b->chunk.n = 0;
    b->chunk.bytes = 0;
    return MB_OK;
}

static mb_status add_to_chunk(struct builder *b, const mb_row_text *row)
{
    struct chunk *c = &b->chunk;

    if (c->number % b->comm->size == b->comm->rank) {
        MB_TRY(mb_grow((void **)&c->text, &c->capacity, c->bytes + row->n, 1, "rows"));
        memcpy(c->text + c->bytes, row->text, row->n);
    }
    c->at[c->n] = c->bytes;
    c->row[c->n++] = *row;
    c->bytes += row->n;
    return MB_OK;
}

static mb_status read_source(struct builder *b, int source)
{
    mb_source spec = b->o->source[source];
    mb_records *records;
    mb_row_text row;
    mb_status st;
    bool more = true;

    spec.labelled = b->o->classification;
    MB_TRY(mb_records_open(&spec, &records));
    while (more) {
        MB_TRY_GOTO(mb_records_next(records, &row, &more), st, done);
        if (more)
            MB_TRY_GOTO(add_to_chunk(b, &row), st, done);
        if (!more || b->chunk.n == CHUNK_ROWS || b->chunk.bytes >= CHUNK_BYTES)
            MB_TRY_GOTO(end_chunk(b, source, records), st, done);
    }
    st = MB_OK;
done:
    mb_records_close(records);
    return st;
}

static mb_status read_sources(struct builder *b)
{
    MB_TRY(MB_NEW_ARRAY(&b->result, CHUNK_ROWS));
    for (int i = 0; i < b->o->n_sources; i++)
        MB_TRY(read_source(b, i));
    return MB_OK;
}

/* Adds up what the ranks counted. */
static mb_status sum_stats(struct builder *b)
{
    mb_store_stats *s = &b->stats;
    int64_t v[] = {s->rows_read, s->bad,        s->empty,       s->untrained,     s->dropped,
                   s->truncated, s->double_bos, b->word_labels, b->integer_labels};

    MB_TRY(b->comm->ops->all_reduce(b->comm, v, 9, MB_DTYPE_I64, MB_SUM));
    MB_TRY(b->comm->ops->all_reduce(b->comm, &b->top_label, 1, MB_DTYPE_I64, MB_MAX));
    s->rows_read = v[0], s->bad = v[1], s->empty = v[2], s->untrained = v[3];
    s->dropped = v[4], s->truncated = v[5], s->double_bos = v[6];
    b->word_labels = v[7] > 0, b->integer_labels = v[8] > 0;
    return MB_OK;
}

/* Nothing to train on: says why, with rows. Rank 0 has the first chunk. */
static mb_status nothing_left(const struct builder *b)
{
    const mb_store_stats *s = &b->stats;
    char rows[600];
    size_t at = 0;

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

/* The labels of one rank as JSON text, for broadcasting. */
static mb_status labels_text(const struct names *t, char **out)
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

static mb_status labels_add(struct names *all, const char *text, int32_t **map)
{
    mb_json_doc *doc;
    mb_status st = MB_OK;

    MB_TRY(mb_json_parse(text, strlen(text), "labels", 0, MB_EBUG, &doc));
    MB_TRY_GOTO(MB_NEW_ARRAY(map, mb_json_count(mb_json_root(doc)) + 1), st, done);
    for (size_t i = 0; i < mb_json_count(mb_json_root(doc)); i++) {
        const char *name;

        MB_TRY_GOTO(mb_json_string(mb_json_at(mb_json_root(doc), i), &name, NULL), st, done);
        MB_TRY_GOTO(name_id(all, name, &(*map)[i]), st, done);
    }
done:
    mb_json_free(doc);
    return st;
}

/* The class of every name: its place among the model's labels, or in byte order. */
static mb_status number_names(struct builder *b, const struct names *all, int32_t *class_of)
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

static mb_status name_store_labels(struct builder *b, const struct names *all)
{
    mb_store *s = b->store;
    const mb_store_options *o = b->o;
    int n = o->n_label_names;

    if (n == 0)
        n = b->word_labels ? (int)all->n : (int)b->top_label + 1;
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

/* Makes the ranks' labels one table. */
static mb_status merge_labels(struct builder *b, struct classes *out)
{
    struct names all = {0};
    mb_status st = MB_OK;

    MB_REQUIRE(!b->word_labels || !b->integer_labels, MB_EDATA,
               "%s: some labels are numbers and some are words", b->o->source[0].path);
    MB_TRY(MB_NEW_ARRAY(&out->of_rank, b->comm->size));
    for (int r = 0; r < b->comm->size && b->word_labels; r++) {
        char *text = NULL;

        if (r == b->comm->rank)
            MB_TRY_GOTO(labels_text(&b->labels, &text), st, done);
        st = mb_comm_broadcast_string(b->comm, &text, r);
        if (st == MB_OK)
            st = labels_add(&all, text, &out->of_rank[r]);
        mb_free(text);
        if (st != MB_OK)
            goto done;
    }
    MB_TRY_GOTO(MB_NEW_ARRAY(&out->class_of, all.n + 1), st, done);
    MB_TRY_GOTO(number_names(b, &all, out->class_of), st, done);
    st = name_store_labels(b, &all);
done:
    names_release(&all);
    return st;
}

/* All ranks' rows, rank after rank, and where each goes. */
struct layout {
    int64_t *rows, *tokens; /* (size) per rank */
    int64_t n_rows, n_tokens;
    struct about *about; /* (n_rows) */
    int64_t *to;         /* (n_rows) row of the store */
};

static void layout_release(struct layout *l)
{
    mb_free(l->rows);
    mb_free(l->about);
    mb_free(l->to);
}

static mb_status exchange_about(struct builder *b, struct layout *l)
{
    const int size = b->comm->size;
    int64_t at = 0;

    MB_TRY(MB_NEW_ARRAY(&l->rows, 2 * size));
    l->tokens = l->rows + size;
    l->rows[b->comm->rank] = (int64_t)b->n_rows;
    l->tokens[b->comm->rank] = (int64_t)b->n_tokens;
    MB_TRY(b->comm->ops->all_reduce(b->comm, l->rows, 2 * size, MB_DTYPE_I64, MB_SUM));
    for (int r = 0; r < size; r++) {
        l->n_rows += l->rows[r];
        l->n_tokens += l->tokens[r];
    }
    MB_TRY(MB_NEW_ARRAY(&l->about, l->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&l->to, l->n_rows + 1));
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
static mb_status place_rows(const struct builder *b, struct layout *l)
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

static mb_status make_arrays(struct builder *b, const struct layout *l, const struct classes *c)
{
    mb_store *s = b->store;
    int64_t i = 0;

    s->n_rows = l->n_rows;
    s->n_tokens = l->n_tokens;
    MB_TRY(MB_NEW_ARRAY(&s->offset, s->n_rows + 1));
    MB_TRY(MB_NEW_ARRAY(&s->trained, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->label, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->source, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&s->line, s->n_rows));
    for (int r = 0; r < b->comm->size; r++) {
        for (int64_t k = 0; k < l->rows[r]; k++, i++) {
            const struct about *a = &l->about[i];
            const int64_t to = l->to[i];

            s->offset[to + 1] = a->tokens;
            s->trained[to] = a->trained;
            s->source[to] = a->source;
            s->line[to] = a->line;
            s->label[to] =
                a->label < 0 || !b->word_labels ? a->label : c->class_of[c->of_rank[r][a->label]];
        }
    }
    for (int64_t k = 0; k < s->n_rows; k++)
        s->offset[k + 1] += s->offset[k];
    return MB_OK;
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

static mb_status exchange_tokens(struct builder *b, const struct layout *l)
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
    MB_TRY(MB_NEW_ARRAY(&s->ids, s->n_tokens));
    MB_TRY(MB_NEW_ARRAY(&s->flags, s->n_tokens));
    MB_TRY_GOTO(MB_NEW_ARRAY(&ids, most), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&flags, most), st, done);
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

static mb_status assemble(struct builder *b)
{
    struct classes classes = {0};
    struct layout layout = {0};
    mb_status st = MB_OK;

    if (b->o->classification)
        MB_TRY_GOTO(merge_labels(b, &classes), st, done);
    MB_TRY_GOTO(exchange_about(b, &layout), st, done);
    MB_TRY_GOTO(place_rows(b, &layout), st, done);
    MB_TRY_GOTO(make_arrays(b, &layout, &classes), st, done);
    st = exchange_tokens(b, &layout);
done:
    classes_release(&classes, b->comm->size);
    layout_release(&layout);
    return st;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* What follows from the rows themselves: hashes, duplicates, lengths, counts of special tokens. */
static mb_status measure(mb_store *s, const mb_tokenizer *tok)
{
    const int32_t bos = mb_tokenizer_role(tok, MB_TOKEN_BOS);
    const int32_t eos = mb_tokenizer_role(tok, MB_TOKEN_EOS);
    mb_store_stats *c = &s->stats;
    uint64_t *sorted;

    MB_TRY(MB_NEW_ARRAY(&s->hash, s->n_rows));
    MB_TRY(MB_NEW_ARRAY(&sorted, s->n_rows + 1));
    c->trained = c->bos = c->eos = c->duplicates = c->max_length = 0;
    c->min_length = INT64_MAX;
    for (int64_t r = 0; r < s->n_rows; r++) {
        const int64_t from = s->offset[r], n = s->offset[r + 1] - from;

        s->hash[r] = sorted[r] = content_hash(s->ids + from, s->flags + from, n, s->label[r]);
        c->trained += s->trained[r];
        c->min_length = n < c->min_length ? n : c->min_length;
        c->max_length = n > c->max_length ? n : c->max_length;
    }
    for (int64_t t = 0; t < s->n_tokens; t++) {
        c->bos += s->ids[t] == bos;
        c->eos += s->ids[t] == eos;
    }
    qsort(sorted, (size_t)s->n_rows, sizeof *sorted, by_value);
    for (int64_t r = 1; r < s->n_rows; r++)
        c->duplicates += sorted[r] == sorted[r - 1];
    mb_free(sorted);
    return MB_OK;
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
static mb_status identity(const struct builder *b, mb_digest *d)
{
    const mb_store_options *o = b->o;
    const int64_t numbers[] = {2 /* format */, o->n_sources,      o->max_length,
                               o->excess,      o->classification, o->n_label_names};

    MB_TRY(mb_digest_add(d, numbers, sizeof numbers));
    MB_TRY(add_text(d, mb_tokenizer_sha256(o->render.tokenizer)));
    MB_TRY(add_text(d, mb_renderer_identity(b->renderer)));
    for (int i = 0; i < o->n_label_names; i++)
        MB_TRY(add_text(d, o->label_names[i]));
    for (int i = 0; i < o->n_sources; i++) {
        const mb_source *s = &o->source[i];
        uint8_t bytes[MB_DIGEST_BYTES];
        int64_t size;
        int fd;

        MB_TRY(mb_file_open(s->path, MB_EDATA, &fd, &size));
        close(fd);
        MB_TRY(mb_digest_file(s->path, bytes));
        MB_TRY(mb_digest_add(d, bytes, sizeof bytes));
        MB_TRY(add_text(d, s->path));
        MB_TRY(add_text(d, s->type));
        MB_TRY(add_text(d, s->split));
        MB_TRY(mb_digest_add(d, &s->skip_bad, sizeof s->skip_bad));
        for (int f = 0; f < s->n_fields; f++) {
            MB_TRY(add_text(d, s->field[f].canonical));
            MB_TRY(add_text(d, s->field[f].column));
        }
    }
    return MB_OK;
}

static mb_status compute_digest(const struct builder *b, char hex[MB_DIGEST_HEX])
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
static mb_status look_in_cache(struct builder *b, bool *hit)
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
static mb_status first_failure(struct builder *b, mb_status st)
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

static mb_status tokenise(struct builder *b)
{
    const char *dir = b->o->cache_dir;
    mb_status st = read_sources(b);

    MB_TRY(first_failure(b, st));
    MB_TRY(sum_stats(b));

    int64_t rows = (int64_t)b->n_rows;

    MB_TRY(b->comm->ops->all_reduce(b->comm, &rows, 1, MB_DTYPE_I64, MB_SUM));
    st = rows == 0 && b->comm->rank == 0 ? nothing_left(b) : MB_OK;
    MB_TRY(mb_comm_agree(b->comm, st));
    st = assemble(b);
    MB_TRY(mb_comm_agree(b->comm, st));
    b->store->stats = b->stats;
    if (b->comm->rank == 0 && dir != NULL && dir[0] != '\0' &&
        mb_store_cache_write(dir, b->store) != MB_OK) {
        mb_log_warn("the token store is not cached: %s", mb_status_sentence());
        mb_status_clear();
    }
    return MB_OK;
}

static void builder_release(struct builder *b)
{
    mb_renderer_free(b->renderer);
    mb_free(b->chunk.text);
    for (int i = 0; b->result != NULL && i < CHUNK_ROWS; i++) {
        mb_tokens_release(&b->result[i].tokens);
        mb_free(b->result[i].label);
        mb_free(b->result[i].sentence);
    }
    mb_free(b->result);
    mb_free(b->about);
    mb_free(b->ids);
    mb_free(b->flags);
    names_release(&b->labels);
    mb_free(b);
}

static mb_status prepare(struct builder *b)
{
    const mb_store_options *o = b->o;

    MB_REQUIRE(o->n_sources > 0, MB_EARG, "datasets is empty: there is nothing to train on");
    MB_REQUIRE(o->max_length >= 0 && o->max_length < INT32_MAX, MB_EARG, "max_length is %lld",
               (long long)o->max_length);
    MB_TRY(mb_renderer_new(&o->render, &b->renderer));
    return name_sources(b->store, o);
}

mb_status mb_store_build(const mb_store_options *o, mb_comm *comm, mb_store **out)
{
    struct builder *b = NULL;
    bool hit = false;
    mb_status st;

    MB_TRY(MB_NEW(&b));
    b->o = o;
    b->comm = comm;
    st = MB_NEW(&b->store);
    if (st == MB_OK)
        st = prepare(b);
    MB_TRY_GOTO(mb_comm_agree(comm, st), st, fail);
    MB_TRY_GOTO(look_in_cache(b, &hit), st, fail);
    if (!hit)
        MB_TRY_GOTO(tokenise(b), st, fail);
    MB_TRY_GOTO(mb_comm_agree(comm, measure(b->store, o->render.tokenizer)), st, fail);
    *out = b->store;
    builder_release(b);
    return MB_OK;
fail:
    mb_store_free(b->store);
    builder_release(b);
    return st;
}

void mb_store_log(const mb_store *s, const char *what)
{
    const mb_store_stats *c = &s->stats;
    const struct {
        int64_t n;
        const char *text;
    } notes[] = {
        {c->bad, "rows could not be read and were skipped (bad_rows: skip)"},
        {c->empty, "rows are empty and were left out"},
        {c->untrained, "rows have no trained token and were left out"},
        {c->dropped, "rows are longer than max_length and were left out"},
        {c->truncated, "rows are longer than max_length and were cut"},
        {c->duplicates, "rows are duplicates of others"},
        {c->double_bos, "rows would have begun with two BOS tokens; one was left out"},
    };

    mb_log_info("%s: %lld rows, %lld tokens (%.1f%% trained), %lld to %lld per row, mean %.1f%s",
                what, (long long)s->n_rows, (long long)s->n_tokens,
                100.0 * (double)c->trained / (double)(s->n_tokens > 0 ? s->n_tokens : 1),
                (long long)c->min_length, (long long)c->max_length,
                (double)s->n_tokens / (double)(s->n_rows > 0 ? s->n_rows : 1),
                s->from_cache ? ", from the cache" : "");
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        if (notes[i].n > 0)
            mb_log_info("%s: %lld %s", what, (long long)notes[i].n, notes[i].text);
    }
}

/* A row's draw: equal rows, equal draws. */
struct draw {
    uint64_t value;
    int64_t row;
};

static int by_draw(const void *a, const void *b)
{
    const struct draw *x = a, *y = b;

    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

mb_status mb_store_split(const mb_store *s, double size, uint64_t seed, int64_t **train,
                         int64_t *n_train, int64_t **val, int64_t *n_val)
{
    struct draw *draw;
    bool *held;
    int64_t k = (int64_t)(size < 1.0 ? size * (double)s->n_rows + 0.5 : size);
    mb_status st = MB_OK;

    *train = *val = NULL;
    *n_train = *n_val = 0;
    MB_REQUIRE(size >= 0.0, MB_EARG, "val_set_size is %g, it must not be negative", size);
    if (size > 0.0 && k == 0)
        k = 1;
    MB_REQUIRE(k < s->n_rows, MB_EDATA, "val_set_size takes %lld rows of %lld; none would be left",
               (long long)k, (long long)s->n_rows);
    MB_TRY(MB_NEW_ARRAY(&draw, s->n_rows));
    MB_TRY_GOTO(MB_NEW_ARRAY(&held, s->n_rows), st, done);
    for (int64_t r = 0; r < s->n_rows; r++)
        draw[r] = (struct draw){mb_rng_key(seed, MB_SITE_SPLIT, s->hash[r]), r};
    qsort(draw, (size_t)s->n_rows, sizeof *draw, by_draw);
    while (k > 0 && k < s->n_rows && draw[k].value == draw[k - 1].value)
        k++; /* equal rows stay together */
    for (int64_t i = 0; i < k; i++)
        held[draw[i].row] = true;
    if (k == s->n_rows)
        st =
            MB_RAISE(MB_EDATA, "val_set_size: the rows are duplicates of each other; none would be "
                               "left to train on");
    if (st == MB_OK)
        st = MB_NEW_ARRAY(train, s->n_rows - k + 1);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(val, k + 1);
    for (int64_t r = 0; r < s->n_rows && st == MB_OK; r++) {
        if (held[r])
            (*val)[(*n_val)++] = r;
        else
            (*train)[(*n_train)++] = r;
    }
    mb_free(held);
    if (st != MB_OK) {
        mb_free(*train);
        *train = NULL;
    }
done:
    mb_free(draw);
    return st;
}
