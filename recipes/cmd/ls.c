/* recipes/cmd/ls.c - mbuyu ls: what the cache of models and data holds. */
#include <string.h>

#include "recipes/commands.h"
#include "recipes/hub/cache.h"

mb_status mb_cmd_ls(int argc, char **argv)
{
    mb_hub_name name;

    MB_REQUIRE(argc <= 2 && (argc < 2 || argv[1][0] != '-'), MB_EARG,
               "usage: mbuyu ls [ORG/NAME[@REVISION] | dataset:ORG/NAME[@REVISION]]");
    if (argc < 2 || strcmp(argv[1], "cache") == 0)
        return mb_cache_print(stdout);
    MB_TRY(mb_hub_name_read(argv[1], true, &name));
    return mb_cache_print_one(&name, stdout);
}
