/* core/cuda/adamw.cu - one AdamW step on flat arrays, in torch.optim.AdamW's order of operations.
 *
 *     p *= 1 - lr*wd;  m += (1-b1)(g - m);  v = b2 v + (1-b2) g g
 *     p += (-lr/c1) m / (sqrt(v)/sqrt(c2) + eps)
 *
 * Scalars are worked out in double and rounded to f32 once. Built without contraction to fused
 * multiply-add; square roots and divisions are rounded correctly: the same bits as on a CPU. Moments of
 * fewer bits are widened, and rounded after p has had its share of the exact ones: to bf16 by chance
 * (core/rng.h), to 8 bits to the nearest code (core/code8.h).
 */
#include <math.h>

#include "core/cuda/cuda.h"

extern "C" {
#include "core/code8.h"
#include "core/rng.h"
}

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

/* ---- moments in bf16 ------------------------------------------------------------------------ */

MB_DEVICE void update_bf16(float &p, mb_bf16 &m, mb_bf16 &v, float grad, uint32_t word,
                           const step &s)
{
    float mi = mb_to_f32(m), vi = mb_to_f32(v);

    update(p, mi, vi, grad, s);
    m.u = mb_rng_bf16(mb_bits(mi), word & 0xffffu);
    v.u = mb_rng_bf16(mb_bits(vi), word >> 16);
}

/* A thread has the elements of one Philox block, whose four words are theirs; the first thread's block
 * may begin before the arrays do. */
MB_GLOBAL MB_BOUNDS(BLOCK) void adamw_bf16_kernel(float *param, mb_bf16 *m, mb_bf16 *v,
                                                  const float *grad, int64_t n, step s,
                                                  uint64_t key, int64_t t, int64_t place,
                                                  bool vector)
{
    const int64_t quad = place / LENGTH + (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    const int64_t at = quad * LENGTH - place;
    const mb_rng_block b =
        mb_philox(key, (uint32_t)t, (uint32_t)(t >> 32), (uint32_t)(quad >> 32), (uint32_t)quad);

    if (vector && at >= 0 && at + LENGTH <= n) {
        using halves = mb_vec<mb_bf16, LENGTH>;
        halves mi = *reinterpret_cast<const halves *>(m + at);
        halves vi = *reinterpret_cast<const halves *>(v + at);
        float pi[LENGTH], gi[LENGTH];

        mb_load(pi, param + at);
        mb_load(gi, grad + at);
        MB_UNROLL
        for (int i = 0; i < LENGTH; i++)
            update_bf16(pi[i], mi.at[i], vi.at[i], gi[i], b.w[i], s);
        mb_store(param + at, pi);
        *reinterpret_cast<halves *>(m + at) = mi;
        *reinterpret_cast<halves *>(v + at) = vi;
        return;
    }
    MB_UNROLL
    for (int i = 0; i < LENGTH; i++)
        if (at + i >= 0 && at + i < n)
            update_bf16(param[at + i], m[at + i], v[at + i], grad[at + i], b.w[i], s);
}

/* ---- moments in 8 bits ---------------------------------------------------------------------- */

enum { EACH = MB_CODE8_BLOCK / 32, WORDS = 1 + MB_CODE8_BLOCK / 4 }; /* of a lane; of a block */

/* A lane's share of a block: EACH numbers. */
template <bool is_signed> MB_DEVICE void unpack(float (&x)[EACH], const uint32_t *block)
{
    const float scale = mb_from_bits(block[0]);

    MB_UNROLL
    for (int w = 0; w < EACH / 4; w++) {
        const uint32_t codes = block[1 + mb_lane() * (EACH / 4) + w];

        MB_UNROLL
        for (int i = 0; i < 4; i++) {
            const int code = (int)(codes >> (8 * i) & 0xffu);

            x[4 * w + i] = (is_signed ? mb_code8_signed(code) : mb_code8_unsigned(code)) * scale;
        }
    }
}

MB_DEVICE uint32_t warp_most(uint32_t u)
{
    for (int mask = 16; mask > 0; mask /= 2) {
        const uint32_t other = mb_shfl_xor(u, mask);

        u = other > u ? other : u;
    }
    return u;
}

/* All lanes of a warp together. */
template <bool is_signed> MB_DEVICE void pack(uint32_t *block, const float (&x)[EACH])
{
    uint32_t above = 0, below = 0;

    MB_UNROLL
    for (int i = 0; i < EACH; i++) {
        const uint32_t u = mb_bits(x[i]);

        if (u >= 0x80000000u)
            below = u > below ? u : below;
        else
            above = u > above ? u : above;
    }
    above = warp_most(above);
    below = is_signed ? warp_most(below) : 0;
    const float scale = mb_code8_scale(above, below > 0x80000000u ? below : 0);
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;

    if (mb_lane() == 0)
        block[0] = mb_bits(scale);
    MB_UNROLL
    for (int w = 0; w < EACH / 4; w++) {
        uint32_t codes = 0;

        MB_UNROLL
        for (int i = 0; i < 4; i++) {
            const float r = x[4 * w + i] * inverse;

            codes |=
                (uint32_t)((is_signed ? mb_code8_from_signed(r) : mb_code8_from_unsigned(r)) & 0xff)
                << (8 * i);
        }
        block[1 + mb_lane() * (EACH / 4) + w] = codes;
    }
}

/* A warp has a block. */
MB_GLOBAL MB_BOUNDS(BLOCK) void adamw_8bit_kernel(float *param, uint32_t *m, uint32_t *v,
                                                  const float *grad, int64_t n, step s, bool vector)
{
    const int64_t block = (int64_t)blockIdx.x * (BLOCK / 32) + mb_warp();
    const int64_t at = block * MB_CODE8_BLOCK + mb_lane() * EACH;
    float mi[EACH], vi[EACH];

    if (block * MB_CODE8_BLOCK >= n)
        return;
    unpack<true>(mi, m + block * WORDS);
    unpack<false>(vi, v + block * WORDS);
    if (vector && at + EACH <= n) {
        MB_UNROLL
        for (int k = 0; k < EACH; k += LENGTH) {
            float pi[LENGTH], gi[LENGTH];

            mb_load(pi, param + at + k);
            mb_load(gi, grad + at + k);
            MB_UNROLL
            for (int i = 0; i < LENGTH; i++)
                update(pi[i], mi[k + i], vi[k + i], gi[i], s);
            mb_store(param + at + k, pi);
        }
    } else {
        MB_UNROLL
        for (int i = 0; i < EACH; i++) {
            if (at + i < n)
                update(param[at + i], mi[i], vi[i], grad[at + i], s);
            else
                mi[i] = vi[i] = 0.0f;
        }
    }
    pack<true>(m + block * WORDS, mi);
    pack<false>(v + block * WORDS, vi);
}

/* ---- bodies --------------------------------------------------------------------------------- */

step step_of(const mb_adamw *a)
{
    return {
        (float)(1.0 - a->lr * a->weight_decay),
        (float)(1.0 - a->beta1),
        (float)a->beta2,
        (float)(1.0 - a->beta2),
        (float)sqrt(a->correction2),
        (float)a->eps,
        (float)(-a->lr / a->correction1),
        a->grad_scale,
    };
}

/* Is an array whose element `skip` before the first would be aligned for LENGTH at once? */
bool aligned(const mb_tensor *t, int64_t skip)
{
    const int64_t size = mb_dtype_bytes(t->dtype, 1);

    return (reinterpret_cast<uintptr_t>(t->data) - (uintptr_t)(skip * size)) %
               (uintptr_t)(LENGTH * size) ==
           0;
}

bool flat(const mb_tensor *t, mb_dtype d, int64_t n)
{
    return t->dtype == d && mb_tensor_count(t) == n && mb_tensor_is_contiguous(t);
}

} // namespace

extern "C" mb_status mb_cuda_adamw(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                                   const mb_tensor *grad, const mb_adamw *a)
{
    const int64_t n = mb_tensor_count(param);
    const mb_tensor *const all[] = {param, m, v, grad};
    bool vector = true;

    for (const mb_tensor *t : all) {
        MB_REQUIRE(flat(t, MB_DTYPE_F32, n), MB_EBUG,
                   "adamw: arrays must be flat f32 of one length");
        vector = vector && aligned(t, 0);
    }
    MB_LAUNCH(ex, adamw_kernel, mb_div_up(n, LENGTH * BLOCK), BLOCK, 0, mb_f32(param), mb_f32(m),
              mb_f32(v), mb_f32(grad), n, step_of(a), vector);
    return MB_OK;
}

extern "C" mb_status mb_cuda_adamw_bf16(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                                        const mb_tensor *grad, const mb_adamw *a)
{
    const int64_t n = mb_tensor_count(param), skip = a->place % LENGTH;
    const int64_t quads = n > 0 ? mb_div_up(skip + n, LENGTH) : 0;

    MB_REQUIRE(flat(param, MB_DTYPE_F32, n) && flat(grad, MB_DTYPE_F32, n) &&
                   flat(m, MB_DTYPE_BF16, n) && flat(v, MB_DTYPE_BF16, n),
               MB_EBUG, "adamw_bf16: arrays must be flat f32 and bf16 of one length");
    const bool vector =
        aligned(param, skip) && aligned(m, skip) && aligned(v, skip) && aligned(grad, skip);
    MB_LAUNCH(ex, adamw_bf16_kernel, mb_div_up(quads, BLOCK), BLOCK, 0, mb_f32(param),
              static_cast<mb_bf16 *>(m->data), static_cast<mb_bf16 *>(v->data), mb_f32(grad), n,
              step_of(a), a->key, a->step, a->place, vector);
    return MB_OK;
}

extern "C" mb_status mb_cuda_adamw_8bit(mb_exec *ex, mb_tensor *param, mb_tensor *m, mb_tensor *v,
                                        const mb_tensor *grad, const mb_adamw *a)
{
    const int64_t n = mb_tensor_count(param), blocks = mb_div_up(n, MB_CODE8_BLOCK);

    MB_REQUIRE(flat(param, MB_DTYPE_F32, n) && flat(grad, MB_DTYPE_F32, n) &&
                   flat(m, MB_DTYPE_DYN8, blocks * MB_CODE8_BLOCK) &&
                   flat(v, MB_DTYPE_DYNU8, blocks * MB_CODE8_BLOCK),
               MB_EBUG, "adamw_8bit: arrays must be flat f32 of one length and blocks for it");
    MB_LAUNCH(ex, adamw_8bit_kernel, mb_div_up(blocks, BLOCK / 32), BLOCK, 0, mb_f32(param),
              static_cast<uint32_t *>(m->data), static_cast<uint32_t *>(v->data), mb_f32(grad), n,
              step_of(a), aligned(param, 0) && aligned(grad, 0));
    return MB_OK;
}
