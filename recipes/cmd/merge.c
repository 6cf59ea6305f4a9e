/* recipes/cmd/merge.c - mbuyu merge: a base model with an adapter merged into its weights. */
#include "recipes/commands.h"
#include "recipes/export/verb.h"

mb_status mb_cmd_merge(int argc, char **argv)
{
    return mb_export_verb(argc, argv, true);
}
