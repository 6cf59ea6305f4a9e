/* recipes/cmd/version.c - `mbuyu version`. */
#include "recipes/commands.h"

mb_status mb_cmd_version(int argc, char **argv)
{
    MB_REQUIRE(argc <= 1, MB_EARG, "version takes no arguments, found '%.60s'", argv[1]);
    printf("mbuyu %s\n", MB_VERSION);
    return MB_OK;
}
