/* dist/checkpoint_layout.c - which slice of which tensor is in which file. */
#include <stdio.h>
#include <string.h>

#include "dist/checkpoint_inside.h"

int mb_layout_sets(const mb_layout *l)
{
    return 1 + l->kind->n_states;
}

static void range_of(const mb_layout *l, int rank, int64_t *from, int64_t *to)
{
    *from = mb_flat_bound(l->flat, l->size, rank);
    *to = mb_flat_bound(l->flat, l->size, rank + 1);
}

static int64_t windows(const mb_layout *l, int rank)
{
    int64_t from, to;

    range_of(l, rank, &from, &to);
    return (to - from + l->piece - 1) / l->piece;
}

int64_t mb_layout_pieces(const mb_layout *l, int rank)
{
    return windows(l, rank) * mb_layout_sets(l);
}

void mb_layout_piece(const mb_layout *l, int rank, int64_t number, mb_piece *out)
{
    const int64_t n = windows(l, rank);
    int64_t from, to;

    range_of(l, rank, &from, &to);
    snprintf(out->file, sizeof out->file, "rank-%05d-of-%05d.%03lld.h5", rank, l->size,
             (long long)number);
    out->set = (int)(number / n);
    out->from = from + number % n * l->piece;
    out->to = out->from + l->piece < to ? out->from + l->piece : to;
}

bool mb_layout_slice(const mb_layout *l, int64_t from, int64_t to, int *next, mb_slice *out)
{
    for (; *next < l->flat->n_segments; ++*next) {
        const mb_flat_segment *s = &l->flat->segment[*next];
        const int64_t a = s->offset > from ? s->offset : from;
        const int64_t b = s->offset + s->count < to ? s->offset + s->count : to;

        if (a >= b)
            continue;
        *out = (mb_slice){.segment = s, .from = a - s->offset, .count = b - a, .flat = a};
        ++*next;
        return true;
    }
    return false;
}

mb_status mb_layout_dataset(const mb_layout *l, int set, const char *tensor,
                            char out[MB_DATASET_MAX])
{
    const int n =
        set == 0 ? snprintf(out, MB_DATASET_MAX, "/param/%s", tensor)
                 : snprintf(out, MB_DATASET_MAX, "/optim/%s/%s", l->kind->state[set - 1], tensor);

    MB_REQUIRE(n > 0 && n < MB_DATASET_MAX, MB_EMODEL, "the tensor name '%.60s...' is too long",
               tensor);
    return MB_OK;
}

mb_status mb_slice_digest(const char *run_id, int64_t step, const char *dataset, int64_t from,
                          const float *data, int64_t count, char out[MB_DIGEST_HEX])
{
    char head[MB_DATASET_MAX + 512];
    uint8_t bytes[MB_DIGEST_BYTES];
    mb_digest *d = NULL;
    mb_status st = MB_OK;
    const int n = snprintf(head, sizeof head, "mbuyu slice\n%s\n%lld\n%s\n%lld\n%lld\n", run_id,
                           (long long)step, dataset, (long long)from,
                           (long long)count * (int64_t)sizeof *data);

    MB_ASSERT(n > 0 && (size_t)n < sizeof head);
    MB_TRY(mb_digest_new(&d));
    MB_TRY_GOTO(mb_digest_add(d, head, (size_t)n), st, done);
    MB_TRY_GOTO(mb_digest_add(d, data, (size_t)count * sizeof *data), st, done);
    MB_TRY_GOTO(mb_digest_end(d, bytes), st, done);
    mb_digest_hex(bytes, out);
done:
    mb_digest_free(d);
    return st;
}
