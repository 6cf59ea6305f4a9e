/* autograd/load.h - values for a model's weights: from files, or fresh. */
#ifndef MB_AUTOGRAD_LOAD_H
#define MB_AUTOGRAD_LOAD_H

#include "autograd/model.h"
#include "core/formats/tensor_file.h"

typedef struct mb_load_report {
    int loaded, ignored, fresh;
} mb_load_report;

/* Fills every weight of the table (adapters are left alone) from a file: names with or without the
 * family's prefix, old endings renamed, GGUF names and q/k row order translated, any float type or
 * GGUF block type converted to f32. Strict: a weight that is missing (and may not be new), a tensor
 * that is unknown, or a wrong shape is MB_EMODEL naming it. Weights that may be new are initialised
 * as Hugging Face would (normal 0.02, biases 0, norms 1) from `seed`, and named in the log. */
mb_status mb_model_load(mb_model *m, mb_tensor_file *f, const char *path, mb_exec *ex,
                        uint64_t seed, mb_load_report *report) MB_MUST_USE;

/* The same for every weight, without a file: a model that is trained from scratch. The spread is
 * config.json's initializer_range (init_std), 0.02 without one, or what the family says. */
mb_status mb_model_init(mb_model *m, uint64_t seed) MB_MUST_USE;

/* Reads tensor i of a file as f32 into dst, which has the tensor's shape. `work` is a run of bytes
 * at least the tensor's size in the file. */
mb_status mb_load_f32(mb_tensor_file *f, int64_t i, mb_exec *ex, mb_arena *scratch,
                      mb_tensor *dst) MB_MUST_USE;

/* A weight as the file has it, rounded to nothing, whatever the model holds: given to `fn` in pieces,
 * elements [from, from + n) as f32, in order. MB_EMODEL when it is not there. */
typedef mb_status (*mb_piece_fn)(void *ctx, int64_t from, int64_t n, float *numbers);
mb_status mb_model_read_file(const mb_model *m, const mb_weight *w, mb_tensor_file *f,
                             const char *path, mb_exec *ex, mb_piece_fn fn, void *ctx) MB_MUST_USE;

/* The name a weight has in llama.cpp's files; false: it has none there. */
bool mb_weight_gguf_name(const mb_model *m, const mb_weight *w, char *out, size_t size);

/* What either takes beside the model, while it runs: weights are read in pieces. */
size_t mb_model_load_bytes(const mb_model *m);

/* Finds `name` as files may spell it: as it is, without the family's prefix, with an old ending; -1. */
int64_t mb_find_spelling(const mb_model_family *fam, const mb_tensor_file *f, const char *name);
/* Sets what transformers takes for keys that are absent. */
mb_status mb_config_defaults(const char *model_type, mb_json config) MB_MUST_USE;
/* Sets tie_word_embeddings to false where the folder's weights have an output head that differs from the
 * embedding. Without weights nothing is said. */
mb_status mb_config_untie(const mb_model_family *fam, const char *folder,
                          mb_json config) MB_MUST_USE;
/* Frozen matrices that the file has in blocks stay so in memory: a fraction of it, and of the time it
 * takes to read them; numbers and products are the same, made of blocks where they are used (CPU, in
 * F32). For models that are neither trained nor saved; before the model is bound. Returns how many. */
int mb_model_keep_blocks(mb_model *m, const mb_tensor_file *f);

#endif
