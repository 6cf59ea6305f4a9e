/* core/cpu/vec16.h - sixteen or eight floats as one value, for kernels whose registers must be spelt
 * out.
 *
 * gcc's vector type is lowered to what the function's instruction set has. What is wider than a
 * register it keeps in memory, which is slow: sixteen are for code that only AVX-512 runs, eight
 * for what AVX2 runs, too. It is never passed to or returned from a function by value (that would
 * be an ABI question), hence macros.
 */
#ifndef MB_CORE_CPU_VEC16_H
#define MB_CORE_CPU_VEC16_H

typedef float mb_vec16 __attribute__((vector_size(64), may_alias));
typedef float mb_vec16_any __attribute__((vector_size(64), aligned(4), may_alias));

typedef float mb_vec8 __attribute__((vector_size(32), may_alias));
typedef float mb_vec8_any __attribute__((vector_size(32), aligned(4), may_alias));

#define MB_LOAD8(p)      (*(const mb_vec8_any *)(p))
#define MB_STORE8(p, v)  (*(mb_vec8_any *)(p) = (v))
#define MB_LOAD16(p)     (*(const mb_vec16_any *)(p))
#define MB_STORE16(p, v) (*(mb_vec16_any *)(p) = (v))

#endif
