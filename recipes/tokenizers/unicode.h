/* recipes/tokenizers/unicode.h - UTF-8, character classes and normal forms.
 *
 * The decoding functions take valid UTF-8 (mb_utf8_check first). Classes are those the Hugging Face
 * tokenizers library uses: White_Space, general categories, ASCII punctuation beside P*.
 */
#ifndef MB_RECIPES_TOKENIZERS_UNICODE_H
#define MB_RECIPES_TOKENIZERS_UNICODE_H

#include "recipes/tokenizers/bytes.h"

/* *bad is the offset of the first byte that does not belong to a valid sequence (n if all do). */
bool mb_utf8_check(const char *p, size_t n, size_t *bad);
/* The code point at p (p < end); returns how many bytes it has. */
size_t mb_utf8_get(const char *p, const char *end, uint32_t *c);
size_t mb_utf8_put(uint32_t c, char out[4]);
mb_status mb_utf8_add(mb_bytes *t, uint32_t c) MB_MUST_USE;
/* Adds p[0..n) with every maximal bad stretch replaced by U+FFFD. */
mb_status mb_utf8_add_lossy(mb_bytes *t, const char *p, size_t n) MB_MUST_USE;
/* Bytes at the end of p[0..n) that begin a sequence which more bytes could complete: 0 to 3. */
size_t mb_utf8_unfinished(const char *p, size_t n);

typedef bool (*mb_char_class)(uint32_t c);
bool mb_char_is_space(uint32_t c);       /* White_Space */
bool mb_char_is_punctuation(uint32_t c); /* ASCII punctuation, or category P* */
bool mb_char_is_number(uint32_t c);      /* N* */
bool mb_char_is_mark(uint32_t c);        /* M* */
bool mb_char_is_nonspacing(uint32_t c);  /* Mn */
bool mb_char_is_control(uint32_t c);     /* Cc, Cf, Co but not tab, newline, return */
bool mb_char_is_cjk(uint32_t c);         /* ideographs, as BERT lists them */
bool mb_char_is_word(uint32_t c);        /* a letter, mark, digit or connector: \w */
/* The first letter of the general category, as Unicode 15 has it: L M N P S Z C. */
char mb_char_category(uint32_t c);

/* Adds the lower-case form, which can be two code points. */
mb_status mb_lower_add(mb_bytes *t, uint32_t c) MB_MUST_USE;
/* Adds the upper-case form; of those that are several code points only that of \u00df. */
mb_status mb_upper_add(mb_bytes *t, uint32_t c) MB_MUST_USE;

/* Bytes of the extended grapheme cluster (UAX 29) that begins at p (p < end); one of more than
 * `limit` bytes may be cut after that many. */
size_t mb_grapheme_len(const char *p, const char *end, size_t limit);

typedef enum mb_normal_form { MB_NFC, MB_NFD, MB_NFKC, MB_NFKD } mb_normal_form;
/* Adds p[0..n) in a normal form. Linear in n but for n log n in one run of combining marks. */
mb_status mb_normal_form_add(mb_bytes *t, const char *p, size_t n, mb_normal_form form) MB_MUST_USE;

#endif
