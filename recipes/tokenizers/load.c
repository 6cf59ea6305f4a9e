/* recipes/tokenizers/load.c - reading a tokenizer.json and the small files beside it. */
#include <string.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/tokenizers/spm.h"

enum { MAX_FILE = 256 << 20, MAX_CONFIG = 32 << 20 };

static const tok_model *const models[] = {
#define MB_TOKENIZER(name, type) &mb_tok_##name,
#include "recipes/tokenizers/tokenizers.def"
#undef MB_TOKENIZER
};

/* Ids may have gaps, but a table of a gigabyte for three tokens is a broken file. */
static mb_status check_id(mb_json v, const char *token, size_t n, int64_t id, size_t count)
{
    if (n > TOK_MAX_TOKEN_BYTES)
        return mb_json_fault(v, "is the id of a token of %zu bytes; the longest allowed is %d", n,
                             TOK_MAX_TOKEN_BYTES);
    if (id < 0 || id > (int64_t)count * 8 + 65536)
        return mb_json_fault(v, "gives \"%.60s\" the id %lld, but there are only %zu tokens", token,
                             (long long)id, count);
    return MB_OK;
}

mb_status tok_vocab_read(mb_json v, mb_vocab *vocab)
{
    const size_t count = mb_json_count(v);
    uint8_t *used = NULL;
    mb_status st = MB_OK;

    if (count == 0)
        return mb_json_fault(v, "is empty");
    MB_TRY(MB_NEW_ARRAY(&used, count * 8 + 65537));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        const size_t n = strlen(it.key);
        int64_t id;
        bool added;
        MB_TRY_GOTO(mb_json_int(it.value, &id), st, done);
        MB_TRY_GOTO(check_id(it.value, it.key, n, id, count), st, done);
        if (used[id]) {
            st = mb_json_fault(v, "gives the id %lld to two tokens, one of them \"%.60s\"",
                               (long long)id, it.key);
            goto done;
        }
        used[id] = 1;
        MB_TRY_GOTO(mb_vocab_add(vocab, it.key, n, (int32_t)id, &added), st, done);
    }
done:
    mb_free(used);
    return st;
}

static mb_status read_added(mb_json v, size_t n_model, mb_tokenizer *t)
{
    mb_json content;
    const char *text;
    size_t n;
    int64_t id;

    MB_TRY(mb_json_need_int(v, "id", 0, INT32_MAX, &id));
    MB_TRY(mb_json_need(v, "content", MB_JSON_STRING, &content));
    MB_TRY(mb_json_string(content, &text, &n));
    if (n == 0)
        return MB_OK; /* would match everywhere; ignored by everyone */
    MB_TRY(check_id(mb_json_get(v, "id"), text, n, id, n_model + t->n_added));
    MB_TRY(mb_grow((void **)&t->added, &t->added_capacity, t->n_added + 1, sizeof *t->added,
                   "added tokens"));
    tok_added *a = &t->added[t->n_added++];
    a->id = (int32_t)id;
    MB_TRY(mb_bytes_add(&a->content, text, n));
    MB_TRY(mb_bytes_end(&a->content));
    MB_TRY(mb_json_get_bool(v, "single_word", false, &a->single_word));
    MB_TRY(mb_json_get_bool(v, "lstrip", false, &a->lstrip));
    MB_TRY(mb_json_get_bool(v, "rstrip", false, &a->rstrip));
    MB_TRY(mb_json_get_bool(v, "special", false, &a->special));
    return mb_json_get_bool(v, "normalized", !a->special, &a->normalized);
}

static mb_status enter(mb_tokenizer *t, int32_t id, const char *token, size_t n, bool special)
{
    tok_entry *e = &t->entry[id];

    MB_REQUIRE(e->token == NULL || (e->n == n && memcmp(e->token, token, n) == 0), MB_EMODEL,
               "%s: the id %d belongs to \"%.60s\" and to \"%.60s\"", t->where, (int)id, e->token,
               token);
    *e = (tok_entry){token, (uint32_t)n, -1, special || e->special};
    return MB_OK;
}

/* The table by id, from the model's vocabulary and the added tokens. */
static mb_status make_entries(mb_tokenizer *t)
{
    const size_t n_model = mb_vocab_count(t->vocab);
    int32_t last = -1, id;
    size_t n;

    for (size_t i = 0; i < n_model; i++) {
        mb_vocab_at(t->vocab, i, &n, &id);
        last = id > last ? id : last;
    }
    for (size_t i = 0; i < t->n_added; i++)
        last = t->added[i].id > last ? t->added[i].id : last;
    MB_TRY(MB_NEW_ARRAY(&t->entry, last + 1));
    MB_TRY(MB_NEW_ARRAY(&t->barred, last + 1));
    t->n_entries = last + 1;
    for (size_t i = 0; i < n_model; i++) {
        const char *token = mb_vocab_at(t->vocab, i, &n, &id);
        MB_TRY(enter(t, id, token, n, false));
    }
    for (size_t i = 0; i < t->n_added; i++) {
        const tok_added *a = &t->added[i];
        const int32_t known = mb_vocab_find(t->vocab, a->content.p, a->content.n);
        MB_REQUIRE(known < 0 || known == a->id, MB_EMODEL,
                   "%s: the added token \"%.60s\" has the id %d, in the vocab %d", t->where,
                   a->content.p, (int)a->id, (int)known);
        MB_TRY(enter(t, a->id, a->content.p, a->content.n, a->special));
        t->entry[a->id].added = (int32_t)i;
    }
    for (id = 0; id < t->n_entries; id++)
        t->barred[id] = t->entry[id].special;
    return MB_OK;
}

static mb_status show_added(mb_tokenizer *t)
{
    mb_bytes spare = {0};
    mb_status st = MB_OK;

    for (size_t i = 0; i < t->n_added && st == MB_OK; i++) {
        tok_added *a = &t->added[i];
        st = a->normalized ? tok_normalize(&t->normalizer, a->content.p, a->content.n, false,
                                           &a->shown, &spare)
                           : mb_bytes_add(&a->shown, a->content.p, a->content.n);
    }
    mb_bytes_release(&spare);
    return st;
}

static mb_status read_model(mb_tokenizer *t, mb_json v)
{
    const char *type;

    /* Files of old have no "type"; a BPE is known by its merges. */
    MB_TRY(mb_json_get_string(v, "type", mb_json_is_set(mb_json_get(v, "merges")) ? "BPE" : "",
                              &type));
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (strcmp(type, models[i]->type) == 0)
            t->model = models[i];
    MB_REQUIRE(t->model != NULL, MB_ENOTSUP, "%s: the tokenizer model \"%.60s\" is not supported",
               t->where, type);
    MB_TRY(mb_vocab_new(mb_json_count(mb_json_get(v, "vocab")), &t->vocab));
    return t->model->load(v, t->where, t->vocab, &t->model_data);
}

static mb_status read_limits(mb_json root, mb_tok_limits *l)
{
    const mb_json cut = mb_json_get(root, "truncation"), pad = mb_json_get(root, "padding");
    const char *word;
    int64_t id;

    if (mb_json_is_set(cut)) {
        MB_TRY(mb_json_need_int(cut, "max_length", 1, INT32_MAX, &l->max_length));
        MB_TRY(mb_json_get_int(cut, "stride", 0, &l->stride));
        MB_TRY(mb_json_get_string(cut, "strategy", "LongestFirst", &word));
        strncpy(l->strategy, word, sizeof l->strategy - 1);
        MB_TRY(mb_json_get_string(cut, "direction", "Right", &word));
        l->truncate_left = strcmp(word, "Left") == 0;
    }
    if (mb_json_is_set(pad)) {
        const mb_json how = mb_json_get(pad, "strategy");
        l->pad = true;
        if (mb_json_is(how, MB_JSON_OBJECT))
            MB_TRY(mb_json_get_int(how, "Fixed", 0, &l->pad_fixed));
        MB_TRY(mb_json_get_string(pad, "direction", "Right", &word));
        l->pad_left = strcmp(word, "Left") == 0;
        MB_TRY(mb_json_get_int(pad, "pad_id", 0, &id));
        l->pad_id = (int32_t)id;
        MB_TRY(mb_json_get_int(pad, "pad_type_id", 0, &id));
        l->pad_type_id = (int32_t)id;
    }
    return MB_OK;
}

static mb_status read_all(mb_tokenizer *t, mb_json root)
{
    mb_json model;

    MB_TRY(mb_json_need(root, "model", MB_JSON_OBJECT, &model));
    MB_TRY(read_model(t, model));
    const mb_json added = mb_json_get(root, "added_tokens");
    for (size_t i = 0; i < mb_json_count(added); i++)
        MB_TRY(
            read_added(mb_json_at(added, i), mb_vocab_count(t->vocab) + mb_json_count(added), t));
    MB_TRY(make_entries(t));
    MB_TRY(tok_chain_read(&tok_normalizers, mb_json_get(root, "normalizer"), t->where,
                          &t->normalizer));
    MB_TRY(tok_chain_read(&tok_pretokenizers, mb_json_get(root, "pre_tokenizer"), t->where,
                          &t->pretokenizer));
    MB_TRY(tok_chain_read(&tok_decoders, mb_json_get(root, "decoder"), t->where, &t->decoder));
    MB_TRY(tok_process_read(mb_json_get(root, "post_processor"), t->where, &t->process));
    MB_TRY(show_added(t));
    MB_TRY(tok_trie_new(t->added, t->n_added, false, &t->raw));
    MB_TRY(tok_trie_new(t->added, t->n_added, true, &t->normalized));
    const char *unknown = t->model->unknown(t->model_data);
    t->role[MB_TOKEN_UNK] = tok_find(t, unknown, strlen(unknown));
    if (t->role[MB_TOKEN_UNK] >= 0)
        t->barred[t->role[MB_TOKEN_UNK]] = 0;
    return read_limits(root, &t->limits);
}

mb_status tok_read(mb_tokenizer *t, const char *text, size_t n)
{
    uint8_t digest[MB_DIGEST_BYTES];
    mb_json_doc *doc = NULL;

    MB_TRY(mb_digest_memory(text, n, digest));
    mb_digest_hex(digest, t->sha256);
    MB_TRY(mb_json_parse(text, n, t->where, 0, MB_EMODEL, &doc));
    const mb_status st = read_all(t, mb_json_root(doc));
    mb_json_free(doc);
    return st;
}

mb_status tok_keep_file(mb_tokenizer *t, const char *name, char *text, size_t n)
{
    if (t->n_files == TOK_MAX_FILES)
        MB_BUG("a %dth file of a tokenizer", TOK_MAX_FILES + 1);
    t->file[t->n_files++] = (tok_file){name, text, n};
    return MB_OK;
}

int32_t tok_find(const mb_tokenizer *t, const char *token, size_t n)
{
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].content.n == n && memcmp(t->added[i].content.p, token, n) == 0)
            return t->added[i].id;
    return mb_vocab_find(t->vocab, token, n);
}

static const char *const role_keys[MB_TOKEN_ROLES] = {
    "bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"};
static const char *const role_id_keys[MB_TOKEN_ROLES] = {
    "bos_token_id", "eos_token_id", "pad_token_id", NULL, "sep_token_id", "cls_token_id", NULL};

/* Roles by name, as "[CLS]" or {"content": "[CLS]", ...}; a role that is known stays. */
static mb_status read_roles(mb_tokenizer *t, mb_json config)
{
    for (int r = 0; r < MB_TOKEN_ROLES; r++) {
        mb_json v = mb_json_get(config, role_keys[r]);
        const char *token;
        size_t n;
        if (mb_json_is(v, MB_JSON_OBJECT))
            v = mb_json_get(v, "content");
        if (!mb_json_is_set(v) || t->role[r] >= 0)
            continue;
        MB_TRY(mb_json_string(v, &token, &n));
        t->role[r] = tok_find(t, token, n);
        if (t->role[r] < 0)
            mb_log_warn("%s: %s \"%.60s\" is not a token", t->where, role_keys[r], token);
    }
    return MB_OK;
}

/* Roles by id (config.json, generation_config.json); of a list, the first. */
static mb_status read_role_ids(mb_tokenizer *t, mb_json config)
{
    for (int r = 0; r < MB_TOKEN_ROLES; r++) {
        mb_json v = role_id_keys[r] == NULL ? (mb_json){0} : mb_json_get(config, role_id_keys[r]);
        int64_t id;
        if (mb_json_is(v, MB_JSON_ARRAY))
            v = mb_json_at(v, 0);
        if (!mb_json_is_set(v) || t->role[r] >= 0)
            continue;
        MB_TRY(mb_json_int(v, &id));
        if (id >= 0 && id < t->n_entries && t->entry[id].token != NULL)
            t->role[r] = (int32_t)id;
    }
    return MB_OK;
}

/* "chat_template": the text, or [{"name": "default", "template": text}, ...]. */
static mb_status read_chat_template(mb_tokenizer *t, mb_json config)
{
    mb_json v = mb_json_get(config, "chat_template");
    const char *text, *name;

    if (!mb_json_is_set(v) || t->chat_template != NULL)
        return MB_OK;
    for (size_t i = 0; mb_json_is(v, MB_JSON_ARRAY) && i < mb_json_count(v); i++) {
        const mb_json item = mb_json_at(v, i);
        MB_TRY(mb_json_get_string(item, "name", "", &name));
        if (strcmp(name, "default") == 0) {
            v = mb_json_get(item, "template");
            break;
        }
    }
    if (mb_json_is(v, MB_JSON_ARRAY)) /* none of them is the default */
        return MB_OK;
    MB_TRY(mb_json_string(v, &text, NULL));
    return mb_strdup(text, &t->chat_template);
}

static mb_status read_config(mb_tokenizer *t, mb_json config)
{
    const mb_json longest = mb_json_get(config, "model_max_length");
    double n;

    MB_TRY(read_roles(t, config));
    if (mb_json_is_number(longest)) {
        MB_TRY(mb_json_real(longest, &n));
        if (n > 0 && n < 1e15) /* 1e30 is how "none" is written */
            t->max_length = (int64_t)n;
    }
    return read_chat_template(t, config);
}

/* "None" is written as the integer int(1e30), which no 64-bit reader takes. Such runs of digits,
 * outside strings, are made reals. */
static mb_status tame_integers(const char *text, size_t n, mb_bytes *out)
{
    bool in_string = false;
    size_t run = 0;

    for (size_t i = 0; i <= n; i++) {
        const char c = i < n ? text[i] : '\0';
        const bool digit = !in_string && c >= '0' && c <= '9';
        if (!digit && run >= 19 && c != '.' && c != 'e' && c != 'E')
            MB_TRY(mb_bytes_puts(out, ".0"));
        if (i == n)
            break;
        /* Digits after a point or an exponent are part of a real already. */
        const bool real = run == 0 && i > 0 && strchr(".eE+", text[i - 1]) != NULL;
        run = digit && !real ? run + 1 : 0;
        if (in_string && c == '\\' && i + 1 < n)
            MB_TRY(mb_bytes_add(out, &text[i++], 1));
        else if (c == '"')
            in_string = !in_string;
        MB_TRY(mb_bytes_add(out, &text[i], 1));
    }
    return MB_OK;
}

/* Parses one of the small files and hands its root to `use`. */
static mb_status with_config(mb_tokenizer *t, const char *name, const char *text, size_t n,
                             mb_status (*use)(mb_tokenizer *t, mb_json root))
{
    mb_bytes tame = {0};
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(tame_integers(text, n, &tame), st, done);
    MB_TRY_GOTO(mb_bytes_reserve(&tame, 1), st, done);
    MB_TRY_GOTO(mb_json_parse(tame.p, tame.n, name, 0, MB_EMODEL, &doc), st, done);
    MB_TRY_GOTO(use(t, mb_json_root(doc)), st, done);
done:
    mb_json_free(doc);
    mb_bytes_release(&tame);
    return st;
}

/* The files of a model folder that belong to its tokenizer: what each is read for. */
static const struct {
    const char *name;
    bool keep;
    mb_status (*use)(mb_tokenizer *t, mb_json root);
} beside[] = {
    {"tokenizer_config.json", true, read_config},
    {"special_tokens_map.json", true, read_roles},
    {"added_tokens.json", true, NULL},
    {"vocab.json", true, NULL},
    {"merges.txt", true, NULL},
    {"vocab.txt", true, NULL},
    {"generation_config.json", false, read_role_ids},
    {"config.json", false, read_role_ids},
};

static mb_status read_beside(mb_tokenizer *t, const char *dir)
{
    char path[MB_PATH_MAX];
    char *text;
    size_t n;

    MB_TRY(mb_path_join(path, sizeof path, dir, "chat_template.jinja"));
    if (mb_path_is_file(path)) {
        MB_TRY(mb_file_read_as(path, MB_EMODEL, MAX_CONFIG, &text, &n));
        MB_TRY(tok_keep_file(t, "chat_template.jinja", text, n));
        MB_TRY(mb_strndup(text, n, &t->chat_template));
    }
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        MB_TRY(mb_path_join(path, sizeof path, dir, beside[i].name));
        if (!mb_path_is_file(path))
            continue;
        MB_TRY(mb_file_read_as(path, MB_EMODEL, MAX_CONFIG, &text, &n));
        mb_status st = MB_OK;
        if (beside[i].use != NULL)
            st = with_config(t, path, text, n, beside[i].use);
        if (st == MB_OK && beside[i].keep)
            st = tok_keep_file(t, beside[i].name, text, n);
        else
            mb_free(text);
        MB_TRY(st);
    }
    return MB_OK;
}

/* Folders that hold a tokenizer.json or a SentencePiece file alone: the names everyone uses, if they
 * are special. */
static void guess_roles(mb_tokenizer *t, bool sentencepiece)
{
    static const struct {
        mb_token_role role;
        const char *name;
    } usual[] = {
        {MB_TOKEN_PAD, "[PAD]"},   {MB_TOKEN_CLS, "[CLS]"}, {MB_TOKEN_SEP, "[SEP]"},
        {MB_TOKEN_MASK, "[MASK]"}, {MB_TOKEN_BOS, "<s>"}, /* from here on SentencePiece's */
        {MB_TOKEN_EOS, "</s>"},    {MB_TOKEN_PAD, "<pad>"}, {MB_TOKEN_MASK, "<mask>"}};
    const size_t n = sentencepiece ? sizeof usual / sizeof *usual : 4;

    for (size_t i = 0; i < n; i++) {
        const int32_t id = tok_find(t, usual[i].name, strlen(usual[i].name));
        if (t->role[usual[i].role] < 0 && id >= 0 && t->entry[id].special)
            t->role[usual[i].role] = id;
    }
}

static mb_status load_folder(mb_tokenizer *t, const char *file)
{
    char dir[MB_PATH_MAX];
    char *text;
    size_t n;

    MB_TRY(mb_strdup(file, &t->where));
    MB_TRY(mb_file_read_as(file, MB_EMODEL, MAX_FILE, &text, &n));
    MB_TRY(tok_keep_file(t, "tokenizer.json", text, n));
    MB_TRY(tok_read(t, text, n));
    MB_TRY(mb_path_dir(dir, sizeof dir, file));
    MB_TRY(read_beside(t, dir));
    guess_roles(t, false);
    return MB_OK;
}

/* SentencePiece files a folder can have, in the order they are looked for; `target`: the one for
 * texts of the other language. */
static const struct {
    const char *name, *target;
} spm_names[] = {
    {"source.spm", "target.spm"},
    {"sentencepiece.bpe.model", NULL},
    {"spiece.model", NULL},
    {"tokenizer.model", NULL},
};

/* The file if it is there, with integers tamed; else *text stays empty. */
static mb_status read_small(const char *dir, const char *name, mb_bytes *text)
{
    char path[MB_PATH_MAX];
    char *raw;
    size_t n;

    MB_TRY(mb_path_join(path, sizeof path, dir, name));
    if (!mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_file_read_as(path, MB_EMODEL, MAX_CONFIG, &raw, &n));
    mb_status st = tame_integers(raw, n, text);
    if (st == MB_OK)
        st = mb_bytes_end(text);
    mb_free(raw);
    return st;
}

/* A SentencePiece file; `dir` NULL: by itself, its neighbours not looked at. */
static mb_status read_spm(mb_tokenizer *t, const char *path, const char *dir, const char *bytes,
                          size_t n, bool target)
{
    mb_bytes vocab = {0}, tokenizer = {0}, config = {0}, json = {0};
    tok_spm m = {0};
    mb_status st = MB_OK;

    MB_TRY_GOTO(tok_spm_read(bytes, n, path, &m), st, done);
    if (dir != NULL) {
        MB_TRY_GOTO(read_small(dir, "vocab.json", &vocab), st, done);
        MB_TRY_GOTO(read_small(dir, "tokenizer_config.json", &tokenizer), st, done);
        MB_TRY_GOTO(read_small(dir, "config.json", &config), st, done);
    }
    const tok_spm_source from = {path,    vocab.p,     tokenizer.p, config.p,
                                 vocab.n, tokenizer.n, config.n,    target};
    MB_TRY_GOTO(tok_spm_to_json(&m, &from, &json), st, done);
    MB_TRY_GOTO(tok_read(t, json.p, json.n), st, done);
    if (dir != NULL)
        MB_TRY_GOTO(read_beside(t, dir), st, done);
    guess_roles(t, true);
done:
    tok_spm_release(&m);
    mb_bytes_release(&vocab);
    mb_bytes_release(&tokenizer);
    mb_bytes_release(&config);
    mb_bytes_release(&json);
    return st;
}

static mb_status keep_spm(mb_tokenizer *t, const char *dir, const char *name)
{
    char path[MB_PATH_MAX];
    char *bytes;
    size_t n;

    MB_TRY(mb_path_join(path, sizeof path, dir, name));
    MB_TRY(mb_file_read_as(path, MB_EMODEL, MAX_FILE, &bytes, &n));
    return tok_keep_file(t, name, bytes, n);
}

/* The file of spm_names[k] in a folder, saved later as it is. */
static mb_status load_spm(mb_tokenizer *t, const char *dir, size_t k, bool target)
{
    char path[MB_PATH_MAX];
    const bool other = target && spm_names[k].target != NULL;

    MB_TRY(keep_spm(t, dir, spm_names[k].name));
    if (spm_names[k].target != NULL)
        MB_TRY(keep_spm(t, dir, spm_names[k].target));
    MB_TRY(mb_path_join(path, sizeof path, dir, other ? spm_names[k].target : spm_names[k].name));
    MB_TRY(mb_strdup(path, &t->where));
    return read_spm(t, path, dir, t->file[other].text, t->file[other].n, target);
}

/* A SentencePiece file by itself: ids are the places of its pieces. */
static mb_status load_spm_file(mb_tokenizer *t, const char *path)
{
    char *bytes;
    size_t n;

    MB_TRY(mb_strdup(path, &t->where));
    MB_TRY(mb_file_read_as(path, MB_EMODEL, MAX_FILE, &bytes, &n));
    MB_TRY(tok_keep_file(t, "tokenizer.model", bytes, n));
    return read_spm(t, path, NULL, bytes, n, false);
}

static mb_status load_gguf(mb_tokenizer *t, const char *path)
{
    mb_bytes tokenizer = {0}, config = {0};
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_strdup(path, &t->where), st, done);
    MB_TRY_GOTO(tok_from_gguf(path, &tokenizer, &config), st, done);
    MB_TRY_GOTO(tok_read(t, tokenizer.p, tokenizer.n), st, done);
    MB_TRY_GOTO(with_config(t, path, config.p, config.n, read_config), st, done);
    MB_TRY_GOTO(tok_keep_file(t, "tokenizer.json", tokenizer.p, tokenizer.n), st, done);
    tokenizer = (mb_bytes){0};
    MB_TRY_GOTO(tok_keep_file(t, "tokenizer_config.json", config.p, config.n), st, done);
    config = (mb_bytes){0};
done:
    mb_bytes_release(&tokenizer);
    mb_bytes_release(&config);
    return st;
}

/* The only .gguf in a folder. */
static mb_status find_gguf(const char *dir, char *path, size_t size)
{
    char **names = NULL;
    const char *found = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        if (!mb_path_has_suffix(names[i], ".gguf"))
            continue;
        if (found != NULL)
            st = MB_RAISE(MB_EMODEL,
                          "'%s' has no tokenizer.json and more than one .gguf file (%s, %s)", dir,
                          found, names[i]);
        found = names[i];
    }
    if (st == MB_OK && found == NULL)
        st = MB_RAISE(MB_EMODEL,
                      "'%s' has no tokenizer.json, no SentencePiece model and no .gguf file", dir);
    if (st == MB_OK)
        st = mb_path_join(path, size, dir, found);
    mb_path_list_free(names, n);
    return st;
}

static mb_status load(mb_tokenizer *t, const char *path, bool target)
{
    char file[MB_PATH_MAX];

    if (!mb_path_is_dir(path)) {
        if (mb_path_has_suffix(path, ".model") || mb_path_has_suffix(path, ".spm"))
            return load_spm_file(t, path);
        return mb_path_has_suffix(path, ".gguf") ? load_gguf(t, path) : load_folder(t, path);
    }
    MB_TRY(mb_path_join(file, sizeof file, path, "tokenizer.json"));
    if (mb_path_exists(file))
        return load_folder(t, file);
    for (size_t k = 0; k < sizeof spm_names / sizeof *spm_names; k++) {
        MB_TRY(mb_path_join(file, sizeof file, path, spm_names[k].name));
        if (mb_path_exists(file))
            return load_spm(t, path, k, target);
    }
    MB_TRY(find_gguf(path, file, sizeof file));
    return load_gguf(t, file);
}

static mb_status blank(mb_tokenizer **out)
{
    mb_tokenizer *t = NULL;

    MB_TRY(MB_NEW(&t));
    for (int r = 0; r < MB_TOKEN_ROLES; r++)
        t->role[r] = -1;
    t->max_length = -1;
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return MB_OK;
}

static mb_status load_side(const char *path, bool target, mb_tokenizer **out)
{
    mb_tokenizer *t = NULL;

    MB_TRY(blank(&t));
    const mb_status st = load(t, path, target);
    if (st != MB_OK) {
        mb_tokenizer_free(t);
        return st;
    }
    *out = t;
    return MB_OK;
}

mb_status tok_from_text(const char *text, size_t n, const char *where, mb_tokenizer **out)
{
    mb_tokenizer *t = NULL;

    MB_TRY(blank(&t));
    mb_status st = mb_strdup(where, &t->where);
    if (st == MB_OK)
        st = tok_read(t, text, n);
    if (st != MB_OK) {
        mb_tokenizer_free(t);
        return st;
    }
    *out = t;
    return MB_OK;
}

mb_status mb_tokenizer_load(const char *path, mb_tokenizer **out)
{
    return load_side(path, false, out);
}

mb_status mb_tokenizer_load_target(const char *path, mb_tokenizer **out)
{
    return load_side(path, true, out);
}
