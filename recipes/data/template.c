/* recipes/data/template.c - see recipes/data/template.h.
 *
 * A format is a row of literals. In them {role} is the message's role, {bos} and {eos} the
 * tokenizer's tokens. Strings listed as markers are special tokens where the tokenizer has them as
 * such, and plain text where it has not.
 */
#include "recipes/data/template.h"

#include <string.h>

#include "core/alloc.h"

enum { MAX_MARKERS = 8 };

struct format {
    const char *name;
    const char *bos;                      /* at the start of the conversation */
    const char *system_pre, *system_post; /* NULL: the system text goes into the first user turn, */
    const char *fold_pre, *fold_post;     /* between these */
    const char *user_pre, *user_end, *user_post;
    const char *other_pre;                /* tool and developer turns; NULL: refused */
    const char *answer_pre;               /* what generation is given */
    const char *lead, *tail;              /* text around an answer, trained with it */
    const char *answer_end, *answer_post; /* end of turn; what follows it, never trained */
    const char *system;                   /* default system message */
    bool trim;                            /* white space around contents is cut off */
    bool alternate;                       /* user and assistant turns must alternate */
    const char *marker[MAX_MARKERS];
    const char *tell[4]; /* what a Jinja template of this format contains, */
    const char *veto[8]; /* and what it does not */
};

static const struct format formats[] = {
    {
        .name = "smollm2",
        .system_pre = "<|im_start|>system\n",
        .system_post = "<|im_end|>\n",
        .user_pre = "<|im_start|>user\n",
        .user_end = "<|im_end|>",
        .user_post = "\n",
        .other_pre = "<|im_start|>{role}\n",
        .answer_pre = "<|im_start|>assistant\n",
        .answer_end = "<|im_end|>",
        .answer_post = "\n",
        .system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        .marker = {"<|im_start|>", "<|im_end|>"},
        .tell = {"<|im_start|>", "You are a helpful AI assistant named SmolLM"},
        .veto = {"think", "trim", "strip", "custom_instructions"},
    },
    {
        .name = "chatml",
        .system_pre = "<|im_start|>system\n",
        .system_post = "<|im_end|>\n",
        .user_pre = "<|im_start|>user\n",
        .user_end = "<|im_end|>",
        .user_post = "\n",
        .other_pre = "<|im_start|>{role}\n",
        .answer_pre = "<|im_start|>assistant\n",
        .answer_end = "<|im_end|>",
        .answer_post = "\n",
        .marker = {"<|im_start|>", "<|im_end|>"},
        .tell = {"<|im_start|>", "<|im_end|>"},
        .veto = {"think", "trim", "strip", "<|im_sep|>", "bos_token", "eos_token"},
    },
    {
        .name = "llama3",
        .bos = "{bos}",
        .system_pre = "<|start_header_id|>system<|end_header_id|>\n\n",
        .system_post = "<|eot_id|>",
        .user_pre = "<|start_header_id|>user<|end_header_id|>\n\n",
        .user_end = "<|eot_id|>",
        .other_pre = "<|start_header_id|>{role}<|end_header_id|>\n\n",
        .answer_pre = "<|start_header_id|>assistant<|end_header_id|>\n\n",
        .answer_end = "<|eot_id|>",
        .trim = true,
        .marker = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
        .tell = {"<|start_header_id|>", "<|eot_id|>", "trim"},
        .veto = {"Cutting Knowledge", "date_string", "<|python_tag|>"},
    },
    {
        .name = "zephyr",
        .system_pre = "<|system|>\n",
        .system_post = "{eos}\n",
        .user_pre = "<|user|>\n",
        .user_end = "{eos}",
        .user_post = "\n",
        .answer_pre = "<|assistant|>\n",
        .answer_end = "{eos}",
        .answer_post = "\n",
        .marker = {"<|system|>", "<|user|>", "<|assistant|>"},
        .tell = {"<|user|>", "<|assistant|>", "eos_token"},
        .veto = {"<|end|>", "trim", "strip", "bos_token", "<|observation|>"},
    },
    {
        .name = "llama2",
        .fold_pre = "<<SYS>>\n",
        .fold_post = "\n<</SYS>>\n\n",
        .user_pre = "{bos}[INST] ",
        .user_post = " [/INST]",
        .lead = " ",
        .tail = " ",
        .answer_end = "{eos}",
        .trim = true,
        .alternate = true,
        .marker = {"[INST]", "[/INST]"},
        .tell = {"<<SYS>>", "[INST]", "bos_token"},
    },
    {
        .name = "mistral",
        .bos = "{bos}",
        .fold_pre = "",
        .fold_post = "\n\n",
        .user_pre = " [INST] ",
        .user_post = " [/INST]",
        .lead = " ",
        .answer_end = "{eos}",
        .alternate = true,
        .marker = {"[INST]", "[/INST]"},
        .tell = {" [INST] ", "[/INST]", "system_message + \"\\n\\n\""},
        .veto = {"<<SYS>>", "[AVAILABLE_TOOLS]", "[SYSTEM_PROMPT]", "|trim", "| trim", "strip"},
    },
    {
        .name = "mistral-v1",
        .bos = "{bos}",
        .fold_pre = "",
        .fold_post = "\n\n",
        .user_pre = "[INST] ",
        .user_post = " [/INST]",
        .answer_end = "{eos}",
        .alternate = true,
        .marker = {"[INST]", "[/INST]"},
        .tell = {"'[INST] '", "' [/INST]'", "message['content'] + eos_token}}"},
        .veto = {"<<SYS>>", "[AVAILABLE_TOOLS]", "[SYSTEM_PROMPT]", "trim", "strip"},
    },
};

enum { N_FORMATS = sizeof formats / sizeof formats[0] };

struct marker {
    char *text; /* owned */
    size_t n;
    int32_t id;
};

struct mb_chat {
    const struct format *format;
    const mb_tokenizer *tok;
    char *system; /* for conversations without one; NULL: none */
    char *identity;
    bool tools; /* tool turns can be written */
    struct marker marker[MAX_MARKERS + 2];
    int n_markers;
    const char *bos, *eos; /* text of the tokens; borrowed, NULL when there is none */
};

const char *mb_chat_names(void)
{
    return "chatml, smollm2, llama2, llama3, mistral, mistral-v1, zephyr";
}

/* Does the Jinja text contain every tell and no veto? */
static bool recognised(const struct format *f, const char *jinja)
{
    const int tells = (int)(sizeof f->tell / sizeof f->tell[0]);
    const int vetos = (int)(sizeof f->veto / sizeof f->veto[0]);

    for (int i = 0; i < tells && f->tell[i] != NULL; i++) {
        if (strstr(jinja, f->tell[i]) == NULL)
            return false;
    }
    for (int i = 0; i < vetos && f->veto[i] != NULL; i++) {
        if (strstr(jinja, f->veto[i]) != NULL)
            return false;
    }
    return true;
}

static mb_status choose(const char *choice, const mb_tokenizer *tok, const struct format **out)
{
    const bool automatic = choice == NULL || choice[0] == '\0' || strcmp(choice, "auto") == 0;
    const char *jinja = mb_tokenizer_chat_template(tok);

    for (int i = 0; i < N_FORMATS; i++) {
        if (automatic ? jinja != NULL && recognised(&formats[i], jinja)
                      : strcmp(formats[i].name, choice) == 0) {
            *out = &formats[i];
            return MB_OK;
        }
    }
    MB_REQUIRE(automatic, MB_EARG, "chat_template: \"%s\" is not known; known are auto, none, %s",
               choice, mb_chat_names());
    MB_REQUIRE(jinja != NULL, MB_EMODEL,
               "the rows are conversations and the tokenizer has no chat template; set "
               "chat_template to one of %s",
               mb_chat_names());
    return MB_RAISE(
        MB_EMODEL,
        "the tokenizer's chat template is not one that is recognised; set chat_template "
        "to one of %s",
        mb_chat_names());
}

/* A ChatML template may write a system message of its own: '<|im_start|>system\nText<|im_end|>'. */
static mb_status own_system(const char *jinja, char **out)
{
    static const char *const opens[] = {"<|im_start|>system\\n", "<|im_start|>system\n"};
    char *p;
    size_t at = 0;

    for (size_t i = 0; i < sizeof opens / sizeof opens[0]; i++) {
        for (const char *s = strstr(jinja, opens[i]); s != NULL; s = strstr(s + 1, opens[i])) {
            const char *text = s + strlen(opens[i]), *end = strstr(text, "<|im_end|>");

            if (end == NULL || end == text || memchr(text, '\'', (size_t)(end - text)) != NULL ||
                memchr(text, '{', (size_t)(end - text)) != NULL ||
                memchr(text, '"', (size_t)(end - text)) != NULL)
                continue;
            MB_TRY(mb_strndup(text, (size_t)(end - text), &p));
            for (const char *c = p; *c != '\0'; c++) { /* \n of a Jinja string */
                if (c[0] == '\\' && c[1] == 'n')
                    p[at++] = '\n', c++;
                else
                    p[at++] = *c;
            }
            p[at] = '\0';
            *out = p;
            return MB_OK;
        }
    }
    return MB_OK;
}

static mb_status add_marker(mb_chat *c, const char *text)
{
    struct marker *m = &c->marker[c->n_markers];

    if (text == NULL)
        return MB_OK;
    for (int i = 0; i < c->n_markers; i++) {
        if (strcmp(c->marker[i].text, text) == 0)
            return MB_OK;
    }
    m->id = mb_tokenizer_token_to_id(c->tok, text, strlen(text));
    if (m->id < 0 || !mb_tokenizer_is_special(c->tok, m->id))
        return MB_OK;
    MB_TRY(mb_strdup(text, &m->text));
    m->n = strlen(text);
    c->n_markers++;
    return MB_OK;
}

static const char *role_text(const mb_tokenizer *tok, mb_token_role role)
{
    const int32_t id = mb_tokenizer_role(tok, role);

    return id >= 0 ? mb_tokenizer_id_to_token(tok, id) : NULL;
}

static bool uses(const struct format *f, const char *what)
{
    const char *all[] = {f->bos, f->system_post, f->user_pre, f->user_end, f->answer_end};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i] != NULL && strstr(all[i], what) != NULL)
            return true;
    }
    return false;
}

mb_status mb_chat_open(const char *choice, const char *system, const mb_tokenizer *tok,
                       mb_chat **out)
{
    const char *jinja = mb_tokenizer_chat_template(tok);
    mb_chat *c;
    mb_status st;

    MB_TRY(MB_NEW(&c));
    c->tok = tok;
    c->tools = true;
    MB_TRY_GOTO(choose(choice, tok, &c->format), st, fail);
    if (jinja != NULL && recognised(c->format, jinja)) {
        c->tools = strstr(jinja, "tool_response") == NULL;
        if (system == NULL && strcmp(c->format->name, "chatml") == 0)
            MB_TRY_GOTO(own_system(jinja, &c->system), st, fail);
    }
    if (c->system == NULL && (system != NULL || c->format->system != NULL))
        MB_TRY_GOTO(mb_strdup(system != NULL ? system : c->format->system, &c->system), st, fail);
    if (c->system != NULL && c->system[0] == '\0') {
        mb_free(c->system);
        c->system = NULL;
    }
    c->bos = role_text(tok, MB_TOKEN_BOS);
    c->eos = role_text(tok, MB_TOKEN_EOS);
    if (c->eos == NULL && uses(c->format, "{eos}")) {
        st = MB_RAISE(MB_EMODEL,
                      "chat_template %s ends turns with the EOS token, and the tokenizer "
                      "has none",
                      c->format->name);
        goto fail;
    }
    for (int i = 0; i < MAX_MARKERS && c->format->marker[i] != NULL; i++)
        MB_TRY_GOTO(add_marker(c, c->format->marker[i]), st, fail);
    MB_TRY_GOTO(add_marker(c, c->bos), st, fail);
    MB_TRY_GOTO(add_marker(c, c->eos), st, fail);
    MB_TRY_GOTO(mb_asprintf(&c->identity, "%s/2|%d|%s|%s|%s", c->format->name, c->tools,
                            c->bos != NULL ? c->bos : "", c->eos != NULL ? c->eos : "",
                            c->system != NULL ? c->system : ""),
                st, fail);
    *out = c;
    return MB_OK;
fail:
    mb_chat_free(c);
    return st;
}

void mb_chat_free(mb_chat *c)
{
    if (c == NULL)
        return;
    for (int i = 0; i < c->n_markers; i++)
        mb_free(c->marker[i].text);
    mb_free(c->system);
    mb_free(c->identity);
    mb_free(c);
}

const char *mb_chat_name(const mb_chat *c)
{
    return c->format->name;
}

const char *mb_chat_identity(const mb_chat *c)
{
    return c->identity;
}

void mb_tokens_clear(mb_tokens *t)
{
    mb_ids_clear(&t->ids);
    t->split = 0;
}

void mb_tokens_release(mb_tokens *t)
{
    mb_ids_release(&t->ids);
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

/* A conversation while it is written: text that waits to be encoded, all of one mark. */
struct writer {
    const mb_chat *c;
    mb_tokens *out;
    char *run;
    size_t n, capacity;
    uint8_t mark;
};

static mb_status flush(struct writer *w)
{
    const size_t from = w->out->ids.n;

    if (w->n == 0)
        return MB_OK;
    MB_TRY(mb_tokenizer_encode(w->c->tok, w->run, w->n, 0, &w->out->ids));
    w->n = 0;
    return mb_tokens_mark(w->out, w->c->tok, from, w->mark);
}

/* Plain text joins the run; a change of mark ends it. */
static mb_status put_text(struct writer *w, const char *s, size_t n, uint8_t mark)
{
    if (n == 0)
        return MB_OK;
    if (mark != w->mark)
        MB_TRY(flush(w));
    w->mark = mark;
    if (w->n + n > w->capacity)
        MB_TRY(mb_grow((void **)&w->run, &w->capacity, w->n + n + 256, 1, "a message"));
    memcpy(w->run + w->n, s, n);
    w->n += n;
    return MB_OK;
}

static mb_status put_special(struct writer *w, int32_t id, uint8_t mark)
{
    MB_TRY(flush(w));
    MB_TRY(mb_ids_push(&w->out->ids, id));
    return mb_tokens_mark(w->out, w->c->tok, w->out->ids.n - 1, mark);
}

static mb_status put_token(struct writer *w, const char *token, mb_token_role role, uint8_t mark)
{
    return token != NULL ? put_special(w, mb_tokenizer_role(w->c->tok, role), mark) : MB_OK;
}

/* A literal of the format: its markers are tokens, the rest is text. */
static mb_status put_literal(struct writer *w, const char *s, const char *role, uint8_t mark)
{
    const mb_chat *c = w->c;

    while (s != NULL && *s != '\0') {
        const struct marker *found = NULL;

        if (strncmp(s, "{bos}", 5) == 0) {
            MB_TRY(put_token(w, c->bos, MB_TOKEN_BOS, mark));
            s += 5;
            continue;
        }
        if (strncmp(s, "{eos}", 5) == 0) {
            MB_TRY(put_token(w, c->eos, MB_TOKEN_EOS, mark));
            s += 5;
            continue;
        }
        if (strncmp(s, "{role}", 6) == 0) {
            MB_TRY(put_text(w, role, strlen(role), mark));
            s += 6;
            continue;
        }
        for (int i = 0; i < c->n_markers && found == NULL; i++) {
            if (strncmp(s, c->marker[i].text, c->marker[i].n) == 0)
                found = &c->marker[i];
        }
        if (found != NULL) {
            MB_TRY(put_special(w, found->id, mark));
            s += found->n;
        } else {
            MB_TRY(put_text(w, s++, 1, mark));
        }
    }
    return MB_OK;
}

/* White space as Python's str.strip() sees it, in ASCII. */
static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

static void trimmed(const char **s, size_t *n, bool front)
{
    while (front && *n > 0 && is_space(**s))
        (*s)++, (*n)--;
    while (*n > 0 && is_space((*s)[*n - 1]))
        (*n)--;
}

static mb_status put_content(struct writer *w, const char *s, bool front, uint8_t mark)
{
    size_t n = strlen(s);

    if (w->c->format->trim)
        trimmed(&s, &n, front);
    return put_text(w, s, n, mark);
}

/* Which messages are trained, and their ends. */
struct plan {
    const mb_train_what *train;
    bool only_completion; /* some messages are marked as completion */
    int64_t last;         /* the last trained message, -1 none */
};

static bool is_trained(const struct plan *p, const mb_message *m, int64_t i, int64_t last_answer)
{
    if (p->train == NULL || m[i].role != MB_ROLE_ASSISTANT)
        return false;
    if (p->only_completion && !m[i].completion)
        return false;
    return p->train->on != MB_TRAIN_COMPLETION || p->only_completion || i == last_answer;
}

static uint8_t end_mark(const struct plan *p, bool trained, bool last)
{
    if (p->train == NULL || p->train->eos == MB_EOS_NONE)
        return 0;
    if (p->train->eos == MB_EOS_ALL)
        return MB_MARK_TRAINED;
    return trained && (p->train->eos == MB_EOS_TURN || last) ? MB_MARK_TRAINED : 0;
}

static mb_status put_answer(struct writer *w, const mb_message *m, bool trained, uint8_t end)
{
    const struct format *f = w->c->format;
    const uint8_t mark = trained ? MB_MARK_TRAINED : 0;

    MB_TRY(put_literal(w, f->answer_pre, "assistant", 0));
    MB_TRY(flush(w)); /* generation is given what is before, and writes what follows */
    w->out->split = w->out->ids.n;
    MB_TRY(put_literal(w, f->lead, "", mark));
    MB_TRY(put_content(w, m->content, true, mark));
    MB_TRY(put_literal(w, f->tail, "", mark));
    MB_TRY(put_literal(w, f->answer_end, "", end));
    MB_TRY(flush(w));
    return put_literal(w, f->answer_post, "", 0);
}

static mb_status put_user(struct writer *w, const mb_message *m, const char *folded, uint8_t end)
{
    const struct format *f = w->c->format;

    MB_TRY(put_literal(w, f->user_pre, "user", 0));
    if (folded != NULL) {
        MB_TRY(put_literal(w, f->fold_pre, "", 0));
        MB_TRY(put_text(w, folded, strlen(folded), 0));
        MB_TRY(put_literal(w, f->fold_post, "", 0));
    }
    MB_TRY(put_content(w, m->content, folded == NULL, 0));
    MB_TRY(put_literal(w, f->user_end, "", end));
    return put_literal(w, f->user_post, "", 0);
}

static mb_status put_system(struct writer *w, const char *text)
{
    const struct format *f = w->c->format;

    MB_TRY(put_literal(w, f->system_pre, "system", 0));
    MB_TRY(put_content(w, text, true, 0));
    return put_literal(w, f->system_post, "", 0);
}

/* system (anywhere with a form of its own, else first only), tool and developer turns. */
static mb_status put_other(struct writer *w, const mb_message *m)
{
    const struct format *f = w->c->format;
    const char *name = mb_role_name(m->role);

    if (m->role == MB_ROLE_SYSTEM && f->system_pre != NULL)
        return put_system(w, m->content);
    MB_REQUIRE(f->other_pre != NULL && (w->c->tools || m->role != MB_ROLE_TOOL), MB_EDATA,
               "chat_template %s has no form for a message with role %s%s", f->name, name,
               m->role == MB_ROLE_SYSTEM ? " after the first" : "");
    MB_TRY(put_literal(w, f->other_pre, name, 0));
    MB_TRY(put_content(w, m->content, true, 0));
    MB_TRY(put_literal(w, f->user_end, "", 0));
    return put_literal(w, f->user_post, "", 0);
}

static mb_status check_order(const mb_chat *c, const mb_message *m, int64_t n, bool prompt)
{
    const int64_t first = n > 0 && m[0].role == MB_ROLE_SYSTEM;

    MB_REQUIRE(n > 0, MB_EDATA, "the conversation has no messages");
    MB_REQUIRE(!prompt || m[n - 1].role != MB_ROLE_ASSISTANT, MB_EDATA,
               "the last message is the assistant's; there is nothing to answer");
    if (!c->format->alternate)
        return MB_OK;
    for (int64_t i = first; i < n; i++) {
        const mb_role want = (i - first) % 2 == 0 ? MB_ROLE_USER : MB_ROLE_ASSISTANT;

        MB_REQUIRE(
            m[i].role == want, MB_EDATA,
            "message %lld has the role %s; chat_template %s wants user and assistant in turn",
            (long long)i + 1, mb_role_name(m[i].role), c->format->name);
    }
    return MB_OK;
}

static mb_status write_messages(struct writer *w, const mb_message *m, int64_t n,
                                const struct plan *p, int64_t last_answer)
{
    const struct format *f = w->c->format;
    const char *system = m[0].role == MB_ROLE_SYSTEM ? NULL : w->c->system;
    int64_t i = 0;

    MB_TRY(put_literal(w, f->bos, "", 0));
    if (f->system_pre == NULL && m[0].role == MB_ROLE_SYSTEM) {
        system = m[0].content;
        i = 1;
    }
    if (f->system_pre != NULL && system != NULL) {
        MB_TRY(put_system(w, system));
        system = NULL;
    }
    for (; i < n; i++) {
        const bool trained = is_trained(p, m, i, last_answer);

        if (m[i].role == MB_ROLE_ASSISTANT) {
            MB_TRY(put_answer(w, &m[i], trained, end_mark(p, trained, i == p->last)));
        } else if (m[i].role == MB_ROLE_USER) {
            MB_TRY(put_user(w, &m[i], system, end_mark(p, false, false)));
            system = NULL;
        } else {
            MB_TRY(put_other(w, &m[i]));
        }
    }
    return MB_OK;
}

mb_status mb_chat_render(const mb_chat *c, const mb_message *message, int64_t n,
                         const mb_train_what *train, bool prompt, mb_tokens *out)
{
    struct writer w = {.c = c, .out = out};
    struct plan plan = {.train = train, .last = -1};
    const size_t from = out->ids.n;
    int64_t last_answer = -1;
    mb_status st;

    MB_TRY(check_order(c, message, n, prompt));
    for (int64_t i = 0; i < n; i++) {
        plan.only_completion |= message[i].completion;
        if (message[i].role == MB_ROLE_ASSISTANT)
            last_answer = i;
    }
    for (int64_t i = 0; i < n; i++) {
        if (is_trained(&plan, message, i, last_answer))
            plan.last = i;
    }
    MB_TRY_GOTO(write_messages(&w, message, n, &plan, last_answer), st, done);
    if (prompt) {
        MB_TRY_GOTO(put_literal(&w, c->format->answer_pre, "assistant", 0), st, done);
        MB_TRY_GOTO(flush(&w), st, done);
        out->split = out->ids.n;
    }
    MB_TRY_GOTO(flush(&w), st, done);
    if (train != NULL && train->on == MB_TRAIN_ALL) {
        for (size_t i = from; i < out->ids.n; i++)
            out->mark[i] |= MB_MARK_TRAINED;
    }
done:
    mb_free(w.run);
    return st;
}

int mb_chat_stops(const mb_chat *c, int32_t id[2])
{
    const int32_t eos = mb_tokenizer_role(c->tok, MB_TOKEN_EOS);
    int n = 0;

    for (int i = 0; i < c->n_markers; i++) {
        if (strcmp(c->marker[i].text, c->format->answer_end) == 0)
            id[n++] = c->marker[i].id;
    }
    if (eos >= 0 && (n == 0 || id[0] != eos))
        id[n++] = eos;
    return n;
}
