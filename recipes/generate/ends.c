/* recipes/generate/ends.c - see recipes/generate/ends.h. */
#include "recipes/generate/ends.h"

#include "core/formats/gguf.h"
#include "core/json.h"
#include "core/path.h"

enum { MOST_CONFIG_BYTES = 1 << 24 };

static mb_status add(mb_ids *ends, int64_t id)
{
    for (size_t i = 0; i < ends->n; i++)
        if (ends->id[i] == id)
            return MB_OK;
    return id >= 0 && id <= INT32_MAX ? mb_ids_push(ends, (int32_t)id) : MB_OK;
}

/* "eos_token_id": an id, a list of ids, or nothing. */
static mb_status add_of(const char *model, const char *file, mb_ids *ends)
{
    mb_json_doc *doc = NULL;
    char path[MB_PATH_MAX];
    int64_t id;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, model, file));
    if (!mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_EMODEL, MOST_CONFIG_BYTES, &doc));
    const mb_json value = mb_json_get(mb_json_root(doc), "eos_token_id");
    if (mb_json_is(value, MB_JSON_ARRAY)) {
        for (mb_json_it it = mb_json_first(value); mb_json_more(&it); mb_json_next(&it)) {
            MB_TRY_GOTO(mb_json_int(it.value, &id), st, done);
            MB_TRY_GOTO(add(ends, id), st, done);
        }
    } else if (mb_json_is_set(value)) {
        MB_TRY_GOTO(mb_json_int(value, &id), st, done);
        st = add(ends, id);
    }
done:
    mb_json_free(doc);
    return st;
}

static mb_status add_of_gguf(const char *model, mb_ids *ends)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id"};
    mb_tensor_file *f;
    int64_t id;
    mb_status st = MB_OK;

    MB_TRY(mb_tensor_file_open(model, &f));
    const mb_gguf *g = mb_tensor_file_gguf(f);
    for (size_t i = 0; g != NULL && i < sizeof keys / sizeof keys[0] && st == MB_OK; i++) {
        st = mb_gguf_opt_i64(g, keys[i], -1, &id);
        if (st == MB_OK)
            st = add(ends, id);
    }
    mb_tensor_file_close(f);
    return st;
}

mb_status mb_answer_ends(const char *model, const mb_tokenizer *t, const mb_chat *chat,
                         mb_ids *ends)
{
    char config[MB_PATH_MAX];
    int32_t turn[2];

    MB_TRY(mb_path_join(config, sizeof config, model, "config.json"));
    if (mb_path_is_file(config)) {
        MB_TRY(add_of(model, "generation_config.json", ends));
        MB_TRY(add_of(model, "config.json", ends));
    } else {
        MB_TRY(add_of_gguf(model, ends));
    }
    MB_TRY(add(ends, mb_tokenizer_role(t, MB_TOKEN_EOS)));
    const int n = chat != NULL ? mb_chat_stops(chat, turn) : 0;
    for (int i = 0; i < n; i++)
        MB_TRY(add(ends, turn[i]));
    return MB_OK;
}
