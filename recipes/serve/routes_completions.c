/* recipes/serve/routes_completions.c - POST /v1/completions: texts or token ids, one or several. */
#include "recipes/serve/answering.h"

enum { MOST_IDS = 1 << 20 };

static mb_status add_text(mb_answering *g, const mb_offer *o, mb_json v, mb_fault *f)
{
    const mb_record rec = {.kind = MB_RECORD_TEXT};
    mb_record text = rec;
    mb_tokens tokens = {0};
    const char *p;
    mb_status st;

    MB_TRY(mb_json_string(v, &p, NULL));
    text.text = p;
    st = mb_writer_encode(&o->writer, &text, &tokens);
    if (st == MB_OK)
        st = mb_answering_prompt(g, &tokens.ids, p, f);
    mb_tokens_release(&tokens);
    return st;
}

static mb_status add_ids(mb_answering *g, mb_json list, mb_fault *f)
{
    mb_ids ids = {0};
    mb_status st = MB_OK;

    MB_REQUIRE(mb_json_count(list) <= MOST_IDS, MB_EARG, "a prompt of more than %d tokens",
               MOST_IDS);
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it) && st == MB_OK; mb_json_next(&it)) {
        int64_t id = -1;

        st = mb_json_int(it.value, &id);
        if (st == MB_OK && (id < 0 || id > INT32_MAX))
            st = MB_RAISE(MB_EARG, "%lld is no token id", (long long)id);
        if (st == MB_OK)
            st = mb_ids_push(&ids, (int32_t)id);
    }
    if (st == MB_OK)
        st = mb_answering_prompt(g, &ids, NULL, f);
    mb_ids_release(&ids);
    return st;
}

/* A text, a list of texts, a list of ids, or a list of lists of ids. */
static mb_status add_prompts(mb_answering *g, const mb_offer *o, mb_json v, mb_fault *f)
{
    mb_fault_set(f, 400, NULL, "prompt");
    MB_REQUIRE(mb_json_is_set(v), MB_EARG,
               "prompt is missing: a text, token ids, or a list of them");
    if (!mb_json_is(v, MB_JSON_ARRAY))
        return add_text(g, o, v, f);
    MB_REQUIRE(mb_json_count(v) > 0, MB_EARG, "prompt is an empty list");
    if (mb_json_is_number(mb_json_at(v, 0)))
        return add_ids(g, v, f);
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        mb_fault_set(f, 400, NULL, "prompt");
        if (mb_json_is(it.value, MB_JSON_ARRAY))
            MB_TRY(add_ids(g, it.value, f));
        else
            MB_TRY(add_text(g, o, it.value, f));
    }
    return MB_OK;
}

static mb_status ask(mb_api *a, mb_http_request *q, mb_json root, mb_fault *f)
{
    mb_answering *g = NULL;
    mb_params p;
    mb_offer *o;
    mb_status st;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_TEXT, &o, f));
    MB_TRY(mb_params_read(root, MB_PARAM_TEXT, &p, f));
    MB_TRY(mb_answering_new(a, o, false, &p, &g));
    MB_TRY_GOTO(mb_answering_read(g, root, f), st, fail);
    MB_TRY_GOTO(add_prompts(g, o, mb_json_get(root, "prompt"), f), st, fail);
    return mb_answering_go(g, q);
fail:
    mb_answering_free(g);
    return st;
}

static mb_status complete(void *arg, mb_http_request *q)
{
    return mb_api_ask(arg, q, ask);
}

const mb_http_route mb_routes_completions[] = {
    {"POST", "/v1/completions", complete, .body = MB_HTTP_WHOLE, .body_max = 16 << 20},
    {.method = NULL},
};
