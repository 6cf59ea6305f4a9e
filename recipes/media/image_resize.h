/* recipes/media/image_resize.h - resampling of RGB bytes as PIL and torchvision do it.
 *
 * Two passes, columns and then lines, each a weighted sum of the pixels under a filter that widens
 * when the picture shrinks; the result of each pass is rounded to a byte. Weights are whole numbers:
 * of 22 bits after the point in PIL (libImaging/Resample.c), of as many as fit 16 bits in torchvision
 * (ATen's antialiased upsampling of bytes), so the two differ by one in some pixels. A side that stays
 * as long as it is, is not resampled.
 */
#ifndef MB_RECIPES_MEDIA_IMAGE_RESIZE_H
#define MB_RECIPES_MEDIA_IMAGE_RESIZE_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* PIL's numbers, as in preprocessor_config.json. */
typedef enum mb_resample {
    MB_RESAMPLE_NEAREST,
    MB_RESAMPLE_LANCZOS,
    MB_RESAMPLE_BILINEAR,
    MB_RESAMPLE_BICUBIC,
    MB_RESAMPLE_BOX,
    MB_RESAMPLE_HAMMING,
    MB_RESAMPLE_COUNT
} mb_resample;

typedef enum mb_resize_way { MB_RESIZE_TORCHVISION, MB_RESIZE_PIL } mb_resize_way;

/* Work memory, kept from call to call; zero it first. One thread at a time. */
typedef struct mb_resizer {
    double *exact;
    int32_t *weight;
    int64_t *first, *count;
    uint8_t *between;
    size_t exact_capacity, weight_capacity, first_capacity, count_capacity, between_capacity;
} mb_resizer;

/* from: height lines, `stride` pixels apart, of width pixels; to: (to_height, to_width, 3), all
 * sides at least 1. */
mb_status mb_resize(mb_resizer *r, mb_resample how, mb_resize_way way, const uint8_t *from,
                    int64_t height, int64_t width, int64_t stride, uint8_t *to, int64_t to_height,
                    int64_t to_width) MB_MUST_USE;
/* Room for a picture of this size, or parts of it, whatever the way. */
mb_status mb_resizer_reserve(mb_resizer *r, mb_resample how, int64_t height, int64_t width,
                             int64_t to_height, int64_t to_width) MB_MUST_USE;
void mb_resizer_release(mb_resizer *r);

#endif
