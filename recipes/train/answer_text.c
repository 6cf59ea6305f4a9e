/* recipes/train/answer_text.c - texts: what an encoder-decoder model writes for the sources of a
 * micro-batch, texts or sounds, by the search that the recipe and the model's folder ask for.
 */
#include "core/alloc.h"
#include "recipes/data/collate.h"
#include "recipes/data/transcript.h"
#include "recipes/generate/seq2seq.h"
#include "recipes/train/answers.h"

typedef struct mb_text_writer mb_text_writer;
struct mb_text_writer {
    mb_rules rules;
    mb_search_options o;
    mb_search *search;
    mb_search_prompt *prompt; /* (max_seq) all begin alike */
    int32_t start[MB_TRANSCRIPT_PROMPT];
    int n_start;
};

struct saying {
    mb_job *j;
    const mb_micro *micro;
    mb_predictions *out;
};

static bool hears(const mb_job *j)
{
    return j->data->frames.tokens > 0;
}

static const mb_tokenizer *writes(const mb_job *j)
{
    return hears(j) ? j->data->tokenizer : j->data->target_tokenizer;
}

/* What every answer begins with. */
static mb_status find_start(const mb_job *j, mb_text_writer *w)
{
    const mb_recipe *r = j->recipe;

    if (hears(j))
        return mb_transcript_prompt(r->model_name_or_path, j->data->tokenizer, r->language,
                                    r->speech_task, w->start, &w->n_start);
    w->start[0] = (int32_t)j->engine->model->config.decoder_start_id;
    w->n_start = 1;
    return MB_OK;
}

/* Sources as the largest of an evaluation are. */
static void bound_source(const mb_job *j)
{
    const mb_data *d = j->data;
    mb_batch *source = d->source;

    if (hears(j))
        return; /* all are as large */
    source->tokens = mb_side_class(d->eval_collate.source_largest, d->eval_collate.source_largest);
    source->max_len =
        j->recipe->max_length < source->tokens ? j->recipe->max_length : source->tokens;
}

mb_status mb_answer_text_open(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    const mb_data *d = j->data;
    const int64_t positions = j->engine->model->config.positions;
    mb_text_writer *w;

    MB_REQUIRE(r->zero_stage < 3, MB_ENOTSUP,
               "predict_with_generate: answers need the whole model on every rank; use zero_stage "
               "2 or below");
    MB_TRY(MB_NEW(&w));
    j->writer = w;
    MB_TRY(mb_search_settings(r, r->model_name_or_path, writes(j), &w->rules, &w->o));
    MB_TRY(find_start(j, w));
    w->o.prompts = d->batch->max_seq;
    w->o.prompt_rows = w->o.prompts * w->n_start;
    w->o.max_new_tokens = hears(j) ? r->max_length : r->max_target_length;
    w->o.capacity = w->n_start + w->o.max_new_tokens;
    if (w->o.capacity > positions)
        w->o.capacity = positions;
    MB_TRY(MB_NEW_ARRAY(&w->prompt, w->o.prompts));
    for (int64_t i = 0; i < w->o.prompts; i++)
        w->prompt[i] = (mb_search_prompt){.id = w->start, .n = w->n_start};
    bound_source(j);
    return mb_search_new(j->engine, &w->o, d->source, &w->search);
}

void mb_answer_text_close(mb_job *j)
{
    mb_text_writer *w = j->writer;

    if (w == NULL)
        return;
    mb_search_free(w->search);
    mb_rules_release(&w->rules);
    mb_free(w->prompt);
    mb_free(w);
    j->writer = NULL;
}

static mb_status set_text(const mb_tokenizer *t, const int32_t *id, int64_t n, mb_json object,
                          const char *key)
{
    char *text = NULL;
    mb_status st;

    MB_TRY(mb_answer_decode(t, id, n, &text, NULL));
    st = mb_json_set_string(object, key, text);
    mb_free(text);
    return st;
}

static mb_status say(void *arg, int64_t number, int64_t rank, const int32_t *id, int64_t n,
                     double score)
{
    const struct saying *s = arg;
    const mb_store *store = mb_answer_store(s->j);
    const mb_tokenizer *t = writes(s->j);
    const int64_t row = s->micro->row[number], from = store->offset[row];
    const int64_t sources = hears(s->j) ? 0 : mb_store_source_tokens(store, row);
    mb_json object;

    (void)rank, (void)score;
    MB_TRY(mb_predictions_row(s->out, row, &object));
    if (hears(s->j))
        MB_TRY(mb_json_set_string(object, "audio", mb_store_media(store, row)));
    else
        MB_TRY(set_text(s->j->data->tokenizer, store->ids + from, sources, object, "source"));
    MB_TRY(set_text(t, id, n, object, "prediction"));
    MB_TRY(set_text(t, store->ids + from + sources + 1, store->offset[row + 1] - from - sources - 1,
                    object, "reference"));
    return mb_answer_group(s->j, row, object);
}

mb_status mb_answer_text(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    struct saying s = {j, micro, out};
    mb_text_writer *w = j->writer;

    return mb_search_run(w->search, j->data->source, w->prompt, micro->n_rows, &w->rules, say, &s);
}
