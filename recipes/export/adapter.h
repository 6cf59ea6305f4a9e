/* recipes/export/adapter.h - PEFT adapter folders onto a model and back.
 *
 * adapter_config.json says ranks and scales, adapter_model.safetensors holds the tensors under
 * PEFT's names (huggingface/peft, docs/source/developer_guides/checkpoint.md).
 */
#ifndef MB_RECIPES_EXPORT_ADAPTER_H
#define MB_RECIPES_EXPORT_ADAPTER_H

#include "autograd/lora.h"

/* Adds the adapter's shape to a model, before layout. */
mb_status mb_adapter_add(mb_model *m, const char *dir) MB_MUST_USE;
/* The classes of the classifier that an adapter carries; 0 when it carries none. */
mb_status mb_adapter_labels(const char *dir, int64_t *labels) MB_MUST_USE;
/* Fills it, after bind. Strict both ways: MB_EMODEL names a tensor that is missing or unknown. */
mb_status mb_adapter_load(mb_model *m, const char *dir, mb_exec *ex) MB_MUST_USE;
/* Writes adapter_model.safetensors with everything trained, under PEFT's names. */
mb_status mb_adapter_write_tensors(const mb_model *m, const char *dir) MB_MUST_USE;

/* Adapters of llama.cpp: a .gguf file, or a folder with one and no adapter_config.json. The two above read
 * them, too, by these. */
bool mb_adapter_is_gguf(const char *path);
mb_status mb_adapter_add_gguf(mb_model *m, const char *path) MB_MUST_USE;
mb_status mb_adapter_load_gguf(mb_model *m, const char *path, mb_exec *ex) MB_MUST_USE;

#endif
