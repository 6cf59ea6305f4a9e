/* dist/h5_text.c - attributes and texts; see dist/h5.h. */
#include <string.h>

#include "core/alloc.h"
#include "dist/h5_inside.h"

static hid_t text_type(size_t n)
{
    const hid_t type = H5Tcopy(H5T_C_S1);

    H5Tset_size(type, n > 0 ? n : 1);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

/* The object at `path`; a group that is not there is made when `making`. */
static hid_t open_object(mb_h5 *f, const char *path, bool making)
{
    if (making && !mb_h5_has_inside(f, path)) {
        const hid_t links = mb_h5_with_groups();
        const hid_t group = H5Gcreate2(f->id, path, links, H5P_DEFAULT, H5P_DEFAULT);
        H5Pclose(links);
        return group;
    }
    return H5Oopen(f->id, path, H5P_DEFAULT);
}

static mb_status set_attribute(mb_h5 *f, const char *path, const char *name, hid_t type,
                               hid_t memory, int n, const void *value)
{
    const hsize_t size = (hsize_t)n;
    mb_status st = MB_OK;
    hid_t attribute = H5I_INVALID_HID;
    const hid_t space = n > 0 ? H5Screate_simple(1, &size, NULL) : H5Screate(H5S_SCALAR);
    const hid_t object = open_object(f, path, true);

    if (object >= 0)
        attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, memory, value) < 0)
        st = mb_h5_fault(f, "set attribute '%s' of '%s'", name, path);
    if (attribute >= 0)
        H5Aclose(attribute);
    if (object >= 0)
        H5Oclose(object);
    H5Sclose(space);
    return st;
}

/* n values, 0 for a scalar. */
static mb_status get_attribute(mb_h5 *f, const char *path, const char *name, hid_t memory, int n,
                               void *value)
{
    mb_status st = MB_OK;
    hid_t attribute = H5I_INVALID_HID, space = H5I_INVALID_HID;
    const hid_t object = open_object(f, path, false);

    if (object >= 0)
        attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute >= 0)
        space = H5Aget_space(attribute);
    if (space < 0)
        st = mb_h5_fault(f, "find attribute '%s' of '%s'", name, path);
    else if (H5Sget_simple_extent_npoints(space) != (n > 0 ? n : 1))
        st = MB_RAISE(f->code, "%s: attribute '%s' of '%s' does not have %d values", f->name, name,
                      path, n > 0 ? n : 1);
    else if (H5Aread(attribute, memory, value) < 0)
        st = mb_h5_fault(f, "read attribute '%s' of '%s'", name, path);
    if (space >= 0)
        H5Sclose(space);
    if (attribute >= 0)
        H5Aclose(attribute);
    if (object >= 0)
        H5Oclose(object);
    return st;
}

mb_status mb_h5_set_text(mb_h5 *f, const char *path, const char *name, const char *text)
{
    mb_h5_lock();
    const hid_t type = text_type(strlen(text));
    const mb_status st = set_attribute(f, path, name, type, type, 0, text);
    H5Tclose(type);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_set_ints(mb_h5 *f, const char *path, const char *name, int n, const int64_t *v)
{
    mb_h5_lock();
    const mb_status st = set_attribute(f, path, name, H5T_STD_I64LE, H5T_NATIVE_INT64, n, v);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_set_real(mb_h5 *f, const char *path, const char *name, double v)
{
    mb_h5_lock();
    const mb_status st = set_attribute(f, path, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, &v);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_get_ints(mb_h5 *f, const char *path, const char *name, int n, int64_t *v)
{
    mb_h5_lock();
    const mb_status st = get_attribute(f, path, name, H5T_NATIVE_INT64, n, v);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_get_real(mb_h5 *f, const char *path, const char *name, double *v)
{
    mb_h5_lock();
    const mb_status st = get_attribute(f, path, name, H5T_NATIVE_DOUBLE, 0, v);
    mb_h5_unlock();
    return st;
}

/* The size of a fixed-length string type, 0 when it is something else. */
static size_t text_size(hid_t type)
{
    if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0)
        return 0;
    return H5Tget_size(type);
}

static mb_status attribute_text(mb_h5 *f, const char *path, const char *name, char **text)
{
    mb_status st = MB_OK;
    void *p = NULL;
    hid_t attribute = H5I_INVALID_HID, type = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    const hid_t object = open_object(f, path, false);

    if (object >= 0)
        attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0)
        MB_TRY_GOTO(mb_h5_fault(f, "find attribute '%s' of '%s'", name, path), st, done);
    type = H5Aget_type(attribute);
    const size_t n = text_size(type);
    if (n == 0)
        MB_TRY_GOTO(
            MB_RAISE(f->code, "%s: attribute '%s' of '%s' is not a text", f->name, name, path), st,
            done);
    MB_TRY_GOTO(mb_alloc(n + 1, "a text", &p), st, done);
    memory = text_type(n);
    MB_TRY_GOTO(get_attribute(f, path, name, memory, 0, p), st, done);
    *text = p;
    p = NULL;
done:
    if (memory >= 0)
        H5Tclose(memory);
    if (type >= 0)
        H5Tclose(type);
    if (attribute >= 0)
        H5Aclose(attribute);
    if (object >= 0)
        H5Oclose(object);
    mb_free(p);
    return st;
}

mb_status mb_h5_get_text(mb_h5 *f, const char *path, const char *name, char **text)
{
    mb_h5_lock();
    const mb_status st = attribute_text(f, path, name, text);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_put_text(mb_h5 *f, const char *path, const char *text)
{
    mb_status st = MB_OK;

    mb_h5_lock();
    const hid_t type = text_type(strlen(text)), space = H5Screate(H5S_SCALAR);
    const hid_t set = mb_h5_make_set(f, path, type, space, H5P_DEFAULT);
    if (set < 0 || H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
        st = mb_h5_fault(f, "write '%s'", path);
    mb_h5_close_block(set, space, H5I_INVALID_HID);
    H5Tclose(type);
    mb_h5_unlock();
    return st;
}

mb_status mb_h5_read_text(mb_h5 *f, const char *path, char **text)
{
    mb_status st = MB_OK;
    void *p = NULL;
    hid_t type = H5I_INVALID_HID, memory = H5I_INVALID_HID;

    mb_h5_lock();
    const hid_t set = H5Dopen2(f->id, path, H5P_DEFAULT);
    if (set < 0)
        MB_TRY_GOTO(mb_h5_fault(f, "open '%s'", path), st, done);
    type = H5Dget_type(set);
    const size_t n = text_size(type);
    if (n == 0)
        MB_TRY_GOTO(MB_RAISE(f->code, "%s: '%s' is not a text", f->name, path), st, done);
    MB_TRY_GOTO(mb_alloc(n + 1, "a text", &p), st, done);
    memory = text_type(n);
    if (H5Dread(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, p) < 0)
        MB_TRY_GOTO(mb_h5_fault(f, "read '%s'", path), st, done);
    *text = p;
    p = NULL;
done:
    if (memory >= 0)
        H5Tclose(memory);
    if (type >= 0)
        H5Tclose(type);
    mb_h5_close_block(set, H5I_INVALID_HID, H5I_INVALID_HID);
    mb_h5_unlock();
    mb_free(p);
    return st;
}
