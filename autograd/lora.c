/* autograd/lora.c - see autograd/lora.h. */
#include "autograd/lora.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/rng.h"

enum { NAME_MAX_BYTES = 320, PIECE = 1 << 16 /* elements read at a time */ };
enum { MOST_RANK = 4096, MOST_DORA_RANK = 1024 /* of magnitude_gain */ };

static bool is_matrix(const mb_weight *w)
{
    return w->row != NULL && (w->row->flags & MB_W_LINEAR) != 0;
}

static void module_in_file(const mb_weight *w, char *out, size_t size)
{
    const char *dot = strrchr(w->name, '.');
    const size_t n = dot != NULL ? (size_t)(dot - w->name) : strlen(w->name);

    snprintf(out, size, "%.*s", (int)n, w->name);
}

void mb_weight_module(const mb_weight *w, char *out, size_t size)
{
    if (w->module != NULL)
        snprintf(out, size, "%s", w->module);
    else
        module_in_file(w, out, size);
}

void mb_weight_peft_name(const mb_weight *w, char *out, size_t size)
{
    if (w->row == NULL)
        snprintf(out, size, "%s", w->name);
    else
        snprintf(out, size, "base_model.model.%s", w->name);
}

/* "q_proj" names "model.layers.0.self_attn.q_proj"; whole dotted parts only. */
static bool has_suffix(const char *module, const char *suffix)
{
    const size_t n = strlen(module), k = strlen(suffix);

    return n >= k && strcmp(module + n - k, suffix) == 0 && (n == k || module[n - k - 1] == '.');
}

/* "pooler" also names "bert.pooler.dense", which is a part of it. */
static bool is_inside(const char *module, const char *name)
{
    char path[NAME_MAX_BYTES];

    snprintf(path, sizeof path, "%s", module);
    for (char *dot = path; dot != NULL; dot = strrchr(path, '.')) {
        if (dot != path)
            *dot = '\0';
        if (has_suffix(path, name))
            return true;
    }
    return false;
}

/* POSIX extended expressions, plus the classes \\d, \\w and \\s that PEFT's users write. */
static mb_status translate(const char *pattern, char *out, size_t size)
{
    static const char *const classes[][2] = {
        {"\\d", "[0-9]"}, {"\\w", "[A-Za-z0-9_]"}, {"\\s", "[[:space:]]"}};
    size_t n = 0;

    for (const char *p = pattern; *p != '\0';) {
        char one[3] = {*p, '\0', '\0'};
        const char *piece = one;
        size_t step = 1;
        if (*p == '\\' && p[1] != '\0') {
            one[1] = p[1];
            step = 2;
            for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
                if (strcmp(one, classes[i][0]) == 0)
                    piece = classes[i][1];
        }
        MB_REQUIRE(n + strlen(piece) < size, MB_EARG, "the pattern '%.40s...' is too long",
                   pattern);
        memcpy(out + n, piece, strlen(piece));
        n += strlen(piece);
        p += step;
    }
    out[n] = '\0';
    return MB_OK;
}

static mb_status compile(const char *pattern, regex_t *re)
{
    char inner[512], whole[528], why[128];

    MB_TRY(translate(pattern, inner, sizeof inner));
    snprintf(whole, sizeof whole, "^(%s)$", inner);
    const int code = regcomp(re, whole, REG_EXTENDED | REG_NOSUB);
    if (code == 0)
        return MB_OK;
    regerror(code, re, why, sizeof why);
    return MB_RAISE(MB_EARG, "the pattern '%s' is not a regular expression: %s", pattern, why);
}

void mb_model_train_all(mb_model *m)
{
    for (int i = 0; i < m->n_weights; i++)
        m->weight[i].trained = !mb_weight_is_fixed(&m->weight[i]);
}

static mb_status mark_matching(mb_model *m, const char *pattern)
{
    regex_t re;
    int n = 0;

    MB_TRY(compile(pattern, &re));
    for (int i = 0; i < m->n_weights; i++) {
        if (regexec(&re, m->weight[i].name, 0, NULL, 0) == 0 &&
            !mb_weight_is_fixed(&m->weight[i])) {
            m->weight[i].trained = true;
            n++;
        }
    }
    regfree(&re);
    MB_REQUIRE(n > 0, MB_EARG, "trainable_parameters: '%s' matches no parameter of this %s model",
               pattern, m->family->name);
    return MB_OK;
}

mb_status mb_model_train_some(mb_model *m, int64_t n_layers, const char *const *patterns,
                              int n_patterns)
{
    const int64_t layers = mb_model_layers(&m->config);

    MB_REQUIRE(n_layers <= layers, MB_EARG, "%lld layers are to be trained, the model has %lld",
               (long long)n_layers, (long long)layers);
    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];
        const bool after = w->layer < 0 && (w->row->flags & MB_W_EMBED) == 0;
        w->trained =
            n_layers >= 0 && !mb_weight_is_fixed(w) && (after || w->layer >= layers - n_layers);
    }
    for (int i = 0; i < n_patterns; i++)
        MB_TRY(mark_matching(m, patterns[i]));
    MB_REQUIRE(mb_model_parameters(m, true) > 0, MB_EARG,
               "finetuning_type freeze leaves nothing to train: set freeze_trainable_layers or "
               "trainable_parameters");
    return MB_OK;
}

/* ---- choosing modules --------------------------------------------------------------------- */

static bool all_linear(const mb_weight *w)
{
    return is_matrix(w) && (w->row->flags & MB_W_HEAD) == 0;
}

static mb_status refuse(const mb_weight *w, const char *target)
{
    MB_REQUIRE(is_matrix(w), MB_ENOTSUP,
               "lora_target_modules: '%s' names %s, which is not a linear layer", target, w->name);
    MB_REQUIRE((w->row->flags & MB_W_HEAD) == 0, MB_ENOTSUP,
               "lora_target_modules: '%s' names the output head %s; train it whole with "
               "lora_modules_to_save",
               target, w->name);
    return MB_OK;
}

static bool is_module_weight(const mb_weight *w)
{
    const size_t n = strlen(w->name);

    return w->row != NULL && w->value.ndim == 2 && n > 7 && strcmp(w->name + n - 7, ".weight") == 0;
}

bool mb_weight_is_called(const mb_weight *w, const char *target)
{
    char now[NAME_MAX_BYTES], then[NAME_MAX_BYTES];

    mb_weight_module(w, now, sizeof now);
    module_in_file(w, then, sizeof then);
    return has_suffix(now, target) || has_suffix(then, target);
}

static mb_status choose_by_suffix(mb_model *m, const char *target, bool *chosen, int *n)
{
    for (int i = 0; i < m->n_weights; i++) {
        if (!is_module_weight(&m->weight[i]) || !mb_weight_is_called(&m->weight[i], target))
            continue;
        MB_TRY(refuse(&m->weight[i], target));
        chosen[i] = true;
        (*n)++;
    }
    return MB_OK;
}

static mb_status choose_by_regex(mb_model *m, const char *target, bool *chosen, int *n)
{
    char module[NAME_MAX_BYTES], then[NAME_MAX_BYTES];
    regex_t re;
    mb_status st = MB_OK;

    MB_TRY(compile(target, &re));
    for (int i = 0; i < m->n_weights && st == MB_OK; i++) {
        mb_weight_module(&m->weight[i], module, sizeof module);
        module_in_file(&m->weight[i], then, sizeof then);
        if (!is_module_weight(&m->weight[i]) ||
            (regexec(&re, module, 0, NULL, 0) != 0 && regexec(&re, then, 0, NULL, 0) != 0))
            continue;
        st = refuse(&m->weight[i], target);
        chosen[i] = st == MB_OK;
        (*n)++;
    }
    regfree(&re);
    return st;
}

/* all-linear leaves alone what is trained whole. */
static bool is_saved(const mb_weight *w, const mb_lora_options *o)
{
    char module[NAME_MAX_BYTES];

    mb_weight_module(w, module, sizeof module);
    for (int i = 0; i < o->n_save; i++)
        if (is_inside(module, o->save[i]))
            return true;
    return false;
}

static mb_status choose(mb_model *m, const mb_lora_options *o, const char *target, bool *chosen)
{
    int n = 0;

    if (strcmp(target, "all-linear") == 0 || strcmp(target, "all") == 0) {
        for (int i = 0; i < m->n_weights; i++)
            chosen[i] = chosen[i] || (all_linear(&m->weight[i]) && !is_saved(&m->weight[i], o));
        return MB_OK;
    }
    MB_TRY(choose_by_suffix(m, target, chosen, &n));
    if (n == 0 && o->n_targets == 1)
        MB_TRY(choose_by_regex(m, target, chosen, &n));
    MB_REQUIRE(n > 0, MB_EARG, "lora_target_modules: no module of this %s model is called '%s'",
               m->family->name, target);
    return MB_OK;
}

/* ---- adding ------------------------------------------------------------------------------- */

static mb_status attach(mb_model *m, const mb_lora_options *o, int index)
{
    mb_weight *w = &m->weight[index], *a, *b;
    const bool conv = (w->row->flags & MB_W_CONV1D) != 0;
    const int64_t in = w->value.dim[conv ? 0 : 1], out = w->value.dim[conv ? 1 : 0];
    char module[NAME_MAX_BYTES], name[NAME_MAX_BYTES + 64];

    mb_weight_module(w, module, sizeof module);
    snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", module);
    MB_TRY(mb_model_append(m, name, 2, (const int64_t[]){o->r, in}, &a));
    snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", module);
    MB_TRY(mb_model_append(m, name, 2, (const int64_t[]){out, o->r}, &b));
    a->layer = b->layer = w->layer;
    a->trained = b->trained = true;
    a->lora_base = b->lora_base = w;
    w->lora_a = a;
    w->lora_b = b;
    if (o->dora) {
        mb_weight *v;
        snprintf(name, sizeof name, "base_model.model.%s.lora_magnitude_vector", module);
        MB_TRY(mb_model_append(m, name, 1, &out, &v));
        v->layer = w->layer;
        v->trained = true;
        v->lora_base = w;
        w->lora_m = v;
    }
    w->lora_scale = (float)(o->rslora ? o->alpha / sqrt((double)o->r) : o->alpha / (double)o->r);
    w->lora_dropout = o->dropout;
    return MB_OK;
}

static mb_status save_whole(mb_model *m, const char *name, bool lenient)
{
    char module[NAME_MAX_BYTES];
    int n = 0;

    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];
        if (w->row == NULL || mb_weight_is_fixed(w))
            continue;
        mb_weight_module(w, module, sizeof module);
        if (!is_inside(module, name))
            continue;
        MB_REQUIRE(w->lora_a == NULL, MB_EARG, "lora_modules_to_save: %s has an adapter already",
                   module);
        MB_REQUIRE(
            !m->config.tied || (w->row->flags & MB_W_EMBED) == 0 ||
                w->value.dim[0] != m->config.vocab,
            MB_ENOTSUP,
            "lora_modules_to_save: %s is also the output head of this model (tied), which PEFT "
            "would not restore; train it with finetuning_type full or freeze",
            module);
        w->trained = true;
        n++;
    }
    MB_REQUIRE(n > 0 || lenient, MB_EARG,
               "lora_modules_to_save: no module of this %s model is called '%s'", m->family->name,
               name);
    return MB_OK;
}

static mb_status choose_all(mb_model *m, const mb_lora_options *o, bool *chosen)
{
    for (int i = 0; i < o->n_targets; i++)
        MB_TRY(choose(m, o, o->targets[i], chosen));
    for (int i = 0; o->n_targets == 0 && m->family->lora_default[i] != NULL; i++)
        MB_TRY(choose(m, o, m->family->lora_default[i], chosen));
    return MB_OK;
}

mb_status mb_model_add_lora(mb_model *m, const mb_lora_options *o)
{
    const int before = m->n_weights;
    bool *chosen = NULL;
    mb_status st = MB_OK;
    int n = 0;

    const int64_t most = o->dora ? MOST_DORA_RANK : MOST_RANK;
    MB_REQUIRE((o->r > 0 || (o->r == 0 && o->n_tokens > 0)) && o->r <= most, MB_EARG,
               "lora_r must be between 1 and %lld%s, not %lld", (long long)most,
               o->dora ? " with use_dora" : "", (long long)o->r);
    MB_TRY(MB_NEW_ARRAY(&chosen, before));
    if (o->r > 0)
        MB_TRY_GOTO(choose_all(m, o, chosen), st, done);
    for (int i = 0; i < before; i++) {
        n += chosen[i];
        m->weight[i].trained = false;
    }
    MB_TRY_GOTO(mb_model_reserve(m, (o->dora ? 3 : 2) * n + o->n_tokens), st, done);
    for (int i = 0; i < before; i++)
        if (chosen[i])
            MB_TRY_GOTO(attach(m, o, i), st, done);
    for (int i = 0; i < o->n_save; i++)
        MB_TRY_GOTO(save_whole(m, o->save[i], o->lenient), st, done);
    for (int i = 0; i < before; i++) /* a new classifier is useless frozen; PEFT trains it too */
        if (mb_head_is_task(m->config.head) && (m->weight[i].row->flags & MB_W_HEAD) != 0)
            m->weight[i].trained = true;
    MB_TRY_GOTO(mb_model_add_token_rows(m, o), st, done);
done:
    mb_free(chosen);
    return st;
}

/* ---- lengths of rows (DoRA) --------------------------------------------------------------- */

/* Row j of a matrix is what makes output j: a column of a Conv1D's. */
struct rows {
    bool conv;
    int64_t n, cols; /* outputs; columns as stored */
    double *square;  /* (n) */
    float *length;   /* (n) */
};

typedef void rows_fn(struct rows *r, int64_t output, float *x);

static void add_square(struct rows *r, int64_t output, float *x)
{
    r->square[output] += (double)*x * (double)*x;
}

static void set_length(struct rows *r, int64_t output, float *x)
{
    *x = (float)((double)*x * ((double)r->length[output] / sqrt(r->square[output])));
}

static mb_status each_element(const mb_model *m, const mb_weight *w, struct rows *r, rows_fn *fn,
                              bool write)
{
    const int64_t count = mb_tensor_count(&w->value);
    float *x = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&x, PIECE));
    for (int64_t from = 0; from < count && st == MB_OK; from += PIECE) {
        const int64_t k = count - from < PIECE ? count - from : PIECE;

        st = mb_weight_read(m, w, from, k, x);
        for (int64_t i = 0; st == MB_OK && i < k; i++)
            fn(r, r->conv ? (from + i) % r->cols : (from + i) / r->cols, &x[i]);
        if (st == MB_OK && write)
            st = mb_weight_write(m, w, from, k, x);
    }
    mb_free(x);
    return st;
}

static void rows_free(struct rows *r)
{
    mb_free(r->square);
    mb_free(r->length);
}

/* Measures w's rows: r->square. */
static mb_status rows_of(const mb_model *m, const mb_weight *w, struct rows *r)
{
    *r = (struct rows){.conv = (w->row->flags & MB_W_CONV1D) != 0, .cols = mb_cols(&w->value)};
    r->n = w->value.dim[r->conv ? 1 : 0];
    MB_TRY(MB_NEW_ARRAY(&r->square, r->n));
    MB_TRY(MB_NEW_ARRAY(&r->length, r->n));
    return each_element(m, w, r, add_square, false);
}

static mb_status init_magnitude(const mb_model *m, const mb_weight *w)
{
    struct rows r;
    mb_status st = rows_of(m, w, &r);

    for (int64_t j = 0; st == MB_OK && j < r.n; j++)
        r.length[j] = (float)sqrt(r.square[j]);
    if (st == MB_OK)
        st = mb_weight_write(m, w->lora_m, 0, r.n, r.length);
    rows_free(&r);
    return st;
}

/* Rows of w get their magnitudes; these become lengths, so that they ask for no more. */
static mb_status merge_magnitude(const mb_model *m, const mb_weight *w)
{
    struct rows r;
    mb_status st = rows_of(m, w, &r);

    if (st == MB_OK)
        st = mb_weight_read(m, w->lora_m, 0, r.n, r.length);
    if (st == MB_OK)
        st = each_element(m, w, &r, set_length, true);
    for (int64_t j = 0; st == MB_OK && j < r.n; j++)
        r.length[j] = fabsf(r.length[j]);
    if (st == MB_OK)
        st = mb_weight_write(m, w->lora_m, 0, r.n, r.length);
    rows_free(&r);
    return st;
}

/* ---- values ------------------------------------------------------------------------------- */

static mb_status init_one(const mb_model *m, const mb_weight *w, uint64_t seed)
{
    const int64_t n = mb_tensor_count(&w->lora_a->value);
    const double bound = 1.0 / sqrt((double)mb_cols(&w->lora_a->value));
    const uint64_t key = mb_rng_key(seed, MB_SITE_INIT, (uint64_t)(w->lora_a - m->weight));
    float *value = NULL;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&value, n));
    for (int64_t j = 0; j < n; j++)
        value[j] = (float)((2.0 * mb_rng_double(key, (uint64_t)j) - 1.0) * bound);
    st = mb_weight_write(m, w->lora_a, 0, mb_tensor_count(&w->lora_a->value), value);
    mb_free(value);
    if (st == MB_OK)
        st = mb_weight_zero(m, w->lora_b);
    return st == MB_OK && w->lora_m != NULL ? init_magnitude(m, w) : st;
}

mb_status mb_model_init_lora(mb_model *m, uint64_t seed)
{
    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].lora_a != NULL)
            MB_TRY(init_one(m, &m->weight[i], seed));
    return mb_model_init_token_rows(m);
}

bool mb_model_has_module(const mb_model *m, const char *suffix)
{
    for (int i = 0; i < m->n_weights; i++)
        if (is_module_weight(&m->weight[i]) && mb_weight_is_called(&m->weight[i], suffix))
            return true;
    return false;
}

bool mb_model_has_adapter(const mb_model *m)
{
    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].lora_a != NULL || m->weight[i].token_rows != NULL)
            return true;
    return false;
}

mb_status mb_model_merge_lora(mb_model *m, mb_exec *ex)
{
    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];
        if (w->lora_a == NULL)
            continue;
        const mb_tensor *a = &w->lora_a->value, *b = &w->lora_b->value;
        if ((w->row->flags & MB_W_CONV1D) != 0) /* (in,out) += s A^T B^T */
            MB_TRY(MB_RUN(ex, gemm, &w->value, a, true, b, true, w->lora_scale, 1.0f, NULL));
        else
            MB_TRY(MB_RUN(ex, gemm, &w->value, b, false, a, false, w->lora_scale, 1.0f, NULL));
        if (w->lora_m != NULL)
            MB_TRY(merge_magnitude(m, w));
        MB_TRY(mb_weight_zero(m, w->lora_b));
    }
    MB_TRY(mb_model_write_token_rows(m));
    for (int i = 0; i < m->n_weights; i++)
        m->weight[i].token_rows = NULL;
    return MB_OK;
}
