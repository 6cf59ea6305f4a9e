/* recipes/media/image_processor.h - from a decoded picture to the numbers a model sees, as the
 * processor of transformers does it that preprocessor_config.json describes.
 *
 *     resize (size, resample) -> centre crop (crop_size) -> times rescale_factor -> (x - mean) / std
 *
 * each when its do_ flag says so. A training picture is augmented between cropping and rescaling.
 */
#ifndef MB_RECIPES_MEDIA_IMAGE_PROCESSOR_H
#define MB_RECIPES_MEDIA_IMAGE_PROCESSOR_H

#include "core/json.h"
#include "recipes/media/image.h"
#include "recipes/media/image_augment.h"
#include "recipes/media/image_resize.h"

typedef struct mb_image_processor {
    bool do_resize, do_center_crop, do_rescale, do_normalize;
    mb_alpha alpha;                       /* do_convert_rgb lays pictures on white */
    int64_t height, width, shortest_edge; /* of size: both, or the last */
    int64_t crop_height, crop_width;
    mb_resample resample;
    mb_resize_way way;
    double rescale_factor, mean[3], std[3];
    int64_t channels; /* 3: RGB; 1: grey by PIL's convert("L") */
} mb_image_processor;

/* Work memory of one thread; zero it first. */
typedef struct mb_image_work {
    mb_image image;
    mb_resizer resizer;
    uint8_t *fitted, *spare;
    size_t fitted_capacity, spare_capacity;
} mb_image_work;
void mb_image_work_release(mb_image_work *w);
/* Room for a file of `bytes` whose picture has this size. MB_EDATA: it would become too large. */
mb_status mb_image_work_reserve(const struct mb_image_processor *p, mb_image_work *w, int64_t bytes,
                                int64_t width, int64_t height) MB_MUST_USE;

/* What ViTImageProcessor does when nobody tells it otherwise, for pictures of this size. */
mb_image_processor mb_image_processor_for(int64_t height, int64_t width, int64_t channels);
/* Of a folder's preprocessor_config.json, when there is one, else as above. MB_EMODEL names the key;
 * also when what comes out is not height x width. */
mb_status mb_image_processor_read(const char *folder, int64_t height, int64_t width,
                                  int64_t channels, mb_image_processor *out) MB_MUST_USE;
/* Writes preprocessor_config.json: the base folder's own file where there is one (base may be NULL).
 * `type`: "ViTImageProcessor". */
mb_status mb_image_processor_write(const mb_image_processor *p, const char *type, const char *base,
                                   const char *folder) MB_MUST_USE;
/* Height and width of what comes out for a picture of this size. */
void mb_image_processor_size(const mb_image_processor *p, int64_t height, int64_t width,
                             int64_t *to_height, int64_t *to_width);

/* w->image as planes (channels, height, width). `augment` NULL: as it is. */
mb_status mb_image_process(const mb_image_processor *p, mb_image_work *w, const mb_augment *augment,
                           const mb_draws *draws, float *planes) MB_MUST_USE;

#endif
