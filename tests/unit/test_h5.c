/* test_h5.c - HDF5 files in memory and on disk, virtual datasets, damage. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "core/rng.h"
#include "dist/h5.h"
#include "tests/unit/root_test.h"

/* The bytes of a file with one dataset "/a/b/x" of n floats 0, 1, 2 ... */
static void sample_image(int64_t n, void **image, size_t *size)
{
    float *x = malloc((size_t)n * 4);
    mb_h5 *f;

    for (int64_t i = 0; i < n; i++)
        x[i] = (float)i;
    OK(mb_h5_create_image("sample", 0, &f));
    OK(mb_h5_put(f, "/a/b/x", MB_DTYPE_F32, n, x));
    OK(mb_h5_close_image(f, image, size));
    free(x);
}

static void every_type_comes_back_from_an_image(void **state)
{
    static const mb_dtype types[] = {MB_DTYPE_F32, MB_DTYPE_F64, MB_DTYPE_I8,  MB_DTYPE_U8,
                                     MB_DTYPE_I16, MB_DTYPE_U16, MB_DTYPE_I32, MB_DTYPE_U32,
                                     MB_DTYPE_I64, MB_DTYPE_U64};
    enum { N = 100003 };
    uint8_t *data = malloc(N * 8), *back = malloc(N * 8);
    void *image;
    size_t size;
    mb_h5 *f;

    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        const size_t el = (size_t)mb_dtype_bytes(types[k], 1);
        mb_dtype d;
        int ndim;
        int64_t dim[MB_MAX_DIMS];
        for (size_t i = 0; i < N * el; i++)
            data[i] = (uint8_t)(mb_rng_u32(5, i) & 0x3f); /* no NaN */
        OK(mb_h5_create_image("types", 0, &f));
        OK(mb_h5_put(f, "/x", types[k], N, data));
        OK(mb_h5_close_image(f, &image, &size));
        OK(mb_h5_open_image("types", image, size, MB_EDATA, &f));
        OK(mb_h5_shape(f, "/x", &d, &ndim, dim));
        assert_int_equal(d, types[k]);
        assert_true(ndim == 1 && dim[0] == N);
        OK(mb_h5_read_range(f, "/x", types[k], 0, N, back));
        assert_memory_equal(data, back, N * el);
        OK(mb_h5_read_range(f, "/x", types[k], 77777, 1234, back));
        assert_memory_equal(data + 77777 * el, back, 1234 * el);
        OK(mb_h5_close(f));
        mb_free(image);
    }
    OK(mb_h5_create_image("types", 3 << 20, &f));
    mb_h5_close(f); /* an image nobody wants */
    free(data);
    free(back);
}

static void a_file_on_disk_is_written_in_parts(void **state)
{
    char path[256];
    int32_t part[1000], back[2500];
    const int64_t dim = 2500;
    mb_h5 *f;

    snprintf(path, sizeof path, "%s/parts.h5", root);
    OK(mb_h5_create(path, &f));
    OK(mb_h5_make(f, "/ids", MB_DTYPE_I32, 1, &dim));
    for (int64_t at = 0; at < 2500; at += 1000) {
        const int64_t n = at + 1000 <= 2500 ? 1000 : 500;
        for (int i = 0; i < n; i++)
            part[i] = (int32_t)(at + i) * 3;
        OK(mb_h5_write_range(f, "/ids", MB_DTYPE_I32, at, n, part));
    }
    OK(mb_h5_put(f, "/empty", MB_DTYPE_U16, 0, part));
    OK(mb_h5_close(f));
    OK(mb_h5_open(path, MB_EDATA, &f));
    OK(mb_h5_read_range(f, "/ids", MB_DTYPE_I32, 0, 2500, back));
    for (int i = 0; i < 2500; i++)
        assert_int_equal(back[i], i * 3);
    OK(mb_h5_read_range(f, "/empty", MB_DTYPE_U16, 0, 0, back));
    assert_true(mb_h5_has(f, "/ids") && mb_h5_has(f, "/empty"));
    assert_false(mb_h5_has(f, "/nothing/here"));
    /* past the end, of another shape, of another name: sentences */
    assert_int_equal(mb_h5_read_range(f, "/ids", MB_DTYPE_I32, 2000, 501, back), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "2500 elements"));
    mb_status_clear();
    assert_int_equal(mb_h5_read_range(f, "/ids", MB_DTYPE_I32, -1, 1, back), MB_EDATA);
    mb_status_clear();
    assert_int_equal(mb_h5_read_range(f, "/idx", MB_DTYPE_I32, 0, 1, back), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "/idx"));
    mb_status_clear();
    OK(mb_h5_close(f));
    assert_int_equal(mb_h5_open("/nonexistent/x.h5", MB_EDATA, &f), MB_EDATA);
    mb_status_clear();
}

static void blocks_of_more_dimensions_are_written_and_read(void **state)
{
    const int64_t dim[3] = {3, 5, 7}, from[3] = {1, 2, 3}, count[3] = {2, 2, 4};
    int64_t zero[3] = {0};
    float x[105], y[16];
    mb_h5 *f;

    for (int i = 0; i < 105; i++)
        x[i] = (float)i;
    OK(mb_h5_create_image("nd", 0, &f));
    OK(mb_h5_make(f, "/x", MB_DTYPE_F32, 3, dim));
    OK(mb_h5_write(f, "/x", MB_DTYPE_F32, 3, zero, dim, x));
    OK(mb_h5_read(f, "/x", MB_DTYPE_F32, 3, from, count, y));
    for (int i = 0; i < 16; i++) {
        const int a = 1 + i / 8, b = 2 + i / 4 % 2, c = 3 + i % 4;
        assert_true(y[i] == (float)(a * 35 + b * 7 + c));
    }
    OK(mb_h5_close(f));
}

static void attributes_and_texts_come_back(void **state)
{
    const int64_t shape[3] = {4, -5, 1ll << 60};
    int64_t back[3];
    double real;
    char *long_text = malloc(200001), *text;
    void *image;
    size_t size;
    mb_h5 *f;

    memset(long_text, 'x', 200000);
    long_text[200000] = '\0';
    OK(mb_h5_create_image("attributes", 0, &f));
    OK(mb_h5_set_text(f, "/", "who", "Mbuyu \xc3\xa9"));
    OK(mb_h5_set_text(f, "/new/group", "empty", ""));
    OK(mb_h5_set_ints(f, "/new/group", "shape", 3, shape));
    OK(mb_h5_set_real(f, "/", "pi", 3.25));
    OK(mb_h5_put_text(f, "/text/long", long_text));
    OK(mb_h5_close_image(f, &image, &size));
    OK(mb_h5_open_image("attributes", image, size, MB_EMODEL, &f));
    OK(mb_h5_get_text(f, "/", "who", &text));
    assert_string_equal(text, "Mbuyu \xc3\xa9");
    mb_free(text);
    OK(mb_h5_get_text(f, "/new/group", "empty", &text));
    assert_string_equal(text, "");
    mb_free(text);
    OK(mb_h5_get_ints(f, "/new/group", "shape", 3, back));
    assert_memory_equal(back, shape, sizeof shape);
    OK(mb_h5_get_real(f, "/", "pi", &real));
    assert_true(real == 3.25);
    OK(mb_h5_read_text(f, "/text/long", &text));
    assert_string_equal(text, long_text);
    mb_free(text);
    assert_int_equal(mb_h5_get_ints(f, "/new/group", "shape", 2, back), MB_EMODEL);
    mb_status_clear();
    assert_int_equal(mb_h5_get_text(f, "/", "pi", &text), MB_EMODEL);
    mb_status_clear();
    assert_int_equal(mb_h5_get_text(f, "/", "absent", &text), MB_EMODEL);
    assert_non_null(strstr(mb_status_sentence(), "absent"));
    mb_status_clear();
    OK(mb_h5_close(f));
    mb_free(image);
    free(long_text);
}

static void ranges_become_few_blocks_in_order(void **state)
{
    const int64_t shapes[][4] = {{7}, {3, 4}, {1, 5}, {2, 3, 4}, {3, 1, 4}, {2, 3, 2, 3}};
    const int ndims[] = {1, 2, 2, 3, 3, 4};

    for (int k = 0; k < 6; k++) {
        const int nd = ndims[k];
        const int64_t *dim = shapes[k];
        int64_t total = 1;
        for (int i = 0; i < nd; i++)
            total *= dim[i];
        for (int64_t from = 0; from <= total; from++)
            for (int64_t to = from; to <= total; to++) {
                mb_h5_block b[2 * MB_MAX_DIMS - 1];
                const int n = mb_h5_blocks(nd, dim, from, to - from, b);
                int64_t next = from;
                assert_true(n <= 2 * nd - 1);
                for (int i = 0; i < n; i++) { /* each block is the next elements, in order */
                    int64_t at[4] = {0}, count = 1;
                    for (int j = 0; j < nd; j++)
                        count *= b[i].count[j];
                    for (int64_t e = 0; e < count; e++) {
                        int64_t flat = 0, rest = e;
                        for (int j = nd - 1; j >= 0; j--) {
                            at[j] = b[i].from[j] + rest % b[i].count[j];
                            rest /= b[i].count[j];
                        }
                        for (int j = 0; j < nd; j++) {
                            assert_true(at[j] >= 0 && at[j] < dim[j]);
                            flat = flat * dim[j] + at[j];
                        }
                        assert_int_equal(flat, next);
                        next++;
                    }
                }
                assert_int_equal(next, to);
            }
    }
}

static void write_image(mb_h5 *f, const char *dir, const char *name)
{
    char path[512];
    void *image;
    size_t size;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    OK(mb_h5_close_image(f, &image, &size));
    OK(mb_file_write_atomic(path, image, size));
    mb_free(image);
}

static void virtual_datasets_move_with_their_folder(void **state)
{
    const int64_t dim[2] = {5, 7}, zero[2] = {0, 0};
    char dir[256], moved[256], path[600], before[1024];
    float part[35], whole[35];
    mb_h5_virtual *v;
    mb_h5 *f;

    snprintf(dir, sizeof dir, "%s/first", root);
    snprintf(moved, sizeof moved, "%s/second", root);
    OK(mb_path_mkdirs(dir));
    for (int i = 0; i < 35; i++)
        part[i] = (float)i;
    OK(mb_h5_create_image("a", 0, &f));
    OK(mb_h5_put(f, "/param/w", MB_DTYPE_F32, 16, part));
    write_image(f, dir, "a.h5");
    OK(mb_h5_create_image("b", 0, &f));
    OK(mb_h5_put(f, "/param/w", MB_DTYPE_F32, 17, part + 14));
    write_image(f, dir, "b.h5");
    OK(mb_h5_create_image("model", 0, &f));
    OK(mb_h5_virtual_begin(f, "/param/w", 2, dim, &v));
    OK(mb_h5_virtual_map(v, "a.h5", "/param/w", 16, 0, 0, 16));
    OK(mb_h5_virtual_map(v, "b.h5", "/param/w", 17, 2, 16, 15)); /* the last four are nowhere */
    OK(mb_h5_virtual_end(v));
    mb_h5_virtual_free(v);
    write_image(f, dir, "model.h5");

    assert_non_null(getcwd(before, sizeof before));
    for (int round = 0; round < 3; round++) {
        if (round == 1)
            assert_int_equal(rename(dir, moved), 0);
        if (round == 2)
            assert_int_equal(chdir(moved), 0);
        snprintf(path, sizeof path, "%s/model.h5", round == 0 ? dir : round == 1 ? moved : ".");
        OK(mb_h5_open(path, MB_EDATA, &f));
        OK(mb_h5_read(f, "/param/w", MB_DTYPE_F32, 2, zero, dim, whole));
        OK(mb_h5_close(f));
        for (int i = 0; i < 35; i++)
            assert_true(i < 31 ? whole[i] == (float)i : isnan(whole[i]));
    }
    assert_int_equal(chdir(before), 0);
}

/* How many of 600 flipped bits were refused; -1 when one was read as another value. */
static int count_refused(void)
{
    enum { N = 9000 };
    static float back[N];
    size_t size;
    void *image;
    int refused = 0;

    sample_image(N, &image, &size);
    for (int k = 0; k < 600; k++) {
        const uint64_t bit = mb_rng_below(99, k, size * 8);
        uint8_t *p = image;
        mb_h5 *f = NULL;
        p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        mb_status st = mb_h5_open_image("flipped", image, size, MB_EDATA, &f);
        if (st == MB_OK)
            st = mb_h5_read_range(f, "/a/b/x", MB_DTYPE_F32, 0, N, back);
        for (int i = 0; i < N && st == MB_OK; i++)
            if (back[i] != (float)i)
                return -1;
        refused += st != MB_OK;
        mb_status_clear();
        mb_h5_close(f);
        mb_status_clear();
        p[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    mb_free(image);
    return refused;
}

/* The net below the digests: a flipped bit is an error or changes nothing that is read. In a child,
 * because HDF5 does not free everything it took for a file it then refuses. */
static void flipped_bits_are_not_read_as_values(void **state)
{
    int status;
    const pid_t pid = fork();

    if (pid == 0) {
        const int refused = count_refused();
        _exit(refused > 10 ? 0 : 1);
    }
    assert_true(waitpid(pid, &status, 0) == pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void what_is_not_hdf5_is_refused(void **state)
{
    size_t size;
    void *image;
    mb_h5 *f;

    sample_image(100, &image, &size);
    assert_int_equal(mb_h5_open_image("none", "", 0, MB_EDATA, &f), MB_EDATA);
    mb_status_clear();
    assert_int_equal(mb_h5_open_image("text", "hello, this is a text", 21, MB_EDATA, &f), MB_EDATA);
    mb_status_clear();
    for (size_t n = 1; n < size; n += 13) {
        assert_int_equal(mb_h5_open_image("short", image, n, MB_EDATA, &f), MB_EDATA);
        assert_non_null(strstr(mb_status_sentence(), "short"));
        mb_status_clear();
    }
    mb_free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_comes_back_from_an_image),
        cmocka_unit_test(a_file_on_disk_is_written_in_parts),
        cmocka_unit_test(blocks_of_more_dimensions_are_written_and_read),
        cmocka_unit_test(attributes_and_texts_come_back),
        cmocka_unit_test(ranges_become_few_blocks_in_order),
        cmocka_unit_test(virtual_datasets_move_with_their_folder),
        cmocka_unit_test(flipped_bits_are_not_read_as_values),
        cmocka_unit_test(what_is_not_hdf5_is_refused),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
