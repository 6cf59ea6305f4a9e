/* recipes/data/template_values.c - a conversation as the values a chat template is given.
 *
 * Roles are words of ours and may become part of a special token's text; all else that comes from
 * a row is data, numbered by its message.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/template_inside.h"

static uint16_t origin_of(size_t k)
{
    return (uint16_t)(k + 1 < MB_CHAT_DATA ? k + 1 : MB_CHAT_DATA);
}

/* Arguments of a call: a text that holds a JSON object (OpenAI's way) becomes the object, which is
 * what templates expect. */
static mb_status arguments_of(mb_jinja_run *r, mb_json v, uint16_t origin, mb_jinja_value *out)
{
    mb_json_doc *doc;
    const char *text;
    size_t n;
    mb_status st;

    if (!mb_json_is(v, MB_JSON_STRING))
        return mb_jinja_json(r, v, origin, out);
    MB_TRY(mb_json_string(v, &text, &n));
    if (mb_json_parse(text, n, "arguments", 0, MB_EDATA, &doc) != MB_OK) {
        mb_status_clear();
        return mb_jinja_json(r, v, origin, out);
    }
    st = mb_jinja_json(r, mb_json_is(mb_json_root(doc), MB_JSON_OBJECT) ? mb_json_root(doc) : v,
                       origin, out);
    mb_json_free(doc);
    return st;
}

/* A call, or its function. */
static mb_status call_of(mb_jinja_run *r, mb_json v, uint16_t origin, mb_jinja_value *out)
{
    if (!mb_json_is(v, MB_JSON_OBJECT))
        return mb_jinja_json(r, v, origin, out);
    MB_TRY(mb_jinja_dict(r, out));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        mb_jinja_value member;

        if (strcmp(it.key, "arguments") == 0)
            MB_TRY(arguments_of(r, it.value, origin, &member));
        else if (strcmp(it.key, "function") == 0)
            MB_TRY(call_of(r, it.value, origin, &member));
        else
            MB_TRY(mb_jinja_json(r, it.value, origin, &member));
        MB_TRY(mb_jinja_put(r, *out, it.key, origin, member));
    }
    return MB_OK;
}

static mb_status calls_of(mb_jinja_run *r, mb_json list, uint16_t origin, mb_jinja_value *out)
{
    if (!mb_json_is(list, MB_JSON_ARRAY))
        return call_of(r, list, origin, out);
    MB_TRY(mb_jinja_list(r, out));
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        mb_jinja_value call;

        MB_TRY(call_of(r, it.value, origin, &call));
        MB_TRY(mb_jinja_append(r, *out, call));
    }
    return MB_OK;
}

static mb_status put_text(mb_jinja_run *r, mb_jinja_value dict, const char *key, const char *text,
                          uint16_t origin)
{
    mb_jinja_value v;

    MB_TRY(mb_jinja_string(r, text, strlen(text), origin, &v));
    return mb_jinja_put(r, dict, key, MB_CHAT_DATA, v);
}

/* What a model thought goes by three names; templates read the last. */
static mb_status put_thoughts(mb_jinja_run *r, mb_jinja_value dict, mb_json given, uint16_t origin,
                              bool before)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    mb_json thoughts = {0};
    mb_jinja_value v;

    for (int i = 0; i < 3 && !mb_json_is_set(thoughts); i++)
        thoughts = mb_json_get(given, names[i]);
    if (!mb_json_is_set(thoughts))
        return MB_OK;
    MB_TRY(mb_jinja_json(r, thoughts, origin, &v));
    return mb_jinja_put(r, dict, before ? "thinking" : "reasoning_content", MB_CHAT_DATA, v);
}

static mb_status put_member(mb_jinja_run *r, mb_jinja_value dict, const mb_message *m,
                            const mb_json_it *it, uint16_t origin)
{
    mb_jinja_value v;

    if (strcmp(it->key, "role") == 0)
        return put_text(r, dict, "role", mb_role_name(m->role), MB_JINJA_TEMPLATE);
    if (strcmp(it->key, "content") == 0)
        return m->no_content ? MB_OK : put_text(r, dict, "content", m->content, origin);
    if (!mb_json_is_set(it->value)) /* as transformers leaves them out */
        return MB_OK;
    if (strcmp(it->key, "tool_calls") == 0)
        MB_TRY(calls_of(r, it->value, origin, &v));
    else
        MB_TRY(mb_jinja_json(r, it->value, origin, &v));
    return mb_jinja_put(r, dict, it->key, MB_CHAT_DATA, v);
}

static mb_status message_of(mb_jinja_run *r, const mb_message *m, uint16_t origin,
                            mb_jinja_value *out)
{
    mb_jinja_value calls;

    MB_TRY(mb_jinja_dict(r, out));
    MB_TRY(put_thoughts(r, *out, m->given, origin, true));
    for (mb_json_it it = mb_json_first(m->given); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(put_member(r, *out, m, &it, origin));
    if (!mb_json_is_set(mb_json_get(m->given, "role")))
        MB_TRY(put_text(r, *out, "role", mb_role_name(m->role), MB_JINJA_TEMPLATE));
    if (!m->no_content && mb_json_kind(mb_json_get(m->given, "content")) == MB_JSON_ABSENT)
        MB_TRY(put_text(r, *out, "content", m->content, origin));
    if (mb_json_is_set(m->calls)) {
        MB_TRY(calls_of(r, m->calls, origin, &calls));
        MB_TRY(mb_jinja_put(r, *out, "tool_calls", MB_CHAT_DATA, calls));
    }
    return put_thoughts(r, *out, m->given, origin, false);
}

static mb_status set_members(mb_jinja_run *r, mb_json object, uint16_t origin)
{
    for (mb_json_it it = mb_json_first(object); mb_json_more(&it); mb_json_next(&it)) {
        mb_jinja_value v;

        MB_TRY(mb_jinja_json(r, it.value, origin, &v));
        MB_TRY(mb_jinja_set(r, it.key, v));
    }
    return MB_OK;
}

static mb_status set_list(mb_jinja_run *r, const char *name, mb_json list)
{
    mb_jinja_value v = mb_jinja_none();

    if (mb_json_is_set(list) && mb_json_count(list) > 0)
        MB_TRY(mb_jinja_json(r, list, MB_CHAT_DATA, &v));
    return mb_jinja_set(r, name, v);
}

static mb_status set_tokens(mb_jinja_run *r, const mb_tokenizer *tok)
{
    static const char *const names[MB_TOKEN_ROLES] = {
        [MB_TOKEN_BOS] = "bos_token",   [MB_TOKEN_EOS] = "eos_token", [MB_TOKEN_PAD] = "pad_token",
        [MB_TOKEN_UNK] = "unk_token",   [MB_TOKEN_SEP] = "sep_token", [MB_TOKEN_CLS] = "cls_token",
        [MB_TOKEN_MASK] = "mask_token",
    };

    for (int i = 0; i < MB_TOKEN_ROLES; i++) {
        const int32_t id = mb_tokenizer_role(tok, (mb_token_role)i);
        const char *text = id >= 0 ? mb_tokenizer_id_to_token(tok, id) : NULL;
        mb_jinja_value v;

        if (text == NULL)
            continue;
        MB_TRY(mb_jinja_string(r, text, strlen(text), MB_JINJA_TEMPLATE, &v));
        MB_TRY(mb_jinja_set(r, names[i], v));
    }
    return MB_OK;
}

static mb_status set_all(mb_chat_job *job)
{
    const mb_conversation *talk = job->talk;
    const mb_chat *c = job->chat;
    mb_jinja_run *r = job->run;
    mb_jinja_value v;

    mb_jinja_set_now(r, c->now);
    MB_TRY(set_tokens(r, c->tok));
    MB_TRY(set_list(r, "tools", talk->tools));
    MB_TRY(set_list(r, "documents", talk->documents));
    MB_TRY(mb_jinja_list(r, &job->messages));
    if (c->system != NULL && talk->message[0].role != MB_ROLE_SYSTEM) {
        const mb_message system = {.role = MB_ROLE_SYSTEM, .content = c->system};

        MB_TRY(message_of(r, &system, origin_of(0), &v));
        MB_TRY(mb_jinja_append(r, job->messages, v));
        job->shift = 1;
    }
    for (int64_t i = 0; i < talk->n; i++) {
        MB_TRY(message_of(r, &talk->message[i], origin_of((size_t)i + job->shift), &v));
        MB_TRY(mb_jinja_append(r, job->messages, v));
    }
    MB_TRY(set_members(r, mb_json_root(c->values), MB_CHAT_DATA));
    return set_members(r, talk->values, MB_CHAT_DATA);
}

mb_status mb_chat_job_open(const mb_chat *c, const mb_conversation *talk, mb_chat_job *job)
{
    mb_status st;

    *job = (mb_chat_job){.chat = c, .talk = talk};
    MB_TRY(mb_jinja_run_new(c->jinja, NULL, &job->run));
    st = set_all(job);
    if (st != MB_OK)
        mb_chat_job_close(job);
    return st;
}

void mb_chat_job_close(mb_chat_job *job)
{
    mb_jinja_run_free(job->run);
    job->run = NULL;
}

mb_status mb_chat_job_render(mb_chat_job *job, size_t n, bool prompt, mb_jinja_text *out)
{
    mb_jinja_value head;

    MB_TRY(mb_jinja_head(job->run, job->messages, n + job->shift, &head));
    MB_TRY(mb_jinja_set(job->run, "messages", head));
    MB_TRY(mb_jinja_set(job->run, "add_generation_prompt", mb_jinja_bool(prompt)));
    return mb_jinja_render(job->run, out);
}
