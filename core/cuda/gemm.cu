/* core/cuda/gemm.cu - C = alpha op(A) op(B) + beta C (+ bias) by cuBLASLt, the only file that knows it.
 *
 * cuBLASLt counts columns first: our C(M,N) in rows is its C'(N,M), and C' = op(B)' op(A)', so the
 * operands swap places and each keeps its own transposition. The bias, one number per column of C,
 * is one per row of C', which is what its epilogue adds.
 *
 * Products are summed in f32 whatever the types, f32 ones without TF32. The algorithm of a shape is
 * the first of the library's heuristic that adds pieces of K either not at all or through workspace
 * in a fixed order, never by atomics, so the same call gives the same bits. It is chosen when a
 * shape is first seen and kept, with its descriptors, in a table of fixed size: later calls ask
 * nothing and allocate nothing. The heuristic asks for the shape, the GPU and the library's version, no
 * stop watch, so ranks of the same class (mb_device.class_) choose alike. One thread at a time.
 */
#include <cublasLt.h>
#include <string.h>

#include "core/cuda/cuda.h"

extern "C" {
#include "core/alloc.h"
}

#define BLAS_TRY(call)                                         \
    do {                                                       \
        const cublasStatus_t s_ = (call);                      \
        if (s_ != CUBLAS_STATUS_SUCCESS)                       \
            return blas_failed(s_, #call, __FILE__, __LINE__); \
    } while (0)

namespace {

enum {
    SETS = 128,
    WAYS = 8,
    CANDIDATES = 8,
    ALIGNED = 256, /* what cuBLASLt wants of its workspace */
    VECTOR = 16,   /* bytes: more alignment than this opens no further algorithm */
    BIAS_THREADS = 256
};

/* All that a choice depends on. No padding: it is hashed as bytes. */
struct shape {
    int64_t m, n, k, lda, ldb, ldc;
    uint8_t in, out; /* mb_dtype of A and B, of C */
    uint8_t ta, tb;
    uint8_t bias;                      /* as epilogue */
    uint8_t align_a, align_b, align_c; /* bytes, at most VECTOR */
};
static_assert(sizeof(shape) == 56, "a shape has no padding");

struct plan {
    shape key;
    uint64_t used; /* 0: empty */
    bool none;     /* cuBLASLt has no algorithm for it */
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a, b, c; /* as cuBLASLt sees them: a is our B */
    cublasLtMatmulAlgo_t algo;
};

} // namespace

struct mb_products {
    cublasLtHandle_t handle;
    uint64_t clock;
    plan plans[SETS][WAYS];
};

namespace {

mb_status blas_failed(cublasStatus_t s, const char *call, const char *file, int line)
{
    const char *paren = strchr(call, '(');

    return mb_raise(s == CUBLAS_STATUS_ALLOC_FAILED ? MB_ENOMEM : MB_EBUG, file, line,
                    "cuBLASLt failed at %.*s: %s", (int)(paren - call), call,
                    cublasLtGetStatusString(s));
}

/* Bytes that an algorithm for C(m,n) may use: what the library asks for on Hopper, for a small C no
 * more than pieces of K can take there. */
size_t workspace_bytes(int64_t m, int64_t n)
{
    const int64_t most = 32 << 20, least = 1 << 20, part = m * n * 4, pieces = 64;

    return (size_t)(part > (most - least) / pieces ? most : least + part * pieces);
}

/* ---- shapes --------------------------------------------------------------------------------- */

cudaDataType_t type_of(int dtype)
{
    return dtype == MB_DTYPE_F32 ? CUDA_R_32F : dtype == MB_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

bool is_float(mb_dtype t)
{
    return t == MB_DTYPE_F32 || t == MB_DTYPE_BF16 || t == MB_DTYPE_F16;
}

uint8_t alignment_of(const void *p)
{
    int align = VECTOR;

    while (reinterpret_cast<uintptr_t>(p) % (uintptr_t)align != 0)
        align /= 2;
    return (uint8_t)align;
}

/* Of a single row the distance to the next says nothing. */
int64_t leading(const mb_tensor *t)
{
    return mb_rows(t) > 1 ? mb_row_stride(t) : mb_cols(t);
}

shape shape_of(const mb_tensor *c, const mb_tensor *a, bool ta, const mb_tensor *b, bool tb,
               bool bias)
{
    shape s = {};

    s.m = mb_rows(c);
    s.n = mb_cols(c);
    s.k = ta ? mb_rows(a) : mb_cols(a);
    s.lda = leading(a);
    s.ldb = leading(b);
    s.ldc = leading(c);
    s.in = (uint8_t)a->dtype;
    s.out = (uint8_t)c->dtype;
    s.ta = ta;
    s.tb = tb;
    s.bias = bias;
    s.align_a = alignment_of(a->data);
    s.align_b = alignment_of(b->data);
    s.align_c = alignment_of(c->data);
    return s;
}

/* FNV-1a. */
uint64_t hash_of(const shape *s)
{
    const unsigned char *p = reinterpret_cast<const unsigned char *>(s);
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < sizeof *s; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* ---- plans ---------------------------------------------------------------------------------- */

mb_status layout(cublasLtMatrixLayoutOpaque_t *l, int dtype, int64_t rows, int64_t cols, int64_t ld)
{
    /* our rows are its columns */
    BLAS_TRY(cublasLtMatrixLayoutInit(l, type_of(dtype), (uint64_t)cols, (uint64_t)rows, ld));
    return MB_OK;
}

template <typename T>
mb_status describe(plan *p, cublasLtMatmulDescAttributes_t what, const T &value)
{
    BLAS_TRY(cublasLtMatmulDescSetAttribute(&p->desc, what, &value, sizeof value));
    return MB_OK;
}

mb_status make_descriptors(plan *p, const shape &s)
{
    const int32_t yes = CUBLAS_OP_T, no = CUBLAS_OP_N, epilogue = CUBLASLT_EPILOGUE_BIAS;

    p->key = s;
    BLAS_TRY(cublasLtMatmulDescInit(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    MB_TRY(describe(p, CUBLASLT_MATMUL_DESC_TRANSA, s.tb ? yes : no));
    MB_TRY(describe(p, CUBLASLT_MATMUL_DESC_TRANSB, s.ta ? yes : no));
    if (s.bias) { /* the heuristic looks at how an address is aligned */
        const void *any = reinterpret_cast<const void *>((uintptr_t)VECTOR);

        MB_TRY(describe(p, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
        MB_TRY(describe(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, any));
    }
    MB_TRY(layout(&p->a, s.in, s.tb ? s.n : s.k, s.tb ? s.k : s.n, s.ldb));
    MB_TRY(layout(&p->b, s.in, s.ta ? s.k : s.m, s.ta ? s.m : s.k, s.lda));
    return layout(&p->c, s.out, s.m, s.n, s.ldc);
}

mb_status prefer(cublasLtMatmulPreferenceOpaque_t *p, const shape &s, uint64_t workspace)
{
    const uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* or none; no atomics */
    const uint32_t a = s.align_b, b = s.align_a, c = s.align_c;

    BLAS_TRY(cublasLtMatmulPreferenceInit(p));
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t size;
    } list[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme, sizeof scheme},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c},
    };
    for (const auto &l : list)
        BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(p, l.what, l.value, l.size));
    return MB_OK;
}

/* One product as it was asked for, in the order of cuBLASLt. */
struct call {
    const void *a, *b, *bias;
    void *c, *workspace;
    float alpha, beta;
    cudaStream_t stream;
};

mb_status run(mb_products *g, plan *p, const call &x)
{
    if (x.bias != nullptr)
        MB_TRY(describe(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, x.bias));
    BLAS_TRY(cublasLtMatmul(g->handle, &p->desc, &x.alpha, x.a, &p->a, x.b, &p->b, &x.beta, x.c, &p->c, x.c, &p->c, &p->algo, x.workspace, workspace_bytes(p->key.m, p->key.n),
                            x.stream));
    return MB_OK;
}

/* The first of the heuristic's list that fits. */
mb_status choose(mb_products *g, plan *p)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result[CANDIDATES];
    const size_t workspace = workspace_bytes(p->key.m, p->key.n);
    int n = 0;

    p->none = true;
    MB_TRY(prefer(&preference, p->key, workspace));
    const cublasStatus_t s = cublasLtMatmulAlgoGetHeuristic(
        g->handle, &p->desc, &p->a, &p->b, &p->c, &p->c, &preference, CANDIDATES, result, &n);
    if (s == CUBLAS_STATUS_NOT_SUPPORTED)
        return MB_OK;
    BLAS_TRY(s);
    for (int i = 0; i < n && p->none; i++) {
        p->none = result[i].state != CUBLAS_STATUS_SUCCESS || result[i].workspaceSize > workspace;
        p->algo = result[i].algo;
    }
    return MB_OK;
}

/* Where s is, or where it should go: an empty place or the one that was not used for longest. */
plan *place_of(mb_products *g, const shape &s)
{
    plan *set = g->plans[hash_of(&s) % SETS], *best = nullptr;

    for (plan *p = set; p < set + WAYS; p++) {
        if (p->used != 0 && memcmp(&p->key, &s, sizeof s) == 0)
            return p;
        if (best == nullptr || p->used < best->used)
            best = p;
    }
    best->used = 0;
    return best;
}

/* The plan for s; NULL in *out when cuBLASLt has no algorithm for it. */
mb_status plan_for(mb_products *g, const shape &s, plan **out)
{
    plan *p = place_of(g, s);

    if (p->used == 0) {
        MB_TRY(make_descriptors(p, s));
        MB_TRY(choose(g, p));
    }
    p->used = ++g->clock;
    *out = p->none ? nullptr : p;
    return MB_OK;
}

/* ---- bias apart ----------------------------------------------------------------------------- */

/* c = beta c + bias, where beta 0 ignores c and bias may be NULL. */
template <typename T, typename B>
MB_GLOBAL void MB_BOUNDS(BIAS_THREADS) bias_kernel(mb_mat<T> c, const B *bias, float beta)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i >= c.rows * c.cols)
        return;
    const int64_t r = i / c.cols, j = i - r * c.cols;
    T *at = c.row(r) + j;
    float y = beta != 0.0f ? beta * mb_to_f32(*at) : 0.0f;
    if (bias != nullptr)
        y += mb_to_f32(bias[j]);
    *at = mb_from_f32<T>(y);
}

template <typename T, typename B>
mb_status bias_of(mb_exec *ex, mb_tensor *c, const mb_tensor *bias, float beta)
{
    const B *b = bias != nullptr ? static_cast<const B *>(bias->data) : nullptr;
    const int64_t blocks = mb_div_up(mb_rows(c) * mb_cols(c), BIAS_THREADS);

    MB_LAUNCH(ex, (bias_kernel<T, B>), blocks, BIAS_THREADS, 0, mb_mat_of<T>(c), b, beta);
    return MB_OK;
}

template <typename B>
mb_status bias_in(mb_exec *ex, mb_tensor *c, const mb_tensor *bias, float beta)
{
    MB_CUDA_DISPATCH(c->dtype, return (bias_of<T, B>(ex, c, bias, beta)));
    return MB_OK;
}

mb_status add_bias(mb_exec *ex, mb_tensor *c, const mb_tensor *bias, float beta)
{
    MB_CUDA_DISPATCH(bias != nullptr ? bias->dtype : MB_DTYPE_F32,
                     return bias_in<T>(ex, c, bias, beta));
    return MB_OK;
}

/* ---- the product ---------------------------------------------------------------------------- */

call call_of(const mb_exec *ex, mb_tensor *c, const mb_tensor *a, const mb_tensor *b, float alpha,
             float beta)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(ex->workspace);

    return {b->data,
            a->data,
            nullptr,
            c->data,
            reinterpret_cast<void *>((at + ALIGNED - 1) / ALIGNED * ALIGNED),
            alpha,
            beta,
            mb_cuda_stream(ex)};
}

mb_status check(const mb_tensor *c, const mb_tensor *a, bool ta, const mb_tensor *b, bool tb,
                const mb_tensor *bias)
{
    const int64_t m = ta ? mb_cols(a) : mb_rows(a), k = ta ? mb_rows(a) : mb_cols(a);
    const int64_t k_b = tb ? mb_cols(b) : mb_rows(b), n = tb ? mb_rows(b) : mb_cols(b);

    MB_REQUIRE(m == mb_rows(c) && n == mb_cols(c) && k == k_b, MB_EBUG,
               "gemm: op(A) is %lld x %lld and op(B) %lld x %lld, C %lld x %lld", (long long)m,
               (long long)k, (long long)k_b, (long long)n, (long long)mb_rows(c),
               (long long)mb_cols(c));
    MB_REQUIRE(is_float(a->dtype) && a->dtype == b->dtype, MB_EBUG, "gemm: A is %s, B %s",
               mb_dtype_name(a->dtype), mb_dtype_name(b->dtype));
    MB_REQUIRE(c->dtype == MB_DTYPE_F32 || c->dtype == a->dtype, MB_EBUG,
               "gemm: A and B are %s, C %s", mb_dtype_name(a->dtype), mb_dtype_name(c->dtype));
    MB_REQUIRE(bias == nullptr || (mb_tensor_count(bias) == n &&
                                   (bias->dtype == MB_DTYPE_F32 || bias->dtype == a->dtype)),
               MB_EBUG, "gemm: a bias of %lld x %s for %lld columns of %s",
               (long long)mb_tensor_count(bias), mb_dtype_name(bias->dtype), (long long)n,
               mb_dtype_name(c->dtype));
    return MB_OK;
}

} // namespace

extern "C" size_t mb_cuda_gemm_workspace(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                                         const mb_tensor *b, bool tb, float alpha, float beta,
                                         const mb_tensor *bias)
{
    return workspace_bytes(mb_rows(c), mb_cols(c)) + ALIGNED;
}

extern "C" mb_status mb_cuda_gemm(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                                  const mb_tensor *b, bool tb, float alpha, float beta,
                                  const mb_tensor *bias)
{
    mb_products *g = mb_cuda_of(ex)->products;
    plan *p = nullptr;

    MB_TRY(check(c, a, ta, b, tb, bias));
    if (mb_rows(c) == 0 || mb_cols(c) == 0)
        return MB_OK;
    if ((ta ? mb_rows(a) : mb_cols(a)) == 0)
        return add_bias(ex, c, bias, beta);
    /* the epilogue takes a bias of C's type; then C is rounded once */
    const bool epilogue =
        bias != nullptr && bias->dtype == c->dtype && alignment_of(bias->data) == VECTOR;
    call x = call_of(ex, c, a, b, alpha, beta);
    shape s = shape_of(c, a, ta, b, tb, epilogue);
    x.bias = epilogue ? bias->data : nullptr;
    MB_TRY(plan_for(g, s, &p));
    if (p == nullptr && epilogue) {
        s.bias = 0;
        x.bias = nullptr;
        MB_TRY(plan_for(g, s, &p));
    }
    MB_REQUIRE(p != nullptr, MB_ENOTSUP,
               "cuBLASLt has no algorithm for %lld x %lld x %lld of %s (rows %lld, %lld and %lld "
               "apart) on %s",
               (long long)s.m, (long long)s.n, (long long)s.k, mb_dtype_name(a->dtype),
               (long long)s.lda, (long long)s.ldb, (long long)s.ldc, mb_cuda_of(ex)->base.name);
    MB_TRY(run(g, p, x));
    return bias != nullptr && !s.bias ? add_bias(ex, c, bias, 1.0f) : MB_OK;
}

extern "C" size_t mb_cuda_gemm_adapted_workspace(mb_exec *ex, mb_tensor *c, const mb_tensor *x,
                                                 const mb_tensor *w, bool tw, const mb_tensor *h,
                                                 const mb_tensor *b, bool tb, float beta,
                                                 const mb_tensor *bias)
{
    return mb_cuda_gemm_workspace(ex, c, x, false, w, tw, 1.0f, beta, bias);
}

extern "C" mb_status mb_cuda_gemm_adapted(mb_exec *ex, mb_tensor *c, const mb_tensor *x,
                                          const mb_tensor *w, bool tw, const mb_tensor *h,
                                          const mb_tensor *b, bool tb, float beta,
                                          const mb_tensor *bias)
{
    MB_TRY(mb_cuda_gemm(ex, c, x, false, w, tw, 1.0f, beta, bias));
    return mb_cuda_gemm(ex, c, h, false, b, tb, 1.0f, 1.0f, nullptr);
}

/* ---- opening ------------------------------------------------------------------------------- */

int mb_cuda_gemm_version()
{
    return (int)cublasLtGetVersion();
}

mb_status mb_cuda_gemm_open(mb_cuda *d)
{
    MB_TRY(MB_NEW(&d->products));
    BLAS_TRY(cublasLtCreate(&d->products->handle));
    return MB_OK;
}

void mb_cuda_gemm_close(mb_cuda *d)
{
    if (d->products != nullptr && d->products->handle != nullptr)
        cublasLtDestroy(d->products->handle);
    mb_free(d->products);
    d->products = nullptr;
}
