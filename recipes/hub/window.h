/* recipes/hub/window.h - hours of the day in which bytes may be fetched: --at 22:00-06:00. */
#ifndef MB_RECIPES_HUB_WINDOW_H
#define MB_RECIPES_HUB_WINDOW_H

#include <time.h>

#include "core/status.h"

typedef struct mb_window {
    int from, to; /* minutes after local midnight; equal: always open */
} mb_window;

/* "22:00-06:00", which goes over midnight; MB_EARG when it is none. */
mb_status mb_window_read(const char *text, mb_window *out) MB_MUST_USE;
/* Seconds from `now` until it opens; 0: it is open. */
double mb_window_wait(const mb_window *w, time_t now);

#endif
