/* recipes/hub/hub.c - see recipes/hub/hub.h. */
#include "recipes/hub/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/config/recipe.h"

enum { MOST_JSON = 64 << 20 };

const char mb_hub_usage[] = "[--token TOKEN] [--timeout SECONDS] [--retries N] [--pause SECONDS] "
                            "[--limit-rate BYTES]";

mb_status mb_hub_value(int argc, char **argv, int *i, const char *name, char **value)
{
    const size_t n = strlen(name);

    *value = NULL;
    if (strncmp(argv[*i], name, n) != 0 || (argv[*i][n] != '\0' && argv[*i][n] != '='))
        return MB_OK;
    if (argv[*i][n] == '=') {
        *value = argv[*i] + n + 1;
        return MB_OK;
    }
    MB_REQUIRE(*i + 1 < argc, MB_EARG, "%s needs a value", name);
    *value = argv[++*i];
    return MB_OK;
}

static mb_status read_number(const char *name, const char *text, double least, double most,
                             double *out)
{
    char *end;
    const double v = strtod(text, &end);

    MB_REQUIRE(end != text && *end == '\0' && v >= least && v <= most, MB_EARG,
               "%s: %.100s is not a number from %g to %g", name, text, least, most);
    *out = v;
    return MB_OK;
}

static mb_status take_token(char *value, mb_hub_options *o)
{
    mb_free(o->token);
    o->token = NULL;
    MB_TRY(mb_strdup(value, &o->token));
    memset(value, 'x', strlen(value)); /* where others can see it */
    return MB_OK;
}

mb_status mb_hub_option(int argc, char **argv, int *i, mb_hub_options *o, bool *taken)
{
    char *value;
    double number = 0.0;

    *taken = true;
    if (strcmp(argv[*i], "--offline") == 0) {
        o->offline = true;
        return MB_OK;
    }
    MB_TRY(mb_hub_value(argc, argv, i, "--token", &value));
    if (value != NULL)
        return take_token(value, o);
    MB_TRY(mb_hub_value(argc, argv, i, "--timeout", &value));
    if (value != NULL) {
        MB_TRY(read_number("--timeout", value, 1.0, 86400.0, &number));
        o->fetch.stall_seconds = number;
        o->fetch.connect_seconds = number;
        return MB_OK;
    }
    MB_TRY(mb_hub_value(argc, argv, i, "--retries", &value));
    if (value != NULL) {
        MB_TRY(read_number("--retries", value, 0.0, 1e6, &number));
        o->fetch.tries = (int)number + 1;
        return MB_OK;
    }
    MB_TRY(mb_hub_value(argc, argv, i, "--pause", &value));
    if (value != NULL)
        return read_number("--pause", value, 0.001, 300.0, &o->fetch.first_pause);
    MB_TRY(mb_hub_value(argc, argv, i, "--limit-rate", &value));
    if (value != NULL) {
        MB_REQUIRE(mb_recipe_size(value, &o->fetch.rate) && o->fetch.rate > 0, MB_EARG,
                   "--limit-rate: '%.100s' is no amount of bytes a second, such as 200kB", value);
        return MB_OK;
    }
    *taken = false;
    return MB_OK;
}

mb_status mb_hub_open(mb_hub_options *o, mb_hub **out)
{
    char *token = NULL;
    mb_hub *hub = NULL;
    mb_status st;

    MB_TRY_GOTO(MB_NEW(&hub), st, done);
    if (o->offline || mb_hub_is_offline())
        MB_TRY_GOTO(MB_RAISE(MB_ENET, "no network is used: --offline, HF_HUB_OFFLINE or "
                                      "TRANSFORMERS_OFFLINE says so"),
                    st, done);
    MB_TRY_GOTO(mb_fetch_endpoint(hub->endpoint, sizeof hub->endpoint), st, done);
    MB_TRY_GOTO(mb_fetch_token(o->token, &token), st, done);
    o->fetch.endpoint = hub->endpoint;
    o->fetch.token = token;
    hub->has_token = token != NULL;
    MB_TRY_GOTO(mb_fetcher_new(&o->fetch, &hub->fetcher), st, done);
    *out = hub;
    hub = NULL;
done:
    for (int i = 0; i < 2; i++) {
        char *secret = i == 0 ? token : o->token;

        if (secret != NULL)
            explicit_bzero(secret, strlen(secret));
        mb_free(secret);
    }
    o->token = NULL;
    o->fetch.token = o->fetch.endpoint = NULL;
    mb_hub_close(hub);
    return st;
}

void mb_hub_close(mb_hub *hub)
{
    if (hub == NULL)
        return;
    mb_fetcher_free(hub->fetcher);
    mb_free(hub);
}

const char *mb_hub_kind(const mb_hub_name *name)
{
    return name->is_dataset ? "datasets" : "models";
}

const char *mb_hub_prefix(const mb_hub_name *name)
{
    return name->is_dataset ? "datasets/" : "";
}

mb_status mb_hub_json(const mb_hub *hub, const char *url, const char *what, mb_json_doc **out,
                      mb_fetch_answer *a)
{
    const mb_fetch_request q = {.url = url, .what = what, .most = MOST_JSON};
    mb_fetch_answer own = {0};
    mb_status st = MB_OK;

    if (a == NULL)
        a = &own;
    for (int n = 0; n < 2; n++) { /* an answer without a length may be half of one */
        mb_status_clear();
        MB_TRY_GOTO(mb_fetch(hub->fetcher, &q, a), st, done);
        if (mb_fetch_is_page(a, a->body != NULL ? a->body : "", a->n))
            MB_TRY_GOTO(MB_RAISE(MB_EDATA,
                                 "%s: %s answered with a page for people, not with data: probably "
                                 "the login page of this network, not the hub",
                                 what, a->url),
                        st, done);
        st = mb_json_parse(a->body != NULL ? a->body : "", a->n, what, 0, MB_EDATA, out);
        if (st == MB_OK)
            break;
    }
done:
    if (a == &own)
        mb_fetch_answer_release(&own);
    return st;
}

const char *mb_hub_printable(const char *text, char *to, size_t size)
{
    size_t n = 0;

    for (const unsigned char *c = (const unsigned char *)text; *c != '\0' && n + 5 < size; c++) {
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)) {
            to[n++] = '?';
            c += *c == 0xc2;
        } else {
            to[n++] = (char)*c;
        }
    }
    to[n] = '\0';
    return to;
}

const char *mb_hub_size(int64_t bytes, char *to, size_t size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double v = (double)bytes;
    int u = 0;

    while (v >= 999.5 && u < 5) {
        v /= 1000.0;
        u++;
    }
    snprintf(to, size,
             u == 0      ? "%.0f %s"
             : v < 9.995 ? "%.2f %s"
             : v < 99.95 ? "%.1f %s"
                         : "%.0f %s",
             v, units[u]);
    return to;
}
