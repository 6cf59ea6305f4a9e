/* core/json.h - JSON documents: reading with limits, looking up with types, building, writing.
 *
 *     MB_TRY(mb_json_read("config.json", MB_EMODEL, 1 << 20, &doc));
 *     mb_json cfg = mb_json_root(doc);
 *     MB_TRY_GOTO(mb_json_get_int(cfg, "vocab_size", -1, &vocab), st, done);
 *     for (mb_json_it it = mb_json_first(mb_json_get(cfg, "label2id")); mb_json_more(&it);
 *          mb_json_next(&it))
 *         ... it.key, it.value ...
 * done:
 *     mb_json_free(doc);
 *
 * A document owns everything in it. An mb_json is a small value that points into its document and
 * may be copied; "absent" is a value too, so that lookups chain: asking an absent or null value for
 * a key gives an absent one. Objects keep the order of the file.
 *
 * The reader is strict (RFC 8259): nesting at most 64, no duplicate keys, no text after the value,
 * no byte order mark, valid UTF-8, no lone surrogates, no zero bytes or \u0000, integers within 64
 * bits, reals within a double. Every error is one sentence that begins with file:line:column or
 * with file and key path ("config.json: rope_scaling.factor must be a number, not a string"), and
 * has the code given when the document was read.
 *
 * Not thread-safe per document; reading one from several threads is fine.
 */
#ifndef MB_CORE_JSON_H
#define MB_CORE_JSON_H

#include <stdint.h>

#include "core/status.h"

enum { MB_JSON_MAX_DEPTH = 64 };

typedef struct mb_json_doc mb_json_doc;

typedef struct mb_json {
    mb_json_doc *doc; /* borrowed */
    void *node;       /* private; NULL when absent */
} mb_json;

typedef enum mb_json_type {
    MB_JSON_ABSENT,
    MB_JSON_NULL,
    MB_JSON_BOOL,
    MB_JSON_INT,
    MB_JSON_REAL,
    MB_JSON_STRING,
    MB_JSON_ARRAY,
    MB_JSON_OBJECT
} mb_json_type;

/* Parses n bytes. `name` is used in messages; `line` is added to line numbers (the line of a JSONL
 * row; 0 for a whole file). All errors of this document, now and later, have `code`. */
mb_status mb_json_parse(const char *text, size_t n, const char *name, int64_t line, mb_status code,
                        mb_json_doc **out) MB_MUST_USE;
/* Reads and parses a regular file of at most max_bytes. */
mb_status mb_json_read(const char *path, mb_status code, size_t max_bytes,
                       mb_json_doc **out) MB_MUST_USE;
/* A new document whose root is an empty object; or, with mb_json_doc_new_array, an array. */
mb_status mb_json_doc_new(const char *name, mb_json_doc **out) MB_MUST_USE;
mb_status mb_json_doc_new_array(const char *name, mb_json_doc **out) MB_MUST_USE;
void mb_json_free(mb_json_doc *doc); /* NULL is allowed */
mb_json mb_json_root(mb_json_doc *doc);

/* What is there. mb_json_get of a key, mb_json_at of an index: absent when there is none. */
mb_json_type mb_json_kind(mb_json v);
bool mb_json_is(mb_json v, mb_json_type type);
bool mb_json_is_set(mb_json v);    /* neither absent nor null */
bool mb_json_is_number(mb_json v); /* an integer or a real */
size_t mb_json_count(mb_json v);   /* elements or members; 0 for anything else */
mb_json mb_json_get(mb_json object, const char *key);
mb_json mb_json_at(mb_json array, size_t i);

/* The members of an object in file order, or the elements of an array; nothing for other values. */
typedef struct mb_json_it {
    const char *key; /* NULL in an array; borrowed */
    size_t index;
    mb_json value;
    mb_json of; /* private, as the next */
    void *at;
} mb_json_it;
mb_json_it mb_json_first(mb_json v);
bool mb_json_more(const mb_json_it *it);
void mb_json_next(mb_json_it *it);

/* The value as a C type, or a sentence. An integer may be written as 4.0; a real as 4. A string is
 * zero-terminated UTF-8, borrowed from the document; `n` (its bytes) may be NULL. */
mb_status mb_json_int(mb_json v, int64_t *out) MB_MUST_USE;
mb_status mb_json_real(mb_json v, double *out) MB_MUST_USE;
mb_status mb_json_bool(mb_json v, bool *out) MB_MUST_USE;
mb_status mb_json_string(mb_json v, const char **out, size_t *n) MB_MUST_USE;

/* The same for a member, with what to use when it is absent or null. */
mb_status mb_json_get_int(mb_json object, const char *key, int64_t otherwise,
                          int64_t *out) MB_MUST_USE;
mb_status mb_json_get_real(mb_json object, const char *key, double otherwise,
                           double *out) MB_MUST_USE;
mb_status mb_json_get_bool(mb_json object, const char *key, bool otherwise, bool *out) MB_MUST_USE;
mb_status mb_json_get_string(mb_json object, const char *key, const char *otherwise,
                             const char **out) MB_MUST_USE;

/* A member that must be there and be of this type (INT accepts 4.0, REAL accepts 4). */
mb_status mb_json_need(mb_json object, const char *key, mb_json_type type,
                       mb_json *out) MB_MUST_USE;
/* A member that must be an integer within [lo, hi]. */
mb_status mb_json_need_int(mb_json object, const char *key, int64_t lo, int64_t hi,
                           int64_t *out) MB_MUST_USE;

/* Raises the document's code with "file: key.path " before the sentence; the key path is that of
 * `v`, which must be present. For what the caller finds wrong with a value. */
mb_status mb_json_fault(mb_json v, const char *fmt, ...) MB_PRINTF(2, 3);
/* "rope_scaling.factor", "vocab[3]"; "" for the root. Returned is `text`. */
const char *mb_json_path(mb_json v, char *text, size_t size);

/* Building. `key` names a member of an object (an existing one is replaced, in its place) and is
 * NULL to append to an array. Strings are copied and must be UTF-8. A real that is not finite is
 * written as null, for JSON has no other word. mb_json_set copies a value of any document. */
mb_status mb_json_set_int(mb_json to, const char *key, int64_t v) MB_MUST_USE;
mb_status mb_json_set_real(mb_json to, const char *key, double v) MB_MUST_USE;
mb_status mb_json_set_bool(mb_json to, const char *key, bool v) MB_MUST_USE;
mb_status mb_json_set_string(mb_json to, const char *key, const char *v) MB_MUST_USE;
mb_status mb_json_set_null(mb_json to, const char *key) MB_MUST_USE;
mb_status mb_json_set(mb_json to, const char *key, mb_json v) MB_MUST_USE;
mb_status mb_json_set_object(mb_json to, const char *key, mb_json *out) MB_MUST_USE;
mb_status mb_json_set_array(mb_json to, const char *key, mb_json *out) MB_MUST_USE;
void mb_json_remove(mb_json object, const char *key); /* absent is fine */

/* Text of a value, zero-terminated, owned by the caller. indent 0: one line, no spaces; otherwise
 * that many spaces per level and a newline at the end. Reals have the fewest digits that read back
 * as the same double, and a point or exponent. `n` may be NULL. */
mb_status mb_json_text(mb_json v, int indent, char **out, size_t *n) MB_MUST_USE;
/* Writes the text atomically; see core/path.h. */
mb_status mb_json_write(mb_json v, int indent, const char *path) MB_MUST_USE;

#endif
