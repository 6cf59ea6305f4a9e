/* recipes/serve/fault.h - what is wrong with a request besides the sentence of its MB_EARG: status and
 * OpenAI's code and param. All zero: 400, no code, no param. */
#ifndef MB_RECIPES_SERVE_FAULT_H
#define MB_RECIPES_SERVE_FAULT_H

#include <stdio.h>

#include "core/status.h"

typedef struct mb_fault {
    int status;       /* 0: 400 */
    const char *code; /* "model_not_found"; NULL */
    char param[64];   /* ""; "messages" */
} mb_fault;

/* For `return mb_fault_set(f, ...), MB_RAISE(...)`. */
static inline void mb_fault_set(mb_fault *f, int status, const char *code, const char *param)
{
    f->status = status;
    f->code = code;
    snprintf(f->param, sizeof f->param, "%s", param != NULL ? param : "");
}

#endif
