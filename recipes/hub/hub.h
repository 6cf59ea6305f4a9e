/* recipes/hub/hub.h - what verbs that talk with a hub share: options, connection, JSON, names.
 *
 *     mb_hub_options o = {0};
 *     for (int i = 1; i < argc; i++) {
 *         MB_TRY(mb_hub_option(argc, argv, &i, &o, &taken));
 *         if (!taken) ...                             an option of the verb, or its argument
 *     }
 *     MB_TRY_GOTO(mb_hub_open(&o, &hub), st, done);
 *     MB_TRY_GOTO(mb_hub_json(hub, url, "the listing", NULL, &doc, NULL), st, done);
 * done:
 *     mb_hub_close(hub);
 *
 * Errors: those of recipes/hub/fetch.h; MB_EARG for wrong options.
 */
#ifndef MB_RECIPES_HUB_HUB_H
#define MB_RECIPES_HUB_HUB_H

#include "core/json.h"
#include "recipes/config/hub_path.h"
#include "recipes/hub/fetch.h"

enum { MB_HUB_ENDPOINT_MAX = 1024, MB_HUB_URL_MAX = 8192 };

typedef struct mb_hub_options {
    char *token; /* --token; owned, released by mb_hub_open */
    mb_fetch_options fetch;
    bool offline; /* --offline, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE */
} mb_hub_options;

/* The options every verb of a hub has; see them in hub.c. */
extern const char mb_hub_usage[];

typedef struct mb_hub {
    char endpoint[MB_HUB_ENDPOINT_MAX];
    mb_fetcher *fetcher;
    bool has_token;
} mb_hub;

/* Reads argv[*i] (and its value, then *i moves on) if it is one of these options. A token is wiped
 * from argv, so that the list of processes does not show it. */
mb_status mb_hub_option(int argc, char **argv, int *i, mb_hub_options *o, bool *taken) MB_MUST_USE;
/* The value of option argv[*i], "--name VALUE" or "--name=VALUE", if it is this one; NULL: it is
 * not. MB_EARG: it has none. */
mb_status mb_hub_value(int argc, char **argv, int *i, const char *name, char **value) MB_MUST_USE;

/* HF_ENDPOINT, the token, a fetcher. *o keeps nothing afterwards. MB_ENET: offline. */
mb_status mb_hub_open(mb_hub_options *o, mb_hub **out) MB_MUST_USE;
void mb_hub_close(mb_hub *hub); /* NULL is allowed */

/* "models" or "datasets"; "" or "datasets/", as addresses of files have it. */
const char *mb_hub_kind(const mb_hub_name *name);
const char *mb_hub_prefix(const mb_hub_name *name);

/* GET of a JSON document, with errors of MB_EDATA; a page for people instead is named as the login
 * page it probably is. *a (may be NULL) is released by the caller. */
mb_status mb_hub_json(const mb_hub *hub, const char *url, const char *what, mb_json_doc **out,
                      mb_fetch_answer *a) MB_MUST_USE;

/* Text of others made fit for a terminal, into `to`: control characters and broken UTF-8 as '?'. */
const char *mb_hub_printable(const char *text, char *to, size_t size);
/* "12.3 MB", in powers of 1000, as the hub shows sizes. */
const char *mb_hub_size(int64_t bytes, char *to, size_t size);

#endif
