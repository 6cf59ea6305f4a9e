/* recipes/data/transcript.h - what opens a transcript: <|startoftranscript|>, and for models of several
 * languages <|sw|><|transcribe|>, then <|notimestamps|>.
 */
#ifndef MB_RECIPES_DATA_TRANSCRIPT_H
#define MB_RECIPES_DATA_TRANSCRIPT_H

#include "recipes/tokenizers/tokenizer.h"

enum { MB_TRANSCRIPT_PROMPT = 4 };

/* `language`: a code such as sw; NULL: what generation_config.json says, as that of a tuned model does. `task`: transcribe or translate. MB_EARG: a
 * language the model does not know, none where it must be said, one where there is no choice.
 * MB_EMODEL: the tokenizer lacks these tokens. */
mb_status mb_transcript_prompt(const char *model_path, const mb_tokenizer *tok,
                               const char *language, const char *task,
                               int32_t ids[MB_TRANSCRIPT_PROMPT], int *n) MB_MUST_USE;

#endif
