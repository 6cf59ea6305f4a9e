/* recipes/config/token_ids.c - see recipes/config/token_ids.h. */
#include "recipes/config/token_ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

static const char *const noted = "mbuyu_new_tokens";

struct range {
    bool is_new;
    int64_t first, last; /* both are meant */
};

/* Digits alone, at most nine. */
static bool read_id(const char *text, size_t n, int64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *out = *out * 10 + (text[i] - '0');
    }
    return n > 0 && n <= 9;
}

static mb_status parse(const char *text, struct range *r)
{
    const char *dots = strstr(text, "..");
    const size_t n = dots != NULL ? (size_t)(dots - text) : strlen(text);
    bool good = true;

    *r = (struct range){.is_new = strcmp(text, "new") == 0};
    if (r->is_new)
        return MB_OK;
    good = read_id(text, n, &r->first);
    r->last = r->first;
    if (good && dots != NULL)
        good = read_id(dots + 2, strlen(dots + 2), &r->last) && r->first <= r->last;
    MB_REQUIRE(good, MB_EARG,
               "trainable_token_indices: '%.60s' is none of an id (7), a range (7..9) and new",
               text);
    return MB_OK;
}

mb_status mb_token_ids_check(const mb_strings *entries)
{
    struct range r;

    for (int64_t i = 0; i < entries->n; i++)
        MB_TRY(parse(entries->at[i], &r));
    return MB_OK;
}

static mb_status find_new(mb_json config, const char *path, struct range *r)
{
    const mb_json v = mb_json_get(config, noted);

    MB_REQUIRE(mb_json_is(v, MB_JSON_OBJECT), MB_EARG,
               "trainable_token_indices: %s does not say which of its tokens are new (%s in "
               "config.json, by `mbuyu tokenizer extend`): give their ids, such as 384..423",
               path, noted);
    MB_TRY(mb_json_need_int(v, "first", 0, INT32_MAX - 1, &r->first));
    return mb_json_need_int(v, "last", r->first, INT32_MAX - 1, &r->last);
}

static mb_status resolve(const char *entry, mb_json config, const char *path, int64_t vocab,
                         struct range *r)
{
    MB_TRY(parse(entry, r));
    if (r->is_new)
        MB_TRY(find_new(config, path, r));
    MB_REQUIRE(r->last < vocab, MB_EARG,
               "trainable_token_indices: %s has rows for the ids 0 to %lld, none for %lld", path,
               (long long)(vocab - 1), (long long)r->last);
    return MB_OK;
}

static int ascending(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

    return (x > y) - (x < y);
}

mb_status mb_token_ids(const mb_strings *entries, mb_json config, const char *path, int64_t vocab,
                       int32_t **ids, int64_t *n)
{
    struct range *range = NULL;
    int64_t count = 0;
    mb_status st = MB_OK;

    *n = 0;
    MB_TRY(MB_NEW_ARRAY(&range, entries->n));
    for (int64_t i = 0; i < entries->n; i++) {
        MB_TRY_GOTO(resolve(entries->at[i], config, path, vocab, &range[i]), st, done);
        count += range[i].last - range[i].first + 1;
    }
    MB_TRY_GOTO(MB_NEW_ARRAY(ids, count), st, done);
    for (int64_t i = 0; i < entries->n; i++)
        for (int64_t id = range[i].first; id <= range[i].last; id++)
            (*ids)[(*n)++] = (int32_t)id;
    qsort(*ids, (size_t)count, sizeof **ids, ascending);
done:
    mb_free(range);
    return st;
}

mb_status mb_token_ids_note(mb_json config, int64_t first, int64_t last)
{
    mb_json v;

    MB_TRY(mb_json_set_object(config, noted, &v));
    MB_TRY(mb_json_set_int(v, "first", first));
    return mb_json_set_int(v, "last", last);
}
