/* core/formats/gguf.h - reading and checking the header of a GGUF file, versions 2 and 3.
 *
 *     "GGUF" | u32 version | u64 tensors | u64 pairs
 *     pairs:   string key | u32 type | value        string: u64 length, bytes
 *     tensors: string name | u32 dims | u64 ne[dims] | u32 type | u64 offset
 *     padding to general.alignment (32) | data, each tensor padded to the alignment
 *
 * (github.com/ggml-org/ggml, docs/gguf.md.) ne[0] varies fastest; here shapes are reversed into
 * torch's order. Every count is compared with the bytes left in the file before it is believed, and
 * memory grows with what was really read. Files that continue in others (split.count > 1), nested
 * arrays and big-endian files are MB_ENOTSUP.
 *
 * Values are read by type, so that no file can make one be taken for another:
 *
 *     MB_TRY(mb_gguf_u64(g, "llama.block_count", &layers));             // any integer width
 *     MB_TRY(mb_gguf_opt_f64(g, "llama.rope.freq_base", 1e4, &theta));  // 1e4 if there is none
 *     MB_TRY(mb_gguf_strings(g, "tokenizer.ggml.tokens", &tokens));
 *     for (uint64_t i = 0; i < tokens.n; i++)
 *         use(mb_gguf_string_at(&tokens, i, &bytes), bytes);
 *
 * Models are opened through core/formats/tensor_file.h, which gives the mb_gguf.
 */
#ifndef MB_CORE_FORMATS_GGUF_H
#define MB_CORE_FORMATS_GGUF_H

#include "core/formats/tensor_file.h"

enum { MB_GGUF_NAME_MAX = 64, MB_GGUF_KEY_MAX = 65535 };

/* Reads the header of an open file of `size` bytes; `path` is copied. The descriptor is not kept. */
mb_status mb_gguf_open(const char *path, int fd, int64_t size, mb_gguf **out) MB_MUST_USE;
void mb_gguf_free(mb_gguf *g); /* NULL is allowed */
/* How many tensors; *info is borrowed. Duplicate names are found by mb_tensor_file_open. */
size_t mb_gguf_tensors(const mb_gguf *g, const mb_tensor_info **info);

bool mb_gguf_has_tensor(const mb_gguf *g, const char *name); /* linear */

/* What pairs there are, in file order; a short text of a value for people. */
uint64_t mb_gguf_count(const mb_gguf *g);
const char *mb_gguf_key(const mb_gguf *g, uint64_t i);
const char *mb_gguf_describe(const mb_gguf *g, uint64_t i, char *text, size_t size);
bool mb_gguf_has(const mb_gguf *g, const char *key);

/* The value of a key. A missing key, another type or a number that does not fit is MB_EMODEL with
 * file and key. Integers of every width are accepted where an integer is asked, integers and reals
 * where a real is asked. A string is zero-terminated, borrowed; `bytes` may be NULL. */
mb_status mb_gguf_u64(const mb_gguf *g, const char *key, uint64_t *out) MB_MUST_USE;
mb_status mb_gguf_i64(const mb_gguf *g, const char *key, int64_t *out) MB_MUST_USE;
mb_status mb_gguf_f64(const mb_gguf *g, const char *key, double *out) MB_MUST_USE;
mb_status mb_gguf_bool(const mb_gguf *g, const char *key, bool *out) MB_MUST_USE;
mb_status mb_gguf_string(const mb_gguf *g, const char *key, const char **out,
                         size_t *bytes) MB_MUST_USE;

/* The same, with what to use when the key is missing. */
mb_status mb_gguf_opt_i64(const mb_gguf *g, const char *key, int64_t otherwise,
                          int64_t *out) MB_MUST_USE;
mb_status mb_gguf_opt_f64(const mb_gguf *g, const char *key, double otherwise,
                          double *out) MB_MUST_USE;
mb_status mb_gguf_opt_bool(const mb_gguf *g, const char *key, bool otherwise,
                           bool *out) MB_MUST_USE;
mb_status mb_gguf_opt_string(const mb_gguf *g, const char *key, const char *otherwise,
                             const char **out) MB_MUST_USE;

/* An array of one type. The element functions abort on an index that is not below n. */
typedef struct mb_gguf_array {
    uint64_t n;
    const mb_gguf *g; /* private, as the next */
    uint32_t type;
    size_t at;
} mb_gguf_array;

mb_status mb_gguf_strings(const mb_gguf *g, const char *key, mb_gguf_array *out) MB_MUST_USE;
mb_status mb_gguf_ints(const mb_gguf *g, const char *key, mb_gguf_array *out) MB_MUST_USE;
mb_status mb_gguf_reals(const mb_gguf *g, const char *key, mb_gguf_array *out) MB_MUST_USE;
const char *mb_gguf_string_at(const mb_gguf_array *a, uint64_t i, size_t *bytes);
int64_t mb_gguf_int_at(const mb_gguf_array *a, uint64_t i); /* u64 above INT64_MAX: INT64_MAX */
double mb_gguf_real_at(const mb_gguf_array *a, uint64_t i);

#endif
