/* recipes/data/zstd.c - see recipes/data/zstd.h. */
#include "recipes/data/zstd.h"

#include <zstd.h>

#include "core/alloc.h"

enum { WINDOW_LOG = 27, LEVEL = 3 };

struct mb_zstd {
    ZSTD_DStream *stream;
    bool inside;
};

mb_status mb_zstd_new(mb_zstd **out)
{
    mb_zstd *z;

    MB_TRY(MB_NEW(&z));
    z->stream = ZSTD_createDStream();
    if (z->stream == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(z->stream, ZSTD_d_windowLogMax, WINDOW_LOG))) {
        mb_zstd_free(z);
        return MB_RAISE(MB_ENOMEM, "libzstd cannot begin");
    }
    *out = z;
    return MB_OK;
}

void mb_zstd_free(mb_zstd *z)
{
    if (z == NULL)
        return;
    ZSTD_freeDStream(z->stream);
    mb_free(z);
}

mb_status mb_zstd_read(mb_zstd *z, const void *from, size_t n, size_t *used, void *to, size_t room,
                       size_t *got)
{
    ZSTD_inBuffer in = {from, n, 0};
    ZSTD_outBuffer out = {to, room, 0};
    const size_t left = ZSTD_decompressStream(z->stream, &out, &in);

    MB_REQUIRE(!ZSTD_isError(left), MB_EDATA, "is not a Zstandard file, or is damaged: %s",
               ZSTD_getErrorName(left));
    *used = in.pos;
    *got = out.pos;
    z->inside = left != 0;
    return MB_OK;
}

bool mb_zstd_is_inside(const mb_zstd *z)
{
    return z->inside;
}

mb_status mb_zstd_unpack(const void *from, size_t n, void *to, size_t n_to)
{
    const size_t got = ZSTD_decompress(to, n_to, from, n);

    MB_REQUIRE(!ZSTD_isError(got) && got == n_to, MB_EDATA, "a Zstandard block is damaged");
    return MB_OK;
}

mb_status mb_zstd_peek(const void *from, size_t n, void *to, size_t room)
{
    mb_zstd *z;
    size_t used = 0, got = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_zstd_new(&z));
    for (size_t at = 0, filled = 0; st == MB_OK && filled < room; at += used, filled += got) {
        st = mb_zstd_read(z, (const char *)from + at, n - at, &used, (char *)to + filled,
                          room - filled, &got);
        if (st == MB_OK && ((used == 0 && got == 0) || (!z->inside && filled + got < room)))
            st = MB_RAISE(MB_EDATA, "a Zstandard frame is too short");
    }
    mb_zstd_free(z);
    return st;
}

mb_status mb_zstd_measure(const void *from, size_t n, size_t *packed, uint64_t *content)
{
    const unsigned long long bytes = ZSTD_getFrameContentSize(from, n);

    MB_REQUIRE(bytes != ZSTD_CONTENTSIZE_ERROR && bytes != ZSTD_CONTENTSIZE_UNKNOWN, MB_EDATA,
               "no Zstandard frame that says its size");
    *packed = ZSTD_findFrameCompressedSize(from, n);
    MB_REQUIRE(!ZSTD_isError(*packed), MB_EDATA, "a Zstandard frame is damaged or cut off");
    *content = bytes;
    return MB_OK;
}

/* A context of its own for every frame, so that no frame can depend on those before it. */
mb_status mb_zstd_pack(const void *from, size_t n, void *to, size_t room, size_t *packed)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    size_t got;

    MB_REQUIRE(c != NULL, MB_ENOMEM, "libzstd cannot begin");
    got = ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, LEVEL);
    if (!ZSTD_isError(got))
        got = ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    if (!ZSTD_isError(got))
        got = ZSTD_compress2(c, to, room, from, n);
    ZSTD_freeCCtx(c);
    MB_REQUIRE(!ZSTD_isError(got), MB_ENOMEM, "libzstd cannot pack %zu bytes: %s", n,
               ZSTD_getErrorName(got));
    *packed = got;
    return MB_OK;
}

size_t mb_zstd_bound(size_t n)
{
    return ZSTD_compressBound(n);
}

const char *mb_zstd_version(void)
{
    return ZSTD_versionString();
}
