/* tests/device/shadow.h - every kernel call made twice, on the CPU and on the device in a 16-bit type.
 *
 * A shadow exec takes host tensors of f32. For each call it rounds what is stored in the type T
 * (f32, bf16 or f16) on a device - activations, weights - to T, runs the CPU's kernel on the rounded
 * values and the device's in T, and holds every output against the CPU's:
 *
 *     |device - cpu| <= bound * max(1, max |cpu|)
 *
 * The bound is that of the type the output is stored in: sums are f32 in all of them. Which tensors
 * are of T, and bounds that are wider than usual, stand in shadow.c. A call out of bounds fails.
 */
#ifndef MB_TESTS_DEVICE_SHADOW_H
#define MB_TESTS_DEVICE_SHADOW_H

#include "core/kernels.h"

typedef enum mb_shadow_gives {
    MB_SHADOW_GIVES_CPU,    /* the caller gets the CPU's results of what it passed, not rounded */
    MB_SHADOW_GIVES_DEVICE, /* the device's results */
} mb_shadow_gives;

/* One shadow at a time: type and what it gives are those of the last exec made. */
mb_exec mb_shadow_exec(mb_arena *scratch, mb_dtype type, mb_shadow_gives gives);
mb_dtype mb_shadow_dtype(const char *name); /* "bf16"; ends the process for others */

/* Per kernel in the order of core/kernels.def. worst: of all calls, the largest share of the
 * bound. */
typedef struct mb_shadow_record {
    const char *kernel;
    int64_t calls;
    double worst;
} mb_shadow_record;
enum {
#define MB_KERNEL(name, params, args)    MB_SHADOW_##name,
#define MB_KERNEL_WS(name, params, args) MB_SHADOW_##name,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
    MB_SHADOW_KERNELS
};
const mb_shadow_record *mb_shadow_records(mb_dtype type); /* MB_SHADOW_KERNELS of them */
/* Kernels that know only their own types: compared for T = f32, in their own types. */
bool mb_shadow_has_type(int kernel);
uint64_t mb_shadow_digest(void); /* of everything the device wrote so far */
void mb_shadow_print(void);      /* the table of records, on stdout */

#endif
