/* recipes/tokenizers/regex.h - the patterns of tokenizer files.
 *
 * Those are written for Oniguruma (Ruby syntax). PCRE2 reads nearly the same; what differs is
 * translated (\s, \w, \d, \h, scripts, ^ and $, (?m)) or refused by name (class intersections,
 * nested classes, `{n,m}+`): a pattern is never run with another meaning.
 */
#ifndef MB_RECIPES_TOKENIZERS_REGEX_H
#define MB_RECIPES_TOKENIZERS_REGEX_H

#include "recipes/tokenizers/bytes.h"

typedef struct mb_regex mb_regex;

/* MB_EMODEL: not a pattern. MB_ENOTSUP: one that cannot be translated. `where` begins messages. */
mb_status mb_regex_new(const char *pattern, size_t n, const char *where,
                       mb_regex **out) MB_MUST_USE;
void mb_regex_free(mb_regex *re);

/* Appends spans that cover text[0..n) from end to end, matches and what lies between them, offset
 * by `base`. The text is valid UTF-8. Thread-safe. MB_EMODEL when the pattern needs too many steps. */
mb_status mb_regex_split(const mb_regex *re, const char *text, size_t n, size_t base,
                         mb_spans *out) MB_MUST_USE;

#endif
