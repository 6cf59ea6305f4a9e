/* recipes/commands.c - the table of verbs; see recipes/commands.h. */
#include "recipes/commands.h"

#include <string.h>

#include "recipes/config/schema.h"

const mb_cmd mb_cmds[] = {
#define MB_COMMAND(verb, group, keys, usage, help) \
    {#verb, usage, help, MB_CMD_##group, MB_CMD_KEYS_##keys, mb_cmd_##verb, NULL},
#define MB_COMMAND_RANKS(verb, group, keys, usage, help) \
    {#verb, usage, help, MB_CMD_##group, MB_CMD_KEYS_##keys, NULL, mb_cmd_##verb},
#include "recipes/commands.def"
};

const int mb_n_cmds = (int)(sizeof mb_cmds / sizeof mb_cmds[0]);

const mb_cmd *mb_cmd_find(const char *verb)
{
    for (int i = 0; i < mb_n_cmds; i++)
        if (strcmp(mb_cmds[i].verb, verb) == 0)
            return &mb_cmds[i];
    return NULL;
}

static const char *verb_at(int i)
{
    return mb_cmds[i].verb;
}

mb_status mb_cmd_unknown(const char *verb)
{
    const char *nearest = mb_nearest(verb, mb_n_cmds, verb_at);

    if (nearest != NULL)
        return MB_RAISE(MB_EARG, "unknown verb '%.60s'; did you mean '%s'?", verb, nearest);
    return MB_RAISE(MB_EARG, "unknown verb '%.60s'; `mbuyu help` lists them", verb);
}
