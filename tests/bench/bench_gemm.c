/* tests/bench/bench_gemm.c - GFLOP/s of the products of a training step: f32 under every provider, and
 * bf16 in every way that this processor can.
 *
 *     bench_gemm [threads [f32|bf16|rows]]
 *
 * With "f32" only that, with "bf16" only that in the best way; with "rows" only products whose rows are
 * alike (core/cpu/gemm_rows.h), as a server's are.
 *
 * Shapes are those of SmolLM2-135M with 4 x 512 tokens: y = x W^T, dx = dy W, dW = dy^T x, LoRA's
 * narrow ones, and one token of generation.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"
#include "core/cpu/gemm_panels.h"
#include "core/cpu/init.h"
#include "core/log.h"

static const struct {
    const char *what;
    int64_t m, n, k;
    bool ta, tb;
} products[] = {
    {"y  = x W^T", 2048, 576, 576, false, true},   {"y  = x W^T", 2048, 1536, 576, false, true},
    {"y  = x W^T", 2048, 49152, 576, false, true}, {"dx = dy W", 2048, 576, 576, false, false},
    {"dx = dy W", 2048, 576, 1536, false, false},  {"dW = dy^T x", 576, 576, 2048, true, false},
    {"dW = dy^T x", 1536, 576, 2048, true, false}, {"dW = dy^T x", 49152, 576, 2048, true, false},
    {"LoRA x A^T", 2048, 16, 576, false, true},    {"LoRA h B^T", 2048, 576, 16, false, true},
    {"LoRA dA", 16, 576, 2048, true, false},       {"LoRA dB", 576, 16, 2048, true, false},
    {"short prompt", 64, 576, 576, false, true},   {"one token", 1, 1536, 576, false, true},
    {"one token", 1, 49152, 576, false, true},     {"one token x W", 1, 2304, 768, false, false},
};

static const struct {
    int64_t m, n, k;
    bool tb;
} by_rows[] = {{1, 576, 576, true},    {1, 1536, 576, true},  {1, 576, 1536, true},
               {1, 49152, 576, true},  {8, 1536, 576, true},  {8, 49152, 576, true},
               {32, 1536, 576, true},  {32, 576, 1536, true}, {32, 49152, 576, true},
               {256, 1536, 576, true}, {1, 2304, 768, false}, {32, 2304, 768, false}};

static mb_status numbers(mb_dtype d, int64_t n, void **out)
{
    MB_TRY(mb_pages((size_t)n * sizeof(float), "operands", out));
    for (int64_t i = 0; i < n; i++) {
        const float x = (float)(i * 7919 % 2003) / 1000.0f - 1.0f;
        if (d == MB_DTYPE_F32)
            ((float *)*out)[i] = x;
        else
            ((uint16_t *)*out)[i] = mb_f32_to_bf16(x);
    }
    return MB_OK;
}

static mb_status bench(mb_exec *ex, mb_dtype d, const char *what, int64_t m, int64_t n, int64_t k,
                       bool ta, bool tb)
{
    const double flop = 2.0 * (double)m * (double)n * (double)k;
    const int repeats = (int)(4e9 / flop) + 1 < 20000 ? (int)(4e9 / flop) + 1 : 20000;
    double best = 1e30;
    void *a, *b, *c;

    MB_TRY(numbers(d, m * k, &a));
    MB_TRY(numbers(d, n * k, &b));
    MB_TRY(numbers(d, m * n, &c));
    const mb_tensor at_ = mb_tensor_2d(a, d, ta ? k : m, ta ? m : k);
    const mb_tensor bt = mb_tensor_2d(b, d, tb ? n : k, tb ? k : n);
    mb_tensor ct = mb_tensor_2d(c, ta ? MB_DTYPE_F32 : d, m, n); /* as gradients of weights are */

    for (int round = 0; round < 4; round++) {
        const double start = mb_clock();

        for (int i = 0; i < repeats; i++)
            MB_TRY(MB_RUN(ex, gemm, &ct, &at_, ta, &bt, tb, 1.0f, 0.0f, NULL));
        const double seconds = (mb_clock() - start) / repeats;
        best = seconds < best ? seconds : best;
    }
    printf("%-14s %6lld x %6lld x %5lld  %9.3f ms  %6.1f GFLOP/s  %6.1f GB/s\n", what, (long long)m,
           (long long)n, (long long)k, best * 1e3, flop / best * 1e-9,
           1e-9 * (double)(mb_dtype_bytes(d, m * k + n * k) + mb_dtype_bytes(ct.dtype, m * n)) /
               best);
    mb_pages_free(a, (size_t)(m * k) * sizeof(float));
    mb_pages_free(b, (size_t)(n * k) * sizeof(float));
    mb_pages_free(c, (size_t)(m * n) * sizeof(float));
    return MB_OK;
}

static mb_status bench_all(mb_exec *ex, mb_dtype d)
{
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        MB_TRY(bench(ex, d, products[i].what, products[i].m, products[i].n, products[i].k,
                     products[i].ta, products[i].tb));
    return MB_OK;
}

static mb_status run_rows(int threads)
{
    mb_arena *scratch;

    MB_TRY(mb_cpu_init());
    MB_TRY(mb_arena_new("scratch", (size_t)1 << 30, &scratch));
    mb_exec ex = mb_cpu_exec(scratch, threads);
    ex.rows_alike = true;
    for (size_t i = 0; i < sizeof by_rows / sizeof *by_rows; i++)
        MB_TRY(bench(&ex, MB_DTYPE_F32, "rows alike", by_rows[i].m, by_rows[i].n, by_rows[i].k,
                     false, by_rows[i].tb));
    mb_arena_free(scratch);
    return MB_OK;
}

/* only: f32, bf16, or "" for both and for bf16 in every way */
static mb_status run(int threads, const char *only)
{
    static const char *const providers[] = {"openblas", "onednn", "own"};
    const bool best = strcmp(only, "bf16") == 0;
    mb_arena *scratch;

    MB_TRY(mb_cpu_init());
    printf("%s, %d threads\n", mb_cpu_class(), threads);
    MB_TRY(mb_arena_new("scratch", (size_t)1 << 30, &scratch));
    mb_exec ex = mb_cpu_exec(scratch, threads);
    for (int p = 0; p < 3 && !best; p++) {
        if (!mb_cpu_gemm_available(providers[p]))
            continue;
        MB_TRY(mb_cpu_gemm_use(providers[p]));
        printf("\n%s\n", mb_cpu_gemm_provider());
        MB_TRY(bench_all(&ex, MB_DTYPE_F32));
    }
    for (int kind = best ? MB_WORDS_BEST : MB_WORDS_PAIRS;
         kind < (best ? MB_WORDS_PAIRS : MB_WORDS_KINDS) && strcmp(only, "f32") != 0; kind++) {
        if (!mb_cpu_gemm_words_use((mb_words_kind)kind))
            continue;
        printf("\nbf16, %s\n", mb_cpu_gemm_words(MB_DTYPE_BF16, false)->name);
        MB_TRY(bench_all(&ex, MB_DTYPE_BF16));
    }
    mb_arena_free(scratch);
    return MB_OK;
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : 2;
    const char *only = argc > 2 ? argv[2] : "";

    if ((strcmp(only, "rows") == 0 ? run_rows(threads) : run(threads, only)) != MB_OK) {
        fprintf(stderr, "%s\n", mb_status_sentence());
        return 1;
    }
    return 0;
}
