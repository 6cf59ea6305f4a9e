/* recipes/hub/pull_show.c - how far a pull is: one line that changes on a terminal, a line every half
 * minute elsewhere. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/log.h"
#include "recipes/hub/pull_inside.h"

static const double redraw = 0.5, repeat = 30.0, memory = 8.0; /* seconds */

static struct {
    pthread_mutex_t mutex; /* of the terminal's line: other threads' messages erase it */
    double drawn_at;
    double at, rate; /* bytes a second, of the last seconds */
    int64_t wire;
    bool line; /* something is on the terminal's line */
} shown = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void erase(void)
{
    pthread_mutex_lock(&shown.mutex);
    if (shown.line)
        fputs("\r\033[K", stderr);
    shown.line = false;
    pthread_mutex_unlock(&shown.mutex);
}

void mb_pull_show_begin(void)
{
    shown.at = shown.drawn_at = mb_clock();
    shown.rate = 0.0;
    shown.wire = 0;
    mb_log_debug("fetching begins"); /* which also asks the environment, once for all threads */
    mb_log_before_line(erase);
}

void mb_pull_show_end(void)
{
    erase();
    mb_log_before_line(NULL);
}

static void measure(const mb_pull_run *r, double now)
{
    const int64_t wire = atomic_load(&r->wire);
    const double dt = now - shown.at;

    if (dt <= 0.0)
        return;
    const double keep = dt > memory ? 0.0 : 1.0 - dt / memory;

    shown.rate = keep * shown.rate + (1.0 - keep) * (double)(wire - shown.wire) / dt;
    shown.wire = wire;
    shown.at = now;
}

static void write_line(const mb_pull_run *r, char *line, size_t size)
{
    const int64_t here = atomic_load(&r->here);
    char a[32], b[32], c[32], left[48] = "";

    if (shown.rate > 1.0 && here < r->bytes) {
        const double seconds = (double)(r->bytes - here) / shown.rate;

        if (seconds < 120.0)
            snprintf(left, sizeof left, ", %.0f s left", seconds);
        else if (seconds < 7200.0)
            snprintf(left, sizeof left, ", %.0f min left", seconds / 60.0);
        else
            snprintf(left, sizeof left, ", %.0f h left", seconds / 3600.0);
    }
    snprintf(line, size, "%s: %zu of %zu files, %s of %s (%.0f %%), %s/s%s", r->o->name.id,
             atomic_load(&r->whole), r->n_jobs, mb_hub_size(here, a, sizeof a),
             mb_hub_size(r->bytes, b, sizeof b),
             r->bytes > 0 ? 100.0 * (double)here / (double)r->bytes : 100.0,
             mb_hub_size((int64_t)shown.rate, c, sizeof c), left);
}

void mb_pull_show(const mb_pull_run *r)
{
    const double now = mb_clock();
    const bool terminal = isatty(STDERR_FILENO);
    struct winsize w;
    char line[512];

    if (now - shown.drawn_at < (terminal ? redraw : repeat))
        return;
    measure(r, now);
    shown.drawn_at = now;
    write_line(r, line, sizeof line);
    if (!terminal) {
        mb_log_info("%s", line);
        return;
    }
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 && strlen(line) >= w.ws_col)
        line[w.ws_col - 1] = '\0';
    pthread_mutex_lock(&shown.mutex);
    fprintf(stderr, "\r\033[K%s", line);
    fflush(stderr);
    shown.line = true;
    pthread_mutex_unlock(&shown.mutex);
}
