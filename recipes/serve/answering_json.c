/* recipes/serve/answering_json.c - answers, chunks, logprobs and usage as OpenAI writes them. */
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/answering_inside.h"
#include "recipes/tokenizers/unicode.h"

const char *mb_answering_finish(mb_finish f)
{
    return f == MB_FINISH_LENGTH || f == MB_FINISH_CONTEXT ? "length" : "stop";
}

/* ---- tokens ------------------------------------------------------------------------------- */

/* A token's text as a JSON string; half a character by the values of its bytes, as OpenAI does. */
static mb_status token_name(const struct mb_answering *g, int32_t id, mb_bytes *out)
{
    size_t n, bad;
    const char *p = mb_vocab_bytes_of(g->offer->pieces, id, &n);

    if (n == 0) {
        p = mb_tokenizer_id_to_token(g->offer->writer.tokenizer, id);
        p = p != NULL ? p : "";
        n = strlen(p);
    }
    if (mb_utf8_check(p, n, &bad))
        return mb_bytes_json(out, p, n);
    MB_TRY(mb_bytes_puts(out, g->chat ? "\"" : "\"bytes:"));
    for (size_t i = 0; i < n; i++)
        MB_TRY(mb_bytes_printf(out, "\\\\x%02x", (unsigned char)p[i]));
    return mb_bytes_puts(out, "\"");
}

static mb_status token_with_bytes(const struct mb_answering *g, const mb_token_prob *t,
                                  mb_bytes *out)
{
    size_t n;
    const char *p = mb_vocab_bytes_of(g->offer->pieces, t->id, &n);

    MB_TRY(mb_bytes_puts(out, "{\"token\":"));
    MB_TRY(token_name(g, t->id, out));
    MB_TRY(mb_bytes_printf(out, ",\"logprob\":%.9g,\"bytes\":[", (double)t->logprob));
    for (size_t i = 0; i < n; i++)
        MB_TRY(mb_bytes_printf(out, "%s%u", i > 0 ? "," : "", (unsigned char)p[i]));
    return mb_bytes_puts(out, "]");
}

static mb_status chat_token(const struct mb_answering *g, const mb_said *t, mb_bytes *out)
{
    MB_TRY(token_with_bytes(g, &t->token, out));
    MB_TRY(mb_bytes_puts(out, ",\"top_logprobs\":["));
    for (int64_t i = 0; i < t->n_top && i < g->p.top_logprobs; i++) {
        MB_TRY(mb_bytes_puts(out, i > 0 ? "," : ""));
        MB_TRY(token_with_bytes(g, &t->top[i], out));
        MB_TRY(mb_bytes_puts(out, "}"));
    }
    return mb_bytes_puts(out, "]}");
}

mb_status mb_answering_token_json(const struct mb_answering *g, const mb_said *t, mb_bytes json[3])
{
    const bool first = t->choice < 0 && t->place == 0;

    if (g->chat)
        return chat_token(g, t, &json[0]);
    MB_TRY(token_name(g, t->token.id, &json[0]));
    if (first) {
        MB_TRY(mb_bytes_puts(&json[1], "null"));
        return mb_bytes_puts(&json[2], "null");
    }
    MB_TRY(mb_bytes_printf(&json[1], "%.9g", (double)t->token.logprob));
    MB_TRY(mb_bytes_puts(&json[2], "{"));
    for (int64_t i = 0; i < t->n_top; i++) {
        MB_TRY(mb_bytes_puts(&json[2], i > 0 ? "," : ""));
        MB_TRY(token_name(g, t->top[i].id, &json[2]));
        MB_TRY(mb_bytes_printf(&json[2], ":%.9g", (double)t->top[i].logprob));
    }
    return mb_bytes_puts(&json[2], "}");
}

mb_status mb_answering_count(struct mb_answering *g, size_t n, int64_t times)
{
    g->bytes += n * (size_t)times;
    MB_REQUIRE(g->bytes <= MB_ANSWERING_BYTES, MB_EARG,
               "the answer has more than %d bytes: ask for fewer prompts, choices or logprobs",
               MB_ANSWERING_BYTES);
    return MB_OK;
}

mb_status mb_answering_keep(const struct mb_answering *g, struct logprobs *lp, int64_t from,
                            struct item *it)
{
    const int n = g->chat ? 1 : 3;

    for (int i = 0; i < n; i++) {
        MB_TRY(mb_bytes_puts(&lp->list[i], lp->n > 0 ? "," : ""));
        MB_TRY(mb_bytes_add(&lp->list[i], it->json[i].p, it->json[i].n));
        it->json[i].n = 0;
    }
    if (!g->chat)
        MB_TRY(mb_bytes_printf(&lp->list[3], "%s%lld", lp->n > 0 ? "," : "",
                               (long long)(from + lp->characters)));
    lp->n++;
    lp->characters += it->characters;
    return MB_OK;
}

/* The prompt's list, and the choice's so far. */
static mb_status add_list(const struct logprobs *prompt, const struct logprobs *own, int i,
                          mb_bytes *out)
{
    if (prompt != NULL)
        MB_TRY(mb_bytes_add(out, prompt->list[i].p, prompt->list[i].n));
    if (own->n == 0)
        return MB_OK;
    MB_TRY(mb_bytes_puts(out, prompt != NULL ? "," : ""));
    return mb_bytes_add(out, own->list[i].p, own->list[i].n);
}

/* The lists so far, which are empty afterwards. */
static mb_status logprobs(struct mb_answering *g, struct choice *c, mb_bytes *out)
{
    static const char *const names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    const struct logprobs *prompt = &g->asked[(c - g->choice) / g->p.n].lp;

    if (c->scored || prompt->n == 0)
        prompt = NULL;
    if (g->top < 0 || (g->p.stream && c->lp.n == 0 && prompt == NULL))
        return g->chat && g->p.stream ? MB_OK : mb_bytes_puts(out, ",\"logprobs\":null");
    MB_TRY(mb_bytes_puts(out, ",\"logprobs\":{"));
    for (int i = 0; i < (g->chat ? 1 : 4); i++) {
        MB_TRY(
            mb_bytes_printf(out, "%s\"%s\":[", i > 0 ? "," : "", g->chat ? "content" : names[i]));
        MB_TRY(add_list(prompt, &c->lp, i, out));
        MB_TRY(mb_bytes_puts(out, "]"));
    }
    for (int i = 0; i < 4; i++)
        c->lp.list[i].n = 0;
    c->lp.n = 0;
    c->scored = true;
    return mb_bytes_puts(out, g->chat ? ",\"refusal\":null}" : "}");
}

/* ---- answers ------------------------------------------------------------------------------ */

static mb_status begin(const struct mb_answering *g, const char *object, mb_bytes *out)
{
    MB_TRY(mb_bytes_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":",
                           g->id, object, (long long)g->created));
    MB_TRY(mb_bytes_json(out, g->offer->id, strlen(g->offer->id)));
    return mb_bytes_puts(out, ",\"system_fingerprint\":\"mbuyu-" MB_VERSION "\",\"choices\":[");
}

static mb_status add_timings(double prompt_n, double cached, double prompt_s, double n, double s,
                             mb_bytes *out)
{
    return mb_bytes_printf(out,
                           ",\"timings\":{\"cache_n\":%.0f,\"prompt_n\":%.0f,\"prompt_ms\":%.3f,"
                           "\"prompt_per_second\":%.3f,\"predicted_n\":%.0f,\"predicted_ms\":%.3f,"
                           "\"predicted_per_second\":%.3f}",
                           cached, prompt_n, 1000 * prompt_s,
                           prompt_s > 0 ? prompt_n / prompt_s : 0.0, n, 1000 * s,
                           s > 0 ? n / s : 0.0);
}

static mb_status add_usage(const struct mb_answering *g, mb_bytes *out)
{
    const mb_ask_usage *u = &g->usage;

    MB_TRY(mb_bytes_printf(out,
                           ",\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
                           "\"total_tokens\":%lld,\"prompt_tokens_details\":{\"cached_tokens\":"
                           "%lld}}",
                           (long long)u->prompt_tokens, (long long)u->answer_tokens,
                           (long long)(u->prompt_tokens + u->answer_tokens),
                           (long long)u->cached_tokens));
    return add_timings((double)(u->prompt_tokens - u->cached_tokens), (double)u->cached_tokens,
                       u->prompt_seconds, (double)u->answer_tokens, u->answer_seconds, out);
}

mb_status mb_answering_chunk(struct mb_answering *g, int64_t index, const char *text, size_t n,
                             const char *finish, bool role, mb_bytes *out)
{
    struct choice *c = &g->choice[index];

    MB_TRY(mb_bytes_puts(out, "data: "));
    MB_TRY(begin(g, g->chat ? "chat.completion.chunk" : "text_completion", out));
    MB_TRY(mb_bytes_printf(out, "{\"index\":%lld,%s", (long long)index,
                           g->chat ? "\"delta\":{" : "\"text\":"));
    if (g->chat && role)
        MB_TRY(mb_bytes_puts(out, "\"role\":\"assistant\",\"content\":\"\""));
    else if (!g->chat || finish == NULL || n > 0) {
        MB_TRY(mb_bytes_puts(out, g->chat ? "\"content\":" : ""));
        MB_TRY(mb_bytes_json(out, text, n));
    }
    MB_TRY(mb_bytes_puts(out, g->chat ? "}" : ""));
    MB_TRY(logprobs(g, c, out));
    if (finish != NULL)
        MB_TRY(mb_bytes_printf(out, ",\"finish_reason\":\"%s\"}]", finish));
    else
        MB_TRY(mb_bytes_puts(out, ",\"finish_reason\":null}]"));
    if (g->p.timings_per_token)
        MB_TRY(add_timings((double)g->asked[0].ids.n, 0, 0, (double)g->tokens,
                           g->tokens > 0 ? mb_clock() - g->first_token : 0.0, out));
    return mb_bytes_puts(out, "}\n\n");
}

mb_status mb_answering_usage_chunk(struct mb_answering *g, mb_bytes *out)
{
    MB_TRY(mb_bytes_puts(out, "data: "));
    MB_TRY(begin(g, g->chat ? "chat.completion.chunk" : "text_completion", out));
    MB_TRY(mb_bytes_puts(out, "]"));
    MB_TRY(add_usage(g, out));
    return mb_bytes_puts(out, "}\n\n");
}

static mb_status whole_choice(struct mb_answering *g, int64_t i, mb_bytes *out)
{
    struct choice *c = &g->choice[i];

    MB_TRY(mb_bytes_printf(out, "%s{\"index\":%lld,%s", i > 0 ? "," : "", (long long)i,
                           g->chat ? "\"message\":{\"role\":\"assistant\",\"content\":"
                                   : "\"text\":"));
    MB_TRY(mb_bytes_json(out, c->text.p != NULL ? c->text.p : "", c->text.n));
    MB_TRY(mb_bytes_puts(out, g->chat ? ",\"refusal\":null}" : ""));
    MB_TRY(logprobs(g, c, out));
    return mb_bytes_printf(out, ",\"finish_reason\":\"%s\"}", mb_answering_finish(c->finish));
}

mb_status mb_answering_whole(struct mb_answering *g, mb_bytes *out)
{
    MB_TRY(begin(g, g->chat ? "chat.completion" : "text_completion", out));
    for (int64_t i = 0; i < g->n_choices; i++)
        MB_TRY(whole_choice(g, i, out));
    MB_TRY(mb_bytes_puts(out, "]"));
    MB_TRY(add_usage(g, out));
    return mb_bytes_puts(out, "}");
}
