/* dist/h5_inside.h - what the files h5*.c share; nobody else includes it.
 *
 * Functions here run with the lock held, except the two that take and give it.
 */
#ifndef MB_DIST_H5_INSIDE_H
#define MB_DIST_H5_INSIDE_H

#include <hdf5.h>

#include "dist/h5.h"

struct mb_h5 {
    hid_t id;
    mb_status code; /* of its errors */
    char *name;     /* for messages */
    void *image;    /* a file in memory */
    size_t size;    /* bytes at image */
    size_t used;    /* as far as HDF5 has grown it */
    bool borrowed;  /* image is the caller's */
};

void mb_h5_lock(void);
void mb_h5_unlock(void);

/* "name: cannot <fmt>: HDF5 says: ...", with the file's code; clears HDF5's error stack. */
mb_status mb_h5_fault(const mb_h5 *f, const char *fmt, ...) MB_PRINTF(2, 3);

bool mb_h5_has_inside(mb_h5 *f, const char *path);
/* A link creation list that makes the groups on the way; the caller closes it. */
hid_t mb_h5_with_groups(void);
/* A dataset under `path`; negative on failure. */
hid_t mb_h5_make_set(mb_h5 *f, const char *path, hid_t type, hid_t space, hid_t create);
/* Closes those that are open. */
void mb_h5_close_block(hid_t set, hid_t space, hid_t memory);
void mb_h5_dims(int ndim, const int64_t *from, hsize_t *to);

#endif
