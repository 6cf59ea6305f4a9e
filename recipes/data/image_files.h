/* recipes/data/image_files.h - folders of pictures as the rows of a store.
 *
 *     birds/train/heron/001.jpg     a folder per class; split: train names the folder above, where
 *     birds/test/egret/7.png        there is one
 *     birds/train/metadata.csv      columns file_name and label; so in .tsv and .jsonl. Then folders
 *                                   mean nothing
 *
 * A data set may also be such a metadata file itself. field_map gives other columns for file_name
 * and label. Classes are numbered in byte order of their names, or as numbers where all are.
 *
 * The store holds paths, sizes and classes, no pixels: pictures are decoded when a step needs them
 * (recipes/data/pictures.h). Here each is decoded once, dealt out over ranks and threads, so that a
 * picture that cannot be is met before the first step, as bad_rows says.
 */
#ifndef MB_RECIPES_DATA_IMAGE_FILES_H
#define MB_RECIPES_DATA_IMAGE_FILES_H

#include "recipes/data/store.h"

/* Reads o->source, o->n_sources, o->label_names; rows have `tokens` tokens. The caller owns *out.
 * Collective; fails on all ranks or none. MB_EDATA names the file. */
mb_status mb_image_store_build(const mb_store_options *o, int64_t tokens, mb_comm *comm,
                               mb_store **out) MB_MUST_USE;

#endif
