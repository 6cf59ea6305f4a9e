/* recipes/train/samples.h - what a language model writes while it learns: eval_samples answers to
 * evaluation rows after each evaluation, in output_dir/logs/samples.jsonl:
 *
 *     {"step": 100, "row": 7, "prompt": "...", "text": "...", "reference": "..."}
 *
 * Rank 0 writes them, with the likeliest tokens; the others wait. A prompt is a row up to its first
 * trained token (of plain text, its first tokens), at most SAMPLE_PROMPT of them; longer ones are
 * passed over.
 */
#ifndef MB_RECIPES_TRAIN_SAMPLES_H
#define MB_RECIPES_TRAIN_SAMPLES_H

#include "recipes/train/job.h"

/* Plans and takes what it needs, if the recipe wants samples of this task; before the first step. */
mb_status mb_samples_open(mb_job *j) MB_MUST_USE;
void mb_samples_close(mb_job *j);
int64_t mb_samples_bytes(const mb_job *j); /* keys and values */
/* After an evaluation; lines of this step and later ones, of a run that was cut off, are replaced.
 * Collective. */
mb_status mb_samples_write(mb_job *j) MB_MUST_USE;

#endif
