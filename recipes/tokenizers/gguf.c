/* recipes/tokenizers/gguf.c - the tokenizer of a GGUF file, written as a tokenizer.json.
 *
 * GGUF keeps tokens, merges and a name for the way text is cut (tokenizer.ggml.pre); what the name
 * means is known to programs only. The table below says it in tokenizer.json's words; a name that
 * is not in it is refused, because a wrong cut changes ids without any other sign.
 *
 * SentencePiece vocabularies ("llama": its BPE, "t5": its unigram) are written as transformers
 * converts their .model files. BPE has scores instead of merges: a token is the merge of every two
 * tokens that make it up, tokens of a higher score first.
 *
 * BERT vocabularies are stored with U+2581 before the tokens that begin a word and no "##" before
 * the others; that is undone here.
 */
#include "core/formats/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/tokenizers/model.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

#define BYTES(regex)                                                                                \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":" regex \
    "}"
#define SPLIT(regex)                                                                       \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\"," \
    "\"invert\":false}"
#define STEPS(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"

#define GPT2        BYTES("true")
#define DIGITS_GPT2 STEPS("{\"type\":\"Digits\",\"individual_digits\":true}," BYTES("true"))
#define LLAMA3(digits)                                                                  \
    STEPS(SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" \
                "\\\\p{N}" digits "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"          \
                "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") "," BYTES("false"))
#define DEFAULT                                                                        \
    STEPS(SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|]+") "," SPLIT(                      \
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|" \
        "\\\\s+(?!\\\\S)") "," SPLIT("\\\\p{N}+") "," SPLIT("[0-9][0-9][0-9]") "," BYTES("false"))
#define NFC "{\"type\":\"NFC\"}"

const tok_way tok_ways[] = {
    {"default", "null", DEFAULT, false, false},
    {"gpt-2", "null", GPT2, false, false},
    {"phi-2", "null", GPT2, false, false},
    {"smollm", "null", DIGITS_GPT2, false, false},
    {"starcoder", "null", DIGITS_GPT2, false, false},
    {"refact", "null", DIGITS_GPT2, false, false},
    {"llama-bpe", "null", LLAMA3("{1,3}"), true, true},
    {"llama3", "null", LLAMA3("{1,3}"), true, true},
    {"llama-v3", "null", LLAMA3("{1,3}"), true, true},
    {"qwen2", NFC, LLAMA3(""), false, false},
    {"deepseek-r1-qwen", NFC, LLAMA3(""), false, false},
    {"dbrx", "null", LLAMA3("{1,3}"), false, false},
    {"smaug-bpe", "null", LLAMA3("{1,3}"), false, false},
};
const size_t tok_n_ways = sizeof tok_ways / sizeof *tok_ways;

static const char byte_decoder[] =
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}";

/* What is read from the file before anything is written. */
struct source {
    const char *path;
    mb_gguf *g;
    mb_gguf_array token, type, merge, score;
    bool typed;
    int64_t role[MB_TOKEN_ROLES]; /* ids, -1: none */
    bool add_bos, add_eos;
    mb_bytes *out;
};

static const char *const role_keys[MB_TOKEN_ROLES] = {
    "tokenizer.ggml.bos_token_id",       "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.padding_token_id",   "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id"};
static const char *const role_names[MB_TOKEN_ROLES] = {
    "bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"};

static int64_t type_of(const struct source *s, uint64_t i)
{
    return s->typed ? mb_gguf_int_at(&s->type, i) : NORMAL;
}

static mb_status read_source(struct source *s)
{
    MB_TRY(mb_gguf_strings(s->g, "tokenizer.ggml.tokens", &s->token));
    MB_REQUIRE(s->token.n > 0 && s->token.n < INT32_MAX, MB_EMODEL,
               "%s: tokenizer.ggml.tokens has %llu entries", s->path,
               (unsigned long long)s->token.n);
    s->typed = mb_gguf_has(s->g, "tokenizer.ggml.token_type");
    if (s->typed) {
        MB_TRY(mb_gguf_ints(s->g, "tokenizer.ggml.token_type", &s->type));
        MB_REQUIRE(s->type.n == s->token.n, MB_EMODEL,
                   "%s: tokenizer.ggml.token_type has %llu entries for %llu tokens", s->path,
                   (unsigned long long)s->type.n, (unsigned long long)s->token.n);
    }
    for (int r = 0; r < MB_TOKEN_ROLES; r++) {
        MB_TRY(mb_gguf_opt_i64(s->g, role_keys[r], -1, &s->role[r]));
        MB_REQUIRE(s->role[r] < (int64_t)s->token.n, MB_EMODEL,
                   "%s: %s is %lld, but there are %llu tokens", s->path, role_keys[r],
                   (long long)s->role[r], (unsigned long long)s->token.n);
    }
    return MB_OK;
}

static mb_status put(struct source *s, const char *text)
{
    return mb_bytes_puts(s->out, text);
}

/* The token of id i as tokenizer.json has it, as a JSON string. */
typedef mb_status (*put_token)(struct source *s, uint64_t i);

static mb_status put_plain(struct source *s, uint64_t i)
{
    size_t n;
    const char *token = mb_gguf_string_at(&s->token, i, &n);

    return mb_bytes_json(s->out, token, n);
}

static const char word_mark[] = "\xe2\x96\x81";

static mb_status put_wordpiece(struct source *s, uint64_t i)
{
    size_t n;
    const char *token = mb_gguf_string_at(&s->token, i, &n);
    const size_t mark = sizeof word_mark - 1;
    mb_bytes whole = {0};

    if (n > mark && memcmp(token, word_mark, mark) == 0)
        return mb_bytes_json(s->out, token + mark, n - mark);
    const int64_t type = type_of(s, i);
    if (type == CONTROL || type == UNKNOWN || (n > 2 && token[0] == '[' && token[n - 1] == ']'))
        return mb_bytes_json(s->out, token, n);
    mb_status st = mb_bytes_puts(&whole, "##");
    if (st == MB_OK)
        st = mb_bytes_add(&whole, token, n);
    if (st == MB_OK)
        st = mb_bytes_json(s->out, whole.p, whole.n);
    mb_bytes_release(&whole);
    return st;
}

static mb_status put_added(struct source *s, put_token token)
{
    bool first = true;

    MB_TRY(put(s, "\"added_tokens\":["));
    for (uint64_t i = 0; i < s->token.n; i++) {
        const int64_t type = type_of(s, i);
        bool named = false; /* [UNK] and the like are special even when only typed as unknown */
        for (int r = 0; r < MB_TOKEN_ROLES; r++)
            named = named || (type == UNKNOWN && s->role[r] == (int64_t)i);
        if (type != CONTROL && type != USER_DEFINED && !named)
            continue;
        MB_TRY(mb_bytes_printf(s->out, "%s\n{\"id\":%llu,\"content\":", first ? "" : ",",
                               (unsigned long long)i));
        MB_TRY(token(s, i));
        MB_TRY(put(s, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                      "\"normalized\":false,\"special\":"));
        MB_TRY(put(s, type == USER_DEFINED ? "false}" : "true}"));
        first = false;
    }
    return put(s, "],\n");
}

static mb_status put_vocab(struct source *s, put_token token)
{
    MB_TRY(put(s, "\"vocab\":{"));
    for (uint64_t i = 0; i < s->token.n; i++) {
        MB_TRY(put(s, i == 0 ? "\n" : ",\n"));
        MB_TRY(token(s, i));
        MB_TRY(mb_bytes_printf(s->out, ":%llu", (unsigned long long)i));
    }
    return put(s, "}");
}

/* {"SpecialToken":{"id":"[CLS]","type_id":0}} */
static mb_status put_special(struct source *s, int64_t id, int type, put_token token)
{
    MB_TRY(put(s, "{\"SpecialToken\":{\"id\":"));
    MB_TRY(token(s, (uint64_t)id));
    return mb_bytes_printf(s->out, ",\"type_id\":%d}}", type);
}

/* before A after [before2 B after]: ids of special tokens, -1 for none. */
static mb_status put_template(struct source *s, int64_t before, int64_t after, int64_t before2,
                              int type2, put_token token)
{
    bool first = true;

    MB_TRY(put(s, "\"post_processor\":"));
    if (before < 0 && after < 0)
        return put(s, "null,\n");
    MB_TRY(put(s, "{\"type\":\"TemplateProcessing\""));
    for (int pair = 0; pair < 2; pair++) {
        MB_TRY(put(s, pair ? ",\"pair\":[" : ",\"single\":["));
        for (int k = 0; k <= pair; k++) {
            const int64_t open = k == 0 ? before : before2;
            const int type = k == 0 ? 0 : type2;
            if (k > 0)
                MB_TRY(put(s, ","));
            if (open >= 0) {
                MB_TRY(put_special(s, open, type, token));
                MB_TRY(put(s, ","));
            }
            MB_TRY(mb_bytes_printf(s->out, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":%d}}",
                                   k == 0 ? 'A' : 'B', type));
            if (after >= 0) {
                MB_TRY(put(s, ","));
                MB_TRY(put_special(s, after, type, token));
            }
        }
        MB_TRY(put(s, "]"));
    }
    MB_TRY(put(s, ",\"special_tokens\":{"));
    for (int k = 0; k < 2; k++) {
        const int64_t id = k == 0 ? before : after;
        if (id < 0 || (k == 1 && id == before))
            continue;
        MB_TRY(put(s, first ? "" : ","));
        MB_TRY(token(s, (uint64_t)id));
        MB_TRY(put(s, ":{\"id\":"));
        MB_TRY(token(s, (uint64_t)id));
        MB_TRY(mb_bytes_printf(s->out, ",\"ids\":[%lld],\"tokens\":[", (long long)id));
        MB_TRY(token(s, (uint64_t)id));
        MB_TRY(put(s, "]}"));
        first = false;
    }
    return put(s, "}},\n");
}

static mb_status write_bpe(struct source *s)
{
    const char *name;
    const tok_way *way = NULL;

    if (!mb_gguf_has(s->g, "tokenizer.ggml.pre"))
        mb_log_warn("%s: no tokenizer.ggml.pre; text is cut in the \"default\" way, which can "
                    "differ from the model's own",
                    s->path);
    MB_TRY(mb_gguf_opt_string(s->g, "tokenizer.ggml.pre", "default", &name));
    for (size_t i = 0; i < tok_n_ways; i++)
        if (strcmp(name, tok_ways[i].name) == 0)
            way = &tok_ways[i];
    MB_REQUIRE(way != NULL, MB_ENOTSUP, "%s: the pre-tokenizer \"%.60s\" is not supported", s->path,
               name);
    MB_TRY(mb_gguf_strings(s->g, "tokenizer.ggml.merges", &s->merge));
    MB_TRY(mb_gguf_opt_bool(s->g, "tokenizer.ggml.add_bos_token", way->add_bos, &s->add_bos));
    MB_TRY(mb_gguf_opt_bool(s->g, "tokenizer.ggml.add_eos_token", false, &s->add_eos));

    MB_TRY(put(s, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n"));
    MB_TRY(put_added(s, put_plain));
    MB_TRY(put(s, "\"normalizer\":"));
    MB_TRY(put(s, way->normalizer));
    MB_TRY(put(s, ",\n\"pre_tokenizer\":"));
    MB_TRY(put(s, way->pre_tokenizer));
    MB_TRY(put(s, ",\n"));
    const int64_t bos = s->add_bos ? s->role[MB_TOKEN_BOS] : -1;
    MB_TRY(put_template(s, bos, s->add_eos ? s->role[MB_TOKEN_EOS] : -1, bos, 1, put_plain));
    MB_TRY(put(s, "\"decoder\":"));
    MB_TRY(put(s, byte_decoder));
    MB_TRY(put(s, ",\n\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                  "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                  "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":"));
    MB_TRY(put(s, way->ignore_merges ? "true,\n" : "false,\n"));
    MB_TRY(put_vocab(s, put_plain));
    MB_TRY(put(s, ",\n\"merges\":["));
    for (uint64_t i = 0; i < s->merge.n; i++) {
        size_t n;
        const char *merge = mb_gguf_string_at(&s->merge, i, &n);
        MB_TRY(put(s, i == 0 ? "\n" : ",\n"));
        MB_TRY(mb_bytes_json(s->out, merge, n));
    }
    return put(s, "]}}\n");
}

#define MARK "\xe2\x96\x81"

/* A merge of the tokens left and right into one with this score. */
struct made {
    double score;
    uint32_t left, right;
};

static int higher_first(const void *x, const void *y)
{
    const struct made *a = x, *b = y;

    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->left != b->left)
        return a->left < b->left ? -1 : 1;
    return (a->right > b->right) - (a->right < b->right);
}

static mb_status read_scores(struct source *s)
{
    MB_TRY(mb_gguf_reals(s->g, "tokenizer.ggml.scores", &s->score));
    MB_REQUIRE(s->score.n == s->token.n, MB_EMODEL,
               "%s: tokenizer.ggml.scores has %llu entries for %llu tokens", s->path,
               (unsigned long long)s->score.n, (unsigned long long)s->token.n);
    if (s->role[MB_TOKEN_UNK] < 0) /* what older files leave out */
        for (uint64_t i = 0; i < s->token.n && s->role[MB_TOKEN_UNK] < 0; i++)
            s->role[MB_TOKEN_UNK] = type_of(s, i) == UNKNOWN ? (int64_t)i : -1;
    MB_REQUIRE(s->role[MB_TOKEN_UNK] >= 0, MB_EMODEL, "%s: there is no unknown token", s->path);
    return MB_OK;
}

static bool can_join(const struct source *s, uint64_t i)
{
    const int64_t type = type_of(s, i);
    return type == NORMAL || type == USER_DEFINED;
}

static mb_status find_merges(const struct source *s, const mb_vocab *ids, struct made **made,
                             size_t *n_made, size_t *capacity)
{
    for (uint64_t i = 0; i < s->token.n; i++) {
        size_t n;
        const char *token = mb_gguf_string_at(&s->token, i, &n);
        for (size_t k = 1; can_join(s, i) && k < n && n <= TOK_MAX_TOKEN_BYTES; k++) {
            if (((unsigned char)token[k] & 0xc0) == 0x80)
                continue;
            const int32_t left = mb_vocab_find(ids, token, k);
            const int32_t right = left < 0 ? -1 : mb_vocab_find(ids, token + k, n - k);
            if (right < 0)
                continue;
            MB_TRY(mb_grow((void **)made, capacity, *n_made + 1, sizeof **made, "merges"));
            (*made)[(*n_made)++] =
                (struct made){mb_gguf_real_at(&s->score, i), (uint32_t)left, (uint32_t)right};
        }
    }
    return MB_OK;
}

static mb_status put_merges(struct source *s)
{
    struct made *made = NULL;
    size_t n_made = 0, capacity = 0, n;
    mb_vocab *ids = NULL;
    mb_status st = MB_OK;
    bool added;

    MB_TRY(mb_vocab_new(s->token.n, &ids));
    for (uint64_t i = 0; i < s->token.n; i++) {
        const char *token = mb_gguf_string_at(&s->token, i, &n);
        if (can_join(s, i))
            MB_TRY_GOTO(mb_vocab_add(ids, token, n, (int32_t)i, &added), st, done);
    }
    MB_TRY_GOTO(find_merges(s, ids, &made, &n_made, &capacity), st, done);
    if (n_made > 0)
        qsort(made, n_made, sizeof *made, higher_first);
    for (size_t i = 0; i < n_made; i++) {
        MB_TRY_GOTO(put(s, i == 0 ? "\n[" : ",\n["), st, done);
        MB_TRY_GOTO(put_plain(s, made[i].left), st, done);
        MB_TRY_GOTO(put(s, ","), st, done);
        MB_TRY_GOTO(put_plain(s, made[i].right), st, done);
        MB_TRY_GOTO(put(s, "]"), st, done);
    }
done:
    mb_free(made);
    mb_vocab_free(ids);
    return st;
}

static mb_status begin_spm(struct source *s, bool bos, bool eos)
{
    MB_TRY(read_scores(s));
    MB_TRY(mb_gguf_opt_bool(s->g, "tokenizer.ggml.add_bos_token", bos, &s->add_bos));
    MB_TRY(mb_gguf_opt_bool(s->g, "tokenizer.ggml.add_eos_token", eos, &s->add_eos));
    MB_TRY(put(s, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n"));
    MB_TRY(put_added(s, put_plain));
    const int64_t first = s->add_bos ? s->role[MB_TOKEN_BOS] : -1;
    return put_template(s, first, s->add_eos ? s->role[MB_TOKEN_EOS] : -1, first, 0, put_plain);
}

#define REPLACE(from, to) \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" from "\"},\"content\":\"" to "\"}"

static mb_status write_llama(struct source *s)
{
    bool prefix;

    MB_TRY(mb_gguf_opt_bool(s->g, "tokenizer.ggml.add_space_prefix", true, &prefix));
    MB_TRY(begin_spm(s, true, false));
    MB_TRY(put(s, prefix ? "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
                           "{\"type\":\"Prepend\",\"prepend\":\"" MARK
                           "\"}," REPLACE(" ", MARK) "]}"
                         : "\"normalizer\":" REPLACE(" ", MARK)));
    MB_TRY(put(
        s, ",\n\"pre_tokenizer\":null,\n\"decoder\":{\"type\":\"Sequence\",\"decoders\":[" REPLACE(
               MARK, " ") ",{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}"));
    MB_TRY(put(s, prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},\n"
                         : "]},\n"));
    MB_TRY(put(s, "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"continuing_subword_prefix\":null,"
                  "\"end_of_word_suffix\":null,\"fuse_unk\":true,\"byte_fallback\":true,"
                  "\"ignore_merges\":false,\"unk_token\":"));
    MB_TRY(put_plain(s, (uint64_t)s->role[MB_TOKEN_UNK]));
    MB_TRY(put(s, ",\n"));
    MB_TRY(put_vocab(s, put_plain));
    MB_TRY(put(s, ",\n\"merges\":["));
    MB_TRY(put_merges(s));
    return put(s, "]}}\n");
}

static mb_status put_charsmap(struct source *s)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    mb_gguf_array map;
    mb_bytes bytes = {0};
    mb_status st = MB_OK;

    if (!mb_gguf_has(s->g, key))
        return put(s, "null");
    MB_TRY(mb_gguf_ints(s->g, key, &map));
    for (uint64_t i = 0; i < map.n; i++) {
        const char byte = (char)mb_gguf_int_at(&map, i);
        MB_TRY_GOTO(mb_bytes_add(&bytes, &byte, 1), st, done);
    }
    MB_TRY_GOTO(put(s, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\""), st, done);
    MB_TRY_GOTO(mb_bytes_base64(s->out, bytes.p, bytes.n), st, done);
    st = put(s, "\"}");
done:
    mb_bytes_release(&bytes);
    return st;
}

static mb_status write_t5(struct source *s)
{
    bool prefix, shrink;

    MB_TRY(mb_gguf_opt_bool(s->g, "tokenizer.ggml.add_space_prefix", true, &prefix));
    MB_TRY(mb_gguf_opt_bool(s->g, "tokenizer.ggml.remove_extra_whitespaces", true, &shrink));
    MB_TRY(begin_spm(s, false, true));
    MB_TRY(put(s, "\"normalizer\":"));
    MB_TRY(put_charsmap(s));
    const char *scheme = prefix ? "\"always\"" : "\"never\"";
    MB_TRY(put(s, ",\n\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["));
    MB_TRY(put(s, shrink ? "{\"type\":\"WhitespaceSplit\"}," : ""));
    MB_TRY(mb_bytes_printf(s->out,
                           "{\"type\":\"Metaspace\",\"replacement\":\"" MARK
                           "\",\"prepend_scheme\":%s,\"split\":true}]},\n\"decoder\":{\"type\":"
                           "\"Metaspace\",\"replacement\":\"" MARK
                           "\",\"prepend_scheme\":%s,\"split\":true},\n",
                           scheme, scheme));
    MB_TRY(mb_bytes_printf(s->out,
                           "\"model\":{\"type\":\"Unigram\",\"byte_fallback\":false,"
                           "\"unk_id\":%lld,\"vocab\":[",
                           (long long)s->role[MB_TOKEN_UNK]));
    for (uint64_t i = 0; i < s->token.n; i++) {
        MB_TRY(put(s, i == 0 ? "\n[" : ",\n["));
        MB_TRY(put_plain(s, i));
        MB_TRY(mb_bytes_printf(s->out, ",%.17g]", mb_gguf_real_at(&s->score, i)));
    }
    return put(s, "]}}\n");
}

static int64_t find_token(const struct source *s, const char *what)
{
    for (uint64_t i = 0; i < s->token.n; i++) {
        size_t n;
        const char *token = mb_gguf_string_at(&s->token, i, &n);
        if (n == strlen(what) && memcmp(token, what, n) == 0)
            return (int64_t)i;
    }
    return -1;
}

/* A cased vocabulary has words with capital letters; nothing else in the file says so. */
static bool is_cased(const struct source *s)
{
    for (uint64_t i = 0; i < s->token.n; i++) {
        size_t n;
        const char *token = mb_gguf_string_at(&s->token, i, &n);
        if (type_of(s, i) != NORMAL || (n > 0 && token[0] == '['))
            continue;
        for (size_t k = 0; k < n; k++)
            if (token[k] >= 'A' && token[k] <= 'Z')
                return true;
    }
    return false;
}

static mb_status write_bert(struct source *s)
{
    static const struct {
        mb_token_role role, or_role;
        const char *name;
    } needed[] = {{MB_TOKEN_CLS, MB_TOKEN_BOS, "[CLS]"},
                  {MB_TOKEN_SEP, MB_TOKEN_EOS, "[SEP]"},
                  {MB_TOKEN_UNK, MB_TOKEN_UNK, "[UNK]"}};

    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        int64_t *id = &s->role[needed[i].role];
        if (*id < 0)
            *id = s->role[needed[i].or_role];
        if (*id < 0)
            *id = find_token(s, needed[i].name);
        MB_REQUIRE(*id >= 0, MB_EMODEL, "%s: there is no %s token", s->path, needed[i].name);
    }
    const char *lower = is_cased(s) ? "false" : "true";
    MB_TRY(put(s, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n"));
    MB_TRY(put_added(s, put_wordpiece));
    MB_TRY(
        mb_bytes_printf(s->out,
                        "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
                        "\"handle_chinese_chars\":true,\"strip_accents\":null,"
                        "\"lowercase\":%s},\n\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\n",
                        lower));
    MB_TRY(put_template(s, s->role[MB_TOKEN_CLS], s->role[MB_TOKEN_SEP], -1, 1, put_wordpiece));
    MB_TRY(put(s, "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\n"
                  "\"model\":{\"type\":\"WordPiece\",\"unk_token\":"));
    MB_TRY(put_wordpiece(s, (uint64_t)s->role[MB_TOKEN_UNK]));
    MB_TRY(put(s, ",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,\n"));
    MB_TRY(put_vocab(s, put_wordpiece));
    return put(s, "}}\n");
}

static mb_status write_config(struct source *s, put_token token)
{
    const char *arch, *template;
    char key[96];
    int64_t longest;

    MB_TRY(put(s, "{\n\"tokenizer_class\":\"PreTrainedTokenizerFast\",\n"
                  "\"clean_up_tokenization_spaces\":false"));
    for (int r = 0; r < MB_TOKEN_ROLES; r++) {
        if (s->role[r] < 0)
            continue;
        MB_TRY(mb_bytes_printf(s->out, ",\n\"%s\":", role_names[r]));
        MB_TRY(token(s, (uint64_t)s->role[r]));
    }
    MB_TRY(mb_gguf_opt_string(s->g, "general.architecture", "", &arch));
    snprintf(key, sizeof key, "%.64s.context_length", arch);
    MB_TRY(mb_gguf_opt_i64(s->g, key, -1, &longest));
    if (longest > 0)
        MB_TRY(mb_bytes_printf(s->out, ",\n\"model_max_length\":%lld", (long long)longest));
    MB_TRY(mb_gguf_opt_string(s->g, "tokenizer.chat_template", "", &template));
    if (*template != '\0') {
        MB_TRY(put(s, ",\n\"chat_template\":"));
        MB_TRY(mb_bytes_json(s->out, template, strlen(template)));
    }
    return put(s, "\n}\n");
}

static const struct kind {
    const char *model;
    mb_status (*write)(struct source *s);
    put_token token;
} kinds[] = {
    {"gpt2", write_bpe, put_plain},
    {"llama", write_llama, put_plain},
    {"t5", write_t5, put_plain},
    {"bert", write_bert, put_wordpiece},
};

static mb_status translate(struct source *s, mb_bytes *tokenizer, mb_bytes *config)
{
    const char *model;

    MB_TRY(mb_gguf_string(s->g, "tokenizer.ggml.model", &model, NULL));
    MB_TRY(read_source(s));
    const struct kind *kind = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(model, kinds[i].model) == 0)
            kind = &kinds[i];
    MB_REQUIRE(kind != NULL, MB_ENOTSUP, "%s: the tokenizer model \"%.60s\" is not supported",
               s->path, model);
    s->out = tokenizer;
    MB_TRY(kind->write(s));
    s->out = config;
    return write_config(s, kind->token);
}

mb_status tok_from_gguf(const char *path, mb_bytes *tokenizer, mb_bytes *config)
{
    struct source s = {.path = path};
    int64_t size;
    int fd;

    MB_TRY(mb_file_open(path, MB_EMODEL, &fd, &size));
    mb_status st = mb_gguf_open(path, fd, size, &s.g);
    close(fd);
    if (st == MB_OK)
        st = translate(&s, tokenizer, config);
    mb_gguf_free(s.g);
    return st;
}
