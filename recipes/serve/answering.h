/* recipes/serve/answering.h - a chat or completions request from its prompts to the last byte sent.
 *
 *     MB_TRY(mb_answering_new(api, offer, chat, &params, &g));
 *     MB_TRY_GOTO(mb_answering_read(g, root, f), st, fail);    // stop, logit_bias, stream_options, ...
 *     MB_TRY_GOTO(mb_answering_prompt(g, &ids, text, f), st, fail);      // one or several
 *     return mb_answering_go(g, q);                            // takes g
 * fail:
 *     mb_answering_free(g);
 *
 * Choice number: prompt * n + choice. Its text is what the scheduler tells; with logprobs a token waits
 * until the text it belongs to has been told, so that tokens and text agree also where a stop text cut
 * both.
 */
#ifndef MB_RECIPES_SERVE_ANSWERING_H
#define MB_RECIPES_SERVE_ANSWERING_H

#include "recipes/serve/api.h"
#include "recipes/serve/params.h"

typedef struct mb_answering mb_answering;

mb_status mb_answering_new(mb_api *a, mb_offer *o, bool chat, const mb_params *p,
                           mb_answering **out) MB_MUST_USE;
/* What params.def does not know. */
mb_status mb_answering_read(mb_answering *g, mb_json request, mb_fault *f) MB_MUST_USE;
/* Takes the ids (empties the list). `text`: what echo gives back; NULL: what the ids say. */
mb_status mb_answering_prompt(mb_answering *g, mb_ids *ids, const char *text,
                              mb_fault *f) MB_MUST_USE;
/* Asks, and answers when all is there or as it comes. Takes g in any case. */
mb_status mb_answering_go(mb_answering *g, mb_http_request *q) MB_MUST_USE;
void mb_answering_free(mb_answering *g); /* NULL is allowed */

#endif
