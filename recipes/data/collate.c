/* recipes/data/collate.c - see recipes/data/collate.h. */
#include "recipes/data/collate.h"

#include <string.h>

#include "core/alloc.h"
#include "core/rng.h"

enum { STEP = 3 * MB_ROW_PAD, FINE = 10 * STEP, CLASSES = 24, SIDE_CLASSES = 12 };

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

int64_t mb_shape_class(int64_t tokens, int64_t max_tokens)
{
    const int64_t top = round_up(max_tokens > 0 ? max_tokens : 1, MB_ROW_PAD);
    int64_t size = round_up(tokens > 0 ? tokens : 1, STEP);

    if (size > FINE && top > FINE) {
        const int64_t step = round_up((top - FINE + CLASSES - 1) / CLASSES, MB_ROW_PAD);

        size = FINE + round_up(size - FINE, step);
    }
    return size < top ? size : top;
}

int64_t mb_side_class(int64_t tokens, int64_t max_tokens)
{
    const int64_t top = round_up(max_tokens > 0 ? max_tokens : 1, MB_ROW_PAD);
    const int64_t step = round_up((top + SIDE_CLASSES - 1) / SIDE_CLASSES, MB_ROW_PAD);
    const int64_t size = round_up(tokens > 0 ? tokens : 1, step);

    return size < top ? size : top;
}

int64_t mb_store_source_tokens(const mb_store *s, int64_t r)
{
    int64_t n = 0;

    while (s->offset[r] + n < s->offset[r + 1] && !(s->flags[s->offset[r] + n] & MB_MARK_SECOND))
        n++;
    return n;
}

mb_status mb_batch_new(int64_t max_tokens, int64_t max_seq, mb_batch **out)
{
    const int64_t n = mb_shape_class(max_tokens, max_tokens);
    const int64_t targets = round_up(n > 2 * max_seq ? n : 2 * max_seq, MB_ROW_PAD);
    mb_batch *b;
    mb_status st;

    MB_REQUIRE(max_tokens >= 0 && max_seq >= 0 && max_tokens < INT32_MAX - STEP &&
                   max_seq < INT32_MAX,
               MB_EARG, "a micro-batch of %lld tokens in %lld sequences is not possible",
               (long long)max_tokens, (long long)max_seq);
    MB_TRY(MB_NEW(&b));
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->ids, n), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->position, n), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->segment, n), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->ordinal, n), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->start, max_seq), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->len, max_seq), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->k_start, max_seq), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->k_len, max_seq), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->seq_ordinal, max_seq), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->seq_zero, max_seq), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->target_row, targets), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->target_label, targets), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->target_weight, targets), st, fail);
    b->tokens = n;
    b->max_seq = max_seq;
    b->max_targets = targets;
    *out = b;
    return MB_OK;
fail:
    mb_batch_free(b);
    return st;
}

mb_status mb_batch_reserve_values(mb_batch *b, int64_t n)
{
    b->n_values = n;
    return n > 0 ? MB_NEW_ARRAY(&b->target_value, b->max_targets * n) : MB_OK;
}

void mb_batch_free(mb_batch *b)
{
    if (b == NULL)
        return;
    mb_free(b->ids);
    mb_free(b->position);
    mb_free(b->segment);
    mb_free(b->ordinal);
    mb_free(b->start);
    mb_free(b->len);
    mb_free(b->k_start);
    mb_free(b->k_len);
    mb_free(b->seq_ordinal);
    mb_free(b->seq_zero);
    mb_free(b->target_row);
    mb_free(b->target_label);
    mb_free(b->target_weight);
    mb_free(b->target_value);
    mb_free(b->features);
    mb_free(b->feature_row);
    mb_free(b);
}

static void add_target(mb_batch *b, int64_t row, int32_t label)
{
    b->target_row[b->n_targets] = (int32_t)row;
    b->target_label[b->n_targets] = label;
    b->target_weight[b->n_targets] = 1.0f;
    b->n_targets++;
}

static void next_targets(mb_batch *b, int64_t at, int64_t n, const uint8_t *flags)
{
    for (int64_t t = 0; t + 1 < n; t++) {
        if (flags[t + 1] & MB_MARK_TRAINED)
            add_target(b, at + t, b->ids[at + t + 1]);
    }
}

/* The four words that decide about one token; key = (seed, MLM, step). */
static mb_rng_block masked_draw(const mb_collate_options *o, uint32_t step, int32_t ordinal,
                                int64_t t)
{
    return mb_philox(mb_rng_key(o->seed, MB_SITE_MLM, 0), (uint32_t)ordinal, step, (uint32_t)t, 0);
}

static float masked_share(const mb_collate_options *o)
{
    return o->masked_share > 0.0f ? o->masked_share : 0.15f;
}

/* The token of a row with the smallest draw: it is always predicted, so that no row and no step goes
 * without a target. -1 when all are special. */
static int64_t first_masked(const mb_collate_options *o, const uint8_t *flags, int64_t n,
                            uint32_t step, int32_t ordinal)
{
    int64_t first = -1;
    uint32_t least = UINT32_MAX;

    for (int64_t t = 0; t < n; t++) {
        const mb_rng_block draw = masked_draw(o, step, ordinal, t);
        if (!(flags[t] & MB_MARK_SPECIAL) && (first < 0 || draw.w[0] < least)) {
            first = t;
            least = draw.w[0];
        }
    }
    return first;
}

static bool is_masked(const mb_collate_options *o, uint8_t flags, const mb_rng_block *draw)
{
    return !(flags & MB_MARK_SPECIAL) && mb_rng_unit(draw->w[0]) < masked_share(o);
}

static void masked_targets(const mb_collate_options *o, mb_batch *b, int64_t at, int64_t n,
                           const uint8_t *flags, uint32_t step, int32_t ordinal)
{
    const int64_t first = first_masked(o, flags, n, step, ordinal);

    for (int64_t t = 0; t < n; t++) {
        const mb_rng_block draw = masked_draw(o, step, ordinal, t);

        if (t != first && !is_masked(o, flags[t], &draw))
            continue;
        add_target(b, at + t, b->ids[at + t]);

        const float what = mb_rng_unit(draw.w[1]);

        if (what < 0.8f)
            b->ids[at + t] = o->mask_id;
        else if (what < 0.9f)
            b->ids[at + t] = (int32_t)(((uint64_t)draw.w[2] * (uint64_t)o->vocab_size) >> 32);
    }
}

int64_t mb_masked_targets(const mb_collate_options *o, const mb_store *s, const mb_step *st)
{
    int64_t count = 0;

    for (int64_t i = 0; i < st->n_rows; i++) {
        const int64_t from = s->offset[st->row[i]], n = s->offset[st->row[i] + 1] - from;

        const int64_t first =
            first_masked(o, s->flags + from, n, (uint32_t)st->step, st->ordinal[i]);

        for (int64_t t = 0; t < n; t++) {
            const mb_rng_block draw = masked_draw(o, (uint32_t)st->step, st->ordinal[i], t);

            count += t == first || is_masked(o, s->flags[from + t], &draw);
        }
    }
    return count;
}

void mb_batch_end_targets(mb_batch *b)
{
    const int64_t rest = b->max_targets - b->n_targets;

    for (int64_t i = b->n_targets; i < b->max_targets; i++) {
        b->target_row[i] = -1;
        b->target_label[i] = 0;
        b->target_weight[i] = 0.0f;
    }
    if (b->n_values > 0)
        memset(b->target_value + b->n_targets * b->n_values, 0,
               (size_t)(rest * b->n_values) * sizeof(float));
}

/* Rows past `used` belong to no sequence, sequences past n_seq have no rows, targets past n_targets
 * no row; the buffers may hold an earlier batch there. */
static void clear_rest(mb_batch *b)
{
    for (int64_t t = b->used; t < b->tokens; t++) {
        b->ids[t] = 0;
        b->position[t] = 0;
        b->segment[t] = 0;
        b->ordinal[t] = 0;
    }
    for (int64_t t = b->used; t < b->tokens && b->feature_row != NULL; t++)
        b->feature_row[t] = -1;
    for (int64_t i = b->n_seq; i < b->max_seq; i++) {
        b->start[i] = b->k_start[i] = -1;
        b->len[i] = b->k_len[i] = 0;
        b->seq_ordinal[i] = b->seq_zero[i] = 0;
    }
    mb_batch_end_targets(b);
}

/* The sounds of the rows as the batch's source, which is b's own. Places of rows that are not there are
 * silent and belong to no sequence. */
static mb_status hear(const mb_collate_options *o, const mb_store *s, const mb_micro *micro,
                      uint32_t step, mb_batch *b)
{
    mb_batch *from = (mb_batch *)(uintptr_t)b->source;
    const int64_t each = 2 * o->frames.tokens * o->frames.bins;

    from->used = from->n_seq = 0;
    from->seed = o->seed;
    from->step = step;
    mb_listener_need(o->listener, s, micro->row, micro->n_rows);
    for (int64_t i = 0; i < micro->n_rows; i++) {
        mb_frames_append(&o->frames, from, micro->ordinal[i]);
        MB_TRY(
            mb_listener_take(o->listener, s, micro->row[i], mb_frames_rows(&o->frames, from, i)));
    }
    memset(from->features + micro->n_rows * each, 0,
           (size_t)(from->feature_rows * from->feature_cols - micro->n_rows * each) *
               sizeof *from->features);
    clear_rest(from);
    return MB_OK;
}

/* Row i of the batch: n tokens of the store from `from` on. */
static void add_row(const mb_collate_options *o, mb_batch *b, int64_t i, const mb_store *s,
                    int64_t from, int64_t n, int32_t ordinal)
{
    const bool one_type = o->segments == 1;
    const int64_t at = b->used;

    for (int64_t t = 0; t < n; t++) {
        b->ids[at + t] = s->ids[from + t];
        b->position[at + t] = (int32_t)t;
        b->segment[at + t] = one_type ? 0 : (s->flags[from + t] & MB_MARK_SECOND) != 0;
        b->ordinal[at + t] = ordinal;
    }
    b->start[i] = b->k_start[i] = (int32_t)at;
    b->len[i] = b->k_len[i] = (int32_t)n;
    b->seq_ordinal[i] = ordinal;
    b->seq_zero[i] = 0;
    if (n > b->max_len)
        b->max_len = n;
    b->used += n;
}

static void begin(const mb_collate_options *o, const mb_micro *micro, uint32_t step, mb_batch *b)
{
    b->used = 0;
    b->n_seq = micro->n_rows;
    b->max_len = 0;
    b->n_targets = 0;
    b->seed = o->seed;
    b->step = step;
}

static mb_status fits(const mb_collate_options *o, const mb_store *s, int64_t row, int64_t n)
{
    MB_REQUIRE(o->max_positions <= 0 || n <= o->max_positions, MB_EDATA,
               "%s:%lld: the row has %lld tokens, the model %lld positions",
               s->source_name[s->source[row]], (long long)s->line[row], (long long)n,
               (long long)o->max_positions);
    return MB_OK;
}

/* What the task learns from the row is known. */
static void weigh_last(mb_batch *b, float weight)
{
    b->target_weight[b->n_targets - 1] = weight;
}

static void values_target(const mb_collate_options *o, mb_batch *b, const mb_store *s, int64_t i,
                          int64_t row)
{
    const int64_t from = s->extra_offset[row], n = s->extra_offset[row + 1] - from;
    float *value = b->target_value + b->n_targets * b->n_values;

    memset(value, 0, (size_t)o->n_values * sizeof *value);
    for (int64_t k = 0; k < n; k++) {
        if (s->rows == MB_WANT_NUMBERS)
            value[k] = mb_store_value(s, row, k);
        else if (s->extra[from + k] >= 0)
            value[s->extra[from + k]] = 1.0f;
    }
    add_target(b, i, 0);
}

static void token_targets(mb_batch *b, const mb_store *s, int64_t at, int64_t n, int64_t row)
{
    const int32_t *label = s->extra + s->extra_offset[row];
    const uint8_t *flags = s->flags + s->offset[row];

    for (int64_t t = 0; t < n; t++) {
        if (!(flags[t] & MB_MARK_TRAINED))
            continue;
        add_target(b, at + t, label[t] >= 0 ? label[t] : 0);
        weigh_last(b, label[t] >= 0 ? 1.0f : 0.0f);
    }
}

static void span_targets(mb_batch *b, const mb_store *s, int64_t i, int64_t row)
{
    const int32_t *answer = s->extra + s->extra_offset[row];

    for (int k = 0; k < 2; k++) {
        add_target(b, i, answer[k] >= 0 ? answer[k] : 0);
        weigh_last(b, answer[k] >= 0 ? 0.5f : 0.0f);
    }
}

static mb_status two_sides(const mb_collate_options *o, const mb_store *s, const mb_micro *micro,
                           uint32_t step, mb_batch *b)
{
    mb_batch *source = (mb_batch *)(uintptr_t)b->source;

    begin(o, micro, step, b);
    begin(o, micro, step, source);
    for (int64_t i = 0; i < micro->n_rows; i++) {
        const int64_t row = micro->row[i], from = s->offset[row], at = b->used;
        const int64_t n = mb_store_source_tokens(s, row);
        const int64_t m = s->offset[row + 1] - from - n - 1; /* the last is only predicted */

        if (source->used + n > o->source_largest || b->used + m > o->largest)
            MB_BUG("a micro-batch of more than the %lld and %lld tokens that were planned",
                   (long long)o->source_largest, (long long)o->largest);
        MB_TRY(fits(o, s, row, n > m ? n : m));
        add_row(o, source, i, s, from, n, micro->ordinal[i]);
        add_row(o, b, i, s, from + n, m, micro->ordinal[i]);
        for (int64_t t = 0; t < m; t++)
            if (s->flags[from + n + t + 1] & MB_MARK_TRAINED)
                add_target(b, at + t, s->ids[from + n + t + 1]);
    }
    source->tokens = mb_side_class(source->used, o->source_largest);
    b->tokens = mb_side_class(b->used, o->largest);
    clear_rest(source);
    clear_rest(b);
    return MB_OK;
}

static mb_status see(const mb_collate_options *o, const mb_store *s, const mb_micro *micro,
                     uint32_t step, mb_batch *b)
{
    b->n_seq = 0;
    MB_TRY(mb_pictures_fill(o->pictures, s, micro, o->seed, step, o->augmented, b));
    for (int64_t i = 0; i < micro->n_rows; i++)
        add_target(b, i, s->label[micro->row[i]]);
    clear_rest(b);
    return MB_OK;
}

static void row_targets(const mb_collate_options *o, const mb_store *s, const mb_micro *micro,
                        uint32_t step, int64_t i, int64_t at, mb_batch *b)
{
    const int64_t row = micro->row[i], n = s->offset[row + 1] - s->offset[row];
    const uint8_t *flags = s->flags + s->offset[row];

    switch (o->kind) {
    case MB_TARGET_NEXT:
        next_targets(b, at, n, flags);
        return;
    case MB_TARGET_MASKED:
        masked_targets(o, b, at, n, flags, step, micro->ordinal[i]);
        return;
    case MB_TARGET_TOKENS:
        token_targets(b, s, at, n, row);
        return;
    case MB_TARGET_SPAN:
        span_targets(b, s, i, row);
        return;
    case MB_TARGET_VALUES:
        values_target(o, b, s, i, row);
        break;
    default:
        add_target(b, i, s->label[row] >= 0 ? s->label[row] : 0);
    }
    if (!mb_store_labelled(s, row))
        weigh_last(b, 0.0f);
}

/* Sentences of a row are dropped out apart: each has an ordinal of its own. */
static mb_status collate_sentences(const mb_collate_options *o, const mb_store *s,
                                   const mb_micro *micro, mb_batch *b)
{
    b->n_seq = 0;
    for (int64_t k = 0; k < s->n_sentences; k++) {
        for (int64_t i = 0; i < micro->n_rows; i++) {
            const int64_t row = micro->row[i];
            const int32_t *tokens = s->extra + s->extra_offset[row];
            const int64_t n = s->extra_offset[row + 1] - s->extra_offset[row] - s->scored;
            const int64_t ordinal = micro->ordinal[i] * s->n_sentences + k;
            int64_t from = s->offset[row];

            if (k >= n)
                continue;
            for (int64_t before = 0; before < k; before++)
                from += tokens[before];
            MB_TRY(fits(o, s, row, tokens[k]));
            add_row(o, b, b->n_seq++, s, from, tokens[k], (int32_t)ordinal);
            if (k > 0)
                continue;
            b->target_value[b->n_targets] = s->scored ? mb_store_value(s, row, 0) : 0.0f;
            add_target(b, i, (int32_t)(micro->n_rows + i));
        }
    }
    return MB_OK;
}

static mb_status collate_rows(const mb_collate_options *o, const mb_store *s, const mb_micro *micro,
                              uint32_t step, mb_batch *b)
{
    for (int64_t i = 0; i < micro->n_rows; i++) {
        const int64_t row = micro->row[i], from = s->offset[row], at = b->used;
        const int64_t n = s->offset[row + 1] - from;

        MB_TRY(fits(o, s, row, n));
        add_row(o, b, i, s, from, n, micro->ordinal[i]);
        row_targets(o, s, micro, step, i, at, b);
    }
    return MB_OK;
}

mb_status mb_collate(const mb_collate_options *o, const mb_store *s, const mb_micro *micro,
                     uint32_t step, mb_batch *b)
{
    const int64_t sentences = s->n_sentences > 1 ? s->n_sentences : 1;

    if (o->kind == MB_TARGET_SECOND)
        return two_sides(o, s, micro, step, b);
    if (micro->n_rows * sentences > b->max_seq || micro->tokens > o->largest)
        MB_BUG("a micro-batch of %lld rows and %lld tokens where %lld and %lld were planned",
               (long long)micro->n_rows, (long long)micro->tokens, (long long)b->max_seq,
               (long long)o->largest);
    begin(o, micro, step, b);
    b->tokens = mb_shape_class(micro->tokens, o->largest);
    if (s->picture != NULL)
        return see(o, s, micro, step, b);
    MB_TRY(o->kind == MB_TARGET_SENTENCES ? collate_sentences(o, s, micro, b)
                                          : collate_rows(o, s, micro, step, b));
    clear_rest(b);
    return o->listener != NULL ? hear(o, s, micro, step, b) : MB_OK;
}
