/* recipes/data/store_read.c - files to a rank's part of a token store.
 *
 * Every rank looks for the ends of all rows; chunk c is parsed, rendered and tokenised by rank c mod
 * size, a row per thread. What becomes of each row is then decided in order, by one thread.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "recipes/data/store_inside.h"
#include "recipes/data/words.h"
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

    out->st = mb_records_parse(records, &b->chunk.row[i], &out->record);
    if (out->st == MB_OK) {
        out->st = mb_render(b->renderer, &out->record, &out->tokens, &out->double_bos);
        if (out->st == MB_OK && out->record.kind == MB_RECORD_SOUND && b->o->most_seconds > 0.0)
            out->st = length_of(out->record.media, &out->seconds);
        if (out->st != MB_OK) {
            mb_status_prefix(out->st, "%s:%lld: ", source->path, (long long)b->chunk.row[i].line);
            mb_record_release(&out->record);
        }
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

int32_t mb_store_count_trained(const uint8_t *flags, int64_t n)
{
    int32_t count = 0;

    for (int64_t t = 0; t < n; t++)
        count += (flags[t] & MB_MARK_TRAINED) != 0;
    return count;
}

/* Rows of tokens to be predicted, rather than with something to be learned beside them. */
static bool tokens_are_trained(const mb_store_options *o)
{
    return o->rows == MB_WANT_TEXT || o->rows == MB_WANT_PAIRS || o->rows == MB_WANT_SOUND;
}

/* Appends ids with their marks, and row_extra, as a row of the part; media is the path that
 * about->media counts. */
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
    if (media != NULL && about->media > 0)
        memcpy(b->media + b->n_media, media, (size_t)about->media);
    b->n_media += (size_t)about->media;
    row = &b->about[b->n_rows++];
    *row = *about;
    row->tokens = (int32_t)n;
    row->extras = (int32_t)b->row_extra.n;
    memcpy(b->ids + b->n_tokens, id, (size_t)n * sizeof *id);
    memcpy(b->flags + b->n_tokens, mark, (size_t)n);
    if (tokens_are_trained(b->o))
        b->flags[b->n_tokens] &= (uint8_t)~MB_MARK_TRAINED; /* nothing predicts the first token */
    row->trained = mb_store_count_trained(b->flags + b->n_tokens, n);
    b->n_tokens += (size_t)n;
    MB_TRY(mb_grow((void **)&b->extra, &b->extra_capacity, b->n_extra + b->row_extra.n,
                   sizeof *b->extra, "labels of a data set"));
    if (b->row_extra.n > 0)
        memcpy(b->extra + b->n_extra, b->row_extra.id, b->row_extra.n * sizeof *b->extra);
    b->n_extra += b->row_extra.n;
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

static mb_status note_label(struct mb_store_builder *b, const mb_label *l, int32_t *label)
{
    if (l->name != NULL) {
        b->word_labels = true;
        return mb_names_id(&b->labels, l->name, label);
    }
    b->integer_labels = true;
    if (l->id > b->top_label)
        b->top_label = l->id;
    *label = (int32_t)l->id;
    return MB_OK;
}

static mb_status push_number(mb_ids *to, float value)
{
    int32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return mb_ids_push(to, bits);
}

static mb_status note_classes(struct mb_store_builder *b, const mb_record *rec)
{
    int32_t label;

    if (!rec->labelled)
        MB_TRY(mb_ids_push(&b->row_extra, -1));
    for (int64_t i = 0; i < rec->n_labels; i++) {
        MB_TRY(note_label(b, &rec->label[i], &label));
        MB_TRY(mb_ids_push(&b->row_extra, label));
    }
    return MB_OK;
}

/* The class of a token is that of the word it begins. */
static mb_status note_words(struct mb_store_builder *b, const mb_record *rec, const mb_tokens *t)
{
    int32_t label;

    for (size_t i = 0; i < t->extra.n; i++) {
        label = -1;
        if (t->extra.id[i] >= 0 && rec->labelled)
            MB_TRY(note_label(b, &rec->label[t->extra.id[i]], &label));
        MB_TRY(mb_ids_push(&b->row_extra, label));
    }
    return MB_OK;
}

static mb_status note_sentences(struct mb_store_builder *b, const mb_record *rec,
                                const mb_tokens *t)
{
    for (size_t i = 0; i < t->extra.n; i++)
        MB_TRY(mb_ids_push(&b->row_extra, t->extra.id[i]));
    return rec->labelled ? push_number(&b->row_extra, rec->value[0]) : MB_OK;
}

/* What comes with the row, into row_extra or the label. */
static mb_status note_extra(struct mb_store_builder *b, const mb_record *rec, const mb_tokens *t,
                            struct mb_store_about *about)
{
    mb_ids_clear(&b->row_extra);
    switch (b->o->rows) {
    case MB_WANT_CLASS:
        return rec->labelled ? note_label(b, &rec->label[0], &about->label) : MB_OK;
    case MB_WANT_CLASSES:
        return note_classes(b, rec);
    case MB_WANT_NUMBERS:
        for (int64_t i = 0; i < rec->n_values; i++)
            MB_TRY(push_number(&b->row_extra, rec->value[i]));
        return MB_OK;
    case MB_WANT_WORDS:
        return note_words(b, rec, t);
    case MB_WANT_SENTENCES:
        about->scored = rec->labelled;
        return note_sentences(b, rec, t);
    case MB_WANT_QUESTIONS:
    case MB_WANT_PAIRS:
    case MB_WANT_SOUND:
    case MB_WANT_TEXT:
        break;
    }
    return MB_OK;
}

/* ---- questions ----------------------------------------------------------------------------- */

/* Bytes [from, to) of the context that are the answer; from -1: there is none. */
static mb_status find_answer(const mb_record *rec, int64_t *from, int64_t *to)
{
    const char *answer = rec->n_list > 0 ? rec->list[0] : NULL;

    *from = *to = -1;
    if (answer == NULL)
        return MB_OK;
    *from = mb_text_bytes(rec->text2, rec->answer_start);
    MB_REQUIRE(*from >= 0 && strncmp(rec->text2 + *from, answer, strlen(answer)) == 0, MB_EDATA,
               "the context does not have the answer \"%.60s\" at character %lld", answer,
               (long long)rec->answer_start);
    *to = *from + (int64_t)strlen(answer);
    return MB_OK;
}

/* The first and last token of a window that hold the answer; the first token of all when it is not
 * whole in there. */
static void answer_tokens(const mb_tokens *w, int64_t from, int64_t to, int32_t *first,
                          int32_t *last)
{
    int64_t a = -1, b = -1;
    int32_t begins = INT32_MAX, ends = -1;

    *first = *last = 0;
    for (size_t t = 0; from >= 0 && t < w->ids.n; t++) {
        const int32_t at = w->extra.id[2 * t], end = w->extra.id[2 * t + 1];

        if (at < 0)
            continue;
        begins = at < begins ? at : begins;
        ends = end > ends ? end : ends;
        if (at <= from)
            a = (int64_t)t;
        if (b < 0 && end >= to)
            b = (int64_t)t;
    }
    if (from < 0 || begins > from || ends < to || a < 0 || b < a)
        return;
    *first = (int32_t)a;
    *last = (int32_t)b;
}

static mb_status append_window(struct mb_store_builder *b, const struct mb_store_about *about,
                               const char *media, const mb_record *rec, int64_t from, int64_t to)
{
    const mb_tokens *w = &b->window;
    int32_t first = -1, last = -1;

    if (rec->labelled)
        answer_tokens(w, from, to, &first, &last);
    mb_ids_clear(&b->row_extra);
    MB_TRY(mb_ids_push(&b->row_extra, first));
    MB_TRY(mb_ids_push(&b->row_extra, last));
    MB_TRY(mb_ids_append(&b->row_extra, w->extra.id, w->extra.n));
    return append(b, about, media, w->ids.id, w->mark, (int64_t)w->ids.n);
}

/* A context in windows of max_length, each with the question, that share doc_stride tokens. */
static mb_status append_windows(struct mb_store_builder *b, struct mb_store_about *about,
                                const char *record, const mb_record *rec, const mb_tokens *q)
{
    const size_t context = q->ids.n - q->split;
    int64_t frame, from, to;
    size_t room = context, at = 0;

    MB_TRY(find_answer(rec, &from, &to));
    MB_TRY(mb_render_window_frame(b->renderer, q, &frame));
    if (b->o->max_length > 0) {
        MB_REQUIRE(frame + b->o->doc_stride < b->o->max_length, MB_EDATA,
                   "the question and what frames it are %lld tokens, of max_length %lld less than "
                   "doc_stride %lld is left for the context",
                   (long long)frame, (long long)b->o->max_length, (long long)b->o->doc_stride);
        room = (size_t)(b->o->max_length - frame);
    }
    if (context > room && b->o->excess == MB_EXCESS_DROP) {
        b->stats.dropped++;
        return MB_OK;
    }
    MB_REQUIRE(context <= room || b->o->excess != MB_EXCESS_RAISE, MB_EDATA,
               "the row has %lld tokens, max_length is %lld", (long long)(frame + (int64_t)context),
               (long long)b->o->max_length);
    for (;;) {
        const size_t n = context - at < room ? context - at : room;

        mb_tokens_clear(&b->window);
        MB_TRY(mb_render_window(b->renderer, q, at, n, &b->window));
        about->media = at == 0 ? (int32_t)strlen(record) + 1 : 0;
        MB_TRY(append_window(b, about, record, rec, from, to));
        if (at + n >= context)
            return MB_OK;
        at += room - (size_t)b->o->doc_stride;
    }
}

/* What an evaluation needs of a question besides its tokens. */
static mb_status question_text(const mb_record *rec, char **out)
{
    mb_json_doc *doc = NULL;
    mb_json root, list;
    mb_status st = MB_OK;

    MB_TRY(mb_json_doc_new("a question", &doc));
    root = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(root, "question", rec->text), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "context", rec->text2), st, done);
    if (rec->labelled)
        MB_TRY_GOTO(mb_json_set_array(root, "answers", &list), st, done);
    for (int64_t i = 0; i < rec->n_list; i++)
        MB_TRY_GOTO(mb_json_set_string(list, NULL, rec->list[i]), st, done);
    st = mb_json_text(root, 0, out, NULL);
done:
    mb_json_free(doc);
    return st;
}

static mb_status append_question(struct mb_store_builder *b, struct mb_store_about *about,
                                 const mb_record *rec, const mb_tokens *q)
{
    char *record = NULL;
    mb_status st;

    MB_TRY(question_text(rec, &record));
    st = append_windows(b, about, record, rec, q);
    mb_free(record);
    return st;
}

/* ---- a row --------------------------------------------------------------------------------- */

/* Nothing but special tokens, in all of it or in one of its sentences. */
static bool is_empty(const mb_tokens *t, const mb_record *rec)
{
    const int64_t lists = rec->kind == MB_RECORD_SENTENCES ? rec->n_list : 1;
    size_t at = rec->kind == MB_RECORD_QUESTION ? t->split : 0;

    for (int64_t i = 0; i < lists; i++) {
        const size_t end =
            rec->kind == MB_RECORD_SENTENCES ? at + (size_t)t->extra.id[i] : t->ids.n;
        int64_t plain = 0;

        for (; at < end; at++)
            plain += !(t->mark[at] & MB_MARK_SPECIAL);
        if (plain == 0)
            return true;
    }
    return false;
}

static mb_status labels_are_there(const struct mb_store_builder *b, const mb_record *rec)
{
    static const mb_record_kind kinds[] = {
        [MB_WANT_CLASS] = MB_RECORD_CLASS,        [MB_WANT_CLASSES] = MB_RECORD_CLASS,
        [MB_WANT_NUMBERS] = MB_RECORD_CLASS,      [MB_WANT_WORDS] = MB_RECORD_WORDS,
        [MB_WANT_QUESTIONS] = MB_RECORD_QUESTION, [MB_WANT_SENTENCES] = MB_RECORD_SENTENCES,
    };
    const mb_want rows = b->o->rows;
    const bool text = rec->kind == MB_RECORD_TEXT || rec->kind == MB_RECORD_PAIR ||
                      rec->kind == MB_RECORD_CHAT || rec->kind == MB_RECORD_TOKENS;
    const bool sound = rec->kind == MB_RECORD_SOUND;

    MB_REQUIRE(sound == (rows == MB_WANT_SOUND), MB_EDATA,
               "the row names %s sound, and the task wants %s", sound ? "a" : "no",
               sound ? "none" : "one");
    if (sound)
        return MB_OK;
    MB_REQUIRE(rows != MB_WANT_PAIRS || rec->kind == MB_RECORD_PAIR, MB_EDATA,
               "the row is no pair of texts");
    if (rows == MB_WANT_TEXT || rows == MB_WANT_PAIRS) {
        MB_REQUIRE(text, MB_EDATA, "the row has a label, and the task wants none");
        return MB_OK;
    }
    MB_REQUIRE(rec->kind == kinds[rows] &&
                   (rec->labelled || b->o->unlabelled || rows == MB_WANT_SENTENCES),
               MB_EDATA, "the row has no label, and the task wants one");
    return MB_OK;
}

static mb_status is_right(const struct mb_store_builder *b, const mb_record *rec)
{
    int64_t from, to;

    MB_TRY(labels_are_there(b, rec));
    return rec->kind == MB_RECORD_QUESTION ? find_answer(rec, &from, &to) : MB_OK;
}

/* Longer than a row, or one of its two sides, may be; sentences of a list were cut one by one. */
static bool too_long(const mb_store_options *o, const mb_tokens *t)
{
    const int64_t n = (int64_t)t->ids.n, source = (int64_t)t->split;

    if (!o->render.paired)
        return o->max_length > 0 && n > o->max_length && o->rows != MB_WANT_SENTENCES;
    return (o->max_length > 0 && source > o->max_length) ||
           (o->render.max_target > 0 && n - source - 1 > o->render.max_target);
}

static mb_status refuse_long(const mb_store_options *o, const mb_tokens *t)
{
    MB_REQUIRE(!o->render.paired, MB_EDATA,
               "the source has %lld tokens and the target %lld, max_length is %lld and "
               "max_target_length %lld",
               (long long)t->split, (long long)(t->ids.n - t->split - 1), (long long)o->max_length,
               (long long)o->render.max_target);
    return MB_RAISE(MB_EDATA, "the row has %lld tokens, max_length is %lld", (long long)t->ids.n,
                    (long long)o->max_length);
}

/* Cuts a row that is too long, or says that it is dropped. */
static mb_status shorten(struct mb_store_builder *b, mb_tokens *t, const mb_record *rec,
                         bool framed, bool *cut, bool *gone)
{
    const mb_store_options *o = b->o;

    *cut = *gone = false;
    if (!too_long(o, t))
        return MB_OK;
    if (o->excess == MB_EXCESS_RAISE)
        return refuse_long(o, t);
    if (o->excess == MB_EXCESS_DROP) {
        b->stats.dropped++;
        *gone = true;
        return MB_OK;
    }
    if (o->render.paired)
        mb_render_truncate_sides(t, o->max_length, o->render.max_target);
    else
        mb_render_truncate(t, framed ? MB_RECORD_CLASS : rec->kind, o->max_length);
    b->stats.truncated++;
    *cut = true;
    return MB_OK;
}

static mb_status take_row(struct mb_store_builder *b, const mb_record *rec, mb_tokens *t,
                          struct mb_store_about *about)
{
    const mb_store_options *o = b->o;
    const bool framed = !tokens_are_trained(o) || o->render.masked_lm;
    bool cut, gone;

    if (is_empty(t, rec)) {
        b->stats.empty++;
        return MB_OK;
    }
    if (rec->kind == MB_RECORD_QUESTION)
        return append_question(b, about, rec, t);
    if (too_long(o, t) && (rec->whole_text || (o->excess == MB_EXCESS_SPLIT &&
                                               rec->kind == MB_RECORD_TEXT && !framed)))
        return append_pieces(b, about, t);
    MB_TRY(shorten(b, t, rec, framed, &cut, &gone));
    if (gone)
        return MB_OK;
    MB_TRY(note_extra(b, rec, t, about));
    if (!framed && mb_store_count_trained(t->mark + 1, (int64_t)t->ids.n - 1) == 0) {
        note_untrained(b, about->source, about->line,
                       cut ? "its first max_length tokens hold nothing that is trained"
                           : "nothing in it is trained");
        return MB_OK;
    }
    about->media = rec->media != NULL ? (int32_t)strlen(rec->media) + 1 : 0;
    return append(b, about, rec->media, t->ids.id, t->mark, (int64_t)t->ids.n);
}

/* Takes one row's result into the part: counts, cuts, drops. */
static mb_status take_result(struct mb_store_builder *b, int source, int i)
{
    const mb_source *from = &b->o->source[source];
    struct mb_store_result *r = &b->result[i];
    const int64_t line = b->chunk.row[i].line;
    struct mb_store_about about = {.chunk = b->chunk.number,
                                   .line = line,
                                   .record = b->chunk.row[i].record,
                                   .label = -1,
                                   .source = source};
    mb_status st;

    b->stats.rows_read++;
    if (r->st == MB_EDATA && from->skip_bad) {
        b->stats.bad++;
        return MB_OK;
    }
    if (r->st != MB_OK)
        return MB_RAISE(r->st, "%s", r->sentence != NULL ? r->sentence : "not enough memory");
    b->stats.double_bos += r->double_bos;
    MB_TRY(check_ids(b, &r->tokens, from->path, line));
    st = is_right(b, &r->record);
    if (st == MB_EDATA && from->skip_bad) {
        mb_status_clear();
        b->stats.bad++;
        return MB_OK;
    }
    if (st == MB_OK && r->record.kind == MB_RECORD_SOUND && b->o->most_seconds > 0.0 &&
        r->seconds > b->o->most_seconds) {
        MB_REQUIRE(b->o->excess != MB_EXCESS_RAISE, MB_EDATA,
                   "%s:%lld: %s lasts %.2f seconds, expected at most %g", from->path,
                   (long long)line, r->record.media, r->seconds, b->o->most_seconds);
        b->stats.long_sounds++; /* a part of it would not fit what is said */
        return MB_OK;
    }
    if (st == MB_OK)
        st = take_row(b, &r->record, &r->tokens, &about);
    return st == MB_OK ? st : mb_status_prefix(st, "%s:%lld: ", from->path, (long long)line);
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
        mb_record_release(&b->result[i].record);
        mb_free(b->result[i].sentence);
        b->result[i].sentence = NULL;
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

    spec.rows = b->o->rows;
    spec.unlabelled = b->o->unlabelled;
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
