/* recipes/config/dataset_files.h - which files of a data set's folder a split is.
 *
 * As the datasets library has it: README.md may say so in its front matter,
 *
 *     configs:
 *     - config_name: default
 *       data_files:
 *       - {split: train, path: data/train-*}       a pattern, or a list of them; ** for folders, too
 *
 * of which the only config counts, or the one that is called default or has `default: true`. Where it says
 * nothing, files train-00000-of-00002.parquet and its like are shards, in the folder or in its folder data.
 * Of shards that a pattern or a split takes none may be missing, and all must be of one set.
 */
#ifndef MB_RECIPES_CONFIG_DATASET_FILES_H
#define MB_RECIPES_CONFIG_DATASET_FILES_H

#include "core/arena.h"

enum { MB_DATASET_FILES_MAX = 4096 };

/* Does the name end like a data file (recipes/data/rowfile.h)? */
bool mb_dataset_is_file(const char *name);
/* The file that names a folder's pictures or sounds: metadata.jsonl, .csv or .tsv, the first that is there.
 * False: none. */
bool mb_dataset_metadata(const char *dir, char *out, size_t size);
/* 3 of train-00001-of-00003.parquet; 0: it is no shard's name. */
int64_t mb_dataset_shards(const char *name);
/* "train" of "train[:10] + train[20:]"; of NULL, too. */
void mb_dataset_split_name(const char *split, char *out, size_t size);
/* The files of a split ("train", or "train[:10]") in order, from the arena; *n 0: neither says which they
 * are. MB_EDATA: a config or a pattern of README.md that cannot be followed, shards that are missing or of
 * several sets, more files than MB_DATASET_FILES_MAX. */
mb_status mb_dataset_files(mb_arena *a, const char *dir, const char *split, const char ***file,
                           int64_t *n) MB_MUST_USE;

#endif
