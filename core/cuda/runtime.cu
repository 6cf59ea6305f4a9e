/* core/cuda/runtime.cu - the CUDA device of core/device.h: memory, streams, graphs, what went wrong.
 *
 * Three streams that order nothing among themselves or with the default stream; collectives have
 * priority. An edge between two of them is an event, and `after` is the only function that makes
 * one. Nothing here waits but `wait`, `alloc` and what closes.
 */
#include <stdio.h>
#include <string.h>

#include "core/cuda/cuda.h"

extern "C" {
#include "core/alloc.h"
}

#ifndef __CUDA_ARCH_LIST__
#define __CUDA_ARCH_LIST__ 0
#endif

namespace {

/* Events of one (consumer, producer) pair. An event could be recorded again as soon as its wait is
 * queued; several keep edges apart in a profiler and in the emulator. */
enum { RING = 8 };

struct edge {
    cudaEvent_t event[RING];
    unsigned next;
};

struct device : mb_cuda {
    edge edges[MB_STREAM_COUNT][MB_STREAM_COUNT];
};

device *of(mb_device *d)
{
    return static_cast<device *>(reinterpret_cast<mb_cuda *>(d));
}

cudaStream_t stream_of(mb_device *d, mb_stream s)
{
    return static_cast<cudaStream_t>(d->native[s]);
}

/* The GPU is a property of the calling thread, and any thread may come. */
mb_status enter(mb_device *d)
{
    MB_CUDA_TRY(cudaSetDevice(of(d)->ordinal));
    return MB_OK;
}

/* ---- finding a GPU -------------------------------------------------------------------------- */

/* 13000 is 13.0. */
void version_text(char *text, size_t size, int version)
{
    snprintf(text, size, "%d.%d", version / 1000, version % 1000 / 10);
}

struct versions {
    char driver[16], runtime[16];
};

versions versions_of()
{
    versions v;
    int driver = 0, runtime = 0;

    if (cudaDriverGetVersion(&driver) != cudaSuccess)
        driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess)
        runtime = 0;
    version_text(v.driver, sizeof v.driver, driver);
    version_text(v.runtime, sizeof v.runtime, runtime);
    return v;
}

mb_status count_gpus(int *count)
{
    const cudaError_t e = cudaGetDeviceCount(count);
    int driver = 0;

    if (e == cudaSuccess && *count > 0)
        return MB_OK;
    cudaGetLastError();
    const versions v = versions_of();
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return MB_RAISE(MB_ENOTSUP, "no NVIDIA driver was found on this machine");
    if (e == cudaErrorInsufficientDriver)
        return MB_RAISE(
            MB_ENOTSUP,
            "the NVIDIA driver is too old: it is for CUDA %s and the CUDA runtime here is "
            "%s",
            v.driver, v.runtime);
    if (e == cudaSuccess || e == cudaErrorNoDevice)
        return MB_RAISE(MB_ENOTSUP, "there is an NVIDIA driver (for CUDA %s) but no GPU", v.driver);
    return MB_RAISE(MB_ENOTSUP, "the NVIDIA driver (for CUDA %s) does not give a GPU: %s", v.driver,
                    cudaGetErrorString(e));
}

/* "7.5, 8.0, 9.0" out of 750, 800, 900. */
void built_for(char *text, size_t size)
{
    static const int built[] = {__CUDA_ARCH_LIST__};
    size_t n = 0;

    text[0] = '\0';
    for (const int arch : built)
        if (n < size)
            n += (size_t)snprintf(text + n, size - n, "%s%d.%d", n > 0 ? ", " : "", arch / 100,
                                  arch % 100 / 10);
}

constexpr uint32_t HELLO = 0x6d627579u;

/* Says that there is code for this GPU and that it runs. */
MB_GLOBAL void hello_kernel(uint32_t *out)
{
    if (threadIdx.x == 0)
        *out = HELLO;
}

mb_status say_hello(mb_device *d)
{
    void *there = nullptr;
    uint32_t here = 0;
    mb_exec ex = {};

    ex.stream = d->native[MB_STREAM_COMPUTE];
    MB_TRY(d->ops->alloc(d, sizeof here, "a first number", &there));
    mb_status st = [&]() -> mb_status {
        MB_LAUNCH(&ex, hello_kernel, 1, 32, 0, static_cast<uint32_t *>(there));
        MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, &here, there, sizeof here));
        return d->ops->wait(d, MB_STREAM_COMPUTE);
    }();
    d->ops->free(d, there, sizeof here);
    MB_TRY(st);
    MB_REQUIRE(here == HELLO, MB_ENOTSUP,
               "%s computes wrongly: a kernel that writes one number did not", d->name);
    return MB_OK;
}

/* ---- memory --------------------------------------------------------------------------------- */

mb_status gpu_memory(mb_device *d, int64_t *available, int64_t *total)
{
    size_t bytes_free = 0, bytes_total = 0;

    MB_TRY(enter(d));
    MB_CUDA_TRY(cudaMemGetInfo(&bytes_free, &bytes_total));
    *available = (int64_t)bytes_free;
    *total = (int64_t)bytes_total;
    return MB_OK;
}

mb_status gpu_zero(mb_device *d, mb_stream s, void *p, size_t bytes)
{
    MB_TRY(enter(d));
    if (bytes > 0)
        MB_CUDA_TRY(cudaMemsetAsync(p, 0, bytes, stream_of(d, s)));
    return MB_OK;
}

mb_status gpu_wait(mb_device *d, mb_stream s)
{
    MB_TRY(enter(d));
    const cudaError_t e = cudaStreamSynchronize(stream_of(d, s));
    if (e != cudaSuccess)
        return mb_cuda_failed(e, "work that was queued before", __FILE__, __LINE__);
    return MB_OK;
}

mb_status gpu_ready(mb_device *d, mb_stream s, bool *out)
{
    MB_TRY(enter(d));
    const cudaError_t e = cudaStreamQuery(stream_of(d, s));
    *out = e == cudaSuccess;
    if (e == cudaErrorNotReady)
        cudaGetLastError();
    else if (e != cudaSuccess)
        return mb_cuda_failed(e, "work that was queued before", __FILE__, __LINE__);
    return MB_OK;
}

void gpu_free(mb_device *d, void *p, size_t bytes)
{
    if (p != nullptr && cudaSetDevice(of(d)->ordinal) == cudaSuccess)
        cudaFree(p);
    cudaGetLastError();
}

mb_status gpu_alloc(mb_device *d, size_t bytes, const char *what, void **out)
{
    void *p = nullptr;

    MB_TRY(enter(d));
    const cudaError_t e = cudaMalloc(&p, bytes > 0 ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        int64_t available = 0, total = 0;

        cudaGetLastError();
        MB_TRY(gpu_memory(d, &available, &total));
        return MB_RAISE(MB_ENOMEM,
                        "not enough memory on %s for %s: %.1f MiB were asked for, %.1f MiB of %.1f "
                        "MiB are free",
                        d->name, what, (double)bytes / 1048576, (double)available / 1048576,
                        (double)total / 1048576);
    }
    MB_CUDA_TRY(e);
    mb_status st = gpu_zero(d, MB_STREAM_COMPUTE, p, bytes);
    if (st == MB_OK)
        st = gpu_wait(d, MB_STREAM_COMPUTE); /* the other streams may use it at once */
    if (st != MB_OK) {
        gpu_free(d, p, bytes);
        return st;
    }
    *out = p;
    return MB_OK;
}

mb_status gpu_alloc_host(mb_device *d, size_t bytes, const char *what, void **out)
{
    void *p = nullptr;

    MB_TRY(enter(d));
    const cudaError_t e = cudaMallocHost(&p, bytes > 0 ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return MB_RAISE(MB_ENOMEM, "not enough pinned host memory for %s: %.1f MiB were asked for",
                        what, (double)bytes / 1048576);
    }
    MB_CUDA_TRY(e);
    memset(p, 0, bytes);
    *out = p;
    return MB_OK;
}

void gpu_free_host(mb_device *d, void *p, size_t bytes)
{
    if (p != nullptr && cudaSetDevice(of(d)->ordinal) == cudaSuccess)
        cudaFreeHost(p);
    cudaGetLastError();
}

mb_status gpu_copy(mb_device *d, mb_stream s, void *to, const void *from, size_t bytes)
{
    MB_TRY(enter(d));
    if (bytes > 0)
        MB_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(d, s)));
    return MB_OK;
}

/* ---- streams -------------------------------------------------------------------------------- */

mb_status gpu_after(mb_device *d, mb_stream s, mb_stream first)
{
    if (s == first)
        return MB_OK;
    MB_TRY(enter(d));
    edge *e = &of(d)->edges[s][first];
    const cudaEvent_t event = e->event[e->next++ % RING];
    MB_CUDA_TRY(cudaEventRecord(event, stream_of(d, first)));
    MB_CUDA_TRY(cudaStreamWaitEvent(stream_of(d, s), event, 0));
    return MB_OK;
}

mb_status make_streams(mb_device *d)
{
    int least = 0, greatest = 0;

    MB_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    for (int s = 0; s < MB_STREAM_COUNT; s++) {
        cudaStream_t stream = nullptr;

        MB_CUDA_TRY(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                                 s == MB_STREAM_COMM ? greatest : least));
        d->native[s] = stream;
        for (int first = 0; first < MB_STREAM_COUNT; first++)
            for (int i = 0; i < RING && first != s; i++)
                MB_CUDA_TRY(cudaEventCreateWithFlags(&of(d)->edges[s][first].event[i],
                                                     cudaEventDisableTiming));
    }
    return MB_OK;
}

/* ---- graphs --------------------------------------------------------------------------------- */

mb_status gpu_graph_begin(mb_device *d)
{
    MB_TRY(enter(d));
    MB_CUDA_TRY(
        cudaStreamBeginCapture(stream_of(d, MB_STREAM_COMPUTE), cudaStreamCaptureModeThreadLocal));
    return MB_OK;
}

mb_status gpu_graph_end(mb_device *d, void **out)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;

    MB_TRY(enter(d));
    MB_CUDA_TRY(cudaStreamEndCapture(stream_of(d, MB_STREAM_COMPUTE), &graph));
    const cudaError_t e = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    MB_CUDA_TRY(e);
    *out = exec;
    return MB_OK;
}

mb_status gpu_graph_launch(mb_device *d, void *graph)
{
    MB_TRY(enter(d));
    MB_CUDA_TRY(
        cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(d, MB_STREAM_COMPUTE)));
    return MB_OK;
}

void gpu_graph_free(mb_device *d, void *graph)
{
    if (graph != nullptr && cudaSetDevice(of(d)->ordinal) == cudaSuccess)
        cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
    cudaGetLastError();
}

/* ---- the device ----------------------------------------------------------------------------- */

void gpu_close(mb_device *base)
{
    device *d = of(base);

    if (cudaSetDevice(d->ordinal) == cudaSuccess) {
        for (void *stream : base->native)
            if (stream != nullptr)
                cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
        mb_cuda_gemm_close(d);
        for (auto &consumer : d->edges)
            for (edge &e : consumer)
                for (cudaEvent_t event : e.event)
                    if (event != nullptr)
                        cudaEventDestroy(event);
        for (void *stream : base->native)
            if (stream != nullptr)
                cudaStreamDestroy(static_cast<cudaStream_t>(stream));
    }
    cudaGetLastError();
    mb_free(d);
}

const mb_device_ops ops = {.alloc = gpu_alloc,
                           .free = gpu_free,
                           .alloc_host = gpu_alloc_host,
                           .free_host = gpu_free_host,
                           .copy = gpu_copy,
                           .zero = gpu_zero,
                           .after = gpu_after,
                           .wait = gpu_wait,
                           .ready = gpu_ready,
                           .memory = gpu_memory,
                           .graph_begin = gpu_graph_begin,
                           .graph_end = gpu_graph_end,
                           .graph_launch = gpu_graph_launch,
                           .graph_free = gpu_graph_free,
                           .close = gpu_close};

void blas_text(char *text, size_t size)
{
    const int v = mb_cuda_gemm_version();

    snprintf(text, size, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
}

mb_status fill_in(device *d, int ordinal)
{
    mb_device *base = &d->base;
    cudaDeviceProp p;
    char blas[24];

    MB_CUDA_TRY(cudaSetDevice(ordinal));
    MB_CUDA_TRY(cudaGetDeviceProperties(&p, ordinal));
    d->ordinal = ordinal;
    d->major = p.major;
    d->minor = p.minor;
    d->multiprocessors = p.multiProcessorCount;
    d->shared_limit = p.sharedMemPerBlockOptin;
    base->ops = &ops;
    base->kernels = &mb_cuda_kernels;
    base->kind = MB_DEVICE_CUDA;
    base->has_bf16 = base->fast_bf16 = p.major >= 8;
    base->threads = 1;
    snprintf(base->name, sizeof base->name, "%.90s", p.name);
    blas_text(blas, sizeof blas);
    const versions v = versions_of();
    snprintf(base->class_, sizeof base->class_,
             "%.48s, sm_%d%d, driver %s, runtime %s, cuBLASLt %.16s", p.name, p.major, p.minor,
             v.driver, v.runtime, blas);
    MB_TRY(make_streams(base));
    MB_TRY(mb_cuda_gemm_open(d));
    return say_hello(base);
}

mb_status open_gpu(int ordinal, mb_device **out)
{
    device *d = nullptr;
    int count = 0;

    MB_TRY(count_gpus(&count));
    MB_REQUIRE(ordinal >= 0 && ordinal < count, MB_ENOTSUP,
               "process %d of this node has no GPU of its own: %d GPU%s can be seen here (counting "
               "from 0), and every process takes one",
               ordinal, count, count == 1 ? "" : "s");
    MB_TRY(MB_NEW(&d));
    d->ordinal = ordinal;
    const mb_status st = fill_in(d, ordinal);
    if (st != MB_OK) {
        gpu_close(&d->base);
        return st;
    }
    *out = &d->base;
    return MB_OK;
}

void probe(char *text, size_t size)
{
    cudaDeviceProp p;
    char blas[24];
    int count = 0;

    if (count_gpus(&count) != MB_OK) {
        snprintf(text, size, "%s", mb_status_sentence());
        mb_status_clear();
        return;
    }
    const versions v = versions_of();
    blas_text(blas, sizeof blas);
    const cudaError_t e = cudaGetDeviceProperties(&p, 0);
    if (e != cudaSuccess) {
        cudaGetLastError();
        snprintf(text, size, "%d GPUs, of which the first does not answer: %s", count,
                 cudaGetErrorString(e));
        return;
    }
    snprintf(text, size,
             "%d GPU%s, the first %s (compute capability %d.%d, %.1f GiB); CUDA driver %s, runtime "
             "%s, cuBLASLt %s",
             count, count == 1 ? "" : "s", p.name, p.major, p.minor,
             (double)p.totalGlobalMem / 1073741824, v.driver, v.runtime, blas);
}

} // namespace

/* What a caller wrote down of the call: the kernel of a launch, else the function's name. */
static void call_text(char *text, size_t size, const char *call)
{
    const char *paren = strchr(call, '(');
    const char *from = call;
    size_t n = strlen(call);

    if (paren != nullptr && strncmp(call, "cuda", 4) == 0) {
        n = (size_t)(paren - call);
    } else if (paren != nullptr) { /* mb_cuda_launch(kernel<T, 4>, ... */
        int depth = 0;

        from = paren + 1;
        for (n = 0; from[n] != '\0' && !(from[n] == ',' && depth == 0); n++)
            depth += (from[n] == '(' || from[n] == '<') - (from[n] == ')' || from[n] == '>');
    }
    snprintf(text, size, "%.*s", (int)(n < size ? n : size - 1), from);
}

mb_status mb_cuda_failed(cudaError_t e, const char *call, const char *file, int line)
{
    mb_status st = MB_EBUG;
    char text[80];

    cudaGetLastError(); /* forget it, where it can be forgotten */
    call_text(text, sizeof text, call);
    if (e == cudaErrorNoKernelImageForDevice) {
        char built[96];
        cudaDeviceProp p;
        int ordinal = 0;

        built_for(built, sizeof built);
        if (cudaGetDevice(&ordinal) == cudaSuccess &&
            cudaGetDeviceProperties(&p, ordinal) == cudaSuccess)
            return mb_raise(MB_ENOTSUP, file, line,
                            "%s has compute capability %d.%d; this mbuyu was built for %s", p.name,
                            p.major, p.minor, built);
    }
    if (e == cudaErrorMemoryAllocation)
        st = MB_ENOMEM;
    else if (e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver ||
             e == cudaErrorNoKernelImageForDevice || e == cudaErrorDevicesUnavailable)
        st = MB_ENOTSUP;
    else if (e == cudaErrorECCUncorrectable)
        st = MB_EIO;
    return mb_raise(st, file, line, "the GPU failed at %s: %s (%s)", text, cudaGetErrorString(e),
                    cudaGetErrorName(e));
}

extern "C" {
extern const mb_device_plugin_entry mb_device_plugin;
const mb_device_plugin_entry mb_device_plugin = {MB_DEVICE_PLUGIN_VERSION, sizeof(mb_kernels),
                                                 open_gpu, probe};
}
