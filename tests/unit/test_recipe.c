/* tests/unit/test_recipe.c - recipes: defaults, names of other trainers, overrides, references, the
 * sentences for wrong ones, printing, resuming, and the ready recipes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/alloc.h"
#include "core/path.h"
#include "optim/optimizer.h"
#include "recipes/config/dataset_files.h"
#include "recipes/config/model_path.h"
#include "recipes/config/recipe.h"
#include "recipes/config/schema.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Loads a text with a command line whose words are separated by spaces. */
static mb_status load(const char *text, const char *args, mb_recipe **r)
{
    char words[512], *argv[32] = {(char *)"test"};
    int argc = 1;

    mb_status_clear();
    snprintf(words, sizeof words, "%s", args);
    for (char *w = strtok(words, " "); w != NULL; w = strtok(NULL, " "))
        argv[argc++] = w;
    *r = NULL;
    return mb_recipe_load_text("t.yaml", text, strlen(text), argc, argv, r);
}

static mb_recipe *load_ok(const char *text, const char *args)
{
    mb_recipe *r;

    if (load(text, args, &r) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    return r;
}

static void defaults_are_those_of_transformers(void **state)
{
    mb_recipe *r = load_ok("", "");

    assert_true(r->num_train_epochs == 3.0);
    assert_int_equal(r->max_steps, -1);
    assert_true(r->learning_rate == 5e-5);
    assert_string_equal(r->lr_scheduler_type, "linear");
    assert_int_equal(r->per_device_train_batch_size, 8);
    assert_int_equal(r->gradient_accumulation_steps, 1);
    assert_int_equal(r->global_batch_size, 0);
    assert_true(r->adam_beta1 == 0.9 && r->adam_beta2 == 0.999 && r->adam_epsilon == 1e-8);
    assert_true(r->weight_decay == 0.0 && r->max_grad_norm == 1.0);
    assert_int_equal(r->seed, 42);
    assert_int_equal(r->data_seed, 42);
    assert_true(r->save_steps == 500.0 && r->logging_steps == 10.0 && r->eval_steps == 10.0);
    assert_int_equal(r->task, MB_TASK_CAUSAL_LM);
    assert_int_equal(r->stage, MB_STAGE_SFT);
    assert_int_equal(r->finetuning_type, MB_FINETUNING_FULL);
    assert_int_equal(r->bf16, MB_AUTO);
    assert_int_equal(r->eval_strategy, MB_EVAL_NO);
    assert_null(r->output_dir);
    assert_string_equal(r->completion_suffix, "");
    assert_int_equal(r->max_shard_size, 5000000000);
    assert_int_equal(r->datasets.n, 0);
    assert_int_equal(r->lora_target_modules.n, 1);
    assert_true(mb_strings_have(&r->report_to, "jsonl"));
    assert_false(mb_recipe_is_set(r, "seed"));
    assert_string_equal(mb_recipe_where(r, "seed"), "default");
    mb_recipe_free(r);
}

static void a_file_fills_typed_fields(void **state)
{
    mb_recipe *r = load_ok("model_name_or_path: ./m\n"
                           "finetuning_type: lora\n"
                           "lora_target_modules: [q_proj, v_proj]\n"
                           "datasets:\n"
                           "  - path: a.jsonl\n"
                           "    type: alpaca\n"
                           "    field_map: {output: answer}\n"
                           "    weight: 0.5\n"
                           "  - b.csv\n"
                           "learning_rate: 2e-4\n"
                           "packing: yes\n"
                           "bf16: off\n"
                           "eval_strategy: no\n"
                           "time_limit: 3h30m\n"
                           "max_shard_size: 500MB\n"
                           "completion_suffix: \"\\n\"\n"
                           "stop: END\n"
                           "lr_scheduler_type: cosine_with_min_lr\n"
                           "lr_scheduler_kwargs: {min_lr: 1e-6}\n"
                           "save_steps: 0.1\n"
                           "max_steps: 1e3\n",
                           "");

    assert_string_equal(r->model_name_or_path, "./m");
    assert_int_equal(r->finetuning_type, MB_FINETUNING_LORA);
    assert_true(r->lora_target_modules.is_list);
    assert_int_equal(r->lora_target_modules.n, 2);
    assert_string_equal(r->lora_target_modules.at[1], "v_proj");
    assert_int_equal(r->datasets.n, 2);
    assert_string_equal(r->datasets.at[0].path, "a.jsonl");
    assert_int_equal(r->datasets.at[0].type, MB_ROWS_ALPACA);
    assert_string_equal(r->datasets.at[0].field_map.name[0], "output");
    assert_string_equal(r->datasets.at[0].field_map.value[0], "answer");
    assert_true(r->datasets.at[0].weight == 0.5);
    assert_string_equal(r->datasets.at[0].where, "t.yaml:5:5");
    assert_string_equal(r->datasets.at[1].path, "b.csv");
    assert_string_equal(r->datasets.at[1].split, "train");
    assert_true(r->datasets.at[1].weight == 1.0);
    assert_true(r->learning_rate == 2e-4);
    assert_true(r->packing);
    assert_int_equal(r->bf16, MB_NO);
    assert_int_equal(r->eval_strategy, MB_EVAL_NO);
    assert_true(r->time_limit == 12600.0);
    assert_int_equal(r->max_shard_size, 500000000);
    assert_string_equal(r->completion_suffix, "\n");
    assert_false(r->stop.is_list);
    assert_string_equal(r->stop.at[0], "END");
    assert_true(r->lr_min == 1e-6);
    assert_int_equal(r->max_steps, 1000);
    assert_string_equal(mb_recipe_where(r, "learning_rate"), "t.yaml:10:1");
    assert_int_equal(mb_recipe_steps(r->save_steps, 1001), 101);
    mb_recipe_free(r);
}

static void times_and_sizes(void **state)
{
    static const struct {
        const char *text;
        double seconds;
    } times[] = {{"90", 90},        {"90m", 5400},  {"1h", 3600},     {"01:30:00", 5400},
                 {"2d12h", 216000}, {"1.5h", 5400}, {"1h2m3s", 3723}, {"45s", 45}};
    static const struct {
        const char *text;
        int64_t bytes;
    } sizes[] = {
        {"4096", 4096}, {"1KB", 1000}, {"1KiB", 1024}, {"2 GB", 2000000000}, {"0.5MiB", 524288}};
    char text[64];

    for (size_t i = 0; i < COUNT(times); i++) {
        snprintf(text, sizeof text, "time_limit: \"%s\"\n", times[i].text);
        mb_recipe *r = load_ok(text, "");
        assert_true(r->time_limit == times[i].seconds);
        mb_recipe_free(r);
    }
    for (size_t i = 0; i < COUNT(sizes); i++) {
        snprintf(text, sizeof text, "max_shard_size: %s\n", sizes[i].text);
        mb_recipe *r = load_ok(text, "");
        assert_int_equal(r->max_shard_size, sizes[i].bytes);
        mb_recipe_free(r);
    }
}

static void names_of_axolotl_are_ours(void **state)
{
    mb_recipe *r =
        load_ok("base_model: m\nadapter: lora\nlora_target_linear: true\n"
                "sequence_len: 512\nsample_packing: true\nmicro_batch_size: 2\n"
                "num_epochs: 4\noptimizer: adamw_torch\nlr_scheduler: cosine\n"
                "train_on_inputs: false\nload_in_4bit: false\nflash_attention: true\n"
                "datasets:\n  - path: x.jsonl\n    type: chat_template\n"
                "test_datasets:\n  - path: y.jsonl\nauto_resume_from_checkpoints: true\n",
                "");

    assert_string_equal(r->model_name_or_path, "m");
    assert_int_equal(r->finetuning_type, MB_FINETUNING_LORA);
    assert_string_equal(r->lora_target_modules.at[0], "all-linear");
    assert_int_equal(r->max_length, 512);
    assert_true(r->packing);
    assert_int_equal(r->per_device_train_batch_size, 2);
    assert_true(r->num_train_epochs == 4.0);
    assert_string_equal(r->optim, "adamw");
    assert_string_equal(r->lr_scheduler_type, "cosine");
    assert_int_equal(r->train_on, MB_TRAIN_ON_ASSISTANT);
    assert_int_equal(r->datasets.at[0].type, MB_ROWS_MESSAGES);
    assert_string_equal(r->eval_datasets.at[0].path, "y.jsonl");
    assert_string_equal(r->resume_from_checkpoint, "auto");
    mb_recipe_free(r);
}

static void names_of_llama_factory_trl_and_torchtune_are_ours(void **state)
{
    mb_recipe *r = load_ok("stage: sft\nfinetuning_type: lora\nlora_rank: 4\nlora_target: all\n"
                           "dataset: [a.json, b.json]\ncutoff_len: 99\nval_size: 0.1\n"
                           "train_on_prompt: true\ndisable_gradient_checkpointing: true\n"
                           "template: llama3\n",
                           "");
    assert_int_equal(r->lora_r, 4);
    assert_string_equal(r->lora_target_modules.at[0], "all-linear");
    assert_int_equal(r->datasets.n, 2);
    assert_int_equal(r->max_length, 99);
    assert_true(r->val_set_size == 0.1);
    assert_int_equal(r->train_on, MB_TRAIN_ON_ALL);
    assert_false(r->gradient_checkpointing);
    assert_string_equal(r->chat_template, "llama3");
    mb_recipe_free(r);

    r = load_ok("use_peft: true\ncompletion_only_loss: true\nmax_seq_length: 77\n"
                "evaluation_strategy: epoch\nresume_from_checkpoint: true\ndtype: float32\n",
                "");
    assert_int_equal(r->finetuning_type, MB_FINETUNING_LORA);
    assert_int_equal(r->train_on, MB_TRAIN_ON_COMPLETION);
    assert_int_equal(r->max_length, 77);
    assert_int_equal(r->eval_strategy, MB_EVAL_EPOCH);
    assert_string_equal(r->resume_from_checkpoint, "auto");
    assert_int_equal(r->bf16, MB_NO);
    mb_recipe_free(r);

    r = load_ok(
        "checkpointer:\n  checkpoint_dir: /m\noptimizer:\n  _component_: torch.optim.AdamW\n"
        "  lr: 3e-4\ntokenizer:\n  max_seq_len: 64\nlr_scheduler:\n  num_warmup_steps: 7\n"
        "dataset:\n  packed: True\nepochs: 1\nclip_grad_norm: null\n"
        "log_every_n_steps: 5\nenable_activation_checkpointing: True\n",
        "");
    assert_string_equal(r->model_name_or_path, "/m");
    assert_string_equal(r->optim, "adamw");
    assert_true(r->learning_rate == 3e-4);
    assert_int_equal(r->max_length, 64);
    assert_true(r->warmup_steps == 7.0);
    assert_true(r->packing);
    assert_true(r->max_grad_norm == 0.0);
    assert_true(r->logging_steps == 5.0);
    assert_true(r->gradient_checkpointing);
    mb_recipe_free(r);
}

static void aliases_that_agree_are_fine(void **state)
{
    mb_recipe *r = load_ok("lr: 1e-4\nlearning_rate: 0.0001\nlora_rank: 16\n", "");

    assert_true(r->learning_rate == 1e-4);
    mb_recipe_free(r);
}

static void the_command_line_wins(void **state)
{
    mb_recipe *r =
        load_ok("learning_rate: 1\nmax_steps: 5\nseed: 1\nwarmup_steps: 9\n"
                "datasets:\n  - path: a\n  - path: b\nfinetuning_type: lora\n",
                "lr=2 --max-steps -1 --seed=3 ~warmup_steps datasets.1.path=c "
                "datasets.2.path=d datasets.0.weight=2 --packing --no-overwrite-output-dir "
                "--lora-dropout 0.1 lora_target_modules=[q,k] field_map.text=body "
                "lr_scheduler_kwargs.power=2 ~datasets.0.weight --lora-modules-to-save [x]");

    assert_true(r->learning_rate == 2.0);
    assert_int_equal(r->max_steps, -1);
    assert_int_equal(r->seed, 3);
    assert_true(r->warmup_steps == 0.0);
    assert_int_equal(r->datasets.n, 3);
    assert_string_equal(r->datasets.at[0].path, "a");
    assert_true(r->datasets.at[0].weight == 1.0);
    assert_string_equal(r->datasets.at[1].path, "c");
    assert_string_equal(r->datasets.at[2].path, "d");
    assert_true(r->packing);
    assert_false(r->overwrite_output_dir);
    assert_true(r->lora_dropout == 0.1);
    assert_int_equal(r->lora_target_modules.n, 2);
    assert_string_equal(r->field_map.name[0], "text");
    assert_true(r->lr_power == 2.0);
    assert_string_equal(r->lora_modules_to_save.at[0], "x");
    assert_string_equal(mb_recipe_where(r, "seed"), "command line");
    assert_string_equal(mb_recipe_where(r, "finetuning_type"), "t.yaml:8:1");
    mb_recipe_free(r);
}

static void the_last_of_equal_arguments_wins(void **state)
{
    mb_recipe *r = load_ok("", "seed=1 seed=2");

    assert_int_equal(r->seed, 2);
    mb_recipe_free(r);
}

static void texts_on_the_command_line_are_taken_as_they_are(void **state)
{
    char *argv[] = {(char *)"generate", (char *)"prompt=[INST] what: is # it? {no}",
                    (char *)"completion_suffix=\"\\n\"", (char *)"run_name=12",
                    (char *)"system_prompt="};
    mb_recipe *r;

    assert_int_equal(mb_recipe_load(5, argv, &r), MB_OK);
    assert_string_equal(r->prompt, "[INST] what: is # it? {no}");
    assert_string_equal(r->completion_suffix, "\n");
    assert_string_equal(r->run_name, "12");
    assert_string_equal(r->system_prompt, "");
    mb_recipe_free(r);
}

static void files_and_models_can_stand_alone(void **state)
{
    char path[] = "/tmp/mb_recipe_XXXXXX";
    char *argv[] = {(char *)"train", path, (char *)"seed=5"};
    char *with_option[] = {(char *)"train", (char *)"--config", path};
    char *directory[] = {(char *)"chat", (char *)"/tmp"};
    const int fd = mkstemp(path);
    mb_recipe *r;

    assert_true(fd >= 0);
    dprintf(fd, "seed: 4\nmax_steps: 7\n");
    assert_int_equal(mb_recipe_load(3, argv, &r), MB_OK);
    assert_int_equal(r->seed, 5);
    assert_int_equal(r->max_steps, 7);
    mb_recipe_free(r);
    assert_int_equal(mb_recipe_load(3, with_option, &r), MB_OK);
    assert_int_equal(r->seed, 4);
    mb_recipe_free(r);
    assert_int_equal(mb_recipe_load(2, directory, &r), MB_OK);
    assert_string_equal(r->model_name_or_path, "/tmp");
    mb_recipe_free(r);
    remove(path);
}

/* ---- folders of data ------------------------------------------------------------------------ */

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[MB_PATH_MAX], above[MB_PATH_MAX];
    FILE *file;

    assert_int_equal(mb_path_join(path, sizeof path, dir, name), MB_OK);
    assert_int_equal(mb_path_dir(above, sizeof above, path), MB_OK);
    assert_int_equal(mb_path_mkdirs(above), MB_OK);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The paths that `datasets: {path: dir, ...more}` becomes, without the folder, each before a space. */
static mb_status expand_folder(const char *dir, const char *more, const char *args, char *out,
                               size_t size)
{
    char text[512];
    const size_t n = strlen(dir);
    mb_recipe *r;
    mb_status st;

    snprintf(text, sizeof text, "datasets:\n  - {path: %s%s}\n", dir, more);
    r = load_ok(text, args);
    st = mb_recipe_expand_folders(r);
    out[0] = '\0';
    for (int64_t i = 0; st == MB_OK && i < r->datasets.n; i++) {
        const char *path = r->datasets.at[i].path;

        assert_memory_equal(path, dir, n);
        snprintf(out + strlen(out), size - strlen(out), "%s ", path[n] == '/' ? path + n + 1 : ".");
    }
    mb_recipe_free(r);
    return st;
}

#define README(files) "---\nconfigs:\n- config_name: default\n  data_files: " files "\n---\n"
#define SHARD(i, n)   "data/train-0000" #i "-of-0000" #n ".jsonl"

static const struct {
    const char *files[5], *readme, *more, *args;
    const char *becomes, *error; /* one of them */
} folders[] = {
    {{SHARD(0, 3), SHARD(1, 3), SHARD(2, 3), "data/test-00000-of-00001.jsonl", "other.jsonl"},
     .becomes = SHARD(0, 3) " " SHARD(1, 3) " " SHARD(2, 3) " "},
    {{"train-00000-of-00002-ab12.parquet", "train-00001-of-00002-cd34.parquet"},
     .becomes = "train-00000-of-00002-ab12.parquet train-00001-of-00002-cd34.parquet "},
    {{SHARD(0, 3), SHARD(2, 3)}, .error = "there is no " SHARD(1, 3) ", which is one of 3 files"},
    {{SHARD(1, 2), SHARD(2, 2)}, .becomes = SHARD(1, 2) " " SHARD(2, 2) " "},
    {{SHARD(1, 3), SHARD(3, 3)}, .error = "there is no " SHARD(2, 3) ", which is one of 3 files"},
    {{SHARD(0, 2)}, .error = "there is no " SHARD(1, 2) ", which is one of 2 files"},
    {{SHARD(0, 2), SHARD(1, 2), SHARD(0, 1)}, .error = "are not of one set"},
    {{SHARD(0, 2), SHARD(1, 2), SHARD(2, 2)}, .error = "are not of one set"},
    {{"train-00000-of-00001-ab12.parquet", "train-00000-of-00001-cd34.parquet"},
     .error = "are not of one set"},
    {{"train-00000-of-00001.csv", SHARD(0, 1)}, .error = "are not of one set"},
    {{"data/train-00000-of-99999.csv"}, .error = "is one of 99999 files; 4096 are the most"},
    {{SHARD(0, 3)}, .more = ", split: test", .becomes = ". "},
    {{"data/train-0.csv", "data/a/b/train-1.csv", "data/a/test-2.csv", "train-3.csv"},
     README("'data/**/train-*'"),
     .becomes = "data/a/b/train-1.csv data/train-0.csv "},
    {{"data/train-0.csv", "data/a/b/train-1.csv", "train-3.csv"},
     README("'./data/**'"),
     .becomes = "data/a/b/train-1.csv data/train-0.csv "},
    {{"a/x.csv", "x.csv", "b/c/x.csv", "b/y.csv"},
     README("'**/x.csv'"),
     .becomes = "a/x.csv b/c/x.csv x.csv "},
    {{"a/x.csv", "x.csv", "b/c/x.csv", "b/y.csv"}, README("'*/x.csv'"), .becomes = "a/x.csv "},
    {{SHARD(0, 3), SHARD(2, 3)}, README("data/train-*"), .error = "there is no " SHARD(1, 3)},
    {{SHARD(0, 3), SHARD(2, 3)}, README("data/train-00002*"), .becomes = SHARD(2, 3) " "},
    {{"sw/train-00000-of-00001.csv", "en/train-00000-of-00002.csv", "en/train-00001-of-00002.csv"},
     README("'*/train-*'"),
     .becomes = "en/train-00000-of-00002.csv en/train-00001-of-00002.csv "
                "sw/train-00000-of-00001.csv "},
    {{"train/rust/1.jpg", "train/scab/2.jpg"},
     README("'train/*/*.jpg'"),
     .args = "task=image-classification",
     .becomes = ". "},
    {{"train/metadata.csv", "train/1.flac"},
     README("'train/**'"),
     .args = "task=speech-recognition",
     .becomes = ". "},
    {{"train/metadata.csv", "train/1.flac"},
     README("'train/*.flac'"),
     .more = ", type: audiofolder",
     .becomes = ". "},
    {{"train/rust/1.jpg"},
     README("'train/*/*.jpg'"),
     .error = "no data file here is called train/*/*.jpg"},
};

static void folders_become_the_files_of_their_split_or_say_which_is_missing(void **state)
{
    for (size_t i = 0; i < COUNT(folders); i++) {
        char dir[] = "/tmp/mb_recipe_XXXXXX", got[2048];
        mb_status st;

        assert_non_null(mkdtemp(dir));
        for (size_t k = 0; k < COUNT(folders[i].files) && folders[i].files[k] != NULL; k++)
            put_file(dir, folders[i].files[k], "x\n");
        if (folders[i].readme != NULL)
            put_file(dir, "README.md", folders[i].readme);
        st = expand_folder(dir, folders[i].more != NULL ? folders[i].more : "",
                           folders[i].args != NULL ? folders[i].args : "", got, sizeof got);
        if (folders[i].error == NULL && (st != MB_OK || strcmp(got, folders[i].becomes) != 0))
            fail_msg("folder %zu: '%s' %s", i, got, st != MB_OK ? mb_status_sentence() : "");
        if (folders[i].error != NULL &&
            (st != MB_EDATA || strstr(mb_status_sentence(), folders[i].error) == NULL))
            fail_msg("folder %zu: '%s' %s", i, got, st != MB_OK ? mb_status_sentence() : "");
        assert_int_equal(mb_path_remove_tree(dir), MB_OK);
    }
}

static void no_file_of_a_large_folder_is_left_out_silently(void **state)
{
    char dir[] = "/tmp/mb_recipe_XXXXXX", name[64], text[128];
    mb_recipe *r;

    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < MB_DATASET_FILES_MAX; i++) {
        snprintf(name, sizeof name, "train-%05d-of-%05d.csv", i, MB_DATASET_FILES_MAX);
        put_file(dir, name, "x\n");
    }
    put_file(dir, "other.csv", "x\n"); /* no shard, and so none too many */
    snprintf(text, sizeof text, "datasets: [a.csv, %s, b.csv]\n", dir);
    r = load_ok(text, "");
    if (mb_recipe_expand_folders(r) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    assert_int_equal(r->datasets.n, MB_DATASET_FILES_MAX + 2);
    assert_string_equal(mb_path_base(r->datasets.at[MB_DATASET_FILES_MAX].path), name);
    assert_string_equal(r->datasets.at[MB_DATASET_FILES_MAX + 1].path, "b.csv");
    assert_int_equal(mb_recipe_expand_folders(r), MB_OK); /* once more changes nothing */
    assert_int_equal(r->datasets.n, MB_DATASET_FILES_MAX + 2);
    mb_recipe_free(r);

    put_file(dir, "README.md", README("'*.csv'"));
    r = load_ok(text, "");
    assert_int_equal(mb_recipe_expand_folders(r), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "holds more than 4096 data files"));
    mb_recipe_free(r);
    assert_int_equal(mb_path_remove_tree(dir), MB_OK);
}

static void references_are_replaced(void **state)
{
    mb_recipe *r;

    setenv("MB_TEST_DIR", "/data", 1);
    unsetenv("MB_TEST_NONE");
    r = load_ok("output_dir: out/${task}-${seed}\nrun_name: ${output_dir}/x\n"
                "datasets:\n  - path: ${env:MB_TEST_DIR}/a.jsonl\nsystem_prompt: cost $${5}\n"
                "data_seed: ${seed}\nstop_file: ${env:MB_TEST_NONE,here}\n",
                "seed=7");
    assert_string_equal(r->output_dir, "out/causal-lm-7");
    assert_string_equal(r->run_name, "out/causal-lm-7/x");
    assert_string_equal(r->datasets.at[0].path, "/data/a.jsonl");
    assert_string_equal(r->system_prompt, "cost ${5}");
    assert_int_equal(r->data_seed, 7);
    assert_string_equal(r->stop_file, "here");
    mb_recipe_free(r);
}

static void null_means_not_given(void **state)
{
    mb_recipe *r = load_ok("learning_rate: null\nseed:\nmax_steps: ~\nlr_scheduler_kwargs:\n", "");

    assert_true(r->learning_rate == 5e-5);
    assert_int_equal(r->seed, 42);
    assert_false(mb_recipe_is_set(r, "seed"));
    mb_recipe_free(r);
}

/* What users get wrong: a recipe, arguments, and parts of the sentence. All are MB_EARG. */
static const struct {
    const char *text, *args, *parts[3];
} wrong[] = {
    {"learning_rat: 1\n", "", {"t.yaml:1:1: ", "unknown key 'learning_rat'", "'learning_rate'"}},
    {"seed: 1\n\nlora_rr: 8\n", "", {"t.yaml:3:1: ", "lora_rr", "did you mean 'lora_r'"}},
    {"zzzzzzzzzz: 1\n", "", {"t.yaml:1:1: ", "unknown key", "mbuyu help keys"}},
    {"lr_scheduler_kwargs: {min_lrr: 1}\n", "", {"t.yaml:1:23: ", "min_lrr", "min_lr'"}},
    {"learning_rate: fast\n", "", {"t.yaml:1:1: ", "the text 'fast'", "a number > 0"}},
    {"learning_rate: \"1e-4\"\n", "", {"learning_rate is the text '1e-4'", "expected a number"}},
    {"learning_rate: -1\n", "", {"learning_rate is the number -1", "> 0"}},
    {"learning_rate: .nan\n", "", {"learning_rate", "expected a number"}},
    {"max_length: 1_000\n", "", {"max_length is the text '1_000'", "a whole number >= 1"}},
    {"max_length: 0\n", "", {"max_length is the number 0", ">= 1"}},
    {"max_length: [1]\n", "", {"max_length is a list of 1", "a whole number"}},
    {"max_steps: 1.5\n", "", {"max_steps is the number 1.5", "-1, or >= 1"}},
    {"save_steps: 2.5\n", "", {"save_steps is the number 2.5", "below 1"}},
    {"packing: 1\n", "", {"packing is the number 1", "true or false"}},
    {"packing: \"yes\"\n", "", {"packing is the text 'yes'", "true or false"}},
    {"output_dir: 5\n", "", {"output_dir is the number 5", "a text", "quotes"}},
    {"output_dir: \"\"\n", "", {"output_dir is the text ''", "a text"}},
    {"task: chat\n", "", {"task is the text 'chat'", "causal-lm, seq-classification, masked-lm"}},
    {"stage: dpo\n", "", {"stage: 'dpo' is not available in this version", "pt or sft"}},
    {"adapter: qlora\n",
     "",
     {"adapter: 'qlora' is not available", "full, lora, freeze or trainable_tokens"}},
    {"optim: adafactor\n", "", {"optim is the text 'adafactor'", "adamw"}},
    {"report_to: [jsonl, wandb]\n", "", {"t.yaml:1:20: ", "'wandb'", "tensorboard"}},
    {"time_limit: soon\n", "", {"time_limit is the text 'soon'", "1h30m"}},
    {"time_limit: 3m2h\n", "", {"time_limit is the text '3m2h'"}},
    {"max_shard_size: 5 apples\n", "", {"max_shard_size is the text '5 apples'", "5GB"}},
    {"field_map: [a]\n", "", {"field_map is a list of 1", "a map"}},
    {"lora_target_modules: {a: 1}\n", "", {"lora_target_modules is a map", "a list of texts"}},
    {"datasets: y\ndataset: x\n", "", {"t.yaml:2:1: ", "dataset is", "(t.yaml:1:1)"}},
    {"datasets:\n  - type: alpaca\n", "", {"t.yaml:2:5: ", "datasets[0] has no path"}},
    {"datasets:\n  - path: a\n    typ: alpaca\n", "", {"t.yaml:3:5: ", "'typ'", "'type'"}},
    {"datasets:\n  - path: a\n    type: kto\n", "", {"t.yaml:3:5: ", "'kto' is not available"}},
    {"datasets:\n  - path: a\n    weight: -1\n", "", {"t.yaml:3:5: ", "datasets[0].weight", "> 0"}},
    {"datasets:\n  - path: a\n    data_files: b\n", "", {"t.yaml:3:5: ", "both mean path"}},
    {"datasets: [[a]]\n", "", {"datasets is a list of 1"}},
    {"lr: 1e-4\n\nlearning_rate: 2e-4\n",
     "",
     {"t.yaml:3:1: ", "lr is the number 1e-4 (t.yaml:1:1)", "both mean learning_rate"}},
    {"micro_batch_size: 2\nper_device_train_batch_size: 4\n",
     "",
     {"t.yaml:2:1: ", "both mean per_device_train_batch_size"}},
    {"", "lr=1 learning_rate=2", {"command line: ", "both mean learning_rate"}},
    {"batch_size: 4\n", "", {"per_device_train_batch_size", "global_batch_size", "two meanings"}},
    {"load_in_4bit: true\n", "", {"load_in_4bit is not available"}},
    {"evals_per_epoch: 4\n", "", {"evals_per_epoch", "write eval_steps"}},
    {"bf16: true\nfp16: true\n", "", {"t.yaml:2:1: ", "fp16: true contradicts bf16: true"}},
    {"warmup_steps: 5\nwarmup_ratio: 0.1\n", "", {"t.yaml:2:1: ", "warmup_steps (t.yaml:1:1)"}},
    {"global_batch_size: 10\nper_device_train_batch_size: 4\n",
     "",
     {"t.yaml:1:1: ", "10 is not a multiple", "4 (t.yaml:2:1)"}},
    {"lora_r: 8\n", "", {"t.yaml:1:1: ", "finetuning_type is full", "finetuning_type: lora"}},
    {"finetuning_type: lora\nlora_target_modules: []\n", "", {"t.yaml:2:1: ", "empty"}},
    {"finetuning_type: freeze\nfreeze_trainable_layers: 0\n",
     "",
     {"t.yaml:1:1: ", "trains nothing"}},
    {"trainable_parameters: [x]\n", "", {"t.yaml:1:1: ", "for finetuning_type: freeze"}},
    {"val_set_size: 1.5\n", "", {"t.yaml:1:1: ", "val_set_size is 1.5"}},
    {"val_set_size: 5\neval_datasets: x\n", "", {"t.yaml:1:1: ", "eval_datasets (t.yaml:2:1)"}},
    {"eval_strategy: steps\ndatasets: x\n", "", {"t.yaml:1:1: ", "nothing to evaluate on"}},
    {"early_stopping_patience: 2\n", "", {"t.yaml:1:1: ", "needs evaluations"}},
    {"load_best_model_at_end: true\n", "", {"t.yaml:1:1: ", "needs evaluations"}},
    {"save_strategy: best\n", "", {"t.yaml:1:1: ", "needs evaluations"}},
    {"load_best_model_at_end: true\neval_strategy: steps\neval_steps: 30\nsave_steps: 100\n",
     "",
     {"t.yaml:1:1: ", "save_steps (100) a multiple of eval_steps (30)"}},
    {"prompt: a\nprompts_file: b\n", "", {"t.yaml:2:1: ", "prompt (t.yaml:1:1)"}},
    {"lr_scheduler_type: cosine_with_min_lr\n", "", {"t.yaml:1:1: ", "min_lr"}},
    {"lr_scheduler_type: wsd\n", "", {"t.yaml:1:1: ", "num_decay_steps"}},
    {"lr_scheduler_kwargs: {min_lr: 1}\n", "", {"t.yaml:1:23: ", "above learning_rate"}},
    {"num_labels: 3\nlabel_names: [a, b]\n", "", {"t.yaml:2:1: ", "2 names, num_labels is 3"}},
    {"task: seq-classification\npacking: true\n", "", {"t.yaml:2:1: ", "packing"}},
    {"output_dir: ${run_name}\n", "", {"t.yaml:1:1: ", "run_name has no value"}},
    {"output_dir: ${run_nam}\n", "", {"t.yaml:1:1: ", "does not exist", "run_name"}},
    {"output_dir: ${datasets}\n", "", {"t.yaml:1:1: ", "not a single value"}},
    {"output_dir: ${env:MB_TEST_NONE}\n",
     "",
     {"t.yaml:1:1: ", "the environment has no MB_TEST_NONE"}},
    {"output_dir: ${run_name\n", "", {"t.yaml:1:1: ", "without a '}'"}},
    {"output_dir: ${run_name}\nrun_name: ${output_dir}\n", "", {"refers to itself"}},
    {"", "seed", {"there is no recipe, model folder or .gguf file seed", "key=value"}},
    {"", "/tmp/none.yaml", {"there is no recipe file /tmp/none.yaml"}},
    {"", "a.yaml b.yaml", {"two recipe files, a.yaml and b.yaml"}},
    {"", "--learning-rate", {"--learning-rate has no value"}},
    {"", "--learning-rat 1", {"'learning_rat'", "'learning_rate'"}},
    {"", "-l 1", {"unknown option '-l'"}},
    {"", "datasets.5.path=x", {"datasets.5.path", "'5' is not a place in a list of 0"}},
    {"", "seed.x=1", {"command line: ", "unknown key 'seed.x'"}},
    {"datasets: x.jsonl\n", "datasets.0.path=y", {"points into a single value"}},
    {"", "~datasets.0", {"there is no '0' to remove"}},
    {"", "stop=[a", {"command line:", "not YAML"}},
};

/* merge and export may overwrite by a recipe that resumes; a run may not do both */
static void a_start_cannot_overwrite_and_resume(void **state)
{
    mb_recipe *r = NULL;

    assert_int_equal(load("overwrite_output_dir: true\nresume_from_checkpoint: auto\n", "", &r),
                     MB_OK);
    assert_int_equal(mb_recipe_check_start(r), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "t.yaml:1:1: "));
    assert_non_null(strstr(mb_status_sentence(), "keep one"));
    mb_status_clear();
    mb_recipe_free(r);
}

static void wrong_recipes_have_a_sentence_with_the_place(void **state)
{
    unsetenv("MB_TEST_NONE");
    for (size_t i = 0; i < COUNT(wrong); i++) {
        mb_recipe *r = NULL;
        const int64_t before = mb_alloc_live();
        mb_status st;

        /* the text is used unless the arguments name a file, as on a real command line */
        if (wrong[i].text[0] == '\0' && strchr(wrong[i].args, '=') == NULL &&
            wrong[i].args[0] != '-' && wrong[i].args[0] != '~') {
            char words[128], *argv[4] = {(char *)"test"};
            int argc = 1;

            mb_status_clear();
            snprintf(words, sizeof words, "%s", wrong[i].args);
            for (char *w = strtok(words, " "); w != NULL; w = strtok(NULL, " "))
                argv[argc++] = w;
            st = mb_recipe_load(argc, argv, &r);
        } else {
            st = load(wrong[i].text, wrong[i].args, &r);
        }
        if (st != MB_EARG || mb_status_exit_code(st) != 2)
            fail_msg("status %s for: %s %s", mb_status_name(st), wrong[i].text, wrong[i].args);
        for (int p = 0; p < 3 && wrong[i].parts[p] != NULL; p++)
            if (strstr(mb_status_sentence(), wrong[i].parts[p]) == NULL)
                fail_msg("for: %s %s\nexpected '%s' in: %s", wrong[i].text, wrong[i].args,
                         wrong[i].parts[p], mb_status_sentence());
        assert_null(strchr(mb_status_sentence(), '\n'));
        assert_int_equal(mb_alloc_live(), before);
    }
    mb_status_clear();
}

static void printed_recipes_read_back_the_same(void **state)
{
    mb_recipe *r =
        load_ok("base_model: m\nadapter: lora\nlr: 2e-5\ncompletion_suffix: \"\\n\"\n"
                "stop: [\"a\\tb\", 'no', \"5\", \"${x}\", \"\\xe9\", y]\nrun_name: \"null\"\n"
                "lr_scheduler_kwargs: {power: 2, min_lr: 0}\nsave_steps: 0.25\n"
                "datasets: [{path: a b, field_map: {text: 'x: y'}, weight: 0.1}]\n"
                "time_limit: 90m\nmax_shard_size: 1GiB\neval_strategy: off\n",
                "stop.3=$${x}");
    char first[65], second[65], *given, *all;
    mb_recipe *again;

    assert_int_equal(mb_recipe_digest(r, first), MB_OK);
    assert_int_equal(strlen(first), 64);
    assert_int_equal(mb_recipe_text(r, false, &given), MB_OK);
    assert_int_equal(mb_recipe_text(r, true, &all), MB_OK);
    assert_non_null(strstr(given, "model_name_or_path: m\n"));
    assert_non_null(strstr(given, "learning_rate: 2.0e-05\n"));
    assert_non_null(strstr(given, "\nlr_scheduler_kwargs:\n  min_lr: 0.0\n  power: 2.0\n"));
    assert_null(strstr(given, "weight_decay"));
    assert_non_null(strstr(all, "\nweight_decay: 0.0\n"));

    again = load_ok(given, "");
    assert_string_equal(again->stop.at[1], "no");
    assert_string_equal(again->stop.at[3], "${x}");
    assert_string_equal(again->stop.at[4], "\xc3\xa9");
    assert_string_equal(again->run_name, "null");
    assert_int_equal(mb_recipe_digest(again, second), MB_OK);
    assert_string_equal(first, second);
    mb_recipe_free(again);

    again = load_ok(all, "");
    assert_int_equal(mb_recipe_digest(again, second), MB_OK);
    assert_string_equal(first, second);
    mb_recipe_free(again);

    again = load_ok(all, "seed=43");
    assert_int_equal(mb_recipe_digest(again, second), MB_OK);
    assert_string_not_equal(first, second);
    mb_recipe_free(again);
    mb_recipe_free(r);
    mb_free(given);
    mb_free(all);
}

static void keys_can_be_set_by_the_program(void **state)
{
    mb_recipe *r = load_ok("", "");

    assert_int_equal(mb_recipe_set(r, "global_batch_size", "32", "resolved at start"), MB_OK);
    assert_int_equal(r->global_batch_size, 32);
    assert_string_equal(mb_recipe_where(r, "global_batch_size"), "resolved at start");
    assert_int_equal(mb_recipe_set(r, "seed", "x", "a test"), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "a test: seed is the text 'x'"));
    mb_status_clear();
    mb_recipe_free(r);
}

static void a_verb_says_what_it_needs(void **state)
{
    mb_recipe *r = load_ok("model_name_or_path: m\n", "");

    assert_int_equal(mb_recipe_require(r, "train", "model_name_or_path", NULL), MB_OK);
    assert_int_equal(mb_recipe_require(r, "train", "model_name_or_path", "output_dir", NULL),
                     MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "mbuyu train needs output_dir"));
    mb_status_clear();
    mb_recipe_free(r);
}

static void a_resume_may_change_what_changes_no_result(void **state)
{
    static const char old[] = "learning_rate: 1e-4\nglobal_batch_size: 32\n"
                              "per_device_train_batch_size: 4\nnum_train_epochs: 2\nzero_stage: 1\n"
                              "output_dir: out/a\n";
    mb_recipe *r = load_ok("lr: 0.0001\nnum_train_epochs: 3\noutput_dir: out/b\nzero_stage: 0\n"
                           "gradient_accumulation_steps: 5\n",
                           "");
    char *changes;

    assert_int_equal(mb_recipe_compare_for_resume("old.yaml", old, r, &changes), MB_OK);
    assert_int_equal(r->global_batch_size, 32); /* adopted, with the micro-batch */
    assert_int_equal(r->per_device_train_batch_size, 4);
    assert_string_equal(mb_recipe_where(r, "global_batch_size"), "the checkpoint");
    assert_non_null(changes);
    assert_non_null(strstr(changes, "num_train_epochs: 3.0, was 2.0\n"));
    assert_non_null(strstr(changes, "zero_stage: 0, was 1\n"));
    assert_null(strstr(changes, "output_dir"));
    mb_free(changes);
    mb_recipe_free(r);
}

static void a_resume_refuses_what_changes_results_and_names_it(void **state)
{
    static const char old[] = "learning_rate: 1e-4\nglobal_batch_size: 32\nseed: 1\n"
                              "datasets:\n- path: a.jsonl\n";
    mb_recipe *r =
        load_ok("learning_rate: 2e-4\nglobal_batch_size: 64\nseed: 1\ndatasets: b.jsonl\n", "");
    char *changes;

    assert_int_equal(mb_recipe_compare_for_resume("old.yaml", old, r, &changes), MB_EARG);
    assert_null(changes);
    assert_non_null(strstr(mb_status_sentence(), "old.yaml"));
    assert_non_null(
        strstr(mb_status_sentence(), "learning_rate is 0.0002 (t.yaml:1:1), was 0.0001"));
    assert_non_null(strstr(mb_status_sentence(), "global_batch_size is 64 (t.yaml:2:1), was 32"));
    assert_non_null(strstr(mb_status_sentence(), "datasets is"));
    assert_null(strstr(mb_status_sentence(), "seed"));
    mb_status_clear();
    mb_recipe_free(r);
}

static void an_unchanged_recipe_resumes_in_silence(void **state)
{
    mb_recipe *r = load_ok("learning_rate: 1e-4\nseed: 3\n", "");
    char *changes, *text;

    assert_int_equal(mb_recipe_text(r, true, &text), MB_OK);
    assert_int_equal(mb_recipe_compare_for_resume("old.yaml", text, r, &changes), MB_OK);
    assert_null(changes);
    mb_free(text);
    mb_recipe_free(r);
}

static void schedules_get_their_arguments(void **state)
{
    mb_recipe *r = load_ok("learning_rate: 1e-3\nlr_scheduler_type: cosine_with_min_lr\n"
                           "cosine_min_lr_ratio: 0.1\nwarmup_ratio: 0.1\n",
                           "");
    const mb_schedule_kind *kind;
    mb_schedule_args a;

    assert_int_equal(mb_recipe_schedule(r, 100, &kind, &a), MB_OK);
    assert_string_equal(kind->name, "cosine_with_min_lr");
    assert_int_equal(a.warmup, 10);
    assert_int_equal(a.total, 100);
    assert_true(fabs(mb_schedule_lr(kind, &a, 10) - 1e-3) < 1e-12);
    assert_true(fabs(mb_schedule_lr(kind, &a, 100) - 1e-4) < 1e-12);
    mb_recipe_free(r);

    r = load_ok("lr_scheduler_type: wsd\nlr_scheduler_kwargs:\n  num_decay_steps: 0.2\n"
                "  decay_type: linear\n",
                "");
    assert_int_equal(mb_recipe_schedule(r, 50, &kind, &a), MB_OK);
    assert_int_equal(a.decay, 10);
    assert_int_equal(a.decay_curve, MB_CURVE_LINEAR);
    mb_recipe_free(r);
}

static void words_of_other_tables_exist_there(void **state)
{
    mb_recipe *r = NULL;
    char text[128];

    for (int i = 0; mb_optim_kinds[i] != NULL; i++) {
        snprintf(text, sizeof text, "optim: %s\n", mb_optim_kinds[i]->name);
        r = load_ok(text, "");
        assert_non_null(mb_optim_find(r->optim));
        mb_recipe_free(r);
    }
    for (int i = 0; mb_schedule_kinds[i].name != NULL; i++) {
        snprintf(text, sizeof text,
                 "lr_scheduler_type: %s\nlr_scheduler_kwargs: {min_lr: 0, num_decay_steps: 1}\n",
                 mb_schedule_kinds[i].name);
        r = load_ok(text, "");
        mb_recipe_free(r);
    }
}

static void other_names_of_optimizers_are_understood(void **state)
{
    static const char *const names[][2] = {
        {"adamw_torch_fused", "adamw"},     {"adamw_bnb_8bit", "adamw_8bit"},
        {"paged_adamw_8bit", "adamw_8bit"}, {"adamw_torch_8bit", "adamw_8bit"},
        {"paged_adamw_32bit", "adamw"},     {"bitsandbytes.optim.PagedAdamW8bit", "adamw_8bit"},
        {"adamw_bf16", "adamw_bf16"},
    };
    char text[128];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(text, sizeof text, "optim: %s\n", names[i][0]);
        mb_recipe *r = load_ok(text, "");
        assert_string_equal(r->optim, names[i][1]);
        mb_recipe_free(r);
    }
}

static void every_key_has_a_default_of_its_type_and_a_line_of_help(void **state)
{
    char expected[1200];

    for (int k = 0; k < MB_N_KEYS; k++) {
        const mb_key *key = &mb_recipe_keys[k];

        assert_true(strlen(key->help) > 3 && strlen(key->help) < 130);
        mb_key_expected(key, expected, sizeof expected);
        assert_true(expected[0] != '\0');
        assert_int_equal(mb_name_find(key->name).kind, MB_NAME_KEY);
    }
    for (int i = 1; i < MB_CHOICE_COUNT; i++)
        assert_true(mb_choice_word((mb_choice)i)[0] != '\0');
}

static void every_foreign_name_leads_somewhere(void **state)
{
#define MB_ALIAS(foreign, canonical, values) \
    assert_int_equal(mb_name_find(foreign).kind, MB_NAME_KEY);
#define MB_AMBIGUOUS(foreign, note) assert_int_equal(mb_name_find(foreign).kind, MB_NAME_AMBIGUOUS);
#define MB_LATER(foreign, note)     assert_int_equal(mb_name_find(foreign).kind, MB_NAME_LATER);
#define MB_IGNORED(foreign, note)   assert_int_equal(mb_name_find(foreign).kind, MB_NAME_IGNORED);
#include "recipes/config/aliases.def"
}

static void the_ready_recipes_are_in_order(void **state)
{
    char **names, path[MB_PATH_MAX];
    size_t n;
    int n_recipes = 0;

    assert_int_equal(mb_path_list(MB_TEST_DATA "/../../recipes/configs", &names, &n), MB_OK);
    for (size_t i = 0; i < n; i++) {
        char *argv[] = {(char *)"train", path};
        mb_recipe *r;

        if (!mb_path_has_suffix(names[i], ".yaml"))
            continue;
        snprintf(path, sizeof path, "%s/../../recipes/configs/%s", MB_TEST_DATA, names[i]);
        if (mb_recipe_load(2, argv, &r) != MB_OK)
            fail_msg("%s", mb_status_sentence());
        assert_int_equal(
            mb_recipe_require(r, "train", "model_name_or_path", "datasets", "output_dir", NULL),
            MB_OK);
        mb_recipe_free(r);
        n_recipes++;
    }
    mb_path_list_free(names, n);
    assert_true(n_recipes >= 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_transformers),
        cmocka_unit_test(a_file_fills_typed_fields),
        cmocka_unit_test(times_and_sizes),
        cmocka_unit_test(names_of_axolotl_are_ours),
        cmocka_unit_test(names_of_llama_factory_trl_and_torchtune_are_ours),
        cmocka_unit_test(aliases_that_agree_are_fine),
        cmocka_unit_test(the_command_line_wins),
        cmocka_unit_test(the_last_of_equal_arguments_wins),
        cmocka_unit_test(texts_on_the_command_line_are_taken_as_they_are),
        cmocka_unit_test(files_and_models_can_stand_alone),
        cmocka_unit_test(references_are_replaced),
        cmocka_unit_test(null_means_not_given),
        cmocka_unit_test(a_start_cannot_overwrite_and_resume),
        cmocka_unit_test(wrong_recipes_have_a_sentence_with_the_place),
        cmocka_unit_test(printed_recipes_read_back_the_same),
        cmocka_unit_test(keys_can_be_set_by_the_program),
        cmocka_unit_test(a_verb_says_what_it_needs),
        cmocka_unit_test(a_resume_may_change_what_changes_no_result),
        cmocka_unit_test(a_resume_refuses_what_changes_results_and_names_it),
        cmocka_unit_test(an_unchanged_recipe_resumes_in_silence),
        cmocka_unit_test(schedules_get_their_arguments),
        cmocka_unit_test(folders_become_the_files_of_their_split_or_say_which_is_missing),
        cmocka_unit_test(no_file_of_a_large_folder_is_left_out_silently),
        cmocka_unit_test(words_of_other_tables_exist_there),
        cmocka_unit_test(other_names_of_optimizers_are_understood),
        cmocka_unit_test(every_key_has_a_default_of_its_type_and_a_line_of_help),
        cmocka_unit_test(every_foreign_name_leads_somewhere),
        cmocka_unit_test(the_ready_recipes_are_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
