/* recipes/config/resume.c - which keys a resumed run may have changed (last column of recipe.def).
 *
 * Values are compared as they are printed, so 1e-4 and 0.0001 are the same, and a key that was not
 * given equals its default.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/config/private.h"
#include "recipes/config/value.h"

static mb_status value_text(const mb_recipe *r, int k, char **text)
{
    mb_text t = {0};

    mb_value_write(&mb_recipe_keys[k], r, r->own->key[k].given, 0, &t);
    return mb_text_take(&t, text);
}

static bool is_unset(const mb_recipe *r, int k)
{
    return !r->own->key[k].given ||
           (mb_recipe_keys[k].type == MB_TYPE_INT &&
            *(const int64_t *)((const char *)r + mb_recipe_keys[k].offset) == 0);
}

/* One key: adds a line to `refused` or `changed` where it differs. */
static mb_status compare_key(const mb_recipe *old, mb_recipe *now, int k, mb_text *refused,
                             mb_text *changed)
{
    const mb_key *key = &mb_recipe_keys[k];
    char *was = NULL, *is = NULL;
    mb_status st;

    MB_TRY_GOTO(value_text(old, k, &was), st, done);
    if (key->resume == MB_RESUME_ADOPT && is_unset(now, k) && !is_unset(old, k))
        MB_TRY_GOTO(mb_recipe_set(now, key->name, was, "the checkpoint"), st, done);
    MB_TRY_GOTO(value_text(now, k, &is), st, done);
    if (strcmp(was, is) == 0 || key->resume == MB_RESUME_IGNORE)
        goto done;
    if (key->resume == MB_RESUME_MAY)
        mb_text_add(changed, "%s: %s, was %s\n", key->name, is, was);
    else if (key->resume != MB_RESUME_ADOPT || !is_unset(now, k))
        mb_text_add(refused, "%s%s is %s (%s), was %s", refused->n > 0 ? "; " : "", key->name, is,
                    mb_recipe_where(now, key->name), was);
done:
    mb_free(was);
    mb_free(is);
    return st;
}

mb_status mb_recipe_compare_for_resume(const char *old_name, const char *old_text, mb_recipe *now,
                                       char **changes)
{
    mb_text refused = {0}, changed = {0};
    mb_recipe *old = NULL;
    mb_status st;

    *changes = NULL;
    MB_TRY_GOTO(mb_recipe_load_stored(old_name, old_text, &old), st, done);
    for (int k = 0; k < MB_N_KEYS; k++)
        MB_TRY_GOTO(compare_key(old, now, k, &refused, &changed), st, done);
    if (refused.n > 0) {
        st = MB_RAISE(MB_EARG,
                      "the recipe differs from the checkpoint's (%s) where it must not: %s; set "
                      "them back, or start a new run in another output_dir",
                      old_name, refused.s);
        goto done;
    }
    if (changed.n > 0)
        st = mb_text_take(&changed, changes);
done:
    mb_text_release(&refused);
    mb_text_release(&changed);
    mb_recipe_free(old);
    return st;
}
