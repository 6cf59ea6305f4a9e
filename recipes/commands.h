/* recipes/commands.h - the verbs of the program, generated from commands.def.
 *
 * To add one: write mb_cmd_<verb> in recipes/cmd/<verb>.c and its line in commands.def. argv[0] is
 * the verb, so that (argc, argv) can be given to mb_recipe_load as they are. A verb prints its
 * results on stdout, everything else through core/log.h, and returns its failure: main prints the
 * sentence and makes the exit code.
 *
 * A verb on ranks is called with MPI running (when a launcher started it) and must return the same
 * status on every rank: what can fail on one alone goes through mb_comm_agree first,
 *
 *     st = mb_recipe_load(argc, argv, &r);
 *     MB_TRY_GOTO(mb_comm_agree(launch->world, st), st, done);
 *
 * or, where the others cannot be told, ends with mb_launch_abort.
 */
#ifndef MB_RECIPES_COMMANDS_H
#define MB_RECIPES_COMMANDS_H

#include <stdio.h>

#include "dist/launch.h"

/* Groups in the order of the first help screen. */
#define MB_CMD_GROUP_LIST(X)               \
    X(TRAIN, "Train")                      \
    X(USE, "Use a model")                  \
    X(HUB, "Fetch and share")              \
    X(LOOK, "Look at what a run would do") \
    X(ABOUT, "About mbuyu")

typedef enum mb_cmd_group {
#define X(name, title) MB_CMD_##name,
    MB_CMD_GROUP_LIST(X)
#undef X
        MB_CMD_GROUP_COUNT
} mb_cmd_group;

/* Which sections of recipe.def a verb reads. */
typedef enum mb_cmd_keys {
    MB_CMD_KEYS_NONE,
    MB_CMD_KEYS_ALL,
    MB_CMD_KEYS_TRAIN,    /* all but text generation */
    MB_CMD_KEYS_EVAL,     /* model, LoRA, data, batch, running, evaluation */
    MB_CMD_KEYS_GENERATE, /* model, data, running, text generation */
    MB_CMD_KEYS_EXPORT,   /* model, running, export */
} mb_cmd_keys;

typedef struct mb_cmd {
    const char *verb, *usage, *help;
    mb_cmd_group group;
    mb_cmd_keys keys;
    mb_status (*alone)(int argc, char **argv); /* one of the two */
    mb_status (*ranks)(mb_launch *launch, int argc, char **argv);
} mb_cmd;

extern const mb_cmd mb_cmds[];
extern const int mb_n_cmds;

const mb_cmd *mb_cmd_find(const char *verb); /* NULL when there is none */
/* MB_EARG: there is no such verb, with the nearest. */
mb_status mb_cmd_unknown(const char *verb);

/* The first help screen, and the screen of a verb. */
void mb_cmd_print_overview(FILE *out);
mb_status mb_cmd_print_help(const mb_cmd *cmd, FILE *out) MB_MUST_USE;

#define MB_COMMAND(verb, ...) mb_status mb_cmd_##verb(int argc, char **argv);
#define MB_COMMAND_RANKS(verb, ...) \
    mb_status mb_cmd_##verb(mb_launch *launch, int argc, char **argv);
#include "recipes/commands.def"

#endif
