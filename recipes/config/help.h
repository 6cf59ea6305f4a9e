/* recipes/config/help.h - the recipe's keys as a reference, generated from recipe.def. */
#ifndef MB_RECIPES_CONFIG_HELP_H
#define MB_RECIPES_CONFIG_HELP_H

#include "recipes/config/schema.h"

/* Sections as a set of bits, 1 << MB_SECTION_x. */
enum { MB_SECTIONS_ALL = (1 << MB_SECTION_COUNT) - 1 };

/* Name, default, meaning and what is accepted, for a terminal of 100 columns. */
void mb_keys_print(unsigned sections, FILE *out);
/* These keys, names apart by blanks, as mb_keys_print shows them. */
void mb_keys_print_some(const char *names, FILE *out);
/* What one name means: a key, another trainer's name for one, or why there is none. False: no such
 * name. */
bool mb_name_explain(const char *name, FILE *out);
/* The same as Markdown tables, with the keys of a dataset's block and other trainers' names. */
void mb_keys_print_markdown(FILE *out);

#endif
