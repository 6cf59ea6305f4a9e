/* What a config.json comes down to, where families of one table differ. */
#include <math.h>
#include <string.h>

#include "autograd/model.h"
#include "tests/unit/data_test.h"

static mb_model_config parsed(const char *type, const char *more)
{
    mb_json_doc *doc = NULL;
    mb_model_config c;
    char text[512];

    snprintf(text, sizeof text,
             "{\"model_type\": \"%s\", \"vocab_size\": 40, \"d_model\": 16, \"d_kv\": 4, "
             "\"d_ff\": 32, \"num_layers\": 2, \"num_heads\": 4, \"pad_token_id\": 0%s}",
             type, more);
    OK(mb_json_parse(text, strlen(text), "config.json", 0, MB_EMODEL, &doc));
    OK(mb_model_config_parse(doc, MB_HEAD_SEQ2SEQ, &c));
    mb_json_free(doc);
    return c;
}

/* As transformers 5 has it, which writes tie_word_embeddings of true into every such file. */
static void logits_of_mt5_are_never_scaled(void **state)
{
    (void)state;
    assert_true(parsed("t5", "").logit_scale == 0.25f);
    assert_true(parsed("t5", ", \"tie_word_embeddings\": true").logit_scale == 0.25f);
    assert_true(parsed("t5", ", \"tie_word_embeddings\": false").logit_scale == 0.0f);
    assert_true(parsed("t5", ", \"scale_decoder_outputs\": false").logit_scale == 0.0f);
    assert_true(parsed("mt5", "").logit_scale == 0.0f);
    assert_true(parsed("mt5", ", \"tie_word_embeddings\": true").logit_scale == 0.0f);
    assert_true(parsed("mt5", ", \"tie_word_embeddings\": true").tied);
}

static void mt5_is_gated_unless_it_says_otherwise(void **state)
{
    (void)state;
    assert_false(parsed("t5", "").gated);
    assert_true(parsed("t5", "").activation == MB_ACT_RELU);
    assert_true(parsed("mt5", "").gated);
    assert_true(parsed("mt5", "").activation == MB_ACT_GELU_TANH);
    assert_false(parsed("mt5", ", \"feed_forward_proj\": \"relu\"").gated);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_mt5_are_never_scaled),
        cmocka_unit_test(mt5_is_gated_unless_it_says_otherwise),
    };

    return cmocka_run_group_tests_name("model: config", tests, NULL, NULL);
}
