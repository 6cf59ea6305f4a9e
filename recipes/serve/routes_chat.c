/* recipes/serve/routes_chat.c - POST /v1/chat/completions. */
#include "recipes/serve/answering.h"

/* The conversation, through the model's template; tools and chat_template_kwargs are its to show. */
static mb_status read_messages(const mb_offer *o, mb_http_request *q, mb_json root, mb_tokens *out,
                               mb_fault *f)
{
    size_t n;
    const char *body = mb_http_whole(q, &n);
    mb_record rec;
    mb_status st;

    mb_fault_set(f, 400, NULL, "messages");
    MB_REQUIRE(mb_json_is(mb_json_get(root, "messages"), MB_JSON_ARRAY), MB_EARG,
               "messages must be a list of messages");
    MB_REQUIRE(mb_json_count(mb_json_get(root, "messages")) > 0, MB_EARG,
               "messages is empty; a message is expected");
    MB_TRY(mb_messages_parse(body, n, "the request", &rec));
    st = mb_writer_encode(&o->writer, &rec, out);
    mb_record_release(&rec);
    if (st != MB_OK) {
        mb_fault_set(f, 400, st == MB_EDATA ? NULL : "no_chat_template", "messages");
        return st;
    }
    mb_fault_set(f, 0, NULL, NULL);
    return MB_OK;
}

static mb_status ask(mb_api *a, mb_http_request *q, mb_json root, mb_fault *f)
{
    mb_answering *g = NULL;
    mb_tokens tokens = {0};
    mb_params p;
    mb_offer *o;
    mb_status st;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_TEXT, &o, f));
    MB_TRY(mb_params_read(root, MB_PARAM_CHAT, &p, f));
    if (p.max_completion_tokens >= 0)
        p.max_tokens = p.max_completion_tokens;
    MB_TRY(mb_answering_new(a, o, true, &p, &g));
    MB_TRY_GOTO(mb_answering_read(g, root, f), st, fail);
    MB_TRY_GOTO(read_messages(o, q, root, &tokens, f), st, fail);
    MB_TRY_GOTO(mb_answering_prompt(g, &tokens.ids, NULL, f), st, fail);
    mb_tokens_release(&tokens);
    return mb_answering_go(g, q);
fail:
    mb_tokens_release(&tokens);
    mb_answering_free(g);
    return st;
}

static mb_status chat(void *arg, mb_http_request *q)
{
    return mb_api_ask(arg, q, ask);
}

const mb_http_route mb_routes_chat[] = {
    {"POST", "/v1/chat/completions", chat, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
    {"POST", "/chat/completions", chat, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
    {.method = NULL},
};
