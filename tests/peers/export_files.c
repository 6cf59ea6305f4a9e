/* export_files.c - writes what export.py reads: adapter configs, model folders, training logs.
 *
 *     export_files OUT BASE_MODEL_DIR
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/path.h"
#include "recipes/export/hf_folder.h"
#include "recipes/export/peft.h"
#include "recipes/train/metrics.h"

static mb_status folder(char *path, const char *out, const char *name)
{
    MB_TRY(mb_path_join(path, MB_PATH_MAX, out, name));
    return mb_path_mkdirs(path);
}

static mb_status adapters(const char *out, const char *base)
{
    const char *target[] = {"q_proj", "down_proj"}, *save[] = {"lm_head"};
    mb_peft_pattern rank[] = {{"layers.0.self_attn.q_proj", 4}}, alpha[] = {{"down_proj", 3}};
    const mb_peft list = {.task_type = "CAUSAL_LM",
                          .base = base,
                          .r = 8,
                          .alpha = 16,
                          .dropout = 0.05,
                          .rslora = true,
                          .target = target,
                          .n_target = 2,
                          .save = save,
                          .n_save = 1,
                          .rank_pattern = rank,
                          .n_rank_pattern = 1,
                          .alpha_pattern = alpha,
                          .n_alpha_pattern = 1};
    const mb_peft all = {.r = 4, .alpha = 4.5, .target_regex = "all-linear", .base = base};
    const mb_peft regex = {.r = 4, .alpha = 8, .target_regex = ".*\\.1\\..*(k|v)_proj"};
    char path[MB_PATH_MAX];

    MB_TRY(folder(path, out, "adapter-list"));
    MB_TRY(mb_peft_write(path, &list));
    MB_TRY(folder(path, out, "adapter-all"));
    MB_TRY(mb_peft_write(path, &all));
    MB_TRY(folder(path, out, "adapter-regex"));
    return mb_peft_write(path, &regex);
}

static mb_status model(const char *out, const char *base)
{
    static const char *const language[] = {"sw", NULL};
    static const mb_card_row results[] = {{"loss", "2.5"}, {0}};
    const mb_card card = {.title = "A \"model\": it's one",
                          .base_model = "owner/base",
                          .library_name = "transformers",
                          .pipeline_tag = "text-generation",
                          .language = language,
                          .results = results};
    char path[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, base, "config.json"));
    MB_TRY(mb_json_read(path, MB_EMODEL, 1 << 20, &doc));

    const mb_hf_folder f = {.config = mb_json_root(doc),
                            .base_dir = base,
                            .edits = {.dtype = "bfloat16", .num_labels = 3},
                            .card = &card};

    MB_TRY_GOTO(folder(path, out, "model"), st, done);
    MB_TRY_GOTO(mb_hf_write_folder(path, &f), st, done);
done:
    mb_json_free(doc);
    return st;
}

static mb_status logs(const char *out)
{
    static const char *const names[] = {"all", NULL};
    mb_metric_run run = {.output_dir = out,
                         .max_steps = 300,
                         .num_train_epochs = 2,
                         .train_batch_size = 4,
                         .terminal = -1};
    char path[MB_PATH_MAX];
    mb_sinks *s;

    for (int part = 0; part < 2; part++) { /* the second goes on from step 200 of the first */
        MB_TRY(mb_sinks_open(&run, names, &s));
        for (int step = (int)run.resume_step + 10; step <= (part == 0 ? 250 : 300); step += 10) {
            mb_metrics m = {.step = step, .epoch = step / 150.0};

            mb_metrics_add(&m, "loss", 5.0 - step / 100.0 + part);
            mb_metrics_add(&m, "learning_rate", 1e-4);
            if (step % 100 == 0)
                mb_metrics_add(&m, "eval_loss", step == 200 ? NAN : 3.25);
            MB_TRY(mb_sinks_log(s, &m));
        }
        MB_TRY(folder(path, out, "checkpoint"));
        MB_TRY(mb_sinks_checkpoint(s, path, 200));
        MB_TRY(mb_sinks_close(&s));
        run.resume_dir = path;
        run.resume_step = 200;
    }
    return MB_OK;
}

int main(int argc, char **argv)
{
    mb_status st = argc == 3 ? MB_OK : MB_EARG;

    if (st == MB_OK)
        st = adapters(argv[1], argv[2]);
    if (st == MB_OK)
        st = model(argv[1], argv[2]);
    if (st == MB_OK)
        st = logs(argv[1]);
    if (st != MB_OK)
        fprintf(stderr, "export_files: %s\n", mb_status_sentence());
    return mb_status_exit_code(st);
}
