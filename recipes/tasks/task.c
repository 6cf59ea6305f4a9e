/* recipes/tasks/task.c - the table of tasks, generated from tasks.def. */
#include "recipes/tasks/task.h"

#include <stddef.h>

#include "core/log.h"
#include "core/path.h"
#include "recipes/train/answers.h"

enum { MB_ANY = -1 };

const mb_task mb_tasks[] = {
#define MB_TASK(choice, which, head_id, targets, rows_id, loss_id, kind, fn, names, peft, tag) \
    {.id = MB_##choice,                                                                        \
     .variant = (mb_choice)MB_##which,                                                         \
     .head = MB_##head_id,                                                                     \
     .target = MB_##targets,                                                                   \
     .rows = MB_##rows_id,                                                                     \
     .loss = MB_##loss_id,                                                                     \
     .reads = MB_READS_##kind,                                                                 \
     .answer = (fn),                                                                           \
     .metrics = (names),                                                                       \
     .peft_task = (peft),                                                                      \
     .pipeline_tag = (tag)},
#include "recipes/tasks/tasks.def"
#undef MB_TASK
    {.pipeline_tag = NULL},
};

mb_status mb_task_fits(const mb_task *t, const mb_model_config *c, const char *path)
{
    const bool task = mb_task_sees_images(t), model = c->family->sees_images;

    MB_REQUIRE(task == model, MB_EARG, "task %s needs a model that reads %s; %s is a %s model",
               mb_choice_word(t->id), task ? "pictures (vit, deit)" : "text", path,
               c->family->name);
    return MB_OK;
}

/* The task of a model with this head, which is one of several where pictures or sounds are read. */
static mb_choice task_of_model(mb_head head, const mb_model_config *c)
{
    if (c->family->sees_images)
        return MB_TASK_IMAGE_CLASSIFICATION;
    if (c->mel_bins > 0)
        return MB_TASK_SPEECH_RECOGNITION;
    for (const mb_task *t = mb_tasks; t->pipeline_tag != NULL; t++)
        if (t->head == head)
            return t->id;
    return MB_TASK_CAUSAL_LM;
}

static mb_status adopt_problem(mb_recipe *r, mb_json config)
{
    const char *word;

    if (r->task != MB_TASK_SEQ_CLASSIFICATION || mb_recipe_is_set(r, "problem_type"))
        return MB_OK;
    MB_TRY(mb_json_get_string(config, "problem_type", NULL, &word));
    return word == NULL ? MB_OK : mb_recipe_set(r, "problem_type", word, "the model's config.json");
}

static mb_status adopt(mb_recipe *r, mb_json_doc *doc)
{
    const mb_head head = mb_model_config_head(doc, MB_HEAD_COUNT);
    mb_model_config c;
    const char *word;

    if (head == MB_HEAD_COUNT) /* a base, which was saved for none */
        return MB_OK;
    if (!mb_recipe_is_set(r, "task")) {
        MB_TRY(mb_model_config_parse(doc, head, &c));
        word = mb_choice_word(task_of_model(head, &c));
        MB_TRY(mb_recipe_set(r, "task", word, "the model's config.json"));
        if (r->task != MB_TASK_CAUSAL_LM)
            mb_log_info("task: %s, as %s says", word, r->model_name_or_path);
    }
    return adopt_problem(r, mb_json_root(doc));
}

mb_status mb_task_adopt(mb_recipe *r)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    mb_status st;

    if (mb_recipe_is_set(r, "task") && r->task != MB_TASK_SEQ_CLASSIFICATION)
        return MB_OK;
    MB_TRY(mb_path_join(path, sizeof path, r->model_name_or_path, "config.json"));
    if (mb_path_is_dir(r->model_name_or_path) && !mb_path_is_file(path))
        return MB_OK; /* a tokenizer alone, which is all that some verbs need */
    MB_TRY(mb_model_config_doc(r->model_name_or_path, &doc));
    st = adopt(r, doc);
    mb_json_free(doc);
    return st == MB_OK ? mb_recipe_check(r) : st;
}

const mb_task *mb_task_of(const mb_recipe *r)
{
    for (const mb_task *t = mb_tasks; t->pipeline_tag != NULL; t++)
        if (t->id == r->task && ((int)t->variant == MB_ANY || t->variant == r->problem_type ||
                                 t->variant == r->embedding_loss))
            return t;
    MB_BUG("task %d is not in tasks.def", (int)r->task);
}

bool mb_task_has_classes(const mb_task *t)
{
    return t->rows == MB_WANT_CLASS || t->rows == MB_WANT_CLASSES || t->rows == MB_WANT_WORDS;
}
