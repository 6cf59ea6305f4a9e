/* recipes/tokenizers/learn.h - private: the two learners behind train.h. */
#ifndef MB_RECIPES_TOKENIZERS_LEARN_H
#define MB_RECIPES_TOKENIZERS_LEARN_H

#include "recipes/tokenizers/words.h"

typedef struct tok_merge {
    int32_t left, right, id;
    int64_t count; /* of the pair when it was merged */
} tok_merge;

typedef struct tok_merges {
    tok_merge *at;
    size_t n, capacity;
} tok_merges;

typedef struct tok_bpe_input {
    const tok_words *words;
    int64_t vocab_size, min_frequency;
    /* Appends the ids a word begins as, of tokens that are there; -1 is joined with nothing. */
    mb_status (*spell)(void *with, const char *p, size_t n, mb_ids *out);
    /* NULL: yes. May a pair whose text is this token already be joined to it? */
    bool (*may_join)(void *with, int32_t id);
    void *with;
    const char *prefix; /* dropped from a right half: WordPiece's "##"; NULL: nothing */
} tok_bpe_input;

/* Learns merges; their tokens are added to `vocab`, which has the tokens of the start, until its
 * ids reach vocab_size or no pair is left. */
mb_status tok_learn_bpe(const tok_bpe_input *in, mb_vocab *vocab, tok_merges *out) MB_MUST_USE;

typedef struct tok_scored {
    const char *p; /* in `text` */
    uint32_t n;
    double score; /* log-probability */
} tok_scored;

typedef struct tok_scored_list {
    tok_scored *at;
    size_t n;
    mb_bytes text;
} tok_scored_list;

/* The `size` best pieces of a unigram model that are not taken already, best first. Every character of
 * `chars` (place = id) is one of them. */
mb_status tok_learn_unigram(const tok_words *words, const mb_vocab *chars, const mb_vocab *taken,
                            size_t size, tok_scored_list *out) MB_MUST_USE;
void tok_scored_release(tok_scored_list *l);

#endif
