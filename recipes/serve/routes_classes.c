/* recipes/serve/routes_classes.c - POST /v1/images/classifications, /v1/classifications.
 *
 *     {"model":ID,"image":BASE64 or "data:image/png;base64,..."}, or a form with the file `image`
 *     {"model":ID,"input":TEXT or [TEXT, ...]}
 *     -> {"object":"list","model":ID,"data":[{"index":0,"label":...,"probabilities":[{"label":...,
 *         "probability":...}, ...]}]}
 *
 * with the likeliest first.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/reader.h"

enum { MOST_PICTURE_BYTES = 16 << 20 };

struct asked {
    mb_offer *o;
    mb_texts texts;
    char *picture; /* the file */
    size_t n;
};

/* ---- pictures ----------------------------------------------------------------------------- */

static int value_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* Base64, with or without its padding, lines or none. */
static mb_status from_base64(const char *p, size_t n, char *to, size_t *n_out)
{
    uint32_t bits = 0;
    int held = 0;
    size_t out = 0;

    for (size_t i = 0; i < n; i++) {
        const int v = value_of(p[i]);

        if (p[i] == '\n' || p[i] == '\r')
            continue;
        if (p[i] == '=')
            break;
        MB_REQUIRE(v >= 0, MB_EARG, "image is not base64: byte %zu", i + 1);
        bits = bits << 6 | (uint32_t)v;
        held += 6;
        if (held >= 8) {
            held -= 8;
            to[out++] = (char)(bits >> held & 0xff);
        }
    }
    *n_out = out;
    return MB_OK;
}

static mb_status picture_of_json(mb_api *a, mb_json root, void *own, mb_fault *f)
{
    struct asked *k = own;
    const char *text, *comma;
    mb_json v;
    size_t n;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_PICTURES, &k->o, f));
    mb_fault_set(f, 400, NULL, "image");
    v = mb_json_get(root, "image");
    MB_REQUIRE(mb_json_is(v, MB_JSON_STRING), MB_EARG,
               "image is missing: a PNG or JPEG file in base64, or a data: URL of one");
    MB_TRY(mb_json_string(v, &text, &n));
    MB_REQUIRE(strncmp(text, "http:", 5) != 0 && strncmp(text, "https:", 6) != 0, MB_EARG,
               "image: nothing is fetched from elsewhere; send the file itself in base64");
    if (strncmp(text, "data:", 5) == 0) {
        comma = strchr(text, ',');
        MB_REQUIRE(comma != NULL && comma - text >= 7 && strncmp(comma - 7, ";base64", 7) == 0,
                   MB_EARG, "image: a data: URL must be in base64");
        n -= (size_t)(comma + 1 - text);
        text = comma + 1;
    }
    MB_TRY(mb_alloc(n, "a picture", (void **)&k->picture));
    return from_base64(text, n, k->picture, &k->n);
}

static mb_status picture_of_form(mb_api *a, const mb_form *form, void *own, mb_fault *f)
{
    struct asked *k = own;
    const mb_form_field *file, *model = mb_form_find(form, "model");
    char id[256] = "";

    if (model != NULL)
        snprintf(id, sizeof id, "%.*s", (int)(model->n < 255 ? model->n : 255), model->value);
    MB_TRY(mb_api_choose(a, id, MB_OFFER_PICTURES, &k->o, f));
    file = mb_form_find(form, "image");
    file = file != NULL ? file : mb_form_find(form, "file");
    mb_fault_set(f, 400, NULL, "image");
    MB_REQUIRE(file != NULL && file->n > 0, MB_EARG, "the form has no file `image`");
    MB_TRY(mb_alloc(file->n, "a picture", (void **)&k->picture));
    memcpy(k->picture, file->value, file->n);
    k->n = file->n;
    return MB_OK;
}

/* ---- texts -------------------------------------------------------------------------------- */

static mb_status texts_of_json(mb_api *a, mb_json root, void *own, mb_fault *f)
{
    struct asked *k = own;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_CLASSES, &k->o, f));
    return mb_reader_input(k->o->own, root, &k->texts, f);
}

/* ---- answers ------------------------------------------------------------------------------ */

static mb_status write_all(const struct asked *k, float *v, int64_t cols, mb_bytes *out)
{
    const int64_t n = k->picture != NULL ? 1 : k->texts.n;

    MB_TRY(mb_bytes_puts(out, "{\"object\":\"list\",\"model\":"));
    MB_TRY(mb_bytes_json(out, k->o->id, strlen(k->o->id)));
    MB_TRY(mb_bytes_puts(out, ",\"data\":["));
    for (int64_t i = 0; i < n; i++) {
        MB_TRY(mb_bytes_puts(out, i > 0 ? "," : ""));
        MB_TRY(mb_reader_write_classes(k->o, v + i * cols, cols, i, out));
    }
    return mb_bytes_printf(out, "],\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}}",
                           (long long)k->texts.tokens, (long long)k->texts.tokens);
}

static void run(mb_api *a, void *own, mb_http_reply *r)
{
    struct asked *k = own;
    float *v = NULL;
    int64_t cols;
    mb_bytes out = {0};
    mb_status st = k->picture != NULL
                       ? mb_reader_picture(a, k->o->own, k->picture, k->n, &v, &cols)
                       : mb_reader_texts(a, k->o->own, k->texts.at, k->texts.n, &v, &cols);

    mb_api_count(a, k->picture != NULL ? "pictures" : "classifications", k->texts.tokens, 0);
    if (st == MB_OK)
        st = write_all(k, v, cols, &out);
    mb_api_reply(r, st, "application/json", &out);
    mb_free(v);
}

static void release(void *own)
{
    struct asked *k = own;

    mb_texts_release(&k->texts);
    mb_free(k->picture);
}

static const mb_work of_picture = {.bytes = sizeof(struct asked),
                                   .json = picture_of_json,
                                   .form = picture_of_form,
                                   .run = run,
                                   .release = release};
static const mb_work of_texts = {
    .bytes = sizeof(struct asked), .json = texts_of_json, .run = run, .release = release};

static mb_status classify_picture(void *arg, mb_http_request *q)
{
    return mb_api_work(arg, q, &of_picture);
}

static mb_status classify_texts(void *arg, mb_http_request *q)
{
    return mb_api_work(arg, q, &of_texts);
}

const mb_http_route mb_routes_classes[] = {
    {"POST", "/v1/images/classifications", classify_picture, .body = MB_HTTP_WHOLE,
     .body_max = MOST_PICTURE_BYTES + (MOST_PICTURE_BYTES >> 1)},
    {"POST", "/v1/classifications", classify_texts, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
    {.method = NULL},
};
