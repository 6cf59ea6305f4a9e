/* tests/unit/test_jobs.c - what the server's jobs make of settings and files that are not as they should
 * be; whole runs are in tests/cli/test_jobs.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/alloc.h"
#include "recipes/config/recipe.h"
#include "recipes/serve/jobs_inside.h"

/* Files of /sys say that they have 4096 bytes and end before: reading to their length fails. */
static void test_tail_of_a_file_that_ends_early(void **state)
{
    static const char *const files[] = {"/sys/devices/system/cpu/online",
                                        "/sys/kernel/uevent_seqnum", "/sys/power/state"};
    const int64_t before = mb_alloc_live();
    int tried = 0;

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *text = NULL;
        size_t n;

        if (!mb_path_is_file(files[i]))
            continue;
        assert_int_equal(mb_jobs_tail(files[i], 65536, &text, &n), MB_EIO);
        assert_null(text); /* callers free it in any case */
        mb_status_clear();
        tried++;
    }
    assert_true(tried > 0);
    assert_int_equal(mb_alloc_live(), before);
}

static void refuse(const char *name, const char *value)
{
    char *text = NULL;

    if (mb_recipe_check_stranger(name, value, &text) != MB_EARG)
        fail_msg("%s=%s is let through", name, value);
    assert_null(text);
    mb_status_clear();
}

static void take(const char *name, const char *value, const char *expected)
{
    char *text = NULL;

    if (mb_recipe_check_stranger(name, value, &text) != MB_OK)
        fail_msg("%s=%s: %s", name, value, mb_status_sentence());
    if (expected == NULL)
        assert_null(text);
    else
        assert_string_equal(text, expected);
    mb_free(text);
}

static void test_strangers(void **state)
{
    (void)state;
    refuse("datasets", "x");
    refuse("train_file.0", "x");
    refuse("dataset.data_files.0.path", "x");
    refuse("tokenizer.prompt_template.x", "{{ a }}");
    refuse("system_prompt", "${env:HOME}");
    refuse("system_prompt", "\"\\x24{env:HOME}\"");
    refuse("metrics", "[a, \"$\\u007benv:HOME}\"]");
    refuse("chat_template_kwargs.x", "'${output_dir}'");
    take("system_prompt", "a $ {b} 'c'", NULL);
    take("max_length", "64", NULL);
    take("lr_scheduler_kwargs.power", "2", NULL);
    take("no_such_key.0", "x", NULL); /* the recipe's reader says more */
    take("template", "'chat\"ml'", "chat\"ml");
    take("chat_template", "\"\\x2fetc\\x2fpasswd\"", "/etc/passwd"); /* as it will be read */
    take("chat_template", "[a]", "[a]");
    take("chat_template", "null", NULL);
    take("chat_template", "{{ a }}", "{{ a }}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tail_of_a_file_that_ends_early),
        cmocka_unit_test(test_strangers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
