/* tests/bench/bench_kernels.c - GB/s of the kernels that are not matrix products, in f32 and bf16.
 *
 *     bench_kernels [threads [word]]        only lines with this word
 *
 * Shapes are those of SmolLM2-135M with 4 x 512 tokens; 30M elements come from memory, the others
 * mostly from the third-level cache. Bytes are what must move at least: every operand once, and a
 * destination that is added to twice. The first line is what a copy reaches. The last column: how
 * many times faster than in f32.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/log.h"

enum { ROWS = 2048, WIDTH = 576, FFN = 1536, VOCAB = 49152, FLAT = 30000000 };

struct bench {
    mb_exec ex;
    mb_tensor x, y, dy, dx, w, dw, row, row2;           /* ROWS x WIDTH; WIDTH; ROWS */
    mb_tensor gate, up, dgate, dup, dffn;               /* ROWS x FFN */
    mb_tensor logits, weight, label, ids, index, place; /* ROWS x VOCAB; ROWS */
    mb_tensor table, cosine, sine;                      /* VOCAB x WIDTH; 512 x 32 */
    mb_tensor flat[4], back, exact, flags, grains, half, blocks;
    mb_dropout drop;
};

static mb_status rms_fwd(struct bench *b)
{
    return MB_RUN(&b->ex, rmsnorm_fwd, &b->y, &b->row, &b->x, &b->w, 0.0f, 1e-5f);
}
static mb_status rms_bwd(struct bench *b)
{
    return MB_RUN(&b->ex, rmsnorm_bwd, &b->dx, &b->dw, &b->dy, &b->x, &b->w, 0.0f, &b->row, true);
}
static mb_status layer_fwd(struct bench *b)
{
    return MB_RUN(&b->ex, layernorm_fwd, &b->y, &b->row2, &b->row, &b->x, &b->w, &b->w, 1e-5f);
}
static mb_status layer_bwd(struct bench *b)
{
    return MB_RUN(&b->ex, layernorm_bwd, &b->dx, &b->dw, &b->dw, &b->dy, &b->x, &b->w, &b->row2,
                  &b->row, true);
}
static mb_status add_rms(struct bench *b)
{
    return MB_RUN(&b->ex, add_rmsnorm_fwd, &b->y, &b->dx, &b->row, &b->x, &b->dy, &b->w, 0.0f,
                  1e-5f);
}
static mb_status add_layer(struct bench *b)
{
    return MB_RUN(&b->ex, add_layernorm_fwd, &b->y, &b->dx, &b->row2, &b->row, &b->x, &b->dy, &b->w,
                  &b->w, 1e-5f);
}
static mb_status rope(struct bench *b)
{
    return MB_RUN(&b->ex, rope, &b->y, &b->x, &b->cosine, &b->sine, &b->index, 64, false, false);
}
static mb_status silu_fwd(struct bench *b)
{
    return MB_RUN(&b->ex, glu_fwd, &b->dffn, &b->gate, &b->up, MB_ACT_SILU);
}
static mb_status silu_bwd(struct bench *b)
{
    return MB_RUN(&b->ex, glu_bwd, &b->dgate, &b->dup, &b->dffn, &b->gate, &b->up, MB_ACT_SILU,
                  false);
}
static mb_status gelu_fwd(struct bench *b)
{
    return MB_RUN(&b->ex, activation_fwd, &b->dffn, &b->gate, MB_ACT_GELU);
}
static mb_status gelu_bwd(struct bench *b)
{
    return MB_RUN(&b->ex, activation_bwd, &b->dgate, &b->dffn, &b->gate, MB_ACT_GELU, false);
}
static mb_status tanh_fwd(struct bench *b)
{
    return MB_RUN(&b->ex, activation_fwd, &b->dffn, &b->gate, MB_ACT_GELU_TANH);
}
static mb_status tanh_bwd(struct bench *b)
{
    return MB_RUN(&b->ex, activation_bwd, &b->dgate, &b->dffn, &b->gate, MB_ACT_GELU_TANH, false);
}
static mb_status dropout(struct bench *b)
{
    return MB_RUN(&b->ex, dropout, &b->y, &b->x, &b->drop, false);
}
static mb_status xent_loss(struct bench *b)
{
    return MB_RUN(&b->ex, softmax_xent, &b->logits, &b->row, &b->label, &b->weight, 0.0f, 0.0f,
                  1.0f);
}
static mb_status xent_grad(struct bench *b)
{
    return MB_RUN(&b->ex, softmax_xent, &b->logits, &b->row, &b->label, &b->weight, 1.0f, 0.0f,
                  1.0f);
}
static mb_status xent_capped(struct bench *b)
{
    return MB_RUN(&b->ex, softmax_xent, &b->logits, &b->row, &b->label, &b->weight, 1.0f, 30.0f,
                  1.0f);
}
static mb_status embed_fwd(struct bench *b)
{
    return MB_RUN(&b->ex, embedding_fwd, &b->y, &b->ids, &b->table);
}
static mb_status embed_bwd(struct bench *b)
{
    mb_tensor dw = b->table;

    dw.dtype = MB_DTYPE_F32;
    return MB_RUN(&b->ex, embedding_bwd, &dw, &b->ids, &b->dy, -1);
}
static mb_status bias(struct bench *b)
{
    return MB_RUN(&b->ex, bias_bwd, &b->dw, &b->dy);
}
static mb_status add(struct bench *b)
{
    return MB_RUN(&b->ex, add, &b->y, &b->x, &b->dy);
}
static mb_status copy(struct bench *b)
{
    return MB_RUN(&b->ex, copy, &b->flat[0], &b->flat[1]);
}
static mb_status axpy(struct bench *b)
{
    return MB_RUN(&b->ex, axpy, &b->flat[0], 0.5f, &b->flat[1]);
}
static mb_status fill(struct bench *b)
{
    return MB_RUN(&b->ex, fill, &b->flat[0], 0.01f);
}
static const mb_adamw hyper = {.lr = 1e-4,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .weight_decay = 0.1,
                               .correction1 = 0.1,
                               .correction2 = 0.001,
                               .grad_scale = 1.0f};

static mb_status adamw(struct bench *b)
{
    return MB_RUN(&b->ex, adamw, &b->flat[0], &b->flat[1], &b->flat[2], &b->flat[3], &hyper);
}
/* Moments of another type, in the memory of those in f32. */
static mb_status adamw_bf16(struct bench *b)
{
    const int64_t n = mb_tensor_count(&b->flat[0]);
    mb_tensor m = mb_tensor_1d(b->flat[1].data, MB_DTYPE_BF16, n);
    mb_tensor v = mb_tensor_1d(b->flat[2].data, MB_DTYPE_BF16, n);

    return MB_RUN(&b->ex, adamw_bf16, &b->flat[0], &m, &v, &b->flat[3], &hyper);
}
static mb_status adamw_8bit(struct bench *b)
{
    const int64_t n = mb_tensor_count(&b->flat[0]) / 256 * 256;
    mb_tensor p = mb_tensor_columns(&b->flat[0], 0, n);
    const mb_tensor g = mb_tensor_columns(&b->flat[3], 0, n);
    mb_tensor m = mb_tensor_1d(b->flat[1].data, MB_DTYPE_DYN8, n);
    mb_tensor v = mb_tensor_1d(b->flat[2].data, MB_DTYPE_DYNU8, n);

    return MB_RUN(&b->ex, adamw_8bit, &p, &m, &v, &g, &hyper);
}
static mb_status sumsq(struct bench *b)
{
    return MB_RUN(&b->ex, grain_sumsq, &b->grains, &b->flat[3]);
}
static mb_status absmax(struct bench *b)
{
    return MB_RUN(&b->ex, absmax, &b->flags, &b->flat[3]);
}
static mb_status exact_add(struct bench *b)
{
    return MB_RUN(&b->ex, exact_add, &b->exact, &b->flat[2], 40, 0x1p60, &b->flags);
}
static mb_status exact_take(struct bench *b)
{
    return MB_RUN(&b->ex, exact_take, &b->flat[2], &b->exact, 0x1p-40);
}
static mb_status to_half(struct bench *b)
{
    b->half.dtype = MB_DTYPE_F16;
    return MB_RUN(&b->ex, cast, &b->half, &b->flat[1]);
}
static mb_status to_bf16(struct bench *b)
{
    b->half.dtype = MB_DTYPE_BF16;
    return MB_RUN(&b->ex, cast, &b->half, &b->flat[1]);
}
static mb_status from_half(struct bench *b)
{
    b->half.dtype = MB_DTYPE_F16;
    return MB_RUN(&b->ex, cast, &b->back, &b->half);
}
static mb_status from_bf16(struct bench *b)
{
    b->half.dtype = MB_DTYPE_BF16;
    return MB_RUN(&b->ex, cast, &b->back, &b->half);
}
static mb_status scale(struct bench *b)
{
    return MB_RUN(&b->ex, scale, &b->flat[0], 0.5f, &b->flat[1]);
}
static mb_status add_flat(struct bench *b)
{
    return MB_RUN(&b->ex, add, &b->flat[0], &b->flat[1], &b->flat[3]);
}
static mb_status gather(struct bench *b)
{
    return MB_RUN(&b->ex, gather_rows, &b->y, &b->x, &b->index);
}
static mb_status scatter(struct bench *b)
{
    return MB_RUN(&b->ex, scatter_rows, &b->dx, &b->dy, &b->place);
}
static mb_status blocks(struct bench *b, mb_dtype type)
{
    mb_tensor y = mb_tensor_1d(b->flat[0].data, MB_DTYPE_F32, FLAT / 256 * 256);
    mb_tensor x = mb_tensor_1d(b->blocks.data, type, FLAT / 256 * 256);

    return MB_RUN(&b->ex, dequantise, &y, &x);
}
static mb_status q4_0(struct bench *b)
{
    return blocks(b, MB_DTYPE_Q4_0);
}
static mb_status q5_0(struct bench *b)
{
    return blocks(b, MB_DTYPE_Q5_0);
}
static mb_status q8_0(struct bench *b)
{
    return blocks(b, MB_DTYPE_Q8_0);
}
static mb_status q4_k(struct bench *b)
{
    return blocks(b, MB_DTYPE_Q4_K);
}
static mb_status q6_k(struct bench *b)
{
    return blocks(b, MB_DTYPE_Q6_K);
}

/* Bytes of f32; `half`: the part of them that is of the model's type, in bf16 as well. */
#define W (4.0 * ROWS * WIDTH)
#define F (4.0 * ROWS * FFN)
#define V (4.0 * ROWS * VOCAB)
#define N ((double)FLAT)

static const struct {
    const char *what;
    mb_status (*run)(struct bench *b);
    double bytes, half;
} lines[] = {
    {"copy 30M", copy, 8 * N, 8 * N},
    {"axpy 30M", axpy, 12 * N, 12 * N},
    {"fill 30M", fill, 4 * N, 4 * N},
    {"scale 30M", scale, 8 * N, 8 * N},
    {"add 30M", add_flat, 12 * N, 12 * N},
    {"rmsnorm_fwd 2048x576", rms_fwd, 2 * W, 2 * W},
    {"rmsnorm_bwd acc", rms_bwd, 4 * W, 4 * W},
    {"layernorm_fwd", layer_fwd, 2 * W, 2 * W},
    {"layernorm_bwd acc", layer_bwd, 4 * W, 4 * W},
    {"add_rmsnorm_fwd", add_rms, 4 * W, 4 * W},
    {"add_layernorm_fwd", add_layer, 4 * W, 4 * W},
    {"rope", rope, 2 * W, 2 * W},
    {"add", add, 3 * W, 3 * W},
    {"bias_bwd", bias, W, W},
    {"dropout", dropout, 2 * W, 2 * W},
    {"gather_rows", gather, 2 * W, 2 * W},
    {"scatter_rows", scatter, 3 * W, 3 * W},
    {"embedding_fwd", embed_fwd, 2 * W, 2 * W},
    {"embedding_bwd", embed_bwd, 3 * W, W},
    {"glu_fwd silu 2048x1536", silu_fwd, 3 * F, 3 * F},
    {"glu_bwd silu", silu_bwd, 5 * F, 5 * F},
    {"gelu_fwd", gelu_fwd, 2 * F, 2 * F},
    {"gelu_bwd", gelu_bwd, 3 * F, 3 * F},
    {"gelu_tanh_fwd", tanh_fwd, 2 * F, 2 * F},
    {"gelu_tanh_bwd", tanh_bwd, 3 * F, 3 * F},
    {"xent loss 2048x49152", xent_loss, V, V},
    {"xent gradient", xent_grad, 2 * V, 2 * V},
    {"xent gradient, soft cap", xent_capped, 2 * V, 2 * V},
    {"adamw 30M", adamw, 28 * N, 0},
    {"adamw_bf16 30M", adamw_bf16, 20 * N, 0},
    {"adamw_8bit 30M", adamw_8bit, 16 * N, 0},
    {"grain_sumsq 30M", sumsq, 4 * N, 0},
    {"absmax 30M", absmax, 4 * N, 0},
    {"exact_add 30M", exact_add, 24 * N, 0},
    {"exact_take 30M", exact_take, 20 * N, 0},
    {"f32 -> f16 30M", to_half, 6 * N, 0},
    {"f32 -> bf16", to_bf16, 6 * N, 0},
    {"f16 -> f32", from_half, 6 * N, 0},
    {"bf16 -> f32", from_bf16, 6 * N, 0},
    {"Q4_0 -> f32", q4_0, (4 + 18.0 / 32) * N, 0},
    {"Q5_0 -> f32", q5_0, (4 + 22.0 / 32) * N, 0},
    {"Q8_0 -> f32", q8_0, (4 + 34.0 / 32) * N, 0},
    {"Q4_K -> f32", q4_k, (4 + 144.0 / 256) * N, 0},
    {"Q6_K -> f32", q6_k, (4 + 210.0 / 256) * N, 0},
};

static mb_status floats(mb_tensor *t, int64_t rows, int64_t cols)
{
    void *p;

    MB_TRY(mb_pages((size_t)(rows * cols) * sizeof(float), "operands", &p));
    *t = mb_tensor_2d(p, MB_DTYPE_F32, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        ((float *)p)[i] = (float)(i * 7919 % 2003) / 1000.0f - 1.0f;
    return MB_OK;
}

static mb_status indices(mb_tensor *t, int64_t n, int64_t below)
{
    void *p;

    MB_TRY(mb_pages((size_t)n * sizeof(int32_t), "indices", &p));
    *t = mb_tensor_1d(p, MB_DTYPE_I32, n);
    for (int64_t i = 0; i < n; i++)
        mb_i32(t)[i] = (int32_t)(i * 7919 % below);
    return MB_OK;
}

static mb_status prepare(struct bench *b, int threads)
{
    mb_tensor *const rows_width[] = {&b->x, &b->y, &b->dy, &b->dx};
    mb_tensor *const rows_ffn[] = {&b->gate, &b->up, &b->dgate, &b->dup, &b->dffn};
    mb_arena *scratch;
    void *p;

    MB_TRY(mb_arena_new("scratch", (size_t)1 << 28, &scratch));
    b->ex = mb_cpu_exec(scratch, threads);
    for (int i = 0; i < 4; i++) {
        MB_TRY(floats(rows_width[i], ROWS, WIDTH));
        MB_TRY(floats(&b->flat[i], 1, FLAT));
    }
    MB_TRY(MB_RUN(&b->ex, fill, &b->flat[2], 0.5f)); /* a second moment is not negative */
    for (int i = 0; i < 5; i++)
        MB_TRY(floats(rows_ffn[i], ROWS, FFN));
    MB_TRY(floats(&b->w, 1, WIDTH));
    MB_TRY(floats(&b->dw, 1, WIDTH));
    MB_TRY(floats(&b->row, 1, ROWS));
    MB_TRY(floats(&b->row2, 1, ROWS));
    MB_TRY(floats(&b->weight, 1, ROWS));
    MB_TRY(floats(&b->logits, ROWS, VOCAB));
    MB_TRY(floats(&b->table, VOCAB, WIDTH));
    MB_TRY(floats(&b->cosine, 512, 32));
    MB_TRY(floats(&b->sine, 512, 32));
    MB_TRY(floats(&b->flags, 1, 3));
    MB_TRY(floats(&b->half, 1, FLAT / 2));
    MB_TRY(floats(&b->back, 1, FLAT));
    MB_TRY(floats(&b->blocks, 1, FLAT / 2));
    b->half = mb_tensor_2d(b->half.data, MB_DTYPE_F16, 1, FLAT);
    MB_TRY(indices(&b->label, ROWS, VOCAB));
    MB_TRY(indices(&b->ids, ROWS, VOCAB));
    MB_TRY(indices(&b->index, ROWS, 512));
    MB_TRY(indices(&b->place, ROWS, ROWS));
    MB_TRY(mb_pages(FLAT * sizeof(int64_t), "exact sums", &p));
    b->exact = mb_tensor_2d(p, MB_DTYPE_I64, 1, FLAT);
    MB_TRY(mb_pages(FLAT / MB_GRAIN * 8 + 8, "grains", &p));
    b->grains = mb_tensor_1d(p, MB_DTYPE_F64, FLAT / MB_GRAIN + 1);
    b->drop = (mb_dropout){.p = 0.1f, .ordinal = mb_i32(&b->ids), .position = mb_i32(&b->index)};
    return MB_OK;
}

/* What follows the model's type, rounded from f32 where it is. */
static mb_status to_halves(struct bench *b)
{
    mb_tensor *const t[] = {&b->x,      &b->y,     &b->dy,      &b->dx,      &b->w,
                            &b->gate,   &b->up,    &b->dgate,   &b->dup,     &b->dffn,
                            &b->logits, &b->table, &b->flat[0], &b->flat[1], &b->flat[3]};

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint16_t *to = t[i]->data;

        for (int64_t k = 0; k < mb_tensor_count(t[i]); k++)
            to[k] = mb_f32_to_bf16(mb_f32(t[i])[k]);
        t[i]->dtype = MB_DTYPE_BF16;
    }
    return MB_OK;
}

/* Seconds of one call: the best of many short rounds, others may use the machine too. */
static mb_status measure(struct bench *b, size_t at, double *best)
{
    const int repeats = (int)(2e7 / lines[at].bytes) + 1;
    const double start = mb_clock();

    *best = 1e30;
    for (int round = 0; round < 5 || mb_clock() - start < 0.5; round++) {
        const double from = mb_clock();

        for (int i = 0; i < repeats; i++)
            MB_TRY(lines[at].run(b));
        const double seconds = (mb_clock() - from) / repeats;
        *best = seconds < *best ? seconds : *best;
    }
    return MB_OK;
}

static mb_status bench(int threads, const char *word)
{
    enum { LINES = sizeof lines / sizeof *lines };
    static double f32[LINES];
    struct bench b = {0};
    double best;

    MB_TRY(prepare(&b, threads));
    printf("%d threads\n", threads);
    for (size_t i = 0; i < LINES; i++) {
        if (strstr(lines[i].what, word) == NULL)
            continue;
        MB_TRY(measure(&b, i, &f32[i]));
        printf("%-26s %9.3f ms  %6.1f GB/s\n", lines[i].what, f32[i] * 1e3,
               lines[i].bytes / f32[i] * 1e-9);
        fflush(stdout);
    }
    printf("bf16\n");
    MB_TRY(to_halves(&b));
    for (size_t i = 0; i < LINES; i++) {
        if (lines[i].half == 0 || strstr(lines[i].what, word) == NULL)
            continue;
        MB_TRY(measure(&b, i, &best));
        printf("%-26s %9.3f ms  %6.1f GB/s  x%.2f\n", lines[i].what, best * 1e3,
               (lines[i].bytes - lines[i].half / 2) / best * 1e-9, f32[i] / best);
        fflush(stdout);
    }
    return MB_OK;
}

int main(int argc, char **argv)
{
    const mb_status st = bench(argc > 1 ? atoi(argv[1]) : 2, argc > 2 ? argv[2] : "");

    if (st != MB_OK)
        fprintf(stderr, "%s\n%s", mb_status_sentence(), mb_status_path());
    return mb_status_exit_code(st);
}
