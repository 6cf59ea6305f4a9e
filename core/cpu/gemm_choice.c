/* core/cpu/gemm_choice.c - chooses who multiplies f32 and checks providers (core/cpu/gemm.h).
 *
 * Some builds of OpenBLAS give wrong products or meet an illegal instruction on processors newer
 * than they are. So a provider, before it is used, multiplies small odd matrices in all four
 * orientations, with the signals of a crash caught, and is compared with plain loops in double precision.
 */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/gemm.h"
#include "core/cpu/gemm_panels.h"
#include "core/cpu/gemm_tiles.h"
#include "core/cpu/init.h"
#include "core/log.h"

enum { MAX_M = MB_GEMM_TALL_ROWS, MAX_N = 100, MAX_K = 768, N_PROVIDERS = 3 };

typedef struct candidate {
    const mb_gemm_provider *provider;
    bool checked;
    bool works;      /* right on small products */
    bool rows_exact; /* a row's bits do not depend on where it stands in a tile */
    bool rows_step;  /* ... nor on how many multiples of MB_GEMM_ROW_STEP rows the tile has */
    char text[96];   /* what describe() says */
} candidate;

static void describe_own(char *text, size_t bytes)
{
    snprintf(text, bytes, "own %s", mb_cpu_gemm_words(MB_DTYPE_F32, false)->name);
}

static const mb_gemm_provider own = {.name = "own", .describe = describe_own};

/* What was found and chosen: written by mb_cpu_gemm_init, _use and _available only, before kernels run. */
static struct {
    candidate all[N_PROVIDERS];
    const candidate *used;
} choice = {
    .all = {{.provider = &own}, {.provider = &mb_gemm_onednn}, {.provider = &mb_gemm_openblas}}};

typedef struct buffers {
    float a[MAX_M * MAX_K], b[MAX_N * MAX_K], c[MAX_M * MAX_N], c0[MAX_M * MAX_N];
} buffers;

static sigjmp_buf crashed;

static void on_crash(int signal_number)
{
    siglongjmp(crashed, signal_number);
}

/* Numbers in [-1, 1) that look random. */
static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
}

static bool product_is_right(const mb_gemm_provider *p, buffers *f, int m, int n, int k, int ops)
{
    const bool ta = ops & 1, tb = ops & 2;
    const int lda = (ta ? m : k) + 1, ldb = (tb ? k : n) + 2, ldc = n + 3;
    const float alpha = 1.25f, beta = ops == 3 ? 0.0f : 0.5f;

    fill(f->a, (size_t)(ta ? k : m) * lda, 1u + (uint32_t)ops);
    fill(f->b, (size_t)(tb ? n : k) * ldb, 7u);
    fill(f->c0, (size_t)m * ldc, 9u);
    memcpy(f->c, f->c0, (size_t)m * ldc * sizeof *f->c);
    p->sgemm(ta, tb, m, n, k, alpha, f->a, lda, f->b, ldb, beta, f->c, ldc);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double sum = 0;

            for (int l = 0; l < k; l++)
                sum += (double)f->a[ta ? l * lda + i : i * lda + l] *
                       f->b[tb ? j * ldb + l : l * ldb + j];
            sum = sum * alpha + (double)beta * f->c0[i * ldc + j];
            if (!(fabs(f->c[i * ldc + j] - sum) < 1e-6 * (k + 10)))
                return false;
        }
        for (int j = n; j < ldc; j++) /* what lies between rows is not ours */
            if (f->c[i * ldc + j] != f->c0[i * ldc + j])
                return false;
    }
    return true;
}

static bool products_are_right(const mb_gemm_provider *p, buffers *f)
{
    static const int shapes[][3] = {{1, 1, 1},    {3, 5, 7},   {16, 33, 20}, {48, 17, 65},
                                    {65, 40, 31}, {7, 90, 96}, {95, 66, 129}};

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int ops = 0; ops < 4; ops++)
            if (!product_is_right(p, f, shapes[s][0], shapes[s][1], shapes[s][2], ops))
                return false;
    return true;
}

/* Many copies of one row must give many copies of one result; the first row is left in c0. */
static bool rows_are_equal(const mb_gemm_provider *p, buffers *f, int m, int n, int k, bool tb)
{
    fill(f->a, (size_t)k, 3u);
    for (int i = 1; i < m; i++)
        memcpy(f->a + (size_t)i * k, f->a, (size_t)k * sizeof *f->a);
    fill(f->b, (size_t)n * k, 5u);
    p->sgemm(false, tb, m, n, k, 1.0f, f->a, k, f->b, tb ? k : n, 0.0f, f->c, n);
    for (int i = 1; i < m; i++)
        if (memcmp(f->c, f->c + (size_t)i * n, (size_t)n * sizeof *f->c) != 0)
            return false;
    return true;
}

static void look_at_rows(candidate *cand, buffers *f)
{
    static const int ns[] = {16, 37, MAX_N}, ks[] = {33, 300, MAX_K};

    cand->rows_exact = cand->rows_step = true;
    for (int i = 0; i < 3 * 3 * 2; i++) {
        const int n = ns[i % 3], k = ks[i / 3 % 3];
        const bool tb = i >= 9;

        for (int m = MAX_M; m > 0; m -= MB_GEMM_ROW_STEP) {
            const bool equal = rows_are_equal(cand->provider, f, m, n, k, tb);

            if (m == MAX_M) {
                cand->rows_exact = cand->rows_exact && equal;
                memcpy(f->c0, f->c, (size_t)n * sizeof *f->c);
            }
            cand->rows_step =
                cand->rows_step && equal && memcmp(f->c0, f->c, (size_t)n * sizeof *f->c) == 0;
        }
    }
}

/* The check itself, crashes caught. Volatile: it survives the jump. */
static const char *try_provider(candidate *cand, buffers *f)
{
    const char *volatile verdict = NULL;
    const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction old[4], catch = {.sa_handler = on_crash};

    sigemptyset(&catch.sa_mask);
    for (int i = 0; i < 4; i++)
        sigaction(signals[i], &catch, &old[i]);
    if (sigsetjmp(crashed, 1) == 0) {
        cand->provider->start();
        if (products_are_right(cand->provider, f))
            look_at_rows(cand, f);
        else
            verdict = "gives wrong products on this processor";
    } else {
        verdict = "crashes on this processor";
    }
    for (int i = 0; i < 4; i++)
        sigaction(signals[i], &old[i], NULL);
    return verdict;
}

/* Once, in one thread. Our own products need none: they are this program's code. */
static mb_status check(candidate *cand)
{
    const int threads = omp_get_max_threads();
    const char *verdict = NULL;
    buffers *f;

    if (cand->checked)
        return MB_OK;
    if (cand->provider->sgemm == NULL) {
        cand->rows_exact = cand->rows_step = true;
    } else {
        MB_TRY(mb_alloc(sizeof *f, "the check of matrix products", (void **)&f));
        omp_set_num_threads(1);
        verdict = try_provider(cand, f);
        omp_set_num_threads(threads);
        mb_free(f);
    }
    cand->checked = true;
    cand->works = verdict == NULL;
    cand->provider->describe(cand->text, sizeof cand->text);
    if (verdict != NULL)
        mb_log_warn("matrix products: %s %s; it is not used", cand->text, verdict);
    return MB_OK;
}

static candidate *find(const char *name)
{
    for (int i = 0; i < N_PROVIDERS; i++)
        if (strcmp(choice.all[i].provider->name, name) == 0)
            return &choice.all[i];
    return NULL;
}

/* The rule of core/cpu/gemm.h. */
static const char *preferred(void)
{
    return (mb_cpu_features() & MB_CPU_AVX2) != 0 ? "onednn" : "openblas";
}

mb_status mb_cpu_gemm_use(const char *name)
{
    candidate *cand = find(name);

    MB_REQUIRE(cand != NULL, MB_EARG,
               "there is no provider of matrix products called \"%s\": own, openblas or onednn",
               name);
    MB_TRY(check(cand));
    MB_REQUIRE(cand->works, MB_ENOTSUP,
               "%s does not multiply rightly on this processor and cannot be used", cand->text);
    choice.used = cand;
    return MB_OK;
}

mb_status mb_cpu_gemm_init(void)
{
    const char *forced = getenv("MBUYU_GEMM");

    if (forced != NULL && *forced != '\0') {
        MB_REQUIRE(find(forced) != NULL, MB_EARG,
                   "MBUYU_GEMM is \"%s\"; it can be own, openblas or onednn", forced);
        MB_TRY(mb_cpu_gemm_use(forced));
    } else {
        mb_status st = mb_cpu_gemm_use(preferred());

        if (st == MB_ENOTSUP) { /* a warning has said it */
            mb_status_clear();
            st = mb_cpu_gemm_use("own");
        }
        MB_TRY(st);
    }
    if (!choice.used->rows_exact)
        mb_log_warn("matrix products: with %s a row's last bits depend on its place, so packed and "
                    "unpacked rows agree to rounding only",
                    choice.used->text);
    return MB_OK;
}

bool mb_cpu_gemm_available(const char *name)
{
    candidate *cand = find(name);

    if (cand == NULL || check(cand) != MB_OK) {
        mb_status_clear();
        return false;
    }
    return cand->works;
}

const char *mb_cpu_gemm_provider(void)
{
    return choice.used != NULL ? choice.used->text : "none";
}

bool mb_cpu_gemm_rows_exact(void)
{
    return choice.used != NULL && choice.used->rows_exact;
}

int64_t mb_gemm_row_step(void)
{
    return choice.used != NULL && choice.used->rows_step ? MB_GEMM_ROW_STEP : MB_GEMM_TILE_ROWS;
}

bool mb_cpu_gemm_is_own(void)
{
    return choice.used != NULL && choice.used->provider->sgemm == NULL;
}

size_t mb_cpu_gemm_library_bytes(int threads)
{
    const size_t words = (MB_GEMM_TALL_ROWS + MB_GEMM_TILE_COLS) * (size_t)MB_GEMM_TILE_K;

    return mb_cpu_gemm_is_own() ? 0 : (size_t)threads * words * sizeof(float);
}

mb_sgemm_fn *mb_cpu_sgemm(void)
{
    return choice.used != NULL ? choice.used->provider->sgemm : NULL;
}

void mb_cpu_one_thread(void)
{
    omp_set_num_threads(1);
}
