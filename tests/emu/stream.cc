/* tests/emu/stream.cc - streams, events, graphs, copies: what is queued, and when it runs.
 *
 * Nothing runs when it is queued. When the host waits for something, operations of all streams run,
 * one at a time, in an order drawn from the seed among those that the order within streams and the
 * events allow: as late as possible, as early as possible, or in between. A missing edge between two
 * streams is an order that gives wrong numbers for some seed.
 */
#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#include "tests/emu/emu.h"

namespace {

using work = std::shared_ptr<std::function<bool()>>; /* done? */

enum kind { DEVICE, HOST, WAIT, MARK, GRAPH };
enum { MOST_US_IN_VAIN = 20000 }; /* helping others ends after this without a result */

/* A point in a stream. */
struct mark {
    bool done;
    CUstream_st *owner;
};
using mark_ref = std::shared_ptr<mark>;

struct node {
    kind is;
    std::string what;
    work run;
    bool collective;
    std::vector<size_t> after;
};

struct operation {
    kind is;
    std::string what;
    work run;
    bool collective;
    mark_ref point;                           /* WAIT, MARK */
    std::shared_ptr<std::vector<node>> nodes; /* GRAPH */
    std::vector<char> finished;
    size_t left;
};

} // namespace

struct CUgraph_st {
    std::shared_ptr<std::vector<node>> nodes = std::make_shared<std::vector<node>>();
    CUstream_st *origin = nullptr;
};

struct CUgraphExec_st {
    std::shared_ptr<std::vector<node>> nodes;
};

struct CUstream_st {
    std::deque<operation> queue;
    size_t collectives = 0; /* in the queue */
    CUgraph_st *capture = nullptr;
    std::vector<size_t> last; /* nodes that the next captured one comes after */
};

struct CUevent_st {
    mark_ref point;
    CUgraph_st *capture = nullptr;
    std::vector<size_t> last;
};

namespace {

struct {
    std::mutex running; /* held by the one who runs operations */
    std::mutex mutex;   /* of all below */
    CUstream_st none;   /* the stream NULL: one like the others */
    std::vector<CUstream_st *> streams = {&none};
    const char *operation;
    uint64_t count;
    int device;
} q;

thread_local cudaError_t last_error;

CUstream_st *stream_of(cudaStream_t s)
{
    if (s == nullptr)
        return &q.none;
    if (std::find(q.streams.begin(), q.streams.end(), s) == q.streams.end())
        mb_emu_fail("%p is not a stream, or was destroyed", static_cast<void *>(s));
    return s;
}

bool can_run(const CUstream_st *s)
{
    return !s->queue.empty() && (s->queue.front().is != WAIT || s->queue.front().point->done);
}

/* The stream whose first operation has to run for `s` to go on. */
CUstream_st *needed(CUstream_st *s)
{
    for (size_t hops = 0; hops <= q.streams.size(); hops++) {
        if (can_run(s))
            return s;
        if (s->queue.empty())
            break;
        s = s->queue.front().point->owner;
    }
    mb_emu_fail("streams wait for each other");
}

CUstream_st *choose(CUstream_st *goal, int mode)
{
    CUstream_st *must = needed(goal), *other = nullptr;
    uint32_t n = 0;

    if (mode == 0 || q.streams.size() == 1)
        return must;
    for (CUstream_st *s : q.streams)
        if (can_run(s) && (mode == 1 || s != must) && emu_random(++n) == 0)
            other = s;
    return other == nullptr || (mode == 2 && emu_random(8) == 0) ? must : other;
}

/* False: it has to be called again. */
bool run(const char *what, kind is, const work &w, std::unique_lock<std::mutex> &lock)
{
    const work held = w;
    bool done;

    q.operation = what;
    lock.unlock();
    if (is == HOST) {
        emu_close(); /* a host function sees no device memory */
        done = (*held)();
        emu_open();
    } else {
        done = (*held)();
        emu_check_red_zones(what);
    }
    lock.lock();
    q.operation = nullptr;
    q.count += done;
    return done;
}

bool run_node(operation *op, std::unique_lock<std::mutex> &lock)
{
    const std::vector<node> &nodes = *op->nodes;
    size_t chosen = nodes.size();
    uint32_t n = 0;

    for (size_t i = 0; i < nodes.size(); i++) {
        bool ready = !op->finished[i];
        for (size_t a : nodes[i].after)
            ready = ready && op->finished[a];
        if (ready && emu_random(++n) == 0)
            chosen = i;
    }
    if (!run(nodes[chosen].what.c_str(), nodes[chosen].is, nodes[chosen].run, lock))
        return false;
    op->finished[chosen] = 1;
    op->left--;
    return true;
}

/* False: nothing was finished. */
bool run_first(CUstream_st *s, std::unique_lock<std::mutex> &lock)
{
    operation *op = &s->queue.front();

    switch (op->is) {
    case DEVICE:
    case HOST:
        if (!run(op->what.c_str(), op->is, op->run, lock))
            return false;
        break;
    case MARK:
        op->point->done = true;
        break;
    case WAIT:
        break;
    case GRAPH:
        if (op->left > 0 && !run_node(op, lock))
            return false;
        if (op->left > 0)
            return true;
        break;
    }
    s->collectives -= op->collective;
    s->queue.pop_front();
    return true;
}

int64_t now_us()
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Runs operations until all of `goals` are done, then collectives until nothing comes of it. */
void run_until(const std::vector<mark_ref> &goals, std::unique_lock<std::mutex> &lock)
{
    const int mode = (int)emu_random(3);
    int64_t last = 0; /* when something was finished; 0: just now */
    size_t in_vain = 0;
    bool open = false;

    for (;;) {
        CUstream_st *goal = nullptr;
        bool waiting = false;
        for (const mark_ref &m : goals)
            if (!m->done) {
                goal = m->owner;
                waiting = true;
            }
        for (CUstream_st *s : q.streams)
            if (s->collectives > 0 && (goal == nullptr || emu_random(2) == 0))
                goal = s;
        if (goal == nullptr || (!waiting && in_vain > 0 && now_us() - last > MOST_US_IN_VAIN))
            break;
        CUstream_st *s = choose(goal, mode);
        if (!open && s->queue.front().is != MARK && s->queue.front().is != WAIT) {
            emu_open();
            open = true;
        }
        if (run_first(s, lock)) {
            in_vain = 0;
            continue;
        }
        if (in_vain++ == 0)
            last = now_us();
        if (in_vain > q.streams.size()) {
            lock.unlock();
            usleep(50);
            lock.lock();
        }
    }
    if (open)
        emu_close();
}

mark_ref mark_here(CUstream_st *s)
{
    mark_ref m = std::make_shared<mark>(mark{false, s});

    if (s->queue.empty())
        m->done = true;
    else if (s->queue.back().is == MARK)
        return s->queue.back().point;
    else
        s->queue.push_back({MARK, "event", nullptr, false, m, nullptr, {}, 0});
    return m;
}

cudaError_t finish(const std::vector<CUstream_st *> &streams)
{
    std::unique_lock<std::mutex> running(q.running);
    std::unique_lock<std::mutex> lock(q.mutex);
    std::vector<mark_ref> goals;

    for (CUstream_st *s : streams) {
        if (s->capture != nullptr)
            return emu_error(cudaErrorStreamCaptureUnsupported);
        goals.push_back(mark_here(s));
    }
    run_until(goals, lock);
    return cudaSuccess;
}

/* A few steps towards `m`, unless somebody else is running. */
bool poll(const mark_ref &m)
{
    std::unique_lock<std::mutex> running(q.running, std::try_to_lock);
    if (!running.owns_lock())
        return m->done;
    std::unique_lock<std::mutex> lock(q.mutex);
    if (m->done)
        return true;
    emu_open();
    for (uint32_t n = 1 + emu_random(4); n > 0 && !m->done; n--)
        run_first(choose(m->owner, (int)emu_random(2)), lock);
    emu_close();
    return m->done;
}

cudaError_t put(cudaStream_t stream, kind is, const char *what, work w, bool collective)
{
    std::lock_guard<std::mutex> lock(q.mutex);
    CUstream_st *s = stream_of(stream);

    if (s->capture != nullptr) {
        std::vector<node> &nodes = *s->capture->nodes;
        nodes.push_back({is, what, w, collective, s->last});
        s->last = {nodes.size() - 1};
        return cudaSuccess;
    }
    s->queue.push_back({is, what, w, collective, nullptr, nullptr, {}, 0});
    s->collectives += collective;
    return cudaSuccess;
}

bool is_capturing(cudaStream_t stream)
{
    std::lock_guard<std::mutex> lock(q.mutex);

    return stream_of(stream)->capture != nullptr;
}

/* ---- arguments of kernels ----------------------------------------------------------------------- */

/* A fault planted by MBUYU_EMU_FORGET=31: stream 3, in order of creation, does not wait for stream 1. */
bool is_forgotten(const CUstream_st *waiter, const CUstream_st *waited)
{
    static const char *const e = getenv("MBUYU_EMU_FORGET");
    const auto is = [](const CUstream_st *s, char digit) {
        return (size_t)(digit - '0') < q.streams.size() && q.streams[(size_t)(digit - '0')] == s;
    };

    return e != nullptr && strlen(e) == 2 && is(waiter, e[0]) && is(waited, e[1]);
}

bool is_mapped(uint64_t address)
{
    unsigned char there;

    return mincore(reinterpret_cast<void *>(address & ~(uint64_t)4095), 1, &there) == 0;
}

void argument_check(const mb_emu_site &site, int i, const mb_emu_argument &a)
{
    if (a.kind == 'p') {
        const void *p;
        memcpy(&p, a.at, sizeof p);
        if (p != nullptr && !emu_in_arena(p) && !emu_is_pinned(p))
            mb_emu_fail("%s:%d: argument %d of kernel %s, %p, is no device memory", site.file,
                        site.line, i + 1, site.kernel, p);
        return;
    }
    if (a.kind != 's')
        return;
    for (size_t at = 0; at + 8 <= a.bytes; at += 8) {
        uint64_t w;
        memcpy(&w, static_cast<const char *>(a.at) + at, 8);
        if (w < 0x500000000000ull || w >= 0x800000000000ull)
            continue;
        const void *p = reinterpret_cast<const void *>(w);
        if (!emu_in_arena(p) && !emu_is_pinned(p) && is_mapped(w))
            mb_emu_fail("%s:%d: argument %d of kernel %s holds %p, which is host memory", site.file,
                        site.line, i + 1, site.kernel, p);
    }
}

/* The newest nodes of all streams of this capture lie before those of its origin? */
bool joined(const CUgraph_st *g)
{
    std::vector<char> before(g->nodes->size());
    std::vector<size_t> open = g->origin->last;

    while (!open.empty()) {
        const size_t i = open.back();
        open.pop_back();
        if (before[i])
            continue;
        before[i] = 1;
        for (size_t a : (*g->nodes)[i].after)
            open.push_back(a);
    }
    return std::find(before.begin(), before.end(), 0) == before.end();
}

} // namespace

/* ---- for the other files ------------------------------------------------------------------------ */

cudaError_t emu_error(cudaError_t e)
{
    if (e != cudaSuccess)
        last_error = e;
    return e;
}

const char *emu_operation(void)
{
    return q.operation;
}

cudaError_t emu_finish_all(void)
{
    std::vector<CUstream_st *> all;
    {
        std::lock_guard<std::mutex> lock(q.mutex);
        all = q.streams;
    }
    return finish(all);
}

cudaError_t emu_queue(cudaStream_t stream, const char *what, std::function<void()> f)
{
    return put(stream, DEVICE, what, std::make_shared<std::function<bool()>>([f] {
                   emu_materialise(nullptr, 0);
                   f();
                   return true;
               }),
               false);
}

cudaError_t mb_emu_queue(cudaStream_t stream, const mb_emu_launch_config &config, int n,
                         const mb_emu_argument *args)
{
    const std::shared_ptr<void> call(config.call, config.release);

    if (config.block < 1 || config.block > 1024 || config.grid < 1 || config.grid > 0x7fffffff)
        return emu_error(cudaErrorInvalidConfiguration);
    if (config.block % 32 != 0)
        mb_emu_fail("%s:%d: kernel %s: a block of %d threads is no multiple of 32",
                    config.site.file, config.site.line, config.site.kernel, config.block);
    if (config.smem > emu_shared_limit())
        return emu_error(cudaErrorInvalidValue);
    for (int i = 0; i < n; i++)
        argument_check(config.site, i, args[i]);
    return emu_queue(stream, config.site.kernel, [config, call] { emu_run_launch(config); });
}

cudaError_t mb_emu_enqueue(cudaStream_t stream, const char *what, bool (*fn)(void *arg), void *arg)
{
    return put(stream, DEVICE, what, std::make_shared<std::function<bool()>>([fn, arg] {
                   emu_materialise(nullptr, 0);
                   return fn(arg);
               }),
               true);
}

uint64_t mb_emu_operations(void)
{
    std::lock_guard<std::mutex> lock(q.mutex);

    return q.count;
}

/* ---- errors and the device ----------------------------------------------------------------------- */

#define ERRORS(X)                                                                                  \
    X(cudaSuccess, "no error")                                                                     \
    X(cudaErrorInvalidValue, "invalid argument")                                                   \
    X(cudaErrorMemoryAllocation, "out of memory")                                                  \
    X(cudaErrorInitializationError, "initialization error")                                        \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                             \
    X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                        \
    X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version") \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                     \
    X(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable")            \
    X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device") \
    X(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered")                            \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                            \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                   \
    X(cudaErrorNotReady, "device not ready")                                                       \
    X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                    \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")       \
    X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                        \
    X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")  \
    X(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
#define X(code, text) \
    case code:        \
        return #code;
        ERRORS(X)
#undef X
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
#define X(code, text) \
    case code:        \
        return text;
        ERRORS(X)
#undef X
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = last_error;

    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    const char *e = getenv("MBUYU_EMU_DRIVER");

    *version = e != nullptr ? atoi(e) : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    const char *e = getenv("MBUYU_EMU_DEVICES");
    int driver;

    *count = 0;
    cudaDriverGetVersion(&driver);
    if (driver < CUDART_VERSION / 1000 * 1000)
        return emu_error(cudaErrorInsufficientDriver);
    *count = e != nullptr ? atoi(e) : 8;
    return *count > 0 ? cudaSuccess : emu_error(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    int count;
    const cudaError_t e = cudaGetDeviceCount(&count);

    if (e != cudaSuccess)
        return e;
    if (device < 0 || device >= count)
        return emu_error(cudaErrorInvalidDevice);
    q.device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = q.device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
{
    int count;
    size_t available;
    const cudaError_t e = cudaGetDeviceCount(&count);

    if (e != cudaSuccess)
        return e;
    if (device < 0 || device >= count)
        return emu_error(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "mbuyu emulator");
    cudaMemGetInfo(&available, &prop->totalGlobalMem);
    prop->sharedMemPerBlock = 48 * 1024;
    prop->sharedMemPerBlockOptin = emu_shared_limit();
    prop->sharedMemPerMultiprocessor = emu_shared_limit() + 1024;
    prop->regsPerBlock = 65536;
    prop->warpSize = 32;
    prop->maxThreadsPerBlock = 1024;
    prop->major = 8;
    prop->multiProcessorCount = 4;
    prop->maxThreadsPerMultiProcessor = 2048;
    prop->l2CacheSize = 4 << 20;
    prop->pciBusID = device + 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    return emu_finish_all();
}

/* ---- copies -------------------------------------------------------------------------------------- */

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind how,
                            cudaStream_t stream)
{
    if (bytes == 0)
        return cudaSuccess;
    if (to == nullptr || from == nullptr)
        return emu_error(cudaErrorInvalidValue);
    const bool to_device = emu_is_device(to, bytes, "cudaMemcpyAsync"),
               from_device = emu_is_device(from, bytes, "cudaMemcpyAsync"),
               to_pageable = !to_device && !emu_is_pinned(to),
               from_pageable = !from_device && !emu_is_pinned(from);
    const char *a = static_cast<const char *>(to), *z = static_cast<const char *>(from);

    if (how != cudaMemcpyDefault &&
        (to_device != (how == cudaMemcpyHostToDevice || how == cudaMemcpyDeviceToDevice) ||
         from_device != (how == cudaMemcpyDeviceToHost || how == cudaMemcpyDeviceToDevice)))
        return emu_error(cudaErrorInvalidMemcpyDirection);
    if (a < z + bytes && z < a + bytes)
        mb_emu_fail("cudaMemcpyAsync: source and destination overlap");
    if ((to_pageable || from_pageable) && is_capturing(stream))
        return emu_error(cudaErrorStreamCaptureUnsupported);
    std::shared_ptr<void> staged;
    if (from_pageable) { /* is read before the call returns */
        staged.reset(malloc(bytes), free);
        if (staged == nullptr)
            return emu_error(cudaErrorMemoryAllocation);
        memcpy(staged.get(), from, bytes);
    }
    const cudaError_t e =
        put(stream, DEVICE, "cudaMemcpyAsync", std::make_shared<std::function<bool()>>([=] {
                emu_materialise(to, bytes);
                memcpy(to, staged != nullptr ? staged.get() : from, bytes);
                return true;
            }),
            false);
    if (e == cudaSuccess && to_pageable) /* is written when the call returns */
        return cudaStreamSynchronize(stream);
    return e;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    if (bytes == 0)
        return cudaSuccess;
    if (!emu_is_device(p, bytes, "cudaMemsetAsync"))
        return emu_error(cudaErrorInvalidValue);
    return put(stream, DEVICE, "cudaMemsetAsync", std::make_shared<std::function<bool()>>([=] {
                   emu_materialise(p, bytes);
                   if (value == 0)
                       emu_zero(p, bytes);
                   else
                       memset(p, value, bytes);
                   return true;
               }),
               false);
}

/* ---- streams and events --------------------------------------------------------------------------- */

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    if (stream == nullptr || flags != cudaStreamNonBlocking || priority > 0 || priority < -5)
        return emu_error(cudaErrorInvalidValue);
    std::lock_guard<std::mutex> lock(q.mutex);
    *stream = new CUstream_st;
    q.streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const cudaError_t e = cudaStreamSynchronize(stream);
    std::lock_guard<std::mutex> lock(q.mutex);
    CUstream_st *s = stream_of(stream);

    if (s == &q.none)
        return emu_error(cudaErrorInvalidResourceHandle);
    q.streams.erase(std::find(q.streams.begin(), q.streams.end(), s));
    delete s;
    return e;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    CUstream_st *s;
    {
        std::lock_guard<std::mutex> lock(q.mutex);
        s = stream_of(stream);
    }
    return finish({s});
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    mark_ref m;
    {
        std::lock_guard<std::mutex> lock(q.mutex);
        CUstream_st *s = stream_of(stream);
        if (s->capture != nullptr)
            return emu_error(cudaErrorStreamCaptureUnsupported);
        m = mark_here(s);
    }
    return poll(m) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    std::lock_guard<std::mutex> lock(q.mutex);
    CUstream_st *s = stream_of(stream);

    if (event == nullptr || flags != 0)
        return emu_error(cudaErrorInvalidValue);
    if (event->capture != nullptr) {
        if (s->capture != nullptr && s->capture != event->capture)
            return emu_error(cudaErrorStreamCaptureIsolation);
        s->capture = event->capture;
        for (size_t i : event->last)
            if (std::find(s->last.begin(), s->last.end(), i) == s->last.end())
                s->last.push_back(i);
        return cudaSuccess;
    }
    if (s->capture != nullptr)
        return emu_error(cudaErrorStreamCaptureIsolation);
    if (event->point != nullptr && !event->point->done && !is_forgotten(s, event->point->owner))
        s->queue.push_back({WAIT, "wait", nullptr, false, event->point, nullptr, {}, 0});
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *arg)
{
    if (fn == nullptr)
        return emu_error(cudaErrorInvalidValue);
    return put(stream, HOST, "cudaLaunchHostFunc",
               std::make_shared<std::function<bool()>>([fn, arg] {
                   fn(arg);
                   return true;
               }),
               false);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    if (event == nullptr || flags != cudaEventDisableTiming)
        return emu_error(cudaErrorInvalidValue);
    *event = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    if (event == nullptr)
        return emu_error(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    std::lock_guard<std::mutex> lock(q.mutex);
    CUstream_st *s = stream_of(stream);

    if (event == nullptr)
        return emu_error(cudaErrorInvalidResourceHandle);
    event->capture = s->capture;
    if (s->capture != nullptr) {
        event->last = s->last;
        event->point = nullptr;
    } else {
        event->point = mark_here(s);
    }
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    mark_ref m;
    {
        std::lock_guard<std::mutex> lock(q.mutex);
        if (event->capture != nullptr)
            return emu_error(cudaErrorStreamCaptureUnsupported);
        m = event->point;
    }
    return m == nullptr || poll(m) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    std::unique_lock<std::mutex> running(q.running);
    std::unique_lock<std::mutex> lock(q.mutex);

    if (event->capture != nullptr)
        return emu_error(cudaErrorStreamCaptureUnsupported);
    if (event->point != nullptr)
        run_until({event->point}, lock);
    return cudaSuccess;
}

/* ---- graphs ---------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    std::lock_guard<std::mutex> lock(q.mutex);
    CUstream_st *s = stream_of(stream);

    if (s == &q.none || s->capture != nullptr)
        return emu_error(cudaErrorStreamCaptureUnsupported);
    s->capture = new CUgraph_st;
    s->capture->origin = s;
    s->last.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    std::lock_guard<std::mutex> lock(q.mutex);
    CUstream_st *s = stream_of(stream);
    CUgraph_st *g = s->capture;

    if (g == nullptr || g->origin != s)
        return emu_error(cudaErrorStreamCaptureUnsupported);
    const bool complete = joined(g);
    for (CUstream_st *other : q.streams)
        if (other->capture == g) {
            other->capture = nullptr;
            other->last.clear();
        }
    if (!complete) {
        delete g;
        *graph = nullptr;
        return emu_error(cudaErrorStreamCaptureUnjoined);
    }
    *graph = g;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    if (exec == nullptr || graph == nullptr || flags != 0)
        return emu_error(cudaErrorInvalidValue);
    *exec = new CUgraphExec_st{graph->nodes};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    std::lock_guard<std::mutex> lock(q.mutex);
    CUstream_st *s = stream_of(stream);

    if (exec == nullptr)
        return emu_error(cudaErrorInvalidValue);
    if (s->capture != nullptr)
        return emu_error(cudaErrorStreamCaptureUnsupported);
    bool collective = false;
    for (const node &n : *exec->nodes)
        collective = collective || n.collective;
    s->queue.push_back({GRAPH, "graph", nullptr, collective, nullptr, exec->nodes,
                        std::vector<char>(exec->nodes->size()), exec->nodes->size()});
    s->collectives += collective;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}
