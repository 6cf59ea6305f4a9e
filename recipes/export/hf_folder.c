/* recipes/export/hf_folder.c - writing the files around the weights. */
#include "recipes/export/hf_folder.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"

enum { FILE_MAX_BYTES = 256 << 20, JSON_MAX_BYTES = 16 << 20 };

static mb_status rope_of(mb_json params, const char *layers, mb_json theta, mb_json scaling)
{
    mb_json made;

    MB_TRY(mb_json_set_object(params, layers, &made));
    MB_TRY(mb_json_set_string(made, "rope_type", "default"));
    MB_TRY(mb_json_set(made, "rope_theta", theta));
    for (mb_json_it it = mb_json_first(scaling); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(mb_json_set(made, strcmp(it.key, "type") == 0 ? "rope_type" : it.key, it.value));
    return MB_OK;
}

/* Gemma 3, whose layers with a window rotate otherwise: the newer form out of the older. */
static mb_status newer_rope_by_layer(mb_json root, mb_json theta, mb_json scaling)
{
    mb_json params;

    MB_TRY(mb_json_set_object(root, "rope_parameters", &params));
    MB_TRY(rope_of(params, "full_attention", theta, scaling));
    return rope_of(params, "sliding_attention", mb_json_get(root, "rope_local_base_freq"),
                   (mb_json){0});
}

/* And the older out of the newer. */
static mb_status older_rope_by_layer(mb_json root, mb_json params)
{
    const mb_json full = mb_json_get(params, "full_attention");
    const mb_json theta = mb_json_get(full, "rope_theta"),
                  local = mb_json_get(mb_json_get(params, "sliding_attention"), "rope_theta");
    const char *type;

    if (mb_json_is_number(theta))
        MB_TRY(mb_json_set(root, "rope_theta", theta));
    if (mb_json_is_number(local))
        MB_TRY(mb_json_set(root, "rope_local_base_freq", local));
    MB_TRY(mb_json_get_string(full, "rope_type", "default", &type));
    if (strcmp(type, "default") == 0)
        return MB_OK;
    MB_TRY(mb_json_set(root, "rope_scaling", full));
    mb_json_remove(mb_json_get(root, "rope_scaling"), "rope_theta");
    return MB_OK;
}

/* What transformers' newer form of the rotary settings calls rope_parameters is the older
 * rope_scaling with rope_theta put in. */
static mb_status both_rope_forms(mb_json root)
{
    mb_json theta = mb_json_get(root, "rope_theta"), scaling = mb_json_get(root, "rope_scaling");
    mb_json params = mb_json_get(root, "rope_parameters"), made;

    if (mb_json_is(params, MB_JSON_OBJECT) && mb_json_is_set(mb_json_get(params, "full_attention")))
        return older_rope_by_layer(root, params);
    if (mb_json_is_number(theta) && mb_json_is_number(mb_json_get(root, "rope_local_base_freq")))
        return newer_rope_by_layer(root, theta, scaling);
    if (mb_json_is(params, MB_JSON_OBJECT)) {
        const char *type;

        if (!mb_json_is_set(theta) && mb_json_is_number(mb_json_get(params, "rope_theta")))
            MB_TRY(mb_json_set(root, "rope_theta", mb_json_get(params, "rope_theta")));
        MB_TRY(mb_json_get_string(params, "rope_type", "default", &type));
        if (mb_json_is_set(scaling) || strcmp(type, "default") == 0)
            return MB_OK;
        MB_TRY(mb_json_set(root, "rope_scaling", params));
        mb_json_remove(mb_json_get(root, "rope_scaling"), "rope_theta");
        return MB_OK;
    }
    if (!mb_json_is_number(theta))
        return MB_OK; /* a model without rotation */
    MB_TRY(mb_json_set_object(root, "rope_parameters", &made));
    MB_TRY(mb_json_set(made, "rope_theta", theta));
    MB_TRY(mb_json_set_string(made, "rope_type", "default"));
    for (mb_json_it it = mb_json_first(scaling); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(mb_json_set(made, strcmp(it.key, "type") == 0 ? "rope_type" : it.key, it.value));
    return MB_OK;
}

static mb_status write_labels(mb_json root, const mb_hf_edits *e)
{
    mb_json by_id, by_label;
    char id[24], standard[32];

    if (e->label == NULL && /* as many as the base has names for: they stay */
        mb_json_count(mb_json_get(root, "id2label")) == (size_t)e->num_labels)
        return MB_OK;
    MB_TRY(mb_json_set_object(root, "id2label", &by_id));
    MB_TRY(mb_json_set_object(root, "label2id", &by_label));
    for (int64_t i = 0; i < e->num_labels; i++) {
        snprintf(id, sizeof id, "%lld", (long long)i);
        snprintf(standard, sizeof standard, "LABEL_%lld", (long long)i);

        const char *label = e->label != NULL ? e->label[i] : standard;

        MB_TRY(mb_json_set_string(by_id, id, label));
        MB_TRY(mb_json_set_int(by_label, label, i));
    }
    /* transformers derives num_labels from id2label; others read it, so it stays where it was */
    if (mb_json_is_set(mb_json_get(root, "num_labels")))
        MB_TRY(mb_json_set_int(root, "num_labels", e->num_labels));
    return MB_OK;
}

static mb_status edit(mb_json root, const mb_hf_edits *e)
{
    mb_json list;

    if (e->architecture != NULL) {
        MB_TRY(mb_json_set_array(root, "architectures", &list));
        MB_TRY(mb_json_set_string(list, NULL, e->architecture));
    }
    if (e->dtype != NULL) {
        MB_TRY(mb_json_set_string(root, "dtype", e->dtype));
        MB_TRY(mb_json_set_string(root, "torch_dtype", e->dtype));
    }
    if (e->problem_type != NULL)
        MB_TRY(mb_json_set_string(root, "problem_type", e->problem_type));
    if (e->num_labels > 0)
        MB_TRY(write_labels(root, e));
    if (e->vocab_size > 0)
        MB_TRY(mb_json_set_int(root, "vocab_size", e->vocab_size));
    if (e->tied != 0)
        MB_TRY(mb_json_set_bool(root, "tie_word_embeddings", e->tied > 0));
    /* the weights written are plain, and where the base was read from means nothing elsewhere */
    mb_json_remove(root, "quantization_config");
    mb_json_remove(root, "_name_or_path");
    return both_rope_forms(root);
}

mb_status mb_hf_write_config(const char *dir, mb_json base, const mb_hf_edits *e)
{
    char path[MB_PATH_MAX];
    mb_status st = MB_OK;
    mb_json_doc *doc;

    MB_REQUIRE(mb_json_is(base, MB_JSON_OBJECT), MB_EMODEL,
               "config.json of the base model is not an object");
    MB_TRY(mb_path_join(path, sizeof path, dir, "config.json"));
    MB_TRY(mb_json_doc_new("config.json", &doc));
    for (mb_json_it it = mb_json_first(base); mb_json_more(&it); mb_json_next(&it))
        MB_TRY_GOTO(mb_json_set(mb_json_root(doc), it.key, it.value), st, done);
    MB_TRY_GOTO(edit(mb_json_root(doc), e), st, done);
    MB_TRY_GOTO(mb_json_write(mb_json_root(doc), 2, path), st, done);
done:
    mb_json_free(doc);
    return st;
}

/* Copies dir_from/name, if it is there, to dir_to/name; *found says whether it was. */
static mb_status copy_file(const char *dir_to, const char *dir_from, const char *name, bool *found)
{
    char from[MB_PATH_MAX], to[MB_PATH_MAX], *text;
    mb_status st;
    size_t n;

    MB_TRY(mb_path_join(from, sizeof from, dir_from, name));
    MB_TRY(mb_path_join(to, sizeof to, dir_to, name));
    *found = mb_path_is_file(from);
    if (!*found)
        return MB_OK;
    MB_TRY(mb_file_read_as(from, MB_EMODEL, FILE_MAX_BYTES, &text, &n));
    st = mb_file_write_atomic(to, text, n);
    mb_free(text);
    return st;
}

mb_status mb_hf_copy_tokenizer(const char *dir, const char *base_dir)
{
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.txt",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "spiece.model",
                                        "chat_template.jinja",
                                        "chat_template.json"};
    bool found;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        MB_TRY(copy_file(dir, base_dir, names[i], &found));
    return MB_OK;
}

mb_status mb_hf_write_generation_config(const char *dir, const char *base_dir, mb_json config)
{
    static const char *const ids[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                      "decoder_start_token_id"};
    char path[MB_PATH_MAX];
    mb_status st = MB_OK;
    bool found = false;
    mb_json_doc *doc;

    if (base_dir != NULL)
        MB_TRY(copy_file(dir, base_dir, "generation_config.json", &found));
    if (found)
        return MB_OK;
    MB_TRY(mb_path_join(path, sizeof path, dir, "generation_config.json"));
    MB_TRY(mb_json_doc_new("generation_config.json", &doc));
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        mb_json v = mb_json_get(config, ids[i]);

        if (mb_json_is_set(v))
            MB_TRY_GOTO(mb_json_set(mb_json_root(doc), ids[i], v), st, done);
    }
    MB_TRY_GOTO(mb_json_write(mb_json_root(doc), 2, path), st, done);
done:
    mb_json_free(doc);
    return st;
}

/* Only models that generate text have generation settings. */
static bool generates(mb_json config, const mb_hf_edits *e)
{
    const char *name = e->architecture;

    if (name == NULL &&
        mb_json_is(mb_json_at(mb_json_get(config, "architectures"), 0), MB_JSON_STRING) &&
        mb_json_string(mb_json_at(mb_json_get(config, "architectures"), 0), &name, NULL) != MB_OK)
        return false;
    return name != NULL &&
           (strstr(name, "ForCausalLM") != NULL || strstr(name, "LMHeadModel") != NULL ||
            strstr(name, "ForConditionalGeneration") != NULL);
}

mb_status mb_hf_write_folder(const char *dir, const mb_hf_folder *f)
{
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_hf_write_config(dir, f->config, &f->edits));
    if (generates(f->config, &f->edits))
        MB_TRY(mb_hf_write_generation_config(dir, f->base_dir, f->config));
    if (f->write_tokenizer != NULL)
        MB_TRY(f->write_tokenizer(f->tokenizer_ctx, dir));
    else if (f->base_dir != NULL)
        MB_TRY(mb_hf_copy_tokenizer(dir, f->base_dir));
    return f->card != NULL ? mb_card_write(dir, f->card) : MB_OK;
}
