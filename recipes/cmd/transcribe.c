/* recipes/cmd/transcribe.c - `mbuyu transcribe`: a speech model writes down what is said in files.
 *
 *     mbuyu transcribe MODEL SOUND... [language=CODE] [key=value ...] [--json]
 *
 * One line per file, or a JSON object:
 *
 *     {"audio": path, "seconds": 12.3, "text": ..., "pieces": [{"from": 0.0, "text": ...}, ...]}
 *
 * What is longer than the model hears at a time (30 s, or audio_seconds) is cut where the last fifth of
 * a piece is quietest; a word may be cut in two where nobody pauses.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "recipes/commands.h"
#include "recipes/config/model_path.h"
#include "recipes/data/collate.h"
#include "recipes/data/transcript.h"
#include "recipes/generate/open.h"
#include "recipes/generate/seq2seq.h"
#include "recipes/media/audio.h"
#include "recipes/media/mel.h"
#include "recipes/media/mel_config.h"
#include "recipes/tokenizers/bytes.h"

enum {
    AT_A_TIME = 4, /* pieces */
    MOST_SECONDS = 4 * 3600,
    QUIET = MB_AUDIO_RATE / 10, /* samples over which loudness is measured */
};

struct job {
    char **file; /* borrowed */
    int n_files;
    bool json;
    mb_frames frames;
    mb_mel *mel;
    mb_tokenizer *tok;
    mb_rules rules;
    mb_search_options o;
    mb_search *search;
    mb_batch *source;
    mb_search_prompt prompt[AT_A_TIME];
    int32_t start[MB_TRANSCRIPT_PROMPT];
    int n_start;
    /* of the file at hand */
    const char *path;
    float *x;
    int64_t n, *cut; /* samples; where pieces begin, and the end */
    int64_t n_pieces;
    int64_t first; /* piece of the run */
    mb_json_doc *doc;
    mb_json pieces;
    mb_bytes text;
};

/* ---- arguments ---------------------------------------------------------------------------- */

/* Takes the files and options out of argv: the first argument is a model or a recipe. */
static int take_files(struct job *j, int argc, char **argv)
{
    int n = 0, plain = 0;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            j->json = true;
        else if (i > 0 && argv[i][0] != '-' && argv[i][0] != '~' && strchr(argv[i], '=') == NULL &&
                 plain++ > 0)
            j->file[j->n_files++] = argv[i];
        else
            argv[n++] = argv[i];
    }
    return n;
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

static mb_status cut(struct job *j)
{
    const int64_t most = 2 * j->frames.tokens * MB_MEL_HOP, look = most / 5;

    mb_free(j->cut);
    j->cut = NULL;
    /* a piece has at least four fifths of `most` */
    MB_TRY(MB_NEW_ARRAY(&j->cut, j->n / (most - look) + 3));
    j->n_pieces = 0;
    while (j->n - j->cut[j->n_pieces] > most) {
        const int64_t end = j->cut[j->n_pieces] + most;

        j->cut[++j->n_pieces] = look > 2 * QUIET ? quietest(j->x, end - look, end) : end;
    }
    j->cut[++j->n_pieces] = j->n;
    return MB_OK;
}

/* Pieces [first, first + n) of the file as the source of a run. */
static void hear(struct job *j, int64_t n)
{
    mb_batch *b = j->source;

    b->used = b->n_seq = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = j->cut[j->first + i];

        mb_frames_append(&j->frames, b, 0);
        mb_mel_compute(j->mel, j->x + from, j->cut[j->first + i + 1] - from, 2 * j->frames.tokens,
                       mb_frames_rows(&j->frames, b, i));
    }
}

/* ---- what is said ------------------------------------------------------------------------- */

static mb_status add_piece(struct job *j, int64_t piece, const char *text)
{
    const size_t space = strspn(text, " ");
    size_t n = strlen(text + space);
    mb_json o;

    while (n > 0 && text[space + n - 1] == ' ')
        n--;
    if (n > 0 && j->text.n > 0)
        MB_TRY(mb_bytes_add(&j->text, " ", 1));
    MB_TRY(mb_bytes_add(&j->text, text + space, n));
    MB_TRY(mb_json_set_object(j->pieces, NULL, &o));
    MB_TRY(mb_json_set_real(o, "from", (double)j->cut[piece] / MB_AUDIO_RATE));
    return mb_json_set_string(o, "text", text + space);
}

static mb_status said(void *arg, int64_t number, int64_t rank, const int32_t *id, int64_t n,
                      double score)
{
    struct job *j = arg;
    char *text = NULL;
    mb_status st;

    (void)rank, (void)score;
    MB_TRY(mb_answer_decode(j->tok, id, n, &text, NULL));
    st = add_piece(j, j->first + number, text);
    mb_free(text);
    return st;
}

static mb_status print(struct job *j)
{
    const mb_json root = mb_json_root(j->doc);
    char *line = NULL;

    MB_TRY(mb_bytes_end(&j->text));
    if (!j->json) {
        mb_writer_print(j->text.p, j->text.n);
        mb_writer_print("\n", 1);
        return MB_OK;
    }
    MB_TRY(mb_json_set_string(root, "text", j->text.p));
    MB_TRY(mb_json_text(root, 0, &line, NULL));
    mb_writer_print(line, strlen(line));
    mb_writer_print("\n", 1);
    mb_free(line);
    return MB_OK;
}

static mb_status begin_file(struct job *j, const char *path)
{
    mb_json root;

    mb_free(j->x);
    j->x = NULL;
    mb_json_free(j->doc);
    j->doc = NULL;
    j->text.n = 0;
    j->path = path;
    MB_TRY(mb_audio_read(path, MOST_SECONDS, &j->x, &j->n));
    MB_TRY(cut(j));
    MB_TRY(mb_json_doc_new("a transcript", &j->doc));
    root = mb_json_root(j->doc);
    MB_TRY(mb_json_set_string(root, "audio", path));
    MB_TRY(mb_json_set_real(root, "seconds", (double)j->n / MB_AUDIO_RATE));
    MB_TRY(mb_json_set_string(root, "text", ""));
    return mb_json_set_array(root, "pieces", &j->pieces);
}

static mb_status write_down(struct job *j, const char *path)
{
    MB_TRY(begin_file(j, path));
    for (j->first = 0; j->first < j->n_pieces; j->first += AT_A_TIME) {
        const int64_t left = j->n_pieces - j->first, n = left < AT_A_TIME ? left : AT_A_TIME;

        hear(j, n);
        MB_TRY(mb_search_run(j->search, j->source, j->prompt, n, &j->rules, said, j));
    }
    return print(j);
}

/* ---- the model ---------------------------------------------------------------------------- */

static mb_status find_config(mb_recipe *r, mb_model_config *c)
{
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_recipe_follow_adapter(r));
    MB_TRY(mb_recipe_check_model(r));
    MB_TRY(mb_model_config_doc(r->model_name_or_path, &doc));
    st = mb_model_config_parse(doc, MB_HEAD_SEQ2SEQ, c);
    mb_json_free(doc);
    MB_TRY(st);
    MB_REQUIRE(c->mel_bins > 0, MB_EMODEL, "%s hears nothing: transcribe wants a Whisper",
               r->model_name_or_path);
    return MB_OK;
}

static mb_status make_search(struct job *j, const mb_recipe *r, const mb_model_config *c,
                             mb_engine *e)
{
    const int64_t wanted =
        mb_recipe_is_set(r, "max_new_tokens") ? j->n_start + r->max_new_tokens : c->positions;

    j->o.prompts = AT_A_TIME;
    j->o.prompt_rows = AT_A_TIME * j->n_start;
    j->o.capacity = wanted < c->positions ? wanted : c->positions;
    j->o.max_new_tokens = j->o.capacity;
    for (int i = 0; i < AT_A_TIME; i++)
        j->prompt[i] = (mb_search_prompt){.id = j->start, .n = j->n_start};
    MB_TRY(mb_batch_new(AT_A_TIME * j->frames.tokens, AT_A_TIME, &j->source));
    MB_TRY(mb_frames_reserve(&j->frames, j->source));
    j->source->max_len = j->frames.tokens;
    j->source->n_seq = AT_A_TIME;
    return mb_search_new(e, &j->o, j->source, &j->search);
}

static mb_status transcribe(struct job *j, mb_recipe *r)
{
    const char *model;
    mb_device *device = NULL;
    mb_engine *e = NULL;
    mb_model_config c;
    mb_status st;

    MB_REQUIRE(j->n_files > 0, MB_EARG,
               "nothing to listen to: mbuyu transcribe MODEL SOUND... wants sound files");
    MB_TRY_GOTO(find_config(r, &c), st, done);
    model = r->model_name_or_path;
    MB_TRY_GOTO(mb_cpu_init(), st, done);
    MB_TRY_GOTO(mb_mel_config_check(model, c.mel_bins), st, done);
    MB_TRY_GOTO(mb_frames_for(&c, r->audio_seconds, &j->frames), st, done);
    MB_TRY_GOTO(mb_tokenizer_load(model, &j->tok), st, done);
    MB_TRY_GOTO(
        mb_transcript_prompt(model, j->tok, r->language, r->speech_task, j->start, &j->n_start), st,
        done);
    MB_TRY_GOTO(mb_search_settings(r, model, j->tok, &j->rules, &j->o), st, done);
    MB_TRY_GOTO(mb_mel_new(j->frames.bins, &j->mel), st, done);
    MB_TRY_GOTO(mb_search_open(r, MB_HEAD_SEQ2SEQ, 0, &device, &e), st, done);
    MB_TRY_GOTO(make_search(j, r, &c, e), st, done);
    for (int i = 0; i < j->n_files; i++)
        MB_TRY_GOTO(write_down(j, j->file[i]), st, done);
done:
    mb_search_free(j->search);
    mb_engine_free(e);
    mb_device_close(device);
    return st;
}

static void release(struct job *j)
{
    mb_batch_free(j->source);
    mb_rules_release(&j->rules);
    mb_mel_free(j->mel);
    mb_tokenizer_free(j->tok);
    mb_json_free(j->doc);
    mb_bytes_release(&j->text);
    mb_free(j->x);
    mb_free(j->cut);
    mb_free(j->file);
}

mb_status mb_cmd_transcribe(int argc, char **argv)
{
    struct job j = {0};
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&j.file, argc));
    argc = take_files(&j, argc, argv);
    MB_TRY_GOTO(mb_recipe_load(argc, argv, &r), st, done);
    MB_TRY_GOTO(mb_recipe_require(r, "transcribe", "model_name_or_path", NULL), st, done);
    st = transcribe(&j, r);
done:
    release(&j);
    mb_recipe_free(r);
    return st;
}
