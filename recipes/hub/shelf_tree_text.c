/* recipes/hub/shelf_tree_text.c - a commit as a file: JSON, named by the SHA-1 of its bytes. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/hub/shelf_tree.h"

enum { VERSION = 1, TEXT_MAX = 64 << 20 };

static mb_status name_of(const char *text, size_t n, char oid[MB_SHELF_OID])
{
    char hex[MB_DIGEST_HEX];
    mb_digest *d;

    MB_TRY(mb_digest_new_sha1(&d));
    mb_status st = mb_digest_add(d, text, n);
    if (st == MB_OK)
        st = mb_digest_end_hex(d, hex);
    mb_digest_free(d);
    MB_TRY(st);
    snprintf(oid, MB_SHELF_OID, "%.40s", hex);
    return MB_OK;
}

static mb_status set_file(mb_json list, const mb_shelf_file *f)
{
    mb_json o;

    MB_TRY(mb_json_set_object(list, NULL, &o));
    MB_TRY(mb_json_set_string(o, "path", f->path));
    MB_TRY(mb_json_set_int(o, "size", f->size));
    MB_TRY(mb_json_set_string(o, "oid", f->oid));
    MB_TRY(mb_json_set_string(o, "sha256", f->sha256));
    MB_TRY(mb_json_set_bool(o, "lfs", f->lfs));
    return mb_json_set_string(o, "last", f->last);
}

static mb_status as_json(const mb_shelf_tree *t, mb_json_doc **out)
{
    mb_json root, list;

    MB_TRY(mb_json_doc_new("a commit", out));
    root = mb_json_root(*out);
    MB_TRY(mb_json_set_int(root, "version", VERSION));
    MB_TRY(mb_json_set_string(root, "parent", t->parent));
    MB_TRY(mb_json_set_string(root, "title", t->title));
    MB_TRY(mb_json_set_string(root, "message", t->message));
    MB_TRY(mb_json_set_string(root, "author", t->author));
    MB_TRY(mb_json_set_int(root, "date", t->date));
    MB_TRY(mb_json_set_array(root, "files", &list));
    for (size_t i = 0; i < t->n; i++)
        MB_TRY(set_file(list, &t->files[i]));
    return MB_OK;
}

/* In memory "this commit" is said by its id. */
static void resolve_last(mb_shelf_tree *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->files[i].last[0] == '\0')
            memcpy(t->files[i].last, t->commit, sizeof t->commit);
}

mb_status mb_shelf_tree_save(mb_shelf_tree *t, const char *folder)
{
    char name[MB_SHELF_OID + 8], path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    char *text = NULL;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY_GOTO(as_json(t, &doc), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, &n), st, done);
    MB_TRY_GOTO(name_of(text, n, t->commit), st, done);
    snprintf(name, sizeof name, "%s.json", t->commit);
    MB_TRY_GOTO(mb_path_join(path, sizeof path, folder, name), st, done);
    MB_TRY_GOTO(mb_file_write_atomic(path, text, n), st, done);
    resolve_last(t);
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

static mb_status need_text(mb_json o, const char *key, char *to, size_t size, int digits,
                           bool may_be_empty)
{
    const char *text;
    mb_json v;

    MB_TRY(mb_json_need(o, key, MB_JSON_STRING, &v));
    MB_TRY(mb_json_string(v, &text, NULL));
    if (!(may_be_empty && text[0] == '\0') && !mb_shelf_is_hex(text, digits))
        return mb_json_fault(v, "is not %d hexadecimal digits", digits);
    snprintf(to, size, "%s", text);
    return MB_OK;
}

static mb_status read_file(mb_json o, mb_shelf_tree *t)
{
    mb_shelf_file f = {0};
    const char *path;
    mb_json v;

    MB_TRY(mb_json_need(o, "path", MB_JSON_STRING, &v));
    MB_TRY(mb_json_string(v, &path, NULL));
    if (!mb_shelf_is_path(path))
        return mb_json_fault(v, "is no path inside a repository");
    MB_TRY(mb_json_need_int(o, "size", 0, INT64_MAX, &f.size));
    MB_TRY(need_text(o, "oid", f.oid, sizeof f.oid, 40, false));
    MB_TRY(need_text(o, "sha256", f.sha256, sizeof f.sha256, 64, true));
    MB_TRY(need_text(o, "last", f.last, sizeof f.last, 40, true));
    MB_TRY(mb_json_get_bool(o, "lfs", false, &f.lfs));
    MB_TRY(mb_strdup(path, &f.path));
    const mb_status st = mb_shelf_tree_put(t, &f);
    mb_free(f.path);
    return st;
}

static mb_status read_tree(mb_json root, mb_shelf_tree *t)
{
    const char *title, *message, *author;
    int64_t version;
    mb_json files;

    MB_TRY(mb_json_need_int(root, "version", VERSION, VERSION, &version));
    MB_TRY(need_text(root, "parent", t->parent, sizeof t->parent, 40, true));
    MB_TRY(mb_json_get_string(root, "title", "", &title));
    MB_TRY(mb_json_get_string(root, "message", "", &message));
    MB_TRY(mb_json_get_string(root, "author", "", &author));
    MB_TRY(mb_shelf_tree_words(t, title, message, author));
    MB_TRY(mb_json_need_int(root, "date", INT64_MIN / 2, INT64_MAX / 2, &t->date));
    MB_TRY(mb_json_need(root, "files", MB_JSON_ARRAY, &files));
    for (mb_json_it it = mb_json_first(files); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(read_file(it.value, t));
    return MB_OK;
}

mb_status mb_shelf_tree_read(const char *folder, const char *commit, mb_shelf_tree **out)
{
    char name[MB_SHELF_OID + 8], path[MB_PATH_MAX], found[MB_SHELF_OID];
    mb_shelf_tree *t = NULL;
    mb_json_doc *doc = NULL;
    char *text = NULL;
    size_t n;
    mb_status st = MB_OK;

    snprintf(name, sizeof name, "%.40s.json", commit);
    MB_TRY(mb_path_join(path, sizeof path, folder, name));
    MB_TRY_GOTO(mb_file_read_as(path, MB_EDATA, TEXT_MAX, &text, &n), st, done);
    MB_TRY_GOTO(name_of(text, n, found), st, done);
    if (strcmp(found, commit) != 0) {
        st = MB_RAISE(MB_EDATA, "%s is damaged: its SHA-1 is %s", path, found);
        goto done;
    }
    MB_TRY_GOTO(mb_json_parse(text, n, path, 0, MB_EDATA, &doc), st, done);
    MB_TRY_GOTO(mb_shelf_tree_new(&t), st, done);
    MB_TRY_GOTO(read_tree(mb_json_root(doc), t), st, done);
    snprintf(t->commit, sizeof t->commit, "%s", commit);
    resolve_last(t);
    *out = t;
    t = NULL;
done:
    mb_shelf_tree_unref(t);
    mb_json_free(doc);
    mb_free(text);
    return st;
}
