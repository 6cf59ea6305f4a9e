/* recipes/data/store.c - see recipes/data/store.h; how one is made is in store_build.c. */
#include "recipes/data/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/rng.h"

mb_store_options mb_store_defaults(void)
{
    return (mb_store_options){
        .excess = MB_EXCESS_TRUNCATE,
        .render = {.add_bos = -1,
                   .add_eos = -1,
                   .train = {.on = MB_TRAIN_ASSISTANT, .eos = MB_EOS_TURN}},
    };
}

void mb_store_free(mb_store *s)
{
    if (s == NULL)
        return;
    mb_free(s->ids);
    mb_free(s->flags);
    mb_free(s->offset);
    mb_free(s->trained);
    mb_free(s->label);
    mb_free(s->source);
    mb_free(s->line);
    mb_free(s->record);
    mb_free(s->media);
    mb_free(s->media_at);
    mb_free(s->hash);
    mb_free(s->picture);
    mb_free(s->extra);
    mb_free(s->extra_offset);
    for (int i = 0; s->source_name != NULL && i < s->n_sources; i++)
        mb_free(s->source_name[i]);
    mb_free(s->source_name);
    for (int i = 0; s->label_name != NULL && i < s->n_labels; i++)
        mb_free(s->label_name[i]);
    mb_free(s->label_name);
    mb_free(s);
}

float mb_store_value(const mb_store *s, int64_t r, int64_t i)
{
    const int64_t at = s->extra_offset[r], end = s->extra_offset[r + 1];
    float value;

    memcpy(&value, &s->extra[s->rows == MB_WANT_SENTENCES ? end - 1 : at + i], sizeof value);
    return value;
}

bool mb_store_labelled(const mb_store *s, int64_t r)
{
    if (s->rows == MB_WANT_CLASS)
        return s->label[r] >= 0;
    if (s->rows == MB_WANT_TEXT || s->rows == MB_WANT_PAIRS || s->rows == MB_WANT_SOUND ||
        s->rows == MB_WANT_SENTENCES)
        return true;

    const int64_t from = s->extra_offset[r], n = s->extra_offset[r + 1] - from;

    switch (s->rows) {
    case MB_WANT_CLASSES:
        return n == 0 || s->extra[from] >= 0;
    case MB_WANT_NUMBERS:
        return n > 0;
    case MB_WANT_QUESTIONS:
        return s->extra[from] >= 0;
    case MB_WANT_WORDS:
        for (int64_t i = 0; i < n; i++)
            if (s->extra[from + i] >= 0)
                return true;
        return false;
    default:
        return true;
    }
}

const char *mb_store_place(const mb_store *s, int64_t r, char *text, size_t size)
{
    if (s->picture != NULL)
        snprintf(text, size, "%s", mb_store_media(s, r));
    else
        snprintf(text, size, "%s:%lld", s->source_name[s->source[r]], (long long)s->line[r]);
    return text;
}

static void log_pictures(const mb_store *s, const char *what)
{
    int64_t least = INT64_MAX, most = 0;

    for (int64_t r = 0; r < s->n_rows; r++) {
        const int64_t n = s->picture[r].width * s->picture[r].height;
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    mb_log_info("%s: %lld pictures of %d classes, %lld to %lld pixels, %lld tokens each", what,
                (long long)s->n_rows, s->n_labels, (long long)least, (long long)most,
                (long long)s->stats.max_length);
}

void mb_store_log(const mb_store *s, const char *what)
{
    const mb_store_stats *c = &s->stats;
    const struct {
        int64_t n;
        const char *text;
    } notes[] = {
        {c->bad, "rows could not be read and were skipped (bad_rows: skip)"},
        {c->empty, "rows are empty and were left out"},
        {c->untrained, "rows have no trained token and were left out"},
        {c->dropped, "rows are longer than max_length and were left out"},
        {c->truncated, "rows are longer than max_length and were cut"},
        {c->long_sounds, "rows are about sounds longer than audio_seconds and were left out"},
        {c->duplicates, "rows are duplicates of others"},
        {c->double_bos, "rows would have begun with two BOS tokens; one was left out"},
    };

    if (s->picture != NULL)
        log_pictures(s, what);
    else
        mb_log_info(
            "%s: %lld rows, %lld tokens (%.1f%% trained), %lld to %lld per row, mean %.1f%s", what,
            (long long)s->n_rows, (long long)s->n_tokens,
            100.0 * (double)c->trained / (double)(s->n_tokens > 0 ? s->n_tokens : 1),
            (long long)c->min_length, (long long)c->max_length,
            (double)s->n_tokens / (double)(s->n_rows > 0 ? s->n_rows : 1),
            s->from_cache ? ", from the cache" : "");
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        if (notes[i].n > 0)
            mb_log_info("%s: %lld %s", what, (long long)notes[i].n, notes[i].text);
    }
}

/* A row's draw: equal rows, equal draws. */
struct draw {
    uint64_t value;
    int64_t row;
};

static int by_draw(const void *a, const void *b)
{
    const struct draw *x = a, *y = b;

    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

mb_status mb_store_split(const mb_store *s, double size, uint64_t seed, int64_t **train,
                         int64_t *n_train, int64_t **val, int64_t *n_val)
{
    struct draw *draw;
    bool *held;
    int64_t k = (int64_t)(size < 1.0 ? size * (double)s->n_rows + 0.5 : size);
    mb_status st = MB_OK;

    *train = *val = NULL;
    *n_train = *n_val = 0;
    MB_REQUIRE(size >= 0.0, MB_EARG, "val_set_size is %g, it must not be negative", size);
    if (size > 0.0 && k == 0)
        k = 1;
    MB_REQUIRE(k < s->n_rows, MB_EDATA, "val_set_size takes %lld rows of %lld; none would be left",
               (long long)k, (long long)s->n_rows);
    MB_TRY(MB_NEW_ARRAY(&draw, s->n_rows));
    MB_TRY_GOTO(MB_NEW_ARRAY(&held, s->n_rows), st, done);
    for (int64_t r = 0; r < s->n_rows; r++)
        draw[r] = (struct draw){mb_rng_key(seed, MB_SITE_SPLIT, s->hash[r]), r};
    qsort(draw, (size_t)s->n_rows, sizeof *draw, by_draw);
    while (k > 0 && k < s->n_rows && draw[k].value == draw[k - 1].value)
        k++; /* equal rows stay together */
    for (int64_t i = 0; i < k; i++)
        held[draw[i].row] = true;
    if (k == s->n_rows)
        st =
            MB_RAISE(MB_EDATA, "val_set_size: the rows are duplicates of each other; none would be "
                               "left to train on");
    if (st == MB_OK)
        st = MB_NEW_ARRAY(train, s->n_rows - k + 1);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(val, k + 1);
    for (int64_t r = 0; r < s->n_rows && st == MB_OK; r++) {
        if (held[r])
            (*val)[(*n_val)++] = r;
        else
            (*train)[(*n_train)++] = r;
    }
    mb_free(held);
    if (st != MB_OK) {
        mb_free(*train);
        *train = NULL;
    }
done:
    mb_free(draw);
    return st;
}
