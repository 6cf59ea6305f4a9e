/* autograd/models/config.c - see autograd/models/config.h. */
#include "autograd/models/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/formats/gguf.h"

mb_status mb_config_real(mb_json json, const char *key, double otherwise, float *out)
{
    double v;

    MB_TRY(mb_json_get_real(json, key, otherwise, &v));
    *out = (float)v;
    return MB_OK;
}

mb_status mb_config_count(mb_json json, const char *key, int64_t otherwise, int64_t most,
                          int64_t *out)
{
    *out = otherwise;
    if (!mb_json_is_set(mb_json_get(json, key)))
        return MB_OK;
    return mb_json_need_int(json, key, 1, most, out);
}

mb_status mb_config_activation_named(mb_json json, const char *key, const char *name,
                                     mb_activation *out)
{
    static const struct {
        const char *name;
        mb_activation f;
    } names[] = {
        {"silu", MB_ACT_SILU},           {"swish", MB_ACT_SILU},
        {"gelu", MB_ACT_GELU},           {"gelu_new", MB_ACT_GELU_TANH},
        {"gelu_fast", MB_ACT_GELU_TANH}, {"gelu_pytorch_tanh", MB_ACT_GELU_TANH},
        {"relu", MB_ACT_RELU},           {"tanh", MB_ACT_TANH},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].f;
            return MB_OK;
        }
    }
    return mb_json_fault(mb_json_get(json, key),
                         "is \"%s\"; known are silu, gelu, gelu_new, gelu_pytorch_tanh, relu, tanh",
                         name);
}

mb_status mb_config_activation(mb_json json, const char *key, mb_activation otherwise,
                               mb_activation *out)
{
    const char *name;

    *out = otherwise;
    MB_TRY(mb_json_get_string(json, key, NULL, &name));
    return name == NULL ? MB_OK : mb_config_activation_named(json, key, name, out);
}

static mb_status rope_type(mb_json where, const char *name, mb_rope_type *out)
{
    static const struct {
        const char *name;
        mb_rope_type type;
    } names[] = {
        {"default", MB_ROPE_DEFAULT}, {"linear", MB_ROPE_LINEAR}, {"llama3", MB_ROPE_LLAMA3},
        {"longrope", MB_ROPE_LONG},   {"su", MB_ROPE_LONG},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].type;
            return MB_OK;
        }
    }
    return mb_json_fault(where, "has rope type \"%s\"; known are default, linear, llama3, longrope",
                         name);
}

/* Divisors of the frequencies within the positions the model was first trained on (the others are for
 * rows beyond, which no model of ours has), and what cosines and sines are multiplied by. */
static mb_status long_rope(mb_json p, int64_t positions, mb_rope_config *out)
{
    const mb_json list = mb_json_get(p, "short_factor");
    const int64_t n = out->rotated / 2,
                  most = (int64_t)(sizeof out->divisor / sizeof out->divisor[0]);
    double factor, stretch;

    MB_REQUIRE(n <= most, MB_ENOTSUP,
               "longrope of %lld columns of a head; at most %lld are supported",
               (long long)out->rotated, (long long)(2 * most));
    if (!mb_json_is(list, MB_JSON_ARRAY) || mb_json_count(list) != (size_t)n)
        return mb_json_fault(p, "has no list short_factor of %lld numbers", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        double v;
        MB_TRY(mb_json_real(mb_json_at(list, (size_t)i), &v));
        if (!(v > 0.0))
            return mb_json_fault(mb_json_at(list, (size_t)i), "must be positive");
        out->divisor[i] = (float)v;
    }
    if (!(out->original_positions > 1.0))
        return mb_json_fault(p, "has original_max_position_embeddings of %g",
                             out->original_positions);
    MB_TRY(mb_json_get_real(p, "factor", (double)positions / out->original_positions, &factor));
    stretch = factor > 1.0 ? sqrt(1.0 + log(factor) / log(out->original_positions)) : 1.0;
    return mb_json_get_real(p, "attention_factor", stretch, &out->attention_factor);
}

/* Type and factors out of p, which may be absent; *out has theta and rotated. `original` is what
 * config.json itself says of positions before they were stretched (it wins, as in transformers); 0:
 * nothing, and p or `positions` are what counts. */
static mb_status rope_of(mb_json p, int64_t positions, double original, mb_rope_config *out)
{
    const char *type = NULL;

    out->type = MB_ROPE_DEFAULT;
    out->original_positions = original > 0.0 ? original : (double)positions;
    MB_REQUIRE(out->rotated % 2 == 0 && out->rotated > 0, MB_EMODEL,
               "rotary embedding needs an even head size, not %lld", (long long)out->rotated);
    if (mb_json_is_set(p)) {
        MB_TRY(mb_json_get_real(p, "rope_theta", out->theta, &out->theta));
        MB_TRY(mb_json_get_string(p, "type", "default", &type));
        MB_TRY(mb_json_get_string(p, "rope_type", type, &type));
        MB_TRY(rope_type(p, type, &out->type));
        MB_TRY(mb_json_get_real(p, "factor", 1.0, &out->factor));
        MB_TRY(mb_json_get_real(p, "low_freq_factor", 1.0, &out->low_freq_factor));
        MB_TRY(mb_json_get_real(p, "high_freq_factor", 4.0, &out->high_freq_factor));
        if (!(original > 0.0))
            MB_TRY(mb_json_get_real(p, "original_max_position_embeddings", out->original_positions,
                                    &out->original_positions));
    }
    MB_REQUIRE(out->theta > 0.0, MB_EMODEL, "rope_theta must be positive, not %g", out->theta);
    MB_REQUIRE(out->type == MB_ROPE_DEFAULT || out->factor > 0.0, MB_EMODEL,
               "the rope factor must be positive, not %g", out->factor);
    return out->type == MB_ROPE_LONG ? long_rope(p, positions, out) : MB_OK;
}

static mb_json rope_settings(mb_json json)
{
    const mb_json v5 = mb_json_get(json, "rope_parameters");

    return mb_json_is_set(v5) ? v5 : mb_json_get(json, "rope_scaling");
}

mb_status mb_config_rope_part(mb_json json, mb_model_config *c)
{
    const mb_json p = rope_settings(json);
    mb_rope_config *r = &c->rope;
    double part, original;

    *r = (mb_rope_config){0};
    MB_TRY(mb_json_get_real(json, "rope_theta", 10000.0, &r->theta));
    MB_TRY(mb_json_get_real(json, "partial_rotary_factor", 1.0, &part));
    MB_TRY(mb_json_get_real(p, "partial_rotary_factor", part, &part));
    MB_TRY(mb_json_get_real(json, "original_max_position_embeddings", 0.0, &original));
    MB_REQUIRE(part > 0.0 && part <= 1.0, MB_EMODEL,
               "partial_rotary_factor must be above 0 and at most 1, not %g", part);
    r->rotated = (int64_t)((double)c->head_dim * part);
    MB_TRY(rope_of(p, c->positions, original, r));
    if (r->type == MB_ROPE_LONG && (double)c->positions > r->original_positions)
        c->positions = (int64_t)r->original_positions;
    return MB_OK;
}

mb_status mb_config_rope(mb_json json, mb_model_config *c)
{
    MB_TRY(mb_config_rope_part(json, c));
    MB_REQUIRE(c->rope.rotated == c->head_dim, MB_ENOTSUP,
               "partial_rotary_factor is not 1: %lld of %lld columns of a head are rotated",
               (long long)c->rope.rotated, (long long)c->head_dim);
    return MB_OK;
}

mb_status mb_config_rope_by_layer(mb_json json, double theta, double theta_window,
                                  mb_model_config *c)
{
    const mb_json v5 = mb_json_get(json, "rope_parameters");
    const mb_json full = mb_json_get(v5, "full_attention"),
                  window = mb_json_get(v5, "sliding_attention");
    const bool nested = mb_json_is_set(full) || mb_json_is_set(window);

    c->rope = c->rope_window = (mb_rope_config){.rotated = c->head_dim};
    MB_TRY(mb_json_get_real(json, "rope_theta", theta, &c->rope.theta));
    MB_TRY(mb_json_get_real(json, "rope_local_base_freq", theta_window, &c->rope_window.theta));
    MB_TRY(rope_of(nested ? full : mb_json_get(json, "rope_scaling"), c->positions, 0.0, &c->rope));
    return rope_of(window, c->positions, 0.0, &c->rope_window);
}

mb_status mb_config_decoder(mb_json json, mb_model_config *c)
{
    MB_TRY(mb_json_need_int(json, "hidden_size", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "intermediate_size", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "num_hidden_layers", 1, MB_MAX_LAYERS, &c->layers));
    MB_TRY(mb_json_need_int(json, "num_attention_heads", 1, 4096, &c->heads));
    MB_TRY(mb_config_count(json, "num_key_value_heads", c->heads, 4096, &c->kv_heads));
    MB_TRY(mb_config_count(json, "head_dim", c->width / c->heads, 1 << 16, &c->head_dim));
    MB_TRY(mb_config_count(json, "max_position_embeddings", 2048, 1 << 24, &c->positions));
    MB_TRY(mb_config_real(json, "rms_norm_eps", 1e-6, &c->norm_eps));
    MB_TRY(mb_config_activation(json, "hidden_act", MB_ACT_SILU, &c->activation));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", false, &c->tied));
    return mb_config_real(json, "attention_dropout", 0.0, &c->drop_attention);
}

mb_status mb_config_layer_types(mb_json json, const mb_layer_set *otherwise, mb_model_config *c)
{
    const mb_json types = mb_json_get(json, "layer_types");

    c->full = *otherwise;
    if (!mb_json_is_set(types))
        return MB_OK;
    if (mb_json_count(types) != (size_t)c->layers)
        return mb_json_fault(types, "names %zu layers, the model has %lld", mb_json_count(types),
                             (long long)c->layers);
    c->full = (mb_layer_set){0};
    for (int64_t l = 0; l < c->layers; l++) {
        const mb_json v = mb_json_at(types, (size_t)l);
        const char *type;

        MB_TRY(mb_json_string(v, &type, NULL));
        if (strcmp(type, "full_attention") == 0)
            mb_layer_set_add(&c->full, l);
        else if (strcmp(type, "sliding_attention") != 0)
            return mb_json_fault(v, "is \"%s\"; known are full_attention and sliding_attention",
                                 type);
    }
    return MB_OK;
}

mb_status mb_config_upper_window(mb_json json, mb_model_config *c)
{
    mb_layer_set lower = {0};
    int64_t below;
    bool use;

    MB_TRY(mb_json_get_bool(json, "use_sliding_window", false, &use));
    MB_TRY(mb_json_get_int(json, "max_window_layers", 28, &below));
    if (use)
        MB_TRY(mb_json_get_int(json, "sliding_window", 0, &c->window));
    for (int64_t l = 0; l < c->layers && l < below; l++)
        mb_layer_set_add(&lower, l);
    return mb_config_layer_types(json, &lower, c);
}

mb_status mb_config_labels(mb_json json, int64_t *labels)
{
    const mb_json names = mb_json_get(json, "id2label");

    *labels = 2;
    if (mb_json_is_set(names))
        *labels = (int64_t)mb_json_count(names);
    return mb_config_count(json, "num_labels", *labels, 1000000, labels);
}

mb_status mb_config_require(mb_json json, const mb_config_fixed *fixed)
{
    for (; fixed->key != NULL; fixed++) {
        bool v;

        MB_TRY(mb_json_get_bool(json, fixed->key, fixed->value, &v));
        if (v != fixed->value)
            return mb_json_fault(mb_json_get(json, fixed->key), "is %s, which is not supported",
                                 v ? "true" : "false");
    }
    return MB_OK;
}

mb_status mb_config_expect(mb_json json, const char *key, const char *value)
{
    const char *v;

    MB_TRY(mb_json_get_string(json, key, value, &v));
    if (strcmp(v, value) != 0)
        return mb_json_fault(mb_json_get(json, key), "is \"%s\"; only \"%s\" is supported", v,
                             value);
    return MB_OK;
}

mb_status mb_config_bert(mb_json json, mb_model_config *c)
{
    static const mb_config_fixed fixed[] = {
        {"is_decoder", false}, {"add_cross_attention", false}, {0}};
    const char *kind;

    MB_TRY(mb_config_require(json, fixed));
    MB_TRY(mb_json_get_string(json, "position_embedding_type", "absolute", &kind));
    MB_TRY(mb_config_expect(json, "position_embedding_type", "absolute"));
    MB_TRY(mb_json_need_int(json, "hidden_size", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "num_hidden_layers", 1, 4096, &c->layers));
    MB_TRY(mb_json_need_int(json, "num_attention_heads", 1, 4096, &c->heads));
    MB_TRY(mb_json_need_int(json, "intermediate_size", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "max_position_embeddings", 1, 1 << 24, &c->positions));
    MB_TRY(mb_config_count(json, "type_vocab_size", 2, 1 << 16, &c->segments));
    MB_TRY(mb_config_real(json, "layer_norm_eps", 1e-12, &c->norm_eps));
    MB_TRY(mb_config_activation(json, "hidden_act", MB_ACT_GELU, &c->activation));
    MB_TRY(mb_config_real(json, "hidden_dropout_prob", 0.1, &c->drop_hidden));
    MB_TRY(mb_config_real(json, "attention_probs_dropout_prob", 0.1, &c->drop_attention));
    MB_TRY(mb_config_real(json, "classifier_dropout", (double)c->drop_hidden, &c->drop_classifier));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &c->tied));
    c->drop_embed = c->drop_attention_out = c->drop_hidden;
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
    return mb_config_labels(json, &c->labels);
}

mb_status mb_config_bert_gguf(const mb_gguf *g, mb_json out)
{
    static const mb_config_gguf_key keys[] = {
        {"embedding_length", "hidden_size", true, false},
        {"feed_forward_length", "intermediate_size", true, false},
        {"block_count", "num_hidden_layers", true, false},
        {"attention.head_count", "num_attention_heads", true, false},
        {"context_length", "max_position_embeddings", true, false},
        {"attention.layer_norm_epsilon", "layer_norm_eps", true, true},
        {0},
    };
    enum { NONE = 0, MEAN = 1 };
    int64_t pooling, types;

    MB_TRY(mb_gguf_opt_i64(g, "bert.pooling_type", MEAN, &pooling));
    MB_REQUIRE(pooling == MEAN || pooling == NONE, MB_ENOTSUP,
               "GGUF key bert.pooling_type is %lld: only the mean of all tokens (1) is supported",
               (long long)pooling);
    MB_TRY(mb_config_from_gguf(g, "bert", keys, out));
    MB_TRY(mb_gguf_opt_i64(g, "tokenizer.ggml.token_type_count", 2, &types));
    return mb_json_set_int(out, "type_vocab_size", types);
}

mb_status mb_config_from_gguf(const mb_gguf *g, const char *arch, const mb_config_gguf_key *keys,
                              mb_json out)
{
    for (; keys->gguf != NULL; keys++) {
        char key[128];
        int64_t i;
        double d;

        snprintf(key, sizeof key, "%s.%s", arch, keys->gguf);
        if (!keys->required && !mb_gguf_has(g, key))
            continue;
        if (keys->real) {
            MB_TRY(mb_gguf_f64(g, key, &d));
            MB_TRY(mb_json_set_real(out, keys->json, d));
        } else {
            MB_TRY(mb_gguf_i64(g, key, &i));
            MB_TRY(mb_json_set_int(out, keys->json, i));
        }
    }
    return MB_OK;
}

mb_status mb_config_decoder_gguf(const mb_gguf *g, const char *arch, mb_json out)
{
    static const mb_config_gguf_key keys[] = {
        {"embedding_length", "hidden_size", true, false},
        {"feed_forward_length", "intermediate_size", true, false},
        {"block_count", "num_hidden_layers", true, false},
        {"attention.head_count", "num_attention_heads", true, false},
        {"attention.head_count_kv", "num_key_value_heads", false, false},
        {"attention.key_length", "head_dim", false, false},
        {"context_length", "max_position_embeddings", true, false},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, true},
        {0},
    };

    /* what only the tensors say */
    MB_TRY(mb_json_set_bool(out, "attention_bias", mb_gguf_has_tensor(g, "blk.0.attn_q.bias")));
    MB_TRY(mb_json_set_bool(out, "mlp_bias", mb_gguf_has_tensor(g, "blk.0.ffn_up.bias")));
    MB_TRY(mb_json_set_string(out, "hidden_act", "silu"));
    MB_TRY(mb_config_from_gguf(g, arch, keys, out));
    return mb_config_rope_from_gguf(g, arch, out);
}

mb_status mb_config_rope_from_gguf(const mb_gguf *g, const char *arch, mb_json out)
{
    char theta_key[128], type_key[128], factor_key[128];
    double theta, factor;
    const char *type;
    mb_json p;

    snprintf(theta_key, sizeof theta_key, "%s.rope.freq_base", arch);
    snprintf(type_key, sizeof type_key, "%s.rope.scaling.type", arch);
    snprintf(factor_key, sizeof factor_key, "%s.rope.scaling.factor", arch);
    MB_TRY(mb_gguf_opt_f64(g, theta_key, 10000.0, &theta));
    MB_TRY(mb_gguf_opt_string(g, type_key, "none", &type));
    MB_REQUIRE(strcmp(type, "none") == 0 || strcmp(type, "linear") == 0, MB_ENOTSUP,
               "GGUF key %s is \"%s\"; known are none and linear", type_key, type);
    MB_TRY(mb_gguf_opt_f64(g, factor_key, 1.0, &factor));
    if (strcmp(type, "none") == 0)
        factor = 1.0;
    MB_TRY(mb_json_set_real(out, "rope_theta", theta));
    MB_TRY(mb_json_set_object(out, "rope_parameters", &p));
    MB_TRY(mb_json_set_real(p, "rope_theta", theta));
    MB_TRY(mb_json_set_string(p, "rope_type", factor == 1.0 ? "default" : "linear"));
    if (factor == 1.0)
        return mb_json_set_null(out, "rope_scaling");
    MB_TRY(mb_json_set_real(p, "factor", factor));
    return mb_json_set(out, "rope_scaling", p);
}
