/* core/cuda/adamw.cu - one AdamW step on flat arrays, in torch.optim.AdamW's order of operations.
 *
 *     p *= 1 - lr*wd;  m += (1-b1)(g - m);  v = b2 v + (1-b2) g g
 *     p += (-lr/c1) m / (sqrt(v)/sqrt(c2) + eps)
 *
 * Scalars are worked out in double and rounded to f32 once. Built without contraction to fused
 * multiply-add; square roots and divisions are rounded correctly: the same bits as on a CPU.
 */
#include <math.h>

#include "core/cuda/cuda.h"

namespace {

enum { LENGTH = 4, BLOCK = 256 }; /* elements of a thread */

struct step {
    float keep, w1, b2, w2, root_c2, eps, minus_lr, grad_scale;
};

MB_DEVICE void update(float &p, float &m, float &v, float grad, const step &s)
{
    const float g = grad * s.grad_scale;
    const float d = g - m;

    m = s.w1 < 0.5f ? m + s.w1 * d : g - d * (1.0f - s.w1);
    v = v * s.b2 + s.w2 * g * g;
    p = p * s.keep + s.minus_lr * m / (sqrtf(v) / s.root_c2 + s.eps);
}

MB_GLOBAL MB_BOUNDS(BLOCK) void adamw_kernel(float *param, float *m, float *v, const float *grad,
                                             int64_t n, step s, bool vector)
{
    const int64_t at = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * LENGTH;

    if (vector && at + LENGTH <= n) {
        float pi[LENGTH], mi[LENGTH], vi[LENGTH], gi[LENGTH];

        mb_load(pi, param + at);
        mb_load(mi, m + at);
        mb_load(vi, v + at);
        mb_load(gi, grad + at);
        MB_UNROLL
        for (int i = 0; i < LENGTH; i++)
            update(pi[i], mi[i], vi[i], gi[i], s);
        mb_store(param + at, pi);
        mb_store(m + at, mi);
        mb_store(v + at, vi);
        return;
    }
    for (int64_t i = at; i < at + LENGTH && i < n; i++)
        update(param[i], m[i], v[i], grad[i], s);
}

bool aligned(const mb_tensor *t)
{
    return reinterpret_cast<uintptr_t>(t->data) % (LENGTH * sizeof(float)) == 0;
}

} // namespace

extern "C" mb_status mb_cuda_adamw(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                                   const mb_tensor *grad, const mb_adamw *a)
{
    const int64_t n = mb_tensor_count(param);
    const mb_tensor *const all[] = {param, m, v, grad};
    bool vector = true;
    const step s = {
        (float)(1.0 - a->lr * a->weight_decay),
        (float)(1.0 - a->beta1),
        (float)a->beta2,
        (float)(1.0 - a->beta2),
        (float)sqrt(a->correction2),
        (float)a->eps,
        (float)(-a->lr / a->correction1),
        a->grad_scale,
    };

    for (const mb_tensor *t : all) {
        MB_REQUIRE(t->dtype == MB_DTYPE_F32 && mb_tensor_count(t) == n &&
                       mb_tensor_is_contiguous(t),
                   MB_EBUG, "adamw: arrays must be flat f32 of one length");
        vector = vector && aligned(t);
    }
    MB_LAUNCH(ex, adamw_kernel, mb_div_up(n, LENGTH * BLOCK), BLOCK, 0, mb_f32(param), mb_f32(m),
              mb_f32(v), mb_f32(grad), n, s, vector);
    return MB_OK;
}
