/* recipes/tokenizers/pieces.h - private: the pieces of the two models SentencePiece has.
 *
 * "vocab": [[piece, score], ...] as tokenizer.json has it, where the place is the id; or, with
 * "sentencepiece": true, what spm.c writes: [piece, score, type, id], the type as in its file.
 */
#ifndef MB_RECIPES_TOKENIZERS_PIECES_H
#define MB_RECIPES_TOKENIZERS_PIECES_H

#include "recipes/tokenizers/model.h"

typedef struct tok_piece {
    const char *text; /* borrowed from the JSON document: while loading only */
    uint32_t n;
    int32_t id;
    double score;
    uint8_t type;
} tok_piece;

typedef struct tok_piece_list {
    tok_piece *at;
    size_t n;
    const mb_vocab *vocab;
    int32_t of_byte[256];
    int32_t unknown_id; /* -1: none */
    mb_bytes unknown;
    bool byte_fallback;
    bool sentencepiece; /* the library's own rules, not those of tokenizer.json */
    bool by_name;       /* text that is no piece can be a token of the folder's vocab.json */
} tok_piece_list;

mb_status tok_piece_list_read(mb_json model, mb_vocab *vocab, tok_piece_list *out) MB_MUST_USE;
void tok_piece_list_release(tok_piece_list *l);

/* The ids of text[0..n) that no piece covers: a token of that name, bytes, or the unknown token. */
mb_status tok_piece_unknown(const tok_piece_list *l, const char *text, size_t n,
                            const uint8_t *barred, mb_ids *out) MB_MUST_USE;

#endif
