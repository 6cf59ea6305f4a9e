/* recipes/data/render.c - see recipes/data/render.h. */
#include "recipes/data/render.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/words.h"

struct mb_renderer {
    mb_render_options o;
    mb_chat *chat;     /* NULL: none, or not found */
    char *why_no_chat; /* the sentence, when conversations cannot be rendered */
    char *suffix;      /* never NULL */
    char *identity;
    int32_t bos, eos; /* ids, -1 when there is none */
    bool add_bos;
    mb_words words;
};

static mb_status open_chat(mb_renderer *r)
{
    const char *choice = r->o.chat_template;
    mb_status st;

    if (choice != NULL && strcmp(choice, "none") == 0)
        return mb_strdup("chat_template is none, which can only write one user message and its "
                         "answer",
                         &r->why_no_chat);
    const mb_chat_options o = {.tokenizer = r->o.tokenizer,
                               .choice = choice,
                               .system = r->o.system_prompt,
                               .n_values = r->o.n_values,
                               .value_name = r->o.value_name,
                               .value = r->o.value,
                               .now = r->o.now};

    st = mb_chat_open(&o, &r->chat);
    if (st != MB_EMODEL || (choice != NULL && choice[0] != '\0' && strcmp(choice, "auto") != 0))
        return st;
    /* Rows that are not conversations need no template. */
    MB_TRY(mb_strdup(mb_status_sentence(), &r->why_no_chat));
    mb_status_clear();
    return MB_OK;
}

/* "50258 50259 ..." of what opens transcripts. */
static void prompt_text(const mb_render_options *o, char *text, size_t size)
{
    size_t at = 0;

    text[0] = '\0';
    for (int i = 0; i < o->n_prompt_ids && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%d ", o->prompt_ids[i]);
}

mb_status mb_renderer_new(const mb_render_options *o, mb_renderer **out)
{
    char prompt[128];
    const char *suffix = o->completion_suffix != NULL ? o->completion_suffix : "";
    mb_renderer *r;
    mb_status st;

    MB_TRY(MB_NEW(&r));
    r->o = *o;
    r->bos = mb_tokenizer_role(o->tokenizer, MB_TOKEN_BOS);
    r->eos = mb_tokenizer_role(o->tokenizer, MB_TOKEN_EOS);
    r->add_bos = o->add_bos > 0 || (o->add_bos < 0 && mb_tokenizer_adds_bos(o->tokenizer));
    if (o->add_bos > 0 && r->bos < 0) {
        st = MB_RAISE(MB_EARG, "add_bos: the tokenizer has no BOS token");
        goto fail;
    }
    if (o->add_eos > 0 && r->eos < 0) {
        st = MB_RAISE(MB_EARG, "add_eos: the tokenizer has no EOS token");
        goto fail;
    }
    if (r->bos < 0)
        r->add_bos = false;
    MB_TRY_GOTO(mb_strdup(suffix, &r->suffix), st, fail);
    r->o.completion_suffix = r->suffix;
    MB_TRY_GOTO(open_chat(r), st, fail);
    MB_TRY_GOTO(mb_words_for(o->tokenizer, &r->words), st, fail);
    prompt_text(o, prompt, sizeof prompt);
    MB_TRY_GOTO(
        mb_asprintf(
            &r->identity,
            "render/2|%s|on=%d eos=%d|bos=%d/%d eos=%d/%d|mlm=%d|%s|%s|sides=%d %d %s %s %s "
            "%lld %s",
            r->chat != NULL ? mb_chat_identity(r->chat) : "none", o->train.on, o->train.eos,
            r->add_bos, r->bos, o->add_eos, r->eos, o->masked_lm, prompt, r->suffix, o->paired,
            o->decoder_start, o->paired && o->target != NULL ? mb_tokenizer_sha256(o->target) : "",
            o->source_lang != NULL ? o->source_lang : "",
            o->target_lang != NULL ? o->target_lang : "", (long long)o->max_target,
            o->source_prefix != NULL ? o->source_prefix : ""),
        st, fail);
    *out = r;
    return MB_OK;
fail:
    mb_renderer_free(r);
    return st;
}

void mb_renderer_free(mb_renderer *r)
{
    if (r == NULL)
        return;
    mb_chat_free(r->chat);
    mb_free(r->why_no_chat);
    mb_free(r->suffix);
    mb_free(r->identity);
    mb_free(r);
}

const mb_chat *mb_renderer_chat(const mb_renderer *r)
{
    return r->chat;
}

const char *mb_renderer_identity(const mb_renderer *r)
{
    return r->identity;
}

bool mb_renderer_adds_bos(const mb_renderer *r)
{
    return r->add_bos;
}

static mb_status put(const mb_renderer *r, const char *text, uint8_t mark, mb_tokens *out)
{
    const size_t from = out->ids.n;

    MB_TRY(mb_tokenizer_encode(r->o.tokenizer, text, strlen(text), 0, &out->ids));
    return mb_tokens_mark(out, r->o.tokenizer, from, mark);
}

static mb_status put_id(const mb_renderer *r, int32_t id, uint8_t mark, mb_tokens *out)
{
    MB_TRY(mb_ids_push(&out->ids, id));
    return mb_tokens_mark(out, r->o.tokenizer, out->ids.n - 1, mark);
}

static bool wants_eos(const mb_renderer *r, bool by_default)
{
    return r->eos >= 0 && (r->o.add_eos > 0 || (r->o.add_eos < 0 && by_default));
}

/* A row that begins with two BOS loses one. */
static void undouble(const mb_renderer *r, mb_tokens *t, bool *double_bos)
{
    if (r->bos < 0 || t->ids.n < 2 || t->ids.id[0] != r->bos || t->ids.id[1] != r->bos)
        return;
    t->ids.n--;
    memmove(t->ids.id, t->ids.id + 1, t->ids.n * sizeof t->ids.id[0]);
    memmove(t->mark, t->mark + 1, t->ids.n);
    t->split -= t->split > 0;
    *double_bos = true;
}

static mb_status render_text(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    if (r->add_bos)
        MB_TRY(put_id(r, r->bos, MB_MARK_TRAINED, out));
    MB_TRY(put(r, rec->text, MB_MARK_TRAINED, out));
    return wants_eos(r, !rec->whole_text) ? put_id(r, r->eos, MB_MARK_TRAINED, out) : MB_OK;
}

/* As Whisper is fine-tuned by everyone: the whole prompt but its first token is trained, too. */
static mb_status render_sound(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    MB_REQUIRE(r->eos >= 0, MB_EMODEL, "the tokenizer has no EOS token, which ends a transcript");
    for (int i = 0; i < r->o.n_prompt_ids; i++)
        MB_TRY(put_id(r, r->o.prompt_ids[i], i > 0 ? MB_MARK_TRAINED : 0, out));
    MB_TRY(put(r, rec->text, MB_MARK_TRAINED, out));
    return put_id(r, r->eos, MB_MARK_TRAINED, out);
}

/* The completion with its suffix, unless it ends with it already. */
static mb_status put_completion(const mb_renderer *r, const char *completion, mb_tokens *out)
{
    const size_t n = strlen(completion), ns = strlen(r->suffix);
    char *whole;
    mb_status st;

    if (n >= ns && strcmp(completion + n - ns, r->suffix) == 0)
        return put(r, completion, MB_MARK_TRAINED, out);
    MB_TRY(mb_asprintf(&whole, "%s%s", completion, r->suffix));
    st = put(r, whole, MB_MARK_TRAINED, out);
    mb_free(whole);
    return st;
}

static mb_status render_pair(const mb_renderer *r, const char *prompt, const char *completion,
                             mb_tokens *out)
{
    const bool all = r->o.train.on == MB_TRAIN_ALL;
    const bool end = all || r->o.train.eos != MB_EOS_NONE;

    if (r->add_bos)
        MB_TRY(put_id(r, r->bos, all ? MB_MARK_TRAINED : 0, out));
    MB_TRY(put(r, prompt, all ? MB_MARK_TRAINED : 0, out));
    out->split = out->ids.n;
    MB_TRY(put_completion(r, completion, out));
    return wants_eos(r, r->suffix[0] == '\0') ? put_id(r, r->eos, end ? MB_MARK_TRAINED : 0, out)
                                              : MB_OK;
}

int32_t mb_language_token(const mb_tokenizer *t, const char *lang)
{
    char token[80];
    int32_t id;

    if (lang == NULL)
        return -1;
    id = mb_tokenizer_token_to_id(t, lang, strlen(lang));
    if (id >= 0 && mb_tokenizer_is_special(t, id))
        return id;
    const int n = snprintf(token, sizeof token, "__%s__", lang);
    return n < (int)sizeof token ? mb_tokenizer_token_to_id(t, token, (size_t)n) : -1;
}

/* Tokens of one side, with what the post-processor adds; a language's token comes first, in place of
 * the one that the tokenizer was saved with. */
static mb_status put_side(const mb_tokenizer *t, const char *text, const char *lang, uint8_t mark,
                          mb_tokens *out)
{
    const size_t from = out->ids.n;
    const int32_t token = mb_language_token(t, lang);

    MB_TRY(mb_tokenizer_encode(t, text, strlen(text), MB_TOK_SPECIAL, &out->ids));
    if (token >= 0 && out->ids.n > from && mb_tokenizer_is_special(t, out->ids.id[from]) &&
        out->ids.id[from] != mb_tokenizer_role(t, MB_TOKEN_EOS)) {
        out->ids.id[from] = token;
    } else if (token >= 0) {
        MB_TRY(mb_ids_push(&out->ids, token));
        for (size_t i = out->ids.n - 1; i > from; i--)
            out->ids.id[i] = out->ids.id[i - 1];
        out->ids.id[from] = token;
    }
    return mb_tokens_mark(out, t, from, mark);
}

mb_status mb_render_source(const mb_render_options *o, const char *text, mb_tokens *out)
{
    const char *prefix = o->source_prefix != NULL ? o->source_prefix : "";
    char *whole = NULL;
    mb_status st;

    MB_TRY(mb_asprintf(&whole, "%s%s", prefix, text));
    st = put_side(o->tokenizer, whole, o->source_lang, 0, out);
    mb_free(whole);
    return st;
}

static mb_status render_sides(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    const mb_tokenizer *t = r->o.target != NULL ? r->o.target : r->o.tokenizer;
    const int32_t eos = mb_tokenizer_role(t, MB_TOKEN_EOS);
    const uint8_t mark = MB_MARK_SECOND | MB_MARK_TRAINED;

    MB_TRY(mb_render_source(&r->o, rec->text, out));
    MB_REQUIRE(out->ids.n > 0, MB_EDATA, "the source has no token");
    out->split = out->ids.n;
    MB_TRY(put_id(r, r->o.decoder_start, MB_MARK_SECOND, out));
    MB_TRY(put_side(t, rec->text2, r->o.target_lang, mark, out));
    if (eos >= 0 && out->ids.id[out->ids.n - 1] != eos)
        MB_TRY(mb_ids_push(&out->ids, eos));
    return mb_tokens_mark(out, t, out->split + 1, mark);
}

static mb_status render_sentences(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    const char *second = rec->text2;
    mb_ids types = {0};
    mb_status st = mb_tokenizer_encode_pair(r->o.tokenizer, rec->text, strlen(rec->text), second,
                                            second != NULL ? strlen(second) : 0, MB_TOK_SPECIAL,
                                            &out->ids, &types);

    if (st == MB_OK)
        st = mb_tokens_mark(out, r->o.tokenizer, 0, 0);
    for (size_t i = 0; st == MB_OK && i < out->ids.n && i < types.n; i++)
        out->mark[i] |= types.id[i] == 1 ? MB_MARK_SECOND : 0;
    mb_ids_release(&types);
    return st;
}

/* `type_ids` become marks of the tokens from `from` on. */
static mb_status mark_framed(const mb_renderer *r, const mb_ids *type_ids, size_t from,
                             mb_tokens *out)
{
    MB_TRY(mb_tokens_mark(out, r->o.tokenizer, from, 0));
    for (size_t i = 0; i < type_ids->n; i++)
        out->mark[from + i] |= type_ids->id[i] == 1 ? MB_MARK_SECOND : 0;
    return MB_OK;
}

static mb_status frame_words(const mb_renderer *r, const mb_ids *ids, const mb_ids *word_of,
                             mb_tokens *out)
{
    mb_ids types = {0};
    size_t at[2];
    mb_status st = mb_tokenizer_frame(r->o.tokenizer, ids, NULL, &out->ids, &types, at);

    if (st == MB_OK)
        st = mark_framed(r, &types, 0, out);
    for (size_t i = 0; st == MB_OK && i < out->ids.n; i++) {
        const bool inside = i >= at[0] && i < at[0] + ids->n;
        const int32_t word = inside ? word_of->id[i - at[0]] : -1;

        st = mb_ids_push(&out->extra, word);
        out->mark[i] |= word >= 0 ? MB_MARK_TRAINED : 0;
        if (inside) /* an unknown word is no frame */
            out->mark[i] &= (uint8_t)~MB_MARK_SPECIAL;
    }
    mb_ids_release(&types);
    return st;
}

static mb_status render_words(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    mb_ids ids = {0}, word_of = {0};
    mb_status st = MB_OK;

    for (int64_t w = 0; w < rec->n_list && st == MB_OK; w++) {
        const size_t from = ids.n;

        st = mb_words_encode(&r->words, rec->list[w], strlen(rec->list[w]), true, &ids);
        for (size_t i = from; i < ids.n && st == MB_OK; i++)
            st = mb_ids_push(&word_of, i == from ? (int32_t)w : -1);
    }
    if (st == MB_OK)
        st = frame_words(r, &ids, &word_of, out);
    mb_ids_release(&ids);
    mb_ids_release(&word_of);
    return st;
}

static mb_status render_question(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    const char *question = rec->text + strspn(rec->text, " \t\r\n");

    MB_TRY(mb_tokenizer_encode(r->o.tokenizer, question, strlen(question), 0, &out->ids));
    out->split = out->ids.n;
    MB_TRY(mb_words_encode_text(&r->words, rec->text2, &out->ids, &out->extra));
    return mb_tokens_mark(out, r->o.tokenizer, 0, 0);
}

/* A piece of an mb_ids, borrowed. */
static mb_ids piece(const mb_ids *ids, size_t from, size_t n)
{
    return (mb_ids){.id = ids->id + from, .n = n};
}

mb_status mb_render_window(const mb_renderer *r, const mb_tokens *q, size_t from, size_t n,
                           mb_tokens *out)
{
    const mb_ids a = piece(&q->ids, 0, q->split), b = piece(&q->ids, q->split + from, n);
    const size_t before = out->ids.n;
    mb_ids types = {0};
    size_t at[2];
    mb_status st = mb_tokenizer_frame(r->o.tokenizer, &a, &b, &out->ids, &types, at);

    if (st == MB_OK)
        st = mark_framed(r, &types, before, out);
    for (size_t i = before; st == MB_OK && i < out->ids.n; i++) {
        const bool inside = i >= at[1] && i < at[1] + n;

        for (size_t k = 0; k < 2 && st == MB_OK; k++)
            st = mb_ids_push(&out->extra, inside ? q->extra.id[2 * (from + i - at[1]) + k] : -1);
    }
    mb_ids_release(&types);
    return st;
}

mb_status mb_render_window_frame(const mb_renderer *r, const mb_tokens *q, int64_t *n)
{
    mb_tokens empty = {0};
    const mb_status st = mb_render_window(r, q, 0, 0, &empty);

    *n = (int64_t)empty.ids.n;
    mb_tokens_release(&empty);
    return st;
}

static mb_status render_one_sentence(const mb_renderer *r, const char *text, mb_tokens *out)
{
    const mb_record rec = {.kind = MB_RECORD_CLASS, .text = text};
    mb_tokens one = {0};
    mb_status st = render_sentences(r, &rec, &one);

    if (st == MB_OK && r->o.longest_sentence > 0)
        mb_render_truncate(&one, MB_RECORD_CLASS, r->o.longest_sentence);
    const size_t from = out->ids.n;
    if (st == MB_OK)
        st = mb_ids_append(&out->ids, one.ids.id, one.ids.n);
    if (st == MB_OK)
        st = mb_tokens_mark(out, r->o.tokenizer, from, 0);
    if (st == MB_OK)
        st = mb_ids_push(&out->extra, (int32_t)one.ids.n);
    mb_tokens_release(&one);
    return st;
}

static mb_status render_list(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    for (int64_t i = 0; i < rec->n_list; i++)
        MB_TRY(render_one_sentence(r, rec->list[i], out));
    return MB_OK;
}

static mb_status render_chat(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    const mb_conversation talk = mb_record_talk(rec);
    const mb_message *m = rec->message;

    if (r->chat != NULL)
        return mb_chat_render(r->chat, &talk, &r->o.train, false, out);
    if (r->o.chat_template != NULL && strcmp(r->o.chat_template, "none") == 0 &&
        rec->n_messages == 2 && m[0].role == MB_ROLE_USER && m[1].role == MB_ROLE_ASSISTANT)
        return render_pair(r, m[0].content, m[1].content, out);
    return MB_RAISE(MB_EMODEL, "%s", r->why_no_chat);
}

/* As they are: neither BOS nor EOS is added. */
static mb_status render_tokens(const mb_renderer *r, const mb_record *rec, mb_tokens *out)
{
    MB_REQUIRE(!r->o.masked_lm, MB_EDATA, "rows of input_ids cannot be used by task masked-lm");
    MB_TRY(mb_ids_append(&out->ids, rec->ids, (size_t)rec->n_ids));
    MB_TRY(mb_tokens_mark(out, r->o.tokenizer, 0, 0));
    for (int64_t i = 0; i < rec->n_ids; i++)
        out->mark[i] |= rec->labels == NULL || rec->labels[i] != -100 ? MB_MARK_TRAINED : 0;
    return MB_OK;
}

mb_status mb_render(const mb_renderer *r, const mb_record *rec, mb_tokens *out, bool *double_bos)
{
    bool doubled = false;

    mb_tokens_clear(out);
    if (double_bos != NULL)
        *double_bos = false;
    switch (rec->kind) {
    case MB_RECORD_TEXT:
        MB_TRY(r->o.masked_lm ? render_sentences(r, rec, out) : render_text(r, rec, out));
        break;
    case MB_RECORD_PAIR:
        if (r->o.paired) {
            MB_TRY(render_sides(r, rec, out));
            break;
        }
        MB_TRY(render_pair(r, rec->text, rec->text2, out));
        break;
    case MB_RECORD_CHAT:
        MB_TRY(render_chat(r, rec, out));
        break;
    case MB_RECORD_TOKENS:
        MB_TRY(render_tokens(r, rec, out));
        break;
    case MB_RECORD_CLASS:
        MB_TRY(render_sentences(r, rec, out));
        break;
    case MB_RECORD_SOUND:
        MB_TRY(render_sound(r, rec, out));
        break;
    case MB_RECORD_WORDS:
        return render_words(r, rec, out);
    case MB_RECORD_QUESTION:
        return render_question(r, rec, out);
    case MB_RECORD_SENTENCES:
        return render_list(r, rec, out);
    }
    undouble(r, out, &doubled);
    if (double_bos != NULL)
        *double_bos = doubled;
    return MB_OK;
}

/* Tokens of each sentence that may stay when `room` are left for both: the longer gives way. */
static void share_room(int64_t room, int64_t *a, int64_t *b)
{
    int64_t small = *a <= *b ? *a : *b, large = *a <= *b ? *b : *a;
    const bool swap = *a > *b;

    if (small + large <= room)
        return;
    large = small > room ? small : (room - small > small ? room - small : small);
    if (small + large > room) {
        small = room / 2;
        large = small + room % 2;
    }
    *a = swap ? large : small;
    *b = swap ? small : large;
}

void mb_render_truncate(mb_tokens *t, mb_record_kind kind, int64_t max)
{
    int64_t have[2] = {0, 0}, seen[2] = {0, 0}, special = 0;
    size_t at = 0;

    if ((int64_t)t->ids.n <= max)
        return;
    if (kind != MB_RECORD_CLASS && kind != MB_RECORD_WORDS) {
        t->ids.n = (size_t)max;
        return;
    }
    for (size_t i = 0; i < t->ids.n; i++) {
        if (t->mark[i] & MB_MARK_SPECIAL)
            special++;
        else
            have[(t->mark[i] & MB_MARK_SECOND) != 0]++;
    }
    share_room(max > special ? max - special : 0, &have[0], &have[1]);
    for (size_t i = 0; i < t->ids.n && (int64_t)at < max; i++) {
        const int which = (t->mark[i] & MB_MARK_SECOND) != 0;

        if (!(t->mark[i] & MB_MARK_SPECIAL) && seen[which]++ >= have[which])
            continue;
        t->ids.id[at] = t->ids.id[i];
        if (t->extra.n > 0)
            t->extra.id[at] = t->extra.id[i];
        t->mark[at++] = t->mark[i];
    }
    t->ids.n = at;
    if (t->extra.n > 0)
        t->extra.n = at;
}

/* Of n tokens from `from` on the first ones stay, and the special ones at their end. Returns how many
 * are left; they are moved to `to`. */
static size_t cut_side(mb_tokens *t, size_t from, size_t n, int64_t max, size_t to)
{
    size_t tail = 0, stay;

    while (tail < n && (t->mark[from + n - 1 - tail] & MB_MARK_SPECIAL))
        tail++;
    if (max <= 0 || (int64_t)n <= max) {
        stay = n;
        tail = 0;
    } else {
        tail = (int64_t)tail < max ? tail : (size_t)max;
        stay = (size_t)max - tail;
    }
    memmove(t->ids.id + to, t->ids.id + from, stay * sizeof *t->ids.id);
    memmove(t->mark + to, t->mark + from, stay);
    memmove(t->ids.id + to + stay, t->ids.id + from + n - tail, tail * sizeof *t->ids.id);
    memmove(t->mark + to + stay, t->mark + from + n - tail, tail);
    return stay + tail;
}

void mb_render_truncate_sides(mb_tokens *t, int64_t max_source, int64_t max_target)
{
    const size_t split = t->split, n = t->ids.n;

    t->split = cut_side(t, 0, split, max_source, 0);
    t->ids.n =
        t->split + cut_side(t, split, n - split, max_target > 0 ? max_target + 1 : 0, t->split);
}
