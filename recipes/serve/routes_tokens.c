/* recipes/serve/routes_tokens.c - POST /tokenize, /detokenize as llama.cpp has them, and what a
 * conversation becomes (/apply-template). */
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/api.h"
#include "recipes/tokenizers/unicode.h"

enum { MOST_IDS = 1 << 20 };

static mb_status write_ids(const mb_tokenizer *t, const mb_ids *ids, bool pieces, mb_bytes *out)
{
    MB_TRY(mb_bytes_puts(out, "{\"tokens\":["));
    for (size_t i = 0; i < ids->n; i++) {
        const char *name = mb_tokenizer_id_to_token(t, ids->id[i]);

        MB_TRY(mb_bytes_printf(out, pieces ? "%s{\"id\":%d,\"piece\":" : "%s%d", i > 0 ? "," : "",
                               (int)ids->id[i]));
        if (pieces) {
            MB_TRY(mb_bytes_json(out, name != NULL ? name : "", name != NULL ? strlen(name) : 0));
            MB_TRY(mb_bytes_puts(out, "}"));
        }
    }
    return mb_bytes_printf(out, "],\"count\":%zu}", ids->n);
}

/* {"content": text, "add_special"?: false, "parse_special"?: true, "with_pieces"?: false} */
static mb_status tokenize_body(mb_api *a, mb_http_request *q, mb_json root, mb_fault *f)
{
    mb_bytes out = {0};
    bool special, parse, pieces;
    const char *text;
    mb_ids ids = {0};
    mb_json v = mb_json_get(root, "content");
    mb_offer *o;
    size_t n;
    mb_status st;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_TEXT, &o, f));
    v = mb_json_is_set(v) ? v : mb_json_get(root, "prompt"); /* vLLM's name */
    mb_fault_set(f, 400, NULL, "content");
    MB_REQUIRE(mb_json_is_set(v), MB_EARG, "content is missing: the text to be cut into tokens");
    MB_TRY(mb_json_string(v, &text, &n));
    MB_TRY(mb_json_get_bool(root, "add_special", false, &special));
    MB_TRY(mb_json_get_bool(root, "parse_special", true, &parse));
    MB_TRY(mb_json_get_bool(root, "with_pieces", false, &pieces));
    st = mb_tokenizer_encode(o->writer.tokenizer, text, n,
                             (special ? MB_TOK_SPECIAL : 0u) | (parse ? MB_TOK_PARSE_SPECIAL : 0u),
                             &ids);
    if (st == MB_OK)
        st = write_ids(o->writer.tokenizer, &ids, pieces, &out);
    mb_ids_release(&ids);
    return mb_api_answer(q, st, &out);
}

static mb_status read_ids(mb_json list, mb_ids *ids)
{
    MB_REQUIRE(mb_json_is(list, MB_JSON_ARRAY) && mb_json_count(list) <= MOST_IDS, MB_EARG,
               "tokens must be a list of at most %d token ids", MOST_IDS);
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        int64_t id;

        MB_TRY(mb_json_int(it.value, &id));
        MB_REQUIRE(id >= 0 && id <= INT32_MAX, MB_EARG, "%lld is no token id", (long long)id);
        MB_TRY(mb_ids_push(ids, (int32_t)id));
    }
    return MB_OK;
}

static mb_status write_text(const char *key, const char *text, size_t n, mb_bytes *out)
{
    MB_TRY(mb_bytes_printf(out, "{\"%s\":", key));
    MB_TRY(mb_bytes_json(out, text, n));
    return mb_bytes_puts(out, "}");
}

static mb_status detokenize_body(mb_api *a, mb_http_request *q, mb_json root, mb_fault *f)
{
    mb_bytes out = {0};
    mb_ids ids = {0};
    char *text = NULL;
    mb_offer *o;
    size_t n;
    mb_status st;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_TEXT, &o, f));
    mb_fault_set(f, 400, NULL, "tokens");
    st = read_ids(mb_json_get(root, "tokens"), &ids);
    if (st == MB_OK)
        st = mb_tokenizer_decode(o->writer.tokenizer, ids.id, ids.n, false, &text, &n);
    if (st == MB_OK)
        st = write_text("content", text, n, &out);
    mb_ids_release(&ids);
    mb_free(text);
    return mb_api_answer(q, st, &out);
}

static mb_status template_body(mb_api *a, mb_http_request *q, mb_json root, mb_fault *f)
{
    mb_bytes out = {0};
    size_t n;
    const char *body = mb_http_whole(q, &n);
    mb_record rec;
    char *text = NULL;
    mb_offer *o;
    mb_status st;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_TEXT, &o, f));
    mb_fault_set(f, 400, NULL, "messages");
    MB_REQUIRE(mb_renderer_chat(o->writer.renderer) != NULL, MB_EARG,
               "the model %s has no chat template", o->id);
    MB_TRY(mb_messages_parse(body, n, "the request", &rec));
    const mb_conversation talk = mb_record_talk(&rec);
    st = mb_chat_text(mb_renderer_chat(o->writer.renderer), &talk, true, &text);
    mb_record_release(&rec);
    if (st == MB_OK)
        st = write_text("prompt", text, strlen(text), &out);
    mb_free(text);
    return mb_api_answer(q, st, &out);
}

static mb_status tokenize(void *arg, mb_http_request *q)
{
    return mb_api_ask(arg, q, tokenize_body);
}

static mb_status detokenize(void *arg, mb_http_request *q)
{
    return mb_api_ask(arg, q, detokenize_body);
}

static mb_status apply_template(void *arg, mb_http_request *q)
{
    return mb_api_ask(arg, q, template_body);
}

const mb_http_route mb_routes_tokens[] = {
    {"POST", "/tokenize", tokenize, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
    {"POST", "/detokenize", detokenize, .body = MB_HTTP_WHOLE, .body_max = 16 << 20},
    {"POST", "/apply-template", apply_template, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
    {.method = NULL},
};
