/* tests/unit/test_sampler.c - every epoch is the data set, in another order, however it is shared. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/rng.h"
#include "recipes/data/sampler.h"

enum { MOST = 5000 };

static int64_t offset[MOST + 1];
static int32_t trained[MOST];

/* Lengths 1 to `longest`, trained = a third. */
static void make_rows(int64_t n, int64_t longest)
{
    offset[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t len = 1 + (int64_t)mb_rng_below(99, (uint64_t)i, (uint64_t)longest);

        offset[i + 1] = offset[i] + len;
        trained[i] = (int32_t)(len / 3 + 1);
    }
}

static mb_sampler_options options(int64_t n)
{
    return (mb_sampler_options){
        .seed = 42,
        .n_rows = n,
        .offset = offset,
        .trained = trained,
        .shuffle = true,
        .max_length = 100,
        .micro_units = 2,
        .step_units = 6,
        .epochs = 3.0,
    };
}

static mb_sampler *make(const mb_sampler_options *o)
{
    mb_sampler *s = NULL;

    assert_int_equal(mb_sampler_new(o, &s), MB_OK);
    return s;
}

/* Walks the whole run; order[] gets the rows of the run one after the other. Checks all sums. */
static int64_t walk(mb_sampler *s, const mb_sampler_options *o, int64_t *order, int64_t room)
{
    int64_t n = 0;

    for (int64_t i = 0; i < mb_sampler_steps(s); i++) {
        int64_t rows = 0, tokens = 0, train = 0;
        mb_step st;

        assert_int_equal(mb_sampler_step(s, i, &st), MB_OK);
        assert_int_equal(st.step, i);
        assert_true(st.n_micro >= 1 && st.n_micro <= mb_sampler_max_micro(s));
        for (int64_t m = 0; m < st.n_micro; m++) {
            mb_micro micro;

            mb_step_micro(&st, m, &micro);
            assert_ptr_equal(micro.row, st.row + rows);
            assert_true(micro.tokens <= mb_sampler_max_tokens(s));
            assert_true(micro.n_rows <= mb_sampler_max_rows(s));
            rows += micro.n_rows, tokens += micro.tokens, train += micro.trained;
        }
        assert_int_equal(rows, st.n_rows);
        assert_int_equal(tokens, st.tokens);
        assert_int_equal(train, st.trained);
        for (int64_t k = 0; k < st.n_rows; k++) {
            assert_true(n < room);
            order[n++] = st.row[k];
        }
        for (int64_t u = 0; u < st.n_units && o->packing; u++) {
            int64_t length = 0;

            for (int64_t k = st.unit_at[u]; k < st.unit_at[u + 1]; k++) {
                const int64_t row = st.row[k - st.unit_at[0]];

                length += offset[row + 1] - offset[row];
            }
            assert_true(length <= o->max_length);
        }
    }
    return n;
}

static int64_t order[4 * MOST];

/* Each of the n rows exactly once in order[from, from+n). */
static void assert_permutation(const int64_t *at, int64_t n)
{
    static uint8_t seen[MOST];

    memset(seen, 0, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        assert_true(at[i] >= 0 && at[i] < n);
        assert_int_equal(seen[at[i]]++, 0);
    }
}

static void every_epoch_is_the_data_set_and_orders_differ(void **state)
{
    for (int64_t n = 1; n <= 50; n++) {
        mb_sampler_options o = options(n);

        make_rows(n, 40);
        for (int packing = 0; packing < 2; packing++) {
            o.packing = packing;
            mb_sampler *s = make(&o);

            assert_int_equal(walk(s, &o, order, 4 * MOST), 3 * n);
            for (int e = 0; e < 3; e++)
                assert_permutation(order + e * n, n);
            if (n >= 8) {
                assert_memory_not_equal(order, order + n, (size_t)n * 8);
                assert_memory_not_equal(order + n, order + 2 * n, (size_t)n * 8);
                assert_memory_not_equal(order, order + 2 * n, (size_t)n * 8);
            }
            mb_sampler_free(s);
        }
    }
}

static void the_same_seed_gives_the_same_run_from_any_step(void **state)
{
    mb_sampler_options o = options(2500);
    int64_t n;

    make_rows(2500, 60);
    for (int packing = 0; packing < 2; packing++) {
        mb_sampler *a, *b;
        int64_t at[2000], k = 0;

        o.packing = packing;
        a = make(&o), b = make(&o);
        n = walk(a, &o, order, 4 * MOST);
        assert_int_equal(n, 7500);
        /* where each step's rows begin in order[] */
        for (int64_t i = 0; i < mb_sampler_steps(a); i++) {
            mb_step st;

            assert_int_equal(mb_sampler_step(a, i, &st), MB_OK);
            at[i] = k;
            k += st.n_rows;
        }
        for (int t = 0; t < 200; t++) { /* jump about, as runs that are resumed do */
            const int64_t i = (int64_t)mb_rng_below(7, (uint64_t)t, mb_sampler_steps(b));
            mb_step st, same;

            assert_int_equal(mb_sampler_step(a, i, &same), MB_OK);
            assert_int_equal(mb_sampler_step(b, i, &st), MB_OK);
            assert_memory_equal(st.row, order + at[i], (size_t)st.n_rows * 8);
            assert_int_equal(st.n_units, same.n_units);
            assert_memory_equal(st.unit_at, same.unit_at, (size_t)(st.n_units + 1) * 8);
            assert_memory_equal(st.ordinal, same.ordinal, (size_t)st.n_rows * 4);
        }
        mb_sampler_free(a);
        mb_sampler_free(b);
    }
    o.seed = 43;
    mb_sampler *c = make(&o);
    static int64_t other[4 * MOST];

    assert_int_equal(walk(c, &o, other, 4 * MOST), n);
    assert_memory_not_equal(order, other, 2500 * 8);
    mb_sampler_free(c);
}

static void packing_keeps_the_ordinals_of_the_unpacked_order(void **state)
{
    mb_sampler_options o = options(1500);
    mb_step st;
    int64_t ordinal_of[1500];

    make_rows(1500, 80);
    o.epochs = 1;
    mb_sampler *plain = make(&o);

    for (int64_t i = 0, at = 0; i < mb_sampler_steps(plain); i++) {
        assert_int_equal(mb_sampler_step(plain, i, &st), MB_OK);
        for (int64_t k = 0; k < st.n_rows; k++, at++) {
            assert_int_equal(st.ordinal[k], at);
            ordinal_of[st.row[k]] = at;
        }
    }
    o.packing = true;
    mb_sampler *packed = make(&o);

    assert_true(mb_sampler_units_per_epoch(packed) < 1500 * 2 / 3);
    assert_int_equal(walk(packed, &o, order, 4 * MOST), 1500);
    for (int64_t i = 0; i < mb_sampler_steps(packed); i++) {
        assert_int_equal(mb_sampler_step(packed, i, &st), MB_OK);
        for (int64_t k = 0; k < st.n_rows; k++)
            assert_int_equal(st.ordinal[k], ordinal_of[st.row[k]]);
    }
    mb_sampler_free(plain);
    mb_sampler_free(packed);
}

/* Tokens of the Swahili pairs under SmolLM2's tokenizer: so many rows of 16, 17, ... tokens. */
static const int swahili[] = {19, 478, 510, 352, 294, 342, 278, 283, 152, 91, 37, 32, 19, 13, 8,
                              9,  7,   6,   3,   2,   2,   0,   3,   0,   0,  0,  0,  0,  1};

static int64_t make_swahili_rows(void)
{
    int64_t n = 0;

    offset[0] = 0;
    for (size_t k = 0; k < sizeof swahili / sizeof swahili[0]; k++)
        for (int i = 0; i < swahili[k]; i++, n++) {
            offset[n + 1] = offset[n] + 16 + (int64_t)k;
            trained[n] = 4;
        }
    return n;
}

/* Bins when each row of the unpacked order goes into the first of its 1024 rows' bins with room. */
static int64_t first_fit_bins(const mb_sampler_options *packed)
{
    mb_sampler_options o = *packed;
    mb_sampler *s;
    mb_step st;
    int64_t total = 0;

    o.packing = false;
    o.micro_units = 1;
    o.step_units = o.n_rows;
    s = make(&o);
    assert_int_equal(mb_sampler_step(s, 0, &st), MB_OK);
    for (int64_t from = 0; from < st.n_rows; from += 1024) {
        int64_t room[1024], bins = 0;

        for (int64_t i = from; i < st.n_rows && i < from + 1024; i++) {
            const int64_t tokens = offset[st.row[i] + 1] - offset[st.row[i]];
            int64_t b = 0;

            while (b < bins && room[b] < tokens)
                b++;
            if (b == bins)
                room[bins++] = o.max_length;
            room[b] -= tokens;
        }
        total += bins;
    }
    mb_sampler_free(s);
    return total;
}

static void bins_of_the_swahili_pairs_are_full(void **state)
{
    static const struct {
        int64_t max_length;
        double fill; /* at least */
    } cases[] = {{48, 0.845}, {64, 0.945}, {100, 0.985}, {128, 0.99}, {256, 0.99}, {512, 0.99}};
    const int64_t n = make_swahili_rows();

    assert_int_equal(n, 2941);
    assert_int_equal(offset[n], 59986);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        mb_sampler_options o = options(n);

        o.packing = true;
        o.max_length = cases[c].max_length;
        for (o.seed = 1; o.seed < 6; o.seed++) {
            mb_sampler *s = make(&o);
            const int64_t bins = mb_sampler_units_per_epoch(s);
            const double fill = (double)offset[n] / (double)(bins * o.max_length);

            assert_true(bins <= first_fit_bins(&o));
            if (fill < cases[c].fill)
                fail_msg("bins of %lld: %.4f full, wanted %.4f", (long long)o.max_length, fill,
                         cases[c].fill);
            mb_sampler_free(s);
        }
    }
}

/* The same where lengths spread widely, and where two or three rows make a bin. */
static void bins_are_no_more_than_first_fits_whatever_the_lengths(void **state)
{
    for (int64_t shortest = 1; shortest <= 30; shortest++) {
        mb_sampler_options o = options(4000);

        offset[0] = 0;
        for (int64_t i = 0; i < 4000; i++)
            offset[i + 1] = offset[i] + shortest +
                            (int64_t)mb_rng_below(5, (uint64_t)i, (uint64_t)(100 - shortest));
        o.packing = true;
        mb_sampler *s = make(&o);

        assert_true(mb_sampler_units_per_epoch(s) <= first_fit_bins(&o));
        mb_sampler_free(s);
    }
}

/* Steps see short and long rows alike, and ranks and micro-batches have nearly the same to do. */
static void steps_of_packed_rows_are_alike(void **state)
{
    const int64_t n = make_swahili_rows();
    mb_sampler_options o = options(n);
    int64_t largest = 0, smallest = INT64_MAX;
    double low = 1e9, high = 0;

    o.packing = true;
    o.max_length = 256;
    o.step_units = 8;
    o.epochs = 1;
    mb_sampler *s = make(&o);

    for (int64_t i = 0; i + 1 < mb_sampler_steps(s); i++) {
        int64_t of_rank[2] = {0, 0};
        mb_step st;

        assert_int_equal(mb_sampler_step(s, i, &st), MB_OK);
        for (int rank = 0; rank < 2; rank++) {
            int64_t from, to;

            mb_micro_range(st.n_micro, rank, 2, &from, &to);
            for (int64_t m = from; m < to; m++) {
                mb_micro micro;

                mb_step_micro(&st, m, &micro);
                of_rank[rank] += micro.tokens;
            }
            largest = of_rank[rank] > largest ? of_rank[rank] : largest;
            smallest = of_rank[rank] < smallest ? of_rank[rank] : smallest;
        }
        low = fmin(low, (double)st.tokens / (double)st.n_rows);
        high = fmax(high, (double)st.tokens / (double)st.n_rows);
    }
    assert_true(mb_sampler_max_tokens(s) <= 2 * 256);
    assert_true(largest <= 4 * 256 &&
                smallest > 4 * 256 * 3 / 4); /* a bin of a window's last rows */
    assert_true(low > 19.0 && high < 22.0);  /* the mean of all rows is 20.4 */
    mb_sampler_free(s);
}

/* The longest row of each bin, on average, is the same early in a window and late. */
static void bins_do_not_come_sorted(void **state)
{
    mb_sampler_options o = options(1000);
    double longest[3] = {0};
    mb_step st;

    make_rows(1000, 100);
    o.packing = true;
    o.step_units = 3 * 150;
    mb_sampler *s = make(&o);

    assert_int_equal(mb_sampler_step(s, 0, &st), MB_OK);
    assert_int_equal(st.n_units, 450);
    for (int64_t u = 0; u < st.n_units; u++) {
        int64_t most = 0;

        for (int64_t i = st.unit_at[u]; i < st.unit_at[u + 1]; i++) {
            const int64_t row = st.row[i - st.unit_at[0]], n = offset[row + 1] - offset[row];

            most = n > most ? n : most;
        }
        longest[u / 150] += (double)most / 150.0;
    }
    for (int k = 0; k < 3; k++)
        assert_true(fabs(longest[k] - (longest[0] + longest[1] + longest[2]) / 3.0) < 4.0);
    mb_sampler_free(s);
}

static void ranks_cover_the_micro_batches_once(void **state)
{
    for (int size = 1; size <= 8; size++) {
        for (int64_t n = 0; n <= 40; n++) {
            int64_t next = 0;

            for (int rank = 0; rank < size; rank++) {
                int64_t from, to;

                mb_micro_range(n, rank, size, &from, &to);
                assert_int_equal(from, next);
                assert_true(to - from == n / size || to - from == n / size + 1);
                next = to;
            }
            assert_int_equal(next, n);
        }
    }
}

static void steps_follow_epochs_and_max_steps(void **state)
{
    static const struct {
        int64_t rows, step_units, max_steps;
        double epochs;
        int64_t steps;
    } cases[] = {
        {12, 6, 0, 1.0, 2},     {13, 6, 0, 1.0, 3},    {12, 6, 0, 3.0, 6},  {12, 6, 0, 2.5, 5},
        {13, 6, 0, 1.5, 5},     {13, 6, 0, 0.1, 1},    {1, 6, 0, 2.0, 2},   {13, 6, 7, 1.0, 7},
        {13, 6, 100, 1.0, 100}, {100, 1, 0, 0.25, 25}, {10, 10, 0, 0.3, 1},
    };

    make_rows(100, 10);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        mb_sampler_options o = options(cases[c].rows);

        o.step_units = cases[c].step_units;
        o.max_steps = cases[c].max_steps;
        o.epochs = cases[c].epochs;
        mb_sampler *s = make(&o);

        assert_int_equal(mb_sampler_steps(s), cases[c].steps);
        mb_sampler_free(s);
    }
}

static void a_short_last_step_has_what_is_left(void **state)
{
    mb_sampler_options o = options(13);
    mb_step st;

    make_rows(13, 10);
    o.epochs = 1;
    mb_sampler *s = make(&o);

    assert_int_equal(mb_sampler_step(s, 2, &st), MB_OK);
    assert_int_equal(st.n_units, 1);
    assert_int_equal(st.n_micro, 1);
    assert_true(fabs(st.epochs_done - 1.0) < 1e-12);
    assert_int_equal(mb_sampler_step(s, 3, &st), MB_EARG);
    mb_status_clear();
    mb_sampler_free(s);
}

static void evaluation_goes_through_the_list_in_order(void **state)
{
    static const int64_t rows[] = {4, 7, 9, 11};
    mb_sampler_options o = options(4);
    mb_step st;

    make_rows(13, 10);
    o.rows = rows;
    o.shuffle = false;
    o.epochs = 1;
    mb_sampler *s = make(&o);

    assert_int_equal(mb_sampler_steps(s), 1);
    assert_int_equal(mb_sampler_step(s, 0, &st), MB_OK);
    assert_memory_equal(st.row, rows, sizeof rows);
    mb_sampler_free(s);
}

static void shuffles_are_even(void **state)
{
    /* 4 rows, many seeds: every row is first about equally often (chi-square, 3 degrees, p 1e-6) */
    int64_t first[4] = {0};
    double chi = 0;

    make_rows(4, 10);
    for (uint64_t seed = 0; seed < 4000; seed++) {
        mb_sampler_options o = options(4);
        mb_step st;

        o.seed = seed;
        mb_sampler *s = make(&o);

        assert_int_equal(mb_sampler_step(s, 0, &st), MB_OK);
        first[st.row[0]]++;
        mb_sampler_free(s);
    }
    for (int i = 0; i < 4; i++)
        chi += (double)(first[i] - 1000) * (double)(first[i] - 1000) / 1000.0;
    assert_true(chi < 30.7);
}

static void wrong_options_are_named(void **state)
{
    mb_sampler_options o = options(5);
    mb_sampler *s;

    make_rows(5, 10);
    o.n_rows = 0;
    assert_int_equal(mb_sampler_new(&o, &s), MB_EDATA);
    mb_status_clear();
    o = options(5), o.micro_units = 0;
    assert_int_equal(mb_sampler_new(&o, &s), MB_EARG);
    mb_status_clear();
    o = options(5), o.step_units = -1;
    assert_int_equal(mb_sampler_new(&o, &s), MB_EARG);
    mb_status_clear();
    o = options(5), o.epochs = 0;
    assert_int_equal(mb_sampler_new(&o, &s), MB_EARG);
    mb_status_clear();
    o = options(5), o.packing = true, o.max_length = 3;
    offset[1] = 4;
    assert_int_equal(mb_sampler_new(&o, &s), MB_EARG);
    assert_string_equal(mb_status_sentence(),
                        "row 0 has 4 tokens, a bin takes 1 to 3 (max_length)");
    mb_status_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_epoch_is_the_data_set_and_orders_differ),
        cmocka_unit_test(the_same_seed_gives_the_same_run_from_any_step),
        cmocka_unit_test(packing_keeps_the_ordinals_of_the_unpacked_order),
        cmocka_unit_test(bins_of_the_swahili_pairs_are_full),
        cmocka_unit_test(bins_are_no_more_than_first_fits_whatever_the_lengths),
        cmocka_unit_test(steps_of_packed_rows_are_alike),
        cmocka_unit_test(bins_do_not_come_sorted),
        cmocka_unit_test(ranks_cover_the_micro_batches_once),
        cmocka_unit_test(steps_follow_epochs_and_max_steps),
        cmocka_unit_test(a_short_last_step_has_what_is_left),
        cmocka_unit_test(evaluation_goes_through_the_list_in_order),
        cmocka_unit_test(shuffles_are_even),
        cmocka_unit_test(wrong_options_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
