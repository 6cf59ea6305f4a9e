/* recipes/export/adapter_gguf.c - reading an adapter out of a GGUF file, as llama.cpp has it.
 *
 * Tensors are named after the base's with ".lora_a" (r,in) and ".lora_b" (out,r) behind; the scale is
 * adapter.lora.alpha / r. Rows of q and k lie as those of the base do (see autograd/load.c).
 */
#include <stdio.h>
#include <string.h>

#include "autograd/load.h"
#include "core/alloc.h"
#include "core/formats/gguf.h"
#include "core/path.h"
#include "recipes/export/adapter.h"
#include "recipes/export/gguf.h"

enum { NAME_MAX_BYTES = 256, MODULE_MAX = 384, RANK_MOST = 65536 };

bool mb_adapter_is_gguf(const char *path)
{
    char config[MB_PATH_MAX], **names;
    bool found = false;
    size_t n;

    if (mb_path_is_file(path))
        return true;
    if (!mb_path_is_dir(path) ||
        mb_path_join(config, sizeof config, path, "adapter_config.json") != MB_OK ||
        mb_path_exists(config) || mb_path_list(path, &names, &n) != MB_OK)
        return false;
    for (size_t i = 0; i < n; i++)
        found = found || mb_path_has_suffix(names[i], ".gguf");
    mb_path_list_free(names, n);
    return found;
}

static int64_t find(const mb_model *m, const mb_tensor_file *f, const mb_weight *w, const char *end)
{
    char name[NAME_MAX_BYTES], whole[NAME_MAX_BYTES + 16];

    if (w->row == NULL || !mb_weight_gguf_name(m, w, name, sizeof name))
        return -1;
    snprintf(whole, sizeof whole, "%s.%s", name, end);
    return mb_tensor_file_find(f, whole);
}

static mb_status check_kind(const mb_model *m, const mb_tensor_file *f, const char *path,
                            double *alpha)
{
    const mb_gguf *g = mb_tensor_file_gguf(f);
    const char *type, *kind, *arch;

    MB_REQUIRE(g != NULL, MB_EMODEL, "%s is no GGUF file", path);
    MB_TRY(mb_gguf_opt_string(g, "general.type", "model", &type));
    MB_TRY(mb_gguf_opt_string(g, "adapter.type", "", &kind));
    MB_REQUIRE(strcmp(type, "adapter") == 0 && strcmp(kind, "lora") == 0, MB_EMODEL,
               "%s is a GGUF file of type \"%.40s\", not a LoRA adapter", path, type);
    MB_TRY(mb_gguf_string(g, "general.architecture", &arch, NULL));
    MB_REQUIRE(m->family->gguf_arch != NULL && strcmp(arch, m->family->gguf_arch) == 0, MB_EMODEL,
               "%s is an adapter of architecture \"%.40s\", the model is %s", path, arch,
               m->family->name);
    return mb_gguf_f64(g, "adapter.lora.alpha", alpha);
}

/* The rank of an adapter, which is the same everywhere. */
static mb_status same_rank(const mb_tensor_file *f, int64_t at, const char *path, int64_t *r)
{
    const mb_tensor_info *info = mb_tensor_file_info(f, at);

    MB_REQUIRE(info->ndim == 2 && info->dim[0] <= RANK_MOST, MB_EMODEL,
               "%s: tensor '%s' is no factor of an adapter", path, info->name);
    MB_REQUIRE(*r == 0 || *r == info->dim[0], MB_ENOTSUP,
               "%s: has adapters of rank %lld and of rank %lld; one rank for all is supported",
               path, (long long)*r, (long long)info->dim[0]);
    *r = info->dim[0];
    return MB_OK;
}

/* The modules that have an adapter, by their whole paths. */
static mb_status list_modules(mb_model *m, const mb_tensor_file *f, const char *path,
                              const char **module, int *n, int64_t *r)
{
    char text[MODULE_MAX];
    int64_t used = 0;

    for (int i = 0; i < m->n_weights; i++) {
        const int64_t a = find(m, f, &m->weight[i], "lora_a"),
                      b = find(m, f, &m->weight[i], "lora_b");
        if (a < 0 && b < 0)
            continue;
        MB_REQUIRE(a >= 0 && b >= 0, MB_EMODEL, "%s: %s has one factor of its adapter only", path,
                   m->weight[i].name);
        MB_TRY(same_rank(f, a, path, r));
        mb_weight_module(&m->weight[i], text, sizeof text);
        MB_TRY(mb_arena_strdup(m->strings, text, &module[(*n)++]));
        used += 2;
    }
    MB_REQUIRE(used == mb_tensor_file_count(f) && used > 0, MB_EMODEL,
               "%s: %lld of its %lld tensors fit no adapter of this %s model", path,
               (long long)(mb_tensor_file_count(f) - used), (long long)mb_tensor_file_count(f),
               m->family->name);
    return MB_OK;
}

mb_status mb_adapter_add_gguf(mb_model *m, const char *path)
{
    mb_tensor_file *f = NULL;
    const char **module = NULL;
    int64_t r = 0;
    double alpha = 0.0;
    int n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_tensor_file_open(path, &f));
    MB_TRY_GOTO(check_kind(m, f, path, &alpha), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&module, m->n_weights), st, done);
    MB_TRY_GOTO(list_modules(m, f, path, module, &n, &r), st, done);
    const mb_lora_options o = {
        .r = r, .alpha = alpha, .targets = module, .n_targets = n, .lenient = true};
    st = mb_model_add_lora(m, &o);
done:
    mb_free(module);
    mb_tensor_file_close(f);
    return st;
}

static mb_status load_factor(const mb_model *m, mb_tensor_file *f, const char *path, int64_t at,
                             const mb_weight *factor, bool permuted, mb_exec *ex, mb_arena *scratch)
{
    const mb_tensor_info *info = mb_tensor_file_info(f, at);
    const mb_tensor found = mb_tensor_of(NULL, MB_DTYPE_F32, info->ndim, info->dim);
    const int64_t n = mb_tensor_count(&factor->value);
    const size_t mark = mb_arena_used(scratch);
    char a[96], b[96];
    void *p, *q;

    MB_REQUIRE(mb_tensor_same_shape(&found, &factor->value), MB_EMODEL,
               "%s: tensor '%s' has shape %s, this %s model needs %s", path, info->name,
               mb_tensor_shape(&found, a, sizeof a), m->family->name,
               mb_tensor_shape(&factor->value, b, sizeof b));
    MB_TRY(mb_arena_take(scratch, (size_t)n * sizeof(float), &p));
    MB_TRY(mb_arena_take(scratch, (size_t)n * sizeof(float), &q));
    mb_tensor x = mb_tensor_of(p, MB_DTYPE_F32, info->ndim, info->dim);
    MB_TRY(mb_load_f32(f, at, ex, scratch, &x));
    if (permuted)
        mb_gguf_unpermute(p, info->dim[0], info->dim[1], m->config.head_dim, q);
    MB_TRY(mb_weight_write(m, factor, 0, n, permuted ? q : p));
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

static mb_status load_all(const mb_model *m, mb_tensor_file *f, const char *path, mb_exec *ex,
                          mb_arena *scratch)
{
    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];
        if (w->lora_a == NULL)
            continue;
        const bool permuted = (w->row->flags & (MB_W_ROPE_Q | MB_W_ROPE_K)) != 0;
        MB_TRY(load_factor(m, f, path, find(m, f, w, "lora_a"), w->lora_a, false, ex, scratch));
        MB_TRY(load_factor(m, f, path, find(m, f, w, "lora_b"), w->lora_b, permuted, ex, scratch));
    }
    return MB_OK;
}

mb_status mb_adapter_load_gguf(mb_model *m, const char *path, mb_exec *ex)
{
    mb_tensor_file *f = NULL;
    mb_arena *scratch = NULL;
    int64_t most = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_tensor_file_open(path, &f));
    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];
        for (int k = 0; k < 2 && w->lora_a != NULL; k++) {
            const int64_t n = mb_tensor_count(k == 0 ? &w->lora_a->value : &w->lora_b->value);
            most = n > most ? n : most;
        }
    }
    /* the numbers twice, and the file's bytes */
    MB_TRY_GOTO(mb_arena_new("loading", (size_t)most * 12 + 8192, &scratch), st, done);
    st = load_all(m, f, path, ex, scratch);
done:
    mb_arena_free(scratch);
    mb_tensor_file_close(f);
    return st;
}
