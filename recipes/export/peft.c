/* recipes/export/peft.c - reading and writing adapter_config.json. */
#include "recipes/export/peft.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"

enum { CONFIG_MAX_BYTES = 4 << 20, RANK_MAX = 65536, TOKENS_MAX = 16 << 20 };

static const char *const file_name = "adapter_config.json";

mb_peft mb_peft_defaults(void)
{
    return (mb_peft){.r = 8, .alpha = 8.0};
}

/* --- reading --- */

/* Keys that change what the tensors mean, and what makes them harmless. */
enum harmless { NULL_OR_FALSE, NULL_OR_EMPTY };

static const struct refused {
    const char *key, *what;
    enum harmless when;
} refused[] = {
    {"use_qalora", "QALoRA adapters", NULL_OR_FALSE},
    {"lora_bias", "biases in adapters", NULL_OR_FALSE},
    {"use_bdlora", "block-diagonal adapters", NULL_OR_FALSE},
    {"layer_replication", "replicated layers", NULL_OR_EMPTY},
    {"target_parameters", "adapters on bare parameters", NULL_OR_EMPTY},
    {"alora_invocation_tokens", "activated LoRA", NULL_OR_EMPTY},
    {"arrow_config", "Arrow routing", NULL_OR_EMPTY},
    {"kasa_config", "KaSA adapters", NULL_OR_EMPTY},
    {"monteclora_config", "MonteCLoRA adapters", NULL_OR_EMPTY},
    {"velora_config", "VeLoRA adapters", NULL_OR_EMPTY},
    {"megatron_config", "Megatron adapters", NULL_OR_EMPTY},
};

static mb_status refuse(mb_json root)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        mb_json v = mb_json_get(root, refused[i].key);
        bool on = mb_json_is_set(v);

        if (mb_json_is(v, MB_JSON_BOOL))
            MB_TRY(mb_json_bool(v, &on));
        else if (mb_json_is(v, MB_JSON_ARRAY) || mb_json_is(v, MB_JSON_OBJECT))
            on = refused[i].when == NULL_OR_FALSE || mb_json_count(v) > 0;
        if (on)
            return MB_RAISE(MB_ENOTSUP, "%s: %s is set, and %s are not supported", file_name,
                            refused[i].key, refused[i].what);
    }
    return MB_OK;
}

/* Some initialisations take part of the base weights into the adapter. */
static mb_status check_start(mb_json root)
{
    static const char *const moved[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    mb_json v = mb_json_get(root, "init_lora_weights");
    const char *word;

    if (!mb_json_is(v, MB_JSON_STRING))
        return MB_OK;
    MB_TRY(mb_json_string(v, &word, NULL));
    for (size_t i = 0; i < sizeof moved / sizeof moved[0]; i++)
        MB_REQUIRE(strncmp(word, moved[i], strlen(moved[i])) != 0, MB_ENOTSUP,
                   "%s: init_lora_weights \"%s\" altered the base weights, so the adapter does not "
                   "fit the published ones; convert it to a plain LoRA with PEFT first",
                   file_name, word);
    return MB_OK;
}

static bool contains(const char *const *names, int64_t n, const char *name)
{
    for (int64_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* A list of names, or one text that is a regex when `regex` is not NULL. */
static mb_status read_names(mb_json root, const char *key, const char **regex, const char ***out,
                            int64_t *n)
{
    mb_json v = mb_json_get(root, key);

    if (!mb_json_is_set(v))
        return MB_OK;
    if (regex != NULL && mb_json_is(v, MB_JSON_STRING))
        return mb_json_string(v, regex, NULL);
    if (!mb_json_is(v, MB_JSON_ARRAY))
        return mb_json_fault(v, "must be a list of module names%s",
                             regex != NULL ? " or one regular expression" : "");
    MB_TRY(MB_NEW_ARRAY(out, mb_json_count(v)));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        const char *name;

        MB_TRY(mb_json_string(it.value, &name, NULL));
        if (!contains(*out, *n, name)) /* PEFT repeats the heads of classifiers */
            (*out)[(*n)++] = name;
    }
    return MB_OK;
}

static mb_status read_patterns(mb_json root, const char *key, mb_peft_pattern **out, int64_t *n)
{
    mb_json v = mb_json_get(root, key);

    if (!mb_json_is_set(v))
        return MB_OK;
    if (!mb_json_is(v, MB_JSON_OBJECT))
        return mb_json_fault(v, "must map module names to numbers");
    MB_TRY(MB_NEW_ARRAY(out, mb_json_count(v)));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        mb_peft_pattern *p = &(*out)[(*n)++];

        p->pattern = it.key;
        MB_TRY(mb_json_real(it.value, &p->value));
    }
    return MB_OK;
}

static mb_status read_ids(mb_json list, mb_token_wish *t)
{
    int32_t *id = NULL;
    int64_t v;

    if (!mb_json_is(list, MB_JSON_ARRAY) || mb_json_count(list) > TOKENS_MAX)
        return mb_json_fault(list, "must be a list of token ids");
    MB_TRY(MB_NEW_ARRAY(&id, mb_json_count(list)));
    t->id = id;
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY(mb_json_int(it.value, &v));
        if (v < 0 || v > INT32_MAX)
            return mb_json_fault(it.value, "is no token's id");
        id[t->n++] = (int32_t)v;
    }
    return MB_OK;
}

/* A list for the input embedding, or lists by module. */
static mb_status read_tokens(mb_json root, mb_peft *p)
{
    const mb_json v = mb_json_get(root, "trainable_token_indices");

    if (!mb_json_is_set(v) || (mb_json_is(v, MB_JSON_ARRAY) && mb_json_count(v) == 0))
        return MB_OK;
    if (mb_json_is(v, MB_JSON_OBJECT)) {
        MB_TRY(MB_NEW_ARRAY(&p->tokens, mb_json_count(v)));
        for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
            mb_token_wish *t = &p->tokens[p->n_tokens++];
            t->module = it.key;
            MB_TRY(read_ids(it.value, t));
        }
        return MB_OK;
    }
    MB_TRY(MB_NEW_ARRAY(&p->tokens, 1));
    p->n_tokens = 1;
    return read_ids(v, p->tokens);
}

/* One list, of the modules that are named, or of the one whose whole name target_modules is. */
static mb_status read_tokens_alone(mb_json root, mb_peft *p)
{
    const mb_json ids = mb_json_get(root, "token_indices");

    MB_REQUIRE(mb_json_is_set(ids), MB_EMODEL, "%s: token_indices is missing", file_name);
    p->tokens_alone = true;
    MB_TRY(read_names(root, "target_modules", &p->target_regex, &p->target, &p->n_target));
    p->n_tokens = p->n_target > 0 ? p->n_target : 1;
    MB_TRY(MB_NEW_ARRAY(&p->tokens, p->n_tokens));
    for (int64_t i = 0; i < p->n_tokens; i++) {
        p->tokens[i].module = p->n_target > 0 ? p->target[i] : p->target_regex;
        MB_TRY(read_ids(ids, &p->tokens[i]));
    }
    return MB_OK;
}

static mb_status read_config(mb_json root, mb_peft *p)
{
    const char *type, *bias;

    MB_TRY(mb_json_get_string(root, "peft_type", NULL, &type));
    MB_REQUIRE(type != NULL, MB_EMODEL, "%s: peft_type is missing: this is no PEFT adapter",
               file_name);
    MB_TRY(mb_json_get_string(root, "task_type", NULL, &p->task_type));
    MB_TRY(mb_json_get_string(root, "base_model_name_or_path", NULL, &p->base));
    MB_TRY(mb_json_get_string(root, "revision", NULL, &p->revision));
    if (strcmp(type, "TRAINABLE_TOKENS") == 0)
        return read_tokens_alone(root, p);
    MB_REQUIRE(strcmp(type, "LORA") == 0, MB_ENOTSUP,
               "%s: peft_type is \"%s\"; only \"LORA\" and \"TRAINABLE_TOKENS\" are supported",
               file_name, type);
    MB_TRY(refuse(root));
    MB_TRY(check_start(root));
    MB_TRY(mb_json_get_string(root, "bias", "none", &bias));
    MB_REQUIRE(strcmp(bias, "none") == 0, MB_ENOTSUP,
               "%s: bias is \"%s\": trained biases are not supported, only \"none\"", file_name,
               bias);
    MB_TRY(mb_json_get_int(root, "r", p->r, &p->r));
    MB_TRY(mb_json_get_real(root, "lora_alpha", p->alpha, &p->alpha));
    MB_TRY(mb_json_get_real(root, "lora_dropout", p->dropout, &p->dropout));
    MB_TRY(mb_json_get_bool(root, "use_rslora", false, &p->rslora));
    MB_TRY(mb_json_get_bool(root, "use_dora", false, &p->dora));
    MB_TRY(mb_json_get_bool(root, "fan_in_fan_out", false, &p->fan_in_fan_out));
    MB_TRY(read_names(root, "target_modules", &p->target_regex, &p->target, &p->n_target));
    MB_TRY(read_names(root, "exclude_modules", &p->exclude_regex, &p->exclude, &p->n_exclude));
    MB_TRY(read_names(root, "modules_to_save", NULL, &p->save, &p->n_save));
    MB_TRY(read_tokens(root, p));
    MB_TRY(read_patterns(root, "rank_pattern", &p->rank_pattern, &p->n_rank_pattern));
    return read_patterns(root, "alpha_pattern", &p->alpha_pattern, &p->n_alpha_pattern);
}

mb_status mb_peft_read(const char *dir, mb_peft *out)
{
    char path[MB_PATH_MAX];

    *out = mb_peft_defaults();
    MB_TRY(mb_path_join(path, sizeof path, dir, file_name));
    MB_TRY(mb_json_read(path, MB_EMODEL, CONFIG_MAX_BYTES, &out->doc));
    if (!mb_json_is(mb_json_root(out->doc), MB_JSON_OBJECT))
        return mb_json_fault(mb_json_root(out->doc), "must be an object");
    MB_TRY(read_config(mb_json_root(out->doc), out));
    return mb_peft_check(out, path);
}

void mb_peft_close(mb_peft *p)
{
    if (p->doc != NULL) { /* what a writer's caller lends is not ours to free */
        for (int64_t i = 0; i < p->n_tokens; i++)
            mb_free((void *)(uintptr_t)p->tokens[i].id);
        mb_free(p->tokens);
        mb_free(p->target);
        mb_free(p->exclude);
        mb_free(p->save);
        mb_free(p->rank_pattern);
        mb_free(p->alpha_pattern);
        mb_json_free(p->doc);
    }
    *p = mb_peft_defaults();
}

mb_status mb_peft_check(const mb_peft *p, const char *where)
{
    for (int64_t i = 0; i < p->n_tokens; i++)
        MB_REQUIRE(p->tokens[i].n > 0, MB_EMODEL, "%s: the list of tokens is empty", where);
    if (p->tokens_alone)
        return MB_OK;
    MB_REQUIRE(p->r >= 1 && p->r <= RANK_MAX, MB_EMODEL, "%s: r is %lld, expected 1 to %d", where,
               (long long)p->r, RANK_MAX);
    MB_REQUIRE(isfinite(p->alpha), MB_EMODEL, "%s: lora_alpha is not a number", where);
    MB_REQUIRE(p->dropout >= 0.0 && p->dropout < 1.0, MB_EMODEL,
               "%s: lora_dropout is %g, expected at least 0 and below 1", where, p->dropout);
    MB_REQUIRE(p->target_regex != NULL || p->n_target > 0 || p->n_save > 0, MB_EMODEL,
               "%s: target_modules names no module", where);
    for (int64_t i = 0; i < p->n_rank_pattern; i++) {
        const double r = p->rank_pattern[i].value;

        MB_REQUIRE(r >= 1 && r <= RANK_MAX && r == floor(r), MB_EMODEL,
                   "%s: rank_pattern gives %s the rank %g, expected a whole number from 1 to %d",
                   where, p->rank_pattern[i].pattern, r, RANK_MAX);
    }
    for (int64_t i = 0; i < p->n_alpha_pattern; i++)
        MB_REQUIRE(isfinite(p->alpha_pattern[i].value), MB_EMODEL,
                   "%s: alpha_pattern of %s is not a number", where, p->alpha_pattern[i].pattern);
    return MB_OK;
}

/* --- what a config says about a module --- */

/* "model.layers.0.q_proj" is named by itself and by what follows any of its dots. */
static bool ends_with(const char *module, const char *name)
{
    const size_t m = strlen(module), n = strlen(name);

    return m >= n && strcmp(module + m - n, name) == 0 && (m == n || module[m - n - 1] == '.');
}

static bool listed(const char *const *names, int64_t n, const char *module)
{
    for (int64_t i = 0; i < n; i++)
        if (ends_with(module, names[i]))
            return true;
    return false;
}

static bool plain(const char *pattern)
{
    return strpbrk(pattern, "\\^$*+?()[]{}|") == NULL;
}

static mb_status ask(mb_peft_matcher match, void *ctx, const char *pattern, const char *module,
                     bool *yes)
{
    MB_REQUIRE(match != NULL, MB_ENOTSUP,
               "%s: \"%s\" is a regular expression, and none can be used here", file_name, pattern);
    return match(ctx, pattern, module, yes);
}

/* PEFT matches (.*\.)?(pattern) against the whole name. */
static mb_status fits(const char *pattern, const char *module, mb_peft_matcher match, void *ctx,
                      bool *yes)
{
    mb_status st;
    char *whole;

    *yes = plain(pattern) && ends_with(module, pattern);
    if (plain(pattern))
        return MB_OK;
    MB_TRY(mb_asprintf(&whole, "(.*\\.)?(%s)", pattern));
    st = ask(match, ctx, whole, module, yes);
    mb_free(whole);
    return st;
}

static mb_status by_pattern(const mb_peft_pattern *p, int64_t n, const char *module,
                            mb_peft_matcher match, void *ctx, double *value)
{
    for (int64_t i = 0; i < n; i++) {
        bool yes;

        MB_TRY(fits(p[i].pattern, module, match, ctx, &yes));
        if (yes) {
            *value = p[i].value;
            return MB_OK;
        }
    }
    return MB_OK;
}

mb_status mb_peft_rank(const mb_peft *p, const char *module, mb_peft_matcher match, void *ctx,
                       int64_t *rank)
{
    double r = (double)p->r;

    MB_TRY(by_pattern(p->rank_pattern, p->n_rank_pattern, module, match, ctx, &r));
    *rank = (int64_t)r;
    return MB_OK;
}

mb_status mb_peft_scale(const mb_peft *p, const char *module, mb_peft_matcher match, void *ctx,
                        double *scale)
{
    double alpha = p->alpha;
    int64_t r;

    MB_TRY(mb_peft_rank(p, module, match, ctx, &r));
    MB_TRY(by_pattern(p->alpha_pattern, p->n_alpha_pattern, module, match, ctx, &alpha));
    *scale = alpha / (p->rslora ? sqrt((double)r) : (double)r);
    return MB_OK;
}

bool mb_peft_saves(const mb_peft *p, const char *module)
{
    for (int64_t i = 0; i < p->n_save; i++) {
        const size_t n = strlen(p->save[i]);

        for (const char *at = module; at != NULL; at = strchr(at, '.')) {
            at += *at == '.';
            if (strncmp(at, p->save[i], n) == 0 && (at[n] == '\0' || at[n] == '.'))
                return true;
        }
    }
    return false;
}

mb_status mb_peft_targets(const mb_peft *p, const char *module, bool linear, mb_peft_matcher match,
                          void *ctx, bool *yes)
{
    bool out = listed(p->exclude, p->n_exclude, module) || mb_peft_saves(p, module);

    if (!out && p->exclude_regex != NULL)
        MB_TRY(ask(match, ctx, p->exclude_regex, module, &out));
    *yes = false;
    if (out)
        return MB_OK;
    *yes = listed(p->target, p->n_target, module);
    if (p->target_regex == NULL)
        return MB_OK;
    if (strcmp(p->target_regex, "all-linear") == 0) {
        *yes = linear;
        return MB_OK;
    }
    return ask(match, ctx, p->target_regex, module, yes);
}

/* --- writing --- */

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A sorted list, one regex, or null when there is neither. */
static mb_status write_names(mb_json root, const char *key, const char *regex,
                             const char *const *names, int64_t n)
{
    mb_status st = MB_OK;
    const char **sorted;
    mb_json list;

    if (regex != NULL)
        return mb_json_set_string(root, key, regex);
    if (n == 0)
        return mb_json_set_null(root, key);
    MB_TRY(mb_json_set_array(root, key, &list));
    MB_TRY(MB_NEW_ARRAY(&sorted, n));
    for (int64_t i = 0; i < n; i++)
        sorted[i] = names[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_bytes);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || strcmp(sorted[i - 1], sorted[i]) != 0)
            MB_TRY_GOTO(mb_json_set_string(list, NULL, sorted[i]), st, done);
done:
    mb_free(sorted);
    return st;
}

/* Whole numbers are written as such: PEFT's own files have integers here. */
static mb_status write_number(mb_json to, const char *key, double v)
{
    if (v == floor(v) && fabs(v) < 9e15)
        return mb_json_set_int(to, key, (int64_t)v);
    return mb_json_set_real(to, key, v);
}

static mb_status write_patterns(mb_json root, const char *key, const mb_peft_pattern *p, int64_t n)
{
    mb_json map;

    MB_TRY(mb_json_set_object(root, key, &map));
    for (int64_t i = 0; i < n; i++)
        MB_TRY(write_number(map, p[i].pattern, p[i].value));
    return MB_OK;
}

static mb_status write_text(mb_json root, const char *key, const char *text)
{
    return text != NULL ? mb_json_set_string(root, key, text) : mb_json_set_null(root, key);
}

static mb_status write_ids(mb_json list, const mb_token_wish *t)
{
    for (int64_t i = 0; i < t->n; i++)
        MB_TRY(mb_json_set_int(list, NULL, t->id[i]));
    return MB_OK;
}

static mb_status write_tokens(mb_json root, const mb_peft *p)
{
    static const char *const key = "trainable_token_indices";
    mb_json map, list;

    if (p->n_tokens == 0)
        return mb_json_set_null(root, key);
    if (p->n_tokens == 1 && p->tokens->module == NULL) {
        MB_TRY(mb_json_set_array(root, key, &list));
        return write_ids(list, p->tokens);
    }
    MB_TRY(mb_json_set_object(root, key, &map));
    for (int64_t i = 0; i < p->n_tokens; i++) {
        MB_TRY(mb_json_set_array(map, p->tokens[i].module, &list));
        MB_TRY(write_ids(list, &p->tokens[i]));
    }
    return MB_OK;
}

static mb_status fill_tokens_alone(mb_json root, const mb_peft *p)
{
    const bool named = p->tokens->module != NULL;
    mb_json list;

    MB_TRY(mb_json_set_null(root, "auto_mapping"));
    MB_TRY(write_text(root, "base_model_name_or_path", p->base));
    MB_TRY(mb_json_set_bool(root, "inference_mode", true));
    MB_TRY(mb_json_set_bool(root, "init_weights", true));
    MB_TRY(mb_json_set_string(root, "peft_type", "TRAINABLE_TOKENS"));
    MB_TRY(write_text(root, "revision", p->revision));
    if (named)
        MB_TRY(mb_json_set_array(root, "target_modules", &list));
    else
        MB_TRY(mb_json_set_null(root, "target_modules"));
    for (int64_t i = 0; named && i < p->n_tokens; i++)
        MB_TRY(mb_json_set_string(list, NULL, p->tokens[i].module));
    MB_TRY(write_text(root, "task_type", p->task_type));
    MB_TRY(mb_json_set_array(root, "token_indices", &list));
    return write_ids(list, p->tokens);
}

static mb_status fill(mb_json root, const mb_peft *p)
{
    static const char *const nulls[] = {"auto_mapping",    "layer_replication",
                                        "layers_pattern",  "layers_to_transform",
                                        "megatron_config", "target_parameters"};
    mb_json none;

    MB_TRY(write_patterns(root, "alpha_pattern", p->alpha_pattern, p->n_alpha_pattern));
    MB_TRY(write_text(root, "base_model_name_or_path", p->base));
    MB_TRY(mb_json_set_string(root, "bias", "none"));
    MB_TRY(write_names(root, "exclude_modules", p->exclude_regex, p->exclude, p->n_exclude));
    MB_TRY(mb_json_set_bool(root, "fan_in_fan_out", p->fan_in_fan_out));
    MB_TRY(mb_json_set_bool(root, "inference_mode", true));
    MB_TRY(mb_json_set_bool(root, "init_lora_weights", true));
    MB_TRY(mb_json_set_object(root, "loftq_config", &none));
    MB_TRY(write_number(root, "lora_alpha", p->alpha));
    MB_TRY(mb_json_set_bool(root, "lora_bias", false));
    MB_TRY(mb_json_set_real(root, "lora_dropout", p->dropout));
    MB_TRY(mb_json_set_string(root, "megatron_core", "megatron.core"));
    MB_TRY(write_names(root, "modules_to_save", NULL, p->save, p->n_save));
    MB_TRY(mb_json_set_string(root, "peft_type", "LORA"));
    MB_TRY(mb_json_set_int(root, "r", p->r));
    MB_TRY(write_patterns(root, "rank_pattern", p->rank_pattern, p->n_rank_pattern));
    MB_TRY(write_text(root, "revision", p->revision));
    MB_TRY(write_names(root, "target_modules", p->target_regex, p->target, p->n_target));
    MB_TRY(write_text(root, "task_type", p->task_type));
    MB_TRY(write_tokens(root, p));
    MB_TRY(mb_json_set_bool(root, "use_dora", p->dora));
    MB_TRY(mb_json_set_bool(root, "use_rslora", p->rslora));
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
        MB_TRY(mb_json_set_null(root, nulls[i]));
    return MB_OK;
}

mb_status mb_peft_write(const char *dir, const mb_peft *p)
{
    char path[MB_PATH_MAX];
    mb_status st = MB_OK;
    mb_json_doc *doc;

    MB_TRY(mb_path_join(path, sizeof path, dir, file_name));
    MB_TRY(mb_peft_check(p, path));
    MB_TRY(mb_json_doc_new(file_name, &doc));
    MB_TRY_GOTO((p->tokens_alone ? fill_tokens_alone : fill)(mb_json_root(doc), p), st, done);
    MB_TRY_GOTO(mb_json_write(mb_json_root(doc), 2, path), st, done);
done:
    mb_json_free(doc);
    return st;
}
