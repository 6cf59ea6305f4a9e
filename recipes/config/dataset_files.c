/* recipes/config/dataset_files.c - see recipes/config/dataset_files.h. */
#include "recipes/config/dataset_files.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/config/yaml.h"

enum { MOST_README = 1 << 20, DEEPEST = 8 };

/* What train-00001-of-00003.parquet says. */
struct shard {
    int64_t prefix;      /* characters before -00001-of-; 0: the name is no shard's */
    int64_t index, of;   /* 1, 3 */
    int64_t from, width; /* where the index stands */
};

/* The data files below a folder by their names in it, in order; and those of them that were chosen. */
struct listing {
    mb_arena *arena;
    const char *dir;
    const char *name[MB_DATASET_FILES_MAX];
    struct shard shard[MB_DATASET_FILES_MAX];
    bool chosen[MB_DATASET_FILES_MAX];
    int64_t n;
    int deepest;       /* folders within folders that are looked into */
    const char *split; /* only shards of this split; NULL: all */
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

bool mb_dataset_metadata(const char *dir, char *out, size_t size)
{
    static const char *const names[] = {"metadata.jsonl", "metadata.csv", "metadata.tsv"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (mb_path_join(out, size, dir, names[i]) == MB_OK && mb_path_is_file(out))
            return true;
    mb_status_clear();
    return false;
}

static int64_t digits(const char *text)
{
    return (int64_t)strspn(text, "0123456789");
}

/* The last -DIGITS-of-DIGITS that ends before a dot, or before a dash and what hubs put there. */
static struct shard shard_of(const char *name)
{
    struct shard s = {0};

    for (const char *p = mb_path_base(name); (p = strchr(p, '-')) != NULL; p++) {
        const int64_t n = digits(p + 1);
        const char *of = p + 1 + n;
        const int64_t m = strncmp(of, "-of-", 4) == 0 ? digits(of + 4) : 0;

        if (n < 1 || n > 9 || m < 1 || m > 9 || (of[4 + m] != '.' && of[4 + m] != '-'))
            continue;
        s = (struct shard){.prefix = p - name,
                           .index = strtol(p + 1, NULL, 10),
                           .of = strtol(of + 4, NULL, 10),
                           .from = p + 1 - name,
                           .width = n};
    }
    return s;
}

int64_t mb_dataset_shards(const char *name)
{
    return shard_of(name).of;
}

void mb_dataset_split_name(const char *split, char *out, size_t size)
{
    snprintf(out, size, "%.*s", split != NULL ? (int)strcspn(split, "[+ ") : 5,
             split != NULL ? split : "train");
}

static bool is_wanted(const struct listing *l, const char *name, struct shard s)
{
    const char *base = mb_path_base(name);
    const size_t n = l->split != NULL ? strlen(l->split) : 0;

    return mb_dataset_is_file(base) &&
           (l->split == NULL ||
            (s.prefix > 0 && name + s.prefix == base + n && strncmp(base, l->split, n) == 0));
}

static mb_status add(struct listing *l, const char *name)
{
    const struct shard s = shard_of(name);

    if (!is_wanted(l, name, s))
        return MB_OK;
    MB_REQUIRE(
        l->n < MB_DATASET_FILES_MAX, MB_EDATA,
        "%s holds more than %d data files; name those that are meant, each in a block of its "
        "own",
        l->dir, MB_DATASET_FILES_MAX);
    l->shard[l->n] = s;
    return mb_arena_strdup(l->arena, name, &l->name[l->n++]);
}

static mb_status list(struct listing *l, const char *inner, int depth)
{
    char path[MB_PATH_MAX], below[MB_PATH_MAX], **name = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, l->dir, inner));
    MB_TRY(mb_path_list(path, &name, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        if (name[i][0] == '.')
            continue;
        st = mb_path_join(below, sizeof below, inner, name[i]);
        if (st == MB_OK)
            st = mb_path_join(path, sizeof path, l->dir, below);
        if (st == MB_OK && mb_path_is_dir(path))
            st = depth < l->deepest ? list(l, below, depth + 1) : MB_OK;
        else if (st == MB_OK)
            st = add(l, below);
    }
    mb_path_list_free(name, n);
    return st;
}

/* ---- patterns ------------------------------------------------------------------------------- */

/* One name between slashes. */
static bool matches_part(const char *pattern, size_t n, const char *name, size_t m)
{
    char p[256], text[256];

    if (n >= sizeof p || m >= sizeof text)
        return false;
    snprintf(p, sizeof p, "%.*s", (int)n, pattern);
    snprintf(text, sizeof text, "%.*s", (int)m, name);
    return fnmatch(p, text, 0) == 0;
}

/* A ** between slashes stands for any folders, also for none; at the end for all that is below. */
static bool matches(const char *pattern, const char *name)
{
    size_t n, m;

    while (strncmp(pattern, "./", 2) == 0)
        pattern += 2;
    while (strncmp(pattern, "**/**/", 6) == 0)
        pattern += 3;
    n = strcspn(pattern, "/");
    m = strcspn(name, "/");
    if (strcmp(pattern, "**") == 0)
        return true;
    if (strncmp(pattern, "**/", 3) == 0)
        return matches(pattern + 3, name) || (name[m] == '/' && matches(pattern, name + m + 1));
    if (!matches_part(pattern, n, name, m) || pattern[n] != name[m])
        return false;
    return pattern[n] == '\0' || matches(pattern + n + 1, name + m + 1);
}

/* ---- shards --------------------------------------------------------------------------------- */

static bool beside(const struct listing *l, int64_t i, int64_t k)
{
    return l->shard[i].prefix == l->shard[k].prefix &&
           strncmp(l->name[i], l->name[k], (size_t)l->shard[i].prefix) == 0;
}

/* Those beside shard i that the pattern takes: one of each number, from 0 or from 1, and all say of how
 * many. `seen` has room for MB_DATASET_FILES_MAX + 1. */
static mb_status check_beside(const struct listing *l, const char *pattern, int64_t i, bool *seen)
{
    const struct shard *s = &l->shard[i];
    char name[MB_PATH_MAX];
    int64_t first;

    MB_REQUIRE(s->of <= MB_DATASET_FILES_MAX, MB_EDATA,
               "%s: %s is one of %lld files; %d are the most", l->dir, l->name[i], (long long)s->of,
               MB_DATASET_FILES_MAX);
    memset(seen, 0, (size_t)(s->of + 1) * sizeof *seen);
    for (int64_t k = 0; k < l->n; k++) {
        const struct shard *other = &l->shard[k];

        if (!beside(l, i, k) || !matches(pattern, l->name[k]))
            continue;
        MB_REQUIRE(other->of == s->of && other->index <= s->of && !seen[other->index] &&
                       !(seen[0] && other->index == s->of),
                   MB_EDATA, "%s: %s and %s are not of one set of files; remove those that are old",
                   l->dir, l->name[i], l->name[k]);
        seen[other->index] = true;
    }
    first = seen[s->of] ? 1 : 0;
    for (int64_t k = first; k < first + s->of; k++) {
        snprintf(name, sizeof name, "%.*s%0*lld%s", (int)s->from, l->name[i], (int)s->width,
                 (long long)k, l->name[i] + s->from + s->width);
        MB_REQUIRE(seen[k] || !matches(pattern, name), MB_EDATA,
                   "%s: there is no %s, which is one of %lld files", l->dir, name,
                   (long long)s->of);
    }
    return MB_OK;
}

static mb_status check_shards(const struct listing *l, const char *pattern)
{
    bool seen[MB_DATASET_FILES_MAX + 1];

    for (int64_t i = 0; i < l->n; i++) {
        int64_t first = 0;

        if (l->shard[i].prefix == 0 || !matches(pattern, l->name[i]))
            continue;
        while (first < i && !(beside(l, first, i) && matches(pattern, l->name[first])))
            first++;
        if (first == i)
            MB_TRY(check_beside(l, pattern, i, seen));
    }
    return MB_OK;
}

/* ---- what README.md says -------------------------------------------------------------------- */

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
    return check_shards(l, pattern->text);
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
    char inner[MB_PATH_MAX];
    int64_t outer;

    l->n = 0;
    l->deepest = 0;
    l->split = split;
    MB_TRY(list(l, "", 0));
    outer = l->n;
    MB_TRY(mb_path_join(inner, sizeof inner, l->dir, "data"));
    if (mb_path_is_dir(inner))
        MB_TRY(list(l, "data", 0));
    MB_REQUIRE(outer == 0 || outer == l->n, MB_EDATA,
               "%s: %s and %s are not of one set of files; remove those that are old", l->dir,
               l->name[0], l->name[outer]);
    for (int64_t i = 0; i < l->n; i++)
        l->chosen[i] = true;
    return check_shards(l, "**");
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
        MB_TRY(mb_arena_strdup(l->arena, path, &(*file)[(*n)++]));
    }
    return MB_OK;
}

mb_status mb_dataset_files(mb_arena *a, const char *dir, const char *split, const char ***file,
                           int64_t *n)
{
    struct listing *l;
    char name[100];
    mb_status st;

    mb_dataset_split_name(split, name, sizeof name);
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
