/* recipes/data/store_read.c - files to a rank's part of a token store.
 *
 * Every rank looks for the ends of all rows; chunk c is parsed, rendered and tokenised by rank c mod
 * size, a row per thread. What becomes of each row is then decided in order, by one thread.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/store_inside.h"
#include "recipes/media/audio.h"

enum { CHUNK_BYTES = 8 << 20 };

/* From the header alone. */
static mb_status length_of(const char *path, double *seconds)
{
    mb_audio_info info;

    MB_TRY(mb_audio_look(path, &info));
    *seconds = (double)info.frames / info.rate;
    return MB_OK;
}

/* Parses, renders and tokenises one row. Runs on any thread: the failure record is per thread, so
 * the sentence is carried in the result. */
static void render_row(const struct mb_store_builder *b, const mb_source *source,
                       const mb_records *records, int i)
{
    struct mb_store_result *out = &b->result[i];
    mb_record rec;

    out->st = mb_records_parse(records, &b->chunk.row[i], &rec);
    if (out->st == MB_OK) {
        out->kind = rec.kind;
        out->whole_text = rec.whole_text;
        out->label_id = rec.label_id;
        out->st = mb_render(b->renderer, &rec, &out->tokens, &out->double_bos);
        if (out->st == MB_OK && rec.label != NULL)
            out->st = mb_strdup(rec.label, &out->label);
        if (out->st == MB_OK && rec.media != NULL)
            out->st = mb_strdup(rec.media, &out->media);
        if (out->st == MB_OK && rec.kind == MB_RECORD_SOUND && b->o->most_seconds > 0.0)
            out->st = length_of(rec.media, &out->seconds);
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

static void note_untrained(struct mb_store_builder *b, int source, int64_t line, const char *why)
{
    b->stats.untrained++;
    if (b->n_untrained < MB_STORE_PLACES) {
        b->untrained[b->n_untrained].source = source;
        b->untrained[b->n_untrained].line = line;
        b->untrained[b->n_untrained].why = why;
        b->n_untrained++;
    }
}

/* Appends ids with their marks as a row of the part; media is the path that about->media counts. */
static mb_status append(struct mb_store_builder *b, const struct mb_store_about *about,
                        const char *media, const int32_t *id, const uint8_t *mark, int64_t n)
{
    struct mb_store_about *row;

    MB_TRY(mb_grow((void **)&b->about, &b->about_capacity, b->n_rows + 1, sizeof *row, "rows"));
    MB_TRY(mb_grow((void **)&b->ids, &b->ids_capacity, b->n_tokens + (size_t)n, sizeof *b->ids,
                   "tokens of a data set"));
    MB_TRY(mb_grow((void **)&b->flags, &b->flags_capacity, b->n_tokens + (size_t)n, 1,
                   "marks of a data set"));
    MB_TRY(mb_grow((void **)&b->media, &b->media_capacity, b->n_media + (size_t)about->media, 1,
                   "paths of a data set"));
    if (about->media > 0)
        memcpy(b->media + b->n_media, media, (size_t)about->media);
    b->n_media += (size_t)about->media;
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
static mb_status append_pieces(struct mb_store_builder *b, const struct mb_store_about *about,
                               const mb_tokens *t)
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
        st = append(b, about, NULL, piece.ids.id, piece.mark, (int64_t)piece.ids.n);
    }
done:
    mb_tokens_release(&piece);
    return st;
}

static mb_status check_ids(const struct mb_store_builder *b, const mb_tokens *t, const char *path,
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

static mb_status note_label(struct mb_store_builder *b, struct mb_store_result *r, int32_t *label)
{
    if (r->label != NULL) {
        b->word_labels = true;
        return mb_names_id(&b->labels, r->label, label);
    }
    b->integer_labels = true;
    if (r->label_id > b->top_label)
        b->top_label = r->label_id;
    *label = (int32_t)r->label_id;
    return MB_OK;
}

/* Longer than a row, or one of its two sides, may be. */
static bool too_long(const mb_store_options *o, const mb_tokens *t)
{
    const int64_t n = (int64_t)t->ids.n, source = (int64_t)t->split;

    if (!o->render.paired)
        return o->max_length > 0 && n > o->max_length;
    return (o->max_length > 0 && source > o->max_length) ||
           (o->render.max_target > 0 && n - source - 1 > o->render.max_target);
}

/* Takes one row's result into the part: counts, cuts, drops. */
static mb_status take_result(struct mb_store_builder *b, int source, int i)
{
    const mb_store_options *o = b->o;
    struct mb_store_result *r = &b->result[i];
    const char *path = o->source[source].path;
    const int64_t line = b->chunk.row[i].line;
    struct mb_store_about about = {
        .chunk = b->chunk.number, .line = line, .label = -1, .source = source};
    const bool framed = r->kind == MB_RECORD_CLASS || o->render.masked_lm;
    bool cut = false;
    int64_t plain = 0, trained = 0;

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
    MB_REQUIRE((r->kind == MB_RECORD_SOUND) == o->heard, MB_EDATA,
               "%s:%lld: the row names %s sound, and the task wants %s", path, (long long)line,
               o->heard ? "no" : "a", o->heard ? "one" : "none");
    b->stats.double_bos += r->double_bos;
    for (size_t t = 0; t < r->tokens.ids.n; t++)
        plain += !(r->tokens.mark[t] & MB_MARK_SPECIAL);
    if (plain == 0) { /* nothing but special tokens */
        b->stats.empty++;
        return MB_OK;
    }
    if (r->kind == MB_RECORD_SOUND && o->most_seconds > 0.0 && r->seconds > o->most_seconds) {
        MB_REQUIRE(o->excess != MB_EXCESS_RAISE, MB_EDATA,
                   "%s:%lld: %s lasts %.2f seconds, expected at most %g", path, (long long)line,
                   r->media, r->seconds, o->most_seconds);
        b->stats.long_sounds++; /* a part of it would not fit what is said */
        return MB_OK;
    }
    MB_TRY(check_ids(b, &r->tokens, path, line));
    if (r->kind == MB_RECORD_CLASS)
        MB_TRY(note_label(b, r, &about.label));
    MB_REQUIRE(!o->render.paired || r->kind == MB_RECORD_PAIR, MB_EDATA,
               "%s:%lld: the row is no pair of texts", path, (long long)line);
    if (too_long(o, &r->tokens)) {
        if (r->whole_text || (o->excess == MB_EXCESS_SPLIT && r->kind == MB_RECORD_TEXT && !framed))
            return append_pieces(b, &about, &r->tokens);
        MB_REQUIRE(
            o->excess != MB_EXCESS_RAISE || !o->render.paired, MB_EDATA,
            "%s:%lld: the source has %lld tokens and the target %lld, max_length is %lld and "
            "max_target_length %lld",
            path, (long long)line, (long long)r->tokens.split,
            (long long)(r->tokens.ids.n - r->tokens.split - 1), (long long)o->max_length,
            (long long)o->render.max_target);
        MB_REQUIRE(o->excess != MB_EXCESS_RAISE, MB_EDATA,
                   "%s:%lld: the row has %lld tokens, max_length is %lld", path, (long long)line,
                   (long long)r->tokens.ids.n, (long long)o->max_length);
        if (o->excess == MB_EXCESS_DROP) {
            b->stats.dropped++;
            return MB_OK;
        }
        if (o->render.paired)
            mb_render_truncate_sides(&r->tokens, o->max_length, o->render.max_target);
        else
            mb_render_truncate(&r->tokens, framed ? MB_RECORD_CLASS : r->kind, o->max_length);
        b->stats.truncated++;
        cut = true;
    }
    for (size_t t = 1; t < r->tokens.ids.n; t++)
        trained += (r->tokens.mark[t] & MB_MARK_TRAINED) != 0;
    if (trained == 0 && !framed) {
        note_untrained(b, source, line,
                       cut ? "its first max_length tokens hold nothing that is trained"
                           : "nothing in it is trained");
        return MB_OK;
    }
    about.media = r->media != NULL ? (int32_t)strlen(r->media) + 1 : 0;
    return append(b, &about, r->media, r->tokens.ids.id, r->tokens.mark, (int64_t)r->tokens.ids.n);
}

/* Parses the rows of the chunk on all threads, then takes them in order. */
static mb_status work_chunk(struct mb_store_builder *b, int source, const mb_records *records)
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
        mb_free(b->result[i].media);
        mb_free(b->result[i].sentence);
        b->result[i].label = b->result[i].media = b->result[i].sentence = NULL;
    }
    return st;
}

static mb_status end_chunk(struct mb_store_builder *b, int source, const mb_records *records)
{
    const bool mine = b->chunk.number % b->comm->size == b->comm->rank;

    if (mine && b->chunk.n > 0)
        MB_TRY(work_chunk(b, source, records));
    b->chunk.number++;
    b->chunk.n = 0;
    b->chunk.bytes = 0;
    return MB_OK;
}

static mb_status add_to_chunk(struct mb_store_builder *b, const mb_row_text *row)
{
    struct mb_store_chunk *c = &b->chunk;

    if (c->number % b->comm->size == b->comm->rank) {
        MB_TRY(mb_grow((void **)&c->text, &c->capacity, c->bytes + row->n, 1, "rows"));
        memcpy(c->text + c->bytes, row->text, row->n);
    }
    c->at[c->n] = c->bytes;
    c->row[c->n++] = *row;
    c->bytes += row->n;
    return MB_OK;
}

static mb_status read_source(struct mb_store_builder *b, int source)
{
    mb_source spec = b->o->source[source];
    mb_records *records;
    mb_row_text row;
    mb_status st;
    bool more = true;

    spec.labelled = b->o->classification;
    spec.heard = b->o->heard;
    spec.paired = b->o->render.paired;
    MB_TRY(mb_records_open(&spec, &records));
    while (more) {
        MB_TRY_GOTO(mb_records_next(records, &row, &more), st, done);
        if (more)
            MB_TRY_GOTO(add_to_chunk(b, &row), st, done);
        if (!more || b->chunk.n == MB_CHUNK_ROWS || b->chunk.bytes >= CHUNK_BYTES)
            MB_TRY_GOTO(end_chunk(b, source, records), st, done);
    }
    st = MB_OK;
done:
    mb_records_close(records);
    return st;
}

mb_status mb_store_read(struct mb_store_builder *b)
{
    MB_TRY(MB_NEW_ARRAY(&b->result, MB_CHUNK_ROWS));
    for (int i = 0; i < b->o->n_sources; i++)
        MB_TRY(read_source(b, i));
    return MB_OK;
}
