/* core/formats/gguf_write.h - writing a GGUF file, version 3, as core/formats/gguf.h reads it.
 *
 *     MB_TRY(mb_gguf_writer_new("model.gguf", &w));
 *     MB_TRY_GOTO(mb_gguf_put_string(w, "general.architecture", "llama"), st, done);
 *     ...                                                             // every pair and
 *     MB_TRY_GOTO(mb_gguf_declare(w, "output_norm.weight", MB_DTYPE_F32, 1, dim), st, done);
 *     ...                                                             // every tensor first
 *     MB_TRY_GOTO(mb_gguf_append(w, data, bytes), st, done);          // then their bytes, in order
 *     MB_TRY_GOTO(mb_gguf_writer_finish(w), st, done);
 * done:
 *     mb_gguf_writer_free(w);
 *
 * Shapes are in torch's order. Data may be appended in pieces of any size; what lies between tensors is
 * filled with zeros up to the alignment of 32 bytes. The file appears under its name when it is whole
 * and on disk.
 */
#ifndef MB_CORE_FORMATS_GGUF_WRITE_H
#define MB_CORE_FORMATS_GGUF_WRITE_H

#include "core/tensor.h"

typedef struct mb_gguf_writer mb_gguf_writer;

mb_status mb_gguf_writer_new(const char *path, mb_gguf_writer **out) MB_MUST_USE;
/* Without mb_gguf_writer_finish: removes what was written. NULL is allowed. */
void mb_gguf_writer_free(mb_gguf_writer *w);

/* One more pair; before the first append. A key that is there already is MB_EBUG. Integers are u32, as
 * llama.cpp's own files have them. */
mb_status mb_gguf_put_u32(mb_gguf_writer *w, const char *key, uint32_t value) MB_MUST_USE;
mb_status mb_gguf_put_f32(mb_gguf_writer *w, const char *key, float value) MB_MUST_USE;
mb_status mb_gguf_put_bool(mb_gguf_writer *w, const char *key, bool value) MB_MUST_USE;
mb_status mb_gguf_put_string(mb_gguf_writer *w, const char *key, const char *value) MB_MUST_USE;

/* Arrays: begun with their type and length, then given so many values. Strings need no terminator. */
typedef enum mb_gguf_kind { MB_GGUF_STRINGS, MB_GGUF_I32S, MB_GGUF_F32S, MB_GGUF_U8S } mb_gguf_kind;
mb_status mb_gguf_begin_array(mb_gguf_writer *w, const char *key, mb_gguf_kind kind,
                              uint64_t n) MB_MUST_USE;
mb_status mb_gguf_add_string(mb_gguf_writer *w, const char *text, size_t n) MB_MUST_USE;
mb_status mb_gguf_add_i32(mb_gguf_writer *w, int32_t value) MB_MUST_USE;
mb_status mb_gguf_add_f32(mb_gguf_writer *w, float value) MB_MUST_USE;
mb_status mb_gguf_add_u8s(mb_gguf_writer *w, const uint8_t *value, size_t n) MB_MUST_USE;

/* One more tensor; before the first append. Rows must be whole blocks of the type; a name has at most
 * MB_GGUF_NAME_MAX bytes (MB_ENOTSUP), the types are those of core/formats/gguf.c. */
mb_status mb_gguf_declare(mb_gguf_writer *w, const char *name, mb_dtype dtype, int ndim,
                          const int64_t *dim) MB_MUST_USE;
/* The next bytes of the declared tensors. */
mb_status mb_gguf_append(mb_gguf_writer *w, const void *data, int64_t bytes) MB_MUST_USE;
/* All bytes must have been appended. Afterwards the file is there, durably. */
mb_status mb_gguf_writer_finish(mb_gguf_writer *w) MB_MUST_USE;

#endif
