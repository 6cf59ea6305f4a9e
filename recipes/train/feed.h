/* recipes/train/feed.h - what goes between the host and a device around a micro-batch.
 *
 * Batches are built in host memory. Before a device computes on one, its arrays are packed one after
 * the other into pinned memory and go over in one copy, always to the same place on the device: the
 * compute stream keeps the order. Several pinned slots let the host build batches while earlier ones
 * have not gone over yet. Results come back in the same way, into pinned slots that are read when the
 * stream has got there, so a step need not wait for each of its micro-batches.
 */
#ifndef MB_RECIPES_TRAIN_FEED_H
#define MB_RECIPES_TRAIN_FEED_H

#include "autograd/batch.h"
#include "core/comm.h"

typedef struct mb_feed mb_feed;

/* d is borrowed; the caller owns *out. */
mb_status mb_feed_new(mb_device *d, mb_feed **out) MB_MUST_USE;
void mb_feed_free(mb_feed *f); /* NULL is allowed */

/* Reading waits for what other ranks of `c` (borrowed) have a part in, and must notice when one is
 * lost. */
void mb_feed_watch(mb_feed *f, mb_comm *c);

/* Bytes that a batch with b's capacities and `tokens` tokens takes, and its source as it is. */
size_t mb_feed_batch_bytes(const mb_batch *b, int64_t tokens);
/* Pinned memory of a feed for batches of `bytes` and `results` results of `floats` numbers; on the
 * device it takes `bytes`. */
size_t mb_feed_pinned_bytes(size_t bytes, int64_t results, int64_t floats);
/* Makes room for batches of up to `bytes`. */
mb_status mb_feed_reserve(mb_feed *f, size_t bytes) MB_MUST_USE;
/* Makes room for `results` results of up to `floats` numbers each. */
mb_status mb_feed_reserve_results(mb_feed *f, int64_t results, int64_t floats) MB_MUST_USE;

/* Queues the copy of `b`; *out has its arrays on the device, and b as its host side: b itself may be
 * filled anew at once, *out is good for what is queued before the next batch. Waits when the slots
 * have come round since the last wait. MB_EBUG when it does not fit. */
mb_status mb_feed_send(mb_feed *f, const mb_batch *b, mb_batch *out) MB_MUST_USE;
/* The same for a list of numbers, behind the last batch. */
mb_status mb_feed_send_list(mb_feed *f, const mb_tensor *list, mb_tensor *out) MB_MUST_USE;

/* Queues the copy of a contiguous f32 tensor into result `slot`. */
mb_status mb_feed_fetch(mb_feed *f, int64_t slot, const mb_tensor *t) MB_MUST_USE;
/* Waits for everything queued; then result slots can be read. */
mb_status mb_feed_wait(mb_feed *f) MB_MUST_USE;
const float *mb_feed_result(const mb_feed *f, int64_t slot);

/* The numbers of a contiguous device tensor (F32, BF16, F16) as f32 in host memory, good until the next call. Waits. */
mb_status mb_feed_read(mb_feed *f, const mb_tensor *t, float **out) MB_MUST_USE;

#endif
