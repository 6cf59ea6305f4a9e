/* core/formats/safetensors_writer.h - writing a model as safetensors, in one file or in shards.
 *
 *     MB_TRY(mb_safetensors_writer_new(dir, "model", 5000000000, &w));
 *     MB_TRY_GOTO(mb_safetensors_declare(w, "wte.weight", MB_DTYPE_F32, 2, dim), st, done);
 *     ...                                                        // every tensor first
 *     MB_TRY_GOTO(mb_safetensors_append(w, data, bytes), st, done);   // then their bytes, in order
 *     MB_TRY_GOTO(mb_safetensors_finish(w), st, done);
 * done:
 *     mb_safetensors_writer_free(w);
 *
 * Data may be appended in pieces of any size, so a tensor never has to be in memory as a whole. The
 * files are <stem>.safetensors, or, if all tensors together have more than max_shard_bytes,
 * <stem>-00001-of-0000N.safetensors and <stem>.safetensors.index.json; a tensor is never split.
 * Nothing appears under its name before everything is on disk, and the index comes last. An older
 * file that a loader would prefer to the new ones is removed then.
 *
 * Every header has "__metadata__": {"format": "pt"}, which transformers asks for, and blanks at the
 * end, so that the data begins at a multiple of 8.
 */
#ifndef MB_CORE_FORMATS_SAFETENSORS_WRITER_H
#define MB_CORE_FORMATS_SAFETENSORS_WRITER_H

#include "core/tensor.h"

typedef struct mb_safetensors_writer mb_safetensors_writer;

/* `dir` exists. `stem` is "model", "adapter_model"... max_shard_bytes 0: one file of any size. */
mb_status mb_safetensors_writer_new(const char *dir, const char *stem, int64_t max_shard_bytes,
                                    mb_safetensors_writer **out) MB_MUST_USE;
/* Without mb_safetensors_finish: removes what was written. NULL is allowed. */
void mb_safetensors_writer_free(mb_safetensors_writer *w);

/* One more entry of __metadata__; before the first append. */
mb_status mb_safetensors_metadata_set(mb_safetensors_writer *w, const char *key,
                                      const char *value) MB_MUST_USE;
/* One more tensor; before the first append. Block types are MB_ENOTSUP: the format has none. */
mb_status mb_safetensors_declare(mb_safetensors_writer *w, const char *name, mb_dtype dtype,
                                 int ndim, const int64_t *dim) MB_MUST_USE;
/* The next bytes of the declared tensors. */
mb_status mb_safetensors_append(mb_safetensors_writer *w, const void *data,
                                int64_t bytes) MB_MUST_USE;
/* All bytes must have been appended. Afterwards the files are there, durably. */
mb_status mb_safetensors_finish(mb_safetensors_writer *w) MB_MUST_USE;

#endif
