/* recipes/config/dataset_files.c - see recipes/config/dataset_files.h. */
#include "recipes/config/dataset_files.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/config/yaml.h"

enum { MOST_README = 1 << 20, DEEPEST = 8 };

/* The data files below a folder by their names in it, in order; and those of them that were chosen. */
struct listing {
    mb_arena *arena;
    const char *dir;
    const char *name[MB_DATASET_FILES_MAX];
    bool chosen[MB_DATASET_FILES_MAX];
    int64_t n;
    int deepest; /* folders within folders that are looked into */
};

bool mb_dataset_is_file(const char *name)
{
    static const char *const ends[] = {".jsonl", ".json",    ".csv", ".tsv",
                                       ".txt",   ".parquet", ".h5",  ".hdf5"};
    static const char *const packed[] = {".gz", ".zst"};
    char plain[256];

    snprintf(plain, sizeof plain, "%s", name);
    for (size_t i = 0; i < sizeof packed / sizeof packed[0]; i++)
        if (mb_path_has_suffix(plain, packed[i]))
            plain[strlen(plain) - strlen(packed[i])] = '\0';
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (mb_path_has_suffix(plain, ends[i]))
            return true;
    return false;
}

static mb_status keep(mb_arena *a, const char *text, const char **out)
{
    void *p;

    MB_TRY(mb_arena_take(a, strlen(text) + 1, &p));
    memcpy(p, text, strlen(text) + 1);
    *out = p;
    return MB_OK;
}

static mb_status list(struct listing *l, const char *inner, int depth)
{
    char path[MB_PATH_MAX], below[MB_PATH_MAX], **name = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, l->dir, inner));
    MB_TRY(mb_path_list(path, &name, &n));
    for (size_t i = 0; i < n && st == MB_OK && l->n < MB_DATASET_FILES_MAX; i++) {
        if (name[i][0] == '.')
            continue;
        st = mb_path_join(below, sizeof below, inner, name[i]);
        if (st == MB_OK)
            st = mb_path_join(path, sizeof path, l->dir, below);
        if (st == MB_OK && mb_path_is_dir(path) && depth < l->deepest)
            st = list(l, below, depth + 1);
        else if (st == MB_OK && mb_dataset_is_file(name[i]))
            st = keep(l->arena, below, &l->name[l->n++]);
    }
    mb_path_list_free(name, n);
    return st;
}

/* ---- what README.md says -------------------------------------------------------------------- */

/* ** stands for any folders, also for none. */
static bool matches(const char *pattern, const char *name)
{
    if (strncmp(pattern, "./", 2) == 0)
        pattern += 2;
    if (strstr(pattern, "**") == NULL)
        return fnmatch(pattern, name, FNM_PATHNAME) == 0;
    return fnmatch(pattern, name, 0) == 0 ||
           (strncmp(pattern, "**/", 3) == 0 && fnmatch(pattern + 3, name, 0) == 0);
}

static mb_status choose(struct listing *l, const mb_yaml *pattern)
{
    bool any = false;

    for (const mb_yaml *y = pattern->first; pattern->kind == MB_YAML_LIST && y != NULL; y = y->next)
        MB_TRY(choose(l, y));
    if (pattern->kind != MB_YAML_SCALAR)
        return MB_OK;
    for (int64_t i = 0; i < l->n; i++)
        if (matches(pattern->text, l->name[i]))
            any = l->chosen[i] = true;
    MB_REQUIRE(any, MB_EDATA, "%s: no data file here is called %s, which its README.md names",
               l->dir, pattern->text);
    return MB_OK;
}

static bool is(const mb_yaml *y, const char *text)
{
    return y != NULL && y->kind == MB_YAML_SCALAR && strcmp(y->text, text) == 0;
}

/* data_files: patterns alone are of train; else {split, path} each. */
static mb_status choose_split(struct listing *l, const mb_yaml *files, const char *split)
{
    const bool train = strcmp(split, "train") == 0;

    if (files->kind == MB_YAML_SCALAR)
        return train ? choose(l, files) : MB_OK;
    for (const mb_yaml *y = files->first; files->kind == MB_YAML_LIST && y != NULL; y = y->next) {
        const mb_yaml *path = mb_yaml_child(y, "path");

        if (y->kind == MB_YAML_SCALAR && train)
            MB_TRY(choose(l, y));
        else if (y->kind == MB_YAML_MAP && path != NULL && is(mb_yaml_child(y, "split"), split))
            MB_TRY(choose(l, path));
    }
    return MB_OK;
}

/* The config that is meant, NULL where none has data_files. */
static mb_status config_of(const char *dir, const mb_yaml *configs, const mb_yaml **out)
{
    char names[256] = "";
    size_t at = 0;
    int n = 0;

    *out = NULL;
    for (const mb_yaml *y = configs->first; configs->kind == MB_YAML_LIST && y != NULL;
         y = y->next) {
        const mb_yaml *name = y->kind == MB_YAML_MAP ? mb_yaml_child(y, "config_name") : NULL;

        if (y->kind != MB_YAML_MAP || mb_yaml_child(y, "data_files") == NULL)
            continue;
        *out = y;
        if (is(name, "default") || is(mb_yaml_child(y, "default"), "true"))
            return MB_OK;
        if (at < sizeof names)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", n > 0 ? ", " : "",
                                   name != NULL && name->kind == MB_YAML_SCALAR ? name->text : "?");
        n++;
    }
    MB_REQUIRE(
        n <= 1, MB_EDATA,
        "%s: its README.md has the configs %s and none of them is the default; name the files", dir,
        names);
    return MB_OK;
}

/* What stands between "---" lines at the beginning of README.md; NULL: nothing, or nothing to be read. */
static mb_status front_matter(mb_arena *a, const char *dir, const mb_yaml **out)
{
    char path[MB_PATH_MAX], *text = NULL;
    mb_yaml *y = NULL;
    size_t n = 0;

    *out = NULL;
    MB_TRY(mb_path_join(path, sizeof path, dir, "README.md"));
    if (!mb_path_is_file(path))
        return MB_OK;
    if (mb_file_read(path, MOST_README, &text, &n) == MB_OK && strncmp(text, "---\n", 4) == 0) {
        const char *end = strstr(text + 3, "\n---");

        if (end != NULL && end > text + 3 &&
            mb_yaml_parse(a, path, text + 4, (size_t)(end - text) - 3, &y) == MB_OK)
            *out = y;
    }
    mb_free(text);
    mb_status_clear(); /* a card that cannot be read says nothing of files */
    return MB_OK;
}

static mb_status of_readme(struct listing *l, const char *split)
{
    const mb_yaml *card, *configs, *config = NULL;

    MB_TRY(front_matter(l->arena, l->dir, &card));
    configs = card != NULL ? mb_yaml_child(card, "configs") : NULL;
    if (configs != NULL)
        MB_TRY(config_of(l->dir, configs, &config));
    if (config == NULL)
        return MB_OK;
    l->deepest = DEEPEST;
    MB_TRY(list(l, "", 0));
    return choose_split(l, mb_yaml_child(config, "data_files"), split);
}

/* ---- names ---------------------------------------------------------------------------------- */

static mb_status of_names(struct listing *l, const char *split)
{
    char pattern[2][160], inner[MB_PATH_MAX];

    l->n = 0;
    l->deepest = 0;
    memset(l->chosen, 0, sizeof l->chosen);
    MB_TRY(list(l, "", 0));
    MB_TRY(mb_path_join(inner, sizeof inner, l->dir, "data"));
    if (mb_path_is_dir(inner))
        MB_TRY(list(l, "data", 0));
    snprintf(pattern[0], sizeof pattern[0], "%s-[0-9]*-of-[0-9]*", split);
    snprintf(pattern[1], sizeof pattern[1], "data/%s-[0-9]*-of-[0-9]*", split);
    for (int64_t i = 0; i < l->n; i++)
        for (int k = 0; k < 2; k++)
            l->chosen[i] |= fnmatch(pattern[k], l->name[i], FNM_PATHNAME) == 0;
    return MB_OK;
}

static mb_status chosen(const struct listing *l, const char ***file, int64_t *n)
{
    char path[MB_PATH_MAX];
    void *p;

    MB_TRY(mb_arena_take(l->arena, (size_t)(l->n + 1) * sizeof **file, &p));
    *file = p;
    *n = 0;
    for (int64_t i = 0; i < l->n; i++) {
        if (!l->chosen[i])
            continue;
        MB_TRY(mb_path_join(path, sizeof path, l->dir, l->name[i]));
        MB_TRY(keep(l->arena, path, &(*file)[(*n)++]));
    }
    return MB_OK;
}

mb_status mb_dataset_files(mb_arena *a, const char *dir, const char *split, const char ***file,
                           int64_t *n)
{
    struct listing *l;
    char name[64];
    mb_status st;

    snprintf(name, sizeof name, "%.*s", (int)strcspn(split, "[+ "), split);
    MB_TRY(MB_NEW(&l));
    l->arena = a;
    l->dir = dir;
    MB_TRY_GOTO(of_readme(l, name), st, done);
    MB_TRY_GOTO(chosen(l, file, n), st, done);
    if (*n == 0) {
        MB_TRY_GOTO(of_names(l, name), st, done);
        st = chosen(l, file, n);
    }
done:
    mb_free(l);
    return st;
}
