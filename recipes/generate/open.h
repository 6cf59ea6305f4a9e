/* recipes/generate/open.h - a recipe's model, made ready to write text.
 *
 *     mb_writer w = {0};
 *     MB_TRY_GOTO(mb_writer_open(r, &w), st, done);              tokenizer, format, limits: no weights
 *     MB_TRY_GOTO(mb_writer_encode(&w, record, &ids), st, done);
 *     MB_TRY_GOTO(mb_writer_load(&w, n_seq, capacity), st, done);
 *     mb_generate_options o = mb_writer_options(&w);
 *     MB_TRY_GOTO(mb_generator_run(w.generator, ...), st, done);
 * done:
 *     mb_writer_close(&w);
 *
 * Prompts are rendered by what renders training rows (recipes/data/render.h): what a model was
 * trained on and what it is asked with cannot drift apart.
 */
#ifndef MB_RECIPES_GENERATE_OPEN_H
#define MB_RECIPES_GENERATE_OPEN_H

#include "recipes/config/recipe.h"
#include "recipes/data/render.h"
#include "recipes/generate/generate.h"

typedef struct mb_writer {
    const mb_recipe *recipe; /* borrowed */
    const char *model, *adapter;
    mb_bases *bases; /* may be set before weights are read: mb_session_options */
    mb_tokenizer *tokenizer;
    mb_renderer *renderer;
    int64_t positions; /* the model's */
    mb_ids end;        /* tokens that end an answer */
    mb_device *device;
    mb_engine *engine; /* after mb_writer_load */
    mb_generator *generator;
} mb_writer;

/* Needs model_name_or_path, which may also be a PEFT adapter folder that names its base: *r then says
 * both (recipes/config/model_path.h). The caller
 * closes *w also after a failure; it must be all zero before. */
mb_status mb_writer_open(mb_recipe *r, mb_writer *w) MB_MUST_USE;
/* Reads the weights and takes memory for n_seq answers of at most `capacity` tokens, prompt
 * included. */
mb_status mb_writer_load(mb_writer *w, int64_t n_seq, int64_t capacity) MB_MUST_USE;
/* Only the weights, for others who make answers of them (recipes/serve/scheduler.h). */
mb_status mb_writer_load_engine(mb_writer *w, int64_t capacity) MB_MUST_USE;
void mb_writer_close(mb_writer *w);

/* The ids of a prompt, replacing what is in *out: a text is continued as it is; a conversation is
 * rendered up to where the assistant answers. Other kinds of records are MB_EDATA. */
mb_status mb_writer_encode(const mb_writer *w, const mb_record *rec, mb_tokens *out) MB_MUST_USE;
/* What the recipe says about answers; the callbacks are the caller's to set. Borrows from both. */
mb_generate_options mb_writer_options(const mb_writer *w);
/* Room that the recipe allows: max_length where it was given, else the model's positions but at most
 * `otherwise`. */
int64_t mb_writer_context(const mb_writer *w, int64_t otherwise);

/* Text to standard output, at once. False when it did not arrive: a closed pipe is not a failure,
 * every other reason is left for main to report. */
bool mb_writer_print(const char *text, size_t n);
/* One line about the last run on stderr: tokens and tokens per second. */
void mb_writer_print_speed(const mb_writer *w);

#endif
