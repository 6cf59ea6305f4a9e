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
#include "recipes/serve/multipart.h"
#include "recipes/serve/reader.h"
#include "recipes/serve/texts.h"

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

static mb_status picture_of_json(mb_json root, struct asked *k, mb_fault *f)
{
    const char *text, *comma;
    mb_json v;
    size_t n;

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

static mb_status picture_of_form(mb_api *a, mb_http_request *q, struct asked *k, mb_fault *f)
{
    const mb_form_field *file, *model;
    char id[256] = "";
    mb_form *form;
    size_t n;
    const char *body = mb_http_whole(q, &n);
    mb_status st;

    MB_TRY(MB_NEW(&form));
    MB_TRY_GOTO(mb_form_parse(mb_http_head(q, "Content-Type"), body, n, form), st, done);
    model = mb_form_find(form, "model");
    if (model != NULL)
        snprintf(id, sizeof id, "%.*s", (int)(model->n < 255 ? model->n : 255), model->value);
    MB_TRY_GOTO(mb_api_choose(a, id, MB_OFFER_PICTURES, &k->o, f), st, done);
    file = mb_form_find(form, "image");
    file = file != NULL ? file : mb_form_find(form, "file");
    mb_fault_set(f, 400, NULL, "image");
    if (file == NULL || file->n == 0) {
        st = MB_RAISE(MB_EARG, "the form has no file `image`");
        goto done;
    }
    MB_TRY_GOTO(mb_alloc(file->n, "a picture", (void **)&k->picture), st, done);
    memcpy(k->picture, file->value, file->n);
    k->n = file->n;
done:
    mb_free(form);
    return st;
}

static mb_status read_picture(mb_api *a, mb_http_request *q, struct asked *k, mb_fault *f)
{
    const char *type = mb_http_head(q, "Content-Type"), *model = NULL;
    mb_json_doc *doc = NULL;
    mb_status st;

    if (type != NULL && strncmp(type, "multipart/", 10) == 0)
        return picture_of_form(a, q, k, f);
    MB_TRY(mb_api_body(q, &doc));
    mb_fault_set(f, 400, NULL, "model");
    st = mb_json_get_string(mb_json_root(doc), "model", NULL, &model);
    if (st == MB_OK)
        st = mb_api_choose(a, model, MB_OFFER_PICTURES, &k->o, f);
    if (st == MB_OK)
        st = picture_of_json(mb_json_root(doc), k, f);
    mb_json_free(doc);
    return st;
}

/* ---- texts -------------------------------------------------------------------------------- */

static mb_status encode(void *arg, const char *text, size_t n, mb_ids *out)
{
    return mb_tokenizer_encode(arg, text, n, MB_TOK_SPECIAL, out);
}

static mb_status read_texts(mb_api *a, mb_http_request *q, struct asked *k, mb_fault *f)
{
    const char *model = NULL;
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_api_body(q, &doc));
    mb_fault_set(f, 400, NULL, "model");
    st = mb_json_get_string(mb_json_root(doc), "model", NULL, &model);
    if (st == MB_OK)
        st = mb_api_choose(a, model, MB_OFFER_CLASSES, &k->o, f);
    if (st == MB_OK) {
        const mb_reader *d = k->o->own;

        st = mb_texts_read(mb_json_get(mb_json_root(doc), "input"), encode, d->tokenizer,
                           d->config.vocab, d->most, &k->texts, f);
    }
    mb_json_free(doc);
    return st;
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
    if (st == MB_OK)
        mb_http_reply_send(r, 200, "application/json", out.p, out.n);
    else
        mb_api_reply_failure(r, st, NULL);
    mb_bytes_release(&out);
    mb_free(v);
}

static void release(void *own)
{
    struct asked *k = own;

    mb_texts_release(&k->texts);
    mb_free(k->picture);
    mb_free(k);
}

static mb_status ask(mb_api *a, mb_http_request *q,
                     mb_status (*take)(mb_api *, mb_http_request *, struct asked *, mb_fault *))
{
    struct asked *k;
    mb_fault f = {0};
    mb_status st;

    MB_TRY(MB_NEW(&k));
    st = take(a, q, k, &f);
    if (st == MB_OK)
        return mb_api_work(a, q, &(mb_work){k, run, release});
    release(k);
    return mb_api_refuse(q, st, &f);
}

static mb_status classify_picture(void *arg, mb_http_request *q)
{
    return ask(arg, q, read_picture);
}

static mb_status classify_texts(void *arg, mb_http_request *q)
{
    return ask(arg, q, read_texts);
}

const mb_http_route mb_routes_classes[] = {
    {"POST", "/v1/images/classifications", classify_picture, .body = MB_HTTP_WHOLE,
     .body_max = MOST_PICTURE_BYTES + (MOST_PICTURE_BYTES >> 1)},
    {"POST", "/v1/classifications", classify_texts, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
    {.method = NULL},
};
