/* recipes/data/template_names.h - chat templates that come with the program: the files of
 * recipes/data/templates, which the build makes into a table. */
#ifndef MB_RECIPES_DATA_TEMPLATE_NAMES_H
#define MB_RECIPES_DATA_TEMPLATE_NAMES_H

struct mb_template_named {
    const char *name, *text;
};

extern const char mb_template_names[];                /* "alpaca, chatml, ..." */
extern const struct mb_template_named mb_templates[]; /* ends with a NULL name */

#endif
