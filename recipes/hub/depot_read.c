/* recipes/hub/depot_read.c - what clients ask before they fetch: repositories, revisions, commits. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/hub/depot_inside.h"

enum { PAGE = 50, REPOS_PAGE = 1000, CURSOR = 1000000 };

/* Link: <...?what was asked, but from `next`>; rel="next" */
static mb_status add_next(mb_http_request *q, const char *key, int64_t next,
                          const char *const *keep, size_t n_keep)
{
    char link[4096];
    size_t n;
    char *path = NULL, *value;

    MB_TRY(mb_depot_quote(mb_http_path(q), &path));
    n = (size_t)snprintf(link, sizeof link, "<%s%s?%s=%lld", mb_http_origin(q), path, key,
                         (long long)next);
    mb_free(path);
    for (size_t i = 0; i < n_keep && n < sizeof link; i++) {
        const char *text = mb_http_query(q, keep[i]);
        if (text == NULL)
            continue;
        MB_TRY(mb_depot_quote(text, &value));
        n += (size_t)snprintf(link + n, sizeof link - n, "&%s=%s", keep[i], value);
        mb_free(value);
    }
    if (n >= sizeof link - 16)
        return MB_OK; /* a search of kilobytes has one page */
    snprintf(link + n, sizeof link - n, ">; rel=\"next\"");
    return mb_http_add(q, "Link", link);
}

MB_DEPOT_HANDLER(repos)
{
    static const char *const keep[] = {"search", "author", "limit",        "sort",
                                       "filter", "full",   "pipeline_tag", "cardData"};
    mb_depot *d = arg;
    const int64_t limit = mb_depot_number(q, "limit", 1, REPOS_PAGE, REPOS_PAGE);
    const int64_t from = mb_depot_number(q, "skip", 0, CURSOR, 0);
    const bool full = mb_depot_yes(q, "full") || mb_depot_yes(q, "cardData");
    mb_shelf_kind kind;
    mb_shelf_brief *list;
    mb_json_doc *doc = NULL;
    mb_json o;
    size_t n;
    mb_status st;

    if (!mb_depot_kind(q, mb_http_part(q, "kind"), &kind))
        return MB_OK;
    MB_TRY(mb_depot_list(d, q, kind, &list, &n));
    MB_TRY_GOTO(mb_json_doc_new_array("repositories", &doc), st, done);
    for (size_t i = (size_t)from; i < n && i < (size_t)(from + limit); i++) {
        MB_TRY_GOTO(mb_json_set_object(mb_json_root(doc), NULL, &o), st, done);
        MB_TRY_GOTO(mb_depot_set_repo(o, &list[i], list[i].main, full), st, done);
        if (full)
            MB_TRY_GOTO(mb_depot_set_siblings(o, list[i].main, false), st, done);
    }
    if (from + limit < (int64_t)n)
        MB_TRY_GOTO(add_next(q, "skip", from + limit, keep, sizeof keep / sizeof *keep), st, done);
    mb_depot_list_free(list, n);
    return mb_depot_json(q, 200, doc);
done:
    mb_depot_list_free(list, n);
    mb_json_free(doc);
    return st;
}

static mb_status info(mb_depot *d, mb_http_request *q, mb_shelf_brief *b, const char *rev)
{
    mb_shelf_tree *t = NULL;
    mb_json_doc *doc = NULL;
    mb_shelf_miss miss;
    mb_status st = mb_shelf_tree_get(d->shelf, b->kind, b->id, rev, &t, &miss);

    if (st != MB_OK)
        return mb_depot_missed(q, st, miss);
    MB_TRY_GOTO(mb_json_doc_new("a repository", &doc), st, done);
    MB_TRY_GOTO(mb_depot_set_repo(mb_json_root(doc), b, t, true), st, done);
    MB_TRY_GOTO(mb_depot_set_siblings(mb_json_root(doc), t, mb_depot_yes(q, "blobs")), st, done);
    st = mb_depot_json(q, 200, doc);
    doc = NULL;
done:
    mb_json_free(doc);
    mb_shelf_tree_unref(t);
    return st;
}

MB_DEPOT_HANDLER(revision)
{
    mb_depot *d = arg;
    mb_shelf_brief b;
    bool found;

    MB_TRY(mb_depot_asked(d, q, false, &b, &found));
    if (!found)
        return MB_OK;
    const mb_status st = info(d, q, &b, mb_http_part(q, "rev"));
    mb_shelf_brief_release(&b);
    return st;
}

MB_DEPOT_HANDLER(auth_check)
{
    mb_shelf_brief b;
    bool found;

    MB_TRY(mb_depot_asked(arg, q, false, &b, &found));
    if (!found)
        return MB_OK;
    mb_shelf_brief_release(&b);
    return mb_http_answer(q, 200, "application/json", "{}", 2);
}

static mb_status add_ref(mb_json root, const mb_shelf_ref *r)
{
    const bool pull = strncmp(r->name, "refs/pr/", 8) == 0;
    const char *list = r->tag ? "tags" : pull ? "pullRequests" : "branches";
    char ref[300];
    mb_json o;

    if (strncmp(r->name, "refs/convert/", 13) == 0)
        list = "converts";
    snprintf(ref, sizeof ref, "%s%s",
             strncmp(r->name, "refs/", 5) == 0 ? ""
             : r->tag                          ? "refs/tags/"
                                               : "refs/heads/",
             r->name);
    MB_TRY(mb_json_set_object(mb_json_get(root, list), NULL, &o));
    MB_TRY(mb_json_set_string(o, "name", r->name));
    MB_TRY(mb_json_set_string(o, "ref", ref));
    return mb_json_set_string(o, "targetCommit", r->commit);
}

MB_DEPOT_HANDLER(refs)
{
    static const char *const lists[] = {"branches", "converts", "tags", "pullRequests"};
    mb_depot *d = arg;
    mb_shelf_brief b;
    mb_shelf_ref *refs = NULL;
    mb_shelf_miss miss;
    mb_json_doc *doc = NULL;
    mb_json list;
    size_t n = 0;
    bool found;
    mb_status st;

    MB_TRY(mb_depot_asked(d, q, false, &b, &found));
    if (!found)
        return MB_OK;
    MB_TRY_GOTO(mb_shelf_refs(d->shelf, b.kind, b.id, &refs, &n, &miss), st, done);
    MB_TRY_GOTO(mb_json_doc_new("refs", &doc), st, done);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), lists[i], &list), st, done);
    for (size_t i = 0; i < n; i++)
        MB_TRY_GOTO(add_ref(mb_json_root(doc), &refs[i]), st, done);
    st = mb_depot_json(q, 200, doc);
    doc = NULL;
done:
    mb_json_free(doc);
    mb_shelf_refs_free(refs, n);
    mb_shelf_brief_release(&b);
    return st;
}

static mb_status add_commit(mb_json list, const mb_shelf_tree *t)
{
    char when[32];
    mb_json o, authors, author;

    MB_TRY(mb_json_set_object(list, NULL, &o));
    MB_TRY(mb_json_set_string(o, "id", t->commit));
    MB_TRY(mb_json_set_string(o, "title", t->title));
    MB_TRY(mb_json_set_string(o, "message", t->message));
    MB_TRY(mb_json_set_string(o, "date", mb_depot_time(t->date, when)));
    MB_TRY(mb_json_set_array(o, "authors", &authors));
    if (t->author[0] == '\0')
        return MB_OK;
    MB_TRY(mb_json_set_object(authors, NULL, &author));
    return mb_json_set_string(author, "user", t->author);
}

/* Page `p` of the commits before and with *t, which is moved along. */
static mb_status walk(mb_depot *d, const mb_shelf_brief *b, mb_shelf_tree **t, int64_t p,
                      mb_json list, bool *more)
{
    mb_shelf_miss miss;

    *more = false;
    for (int64_t i = 0; i < (p + 1) * PAGE; i++) {
        mb_shelf_tree *parent = NULL;
        if (i >= p * PAGE)
            MB_TRY(add_commit(list, *t));
        if ((*t)->parent[0] == '\0')
            return MB_OK;
        MB_TRY(mb_shelf_tree_get(d->shelf, b->kind, b->id, (*t)->parent, &parent, &miss));
        mb_shelf_tree_unref(*t);
        *t = parent;
    }
    *more = true;
    return MB_OK;
}

MB_DEPOT_HANDLER(commits)
{
    mb_depot *d = arg;
    const int64_t p = mb_depot_number(q, "p", 0, 1000, 0);
    mb_shelf_brief b;
    mb_shelf_tree *t = NULL;
    mb_json_doc *doc = NULL;
    mb_shelf_miss miss;
    bool found, more;
    mb_status st;

    MB_TRY(mb_depot_asked(d, q, false, &b, &found));
    if (!found)
        return MB_OK;
    st = mb_shelf_tree_get(d->shelf, b.kind, b.id, mb_http_part(q, "rev"), &t, &miss);
    if (st != MB_OK) {
        st = mb_depot_missed(q, st, miss);
        goto done;
    }
    MB_TRY_GOTO(mb_json_doc_new_array("commits", &doc), st, done);
    MB_TRY_GOTO(walk(d, &b, &t, p, mb_json_root(doc), &more), st, done);
    if (more)
        MB_TRY_GOTO(add_next(q, "p", p + 1, NULL, 0), st, done);
    st = mb_depot_json(q, 200, doc);
    doc = NULL;
done:
    mb_json_free(doc);
    mb_shelf_tree_unref(t);
    mb_shelf_brief_release(&b);
    return st;
}

/* --- /api/{kind}/{repo*}: the repository, or org/name/tree/rev/path, which has two places of many
 * parts */

MB_DEPOT_HANDLER(rest_of_repo)
{
    mb_depot *d = arg;
    const char *whole = mb_http_part(q, "repo"), *tree = strstr(whole, "/tree/");
    char id[MB_SHELF_ID_MAX];
    mb_shelf_kind kind;
    mb_shelf_brief b;
    bool found;
    mb_status st;

    if (!mb_depot_kind(q, mb_http_part(q, "kind"), &kind))
        return MB_OK;
    const size_t n = tree != NULL ? (size_t)(tree - whole) : strlen(whole);
    if (n >= sizeof id)
        return mb_http_refuse(q, 404, "RepoNotFound", "there is no such repository here");
    memcpy(id, whole, n);
    id[n] = '\0';
    MB_TRY(mb_depot_repo(d, q, kind, id, &b, &found));
    if (!found)
        return MB_OK;
    st = tree != NULL ? mb_depot_tree(d, q, &b, tree + 6) : info(d, q, &b, "main");
    mb_shelf_brief_release(&b);
    return st;
}
