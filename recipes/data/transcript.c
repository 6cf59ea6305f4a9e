/* recipes/data/transcript.c - see recipes/data/transcript.h. */
#include "recipes/data/transcript.h"

#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/path.h"

/* As generation_config.json says; without it as OpenAI tells its models apart, by their vocabulary. */
static mb_status is_multilingual(const char *model_path, const mb_tokenizer *tok, bool *out)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_status st;

    *out = mb_tokenizer_vocab_size(tok) >= 51865;
    MB_TRY(mb_path_join(path, sizeof path, model_path, "generation_config.json"));
    if (!mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_EMODEL, 1 << 20, &doc));
    st = mb_json_get_bool(mb_json_root(doc), "is_multilingual", *out, out);
    mb_json_free(doc);
    return st;
}

static mb_status need_token(const mb_tokenizer *tok, const char *model_path, const char *name,
                            int32_t *out)
{
    char token[64];

    snprintf(token, sizeof token, "<|%s|>", name);
    *out = mb_tokenizer_token_to_id(tok, token, strlen(token));
    MB_REQUIRE(*out >= 0, MB_EMODEL, "%s: the tokenizer has no %s, which opens transcripts",
               model_path, token);
    return MB_OK;
}

static mb_status language_token(const mb_tokenizer *tok, const char *model_path,
                                const char *language, int32_t *out)
{
    const size_t n = strlen(language);
    char token[64];

    snprintf(token, sizeof token, "<|%s|>", language);
    *out = n >= 2 && n <= 3 ? mb_tokenizer_token_to_id(tok, token, strlen(token)) : -1;
    MB_REQUIRE(*out >= 0, MB_EARG,
               "language is '%s', which is no language of %s; expected a code such as sw, of which "
               "the tokenizer has a token <|sw|>",
               language, model_path);
    return MB_OK;
}

mb_status mb_transcript_prompt(const char *model_path, const mb_tokenizer *tok,
                               const char *language, const char *task,
                               int32_t ids[MB_TRANSCRIPT_PROMPT], int *n)
{
    bool several;

    *n = 0;
    MB_TRY(is_multilingual(model_path, tok, &several));
    MB_TRY(need_token(tok, model_path, "startoftranscript", &ids[(*n)++]));
    MB_REQUIRE(several || language == NULL, MB_EARG,
               "language is '%s', and %s knows one language only", language, model_path);
    MB_REQUIRE(!several || language != NULL, MB_EARG,
               "%s knows several languages: language must say which one is spoken, e.g. sw",
               model_path);
    if (several) {
        MB_TRY(language_token(tok, model_path, language, &ids[(*n)++]));
        MB_TRY(need_token(tok, model_path, task, &ids[(*n)++]));
    }
    return need_token(tok, model_path, "notimestamps", &ids[(*n)++]);
}
