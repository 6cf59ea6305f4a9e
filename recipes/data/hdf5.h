/* recipes/data/hdf5.h - rows of an HDF5 file, each as the text of a JSON object.
 *
 *     corpus.h5                 its datasets, /text and /label, are the columns; or, where it has none,
 *                               those of the group of the split: /train/text for split: train
 *     corpus.h5/swahili         the datasets of a group, as h5ls names it; or of a split's group in it
 *
 * All columns have as many rows. Of one dimension: integers, reals, booleans as h5py writes them, texts
 * (UTF-8, of fixed and variable length), names of an enumeration. Lists: a second dimension, or rows of
 * variable length (token ids). Numbers that are no numbers are null. Rows are read by slabs; groups in a
 * group are not looked into. See dist/h5_column.h for what is refused.
 *
 * Changed bytes are found where the datasets have checksums (fletcher32), else not: HDF5 has none.
 */
#ifndef MB_RECIPES_DATA_HDF5_H
#define MB_RECIPES_DATA_HDF5_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mb_hdf5 mb_hdf5;

/* The file in corpus.h5 or corpus.h5/group; *group, where wanted, is what follows, "" or "/group".
 * False: the path names no HDF5 file, and `file` is the path. */
bool mb_hdf5_file(const char *path, char *file, size_t size, const char **group);
/* Where the rows are: `path`, or the group in it that is called like one of the names (ends with NULL)
 * when itself has no datasets. MB_EDATA names the groups there are. */
mb_status mb_hdf5_find(const char *path, const char *const *names, char *out,
                       size_t size) MB_MUST_USE;

mb_status mb_hdf5_open(const char *path, mb_hdf5 **out) MB_MUST_USE;
void mb_hdf5_close(mb_hdf5 *h); /* NULL is allowed */
/* *text is borrowed until the next call. */
mb_status mb_hdf5_next(mb_hdf5 *h, const char **text, size_t *n, bool *more) MB_MUST_USE;

#endif
