/* tests/emu/memory.cc - device memory, pinned memory, and who may touch them.
 *
 * Device memory is one range of addresses that nobody can touch while no kernel or copy runs.
 *
 *     | nothing | red zone | allocation | red zone to the end of the page | nothing | ...
 *
 * An access of the host, or one of a kernel that misses the red zones too, is a signal; the handler
 * says what was touched and by whom. What was written into a red zone is found after the kernel.
 */
#include <map>
#include <mutex>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/emu/emu.h"

uint64_t emu_state = 0x9e3779b97f4a7c15ull;

namespace {

enum { PAGE = 4096, RED_ZONE = 4096, GUARD = 64 * 1024 };

struct allocation {
    size_t bytes;
    unsigned char *region; /* pages, red zones included */
    size_t region_bytes;
    bool fresh; /* not poisoned yet */
};

struct {
    std::recursive_mutex mutex;
    unsigned char *arena;
    size_t reserved, capacity, used, next; /* next: where the search for room begins */
    std::map<unsigned char *, allocation> live;
    std::map<unsigned char *, size_t> pinned;
    int open;
    uint64_t seed;
    bool handlers;
} m;

const struct {
    int number;
    const char *name;
} signals[] = {{SIGSEGV, "a bad address"},
               {SIGBUS, "a bad address"},
               {SIGILL, "an address that is not aligned to the size of its type"},
               {SIGFPE, "a division by zero"}};
struct sigaction before[4];

const allocation *allocation_near(const void *p, const unsigned char **base)
{
    unsigned char *at = const_cast<unsigned char *>(static_cast<const unsigned char *>(p));
    auto i = m.live.upper_bound(at);
    const auto after = i;

    if (i != m.live.begin()) {
        --i;
        if (after == m.live.end() || at - (i->first + i->second.bytes) < after->first - at) {
            *base = i->first;
            return &i->second;
        }
    }
    if (after == m.live.end())
        return nullptr;
    *base = after->first;
    return &after->second;
}

/* "17 bytes after the end of an allocation of 4096 bytes" */
void describe(char *text, size_t size, const void *p)
{
    const unsigned char *base, *at = static_cast<const unsigned char *>(p);
    const allocation *a = allocation_near(p, &base);

    if (a == nullptr)
        snprintf(text, size, "where nothing is allocated");
    else if (at < base)
        snprintf(text, size, "%lld bytes before an allocation of %zu bytes", (long long)(base - at),
                 a->bytes);
    else if (at < base + a->bytes)
        snprintf(text, size, "%lld bytes into an allocation of %zu bytes", (long long)(at - base),
                 a->bytes);
    else
        snprintf(text, size, "%lld bytes after the end of an allocation of %zu bytes",
                 (long long)(at - base - (ptrdiff_t)a->bytes), a->bytes);
}

void on_signal(int number, siginfo_t *info, void *)
{
    char where[512], what[256];
    const bool kernel = emu_where(where, sizeof where);
    const void *at = info->si_addr;
    const char *name = "a signal";
    int i = 0;

    for (; i < 4; i++)
        if (signals[i].number == number) {
            name = signals[i].name;
            break;
        }
    if ((number == SIGSEGV || number == SIGBUS) && emu_in_arena(at)) {
        describe(what, sizeof what, at);
        if (kernel)
            mb_emu_fail("access to device memory at %p, %s", at, what);
        if (emu_operation() != nullptr)
            mb_emu_fail("%s: access to device memory at %p, %s", emu_operation(), at, what);
        mb_emu_fail("host access to device memory at %p, %s", at, what);
    }
    if ((number == SIGSEGV || number == SIGBUS) && emu_is_stack_guard(at))
        mb_emu_fail("a thread's stack overflows");
    if (kernel) {
        if (number == SIGSEGV && at == nullptr)
            mb_emu_fail("access through a null pointer, or to an address that is not aligned");
        mb_emu_fail("%s (%p)", name, at);
    }
    /* Not ours. */
    sigaction(number, &before[i], nullptr);
}

void handlers_set()
{
    static thread_local bool has_stack;

    if (!has_stack) {
        has_stack = true;
        stack_t s = {};
        stack_t old;
        if (sigaltstack(nullptr, &old) == 0 && (old.ss_flags & SS_DISABLE) != 0) {
            s.ss_size = 64 * 1024;
            s.ss_sp = mmap(nullptr, s.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                           -1, 0);
            sigaltstack(&s, nullptr);
        }
    }
    if (m.handlers)
        return;
    m.handlers = true;
    struct sigaction a = {};
    a.sa_sigaction = on_signal;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 4; i++)
        sigaction(signals[i].number, &a, &before[i]);
}

size_t from_environment(const char *name, size_t otherwise)
{
    const char *e = getenv(name);
    char *end;

    if (e == nullptr || *e == 0)
        return otherwise;
    const unsigned long long n = strtoull(e, &end, 10);
    if (*end != 0)
        mb_emu_fail("%s=%s is not a number of bytes", name, e);
    return (size_t)n;
}

void begin()
{
    if (m.arena == nullptr) {
        m.capacity = from_environment("MBUYU_EMU_MEMORY", (size_t)4 << 30);
        m.reserved = 2 * m.capacity + ((size_t)1 << 30);
        m.arena = static_cast<unsigned char *>(mmap(
            nullptr, m.reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (m.arena == MAP_FAILED)
            mb_emu_fail("no %zu bytes of addresses for device memory", m.reserved);
    }
    handlers_set();
}

/* The first gap of `bytes` at or after `from`, or NULL. */
unsigned char *gap(size_t from, size_t bytes)
{
    unsigned char *at = m.arena + from;

    for (const auto &i : m.live) {
        const allocation &a = i.second;
        if (a.region + a.region_bytes <= at)
            continue;
        if (a.region >= at + bytes + GUARD)
            break;
        at = a.region + a.region_bytes + GUARD;
    }
    return at + bytes + GUARD <= m.arena + m.reserved ? at : nullptr;
}

void protect(const allocation &a, int how)
{
    if (mprotect(a.region, a.region_bytes, how) != 0)
        mb_emu_fail("the system refuses to change the protection of device memory");
}

void poison(unsigned char *p, allocation *a)
{
    a->fresh = false;
    emu_fill(p, a->bytes & ~(size_t)1, POISON);
}

size_t rounded(size_t bytes)
{
    return (bytes + 511) / 512 * 512;
}

} // namespace

void mb_emu_fail(const char *fmt, ...)
{
    char where[512], what[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (emu_where(where, sizeof where))
        fprintf(stderr, "mbuyu emulator: %s: %s (MBUYU_EMU_SEED=%llu)\n", where, what,
                (unsigned long long)m.seed);
    else
        fprintf(stderr, "mbuyu emulator: %s (MBUYU_EMU_SEED=%llu)\n", what,
                (unsigned long long)m.seed);
    fflush(stderr);
    signal(SIGABRT, SIG_DFL);
    abort();
}

void mb_emu_seed(uint64_t seed)
{
    m.seed = seed;
    emu_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
    if (emu_state == 0)
        emu_state = 1;
    for (int i = 0; i < 8; i++)
        emu_random(2);
}

namespace {
struct seeded {
    seeded()
    {
        const char *e = getenv("MBUYU_EMU_SEED");
        mb_emu_seed(e != nullptr ? strtoull(e, nullptr, 10) : 1);
    }
} at_start;
} // namespace

emu_order emu_shuffled(uint64_t n)
{
    if (n < 2)
        return {n, 0, 0};
    switch (emu_random(4)) {
    case 0:
        return {n, 1, 0};
    case 1:
        return {n, n - 1, n - 1}; /* backwards */
    default:
        break;
    }
    const uint32_t most = n > 0x7fffffffu ? 0x7fffffffu : (uint32_t)n;
    for (;;) {
        const uint64_t a = 1 + emu_random(most);
        uint64_t x = a, y = n;
        while (y != 0) {
            const uint64_t r = x % y;
            x = y;
            y = r;
        }
        if (x == 1)
            return {n, a % n, emu_random(most)};
    }
}

void emu_fill(void *p, size_t bytes, uint16_t pattern)
{
    const uint64_t word = pattern * 0x0001000100010001ull;
    unsigned char *at = static_cast<unsigned char *>(p);

    for (; bytes >= 8; bytes -= 8, at += 8)
        memcpy(at, &word, 8);
    memcpy(at, &word, bytes);
}

size_t emu_unlike(const void *p, size_t bytes, uint16_t pattern)
{
    const uint64_t word = pattern * 0x0001000100010001ull;
    const unsigned char *at = static_cast<const unsigned char *>(p);
    size_t i = 0;

    for (; i + 8 <= bytes; i += 8) {
        uint64_t v;
        memcpy(&v, at + i, 8);
        if (v != word)
            break;
    }
    for (; i < bytes; i++)
        if (at[i] != ((i % 2 == 0) ? (pattern & 0xff) : (pattern >> 8)))
            return i;
    return bytes;
}

bool emu_in_arena(const void *p)
{
    const unsigned char *at = static_cast<const unsigned char *>(p);

    return m.arena != nullptr && at >= m.arena && at < m.arena + m.reserved;
}

bool emu_is_device(const void *p, size_t bytes, const char *what)
{
    char text[256];
    const unsigned char *base, *at = static_cast<const unsigned char *>(p);

    if (!emu_in_arena(p))
        return false;
    std::lock_guard<std::recursive_mutex> lock(m.mutex);
    const allocation *a = allocation_near(p, &base);
    if (a != nullptr && at >= base && at + bytes <= base + a->bytes)
        return true;
    describe(text, sizeof text, p);
    mb_emu_fail("%s: %zu bytes from %p, %s", what, bytes, p, text);
}

bool emu_is_pinned(const void *p)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);
    unsigned char *at = const_cast<unsigned char *>(static_cast<const unsigned char *>(p));
    auto i = m.pinned.upper_bound(at);

    if (i == m.pinned.begin())
        return false;
    --i;
    return at < i->first + i->second;
}

void emu_open(void)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);

    handlers_set();
    if (m.open++ > 0)
        return;
    for (const auto &i : m.live)
        protect(i.second, PROT_READ | PROT_WRITE);
}

void emu_close(void)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);

    if (--m.open > 0)
        return;
    for (const auto &i : m.live)
        protect(i.second, PROT_NONE);
}

void emu_materialise(const void *whole, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);

    for (auto &i : m.live) {
        if (!i.second.fresh)
            continue;
        if (i.first == whole && i.second.bytes <= bytes)
            i.second.fresh = false; /* is written before it can be read */
        else
            poison(i.first, &i.second);
    }
}

void emu_check_red_zones(const char *after)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);

    for (const auto &i : m.live) {
        const allocation &a = i.second;
        const unsigned char *end = i.first + a.bytes, *last = a.region + a.region_bytes;
        const size_t low = emu_unlike(a.region, RED_ZONE, RED);
        if (low < RED_ZONE)
            mb_emu_fail("%s: written %lld bytes before an allocation of %zu bytes", after,
                        (long long)(RED_ZONE - low), a.bytes);
        const size_t odd = a.bytes % 2;
        if (odd && *end != RED >> 8)
            mb_emu_fail("%s: written at byte 0 after the end of an allocation of %zu bytes", after,
                        a.bytes);
        const size_t size = (size_t)(last - end) - odd, high = emu_unlike(end + odd, size, RED);
        if (high < size)
            mb_emu_fail("%s: written at byte %zu after the end of an allocation of %zu bytes",
                        after, high + odd, a.bytes);
    }
}

void emu_zero(void *p, size_t bytes)
{
    unsigned char *at = static_cast<unsigned char *>(p), *end = at + bytes;
    unsigned char *from =
        reinterpret_cast<unsigned char *>(((uintptr_t)at + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
    unsigned char *to = reinterpret_cast<unsigned char *>((uintptr_t)end & ~(uintptr_t)(PAGE - 1));

    /* Large: pages that are given back read as zeros and cost nothing until they are written. */
    if (bytes < ((size_t)2 << 20) || madvise(from, (size_t)(to - from), MADV_DONTNEED) != 0) {
        memset(p, 0, bytes);
        return;
    }
    memset(at, 0, (size_t)(from - at));
    memset(to, 0, (size_t)(end - to));
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);

    begin();
    if (p == nullptr)
        return emu_error(cudaErrorInvalidValue);
    *p = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > m.capacity || m.used + rounded(bytes) > m.capacity)
        return emu_error(cudaErrorMemoryAllocation);
    const size_t pages = (RED_ZONE + bytes + RED_ZONE + PAGE - 1) / PAGE * PAGE;
    unsigned char *region = gap(m.next, pages);
    if (region == nullptr)
        region = gap(GUARD, pages);
    if (region == nullptr)
        return emu_error(cudaErrorMemoryAllocation);
    m.next = (size_t)(region - m.arena) + pages + GUARD;
    m.used += rounded(bytes);
    allocation a = {bytes, region, pages, true};
    protect(a, PROT_READ | PROT_WRITE);
    unsigned char *at = region + RED_ZONE, *end = at + bytes;
    emu_fill(region, RED_ZONE, RED);
    if (bytes % 2 != 0)
        *end = RED >> 8;
    emu_fill(end + bytes % 2, (size_t)(region + pages - end) - bytes % 2, RED);
    if (m.open == 0)
        protect(a, PROT_NONE);
    m.live[at] = a;
    *p = at;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (p == nullptr)
        return cudaSuccess;
    const cudaError_t e = emu_finish_all();
    std::lock_guard<std::recursive_mutex> lock(m.mutex);
    const auto i = m.live.find(static_cast<unsigned char *>(p));

    if (i == m.live.end())
        mb_emu_fail("cudaFree(%p): not an allocation of cudaMalloc, or freed before", p);
    emu_open();
    emu_check_red_zones("cudaFree");
    emu_close();
    const allocation a = i->second;
    protect(a, PROT_NONE);
    madvise(a.region, a.region_bytes, MADV_DONTNEED);
    m.used -= rounded(a.bytes);
    m.live.erase(i);
    return e;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);

    begin();
    *available = m.capacity - m.used;
    *total = m.capacity;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    std::lock_guard<std::recursive_mutex> lock(m.mutex);

    begin();
    if (p == nullptr || flags > cudaHostAllocPortable)
        return emu_error(cudaErrorInvalidValue);
    *p = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return emu_error(cudaErrorMemoryAllocation);
    if (bytes <= (size_t)64 << 20)
        emu_fill(at, bytes, POISON);
    m.pinned[static_cast<unsigned char *>(at)] = bytes;
    *p = at;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return cudaHostAlloc(p, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *p)
{
    if (p == nullptr)
        return cudaSuccess;
    const cudaError_t e = emu_finish_all();
    std::lock_guard<std::recursive_mutex> lock(m.mutex);
    const auto i = m.pinned.find(static_cast<unsigned char *>(p));

    if (i == m.pinned.end())
        mb_emu_fail("cudaFreeHost(%p): not an allocation of cudaMallocHost, or freed before", p);
    munmap(p, i->second);
    m.pinned.erase(i);
    return e;
}
