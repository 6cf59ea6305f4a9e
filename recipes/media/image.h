/* recipes/media/image.h - pictures from files: PNG and JPEG to rows of RGB bytes.
 *
 *     mb_image im = {0};
 *     MB_TRY(mb_image_read("leaf.jpg", MB_ALPHA_DROP, &im, NULL));
 *     ... im.pixels: height rows of width * 3 bytes
 *     mb_image_release(&im);
 *
 * What a file says of its size is checked before anything is decoded. The pixels are those PIL gives
 * after ImageOps.exif_transpose and convert("RGB"): turned as EXIF says, grey three times, palettes
 * looked up, CMYK through PIL's formula, of 16 bits the high byte (PIL clips 16-bit grey at 255
 * instead, which leaves nothing of an X-ray). A file that ends early is refused.
 *
 * An mb_image keeps its memory, so decoding into it again allocates only for larger pictures. One
 * image, one thread.
 */
#ifndef MB_RECIPES_MEDIA_IMAGE_H
#define MB_RECIPES_MEDIA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* Limits of a file; a picture beyond them is refused by its header. */
#define MB_IMAGE_MAX_BYTES  ((int64_t)256 << 20)
#define MB_IMAGE_MAX_PIXELS ((int64_t)89478485) /* where PIL warns of decompression bombs */

/* What becomes of transparency: left out (convert("RGB")), or laid on white (what transformers does
 * where a processor says do_convert_rgb). */
typedef enum mb_alpha { MB_ALPHA_DROP, MB_ALPHA_WHITE } mb_alpha;

typedef struct mb_image {
    int64_t width, height; /* as shown, after EXIF's turn */
    uint8_t *pixels;       /* (height, width, 3) */
    size_t capacity;
    uint8_t *turned; /* work: the other buffer when a picture is turned */
    size_t turned_capacity;
    char *file; /* work: the bytes of the file */
    size_t file_capacity;
    uint8_t **line; /* work: of the decoders */
    uint8_t *wide;
    size_t line_capacity, wide_capacity;
} mb_image;

/* Reads and decodes a file; its bytes stay in im->file, *bytes (optional) of them. MB_EDATA begins
 * with its path. */
mb_status mb_image_read(const char *path, mb_alpha alpha, mb_image *im, int64_t *bytes) MB_MUST_USE;
/* The same from n bytes in memory; `name` is for messages. */
mb_status mb_image_decode(const void *bytes, size_t n, const char *name, mb_alpha alpha,
                          mb_image *im) MB_MUST_USE;
/* Room for a file of `bytes` with a picture of this size (as shown), so that reading it allocates
 * nothing but what libpng and libjpeg take themselves. */
mb_status mb_image_reserve(mb_image *im, int64_t bytes, int64_t width, int64_t height,
                           mb_alpha alpha) MB_MUST_USE;
/* What the decoders' own memory may come to for a picture of `pixels`: an estimate for plans. */
int64_t mb_image_library_bytes(int64_t pixels);
void mb_image_release(mb_image *im);

/* Does the name end in .png, .jpg, .jpeg or .jpe, in any case? */
bool mb_image_has_ending(const char *name);

/* Writes rows of RGB bytes as a PNG, whole or not at all. */
mb_status mb_image_write_png(const char *path, int64_t width, int64_t height,
                             const uint8_t *rgb) MB_MUST_USE;

#endif
