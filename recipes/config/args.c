/* recipes/config/args.c - the words of a command line: `key=value`, `--key value`, `~key`, a file. */
#include <stdio.h>
#include <string.h>

#include "core/path.h"
#include "recipes/config/hub_path.h"
#include "recipes/config/settings.h"

/* Does `arg` have the form name=value, with a name that can be a key? */
static bool is_assignment(const char *arg)
{
    const size_t n =
        strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");

    return n > 0 && arg[0] != '-' && arg[n] == '=';
}

static mb_status set_recipe(mb_args *args, const char *path)
{
    MB_REQUIRE(args->recipe == NULL, MB_EARG,
               "command line: two recipe files, %.200s and %.200s; give one, the rest as key=value "
               "(a text to continue: prompt=\"...\")",
               args->recipe, path);
    args->recipe = path;
    return MB_OK;
}

/* "--lora-r" -> "lora_r"; the part up to '=' or the end. */
static mb_status option_name(mb_arena *a, const char *arg, const char **out)
{
    const size_t n = strcspn(arg + 2, "=");
    void *p;

    MB_TRY(mb_arena_take(a, n + 1, &p));
    char *name = p;
    for (size_t i = 0; i < n; i++)
        name[i] = arg[2 + i] == '-' ? '_' : arg[2 + i];
    name[n] = '\0';
    *out = name;
    return MB_OK;
}

/* A BOOL, or an alias that is one at its home ("--lora-target-linear"). */
static bool is_flag(const char *name)
{
    const mb_name known = mb_name_find(name);

    return known.kind == MB_NAME_KEY &&
           (known.key->type == MB_TYPE_BOOL ||
            (strncmp(known.values, "true=", 5) == 0 && strcmp(known.key->name, name) != 0));
}

static bool is_value(const char *arg)
{
    return arg != NULL && strncmp(arg, "--", 2) != 0 && arg[0] != '~' && !is_assignment(arg);
}

/* `--flag` alone is true, `--no-flag` false; other options take the next word. */
static mb_status read_option(mb_arena *a, int argc, char **argv, int *i, mb_args *out)
{
    const char *arg = argv[*i], *eq = strchr(arg, '='), *name = NULL, *value = NULL;
    bool word;

    MB_TRY(option_name(a, arg, &name));
    if (eq != NULL) {
        value = eq + 1;
    } else if (strncmp(name, "no_", 3) == 0 && mb_name_find(name).kind == MB_NAME_UNKNOWN &&
               is_flag(name + 3)) {
        name += 3;
        value = "false";
    } else if (is_flag(name)) {
        const bool next =
            *i + 1 < argc && is_value(argv[*i + 1]) && mb_yaml_to_bool(argv[*i + 1], &word);
        value = next ? argv[++*i] : "true";
    } else {
        MB_REQUIRE(*i + 1 < argc, MB_EARG, "command line: %.100s has no value after it", arg);
        value = argv[++*i];
    }
    if (strcmp(name, "config") == 0)
        return set_recipe(out, value);
    out->at[out->n++] = (mb_arg){name, value};
    return MB_OK;
}

/* ORG/NAME that the cache has, or that is no file here and has no suffix of a recipe. */
static bool is_model_of_hub(const char *arg)
{
    char path[MB_PATH_MAX];

    if (mb_path_exists(arg) || !mb_hub_name_is(arg))
        return false;
    if (mb_hub_follow(arg, path, sizeof path) != MB_OK)
        mb_status_clear();
    return path[0] != '\0' || (mb_hub_is_meant(arg) && strrchr(arg, '.') == NULL);
}

static mb_status read_word(mb_arena *a, const char *arg, mb_args *out)
{
    const size_t n = strcspn(arg, "=");
    void *name;

    if (arg[0] == '~' && arg[1] != '\0' && arg[1] != '/') {
        out->at[out->n++] = (mb_arg){arg + 1, NULL};
        return MB_OK;
    }
    if (is_assignment(arg)) {
        MB_TRY(mb_arena_take(a, n + 1, &name));
        memcpy(name, arg, n);
        ((char *)name)[n] = '\0';
        out->at[out->n++] = (mb_arg){name, arg + n + 1};
        return MB_OK;
    }
    if (mb_path_is_dir(arg) || mb_path_has_suffix(arg, ".gguf") || is_model_of_hub(arg)) {
        out->at[out->n++] = (mb_arg){"model_name_or_path", arg};
        return MB_OK;
    }
    return set_recipe(out, arg);
}

mb_status mb_args_read(mb_arena *a, int argc, char **argv, mb_args *out)
{
    mb_args args = {.n = 0};
    void *p;

    MB_TRY(mb_arena_take(a, sizeof(mb_arg) * (size_t)(argc + 1), &p));
    args.at = p;
    for (int i = 1; i < argc; i++) {
        MB_REQUIRE(strlen(argv[i]) <= MB_YAML_BYTES_MAX, MB_EARG,
                   "command line: word %d is longer than %d bytes", i, MB_YAML_BYTES_MAX);
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '\0')
            MB_TRY(read_option(a, argc, argv, &i, &args));
        else if (argv[i][0] == '-' && argv[i][1] != '\0')
            return MB_RAISE(MB_EARG,
                            "command line: unknown option '%.100s'; keys are written "
                            "key=value or --key value",
                            argv[i]);
        else
            MB_TRY(read_word(a, argv[i], &args));
    }
    *out = args;
    return MB_OK;
}
