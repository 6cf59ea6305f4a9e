/* recipes/train/progress.c - a progress bar on a terminal, a line per record everywhere.
 *
 * The bar lives on the last line of the terminal and is erased before any log line and drawn again
 * at the next step, at most ten times a second. NO_COLOR (https://no-color.org) and TERM=dumb are
 * respected. Records go through mb_log_info, so they are what a log file of the job holds.
 */
#include "recipes/train/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/memory.h"

enum { LINE_MAX_BYTES = 1024, BAR_MAX = 40, BAR_MIN = 8 };

void mb_progress_duration(char *out, size_t size, double seconds)
{
    const int64_t s = seconds < 0 ? 0 : (int64_t)fmin(seconds + 0.5, 9e9);

    if (s >= 86400)
        snprintf(out, size, "%" PRId64 "d %02d:%02d", s / 86400, (int)(s % 86400 / 3600),
                 (int)(s % 3600 / 60));
    else if (s >= 3600)
        snprintf(out, size, "%d:%02d:%02d", (int)(s / 3600), (int)(s % 3600 / 60), (int)(s % 60));
    else
        snprintf(out, size, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

/* Appends; what does not fit whole is left away. */
static void append(char *out, size_t size, const char *text)
{
    const size_t used = strlen(out), n = strlen(text);

    if (used + n < size)
        memcpy(out + used, text, n + 1);
}

static int facts(char fact[8][40], const mb_progress *p, double eta, int64_t memory)
{
    char text[24];
    int n = 0;

    if (!isnan(p->loss))
        snprintf(fact[n++], 40, "loss %.3f", p->loss);
    if (!isnan(p->learning_rate))
        snprintf(fact[n++], 40, "lr %.1e", p->learning_rate);
    if (!isnan(p->tokens_per_second))
        snprintf(fact[n++], 40, "%.0f tok/s", p->tokens_per_second);
    if (eta >= 0) {
        mb_progress_duration(text, sizeof text, eta);
        snprintf(fact[n++], 40, "ETA %s", text);
    }
    if (memory >= 0)
        snprintf(fact[n++], 40, "%.1f GB", (double)memory * 1e-9);
    return n;
}

static void append_bar(char *out, size_t size, double share, int cells,
                       const mb_progress_style *style)
{
    const int full = (int)(share * cells);

    append(out, size, " ");
    append(out, size, style->colour ? "\033[32m" : "");
    for (int i = 0; i < full; i++)
        append(out, size, style->utf8 ? "\u2501" : "#");
    append(out, size, style->colour ? "\033[2;37m" : "");
    for (int i = full; i < cells; i++)
        append(out, size, style->utf8 ? "\u2500" : ".");
    append(out, size, style->colour ? "\033[0m" : "");
}

int mb_progress_line(char *out, size_t size, const mb_progress *p, double eta, int64_t memory,
                     const mb_progress_style *style)
{
    const double raw = p->total > 0 ? (double)p->step / (double)p->total : 0.0;
    const double share = fmin(fmax(raw, 0.0), 1.0);
    char fact[8][40], head[64];
    int n = facts(fact, p, eta, memory), columns, room;

    snprintf(head, sizeof head, "%" PRId64 "/%" PRId64 " %3.0f%%", p->step, p->total,
             floor(100.0 * share));
    columns = (int)strlen(head);
    for (int i = 0; i < n; i++) {
        const int wide = 2 + (int)strlen(fact[i]);

        if (columns + wide > style->width) {
            n = i;
            break;
        }
        columns += wide;
    }
    out[0] = '\0';
    if (columns > style->width)
        return 0;
    append(out, size, head);
    room = style->width - columns - 1;
    room = room > BAR_MAX ? BAR_MAX : room;
    if (room >= BAR_MIN) {
        append_bar(out, size, share, room, style);
        columns += 1 + room;
    }
    for (int i = 0; i < n; i++) {
        append(out, size, "  ");
        append(out, size, fact[i]);
    }
    return columns;
}

/* What a log file keeps and a line on a screen can do without. */
static bool for_files_only(const char *name)
{
    static const char *const names[] = {"num_tokens", "num_trained_tokens", "step_time",
                                        "num_memory_bytes", "eval_runtime"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

void mb_progress_record(char *out, size_t size, const mb_metrics *m, int64_t total)
{
    char part[96];

    snprintf(out, size, "step %" PRId64, m->step);
    if (total > 0) {
        snprintf(part, sizeof part, "/%" PRId64, total);
        append(out, size, part);
    }
    snprintf(part, sizeof part, "  epoch %.2f", m->epoch);
    append(out, size, part);
    for (int i = 0; i < m->n; i++) {
        const double v = m->item[i].value;
        if (m->item[i].of_group || for_files_only(m->item[i].name))
            continue;
        const bool tiny = v != 0.0 && fabs(v) < 1e-3, large = fabs(v) >= 1e3;

        snprintf(part, sizeof part,
                 tiny    ? "  %s %.2e"
                 : large ? "  %s %.0f"
                         : "  %s %.4g",
                 m->item[i].name, v);
        append(out, size, part);
    }
}

struct bar {
    int fd;     /* -1: no bar, lines only */
    bool drawn; /* the bar is on the screen now */
    bool colour, utf8;
    int64_t first_step, total;
    double started, drawn_at;
};

/* The hook of core/log.h takes no argument; there is one terminal and one bar on it. */
static struct bar *on_screen;

static void erase(void)
{
    if (on_screen == NULL || !on_screen->drawn)
        return;
    on_screen->drawn = false;
    if (write(on_screen->fd, "\r\033[K", 4) != 4)
        on_screen->fd = -1; /* the terminal went away; the run does not */
}

static bool environment_has(const char *name, const char *part)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' && (part == NULL || strstr(value, part) != NULL);
}

/* Whether the terminal's characters are UTF-8: the first of these that is set decides. */
static bool utf8_terminal(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

    for (int i = 0; i < 3; i++)
        if (environment_has(names[i], NULL))
            return environment_has(names[i], "UTF-8") || environment_has(names[i], "utf8");
    return false;
}

static int terminal_width(int fd)
{
    struct winsize w;

    if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        return w.ws_col - 1; /* the last column would wrap on some terminals */

    const char *columns = getenv("COLUMNS");
    const int n = columns != NULL ? (int)strtol(columns, NULL, 10) : 0;

    return n > 1 ? n - 1 : 79;
}

static mb_status bar_open(const mb_metric_run *run, void **state)
{
    struct bar *b;

    MB_TRY(MB_NEW(&b));
    b->fd = run->terminal >= 0 && isatty(run->terminal) && !environment_has("TERM", "dumb")
                ? run->terminal
                : -1;
    b->colour = !environment_has("NO_COLOR", NULL);
    b->utf8 = utf8_terminal();
    b->first_step = run->resume_step;
    b->total = run->max_steps;
    b->started = mb_clock();
    if (b->fd >= 0) {
        on_screen = b;
        mb_log_before_line(erase);
    }
    *state = b;
    return MB_OK;
}

static mb_status bar_log(void *state, const mb_metrics *m)
{
    const struct bar *b = state;
    char line[LINE_MAX_BYTES];

    if (mb_metrics_get(m, "train_runtime") != NULL)
        return MB_OK; /* the run's own last words say that */
    mb_progress_record(line, sizeof line, m, b->total);
    mb_log_info("%s", line);
    return MB_OK;
}

static void bar_progress(void *state, const mb_progress *p)
{
    struct bar *b = state;
    const double now = mb_clock();
    const int64_t done = p->step - b->first_step;
    char line[LINE_MAX_BYTES + 8] = "\r\033[K";
    double eta = -1.0;

    if (b->fd < 0 || (b->drawn && p->step < p->total && now - b->drawn_at < 0.1))
        return;
    if (done > 0 && p->total >= p->step)
        eta = (now - b->started) / (double)done * (double)(p->total - p->step);

    const mb_progress_style style = {terminal_width(b->fd), b->colour, b->utf8};

    mb_progress_line(line + 4, sizeof line - 4, p, eta, mb_memory_own(), &style);
    b->drawn = true;
    b->drawn_at = now;
    if (write(b->fd, line, strlen(line)) < 0)
        b->fd = -1;
}

static mb_status bar_close(void *state)
{
    erase();
    if (on_screen == state) {
        mb_log_before_line(NULL);
        on_screen = NULL;
    }
    mb_free(state);
    return MB_OK;
}

const mb_sink_kind mb_sink_progress = {
    .name = "progress",
    .always = true,
    .open = bar_open,
    .log = bar_log,
    .progress = bar_progress,
    .close = bar_close,
};
