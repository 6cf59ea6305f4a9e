/* recipes/serve/routes_translations.c - POST /v1/translations: a text becomes another.
 *
 *     {"model":ID,"input":TEXT or [TEXT, ...]}
 *     -> {"object":"list","model":ID,"data":[{"index":0,"text":...}],"usage":{...}}
 *
 * By the search that generation_config.json and the recipe's keys say, as `mbuyu generate` does it.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "recipes/data/collate.h"
#include "recipes/generate/seq2seq.h"
#include "recipes/serve/api.h"
#include "recipes/serve/texts.h"

enum { AT_A_TIME = 4, MOST_SOURCE = 512 };

struct translator {
    mb_model_config config;
    mb_tokenizer *source, *target;
    mb_render_options render;
    mb_rules rules;
    mb_search_options search;
    mb_search *s;
    mb_device *device;
    mb_engine *engine;
    int32_t start;
};

/* ---- the model ---------------------------------------------------------------------------- */

static mb_status open_translator(mb_api *a, mb_offer *o, struct translator *t)
{
    const mb_recipe *r = o->recipe;
    const char *path = r->model_name_or_path;
    mb_batch *source = NULL;
    mb_status st;

    MB_TRY(mb_cpu_init());
    MB_TRY(mb_model_config_parse(o->config, MB_HEAD_SEQ2SEQ, &t->config));
    MB_REQUIRE(t->config.decoder_start_id >= 0, MB_EMODEL,
               "%s: config.json has no decoder_start_token_id, with which every answer begins",
               path);
    t->start = (int32_t)t->config.decoder_start_id;
    MB_TRY(mb_tokenizer_load(path, &t->source));
    MB_TRY(mb_tokenizer_load_target(path, &t->target));
    MB_TRY(mb_search_settings(r, path, t->target, &t->rules, &t->search));
    t->render = (mb_render_options){
        .tokenizer = t->source, .source_prefix = r->source_prefix, .source_lang = r->source_lang};
    o->context = t->config.positions < MOST_SOURCE ? t->config.positions : MOST_SOURCE;
    t->search.answers = 1;
    t->search.prompts = t->search.prompt_rows = AT_A_TIME;
    t->search.capacity =
        1 + r->max_new_tokens < t->config.positions ? 1 + r->max_new_tokens : t->config.positions;
    MB_TRY(mb_search_open(r, MB_HEAD_SEQ2SEQ,
                          t->search.capacity > o->context ? t->search.capacity : o->context,
                          mb_api_bases(a), &t->device, &t->engine));
    MB_TRY(mb_source_batch(NULL, 0, o->context * AT_A_TIME, AT_A_TIME, &source));
    source->n_seq = AT_A_TIME;
    source->max_len = o->context;
    st = mb_search_new(t->engine, &t->search, source, &t->s);
    mb_batch_free(source);
    return st;
}

static mb_status open_translation(mb_api *a, mb_offer *o)
{
    struct translator *t;

    MB_TRY(MB_NEW(&t));
    o->own = t;
    return open_translator(a, o, t);
}

static void close_translation(mb_offer *o)
{
    struct translator *t = o->own;

    if (t == NULL)
        return;
    mb_search_free(t->s);
    mb_engine_free(t->engine);
    mb_device_close(t->device);
    mb_rules_release(&t->rules);
    mb_tokenizer_free(t->source);
    mb_tokenizer_free(t->target);
    mb_free(t);
    o->own = NULL;
}

const mb_offer_ops mb_offer_translation = {open_translation, close_translation};

/* ---- requests ----------------------------------------------------------------------------- */

struct asked {
    mb_offer *o;
    mb_texts texts;
    char **answer; /* (texts.n) */
    int64_t first, tokens;
};

static mb_status said(void *arg, int64_t number, int64_t rank, const int32_t *id, int64_t n,
                      double score)
{
    struct asked *k = arg;
    const struct translator *t = k->o->own;

    k->tokens += n;
    return mb_answer_decode(t->target, id, n, &k->answer[k->first + number], NULL);
}

/* On the scheduler's thread: the next few. */
static mb_status some(void *arg)
{
    struct asked *k = arg;
    const struct translator *t = k->o->own;
    const int64_t left = k->texts.n - k->first, n = left < AT_A_TIME ? left : AT_A_TIME;
    mb_search_prompt prompt[AT_A_TIME];
    const mb_ids *rows[AT_A_TIME];
    mb_batch *source = NULL;
    int64_t tokens = 0;
    mb_status st;

    for (int64_t i = 0; i < n; i++) {
        rows[i] = &k->texts.at[k->first + i];
        tokens += (int64_t)rows[i]->n;
        prompt[i] = (mb_search_prompt){.id = &t->start, .n = 1, .sample = (uint64_t)(k->first + i)};
    }
    MB_TRY(mb_source_batch(rows, n, tokens, n, &source));
    st = mb_search_run(t->s, source, prompt, n, &t->rules, said, k);
    mb_batch_free(source);
    return st;
}

static mb_status write_all(const struct asked *k, mb_bytes *out)
{
    MB_TRY(mb_bytes_puts(out, "{\"object\":\"list\",\"model\":"));
    MB_TRY(mb_bytes_json(out, k->o->id, strlen(k->o->id)));
    MB_TRY(mb_bytes_puts(out, ",\"data\":["));
    for (int64_t i = 0; i < k->texts.n; i++) {
        MB_TRY(mb_bytes_printf(out, "%s{\"index\":%lld,\"text\":", i > 0 ? "," : "", (long long)i));
        MB_TRY(mb_bytes_json(out, k->answer[i], strlen(k->answer[i])));
        MB_TRY(mb_bytes_puts(out, "}"));
    }
    return mb_bytes_printf(out,
                           "],\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
                           "\"total_tokens\":%lld}}",
                           (long long)k->texts.tokens, (long long)k->tokens,
                           (long long)(k->texts.tokens + k->tokens));
}

static void run(mb_api *a, void *own, mb_http_reply *r)
{
    struct asked *k = own;
    mb_bytes out = {0};
    mb_status st = MB_OK;

    for (k->first = 0; k->first < k->texts.n && st == MB_OK; k->first += AT_A_TIME) {
        if (mb_http_reply_gone(r)) {
            mb_http_reply_drop(r);
            return;
        }
        st = mb_scheduler_call(mb_api_scheduler(a), some, k);
    }
    mb_api_count(a, "translations", k->texts.tokens, k->tokens);
    if (st == MB_OK)
        st = write_all(k, &out);
    mb_api_reply(r, st, "application/json", &out);
}

static void release(void *own)
{
    struct asked *k = own;

    for (int64_t i = 0; k->answer != NULL && i < k->texts.n; i++)
        mb_free(k->answer[i]);
    mb_free(k->answer);
    mb_texts_release(&k->texts);
}

static mb_status encode(void *arg, const char *text, size_t n, mb_ids *out)
{
    mb_tokens tokens = {0};
    const mb_status st = mb_render_source(arg, text, &tokens);

    if (st == MB_OK) {
        *out = tokens.ids;
        tokens.ids = (mb_ids){0};
    }
    mb_tokens_release(&tokens);
    return st;
}

static mb_status read_body(mb_api *a, mb_json root, void *own, mb_fault *f)
{
    struct asked *k = own;
    struct translator *t;

    MB_TRY(mb_api_choose_in(a, root, MB_OFFER_TRANSLATION, &k->o, f));
    t = k->o->own;
    MB_TRY(mb_texts_read(mb_json_get(root, "input"), encode, &t->render, t->config.vocab,
                         k->o->context, &k->texts, f));
    return MB_NEW_ARRAY(&k->answer, k->texts.n);
}

static const mb_work work = {
    .bytes = sizeof(struct asked), .json = read_body, .run = run, .release = release};

static mb_status translate(void *arg, mb_http_request *q)
{
    return mb_api_work(arg, q, &work);
}

const mb_http_route mb_routes_translations[] = {
    {"POST", "/v1/translations", translate, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
    {.method = NULL},
};
