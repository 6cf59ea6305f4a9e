/* recipes/hub/depot_tree.c - lists of files, and files. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/depot_inside.h"

enum { TREE_PAGE = 1000, EXPANDED_PAGE = 100, PATHS_MAX = 1000 };

/* A revision and what follows it: "main/a/b" -> main, "a/b". A slash may belong to the revision
 * ("refs/pr/1"), so the shortest beginning that is one is taken. */
static mb_status split(mb_depot *d, const mb_shelf_brief *b, const char *rest, mb_shelf_tree **t,
                       const char **path, mb_shelf_miss *miss)
{
    char rev[300];
    mb_status st = MB_OK;
    bool first = true;

    for (size_t n = strcspn(rest, "/");; n += 1 + strcspn(rest + n + 1, "/")) {
        mb_shelf_miss why;
        if (n >= sizeof rev)
            break;
        memcpy(rev, rest, n);
        rev[n] = '\0';
        const mb_status tried = mb_shelf_tree_get(d->shelf, b->kind, b->id, rev, t, &why);
        if (tried == MB_OK) {
            mb_status_clear();
            *path = rest[n] == '/' ? rest + n + 1 : rest + n;
            *miss = MB_SHELF_NO_MISS;
            return MB_OK;
        }
        if (first) {
            st = tried;
            *miss = why;
        }
        first = false;
        if (why != MB_SHELF_NO_REVISION || rest[n] == '\0')
            break;
    }
    if (first) { /* nothing was tried: the part before the slash is longer than any revision */
        *miss = MB_SHELF_NO_REVISION;
        st = MB_RAISE(MB_EDATA, "%s has no revision '%.100s...'", b->id, rest);
    }
    return st;
}

static mb_status set_last(mb_depot *d, const mb_shelf_brief *b, mb_json o, const char *commit)
{
    mb_shelf_tree *t = NULL;
    mb_shelf_miss miss;
    char when[32];
    mb_json last;
    mb_status st;

    if (mb_shelf_tree_get(d->shelf, b->kind, b->id, commit, &t, &miss) != MB_OK) {
        mb_status_clear();
        return mb_json_set_null(o, "lastCommit");
    }
    MB_TRY_GOTO(mb_json_set_object(o, "lastCommit", &last), st, done);
    MB_TRY_GOTO(mb_json_set_string(last, "id", t->commit), st, done);
    MB_TRY_GOTO(mb_json_set_string(last, "title", t->title), st, done);
    st = mb_json_set_string(last, "date", mb_depot_time(t->date, when));
done:
    mb_shelf_tree_unref(t);
    return st;
}

/* A folder has no object here; its name is made of its content's. */
static mb_status folder_oid(const mb_shelf_tree *t, const char *path, char oid[MB_SHELF_OID])
{
    char hex[MB_DIGEST_HEX], prefix[MB_SHELF_FILE_MAX + 2];
    mb_digest *sum;
    mb_status st;

    MB_TRY(mb_digest_new_sha1(&sum));
    const size_t n = (size_t)snprintf(prefix, sizeof prefix, "%s/", path);
    st = MB_OK;
    for (size_t i = mb_shelf_tree_from(t, prefix);
         i < t->n && strncmp(t->files[i].path, prefix, n) == 0 && st == MB_OK; i++) {
        st = mb_digest_add(sum, t->files[i].path + n, strlen(t->files[i].path + n) + 1);
        if (st == MB_OK)
            st = mb_digest_add(sum, t->files[i].oid, MB_SHELF_OID);
    }
    if (st == MB_OK)
        st = mb_digest_end_hex(sum, hex);
    mb_digest_free(sum);
    MB_TRY(st);
    snprintf(oid, MB_SHELF_OID, "%.40s", hex);
    return MB_OK;
}

/* The name of a folder that was asked for, made once however often it is asked for. */
struct folder {
    char *path;
    char oid[MB_SHELF_OID];
};

struct listing {
    mb_depot *d;
    const mb_shelf_brief *b;
    const mb_shelf_tree *t;
    bool expand;
    mb_json list;
    int64_t n;
    int asked;              /* paths of a request, found or not */
    struct folder *folders; /* of paths-info: those answered so far */
    size_t n_folders, capacity;
};

static mb_status set_folder(struct listing *l, const char *path, const char *oid)
{
    mb_json o;

    MB_TRY(mb_json_set_object(l->list, NULL, &o));
    MB_TRY(mb_json_set_string(o, "type", "directory"));
    MB_TRY(mb_json_set_string(o, "oid", oid));
    MB_TRY(mb_json_set_int(o, "size", 0));
    MB_TRY(mb_json_set_string(o, "path", path));
    l->n++;
    return l->expand ? set_last(l->d, l->b, o, l->t->commit) : MB_OK;
}

static mb_status add_folder(struct listing *l, const char *path)
{
    char oid[MB_SHELF_OID];

    MB_TRY(folder_oid(l->t, path, oid));
    return set_folder(l, path, oid);
}

static mb_status add_folder_once(struct listing *l, const char *path)
{
    struct folder *f;

    for (size_t i = 0; i < l->n_folders; i++)
        if (strcmp(l->folders[i].path, path) == 0)
            return set_folder(l, path, l->folders[i].oid);
    MB_TRY(mb_grow((void **)&l->folders, &l->capacity, l->n_folders + 1, sizeof *l->folders,
                   "folders"));
    f = &l->folders[l->n_folders];
    MB_TRY(mb_strdup(path, &f->path));
    l->n_folders++;
    MB_TRY(folder_oid(l->t, path, f->oid));
    return set_folder(l, path, f->oid);
}

static mb_status add_file(struct listing *l, const mb_shelf_file *f)
{
    mb_json o;

    MB_TRY(mb_json_set_object(l->list, NULL, &o));
    MB_TRY(mb_json_set_string(o, "type", "file"));
    MB_TRY(mb_json_set_string(o, "path", f->path));
    MB_TRY(mb_depot_set_file(o, f, true));
    l->n++;
    if (!l->expand)
        return MB_OK;
    MB_TRY(mb_json_set_null(o, "securityFileStatus"));
    return set_last(l->d, l->b, o, f->last);
}

/* The folders of `path` below `above` bytes that the file before is not in. */
static mb_status add_folders(struct listing *l, const char *before, const char *path, size_t above,
                             bool all)
{
    char folder[MB_SHELF_FILE_MAX + 1];

    for (const char *slash = strchr(path + above, '/'); slash != NULL;
         slash = all ? strchr(slash + 1, '/') : NULL) {
        const size_t n = (size_t)(slash - path);
        if (before != NULL && strncmp(before, path, n + 1) == 0)
            continue;
        snprintf(folder, sizeof folder, "%.*s", (int)n, path);
        MB_TRY(add_folder(l, folder));
    }
    return MB_OK;
}

/* From `cursor` on, at most a page; *next is where the rest begins. */
static mb_status list_below(struct listing *l, const char *dir, bool recursive, size_t cursor,
                            int64_t page, size_t *next)
{
    char prefix[MB_SHELF_FILE_MAX + 2] = "";
    size_t n = 0;

    if (dir[0] != '\0')
        n = (size_t)snprintf(prefix, sizeof prefix, "%s/", dir);
    const size_t first = mb_shelf_tree_from(l->t, prefix);
    *next = 0;
    for (size_t i = cursor > first ? cursor : first; i < l->t->n; i++) {
        const mb_shelf_file *f = &l->t->files[i];
        if (strncmp(f->path, prefix, n) != 0)
            break;
        if (l->n >= page) {
            *next = i;
            break;
        }
        MB_TRY(add_folders(l, i > first ? f[-1].path : NULL, f->path, n, recursive));
        if (recursive || strchr(f->path + n, '/') == NULL)
            MB_TRY(add_file(l, f));
    }
    return MB_OK;
}

static mb_status add_next(mb_http_request *q, size_t next)
{
    char link[8192], *path;

    MB_TRY(mb_depot_quote(mb_http_path(q), &path));
    snprintf(link, sizeof link, "<%s%s?cursor=%zu&recursive=%s&expand=%s>; rel=\"next\"",
             mb_http_origin(q), path, next, mb_depot_yes(q, "recursive") ? "true" : "false",
             mb_depot_yes(q, "expand") ? "true" : "false");
    mb_free(path);
    return mb_http_add(q, "Link", link);
}

mb_status mb_depot_tree(mb_depot *d, mb_http_request *q, const mb_shelf_brief *b, const char *rest)
{
    struct listing l = {.d = d, .b = b, .expand = mb_depot_yes(q, "expand")};
    const int64_t most = l.expand ? EXPANDED_PAGE : TREE_PAGE;
    const int64_t page = mb_depot_number(q, "limit", 1, most, most);
    mb_shelf_tree *t = NULL;
    mb_shelf_miss miss;
    mb_json_doc *doc = NULL;
    const char *dir;
    size_t next = 0;
    mb_status st;

    st = split(d, b, rest, &t, &dir, &miss);
    if (st != MB_OK)
        return mb_depot_missed(q, st, miss);
    l.t = t;
    MB_TRY_GOTO(mb_http_add(q, "X-Repo-Commit", t->commit), st, done);
    if (strlen(dir) > MB_SHELF_FILE_MAX || !mb_shelf_tree_has_folder(t, dir)) {
        st = mb_http_refuse(q, 404, "EntryNotFound", "there is no folder '%.300s' at %.8s", dir,
                            t->commit);
        goto done;
    }
    MB_TRY_GOTO(mb_json_doc_new_array("a tree", &doc), st, done);
    l.list = mb_json_root(doc);
    MB_TRY_GOTO(list_below(&l, dir, mb_depot_yes(q, "recursive"),
                           (size_t)mb_depot_number(q, "cursor", 0, MB_SHELF_FILES_MAX, 0), page,
                           &next),
                st, done);
    if (next > 0)
        MB_TRY_GOTO(add_next(q, next), st, done);
    st = mb_depot_json(q, 200, doc);
    doc = NULL;
done:
    mb_json_free(doc);
    mb_shelf_tree_unref(t);
    return st;
}

/* --- paths-info: a form (paths=a&paths=b&expand=false) or JSON */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One value of a form, decoded. False: too long, or not encoded right. */
static bool unquote(const char *s, size_t n, char *out, size_t size)
{
    size_t made = 0;

    for (size_t i = 0; i < n; i++, made++) {
        if (made + 1 >= size)
            return false;
        out[made] = s[i] == '+' ? ' ' : s[i];
        if (s[i] != '%')
            continue;
        if (i + 2 >= n)
            return false;
        const int hi = hex_digit(s[i + 1]), lo = hex_digit(s[i + 2]);
        if (hi < 0 || lo < 0 || hi + lo == 0)
            return false;
        out[made] = (char)(hi << 4 | lo);
        i += 2;
    }
    out[made] = '\0';
    return true;
}

static mb_status add_path(struct listing *l, const char *path)
{
    const mb_shelf_file *f = mb_shelf_tree_find(l->t, path);

    MB_REQUIRE(l->asked++ < PATHS_MAX, MB_EARG, "more than %d paths at once", PATHS_MAX);
    if (f != NULL)
        return add_file(l, f);
    return path[0] != '\0' && mb_shelf_tree_has_folder(l->t, path) ? add_folder_once(l, path)
                                                                   : MB_OK;
}

static mb_status add_form(struct listing *l, const char *body, size_t n)
{
    char path[MB_SHELF_FILE_MAX + 1];

    for (size_t i = 0, end; i < n; i = end + 1) {
        for (end = i; end < n && body[end] != '&'; end++)
            continue;
        if (end - i > 6 && memcmp(body + i, "paths=", 6) == 0 &&
            unquote(body + i + 6, end - i - 6, path, sizeof path))
            MB_TRY(add_path(l, path));
    }
    return MB_OK;
}

static mb_status add_json(struct listing *l, mb_json root)
{
    const char *path;

    MB_TRY(mb_json_get_bool(root, "expand", false, &l->expand));
    for (mb_json_it it = mb_json_first(mb_json_get(root, "paths")); mb_json_more(&it);
         mb_json_next(&it)) {
        MB_TRY(mb_json_string(it.value, &path, NULL));
        if (strlen(path) <= MB_SHELF_FILE_MAX)
            MB_TRY(add_path(l, path));
    }
    return MB_OK;
}

MB_DEPOT_HANDLER(paths_info)
{
    mb_depot *d = arg;
    mb_shelf_brief b;
    struct listing l = {.d = d, .b = &b};
    mb_shelf_tree *t = NULL;
    mb_shelf_miss miss;
    mb_json_doc *doc = NULL, *body = NULL;
    bool found;
    size_t n;
    const char *form = mb_http_whole(q, &n), *type = mb_http_head(q, "Content-Type");
    mb_status st;

    MB_TRY(mb_depot_asked(d, q, false, &b, &found));
    if (!found)
        return MB_OK;
    st = mb_shelf_tree_get(d->shelf, b.kind, b.id, mb_http_part(q, "rev"), &t, &miss);
    if (st != MB_OK) {
        st = mb_depot_missed(q, st, miss);
        goto done;
    }
    l.t = t;
    MB_TRY_GOTO(mb_json_doc_new_array("paths", &doc), st, done);
    l.list = mb_json_root(doc);
    if (type != NULL && strncmp(type, "application/json", 16) == 0) {
        MB_TRY_GOTO(mb_depot_body(q, &body), st, done);
        MB_TRY_GOTO(add_json(&l, mb_json_root(body)), st, done);
    } else {
        l.expand = memmem(form, n, "expand=true", 11) != NULL ||
                   memmem(form, n, "expand=True", 11) != NULL;
        MB_TRY_GOTO(add_form(&l, form, n), st, done);
    }
    st = mb_depot_json(q, 200, doc);
    doc = NULL;
done:
    for (size_t i = 0; i < l.n_folders; i++)
        mb_free(l.folders[i].path);
    mb_free(l.folders);
    mb_json_free(doc);
    mb_json_free(body);
    mb_shelf_tree_unref(t);
    mb_shelf_brief_release(&b);
    return st;
}

/* --- files and pages: /[datasets/]org/name/resolve/rev/path */

/* Shown as text in a browser when it is small text, else saved; never run as a page. */
static mb_status answer_file(mb_depot *d, mb_http_request *q, const mb_shelf_brief *b,
                             const mb_shelf_tree *t, const mb_shelf_file *f)
{
    char disposition[3 * MB_SHELF_FILE_MAX + 64], *name = NULL;
    mb_shelf_miss miss;
    int fd;

    mb_status st = mb_shelf_file_open(d->shelf, b->kind, b->id, t, f, &fd, &miss);
    if (st != MB_OK)
        return mb_depot_missed(q, st, miss);
    st = mb_depot_quote(mb_path_base(f->path), &name);
    if (st == MB_OK) {
        snprintf(disposition, sizeof disposition, "inline; filename*=UTF-8''%s", name);
        st = mb_http_add(q, "Content-Disposition", disposition);
    }
    mb_free(name);
    if (st == MB_OK)
        st = mb_http_add(q, "Content-Security-Policy", "default-src 'none'; sandbox");
    if (st != MB_OK) {
        close(fd);
        return st;
    }
    return mb_http_answer_file(q, fd, f->size,
                               f->lfs ? "application/octet-stream" : "text/plain; charset=utf-8",
                               f->lfs ? f->sha256 : f->oid);
}

static mb_status resolve(mb_depot *d, mb_http_request *q, const mb_shelf_brief *b, const char *rest)
{
    mb_shelf_tree *t = NULL;
    mb_shelf_miss miss;
    const mb_shelf_file *f;
    const char *path;
    mb_status st;

    st = split(d, b, rest, &t, &path, &miss);
    if (st != MB_OK)
        return mb_depot_missed(q, st, miss);
    MB_TRY_GOTO(mb_http_add(q, "X-Repo-Commit", t->commit), st, done);
    f = mb_shelf_tree_find(t, path);
    if (f != NULL)
        st = answer_file(d, q, b, t, f);
    else
        st = mb_http_refuse(q, 404, "EntryNotFound", "there is no '%.300s' at %.8s", path,
                            t->commit);
done:
    mb_shelf_tree_unref(t);
    return st;
}

MB_DEPOT_HANDLER(any_path)
{
    static const char *const verbs[] = {"/resolve/", "/raw/"};
    mb_depot *d = arg;
    const char *rest = mb_http_part(q, "rest"), *verb = NULL, *after = NULL;
    mb_shelf_kind kind = MB_SHELF_MODEL;
    char id[MB_SHELF_ID_MAX];
    mb_shelf_brief b;
    bool found;

    for (int k = 0; k < MB_SHELF_KINDS; k++) {
        const char *folder = mb_shelf_kind_folder((mb_shelf_kind)k);
        const size_t n = strlen(folder);
        if (strncmp(rest, folder, n) == 0 && rest[n] == '/') {
            kind = (mb_shelf_kind)k;
            rest += n + 1;
            break;
        }
    }
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        const char *at = strstr(rest, verbs[i]);
        if (at != NULL && (verb == NULL || at < verb)) {
            verb = at;
            after = at + strlen(verbs[i]);
        }
    }
    const size_t n = verb != NULL ? (size_t)(verb - rest) : strlen(rest);
    if (n >= sizeof id)
        return mb_http_refuse(q, 404, "RepoNotFound", "there is no such repository here");
    memcpy(id, rest, n);
    id[n] = '\0';
    if (verb == NULL)
        return mb_depot_page(d, q, kind, id);
    MB_TRY(mb_depot_repo(d, q, kind, id, &b, &found));
    if (!found)
        return MB_OK;
    const mb_status st = resolve(d, q, &b, after);
    mb_shelf_brief_release(&b);
    return st;
}
