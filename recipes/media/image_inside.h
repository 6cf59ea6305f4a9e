/* recipes/media/image_inside.h - what the decoders share; see image.h. */
#ifndef MB_RECIPES_MEDIA_IMAGE_INSIDE_H
#define MB_RECIPES_MEDIA_IMAGE_INSIDE_H

#include "recipes/media/image.h"

/* Is the header's size within the limits? Then makes room for the pixels. */
mb_status mb_image_begin(mb_image *im, int64_t width, int64_t height, const char *name) MB_MUST_USE;
/* EXIF's orientation, 1 to 8; 1 when there is none or it cannot be read. */
int mb_exif_orientation(const uint8_t *exif, size_t n);

/* Decode into im->pixels, unturned; *orientation as EXIF says. */
mb_status mb_png_decode(const uint8_t *bytes, size_t n, const char *name, mb_alpha alpha,
                        mb_image *im, int *orientation) MB_MUST_USE;
mb_status mb_jpeg_decode(const uint8_t *bytes, size_t n, const char *name, mb_image *im,
                         int *orientation) MB_MUST_USE;

#endif
