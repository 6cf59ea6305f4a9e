/* tests/emu/emu.h - what the emulator's own files know of each other. */
#ifndef MB_TESTS_EMU_EMU_H
#define MB_TESTS_EMU_EMU_H

#include <cuda_runtime.h>
#include <stdint.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* NaN in f32, f64, bf16 and f16, large as an integer: memory that was not written / not to be. */
constexpr uint16_t POISON = 0x7fff, RED = 0xffa5;

/* xorshift64*; one sequence for all choices, so that a seed repeats a run. */
extern HIDDEN uint64_t emu_state;
static inline uint32_t emu_random(uint32_t below)
{
    emu_state ^= emu_state >> 12;
    emu_state ^= emu_state << 25;
    emu_state ^= emu_state >> 27;
    const uint64_t r = (emu_state * 0x2545f4914f6cdd1dull) >> 32;
    return (uint32_t)(r * below >> 32);
}

/* The numbers 0..n-1 in some order: b, b + a, b + 2a, ... mod n. */
struct emu_order {
    uint64_t n, a, b;

    uint64_t next()
    {
        const uint64_t now = b;
        b = b + a >= n ? b + a - n : b + a;
        return now;
    }
};
HIDDEN emu_order emu_shuffled(uint64_t n);

HIDDEN void emu_fill(void *p, size_t bytes, uint16_t pattern);
/* The first byte of p that is not `pattern`, or `bytes`. */
HIDDEN size_t emu_unlike(const void *p, size_t bytes, uint16_t pattern);

/* ---- block.cc: one launch -------------------------------------------------------------------- */

HIDDEN void emu_run_launch(const mb_emu_launch_config &l);
/* Writes "kernel x (launched at f:l), block b, thread t" when one is running. */
HIDDEN bool emu_where(char *text, size_t size);
/* Is p inside a fiber's guard page? */
HIDDEN bool emu_is_stack_guard(const void *p);
HIDDEN bool emu_is_shared(const void *p, size_t bytes);
HIDDEN size_t emu_shared_limit(void);

/* ---- memory.cc -------------------------------------------------------------------------------- */

HIDDEN bool emu_in_arena(const void *p);
/* Is [p, p+bytes) inside one allocation? Fails with a sentence about `what` when it begins in the
 * arena and is not. */
HIDDEN bool emu_is_device(const void *p, size_t bytes, const char *what);
HIDDEN bool emu_is_pinned(const void *p);
/* Device memory is readable between these; they nest. */
HIDDEN void emu_open(void);
HIDDEN void emu_close(void);
HIDDEN void emu_check_red_zones(const char *after);
HIDDEN void emu_zero(void *p, size_t bytes); /* device memory, open */
HIDDEN void emu_materialise(const void *whole, size_t bytes);

/* ---- stream.cc -------------------------------------------------------------------------------- */

HIDDEN cudaError_t emu_error(cudaError_t e);
HIDDEN cudaError_t emu_finish_all(void);
HIDDEN const char *emu_operation(void); /* what runs now, or NULL */

#ifdef __cplusplus
#include <functional>
/* Queues a function that touches device memory. */
HIDDEN cudaError_t emu_queue(cudaStream_t stream, const char *what, std::function<void()> run);
#endif

#endif
