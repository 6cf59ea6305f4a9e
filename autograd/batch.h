/* autograd/batch.h - one micro-batch, as a model sees it.
 *
 * Sequences lie one after the other without padding between them. `tokens` is rounded up to a shape
 * class so that plans can be reused; rows from `used` on belong to no sequence: id 0, position 0,
 * no target. Sequences from n_seq on are empty and start at row 0. All arrays have room for `tokens`
 * (or max_seq) entries and are borrowed.
 */
#ifndef MB_AUTOGRAD_BATCH_H
#define MB_AUTOGRAD_BATCH_H

#include "core/kernels.h"

/* Rows come in multiples of this: what tensor cores take at a time, and few beyond what is there. */
enum { MB_ROW_PAD = 16 };

/* Keys and values of earlier tokens, for generation. Sequence s owns rows [s*capacity,
 * (s+1)*capacity) of every layer's tensors; k_start, k_len of the batch point into them. */
typedef struct mb_kv_cache {
    int64_t layers, capacity, n_seq;
    mb_tensor *k, *v; /* per layer: (n_seq*capacity, kv_heads*head_dim) */
    /* Of encoder-decoder models: keys and values of the sources, computed once; rows as in the
     * source they came from. Per decoder layer: (source_rows, kv_heads*head_dim). */
    int64_t source_rows;
    mb_tensor *source_k, *source_v;
    /* Not NULL: keys and values are in pages instead, per layer; k, v, capacity and the batch's k_start
     * are not read, and row s of each table belongs to sequence s of the batch. */
    const mb_kv_pages *pages;
} mb_kv_cache;

typedef struct mb_batch {
    int64_t tokens, used;
    int32_t *ids;      /* (tokens) */
    int32_t *position; /* (tokens) in its own sequence, from 0 */
    int32_t *segment;  /* (tokens) token type, 0 or 1 */
    int32_t *ordinal;  /* (tokens) of its sample in the epoch stream: keys the dropouts */

    int64_t n_seq, max_seq; /* sequences here; capacity of the arrays below */
    int64_t max_len;        /* bound on the length of any sequence (of its keys, with a cache) */
    int32_t *start, *len;   /* (max_seq) first row and length of each sequence's queries */
    int32_t *k_start,
        *k_len; /* (max_seq) the same of its keys; equal to start, len without cache */

    int32_t *seq_ordinal,
        *seq_zero; /* (max_seq) sample ordinal per sequence; zeros: key dropouts of
                                      * one row per sequence */

    /* What is trained. Token tasks: hidden row target_row[i] must predict target_label[i], its loss
     * counted target_weight[i] times; rows in ascending order. Sequence tasks: one entry per
     * sequence, target_row is the sequence number; with several classes at once or numbers
     * target_value holds n_values of them each. Spans: two entries per sequence of half the weight,
     * the answer's first and last row counted from the sequence's. Contrast: the first n_targets
     * sequences are anchors, target_label is an anchor's own candidate (its sequence number),
     * target_value its score. The arrays are filled up with row -1, label 0, weight 0, value 0. */
    int64_t n_values;
    float *target_value;            /* (max_targets, n_values); NULL when n_values is 0 */
    int64_t n_targets, max_targets; /* max_targets: capacity, a multiple of MB_ROW_PAD */
    int32_t *target_row, *target_label;
    float *target_weight;

    mb_kv_cache *cache; /* NULL: keys are the batch's own rows */

    /* The encoder's side of an encoder-decoder model, a batch by itself without targets or cache; the
     * outer batch is the decoder's. Sequence s attends to rows source->start[s], source->len[s] of
     * the encoder's output. NULL: none. */
    const struct mb_batch *source;
    bool source_cached; /* the cache holds the source's keys and values: of it only start, len,
                         * n_seq and max_len are read */

    /* Inputs that are not ids: rows of numbers, such as the patches of an image or the frames of a
     * sound, of which token t reads row feature_row[t], or none where that is negative. A row is read
     * by one token at most. NULL: the model reads ids. */
    float *features; /* (feature_rows, feature_cols) */
    int64_t feature_rows, feature_cols;
    int32_t *feature_row; /* (tokens) */

    /* The same batch with arrays that the host can read, when these are in a device's memory; NULL:
     * these are. */
    const struct mb_batch *host;

    uint64_t seed; /* of the run */
    uint32_t step; /* optimizer step, from 0 */
} mb_batch;

#endif
