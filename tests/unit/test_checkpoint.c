/* test_checkpoint.c - one rank saves and loads; damage, full disks, kills, locks, other models. */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/checkpoint_fixture.h"

/* in memory where there is such a folder: thousands of fsyncs of a disk take minutes */
static char top[64];
static char dir[256];
static int n_dirs;

static int setup_all(void **state)
{
    mb_log_level_set(MB_LOG_ERROR);
    signal(SIGXFSZ, SIG_IGN);
    snprintf(top, sizeof top, "%s/mb_checkpoint_XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(top) == NULL;
}

static int teardown_all(void **state)
{
    return mb_path_remove_tree(top) != MB_OK;
}

/* Every test has a folder of its own. */
static int setup(void **state)
{
    snprintf(dir, sizeof dir, "%s/%d", top, n_dirs++);
    return 0;
}

static void path_of(char *path, int64_t step)
{
    OK(mb_checkpoint_path(dir, step, path, MB_PATH_MAX));
}

static bool exists(const char *name)
{
    char path[MB_PATH_MAX];

    OK(mb_path_join(path, sizeof path, dir, name));
    return mb_path_exists(path);
}

/* Two checkpoints, of step 100 with salt 1 and of step 200 with salt 2. */
static void two_checkpoints(int64_t piece_bytes)
{
    mb_checkpoints *c = folder_open(mb_comm_self(), dir, 0, piece_bytes);
    run r;

    run_new(&r, mb_comm_self(), 1);
    assert_int_equal(save(c, &r, 100, 1, -1), MB_SAVE_PUBLISHED);
    assert_int_equal(save(c, &r, 200, 2, -1), MB_SAVE_PUBLISHED);
    run_free(&r);
    mb_checkpoints_close(c);
}

static void find_and_check(int64_t step)
{
    char *path, want[MB_PATH_MAX];
    run r;

    OK(mb_checkpoint_find(mb_comm_self(), dir, &path));
    path_of(want, step);
    assert_non_null(path);
    assert_string_equal(path, want);
    run_new(&r, mb_comm_self(), 1);
    OK(mb_checkpoint_load(path, r.zero));
    run_check(&r, (int)(step / 100));
    run_free(&r);
    mb_free(path);
}

static void what_is_saved_comes_back(void **state)
{
    mb_checkpoint_info info;
    char path[MB_PATH_MAX];
    run r;

    two_checkpoints(16 << 10);
    find_and_check(200);
    path_of(path, 100);
    run_new(&r, mb_comm_self(), 1);
    run_fill(&r, 2);
    run_wipe(&r);
    OK(mb_checkpoint_load(path, r.zero));
    run_check(&r, 1);
    run_free(&r);
    OK(mb_checkpoint_read_info(path, &info));
    assert_int_equal(info.step, 100);
    assert_int_equal(info.ranks, 1);
    assert_string_equal(info.run_id, "0123456789abcdef");
    assert_string_equal(info.state_json, "{\"cursor\": 17}");
    assert_string_equal(info.recipe_yaml, "model: x\n");
    assert_int_equal(info.history.applied, 1001);
    mb_checkpoint_info_release(&info);
    assert_false(exists("checkpoint-000200.partial"));
    assert_true(exists("checkpoint-000200/rank-00000-of-00001.000.h5"));
    assert_true(exists("checkpoint-000200/rank-00000-of-00001.008.h5"));
    assert_true(exists("latest"));
}

/* Saved in 8 bits, f32 numbers on disk: what a run with f32 states reads, and one with 8 bits again. */
static void states_survive_a_detour_over_another_kind(void **state)
{
    static const char *const kinds[] = {"adamw_bf16", "adamw_8bit"};
    char path[MB_PATH_MAX];

    for (int k = 0; k < 2; k++) {
        mb_checkpoints *c = folder_open(mb_comm_self(), dir, 0, 16 << 10);
        const mb_checkpoint_info info = info_of(200);
        mb_save_outcome outcome;
        run r;

        optim = kinds[k];
        run_new(&r, mb_comm_self(), 1);
        assert_int_equal(save(c, &r, 100, 1, -1), MB_SAVE_PUBLISHED);
        run_free(&r);
        optim = "adamw";
        run_new(&r, mb_comm_self(), 1);
        path_of(path, 100);
        OK(mb_checkpoint_load(path, r.zero));
        OK(mb_checkpoints_begin(c, r.zero, &info, -1, k == 0));
        OK(mb_checkpoints_wait(c, &outcome));
        assert_int_equal(outcome, MB_SAVE_PUBLISHED);
        run_free(&r);
        optim = kinds[k];
        run_new(&r, mb_comm_self(), 1);
        path_of(path, 200);
        OK(mb_checkpoint_load(path, r.zero));
        run_check(&r, 1);
        run_free(&r);
        mb_checkpoints_close(c);
    }
    optim = "adamw";
}

static void no_checkpoint_is_not_an_error(void **state)
{
    char *path;

    OK(mb_checkpoint_find(mb_comm_self(), "/nonexistent/mbuyu", &path));
    assert_null(path);
}

static void a_background_save_has_the_values_of_its_step(void **state)
{
    mb_checkpoints *c = folder_open(mb_comm_self(), dir, 0, 0);
    const mb_checkpoint_info info = info_of(300);
    mb_save_outcome outcome = MB_SAVE_NONE;
    run r;

    run_new(&r, mb_comm_self(), 0);
    run_fill(&r, 3);
    OK(mb_checkpoints_begin(c, r.zero, &info, -1, true));
    run_fill(&r, 9); /* training goes on */
    assert_true(mb_checkpoints_is_saving(c));
    for (int i = 0; i < 10000 && outcome == MB_SAVE_NONE; i++) {
        double votes[MB_CHECKPOINT_VOTES];
        mb_checkpoints_vote(c, votes);
        OK(mb_checkpoints_poll(c, votes, &outcome));
        usleep(1000);
    }
    assert_int_equal(outcome, MB_SAVE_PUBLISHED);
    assert_false(mb_checkpoints_is_saving(c));
    find_and_check(300);
    /* one that nobody waits for is not published, and swept at the next start */
    const mb_checkpoint_info next = info_of(400);
    OK(mb_checkpoints_begin(c, r.zero, &next, -1, true));
    mb_checkpoints_close(c);
    run_free(&r);
    assert_false(exists("checkpoint-000400"));
    assert_true(exists("checkpoint-000400.partial"));
    mb_checkpoints_close(folder_open(mb_comm_self(), dir, 0, 0));
    assert_false(exists("checkpoint-000400.partial"));
    find_and_check(300);
}

/* The regular files of a checkpoint; names owned by the caller. */
static void files_of(const char *path, char ***names, size_t *n)
{
    OK(mb_path_list(path, names, n));
    assert_true(*n >= 6);
}

static void one_flipped_bit_anywhere_is_refused(void **state)
{
    char path[MB_PATH_MAX], file[MB_PATH_MAX], **names;
    size_t n_names;

    two_checkpoints(64 << 10);
    path_of(path, 200);
    files_of(path, &names, &n_names);
    for (int k = 0; k < 300; k++) {
        char *bytes;
        size_t n;
        run r;
        OK(mb_path_join(file, sizeof file, path, names[(size_t)k % n_names]));
        OK(mb_file_read(file, 1 << 30, &bytes, &n));
        const uint64_t bit = mb_rng_below(5, (uint64_t)k, n * 8);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        OK(mb_file_write_atomic(file, bytes, n));
        REFUSED(mb_checkpoint_verify(mb_comm_self(), path), MB_EIO);
        if (k % 30 < (int)n_names) /* whole way: the one before is used */
            find_and_check(100);
        run_new(&r, mb_comm_self(), 1); /* without asking first: an error or the right values */
        if (mb_checkpoint_load(path, r.zero) == MB_OK)
            run_check(&r, 2);
        mb_status_clear();
        run_free(&r);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        OK(mb_file_write_atomic(file, bytes, n));
        mb_free(bytes);
    }
    mb_path_list_free(names, n_names);
    find_and_check(200);
}

static void cut_missing_and_strange_files_are_refused(void **state)
{
    char path[MB_PATH_MAX], old[MB_PATH_MAX], file[MB_PATH_MAX], other[MB_PATH_MAX], **names;
    size_t n_names;

    two_checkpoints(64 << 10);
    path_of(path, 200);
    path_of(old, 100);
    files_of(path, &names, &n_names);
    for (size_t i = 0; i < n_names; i++) {
        char *bytes, *stale;
        size_t n, m;
        OK(mb_path_join(file, sizeof file, path, names[i]));
        OK(mb_file_read(file, 1 << 30, &bytes, &n));
        for (int k = 0; k < 8; k++) { /* cut short, also to nothing */
            OK(mb_file_write_atomic(file, bytes, k == 0 ? 0 : n - 1 - mb_rng_below(6, k, n - 1)));
            REFUSED(mb_checkpoint_verify(mb_comm_self(), path), MB_EIO);
        }
        memset(bytes + n / 2, 0, n / 4); /* a hole of zeros */
        OK(mb_file_write_atomic(file, bytes, n));
        REFUSED(mb_checkpoint_verify(mb_comm_self(), path), MB_EIO);
        mb_free(bytes);
        OK(mb_file_read(file, 1 << 30, &bytes, &n));
        assert_int_equal(unlink(file), 0);
        REFUSED(mb_checkpoint_verify(mb_comm_self(), path), MB_EIO);
        find_and_check(100);
        mb_free(bytes);
        /* the file of that name from the checkpoint before */
        OK(mb_path_join(other, sizeof other, old, names[i]));
        OK(mb_file_read(other, 1 << 30, &stale, &m));
        OK(mb_file_write_atomic(file, stale, m));
        if (strcmp(names[i], "recipe.yaml") != 0) /* the same in both */
            REFUSED(mb_checkpoint_verify(mb_comm_self(), path), MB_EIO);
        mb_free(stale);
        two_checkpoints(64 << 10); /* saved again over what is there */
        OK(mb_checkpoint_verify(mb_comm_self(), path));
    }
    mb_path_list_free(names, n_names);
    OK(mb_path_join(file, sizeof file, path, "notes.txt"));
    OK(mb_file_write_atomic(file, "mine", 4)); /* an extra file is nobody's business */
    find_and_check(200);
}

static void when_all_are_broken_it_says_so(void **state)
{
    char path[MB_PATH_MAX], file[MB_PATH_MAX], *found;

    two_checkpoints(0);
    for (int64_t step = 100; step <= 200; step += 100) {
        path_of(path, step);
        OK(mb_path_join(file, sizeof file, path, "state.h5"));
        assert_int_equal(truncate(file, 100), 0);
    }
    assert_int_equal(mb_checkpoint_find(mb_comm_self(), dir, &found), MB_EIO);
    assert_non_null(strstr(mb_status_sentence(), "none of the 2 checkpoints"));
    mb_status_clear();
}

static void a_folder_may_be_moved_and_copied(void **state)
{
    char moved[300], before[1024], *path;
    run r;

    two_checkpoints(64 << 10);
    snprintf(moved, sizeof moved, "%s-moved", dir);
    assert_int_equal(rename(dir, moved), 0);
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(moved), 0);
    OK(mb_checkpoint_find(mb_comm_self(), ".", &path));
    run_new(&r, mb_comm_self(), 1);
    OK(mb_checkpoint_load(path, r.zero));
    run_check(&r, 2);
    run_free(&r);
    mb_free(path);
    assert_int_equal(chdir(before), 0);
}

static void the_newest_and_the_best_are_kept(void **state)
{
    mb_checkpoints *c = folder_open(mb_comm_self(), dir, 2, 0);
    int64_t *steps;
    size_t n;
    run r;

    run_new(&r, mb_comm_self(), 1);
    for (int i = 1; i <= 6; i++)
        assert_int_equal(save(c, &r, 100 * i, i, 200), MB_SAVE_PUBLISHED);
    OK(mb_checkpoint_list(dir, &steps, &n));
    assert_int_equal(n, 3);
    assert_true(steps[0] == 200 && steps[1] == 500 && steps[2] == 600);
    mb_free(steps);
    find_and_check(600);
    OK(mb_checkpoints_supersede(c, 500));
    find_and_check(500);
    assert_true(exists("checkpoint-000600.superseded"));
    run_free(&r);
    mb_checkpoints_close(c);
}

static void one_run_at_a_time_may_write(void **state)
{
    const mb_checkpoints_options o = {.output_dir = dir};
    mb_checkpoints *c = folder_open(mb_comm_self(), dir, 0, 0), *second = NULL;
    char pid[32];

    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_int_equal(mb_checkpoints_open(mb_comm_self(), &o, &second), MB_EIO);
    assert_non_null(strstr(mb_status_sentence(), pid));
    mb_status_clear();
    mb_checkpoints_close(c);
    mb_checkpoints_close(folder_open(mb_comm_self(), dir, 0, 0));
}

static void a_folder_that_cannot_be_made_is_an_error(void **state)
{
    char file[300];
    const mb_checkpoints_options o = {.output_dir = file};
    mb_checkpoints *c;

    OK(mb_path_mkdirs(dir));
    snprintf(file, sizeof file, "%s/x", dir);
    OK(mb_file_write_atomic(file, "x", 1));
    REFUSED(mb_checkpoints_open(mb_comm_self(), &o, &c), MB_EIO);
}

static void a_full_disk_costs_only_that_checkpoint(void **state)
{
    struct rlimit before, small;
    mb_checkpoints *c;
    run r;

    two_checkpoints(0);
    c = folder_open(mb_comm_self(), dir, 0, 0);
    run_new(&r, mb_comm_self(), 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (rlim_t limit = 64; limit < (1 << 20); limit = limit * 3 / 2) {
        small = (struct rlimit){.rlim_cur = limit, .rlim_max = before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
        const mb_save_outcome outcome = save(c, &r, 300, 3, -1);
        setrlimit(RLIMIT_FSIZE, &before);
        if (outcome == MB_SAVE_PUBLISHED) {
            assert_true(limit > 60000);
            find_and_check(300);
            break;
        }
        assert_int_equal(outcome, MB_SAVE_FAILED);
        assert_true(mb_checkpoints_failure(c)[0]);
        assert_false(exists("checkpoint-000300.partial"));
        assert_false(exists("checkpoint-000300"));
        find_and_check(200);
    }
    run_free(&r);
    mb_checkpoints_close(c);
}

static void values_that_are_not_finite_are_not_published(void **state)
{
    mb_checkpoints *c = folder_open(mb_comm_self(), dir, 0, 0);
    const mb_checkpoint_info info = info_of(100);
    mb_save_outcome outcome;
    run r;

    run_new(&r, mb_comm_self(), 1);
    run_fill(&r, 1);
    own_numbers(&r, 1 + 1)[12345] = NAN;
    OK(mb_checkpoints_begin(c, r.zero, &info, -1, false));
    OK(mb_checkpoints_wait(c, &outcome));
    assert_int_equal(outcome, MB_SAVE_FAILED);
    assert_non_null(strstr(mb_checkpoints_failure(c), "/optim/exp_avg_sq/"));
    assert_false(exists("checkpoint-000100"));
    assert_false(exists("checkpoint-000100.partial"));
    run_free(&r);
    mb_checkpoints_close(c);
}

static void another_model_is_named(void **state)
{
    char path[MB_PATH_MAX];
    run r;

    two_checkpoints(0);
    path_of(path, 200);
    run_new(&r, mb_comm_self(), 1);
    r.segment[4].dim[0] = 13;
    r.segment[4].dim[2] = 9;
    assert_int_equal(mb_checkpoint_load(path, r.zero), MB_EMODEL);
    assert_non_null(strstr(mb_status_sentence(), "model.layers.1.w"));
    assert_non_null(strstr(mb_status_sentence(), "[9,41,13]"));
    mb_status_clear();
    r.segment[4] = (mb_flat_segment){.name = "another",
                                     .offset = r.segment[4].offset,
                                     .count = r.segment[4].count,
                                     .ndim = 1,
                                     .dim = {r.segment[4].count}};
    assert_int_equal(mb_checkpoint_load(path, r.zero), MB_EMODEL);
    assert_non_null(strstr(mb_status_sentence(), "model.layers.1.w"));
    mb_status_clear();
    run_free(&r);
}

/* A child saves step 200 over checkpoints 100 (and 200, when `again`) and is killed at place n; true
 * when it got through. */
static bool child_saves(int n, bool again, bool async)
{
    char text[16];
    int status;

    if (!again) {
        char path[MB_PATH_MAX];
        path_of(path, 200);
        OK(mb_path_remove_tree(path));
    }
    snprintf(text, sizeof text, "%d", n);
    const pid_t pid = fork();
    if (pid == 0) {
        setenv("MBUYU_TEST_KILL_AT", text, 1);
        const mb_checkpoint_info info = info_of(200);
        mb_checkpoints *c = folder_open(mb_comm_self(), dir, again ? 1 : 0, 64 << 10);
        mb_save_outcome outcome;
        run r;
        run_new(&r, mb_comm_self(), 1);
        run_fill(&r, 2);
        if (mb_checkpoints_begin(c, r.zero, &info, -1, async) != MB_OK ||
            mb_checkpoints_wait(c, &outcome) != MB_OK || outcome != MB_SAVE_PUBLISHED)
            _exit(1);
        _exit(0);
    }
    assert_true(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status))
        assert_int_equal(WEXITSTATUS(status), 0);
    else
        assert_int_equal(WTERMSIG(status), SIGKILL);
    return WIFEXITED(status);
}

static void a_kill_leaves_the_old_or_the_new(bool again, bool async)
{
    int n = 1;
    bool seen_old = false, seen_new = false;

    two_checkpoints(64 << 10);
    for (bool through = false; !through; n++) {
        int64_t *steps;
        size_t n_steps;
        through = child_saves(n, again, async);
        OK(mb_checkpoint_list(dir, &steps, &n_steps));
        const int64_t newest = steps[n_steps - 1];
        seen_old = seen_old || newest == 100;
        seen_new = seen_new || newest == 200;
        find_and_check(newest);
        if (again)
            assert_int_equal(newest, 200);
        mb_free(steps);
        mb_checkpoints_close(folder_open(mb_comm_self(), dir, 0, 0)); /* the next start */
        assert_false(exists("checkpoint-000200.partial"));
        assert_true(n < 500);
        if (again && !exists("checkpoint-000100"))
            two_checkpoints(64 << 10);
    }
    assert_true(n > 20 && seen_new && (again || seen_old));
}

static void a_kill_at_any_place_of_a_save_loses_nothing(void **state)
{
    a_kill_leaves_the_old_or_the_new(false, false);
}

static void a_kill_at_any_place_of_a_background_save_loses_nothing(void **state)
{
    a_kill_leaves_the_old_or_the_new(false, true);
}

static void a_kill_while_replacing_or_removing_loses_nothing(void **state)
{
    a_kill_leaves_the_old_or_the_new(true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_is_saved_comes_back, setup),
        cmocka_unit_test_setup(states_survive_a_detour_over_another_kind, setup),
        cmocka_unit_test_setup(no_checkpoint_is_not_an_error, setup),
        cmocka_unit_test_setup(a_background_save_has_the_values_of_its_step, setup),
        cmocka_unit_test_setup(one_flipped_bit_anywhere_is_refused, setup),
        cmocka_unit_test_setup(cut_missing_and_strange_files_are_refused, setup),
        cmocka_unit_test_setup(when_all_are_broken_it_says_so, setup),
        cmocka_unit_test_setup(a_folder_may_be_moved_and_copied, setup),
        cmocka_unit_test_setup(the_newest_and_the_best_are_kept, setup),
        cmocka_unit_test_setup(one_run_at_a_time_may_write, setup),
        cmocka_unit_test_setup(a_folder_that_cannot_be_made_is_an_error, setup),
        cmocka_unit_test_setup(a_full_disk_costs_only_that_checkpoint, setup),
        cmocka_unit_test_setup(values_that_are_not_finite_are_not_published, setup),
        cmocka_unit_test_setup(another_model_is_named, setup),
        cmocka_unit_test_setup(a_kill_at_any_place_of_a_save_loses_nothing, setup),
        cmocka_unit_test_setup(a_kill_at_any_place_of_a_background_save_loses_nothing, setup),
        cmocka_unit_test_setup(a_kill_while_replacing_or_removing_loses_nothing, setup),
    };

    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
