/* core/cuda/dropout.cu - dropout whose mask is a function, not a memory (core/rng.h).
 *
 * The four words of Philox block (ordinal, step, position, j) decide columns 4j .. 4j+3 of a row; a
 * thread computes one block and treats its columns.
 */
#include "core/cuda/each.h"

extern "C" {
#include "core/rng.h"
}

namespace {

struct mask {
    const int32_t *ordinal, *position;
    uint64_t key;
    uint32_t step;
    float p, scale; /* 1/(1-p) */
};

/* N neighbours, of which `word` is the first one's. */
template <int N, typename T>
MB_DEVICE void drop(T *y, const T *x, const uint32_t *word, float p, float scale, bool acc)
{
    float v[N], old[N];

    mb_load<N>(v, x);
    if (acc)
        mb_load<N>(old, y);
    MB_UNROLL
    for (int i = 0; i < N; i++) {
        v[i] = mb_rng_unit(word[i]) >= p ? mb_mul(v[i], scale) : 0.0f;
        if (acc)
            v[i] = old[i] + v[i];
    }
    mb_store<N>(y, v);
}

template <typename T, bool wide>
MB_GLOBAL void MB_BOUNDS(MB_EACH_BLOCK)
    dropout_kernel(mb_mat<T> y, mb_mat<const T> x, mask m, bool acc, mb_walk w)
{
    for (auto p = w.first(); w.more(p); w.next(p)) {
        const int64_t col = p.unit * 4;
        const mb_rng_block b = mb_philox(m.key, (uint32_t)m.ordinal[p.row], m.step,
                                         (uint32_t)m.position[p.row], (uint32_t)p.unit);
        T *to = y.row(p.row) + col;
        const T *from = x.row(p.row) + col;

        if (wide && col + 4 <= x.cols) {
            drop<4>(to, from, b.w, m.p, m.scale, acc);
            continue;
        }
        MB_UNROLL
        for (int k = 0; k < 4; k++)
            if (col + k < x.cols)
                drop<1>(to + k, from + k, b.w + k, m.p, m.scale, acc);
    }
}

template <typename T, bool wide>
mb_status launch(const mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mask &m, bool acc)
{
    const mb_walk w = mb_walk_of(mb_rows(x), mb_div_up(mb_cols(x), 4));

    MB_LAUNCH(ex, (dropout_kernel<T, wide>), w.blocks, MB_EACH_BLOCK, 0, mb_mat_of<T>(y),
              mb_mat_of<const T>(x), m, acc, w);
    return MB_OK;
}

} // namespace

mb_status mb_cuda_dropout(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_dropout *d,
                          bool acc)
{
    const mb_tensor *const t[] = {y, x};
    const mask m = {d->ordinal, d->position, mb_rng_key(d->seed, d->site, 0),
                    d->step,    d->p,        1.0f / (1.0f - d->p)};
    mb_each e;

    MB_REQUIRE(d->p >= 0.0f && d->p <= 1.0f, MB_EBUG, "dropout: p must be in [0, 1]");
    MB_TRY(mb_each_alike("dropout", 2, t));
    MB_TRY(mb_each_of("dropout", 2, t, 4, &e));
    /* rows are not merged: strides must be multiples even where they leave no gap */
    const bool wide = e.width == 4 &&
                      (mb_rows(x) <= 1 || (mb_row_stride(x) % 4 == 0 && mb_row_stride(y) % 4 == 0));

    MB_CUDA_DISPATCH(x->dtype, {
        if (wide)
            return launch<T, true>(ex, y, x, m, acc);
        return launch<T, false>(ex, y, x, m, acc);
    });
    return MB_OK;
}
