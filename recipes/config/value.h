/* recipes/config/value.h - from a YAML value to a typed field, and back. Internal to
 * recipes/config/. */
#ifndef MB_RECIPES_CONFIG_VALUE_H
#define MB_RECIPES_CONFIG_VALUE_H

#include "recipes/config/schema.h"
#include "recipes/config/text.h"
#include "recipes/config/yaml.h"

/* Writes the value into the field of `base` (mb_recipe or mb_dataset_spec). `as` is the name it
 * was given under. MB_EARG: place, name, what was found, what was expected. */
mb_status mb_value_read(mb_arena *a, const mb_key *k, const char *as, const mb_yaml *y,
                        void *base) MB_MUST_USE;
/* The default of a key. */
mb_status mb_value_default(mb_arena *a, const mb_key *k, void *base) MB_MUST_USE;

/* The value as YAML that stands after "key:"; blocks are indented by `indent`. A key that was not
 * given, and has no default, is null. */
void mb_value_write(const mb_key *k, const void *base, bool given, int indent, mb_text *out);

#endif
