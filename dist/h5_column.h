/* dist/h5_column.h - datasets that others wrote, read as columns of a table.
 *
 *     MB_TRY(mb_h5_list(f, "/train", MB_H5_DATASETS, &name, &n));     // mb_path_list_free
 *     MB_TRY(mb_h5_column_open(f, "/train/text", &c));
 *     for (row = 0; row < mb_h5_column_rows(c); row++) {
 *         MB_TRY_GOTO(mb_h5_column_seek(c, row), st, done);
 *         for (i = 0; i < mb_h5_column_count(c, row); i++)
 *             v = mb_h5_column_value(c, row, i);
 *     }
 *     mb_h5_column_close(c);                                          // before the file
 *
 * A row has one value, or a list of them: of two dimensions, or of variable length. Values are
 * integers and reals of any size and byte order, texts of fixed and variable length, and enumerations:
 * h5py's booleans, or names. Rows are read in slabs of about 1 MiB, fewer where their parts of variable
 * length take more than 64 MiB; a chunk is unpacked once. Links and data in other files are refused: a
 * file from elsewhere does not open others of this machine.
 *
 * Errors have the file's code and begin with its name.
 */
#ifndef MB_DIST_H5_COLUMN_H
#define MB_DIST_H5_COLUMN_H

#include "dist/h5.h"

typedef enum mb_h5_what { MB_H5_DATASETS, MB_H5_GROUPS } mb_h5_what;

/* The names of what is in a group, sorted by bytes; at most 1024. `group` begins with '/'. The caller
 * frees with mb_path_list_free. */
mb_status mb_h5_list(mb_h5 *f, const char *group, mb_h5_what what, char ***name,
                     size_t *n) MB_MUST_USE;

typedef enum mb_h5_kind { MB_H5_INT, MB_H5_UINT, MB_H5_REAL, MB_H5_TRUTH, MB_H5_TEXT } mb_h5_kind;

typedef struct mb_h5_value {
    mb_h5_kind kind;
    int64_t integer; /* of MB_H5_INT, MB_H5_TRUTH; the bits of MB_H5_UINT */
    double real;
    const char *text; /* n bytes, whatever they are; borrowed until the next seek */
    size_t n;
} mb_h5_value;

typedef struct mb_h5_column mb_h5_column;

/* f is borrowed. Errors: more than two dimensions, an element type without a value above, rows or
 * chunks that are too large, data in other files. The caller owns *out. */
mb_status mb_h5_column_open(mb_h5 *f, const char *path, mb_h5_column **out) MB_MUST_USE;
void mb_h5_column_close(mb_h5_column *c); /* NULL is allowed */

int64_t mb_h5_column_rows(const mb_h5_column *c);
bool mb_h5_column_is_list(const mb_h5_column *c);
/* Reads the slab that begins with the row, where it is not there already. */
mb_status mb_h5_column_seek(mb_h5_column *c, int64_t row) MB_MUST_USE;
/* Of the row that was sought last. */
int64_t mb_h5_column_count(const mb_h5_column *c, int64_t row); /* 1 where it is no list */
mb_h5_value mb_h5_column_value(const mb_h5_column *c, int64_t row, int64_t i);

#endif
