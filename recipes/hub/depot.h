/* recipes/hub/depot.h - a shelf over HTTP, as the hub's clients ask for it.
 *
 *     MB_TRY(mb_depot_start(&(mb_depot_options){.shelf = {.dir = "/srv/models"}}, &depot));
 *     printf("http://127.0.0.1:%d\n", mb_depot_port(depot));
 *     ...
 *     mb_depot_stop(depot);
 *
 * Reading is open to whoever reaches the address, unless `closed`; writing wants the token. What
 * clients send along for another hub (their own token) is ignored when they only read.
 */
#ifndef MB_RECIPES_HUB_DEPOT_H
#define MB_RECIPES_HUB_DEPOT_H

#include "recipes/hub/shelf.h"

typedef struct mb_depot mb_depot;

typedef struct mb_depot_options {
    mb_shelf_options shelf;
    const char *address; /* NULL: 127.0.0.1 */
    int port;            /* 0: a free one */
    const char *const *hosts;
    const char
        *name; /* of the hub, on its pages; and of who writes with the token; NULL: "mbuyu" */
    const char *token; /* NULL: nobody may write */
    bool closed;       /* reading wants the token too */
} mb_depot_options;

mb_status mb_depot_start(const mb_depot_options *o, mb_depot **out) MB_MUST_USE;
int mb_depot_port(const mb_depot *d);
mb_shelf *mb_depot_shelf(const mb_depot *d);
void mb_depot_stop(mb_depot *d); /* NULL is allowed */

#endif
