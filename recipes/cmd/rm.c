/* recipes/cmd/rm.c - mbuyu rm: takes a model or data out of the cache. */
#include <string.h>
#include <unistd.h>

#include "recipes/commands.h"
#include "recipes/hub/cache.h"

static bool yes(const char *what)
{
    return true;
}

/* Asks a person; where there is none the answer is no. */
static bool ask(const char *what)
{
    char answer[16];

    if (!isatty(STDIN_FILENO)) {
        fprintf(stderr, "%s would be removed; --yes does so\n", what);
        return false;
    }
    fprintf(stderr, "remove %s? [y/N] ", what);
    return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

mb_status mb_cmd_rm(int argc, char **argv)
{
    const char *text = NULL;
    bool agreed = false;
    mb_hub_name name;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--yes") == 0 || strcmp(argv[i], "-y") == 0)
            agreed = true;
        else if (argv[i][0] == '-' || text != NULL)
            return MB_RAISE(MB_EARG, "rm has no use for '%.100s'", argv[i]);
        else
            text = argv[i];
    }
    MB_REQUIRE(text != NULL, MB_EARG,
               "usage: mbuyu rm ORG/NAME[@REVISION] | dataset:ORG/NAME[@REVISION] [--yes]");
    MB_TRY(mb_hub_name_read(text, true, &name));
    MB_REQUIRE(name.file[0] == '\0', MB_EARG,
               "rm removes a repository or a revision, not one file");
    return mb_cache_remove(&name, agreed ? yes : ask, stdout);
}
