/* core/tensor.h - a view of numbers somewhere: shape, strides, type. No arithmetic.
 *
 * Row-major unless strides say otherwise; the last dimension is always contiguous, so a kernel sees
 * rows(t) rows of cols(t) elements, `stride[0..]` apart. A tensor owns nothing: data is borrowed
 * from an arena, a file buffer or another tensor.
 */
#ifndef MB_CORE_TENSOR_H
#define MB_CORE_TENSOR_H

#include "core/dtype.h"

enum { MB_MAX_DIMS = 5 };

typedef struct mb_tensor {
    void *data;
    mb_dtype dtype;
    int ndim;                    /* 0 is a scalar */
    int64_t dim[MB_MAX_DIMS];    /* dim[ndim-1] varies fastest */
    int64_t stride[MB_MAX_DIMS]; /* in elements */
} mb_tensor;

/* A contiguous tensor over `data`, which is borrowed. */
mb_tensor mb_tensor_of(void *data, mb_dtype dtype, int ndim, const int64_t *dim);
mb_tensor mb_tensor_1d(void *data, mb_dtype dtype, int64_t n);
mb_tensor mb_tensor_2d(void *data, mb_dtype dtype, int64_t rows, int64_t cols);

/* Columns [from, from+n) of the last dimension, sharing data; rows [from, from+n) of the first. */
mb_tensor mb_tensor_columns(const mb_tensor *t, int64_t from, int64_t n);
mb_tensor mb_tensor_rows(const mb_tensor *t, int64_t from, int64_t n);

int64_t mb_tensor_count(const mb_tensor *t); /* elements */
int64_t mb_tensor_bytes(const mb_tensor *t); /* of a contiguous tensor of this shape */
bool mb_tensor_same_shape(const mb_tensor *a, const mb_tensor *b);
bool mb_tensor_is_contiguous(const mb_tensor *t);
/* "[2, 24, 384]" into `text`, which is returned. */
const char *mb_tensor_shape(const mb_tensor *t, char *text, size_t size);

/* The last dimension, the product of the others, and the distance between rows in elements. All
 * dimensions but the first of a tensor with ndim > 2 must be contiguous for mb_row_stride. */
static inline int64_t mb_cols(const mb_tensor *t)
{
    return t->ndim > 0 ? t->dim[t->ndim - 1] : 1;
}

static inline int64_t mb_rows(const mb_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < t->ndim; i++)
        n *= t->dim[i];
    return n;
}

static inline int64_t mb_row_stride(const mb_tensor *t)
{
    return t->ndim > 1 ? t->stride[t->ndim - 2] : mb_cols(t);
}

static inline float *mb_f32(const mb_tensor *t)
{
    return (float *)t->data;
}

static inline int32_t *mb_i32(const mb_tensor *t)
{
    return (int32_t *)t->data;
}

/* Row r of a 2-D f32 tensor. */
static inline float *mb_row(const mb_tensor *t, int64_t r)
{
    return (float *)t->data + r * mb_row_stride(t);
}

#endif
