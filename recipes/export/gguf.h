/* recipes/export/gguf.h - a model, or its adapter, as a GGUF file for llama.cpp and what is built on it.
 *
 * Names, order of rows, keys and the choice of types by tensor are those of llama.cpp's own converter and
 * quantiser: norms, biases, positions and distances stay F32; the output (or the embedding that stands for
 * it) has more bits than the rest; rows that are no whole blocks of a type get one of smaller blocks.
 */
#ifndef MB_RECIPES_EXPORT_GGUF_H
#define MB_RECIPES_EXPORT_GGUF_H

#include "core/formats/gguf_write.h"
#include "recipes/export/model.h"

/* Writes the model to `path`; e->dtype is F32, F16, BF16, Q8_0, Q4_0, Q4_1 or Q4_K. Adapters are not written: merge them before. MB_ENOTSUP names what llama.cpp has no place
 * for: a family, a head, a window, a rotation. */
mb_status mb_export_gguf(const mb_export *e, const char *path) MB_MUST_USE;

/* Writes the adapter alone, for llama.cpp to put on the base (general.type "adapter"). LoRA and rsLoRA;
 * DoRA and modules that were trained whole have no place in such a file (MB_ENOTSUP). */
mb_status mb_export_gguf_lora(const mb_export *e, const mb_peft *p, const char *path) MB_MUST_USE;

/* dir/<title>-<type>.gguf, where the title is the card's. */
mb_status mb_export_gguf_path(const mb_export *e, const char *dir, char path[4096]) MB_MUST_USE;

/* Private to this folder. */

/* gguf.c - rows of q or k, heads of hd rows, as the file has them, and back; y is another place. */
void mb_gguf_permute(const float *x, int64_t rows, int64_t row, int64_t hd, float *y);
void mb_gguf_unpermute(const float *x, int64_t rows, int64_t row, int64_t hd, float *y);
/* gguf_keys.c - positions that the file's model has: fewer than ours where llama.cpp has no window. */
int64_t mb_gguf_context(const mb_model *m);
/* gguf_keys.c - can llama.cpp say what this model is? MB_ENOTSUP. */
mb_status mb_gguf_check(const mb_model *m) MB_MUST_USE;
/* gguf_keys.c - general.* and <architecture>.* of the model. */
mb_status mb_gguf_keys(const mb_export *e, mb_gguf_writer *w) MB_MUST_USE;
/* gguf_types.c - the type of a tensor by its llama.cpp name, for a file of `want`. */
mb_dtype mb_gguf_type_of(const mb_model *m, const mb_weight *v, const char *name, mb_dtype want);
/* The number of general.file_type, and what is shown in names of files ("Q4_K_M"). */
uint32_t mb_gguf_file_type(mb_dtype want);
const char *mb_gguf_type_word(mb_dtype want);

#endif
