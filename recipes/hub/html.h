/* recipes/hub/html.h - text of a page: everything that others wrote goes through mb_html_text.
 *
 *     mb_html h = {0};
 *     MB_TRY_GOTO(mb_html_add(&h, "<a href=\"/%s\">", quoted), st, done);   of our own, unescaped
 *     MB_TRY_GOTO(mb_html_text(&h, name), st, done);                        <, >, &, " and ' as names
 *     MB_TRY_GOTO(mb_html_markdown(&h, readme, n), st, done);
 * done:
 *     mb_html_release(&h);
 *
 * Markdown is read as far as cards need it: headings, paragraphs, lists, code, tables, emphasis, links
 * to http and https. Raw HTML in it is shown as text; pictures are their description. What comes out
 * has no attribute that the card chose but such an address.
 */
#ifndef MB_RECIPES_HUB_HTML_H
#define MB_RECIPES_HUB_HTML_H

#include "core/status.h"

typedef struct mb_html {
    char *text; /* zero-terminated; NULL: nothing yet */
    size_t n, capacity;
} mb_html;

void mb_html_release(mb_html *h);
mb_status mb_html_add(mb_html *h, const char *fmt, ...) MB_PRINTF(2, 3) MB_MUST_USE;
mb_status mb_html_text(mb_html *h, const char *text) MB_MUST_USE;
mb_status mb_html_bytes(mb_html *h, const char *text, size_t n) MB_MUST_USE; /* escaped too */
/* Without its front matter. */
mb_status mb_html_markdown(mb_html *h, const char *text, size_t n) MB_MUST_USE;

#endif
