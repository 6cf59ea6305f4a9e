/* recipes/bundle/tar.c - see recipes/bundle/tar.h. */
#include "recipes/bundle/tar.h"

#include <stdio.h>
#include <string.h>

/* POSIX's names and places of the fields used. */
enum {
    NAME = 0,
    MODE = 100,
    UID = 108,
    GID = 116,
    SIZE = 124,
    MTIME = 136,
    CHECKSUM = 148,
    TYPE = 156,
    MAGIC = 257,
    MOST_NAME = 100
};
static const int64_t MOST_OCTAL = ((int64_t)1 << 33) - 1; /* eleven digits */

static bool fits_ustar(const char *path)
{
    size_t n = 0;

    while (path[n] != '\0' && (unsigned char)path[n] < 128)
        n++;
    return path[n] == '\0' && n <= MOST_NAME;
}

static void block(char *at, const char *name, char type, int64_t size, bool program)
{
    unsigned sum = 0;

    memset(at, 0, MB_TAR_BLOCK);
    memcpy(at + NAME, name, strnlen(name, MOST_NAME));
    snprintf(at + MODE, 8, "%07o", program ? 0755 : 0644);
    snprintf(at + UID, 8, "%07o", 0);
    snprintf(at + GID, 8, "%07o", 0);
    snprintf(at + SIZE, 12, "%011llo", (unsigned long long)(size > MOST_OCTAL ? 0 : size));
    snprintf(at + MTIME, 12, "%011o", 0);
    at[TYPE] = type;
    memcpy(at + MAGIC,
           "ustar\0"
           "00",
           8);
    memset(at + CHECKSUM, ' ', 8);
    for (int i = 0; i < MB_TAR_BLOCK; i++)
        sum += (unsigned char)at[i];
    snprintf(at + CHECKSUM, 8, "%06o", sum);
}

/* "LENGTH key=value\n", where LENGTH counts itself. */
static size_t record(char *to, const char *key, const char *value)
{
    const size_t rest = strlen(key) + strlen(value) + 3; /* ' ', '=', '\n' */
    size_t n = rest + 1;

    for (size_t digits = 1, power = 10; n >= power; power *= 10, digits++)
        n = rest + digits + 1;
    return (size_t)snprintf(to, MB_TAR_MOST_PATH + 64, "%zu %s=%s\n", n, key, value);
}

static size_t records(const char *path, int64_t size, char *to)
{
    char digits[24];
    size_t n = 0;

    if (!fits_ustar(path))
        n += record(to, "path", path);
    if (size > MOST_OCTAL) {
        snprintf(digits, sizeof digits, "%lld", (long long)size);
        n += record(to + n, "size", digits);
    }
    return n;
}

size_t mb_tar_head(const char *path, int64_t size, bool program, char head[MB_TAR_MOST_HEAD])
{
    char text[MB_TAR_MOST_PATH + 128];
    const size_t n = records(path, size, text);
    const size_t padded = (size_t)mb_tar_padded((int64_t)n);
    const size_t before = n > 0 ? MB_TAR_BLOCK + padded : 0;

    if (head == NULL)
        return before + MB_TAR_BLOCK;
    if (n > 0) {
        block(head, "PaxHeader", 'x', (int64_t)n, false);
        memset(head + MB_TAR_BLOCK, 0, padded);
        memcpy(head + MB_TAR_BLOCK, text, n);
    }
    block(head + before, path, '0', size, program);
    return before + MB_TAR_BLOCK;
}

int64_t mb_tar_padded(int64_t size)
{
    return (size + MB_TAR_BLOCK - 1) / MB_TAR_BLOCK * MB_TAR_BLOCK;
}

int64_t mb_tar_size(const char head[MB_TAR_BLOCK])
{
    int64_t size = 0;

    for (int i = 0; i < 11; i++) {
        const char c = head[SIZE + i];
        if (c < '0' || c > '7')
            return -1;
        size = size * 8 + (c - '0');
    }
    return size;
}
