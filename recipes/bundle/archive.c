/* recipes/bundle/archive.c - see recipes/bundle/archive.h. */
#include "recipes/bundle/archive.h"

#include <string.h>

#include "core/alloc.h"
#include "recipes/data/zstd.h"

enum { HEAD_BYTES = 160 << 10 /* of a packed frame hold its first block */ };

mb_status mb_archive_open(mb_parts *parts, mb_archive *a)
{
    *a = (mb_archive){.parts = parts};
    return mb_alloc(mb_zstd_bound(MB_BAG_FRAME), "a frame", (void **)&a->buffer);
}

void mb_archive_close(mb_archive *a)
{
    mb_bag_release(&a->bag);
    mb_free(a->frame);
    mb_free(a->buffer);
}

static const char *name(const mb_archive *a)
{
    return a->parts->name;
}

/* ---- places ------------------------------------------------------------------------------- */

static mb_status read_table(mb_archive *a)
{
    const int64_t total = mb_parts_total(a->parts);
    char foot[MB_SEEK_FOOT];
    void *table;
    mb_status st;

    if (total < 0)
        return MB_OK;
    MB_REQUIRE(total > MB_SEEK_FOOT, MB_EDATA, "%s: is too short for a bundle", name(a));
    if (mb_parts_there(a->parts, total - MB_SEEK_FOOT, MB_SEEK_FOOT) < MB_SEEK_FOOT)
        return MB_OK;
    MB_TRY(mb_parts_read(a->parts, total - MB_SEEK_FOOT, foot, sizeof foot));
    const int64_t n = mb_seek_count(foot), bytes = mb_seek_bytes(n);
    MB_REQUIRE(n > MB_BAG_TAGS && n <= MB_BAG_MOST_FRAMES && bytes <= total, MB_EDATA,
               "%s: does not end with the seek table of a bundle", name(a));
    if (mb_parts_there(a->parts, total - bytes, bytes) < bytes)
        return MB_OK;
    MB_TRY(mb_grow((void **)&a->frame, &a->capacity, (size_t)n, sizeof *a->frame, "frames"));
    MB_TRY(mb_alloc((size_t)bytes, "a seek table", &table));
    st = mb_parts_read(a->parts, total - bytes, table, (size_t)bytes);
    if (st == MB_OK)
        st = mb_seek_read(table, n, total - bytes, a->frame);
    mb_free(table);
    if (st != MB_OK)
        return mb_status_prefix(st, "%s: ", name(a));
    a->n = (size_t)n;
    a->has_table = true;
    return MB_OK;
}

static mb_status add_place(mb_archive *a, int64_t at, size_t packed, uint64_t content)
{
    MB_REQUIRE(packed <= mb_zstd_bound(MB_BAG_FRAME) && content <= MB_BAG_FRAME, MB_EDATA,
               "%s: a frame is larger than those of a bundle", name(a));
    MB_REQUIRE(a->n < MB_BAG_MOST_FRAMES, MB_EDATA, "%s: more than %d frames", name(a),
               MB_BAG_MOST_FRAMES);
    MB_TRY(mb_grow((void **)&a->frame, &a->capacity, a->n + 1, sizeof *a->frame, "frames"));
    a->frame[a->n++] = (mb_seek_frame){at, (uint32_t)packed, (uint32_t)content, 0};
    return MB_OK;
}

mb_status mb_archive_note(mb_archive *a, int64_t frame, int64_t at, int64_t packed)
{
    if (a->has_table || frame != (int64_t)a->n)
        return MB_OK;
    return add_place(a, at, (size_t)packed, mb_bag_frame(&a->bag, frame).n);
}

/* Without the table: the next frame begins where the last one known ends. */
static mb_status walk(mb_archive *a, bool *found)
{
    const mb_seek_frame *last = a->n > 0 ? &a->frame[a->n - 1] : NULL;
    const int64_t at = last != NULL ? last->at + last->packed : 0;
    const int64_t most = (int64_t)mb_zstd_bound(MB_BAG_FRAME);
    const int64_t there = mb_parts_there(a->parts, at, most);
    size_t packed = 0;
    uint64_t content = 0;
    mb_status st;

    *found = false;
    if (there < 18) /* less than any frame */
        return MB_OK;
    MB_TRY(mb_parts_read(a->parts, at, a->buffer, (size_t)there));
    st = mb_zstd_measure(a->buffer, (size_t)there, &packed, &content);
    if (st != MB_OK && there < most) { /* it goes on in a part that is not here */
        mb_status_clear();
        return MB_OK;
    }
    if (st != MB_OK)
        return mb_status_prefix(st, "%s: at byte %lld: ", name(a), (long long)at);
    *found = true;
    return add_place(a, at, packed, content);
}

mb_status mb_archive_find(mb_archive *a, int64_t frame, mb_seek_frame *out, bool *here)
{
    *here = true;
    while (*here && !a->has_table && (int64_t)a->n <= frame)
        MB_TRY(walk(a, here));
    if (!*here)
        return MB_OK;
    MB_REQUIRE(frame < (int64_t)a->n && a->frame[frame].packed <= mb_zstd_bound(MB_BAG_FRAME) &&
                   a->frame[frame].content <= MB_BAG_FRAME,
               MB_EDATA, "%s: its frames are not those of a bundle", name(a));
    *out = a->frame[frame];
    *here = mb_parts_there(a->parts, out->at, out->packed) == out->packed;
    return MB_OK;
}

/* ---- tag files ---------------------------------------------------------------------------- */

/* Unpacks a whole frame into `to`, which has room for one. */
static mb_status unpack(mb_archive *a, int64_t frame, char *to, size_t *n, bool *here)
{
    mb_seek_frame f;
    mb_status st;

    MB_TRY(mb_archive_find(a, frame, &f, here));
    if (!*here)
        return MB_OK;
    MB_TRY(mb_parts_read(a->parts, f.at, a->buffer, f.packed));
    st = mb_zstd_unpack(a->buffer, f.packed, to, f.content);
    *n = f.content;
    return st == MB_OK ? st : mb_status_prefix(st, "%s: frame %lld: ", name(a), (long long)frame);
}

/* The content of a tag file whose first frame is *frame. */
static mb_status read_tag(mb_archive *a, const char *tag, char *space, int64_t *frame, char **text,
                          size_t *size, bool *here)
{
    char head[MB_TAR_MOST_HEAD];
    const size_t head_n = mb_tar_head(tag, 0, false, NULL);
    size_t n, done = 0;

    MB_TRY(unpack(a, (*frame)++, space, &n, here));
    if (!*here)
        return MB_OK;
    const int64_t bytes = n >= head_n ? mb_tar_size(space) : -1;
    MB_REQUIRE(bytes >= 0 && bytes <= MB_BAG_MOST_TAG_BYTES, MB_EDATA,
               "%s: %s is not where a bundle has it, or too large", name(a), tag);
    mb_tar_head(tag, bytes, false, head);
    MB_REQUIRE(memcmp(head, space, head_n) == 0, MB_EDATA, "%s: %s is not where a bundle has it",
               name(a), tag);
    MB_TRY(mb_alloc((size_t)bytes + 1, tag, (void **)text));
    *size = (size_t)bytes;
    for (size_t from = head_n;; from = 0) {
        const size_t left = *size - done, some = n - from < left ? n - from : left;
        memcpy(*text + done, space + from, some);
        done += some;
        if (done == *size)
            break;
        MB_REQUIRE(n == MB_BAG_FRAME, MB_EDATA, "%s: %s is cut off", name(a), tag);
        MB_TRY(unpack(a, (*frame)++, space, &n, here));
        if (!*here)
            return MB_OK;
    }
    return MB_OK;
}

/* The table says what the tag files do. */
static mb_status check_table(const mb_archive *a)
{
    const mb_bag *b = &a->bag;
    bool same = !a->has_table || (int64_t)a->n == b->frames;

    for (int64_t i = 0; a->has_table && same && i < b->frames; i++)
        same = a->frame[i].content == mb_bag_frame(b, i).n;
    MB_REQUIRE(same, MB_EDATA, "%s: its frames are not those that its tag files tell of", name(a));
    return MB_OK;
}

mb_status mb_archive_read_tags(mb_archive *a)
{
    char *text[MB_BAG_TAGS] = {0}, *space = NULL;
    size_t n[MB_BAG_TAGS];
    int64_t frame = 0;
    bool here = true;
    mb_status st = MB_OK;

    MB_TRY(read_table(a));
    MB_TRY_GOTO(mb_alloc(MB_BAG_FRAME, "a frame", (void **)&space), st, done);
    for (int i = 0; i < MB_BAG_TAGS && here; i++)
        MB_TRY_GOTO(read_tag(a, mb_bag_tag[i], space, &frame, &text[i], &n[i], &here), st, done);
    if (!here)
        goto done;
    MB_TRY_GOTO(mb_bag_parse(name(a), text, n, &a->bag), st, done);
    st = check_table(a);
done:
    if (st != MB_OK)
        mb_bag_release(&a->bag);
    for (int i = 0; i < MB_BAG_TAGS; i++)
        mb_free(text[i]);
    mb_free(space);
    return st;
}

/* ---- heads -------------------------------------------------------------------------------- */

static mb_status check_head(mb_archive *a, const mb_bag_file *f)
{
    char head[MB_TAR_MOST_HEAD], found[MB_TAR_MOST_HEAD];
    const size_t n = mb_tar_head(f->path, f->size, f->program, head);
    mb_seek_frame frame;
    bool here;
    mb_status st;

    MB_TRY(mb_archive_find(a, f->frame, &frame, &here));
    if (!here)
        return MB_OK;
    const size_t some = frame.packed < HEAD_BYTES ? frame.packed : HEAD_BYTES;
    MB_TRY(mb_parts_read(a->parts, frame.at, a->buffer, some));
    st = mb_zstd_peek(a->buffer, some, found, n);
    if (st == MB_OK && memcmp(head, found, n) != 0)
        st = MB_RAISE(
            MB_EDATA,
            "the tar's head is not the one of this file: another name, size, kind or mode");
    return st == MB_OK ? st : mb_status_prefix(st, "%s: %s: ", name(a), f->path);
}

mb_status mb_archive_check_heads(mb_archive *a, const int64_t *left)
{
    for (size_t i = 0; i < a->bag.n; i++)
        if (left[i] > 0)
            MB_TRY(check_head(a, &a->bag.file[i]));
    return MB_OK;
}
