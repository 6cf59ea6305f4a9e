/* recipes/serve/api.c - what is on offer, the key, errors in OpenAI's shape; starting and stopping. */
#include "recipes/serve/api.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/api_inside.h"

enum { SEQUENCES = 8, QUEUE = 64, OFFERS = 64 };

static const mb_http_route *const tables[] = {
#define MB_ROUTES(name) mb_routes_##name,
#include "recipes/serve/routes.def"
};

static const mb_http_header headers[] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
     "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
     "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Permissions-Policy", "camera=(self), microphone=(self), geolocation=()"},
    {NULL, NULL},
};

/* ---- errors ------------------------------------------------------------------------------- */

static const char *type_of(int status)
{
    return status == 429   ? "rate_limit_error"
           : status >= 500 ? "server_error"
                           : "invalid_request_error";
}

static mb_status add_string_or_null(mb_bytes *out, const char *s)
{
    return s == NULL || *s == '\0' ? mb_bytes_puts(out, "null") : mb_bytes_json(out, s, strlen(s));
}

mb_status mb_api_error_text(mb_bytes *out, int status, const char *code, const char *param,
                            const char *sentence)
{
    MB_TRY(mb_bytes_puts(out, "{\"error\":{\"message\":"));
    MB_TRY(mb_bytes_json(out, sentence, strlen(sentence)));
    MB_TRY(mb_bytes_printf(out, ",\"type\":\"%s\",\"param\":", type_of(status)));
    MB_TRY(add_string_or_null(out, param));
    MB_TRY(mb_bytes_puts(out, ",\"code\":"));
    MB_TRY(add_string_or_null(out, code));
    return mb_bytes_puts(out, "}}");
}

static void answer_error(mb_http_request *q, int status, const char *code, const char *param,
                         const char *sentence)
{
    mb_bytes text = {0};

    if (status == 401)
        mb_http_add(q, "WWW-Authenticate", "Bearer");
    if (mb_api_error_text(&text, status, code, param, sentence) == MB_OK)
        mb_http_answer(q, status, "application/json", text.p, text.n);
    mb_bytes_release(&text);
}

/* Of the server itself. */
static void on_error(void *arg, mb_http_request *q, int status, const char *what,
                     const char *sentence)
{
    answer_error(q, status, what, NULL, sentence);
}

static int status_of(mb_status st)
{
    return st == MB_EARG || st == MB_EDATA || st == MB_ENOTSUP ? 400 : st == MB_ENOMEM ? 503 : 500;
}

mb_status mb_api_refuse(mb_http_request *q, mb_status st, const mb_fault *f)
{
    const int status = f->status != 0 ? f->status : status_of(st);
    char sentence[1000];

    snprintf(sentence, sizeof sentence, "%s", mb_status_sentence());
    mb_status_clear();
    if (status >= 500)
        mb_log_warn("%s: %s", mb_http_path(q), sentence);
    answer_error(q, status, f->code, f->param, sentence);
    return MB_OK;
}

static void reply_failure(mb_http_reply *r, mb_status st)
{
    const int status = status_of(st);
    mb_bytes text = {0};

    if (status >= 500)
        mb_log_warn("%s", mb_status_sentence());
    if (mb_api_error_text(&text, status, NULL, NULL, mb_status_sentence()) == MB_OK)
        mb_http_reply_send(r, status, "application/json", text.p, text.n);
    else
        mb_http_reply_drop(r);
    mb_bytes_release(&text);
    mb_status_clear();
}

void mb_api_reply(mb_http_reply *r, mb_status st, const char *type, mb_bytes *text)
{
    if (st == MB_OK)
        mb_http_reply_send(r, 200, type, text->p, text->n);
    else
        reply_failure(r, st);
    mb_bytes_release(text);
}

/* ---- the key ------------------------------------------------------------------------------ */

/* In a time that says nothing of how much is right. */
static bool same_key(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    unsigned differ = n != m;

    for (size_t i = 0; i < n; i++)
        differ |= (unsigned char)a[i] ^ (unsigned char)b[m > 0 ? i % m : 0];
    return differ == 0;
}

static mb_status allow(void *arg, mb_http_request *q)
{
    const mb_api *a = arg;
    const char *given = mb_http_head(q, "Authorization");

    if (a->o.key == NULL)
        return MB_OK;
    if (given == NULL || strncmp(given, "Bearer ", 7) != 0 || !same_key(given + 7, a->o.key))
        answer_error(q, 401, "invalid_api_key", NULL,
                     given == NULL ? "this server wants a key: Authorization: Bearer KEY"
                                   : "the key is not this server's");
    return MB_OK;
}

/* ---- helpers of handlers ------------------------------------------------------------------ */

const mb_api_options *mb_api_has(const mb_api *a)
{
    return &a->o;
}

mb_scheduler *mb_api_scheduler(const mb_api *a)
{
    return a->scheduler;
}

mb_bases *mb_api_bases(const mb_api *a)
{
    return a->bases;
}

int mb_api_offers(const mb_api *a)
{
    return a->n_offers;
}

mb_offer *mb_api_offer_at(const mb_api *a, int i)
{
    return a->offer[i];
}

mb_offer *mb_api_find(const mb_api *a, const char *id)
{
    for (int i = 0; i < a->n_offers; i++)
        if (strcmp(a->offer[i]->id, id) == 0)
            return a->offer[i];
    return NULL;
}

mb_status mb_api_choose(const mb_api *a, const char *id, mb_offer_kind kind, mb_offer **out,
                        mb_fault *f)
{
    mb_fault_set(f, 404, "model_not_found", "model");
    if (id == NULL || *id == '\0') {
        for (int i = 0; i < a->n_offers; i++)
            if (a->offer[i]->kind == kind) {
                *out = a->offer[i];
                mb_fault_set(f, 0, NULL, NULL);
                return MB_OK;
            }
        return MB_RAISE(MB_EARG, "no model here does this: %s", mb_offer_kind_name(kind));
    }
    *out = mb_api_find(a, id);
    MB_REQUIRE(*out != NULL, MB_EARG, "the model `%.200s` is not here", id);
    mb_fault_set(f, 400, "model_not_suitable", "model");
    MB_REQUIRE((*out)->kind == kind, MB_EARG, "the model `%.200s` is for %s, not for %s", id,
               mb_offer_kind_name((*out)->kind), mb_offer_kind_name(kind));
    mb_fault_set(f, 0, NULL, NULL);
    return MB_OK;
}

mb_status mb_api_choose_in(const mb_api *a, mb_json request, mb_offer_kind kind, mb_offer **out,
                           mb_fault *f)
{
    const char *id = NULL;

    mb_fault_set(f, 400, NULL, "model");
    MB_TRY(mb_json_get_string(request, "model", NULL, &id));
    return mb_api_choose(a, id, kind, out, f);
}

mb_status mb_api_body(mb_http_request *q, mb_json_doc **out)
{
    size_t n;
    const char *text = mb_http_whole(q, &n);
    mb_json_doc *doc;

    MB_REQUIRE(n > 0, MB_EARG, "the request has no body; a JSON object is expected");
    MB_TRY(mb_json_parse(text, n, "the request", 0, MB_EARG, &doc));
    if (!mb_json_is(mb_json_root(doc), MB_JSON_OBJECT)) {
        mb_json_free(doc);
        return MB_RAISE(MB_EARG, "the request must be a JSON object");
    }
    *out = doc;
    return MB_OK;
}

mb_status mb_api_ask(mb_api *a, mb_http_request *q, mb_api_asker ask)
{
    mb_json_doc *doc = NULL;
    mb_fault f = {0};
    mb_status st = mb_api_body(q, &doc);

    if (st == MB_OK)
        st = ask(a, q, mb_json_root(doc), &f);
    mb_json_free(doc);
    return st == MB_OK ? MB_OK : mb_api_refuse(q, st, &f);
}

mb_status mb_api_answer(mb_http_request *q, mb_status st, mb_bytes *text)
{
    if (st == MB_OK)
        st = mb_http_add(q, "Cache-Control", "no-store");
    if (st == MB_OK)
        st = mb_http_answer(q, 200, "application/json", text->p, text->n);
    mb_bytes_release(text);
    return st;
}

void mb_api_count(mb_api *a, const char *route, int64_t tokens_in, int64_t tokens_out)
{
    pthread_mutex_lock(&a->lock);
    for (int i = 0; i < MB_API_COUNTED; i++) {
        struct counted *c = &a->counted[i];

        if (c->route == NULL)
            c->route = route;
        if (strcmp(c->route, route) == 0) {
            c->requests++;
            c->tokens_in += tokens_in;
            c->tokens_out += tokens_out;
            break;
        }
    }
    pthread_mutex_unlock(&a->lock);
}

/* ---- start, stop -------------------------------------------------------------------------- */

mb_status mb_api_new(const mb_api_options *o, mb_api **out)
{
    mb_scheduler_options s;
    mb_status st;
    mb_api *a;

    MB_TRY(MB_NEW(&a));
    a->o = *o;
    a->o.n_seq = o->n_seq > 0 ? o->n_seq : SEQUENCES;
    a->o.queue = o->queue > 0 ? o->queue : QUEUE;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    pthread_mutex_init(&a->adding, NULL);
    s = (mb_scheduler_options){.n_seq = a->o.n_seq,
                               .queue = a->o.queue,
                               .context = o->runs == NULL || o->runs[0] == NULL ? 0
                                          : o->context > 0                      ? o->context
                                                                                : MB_API_CONTEXT};
    MB_TRY_GOTO(MB_NEW_ARRAY(&a->offer, OFFERS), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&a->waiting, a->o.queue), st, done);
    MB_TRY_GOTO(mb_bases_new(&a->bases), st, done);
    MB_TRY_GOTO(mb_scheduler_new(&s, &a->scheduler), st, done);
    *out = a;
done:
    if (st != MB_OK)
        mb_api_free(a);
    return st;
}

mb_status mb_api_offer(mb_api *a, const char *model, int n_words, char **word)
{
    mb_offer *o = NULL;

    MB_REQUIRE(a->n_offers < OFFERS, MB_EARG, "more than %d models", OFFERS);
    MB_TRY(mb_offer_open(a, model, n_words, word, &o));
    a->offer[a->n_offers] = o;
    a->n_offers++; /* seen only with what it counts */
    return MB_OK;
}

struct adding {
    mb_api *a;
    const mb_served *served;
    int *number;
};

static mb_status add_now(void *arg)
{
    const struct adding *x = arg;

    return mb_scheduler_add(x->a->scheduler, x->served, x->number);
}

mb_status mb_api_schedule(mb_api *a, const mb_served *served, int *number)
{
    struct adding x = {a, served, number};

    return a->running ? mb_scheduler_call(a->scheduler, add_now, &x) : add_now(&x);
}

static mb_status join_routes(mb_api *a)
{
    size_t n = 0;

    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++)
        for (const mb_http_route *r = tables[t]; r->method != NULL; r++)
            n++;
    MB_TRY(MB_NEW_ARRAY(&a->route, n + 1));
    n = 0;
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++)
        for (const mb_http_route *r = tables[t]; r->method != NULL; r++)
            a->route[n++] = *r;
    return MB_OK;
}

mb_status mb_api_start(mb_api *a, const mb_http_options *given)
{
    mb_http_options o = *given;

    MB_TRY(join_routes(a));
    MB_TRY(mb_scheduler_start(a->scheduler));
    a->running = true;
    MB_TRY(mb_api_work_start(a));
    MB_TRY(mb_api_jobs_start(a));
    o.routes = a->route;
    o.arg = a;
    o.headers = headers;
    o.allow = allow;
    o.error = on_error;
    a->since = mb_clock();
    return mb_http_start(&o, &a->http);
}

int mb_api_port(const mb_api *a)
{
    return mb_http_port(a->http);
}

void mb_api_free(mb_api *a)
{
    if (a == NULL)
        return;
    if (a->http != NULL)
        mb_http_quiesce(a->http);
    mb_jobs_close(a->jobs);
    mb_api_work_stop(a);
    mb_scheduler_free(a->scheduler); /* ends what is open */
    mb_http_stop(a->http);
    for (int i = 0; i < a->n_offers; i++)
        mb_offer_close(a->offer[i]);
    mb_bases_free(a->bases);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->adding);
    pthread_cond_destroy(&a->changed);
    mb_free(a->route);
    mb_free(a->offer);
    mb_free(a->waiting);
    mb_free(a);
}
