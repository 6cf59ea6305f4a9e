/* tests/unit/test_image.c - pictures: what is refused, what is turned, what is drawn. That pixels are
 * those of PIL and transformers is held by tests/peers/images.py. */
#include <math.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "data_test.h"
#include "recipes/data/ahead.h"
#include "recipes/data/patches.h"
#include "recipes/data/pictures.h"
#include "recipes/media/image_processor.h"

enum { W = 7, H = 5, MOST = 1 << 16 };

static uint8_t pixels[H * W * 3];
static char *png; /* of them */
static size_t png_bytes;

static int make_png(void **state)
{
    char path[] = "/tmp/test_image_XXXXXX";

    close(mkstemp(path));
    for (int i = 0; i < H * W * 3; i++)
        pixels[i] = (uint8_t)(i * 37 + i / 5);
    const bool good = mb_image_write_png(path, W, H, pixels) == MB_OK &&
                      mb_file_read(path, MOST, &png, &png_bytes) == MB_OK;
    unlink(path);
    return good ? 0 : -1;
}

static void refused(const void *bytes, size_t n, const char *why)
{
    mb_image im = {0};

    assert_int_equal(mb_image_decode(bytes, n, "leaf.png", MB_ALPHA_DROP, &im), MB_EDATA);
    if (strstr(mb_status_sentence(), why) == NULL)
        fail_msg("'%s' is not in: %s", why, mb_status_sentence());
    assert_non_null(strstr(mb_status_sentence(), "leaf.png: "));
    mb_status_clear();
    mb_image_release(&im);
}

static void what_is_written_is_read_again(void **state)
{
    mb_image im = {0};

    assert_int_equal(mb_image_decode(png, png_bytes, "leaf.png", MB_ALPHA_DROP, &im), MB_OK);
    assert_int_equal(im.width, W);
    assert_int_equal(im.height, H);
    assert_memory_equal(im.pixels, pixels, sizeof pixels);
    mb_image_release(&im);
}

static void a_png_that_ends_anywhere_is_one_sentence(void **state)
{
    for (size_t n = 8; n < png_bytes - 12; n++)
        refused(png, n, "cannot be read");
    refused(png, 5, "neither a PNG nor a JPEG");
    refused(png, 0, "empty");
}

static void a_flipped_bit_in_the_data_is_noticed(void **state)
{
    char *bytes = NULL;

    assert_int_equal(mb_alloc(png_bytes, "a copy", (void **)&bytes), MB_OK);
    for (size_t at = 41; at < png_bytes - 16; at++) { /* the data and its checksum */
        memcpy(bytes, png, png_bytes);
        bytes[at] ^= 16;
        refused(bytes, png_bytes, "cannot be read");
    }
    mb_free(bytes);
}

/* 100000 by 100000 pixels in the header: nothing is decoded, nothing is allocated. */
static void a_bomb_is_refused_by_its_header(void **state)
{
    static const uint8_t bomb[] = {
        0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44,
        0x52, 0x00, 0x01, 0x86, 0xa0, 0x00, 0x01, 0x86, 0xa0, 0x08, 0x02, 0x00, 0x00, 0x00, 0x27,
        0x30, 0x9c, 0x9f, 0x00, 0x00, 0x00, 0x00, 0x49, 0x44, 0x41, 0x54, 0x35, 0xaf, 0x06, 0x1e};
    const int64_t live = mb_alloc_live();

    refused(bomb, sizeof bomb, "100000 by 100000 pixels; up to 89478485");
    assert_int_equal(mb_alloc_live(), live);

    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xc0, 0,    17, 8, 0xff, 0, 0xff, 0,    3,
                                   1,    0x11, 0,    2,    0x11, 1,  3, 0x11, 1, 0xff, 0xda, 0,
                                   12,   3,    1,    0,    2,    17, 3, 17,   0, 63,   0};
    refused(jpeg, sizeof jpeg, "65280 by 65280 pixels; up to 89478485");
}

static const mb_image_processor plain = {.do_resize = true,
                                         .do_rescale = true,
                                         .do_normalize = true,
                                         .height = 8,
                                         .width = 6,
                                         .resample = MB_RESAMPLE_BILINEAR,
                                         .rescale_factor = 1.0 / 255.0,
                                         .mean = {0.5, 0.5, 0.5},
                                         .std = {0.5, 0.5, 0.5},
                                         .channels = 3};

static void processed(const mb_augment *a, mb_draws d, float *planes)
{
    mb_image_work w = {0};

    assert_int_equal(mb_image_decode(png, png_bytes, "leaf.png", MB_ALPHA_DROP, &w.image), MB_OK);
    assert_int_equal(mb_image_process(&plain, &w, a, &d, planes), MB_OK);
    mb_image_work_release(&w);
}

static void draws_depend_on_seed_step_and_row_alone(void **state)
{
    static const mb_augment a = {
        .crop = MB_CROP_RESIZED, .scale = 0.3, .flip = 0.5, .rotation = 20.0, .jitter = 0.4};
    enum { N = 3 * 8 * 6 };
    float one[N], two[N];
    int equal = 0;

    processed(&a, (mb_draws){1, 2, 3}, one);
    processed(&a, (mb_draws){1, 2, 3}, two);
    assert_memory_equal(one, two, sizeof one);
    for (uint32_t i = 0; i < 3; i++) {
        processed(&a, (mb_draws){1 + (i == 0), 2 + (i == 1), 3 + (i == 2)}, two);
        equal += memcmp(one, two, sizeof one) == 0;
    }
    assert_int_equal(equal, 0);
}

static void every_augmentation_alone_stays_in_range(void **state)
{
    const mb_augment each[] = {{.crop = MB_CROP_RESIZED, .scale = 0.05},
                               {.crop = MB_CROP_PADDED, .padding = 9},
                               {.flip = 1.0},
                               {.rotation = 180.0},
                               {.jitter = 1.0}};
    enum { N = 3 * 8 * 6 };
    float as_it_is[N], x[N];

    processed(NULL, (mb_draws){0}, as_it_is);
    for (size_t k = 0; k < sizeof each / sizeof each[0]; k++) {
        int changed = 0;
        for (uint32_t row = 0; row < 40; row++) {
            processed(&each[k], (mb_draws){7, 0, row}, x);
            changed += memcmp(x, as_it_is, sizeof x) != 0;
            for (int i = 0; i < N; i++)
                assert_true(x[i] >= -1.0f && x[i] <= 1.0f);
        }
        assert_true(changed > 30);
    }
    /* a flip is exactly that */
    processed(&each[2], (mb_draws){7, 0, 0}, x);
    for (int y = 0; y < 3 * 8; y++)
        for (int c = 0; c < 6; c++)
            assert_true(x[y * 6 + c] == as_it_is[y * 6 + 5 - c]);
}

static void patches_lie_as_a_convolutions_kernel(void **state)
{
    const mb_patches p = {.height = 5, .width = 7, .channels = 2, .patch = 2, .prefix = 1};
    float planes[2 * 5 * 7], rows[6 * 8], back[2 * 5 * 7] = {0};

    for (int i = 0; i < 70; i++)
        planes[i] = (float)i;
    assert_int_equal(mb_patches_count(&p), 6);
    assert_int_equal(mb_patches_tokens(&p), 7);
    mb_patches_cut(&p, planes, rows);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int c = 0; c < 2; c++)
                for (int y = 0; y < 2; y++)
                    for (int x = 0; x < 2; x++)
                        assert_true(rows[(i * 3 + j) * 8 + c * 4 + y * 2 + x] ==
                                    planes[c * 35 + (i * 2 + y) * 7 + j * 2 + x]);
    mb_patches_join(&p, rows, back);
    for (int c = 0; c < 2; c++)
        for (int y = 0; y < 5; y++)
            for (int x = 0; x < 7; x++)
                assert_true(back[c * 35 + y * 7 + x] ==
                            (y < 4 && x < 6 ? planes[c * 35 + y * 7 + x] : 0.0f));
}

/* A hair of a picture, where its shortest edge is stretched: 60 GB are not asked for. */
static void a_picture_too_thin_to_be_resized_is_refused(void **state)
{
    mb_image_processor p = plain;
    mb_image_work w = {0};
    const int64_t live = mb_alloc_live();

    p.shortest_edge = 224;
    p.do_center_crop = true;
    p.crop_height = p.crop_width = 224;
    assert_int_equal(mb_image_work_reserve(&p, &w, 1000, 400000, 1), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "1 by 400000 pixels cannot be resized to 224 by"));
    mb_status_clear();
    mb_image_work_release(&w);
    assert_int_equal(mb_alloc_live(), live);
    assert_int_equal(mb_image_work_reserve(&p, &w, 1000, 400, 1), MB_OK);
    mb_image_work_release(&w);
}

static void pictures_of_many_threads_are_all_released(void **state)
{
    mb_picture picture = {W, H, 200};
    char path[] = "leaf.png";
    int64_t at[] = {0, sizeof path};
    const mb_store s = {.n_rows = 1, .picture = &picture, .media = path, .media_at = at};
    const mb_pictures_options o = {.processor = plain,
                                   .patches = {.channels = 3, .height = 8, .width = 6, .patch = 2},
                                   .threads = MB_AHEAD_MOST_THREADS + 4};
    const int64_t live = mb_alloc_live();
    mb_pictures *p;

    assert_int_equal(mb_pictures_new(&o, &s, NULL, &p), MB_OK);
    assert_int_equal(mb_pictures_read_ahead(p, 4), MB_OK);
    assert_int_equal(mb_pictures_are(p)->threads, MB_AHEAD_MOST_THREADS);
    mb_pictures_free(p);
    assert_int_equal(mb_alloc_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(a_png_that_ends_anywhere_is_one_sentence),
        cmocka_unit_test(a_flipped_bit_in_the_data_is_noticed),
        cmocka_unit_test(a_bomb_is_refused_by_its_header),
        cmocka_unit_test(draws_depend_on_seed_step_and_row_alone),
        cmocka_unit_test(every_augmentation_alone_stays_in_range),
        cmocka_unit_test(a_picture_too_thin_to_be_resized_is_refused),
        cmocka_unit_test(pictures_of_many_threads_are_all_released),
        cmocka_unit_test(patches_lie_as_a_convolutions_kernel),
    };
    const int failed = cmocka_run_group_tests_name("image", tests, make_png, NULL);

    mb_free(png);
    return failed;
}
