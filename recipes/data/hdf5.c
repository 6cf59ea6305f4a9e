/* recipes/data/hdf5.c - see recipes/data/hdf5.h. */
#include "recipes/data/hdf5.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "dist/h5_column.h"
#include "recipes/tokenizers/bytes.h"

enum { MOST_ROW = 64 << 20 };

struct mb_hdf5 {
    char *path;
    mb_h5 *file;
    char **name;
    mb_h5_column **column;
    size_t n;
    int64_t rows, row;
    mb_bytes text;
};

/* ---- names ---------------------------------------------------------------------------------- */

static bool has_ending(const char *path)
{
    return mb_path_has_suffix(path, ".h5") || mb_path_has_suffix(path, ".hdf5");
}

bool mb_hdf5_file(const char *path, char *file, size_t size, const char **group)
{
    const char *end = path + strlen(path);
    bool found = has_ending(path);

    for (const char *s = path; !found && (s = strchr(s + 1, '/')) != NULL;) {
        snprintf(file, size, "%.*s", (int)(s - path), path);
        if (has_ending(file) && mb_path_is_file(file)) {
            end = s;
            found = true;
        }
    }
    snprintf(file, size, "%.*s", (int)(end - path), path);
    if (group != NULL)
        *group = end;
    return found;
}

/* "a, b, c" of the groups in `in`, for a message. */
static void list_groups(mb_h5 *f, const char *in, char *text, size_t size)
{
    char **name = NULL;
    size_t n = 0, at = 0;

    snprintf(text, size, "none");
    if (mb_h5_list(f, in, MB_H5_GROUPS, &name, &n) != MB_OK)
        mb_status_clear();
    for (size_t i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i > 0 ? ", " : "", name[i]);
    mb_path_list_free(name, n);
}

static bool has_datasets(mb_h5 *f, const char *group, mb_status *st)
{
    char **name = NULL;
    size_t n = 0;

    *st = mb_h5_list(f, group, MB_H5_DATASETS, &name, &n);
    mb_path_list_free(name, n);
    return n > 0;
}

/* The group below `in` that is called like one of the names, as the rest of a path. */
static mb_status group_of(mb_h5 *f, const char *in, const char *const *names, char *out,
                          size_t size)
{
    const char *root = strcmp(in, "/") == 0 ? "" : in;
    char file[MB_PATH_MAX], groups[200];

    snprintf(file, sizeof file, "%s", out);
    for (int i = 0; names[i] != NULL; i++) {
        char group[MB_PATH_MAX];

        snprintf(group, sizeof group, "%s/%s", root, names[i]);
        if (names[i][0] != '\0' && mb_h5_has(f, group)) {
            MB_REQUIRE(snprintf(out, size, "%s%s", file, group) < (int)size, MB_EDATA,
                       "%s: the name of the group is too long", file);
            return MB_OK;
        }
    }
    list_groups(f, in, groups, sizeof groups);
    return MB_RAISE(MB_EDATA,
                    "%s: the group %s has no datasets, which would be the columns, and no group %s "
                    "of the split; its groups: %s",
                    file, in, names[0], groups);
}

mb_status mb_hdf5_find(const char *path, const char *const *names, char *out, size_t size)
{
    char file[MB_PATH_MAX];
    const char *group;
    mb_h5 *f;
    mb_status st;

    mb_hdf5_file(path, file, sizeof file, &group);
    MB_TRY(mb_h5_open(file, MB_EDATA, &f));
    snprintf(out, size, "%s", path);
    if (!has_datasets(f, group[0] != '\0' ? group : "/", &st) && st == MB_OK) {
        snprintf(out, size, "%s", file);
        st = group_of(f, group[0] != '\0' ? group : "/", names, out, size);
    }
    const mb_status closed = mb_h5_close(f);
    return st == MB_OK ? closed : st;
}

/* ---- opening -------------------------------------------------------------------------------- */

static mb_status open_columns(mb_hdf5 *h, const char *group)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_h5_list(h->file, group, MB_H5_DATASETS, &h->name, &h->n));
    MB_REQUIRE(h->n > 0, MB_EDATA, "%s: the group %s has no datasets, which would be the columns",
               h->path, group);
    MB_TRY(MB_NEW_ARRAY(&h->column, h->n));
    for (size_t i = 0; i < h->n; i++) {
        MB_TRY(mb_path_join(path, sizeof path, group, h->name[i]));
        MB_TRY(mb_h5_column_open(h->file, path, &h->column[i]));
        const int64_t rows = mb_h5_column_rows(h->column[i]);

        h->rows = i == 0 ? rows : h->rows;
        MB_REQUIRE(rows == h->rows, MB_EDATA,
                   "%s: the columns do not have the same rows: %s has %lld, %s %lld", h->path,
                   h->name[0], (long long)h->rows, h->name[i], (long long)rows);
    }
    return MB_OK;
}

mb_status mb_hdf5_open(const char *path, mb_hdf5 **out)
{
    char file[MB_PATH_MAX];
    const char *group;
    int64_t size;
    mb_hdf5 *h;
    int fd;
    mb_status st;

    mb_hdf5_file(path, file, sizeof file, &group);
    MB_TRY(mb_file_open(file, MB_EDATA, &fd, &size)); /* what is no file is said as of the others */
    close(fd);
    MB_TRY(MB_NEW(&h));
    MB_TRY_GOTO(mb_strdup(path, &h->path), st, fail);
    MB_TRY_GOTO(mb_h5_open(file, MB_EDATA, &h->file), st, fail);
    MB_TRY_GOTO(open_columns(h, group[0] != '\0' ? group : "/"), st, fail);
    *out = h;
    return MB_OK;
fail:
    mb_hdf5_close(h);
    return st;
}

void mb_hdf5_close(mb_hdf5 *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; i < h->n && h->column != NULL; i++)
        mb_h5_column_close(h->column[i]);
    mb_free(h->column);
    mb_path_list_free(h->name, h->n);
    if (mb_h5_close(h->file) != MB_OK)
        mb_status_clear(); /* nothing was written */
    mb_bytes_release(&h->text);
    mb_free(h->path);
    mb_free(h);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static mb_status put_value(mb_bytes *out, const mb_h5_value *v)
{
    switch (v->kind) {
    case MB_H5_INT:
        return mb_bytes_printf(out, "%lld", (long long)v->integer);
    case MB_H5_UINT: /* more than JSON's integers hold here is a real */
        return v->integer >= 0 ? mb_bytes_printf(out, "%lld", (long long)v->integer)
                               : mb_bytes_printf(out, "%.17g", (double)(uint64_t)v->integer);
    case MB_H5_REAL:
        return isfinite(v->real) ? mb_bytes_printf(out, "%.17g", v->real)
                                 : mb_bytes_puts(out, "null");
    case MB_H5_TRUTH:
        return mb_bytes_puts(out, v->integer != 0 ? "true" : "false");
    case MB_H5_TEXT:
        break;
    }
    return mb_bytes_json(out, v->text, v->n); /* what is no UTF-8 the row's parser refuses */
}

static mb_status put_cell(mb_hdf5 *h, size_t k)
{
    mb_h5_column *c = h->column[k];
    const bool list = mb_h5_column_is_list(c);

    MB_TRY(mb_h5_column_seek(c, h->row));
    MB_TRY(mb_bytes_json(&h->text, h->name[k], strlen(h->name[k])));
    MB_TRY(mb_bytes_puts(&h->text, list ? ":[" : ":"));
    const int64_t n = mb_h5_column_count(c, h->row);
    for (int64_t i = 0; i < n; i++) {
        const mb_h5_value v = mb_h5_column_value(c, h->row, i);

        if (i > 0)
            MB_TRY(mb_bytes_puts(&h->text, ","));
        MB_TRY(put_value(&h->text, &v));
        MB_REQUIRE(h->text.n <= MOST_ROW, MB_EDATA, "%s:%lld: the row has more than %d MiB",
                   h->path, (long long)h->row + 1, MOST_ROW >> 20);
    }
    return mb_bytes_puts(&h->text, list ? "]" : "");
}

mb_status mb_hdf5_next(mb_hdf5 *h, const char **text, size_t *n, bool *more)
{
    *more = h->row < h->rows;
    if (!*more)
        return MB_OK;
    h->text.n = 0;
    for (size_t k = 0; k < h->n; k++) {
        MB_TRY(mb_bytes_puts(&h->text, k > 0 ? "," : "{"));
        MB_TRY(put_cell(h, k));
    }
    MB_TRY(mb_bytes_puts(&h->text, "}"));
    MB_TRY(mb_bytes_end(&h->text));
    h->row++;
    *text = h->text.p;
    *n = h->text.n;
    return MB_OK;
}
