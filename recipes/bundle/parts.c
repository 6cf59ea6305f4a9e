/* recipes/bundle/parts.c - see recipes/bundle/parts.h. Kept pieces are in parts_kept.c. */
#include "recipes/bundle/parts.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"

enum { MOST_SUMS = 1 << 24, MOST_PARTS = 1000000, BUFFER = 1 << 20 };
static const char ENDING[] = ".mbuyu.tar.zst";

void mb_parts_close(mb_parts *p)
{
    for (int64_t i = 0; p->part != NULL && i < p->n; i++) {
        if (p->part[i].fd >= 0)
            close(p->part[i].fd);
        mb_free(p->part[i].name);
        mb_free(p->part[i].path);
    }
    for (size_t i = 0; i < p->n_kept; i++)
        close(p->kept[i].fd);
    mb_free(p->part);
    mb_free(p->kept);
    mb_free(p->kept_dir);
    mb_free(p->name);
    mb_free(p->home);
    mb_free(p->place);
    *p = (mb_parts){0};
}

/* ---- NAME.sha256 -------------------------------------------------------------------------- */

/* "NAME.mbuyu.tar.zst" alone or "NAME.mbuyu.tar.zst.007", the i-th of several. */
static bool is_name(const char *name, int64_t i, size_t *stem)
{
    const char *end = strstr(name, ENDING);
    int64_t number = 0;

    if (!mb_path_is_component(name) || end == NULL || end == name)
        return false;
    *stem = (size_t)(end - name);
    end += strlen(ENDING);
    if (*end == '\0')
        return i == 0;
    const size_t digits = strlen(end + 1);
    if (*end != '.' || digits < 3 || digits > 6 || strspn(end + 1, "0123456789") != digits)
        return false;
    for (const char *c = end + 1; *c != '\0'; c++)
        number = number * 10 + (*c - '0');
    return number == i;
}

static mb_status add_part(mb_parts *p, size_t *capacity, const char *line, size_t n)
{
    char name[256];
    size_t stem;

    MB_REQUIRE(n > 66 && n - 66 < sizeof name && strspn(line, "0123456789abcdef") == 64 &&
                   line[64] == ' ' && (line[65] == ' ' || line[65] == '*'),
               MB_EDATA, "%s:%lld: no line of sha256sum", p->sums, (long long)p->n + 1);
    snprintf(name, sizeof name, "%.*s", (int)(n - 66), line + 66);
    MB_REQUIRE(p->n < MOST_PARTS && is_name(name, p->n, &stem) &&
                   (p->n == 0 || strncmp(name, p->part[0].name, stem) == 0),
               MB_EDATA, "%s:%lld: '%s' is not the name of part %lld of a bundle", p->sums,
               (long long)p->n + 1, name, (long long)p->n);
    MB_TRY(mb_grow((void **)&p->part, capacity, (size_t)p->n + 1, sizeof *p->part, "parts"));
    mb_part *part = &p->part[p->n++];
    part->fd = -1;
    memcpy(part->hex, line, 64);
    MB_TRY(mb_strdup(name, &part->name));
    return p->n > 1 ? MB_OK : mb_strndup(name, stem, &p->name);
}

static mb_status read_sums(mb_parts *p)
{
    uint8_t digest[MB_DIGEST_BYTES];
    size_t n, capacity = 0;
    char *text;
    mb_status st;

    MB_TRY(mb_file_read_as(p->sums, MB_EDATA, MOST_SUMS, &text, &n));
    st = mb_digest_memory(text, n, digest);
    mb_digest_hex(digest, p->id);
    for (const char *line = text, *end; st == MB_OK && *line != '\0'; line = end + (*end != '\0')) {
        end = line + strcspn(line, "\n");
        st = add_part(p, &capacity, line, (size_t)(end - line) - (end > line && end[-1] == '\r'));
    }
    if (st == MB_OK && (p->n == 0 || (p->n > 1 && mb_path_has_suffix(p->part[0].name, ENDING))))
        st = MB_RAISE(MB_EDATA, "%s: does not name the parts of a bundle", p->sums);
    mb_free(text);
    return st;
}

mb_status mb_parts_open(const char *sums, const char *const *place, size_t n_places, mb_parts *p)
{
    char home[MB_PATH_MAX];

    *p = (mb_parts){.sums = sums, .full = -1, .last = -1};
    MB_TRY(read_sums(p));
    MB_TRY(mb_path_dir(home, sizeof home, sums));
    MB_TRY(mb_strdup(home, &p->home));
    MB_TRY(MB_NEW_ARRAY(&p->place, n_places + 1));
    p->place[p->n_places++] = p->home;
    for (size_t i = 0; i < n_places; i++)
        p->place[p->n_places++] = place[i];
    return MB_OK;
}

/* ---- where parts are ---------------------------------------------------------------------- */

bool mb_part_mark_of(const char *path, mb_part_mark *mark)
{
    struct stat s;

    if (stat(path, &s) != 0 || !S_ISREG(s.st_mode))
        return false;
    *mark = (mb_part_mark){(uint64_t)s.st_dev, (uint64_t)s.st_ino, (uint64_t)s.st_size,
                           (uint64_t)mb_stat_changed(&s)};
    return true;
}

static mb_status note_size(mb_parts *p, int64_t i, int64_t size)
{
    int64_t *known = i == p->n - 1 ? &p->last : &p->full;

    MB_REQUIRE(size > 0 && (*known < 0 || *known == size), MB_EDATA,
               "%s has %lld bytes, other parts of the bundle have %lld", p->part[i].name,
               (long long)size, (long long)*known);
    *known = size;
    MB_REQUIRE(p->full < 0 || p->last < 0 || p->n == 1 || p->last <= p->full, MB_EDATA,
               "the last part, %s, is larger than the others", p->part[p->n - 1].name);
    return MB_OK;
}

mb_status mb_parts_sizes(mb_parts *p, int64_t full, int64_t last)
{
    if (full >= 0 && p->n > 1)
        MB_TRY(note_size(p, 0, full));
    return last >= 0 ? note_size(p, p->n - 1, last) : MB_OK;
}

static mb_status digest_part(int fd, int64_t size, const char *path, mb_progress *progress,
                             char hex[MB_DIGEST_HEX])
{
    uint8_t digest[MB_DIGEST_BYTES];
    mb_digest *d = NULL;
    void *buffer = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_digest_new(&d));
    MB_TRY_GOTO(mb_alloc(BUFFER, "a read buffer", &buffer), st, done);
    for (int64_t at = 0; at < size; at += BUFFER) {
        const size_t n = size - at < BUFFER ? (size_t)(size - at) : BUFFER;
        MB_TRY_GOTO(mb_pread_all(fd, buffer, n, at, path), st, done);
        MB_TRY_GOTO(mb_digest_add(d, buffer, n), st, done);
        if (progress != NULL)
            mb_progress_add(progress, (int64_t)n);
    }
    MB_TRY_GOTO(mb_digest_end(d, digest), st, done);
    mb_digest_hex(digest, hex);
done:
    mb_free(buffer);
    mb_digest_free(d);
    return st;
}

/* Uses what is at `path`, if it is the part. What cannot be read is a bad part: the stick may be
 * broken, and there may be another. */
static mb_status try_path(mb_parts *p, int64_t i, const char *path, bool check,
                          mb_progress *progress)
{
    char hex[MB_DIGEST_HEX] = "";
    mb_part *part = &p->part[i];
    int64_t size;
    int fd = -1;
    mb_status st;

    st = mb_file_open(path, MB_EDATA, &fd, &size);
    if (st == MB_OK && check)
        st = digest_part(fd, size, path, progress, hex);
    if (st != MB_OK)
        mb_log_warn("%s", mb_status_sentence());
    mb_status_clear();
    if (st != MB_OK || (check && strcmp(hex, part->hex) != 0)) {
        if (st == MB_OK)
            mb_log_warn("bad part: %s has the sha256 %.16s..., not %.16s...", path, hex, part->hex);
        part->is_bad = true;
        if (fd >= 0)
            close(fd);
        return MB_OK;
    }
    part->fd = fd;
    part->size = size;
    part->is_bad = false;
    mb_free(part->path);
    part->path = NULL;
    MB_TRY(mb_strdup(path, &part->path));
    return note_size(p, i, size);
}

mb_status mb_parts_use(mb_parts *p, int64_t i, bool check, mb_progress *progress)
{
    mb_part *part = &p->part[i];
    char path[MB_PATH_MAX];

    for (size_t k = 0; k < p->n_places && part->fd < 0; k++) {
        MB_TRY(mb_path_join(path, sizeof path, p->place[k], part->name));
        if (mb_path_exists(path))
            MB_TRY(try_path(p, i, path, check, progress));
    }
    return MB_OK;
}

void mb_parts_drop(mb_parts *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        if (p->part[i].fd >= 0)
            close(p->part[i].fd);
        p->part[i].fd = -1;
    }
}

mb_status mb_parts_trust(mb_parts *p, int64_t i, const mb_part_mark *mark)
{
    mb_part *part = &p->part[i];
    char path[MB_PATH_MAX];
    mb_part_mark now;

    for (size_t k = 0; k < p->n_places && part->fd < 0; k++) {
        MB_TRY(mb_path_join(path, sizeof path, p->place[k], part->name));
        if (mb_part_mark_of(path, &now) && memcmp(&now, mark, sizeof now) == 0)
            MB_TRY(try_path(p, i, path, false, NULL));
    }
    return MB_OK;
}

/* ---- bytes -------------------------------------------------------------------------------- */

int64_t mb_parts_total(const mb_parts *p)
{
    if (p->last < 0 || (p->full < 0 && p->n > 1))
        return -1;
    return p->n > 1 ? (p->n - 1) * p->full + p->last : p->last;
}

int64_t mb_parts_of(const mb_parts *p, int64_t at)
{
    if (p->n == 1)
        return 0;
    if (p->full < 0)
        return at == 0 ? 0 : -1;
    const int64_t i = at / p->full;
    return i < p->n ? i : -1;
}

/* A run of bytes from `at` on in one file: *n of them, 0 when they are nowhere. */
static void piece(const mb_parts *p, int64_t at, int64_t *n, int *fd, int64_t *offset)
{
    const int64_t i = mb_parts_of(p, at), within = i > 0 ? at - i * p->full : at;
    int64_t there = 0;

    if (i >= 0 && p->part[i].fd >= 0) {
        there = p->part[i].size - within;
        *fd = p->part[i].fd;
        *offset = within;
    }
    for (size_t k = 0; k < p->n_kept && there <= 0; k++) {
        const mb_kept *q = &p->kept[k];
        if (q->part != i || within < q->at || within >= q->at + q->n)
            continue;
        there = q->at + q->n - within;
        *fd = q->fd;
        *offset = within - q->at;
    }
    *n = there > 0 ? there : 0;
}

int64_t mb_parts_there(const mb_parts *p, int64_t at, int64_t n)
{
    int64_t sum = 0, some, offset;
    int fd;

    for (; sum < n; sum += some) {
        piece(p, at + sum, &some, &fd, &offset);
        if (some == 0)
            break;
    }
    return sum < n ? sum : n;
}

mb_status mb_parts_read(const mb_parts *p, int64_t at, void *to, size_t n)
{
    while (n > 0) {
        int64_t some, offset = 0;
        int fd = -1;

        piece(p, at, &some, &fd, &offset);
        MB_REQUIRE(some > 0, MB_EDATA, "%s: the bytes from %lld on are in no part that is here",
                   p->name, (long long)at);
        const size_t now = (int64_t)n < some ? n : (size_t)some;
        MB_TRY(mb_pread_all(fd, to, now, offset, p->name));
        to = (char *)to + now;
        at += (int64_t)now;
        n -= now;
    }
    return MB_OK;
}
