/* dist/h5.c - see dist/h5.h. Public functions take the lock; static ones run inside it. */
#include "dist/h5.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "dist/h5_inside.h"

enum { CHUNK_BYTES = 256 << 10, IMAGE_STEP = 1 << 20 };

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

void mb_h5_lock(void)
{
    static bool prepared;

    pthread_mutex_lock(&library);
    if (!prepared) {
        H5dont_atexit(); /* its exit handler crashes after a failed write; we close what we open */
        prepared = true;
    }
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Eclear2(H5E_DEFAULT);
}

void mb_h5_unlock(void)
{
    pthread_mutex_unlock(&library);
}

/* The innermost entry of HDF5's error stack is the cause. */
static herr_t first_words(unsigned n, const H5E_error2_t *e, void *to)
{
    if (n == 0 && e->desc != NULL)
        snprintf(to, 256, "%s", e->desc);
    return 0;
}

mb_status mb_h5_fault(const mb_h5 *f, const char *fmt, ...)
{
    char words[256] = "no reason given", what[512];
    va_list ap;

    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_words, words);
    H5Eclear2(H5E_DEFAULT);
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return MB_RAISE(f->code, "%s: cannot %s: HDF5 says: %s", f->name, what, words);
}

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

static mb_status file_new(const char *name, mb_status code, mb_h5 **out)
{
    mb_h5 *f = NULL;

    MB_TRY(MB_NEW(&f));
    f->id = H5I_INVALID_HID;
    f->code = code;
    const mb_status st = mb_strdup(name, &f->name);
    if (st != MB_OK) {
        mb_free(f);
        return st;
    }
    *out = f;
    return MB_OK;
}

static void file_drop(mb_h5 *f)
{
    if (!f->borrowed)
        mb_free(f->image);
    mb_free(f->name);
    mb_free(f);
}

/* The core driver asks these for memory. A file being made grows in steps of twice the size and is
 * kept when HDF5 closes it: that is how its bytes leave without a copy (H5Fget_file_image gives a
 * superblock with a wrong checksum in 1.10). A file being read is the caller's memory itself. */
static void *image_alloc(size_t size, H5FD_file_image_op_t op, void *udata)
{
    mb_h5 *f = udata;

    return f->borrowed && size == f->size ? f->image : NULL;
}

static void *image_copy(void *to, const void *from, size_t size, H5FD_file_image_op_t op,
                        void *udata)
{
    return to; /* it is there already */
}

static void *image_grow(void *p, size_t size, H5FD_file_image_op_t op, void *udata)
{
    mb_h5 *f = udata;
    size_t wanted = f->size < IMAGE_STEP ? IMAGE_STEP : f->size;
    void *q;

    if (f->borrowed)
        return NULL;
    while (wanted < size)
        wanted *= 2;
    if (f->image == NULL || wanted > f->size) {
        if (mb_alloc(wanted, f->name, &q) != MB_OK)
            return NULL;
        if (f->image != NULL)
            memcpy(q, f->image, f->used);
        mb_free(f->image);
        f->image = q;
        f->size = wanted;
    }
    f->used = size;
    return f->image;
}

static herr_t image_free(void *p, H5FD_file_image_op_t op, void *udata)
{
    return 0; /* freed by file_drop, or given away */
}

static void *same_udata(void *udata)
{
    return udata;
}

static herr_t keep_udata(void *udata)
{
    return 0;
}

/* Access: the latest format; in memory when asked. */
static hid_t access_list(mb_h5 *f, bool in_memory)
{
    const hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    H5FD_file_image_callbacks_t memory = {image_alloc, image_copy, image_grow, image_free,
                                          same_udata,  keep_udata, f};

    H5Pset_libver_bounds(list, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
    if (in_memory && (H5Pset_fapl_core(list, IMAGE_STEP, false) < 0 ||
                      H5Pset_file_image_callbacks(list, &memory) < 0 ||
                      (f->borrowed && H5Pset_file_image(list, f->image, f->size) < 0))) {
        H5Pclose(list);
        return H5I_INVALID_HID;
    }
    return list;
}

/* Opens or makes the file of f; on failure f is gone. */
static mb_status file_start(mb_h5 *f, bool create, bool in_memory, mb_h5 **out)
{
    mb_status st = MB_OK;

    mb_h5_lock();
    const hid_t list = access_list(f, in_memory);
    if (list >= 0)
        f->id = create ? H5Fcreate(f->name, H5F_ACC_TRUNC, H5P_DEFAULT, list)
                       : H5Fopen(f->name, H5F_ACC_RDONLY, list);
    if (f->id < 0)
        st = mb_h5_fault(f, create ? "create the file" : "open the file");
    if (list >= 0)
        H5Pclose(list);
    mb_h5_unlock();
    if (st != MB_OK) {
        file_drop(f);
        return st;
    }
    *out = f;
    return MB_OK;
}

mb_status mb_h5_create(const char *path, mb_h5 **out)
{
    mb_h5 *f = NULL;

    MB_TRY(file_new(path, MB_EIO, &f));
    return file_start(f, true, false, out);
}

mb_status mb_h5_create_image(const char *name, size_t expect, mb_h5 **out)
{
    mb_h5 *f = NULL;

    MB_TRY(file_new(name, MB_EIO, &f));
    f->size = expect > IMAGE_STEP ? (expect + IMAGE_STEP - 1) / IMAGE_STEP * IMAGE_STEP : 0;
    const mb_status st = f->size > 0 ? mb_alloc(f->size, name, &f->image) : MB_OK;
    if (st != MB_OK) {
        file_drop(f);
        return st;
    }
    return file_start(f, true, true, out);
}

mb_status mb_h5_open(const char *path, mb_status code, mb_h5 **out)
{
    mb_h5 *f = NULL;

    MB_TRY(file_new(path, code, &f));
    return file_start(f, false, false, out);
}

mb_status mb_h5_open_image(const char *name, const void *bytes, size_t n, mb_status code,
                           mb_h5 **out)
{
    mb_h5 *f = NULL;

    MB_REQUIRE(n > 0, code, "%s: an empty file is not HDF5", name);
    MB_TRY(file_new(name, code, &f));
    memcpy(&f->image, &bytes, sizeof f->image); /* read only, whatever its type says */
    f->size = n;
    f->borrowed = true;
    return file_start(f, false, true, out);
}

mb_status mb_h5_close(mb_h5 *f)
{
    mb_status st = MB_OK;

    if (f == NULL)
        return MB_OK;
    mb_h5_lock();
    if (H5Fclose(f->id) < 0)
        st = mb_h5_fault(f, "finish the file");
    mb_h5_unlock();
    file_drop(f);
    return st;
}

/* Where a file ends, from its superblock (version 2 or 3: the third address, at byte 28). */
static uint64_t end_of_file(const uint8_t *image, size_t n)
{
    uint64_t end = 0;

    if (n < 48 || memcmp(image, "\211HDF\r\n\032\n", 8) != 0 || image[8] < 2 || image[9] != 8)
        return 0;
    for (int i = 7; i >= 0; i--)
        end = end << 8 | image[28 + i];
    return end;
}

mb_status mb_h5_close_image(mb_h5 *f, void **bytes, size_t *n)
{
    mb_status st = MB_OK;

    mb_h5_lock();
    if (H5Fclose(f->id) < 0)
        st = mb_h5_fault(f, "finish the file");
    mb_h5_unlock();
    const uint64_t end = st == MB_OK ? end_of_file(f->image, f->used) : 0;
    if (st == MB_OK && (end == 0 || end > f->used))
        st = MB_RAISE(MB_EBUG, "%s: HDF5 left %zu bytes that do not end at %llu", f->name, f->used,
                      (unsigned long long)end);
    if (st == MB_OK) {
        *bytes = f->image;
        *n = (size_t)end;
        f->image = NULL;
    }
    file_drop(f);
    return st;
}

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

/* H5Lexists wants every group on the way to exist. */
bool mb_h5_has_inside(mb_h5 *f, const char *path)
{
    char part[1024];

    for (const char *s = path; *s != '\0';) {
        const char *end = strchr(s + 1, '/');
        const size_t n = end != NULL ? (size_t)(end - path) : strlen(path);
        if (n >= sizeof part)
            return false;
        memcpy(part, path, n);
        part[n] = '\0';
        if (n > 1 && H5Lexists(f->id, part, H5P_DEFAULT) <= 0)
            return false;
        s = path + n;
    }
    return true;
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

#define TEXT(x)    #x
#define TEXT_OF(x) TEXT(x)

const char *mb_h5_library(void)
{
    return "HDF5 " TEXT_OF(H5_VERS_MAJOR) "." TEXT_OF(H5_VERS_MINOR) "." TEXT_OF(H5_VERS_RELEASE);
}
