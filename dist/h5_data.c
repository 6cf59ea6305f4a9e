/* dist/h5_data.c - datasets: making, writing, reading; see dist/h5.h. */
#include <string.h>

#include "dist/h5_inside.h"

enum { CHUNK_BYTES = 256 << 10 };

static hid_t memory_type(mb_dtype d)
{
    switch (d) {
    case MB_DTYPE_F32:
        return H5T_NATIVE_FLOAT;
    case MB_DTYPE_F64:
        return H5T_NATIVE_DOUBLE;
    case MB_DTYPE_I8:
        return H5T_NATIVE_INT8;
    case MB_DTYPE_U8:
        return H5T_NATIVE_UINT8;
    case MB_DTYPE_I16:
        return H5T_NATIVE_INT16;
    case MB_DTYPE_U16:
        return H5T_NATIVE_UINT16;
    case MB_DTYPE_I32:
        return H5T_NATIVE_INT32;
    case MB_DTYPE_U32:
        return H5T_NATIVE_UINT32;
    case MB_DTYPE_I64:
        return H5T_NATIVE_INT64;
    case MB_DTYPE_U64:
        return H5T_NATIVE_UINT64;
    default:
        MB_BUG("HDF5 files hold no %s values", mb_dtype_name(d));
    }
}

static hid_t file_type(mb_dtype d)
{
    switch (d) {
    case MB_DTYPE_F32:
        return H5T_IEEE_F32LE;
    case MB_DTYPE_F64:
        return H5T_IEEE_F64LE;
    case MB_DTYPE_I8:
        return H5T_STD_I8LE;
    case MB_DTYPE_U8:
        return H5T_STD_U8LE;
    case MB_DTYPE_I16:
        return H5T_STD_I16LE;
    case MB_DTYPE_U16:
        return H5T_STD_U16LE;
    case MB_DTYPE_I32:
        return H5T_STD_I32LE;
    case MB_DTYPE_U32:
        return H5T_STD_U32LE;
    case MB_DTYPE_I64:
        return H5T_STD_I64LE;
    default:
        return H5T_STD_U64LE;
    }
}

static const mb_dtype stored[] = {MB_DTYPE_F32, MB_DTYPE_F64, MB_DTYPE_I8,  MB_DTYPE_U8,
                                  MB_DTYPE_I16, MB_DTYPE_U16, MB_DTYPE_I32, MB_DTYPE_U32,
                                  MB_DTYPE_I64, MB_DTYPE_U64};

hid_t mb_h5_with_groups(void)
{
    const hid_t list = H5Pcreate(H5P_LINK_CREATE);

    H5Pset_create_intermediate_group(list, 1);
    return list;
}

hid_t mb_h5_make_set(mb_h5 *f, const char *path, hid_t type, hid_t space, hid_t create)
{
    const hid_t links = mb_h5_with_groups();
    const hid_t set = H5Dcreate2(f->id, path, type, space, links, create, H5P_DEFAULT);

    H5Pclose(links);
    return set;
}

void mb_h5_dims(int ndim, const int64_t *from, hsize_t *to)
{
    for (int i = 0; i < ndim; i++)
        to[i] = (hsize_t)from[i];
}

/* Chunks of whole rows of the last dimensions, about CHUNK_BYTES. */
static hid_t chunked(mb_dtype d, int ndim, const int64_t *dim)
{
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    int64_t room = CHUNK_BYTES / mb_dtype_bytes(d, 1);
    hsize_t chunk[MB_MAX_DIMS];

    H5Pset_fill_time(list, H5D_FILL_TIME_NEVER);
    for (int i = ndim - 1; i >= 0; i--) {
        if (dim[i] == 0) /* nothing to sum; a chunk may not be empty */
            return list;
        chunk[i] = (hsize_t)(dim[i] < room ? dim[i] : room);
        room /= (int64_t)chunk[i];
        room = room > 0 ? room : 1;
    }
    H5Pset_chunk(list, ndim, chunk);
    H5Pset_fletcher32(list);
    return list;
}

mb_status mb_h5_make(mb_h5 *f, const char *path, mb_dtype d, int ndim, const int64_t *dim)
{
    hsize_t size[MB_MAX_DIMS];
    mb_status st = MB_OK;

    MB_ASSERT(ndim >= 1 && ndim <= MB_MAX_DIMS);
    mb_h5_dims(ndim, dim, size);
    mb_h5_lock();
    const hid_t space = H5Screate_simple(ndim, size, NULL), list = chunked(d, ndim, dim);
    const hid_t set = mb_h5_make_set(f, path, file_type(d), space, list);
    if (set < 0)
        st = mb_h5_fault(f, "make '%s'", path);
    else
        H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
    mb_h5_unlock();
    return st;
}

/* Opens a dataset and selects a block of it after checking that it lies inside. */
static mb_status open_block(mb_h5 *f, const char *path, int ndim, const int64_t *from,
                            const int64_t *count, hid_t *set, hid_t *space, hid_t *memory)
{
    hsize_t start[MB_MAX_DIMS], size[MB_MAX_DIMS], dim[MB_MAX_DIMS];

    *set = H5Dopen2(f->id, path, H5P_DEFAULT);
    if (*set < 0)
        return mb_h5_fault(f, "open '%s'", path);
    *space = H5Dget_space(*set);
    if (*space < 0 || H5Sget_simple_extent_ndims(*space) != ndim ||
        H5Sget_simple_extent_dims(*space, dim, NULL) != ndim)
        return MB_RAISE(f->code, "%s: '%s' does not have %d dimensions", f->name, path, ndim);
    for (int i = 0; i < ndim; i++)
        MB_REQUIRE(from[i] >= 0 && count[i] >= 0 && (uint64_t)from[i] <= dim[i] &&
                       (uint64_t)count[i] <= dim[i] - (uint64_t)from[i],
                   f->code, "%s: '%s' has %llu elements in dimension %d, %lld from %lld are asked",
                   f->name, path, (unsigned long long)dim[i], i, (long long)count[i],
                   (long long)from[i]);
    mb_h5_dims(ndim, from, start);
    mb_h5_dims(ndim, count, size);
    *memory = H5Screate_simple(ndim, size, NULL);
    if (*memory < 0 || H5Sselect_hyperslab(*space, H5S_SELECT_SET, start, NULL, size, NULL) < 0)
        return mb_h5_fault(f, "select a part of '%s'", path);
    return MB_OK;
}

void mb_h5_close_block(hid_t set, hid_t space, hid_t memory)
{
    if (memory >= 0)
        H5Sclose(memory);
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
}

static bool is_empty(int ndim, const int64_t *count)
{
    for (int i = 0; i < ndim; i++)
        if (count[i] == 0)
            return true;
    return false;
}

mb_status mb_h5_write(mb_h5 *f, const char *path, mb_dtype d, int ndim, const int64_t *from,
                      const int64_t *count, const void *data)
{
    hid_t set = H5I_INVALID_HID, space = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    mb_status st = MB_OK;

    mb_h5_lock();
    MB_TRY_GOTO(open_block(f, path, ndim, from, count, &set, &space, &memory), st, done);
    if (!is_empty(ndim, count) &&
        H5Dwrite(set, memory_type(d), memory, space, H5P_DEFAULT, data) < 0)
        st = mb_h5_fault(f, "write '%s'", path);
done:
    mb_h5_close_block(set, space, memory);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_read(mb_h5 *f, const char *path, mb_dtype d, int ndim, const int64_t *from,
                     const int64_t *count, void *out)
{
    hid_t set = H5I_INVALID_HID, space = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    mb_status st = MB_OK;

    mb_h5_lock();
    MB_TRY_GOTO(open_block(f, path, ndim, from, count, &set, &space, &memory), st, done);
    if (!is_empty(ndim, count) && H5Dread(set, memory_type(d), memory, space, H5P_DEFAULT, out) < 0)
        st = mb_h5_fault(f, "read '%s'", path);
done:
    mb_h5_close_block(set, space, memory);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_put(mb_h5 *f, const char *path, mb_dtype d, int64_t n, const void *data)
{
    MB_TRY(mb_h5_make(f, path, d, 1, &n));
    return mb_h5_write_range(f, path, d, 0, n, data);
}

mb_status mb_h5_write_range(mb_h5 *f, const char *path, mb_dtype d, int64_t from, int64_t n,
                            const void *data)
{
    return mb_h5_write(f, path, d, 1, &from, &n, data);
}

mb_status mb_h5_read_range(mb_h5 *f, const char *path, mb_dtype d, int64_t from, int64_t n,
                           void *out)
{
    return mb_h5_read(f, path, d, 1, &from, &n, out);
}

/* H5Lexists wants every group on the way to exist. Soft and external links are followed nowhere. */
bool mb_h5_has_inside(mb_h5 *f, const char *path)
{
    char part[1024];
    H5L_info_t link;

    for (size_t n = 1; n < sizeof part; n++) {
        if (n > 1 && (path[n] == '/' || path[n] == '\0')) {
            memcpy(part, path, n);
            part[n] = '\0';
            if (H5Lexists(f->id, part, H5P_DEFAULT) <= 0 ||
                H5Lget_info(f->id, part, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
                return false;
        }
        if (path[n] == '\0')
            return true;
    }
    return false;
}

bool mb_h5_has(mb_h5 *f, const char *path)
{
    mb_h5_lock();
    const bool yes = mb_h5_has_inside(f, path);
    mb_h5_unlock();
    return yes;
}

mb_status mb_h5_shape(mb_h5 *f, const char *path, mb_dtype *d, int *ndim, int64_t dim[MB_MAX_DIMS])
{
    hid_t set = H5I_INVALID_HID, space = H5I_INVALID_HID, type = H5I_INVALID_HID;
    hsize_t size[MB_MAX_DIMS];
    mb_status st = MB_OK;
    int n = -1;

    mb_h5_lock();
    set = H5Dopen2(f->id, path, H5P_DEFAULT);
    if (set < 0)
        MB_TRY_GOTO(mb_h5_fault(f, "open '%s'", path), st, done);
    space = H5Dget_space(set);
    type = H5Dget_type(set);
    n = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    if (n < 1 || n > MB_MAX_DIMS || H5Sget_simple_extent_dims(space, size, NULL) != n)
        MB_TRY_GOTO(MB_RAISE(f->code, "%s: '%s' has %d dimensions, 1 to %d are allowed", f->name,
                             path, n, MB_MAX_DIMS),
                    st, done);
    *d = MB_DTYPE_COUNT;
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++)
        if (H5Tequal(type, file_type(stored[i])) > 0)
            *d = stored[i];
    if (*d == MB_DTYPE_COUNT)
        MB_TRY_GOTO(
            MB_RAISE(f->code, "%s: '%s' has an element type that is not supported", f->name, path),
            st, done);
    *ndim = n;
    for (int i = 0; i < n; i++)
        dim[i] = (int64_t)size[i];
done:
    if (type >= 0)
        H5Tclose(type);
    mb_h5_close_block(set, space, H5I_INVALID_HID);
    mb_h5_unlock();
    return st;
}
