/* recipes/bundle/items.c - what goes into a bundle, and under which name. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/bundle/bundle.h"
#include "recipes/config/hub_path.h"

void mb_bundle_items_release(mb_bundle_items *b)
{
    mb_bag_release(&b->bag);
    for (size_t i = 0; i < b->n; i++) {
        mb_free(b->item[i].source);
        mb_free(b->item[i].place);
    }
    mb_free(b->item);
    *b = (mb_bundle_items){0};
}

/* ---- files -------------------------------------------------------------------------------- */

static mb_status take_file(mb_bundle_items *b, const char *place, const char *source)
{
    mb_bag_file *f;
    int64_t size;
    int fd;

    MB_TRY(mb_file_open(source, MB_EDATA, &fd, &size));
    close(fd);
    MB_TRY(mb_bag_add(&b->bag, place, &f));
    f->size = size;
    return mb_strdup(source, &f->source);
}

static mb_status take_folder(mb_bundle_items *b, const char *place, const char *source, int depth)
{
    char path[MB_PATH_MAX], inside[MB_PATH_MAX];
    char **names = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_REQUIRE(depth < MB_BAG_DEEPEST, MB_EARG,
               "'%s' is nested deeper than %d folders, or a link leads back into it", source,
               MB_BAG_DEEPEST);
    MB_TRY(mb_path_list(source, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        if (names[i][0] == '.' || mb_path_has_suffix(names[i], ".tmp")) {
            b->hidden++;
            continue;
        }
        st = mb_path_join(path, sizeof path, source, names[i]);
        if (st == MB_OK)
            st = mb_path_join(inside, sizeof inside, place, names[i]);
        if (st == MB_OK)
            st = mb_path_is_dir(path) ? take_folder(b, inside, path, depth + 1)
                                      : take_file(b, inside, path);
    }
    mb_path_list_free(names, n);
    return st;
}

/* The absolute path of a folder or file; of a name on a hub, its place in the cache. A file's own name
 * stays, for in the cache it is a link to another. "": there is nothing. */
static mb_status locate(const char *what, bool is_data, char *real, size_t size)
{
    char path[MB_PATH_MAX], folder[MB_PATH_MAX];
    mb_hub_name name;

    real[0] = '\0';
    MB_TRY(mb_path_join(path, sizeof path, "", what));
    if (!mb_path_exists(what)) {
        if (!mb_hub_name_is(what))
            return MB_OK;
        MB_TRY(mb_hub_name_read(what, false, &name));
        name.is_dataset = is_data;
        MB_TRY(mb_hub_path(&name, path, sizeof path));
        if (!mb_path_exists(path))
            return MB_OK;
    }
    if (mb_path_is_dir(path))
        return mb_path_real(path, real, size);
    MB_TRY(mb_path_dir(folder, sizeof folder, path));
    MB_TRY(mb_path_real(folder, folder, sizeof folder));
    return mb_path_join(real, size, folder, mb_path_base(path));
}

mb_status mb_bundle_take(mb_bundle_items *b, const char *place, const char *source)
{
    char real[MB_PATH_MAX];

    MB_TRY(locate(source, false, real, sizeof real));
    MB_REQUIRE(real[0] != '\0', MB_EARG, "there is no '%s'", source);
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->item[i].source, real) == 0 && strcmp(b->item[i].place, place) == 0)
            return MB_OK;
    MB_TRY(mb_grow((void **)&b->item, &b->capacity, b->n + 1, sizeof *b->item, "a list of items"));
    mb_bundle_item *item = &b->item[b->n++];
    MB_TRY(mb_strdup(real, &item->source));
    MB_TRY(mb_strdup(place, &item->place));
    return mb_path_is_dir(real) ? take_folder(b, place, real, 0) : take_file(b, place, real);
}

mb_status mb_bundle_take_text(mb_bundle_items *b, const char *place, char *text)
{
    mb_bag_file *f;
    const mb_status st = mb_bag_add(&b->bag, place, &f);

    if (st != MB_OK) {
        mb_free(text);
        return st;
    }
    f->text = text;
    f->size = (int64_t)strlen(text);
    return MB_OK;
}

bool mb_bundle_find(const mb_bundle_items *b, const char *path, bool is_data, char *out,
                    size_t size)
{
    char real[MB_PATH_MAX];

    if (locate(path, is_data, real, sizeof real) != MB_OK)
        mb_status_clear();
    else if (real[0] != '\0')
        for (size_t i = 0; i < b->n; i++) {
            const size_t n = strlen(b->item[i].source);
            if (strncmp(b->item[i].source, real, n) == 0 && (real[n] == '\0' || real[n] == '/'))
                return (size_t)snprintf(out, size, "%s%s", b->item[i].place + strlen("data/"),
                                        real + n) < size;
        }
    return false;
}

/* ---- names -------------------------------------------------------------------------------- */

/* "ORG/NAME=PATH": the path, with "ORG/NAME" in `id`; NULL when it is not of this form. */
static const char *named(const char *what, char *id, size_t size)
{
    const char *equals = strchr(what, '=');

    if (equals == NULL || (size_t)(equals - what) >= size)
        return NULL;
    snprintf(id, size, "%.*s", (int)(equals - what), what);
    return strchr(id, '/') != NULL && mb_hub_id_is(id) ? equals + 1 : NULL;
}

/* ".../models/ORG/NAME", where folder is that path. */
static bool name_of_tree(const char *folder, const char *kind, char *id, size_t size)
{
    const size_t n = strlen(kind);
    const char *end = folder + strlen(folder), *org;

    for (org = end; org > folder && org[-1] != '/'; org--)
        ;
    for (org--; org > folder && org[-1] != '/'; org--)
        ;
    return org > folder + n + 1 && strncmp(org - n - 2, "/", 1) == 0 &&
           strncmp(org - n - 1, kind, n) == 0 && (size_t)snprintf(id, size, "%s", org) < size;
}

/* "train.jsonl.gz" -> "train". */
static mb_status name_of_base(const char *path, bool is_dir, char *id, size_t size)
{
    const char *base = mb_path_base(path), *dot = is_dir ? NULL : strchr(base, '.');
    const size_t n = dot != NULL && dot > base ? (size_t)(dot - base) : strlen(base);

    MB_REQUIRE(n > 0 && (size_t)snprintf(id, size, "local/%.*s", (int)n, base) < size, MB_EARG,
               "'%s' has no name that a bundle could use: give ORG/NAME=%s", path, path);
    return MB_OK;
}

/* The place of what lies at the absolute path `real`. */
static mb_status place_of(const char *real, const char *kind, const char *given, char *place,
                          size_t size)
{
    char folder[MB_PATH_MAX], id[MB_HUB_ID_MAX + 1];
    const bool is_dir = mb_path_is_dir(real);
    const char *base = is_dir ? "" : mb_path_base(real);
    mb_hub_name name;

    MB_TRY(is_dir ? mb_path_join(folder, sizeof folder, "", real)
                  : mb_path_dir(folder, sizeof folder, real));
    if (given != NULL) {
        snprintf(id, sizeof id, "%s", given);
    } else if (mb_hub_name_of_path(real, &name)) {
        snprintf(id, sizeof id, "%s", name.id);
        base = name.file;
    } else if (!name_of_tree(folder, kind, id, sizeof id)) {
        MB_TRY(name_of_base(real, is_dir, id, sizeof id));
    }
    MB_REQUIRE((size_t)snprintf(place, size, "data/%s/%s%s%s", kind, id, base[0] != '\0' ? "/" : "",
                                base) < size,
               MB_EARG, "'%s': the path is too long", real);
    return MB_OK;
}

/* kind is "models" or "datasets"; `code` says whose fault a wrong path is. */
static mb_status take(mb_bundle_items *b, const char *kind, const char *what, mb_status code)
{
    char real[MB_PATH_MAX], id[MB_HUB_ID_MAX + 1], place[MB_PATH_MAX];
    const bool is_data = code == MB_EDATA;
    const char *path = mb_path_exists(what) ? NULL : named(what, id, sizeof id);
    const char *given = path != NULL ? id : NULL;

    path = path != NULL ? path : what;
    MB_TRY(locate(path, is_data, real, sizeof real));
    MB_REQUIRE(real[0] != '\0', code, "there is no %s '%s'%s",
               is_data ? "data file or folder" : "model folder or .gguf file", path,
               mb_hub_name_is(path) ? ", and the hub's cache has none of that name either" : "");
    MB_TRY(place_of(real, kind, given, place, sizeof place));
    return mb_bundle_take(b, place, real);
}

mb_status mb_bundle_take_model(mb_bundle_items *b, const char *what)
{
    return take(b, "models", what, MB_EMODEL);
}

mb_status mb_bundle_take_data(mb_bundle_items *b, const char *what)
{
    return take(b, "datasets", what, MB_EDATA);
}

mb_status mb_bundle_take_run(mb_bundle_items *b, const char *what)
{
    char real[MB_PATH_MAX], place[MB_PATH_MAX];

    MB_REQUIRE(mb_path_is_dir(what), MB_EARG, "there is no folder of a run '%s'", what);
    MB_TRY(mb_path_real(what, real, sizeof real));
    MB_TRY(mb_path_join(place, sizeof place, "data/checkpoints", mb_path_base(real)));
    return mb_bundle_take(b, place, real);
}

mb_status mb_bundle_take_program(mb_bundle_items *b, const char *path)
{
    return mb_bundle_take(b, "data/bin/mbuyu", path);
}
