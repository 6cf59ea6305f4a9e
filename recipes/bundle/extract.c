/* recipes/bundle/extract.c - see recipes/bundle/extract.h. */
#include "recipes/bundle/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/bundle/progress.h"
#include "recipes/data/zstd.h"

struct slot {
    int64_t frame;
    mb_seek_frame place;
    char *packed, *tar;
    mb_status st;
};

struct run {
    mb_extract *x;
    struct slot *slot;
    int n_slots;
    const mb_bag_file *open; /* whose descriptor is fd */
    int fd;
    mb_progress progress;
};

/* ---- what was done before ----------------------------------------------------------------- */

static int64_t index_of(const mb_bag *b, const mb_bag_file *f)
{
    return f - b->file;
}

static void set_done(mb_extract *x, int64_t frame, bool done)
{
    const mb_bag_file *f = mb_bag_frame(&x->archive->bag, frame).file;

    if (x->done[frame] == done)
        return;
    x->done[frame] = done;
    if (f != NULL)
        x->left[index_of(&x->archive->bag, f)] += done ? -1 : 1;
}

static void forget(mb_extract *x, int64_t file)
{
    const mb_bag_file *f = &x->archive->bag.file[file];

    for (int64_t k = 0; k < f->frames; k++)
        set_done(x, f->frame + k, false);
}

static mb_status replay(mb_extract *x)
{
    const mb_bag *b = &x->archive->bag;

    for (size_t i = 0; i < x->journal->n; i++) {
        const mb_record *r = &x->journal->record[i];
        const bool is_file = r->a < b->n, is_frame = r->a < (uint64_t)b->frames;

        if (r->kind == MB_RECORD_FRAME && is_frame) {
            const mb_bag_file *f = mb_bag_frame(b, (int64_t)r->a).file;
            set_done(x, (int64_t)r->a, true);
            if (f != NULL)
                x->old[index_of(b, f)] = true;
        } else if (r->kind == MB_RECORD_FORGET && is_file) {
            forget(x, (int64_t)r->a);
        }
    }
    return MB_OK;
}

mb_status mb_extract_open(mb_extract *x)
{
    const mb_bag *b = &x->archive->bag;

    MB_TRY(MB_NEW_ARRAY(&x->done, b->frames));
    MB_TRY(MB_NEW_ARRAY(&x->left, b->n));
    MB_TRY(MB_NEW_ARRAY(&x->old, b->n));
    for (size_t i = 0; i < b->n; i++)
        x->left[i] = b->file[i].frames;
    return replay(x);
}

void mb_extract_close(mb_extract *x)
{
    mb_free(x->done);
    mb_free(x->left);
    mb_free(x->old);
}

static bool is_wanted(const mb_extract *x, int64_t frame)
{
    const mb_bag_file *f = mb_bag_frame(&x->archive->bag, frame).file;

    return f == NULL ? x->end : x->wanted[index_of(&x->archive->bag, f)];
}

int64_t mb_extract_bytes(const mb_extract *x)
{
    int64_t bytes = 0;

    for (int64_t k = 0; k < x->archive->bag.frames; k++)
        if (!x->done[k] && is_wanted(x, k))
            bytes += (int64_t)mb_bag_frame(&x->archive->bag, k).n;
    return bytes;
}

/* ---- a file's bytes ----------------------------------------------------------------------- */

static mb_status file_path(const mb_extract *x, const mb_bag_file *f, char *path)
{
    return mb_path_join(path, MB_PATH_MAX, x->journal->bag, f->path);
}

static mb_status open_file(struct run *r, const mb_bag_file *f)
{
    char path[MB_PATH_MAX], dir[MB_PATH_MAX];

    if (r->open == f)
        return MB_OK;
    if (r->fd >= 0)
        close(r->fd);
    r->open = NULL;
    MB_TRY(file_path(r->x, f, path));
    r->fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, f->program ? 0777 : 0666);
    if (r->fd < 0 && errno == ENOENT) {
        MB_TRY(mb_path_dir(dir, sizeof dir, path));
        MB_TRY(mb_path_mkdirs(dir));
        r->fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, f->program ? 0777 : 0666);
    }
    MB_REQUIRE(r->fd >= 0, MB_EIO, "'%s' cannot be written: %s", path, strerror(errno));
    r->open = f;
    return MB_OK;
}

static bool is_zero(const char *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Takes a frame apart: the head it must have, content, zeros. */
static mb_status write_frame(struct run *r, const struct slot *slot)
{
    const mb_bag_span s = mb_bag_frame(&r->x->archive->bag, slot->frame);
    const mb_bag_file *f = s.file;
    const char *name = r->x->archive->parts->name;
    char head[MB_TAR_MOST_HEAD];
    size_t done = 0;

    if (f == NULL) {
        MB_REQUIRE(is_zero(slot->tar, s.n), MB_EDATA, "%s: its tar does not end where it should",
                   name);
        return MB_OK;
    }
    if (s.at == 0)
        done = mb_tar_head(f->path, f->size, f->program, head);
    MB_REQUIRE(memcmp(head, slot->tar, done) == 0, MB_EDATA,
               "%s: %s: the tar's head is not the one of this file", name, f->path);
    const int64_t from = s.at + (int64_t)done - f->head_n, left = f->size - from;
    const size_t room = s.n - done, n = left <= 0 ? 0 : left < (int64_t)room ? (size_t)left : room;
    MB_REQUIRE(is_zero(slot->tar + done + n, room - n), MB_EDATA,
               "%s: %s is followed by bytes that are no zeros", name, f->path);
    MB_TRY(open_file(r, f));
    return mb_pwrite_all(r->fd, slot->tar + done, n, from < 0 ? 0 : from, f->path);
}

/* ---- frames ------------------------------------------------------------------------------- */

/* The next frames that are to do and here; *n of them, 0: no more. */
static mb_status gather(struct run *r, int64_t *next, int *n)
{
    mb_extract *x = r->x;
    const int64_t frames = x->archive->bag.frames;

    for (*n = 0; *next < frames && *n < r->n_slots; ++*next) {
        struct slot *s = &r->slot[*n];
        bool here;

        if (x->done[*next] || !is_wanted(x, *next))
            continue;
        MB_TRY(mb_archive_find(x->archive, *next, &s->place, &here));
        if (!here)
            continue;
        s->frame = *next;
        MB_TRY(mb_parts_read(x->archive->parts, s->place.at, s->packed, s->place.packed));
        ++*n;
    }
    return MB_OK;
}

static mb_status damaged(const mb_extract *x, const struct slot *s)
{
    const mb_parts *p = x->archive->parts;
    const int64_t part = mb_parts_of(p, s->place.at);

    return MB_RAISE(MB_EDATA, "%s: frame %lld is damaged", part >= 0 ? p->part[part].name : p->name,
                    (long long)s->frame);
}

static mb_status note(mb_extract *x, const struct slot *s)
{
    const mb_record r = {.kind = MB_RECORD_FRAME,
                         .a = (uint64_t)s->frame,
                         .b = (uint64_t)s->place.at,
                         .c = s->place.packed};

    set_done(x, s->frame, true);
    return mb_journal_add(x->journal, &r);
}

static mb_status write_some(struct run *r, int n)
{
    const mb_bag *b = &r->x->archive->bag;

#pragma omp parallel for num_threads(r->x->threads) schedule(dynamic, 1)
    for (int i = 0; i < n; i++) {
        struct slot *s = &r->slot[i];
        s->st = mb_zstd_unpack(s->packed, s->place.packed, s->tar, mb_bag_frame(b, s->frame).n);
        mb_status_clear();
    }
    for (int i = 0; i < n; i++) {
        const struct slot *s = &r->slot[i];
        if (s->st != MB_OK)
            return damaged(r->x, s);
        MB_TRY(write_frame(r, s));
        MB_TRY(note(r->x, s));
        mb_progress_add(&r->progress, s->place.content);
    }
    return mb_journal_write(r->x->journal);
}

/* ---- files -------------------------------------------------------------------------------- */

/* Reads file i again. Its frames are forgotten, so that it is written once more, when it is not right
 * and some of them are of an earlier process: the power may have failed, or somebody was at it. */
static mb_status check_file(mb_extract *x, int64_t i, bool *again)
{
    const mb_bag_file *f = &x->archive->bag.file[i];
    const mb_record r = {.kind = MB_RECORD_FORGET, .a = (uint64_t)i};
    char path[MB_PATH_MAX];
    uint8_t digest[MB_DIGEST_BYTES];

    MB_TRY(file_path(x, f, path));
    if (mb_digest_file(path, digest) == MB_OK && memcmp(digest, f->digest, sizeof digest) == 0)
        return MB_OK;
    mb_status_clear();
    MB_REQUIRE(
        x->old[i], MB_EDATA,
        "%s: %s has another sha256 than the manifest says, though no frame of it is damaged: "
        "the bundle was made wrong",
        x->archive->parts->name, f->path);
    mb_log_warn("%s is not as it was left: it is written again", path);
    unlink(path);
    x->old[i] = false;
    *again = true;
    forget(x, i);
    MB_TRY(mb_journal_add(x->journal, &r));
    return mb_journal_write(x->journal);
}

static mb_status check_files(mb_extract *x, bool *again)
{
    const mb_bag *b = &x->archive->bag;
    mb_progress p = mb_progress_begin("checking files", b->payload_bytes);

    for (size_t i = 0; i < b->n; i++)
        if (x->wanted[i]) {
            MB_TRY(check_file(x, (int64_t)i, again));
            mb_progress_add(&p, b->file[i].size);
        }
    return MB_OK;
}

static bool is_all_done(const mb_extract *x)
{
    for (int64_t k = 0; k < x->archive->bag.frames; k++)
        if (!x->done[k] && is_wanted(x, k))
            return false;
    return true;
}

static mb_status write_all(struct run *r, bool *is_last)
{
    bool again;
    int n;

    do {
        int64_t next = 0;
        for (n = 1; n > 0;) {
            MB_TRY(gather(r, &next, &n));
            MB_TRY(write_some(r, n));
        }
        again = false;
        *is_last = is_all_done(r->x);
        if (*is_last)
            MB_TRY(check_files(r->x, &again));
    } while (again);
    return MB_OK;
}

mb_status mb_extract_run(mb_extract *x, bool *is_last)
{
    struct run r = {.x = x, .fd = -1, .n_slots = 2 * x->threads};
    mb_status st;

    MB_TRY_GOTO(MB_NEW_ARRAY(&r.slot, r.n_slots), st, done);
    for (int i = 0; i < r.n_slots; i++) {
        MB_TRY_GOTO(mb_alloc(mb_zstd_bound(MB_BAG_FRAME), "a frame", (void **)&r.slot[i].packed),
                    st, done);
        MB_TRY_GOTO(mb_alloc(MB_BAG_FRAME, "a frame", (void **)&r.slot[i].tar), st, done);
    }
    r.progress = mb_progress_begin("unpacking", mb_extract_bytes(x));
    st = write_all(&r, is_last);
done:
    if (r.fd >= 0)
        close(r.fd);
    for (int i = 0; r.slot != NULL && i < r.n_slots; i++) {
        mb_free(r.slot[i].packed);
        mb_free(r.slot[i].tar);
    }
    mb_free(r.slot);
    return st;
}
