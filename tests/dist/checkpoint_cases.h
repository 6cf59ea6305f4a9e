/* tests/dist/checkpoint_cases.h - what one number of ranks saves, every other number reads. Included
 * by test_checkpoint.np<N>.c; groups of fewer ranks are split off the world. */
#include <unistd.h>

#include "dist/comm_mpi.h"
#include "dist/launch.h"
#include "tests/checkpoint_fixture.h"

static mb_launch launch;
static char dir[256];
static int n_dirs;

/* A new folder, the same on all ranks. */
static int setup(void **state)
{
    long key = getpid();

    OK(launch.world->ops->broadcast(launch.world, &key, sizeof key, 0));
    snprintf(dir, sizeof dir, "%s/mb_checkpoint_%ld_%d",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", key, n_dirs++);
    return 0;
}

static int teardown(void **state)
{
    OK(launch.world->ops->barrier(launch.world));
    return launch.rank == 0 && mb_path_remove_tree(dir) != MB_OK;
}

/* The first n ranks, NULL on the others. */
static mb_comm *first(int n)
{
    mb_comm *c = NULL;

    OK(mb_comm_mpi_split(launch.world, launch.rank < n ? 0 : -1, launch.rank, &c));
    return c;
}

static void save_on(int n, int stage, int64_t piece_bytes)
{
    mb_comm *comm = first(n);

    if (comm != NULL) {
        mb_checkpoints *c = folder_open(comm, dir, 0, piece_bytes);
        run r;
        run_new(&r, comm, stage);
        assert_int_equal(save(c, &r, 100 * n, n, -1), MB_SAVE_PUBLISHED);
        run_free(&r);
        mb_checkpoints_close(c);
        mb_comm_free(comm);
    }
    OK(launch.world->ops->barrier(launch.world));
}

static void load_on(int n, int stage, int salt)
{
    mb_comm *comm = first(n);

    if (comm != NULL) {
        mb_checkpoint_info info;
        char *path;
        run r;
        OK(mb_checkpoint_find(comm, dir, &path));
        assert_non_null(path);
        run_new(&r, comm, stage);
        run_wipe(&r);
        OK(mb_checkpoint_load(path, r.zero));
        run_check(&r, salt);
        OK(mb_checkpoint_read_info(path, &info));
        assert_int_equal(info.ranks, salt);
        mb_checkpoint_info_release(&info);
        run_free(&r);
        mb_free(path);
        mb_comm_free(comm);
    }
    OK(launch.world->ops->barrier(launch.world));
}

static void any_number_of_ranks_reads_any(void **state)
{
    for (int from = 1; from <= launch.size; from++) {
        save_on(from, from % 2, from == 2 ? 48 << 10 : 0);
        for (int to = 1; to <= launch.size; to++)
            load_on(to, (from + to) % 2, from);
    }
}

/* The ranges of other ranks begin within pieces, and tensors within blocks. */
static void states_of_fewer_bits_come_back_as_they_were(void **state)
{
    static const char *const kinds[] = {"adamw_bf16", "adamw_8bit"};

    for (int k = 0; k < 2; k++) {
        optim = kinds[k];
        teardown(state);
        setup(state);
        for (int from = 1; from <= launch.size; from++) {
            save_on(from, 1, 32 << 10);
            for (int to = 1; to <= launch.size; to++)
                load_on(to, to % 2, from);
        }
    }
    for (int k = 0; k < 2; k++) { /* and from those of f32 they are rounded */
        optim = "adamw";
        save_on(launch.size, 1, 0);
        optim = kinds[k];
        load_on(launch.size, 1, launch.size);
        load_on(1, 1, launch.size);
    }
    optim = "adamw";
}

static void the_folder_lists_every_rank(void **state)
{
    char name[MB_PATH_MAX];

    save_on(launch.size, 1, 0);
    for (int r = 0; r < launch.size; r++) {
        snprintf(name, sizeof name, "%s/checkpoint-%06d/rank-%05d-of-%05d.000.h5", dir,
                 100 * launch.size, r, launch.size);
        assert_true(mb_path_is_file(name));
    }
}

static void background_saves_are_published_together(void **state)
{
    mb_checkpoints *c = folder_open(launch.world, dir, 0, 0);
    const mb_checkpoint_info info = info_of(100);
    mb_save_outcome outcome = MB_SAVE_NONE;
    int polls = 0;
    run r;

    run_new(&r, launch.world, 1);
    run_fill(&r, launch.size);
    OK(mb_checkpoints_begin(c, r.zero, &info, -1, true));
    run_fill(&r, 50);
    while (outcome == MB_SAVE_NONE) { /* as in a step: the votes ride in an all_reduce */
        double votes[MB_CHECKPOINT_VOTES];
        mb_checkpoints_vote(c, votes);
        OK(launch.world->ops->all_reduce(launch.world, votes, MB_CHECKPOINT_VOTES, MB_DTYPE_F64,
                                         MB_SUM));
        OK(mb_checkpoints_poll(c, votes, &outcome));
        assert_true(++polls < 100000);
        usleep(500);
    }
    assert_int_equal(outcome, MB_SAVE_PUBLISHED);
    load_on(launch.size, 1, launch.size);
    run_free(&r);
    mb_checkpoints_close(c);
}

static void one_rank_that_fails_stops_the_save_everywhere(void **state)
{
    mb_checkpoints *c = folder_open(launch.world, dir, 0, 0);
    const mb_checkpoint_info info = info_of(100);
    char name[MB_PATH_MAX];
    mb_save_outcome outcome;
    int64_t from, to;
    run r;

    run_new(&r, launch.world, 1);
    run_fill(&r, 1);
    mb_zero_own(r.zero, &from, &to);
    if (launch.rank == launch.size - 1)
        own_numbers(&r, 1 + 0)[5] = INFINITY;
    OK(mb_checkpoints_begin(c, r.zero, &info, -1, true));
    OK(mb_checkpoints_wait(c, &outcome));
    assert_int_equal(outcome, MB_SAVE_FAILED);
    assert_non_null(strstr(mb_checkpoints_failure(c), "/optim/exp_avg/"));
    OK(launch.world->ops->barrier(launch.world));
    snprintf(name, sizeof name, "%s/checkpoint-000100", dir);
    assert_false(mb_path_exists(name));
    snprintf(name, sizeof name, "%s/checkpoint-000100.partial", dir);
    assert_false(mb_path_exists(name));
    run_free(&r);
    mb_checkpoints_close(c);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_number_of_ranks_reads_any, setup, teardown),
        cmocka_unit_test_setup_teardown(states_of_fewer_bits_come_back_as_they_were, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_folder_lists_every_rank, setup, teardown),
        cmocka_unit_test_setup_teardown(background_saves_are_published_together, setup, teardown),
        cmocka_unit_test_setup_teardown(one_rank_that_fails_stops_the_save_everywhere, setup,
                                        teardown),
    };

    mb_log_level_set(MB_LOG_ERROR);
    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
