/* core/cpu/cast.c - conversions between ordinary element types.
 *
 * Everything goes through strips of f32: a load function per source type, a store function per
 * destination type, both rounding to nearest even. F32 needs no strip, and I32 <-> I64 and equal
 * types go directly. An I32, U32, I64 or U64 that has no exact f32 is rounded, so F64 takes none of
 * these.
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

typedef void (*load_fn)(float *restrict out, const void *restrict in, int64_t n);
typedef void (*store_fn)(void *restrict out, const float *restrict in, int64_t n);

MB_CPU_CLONES static void load_f64(float *restrict out, const void *restrict in, int64_t n)
{
    const double *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_i8(float *restrict out, const void *restrict in, int64_t n)
{
    const int8_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_u8(float *restrict out, const void *restrict in, int64_t n)
{
    const uint8_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_i16(float *restrict out, const void *restrict in, int64_t n)
{
    const int16_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_u16(float *restrict out, const void *restrict in, int64_t n)
{
    const uint16_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_i32(float *restrict out, const void *restrict in, int64_t n)
{
    const int32_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_u32(float *restrict out, const void *restrict in, int64_t n)
{
    const uint32_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_i64(float *restrict out, const void *restrict in, int64_t n)
{
    const int64_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

MB_CPU_CLONES static void load_u64(float *restrict out, const void *restrict in, int64_t n)
{
    const uint64_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = (float)x[i];
}

/* Whatever the byte holds, not zero is true. */
MB_CPU_CLONES static void load_bool(float *restrict out, const void *restrict in, int64_t n)
{
    const uint8_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] != 0 ? 1.0f : 0.0f;
}

static const load_fn load[MB_DTYPE_COUNT] = {
    [MB_DTYPE_F16] = mb_cpu_widen_f16, [MB_DTYPE_BF16] = mb_cpu_widen_bf16,
    [MB_DTYPE_F64] = load_f64,         [MB_DTYPE_I8] = load_i8,
    [MB_DTYPE_U8] = load_u8,           [MB_DTYPE_I16] = load_i16,
    [MB_DTYPE_U16] = load_u16,         [MB_DTYPE_I32] = load_i32,
    [MB_DTYPE_U32] = load_u32,         [MB_DTYPE_I64] = load_i64,
    [MB_DTYPE_U64] = load_u64,         [MB_DTYPE_BOOL] = load_bool,
};

MB_CPU_CLONES static void store_f64(void *restrict out, const float *restrict in, int64_t n)
{
    double *y = out;

    for (int64_t i = 0; i < n; i++)
        y[i] = (double)in[i];
}

static const store_fn store[MB_DTYPE_COUNT] = {
    [MB_DTYPE_F16] = mb_cpu_narrow_f16,
    [MB_DTYPE_BF16] = mb_cpu_narrow_bf16,
    [MB_DTYPE_F64] = store_f64,
};

MB_CPU_CLONES static void widen(int64_t *restrict out, const int32_t *restrict in, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = in[i];
}

/* Returns whether every value fits. */
MB_CPU_CLONES static bool narrow(int32_t *restrict out, const int64_t *restrict in, int64_t n)
{
    int lost = 0;

    for (int64_t i = 0; i < n; i++) {
        out[i] = (int32_t)in[i];
        lost |= out[i] != in[i];
    }
    return lost == 0;
}

/* n elements; returns false when a value does not fit. */
static bool convert(void *out, mb_dtype to, const void *in, mb_dtype from, int64_t n)
{
    mb_strip strip;
    const int64_t in_size = mb_dtype_block_bytes(from), out_size = mb_dtype_block_bytes(to);

    if (from == MB_DTYPE_I32 && to == MB_DTYPE_I64) {
        widen(out, in, n);
        return true;
    }
    if (from == MB_DTYPE_I64 && to == MB_DTYPE_I32)
        return narrow(out, in, n);
    if (to == MB_DTYPE_F32) {
        load[from](out, in, n);
        return true;
    }
    if (from == MB_DTYPE_F32) {
        store[to](out, in, n);
        return true;
    }
    for (int64_t i = 0; i < n; i += MB_STRIP) {
        const int64_t m = mb_strip_length(n, i);

        load[from](strip, (const char *)in + i * in_size, m);
        store[to]((char *)out + i * out_size, strip, m);
    }
    return true;
}

static bool supported(mb_dtype to, mb_dtype from)
{
    if ((from == MB_DTYPE_I32 && to == MB_DTYPE_I64) ||
        (from == MB_DTYPE_I64 && to == MB_DTYPE_I32))
        return true;
    if (to == MB_DTYPE_F64 && (from == MB_DTYPE_I32 || from == MB_DTYPE_U32 ||
                               from == MB_DTYPE_I64 || from == MB_DTYPE_U64))
        return false;
    return (from == MB_DTYPE_F32 || load[from] != NULL) &&
           (to == MB_DTYPE_F32 || store[to] != NULL);
}

mb_status mb_cpu_cast(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    const mb_dtype to = y->dtype, from = x->dtype;
    bool lost = false;

    if (to == from)
        return mb_cpu_copy(ex, y, x);
    MB_REQUIRE(supported(to, from), MB_ENOTSUP, "cast: no conversion from %s to %s",
               mb_dtype_name(from), mb_dtype_name(to));
    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){y, x});
    const int team = mb_team(ex, mb_tensor_count(y));

#pragma omp parallel for num_threads(team) schedule(static) reduction(| : lost)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        const int64_t out = at.row * mb_row_stride(y) + at.col;
        const int64_t in = at.row * mb_row_stride(x) + at.col;

        lost |= !convert((char *)y->data + mb_dtype_bytes(to, out), to,
                         (const char *)x->data + mb_dtype_bytes(from, in), from, at.n);
    }
    MB_REQUIRE(!lost, MB_EDATA, "cast: a value of the %s tensor does not fit %s",
               mb_dtype_name(from), mb_dtype_name(to));
    return MB_OK;
}
