/* recipes/bundle/write.c - a bundle is written: every file is read twice, for its digest, which goes
 * in front, and for its content, which must still have that digest. Frames are packed in parallel and
 * written in order. */
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "recipes/bundle/bundle.h"
#include "recipes/bundle/out.h"
#include "recipes/bundle/progress.h"
#include "recipes/bundle/seek.h"
#include "recipes/data/zstd.h"

enum { MOST_THREADS = 16 };
static const int64_t USUAL_SPLIT = 4000000000;

/* ---- digests ------------------------------------------------------------------------------ */

static mb_status digest_of(mb_bag_file *f)
{
    return f->source != NULL ? mb_digest_file(f->source, f->digest)
                             : mb_digest_memory(f->text, (size_t)f->size, f->digest);
}

static mb_status digest_all(mb_bag *b, int threads)
{
    mb_progress p = mb_progress_begin("reading", 0);
    mb_status failed = MB_OK;
    char why[1024] = "";

    for (size_t i = 0; i < b->n; i++)
        p.total += b->file[i].size;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (size_t i = 0; i < b->n; i++) {
        const mb_status st = failed == MB_OK ? digest_of(&b->file[i]) : MB_OK;
#pragma omp critical(mb_bundle_digests)
        {
            mb_progress_add(&p, b->file[i].size);
            if (st != MB_OK && failed == MB_OK) {
                failed = st;
                snprintf(why, sizeof why, "%s", mb_status_sentence());
            }
        }
        mb_status_clear();
    }
    return failed == MB_OK ? MB_OK : MB_RAISE(failed, "%s", why);
}

/* How many bytes of `path` name what it belongs to: "data/models/org/name", "data/checkpoints/run";
 * 0 for recipes and the program. */
static size_t group_bytes(const char *path)
{
    static const struct {
        const char *folder;
        int names;
    } groups[] = {{"data/models/", 2}, {"data/datasets/", 2}, {"data/checkpoints/", 1}};

    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        size_t n = strlen(groups[i].folder);
        if (strncmp(path, groups[i].folder, n) != 0)
            continue;
        for (int k = 0; k < groups[i].names; k++)
            n += strcspn(path + n, "/") + 1;
        return n - 1;
    }
    return 0;
}

/* A line for each model, dataset and run: the digest of its lines in the manifest. */
static mb_status describe(const mb_bag *b, mb_text *info)
{
    char hex[MB_DIGEST_HEX];
    uint8_t digest[MB_DIGEST_BYTES];

    for (size_t i = 0, next; i < b->n; i = next) {
        const size_t n = group_bytes(b->file[i].path);
        mb_text lines = {0};
        int64_t bytes = 0;
        char *text;

        for (next = i; next < b->n && group_bytes(b->file[next].path) == n &&
                       strncmp(b->file[next].path, b->file[i].path, n) == 0;
             next++) {
            mb_digest_hex(b->file[next].digest, hex);
            mb_text_add(&lines, "%s  %s\n", hex, b->file[next].path);
            bytes += b->file[next].size;
        }
        MB_TRY(mb_text_take(&lines, &text));
        const mb_status st = mb_digest_memory(text, strlen(text), digest);
        mb_free(text);
        MB_TRY(st);
        mb_digest_hex(digest, hex);
        if (n > 0)
            mb_text_add(info, "Mbuyu-Content: %.*s %" PRId64 ".%zu sha256:%s\n", (int)n - 5,
                        b->file[i].path + 5, bytes, next - i, hex);
    }
    return info->st;
}

/* ---- frames ------------------------------------------------------------------------------- */

struct slot {
    char *tar, *packed;
    size_t n, packed_n;
    mb_status st;
};

struct writer {
    const mb_bag *bag;
    mb_bundle_out *out;
    struct slot *slot;
    int threads, n_slots;
    mb_seek_frame *frame;
    mb_digest *digest;
    const mb_bag_file *open; /* whose descriptor is fd */
    int fd;
    mb_progress progress;
};

static mb_status changed(const mb_bag_file *f)
{
    return MB_RAISE(MB_EDATA, "'%s' changed while it was being bundled", f->source);
}

static mb_status read_content(struct writer *w, const mb_bag_file *f, char *to, size_t n,
                              int64_t at)
{
    int64_t size;

    if (f->source == NULL) {
        memcpy(to, f->text + at, n);
        return MB_OK;
    }
    if (w->open != f) {
        if (w->fd >= 0)
            close(w->fd);
        w->fd = -1;
        w->open = NULL;
        MB_TRY(mb_file_open(f->source, MB_EDATA, &w->fd, &size));
        w->open = f;
        if (size != f->size)
            return changed(f);
    }
    return mb_pread_all(w->fd, to, n, at, f->source);
}

/* The bytes of a file's frame: what there is of its head, content and zeros. */
static mb_status fill(struct writer *w, const mb_bag_span *s, char *tar)
{
    const mb_bag_file *f = s->file;
    char head[MB_TAR_MOST_HEAD];
    size_t done = 0;

    memset(tar, 0, s->n);
    if (f == NULL)
        return MB_OK;
    if (s->at == 0) /* a head is shorter than a frame */
        memcpy(tar, head, done = mb_tar_head(f->path, f->size, f->program, head));
    const int64_t from = s->at + (int64_t)done - f->head_n, left = f->size - from;
    const size_t room = s->n - done, n = left < (int64_t)room ? (size_t)left : room;
    if (left <= 0)
        return MB_OK;
    MB_TRY(read_content(w, f, tar + done, n, from));
    return mb_digest_add(w->digest, tar + done, n);
}

/* After the last frame of a file: is it what was read before? */
static mb_status check(struct writer *w, const mb_bag_file *f, int64_t frame)
{
    uint8_t digest[MB_DIGEST_BYTES];

    if (f == NULL || frame != f->frame + f->frames - 1)
        return MB_OK;
    MB_TRY(mb_digest_end(w->digest, digest));
    return memcmp(digest, f->digest, sizeof digest) == 0 ? MB_OK : changed(f);
}

static mb_status pack_some(struct writer *w, int64_t first, int n)
{
    for (int i = 0; i < n; i++) {
        const mb_bag_span s = mb_bag_frame(w->bag, first + i);
        w->slot[i].n = s.n;
        MB_TRY(fill(w, &s, w->slot[i].tar));
        MB_TRY(check(w, s.file, first + i));
    }
#pragma omp parallel for num_threads(w->threads) schedule(dynamic, 1)
    for (int i = 0; i < n; i++) {
        struct slot *s = &w->slot[i];
        s->st = mb_zstd_pack(s->tar, s->n, s->packed, mb_zstd_bound(MB_BAG_FRAME), &s->packed_n);
        mb_status_clear();
    }
    for (int i = 0; i < n; i++) {
        const struct slot *s = &w->slot[i];
        mb_seek_frame *f = &w->frame[first + i];

        MB_REQUIRE(s->st == MB_OK, s->st, "libzstd has not enough memory");
        *f = (mb_seek_frame){w->out->bytes, (uint32_t)s->packed_n, (uint32_t)s->n, 0};
        for (int k = 0; k < 4; k++) /* a frame ends with its checksum */
            f->checksum |= (uint32_t)(uint8_t)s->packed[s->packed_n - 4 + (size_t)k] << 8 * k;
        MB_TRY(mb_bundle_out_write(w->out, s->packed, s->packed_n));
        mb_progress_add(&w->progress, (int64_t)s->n);
    }
    return MB_OK;
}

static mb_status write_table(struct writer *w)
{
    const int64_t n = w->bag->frames, bytes = mb_seek_bytes(n);
    void *table;
    mb_status st;

    MB_TRY(mb_alloc((size_t)bytes, "a seek table", &table));
    mb_seek_write(w->frame, n, table);
    st = mb_bundle_out_write(w->out, table, (size_t)bytes);
    mb_free(table);
    return st;
}

static mb_status write_all(struct writer *w)
{
    const int64_t n = w->bag->frames;

    MB_TRY(mb_digest_new(&w->digest));
    MB_TRY(MB_NEW_ARRAY(&w->frame, n));
    MB_TRY(MB_NEW_ARRAY(&w->slot, w->n_slots));
    for (int i = 0; i < w->n_slots; i++) {
        MB_TRY(mb_alloc(MB_BAG_FRAME, "a frame", (void **)&w->slot[i].tar));
        MB_TRY(mb_alloc(mb_zstd_bound(MB_BAG_FRAME), "a frame", (void **)&w->slot[i].packed));
    }
    for (int64_t i = 0; i < n; i += w->n_slots)
        MB_TRY(pack_some(w, i, (int)(n - i < w->n_slots ? n - i : w->n_slots)));
    return write_table(w);
}

static void release(struct writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    for (int i = 0; w->slot != NULL && i < w->n_slots; i++) {
        mb_free(w->slot[i].tar);
        mb_free(w->slot[i].packed);
    }
    mb_free(w->slot);
    mb_free(w->frame);
    mb_digest_free(w->digest);
}

/* ---- */

static mb_status seal(mb_bag *b, int threads)
{
    mb_text info = {0};
    char *text = NULL;
    mb_status st;

    MB_REQUIRE(b->n > 0, MB_EARG, "there is nothing in the bundle");
    MB_TRY(mb_bag_sort(b));
    MB_TRY(digest_all(b, threads));
    st = describe(b, &info);
    if (st != MB_OK) {
        mb_text_release(&info);
        return st;
    }
    if (info.n == 0)
        return mb_bag_seal(b, MB_VERSION, "");
    MB_TRY(mb_text_take(&info, &text));
    st = mb_bag_seal(b, MB_VERSION, text);
    mb_free(text);
    return st;
}

mb_status mb_bundle_write(mb_bundle_items *b, const mb_bundle_options *o)
{
    const int threads = o->threads < MOST_THREADS ? o->threads : MOST_THREADS;
    mb_bundle_out out = {.file = {.fd = -1}};
    struct writer w = {
        .bag = &b->bag, .out = &out, .threads = threads, .n_slots = 2 * threads, .fd = -1};
    mb_status st;

    MB_TRY_GOTO(seal(&b->bag, threads), st, done);
    const int64_t most =
        (int64_t)mb_zstd_bound((size_t)b->bag.tar_bytes) + b->bag.frames * (MB_SEEK_ENTRY + 64);
    MB_TRY_GOTO(
        mb_bundle_out_open(&out, o->dir, o->name, o->split > 0 ? o->split : USUAL_SPLIT, most), st,
        done);
    w.progress = mb_progress_begin("packing", b->bag.tar_bytes);
    MB_TRY_GOTO(write_all(&w), st, done);
    MB_TRY_GOTO(mb_bundle_out_finish(&out), st, done);
    printf("content  %zu files, %lld bytes\n", b->bag.n - MB_BAG_TAGS,
           (long long)b->bag.payload_bytes);
    printf("written  %lld bytes (zstd %s, level 3), as %s/%s.sha256 says:\n%s",
           (long long)out.bytes, mb_zstd_version(), o->dir, o->name, out.sums.s);
done:
    release(&w);
    mb_bundle_out_close(&out);
    return st;
}
