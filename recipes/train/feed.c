/* recipes/train/feed.c - see recipes/train/feed.h. */
#include "recipes/train/feed.h"

#include <string.h>

#include "core/alloc.h"

enum { SLOTS = 4, ALIGN = 64 };

struct mb_feed {
    mb_device *device;
    mb_comm *comm;        /* NULL: nobody to watch */
    char *pinned, *there; /* SLOTS * slot_bytes each */
    size_t slot_bytes;
    int slot;    /* of the last batch */
    size_t used; /* of it */
    float *result;
    size_t result_capacity;
};

/* The arrays of a batch, and what they have an entry for. */
enum { PER_TOKEN, PER_SEQUENCE, PER_TARGET };

static const struct {
    size_t at; /* of the pointer in mb_batch */
    int per;
} arrays[] = {
    {offsetof(mb_batch, ids), PER_TOKEN},
    {offsetof(mb_batch, position), PER_TOKEN},
    {offsetof(mb_batch, segment), PER_TOKEN},
    {offsetof(mb_batch, ordinal), PER_TOKEN},
    {offsetof(mb_batch, start), PER_SEQUENCE},
    {offsetof(mb_batch, len), PER_SEQUENCE},
    {offsetof(mb_batch, k_start), PER_SEQUENCE},
    {offsetof(mb_batch, k_len), PER_SEQUENCE},
    {offsetof(mb_batch, seq_ordinal), PER_SEQUENCE},
    {offsetof(mb_batch, seq_zero), PER_SEQUENCE},
    {offsetof(mb_batch, target_row), PER_TARGET},
    {offsetof(mb_batch, target_label), PER_TARGET},
    {offsetof(mb_batch, target_weight), PER_TARGET},
};
enum { N_ARRAYS = sizeof arrays / sizeof arrays[0], ELEMENT = 4 };

_Static_assert(sizeof(float) == ELEMENT && sizeof(int32_t) == ELEMENT, "arrays of four bytes each");

static size_t entries(const mb_batch *b, int64_t tokens, int per)
{
    const int64_t n = per == PER_TOKEN ? tokens : per == PER_SEQUENCE ? b->max_seq : b->max_targets;

    return (size_t)n;
}

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static void *pointer(const mb_batch *b, int i)
{
    void *p;

    memcpy(&p, (const char *)b + arrays[i].at, sizeof p);
    return p;
}

mb_status mb_feed_new(mb_device *d, mb_feed **out)
{
    MB_TRY(MB_NEW(out));
    (*out)->device = d;
    return MB_OK;
}

void mb_feed_watch(mb_feed *f, mb_comm *c)
{
    f->comm = c;
}

static void release(mb_feed *f)
{
    const size_t bytes = SLOTS * f->slot_bytes;

    if (f->pinned != NULL)
        f->device->ops->free_host(f->device, f->pinned, bytes);
    if (f->there != NULL)
        f->device->ops->free(f->device, f->there, bytes);
    f->pinned = f->there = NULL;
    f->slot_bytes = 0;
}

void mb_feed_free(mb_feed *f)
{
    if (f == NULL)
        return;
    release(f);
    mb_free(f->result);
    mb_free(f);
}

size_t mb_feed_batch_bytes(const mb_batch *b, int64_t tokens)
{
    size_t bytes = aligned(entries(b, tokens, PER_TOKEN) * ELEMENT); /* a list of rows as well */

    for (int i = 0; i < N_ARRAYS; i++)
        bytes += aligned(entries(b, tokens, arrays[i].per) * ELEMENT);
    return bytes;
}

size_t mb_feed_bytes(size_t bytes)
{
    return SLOTS * aligned(bytes);
}

mb_status mb_feed_reserve(mb_feed *f, size_t bytes)
{
    void *p;

    if (aligned(bytes) <= f->slot_bytes)
        return MB_OK;
    release(f);
    MB_TRY(f->device->ops->alloc_host(f->device, mb_feed_bytes(bytes), "batches", &p));
    f->pinned = p;
    f->slot_bytes = aligned(bytes);
    MB_TRY(f->device->ops->alloc(f->device, mb_feed_bytes(bytes), "batches", &p));
    f->there = p;
    return MB_OK;
}

/* Puts n entries into the slot and queues their copy; *to is where they will be. */
static mb_status put(mb_feed *f, const void *from, size_t n, void **to)
{
    const size_t at = (size_t)f->slot * f->slot_bytes + f->used, bytes = n * ELEMENT;

    MB_REQUIRE(f->used + bytes <= f->slot_bytes, MB_EBUG,
               "a batch of more than %zu bytes goes to the device", f->slot_bytes);
    memcpy(f->pinned + at, from, bytes);
    *to = f->there + at;
    f->used += aligned(bytes);
    return MB_OK;
}

static mb_status copy_over(mb_feed *f, size_t from)
{
    const size_t at = (size_t)f->slot * f->slot_bytes + from;

    return f->device->ops->copy(f->device, MB_STREAM_COMPUTE, f->there + at, f->pinned + at,
                                f->used - from);
}

mb_status mb_feed_send(mb_feed *f, const mb_batch *b, mb_batch *out)
{
    f->slot = (f->slot + 1) % SLOTS;
    f->used = 0;
    if (f->slot == 0) /* everything that read the slots is done */
        MB_TRY(f->comm != NULL ? mb_comm_wait(f->comm, MB_STREAM_COMPUTE)
                               : f->device->ops->wait(f->device, MB_STREAM_COMPUTE));
    *out = *b;
    out->host = b;
    for (int i = 0; i < N_ARRAYS; i++) {
        void *to = NULL;

        MB_TRY(put(f, pointer(b, i), entries(b, b->tokens, arrays[i].per), &to));
        memcpy((char *)out + arrays[i].at, &to, sizeof to);
    }
    return copy_over(f, 0);
}

mb_status mb_feed_send_list(mb_feed *f, const mb_tensor *list, mb_tensor *out)
{
    const size_t from = f->used;

    *out = *list;
    MB_TRY(put(f, list->data, (size_t)mb_tensor_count(list), &out->data));
    return copy_over(f, from);
}

mb_status mb_feed_read(mb_feed *f, const mb_tensor *t, float **out)
{
    MB_TRY(mb_grow((void **)&f->result, &f->result_capacity, (size_t)mb_tensor_count(t),
                   sizeof *f->result, "results from the device"));
    float *to = f->result;
    *out = f->result;
    if (f->comm != NULL)
        MB_TRY(mb_comm_wait(f->comm, MB_STREAM_COMPUTE));
    if (t->dtype == MB_DTYPE_F32)
        return mb_device_read(f->device, to, t);
    const int64_t n = mb_tensor_count(t);
    const uint16_t *narrow = (uint16_t *)to + n; /* the upper half: read before it is written */
    MB_TRY(mb_device_read(f->device, (uint16_t *)to + n, t));
    for (int64_t i = 0; i < n; i++)
        to[i] = t->dtype == MB_DTYPE_BF16 ? mb_bf16_to_f32(narrow[i]) : mb_f16_to_f32(narrow[i]);
    return MB_OK;
}
