/* dist/h5_virtual.c - virtual datasets, and ranges of a shape as blocks; see dist/h5.h. */
#include "core/alloc.h"
#include "dist/h5_inside.h"

struct mb_h5_virtual {
    mb_h5 *f;
    char *path;
    hid_t plist, space;
    int ndim;
    int64_t dim[MB_MAX_DIMS];
};

/* A range is: the rest of a row it begins inside, whole rows, and the beginning of a row; the first
 * and the last are ranges of a row, one dimension less. `level` dimensions are already fixed. */
static int cut(int ndim, const int64_t *dim, int level, const mb_h5_block *fixed, int64_t from,
               int64_t to, mb_h5_block *out)
{
    mb_h5_block b = *fixed;
    int64_t row = 1;
    int n = 0;

    if (from >= to)
        return 0;
    for (int i = level + 1; i < ndim; i++)
        row *= dim[i];
    const int64_t first = (from + row - 1) / row, last = to / row; /* whole rows */
    if (first > last) {                                            /* inside one row */
        b.from[level] = last;
        b.count[level] = 1;
        return cut(ndim, dim, level + 1, &b, from - last * row, to - last * row, out);
    }
    if (from < first * row) {
        b.from[level] = first - 1;
        b.count[level] = 1;
        n += cut(ndim, dim, level + 1, &b, from - (first - 1) * row, row, out);
    }
    if (first < last) {
        b.from[level] = first;
        b.count[level] = last - first;
        for (int i = level + 1; i < ndim; i++) {
            b.from[i] = 0;
            b.count[i] = dim[i];
        }
        out[n++] = b;
    }
    if (last * row < to) {
        b.from[level] = last;
        b.count[level] = 1;
        n += cut(ndim, dim, level + 1, &b, 0, to - last * row, out + n);
    }
    return n;
}

int mb_h5_blocks(int ndim, const int64_t *dim, int64_t from, int64_t n,
                 mb_h5_block out[2 * MB_MAX_DIMS - 1])
{
    const mb_h5_block nothing = {0};

    return cut(ndim, dim, 0, &nothing, from, from + n, out);
}

mb_status mb_h5_virtual_begin(mb_h5 *f, const char *path, int ndim, const int64_t *dim,
                              mb_h5_virtual **out)
{
    const float nothing = __builtin_nanf("");
    hsize_t size[MB_MAX_DIMS];
    mb_h5_virtual *v = NULL;
    mb_status st = MB_OK;

    MB_ASSERT(ndim >= 1 && ndim <= MB_MAX_DIMS);
    MB_TRY(MB_NEW(&v));
    v->f = f;
    v->ndim = ndim;
    v->plist = v->space = H5I_INVALID_HID;
    MB_TRY_GOTO(mb_strdup(path, &v->path), st, fail);
    for (int i = 0; i < ndim; i++)
        v->dim[i] = dim[i];
    mb_h5_dims(ndim, dim, size);
    mb_h5_lock();
    v->space = H5Screate_simple(ndim, size, NULL);
    v->plist = H5Pcreate(H5P_DATASET_CREATE);
    if (v->space < 0 || v->plist < 0 || H5Pset_fill_value(v->plist, H5T_NATIVE_FLOAT, &nothing) < 0)
        st = mb_h5_fault(f, "describe '%s'", path);
    mb_h5_unlock();
    if (st != MB_OK)
        goto fail;
    *out = v;
    return MB_OK;

fail:
    mb_h5_virtual_free(v);
    return st;
}

static mb_status map_block(mb_h5_virtual *v, const char *file, const char *source, hid_t from_space,
                           int64_t from, const mb_h5_block *b)
{
    hsize_t start[MB_MAX_DIMS], count[MB_MAX_DIMS];
    hsize_t first = (hsize_t)from, n = 1;

    mb_h5_dims(v->ndim, b->from, start);
    mb_h5_dims(v->ndim, b->count, count);
    for (int i = 0; i < v->ndim; i++)
        n *= count[i];
    if (H5Sselect_hyperslab(from_space, H5S_SELECT_SET, &first, NULL, &n, NULL) < 0 ||
        H5Sselect_hyperslab(v->space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
        H5Pset_virtual(v->plist, v->space, file, source, from_space) < 0)
        return mb_h5_fault(v->f, "map '%s' to '%s' in %s", v->path, source, file);
    return MB_OK;
}

mb_status mb_h5_virtual_map(mb_h5_virtual *v, const char *file, const char *source,
                            int64_t source_count, int64_t from, int64_t to, int64_t n)
{
    const hsize_t size = (hsize_t)source_count;
    mb_h5_block block[2 * MB_MAX_DIMS - 1];
    const int n_blocks = mb_h5_blocks(v->ndim, v->dim, to, n, block);
    mb_status st = MB_OK;

    mb_h5_lock();
    const hid_t space = H5Screate_simple(1, &size, NULL);
    for (int i = 0; i < n_blocks && st == MB_OK; i++) {
        st = map_block(v, file, source, space, from, &block[i]);
        int64_t count = 1;
        for (int k = 0; k < v->ndim; k++)
            count *= block[i].count[k];
        from += count;
    }
    H5Sclose(space);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_virtual_end(mb_h5_virtual *v)
{
    mb_status st = MB_OK;

    mb_h5_lock();
    H5Sselect_all(v->space);
    const hid_t set = mb_h5_make_set(v->f, v->path, H5T_IEEE_F32LE, v->space, v->plist);
    if (set < 0)
        st = mb_h5_fault(v->f, "make '%s'", v->path);
    else
        H5Dclose(set);
    mb_h5_unlock();
    return st;
}

void mb_h5_virtual_free(mb_h5_virtual *v)
{
    if (v == NULL)
        return;
    mb_h5_lock();
    if (v->plist >= 0)
        H5Pclose(v->plist);
    if (v->space >= 0)
        H5Sclose(v->space);
    mb_h5_unlock();
    mb_free(v->path);
    mb_free(v);
}
