/* recipes/data/unpack.c - see recipes/data/unpack.h. The only user of zlib and snappy. */
#include "recipes/data/unpack.h"

#include <errno.h>
#include <snappy-c.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/data/zstd.h"

enum { PACKED = 128 << 10 };

struct mb_unpack {
    char *path;
    char kind; /* 0 plain, 'g', 'z' */
    int fd;
    bool eof;    /* of the file */
    bool inside; /* a member or frame has begun and not ended */
    char *packed;
    size_t at, n; /* packed[at..n) is still to be unpacked */
    z_stream zlib;
    bool zlib_open;
    mb_zstd *zstd;
};

size_t mb_unpack_stem(const char *path)
{
    const size_t n = strlen(path);

    return mb_path_has_suffix(path, ".gz") ? n - 3 : mb_path_has_suffix(path, ".zst") ? n - 4 : n;
}

static mb_status start(mb_unpack *u)
{
    int64_t size;

    MB_TRY(mb_file_open(u->path, MB_EDATA, &u->fd, &size));
    if (u->kind == 0)
        return MB_OK;
    MB_TRY(mb_alloc(PACKED, "a packed file's buffer", (void **)&u->packed));
    if (u->kind == 'g') {
        u->zlib_open = inflateInit2(&u->zlib, 15 + 16) == Z_OK;
        MB_REQUIRE(u->zlib_open, MB_ENOMEM, "%s: zlib cannot begin", u->path);
        return MB_OK;
    }
    return mb_zstd_new(&u->zstd);
}

mb_status mb_unpack_open(const char *path, mb_unpack **out)
{
    const char *ending = path + mb_unpack_stem(path);
    mb_unpack *u;
    mb_status st;

    MB_TRY(MB_NEW(&u));
    u->fd = -1;
    u->kind = ending[0] == '\0' ? 0 : ending[1];
    MB_TRY_GOTO(mb_strdup(path, &u->path), st, fail);
    MB_TRY_GOTO(start(u), st, fail);
    *out = u;
    return MB_OK;
fail:
    mb_unpack_close(u);
    return st;
}

void mb_unpack_close(mb_unpack *u)
{
    if (u == NULL)
        return;
    if (u->fd >= 0)
        close(u->fd);
    if (u->zlib_open)
        inflateEnd(&u->zlib);
    mb_zstd_free(u->zstd);
    mb_free(u->packed);
    mb_free(u->path);
    mb_free(u);
}

static mb_status read_file(mb_unpack *u, char *to, size_t n, size_t *got)
{
    for (;;) {
        const ssize_t bytes = read(u->fd, to, n);

        if (bytes < 0 && errno == EINTR)
            continue;
        MB_REQUIRE(bytes >= 0, MB_EDATA, "%s: cannot be read: %s", u->path, strerror(errno));
        *got = (size_t)bytes;
        return MB_OK;
    }
}

static mb_status inflate_some(mb_unpack *u, char *to, size_t n, size_t *got)
{
    int code;

    u->zlib.next_in = (Bytef *)u->packed + u->at;
    u->zlib.avail_in = (uInt)(u->n - u->at);
    u->zlib.next_out = (Bytef *)to;
    u->zlib.avail_out = (uInt)(n < 1u << 30 ? n : 1u << 30);
    const uInt room = u->zlib.avail_out;
    code = inflate(&u->zlib, Z_NO_FLUSH);
    u->at = u->n - u->zlib.avail_in;
    *got = room - u->zlib.avail_out;
    u->inside = code != Z_STREAM_END;
    MB_REQUIRE(code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR, MB_EDATA,
               "%s: is not a gzip file, or is damaged: %s", u->path,
               u->zlib.msg != NULL ? u->zlib.msg : "unknown");
    if (code == Z_STREAM_END)
        inflateReset(&u->zlib);
    return MB_OK;
}

static mb_status unzstd_some(mb_unpack *u, char *to, size_t n, size_t *got)
{
    size_t used;
    const mb_status st = mb_zstd_read(u->zstd, u->packed + u->at, u->n - u->at, &used, to, n, got);

    if (st != MB_OK)
        return mb_status_prefix(st, "%s: ", u->path);
    u->at += used;
    u->inside = mb_zstd_is_inside(u->zstd);
    return MB_OK;
}

mb_status mb_unpack_read(mb_unpack *u, char *to, size_t n, size_t *got)
{
    *got = 0;
    if (u->kind == 0 || n == 0)
        return n > 0 ? read_file(u, to, n, got) : MB_OK;
    for (;;) {
        if (u->at == u->n && !u->eof) {
            u->at = 0;
            MB_TRY(read_file(u, u->packed, PACKED, &u->n));
            u->eof = u->n == 0;
        }
        const size_t before = u->at;
        if (u->at < u->n || (u->inside && u->eof))
            MB_TRY(u->kind == 'g' ? inflate_some(u, to, n, got) : unzstd_some(u, to, n, got));
        if (*got > 0)
            return MB_OK;
        if (u->eof && u->at == before) {
            MB_REQUIRE(!u->inside, MB_EDATA, "%s: ends in the middle of what was packed", u->path);
            return MB_OK;
        }
    }
}

mb_status mb_unpack_block(char kind, const void *from, size_t n, void *to, size_t n_to)
{
    if (kind == 's') {
        size_t size = 0, got = n_to;

        MB_REQUIRE(snappy_uncompressed_length(from, n, &size) == SNAPPY_OK && size == n_to &&
                       snappy_uncompress(from, n, to, &got) == SNAPPY_OK && got == n_to,
                   MB_EDATA, "a snappy block is damaged");
        return MB_OK;
    }
    if (kind == 'z')
        return mb_zstd_unpack(from, n, to, n_to);

    z_stream z = {.next_in = (Bytef *)(uintptr_t)from,
                  .avail_in = (uInt)n,
                  .next_out = to,
                  .avail_out = (uInt)n_to};
    MB_REQUIRE(n < UINT32_MAX && n_to < UINT32_MAX && inflateInit2(&z, 15 + 32) == Z_OK, MB_EDATA,
               "a gzip block is too large");
    const int code = inflate(&z, Z_FINISH);
    const bool good = code == Z_STREAM_END && z.avail_out == 0;
    inflateEnd(&z);
    MB_REQUIRE(good, MB_EDATA, "a gzip block is damaged");
    return MB_OK;
}
