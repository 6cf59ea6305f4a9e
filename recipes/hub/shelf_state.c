/* recipes/hub/shelf_state.c - the state of a repository: its branches and tags, who may see it. The file
 * is replaced by rename; a commit is there once this file names it. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

enum { STATE_MAX = 4 << 20 };

void mb_shelf_refs_free(mb_shelf_ref *refs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mb_free(refs[i].name);
    mb_free(refs);
}

const mb_shelf_ref *mb_repo_ref(const mb_repo *r, const char *name)
{
    for (size_t i = 0; i < r->n_refs; i++)
        if (strcmp(r->refs[i].name, name) == 0)
            return &r->refs[i];
    return NULL;
}

static mb_status add(mb_shelf_ref *list, size_t *n, const char *name, bool tag, const char *commit)
{
    list[*n] = (mb_shelf_ref){.tag = tag};
    snprintf(list[*n].commit, sizeof list[*n].commit, "%s", commit);
    MB_TRY(mb_strdup(name, &list[*n].name));
    (*n)++;
    return MB_OK;
}

mb_status mb_refs_with(const mb_shelf_ref *refs, size_t n, const char *name, bool tag,
                       const char *commit, mb_shelf_ref **out, size_t *n_out)
{
    mb_shelf_ref *list = NULL;
    size_t count = 0;
    bool there = false;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&list, n + 1));
    for (size_t i = 0; i < n; i++) {
        const bool it = strcmp(refs[i].name, name) == 0;
        there |= it;
        if (!it)
            MB_TRY_GOTO(add(list, &count, refs[i].name, refs[i].tag, refs[i].commit), st, done);
        else if (commit != NULL)
            MB_TRY_GOTO(add(list, &count, name, tag, commit), st, done);
    }
    if (!there && commit != NULL) {
        if (count >= MB_SHELF_REFS_MAX) {
            st = MB_RAISE(MB_EDATA, "more than %d branches and tags", MB_SHELF_REFS_MAX);
            goto done;
        }
        MB_TRY_GOTO(add(list, &count, name, tag, commit), st, done);
    }
    *out = list;
    *n_out = count;
    return MB_OK;
done:
    mb_shelf_refs_free(list, count);
    return st;
}

void mb_repo_set_refs(mb_shelf *s, mb_repo *r, mb_shelf_ref *refs, size_t n)
{
    pthread_mutex_lock(&s->lock);
    mb_shelf_ref *old = r->refs;
    const size_t n_old = r->n_refs;
    r->refs = refs;
    r->n_refs = n;
    r->changes++;
    pthread_mutex_unlock(&s->lock);
    mb_shelf_refs_free(old, n_old);
}

mb_status mb_repo_save(const mb_repo *r, const mb_shelf_ref *refs, size_t n_refs, bool hidden)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    mb_json root, list, o;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, r->records, "commits"));
    MB_TRY(mb_path_mkdirs(path));
    MB_TRY(mb_path_join(path, sizeof path, r->records, "state.json"));
    MB_TRY_GOTO(mb_json_doc_new("a repository", &doc), st, done);
    root = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(root, "id", r->id), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "kind", mb_shelf_kind_name(r->kind)), st, done);
    MB_TRY_GOTO(mb_json_set_bool(root, "private", hidden), st, done);
    MB_TRY_GOTO(mb_json_set_int(root, "created", r->created), st, done);
    MB_TRY_GOTO(mb_json_set_array(root, "refs", &list), st, done);
    for (size_t i = 0; i < n_refs; i++) {
        MB_TRY_GOTO(mb_json_set_object(list, NULL, &o), st, done);
        MB_TRY_GOTO(mb_json_set_string(o, "name", refs[i].name), st, done);
        MB_TRY_GOTO(mb_json_set_bool(o, "tag", refs[i].tag), st, done);
        MB_TRY_GOTO(mb_json_set_string(o, "commit", refs[i].commit), st, done);
    }
    st = mb_json_write(root, 1, path);
done:
    mb_json_free(doc);
    return st;
}

static mb_status load_ref(mb_json o, mb_repo *r)
{
    const char *name, *commit;
    bool tag;

    MB_TRY(mb_json_get_string(o, "name", "", &name));
    MB_TRY(mb_json_get_string(o, "commit", "", &commit));
    MB_TRY(mb_json_get_bool(o, "tag", false, &tag));
    if (!mb_shelf_is_ref(name) || !mb_shelf_is_hex(commit, 40) || mb_repo_ref(r, name) != NULL)
        return mb_json_fault(o, "is no branch or tag");
    return add(r->refs, &r->n_refs, name, tag, commit);
}

mb_status mb_repo_load(mb_repo *r)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    mb_json root, list;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, r->records, "state.json"));
    if (!mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_EDATA, STATE_MAX, &doc));
    root = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_get_bool(root, "private", false, &r->hidden), st, done);
    MB_TRY_GOTO(mb_json_get_int(root, "created", 0, &r->created), st, done);
    list = mb_json_get(root, "refs");
    if (!mb_json_is(list, MB_JSON_ARRAY) ||
        !mb_json_is(mb_json_get(root, "private"), MB_JSON_BOOL)) {
        st = mb_json_fault(root, "does not say which branches there are and who may see them");
        goto done;
    }
    if (mb_json_count(list) > MB_SHELF_REFS_MAX) {
        st = mb_json_fault(list, "has more than %d entries", MB_SHELF_REFS_MAX);
        goto done;
    }
    MB_TRY_GOTO(MB_NEW_ARRAY(&r->refs, MB_SHELF_REFS_MAX + 1), st, done);
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it))
        MB_TRY_GOTO(load_ref(it.value, r), st, done);
done:
    mb_json_free(doc);
    return st;
}
