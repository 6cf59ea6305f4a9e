/* tests/bench/bench_attention.c - attention forward and backward, and one token of generation.
 *
 *     bench_attention [threads]
 *
 * GFLOP/s count what a causal mask leaves: half of 4 T^2 hd per head forward, 2.5 times that
 * backward. bf16 is multiplied in pairs where there are instructions for them, and widened.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/gemm_panels.h"
#include "core/cpu/init.h"
#include "core/log.h"

enum { HEADS = 9, KV = 3, HD = 64, MAX_SEQS = 128, CACHE = 2048 };

static const struct shape {
    const char *name;
    int heads, kv_heads, hd, seqs, length;
    bool causal;
    float dropout;
} shapes[] = {
    {"SmolLM2-135M", 9, 3, 64, 4, 512, true, 0.0f},
    {"SmolLM2-135M", 9, 3, 64, 4, 128, true, 0.0f},
    {"SmolLM2-135M", 9, 3, 64, 4, 512, true, 0.1f},
    {"SmolLM2-135M", 9, 3, 64, 1, 2048, true, 0.0f},
    {"Llama-3.2-1B", 32, 8, 64, 1, 512, true, 0.0f},
    {"Llama-3.1-8B", 32, 8, 128, 1, 512, true, 0.0f},
    {"BERT-base", 12, 12, 64, 16, 128, false, 0.0f},
    {"short, packed", 9, 3, 64, 85, 24, true, 0.0f},
    {"small ViT", 4, 4, 24, 128, 17, false, 0.0f},
};

static mb_status matrix(int64_t rows, int64_t cols, mb_dtype type, mb_tensor *t)
{
    void *x;

    MB_TRY(mb_pages((size_t)mb_dtype_bytes(type, rows * cols), "operands", &x));
    for (int64_t i = 0; i < rows * cols; i++) {
        const float value = (float)(i * 7919 % 2003) / 1000.0f - 1.0f;

        if (type == MB_DTYPE_BF16)
            ((uint16_t *)x)[i] = mb_f32_to_bf16(value);
        else
            ((float *)x)[i] = value;
    }
    *t = mb_tensor_2d(x, type, rows, cols);
    return MB_OK;
}

static mb_status bench(mb_exec *ex, const struct shape *s, mb_dtype type, mb_words_kind kind)
{
    const int64_t rows = (int64_t)s->seqs * s->length, h = s->heads * s->hd,
                  g = s->kv_heads * s->hd;
    const double flop =
        (s->causal ? 2.0 : 4.0) * s->seqs * s->heads * (double)s->length * s->length * s->hd;
    double best_f = 1e30, best_b = 1e30, spent = 0;
    int32_t start[MAX_SEQS], len[MAX_SEQS], *ordinal;
    mb_tensor q, k, v, o, lse, d_o, dq, dk, dv;
    mb_tensor *const all[] = {&q, &o, &d_o, &dq, &k, &v, &dk, &dv};

    for (int i = 0; i < 8; i++)
        MB_TRY(matrix(rows, i < 4 ? h : g, type, all[i]));
    MB_TRY(matrix(s->heads, rows, MB_DTYPE_F32, &lse));
    MB_TRY(mb_alloc_array((size_t)rows, sizeof *ordinal, "ordinals", (void **)&ordinal));
    for (int i = 0; i < s->seqs; i++) {
        start[i] = i * s->length;
        len[i] = s->length;
    }
    const mb_attention at = {.heads = s->heads,
                             .kv_heads = s->kv_heads,
                             .head_dim = s->hd,
                             .scale = 1.0f / sqrtf((float)s->hd),
                             .causal = s->causal,
                             .n_seq = s->seqs,
                             .q_start = start,
                             .q_len = len,
                             .k_start = start,
                             .k_len = len,
                             .max_len = s->length,
                             .dropout = s->dropout,
                             .ordinal = ordinal};

    if (type == MB_DTYPE_BF16 && !mb_cpu_gemm_words_use(kind))
        return MB_OK;
    for (int i = 0; i < 10 || spent < 1.0; i++) {
        const double t0 = mb_clock();

        MB_TRY(MB_RUN(ex, attention_fwd, &o, &lse, &q, &k, &v, &at));
        const double t1 = mb_clock();

        MB_TRY(MB_RUN(ex, attention_bwd, &dq, &dk, &dv, &d_o, &q, &k, &v, &o, &lse, &at, false));
        const double t2 = mb_clock();

        best_f = t1 - t0 < best_f ? t1 - t0 : best_f;
        best_b = t2 - t1 < best_b ? t2 - t1 : best_b;
        spent += t2 - t0;
    }
    mb_cpu_gemm_words_use(MB_WORDS_BEST);
    printf(
        "%-12s %2d x %4d, dropout %.1f, %-13s: forward %7.2f ms %6.1f GFLOP/s, backward %7.2f ms "
        "%6.1f, both %6.1f\n",
        s->name, s->seqs, s->length, (double)s->dropout,
        type == MB_DTYPE_F32     ? "f32"
        : kind == MB_WORDS_PAIRS ? "bf16, pairs"
                                 : "bf16, widened",
        best_f * 1e3, flop / best_f * 1e-9, best_b * 1e3, 2.5 * flop / best_b * 1e-9,
        3.5 * flop / (best_f + best_b) * 1e-9);
    return MB_OK;
}

static mb_status bench_one_token(mb_exec *ex, mb_dtype type)
{
    const int32_t zero = 0, one = 1, cache = CACHE;
    mb_tensor q, k, v, o, lse;
    double best = 1e30;

    MB_TRY(matrix(1, HEADS * HD, type, &q));
    MB_TRY(matrix(CACHE, KV * HD, type, &k));
    MB_TRY(matrix(CACHE, KV * HD, type, &v));
    MB_TRY(matrix(1, HEADS * HD, type, &o));
    MB_TRY(matrix(HEADS, 1, MB_DTYPE_F32, &lse));
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

    for (int i = 0; i < 400; i++) {
        const double t0 = mb_clock();

        MB_TRY(MB_RUN(ex, attention_fwd, &o, &lse, &q, &k, &v, &at));
        const double seconds = mb_clock() - t0;
        best = seconds < best ? seconds : best;
    }
    printf("one token after %d, %s: %.3f ms, %.1f GB/s of cache\n", CACHE, mb_dtype_name(type),
           best * 1e3, 2.0 * (double)mb_dtype_bytes(type, CACHE * KV * HD) / best * 1e-9);
    return MB_OK;
}

static mb_status run(int threads)
{
    mb_arena *scratch;

    MB_TRY(mb_cpu_init());
    printf("%s, %d threads\n", mb_cpu_class(), threads);
    MB_TRY(mb_arena_new("scratch", (size_t)1 << 30, &scratch));
    mb_exec ex = mb_cpu_exec(scratch, threads);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        MB_TRY(bench(&ex, &shapes[i], MB_DTYPE_F32, MB_WORDS_BEST));
        MB_TRY(bench(&ex, &shapes[i], MB_DTYPE_BF16, MB_WORDS_PAIRS));
        MB_TRY(bench(&ex, &shapes[i], MB_DTYPE_BF16, MB_WORDS_PLAIN));
    }
    MB_TRY(bench_one_token(&ex, MB_DTYPE_F32));
    MB_TRY(bench_one_token(&ex, MB_DTYPE_BF16));
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
