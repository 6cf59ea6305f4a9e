/* test_data.np2.c - a recipe's data is opened by both ranks or by none, wherever one runs out of
 * memory, and neither waits for the other. */
#include <unistd.h>

#include "../unit/data_test.h"
#include "dist/comm_mpi.h"
#include "dist/launch.h"
#include "recipes/train/data.h"
#include "tests/long.h"

static mb_launch launch;
static mb_recipe *recipe;
static const mb_task *task;
static mb_model_config config;

static mb_status open_data(mb_data **d)
{
    return mb_data_open(recipe, task, &config, false, 0, launch.world, d);
}

static void read_all(void)
{
    static const char text[] = "model_name_or_path: " MB_TEST_DATA "/reference/llama\n"
                               "datasets:\n"
                               "  - {path: " MB_TEST_DATA "/rows/unequal.jsonl, weight: 1.5}\n"
                               "eval_datasets: [" MB_TEST_DATA "/rows/unequal.jsonl]\n"
                               "max_length: 64\n";
    mb_json_doc *doc;

    OK(mb_recipe_load_text("test", text, sizeof text - 1, 0, NULL, &recipe));
    task = mb_task_of(recipe);
    OK(mb_json_read(MB_TEST_DATA "/reference/llama/config.json", MB_EMODEL, 1 << 20, &doc));
    OK(mb_model_config_parse(doc, task->head, &config));
    mb_json_free(doc);
}

/* The last rank's n-th request for memory fails. False when there were fewer. */
static bool open_with_a_fault(int64_t n)
{
    int64_t seen[3] = {0};
    mb_data *d = NULL;

    alarm(60); /* who hangs is found */
    if (launch.rank == 1)
        mb_alloc_fail_at(n);
    const mb_status st = open_data(&d);
    mb_alloc_fail_at(0);
    seen[0] = st != MB_OK;
    seen[1] = st == MB_ENOMEM;
    seen[2] = strncmp(mb_status_sentence(), "rank 1: ", 8) == 0;
    OK(launch.world->ops->all_reduce(launch.world, seen, 3, MB_DTYPE_I64, MB_SUM));
    alarm(0);
    mb_data_free(d);
    mb_status_clear();
    if (seen[0] == 0)
        return false;
    assert_int_equal(seen[0], 2);
    assert_int_equal(seen[1], 2);
    assert_int_equal(seen[2], 1);
    return true;
}

static void no_rank_waits_for_one_that_failed(void **state)
{
    const int64_t stride = is_long_run() ? 53 : 499;
    int64_t n = 1, faults = 0, end;

    read_all();
    for (; open_with_a_fault(n); n += stride)
        faults++;
    for (end = n; n > 0 && n > end - stride - 100; n -= 3)
        faults += open_with_a_fault(n);
    assert_true(faults > 20);
    mb_recipe_free(recipe);
}

static void both_have_the_same_rows(void **state)
{
    int64_t sum[4] = {0};
    mb_data *d;

    read_all();
    OK(open_data(&d));
    sum[0] = d->n_train, sum[1] = d->eval_store->n_rows, sum[2] = d->store->n_tokens;
    OK(launch.world->ops->all_reduce(launch.world, sum, 4, MB_DTYPE_I64, MB_SUM));
    assert_int_equal(sum[0], 2 * d->n_train);
    assert_int_equal(sum[1], 2 * d->eval_store->n_rows);
    assert_int_equal(sum[2], 2 * d->store->n_tokens);
    assert_true(d->n_train > d->store->n_rows); /* the weight is 1.5 */
    mb_data_free(d);
    mb_recipe_free(recipe);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_have_the_same_rows),
        cmocka_unit_test(no_rank_waits_for_one_that_failed),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
