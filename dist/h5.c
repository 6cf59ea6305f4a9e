/* dist/h5.c - see dist/h5.h. Public functions take the lock; static ones run inside it. */
#include "dist/h5.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "dist/h5_inside.h"

enum { IMAGE_STEP = 1 << 20 };

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

#define TEXT(x)    #x
#define TEXT_OF(x) TEXT(x)

void mb_h5_tidy(void)
{
    H5garbage_collect();
    mb_alloc_trim();
}

const char *mb_h5_library(void)
{
    return "HDF5 " TEXT_OF(H5_VERS_MAJOR) "." TEXT_OF(H5_VERS_MINOR) "." TEXT_OF(H5_VERS_RELEASE);
}
