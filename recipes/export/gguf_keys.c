/* recipes/export/gguf_keys.c - what a GGUF file says about its model: the keys of llama.cpp's converter.
 *
 * mb_model_config has everything by meaning; a family's row says which keys its architecture has. What an
 * architecture cannot say is refused here where it is known, and found by the comparison that follows an
 * export (recipes/export/check.h) where it is not.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/path.h"
#include "recipes/export/gguf.h"

enum { KEY = 96, QUANTISED = 2 /* general.quantization_version */ };

/* What an architecture has beside the counts all have. */
enum {
    RMS = 1,
    LAYER_NORM = 2,
    ROPE = 4,
    HEAD_SIZES = 8,
    WINDOW = 16, /* it has a key for it */
    ENCODER = 32,
    DECODER_TOO = 64,
    SOFTCAP = 128,
};

static const struct arch {
    const char *name;
    unsigned has;
    mb_activation activation;
} archs[] = {
    {"llama", RMS | ROPE | HEAD_SIZES, MB_ACT_SILU},
    {"qwen2", RMS | ROPE, MB_ACT_SILU},
    {"qwen3", RMS | ROPE | HEAD_SIZES, MB_ACT_SILU},
    {"gemma3", RMS | ROPE | HEAD_SIZES | WINDOW | SOFTCAP, MB_ACT_GELU_TANH},
    {"phi3", RMS | ROPE | WINDOW, MB_ACT_SILU},
    {"olmo2", RMS | ROPE, MB_ACT_SILU},
    {"smollm3", RMS | ROPE, MB_ACT_SILU},
    {"gpt2", LAYER_NORM, MB_ACT_GELU_TANH},
    {"bert", LAYER_NORM | ENCODER, MB_ACT_GELU},
    {"t5", RMS | LAYER_NORM | HEAD_SIZES | DECODER_TOO, MB_ACT_COUNT},
};

static const struct arch *find_arch(const mb_model *m)
{
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
        if (m->family->gguf_arch != NULL && strcmp(archs[i].name, m->family->gguf_arch) == 0)
            return &archs[i];
    return NULL;
}

/* A window that the architecture has no key for does nothing in contexts no longer than it. */
int64_t mb_gguf_context(const mb_model *m)
{
    enum { T5_USUAL = 512 };
    const mb_model_config *c = &m->config;
    const struct arch *a = find_arch(m);

    if (a != NULL && (a->has & DECODER_TOO) != 0)
        return T5_USUAL;
    if (a != NULL && (a->has & WINDOW) == 0 && c->window > 0 && c->window < c->positions)
        return c->window;
    return c->positions;
}

struct to {
    const mb_model *m;
    const mb_model_config *c;
    mb_gguf_writer *w;
    const char *arch;
};

static mb_status whole(const struct to *t, const char *key, int64_t value)
{
    char name[KEY];

    snprintf(name, sizeof name, "%s.%s", t->arch, key);
    MB_REQUIRE(value >= 0 && value <= UINT32_MAX, MB_ENOTSUP, "%s = %lld does not fit in GGUF",
               name, (long long)value);
    return mb_gguf_put_u32(t->w, name, (uint32_t)value);
}

static mb_status real(const struct to *t, const char *key, double value)
{
    char name[KEY];

    snprintf(name, sizeof name, "%s.%s", t->arch, key);
    return mb_gguf_put_f32(t->w, name, (float)value);
}

static mb_status text(const struct to *t, const char *key, const char *value)
{
    char name[KEY];

    snprintf(name, sizeof name, "%s.%s", t->arch, key);
    return mb_gguf_put_string(t->w, name, value);
}

static mb_status rope(const struct to *t)
{
    const mb_rope_config *r = &t->c->rope;

    MB_REQUIRE(
        r->type == MB_ROPE_DEFAULT || r->type == MB_ROPE_LINEAR || r->type == MB_ROPE_LLAMA3,
        MB_ENOTSUP,
        "the rotation of this model is stretched in a way that mbuyu does not write to GGUF");
    MB_TRY(real(t, "rope.freq_base", r->theta));
    MB_TRY(whole(t, "rope.dimension_count", r->rotated));
    if (r->type != MB_ROPE_LINEAR)
        return MB_OK;
    MB_TRY(text(t, "rope.scaling.type", "linear"));
    return real(t, "rope.scaling.factor", r->factor);
}

static mb_status counts(const struct to *t, const struct arch *a)
{
    const mb_model_config *c = t->c;

    MB_TRY(whole(t, "vocab_size", c->vocab));
    const int64_t context = mb_gguf_context(t->m);

    if (context < c->positions && (a->has & DECODER_TOO) == 0)
        mb_log_warn(
            "llama.cpp's \"%s\" has no attention window: the file's context is %lld, in which "
            "there is no difference, instead of %lld",
            a->name, (long long)context, (long long)c->positions);
    MB_TRY(whole(t, "context_length", context));
    MB_TRY(whole(t, "embedding_length", c->width));
    MB_TRY(whole(t, "block_count", c->layers));
    MB_TRY(whole(t, "feed_forward_length", c->ffn));
    MB_TRY(whole(t, "attention.head_count", c->heads));
    if ((a->has & ROPE) != 0)
        MB_TRY(whole(t, "attention.head_count_kv", c->kv_heads));
    if ((a->has & HEAD_SIZES) != 0) {
        MB_TRY(whole(t, "attention.key_length", c->head_dim));
        MB_TRY(whole(t, "attention.value_length", c->head_dim));
    }
    if ((a->has & RMS) != 0)
        MB_TRY(real(t, "attention.layer_norm_rms_epsilon", (double)c->norm_eps));
    return (a->has & LAYER_NORM) != 0 ? real(t, "attention.layer_norm_epsilon", (double)c->norm_eps)
                                      : MB_OK;
}

static mb_status encoder(const struct to *t)
{
    enum { MEAN = 1 };
    char name[KEY];

    snprintf(name, sizeof name, "%s.attention.causal", t->arch);
    MB_TRY(mb_gguf_put_bool(t->w, name, false));
    MB_TRY(whole(t, "pooling_type", MEAN));
    return mb_gguf_put_u32(t->w, "tokenizer.ggml.token_type_count", (uint32_t)t->c->segments);
}

static mb_status decoder_too(const struct to *t)
{
    const mb_model_config *c = t->c;

    MB_REQUIRE(c->activation == (c->gated ? MB_ACT_GELU_TANH : MB_ACT_RELU), MB_ENOTSUP,
               "llama.cpp's T5 has ReLU or gated GELU, this model has neither");
    MB_REQUIRE(c->max_distance == 128, MB_ENOTSUP,
               "llama.cpp's T5 tells distances up to 128 apart, this model up to %lld",
               (long long)c->max_distance);
    MB_TRY(whole(t, "decoder_block_count", c->dec_layers));
    MB_TRY(whole(t, "attention.relative_buckets_count", c->buckets));
    return whole(t, "decoder_start_token_id", c->decoder_start_id);
}

static mb_status architecture(const struct to *t, const struct arch *a)
{
    const mb_model_config *c = t->c;

    MB_REQUIRE(a->activation == MB_ACT_COUNT || a->activation == c->activation, MB_ENOTSUP,
               "llama.cpp's \"%s\" has another activation than this model", a->name);
    MB_TRY(counts(t, a));
    if ((a->has & ROPE) != 0)
        MB_TRY(rope(t));
    if ((a->has & WINDOW) != 0 && c->window > 0)
        MB_TRY(whole(t, "attention.sliding_window", c->window));
    if ((a->has & SOFTCAP) != 0 && c->head_softcap > 0.0f)
        MB_TRY(real(t, "final_logit_softcapping", (double)c->head_softcap));
    if ((a->has & ENCODER) != 0)
        MB_TRY(encoder(t));
    return (a->has & DECODER_TOO) != 0 ? decoder_too(t) : MB_OK;
}

/* What llama.cpp builds into an architecture instead of reading it. */
static mb_status check_built_in(const mb_model *m, const char *arch)
{
    enum { SMOLLM3_STEP = 4, GEMMA3_STEP = 6, GEMMA3_27B = 62 };
    const mb_model_config *c = &m->config;
    const bool gemma = strcmp(arch, "gemma3") == 0, smol = strcmp(arch, "smollm3") == 0;
    const double size =
        c->layers == GEMMA3_27B ? (double)c->width / (double)c->heads : (double)c->head_dim;

    MB_REQUIRE(!(c->qkv_bias || c->out_bias) || strcmp(arch, "llama") == 0 ||
                   strcmp(arch, "qwen2") == 0,
               MB_ENOTSUP, "llama.cpp's \"%s\" has no biases, this model has", arch);
    for (int64_t l = 0; l < c->layers; l++) {
        MB_REQUIRE(
            !smol || mb_layer_set_has(&c->unrotated, l) == ((l + 1) % SMOLLM3_STEP == 0),
            MB_ENOTSUP,
            "llama.cpp's \"smollm3\" rotates all layers but every fourth, this model others");
        MB_REQUIRE(
            !gemma || c->window == 0 ||
                mb_layer_set_has(&c->full, l) == ((l + 1) % GEMMA3_STEP == 0),
            MB_ENOTSUP,
            "llama.cpp's \"gemma3\" has a window in all layers but every sixth, this model in others");
    }
    MB_REQUIRE(
        !gemma || (c->rope_window.theta == 1e4 && c->rope_window.type == MB_ROPE_DEFAULT),
        MB_ENOTSUP,
        "llama.cpp's \"gemma3\" rotates layers with a window by base 10000, this model otherwise");
    MB_REQUIRE(!gemma || fabs((double)c->attention_scale * sqrt(size) - 1.0) < 1e-6, MB_ENOTSUP,
               "llama.cpp's \"gemma3\" scales scores by the size of a head, this model otherwise");
    return MB_OK;
}

static mb_status check_head(const mb_model *m)
{
    MB_REQUIRE(
        m->config.head == MB_HEAD_CAUSAL_LM || m->config.head == MB_HEAD_SEQ2SEQ ||
            m->config.head == MB_HEAD_EMBED,
        MB_ENOTSUP,
        "a %s with this head (classes, spans, masked tokens) has no place in GGUF: what is written "
        "are models that generate text, and embedders",
        m->family->name);
    return MB_OK;
}

mb_status mb_gguf_check(const mb_model *m)
{
    const struct arch *a = find_arch(m);

    MB_REQUIRE(
        a != NULL, MB_ENOTSUP,
        "llama.cpp does not know the %s family (or mbuyu does not write it): GGUF is written of "
        "llama, qwen2, qwen3, gemma3, phi3, olmo2, smollm3, gpt2, bert, roberta, xlm-roberta and t5",
        m->family->name);
    MB_TRY(check_head(m));
    return check_built_in(m, a->name);
}

mb_status mb_gguf_keys(const mb_export *e, mb_gguf_writer *w)
{
    const mb_model *m = e->model;
    const struct arch *a = find_arch(m);
    const struct to t = {.m = m, .c = &m->config, .w = w, .arch = m->family->gguf_arch};
    const mb_card *card = e->card;

    MB_TRY(mb_gguf_check(m));
    MB_TRY(mb_gguf_put_string(w, "general.architecture", a->name));
    MB_TRY(mb_gguf_put_string(w, "general.type", "model"));
    MB_TRY(mb_gguf_put_string(w, "general.name",
                              card != NULL && card->title != NULL ? card->title
                                                                  : mb_path_base(e->base)));
    if (card != NULL && card->license != NULL)
        MB_TRY(mb_gguf_put_string(w, "general.license", card->license));
    MB_TRY(mb_gguf_put_u32(w, "general.file_type", mb_gguf_file_type(e->dtype)));
    MB_TRY(mb_gguf_put_u32(w, "general.quantization_version", QUANTISED));
    return architecture(&t, a);
}
