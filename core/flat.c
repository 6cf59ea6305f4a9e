/* core/flat.c - see core/flat.h. */
#include "core/flat.h"

#include "core/alloc.h"
#include "core/kernels.h"

int64_t mb_flat_bound(const mb_flat *f, int size, int rank)
{
    MB_ASSERT(f->count % MB_GRAIN == 0);
    return f->count / MB_GRAIN * rank / size * MB_GRAIN;
}

void mb_flat_bounds(const mb_flat *f, int size, int64_t *bounds)
{
    for (int r = 0; r <= size; r++)
        bounds[r] = mb_flat_bound(f, size, r);
}

/* A segment of the unit that starts where its last range ends makes that longer. */
static mb_status put(mb_flat_unit *u, const mb_flat_segment *s)
{
    const int last = u->n_ranges - 1;

    if (last >= 0 && u->range[last].to == s->offset) {
        u->range[last].to += s->count;
    } else {
        MB_REQUIRE(u->n_ranges < MB_FLAT_RANGES, MB_EBUG,
                   "the trained parameters of layer %lld lie in more than %d places",
                   (long long)s->layer, MB_FLAT_RANGES);
        u->range[u->n_ranges].from = s->offset;
        u->range[u->n_ranges].to = s->offset + s->count;
        u->range[u->n_ranges++].at = u->count;
    }
    u->count += s->count;
    return MB_OK;
}

mb_status mb_flat_make_units(mb_flat *f, int64_t layers)
{
    MB_TRY(MB_NEW_ARRAY(&f->unit, layers + 1));
    f->n_units = (int)layers + 1;
    for (int i = 0; i < f->n_segments; i++)
        MB_TRY(put(&f->unit[f->segment[i].layer + 1], &f->segment[i]));
    return MB_OK;
}

void mb_flat_shard(mb_flat *f, int stage, int rank, int size)
{
    f->stage = stage;
    f->own_from = mb_flat_bound(f, size, rank);
    f->own_to = mb_flat_bound(f, size, rank + 1);
}

int64_t mb_flat_window_count(const mb_flat *f, int window)
{
    int64_t most = 0;

    for (int u = 0; u < f->n_units; u++)
        if (mb_flat_window_of(u) == window && f->unit[u].count > most)
            most = f->unit[u].count;
    return most;
}

int64_t mb_flat_window_at(const mb_flat *f, int64_t layer, int64_t offset)
{
    const mb_flat_unit *u = &f->unit[layer + 1];

    for (int i = 0; i < u->n_ranges; i++)
        if (offset >= u->range[i].from && offset < u->range[i].to)
            return u->range[i].at + offset - u->range[i].from;
    MB_BUG("element %lld is not in layer %lld", (long long)offset, (long long)layer);
}
