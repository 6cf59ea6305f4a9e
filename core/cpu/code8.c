/* core/cpu/code8.c - arrays of blocks between 8 bits and f32; see core/code8.h. */
#include "core/cpu/code8.h"

#include "core/cpu/cpu.h"

/* Where both end at the same place block k is read before the numbers of block k reach it. */
MB_CPU_CLONES static void read_blocks(float *to, const mb_code8 *from, bool is_signed, int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        const mb_code8 block = from[k];

        mb_code8_unpack(to + k * MB_CODE8_BLOCK, &block, is_signed);
    }
}

MB_CPU_CLONES static void write_blocks(mb_code8 *to, const float *from, bool is_signed, int64_t n)
{
    for (int64_t k = 0; k < n; k++)
        mb_code8_pack(to + k, from + k * MB_CODE8_BLOCK, is_signed);
}

void mb_code8_read(float *to, const mb_code8 *from, mb_dtype d, int64_t n)
{
    MB_ASSERT(n % MB_CODE8_BLOCK == 0 && (d == MB_DTYPE_DYN8 || d == MB_DTYPE_DYNU8));
    read_blocks(to, from, d == MB_DTYPE_DYN8, n / MB_CODE8_BLOCK);
}

void mb_code8_write(mb_code8 *to, mb_dtype d, const float *from, int64_t n)
{
    MB_ASSERT(n % MB_CODE8_BLOCK == 0 && (d == MB_DTYPE_DYN8 || d == MB_DTYPE_DYNU8));
    write_blocks(to, from, d == MB_DTYPE_DYN8, n / MB_CODE8_BLOCK);
}
