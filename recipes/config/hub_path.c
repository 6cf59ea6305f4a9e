/* recipes/config/hub_path.c - see recipes/config/hub_path.h. */
#include "recipes/config/hub_path.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/alloc.h"
#include "core/path.h"

enum { COMMIT = 40, MOST_FILE = 1000, MOST_REF = 256 };

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

mb_status mb_hub_home(char *path, size_t size)
{
    const char *home = variable("HF_HOME"), *cache = variable("XDG_CACHE_HOME");
    char below[MB_PATH_MAX];

    if (home != NULL)
        return mb_path_join(path, size, "", home);
    if (cache != NULL)
        return mb_path_join(path, size, cache, "huggingface");
    home = variable("HOME");
    MB_REQUIRE(home != NULL, MB_EARG,
               "there is no HOME, HF_HOME or HF_HUB_CACHE that says where the cache is");
    MB_TRY(mb_path_join(below, sizeof below, home, ".cache"));
    return mb_path_join(path, size, below, "huggingface");
}

mb_status mb_hub_cache(char *path, size_t size)
{
    const char *cache = variable("HF_HUB_CACHE");
    char home[MB_PATH_MAX];

    if (cache == NULL)
        cache = variable("HUGGINGFACE_HUB_CACHE");
    if (cache != NULL)
        return mb_path_join(path, size, "", cache);
    MB_TRY(mb_hub_home(home, sizeof home));
    return mb_path_join(path, size, home, "hub");
}

bool mb_hub_is_offline(void)
{
    static const char *const names[] = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"};
    static const char *const yes[] = {"1", "on", "yes", "true"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (size_t k = 0; variable(names[i]) != NULL && k < sizeof yes / sizeof yes[0]; k++)
            if (strcasecmp(variable(names[i]), yes[k]) == 0)
                return true;
    return false;
}

/* ---- names --------------------------------------------------------------------------------- */

static bool is_word(const char *text, size_t n)
{
    if (n == 0 || n > 96 || text[0] == '.' || text[0] == '-' || text[n - 1] == '.' ||
        text[n - 1] == '-')
        return false;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];

        if (c >= 0x80 || (!isalnum(c) && strchr("-._", c) == NULL))
            return false;
        if (i > 0 && (c == '-' || c == '.') && text[i - 1] == text[i])
            return false; /* "--" stands for '/' in the cache, ".." for the folder above */
    }
    return true;
}

bool mb_hub_id_is(const char *id)
{
    const char *slash = strchr(id, '/');

    if (slash == NULL)
        return is_word(id, strlen(id));
    return is_word(id, (size_t)(slash - id)) && is_word(slash + 1, strlen(slash + 1));
}

bool mb_hub_revision_is(const char *r)
{
    const size_t n = strlen(r);

    if (n == 0 || n >= MB_HUB_REVISION_MAX || r[0] == '/' || r[0] == '-' || r[n - 1] == '/' ||
        strstr(r, "..") != NULL || strstr(r, "//") != NULL || r[0] == '.' ||
        strstr(r, "/.") != NULL)
        return false;
    for (; *r != '\0'; r++)
        if ((unsigned char)*r >= 0x80 ||
            (!isalnum((unsigned char)*r) && strchr("-._/+", *r) == NULL))
            return false;
    return true;
}

bool mb_hub_commit_is(const char *text)
{
    return strlen(text) == COMMIT && strspn(text, "0123456789abcdef") == COMMIT;
}

bool mb_hub_file_is(const char *path)
{
    char part[256];

    if (strlen(path) > MOST_FILE)
        return false;
    for (;;) {
        const size_t n = strcspn(path, "/");

        if (n >= sizeof part)
            return false;
        memcpy(part, path, n);
        part[n] = '\0';
        if (!mb_path_is_component(part) || strcasecmp(part, ".git") == 0)
            return false;
        if (path[n] == '\0')
            return true;
        path += n + 1;
    }
}

/* How much of "REVISION[/FILE]" is the revision: refs/KIND/NAME has slashes of its own. */
static size_t revision_length(const char *text)
{
    size_t n = strcspn(text, "/");

    for (int more = strncmp(text, "refs/", 5) == 0 ? 2 : 0; more > 0 && text[n] == '/'; more--)
        n += 1 + strcspn(text + n + 1, "/");
    return n;
}

static mb_status no_name(const char *text)
{
    return MB_RAISE(MB_EARG,
                    "'%.200s' is no name on a hub; those are ORG/NAME, ORG/NAME@REVISION, and "
                    "dataset:ORG/NAME for data",
                    text);
}

mb_status mb_hub_name_read(const char *text, bool alone, mb_hub_name *out)
{
    mb_hub_name n = {.is_dataset = strncmp(text, "dataset:", 8) == 0};
    const char *at = text + (n.is_dataset ? 8 : 0);
    const char *slash = strchr(at, '/');
    size_t used;

    if (slash == NULL && !alone)
        return no_name(text);
    used = slash != NULL ? (size_t)(slash - at) + 1 + strcspn(slash + 1, "/@") : strcspn(at, "@");
    if (used >= sizeof n.id)
        return no_name(text);
    memcpy(n.id, at, used);
    at += used;
    if (!mb_hub_id_is(n.id))
        return no_name(text);
    if (*at == '@') {
        used = revision_length(++at);
        MB_REQUIRE(used < sizeof n.revision, MB_EARG, "'%.100s...' has a revision too long for one",
                   text);
        memcpy(n.revision, at, used);
        at += used;
        MB_REQUIRE(mb_hub_revision_is(n.revision), MB_EARG, "'%.200s': '%s' is no revision", text,
                   n.revision);
    }
    if (*at == '/') {
        MB_REQUIRE(strlen(at + 1) < sizeof n.file && mb_hub_file_is(at + 1), MB_EARG,
                   "'%.300s' names no file of a repository", text);
        snprintf(n.file, sizeof n.file, "%s", at + 1);
    }
    *out = n;
    return MB_OK;
}

bool mb_hub_name_is(const char *text)
{
    mb_hub_name name;

    if (mb_hub_name_read(text, false, &name) == MB_OK)
        return true;
    mb_status_clear();
    return false;
}

/* ---- places -------------------------------------------------------------------------------- */

mb_status mb_hub_folder(const mb_hub_name *name, char *path, size_t size)
{
    char cache[MB_PATH_MAX], base[MB_HUB_ID_MAX + 32];
    const char *slash = strchr(name->id, '/');

    MB_TRY(mb_hub_cache(cache, sizeof cache));
    snprintf(base, sizeof base, "%s--%.*s%s%s", name->is_dataset ? "datasets" : "models",
             (int)(slash != NULL ? (size_t)(slash - name->id) : strlen(name->id)), name->id,
             slash != NULL ? "--" : "", slash != NULL ? slash + 1 : "");
    return mb_path_join(path, size, cache, base);
}

mb_status mb_hub_commit(const mb_hub_name *name, char commit[41])
{
    const char *revision = name->revision[0] != '\0' ? name->revision : "main";
    char folder[MB_PATH_MAX], refs[MB_PATH_MAX], path[MB_PATH_MAX], *text = NULL;
    size_t n;

    commit[0] = '\0';
    MB_TRY(mb_hub_folder(name, folder, sizeof folder));
    MB_TRY(mb_path_join(refs, sizeof refs, folder, "refs"));
    MB_TRY(mb_path_join(path, sizeof path, refs, revision));
    if (mb_path_is_file(path)) {
        MB_TRY(mb_file_read(path, MOST_REF, &text, &n));
        text[strcspn(text, " \r\n")] = '\0';
        if (mb_hub_commit_is(text))
            snprintf(commit, 41, "%s", text);
        mb_free(text);
    } else if (mb_hub_commit_is(revision)) {
        snprintf(commit, 41, "%.40s", revision);
    }
    return MB_OK;
}

mb_status mb_hub_path(const mb_hub_name *name, char *path, size_t size)
{
    char folder[MB_PATH_MAX], snapshots[MB_PATH_MAX], snapshot[MB_PATH_MAX], commit[41];

    path[0] = '\0';
    MB_TRY(mb_hub_commit(name, commit));
    if (commit[0] == '\0')
        return MB_OK;
    MB_TRY(mb_hub_folder(name, folder, sizeof folder));
    MB_TRY(mb_path_join(snapshots, sizeof snapshots, folder, "snapshots"));
    MB_TRY(mb_path_join(snapshot, sizeof snapshot, snapshots, commit));
    MB_TRY(mb_path_join(path, size, snapshot, name->file));
    if (name->file[0] == '\0')
        path[strlen(snapshot)] = '\0'; /* no slash at the end */
    if (!mb_path_exists(path))
        path[0] = '\0';
    return MB_OK;
}

mb_status mb_hub_follow(const char *text, char *path, size_t size)
{
    mb_hub_name name;

    path[0] = '\0';
    if (mb_path_exists(text))
        return MB_OK;
    if (mb_hub_name_read(text, true, &name) != MB_OK) {
        mb_status_clear();
        return MB_OK;
    }
    return mb_hub_path(&name, path, size);
}

bool mb_hub_is_meant(const char *text)
{
    char first[256];
    const size_t n = strcspn(text, "/");

    if (mb_path_exists(text) || n >= sizeof first)
        return false;
    if (strncmp(text, "dataset:", 8) == 0)
        return true;
    snprintf(first, sizeof first, "%.*s", (int)n, text);
    return mb_hub_name_is(text) && strcmp(first, "models") != 0 && strcmp(first, "out") != 0 &&
           !mb_path_exists(first) && !mb_path_has_suffix(text, ".gguf");
}

const char *mb_hub_pull_command(const char *text, char *command, size_t size)
{
    mb_hub_name name;

    if (mb_hub_name_read(text, true, &name) != MB_OK) {
        mb_status_clear();
        snprintf(command, size, "mbuyu pull dataset:ORG/NAME");
        return command;
    }
    snprintf(command, size, "mbuyu pull %s%s%s%s", name.is_dataset ? "dataset:" : "", name.id,
             name.revision[0] != '\0' ? "@" : "", name.revision);
    return command;
}

mb_status mb_hub_model(const char *text, char *path, size_t size)
{
    char command[512];

    MB_TRY(mb_hub_follow(text, path, size));
    if (path[0] != '\0')
        return MB_OK;
    MB_REQUIRE(!mb_hub_is_meant(text), MB_EMODEL,
               "there is no folder %.300s, and the cache does not have that model: `%s` fetches it",
               text, mb_hub_pull_command(text, command, sizeof command));
    return mb_path_join(path, size, "", text);
}

bool mb_hub_name_of_path(const char *path, mb_hub_name *out)
{
    static const char *const kinds[] = {"models--", "datasets--"};
    const char *at = strstr(path, "/snapshots/"), *from = at, *dashes;
    mb_hub_name n = {0};
    size_t kind = 0;

    if (at == NULL || strlen(at) < 11 + COMMIT ||
        (at[11 + COMMIT] != '\0' && at[11 + COMMIT] != '/'))
        return false;
    snprintf(n.revision, COMMIT + 1, "%s", at + 11);
    while (from > path && from[-1] != '/')
        from--;
    while (kind < 2 && strncmp(from, kinds[kind], strlen(kinds[kind])) != 0)
        kind++;
    if (kind == 2 || !mb_hub_commit_is(n.revision))
        return false;
    n.is_dataset = kind == 1;
    from += strlen(kinds[kind]);
    dashes = strstr(from, "--");
    if (dashes != NULL && dashes < at)
        snprintf(n.id, sizeof n.id, "%.*s/%.*s", (int)(dashes - from), from, (int)(at - dashes - 2),
                 dashes + 2);
    else
        snprintf(n.id, sizeof n.id, "%.*s", (int)(at - from), from);
    if (!mb_hub_id_is(n.id))
        return false;
    snprintf(n.file, sizeof n.file, "%s", at[11 + COMMIT] == '/' ? at + 12 + COMMIT : "");
    *out = n;
    return true;
}

const char *mb_hub_show(const char *path, char *text, size_t size)
{
    char there[MB_PATH_MAX] = "";
    mb_hub_name n;

    if (!mb_hub_name_of_path(path, &n))
        return path;
    if (mb_hub_path(&n, there, sizeof there) != MB_OK)
        mb_status_clear();
    if (strcmp(there, path) != 0)
        return path;
    snprintf(text, size, "%s%s@%s%s%s", n.is_dataset ? "dataset:" : "", n.id, n.revision,
             n.file[0] != '\0' ? "/" : "", n.file);
    return text;
}
