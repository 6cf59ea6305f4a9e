/* core/log.c - see core/log.h. */
#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static struct {
    mb_log_level level;
    int rank, size;
    bool asked;
    void (*before)(void);
} state = {.level = MB_LOG_INFO, .size = 1};

static const char *const names[] = {"error", "warn", "info", "debug"};

void mb_log_level_set(mb_log_level level)
{
    state.level = level;
    state.asked = true;
}

void mb_log_rank_set(int rank, int size)
{
    state.rank = rank;
    state.size = size;
}

int mb_log_rank(void)
{
    return state.rank;
}

void mb_log_before_line(void (*hook)(void))
{
    state.before = hook;
}

static void ask_environment(void)
{
    const char *wanted = getenv("MBUYU_LOG");

    state.asked = true;
    for (int i = 0; wanted != NULL && i < 4; i++)
        if (strcasecmp(wanted, names[i]) == 0)
            state.level = (mb_log_level)i;
}

void mb_log(mb_log_level level, const char *fmt, ...)
{
    char line[4096], who[32] = "";
    va_list ap;

    if (!state.asked)
        ask_environment();
    if (level > state.level || (level == MB_LOG_INFO && state.rank != 0))
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (state.size > 1 && level != MB_LOG_INFO)
        snprintf(who, sizeof who, "[rank %d] ", state.rank);
    if (state.before != NULL)
        state.before();
    if (level == MB_LOG_INFO)
        fprintf(stderr, "%s\n", line);
    else
        fprintf(stderr, "%smbuyu: %s: %s\n", who, names[level], line);
}

double mb_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}
