/* recipes/metrics/picture.h - a confusion matrix to look at.
 *
 * Labels down, predictions across; a cell is the darker the larger its share of the label's rows, and
 * holds its count. Letters that the small font lacks are boxes: the names are in the tables.
 */
#ifndef MB_RECIPES_METRICS_PICTURE_H
#define MB_RECIPES_METRICS_PICTURE_H

#include "recipes/metrics/classes.h"

enum { MB_PICTURE_NUMBERS = 60 }; /* with more classes, cells are small and hold no counts */

/* Where the matrix is in the picture, in pixels. */
typedef struct mb_picture_grid {
    int64_t left, top, cell, width, height;
} mb_picture_grid;
mb_picture_grid mb_confusion_grid(const mb_classes *c);
/* The colour of a cell that holds this share of its label's rows. */
void mb_confusion_colour(double share, uint8_t rgb[3]);

/* Writes a PNG, whole or not at all. MB_ENOTSUP: more than MB_CONFUSION_MAX classes. */
mb_status mb_confusion_picture(const mb_classes *c, const char *path) MB_MUST_USE;

#endif
