/* recipes/serve/routes_models.c - GET /v1/models, /v1/models/{id}: what is on offer. */
#include <string.h>

#include "recipes/serve/api.h"

/* OpenAI's fields, and of ours what it is for and how much it takes. */
static mb_status describe(const mb_offer *o, mb_bytes *out)
{
    const char *adapter = strchr(o->id, ':');

    MB_TRY(mb_bytes_puts(out, "{\"id\":"));
    MB_TRY(mb_bytes_json(out, o->id, strlen(o->id)));
    MB_TRY(mb_bytes_printf(out,
                           ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"mbuyu\","
                           "\"task\":\"%s\"",
                           (long long)o->created, mb_offer_task(o->kind)));
    if (adapter != NULL) {
        MB_TRY(mb_bytes_puts(out, ",\"parent\":"));
        MB_TRY(mb_bytes_json(out, o->id, (size_t)(adapter - o->id)));
    }
    if (o->context == 0)
        return mb_bytes_puts(out, "}");
    return mb_bytes_printf(out, ",\"meta\":{\"n_ctx\":%lld},\"max_model_len\":%lld}",
                           (long long)o->context, (long long)o->context);
}

static mb_status list(void *arg, mb_http_request *q)
{
    const mb_api *a = arg;
    mb_bytes out = {0};
    mb_status st = mb_bytes_puts(&out, "{\"object\":\"list\",\"data\":[");

    for (int i = 0; i < mb_api_offers(a) && st == MB_OK; i++) {
        st = mb_bytes_puts(&out, i > 0 ? "," : "");
        if (st == MB_OK)
            st = describe(mb_api_offer_at(a, i), &out);
    }
    if (st == MB_OK)
        st = mb_bytes_puts(&out, "]}");
    return mb_api_answer(q, st, &out);
}

static mb_status one(void *arg, mb_http_request *q)
{
    const char *id = mb_http_part(q, "id");
    const mb_offer *o = mb_api_find(arg, id);
    mb_bytes out = {0};

    if (o == NULL) {
        const mb_fault f = {.status = 404, .code = "model_not_found", .param = "model"};

        return mb_api_refuse(q, MB_RAISE(MB_EARG, "the model `%.200s` is not here", id), &f);
    }
    return mb_api_answer(q, describe(o, &out), &out);
}

const mb_http_route mb_routes_models[] = {
    {"GET", "/v1/models", list, .flags = 0},
    {"GET", "/models", list, .flags = 0},
    {"GET", "/v1/models/{id*}", one, .flags = MB_HTTP_SLASHES},
    {.method = NULL},
};
