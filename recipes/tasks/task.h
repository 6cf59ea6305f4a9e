/* recipes/tasks/task.h - what a task means: which head, which rows, which targets, which metrics.
 *
 * A task is a line in tasks.def, or one for each variant of it; what is special about it lives where it
 * belongs (the head in the family, the targets in collate.c, the loss in autograd/layers/loss.c, the
 * answers in recipes/train/answer_<kind>.c).
 */
#ifndef MB_RECIPES_TASKS_TASK_H
#define MB_RECIPES_TASKS_TASK_H

#include "autograd/model.h"
#include "recipes/config/recipe.h"
#include "recipes/data/collate.h"
#include "recipes/metrics/metric.h"

struct mb_job;
struct mb_predictions;

/* Adds what the model says of the rows of a micro-batch, which is collated in job->data->batch, to
 * `out` (recipes/train/predictions.h). It makes one forward, on whole logits or another output. */
typedef mb_status (*mb_answer_fn)(struct mb_job *job, const mb_micro *micro,
                                  struct mb_predictions *out);

typedef struct mb_task {
    mb_choice id, variant; /* variant -1: any */
    mb_head head;
    mb_target_kind target;
    mb_want rows;
    mb_loss loss;
    mb_metric_reads reads;    /* what the answers are */
    mb_answer_fn answer;      /* NULL: evaluations only measure the loss */
    const char *metrics;      /* of an evaluation, with commas */
    const char *peft_task;    /* adapter_config.json's task_type; NULL: none */
    const char *pipeline_tag; /* the model card's */
} mb_task;

extern const mb_task mb_tasks[]; /* ended by a pipeline_tag NULL */
/* A recipe that names no task gets the one that its model's config.json was saved for (its
 * architectures, its problem_type): a classifier is evaluated as one without being told. Needs a
 * model that is there (mb_recipe_check_model); says which task it took. */
mb_status mb_task_adopt(mb_recipe *r) MB_MUST_USE;
/* The recipe's task. */
const mb_task *mb_task_of(const mb_recipe *r);
/* Rows carry classes, which have names. */
bool mb_task_has_classes(const mb_task *t);
/* Its rows are pictures. */
static inline bool mb_task_sees_images(const mb_task *t)
{
    return t->id == MB_TASK_IMAGE_CLASSIFICATION;
}
/* Does a model read what the task's rows are? MB_EARG says what is needed. */
mb_status mb_task_fits(const mb_task *t, const mb_model_config *c, const char *path) MB_MUST_USE;

#endif
