/* tests/device/shadow.c - see tests/device/shadow.h. */
#include "tests/device/shadow.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpu/cpu.h"
#include "tests/device/mirror.h"

/* ---- what is stored in which type ----------------------------------------------------------- */

/* The tensors of each kernel in their order: T follows the type, F stays what it is. `roles` may
 * have alternatives after a '|', which are all tried; OWN_TYPES: the kernel knows its own types only.
 * `wider`: a factor on the bound of outputs in T, with a reason. */
#define OWN_TYPES ""
static const struct rule {
    const char *roles;
    double wider;
} rules[MB_SHADOW_KERNELS] = {
    [MB_SHADOW_gemm] = {.roles = "c:T a:T b:T bias:T|c:F a:T b:T bias:T"},
    [MB_SHADOW_gemm_adapted] = {.roles = "c:T x:T w:T h:T b:T bias:T"},
    [MB_SHADOW_copy] = {.roles = "y:T x:T"},
    [MB_SHADOW_axpy] = {.roles = "y:T x:T"},
    [MB_SHADOW_fill] = {.roles = "y:T"},
    [MB_SHADOW_scale] = {.roles = "y:T x:T"},
    [MB_SHADOW_add] = {.roles = "y:T a:T b:T"},
    [MB_SHADOW_bias_bwd] = {.roles = "db:F dy:T"},
    [MB_SHADOW_embedding_fwd] = {.roles = "y:T ids:F w:T"},
    [MB_SHADOW_embedding_bwd] = {.roles = "dw:F ids:F dy:T"},
    [MB_SHADOW_gather_rows] = {.roles = "y:T x:T index:F"},
    [MB_SHADOW_scatter_rows] = {.roles = "dx:T dy:T index:F"},
    [MB_SHADOW_unfold] = {.roles = "y:T x:T"},
    [MB_SHADOW_unfold_bwd] = {.roles = "dx:T dy:T"},
    [MB_SHADOW_rmsnorm_fwd] = {.roles = "y:T rstd:F x:T w:T"},
    [MB_SHADOW_rmsnorm_bwd] = {.roles = "dx:T dw:F dy:T x:T w:T rstd:F"},
    [MB_SHADOW_layernorm_fwd] = {.roles = "y:T mean:F rstd:F x:T w:T b:T"},
    [MB_SHADOW_layernorm_bwd] = {.roles = "dx:T dw:F db:F dy:T x:T w:T mean:F rstd:F"},
    [MB_SHADOW_add_rmsnorm_fwd] = {.roles = "y:T sum:T rstd:F a:T b:T w:T"},
    [MB_SHADOW_add_layernorm_fwd] = {.roles = "y:T sum:T mean:F rstd:F a:T b:T w:T bias:T"},
    [MB_SHADOW_rope] = {.roles = "y:T x:T cos:F sin:F positions:F"},
    [MB_SHADOW_attention_fwd] = {.roles = "o:T lse:F q:T k:T v:T"},
    [MB_SHADOW_attention_bwd] = {.roles = "dq:T dk:T dv:T d_o:T q:T k:T v:T o:T lse:F"},
    [MB_SHADOW_attention_bias_bwd] = {.roles = "dbias:F d_o:T q:T k:T v:T o:T lse:F"},
    [MB_SHADOW_bucket_bias_fwd] = {.roles = "y:F ids:F w:T"},
    [MB_SHADOW_bucket_bias_bwd] = {.roles = "dw:F ids:F dy:F"},
    [MB_SHADOW_activation_fwd] = {.roles = "y:T x:T"},
    [MB_SHADOW_activation_bwd] = {.roles = "dx:T dy:T x:T"},
    [MB_SHADOW_glu_fwd] = {.roles = "y:T gate:T up:T"},
    [MB_SHADOW_glu_bwd] = {.roles = "dgate:T dup:T dy:T gate:T up:T"},
    [MB_SHADOW_dropout] = {.roles = "y:T x:T"},
    [MB_SHADOW_magnitude_gain] = {.roles = "gain:F rnorm:F m:T w:T b:T wa:F aa:F"},
    [MB_SHADOW_scale_columns] = {.roles = "y:T x:T gain:F bias:T"},
    [MB_SHADOW_scale_columns_bwd] = {.roles = "dm:F dy:T x:T rnorm:F"},
    [MB_SHADOW_softmax_xent] = {.roles = "logits:T logprob:F label:F weight:F"},
    [MB_SHADOW_row_loss_fwd] = {.roles = "out:F x:T y:F"},
    [MB_SHADOW_row_loss_bwd] = {.roles = "dx:T dout:F x:T y:F"},
    [MB_SHADOW_span_xent_fwd] = {.roles = "out:F x:T label:F start:F len:F"},
    [MB_SHADOW_span_xent_bwd] = {.roles = "dx:T dout:F x:T label:F start:F len:F"},
    [MB_SHADOW_mean_pool_fwd] = {.roles = "y:F x:T start:F len:F"},
    [MB_SHADOW_mean_pool_bwd] = {.roles = "dx:T dy:F start:F len:F"},
    [MB_SHADOW_contrast_fwd] = {.roles = OWN_TYPES},
    [MB_SHADOW_contrast_bwd] = {.roles = OWN_TYPES},
    [MB_SHADOW_cast] = {.roles = OWN_TYPES},
    [MB_SHADOW_split_bf16] = {.roles = OWN_TYPES},
    [MB_SHADOW_join_bf16] = {.roles = OWN_TYPES},
    [MB_SHADOW_dequantise] = {.roles = OWN_TYPES},
    [MB_SHADOW_grain_sumsq] = {.roles = OWN_TYPES},
    [MB_SHADOW_exact_add] = {.roles = OWN_TYPES},
    [MB_SHADOW_exact_merge] = {.roles = OWN_TYPES},
    [MB_SHADOW_exact_take] = {.roles = OWN_TYPES},
    [MB_SHADOW_absmax] = {.roles = OWN_TYPES},
    [MB_SHADOW_adamw] = {.roles = OWN_TYPES},
    [MB_SHADOW_adamw_bf16] = {.roles = OWN_TYPES},
    [MB_SHADOW_adamw_8bit] = {.roles = OWN_TYPES},
};

/* Of max(1, max|cpu|). A value rounded once to bf16 is off by 2^-9 of itself, to f16 by 2^-12. */
static double bound_of(int kernel, mb_dtype type)
{
    const double wider = rules[kernel].wider > 0 ? rules[kernel].wider : 1.0;

    switch (type) {
    case MB_DTYPE_BF16:
        return 0x1p-7 * wider;
    case MB_DTYPE_F16:
        return 0x1p-10 * wider;
    case MB_DTYPE_F64:
        return 1e-13;
    default:
        return 1e-5;
    }
}

/* ---- the record ----------------------------------------------------------------------------- */

enum { F32, BF16, F16, TYPES };

static const char *const kernels[MB_SHADOW_KERNELS] = {
#define MB_KERNEL(name, params, args)    #name,
#define MB_KERNEL_WS(name, params, args) #name,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
};

static mb_shadow_record records[TYPES][MB_SHADOW_KERNELS];
static mb_dtype type;
static mb_shadow_gives gives;
static mb_kernels reference; /* the CPU's table, but for fused kernels */
static uint64_t digest = 0xcbf29ce484222325ull;

static int index_of(mb_dtype t)
{
    return t == MB_DTYPE_BF16 ? BF16 : t == MB_DTYPE_F16 ? F16 : F32;
}

const mb_shadow_record *mb_shadow_records(mb_dtype t)
{
    for (int k = 0; k < MB_SHADOW_KERNELS; k++)
        records[index_of(t)][k].kernel = kernels[k];
    return records[index_of(t)];
}

bool mb_shadow_has_type(int kernel)
{
    MB_ASSERT(rules[kernel].roles != NULL); /* a new kernel wants a line above */
    return rules[kernel].roles[0] != '\0';
}

uint64_t mb_shadow_digest(void)
{
    return digest;
}

mb_dtype mb_shadow_dtype(const char *name)
{
    if (strcmp(name, "f32") == 0)
        return MB_DTYPE_F32;
    if (strcmp(name, "bf16") == 0)
        return MB_DTYPE_BF16;
    if (strcmp(name, "f16") == 0)
        return MB_DTYPE_F16;
    MB_BUG("a shadow of type '%s'", name);
}

void mb_shadow_print(void)
{
    printf("%-16s %21s %21s %21s\n%16s %21s %21s %21s\n", "kernel", "f32", "bf16", "f16", "",
           "calls  share of bound", "calls  share of bound", "calls  share of bound");
    for (int k = 0; k < MB_SHADOW_KERNELS; k++) {
        printf("%-16s", kernels[k]);
        for (int t = 0; t < TYPES; t++) {
            const mb_shadow_record *r = &records[t][k];
            if (r->calls > 0)
                printf(" %7lld        %6.3f", (long long)r->calls, r->worst);
            else
                printf(" %7s        %6s", "-", "-");
        }
        printf("\n");
    }
    fflush(stdout);
}

/* ---- comparing ------------------------------------------------------------------------------ */

static double element(const mb_tensor *t, int64_t r, int64_t c)
{
    const void *at = (const char *)t->data + mb_dtype_bytes(t->dtype, r * mb_row_stride(t) + c);

    switch (t->dtype) {
    case MB_DTYPE_F32:
        return *(const float *)at;
    case MB_DTYPE_F64:
        return *(const double *)at;
    case MB_DTYPE_BF16:
        return mb_bf16_to_f32(*(const uint16_t *)at);
    case MB_DTYPE_F16:
        return mb_f16_to_f32(*(const uint16_t *)at);
    case MB_DTYPE_I32:
        return *(const int32_t *)at;
    default:
        MB_BUG("a kernel with an output of type %s", mb_dtype_name(t->dtype));
    }
}

static double largest(mb_dtype t)
{
    return t == MB_DTYPE_F16 ? 65504.0 : t == MB_DTYPE_BF16 ? 0x1.fep127 : DBL_MAX;
}

/* lse is defined for the rows of sequences only. */
static bool is_defined(const char *name, const mb_attention *at, int64_t column)
{
    if (at == NULL || strcmp(name, "lse") != 0)
        return true;
    for (int64_t s = 0; s < at->n_seq; s++)
        if (column >= at->q_start[s] && column < at->q_start[s] + at->q_len[s])
            return true;
    return false;
}

/* How far `got` is from `want`, of what is allowed; infinite when one of them is not a number or
 * beyond what the type holds and the other is not. */
static double share(double got, double want, double allowed, mb_dtype t)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got) ? 0.0 : (double)INFINITY;
    if (isinf(got) || fabs(want) > largest(t))
        return (got > 0) == (want > 0) && fabs(want) >= 0.99 * largest(t) &&
                       fabs(got) >= 0.99 * largest(t)
                   ? 0.0
                   : (double)INFINITY;
    return fabs(got - want) / allowed;
}

static mb_status compare_output(int kernel, const mb_call_output *o)
{
    const mb_tensor *got = &o->there, *want = &o->reference;
    mb_shadow_record *record = &records[index_of(type)][kernel];
    double most = 1.0;

    for (int64_t r = 0; r < mb_rows(want); r++)
        for (int64_t c = 0; c < mb_cols(want); c++)
            if (is_defined(o->name, mb_call_attention(), c) && isfinite(element(want, r, c)))
                most = fmax(most, fmin(fabs(element(want, r, c)), largest(got->dtype)));
    for (int64_t r = 0; r < mb_rows(want); r++) {
        for (int64_t c = 0; c < mb_cols(want); c++) {
            const double allowed = bound_of(kernel, got->dtype) * most;
            double s;

            if (!is_defined(o->name, mb_call_attention(), c))
                continue;
            s = share(element(got, r, c), element(want, r, c), allowed, got->dtype);
            if (s > record->worst)
                record->worst = s;
            MB_REQUIRE(s <= 1.0, MB_ENUM,
                       "%s, type %s: %s[%lld,%lld] of %lld x %lld is %.9g, the CPU's %.9g; allowed "
                       "%.3g",
                       kernels[kernel], mb_dtype_name(type), o->name, (long long)r, (long long)c,
                       (long long)mb_rows(want), (long long)mb_cols(want), element(got, r, c),
                       element(want, r, c), allowed);
        }
    }
    return MB_OK;
}

/* What the device rounds between two steps of a fused kernel is rounded here too. */
static mb_status add_rmsnorm(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *rstd,
                             const mb_tensor *a, const mb_tensor *b, const mb_tensor *w,
                             float offset, float eps)
{
    MB_TRY(mb_cpu_add(ex, sum, a, b));
    mb_call_round(sum);
    return mb_cpu_rmsnorm_fwd(ex, y, rstd, sum, w, offset, eps);
}

static mb_status add_layernorm(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *mean,
                               mb_tensor *rstd, const mb_tensor *a, const mb_tensor *b,
                               const mb_tensor *w, const mb_tensor *bias, float eps)
{
    MB_TRY(mb_cpu_add(ex, sum, a, b));
    mb_call_round(sum);
    return mb_cpu_layernorm_fwd(ex, y, mean, rstd, sum, w, bias, eps);
}

static mb_status same_bits(int kernel, const mb_call_output *o)
{
    const mb_tensor *t = &o->there;

    for (int64_t r = 0; r < mb_rows(t); r++) {
        const int64_t at = mb_dtype_bytes(t->dtype, r * mb_row_stride(t));
        MB_REQUIRE(memcmp((const char *)t->data + at, (const char *)o->reference.data + at,
                          (size_t)mb_dtype_bytes(t->dtype, mb_cols(t))) == 0,
                   MB_ENUM, "%s: row %lld of %s has other bits than the CPU's", kernels[kernel],
                   (long long)r, o->name);
    }
    return MB_OK;
}

static mb_status compare(int kernel)
{
    const mb_call_output *o;

    for (int i = 0; (o = mb_call_output_at(i)) != NULL; i++) {
        if (mb_tensor_count(&o->host) == 0)
            continue;
        if (o->there.dtype == MB_DTYPE_I64)
            MB_TRY(same_bits(kernel, o));
        else
            MB_TRY(compare_output(kernel, o));
    }
    records[index_of(type)][kernel].calls++;
    digest = mb_call_digest(digest);
    return MB_OK;
}

/* ---- the table ------------------------------------------------------------------------------ */

/* The i-th alternative of a kernel's roles; NULL when there is none or it would be tried twice. */
static const char *alternative(int kernel, int i)
{
    static char text[160];
    const char *at = rules[kernel].roles;

    if (!mb_shadow_has_type(kernel))
        return i == 0 && type == MB_DTYPE_F32 ? "" : NULL;
    if (i > 0 && type == MB_DTYPE_F32)
        return NULL;
    for (; at != NULL && i > 0; i--) {
        at = strchr(at, '|');
        at = at == NULL ? NULL : at + 1;
    }
    if (at == NULL)
        return NULL;
    snprintf(text, sizeof text, "%.*s", (int)strcspn(at, "|"), at);
    return text;
}

static int alternatives(int kernel)
{
    int n = 0;

    while (alternative(kernel, n) != NULL)
        n++;
    return n;
}

/* All alternatives see the same inputs: the caller's tensors are written last, with what the first
 * alternative gave. */
#define SHADOW(name, params, args, call_there)                            \
    static mb_status shadow_##name params                                 \
    {                                                                     \
        mb_exec cpu = mb_cpu_exec(ex->scratch, ex->threads);              \
        const int n = alternatives(MB_SHADOW_##name);                     \
        mb_status st;                                                     \
                                                                          \
        for (int i = n; i-- > 0;) {                                       \
            mb_call_begin(#name, alternative(MB_SHADOW_##name, i), type); \
            MB_EACH(MB_NOTE, args);                                       \
            MB_TRY(mb_call_send());                                       \
            MB_TRY(mb_run_##name(MB_EACH(MB_REFERENCE, args)));           \
            call_there(st, name, args);                                   \
            MB_TRY(mb_call_end(st));                                      \
            MB_TRY(compare(MB_SHADOW_##name));                            \
        }                                                                 \
        if (n > 0 && gives == MB_SHADOW_GIVES_DEVICE) {                   \
            mb_call_give_back();                                          \
            return MB_OK;                                                 \
        }                                                                 \
        ex = &cpu;                                                        \
        return mb_run_##name args;                                        \
    }
#define MB_KERNEL(name, params, args) SHADOW(name, params, args, MB_CALL_THERE)
#define MB_KERNEL_WS(name, params, args)                   \
    SHADOW(name, params, args, MB_CALL_THERE_WS)           \
    static size_t shadow_##name##_workspace params         \
    {                                                      \
        return 0; /* both kernels inside take their own */ \
    }
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS

static const mb_kernels shadowed = {
    .device = "shadow",
#define MB_KERNEL(name, params, args) .name = shadow_##name,
#define MB_KERNEL_WS(name, params, args) \
    .name = shadow_##name, .name##_workspace = shadow_##name##_workspace,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
};

mb_exec mb_shadow_exec(mb_arena *scratch, mb_dtype t, mb_shadow_gives g)
{
    mb_test_device();
    if (mb_cpu_init() != MB_OK)
        MB_BUG("%s", mb_status_sentence());
    type = t;
    gives = g;
    reference = mb_cpu_kernels;
    reference.add_rmsnorm_fwd = add_rmsnorm;
    reference.add_layernorm_fwd = add_layernorm;
    mb_reference_table(&reference);
    return (mb_exec){.kernels = &shadowed, .scratch = scratch, .threads = 1};
}
