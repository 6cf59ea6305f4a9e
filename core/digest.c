/* core/digest.c - see core/digest.h. */
#include "core/digest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"

enum { BUFFER = 1 << 20 };

struct mb_digest {
    EVP_MD_CTX *ctx;
    bool sha1;
};

static mb_status start(mb_digest *d)
{
    const EVP_MD *kind = d->sha1 ? EVP_sha1() : EVP_sha256();

    MB_REQUIRE(d->ctx != NULL && EVP_DigestInit_ex(d->ctx, kind, NULL) == 1, MB_ENOMEM,
               "the crypto library cannot start a %s digest", d->sha1 ? "SHA-1" : "SHA-256");
    return MB_OK;
}

static mb_status make(bool sha1, mb_digest **out)
{
    mb_digest *d;

    MB_TRY(MB_NEW(&d));
    d->sha1 = sha1;
    d->ctx = EVP_MD_CTX_new();
    const mb_status st = start(d);
    if (st != MB_OK) {
        mb_digest_free(d);
        return st;
    }
    *out = d;
    return MB_OK;
}

mb_status mb_digest_new(mb_digest **out)
{
    return make(false, out);
}

mb_status mb_digest_new_sha1(mb_digest **out)
{
    return make(true, out);
}

mb_status mb_digest_new_git_blob(int64_t size, mb_digest **out)
{
    char words[32];
    const int n = snprintf(words, sizeof words, "blob %lld", (long long)size);
    mb_digest *d = NULL;

    MB_TRY(make(true, &d));
    const mb_status st = mb_digest_add(d, words, (size_t)n + 1);
    if (st == MB_OK)
        *out = d;
    else
        mb_digest_free(d);
    return st;
}

void mb_digest_free(mb_digest *d)
{
    if (d == NULL)
        return;
    EVP_MD_CTX_free(d->ctx);
    mb_free(d);
}

mb_status mb_digest_add(mb_digest *d, const void *data, size_t n)
{
    MB_REQUIRE(n == 0 || EVP_DigestUpdate(d->ctx, data, n) == 1, MB_EBUG,
               "the crypto library refused %zu bytes", n);
    return MB_OK;
}

mb_status mb_digest_add_file(mb_digest *d, int fd, int64_t at, int64_t n, const char *path)
{
    void *buffer = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_alloc(BUFFER, "a read buffer", &buffer));
    for (int64_t end = at + n; at < end; at += BUFFER) {
        const size_t now = end - at < BUFFER ? (size_t)(end - at) : BUFFER;
        MB_TRY_GOTO(mb_pread_all(fd, buffer, now, at, path), st, done);
        MB_TRY_GOTO(mb_digest_add(d, buffer, now), st, done);
    }
done:
    mb_free(buffer);
    return st;
}

mb_status mb_digest_end(mb_digest *d, uint8_t out[MB_DIGEST_BYTES])
{
    MB_REQUIRE(EVP_DigestFinal_ex(d->ctx, out, NULL) == 1, MB_EBUG,
               "the crypto library cannot end a digest");
    return start(d);
}

static void hex(const uint8_t *digest, int n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < n; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * n] = '\0';
}

void mb_digest_hex(const uint8_t digest[MB_DIGEST_BYTES], char out[MB_DIGEST_HEX])
{
    hex(digest, MB_DIGEST_BYTES, out);
}

mb_status mb_digest_end_hex(mb_digest *d, char out[MB_DIGEST_HEX])
{
    uint8_t bytes[MB_DIGEST_BYTES];

    MB_TRY(mb_digest_end(d, bytes));
    hex(bytes, d->sha1 ? 20 : MB_DIGEST_BYTES, out);
    return MB_OK;
}

mb_status mb_digest_now_hex(const mb_digest *d, char out[MB_DIGEST_HEX])
{
    uint8_t bytes[MB_DIGEST_BYTES];
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    const bool ok = copy != NULL && EVP_MD_CTX_copy_ex(copy, d->ctx) == 1 &&
                    EVP_DigestFinal_ex(copy, bytes, NULL) == 1;

    EVP_MD_CTX_free(copy);
    MB_REQUIRE(ok, MB_ENOMEM, "the crypto library cannot copy a digest");
    hex(bytes, d->sha1 ? 20 : MB_DIGEST_BYTES, out);
    return MB_OK;
}

mb_status mb_digest_memory(const void *data, size_t n, uint8_t out[MB_DIGEST_BYTES])
{
    mb_digest *d;
    mb_status st = MB_OK;

    MB_TRY(mb_digest_new(&d));
    MB_TRY_GOTO(mb_digest_add(d, data, n), st, done);
    MB_TRY_GOTO(mb_digest_end(d, out), st, done);
done:
    mb_digest_free(d);
    return st;
}

mb_status mb_digest_file(const char *path, uint8_t out[MB_DIGEST_BYTES])
{
    mb_digest *d = NULL;
    mb_status st = MB_OK;
    int64_t size;
    int fd;

    MB_TRY(mb_file_open(path, MB_EIO, &fd, &size));
    MB_TRY_GOTO(mb_digest_new(&d), st, done);
    MB_TRY_GOTO(mb_digest_add_file(d, fd, 0, size, path), st, done);
    MB_TRY_GOTO(mb_digest_end(d, out), st, done);
done:
    mb_digest_free(d);
    close(fd);
    return st;
}
