/* recipes/media/image_png.c - PNG through libpng: the only <png.h>. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/media/image_inside.h"

enum { SENTENCE = 160 };

/* What libpng reads from, and what it said when it gave up. */
struct reader {
    const uint8_t *bytes;
    size_t n, at;
    char why[SENTENCE];
};

static void read_some(png_structp png, png_bytep to, size_t n)
{
    struct reader *r = png_get_io_ptr(png);

    if (n > r->n - r->at)
        png_error(png, "the file ends early");
    memcpy(to, r->bytes + r->at, n);
    r->at += n;
}

static void give_up(png_structp png, png_const_charp why)
{
    struct reader *r = png_get_error_ptr(png);

    snprintf(r->why, sizeof r->why, "%s", why);
    png_longjmp(png, 1);
}

static void keep_quiet(png_structp png, png_const_charp why)
{
    (void)png, (void)why; /* e.g. a colour profile that libpng does not like */
}

/* RGBA over white, in PIL's whole numbers. */
static void lay_on_white(uint8_t *to, const uint8_t *from, int64_t pixels)
{
    for (int64_t i = 0; i < pixels; i++, to += 3, from += 4) {
        const uint32_t front = (uint32_t)from[3] << 7, back = (255u << 7) - front;
        for (int c = 0; c < 3; c++) {
            const uint32_t sum = from[c] * front + 255u * back + (0x80u << 7);
            to[c] = (uint8_t)((((sum >> 8) + sum) >> 8) >> 7);
        }
    }
}

/* Everything as RGB, or RGBA where transparency counts, of 8 bits. */
static void as_rgb(png_structp png, png_infop info, bool alpha)
{
    const int type = png_get_color_type(png, info);

    png_set_strip_16(png);
    png_set_packing(png);
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(png);
    if ((type & PNG_COLOR_MASK_COLOR) == 0)
        png_set_gray_to_rgb(png);
    if (type == PNG_COLOR_TYPE_GRAY)
        png_set_expand_gray_1_2_4_to_8(png);
    if (alpha && png_get_valid(png, info, PNG_INFO_tRNS))
        png_set_tRNS_to_alpha(png);
    else if (!alpha)
        png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

/* What outlives a longjmp is in memory of its own. */
struct work {
    png_structp png;
    png_infop info;
    mb_status st;
};

static void decode(struct work *w, const char *name, mb_alpha alpha, mb_image *im, int *orientation)
{
    const bool transparent = alpha == MB_ALPHA_WHITE;
    png_uint_32 exif_bytes = 0;
    png_bytep exif = NULL;

    png_read_info(w->png, w->info);
    const int64_t width = png_get_image_width(w->png, w->info),
                  height = png_get_image_height(w->png, w->info);
    w->st = mb_image_begin(im, width, height, name);
    if (w->st != MB_OK)
        return;
    const bool alpha_there = (png_get_color_type(w->png, w->info) & PNG_COLOR_MASK_ALPHA) != 0 ||
                             png_get_valid(w->png, w->info, PNG_INFO_tRNS) != 0;
    const bool lay = transparent && alpha_there;
    as_rgb(w->png, w->info, lay);
    if (png_get_rowbytes(w->png, w->info) != (size_t)width * (lay ? 4 : 3))
        png_error(w->png, "the rows have another width than the header says");
    w->st = mb_grow((void **)&im->line, &im->line_capacity, (size_t)height, sizeof *im->line,
                    "a picture's lines");
    if (w->st == MB_OK && lay)
        w->st = mb_grow((void **)&im->wide, &im->wide_capacity, (size_t)(width * height * 4), 1,
                        "a picture");
    if (w->st != MB_OK)
        return;
    for (int64_t y = 0; y < height; y++)
        im->line[y] = (lay ? im->wide : im->pixels) + y * width * (lay ? 4 : 3);
    png_read_image(w->png, im->line);
    png_read_end(w->png, w->info);
    if (lay)
        lay_on_white(im->pixels, im->wide, width * height);
    if (png_get_eXIf_1(w->png, w->info, &exif_bytes, &exif) != 0)
        *orientation = mb_exif_orientation(exif, exif_bytes);
}

mb_status mb_png_decode(const uint8_t *bytes, size_t n, const char *name, mb_alpha alpha,
                        mb_image *im, int *orientation)
{
    struct reader r = {.bytes = bytes, .n = n};
    struct work w = {0};

    w.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, give_up, keep_quiet);
    if (w.png != NULL)
        w.info = png_create_info_struct(w.png);
    if (w.info == NULL) {
        png_destroy_read_struct(&w.png, NULL, NULL);
        return MB_RAISE(MB_ENOMEM, "%s: libpng has no memory", name);
    }
    if (setjmp(png_jmpbuf(w.png)) == 0) {
        png_set_read_fn(w.png, &r, read_some);
        png_set_user_limits(w.png, 0x7fffffff, 0x7fffffff); /* the limit is on pixels: image.c */
        decode(&w, name, alpha, im, orientation);
    } else {
        w.st = MB_RAISE(MB_EDATA, "%s: the PNG cannot be read: %s", name, r.why);
    }
    png_destroy_read_struct(&w.png, &w.info, NULL);
    return w.st;
}

/* ---- writing ------------------------------------------------------------------------------ */

struct writer {
    uint8_t *bytes;
    size_t n, capacity;
    mb_status st;
    char why[SENTENCE];
};

static void write_some(png_structp png, png_bytep from, size_t n)
{
    struct writer *w = png_get_io_ptr(png);

    w->st = mb_grow((void **)&w->bytes, &w->capacity, w->n + n, 1, "a PNG");
    if (w->st != MB_OK)
        png_error(png, "no memory");
    memcpy(w->bytes + w->n, from, n);
    w->n += n;
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

static void cannot_write(png_structp png, png_const_charp why)
{
    struct writer *w = png_get_error_ptr(png);

    snprintf(w->why, sizeof w->why, "%s", why);
    png_longjmp(png, 1);
}

static void encode(png_structp png, png_infop info, int64_t width, int64_t height,
                   const uint8_t *rgb)
{
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int64_t y = 0; y < height; y++)
        png_write_row(png, rgb + y * width * 3);
    png_write_end(png, info);
}

mb_status mb_image_write_png(const char *path, int64_t width, int64_t height, const uint8_t *rgb)
{
    struct writer w = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &w, cannot_write, keep_quiet);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    mb_status st;

    if (info == NULL) {
        png_destroy_write_struct(&png, NULL);
        return MB_RAISE(MB_ENOMEM, "%s: libpng has no memory", path);
    }
    if (setjmp(png_jmpbuf(png)) == 0) {
        png_set_write_fn(png, &w, write_some, flush_nothing);
        encode(png, info, width, height, rgb);
        st = mb_file_write_atomic(path, w.bytes, w.n);
    } else {
        st = w.st != MB_OK ? w.st : MB_RAISE(MB_EBUG, "%s: libpng: %s", path, w.why);
    }
    png_destroy_write_struct(&png, &info);
    mb_free(w.bytes);
    return st;
}
