/* core/cpu/adamw.c - one AdamW step on flat arrays, in torch.optim.AdamW's order of operations.
 *
 *     p *= 1 - lr*wd;  m += (1-b1)(g - m);  v = b2 v + (1-b2) g g
 *     p += (-lr/c1) m / (sqrt(v)/sqrt(c2) + eps)
 *
 * Scalars are worked out in double and rounded to f32 once, as PyTorch passes them to its kernels.
 */
#include <math.h>

#include "core/cpu/rows.h"

struct step {
    float keep, w1, b2, w2, root_c2, eps, minus_lr, grad_scale;
};

MB_CPU_CLONES static void update(float *restrict p, float *restrict m, float *restrict v,
                                 const float *restrict grad, const struct step *restrict k,
                                 int64_t n)
{
    const struct step s = *k;

    for (int64_t i = 0; i < n; i++) {
        const float g = grad[i] * s.grad_scale;
        const float d = g - m[i];
        const float mi = s.w1 < 0.5f ? m[i] + s.w1 * d : g - d * (1.0f - s.w1);
        const float vi = v[i] * s.b2 + s.w2 * g * g;

        m[i] = mi;
        v[i] = vi;
        p[i] = p[i] * s.keep + s.minus_lr * mi / (sqrtf(vi) / s.root_c2 + s.eps);
    }
}

mb_status mb_cpu_adamw(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                       const mb_tensor *grad, const mb_adamw *a)
{
    const mb_spans sp = mb_spans_of(4, (const mb_tensor *const[]){param, m, v, grad});
    const struct step k = {
        .keep = (float)(1.0 - a->lr * a->weight_decay),
        .w1 = (float)(1.0 - a->beta1),
        .b2 = (float)a->beta2,
        .w2 = (float)(1.0 - a->beta2),
        .root_c2 = (float)sqrt(a->correction2),
        .eps = (float)a->eps,
        .minus_lr = (float)(-a->lr / a->correction1),
        .grad_scale = a->grad_scale,
    };

    MB_ASSERT(sp.merged);
    const int team = mb_team(ex, sp.cols);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < sp.count; i++) {
        const mb_span at = mb_span_at(&sp, i);

        update(mb_f32(param) + at.col, mb_f32(m) + at.col, mb_f32(v) + at.col,
               mb_f32(grad) + at.col, &k, at.n);
    }
    return MB_OK;
}
