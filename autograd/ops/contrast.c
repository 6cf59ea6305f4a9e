/* autograd/ops/contrast.c - logprob(S) of anchors among the vectors e(S,D) f32; see mb_contrast_kind. */
#include "autograd/ops.h"

static mb_status forward(mb_tape *t, mb_call *c)
{
    const mb_contrast_args *a = c->attr;

    return MB_RUN(mb_tape_exec(t), contrast_fwd, mb_out(c, 0), &c->saved[0], &c->saved[1],
                  mb_in(c, 0), &a->row, &a->label, &a->len, &a->score, a->temperature, a->kind);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const mb_contrast_args *a = c->attr;
    mb_tensor slopes, *de = c->d_in[0], apart;

    MB_TRY(mb_tape_temporary(t, MB_DTYPE_F32, 2, c->saved[0].dim, &slopes));
    if (c->acc[0])
        MB_TRY(mb_tape_temporary(t, MB_DTYPE_F32, 2, de->dim, &apart));
    MB_TRY(MB_RUN(mb_tape_exec(t), contrast_bwd, c->acc[0] ? &apart : de, &slopes, c->d_out[0],
                  &c->saved[0], &c->saved[1], mb_in(c, 0), &a->row, &a->label, &a->len, &a->score,
                  a->temperature, a->kind));
    return c->acc[0] ? MB_RUN(mb_tape_exec(t), axpy, de, 1.0f, &apart) : MB_OK;
}

mb_status mb_contrast(mb_tape *t, mb_var *e, const mb_contrast_args *a, mb_var **logprob)
{
    const int64_t n = mb_rows(&e->value);
    mb_call c = {.op = &mb_op_contrast, .in = {e}, .needs_in = 1};

    MB_REQUIRE(mb_tensor_count(&a->row) == n && mb_tensor_count(&a->label) == n &&
                   mb_tensor_count(&a->len) == n && mb_tensor_count(&a->score) == n,
               MB_ESHAPE, "contrast: %lld vectors, %lld rows", (long long)n,
               (long long)mb_tensor_count(&a->row));
    MB_TRY(mb_tape_attr(t, a, sizeof *a, &c.attr));
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 1, &n, &c.out[0]));
    MB_TRY(mb_tape_saved(t, &c, 0, MB_DTYPE_F32, 2, (const int64_t[]){n, n}));
    MB_TRY(mb_tape_saved(t, &c, 1, MB_DTYPE_F32, 2, (const int64_t[]){3, n}));
    MB_TRY(mb_tape_apply(t, &c));
    *logprob = c.out[0];
    return MB_OK;
}

/* Two anchors, their candidates, one more, and one that is not there. */
static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static int32_t row[] = {0, 1, -1, -1, -1, -1}, label[] = {3, 2, 0, 0, 0, 0};
    static int32_t len[] = {1, 1, 1, 1, 1, 0};
    static float score[] = {0.3f, -0.2f, 0, 0, 0, 0};
    mb_contrast_args a = {.row = mb_tensor_1d(row, MB_DTYPE_I32, 6),
                          .label = mb_tensor_1d(label, MB_DTYPE_I32, 6),
                          .len = mb_tensor_1d(len, MB_DTYPE_I32, 6),
                          .score = mb_tensor_1d(score, MB_DTYPE_F32, 6),
                          .temperature = 0.5f,
                          .kind = (mb_contrast_kind)i};
    mb_var *e;

    *y = NULL;
    if (i > MB_CONTRAST_SCORE)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 6, 35, &e));
    return mb_contrast(t, e, &a, y);
}

const mb_op mb_op_contrast = {
    .name = "contrast", .forward = forward, .backward = backward, .sample = sample};
