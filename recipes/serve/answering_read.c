/* recipes/serve/answering_read.c - what a request for text says besides numbers: stop, logit_bias,
 * response_format, stream_options; its prompts. */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/answering_inside.h"

enum { MOST_BIASES = 1024, MOST_STOP_BYTES = 512 };

static mb_status add_stop(mb_answering *g, mb_json v)
{
    const char *text;
    size_t n;

    MB_TRY(mb_json_string(v, &text, &n));
    MB_REQUIRE(n > 0 && n <= MOST_STOP_BYTES, MB_EARG, "stop: a text of 1 to %d bytes is expected",
               MOST_STOP_BYTES);
    MB_REQUIRE(g->n_stop < MB_ANSWERING_STOPS, MB_EARG, "stop has more than %d texts",
               MB_ANSWERING_STOPS);
    MB_TRY(mb_strdup(text, &g->stop[g->n_stop]));
    g->n_stop++;
    return MB_OK;
}

static mb_status read_stop(mb_answering *g, mb_json v)
{
    if (!mb_json_is(v, MB_JSON_ARRAY))
        return add_stop(g, v);
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(add_stop(g, it.value));
    return MB_OK;
}

static mb_status read_bias(mb_answering *g, mb_json v)
{
    const int64_t vocab = mb_scheduler_vocab(mb_api_scheduler(g->api), g->offer->number);

    MB_REQUIRE(mb_json_is(v, MB_JSON_OBJECT), MB_EARG,
               "logit_bias must be an object of token ids and numbers");
    MB_REQUIRE(mb_json_count(v) <= MOST_BIASES, MB_EARG, "logit_bias has more than %d tokens",
               MOST_BIASES);
    MB_TRY(MB_NEW_ARRAY(&g->bias, mb_json_count(v) + 1));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        char *end;
        const long id = strtol(it.key, &end, 10);
        double x;

        MB_REQUIRE(*it.key != '\0' && *end == '\0' && id >= 0 && id < vocab, MB_EARG,
                   "logit_bias: \"%.40s\" is no token id of this model (0 to %lld)", it.key,
                   (long long)vocab - 1);
        MB_TRY(mb_json_real(it.value, &x));
        MB_REQUIRE(x >= -100 && x <= 100, MB_EARG, "logit_bias: %g; it must be from -100 to 100",
                   x);
        g->bias[g->n_bias++] = (mb_logit_bias){.id = (int32_t)id, .bias = (float)x};
    }
    return MB_OK;
}

static mb_status read_format(mb_answering *g, mb_json v)
{
    const char *type;

    MB_TRY(mb_json_get_string(v, "type", "text", &type));
    g->json = strcmp(type, "json_object") == 0;
    MB_REQUIRE(g->json || strcmp(type, "text") == 0, MB_EARG,
               "response_format \"%.40s\" is not known here: text, json_object", type);
    return MB_OK;
}

static mb_status read_stream_options(mb_answering *g, mb_json v)
{
    MB_REQUIRE(g->p.stream, MB_EARG, "stream_options is for streams: set stream");
    return mb_json_get_bool(v, "include_usage", false, &g->include_usage);
}

static mb_status read_user(mb_answering *g, mb_json v)
{
    const char *text;

    MB_TRY(mb_json_string(v, &text, NULL));
    return mb_strdup(text, &g->user);
}

static mb_status read_tool_choice(mb_answering *g, mb_json v)
{
    const char *word = "";

    if (mb_json_is(v, MB_JSON_STRING))
        MB_TRY(mb_json_string(v, &word, NULL));
    MB_REQUIRE(
        strcmp(word, "auto") == 0 || strcmp(word, "none") == 0, MB_EARG,
        "tool_choice: a model here is told of tools by its template and calls what it likes: "
        "auto or none");
    return MB_OK;
}

static mb_status read_suffix(mb_answering *g, mb_json v)
{
    const char *text;

    MB_TRY(mb_json_string(v, &text, NULL));
    MB_REQUIRE(*text == '\0', MB_EARG, "suffix: models here write forwards only");
    return MB_OK;
}

mb_status mb_answering_read(mb_answering *g, mb_json request, mb_fault *f)
{
    static const struct {
        const char *name;
        mb_status (*read)(mb_answering *g, mb_json v);
    } fields[] = {{"stop", read_stop},
                  {"logit_bias", read_bias},
                  {"response_format", read_format},
                  {"stream_options", read_stream_options},
                  {"tool_choice", read_tool_choice},
                  {"suffix", read_suffix},
                  {"user", read_user}};

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const mb_json v = mb_json_get(request, fields[i].name);

        mb_fault_set(f, 400, NULL, fields[i].name);
        if (mb_json_is_set(v))
            MB_TRY(fields[i].read(g, v));
    }
    mb_fault_set(f, 400, NULL, "top_logprobs");
    MB_REQUIRE(!g->chat || g->p.top_logprobs == 0 || g->p.want_logprobs, MB_EARG,
               "top_logprobs is only for logprobs: set logprobs");
    mb_fault_set(f, 400, NULL, "best_of");
    MB_REQUIRE(g->chat || g->p.best_of == 1 || g->p.best_of == g->p.n, MB_EARG,
               "best_of %lld: the best of more answers than n (%lld) is not looked for",
               (long long)g->p.best_of, (long long)g->p.n);
    mb_fault_set(f, 0, NULL, NULL);
    return MB_OK;
}

/* The text of ids, special tokens as they are written. */
static mb_status text_of(const mb_answering *g, const mb_ids *ids, char **out)
{
    return mb_tokenizer_decode(g->offer->writer.tokenizer, ids->id, ids->n, false, out, NULL);
}

mb_status mb_answering_prompt(mb_answering *g, mb_ids *ids, const char *text, mb_fault *f)
{
    const int64_t vocab = mb_scheduler_vocab(mb_api_scheduler(g->api), g->offer->number);
    const int64_t most = g->offer->context - (g->p.max_tokens != 0);
    size_t capacity = (size_t)g->n_asked;
    struct asked *a;

    mb_fault_set(f, 400, NULL, g->chat ? "messages" : "prompt");
    MB_REQUIRE(g->n_asked < MB_ANSWERING_PROMPTS, MB_EARG, "more than %d prompts in one request",
               MB_ANSWERING_PROMPTS);
    MB_REQUIRE(ids->n > 0, MB_EARG, "a prompt is empty: there is nothing to continue");
    for (size_t i = 0; i < ids->n; i++)
        MB_REQUIRE(ids->id[i] >= 0 && ids->id[i] < vocab, MB_EARG,
                   "the prompt's token %d is not of this model (0 to %lld)", (int)ids->id[i],
                   (long long)vocab - 1);
    f->code = "context_length_exceeded";
    MB_REQUIRE((int64_t)ids->n <= most, MB_EARG,
               "this model's maximum context length is %lld tokens; the prompt has %zu",
               (long long)g->offer->context, ids->n);
    mb_fault_set(f, 0, NULL, NULL);
    MB_TRY(mb_grow((void **)&g->asked, &capacity, capacity + 1, sizeof *g->asked, "prompts"));
    a = &g->asked[g->n_asked];
    memset(a, 0, sizeof *a);
    if (g->p.echo)
        MB_TRY(text != NULL ? mb_strdup(text, &a->text) : text_of(g, ids, &a->text));
    a->ids = *ids;
    *ids = (mb_ids){0};
    g->n_asked++;
    return MB_OK;
}
