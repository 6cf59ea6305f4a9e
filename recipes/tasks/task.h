/* recipes/tasks/task.h - what a task means: which head, which rows, which targets, which metric.
 *
 * A task is one line in tasks.def; what is special about it lives where it belongs (the head in the
 * family, the targets in collate.c, the metric in evaluate.c).
 */
#ifndef MB_RECIPES_TASKS_TASK_H
#define MB_RECIPES_TASKS_TASK_H

#include "autograd/model.h"
#include "recipes/config/recipe.h"
#include "recipes/data/collate.h"

typedef struct mb_task {
    mb_choice id;
    mb_head head;
    mb_target_kind target;
    bool labelled;            /* rows carry a class */
    bool accuracy;            /* evaluation counts right classes */
    const char *peft_task;    /* adapter_config.json's task_type; NULL: none */
    const char *pipeline_tag; /* the model card's */
} mb_task;

extern const mb_task mb_tasks[]; /* ended by a pipeline_tag NULL */
const mb_task *mb_task_find(mb_choice id);

#endif
