/* recipes/serve/offer_text.c - a model that writes text, known to the scheduler. */
#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/api.h"
#include "recipes/serve/vocab_bytes.h"

/* The base of an adapter, or another adapter of it: their sequences may lie in the same blocks. */
static int like(const mb_api *a, const mb_offer *o)
{
    for (int i = 0; i < mb_api_offers(a); i++) {
        const mb_offer *p = mb_api_offer_at(a, i);

        if (p->kind == MB_OFFER_TEXT && p->context == o->context &&
            p->writer.engine->base == o->writer.engine->base)
            return p->number;
    }
    return -1;
}

static mb_status open_text(mb_api *a, mb_offer *o)
{
    const mb_api_options *has = mb_api_has(a);
    mb_served served;
    char text[200];
    int64_t half;

    MB_TRY(mb_writer_open(o->recipe, &o->writer));
    o->context = mb_writer_context(&o->writer, MB_API_CONTEXT);
    if (has->context > 0)
        o->context = has->context < o->writer.positions ? has->context : o->writer.positions;
    o->writer.bases = mb_api_bases(a);
    MB_TRY(mb_writer_load_engine(&o->writer, o->context));
    MB_TRY(mb_vocab_bytes_new(o->writer.tokenizer, &o->pieces));
    half = (has->n_seq + 1) / 2 * o->context;
    served = (mb_served){.engine = o->writer.engine,
                         .tokenizer = o->writer.tokenizer,
                         .context = o->context,
                         .cache_tokens = has->cache_tokens > o->context ? has->cache_tokens : half,
                         .share = like(a, o)};
    MB_TRY(mb_api_schedule(a, &served, &o->number));
    mb_scheduler_describe(mb_api_scheduler(a), o->number, text, sizeof text);
    mb_log_info("%s: %s", o->id, text);
    return MB_OK;
}

static void close_text(mb_offer *o)
{
    mb_vocab_bytes_free(o->pieces);
    mb_writer_close(&o->writer);
}

const mb_offer_ops mb_offer_text = {open_text, close_text};
