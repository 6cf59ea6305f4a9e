/* recipes/train/held_out.c - see recipes/train/held_out.h. */
#include "recipes/train/held_out.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/log.h"
#include "dist/checkpoint.h"
#include "recipes/config/model_path.h"

/* The tokens of row i; of two sides the first. */
static mb_status take_row(const mb_data *d, int64_t i, mb_ids *out)
{
    const mb_store *s = mb_data_eval_store(d);
    const int64_t row = mb_data_eval_row(d, i);
    const int64_t n = d->collate.kind == MB_TARGET_SECOND ? mb_store_source_tokens(s, row)
                                                          : s->offset[row + 1] - s->offset[row];

    return mb_ids_append(out, s->ids + s->offset[row], (size_t)n);
}

static mb_status take_rows(const mb_data *d, int most, mb_held_out *out)
{
    const mb_store *s = mb_data_eval_store(d);
    const int64_t there = mb_data_eval_rows(d);

    if (there == 0 || s->ids == NULL || s->n_sentences > 1)
        return MB_OK;
    MB_REQUIRE(d->eval_store != NULL || !s->dated || d->now != 0, MB_EDATA,
               "the chat template says the date, and no checkpoint of the run knows when it began");
    MB_TRY(MB_NEW_ARRAY(&out->row, most));
    out->n = there < most ? (int)there : most;
    for (int i = 0; i < out->n; i++)
        MB_TRY(take_row(d, i, &out->row[i]));
    return MB_OK;
}

/* As the newest checkpoint says; 0: there is none. A start that is no resume leaves none of those before. */
static mb_status when_begun(const char *run, int64_t *begun)
{
    mb_checkpoint_info info = {.step = -1};
    char path[MB_PATH_MAX];
    int64_t *steps = NULL;
    mb_json_doc *doc = NULL;
    size_t n = 0;
    mb_status st;

    *begun = 0;
    MB_TRY(mb_checkpoint_list(run, &steps, &n));
    st = n > 0 ? mb_checkpoint_path(run, steps[n - 1], path, sizeof path) : MB_OK;
    mb_free(steps);
    if (st != MB_OK || n == 0)
        return st;
    MB_TRY(mb_checkpoint_read_info(path, &info));
    st = mb_json_parse(info.state_json, strlen(info.state_json), path, 0, MB_EIO, &doc);
    if (st == MB_OK)
        st = mb_json_get_int(mb_json_root(doc), "begun", 0, begun);
    mb_json_free(doc);
    mb_checkpoint_info_release(&info);
    return st;
}

/* Training rows are needed where the rows held out were split off them: by what they say, so they are made
 * as the run made them. */
static mb_status read_rows(mb_recipe *r, const char *model_path, const mb_model_config *c, int most,
                           mb_held_out *out)
{
    int64_t begun;
    mb_data *d = NULL;
    mb_status st;

    if (r->eval_datasets.n == 0 && r->val_set_size <= 0.0)
        return MB_OK;
    if (r->eval_datasets.n > 0)
        MB_TRY(mb_recipe_set(r, "datasets", "[]", "not read"));
    MB_TRY(mb_recipe_set_path(r, "model_name_or_path", model_path, "what is exported"));
    MB_TRY(when_begun(out->run, &begun));
    MB_TRY(mb_data_open(r, mb_task_of(r), c, false, begun, mb_comm_self(), &d));
    st = take_rows(d, most, out);
    mb_data_free(d);
    return st;
}

static mb_status read_run(char *recipe, const char *model_path, const mb_model_config *c, int most,
                          mb_held_out *out)
{
    char *args[] = {"export", recipe};
    mb_recipe *r = NULL;
    mb_status st;

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
