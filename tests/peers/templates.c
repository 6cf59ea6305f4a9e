/* tests/peers/templates.c - helper of tests/peers/templates.py: Jinja texts rendered, and
 * conversations made into tokens.
 *
 *     templates [TOKENIZER_FOLDER]
 *
 * Reads lines of JSON and answers each with a line, {"error": sentence} when it fails:
 *
 *     {"template": text, "values": {name: value}}      {"text": ..., "generated": ...}
 *     {"chat": template name, text or "auto", "messages", "tools", "chat_template_kwargs",
 *      "train_on_eos": 0 to 3}                          {"text", "ids", "trained", "split", "prompt"}
 *
 * "generated" is what was written inside {% generation %}; "prompt" are the ids of all messages
 * before the last answer with the generation prompt.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/template.h"
#include "recipes/jinja/jinja.h"

static mb_tokenizer *tokenizer;

static mb_status render(mb_json line, mb_json out)
{
    mb_json values = mb_json_get(line, "values");
    char *generated = NULL, *text = NULL;
    mb_jinja *t = NULL;
    mb_jinja_run *r = NULL;
    mb_jinja_text page;
    const char *source;
    size_t n, at = 0;
    mb_status st;

    MB_TRY(mb_json_string(mb_json_get(line, "template"), &source, &n));
    MB_TRY(mb_jinja_parse(source, n, "template", &t));
    MB_TRY_GOTO(mb_jinja_run_new(t, NULL, &r), st, done);
    for (mb_json_it it = mb_json_first(values); mb_json_more(&it); mb_json_next(&it)) {
        mb_jinja_value v;

        MB_TRY_GOTO(mb_jinja_json(r, it.value, 1, &v), st, done);
        MB_TRY_GOTO(mb_jinja_set(r, it.key, v), st, done);
    }
    MB_TRY_GOTO(mb_jinja_render(r, &page), st, done);
    MB_TRY_GOTO(mb_strndup(page.text, page.n, &text), st, done);
    MB_TRY_GOTO(mb_strndup(page.text, page.n, &generated), st, done);
    for (size_t i = 0; i < page.n; i++) {
        if (page.origin[i] & MB_JINJA_GENERATED)
            generated[at++] = page.text[i];
    }
    generated[at] = '\0';
    MB_TRY_GOTO(mb_json_set_string(out, "text", text), st, done);
    st = mb_json_set_string(out, "generated", generated);
done:
    mb_free(text);
    mb_free(generated);
    mb_jinja_run_free(r);
    mb_jinja_free(t);
    return st;
}

static mb_status put_ids(mb_json out, const char *name, const mb_tokens *t, const char *marks)
{
    mb_json list;

    MB_TRY(mb_json_set_array(out, name, &list));
    for (size_t i = 0; i < t->ids.n; i++)
        MB_TRY(mb_json_set_int(list, NULL, t->ids.id[i]));
    if (marks == NULL)
        return MB_OK;
    MB_TRY(mb_json_set_array(out, marks, &list));
    for (size_t i = 0; i < t->ids.n; i++)
        MB_TRY(mb_json_set_int(list, NULL, (t->mark[i] & MB_MARK_TRAINED) != 0));
    return MB_OK;
}

static mb_status encode(mb_json line, const char *json, size_t n, mb_json out)
{
    mb_tokens row = {0}, prompt = {0};
    mb_record rec = {0};
    mb_chat *chat = NULL;
    char *text = NULL;
    const char *choice;
    int64_t eos;
    mb_status st;

    MB_TRY(mb_json_get_string(line, "chat", NULL, &choice));
    MB_TRY(mb_json_get_int(line, "train_on_eos", MB_EOS_TURN, &eos));
    const mb_train_what train = {.on = MB_TRAIN_ASSISTANT, .eos = (mb_train_eos)eos};
    MB_TRY(mb_chat_open(&(mb_chat_options){.tokenizer = tokenizer, .choice = choice}, &chat));
    MB_TRY_GOTO(mb_messages_parse(json, n, "messages", &rec), st, done);
    mb_conversation talk = mb_record_talk(&rec);
    MB_TRY_GOTO(mb_chat_text(chat, &talk, false, &text), st, done);
    MB_TRY_GOTO(mb_json_set_string(out, "text", text), st, done);
    MB_TRY_GOTO(mb_chat_render(chat, &talk, &train, false, &row), st, done);
    MB_TRY_GOTO(put_ids(out, "ids", &row, "trained"), st, done);
    MB_TRY_GOTO(mb_json_set_int(out, "split", (int64_t)row.split), st, done);
    do
        talk.n--;
    while (talk.n > 1 && talk.message[talk.n].role != MB_ROLE_ASSISTANT);
    MB_TRY_GOTO(mb_chat_render(chat, &talk, NULL, true, &prompt), st, done);
    st = put_ids(out, "prompt", &prompt, NULL);
done:
    mb_free(text);
    mb_tokens_release(&row);
    mb_tokens_release(&prompt);
    mb_record_release(&rec);
    mb_chat_free(chat);
    return st;
}

/* The answer to a line, printed. */
static mb_status answer(const char *line, size_t n)
{
    mb_json_doc *in = NULL, *out = NULL;
    char *json = NULL;
    mb_status st;

    MB_TRY(mb_json_parse(line, n, "stdin", 0, MB_EDATA, &in));
    MB_TRY_GOTO(mb_json_doc_new("answer", &out), st, done);
    const mb_json root = mb_json_root(in);
    st = mb_json_is_set(mb_json_get(root, "chat")) ? encode(root, line, n, mb_json_root(out))
                                                   : render(root, mb_json_root(out));
    if (st != MB_OK) {
        char sentence[1000];

        snprintf(sentence, sizeof sentence, "%s", mb_status_sentence());
        mb_status_clear();
        MB_TRY_GOTO(mb_json_set_string(mb_json_root(out), "error", sentence), st, done);
    }
    MB_TRY_GOTO(mb_json_text(mb_json_root(out), 0, &json, NULL), st, done);
    puts(json);
done:
    mb_free(json);
    mb_json_free(in);
    mb_json_free(out);
    return st;
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    int code = 0;

    if (argc > 1 && mb_tokenizer_load(argv[1], &tokenizer) != MB_OK)
        code = 1;
    while (code == 0 && (n = getline(&line, &capacity, stdin)) > 0)
        code = answer(line, (size_t)n) != MB_OK;
    if (code != 0)
        fprintf(stderr, "%s\n", mb_status_sentence());
    free(line);
    mb_tokenizer_free(tokenizer);
    return code;
}
