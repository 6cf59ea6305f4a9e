/* recipes/tokenizers/spm.h - private: SentencePiece files (.model, .spm).
 *
 * Such a file is a protocol buffer, sentencepiece_model.proto's ModelProto: the pieces with scores
 * and types, how the model was trained, how text is normalised. Which token ids the pieces have in
 * a Hugging Face folder is up to the family: spm_json.c.
 */
#ifndef MB_RECIPES_TOKENIZERS_SPM_H
#define MB_RECIPES_TOKENIZERS_SPM_H

#include "recipes/tokenizers/model.h"

typedef struct tok_spm_piece {
    const char *text; /* borrowed from the file's bytes, not NUL-terminated */
    size_t n;
    float score;
    int type; /* TOK_PIECE_... */
} tok_spm_piece;

typedef struct tok_spm {
    tok_spm_piece *piece;
    size_t n, capacity;
    int64_t unknown; /* place of the unknown piece, -1: none */
    bool bpe;        /* else unigram */
    bool byte_fallback, suffix;
    bool prefix, shrink, escape; /* of NormalizerSpec */
    const char *charsmap, *surface;
    size_t n_charsmap, n_surface;
} tok_spm;

/* Reads bytes[0..n), which must stay. MB_EMODEL, MB_ENOTSUP (word and char models, a denormaliser)
 * begin with `where`. */
mb_status tok_spm_read(const char *bytes, size_t n, const char *where, tok_spm *out) MB_MUST_USE;
void tok_spm_release(tok_spm *m);

/* Adds a tokenizer.json of our own steps for a file in `dir` (NULL: the file alone). *name is the
 * name of the other file that decides the ids (vocab.json), or NULL. `target`: for what is
 * translated into. */
typedef struct tok_spm_source {
    const char *path;                       /* the .model or .spm file */
    const char *vocab, *tokenizer, *config; /* texts of vocab.json, tokenizer_config.json and */
    size_t n_vocab, n_tokenizer, n_config;  /* config.json beside it; NULL: not there */
    bool target;                            /* for the language that is translated into */
} tok_spm_source;
mb_status tok_spm_to_json(const tok_spm *m, const tok_spm_source *from, mb_bytes *out) MB_MUST_USE;

#endif
