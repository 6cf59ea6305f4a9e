/* recipes/serve/texts.c - see recipes/serve/texts.h. */
#include "recipes/serve/texts.h"

#include "core/alloc.h"

struct reading {
    mb_text_encoder encode;
    void *arg;
    int64_t vocab, most;
    mb_texts *out;
    mb_fault *f;
};

static mb_status add_ids(const struct reading *r, mb_json list, mb_ids *to)
{
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        int64_t id;

        MB_TRY(mb_json_int(it.value, &id));
        MB_REQUIRE(id >= 0 && id < r->vocab, MB_EARG,
                   "input: %lld is no token of this model (0 to %lld)", (long long)id,
                   (long long)r->vocab - 1);
        MB_TRY(mb_ids_push(to, (int32_t)id));
    }
    return MB_OK;
}

static mb_status add(const struct reading *r, mb_json v)
{
    mb_ids *to = &r->out->at[r->out->n++];
    const char *text;
    size_t n;

    if (mb_json_is(v, MB_JSON_ARRAY)) {
        MB_TRY(add_ids(r, v, to));
    } else {
        MB_TRY(mb_json_string(v, &text, &n));
        MB_REQUIRE(n > 0, MB_EARG, "input: a text is empty");
        MB_TRY(r->encode(r->arg, text, n, to));
    }
    MB_REQUIRE(to->n > 0, MB_EARG, "input: an item has no tokens");
    for (size_t i = 0; i < to->n; i++)
        MB_REQUIRE(to->id[i] < r->vocab, MB_EMODEL,
                   "the tokenizer says %d, and the model has %lld tokens", (int)to->id[i],
                   (long long)r->vocab);
    r->f->code = "context_length_exceeded";
    MB_REQUIRE((int64_t)to->n <= r->most, MB_EARG,
               "this model's maximum context length is %lld tokens; an input has %zu",
               (long long)r->most, to->n);
    r->f->code = NULL;
    r->out->tokens += (int64_t)to->n;
    return MB_OK;
}

mb_status mb_texts_read(mb_json input, mb_text_encoder encode, void *arg, int64_t vocab,
                        int64_t most, mb_texts *out, mb_fault *f)
{
    const struct reading r = {encode, arg, vocab, most, out, f};
    const bool several =
        mb_json_is(input, MB_JSON_ARRAY) && !mb_json_is_number(mb_json_at(input, 0));
    const size_t n = several ? mb_json_count(input) : 1;

    mb_fault_set(f, 400, NULL, "input");
    MB_REQUIRE(mb_json_is_set(input), MB_EARG, "input is missing: a text or a list of texts");
    MB_REQUIRE(n > 0 && n <= MB_TEXTS_MOST, MB_EARG, "input has %zu items; 1 to %d are possible", n,
               MB_TEXTS_MOST);
    MB_TRY(MB_NEW_ARRAY(&out->at, n));
    if (several) {
        for (mb_json_it it = mb_json_first(input); mb_json_more(&it); mb_json_next(&it))
            MB_TRY(add(&r, it.value));
    } else {
        MB_TRY(add(&r, input));
    }
    mb_fault_set(f, 0, NULL, NULL);
    return MB_OK;
}

void mb_texts_release(mb_texts *t)
{
    for (int64_t i = 0; i < t->n; i++)
        mb_ids_release(&t->at[i]);
    mb_free(t->at);
    *t = (mb_texts){0};
}
