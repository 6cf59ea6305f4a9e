/* recipes/media/image_jpeg.c - JPEG through libjpeg-turbo: the only <jpeglib.h>. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

// clang-format off
#include <jpeglib.h> /* wants <stdio.h> before it */
#include <jerror.h>
// clang-format on

#include "core/alloc.h"
#include "recipes/media/image_inside.h"

enum { APP1 = JPEG_APP0 + 1, EXIF_MAX = 0xffff };

struct reader {
    struct jpeg_error_mgr base; /* first: libjpeg hands it back */
    jmp_buf back;
    char why[JMSG_LENGTH_MAX];
};

static void give_up(j_common_ptr c)
{
    struct reader *r = (struct reader *)c->err;

    c->err->format_message(c, r->why);
    longjmp(r->back, 1);
}

/* Data that is missing or broken; other warnings are of pictures that can be seen whole. */
static void warn(j_common_ptr c, int level)
{
    const int code = c->err->msg_code;

    if (level < 0 &&
        (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE))
        give_up(c);
}

static void keep_quiet(j_common_ptr c)
{
    (void)c;
}

/* PIL takes inks as inverted, which is how Adobe's programs write them. */
static void cmyk_to_rgb(uint8_t *to, const uint8_t *from, int64_t pixels)
{
    for (int64_t i = 0; i < pixels; i++, to += 3, from += 4) {
        const int light = from[3]; /* 255 less black */
        for (int k = 0; k < 3; k++) {
            const int t = (255 - from[k]) * light + 128, v = light - (((t >> 8) + t) >> 8);
            to[k] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

struct work {
    struct jpeg_decompress_struct jpeg;
    bool inks; /* CMYK */
    mb_status st;
};

static void orientation_of(struct work *w, int *orientation)
{
    for (jpeg_saved_marker_ptr m = w->jpeg.marker_list; m != NULL; m = m->next)
        if (m->marker == APP1 && m->data_length > 6 && memcmp(m->data, "Exif\0\0", 6) == 0) {
            *orientation = mb_exif_orientation(m->data, m->data_length);
            return;
        }
}

static void read_lines(struct work *w, mb_image *im)
{
    const int64_t row = im->width * 3;

    while (w->jpeg.output_scanline < w->jpeg.output_height) {
        uint8_t *to = im->pixels + (int64_t)w->jpeg.output_scanline * row;
        JSAMPROW line = w->inks ? im->wide : to;
        jpeg_read_scanlines(&w->jpeg, &line, 1);
        if (w->inks)
            cmyk_to_rgb(to, im->wide, im->width);
    }
}

static void decode(struct work *w, const uint8_t *bytes, size_t n, const char *name, mb_image *im,
                   int *orientation)
{
    struct jpeg_decompress_struct *jpeg = &w->jpeg;

    jpeg_create_decompress(jpeg);
    jpeg_save_markers(jpeg, APP1, EXIF_MAX);
    jpeg_mem_src(jpeg, bytes, n);
    jpeg_read_header(jpeg, TRUE);
    orientation_of(w, orientation);
    w->st = mb_image_begin(im, jpeg->image_width, jpeg->image_height, name);
    if (w->st != MB_OK)
        return;
    w->inks = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = w->inks ? JCS_CMYK : JCS_RGB;
    if (w->inks)
        w->st = mb_grow((void **)&im->wide, &im->wide_capacity, (size_t)im->width * 4, 1,
                        "a picture's line");
    if (w->st != MB_OK)
        return;
    jpeg_start_decompress(jpeg);
    read_lines(w, im);
    jpeg_finish_decompress(jpeg);
}

mb_status mb_jpeg_decode(const uint8_t *bytes, size_t n, const char *name, mb_image *im,
                         int *orientation)
{
    struct reader r;
    struct work w = {0};

    w.jpeg.err = jpeg_std_error(&r.base);
    r.base.error_exit = give_up;
    r.base.emit_message = warn;
    r.base.output_message = keep_quiet;
    if (setjmp(r.back) == 0)
        decode(&w, bytes, n, name, im, orientation);
    else
        w.st = MB_RAISE(MB_EDATA, "%s: the JPEG cannot be read: %s", name, r.why);
    jpeg_destroy_decompress(&w.jpeg);
    return w.st;
}
