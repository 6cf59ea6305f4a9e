/* recipes/config/check.c - do the keys of a recipe fit together? One function per topic. */
#include <math.h>
#include <string.h>

#include "recipes/config/private.h"
#include "recipes/config/token_ids.h"
#include "recipes/config/value.h"

/* A failure at the place of `key`. */
#define REJECT_IF(cond, key, fmt, ...)                                                  \
    do {                                                                                \
        if (cond)                                                                       \
            return MB_RAISE(MB_EARG, "%s: " fmt, mb_recipe_where(r, key), __VA_ARGS__); \
    } while (0)

static mb_status check_model(const mb_recipe *r)
{
    REJECT_IF(r->bf16 == MB_YES && r->fp16 == MB_YES, "fp16",
              "%s contradicts bf16: true: a run computes in one of them", "fp16: true");
    REJECT_IF(r->finetuning_type == MB_FINETUNING_FREEZE && r->freeze_trainable_layers == 0 &&
                  r->trainable_parameters.n == 0,
              "finetuning_type", "finetuning_type: freeze trains nothing: %s",
              "freeze_trainable_layers is 0 and trainable_parameters is empty");
    REJECT_IF(r->finetuning_type != MB_FINETUNING_FREEZE && r->trainable_parameters.n > 0,
              "trainable_parameters", "trainable_parameters is for finetuning_type: freeze, not %s",
              mb_choice_word(r->finetuning_type));
    REJECT_IF(r->num_labels > 0 && r->label_names.n > 0 && r->num_labels != r->label_names.n,
              "label_names", "label_names has %lld names, num_labels is %lld",
              (long long)r->label_names.n, (long long)r->num_labels);
    REJECT_IF(r->task != MB_TASK_CAUSAL_LM && r->task != MB_TASK_MASKED_LM && r->packing, "packing",
              "packing is for language models, task is %s", mb_choice_word(r->task));
    return MB_OK;
}

static mb_status check_tokens(const mb_recipe *r)
{
    const bool alone = r->finetuning_type == MB_FINETUNING_TOKENS;
    mb_status st;

    REJECT_IF(alone && r->trainable_token_indices.n == 0 && r->adapter_path == NULL,
              "finetuning_type", "%s trains nothing: trainable_token_indices is empty",
              "finetuning_type: trainable_tokens");
    REJECT_IF(!alone && r->finetuning_type != MB_FINETUNING_LORA &&
                  r->trainable_token_indices.n > 0,
              "trainable_token_indices",
              "trainable_token_indices is for finetuning_type: lora or trainable_tokens, not %s",
              mb_choice_word(r->finetuning_type));
    REJECT_IF(r->trainable_token_indices.n == 0 && r->trainable_token_modules.n > 0,
              "trainable_token_modules", "%s without trainable_token_indices names no row",
              "trainable_token_modules");
    st = mb_token_ids_check(&r->trainable_token_indices);
    if (st != MB_OK)
        mb_status_prefix(st, "%s: ", mb_recipe_where(r, "trainable_token_indices"));
    return st;
}

/* LoRA's keys without LoRA would change nothing, which nobody wants who wrote them. Values equal to
 * the defaults pass: a resolved recipe has them. */
static mb_status check_lora(const mb_recipe *r)
{
    mb_text given = {0}, deflt = {0};
    mb_recipe defaults;
    mb_status st = MB_OK;

    if (r->finetuning_type == MB_FINETUNING_LORA) {
        REJECT_IF(r->lora_target_modules.n == 0, "lora_target_modules",
                  "%s is empty: there is nothing to adapt", "lora_target_modules");
        return MB_OK;
    }
    for (int k = 0; k < MB_N_KEYS && st == MB_OK; k++) {
        const mb_key *key = &mb_recipe_keys[k];

        if (key->section != MB_SECTION_LORA || !r->own->key[k].given)
            continue;
        st = mb_value_default(r->own->arena, key, &defaults);
        mb_value_write(key, r, true, 0, &given);
        mb_value_write(key, &defaults, true, 0, &deflt);
        if (st == MB_OK && given.st == MB_OK && deflt.st == MB_OK && strcmp(given.s, deflt.s) != 0)
            st = MB_RAISE(MB_EARG,
                          "%s: %s is set, but finetuning_type is %s; add "
                          "'finetuning_type: lora'",
                          r->own->key[k].where, key->name, mb_choice_word(r->finetuning_type));
        mb_text_release(&given);
        mb_text_release(&deflt);
    }
    return st;
}

static mb_status check_data(const mb_recipe *r)
{
    REJECT_IF(r->val_set_size >= 1.0 && r->val_set_size != floor(r->val_set_size), "val_set_size",
              "val_set_size is %g, expected a fraction below 1 or a whole number of rows",
              r->val_set_size);
    REJECT_IF(
        r->val_set_size > 0.0 && r->eval_datasets.n > 0, "val_set_size",
        "val_set_size and eval_datasets (%s) are both given: rows for evaluation come from one "
        "of them",
        mb_recipe_where(r, "eval_datasets"));
    REJECT_IF(r->prompt != NULL && r->prompts_file != NULL, "prompts_file",
              "prompts_file and prompt (%s) are both given", mb_recipe_where(r, "prompt"));
    return MB_OK;
}

static mb_status check_batch(const mb_recipe *r)
{
    REJECT_IF(r->global_batch_size % r->per_device_train_batch_size != 0, "global_batch_size",
              "global_batch_size %lld is not a multiple of per_device_train_batch_size %lld (%s)",
              (long long)r->global_batch_size, (long long)r->per_device_train_batch_size,
              mb_recipe_where(r, "per_device_train_batch_size"));
    return MB_OK;
}

static mb_status check_schedule(const mb_recipe *r)
{
    const mb_schedule_kind *kind;
    mb_schedule_args args;
    mb_status st;

    REJECT_IF(r->warmup_steps > 0.0 && r->warmup_ratio > 0.0, "warmup_ratio",
              "warmup_ratio and warmup_steps (%s) are both given: keep one",
              mb_recipe_where(r, "warmup_steps"));
    REJECT_IF(r->lr_min > r->learning_rate, "lr_scheduler_kwargs.min_lr",
              "min_lr %g is above learning_rate %g", r->lr_min, r->learning_rate);
    /* with room for any number of steps; the trainer asks again with the true one */
    st = mb_recipe_schedule(r, INT64_C(1) << 40, &kind, &args);
    if (st != MB_OK)
        mb_status_prefix(st, "%s: ", mb_recipe_where(r, "lr_scheduler_type"));
    return st;
}

static mb_status check_evaluation(const mb_recipe *r)
{
    const bool none = r->eval_strategy == MB_EVAL_NO;

    REJECT_IF(!none && r->datasets.n > 0 && r->eval_datasets.n == 0 && r->val_set_size == 0.0,
              "eval_strategy",
              "eval_strategy is %s, but there is nothing to evaluate on: give "
              "eval_datasets or val_set_size",
              mb_choice_word(r->eval_strategy));
    REJECT_IF(none && r->early_stopping_patience > 0, "early_stopping_patience",
              "%s needs evaluations: set eval_strategy to steps or epoch",
              "early_stopping_patience");
    REJECT_IF(none && r->load_best_model_at_end, "load_best_model_at_end",
              "%s needs evaluations: set eval_strategy to steps or epoch",
              "load_best_model_at_end");
    REJECT_IF(none && r->save_strategy == MB_SAVE_BEST, "save_strategy",
              "%s needs evaluations: set eval_strategy to steps or epoch", "save_strategy: best");
    return MB_OK;
}

/* The best model can only be loaded where it was saved: evaluations and saves must meet. */
static mb_status check_saving(const mb_recipe *r)
{
    const double ratio = r->eval_steps > 0.0 ? r->save_steps / r->eval_steps : 0.0;
    const bool steps = r->eval_strategy == MB_EVAL_STEPS && r->save_strategy == MB_SAVE_STEPS;
    const bool meet = r->save_strategy == MB_SAVE_BEST ||
                      (r->eval_strategy == MB_EVAL_EPOCH && r->save_strategy == MB_SAVE_EPOCH) ||
                      (steps && fabs(ratio - round(ratio)) < 1e-9 && ratio > 0.5);

    REJECT_IF(r->load_best_model_at_end && !meet, "load_best_model_at_end",
              "load_best_model_at_end needs a checkpoint for each evaluation that may be the best: "
              "save_strategy best, or the same strategy with save_steps (%g) a multiple of "
              "eval_steps (%g)",
              r->save_steps, r->eval_steps);
    return MB_OK;
}

static mb_status check_communication(const mb_recipe *r)
{
    REJECT_IF(r->reduction == MB_REDUCTION_EXACT && r->communication_data_type == MB_SENT_AS_BF16,
              "communication_data_type",
              "communication_data_type: bf16 rounds what reduction: exact (%s) adds as integers: "
              "keep one",
              mb_recipe_where(r, "reduction"));
    return MB_OK;
}

mb_status mb_recipe_check_start(const mb_recipe *r)
{
    REJECT_IF(r->overwrite_output_dir && r->resume_from_checkpoint != NULL, "overwrite_output_dir",
              "overwrite_output_dir starts anew, resume_from_checkpoint (%s) goes on: keep one",
              mb_recipe_where(r, "resume_from_checkpoint"));
    return MB_OK;
}

mb_status mb_recipe_check(const mb_recipe *r)
{
    MB_TRY(check_model(r));
    MB_TRY(check_lora(r));
    MB_TRY(check_tokens(r));
    MB_TRY(check_data(r));
    MB_TRY(check_batch(r));
    MB_TRY(check_schedule(r));
    MB_TRY(check_evaluation(r));
    MB_TRY(check_communication(r));
    return check_saving(r);
}
