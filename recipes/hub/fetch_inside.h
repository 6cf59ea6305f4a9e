/* recipes/hub/fetch_inside.h - what the files of recipes/hub/fetch.h share. */
#ifndef MB_RECIPES_HUB_FETCH_INSIDE_H
#define MB_RECIPES_HUB_FETCH_INSIDE_H

#include "recipes/hub/fetch.h"

enum { MB_URL_MAX = 8192, MB_ORIGIN_MAX = 512 };

/* With defaults filled in. */
const mb_fetch_options *mb_fetcher_options(const mb_fetcher *f);
/* a->wait from a RateLimit header, where the answer is 429 and has no Retry-After. */
void mb_fetch_read_limit(mb_fetch_answer *a);

#endif
