/* tests/emu/test_emu.cc - the emulator's own tests.
 *
 * Right programs give right numbers for every seed; of the wrong ones each must be found: either the
 * process ends with a sentence, or some seed of twenty gives wrong numbers.
 */
#include <cublasLt.h>
#include <functional>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "core/cuda/dev.h"

namespace {

enum { SEEDS = 20 };
int passed, failed;
cudaStream_t stream, other;

#define OK(call)                                                                          \
    do {                                                                                  \
        const cudaError_t e_ = (call);                                                    \
        if (e_ != cudaSuccess) {                                                          \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_)); \
            exit(3);                                                                      \
        }                                                                                 \
    } while (0)
#define LAUNCH(kernel, grid, block, smem, ...) \
    OK(mb_emu_launch(#kernel, stream, (grid), (block), (smem), kernel, __VA_ARGS__))

void verdict(bool good, const char *name, const char *more)
{
    if (good)
        passed++;
    else
        failed++;
    printf("%-4s %s%s%s\n", good ? "ok" : "FAIL", name, more[0] != 0 ? ": " : "", more);
}

/* A program that must give true for every seed. */
void right(const char *name, const std::function<bool()> &program)
{
    char more[64] = "";
    int wrong = 0;

    for (int s = 0; s < SEEDS; s++) {
        mb_emu_seed((uint64_t)s);
        if (!program()) {
            wrong++;
            snprintf(more, sizeof more, "wrong numbers with seed %d", s);
        }
    }
    verdict(wrong == 0, name, more);
}

/* Runs the program in a child; what it wrote to stderr, and whether it ended by SIGABRT. */
bool child(uint64_t seed, const std::function<bool()> &program, std::string *text, int *code)
{
    int ends[2], status;

    text->clear();
    fflush(stdout);
    if (pipe(ends) != 0)
        exit(3);
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        mb_emu_seed(seed);
        _exit(program() ? 0 : 1);
    }
    close(ends[1]);
    char buffer[512];
    ssize_t n;
    while ((n = read(ends[0], buffer, sizeof buffer)) > 0)
        text->append(buffer, (size_t)n);
    close(ends[0]);
    waitpid(pid, &status, 0);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/* A sanitizer that finds a fault first is welcome. */
bool by_sanitizer(bool aborted, const std::string &text)
{
    return !aborted && (text.find("runtime error: ") != std::string::npos ||
                        text.find("AddressSanitizer: ") != std::string::npos);
}

/* A program that the emulator must end with a sentence that holds `says`, for every seed. */
void ended(const char *name, const char *says, const std::function<bool()> &program)
{
    std::string text;
    int code;

    for (int s = 0; s < 5; s++)
        if (!by_sanitizer(child((uint64_t)s, program, &text, &code), text) &&
            (code != -1 || text.find(says) == std::string::npos ||
             text.find("MBUYU_EMU_SEED=") == std::string::npos)) {
            printf("  expected \"%s\", got \"%s\" (%d)\n", says, text.c_str(), code);
            verdict(false, name, "is not found");
            return;
        }
    const size_t from = text.find(": ");
    text = text.substr(from + 2, text.find('\n', from) - from - 2);
    verdict(true, name, text.c_str());
}

/* A program with a fault that some seed must show: wrong numbers, or an end with a sentence. */
void found(const char *name, const std::function<bool()> &program)
{
    char more[64];
    std::string text;
    int shown = 0, code;

    for (int s = 0; s < SEEDS; s++)
        shown += child((uint64_t)s, program, &text, &code) || code == 1;
    snprintf(more, sizeof more, "found by %d of %d seeds", shown, (int)SEEDS);
    verdict(shown >= SEEDS / 4, name, more);
}

/* ---- device memory for a test ------------------------------------------------------------------ */

template <typename T> struct array {
    T *at = nullptr;
    size_t n;

    explicit array(size_t count) : n(count)
    {
        OK(cudaMalloc(reinterpret_cast<void **>(&at), n * sizeof(T)));
    }
    explicit array(const std::vector<T> &v) : array(v.size())
    {
        OK(cudaMemcpyAsync(at, v.data(), n * sizeof(T), cudaMemcpyHostToDevice, stream));
    }
    array(const array &) = delete;
    ~array()
    {
        cudaFree(at);
    }
    std::vector<T> host() const
    {
        std::vector<T> v(n);
        OK(cudaMemcpyAsync(v.data(), at, n * sizeof(T), cudaMemcpyDeviceToHost, stream));
        return v;
    }
};

uint32_t random_state = 12345;
float random_float()
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(int32_t)random_state * 0x1p-31f;
}

std::vector<float> numbers(size_t n)
{
    std::vector<float> v(n);
    for (float &x : v)
        x = random_float();
    return v;
}

template <typename T> std::vector<T> halves(size_t n)
{
    std::vector<T> v(n);
    for (T &x : v)
        x = mb_from_f32<T>(random_float());
    return v;
}

bool is(const std::vector<float> &v, const std::function<float(size_t)> &want, float bound = 0)
{
    for (size_t i = 0; i < v.size(); i++)
        if (!(fabsf(v[i] - want(i)) <= bound))
            return false;
    return true;
}

/* ---- 16-bit floats ------------------------------------------------------------------------------ */

float f16_value(uint16_t u)
{
    const int exponent = u >> 10 & 31, rest = u & 1023;
    const float sign = u & 0x8000 ? -1.0f : 1.0f;

    if (exponent == 31)
        return rest != 0 ? NAN : sign * INFINITY;
    return sign *
           (exponent == 0 ? ldexpf((float)rest, -24) : ldexpf((float)(rest + 1024), exponent - 25));
}

template <typename T> bool nearest_even(float f)
{
    const T h = mb_from_f32<T>(f);
    T up = h, down = h;

    up.u++;
    down.u--;
    const double here = fabs((double)mb_to_f32(h) - f);
    for (T x : {up, down}) {
        const float v = mb_to_f32(x);
        if ((x.u ^ h.u) & 0x8000 || !isfinite(v)) /* over zero, or the end of the range */
            continue;
        const double there = fabs((double)v - f);
        if (there < here || (there == here && (h.u & 1) != 0))
            return false;
    }
    return true;
}

template <typename T> bool conversions()
{
    for (uint32_t u = 0; u < 65536; u++) {
        const T h = {(uint16_t)u};
        const float f = mb_to_f32(h);
        const T back = mb_from_f32<T>(f);
        if (isnan(f) ? !isnan(mb_to_f32(back)) : back.u != u)
            return false;
        if (std::is_same<T, mb_f16>::value &&
            !(f == f16_value((uint16_t)u) || (isnan(f) && isnan(f16_value((uint16_t)u)))))
            return false;
        if (!isfinite(f))
            continue;
        const float next = nextafterf(f, INFINITY);
        T up = h;
        up.u++;
        const float middle = (f + mb_to_f32(up)) / 2;
        for (float x : {next, middle, nextafterf(middle, 0.0f), nextafterf(middle, INFINITY)})
            if (isfinite(middle) && !nearest_even<T>(x))
                return false;
    }
    return isinf(mb_to_f32(mb_from_f32<mb_f16>(65520.0f))) &&
           mb_to_f32(mb_from_f32<mb_f16>(65519.0f)) == 65504.0f &&
           isinf(mb_to_f32(mb_from_f32<mb_bf16>(3.4e38f)));
}

/* ---- kernels ------------------------------------------------------------------------------------- */

MB_GLOBAL void twice(float *y, const float *x, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = 2 * x[i];
}

/* y = rows of x in reverse, by way of shared memory; `wait`: with the barrier. */
template <bool wait> MB_GLOBAL void MB_BOUNDS(256) turn(float *y, const float *x)
{
    MB_SHARED(float, row, 256);
    const unsigned i = threadIdx.x;
    row[i] = x[blockIdx.x * blockDim.x + i];
    if (wait)
        __syncthreads();
    y[blockIdx.x * blockDim.x + i] = row[blockDim.x - 1 - i];
}

MB_GLOBAL void sums(float *y, const float *x, int64_t cols)
{
    MB_SHARED(float, part, 32);
    MB_SMEM(float, mean);
    float s = 0;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
        s += x[blockIdx.x * cols + c];
    s = mb_block_sum(s, part);
    const float most = mb_block_max((float)threadIdx.x, part);
    if (threadIdx.x == 0)
        mean[0] = s / (float)cols;
    __syncthreads();
    if (threadIdx.x == 33)
        y[blockIdx.x] = mean[0] + most;
}

MB_GLOBAL void shuffles(float *y, int wrong)
{
    const int l = mb_lane();
    const float a = mb_shfl_xor((float)l, 5), b = mb_shfl((float)l, 7),
                c = mb_shfl_up((float)l, 3 + wrong);
    const double d = mb_shfl((double)l, 31 - l);
    const uint32_t odd = mb_ballot(l % 3 == 0);
    mb_syncwarp();
    y[threadIdx.x] = a + 100 * b + 10000 * c + (float)d + (float)(odd >> l & 1);
}

float shuffled(size_t i)
{
    const int l = (int)i & 31;
    return (float)(l ^ 5) + 700 + 10000.0f * (float)(l >= 3 ? l - 3 : l) + (float)(31 - l) +
           (l % 3 == 0);
}

/* Lanes pass values through shared memory; `wait`: with mb_syncwarp. */
template <bool wait> MB_GLOBAL void neighbours(float *y)
{
    MB_SHARED(float, cell, 64);
    cell[threadIdx.x] = (float)threadIdx.x;
    if (wait)
        mb_syncwarp();
    y[threadIdx.x] = cell[threadIdx.x ^ 1];
}

/* y = the sum over tiles of x, each brought by mb_cp_async while the one before is added. */
template <bool wait, bool barrier> MB_GLOBAL void pipeline(float *y, const float *x, int tiles)
{
    MB_SHARED(float, buffer, 2 * 256);
    const int t = (int)threadIdx.x; /* 64 threads, 16 bytes each */
    float s[4] = {0, 0, 0, 0};

    mb_cp_async(buffer + 4 * t, x + 4 * t, true);
    mb_cp_commit();
    for (int i = 0; i < tiles; i++) {
        mb_cp_async(buffer + (i + 1) % 2 * 256 + 4 * t, x + (i + 1) * 256 + 4 * t, i + 1 < tiles);
        mb_cp_commit();
        if (wait)
            mb_cp_wait<1>();
        if (barrier)
            __syncthreads();
        for (int k = 0; k < 4; k++)
            s[k] += buffer[i % 2 * 256 + (4 * t + k + 128) % 256];
        __syncthreads();
    }
    for (int k = 0; k < 4; k++)
        y[4 * t + k] = s[k];
}

/* c = a b for a(16,16), b(16,8) in rows; bt is b transposed. Both ways of loading b. */
template <typename T> MB_GLOBAL void product(float *c, const T *a, const T *b, const T *bt)
{
    MB_SHARED(T, sa, 16 * 16);
    MB_SHARED(T, sb, 16 * 8);
    MB_SHARED(T, sbt, 8 * 16);
    const int l = mb_lane();
    uint32_t fa[4], fb[4], fbt[4];
    float acc[4] = {0, 0, 0, 0}, again[4] = {0, 0, 0, 0};

    for (int i = l; i < 256; i += 32)
        sa[i] = a[i];
    for (int i = l; i < 128; i += 32) {
        sb[i] = b[i];
        sbt[i] = bt[i];
    }
    mb_syncwarp();
    /* a: matrices (rows 0-7, cols 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15) */
    mb_ldmatrix<false>(fa, sa + (l % 16) * 16 + l / 16 * 8);
    mb_ldmatrix<true>(fb, sb + l % 16 * 8);                    /* from (k, n), turned */
    mb_ldmatrix<false>(fbt, sbt + l % 8 * 16 + l / 8 % 2 * 8); /* from (n, k) */
    mb_mma<T>(acc, fa, fb[0], fb[1]);
    mb_mma<T>(again, fa, fbt[0], fbt[1]);
    mb_mma<T>(again, fa, fbt[0], fbt[1]);
    for (int i = 0; i < 4; i++) {
        const int row = l / 4 + i / 2 * 8, col = l % 4 * 2 + i % 2;
        c[row * 8 + col] = acc[i];
        c[128 + row * 8 + col] = again[i];
    }
}

template <typename T> bool mma_is_right()
{
    const std::vector<T> a = halves<T>(256), b = halves<T>(128);
    std::vector<T> bt(128);
    std::vector<double> want(128);

    for (int k = 0; k < 16; k++)
        for (int n = 0; n < 8; n++)
            bt[(size_t)(n * 16 + k)] = b[(size_t)(k * 8 + n)];
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++)
            for (int k = 0; k < 16; k++)
                want[(size_t)(m * 8 + n)] +=
                    (double)mb_to_f32(a[(size_t)(m * 16 + k)]) * mb_to_f32(b[(size_t)(k * 8 + n)]);
    array<T> da(a), db(b), dbt(bt);
    array<float> c(256);
    LAUNCH(product<T>, 1, 32, 0, c.at, da.at, db.at, dbt.at);
    return is(
        c.host(), [&](size_t i) { return (float)want[i % 128] * (i < 128 ? 1.0f : 2.0f); }, 3e-6f);
}

/* ---- faults in kernels ---------------------------------------------------------------------------- */

MB_GLOBAL void some_return(float *y)
{
    if (threadIdx.x >= 40)
        return;
    __syncthreads();
    y[threadIdx.x] = 1;
}

MB_GLOBAL void two_barriers(float *y)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1;
}

MB_GLOBAL void half_a_warp(float *y)
{
    float v = 1;
    if (mb_lane() < 16)
        v = mb_shfl_xor(v, 1);
    y[threadIdx.x] = v;
}

MB_GLOBAL void two_shuffles(float *y)
{
    float v = 1;
    if (mb_lane() < 16)
        v = mb_shfl_xor(v, 1);
    else
        v = mb_shfl(v, 0);
    y[threadIdx.x] = v;
}

MB_GLOBAL void barrier_or_shuffle(float *y)
{
    if (mb_lane() == 3)
        __syncthreads();
    else
        y[threadIdx.x] = mb_shfl(1.0f, 0);
}

MB_GLOBAL void write_at(float *y, int64_t i)
{
    if (threadIdx.x == 5)
        y[i] = 1;
}

MB_GLOBAL void read_at(float *y, const float *x, int64_t i)
{
    y[threadIdx.x] = x[i];
}

MB_GLOBAL void shared_write_at(float *y, int i)
{
    MB_SHARED(float, first, 32);
    MB_SHARED(float, second, 40);
    first[threadIdx.x] = 1;
    __syncthreads();
    second[threadIdx.x] = 2;
    if (threadIdx.x == 0)
        first[i] = 3;
    __syncthreads();
    y[threadIdx.x] = first[threadIdx.x] + second[threadIdx.x];
}

MB_GLOBAL void smem_write_at(float *y, int i)
{
    MB_SMEM(float, s);
    s[threadIdx.x] = 1;
    if (threadIdx.x == 0)
        s[i] = 3;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

MB_GLOBAL void shared_unwritten(float *y)
{
    MB_SHARED(float, part, 32);
    if (threadIdx.x < 31)
        part[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = part[threadIdx.x];
}

MB_GLOBAL void vector_at(float *y, const float *x, int i)
{
    float v[4];
    mb_load(v, x + i);
    mb_store(y + 4 * threadIdx.x, v);
}

MB_GLOBAL void deep(float *y, int n)
{
    volatile float big[4096];
    for (int i = 0; i < 4096; i++)
        big[i] = (float)i;
    if (n > 0)
        deep(y, n - 1);
    y[threadIdx.x] = big[n];
}

struct holder {
    int64_t n;
    const float *x;
};
MB_GLOBAL void held(float *y, holder h)
{
    y[threadIdx.x] = h.x[0];
}

/* ---- programs -------------------------------------------------------------------------------------- */

bool run_twice()
{
    const std::vector<float> x = numbers(10000);
    array<float> dx(x), y(x.size());
    LAUNCH(twice, 40, 256, 0, y.at, dx.at, 10000);
    return is(y.host(), [&](size_t i) { return 2 * x[i]; });
}

template <bool wait> bool run_turn()
{
    const std::vector<float> x = numbers(4 * 256);
    array<float> dx(x), y(x.size());
    LAUNCH(turn<wait>, 4, 256, 0, y.at, dx.at);
    return is(y.host(), [&](size_t i) { return x[i / 256 * 256 + 255 - i % 256]; });
}

template <bool wait, bool barrier> bool run_pipeline()
{
    const std::vector<float> x = numbers(8 * 256);
    array<float> dx(x), y(256);
    LAUNCH((pipeline<wait, barrier>), 1, 64, 0, y.at, dx.at, 8);
    return is(
        y.host(),
        [&](size_t i) {
            float s = 0;
            for (size_t t = 0; t < 8; t++)
                s += x[t * 256 + (i + 128) % 256];
            return s;
        },
        1e-6f);
}

/* x is doubled on `stream` and again on `other`; `edge`: with the event between. */
bool two_streams(bool edge)
{
    const std::vector<float> x = numbers(64);
    array<float> dx(x), y(64), z(64);
    cudaEvent_t e;

    OK(cudaDeviceSynchronize());
    OK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    LAUNCH(twice, 1, 64, 0, y.at, dx.at, 64);
    OK(cudaEventRecord(e, stream));
    if (edge)
        OK(cudaStreamWaitEvent(other, e, 0));
    OK(mb_emu_launch("twice", other, 1, 64, 0, twice, z.at, y.at, 64));
    OK(cudaStreamSynchronize(other));
    OK(cudaEventDestroy(e));
    return is(z.host(), [&](size_t i) { return 4 * x[i]; });
}

/* The host writes into pinned memory while a copy from it is queued; `wait`: after it is done. */
bool pinned_source(bool wait)
{
    float *from;
    array<float> y(16);

    OK(cudaMallocHost(reinterpret_cast<void **>(&from), 64));
    for (int i = 0; i < 16; i++)
        from[i] = 1;
    OK(cudaMemcpyAsync(y.at, from, 64, cudaMemcpyHostToDevice, stream));
    if (wait)
        OK(cudaStreamSynchronize(stream));
    for (int i = 0; i < 16; i++)
        from[i] = 2;
    const bool good = is(y.host(), [](size_t) { return 1.0f; });
    OK(cudaFreeHost(from));
    return good;
}

/* The host reads pinned memory that a copy goes to; `wait`: after it is done. */
bool pinned_target(bool wait)
{
    float *to;
    const std::vector<float> x(16, 3.0f);
    array<float> dx(x);

    OK(cudaMallocHost(reinterpret_cast<void **>(&to), 64));
    OK(cudaMemcpyAsync(to, dx.at, 64, cudaMemcpyDefault, stream));
    if (wait)
        OK(cudaStreamSynchronize(stream));
    const bool good = is(std::vector<float>(to, to + 16), [](size_t) { return 3.0f; });
    OK(cudaFreeHost(to));
    return good;
}

bool pageable_source()
{
    std::vector<float> x(16, 3.0f);
    array<float> dx(x);
    for (float &v : x)
        v = 4;
    return is(dx.host(), [](size_t) { return 3.0f; });
}

/* A graph of two streams, launched three times; `join`: the second joins the first again. */
bool graphs(bool join)
{
    const std::vector<float> x = numbers(64);
    array<float> dx(x), y(64), z(64);
    cudaEvent_t fork, joined;
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    OK(cudaDeviceSynchronize());
    OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    OK(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    LAUNCH(twice, 1, 64, 0, y.at, dx.at, 64);
    OK(cudaEventRecord(fork, stream));
    OK(cudaStreamWaitEvent(other, fork, 0));
    OK(mb_emu_launch("twice", other, 1, 64, 0, twice, z.at, y.at, 64));
    OK(cudaEventRecord(joined, other));
    if (join)
        OK(cudaStreamWaitEvent(stream, joined, 0));
    LAUNCH(twice, 1, 64, 0, dx.at, z.at, 64);
    if (cudaStreamSynchronize(stream) != cudaErrorStreamCaptureUnsupported)
        return false;
    const cudaError_t e = cudaStreamEndCapture(stream, &graph);
    if (!join)
        return e == cudaErrorStreamCaptureUnjoined;
    OK(e);
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    for (int i = 0; i < 3; i++)
        OK(cudaGraphLaunch(exec, stream));
    const bool good = is(dx.host(), [&](size_t i) { return 512 * x[i]; });
    OK(cudaGraphExecDestroy(exec));
    OK(cudaEventDestroy(fork));
    OK(cudaEventDestroy(joined));
    return good;
}

/* A collective that is done when asked for the third time; one that is never done. */
struct waiting {
    int left;
    float *y;
};
bool later(void *arg)
{
    waiting *w = static_cast<waiting *>(arg);
    if (--w->left > 0)
        return false;
    w->y[0] = 7;
    return true;
}
bool collectives()
{
    array<float> y(1), z(1);
    waiting w = {3, y.at}, never = {1 << 30, z.at};

    OK(cudaMemsetAsync(y.at, 0, 4, other));
    OK(mb_emu_enqueue(other, "later", later, &w));
    OK(cudaStreamSynchronize(stream)); /* helps the collective of the other stream */
    if (w.left != 0)
        return false;
    OK(mb_emu_enqueue(other, "never", later, &never));
    if (cudaStreamQuery(other) != cudaErrorNotReady)
        return false;
    OK(cudaStreamSynchronize(stream)); /* does not wait for it for ever */
    never.left = 1;
    OK(cudaStreamSynchronize(other));
    return y.host()[0] == 7;
}

/* ---- cuBLASLt ------------------------------------------------------------------------------------ */

struct gemm {
    cublasLtHandle_t handle;
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a, b, c;
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;

    template <typename V> cublasStatus_t set(cublasLtMatmulDescAttributes_t what, V v)
    {
        return cublasLtMatmulDescSetAttribute(&desc, what, &v, sizeof v);
    }
    template <typename V> cublasStatus_t prefer(cublasLtMatmulPreferenceAttributes_t what, V v)
    {
        return cublasLtMatmulPreferenceSetAttribute(&preference, what, &v, sizeof v);
    }
    gemm(cudaDataType_t in, cudaDataType_t out, int m, int n, int k, bool ta, bool tb, int pad)
    {
        cublasLtCreate(&handle);
        cublasLtMatmulDescInit(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        set(CUBLASLT_MATMUL_DESC_TRANSA, (int32_t)(ta ? CUBLAS_OP_T : CUBLAS_OP_N));
        set(CUBLASLT_MATMUL_DESC_TRANSB, (int32_t)(tb ? CUBLAS_OP_T : CUBLAS_OP_N));
        layout(&a, in, ta ? k : m, ta ? m : k, pad);
        layout(&b, in, tb ? n : k, tb ? k : n, pad);
        layout(&c, out, m, n, pad);
        cublasLtMatmulPreferenceInit(&preference);
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (uint64_t)1 << 20);
        prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
               (uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    }
    ~gemm()
    {
        cublasLtDestroy(handle);
    }
    static void layout(cublasLtMatrixLayoutOpaque_t *l, cudaDataType_t t, int rows, int cols,
                       int pad)
    {
        cublasLtMatrixLayoutInit(l, t, (uint64_t)rows, (uint64_t)cols, rows + pad);
    }
    cublasStatus_t choose()
    {
        return cublasLtMatmulAlgoGetHeuristic(handle, &desc, &a, &b, &c, &c, &preference, 1,
                                              &result, &found);
    }
    cublasStatus_t run(float alpha, const void *pa, const void *pb, float beta, void *pc,
                       void *work)
    {
        return cublasLtMatmul(handle, &desc, &alpha, pa, &a, pb, &b, &beta, pc, &c, pc, &c,
                              &result.algo, work, 1 << 20, stream);
    }
};

template <typename T>
bool products(cudaDataType_t type, int m, int n, int k, bool ta, bool tb, int pad, bool bias)
{
    const auto at = [&](bool t, int row, int col, int rows, int cols) {
        return (size_t)(t ? row * (cols + pad) + col : col * (rows + pad) + row);
    };
    const size_t size = (size_t)((m + n + k + pad) * (m + n + k + pad));
    const std::vector<T> a = halves<T>(size), b = halves<T>(size), c = halves<T>(size);
    const std::vector<T> v = halves<T>((size_t)m);
    array<T> da(a), db(b), dc(c), dv(v);
    array<float> work(1 << 18);
    gemm g(type, type, m, n, k, ta, tb, pad);

    if (bias) {
        g.set(CUBLASLT_MATMUL_DESC_EPILOGUE, (int32_t)CUBLASLT_EPILOGUE_BIAS);
        g.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, (const void *)dv.at);
    }
    if (g.choose() != CUBLAS_STATUS_SUCCESS || g.found != 1 ||
        g.run(0.5f, da.at, db.at, bias ? 0.0f : 2.0f, dc.at, work.at) != CUBLAS_STATUS_SUCCESS)
        return false;
    const std::vector<T> d = dc.host();
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double s = 0;
            for (int l = 0; l < k; l++)
                s += (double)mb_to_f32(a[at(ta, i, l, m, k)]) * mb_to_f32(b[at(tb, l, j, k, n)]);
            const size_t here = at(false, i, j, m, n);
            s = 0.5 * s + (bias ? mb_to_f32(v[(size_t)i]) : 2.0 * mb_to_f32(c[here]));
            const double unit = sizeof(T) == 4                   ? 1e-5
                                : std::is_same<T, mb_f16>::value ? 1e-3
                                                                 : 8e-3;
            if (!(fabs(mb_to_f32(d[here]) - s) <= unit * (1 + fabs(s))))
                return false;
        }
    return true;
}

bool refusals()
{
    gemm g(CUDA_R_16BF, CUDA_R_16BF, 32, 32, 32, false, false, 0);
    array<mb_bf16> a(4096), b(4096), c(4096);
    array<float> work(1 << 18);
    cublasLtMatrixLayoutOpaque_t l;
    int n = 0;

    n += g.choose() == CUBLAS_STATUS_SUCCESS; /* aligned to 256, by default */
    n += g.run(1, a.at + 1, b.at, 0, c.at, work.at) == CUBLAS_STATUS_INVALID_VALUE;
    n += g.run(1, a.at, b.at, 0, c.at, work.at + 1) == CUBLAS_STATUS_INVALID_VALUE;
    n += cublasLtMatrixLayoutInit(&l, CUDA_R_16BF, 32, 32, 31) == CUBLAS_STATUS_INVALID_VALUE;
    n += g.set(CUBLASLT_MATMUL_DESC_EPILOGUE, (int32_t)2) == CUBLAS_STATUS_INVALID_VALUE;
    n += g.set(CUBLASLT_MATMUL_DESC_TRANSA, (int64_t)0) == CUBLAS_STATUS_INVALID_VALUE;
    n += g.set((cublasLtMatmulDescAttributes_t)25, (int32_t)0) == CUBLAS_STATUS_INVALID_VALUE;
    n += g.prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (uint32_t)1) ==
         CUBLAS_STATUS_INVALID_VALUE;
    g.layout(&g.a, CUDA_R_16BF, 32, 31, 0);
    n += g.choose() == CUBLAS_STATUS_INVALID_VALUE;
    g.layout(&g.a, CUDA_R_16BF, 32, 32, 2); /* not what the algorithm was chosen for */
    n += g.run(1, a.at, b.at, 0, c.at, work.at) == CUBLAS_STATUS_INVALID_VALUE;
    g.layout(&g.a, CUDA_R_16F, 32, 32, 0);
    n += g.choose() == CUBLAS_STATUS_NOT_SUPPORTED;
    OK(cudaDeviceSynchronize());
    return n == 11;
}

void right_programs()
{
    verdict(conversions<mb_f16>(), "f16 to f32 and back", "");
    verdict(conversions<mb_bf16>(), "bf16 to f32 and back", "");
    right("a kernel without barriers", run_twice);
    right("shared memory and a barrier", run_turn<true>);
    right("sums over blocks", [] {
        const std::vector<float> x(3 * 1000, 0.5f);
        array<float> dx(x), y(3);
        LAUNCH(sums, 3, 128, 4, y.at, dx.at, 1000);
        return is(y.host(), [](size_t) { return 127.5f; });
    });
    right("shuffles and votes", [] {
        array<float> y(64);
        LAUNCH(shuffles, 1, 64, 0, y.at, 0);
        return is(y.host(), shuffled);
    });
    right("lanes that wait for each other", [] {
        array<float> y(64);
        LAUNCH(neighbours<true>, 1, 64, 0, y.at);
        return is(y.host(), [](size_t i) { return (float)(i ^ 1); });
    });
    right("asynchronous copies", run_pipeline<true, true>);
    right("mma and ldmatrix, bf16", mma_is_right<mb_bf16>);
    right("mma and ldmatrix, f16", mma_is_right<mb_f16>);
    right("an edge between streams", [] { return two_streams(true); });
    right("a copy from pinned memory", [] { return pinned_source(true); });
    right("a copy to pinned memory", [] { return pinned_target(true); });
    right("a copy from other memory", pageable_source);
    right("a graph of two streams", [] { return graphs(true); });
    right("collectives", collectives);
    right("products, f32", [] {
        return products<float>(CUDA_R_32F, 37, 45, 300, false, true, 3, false) &&
               products<float>(CUDA_R_32F, 64, 32, 17, true, false, 0, true);
    });
    right("products, bf16",
          [] { return products<mb_bf16>(CUDA_R_16BF, 70, 5, 33, true, true, 1, false); });
    right("products, f16",
          [] { return products<mb_f16>(CUDA_R_16F, 9, 40, 16, false, false, 0, true); });
    right("what cuBLASLt refuses", refusals);
    right("memory ends", [] {
        void *p, *q, *r;
        const bool none = cudaMalloc(&p, (size_t)5 << 30) == cudaErrorMemoryAllocation;
        OK(cudaMalloc(&p, (size_t)3 << 30));
        OK(cudaMalloc(&q, (size_t)1 << 30));
        const bool full = cudaMalloc(&r, 1) == cudaErrorMemoryAllocation;
        OK(cudaFree(p));
        OK(cudaMalloc(&r, 1000));
        OK(cudaFree(q));
        OK(cudaFree(r));
        return none && full;
    });
}

void faults()
{
    found("a removed __syncthreads", run_turn<false>);
    found("a removed mb_syncwarp", [] {
        array<float> y(64);
        LAUNCH(neighbours<false>, 1, 64, 0, y.at);
        return is(y.host(), [](size_t i) { return (float)(i ^ 1); });
    });
    found("a removed mb_cp_wait", run_pipeline<false, true>);
    found("a removed barrier after mb_cp_wait", run_pipeline<true, false>);
    found("a removed edge between streams", [] { return two_streams(false); });
    found("pinned memory written too early", [] { return pinned_source(false); });
    found("pinned memory read too early", [] { return pinned_target(false); });
    found("a wrong lane in a shuffle", [] {
        array<float> y(64);
        LAUNCH(shuffles, 1, 64, 0, y.at, 1);
        return is(y.host(), shuffled);
    });
    found("device memory that was not written", [] {
        array<float> x(64), y(64);
        LAUNCH(twice, 1, 64, 0, y.at, x.at, 64);
        return is(
            y.host(), [](size_t) { return 0.0f; }, 1e30f);
    });
    found("shared memory that was not written", [] {
        array<float> y(32);
        LAUNCH(shared_unwritten, 1, 32, 0, y.at);
        return is(y.host(), [](size_t) { return 1.0f; });
    });
    right("a graph that is not joined", [] {
        std::string text;
        int code;
        return !child(
                   1, [] { return graphs(false); }, &text, &code) &&
               code == 0;
    });

    array<float> y(100), x(100);
    const auto launch = [&](auto kernel, const char *name, int block) {
        OK(mb_emu_launch(name, stream, 1, block, 0, kernel, y.at));
        OK(cudaStreamSynchronize(stream));
        return true;
    };
    ended("a barrier that some never reach", "divergent __syncthreads",
          [&] { return launch(some_return, "some_return", 64); });
    ended("two barriers", "divergent __syncthreads",
          [&] { return launch(two_barriers, "two_barriers", 64); });
    ended("a shuffle of half a warp", "divergent warp function",
          [&] { return launch(half_a_warp, "half_a_warp", 32); });
    ended("two shuffles", "divergent warp function",
          [&] { return launch(two_shuffles, "two_shuffles", 32); });
    ended("a barrier in a lane, a shuffle in the others", "divergent",
          [&] { return launch(barrier_or_shuffle, "barrier_or_shuffle", 32); });
    const auto write = [&](int64_t i) {
        LAUNCH(write_at, 1, 32, 0, y.at, i);
        OK(cudaStreamSynchronize(stream));
        return true;
    };
    ended("a write behind an allocation", "written at byte 0 after the end",
          [&] { return write(100); });
    ended("a write before an allocation", "written 4 bytes before", [&] { return write(-1); });
    ended("a write far behind", "bytes after the end of an allocation of 400 bytes",
          [&] { return write(5000); });
    ended("a read far behind", "access to device memory", [&] {
        LAUNCH(read_at, 1, 32, 0, y.at, x.at, 10000);
        OK(cudaStreamSynchronize(stream));
        return true;
    });
    found("a read behind an allocation", [&] {
        LAUNCH(read_at, 1, 32, 0, y.at, x.at, 100);
        return is(
            y.host(), [](size_t i) { return i < 32 ? 0.0f : NAN; }, 1e30f);
    });
    const auto shared = [&](int i) {
        LAUNCH(shared_write_at, 1, 32, 0, y.at, i);
        OK(cudaStreamSynchronize(stream));
        return true;
    };
    ended("a write behind a shared array", "offset 128 of first", [&] { return shared(32); });
    ended("a write before a shared array", "offset -4 of first", [&] { return shared(-1); });
    ended("a write behind the launch's shared memory", "offset 128 of the launch's", [&] {
        LAUNCH(smem_write_at, 1, 32, 128, y.at, 32);
        OK(cudaStreamSynchronize(stream));
        return true;
    });
    ended("a vector that is not aligned", "aligned", [&] {
        LAUNCH(vector_at, 1, 32, 0, y.at, x.at, 1);
        OK(cudaStreamSynchronize(stream));
        return true;
    });
    ended("a stack that overflows", "stack overflows", [&] {
        LAUNCH(deep, 1, 32, 0, y.at, 100);
        OK(cudaStreamSynchronize(stream));
        return true;
    });
    ended("the host reads device memory", "host access to device memory",
          [&] { return *const_cast<volatile float *>(y.at) != 1; });
    ended("the host writes device memory", "12 bytes into an allocation of 400 bytes", [&] {
        const_cast<volatile float *>(y.at)[3] = 1;
        return true;
    });
    ended("a host function reads device memory", "cudaLaunchHostFunc: access to device memory",
          [&] {
              OK(cudaLaunchHostFunc(
                  stream, [](void *p) { *static_cast<volatile float *>(p) = 1; }, y.at));
              OK(cudaStreamSynchronize(stream));
              return true;
          });
    ended("a kernel gets host memory", "is no device memory", [&] {
        float here[32];
        LAUNCH(twice, 1, 32, 0, y.at, here, 32);
        return true;
    });
    ended("a kernel gets host memory in a structure", "which is host memory", [&] {
        float here[32];
        LAUNCH(held, 1, 32, 0, y.at, (holder{1, here}));
        return true;
    });
    ended("memory used after it was freed", "access to device memory", [&] {
        float *p;
        OK(cudaMalloc(reinterpret_cast<void **>(&p), 64));
        OK(cudaFree(p));
        LAUNCH(twice, 1, 32, 0, y.at, p, 16);
        OK(cudaStreamSynchronize(stream));
        return true;
    });
    ended("memory freed twice", "freed before", [&] {
        OK(cudaFree(y.at));
        OK(cudaFree(y.at));
        return true;
    });
    ended("a copy over the end", "cudaMemcpyAsync: 404 bytes", [&] {
        std::vector<float> v(101);
        OK(cudaMemcpyAsync(y.at, v.data(), 404, cudaMemcpyDefault, stream));
        return true;
    });
    ended("a block that is not of whole warps", "no multiple of 32", [&] {
        LAUNCH(twice, 1, 48, 0, y.at, x.at, 16);
        return true;
    });
    ended("a workspace that is too short", "workspace", [&] {
        gemm g(CUDA_R_32F, CUDA_R_32F, 4, 4, 4, false, false, 0);
        return g.choose() == CUBLAS_STATUS_SUCCESS &&
               g.run(1, x.at, x.at, 0, y.at, y.at) == CUBLAS_STATUS_SUCCESS;
    });
}

} // namespace

int main(void)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    right_programs();
    faults();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
