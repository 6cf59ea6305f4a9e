/* recipes/bundle/journal.c - see recipes/bundle/journal.h. */
#include "recipes/bundle/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"

enum { HEAD = 64, MOST_BYTES = 1 << 30 };

/* FNV-1a over a record but for its check: enough for a write that was cut off. */
static uint32_t check_of(mb_record r)
{
    const unsigned char *p = (const unsigned char *)&r;
    uint32_t h = 2166136261u;

    r.check = 0;
    for (size_t i = 0; i < sizeof r; i++)
        h = (h ^ p[i]) * 16777619u;
    return h;
}

mb_status mb_journal_dir(const char *to, char *dir, size_t size)
{
    size_t n = strlen(to);

    while (n > 1 && to[n - 1] == '/')
        n--;
    MB_REQUIRE((size_t)snprintf(dir, size, "%.*s.unbundling", (int)n, to) < size, MB_EARG,
               "the path '%.80s...' is too long", to);
    return MB_OK;
}

static mb_status take(mb_journal *j, const mb_record *r)
{
    MB_TRY(mb_grow((void **)&j->record, &j->capacity, j->n + 1, sizeof *r, "a journal"));
    j->record[j->n++] = *r;
    return MB_OK;
}

/* Reads what is whole and cuts off what is not. */
static mb_status read_records(mb_journal *j, int64_t size, const char *path)
{
    int64_t at = HEAD;
    mb_record r;

    for (; at + (int64_t)sizeof r <= size; at += (int64_t)sizeof r) {
        MB_TRY(mb_pread_all(j->fd, &r, sizeof r, at, path));
        if (check_of(r) != r.check)
            break;
        MB_TRY(take(j, &r));
    }
    j->written = j->n;
    MB_REQUIRE(ftruncate(j->fd, (off_t)at) == 0, MB_EIO, "'%s' cannot be shortened: %s", path,
               strerror(errno));
    return MB_OK;
}

static mb_status open_file(mb_journal *j, const char *path, const char *id)
{
    char head[HEAD];
    struct stat s;

    j->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0666);
    MB_REQUIRE(j->fd >= 0 && fstat(j->fd, &s) == 0 && S_ISREG(s.st_mode), MB_EIO,
               "'%s' cannot be opened: %s", path, strerror(errno));
    MB_REQUIRE(flock(j->fd, LOCK_EX | LOCK_NB) == 0, MB_EIO, "another mbuyu is unbundling in '%s'",
               j->dir);
    MB_REQUIRE(s.st_size <= MOST_BYTES, MB_EIO, "'%s' is too large", path);
    if (s.st_size < HEAD) { /* new, or killed while it was */
        j->is_new = true;
        MB_REQUIRE(ftruncate(j->fd, 0) == 0, MB_EIO, "'%s' cannot be emptied: %s", path,
                   strerror(errno));
        return mb_pwrite_all(j->fd, id, HEAD, 0, path);
    }
    MB_TRY(mb_pread_all(j->fd, head, HEAD, 0, path));
    MB_REQUIRE(
        memcmp(head, id, HEAD) == 0, MB_EARG,
        "'%s' holds what was begun with another bundle or other patterns: remove it, or give "
        "another --to",
        j->dir);
    return read_records(j, (int64_t)s.st_size, path);
}

mb_status mb_journal_open(const char *to, const char id[65], mb_journal *j)
{
    char path[MB_PATH_MAX];

    *j = (mb_journal){.fd = -1};
    MB_TRY(mb_journal_dir(to, j->dir, sizeof j->dir));
    MB_TRY(mb_path_join(j->bag, sizeof j->bag, j->dir, "bag"));
    MB_TRY(mb_path_join(j->kept, sizeof j->kept, j->dir, "kept"));
    MB_TRY(mb_path_join(path, sizeof path, j->dir, "journal"));
    MB_TRY(mb_path_mkdirs(j->dir));
    return open_file(j, path, id);
}

mb_status mb_journal_add(mb_journal *j, const mb_record *r)
{
    mb_record checked = *r;

    checked.check = check_of(*r);
    return take(j, &checked);
}

mb_status mb_journal_write(mb_journal *j)
{
    const char *p = (const char *)(j->record + j->written);

    for (size_t n = (j->n - j->written) * sizeof *j->record; n > 0;) {
        const ssize_t put = write(j->fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        MB_REQUIRE(put > 0, MB_EIO, "'%s/journal' cannot be written: %s", j->dir, strerror(errno));
        p += put;
        n -= (size_t)put;
    }
    j->written = j->n;
    return MB_OK;
}

void mb_journal_close(mb_journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    mb_free(j->record);
    j->record = NULL;
    j->fd = -1;
}
