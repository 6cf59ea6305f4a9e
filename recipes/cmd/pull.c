/* recipes/cmd/pull.c - mbuyu pull: a model or data of a hub becomes files here. */
#include "recipes/hub/pull.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/commands.h"

struct wanted {
    mb_pull_options pull;
    mb_hub_options hub;
    const char *name;
};

static mb_status add(char **list, size_t *n, size_t most, char *value, const char *option)
{
    MB_REQUIRE(*n < most, MB_EARG, "more than %zu times %s", most, option);
    list[(*n)++] = value;
    return MB_OK;
}

static mb_status read_mirror(struct wanted *w, char *value)
{
    char origin[512];
    size_t n = strlen(value);

    MB_TRY(mb_fetch_origin(value, origin, sizeof origin));
    while (n > 0 && value[n - 1] == '/')
        value[--n] = '\0';
    MB_REQUIRE(strpbrk(value, "?#") == NULL && n < 1024, MB_EARG, "--mirror: no address of a hub");
    return add(w->pull.mirror, &w->pull.n_mirrors, MB_PULL_MAX_MIRRORS, value, "--mirror");
}

static mb_status read_flag(struct wanted *w, const char *word)
{
    if (strcmp(word, "--dry-run") == 0)
        w->pull.dry_run = true;
    else if (strcmp(word, "--check") == 0)
        w->pull.check = true;
    else if (word[0] == '-')
        return MB_RAISE(MB_EARG, "pull has no option %.100s", word);
    else if (w->name != NULL)
        return MB_RAISE(MB_EARG, "pull fetches one repository; '%.100s' is one more", word);
    else
        w->name = word;
    return MB_OK;
}

static mb_status read_option(int argc, char **argv, int *i, struct wanted *w)
{
    char *value;

    MB_TRY(mb_hub_value(argc, argv, i, "--include", &value));
    if (value != NULL)
        return add(w->pull.include, &w->pull.n_include, MB_PULL_MAX_PATTERNS, value, "--include");
    MB_TRY(mb_hub_value(argc, argv, i, "--exclude", &value));
    if (value != NULL)
        return add(w->pull.exclude, &w->pull.n_exclude, MB_PULL_MAX_PATTERNS, value, "--exclude");
    MB_TRY(mb_hub_value(argc, argv, i, "--mirror", &value));
    if (value != NULL)
        return read_mirror(w, value);
    MB_TRY(mb_hub_value(argc, argv, i, "--at", &value));
    if (value != NULL)
        return mb_window_read(value, &w->pull.window);
    MB_TRY(mb_hub_value(argc, argv, i, "--to", &value));
    if (value != NULL) {
        w->pull.to = value;
        MB_REQUIRE(value[0] != '\0', MB_EARG, "--to needs a folder");
        return MB_OK;
    }
    MB_TRY(mb_hub_value(argc, argv, i, "--jobs", &value));
    if (value != NULL) {
        w->pull.jobs = (int)strtol(value, NULL, 10);
        MB_REQUIRE(w->pull.jobs >= 1 && w->pull.jobs <= MB_PULL_MAX_JOBS, MB_EARG,
                   "--jobs is a number from 1 to %d", MB_PULL_MAX_JOBS);
        return MB_OK;
    }
    return read_flag(w, argv[*i]);
}

static mb_status read_options(int argc, char **argv, struct wanted *w)
{
    bool taken;

    for (int i = 1; i < argc; i++) {
        MB_TRY(mb_hub_option(argc, argv, &i, &w->hub, &taken));
        if (!taken)
            MB_TRY(read_option(argc, argv, &i, w));
    }
    MB_REQUIRE(
        w->name != NULL, MB_EARG,
        "usage: mbuyu pull ORG/NAME[@REVISION] | dataset:ORG/NAME[@REVISION] [--to DIR] "
        "[--include PATTERN] [--exclude PATTERN] [--mirror URL] [--jobs N] [--at HH:MM-HH:MM] "
        "[--dry-run] [--check] [--offline] %s",
        mb_hub_usage);
    MB_TRY(mb_hub_name_read(w->name, true, &w->pull.name));
    if (w->pull.name.file[0] != '\0') { /* one file of it */
        MB_TRY(add(w->pull.include, &w->pull.n_include, MB_PULL_MAX_PATTERNS, w->pull.name.file,
                   "--include"));
    }
    return MB_OK;
}

mb_status mb_cmd_pull(int argc, char **argv)
{
    struct wanted w = {.name = NULL};
    mb_hub *hub = NULL;
    mb_status st;

    MB_TRY_GOTO(read_options(argc, argv, &w), st, done);
    if (w.hub.offline || mb_hub_is_offline()) {
        st = mb_pull_offline(&w.pull, stdout);
        goto done;
    }
    MB_TRY_GOTO(mb_hub_open(&w.hub, &hub), st, done);
    st = mb_pull(hub, &w.pull, stdout);
done:
    mb_free(w.hub.token);
    mb_hub_close(hub);
    return st;
}
