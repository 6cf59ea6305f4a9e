/* recipes/hub/depot.c - the table of routes, who may do what, and how errors are said. */
#include "recipes/hub/depot.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/depot_inside.h"

enum { SMALL = 1 << 20, LISTS = 8 << 20, ROUTES_MAX = 64 };

static mb_status health(void *arg, mb_http_request *q)
{
    return mb_http_answer(q, 200, "application/json", "{\"status\":\"ok\"}", 15);
}

#define REPO       "/api/{kind}/{repo*}"
#define COMMIT_MAX ((int64_t)2 << 30)
#define PUT_MAX    ((int64_t)1 << 46)
#define WHOLE      .body = MB_HTTP_WHOLE
#define REF        .flags = MB_HTTP_SLASHES

/* After those of Xet. The last two take what is left. */
static const mb_http_route routes[] = {
    {"GET", "/", mb_depot_home, .flags = 0},
    {"GET", "/-/style.css", mb_depot_style, .flags = MB_HTTP_OPEN},
    {"GET", "/-/health", health, .flags = MB_HTTP_OPEN},
    {"PUT", "/-/lfs/{oid}", mb_depot_lfs_put, .body = MB_HTTP_PIECES, .body_max = PUT_MAX,
     .flags = MB_HTTP_OPEN, .begin = mb_depot_lfs_begin, .piece = mb_depot_lfs_piece,
     .drop = mb_depot_lfs_drop},
    {"POST", "/-/lfs/{oid}/complete", mb_depot_lfs_complete, WHOLE, .body_max = LISTS,
     .flags = MB_HTTP_OPEN},
    {"POST", "/-/lfs/{oid}/verify", mb_depot_lfs_verify, WHOLE, .body_max = SMALL,
     .flags = MB_HTTP_OPEN},
    {"GET", "/api/whoami-v2", mb_depot_whoami, .flags = MB_HTTP_OPEN},
    {"POST", "/api/validate-yaml", mb_depot_validate_yaml, WHOLE, .body_max = LISTS},
    {"POST", "/api/repos/create", mb_depot_create, WHOLE, .body_max = SMALL},
    {"DELETE", "/api/repos/delete", mb_depot_delete, WHOLE, .body_max = SMALL},
    {"POST", "/api/repos/move", mb_depot_move, WHOLE, .body_max = SMALL},
    {"GET", "/api/{kind}", mb_depot_repos, .flags = 0},
    {"GET", REPO "/revision/{rev}", mb_depot_revision, REF},
    {"GET", REPO "/refs", mb_depot_refs, .flags = 0},
    {"GET", REPO "/commits/{rev}", mb_depot_commits, REF},
    {"GET", REPO "/auth-check", mb_depot_auth_check, .flags = 0},
    {"GET", REPO "/auth-check/{rights}", mb_depot_auth_check, .flags = 0},
    {"GET", REPO "/xet-write-token/{rev}", mb_depot_xet_token, REF},
    {"POST", REPO "/paths-info/{rev}", mb_depot_paths_info, WHOLE, .body_max = LISTS, REF},
    {"POST", REPO "/preupload/{rev}", mb_depot_preupload, WHOLE, .body_max = LISTS, REF},
    {"POST", REPO "/commit/{rev}", mb_depot_commit, .body = MB_HTTP_PIECES, .body_max = COMMIT_MAX,
     REF, .begin = mb_depot_commit_begin, .piece = mb_depot_commit_piece,
     .drop = mb_depot_commit_drop},
    {"POST", REPO "/tag/{rev}", mb_depot_tag, WHOLE, .body_max = SMALL, REF},
    {"DELETE", REPO "/tag/{rev}", mb_depot_untag, REF},
    {"POST", REPO "/branch/{rev}", mb_depot_branch, WHOLE, .body_max = SMALL, REF},
    {"DELETE", REPO "/branch/{rev}", mb_depot_unbranch, REF},
    {"PUT", REPO "/settings", mb_depot_settings, WHOLE, .body_max = SMALL},
    {"GET", REPO, mb_depot_rest_of_repo, REF},
    {"GET", REPO "/", mb_depot_rest_of_repo, REF}, /* olah asks so for trees */
    {"POST", "/{repo*}/info/lfs/objects/batch", mb_depot_lfs_batch, WHOLE, .body_max = LISTS},
    {"GET", "/{rest*}", mb_depot_any_path, REF},
    {0},
};

/* --- who may do what */

bool mb_depot_knows(const mb_depot *d, const mb_http_request *q)
{
    const char *said = mb_http_head(q, "Authorization");
    unsigned char differs = 0;

    if (d->token == NULL || said == NULL || strncmp(said, "Bearer ", 7) != 0)
        return false;
    said += 7;
    const size_t n = strlen(d->token);
    if (strlen(said) != n)
        return false;
    for (size_t i = 0; i < n; i++) /* in the same time whatever is wrong */
        differs |= (unsigned char)(said[i] ^ d->token[i]);
    return differs == 0;
}

static mb_status allow(void *arg, mb_http_request *q)
{
    mb_depot *d = arg;

    if (!d->closed || mb_depot_knows(d, q))
        return MB_OK;
    return mb_http_refuse(q, 401, "GatedRepo", "this hub wants its token");
}

bool mb_depot_may_write(const mb_depot *d, mb_http_request *q)
{
    mb_status st;

    if (!d->writable)
        st = mb_http_refuse(q, 403, "forbidden", "this hub is read only");
    else if (!mb_depot_knows(d, q))
        st = mb_http_refuse(q, 401, "unauthorized",
                            "writing to this hub wants its token (HF_TOKEN, or --token)");
    else
        return true;
    if (st != MB_OK)
        mb_status_clear();
    return false;
}

/* --- errors */

int mb_depot_miss_status(mb_status st, mb_shelf_miss miss, const char **code)
{
    static const struct {
        int status;
        const char *code;
    } by_miss[] = {
        [MB_SHELF_NO_REPO] = {404, "RepoNotFound"},
        [MB_SHELF_NO_REVISION] = {404, "RevisionNotFound"},
        [MB_SHELF_NO_FILE] = {404, "EntryNotFound"},
        [MB_SHELF_EXISTS] = {409, "exists"},
        [MB_SHELF_MOVED_ON] = {412, "moved_on"},
        [MB_SHELF_READ_ONLY] = {403, "forbidden"},
        [MB_SHELF_WRONG] = {400, "bad_request"},
    };

    if (miss != MB_SHELF_NO_MISS) {
        *code = by_miss[miss].code;
        return by_miss[miss].status;
    }
    *code = "server_error";
    if (st == MB_EARG || st == MB_EDATA) {
        *code = "bad_request";
        return 400;
    }
    return st == MB_ENOMEM ? 503 : st == MB_EIO ? 507 : 500;
}

mb_status mb_depot_missed(mb_http_request *q, mb_status st, mb_shelf_miss miss)
{
    char sentence[600];
    const char *code;
    const int status = mb_depot_miss_status(st, miss, &code);

    snprintf(sentence, sizeof sentence, "%s", mb_status_sentence());
    mb_status_clear();
    return mb_http_refuse(q, status, code, "%s", sentence);
}

mb_status mb_depot_error_body(const char *sentence, char **out, size_t *n)
{
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_json_doc_new("an error", &doc));
    st = mb_json_set_string(mb_json_root(doc), "error", sentence);
    if (st == MB_OK) /* what speaks LFS looks for this name */
        st = mb_json_set_string(mb_json_root(doc), "message", sentence);
    if (st == MB_OK)
        st = mb_json_text(mb_json_root(doc), 0, out, n);
    mb_json_free(doc);
    return st;
}

/* The clients branch on X-Error-Code; the sentence goes into a header and the body. */
static void say_error(void *arg, mb_http_request *q, int status, const char *what,
                      const char *sentence)
{
    char plain[600], *body = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    snprintf(plain, sizeof plain, "%s", sentence);
    for (char *p = plain; *p != '\0'; p++)
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126)
            *p = '?';
    if (what[0] >= 'A' && what[0] <= 'Z')
        st = mb_http_add(q, "X-Error-Code", what);
    if (st == MB_OK)
        st = mb_http_add(q, "X-Error-Message", plain);
    if (st == MB_OK && status == 401)
        st = mb_http_add(q, "WWW-Authenticate", "Bearer");
    if (st == MB_OK)
        st = mb_depot_error_body(plain, &body, &n);
    if (st == MB_OK)
        st = mb_http_answer(q, status, "application/json", body, n);
    mb_free(body);
    if (st != MB_OK)
        mb_status_clear();
}

/* --- small things */

mb_status mb_depot_json(mb_http_request *q, int status, mb_json_doc *doc)
{
    char *text = NULL;
    size_t n;
    mb_status st = mb_json_text(mb_json_root(doc), 0, &text, &n);

    if (st == MB_OK)
        st = mb_http_answer(q, status, "application/json; charset=utf-8", text, n);
    mb_free(text);
    mb_json_free(doc);
    return st;
}

bool mb_depot_kind(mb_http_request *q, const char *word, mb_shelf_kind *kind)
{
    if (mb_shelf_kind_of(word, kind) && strcmp(word, mb_shelf_kind_folder(*kind)) == 0)
        return true;
    if (mb_http_refuse(q, 404, "not_found", "there is nothing at %.200s", mb_http_path(q)) != MB_OK)
        mb_status_clear();
    return false;
}

mb_status mb_depot_repo(mb_depot *d, mb_http_request *q, mb_shelf_kind kind, const char *id,
                        mb_shelf_brief *out, bool *found)
{
    mb_shelf_miss miss;

    *found = false;
    const mb_status st = mb_shelf_find(d->shelf, kind, id, out, &miss);
    if (st != MB_OK)
        return mb_depot_missed(q, st, miss);
    if (out->hidden && !mb_depot_knows(d, q)) {
        mb_shelf_brief_release(out);
        return mb_http_refuse(q, 404, "RepoNotFound", "there is no %s '%s' here",
                              mb_shelf_kind_name(kind), id);
    }
    *found = true;
    return MB_OK;
}

mb_status mb_depot_asked(mb_depot *d, mb_http_request *q, bool write, mb_shelf_brief *out,
                         bool *found)
{
    mb_shelf_kind kind;

    *found = false;
    if (!mb_depot_kind(q, mb_http_part(q, "kind"), &kind) || (write && !mb_depot_may_write(d, q)))
        return MB_OK;
    return mb_depot_repo(d, q, kind, mb_http_part(q, "repo"), out, found);
}

const char *mb_depot_time(int64_t seconds, char text[32])
{
    const time_t at = (time_t)seconds;
    struct tm tm;

    if (gmtime_r(&at, &tm) == NULL || strftime(text, 32, "%Y-%m-%dT%H:%M:%S.000Z", &tm) == 0)
        snprintf(text, 32, "1970-01-01T00:00:00.000Z");
    return text;
}

mb_status mb_depot_quote(const char *text, char **out)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;

    MB_TRY(mb_alloc(3 * strlen(text) + 1, "an address", (void **)out));
    for (const char *p = text; *p != '\0'; p++) {
        const unsigned char c = (unsigned char)*p;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            strchr("-._~/", c) != NULL) {
            (*out)[n++] = *p;
        } else {
            (*out)[n++] = '%';
            (*out)[n++] = hex[c >> 4];
            (*out)[n++] = hex[c & 15];
        }
    }
    (*out)[n] = '\0';
    return MB_OK;
}

mb_status mb_depot_url(const mb_http_request *q, mb_shelf_kind kind, const char *id,
                       const char *below, char **out)
{
    const char *folder = kind == MB_SHELF_MODEL ? "" : mb_shelf_kind_folder(kind);

    return mb_asprintf(out, "%s/%s%s%s%s%s", mb_http_origin(q), folder,
                       folder[0] != '\0' ? "/" : "", id, below[0] != '\0' ? "/" : "", below);
}

int64_t mb_depot_number(const mb_http_request *q, const char *query, int64_t lo, int64_t hi,
                        int64_t otherwise)
{
    const char *text = mb_http_query(q, query);
    int64_t v = 0;

    if (text == NULL || text[0] == '\0' || strlen(text) > 15 ||
        strspn(text, "0123456789") != strlen(text))
        return otherwise;
    for (; *text != '\0'; text++)
        v = 10 * v + (*text - '0');
    return v < lo ? lo : v > hi ? hi : v;
}

bool mb_depot_yes(const mb_http_request *q, const char *query)
{
    const char *text = mb_http_query(q, query);

    return text != NULL &&
           (strcmp(text, "true") == 0 || strcmp(text, "True") == 0 || strcmp(text, "1") == 0);
}

mb_status mb_depot_body(const mb_http_request *q, mb_json_doc **out)
{
    size_t n;
    const char *body = mb_http_whole(q, &n);
    mb_json_doc *doc;

    MB_TRY(mb_json_parse(body, n, "the request", 0, MB_EARG, &doc));
    if (!mb_json_is(mb_json_root(doc), MB_JSON_OBJECT)) {
        mb_json_free(doc);
        return MB_RAISE(MB_EARG, "the request's body is not a JSON object");
    }
    *out = doc;
    return MB_OK;
}

mb_status mb_depot_text(mb_json o, const char *key, const char **out)
{
    MB_TRY(mb_json_get_string(o, key, NULL, out));
    MB_REQUIRE(*out != NULL, MB_EARG, "the request has no '%s'", key);
    return MB_OK;
}

MB_DEPOT_HANDLER(whoami)
{
    mb_depot *d = arg;
    mb_json_doc *doc = NULL;
    mb_json root, auth, o;
    mb_status st;

    if (!mb_depot_knows(d, q))
        return mb_http_refuse(q, 401, "unauthorized", "Invalid user token.");
    MB_TRY(mb_json_doc_new("whoami", &doc));
    root = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(root, "type", "user"), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "id", "0"), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "name", d->name), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "fullname", d->name), st, done);
    MB_TRY_GOTO(mb_json_set_bool(root, "isPro", false), st, done);
    MB_TRY_GOTO(mb_json_set_array(root, "orgs", &o), st, done);
    MB_TRY_GOTO(mb_json_set_object(root, "auth", &auth), st, done);
    MB_TRY_GOTO(mb_json_set_string(auth, "type", "access_token"), st, done);
    MB_TRY_GOTO(mb_json_set_object(auth, "accessToken", &o), st, done);
    MB_TRY_GOTO(mb_json_set_string(o, "displayName", "hub"), st, done);
    MB_TRY_GOTO(mb_json_set_string(o, "role", d->writable ? "write" : "read"), st, done);
    return mb_depot_json(q, 200, doc);
done:
    mb_json_free(doc);
    return st;
}

/* --- start and stop */

static mb_status file_object(void *arg, const char *path, const char sha256[MB_DIGEST_HEX],
                             int64_t size)
{
    return mb_objects_take(mb_shelf_objects(arg), path, sha256, size);
}

static bool have_object(void *arg, const char sha256[MB_DIGEST_HEX], int64_t *size)
{
    return mb_objects_has(mb_shelf_objects(arg), sha256, size);
}

static mb_status object_path(void *arg, const char sha256[MB_DIGEST_HEX], char *path, size_t size)
{
    return mb_objects_path(mb_shelf_objects(arg), sha256, path, size);
}

static mb_status open_xet(mb_depot *d)
{
    char dir[MB_PATH_MAX];

    MB_TRY(mb_path_join(dir, sizeof dir, mb_shelf_store(d->shelf), "xet"));
    return mb_xet_open(&(mb_xet_options){.dir = dir,
                                         .file = file_object,
                                         .have = have_object,
                                         .object = object_path,
                                         .arg = d->shelf},
                       &d->xet);
}

static mb_status listen_on(mb_depot *d, const mb_depot_options *o)
{
    static const mb_http_header headers[] = {{"Referrer-Policy", "no-referrer"}, {0}};
    static mb_http_route all[ROUTES_MAX];

    _Static_assert(sizeof routes / sizeof *routes + MB_XET_ROUTES <= ROUTES_MAX, "room for routes");
    memcpy(all, mb_xet_routes, sizeof mb_xet_routes);
    memcpy(all + MB_XET_ROUTES, routes, sizeof routes);
    return mb_http_start(&(mb_http_options){.address = o->address,
                                            .port = o->port,
                                            .routes = all,
                                            .arg = d,
                                            .hosts = o->hosts,
                                            .headers = headers,
                                            .allow = allow,
                                            .error = say_error,
                                            .threads = 4},
                         &d->http);
}

mb_status mb_depot_start(const mb_depot_options *o, mb_depot **out)
{
    mb_depot *d;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&d));
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, NULL);
    d->writable = o->shelf.writable && o->token != NULL;
    d->closed = o->closed;
    MB_TRY_GOTO(mb_strdup(o->name != NULL ? o->name : "mbuyu", &d->name), st, done);
    if (o->token != NULL)
        MB_TRY_GOTO(mb_strdup(o->token, &d->token), st, done);
    MB_TRY_GOTO(mb_shelf_open(&o->shelf, &d->shelf), st, done);
    if (d->writable)
        MB_TRY_GOTO(open_xet(d), st, done);
    MB_TRY_GOTO(mb_depot_work_start(d), st, done);
    MB_TRY_GOTO(listen_on(d, o), st, done);
    *out = d;
    return MB_OK;
done:
    mb_depot_stop(d);
    return st;
}

int mb_depot_port(const mb_depot *d)
{
    return mb_http_port(d->http);
}

mb_shelf *mb_depot_shelf(const mb_depot *d)
{
    return d->shelf;
}

void mb_depot_stop(mb_depot *d)
{
    if (d == NULL)
        return;
    mb_depot_work_stop(d);
    if (d->xet != NULL)
        mb_xet_stop(d->xet);
    mb_http_stop(d->http);
    mb_xet_free(d->xet);
    mb_shelf_close(d->shelf);
    mb_free(d->name);
    mb_free(d->token);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->wake);
    mb_free(d);
}
