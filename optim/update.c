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
    const mb_optim_param *param;
    float *grad;
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

/* What is done to parameters from element `at` on. */
typedef mb_status (*part_fn)(const struct job *j, int64_t at, mb_tensor *param, bool decay);

/* f for [a, b), in one go or, where parameters are in halves, in parts that are joined for it. */
static mb_status in_parts(const struct job *j, int64_t a, int64_t b, part_fn f, bool decay)
{
    const mb_optim_param *p = j->param;
    mb_tensor param;

    if (p->whole != NULL) {
        param = mb_tensor_1d(p->whole + (a - j->from), MB_DTYPE_F32, b - a);
        return f(j, a, &param, decay);
    }
    for (int64_t at = a, n; at < b; at += n) {
        n = b - at < MB_OPTIM_JOINED ? b - at : MB_OPTIM_JOINED;
        mb_tensor hi = mb_tensor_1d(p->hi + (at - j->from), MB_DTYPE_BF16, n);
        mb_tensor lo = mb_tensor_1d(p->lo + (at - j->from), MB_DTYPE_U16, n);

        param = mb_tensor_1d(p->joined, MB_DTYPE_F32, n);
        MB_TRY(MB_RUN(j->ex, join_bf16, &param, &hi, &lo));
        MB_TRY(f(j, at, &param, decay));
        MB_TRY(MB_RUN(j->ex, split_bf16, &hi, &lo, &param));
    }
    return MB_OK;
}

static mb_status update_part(const struct job *j, int64_t at, mb_tensor *param, bool decay)
{
    const int64_t n = mb_tensor_count(param), whole = (n + j->block - 1) / j->block * j->block;
    const mb_tensor grad = mb_tensor_1d(j->grad + (at - j->from), MB_DTYPE_F32, n);
    mb_tensor state[MB_OPTIM_STATES_MAX];
    mb_optim_step s = *j->step;

    s.decay = decay;
    s.place = at;
    mb_optim_states(j->kind, j->state, at - j->from, whole, state);
    return j->kind->update(j->ex, j->hyper, &s, param, state, &grad);
}

/* [a, b), a at the start of a block */
static mb_status piece(const struct job *j, int64_t a, int64_t b, bool decay)
{
    return in_parts(j, a, b, update_part, decay);
}

static mb_status decay_part(const struct job *j, int64_t at, mb_tensor *param, bool decay)
{
    return MB_RUN(j->ex, scale, param, (float)(1.0 - j->step->lr * j->hyper->weight_decay), param);
}

static mb_status decay_ahead(const struct job *j, int64_t a, int64_t b)
{
    return in_parts(j, a, b, decay_part, true);
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
                          const mb_optim_param *param, const mb_tensor *state, float *grad)
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
