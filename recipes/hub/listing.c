/* recipes/hub/listing.c - see recipes/hub/listing.h. */
#include "recipes/hub/listing.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"

enum { MOST_PAGES = 2000, MOST_FILES = 1000000 };
static const int64_t most_bytes = (int64_t)1 << 50; /* of one file */

/* What is being read. */
struct reading {
    const mb_hub *hub;
    const mb_hub_name *name;
    const char *endpoint;
    char what[MB_HUB_ID_MAX + 64];
    mb_hub_listing *l;
};

void mb_hub_listing_release(mb_hub_listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        mb_free(l->file[i].path);
    mb_free(l->file);
    *l = (mb_hub_listing){0};
}

/* ---- the commit ---------------------------------------------------------------------------- */

static mb_status read_commit(struct reading *r)
{
    const char *revision = r->name->revision[0] != '\0' ? r->name->revision : "main", *sha;
    char escaped[3 * MB_HUB_REVISION_MAX], url[MB_HUB_URL_MAX];
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_fetch_escape(revision, false, escaped, sizeof escaped));
    snprintf(url, sizeof url, "%s/api/%s/%s/revision/%s", r->endpoint, mb_hub_kind(r->name),
             r->name->id, escaped);
    MB_TRY(mb_hub_json(r->hub, url, r->what, &doc, NULL));
    MB_TRY_GOTO(mb_json_get_string(mb_json_root(doc), "sha", "", &sha), st, done);
    if (!mb_hub_commit_is(sha))
        st = MB_RAISE(MB_EDATA, "%s: the hub names no commit for revision %s", r->what, revision);
    else if (mb_hub_commit_is(revision) && strcmp(revision, sha) != 0)
        st = MB_RAISE(MB_EDATA, "%s: the hub has commit %s where %s was asked for", r->what, sha,
                      revision);
    else
        snprintf(r->l->commit, sizeof r->l->commit, "%.40s", sha);
done:
    mb_json_free(doc);
    return st;
}

/* ---- the tree ------------------------------------------------------------------------------ */

static bool is_hex(const char *text, size_t n)
{
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

static mb_status read_file(struct reading *r, mb_json entry, const char *path)
{
    const mb_json lfs = mb_json_get(entry, "lfs");
    const bool is_lfs = mb_json_is_set(lfs);
    mb_hub_file f = {.wanted = true};
    const char *oid;

    MB_TRY(mb_json_need_int(is_lfs ? lfs : entry, "size", 0, most_bytes, &f.size));
    MB_TRY(mb_json_get_string(is_lfs ? lfs : entry, "oid", "", &oid));
    MB_REQUIRE(is_hex(oid, is_lfs ? 64 : 40), MB_EDATA, "%s: %s has no digest that is one", r->what,
               path);
    MB_REQUIRE(r->l->n < MOST_FILES, MB_EDATA, "%s: more than %d files", r->what, MOST_FILES);
    snprintf(f.digest, sizeof f.digest, "%.64s", oid);
    MB_TRY(mb_grow((void **)&r->l->file, &r->l->capacity, r->l->n + 1, sizeof f, "the listing"));
    MB_TRY(mb_strdup(path, &f.path));
    r->l->file[r->l->n++] = f;
    return MB_OK;
}

static mb_status read_entry(struct reading *r, mb_json entry)
{
    const char *type, *path;
    char shown[400];

    MB_TRY(mb_json_get_string(entry, "type", "", &type));
    MB_TRY(mb_json_get_string(entry, "path", "", &path));
    MB_REQUIRE(
        mb_hub_file_is(path), MB_EDATA,
        "%s: the listing has the name '%s', which is none for a file inside a folder; nothing "
        "of this repository is fetched",
        r->what, mb_hub_printable(path, shown, sizeof shown));
    if (strcmp(type, "file") != 0)
        return MB_OK; /* folders come with their files */
    return read_file(r, entry, path);
}

/* The query of the next page, from Link: <...?query>; rel="next". Only the query is taken: the rest
 * of the address is ours. "" when this is the last page. */
static mb_status next_query(const struct reading *r, const mb_fetch_answer *a, char *query,
                            size_t size)
{
    char link[MB_HUB_URL_MAX], *from, *end;
    size_t n;

    query[0] = '\0';
    if (!mb_fetch_head(a, "link", link, sizeof link) || strstr(link, "rel=\"next\"") == NULL)
        return MB_OK;
    from = strchr(link, '?');
    end = strchr(link, '>');
    MB_REQUIRE(from != NULL && end != NULL && from < end, MB_EDATA,
               "%s: the address of the next page cannot be read", r->what);
    n = (size_t)(end - from);
    MB_REQUIRE(n < size && memchr(from, ' ', n) == NULL, MB_EDATA,
               "%s: the address of the next page has %zu bytes", r->what, n);
    memcpy(query, from, n);
    query[n] = '\0';
    return MB_OK;
}

static mb_status read_page(struct reading *r, char *query, size_t size)
{
    char url[MB_HUB_URL_MAX], before[4096];
    mb_fetch_answer a = {0};
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    snprintf(before, sizeof before, "%s", query);
    if (snprintf(url, sizeof url, "%s/api/%s/%s/tree/%s%s", r->endpoint, mb_hub_kind(r->name),
                 r->name->id, r->l->commit, query) >= (int)sizeof url)
        return MB_RAISE(MB_EDATA, "%s: an address too long", r->what);
    MB_TRY_GOTO(mb_hub_json(r->hub, url, r->what, &doc, &a), st, done);
    if (!mb_json_is(mb_json_root(doc), MB_JSON_ARRAY))
        MB_TRY_GOTO(mb_json_fault(mb_json_root(doc), "is no list of files"), st, done);
    for (mb_json_it it = mb_json_first(mb_json_root(doc)); mb_json_more(&it); mb_json_next(&it))
        MB_TRY_GOTO(read_entry(r, it.value), st, done);
    MB_TRY_GOTO(next_query(r, &a, query, size), st, done);
    if (strcmp(before, query) == 0)
        st = MB_RAISE(MB_EDATA, "%s: the listing's pages go in a circle", r->what);
done:
    mb_json_free(doc);
    mb_fetch_answer_release(&a);
    return st;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const mb_hub_file *)a)->path, ((const mb_hub_file *)b)->path);
}

/* Every name once, and no file where another's folder must be. */
static mb_status check_names(const struct reading *r)
{
    const mb_hub_listing *l = r->l;

    for (size_t i = 1; i < l->n; i++)
        MB_REQUIRE(strcmp(l->file[i - 1].path, l->file[i].path) != 0, MB_EDATA,
                   "%s: the listing has %s twice; nothing of this repository is fetched", r->what,
                   l->file[i].path);
    for (size_t i = 0; i < l->n; i++) {
        char above[1024];
        const mb_hub_file key = {.path = above};

        snprintf(above, sizeof above, "%s", l->file[i].path);
        for (char *slash = strrchr(above, '/'); slash != NULL; slash = strrchr(above, '/')) {
            *slash = '\0';
            MB_REQUIRE(bsearch(&key, l->file, l->n, sizeof key, by_path) == NULL, MB_EDATA,
                       "%s: the listing has %s as a file and as a folder; nothing of this "
                       "repository is fetched",
                       r->what, above);
        }
    }
    return MB_OK;
}

mb_status mb_hub_listing_read(const mb_hub *hub, const char *endpoint, const mb_hub_name *name,
                              mb_hub_listing *out)
{
    char query[4096] = "?recursive=true&expand=false";
    mb_hub_listing l = {.n = 0};
    struct reading r = {.hub = hub, .name = name, .endpoint = endpoint, .l = &l};
    mb_status st = MB_OK;

    snprintf(r.what, sizeof r.what, "%s%s", name->is_dataset ? "dataset:" : "", name->id);
    MB_TRY_GOTO(read_commit(&r), st, fail);
    for (int page = 0; query[0] != '\0'; page++) {
        if (page == MOST_PAGES)
            MB_TRY_GOTO(
                MB_RAISE(MB_EDATA, "%s: a listing of more than %d pages", r.what, MOST_PAGES), st,
                fail);
        MB_TRY_GOTO(read_page(&r, query, sizeof query), st, fail);
    }
    if (l.n > 0)
        qsort(l.file, l.n, sizeof *l.file, by_path);
    MB_TRY_GOTO(check_names(&r), st, fail);
    *out = l;
    return MB_OK;
fail:
    mb_hub_listing_release(&l);
    return st;
}

/* ---- what is wanted of it ------------------------------------------------------------------ */

static bool matches(const char *path, char *const *patterns, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const size_t length = strlen(patterns[i]);

        if (length > 0 && patterns[i][length - 1] == '/' ? strncmp(path, patterns[i], length) == 0
                                                         : fnmatch(patterns[i], path, 0) == 0)
            return true;
    }
    return false;
}

void mb_hub_listing_choose(mb_hub_listing *l, char *const *include, size_t n_include,
                           char *const *exclude, size_t n_exclude)
{
    for (size_t i = 0; i < l->n; i++)
        l->file[i].wanted = (n_include == 0 || matches(l->file[i].path, include, n_include)) &&
                            !matches(l->file[i].path, exclude, n_exclude);
}
