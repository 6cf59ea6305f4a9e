/* recipes/hub/pull_file.c - one file, from the byte on that is here, until it is whole and right; see
 * recipes/hub/pull.h.
 *
 * A try that brought bytes costs nothing, however it ended: a link that is cut every 200 kB finishes.
 * Tries that bring none are counted, with growing pauses, over all addresses. A server that ignores
 * ranges, or answers with another range than asked for, sends the file from its start; what is here
 * already is then passed over. Bytes that are wrong in the end are fetched once more, whole.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/fetch_inside.h"
#include "recipes/hub/part.h"
#include "recipes/hub/pull_inside.h"

enum { MUCH = 64 << 10 }; /* bytes that make it worth asking again at once */

struct fetching {
    mb_pull_run *r;
    const mb_hub_file *f;
    mb_part *part;
    char what[600];
    size_t base;
    unsigned bad;  /* bases that have no hope, as bits */
    bool alone;    /* the whole was wrong once: from now on from one address alone */
    int failures;  /* in a row, without a byte */
    bool no_range; /* the server's ranges are not to be trusted */
    bool full;     /* it wanted to send more than announced */
    bool waits;    /* stopped because the hours are over, or another file failed */
    int64_t skip;  /* bytes to come that are here */
    mb_status st;  /* of the first base without hope */
    char sentence[1500];
};

/* ---- an answer as it comes ----------------------------------------------------------------- */

static bool is_encoded(const mb_fetch_answer *a)
{
    char coding[64];

    return mb_fetch_head(a, "content-encoding", coding, sizeof coding) && coding[0] != '\0' &&
           strcasecmp(coding, "identity") != 0;
}

static mb_status begin_range(struct fetching *g, const mb_fetch_answer *a)
{
    const int64_t have = mb_part_have(g->part);
    char range[128];
    long long from = -1, to = -1, all = -1;
    int n = 0;

    if (mb_fetch_head(a, "content-range", range, sizeof range))
        n = sscanf(range, "bytes %lld-%lld/%lld", &from, &to, &all);
    if (n < 2 || from < 0 || from > have || to < from || to >= g->f->size ||
        (n == 3 && all != g->f->size) || is_encoded(a)) {
        g->no_range = true;
        return MB_RAISE(MB_ENET, "%s: bytes %lld-%lld were asked for, %s answered with '%s'",
                        g->what, (long long)have, (long long)g->f->size - 1, a->url,
                        n > 0 ? range : "no range");
    }
    g->skip = have - from;
    return MB_OK;
}

static bool is_named_page(const char *path)
{
    return mb_path_has_suffix(path, ".html") || mb_path_has_suffix(path, ".htm");
}

static mb_status begin(void *arg, const mb_fetch_answer *a)
{
    struct fetching *g = arg;
    const bool other_size = a->length >= 0 && a->length != g->f->size && !is_encoded(a);

    if (a->status == 206)
        return begin_range(g, a);
    MB_REQUIRE(
        !mb_fetch_is_page(a, "", 0) || a->length == g->f->size ||
            (is_named_page(g->f->path) && !other_size),
        MB_EDATA,
        "%s: %s answered with a page for people, not with the file: probably the login page of "
        "this network, not the hub",
        g->what, a->url);
    MB_REQUIRE(a->status == 200, MB_ENET, "%s: %s answered %d to a request for a file", g->what,
               a->url, a->status);
    MB_REQUIRE(!other_size, MB_EDATA, "%s: %s has %lld bytes, the listing says %lld", g->what,
               a->url, (long long)a->length, (long long)g->f->size);
    g->skip = mb_part_have(g->part);
    return MB_OK;
}

static mb_status take(void *arg, const void *data, size_t n)
{
    struct fetching *g = arg;
    const char *from = data;
    int64_t left = g->f->size - mb_part_have(g->part);

    atomic_fetch_add(&g->r->wire, (int64_t)n);
    if (atomic_load(&g->r->stop) || mb_window_wait(&g->r->o->window, time(NULL)) > 0.0) {
        g->waits = true;
        return MB_RAISE(MB_ENET, "%s: stopped", g->what);
    }
    if (g->skip > 0) {
        const size_t now = (int64_t)n < g->skip ? n : (size_t)g->skip;

        g->skip -= (int64_t)now;
        from += now;
        n -= now;
    }
    g->full = (int64_t)n > left;
    if (g->full)
        n = (size_t)left;
    MB_TRY(mb_part_add(g->part, from, n));
    atomic_fetch_add(&g->r->here, (int64_t)n);
    if (g->full)
        return MB_RAISE(MB_ENET, "%s: more bytes than the %lld of the listing", g->what,
                        (long long)g->f->size);
    return MB_OK;
}

static mb_status ask(struct fetching *g, mb_fetch_answer *a)
{
    const int64_t have = mb_part_have(g->part);
    const mb_fetch_sink sink = {.begin = begin, .write = take, .arg = g};
    char path[3 * 1024 + 4], url[MB_HUB_URL_MAX], range[64];
    const char *heads[] = {NULL, NULL};
    const mb_fetch_request q = {
        .url = url, .what = g->what, .heads = heads, .sink = &sink, .plain = true};

    MB_TRY(mb_fetch_escape(g->f->path, true, path, sizeof path));
    MB_REQUIRE(snprintf(url, sizeof url, "%s/%s%s/resolve/%s/%s", g->r->base[g->base],
                        mb_hub_prefix(&g->r->o->name), g->r->o->name.id, g->r->listing.commit,
                        path) < (int)sizeof url,
               MB_EARG, "%s: an address too long", g->what);
    snprintf(range, sizeof range, "Range: bytes=%lld-", (long long)have);
    if (have > 0 && !g->no_range)
        heads[0] = range;
    g->skip = 0;
    g->full = g->waits = false;
    return mb_fetch_once(g->r->hub->fetcher, &q, a);
}

/* ---- what became of it --------------------------------------------------------------------- */

/* Sleeps, unless the pull stops. */
static void rest(const mb_pull_run *r, double seconds)
{
    const double until = mb_clock() + seconds;

    while (!atomic_load(&r->stop) && mb_clock() < until)
        mb_fetch_sleep(until - mb_clock() < 0.1 ? until - mb_clock() : 0.1);
}

static void wait_for_hours(const struct fetching *g)
{
    double wait;

    while (!atomic_load(&g->r->stop) && (wait = mb_window_wait(&g->r->o->window, time(NULL))) > 0.0)
        rest(g->r, wait < 5.0 ? wait : 5.0);
}

/* To the next address that is not without hope; false: there is none. */
static mb_status next_base(struct fetching *g, bool *found)
{
    const size_t before = g->base;

    *found = false;
    for (size_t i = 1; i <= g->r->n_bases && !*found; i++) {
        g->base = (before + i) % g->r->n_bases;
        *found = (g->bad & (1u << g->base)) == 0;
    }
    if (!g->alone || g->base == before)
        return MB_OK;
    atomic_fetch_sub(&g->r->here, mb_part_have(g->part));
    return mb_part_restart(g->part);
}

/* This address will not do; the failure of the first such is the one to tell. */
static mb_status give_up_base(struct fetching *g, mb_status st)
{
    bool found;

    if (g->st == MB_OK) {
        g->st = st;
        snprintf(g->sentence, sizeof g->sentence, "%s", mb_status_sentence());
    }
    mb_status_clear();
    g->bad |= 1u << g->base;
    MB_TRY(next_base(g, &found));
    if (found)
        return MB_OK;
    mb_status_set(g->st, g->sentence);
    return g->st;
}

/* All bytes are here: are they right? If not, they are fetched once more, whole and from one address;
 * the address they are wrong from then will not do. */
static mb_status check(struct fetching *g, bool *right)
{
    char found[65];
    bool other;

    MB_TRY(mb_part_check(g->part, right, found));
    if (*right)
        return MB_OK;
    atomic_fetch_sub(&g->r->here, mb_part_have(g->part));
    MB_TRY(mb_part_restart(g->part));
    if (g->alone)
        return give_up_base(
            g, MB_RAISE(
                   MB_EDATA,
                   "%s: fetched twice, and both times wrong: its digest is %s, the listing says %s",
                   g->what, found, g->f->digest));
    mb_log_warn("%s came with digest %s, the listing says %s; it is fetched once more", g->what,
                found, g->f->digest);
    g->alone = g->no_range = true;
    return next_base(g, &other);
}

/* An address that a redirect led to, whose signature is over: the hub gives another. */
static bool is_expired(const mb_fetch_answer *a)
{
    return a->redirects > 0 &&
           (a->status == 400 || a->status == 401 || a->status == 403 || a->status == 410);
}

/* No byte came. */
static mb_status count_failure(struct fetching *g, mb_status st, const mb_fetch_answer *a)
{
    const int most = mb_fetcher_options(g->r->hub->fetcher)->tries * (int)g->r->n_bases;
    const mb_fetch_request q = {.what = g->what};
    const double pause = mb_fetch_pause(g->r->hub->fetcher, a, ++g->failures);
    bool other;

    if (g->failures < most && pause >= 0.0) {
        mb_log_debug("%s: %s %d, again in %.1f s", g->what,
                     st != MB_OK ? mb_status_sentence() : "status", a->status, pause);
        mb_status_clear();
        MB_TRY(next_base(g, &other));
        rest(g->r, pause);
        return MB_OK;
    }
    if (st == MB_OK)
        st = mb_fetch_judge(&q, a);
    if (st == MB_OK)
        st = MB_RAISE(MB_ENET, "%s: %s ends after %lld bytes, the listing says %lld", g->what,
                      a->url, (long long)mb_part_have(g->part), (long long)g->f->size);
    return pause < 0.0 ? mb_status_prefix(st, "asked to wait for %.0f seconds: ", a->wait)
                       : mb_status_prefix(st, "tried %d times: ", g->failures);
}

/* 416: either the server's file is shorter, or it will not start in the middle. */
static mb_status no_such_range(struct fetching *g, const mb_fetch_answer *a)
{
    char range[64];
    long long size;

    g->no_range = true;
    if (mb_fetch_head(a, "content-range", range, sizeof range) &&
        sscanf(range, "bytes */%lld", &size) == 1 && size != g->f->size)
        return give_up_base(g, MB_RAISE(MB_EDATA, "%s: %s has %lld bytes, the listing says %lld",
                                        g->what, a->url, size, (long long)g->f->size));
    return count_failure(g, MB_OK, a);
}

static mb_status judge(struct fetching *g, mb_status st, const mb_fetch_answer *a, int64_t got)
{
    const mb_fetch_request q = {.what = g->what};

    if (g->waits || g->full) {
        mb_status_clear();
        return MB_OK;
    }
    if (st != MB_OK && st != MB_ENET && st != MB_EDATA && st != MB_EDENIED)
        return st; /* not the network's fault */
    if (got > 0) {
        mb_log_debug("%s: %s; %lld bytes came", g->what,
                     st != MB_OK ? mb_status_sentence() : "ended", (long long)got);
        mb_status_clear();
        g->failures = 0;
        rest(g->r, got >= MUCH ? 0.0 : mb_fetcher_options(g->r->hub->fetcher)->first_pause);
        return MB_OK;
    }
    if (st == MB_OK && a->status == 416)
        return no_such_range(g, a);
    if (mb_fetch_may_pass(st, a) || (st == MB_OK && (is_expired(a) || a->status / 100 == 2)))
        return count_failure(g, st, a);
    return give_up_base(g, st != MB_OK ? st : mb_fetch_judge(&q, a));
}

/* *right: the file is whole; false: another one failed. */
static mb_status fetch_all(struct fetching *g, bool *right)
{
    *right = false;
    for (;;) {
        const int64_t before = mb_part_have(g->part);
        mb_fetch_answer a = {0};
        mb_status st;

        if (before == g->f->size) {
            MB_TRY(check(g, right));
            if (*right)
                return MB_OK;
            continue;
        }
        wait_for_hours(g);
        if (atomic_load(&g->r->stop))
            return MB_OK;
        st = ask(g, &a);
        if (mb_part_have(g->part) < g->f->size)
            st = judge(g, st, &a, mb_part_have(g->part) - before);
        else if (st == MB_ENET) {
            mb_status_clear();
            st = MB_OK; /* how it ended does not matter */
        }
        mb_fetch_answer_release(&a);
        MB_TRY(st);
    }
}

mb_status mb_pull_file(mb_pull_run *r, const mb_pull_job *j)
{
    struct fetching g = {.r = r, .f = j->file, .base = atomic_load(&r->base_at)};
    char base[MB_PATH_MAX], whole[MB_PATH_MAX], url[MB_HUB_URL_MAX];
    bool right;
    mb_status st;

    snprintf(g.what, sizeof g.what, "%s: %.350s", r->o->name.id, j->file->path);
    snprintf(url, sizeof url, "%s/%s%s/resolve/%s", r->base[0], mb_hub_prefix(&r->o->name),
             r->o->name.id, r->listing.commit);
    MB_TRY(mb_place_part(&r->place, j->file, base));
    MB_TRY(mb_place_whole(&r->place, j->file, whole));
    MB_TRY(mb_lock_beat(&r->lock));
    MB_TRY(mb_part_open(base, j->file->size, j->file->digest, url, &g.part));
    atomic_fetch_add(&r->here, mb_part_have(g.part));
    MB_TRY_GOTO(fetch_all(&g, &right), st, done);
    if (!right)
        goto done;
    MB_TRY_GOTO(mb_lock_beat(&r->lock), st, done); /* still ours? else the part is all we leave */
    MB_TRY_GOTO(mb_part_publish(g.part, whole), st, done);
    MB_TRY_GOTO(mb_place_name(&r->place, j->file, r->listing.commit), st, done);
    atomic_store(&r->base_at, g.base);
    atomic_fetch_add(&r->whole, 1);
done:
    mb_part_close(g.part);
    return st;
}
