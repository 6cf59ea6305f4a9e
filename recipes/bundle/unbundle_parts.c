/* recipes/bundle/unbundle_parts.c - which parts an unbundle uses, and which it is missing. */
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "recipes/bundle/unbundle_inside.h"

/* ---- parts -------------------------------------------------------------------------------- */

mb_status mb_unbundling_recall(struct mb_unbundling *w, bool careful)
{
    for (size_t i = 0; i < w->journal.n; i++) {
        const mb_record *r = &w->journal.record[i];
        if (r->kind == MB_RECORD_SIZES)
            MB_TRY(mb_parts_sizes(&w->parts, (int64_t)r->a, (int64_t)r->b));
        if (careful || r->kind != MB_RECORD_PART || r->a >= (uint64_t)w->parts.n)
            continue;
        MB_TRY(mb_parts_trust(&w->parts, (int64_t)r->a, &(mb_part_mark){r->b, r->c, r->d, r->e}));
        w->has_doubts |= w->parts.part[r->a].fd >= 0;
    }
    return MB_OK;
}

static mb_status note_part(struct mb_unbundling *w, int64_t i)
{
    mb_part_mark m;

    if (w->journal.fd < 0 || w->parts.part[i].fd < 0 || !mb_part_mark_of(w->parts.part[i].path, &m))
        return MB_OK;
    MB_TRY(mb_journal_add(&w->journal, &(mb_record){.kind = MB_RECORD_PART,
                                                    .a = (uint64_t)i,
                                                    .b = m.device,
                                                    .c = m.inode,
                                                    .d = m.size,
                                                    .e = m.time}));
    return mb_journal_write(&w->journal);
}

static mb_status check_parts(struct mb_unbundling *w)
{
    mb_progress p = mb_progress_begin("checking parts", 0);
    const int64_t full = w->parts.full, last = w->parts.last;

    for (int64_t i = 0; i < w->parts.n; i++) {
        if (w->parts.part[i].fd >= 0)
            continue;
        p.total = p.done + (w->parts.n - i) * (w->parts.full > 0 ? w->parts.full : 0);
        MB_TRY(mb_parts_use(&w->parts, i, true, &p));
        MB_TRY(note_part(w, i));
    }
    if (w->journal.fd < 0 || (full == w->parts.full && last == w->parts.last))
        return MB_OK;
    MB_TRY(mb_journal_add(&w->journal, &(mb_record){.kind = MB_RECORD_SIZES,
                                                    .a = (uint64_t)w->parts.full,
                                                    .b = (uint64_t)w->parts.last}));
    return mb_journal_write(&w->journal);
}

mb_status mb_unbundling_use(struct mb_unbundling *w, bool check)
{
    if (check)
        return check_parts(w);
    for (int64_t i = 0; i < w->parts.n; i++)
        MB_TRY(mb_parts_use(&w->parts, i, false, NULL));
    w->has_doubts = true;
    return MB_OK;
}

/* ---- what is still missing ---------------------------------------------------------------- */

/* Is this frame's content written, or not wanted? Tag files are read anew each time. */
static bool is_settled(const struct mb_unbundling *w, int64_t frame)
{
    const mb_bag_file *f;

    if (w->archive.bag.n == 0)
        return false;
    f = mb_bag_frame(&w->archive.bag, frame).file;
    if (f != NULL && f < w->archive.bag.file + MB_BAG_TAGS)
        return false;
    return w->extract.done[frame] || (f != NULL && !w->wanted[f - w->archive.bag.file]);
}

/* From `at` on, up to `end`: the next bytes that no settled frame has. */
static bool next_unsettled(const struct mb_unbundling *w, size_t *frame, int64_t at, int64_t end,
                           int64_t *from, int64_t *to)
{
    const mb_archive *a = &w->archive;

    *from = at;
    for (; *frame < a->n; ++*frame) {
        const mb_seek_frame *f = &a->frame[*frame];
        const int64_t after = f->at + f->packed;
        if (after <= *from || !is_settled(w, (int64_t)*frame))
            continue;
        if (f->at > *from)
            break;
        *from = after;
    }
    *to = *frame < a->n && a->frame[*frame].at < end ? a->frame[*frame].at : end;
    return *from < end;
}

/* Where part i lies; false while that is not known. */
static bool span_of(const mb_parts *p, int64_t i, int64_t *at, int64_t *end)
{
    const int64_t n = i == p->n - 1 ? p->last : p->full;

    *at = i > 0 ? i * p->full : 0;
    *end = *at + n;
    return n >= 0 && (i == 0 || p->full >= 0);
}

static bool is_needed(const struct mb_unbundling *w, int64_t i)
{
    int64_t at, end, from, to;

    if (w->parts.part[i].fd >= 0)
        return false;
    if (!span_of(&w->parts, i, &at, &end))
        return true;
    for (size_t frame = 0; next_unsettled(w, &frame, at, end, &from, &to); at = to)
        if (mb_parts_there(&w->parts, from, to - from) < to - from)
            return true;
    return false;
}

mb_status mb_unbundling_keep(struct mb_unbundling *w)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < w->parts.n; i++) {
        int64_t at = 0, end = w->parts.part[i].size, from, to, begin;

        if (w->parts.part[i].fd < 0)
            continue;
        if (!span_of(&w->parts, i, &begin, &end)) { /* a place is not known: all of it */
            MB_TRY(mb_parts_keep(&w->parts, i, 0, w->parts.part[i].size));
            kept += w->parts.part[i].size;
            continue;
        }
        at = begin;
        for (size_t frame = 0; next_unsettled(w, &frame, at, end, &from, &to); at = to) {
            MB_TRY(mb_parts_keep(&w->parts, i, from - begin, to - from));
            kept += to - from;
        }
    }
    if (kept > 0)
        mb_log_info("%.1f MB that cannot be used yet are kept in %s", (double)kept / 1e6,
                    w->journal.kept);
    return MB_OK;
}

mb_status mb_unbundling_missing(struct mb_unbundling *w)
{
    char names[600] = "";
    int64_t missing = 0, bad = 0;

    for (int64_t i = 0; i < w->parts.n; i++) {
        const mb_part *p = &w->parts.part[i];
        const size_t n = strlen(names);

        if (!is_needed(w, i))
            continue;
        mb_log_warn("%s part: %s", p->is_bad ? "bad" : "missing", p->name);
        missing += !p->is_bad;
        bad += p->is_bad;
        if (n < 400)
            snprintf(names + n, sizeof names - n, "%s%s%s", n > 0 ? ", " : "", p->name,
                     p->is_bad ? " (bad)" : "");
        else if (strcmp(names + n - 3, "...") != 0)
            snprintf(names + n, sizeof names - n, ", ...");
    }
    if (missing + bad == 0)
        return MB_OK;
    return MB_RAISE(MB_EDATA,
                    "of the %lld parts %lld are missing and %lld bad: %s; run this again when they "
                    "are there, what has been read need not be",
                    (long long)w->parts.n, (long long)missing, (long long)bad, names);
}
