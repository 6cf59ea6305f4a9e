/* recipes/serve/routes_state.c - GET /health, /metrics (Prometheus), /props (for llama.cpp's page). */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/api_inside.h"
#include "recipes/serve/params.h"

static mb_status health(void *arg, mb_http_request *q)
{
    static const char ok[] = "{\"status\":\"ok\"}";

    return mb_http_answer(q, 200, "application/json", ok, sizeof ok - 1);
}

/* ---- metrics ------------------------------------------------------------------------------ */

static mb_status metric(mb_bytes *out, const char *name, const char *type, const char *help,
                        double value)
{
    return mb_bytes_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, type,
                           name, value);
}

static int64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long long all, resident = 0;

    if (f == NULL)
        return 0;
    if (fscanf(f, "%lld %lld", &all, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * sysconf(_SC_PAGESIZE);
}

static int64_t open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int64_t n = -3; /* ., .., and this one */

    if (d == NULL)
        return 0;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static mb_status scheduler_metrics(mb_bytes *out, const mb_scheduler_stats *s)
{
    const struct {
        const char *name, *type, *help;
        double value;
    } rows[] = {
        {"mbuyu_slots", "gauge", "Answers that can be written at a time.", (double)s->n_seq},
        {"mbuyu_slots_busy", "gauge", "Answers being written.", (double)s->running},
        {"mbuyu_requests_waiting", "gauge", "Asks in the queue.", (double)s->waiting},
        {"mbuyu_cache_blocks", "gauge", "Blocks of keys and values.", (double)s->blocks},
        {"mbuyu_cache_blocks_used", "gauge", "Blocks that answers use.", (double)s->used},
        {"mbuyu_cache_blocks_kept", "gauge", "Unused blocks with known prefixes.", (double)s->kept},
        {"mbuyu_asks_total", "counter", "Asks taken.", (double)s->asks},
        {"mbuyu_asks_ended_total", "counter", "Asks ended.", (double)s->ended},
        {"mbuyu_asks_cancelled_total", "counter", "Asks whose client left.", (double)s->cancelled},
        {"mbuyu_asks_failed_total", "counter", "Asks that failed.", (double)s->failed},
        {"mbuyu_asks_refused_total", "counter", "Asks refused: the queue was full.",
         (double)s->refused},
        {"mbuyu_preemptions_total", "counter", "Sequences that gave up their blocks.",
         (double)s->preempted},
        {"mbuyu_prompt_tokens_total", "counter", "Tokens of prompts computed.",
         (double)s->prompt_tokens},
        {"mbuyu_cached_tokens_total", "counter", "Tokens of prompts found in the cache.",
         (double)s->cached_tokens},
        {"mbuyu_answer_tokens_total", "counter", "Tokens of answers.", (double)s->answer_tokens},
        {"mbuyu_forwards_total", "counter", "Forwards.", (double)s->forwards},
        {"mbuyu_prompt_seconds_total", "counter", "Time of forwards with prompts.",
         s->prompt_seconds},
        {"mbuyu_answer_seconds_total", "counter", "Time of forwards without.", s->answer_seconds},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        MB_TRY(metric(out, rows[i].name, rows[i].type, rows[i].help, rows[i].value));
    return MB_OK;
}

static mb_status route_metrics(mb_api *a, mb_bytes *out)
{
    mb_status st;

    MB_TRY(mb_bytes_puts(out, "# HELP mbuyu_requests_total Requests answered, by route.\n"
                              "# TYPE mbuyu_requests_total counter\n"));
    pthread_mutex_lock(&a->lock);
    st = MB_OK;
    for (int i = 0; i < MB_API_COUNTED && a->counted[i].route != NULL && st == MB_OK; i++)
        st = mb_bytes_printf(out, "mbuyu_requests_total{route=\"%s\"} %lld\n", a->counted[i].route,
                             (long long)a->counted[i].requests);
    if (st == MB_OK)
        st = metric(out, "mbuyu_work_waiting", "gauge", "Other requests that wait.",
                    (double)(a->n_waiting + a->busy));
    pthread_mutex_unlock(&a->lock);
    return st;
}

static mb_status metrics(void *arg, mb_http_request *q)
{
    mb_api *a = arg;
    const mb_scheduler_stats s = mb_scheduler_read(a->scheduler);
    mb_bytes out = {0};
    mb_status st = scheduler_metrics(&out, &s);

    if (st == MB_OK)
        st = route_metrics(a, &out);
    if (st == MB_OK)
        st = metric(&out, "mbuyu_uptime_seconds", "gauge", "Since the start.",
                    mb_clock() - a->since);
    if (st == MB_OK)
        st = metric(&out, "process_resident_memory_bytes", "gauge", "Resident memory.",
                    (double)resident_bytes());
    if (st == MB_OK)
        st = metric(&out, "process_open_fds", "gauge", "Open descriptors.",
                    (double)open_descriptors());
    if (st == MB_OK)
        st = mb_http_answer(q, 200, "text/plain; version=0.0.4; charset=utf-8", out.p, out.n);
    mb_bytes_release(&out);
    return st;
}

/* ---- props -------------------------------------------------------------------------------- */

static mb_offer *first_text(const mb_api *a)
{
    for (int i = 0; i < a->n_offers; i++)
        if (a->offer[i]->kind == MB_OFFER_TEXT)
            return a->offer[i];
    return NULL;
}

static mb_status write_props(mb_api *a, const mb_offer *o, mb_bytes *out)
{
    const char *template = o != NULL ? mb_tokenizer_chat_template(o->writer.tokenizer) : NULL;

    MB_TRY(mb_bytes_printf(out,
                           "{\"default_generation_settings\":{\"id\":0,\"n_ctx\":%lld,\"params\":{"
                           "\"temperature\":1.0,\"top_p\":1.0,\"top_k\":0,\"max_tokens\":-1,"
                           "\"n_predict\":-1,\"seed\":-1,\"presence_penalty\":0.0,"
                           "\"frequency_penalty\":0.0,\"repeat_penalty\":1.0,\"stream\":true,"
                           "\"samplers\":[\"penalties\",\"temperature\",\"top_k\",\"top_p\"]}},"
                           "\"total_slots\":%lld,\"modalities\":{\"vision\":false,\"audio\":false},"
                           "\"build_info\":\"mbuyu-" MB_VERSION "\",\"chat_template\":",
                           (long long)(o != NULL ? o->context : 0), (long long)a->o.n_seq));
    MB_TRY(mb_bytes_json(out, template != NULL ? template : "",
                         template != NULL ? strlen(template) : 0));
    MB_TRY(mb_bytes_puts(out, ",\"model_path\":"));
    MB_TRY(mb_bytes_json(out, o != NULL ? o->id : "", o != NULL ? strlen(o->id) : 0));
    MB_TRY(mb_bytes_puts(out, ",\"model_alias\":"));
    MB_TRY(mb_bytes_json(out, o != NULL ? o->id : "", o != NULL ? strlen(o->id) : 0));
    MB_TRY(mb_bytes_puts(out, ",\"parameters\":"));
    MB_TRY(mb_params_describe(out));
    return mb_bytes_puts(out, "}");
}

static mb_status props(void *arg, mb_http_request *q)
{
    mb_api *a = arg;
    const char *id = mb_http_query(q, "model");
    mb_offer *o = id != NULL ? mb_api_find(a, id) : first_text(a);
    mb_bytes out = {0};

    if (o == NULL || o->kind != MB_OFFER_TEXT)
        o = first_text(a);
    return mb_api_answer(q, write_props(a, o, &out), &out);
}

const mb_http_route mb_routes_state[] = {
    {"GET", "/health", health, .flags = MB_HTTP_OPEN},
    {"GET", "/v1/health", health, .flags = MB_HTTP_OPEN},
    {"GET", "/metrics", metrics, .flags = 0},
    {"GET", "/props", props, .flags = 0},
    {.method = NULL},
};
