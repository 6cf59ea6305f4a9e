/* recipes/export/sentence_files.c - see recipes/export/sentence_files.h. */
#include "recipes/export/sentence_files.h"

#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"

enum { MOST_BYTES = 1 << 20 };

static const char modules[] = "[\n"
                              "  {\"idx\": 0, \"name\": \"0\", \"path\": \"\", \"type\": "
                              "\"sentence_transformers.models.Transformer\"},\n"
                              "  {\"idx\": 1, \"name\": \"1\", \"path\": \"1_Pooling\", \"type\": "
                              "\"sentence_transformers.models.Pooling\"}\n"
                              "]\n";

/* Opens base/name; *doc stays NULL when it is not there. */
static mb_status open_json(const char *base, const char *name, mb_json_doc **doc)
{
    char path[MB_PATH_MAX];

    *doc = NULL;
    MB_TRY(mb_path_join(path, sizeof path, base, name));
    return mb_path_is_file(path) ? mb_json_read(path, MB_EMODEL, MOST_BYTES, doc) : MB_OK;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);

    return n >= k && strcmp(s + n - k, end) == 0;
}

static mb_status check_modules(mb_json list)
{
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        const char *type;

        MB_TRY(mb_json_get_string(it.value, "type", "", &type));
        if (!ends_with(type, ".Transformer") && !ends_with(type, ".Pooling") &&
            !ends_with(type, ".Normalize"))
            return mb_json_fault(it.value,
                                 "is a %s; of an embedder's modules only Transformer, "
                                 "Pooling and Normalize are supported",
                                 type);
    }
    return MB_OK;
}

/* Files name each way of pooling, or the one way in pooling_mode. */
static mb_status check_pooling(mb_json root)
{
    const char *mode;
    bool mean;

    MB_TRY(mb_json_get_string(root, "pooling_mode", "mean", &mode));
    MB_TRY(mb_json_get_bool(root, "pooling_mode_mean_tokens", true, &mean));
    if (!mean || strcmp(mode, "mean") != 0)
        return mb_json_fault(root, "does not say that the model's vectors are means over tokens, "
                                   "which is what task embedding trains");
    return MB_OK;
}

mb_status mb_sentence_files_check(const char *path)
{
    static const struct {
        const char *name;
        mb_status (*check)(mb_json root);
    } files[] = {{"modules.json", check_modules}, {"1_Pooling/config.json", check_pooling}};

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        mb_json_doc *doc;
        mb_status st;

        MB_TRY(open_json(path, files[i].name, &doc));
        st = doc != NULL ? files[i].check(mb_json_root(doc)) : MB_OK;
        mb_json_free(doc);
        MB_TRY(st);
    }
    return MB_OK;
}

static mb_status copy(const char *dir, const char *base, const char *name, bool *found)
{
    char from[MB_PATH_MAX], to[MB_PATH_MAX], *text;
    mb_status st;
    size_t n;

    *found = false;
    if (base == NULL)
        return MB_OK;
    MB_TRY(mb_path_join(from, sizeof from, base, name));
    MB_TRY(mb_path_join(to, sizeof to, dir, name));
    if (!mb_path_is_file(from))
        return MB_OK;
    *found = true;
    MB_TRY(mb_file_read_as(from, MB_EMODEL, MOST_BYTES, &text, &n));
    st = mb_file_write_atomic(to, text, n);
    mb_free(text);
    return st;
}

static mb_status write_text(const char *dir, const char *name, const char *text)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, dir, name));
    return mb_file_write_atomic(path, text, strlen(text));
}

static mb_status write_pooling(const char *dir, int64_t width)
{
    char *text = NULL;
    mb_status st;

    MB_TRY(mb_asprintf(&text,
                       "{\n  \"word_embedding_dimension\": %lld,\n"
                       "  \"pooling_mode_cls_token\": false,\n"
                       "  \"pooling_mode_mean_tokens\": true,\n"
                       "  \"pooling_mode_max_tokens\": false,\n"
                       "  \"pooling_mode_mean_sqrt_len_tokens\": false\n}\n",
                       (long long)width));
    st = write_text(dir, "1_Pooling/config.json", text);
    mb_free(text);
    return st;
}

static mb_status write_length(const char *dir, int64_t max_length)
{
    char *text = NULL;
    mb_status st;

    MB_TRY(mb_asprintf(&text, "{\n  \"max_seq_length\": %lld,\n  \"do_lower_case\": false\n}\n",
                       (long long)max_length));
    st = write_text(dir, "sentence_bert_config.json", text);
    mb_free(text);
    return st;
}

mb_status mb_sentence_files_write(const char *dir, const char *base, int64_t width,
                                  int64_t max_length)
{
    char pooling[MB_PATH_MAX];
    bool found;

    MB_TRY(mb_path_join(pooling, sizeof pooling, dir, "1_Pooling"));
    MB_TRY(mb_path_mkdirs(pooling));
    MB_TRY(copy(dir, base, "config_sentence_transformers.json", &found));
    MB_TRY(copy(dir, base, "modules.json", &found));
    if (!found)
        MB_TRY(write_text(dir, "modules.json", modules));
    MB_TRY(copy(dir, base, "1_Pooling/config.json", &found));
    if (!found)
        MB_TRY(write_pooling(dir, width));
    MB_TRY(copy(dir, base, "sentence_bert_config.json", &found));
    return found ? MB_OK : write_length(dir, max_length);
}
