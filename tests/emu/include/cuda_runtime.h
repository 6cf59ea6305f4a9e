/* tests/emu/include/cuda_runtime.h - what mbuyu uses of the CUDA runtime, and nothing else, on the
 * emulator. Meanings are those of CUDA's documentation; what is stricter is said in tests/emu/README.md.
 */
#ifndef MB_TESTS_EMU_CUDA_RUNTIME_H
#define MB_TESTS_EMU_CUDA_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUDART_VERSION 13000

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorECCUncorrectable = 214,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
    cudaErrorUnknown = 999
} cudaError_t;

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
typedef void (*cudaHostFn_t)(void *arg);

enum { cudaStreamNonBlocking = 1 };
enum { cudaEventDisableTiming = 2 };
enum { cudaHostAllocDefault = 0, cudaHostAllocPortable = 1 };

typedef enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
} cudaMemcpyKind;

typedef enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
} cudaStreamCaptureMode;

typedef struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    size_t sharedMemPerBlock;
    size_t sharedMemPerBlockOptin;
    size_t sharedMemPerMultiprocessor;
    int regsPerBlock;
    int warpSize;
    int maxThreadsPerBlock;
    int major, minor;
    int multiProcessorCount;
    int maxThreadsPerMultiProcessor;
    int l2CacheSize;
    int pciDomainID, pciBusID, pciDeviceID;
} cudaDeviceProp;

const char *cudaGetErrorName(cudaError_t e);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);

cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaDeviceSynchronize(void);

cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *arg);

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

/* ---- what only the emulator has ---------------------------------------------------------------- */

/* A collective queued on a stream: fn may touch device memory, does not block, and says whether it is
 * done; while it is not, it is called again, as long as somebody waits. `what` is copied. Whatever
 * waits for a stream or event also calls the collectives of other streams, in stream order and after
 * all they depend on, until they are done or nothing was for a while: so no rank has to wait for one
 * that waits elsewhere. */
cudaError_t mb_emu_enqueue(cudaStream_t stream, const char *what, bool (*fn)(void *arg), void *arg);
/* Starts the pseudo-random choices anew (MBUYU_EMU_SEED at first). */
void mb_emu_seed(uint64_t seed);
/* Operations that ran so far: for tests of what is queued. */
uint64_t mb_emu_operations(void);
/* Ends the process with a sentence; says where, when a kernel is running. */
void mb_emu_fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#ifdef __cplusplus
}

#include <tuple>
#include <type_traits>
#include <utility>

/* A kernel's name and where it is launched. */
struct mb_emu_site {
    const char *kernel, *file;
    int line;

    mb_emu_site(const char *k, const char *f = __builtin_FILE(), int l = __builtin_LINE())
        : kernel(k), file(f), line(l)
    {
    }
};

struct mb_emu_argument {
    const void *at;
    size_t bytes;
    char kind; /* 'n'umber, 'p'ointer, 's'truct */
};

struct mb_emu_launch_config {
    mb_emu_site site;
    int64_t grid;
    int block;
    size_t smem;
    void (*thread)(void *call);  /* runs the kernel once, as the current thread */
    void (*release)(void *call); /* when the launch is forgotten */
    void *call;
};

__attribute__((visibility("hidden"))) cudaError_t mb_emu_queue(cudaStream_t stream,
                                                               const mb_emu_launch_config &config,
                                                               int n, const mb_emu_argument *args);

template <typename... P> struct mb_emu_call {
    void (*kernel)(P...);
    std::tuple<P...> args;

    static void thread(void *self)
    {
        const mb_emu_call *c = static_cast<const mb_emu_call *>(self);
        std::apply(c->kernel, c->args);
    }

    static void release(void *self)
    {
        delete static_cast<mb_emu_call *>(self);
    }
};

/* Bytes between the members of a struct may hold what was there before, an address of the host even. */
template <typename P> void mb_emu_clear_padding(P &p)
{
    if constexpr (std::is_class<P>::value)
        __builtin_clear_padding(&p);
}

/* kernel<<<grid, block, smem, stream>>>(args...) */
template <typename... P, typename... A>
cudaError_t mb_emu_launch(mb_emu_site site, cudaStream_t stream, int64_t grid, int block,
                          size_t smem, void (*kernel)(P...), A... args)
{
    static_assert(sizeof...(P) == sizeof...(A), "a kernel takes as many arguments as it is given");
    static_assert((std::is_trivially_copyable<P>::value && ...), "arguments are copied as bytes");
    static_assert((!std::is_reference<P>::value && ...), "arguments are values");
    static_assert((sizeof(P) + ... + 0) <= 4096, "at most 4 KiB of arguments");
    using call = mb_emu_call<P...>;

    if (grid == 0)
        return cudaSuccess;
    call *c = new call{kernel, std::tuple<P...>(static_cast<P>(args)...)};
    return std::apply(
        [&](P &...p) {
            (mb_emu_clear_padding(p), ...);
            const mb_emu_argument list[] = {
                {&p, sizeof(P),
                 std::is_pointer<P>::value ? 'p' : (std::is_class<P>::value ? 's' : 'n')}...,
                {nullptr, 0, 'n'}};
            return mb_emu_queue(stream, {site, grid, block, smem, &call::thread, &call::release, c},
                                (int)sizeof...(P), list);
        },
        c->args);
}
#endif

#endif
