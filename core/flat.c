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

/* A host's copy of halves that are being joined or split. */
enum { PIECE = 1 << 14 };

struct halves {
    uint16_t hi[PIECE], lo[PIECE];
};

mb_status mb_flat_read(mb_device *d, const mb_flat *f, int64_t from, int64_t n, float *to)
{
    struct halves h;

    if (f->own_low == NULL) {
        const mb_tensor own = mb_tensor_1d(f->own_param + (from - f->own_from), MB_DTYPE_F32, n);
        return mb_device_read(d, to, &own);
    }
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t m = n - at < PIECE ? n - at : PIECE;
        const mb_tensor hi = mb_tensor_1d((uint16_t *)f->half + from + at, MB_DTYPE_BF16, m);
        const mb_tensor lo = mb_tensor_1d(f->own_low + (from + at - f->own_from), MB_DTYPE_U16, m);

        MB_TRY(mb_device_read(d, h.hi, &hi));
        MB_TRY(mb_device_read(d, h.lo, &lo));
        for (int64_t i = 0; i < m; i++)
            to[at + i] = mb_bf16_join(h.hi[i], h.lo[i]);
    }
    return MB_OK;
}

mb_status mb_flat_write_halves(mb_device *d, const mb_flat *f, int64_t from, int64_t n,
                               const float *x)
{
    struct halves h;

    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t m = n - at < PIECE ? n - at : PIECE, first = from + at;
        const int64_t a = first > f->own_from ? first : f->own_from,
                      b = first + m < f->own_to ? first + m : f->own_to;
        const mb_tensor hi = mb_tensor_1d((uint16_t *)f->half + first, MB_DTYPE_BF16, m);

        for (int64_t i = 0; i < m; i++)
            h.hi[i] = mb_bf16_split(x[at + i], &h.lo[i]);
        MB_TRY(mb_device_write(d, &hi, h.hi));
        if (a < b) {
            const mb_tensor lo = mb_tensor_1d(f->own_low + (a - f->own_from), MB_DTYPE_U16, b - a);
            MB_TRY(mb_device_write(d, &lo, h.lo + (a - first)));
        }
    }
    return MB_OK;
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
