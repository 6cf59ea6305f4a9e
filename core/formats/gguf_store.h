/* core/formats/gguf_store.h - how a parsed GGUF header is kept; for gguf.c and gguf_values.c only.
 *
 * The header is read once into one buffer, `head`, and stays there; pairs and tensor infos refer to
 * it by offset. A string is moved one byte down, over the top byte of its own length (which is zero,
 * for no file has 2^56 bytes), so that a terminator fits after it and its length can still be read
 * before it. A vocabulary of 50,000 tokens thus costs 8 bytes per token and no allocation each.
 */
#ifndef MB_CORE_FORMATS_GGUF_STORE_H
#define MB_CORE_FORMATS_GGUF_STORE_H

#include <string.h>

#include "core/formats/gguf.h"

/* Types of values, by their number in the file. */
enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_N_TYPES,
};
enum { GGUF_LENGTH = 8 }; /* bytes of a string's length */
struct gguf_type {
    const char *name;
    uint8_t bytes; /* 0: not of fixed size */
};
extern const struct gguf_type mb_gguf_types[GGUF_N_TYPES];

/* The number of a tensor type in files; false: it has none, or is not supported. */
bool mb_gguf_type_id(mb_dtype d, uint32_t *id);

struct gguf_pair {
    size_t key;    /* where the key's text begins in head */
    uint32_t type; /* of the value, or of an array's elements */
    bool is_array;
    uint64_t n; /* elements of an array, 1 otherwise */
    size_t at;  /* where the first value is; for strings, its index in `strings` */
};

struct mb_gguf {
    char *path;
    char *head; /* the beginning of the file */
    size_t n_head, head_capacity;
    struct gguf_pair *pair;
    size_t n_pairs, pair_capacity;
    uint32_t *by_key;  /* indices of pair, sorted by key */
    uint64_t *strings; /* where each string begins in head */
    size_t n_strings, string_capacity;
    mb_tensor_info *info;
    size_t n_info, info_capacity;
};

/* The length of a string in head, from the seven bytes before it. */
static inline size_t mb_gguf_length(const mb_gguf *g, size_t at)
{
    uint64_t n = 0;

    memcpy(&n, g->head + at - (GGUF_LENGTH - 1), GGUF_LENGTH - 1);
    return (size_t)n;
}

#endif
