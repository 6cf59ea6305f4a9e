/* test_metrics.c - records and the files that sinks make of them. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/train/metrics.h"
#include "recipes/train/progress.h"
#include "recipes/train/tfevents.h"
#include "tests/unit/root_test.h"

static mb_metric_run the_run(void)
{
    return (mb_metric_run){.output_dir = root,
                           .max_steps = 40,
                           .train_batch_size = 4,
                           .logging_steps = 10,
                           .eval_steps = 20,
                           .save_steps = 20,
                           .num_train_epochs = 2,
                           .terminal = -1};
}

static mb_sinks *open_sinks(const mb_metric_run *run)
{
    static const char *const names[] = {"jsonl", "tensorboard", NULL};
    mb_sinks *s;

    assert_int_equal(mb_sinks_open(run, names, &s), MB_OK);
    return s;
}

static void log_step(mb_sinks *s, int step, double loss)
{
    mb_metrics m = {.step = step, .epoch = step / 20.0};

    mb_metrics_add(&m, "loss", loss);
    mb_metrics_add(&m, "learning_rate", 2e-4);
    mb_metrics_add(&m, "num_tokens", 100.0 * step);
    assert_int_equal(mb_sinks_log(s, &m), MB_OK);
}

static char *text_of(const char *name)
{
    char path[MB_PATH_MAX], *text;
    size_t n;

    assert_int_equal(mb_path_join(path, sizeof path, root, name), MB_OK);
    assert_int_equal(mb_file_read(path, 1 << 20, &text, &n), MB_OK);
    return text;
}

static int count(const char *text, const char *what)
{
    int n = 0;

    while ((text = strstr(text, what)) != NULL) {
        text += strlen(what);
        n++;
    }
    return n;
}

static void each_record_is_a_line_of_json(void **state)
{
    const mb_metric_run run = the_run();
    mb_sinks *s = open_sinks(&run);
    char *text;

    log_step(s, 10, 4.5);
    log_step(s, 20, NAN);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    text = text_of("logs/train.jsonl");
    assert_int_equal(count(text, "\n"), 2);
    assert_ptr_equal(strstr(text, "{\"step\":10,\"epoch\":0.5,\"time\":"), text);
    assert_non_null(
        strstr(text, ",\"loss\":4.5,\"learning_rate\":0.0002,\"num_tokens\":1000}\n{\"step\":20"));
    assert_non_null(strstr(text, "\"loss\":null"));
    mb_free(text);
}

static void a_resumed_log_forgets_what_came_after_the_checkpoint(void **state)
{
    mb_metric_run run = the_run();
    mb_sinks *s = open_sinks(&run);
    char *text;

    for (int step = 10; step <= 40; step += 10)
        log_step(s, step, step);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    run.resume_step = 20;
    run.resume_dir = root;
    s = open_sinks(&run);
    log_step(s, 30, 33.0);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    text = text_of("logs/train.jsonl");
    assert_int_equal(count(text, "\"step\""), 3);
    assert_int_equal(count(text, "\"loss\":33.0"), 1);
    assert_int_equal(count(text, "\"loss\":30.0"), 0);
    mb_free(text);
}

static void a_line_cut_short_by_a_crash_goes(void **state)
{
    mb_metric_run run = the_run();
    mb_sinks *s;
    char path[MB_PATH_MAX], *text;
    FILE *f;

    snprintf(path, sizeof path, "%s/logs", root);
    assert_int_equal(mb_path_mkdirs(path), MB_OK);
    snprintf(path, sizeof path, "%s/logs/train.jsonl", root);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"step\":10,\"loss\":1.0}\n{\"step\":20,\"lo", f);
    fclose(f);
    run.resume_step = 20;
    s = open_sinks(&run);
    log_step(s, 30, 3.0);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    text = text_of("logs/train.jsonl");
    assert_int_equal(count(text, "\n"), 2);
    assert_ptr_equal(strstr(text, "{\"step\":10,\"loss\":1.0}\n{\"step\":30,"), text);
    mb_free(text);
}

static void a_new_run_starts_a_new_log(void **state)
{
    const mb_metric_run run = the_run();
    mb_sinks *s = open_sinks(&run);
    char *text;

    log_step(s, 10, 1.0);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    s = open_sinks(&run);
    log_step(s, 10, 2.0);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    text = text_of("logs/train.jsonl");
    assert_int_equal(count(text, "\n"), 1);
    assert_non_null(strstr(text, "\"loss\":2.0"));
    mb_free(text);
}

static void trainer_state_has_what_plot_scripts_read(void **state)
{
    const mb_metric_run run = the_run();
    mb_sinks *s = open_sinks(&run);
    mb_json_doc *doc;
    mb_json history;
    double v;
    int64_t n;
    char path[MB_PATH_MAX];

    log_step(s, 10, 4.5);
    mb_sinks_best(s, 2.5, "out/checkpoint-000010");
    log_step(s, 20, 3.5);
    snprintf(path, sizeof path, "%s/checkpoint-000020", root);
    assert_int_equal(mb_path_mkdirs(path), MB_OK);
    assert_int_equal(mb_sinks_checkpoint(s, path, 20), MB_OK);
    snprintf(path, sizeof path, "%s/checkpoint-000020/trainer_state.json", root);
    assert_int_equal(mb_json_read(path, MB_EIO, 1 << 20, &doc), MB_OK);
    assert_int_equal(mb_json_get_int(mb_json_root(doc), "global_step", 0, &n), MB_OK);
    assert_int_equal(n, 20);
    assert_int_equal(mb_json_get_int(mb_json_root(doc), "best_global_step", 0, &n), MB_OK);
    assert_int_equal(n, 10);
    assert_int_equal(mb_json_get_real(mb_json_root(doc), "best_metric", 0, &v), MB_OK);
    assert_true(v == 2.5);
    history = mb_json_get(mb_json_root(doc), "log_history");
    assert_int_equal(mb_json_count(history), 2);
    assert_int_equal(mb_json_get_real(mb_json_at(history, 1), "loss", 0, &v), MB_OK);
    assert_true(v == 3.5);
    assert_int_equal(mb_json_get_int(mb_json_at(history, 1), "step", 0, &n), MB_OK);
    assert_int_equal(n, 20);
    mb_json_free(doc);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
}

static void trainer_state_goes_on_from_a_checkpoint(void **state)
{
    mb_metric_run run = the_run();
    mb_sinks *s = open_sinks(&run);
    char path[MB_PATH_MAX], *text;

    for (int step = 10; step <= 30; step += 10)
        log_step(s, step, step);
    assert_int_equal(mb_sinks_close(&s), MB_OK); /* writes output_dir/trainer_state.json */
    run.resume_dir = root;
    run.resume_step = 20;
    s = open_sinks(&run);
    log_step(s, 30, 77.0);
    snprintf(path, sizeof path, "%s/later", root);
    assert_int_equal(mb_path_mkdirs(path), MB_OK);
    assert_int_equal(mb_sinks_checkpoint(s, path, 30), MB_OK);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    text = text_of("later/trainer_state.json");
    assert_int_equal(count(text, "\"loss\": "), 3);
    assert_int_equal(count(text, "\"loss\": 77.0"), 1);
    assert_int_equal(count(text, "\"num_input_tokens_seen\": 3000"), 1);
    mb_free(text);
}

static void an_unknown_place_to_report_to_is_named(void **state)
{
    static const char *const names[] = {"wandb", NULL};
    const mb_metric_run run = the_run();
    mb_sinks *s;

    mb_status_clear();
    assert_int_equal(mb_sinks_open(&run, names, &s), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "wandb"));
    mb_status_clear();
}

static void crc32c_has_its_published_values(void **state)
{
    static const unsigned char zeros[32]; /* RFC 3720, B.4 */
    unsigned char ones[32];

    memset(ones, 0xff, sizeof ones);
    assert_int_equal(mb_crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(mb_crc32c(zeros, 32), 0x8a9136aa);
    assert_int_equal(mb_crc32c(ones, 32), 0x62a8ab43);
    assert_int_equal(mb_crc32c("", 0), 0);
}

/* What tensorboard 2.21 wrote for the same three events. */
static void event_files_equal_tensorboards_own(void **state)
{
    static const char hex[] =
        "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b353110"
        "100000000000000095fbfe180900005040fc54d94110c9013a020801fe5e67893300000000000000"
        "0ca720560900008040fc54d94110ac022a250a110a0a747261696e2f6c6f737315000020400a100a"
        "096576616c2f6c6f7373150000c07f663821a0";
    static const char *const tags[] = {"train/loss", "eval/loss"};
    static const double values[] = {2.5, NAN};
    char got[2 * 139 + 1];
    mb_bytes b = {0};

    assert_int_equal(mb_tfevents_version(&b, 1700000000.5), MB_OK);
    assert_int_equal(mb_tfevents_start(&b, 1700000001.25, 201), MB_OK);
    assert_int_equal(mb_tfevents_scalars(&b, 1700000002.0, 300, 2, tags, values), MB_OK);
    assert_int_equal(b.n, 139);
    for (size_t i = 0; i < b.n; i++)
        snprintf(got + 2 * i, 3, "%02x", b.data[i]);
    assert_string_equal(got, hex);
    mb_free(b.data);
}

static void event_files_carry_the_tags_of_transformers(void **state)
{
    const mb_metric_run run = the_run();
    mb_sinks *s = open_sinks(&run);
    mb_metrics m = {.step = 20, .epoch = 1.0};
    char dir[MB_PATH_MAX], path[MB_PATH_MAX], **names, *data;
    size_t n, bytes;

    log_step(s, 10, 4.5);
    mb_metrics_add(&m, "eval_loss", 3.0);
    assert_int_equal(mb_sinks_log(s, &m), MB_OK);
    assert_int_equal(mb_sinks_close(&s), MB_OK);
    assert_int_equal(mb_path_join(dir, sizeof dir, root, "runs"), MB_OK);
    assert_int_equal(mb_path_list(dir, &names, &n), MB_OK);
    assert_int_equal(n, 1);
    assert_int_equal(strncmp(names[0], "events.out.tfevents.", 20), 0);
    assert_int_equal(mb_path_join(path, sizeof path, dir, names[0]), MB_OK);
    assert_int_equal(mb_file_read(path, 1 << 20, &data, &bytes), MB_OK);
    assert_non_null(memmem(data, bytes, "brain.Event:2", 13));
    assert_non_null(memmem(data, bytes, "train/loss", 10));
    assert_non_null(memmem(data, bytes, "train/learning_rate", 19));
    assert_non_null(memmem(data, bytes, "eval/loss", 9));
    mb_free(data);
    mb_path_list_free(names, n);
}

static void the_bar_fills_and_fits(void **state)
{
    const mb_progress p = {.step = 120,
                           .total = 368,
                           .loss = 3.2141,
                           .learning_rate = 1.9e-4,
                           .tokens_per_second = 1234.4};
    char line[1024];

    for (int width = 0; width < 200; width++) {
        const mb_progress_style style = {.width = width};
        const int columns = mb_progress_line(line, sizeof line, &p, 192, 1200000000, &style);

        assert_true(columns <= width);
        assert_int_equal(strlen(line), columns);
    }
    assert_string_equal(line, "120/368  32% #############...........................  loss 3.214"
                              "  lr 1.9e-04  1234 tok/s  ETA 3:12  1.2 GB");

    const mb_progress_style narrow = {.width = 30};

    mb_progress_line(line, sizeof line, &p, 192, 1200000000, &narrow);
    assert_string_equal(line, "120/368  32%  loss 3.214");
}

static void a_bar_before_the_first_step_shows_what_is_known(void **state)
{
    const mb_progress p = {
        .total = 10, .loss = NAN, .learning_rate = NAN, .tokens_per_second = NAN};
    const mb_progress_style style = {.width = 24, .colour = true, .utf8 = true};
    char line[256];

    mb_progress_line(line, sizeof line, &p, -1, -1, &style);
    assert_string_equal(line, "0/10   0% \033[32m\033[2;37m"
                              "──────────────\033[0m");
}

static void durations_read_well(void **state)
{
    char text[32];

    mb_progress_duration(text, sizeof text, 59.6);
    assert_string_equal(text, "1:00");
    mb_progress_duration(text, sizeof text, 3723);
    assert_string_equal(text, "1:02:03");
    mb_progress_duration(text, sizeof text, 2 * 86400 + 3 * 3600 + 4 * 60);
    assert_string_equal(text, "2d 03:04");
    mb_progress_duration(text, sizeof text, INFINITY);
    assert_non_null(strstr(text, "d "));
}

static void a_record_is_a_plain_line(void **state)
{
    mb_metrics m = {.step = 10, .epoch = 0.5};
    char line[256];

    mb_metrics_add(&m, "loss", 4.56789);
    mb_metrics_add(&m, "learning_rate", 2e-5);
    mb_metrics_add(&m, "num_tokens", 77); /* for files only */
    mb_metrics_add(&m, "tokens_per_second", 12345.6);
    mb_progress_record(line, sizeof line, &m, 40);
    assert_string_equal(line, "step 10/40  epoch 0.50  loss 4.568  learning_rate 2.00e-05  "
                              "tokens_per_second 12346");
    mb_progress_record(line, 24, &m, 0);
    assert_string_equal(line, "step 10  epoch 0.50");
}

int main(void)
{
#define IN_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        IN_ROOT(each_record_is_a_line_of_json),
        IN_ROOT(a_resumed_log_forgets_what_came_after_the_checkpoint),
        IN_ROOT(a_line_cut_short_by_a_crash_goes),
        IN_ROOT(a_new_run_starts_a_new_log),
        IN_ROOT(trainer_state_has_what_plot_scripts_read),
        IN_ROOT(trainer_state_goes_on_from_a_checkpoint),
        IN_ROOT(an_unknown_place_to_report_to_is_named),
        cmocka_unit_test(crc32c_has_its_published_values),
        cmocka_unit_test(event_files_equal_tensorboards_own),
        IN_ROOT(event_files_carry_the_tags_of_transformers),
        cmocka_unit_test(the_bar_fills_and_fits),
        cmocka_unit_test(a_bar_before_the_first_step_shows_what_is_known),
        cmocka_unit_test(durations_read_well),
        cmocka_unit_test(a_record_is_a_plain_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
