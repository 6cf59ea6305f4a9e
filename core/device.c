/* core/device.c - see core/device.h. */
#include "core/device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/code8.h"
#include "core/cpu/cpu.h"
#include "core/cpu/init.h"
#include "core/cpu/strip.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/path.h"

/* ---- the CPU ------------------------------------------------------------------------------ */

static mb_status cpu_alloc(mb_device *d, size_t bytes, const char *what, void **out)
{
    return mb_pages(bytes, what, out);
}

static void cpu_free(mb_device *d, void *p, size_t bytes)
{
    mb_pages_free(p, bytes);
}

static mb_status cpu_copy(mb_device *d, mb_stream s, void *to, const void *from, size_t bytes)
{
    memmove(to, from, bytes);
    return MB_OK;
}

static mb_status cpu_zero(mb_device *d, mb_stream s, void *p, size_t bytes)
{
    memset(p, 0, bytes);
    return MB_OK;
}

static mb_status cpu_after(mb_device *d, mb_stream s, mb_stream first)
{
    return MB_OK; /* everything is done when it returns */
}

static mb_status cpu_wait(mb_device *d, mb_stream s)
{
    return MB_OK;
}

static mb_status cpu_ready(mb_device *d, mb_stream s, bool *out)
{
    *out = true;
    return MB_OK;
}

static mb_status cpu_memory(mb_device *d, int64_t *available, int64_t *total)
{
    mb_memory_limit limit;

    MB_TRY(mb_memory_limits("", &limit));
    *available = limit.available;
    *total = limit.machine;
    return MB_OK;
}

static void cpu_close(mb_device *d)
{
    mb_free(d);
}

static const mb_device_ops cpu_ops = {.alloc = cpu_alloc,
                                      .free = cpu_free,
                                      .alloc_host = cpu_alloc,
                                      .free_host = cpu_free,
                                      .copy = cpu_copy,
                                      .zero = cpu_zero,
                                      .after = cpu_after,
                                      .wait = cpu_wait,
                                      .ready = cpu_ready,
                                      .memory = cpu_memory,
                                      .close = cpu_close};

mb_status mb_device_cpu(int threads, mb_device **out)
{
    mb_device *d = NULL;

    MB_TRY(MB_NEW(&d));
    *d = (mb_device){.ops = &cpu_ops,
                     .kernels = &mb_cpu_kernels,
                     .kind = MB_DEVICE_CPU,
                     .name = "cpu",
                     .has_bf16 = (mb_cpu_features() & MB_CPU_AVX512_BF16) != 0,
                     .fast_bf16 = (mb_cpu_features() & MB_CPU_FAST_PAIRS) != 0,
                     .host_memory = true,
                     .threads = threads};
    snprintf(d->class_, sizeof d->class_, "%s", mb_cpu_class());
    *out = d;
    return MB_OK;
}

/* ---- the plug-in -------------------------------------------------------------------------- */

static const char file_name[] = "libmbuyu_cuda.so";

/* Where the plug-in is: MBUYU_CUDA_LIBRARY, beside the program, or in ../lib/mbuyu of an installed
 * one. Returns false when there is none. */
static bool find_plugin(char *path, size_t size)
{
    static const char *const places[] = {"%s/%s", "%s/../lib/mbuyu/%s"};
    const char *named = getenv("MBUYU_CUDA_LIBRARY");
    char program[MB_PATH_MAX], folder[MB_PATH_MAX];

    if (named != NULL && named[0] != '\0')
        return snprintf(path, size, "%s", named) < (int)size;
    if (mb_path_real("/proc/self/exe", program, sizeof program) != MB_OK ||
        mb_path_dir(folder, sizeof folder, program) != MB_OK) {
        mb_status_clear();
        return false;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        const int n = snprintf(path, size, places[i], folder, file_name);
#pragma GCC diagnostic pop
        if (n < (int)size && mb_path_is_file(path))
            return true;
    }
    return false;
}

static mb_status load_plugin(const mb_device_plugin_entry **out)
{
    char path[MB_PATH_MAX];
    const mb_device_plugin_entry *entry;
    void *library;

    MB_REQUIRE(find_plugin(path, sizeof path), MB_ENOTSUP,
               "this mbuyu was built without CUDA: there is no %s beside the program, in "
               "../lib/mbuyu or named by MBUYU_CUDA_LIBRARY",
               file_name);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* stays until the process ends */
    MB_REQUIRE(library != NULL, MB_ENOTSUP, "%s cannot be loaded: %s", path, dlerror());
    entry = dlsym(library, "mb_device_plugin");
    MB_REQUIRE(entry != NULL, MB_ENOTSUP, "%s is not a back end of mbuyu: it has no %s", path,
               "mb_device_plugin");
    MB_REQUIRE(
        entry->version == MB_DEVICE_PLUGIN_VERSION && entry->kernels_size == sizeof(mb_kernels),
        MB_ENOTSUP,
        "%s belongs to another build of mbuyu (version %d with a table of %zu bytes; this "
        "program has %d and %zu)",
        path, entry->version, entry->kernels_size, MB_DEVICE_PLUGIN_VERSION, sizeof(mb_kernels));
    *out = entry;
    return MB_OK;
}

/* MBUYU_GPU, so that ranks may share a GPU, or else `ordinal`. */
static mb_status which_gpu(int ordinal, int *out)
{
    const char *s = getenv("MBUYU_GPU");
    char *end;

    *out = ordinal;
    if (s == NULL || s[0] == '\0')
        return MB_OK;
    const long n = strtol(s, &end, 10);
    MB_REQUIRE(*end == '\0' && n >= 0 && n < 1024, MB_EARG,
               "MBUYU_GPU is '%.60s'; it is the number of a GPU, from 0", s);
    *out = (int)n;
    return MB_OK;
}

static mb_status open_cuda(int ordinal, mb_device **out)
{
    const mb_device_plugin_entry *entry;
    int gpu;

    MB_TRY(which_gpu(ordinal, &gpu));
    MB_TRY(load_plugin(&entry));
    return entry->open(gpu, out);
}

mb_status mb_device_kind_of(const char *name, mb_device_kind *out)
{
    static const char *const names[] = {
        [MB_DEVICE_AUTO] = "auto", [MB_DEVICE_CPU] = "cpu", [MB_DEVICE_CUDA] = "cuda"};

    for (int i = 0; i <= MB_DEVICE_CUDA; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        *out = (mb_device_kind)i;
        return MB_OK;
    }
    return MB_RAISE(MB_EARG, "the device is auto, cpu or cuda, not '%s'", name);
}

/* Does the GPU's driver know one? Asked before the plug-in, whose libraries take over a hundred MiB as
 * soon as they are loaded. A plug-in that is named (an emulator) needs no driver. */
static bool has_gpu(void)
{
    const char *named = getenv("MBUYU_CUDA_LIBRARY");
    int (*start)(unsigned), (*count)(int *), n = 0;
    void *driver;

    if (named != NULL && named[0] != '\0')
        return true;
    driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver == NULL)
        return false;
    *(void **)&start = dlsym(driver, "cuInit");
    *(void **)&count = dlsym(driver, "cuDeviceGetCount");
    if (start != NULL && count != NULL && start(0) == 0 && count(&n) == 0 && n > 0)
        return true; /* the plug-in will use the driver, too: it stays */
    dlclose(driver);
    return false;
}

mb_status mb_device_open(mb_device_kind kind, int ordinal, int threads, mb_device **out)
{
    mb_status st;

    if (kind == MB_DEVICE_CPU || (kind == MB_DEVICE_AUTO && !has_gpu()))
        return mb_device_cpu(threads, out);
    st = open_cuda(ordinal, out);
    if (st == MB_OK || st == MB_EARG || kind == MB_DEVICE_CUDA)
        return st;
    mb_log_debug("no GPU is used: %s", mb_status_sentence());
    mb_status_clear();
    return mb_device_cpu(threads, out);
}

void mb_device_close(mb_device *d)
{
    if (d != NULL)
        d->ops->close(d);
}

void mb_device_probe(char *text, size_t size)
{
    const mb_device_plugin_entry *entry;

    if (load_plugin(&entry) == MB_OK) {
        entry->probe(text, size);
        return;
    }
    snprintf(text, size, "%s", mb_status_sentence());
    mb_status_clear();
}

/* ---- for all ------------------------------------------------------------------------------ */

mb_exec mb_device_exec(mb_device *d, mb_arena *scratch)
{
    return (mb_exec){.kernels = d->kernels,
                     .device = d,
                     .scratch = scratch,
                     .threads = d->threads,
                     .stream = d->native[MB_STREAM_COMPUTE]};
}

static void release(void *owner, void *base, size_t capacity)
{
    mb_device *d = owner;

    d->ops->free(d, base, capacity);
}

mb_status mb_device_arena(mb_device *d, const char *name, size_t capacity, mb_arena **out)
{
    void *base;

    if (mb_device_is_host(d) || capacity == SIZE_MAX)
        return mb_arena_new(name, capacity, out);
    MB_TRY(d->ops->alloc(d, capacity, name, &base));
    return mb_arena_over(name, base, capacity, release, d, out);
}

mb_status mb_device_write(mb_device *d, const mb_tensor *to, const void *from)
{
    const size_t bytes = (size_t)mb_tensor_bytes(to);

    MB_ASSERT(mb_tensor_is_contiguous(to));
    if (mb_device_is_host(d)) {
        memcpy(to->data, from, bytes);
        return MB_OK;
    }
    MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, to->data, from, bytes));
    return d->ops->wait(d, MB_STREAM_COMPUTE);
}

mb_status mb_device_read(mb_device *d, void *to, const mb_tensor *from)
{
    const size_t bytes = (size_t)mb_tensor_bytes(from);

    MB_ASSERT(mb_tensor_is_contiguous(from));
    if (mb_device_is_host(d)) {
        memcpy(to, from->data, bytes);
        return MB_OK;
    }
    MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, to, from->data, bytes));
    return d->ops->wait(d, MB_STREAM_COMPUTE);
}

mb_status mb_device_zero(mb_device *d, const mb_tensor *t)
{
    const size_t bytes = (size_t)mb_tensor_bytes(t);

    MB_ASSERT(mb_tensor_is_contiguous(t));
    if (mb_device_is_host(d)) {
        memset(t->data, 0, bytes);
        return MB_OK;
    }
    MB_TRY(d->ops->zero(d, MB_STREAM_COMPUTE, t->data, bytes));
    return d->ops->wait(d, MB_STREAM_COMPUTE);
}

static void narrow(void *to, mb_dtype d, const float *from, int64_t n)
{
    if (mb_dtype_block(d) > 1)
        mb_code8_write(to, d, from, n);
    else
        mb_cpu_narrow(to, d, from, n);
}

/* Both may end at the same place. */
static void widen(float *to, const void *from, mb_dtype d, int64_t n)
{
    const uint16_t *half = from;

    if (mb_dtype_block(d) > 1) {
        mb_code8_read(to, from, d, n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = d == MB_DTYPE_BF16 ? mb_bf16_to_f32(half[i]) : mb_f16_to_f32(half[i]);
}

mb_status mb_device_write_f32(mb_device *d, const mb_tensor *to, const float *from)
{
    const int64_t n = mb_tensor_count(to);
    void *rounded = NULL;
    mb_status st;

    if (to->dtype == MB_DTYPE_F32)
        return mb_device_write(d, to, from);
    if (mb_device_is_host(d)) {
        narrow(to->data, to->dtype, from, n);
        return MB_OK;
    }
    MB_TRY(mb_alloc((size_t)mb_tensor_bytes(to), "numbers on their way to a device", &rounded));
    narrow(rounded, to->dtype, from, n);
    st = mb_device_write(d, to, rounded);
    mb_free(rounded);
    return st;
}

mb_status mb_device_read_f32(mb_device *d, float *to, const mb_tensor *from)
{
    const int64_t n = mb_tensor_count(from);
    /* the end of it: read before it is written */
    char *const end = (char *)(to + n), *const here = end - mb_tensor_bytes(from);

    if (from->dtype == MB_DTYPE_F32)
        return mb_device_read(d, to, from);
    if (mb_device_is_host(d)) {
        widen(to, from->data, from->dtype, n);
        return MB_OK;
    }
    MB_TRY(mb_device_read(d, here, from));
    widen(to, here, from->dtype, n);
    return MB_OK;
}
