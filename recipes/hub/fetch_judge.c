/* recipes/hub/fetch_judge.c - what an answer means, and when to ask again; see recipes/hub/fetch.h. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/fetch_inside.h"

static const double longest_step = 30.0; /* of doubled pauses, in seconds */

void mb_fetch_answer_release(mb_fetch_answer *a)
{
    mb_free(a->body);
    mb_free(a->heads);
    mb_free(a->url);
    *a = (mb_fetch_answer){0};
}

bool mb_fetch_head(const mb_fetch_answer *a, const char *name, char *text, size_t size)
{
    const size_t n = strlen(name);

    for (const char *line = a->heads; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n');

        if (strncmp(line, name, n) == 0 && line[n] == ':') {
            const char *value = line + n + 1;
            size_t used;

            while (*value == ' ' || *value == '\t')
                value++;
            used = end != NULL ? (size_t)(end - value) : strlen(value);
            while (used > 0 && (value[used - 1] == ' ' || value[used - 1] == '\t'))
                used--;
            if (used >= size)
                return false;
            memcpy(text, value, used);
            text[used] = '\0';
            return true;
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return false;
}

/* RateLimit: "resolvers";r=0;t=2 */
void mb_fetch_read_limit(mb_fetch_answer *a)
{
    char text[256];
    const char *t;

    if (a->status != 429 || a->wait > 0.0 || !mb_fetch_head(a, "ratelimit", text, sizeof text))
        return;
    t = strstr(text, ";t=");
    if (t == NULL)
        t = strstr(text, "; t=");
    if (t != NULL)
        a->wait = fmin(fmax(strtod(strchr(t, '=') + 1, NULL), 0.0), 1e6) + 1.0;
}

bool mb_fetch_is_page(const mb_fetch_answer *a, const void *data, size_t n)
{
    static const char *const starts[] = {"<!doctype html", "<html", "<head", "<script", "<meta"};
    const char *text = data;
    char type[128];

    if (a != NULL && mb_fetch_head(a, "content-type", type, sizeof type) &&
        strncasecmp(type, "text/html", 9) == 0)
        return true;
    while (n > 0 && isspace((unsigned char)*text)) {
        text++;
        n--;
    }
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++)
        if (n >= strlen(starts[i]) && strncasecmp(text, starts[i], strlen(starts[i])) == 0)
            return true;
    return false;
}

/* ": MESSAGE" of the server, if it said something fit to print. */
static const char *message_of(const mb_fetch_answer *a, char *text, size_t size)
{
    char said[240];
    size_t n = 0;

    if (!mb_fetch_head(a, "x-error-message", said, sizeof said))
        return "";
    for (const char *c = said; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x20 && *c != 0x7f)
            said[n++] = *c;
    said[n] = '\0';
    if (strstr(said, "hf_") != NULL || strcasestr(said, "bearer") != NULL)
        return ""; /* it may repeat the token */
    snprintf(text, size, ": %s", said);
    return text;
}

static const struct meaning {
    int status;       /* 0: any */
    const char *code; /* X-Error-Code; NULL: any */
    mb_status st;
    const char *words;
} meanings[] = {
    {0, "GatedRepo", MB_EDENIED,
     "the repository is gated: accept its terms on its page, then give a token of that account"},
    {0, "RepoNotFound", MB_EARG,
     "there is no such repository, or it is private and the token (HF_TOKEN, --token) is missing or "
     "not allowed"},
    {0, "RevisionNotFound", MB_EARG, "the repository has no such revision"},
    {0, "EntryNotFound", MB_EARG, "the repository has no such file"},
    {401, NULL, MB_EDENIED, "a token is wanted, or the one given is not valid (HF_TOKEN, --token)"},
    {403, NULL, MB_EDENIED, "the token has no right to this, or the address has expired"},
    {404, NULL, MB_EARG, "there is no such thing there"},
    {407, NULL, MB_EDENIED, "the proxy wants a name and password"},
    {408, NULL, MB_ENET, "the server gave up waiting"},
    {410, NULL, MB_EARG, "it is gone"},
    {416, NULL, MB_ENET, "the server does not have these bytes"},
    {429, NULL, MB_ENET, "too many requests; it asks to wait"},
    {451, NULL, MB_EDENIED, "it is not available for legal reasons"},
    {511, NULL, MB_EDATA, "the network wants a login first"},
};

mb_status mb_fetch_judge(const mb_fetch_request *q, const mb_fetch_answer *a)
{
    char code[64] = "", said[256];

    if (a->status >= 200 && a->status < 300)
        return MB_OK;
    mb_fetch_head(a, "x-error-code", code, sizeof code);
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
        const struct meaning *m = &meanings[i];

        if ((m->status != 0 && m->status != a->status) ||
            (m->code != NULL && strcmp(m->code, code) != 0))
            continue;
        return MB_RAISE(m->st, "%s: %s answered %d: %s%s", q->what, a->url, a->status, m->words,
                        message_of(a, said, sizeof said));
    }
    return MB_RAISE(MB_ENET, "%s: %s answered %d%s%s", q->what, a->url, a->status,
                    a->status >= 500 ? ", a failure of its own" : "",
                    message_of(a, said, sizeof said));
}

static bool is_passing(int status)
{
    return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 511);
}

bool mb_fetch_may_pass(mb_status st, const mb_fetch_answer *a)
{
    return st == MB_OK ? is_passing(a->status) : st == MB_ENET && !a->hopeless;
}

double mb_fetch_pause(const mb_fetcher *f, const mb_fetch_answer *a, int n)
{
    const mb_fetch_options *o = mb_fetcher_options(f);
    double pause = o->first_pause * exp2(n > 12 ? 11 : n - 1);

    if (a->wait > 0.0)
        return a->wait <= o->longest_pause ? a->wait : -1.0;
    pause = fmin(pause, fmin(longest_step, o->longest_pause));
    return pause * (1.0 + 0.2 * fmod(mb_clock() * 1e3, 1.0)); /* not all clients at once */
}

void mb_fetch_sleep(double seconds)
{
    struct timespec left;

    if (!(seconds > 0.0))
        return;
    left.tv_sec = (time_t)seconds;
    left.tv_nsec = (long)(1e9 * (seconds - (double)left.tv_sec));
    while (nanosleep(&left, &left) != 0)
        ;
}

/* The failure of a try, now for good: with what is asked for when that is too long a wait. */
static mb_status give_up(const mb_fetch_request *q, const mb_fetch_answer *a, mb_status st)
{
    if (st == MB_OK)
        st = mb_fetch_judge(q, a);
    return st;
}

mb_status mb_fetch(mb_fetcher *f, const mb_fetch_request *q, mb_fetch_answer *a)
{
    const int tries = mb_fetcher_options(f)->tries;

    for (int n = 1;; n++) {
        const mb_status st = mb_fetch_once(f, q, a);
        double pause;

        if (st == MB_OK && a->status >= 200 && a->status < 300)
            return MB_OK;
        if (!mb_fetch_may_pass(st, a))
            return st == MB_OK && q->any_status ? MB_OK : give_up(q, a, st);
        pause = mb_fetch_pause(f, a, n);
        if (n >= tries || pause < 0.0) {
            give_up(q, a, st);
            return pause < 0.0 ? mb_status_prefix(mb_status_recorded(),
                                                  "asked to wait for %.0f seconds: ", a->wait)
                               : mb_status_prefix(mb_status_recorded(), "tried %d times: ", n);
        }
        mb_log_debug("%s: %s %d, again in %.1f s", q->what,
                     st != MB_OK ? mb_status_sentence() : "status", a->status, pause);
        mb_status_clear();
        mb_fetch_sleep(pause);
    }
}
