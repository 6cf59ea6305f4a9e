/* recipes/hub/push_files.c - the files of a push; see recipes/hub/push_inside.h. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/push_inside.h"

enum { DEEPEST = 32, MOST_FILES = 100000, PIECE = 1 << 20 };

/* Never sent, at any depth: what programs leave behind. */
static const char *const left_out[] = {".git",        ".cache", ".lock",       ".DS_Store",
                                       "__pycache__", "*.tmp",  "*.mbuyu.part"};

static bool matches(const mb_push_patterns *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (fnmatch(p->at[i], name, 0) == 0)
            return true;
    return false;
}

static bool is_left_out(const char *part)
{
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++)
        if (fnmatch(left_out[i], part, 0) == 0)
            return true;
    return false;
}

static mb_status grow(mb_push_list *l, mb_push_file **out)
{
    MB_REQUIRE(l->n < MOST_FILES, MB_EARG, "more than %d files", MOST_FILES);
    MB_TRY(mb_grow((void **)&l->at, &l->capacity, l->n + 1, sizeof *l->at, "a list of files"));
    *out = &l->at[l->n++];
    **out = (mb_push_file){0};
    return MB_OK;
}

static mb_status add(mb_push_list *l, const char *path, const char *name, int64_t size)
{
    mb_push_file *f = NULL;

    MB_REQUIRE(mb_hub_file_is(name), MB_EARG, "%s: a repository has no file of such a name", path);
    MB_TRY(grow(l, &f));
    f->size = size;
    MB_TRY(mb_strdup(name, &f->name));
    return mb_strdup(path, &f->path);
}

mb_status mb_push_list_add_text(mb_push_list *l, const char *name, char *text)
{
    mb_push_file *f = NULL;
    mb_status st;

    MB_TRY_GOTO(grow(l, &f), st, failed);
    f->text = text;
    f->size = (int64_t)strlen(text);
    return mb_strdup(name, &f->name);
failed:
    mb_free(text);
    return st;
}

static mb_status walk(const mb_push_options *o, mb_push_list *l, const char *below, int depth);

static mb_status entry(const mb_push_options *o, mb_push_list *l, const char *name, int depth)
{
    char path[MB_PATH_MAX];
    struct stat s, link;

    MB_TRY(mb_path_join(path, sizeof path, o->dir, name));
    if (is_left_out(mb_path_base(name)) || lstat(path, &link) != 0 || stat(path, &s) != 0) {
        l->skipped++;
        return MB_OK;
    }
    if (S_ISDIR(s.st_mode) && !S_ISLNK(link.st_mode)) {
        MB_REQUIRE(depth < DEEPEST, MB_EARG, "%s: more than %d folders deep", path, DEEPEST);
        return walk(o, l, name, depth + 1);
    }
    if (!S_ISREG(s.st_mode)) {
        mb_log_warn("%s: not sent, it is neither a file nor a folder", path);
        l->skipped++;
        return MB_OK;
    }
    if ((o->include.n > 0 && !matches(&o->include, name)) || matches(&o->exclude, name)) {
        l->skipped++;
        return MB_OK;
    }
    return add(l, path, name, (int64_t)s.st_size);
}

static mb_status walk(const mb_push_options *o, mb_push_list *l, const char *below, int depth)
{
    char dir[MB_PATH_MAX], name[MB_PATH_MAX], **names;
    mb_status st = MB_OK;
    size_t n;

    MB_TRY(mb_path_join(dir, sizeof dir, o->dir, below));
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        st = mb_path_join(name, sizeof name, below, names[i]);
        if (st == MB_OK)
            st = entry(o, l, name, depth);
    }
    mb_path_list_free(names, n);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mb_push_file *)a)->name, ((const mb_push_file *)b)->name);
}

mb_status mb_push_list_read(const mb_push_options *o, mb_push_list *out)
{
    MB_REQUIRE(mb_path_is_dir(o->dir), MB_EARG, "%s: there is no such folder", o->dir);
    MB_TRY(walk(o, out, "", 0));
    MB_REQUIRE(out->n > 0, MB_EARG, "%s: no file to send (%d left out)", o->dir, out->skipped);
    qsort(out->at, out->n, sizeof *out->at, by_name);
    return MB_OK;
}

void mb_push_list_release(mb_push_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        mb_free(l->at[i].name);
        mb_free(l->at[i].path);
        mb_free(l->at[i].text);
    }
    mb_free(l->at);
    *l = (mb_push_list){0};
}

mb_status mb_push_file_read(const mb_push_file *f, int64_t at, void *to, size_t n)
{
    int64_t size;
    mb_status st;
    int fd;

    if (f->path == NULL) {
        memcpy(to, f->text + at, n);
        return MB_OK;
    }
    MB_TRY(mb_file_open(f->path, MB_EIO, &fd, &size));
    st = size == f->size ? mb_pread_all(fd, to, n, at, f->path)
                         : MB_RAISE(MB_EIO, "%s: has changed since this push began", f->path);
    close(fd);
    return st;
}

static mb_status digest(const mb_push_file *f, mb_digest *d, char hex[MB_DIGEST_HEX])
{
    char *piece;
    mb_status st = MB_OK;

    MB_TRY(mb_alloc(PIECE, "a piece of a file", (void **)&piece));
    for (int64_t at = 0; at < f->size && st == MB_OK; at += PIECE) {
        const size_t n = f->size - at < PIECE ? (size_t)(f->size - at) : PIECE;
        st = mb_push_file_read(f, at, piece, n);
        if (st == MB_OK)
            st = mb_digest_add(d, piece, n);
    }
    mb_free(piece);
    MB_TRY(st);
    return mb_digest_end_hex(d, hex);
}

mb_status mb_push_file_sha256(mb_push_file *f)
{
    mb_digest *d;
    mb_status st;

    if (f->sha256[0] != '\0')
        return MB_OK;
    MB_TRY(mb_digest_new(&d));
    st = digest(f, d, f->sha256);
    mb_digest_free(d);
    return st;
}

mb_status mb_push_file_git(const mb_push_file *f, char hex[MB_DIGEST_HEX])
{
    mb_digest *d;
    mb_status st;

    MB_TRY(mb_digest_new_git_blob(f->size, &d));
    st = digest(f, d, hex);
    mb_digest_free(d);
    return st;
}
