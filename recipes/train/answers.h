/* recipes/train/answers.h - what evaluations say of rows, by kind of task: one file each. */
#ifndef MB_RECIPES_TRAIN_ANSWERS_H
#define MB_RECIPES_TRAIN_ANSWERS_H

#include "recipes/train/job.h"
#include "recipes/train/predictions.h"

/* answer_class.c: the likeliest class of each row, and how likely all of them are. */
mb_status mb_answer_class(mb_job *j, const mb_micro *micro, mb_predictions *out);

/* answer_text.c: what the model writes for each source, and the target as it should have been. With
 * predict_with_generate only. */
mb_status mb_answer_text(mb_job *j, const mb_micro *micro, mb_predictions *out);
/* Plans and takes what it needs; before the first step. */
mb_status mb_answer_text_open(mb_job *j) MB_MUST_USE;
void mb_answer_text_close(mb_job *j);

/* answer_values.c: the classes of probability 1/2 and more; numbers. */
mb_status mb_answer_sets(mb_job *j, const mb_micro *micro, mb_predictions *out);
mb_status mb_answer_number(mb_job *j, const mb_micro *micro, mb_predictions *out);
/* answer_tags.c: the likeliest class of each word. */
mb_status mb_answer_tags(mb_job *j, const mb_micro *micro, mb_predictions *out);
/* answer_span.c: the best answer in each window; mb_answer_join: in each context, from its windows. */
mb_status mb_answer_span(mb_job *j, const mb_micro *micro, mb_predictions *out);
mb_status mb_answer_join(mb_job *j, mb_predictions *windows, mb_predictions *out) MB_MUST_USE;
/* answer_vectors.c: cosines of an anchor with the texts of its micro-batch; of a pair. */
mb_status mb_answer_rank(mb_job *j, const mb_micro *micro, mb_predictions *out);
mb_status mb_answer_cosine(mb_job *j, const mb_micro *micro, mb_predictions *out);

/* The recipe's names are the model's; NULL: classes are numbers. */
const char *mb_answer_class_name(const mb_job *j, int64_t class, int64_t n_classes);
/* What every row says of itself: its group of metrics_by, else the file it came from where there are
 * several. */
mb_status mb_answer_group(const mb_job *j, int64_t row, mb_json object) MB_MUST_USE;
/* The store that evaluation rows are in. */
const mb_store *mb_answer_store(const mb_job *j);

#endif
