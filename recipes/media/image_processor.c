/* recipes/media/image_processor.c - see recipes/media/image_processor.h. */
#include "recipes/media/image_processor.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"

enum { CONFIG_MAX_BYTES = 1 << 20, MOST_SIDE = 1 << 14 };

mb_image_processor mb_image_processor_for(int64_t height, int64_t width, int64_t channels)
{
    mb_image_processor p = {.do_resize = true,
                            .do_rescale = true,
                            .do_normalize = true,
                            .height = height,
                            .width = width,
                            .resample = MB_RESAMPLE_BILINEAR,
                            .rescale_factor = 1.0 / 255.0,
                            .channels = channels};

    for (int c = 0; c < 3; c++)
        p.mean[c] = p.std[c] = 0.5;
    return p;
}

/* ---- preprocessor_config.json ------------------------------------------------------------- */

/* A number: both sides; or an object with height and width, or with shortest_edge. */
static mb_status read_size(mb_json root, const char *key, int64_t *height, int64_t *width,
                           int64_t *shortest)
{
    const mb_json v = mb_json_get(root, key);

    if (!mb_json_is_set(v))
        return MB_OK;
    if (mb_json_is_number(v)) {
        MB_TRY(mb_json_need_int(root, key, 1, MOST_SIDE, height));
        *width = *height;
        return MB_OK;
    }
    if (shortest != NULL && mb_json_is_set(mb_json_get(v, "shortest_edge"))) {
        if (mb_json_is_set(mb_json_get(v, "longest_edge")))
            return mb_json_fault(v, "has a longest_edge, which is not supported");
        *height = *width = 0;
        return mb_json_need_int(v, "shortest_edge", 1, MOST_SIDE, shortest);
    }
    MB_TRY(mb_json_need_int(v, "height", 1, MOST_SIDE, height));
    return mb_json_need_int(v, "width", 1, MOST_SIDE, width);
}

/* A number per channel, or one for all. */
static mb_status read_numbers(mb_json root, const char *key, int64_t channels, double *out)
{
    const mb_json v = mb_json_get(root, key);
    const size_t n = mb_json_count(v);

    if (!mb_json_is_set(v))
        return MB_OK;
    if (!mb_json_is_number(v) && n != 1 && n != (size_t)channels)
        return mb_json_fault(v, "is not a number for each of %lld channels", (long long)channels);
    for (int64_t c = 0; c < channels; c++) {
        MB_TRY(mb_json_real(mb_json_is_number(v) ? v : mb_json_at(v, n == 1 ? 0 : (size_t)c),
                            &out[c]));
        if (!isfinite(out[c]))
            return mb_json_fault(v, "is not finite");
    }
    return MB_OK;
}

static mb_status read_flags(mb_json root, mb_image_processor *p)
{
    bool rgb, pad;

    MB_TRY(mb_json_get_bool(root, "do_resize", p->do_resize, &p->do_resize));
    MB_TRY(mb_json_get_bool(root, "do_center_crop", p->do_center_crop, &p->do_center_crop));
    MB_TRY(mb_json_get_bool(root, "do_rescale", p->do_rescale, &p->do_rescale));
    MB_TRY(mb_json_get_bool(root, "do_normalize", p->do_normalize, &p->do_normalize));
    MB_TRY(mb_json_get_bool(root, "do_convert_rgb", false, &rgb));
    MB_TRY(mb_json_get_bool(root, "do_pad", false, &pad));
    if (pad)
        return mb_json_fault(root, "says do_pad, which is not supported");
    p->alpha = rgb ? MB_ALPHA_WHITE : MB_ALPHA_DROP;
    return MB_OK;
}

static mb_status read_all(mb_json root, mb_image_processor *p)
{
    int64_t resample;
    const char *type;

    MB_TRY(mb_json_get_string(root, "image_processor_type", "", &type));
    if (strncmp(type, "DeiT", 4) == 0) { /* what its processor does by default */
        p->resample = MB_RESAMPLE_BICUBIC;
        p->do_center_crop = true;
    }
    MB_TRY(read_flags(root, p));
    MB_TRY(read_size(root, "size", &p->height, &p->width, &p->shortest_edge));
    MB_TRY(read_size(root, "crop_size", &p->crop_height, &p->crop_width, NULL));
    MB_TRY(mb_json_get_int(root, "resample", p->resample, &resample));
    if (resample < 0 || resample >= MB_RESAMPLE_COUNT)
        return mb_json_fault(root, "has resample %lld; 0 to 5 are known", (long long)resample);
    p->resample = (mb_resample)resample;
    MB_TRY(mb_json_get_real(root, "rescale_factor", p->rescale_factor, &p->rescale_factor));
    MB_TRY(read_numbers(root, "image_mean", p->channels, p->mean));
    MB_TRY(read_numbers(root, "image_std", p->channels, p->std));
    for (int64_t c = 0; c < p->channels; c++)
        if (p->std[c] <= 0.0)
            return mb_json_fault(root, "has an image_std of %g", p->std[c]);
    if (p->do_center_crop && (p->crop_height < 1 || p->crop_width < 1))
        return mb_json_fault(root, "says do_center_crop and has no crop_size");
    return MB_OK;
}

/* The same size whatever comes in, and the one the model reads. */
static mb_status check_size(mb_json root, const mb_image_processor *p, int64_t height,
                            int64_t width)
{
    const int64_t h = p->do_center_crop ? p->crop_height : p->height,
                  w = p->do_center_crop ? p->crop_width : p->width;

    if (!p->do_center_crop && (!p->do_resize || p->shortest_edge > 0))
        return mb_json_fault(root, "leaves pictures of different sizes (no do_center_crop, and %s)",
                             p->do_resize ? "size is a shortest_edge" : "no do_resize");
    if (h != height || w != width)
        return mb_json_fault(root,
                             "makes pictures of %lld by %lld pixels, the model reads %lld by %lld",
                             (long long)h, (long long)w, (long long)height, (long long)width);
    return MB_OK;
}

mb_status mb_image_processor_read(const char *folder, int64_t height, int64_t width,
                                  int64_t channels, mb_image_processor *out)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    mb_status st;

    *out = mb_image_processor_for(height, width, channels);
    MB_TRY(mb_path_join(path, sizeof path, folder, "preprocessor_config.json"));
    if (!mb_path_exists(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_EMODEL, CONFIG_MAX_BYTES, &doc));
    st = read_all(mb_json_root(doc), out);
    if (st == MB_OK)
        st = check_size(mb_json_root(doc), out, height, width);
    mb_json_free(doc);
    return st;
}

static mb_status write_size(mb_json root, const char *key, int64_t height, int64_t width)
{
    mb_json size;

    MB_TRY(mb_json_set_object(root, key, &size));
    MB_TRY(mb_json_set_int(size, "height", height));
    return mb_json_set_int(size, "width", width);
}

static mb_status write_numbers(mb_json root, const char *key, const double *v, int64_t n)
{
    mb_json list;

    MB_TRY(mb_json_set_array(root, key, &list));
    for (int64_t c = 0; c < n; c++)
        MB_TRY(mb_json_set_real(list, NULL, v[c]));
    return MB_OK;
}

static mb_status fill(mb_json root, const mb_image_processor *p, const char *type)
{
    MB_TRY(mb_json_set_bool(root, "do_center_crop", p->do_center_crop));
    MB_TRY(mb_json_set_bool(root, "do_normalize", p->do_normalize));
    MB_TRY(mb_json_set_bool(root, "do_rescale", p->do_rescale));
    MB_TRY(mb_json_set_bool(root, "do_resize", p->do_resize));
    MB_TRY(write_numbers(root, "image_mean", p->mean, p->channels));
    MB_TRY(mb_json_set_string(root, "image_processor_type", type));
    MB_TRY(write_numbers(root, "image_std", p->std, p->channels));
    MB_TRY(mb_json_set_int(root, "resample", p->resample));
    MB_TRY(mb_json_set_real(root, "rescale_factor", p->rescale_factor));
    return write_size(root, "size", p->height, p->width);
}

mb_status mb_image_processor_write(const mb_image_processor *p, const char *type, const char *base,
                                   const char *folder)
{
    char path[MB_PATH_MAX], from[MB_PATH_MAX] = "";
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, folder, "preprocessor_config.json"));
    if (base != NULL)
        MB_TRY(mb_path_join(from, sizeof from, base, "preprocessor_config.json"));
    if (base != NULL && mb_path_exists(from)) {
        MB_TRY(mb_json_read(from, MB_EMODEL, CONFIG_MAX_BYTES, &doc));
        st = MB_OK;
    } else {
        MB_TRY(mb_json_doc_new(path, &doc));
        st = fill(mb_json_root(doc), p, type);
    }
    if (st == MB_OK)
        st = mb_json_write(mb_json_root(doc), 2, path);
    mb_json_free(doc);
    return st;
}

/* ---- pixels ------------------------------------------------------------------------------- */

void mb_image_work_release(mb_image_work *w)
{
    mb_image_release(&w->image);
    mb_resizer_release(&w->resizer);
    mb_free(w->fitted);
    mb_free(w->spare);
    *w = (mb_image_work){0};
}

static void resized(const mb_image_processor *p, int64_t height, int64_t width, int64_t *to_height,
                    int64_t *to_width);

/* A long and thin picture whose shortest edge is stretched may become larger than any may be. */
static mb_status resized_within(const mb_image_processor *p, int64_t height, int64_t width,
                                int64_t *to_height, int64_t *to_width)
{
    resized(p, height, width, to_height, to_width);
    MB_REQUIRE(*to_height > 0 && *to_width > 0 && *to_height <= MB_IMAGE_MAX_PIXELS / *to_width,
               MB_EDATA, "a picture of %lld by %lld pixels cannot be resized to %lld by %lld",
               (long long)height, (long long)width, (long long)*to_height, (long long)*to_width);
    return MB_OK;
}

mb_status mb_image_work_reserve(const mb_image_processor *p, mb_image_work *w, int64_t bytes,
                                int64_t width, int64_t height)
{
    int64_t h, wide, out_h, out_w;

    MB_TRY(resized_within(p, height, width, &h, &wide));
    mb_image_processor_size(p, height, width, &out_h, &out_w);
    const int64_t most = h * wide > out_h * out_w ? h * wide : out_h * out_w;
    MB_TRY(mb_image_reserve(&w->image, bytes, width, height, p->alpha));
    MB_TRY(mb_resizer_reserve(&w->resizer, p->resample, height, width, h, wide));
    MB_TRY(mb_resizer_reserve(&w->resizer, p->resample, height, width, out_h, out_w));
    MB_TRY(mb_grow((void **)&w->fitted, &w->fitted_capacity, (size_t)(out_h * out_w * 3), 1,
                   "a picture"));
    return mb_grow((void **)&w->spare, &w->spare_capacity, (size_t)most * 3, 1, "a picture");
}

static void resized(const mb_image_processor *p, int64_t height, int64_t width, int64_t *to_height,
                    int64_t *to_width)
{
    const int64_t s = p->shortest_edge;

    *to_height = height;
    *to_width = width;
    if (!p->do_resize)
        return;
    *to_height = p->height;
    *to_width = p->width;
    if (s > 0 && width <= height) {
        *to_width = s;
        *to_height = s * height / width;
    } else if (s > 0) {
        *to_height = s;
        *to_width = s * width / height;
    }
}

void mb_image_processor_size(const mb_image_processor *p, int64_t height, int64_t width,
                             int64_t *to_height, int64_t *to_width)
{
    resized(p, height, width, to_height, to_width);
    if (p->do_center_crop) {
        *to_height = p->crop_height;
        *to_width = p->crop_width;
    }
}

/* PIL's convert("L"), in all three channels. */
static void make_grey(mb_image *im)
{
    uint8_t *p = im->pixels;

    for (int64_t i = 0; i < im->width * im->height; i++, p += 3)
        p[0] = p[1] = p[2] =
            (uint8_t)((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16);
}

/* How far the crop begins inside the picture; where it is larger, less than 0: how much black there
 * is before it. */
static int64_t crop_start(int64_t length, int64_t crop, mb_resize_way way)
{
    if (crop <= length)
        return (length - crop) / 2;
    return -(way == MB_RESIZE_PIL ? (crop - length + 1) / 2 : (crop - length) / 2);
}

static void centre_crop(const mb_image_processor *p, const uint8_t *from, int64_t height,
                        int64_t width, uint8_t *to)
{
    const int64_t top = crop_start(height, p->crop_height, p->way),
                  left = crop_start(width, p->crop_width, p->way);
    const int64_t before = left < 0 ? -left : 0, skip = left > 0 ? left : 0,
                  n = width - skip < p->crop_width - before ? width - skip : p->crop_width - before;

    memset(to, 0, (size_t)(p->crop_height * p->crop_width * 3));
    for (int64_t y = 0; y < p->crop_height; y++)
        if (top + y >= 0 && top + y < height)
            memcpy(to + (y * p->crop_width + before) * 3, from + ((top + y) * width + skip) * 3,
                   (size_t)(n * 3));
}

/* The picture, or a part of it, at the size that comes out: in w->fitted. */
static mb_status fit(const mb_image_processor *p, mb_image_work *w, const mb_augment *augment,
                     const mb_draws *draws, int64_t height, int64_t width)
{
    mb_image *im = &w->image;
    int64_t h, wide;

    if (augment != NULL && augment->crop == MB_CROP_RESIZED) {
        const mb_region r = mb_augment_region(augment, draws, im->height, im->width);
        return mb_resize(&w->resizer, p->resample, p->way,
                         im->pixels + (r.top * im->width + r.left) * 3, r.height, r.width,
                         im->width, w->fitted, height, width);
    }
    MB_TRY(resized_within(p, im->height, im->width, &h, &wide));
    if (!p->do_center_crop)
        return mb_resize(&w->resizer, p->resample, p->way, im->pixels, im->height, im->width,
                         im->width, w->fitted, h, wide);
    MB_TRY(mb_grow((void **)&w->spare, &w->spare_capacity, (size_t)(h * wide * 3), 1, "a picture"));
    MB_TRY(mb_resize(&w->resizer, p->resample, p->way, im->pixels, im->height, im->width, im->width,
                     w->spare, h, wide));
    centre_crop(p, w->spare, h, wide, w->fitted);
    return MB_OK;
}

/* As torchvision's backend fuses them: (x - mean / factor) / (std / factor), in f32. */
static void to_planes(const mb_image_processor *p, const uint8_t *pixels, int64_t n, float *planes)
{
    const double factor = p->do_rescale ? p->rescale_factor : 1.0;

    for (int64_t c = 0; c < p->channels; c++) {
        const float mean = (float)(p->mean[c] / factor), std = (float)(p->std[c] / factor),
                    scale = (float)factor;
        float *to = planes + c * n;
        for (int64_t i = 0; i < n; i++) {
            const float x = (float)pixels[i * 3 + c];
            to[i] = p->do_normalize ? (x - mean) / std : p->do_rescale ? x * scale : x;
        }
    }
}

mb_status mb_image_process(const mb_image_processor *p, mb_image_work *w, const mb_augment *augment,
                           const mb_draws *draws, float *planes)
{
    int64_t height, width;

    mb_image_processor_size(p, w->image.height, w->image.width, &height, &width);
    const size_t bytes = (size_t)(height * width * 3);
    MB_TRY(mb_grow((void **)&w->fitted, &w->fitted_capacity, bytes, 1, "a picture"));
    if (p->channels == 1)
        make_grey(&w->image);
    MB_TRY(fit(p, w, augment, draws, height, width));
    if (augment != NULL) {
        MB_TRY(mb_grow((void **)&w->spare, &w->spare_capacity, bytes, 1, "a picture"));
        mb_augment_pixels(augment, draws, height, width, w->fitted, w->spare);
    }
    to_planes(p, w->fitted, height * width, planes);
    return MB_OK;
}
