/* recipes/hub/depot_write.c - what changes repositories as a whole, and what a push asks first. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/hub/base64.h"
#include "recipes/hub/depot_inside.h"

enum { SAMPLE_MAX = 4096, PREUPLOAD_MAX = 1000 };

/* {name, organization?, type?} -> kind and id. */
static mb_status named(const mb_depot *d, mb_json root, mb_shelf_kind *kind,
                       char id[MB_SHELF_ID_MAX])
{
    const char *name, *org, *type;

    MB_TRY(mb_depot_text(root, "name", &name));
    MB_TRY(mb_json_get_string(root, "organization", NULL, &org));
    MB_TRY(mb_json_get_string(root, "type", "model", &type));
    MB_REQUIRE(mb_shelf_kind_of(type, kind), MB_EARG, "'%.40s' is no type of repository", type);
    const bool whole = strchr(name, '/') != NULL;
    const int n = snprintf(id, MB_SHELF_ID_MAX, "%s%s%s",
                           whole         ? ""
                           : org != NULL ? org
                                         : d->name,
                           whole ? "" : "/", name);
    MB_REQUIRE(n < MB_SHELF_ID_MAX && mb_shelf_is_id(id), MB_EARG,
               "'%.100s' cannot be a repository's name", id);
    return MB_OK;
}

static mb_status wants_private(mb_json root, bool *hidden)
{
    const char *visibility;

    MB_TRY(mb_json_get_string(root, "visibility", "public", &visibility));
    MB_TRY(mb_json_get_bool(root, "private", strcmp(visibility, "private") == 0, hidden));
    return MB_OK;
}

/* {url, id, name}, and why not when it was there. */
static mb_status answer_made(mb_http_request *q, int status, mb_shelf_kind kind, const char *id)
{
    mb_json_doc *doc = NULL;
    char *url = NULL;
    mb_status st;

    MB_TRY_GOTO(mb_depot_url(q, kind, id, "", &url), st, done);
    MB_TRY_GOTO(mb_json_doc_new("a repository", &doc), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "url", url), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "name", id), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "id", id), st, done);
    if (status == 409)
        MB_TRY_GOTO(
            mb_json_set_string(mb_json_root(doc), "error", "You already created this repository"),
            st, done);
    st = mb_depot_json(q, status, doc);
    doc = NULL;
done:
    mb_json_free(doc);
    mb_free(url);
    return st;
}

MB_DEPOT_HANDLER(create)
{
    mb_depot *d = arg;
    mb_json_doc *body = NULL;
    mb_shelf_kind kind;
    mb_shelf_miss miss = MB_SHELF_NO_MISS;
    char id[MB_SHELF_ID_MAX];
    bool hidden;
    mb_status st;

    if (!mb_depot_may_write(d, q))
        return MB_OK;
    MB_TRY(mb_depot_body(q, &body));
    MB_TRY_GOTO(named(d, mb_json_root(body), &kind, id), st, done);
    MB_TRY_GOTO(wants_private(mb_json_root(body), &hidden), st, done);
    st = mb_shelf_create(d->shelf, kind, id, hidden, &miss);
    if (miss == MB_SHELF_EXISTS) {
        mb_status_clear();
        st = answer_made(q, 409, kind, id);
    } else {
        st = st == MB_OK ? answer_made(q, 200, kind, id) : mb_depot_missed(q, st, miss);
    }
done:
    mb_json_free(body);
    return st;
}

/* What the handlers below end with. */
static mb_status answer_done(mb_http_request *q, mb_status st, mb_shelf_miss miss)
{
    return st == MB_OK ? mb_http_answer(q, 200, "application/json", "{}", 2)
                       : mb_depot_missed(q, st, miss);
}

MB_DEPOT_HANDLER(delete)
{
    mb_depot *d = arg;
    mb_json_doc *body = NULL;
    mb_shelf_kind kind;
    mb_shelf_miss miss;
    char id[MB_SHELF_ID_MAX];
    mb_status st;

    if (!mb_depot_may_write(d, q))
        return MB_OK;
    MB_TRY(mb_depot_body(q, &body));
    st = named(d, mb_json_root(body), &kind, id);
    mb_json_free(body);
    MB_TRY(st);
    st = mb_shelf_delete(d->shelf, kind, id, &miss);
    return answer_done(q, st, miss);
}

MB_DEPOT_HANDLER(move)
{
    mb_depot *d = arg;
    mb_json_doc *body = NULL;
    mb_shelf_kind kind;
    mb_shelf_miss miss = MB_SHELF_NO_MISS;
    const char *from, *to, *type;
    mb_status st;

    if (!mb_depot_may_write(d, q))
        return MB_OK;
    MB_TRY(mb_depot_body(q, &body));
    MB_TRY_GOTO(mb_depot_text(mb_json_root(body), "fromRepo", &from), st, done);
    MB_TRY_GOTO(mb_depot_text(mb_json_root(body), "toRepo", &to), st, done);
    MB_TRY_GOTO(mb_json_get_string(mb_json_root(body), "type", "model", &type), st, done);
    if (!mb_shelf_kind_of(type, &kind)) {
        st = MB_RAISE(MB_EARG, "'%.40s' is no type of repository", type);
        goto done;
    }
    st = mb_shelf_move(d->shelf, kind, from, to, &miss);
    st = answer_done(q, st, miss);
done:
    mb_json_free(body);
    return st;
}

MB_DEPOT_HANDLER(settings)
{
    mb_depot *d = arg;
    mb_json_doc *body = NULL;
    mb_shelf_brief b;
    mb_shelf_miss miss = MB_SHELF_NO_MISS;
    bool found, hidden;
    mb_status st;

    MB_TRY(mb_depot_asked(d, q, true, &b, &found));
    if (!found)
        return MB_OK;
    MB_TRY_GOTO(mb_depot_body(q, &body), st, done);
    MB_TRY_GOTO(wants_private(mb_json_root(body), &hidden), st, done);
    st = mb_shelf_hide(d->shelf, b.kind, b.id, hidden, &miss);
    st = answer_done(q, st, miss);
done:
    mb_json_free(body);
    mb_shelf_brief_release(&b);
    return st;
}

/* POST /tag/{rev} {tag}: a tag at a revision. POST /branch/{name} {startingPoint}: a branch. */
static mb_status new_ref(mb_depot *d, mb_http_request *q, bool tag)
{
    mb_json_doc *body = NULL;
    mb_shelf_brief b;
    mb_shelf_miss miss = MB_SHELF_NO_MISS;
    const char *name = mb_http_part(q, "rev"), *rev = name;
    size_t n;
    bool found;
    mb_status st = MB_OK;

    MB_TRY(mb_depot_asked(d, q, true, &b, &found));
    if (!found)
        return MB_OK;
    mb_http_whole(q, &n);
    if (n > 0 || tag)
        MB_TRY_GOTO(mb_depot_body(q, &body), st, done);
    if (tag)
        MB_TRY_GOTO(mb_depot_text(mb_json_root(body), "tag", &name), st, done);
    else if (body != NULL)
        MB_TRY_GOTO(mb_json_get_string(mb_json_root(body), "startingPoint", "main", &rev), st,
                    done);
    else
        rev = "main";
    st = mb_shelf_ref_new(d->shelf, b.kind, b.id, name, tag, rev, &miss);
    st = answer_done(q, st, miss);
done:
    mb_json_free(body);
    mb_shelf_brief_release(&b);
    return st;
}

MB_DEPOT_HANDLER(tag)
{
    return new_ref(arg, q, true);
}

MB_DEPOT_HANDLER(branch)
{
    return new_ref(arg, q, false);
}

static mb_status no_ref(mb_depot *d, mb_http_request *q, bool tag)
{
    mb_shelf_brief b;
    mb_shelf_miss miss;
    bool found;

    MB_TRY(mb_depot_asked(d, q, true, &b, &found));
    if (!found)
        return MB_OK;
    const mb_status st =
        mb_shelf_ref_delete(d->shelf, b.kind, b.id, mb_http_part(q, "rev"), tag, &miss);
    mb_shelf_brief_release(&b);
    return answer_done(q, st, miss);
}

MB_DEPOT_HANDLER(untag)
{
    return no_ref(arg, q, true);
}

MB_DEPOT_HANDLER(unbranch)
{
    return no_ref(arg, q, false);
}

/* Model cards are the owner's affair: what is looked at is whether it is text with a front matter. */
MB_DEPOT_HANDLER(validate_yaml)
{
    static const char fine[] = "{\"errors\":[],\"warnings\":[]}";
    mb_json_doc *body = NULL;
    const char *content;

    MB_TRY(mb_depot_body(q, &body));
    const mb_status st = mb_depot_text(mb_json_root(body), "content", &content);
    mb_json_free(body);
    MB_TRY(st);
    return mb_http_answer(q, 200, "application/json", fine, strlen(fine));
}

MB_DEPOT_HANDLER(xet_token)
{
    mb_depot *d = arg;
    mb_shelf_brief b;
    bool found;

    MB_TRY(mb_depot_asked(d, q, true, &b, &found));
    if (!found)
        return MB_OK;
    mb_shelf_brief_release(&b);
    return mb_xet_token(d->xet, q);
}

/* --- preupload: by LFS or within the commit, and what is here already */

static mb_status is_lfs(mb_json file, int64_t size, bool *lfs)
{
    uint8_t bytes[SAMPLE_MAX];
    const char *sample;
    size_t n;

    MB_TRY(mb_json_get_string(file, "sample", "", &sample));
    MB_REQUIRE(strlen(sample) <= SAMPLE_MAX && mb_base64_read(sample, strlen(sample), bytes, &n),
               MB_EARG, "the sample of a file is not base64 of at most %d letters", SAMPLE_MAX);
    *lfs = mb_shelf_is_lfs(size, bytes, n);
    return MB_OK;
}

static mb_status answer_one(mb_json list, mb_json file, const mb_shelf_tree *t)
{
    const char *path;
    int64_t size;
    bool lfs;
    mb_json o;

    MB_TRY(mb_depot_text(file, "path", &path));
    MB_TRY(mb_json_need_int(file, "size", 0, INT64_MAX, &size));
    MB_REQUIRE(mb_shelf_is_path(path), MB_EARG, "'%.200s' cannot be a file's path", path);
    MB_TRY(is_lfs(file, size, &lfs));
    const mb_shelf_file *f = t != NULL ? mb_shelf_tree_find(t, path) : NULL;
    MB_TRY(mb_json_set_object(list, NULL, &o));
    MB_TRY(mb_json_set_string(o, "path", path));
    MB_TRY(mb_json_set_string(o, "uploadMode", lfs ? "lfs" : "regular"));
    MB_TRY(mb_json_set_bool(o, "shouldIgnore", false));
    if (f != NULL && f->lfs == lfs)
        MB_TRY(mb_json_set_string(o, "oid", lfs ? f->sha256 : f->oid));
    return MB_OK;
}

MB_DEPOT_HANDLER(preupload)
{
    mb_depot *d = arg;
    mb_json_doc *body = NULL, *doc = NULL;
    mb_shelf_brief b;
    mb_shelf_tree *t = NULL;
    mb_shelf_miss miss;
    mb_json files, list;
    bool found;
    mb_status st;

    MB_TRY(mb_depot_asked(d, q, true, &b, &found));
    if (!found)
        return MB_OK;
    if (mb_shelf_tree_get(d->shelf, b.kind, b.id, mb_http_part(q, "rev"), &t, &miss) != MB_OK)
        mb_status_clear(); /* nothing there yet */
    MB_TRY_GOTO(mb_depot_body(q, &body), st, done);
    MB_TRY_GOTO(mb_json_need(mb_json_root(body), "files", MB_JSON_ARRAY, &files), st, done);
    if (mb_json_count(files) > PREUPLOAD_MAX) {
        st = MB_RAISE(MB_EARG, "more than %d files at once", PREUPLOAD_MAX);
        goto done;
    }
    MB_TRY_GOTO(mb_json_doc_new("a plan", &doc), st, done);
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "files", &list), st, done);
    for (mb_json_it it = mb_json_first(files); mb_json_more(&it); mb_json_next(&it))
        MB_TRY_GOTO(answer_one(list, it.value, t), st, done);
    st = mb_depot_json(q, 200, doc);
    doc = NULL;
done:
    mb_json_free(doc);
    mb_json_free(body);
    mb_shelf_tree_unref(t);
    mb_shelf_brief_release(&b);
    return st;
}
