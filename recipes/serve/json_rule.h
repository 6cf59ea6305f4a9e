/* recipes/serve/json_rule.h - is what has been written so far the beginning of a JSON object?
 *
 * A value of 80 bytes that takes one byte after the other; copies try what could come next. White space
 * between values is at most 20 bytes at a time: a model must not fill its answer with it.
 */
#ifndef MB_RECIPES_SERVE_JSON_RULE_H
#define MB_RECIPES_SERVE_JSON_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MB_JSON_RULE_DEPTH = 48 };

typedef struct mb_json_rule {
    uint8_t state, depth, spaces, more; /* more: bytes that a character or a \u still has */
    bool key;                           /* the string is a member's name */
    const char *literal;                /* what is left of true, false, null */
    char open[MB_JSON_RULE_DEPTH];      /* '{' and '[' */
} mb_json_rule;

void mb_json_rule_begin(mb_json_rule *r);
/* False: these bytes cannot come next; *r is then of no use. */
bool mb_json_rule_take(mb_json_rule *r, const char *p, size_t n);
bool mb_json_rule_complete(const mb_json_rule *r);

#endif
