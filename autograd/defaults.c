/* autograd/defaults.c - what transformers takes for keys that a config.json does not have, where that is
 * peculiar to a family. A key that is null is there, and means none.
 *
 * Widths and counts of layers, heads and tokens are never guessed: without them a model is refused.
 * tests/peers/config_defaults.py holds this against transformers' configuration classes.
 */
#include <string.h>

#include "autograd/load.h"

static const struct {
    const char *model_type, *key;
    int64_t value;
} defaults[] = {
    {"mistral", "num_key_value_heads", 8},
    {"mistral", "max_position_embeddings", 131072},
    {"mistral", "sliding_window", 4096},
    {"qwen2", "num_key_value_heads", 32},
    {"qwen2", "max_position_embeddings", 32768},
    {"qwen2", "sliding_window", 4096},
    {"qwen3", "num_key_value_heads", 32},
    {"qwen3", "max_position_embeddings", 32768},
    {"qwen3", "sliding_window", 4096},
    {"smollm3", "num_key_value_heads", 4},
    {"smollm3", "max_position_embeddings", 32768},
    {"smollm3", "rope_theta", 2000000},
    {"phi3", "original_max_position_embeddings", 4096},
    {"gemma3_text", "num_key_value_heads", 4},
};

mb_status mb_config_defaults(const char *model_type, mb_json config)
{
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (strcmp(defaults[i].model_type, model_type) == 0 &&
            mb_json_is(mb_json_get(config, defaults[i].key), MB_JSON_ABSENT))
            MB_TRY(mb_json_set_int(config, defaults[i].key, defaults[i].value));
    return MB_OK;
}
