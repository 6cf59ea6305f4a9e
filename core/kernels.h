/* core/kernels.h - what a kernel is called with, and the table a device provides.
 *
 *     MB_TRY(MB_RUN(ex, rmsnorm_fwd, y, rstd, x, w, eps));
 *
 * mb_exec says where and with what: the device's table, workspace, threads. An empty slot is an
 * error that names device and kernel. On the planning device (core/plan/plan.h) MB_RUN only notes
 * how much workspace the target device would take.
 */
#ifndef MB_CORE_KERNELS_H
#define MB_CORE_KERNELS_H

#include "core/arena.h"
#include "core/tensor.h"

enum { MB_GRAIN = 4096 }; /* elements: unit of norms, shard boundaries, blockwise state */

typedef struct mb_kernels mb_kernels;
struct mb_device; /* core/device.h */

typedef struct mb_exec {
    const mb_kernels *kernels;
    struct mb_device *device; /* where tensors live; NULL: host memory */
    mb_arena *scratch;        /* workspace of kernels; may be a counting arena when planning */
    void *workspace;          /* what MB_RUN took for the kernel now running */
    int threads;              /* how many a kernel may use; never changes a result */
    bool rows_alike;          /* rows of products have the same bits however many there are (CPU) */
    bool planning;            /* nothing is computed, data pointers are not addresses */
    void *stream;             /* the device's handle of its compute stream; NULL on CPUs */
    struct mb_profile *profile; /* where time is noted (core/profile.h); NULL: nowhere */
} mb_exec;

typedef enum mb_activation {
    MB_ACT_SILU,
    MB_ACT_GELU,
    MB_ACT_GELU_TANH,
    MB_ACT_RELU,
    MB_ACT_TANH,
    MB_ACT_COUNT
} mb_activation;

/* l(x, y) of row_loss: SIGMOID  -y log f(x) - (1 - y) log(1 - f(x)), f(x) = 1/(1 + e^-x)
 *                     SQUARED  (x - y)^2 */
typedef enum mb_row_loss { MB_ROW_LOSS_SIGMOID, MB_ROW_LOSS_SQUARED } mb_row_loss;

/* out of contrast, of anchor i with candidate p, c = cosine / temperature (van den Oord et al. 2018,
 * arXiv:1807.03748; the score: Reimers & Gurevych 2019, arXiv:1908.10084):
 *     ONE_WAY    log softmax(c[i, all candidates])[p]
 *     SYMMETRIC  half of that, and half of log softmax(c[all anchors, p])[i]
 *     SCORE      -(cosine[i, p] - score[i])^2
 * and 0 for a vector that is no anchor. A vector of length below 1e-12 counts as that long. */
typedef enum mb_contrast_kind {
    MB_CONTRAST_ONE_WAY,
    MB_CONTRAST_SYMMETRIC,
    MB_CONTRAST_SCORE
} mb_contrast_kind;

/* Keys and values of earlier tokens in blocks of MB_KV_PAGE tokens. Block b of k is (kv_heads, head_dim,
 * MB_KV_PAGE), of v (kv_heads, MB_KV_PAGE, head_dim rounded up to 16), f32. */
enum { MB_KV_PAGE = 64 };

typedef struct mb_kv_pages {
    float *k, *v;
    const int32_t
        *table; /* (n_seq, columns): the block of keys [MB_KV_PAGE j, MB_KV_PAGE (j + 1)) */
    int64_t columns;
} mb_kv_pages;

/* Sequences of queries and of keys, one after the other in their tensors or with gaps (a cache).
 * Query i of sequence s sits at position k_len[s] - q_len[s] + i of its keys. */
typedef struct mb_attention {
    int64_t heads, kv_heads, head_dim; /* head h reads kv head h / (heads / kv_heads) */
    float scale;                       /* usually 1/sqrt(head_dim) */
    bool causal;
    int64_t window; /* 0: none; else only keys with q_pos - k_pos < window, and,
                                        * when not causal, k_pos - q_pos < window */
    float softcap;  /* 0: none; else cap*tanh(s/cap) */
    /* f32 (heads, 2 max_len - 1), added to scaled scores before the cap: column k_pos - q_pos +
     * max_len - 1. NULL: none. */
    const float *bias;
    int64_t n_seq;
    const int32_t *q_start, *q_len, *k_start, *k_len; /* n_seq each */
    /* NULL, or where keys and values lie: k and v of the call are those of the queries' own tokens,
     * which are put there before; k_start is not read, k_len counts them. Bits of a query depend on
     * its keys alone, not on q_len. */
    const mb_kv_pages *pages;
    int64_t max_len; /* bound on any q_len and k_len: sizes workspace */
    float dropout;   /* probability; of (query, key, head) */
    uint64_t seed, site;
    uint32_t step;
    const int32_t *ordinal; /* (Tq): sample ordinal per query row, for dropout */
} mb_attention;

typedef struct mb_dropout {
    float p;
    uint64_t seed, site;
    uint32_t step;
    const int32_t *ordinal, *position; /* (R): per row */
} mb_dropout;

/* Windows of `kernel` rows every `stride` rows, the first beginning `pad` before the first row. Row i of
 * the input belongs to sequence i / in_len, row i of the output to sequence i / out_len; either may end
 * within a sequence. */
typedef struct mb_unfold {
    int64_t in_len, out_len, kernel, stride, pad;
} mb_unfold;

/* torch.optim.AdamW: m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 * p -= lr*wd*p; p -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps); g is grad * grad_scale. */
typedef struct mb_adamw {
    double lr, beta1, beta2, eps, weight_decay; /* 1 - beta is not that of a rounded beta */
    double correction1, correction2;            /* 1 - beta^t */
    float grad_scale;
    uint64_t key; /* adamw_bf16: of the rounding, with step and the place of the first element */
    int64_t step, place; /* in an order that nothing changes */
} mb_adamw;

struct mb_kernels {
    const char *device;
#define MB_KERNEL(name, params, args) mb_status(*name) params;
#define MB_KERNEL_WS(name, params, args) \
    mb_status(*name) params;             \
    size_t(*name##_workspace) params;
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
};

mb_status mb_kernel_missing(const mb_exec *ex, const char *kernel) MB_MUST_USE;

/* For each kernel, `mb_run_<name>`: takes workspace, calls the slot, gives workspace back. */
#define MB_KERNEL(name, params, args)            \
    static inline mb_status mb_run_##name params \
    {                                            \
        if (ex->kernels->name == NULL)           \
            return mb_kernel_missing(ex, #name); \
        return ex->kernels->name args;           \
    }
#define MB_KERNEL_WS(name, params, args)                                                        \
    static inline mb_status mb_run_##name params                                                \
    {                                                                                           \
        if (ex->kernels->name == NULL || ex->kernels->name##_workspace == NULL)                 \
            return mb_kernel_missing(ex, #name);                                                \
        const size_t mark = mb_arena_used(ex->scratch);                                         \
        MB_TRY(mb_arena_take(ex->scratch, ex->kernels->name##_workspace args, &ex->workspace)); \
        const mb_status st = ex->kernels->name args;                                            \
        mb_arena_rewind(ex->scratch, mark);                                                     \
        return st;                                                                              \
    }
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS

#define MB_RUN(ex, name, ...) mb_run_##name((ex), __VA_ARGS__)

#endif
