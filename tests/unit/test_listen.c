/* tests/unit/test_listen.c - sounds read ahead by threads are those read when they are wanted. */
#include <math.h>

#include "data_test.h"
#include "recipes/data/listen.h"

enum { ROWS = 20, TOKENS = 10, BINS = 8, COUNT = 2 * TOKENS * BINS };

/* A store whose rows are about short tones; the last one's file is cut short. */
static mb_store *make_store(void)
{
    static char path[ROWS * 100], *name;
    static int64_t at[ROWS + 1], line[ROWS];
    static int32_t source[ROWS];
    static mb_store s;
    char tone[44 + 2 * 3200] =
        "RIFF....WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0"
        "data";

    for (int r = 0; r < ROWS; r++) {
        const int32_t samples = 3000 + r, size = 2 * samples, all = 36 + size;
        char file[20];

        memcpy(tone + 4, &all, 4);
        memcpy(tone + 40, &size, 4);
        for (int i = 0; i < samples; i++) {
            const int16_t v = (int16_t)(8000.0 * sin(0.01 * (r + 3) * i));
            memcpy(tone + 44 + 2 * i, &v, 2);
        }
        snprintf(file, sizeof file, "tone%d.wav", r);
        const char *p = write_file(file, tone, (size_t)(44 + size - (r == ROWS - 1 ? 500 : 0)));
        at[r + 1] = at[r] + (int64_t)strlen(p) + 1;
        memcpy(path + at[r], p, strlen(p) + 1);
        line[r] = r + 1;
    }
    name = "tones.jsonl";
    s = (mb_store){.n_rows = ROWS,
                   .media = path,
                   .media_at = at,
                   .line = line,
                   .source = source,
                   .source_name = &name};
    return &s;
}

static const mb_frames frames = {.bins = BINS, .tokens = TOKENS};

static void expected_and_unexpected_rows_are_the_same(void **state)
{
    static const int64_t order[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
    enum { N = sizeof order / sizeof order[0] };
    static float want[ROWS][COUNT], got[COUNT];
    mb_store *s = make_store();
    mb_listener *l;

    OK(mb_listener_new(&frames, 1, 0, &l));
    for (int64_t r = 0; r < ROWS - 1; r++)
        OK(mb_listener_take(l, s, r, want[r]));
    mb_listener_free(l);
    assert_memory_not_equal(want[0], want[1], sizeof want[0]);
    for (int threads = 1; threads <= 4; threads++)
        for (int64_t ahead = 1; ahead <= 16; ahead *= 4) {
            OK(mb_listener_new(&frames, ahead, threads, &l));
            mb_listener_expect(l, s, order, N); /* of which `ahead` are kept */
            for (int64_t i = 0; i < N; i++) {
                if (i == 2) { /* something else comes in between */
                    OK(mb_listener_take(l, s, 11, got));
                    assert_memory_equal(got, want[11], sizeof got);
                }
                mb_listener_need(l, s, order + i, N - i);
                OK(mb_listener_take(l, s, order[i], got));
                assert_memory_equal(got, want[order[i]], sizeof got);
            }
            mb_listener_need(l, s, order, N); /* and are not taken */
            mb_listener_free(l);
        }
}

static void a_file_that_cannot_be_read_is_said_when_it_is_taken(void **state)
{
    static const int64_t order[] = {0, ROWS - 1, 2};
    static float got[COUNT];
    mb_store *s = make_store();
    mb_listener *l;

    for (int threads = 0; threads < 2; threads++) {
        OK(mb_listener_new(&frames, 4, threads, &l));
        mb_listener_expect(l, s, order, 3);
        OK(mb_listener_take(l, s, 0, got));
        assert_int_equal(mb_listener_take(l, s, ROWS - 1, got), MB_EDATA);
        assert_non_null(strstr(mb_status_sentence(), "tones.jsonl:20: "));
        assert_non_null(strstr(mb_status_sentence(), "tone19.wav is cut short"));
        mb_status_clear();
        OK(mb_listener_take(l, s, 2, got));
        mb_listener_free(l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expected_and_unexpected_rows_are_the_same),
        cmocka_unit_test(a_file_that_cannot_be_read_is_said_when_it_is_taken),
    };

    return cmocka_run_group_tests_name("listen", tests, make_root, remove_root);
}
