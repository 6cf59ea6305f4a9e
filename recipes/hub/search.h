/* recipes/hub/search.h - what a hub has that is called like a text. */
#ifndef MB_RECIPES_HUB_SEARCH_H
#define MB_RECIPES_HUB_SEARCH_H

#include <stdio.h>

#include "recipes/hub/hub.h"

/* Prints at most `limit` models or datasets, one a line: name, downloads, what for, last change. */
mb_status mb_hub_search(const mb_hub *hub, const char *text, bool datasets, int limit,
                        FILE *out) MB_MUST_USE;

#endif
