/* recipes/data/rowfile.h - where the rows of a data file begin and end, without looking into them.
 *
 *     .jsonl           one JSON object per line
 *     .json            a list of objects, {"data": [...]}, or objects one after the other; of
 *                      SQuAD's articles every question is a row (recipes/data/nested.h)
 *     .csv .tsv        RFC 4180: a header row, then rows; a quoted field may hold newlines
 *     .txt             pieces of at most 1 MiB cut at line ends (MB_TEXT_FILE), or one row per line
 *                      or per block of lines
 *     .parquet         columns (recipes/data/parquet.h)
 *     .h5 .hdf5        columns (recipes/data/hdf5.h), perhaps of a group: rows.h5/train
 *
 * Each but the last two may be packed: .gz or .zst behind the ending (recipes/data/unpack.h). The file is streamed: memory is bounded by the longest row, which may have 64 MiB. A byte order
 * mark at the start, CRLF line ends and a missing last newline are fine; blank lines are skipped.
 * What is inside a row is checked when it is parsed (recipes/data/records.h); an error that makes
 * it impossible to know where the next row begins is MB_EDATA here. Messages begin with "file:line:".
 */
#ifndef MB_RECIPES_DATA_ROWFILE_H
#define MB_RECIPES_DATA_ROWFILE_H

#include <stdint.h>

#include "core/status.h"

typedef enum mb_rowfile_kind {
    MB_ROWFILE_JSONL,
    MB_ROWFILE_JSON,
    MB_ROWFILE_CSV,
    MB_ROWFILE_TSV,
    MB_ROWFILE_TXT,
    MB_ROWFILE_PARQUET, /* its rows are given as JSON objects; lines are their numbers */
    MB_ROWFILE_HDF5,    /* as Parquet */
    MB_ROWFILE_SIDES,   /* two text files: {"source": a line, "target": the other's} */
} mb_rowfile_kind;

typedef enum mb_text_unit { MB_TEXT_FILE, MB_TEXT_LINE, MB_TEXT_PARAGRAPH } mb_text_unit;

typedef struct mb_row_text {
    const char *text; /* borrowed until the next row is asked for; not zero-terminated */
    size_t n;
    int64_t line;   /* on which the row begins, from 1 */
    int64_t record; /* of mb_records_next: how many the file has before it */
} mb_row_text;

typedef struct mb_rowfile mb_rowfile;

/* From the file name's ending. MB_EDATA for an ending that is not known. */
mb_status mb_rowfile_kind_of(const char *path, mb_rowfile_kind *out) MB_MUST_USE;
/* Opens a regular file and skips a byte order mark. The caller owns *out. */
mb_status mb_rowfile_open(const char *path, mb_rowfile_kind kind, mb_text_unit unit,
                          mb_rowfile **out) MB_MUST_USE;
/* Two text files whose lines belong together; both blank: left out. MB_EDATA: one has more lines. */
mb_status mb_rowfile_open_sides(const char *from, const char *to, mb_rowfile **out) MB_MUST_USE;
void mb_rowfile_close(mb_rowfile *r); /* NULL is allowed */
/* *more is false, and *row untouched, after the last row. The header of a table is a row here. */
mb_status mb_rowfile_next(mb_rowfile *r, mb_row_text *row, bool *more) MB_MUST_USE;

/* Cuts one row of a table at `delimiter` and takes the quotes off. `out` needs room for n+1 bytes
 * and receives the fields, each zero-terminated; returns their number in *n_fields and the start of
 * the first max_fields of them in field[]. MB_EDATA (without a place) for text after a closing
 * quote. */
mb_status mb_rowfile_fields(const char *text, size_t n, char delimiter, char *out,
                            const char **field, int max_fields, int *n_fields) MB_MUST_USE;

/* Is this UTF-8, without zero bytes? The offset of the first byte that is not, or -1. */
int64_t mb_utf8_fault(const char *text, size_t n);

#endif
