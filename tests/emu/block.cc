/* tests/emu/block.cc - the blocks and threads of a launch.
 *
 * A thread is a fiber: a stack and a way to leave and re-enter it. Nobody polls. A thread that comes
 * to a barrier or warp function before the others is put aside; whoever comes last makes all of them
 * ready. A fiber whose thread returns goes on with the next thread of the block, so that kernels
 * without barriers cost a call per thread. When nobody is ready and nobody is left to start, and some
 * still wait, the kernel is divergent and the process ends with who waits where.
 *
 * Blocks, warps, lanes and those made ready run in an order drawn from the seed.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "core/cuda/dev.h"
#include "tests/emu/emu.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__F16C__)
#include <immintrin.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMU_ASAN 1
#else
#define EMU_ASAN 0
#endif

mb_emu_index mb_emu_thread_index, mb_emu_block_index, mb_emu_block_size, mb_emu_grid_size;
uint64_t mb_emu_block_serial;

namespace {

enum {
    MAX_THREADS = 1024,
    STACK = EMU_ASAN ? 512 * 1024 : 128 * 1024,
    PAGE = 4096,
    RED_ZONE = 256, /* around shared arrays */
    SHARED_STATIC = 48 * 1024,
    SHARED_MOST = 227 * 1024
};

struct copy {
    void *to;
    const void *from; /* NULL: zeros */
};

enum state { STARTED, AT_BARRIER, AT_WARP, RETURNED };

struct fiber {
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    unsigned char *stack;
    int thread;
    state is; /* of the thread, and where it waits */
    int line;
    const char *file;
    void *asan;
    /* cp.async: the copies asked for, and how many of them each closed group ends at */
    std::vector<copy> copies;
    std::vector<size_t> groups;
};

struct warp {
    int arrived;
    const mb_emu_op *first; /* to arrive */
    mb_emu_op *op[32];
    fiber *lane[32];
};

struct {
    const mb_emu_launch_config *launch; /* NULL: none */
    int64_t block;
    int threads, started, returned;
    int warp_order[32], lane_order[32];
    bool eager_start, last_first; /* who goes on: unstarted threads first; the newest ready one */
    fiber *current;
    fiber *idle[MAX_THREADS], *ready[MAX_THREADS];
    int n_idle, n_ready, n_fibers;
    fiber fibers[MAX_THREADS];
    fiber host;
    warp warps[32];
    fiber *of[MAX_THREADS];      /* the fiber of each thread that has not returned */
    fiber *waiting[MAX_THREADS]; /* at the barrier */
    int n_waiting;
    int copy_mode;

    unsigned char *shared; /* the arena of a block */
    size_t shared_used, shared_static;
    std::vector<mb_emu_array *> arrays;
    unsigned char *smem;
} b;

/* ---- switching -------------------------------------------------------------------------------- */

void fiber_main();

#if defined(__x86_64__)
extern "C" HIDDEN void mb_emu_switch(void **save, void *load);
asm(R"(
    .text
    .hidden mb_emu_switch
    .type mb_emu_switch, @function
    .globl mb_emu_switch
mb_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size mb_emu_switch, .-mb_emu_switch
)");
#endif

void fiber_make(fiber *f, int number)
{
    unsigned char *at =
        static_cast<unsigned char *>(mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (at == MAP_FAILED)
        mb_emu_fail("no memory for a thread's stack");
    mprotect(at, PAGE, PROT_NONE);
    f->stack = at + PAGE;
#if defined(__x86_64__)
    /* Tops at different offsets of a page: they would share a few cache sets otherwise. */
    void **sp = reinterpret_cast<void **>(f->stack + STACK - 64 - number * 320 % PAGE);
    *--sp = nullptr; /* keeps the stack aligned as after a call */
    *--sp = reinterpret_cast<void *>(fiber_main);
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
    f->sp = sp;
#else
    (void)number;
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    f->context.uc_link = nullptr;
    makecontext(&f->context, fiber_main, 0);
#endif
}

#if EMU_ASAN
const void *host_bottom;
size_t host_size;
bool left_host;

/* The sanitizer is told that we are on another stack now, and tells which one we left. */
void arrived(void *fake_stack)
{
    const void *bottom;
    size_t size;

    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &size);
    if (left_host) {
        host_bottom = bottom;
        host_size = size;
    }
}
#endif

void jump(fiber *to)
{
    fiber *from = b.current;

    b.current = to;
    mb_emu_thread_index.x = (unsigned)to->thread;
#if EMU_ASAN
    left_host = from == &b.host;
    if (to == &b.host)
        __sanitizer_start_switch_fiber(&from->asan, host_bottom, host_size);
    else
        __sanitizer_start_switch_fiber(&from->asan, to->stack, STACK);
#endif
#if defined(__x86_64__)
    mb_emu_switch(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
#if EMU_ASAN
    arrived(from->asan);
#endif
}

/* ---- who runs next ---------------------------------------------------------------------------- */

fiber *take_ready()
{
    const int i = b.last_first ? b.n_ready - 1 : (int)emu_random((uint32_t)b.n_ready);
    fiber *f = b.ready[i];

    b.ready[i] = b.ready[--b.n_ready];
    return f;
}

fiber *take_idle()
{
    if (b.n_idle > 0)
        return b.idle[--b.n_idle];
    fiber *f = &b.fibers[b.n_fibers];
    fiber_make(f, b.n_fibers++);
    return f;
}

state state_of(int thread)
{
    return b.of[thread] == nullptr ? RETURNED : b.of[thread]->is;
}

/* Ends the process: not everybody comes to where some wait. */
[[noreturn]] void divergent()
{
    int waits = -1, other = -1;

    for (int t = 0; t < b.threads && waits < 0; t++)
        if (state_of(t) == AT_WARP)
            waits = t;
    if (waits >= 0) {
        for (int t = waits / 32 * 32; t < waits / 32 * 32 + 32 && other < 0; t++)
            if (state_of(t) != AT_WARP)
                other = t;
    } else {
        for (int t = 0; t < b.threads; t++) {
            if (state_of(t) == AT_BARRIER && waits < 0)
                waits = t;
            if (state_of(t) != AT_BARRIER && other < 0)
                other = t;
        }
    }
    if (waits < 0 || other < 0)
        mb_emu_fail("nobody can go on");
    const fiber *w = b.of[waits], *o = b.of[other];
    char elsewhere[256];
    if (o == nullptr)
        snprintf(elsewhere, sizeof elsewhere, "thread %d has returned", other);
    else
        snprintf(elsewhere, sizeof elsewhere, "thread %d waits at %s:%d", other, o->file, o->line);
    mb_emu_thread_index.x = (unsigned)waits;
    mb_emu_fail("%s:%d: divergent %s: thread %d waits there, %s", w->file, w->line,
                w->is == AT_WARP ? "warp function" : "__syncthreads", waits, elsewhere);
}

/* The current thread waits; somebody else goes on. */
void give_way()
{
    const bool start = b.started < b.threads;

    if (b.n_ready > 0 && !(start && b.eager_start))
        jump(take_ready());
    else if (start)
        jump(take_idle());
    else
        divergent();
}

void land(fiber *f, size_t end)
{
    for (size_t i = 0; i < end; i++) {
        if (f->copies[i].to == nullptr)
            continue;
        if (f->copies[i].from != nullptr)
            memcpy(f->copies[i].to, f->copies[i].from, 16);
        else
            memset(f->copies[i].to, 0, 16);
        f->copies[i].to = nullptr;
    }
}

void thread_run(fiber *f)
{
    const int i = b.started++;

    f->thread = b.warp_order[i >> 5] + b.lane_order[i & 31];
    mb_emu_thread_index.x = (unsigned)f->thread;
    b.of[f->thread] = f;
    f->is = STARTED;
    b.launch->thread(b.launch->call);
    if (!f->copies.empty()) {
        land(f, f->copies.size());
        f->copies.clear();
        f->groups.clear();
    }
    b.of[f->thread] = nullptr;
    b.returned++;
}

void fiber_main()
{
#if EMU_ASAN
    arrived(nullptr);
#endif
    for (;;) {
        fiber *f = b.current;

        thread_run(f);
        const bool start = b.started < b.threads;
        if (start && (b.n_ready == 0 || b.eager_start))
            continue;
        if (b.n_ready == 0 && b.returned < b.threads)
            divergent();
        b.idle[b.n_idle++] = f;
        jump(b.n_ready > 0 ? take_ready() : &b.host);
    }
}

/* ---- shared memory ---------------------------------------------------------------------------- */

/* Zones end where shared_used says; an array lies between two. */
unsigned char *shared_take(size_t bytes, size_t align)
{
    const size_t at = (b.shared_used + align - 1) / align * align, end = at + bytes,
                 even = (end + 1) / 2 * 2;

    emu_fill(b.shared + b.shared_used, at - b.shared_used, RED);
    emu_fill(b.shared + at, even - at, POISON);
    if (even != end)
        b.shared[end] = RED >> 8;
    emu_fill(b.shared + even, RED_ZONE, RED);
    b.shared_used = even + RED_ZONE;
    return b.shared + at;
}

void shared_begin(size_t smem)
{
    if (b.shared == nullptr) {
        const size_t bytes = 1 << 20; /* more than is ever allowed; the ends are not mapped */
        unsigned char *p =
            static_cast<unsigned char *>(mmap(nullptr, bytes + 2 * PAGE, PROT_NONE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (p == MAP_FAILED || mprotect(p + PAGE, bytes, PROT_READ | PROT_WRITE) != 0)
            mb_emu_fail("no memory for shared memory");
        b.shared = p + PAGE;
    }
    mb_emu_block_serial++;
    b.shared_static = 0;
    b.arrays.clear();
    emu_fill(b.shared, RED_ZONE, RED);
    b.shared_used = RED_ZONE;
    b.smem = smem > 0 ? shared_take(smem, 128) : nullptr;
}

void zone_check(const unsigned char *from, const unsigned char *to, const char *name,
                const unsigned char *array, size_t bytes, const char *file, int line)
{
    const unsigned char *p = from;

    while (p < to) {
        const bool low = (uintptr_t)p % 2 == 0;
        if (*p != (low ? (RED & 0xff) : (RED >> 8)))
            break;
        p++;
    }
    if (p == to)
        return;
    char where[256] = "";
    if (file != nullptr)
        snprintf(where, sizeof where, " (%s:%d)", file, line);
    mb_emu_fail("shared memory was written at offset %lld of %s%s, which has %zu bytes",
                (long long)(p - array), name, where, bytes);
}

void shared_end(size_t smem)
{
    if (b.smem != nullptr) {
        zone_check(b.smem - RED_ZONE, b.smem, "the launch's shared memory", b.smem, smem, nullptr,
                   0);
        zone_check(b.smem + smem, b.smem + smem + RED_ZONE, "the launch's shared memory", b.smem,
                   smem, nullptr, 0);
    }
    for (const mb_emu_array *a : b.arrays) {
        zone_check(a->at - RED_ZONE, a->at, a->name, a->at, a->bytes, a->file, a->line);
        zone_check(a->at + a->bytes, a->at + a->bytes + RED_ZONE, a->name, a->at, a->bytes, a->file,
                   a->line);
    }
}

/* ---- warp functions --------------------------------------------------------------------------- */

void shuffle(warp *w)
{
    for (int i = 0; i < 32; i++)
        w->op[i]->result = w->op[w->op[i]->from & 31]->value;
}

void ballot(warp *w)
{
    uint32_t bits = 0;

    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)(w->op[i]->value != 0) << i;
    for (int i = 0; i < 32; i++)
        w->op[i]->result = bits;
}

void ldmatrix(warp *w, bool transposed)
{
    for (int j = 0; j < 4; j++) {
        uint16_t m[8][8];
        for (int i = 0; i < 8; i++) {
            const void *row = w->op[8 * j + i]->row;
            if ((uintptr_t)row % 16 != 0 || !emu_is_shared(row, 16))
                mb_emu_fail("%s:%d: mb_ldmatrix: lane %d gives %p, which is not an address in "
                            "shared memory aligned to 16",
                            w->op[0]->file, w->op[0]->line, 8 * j + i, row);
            memcpy(m[i], row, 16);
        }
        for (int i = 0; i < 32; i++) {
            const int r = i / 4, c = 2 * (i % 4);
            const uint32_t low = transposed ? m[c][r] : m[r][c],
                           high = transposed ? m[c + 1][r] : m[r][c + 1];
            w->op[i]->r[j] = low | high << 16;
        }
    }
}

typedef float row8 __attribute__((vector_size(32)));

template <typename T> void widen(float *to, const uint16_t *from, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = mb_to_f32(T{from[i]});
}

#if defined(__F16C__)
template <> void widen<mb_f16>(float *to, const uint16_t *from, int n)
{
    for (int i = 0; i < n; i += 8)
        _mm256_storeu_ps(
            to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i))));
}
#endif

/* Products are exact in f32; they are added to c in the order of k. */
template <typename T> void mma(warp *w)
{
    alignas(32) uint16_t a16[16][16], b16[16][8];
    alignas(32) float a[16][16], m[16][8], c[16][8];

    for (int i = 0; i < 32; i++) {
        const mb_emu_op *op = w->op[i];
        const int g = i / 4, t = 2 * (i % 4);
        memcpy(&a16[g][t], &op->a[0], 4);
        memcpy(&a16[g + 8][t], &op->a[1], 4);
        memcpy(&a16[g][t + 8], &op->a[2], 4);
        memcpy(&a16[g + 8][t + 8], &op->a[3], 4);
        for (int h = 0; h < 2; h++) {
            b16[t + 8 * h][g] = (uint16_t)op->b[h];
            b16[t + 8 * h + 1][g] = (uint16_t)(op->b[h] >> 16);
        }
        memcpy(&c[g][t], &op->c[0], 8);
        memcpy(&c[g + 8][t], &op->c[2], 8);
    }
    widen<T>(&a[0][0], &a16[0][0], 256);
    widen<T>(&m[0][0], &b16[0][0], 128);
    for (int r = 0; r < 16; r++) {
        row8 sum = *reinterpret_cast<const row8 *>(c[r]);
        for (int k = 0; k < 16; k++)
            sum += a[r][k] * *reinterpret_cast<const row8 *>(m[k]);
        *reinterpret_cast<row8 *>(c[r]) = sum;
    }
    for (int i = 0; i < 32; i++) {
        const int g = i / 4, t = 2 * (i % 4);
        memcpy(&w->op[i]->c[0], &c[g][t], 8);
        memcpy(&w->op[i]->c[2], &c[g + 8][t], 8);
    }
}

void run_block()
{
    const int warps = b.threads / 32;

    b.started = b.returned = b.n_waiting = b.n_ready = 0;
    emu_order order = emu_shuffled((uint64_t)warps), lanes = emu_shuffled(32);
    for (int w = 0; w < warps; w++)
        b.warp_order[w] = 32 * (int)order.next();
    for (int &lane : b.lane_order)
        lane = (int)lanes.next();
    b.eager_start = emu_random(2) == 0;
    b.last_first = emu_random(2) == 0;
    b.copy_mode = (int)emu_random(4);
    for (int w = 0; w < warps; w++)
        b.warps[w].arrived = 0;
    shared_begin(b.launch->smem);
    jump(take_idle());
    shared_end(b.launch->smem);
}

} // namespace

/* ---- what kernels call ------------------------------------------------------------------------ */

void mb_emu_collective(mb_emu_op *op)
{
    fiber *f = b.current;
    const int lane = f->thread & 31;
    warp *w = &b.warps[f->thread >> 5];

    if (w->arrived > 0) {
        const mb_emu_op *first = w->first;
        if (first->kind != op->kind || first->line != op->line ||
            (first->file != op->file && strcmp(first->file, op->file) != 0))
            mb_emu_fail("%s:%d: divergent warp function: other lanes of the warp wait at %s:%d",
                        op->file, op->line, first->file, first->line);
    } else {
        w->first = op;
    }
    if (op->kind == MB_EMU_SHUFFLE && (op->from < 0 || op->from > 31))
        mb_emu_fail("%s:%d: a shuffle from lane %d", op->file, op->line, op->from);
    w->op[lane] = op;
    w->lane[lane] = f;
    if (++w->arrived < 32) {
        f->is = AT_WARP;
        f->file = op->file;
        f->line = op->line;
        give_way();
        return;
    }
    switch (op->kind) {
    case MB_EMU_SHUFFLE:
        shuffle(w);
        break;
    case MB_EMU_BALLOT:
        ballot(w);
        break;
    case MB_EMU_SYNCWARP:
        break;
    case MB_EMU_LDMATRIX:
        ldmatrix(w, false);
        break;
    case MB_EMU_LDMATRIX_T:
        ldmatrix(w, true);
        break;
    case MB_EMU_MMA_BF16:
        mma<mb_bf16>(w);
        break;
    case MB_EMU_MMA_F16:
        mma<mb_f16>(w);
        break;
    }
    w->arrived = 0;
    const uint32_t turn = emu_random(32);
    for (uint32_t i = 0; i < 32; i++) {
        fiber *g = w->lane[i ^ turn];
        if (g == f)
            continue;
        g->is = STARTED;
        b.ready[b.n_ready++] = g;
    }
}

void mb_emu_barrier(const char *file, int line)
{
    fiber *f = b.current;

    if (b.n_waiting > 0) {
        const fiber *first = b.waiting[0];
        if (first->line != line || (first->file != file && strcmp(first->file, file) != 0))
            mb_emu_fail("%s:%d: divergent __syncthreads: thread %d waits at %s:%d", file, line,
                        first->thread, first->file, first->line);
    }
    if (b.n_waiting + 1 < b.threads) {
        f->is = AT_BARRIER;
        f->file = file;
        f->line = line;
        b.waiting[b.n_waiting++] = f;
        give_way();
        return;
    }
    for (int i = 0; i < b.n_waiting; i++) {
        b.waiting[i]->is = STARTED;
        b.ready[b.n_ready++] = b.waiting[i];
    }
    b.n_waiting = 0;
    /* The last to arrive has no privilege. */
    if (b.n_ready > 0 && emu_random(2) == 0) {
        b.ready[b.n_ready++] = f;
        fiber *g = take_ready();
        if (g != f)
            jump(g);
    }
}

void mb_emu_array_place(mb_emu_array *a)
{
    if (b.launch == nullptr)
        mb_emu_fail("%s:%d: shared memory outside of a kernel", a->file, a->line);
    b.shared_static += a->bytes;
    if (b.shared_static > SHARED_STATIC)
        mb_emu_fail("%s:%d: %zu bytes of shared arrays, of %d", a->file, a->line, b.shared_static,
                    (int)SHARED_STATIC);
    if (b.shared_static + b.launch->smem > emu_shared_limit())
        mb_emu_fail("%s:%d: %zu bytes of shared arrays and %zu of the launch, of %zu", a->file,
                    a->line, b.shared_static, b.launch->smem, emu_shared_limit());
    a->at = shared_take(a->bytes, a->align < 16 ? 16 : a->align);
    a->block = mb_emu_block_serial;
    b.arrays.push_back(a);
}

unsigned char *mb_emu_smem(size_t align)
{
    if (align > 128)
        mb_emu_fail("shared memory of the launch is aligned to 128 bytes, not to %zu", align);
    if (b.smem == nullptr) /* allowed, as long as nobody looks */
        return b.shared + (1 << 20) + PAGE / 2;
    return b.smem;
}

void mb_emu_cp_async(void *shared, const void *global, bool there, const char *file, int line)
{
    fiber *f = b.current;

    if ((uintptr_t)shared % 16 != 0 || !emu_is_shared(shared, 16))
        mb_emu_fail("%s:%d: mb_cp_async to %p, which is not in shared memory and aligned to 16",
                    file, line, shared);
    if (there && (uintptr_t)global % 16 != 0)
        mb_emu_fail("%s:%d: mb_cp_async from %p, which is not aligned to 16", file, line, global);
    const int mode = b.copy_mode == 3 ? (int)emu_random(3) : b.copy_mode;
    if (there) /* is it readable? */
        (void)*static_cast<const volatile unsigned char *>(global);
    f->copies.push_back({shared, there ? global : nullptr});
    if (mode == 0)
        land(f, f->copies.size());
    else if (mode == 1)
        emu_fill(shared, 16, POISON);
}

void mb_emu_cp_commit()
{
    b.current->groups.push_back(b.current->copies.size());
}

void mb_emu_cp_wait(int pending)
{
    fiber *f = b.current;
    const size_t n = f->groups.size();

    if (n <= (size_t)pending)
        return;
    const size_t done = n - (size_t)pending, end = f->groups[done - 1];
    land(f, end);
    f->copies.erase(f->copies.begin(), f->copies.begin() + (ptrdiff_t)end);
    f->groups.erase(f->groups.begin(), f->groups.begin() + (ptrdiff_t)done);
    for (size_t &g : f->groups)
        g -= end;
}

/* ---- what the streams call -------------------------------------------------------------------- */

size_t emu_shared_limit(void)
{
    static size_t limit;

    if (limit == 0) {
        const char *e = getenv("MBUYU_EMU_SHARED");
        limit = e != nullptr ? (size_t)strtoull(e, nullptr, 10) : (size_t)SHARED_MOST;
        if (limit == 0 || limit > SHARED_MOST)
            limit = SHARED_MOST;
    }
    return limit;
}

bool emu_is_shared(const void *p, size_t bytes)
{
    const unsigned char *at = static_cast<const unsigned char *>(p);

    return b.shared != nullptr && at >= b.shared && at + bytes <= b.shared + b.shared_used;
}

bool emu_is_stack_guard(const void *p)
{
    for (int i = 0; i < b.n_fibers; i++)
        if (static_cast<const unsigned char *>(p) >= b.fibers[i].stack - PAGE &&
            static_cast<const unsigned char *>(p) < b.fibers[i].stack)
            return true;
    return false;
}

bool emu_where(char *text, size_t size)
{
    if (b.launch == nullptr)
        return false;
    const mb_emu_site &s = b.launch->site;
    snprintf(text, size, "kernel %s (launched at %s:%d), block %lld, thread %u", s.kernel, s.file,
             s.line, (long long)b.block, mb_emu_thread_index.x);
    return true;
}

void emu_run_launch(const mb_emu_launch_config &l)
{
    emu_order order = emu_shuffled((uint64_t)l.grid);

    b.launch = &l;
    b.threads = l.block;
    b.current = &b.host;
    mb_emu_block_size.x = (unsigned)l.block;
    mb_emu_grid_size.x = (unsigned)l.grid;
    for (int64_t i = 0; i < l.grid; i++) {
        b.block = (int64_t)order.next();
        mb_emu_block_index.x = (unsigned)b.block;
        run_block();
    }
    b.launch = nullptr;
}
