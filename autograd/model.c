/* autograd/model.c - building a model from its family's weight table, and giving it memory. */
#include "autograd/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/positions.h"
#include "core/alloc.h"

#define MB_MODEL(family) extern const mb_model_family mb_model_##family;
#include "autograd/models.def"
#undef MB_MODEL

const mb_model_family *const mb_model_families[] = {
#define MB_MODEL(family) &mb_model_##family,
#include "autograd/models.def"
#undef MB_MODEL
    NULL,
};

#define NAMES_BYTES ((size_t)64 << 20) /* address space; touched as far as used */

/* What a shape letter stands for; 0: unknown. */
static int64_t letter(const mb_model_config *c, char what)
{
    const struct {
        char letter;
        int64_t n;
    } table[] = {
        {'V', c->vocab},
        {'D', c->width},
        {'H', c->heads * c->head_dim},
        {'K', c->kv_heads * c->head_dim},
        {'F', c->ffn},
        {'P', c->positions + c->first_position},
        {'S', c->segments},
        {'C', c->labels},
        {'3', 3 * c->width},
        {'1', 1},
        {'I', c->channels},
        {'Q', c->patch},
        {'h', c->head_dim},
        {'q', (c->heads + 2 * c->kv_heads) * c->head_dim},
        {'2', 2 * c->ffn},
        {'G', c->dec_ffn},
        {'N', c->heads},
        {'B', c->buckets},
        {'M', c->mel_bins},
        {'A', c->source_positions},
        {'W', 3},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].letter == what)
            return table[i].n;
    return 0;
}

static mb_status full_name(mb_model *m, const char *pattern, int64_t layer, const char **out)
{
    const char *at = strstr(pattern, "{l}");
    char text[256];

    if (at == NULL)
        snprintf(text, sizeof text, "%s", pattern);
    else
        snprintf(text, sizeof text, "%.*s%lld%s", (int)(at - pattern), pattern, (long long)layer,
                 at + 3);
    return mb_arena_strdup(m->strings, text, out);
}

/* Replaces one part of a name. */
static void replace(char *text, size_t size, const char *from, const char *to)
{
    char *at = strstr(text, from), rest[256];

    if (at == NULL)
        return;
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    snprintf(at, size - (size_t)(at - text), "%s%s", to, rest);
}

static mb_status name_module(mb_model *m, mb_weight *w)
{
    char text[256];
    const char *dot = strrchr(w->name, '.');

    if (m->family->modules == NULL || dot == NULL)
        return MB_OK;
    snprintf(text, sizeof text, "%.*s", (int)(dot - w->name), w->name);
    for (const char *const(*r)[2] = m->family->modules; (*r)[0] != NULL; r++)
        replace(text, sizeof text, (*r)[0], (*r)[1]);
    return full_name(m, text, 0, &w->module);
}

/* An embedder is the family's bare class, whose names have no prefix. */
static const char *own_pattern(const mb_model *m, const char *pattern)
{
    const size_t n = strlen(m->family->prefix);

    if (m->config.head == MB_HEAD_EMBED && strncmp(pattern, m->family->prefix, n) == 0)
        return pattern + n;
    return pattern;
}

static mb_status add_row(mb_model *m, const mb_weight_row *row, int64_t layer, void *slots)
{
    mb_weight *w = &m->weight[m->n_weights];
    int64_t dim[MB_MAX_DIMS];
    int ndim = 0;

    for (const char *s = row->shape; *s != '\0'; s++)
        if (*s != ' ')
            dim[ndim++] = letter(&m->config, *s);
    int64_t count = 1;
    for (int i = 0; i < ndim; i++)
        MB_REQUIRE(!__builtin_mul_overflow(count, dim[i], &count) && count < (int64_t)1 << 48,
                   MB_EMODEL, "weight %s of shape '%s' is too large", row->name, row->shape);
    for (int i = 0; i < ndim; i++)
        MB_REQUIRE(dim[i] > 0, MB_EMODEL, "weight %s has no size for '%s'", row->name, row->shape);
    *w = (mb_weight){
        .row = row, .layer = layer, .offset = -1, .decay = (row->flags & MB_W_NO_DECAY) == 0};
    MB_TRY(full_name(m, own_pattern(m, row->name),
                     layer < m->config.layers ? layer : layer - m->config.layers, &w->name));
    MB_TRY(name_module(m, w));
    w->value = mb_tensor_of(NULL, MB_DTYPE_F32, ndim, dim);
    w->grad = w->value;
    *(mb_weight **)((char *)slots + row->slot) = w;
    m->n_weights++;
    return MB_OK;
}

static bool present(const mb_weight_row *row, const mb_model_config *c)
{
    return row->has == NULL || row->has(c);
}

/* Embeddings come before the layers, final norms and heads after them. */
static mb_status add_globals(mb_model *m, bool after_layers)
{
    for (const mb_weight_row *r = m->family->globals; r->name != NULL; r++) {
        const bool embed = (r->flags & MB_W_EMBED) != 0;
        if (present(r, &m->config) && embed == !after_layers)
            MB_TRY(add_row(m, r, -1, m->globals));
    }
    return MB_OK;
}

static int count_rows(const mb_model_config *c)
{
    int n = 0;

    for (const mb_weight_row *r = c->family->globals; r->name != NULL; r++)
        n += present(r, c);
    for (const mb_weight_row *r = c->family->layer; r->name != NULL; r++)
        n += present(r, c) ? (int)c->layers : 0;
    for (const mb_weight_row *r = c->family->dec_layer; r != NULL && r->name != NULL; r++)
        n += present(r, c) ? (int)c->dec_layers : 0;
    return n;
}

static mb_status build(mb_model *m)
{
    MB_TRY(add_globals(m, false));
    for (int64_t l = 0; l < mb_model_layers(&m->config); l++) {
        const mb_weight_row *r = l < m->config.layers ? m->family->layer : m->family->dec_layer;
        for (; r->name != NULL; r++)
            if (present(r, &m->config))
                MB_TRY(add_row(m, r, l, mb_model_layer(m, l)));
    }
    return add_globals(m, true);
}

mb_status mb_model_new(const mb_model_config *c, mb_model **out)
{
    mb_model *m = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&m));
    m->config = *c;
    m->family = c->family;
    m->open_layer = -1;
    m->dropout_scale = 1.0f;
    m->max_positions = c->positions;
    m->dtype = MB_DTYPE_F32;
    m->capacity = count_rows(c);
    MB_TRY_GOTO(mb_arena_new("weight names", NAMES_BYTES, &m->strings), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&m->weight, m->capacity), st, fail);
    MB_TRY_GOTO(mb_alloc(m->family->globals_size, "the model", &m->globals), st, fail);
    MB_TRY_GOTO(
        mb_alloc_array((size_t)c->layers, m->family->layer_size, "the layers", (void **)&m->layers),
        st, fail);
    MB_TRY_GOTO(mb_alloc_array((size_t)c->dec_layers, m->family->dec_layer_size,
                               "the decoder's layers", (void **)&m->dec_layers),
                st, fail);
    MB_TRY_GOTO(build(m), st, fail);
    *out = m;
    return MB_OK;
fail:
    mb_model_free(m);
    return st;
}

void mb_model_free(mb_model *m)
{
    if (m == NULL)
        return;
    mb_arena_free(m->strings);
    mb_free(m->weight);
    mb_free(m->globals);
    mb_free(m->layers);
    mb_free(m->dec_layers);
    mb_free(m);
}

mb_weight *mb_model_find(const mb_model *m, const char *name)
{
    for (int i = 0; i < m->n_weights; i++)
        if (strcmp(m->weight[i].name, name) == 0)
            return &m->weight[i];
    return NULL;
}

mb_status mb_model_reserve(mb_model *m, int extra)
{
    mb_weight *bigger = NULL;

    MB_TRY(MB_NEW_ARRAY(&bigger, m->n_weights + extra));
    memcpy(bigger, m->weight, (size_t)m->n_weights * sizeof *bigger);
    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];
        char *slots = w->layer < 0 ? m->globals : mb_model_layer(m, w->layer);
        MB_REQUIRE(w->row != NULL, MB_EBUG, "adapters are added once");
        *(mb_weight **)(slots + w->row->slot) = &bigger[i];
    }
    mb_free(m->weight);
    m->weight = bigger;
    m->capacity = m->n_weights + extra;
    return MB_OK;
}

mb_status mb_model_append(mb_model *m, const char *name, int ndim, const int64_t *dim,
                          mb_weight **out)
{
    mb_weight *w = &m->weight[m->n_weights];

    MB_REQUIRE(m->n_weights < m->capacity, MB_EBUG, "no room for weight '%s'", name);
    *w = (mb_weight){.layer = -1, .offset = -1, .decay = true};
    MB_TRY(full_name(m, name, 0, &w->name));
    w->value = mb_tensor_of(NULL, MB_DTYPE_F32, ndim, dim);
    w->grad = w->value;
    m->n_weights++;
    *out = w;
    return MB_OK;
}

int64_t mb_model_parameters(const mb_model *m, bool trained_only)
{
    int64_t n = 0;

    for (int i = 0; i < m->n_weights; i++)
        if (trained_only ? m->weight[i].trained : !mb_weight_is_fixed(&m->weight[i]))
            n += mb_tensor_count(&m->weight[i].value);
    return n;
}

mb_status mb_model_layout(mb_model *m, mb_flat *flat)
{
    int n = 0;

    *flat = (mb_flat){0};
    for (int i = 0; i < m->n_weights; i++)
        flat->n_segments += m->weight[i].trained;
    MB_TRY(MB_NEW_ARRAY(&flat->segment, flat->n_segments + 1));
    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];
        mb_flat_segment *s = &flat->segment[n];

        if (!w->trained)
            continue;
        *s = (mb_flat_segment){.name = w->name,
                               .offset = flat->count,
                               .count = mb_tensor_count(&w->value),
                               .ndim = w->value.ndim,
                               .decay = w->decay,
                               .layer = w->layer};
        memcpy(s->dim, w->value.dim, sizeof s->dim);
        w->offset = flat->count;
        flat->count += s->count;
        n++;
    }
    flat->count = (flat->count + MB_GRAIN - 1) / MB_GRAIN * MB_GRAIN;
    mb_flat_shard(flat, 0, 0, 1);
    return mb_flat_make_units(flat, mb_model_layers(&m->config));
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Llama 3's slower rotation of long wavelengths (meta-llama/llama-models, apply_scaling). */
static double llama3_frequency(const mb_rope_config *r, double f)
{
    const double wavelength = 6.283185307179586 / f;
    const double low = r->original_positions / r->low_freq_factor;
    const double high = r->original_positions / r->high_freq_factor;

    if (wavelength < high)
        return f;
    if (wavelength > low)
        return f / r->factor;
    const double smooth = (r->original_positions / wavelength - r->low_freq_factor) /
                          (r->high_freq_factor - r->low_freq_factor);
    return (1.0 - smooth) * f / r->factor + smooth * f;
}

static double frequency(const mb_rope_config *r, int64_t i)
{
    const double f = 1.0 / pow(r->theta, 2.0 * (double)i / (double)r->rotated);

    switch (r->type) {
    case MB_ROPE_LINEAR:
        return f / r->factor;
    case MB_ROPE_LLAMA3:
        return llama3_frequency(r, f);
    case MB_ROPE_LONG:
        return f / (double)r->divisor[i];
    default:
        return f;
    }
}

double mb_rope_divisor(const mb_rope_config *r, int64_t i)
{
    return 1.0 / pow(r->theta, 2.0 * (double)i / (double)r->rotated) / frequency(r, i);
}

/* Angles are products of f32 numbers, as PyTorch takes them; sine and cosine of them in f64. */
static void rope_angles(const mb_rope_config *r, int64_t positions, double (*of)(double),
                        float *table)
{
    const int64_t half = r->rotated / 2;
    const double factor = r->type == MB_ROPE_LONG ? r->attention_factor : 1.0;

    for (int64_t i = 0; i < half; i++) {
        const float f = (float)frequency(r, i);
        for (int64_t p = 0; p < positions; p++)
            table[p * half + i] = (float)(factor * of((double)((float)p * f)));
    }
}

static mb_status fill_rope(const mb_model *m, const mb_rope_config *r, const mb_rope_table *to)
{
    const size_t n = (size_t)mb_tensor_count(&to->cos);
    float *table = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&table, n));
    rope_angles(r, m->max_positions, cos, table);
    MB_TRY_GOTO(mb_device_write(m->device, &to->cos, table), st, done);
    rope_angles(r, m->max_positions, sin, table);
    st = mb_device_write(m->device, &to->sin, table);
done:
    mb_free(table);
    return st;
}

static mb_status bind_rope(mb_model *m, mb_arena *run, const mb_rope_config *r, mb_rope_table *to)
{
    const int64_t half = r->rotated / 2;
    void *p, *q;

    if (r->type == MB_ROPE_NONE)
        return MB_OK;
    MB_TRY(mb_arena_take(run, (size_t)(m->max_positions * half) * sizeof(float), &p));
    MB_TRY(mb_arena_take(run, (size_t)(m->max_positions * half) * sizeof(float), &q));
    to->cos = mb_tensor_2d(p, MB_DTYPE_F32, m->max_positions, half);
    to->sin = mb_tensor_2d(q, MB_DTYPE_F32, m->max_positions, half);
    return mb_arena_is_counting(run) ? MB_OK : fill_rope(m, r, to);
}

/* Where a weight's numbers are kept: in its place, or, of a sharded one, the part this rank owns;
 * `from` is where that starts in the weight. */
static mb_tensor kept(const mb_model *m, const mb_weight *w, int64_t *from)
{
    const mb_flat *f = m->flat;
    const int64_t n = mb_tensor_count(&w->value);

    *from = 0;
    if (!w->trained || !mb_flat_master_apart(f))
        return w->value;
    const int64_t a = w->offset > f->own_from ? w->offset : f->own_from;
    const int64_t b = w->offset + n < f->own_to ? w->offset + n : f->own_to;
    *from = a - w->offset;
    return mb_tensor_1d(a < b ? f->own_param + (a - f->own_from) : NULL, MB_DTYPE_F32,
                        a < b ? b - a : 0);
}

/* Its parameters are the upper halves of the master copy. */
static bool in_halves(const mb_model *m, const mb_weight *w)
{
    return w->trained && m->flat->own_low != NULL;
}

/* Whole parameters beside a master copy. */
static bool has_rounded(const mb_model *m, const mb_weight *w)
{
    return w->trained && m->flat->dtype != MB_DTYPE_F32 && m->flat->stage < 3;
}

mb_status mb_weight_write(const mb_model *m, const mb_weight *w, int64_t from, int64_t n,
                          const float *numbers)
{
    const mb_dtype d = w->value.dtype;
    int64_t at;

    MB_REQUIRE(!w->blocks, MB_EBUG, "%s stays in blocks, which are not written", w->name);
    if (in_halves(m, w))
        return mb_flat_write_halves(m->device, m->flat, w->offset + from, n, numbers);
    const mb_tensor t = kept(m, w, &at);
    const int64_t a = from > at ? from : at, end = at + mb_tensor_count(&t),
                  b = from + n < end ? from + n : end;

    if (a < b) {
        const mb_tensor part = mb_tensor_1d(mb_element(t.data, t.dtype, a - at), t.dtype, b - a);
        MB_TRY(mb_device_write_f32(m->device, &part, numbers + (a - from)));
    }
    const mb_tensor part = mb_tensor_1d(mb_element(w->value.data, d, from), d, n);
    return has_rounded(m, w) ? mb_device_write_f32(m->device, &part, numbers) : MB_OK;
}

mb_status mb_weight_zero(const mb_model *m, const mb_weight *w)
{
    const mb_flat *f = m->flat;
    int64_t at;

    if (in_halves(m, w)) {
        const int64_t end = w->offset + mb_tensor_count(&w->value);
        const int64_t a = w->offset > f->own_from ? w->offset : f->own_from,
                      b = end < f->own_to ? end : f->own_to;
        const mb_tensor low = mb_tensor_1d(f->own_low + (a - f->own_from), MB_DTYPE_U16, b - a);

        if (a < b)
            MB_TRY(mb_device_zero(m->device, &low));
        return mb_device_zero(m->device, &w->value);
    }
    const mb_tensor t = kept(m, w, &at);

    if (mb_tensor_count(&t) > 0)
        MB_TRY(mb_device_zero(m->device, &t));
    return has_rounded(m, w) ? mb_device_zero(m->device, &w->value) : MB_OK;
}

bool mb_weight_is_here(const mb_model *m, const mb_weight *w)
{
    return mb_device_is_host(m->device) && w->value.dtype == MB_DTYPE_F32 &&
           (!w->trained || m->flat->stage < 3);
}

mb_status mb_weight_read(const mb_model *m, const mb_weight *w, int64_t from, int64_t n, float *to)
{
    const mb_flat *f = m->flat;
    const mb_dtype d = w->value.dtype;
    const mb_tensor t = mb_tensor_1d(mb_element(w->value.data, d, from), d, n);

    MB_REQUIRE(!w->blocks, MB_EBUG, "%s stays in blocks, which are read by products alone",
               w->name);
    if (!w->trained || !mb_flat_master_apart(f))
        return mb_device_read_f32(m->device, to, &t);
    if (f->own_from <= w->offset + from && w->offset + from + n <= f->own_to)
        return mb_flat_read(m->device, f, w->offset + from, n, to);
    MB_REQUIRE(f->fetch != NULL, MB_EBUG, "%s is spread over ranks", w->name);
    return f->fetch(f->fetch_ctx, w->offset + from, n, to);
}

mb_status mb_weight_read_grad(const mb_model *m, const mb_weight *w, float *to)
{
    MB_REQUIRE(m->flat->stage < 2, MB_EBUG, "the gradient of %s is spread over ranks", w->name);
    return mb_device_read(m->device, to, &w->grad);
}

/* Memory of the flat arrays as the stage wants them (core/flat.h). */
static mb_status take_elements(mb_arena *run, int64_t n, size_t size, void **out)
{
    return mb_arena_take(run, (size_t)n * size, out);
}

static mb_status bind_flat(mb_arena *run, mb_flat *f, bool exact)
{
    const int64_t own = f->own_to - f->own_from;
    const size_t size = (size_t)mb_dtype_bytes(f->dtype, 1);
    const bool grads = f->stage < 2, params = f->stage < 3; /* whole */
    const bool half = f->dtype != MB_DTYPE_F32, halves = params && f->dtype == MB_DTYPE_BF16;
    void *p, *g, *s = NULL;

    f->is_exact = exact;
    if (params && half)
        MB_TRY(take_elements(run, f->count, size, &f->half));
    MB_TRY(take_elements(run, params && !half ? f->count : own,
                         halves ? sizeof(uint16_t) : sizeof(float), &p));
    g = mb_arena_nowhere(); /* mb_model_place_gradients */
    if (!f->grad_in_step)
        MB_TRY(take_elements(run, grads ? f->count : own, sizeof(float), &g));
    if (exact)
        MB_TRY(take_elements(run, grads ? f->count : own, sizeof(int64_t), &s));
    f->param = params && !half ? p : NULL;
    f->grad = grads ? g : NULL;
    f->exact = exact && grads ? s : NULL;
    f->own_low = halves ? p : NULL;
    f->own_param = halves ? NULL : f->param != NULL ? (float *)p + f->own_from : p;
    f->own_grad = grads ? (float *)g + f->own_from : g;
    f->own_exact = !exact ? NULL : grads ? (int64_t *)s + f->own_from : s;
    for (int w = 0; w < MB_FLAT_WINDOWS; w++) {
        const int64_t n = mb_flat_window_count(f, w);
        if (!params)
            MB_TRY(take_elements(run, n, size, &f->param_window[w]));
        if (!grads)
            MB_TRY(take_elements(run, n, sizeof(float), (void **)&f->grad_window[w]));
        if (!grads && exact)
            MB_TRY(take_elements(run, n, sizeof(int64_t), (void **)&f->exact_window[w]));
    }
    return MB_OK;
}

static void bind_trained(mb_weight *w, const mb_flat *f)
{
    const int window = mb_flat_window_of((int)w->layer + 1);
    const int64_t at = f->stage < 2 ? 0 : mb_flat_window_at(f, w->layer, w->offset);

    w->value.data = f->stage < 3 ? mb_element(mb_flat_values(f), f->dtype, w->offset)
                                 : mb_element(f->param_window[window], f->dtype, at);
    w->grad.data = f->stage < 2 ? f->grad + w->offset : f->grad_window[window] + at;
}

void mb_model_place_gradients(mb_model *m, mb_flat *flat, float *grad)
{
    flat->grad = grad;
    flat->own_grad = grad + flat->own_from;
    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].trained)
            m->weight[i].grad.data = grad + m->weight[i].offset;
}

void mb_model_compute_in(mb_model *m, mb_dtype dtype)
{
    for (int i = 0; i < m->n_weights; i++)
        if (!m->weight[i].blocks)
            m->weight[i].value.dtype = dtype;
    m->dtype = dtype;
}

/* Where each id's row is among the trained ones. */
static mb_status bind_token_rows(const mb_model *m, mb_arena *run, const mb_weight *w)
{
    mb_token_rows *r = w->token_rows;
    const int64_t v = w->value.dim[0], n = r->values->value.dim[0];
    int32_t *slot = NULL;
    mb_status st;
    void *p;

    MB_TRY(mb_arena_take(run, (size_t)v * sizeof *slot, &p));
    r->slot = mb_tensor_2d(p, MB_DTYPE_I32, v, 1);
    if (mb_arena_is_counting(run))
        return MB_OK;
    MB_TRY(MB_NEW_ARRAY(&slot, v));
    for (int64_t i = 0; i < v; i++)
        slot[i] = -1;
    for (int64_t i = 0; i < n; i++)
        slot[r->id[i]] = (int32_t)i;
    st = mb_device_write(m->device, &r->slot, slot);
    mb_free(slot);
    return st;
}

mb_status mb_model_bind(mb_model *m, mb_device *device, mb_arena *run, mb_flat *flat, bool exact)
{
    void *p;

    m->device = device;
    m->flat = flat;
    flat->dtype = m->dtype;
    MB_TRY(bind_flat(run, flat, exact));
    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];
        if (w->trained) {
            bind_trained(w, flat);
        } else if (!w->lent) {
            MB_TRY(mb_arena_take(run, (size_t)mb_tensor_bytes(&w->value), &p));
            w->value.data = p;
            w->grad.data = NULL;
        }
        if (w->token_rows != NULL)
            MB_TRY(bind_token_rows(m, run, w));
    }
    MB_TRY(bind_rope(m, run, &m->config.rope, &m->rope[0]));
    MB_TRY(bind_rope(m, run, &m->config.rope_window, &m->rope[1]));
    return mb_positions_bind(m, run);
}

mb_status mb_flat_round(mb_exec *ex, mb_flat *f)
{
    const int64_t n = f->own_to - f->own_from;

    if (f->half == NULL || f->own_low != NULL || n == 0)
        return MB_OK;
    mb_tensor to = mb_tensor_1d(mb_element(f->half, f->dtype, f->own_from), f->dtype, n);
    const mb_tensor master = mb_tensor_1d(f->own_param, MB_DTYPE_F32, n);
    return MB_RUN(ex, cast, &to, &master);
}
