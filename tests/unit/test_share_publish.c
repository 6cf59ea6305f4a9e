/* tests/unit/test_share_publish.c - a cache that several machines write: who is second has it too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "recipes/train/share.h"

static void who_is_second_has_it_too(void **state)
{
    static const struct {
        const char *there; /* under the name, from another machine */
        bool taken;        /* and it took our temporary file away */
        mb_status want;
    } rows[] = {{NULL, false, MB_OK},
                {"other", false, MB_OK},
                {"other", true, MB_OK},
                {"wrong size", true, MB_EIO},
                {NULL, true, MB_EIO}};
    char dir[] = "/tmp/mb_share_XXXXXX", path[MB_PATH_MAX];
    mb_newfile f;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(path, sizeof path, "%s/%zu", dir, i);
        assert_int_equal(mb_newfile_open(path, &f), MB_OK);
        assert_int_equal(mb_pwrite_all(f.fd, "ours!", 5, 0, path), MB_OK);
        if (rows[i].there != NULL)
            assert_int_equal(mb_file_write_atomic(path, rows[i].there, strlen(rows[i].there)),
                             MB_OK);
        if (rows[i].taken)
            assert_int_equal(unlink(f.temporary), 0);
        assert_int_equal(mb_share_publish(&f, 5), rows[i].want);
        mb_newfile_abandon(&f);
        mb_status_clear();
        assert_int_equal(mb_path_exists(path), rows[i].there != NULL || !rows[i].taken);
    }
    assert_int_equal(mb_path_remove_tree(dir), MB_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_is_second_has_it_too)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
