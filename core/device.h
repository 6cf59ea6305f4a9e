/* core/device.h - where tensors live and kernels run.
 *
 * A device has memory, streams and a kernel table. The CPU's is always there (host memory, streams
 * that run at once); CUDA's is a shared object, libmbuyu_cuda.so, loaded at run time, so that a
 * missing driver is a sentence and not a program that does not start.
 *
 * Work queued on one stream runs in order. Work on different streams is ordered by mb_device_after
 * alone: that is the only place where an edge between streams is made. The host sees results after
 * mb_device_wait.
 */
#ifndef MB_CORE_DEVICE_H
#define MB_CORE_DEVICE_H

#include "core/kernels.h"

typedef enum mb_stream {
    MB_STREAM_COMPUTE, /* kernels */
    MB_STREAM_COMM,    /* collectives */
    MB_STREAM_COPY,    /* batches to the device, results and checkpoints from it */
    MB_STREAM_COUNT
} mb_stream;

typedef enum mb_device_kind { MB_DEVICE_AUTO, MB_DEVICE_CPU, MB_DEVICE_CUDA } mb_device_kind;

/* "auto", "cpu", "cuda"; MB_EARG otherwise. */
mb_status mb_device_kind_of(const char *name, mb_device_kind *out) MB_MUST_USE;

typedef struct mb_device mb_device;

/* What a back end provides. Functions with a stream return at once; failures of queued work may be
 * reported by a later call. */
typedef struct mb_device_ops {
    /* Bytes aligned to 256, zeroed; not counted by mb_alloc_count. Never in a step. */
    mb_status (*alloc)(mb_device *d, size_t bytes, const char *what, void **out);
    void (*free)(mb_device *d, void *p, size_t bytes);
    /* Host memory that copies to and from the device are fast for (pinned), zeroed. */
    mb_status (*alloc_host)(mb_device *d, size_t bytes, const char *what, void **out);
    void (*free_host)(mb_device *d, void *p, size_t bytes);
    /* Either side may be host or device memory; host memory must stay as it is until the stream has
     * got there. */
    mb_status (*copy)(mb_device *d, mb_stream s, void *to, const void *from, size_t bytes);
    mb_status (*zero)(mb_device *d, mb_stream s, void *p, size_t bytes);
    /* What is queued on `s` from now on runs after what is queued on `first` by now. */
    mb_status (*after)(mb_device *d, mb_stream s, mb_stream first);
    /* The host waits until everything queued on s is done, and learns what failed. */
    mb_status (*wait)(mb_device *d, mb_stream s);
    /* Whether everything queued on s is done, without waiting. */
    mb_status (*ready)(mb_device *d, mb_stream s, bool *out);
    /* Free and total bytes of its memory; for host memory see core/memory.h. */
    mb_status (*memory)(mb_device *d, int64_t *available, int64_t *total);
    /* Graphs (NULL on devices without): what is queued on the compute stream between begin and end,
     * and on streams ordered after it and before its end, is recorded instead of run; launch queues
     * it there as a whole, with the addresses and values it was recorded with. graph_free waits for
     * nothing: the graph must not be queued any more. After a failed end nothing is recording. */
    mb_status (*graph_begin)(mb_device *d);
    mb_status (*graph_end)(mb_device *d, void **graph);
    mb_status (*graph_launch)(mb_device *d, void *graph);
    void (*graph_free)(mb_device *d, void *graph);
    void (*close)(mb_device *d);
} mb_device_ops;

struct mb_device {
    const mb_device_ops *ops;
    const mb_kernels *kernels;
    mb_device_kind kind;
    char name[96];    /* "NVIDIA H100 80GB HBM3", "cpu" */
    char class_[160]; /* bits are promised within a class: architecture, libraries */
    bool host_memory; /* its memory is the host's: nothing needs copying */
    bool has_bf16;    /* it has instructions for bf16, which is no slower than f32 then */
    bool fast_bf16;   /* it multiplies bf16 faster than f32 */
    int threads;      /* CPU: for kernels */
    void *native[MB_STREAM_COUNT]; /* the back end's stream handles, for NCCL */
};

/* The CPU device, for kernels on `threads` threads. mb_cpu_init must have been called. The caller
 * owns *out. */
mb_status mb_device_cpu(int threads, mb_device **out) MB_MUST_USE;
/* `kind`: AUTO takes CUDA when a usable GPU is there, else the CPU and says why in the log. CUDA
 * without a usable GPU is MB_ENOTSUP with the reason. `ordinal`: the GPU of this process, usually its
 * rank within the node; it wraps around nothing: more ranks than GPUs is an error. MBUYU_GPU, when set,
 * is taken instead: ranks may share one. */
mb_status mb_device_open(mb_device_kind kind, int ordinal, int threads,
                         mb_device **out) MB_MUST_USE;
void mb_device_close(mb_device *d); /* NULL is allowed */

/* Can the host read and write its memory? NULL is host memory. */
static inline bool mb_device_is_host(const mb_device *d)
{
    return d == NULL || d->host_memory;
}

/* One line on what became of CUDA: library, driver, GPUs, or why there is none. */
void mb_device_probe(char *text, size_t size);

/* An exec on the compute stream. `scratch`: device memory, borrowed. */
mb_exec mb_device_exec(mb_device *d, mb_arena *scratch);
/* An arena over fresh device memory (counting when capacity is SIZE_MAX); mb_arena_free gives it
 * back. d NULL: host memory. */
mb_status mb_device_arena(mb_device *d, const char *name, size_t capacity,
                          mb_arena **out) MB_MUST_USE;

/* Synchronous, on the compute stream after all that is queued there: for loading, saving, tools and
 * tests. Contiguous tensors. d NULL: host memory. */
mb_status mb_device_write(mb_device *d, const mb_tensor *to, const void *from) MB_MUST_USE;
mb_status mb_device_read(mb_device *d, void *to, const mb_tensor *from) MB_MUST_USE;
mb_status mb_device_zero(mb_device *d, const mb_tensor *t) MB_MUST_USE;
/* The same between f32 numbers of the host and tensors of F32, BF16, F16 (rounded to nearest even,
 * widened exactly), DYN8 or DYNU8 (core/code8.h). */
mb_status mb_device_write_f32(mb_device *d, const mb_tensor *to, const float *from) MB_MUST_USE;
mb_status mb_device_read_f32(mb_device *d, float *to, const mb_tensor *from) MB_MUST_USE;

/* What libmbuyu_cuda.so exports as mb_device_plugin. */
enum { MB_DEVICE_PLUGIN_VERSION = 1 };
typedef struct mb_device_plugin_entry {
    int version;         /* MB_DEVICE_PLUGIN_VERSION */
    size_t kernels_size; /* sizeof(mb_kernels) it was built with */
    mb_status (*open)(int ordinal, mb_device **out);
    void (*probe)(char *text, size_t size);
} mb_device_plugin_entry;

#endif
