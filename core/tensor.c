/* core/tensor.c - see core/tensor.h. */
#include "core/tensor.h"

#include <stdio.h>

mb_tensor mb_tensor_of(void *data, mb_dtype dtype, int ndim, const int64_t *dim)
{
    mb_tensor t = {.data = data, .dtype = dtype, .ndim = ndim};
    int64_t step = 1;

    MB_ASSERT(ndim >= 0 && ndim <= MB_MAX_DIMS);
    for (int i = ndim - 1; i >= 0; i--) {
        t.dim[i] = dim[i];
        t.stride[i] = step;
        step *= dim[i];
    }
    return t;
}

mb_tensor mb_tensor_1d(void *data, mb_dtype dtype, int64_t n)
{
    return mb_tensor_of(data, dtype, 1, (const int64_t[]){n});
}

mb_tensor mb_tensor_2d(void *data, mb_dtype dtype, int64_t rows, int64_t cols)
{
    return mb_tensor_of(data, dtype, 2, (const int64_t[]){rows, cols});
}

static void *advance(const mb_tensor *t, int64_t elements)
{
    return t->data == NULL ? NULL : (char *)t->data + elements * mb_dtype_block_bytes(t->dtype);
}

mb_tensor mb_tensor_columns(const mb_tensor *t, int64_t from, int64_t n)
{
    mb_tensor v = *t;

    MB_ASSERT(t->ndim > 0 && from >= 0 && from + n <= mb_cols(t) && mb_dtype_block(t->dtype) == 1);
    v.data = advance(t, from);
    v.dim[t->ndim - 1] = n;
    return v;
}

mb_tensor mb_tensor_rows(const mb_tensor *t, int64_t from, int64_t n)
{
    mb_tensor v = *t;

    MB_ASSERT(t->ndim > 0 && from >= 0 && from + n <= t->dim[0]);
    MB_ASSERT(mb_dtype_block(t->dtype) == 1 || t->stride[0] % mb_dtype_block(t->dtype) == 0);
    v.data =
        t->data == NULL ? NULL : (char *)t->data + mb_dtype_bytes(t->dtype, from * t->stride[0]);
    v.dim[0] = n;
    return v;
}

int64_t mb_tensor_count(const mb_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++)
        n *= t->dim[i];
    return n;
}

int64_t mb_tensor_bytes(const mb_tensor *t)
{
    return mb_dtype_bytes(t->dtype, mb_tensor_count(t));
}

bool mb_tensor_same_shape(const mb_tensor *a, const mb_tensor *b)
{
    if (a->ndim != b->ndim)
        return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

bool mb_tensor_is_contiguous(const mb_tensor *t)
{
    int64_t step = 1;

    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->dim[i] != 1 && t->stride[i] != step)
            return false;
        step *= t->dim[i];
    }
    return true;
}

const char *mb_tensor_shape(const mb_tensor *t, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "[");

    for (int i = 0; i < t->ndim && n < size; i++)
        n +=
            (size_t)snprintf(text + n, size - n, "%s%lld", i > 0 ? ", " : "", (long long)t->dim[i]);
    if (n < size)
        snprintf(text + n, size - n, "]");
    return text;
}
