/* recipes/hub/depot_lfs.c - uploads by Git LFS: the batch request, whole or in parts.
 *
 * Addresses of uploads are signed, for clients send them no token: ?until=SECONDS&size=N[&part=K]&sign=...
 * where sign is a digest over these and a secret that stays with the store, so that they outlive a
 * restart. Parts that came wait in the store until all are there; the same part sent again replaces it.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "recipes/hub/depot_inside.h"

enum {
    OBJECTS_MAX = 1000,
    GOOD_SECONDS = 6 * 3600,
    PART = 16 << 20,
    PARTS_MAX = 1000,
    /* what an address is for, where it is for no part */
    WHOLE = 0,
    COMPLETE = -1,
    VERIFY = -2,
};
static const int64_t WHOLE_MAX = 32 << 20; /* larger objects come in parts, if the client can */
static const int64_t OBJECT_MAX = (int64_t)1 << 46;
static const char type[] = "application/vnd.git-lfs+json";

/* The size of a part of an object: all have it but the last. */
static int64_t part_size(int64_t size)
{
    const int64_t least = (size + PARTS_MAX - 1) / PARTS_MAX;

    return least > PART ? (least + 0xfffff) & ~(int64_t)0xfffff : PART;
}

static int n_parts(int64_t size)
{
    return (int)((size + part_size(size) - 1) / part_size(size));
}

static int64_t bytes_of(int64_t size, int part)
{
    const int64_t each = part_size(size);

    return part < n_parts(size) ? each : size - each * (n_parts(size) - 1);
}

/* part: from 1, or WHOLE, COMPLETE, VERIFY: an address is good for nothing else. */
static mb_status sign(const mb_depot *d, const char *oid, int64_t size, int part, int64_t until,
                      char out[MB_DIGEST_HEX])
{
    uint8_t digest[MB_DIGEST_BYTES];
    char text[400];
    const char *secret = mb_shelf_secret(d->shelf);
    const int n = snprintf(text, sizeof text, "%s lfs %s %lld %d %lld %s", secret, oid,
                           (long long)size, part, (long long)until, secret);

    MB_TRY(mb_digest_memory(text, (size_t)n, digest));
    mb_digest_hex(digest, out);
    return MB_OK;
}

static mb_status address(const mb_depot *d, const mb_http_request *q, const char *oid, int64_t size,
                         int part, const char *below, char **out)
{
    const int64_t until = (int64_t)time(NULL) + GOOD_SECONDS;
    char signature[MB_DIGEST_HEX];

    MB_TRY(sign(d, oid, size, part, until, signature));
    return mb_asprintf(out, "%s/-/lfs/%s%s?until=%lld&size=%lld&part=%d&sign=%s", mb_http_origin(q),
                       oid, below, (long long)until, (long long)size, part < 0 ? 0 : part,
                       signature);
}

/* Is this address one that was given out? */
static mb_status check(const mb_depot *d, mb_http_request *q, int what, int64_t *size, int *part,
                       bool *good)
{
    const char *oid = mb_http_part(q, "oid"), *said = mb_http_query(q, "sign");
    const int64_t until = mb_depot_number(q, "until", 0, INT64_MAX, 0);
    char signature[MB_DIGEST_HEX];
    unsigned char differs = 0;

    *size = mb_depot_number(q, "size", 0, OBJECT_MAX, 0);
    *part = what < 0 ? what : (int)mb_depot_number(q, "part", 0, PARTS_MAX, 0);
    *good = false;
    if (!d->writable || !mb_shelf_is_hex(oid, 64) || said == NULL || strlen(said) != 64 ||
        until < (int64_t)time(NULL))
        return mb_http_refuse(q, 403, "forbidden", "this address is wrong or too old");
    MB_TRY(sign(d, oid, *size, *part, until, signature));
    for (int i = 0; i < 64; i++)
        differs |= (unsigned char)(said[i] ^ signature[i]);
    if (differs != 0)
        return mb_http_refuse(q, 403, "forbidden", "this address is wrong or too old");
    *good = true;
    return MB_OK;
}

/* --- the batch request */

static mb_status set_href(mb_json actions, const char *name, const char *href, mb_json *out)
{
    mb_json o;

    MB_TRY(mb_json_set_object(actions, name, &o));
    MB_TRY(mb_json_set_string(o, "href", href));
    MB_TRY(mb_json_set_int(o, "expires_in", GOOD_SECONDS));
    if (out != NULL)
        *out = o;
    return MB_OK;
}

static mb_status in_parts(const mb_depot *d, const mb_http_request *q, mb_json actions,
                          const char *oid, int64_t size)
{
    char text[32], *href = NULL;
    mb_json upload, heads;
    mb_status st;

    MB_TRY_GOTO(address(d, q, oid, size, COMPLETE, "/complete", &href), st, done);
    MB_TRY_GOTO(set_href(actions, "upload", href, &upload), st, done);
    MB_TRY_GOTO(mb_json_set_object(upload, "header", &heads), st, done);
    snprintf(text, sizeof text, "%lld", (long long)part_size(size));
    MB_TRY_GOTO(mb_json_set_string(heads, "chunk_size", text), st, done);
    for (int i = 1; i <= n_parts(size); i++) {
        mb_free(href);
        href = NULL;
        MB_TRY_GOTO(address(d, q, oid, size, i, "", &href), st, done);
        snprintf(text, sizeof text, "%05d", i);
        MB_TRY_GOTO(mb_json_set_string(heads, text, href), st, done);
    }
done:
    mb_free(href);
    return st;
}

static mb_status set_object(const mb_depot *d, const mb_http_request *q, mb_json list,
                            mb_json asked, bool parts)
{
    const char *oid;
    char *href = NULL;
    int64_t size, have;
    mb_json o, actions;
    mb_status st;

    MB_TRY(mb_depot_text(asked, "oid", &oid));
    MB_REQUIRE(mb_shelf_is_hex(oid, 64), MB_EARG, "the oid '%.80s' is not a sha256", oid);
    MB_TRY(mb_json_need_int(asked, "size", 0, OBJECT_MAX, &size));
    MB_TRY(mb_json_set_object(list, NULL, &o));
    MB_TRY(mb_json_set_string(o, "oid", oid));
    MB_TRY(mb_json_set_int(o, "size", size));
    if (mb_objects_has(mb_shelf_objects(d->shelf), oid, &have) && have == size)
        return MB_OK; /* nothing to do; one of another size was damaged, and comes again */
    MB_TRY(mb_json_set_bool(o, "authenticated", true));
    MB_TRY(mb_json_set_object(o, "actions", &actions));
    if (parts && size > WHOLE_MAX) {
        MB_TRY_GOTO(in_parts(d, q, actions, oid, size), st, done);
    } else {
        MB_TRY_GOTO(address(d, q, oid, size, WHOLE, "", &href), st, done);
        MB_TRY_GOTO(set_href(actions, "upload", href, NULL), st, done);
    }
    mb_free(href);
    href = NULL;
    MB_TRY_GOTO(address(d, q, oid, size, VERIFY, "/verify", &href), st, done);
    st = set_href(actions, "verify", href, NULL);
done:
    mb_free(href);
    return st;
}

static bool lists(mb_json list, const char *word)
{
    const char *text;

    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it))
        if (mb_json_is(it.value, MB_JSON_STRING) &&
            mb_json_string(it.value, &text, NULL) == MB_OK && strcmp(text, word) == 0)
            return true;
    return false;
}

/* "datasets/org/name.git" -> kind, id. */
static bool repo_of(const char *text, mb_shelf_kind *kind, char id[MB_SHELF_ID_MAX])
{
    *kind = MB_SHELF_MODEL;
    for (int k = 0; k < MB_SHELF_KINDS; k++) {
        const char *folder = mb_shelf_kind_folder((mb_shelf_kind)k);
        const size_t n = strlen(folder);
        if (strncmp(text, folder, n) == 0 && text[n] == '/') {
            *kind = (mb_shelf_kind)k;
            text += n + 1;
            break;
        }
    }
    const size_t n = strlen(text);
    if (n < 4 || n >= MB_SHELF_ID_MAX || strcmp(text + n - 4, ".git") != 0)
        return false;
    snprintf(id, MB_SHELF_ID_MAX, "%.*s", (int)(n - 4), text);
    return true;
}

static mb_status batch(mb_depot *d, mb_http_request *q, mb_json body, mb_json_doc **out)
{
    mb_json objects = mb_json_get(body, "objects"), root, list;
    const char *operation;
    bool parts = lists(mb_json_get(body, "transfers"), "multipart"), any_parts = false;
    int64_t size;

    MB_TRY(mb_depot_text(body, "operation", &operation));
    MB_REQUIRE(strcmp(operation, "upload") == 0, MB_ENOTSUP,
               "LFS is for uploads here; files are fetched by /resolve/");
    MB_REQUIRE(mb_json_count(objects) <= OBJECTS_MAX, MB_EARG, "more than %d objects at once",
               OBJECTS_MAX);
    for (mb_json_it it = mb_json_first(objects); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY(mb_json_need_int(it.value, "size", 0, OBJECT_MAX, &size));
        any_parts |= parts && size > WHOLE_MAX;
    }
    MB_TRY(mb_json_doc_new("a batch", out));
    root = mb_json_root(*out);
    MB_TRY(mb_json_set_string(root, "transfer", any_parts ? "multipart" : "basic"));
    MB_TRY(mb_json_set_array(root, "objects", &list));
    for (mb_json_it it = mb_json_first(objects); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(set_object(d, q, list, it.value, parts));
    return MB_OK;
}

MB_DEPOT_HANDLER(lfs_batch)
{
    mb_depot *d = arg;
    mb_json_doc *body = NULL, *doc = NULL;
    char id[MB_SHELF_ID_MAX], *text = NULL;
    mb_shelf_kind kind;
    mb_shelf_brief b;
    bool found;
    size_t n;
    mb_status st;

    if (!repo_of(mb_http_part(q, "repo"), &kind, id))
        return mb_http_refuse(q, 404, "RepoNotFound", "there is no such repository here");
    if (!mb_depot_may_write(d, q))
        return MB_OK;
    MB_TRY(mb_depot_repo(d, q, kind, id, &b, &found));
    if (!found)
        return MB_OK;
    mb_shelf_brief_release(&b);
    MB_TRY_GOTO(mb_depot_body(q, &body), st, done);
    st = batch(d, q, mb_json_root(body), &doc);
    if (st == MB_ENOTSUP) {
        st = mb_depot_missed(q, MB_EARG, MB_SHELF_NO_MISS);
        goto done;
    }
    MB_TRY_GOTO(st, st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, &n), st, done);
    st = mb_http_answer(q, 200, type, text, n);
done:
    mb_free(text);
    mb_json_free(doc);
    mb_json_free(body);
    return st;
}

/* --- content */

struct upload {
    mb_incoming *in;
    int64_t size; /* of the object */
    int part;
};

mb_status mb_depot_lfs_begin(void *arg, mb_http_request *q, void **state)
{
    mb_depot *d = arg;
    struct upload *u;
    int64_t size;
    int part;
    bool good;
    mb_status st;

    MB_TRY(check(d, q, WHOLE, &size, &part, &good));
    if (!good)
        return MB_OK;
    if (part > n_parts(size))
        return mb_http_refuse(q, 400, "bad_request", "there is no part %d", part);
    MB_TRY(MB_NEW(&u));
    u->size = size;
    u->part = part;
    st =
        mb_incoming_new(mb_shelf_objects(d->shelf), part > 0 ? bytes_of(size, part) : size, &u->in);
    if (st != MB_OK) {
        mb_free(u);
        return st;
    }
    *state = u;
    return MB_OK;
}

mb_status mb_depot_lfs_piece(void *state, const void *data, size_t n)
{
    struct upload *u = state;
    const mb_status st = mb_incoming_add(u->in, data, n);

    return st == MB_EDATA ? MB_EARG : st;
}

void mb_depot_lfs_drop(void *state)
{
    struct upload *u = state;

    if (u != NULL)
        mb_incoming_free(u->in);
    mb_free(u);
}

MB_DEPOT_HANDLER(lfs_put)
{
    struct upload *u = mb_http_state(q);
    const char *oid = mb_http_part(q, "oid");
    char sha256[MB_DIGEST_HEX], etag[MB_DIGEST_HEX + 2];
    int64_t size;
    mb_status st;

    MB_REQUIRE(u != NULL, MB_EARG, "nothing was sent");
    if (u->part > 0)
        st = mb_incoming_end_part(u->in, oid, u->part, bytes_of(u->size, u->part), sha256);
    else
        st = mb_incoming_end(u->in, oid, sha256, &size);
    if (st != MB_OK)
        return mb_depot_missed(q, st, MB_SHELF_NO_MISS);
    snprintf(etag, sizeof etag, "\"%s\"", sha256);
    MB_TRY(mb_http_add(q, "ETag", etag));
    return mb_http_answer(q, 200, "application/json", "{}", 2);
}

struct joining {
    char oid[MB_DIGEST_HEX];
    int64_t size;
};

static void join(mb_depot *d, mb_http_reply *r, void *state)
{
    const struct joining *j = state;
    mb_objects *o = mb_shelf_objects(d->shelf);
    int64_t have;
    mb_status st = MB_OK;

    if (!mb_objects_has(o, j->oid, &have) || have != j->size)
        st = mb_objects_join(o, j->oid, j->size, n_parts(j->size));
    if (st == MB_OK)
        mb_http_reply_send(r, 200, "application/json", "{}", 2);
    else
        mb_depot_reply_failed(r, st, MB_SHELF_NO_MISS);
}

MB_DEPOT_HANDLER(lfs_complete)
{
    mb_depot *d = arg;
    struct joining *j;
    int64_t size;
    int part;
    bool good;

    MB_TRY(check(d, q, COMPLETE, &size, &part, &good));
    if (!good)
        return MB_OK;
    MB_TRY(MB_NEW(&j));
    snprintf(j->oid, sizeof j->oid, "%s", mb_http_part(q, "oid"));
    j->size = size;
    return mb_depot_later(d, q, join, mb_free, j);
}

MB_DEPOT_HANDLER(lfs_verify)
{
    mb_depot *d = arg;
    int64_t size, have;
    int part;
    bool good;

    MB_TRY(check(d, q, VERIFY, &size, &part, &good));
    if (!good)
        return MB_OK;
    if (!mb_objects_has(mb_shelf_objects(d->shelf), mb_http_part(q, "oid"), &have) || have != size)
        return mb_http_refuse(q, 404, "not_found", "this object is not here");
    return mb_http_answer(q, 200, type, "{}", 2);
}
