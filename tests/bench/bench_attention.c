/* tests/bench/bench_attention.c - attention forward and backward, and one token of generation.
 *
 *     bench_attention [threads]
 *
 * GFLOP/s count what a causal mask leaves: half of 4 T^2 hd per head forward, 2.5 times that
 * backward.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/init.h"
#include "core/log.h"

enum { SEQS = 4, HEADS = 9, KV = 3, HD = 64, REPEATS = 20, CACHE = 2048 };

static mb_status floats(int64_t n, float **out)
{
    MB_TRY(mb_pages((size_t)n * sizeof(float), "operands", (void **)out));
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = (float)(i * 7919 % 2003) / 1000.0f - 1.0f;
    return MB_OK;
}

static mb_status matrix(int64_t rows, int64_t cols, mb_tensor *t)
{
    float *x;

    MB_TRY(floats(rows * cols, &x));
    *t = mb_tensor_2d(x, MB_DTYPE_F32, rows, cols);
    return MB_OK;
}

static mb_status bench(mb_exec *ex, int32_t length, float dropout)
{
    const int64_t rows = SEQS * length;
    const double flop = 2.0 * SEQS * HEADS * (double)length * length * HD;
    double best_f = 1e30, best_b = 1e30;
    int32_t start[SEQS], len[SEQS], *ordinal;
    mb_tensor q, k, v, o, lse, d_o, dq, dk, dv;

    MB_TRY(matrix(rows, HEADS * HD, &q));
    MB_TRY(matrix(rows, KV * HD, &k));
    MB_TRY(matrix(rows, KV * HD, &v));
    MB_TRY(matrix(rows, HEADS * HD, &o));
    MB_TRY(matrix(HEADS, rows, &lse));
    MB_TRY(matrix(rows, HEADS * HD, &d_o));
    MB_TRY(matrix(rows, HEADS * HD, &dq));
    MB_TRY(matrix(rows, KV * HD, &dk));
    MB_TRY(matrix(rows, KV * HD, &dv));
    MB_TRY(mb_alloc_array((size_t)rows, sizeof *ordinal, "ordinals", (void **)&ordinal));
    for (int i = 0; i < SEQS; i++) {
        start[i] = i * length;
        len[i] = length;
    }
    const mb_attention at = {.heads = HEADS,
                             .kv_heads = KV,
                             .head_dim = HD,
                             .scale = 1.0f / sqrtf(HD),
                             .causal = true,
                             .n_seq = SEQS,
                             .q_start = start,
                             .q_len = len,
                             .k_start = start,
                             .k_len = len,
                             .max_len = length,
                             .dropout = dropout,
                             .ordinal = ordinal};

    for (int i = 0; i < REPEATS; i++) {
        const double t0 = mb_clock();

        MB_TRY(MB_RUN(ex, attention_fwd, &o, &lse, &q, &k, &v, &at));
        const double t1 = mb_clock();

        MB_TRY(MB_RUN(ex, attention_bwd, &dq, &dk, &dv, &d_o, &q, &k, &v, &o, &lse, &at, false));
        const double t2 = mb_clock();

        best_f = t1 - t0 < best_f ? t1 - t0 : best_f;
        best_b = t2 - t1 < best_b ? t2 - t1 : best_b;
    }
    printf("%d x %4d, dropout %.1f: forward %7.2f ms %6.1f GFLOP/s, backward %7.2f ms %6.1f "
           "GFLOP/s\n",
           SEQS, length, (double)dropout, best_f * 1e3, flop / best_f * 1e-9, best_b * 1e3,
           2.5 * flop / best_b * 1e-9);
    return MB_OK;
}

static mb_status bench_one_token(mb_exec *ex)
{
    const int32_t zero = 0, one = 1, cache = CACHE;
    mb_tensor q, k, v, o, lse;
    double best = 1e30;

    MB_TRY(matrix(1, HEADS * HD, &q));
    MB_TRY(matrix(CACHE, KV * HD, &k));
    MB_TRY(matrix(CACHE, KV * HD, &v));
    MB_TRY(matrix(1, HEADS * HD, &o));
    MB_TRY(matrix(HEADS, 1, &lse));
    const mb_attention at = {.heads = HEADS,
                             .kv_heads = KV,
                             .head_dim = HD,
                             .scale = 1.0f / sqrtf(HD),
                             .causal = true,
                             .n_seq = 1,
                             .q_start = &zero,
                             .q_len = &one,
                             .k_start = &zero,
                             .k_len = &cache,
                             .max_len = CACHE};

    for (int i = 0; i < 20 * REPEATS; i++) {
        const double t0 = mb_clock();

        MB_TRY(MB_RUN(ex, attention_fwd, &o, &lse, &q, &k, &v, &at));
        const double seconds = mb_clock() - t0;
        best = seconds < best ? seconds : best;
    }
    printf("one token after %d: %.3f ms, %.1f GB/s of cache\n", CACHE, best * 1e3,
           2.0 * CACHE * KV * HD * 4 / best * 1e-9);
    return MB_OK;
}

static mb_status run(int threads)
{
    mb_arena *scratch;

    MB_TRY(mb_cpu_init());
    printf("%s, %d threads, %d heads on %d of %d\n", mb_cpu_class(), threads, HEADS, KV, HD);
    MB_TRY(mb_arena_new("scratch", (size_t)1 << 30, &scratch));
    mb_exec ex = mb_cpu_exec(scratch, threads);
    MB_TRY(bench(&ex, 128, 0.0f));
    MB_TRY(bench(&ex, 512, 0.0f));
    MB_TRY(bench(&ex, 512, 0.1f));
    MB_TRY(bench(&ex, 2048, 0.0f));
    MB_TRY(bench_one_token(&ex));
    mb_arena_free(scratch);
    return MB_OK;
}

int main(int argc, char **argv)
{
    if (run(argc > 1 ? atoi(argv[1]) : 2) != MB_OK) {
        fprintf(stderr, "%s\n", mb_status_sentence());
        return 1;
    }
    return 0;
}
