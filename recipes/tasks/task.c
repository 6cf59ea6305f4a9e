/* recipes/tasks/task.c - the table of tasks, generated from tasks.def. */
#include "recipes/tasks/task.h"

#include <stddef.h>

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
