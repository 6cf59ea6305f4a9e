/* tests/peers/dequantise_blocks.c - TYPE RAW OUT: reads blocks of a GGUF type, writes them as f32.
 *
 * The C half of dequantise.py, which compares the numbers with those of the gguf package.
 */
#include <stdio.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"

static mb_status read_all(const char *path, void **data, int64_t *bytes)
{
    FILE *f = fopen(path, "rb");

    MB_REQUIRE(f != NULL, MB_EIO, "cannot open %s", path);
    fseek(f, 0, SEEK_END);
    *bytes = ftell(f);
    rewind(f);
    mb_status st = mb_alloc((size_t)*bytes, "raw blocks", data);
    if (st == MB_OK && fread(*data, 1, (size_t)*bytes, f) != (size_t)*bytes)
        st = MB_RAISE(MB_EIO, "cannot read %s", path);
    fclose(f);
    return st;
}

static mb_status write_all(const char *path, const void *data, int64_t bytes)
{
    FILE *f = fopen(path, "wb");

    MB_REQUIRE(f != NULL, MB_EIO, "cannot create %s", path);
    const bool whole = fwrite(data, 1, (size_t)bytes, f) == (size_t)bytes;
    MB_REQUIRE(fclose(f) == 0 && whole, MB_EIO, "cannot write %s", path);
    return MB_OK;
}

static mb_status convert(char **argv)
{
    void *raw = NULL, *values = NULL;
    mb_arena *scratch = NULL;
    int64_t bytes = 0;
    mb_dtype type;
    mb_status st;

    MB_REQUIRE(mb_dtype_from_name(argv[1], &type), MB_EARG, "no element type '%s'", argv[1]);
    MB_TRY(read_all(argv[2], &raw, &bytes));
    const int64_t n = bytes / mb_dtype_block_bytes(type) * mb_dtype_block(type);
    MB_TRY_GOTO(mb_alloc_array((size_t)n, sizeof(float), "values", &values), st, done);
    MB_TRY_GOTO(mb_arena_new("scratch", 1 << 20, &scratch), st, done);
    mb_exec ex = mb_cpu_exec(scratch, 2);
    mb_tensor x = mb_tensor_1d(raw, type, n), y = mb_tensor_1d(values, MB_DTYPE_F32, n);
    MB_TRY_GOTO(MB_RUN(&ex, dequantise, &y, &x), st, done);
    MB_TRY_GOTO(write_all(argv[3], values, n * (int64_t)sizeof(float)), st, done);
done:
    mb_arena_free(scratch);
    mb_free(values);
    mb_free(raw);
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: dequantise_blocks TYPE RAW OUT\n");
        return 2;
    }
    const mb_status st = convert(argv);
    if (st != MB_OK)
        fprintf(stderr, "%s\n%s", mb_status_sentence(), mb_status_path());
    return mb_status_exit_code(st);
}
