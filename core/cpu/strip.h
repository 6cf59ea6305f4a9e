/* core/cpu/strip.h - f32, bf16 and f16 tensors as f32: what kernels compute with.
 *
 * A kernel cuts its work into strips of at most MB_STRIP elements and asks for each as f32. Of an
 * f32 tensor it gets the place itself, of a 16-bit one a widened copy in a strip of its own, which
 * stays in the first-level cache. What it writes into such a strip is rounded once, to nearest even:
 *
 *     mb_strip xs, ys;
 *     const float *x = mb_strip_read(xs, t, row, col, n);
 *     float *y = mb_strip_open(ys, out, row, col, n, acc);
 *     ... y[i] (+)= f(x[i]) ...
 *     mb_strip_close(y, out, row, col, n);
 *
 * Tensors may be of different types, and one may be in the place of another where that is allowed
 * in f32: an element is read before it is written.
 */
#ifndef MB_CORE_CPU_STRIP_H
#define MB_CORE_CPU_STRIP_H

#include "core/cpu/cpu.h"

enum { MB_STRIP = 1024 }; /* elements; a multiple of MB_LANES */

/* Whole cache lines: vectors that lie across two cost twice. */
typedef float mb_strip[MB_STRIP] __attribute__((aligned(64)));

/* n values of 16 bits to f32 and back, rounded to nearest even; NaN stays NaN. */
void mb_cpu_widen_bf16(float *restrict out, const void *restrict in, int64_t n);
void mb_cpu_widen_f16(float *restrict out, const void *restrict in, int64_t n);
void mb_cpu_narrow_bf16(void *restrict out, const float *restrict in, int64_t n);
void mb_cpu_narrow_f16(void *restrict out, const float *restrict in, int64_t n);

/* type: BF16 or F16 */
static inline void mb_cpu_widen(float *restrict out, const void *restrict in, mb_dtype type,
                                int64_t n)
{
    MB_ASSERT(type == MB_DTYPE_BF16 || type == MB_DTYPE_F16);
    if (type == MB_DTYPE_BF16)
        mb_cpu_widen_bf16(out, in, n);
    else
        mb_cpu_widen_f16(out, in, n);
}

static inline void mb_cpu_narrow(void *restrict out, mb_dtype type, const float *restrict in,
                                 int64_t n)
{
    MB_ASSERT(type == MB_DTYPE_BF16 || type == MB_DTYPE_F16);
    if (type == MB_DTYPE_BF16)
        mb_cpu_narrow_bf16(out, in, n);
    else
        mb_cpu_narrow_f16(out, in, n);
}

static inline uint16_t *mb_at16(const mb_tensor *t, int64_t row, int64_t col)
{
    return (uint16_t *)t->data + row * mb_row_stride(t) + col;
}

/* Elements [col, col + n) of a row, n <= MB_STRIP unless t is f32; NULL of NULL. */
static inline const float *mb_strip_read(float *strip, const mb_tensor *t, int64_t row, int64_t col,
                                         int64_t n)
{
    if (t == NULL)
        return NULL;
    if (t->dtype == MB_DTYPE_F32)
        return mb_row(t, row) + col;
    MB_ASSERT(n <= MB_STRIP);
    mb_cpu_widen(strip, mb_at16(t, row, col), t->dtype, n);
    return strip;
}

/* Where to write these elements; `acc`: what they are now stands there. */
static inline float *mb_strip_open(float *strip, const mb_tensor *t, int64_t row, int64_t col,
                                   int64_t n, bool acc)
{
    if (t == NULL)
        return NULL;
    if (t->dtype == MB_DTYPE_F32)
        return mb_row(t, row) + col;
    MB_ASSERT(n <= MB_STRIP);
    if (acc)
        mb_cpu_widen(strip, mb_at16(t, row, col), t->dtype, n);
    return strip;
}

/* y: what mb_strip_open gave. */
static inline void mb_strip_close(const float *y, const mb_tensor *t, int64_t row, int64_t col,
                                  int64_t n)
{
    if (t != NULL && t->dtype != MB_DTYPE_F32)
        mb_cpu_narrow(mb_at16(t, row, col), t->dtype, y, n);
}

/* sum = a + b of these elements, n <= MB_STRIP; sum may be a or b. */
void mb_cpu_add_strip(const mb_tensor *sum, const mb_tensor *a, const mb_tensor *b, int64_t row,
                      int64_t col, int64_t n);

/* A strip that knows what it holds: a row that is read twice, or a weight that all rows need, is
 * widened once where it fits. Only for what the kernel has not written in between. */
typedef struct mb_kept {
    const void *from; /* NULL: nothing yet */
    mb_strip strip;
} mb_kept;

static inline const float *mb_kept_read(mb_kept *k, const mb_tensor *t, int64_t row, int64_t col,
                                        int64_t n)
{
    if (t == NULL || t->dtype == MB_DTYPE_F32)
        return mb_strip_read(k->strip, t, row, col, n);
    if (k->from != mb_at16(t, row, col))
        mb_strip_read(k->strip, t, row, col, n);
    k->from = mb_at16(t, row, col);
    return k->strip;
}

static inline int64_t mb_strip_length(int64_t n, int64_t from)
{
    return n - from < MB_STRIP ? n - from : MB_STRIP;
}

#endif
