/* tests/unit/data_test.h - tokenizers made on the spot, for the tests of recipes/data. */
#ifndef MB_TESTS_UNIT_DATA_TEST_H
#define MB_TESTS_UNIT_DATA_TEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/tokenizers/tokenizer.h"
#include "tests/unit/root_test.h"

/* A file in the test's folder; its path is good until the next call but three. */
static inline const char *write_file(const char *name, const char *text, size_t n)
{
    static char path[4][MB_PATH_MAX];
    static int at;
    char *p = path[at++ % 4];

    snprintf(p, MB_PATH_MAX, "%s/%s", root, name);
    OK(mb_file_write_atomic(p, text, n));
    return p;
}

/* The byte-level tokenizer of tests/data/templates with these BOS and EOS tokens (NULL: none) and
 * chat template (NULL: none). */
static inline mb_tokenizer *make_tokenizer(const char *bos, const char *eos, const char *chat)
{
    char *text, *config, dir[200];
    mb_tokenizer *t = NULL;
    mb_json_doc *doc;
    size_t n;

    snprintf(dir, sizeof dir, "%s/tokenizer", root);
    OK(mb_path_remove_tree(dir));
    OK(mb_path_mkdirs(dir));
    OK(mb_file_read(MB_TEST_DATA "/templates/tokenizer.json", 1 << 20, &text, &n));
    write_file("tokenizer/tokenizer.json", text, n);
    mb_free(text);
    OK(mb_json_doc_new("config", &doc));
    if (bos != NULL)
        OK(mb_json_set_string(mb_json_root(doc), "bos_token", bos));
    if (eos != NULL)
        OK(mb_json_set_string(mb_json_root(doc), "eos_token", eos));
    if (chat != NULL)
        OK(mb_json_set_string(mb_json_root(doc), "chat_template", chat));
    OK(mb_json_text(mb_json_root(doc), 2, &config, &n));
    write_file("tokenizer/tokenizer_config.json", config, n);
    mb_free(config);
    mb_json_free(doc);
    OK(mb_tokenizer_load(dir, &t));
    return t;
}

#endif
