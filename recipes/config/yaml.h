/* recipes/config/yaml.h - a small YAML document as a tree, with the place of every part.
 *
 * A safe part of YAML 1.2: maps, lists and scalars, block or flow. Refused, each with one sentence
 * and its place: files above 1 MiB, nesting above 64, anchors and aliases, tags, merge keys, several
 * documents, keys that are not text, keys given twice, texts that hold a NUL. Scalars keep their
 * text and whether they were quoted; what type they are is the schema's decision.
 *
 * Everything is taken from the arena and lives as long as it does. Failures are MB_EARG; a file that
 * cannot be read too.
 */
#ifndef MB_RECIPES_CONFIG_YAML_H
#define MB_RECIPES_CONFIG_YAML_H

#include "core/arena.h"

enum { MB_YAML_BYTES_MAX = 1 << 20, MB_YAML_DEPTH_MAX = 64, MB_YAML_NODES_MAX = 100000 };

typedef enum mb_yaml_kind { MB_YAML_SCALAR, MB_YAML_LIST, MB_YAML_MAP } mb_yaml_kind;

typedef struct mb_yaml mb_yaml;
struct mb_yaml {
    mb_yaml_kind kind;
    bool quoted;        /* scalar: written in quotes or as a block, so it is text */
    bool verbatim;      /* scalar from a command line: any value may be text */
    const char *text;   /* scalar */
    const char *key;    /* name in the map above; NULL elsewhere */
    mb_yaml *first;     /* children of a list or map, in order, */
    mb_yaml *last;      /* */
    mb_yaml *next;      /* linked */
    int64_t n;          /* their number */
    const char *source; /* file name, or "command line" */
    int line, column;   /* of the value, or of the key where there is one; from 1; 0: no place */
};

/* Reads a file or a text. *out is a map, or NULL when there is nothing in it but comments. */
mb_status mb_yaml_read(mb_arena *a, const char *path, mb_yaml **out) MB_MUST_USE;
mb_status mb_yaml_parse(mb_arena *a, const char *source, const char *text, size_t bytes,
                        mb_yaml **out) MB_MUST_USE;
/* Reads one value of any kind, as on a command line: flow lists and maps, quoted or plain text. */
mb_status mb_yaml_parse_value(mb_arena *a, const char *source, const char *text,
                              mb_yaml **out) MB_MUST_USE;

/* New nodes, for overrides. `text` is borrowed. */
mb_status mb_yaml_new(mb_arena *a, mb_yaml_kind kind, const mb_yaml *at, mb_yaml **out) MB_MUST_USE;
void mb_yaml_append(mb_yaml *to, mb_yaml *child);
mb_yaml *mb_yaml_child(const mb_yaml *map, const char *key); /* NULL when there is none */

/* Plain null, ~ or nothing. */
bool mb_yaml_is_null(const mb_yaml *y);
/* "my.yaml:3:1: " or "command line: "; borrowed from `buf`. */
const char *mb_yaml_place(const mb_yaml *y, char *buf, size_t size);
/* What stands there, for messages: "the text 'x'", "the number 5", "a list of 3", "a map". */
const char *mb_yaml_describe(const mb_yaml *y, char *buf, size_t size);

/* YAML 1.2 core scalars, plus yes/no/on/off for booleans. False when the text is none. Numbers:
 * 12, -1, 1.5, 1e-4, 2.0e+3; no 1_000, no octal, no nan. */
bool mb_yaml_to_bool(const char *text, bool *out);
bool mb_yaml_to_int(const char *text, int64_t *out);
bool mb_yaml_to_num(const char *text, double *out);

#endif
