/* recipes/train/data.h - a recipe's datasets, ready to train on: stores, order, batches. */
#ifndef MB_RECIPES_TRAIN_DATA_H
#define MB_RECIPES_TRAIN_DATA_H

#include "recipes/tasks/task.h"

typedef struct mb_data {
    mb_tokenizer *tokenizer;
    mb_tokenizer *target_tokenizer; /* seq2seq: of the second side; NULL otherwise */
    mb_store *store;                /* of datasets */
    mb_store *eval_store;           /* of eval_datasets; NULL when they are none */
    int64_t *train_rows, *val_rows; /* of store; train_rows with repetitions by weight */
    int64_t n_train, n_val;
    mb_sampler *train; /* NULL until mb_data_order */
    mb_sampler *eval;  /* one step holding every evaluation row; NULL: no evaluation */
    mb_collate_options collate, eval_collate; /* largest: tokens of the largest micro-batch */
    bool reads_ahead; /* pictures are decoded by threads of their own, ahead of steps on a GPU */
    mb_pictures *pictures;                 /* NULL: rows are text, tokenizer is not NULL */
    mb_batch *batch;                       /* for the largest of both */
    mb_batch *source;                      /* of batch, for tasks that have one; NULL */
    mb_frames frames;                      /* of sounds; tokens 0: rows are about none */
    mb_listener *listener, *eval_listener; /* of sounds */
    mb_sampler *ahead;                     /* as train: which sounds come next */
    bool unlabelled;                       /* rows may lack labels */
    int64_t now;                           /* what templates take for the present */
    bool borrowed;                         /* tokenizer, stores and rows are another's */
} mb_data;

/* Reads, tokenises and splits. `unlabelled`: rows may lack labels. The vocabulary must fit the
 * model's. `now`: the same on all ranks. Collective. */
mb_status mb_data_open(const mb_recipe *r, const mb_task *task, const mb_model_config *model,
                       bool unlabelled, int64_t now, mb_comm *comm, mb_data **out) MB_MUST_USE;
/* Only the tokenizer, where the task has one: for exports. */
mb_status mb_data_open_tokenizer(const mb_recipe *r, mb_data **out) MB_MUST_USE;
/* The rows of a task's kind. Collective. */
mb_status mb_data_make_store(const mb_store_options *o, const mb_task *task,
                             const mb_model_config *model, mb_comm *comm,
                             mb_store **out) MB_MUST_USE;
/* What decodes the pictures of these stores, as the recipe says; the caller owns *out. */
mb_status mb_data_pictures(const mb_recipe *r, const mb_model_config *model, const mb_store *a,
                           const mb_store *b, mb_pictures **out) MB_MUST_USE;
/* How pictures become what the model reads: preprocessor_config.json and the recipe. */
mb_status mb_data_processor(const mb_recipe *r, const mb_model_config *model,
                            mb_image_processor *out) MB_MUST_USE;
/* The rows of `of`, which outlives *out, in an order of their own. */
mb_status mb_data_borrow(const mb_data *of, mb_data **out) MB_MUST_USE;
void mb_data_free(mb_data *d); /* NULL is allowed */

/* Fixes the order of training and evaluation and makes the batch. `step_units`: the global batch. */
mb_status mb_data_order(mb_data *d, const mb_recipe *r, int64_t micro_units,
                        int64_t step_units) MB_MUST_USE;

/* Targets have n numbers each: makes room in the batch. */
mb_status mb_data_values(mb_data *d, int64_t n) MB_MUST_USE;

/* What a classifier calls its classes (id2label of config.json, unless it is only LABEL_0 ...)
 * becomes the recipe's label_names where it has none: names in data then mean what they mean to the
 * model, whichever of them a file holds. `config` is the model's config.json. */
mb_status mb_data_adopt_labels(mb_recipe *r, const mb_task *task, mb_json_doc *config) MB_MUST_USE;

/* Before a rank's micro-batches of a training step: sounds of this step and the next are read. */
mb_status mb_data_expect(mb_data *d, const mb_step *s, int rank, int size) MB_MUST_USE;

/* Rows to evaluate on, 0 for none; the store they are in, and the row of it that evaluation row i is. */
int64_t mb_data_eval_rows(const mb_data *d);
const mb_store *mb_data_eval_store(const mb_data *d);
int64_t mb_data_eval_row(const mb_data *d, int64_t i);

/* The store's options as a recipe gives them; strings stay the recipe's. *source (n_sources) is owned
 * by the caller. Shared with inspect and preprocessing. */
mb_status mb_data_store_options(const mb_recipe *r, const mb_datasets *sets, const mb_task *task,
                                const mb_tokenizer *tok, mb_store_options *o,
                                mb_source **source) MB_MUST_USE;
void mb_data_free_sources(mb_source *s, int64_t n); /* with their maps */

#endif
