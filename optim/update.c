/* optim/update.c - an update of a range of the flat order; see optim/optimizer.h.
 *
 * Neighbouring segments that are treated alike are updated together. Where states are kept in blocks,
 * a block is decoded and coded once in a step, though segments of either decay may meet in it: then
 * what decays is decayed first, p = keep p, which is the kernel's own first product, and the block
 * updated without decay.
 */
#include "optim/optimizer.h"

size_t mb_optim_state_bytes(const mb_optim_kind *k, int64_t n)
{
    size_t bytes = 0;

    for (int i = 0; i < k->n_states; i++)
        bytes += (size_t)mb_dtype_bytes(k->dtype[i], n);
    return bytes;
}

void mb_optim_states(const mb_optim_kind *k, const mb_tensor *state, int64_t from, int64_t n,
                     mb_tensor *out)
{
    for (int i = 0; i < k->n_states; i++)
        out[i] = mb_tensor_1d(mb_element(state[i].data, k->dtype[i], from), k->dtype[i], n);
}

/* The range being updated and the longest block of the states. */
struct job {
    const mb_optim_kind *kind;
    mb_exec *ex;
    const mb_optim_hyper *hyper;
    const mb_optim_step *step;
    int64_t from, block;
    float *param, *grad;
    const mb_tensor *state;
};

static int64_t block_of(const mb_optim_kind *k)
{
    int64_t block = 1;

    for (int i = 0; i < k->n_states; i++)
        if (mb_dtype_block(k->dtype[i]) > block)
            block = mb_dtype_block(k->dtype[i]);
    return block;
}

/* [a, b), a at the start of a block */
static mb_status piece(const struct job *j, int64_t a, int64_t b, bool decay)
{
    const int64_t whole = (b - a + j->block - 1) / j->block * j->block;
    mb_tensor state[MB_OPTIM_STATES_MAX];
    mb_tensor param = mb_tensor_1d(j->param + (a - j->from), MB_DTYPE_F32, b - a);
    const mb_tensor grad = mb_tensor_1d(j->grad + (a - j->from), MB_DTYPE_F32, b - a);
    mb_optim_step s = *j->step;

    s.decay = decay;
    s.place = a;
    mb_optim_states(j->kind, j->state, a - j->from, whole, state);
    return j->kind->update(j->ex, j->hyper, &s, &param, state, &grad);
}

static mb_status decay_ahead(const struct job *j, int64_t a, int64_t b)
{
    mb_tensor p = mb_tensor_1d(j->param + (a - j->from), MB_DTYPE_F32, b - a);

    return MB_RUN(j->ex, scale, &p, (float)(1.0 - j->step->lr * j->hyper->weight_decay), &p);
}

/* The end of the elements from `at` on that are treated as it is; *s is its segment. */
static int64_t alike(const mb_flat *f, int *s, int64_t at)
{
    while (f->segment[*s].offset + f->segment[*s].count <= at)
        ++*s;
    int last = *s;
    while (last + 1 < f->n_segments && f->segment[last + 1].decay == f->segment[*s].decay)
        last++;
    return f->segment[last].offset + f->segment[last].count;
}

/* The block at `at`, in which segments of either decay meet. */
static mb_status mixed_block(const struct job *j, const mb_flat *f, int s, int64_t at, int64_t end)
{
    for (int64_t i = at, next; i < end; i = next) {
        next = alike(f, &s, i);
        next = next < end ? next : end;
        if (f->segment[s].decay)
            MB_TRY(decay_ahead(j, i, next));
    }
    return piece(j, at, end, false);
}

/* What follows the last segment is padding. */
static int64_t used(const mb_flat *f)
{
    const mb_flat_segment *last = &f->segment[f->n_segments - 1];

    return f->n_segments > 0 ? last->offset + last->count : 0;
}

mb_status mb_optim_update(const mb_optim_kind *k, mb_exec *ex, const mb_optim_hyper *h,
                          const mb_optim_step *step, const mb_flat *flat, int64_t from, int64_t to,
                          float *param, const mb_tensor *state, float *grad)
{
    const struct job j = {.kind = k,
                          .ex = ex,
                          .hyper = h,
                          .step = step,
                          .from = from,
                          .block = block_of(k),
                          .param = param,
                          .grad = grad,
                          .state = state};
    const int64_t end = used(flat) < to ? used(flat) : to;
    int s = 0;

    for (int64_t at = from, next; at < end; at = next) {
        next = alike(flat, &s, at);
        next = next < end ? next / j.block * j.block : end;
        if (next > at) {
            MB_TRY(piece(&j, at, next, flat->segment[s].decay));
            continue;
        }
        next = at + j.block < end ? at + j.block : end;
        MB_TRY(mixed_block(&j, flat, s, at, next));
    }
    return MB_OK;
}
