/* core/cpu/gemm_tiles.h - sizes that gemm.c and gemm_panels.c use and gemm_choice.c checks. */
#ifndef MB_CORE_CPU_GEMM_TILES_H
#define MB_CORE_CPU_GEMM_TILES_H

#include <stdint.h>

/* Tiles have up to MB_GEMM_TILE_ROWS rows. Those of token rows are always
 * calls with a multiple of mb_gemm_row_step() rows, the missing ones made up: a provider uses its
 * kernel for the last few rows, or the one for small products, by the number of rows, and those
 * round differently. 48 is a multiple of the 6, 8, 12 and 16 rows that kernels take at a time.
 * Where that step is allowed and there is work enough, tiles of token rows are twice as tall: a
 * provider packs B for each. */
enum {
    MB_GEMM_ROW_STEP = 48,
    MB_GEMM_TILE_ROWS = 96,
    MB_GEMM_TALL_ROWS = 192,
    MB_GEMM_TILE_COLS = 384,
    MB_GEMM_TILE_K = 768,  /* most of K in one call */
    MB_GEMM_TOKENS = 4096, /* ... when K is tokens: C is large and read again for every call */
    MB_GEMM_FEW_ROWS = 16, /* below, products are computed in another way: at most MB_ROW_PAD */
};

/* MB_GEMM_ROW_STEP where the provider in use allows it, else MB_GEMM_TILE_ROWS. */
int64_t mb_gemm_row_step(void);

#endif
