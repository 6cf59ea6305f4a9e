/* recipes/serve/routes_embeddings.c - POST /v1/embeddings: vectors of length 1, as numbers or base64. */
#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/params.h"
#include "recipes/serve/reader.h"
#include "recipes/serve/texts.h"

struct asked {
    mb_offer *o;
    mb_texts texts;
    int64_t dimensions; /* -1: all */
    bool base64;
};

static mb_status read_body(mb_api *a, mb_json root, void *own, mb_fault *f)
{
    struct asked *k = own;
    const char *format;
    mb_params p;
    mb_reader *d;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_VECTORS, &k->o, f));
    d = k->o->own;
    MB_TRY(mb_params_read(root, MB_PARAM_VECTOR, &p, f));
    k->dimensions = p.dimensions;
    mb_fault_set(f, 400, NULL, "dimensions");
    MB_REQUIRE(p.dimensions <= d->config.width, MB_EARG,
               "dimensions is %lld; this model's vectors have %lld", (long long)p.dimensions,
               (long long)d->config.width);
    mb_fault_set(f, 400, NULL, "encoding_format");
    MB_TRY(mb_json_get_string(root, "encoding_format", "float", &format));
    k->base64 = strcmp(format, "base64") == 0;
    MB_REQUIRE(k->base64 || strcmp(format, "float") == 0, MB_EARG,
               "encoding_format \"%.40s\" is not known: float, base64", format);
    return mb_reader_input(d, root, &k->texts, f);
}

static void to_length_1(float *v, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    sum = sqrt(sum) > 1e-12 ? 1.0 / sqrt(sum) : 0.0;
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)(v[i] * sum);
}

static mb_status write_vector(const struct asked *k, float *v, int64_t n, int64_t index,
                              mb_bytes *out)
{
    to_length_1(v, n);
    MB_TRY(mb_bytes_printf(out, "%s{\"object\":\"embedding\",\"index\":%lld,\"embedding\":",
                           index > 0 ? "," : "", (long long)index));
    if (k->base64) { /* little-endian floats, as they are here */
        MB_TRY(mb_bytes_puts(out, "\""));
        MB_TRY(mb_bytes_base64(out, (const char *)v, (size_t)n * sizeof *v));
        return mb_bytes_puts(out, "\"}");
    }
    for (int64_t i = 0; i < n; i++)
        MB_TRY(mb_bytes_printf(out, "%c%.17g", i == 0 ? '[' : ',', (double)v[i]));
    return mb_bytes_puts(out, "]}");
}

static mb_status write_all(const struct asked *k, float *v, int64_t cols, mb_bytes *out)
{
    const int64_t n = k->dimensions > 0 ? k->dimensions : cols;

    MB_TRY(mb_bytes_puts(out, "{\"object\":\"list\",\"data\":["));
    for (int64_t i = 0; i < k->texts.n; i++)
        MB_TRY(write_vector(k, v + i * cols, n, i, out));
    MB_TRY(mb_bytes_puts(out, "],\"model\":"));
    MB_TRY(mb_bytes_json(out, k->o->id, strlen(k->o->id)));
    return mb_bytes_printf(out, ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}}",
                           (long long)k->texts.tokens, (long long)k->texts.tokens);
}

static void run(mb_api *a, void *own, mb_http_reply *r)
{
    struct asked *k = own;
    float *v = NULL;
    int64_t cols;
    mb_bytes out = {0};
    mb_status st = mb_reader_texts(a, k->o->own, k->texts.at, k->texts.n, &v, &cols);

    mb_api_count(a, "embeddings", k->texts.tokens, 0);
    if (st == MB_OK)
        st = write_all(k, v, cols, &out);
    mb_api_reply(r, st, "application/json", &out);
    mb_free(v);
}

static void release(void *own)
{
    struct asked *k = own;

    mb_texts_release(&k->texts);
}

static const mb_work work = {
    .bytes = sizeof(struct asked), .json = read_body, .run = run, .release = release};

static mb_status embed(void *arg, mb_http_request *q)
{
    return mb_api_work(arg, q, &work);
}

const mb_http_route mb_routes_embeddings[] = {
    {"POST", "/v1/embeddings", embed, .body = MB_HTTP_WHOLE, .body_max = 16 << 20},
    {.method = NULL},
};
