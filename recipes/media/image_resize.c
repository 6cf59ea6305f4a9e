/* recipes/media/image_resize.c - see recipes/media/image_resize.h. */
#include "recipes/media/image_resize.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"

enum { PIL_BITS = 22, TORCH_MOST_BITS = 22, TORCH_WEIGHT_BITS = 15 };

/* ---- filters ------------------------------------------------------------------------------ */

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double hamming(double x)
{
    x = fabs(x);
    if (x == 0.0)
        return 1.0;
    if (x >= 1.0)
        return 0.0;
    x *= M_PI;
    return sin(x) / x * (0.54 + 0.46 * cos(x));
}

/* Keys' cubic with a = -1/2. */
static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos(double x)
{
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

static const struct {
    double (*of)(double);
    double support;
} filters[MB_RESAMPLE_COUNT] = {
    [MB_RESAMPLE_LANCZOS] = {lanczos, 3.0}, [MB_RESAMPLE_BILINEAR] = {triangle, 1.0},
    [MB_RESAMPLE_BICUBIC] = {bicubic, 2.0}, [MB_RESAMPLE_BOX] = {box, 0.5},
    [MB_RESAMPLE_HAMMING] = {hamming, 1.0},
};

/* ---- weights of one side ------------------------------------------------------------------- */

struct side {
    int64_t from, to, most; /* lengths; weights of a pixel at most */
    int bits;               /* after the weights' point */
};

static int64_t weights_of(mb_resample how, int64_t from, int64_t to)
{
    const double scale = (double)from / (double)to;

    return (int64_t)ceil(filters[how].support * (scale > 1.0 ? scale : 1.0)) * 2 + 1;
}

static mb_status make_room(mb_resizer *r, const struct side *s)
{
    const size_t n = (size_t)(s->to * s->most), to = (size_t)s->to;

    MB_TRY(mb_grow((void **)&r->exact, &r->exact_capacity, n, sizeof *r->exact, "a resize"));
    MB_TRY(mb_grow((void **)&r->weight, &r->weight_capacity, n, sizeof *r->weight, "a resize"));
    MB_TRY(mb_grow((void **)&r->first, &r->first_capacity, to, sizeof *r->first, "a resize"));
    return mb_grow((void **)&r->count, &r->count_capacity, to, sizeof *r->count, "a resize");
}

static int64_t between(int64_t v, int64_t least, int64_t most)
{
    return v < least ? least : v > most ? most : v;
}

/* Weights that sum up to one; returns the largest. */
static double exact_weights(mb_resizer *r, const struct side *s, mb_resample how)
{
    const double scale = (double)s->from / (double)s->to, wide = scale > 1.0 ? scale : 1.0,
                 support = filters[how].support * wide;
    double largest = 0.0;

    for (int64_t x = 0; x < s->to; x++) {
        double *w = r->exact + x * s->most, total = 0.0;
        const double centre = ((double)x + 0.5) * scale;
        const int64_t first = between((int64_t)(centre - support + 0.5), 0, s->from),
                      end = between((int64_t)(centre + support + 0.5), first, s->from),
                      n = between(end - first, 0, s->most);

        r->first[x] = first;
        r->count[x] = n;
        for (int64_t i = 0; i < n; i++) {
            w[i] = filters[how].of(((double)(i + first) - centre + 0.5) * (1.0 / wide));
            total += w[i];
        }
        for (int64_t i = 0; i < n && total != 0.0; i++) {
            w[i] /= total;
            largest = w[i] > largest ? w[i] : largest;
        }
    }
    return largest;
}

/* As many bits as leave the largest weight below 2^15. */
static int torch_bits(double largest)
{
    int bits = 0;

    while (bits < TORCH_MOST_BITS &&
           (int64_t)(0.5 + largest * (double)((int64_t)1 << (bits + 1))) < 1 << TORCH_WEIGHT_BITS)
        bits++;
    return bits;
}

static mb_status weigh(mb_resizer *r, mb_resample how, mb_resize_way way, struct side *s)
{
    s->most = weights_of(how, s->from, s->to);
    MB_TRY(make_room(r, s));
    const double largest = exact_weights(r, s, how);
    s->bits = way == MB_RESIZE_PIL ? PIL_BITS : torch_bits(largest);
    const double one = (double)(1 << s->bits);
    for (int64_t x = 0; x < s->to; x++)
        for (int64_t i = 0; i < r->count[x]; i++) {
            const double w = r->exact[x * s->most + i] * one;
            r->weight[x * s->most + i] = (int32_t)(w < 0.0 ? w - 0.5 : w + 0.5);
        }
    return MB_OK;
}

/* ---- passes ------------------------------------------------------------------------------- */

static uint8_t byte_of(int32_t sum, int bits)
{
    const int32_t v = sum >> bits;

    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void columns(const mb_resizer *r, const struct side *s, const uint8_t *from, int64_t height,
                    int64_t stride, uint8_t *to)
{
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < s->to; x++) {
            const int32_t *w = r->weight + x * s->most;
            const uint8_t *p = from + (y * stride + r->first[x]) * 3;
            int32_t sum[3];

            sum[0] = sum[1] = sum[2] = s->bits > 0 ? 1 << (s->bits - 1) : 0;
            for (int64_t i = 0; i < r->count[x]; i++, p += 3) {
                sum[0] += w[i] * p[0];
                sum[1] += w[i] * p[1];
                sum[2] += w[i] * p[2];
            }
            for (int c = 0; c < 3; c++)
                *to++ = byte_of(sum[c], s->bits);
        }
    }
}

static void lines(const mb_resizer *r, const struct side *s, const uint8_t *from, int64_t width,
                  int64_t stride, uint8_t *to)
{
    for (int64_t y = 0; y < s->to; y++) {
        const int32_t *w = r->weight + y * s->most;
        const uint8_t *p = from + r->first[y] * stride * 3;

        for (int64_t x = 0; x < width * 3; x++) {
            int32_t sum = s->bits > 0 ? 1 << (s->bits - 1) : 0;
            for (int64_t i = 0; i < r->count[y]; i++)
                sum += w[i] * p[i * stride * 3 + x];
            *to++ = byte_of(sum, s->bits);
        }
    }
}

/* The pixels in which the middles of the new ones lie; PIL adds the distance again and again. */
static void nearest_side(mb_resize_way way, int64_t from, int64_t to, int64_t *at)
{
    const double step = (double)from / (double)to;
    const float step_f = (float)from / (float)to;
    double x = 0.5 * step;

    for (int64_t i = 0; i < to; i++, x += step)
        at[i] = between(way == MB_RESIZE_PIL
                            ? (int64_t)x
                            : (int64_t)floorf((float)(((double)i + 0.5) * (double)step_f)),
                        0, from - 1);
}

static mb_status nearest(mb_resizer *r, mb_resize_way way, const struct side *down,
                         const struct side *across, const uint8_t *from, int64_t stride,
                         uint8_t *to)
{
    MB_TRY(mb_grow((void **)&r->first, &r->first_capacity, (size_t)down->to, sizeof *r->first,
                   "a resize"));
    MB_TRY(mb_grow((void **)&r->count, &r->count_capacity, (size_t)across->to, sizeof *r->count,
                   "a resize"));
    nearest_side(way, down->from, down->to, r->first);
    nearest_side(way, across->from, across->to, r->count);
    for (int64_t y = 0; y < down->to; y++)
        for (int64_t x = 0; x < across->to; x++, to += 3)
            memcpy(to, from + (r->first[y] * stride + r->count[x]) * 3, 3);
    return MB_OK;
}

/* Pillow (13; earlier ones never) begins with the lines where that leaves it less to do, by a rule
 * found by experiment. */
static bool lines_first(mb_resize_way way, const struct side *down, const struct side *across)
{
    return way == MB_RESIZE_PIL && down->to < down->from &&
           down->from - down->to > 2 * (across->from - across->to);
}

mb_status mb_resize(mb_resizer *r, mb_resample how, mb_resize_way way, const uint8_t *from,
                    int64_t height, int64_t width, int64_t stride, uint8_t *to, int64_t to_height,
                    int64_t to_width)
{
    struct side across = {.from = width, .to = to_width}, down = {.from = height, .to = to_height};
    const bool both = to_width != width && to_height != height;

    if (how == MB_RESAMPLE_NEAREST)
        return nearest(r, way, &down, &across, from, stride, to);
    if (both) {
        const int64_t a = height * to_width, b = to_height * width;
        MB_TRY(mb_grow((void **)&r->between, &r->between_capacity, (size_t)(a > b ? a : b) * 3, 1,
                       "a resize"));
    }
    if (both && lines_first(way, &down, &across)) {
        MB_TRY(weigh(r, how, way, &down));
        lines(r, &down, from, width, stride, r->between);
        MB_TRY(weigh(r, how, way, &across));
        columns(r, &across, r->between, to_height, width, to);
        return MB_OK;
    }
    if (to_width != width) {
        MB_TRY(weigh(r, how, way, &across));
        columns(r, &across, from, height, stride, both ? r->between : to);
        from = r->between;
        stride = to_width;
    }
    if (to_height != height) {
        MB_TRY(weigh(r, how, way, &down));
        lines(r, &down, from, to_width, stride, to);
    }
    for (int64_t y = 0; y < height && to_width == width && to_height == height; y++)
        memcpy(to + y * width * 3, from + y * stride * 3, (size_t)(width * 3));
    return MB_OK;
}

mb_status mb_resizer_reserve(mb_resizer *r, mb_resample how, int64_t height, int64_t width,
                             int64_t to_height, int64_t to_width)
{
    const int64_t a = height * to_width, b = to_height * width;
    const struct side sides[] = {{.to = to_width, .most = weights_of(how, width, to_width)},
                                 {.to = to_height, .most = weights_of(how, height, to_height)}};

    MB_TRY(make_room(r, &sides[0]));
    MB_TRY(make_room(r, &sides[1]));
    return mb_grow((void **)&r->between, &r->between_capacity, (size_t)(a > b ? a : b) * 3, 1,
                   "a resize");
}

void mb_resizer_release(mb_resizer *r)
{
    mb_free(r->exact);
    mb_free(r->weight);
    mb_free(r->first);
    mb_free(r->count);
    mb_free(r->between);
    *r = (mb_resizer){0};
}
