/* recipes/train/groups.h - which group each evaluation row belongs to: the value of a column of the data
 * (metrics_by: language), for metrics by group.
 *
 * The data's files are read once more for it, by rank 0, when the run begins: the stores of tokens know
 * where a row came from and nothing of columns that no task needs.
 */
#ifndef MB_RECIPES_TRAIN_GROUPS_H
#define MB_RECIPES_TRAIN_GROUPS_H

#include "recipes/train/data.h"

enum { MB_GROUPS_MAX = 64, MB_GROUP_BYTES = 64 };

typedef struct mb_groups {
    int n;
    char *name[MB_GROUPS_MAX]; /* by bytes; "(none)" of rows without a value */
    int64_t n_rows;
    int32_t *of; /* (n_rows) of the evaluation's store: the number of its group */
} mb_groups;

/* MB_EDATA: no row has the column, more than MB_GROUPS_MAX values, a value that is no text, whole number
 * or boolean, or has MB_GROUP_BYTES and more. The caller owns *out. Collective. */
mb_status mb_groups_open(const mb_recipe *r, const mb_task *task, const mb_data *d, mb_comm *comm,
                         mb_groups **out) MB_MUST_USE;
void mb_groups_free(mb_groups *g); /* NULL is allowed */

#endif
