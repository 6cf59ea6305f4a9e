/* recipes/data/transcript.c - see recipes/data/transcript.h. */
#include "recipes/data/transcript.h"

#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/path.h"

/* What the folder's generation_config.json says. */
struct said {
    bool several; /* languages; without a word as OpenAI tells its models apart, by vocabulary */
    char language[16]; /* the one it was tuned for; "": none is named */
};

/* "sw" or "<|sw|>" */
static mb_status read_language(mb_json root, char *out, size_t size)
{
    const char *v;

    MB_TRY(mb_json_get_string(root, "language", "", &v));
    v += strncmp(v, "<|", 2) == 0 ? 2 : 0;
    snprintf(out, size, "%.*s", (int)strcspn(v, "|"), v);
    return MB_OK;
}

static mb_status read_config(const char *model_path, const mb_tokenizer *tok, struct said *out)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_status st;

    *out = (struct said){.several = mb_tokenizer_vocab_size(tok) >= 51865};
    MB_TRY(mb_path_join(path, sizeof path, model_path, "generation_config.json"));
    if (!mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_EMODEL, 1 << 20, &doc));
    st = mb_json_get_bool(mb_json_root(doc), "is_multilingual", out->several, &out->several);
    if (st == MB_OK)
        st = read_language(mb_json_root(doc), out->language, sizeof out->language);
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
    struct said said;

    *n = 0;
    MB_TRY(read_config(model_path, tok, &said));
    if (said.several && language == NULL && said.language[0] != '\0')
        language = said.language;
    MB_TRY(need_token(tok, model_path, "startoftranscript", &ids[(*n)++]));
    MB_REQUIRE(said.several || language == NULL, MB_EARG,
               "language is '%s', and %s knows one language only", language, model_path);
    MB_REQUIRE(!said.several || language != NULL, MB_EARG,
               "%s knows several languages: language must say which one is spoken, e.g. sw",
               model_path);
    if (said.several) {
        MB_TRY(language_token(tok, model_path, language, &ids[(*n)++]));
        MB_TRY(need_token(tok, model_path, task, &ids[(*n)++]));
    }
    return need_token(tok, model_path, "notimestamps", &ids[(*n)++]);
}
