/* recipes/bundle/unbundle.c - a bundle is checked, unpacked beside its place and put there.
 *
 * Parts are read twice: for their sha256, and what is in the good ones. With patterns or for a list only
 * what is needed is read, and the checksums of frames and files stand for those of parts.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/bundle/unbundle_inside.h"

enum { MOST_THREADS = 16, USUAL_GROWTH = 200 };
static const int64_t LEAST_LIMIT = 1 << 30;

/* ---- wishes ------------------------------------------------------------------------------- */

static bool matches(const char *pattern, const char *path)
{
    const char *inner = path + strlen("data/");
    const size_t n = strlen(pattern);

    return fnmatch(pattern, path, 0) == 0 || fnmatch(pattern, inner, 0) == 0 ||
           (strncmp(pattern, inner, n) == 0 && (inner[n] == '/' || pattern[n - (n > 0)] == '/'));
}

static mb_status choose(struct mb_unbundling *w)
{
    const mb_bag *b = &w->archive.bag;
    size_t n = 0;

    MB_TRY(MB_NEW_ARRAY(&w->wanted, b->n));
    for (size_t i = MB_BAG_TAGS; i < b->n; i++) {
        w->wanted[i] = w->all;
        for (size_t k = 0; k < w->o->n_only && !w->wanted[i]; k++)
            w->wanted[i] = matches(w->o->only[k], b->file[i].path);
        n += w->wanted[i];
    }
    MB_REQUIRE(n > 0 || w->all, MB_EARG, "%s: nothing in it is like %s; --list says what there is",
               w->parts.name, w->o->only[0]);
    return MB_OK;
}

static void print_list(const struct mb_unbundling *w)
{
    const mb_bag *b = &w->archive.bag;

    for (size_t i = MB_BAG_TAGS; i < b->n; i++)
        if (w->wanted[i])
            printf("%14lld  %s\n", (long long)b->file[i].size, b->file[i].path + strlen("data/"));
    printf("%14lld  in %zu files\n", (long long)b->payload_bytes, b->n - MB_BAG_TAGS);
}

/* ---- before anything is written ----------------------------------------------------------- */

static mb_status check_sizes(struct mb_unbundling *w)
{
    const int64_t packed = mb_parts_total(&w->parts);
    int64_t most = w->o->most, bytes = w->archive.bag.payload_bytes;
    char dir[MB_PATH_MAX];
    struct statvfs v;

    if (most == 0)
        most = packed > LEAST_LIMIT / USUAL_GROWTH ? packed * USUAL_GROWTH : LEAST_LIMIT;
    if (packed < 0 && w->o->most == 0) /* at least this much */
        most = w->parts.full * w->parts.n * USUAL_GROWTH;
    MB_REQUIRE(bytes <= most, MB_EDATA,
               "%s: unpacks to %lld bytes, more than %lld: if that is right, give --max-size SIZE",
               w->parts.name, (long long)bytes, (long long)most);
    bytes = mb_extract_bytes(&w->extract);
    MB_TRY(mb_path_join(dir, sizeof dir, "", w->journal.dir));
    if (statvfs(dir, &v) == 0)
        MB_REQUIRE((uint64_t)bytes <= (uint64_t)v.f_bavail * v.f_frsize, MB_EIO,
                   "%s: %lld bytes are needed where %s is, and %llu are free", w->parts.name,
                   (long long)bytes, w->journal.dir, (unsigned long long)v.f_bavail * v.f_frsize);
    return MB_OK;
}

/* Is the folder there already what is in the bundle? */
static mb_status check_existing(const struct mb_unbundling *w)
{
    const mb_bag *b = &w->archive.bag;
    uint8_t digest[MB_DIGEST_BYTES];
    char path[MB_PATH_MAX];
    size_t n = 0;

    MB_REQUIRE(b->n > 0, MB_EARG, "%s is there already: give another --to", w->to);
    for (size_t i = 0; i < b->n; i++) {
        if (!w->wanted[i] && !(w->all && i < MB_BAG_TAGS))
            continue;
        MB_TRY(mb_path_join(path, sizeof path, w->to, b->file[i].path));
        const bool same = mb_digest_file(path, digest) == MB_OK &&
                          memcmp(digest, b->file[i].digest, sizeof digest) == 0;
        mb_status_clear();
        MB_REQUIRE(same, MB_EARG,
                   "%s is there already, and in it %s is not as in the bundle: give another --to",
                   w->to, b->file[i].path);
        n++;
    }
    printf("%s is there already: %zu files, each with the right sha256\n", w->to, n);
    return MB_OK;
}

/* ---- the way to the folder ---------------------------------------------------------------- */

static mb_status write_tags(const struct mb_unbundling *w)
{
    char path[MB_PATH_MAX];

    for (int i = 0; w->all && i < MB_BAG_TAGS; i++) {
        const mb_bag_file *f = &w->archive.bag.file[i];
        MB_TRY(mb_path_join(path, sizeof path, w->journal.bag, f->path));
        MB_TRY(mb_file_write_atomic(path, f->text, (size_t)f->size));
    }
    return MB_OK;
}

static mb_status publish(struct mb_unbundling *w)
{
    char dir[MB_PATH_MAX];

    MB_TRY(mb_path_mkdirs(w->journal.bag));
    MB_TRY(write_tags(w));
    const int fd = open(w->journal.bag, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = fd >= 0 && syncfs(fd) == 0;
    const int failed = errno;
    if (fd >= 0)
        close(fd);
    MB_REQUIRE(synced, MB_EIO, "'%s' cannot be flushed to disk: %s", w->journal.bag,
               strerror(failed));
    MB_REQUIRE(rename(w->journal.bag, w->to) == 0, MB_EIO, "'%s' cannot be renamed to '%s': %s",
               w->journal.bag, w->to, strerror(errno));
    MB_TRY(mb_path_dir(dir, sizeof dir, w->to));
    MB_TRY(mb_path_sync_dir(dir));
    MB_TRY(mb_path_remove_tree(w->journal.dir));
    size_t n = 0;
    int64_t bytes = 0;
    for (size_t i = MB_BAG_TAGS; i < w->archive.bag.n; i++)
        if (w->wanted[i]) {
            n++;
            bytes += w->archive.bag.file[i].size;
        }
    printf("%s: %zu files, %lld bytes, each file with the right sha256\n", w->to, n,
           (long long)bytes);
    return MB_OK;
}

static mb_status note_places(struct mb_unbundling *w)
{
    for (size_t i = 0; i < w->journal.n; i++) {
        const mb_record *r = &w->journal.record[i];
        if (r->kind == MB_RECORD_FRAME && r->a < (uint64_t)w->archive.bag.frames)
            MB_TRY(mb_archive_note(&w->archive, (int64_t)r->a, (int64_t)r->b, (int64_t)r->c));
    }
    return MB_OK;
}

static mb_status prepare(struct mb_unbundling *w)
{
    MB_TRY(mb_archive_read_tags(&w->archive));
    if (w->archive.bag.n == 0)
        return MB_OK;
    MB_TRY(choose(w));
    MB_TRY(note_places(w));
    w->extract =
        (mb_extract){.archive = &w->archive,
                     .journal = &w->journal,
                     .wanted = w->wanted,
                     .end = w->all,
                     .threads = w->o->threads < MOST_THREADS ? w->o->threads : MOST_THREADS};
    MB_TRY(mb_extract_open(&w->extract));
    MB_TRY(check_sizes(w));
    return mb_archive_check_heads(&w->archive, w->extract.left);
}

/* Everything that can be done with the parts that are here. */
static mb_status unpack(struct mb_unbundling *w, bool careful)
{
    bool is_last = false;
    mb_status st;

    MB_TRY(mb_unbundling_recall(w, careful));
    MB_TRY(mb_unbundling_use(w, w->all || careful));
    MB_TRY(prepare(w));
    if (w->archive.bag.n > 0)
        MB_TRY(mb_extract_run(&w->extract, &is_last));
    if (is_last && !w->all)
        return publish(w);
    st = mb_unbundling_missing(w);
    if (st == MB_OK && is_last)
        return publish(w);
    MB_REQUIRE(st != MB_OK, MB_EDATA, "%s: every part is here, and something is missing in them",
               w->parts.name);
    w->is_waiting = true;
    if (w->all && mb_unbundling_keep(w) != MB_OK)
        mb_log_warn("what cannot be used yet is not all kept in %s", w->journal.kept);
    return st;
}

/* A folder that is there: of a process that was killed after its last step, or somebody else's. */
static mb_status look_at_existing(struct mb_unbundling *w, bool careful)
{
    char dir[MB_PATH_MAX], bag[MB_PATH_MAX];

    MB_TRY(mb_unbundling_use(w, careful));
    MB_TRY(mb_archive_read_tags(&w->archive));
    if (w->archive.bag.n > 0)
        MB_TRY(choose(w));
    MB_TRY(check_existing(w));
    MB_TRY(mb_journal_dir(w->to, dir, sizeof dir));
    MB_TRY(mb_path_join(bag, sizeof bag, dir, "bag"));
    return mb_path_exists(dir) && !mb_path_exists(bag) ? mb_path_remove_tree(dir) : MB_OK;
}

static mb_status list(struct mb_unbundling *w, bool careful)
{
    MB_TRY(mb_unbundling_use(w, careful));
    MB_TRY(mb_archive_read_tags(&w->archive));
    MB_REQUIRE(w->archive.bag.n > 0, MB_EDATA,
               "%s: the list of files is in %s, which is not there or not whole", w->parts.name,
               w->parts.part[0].name);
    MB_TRY(choose(w));
    print_list(w);
    return MB_OK;
}

static void start_again(struct mb_unbundling *w)
{
    mb_extract_close(&w->extract);
    mb_bag_release(&w->archive.bag);
    mb_archive_close(&w->archive);
    mb_parts_drop(&w->parts);
    mb_free(w->wanted);
    w->extract = (mb_extract){0};
    w->wanted = NULL;
    w->archive = (mb_archive){0};
    w->has_doubts = false;
}

/* Parts are believed first; what is then found damaged is looked for in them. */
static mb_status try_twice(struct mb_unbundling *w,
                           mb_status (*step)(struct mb_unbundling *w, bool careful))
{
    mb_status st;

    MB_TRY(mb_archive_open(&w->parts, &w->archive));
    st = step(w, false);
    if (st != MB_EDATA || w->is_waiting || !w->has_doubts)
        return st;
    mb_log_warn("%s: all parts are checked", mb_status_sentence());
    mb_status_clear();
    start_again(w);
    MB_TRY(mb_archive_open(&w->parts, &w->archive));
    return step(w, true);
}

/* What the journal belongs to: the bundle and the patterns. */
static mb_status name_work(const struct mb_unbundling *w, char id[MB_DIGEST_HEX])
{
    uint8_t digest[MB_DIGEST_BYTES];
    mb_text wish = {0};
    mb_status st;

    mb_text_add(&wish, "%s\n", w->parts.id);
    for (size_t k = 0; k < w->o->n_only; k++)
        mb_text_add(&wish, "%s\n", w->o->only[k]);
    st = wish.st == MB_OK ? mb_digest_memory(wish.s, wish.n, digest) : wish.st;
    mb_text_release(&wish);
    MB_TRY(st);
    mb_digest_hex(digest, id);
    return MB_OK;
}

static bool is_any_part_here(const mb_parts *p)
{
    for (int64_t i = 0; i < p->n; i++)
        if (p->part[i].fd >= 0)
            return true;
    return p->n_kept > 0;
}

static mb_status unpack_beside(struct mb_unbundling *w)
{
    char id[MB_DIGEST_HEX];
    mb_status st;

    MB_TRY(name_work(w, id));
    MB_TRY(mb_journal_open(w->to, id, &w->journal));
    st = mb_parts_kept(&w->parts, w->journal.kept);
    if (st == MB_OK)
        st = try_twice(w, unpack);
    /* an archive that is wrong, or nothing to go on with */
    const bool is_spoiled = st == MB_EDATA && !w->is_waiting;
    const bool is_empty = w->journal.is_new && !mb_path_exists(w->journal.bag) &&
                          !(w->is_waiting && is_any_part_here(&w->parts));
    if (st != MB_OK && (is_spoiled || is_empty) && mb_path_remove_tree(w->journal.dir) != MB_OK)
        mb_log_warn("'%s' cannot be removed", w->journal.dir);
    return st;
}

static bool is_empty_or_not_there(const char *path)
{
    char **names;
    size_t n = 0;

    if (!mb_path_exists(path))
        return true;
    if (!mb_path_is_dir(path) || mb_path_list(path, &names, &n) != MB_OK) {
        mb_status_clear();
        return false;
    }
    mb_path_list_free(names, n);
    return n == 0;
}

mb_status mb_unbundle(const mb_unbundle_options *o)
{
    struct mb_unbundling w = {.o = o, .journal = {.fd = -1}, .all = o->n_only == 0};
    mb_status st;

    MB_TRY_GOTO(mb_parts_open(o->sums, o->place, o->n_places, &w.parts), st, done);
    MB_TRY_GOTO(mb_path_join(w.to, sizeof w.to, "", o->to != NULL ? o->to : w.parts.name), st,
                done);
    for (size_t n = strlen(w.to); n > 1 && w.to[n - 1] == '/'; n--)
        w.to[n - 1] = '\0';
    st = o->list                       ? try_twice(&w, list)
         : is_empty_or_not_there(w.to) ? unpack_beside(&w)
                                       : try_twice(&w, look_at_existing);
done:
    mb_extract_close(&w.extract);
    mb_journal_close(&w.journal);
    mb_archive_close(&w.archive);
    mb_parts_close(&w.parts);
    mb_free(w.wanted);
    return st;
}
