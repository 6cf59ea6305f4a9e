/* recipes/config/print.c - a recipe as canonical YAML, and its digest. */
#include <string.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "recipes/config/private.h"
#include "recipes/config/value.h"

/* "lr_scheduler_kwargs.min_lr": the block's line before the first of its keys. */
static int begin_key(const mb_key *key, const char **block, mb_text *t)
{
    const char *dot = strchr(key->name, '.');

    if (dot == NULL) {
        *block = NULL;
        mb_text_add(t, "%s:", key->name);
        return 0;
    }
    if (*block == NULL)
        mb_text_add(t, "%.*s:\n", (int)(dot - key->name), key->name);
    *block = key->name;
    mb_text_add(t, "  %s:", dot + 1);
    return 2;
}

static int64_t n_blocks(const mb_key *key, const mb_recipe *r)
{
    return ((const mb_datasets *)((const char *)r + key->offset))->n;
}

mb_status mb_recipe_text(const mb_recipe *r, bool all, char **text)
{
    const char *block = NULL;
    int section = -1;
    mb_text t = {0};

    for (int k = 0; k < MB_N_KEYS; k++) {
        const mb_key *key = &mb_recipe_keys[k];
        const bool given = r->own->key[k].given;
        int indent;

        if (!all && !given)
            continue;
        if (all && (int)key->section != section) {
            mb_text_add(&t, "%s# %s\n", section >= 0 ? "\n" : "", mb_section_title[key->section]);
            block = NULL;
        }
        section = (int)key->section;
        indent = begin_key(key, &block, &t);
        mb_text_add(&t, "%s", key->type == MB_TYPE_DATASETS && n_blocks(key, r) > 0 ? "" : " ");
        mb_value_write(key, r, given, indent, &t);
        mb_text_add(&t, "\n");
    }
    return mb_text_take(&t, text);
}

mb_status mb_recipe_print(const mb_recipe *r, bool all, FILE *out)
{
    char *text;

    MB_TRY(mb_recipe_text(r, all, &text));
    fputs(text, out);
    mb_free(text);
    return MB_OK;
}

mb_status mb_recipe_print_where(const mb_recipe *r, FILE *out)
{
    for (int k = 0; k < MB_N_KEYS; k++) {
        mb_text value = {0};
        char *text;

        if (!r->own->key[k].given)
            continue;
        if (mb_recipe_keys[k].type == MB_TYPE_DATASETS)
            mb_text_add(&value, "%lld block(s)", (long long)n_blocks(&mb_recipe_keys[k], r));
        else
            mb_value_write(&mb_recipe_keys[k], r, true, 0, &value);
        MB_TRY(mb_text_take(&value, &text));
        fprintf(out, "%-32s %-24s %s\n", mb_recipe_keys[k].name, r->own->key[k].where, text);
        mb_free(text);
    }
    return MB_OK;
}

mb_status mb_recipe_digest(const mb_recipe *r, char hex[65])
{
    uint8_t digest[MB_DIGEST_BYTES];
    char *text;
    mb_status st;

    MB_TRY(mb_recipe_text(r, true, &text));
    st = mb_digest_memory(text, strlen(text), digest);
    mb_free(text);
    MB_TRY(st);
    mb_digest_hex(digest, hex);
    return MB_OK;
}
