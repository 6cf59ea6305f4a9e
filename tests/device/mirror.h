/* tests/device/mirror.h - kernels of a device, called with host tensors.
 *
 * A mirrored exec copies all tensors of a call to the device, runs the device's kernel there and
 * copies back what it wrote, so that the tests of CPU kernels run on a GPU or its emulator
 * unchanged. Tensors that overlap on the host overlap on the device, gaps between rows are kept, and
 * an address that is 4 bytes off a vector's boundary is so there too. Around everything lie guard
 * bytes of ones (NaN, or -1). After a call each byte that belongs to no output must be what it was:
 * guards, gaps, inputs. Workspace is handed over full of NaN.
 *
 * A call in steps, as the generated kernels here and in shadow.c make it:
 *
 *     mb_call_begin   note every argument   mb_call_send   the kernel, arguments mapped   mb_call_end
 */
#ifndef MB_TESTS_DEVICE_MIRROR_H
#define MB_TESTS_DEVICE_MIRROR_H

#include <math.h>

#include "core/arguments.h"
#include "core/device.h"

/* What tests of kernels run on, by the environment:
 *
 *     MB_TEST_DEVICE   unset: the CPU; cuda: the plug-in, mirrored; cpu: the CPU through the same
 *                      copies, which tests this file
 *     MB_TEST_DTYPE    f32, bf16, f16: shadowed in that type (shadow.h), the test sees the CPU's
 *                      results
 *
 *     MB_TEST_LONG     set: skipped unless MB_LONG is 1
 *
 * When the device cannot be opened the process says so and ends with 77, which ctest takes for
 * skipped, or with 1 when MB_NEED_DEVICE is set. */
mb_exec mb_test_exec(mb_arena *scratch, int threads);
bool mb_test_on_device(void);
/* For tests that compare a kernel's bits with each other, not with numbers: execs made from now on
 * give the device's results when they shadow. */
void mb_test_bits(bool on);

/* For tests with cmocka: ends one that is about something only the CPU has. */
#define ON_THE_CPU_ONLY(why)                             \
    do {                                                 \
        if (mb_test_on_device()) {                       \
            print_message("not on a device: %s\n", why); \
            skip();                                      \
        }                                                \
    } while (0)

/* got is x + y. On a device y may have been rounded together with the sum, or not at all. */
static inline bool mb_is_sum(float got, float x, float y)
{
    const double off = (double)got - ((double)x + y), size = fabs((double)x) + fabs((double)y);

    return mb_test_on_device() ? fabs(off) <= 0x1p-22 * size : got == x + y;
}

/* The device of MB_TEST_DEVICE, cuda when that is unset. Opened once. */
mb_device *mb_test_device(void);
mb_exec mb_mirror_exec(mb_arena *scratch);

/* ---- one call ------------------------------------------------------------------------------- */

/* `roles` names the tensors in their order and says which follow the type ("y:T rstd:F x:T w:T");
 * "": none does; NULL: none does, and no reference is
 * kept. Tensors that are not f32 never do. */
void mb_call_begin(const char *kernel, const char *roles, mb_dtype type);
/* Copies everything to the device. */
mb_status mb_call_send(void) MB_MUST_USE;
/* Device memory for workspace, set in mb_call_exec(). */
mb_status mb_call_workspace(size_t bytes) MB_MUST_USE;
mb_exec *mb_call_exec(void);
/* Waits, copies back, and looks for bytes that changed and should not have. `st`: what the kernel
 * returned. */
mb_status mb_call_end(mb_status st) MB_MUST_USE;
/* After mb_call_end: the outputs into the caller's tensors. */
void mb_call_give_back(void);
/* A number of everything the device wrote. */
uint64_t mb_call_digest(uint64_t before);

/* Output i of the call, as the caller, the reference and the device have it; NULL when there are no
 * more. `there` is host memory. The reference is a copy on the host, its values rounded to the
 * type. */
typedef struct mb_call_output {
    const char *name;
    mb_tensor host, reference, there;
} mb_call_output;
const mb_call_output *mb_call_output_at(int i);
/* Rounds a tensor of the reference to the call's type. */
void mb_call_round(mb_tensor *t);
const mb_attention *mb_call_attention(void); /* NULL: the kernel has none */

/* ---- arguments by their types --------------------------------------------------------------- */

void mb_note_in(const mb_tensor *t);
void mb_note_out(const mb_tensor *t);
void mb_note_attention(const mb_attention *at);
void mb_note_dropout(const mb_dropout *d);
static inline void mb_note_pointer(const void *p)
{
}
static inline void mb_note_number(double x)
{
}

#define MB_NOTE(x) \
    _Generic((x), mb_exec *                       \
             : mb_note_pointer, mb_tensor *       \
             : mb_note_out, const mb_tensor *     \
             : mb_note_in, const mb_attention *   \
             : mb_note_attention, const mb_dropout * \
             : mb_note_dropout, const mb_unfold * \
             : mb_note_pointer, const mb_adamw *  \
             : mb_note_pointer, default           \
             : mb_note_number)(x)

/* The argument for the device's kernel (there) and for the CPU's (reference). */
mb_exec *mb_there_exec(mb_exec *ex);
mb_tensor *mb_there_out(const mb_tensor *t);
const mb_tensor *mb_there_in(const mb_tensor *t);
const mb_attention *mb_there_attention(const mb_attention *at);
const mb_dropout *mb_there_dropout(const mb_dropout *d);
void mb_reference_table(const mb_kernels *table); /* borrowed; NULL: the CPU's */
mb_exec *mb_reference_exec(mb_exec *ex);
mb_tensor *mb_reference_out(const mb_tensor *t);
const mb_tensor *mb_reference_in(const mb_tensor *t);

#define MB_SAME(type, name)                   \
    static inline type mb_same_##name(type x) \
    {                                         \
        return x;                             \
    }
MB_SAME(const mb_attention *, attention)
MB_SAME(const mb_dropout *, dropout)
MB_SAME(const mb_adamw *, adamw)
MB_SAME(const mb_unfold *, unfold)
MB_SAME(bool, bool)
MB_SAME(int, int)
MB_SAME(unsigned, unsigned)
MB_SAME(int64_t, int64)
MB_SAME(float, float)
MB_SAME(double, double)
#undef MB_SAME

#define MB_MAP(x, exec, out, in, attention, dropout) \
    _Generic((x), mb_exec *                          \
             : exec, mb_tensor *                     \
             : out, const mb_tensor *                \
             : in, const mb_attention *              \
             : attention, const mb_dropout *         \
             : dropout, const mb_unfold *            \
             : mb_same_unfold, const mb_adamw *      \
             : mb_same_adamw, bool                   \
             : mb_same_bool, int                     \
             : mb_same_int, unsigned                 \
             : mb_same_unsigned, int64_t             \
             : mb_same_int64, float                  \
             : mb_same_float, double                 \
             : mb_same_double)(x)
#define MB_THERE(x) \
    MB_MAP(x, mb_there_exec, mb_there_out, mb_there_in, mb_there_attention, mb_there_dropout)
#define MB_REFERENCE(x)                                                                \
    MB_MAP(x, mb_reference_exec, mb_reference_out, mb_reference_in, mb_same_attention, \
           mb_same_dropout)

/* Runs slot `name` of the device's table on the noted and sent arguments. An empty slot is an
 * error. */
#define MB_CALL_THERE(st, name, args)                     \
    (st) = mb_call_exec()->kernels->name == NULL          \
               ? mb_kernel_missing(mb_call_exec(), #name) \
               : mb_call_exec()->kernels->name(MB_EACH(MB_THERE, args))
#define MB_CALL_THERE_WS(st, name, args)                                                      \
    do {                                                                                      \
        (st) = mb_call_exec()->kernels->name##_workspace == NULL                              \
                   ? mb_kernel_missing(mb_call_exec(), #name)                                 \
                   : mb_call_workspace(                                                       \
                         mb_call_exec()->kernels->name##_workspace(MB_EACH(MB_THERE, args))); \
        if ((st) == MB_OK)                                                                    \
            MB_CALL_THERE(st, name, args);                                                    \
    } while (0)

#endif
