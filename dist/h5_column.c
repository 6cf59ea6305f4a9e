/* dist/h5_column.c - see dist/h5_column.h. Public functions take the lock; static ones run inside it.
 *
 * What is of variable length HDF5 puts where it is told to: into parts that are dropped with the slab,
 * and refused beyond a limit, for its lengths are what the file says.
 */
#include "dist/h5_column.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/alloc.h"
#include "core/path.h"
#include "dist/h5_inside.h"

enum {
    MOST_COLUMNS = 1024,
    NAME_BYTES = 256,
    SLAB_BYTES = 1 << 20,
    SLAB_ROWS = 1 << 16,
    MOST_ROW = 64 << 20,   /* bytes; and of what is of variable length in a slab */
    MOST_CHUNK = 1 << 30,  /* unpacked */
    KEPT_CHUNK = 64 << 20, /* the largest that is kept between slabs */
    PART_BYTES = 1 << 20,
    MOST_MEMBERS = 1 << 16,
};

/* Memory for what is of variable length. */
struct part {
    struct part *next;
    size_t used, size;
    _Alignas(16) char data[];
};

struct member {
    int64_t value;
    char *name;
};

struct mb_h5_column {
    mb_h5 *file;
    char *path;
    hid_t set, memory; /* memory: the type of a row's value, or of one of its list's */
    mb_h5_kind kind;
    bool list, ragged, pointer; /* pointer: a text of variable length */
    H5T_str_t pad;              /* of a text of fixed length */
    size_t value_bytes;
    int64_t rows, width; /* width: values a row where they are not of variable length */
    struct member *member;
    int n_members;
    char *data;
    size_t capacity;
    int64_t from, n; /* the slab */
    struct part *part;
    size_t taken;
    bool over; /* more was asked for than a slab may take */
};

/* ---- what is in a group --------------------------------------------------------------------- */

static mb_status add_name(const mb_h5 *f, hid_t group, const char *in, hsize_t i, mb_h5_what what,
                          char **name, size_t *n)
{
    char text[NAME_BYTES];
    H5L_info_t link;
    const ssize_t length = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, text,
                                              sizeof text, H5P_DEFAULT);

    if (length < 0 || length >= NAME_BYTES)
        return MB_RAISE(f->code, "%s: the group %s has a name that cannot be read, or is too long",
                        f->name, in);
    if (H5Lget_info(group, text, &link, H5P_DEFAULT) < 0)
        return mb_h5_fault(f, "read the group %s", in);
    MB_REQUIRE(link.type == H5L_TYPE_HARD, f->code,
               "%s: '%s' in the group %s is a link to somewhere else; links are not followed",
               f->name, text, in);
    const hid_t object = H5Oopen(group, text, H5P_DEFAULT);
    if (object < 0)
        return mb_h5_fault(f, "open '%s' in the group %s", text, in);
    const bool wanted = H5Iget_type(object) == (what == MB_H5_DATASETS ? H5I_DATASET : H5I_GROUP);
    H5Oclose(object);
    return wanted ? mb_strdup(text, &name[(*n)++]) : MB_OK;
}

static mb_status list_group(const mb_h5 *f, hid_t group, const char *in, mb_h5_what what,
                            char ***name, size_t *n)
{
    char **found = NULL;
    H5G_info_t info;
    mb_status st = MB_OK;

    *n = 0;
    if (H5Gget_info(group, &info) < 0)
        return mb_h5_fault(f, "read the group %s", in);
    MB_REQUIRE(info.nlinks <= MOST_COLUMNS, f->code,
               "%s: the group %s has %llu members, at most %d can be read", f->name, in,
               (unsigned long long)info.nlinks, MOST_COLUMNS);
    MB_TRY(MB_NEW_ARRAY(&found, info.nlinks + 1));
    for (hsize_t i = 0; i < info.nlinks && st == MB_OK; i++)
        st = add_name(f, group, in, i, what, found, n);
    if (st != MB_OK)
        mb_path_list_free(found, *n);
    else
        *name = found;
    return st;
}

mb_status mb_h5_list(mb_h5 *f, const char *group, mb_h5_what what, char ***name, size_t *n)
{
    mb_status st;

    mb_h5_lock();
    const hid_t id = mb_h5_has_inside(f, group) || strcmp(group, "/") == 0
                         ? H5Gopen2(f->id, group, H5P_DEFAULT)
                         : H5I_INVALID_HID;
    st = id < 0
             ? MB_RAISE(f->code, "%s: there is no group %s; links are not followed", f->name, group)
             : list_group(f, id, group, what, name, n);
    if (id >= 0)
        H5Gclose(id);
    mb_h5_unlock();
    return st;
}

/* ---- the type ------------------------------------------------------------------------------- */

static void text_type(mb_h5_column *c, hid_t type)
{
    c->kind = MB_H5_TEXT;
    c->pointer = H5Tis_variable_str(type) > 0;
    c->pad = H5Tget_strpad(type);
    c->value_bytes = c->pointer ? sizeof(char *) : H5Tget_size(type);
    c->memory = H5Tcopy(type);
}

/* An enumeration is read as numbers; which names they have is kept. */
static mb_status enum_type(mb_h5_column *c, hid_t type)
{
    const int n = H5Tget_nmembers(type);
    const hid_t base = H5Tget_super(type);
    mb_status st = MB_OK;

    c->kind = MB_H5_INT;
    c->memory = H5Tcopy(H5T_NATIVE_INT64);
    if (n < 0 || n > MOST_MEMBERS || base < 0)
        st = MB_RAISE(c->file->code, "%s: the enumeration of '%s' cannot be read", c->file->name,
                      c->path);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&c->member, n + 1);
    for (int i = 0; i < n && st == MB_OK; i++) {
        union {
            char bytes[64];
            int64_t integer;
        } value = {{0}};
        char *name = H5Tget_member_name(type, (unsigned)i);

        if (name == NULL || H5Tget_size(type) > sizeof value ||
            H5Tget_member_value(type, (unsigned)i, &value) < 0 ||
            H5Tconvert(base, H5T_NATIVE_INT64, 1, &value, NULL, H5P_DEFAULT) < 0)
            st = mb_h5_fault(c->file, "read the enumeration of '%s'", c->path);
        else
            st = mb_strdup(name, &c->member[c->n_members].name);
        if (st == MB_OK)
            c->member[c->n_members++].value = value.integer;
        H5free_memory(name);
    }
    if (base >= 0)
        H5Tclose(base);
    if (c->n_members == 2 && strcasecmp(c->member[0].name, "FALSE") == 0 &&
        strcasecmp(c->member[1].name, "TRUE") == 0)
        c->kind = MB_H5_TRUTH;
    return st;
}

static mb_status no_value(const mb_h5_column *c, H5T_class_t class)
{
    static const struct {
        H5T_class_t class;
        const char *name;
    } names[] = {{H5T_COMPOUND, "compounds"},  {H5T_REFERENCE, "references"},
                 {H5T_OPAQUE, "opaque bytes"}, {H5T_BITFIELD, "bit fields"},
                 {H5T_ARRAY, "arrays"},        {H5T_VLEN, "lists of lists"}};
    const char *name = "values of a type that is not known";

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].class == class)
            name = names[i].name;
    return MB_RAISE(c->file->code,
                    "%s: '%s' holds %s; a column has integers, reals, booleans, texts or lists of "
                    "one of these",
                    c->file->name, c->path, name);
}

static mb_status value_type(mb_h5_column *c, hid_t type)
{
    const H5T_class_t class = H5Tget_class(type);
    const bool natural = class == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_NONE;

    c->value_bytes = 8;
    switch (class) {
    case H5T_INTEGER:
        MB_REQUIRE(H5Tget_size(type) <= 8, c->file->code, "%s: '%s' has integers of %zu bytes",
                   c->file->name, c->path, H5Tget_size(type));
        c->kind = natural ? MB_H5_UINT : MB_H5_INT;
        c->memory = H5Tcopy(natural ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64);
        return MB_OK;
    case H5T_FLOAT:
        c->kind = MB_H5_REAL;
        c->memory = H5Tcopy(H5T_NATIVE_DOUBLE);
        return MB_OK;
    case H5T_STRING:
        text_type(c, type);
        return MB_OK;
    case H5T_ENUM:
        return enum_type(c, type);
    default:
        return no_value(c, class);
    }
}

static mb_status row_type(mb_h5_column *c)
{
    const hid_t type = H5Dget_type(c->set);
    hid_t inner = H5I_INVALID_HID;
    mb_status st;

    if (type < 0)
        return mb_h5_fault(c->file, "read the type of '%s'", c->path);
    c->ragged = H5Tget_class(type) == H5T_VLEN;
    if (c->ragged)
        inner = H5Tget_super(type);
    st = value_type(c, c->ragged ? inner : type);
    if (st == MB_OK && c->ragged) {
        const hid_t memory = H5Tvlen_create(c->memory);

        H5Tclose(c->memory);
        c->memory = memory;
    }
    if (st == MB_OK && c->memory < 0)
        st = mb_h5_fault(c->file, "read the type of '%s'", c->path);
    if (inner >= 0)
        H5Tclose(inner);
    H5Tclose(type);
    return st;
}

/* ---- the shape, and where the bytes are ----------------------------------------------------- */

static mb_status shape(mb_h5_column *c)
{
    const hid_t space = H5Dget_space(c->set);
    const int n = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    hsize_t dim[2] = {0, 1};
    mb_status st = MB_OK;

    if (n < 1 || n > 2 || H5Sget_simple_extent_dims(space, dim, NULL) != n)
        st = MB_RAISE(c->file->code,
                      "%s: '%s' has %d dimensions; a column has 1, or 2 for lists of one length",
                      c->file->name, c->path, n);
    if (space >= 0)
        H5Sclose(space);
    MB_TRY(st);
    MB_REQUIRE(!c->ragged || n == 1, c->file->code,
               "%s: '%s' holds lists of lists; a column has lists of values", c->file->name,
               c->path);
    const size_t bytes = c->ragged ? sizeof(hvl_t) : c->value_bytes;
    MB_REQUIRE(dim[0] <= INT64_MAX && bytes > 0 && dim[1] <= MOST_ROW / bytes, c->file->code,
               "%s: '%s' has rows of %llu values of %zu bytes, at most %d MiB can be read",
               c->file->name, c->path, (unsigned long long)dim[1], bytes, MOST_ROW >> 20);
    c->rows = (int64_t)dim[0];
    c->width = (int64_t)dim[1];
    c->list = c->ragged || n == 2;
    return MB_OK;
}

static size_t chunk_bytes(const hsize_t dim[2], size_t size)
{
    const hsize_t most = size > 0 ? MOST_CHUNK / size : 0; /* values */

    if (dim[0] > most || (dim[0] > 0 && dim[1] > most / dim[0]))
        return SIZE_MAX;
    return (size_t)(dim[0] * dim[1]) * size;
}

/* Data of this file alone. *chunk: bytes of a chunk, 0 where there are none. */
static mb_status storage(const mb_h5_column *c, size_t *chunk)
{
    const hid_t list = H5Dget_create_plist(c->set), type = H5Dget_type(c->set);
    const H5D_layout_t layout = list >= 0 ? H5Pget_layout(list) : H5D_LAYOUT_ERROR;
    const bool elsewhere = layout == H5D_VIRTUAL || H5Pget_external_count(list) > 0;
    hsize_t dim[2] = {1, 1};
    mb_status st = MB_OK;

    *chunk = 0;
    if (layout == H5D_LAYOUT_ERROR || type < 0)
        st = mb_h5_fault(c->file, "read how '%s' is stored", c->path);
    else if (elsewhere)
        st = MB_RAISE(c->file->code, "%s: '%s' has its data in other files, which are not opened",
                      c->file->name, c->path);
    else if (layout == H5D_CHUNKED && H5Pget_chunk(list, 2, dim) > 0)
        *chunk = chunk_bytes(dim, H5Tget_size(type));
    if (st == MB_OK && *chunk > MOST_CHUNK)
        st = MB_RAISE(c->file->code, "%s: '%s' has chunks of more than %d MiB", c->file->name,
                      c->path, MOST_CHUNK >> 20);
    if (list >= 0)
        H5Pclose(list);
    if (type >= 0)
        H5Tclose(type);
    return st;
}

/* Opens the dataset again so that a chunk stays unpacked until the next slab, which may need it. */
static mb_status keep_chunk(mb_h5_column *c, size_t chunk)
{
    const hid_t access = H5Pcreate(H5P_DATASET_ACCESS);

    if (access >= 0 &&
        H5Pset_chunk_cache(access, H5D_CHUNK_CACHE_NSLOTS_DEFAULT, chunk, 1.0) >= 0) {
        H5Dclose(c->set);
        c->set = H5Dopen2(c->file->id, c->path, access);
    }
    if (access >= 0)
        H5Pclose(access);
    return c->set >= 0 ? MB_OK : mb_h5_fault(c->file, "open '%s'", c->path);
}

static mb_status open_inside(mb_h5_column *c)
{
    size_t chunk;

    c->set = H5Dopen2(c->file->id, c->path, H5P_DEFAULT);
    if (c->set < 0)
        return mb_h5_fault(c->file, "open '%s'", c->path);
    MB_TRY(storage(c, &chunk)); /* the shape of what lies in other files may be asked of those */
    MB_TRY(row_type(c));
    MB_TRY(shape(c));
    return chunk > SLAB_BYTES && chunk <= KEPT_CHUNK ? keep_chunk(c, chunk) : MB_OK;
}

mb_status mb_h5_column_open(mb_h5 *f, const char *path, mb_h5_column **out)
{
    mb_h5_column *c;
    mb_status st;

    MB_TRY(MB_NEW(&c));
    c->file = f;
    c->set = c->memory = H5I_INVALID_HID;
    MB_TRY_GOTO(mb_strdup(path, &c->path), st, fail);
    mb_h5_lock();
    st = open_inside(c);
    mb_h5_unlock();
    if (st != MB_OK)
        goto fail;
    *out = c;
    return MB_OK;
fail:
    mb_h5_column_close(c);
    return st;
}

static void drop_parts(mb_h5_column *c)
{
    for (struct part *p = c->part; p != NULL;) {
        struct part *next = p->next;

        mb_free(p);
        p = next;
    }
    c->part = NULL;
    c->taken = 0;
}

void mb_h5_column_close(mb_h5_column *c)
{
    if (c == NULL)
        return;
    mb_h5_lock();
    if (c->memory >= 0)
        H5Tclose(c->memory);
    if (c->set >= 0)
        H5Dclose(c->set);
    mb_h5_unlock();
    drop_parts(c);
    for (int i = 0; i < c->n_members; i++)
        mb_free(c->member[i].name);
    mb_free(c->member);
    mb_free(c->data);
    mb_free(c->path);
    mb_free(c);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void *take(size_t size, void *to)
{
    mb_h5_column *c = to;
    struct part *p = c->part;
    const size_t bytes = (size + 15) / 16 * 16;
    void *new;

    if (size > MOST_ROW || c->taken + bytes > MOST_ROW) {
        c->over = true;
        return NULL;
    }
    if (p == NULL || p->size - p->used < bytes) {
        const size_t room = bytes > PART_BYTES ? bytes : PART_BYTES;

        if (mb_alloc(sizeof *p + room, "a slab of rows", &new) != MB_OK)
            return NULL;
        p = new;
        *p = (struct part){.next = c->part, .size = room};
        c->part = p;
    }
    p->used += bytes;
    c->taken += bytes;
    return p->data + p->used - bytes;
}

/* HDF5 gives memory back when a read fails; the slab does that. */
static void leave(void *p, void *to)
{
}

static mb_status read_rows(const mb_h5_column *c, hid_t plist, int64_t from, int64_t n)
{
    const int ndim = c->list && !c->ragged ? 2 : 1;
    const hsize_t start[2] = {(hsize_t)from, 0}, size[2] = {(hsize_t)n, (hsize_t)c->width};
    const hid_t space = H5Dget_space(c->set), memory = H5Screate_simple(ndim, size, NULL);
    mb_status st = MB_OK;

    if (space < 0 || memory < 0 ||
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) < 0 ||
        H5Dread(c->set, c->memory, memory, space, plist, c->data) < 0)
        st = mb_h5_fault(c->file, "read '%s' from row %lld on", c->path, (long long)from + 1);
    mb_h5_close_block(H5I_INVALID_HID, space, memory);
    return st;
}

static mb_status load(mb_h5_column *c, int64_t row, size_t row_bytes, int64_t n)
{
    const hid_t plist = H5Pcreate(H5P_DATASET_XFER);
    mb_status st;

    if (plist < 0 || H5Pset_vlen_mem_manager(plist, take, c, leave, c) < 0)
        return mb_h5_fault(c->file, "prepare to read '%s'", c->path);
    for (;; n /= 2) { /* fewer rows, where these take too much */
        drop_parts(c);
        c->over = false;
        memset(c->data, 0, row_bytes * (size_t)n);
        st = read_rows(c, plist, row, n);
        if (!c->over)
            break;
        mb_status_clear();
        if (n == 1)
            break;
    }
    if (c->over)
        st = MB_RAISE(c->file->code, "%s: row %lld of '%s' takes more than %d MiB", c->file->name,
                      (long long)row + 1, c->path, MOST_ROW >> 20);
    H5Pclose(plist);
    c->from = row;
    c->n = st == MB_OK ? n : 0;
    return st;
}

mb_status mb_h5_column_seek(mb_h5_column *c, int64_t row)
{
    const size_t row_bytes = c->ragged ? sizeof(hvl_t) : c->value_bytes * (size_t)c->width;
    int64_t n = row_bytes > 0 ? SLAB_BYTES / (int64_t)row_bytes : SLAB_ROWS;
    mb_status st = MB_OK;

    if (row >= c->from && row < c->from + c->n)
        return MB_OK;
    MB_REQUIRE(row >= 0 && row < c->rows, c->file->code, "%s: '%s' has %lld rows", c->file->name,
               c->path, (long long)c->rows);
    n = n < 1 ? 1 : n > SLAB_ROWS ? SLAB_ROWS : n;
    n = n < c->rows - row ? n : c->rows - row;
    MB_TRY(
        mb_grow((void **)&c->data, &c->capacity, row_bytes * (size_t)n + 1, 1, "a slab of rows"));
    if (row_bytes == 0) { /* lists of no values */
        c->from = row;
        c->n = n;
        return MB_OK;
    }
    mb_h5_lock();
    st = load(c, row, row_bytes, n);
    mb_h5_unlock();
    return st;
}

int64_t mb_h5_column_rows(const mb_h5_column *c)
{
    return c->rows;
}

bool mb_h5_column_is_list(const mb_h5_column *c)
{
    return c->list;
}

static hvl_t ragged_row(const mb_h5_column *c, int64_t row)
{
    hvl_t list;

    memcpy(&list, c->data + (size_t)(row - c->from) * sizeof list, sizeof list);
    return list;
}

int64_t mb_h5_column_count(const mb_h5_column *c, int64_t row)
{
    return c->ragged ? (int64_t)ragged_row(c, row).len : c->width;
}

/* A text of fixed length, without what fills it up. */
static size_t text_bytes(const mb_h5_column *c, const char *text)
{
    size_t n = c->value_bytes;

    if (c->pad == H5T_STR_NULLTERM)
        return strnlen(text, n);
    while (n > 0 && (text[n - 1] == '\0' || (c->pad == H5T_STR_SPACEPAD && text[n - 1] == ' ')))
        n--;
    return n;
}

static void set_member(const mb_h5_column *c, mb_h5_value *v)
{
    for (int i = 0; i < c->n_members && v->kind == MB_H5_INT; i++) {
        if (c->member[i].value != v->integer)
            continue;
        v->kind = MB_H5_TEXT;
        v->text = c->member[i].name;
        v->n = strlen(v->text);
    }
}

mb_h5_value mb_h5_column_value(const mb_h5_column *c, int64_t row, int64_t i)
{
    const char *p = c->ragged ? ragged_row(c, row).p : c->data;
    mb_h5_value v = {.kind = c->kind};

    p += (size_t)(c->ragged ? i : (row - c->from) * c->width + i) * c->value_bytes;
    if (c->kind == MB_H5_REAL) {
        memcpy(&v.real, p, sizeof v.real);
    } else if (c->kind != MB_H5_TEXT) {
        memcpy(&v.integer, p, sizeof v.integer);
        set_member(c, &v);
    } else if (c->pointer) {
        memcpy(&v.text, p, sizeof v.text);
        v.n = v.text != NULL ? strlen(v.text) : 0; /* NULL is how HDF5 keeps an empty text */
    } else {
        v.text = p;
        v.n = text_bytes(c, p);
    }
    return v;
}
