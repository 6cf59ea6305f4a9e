/* recipes/serve/multipart.h - the fields of a form (RFC 7578) that lies in memory.
 *
 * Values are borrowed from the body. At most MB_FORM_FIELDS; names and file names of at most 127 bytes,
 * heads of at most 4 KiB. */
#ifndef MB_RECIPES_SERVE_MULTIPART_H
#define MB_RECIPES_SERVE_MULTIPART_H

#include "core/status.h"

enum { MB_FORM_FIELDS = 32, MB_FORM_NAME = 128 };

typedef struct mb_form_field {
    char name[MB_FORM_NAME], file[MB_FORM_NAME]; /* file: "" for a field that is none */
    const char *value;
    size_t n;
} mb_form_field;

typedef struct mb_form {
    mb_form_field field[MB_FORM_FIELDS];
    int n;
} mb_form;

/* `type`: the Content-Type header, or NULL. MB_EARG says what is wrong. */
mb_status mb_form_parse(const char *type, const char *body, size_t n, mb_form *out) MB_MUST_USE;
const mb_form_field *mb_form_find(const mb_form *f, const char *name); /* NULL: there is none */

#endif
