/* What a config.json comes down to, where families of one table differ. */
#include <math.h>
#include <string.h>

#include "autograd/load.h"
#include "autograd/lora.h"
#include "autograd/model.h"
#include "core/alloc.h"
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

/* torch: cat([sin, cos]) of position * exp(-i log(10000) / (half - 1)); half is 2 here. */
static void a_new_whisper_hears_where_it_is(void **state)
{
    static const char text[] =
        "{\"model_type\": \"whisper\", \"vocab_size\": 8, \"d_model\": 4, \"encoder_layers\": 1, "
        "\"decoder_layers\": 1, \"encoder_attention_heads\": 1, \"decoder_attention_heads\": 1, "
        "\"encoder_ffn_dim\": 4, \"decoder_ffn_dim\": 4, \"max_source_positions\": 3, "
        "\"max_target_positions\": 4, \"num_mel_bins\": 2}";
    static const float want[] = {0,          0, 1,          1,       0.8414710f,  0.0001f,
                                 0.5403023f, 1, 0.9092974f, 0.0002f, -0.4161468f, 1};
    mb_json_doc *doc = NULL;
    mb_model_config c;
    mb_model *m = NULL;
    mb_flat flat = {0};
    mb_arena *run = NULL;

    (void)state;
    OK(mb_json_parse(text, strlen(text), "config.json", 0, MB_EMODEL, &doc));
    OK(mb_model_config_parse(doc, MB_HEAD_SEQ2SEQ, &c));
    OK(mb_model_new(&c, &m));
    mb_model_train_all(m);
    OK(mb_model_layout(m, &flat));
    mb_model_compute_in(m, MB_DTYPE_F32);
    OK(mb_arena_new("run", 1 << 20, &run));
    OK(mb_model_bind(m, NULL, run, &flat, false));
    OK(mb_model_init(m, 1));
    const mb_weight *w = mb_model_find(m, "model.encoder.embed_positions.weight");
    assert_non_null(w);
    for (int i = 0; i < 12; i++)
        assert_true(fabsf(mb_f32(&w->value)[i] - want[i]) < 1e-6f);
    mb_model_free(m);
    mb_free(flat.segment);
    mb_free(flat.unit);
    mb_arena_free(run);
    mb_json_free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_mt5_are_never_scaled),
        cmocka_unit_test(mt5_is_gated_unless_it_says_otherwise),
        cmocka_unit_test(longrope_of_heads_that_are_too_wide_is_refused),
        cmocka_unit_test(dora_of_a_rank_beyond_its_kernel_is_refused),
        cmocka_unit_test(a_new_whisper_hears_where_it_is),
    };

    return cmocka_run_group_tests_name("model: config", tests, NULL, NULL);
}
