/* recipes/train/held_out.c - see recipes/train/held_out.h. */
#include "recipes/train/held_out.h"

#include <stdio.h>

#include "core/alloc.h"
#include "core/log.h"

/* The tokens of row i; of two sides the first. */
static mb_status take_row(const mb_data *d, int64_t i, mb_ids *out)
{
    const mb_store *s = d->eval_store != NULL ? d->eval_store : d->store;
    const int64_t row = d->eval_store != NULL ? i : d->val_rows[i];
    const int64_t n = d->collate.kind == MB_TARGET_SECOND ? mb_store_source_tokens(s, row)
                                                          : s->offset[row + 1] - s->offset[row];

    return mb_ids_append(out, s->ids + s->offset[row], (size_t)n);
}

static mb_status take_rows(const mb_data *d, int most, mb_held_out *out)
{
    const mb_store *s = d->eval_store != NULL ? d->eval_store : d->store;
    const int64_t there = mb_data_eval_rows(d);

    if (there == 0 || s->ids == NULL || s->n_sentences > 1)
        return MB_OK;
    MB_TRY(MB_NEW_ARRAY(&out->row, most));
    out->n = there < most ? (int)there : most;
    for (int i = 0; i < out->n; i++)
        MB_TRY(take_row(d, i, &out->row[i]));
    return MB_OK;
}

/* Training rows are needed where the rows held out were split off them. */
static mb_status read_rows(mb_recipe *r, const char *model_path, const mb_model_config *c, int most,
                           mb_held_out *out)
{
    mb_data *d = NULL;
    mb_status st;

    if (r->eval_datasets.n == 0 && r->val_set_size <= 0.0)
        return MB_OK;
    if (r->eval_datasets.n > 0)
        MB_TRY(mb_recipe_set(r, "datasets", "[]", "not read"));
    MB_TRY(mb_recipe_set(r, "model_name_or_path", model_path, "what is exported"));
    MB_TRY(mb_data_open(r, mb_task_of(r), c, true, 0, mb_comm_self(), &d));
    st = take_rows(d, most, out);
    mb_data_free(d);
    return st;
}

static mb_status read_run(const char *recipe, const char *model_path, const mb_model_config *c,
                          int most, mb_held_out *out)
{
    char file[MB_PATH_MAX], *args[] = {"export", file};
    mb_recipe *r = NULL;
    mb_status st;

    snprintf(file, sizeof file, "%s", recipe);
    MB_TRY(mb_recipe_load(2, args, &r));
    st = read_rows(r, model_path, c, most, out);
    mb_recipe_free(r);
    return st;
}

mb_status mb_held_out_open(const char *path, const char *model_path, const mb_model_config *c,
                           int most, mb_held_out *out)
{
    char real[MB_PATH_MAX], recipe[MB_PATH_MAX];

    *out = (mb_held_out){.n = 0};
    if (!mb_path_is_dir(path) || c->family->sees_images || c->mel_bins > 0)
        return MB_OK;
    MB_TRY(mb_path_real(path, real, sizeof real));
    MB_TRY(mb_path_dir(out->run, sizeof out->run, real));
    MB_TRY(mb_path_join(recipe, sizeof recipe, out->run, "recipe.resolved.yaml"));
    if (!mb_path_is_file(recipe))
        return MB_OK;
    const mb_status st = read_run(recipe, model_path, c, most, out);
    if (st == MB_OK || st == MB_ENOMEM)
        return st;
    mb_log_info("the rows that %s held out are not to be had: %s", out->run, mb_status_sentence());
    mb_status_clear();
    mb_held_out_release(out);
    return MB_OK;
}

void mb_held_out_release(mb_held_out *h)
{
    for (int i = 0; i < h->n; i++)
        mb_ids_release(&h->row[i]);
    mb_free(h->row);
    h->row = NULL;
    h->n = 0;
}
