/* dist/checkpoint_images.c - state.h5 and model.h5, which rank 0 writes. */
#include "core/alloc.h"
#include "dist/checkpoint_inside.h"
#include "dist/h5.h"

static mb_status put_head(mb_h5 *f, const mb_checkpoint_info *info, const mb_layout *l)
{
    const int64_t version = MB_CHECKPOINT_VERSION, ranks = l->size;

    MB_TRY(mb_h5_set_text(f, "/", "format", "mbuyu-checkpoint"));
    MB_TRY(mb_h5_set_ints(f, "/", "version", 0, &version));
    MB_TRY(mb_h5_set_text(f, "/", "run_id", info->run_id));
    MB_TRY(mb_h5_set_ints(f, "/", "step", 0, &info->step));
    MB_TRY(mb_h5_set_ints(f, "/", "ranks", 0, &ranks));
    return mb_h5_set_text(f, "/", "mbuyu", MB_VERSION);
}

static mb_status put_state(mb_h5 *f, const mb_checkpoint_info *info, const mb_layout *l)
{
    const mb_zero_history *h = &info->history;

    MB_TRY(put_head(f, info, l));
    MB_TRY(mb_h5_set_text(f, "/", "hdf5", mb_h5_library()));
    MB_TRY(mb_h5_put_text(f, "/trainer", info->state_json));
    MB_TRY(mb_h5_set_text(f, "/optim", "kind", l->kind->name));
    MB_TRY(mb_h5_set_ints(f, "/optim", "applied", 0, &h->applied));
    MB_TRY(mb_h5_set_ints(f, "/optim", "skipped", 0, &h->skipped));
    MB_TRY(mb_h5_set_ints(f, "/optim", "skipped_row", 0, &h->skipped_row));
    MB_TRY(mb_h5_set_ints(f, "/optim", "repeated", 0, &h->repeated));
    MB_TRY(mb_h5_set_real(f, "/optim", "loss_scale", h->loss_scale));
    MB_TRY(mb_h5_set_ints(f, "/optim", "unscaled", 0, &h->unscaled));
    return mb_h5_set_real(f, "/optim", "max_abs", h->max_abs);
}

mb_status mb_state_image(const mb_checkpoint_info *info, const mb_layout *l, void **bytes,
                         size_t *n)
{
    mb_h5 *f = NULL;

    MB_TRY(mb_h5_create_image("state.h5", 0, &f));
    const mb_status st = put_state(f, info, l);
    if (st == MB_OK)
        return mb_h5_close_image(f, bytes, n);
    mb_h5_close(f);
    return st;
}

/* One tensor of one set, mapped to every slice of it that any rank has. */
static mb_status put_tensor(mb_h5 *f, const mb_layout *l, int set, const mb_flat_segment *segment)
{
    const int64_t one = 1;
    char dataset[MB_DATASET_MAX];
    mb_h5_virtual *v = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_layout_dataset(l, set, segment->name, dataset));
    MB_TRY(mb_h5_virtual_begin(f, dataset, segment->ndim > 0 ? segment->ndim : 1,
                               segment->ndim > 0 ? segment->dim : &one, &v));
    for (int r = 0; r < l->size; r++) {
        const int64_t per_set = mb_layout_pieces(l, r) / mb_layout_sets(l);
        for (int64_t i = 0; i < per_set; i++) {
            int at = (int)(segment - l->flat->segment);
            mb_slice s;
            mb_piece p;
            mb_layout_piece(l, r, set * per_set + i, &p);
            if (!mb_layout_slice(l, p.from, p.to, &at, &s) || s.segment != segment)
                continue;
            MB_TRY_GOTO(mb_h5_virtual_map(v, p.file, dataset, s.count, 0, s.from, s.count), st,
                        done);
        }
    }
    MB_TRY_GOTO(mb_h5_virtual_end(v), st, done);
done:
    mb_h5_virtual_free(v);
    return st;
}

static mb_status put_model(mb_h5 *f, const mb_layout *l, const mb_checkpoint_info *info)
{
    MB_TRY(put_head(f, info, l));
    for (int set = 0; set < mb_layout_sets(l); set++)
        for (int i = 0; i < l->flat->n_segments; i++)
            MB_TRY(put_tensor(f, l, set, &l->flat->segment[i]));
    return MB_OK;
}

mb_status mb_model_image(const mb_layout *l, const mb_checkpoint_info *info, void **bytes,
                         size_t *n)
{
    mb_h5 *f = NULL;

    MB_TRY(mb_h5_create_image("model.h5", 0, &f));
    const mb_status st = put_model(f, l, info);
    if (st == MB_OK)
        return mb_h5_close_image(f, bytes, n);
    mb_h5_close(f);
    return st;
}
