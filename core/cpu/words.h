/* core/cpu/words.h - what products of packed operands share: a register tile, a square transposed.
 *
 * An operand is taken in words of 32 bits along the summed dimension: an f32, or a pair of bf16, the
 * first in the low half. With AVX-512 an instruction adds the products of 16 words to 16 sums. Used by
 * core/cpu/gemm_words.c and core/cpu/attention_tile.c.
 */
#ifndef MB_CORE_CPU_WORDS_H
#define MB_CORE_CPU_WORDS_H

#include <string.h>

#include "core/cpu/vecmath.h"

static inline uint32_t mb_word_at(const void *a)
{
    uint32_t u;

    memcpy(&u, a, sizeof u);
    return u;
}

/* to = from transposed, 16 x 16 words; rows of `to` ldt words apart, of `from` ldf bytes. To be inlined
 * into functions marked MB_CPU_CLONES. */
typedef uint32_t mb_vec16u __attribute__((vector_size(64), may_alias));

MB_INLINE void mb_transpose16(uint32_t *to, int64_t ldt, const void *from, int64_t ldf)
{
    mb_vec16u r[16];

/* One round: rows i and i + d swap what lies beyond column d of every 2 d. */
#define MB_SWAP(d, ...)                                                                     \
    for (int i = 0; i < 16; i++)                                                            \
        if ((i & (d)) == 0) {                                                               \
            const mb_vec16u a = r[i], b = r[i + (d)];                                       \
            r[i] = __builtin_shuffle(a, b, (mb_vec16u){__VA_ARGS__});                       \
            r[i + (d)] = __builtin_shuffle(a, b, (mb_vec16u){__VA_ARGS__} + (uint32_t)(d)); \
        }

    for (int i = 0; i < 16; i++)
        memcpy(&r[i], (const char *)from + i * ldf, sizeof r[i]);
    MB_SWAP(8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
    MB_SWAP(4, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
    MB_SWAP(2, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
    MB_SWAP(1, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
    for (int i = 0; i < 16; i++)
        memcpy(to + i * ldt, &r[i], sizeof r[i]);
#undef MB_SWAP
}

#if defined(__x86_64__) && defined(__GNUC__)
#define MB_HAS_WORDS 1
#include <immintrin.h>
/* What runs without avx512_bf16 may be marked so, too, if it uses none of its instructions. */
#define MB_WORDS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

/* c(rows, 16 vectors) (+)= A(rows, depth words) B(depth words, 16 vectors); rows * vectors <= 24 and
 * both constants where this is inlined, so that all sums stay in registers. Word (i, l) of A starts at
 * byte i * row + l * step. Each sum goes over l in order: the bits of a row do not depend on the
 * others. Constants, too: `pairs`: words are pairs of bf16, else f32; `ahead`: the rows after these come
 * into the cache meanwhile (words that lie one after another). */
MB_WORDS MB_INLINE void mb_words_tile(float *c, int64_t ldc, const void *a, int64_t row,
                                      int64_t step, const uint32_t *b, int64_t ldb, int64_t depth,
                                      bool add, const int rows, const int vectors, const bool pairs,
                                      const bool ahead)
{
    enum { LINE = 16 }; /* words */
    const char *first = a;
    __m512 sum[24];

#define MB_EACH_ROW    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
#define MB_EACH_VECTOR _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
    if (add) {
        MB_EACH_ROW MB_EACH_VECTOR sum[i * vectors + j] = _mm512_loadu_ps(c + i * ldc + 16 * j);
    } else {
        MB_EACH_ROW MB_EACH_VECTOR sum[i * vectors + j] = _mm512_setzero_ps();
    }
    for (int64_t l = 0; l < depth; l++) {
        __m512i y[4];

        if (ahead && l % LINE == 0)
            MB_EACH_ROW _mm_prefetch(first + (rows + i) * row + 4 * l, _MM_HINT_T0);
        MB_EACH_VECTOR y[j] = _mm512_loadu_si512(b + l * ldb + 16 * j);
        MB_EACH_ROW
        {
            const __m512i x = _mm512_set1_epi32((int)mb_word_at(first + i * row + l * step));

            MB_EACH_VECTOR
            sum[i * vectors + j] =
                pairs ? _mm512_dpbf16_ps(sum[i * vectors + j], (__m512bh)x, (__m512bh)y[j])
                      : _mm512_fmadd_ps((__m512)x, (__m512)y[j], sum[i * vectors + j]);
        }
    }
    MB_EACH_ROW MB_EACH_VECTOR _mm512_storeu_ps(c + i * ldc + 16 * j, sum[i * vectors + j]);
#undef MB_EACH_ROW
#undef MB_EACH_VECTOR
}
#endif

#endif
