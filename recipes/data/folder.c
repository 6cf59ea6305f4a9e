/* recipes/data/folder.c - which file of a folder has a source's rows.
 *
 *     metadata.jsonl, .csv, .tsv      the folder holds pictures or sounds
 *     SPLIT.EXT, SPLIT-00000-of-00001.EXT, in the folder or in its folder data
 *
 * SPLIT is what the source's split begins with: train where it says nothing. validation may be
 * called valid, val or dev, as the datasets library has it. In an HDF5 file without datasets of its
 * own they are those of the group SPLIT.
 */
#include <stdio.h>
#include <string.h>

#include "core/path_below.h"
#include "recipes/config/dataset_files.h"
#include "recipes/data/hdf5.h"
#include "recipes/data/records.h"
#include "recipes/data/unpack.h"

/* Names of one split, the first as users say it. */
static const char *const same[][4] = {
    {"train", "training", NULL, NULL},
    {"validation", "valid", "val", "dev"},
    {"test", "testing", "eval", "evaluation"},
};

static bool has_name(const char *file, const char *name)
{
    const size_t n = strlen(name);
    mb_rowfile_kind kind;
    bool known;

    if (strncmp(file, name, n) != 0 || (file[n] != '.' && file[n] != '-'))
        return false;
    if (file[n] == '-' && strstr(file + n, "-of-") == NULL)
        return false;
    known = mb_rowfile_kind_of(file, &kind) == MB_OK;
    if (!known)
        mb_status_clear();
    return known;
}

/* What the split may be called, the name that was given first; ends with NULL. */
static void names_of(const char *split, const char *names[6])
{
    int n = 0;

    names[n++] = split;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        bool mine = false;

        for (int k = 0; k < 4 && same[i][k] != NULL; k++)
            mine |= strcmp(same[i][k], split) == 0;
        for (int k = 0; k < 4 && mine && same[i][k] != NULL; k++)
            names[n++] = same[i][k];
    }
    names[n] = NULL;
}

static bool is_split(const char *file, const char *split)
{
    const char *names[6];

    names_of(split, names);
    for (int i = 0; names[i] != NULL; i++)
        if (has_name(file, names[i]))
            return true;
    return false;
}

/* Looks through one folder; *n counts the files of the split, *out is the first. */
static mb_status look(const char *folder, const char *split, char *out, size_t size, int *n)
{
    char **names = NULL;
    size_t n_names;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(folder, &names, &n_names));
    for (size_t i = 0; i < n_names && st == MB_OK; i++) {
        if (is_split(names[i], split) && (*n)++ == 0)
            st = mb_path_join(out, size, folder, names[i]);
    }
    mb_path_list_free(names, n_names);
    return st;
}

static mb_status split_file(const mb_source *source, char *out, size_t size)
{
    char split[100], inner[MB_PATH_MAX];
    int n = 0;

    mb_dataset_split_name(source->split, split, sizeof split);
    MB_TRY(look(source->path, split, out, size, &n));
    MB_TRY(mb_path_join(inner, sizeof inner, source->path, "data"));
    if (n == 0 && mb_path_is_dir(inner))
        MB_TRY(look(inner, split, out, size, &n));
    MB_REQUIRE(
        n <= 1, MB_EDATA,
        "%s has %d files of the split %s; name each of them in datasets, as a block of its own",
        source->path, n, split);
    MB_REQUIRE(n == 1, MB_EDATA,
               "%s is a folder without metadata.jsonl, metadata.csv or metadata.tsv, and without a "
               "data file of the split %s (%s.jsonl, %s-00000-of-00001.parquet, ...)",
               source->path, split, split, split);
    MB_REQUIRE(mb_dataset_shards(out) <= 1, MB_EDATA,
               "%s is one of %lld files of the split %s, and the others are not beside it", out,
               (long long)mb_dataset_shards(out), split);
    return MB_OK;
}

mb_status mb_source_may_open(const mb_source *source, const char *path, char out[MB_PATH_MAX])
{
    if (source->within == NULL)
        return mb_path_join(out, MB_PATH_MAX, "", path);
    if (mb_path_real_below(path, source->within, out, MB_PATH_MAX) == MB_OK)
        return MB_OK;
    mb_status_clear();
    return MB_RAISE(MB_EDATA,
                    "there is no %.200s below the folders that may be read "
                    "(allowed_local_media_path)",
                    path);
}

static mb_status file_of(const mb_source *source, char *out, size_t size)
{
    MB_REQUIRE(source->path != NULL && source->path[0] != '\0', MB_EARG,
               "datasets: a block has no path");
    if (!mb_path_is_dir(source->path))
        return mb_path_join(out, size, "", source->path);
    return mb_dataset_metadata(source->path, out, size) ? MB_OK : split_file(source, out, size);
}

mb_status mb_source_file(const mb_source *source, char *out, size_t size)
{
    char path[MB_PATH_MAX], file[MB_PATH_MAX], split[100], real[MB_PATH_MAX];
    const char *names[6];

    MB_TRY(file_of(source, out, size));
    const bool hdf5 = mb_hdf5_file(out, file, sizeof file, NULL);
    MB_TRY(mb_source_may_open(source, file, real));
    if (!hdf5 || !mb_path_is_file(file))
        return MB_OK;
    snprintf(path, sizeof path, "%s", out);
    mb_dataset_split_name(source->split, split, sizeof split);
    names_of(split, names);
    return mb_hdf5_find(path, names, out, size);
}

static bool side(const char *file, size_t stem, const char *lang, const char *other, char *out)
{
    const size_t n = strlen(lang);

    return stem > n + 1 && file[stem - n - 1] == '.' && memcmp(file + stem - n, lang, n) == 0 &&
           snprintf(out, MB_PATH_MAX, "%.*s%s%s", (int)(stem - n), file, other, file + stem) <
               MB_PATH_MAX;
}

bool mb_source_sides(const mb_source *source, const char *file, char *from, char *to)
{
    const char *a = source->source_lang, *b = source->target_lang;
    const size_t stem = mb_unpack_stem(file);

    if (source->rows != MB_WANT_PAIRS || a == NULL || b == NULL || strcmp(a, b) == 0)
        return false;
    if (side(file, stem, a, b, to))
        return side(file, stem, a, a, from);
    return side(file, stem, b, a, from) && side(file, stem, b, b, to);
}
