/* recipes/data/parquet.c - see recipes/data/parquet.h.
 *
 * The footer is Thrift in its compact form; it is walked field by field and what is not needed is
 * skipped. A column is a stream of entries (repetition level, definition level, perhaps a value);
 * a row is put together by walking the schema and taking entries from the columns below it.
 */
#include "recipes/data/parquet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/data/parquet_values.h"
#include "recipes/data/unpack.h"
#include "recipes/tokenizers/bytes.h"
#include "recipes/tokenizers/unicode.h"

enum {
    MOST_FOOTER = 64 << 20,
    MOST_VALUES = 1 << 28, /* of a page */
    MOST_NODES = 4096,
    MOST_DEPTH = 24,
    MOST_ROW = 64 << 20,
    HEADER_BYTES = 1 << 16, /* of a page */
};

enum repeat { REQUIRED, OPTIONAL, REPEATED };

struct node {
    char *name;
    int type, length, repeat, children;
    bool text, list, unsigned_;
    int parent, next; /* next: behind its last descendant */
    int def, rep;     /* levels from which on it is there, and repeats */
    int column;       /* of a leaf, else -1 */
};

struct chunk {
    int codec;
    int64_t values, begin, bytes;
};

struct column {
    int node;
    int64_t at, end; /* of the chunk, in the file */
    int64_t left;    /* entries of the chunk that no page has brought yet */
    int codec;
    uint8_t *page; /* unpacked */
    size_t page_n, page_capacity;
    uint8_t *packed;
    size_t packed_capacity;
    uint8_t *dict;
    size_t dict_n, dict_capacity;
    size_t *dict_at; /* of a dictionary of texts: offsets of its entries */
    size_t dict_at_capacity;
    int64_t dict_values;
    /* the page's entries */
    uint8_t *rep, *def;
    size_t rep_capacity, def_capacity;
    int64_t entries, entry;
    uint32_t *index; /* of dictionary values, or booleans */
    size_t index_capacity;
    int64_t value; /* the next one */
    int64_t n_values;
    bool from_dict;
    struct mb_parquet_plain decoded; /* of an encoding that is neither */
    const uint8_t *plain;            /* the page's, or decoded */
    size_t plain_at, plain_n;        /* the next value; where they end */
};

struct mb_parquet {
    char *path;
    int fd;
    int64_t size, rows, row; /* row: in the group */
    struct node *node;
    size_t n_nodes, node_capacity;
    struct column *column;
    int n_columns;
    struct chunk *chunk; /* (groups, columns) */
    size_t n_chunks, chunk_capacity;
    int64_t *group_rows;
    size_t n_groups, group_capacity;
    int64_t group;
    mb_bytes text;
};

/* ---- Thrift, compact ------------------------------------------------------------------------ */

enum {
    T_TRUE = 1,
    T_FALSE,
    T_BYTE,
    T_I16,
    T_I32,
    T_I64,
    T_DOUBLE,
    T_BINARY,
    T_LIST,
    T_SET,
    T_MAP,
    T_STRUCT
};

/* The next field of a struct: its type, 0 at the end. */
static int field(struct thrift *t, int *id)
{
    if (t->at >= t->end) {
        t->bad = true;
        return 0;
    }
    const uint8_t b = *t->at++;

    if (b == 0)
        return 0;
    if (b >> 4)
        *id += b >> 4;
    else
        *id = (int)mb_parquet_zigzag(t);
    return t->bad ? 0 : b & 15;
}

static size_t list(struct thrift *t, int *type)
{
    if (t->at >= t->end) {
        t->bad = true;
        return 0;
    }
    const uint8_t b = *t->at++;
    const uint64_t n = b >> 4 == 15 ? mb_parquet_varint(t) : b >> 4;

    *type = b & 15;
    if (n > (uint64_t)(t->end - t->at)) /* an element has a byte at least */
        t->bad = true;
    return t->bad ? 0 : (size_t)n;
}

static const uint8_t *binary(struct thrift *t, size_t *n)
{
    const uint64_t bytes = mb_parquet_varint(t);
    const uint8_t *p = t->at;

    if (t->bad || bytes > (uint64_t)(t->end - t->at)) {
        t->bad = true;
        *n = 0;
        return p;
    }
    t->at += bytes;
    *n = (size_t)bytes;
    return p;
}

static void skip(struct thrift *t, int type, int depth);

/* Of a list or a map, where a truth value has a byte of its own. */
static void skip_element(struct thrift *t, int type, int depth)
{
    if (type == T_TRUE || type == T_FALSE)
        t->at += t->at < t->end;
    else
        skip(t, type, depth);
}

static void skip(struct thrift *t, int type, int depth)
{
    int id = 0, inner, other;
    size_t n;

    if (depth > MOST_DEPTH)
        t->bad = true;
    if (t->bad)
        return;
    switch (type) {
    case T_TRUE:
    case T_FALSE:
        break;
    case T_BYTE:
        t->at += t->at < t->end;
        break;
    case T_I16:
    case T_I32:
    case T_I64:
        mb_parquet_varint(t);
        break;
    case T_DOUBLE:
        t->bad = t->end - t->at < 8;
        t->at += t->bad ? 0 : 8;
        break;
    case T_BINARY:
        binary(t, &n);
        break;
    case T_LIST:
    case T_SET:
        n = list(t, &inner);
        for (size_t i = 0; i < n && !t->bad; i++)
            skip_element(t, inner, depth + 1);
        break;
    case T_MAP:
        n = (size_t)mb_parquet_varint(t);
        if (n == 0)
            break;
        inner = t->at < t->end ? *t->at >> 4 : 0;
        other = t->at < t->end ? *t->at & 15 : 0;
        t->at += t->at < t->end;
        for (size_t i = 0; i < n && !t->bad; i++) {
            skip_element(t, inner, depth + 1);
            skip_element(t, other, depth + 1);
            t->bad |= t->at >= t->end;
        }
        break;
    case T_STRUCT:
        while ((inner = field(t, &id)) != 0)
            skip(t, inner, depth + 1);
        break;
    default:
        t->bad = true;
    }
}

/* ---- the footer ----------------------------------------------------------------------------- */

static mb_status damaged(const mb_parquet *p, const char *what)
{
    return MB_RAISE(MB_EDATA, "%s: is not a Parquet file, or is damaged: %s", p->path, what);
}

static mb_status read_at(const mb_parquet *p, int64_t at, void *to, size_t n)
{
    MB_REQUIRE(at >= 0 && at <= p->size && (int64_t)n <= p->size - at, MB_EDATA,
               "%s: is not a Parquet file, or is damaged: a part lies outside", p->path);
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(p->fd, (char *)to + done, n - done, at + (int64_t)done);

        MB_REQUIRE(got > 0, MB_EDATA, "%s: cannot be read", p->path);
        done += (size_t)got;
    }
    return MB_OK;
}

/* LogicalType: a union; field 1 is STRING, 3 LIST, 10 INTEGER, 12 JSON. */
static void logical_type(struct thrift *t, struct node *n)
{
    int id = 0, type;

    while ((type = field(t, &id)) != 0) {
        n->text |= id == 1 || id == 4 || id == 12;
        n->list |= id == 3;
        skip(t, type, 0);
    }
}

static mb_status schema_element(mb_parquet *p, struct thrift *t)
{
    struct node *n;
    int id = 0, type;

    MB_REQUIRE(p->n_nodes < MOST_NODES, MB_EDATA, "%s: has more than %d columns", p->path,
               MOST_NODES);
    MB_TRY(mb_grow((void **)&p->node, &p->node_capacity, p->n_nodes + 1, sizeof *n, "a schema"));
    n = &p->node[p->n_nodes++];
    *n = (struct node){.type = -1, .column = -1};
    while ((type = field(t, &id)) != 0) {
        size_t bytes;
        const uint8_t *name;
        int64_t kind;

        switch (id) {
        case 1:
            n->type = (int)mb_parquet_zigzag(t);
            break;
        case 2:
            n->length = (int)mb_parquet_zigzag(t);
            break;
        case 3:
            n->repeat = (int)mb_parquet_zigzag(t);
            break;
        case 4:
            name = binary(t, &bytes);
            mb_free(n->name);
            MB_TRY(mb_strndup((const char *)name, bytes, &n->name));
            break;
        case 5:
            n->children = (int)mb_parquet_zigzag(t);
            break;
        case 6: /* ConvertedType: UTF8, LIST, ENUM, JSON, UINT_8 to UINT_64 */
            kind = mb_parquet_zigzag(t);
            n->text |= kind == 0 || kind == 4 || kind == 19;
            n->list |= kind == 3;
            n->unsigned_ |= kind >= 11 && kind <= 14;
            break;
        case 10:
            if (type == T_STRUCT)
                logical_type(t, n);
            else
                skip(t, type, 0);
            break;
        default:
            skip(t, type, 0);
        }
    }
    if (n->name == NULL)
        MB_TRY(mb_strdup("", &n->name));
    return MB_OK;
}

static void column_meta(struct thrift *t, struct chunk *c)
{
    int64_t data = -1, dict = -1;
    int id = 0, type;

    while ((type = field(t, &id)) != 0) {
        switch (id) {
        case 4:
            c->codec = (int)mb_parquet_zigzag(t);
            break;
        case 5:
            c->values = mb_parquet_zigzag(t);
            break;
        case 7:
            c->bytes = mb_parquet_zigzag(t);
            break;
        case 9:
            data = mb_parquet_zigzag(t);
            break;
        case 11:
            dict = mb_parquet_zigzag(t);
            break;
        default:
            skip(t, type, 0);
        }
    }
    c->begin = dict > 0 && dict < data ? dict : data;
}

static mb_status row_group(mb_parquet *p, struct thrift *t)
{
    int id = 0, type, inner;

    MB_TRY(mb_grow((void **)&p->group_rows, &p->group_capacity, p->n_groups + 1,
                   sizeof *p->group_rows, "row groups"));
    while ((type = field(t, &id)) != 0) {
        if (id == 1 && type == T_LIST) {
            for (size_t n = list(t, &inner); n > 0 && !t->bad; n--) {
                struct chunk *c;
                int part = 0, kind;

                MB_TRY(mb_grow((void **)&p->chunk, &p->chunk_capacity, p->n_chunks + 1, sizeof *c,
                               "column chunks"));
                c = &p->chunk[p->n_chunks++];
                *c = (struct chunk){.begin = -1};
                while ((kind = field(t, &part)) != 0) {
                    if (part == 3 && kind == T_STRUCT)
                        column_meta(t, c);
                    else
                        skip(t, kind, 0);
                }
            }
        } else if (id == 3) {
            p->group_rows[p->n_groups] = mb_parquet_zigzag(t);
        } else {
            skip(t, type, 0);
        }
    }
    p->n_groups++;
    return MB_OK;
}

static mb_status file_meta(mb_parquet *p, struct thrift *t)
{
    int id = 0, type, inner;

    while ((type = field(t, &id)) != 0) {
        if (id == 2 && type == T_LIST) {
            for (size_t n = list(t, &inner); n > 0 && !t->bad; n--)
                MB_TRY(schema_element(p, t));
        } else if (id == 3) {
            p->rows = mb_parquet_zigzag(t);
        } else if (id == 4 && type == T_LIST) {
            for (size_t n = list(t, &inner); n > 0 && !t->bad; n--)
                MB_TRY(row_group(p, t));
        } else {
            skip(t, type, 0);
        }
    }
    return t->bad ? damaged(p, "its footer cannot be read") : MB_OK;
}

/* Levels and places of node i and what is below; *end is behind it. */
static mb_status settle(mb_parquet *p, int i, int parent, int depth, int *end)
{
    struct node *n = &p->node[i];
    int at = i + 1;

    if (depth > MOST_DEPTH || n->children < 0 || n->repeat < 0 || n->repeat > REPEATED)
        return damaged(p, "its schema makes no sense");
    n->parent = parent;
    n->def = parent < 0 ? 0 : p->node[parent].def + (n->repeat != REQUIRED);
    n->rep = parent < 0 ? 0 : p->node[parent].rep + (n->repeat == REPEATED);
    for (int k = 0; k < n->children; k++) {
        if (at >= (int)p->n_nodes)
            return damaged(p, "its schema makes no sense");
        MB_TRY(settle(p, at, i, depth + 1, &at));
    }
    if (n->children == 0 && parent >= 0) {
        MB_REQUIRE(n->type >= BOOLEAN && n->type <= FIXED && n->length >= 0, MB_EDATA,
                   "%s: the column %s has a type that does not exist", p->path, n->name);
        n->column = p->n_columns++;
    }
    n->next = at;
    *end = at;
    return MB_OK;
}

static mb_status open_group(mb_parquet *p)
{
    p->row = 0;
    if (p->group_rows[p->group] <= 0)
        return MB_OK;
    for (int c = 0; c < p->n_columns; c++) {
        const struct chunk *chunk = &p->chunk[p->group * p->n_columns + c];
        struct column *col = &p->column[c];

        if (chunk->begin < 4 || chunk->bytes < 0 || chunk->values < 0 ||
            chunk->begin > p->size - chunk->bytes)
            return damaged(p, "a column lies outside");
        col->at = chunk->begin;
        col->end = chunk->begin + chunk->bytes;
        col->left = chunk->values;
        col->codec = chunk->codec;
        col->entries = col->entry = col->dict_values = 0;
    }
    return MB_OK;
}

static mb_status read_footer(mb_parquet *p)
{
    uint8_t tail[8], *footer = NULL;
    uint32_t n;
    mb_status st;
    int end = 0;

    if (p->size < 12)
        return damaged(p, "it is too short");
    MB_TRY(read_at(p, p->size - 8, tail, 8));
    if (memcmp(tail + 4, "PAR1", 4) != 0)
        return damaged(p,
                       memcmp(tail + 4, "PARE", 4) == 0 ? "it is encrypted" : "no PAR1 at its end");
    memcpy(&n, tail, 4);
    if (n > MOST_FOOTER || n + 12 > p->size)
        return damaged(p, "its footer has no sensible size");
    MB_TRY(mb_alloc(n + 1, "a Parquet footer", (void **)&footer));
    MB_TRY_GOTO(read_at(p, p->size - 8 - n, footer, n), st, done);
    struct thrift t = {footer, footer + n, false};
    MB_TRY_GOTO(file_meta(p, &t), st, done);
    if (p->n_nodes < 2) {
        st = damaged(p, "it has no columns");
        goto done;
    }
    MB_TRY_GOTO(settle(p, 0, -1, 0, &end), st, done);
    if (end != (int)p->n_nodes || p->n_chunks != p->n_groups * (size_t)p->n_columns) {
        st = damaged(p, "its columns do not fit its schema");
        goto done;
    }
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->column, p->n_columns), st, done);
    for (int i = 0; i < (int)p->n_nodes; i++) {
        if (p->node[i].column >= 0)
            p->column[p->node[i].column].node = i;
    }
    if (p->n_groups > 0)
        st = open_group(p);
done:
    mb_free(footer);
    return st;
}

mb_status mb_parquet_open(const char *path, mb_parquet **out)
{
    mb_parquet *p;
    mb_status st;

    MB_TRY(MB_NEW(&p));
    p->fd = -1;
    MB_TRY_GOTO(mb_strdup(path, &p->path), st, fail);
    MB_TRY_GOTO(mb_file_open(path, MB_EDATA, &p->fd, &p->size), st, fail);
    MB_TRY_GOTO(read_footer(p), st, fail);
    *out = p;
    return MB_OK;
fail:
    mb_parquet_close(p);
    return st;
}

void mb_parquet_close(mb_parquet *p)
{
    if (p == NULL)
        return;
    if (p->fd >= 0)
        close(p->fd);
    for (size_t i = 0; i < p->n_nodes; i++)
        mb_free(p->node[i].name);
    for (int c = 0; c < p->n_columns && p->column != NULL; c++) {
        struct column *col = &p->column[c];

        mb_free(col->page);
        mb_free(col->packed);
        mb_free(col->dict);
        mb_free(col->dict_at);
        mb_free(col->rep);
        mb_free(col->def);
        mb_free(col->index);
        mb_free(col->decoded.p);
    }
    mb_free(p->column);
    mb_free(p->node);
    mb_free(p->chunk);
    mb_free(p->group_rows);
    mb_bytes_release(&p->text);
    mb_free(p->path);
    mb_free(p);
}

/* ---- pages ---------------------------------------------------------------------------------- */

struct page {
    int type; /* 0 data, 2 dictionary, 3 data of version 2 */
    int64_t size, packed;
    int64_t values, encoding;
    int64_t def_bytes, rep_bytes; /* version 2 */
    bool plain;                   /* version 2: the values are not packed */
};

static void page_details(struct thrift *t, struct page *h)
{
    int id = 0, type;

    while ((type = field(t, &id)) != 0) {
        if (id == 1)
            h->values = mb_parquet_zigzag(t);
        else if (h->type == 3 ? id == 4 : id == 2)
            h->encoding = mb_parquet_zigzag(t);
        else if (h->type == 3 && id == 5)
            h->def_bytes = mb_parquet_zigzag(t);
        else if (h->type == 3 && id == 6)
            h->rep_bytes = mb_parquet_zigzag(t);
        else if (h->type == 3 && id == 7)
            h->plain = type == T_FALSE;
        else
            skip(t, type, 0);
    }
}

static mb_status page_header(const mb_parquet *p, struct column *c, struct page *h)
{
    uint8_t bytes[HEADER_BYTES];
    const int64_t room = c->end - c->at;
    const size_t n = room < HEADER_BYTES ? (size_t)(room < 0 ? 0 : room) : HEADER_BYTES;
    int id = 0, type;

    if (n == 0)
        return damaged(p, "a column ends too early");
    MB_TRY(read_at(p, c->at, bytes, n));
    struct thrift t = {bytes, bytes + n, false};
    *h = (struct page){.type = -1};
    while ((type = field(&t, &id)) != 0) {
        if (id == 1)
            h->type = (int)mb_parquet_zigzag(&t);
        else if (id == 2)
            h->size = mb_parquet_zigzag(&t);
        else if (id == 3)
            h->packed = mb_parquet_zigzag(&t);
        else if ((id == 5 || id == 7 || id == 8) && type == T_STRUCT)
            page_details(&t, h);
        else
            skip(&t, type, 0);
    }
    c->at += t.at - bytes;
    if (t.bad || h->size < 0 || h->size > MB_PARQUET_MOST_PAGE || h->packed < 0 ||
        h->packed > c->end - c->at || h->values < 0 || h->values > MOST_VALUES ||
        h->def_bytes < 0 || h->rep_bytes < 0 || h->def_bytes > h->size ||
        h->rep_bytes > h->size - h->def_bytes || h->def_bytes + h->rep_bytes > h->packed)
        return damaged(p, "the header of a page makes no sense");
    return MB_OK;
}

static mb_status unpack(const mb_parquet *p, int codec, const uint8_t *from, size_t n, uint8_t *to,
                        size_t n_to)
{
    static const char *const names[] = {"none",   "snappy", "gzip", "LZO",
                                        "brotli", "LZ4",    "zstd", "LZ4_RAW"};
    static const char kinds[] = {0, 's', 'g', 0, 0, 0, 'z', 0};
    mb_status st;

    if (codec == 0) {
        if (n != n_to)
            return damaged(p, "a page has another size than it says");
        memcpy(to, from, n);
        return MB_OK;
    }
    MB_REQUIRE(codec > 0 && codec < 8 && kinds[codec] != 0, MB_EDATA,
               "%s: is packed with %s; snappy, gzip, zstd and none are read", p->path,
               codec > 0 && codec < 8 ? names[codec] : "an unknown codec");
    st = n_to == 0 ? MB_OK : mb_unpack_block(kinds[codec], from, n, to, n_to);
    return st == MB_OK ? st : mb_status_prefix(st, "%s: ", p->path);
}

static int bit_width(int most)
{
    int width = 0;

    while (most >> width)
        width++;
    return width;
}

/* The bytes of a plain value at `at`; 0 when it does not fit. */
static size_t plain_bytes(const struct node *n, const uint8_t *p, size_t at, size_t end)
{
    static const size_t sizes[] = {1, 4, 8, 12, 4, 8};
    uint32_t length = 0;
    size_t bytes;

    if (n->type == BYTE_ARRAY) {
        if (end - at < 4)
            return 0;
        memcpy(&length, p + at, 4);
        bytes = 4 + (size_t)length;
    } else {
        bytes = n->type == FIXED ? (size_t)n->length : sizes[n->type];
    }
    return bytes <= end - at ? bytes : 0;
}

static mb_status read_dict(const mb_parquet *p, struct column *c, const struct page *h)
{
    const struct node *n = &p->node[c->node];
    size_t at = 0;

    MB_TRY(mb_grow((void **)&c->dict, &c->dict_capacity, (size_t)h->size + 1, 1, "a dictionary"));
    MB_TRY(unpack(p, c->codec, c->packed, (size_t)h->packed, c->dict, (size_t)h->size));
    c->dict_n = (size_t)h->size;
    c->dict_values = 0;
    if (n->type == BOOLEAN || (h->encoding != 0 && h->encoding != 2))
        return damaged(p, "a dictionary makes no sense");
    for (int64_t i = 0; i < h->values; i++) {
        const size_t bytes = plain_bytes(n, c->dict, at, c->dict_n);

        if (bytes == 0)
            return damaged(p, "a dictionary is cut off");
        MB_TRY(mb_grow((void **)&c->dict_at, &c->dict_at_capacity, (size_t)i + 1,
                       sizeof *c->dict_at, "a dictionary"));
        c->dict_at[i] = at;
        at += bytes;
    }
    c->dict_values = h->values;
    return MB_OK;
}

/* Levels of a page of version 1: a length and the hybrid. */
static mb_status levels(const mb_parquet *p, const uint8_t **at, const uint8_t *end, int most,
                        int64_t n, uint8_t *to)
{
    uint32_t bytes = 0;

    if (most == 0) {
        memset(to, 0, (size_t)n);
        return MB_OK;
    }
    if (end - *at < 4)
        return damaged(p, "the levels of a page are cut off");
    memcpy(&bytes, *at, 4);
    *at += 4;
    if (bytes > (size_t)(end - *at) || !mb_parquet_hybrid(*at, bytes, bit_width(most), n, to, NULL))
        return damaged(p, "the levels of a page cannot be read");
    *at += bytes;
    return MB_OK;
}

static mb_status read_values(const mb_parquet *p, struct column *c, const struct page *h,
                             const uint8_t *at)
{
    const struct node *n = &p->node[c->node];
    const uint8_t *end = c->page + c->page_n;
    const int64_t e = h->encoding;
    uint32_t bytes;
    mb_status st;

    c->value = 0;
    c->from_dict = e == 2 || e == 8;
    c->plain = c->page;
    c->plain_at = (size_t)(at - c->page);
    c->plain_n = c->page_n;
    MB_TRY(mb_grow((void **)&c->index, &c->index_capacity, (size_t)c->n_values + 1,
                   sizeof *c->index, "a page"));
    if (c->from_dict) {
        if (at >= end && c->n_values > 0)
            return damaged(p, "a page is cut off");
        if (c->n_values > 0 &&
            !mb_parquet_hybrid(at + 1, (size_t)(end - at - 1), *at, c->n_values, NULL, c->index))
            return damaged(p, "a page's values cannot be read");
        for (int64_t i = 0; i < c->n_values; i++) {
            if (c->index[i] >= c->dict_values)
                return damaged(p, "a value is not in the dictionary");
        }
        return MB_OK;
    }
    if (n->type == BOOLEAN && e == 0) {
        if (end - at < (c->n_values + 7) / 8)
            return damaged(p, "a page is cut off");
        for (int64_t i = 0; i < c->n_values; i++)
            c->index[i] = at[i / 8] >> (i % 8) & 1;
        return MB_OK;
    }
    if (n->type == BOOLEAN && e == 3) {
        if (end - at < 4)
            return damaged(p, "a page is cut off");
        memcpy(&bytes, at, 4);
        if (bytes > (size_t)(end - at - 4) ||
            !mb_parquet_hybrid(at + 4, bytes, 1, c->n_values, NULL, c->index))
            return damaged(p, "a page's values cannot be read");
        return MB_OK;
    }
    if (e == 0)
        return MB_OK;
    st = mb_parquet_values(e, n->type, n->length, c->n_values, at, (size_t)(end - at), &c->decoded);
    if (st != MB_OK)
        return mb_status_prefix(st, "%s: the column %s: ", p->path, n->name);
    c->plain = c->decoded.p;
    c->plain_at = 0;
    c->plain_n = c->decoded.n;
    return MB_OK;
}

static mb_status read_data(const mb_parquet *p, struct column *c, const struct page *h)
{
    const struct node *n = &p->node[c->node];
    const size_t size = (size_t)h->size, packed = (size_t)h->packed;
    const size_t split = h->type == 3 ? (size_t)(h->def_bytes + h->rep_bytes) : 0;
    const uint8_t *at;

    if (h->values > c->left)
        return damaged(p, "a page has more values than its column");
    MB_TRY(mb_grow((void **)&c->page, &c->page_capacity, size + 1, 1, "a page"));
    MB_TRY(mb_grow((void **)&c->rep, &c->rep_capacity, (size_t)h->values + 1, 1, "a page"));
    MB_TRY(mb_grow((void **)&c->def, &c->def_capacity, (size_t)h->values + 1, 1, "a page"));
    memcpy(c->page, c->packed, split);
    MB_TRY(unpack(p, h->type == 3 && h->plain ? 0 : c->codec, c->packed + split, packed - split,
                  c->page + split, size - split));
    c->page_n = size;
    c->entries = h->values;
    c->entry = 0;
    c->left -= h->values;
    at = c->page;
    if (h->type == 3) {
        if ((n->rep > 0 && !mb_parquet_hybrid(at, (size_t)h->rep_bytes, bit_width(n->rep),
                                              h->values, c->rep, NULL)) ||
            (n->def > 0 && !mb_parquet_hybrid(at + h->rep_bytes, (size_t)h->def_bytes,
                                              bit_width(n->def), h->values, c->def, NULL)))
            return damaged(p, "the levels of a page cannot be read");
        if (n->rep == 0)
            memset(c->rep, 0, (size_t)h->values);
        if (n->def == 0)
            memset(c->def, 0, (size_t)h->values);
        at += split;
    } else {
        MB_TRY(levels(p, &at, c->page + size, n->rep, h->values, c->rep));
        MB_TRY(levels(p, &at, c->page + size, n->def, h->values, c->def));
    }
    c->n_values = 0;
    for (int64_t i = 0; i < h->values; i++)
        c->n_values += c->def[i] == n->def;
    return read_values(p, c, h, at);
}

/* Brings the next page of data when the last one is used up; *more is false at the chunk's end. */
static mb_status need_entry(const mb_parquet *p, struct column *c, bool *more)
{
    struct page h;

    while (c->entry == c->entries) {
        *more = false;
        if (c->left == 0)
            return MB_OK;
        MB_TRY(page_header(p, c, &h));
        MB_TRY(
            mb_grow((void **)&c->packed, &c->packed_capacity, (size_t)h.packed + 1, 1, "a page"));
        MB_TRY(read_at(p, c->at, c->packed, (size_t)h.packed));
        c->at += h.packed;
        if (h.type == 2)
            MB_TRY(read_dict(p, c, &h));
        else if (h.type == 0 || h.type == 3)
            MB_TRY(read_data(p, c, &h));
    }
    *more = true;
    return MB_OK;
}

/* ---- rows ----------------------------------------------------------------------------------- */

static mb_status puts_number(mb_bytes *out, const struct node *n, const uint8_t *v)
{
    int64_t i = 0;
    double d = 0.0;
    float f;

    if (n->type == INT32) {
        int32_t small;

        memcpy(&small, v, 4);
        i = n->unsigned_ ? (int64_t)(uint32_t)small : small;
    } else if (n->type == INT64) {
        memcpy(&i, v, 8);
    } else if (n->type == FLOAT) {
        memcpy(&f, v, 4);
        d = (double)f;
    } else {
        memcpy(&d, v, 8);
    }
    if (n->type == INT64 && n->unsigned_ && i < 0) /* more than JSON's integers hold here */
        return mb_bytes_printf(out, "%.17g", (double)(uint64_t)i);
    if (n->type == INT32 || n->type == INT64)
        return mb_bytes_printf(out, "%lld", (long long)i);
    return isfinite(d) ? mb_bytes_printf(out, "%.17g", d) : mb_bytes_puts(out, "null");
}

/* The next value of a column. */
static mb_status put_value(mb_parquet *p, struct column *c)
{
    const struct node *n = &p->node[c->node];
    const uint8_t *v;
    size_t bytes, bad;

    if (c->value >= c->n_values)
        return damaged(p, "a page has fewer values than it says");
    if (n->type == BOOLEAN)
        return mb_bytes_puts(&p->text, c->index[c->value++] ? "true" : "false");
    if (c->from_dict) {
        const size_t at = c->dict_at[c->index[c->value++]];

        v = c->dict + at;
        bytes = plain_bytes(n, c->dict, at, c->dict_n);
    } else {
        v = c->plain + c->plain_at;
        bytes = plain_bytes(n, c->plain, c->plain_at, c->plain_n);
        if (bytes == 0 && !(n->type == FIXED && n->length == 0))
            return damaged(p, "a page is cut off");
        c->plain_at += bytes;
        c->value++;
    }
    if (n->type == INT96 || n->type == FIXED)
        return mb_bytes_puts(&p->text, "null");
    if (n->type != BYTE_ARRAY)
        return puts_number(&p->text, n, v);
    v += 4;
    bytes -= 4;
    if (!n->text)
        return mb_bytes_puts(&p->text, "null");
    MB_REQUIRE(mb_utf8_check((const char *)v, bytes, &bad), MB_EDATA,
               "%s: a text of the column %s is not UTF-8", p->path, n->name);
    MB_REQUIRE(bytes + p->text.n < MOST_ROW, MB_EDATA, "%s: a row has more than %d MiB", p->path,
               MOST_ROW >> 20);
    return mb_bytes_json(&p->text, (const char *)v, bytes);
}

/* The first column below node i. */
static struct column *guide(mb_parquet *p, int i)
{
    while (p->node[i].column < 0)
        i++;
    return &p->column[p->node[i].column];
}

/* What is below node i is absent: every column gives up the entry that says so. */
static mb_status pass(mb_parquet *p, int i)
{
    for (int k = i; k < p->node[i].next; k++) {
        bool more;

        if (p->node[k].column < 0)
            continue;
        struct column *c = &p->column[p->node[k].column];
        MB_TRY(need_entry(p, c, &more));
        if (!more || c->def[c->entry] == p->node[k].def)
            return damaged(p, "its columns do not have the same rows");
        c->entry++;
    }
    return MB_OK;
}

static mb_status put_node(mb_parquet *p, int i, int depth);

/* Node i, which is there: a value, or the members of a struct. */
static mb_status put_present(mb_parquet *p, int i, int depth)
{
    const struct node *n = &p->node[i];
    bool first = true;

    if (n->column >= 0) {
        struct column *c = &p->column[n->column];
        bool more;

        MB_TRY(need_entry(p, c, &more));
        if (!more || c->def[c->entry] != n->def)
            return damaged(p, "its columns do not have the same rows");
        c->entry++;
        return put_value(p, c);
    }
    /* a LIST: a group of one repeated group of one element */
    if (n->list && n->children == 1 && p->node[i + 1].repeat == REPEATED)
        return put_node(p, i + 1, depth + 1);
    MB_TRY(mb_bytes_puts(&p->text, "{"));
    for (int k = i + 1; k < n->next; k = p->node[k].next) {
        if (!first)
            MB_TRY(mb_bytes_puts(&p->text, ","));
        first = false;
        MB_TRY(mb_bytes_json(&p->text, p->node[k].name, strlen(p->node[k].name)));
        MB_TRY(mb_bytes_puts(&p->text, ":"));
        MB_TRY(put_node(p, k, depth + 1));
    }
    return mb_bytes_puts(&p->text, "}");
}

/* One element of repeated node i: of a LIST what is in its only member. */
static mb_status put_element(mb_parquet *p, int i, int depth)
{
    const struct node *n = &p->node[i];

    return n->column < 0 && n->children == 1 && p->node[n->parent].list
               ? put_node(p, i + 1, depth + 1)
               : put_present(p, i, depth);
}

static mb_status put_node(mb_parquet *p, int i, int depth)
{
    const struct node *n = &p->node[i];
    struct column *c = guide(p, i);
    bool more;

    MB_TRY(need_entry(p, c, &more));
    if (!more || depth > 2 * MOST_DEPTH)
        return damaged(p, "its columns do not have the same rows");
    if (n->repeat == REQUIRED)
        return put_present(p, i, depth);
    if (c->def[c->entry] < n->def) {
        MB_TRY(mb_bytes_puts(&p->text, n->repeat == OPTIONAL ? "null" : "[]"));
        return pass(p, i);
    }
    if (n->repeat == OPTIONAL)
        return put_present(p, i, depth);
    MB_TRY(mb_bytes_puts(&p->text, "["));
    for (bool first = true;; first = false) {
        if (!first)
            MB_TRY(mb_bytes_puts(&p->text, ","));
        MB_TRY(put_element(p, i, depth));
        MB_TRY(need_entry(p, c, &more));
        if (!more || c->rep[c->entry] != n->rep)
            break;
        MB_REQUIRE(p->text.n < MOST_ROW, MB_EDATA, "%s: a row has more than %d MiB", p->path,
                   MOST_ROW >> 20);
    }
    return mb_bytes_puts(&p->text, "]");
}

mb_status mb_parquet_next(mb_parquet *p, const char **text, size_t *n, bool *more)
{
    *more = false;
    while (p->group < (int64_t)p->n_groups && p->row >= p->group_rows[p->group]) {
        p->group++;
        if (p->group < (int64_t)p->n_groups)
            MB_TRY(open_group(p));
    }
    if (p->group >= (int64_t)p->n_groups)
        return MB_OK;
    p->text.n = 0;
    MB_TRY(put_present(p, 0, 0));
    MB_TRY(mb_bytes_end(&p->text));
    p->row++;
    *text = p->text.p;
    *n = p->text.n;
    *more = true;
    return MB_OK;
}
