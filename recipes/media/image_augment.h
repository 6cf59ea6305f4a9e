/* recipes/media/image_augment.h - small changes to training pictures, drawn from the counter RNG.
 *
 * What is drawn depends on the seed, the step and the row's ordinal and on nothing else, so threads,
 * ranks and a resume change no bit. The evaluation gets pictures as they are.
 *
 *     crop resized   a part of `scale` to all of the area, 3/4 to 4/3 as wide as high, resized to the
 *                    model's picture (Szegedy et al. 2015, torchvision's RandomResizedCrop)
 *     crop padded    `padding` black pixels all around, then the model's size cut out anywhere
 *     flip           left to right, with this probability
 *     rotation       by up to this many degrees either way, bilinear, black beyond the edges
 *     jitter         brightness, contrast and saturation times 1 - jitter to 1 + jitter each
 */
#ifndef MB_RECIPES_MEDIA_IMAGE_AUGMENT_H
#define MB_RECIPES_MEDIA_IMAGE_AUGMENT_H

#include <stdint.h>

#include "core/status.h"

typedef enum mb_crop { MB_CROP_NO, MB_CROP_RESIZED, MB_CROP_PADDED } mb_crop;

typedef struct mb_augment {
    mb_crop crop;
    double scale;
    int64_t padding;
    double flip, rotation, jitter;
} mb_augment;

/* Whose numbers: of which run, step and row. */
typedef struct mb_draws {
    uint64_t seed;
    uint32_t step, ordinal;
} mb_draws;

bool mb_augment_is_any(const mb_augment *a);

typedef struct mb_region {
    int64_t top, left, height, width;
} mb_region;
/* The part of a height x width picture that crop resized keeps. */
mb_region mb_augment_region(const mb_augment *a, const mb_draws *d, int64_t height, int64_t width);
/* Everything but crop resized, on (height, width, 3) bytes in place; `work`: as many bytes. */
void mb_augment_pixels(const mb_augment *a, const mb_draws *d, int64_t height, int64_t width,
                       uint8_t *pixels, uint8_t *work);

#endif
