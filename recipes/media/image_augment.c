/* recipes/media/image_augment.c - see recipes/media/image_augment.h. */
#include "recipes/media/image_augment.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"

/* What a number is drawn for: the third word of its counter. */
enum { DRAW_FLIP, DRAW_PAD, DRAW_ROTATION, DRAW_JITTER, DRAW_REGION, TRIES = 10 };

static mb_rng_block draw(const mb_draws *d, uint32_t what)
{
    return mb_philox(mb_rng_key(d->seed, MB_SITE_AUGMENT, 0), d->ordinal, d->step, what, 0);
}

bool mb_augment_is_any(const mb_augment *a)
{
    return a->crop != MB_CROP_NO || a->flip > 0.0 || a->rotation > 0.0 || a->jitter > 0.0;
}

static double uniform(uint32_t w, double from, double to)
{
    return from + (to - from) * (double)mb_rng_unit(w);
}

/* 0 .. n - 1 */
static int64_t below(uint32_t w, int64_t n)
{
    return (int64_t)(((uint64_t)w * (uint64_t)n) >> 32);
}

/* The largest part from the middle that is neither too wide nor too high. */
static mb_region middle(int64_t height, int64_t width)
{
    mb_region r = {.height = height, .width = width};

    if (width * 4 < height * 3)
        r.height = (int64_t)lround((double)width * 4.0 / 3.0);
    else if (width * 3 > height * 4)
        r.width = (int64_t)lround((double)height * 4.0 / 3.0);
    r.top = (height - r.height) / 2;
    r.left = (width - r.width) / 2;
    return r;
}

mb_region mb_augment_region(const mb_augment *a, const mb_draws *d, int64_t height, int64_t width)
{
    const double area = (double)height * (double)width, skew = log(4.0 / 3.0);

    for (uint32_t i = 0; i < TRIES; i++) {
        const mb_rng_block b = draw(d, DRAW_REGION + i);
        const double part = area * uniform(b.w[0], a->scale, 1.0),
                     ratio = exp(uniform(b.w[1], -skew, skew));
        const int64_t w = (int64_t)lround(sqrt(part * ratio)),
                      h = (int64_t)lround(sqrt(part / ratio));
        if (w > 0 && h > 0 && w <= width && h <= height)
            return (mb_region){.top = below(b.w[2], height - h + 1),
                               .left = below(b.w[3], width - w + 1),
                               .height = h,
                               .width = w};
    }
    return middle(height, width);
}

/* The picture moved by (dy, dx), black where nothing comes. */
static void shift(int64_t height, int64_t width, uint8_t *pixels, uint8_t *work, int64_t dy,
                  int64_t dx)
{
    const size_t bytes = (size_t)(height * width * 3);
    const int64_t keep = width - (dx < 0 ? -dx : dx);

    memset(work, 0, bytes);
    for (int64_t y = 0; y < height && keep > 0; y++)
        if (y - dy >= 0 && y - dy < height)
            memcpy(work + (y * width + (dx > 0 ? dx : 0)) * 3,
                   pixels + ((y - dy) * width + (dx < 0 ? -dx : 0)) * 3, (size_t)keep * 3);
    memcpy(pixels, work, bytes);
}

static void flip(int64_t height, int64_t width, uint8_t *pixels)
{
    for (int64_t y = 0; y < height; y++) {
        uint8_t *a = pixels + y * width * 3, *b = a + (width - 1) * 3;
        for (; a < b; a += 3, b -= 3)
            for (int c = 0; c < 3; c++) {
                const uint8_t v = a[c];
                a[c] = b[c];
                b[c] = v;
            }
    }
}

static double pixel(const uint8_t *pixels, int64_t height, int64_t width, int64_t y, int64_t x,
                    int c)
{
    return y >= 0 && y < height && x >= 0 && x < width ? pixels[(y * width + x) * 3 + c] : 0.0;
}

static void rotate(int64_t height, int64_t width, uint8_t *pixels, uint8_t *work, double degrees)
{
    const double angle = degrees * M_PI / 180.0, cosine = cos(angle), sine = sin(angle),
                 cy = (double)(height - 1) / 2.0, cx = (double)(width - 1) / 2.0;

    memcpy(work, pixels, (size_t)(height * width * 3));
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++) {
            const double u = (double)x - cx, v = (double)y - cy, sx = cosine * u + sine * v + cx,
                         sy = cosine * v - sine * u + cy, fx = floor(sx), fy = floor(sy),
                         px = sx - fx, py = sy - fy;
            const int64_t ix = (int64_t)fx, iy = (int64_t)fy;
            for (int c = 0; c < 3; c++) {
                const double top = (1.0 - px) * pixel(work, height, width, iy, ix, c) +
                                   px * pixel(work, height, width, iy, ix + 1, c),
                             low = (1.0 - px) * pixel(work, height, width, iy + 1, ix, c) +
                                   px * pixel(work, height, width, iy + 1, ix + 1, c);
                pixels[(y * width + x) * 3 + c] = (uint8_t)((1.0 - py) * top + py * low + 0.5);
            }
        }
    }
}

static double luma(const uint8_t *p)
{
    return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
}

static uint8_t to_byte(double v)
{
    return (uint8_t)(v <= 0.0 ? 0.0 : v >= 255.0 ? 255.0 : v + 0.5);
}

/* Brightness towards black, then contrast towards the mean grey, then saturation towards grey. */
static void jitter(double strength, mb_rng_block b, int64_t pixels, uint8_t *p)
{
    const double bright = uniform(b.w[0], 1.0 - strength, 1.0 + strength),
                 contrast = uniform(b.w[1], 1.0 - strength, 1.0 + strength),
                 colour = uniform(b.w[2], 1.0 - strength, 1.0 + strength);
    double mean = 0.0;

    for (int64_t i = 0; i < pixels * 3; i++)
        p[i] = to_byte(p[i] * bright);
    for (int64_t i = 0; i < pixels; i++)
        mean += luma(p + i * 3);
    mean /= (double)pixels;
    for (int64_t i = 0; i < pixels; i++, p += 3) {
        uint8_t q[3];
        for (int c = 0; c < 3; c++)
            q[c] = to_byte(mean + contrast * (p[c] - mean));
        const double grey = luma(q);
        for (int c = 0; c < 3; c++)
            p[c] = to_byte(grey + colour * (q[c] - grey));
    }
}

void mb_augment_pixels(const mb_augment *a, const mb_draws *d, int64_t height, int64_t width,
                       uint8_t *pixels, uint8_t *work)
{
    const mb_rng_block moves = draw(d, DRAW_PAD), turns = draw(d, DRAW_ROTATION);
    const int64_t places = 2 * a->padding + 1;

    if (a->crop == MB_CROP_PADDED)
        shift(height, width, pixels, work, below(moves.w[0], places) - a->padding,
              below(moves.w[1], places) - a->padding);
    if (a->flip > 0.0 && (double)mb_rng_unit(draw(d, DRAW_FLIP).w[0]) < a->flip)
        flip(height, width, pixels);
    if (a->rotation > 0.0)
        rotate(height, width, pixels, work, uniform(turns.w[0], -a->rotation, a->rotation));
    if (a->jitter > 0.0)
        jitter(a->jitter, draw(d, DRAW_JITTER), height * width, pixels);
}
