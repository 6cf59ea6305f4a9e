/* recipes/cmd/push.c - mbuyu push: a folder goes to a repository of a hub. */
#include "recipes/hub/push.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/commands.h"

struct wanted {
    mb_push_options push;
    mb_hub_options hub;
    char dir[MB_PATH_MAX];
    char name[MB_HUB_ID_MAX + MB_HUB_REVISION_MAX + 32]; /* ORG/NAME as it was typed */
    const char *revision;
    bool is_dataset;
};

static const char usage[] =
    "usage: mbuyu push DIR [dataset:]ORG/NAME [--dataset] [--private] [--revision BRANCH] "
    "[--message TEXT] [--license NAME] [--include PATTERN] [--exclude PATTERN] [--allow PATTERN] "
    "[--upload lfs|multipart] [--dry-run] %s";

static mb_status add_pattern(mb_push_patterns *p, const char *option, const char *pattern)
{
    MB_REQUIRE(p->n < MB_PUSH_PATTERNS, MB_EARG, "more than %d times %s", MB_PUSH_PATTERNS, option);
    p->at[p->n++] = pattern;
    return MB_OK;
}

static mb_status read_upload(const char *word, mb_push_upload *out)
{
    *out = strcmp(word, "lfs") == 0 ? MB_PUSH_LFS : MB_PUSH_MULTIPART;
    MB_REQUIRE(*out == MB_PUSH_LFS || strcmp(word, "multipart") == 0, MB_EARG,
               "--upload is lfs or multipart, not '%.40s'", word);
    return MB_OK;
}

static mb_status read_value(int argc, char **argv, int *i, struct wanted *w, bool *taken)
{
    const struct {
        const char *name;
        const char **text;
        mb_push_patterns *patterns;
    } options[] = {
        {"--revision", &w->revision, NULL},    {"--message", &w->push.message, NULL},
        {"--license", &w->push.license, NULL}, {"--include", NULL, &w->push.include},
        {"--exclude", NULL, &w->push.exclude}, {"--allow", NULL, &w->push.allow},
    };
    char *value;

    *taken = true;
    for (size_t k = 0; k < sizeof options / sizeof options[0]; k++) {
        MB_TRY(mb_hub_value(argc, argv, i, options[k].name, &value));
        if (value == NULL)
            continue;
        if (options[k].patterns != NULL)
            return add_pattern(options[k].patterns, options[k].name, value);
        *options[k].text = value;
        return MB_OK;
    }
    MB_TRY(mb_hub_value(argc, argv, i, "--upload", &value));
    if (value != NULL)
        return read_upload(value, &w->push.upload);
    *taken = false;
    return MB_OK;
}

static mb_status read_word(struct wanted *w, const char *word)
{
    if (strcmp(word, "--dataset") == 0) {
        w->is_dataset = true;
    } else if (strcmp(word, "--private") == 0) {
        w->push.is_private = true;
    } else if (strcmp(word, "--dry-run") == 0) {
        w->push.dry_run = true;
    } else {
        MB_REQUIRE(word[0] != '-', MB_EARG, "push has no option %.100s", word);
        MB_REQUIRE(w->name[0] == '\0', MB_EARG, usage, mb_hub_usage);
        char *to = w->dir[0] == '\0' ? w->dir : w->name;
        const size_t size = to == w->dir ? sizeof w->dir : sizeof w->name;
        MB_REQUIRE(snprintf(to, size, "%s", word) < (int)size, MB_EARG, "'%.80s...' is too long",
                   word);
    }
    return MB_OK;
}

static mb_status read_options(int argc, char **argv, struct wanted *w)
{
    mb_hub_name *to = &w->push.to;
    bool taken;

    for (int i = 1; i < argc; i++) {
        MB_TRY(mb_hub_option(argc, argv, &i, &w->hub, &taken));
        if (!taken)
            MB_TRY(read_value(argc, argv, &i, w, &taken));
        if (!taken)
            MB_TRY(read_word(w, argv[i]));
    }
    MB_REQUIRE(w->name[0] != '\0', MB_EARG, usage, mb_hub_usage);
    MB_TRY(mb_hub_name_read(w->name, false, to));
    MB_REQUIRE(to->file[0] == '\0', MB_EARG, "%s: a push goes to ORG/NAME", w->name);
    to->is_dataset |= w->is_dataset;
    if (w->revision != NULL) {
        MB_REQUIRE(mb_hub_revision_is(w->revision), MB_EARG, "--revision: '%.100s' is no branch",
                   w->revision);
        snprintf(to->revision, sizeof to->revision, "%s", w->revision);
    }
    MB_REQUIRE(!mb_hub_commit_is(to->revision), MB_EARG,
               "%s: a push goes to a branch, not to a commit", to->revision);
    return MB_OK;
}

/* Of a run's folder, what it made. */
static mb_status choose_folder(struct wanted *w)
{
    char final[MB_PATH_MAX], recipe[MB_PATH_MAX];

    MB_TRY(mb_path_join(final, sizeof final, w->dir, "final"));
    MB_TRY(mb_path_join(recipe, sizeof recipe, w->dir, "recipe.resolved.yaml"));
    if (mb_path_is_dir(final) && mb_path_is_file(recipe)) {
        mb_log_info("%s is a run: its result, %s, is sent", w->dir, final);
        memcpy(w->dir, final, sizeof w->dir);
    }
    w->push.dir = w->dir;
    return MB_OK;
}

mb_status mb_cmd_push(int argc, char **argv)
{
    struct wanted w = {.is_dataset = false};
    mb_hub *hub = NULL;
    mb_status st;

    MB_TRY_GOTO(read_options(argc, argv, &w), st, done);
    MB_TRY_GOTO(choose_folder(&w), st, done);
    MB_TRY_GOTO(mb_hub_open(&w.hub, &hub), st, done);
    st = mb_push(hub, &w.push, stdout);
done:
    mb_free(w.hub.token);
    mb_hub_close(hub);
    return st;
}
