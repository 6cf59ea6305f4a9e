/* recipes/hub/depot_commit.c - a commit as it comes: lines of JSON, of which a file's may hold its content.
 * A line is read, its content put into the store and forgotten, before the next. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/hub/base64.h"
#include "recipes/hub/depot_inside.h"
#include "recipes/tokenizers/bytes.h"

enum { LINE_MAX_BYTES = 32 << 20, CHANGES_MAX = 50000, WORDS_MAX = 64 << 10 };

struct draft {
    mb_shelf *shelf;
    mb_shelf_kind kind;
    char id[MB_SHELF_ID_MAX];
    char *origin; /* of its address in the answer */
    char *branch, *title, *message, *author, *parent;
    mb_shelf_change *changes;
    size_t n, capacity;
    mb_bytes line;
    int64_t lines;
};

/* The state of the request; the draft goes to whoever makes the commit. */
struct state {
    struct draft *draft;
};

static void free_draft(void *p)
{
    struct draft *d = p;

    if (d == NULL)
        return;
    for (size_t i = 0; i < d->n; i++) {
        mb_free(d->changes[i].path);
        mb_free(d->changes[i].from);
        mb_free(d->changes[i].from_rev);
    }
    char *const texts[] = {d->origin, d->branch, d->title, d->message, d->author, d->parent};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        mb_free(texts[i]);
    mb_bytes_release(&d->line);
    mb_free(d->changes);
    mb_free(d);
}

mb_status mb_depot_commit_begin(void *arg, mb_http_request *q, void **out)
{
    mb_depot *depot = arg;
    const char *rev = mb_http_part(q, "rev"), *pr = mb_http_query(q, "create_pr");
    struct state *s = NULL;
    struct draft *d = NULL;
    mb_shelf_brief b;
    bool found;
    mb_status st;

    MB_TRY(mb_depot_asked(depot, q, true, &b, &found));
    if (!found)
        return MB_OK;
    mb_shelf_brief_release(&b);
    if (pr != NULL && strcmp(pr, "1") == 0)
        return mb_http_refuse(q, 400, "bad_request", "this hub has no pull requests");
    MB_TRY_GOTO(MB_NEW(&s), st, done);
    MB_TRY_GOTO(MB_NEW(&d), st, done);
    d->shelf = depot->shelf;
    d->kind = b.kind;
    memcpy(d->id, b.id, sizeof d->id);
    if (strncmp(rev, "refs/heads/", 11) == 0)
        rev += 11;
    MB_TRY_GOTO(mb_strdup(rev, &d->branch), st, done);
    MB_TRY_GOTO(mb_strdup(depot->name, &d->author), st, done);
    MB_TRY_GOTO(mb_depot_url(q, d->kind, d->id, "commit/", &d->origin), st, done);
    s->draft = d;
    *out = s;
    return MB_OK;
done:
    free_draft(d);
    mb_free(s);
    return st;
}

void mb_depot_commit_drop(void *state)
{
    struct state *s = state;

    if (s != NULL)
        free_draft(s->draft);
    mb_free(s);
}

static mb_status set_text(mb_json o, const char *key, const char *otherwise, char **to)
{
    const char *text;

    MB_TRY(mb_json_get_string(o, key, otherwise, &text));
    mb_free(*to);
    *to = NULL;
    if (text == NULL)
        return MB_OK;
    MB_REQUIRE(strlen(text) <= WORDS_MAX, MB_EARG, "the commit's '%s' has more than %d bytes", key,
               WORDS_MAX);
    return mb_strdup(text, to);
}

static mb_status header(struct draft *d, mb_json value)
{
    MB_TRY(set_text(value, "summary", "a commit", &d->title));
    MB_TRY(set_text(value, "description", "", &d->message));
    return set_text(value, "parentCommit", NULL, &d->parent);
}

static mb_status add(struct draft *d, mb_json value, const char *path_key, mb_shelf_change **out)
{
    const char *path;

    MB_REQUIRE(d->n < CHANGES_MAX, MB_EARG, "more than %d files in one commit", CHANGES_MAX);
    MB_TRY(mb_depot_text(value, path_key, &path));
    MB_TRY(mb_grow((void **)&d->changes, &d->capacity, d->n + 1, sizeof *d->changes, "changes"));
    *out = &d->changes[d->n];
    **out = (mb_shelf_change){0};
    MB_TRY(mb_strdup(path, &(*out)->path));
    d->n++;
    return MB_OK;
}

static mb_status put_content(struct draft *d, const uint8_t *bytes, size_t n, mb_shelf_change *c)
{
    char hex[MB_DIGEST_HEX];
    mb_incoming *in = NULL;
    mb_digest *git = NULL;
    mb_status st;

    c->what = MB_SHELF_PUT;
    c->lfs = mb_shelf_is_lfs((int64_t)n, bytes, n < 8192 ? n : 8192);
    MB_TRY_GOTO(mb_digest_new_git_blob((int64_t)n, &git), st, done);
    MB_TRY_GOTO(mb_digest_add(git, bytes, n), st, done);
    MB_TRY_GOTO(mb_digest_end_hex(git, hex), st, done);
    snprintf(c->oid, sizeof c->oid, "%.40s", hex);
    MB_TRY_GOTO(mb_incoming_new(mb_shelf_objects(d->shelf), (int64_t)n, &in), st, done);
    MB_TRY_GOTO(mb_incoming_add(in, bytes, n), st, done);
    st = mb_incoming_end(in, NULL, c->sha256, &c->size);
done:
    mb_incoming_free(in);
    mb_digest_free(git);
    return st;
}

static mb_status file(struct draft *d, mb_json value)
{
    const char *content, *encoding;
    mb_shelf_change *c = NULL;
    uint8_t *bytes = NULL;
    size_t n;
    mb_status st;

    MB_TRY(mb_depot_text(value, "content", &content));
    MB_TRY(mb_json_get_string(value, "encoding", "base64", &encoding));
    MB_REQUIRE(strcmp(encoding, "base64") == 0, MB_EARG,
               "a file's content is encoded as '%.40s', not base64", encoding);
    MB_TRY(add(d, value, "path", &c));
    n = strlen(content);
    MB_TRY(mb_alloc(n / 4 * 3 + 1, "a file's content", (void **)&bytes));
    if (mb_base64_read(content, n, bytes, &n))
        st = put_content(d, bytes, n, c);
    else
        st = MB_RAISE(MB_EARG, "the content of '%.200s' is not base64", c->path);
    mb_free(bytes);
    return st;
}

static mb_status lfs_file(struct draft *d, mb_json value)
{
    const char *oid, *algo;
    mb_shelf_change *c = NULL;

    MB_TRY(mb_depot_text(value, "oid", &oid));
    MB_TRY(mb_json_get_string(value, "algo", "sha256", &algo));
    MB_REQUIRE(mb_shelf_is_hex(oid, 64) && strcmp(algo, "sha256") == 0, MB_EARG,
               "the oid of a file is not a sha256");
    MB_TRY(add(d, value, "path", &c));
    c->what = MB_SHELF_PUT;
    c->lfs = true;
    snprintf(c->sha256, sizeof c->sha256, "%s", oid);
    if (!mb_json_is_set(mb_json_get(value, "size"))) {
        MB_REQUIRE(mb_objects_has(mb_shelf_objects(d->shelf), oid, &c->size), MB_EARG,
                   "'%.200s' was not uploaded", c->path);
        return MB_OK;
    }
    return mb_json_need_int(value, "size", 0, INT64_MAX, &c->size);
}

static mb_status deleted_file(struct draft *d, mb_json value)
{
    mb_shelf_change *c = NULL;

    MB_TRY(add(d, value, "path", &c));
    c->what = MB_SHELF_DELETE;
    return MB_OK;
}

static mb_status deleted_folder(struct draft *d, mb_json value)
{
    mb_shelf_change *c = NULL;

    MB_TRY(add(d, value, "path", &c));
    c->what = MB_SHELF_DELETE_FOLDER;
    const size_t n = strlen(c->path); /* clients write "folder/" */
    if (n > 1 && c->path[n - 1] == '/')
        c->path[n - 1] = '\0';
    return MB_OK;
}

static mb_status copied(struct draft *d, mb_json value)
{
    mb_shelf_change *c = NULL;

    MB_TRY(add(d, value, "path", &c));
    c->what = MB_SHELF_COPY;
    MB_TRY(set_text(value, "srcPath", NULL, &c->from));
    MB_TRY(set_text(value, "srcRevision", NULL, &c->from_rev));
    MB_REQUIRE(c->from != NULL, MB_EARG, "a copy names no file to copy");
    return MB_OK;
}

static mb_status line(struct draft *d)
{
    static const struct {
        const char *key;
        mb_status (*take)(struct draft *d, mb_json value);
    } rows[] = {{"header", header},
                {"file", file},
                {"lfsFile", lfs_file},
                {"deletedFile", deleted_file},
                {"deletedEntry", deleted_file},
                {"deletedFolder", deleted_folder},
                {"copyFile", copied}};
    mb_json_doc *doc = NULL;
    const char *key;
    size_t k = 0;
    mb_json value;
    mb_status st;

    d->lines++;
    if (d->line.n == 0)
        return MB_OK;
    MB_TRY(mb_json_parse(d->line.p, d->line.n, "the commit", d->lines - 1, MB_EARG, &doc));
    d->line.n = 0;
    MB_TRY_GOTO(mb_depot_text(mb_json_root(doc), "key", &key), st, done);
    MB_TRY_GOTO(mb_json_need(mb_json_root(doc), "value", MB_JSON_OBJECT, &value), st, done);
    while (k < sizeof rows / sizeof *rows && strcmp(key, rows[k].key) != 0)
        k++;
    if (k == sizeof rows / sizeof *rows)
        st = MB_RAISE(MB_EARG, "the commit's line %lld is a '%.40s', which is not known here",
                      (long long)d->lines, key);
    else
        st = rows[k].take(d, value);
done:
    mb_json_free(doc);
    return st;
}

static mb_status keep(struct draft *d, const char *p, size_t n)
{
    MB_REQUIRE(n <= LINE_MAX_BYTES - d->line.n, MB_EARG,
               "line %lld of the commit has more than %d bytes; larger files go by LFS or Xet",
               (long long)d->lines + 1, LINE_MAX_BYTES);
    return mb_bytes_add(&d->line, p, n);
}

mb_status mb_depot_commit_piece(void *state, const void *data, size_t n)
{
    struct draft *d = ((struct state *)state)->draft;
    const char *p = data, *end = p + n;

    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *stop = newline != NULL ? newline : end;
        MB_TRY(keep(d, p, (size_t)(stop - p)));
        if (newline == NULL)
            return MB_OK;
        MB_TRY(line(d));
        p = newline + 1;
    }
    return MB_OK;
}

/* --- on the worker */

static mb_status answer(mb_http_reply *r, const struct draft *d, const mb_shelf_tree *t)
{
    mb_json_doc *doc = NULL;
    char *url = NULL;
    mb_json root;
    mb_status st;

    MB_TRY_GOTO(mb_json_doc_new("a commit", &doc), st, done);
    root = mb_json_root(doc);
    MB_TRY_GOTO(mb_asprintf(&url, "%s%s", d->origin, t->commit), st, done);
    MB_TRY_GOTO(mb_json_set_bool(root, "success", true), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "commitOid", t->commit), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "commitUrl", url), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "hookOutput", ""), st, done);
    mb_depot_reply_json(r, 200, doc);
    doc = NULL;
done:
    mb_json_free(doc);
    mb_free(url);
    return st;
}

static void make(mb_depot *depot, mb_http_reply *r, void *state)
{
    struct draft *d = state;
    mb_shelf_tree *t = NULL;
    mb_shelf_miss miss;
    mb_status st;

    st = mb_shelf_commit(d->shelf, d->kind, d->id,
                         &(mb_shelf_draft){.branch = d->branch,
                                           .parent = d->parent,
                                           .title = d->title,
                                           .message = d->message,
                                           .author = d->author,
                                           .changes = d->changes,
                                           .n = d->n},
                         &t, &miss);
    if (st == MB_OK)
        st = answer(r, d, t);
    if (st != MB_OK)
        mb_depot_reply_failed(r, st, miss);
    mb_shelf_tree_unref(t);
}

MB_DEPOT_HANDLER(commit)
{
    struct state *s = mb_http_state(q);
    struct draft *d = s->draft;

    MB_TRY(line(d)); /* the last may have no end */
    MB_REQUIRE(d->title != NULL, MB_EARG, "the commit has no header");
    s->draft = NULL;
    return mb_depot_later(arg, q, make, free_draft, d);
}
