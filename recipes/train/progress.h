/* recipes/train/progress.h - the text of the progress line. The sink that draws it is in
 * progress.c; this is apart so that it can be tested without a terminal. */
#ifndef MB_RECIPES_TRAIN_PROGRESS_H
#define MB_RECIPES_TRAIN_PROGRESS_H

#include "recipes/train/metrics.h"

typedef struct mb_progress_style {
    int width; /* columns of the terminal */
    bool colour, utf8;
} mb_progress_style;

/* One line of at most `width` columns, without a newline:
 *
 *     120/368  33% ########............ loss 3.214  lr 1.9e-04  1234 tok/s  ETA 3:12  1.2 GB
 *
 * What does not fit is left out from the right; the bar shrinks first. eta in seconds and memory in
 * bytes are left out when negative. Returns the number of columns. */
int mb_progress_line(char *out, size_t size, const mb_progress *p, double eta, int64_t memory,
                     const mb_progress_style *style);

/* "3:12", "1:02:03", "2d 03:04" */
void mb_progress_duration(char *out, size_t size, double seconds);

/* The plain form of a record: "step 120/368  epoch 0.65  loss 3.214  ..."; `total` 0: not shown. */
void mb_progress_record(char *out, size_t size, const mb_metrics *m, int64_t total);

#endif
