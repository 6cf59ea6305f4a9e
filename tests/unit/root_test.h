/* tests/unit/root_test.h - a folder of a test's own. */
#ifndef MB_TESTS_UNIT_ROOT_TEST_H
#define MB_TESTS_UNIT_ROOT_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "core/path.h"
#include "tests/check.h"

static char root[32];

static inline int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/mb_test_XXXXXX");
    return mkdtemp(root) == NULL;
}

static inline int remove_root(void **state)
{
    (void)state;
    return mb_path_remove_tree(root) != MB_OK;
}

/* A path in it, good until the next call but three. */
static inline const char *in_root(const char *name)
{
    static char out[4][MB_PATH_MAX];
    static int turn;
    char *p = out[turn++ % 4];

    OK(mb_path_join(p, MB_PATH_MAX, root, name));
    return p;
}

/* A file in it with this text, and the folders above the file. */
static inline void put_in_root(const char *name, const char *text)
{
    const char *path = in_root(name);
    char dir[MB_PATH_MAX];

    OK(mb_path_dir(dir, sizeof dir, path));
    OK(mb_path_mkdirs(dir));
    OK(mb_file_write_atomic(path, text, strlen(text)));
}

#endif
