/* recipes/bundle/parts_kept.c - bytes of parts whose stick may be gone the next time. A piece is a file
 * "PART.OFFSET" in the folder, whole when it has that name. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/bundle/parts.h"

enum { BUFFER = 1 << 20 };

static mb_status open_piece(mb_parts *p, const char *name)
{
    char path[MB_PATH_MAX];
    mb_kept k = {0};
    char *end;

    k.part = strtoll(name, &end, 10);
    if (end == name || *end != '.' || k.part < 0 || k.part >= p->n)
        return MB_OK;
    name = end + 1;
    k.at = strtoll(name, &end, 10);
    if (end == name || *end != '\0' || k.at < 0)
        return MB_OK;
    MB_TRY(mb_path_join(path, sizeof path, p->kept_dir, ""));
    snprintf(path + strlen(path), sizeof path - strlen(path), "%" PRId64 ".%" PRId64, k.part, k.at);
    MB_TRY(mb_grow((void **)&p->kept, &p->kept_capacity, p->n_kept + 1, sizeof k, "kept pieces"));
    MB_TRY(mb_file_open(path, MB_EIO, &k.fd, &k.n));
    p->kept[p->n_kept++] = k;
    return MB_OK;
}

mb_status mb_parts_kept(mb_parts *p, const char *dir)
{
    char **names;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY(mb_strdup(dir, &p->kept_dir));
    if (!mb_path_is_dir(dir))
        return MB_OK;
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++)
        st = open_piece(p, names[i]);
    mb_path_list_free(names, n);
    return st;
}

static mb_status copy(const mb_part *part, int64_t at, int64_t n, mb_newfile *f)
{
    void *buffer;
    mb_status st = MB_OK;

    MB_TRY(mb_alloc(BUFFER, "a copy", &buffer));
    for (int64_t done = 0; done < n && st == MB_OK;) {
        const size_t some = n - done < BUFFER ? (size_t)(n - done) : BUFFER;
        st = mb_pread_all(part->fd, buffer, some, at + done, part->path);
        if (st == MB_OK)
            st = mb_pwrite_all(f->fd, buffer, some, done, f->temporary);
        done += (int64_t)some;
    }
    mb_free(buffer);
    return st;
}

mb_status mb_parts_keep(mb_parts *p, int64_t part, int64_t at, int64_t n)
{
    char name[64], path[MB_PATH_MAX];
    mb_newfile f;
    mb_status st;

    for (size_t i = 0; i < p->n_kept; i++)
        if (p->kept[i].part == part && p->kept[i].at <= at &&
            p->kept[i].at + p->kept[i].n >= at + n)
            return MB_OK;
    snprintf(name, sizeof name, "%" PRId64 ".%" PRId64, part, at);
    MB_TRY(mb_path_mkdirs(p->kept_dir));
    MB_TRY(mb_path_join(path, sizeof path, p->kept_dir, name));
    MB_TRY(mb_newfile_open(path, &f));
    st = copy(&p->part[part], at, n, &f);
    if (st == MB_OK)
        st = mb_newfile_publish(&f);
    mb_newfile_abandon(&f);
    return st;
}
