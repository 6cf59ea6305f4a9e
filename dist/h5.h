/* dist/h5.h - HDF5 files, on disk or in memory (the only wrapper of <hdf5.h>).
 *
 *     MB_TRY(mb_h5_create_image("ids", 0, &f));
 *     MB_TRY_GOTO(mb_h5_put(f, "/ids", MB_DTYPE_I32, n, ids), st, done);
 *     MB_TRY_GOTO(mb_h5_set_text(f, "/", "tokenizer", digest), st, done);
 *     MB_TRY(mb_h5_close_image(f, &bytes, &size));     // then written by core/path
 *     ...
 * done:
 *     mb_h5_close(f);      // on failure
 *
 * Datasets have the latest format, chunks of 256 KiB and a Fletcher-32 sum each. That finds most
 * damage but not all (a block of zeros, two chunks exchanged): what must not be wrong has a digest
 * of its own that is checked before HDF5 sees a byte. HDF5 1.10 crashes when a disk is full, so
 * files that matter are built in memory and written by us.
 *
 * Errors are one sentence with HDF5's own words at the end. All calls of a process take one lock:
 * the library is not thread-safe. Element types: F32 F64 and the integers of 8 to 64 bits, stored
 * little-endian. Paths in a file begin with '/'; groups on the way are made.
 */
#ifndef MB_DIST_H5_H
#define MB_DIST_H5_H

#include "core/tensor.h"

typedef struct mb_h5 mb_h5;

/* A new file on disk (replacing one), a new one in memory; `name` is used in messages, `expect` is
 * about how large it will be (0: no idea). Errors of a created file are MB_EIO. The caller owns
 * *out. */
mb_status mb_h5_create(const char *path, mb_h5 **out) MB_MUST_USE;
mb_status mb_h5_create_image(const char *name, size_t expect, mb_h5 **out) MB_MUST_USE;
/* Read only, from disk or from n bytes in memory, borrowed. Errors have `code`. */
mb_status mb_h5_open(const char *path, mb_status code, mb_h5 **out) MB_MUST_USE;
mb_status mb_h5_open_image(const char *name, const void *bytes, size_t n, mb_status code,
                           mb_h5 **out) MB_MUST_USE;
/* Closing a file on disk writes what is left, hence may fail; f is gone in any case. NULL: fine. */
mb_status mb_h5_close(mb_h5 *f);
/* Ends a file that was created in memory and gives its bytes, owned by the caller (mb_free). f is gone
 * in any case. */
mb_status mb_h5_close_image(mb_h5 *f, void **bytes, size_t *n) MB_MUST_USE;

/* Makes a dataset of this shape, to be written in parts; or a 1-D one with its n values at once. */
mb_status mb_h5_make(mb_h5 *f, const char *path, mb_dtype d, int ndim,
                     const int64_t *dim) MB_MUST_USE;
mb_status mb_h5_put(mb_h5 *f, const char *path, mb_dtype d, int64_t n,
                    const void *data) MB_MUST_USE;
/* The block from[]..from[]+count[] of a dataset of ndim dimensions; values of type d, contiguous. */
mb_status mb_h5_write(mb_h5 *f, const char *path, mb_dtype d, int ndim, const int64_t *from,
                      const int64_t *count, const void *data) MB_MUST_USE;
mb_status mb_h5_read(mb_h5 *f, const char *path, mb_dtype d, int ndim, const int64_t *from,
                     const int64_t *count, void *out) MB_MUST_USE;
/* Elements [from, from+n) of a 1-D dataset. */
mb_status mb_h5_write_range(mb_h5 *f, const char *path, mb_dtype d, int64_t from, int64_t n,
                            const void *data) MB_MUST_USE;
mb_status mb_h5_read_range(mb_h5 *f, const char *path, mb_dtype d, int64_t from, int64_t n,
                           void *out) MB_MUST_USE;

/* Neither soft nor external links are followed. */
bool mb_h5_has(mb_h5 *f, const char *path);
/* Type and shape; *ndim at most MB_MAX_DIMS. */
mb_status mb_h5_shape(mb_h5 *f, const char *path, mb_dtype *d, int *ndim,
                      int64_t dim[MB_MAX_DIMS]) MB_MUST_USE;

/* Attributes of a group ("/" is the root) or dataset. Text is UTF-8; owned by the caller. */
mb_status mb_h5_set_text(mb_h5 *f, const char *path, const char *name,
                         const char *text) MB_MUST_USE;
mb_status mb_h5_get_text(mb_h5 *f, const char *path, const char *name, char **text) MB_MUST_USE;
mb_status mb_h5_set_ints(mb_h5 *f, const char *path, const char *name, int n,
                         const int64_t *v) MB_MUST_USE;
mb_status mb_h5_get_ints(mb_h5 *f, const char *path, const char *name, int n,
                         int64_t *v) MB_MUST_USE;
mb_status mb_h5_set_real(mb_h5 *f, const char *path, const char *name, double v) MB_MUST_USE;
mb_status mb_h5_get_real(mb_h5 *f, const char *path, const char *name, double *v) MB_MUST_USE;
/* A text of any length as a dataset. */
mb_status mb_h5_put_text(mb_h5 *f, const char *path, const char *text) MB_MUST_USE;
mb_status mb_h5_read_text(mb_h5 *f, const char *path, char **text) MB_MUST_USE;

/* A virtual F32 dataset, put together from ranges of 1-D datasets in other files; where nothing is
 * mapped it reads as NaN. File names are relative to the folder this file is in.
 *
 *     MB_TRY(mb_h5_virtual_begin(f, "/param/w", 2, dim, &v));
 *     MB_TRY_GOTO(mb_h5_virtual_map(v, "rank-00000.h5", "/param/w", n, 0, flat_from, n), st, done);
 *     MB_TRY_GOTO(mb_h5_virtual_end(v), st, done);
 * done:
 *     mb_h5_virtual_free(v);
 */
typedef struct mb_h5_virtual mb_h5_virtual;
mb_status mb_h5_virtual_begin(mb_h5 *f, const char *path, int ndim, const int64_t *dim,
                              mb_h5_virtual **out) MB_MUST_USE;
/* Row-major elements [to, to+n) are [from, from+n) of the 1-D dataset `source`, which has
 * source_count; done with at most 2*ndim - 1 blocks. */
mb_status mb_h5_virtual_map(mb_h5_virtual *v, const char *file, const char *source,
                            int64_t source_count, int64_t from, int64_t to, int64_t n) MB_MUST_USE;
mb_status mb_h5_virtual_end(mb_h5_virtual *v) MB_MUST_USE;
void mb_h5_virtual_free(mb_h5_virtual *v); /* NULL is allowed */

/* Cuts the row-major range [from, from+n) of a shape into blocks, in order; at most 2*ndim - 1. */
typedef struct mb_h5_block {
    int64_t from[MB_MAX_DIMS], count[MB_MAX_DIMS];
} mb_h5_block;
int mb_h5_blocks(int ndim, const int64_t *dim, int64_t from, int64_t n,
                 mb_h5_block out[2 * MB_MAX_DIMS - 1]);

/* Gives back the memory that HDF5 keeps for later, when nothing is open. */
void mb_h5_tidy(void);
const char *mb_h5_library(void); /* "HDF5 1.10.8" */

#endif
