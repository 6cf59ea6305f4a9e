/* core/cpu/adamw.c - one AdamW step on flat arrays, in torch.optim.AdamW's order of operations.
 *
 *     p *= 1 - lr*wd;  m += (1-b1)(g - m);  v = b2 v + (1-b2) g g
 *     p += (-lr/c1) m / (sqrt(v)/sqrt(c2) + eps)
 *
 * Scalars are worked out in double and rounded to f32 once, as PyTorch passes them to its kernels.
 * Moments of fewer bits are widened, and rounded after p has had its share of the exact ones: to bf16
 * by chance (core/rng.h), to 8 bits to the nearest code (core/code8.h).
 */
#include <math.h>

#include "core/cpu/code8.h"
#include "core/cpu/rows.h"
#include "core/cpu/sizes.h"
#include "core/rng.h"

struct step {
    float keep, w1, b2, w2, root_c2, eps, minus_lr, grad_scale;
};

static struct step step_of(const mb_adamw *a)
{
    return (struct step){
        .keep = (float)(1.0 - a->lr * a->weight_decay),
        .w1 = (float)(1.0 - a->beta1),
        .b2 = (float)a->beta2,
        .w2 = (float)(1.0 - a->beta2),
        .root_c2 = (float)sqrt(a->correction2),
        .eps = (float)a->eps,
        .minus_lr = (float)(-a->lr / a->correction1),
        .grad_scale = a->grad_scale,
    };
}

/* The new parameter; m and v become the new moments. */
MB_INLINE float advance(float p, float *m, float *v, float grad, const struct step *s)
{
    const float g = grad * s->grad_scale;
    const float d = g - *m;
    const float mi = s->w1 < 0.5f ? *m + s->w1 * d : g - d * (1.0f - s->w1);
    const float vi = *v * s->b2 + s->w2 * g * g;

    *m = mi;
    *v = vi;
    return p * s->keep + s->minus_lr * mi / (sqrtf(vi) / s->root_c2 + s->eps);
}

/* In the first step, gives a span of a moment its pages, by writing nothing into them. A page that is
 * read before it was ever written is the system's page of zeros, to be copied when it is written, while
 * every other thread is stopped: a first step of 512 tokens of SmolLM2 took 9.3 s instead of 4.1. */
static void take_pages(const mb_adamw *a, const mb_tensor *moment, const mb_span *at)
{
    enum { PAGE = 4096 };
    const int64_t n = mb_round_up(at->n, mb_dtype_block(moment->dtype));
    volatile unsigned char *first =
        (unsigned char *)moment->data + mb_dtype_bytes(moment->dtype, at->col);

    if (a->step != 1)
        return;
    for (int64_t i = 0; i < mb_dtype_bytes(moment->dtype, n); i += PAGE)
        (void)__atomic_fetch_or(first + i, 0, __ATOMIC_RELAXED);
}

MB_CPU_CLONES static void update(float *restrict p, float *restrict m, float *restrict v,
                                 const float *restrict grad, const struct step *restrict k,
                                 int64_t n)
{
    const struct step s = *k;

    for (int64_t i = 0; i < n; i++)
        p[i] = advance(p[i], &m[i], &v[i], grad[i], &s);
}

mb_status mb_cpu_adamw(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                       const mb_tensor *grad, const mb_adamw *a)
{
    const mb_spans sp = mb_spans_of(4, (const mb_tensor *const[]){param, m, v, grad});
    const struct step k = step_of(a);

    MB_ASSERT(sp.merged);
    const int team = mb_team(ex, sp.cols);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < sp.count; i++) {
        const mb_span at = mb_span_at(&sp, i);

        take_pages(a, m, &at);
        take_pages(a, v, &at);
        update(mb_f32(param) + at.col, mb_f32(m) + at.col, mb_f32(v) + at.col,
               mb_f32(grad) + at.col, &k, at.n);
    }
    return MB_OK;
}

/* ---- moments in bf16 ------------------------------------------------------------------------ */

/* Low halves of the words are for m, high ones for v. */
MB_CPU_CLONES static void update_bf16(float *restrict p, uint16_t *restrict m, uint16_t *restrict v,
                                      const float *restrict grad, const uint32_t *restrict word,
                                      const struct step *restrict k, int64_t n)
{
    const struct step s = *k;

    for (int64_t i = 0; i < n; i++) {
        float mi = mb_float_of_bits((uint32_t)m[i] << 16);
        float vi = mb_float_of_bits((uint32_t)v[i] << 16);

        p[i] = advance(p[i], &mi, &vi, grad[i], &s);
        m[i] = mb_rng_bf16(mb_bits_of_float(mi), word[i] & 0xffffu);
        v[i] = mb_rng_bf16(mb_bits_of_float(vi), word[i] >> 16);
    }
}

enum { WORDS = 4 * MB_PHILOX_BLOCKS };

mb_status mb_cpu_adamw_bf16(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                            const mb_tensor *grad, const mb_adamw *a)
{
    const mb_spans sp = mb_spans_of(4, (const mb_tensor *const[]){param, m, v, grad});
    const struct step k = step_of(a);

    MB_ASSERT(sp.merged && m->dtype == MB_DTYPE_BF16 && v->dtype == MB_DTYPE_BF16);
    const int team = mb_team(ex, sp.cols);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t j = 0; j < sp.count; j++) {
        const mb_span at = mb_span_at(&sp, j);
        uint32_t word[WORDS];

        take_pages(a, m, &at);
        take_pages(a, v, &at);
        for (int64_t i = at.col, n; i < at.col + at.n; i += n) {
            const int64_t place = a->place + i, skip = place % WORDS;
            const uint64_t first = (uint64_t)(place - skip) / 4;

            n = at.col + at.n - i < WORDS - skip ? at.col + at.n - i : WORDS - skip;
            mb_cpu_philox(word, a->key, (uint32_t)a->step, (uint32_t)(a->step >> 32),
                          (uint32_t)(first >> 32), (uint32_t)first);
            update_bf16(mb_f32(param) + i, (uint16_t *)m->data + i, (uint16_t *)v->data + i,
                        mb_f32(grad) + i, word + skip, &k, n);
        }
    }
    return MB_OK;
}

/* ---- moments in 8 bits ---------------------------------------------------------------------- */

/* n elements from the start of a block; what the last block has beyond them is zero. */
MB_CPU_CLONES static void update_8bit(float *restrict p, mb_code8 *restrict m, mb_code8 *restrict v,
                                      const float *restrict grad, const struct step *restrict k,
                                      int64_t n)
{
    const struct step s = *k;

    for (int64_t b = 0; b * MB_CODE8_BLOCK < n; b++) {
        const int64_t from = b * MB_CODE8_BLOCK;
        const int64_t count = n - from < MB_CODE8_BLOCK ? n - from : MB_CODE8_BLOCK;
        float mi[MB_CODE8_BLOCK], vi[MB_CODE8_BLOCK];

        mb_code8_unpack(mi, &m[b], true);
        mb_code8_unpack(vi, &v[b], false);
        for (int64_t i = 0; i < count; i++)
            p[from + i] = advance(p[from + i], &mi[i], &vi[i], grad[from + i], &s);
        for (int64_t i = count; i < MB_CODE8_BLOCK; i++)
            mi[i] = vi[i] = 0.0f;
        mb_code8_pack(&m[b], mi, true);
        mb_code8_pack(&v[b], vi, false);
    }
}

mb_status mb_cpu_adamw_8bit(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                            const mb_tensor *grad, const mb_adamw *a)
{
    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){param, grad});
    const int64_t blocks = mb_ceil_div(sp.cols, MB_CODE8_BLOCK);
    const struct step k = step_of(a);

    MB_ASSERT(sp.merged && m->dtype == MB_DTYPE_DYN8 && v->dtype == MB_DTYPE_DYNU8 &&
              mb_tensor_count(m) == blocks * MB_CODE8_BLOCK && mb_tensor_same_shape(m, v));
    const int team = mb_team(ex, sp.cols);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < sp.count; i++) {
        const mb_span at = mb_span_at(&sp, i); /* begins a block: MB_SPAN is many whole ones */

        take_pages(a, m, &at);
        take_pages(a, v, &at);
        update_8bit(mb_f32(param) + at.col, (mb_code8 *)m->data + at.col / MB_CODE8_BLOCK,
                    (mb_code8 *)v->data + at.col / MB_CODE8_BLOCK, mb_f32(grad) + at.col, &k, at.n);
    }
    return MB_OK;
}
