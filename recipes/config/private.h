/* recipes/config/private.h - what a recipe keeps besides its fields. Internal to recipes/config/. */
#ifndef MB_RECIPES_CONFIG_PRIVATE_H
#define MB_RECIPES_CONFIG_PRIVATE_H

#include "core/arena.h"
#include "recipes/config/schema.h"

struct mb_recipe_origin {
    bool given;
    const char *where;
};

struct mb_recipe_own {
    mb_arena *arena;
    struct mb_recipe_origin key[MB_N_KEYS];
};

/* A recipe that was in order once: types and names are checked, how keys fit together is not. */
mb_status mb_recipe_load_stored(const char *name, const char *text, mb_recipe **out) MB_MUST_USE;

#endif
