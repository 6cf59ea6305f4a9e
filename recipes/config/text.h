/* recipes/config/text.h - a text that grows. The first failure is kept and ends all growth, so that
 * many additions need one check:
 *
 *     mb_text t = {0};
 *     mb_text_add(&t, "%s: %d\n", name, n);
 *     MB_TRY(mb_text_take(&t, &out));       // the caller owns *out; on failure t is released
 */
#ifndef MB_RECIPES_CONFIG_TEXT_H
#define MB_RECIPES_CONFIG_TEXT_H

#include <stddef.h>

#include "core/status.h"

typedef struct mb_text {
    char *s;
    size_t n, capacity;
    mb_status st;
} mb_text;

void mb_text_add(mb_text *t, const char *fmt, ...) MB_PRINTF(2, 3);
/* One scalar as YAML: plain where that reads back as the same text, else in double quotes. */
void mb_text_add_yaml(mb_text *t, const char *value);
/* A number with the fewest digits that read back as the same, always with a '.'. */
void mb_text_add_num(mb_text *t, double v);
mb_status mb_text_take(mb_text *t, char **out) MB_MUST_USE;
void mb_text_release(mb_text *t);

#endif
