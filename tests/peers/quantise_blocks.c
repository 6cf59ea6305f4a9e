/* tests/peers/quantise_blocks.c - the blocks that mbuyu makes of numbers, for quantise.py.
 *
 *     quantise_blocks TYPE < f32 numbers > blocks
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/cpu/quantise.h"

enum { MOST = 1 << 22 };

static float numbers[MOST];
static unsigned char blocks[MOST * 4];

int main(int argc, char **argv)
{
    mb_dtype to;

    if (argc != 2 || !mb_dtype_from_name(argv[1], &to))
        return 2;
    const size_t n = fread(numbers, sizeof *numbers, MOST, stdin);
    if (mb_quantise(to, numbers, (int64_t)n, blocks, 2) != MB_OK) {
        fprintf(stderr, "%s\n", mb_status_sentence());
        return 1;
    }
    const size_t bytes = (size_t)mb_dtype_bytes(to, (int64_t)n);
    return fwrite(blocks, 1, bytes, stdout) == bytes ? 0 : 1;
}
