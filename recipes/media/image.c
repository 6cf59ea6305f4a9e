/* recipes/media/image.c - see recipes/media/image.h. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/media/image_inside.h"

mb_status mb_image_begin(mb_image *im, int64_t width, int64_t height, const char *name)
{
    MB_REQUIRE(width > 0 && height > 0, MB_EDATA, "%s: the picture has %lld by %lld pixels", name,
               (long long)width, (long long)height);
    MB_REQUIRE(width <= MB_IMAGE_MAX_PIXELS / height, MB_EDATA,
               "%s: the picture has %lld by %lld pixels; up to %lld in all are read", name,
               (long long)width, (long long)height, (long long)MB_IMAGE_MAX_PIXELS);
    im->width = width;
    im->height = height;
    return mb_grow((void **)&im->pixels, &im->capacity, (size_t)(width * height * 3), 1,
                   "a picture");
}

mb_status mb_image_reserve(mb_image *im, int64_t bytes, int64_t width, int64_t height,
                           mb_alpha alpha)
{
    const int64_t pixels = width * height, side = width > height ? width : height;

    MB_TRY(mb_grow((void **)&im->line, &im->line_capacity, (size_t)side, sizeof *im->line,
                   "a picture's lines"));
    MB_TRY(mb_grow((void **)&im->wide, &im->wide_capacity,
                   (size_t)(alpha == MB_ALPHA_WHITE ? pixels : side) * 4, 1, "a picture"));
    MB_TRY(mb_grow((void **)&im->file, &im->file_capacity, (size_t)bytes, 1, "a picture's file"));
    MB_TRY(mb_grow((void **)&im->pixels, &im->capacity, (size_t)pixels * 3, 1, "a picture"));
    return mb_grow((void **)&im->turned, &im->turned_capacity, (size_t)pixels * 3, 1, "a picture");
}

/* libjpeg keeps two bytes a coefficient of a progressive picture, libpng a few lines. */
int64_t mb_image_library_bytes(int64_t pixels)
{
    return 6 * pixels + (1 << 20);
}

void mb_image_release(mb_image *im)
{
    mb_free(im->pixels);
    mb_free(im->turned);
    mb_free(im->file);
    mb_free(im->line);
    mb_free(im->wide);
    *im = (mb_image){0};
}

/* ---- EXIF --------------------------------------------------------------------------------- */

static uint32_t number(const uint8_t *p, int bytes, bool little)
{
    uint32_t v = 0;

    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)p[i] << 8 * (little ? i : bytes - 1 - i);
    return v;
}

/* The first directory of the TIFF structure that EXIF is; tag 274 holds one short number. */
int mb_exif_orientation(const uint8_t *exif, size_t n)
{
    if (n > 6 && memcmp(exif, "Exif\0\0", 6) == 0) {
        exif += 6;
        n -= 6;
    }
    if (n < 8 || (memcmp(exif, "II*\0", 4) != 0 && memcmp(exif, "MM\0*", 4) != 0))
        return 1;
    const bool little = exif[0] == 'I';
    const size_t at = number(exif + 4, 4, little);
    if (at > n - 2)
        return 1;
    const size_t entries = number(exif + at, 2, little);
    for (size_t i = 0; i < entries && at + 2 + (i + 1) * 12 <= n; i++) {
        const uint8_t *e = exif + at + 2 + i * 12;
        if (number(e, 2, little) != 274 || number(e + 2, 2, little) != 3)
            continue;
        const uint32_t v = number(e + 8, 2, little);
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

/* Where pixel (x, y) of a shown picture of w by h comes from, by orientation:
 *     1 as it is   2 mirrored   3 upside down   4 both flipped vertically
 *     5 transposed 6 clockwise  7 transversed   8 anticlockwise */
static int64_t source(int orientation, int64_t x, int64_t y, int64_t w, int64_t h)
{
    switch (orientation) {
    case 2:
        return y * w + (w - 1 - x);
    case 3:
        return (h - 1 - y) * w + (w - 1 - x);
    case 4:
        return (h - 1 - y) * w + x;
    case 5:
        return x * h + y;
    case 6:
        return (w - 1 - x) * h + y;
    case 7:
        return (w - 1 - x) * h + (h - 1 - y);
    case 8:
        return x * h + (h - 1 - y);
    default:
        return y * w + x;
    }
}

static mb_status turn(mb_image *im, int orientation)
{
    const bool sideways = orientation >= 5;
    const int64_t w = sideways ? im->height : im->width, h = sideways ? im->width : im->height;

    if (orientation == 1)
        return MB_OK;
    MB_TRY(mb_grow((void **)&im->turned, &im->turned_capacity, (size_t)(w * h * 3), 1,
                   "a turned picture"));
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++)
            memcpy(im->turned + (y * w + x) * 3, im->pixels + source(orientation, x, y, w, h) * 3,
                   3);
    uint8_t *const pixels = im->pixels;
    const size_t capacity = im->capacity;
    im->pixels = im->turned;
    im->capacity = im->turned_capacity;
    im->turned = pixels;
    im->turned_capacity = capacity;
    im->width = w;
    im->height = h;
    return MB_OK;
}

/* ---- files -------------------------------------------------------------------------------- */

mb_status mb_image_decode(const void *bytes, size_t n, const char *name, mb_alpha alpha,
                          mb_image *im)
{
    const uint8_t *b = bytes;
    int orientation = 1;

    if (n >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0)
        MB_TRY(mb_png_decode(b, n, name, alpha, im, &orientation));
    else if (n >= 3 && memcmp(b, "\xff\xd8\xff", 3) == 0)
        MB_TRY(mb_jpeg_decode(b, n, name, im, &orientation));
    else
        return MB_RAISE(MB_EDATA, "%s: %s", name,
                        n == 0 ? "the file is empty" : "this is neither a PNG nor a JPEG picture");
    return turn(im, orientation);
}

mb_status mb_image_read(const char *path, mb_alpha alpha, mb_image *im, int64_t *bytes)
{
    int64_t n;
    mb_status st;
    int fd;

    MB_TRY(mb_file_open(path, MB_EDATA, &fd, &n));
    st = n <= MB_IMAGE_MAX_BYTES
             ? mb_grow((void **)&im->file, &im->file_capacity, (size_t)n, 1, "a picture's file")
             : MB_RAISE(MB_EDATA, "%s: the picture has %lld bytes; up to %lld are read", path,
                        (long long)n, (long long)MB_IMAGE_MAX_BYTES);
    if (st == MB_OK)
        st = mb_pread_all(fd, im->file, (size_t)n, 0, path);
    close(fd);
    MB_TRY(st);
    if (bytes != NULL)
        *bytes = n;
    return mb_image_decode(im->file, (size_t)n, path, alpha, im);
}

bool mb_image_has_ending(const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".jpe"};
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot != NULL && i < sizeof endings / sizeof endings[0]; i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return true;
    return false;
}
