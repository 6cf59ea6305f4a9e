/* recipes/train/held_out.h - rows that a run kept out of training, to compare its exports on. */
#ifndef MB_RECIPES_TRAIN_HELD_OUT_H
#define MB_RECIPES_TRAIN_HELD_OUT_H

#include "core/path.h"
#include "recipes/train/job.h"

typedef struct mb_held_out {
    char run[MB_PATH_MAX]; /* the run's folder */
    mb_ids *row;           /* n of them, each the tokens of a row */
    int n;                 /* 0: none */
} mb_held_out;

/* `path` is a folder that a run left (final, a checkpoint): the run is the folder above it, which has
 * recipe.resolved.yaml. Takes at most `most` of its eval_datasets' rows, or of those that val_set_size split
 * off, made for the tokenizer of `model_path` and a model of configuration `c`, with the date of the day the
 * run began, which its checkpoints know. Where there is no run, nothing was held out or rows are no plain
 * tokens, out->n is 0; so it is, and logged, where files are gone, or rows were split off by a chat template
 * that says the date and there is no checkpoint. */
mb_status mb_held_out_open(const char *path, const char *model_path, const mb_model_config *c,
                           int most, mb_held_out *out) MB_MUST_USE;
void mb_held_out_release(mb_held_out *h);

#endif
