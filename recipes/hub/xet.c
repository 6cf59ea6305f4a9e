/* recipes/hub/xet.c - the folder of uploads by Xet and its tokens; see recipes/hub/xet.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/blake3.h"
#include "recipes/hub/xet_inside.h"

enum { ID = 16, TOKEN_SECONDS = 3600, STAMP = 16 };

static mb_status random_bytes(uint8_t *out, size_t n)
{
    MB_REQUIRE(getrandom(out, n, 0) == (ssize_t)n, MB_EIO, "no random numbers: %s",
               strerror(errno));
    return MB_OK;
}

/* The address clients know this folder by; made once. */
static mb_status id_read(mb_xet *x)
{
    char path[MB_PATH_MAX], *text = NULL;
    uint8_t id[ID];
    size_t n;

    MB_TRY(mb_path_join(path, sizeof path, x->dir, "id"));
    if (!mb_path_exists(path)) {
        MB_TRY(random_bytes(id, ID));
        for (int i = 0; i < ID; i++)
            snprintf(x->id + 2 * i, 3, "%02x", id[i]);
        return mb_file_write_atomic(path, x->id, 2 * ID);
    }
    MB_TRY(mb_file_read(path, 64, &text, &n));
    const bool good = n == 2 * ID && strspn(text, "0123456789abcdef") == n;
    if (good)
        memcpy(x->id, text, 2 * ID + 1);
    mb_free(text);
    MB_REQUIRE(good, MB_EIO,
               "%s: not %d hex digits; the folder can be removed, clients then send "
               "again what they push",
               path, 2 * ID);
    return MB_OK;
}

static mb_status key_make(mb_xet *x, const char *path)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    mb_status st;

    MB_REQUIRE(fd >= 0, MB_EIO, "%s: %s", path, strerror(errno));
    st = random_bytes(x->key, sizeof x->key);
    if (st == MB_OK)
        st = mb_pwrite_all(fd, x->key, sizeof x->key, 0, path);
    close(fd);
    return st;
}

/* Tokens outlive a restart; a key that is not whole is made anew, which ends them. */
static mb_status key_read(mb_xet *x)
{
    char path[MB_PATH_MAX], *key = NULL;
    size_t n;

    MB_TRY(mb_path_join(path, sizeof path, x->dir, "key"));
    if (mb_path_exists(path)) {
        MB_TRY(mb_file_read(path, 64, &key, &n));
        const bool whole = n == sizeof x->key;
        if (whole)
            memcpy(x->key, key, n);
        mb_free(key);
        if (whole)
            return MB_OK;
        MB_REQUIRE(unlink(path) == 0, MB_EIO, "%s: %s", path, strerror(errno));
    }
    return key_make(x, path);
}

static mb_status folder(mb_xet *x)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_mkdirs(x->dir));
    MB_TRY(mb_path_join(path, sizeof path, x->dir, "tmp"));
    MB_TRY(mb_path_remove_tree(path));
    MB_TRY(mb_path_mkdirs(path));
    MB_TRY(id_read(x));
    return key_read(x);
}

mb_status mb_xet_open(const mb_xet_options *o, mb_xet **out)
{
    mb_status st;
    mb_xet *x;

    MB_TRY(MB_NEW(&x));
    x->o = *o;
    x->last = &x->first;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->wake, NULL);
    if (x->o.token_seconds <= 0)
        x->o.token_seconds = TOKEN_SECONDS;
    MB_TRY_GOTO(mb_strdup(o->dir, &x->dir), st, failed);
    MB_TRY_GOTO(folder(x), st, failed);
    MB_TRY_GOTO(mb_xet_worker_start(x), st, failed);
    *out = x;
    return MB_OK;
failed:
    mb_xet_free(x);
    return st;
}

void mb_xet_free(mb_xet *x)
{
    if (x == NULL)
        return;
    mb_xet_stop(x);
    pthread_cond_destroy(&x->wake);
    pthread_mutex_destroy(&x->lock);
    mb_free(x->dir);
    mb_free(x);
}

mb_status mb_xet_scratch(mb_xet *x, char *path, size_t size, int *fd)
{
    const unsigned long long name = atomic_fetch_add(&x->names, 1);
    const int n = snprintf(path, size, "%s/tmp/%llu", x->dir, name);

    MB_REQUIRE(n > 0 && (size_t)n < size, MB_EARG, "%s: too long a path", x->dir);
    *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (*fd < 0) {
        const mb_status st = MB_RAISE(MB_EIO, "%s: %s", path, strerror(errno));
        path[0] = '\0';
        return st;
    }
    return MB_OK;
}

mb_status mb_xet_xorb_path(mb_xet *x, const char *hex, bool make, char *out, size_t size)
{
    char dir[MB_PATH_MAX];
    const int n = snprintf(dir, sizeof dir, "%s/xorbs/%.2s", x->dir, hex);

    MB_REQUIRE(n > 0 && (size_t)n < sizeof dir, MB_EARG, "%s: too long a path", x->dir);
    if (make)
        MB_TRY(mb_path_mkdirs(dir));
    return mb_path_join(out, size, dir, hex);
}

/* Its end in hex, a point, and the digest of that under our key. */
void mb_xet_token_make(const mb_xet *x, int64_t until, char out[MB_XET_TOKEN])
{
    uint8_t mark[MB_XET_HASH];
    char stamp[STAMP + 1], hex[MB_XET_HEX];

    snprintf(stamp, sizeof stamp, "%016" PRIx64, (uint64_t)until);
    mb_blake3(x->key, stamp, STAMP, mark);
    mb_xet_hex(mark, hex);
    snprintf(out, MB_XET_TOKEN, "%s.%s", stamp, hex);
}

bool mb_xet_token_good(const mb_xet *x, const char *token, int64_t now)
{
    char right[MB_XET_TOKEN];
    unsigned differ = 0;
    uint64_t until;

    if (strlen(token) != STAMP + 1 + 2 * MB_XET_HASH)
        return false;
    until = strtoull(token, NULL, 16);
    mb_xet_token_make(x, (int64_t)until, right);
    for (size_t i = 0; right[i] != '\0'; i++) /* in the same time whatever differs */
        differ |= (unsigned char)right[i] ^ (unsigned char)token[i];
    return differ == 0 && (int64_t)until > now;
}
