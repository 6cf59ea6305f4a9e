/* recipes/export/sentence_files.h - the files by which sentence-transformers loads an embedder.
 *
 *     modules.json                  what a text goes through: Transformer, Pooling, perhaps Normalize
 *     1_Pooling/config.json         how hidden states become one vector
 *     sentence_bert_config.json     max_seq_length
 */
#ifndef MB_RECIPES_EXPORT_SENTENCE_FILES_H
#define MB_RECIPES_EXPORT_SENTENCE_FILES_H

#include <stdint.h>

#include "core/status.h"

/* Does the model in `path` make its vectors as we do: the mean over tokens, nothing after it but scaling
 * to length 1? A folder without these files does. MB_ENOTSUP names what it does instead. */
mb_status mb_sentence_files_check(const char *path) MB_MUST_USE;
/* Copies those of `base` (NULL: none) to `dir` and writes what is missing. */
mb_status mb_sentence_files_write(const char *dir, const char *base, int64_t width,
                                  int64_t max_length) MB_MUST_USE;

#endif
