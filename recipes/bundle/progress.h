/* recipes/bundle/progress.h - a line every few seconds on how far long work is:
 *
 *     mb_progress p = mb_progress_begin("packing", bytes_in_all);
 *     mb_progress_add(&p, n);          // and again
 */
#ifndef MB_RECIPES_BUNDLE_PROGRESS_H
#define MB_RECIPES_BUNDLE_PROGRESS_H

#include <stdint.h>

typedef struct mb_progress {
    const char *what;
    int64_t total, done;
    double begun, said;
} mb_progress;

mb_progress mb_progress_begin(const char *what, int64_t total);
void mb_progress_add(mb_progress *p, int64_t bytes);

#endif
