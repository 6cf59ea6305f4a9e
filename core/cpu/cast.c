/* core/cpu/cast.c - conversions between ordinary element types.
 *
 * Everything goes through strips of f32: a load function per source type, a store function per
 * destination type, both rounding to nearest even. Only I32 <-> I64 and equal types go directly. An
 * I32, U32, I64 or U64 that has no exact f32 is rounded, so F64 takes none of these.
 *
 * The half conversions are those of core/dtype.c written without branches.
 */
#include "core/cpu/rows.h"

enum { STRIP = 1024 };

typedef void (*load_fn)(float *restrict out, const void *restrict in, int64_t n);
typedef void (*store_fn)(void *restrict out, const float *restrict in, int64_t n);

/* 2^112 moves a half's exponent to a float's; a subnormal half is normalised by a subtraction. */
static inline float half_to_float(uint16_t h)
{
    const uint32_t bits = (uint32_t)(h & 0x7fffu) << 13, exponent = bits & 0x0f800000u;
    const uint32_t normal = bits + (112u << 23);
    const uint32_t tiny =
        mb_bits_of_float(mb_float_of_bits(bits + (113u << 23)) - mb_float_of_bits(113u << 23));
    const uint32_t huge = bits + (224u << 23);
    const uint32_t v = exponent == 0 ? tiny : (exponent == 0x0f800000u ? huge : normal);

    return mb_float_of_bits(v | (uint32_t)(h & 0x8000u) << 16);
}

static inline uint16_t float_to_half(float f)
{
    const uint32_t u = mb_bits_of_float(f), bits = u & 0x7fffffffu;
    const uint32_t normal = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    const uint32_t tiny = mb_bits_of_float(mb_float_of_bits(bits) + 0.5f) - 0x3f000000u;
    const uint32_t finite = bits < 0x38800000u ? tiny : normal;
    const uint32_t large = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;

    return (uint16_t)((bits >= 0x477ff000u ? large : finite) | (u >> 16 & 0x8000u));
}

MB_CPU_CLONES static void load_f32(float *restrict out, const void *restrict in, int64_t n)
{
    memcpy(out, in, sizeof *out * (size_t)n);
}

MB_CPU_CLONES static void load_f16(float *restrict out, const void *restrict in, int64_t n)
{
    const uint16_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = half_to_float(x[i]);
}

MB_CPU_CLONES static void load_bf16(float *restrict out, const void *restrict in, int64_t n)
{
    const uint16_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = mb_bf16_to_f32(x[i]);
}

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
    [MB_DTYPE_F32] = load_f32,   [MB_DTYPE_F16] = load_f16, [MB_DTYPE_BF16] = load_bf16,
    [MB_DTYPE_F64] = load_f64,   [MB_DTYPE_I8] = load_i8,   [MB_DTYPE_U8] = load_u8,
    [MB_DTYPE_I16] = load_i16,   [MB_DTYPE_U16] = load_u16, [MB_DTYPE_I32] = load_i32,
    [MB_DTYPE_U32] = load_u32,   [MB_DTYPE_I64] = load_i64, [MB_DTYPE_U64] = load_u64,
    [MB_DTYPE_BOOL] = load_bool,
};

MB_CPU_CLONES static void store_f32(void *restrict out, const float *restrict in, int64_t n)
{
    memcpy(out, in, sizeof *in * (size_t)n);
}

MB_CPU_CLONES static void store_f16(void *restrict out, const float *restrict in, int64_t n)
{
    uint16_t *y = out;

    for (int64_t i = 0; i < n; i++)
        y[i] = float_to_half(in[i]);
}

MB_CPU_CLONES static void store_bf16(void *restrict out, const float *restrict in, int64_t n)
{
    uint16_t *y = out;

    for (int64_t i = 0; i < n; i++)
        y[i] = mb_f32_to_bf16(in[i]);
}

MB_CPU_CLONES static void store_f64(void *restrict out, const float *restrict in, int64_t n)
{
    double *y = out;

    for (int64_t i = 0; i < n; i++)
        y[i] = (double)in[i];
}

static const store_fn store[MB_DTYPE_COUNT] = {
    [MB_DTYPE_F32] = store_f32,
    [MB_DTYPE_F16] = store_f16,
    [MB_DTYPE_BF16] = store_bf16,
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
    float strip[STRIP];
    const int64_t in_size = mb_dtype_block_bytes(from), out_size = mb_dtype_block_bytes(to);

    if (from == MB_DTYPE_I32 && to == MB_DTYPE_I64) {
        widen(out, in, n);
        return true;
    }
    if (from == MB_DTYPE_I64 && to == MB_DTYPE_I32)
        return narrow(out, in, n);
    for (int64_t i = 0; i < n; i += STRIP) {
        const int64_t m = n - i < STRIP ? n - i : STRIP;

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
    return load[from] != NULL && store[to] != NULL;
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
