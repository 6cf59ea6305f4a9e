/* recipes/export/adapter.c - see recipes/export/adapter.h. */
#include "recipes/export/adapter.h"

#include <stdio.h>
#include <string.h>

#include "autograd/load.h"
#include "core/alloc.h"
#include "core/formats/safetensors_writer.h"
#include "core/path.h"
#include "recipes/export/peft.h"

enum { NAME_MAX_BYTES = 384, MOST_TABLES = 8 };

static mb_status add(mb_model *m, const char *dir, const mb_peft *p)
{
    const mb_lora_options o = {
        .r = p->tokens_alone ? 0 : p->r,
        .alpha = p->alpha,
        .dropout = (float)p->dropout,
        .rslora = p->rslora,
        .dora = p->dora,
        .targets = p->target_regex != NULL ? (const char *const *)&p->target_regex
                                           : (const char *const *)p->target,
        .n_targets = p->target_regex != NULL ? 1 : (int)p->n_target,
        .save = (const char *const *)p->save,
        .n_save = (int)p->n_save,
        .tokens = p->tokens,
        .n_tokens = (int)p->n_tokens,
        .lenient = true,
    };

    MB_REQUIRE(p->n_tokens <= MOST_TABLES, MB_ENOTSUP,
               "%s/adapter_config.json: rows of tokens in %lld tables, at most %d", dir,
               (long long)p->n_tokens, MOST_TABLES);
    MB_REQUIRE(p->n_rank_pattern == 0 && p->n_alpha_pattern == 0, MB_ENOTSUP,
               "%s/adapter_config.json: rank_pattern and alpha_pattern are not supported", dir);
    MB_REQUIRE(p->n_exclude == 0 && p->exclude_regex == NULL, MB_ENOTSUP,
               "%s/adapter_config.json: exclude_modules is not supported", dir);
    return mb_model_add_lora(m, &o);
}

/* What would be a wrong recipe is here a file that does not fit the model. */
static mb_status blame_file(const char *dir)
{
    char text[1024];

    snprintf(text, sizeof text, "%s", mb_status_sentence());
    mb_status_clear();
    return MB_RAISE(MB_EMODEL, "%s/adapter_config.json: %s", dir, text);
}

mb_status mb_adapter_add(mb_model *m, const char *dir)
{
    mb_peft p;
    mb_status st;

    if (mb_adapter_is_gguf(dir))
        return mb_adapter_add_gguf(m, dir);
    st = mb_peft_read(dir, &p);

    if (st == MB_OK)
        st = add(m, dir, &p);
    mb_peft_close(&p);
    return st == MB_EARG ? blame_file(dir) : st;
}

mb_status mb_adapter_labels(const char *dir, int64_t *labels)
{
    static const char *const last[] = {"base_model.model.classifier.weight",
                                       "base_model.model.classifier.out_proj.weight"};
    mb_tensor_file *f = NULL;
    char path[4096];

    *labels = 0;
    if (mb_adapter_is_gguf(dir))
        return MB_OK;
    MB_TRY(mb_path_join(path, sizeof path, dir, "adapter_model.safetensors"));
    MB_TRY(mb_tensor_file_open(path, &f));
    for (size_t i = 0; i < sizeof last / sizeof last[0] && *labels == 0; i++) {
        const int64_t at = mb_tensor_file_find(f, last[i]);
        if (at >= 0 && mb_tensor_file_info(f, at)->ndim == 2)
            *labels = mb_tensor_file_info(f, at)->dim[0];
    }
    mb_tensor_file_close(f);
    return MB_OK;
}

static mb_status load_one(const mb_model *m, mb_tensor_file *f, const char *path,
                          const mb_weight *w, mb_exec *ex, mb_arena *scratch, int64_t *used)
{
    char name[NAME_MAX_BYTES], a[96], b[96];
    mb_tensor value = w->value;

    mb_weight_peft_name(w, name, sizeof name);
    const int64_t at = mb_tensor_file_find(f, name);
    MB_REQUIRE(at >= 0, MB_EMODEL, "%s: tensor '%s' is missing", path, name);
    const mb_tensor_info *info = mb_tensor_file_info(f, at);
    const mb_tensor found = mb_tensor_of(NULL, MB_DTYPE_F32, info->ndim, info->dim);
    MB_REQUIRE(mb_tensor_same_shape(&found, &value), MB_EMODEL,
               "%s: tensor '%s' has shape %s, this %s model needs %s", path, name,
               mb_tensor_shape(&found, a, sizeof a), m->family->name,
               mb_tensor_shape(&value, b, sizeof b));
    (*used)++;
    const size_t mark = mb_arena_used(scratch);
    value.dtype = MB_DTYPE_F32;
    if (!mb_weight_is_here(m, w))
        MB_TRY(mb_arena_take(scratch, (size_t)mb_tensor_bytes(&value), &value.data));
    MB_TRY(mb_load_f32(f, at, ex, scratch, &value));
    if (value.data != w->value.data)
        MB_TRY(mb_weight_write(m, w, 0, mb_tensor_count(&value), mb_f32(&value)));
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

static mb_status check_unknown(const mb_model *m, mb_tensor_file *f, const char *path)
{
    char name[NAME_MAX_BYTES];

    for (int64_t i = 0; i < mb_tensor_file_count(f); i++) {
        const char *have = mb_tensor_file_info(f, i)->name;
        bool known = false;
        for (int j = 0; j < m->n_weights && !known; j++) {
            mb_weight_peft_name(&m->weight[j], name, sizeof name);
            known = m->weight[j].trained && strcmp(name, have) == 0;
        }
        MB_REQUIRE(known, MB_EMODEL, "%s: tensor '%s' fits no adapter of this %s model", path, have,
                   m->family->name);
    }
    return MB_OK;
}

/* Rows that a file has a second time must be the same. */
static mb_status check_twin(mb_tensor_file *f, const char *path, const mb_token_rows *r,
                            mb_exec *ex, mb_arena *scratch, int64_t *used)
{
    const int64_t at = mb_tensor_file_find(f, r->values->name),
                  twin = mb_tensor_file_find(f, r->twin);
    const size_t mark = mb_arena_used(scratch);
    mb_tensor x = r->values->value, y;

    if (twin < 0)
        return MB_OK;
    const mb_tensor_info *info = mb_tensor_file_info(f, twin);
    const mb_tensor found = mb_tensor_of(NULL, MB_DTYPE_F32, info->ndim, info->dim);
    x.dtype = MB_DTYPE_F32;
    y = x;
    bool same = mb_tensor_same_shape(&found, &x);
    if (same) {
        MB_TRY(mb_arena_take(scratch, (size_t)mb_tensor_bytes(&x), &x.data));
        MB_TRY(mb_arena_take(scratch, (size_t)mb_tensor_bytes(&x), &y.data));
        MB_TRY(mb_load_f32(f, at, ex, scratch, &x));
        MB_TRY(mb_load_f32(f, twin, ex, scratch, &y));
        same = memcmp(x.data, y.data, (size_t)mb_tensor_bytes(&x)) == 0;
    }
    MB_REQUIRE(same, MB_EMODEL,
               "%s: '%s' differs from '%s', but in this model both are one table (tied)", path,
               r->twin, r->values->name);
    mb_arena_rewind(scratch, mark);
    (*used)++;
    return MB_OK;
}

static mb_status load_all(mb_model *m, mb_tensor_file *f, const char *path, mb_exec *ex,
                          mb_arena *scratch)
{
    int64_t used = 0;

    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].trained)
            MB_TRY(load_one(m, f, path, &m->weight[i], ex, scratch, &used));
    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].token_rows != NULL && m->weight[i].token_rows->twin != NULL)
            MB_TRY(check_twin(f, path, m->weight[i].token_rows, ex, scratch, &used));
    return used == mb_tensor_file_count(f) ? MB_OK : check_unknown(m, f, path);
}

mb_status mb_adapter_load(mb_model *m, const char *dir, mb_exec *ex)
{
    mb_tensor_file *f = NULL;
    mb_arena *scratch = NULL;
    char path[4096];
    int64_t most = 0;
    mb_status st = MB_OK;

    if (mb_adapter_is_gguf(dir))
        return mb_adapter_load_gguf(m, dir, ex);

    MB_TRY(mb_path_join(path, sizeof path, dir, "adapter_model.safetensors"));
    MB_TRY(mb_tensor_file_open(path, &f));
    for (int64_t i = 0; i < mb_tensor_file_count(f); i++)
        if (mb_tensor_file_info(f, i)->bytes > most)
            most = mb_tensor_file_info(f, i)->bytes;
    /* the file's bytes, and the numbers before they go to a device */
    MB_TRY_GOTO(mb_arena_new("loading", 5 * (size_t)most + 8192, &scratch), st, done);
    st = load_all(m, f, path, ex, scratch);
done:
    mb_arena_free(scratch);
    mb_tensor_file_close(f);
    return st;
}

static mb_status append(const mb_model *m, mb_safetensors_writer *w, const mb_weight *v)
{
    const int64_t bytes = mb_tensor_count(&v->value) * (int64_t)sizeof(float);
    void *copy = NULL;
    mb_status st;

    if (mb_weight_is_here(m, v))
        return mb_safetensors_append(w, v->value.data, bytes);
    MB_TRY(mb_alloc((size_t)bytes, "an adapter's copy", &copy));
    st = mb_weight_read(m, v, 0, mb_tensor_count(&v->value), copy);
    if (st == MB_OK)
        st = mb_safetensors_append(w, copy, bytes);
    mb_free(copy);
    return st;
}

/* The rows of a tied head, as PEFT stores them. */
static mb_status write_twins(const mb_model *m, mb_safetensors_writer *w, bool declare)
{
    for (int i = 0; i < m->n_weights; i++) {
        const mb_token_rows *r = m->weight[i].token_rows;

        if (r == NULL || r->twin == NULL)
            continue;
        if (declare)
            MB_TRY(mb_safetensors_declare(w, r->twin, MB_DTYPE_F32, 2, r->values->value.dim));
        else
            MB_TRY(append(m, w, r->values));
    }
    return MB_OK;
}

static mb_status write_all(const mb_model *m, mb_safetensors_writer *w)
{
    char name[NAME_MAX_BYTES];

    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *v = &m->weight[i];
        if (!v->trained)
            continue;
        mb_weight_peft_name(v, name, sizeof name);
        MB_TRY(mb_safetensors_declare(w, name, MB_DTYPE_F32, v->value.ndim, v->value.dim));
    }
    MB_TRY(write_twins(m, w, true));
    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].trained)
            MB_TRY(append(m, w, &m->weight[i]));
    MB_TRY(write_twins(m, w, false));
    return mb_safetensors_finish(w);
}

mb_status mb_adapter_write_tensors(const mb_model *m, const char *dir)
{
    mb_safetensors_writer *w = NULL;
    mb_status st;

    MB_TRY(mb_safetensors_writer_new(dir, "adapter_model", 0, &w));
    st = write_all(m, w);
    mb_safetensors_writer_free(w);
    return st;
}
