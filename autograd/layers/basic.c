/* autograd/layers/basic.c - weights on the tape, and the layers that are one op each. */
#include "autograd/layers.h"

/* Rows that are not trained now are in the table already (mb_model_write_token_rows). */
static mb_status put_token_rows(mb_tape *t, const mb_token_rows *r, mb_var *table)
{
    const mb_weight *w = r->values;
    mb_live_rows live = {.slot = r->slot, .run = r->run, .n_runs = r->n_runs};

    MB_TRY(mb_tape_weight(t, &w->value, &w->grad, w->layer, &live.var));
    return mb_live_rows_put(t, table, &live);
}

mb_status mb_weight_var(mb_tape *t, const mb_model *m, const mb_weight *w, mb_var **v)
{
    *v = NULL;
    if (w == NULL)
        return MB_OK;
    MB_REQUIRE(w->layer < 0 || w->layer == m->open_layer, MB_EBUG,
               "weight '%s' is used outside its layer", w->name);
    MB_TRY(mb_tape_weight(t, &w->value, w->trained ? &w->grad : NULL, w->layer, v));
    return w->token_rows != NULL && w->token_rows->values->trained
               ? put_token_rows(t, w->token_rows, *v)
               : MB_OK;
}

static mb_dropout token_dropout(const mb_model *m, const mb_batch *b, float p, uint64_t site)
{
    return (mb_dropout){.p = p * m->dropout_scale,
                        .seed = b->seed,
                        .site = site,
                        .step = b->step,
                        .ordinal = b->ordinal,
                        .position = b->position};
}

/* One key per sequence, for rows that are sequences. */
static mb_dropout sequence_dropout(const mb_model *m, const mb_batch *b, float p, uint64_t site)
{
    mb_dropout d = token_dropout(m, b, p, site);

    d.ordinal = b->seq_ordinal;
    d.position = b->seq_zero;
    return d;
}

/* Every adapter has a site of its own, far from the layers'. */
static uint64_t adapter_site(const mb_model *m, const mb_weight *w)
{
    return (1u << 20) + (uint64_t)(w - m->weight);
}

/* DoRA. Its dropout acts on all of what it adds to the frozen layer:
 *     y = W (x - d) + bias + g (W d + s B A d),  d = drop(x) */
static mb_status with_magnitude(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w,
                                const mb_linear_args *base, const mb_dropout *adapter, mb_var **y)
{
    mb_linear_args adapted = *base, plain = {.w = base->w, .bias = base->bias};
    mb_magnitude_args g = {.w = base->w,
                           .lora_a = base->lora_a,
                           .lora_b = base->lora_b,
                           .bias = base->bias,
                           .transposed = base->transposed,
                           .lora_scale = base->lora_scale};
    mb_var *rest = NULL, *d = x;

    MB_TRY(mb_weight_var(t, m, w->lora_m, &g.m));
    adapted.bias = NULL;
    if (adapter->p > 0.0f && mb_tape_is_training(t)) {
        plain.transposed = base->transposed;
        g.bias = NULL;
        MB_TRY(mb_drop(t, x, adapter, &d));
        MB_TRY(mb_scale(t, d, -1.0f, &rest));
        MB_TRY(mb_add(t, x, rest, &rest));
        MB_TRY(mb_linear(t, rest, &plain, &rest));
    }
    MB_TRY(mb_linear(t, d, &adapted, y));
    MB_TRY(mb_magnitude(t, *y, &g, y));
    return rest != NULL ? mb_add(t, *y, rest, y) : MB_OK;
}

static mb_status linear(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w,
                        const mb_weight *bias, const mb_dropout *adapter, mb_var **y)
{
    mb_linear_args a = {.transposed = (w->row->flags & MB_W_CONV1D) != 0,
                        .lora_scale = w->lora_scale};

    MB_TRY(mb_weight_var(t, m, w, &a.w));
    MB_TRY(mb_weight_var(t, m, bias, &a.bias));
    MB_TRY(mb_weight_var(t, m, w->lora_a, &a.lora_a));
    MB_TRY(mb_weight_var(t, m, w->lora_b, &a.lora_b));
    if (w->lora_m != NULL)
        return with_magnitude(t, m, x, w, &a, adapter, y);
    if (w->lora_a != NULL)
        a.drop = *adapter;
    return mb_linear(t, x, &a, y);
}

mb_status mb_layer_linear(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x,
                          const mb_weight *w, const mb_weight *bias, mb_var **y)
{
    const mb_dropout d = token_dropout(m, b, w->lora_dropout, adapter_site(m, w));

    return linear(t, m, x, w, bias, &d, y);
}

mb_status mb_layer_linear_pooled(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x,
                                 const mb_weight *w, const mb_weight *bias, mb_var **y)
{
    const mb_dropout d = sequence_dropout(m, b, w->lora_dropout, adapter_site(m, w));

    return linear(t, m, x, w, bias, &d, y);
}

static mb_rmsnorm_args rmsnorm_args(const mb_model *m)
{
    return (mb_rmsnorm_args){.eps = m->config.norm_eps, .offset = m->config.norm_offset};
}

mb_status mb_layer_rmsnorm(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w, mb_var **y)
{
    const mb_rmsnorm_args n = rmsnorm_args(m);
    mb_var *wv;

    MB_TRY(mb_weight_var(t, m, w, &wv));
    return mb_rmsnorm(t, x, wv, &n, y);
}

mb_status mb_layer_layernorm(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w,
                             const mb_weight *bias, mb_var **y)
{
    mb_var *wv, *bv;

    MB_TRY(mb_weight_var(t, m, w, &wv));
    MB_TRY(mb_weight_var(t, m, bias, &bv));
    return mb_layernorm(t, x, wv, bv, m->config.norm_eps, y);
}

mb_status mb_layer_add_rmsnorm(mb_tape *t, const mb_model *m, mb_var *a, mb_var *b,
                               const mb_weight *w, mb_var **sum, mb_var **y)
{
    const mb_rmsnorm_args n = rmsnorm_args(m);
    mb_var *wv;

    MB_TRY(mb_weight_var(t, m, w, &wv));
    return mb_add_rmsnorm(t, a, b, wv, &n, sum, y);
}

mb_status mb_layer_add_layernorm(mb_tape *t, const mb_model *m, mb_var *a, mb_var *b,
                                 const mb_weight *w, const mb_weight *bias, mb_var **sum,
                                 mb_var **y)
{
    mb_var *wv, *bv;

    MB_TRY(mb_weight_var(t, m, w, &wv));
    MB_TRY(mb_weight_var(t, m, bias, &bv));
    return mb_add_layernorm(t, a, b, wv, bv, m->config.norm_eps, sum, y);
}

/* The same numbers as a matrix of `cols` columns. */
static mb_tensor as_matrix(const mb_tensor *t, int64_t cols)
{
    return mb_tensor_2d(t->data, t->dtype, mb_tensor_count(t) / cols, cols);
}

static mb_status matrix_var(mb_tape *t, const mb_model *m, const mb_weight *w, int64_t cols,
                            mb_var **v)
{
    const mb_tensor value = as_matrix(&w->value, cols), grad = as_matrix(&w->grad, cols);

    if (w->value.ndim == 2)
        return mb_weight_var(t, m, w, v);
    MB_REQUIRE(w->layer < 0 || w->layer == m->open_layer, MB_EBUG,
               "weight '%s' is used outside its layer", w->name);
    return mb_tape_weight(t, &value, w->trained ? &grad : NULL, w->layer, v);
}

mb_status mb_layer_embedding(mb_tape *t, const mb_model *m, const mb_batch *b, const int32_t *ids,
                             const mb_weight *w, mb_var **y)
{
    return mb_layer_embedding_from(t, m, b, ids, w, 0, y);
}

/* The table seen from row `first` on; so is its gradient. */
mb_status mb_layer_embedding_from(mb_tape *t, const mb_model *m, const mb_batch *b,
                                  const int32_t *ids, const mb_weight *w, int64_t first, mb_var **y)
{
    const mb_tensor index = mb_tensor_1d((void *)(uintptr_t)ids, MB_DTYPE_I32, b->tokens);
    mb_var *wv;

    MB_TRY(matrix_var(t, m, w, mb_cols(&w->value), &wv));
    wv->value = mb_tensor_rows(&wv->value, first, mb_rows(&wv->value) - first);
    if (wv->grad.data != NULL)
        wv->grad = mb_tensor_rows(&wv->grad, first, mb_rows(&wv->grad) - first);
    return mb_embedding(t, &index, wv, ids == b->ids ? m->config.padding_row : -1, y);
}

mb_status mb_layer_feature_rows(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var **x)
{
    const mb_tensor given =
        mb_tensor_2d(b->features, MB_DTYPE_F32, b->feature_rows, b->feature_cols);

    if (m->dtype == MB_DTYPE_F32)
        return mb_tape_constant(t, &given, x);
    MB_TRY(mb_tape_value(t, m->dtype, 2, given.dim, x));
    return MB_RUN(mb_tape_exec(t), cast, &(*x)->value, &given);
}

mb_status mb_layer_features(mb_tape *t, const mb_model *m, const mb_batch *b, const mb_weight *w,
                            const mb_weight *bias, mb_var **y)
{
    const mb_tensor index = mb_tensor_1d(b->feature_row, MB_DTYPE_I32, b->tokens);
    mb_linear_args a = {0};
    mb_var *x;

    MB_REQUIRE(b->feature_rows > 0 &&
                   b->feature_cols == mb_tensor_count(&w->value) / w->value.dim[0],
               MB_EBUG, "rows of %lld features for '%s'", (long long)b->feature_cols, w->name);
    MB_TRY(mb_layer_feature_rows(t, m, b, &x));
    MB_TRY(matrix_var(t, m, w, b->feature_cols, &a.w));
    MB_TRY(mb_weight_var(t, m, bias, &a.bias));
    MB_TRY(mb_linear(t, x, &a, &x));
    return mb_gather_rows(t, x, &index, y);
}

mb_status mb_layer_convolution(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w,
                               const mb_weight *bias, int64_t length, int64_t stride, mb_var **y)
{
    const int64_t kernel = w->value.dim[2];
    const mb_unfold u = {.in_len = length,
                         .out_len = (length + stride - 1) / stride,
                         .kernel = kernel,
                         .stride = stride,
                         .pad = kernel / 2};
    mb_linear_args a = {0};

    MB_TRY(mb_unfold_windows(t, x, &u, &x));
    MB_TRY(matrix_var(t, m, w, mb_cols(&x->value), &a.w));
    MB_TRY(mb_weight_var(t, m, bias, &a.bias));
    return mb_linear(t, x, &a, y);
}

mb_status mb_layer_dropout(mb_tape *t, const mb_model *m, const mb_batch *b, float p, uint64_t site,
                           mb_var *x, mb_var **y)
{
    const mb_dropout d = token_dropout(m, b, p, site);

    return mb_drop(t, x, &d, y);
}

mb_status mb_layer_dropout_pooled(mb_tape *t, const mb_model *m, const mb_batch *b, float p,
                                  uint64_t site, mb_var *x, mb_var **y)
{
    const mb_dropout d = sequence_dropout(m, b, p, site);

    return mb_drop(t, x, &d, y);
}

mb_status mb_layer_waves(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x, mb_var **y)
{
    const mb_tensor positions = mb_tensor_1d(b->position, MB_DTYPE_I32, b->tokens);
    mb_var *table, *p;

    MB_TRY(mb_tape_constant(t, &m->sinusoid, &table));
    MB_TRY(mb_embedding(t, &positions, table, -1, &p));
    return mb_add(t, x, p, y);
}

mb_status mb_layer_rope(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer, mb_var *x,
                        mb_var **y)
{
    const mb_tensor positions = mb_tensor_1d(b->position, MB_DTYPE_I32, b->tokens);

    *y = x;
    if (mb_layer_set_has(&m->config.unrotated, layer))
        return MB_OK;
    const mb_model_config *c = &m->config;
    const bool windowed = c->rope_window.type != MB_ROPE_NONE && !mb_layer_set_has(&c->full, layer);
    const mb_rope_table *table = &m->rope[windowed];

    return mb_rope(t, x, &table->cos, &table->sin, &positions, c->head_dim, y);
}
