/* recipes/data/rowfile.c - see recipes/data/rowfile.h. */
#include "recipes/data/rowfile.h"

#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/data/hdf5.h"
#include "recipes/data/nested.h"
#include "recipes/data/parquet.h"
#include "recipes/data/unpack.h"

enum {
    BUFFER = 1 << 20,     /* first size of the buffer */
    ROW_LIMIT = 64 << 20, /* the longest row */
    TEXT_PIECE = 1 << 20, /* of a text file */
};

struct mb_rowfile {
    char *path;
    mb_rowfile_kind kind;
    mb_text_unit unit;
    mb_unpack *file;
    mb_parquet *parquet;
    mb_hdf5 *hdf5;
    mb_nested *nested; /* the rows inside the element read last; NULL: it is a row itself */
    int64_t nested_line;
    mb_rowfile *other; /* of sides: the target's */
    char *sides;       /* the row given last */
    bool eof;
    char *buf;
    size_t cap, at, len; /* buf[at..len) has not been given out */
    int64_t line;        /* of buf[at] */
    enum { BEFORE, IN_LIST, IN_DATA, IN_STREAM, AFTER } json;
    bool first; /* no element of the list was read yet */
};

mb_status mb_rowfile_kind_of(const char *path, mb_rowfile_kind *out)
{
    static const struct {
        const char *ending;
        mb_rowfile_kind kind;
    } endings[] = {
        {".jsonl", MB_ROWFILE_JSONL},     {".ndjson", MB_ROWFILE_JSONL}, {".json", MB_ROWFILE_JSON},
        {".csv", MB_ROWFILE_CSV},         {".tsv", MB_ROWFILE_TSV},      {".txt", MB_ROWFILE_TXT},
        {".parquet", MB_ROWFILE_PARQUET},
    };
    char file[MB_PATH_MAX];
    const size_t stem = mb_unpack_stem(path);

    if (mb_hdf5_file(path, file, sizeof file, NULL)) {
        *out = MB_ROWFILE_HDF5;
        return MB_OK;
    }
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        const size_t n = strlen(endings[i].ending);

        if (stem >= n && memcmp(path + stem - n, endings[i].ending, n) == 0) {
            *out = endings[i].kind;
            return MB_OK;
        }
    }
    MB_REQUIRE(!mb_path_has_suffix(path, ".arrow"), MB_EDATA,
               "%s: Arrow files are not read; write Parquet or JSONL from it, in Python: "
               "datasets.Dataset.from_file(\"%s\").to_json(\"rows.jsonl\")",
               path, path);
    return MB_RAISE(
        MB_EDATA,
        "%s: the name must end in .jsonl, .json, .csv, .tsv or .txt, perhaps with .gz or "
        ".zst behind it, or in .parquet, .h5 or .hdf5",
        path);
}

/* Reads more bytes behind buf[len); sets eof when there are none. */
static mb_status fill(mb_rowfile *r)
{
    if (r->at > 0) {
        memmove(r->buf, r->buf + r->at, r->len - r->at);
        r->len -= r->at;
        r->at = 0;
    }
    if (r->len == r->cap) {
        MB_REQUIRE(r->cap < ROW_LIMIT, MB_EDATA,
                   "%s:%lld: the row that begins here is longer than %d MiB%s", r->path,
                   (long long)r->line, ROW_LIMIT >> 20,
                   r->kind == MB_ROWFILE_CSV || r->kind == MB_ROWFILE_TSV
                       ? " (is a quote unclosed?)"
                       : "");
        MB_TRY(mb_grow((void **)&r->buf, &r->cap, r->cap * 2, 1, "a row of a data file"));
    }
    size_t got;

    MB_TRY(mb_unpack_read(r->file, r->buf + r->len, r->cap - r->len, &got));
    r->eof = got == 0;
    r->len += got;
    return MB_OK;
}

/* The byte i places on, or -1 at the end of the file. */
static mb_status peek(mb_rowfile *r, size_t i, int *c)
{
    while (r->len - r->at <= i && !r->eof)
        MB_TRY(fill(r));
    *c = r->len - r->at > i ? (unsigned char)r->buf[r->at + i] : -1;
    return MB_OK;
}

/* Moves past n bytes that are in the buffer. */
static void advance(mb_rowfile *r, size_t n)
{
    const char *from = r->buf + r->at, *end = from + n;

    while ((from = memchr(from, '\n', (size_t)(end - from))) != NULL) {
        r->line++;
        from++;
    }
    r->at += n;
}

mb_status mb_rowfile_open(const char *path, mb_rowfile_kind kind, mb_text_unit unit,
                          mb_rowfile **out)
{
    mb_rowfile *r;
    mb_status st;
    int c[3] = {-1, -1, -1};

    MB_TRY(MB_NEW(&r));
    r->kind = kind;
    r->unit = unit;
    r->line = 1;
    MB_TRY_GOTO(mb_strdup(path, &r->path), st, fail);
    if (kind == MB_ROWFILE_PARQUET || kind == MB_ROWFILE_HDF5) {
        st = kind == MB_ROWFILE_HDF5 ? mb_hdf5_open(path, &r->hdf5)
                                     : mb_parquet_open(path, &r->parquet);
        MB_TRY_GOTO(st, st, fail);
        r->line = 0;
        *out = r;
        return MB_OK;
    }
    MB_TRY_GOTO(mb_unpack_open(path, &r->file), st, fail);
    MB_TRY_GOTO(mb_grow((void **)&r->buf, &r->cap, BUFFER, 1, "a data file's buffer"), st, fail);
    for (int i = 0; i < 3; i++)
        MB_TRY_GOTO(peek(r, (size_t)i, &c[i]), st, fail);
    if (c[0] == 0xef && c[1] == 0xbb && c[2] == 0xbf)
        r->at += 3;
    if ((c[0] == 0xff && c[1] == 0xfe) || (c[0] == 0xfe && c[1] == 0xff)) {
        st = MB_RAISE(MB_EDATA, "%s: the file is UTF-16, it must be UTF-8", path);
        goto fail;
    }
    *out = r;
    return MB_OK;
fail:
    mb_rowfile_close(r);
    return st;
}

mb_status mb_rowfile_open_sides(const char *from, const char *to, mb_rowfile **out)
{
    mb_rowfile *r;
    mb_status st;

    MB_TRY(mb_rowfile_open(from, MB_ROWFILE_TXT, MB_TEXT_LINE, &r));
    st = mb_rowfile_open(to, MB_ROWFILE_TXT, MB_TEXT_LINE, &r->other);
    if (st != MB_OK) {
        mb_rowfile_close(r);
        return st;
    }
    r->kind = MB_ROWFILE_SIDES;
    *out = r;
    return MB_OK;
}

void mb_rowfile_close(mb_rowfile *r)
{
    if (r == NULL)
        return;
    mb_unpack_close(r->file);
    mb_parquet_close(r->parquet);
    mb_hdf5_close(r->hdf5);
    mb_nested_close(r->nested);
    mb_rowfile_close(r->other);
    mb_free(r->sides);
    mb_free(r->buf);
    mb_free(r->path);
    mb_free(r);
}

static bool is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r' && s[i] != '\n')
            return false;
    }
    return true;
}

/* Bytes of the next line with its newline, 0 at the end of the file. */
static mb_status line_bytes(mb_rowfile *r, size_t from, size_t *n)
{
    for (;;) {
        const size_t have = r->len - r->at;
        const char *end = have > from ? memchr(r->buf + r->at + from, '\n', have - from) : NULL;

        if (end != NULL) {
            *n = (size_t)(end - (r->buf + r->at)) + 1 - from;
            return MB_OK;
        }
        if (r->eof) {
            *n = have - from;
            return MB_OK;
        }
        MB_TRY(fill(r));
    }
}

/* Gives out n bytes as a row, without the newline at their end. */
static void give(mb_rowfile *r, size_t n, mb_row_text *row)
{
    row->text = r->buf + r->at;
    row->line = r->line;
    advance(r, n);
    if (n > 0 && row->text[n - 1] == '\n')
        n--;
    if (n > 0 && row->text[n - 1] == '\r')
        n--;
    row->n = n;
}

static mb_status next_line(mb_rowfile *r, mb_row_text *row, bool *more)
{
    for (;;) {
        size_t n = 0;

        MB_TRY(line_bytes(r, 0, &n));
        *more = n > 0;
        if (n == 0)
            return MB_OK;
        if (!is_blank(r->buf + r->at, n)) {
            give(r, n, row);
            return MB_OK;
        }
        advance(r, n);
    }
}

/* A line of each side, blank ones too: they belong together by their numbers. */
static mb_status read_sides(mb_rowfile *r, mb_row_text text[2], bool *more)
{
    mb_rowfile *const file[2] = {r, r->other};
    size_t n[2];

    for (int i = 0; i < 2; i++)
        MB_TRY(line_bytes(file[i], 0, &n[i]));
    *more = n[0] > 0;
    MB_REQUIRE((n[0] > 0) == (n[1] > 0), MB_EDATA, "%s has %lld lines and %s more",
               file[n[0] > 0]->path, (long long)file[n[0] > 0]->line - 1, file[n[0] == 0]->path);
    for (int i = 0; *more && i < 2; i++)
        give(file[i], n[i], &text[i]);
    return MB_OK;
}

static mb_status set_side(mb_rowfile *r, mb_json row, const char *key, const mb_row_text *t)
{
    char *text;
    mb_status st;

    const int64_t bad = mb_utf8_fault(t->text, t->n);
    MB_REQUIRE(bad < 0, MB_EDATA, "%s:%lld: byte %lld of the line is not UTF-8, or zero", r->path,
               (long long)t->line, (long long)bad + 1);
    MB_TRY(mb_strndup(t->text, t->n, &text));
    st = mb_json_set_string(row, key, text);
    mb_free(text);
    return st;
}

static mb_status next_sides(mb_rowfile *r, mb_row_text *row, bool *more)
{
    mb_row_text text[2] = {{0}};
    mb_json_doc *doc;
    mb_status st;

    do
        MB_TRY(read_sides(r, text, more));
    while (*more && is_blank(text[0].text, text[0].n) && is_blank(text[1].text, text[1].n));
    if (!*more)
        return MB_OK;
    mb_free(r->sides);
    r->sides = NULL;
    row->line = text[0].line;
    MB_TRY(mb_json_doc_new("a pair", &doc));
    st = set_side(r, mb_json_root(doc), "source", &text[0]);
    if (st == MB_OK)
        st = set_side(r->other, mb_json_root(doc), "target", &text[1]);
    if (st == MB_OK)
        st = mb_json_text(mb_json_root(doc), 0, &r->sides, &row->n);
    row->text = r->sides;
    mb_json_free(doc);
    return st;
}

/* Lines up to a blank one, or up to TEXT_PIECE bytes. */
static mb_status next_block(mb_rowfile *r, mb_row_text *row, bool *more)
{
    const bool whole = r->unit == MB_TEXT_FILE;
    size_t n = 0, line = 0;

    for (;;) {
        MB_TRY(line_bytes(r, n, &line));
        if (line == 0)
            break;
        const bool blank = is_blank(r->buf + r->at + n, line);

        if (blank && n == 0) {
            advance(r, line);
            continue;
        }
        if (whole ? n > 0 && n + line > TEXT_PIECE : blank)
            break;
        n += line;
    }
    *more = n > 0;
    if (n > 0 && whole) {
        *row = (mb_row_text){.text = r->buf + r->at, .n = n, .line = r->line};
        advance(r, n);
    } else if (n > 0) {
        give(r, n, row);
    }
    return MB_OK;
}

/* Where a scan of a table's row stands in its field. */
enum { FIELD_START, FIELD_PLAIN, FIELD_QUOTED, FIELD_CLOSED };

/* A quote opens only at the start of a field; inside, two quotes stand for one. */
static int field_state(int state, int c, char delimiter)
{
    if (state == FIELD_QUOTED)
        return c == '"' ? FIELD_CLOSED : FIELD_QUOTED;
    if (c == delimiter)
        return FIELD_START;
    if (c == '"' && state != FIELD_PLAIN)
        return FIELD_QUOTED;
    return FIELD_PLAIN;
}

/* A row of a table ends at a newline outside quotes. */
static mb_status next_table_row(mb_rowfile *r, mb_row_text *row, bool *more)
{
    const char delimiter = r->kind == MB_ROWFILE_CSV ? ',' : '\t';

    for (;;) {
        int state = FIELD_START, c = -1;
        size_t n = 0;

        for (;; n++) {
            MB_TRY(peek(r, n, &c));
            if (c < 0 || (c == '\n' && state != FIELD_QUOTED))
                break;
            state = field_state(state, c, delimiter);
        }
        MB_REQUIRE(state != FIELD_QUOTED, MB_EDATA,
                   "%s:%lld: a quote opened in this row is never closed", r->path,
                   (long long)r->line);
        n += c == '\n';
        *more = n > 0;
        if (n == 0)
            return MB_OK;
        if (!is_blank(r->buf + r->at, n)) {
            give(r, n, row);
            return MB_OK;
        }
        advance(r, n);
    }
}

static mb_status skip_space(mb_rowfile *r, int *c)
{
    for (;;) {
        MB_TRY(peek(r, 0, c));
        if (*c != ' ' && *c != '\t' && *c != '\r' && *c != '\n')
            return MB_OK;
        advance(r, 1);
    }
}

/* Bytes of the JSON value that begins here: to the bracket that closes it, or, for a scalar, to the
 * next comma, bracket or space. What is inside is the parser's business. */
static mb_status value_bytes(mb_rowfile *r, size_t *n)
{
    int64_t depth = 0;
    bool in_string = false;

    for (size_t i = 0;; i++) {
        int c = -1;

        MB_TRY(peek(r, i, &c));
        MB_REQUIRE(c >= 0 || (depth == 0 && !in_string), MB_EDATA,
                   "%s:%lld: the JSON value that begins here does not end", r->path,
                   (long long)r->line);
        if (in_string && c == '\\') {
            i++;
            continue;
        }
        if (c == '"')
            in_string = !in_string;
        else if (in_string)
            continue;
        else if (c == '{' || c == '[')
            depth++;
        else if (depth > 0 && (c == '}' || c == ']'))
            depth--;
        else if (depth == 0 && (c < 0 || strchr(",]}: \t\r\n", c) != NULL)) {
            *n = i;
            return MB_OK;
        }
        if (depth == 0 && !in_string && (c == '"' || c == '}' || c == ']')) {
            *n = i + 1;
            return MB_OK;
        }
    }
}

static mb_status expect(mb_rowfile *r, char want, const char *what)
{
    int c = -1;

    MB_TRY(skip_space(r, &c));
    MB_REQUIRE(c >= 0, MB_EDATA, "%s:%lld: the file ends where %s was expected", r->path,
               (long long)r->line, what);
    MB_REQUIRE(c == want, MB_EDATA, "%s:%lld: found '%c' where %s was expected", r->path,
               (long long)r->line, c >= 32 && c < 127 ? c : '?', what);
    advance(r, 1);
    return MB_OK;
}

/* Is the object that begins here {"data": [...]}? Looks at its first key only when that is "data",
 * else walks its members without moving. */
static mb_status has_data_list(mb_rowfile *r, size_t *list_at)
{
    int64_t depth = 0;
    size_t key_at = 0;
    bool in_string = false, key_is_data = false;

    *list_at = 0;
    for (size_t i = 0;; i++) {
        int c = -1;

        MB_TRY(peek(r, i, &c));
        if (c < 0)
            return MB_OK;
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"') {
                in_string = false;
                if (depth == 1)
                    key_is_data =
                        i - key_at == 5 && memcmp(r->buf + r->at + key_at, "\"data", 5) == 0;
            }
            continue;
        }
        if (c == '"') {
            in_string = true;
            key_at = i;
        } else if (c == '{' || c == '[') {
            if (c == '[' && depth == 1 && key_is_data) {
                *list_at = i;
                return MB_OK;
            }
            depth++;
        } else if (c == '}' || c == ']') {
            if (--depth == 0)
                return MB_OK;
        } else if (c == ',') {
            key_is_data = false;
        }
    }
}

static mb_status begin_json(mb_rowfile *r)
{
    size_t list_at = 0;
    int c = -1;

    MB_TRY(skip_space(r, &c));
    if (c < 0) {
        r->json = AFTER;
    } else if (c == '[') {
        advance(r, 1);
        r->json = IN_LIST;
    } else {
        MB_REQUIRE(c == '{', MB_EDATA,
                   "%s:%lld: a JSON data file begins with [ or {, not with '%c'", r->path,
                   (long long)r->line, c >= 32 && c < 127 ? c : '?');
        MB_TRY(has_data_list(r, &list_at));
        r->json = list_at > 0 ? IN_DATA : IN_STREAM;
        if (list_at > 0)
            advance(r, list_at + 1);
    }
    r->first = true;
    return MB_OK;
}

/* After the list: nothing, or the rest of the object around it. */
static mb_status end_json(mb_rowfile *r)
{
    int c = -1;

    while (r->json == IN_DATA) {
        size_t n = 0;

        MB_TRY(skip_space(r, &c));
        if (c != ',')
            break;
        advance(r, 1);
        MB_TRY(skip_space(r, &c));
        MB_TRY(value_bytes(r, &n));
        advance(r, n);
        MB_TRY(expect(r, ':', "a colon"));
        MB_TRY(skip_space(r, &c));
        MB_TRY(value_bytes(r, &n));
        advance(r, n);
    }
    if (r->json == IN_DATA)
        MB_TRY(expect(r, '}', "the end of the object"));
    r->json = AFTER;
    MB_TRY(skip_space(r, &c));
    MB_REQUIRE(c < 0, MB_EDATA, "%s:%lld: text after the end of the list", r->path,
               (long long)r->line);
    return MB_OK;
}

static mb_status next_element(mb_rowfile *r, mb_row_text *row, bool *more)
{
    size_t n = 0;
    int c = -1;

    *more = false;
    if (r->json == BEFORE)
        MB_TRY(begin_json(r));
    if (r->json == AFTER)
        return MB_OK;
    MB_TRY(skip_space(r, &c));
    if (r->json == IN_STREAM) {
        if (c < 0) {
            r->json = AFTER;
            return MB_OK;
        }
    } else if (c == ']') {
        advance(r, 1);
        return end_json(r);
    } else if (!r->first) {
        MB_TRY(expect(r, ',', "a comma or the end of the list"));
        MB_TRY(skip_space(r, &c));
    }
    r->first = false;
    MB_TRY(value_bytes(r, &n));
    MB_REQUIRE(n > 0, MB_EDATA, "%s:%lld: a JSON value is missing here", r->path,
               (long long)r->line);
    *row = (mb_row_text){.text = r->buf + r->at, .n = n, .line = r->line};
    advance(r, n);
    *more = true;
    return MB_OK;
}

/* Elements, or what is in them. */
static mb_status next_json(mb_rowfile *r, mb_row_text *row, bool *more)
{
    for (;;) {
        if (r->nested != NULL) {
            MB_TRY(mb_nested_next(r->nested, &row->text, &row->n, more));
            row->line = r->nested_line;
            if (*more)
                return MB_OK;
            mb_nested_close(r->nested);
            r->nested = NULL;
        }
        MB_TRY(next_element(r, row, more));
        if (!*more)
            return MB_OK;
        r->nested_line = row->line;
        MB_TRY(mb_nested_open(row->text, row->n, r->path, row->line, &r->nested));
        if (r->nested == NULL)
            return MB_OK;
    }
}

mb_status mb_rowfile_next(mb_rowfile *r, mb_row_text *row, bool *more)
{
    switch (r->kind) {
    case MB_ROWFILE_JSONL:
        return next_line(r, row, more);
    case MB_ROWFILE_JSON:
        return next_json(r, row, more);
    case MB_ROWFILE_CSV:
    case MB_ROWFILE_TSV:
        return next_table_row(r, row, more);
    case MB_ROWFILE_PARQUET:
        r->line++;
        row->line = r->line;
        return mb_parquet_next(r->parquet, &row->text, &row->n, more);
    case MB_ROWFILE_HDF5:
        r->line++;
        row->line = r->line;
        return mb_hdf5_next(r->hdf5, &row->text, &row->n, more);
    case MB_ROWFILE_SIDES:
        return next_sides(r, row, more);
    case MB_ROWFILE_TXT:
        break;
    }
    return r->unit == MB_TEXT_LINE ? next_line(r, row, more) : next_block(r, row, more);
}

mb_status mb_rowfile_fields(const char *text, size_t n, char delimiter, char *out,
                            const char **field, int max_fields, int *n_fields)
{
    size_t i = 0, at = 0;
    int fields = 0;

    for (;;) {
        const size_t from = at;

        if (i < n && text[i] == '"') {
            for (i++; i < n; i++) {
                if (text[i] != '"')
                    out[at++] = text[i];
                else if (i + 1 < n && text[i + 1] == '"')
                    out[at++] = text[i++];
                else
                    break;
            }
            i++; /* the closing quote, which the scan has seen */
            MB_REQUIRE(i >= n || text[i] == delimiter, MB_EDATA,
                       "field %d has text after its closing quote", fields + 1);
        } else {
            while (i < n && text[i] != delimiter)
                out[at++] = text[i++];
        }
        out[at++] = '\0';
        if (fields < max_fields)
            field[fields] = out + from;
        fields++;
        if (i >= n)
            break;
        i++; /* the delimiter */
    }
    *n_fields = fields;
    return MB_OK;
}

/* Bytes of the well-formed sequence at s (RFC 3629, table 3-7 of Unicode), 0 if there is none. */
static int sequence(const unsigned char *s, size_t n)
{
    static const struct {
        unsigned char first, last, low, high; /* of the lead; of the second byte */
        int bytes;
    } table[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t k = 0; k < sizeof table / sizeof table[0]; k++) {
        const int bytes = table[k].bytes;

        if (s[0] < table[k].first || s[0] > table[k].last)
            continue;
        if ((size_t)bytes > n)
            return 0;
        if (bytes > 1 && (s[1] < table[k].low || s[1] > table[k].high))
            return 0;
        for (int i = 2; i < bytes; i++) {
            if (s[i] < 0x80 || s[i] > 0xbf)
                return 0;
        }
        return bytes;
    }
    return 0;
}

int64_t mb_utf8_fault(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        const int bytes = sequence((const unsigned char *)text + i, n - i);

        if (bytes == 0)
            return (int64_t)i;
        i += (size_t)bytes;
    }
    return -1;
}
