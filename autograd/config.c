/* autograd/config.c - from a model's config.json, or a GGUF's metadata, to mb_model_config. */
#include <stdio.h>
#include <string.h>

#include "autograd/load.h"
#include "autograd/model.h"
#include "core/formats/gguf.h"
#include "core/formats/tensor_file.h"
#include "core/path.h"

enum { CONFIG_MAX_BYTES = 4 << 20 };

/* RoBERTa goes by BERT's name, and is told from it by its tokenizer. */
static const mb_model_family *family_of_gguf(const char *arch, const char *tokenizer)
{
    for (int i = 0; mb_model_families[i] != NULL; i++) {
        const mb_model_family *f = mb_model_families[i];

        if (f->gguf_arch != NULL && strcmp(f->gguf_arch, arch) == 0 &&
            (f->gguf_tokenizer == NULL || strcmp(f->gguf_tokenizer, tokenizer) == 0))
            return f;
    }
    return NULL;
}

/* What the file is for: the head its family has there. */
static const char *class_of_gguf(const mb_model_family *f)
{
    static const mb_head heads[] = {MB_HEAD_CAUSAL_LM, MB_HEAD_SEQ2SEQ, MB_HEAD_EMBED};

    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        if (f->architecture[heads[i]] != NULL)
            return f->architecture[heads[i]];
    return "";
}

static const mb_model_family *family_of_type(const char *type)
{
    for (int i = 0; mb_model_families[i] != NULL; i++)
        for (int j = 0; mb_model_families[i]->model_types[j] != NULL; j++)
            if (strcmp(mb_model_families[i]->model_types[j], type) == 0)
                return mb_model_families[i];
    return NULL;
}

static void list_types(char *text, size_t size)
{
    size_t n = 0;

    text[0] = '\0';
    for (int i = 0; mb_model_families[i] != NULL; i++)
        for (int j = 0; mb_model_families[i]->model_types[j] != NULL && n < size; j++)
            n += (size_t)snprintf(text + n, size - n, "%s%s", n > 0 ? ", " : "",
                                  mb_model_families[i]->model_types[j]);
}

/* ---- GGUF --------------------------------------------------------------------------------- */

static mb_status token_ids(const mb_gguf *g, mb_json out)
{
    static const char *const keys[][2] = {
        {"tokenizer.ggml.bos_token_id", "bos_token_id"},
        {"tokenizer.ggml.eos_token_id", "eos_token_id"},
        {"tokenizer.ggml.padding_token_id", "pad_token_id"},
    };

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int64_t id;
        MB_TRY(mb_gguf_opt_i64(g, keys[i][0], -1, &id));
        if (id >= 0)
            MB_TRY(mb_json_set_int(out, keys[i][1], id));
    }
    return MB_OK;
}

/* llama.cpp keeps Llama 3's stretched rotation only as divisors of its frequencies: longrope by another
 * name. */
static mb_status rope_divisors(const mb_tensor_file *f, mb_json out)
{
    enum { MOST = 128 };
    const int64_t at = mb_tensor_file_find(f, "rope_freqs.weight");
    float divisor[MOST];
    bool plain = true;
    int64_t positions;
    double theta;
    mb_json p, list;

    if (at < 0)
        return MB_OK;
    const mb_tensor_info *info = mb_tensor_file_info(f, at);
    MB_REQUIRE(info->dtype == MB_DTYPE_F32 && info->bytes <= (int64_t)sizeof divisor, MB_EMODEL,
               "%s: tensor 'rope_freqs.weight' is not a short list of F32", mb_tensor_file_name(f));
    const int64_t n = info->bytes / (int64_t)sizeof *divisor;
    MB_TRY(mb_tensor_file_read(f, at, divisor, 0, info->bytes));
    for (int64_t i = 0; i < n; i++)
        plain = plain && divisor[i] == 1.0f;
    if (plain)
        return MB_OK;
    MB_TRY(mb_json_get_real(out, "rope_theta", 10000.0, &theta));
    MB_TRY(mb_json_need_int(out, "max_position_embeddings", 1, 1 << 24, &positions));
    MB_TRY(mb_json_set_object(out, "rope_parameters", &p));
    MB_TRY(mb_json_set_string(p, "rope_type", "longrope"));
    MB_TRY(mb_json_set_real(p, "rope_theta", theta));
    MB_TRY(mb_json_set_real(p, "attention_factor", 1.0));
    MB_TRY(mb_json_set_int(p, "original_max_position_embeddings", positions));
    for (int k = 0; k < 2; k++) {
        MB_TRY(mb_json_set_array(p, k == 0 ? "short_factor" : "long_factor", &list));
        for (int64_t i = 0; i < n; i++)
            MB_TRY(mb_json_set_real(list, NULL, (double)divisor[i]));
    }
    return mb_json_set(out, "rope_scaling", p);
}

static mb_status from_gguf(const mb_tensor_file *f, mb_json out)
{
    const mb_gguf *g = mb_tensor_file_gguf(f);
    const int64_t embed = mb_tensor_file_find(f, "token_embd.weight");
    const char *arch, *tokenizer;
    mb_json classes;
    char known[512];

    MB_TRY(mb_gguf_string(g, "general.architecture", &arch, NULL));
    MB_TRY(mb_gguf_opt_string(g, "tokenizer.ggml.model", "bert", &tokenizer));
    const mb_model_family *fam = family_of_gguf(arch, tokenizer);
    list_types(known, sizeof known);
    MB_REQUIRE(fam != NULL, MB_ENOTSUP,
               "%s: architecture \"%s\" cannot be read from GGUF; known "
               "families: %s",
               mb_tensor_file_name(f), arch, known);
    MB_REQUIRE(embed >= 0, MB_EMODEL, "%s: tensor 'token_embd.weight' is missing",
               mb_tensor_file_name(f));
    MB_TRY(mb_json_set_array(out, "architectures", &classes));
    MB_TRY(mb_json_set_string(classes, NULL, class_of_gguf(fam)));
    MB_TRY(mb_json_set_string(out, "model_type", fam->model_types[0]));
    MB_TRY(mb_json_set_int(out, "vocab_size", mb_tensor_file_info(f, embed)->dim[0]));
    MB_TRY(
        mb_json_set_bool(out, "tie_word_embeddings", mb_tensor_file_find(f, "output.weight") < 0));
    MB_TRY(token_ids(g, out));
    MB_TRY(fam->config_gguf(g, out));
    return rope_divisors(f, out);
}

static mb_status doc_from_gguf(const char *path, mb_json_doc **doc)
{
    mb_tensor_file *f = NULL;
    mb_json_doc *d = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_tensor_file_open(path, &f));
    if (mb_tensor_file_gguf(f) == NULL) {
        st = MB_RAISE(MB_EMODEL, "%s: config.json is missing beside the weights", path);
        goto done;
    }
    MB_TRY_GOTO(mb_json_doc_new(path, &d), st, done);
    MB_TRY_GOTO(from_gguf(f, mb_json_root(d)), st, done);
    *doc = d;
    d = NULL;
done:
    mb_json_free(d);
    mb_tensor_file_close(f);
    return st;
}

static mb_status doc_from_json(const char *folder, const char *file, mb_json_doc **doc)
{
    const mb_model_family *fam;
    const char *type;
    mb_json_doc *d;
    mb_status st;

    MB_TRY(mb_json_read(file, MB_EMODEL, CONFIG_MAX_BYTES, &d));
    st = mb_json_get_string(mb_json_root(d), "model_type", "", &type);
    fam = st == MB_OK ? family_of_type(type) : NULL;
    if (fam != NULL)
        st = mb_config_defaults(type, mb_json_root(d));
    if (fam != NULL && st == MB_OK)
        st = mb_config_untie(fam, folder, mb_json_root(d));
    if (st == MB_OK)
        *doc = d;
    else
        mb_json_free(d);
    return st;
}

mb_status mb_model_config_doc(const char *path, mb_json_doc **doc)
{
    char file[4096];

    if (mb_path_is_dir(path)) {
        MB_TRY(mb_path_join(file, sizeof file, path, "config.json"));
        if (mb_path_exists(file))
            return doc_from_json(path, file, doc);
    }
    MB_REQUIRE(mb_path_exists(path), MB_EMODEL,
               "model '%s' is not there: expected a Hugging Face folder or a .gguf file", path);
    return doc_from_gguf(path, doc);
}

/* ---- meaning ------------------------------------------------------------------------------ */

/* An id may be a number or, for eos, a list whose first entry counts. */
static mb_status token_id(mb_json json, const char *key, int64_t *out)
{
    mb_json v = mb_json_get(json, key);

    *out = -1;
    if (mb_json_is(v, MB_JSON_ARRAY))
        v = mb_json_at(v, 0);
    return mb_json_is_set(v) ? mb_json_int(v, out) : MB_OK;
}

/* What class names end with, of those that no family lists; an embedder's is never guessed. */
static const struct {
    const char *in_class, *words;
} heads[MB_HEAD_COUNT] = {
    [MB_HEAD_CAUSAL_LM] = {"ForCausalLM", "causal language modelling"},
    [MB_HEAD_MASKED_LM] = {"ForMaskedLM", "masked language modelling"},
    [MB_HEAD_SEQUENCE] = {"ForSequenceClassification", "sequence classification"},
    [MB_HEAD_TOKENS] = {"ForTokenClassification", "token classification"},
    [MB_HEAD_SPAN] = {"ForQuestionAnswering", "question answering"},
    [MB_HEAD_EMBED] = {NULL, "embedding"},
    [MB_HEAD_SEQ2SEQ] = {"ForConditionalGeneration", "sequence-to-sequence generation"},
};

mb_head mb_model_config_head(mb_json_doc *doc, mb_head otherwise)
{
    const char *name;

    if (mb_json_string(mb_json_at(mb_json_get(mb_json_root(doc), "architectures"), 0), &name,
                       NULL) != MB_OK) {
        mb_status_clear();
        return otherwise;
    }
    for (int i = 0; mb_model_families[i] != NULL; i++)
        for (int h = 0; h < MB_HEAD_COUNT; h++)
            if (mb_model_families[i]->architecture[h] != NULL &&
                strcmp(mb_model_families[i]->architecture[h], name) == 0)
                return (mb_head)h;
    for (int h = 0; h < MB_HEAD_COUNT; h++)
        if (heads[h].in_class != NULL && strstr(name, heads[h].in_class) != NULL)
            return (mb_head)h;
    return otherwise;
}

/* Whichever name the family's authors chose. */
static mb_status init_std(mb_json json, float *out)
{
    static const char *const keys[] = {"initializer_range", "init_std", "initializer_factor"};
    double v = 0.0;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        MB_TRY(mb_json_get_real(json, keys[i], v, &v));
    if (!(v >= 0.0 && v <= 100.0))
        return mb_json_fault(json, "has weights that start with a spread of %g", v);
    *out = (float)v;
    return MB_OK;
}

static mb_status sane(mb_json json, const mb_model_config *c)
{
    if (c->heads < 1 || c->kv_heads < 1 || c->heads % c->kv_heads != 0)
        return mb_json_fault(json,
                             "has %lld attention heads that cannot share %lld key-value heads",
                             (long long)c->heads, (long long)c->kv_heads);
    if (c->head_dim < 1 || c->head_dim > 256)
        return mb_json_fault(json, "has a head size of %lld; 1 to 256 is supported",
                             (long long)c->head_dim);
    if (c->positions < 1 || c->positions > 1 << 24)
        return mb_json_fault(json, "allows %lld positions; 1 to 16777216 is supported",
                             (long long)c->positions);
    if (c->window < 0)
        return mb_json_fault(json, "has a sliding window of %lld", (long long)c->window);
    if (!(c->norm_eps > 0.0f && c->norm_eps < 1.0f))
        return mb_json_fault(json, "has a norm epsilon of %g", (double)c->norm_eps);
    return MB_OK;
}

/* As transformers chooses it when it is given labels. */
static mb_status default_loss(mb_json json, mb_model_config *c)
{
    const char *problem;

    MB_TRY(mb_json_get_string(json, "problem_type", "", &problem));
    c->temperature = 0.05f;
    if (c->head == MB_HEAD_SPAN)
        c->loss = MB_LOSS_SPAN;
    else if (c->head == MB_HEAD_EMBED)
        c->loss = MB_LOSS_CONTRAST;
    else if (c->head != MB_HEAD_SEQUENCE)
        c->loss = MB_LOSS_SOFTMAX;
    else if (strcmp(problem, "multi_label_classification") == 0)
        c->loss = MB_LOSS_SIGMOID;
    else if (c->labels == 1 || strcmp(problem, "regression") == 0)
        c->loss = MB_LOSS_SQUARED;
    return MB_OK;
}

mb_status mb_model_config_parse(mb_json_doc *doc, mb_head head, mb_model_config *c)
{
    const mb_json json = mb_json_root(doc);
    const char *type;
    char known[512];

    *c = (mb_model_config){.head = head, .padding_row = -1};
    MB_TRY(mb_json_get_string(json, "model_type", "", &type));
    c->family = family_of_type(type);
    list_types(known, sizeof known);
    if (c->family == NULL)
        return mb_json_fault(json, "has model_type \"%s\"; known are %s", type, known);
    if (c->family->architecture[head] == NULL)
        return mb_json_fault(json, "is a %s model, which has no head for %s", type,
                             heads[head].words);
    snprintf(c->model_type, sizeof c->model_type, "%s", type);
    if (!c->family->sees_images)
        MB_TRY(mb_json_need_int(json, "vocab_size", 1, 1 << 26, &c->vocab));
    MB_TRY(token_id(json, "bos_token_id", &c->bos_id));
    MB_TRY(token_id(json, "eos_token_id", &c->eos_id));
    MB_TRY(token_id(json, "pad_token_id", &c->pad_id));
    MB_TRY(token_id(json, "decoder_start_token_id", &c->decoder_start_id));
    MB_TRY(init_std(json, &c->init_std));
    MB_TRY(c->family->config(json, c));
    if (head == MB_HEAD_SPAN)
        c->labels = 2;
    MB_TRY(default_loss(json, c));
    return sane(json, c);
}
