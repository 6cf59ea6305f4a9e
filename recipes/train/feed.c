/* recipes/train/feed.c - see recipes/train/feed.h. */
#include "recipes/train/feed.h"

#include <string.h>

#include "core/alloc.h"

enum { SLOTS = 32, FEWEST_SLOTS = 3, SLOTS_BYTES = 64 << 20, ALIGN = 64 };

struct mb_feed {
    mb_device *device;
    mb_comm *comm;        /* NULL: nobody to watch */
    char *pinned, *there; /* slots * slot_bytes; slot_bytes */
    size_t slot_bytes;
    int slots;
    int slot, unwaited; /* of the last batch; batches sent since the host last waited */
    size_t used;        /* of the slot */
    float *results;     /* pinned */
    int64_t n_results, result_floats;
    float *result;
    size_t result_capacity;
    mb_batch source; /* of the last batch, on the device */
};

/* The arrays of a batch, and what they have an entry for. */
enum { PER_TOKEN, PER_SEQUENCE, PER_TARGET, PER_VALUE, PER_FEATURE };

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
    {offsetof(mb_batch, target_value), PER_VALUE},
    {offsetof(mb_batch, features), PER_FEATURE},
    {offsetof(mb_batch, feature_row), PER_TOKEN},
};
enum { N_ARRAYS = sizeof arrays / sizeof arrays[0], ELEMENT = 4 };

_Static_assert(sizeof(float) == ELEMENT && sizeof(int32_t) == ELEMENT, "arrays of four bytes each");

static size_t entries(const mb_batch *b, int64_t tokens, int per)
{
    const int64_t n = per == PER_TOKEN      ? tokens
                      : per == PER_SEQUENCE ? b->max_seq
                      : per == PER_TARGET   ? b->max_targets
                      : per == PER_VALUE    ? b->max_targets * b->n_values
                                            : b->feature_rows * b->feature_cols;

    return (size_t)n;
}

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Fewer of what is large, such as pictures. */
static int slots_for(size_t bytes)
{
    const size_t n = SLOTS_BYTES / (aligned(bytes) + 1);

    return n < FEWEST_SLOTS ? FEWEST_SLOTS : n > SLOTS ? SLOTS : (int)n;
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
    if (f->pinned != NULL)
        f->device->ops->free_host(f->device, f->pinned, (size_t)f->slots * f->slot_bytes);
    if (f->there != NULL)
        f->device->ops->free(f->device, f->there, f->slot_bytes);
    f->pinned = f->there = NULL;
    f->slot_bytes = 0;
}

static size_t results_bytes(const mb_feed *f)
{
    return (size_t)(f->n_results * f->result_floats) * sizeof(float);
}

static void release_results(mb_feed *f)
{
    if (f->results != NULL)
        f->device->ops->free_host(f->device, f->results, results_bytes(f));
    f->results = NULL;
}

void mb_feed_free(mb_feed *f)
{
    if (f == NULL)
        return;
    release(f);
    release_results(f);
    mb_free(f->result);
    mb_free(f);
}

size_t mb_feed_batch_bytes(const mb_batch *b, int64_t tokens)
{
    size_t bytes = b->source != NULL ? mb_feed_batch_bytes(b->source, b->source->tokens) : 0;

    bytes += aligned(entries(b, tokens, PER_TOKEN) * ELEMENT); /* a list of rows as well */

    for (int i = 0; i < N_ARRAYS; i++)
        if (pointer(b, i) != NULL)
            bytes += aligned(entries(b, tokens, arrays[i].per) * ELEMENT);
    return bytes;
}

size_t mb_feed_pinned_bytes(size_t bytes, int64_t results, int64_t floats)
{
    return (size_t)slots_for(bytes) * aligned(bytes) + (size_t)(results * floats) * sizeof(float);
}

mb_status mb_feed_reserve(mb_feed *f, size_t bytes)
{
    void *p;

    if (aligned(bytes) <= f->slot_bytes)
        return MB_OK;
    release(f);
    MB_TRY(f->device->ops->alloc_host(f->device, (size_t)slots_for(bytes) * aligned(bytes),
                                      "batches", &p));
    f->pinned = p;
    f->slot_bytes = aligned(bytes);
    f->slots = slots_for(bytes);
    MB_TRY(f->device->ops->alloc(f->device, aligned(bytes), "batches", &p));
    f->there = p;
    return MB_OK;
}

mb_status mb_feed_reserve_results(mb_feed *f, int64_t results, int64_t floats)
{
    void *p;

    release_results(f);
    f->n_results = results;
    f->result_floats = floats;
    MB_TRY(f->device->ops->alloc_host(f->device, results_bytes(f), "results", &p));
    f->results = p;
    return MB_OK;
}

/* Puts n entries into the slot; *to is where they will be. */
static mb_status put(mb_feed *f, const void *from, size_t n, void **to)
{
    const size_t bytes = n * ELEMENT;

    MB_REQUIRE(f->used + bytes <= f->slot_bytes, MB_EBUG,
               "a batch of more than %zu bytes goes to the device", f->slot_bytes);
    memcpy(f->pinned + (size_t)f->slot * f->slot_bytes + f->used, from, bytes);
    *to = f->there + f->used;
    f->used += aligned(bytes);
    return MB_OK;
}

static mb_status copy_over(mb_feed *f, size_t from)
{
    const char *here = f->pinned + (size_t)f->slot * f->slot_bytes;

    return f->device->ops->copy(f->device, MB_STREAM_COMPUTE, f->there + from, here + from,
                                f->used - from);
}

mb_status mb_feed_wait(mb_feed *f)
{
    f->unwaited = 0;
    return f->comm != NULL ? mb_comm_wait(f->comm, MB_STREAM_COMPUTE)
                           : f->device->ops->wait(f->device, MB_STREAM_COMPUTE);
}

static mb_status put_batch(mb_feed *f, const mb_batch *b, mb_batch *out)
{
    *out = *b;
    out->host = b;
    for (int i = 0; i < N_ARRAYS; i++) {
        void *to = NULL;

        if (pointer(b, i) == NULL)
            continue;
        MB_TRY(put(f, pointer(b, i), entries(b, b->tokens, arrays[i].per), &to));
        memcpy((char *)out + arrays[i].at, &to, sizeof to);
    }
    return MB_OK;
}

mb_status mb_feed_send(mb_feed *f, const mb_batch *b, mb_batch *out)
{
    if (f->unwaited == f->slots)
        MB_TRY(mb_feed_wait(f));
    f->unwaited++;
    f->slot = (f->slot + 1) % f->slots;
    f->used = 0;
    MB_TRY(put_batch(f, b, out));
    if (b->source != NULL) {
        MB_TRY(put_batch(f, b->source, &f->source));
        out->source = &f->source;
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

mb_status mb_feed_fetch(mb_feed *f, int64_t slot, const mb_tensor *t)
{
    MB_REQUIRE(slot < f->n_results && mb_tensor_count(t) <= f->result_floats &&
                   t->dtype == MB_DTYPE_F32,
               MB_EBUG, "no room for result %lld of %lld numbers", (long long)slot,
               (long long)mb_tensor_count(t));
    return f->device->ops->copy(f->device, MB_STREAM_COMPUTE, f->results + slot * f->result_floats,
                                t->data, (size_t)mb_tensor_bytes(t));
}

const float *mb_feed_result(const mb_feed *f, int64_t slot)
{
    return f->results + slot * f->result_floats;
}

mb_status mb_feed_read(mb_feed *f, const mb_tensor *t, float **out)
{
    MB_TRY(mb_grow((void **)&f->result, &f->result_capacity, (size_t)mb_tensor_count(t),
                   sizeof *f->result, "results from the device"));
    *out = f->result;
    MB_TRY(mb_feed_wait(f));
    return mb_device_read_f32(f->device, f->result, t);
}
