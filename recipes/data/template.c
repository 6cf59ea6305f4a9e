/* recipes/data/template.c - see recipes/data/template.h: opening, and tokens of a rendered text. */
#include "recipes/data/template.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/path.h"
#include "recipes/data/template_inside.h"
#include "recipes/data/template_names.h"

enum { MOST_FILE_BYTES = 4 << 20 };

/* ---- names ---------------------------------------------------------------------------------- */

/* Other names of the same format, as other programs call them. */
static const struct {
    const char *name, *canonical;
} aliases[] = {
    {"phi-3", "phi3"},        {"phi_3", "phi3"},
    {"phi_35", "phi3"},       {"phi-4", "phi4"},
    {"phi_4", "phi4"},        {"qwen", "qwen2.5"},
    {"qwen2", "qwen2.5"},     {"qwen25", "qwen2.5"},
    {"qwen_25", "qwen2.5"},   {"llama3.2", "llama3.1"},
    {"llama3.3", "llama3.1"}, {"llama-2", "llama2"},
    {"llama-3", "llama3"},    {"mistral_v1", "mistral-v1"},
    {"gemma2", "gemma"},      {"gemma3", "gemma"},
    {"tulu", "olmo2"},        {"cohere", "command-r"},
};

const char *mb_chat_names(void)
{
    return mb_template_names;
}

static const struct mb_template_named *find_named(const char *name)
{
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (strcmp(aliases[i].name, name) == 0)
            name = aliases[i].canonical;
    }
    for (size_t i = 0; mb_templates[i].name != NULL; i++) {
        if (strcmp(mb_templates[i].name, name) == 0)
            return &mb_templates[i];
    }
    return NULL;
}

const char *mb_chat_named(const char *name)
{
    const struct mb_template_named *t = find_named(name);

    return t != NULL ? t->text : NULL;
}

/* The Jinja text that `choice` means, owned by the caller, and what it is called. */
static mb_status choose(const char *choice, const mb_tokenizer *tok, char **text, char **name)
{
    const bool automatic = choice == NULL || choice[0] == '\0' || strcmp(choice, "auto") == 0 ||
                           strcmp(choice, "tokenizer_default") == 0;
    const char *own = mb_tokenizer_chat_template(tok);
    const struct mb_template_named *named = automatic ? NULL : find_named(choice);

    *text = *name = NULL;
    if (automatic) {
        MB_REQUIRE(own != NULL, MB_EMODEL,
                   "the rows are conversations and the tokenizer has no chat template; set "
                   "chat_template to a file or to one of %s",
                   mb_chat_names());
        MB_TRY(mb_strdup("the model's own", name));
        return mb_strdup(own, text);
    }
    if (named != NULL) {
        MB_TRY(mb_strdup(named->name, name));
        return mb_strdup(named->text, text);
    }
    if (strstr(choice, "{{") != NULL || strstr(choice, "{%") != NULL) {
        MB_TRY(mb_strdup("the recipe's", name));
        return mb_strdup(choice, text);
    }
    MB_REQUIRE(mb_path_is_file(choice), MB_EARG,
               "chat_template: \"%s\" is neither a file nor a known name; known are auto, none, %s",
               choice, mb_chat_names());
    size_t n;
    MB_TRY(mb_strdup(choice, name));
    return mb_file_read_as(choice, MB_EARG, MOST_FILE_BYTES, text, &n);
}

/* ---- opening -------------------------------------------------------------------------------- */

static mb_status find_tokens(mb_chat *c)
{
    const int32_t n = mb_tokenizer_vocab_size(c->tok);

    for (int32_t id = 0; id < n; id++) {
        const char *token = mb_tokenizer_id_to_token(c->tok, id);

        if (token == NULL || token[0] == '\0' || !mb_tokenizer_is_special(c->tok, id))
            continue;
        MB_TRY(mb_grow((void **)&c->token, &c->token_capacity, c->n_tokens + 1, sizeof *c->token,
                       "special tokens"));
        c->token[c->n_tokens++] = token;
    }
    return MB_OK;
}

/* A value of chat_template_kwargs: what it is as JSON, else a text. */
static mb_status add_value(mb_chat *c, const char *name, const char *value)
{
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};
    const char *text = value;
    mb_json_doc *doc;
    mb_status st;

    for (size_t i = 0; i < 3; i++)
        text = strcmp(text, words[i][0]) == 0 ? words[i][1] : text;
    if (mb_json_parse(text, strlen(text), name, 0, MB_EARG, &doc) != MB_OK) {
        mb_status_clear();
        return mb_json_set_string(mb_json_root(c->values), name, value);
    }
    st = mb_json_set(mb_json_root(c->values), name, mb_json_root(doc));
    mb_json_free(doc);
    return st;
}

int64_t mb_chat_today(void)
{
    const char *fixed = getenv("SOURCE_DATE_EPOCH");

    return fixed != NULL && fixed[0] != '\0' ? strtoll(fixed, NULL, 10) : (int64_t)time(NULL);
}

bool mb_chat_says_date(const mb_chat *c)
{
    return mb_jinja_reads(c->jinja, "strftime_now");
}

static mb_status make_identity(mb_chat *c, const char *text)
{
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX], date[32] = "";
    char *values = NULL;
    struct tm t;
    mb_status st;

    MB_TRY(mb_digest_memory(text, strlen(text), digest));
    mb_digest_hex(digest, hex);
    if (mb_chat_says_date(c) && localtime_r(&c->now, &t) != NULL)
        strftime(date, sizeof date, "%Y-%m-%d", &t);
    MB_TRY(mb_json_text(mb_json_root(c->values), 0, &values, NULL));
    st = mb_asprintf(&c->identity, "jinja/1|%s|%s|%s|%d|%d|%d|%s", hex, values, date,
                     mb_tokenizer_role(c->tok, MB_TOKEN_BOS),
                     mb_tokenizer_role(c->tok, MB_TOKEN_EOS), c->system != NULL,
                     c->system != NULL ? c->system : "");
    mb_free(values);
    return st;
}

static mb_status page_of(mb_chat_job *job, bool prompt, mb_chat_page *out);
static void free_page(mb_chat_page *page);

/* The end-of-turn token, seen from a conversation that every format can write. One that cannot be
 * written shows nothing. */
static mb_status probe(mb_chat *c)
{
    static const mb_message talk[] = {{.role = MB_ROLE_USER, .content = "a"},
                                      {.role = MB_ROLE_ASSISTANT, .content = "b"}};
    const mb_conversation conversation = {.message = talk, .n = 2};
    mb_chat_page page = {0};
    mb_chat_span span;
    mb_chat_job job;
    mb_status st;

    MB_TRY(mb_chat_job_open(c, &conversation, &job));
    job.quiet = true;
    MB_TRY_GOTO(page_of(&job, false, &page), st, done);
    MB_TRY_GOTO(mb_chat_find_answer(&job, &page, 1, &span), st, done);
    if (span.token) {
        const size_t n = mb_chat_token_at(c, page.text, span.end, page.n);

        c->turn_end = mb_tokenizer_token_to_id(c->tok, page.text + span.end, n);
    }
done:
    free_page(&page);
    mb_chat_job_close(&job);
    return st;
}

mb_status mb_chat_open(const mb_chat_options *o, mb_chat **out)
{
    mb_chat *c;
    char *text = NULL;
    mb_status st;

    MB_TRY(MB_NEW(&c));
    c->tok = o->tokenizer;
    c->turn_end = -1;
    c->now = (time_t)(o->now != 0 ? o->now : mb_chat_today());
    MB_TRY_GOTO(choose(o->choice, o->tokenizer, &text, &c->name), st, fail);
    MB_TRY_GOTO(mb_jinja_parse(text, strlen(text), "chat_template", &c->jinja), st, fail);
    if (o->system != NULL)
        MB_TRY_GOTO(mb_strdup(o->system, &c->system), st, fail);
    MB_TRY_GOTO(mb_json_doc_new("chat_template_kwargs", &c->values), st, fail);
    for (int64_t i = 0; i < o->n_values; i++)
        MB_TRY_GOTO(add_value(c, o->value_name[i], o->value[i]), st, fail);
    MB_TRY_GOTO(find_tokens(c), st, fail);
    MB_TRY_GOTO(make_identity(c, text), st, fail);
    st = probe(c);
    if (st == MB_EDATA && find_named(o->choice != NULL ? o->choice : "") != NULL) {
        mb_status_prefix(MB_EMODEL,
                         "with this tokenizer the chat_template %s cannot write an "
                         "answer: ",
                         c->name);
        st = MB_EMODEL;
        goto fail;
    }
    if (st == MB_EDATA) {
        mb_status_clear();
        st = MB_OK;
    }
    if (st != MB_OK)
        goto fail;
    c->source = text;
    *out = c;
    return MB_OK;
fail:
    mb_free(text);
    mb_chat_free(c);
    return st;
}

void mb_chat_free(mb_chat *c)
{
    if (c == NULL)
        return;
    mb_jinja_free(c->jinja);
    mb_json_free(c->values);
    mb_free(c->token);
    mb_free(c->system);
    mb_free(c->identity);
    mb_free(c->source);
    mb_free(c->name);
    mb_free(c);
}

const char *mb_chat_name(const mb_chat *c)
{
    return c->name;
}

const char *mb_chat_source(const mb_chat *c)
{
    return c->source;
}

const char *mb_chat_identity(const mb_chat *c)
{
    return c->identity;
}

int mb_chat_stops(const mb_chat *c, int32_t id[2])
{
    const int32_t eos = mb_tokenizer_role(c->tok, MB_TOKEN_EOS);
    int n = 0;

    if (c->turn_end >= 0)
        id[n++] = c->turn_end;
    if (eos >= 0 && (n == 0 || id[0] != eos))
        id[n++] = eos;
    return n;
}

/* ---- tokens --------------------------------------------------------------------------------- */

void mb_tokens_clear(mb_tokens *t)
{
    mb_ids_clear(&t->ids);
    mb_ids_clear(&t->extra);
    t->split = 0;
}

void mb_tokens_release(mb_tokens *t)
{
    mb_ids_release(&t->ids);
    mb_ids_release(&t->extra);
    mb_free(t->mark);
    *t = (mb_tokens){0};
}

mb_status mb_tokens_mark(mb_tokens *t, const mb_tokenizer *tok, size_t from, uint8_t mark)
{
    if (t->ids.n == from)
        return MB_OK;
    if (t->ids.n > t->mark_capacity)
        MB_TRY(mb_grow((void **)&t->mark, &t->mark_capacity, t->ids.n, 1, "marks of a row"));
    for (size_t i = from; i < t->ids.n; i++) {
        const bool special = mb_tokenizer_is_special(tok, t->ids.id[i]);

        t->mark[i] = (uint8_t)(mark | (special ? MB_MARK_SPECIAL : 0));
    }
    return MB_OK;
}

/* The whole conversation, copied out of the run. */
static mb_status page_of(mb_chat_job *job, bool prompt, mb_chat_page *out)
{
    mb_jinja_text text;

    MB_TRY(mb_chat_job_render(job, (size_t)job->talk->n, prompt, &text));
    MB_TRY(mb_strndup(text.text, text.n, &out->text));
    MB_TRY(
        mb_alloc_array(text.n + 1, sizeof *out->origin, "a conversation", (void **)&out->origin));
    if (text.n > 0)
        memcpy(out->origin, text.origin, text.n * sizeof *out->origin);
    out->n = text.n;
    return MB_OK;
}

static void free_page(mb_chat_page *page)
{
    mb_free(page->text);
    mb_free(page->origin);
    *page = (mb_chat_page){0};
}

/* Which messages are trained. */
struct plan {
    const mb_train_what *train;
    bool only_completion; /* some messages are marked as completion */
    int64_t last_answer, last_trained;
};

static bool is_trained(const struct plan *p, const mb_message *m, int64_t i)
{
    if (p->train == NULL || m[i].role != MB_ROLE_ASSISTANT)
        return false;
    if (p->only_completion && !m[i].completion)
        return false;
    return p->train->on != MB_TRAIN_COMPLETION || p->only_completion || i == p->last_answer;
}

static struct plan make_plan(const mb_conversation *talk, const mb_train_what *train)
{
    struct plan p = {.train = train, .last_answer = -1, .last_trained = -1};

    for (int64_t i = 0; i < talk->n; i++) {
        p.only_completion |= talk->message[i].completion;
        if (talk->message[i].role == MB_ROLE_ASSISTANT)
            p.last_answer = i;
    }
    for (int64_t i = 0; i < talk->n; i++) {
        if (is_trained(&p, talk->message, i))
            p.last_trained = i;
    }
    return p;
}

static bool trains_end(const struct plan *p, bool trained, int64_t i)
{
    if (p->train == NULL || p->train->eos == MB_EOS_NONE)
        return false;
    if (p->train->eos == MB_EOS_ALL)
        return true;
    return trained && (p->train->eos == MB_EOS_TURN || i == p->last_trained);
}

/* The text on its way to being tokens: what is before `at` is written. */
struct writer {
    const mb_chat *c;
    const mb_chat_page *page;
    uint8_t *data; /* (n) is the byte data? */
    size_t at;
    mb_tokens *out;
};

/* Writes up to `to` as a piece of its own. */
static mb_status write_to(struct writer *w, size_t to, bool trained)
{
    const size_t from = w->out->ids.n;

    if (to <= w->at)
        return MB_OK;
    MB_TRY(mb_tokenizer_encode_marked(w->c->tok, w->page->text + w->at, to - w->at, w->data + w->at,
                                      w->at > 0, &w->out->ids));
    w->at = to;
    return mb_tokens_mark(w->out, w->c->tok, from, trained ? MB_MARK_TRAINED : 0);
}

static mb_status write_answers(mb_chat_job *job, struct writer *w, const struct plan *p,
                               size_t *end, size_t *n_ends)
{
    const mb_conversation *talk = job->talk;
    mb_chat_span s;

    for (int64_t i = 0; i < talk->n; i++) {
        if (talk->message[i].role != MB_ROLE_ASSISTANT)
            continue;
        const bool trained = is_trained(p, talk->message, i), ends = trains_end(p, trained, i);

        MB_TRY(mb_chat_find_answer(job, w->page, (size_t)i, &s));
        MB_TRY(write_to(w, s.prompt, false));
        w->out->split = w->out->ids.n;
        MB_TRY(write_to(w, s.begin, false));
        MB_TRY(write_to(w, s.end, trained));
        if (!s.token)
            MB_TRY(write_to(w, s.turn_end, ends));
        else if (ends)
            end[(*n_ends)++] = w->out->ids.n; /* the next piece begins with the token */
    }
    return MB_OK;
}

static mb_status write_all(mb_chat_job *job, struct writer *w, const struct plan *p)
{
    const size_t first = w->out->ids.n;
    size_t *end = NULL, n_ends = 0;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&end, job->talk->n + 1));
    MB_TRY_GOTO(write_answers(job, w, p, end, &n_ends), st, done);
    MB_TRY_GOTO(write_to(w, w->page->n, false), st, done);
    for (size_t i = 0; i < n_ends; i++) {
        if (end[i] < w->out->ids.n)
            w->out->mark[end[i]] |= MB_MARK_TRAINED;
    }
    for (size_t i = first; i < w->out->ids.n && p->train != NULL; i++) {
        if (p->train->on == MB_TRAIN_ALL ||
            (p->train->eos == MB_EOS_ALL && w->out->ids.id[i] == w->c->turn_end))
            w->out->mark[i] |= MB_MARK_TRAINED;
    }
done:
    mb_free(end);
    return st;
}

static mb_status check_talk(const mb_conversation *talk, bool prompt)
{
    MB_REQUIRE(talk->n > 0, MB_EDATA, "the conversation has no messages");
    MB_REQUIRE(!prompt || talk->message[talk->n - 1].role != MB_ROLE_ASSISTANT, MB_EDATA,
               "the last message is the assistant's; there is nothing to answer");
    return MB_OK;
}

mb_status mb_chat_render(const mb_chat *c, const mb_conversation *talk, const mb_train_what *train,
                         bool prompt, mb_tokens *out)
{
    const struct plan plan = make_plan(talk, train);
    struct writer w = {.c = c, .out = out};
    mb_chat_page page = {0};
    mb_chat_job job;
    mb_status st;

    MB_TRY(check_talk(talk, prompt));
    MB_TRY(mb_chat_job_open(c, talk, &job));
    MB_TRY_GOTO(page_of(&job, prompt, &page), st, done);
    MB_TRY_GOTO(mb_alloc(page.n + 1, "a conversation", (void **)&w.data), st, done);
    for (size_t i = 0; i < page.n; i++)
        w.data[i] = (page.origin[i] & MB_JINJA_MOST_ORIGINS) != MB_JINJA_TEMPLATE;
    w.page = &page;
    MB_TRY_GOTO(write_all(&job, &w, &plan), st, done);
    if (prompt)
        out->split = out->ids.n;
done:
    mb_free(w.data);
    free_page(&page);
    mb_chat_job_close(&job);
    return st;
}

mb_status mb_chat_text(const mb_chat *c, const mb_conversation *talk, bool prompt, char **out)
{
    mb_jinja_text text;
    mb_chat_job job;
    mb_status st;

    MB_TRY(check_talk(talk, prompt));
    MB_TRY(mb_chat_job_open(c, talk, &job));
    st = mb_chat_job_render(&job, (size_t)talk->n, prompt, &text);
    if (st == MB_OK)
        st = mb_strndup(text.text, text.n, out);
    mb_chat_job_close(&job);
    return st;
}
