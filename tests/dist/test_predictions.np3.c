/* test_predictions.np3.c - rows said on three ranks become one list in their order. */
#include <math.h>

#include "../unit/data_test.h"
#include "dist/comm_mpi.h"
#include "dist/launch.h"
#include "recipes/train/predictions.h"

static mb_launch launch;

static void say(mb_predictions *p, int64_t row, int64_t class, int64_t label)
{
    mb_json object;

    OK(mb_predictions_row(p, row, &object));
    OK(mb_json_set_int(object, "prediction", class));
    OK(mb_json_set_int(object, "label", label));
}

/* Rank 0 says 4, 1; rank 1 nothing; rank 2 says 3, 0, 2 and 1 once more. */
static mb_predictions *said_on_three(void)
{
    mb_predictions *p;

    OK(mb_predictions_new(&p));
    if (launch.rank == 0) {
        say(p, 4, 1, 1);
        say(p, 1, 0, 1);
    } else if (launch.rank == 2) {
        say(p, 3, 1, 0);
        say(p, 0, 1, 1);
        say(p, 2, 0, 0);
        say(p, 1, 1, 1);
    }
    OK(mb_predictions_gather(p, launch.world));
    return p;
}

static void rows_are_on_rank_0_in_the_order_of_their_numbers(void **state)
{
    static const char *const lines[] = {
        "{\"row\":0,\"prediction\":1,\"label\":1}", "{\"row\":1,\"prediction\":0,\"label\":1}",
        "{\"row\":1,\"prediction\":1,\"label\":1}", "{\"row\":2,\"prediction\":0,\"label\":0}",
        "{\"row\":3,\"prediction\":1,\"label\":0}", "{\"row\":4,\"prediction\":1,\"label\":1}"};
    mb_predictions *p = said_on_three();

    assert_int_equal(mb_predictions_count(p), launch.rank == 0 ? 6 : 0);
    for (int64_t i = 0; i < mb_predictions_count(p); i++) {
        size_t n;
        const char *line = mb_predictions_line(p, i, &n);
        assert_int_equal(n, strlen(lines[i]));
        assert_memory_equal(line, lines[i], n);
    }
    mb_predictions_free(p);
}

static void all_ranks_get_the_same_values(void **state)
{
    const mb_metric *metric[] = {mb_metric_find("accuracy", MB_READS_CLASS),
                                 mb_metric_find("f1_binary", MB_READS_CLASS)};
    mb_predictions *p = said_on_three();
    double value[2] = {0};

    OK(mb_predictions_score(p, launch.world, metric, 2, NULL, value, NULL));
    assert_true(fabs(value[0] - 4.0 / 6.0) < 1e-15);
    assert_true(fabs(value[1] - 6.0 / 8.0) < 1e-15);
    mb_predictions_free(p);
}

static void a_failure_on_rank_0_is_one_on_all(void **state)
{
    const mb_metric *metric[] = {mb_metric_find("bleu", MB_READS_TEXT)};
    mb_predictions *p = said_on_three();
    double value;

    assert_int_equal(mb_predictions_score(p, launch.world, metric, 1, NULL, &value, NULL),
                     MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "does not hold a text"));
    mb_status_clear();
    mb_predictions_free(p);
}

static void the_file_is_what_was_gathered(void **state)
{
    char path[64], *text;
    size_t n;
    mb_predictions *p = said_on_three();

    snprintf(path, sizeof path, "%s/said.jsonl", root);
    if (launch.rank == 0) {
        OK(mb_predictions_write(p, path));
        OK(mb_file_read(path, 1 << 20, &text, &n));
        assert_int_equal(n, 6 * strlen("{\"row\":0,\"prediction\":1,\"label\":1}\n"));
        assert_memory_equal(text, "{\"row\":0,", 9);
        assert_int_equal(text[n - 1], '\n');
        mb_free(text);
    }
    mb_predictions_free(p);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_on_rank_0_in_the_order_of_their_numbers),
        cmocka_unit_test(all_ranks_get_the_same_values),
        cmocka_unit_test(a_failure_on_rank_0_is_one_on_all),
        cmocka_unit_test(the_file_is_what_was_gathered),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    const int failed = cmocka_run_group_tests(tests, make_root, remove_root);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
