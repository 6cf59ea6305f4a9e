/* recipes/generate/seq2seq.c - see recipes/generate/seq2seq.h. */
#include "recipes/generate/seq2seq.h"

#include <string.h>

#include "core/path.h"
#include "recipes/data/collate.h"
#include "recipes/train/device.h"
#include "recipes/train/session.h"

enum { MOST_CONFIG_BYTES = 1 << 24 };

/* "early_stopping": true, false or "never". */
static mb_status read_early(mb_json config, mb_early *out)
{
    const mb_json v = mb_json_get(config, "early_stopping");
    const char *word;
    bool yes;

    if (!mb_json_is_set(v))
        return MB_OK;
    if (mb_json_is(v, MB_JSON_STRING)) {
        MB_TRY(mb_json_string(v, &word, NULL));
        if (strcmp(word, "never") != 0)
            return mb_json_fault(v, "is \"%s\"; known are true, false, never", word);
        *out = MB_EARLY_NEVER;
        return MB_OK;
    }
    MB_TRY(mb_json_bool(v, &yes));
    *out = yes ? MB_EARLY_YES : MB_EARLY_NO;
    return MB_OK;
}

static mb_status read_folder(const char *model, const char *file, mb_rules *r, mb_search_options *o)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, model, file));
    if (!mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_EMODEL, MOST_CONFIG_BYTES, &doc));
    const mb_json root = mb_json_root(doc);
    MB_TRY_GOTO(mb_rules_read(r, root), st, done);
    MB_TRY_GOTO(mb_json_get_int(root, "num_beams", o->beam.beams, &o->beam.beams), st, done);
    MB_TRY_GOTO(
        mb_json_get_real(root, "length_penalty", o->beam.length_penalty, &o->beam.length_penalty),
        st, done);
    st = read_early(root, &o->beam.early);
done:
    mb_json_free(doc);
    return st;
}

static void set_by_recipe(const mb_recipe *r, mb_rules *rules, mb_search_options *o)
{
    if (mb_recipe_is_set(r, "num_beams"))
        o->beam.beams = r->num_beams;
    if (mb_recipe_is_set(r, "length_penalty"))
        o->beam.length_penalty = r->length_penalty;
    if (mb_recipe_is_set(r, "early_stopping"))
        o->beam.early = r->early_stopping == MB_STOPS_EARLY   ? MB_EARLY_YES
                        : r->early_stopping == MB_STOPS_NEVER ? MB_EARLY_NEVER
                                                              : MB_EARLY_NO;
    if (mb_recipe_is_set(r, "no_repeat_ngram_size"))
        rules->no_repeat_ngram = r->no_repeat_ngram_size;
    if (mb_recipe_is_set(r, "min_new_tokens"))
        rules->min_new_tokens = r->min_new_tokens;
    if (mb_recipe_is_set(r, "repetition_penalty"))
        rules->repetition_penalty = r->repetition_penalty;
}

mb_status mb_search_settings(const mb_recipe *recipe, const char *model, const mb_tokenizer *tok,
                             mb_rules *r, mb_search_options *o)
{
    const int32_t eos = mb_tokenizer_role(tok, MB_TOKEN_EOS);

    r->repetition_penalty = 1.0;
    r->forced_first = -1;
    *o = (mb_search_options){.beam = {.beams = 1, .length_penalty = 1.0},
                             .pick = {.sample = recipe->do_sample,
                                      .temperature = recipe->temperature,
                                      .top_k = recipe->top_k,
                                      .top_p = recipe->top_p,
                                      .repetition_penalty = 1.0, /* the rules' */
                                      .seed = (uint64_t)recipe->seed},
                             .max_new_tokens = recipe->max_new_tokens,
                             .answers = 1};
    MB_TRY(read_folder(model, "config.json", r, o));
    MB_TRY(read_folder(model, "generation_config.json", r, o));
    set_by_recipe(recipe, r, o);
    if (r->end.n == 0 && eos >= 0)
        MB_TRY(mb_ids_push(&r->end, eos));
    if (mb_language_token(tok, recipe->target_lang) >= 0)
        r->forced_first = mb_language_token(tok, recipe->target_lang);
    MB_REQUIRE(!recipe->do_sample || o->beam.beams == 1, MB_ENOTSUP,
               "num_beams %lld with do_sample: beams are not drawn; use num_beams=1",
               (long long)o->beam.beams);
    return MB_OK;
}

mb_status mb_source_batch(const mb_ids *const *rows, int64_t n, int64_t tokens, int64_t n_seq,
                          mb_batch **out)
{
    mb_batch *b;

    MB_TRY(mb_batch_new(tokens, n_seq, &b));
    for (int64_t i = 0; i < n; i++) {
        const int64_t len = (int64_t)rows[i]->n;

        b->start[i] = b->k_start[i] = (int32_t)b->used;
        b->len[i] = b->k_len[i] = (int32_t)len;
        for (int64_t t = 0; t < len; t++) {
            b->ids[b->used + t] = rows[i]->id[t];
            b->position[b->used + t] = (int32_t)t;
        }
        b->max_len = len > b->max_len ? len : b->max_len;
        b->used += len;
    }
    b->n_seq = n;
    *out = b;
    return MB_OK;
}

mb_status mb_search_open(const mb_recipe *r, mb_head head, int64_t positions, mb_bases *bases,
                         mb_device **device, mb_engine **e)
{
    const int threads = r->threads > 0 ? (int)r->threads : mb_default_threads();
    mb_session_options session = {.path = r->model_name_or_path,
                                  .adapter_path = r->adapter_path,
                                  .head = head,
                                  .quiet = true,
                                  .bases = bases,
                                  .engine = {.threads = threads, .max_positions = positions}};

    MB_TRY(mb_recipe_open_device(r, 0, threads, device));
    MB_TRY(mb_recipe_dtype(r, *device, false, &session.engine.dtype));
    session.engine.device = *device;
    return mb_session_open(&session, e, NULL);
}

mb_status mb_answer_decode(const mb_tokenizer *tok, const int32_t *id, int64_t n, char **text,
                           size_t *n_text)
{
    mb_ids known = {0};
    mb_status st = MB_OK;

    for (int64_t i = 0; i < n && st == MB_OK; i++)
        if (mb_tokenizer_id_to_token(tok, id[i]) != NULL)
            st = mb_ids_push(&known, id[i]);
    if (st == MB_OK)
        st = mb_tokenizer_decode(tok, known.id, known.n, true, text, n_text);
    mb_ids_release(&known);
    return st;
}
