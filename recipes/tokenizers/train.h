/* recipes/tokenizers/train.h - learning a tokenizer from local text.
 *
 * Text files are read line by line and cut into words as the new tokenizer will cut them; words are
 * counted, and everything after that works on the counts, so memory is bounded by the number of
 * distinct words, not by the size of the text. Results do not depend on the number of threads.
 *
 *     bpe        byte-level BPE, as GPT-2 (lines keep their ends)
 *     llama      BPE over characters with U+2581 for spaces and tokens for the bytes of the others
 *     unigram    SentencePiece's unigram (T5, XLM-R): EM over a large set of pieces that is pruned
 *
 * The first two give the merges that the trainers of the Hugging Face library give.
 */
#ifndef MB_RECIPES_TOKENIZERS_TRAIN_H
#define MB_RECIPES_TOKENIZERS_TRAIN_H

#include "recipes/tokenizers/tokenizer.h"

typedef struct mb_tok_training {
    const char *kind;           /* "bpe", "llama" or "unigram" */
    int64_t vocab_size;         /* tokens in all, special ones and bytes included */
    int64_t min_frequency;      /* BPE: pairs seen less often are not merged */
    double coverage;            /* llama, unigram: share of the characters that get a token */
    int64_t max_words;          /* distinct words kept; the rarest go when there are more */
    const char *const *special; /* further special tokens */
    size_t n_special;
} mb_tok_training;

/* What was read and made. */
typedef struct mb_tok_report {
    int64_t lines, bytes, words, distinct; /* words: with repetitions */
    int64_t dropped;                       /* words dropped to keep within max_words */
    int64_t too_long;                      /* words of more than 64 KiB, which are left out */
    int64_t vocab_size;
} mb_tok_report;

/* Learns from the files and writes tokenizer.json and tokenizer_config.json into `dir`. MB_EDATA: a
 * file that cannot be read or is not UTF-8, by line. MB_EARG: settings that cannot be met. */
mb_status mb_tokenizer_train(const mb_tok_training *how, const char *const *files, size_t n_files,
                             const char *dir, mb_tok_report *report) MB_MUST_USE;

#endif
