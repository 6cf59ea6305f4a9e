/* test_hf_folder.c - config.json, generation_config.json, tokenizer files and the card. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/export/hf_folder.h"
#include "tests/unit/root_test.h"

static mb_json_doc *doc;

static int drop_root(void **state)
{
    mb_json_free(doc);
    doc = NULL;
    return remove_root(state);
}

static mb_json parsed(const char *text)
{
    mb_json_free(doc);
    assert_int_equal(mb_json_parse(text, strlen(text), "test", 0, MB_EMODEL, &doc), MB_OK);
    return mb_json_root(doc);
}

static mb_json read_back(const char *name)
{
    char path[MB_PATH_MAX];

    mb_json_free(doc);
    assert_int_equal(mb_path_join(path, sizeof path, root, name), MB_OK);
    assert_int_equal(mb_json_read(path, MB_EMODEL, 1 << 20, &doc), MB_OK);
    return mb_json_root(doc);
}

static const char *word(mb_json object, const char *key)
{
    const char *s = NULL;

    assert_int_equal(mb_json_get_string(object, key, "", &s), MB_OK);
    return s;
}

static double real(mb_json object, const char *key)
{
    double v;

    assert_int_equal(mb_json_get_real(object, key, -1, &v), MB_OK);
    return v;
}

static void edits_change_only_what_they_name(void **state)
{
    const mb_hf_edits edits = {.dtype = "bfloat16", .architecture = "LlamaForCausalLM"};
    mb_json c;

    assert_int_equal(
        mb_hf_write_config(root,
                           parsed("{\"model_type\":\"llama\",\"architectures\":[\"X\"],"
                                  "\"dtype\":\"float32\",\"hidden_size\":64,"
                                  "\"own_key\":{\"a\":[1,null]},\"quantization_config\":{},"
                                  "\"_name_or_path\":\"/home/x\",\"rms_norm_eps\":1e-05}"),
                           &edits),
        MB_OK);
    c = read_back("config.json");
    assert_string_equal(word(c, "dtype"), "bfloat16");
    assert_string_equal(word(c, "torch_dtype"), "bfloat16");
    assert_int_equal(mb_json_count(mb_json_get(c, "architectures")), 1);
    assert_true(real(c, "hidden_size") == 64 && real(c, "rms_norm_eps") == 1e-5);
    assert_int_equal(mb_json_count(mb_json_get(mb_json_get(c, "own_key"), "a")), 2);
    assert_true(mb_json_is(mb_json_get(c, "quantization_config"), MB_JSON_ABSENT));
    assert_true(mb_json_is(mb_json_get(c, "_name_or_path"), MB_JSON_ABSENT));
    assert_true(mb_json_is(mb_json_get(c, "rope_parameters"), MB_JSON_ABSENT));
    assert_true(mb_json_is(mb_json_get(c, "id2label"), MB_JSON_ABSENT));
}

static void the_rotation_is_said_in_both_forms(void **state)
{
    const mb_hf_edits none = {0};
    mb_json c, p;

    assert_int_equal(
        mb_hf_write_config(root,
                           parsed("{\"rope_theta\":100000.0,\"rope_scaling\":{\"type\":\"llama3\","
                                  "\"factor\":8.0}}"),
                           &none),
        MB_OK);
    p = mb_json_get(read_back("config.json"), "rope_parameters");
    assert_true(real(p, "rope_theta") == 1e5 && real(p, "factor") == 8.0);
    assert_string_equal(word(p, "rope_type"), "llama3");

    assert_int_equal(
        mb_hf_write_config(root,
                           parsed("{\"rope_parameters\":{\"rope_theta\":5e5,\"rope_type\":"
                                  "\"llama3\",\"factor\":8.0}}"),
                           &none),
        MB_OK);
    c = read_back("config.json");
    assert_true(real(c, "rope_theta") == 5e5);
    assert_string_equal(word(mb_json_get(c, "rope_scaling"), "rope_type"), "llama3");
    assert_true(
        mb_json_is(mb_json_get(mb_json_get(c, "rope_scaling"), "rope_theta"), MB_JSON_ABSENT));

    assert_int_equal(
        mb_hf_write_config(
            root, parsed("{\"rope_parameters\":{\"rope_theta\":1e4,\"rope_type\":\"default\"}}"),
            &none),
        MB_OK);
    c = read_back("config.json");
    assert_true(real(c, "rope_theta") == 1e4);
    assert_true(mb_json_is(mb_json_get(c, "rope_scaling"), MB_JSON_ABSENT));
}

static void a_rotation_by_layer_is_said_in_both_forms(void **state)
{
    const mb_hf_edits none = {0};
    mb_json c, p;

    assert_int_equal(mb_hf_write_config(root,
                                        parsed("{\"rope_theta\":1e6,\"rope_local_base_freq\":1e4,"
                                               "\"rope_scaling\":{\"rope_type\":\"linear\","
                                               "\"factor\":8.0}}"),
                                        &none),
                     MB_OK);
    p = mb_json_get(read_back("config.json"), "rope_parameters");
    assert_true(real(mb_json_get(p, "full_attention"), "rope_theta") == 1e6);
    assert_true(real(mb_json_get(p, "full_attention"), "factor") == 8.0);
    assert_string_equal(word(mb_json_get(p, "full_attention"), "rope_type"), "linear");
    assert_true(real(mb_json_get(p, "sliding_attention"), "rope_theta") == 1e4);
    assert_string_equal(word(mb_json_get(p, "sliding_attention"), "rope_type"), "default");

    assert_int_equal(
        mb_hf_write_config(root,
                           parsed("{\"rope_parameters\":{\"full_attention\":{\"rope_type\":"
                                  "\"linear\",\"factor\":8.0,\"rope_theta\":1e6},"
                                  "\"sliding_attention\":{\"rope_theta\":1e4}}}"),
                           &none),
        MB_OK);
    c = read_back("config.json");
    assert_true(real(c, "rope_theta") == 1e6 && real(c, "rope_local_base_freq") == 1e4);
    p = mb_json_get(c, "rope_scaling");
    assert_true(real(p, "factor") == 8.0);
    assert_true(mb_json_is(mb_json_get(p, "rope_theta"), MB_JSON_ABSENT));
}

static void labels_go_both_ways(void **state)
{
    static const char *const names[] = {"hasi", "chanya"};
    const mb_hf_edits edits = {.num_labels = 2, .label = names}, standard = {.num_labels = 3};
    mb_json c;

    assert_int_equal(mb_hf_write_config(root, parsed("{\"id2label\":{\"0\":\"x\"}}"), &edits),
                     MB_OK);
    c = read_back("config.json");
    assert_int_equal(mb_json_count(mb_json_get(c, "id2label")), 2);
    assert_string_equal(word(mb_json_get(c, "id2label"), "1"), "chanya");
    assert_true(real(mb_json_get(c, "label2id"), "hasi") == 0);
    assert_int_equal(mb_hf_write_config(root, parsed("{}"), &standard), MB_OK);
    assert_string_equal(word(mb_json_get(read_back("config.json"), "id2label"), "2"), "LABEL_2");
}

static void a_folder_has_the_files_of_its_base(void **state)
{
    static const mb_card card = {.title = "t"};
    const char *base = MB_TEST_DATA "/reference/llama";
    char path[MB_PATH_MAX], out[MB_PATH_MAX];
    mb_json_doc *config;
    mb_hf_folder f = {.base_dir = base, .edits = {.dtype = "float32"}, .card = &card};

    assert_int_equal(mb_path_join(path, sizeof path, base, "config.json"), MB_OK);
    assert_int_equal(mb_json_read(path, MB_EMODEL, 1 << 20, &config), MB_OK);
    f.config = mb_json_root(config);
    assert_int_equal(mb_path_join(out, sizeof out, root, "a/b"), MB_OK);
    assert_int_equal(mb_hf_write_folder(out, &f), MB_OK);
    mb_json_free(config);
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"config.json", "generation_config.json",
                                            "tokenizer.json", "README.md"};

        assert_int_equal(mb_path_join(path, sizeof path, out, names[i]), MB_OK);
        assert_true(mb_path_is_file(path));
    }
}

static mb_status tokenizer_from_elsewhere(void *ctx, const char *dir)
{
    *(int *)ctx += strcmp(dir, root) == 0;
    return MB_OK;
}

static void without_a_folder_the_token_ids_come_from_the_config(void **state)
{
    int called = 0;
    mb_hf_folder f = {.config = parsed("{\"bos_token_id\":1,\"eos_token_id\":[2,3],"
                                       "\"architectures\":[\"GPT2LMHeadModel\"]}"),
                      .write_tokenizer = tokenizer_from_elsewhere,
                      .tokenizer_ctx = &called};
    mb_json g;

    assert_int_equal(mb_hf_write_folder(root, &f), MB_OK);
    assert_int_equal(called, 1);
    g = read_back("generation_config.json");
    assert_true(real(g, "bos_token_id") == 1);
    assert_int_equal(mb_json_count(mb_json_get(g, "eos_token_id")), 2);
    assert_true(mb_json_is(mb_json_get(g, "pad_token_id"), MB_JSON_ABSENT));
}

static void an_encoder_has_no_generation_settings(void **state)
{
    mb_hf_folder f = {.config = parsed("{\"architectures\":[\"BertForMaskedLM\"]}")};
    char path[MB_PATH_MAX];

    assert_int_equal(mb_hf_write_folder(root, &f), MB_OK);
    assert_int_equal(mb_path_join(path, sizeof path, root, "generation_config.json"), MB_OK);
    assert_false(mb_path_exists(path));
}

static void a_card_is_facts_with_front_matter(void **state)
{
    static const char *const language[] = {"sw", "en", NULL};
    static const char *const datasets[] = {"it's here", NULL};
    static const mb_card_row training[] = {{"learning_rate", "0.0002"}, {"a|b", "c\nd"}, {0}};
    const mb_card card = {.title = "sw-lora",
                          .base_model = "org/Base-1.5",
                          .library_name = "peft",
                          .pipeline_tag = "text-generation",
                          .license = "apache-2.0",
                          .language = language,
                          .datasets = datasets,
                          .training = training};
    char *text;

    assert_int_equal(mb_card_text(&card, &text), MB_OK);
    assert_string_equal(text, "---\nbase_model: 'org/Base-1.5'\ndatasets:\n- 'it''s here'\n"
                              "language:\n- 'sw'\n- 'en'\nlibrary_name: 'peft'\n"
                              "license: 'apache-2.0'\npipeline_tag: 'text-generation'\n"
                              "tags:\n- 'mbuyu'\n- 'lora'\n- 'transformers'\n"
                              "- 'base_model:adapter:org/Base-1.5'\n---\n\n# sw-lora\n\n"
                              "Made from `org/Base-1.5` with mbuyu " MB_VERSION ".\n"
                              "\n## Training\n\n| | |\n|---|---|\n| learning_rate | 0.0002 |\n"
                              "| a\\|b | c d |\n");
    mb_free(text);
}

static void a_path_is_no_hub_id(void **state)
{
    static const char *const paths[] = {"./base", "/data/base", "a/b/c", "base/model.gguf", "a b"};

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        const mb_card card = {.base_model = paths[i], .library_name = "transformers"};
        char *text;

        assert_int_equal(mb_card_text(&card, &text), MB_OK);
        assert_null(strstr(text, "base_model:"));
        assert_non_null(strstr(text, paths[i]));
        mb_free(text);
    }
}

int main(void)
{
#define IN_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, drop_root)
    const struct CMUnitTest tests[] = {
        IN_ROOT(edits_change_only_what_they_name),
        IN_ROOT(the_rotation_is_said_in_both_forms),
        IN_ROOT(a_rotation_by_layer_is_said_in_both_forms),
        IN_ROOT(labels_go_both_ways),
        IN_ROOT(a_folder_has_the_files_of_its_base),
        IN_ROOT(without_a_folder_the_token_ids_come_from_the_config),
        IN_ROOT(an_encoder_has_no_generation_settings),
        cmocka_unit_test(a_card_is_facts_with_front_matter),
        cmocka_unit_test(a_path_is_no_hub_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
