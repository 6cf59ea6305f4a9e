/* recipes/hub/html.h - text of a page: everything that others wrote goes through mb_html_text.
 *
 *     mb_bytes h = {0};
 *     MB_TRY_GOTO(mb_bytes_printf(&h, "<a href=\"/%s\">", quoted), st, done);  of our own, unescaped
 *     MB_TRY_GOTO(mb_html_text(&h, name), st, done);                        <, >, &, " and ' as names
 *     MB_TRY_GOTO(mb_html_markdown(&h, readme, n), st, done);
 * done:
 *     mb_bytes_release(&h);
 *
 * Markdown is read as far as cards need it: headings, paragraphs, lists, code, tables, emphasis, links
 * to http and https. Raw HTML in it is shown as text; pictures are their description. What comes out
 * has no attribute that the card chose but such an address.
 */
#ifndef MB_RECIPES_HUB_HTML_H
#define MB_RECIPES_HUB_HTML_H

#include "recipes/tokenizers/bytes.h"

mb_status mb_html_text(mb_bytes *h, const char *text) MB_MUST_USE;
mb_status mb_html_bytes(mb_bytes *h, const char *text, size_t n) MB_MUST_USE; /* escaped too */
/* Without its front matter. */
mb_status mb_html_markdown(mb_bytes *h, const char *text, size_t n) MB_MUST_USE;

#endif
