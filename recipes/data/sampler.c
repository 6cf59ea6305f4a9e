/* recipes/data/sampler.c - see recipes/data/sampler.h.
 *
 * Packing goes by windows of the shuffled order, whose rows are sorted by length. A bin begins with the
 * longest row that is left. Then there are two ways, and the one with fewer bins is taken:
 *
 *     the longest row with room (first-fit decreasing): best where lengths spread widely, because
 *         the short rows fill the gaps that the long ones left;
 *     as many rows as fit on average, each of the length nearest below its share of the room: best
 *         where rows are alike, of which the first leaves gaps shorter than any row.
 *
 * The bins are then shuffled, for otherwise a step would have rows of one length; within a bin rows
 * keep the shuffled order. A bin depends on (seed, epoch) alone, and rows stay near their place in
 * the order.
 */
#include "recipes/data/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/rng.h"

enum {
    WINDOW = 1024 /* rows a bin may be filled from */
};

/* Rows visited while measuring the run exactly; a run that visits more is bounded instead. */
static const int64_t MEASURE_LIMIT = 64 * 1000 * 1000;

/* What filling the bins of one window takes. */
struct packer {
    struct by_length {
        int32_t tokens, place;
    } row[WINDOW]; /* ascending */
    /* Of row[i], counted from 1: itself while it is left, then some row before it; 0 ends. */
    int32_t left_below[WINDOW + 1];
    int32_t bin_of[2][WINDOW]; /* of each row, by its place in the window; of either way */
    int32_t turn[WINDOW];      /* bins in the order they follow each other */
    int32_t at[WINDOW];        /* of each bin: its next row, counted in the window */
};

struct mb_sampler {
    mb_sampler_options o;
    int64_t steps, steps_first, units_first;
    int64_t max_tokens, max_rows;

    int64_t epoch;       /* the epoch the arrays below describe, -1 none */
    int64_t epoch_start; /* its first step */
    int64_t n_units;
    int64_t *row;          /* (n_rows) of the store, unit by unit */
    int32_t *ordinal;      /* (n_rows) */
    int64_t *unit_at;      /* (n_rows+1) */
    int32_t *order;        /* (n_rows) the shuffled order, as indices into o.rows */
    struct packer *packer; /* NULL without packing */
};

static int64_t store_row(const mb_sampler *s, int64_t i)
{
    return s->o.rows != NULL ? s->o.rows[i] : i;
}

static int64_t row_tokens(const int64_t *offset, int64_t row)
{
    return offset[row + 1] - offset[row];
}

/* 0 .. n-1, in an order drawn with the numbers of the key from `from` on. */
static void make_order(const mb_sampler *s, int32_t *order, int64_t n, uint64_t key, int64_t from)
{
    for (int64_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    if (!s->o.shuffle)
        return;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)mb_rng_below(key, (uint64_t)(from + i), (uint64_t)i + 1);
        const int32_t held = order[i];

        order[i] = order[j];
        order[j] = held;
    }
}

/* Of rows of one length the first in the order is the last here: it is taken first. */
static int by_length(const void *a, const void *b)
{
    const struct by_length *x = a, *y = b;

    if (x->tokens != y->tokens)
        return x->tokens < y->tokens ? -1 : 1;
    return (x->place < y->place) - (x->place > y->place);
}

/* The longest row that is left of at most `tokens`, counted from 1; 0 when there is none. */
static int32_t longest_within(struct packer *p, int32_t n, int64_t tokens)
{
    int32_t lo = 0, hi = n; /* the first lo rows are short enough */

    while (lo < hi) {
        const int32_t mid = (lo + hi) / 2;

        if (p->row[mid].tokens <= tokens)
            lo = mid + 1;
        else
            hi = mid;
    }
    while (p->left_below[lo] != lo) { /* halves the path for the next search */
        p->left_below[lo] = p->left_below[p->left_below[lo]];
        lo = p->left_below[lo];
    }
    return lo;
}

/* Fills bins of `capacity` with the n sorted rows of `tokens` tokens; returns how many. */
static int32_t fill_bins(struct packer *p, int32_t n, int64_t tokens, int64_t capacity, bool shares,
                         int32_t *bin_of)
{
    int32_t bins = 0, shortest = 0, left = n;
    int64_t room = capacity;
    bool empty = true;

    for (int32_t i = 0; i <= n; i++)
        p->left_below[i] = i;
    while (left > 0) {
        int64_t most = room;
        int32_t r;

        while (p->left_below[shortest + 1] != shortest + 1)
            shortest++;
        if (p->row[shortest].tokens > room) {
            bins++, room = capacity, empty = true;
            continue;
        }
        if (shares && !empty && room > p->row[shortest].tokens) {
            const int64_t fit = room / p->row[shortest].tokens;
            const int64_t usual = (room * left + tokens / 2) / tokens;
            const int64_t rows = usual < fit ? usual : fit;

            most = rows > 1 ? room / rows : room;
        }
        r = longest_within(p, n, most);
        if (r == 0)
            r = shortest + 1;
        p->left_below[r] = r - 1;
        bin_of[p->row[r - 1].place] = bins;
        room -= p->row[r - 1].tokens;
        tokens -= p->row[r - 1].tokens;
        left--;
        empty = false;
    }
    return bins + 1;
}

/* The bins of the n rows from place `from` of the order on, by the better way. */
static const int32_t *choose_bins(const mb_sampler *s, int64_t from, int32_t n, int32_t *bins)
{
    struct packer *p = s->packer;
    int32_t by_shares, by_longest;
    int64_t tokens = 0;

    for (int32_t i = 0; i < n; i++) {
        const int64_t t = row_tokens(s->o.offset, store_row(s, s->order[from + i]));

        p->row[i] = (struct by_length){(int32_t)t, i};
        tokens += t;
    }
    qsort(p->row, (size_t)n, sizeof *p->row, by_length);
    by_shares = fill_bins(p, n, tokens, s->o.max_length, true, p->bin_of[0]);
    by_longest = fill_bins(p, n, tokens, s->o.max_length, false, p->bin_of[1]);
    *bins = by_longest < by_shares ? by_longest : by_shares;
    return p->bin_of[by_longest < by_shares];
}

/* Packs rows [from, to) of the order; their units start at `from` in row[] and ordinal[]. */
static void pack_window(mb_sampler *s, int64_t from, int64_t to, uint64_t key)
{
    struct packer *p = s->packer;
    const int32_t n = (int32_t)(to - from);
    int32_t bins, at = 0;
    const int32_t *bin_of = choose_bins(s, from, n, &bins);

    make_order(s, p->turn, bins, key, s->n_units);
    memset(p->at, 0, (size_t)bins * sizeof *p->at);
    for (int32_t i = 0; i < n; i++)
        p->at[bin_of[i]]++;
    for (int32_t k = 0; k < bins; k++) {
        const int32_t rows = p->at[p->turn[k]];

        p->at[p->turn[k]] = at;
        at += rows;
        s->unit_at[++s->n_units] = from + at;
    }
    for (int32_t i = 0; i < n; i++) {
        const int64_t place = from + p->at[bin_of[i]]++;

        s->row[place] = store_row(s, s->order[from + i]);
        s->ordinal[place] = (int32_t)(from + i);
    }
}

static void layout(mb_sampler *s, int64_t epoch)
{
    make_order(s, s->order, s->o.n_rows, mb_rng_key(s->o.seed, MB_SITE_SHUFFLE, (uint64_t)epoch),
               0);
    s->epoch = epoch;
    s->n_units = 0;
    s->unit_at[0] = 0;
    if (s->o.packing) {
        const uint64_t key = mb_rng_key(s->o.seed, MB_SITE_BINS, (uint64_t)epoch);

        for (int64_t from = 0; from < s->o.n_rows; from += WINDOW)
            pack_window(s, from, from + WINDOW < s->o.n_rows ? from + WINDOW : s->o.n_rows, key);
        return;
    }
    for (int64_t i = 0; i < s->o.n_rows; i++) {
        s->row[i] = store_row(s, s->order[i]);
        s->ordinal[i] = (int32_t)i;
        s->unit_at[i + 1] = i + 1;
    }
    s->n_units = s->o.n_rows;
}

static int64_t steps_of(const mb_sampler *s, int64_t units)
{
    return (units + s->o.step_units - 1) / s->o.step_units;
}

/* The largest micro-batch of the first `steps` steps of the epoch now laid out. */
static void measure_epoch(mb_sampler *s, int64_t steps)
{
    const int64_t last =
        steps * s->o.step_units < s->n_units ? steps * s->o.step_units : s->n_units;

    for (int64_t first = 0; first < last; first += s->o.step_units) {
        const int64_t stop = first + s->o.step_units < last ? first + s->o.step_units : last;

        for (int64_t u = first; u < stop; u += s->o.micro_units) {
            const int64_t end = u + s->o.micro_units < stop ? u + s->o.micro_units : stop;
            int64_t tokens = 0;

            for (int64_t i = s->unit_at[u]; i < s->unit_at[end]; i++)
                tokens += row_tokens(s->o.offset, s->row[i]);
            if (tokens > s->max_tokens)
                s->max_tokens = tokens;
            if (s->unit_at[end] - s->unit_at[u] > s->max_rows)
                s->max_rows = s->unit_at[end] - s->unit_at[u];
        }
    }
}

/* What no micro-batch can exceed, for runs too long to walk through. */
static void bound_run(mb_sampler *s)
{
    int64_t longest = 0, shortest = INT64_MAX;

    for (int64_t i = 0; i < s->o.n_rows; i++) {
        const int64_t n = row_tokens(s->o.offset, store_row(s, i));

        longest = n > longest ? n : longest;
        shortest = n < shortest ? n : shortest;
    }
    s->max_tokens = s->o.micro_units * (s->o.packing ? s->o.max_length : longest);
    s->max_rows = s->o.micro_units;
    if (s->o.packing)
        s->max_rows *= s->o.max_length / (shortest > 0 ? shortest : 1);
    if (s->max_rows > s->o.n_rows)
        s->max_rows = s->o.n_rows;
}

/* Walks the epochs of the run: total steps, and the largest micro-batch. */
static mb_status plan_run(mb_sampler *s)
{
    const bool by_steps = s->o.max_steps > 0;
    const int64_t whole = by_steps ? INT64_MAX : (int64_t)floor(s->o.epochs);
    const double part = by_steps ? 0.0 : s->o.epochs - floor(s->o.epochs);
    int64_t visited = 0;

    layout(s, 0);
    s->units_first = s->n_units;
    s->steps_first = steps_of(s, s->n_units);
    for (int64_t epoch = 0;; epoch++) {
        int64_t steps;

        if (epoch == whole && part <= 0.0)
            break;
        if (epoch > whole)
            break;
        if (by_steps && s->steps >= s->o.max_steps)
            break;
        if (visited > MEASURE_LIMIT && !s->o.packing) {
            /* every epoch has the same number of steps */
            const int64_t rest = whole - epoch;

            s->steps = by_steps ? s->o.max_steps
                                : s->steps + rest * s->steps_first +
                                      (int64_t)ceil(part * (double)s->steps_first - 1e-9);
            bound_run(s);
            return MB_OK;
        }
        if (s->epoch != epoch)
            layout(s, epoch);
        visited += s->o.n_rows;
        steps = steps_of(s, s->n_units);
        if (epoch == whole)
            steps = (int64_t)ceil(part * (double)steps - 1e-9);
        if (by_steps && steps > s->o.max_steps - s->steps)
            steps = s->o.max_steps - s->steps;
        measure_epoch(s, steps);
        s->steps += steps;
    }
    MB_REQUIRE(s->steps > 0, MB_EARG, "%g epochs of %lld units make no step", s->o.epochs,
               (long long)s->units_first);
    return MB_OK;
}

static mb_status check(const mb_sampler_options *o)
{
    MB_REQUIRE(o->n_rows > 0, MB_EDATA, "there are no rows to train on");
    MB_REQUIRE(o->n_rows < INT32_MAX, MB_ENOTSUP,
               "%lld rows are more than the 2147483646 a run "
               "can shuffle",
               (long long)o->n_rows);
    MB_REQUIRE(o->micro_units > 0, MB_EARG,
               "per_device_train_batch_size is %lld, it must be at "
               "least 1",
               (long long)o->micro_units);
    MB_REQUIRE(o->step_units > 0, MB_EARG, "global_batch_size is %lld, it must be at least 1",
               (long long)o->step_units);
    MB_REQUIRE(o->max_steps > 0 || (o->epochs > 0.0 && o->epochs < 1e9), MB_EARG,
               "num_train_epochs is %g, it must be above 0 when max_steps is not given", o->epochs);
    if (!o->packing)
        return MB_OK;
    MB_REQUIRE(o->max_length > 0, MB_EARG, "packing needs max_length, found %lld",
               (long long)o->max_length);
    for (int64_t i = 0; i < o->n_rows; i++) {
        const int64_t row = o->rows != NULL ? o->rows[i] : i;
        const int64_t tokens = row_tokens(o->offset, row);

        MB_REQUIRE(tokens > 0 && tokens <= o->max_length, MB_EARG,
                   "row %lld has %lld tokens, a bin takes 1 to %lld (max_length)", (long long)row,
                   (long long)tokens, (long long)o->max_length);
    }
    return MB_OK;
}

mb_status mb_sampler_new(const mb_sampler_options *o, mb_sampler **out)
{
    mb_sampler *s;
    mb_status st;

    MB_TRY(check(o));
    MB_TRY(MB_NEW(&s));
    s->o = *o;
    s->epoch = -1;
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->row, o->n_rows), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->ordinal, o->n_rows), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->unit_at, o->n_rows + 1), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->order, o->n_rows), st, fail);
    if (o->packing)
        MB_TRY_GOTO(MB_NEW(&s->packer), st, fail);
    MB_TRY_GOTO(plan_run(s), st, fail);
    layout(s, 0);
    s->epoch_start = 0;
    *out = s;
    return MB_OK;
fail:
    mb_sampler_free(s);
    return st;
}

void mb_sampler_free(mb_sampler *s)
{
    if (s == NULL)
        return;
    mb_free(s->row);
    mb_free(s->ordinal);
    mb_free(s->unit_at);
    mb_free(s->order);
    mb_free(s->packer);
    mb_free(s);
}

int64_t mb_sampler_steps(const mb_sampler *s)
{
    return s->steps;
}

int64_t mb_sampler_steps_per_epoch(const mb_sampler *s)
{
    return s->steps_first;
}

int64_t mb_sampler_units_per_epoch(const mb_sampler *s)
{
    return s->units_first;
}

int64_t mb_sampler_max_tokens(const mb_sampler *s)
{
    return s->max_tokens;
}

int64_t mb_sampler_max_rows(const mb_sampler *s)
{
    return s->max_rows;
}

int64_t mb_sampler_max_micro(const mb_sampler *s)
{
    const int64_t units = s->o.step_units < s->o.n_rows ? s->o.step_units : s->o.n_rows;

    return (units + s->o.micro_units - 1) / s->o.micro_units;
}

/* Lays out the epoch that holds `step`. Without packing every epoch has the same number of steps;
 * with packing the epochs before it have to be packed to be counted. */
static void seek(mb_sampler *s, int64_t step)
{
    if (!s->o.packing) {
        const int64_t epoch = step / s->steps_first;

        if (epoch != s->epoch)
            layout(s, epoch);
        s->epoch_start = epoch * s->steps_first;
        return;
    }
    if (step < s->epoch_start) {
        layout(s, 0);
        s->epoch_start = 0;
    }
    while (step >= s->epoch_start + steps_of(s, s->n_units)) {
        s->epoch_start += steps_of(s, s->n_units);
        layout(s, s->epoch + 1);
    }
}

mb_status mb_sampler_step(mb_sampler *s, int64_t step, mb_step *out)
{
    MB_REQUIRE(step >= 0 && step < s->steps, MB_EARG, "step %lld is outside the run's %lld steps",
               (long long)step, (long long)s->steps);
    seek(s, step);

    const int64_t first = (step - s->epoch_start) * s->o.step_units;
    const int64_t rest = s->n_units - first;
    const int64_t n = rest < s->o.step_units ? rest : s->o.step_units;
    const int64_t at = s->unit_at[first];

    *out = (mb_step){
        .step = step,
        .epoch = s->epoch,
        .step_in_epoch = step - s->epoch_start,
        .steps_in_epoch = steps_of(s, s->n_units),
        .n_units = n,
        .n_micro = (n + s->o.micro_units - 1) / s->o.micro_units,
        .micro_units = s->o.micro_units,
        .n_rows = s->unit_at[first + n] - at,
        .row = s->row + at,
        .ordinal = s->ordinal + at,
        .unit_at = s->unit_at + first,
        .length = s->o.offset,
        .trained_of = s->o.trained,
    };
    out->epochs_done =
        (double)s->epoch + (double)(out->step_in_epoch + 1) / (double)out->steps_in_epoch;
    for (int64_t i = 0; i < out->n_rows; i++) {
        out->tokens += row_tokens(s->o.offset, out->row[i]);
        out->trained += s->o.trained != NULL ? s->o.trained[out->row[i]] : 1;
    }
    return MB_OK;
}

void mb_step_micro(const mb_step *st, int64_t m, mb_micro *out)
{
    const int64_t first = m * st->micro_units;
    const int64_t last =
        first + st->micro_units < st->n_units ? first + st->micro_units : st->n_units;
    const int64_t at = st->unit_at[first] - st->unit_at[0];

    *out = (mb_micro){
        .n_rows = st->unit_at[last] - st->unit_at[first],
        .row = st->row + at,
        .ordinal = st->ordinal + at,
    };
    for (int64_t i = 0; i < out->n_rows; i++) {
        out->tokens += row_tokens(st->length, out->row[i]);
        out->trained += st->trained_of != NULL ? st->trained_of[out->row[i]] : 1;
    }
}

void mb_micro_range(int64_t n_micro, int rank, int size, int64_t *from, int64_t *to)
{
    const int64_t each = n_micro / size, more = n_micro % size;

    *from = rank * each + (rank < more ? rank : more);
    *to = *from + each + (rank < more ? 1 : 0);
}
