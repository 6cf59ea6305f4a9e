/* recipes/cmd/export.c - mbuyu export and merge: a model, a GGUF, a model with its adapter, or a
 * checkpoint of a run becomes a Hugging Face folder.
 *
 * export   model_name_or_path [+ adapter_path, merged] -> output_dir
 *          or a checkpoint folder of a run -> output_dir/final, as if training had ended there; as GGUF
 *          by way of such a folder
 * merge    the same, and an adapter must be given
 *
 * A PEFT adapter's folder as MODEL means its base with it. What is written never mixes with what a
 * folder holds already: a run or another model is only overwritten when overwrite_output_dir says so.
 */
#include <string.h>

#include "autograd/lora.h"
#include "core/cpu/cpu.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/config/hub_path.h"
#include "recipes/config/model_path.h"
#include "recipes/export/gguf.h"
#include "recipes/export/stage.h"
#include "recipes/export/verb.h"
#include "recipes/generate/ends.h"
#include "recipes/train/job.h"
#include "recipes/train/proof.h"

/* What is written, and where. */
struct task {
    const mb_recipe *r;
    const char *left; /* of a run, whose rows held out it is compared on */
    mb_engine *e;
    mb_json_doc *config;
    mb_tokenizer *tok;
    mb_ids ends;
    mb_proof *proof; /* NULL: nothing is compared */
    mb_peft peft;    /* of the adapter, where it is written alone */
};

static mb_status write_files(struct task *t, const mb_export *x, const char *stage)
{
    char path[MB_PATH_MAX];

    switch (t->r->export_format) {
    case MB_EXPORT_GGUF:
        MB_TRY(mb_export_gguf_path(x, stage, path));
        return mb_export_gguf(x, path);
    case MB_EXPORT_GGUF_LORA:
        MB_TRY(mb_export_gguf_path(x, stage, path));
        MB_TRY(mb_peft_read(t->r->adapter_path, &t->peft));
        return mb_export_gguf_lora(x, &t->peft, path);
    default:
        return mb_export_hf(x, stage);
    }
}

/* Reads it again, once the model has made room. */
static mb_status compare(struct task *t, const mb_export *x, const char *stage)
{
    const bool adapter = t->r->export_format == MB_EXPORT_GGUF_LORA;
    const mb_dtype dtype = x->dtype;
    mb_session_options o;

    if (t->proof == NULL)
        return MB_OK;
    mb_job_session_options(t->r, mb_task_of(t->r), mb_default_threads(), &o);
    o.path = adapter ? t->r->model_name_or_path : stage;
    o.adapter_path = adapter ? stage : NULL;
    mb_engine_free(t->e);
    t->e = NULL;
    return mb_proof_hold(t->proof, &o, adapter ? NULL : stage, NULL, dtype);
}

static mb_status write_out(struct task *t, const char *stage)
{
    const mb_recipe *r = t->r;
    const bool merged = r->adapter_path != NULL && r->export_format != MB_EXPORT_GGUF_LORA;
    mb_hub_name hub;
    const bool of_hub = mb_hub_name_of_path(r->model_name_or_path, &hub);
    const char *base = of_hub ? hub.id : mb_path_base(r->model_name_or_path);
    const mb_card card = {.title = mb_path_base(r->output_dir),
                          .base_model = of_hub ? hub.id : r->model_name_or_path,
                          .library_name = "transformers",
                          .summary = r->adapter_path != NULL ? "The base model with an adapter "
                                                               "merged into its weights."
                                                             : "The same weights as its base."};
    const mb_export x = {.model = t->e->model,
                         .ex = &t->e->host,
                         .config = mb_json_root(t->config),
                         .base = r->model_name_or_path,
                         .tokenizer = t->tok,
                         .dtype = mb_job_export_dtype(r),
                         .max_shard_bytes = r->max_shard_size,
                         .ends = &t->ends,
                         .card = &card};

    MB_TRY(mb_export_not_the_base(&x, r->output_dir));
    if (merged && mb_model_has_adapter(t->e->model))
        MB_TRY(mb_model_merge_lora(t->e->model, &t->e->ex));
    MB_TRY(write_files(t, &x, stage));
    MB_TRY(compare(t, &x, stage));
    MB_TRY(mb_stage_publish(stage, r->output_dir));
    mb_log_info("%s%s is in %s", base,
                merged                    ? " with its adapter"
                : r->adapter_path != NULL ? ": the adapter"
                                          : "",
                r->output_dir);
    return MB_OK;
}

static mb_status find_ends(struct task *t)
{
    const mb_chat_options o = {.tokenizer = t->tok};
    mb_chat *chat = NULL;
    mb_status st;

    if (t->e->model->config.head != MB_HEAD_CAUSAL_LM)
        return MB_OK;
    if (mb_tokenizer_chat_template(t->tok) != NULL)
        MB_TRY(mb_chat_open(&o, &chat));
    st = mb_answer_ends(t->r->model_name_or_path, t->tok, chat, &t->ends);
    mb_chat_free(chat);
    return st;
}

/* On rows that the run held out which left `path`, where there is one. */
static mb_status take_proof(mb_engine *e, const mb_recipe *r, const char *path,
                            const mb_tokenizer *tok, mb_proof **proof)
{
    const int64_t most = r->export_format == MB_EXPORT_GGUF ? mb_gguf_context(e->model) : 0;
    mb_held_out held = {.n = 0};
    mb_status st = MB_OK;

    if (r->export_check_file == NULL)
        st =
            mb_held_out_open(path, r->model_name_or_path, &e->model->config, MB_PROOF_TEXTS, &held);
    if (st == MB_OK)
        st = mb_proof_take(e, tok, r->export_check_file, &held, most, proof);
    mb_held_out_release(&held);
    return st;
}

static mb_status write_staged(struct task *t)
{
    char stage[MB_PATH_MAX];
    mb_arena *scratch = NULL;
    mb_status st;

    if (t->r->export_check)
        MB_TRY(take_proof(t->e, t->r, t->left, t->tok, &t->proof));
    mb_engine_rest(t->e);
    MB_TRY(mb_arena_new("workspace", (size_t)1 << 32, &scratch));
    st = mb_stage_open(t->r->output_dir, stage);
    if (st == MB_OK) {
        t->e->ex.scratch = t->e->host.scratch = scratch;
        st = write_out(t, stage);
        if (t->e != NULL)
            t->e->ex.scratch = t->e->host.scratch = NULL;
    }
    mb_arena_free(scratch);
    if (st != MB_OK)
        mb_stage_drop(stage);
    return st;
}

static mb_status check_format(const mb_recipe *r)
{
    const mb_dtype d = mb_job_export_dtype(r);

    MB_REQUIRE(r->export_format != MB_EXPORT_HF || !mb_dtype_is_quantised(d), MB_EARG,
               "%s: %s is a type of GGUF files: add format=gguf (or choose f32, f16, bf16)",
               mb_recipe_where(r, "export_dtype"), mb_choice_word(r->export_dtype));
    MB_REQUIRE(r->export_format != MB_EXPORT_GGUF_LORA || r->adapter_path != NULL, MB_EARG,
               "%s: gguf_lora writes an adapter, none is given: its folder as the model, or "
               "adapter_path=DIR",
               mb_recipe_where(r, "export_format"));
    return MB_OK;
}

/* `left`: what a run left, where that is not the model or adapter itself; NULL: it is. */
static mb_status export_model(const mb_recipe *r, const char *left)
{
    const char *own = r->adapter_path != NULL ? r->adapter_path : r->model_name_or_path;
    struct task t = {.r = r, .left = left != NULL ? left : own};
    const mb_task *task = mb_task_of(r);
    mb_session_options o;
    mb_status st = MB_OK;

    MB_TRY(check_format(r));
    mb_job_session_options(r, task, mb_default_threads(), &o);
    o.trained = MB_TRAINED_NOTHING;
    if (!mb_recipe_is_set(r, "task")) { /* as the model itself says */
        MB_TRY(mb_model_config_doc(r->model_name_or_path, &t.config));
        o.head = mb_model_config_head(t.config, o.head);
        mb_json_free(t.config);
        t.config = NULL;
    }
    MB_TRY_GOTO(mb_session_open(&o, &t.e, &t.config), st, done);
    if (!t.e->model->family->sees_images) {
        MB_TRY_GOTO(mb_tokenizer_load(r->model_name_or_path, &t.tok), st, done);
        MB_TRY_GOTO(find_ends(&t), st, done);
    }
    st = write_staged(&t);
done:
    mb_peft_close(&t.peft);
    mb_proof_free(t.proof);
    mb_ids_release(&t.ends);
    mb_tokenizer_free(t.tok);
    mb_json_free(t.config);
    mb_engine_free(t.e);
    return st;
}

/* A recipe names the folder its run writes to: the model belongs into another. */
static mb_status check_target(const mb_recipe *r, const char *verb)
{
    static const struct {
        const char *file, *what;
    } signs[] = {{"recipe.resolved.yaml", "a training run"},
                 {"latest", "a training run"},
                 {"config.json", "a model"},
                 {"adapter_config.json", "an adapter"}};
    char path[MB_PATH_MAX];

    if (r->overwrite_output_dir)
        return MB_OK;
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        MB_TRY(mb_path_join(path, sizeof path, r->output_dir, signs[i].file));
        MB_REQUIRE(!mb_path_exists(path), MB_EARG,
                   "%s: %s holds %s: give %s a folder of its own, such as output_dir=%s-merged (or "
                   "overwrite_output_dir=true)",
                   mb_recipe_where(r, "output_dir"), r->output_dir, signs[i].what, verb,
                   r->output_dir);
    }
    return MB_OK;
}

/* ---- checkpoints -------------------------------------------------------------------------- */

/* The checkpoint's recipe says output_dir; a model that its run has finished stays. */
static mb_status check_final(const mb_recipe *r)
{
    char final[MB_PATH_MAX];

    MB_TRY(mb_recipe_require(r, "export", "output_dir", NULL));
    MB_TRY(mb_path_join(final, sizeof final, r->output_dir, "final"));
    MB_REQUIRE(!mb_path_exists(final) || r->overwrite_output_dir, MB_EARG,
               "%s is there already: give another output_dir (or overwrite_output_dir=true)",
               final);
    return MB_OK;
}

/* Of a model that can be read: what it says, while it is in memory. */
static mb_status take_job_proof(mb_job *j, mb_tokenizer **tok, mb_proof **proof)
{
    const mb_recipe *r = j->recipe;

    if (!r->export_check || j->engine->model->family->sees_images ||
        j->engine->model->config.mel_bins > 0)
        return MB_OK;
    MB_TRY(mb_tokenizer_load(r->model_name_or_path, tok));
    return take_proof(j->engine, r, j->resumed_from, *tok, proof);
}

/* Holds output_dir/final against it; what is not the model does not stay. */
static mb_status hold_final(const mb_recipe *r, const mb_proof *proof)
{
    char final[MB_PATH_MAX], adapter[MB_PATH_MAX];
    mb_session_options o;
    mb_status st;

    if (proof == NULL)
        return MB_OK;
    MB_TRY(mb_path_join(final, sizeof final, r->output_dir, "final"));
    MB_TRY(mb_path_join(adapter, sizeof adapter, final, "adapter_config.json"));
    mb_job_session_options(r, mb_task_of(r), mb_default_threads(), &o);
    o.random = false;
    o.adapter_path = mb_path_exists(adapter) ? final : NULL;
    o.path = o.adapter_path != NULL ? r->model_name_or_path : final;
    st = mb_proof_hold(proof, &o, final, NULL, mb_job_export_dtype(r));
    if (st != MB_OK)
        mb_stage_drop(final);
    return st;
}

/* The checkpoint's recipe, with what the command line says. */
static mb_status checkpoint_recipe(const char *path, int argc, char **argv, mb_recipe **out)
{
    char recipe[MB_PATH_MAX], resume[MB_PATH_MAX + 32], *args[64] = {"export", recipe};
    int n = 2;

    MB_REQUIRE(argc < 56, MB_EARG, "too many arguments");
    MB_TRY(mb_path_join(recipe, sizeof recipe, path, "recipe.yaml"));
    snprintf(resume, sizeof resume, "resume_from_checkpoint=%s", path);
    for (int i = 2; i < argc; i++)
        args[n++] = argv[i];
    args[n++] = resume;
    return mb_recipe_load(n, args, out);
}

/* A Hugging Face folder or a PEFT adapter: output_dir/final. */
static mb_status checkpoint_to_folder(mb_recipe *r)
{
    mb_launch alone = {.world = mb_comm_self(), .size = 1, .local_size = 1};
    mb_job *j = NULL;
    mb_tokenizer *tok = NULL;
    mb_proof *proof = NULL;
    mb_status st = MB_OK;

    alone.threads = mb_default_threads();
    MB_TRY(check_final(r));
    MB_TRY_GOTO(mb_job_open(r, &alone, MB_JOB_EXPORT, &j), st, done);
    MB_TRY_GOTO(mb_job_export(j), st, done);
    MB_TRY_GOTO(take_job_proof(j, &tok, &proof), st, done);
    mb_job_close(j);
    j = NULL;
    st = hold_final(r, proof);
done:
    mb_proof_free(proof);
    mb_tokenizer_free(tok);
    mb_job_close(j);
    return st;
}

/* What a GGUF export is to be, by the checkpoint's recipe and the command line. */
struct target {
    const char *output_dir, *format, *dtype;
};

/* `folder`/final, as the command line says. */
static mb_status folder_to_gguf(const char *checkpoint, const char *folder, const struct target *to,
                                int argc, char **argv)
{
    const char *why = "of the checkpoint";
    char final[MB_PATH_MAX], *args[64] = {"export", final};
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(mb_path_join(final, sizeof final, folder, "final"));
    for (int i = 2; i < argc; i++)
        args[i] = argv[i];
    MB_TRY(mb_recipe_load(argc, args, &r));
    st = mb_recipe_set_path(r, "output_dir", to->output_dir, why);
    if (st == MB_OK)
        st = mb_recipe_set(r, "export_format", to->format, why);
    if (st == MB_OK)
        st = mb_recipe_set(r, "export_dtype", to->dtype, why);
    if (st == MB_OK)
        st = mb_recipe_follow_adapter(r);
    if (st == MB_OK)
        st = export_model(r, checkpoint);
    mb_recipe_free(r);
    return st;
}

/* By way of a folder beside output_dir, which does not stay. */
static mb_status checkpoint_to_gguf(const char *path, mb_recipe *r, int argc, char **argv)
{
    const struct target to = {r->output_dir, mb_choice_word(r->export_format),
                              mb_choice_word(r->export_dtype)};
    char place[MB_PATH_MAX], folder[MB_PATH_MAX];
    mb_status st = MB_OK;

    MB_TRY(check_target(r, "export"));
    snprintf(place, sizeof place, "%.4000s-checkpoint", r->output_dir);
    MB_TRY(mb_stage_open(place, folder));
    MB_TRY_GOTO(mb_recipe_set_path(r, "output_dir", folder, "on the way to GGUF"), st, done);
    MB_TRY_GOTO(mb_recipe_set(r, "export_format", "hf", "on the way to GGUF"), st, done);
    MB_TRY_GOTO(mb_recipe_set(r, "export_dtype", "f32", "on the way to GGUF"), st, done);
    MB_TRY_GOTO(checkpoint_to_folder(r), st, done);
    st = folder_to_gguf(path, folder, &to, argc, argv);
done:
    mb_stage_drop(folder);
    return st;
}

static mb_status export_checkpoint(const char *path, int argc, char **argv)
{
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(checkpoint_recipe(path, argc, argv, &r));
    st = mb_recipe_require(r, "export", "output_dir", NULL);
    if (st == MB_OK && r->export_format == MB_EXPORT_HF)
        st = check_format(r);
    if (st == MB_OK)
        st = r->export_format == MB_EXPORT_HF ? checkpoint_to_folder(r)
                                              : checkpoint_to_gguf(path, r, argc, argv);
    mb_recipe_free(r);
    return st;
}

static bool is_checkpoint(const char *path)
{
    char manifest[4096];

    return mb_path_is_dir(path) &&
           mb_path_join(manifest, sizeof manifest, path, "manifest.json") == MB_OK &&
           mb_path_exists(manifest);
}

mb_status mb_export_verb(int argc, char **argv, bool needs_adapter)
{
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(mb_cpu_init());
    if (argc > 1 && is_checkpoint(argv[1]) && !needs_adapter)
        return export_checkpoint(argv[1], argc, argv);
    MB_TRY(mb_recipe_load(argc, argv, &r));
    st = mb_recipe_follow_adapter(r);
    if (st == MB_OK)
        st = mb_recipe_require(r, argv[0], "model_name_or_path", "output_dir",
                               needs_adapter ? "adapter_path" : NULL, NULL);
    if (st == MB_OK)
        st = mb_recipe_check_model(r);
    if (st == MB_OK)
        st = check_target(r, argv[0]);
    if (st == MB_OK)
        st = export_model(r, NULL);
    mb_recipe_free(r);
    return st;
}

mb_status mb_cmd_export(int argc, char **argv)
{
    return mb_export_verb(argc, argv, false);
}
