/* What a config.json comes down to, where families of one table differ. */
#include <math.h>
#include <string.h>

#include "autograd/lora.h"
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

/* Phi-3 with heads of `width` and as many factors as these have pairs. */
static mb_status parse_longrope(int width, mb_model_config *c)
{
    enum { SIZE = 1 << 14 };
    char *text = malloc(SIZE);
    mb_json_doc *doc = NULL;
    int n;

    assert_non_null(text);
    n = snprintf(text, SIZE,
                 "{\"model_type\": \"phi3\", \"vocab_size\": 40, \"hidden_size\": %d, "
                 "\"intermediate_size\": 32, \"num_hidden_layers\": 1, \"num_attention_heads\": 1, "
                 "\"original_max_position_embeddings\": 64, \"rope_scaling\": {\"type\": "
                 "\"longrope\", \"short_factor\": [1.5",
                 width);
    for (int i = 1; i < width / 2; i++)
        n += snprintf(text + n, (size_t)(SIZE - n), ", 1.5");
    n += snprintf(text + n, (size_t)(SIZE - n), "]}}");
    assert_true(n < SIZE);
    OK(mb_json_parse(text, (size_t)n, "config.json", 0, MB_EMODEL, &doc));
    free(text);
    const mb_status st = mb_model_config_parse(doc, MB_HEAD_CAUSAL_LM, c);
    mb_json_free(doc);
    return st;
}

static void longrope_of_heads_that_are_too_wide_is_refused(void **state)
{
    mb_model_config c;

    (void)state;
    OK(parse_longrope(256, &c));
    assert_true(c.rope.divisor[127] == 1.5f);
    assert_int_equal(parse_longrope(258, &c), MB_ENOTSUP);
    mb_status_clear();
    assert_int_equal(parse_longrope(4096, &c), MB_ENOTSUP);
    mb_status_clear();
}

static void dora_of_a_rank_beyond_its_kernel_is_refused(void **state)
{
    static const char *const target[] = {"q"};
    mb_lora_options o = {.r = 1025, .alpha = 8, .dora = true, .targets = target, .n_targets = 1};
    const mb_model_config c = parsed("t5", "");
    mb_model *m = NULL;

    (void)state;
    OK(mb_model_new(&c, &m));
    assert_int_equal(mb_model_add_lora(m, &o), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "use_dora"));
    mb_status_clear();
    o.r = 1024;
    OK(mb_model_add_lora(m, &o));
    mb_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_mt5_are_never_scaled),
        cmocka_unit_test(mt5_is_gated_unless_it_says_otherwise),
        cmocka_unit_test(longrope_of_heads_that_are_too_wide_is_refused),
        cmocka_unit_test(dora_of_a_rank_beyond_its_kernel_is_refused),
    };

    return cmocka_run_group_tests_name("model: config", tests, NULL, NULL);
}
