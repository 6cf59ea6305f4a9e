/* recipes/generate/transcriber.h - a speech model writes down what is said in a sound file.
 *
 *     mb_transcriber *t;
 *     MB_TRY(mb_transcriber_open(recipe, NULL, &t));
 *     MB_TRY(mb_transcriber_listen(t, path, seconds, &x));    // cuts the sound into pieces
 *     MB_TRY(mb_transcriber_write(t, &x, from, n, NULL, on_piece, arg));       // some pieces at a time
 *
 * What is longer than the model hears at a time (30 s, or audio_seconds) is cut where the last fifth of a
 * piece is quietest; a word may be cut in two where nobody pauses.
 */
#ifndef MB_RECIPES_GENERATE_TRANSCRIBER_H
#define MB_RECIPES_GENERATE_TRANSCRIBER_H

#include "recipes/config/recipe.h"
#include "recipes/tokenizers/tokenizer.h"
#include "recipes/train/bases.h"

typedef struct mb_transcriber mb_transcriber;

enum { MB_TRANSCRIBER_AT_A_TIME = 4 /* pieces */ };

/* A recipe whose model is there (mb_recipe_check_model); weights from `bases` (may be NULL) where they can be.
 * MB_EMODEL: it hears nothing. The recipe is borrowed while it opens. */
mb_status mb_transcriber_open(const mb_recipe *r, mb_bases *bases,
                              mb_transcriber **out) MB_MUST_USE;
void mb_transcriber_close(mb_transcriber *t); /* NULL is allowed */

/* A sound and its pieces: piece i is samples [cut[i], cut[i + 1]) of x at MB_AUDIO_RATE. */
typedef struct mb_heard {
    float *x;
    int64_t n, *cut, n_pieces;
} mb_heard;

/* MB_EDATA: not a sound file, or longer than `seconds`. The caller releases *out. */
mb_status mb_transcriber_listen(const mb_transcriber *t, const char *path, double seconds,
                                mb_heard *out) MB_MUST_USE;
void mb_heard_release(mb_heard *h);

/* The text of a piece without blanks around it, and its tokens; borrowed until it returns. */
typedef mb_status (*mb_transcriber_fn)(void *arg, int64_t piece, const char *text,
                                       const int32_t *id, int64_t n);

/* As mb_search_between. */
void mb_transcriber_between(mb_transcriber *t, void (*fn)(void *arg), void *arg);

/* Writes down at most `most` pieces (1 to MB_TRANSCRIBER_AT_A_TIME) from `first`, in the language `language` (a code; NULL: the
 * recipe's, or the model's own). MB_EARG: a language the model does not know. */
mb_status mb_transcriber_write(mb_transcriber *t, const mb_heard *h, int64_t first, int64_t most,
                               const char *language, mb_transcriber_fn fn, void *arg) MB_MUST_USE;

#endif
