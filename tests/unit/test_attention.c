/* tests/unit/test_attention.c - attention against a plain double-precision one, and its promises:
 * no bit depends on threads, on neighbours or on place; workspace is at most linear in length. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/gemm_panels.h"
#include "core/rng.h"
#include "tests/device/mirror.h"
#include "tests/unit/scratch_test.h"

enum { MAX_SEQ = 6 };

typedef struct sample {
    const char *name;
    int64_t heads, kv_heads, hd;
    bool causal;
    int64_t window;
    float softcap, dropout;
    int n_seq;
    int32_t q_len[MAX_SEQ], k_len[MAX_SEQ];
    int32_t gap; /* rows before each sequence that belong to none */
    bool even;   /* rows are multiples of 32 bytes apart: a device may move vectors */
} sample;

/* clang-format off */
static const sample samples[] = {
    {"one token", 2, 2, 8, true, 0, 0, 0, 1, {1}, {1}, 0, false},
    {"short", 2, 1, 8, true, 0, 0, 0, 3, {3, 7, 1}, {3, 7, 1}, 2, false},
    {"causal", 2, 2, 16, true, 0, 0, 0, 2, {64, 128}, {64, 128}, 0, false},
    {"odd lengths", 3, 1, 20, true, 0, 0, 0, 3, {65, 130, 37}, {65, 130, 37}, 3, false},
    {"grouped heads", 6, 2, 32, true, 0, 0, 0, 2, {100, 70}, {100, 70}, 1, false},
    {"bidirectional", 4, 4, 24, false, 0, 0, 0, 3, {50, 90, 8}, {50, 90, 8}, 0, false},
    {"sliding window", 2, 1, 16, true, 30, 0, 0, 2, {200, 77}, {200, 77}, 0, false},
    {"window of one", 2, 1, 16, true, 1, 0, 0, 1, {70}, {70}, 0, false},
    {"window both ways", 2, 2, 16, false, 40, 0, 0, 2, {150, 33}, {150, 33}, 5, false},
    {"softcap", 2, 1, 16, true, 0, 2.0f, 0, 2, {80, 20}, {80, 20}, 0, false},
    {"dropout", 4, 2, 16, true, 0, 0, 0.4f, 2, {80, 131}, {80, 131}, 1, false},
    {"everything", 4, 2, 40, true, 50, 3.0f, 0.1f, 3, {140, 9, 66}, {140, 9, 66}, 2, false},
    {"cache, one query", 6, 2, 64, true, 0, 0, 0, 2, {1, 1}, {200, 65}, 0, false},
    {"cache, few queries, dropout", 3, 3, 20, true, 25, 0, 0.3f, 2, {5, 8}, {90, 8}, 1, false},
    {"cache, many queries", 2, 1, 16, true, 0, 0, 0, 2, {70, 20}, {200, 150}, 0, false},
    {"across", 2, 2, 16, false, 0, 0, 0, 3, {30, 100, 3}, {90, 10, 70}, 4, false},
    {"more queries than keys", 2, 1, 16, true, 0, 0, 0, 2, {90, 6}, {40, 2}, 0, false},
    {"no keys", 2, 1, 16, false, 0, 0, 0, 3, {10, 20, 0}, {0, 30, 12}, 1, false},
    {"wide heads", 2, 1, 256, true, 0, 0, 0, 1, {70}, {70}, 0, false},
    {"no sequence", 2, 1, 16, true, 0, 0, 0, 0, {0}, {0}, 9, false},
    {"heads of 32, even", 4, 2, 32, true, 0, 0, 0.2f, 2, {140, 70}, {140, 70}, 1, true},
    {"heads of 64, even", 4, 2, 64, true, 0, 0, 0, 2, {150, 37}, {150, 37}, 1, true},
    {"heads of 80", 2, 1, 80, true, 0, 0, 0, 1, {90}, {90}, 0, true},
    {"heads of 96, window", 2, 2, 96, true, 50, 0, 0.1f, 2, {130, 20}, {130, 20}, 2, true},
    {"heads of 128", 4, 2, 128, true, 0, 0, 0.3f, 2, {140, 33}, {140, 33}, 0, true},
    {"heads of 128, both ways", 2, 1, 128, false, 60, 4.0f, 0, 2, {70, 90}, {130, 90}, 1, true},
    {"heads of 160, softcap", 2, 1, 160, true, 0, 3.0f, 0.1f, 1, {100}, {100}, 0, true},
    {"heads of 256, across", 2, 1, 256, false, 0, 0, 0.1f, 2, {40, 70}, {80, 30}, 1, true},
};
/* clang-format on */

enum { N_SAMPLES = sizeof samples / sizeof *samples };

/* All tensors of a case, with gaps between rows; d* are outputs of the backward. */
typedef struct data {
    mb_attention at;
    int32_t q_start[MAX_SEQ], k_start[MAX_SEQ], q_len[MAX_SEQ], k_len[MAX_SEQ];
    int32_t *ordinal;
    mb_tensor q, k, v, o, lse, d_o, dq, dk, dv, bias, dbias;
    float *block[16];
    int n_blocks;
} data;

static mb_tensor tensor(data *d, int64_t rows, int64_t cols, int64_t stride, uint64_t key)
{
    float *x;
    mb_tensor t;

    OK(mb_alloc((size_t)(rows * stride + 16) * sizeof *x, "tensor", (void **)&x));
    for (int64_t i = 0; i < rows * stride; i++)
        x[i] = mb_rng_unit(mb_philox(key, (uint32_t)i, 0, 0, 0).w[0]) * 2.0f - 1.0f;
    d->block[d->n_blocks++] = x;
    t = mb_tensor_2d(x, MB_DTYPE_F32, rows, cols);
    t.stride[0] = stride;
    return t;
}

static void make(data *d, const sample *s)
{
    int64_t nq = s->gap, nk = s->gap;
    const int64_t h = s->heads * s->hd, g = s->kv_heads * s->hd;

    memset(d, 0, sizeof *d);
    d->at = (mb_attention){.heads = s->heads,
                           .kv_heads = s->kv_heads,
                           .head_dim = s->hd,
                           .scale = 1.7f / sqrtf((float)s->hd),
                           .causal = s->causal,
                           .window = s->window,
                           .softcap = s->softcap,
                           .n_seq = s->n_seq,
                           .q_start = d->q_start,
                           .q_len = d->q_len,
                           .k_start = d->k_start,
                           .k_len = d->k_len,
                           .dropout = s->dropout,
                           .seed = 11,
                           .site = 1003,
                           .step = 5};
    for (int i = 0; i < s->n_seq; i++) {
        d->q_len[i] = s->q_len[i];
        d->k_len[i] = s->k_len[i];
        d->q_start[i] = (int32_t)nq;
        d->k_start[i] = (int32_t)nk;
        nq += s->q_len[i] + s->gap;
        nk += s->k_len[i] + s->gap;
        d->at.max_len = d->q_len[i] > d->at.max_len ? d->q_len[i] : d->at.max_len;
        d->at.max_len = d->k_len[i] > d->at.max_len ? d->k_len[i] : d->at.max_len;
    }
    OK(mb_alloc_array((size_t)nq + 1, sizeof *d->ordinal, "ordinals", (void **)&d->ordinal));
    for (int i = 0; i < s->n_seq; i++)
        for (int32_t r = 0; r < d->q_len[i]; r++)
            d->ordinal[d->q_start[i] + r] = 40 + i;
    d->at.ordinal = d->ordinal;
    d->q = tensor(d, nq, h, h + (s->even ? 8 : 3), 1);
    d->k = tensor(d, nk, g, g + (s->even ? 16 : 7), 2);
    d->v = tensor(d, nk, g, g + (s->even ? 8 : 1), 3);
    d->o = tensor(d, nq, h, h + (s->even ? 8 : 2), 4);
    d->lse = tensor(d, s->heads, nq, nq, 5);
    d->d_o = tensor(d, nq, h, h, 6);
    d->dq = tensor(d, nq, h, h + (s->even ? 8 : 3), 7);
    d->dk = tensor(d, nk, g, g + (s->even ? 8 : 4), 8);
    d->dv = tensor(d, nk, g, g + (s->even ? 8 : 4), 9);
}

/* A bias by distance, where there is any. */
static void add_bias(data *d)
{
    const int64_t n = 2 * d->at.max_len - 1;

    if (d->at.max_len == 0)
        return;
    d->bias = tensor(d, d->at.heads, n, n, 10);
    d->dbias = tensor(d, d->at.heads, n, n + 2, 11);
    d->at.bias = mb_f32(&d->bias);
}

static void drop(data *d)
{
    for (int i = 0; i < d->n_blocks; i++)
        mb_free(d->block[i]);
    mb_free(d->ordinal);
}

static void forward(data *d, int threads)
{
    mb_exec ex = mb_test_exec(scratch, threads);

    OK(MB_RUN(&ex, attention_fwd, &d->o, &d->lse, &d->q, &d->k, &d->v, &d->at));
}

static void backward(data *d, int threads, bool acc)
{
    mb_exec ex = mb_test_exec(scratch, threads);

    OK(MB_RUN(&ex, attention_bwd, &d->dq, &d->dk, &d->dv, &d->d_o, &d->q, &d->k, &d->v, &d->o,
              &d->lse, &d->at, acc));
}

static void backward_of_bias(data *d, int threads)
{
    mb_exec ex = mb_test_exec(scratch, threads);

    for (int64_t h = 0; h < d->at.heads; h++)
        for (int64_t c = 0; c < mb_cols(&d->dbias); c++)
            mb_row(&d->dbias, h)[c] = 0.5f;
    OK(MB_RUN(&ex, attention_bias_bwd, &d->dbias, &d->d_o, &d->q, &d->k, &d->v, &d->o, &d->lse,
              &d->at));
}

/* The reference: every score, in double precision -------------------------------------------- */

typedef struct reference {
    double *o, *lse, *dq, *dk, *dv, *dbias; /* dbias: NULL without one */
} reference;

static bool sees(const mb_attention *at, int64_t q, int64_t k)
{
    if (at->causal && k > q)
        return false;
    if (at->window > 0 && q - k >= at->window)
        return false;
    return !(at->window > 0 && !at->causal && k - q >= at->window);
}

static double kept(const mb_attention *at, int64_t head, int32_t ordinal, int64_t q, int64_t k)
{
    const uint64_t key = mb_rng_key(at->seed, at->site, (uint64_t)head);
    const mb_rng_block b =
        mb_philox(key, (uint32_t)ordinal, at->step, (uint32_t)q, (uint32_t)(k / 4));

    if (at->dropout == 0.0f)
        return 1.0;
    return mb_rng_unit(b.w[k % 4]) >= at->dropout ? 1.0 / (1.0 - (double)at->dropout) : 0.0;
}

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* One query of one head. */
static void refer_query(data *d, reference *r, int64_t s, int64_t i, int64_t head)
{
    const mb_attention *at = &d->at;
    const int64_t hd = at->head_dim, kv = head / (at->heads / at->kv_heads), n = at->k_len[s];
    const int64_t row = at->q_start[s] + i, pos = n - at->q_len[s] + i, k0 = at->k_start[s];
    const int64_t h = at->heads * hd, g = at->kv_heads * hd;
    const float *q = mb_row(&d->q, row) + head * hd, *d_o = mb_row(&d->d_o, row) + head * hd;
    double p[512], slope[512], dp[512], top = -INFINITY, sum = 0, delta = 0;

    for (int64_t j = 0; j < n; j++) {
        p[j] = at->scale * dot(q, mb_row(&d->k, k0 + j) + kv * hd, hd);
        if (at->bias != NULL)
            p[j] += mb_row(&d->bias, head)[j - pos + at->max_len - 1];
        slope[j] = 1;
        if (at->softcap > 0) {
            const double t = tanh(p[j] / at->softcap);

            p[j] = at->softcap * t;
            slope[j] = 1 - t * t;
        }
        if (sees(at, pos, j))
            top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = sees(at, pos, j) ? exp(p[j] - top) : 0;
        sum += p[j];
    }
    r->lse[head * mb_cols(&d->lse) + row] = sum > 0 ? top + log(sum) : -INFINITY;
    for (int64_t j = 0; j < n && sum > 0; j++) {
        const double keep = kept(at, head, at->ordinal[row], pos, j);
        const float *v = mb_row(&d->v, k0 + j) + kv * hd;

        p[j] /= sum;
        dp[j] = keep * dot(d_o, v, hd);
        delta += p[j] * dp[j];
        for (int64_t e = 0; e < hd; e++) {
            r->o[row * h + head * hd + e] += p[j] * keep * v[e];
            r->dv[(k0 + j) * g + kv * hd + e] += p[j] * keep * d_o[e];
        }
    }
    for (int64_t j = 0; j < n && sum > 0; j++) {
        const double ds = p[j] * (dp[j] - delta) * slope[j] * at->scale;

        if (r->dbias != NULL)
            r->dbias[head * (2 * at->max_len - 1) + j - pos + at->max_len - 1] += ds / at->scale;
        for (int64_t e = 0; e < hd; e++) {
            r->dq[row * h + head * hd + e] += ds * mb_row(&d->k, k0 + j)[kv * hd + e];
            r->dk[(k0 + j) * g + kv * hd + e] += ds * q[e];
        }
    }
}

static double *doubles(int64_t n)
{
    double *x;

    OK(mb_alloc_array((size_t)n, sizeof *x, "reference", (void **)&x));
    return x;
}

static reference refer(data *d)
{
    const int64_t nq = mb_rows(&d->q), nk = mb_rows(&d->k), h = mb_cols(&d->q), g = mb_cols(&d->k);
    reference r = {
        doubles(nq * h), doubles(nq * d->at.heads),
        doubles(nq * h), doubles(nk * g),
        doubles(nk * g), d->at.bias != NULL ? doubles(d->at.heads * mb_cols(&d->bias)) : NULL};

    for (int64_t s = 0; s < d->at.n_seq; s++)
        for (int64_t i = 0; i < d->at.q_len[s]; i++)
            for (int64_t head = 0; head < d->at.heads; head++)
                refer_query(d, &r, s, i, head);
    return r;
}

static void drop_reference(reference *r)
{
    mb_free(r->o);
    mb_free(r->lse);
    mb_free(r->dq);
    mb_free(r->dk);
    mb_free(r->dv);
    mb_free(r->dbias);
}

static void compare(const char *name, const char *what, const mb_tensor *t, const double *want,
                    double before)
{
    double size = 0;
    const int64_t cols = mb_cols(t);

    for (int64_t i = 0; i < mb_rows(t) * cols; i++)
        size = fmax(size, fabs(want[i]));
    for (int64_t i = 0; i < mb_rows(t); i++)
        for (int64_t j = 0; j < cols; j++)
            if (!(fabs(mb_row(t, i)[j] - before - want[i * cols + j]) <= 2e-6 * (size + 1)))
                fail_msg("%s: %s[%d,%d] is %g, expected %g", name, what, (int)i, (int)j,
                         mb_row(t, i)[j], want[i * cols + j]);
}

static void compare_all(const char *name, data *d, const reference *r)
{
    compare(name, "o", &d->o, r->o, 0);
    for (int64_t s = 0; s < d->at.n_seq; s++) {
        for (int64_t h = 0; h < d->at.heads; h++) {
            for (int64_t i = 0; i < d->at.q_len[s]; i++) {
                const double want = r->lse[h * mb_cols(&d->lse) + d->q_start[s] + i];
                const double got = mb_row(&d->lse, h)[d->q_start[s] + i];

                if (!(isinf(want) ? want == got : fabs(want - got) < 4e-6))
                    fail_msg("%s: lse is %g, expected %g", name, got, want);
            }
        }
    }
    compare(name, "dq", &d->dq, r->dq, 0);
    compare(name, "dk", &d->dk, r->dk, 0);
    compare(name, "dv", &d->dv, r->dv, 0);
    if (r->dbias != NULL)
        compare(name, "dbias", &d->dbias, r->dbias, 0.5);
}

static void values_and_gradients_equal_the_reference(void **state)
{
    const bool cpu = !mb_test_on_device();

    for (int i = 0; i < N_SAMPLES; i++) {
        for (int threads = 1; threads <= (cpu ? 8 : 1); threads += 7) { /* whole, and apart */
            data d;
            reference r;

            make(&d, &samples[i]);
            forward(&d, threads);
            backward(&d, threads, false);
            r = refer(&d);
            compare_all(samples[i].name, &d, &r);
            drop_reference(&r);
            drop(&d);
        }
    }
}

/* The reference's gradients are right: central differences of its own sum(o * d_o). */
static double loss(data *d)
{
    reference r = refer(d);
    double sum = 0;

    for (int64_t i = 0; i < mb_rows(&d->q); i++)
        for (int64_t j = 0; j < mb_cols(&d->q); j++)
            sum += r.o[i * mb_cols(&d->q) + j] * mb_row(&d->d_o, i)[j];
    drop_reference(&r);
    return sum;
}

static void gradients_equal_finite_differences(void **state)
{
    static const int which[] = {1, 9, 13};

    for (int w = 0; w < 3; w++) {
        data d;

        make(&d, &samples[which[w]]);
        forward(&d, 2);
        backward(&d, 2, false);
        for (int t = 0; t < 3; t++) {
            const mb_tensor *x = t == 0 ? &d.q : t == 1 ? &d.k : &d.v;
            const mb_tensor *dx = t == 0 ? &d.dq : t == 1 ? &d.dk : &d.dv;

            for (int64_t i = 0; i < mb_rows(x); i += 1 + mb_rows(x) / 5) {
                float *e = mb_row(x, i) + i % mb_cols(x);
                const float was = *e, up = was + 0x1p-8f, down = was - 0x1p-8f;
                double slope;

                *e = up;
                slope = loss(&d);
                *e = down;
                slope = (slope - loss(&d)) / ((double)up - down);
                *e = was;
                if (!(fabs(slope - mb_row(dx, i)[i % mb_cols(x)]) < 1e-3 * (1 + fabs(slope))))
                    fail_msg("%s: gradient %d of row %d is %g, differences give %g",
                             samples[which[w]].name, t, (int)i, mb_row(dx, i)[i % mb_cols(x)],
                             slope);
            }
        }
        drop(&d);
    }
}

static void add_to_existing_gradients(void **state)
{
    for (int i = 0; i < N_SAMPLES; i += mb_test_on_device() ? 3 : 1) {
        data d, acc;
        const mb_tensor *want, *got;

        make(&d, &samples[i]);
        make(&acc, &samples[i]);
        forward(&d, 2);
        forward(&acc, 2);
        backward(&d, 2, false);
        for (int64_t r = 0; r < mb_rows(&acc.dq); r++)
            for (int64_t c = 0; c < mb_cols(&acc.dq); c++)
                mb_row(&acc.dq, r)[c] = 0.5f;
        for (int64_t r = 0; r < mb_rows(&acc.dk); r++)
            for (int64_t c = 0; c < mb_cols(&acc.dk); c++)
                mb_row(&acc.dk, r)[c] = mb_row(&acc.dv, r)[c] = 0.5f;
        backward(&acc, 2, true);
        for (int t = 0; t < 3; t++) {
            want = t == 0 ? &d.dq : t == 1 ? &d.dk : &d.dv;
            got = t == 0 ? &acc.dq : t == 1 ? &acc.dk : &acc.dv;
            for (int64_t r = 0; r < mb_rows(want); r++)
                for (int64_t c = 0; c < mb_cols(want); c++)
                    assert_true(mb_is_sum(mb_row(got, r)[c], 0.5f, mb_row(want, r)[c]));
        }
        drop(&d);
        drop(&acc);
    }
}

static bool same_rows(const mb_tensor *a, int64_t ra, const mb_tensor *b, int64_t rb, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(mb_row(a, ra + i), mb_row(b, rb + i), (size_t)mb_cols(a) * sizeof(float)) != 0)
            return false;
    return true;
}

/* Every case with a bias by distance, and its gradient, which is added to what is there. */
static void a_bias_by_distance_counts(void **state)
{
    const bool cpu = !mb_test_on_device();

    for (int i = 0; i < N_SAMPLES; i++) {
        for (int threads = 1; threads <= (cpu ? 8 : 1); threads += 7) {
            data d;
            reference r;

            make(&d, &samples[i]);
            add_bias(&d);
            forward(&d, threads);
            backward(&d, threads, false);
            if (d.at.bias != NULL)
                backward_of_bias(&d, threads);
            r = refer(&d);
            compare_all(samples[i].name, &d, &r);
            drop_reference(&r);
            drop(&d);
        }
    }
    (void)state;
}

static void threads_change_no_bit_of_a_bias(void **state)
{
    float once[2][1024];

    for (int i = 0; i < N_SAMPLES; i++) {
        data d;

        make(&d, &samples[i]);
        add_bias(&d);
        for (int run = 0; run < 2 && d.at.bias != NULL; run++) {
            const size_t n = (size_t)mb_cols(&d.dbias);

            forward(&d, 1 + 4 * run);
            backward_of_bias(&d, 1 + 4 * run);
            assert_true(n <= 1024);
            memcpy(once[run], mb_row(&d.dbias, d.at.heads - 1), n * sizeof(float));
            assert_memory_equal(once[0], once[run], n * sizeof(float));
        }
        drop(&d);
    }
    (void)state;
}

static void threads_change_no_bit(void **state)
{
    static const int threads[] = {2, 3, 8};
    const int n_threads = mb_test_on_device() ? 1 : 3; /* once more is enough */

    mb_test_bits(true); /* and in the tests after this one */
    for (int i = 0; i < N_SAMPLES; i++) {
        data one, more;

        make(&one, &samples[i]);
        forward(&one, 1);
        backward(&one, 1, false);
        for (int t = 0; t < n_threads; t++) {
            make(&more, &samples[i]);
            forward(&more, threads[t]);
            backward(&more, threads[t], false);
            assert_true(same_rows(&one.o, 0, &more.o, 0, mb_rows(&one.o)));
            assert_true(same_rows(&one.lse, 0, &more.lse, 0, mb_rows(&one.lse)));
            assert_true(same_rows(&one.dq, 0, &more.dq, 0, mb_rows(&one.dq)));
            assert_true(same_rows(&one.dk, 0, &more.dk, 0, mb_rows(&one.dk)));
            assert_true(same_rows(&one.dv, 0, &more.dv, 0, mb_rows(&one.dv)));
            drop(&more);
        }
        drop(&one);
    }
}

/* All tensors but lse become bf16, rows as far apart as they were. */
static void narrow(data *d)
{
    mb_tensor *const all[] = {&d->q, &d->k, &d->v, &d->o, &d->d_o, &d->dq, &d->dk, &d->dv};

    for (int t = 0; t < 8; t++) {
        const int64_t n = mb_rows(all[t]) * mb_row_stride(all[t]);
        const float *x = all[t]->data;
        uint16_t *y = all[t]->data;

        for (int64_t i = 0; i < n; i++)
            y[i] = mb_f32_to_bf16(x[i]);
        all[t]->dtype = MB_DTYPE_BF16;
    }
}

static float value(const mb_tensor *t, int64_t r, int64_t c)
{
    const int64_t at = r * mb_row_stride(t) + c;

    return t->dtype == MB_DTYPE_BF16 ? mb_bf16_to_f32(((const uint16_t *)t->data)[at])
                                     : ((const float *)t->data)[at];
}

/* Largest difference, of max(1, max |a|). */
static double difference(const mb_tensor *a, const mb_tensor *b)
{
    double size = 1, most = 0;

    for (int64_t r = 0; r < mb_rows(a); r++) {
        for (int64_t c = 0; c < mb_cols(a); c++) {
            size = fmax(size, fabs((double)value(a, r, c)));
            most = fmax(most, fabs((double)value(a, r, c) - value(b, r, c)));
        }
    }
    return most / size;
}

static void run_both(data *d, int threads, bool acc)
{
    mb_exec ex = mb_cpu_exec(scratch, threads);

    OK(MB_RUN(&ex, attention_fwd, &d->o, &d->lse, &d->q, &d->k, &d->v, &d->at));
    OK(MB_RUN(&ex, attention_bwd, &d->dq, &d->dk, &d->dv, &d->d_o, &d->q, &d->k, &d->v, &d->o,
              &d->lse, &d->at, acc));
}

/* With the processor's instructions for bf16 and without, against f32 on the same numbers. */
static void bf16_with_and_without_instructions_agree(void **state)
{
    double worst[2] = {0};

    ON_THE_CPU_ONLY("this is about two ways of the CPU");
    for (int i = 0; i < N_SAMPLES; i++) {
        data wide, d[2];

        make(&wide, &samples[i]);
        for (int native = 0; native < 2; native++) {
            make(&d[native], &samples[i]);
            narrow(&d[native]);
            if (!mb_cpu_gemm_words_use(native == 1 ? MB_WORDS_PAIRS : MB_WORDS_PLAIN))
                print_message("this processor has no pairs: plain again\n");
            run_both(&d[native], 2, false);
        }
        mb_cpu_gemm_words_use(MB_WORDS_BEST);
        const mb_tensor *const from[] = {&d[0].q, &d[0].k, &d[0].v, &d[0].d_o};
        mb_tensor *const to[] = {&wide.q, &wide.k, &wide.v, &wide.d_o};

        for (int t = 0; t < 4; t++)
            for (int64_t r = 0; r < mb_rows(to[t]); r++)
                for (int64_t c = 0; c < mb_cols(to[t]); c++)
                    mb_row(to[t], r)[c] = value(from[t], r, c);
        run_both(&wide, 2, false);
        for (int native = 0; native < 2; native++) {
            const mb_tensor *const got[] = {&d[native].o, &d[native].dq, &d[native].dk,
                                            &d[native].dv};
            const mb_tensor *const want[] = {&wide.o, &wide.dq, &wide.dk, &wide.dv};

            for (int t = 0; t < 4; t++) {
                const double off = difference(want[t], got[t]);

                worst[native] = fmax(worst[native], off);
                if (!(off <= 0x1p-7))
                    fail_msg("%s: output %d in bf16 is off by %g", samples[i].name, t, off);
            }
            drop(&d[native]);
        }
        drop(&wide);
    }
    print_message("bf16 is off by %g without instructions for it, %g with\n", worst[0], worst[1]);
}

static bool same_bits(const mb_tensor *a, const mb_tensor *b)
{
    for (int64_t r = 0; r < mb_rows(a); r++)
        for (int64_t c = 0; c < mb_cols(a); c++)
            if (mb_f32_to_bf16(value(a, r, c)) != mb_f32_to_bf16(value(b, r, c)))
                return false;
    return true;
}

static void threads_change_no_bit_in_bf16(void **state)
{
    static const int threads[] = {2, 3, 8};

    ON_THE_CPU_ONLY("a device has no such threads");
    for (int i = 0; i < 2 * N_SAMPLES; i++) {
        const sample *s = &samples[i / 2];
        data one, more;

        mb_cpu_gemm_words_use(i % 2 == 0 ? MB_WORDS_PAIRS : MB_WORDS_PLAIN);
        make(&one, s);
        narrow(&one);
        run_both(&one, 1, true);
        for (int t = 0; t < 3; t++) {
            make(&more, s);
            narrow(&more);
            run_both(&more, threads[t], true);
            if (!same_bits(&one.o, &more.o) || !same_rows(&one.lse, 0, &more.lse, 0, s->heads) ||
                !same_bits(&one.dq, &more.dq) || !same_bits(&one.dk, &more.dk) ||
                !same_bits(&one.dv, &more.dv))
                fail_msg("%s: %d threads give other bits", s->name, threads[t]);
            drop(&more);
        }
        drop(&one);
    }
    mb_cpu_gemm_words_use(MB_WORDS_BEST);
}

static void copy_rows(mb_tensor *to, int64_t rt, const mb_tensor *from, int64_t rf, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(mb_row(to, rt + i), mb_row(from, rf + i), (size_t)mb_cols(to) * sizeof(float));
}

/* Each sequence of each sample alone, from row 0, gives the bits it had among the others. */
static void neighbours_and_place_change_no_bit(void **state)
{
    for (int i = 0; i < N_SAMPLES; i++) {
        data all;

        make(&all, &samples[i]);
        forward(&all, 2);
        backward(&all, 2, false);
        for (int s = 0; s < samples[i].n_seq; s++) {
            sample alone = samples[i];
            const int64_t nq = all.q_len[s], nk = all.k_len[s];
            const int64_t q0 = all.q_start[s], k0 = all.k_start[s];
            data d;

            alone.n_seq = 1;
            alone.gap = 0;
            alone.q_len[0] = (int32_t)nq;
            alone.k_len[0] = (int32_t)nk;
            make(&d, &alone);
            copy_rows(&d.q, 0, &all.q, q0, nq);
            copy_rows(&d.d_o, 0, &all.d_o, q0, nq);
            copy_rows(&d.k, 0, &all.k, k0, nk);
            copy_rows(&d.v, 0, &all.v, k0, nk);
            for (int64_t r = 0; r < nq; r++)
                d.ordinal[r] = all.ordinal[q0 + r];
            forward(&d, 3);
            backward(&d, 3, false);
            if (!same_rows(&d.o, 0, &all.o, q0, nq) || !same_rows(&d.dq, 0, &all.dq, q0, nq) ||
                !same_rows(&d.dk, 0, &all.dk, k0, nk) || !same_rows(&d.dv, 0, &all.dv, k0, nk))
                fail_msg("%s: sequence %d differs when alone", samples[i].name, s);
            for (int64_t h = 0; h < samples[i].heads; h++)
                assert_memory_equal(mb_row(&d.lse, h), mb_row(&all.lse, h) + q0,
                                    (size_t)nq * sizeof(float));
            drop(&d);
        }
        drop(&all);
    }
}

/* Whether output row t changes when key and value row j do. */
static bool depends(const sample *s, int64_t t, int64_t j)
{
    data d;
    float before[64], after[64];

    make(&d, s);
    forward(&d, 2);
    memcpy(before, mb_row(&d.o, t), sizeof before);
    for (int64_t c = 0; c < mb_cols(&d.v); c++) {
        mb_row(&d.k, j)[c] += 0.5f;
        mb_row(&d.v, j)[c] += 0.5f;
    }
    forward(&d, 2);
    memcpy(after, mb_row(&d.o, t), sizeof after);
    drop(&d);
    return memcmp(before, after, sizeof before) != 0;
}

static void masks_are_exact_at_their_edges(void **state)
{
    const sample causal = {"causal", 4, 4, 16, true, 0, 0, 0, 1, {150}, {150}, 0, false};
    const sample window = {"window", 4, 4, 16, true, 64, 0, 0, 1, {150}, {150}, 0, false};
    const sample both = {"both", 4, 4, 16, false, 64, 0, 0, 1, {150}, {150}, 0, false};

    for (int64_t t = 62; t < 130; t += 22) {
        assert_true(depends(&causal, t, t) && depends(&causal, t, 0));
        assert_false(depends(&causal, t, t + 1));
        assert_true(depends(&window, t, t >= 63 ? t - 63 : 0));
        if (t >= 64)
            assert_false(depends(&window, t, t - 64));
        assert_true(depends(&both, t, t + 63 < 150 ? t + 63 : 149));
        if (t + 64 < 150)
            assert_false(depends(&both, t, t + 64));
    }
}

/* q, k and v as columns of one buffer, as a merged projection leaves them. */
static void views_of_one_buffer_work(void **state)
{
    const sample s = {"packed", 4, 2, 16, true, 0, 0, 0, 2, {90, 30}, {90, 30}, 0, false};
    const int64_t h = s.heads * s.hd, g = s.kv_heads * s.hd;
    data d;
    mb_tensor qkv, dqkv, dq, dk, dv;
    mb_exec ex = mb_test_exec(scratch, 2);

    make(&d, &s);
    forward(&d, 2);
    backward(&d, 2, false);
    qkv = tensor(&d, 120, h + 2 * g, h + 2 * g, 10);
    const mb_tensor q = mb_tensor_columns(&qkv, 0, h), k = mb_tensor_columns(&qkv, h, g);
    const mb_tensor v = mb_tensor_columns(&qkv, h + g, g);
    float *grads;

    OK(mb_alloc((size_t)mb_tensor_bytes(&qkv), "gradients", (void **)&grads));
    dqkv = mb_tensor_2d(grads, MB_DTYPE_F32, 120, h + 2 * g);
    dq = mb_tensor_columns(&dqkv, 0, h);
    dk = mb_tensor_columns(&dqkv, h, g);
    dv = mb_tensor_columns(&dqkv, h + g, g);
    copy_rows((mb_tensor *)(uintptr_t)&q, 0, &d.q, 0, 120);
    copy_rows((mb_tensor *)(uintptr_t)&k, 0, &d.k, 0, 120);
    copy_rows((mb_tensor *)(uintptr_t)&v, 0, &d.v, 0, 120);
    OK(MB_RUN(&ex, attention_bwd, &dq, &dk, &dv, &d.d_o, &q, &k, &v, &d.o, &d.lse, &d.at, false));
    assert_true(same_rows(&dq, 0, &d.dq, 0, 120) && same_rows(&dk, 0, &d.dk, 0, 120) &&
                same_rows(&dv, 0, &d.dv, 0, 120));
    /* gradients that nobody wants */
    OK(MB_RUN(&ex, attention_bwd, NULL, &dk, NULL, &d.d_o, &q, &k, &v, &d.o, &d.lse, &d.at, false));
    assert_true(same_rows(&dk, 0, &d.dk, 0, 120));
    mb_free(grads);
    drop(&d);
}

static void not_a_number_is_not_hidden(void **state)
{
    const sample s = {"nan", 4, 4, 16, true, 0, 0, 0, 2, {40, 40}, {40, 40}, 0, false};
    data d;

    make(&d, &s);
    for (int64_t c = 0; c < 64; c++)
        mb_row(&d.q, 3)[c] = NAN;
    forward(&d, 2);
    for (int64_t c = 0; c < 64; c++) {
        assert_true(isnan(mb_row(&d.o, 3)[c]));
        assert_false(isnan(mb_row(&d.o, 4)[c]) || isnan(mb_row(&d.o, 43)[c]));
    }
    drop(&d);
}

static void workspace_is_at_most_linear(void **state)
{
    const int32_t zero = 0;
    int32_t len = 4096;
    mb_attention at = {.heads = 9,
                       .kv_heads = 3,
                       .head_dim = 64,
                       .causal = true,
                       .n_seq = 1,
                       .q_start = &zero,
                       .k_start = &zero,
                       .q_len = &len,
                       .k_len = &len,
                       .max_len = 4096};
    mb_exec ex = mb_cpu_exec(scratch, 2);
    mb_tensor t = mb_tensor_2d(NULL, MB_DTYPE_F32, 4096, 576), *p = &t;

    ON_THE_CPU_ONLY("this is about the CPU's workspace");
    const size_t f1 = mb_cpu_attention_fwd_workspace(&ex, p, p, p, p, p, &at);
    const size_t b1 = mb_cpu_attention_bwd_workspace(&ex, p, p, p, p, p, p, p, p, p, &at, false);
    size_t f2, b2;

    at.max_len = len = 8192;
    f2 = mb_cpu_attention_fwd_workspace(&ex, p, p, p, p, p, &at);
    b2 = mb_cpu_attention_bwd_workspace(&ex, p, p, p, p, p, p, p, p, p, &at, false);
    print_message("workspace at 4096 and 8192: forward %zu %zu, backward %zu %zu\n", f1, f2, b1,
                  b2);
    assert_true((double)f2 <= 2.1 * (double)f1 && (double)b2 <= 2.1 * (double)b1);
}

/* ---- keys and values in pages ------------------------------------------------------------- */

/* A sample's tokens, all with a query: the last of each sequence are the sample's. */
typedef struct paged {
    mb_tensor q, o, lse; /* a row per key; o and lse as collected from all calls */
    mb_tensor out, out_lse;
    mb_kv_pages pages;
    int32_t table[MAX_SEQ * 8], q_start[MAX_SEQ], q_len[MAX_SEQ], k_len[MAX_SEQ];
} paged;

static void make_paged(data *d, paged *p, const sample *s)
{
    const int64_t h = s->heads * s->hd, nk = mb_rows(&d->k);
    const int64_t width = (s->hd + 15) / 16 * 16, blocks = MAX_SEQ * 8;
    const int64_t block = s->kv_heads * MB_KV_PAGE;

    memset(p, 0, sizeof *p);
    p->q = tensor(d, nk, h, h, 20);
    p->o = tensor(d, nk, h, h, 21);
    p->out = tensor(d, nk, h, h, 22);
    OK(mb_alloc((size_t)(2 * nk * s->heads + blocks * block * (s->hd + width)) * sizeof(float),
                "pages", (void **)&p->pages.k));
    memset(p->pages.k, 0xff, (size_t)(blocks * block * (s->hd + width)) * sizeof(float)); /* NaN */
    p->pages.v = p->pages.k + blocks * block * s->hd;
    p->lse = mb_tensor_2d(p->pages.v + blocks * block * width, MB_DTYPE_F32, s->heads, nk);
    p->out_lse = mb_tensor_2d(mb_f32(&p->lse) + s->heads * nk, MB_DTYPE_F32, s->heads, nk);
    p->pages.table = p->table;
    p->pages.columns = 8;
    for (int i = 0; i < blocks; i++)
        p->table[i] = (int32_t)((i * 19 + 5) % blocks); /* here and there */
    for (int i = 0; i < s->n_seq; i++)
        for (int32_t r = 0; r < d->q_len[i]; r++)
            memcpy(mb_row(&p->q, d->k_start[i] + d->k_len[i] - d->q_len[i] + r),
                   mb_row(&d->q, d->q_start[i] + r), (size_t)h * sizeof(float));
}

/* `step` tokens a call; where queries look ahead, the sample's in one. */
static void run_paged(data *d, paged *p, int32_t step, int threads)
{
    mb_attention at = d->at;
    bool more = true;

    memset(p->k_len, 0, sizeof p->k_len);
    at.pages = &p->pages;
    at.q_start = p->q_start;
    at.q_len = p->q_len;
    at.k_len = p->k_len;
    while (more) {
        mb_exec ex = mb_cpu_exec(scratch, threads);

        more = false;
        for (int64_t s = 0; s < at.n_seq; s++) {
            const int32_t first = d->k_len[s] - d->q_len[s], from = p->k_len[s];
            const int32_t left = (!at.causal && from < first ? first : d->k_len[s]) - from;

            p->q_len[s] = left < step || (!at.causal && from >= first) ? left : step;
            p->q_start[s] = d->k_start[s] + from;
            p->k_len[s] += p->q_len[s];
            more = more || p->k_len[s] < d->k_len[s];
        }
        OK(MB_RUN(&ex, attention_fwd, &p->out, &p->out_lse, &p->q, &d->k, &d->v, &at));
        for (int64_t s = 0; s < at.n_seq; s++)
            for (int64_t r = p->q_start[s]; r < p->q_start[s] + p->q_len[s]; r++) {
                memcpy(mb_row(&p->o, r), mb_row(&p->out, r),
                       (size_t)mb_cols(&p->o) * sizeof(float));
                for (int64_t head = 0; head < at.heads; head++)
                    mb_row(&p->lse, head)[r] = mb_row(&p->out_lse, head)[r];
            }
    }
}

static void compare_paged(const char *name, data *d, const paged *p, const reference *r)
{
    const int64_t h = mb_cols(&d->q);

    for (int64_t s = 0; s < d->at.n_seq; s++)
        for (int64_t i = 0; i < d->q_len[s]; i++) {
            const int64_t row = d->k_start[s] + d->k_len[s] - d->q_len[s] + i;
            const int64_t q = d->q_start[s] + i;

            for (int64_t c = 0; c < h; c++)
                if (!(fabs(mb_row(&p->o, row)[c] - r->o[q * h + c]) <= 4e-6))
                    fail_msg("%s: o[%d,%d] is %g in pages, expected %g", name, (int)q, (int)c,
                             mb_row(&p->o, row)[c], r->o[q * h + c]);
            for (int64_t head = 0; head < d->at.heads; head++) {
                const double want = r->lse[head * mb_cols(&d->lse) + q];
                const double got = mb_row(&p->lse, head)[row];

                if (!(isinf(want) ? want == got : fabs(want - got) < 4e-6))
                    fail_msg("%s: lse is %g in pages, expected %g", name, got, want);
            }
        }
}

/* Values, and that no bit depends on how many tokens came at a time, nor on threads. */
static void pages_give_the_same_and_no_bit_depends_on_the_pieces(void **state)
{
    static const int32_t steps[] = {1000, 1, 37, 64};

    ON_THE_CPU_ONLY("pages are read by its kernel alone");
    for (int i = 0; i < 2 * N_SAMPLES; i++) {
        const sample *s = &samples[i / 2];
        bool fits = s->dropout == 0.0f;
        data d;
        paged p;
        reference r;
        float *first;
        size_t bytes;

        for (int k = 0; k < s->n_seq; k++)
            fits = fits && s->q_len[k] <= s->k_len[k];
        if (!fits || (i % 2 == 1 && s->n_seq == 0))
            continue;
        make(&d, s);
        if (i % 2 == 1)
            add_bias(&d);
        make_paged(&d, &p, s);
        r = refer(&d);
        bytes = (size_t)(mb_rows(&p.o) * mb_cols(&p.o)) * sizeof(float);
        OK(mb_alloc(bytes, "bits", (void **)&first));
        for (int k = 0; k < 4; k++) {
            run_paged(&d, &p, steps[k], 1 + k);
            compare_paged(s->name, &d, &p, &r);
            if (k == 0)
                memcpy(first, p.o.data, bytes);
            if (s->causal && memcmp(first, p.o.data, bytes) != 0)
                fail_msg("%s: bits depend on pieces of %d", s->name, steps[k]);
        }
        mb_free(first);
        mb_free(p.pages.k);
        drop_reference(&r);
        drop(&d);
    }
}

static void wrong_calls_are_refused(void **state)
{
    const sample s = {"wrong", 4, 4, 16, true, 0, 0, 0, 2, {40, 40}, {40, 40}, 0, false};
    mb_exec ex = mb_cpu_exec(scratch, 2);
    data d;

    ON_THE_CPU_ONLY("lengths are in its memory, where its kernels' callers cannot look");
    make(&d, &s);
    d.q_len[1] = 41;
    assert_int_equal(MB_RUN(&ex, attention_fwd, &d.o, &d.lse, &d.q, &d.k, &d.v, &d.at), MB_ESHAPE);
    mb_status_clear();
    d.q_len[1] = 40;
    d.at.max_len = 39;
    assert_int_equal(MB_RUN(&ex, attention_fwd, &d.o, &d.lse, &d.q, &d.k, &d.v, &d.at), MB_ESHAPE);
    mb_status_clear();
    d.at.max_len = 40;
    d.at.kv_heads = 3;
    assert_int_equal(MB_RUN(&ex, attention_fwd, &d.o, &d.lse, &d.q, &d.k, &d.v, &d.at), MB_ESHAPE);
    mb_status_clear();
    d.at.kv_heads = 4;
    d.k.dtype = MB_DTYPE_BF16;
    assert_int_equal(MB_RUN(&ex, attention_fwd, &d.o, &d.lse, &d.q, &d.k, &d.v, &d.at), MB_ENOTSUP);
    mb_status_clear();
    drop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients_equal_the_reference),
        cmocka_unit_test(gradients_equal_finite_differences),
        cmocka_unit_test(add_to_existing_gradients),
        cmocka_unit_test(a_bias_by_distance_counts),
        cmocka_unit_test(threads_change_no_bit_of_a_bias),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(bf16_with_and_without_instructions_agree),
        cmocka_unit_test(threads_change_no_bit_in_bf16),
        cmocka_unit_test(neighbours_and_place_change_no_bit),
        cmocka_unit_test(masks_are_exact_at_their_edges),
        cmocka_unit_test(views_of_one_buffer_work),
        cmocka_unit_test(not_a_number_is_not_hidden),
        cmocka_unit_test(workspace_is_at_most_linear),
        cmocka_unit_test(pages_give_the_same_and_no_bit_depends_on_the_pieces),
        cmocka_unit_test(wrong_calls_are_refused),
    };

    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
