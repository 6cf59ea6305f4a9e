/* test_profile.c - what a profile notes, and that it changes nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/init.h"
#include "core/profile.h"

/* ---- a table that remembers how it was called ------------------------------------------------- */

static struct {
    mb_exec *ex;
    mb_tensor *c;
    const mb_tensor *a, *b, *bias;
    const void *workspace;
    bool ta, tb;
    float alpha, beta;
    int calls;
    mb_status result;
} seen;

static mb_status fake_gemm(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                           const mb_tensor *b, bool tb, float alpha, float beta,
                           const mb_tensor *bias)
{
    seen.ex = ex;
    seen.c = c;
    seen.a = a;
    seen.b = b;
    seen.bias = bias;
    seen.workspace = ex->workspace;
    seen.ta = ta;
    seen.tb = tb;
    seen.alpha = alpha;
    seen.beta = beta;
    seen.calls++;
    return seen.result;
}

static size_t fake_gemm_workspace(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                                  const mb_tensor *b, bool tb, float alpha, float beta,
                                  const mb_tensor *bias)
{
    return 640;
}

static mb_status fake_fill(mb_exec *ex, mb_tensor *y, float value)
{
    return MB_OK;
}

/* Calls another kernel. */
static mb_status fake_copy(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    return MB_RUN(ex, fill, y, 1.0f);
}

static mb_status fake_attention_fwd(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                                    const mb_tensor *k, const mb_tensor *v, const mb_attention *at)
{
    return MB_OK;
}

static size_t fake_attention_fwd_workspace(mb_exec *ex, mb_tensor *o, mb_tensor *lse,
                                           const mb_tensor *q, const mb_tensor *k,
                                           const mb_tensor *v, const mb_attention *at)
{
    return 0;
}

static mb_status fake_embedding_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *ids,
                                    const mb_tensor *w)
{
    return MB_OK;
}

static const mb_kernels fake = {.device = "fake",
                                .gemm = fake_gemm,
                                .gemm_workspace = fake_gemm_workspace,
                                .fill = fake_fill,
                                .copy = fake_copy,
                                .attention_fwd = fake_attention_fwd,
                                .attention_fwd_workspace = fake_attention_fwd_workspace,
                                .embedding_fwd = fake_embedding_fwd};

static mb_arena *scratch;
static mb_profile *profile;
static mb_exec ex;

static int make(void **state)
{
    assert_int_equal(mb_arena_new("scratch", 1 << 20, &scratch), MB_OK);
    assert_int_equal(mb_profile_new(&(mb_profile_options){.rows = 8, .events = 64}, &profile),
                     MB_OK);
    ex = (mb_exec){.kernels = &fake, .scratch = scratch, .threads = 1};
    mb_profile_exec(profile, &ex);
    mb_profile_start(profile);
    memset(&seen, 0, sizeof seen);
    return 0;
}

static int drop(void **state)
{
    mb_profile_free(profile);
    mb_arena_free(scratch);
    return 0;
}

static void step_begin(void)
{
    assert_int_equal(mb_profile_step_begin(profile), MB_OK);
}

static void step_end(void)
{
    assert_int_equal(mb_profile_step_end(profile), MB_OK);
}

static void warm_up(void)
{
    for (int i = 0; i < MB_PROFILE_WARMUP; i++) {
        step_begin();
        step_end();
    }
}

static const mb_profile_row *row_of(int operation)
{
    int n;
    const mb_profile_row *r = mb_profile_rows(profile, &n), *found = NULL;

    for (int i = 0; i < n; i++)
        if (r[i].key.operation == operation) {
            assert_null(found);
            found = &r[i];
        }
    return found;
}

static mb_status multiply(int64_t m, int64_t n, int64_t k)
{
    mb_tensor c = mb_tensor_2d(NULL, MB_DTYPE_F32, m, n);
    const mb_tensor a = mb_tensor_2d(NULL, MB_DTYPE_BF16, k, m),
                    b = mb_tensor_2d(NULL, MB_DTYPE_BF16, k, n);

    return MB_RUN(&ex, gemm, &c, &a, true, &b, false, 1.0f, 0.0f, NULL);
}

/* ---- kernels ---------------------------------------------------------------------------------- */

static void the_inner_kernel_gets_the_arguments(void **state)
{
    mb_tensor c = mb_tensor_2d(NULL, MB_DTYPE_F32, 2, 3);
    const mb_tensor a = mb_tensor_2d(NULL, MB_DTYPE_F32, 2, 5),
                    b = mb_tensor_2d(NULL, MB_DTYPE_F32, 3, 5),
                    bias = mb_tensor_1d(NULL, MB_DTYPE_F32, 3);

    for (int step = 0; step <= MB_PROFILE_WARMUP; step++) { /* noted or not */
        step_begin();
        memset(&seen, 0, sizeof seen);
        assert_int_equal(MB_RUN(&ex, gemm, &c, &a, false, &b, true, 2.5f, -0.5f, &bias), MB_OK);
        assert_ptr_equal(seen.ex, &ex);
        assert_ptr_equal(seen.c, &c);
        assert_ptr_equal(seen.a, &a);
        assert_ptr_equal(seen.b, &b);
        assert_ptr_equal(seen.bias, &bias);
        assert_non_null(seen.workspace);
        assert_true(!seen.ta && seen.tb && seen.alpha == 2.5f && seen.beta == -0.5f);
        assert_int_equal(seen.calls, 1);
        step_end();
    }
    assert_in_range(mb_arena_peak(scratch), 640, 1024); /* a sanitizer wants room beside it */
    assert_string_equal(ex.kernels->device, "fake");
    assert_int_equal(row_of(MB_OPERATION_gemm)->calls, 1);
}

static void a_kernel_that_is_not_there_is_still_named(void **state)
{
    mb_tensor y = mb_tensor_1d(NULL, MB_DTYPE_F32, 4);

    assert_int_equal(MB_RUN(&ex, scale, &y, 1.0f, &y), MB_ENOTSUP);
    assert_string_equal(mb_status_sentence(), "device 'fake' has no kernel 'scale'");
    mb_status_clear();
}

static void a_failure_is_passed_on_and_not_noted(void **state)
{
    warm_up();
    step_begin();
    seen.result = MB_ENUM;
    assert_int_equal(multiply(2, 3, 4), MB_ENUM);
    mb_status_clear();
    seen.result = MB_OK;
    assert_int_equal(multiply(2, 3, 4), MB_OK);
    step_end();
    assert_int_equal(row_of(MB_OPERATION_gemm)->calls, 1);
}

static void shapes_operations_and_bytes_are_counted(void **state)
{
    const mb_profile_row *r;
    char text[128];

    assert_int_equal(multiply(7, 6, 5), MB_OK); /* outside of steps */
    warm_up();
    for (int step = 0; step < 2; step++) {
        step_begin();
        for (int i = 0; i < 3; i++)
            assert_int_equal(multiply(7, 6, 5), MB_OK);
        step_end();
    }
    assert_int_equal(mb_profile_steps(profile), 2);
    r = row_of(MB_OPERATION_gemm);
    assert_int_equal(r->calls, 6);
    assert_true(r->flop == 6 * 2.0 * 7 * 6 * 5);
    assert_true(r->bytes == 6 * (4.0 * 7 * 6 + 2.0 * 5 * 7 + 2.0 * 5 * 6));
    assert_true(r->seconds > 0);
    assert_string_equal(mb_profile_shape(&r->key, text, sizeof text),
                        "7x6x5 tn bf16 x bf16 -> f32");
}

static void a_call_inside_a_call_is_counted_once(void **state)
{
    mb_tensor y = mb_tensor_2d(NULL, MB_DTYPE_F32, 4, 4);

    warm_up();
    step_begin();
    assert_int_equal(MB_RUN(&ex, copy, &y, &y), MB_OK);
    step_end();
    assert_int_equal(row_of(MB_OPERATION_copy)->calls, 1);
    assert_null(row_of(MB_OPERATION_fill));
}

static double pairs_one_by_one(const mb_attention *at)
{
    double n = 0;

    for (int64_t s = 0; s < at->n_seq; s++)
        for (int64_t q = 0; q < at->q_len[s]; q++)
            for (int64_t k = 0; k < at->k_len[s]; k++) {
                const int64_t apart = at->k_len[s] - at->q_len[s] + q - k;
                const bool causal = !at->causal || apart >= 0;
                const bool near =
                    at->window == 0 || (apart < at->window && (at->causal || -apart < at->window));
                n += causal && near;
            }
    return n;
}

static void attention_counts_what_the_mask_leaves(void **state)
{
    enum { SEQUENCES = 600 }; /* more than are read at once */
    static int32_t length[SEQUENCES], keys[SEQUENCES];
    mb_tensor o = mb_tensor_2d(NULL, MB_DTYPE_BF16, 100, 24),
              lse = mb_tensor_2d(NULL, MB_DTYPE_F32, 6, 100);
    const mb_tensor kv = mb_tensor_2d(NULL, MB_DTYPE_BF16, 100, 8);
    double before = 0;

    for (int i = 0; i < SEQUENCES; i++) {
        length[i] = i % 11;
        keys[i] = length[i] + i % 3;
    }
    warm_up();
    step_begin();
    for (int mask = 0; mask < 4; mask++) {
        const mb_attention at = {.heads = 6,
                                 .kv_heads = 2,
                                 .head_dim = 4,
                                 .causal = mask & 1,
                                 .window = mask & 2 ? 3 : 0,
                                 .n_seq = SEQUENCES,
                                 .q_len = length,
                                 .k_len = keys};
        assert_int_equal(MB_RUN(&ex, attention_fwd, &o, &lse, &o, &kv, &kv, &at), MB_OK);
        const double flop = row_of(MB_OPERATION_attention_fwd)->flop;
        assert_true(flop - before == 4.0 * 4 * 6 * pairs_one_by_one(&at));
        before = flop;
    }
    step_end();
    assert_int_equal(row_of(MB_OPERATION_attention_fwd)->calls, 4);
}

static void of_a_table_the_rows_looked_up_count(void **state)
{
    mb_tensor y = mb_tensor_2d(NULL, MB_DTYPE_F32, 10, 16);
    const mb_tensor ids = mb_tensor_1d(NULL, MB_DTYPE_I32, 10),
                    w = mb_tensor_2d(NULL, MB_DTYPE_F32, 1000, 16);
    const mb_profile_row *r;

    warm_up();
    step_begin();
    assert_int_equal(MB_RUN(&ex, embedding_fwd, &y, &ids, &w), MB_OK);
    step_end();
    r = row_of(MB_OPERATION_embedding_fwd);
    assert_true(r->bytes == 2 * 4.0 * 10 * 16 + 4.0 * 10);
    assert_true(r->key.dim[0] == 10 && r->key.dim[1] == 16);
}

static void what_finds_no_row_goes_to_a_common_one(void **state)
{
    const mb_profile_row *r;
    int64_t calls = 0;
    int n;

    warm_up();
    step_begin();
    for (int round = 0; round < 2; round++)
        for (int64_t m = 1; m <= 20; m++)
            assert_int_equal(multiply(m, 1, 1), MB_OK);
    step_end();
    r = mb_profile_rows(profile, &n);
    assert_int_equal(n, 8); /* as many as were asked for */
    assert_int_equal(r[0].key.operation, -1);
    assert_int_equal(r[0].calls, 2 * 13);
    for (int i = 0; i < n; i++)
        calls += r[i].calls;
    assert_int_equal(calls, 40);
    assert_true(mb_profile_kind_seconds(profile, MB_PROFILE_GEMM) > 0);
    assert_true(r[0].seconds < mb_profile_kind_seconds(profile, MB_PROFILE_GEMM));
}

static void noting_allocates_nothing(void **state)
{
    const int64_t before = mb_alloc_count();

    for (int step = 0; step < 8; step++) {
        step_begin();
        mb_profile_begin(profile, MB_SPAN_FORWARD);
        for (int64_t m = 1; m <= 30; m++) /* more than there are rows and events */
            assert_int_equal(multiply(m, 2, 2), MB_OK);
        mb_profile_end(profile, MB_SPAN_FORWARD);
        step_end();
    }
    assert_int_equal(mb_alloc_count(), before);
}

static void every_kernel_is_of_a_kind(void **state)
{
    for (int k = 0; k < MB_OPERATION_SPANS; k++)
        if (mb_profile_kind_of(k) == MB_PROFILE_REST)
            fail_msg("%s has no kind", mb_profile_operation_name(k));
    for (int k = 0; k < MB_PROFILE_KINDS; k++)
        assert_non_null(mb_profile_kind_name((mb_profile_kind)k));
    for (int k = 0; k < MB_OPERATION_COUNT; k++)
        assert_non_null(mb_profile_operation_name(k));
}

/* ---- spans, events ---------------------------------------------------------------------------- */

static void kinds_add_up_to_the_step(void **state)
{
    double sum = 0;
    int64_t calls;

    warm_up();
    for (int step = 0; step < 2; step++) {
        step_begin();
        mb_profile_begin(profile, MB_SPAN_DATA);
        mb_profile_end(profile, MB_SPAN_DATA);
        assert_int_equal(multiply(3, 3, 3), MB_OK);
        step_end();
        mb_profile_begin(profile, MB_SPAN_EVALUATION);
        mb_profile_begin(profile, MB_SPAN_FORWARD); /* of no step */
        assert_int_equal(multiply(3, 3, 3), MB_OK);
        mb_profile_end(profile, MB_SPAN_FORWARD);
        mb_profile_end(profile, MB_SPAN_EVALUATION);
    }
    for (int k = 0; k < MB_PROFILE_KINDS; k++) {
        assert_true(mb_profile_kind_seconds(profile, (mb_profile_kind)k) >= 0);
        sum += mb_profile_kind_seconds(profile, (mb_profile_kind)k);
    }
    assert_true(fabs(sum - mb_profile_span_seconds(profile, MB_SPAN_STEP, &calls)) < 1e-12);
    assert_int_equal(calls, 2);
    mb_profile_span_seconds(profile, MB_SPAN_EVALUATION, &calls);
    assert_int_equal(calls, 2);
    mb_profile_span_seconds(profile, MB_SPAN_FORWARD, &calls);
    assert_int_equal(calls, 0);
    assert_int_equal(row_of(MB_OPERATION_gemm)->calls, 2);
}

static void a_trace_that_is_full_stays_nested(void **state)
{
    const mb_profile_event *e;
    int64_t lost, steps = 0;
    int n;

    warm_up();
    for (int step = 0; step < MB_PROFILE_TRACED + 2; step++) {
        step_begin();
        mb_profile_begin(profile, MB_SPAN_FORWARD);
        for (int i = 0; i < (step < 2 ? 4 : 100); i++)
            assert_int_equal(multiply(3, 3, 3), MB_OK);
        mb_profile_end(profile, MB_SPAN_FORWARD);
        step_end();
    }
    e = mb_profile_events(profile, &n, &lost);
    assert_int_equal(n, 64);
    assert_int_equal(lost, 2 * 6 + 102 - 64);
    for (int i = 0; i < n; i++) {
        assert_true(e[i].from >= 0 && e[i].to >= e[i].from);
        for (int k = i + 1; k < n; k++) /* apart, or inside */
            assert_true(e[k].from >= e[i].to || e[k].to <= e[i].to);
        steps += e[i].operation == MB_OPERATION_SPANS + MB_SPAN_STEP;
    }
    assert_int_equal(steps, MB_PROFILE_TRACED);
}

static void without_a_profile_nothing_happens(void **state)
{
    mb_profile_begin(NULL, MB_SPAN_DATA);
    mb_profile_end(NULL, MB_SPAN_DATA);
    assert_int_equal(mb_profile_step_begin(NULL), MB_OK);
    assert_int_equal(mb_profile_step_end(NULL), MB_OK);
    assert_int_equal(mb_profile_bytes(NULL), 0);
    mb_profile_free(NULL);
}

/* ---- collectives ------------------------------------------------------------------------------ */

static mb_status fake_all_reduce(mb_comm *c, void *buf, int64_t n, mb_dtype d, mb_reduce op)
{
    c->bytes_sent += 3 * mb_dtype_bytes(d, n);
    return MB_OK;
}

static mb_status fake_barrier(mb_comm *c)
{
    return MB_OK;
}

/* As those over MPI do: by another collective. */
static mb_status fake_broadcast(mb_comm *c, void *buf, int64_t bytes, int root)
{
    return c->ops->barrier(c);
}

static mb_status fake_group(mb_comm *c)
{
    return MB_OK;
}

/* What was queued has been sent. */
static mb_status fake_before(mb_comm *c, mb_stream stream)
{
    c->bytes_sent += 100;
    return MB_OK;
}

static const mb_comm_ops fake_ops = {.name = "fake",
                                     .all_reduce = fake_all_reduce,
                                     .broadcast = fake_broadcast,
                                     .barrier = fake_barrier,
                                     .group_begin = fake_group,
                                     .group_end = fake_group,
                                     .before = fake_before};

static void collectives_are_noted(void **state)
{
    mb_comm c = {.ops = &fake_ops, .size = 4}, one = {.ops = &fake_ops, .size = 1};
    const mb_profile_row *r;
    char text[128];
    float x[5];

    assert_int_equal(mb_profile_comm(profile, &c), MB_OK);
    assert_int_equal(mb_profile_comm(profile, &c), MB_OK);
    assert_int_equal(mb_profile_comm(profile, &one), MB_OK);
    assert_ptr_equal(one.ops, &fake_ops);
    assert_int_equal(c.ops->barrier(&c), MB_OK);
    warm_up();
    step_begin();
    for (int i = 0; i < 2; i++)
        assert_int_equal(c.ops->all_reduce(&c, x, 5, MB_DTYPE_F32, MB_SUM), MB_OK);
    assert_int_equal(c.ops->broadcast(&c, x, 8, 0), MB_OK);
    assert_int_equal(mb_comm_group_begin(&c), MB_OK);
    assert_int_equal(c.ops->all_reduce(&c, x, 1, MB_DTYPE_F32, MB_SUM), MB_OK);
    assert_int_equal(c.ops->all_reduce(&c, x, 2, MB_DTYPE_F32, MB_SUM), MB_OK);
    assert_int_equal(mb_comm_group_end(&c), MB_OK);
    assert_int_equal(mb_comm_before(&c, MB_STREAM_COMPUTE), MB_OK);
    step_end();
    r = row_of(MB_OPERATION_all_reduce);
    assert_int_equal(r->calls, 2);
    assert_true(r->bytes == 2 * 3 * 20);
    assert_string_equal(mb_profile_shape(&r->key, text, sizeof text), "20 bytes on 4 ranks");
    assert_int_equal(row_of(MB_OPERATION_broadcast)->calls, 1);
    assert_null(row_of(MB_OPERATION_barrier));
    assert_int_equal(row_of(MB_OPERATION_group)->calls, 1);
    assert_true(row_of(MB_OPERATION_group)->bytes == 3 * 12);
    assert_int_equal(row_of(MB_OPERATION_wait)->calls, 1);
    assert_true(row_of(MB_OPERATION_wait)->bytes == 100);
    mb_profile_free(profile);
    profile = NULL;
    assert_ptr_equal(c.ops, &fake_ops);
}

/* ---- the CPU's kernels ------------------------------------------------------------------------ */

static void real_kernels_give_the_same_bits(void **state)
{
    enum { M = 37, N = 29, K = 53 };
    static float a[M * K], b[N * K], c[2][M * N];
    const mb_tensor ta = mb_tensor_2d(a, MB_DTYPE_F32, M, K),
                    tb = mb_tensor_2d(b, MB_DTYPE_F32, N, K);
    mb_arena *memory = NULL;

    assert_int_equal(mb_cpu_init(), MB_OK);
    assert_int_equal(mb_arena_new("workspace", 1 << 24, &memory), MB_OK);
    for (int i = 0; i < M * K; i++)
        a[i] = (float)(i % 17) - 8.25f;
    for (int i = 0; i < N * K; i++)
        b[i] = (float)(i % 13) - 6.125f;
    for (int on = 0; on < 2; on++) {
        mb_exec cpu = mb_cpu_exec(memory, 1);
        mb_tensor tc = mb_tensor_2d(c[on], MB_DTYPE_F32, M, N);
        if (on)
            mb_profile_exec(profile, &cpu);
        warm_up();
        step_begin();
        assert_int_equal(MB_RUN(&cpu, gemm, &tc, &ta, false, &tb, true, 1.0f, 0.0f, NULL), MB_OK);
        step_end();
    }
    assert_memory_equal(c[0], c[1], sizeof c[0]);
    assert_int_equal(row_of(MB_OPERATION_gemm)->calls, 1);
    mb_arena_free(memory);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, make, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(the_inner_kernel_gets_the_arguments),
        WITH(a_kernel_that_is_not_there_is_still_named),
        WITH(a_failure_is_passed_on_and_not_noted),
        WITH(shapes_operations_and_bytes_are_counted),
        WITH(a_call_inside_a_call_is_counted_once),
        WITH(attention_counts_what_the_mask_leaves),
        WITH(of_a_table_the_rows_looked_up_count),
        WITH(what_finds_no_row_goes_to_a_common_one),
        WITH(noting_allocates_nothing),
        WITH(every_kernel_is_of_a_kind),
        WITH(kinds_add_up_to_the_step),
        WITH(a_trace_that_is_full_stays_nested),
        WITH(without_a_profile_nothing_happens),
        WITH(collectives_are_noted),
        WITH(real_kernels_give_the_same_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
