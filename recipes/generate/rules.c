/* recipes/generate/rules.c - see recipes/generate/rules.h. */
#include "recipes/generate/rules.h"

#include <math.h>
#include <string.h>

static mb_status push(mb_ids *out, mb_json v)
{
    int64_t id;

    MB_TRY(mb_json_int(v, &id));
    if (id < 0 || id > INT32_MAX)
        return mb_json_fault(v, "is %lld, which is no token", (long long)id);
    return mb_ids_push(out, (int32_t)id);
}

/* An id, or a list of ids; what was there before goes. */
static mb_status read_ids(mb_json config, const char *key, mb_ids *out)
{
    const mb_json v = mb_json_get(config, key);

    if (!mb_json_is_set(v))
        return MB_OK;
    mb_ids_clear(out);
    if (!mb_json_is(v, MB_JSON_ARRAY))
        return push(out, v);
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(push(out, it.value));
    return MB_OK;
}

static mb_status read_bad_words(mb_json config, mb_ids *out)
{
    const mb_json v = mb_json_get(config, "bad_words_ids");

    if (!mb_json_is_set(v))
        return MB_OK;
    mb_ids_clear(out);
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY(mb_ids_push(out, (int32_t)mb_json_count(it.value)));
        for (mb_json_it w = mb_json_first(it.value); mb_json_more(&w); mb_json_next(&w))
            MB_TRY(push(out, w.value));
    }
    return MB_OK;
}

mb_status mb_rules_read(mb_rules *r, mb_json config)
{
    int64_t first = r->forced_first;

    MB_TRY(mb_json_get_real(config, "repetition_penalty", r->repetition_penalty,
                            &r->repetition_penalty));
    MB_TRY(
        mb_json_get_int(config, "no_repeat_ngram_size", r->no_repeat_ngram, &r->no_repeat_ngram));
    MB_TRY(mb_json_get_int(config, "min_new_tokens", r->min_new_tokens, &r->min_new_tokens));
    MB_TRY(mb_json_get_int(config, "forced_bos_token_id", first, &first));
    r->forced_first = (int32_t)first;
    MB_TRY(read_ids(config, "forced_eos_token_id", &r->forced_last));
    MB_TRY(read_ids(config, "eos_token_id", &r->end));
    MB_TRY(read_ids(config, "suppress_tokens", &r->suppress));
    MB_TRY(read_ids(config, "begin_suppress_tokens", &r->begin_suppress));
    return read_bad_words(config, &r->bad_words);
}

void mb_rules_release(mb_rules *r)
{
    mb_ids_release(&r->forced_last);
    mb_ids_release(&r->end);
    mb_ids_release(&r->suppress);
    mb_ids_release(&r->begin_suppress);
    mb_ids_release(&r->bad_words);
}

static bool holds(const mb_ids *ids, int32_t id)
{
    for (size_t i = 0; i < ids->n; i++)
        if (ids->id[i] == id)
            return true;
    return false;
}

bool mb_rules_ends(const mb_rules *r, int32_t id)
{
    return holds(&r->end, id);
}

static void forbid(float *score, int64_t vocab, int32_t id)
{
    if (id >= 0 && id < vocab)
        score[id] = -INFINITY;
}

static void forbid_all(float *score, int64_t vocab, const mb_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        forbid(score, vocab, ids->id[i]);
}

static void penalise(double penalty, const int32_t *id, int64_t n, float *score, int64_t vocab,
                     uint8_t *seen)
{
    const float r = (float)penalty;

    for (int64_t i = 0; i < n; i++) {
        if (id[i] < 0 || id[i] >= vocab || seen[id[i]])
            continue;
        seen[id[i]] = 1;
        score[id[i]] = score[id[i]] < 0.0f ? score[id[i]] * r : score[id[i]] / r;
    }
    for (int64_t i = 0; i < n; i++)
        if (id[i] >= 0 && id[i] < vocab)
            seen[id[i]] = 0;
}

/* What followed the last size - 1 tokens anywhere before must not follow them again. */
static void forbid_repeats(int64_t size, const int32_t *id, int64_t n, float *score, int64_t vocab)
{
    const int64_t k = size - 1;

    for (int64_t i = 0; i + size <= n; i++)
        if (memcmp(id + i, id + n - k, (size_t)k * sizeof *id) == 0)
            forbid(score, vocab, id[i + k]);
}

static void forbid_words(const mb_rules *r, const int32_t *id, int64_t n, float *score,
                         int64_t vocab)
{
    const mb_ids *w = &r->bad_words;

    for (size_t i = 0; i < w->n; i += 1 + (size_t)w->id[i]) {
        const int64_t k = w->id[i] - 1; /* tokens before the last */
        const int32_t *word = w->id + i + 1;

        if (k < 0 || (k == 0 && mb_rules_ends(r, word[0])))
            continue;
        if (k <= n && memcmp(word, id + n - k, (size_t)k * sizeof *id) == 0)
            forbid(score, vocab, word[k]);
    }
}

/* Only these; all equally likely. */
static void force(float *score, int64_t vocab, const int32_t *id, size_t n)
{
    for (int64_t i = 0; i < vocab; i++)
        score[i] = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (id[i] >= 0 && id[i] < vocab)
            score[id[i]] = 0.0f;
}

void mb_rules_apply(const mb_rules *r, const int32_t *id, int64_t n, int64_t n_prompt, int64_t most,
                    float *score, int64_t vocab, uint8_t *seen)
{
    const int64_t begin = n_prompt == 1 && r->forced_first >= 0 ? 2 : n_prompt;

    if (r->repetition_penalty != 1.0)
        penalise(r->repetition_penalty, id, n, score, vocab, seen);
    if (r->no_repeat_ngram > 0)
        forbid_repeats(r->no_repeat_ngram, id, n, score, vocab);
    forbid_words(r, id, n, score, vocab);
    if (n - n_prompt < r->min_new_tokens)
        forbid_all(score, vocab, &r->end);
    if (r->forced_first >= 0 && n == 1)
        force(score, vocab, &r->forced_first, 1);
    if (r->forced_last.n > 0 && n == most - 1)
        force(score, vocab, r->forced_last.id, r->forced_last.n);
    forbid_all(score, vocab, &r->suppress);
    if (n == begin)
        forbid_all(score, vocab, &r->begin_suppress);
}
