/* recipes/bundle/out.c - see recipes/bundle/out.h. */
#include "recipes/bundle/out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"

static const int64_t LEAST_PART = 1 << 16;

static void part_path(const mb_bundle_out *o, int part, char *path)
{
    snprintf(path, MB_PATH_MAX, "%.4000s.%0*d", o->stem, o->digits, part);
}

/* "NAME.mbuyu.tar.zst", its parts and what a killed run left of them. */
static bool is_part(const char *name, const char *base)
{
    const size_t n = strlen(base);

    if (strncmp(name, base, n) != 0)
        return false;
    name += n;
    if (*name == '.' && strspn(name + 1, "0123456789") > 0)
        name += 1 + strspn(name + 1, "0123456789");
    return *name == '\0' || mb_newfile_is_suffix(name) || strcmp(name, ".tmp") == 0;
}

static mb_status remove_leftovers(const mb_bundle_out *o, const char *dir)
{
    char path[MB_PATH_MAX];
    char **names;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        if (!is_part(names[i], mb_path_base(o->stem)))
            continue;
        st = mb_path_join(path, sizeof path, dir, names[i]);
        if (st != MB_OK)
            break;
        mb_log_info("%s belongs to no whole bundle: removed", path);
        if (unlink(path) != 0)
            st = MB_RAISE(MB_EIO, "'%s' cannot be removed: %s", path, strerror(errno));
    }
    mb_path_list_free(names, n);
    return st;
}

static void sums_path(const mb_bundle_out *o, char *path)
{
    snprintf(path, MB_PATH_MAX, "%.*s.sha256", (int)(strlen(o->stem) - strlen(".mbuyu.tar.zst")),
             o->stem);
}

mb_status mb_bundle_out_open(mb_bundle_out *o, const char *dir, const char *name, int64_t split,
                             int64_t most)
{
    char base[300], sums[MB_PATH_MAX];

    *o = (mb_bundle_out){.split = split, .digits = 3, .file = {.fd = -1}};
    MB_REQUIRE(mb_path_is_component(name) && strlen(name) <= 200, MB_EARG,
               "'%.200s' is no name for a bundle: it becomes part of file names", name);
    MB_REQUIRE(split >= LEAST_PART, MB_EARG, "parts of %lld bytes: at least %lld are needed",
               (long long)split, (long long)LEAST_PART);
    for (int64_t parts = most / split; parts >= 1000; parts /= 10)
        o->digits++;
    snprintf(base, sizeof base, "%s.mbuyu.tar.zst", name);
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_path_join(o->stem, sizeof o->stem - 32, dir, base));
    sums_path(o, sums);
    MB_REQUIRE(!mb_path_exists(sums), MB_EARG,
               "%s is there already: give another --name, or remove that bundle", sums);
    MB_TRY(mb_digest_new(&o->digest));
    return remove_leftovers(o, dir);
}

static mb_status end_part(mb_bundle_out *o)
{
    char path[MB_PATH_MAX], hex[MB_DIGEST_HEX];
    uint8_t digest[MB_DIGEST_BYTES];
    const bool alone = o->is_done && o->parts == 1;

    part_path(o, o->parts - 1, path);
    MB_TRY(mb_digest_end(o->digest, digest));
    mb_digest_hex(digest, hex);
    MB_TRY(mb_newfile_publish(&o->file));
    o->is_open = false;
    if (alone)
        MB_REQUIRE(rename(path, o->stem) == 0, MB_EIO, "'%s' cannot be renamed to '%s': %s", path,
                   o->stem, strerror(errno));
    mb_text_add(&o->sums, "%s  %s\n", hex, mb_path_base(alone ? o->stem : path));
    return o->sums.st;
}

static mb_status begin_part(mb_bundle_out *o)
{
    char path[MB_PATH_MAX];

    part_path(o, o->parts, path);
    MB_TRY(mb_newfile_open(path, &o->file));
    o->parts++;
    o->in_part = 0;
    o->is_open = true;
    return MB_OK;
}

mb_status mb_bundle_out_write(mb_bundle_out *o, const void *data, size_t n)
{
    for (const char *p = data; n > 0;) {
        if (o->is_open && o->in_part == o->split)
            MB_TRY(end_part(o));
        if (!o->is_open)
            MB_TRY(begin_part(o));
        const int64_t room = o->split - o->in_part;
        const size_t some = (int64_t)n < room ? n : (size_t)room;
        MB_TRY(mb_pwrite_all(o->file.fd, p, some, o->in_part, o->file.temporary));
        MB_TRY(mb_digest_add(o->digest, p, some));
        o->in_part += (int64_t)some;
        o->bytes += (int64_t)some;
        p += some;
        n -= some;
    }
    return MB_OK;
}

mb_status mb_bundle_out_finish(mb_bundle_out *o)
{
    char sums[MB_PATH_MAX], dir[MB_PATH_MAX];

    o->is_done = true;
    MB_TRY(end_part(o));
    MB_TRY(mb_path_dir(dir, sizeof dir, o->stem));
    MB_TRY(mb_path_sync_dir(dir));
    sums_path(o, sums);
    MB_TRY(mb_file_write_atomic(sums, o->sums.s, o->sums.n));
    o->parts = 0; /* nothing to remove any more */
    return MB_OK;
}

void mb_bundle_out_close(mb_bundle_out *o)
{
    char path[MB_PATH_MAX];

    mb_newfile_abandon(&o->file);
    for (int i = 0; i < o->parts; i++) {
        part_path(o, i, path);
        unlink(path);
    }
    if (o->parts > 0)
        unlink(o->stem);
    mb_digest_free(o->digest);
    mb_text_release(&o->sums);
}
