/* recipes/hub/window.c - see recipes/hub/window.h. */
#include "recipes/hub/window.h"

#include <stdio.h>

enum { DAY = 24 * 60 };

mb_status mb_window_read(const char *text, mb_window *out)
{
    int h1, m1, h2, m2, used = 0;

    MB_REQUIRE(sscanf(text, "%2d:%2d-%2d:%2d%n", &h1, &m1, &h2, &m2, &used) == 4 &&
                   text[used] == '\0' && h1 >= 0 && h1 < 24 && m1 >= 0 && m1 < 60 && h2 >= 0 &&
                   h2 <= 24 && m2 >= 0 && m2 < 60 && h2 * 60 + m2 <= DAY,
               MB_EARG, "--at: '%.100s' are no hours; they are written 22:00-06:00", text);
    out->from = h1 * 60 + m1;
    out->to = (h2 * 60 + m2) % DAY;
    return MB_OK;
}

double mb_window_wait(const mb_window *w, time_t now)
{
    struct tm local;
    int at;

    if (w->from == w->to || localtime_r(&now, &local) == NULL)
        return 0.0;
    at = local.tm_hour * 60 + local.tm_min;
    if (w->from < w->to ? at >= w->from && at < w->to : at >= w->from || at < w->to)
        return 0.0;
    return (double)((w->from - at + DAY) % DAY) * 60.0 - (double)local.tm_sec;
}
