/* recipes/hub/shelf_tree.c - see recipes/hub/shelf_tree.h. shelf_tree_text.c reads and writes. */
#include "recipes/hub/shelf_tree.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

enum { LARGE = 1 << 20 };

mb_status mb_shelf_tree_new(mb_shelf_tree **out)
{
    MB_TRY(MB_NEW(out));
    atomic_init(&(*out)->refs, 1);
    return MB_OK;
}

mb_shelf_tree *mb_shelf_tree_ref(mb_shelf_tree *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void mb_shelf_tree_unref(mb_shelf_tree *t)
{
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) > 1)
        return;
    for (size_t i = 0; i < t->n; i++)
        mb_free(t->files[i].path);
    mb_free(t->files);
    mb_free(t->title);
    mb_free(t->message);
    mb_free(t->author);
    mb_free(t->card);
    mb_free(t);
}

static mb_status append(mb_shelf_tree *t, const mb_shelf_file *file)
{
    MB_TRY(
        mb_grow((void **)&t->files, &t->capacity, t->n + 1, sizeof *t->files, "a list of files"));
    t->files[t->n] = *file;
    MB_TRY(mb_strdup(file->path, &t->files[t->n].path));
    t->n++;
    return MB_OK;
}

mb_status mb_shelf_tree_copy(const mb_shelf_tree *from, mb_shelf_tree **out)
{
    mb_shelf_tree *t;
    mb_status st = MB_OK;

    MB_TRY(mb_shelf_tree_new(&t));
    for (size_t i = 0; i < from->n && st == MB_OK; i++)
        st = append(t, &from->files[i]);
    if (st != MB_OK) {
        mb_shelf_tree_unref(t);
        return st;
    }
    *out = t;
    return MB_OK;
}

mb_status mb_shelf_tree_words(mb_shelf_tree *t, const char *title, const char *message,
                              const char *author)
{
    const char *const words[] = {title, message, author};
    char **const to[] = {&t->title, &t->message, &t->author};

    for (int i = 0; i < 3; i++) {
        mb_free(*to[i]);
        *to[i] = NULL;
        MB_TRY(mb_strdup(words[i], to[i]));
    }
    return MB_OK;
}

size_t mb_shelf_tree_from(const mb_shelf_tree *t, const char *path)
{
    size_t lo = 0, hi = t->n;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (strcmp(t->files[mid].path, path) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const mb_shelf_file *mb_shelf_tree_find(const mb_shelf_tree *t, const char *path)
{
    const size_t i = mb_shelf_tree_from(t, path);

    return i < t->n && strcmp(t->files[i].path, path) == 0 ? &t->files[i] : NULL;
}

/* "path/": the files below it are the ones that begin so, and stand together. */
static size_t first_below(const mb_shelf_tree *t, const char *path, char *prefix, size_t size)
{
    snprintf(prefix, size, "%s/", path);
    return mb_shelf_tree_from(t, prefix);
}

bool mb_shelf_tree_has_folder(const mb_shelf_tree *t, const char *path)
{
    char prefix[MB_SHELF_FILE_MAX + 2];

    if (path[0] == '\0')
        return true;
    const size_t i = first_below(t, path, prefix, sizeof prefix);
    return i < t->n && strncmp(t->files[i].path, prefix, strlen(prefix)) == 0;
}

/* Is a folder above `path` a file? */
static bool under_a_file(const mb_shelf_tree *t, const char *path)
{
    char above[MB_SHELF_FILE_MAX + 1];

    snprintf(above, sizeof above, "%s", path);
    for (char *slash; (slash = strrchr(above, '/')) != NULL;) {
        *slash = '\0';
        if (mb_shelf_tree_find(t, above) != NULL)
            return true;
    }
    return false;
}

mb_status mb_shelf_tree_put(mb_shelf_tree *t, const mb_shelf_file *file)
{
    const size_t i = mb_shelf_tree_from(t, file->path);
    mb_shelf_file copy = *file;

    if (i < t->n && strcmp(t->files[i].path, file->path) == 0) {
        copy.path = t->files[i].path;
        t->files[i] = copy;
        return MB_OK;
    }
    MB_REQUIRE(t->n < MB_SHELF_FILES_MAX, MB_EDATA, "more than %d files in one repository",
               MB_SHELF_FILES_MAX);
    MB_REQUIRE(!mb_shelf_tree_has_folder(t, file->path) && !under_a_file(t, file->path), MB_EDATA,
               "'%s' would be a file and a folder", file->path);
    MB_TRY(append(t, file));
    copy = t->files[t->n - 1];
    memmove(t->files + i + 1, t->files + i, (t->n - 1 - i) * sizeof *t->files);
    t->files[i] = copy;
    return MB_OK;
}

bool mb_shelf_tree_remove(mb_shelf_tree *t, const char *path, bool folder)
{
    char prefix[MB_SHELF_FILE_MAX + 2];
    size_t first, end;

    if (!folder) {
        const mb_shelf_file *f = mb_shelf_tree_find(t, path);
        if (f == NULL)
            return false;
        first = (size_t)(f - t->files);
        end = first + 1;
    } else {
        first = first_below(t, path, prefix, sizeof prefix);
        for (end = first; end < t->n && strncmp(t->files[end].path, prefix, strlen(prefix)) == 0;)
            end++;
    }
    for (size_t i = first; i < end; i++)
        mb_free(t->files[i].path);
    if (end > first)
        memmove(t->files + first, t->files + end, (t->n - end) * sizeof *t->files);
    t->n -= end - first;
    return end > first;
}

bool mb_shelf_file_same(const mb_shelf_file *a, const mb_shelf_file *b)
{
    if (a->size != b->size)
        return false;
    if (a->sha256[0] != '\0' && b->sha256[0] != '\0')
        return strcmp(a->sha256, b->sha256) == 0;
    return strcmp(a->oid, b->oid) == 0;
}

bool mb_shelf_tree_same(const mb_shelf_tree *a, const mb_shelf_tree *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->files[i].path, b->files[i].path) != 0 || a->files[i].lfs != b->files[i].lfs ||
            !mb_shelf_file_same(&a->files[i], &b->files[i]))
            return false;
    return true;
}

mb_status mb_shelf_pointer(const char *sha256, int64_t size, char oid[MB_SHELF_OID], int64_t *bytes)
{
    char text[200], hex[MB_DIGEST_HEX];
    mb_digest *d;
    const int n = snprintf(text, sizeof text,
                           "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %lld\n",
                           sha256, (long long)size);

    MB_TRY(mb_digest_new_git_blob(n, &d));
    mb_status st = mb_digest_add(d, text, (size_t)n);
    if (st == MB_OK)
        st = mb_digest_end_hex(d, hex);
    mb_digest_free(d);
    MB_TRY(st);
    snprintf(oid, MB_SHELF_OID, "%.40s", hex);
    *bytes = n;
    return MB_OK;
}

bool mb_shelf_is_lfs(int64_t size, const void *start, size_t n)
{
    const unsigned char *p = start;

    if (size > LARGE)
        return true;
    for (size_t i = 0; i < n; i++)
        if (p[i] < 32 && (p[i] < 7 || p[i] > 13) && p[i] != 27)
            return true;
    return false;
}
