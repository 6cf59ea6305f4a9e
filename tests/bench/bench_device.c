/* tests/bench/bench_device.c - how fast the kernels of a GPU are.
 *
 *     bench_device [copy] [kernels] [attention] [--rounds N] [--tiny]
 *
 * Prints one line a measurement, the median, least and most of the rounds:
 *
 *     copy NAME GB/s LEAST MOST                 device to device, bytes read and written
 *     kernel NAME TYPE GB/s LEAST MOST          kernels that memory limits
 *     attention NAME T MILLISECONDS LEAST MOST  bf16, causal, 8192 tokens of 32 heads over 8
 *
 * Bytes are what must move at least: every operand once, a destination that is added to twice. Data
 * is random: multiplying zeros takes less power and is faster. Between rounds nothing is set anew, so
 * operands are larger than the cache. --tiny: small shapes, to try the program on the emulator.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/init.h"
#include "core/device.h"
#include "core/log.h"
#include "core/rng.h"

enum { HEADS = 32, KV = 8, HD = 128, ROUNDS_MOST = 99, WARM = 2 };

static struct {
    mb_device *d;
    mb_exec ex;
    mb_dtype type;
    int rounds;
    int64_t rows, width, ffn, vocab, flat, tokens; /* tokens: of one call of attention */
    uint64_t filled;
} b;

/* ---- operands ------------------------------------------------------------------------------- */

/* Random numbers around 0, the same block again and again. */
static mb_status fill(mb_tensor *t)
{
    enum { BLOCK = 1 << 20 };
    const int64_t n = mb_tensor_count(t), block = n < BLOCK ? n : BLOCK;
    const uint64_t key = mb_rng_key(5, 1, b.filled++);
    const size_t size = (size_t)mb_dtype_bytes(t->dtype, 1);
    mb_status st = MB_OK;
    float *x;

    MB_TRY(mb_alloc_array((size_t)block, sizeof *x, "random numbers", (void **)&x));
    for (int64_t i = 0; i < block; i++) {
        const float v = 2.0f * mb_rng_unit(mb_rng_u32(key, (uint64_t)i)) - 1.0f;

        if (t->dtype == MB_DTYPE_F32)
            x[i] = v;
        else
            ((uint16_t *)(void *)x)[i] =
                t->dtype == MB_DTYPE_BF16 ? mb_f32_to_bf16(v) : mb_f32_to_f16(v);
    }
    for (int64_t i = 0; i < n && st == MB_OK; i += block) {
        const int64_t m = n - i < block ? n - i : block;
        st = b.d->ops->copy(b.d, MB_STREAM_COMPUTE, (char *)t->data + (size_t)i * size, x,
                            (size_t)m * size);
    }
    if (st == MB_OK)
        st = b.d->ops->wait(b.d, MB_STREAM_COMPUTE);
    mb_free(x);
    return st;
}

static mb_status operand(mb_dtype type, int64_t rows, int64_t cols, mb_tensor *t)
{
    void *p;

    MB_TRY(b.d->ops->alloc(b.d, (size_t)mb_dtype_bytes(type, rows * cols), "an operand", &p));
    *t = mb_tensor_2d(p, type, rows, cols);
    return fill(t);
}

static mb_status indices(int64_t n, int64_t below, mb_tensor *t)
{
    mb_status st;
    int32_t *x;
    void *p;

    MB_TRY(b.d->ops->alloc(b.d, (size_t)n * sizeof *x, "indices", &p));
    *t = mb_tensor_1d(p, MB_DTYPE_I32, n);
    MB_TRY(mb_alloc_array((size_t)n, sizeof *x, "indices", (void **)&x));
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)(mb_rng_u32(9, (uint64_t)i) % (uint64_t)below);
    st = mb_device_write(b.d, t, x);
    mb_free(x);
    return st;
}

static void release(mb_tensor *t)
{
    if (t->data != NULL)
        b.d->ops->free(b.d, t->data, (size_t)mb_tensor_bytes(t));
    *t = (mb_tensor){0};
}

/* ---- measuring ------------------------------------------------------------------------------ */

typedef mb_status (*work)(void *context);

static int by_value(const void *x, const void *y)
{
    const double p = *(const double *)x, q = *(const double *)y;

    return (p > q) - (p < q);
}

/* Seconds of one call, of `rounds` rounds, sorted; as many calls a round as take about 20 ms. */
static mb_status measure(work call, void *context, double *seconds)
{
    int calls = 1;

    for (int i = 0; i < WARM; i++)
        MB_TRY(call(context));
    MB_TRY(b.d->ops->wait(b.d, MB_STREAM_COMPUTE));
    const double start = mb_clock();
    MB_TRY(call(context));
    MB_TRY(b.d->ops->wait(b.d, MB_STREAM_COMPUTE));
    const double one = mb_clock() - start;
    if (one < 0.02)
        calls = (int)(0.02 / (one > 1e-5 ? one : 1e-5)) + 1;
    for (int r = 0; r < b.rounds; r++) {
        const double from = mb_clock();

        for (int i = 0; i < calls; i++)
            MB_TRY(call(context));
        MB_TRY(b.d->ops->wait(b.d, MB_STREAM_COMPUTE));
        seconds[r] = (mb_clock() - from) / calls;
    }
    qsort(seconds, (size_t)b.rounds, sizeof *seconds, by_value);
    return MB_OK;
}

static void print_rate(const char *what, const char *name, double bytes, const double *seconds)
{
    printf("%s %s %.1f %.1f %.1f\n", what, name, bytes / seconds[b.rounds / 2] * 1e-9,
           bytes / seconds[b.rounds - 1] * 1e-9, bytes / seconds[0] * 1e-9);
    fflush(stdout);
}

/* ---- copies and kernels --------------------------------------------------------------------- */

typedef struct operands {
    mb_tensor x, y, dy, dx;                   /* rows x width */
    mb_tensor gate, up, dgate, dup, dffn;     /* rows x ffn */
    mb_tensor w, dw, bias, db, mean, rstd;    /* width; rows */
    mb_tensor logits, logprob, weight, label; /* rows / 16 x vocab; rows / 16 */
    mb_tensor table, dtable, ids;             /* vocab x width; rows */
    mb_tensor cosine, sine, index;            /* 4096 x 64; rows */
    mb_tensor p, g, m, v, half, flags;        /* flat */
    mb_tensor m_half, v_half, m_codes, v_codes;
} operands;

static mb_status copy_call(void *context)
{
    operands *o = context;

    return b.d->ops->copy(b.d, MB_STREAM_COMPUTE, o->m.data, o->g.data,
                          (size_t)mb_tensor_bytes(&o->g));
}

#define KERNEL(name, ...)                       \
    static mb_status name##_call(void *context) \
    {                                           \
        operands *o = context;                  \
                                                \
        (void)o;                                \
        return MB_RUN(&b.ex, __VA_ARGS__);      \
    }
static const mb_adamw hyper = {.lr = 1e-4,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .weight_decay = 0.1,
                               .correction1 = 0.1,
                               .correction2 = 0.001,
                               .grad_scale = 1.0f};
KERNEL(add, add, &o->y, &o->x, &o->dy)
KERNEL(rmsnorm_fwd, rmsnorm_fwd, &o->y, &o->rstd, &o->x, &o->w, 0.0f, 1e-5f)
KERNEL(rmsnorm_bwd, rmsnorm_bwd, &o->dx, &o->dw, &o->dy, &o->x, &o->w, 0.0f, &o->rstd, false)
KERNEL(add_rmsnorm_fwd, add_rmsnorm_fwd, &o->y, &o->dx, &o->rstd, &o->x, &o->dy, &o->w, 0.0f, 1e-5f)
KERNEL(layernorm_fwd, layernorm_fwd, &o->y, &o->mean, &o->rstd, &o->x, &o->w, &o->bias, 1e-5f)
KERNEL(layernorm_bwd, layernorm_bwd, &o->dx, &o->dw, &o->db, &o->dy, &o->x, &o->w, &o->mean,
       &o->rstd, false)
KERNEL(rope, rope, &o->y, &o->x, &o->cosine, &o->sine, &o->index, 128, false, false)
KERNEL(glu_fwd, glu_fwd, &o->dffn, &o->gate, &o->up, MB_ACT_SILU)
KERNEL(glu_bwd, glu_bwd, &o->dgate, &o->dup, &o->dffn, &o->gate, &o->up, MB_ACT_SILU, false)
KERNEL(gelu_fwd, activation_fwd, &o->dffn, &o->gate, MB_ACT_GELU_TANH)
KERNEL(gelu_bwd, activation_bwd, &o->dgate, &o->dffn, &o->gate, MB_ACT_GELU_TANH, false)
KERNEL(bias_bwd, bias_bwd, &o->db, &o->dy)
KERNEL(embedding_fwd, embedding_fwd, &o->y, &o->ids, &o->table)
KERNEL(embedding_bwd, embedding_bwd, &o->dtable, &o->ids, &o->dy, -1)
KERNEL(xent_loss, softmax_xent, &o->logits, &o->logprob, &o->label, &o->weight, 0.0f, 0.0f, 1.0f)
KERNEL(xent_gradient, softmax_xent, &o->logits, &o->logprob, &o->label, &o->weight, 1.0f, 0.0f,
       1.0f)
KERNEL(adamw, adamw, &o->p, &o->m, &o->v, &o->g, &hyper)
KERNEL(adamw_bf16, adamw_bf16, &o->p, &o->m_half, &o->v_half, &o->g, &hyper)
KERNEL(adamw_8bit, adamw_8bit, &o->p, &o->m_codes, &o->v_codes, &o->g, &hyper)
KERNEL(cast, cast, &o->half, &o->p)
KERNEL(absmax, absmax, &o->flags, &o->p)

/* Operands of a matrix of activations, of its wide twin, of logits and of the table that are moved
 * in the type, and bytes of flat arrays; an f32 destination counts by itself. */
static const struct {
    const char *name;
    work call;
    double width, ffn, logits, flat; /* how often */
    bool typed;
} kernels[] = {
    {"add", add_call, 3, 0, 0, 0, true},
    {"rmsnorm_fwd", rmsnorm_fwd_call, 2, 0, 0, 0, true},
    {"rmsnorm_bwd", rmsnorm_bwd_call, 3, 0, 0, 0, true},
    {"add_rmsnorm_fwd", add_rmsnorm_fwd_call, 4, 0, 0, 0, true},
    {"layernorm_fwd", layernorm_fwd_call, 2, 0, 0, 0, true},
    {"layernorm_bwd", layernorm_bwd_call, 3, 0, 0, 0, true},
    {"rope", rope_call, 2, 0, 0, 0, true},
    {"silu_glu_fwd", glu_fwd_call, 0, 3, 0, 0, true},
    {"silu_glu_bwd", glu_bwd_call, 0, 5, 0, 0, true},
    {"gelu_tanh_fwd", gelu_fwd_call, 0, 2, 0, 0, true},
    {"gelu_tanh_bwd", gelu_bwd_call, 0, 3, 0, 0, true},
    {"bias_bwd", bias_bwd_call, 1, 0, 0, 0, true},
    {"embedding_fwd", embedding_fwd_call, 2, 0, 0, 0, true},
    {"embedding_bwd", embedding_bwd_call, 1, 0, 0, 0, true}, /* and rows of the table, below */
    {"xent_loss", xent_loss_call, 0, 0, 1, 0, true},
    {"xent_gradient", xent_gradient_call, 0, 0, 2, 0, true},
    {"adamw", adamw_call, 0, 0, 0, 28, false},
    {"adamw_bf16", adamw_bf16_call, 0, 0, 0, 20, false},
    {"adamw_8bit", adamw_8bit_call, 0, 0, 0, 16, false},
    {"cast_to_bf16", cast_call, 0, 0, 0, 6, false},
    {"absmax", absmax_call, 0, 0, 0, 4, false},
};

static mb_status flat_operands(operands *o)
{
    mb_tensor *const flat[] = {&o->p, &o->g, &o->m, &o->v};

    for (int i = 0; i < 4; i++)
        MB_TRY(operand(MB_DTYPE_F32, 1, b.flat, flat[i]));
    MB_TRY(operand(MB_DTYPE_BF16, 1, b.flat, &o->half));
    /* other moments, in the memory of those in f32 */
    o->m_half = mb_tensor_1d(o->m.data, MB_DTYPE_BF16, b.flat);
    o->v_half = mb_tensor_1d(o->v.data, MB_DTYPE_BF16, b.flat);
    o->m_codes = mb_tensor_1d(o->m.data, MB_DTYPE_DYN8, b.flat);
    o->v_codes = mb_tensor_1d(o->v.data, MB_DTYPE_DYNU8, b.flat);
    MB_TRY(operand(MB_DTYPE_F32, 1, 2, &o->flags));
    return MB_RUN(&b.ex, fill, &o->v, 0.5f); /* a second moment is not negative */
}

static mb_status typed_operands(operands *o)
{
    mb_tensor *const narrow[] = {&o->x, &o->y, &o->dy, &o->dx};
    mb_tensor *const wide[] = {&o->gate, &o->up, &o->dgate, &o->dup, &o->dffn};
    mb_tensor *const of_row[] = {&o->mean, &o->rstd, &o->logprob, &o->weight};

    for (int i = 0; i < 4; i++)
        MB_TRY(operand(b.type, b.rows, b.width, narrow[i]));
    for (int i = 0; i < 5; i++)
        MB_TRY(operand(b.type, b.rows, b.ffn, wide[i]));
    for (int i = 0; i < 4; i++) {
        const int64_t rows = i < 2 ? b.rows : b.rows / 16;

        MB_TRY(operand(MB_DTYPE_F32, 1, rows, of_row[i]));
        *of_row[i] = mb_tensor_1d(of_row[i]->data, MB_DTYPE_F32, rows);
    }
    MB_TRY(operand(b.type, 1, b.width, &o->w));
    MB_TRY(operand(b.type, 1, b.width, &o->bias));
    MB_TRY(operand(MB_DTYPE_F32, 1, b.width, &o->dw));
    MB_TRY(operand(MB_DTYPE_F32, 1, b.width, &o->db));
    MB_TRY(operand(b.type, b.rows / 16, b.vocab, &o->logits));
    MB_TRY(indices(b.rows / 16, b.vocab, &o->label));
    MB_TRY(operand(b.type, b.vocab, b.width, &o->table));
    MB_TRY(operand(MB_DTYPE_F32, b.vocab, b.width, &o->dtable));
    MB_TRY(indices(b.rows, b.vocab, &o->ids));
    MB_TRY(operand(MB_DTYPE_F32, 4096, 64, &o->cosine));
    MB_TRY(operand(MB_DTYPE_F32, 4096, 64, &o->sine));
    MB_TRY(indices(b.rows, 4096, &o->index));
    mb_tensor *const vectors[] = {&o->w, &o->bias, &o->dw, &o->db};
    for (int i = 0; i < 4; i++)
        *vectors[i] = mb_tensor_1d(vectors[i]->data, vectors[i]->dtype, b.width);
    return MB_OK;
}

static void free_operands(operands *o)
{
    mb_tensor *t = (mb_tensor *)o;

    o->m_half = o->v_half = o->m_codes = o->v_codes = (mb_tensor){0}; /* of m and v */
    for (size_t i = 0; i < sizeof *o / sizeof *t; i++)
        release(&t[i]);
}

static mb_status bench_kernels(operands *o, bool typed)
{
    const double size = (double)mb_dtype_bytes(b.type, 1), logit_rows = (double)(b.rows / 16);
    double seconds[ROUNDS_MOST];
    char name[64];

    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        double bytes = size * ((double)(b.rows * b.width) * kernels[i].width +
                               (double)(b.rows * b.ffn) * kernels[i].ffn +
                               logit_rows * (double)b.vocab * kernels[i].logits) +
                       (double)b.flat * kernels[i].flat;

        if (kernels[i].typed != typed)
            continue;
        if (kernels[i].call == embedding_bwd_call)
            bytes += 8.0 * (double)(b.rows * b.width); /* f32, read and written */
        snprintf(name, sizeof name, "%s %s", kernels[i].name,
                 !typed                   ? "f32"
                 : b.type == MB_DTYPE_F32 ? "f32"
                                          : "bf16");
        MB_TRY(measure(kernels[i].call, o, seconds));
        print_rate("kernel", name, bytes, seconds);
    }
    return MB_OK;
}

static mb_status bench_flat(bool copy, bool others)
{
    double seconds[ROUNDS_MOST];
    operands o = {0};
    mb_status st;

    MB_TRY_GOTO(flat_operands(&o), st, done);
    if (copy) {
        MB_TRY_GOTO(measure(copy_call, &o, seconds), st, done);
        print_rate("copy", "device-to-device", 8.0 * (double)b.flat, seconds);
    }
    st = others ? bench_kernels(&o, false) : MB_OK;
done:
    free_operands(&o);
    return st;
}

static mb_status bench_typed(mb_dtype type)
{
    operands o = {0};
    mb_status st;

    b.type = type;
    MB_TRY_GOTO(typed_operands(&o), st, done);
    st = bench_kernels(&o, true);
done:
    free_operands(&o);
    return st;
}

/* ---- attention ------------------------------------------------------------------------------ */

typedef struct attended {
    mb_tensor q, o, d_o, dq, k, v, dk, dv, lse, starts, lens;
    mb_attention at;
} attended;

static mb_status forward(void *context)
{
    attended *a = context;

    return MB_RUN(&b.ex, attention_fwd, &a->o, &a->lse, &a->q, &a->k, &a->v, &a->at);
}

static mb_status backward(void *context)
{
    attended *a = context;

    return MB_RUN(&b.ex, attention_bwd, &a->dq, &a->dk, &a->dv, &a->d_o, &a->q, &a->k, &a->v, &a->o,
                  &a->lse, &a->at, false);
}

static mb_status sequences(attended *a, int64_t length)
{
    enum { MOST = 64 };
    const int64_t n = b.tokens / length;
    int32_t start[MOST], len[MOST];

    MB_ASSERT(n >= 1 && n <= MOST);
    for (int64_t i = 0; i < n; i++) {
        start[i] = (int32_t)(i * length);
        len[i] = (int32_t)length;
    }
    MB_TRY(indices(n, 1, &a->starts));
    MB_TRY(indices(n, 1, &a->lens));
    MB_TRY(mb_device_write(b.d, &a->starts, start));
    MB_TRY(mb_device_write(b.d, &a->lens, len));
    a->at = (mb_attention){.heads = HEADS,
                           .kv_heads = KV,
                           .head_dim = HD,
                           .scale = 1.0f / sqrtf(HD),
                           .causal = true,
                           .n_seq = n,
                           .q_start = a->starts.data,
                           .q_len = a->lens.data,
                           .k_start = a->starts.data,
                           .k_len = a->lens.data,
                           .max_len = length};
    return MB_OK;
}

static mb_status attend(attended *a, int64_t length)
{
    mb_tensor *const queries[] = {&a->q, &a->o, &a->d_o, &a->dq}, *const keys[] = {&a->k, &a->v,
                                                                                   &a->dk, &a->dv};
    double seconds[ROUNDS_MOST];

    for (int i = 0; i < 4; i++) {
        MB_TRY(operand(MB_DTYPE_BF16, b.tokens, HEADS * HD, queries[i]));
        MB_TRY(operand(MB_DTYPE_BF16, b.tokens, KV * HD, keys[i]));
    }
    MB_TRY(operand(MB_DTYPE_F32, HEADS, b.tokens, &a->lse));
    MB_TRY(sequences(a, length));
    for (int back = 0; back < 2; back++) {
        MB_TRY(measure(back ? backward : forward, a, seconds));
        printf("attention %s %lld %.4f %.4f %.4f\n", back ? "backward" : "forward",
               (long long)length, seconds[b.rounds / 2] * 1e3, seconds[0] * 1e3,
               seconds[b.rounds - 1] * 1e3);
        fflush(stdout);
    }
    return MB_OK;
}

static mb_status bench_attention(bool tiny)
{
    static const int64_t large[] = {2048, 4096, 8192}, small[] = {32};
    const int n = tiny ? 1 : 3;

    for (int i = 0; i < n; i++) {
        attended a = {0};
        const mb_status st = attend(&a, tiny ? small[i] : large[i]);
        mb_tensor *const all[] = {&a.q,  &a.o,  &a.d_o, &a.dq,     &a.k,   &a.v,
                                  &a.dk, &a.dv, &a.lse, &a.starts, &a.lens};

        for (size_t t = 0; t < sizeof all / sizeof all[0]; t++)
            release(all[t]);
        MB_TRY(st);
    }
    return MB_OK;
}

/* ---- main ----------------------------------------------------------------------------------- */

static mb_status bench(bool copy, bool others, bool attention, bool tiny)
{
    mb_arena *scratch;

    MB_TRY(mb_cpu_init());
    MB_TRY(mb_device_open(MB_DEVICE_CUDA, 0, 1, &b.d));
    MB_TRY(mb_device_arena(b.d, "workspace", tiny ? (size_t)1 << 24 : (size_t)3 << 30, &scratch));
    b.ex = mb_device_exec(b.d, scratch);
    printf("device %s\n", b.d->name);
    if (copy || others)
        MB_TRY(bench_flat(copy, others));
    if (others) {
        MB_TRY(bench_typed(MB_DTYPE_BF16));
        MB_TRY(bench_typed(MB_DTYPE_F32));
    }
    if (attention)
        MB_TRY(bench_attention(tiny));
    mb_arena_free(scratch);
    mb_device_close(b.d);
    return MB_OK;
}

int main(int argc, char **argv)
{
    bool copy = false, others = false, attention = false, tiny = false;

    b.rounds = 7;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "copy") == 0)
            copy = true;
        else if (strcmp(argv[i], "kernels") == 0)
            others = true;
        else if (strcmp(argv[i], "attention") == 0)
            attention = true;
        else if (strcmp(argv[i], "--tiny") == 0)
            tiny = true;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            b.rounds = atoi(argv[++i]);
        else
            b.rounds = 0;
    }
    if (b.rounds < 1 || b.rounds > ROUNDS_MOST) {
        fprintf(stderr, "usage: bench_device [copy] [kernels] [attention] [--rounds N] [--tiny]\n");
        return 2;
    }
    b.rows = tiny ? 64 : 32768;
    b.width = tiny ? 256 : 2048;
    b.ffn = tiny ? 512 : 8192;
    b.vocab = tiny ? 384 : 128256;
    b.flat = tiny ? 8192 : (int64_t)1 << 28;
    b.tokens = tiny ? 64 : 8192;
    if (!copy && !others && !attention)
        copy = others = attention = true;
    if (bench(copy, others, attention, tiny) == MB_OK)
        return 0;
    fprintf(stderr, "bench_device: %s\n", mb_status_sentence());
    return 1;
}
