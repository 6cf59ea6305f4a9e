/* recipes/cmd/search.c - mbuyu search: models or datasets of a hub by name. */
#include "recipes/hub/search.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/commands.h"

struct wanted {
    char text[1024];
    bool datasets;
    int limit;
    mb_hub_options hub;
};

static mb_status read_word(struct wanted *w, const char *word)
{
    const size_t n = strlen(w->text);

    MB_REQUIRE(word[0] != '-', MB_EARG, "search has no option %.100s", word);
    MB_REQUIRE(n + strlen(word) + 2 < sizeof w->text, MB_EARG, "a search of more than %zu bytes",
               sizeof w->text - 2);
    snprintf(w->text + n, sizeof w->text - n, "%s%s", n > 0 ? " " : "", word);
    return MB_OK;
}

static mb_status read_options(int argc, char **argv, struct wanted *w)
{
    bool taken;
    char *value;

    for (int i = 1; i < argc; i++) {
        MB_TRY(mb_hub_option(argc, argv, &i, &w->hub, &taken));
        if (taken)
            continue;
        MB_TRY(mb_hub_value(argc, argv, &i, "--limit", &value));
        if (value != NULL) {
            w->limit = (int)strtol(value, NULL, 10);
            MB_REQUIRE(w->limit >= 1 && w->limit <= 1000, MB_EARG,
                       "--limit is a number from 1 to 1000");
        } else if (strcmp(argv[i], "--datasets") == 0) {
            w->datasets = true;
        } else {
            MB_TRY(read_word(w, argv[i]));
        }
    }
    MB_REQUIRE(w->text[0] != '\0', MB_EARG, "usage: mbuyu search TEXT [--datasets] [--limit N] %s",
               mb_hub_usage);
    return MB_OK;
}

mb_status mb_cmd_search(int argc, char **argv)
{
    struct wanted w = {.limit = 20};
    mb_hub *hub = NULL;
    mb_status st;

    MB_TRY_GOTO(read_options(argc, argv, &w), st, done);
    MB_TRY_GOTO(mb_hub_open(&w.hub, &hub), st, done);
    st = mb_hub_search(hub, w.text, w.datasets, w.limit, stdout);
done:
    mb_free(w.hub.token);
    mb_hub_close(hub);
    return st;
}
