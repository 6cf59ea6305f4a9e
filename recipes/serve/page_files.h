/* recipes/serve/page_files.h - the page's files and the ready recipes, which the build makes into a
 * table. */
#ifndef MB_RECIPES_SERVE_PAGE_FILES_H
#define MB_RECIPES_SERVE_PAGE_FILES_H

#include <stddef.h>

typedef struct mb_page_file {
    const char *name;  /* "page.js", "chat-lora.yaml" */
    const char *plain; /* as it is, with a zero byte after it */
    size_t n_plain;
    const char *packed; /* by gzip */
    size_t n_packed;
} mb_page_file;

extern const mb_page_file mb_page_files[]; /* ends with a NULL name */

#endif
