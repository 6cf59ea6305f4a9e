/* tests/emu/cublaslt.cc - matrix products for the emulator, strict about how they are asked for.
 *
 * D = alpha op(A) op(B) + beta C (+ bias), columns first, as cuBLASLt defines it. Products are added
 * in f32, in pieces of 256 along K, the same on every CPU. An algorithm is for the shapes, types and
 * alignments it was chosen for and nothing else; some want workspace and spoil it.
 */
#include <algorithm>
#include <cublasLt.h>
#include <string.h>
#include <vector>

#include "core/cuda/dev.h"
#include "tests/emu/emu.h"

struct cublasLtContext {
    uint64_t magic;
};

namespace {

constexpr uint64_t HANDLE = 0x6d626c7468616e64ull, ALGORITHM = 0x6d626c74616c676full;

struct layout {
    uint64_t magic; /* differs in each kind of descriptor */
    uint64_t rows, cols;
    int64_t ld;
    int type;
};
constexpr uint64_t LAYOUT = 0x6d626c746c61796full, DESC = 0x6d626c7464657363ull,
                   PREFERENCE = 0x6d626c7470726566ull;

struct desc {
    uint64_t magic;
    int32_t op[2]; /* of A, of B */
    int32_t epilogue;
    const void *bias;
};

struct preference {
    uint64_t magic, workspace;
    uint32_t reduction, align[4];
};

struct algorithm {
    uint64_t magic, shape; /* a hash of all that it was chosen for */
    uint64_t workspace;
    uint32_t align[4];
};

static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits");
static_assert(sizeof(desc) <= sizeof(cublasLtMatmulDescOpaque_t), "fits");
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "fits");
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "fits");

template <typename T, typename O> T *inside(O *opaque, uint64_t magic)
{
    T *t = reinterpret_cast<T *>(opaque);

    return opaque != nullptr && t->magic == magic ? t : nullptr;
}

size_t size_of(int type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

bool is_type(int type)
{
    return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

struct problem {
    layout a, b, c;
    desc how;
    uint64_t m, n, k;
};

cublasStatus_t problem_of(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc_,
                          cublasLtMatrixLayout_t a_, cublasLtMatrixLayout_t b_,
                          cublasLtMatrixLayout_t c_, cublasLtMatrixLayout_t d_, problem *p)
{
    const layout *a = inside<layout>(a_, LAYOUT), *b = inside<layout>(b_, LAYOUT),
                 *c = inside<layout>(c_, LAYOUT), *d = inside<layout>(d_, LAYOUT);
    const desc *how = inside<desc>(desc_, DESC);

    if (handle == nullptr || handle->magic != HANDLE)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (a == nullptr || b == nullptr || c == nullptr || d == nullptr || how == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    *p = {*a, *b, *d, *how, d->rows, d->cols, how->op[0] == CUBLAS_OP_N ? a->cols : a->rows};
    const bool fits = (how->op[0] == CUBLAS_OP_N ? a->rows : a->cols) == p->m &&
                      (how->op[1] == CUBLAS_OP_N ? b->cols : b->rows) == p->n &&
                      (how->op[1] == CUBLAS_OP_N ? b->rows : b->cols) == p->k;
    if (!fits || c->rows != d->rows || c->cols != d->cols || c->ld != d->ld || c->type != d->type)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a->type != b->type || (d->type != CUDA_R_32F && d->type != a->type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

uint64_t hash_of(const problem &p)
{
    const uint64_t list[] = {p.a.rows,
                             p.a.cols,
                             (uint64_t)p.a.ld,
                             (uint64_t)p.a.type,
                             p.b.rows,
                             p.b.cols,
                             (uint64_t)p.b.ld,
                             p.c.rows,
                             p.c.cols,
                             (uint64_t)p.c.ld,
                             (uint64_t)p.c.type,
                             (uint64_t)p.how.op[0],
                             (uint64_t)p.how.op[1],
                             (uint64_t)p.how.epilogue};
    uint64_t h = 14695981039346656037ull;

    for (uint64_t v : list)
        h = (h ^ v) * 0x9e3779b97f4a7c15ull, h ^= h >> 29;
    return h;
}

/* ---- the product -------------------------------------------------------------------------------- */

/* out row j, column i += sum over k of q[j][k] p[i / WIDE][k][i % WIDE]. */
enum { WIDE = 32, HIGH = 4, PIECE = 256, BLOCK_I = 512, BLOCK_J = 128 };
typedef float vec __attribute__((vector_size(64), aligned(4)));

template <int high>
inline __attribute__((always_inline)) void tile(float *sum, size_t ld, const float *q, size_t ldq,
                                                const float *p, uint64_t k)
{
    vec acc[high][2] = {};

    for (uint64_t i = 0; i < k; i++) {
        const vec a = *reinterpret_cast<const vec *>(p + i * WIDE),
                  b = *reinterpret_cast<const vec *>(p + i * WIDE + 16);
#pragma GCC unroll 4
        for (int j = 0; j < high; j++) {
            acc[j][0] += q[(size_t)j * ldq + i] * a;
            acc[j][1] += q[(size_t)j * ldq + i] * b;
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < high; j++) {
        vec *to = reinterpret_cast<vec *>(sum + (size_t)j * ld);
        to[0] += acc[j][0];
        to[1] += acc[j][1];
    }
}

inline __attribute__((always_inline)) void block(float *sum, const float *q, uint64_t rows,
                                                 const float *p, uint64_t panels, uint64_t k)
{
    for (uint64_t from = 0; from < k; from += PIECE) {
        const uint64_t n = std::min<uint64_t>(PIECE, k - from);
        for (uint64_t w = 0; w < panels; w++) {
            const float *panel = p + (w * k + from) * WIDE;
            uint64_t j = 0;
            for (; j + HIGH <= rows; j += HIGH)
                tile<HIGH>(sum + j * BLOCK_I + w * WIDE, BLOCK_I, q + j * k + from, k, panel, n);
            for (; j < rows; j++)
                tile<1>(sum + j * BLOCK_I + w * WIDE, BLOCK_I, q + j * k + from, k, panel, n);
        }
    }
}

using block_function = void (*)(float *, const float *, uint64_t, const float *, uint64_t,
                                uint64_t);

void block_plain(float *sum, const float *q, uint64_t rows, const float *p, uint64_t panels,
                 uint64_t k)
{
    block(sum, q, rows, p, panels, k);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void block_avx2(float *sum, const float *q, uint64_t rows,
                                                const float *p, uint64_t panels, uint64_t k)
{
    block(sum, q, rows, p, panels, k);
}

__attribute__((target("avx512f,prefer-vector-width=512"))) void block_avx512(
    float *sum, const float *q, uint64_t rows, const float *p, uint64_t panels, uint64_t k)
{
    block(sum, q, rows, p, panels, k);
}
#endif

block_function block_best()
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return block_avx512;
    if (__builtin_cpu_supports("avx2"))
        return block_avx2;
#endif
    return block_plain;
}

float value(const void *p, int type, size_t i)
{
    if (type == CUDA_R_32F)
        return static_cast<const float *>(p)[i];
    if (type == CUDA_R_16BF)
        return mb_to_f32(static_cast<const mb_bf16 *>(p)[i]);
    return mb_to_f32(static_cast<const mb_f16 *>(p)[i]);
}

void value_put(void *p, int type, size_t i, float v)
{
    if (type == CUDA_R_32F)
        static_cast<float *>(p)[i] = v;
    else if (type == CUDA_R_16BF)
        static_cast<mb_bf16 *>(p)[i] = mb_from_f32<mb_bf16>(v);
    else
        static_cast<mb_f16 *>(p)[i] = mb_from_f32<mb_f16>(v);
}

/* to[x * to_x + y * to_y] = from(x0 + x, y0 + y) of a matrix whose x varies fastest in memory. */
template <typename T>
void gather(float *to, size_t to_x, size_t to_y, const T *from, int64_t ld, uint64_t x0,
            uint64_t nx, uint64_t y0, uint64_t ny)
{
    for (uint64_t y = 0; y < ny; y++)
        for (uint64_t x = 0; x < nx; x++)
            to[x * to_x + y * to_y] = mb_to_f32(from[(int64_t)(y0 + y) * ld + (int64_t)(x0 + x)]);
}

void gather_any(float *to, size_t to_x, size_t to_y, const void *from, const layout &l, uint64_t x0,
                uint64_t nx, uint64_t y0, uint64_t ny)
{
    if (l.type == CUDA_R_32F)
        gather(to, to_x, to_y, static_cast<const float *>(from), l.ld, x0, nx, y0, ny);
    else if (l.type == CUDA_R_16BF)
        gather(to, to_x, to_y, static_cast<const mb_bf16 *>(from), l.ld, x0, nx, y0, ny);
    else
        gather(to, to_x, to_y, static_cast<const mb_f16 *>(from), l.ld, x0, nx, y0, ny);
}

void multiply(const problem &p, float alpha, const void *a, const void *b, float beta,
              const void *c, void *d)
{
    static std::vector<float> left, right, sum;
    static const block_function run = block_best();

    sum.resize(BLOCK_I * BLOCK_J);
    for (uint64_t j0 = 0; j0 < p.n; j0 += BLOCK_J) {
        const uint64_t nj = std::min<uint64_t>(BLOCK_J, p.n - j0);
        right.resize(nj * p.k); /* [j][k] */
        if (p.how.op[1] == CUBLAS_OP_N)
            gather_any(right.data(), 1, p.k, b, p.b, 0, p.k, j0, nj);
        else
            gather_any(right.data(), p.k, 1, b, p.b, j0, nj, 0, p.k);
        for (uint64_t i0 = 0; i0 < p.m; i0 += BLOCK_I) {
            const uint64_t ni = std::min<uint64_t>(BLOCK_I, p.m - i0),
                           panels = (ni + WIDE - 1) / WIDE;
            left.assign(panels * WIDE * p.k, 0.0f); /* [panel][k][WIDE] */
            for (uint64_t w = 0; w < panels; w++) {
                const uint64_t i = i0 + w * WIDE, n = std::min<uint64_t>(WIDE, p.m - i);
                float *to = left.data() + w * WIDE * p.k;
                if (p.how.op[0] == CUBLAS_OP_N)
                    gather_any(to, 1, WIDE, a, p.a, i, n, 0, p.k);
                else
                    gather_any(to, WIDE, 1, a, p.a, 0, p.k, i, n);
            }
            std::fill(sum.begin(), sum.end(), 0.0f);
            run(sum.data(), right.data(), nj, left.data(), panels, p.k);
            for (uint64_t j = 0; j < nj; j++)
                for (uint64_t i = 0; i < ni; i++) {
                    const size_t at = (size_t)(j0 + j) * (size_t)p.c.ld + i0 + i;
                    float v = alpha * sum[j * BLOCK_I + i];
                    if (beta != 0.0f)
                        v += beta * value(c, p.c.type, at);
                    if (p.how.epilogue == CUBLASLT_EPILOGUE_BIAS)
                        v += value(p.how.bias, p.c.type, i0 + i);
                    value_put(d, p.c.type, at, v);
                }
        }
    }
}

bool aligned(const void *p, uint64_t to)
{
    return (uintptr_t)p % to == 0;
}

void in_device(const void *p, const layout &l, const char *what)
{
    const size_t bytes = ((size_t)(l.cols - 1) * (size_t)l.ld + l.rows) * size_of(l.type);

    if (!emu_is_device(p, bytes, what))
        mb_emu_fail("%s: %p is no device memory", what, p);
}

} // namespace

/* ---- the library ---------------------------------------------------------------------------------- */

const char *cublasLtGetStatusString(cublasStatus_t s)
{
    switch (s) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "<unknown>";
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    if (handle == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    *handle = new cublasLtContext{HANDLE};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    if (handle == nullptr || handle->magic != HANDLE)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->magic = 0;
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t l, cudaDataType_t type,
                                        uint64_t rows, uint64_t cols, int64_t ld)
{
    if (l == nullptr || !is_type(type) || rows == 0 || cols == 0 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(l, 0, sizeof *l);
    *reinterpret_cast<layout *>(l) = {LAYOUT, rows, cols, ld, type};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t d, cublasComputeType_t compute,
                                      cudaDataType_t scale)
{
    if (d == nullptr || compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(d, 0, sizeof *d);
    *reinterpret_cast<desc *>(d) = {
        DESC, {CUBLAS_OP_N, CUBLAS_OP_N}, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void *value_, size_t size)
{
    desc *d = inside<desc>(opaque, DESC);
    int32_t v = 0;

    if (d == nullptr || value_ == nullptr ||
        size != (what == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof(void *) : sizeof v))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (what != CUBLASLT_MATMUL_DESC_BIAS_POINTER)
        memcpy(&v, value_, sizeof v);
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
    case CUBLASLT_MATMUL_DESC_TRANSB:
        if (v != CUBLAS_OP_N && v != CUBLAS_OP_T)
            return CUBLAS_STATUS_INVALID_VALUE;
        d->op[what == CUBLASLT_MATMUL_DESC_TRANSB] = v;
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        if (v != CUBLASLT_EPILOGUE_DEFAULT && v != CUBLASLT_EPILOGUE_BIAS)
            return CUBLAS_STATUS_INVALID_VALUE;
        d->epilogue = v;
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        memcpy(&d->bias, value_, sizeof d->bias);
        return CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t p)
{
    if (p == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(p, 0, sizeof *p);
    *reinterpret_cast<preference *>(p) = {PREFERENCE, 0, 7, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value_, size_t size)
{
    preference *p = inside<preference>(opaque, PREFERENCE);
    uint32_t v = 0;

    if (p == nullptr || value_ == nullptr ||
        size != (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8u : 4u))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (size == 4)
        memcpy(&v, value_, sizeof v);
    switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        memcpy(&p->workspace, value_, sizeof p->workspace);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        if (v != CUBLASLT_REDUCTION_SCHEME_NONE && v != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
            return CUBLAS_STATUS_INVALID_VALUE;
        p->reduction = v;
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        if (v == 0 || (v & (v - 1)) != 0)
            return CUBLAS_STATUS_INVALID_VALUE;
        p->align[what - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = v;
        return CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc_,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference_, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    const preference *like = inside<preference>(preference_, PREFERENCE);
    problem p;

    if (found != nullptr)
        *found = 0;
    const cublasStatus_t s = problem_of(handle, desc_, a, b, c, d, &p);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    if (like == nullptr || results == nullptr || found == nullptr || wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (like->reduction == 7)
        mb_emu_fail("cublasLt: without a mask of reduction schemes, sums may have any order");
    const uint64_t hash = hash_of(p);
    algorithm x = {ALGORITHM, hash, 0, {}};
    for (int i = 0; i < 4; i++) {
        const size_t element = size_of(i < 2 ? p.a.type : p.c.type);
        if (like->align[i] < element)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        x.align[i] = like->align[i];
    }
    /* Every other shape wants room for one partial sum per output, if it may have it. */
    if (hash % 2 == 0 && like->reduction == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        x.workspace = std::min<uint64_t>(like->workspace, 4 * p.m * p.n);
    memset(results, 0, sizeof *results);
    memcpy(&results->algo, &x, sizeof x);
    results->workspaceSize = x.workspace;
    results->state = CUBLAS_STATUS_SUCCESS;
    results->wavesCount = 1;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc_,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    problem p;
    algorithm x;
    float by, old;

    const cublasStatus_t s = problem_of(handle, desc_, a_layout, b_layout, c_layout, d_layout, &p);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    if (alpha == nullptr || beta == nullptr || algo == nullptr || c != d)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&by, alpha, sizeof by);
    memcpy(&old, beta, sizeof old);
    memcpy(&x, algo, sizeof x);
    if (x.magic != ALGORITHM || x.shape != hash_of(p))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!aligned(a, x.align[0]) || !aligned(b, x.align[1]) || !aligned(c, x.align[2]) ||
        !aligned(d, x.align[3]))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace_bytes < x.workspace || (x.workspace > 0 && workspace == nullptr) ||
        !aligned(workspace, 256))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p.how.epilogue == CUBLASLT_EPILOGUE_BIAS) {
        if (p.how.bias == nullptr || !aligned(p.how.bias, 16))
            return CUBLAS_STATUS_INVALID_VALUE;
        in_device(p.how.bias, {LAYOUT, p.m, 1, (int64_t)p.m, p.c.type}, "cublasLtMatmul: bias");
    }
    in_device(a, p.a, "cublasLtMatmul: A");
    in_device(b, p.b, "cublasLtMatmul: B");
    in_device(d, p.c, "cublasLtMatmul: D");
    if (workspace_bytes > 0 &&
        !emu_is_device(workspace, workspace_bytes, "cublasLtMatmul: workspace"))
        return CUBLAS_STATUS_INVALID_VALUE;
    const uint64_t spoil = x.workspace;
    const cudaError_t e = emu_queue(stream, "cublasLtMatmul", [=] {
        emu_fill(workspace, spoil & ~(uint64_t)1, POISON);
        multiply(p, by, a, b, old, c, d);
    });
    return e == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}
