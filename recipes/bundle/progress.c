/* recipes/bundle/progress.c - see recipes/bundle/progress.h. */
#include "recipes/bundle/progress.h"

#include "core/log.h"

static const double SECONDS_BETWEEN = 3;

mb_progress mb_progress_begin(const char *what, int64_t total)
{
    const double now = mb_clock();

    return (mb_progress){what, total, 0, now, now};
}

void mb_progress_add(mb_progress *p, int64_t bytes)
{
    const double now = mb_clock();

    p->done += bytes;
    if (now - p->said < SECONDS_BETWEEN)
        return;
    p->said = now;
    const double rate = (double)p->done / (now - p->begun);
    mb_log_info("%s: %.1f of %.1f MB, %.0f MB/s, %.0f s left", p->what, (double)p->done / 1e6,
                (double)p->total / 1e6, rate / 1e6,
                rate > 0 ? (double)(p->total - p->done) / rate : 0);
}
