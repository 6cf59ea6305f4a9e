/* recipes/generate/transcriber.c - see recipes/generate/transcriber.h. */
#include "recipes/generate/transcriber.h"

#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "recipes/data/collate.h"
#include "recipes/data/transcript.h"
#include "recipes/generate/seq2seq.h"
#include "recipes/media/audio.h"
#include "recipes/media/mel.h"
#include "recipes/media/mel_config.h"

enum {
    AT_A_TIME = MB_TRANSCRIBER_AT_A_TIME,
    QUIET = MB_AUDIO_RATE / 10, /* samples over which loudness is measured */
};

struct mb_transcriber {
    char *model, *task;
    mb_frames frames;
    mb_mel *mel;
    mb_tokenizer *tok;
    mb_rules rules;
    mb_search_options o;
    mb_search *search;
    mb_device *device;
    mb_engine *engine;
    mb_batch *source;
    mb_search_prompt prompt[AT_A_TIME];
    int32_t start[MB_TRANSCRIPT_PROMPT]; /* of the recipe's language */
    int n_start;
};

/* ---- the model ---------------------------------------------------------------------------- */

static mb_status find_config(const mb_recipe *r, mb_model_config *c)
{
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_model_config_doc(r->model_name_or_path, &doc));
    st = mb_model_config_parse(doc, MB_HEAD_SEQ2SEQ, c);
    mb_json_free(doc);
    MB_TRY(st);
    MB_REQUIRE(c->mel_bins > 0, MB_EMODEL, "%s hears nothing: transcribe wants a Whisper",
               r->model_name_or_path);
    return MB_OK;
}

static mb_status make_search(mb_transcriber *t, const mb_recipe *r, const mb_model_config *c)
{
    const int64_t wanted =
        mb_recipe_is_set(r, "max_new_tokens") ? t->n_start + r->max_new_tokens : c->positions;

    t->o.prompts = AT_A_TIME;
    t->o.prompt_rows = AT_A_TIME * t->n_start;
    t->o.capacity = wanted < c->positions ? wanted : c->positions;
    t->o.max_new_tokens = t->o.capacity;
    MB_TRY(mb_batch_new(AT_A_TIME * t->frames.tokens, AT_A_TIME, &t->source));
    MB_TRY(mb_frames_reserve(&t->frames, t->source));
    t->source->max_len = t->frames.tokens;
    t->source->n_seq = AT_A_TIME;
    return mb_search_new(t->engine, &t->o, t->source, &t->search);
}

static mb_status open_all(mb_transcriber *t, const mb_recipe *r, mb_bases *bases)
{
    const char *model = r->model_name_or_path;
    mb_model_config c;

    MB_TRY(find_config(r, &c));
    MB_TRY(mb_strdup(model, &t->model));
    MB_TRY(mb_strdup(r->speech_task, &t->task));
    MB_TRY(mb_cpu_init());
    MB_TRY(mb_mel_config_check(model, c.mel_bins));
    MB_TRY(mb_frames_for(&c, r->audio_seconds, &t->frames));
    MB_TRY(mb_tokenizer_load(model, &t->tok));
    MB_TRY(mb_transcript_prompt(model, t->tok, r->language, r->speech_task, t->start, &t->n_start));
    MB_TRY(mb_search_settings(r, model, t->tok, &t->rules, &t->o));
    MB_TRY(mb_mel_new(t->frames.bins, &t->mel));
    MB_TRY(mb_search_open(r, MB_HEAD_SEQ2SEQ, 0, bases, &t->device, &t->engine));
    return make_search(t, r, &c);
}

mb_status mb_transcriber_open(const mb_recipe *r, mb_bases *bases, mb_transcriber **out)
{
    mb_transcriber *t;
    mb_status st;

    MB_TRY(MB_NEW(&t));
    st = open_all(t, r, bases);
    if (st != MB_OK) {
        mb_transcriber_close(t);
        return st;
    }
    *out = t;
    return MB_OK;
}

void mb_transcriber_close(mb_transcriber *t)
{
    if (t == NULL)
        return;
    mb_search_free(t->search);
    mb_engine_free(t->engine);
    mb_device_close(t->device);
    mb_batch_free(t->source);
    mb_rules_release(&t->rules);
    mb_mel_free(t->mel);
    mb_tokenizer_free(t->tok);
    mb_free(t->model);
    mb_free(t->task);
    mb_free(t);
}

/* ---- pieces ------------------------------------------------------------------------------- */

/* Where to cut between from and to: in the middle of the quietest tenth of a second. */
static int64_t quietest(const float *x, int64_t from, int64_t to)
{
    double energy = 0.0, least;
    int64_t at = from;

    for (int64_t i = from; i < from + QUIET; i++)
        energy += (double)x[i] * (double)x[i];
    least = energy;
    for (int64_t i = from; i + QUIET < to; i++) {
        energy += (double)x[i + QUIET] * (double)x[i + QUIET] - (double)x[i] * (double)x[i];
        if (energy < least) {
            least = energy;
            at = i + 1;
        }
    }
    return at + QUIET / 2;
}

static mb_status cut(const mb_transcriber *t, mb_heard *h)
{
    const int64_t most = 2 * t->frames.tokens * MB_MEL_HOP, look = most / 5;

    /* a piece has at least four fifths of `most` */
    MB_TRY(MB_NEW_ARRAY(&h->cut, h->n / (most - look) + 3));
    h->n_pieces = 0;
    while (h->n - h->cut[h->n_pieces] > most) {
        const int64_t end = h->cut[h->n_pieces] + most;

        h->cut[++h->n_pieces] = look > 2 * QUIET ? quietest(h->x, end - look, end) : end;
    }
    h->cut[++h->n_pieces] = h->n;
    return MB_OK;
}

mb_status mb_transcriber_listen(const mb_transcriber *t, const char *path, double seconds,
                                mb_heard *out)
{
    *out = (mb_heard){0};
    MB_TRY(mb_audio_read(path, seconds, &out->x, &out->n));
    return cut(t, out);
}

void mb_heard_release(mb_heard *h)
{
    mb_free(h->x);
    mb_free(h->cut);
    *h = (mb_heard){0};
}

/* ---- what is said ------------------------------------------------------------------------- */

struct writing {
    mb_transcriber *t;
    int64_t first;
    mb_transcriber_fn fn;
    void *arg;
};

static mb_status said(void *arg, int64_t number, int64_t rank, const int32_t *id, int64_t n,
                      double score)
{
    struct writing *w = arg;
    char *text = NULL;
    size_t space, end;
    mb_status st;

    (void)rank, (void)score;
    MB_TRY(mb_answer_decode(w->t->tok, id, n, &text, NULL));
    space = strspn(text, " ");
    for (end = strlen(text); end > space && text[end - 1] == ' '; end--)
        ;
    text[end] = '\0';
    st = w->fn(w->arg, w->first + number, text + space, id, n);
    mb_free(text);
    return st;
}

/* Pieces [first, first + n) as the source of a run. */
static void hear(mb_transcriber *t, const mb_heard *h, int64_t first, int64_t n)
{
    mb_batch *b = t->source;

    b->used = b->n_seq = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = h->cut[first + i];

        mb_frames_append(&t->frames, b, 0);
        mb_mel_compute(t->mel, h->x + from, h->cut[first + i + 1] - from, 2 * t->frames.tokens,
                       mb_frames_rows(&t->frames, b, i));
    }
}

void mb_transcriber_between(mb_transcriber *t, void (*fn)(void *arg), void *arg)
{
    mb_search_between(t->search, fn, arg);
}

mb_status mb_transcriber_write(mb_transcriber *t, const mb_heard *h, int64_t first, int64_t most,
                               const char *language, mb_transcriber_fn fn, void *arg)
{
    const int64_t left = h->n_pieces - first, n = left < most ? left : most;
    struct writing w = {.t = t, .first = first, .fn = fn, .arg = arg};
    int32_t start[MB_TRANSCRIPT_PROMPT];
    int n_start = t->n_start;

    MB_REQUIRE(most >= 1 && most <= AT_A_TIME, MB_EBUG, "%lld pieces at a time", (long long)most);
    memcpy(start, t->start, sizeof start);
    if (language != NULL)
        MB_TRY(mb_transcript_prompt(t->model, t->tok, language, t->task, start, &n_start));
    MB_REQUIRE(n_start <= t->n_start, MB_EARG, "%s is told no language", t->model);
    for (int64_t i = 0; i < n; i++)
        t->prompt[i] = (mb_search_prompt){.id = start, .n = n_start};
    hear(t, h, first, n);
    return mb_search_run(t->search, t->source, t->prompt, n, &t->rules, said, &w);
}
