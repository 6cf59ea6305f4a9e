/* recipes/hub/push_commit.c - what is compared and what is committed; see recipes/hub/push_inside.h. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/push_inside.h"
#include "recipes/tokenizers/bytes.h"

enum { SAMPLE = 512, TRIES = 5, MOST_JSON = 16 << 20 };
static const int64_t small_most = 32 << 20; /* bytes of small files in one commit */

/* A file, or its beginning, as base64, ended; the caller releases *out, also after a failure. */
static mb_status encoded(const mb_push_file *f, size_t n, mb_bytes *out)
{
    char *bytes;
    mb_status st;

    MB_TRY(mb_alloc(n + 1, "a file", (void **)&bytes));
    MB_TRY_GOTO(mb_push_file_read(f, 0, bytes, n), st, done);
    MB_TRY_GOTO(mb_bytes_reserve(out, (n + 2) / 3 * 4 + 1), st, done);
    MB_TRY_GOTO(mb_bytes_base64(out, bytes, n), st, done);
    st = mb_bytes_end(out);
done:
    mb_free(bytes);
    return st;
}

/* --- requests */

mb_status mb_push_post(mb_push_run *p, const char *url, const char *what, mb_json body, bool lfs,
                       mb_json_doc **out)
{
    static const char *const json[] = {"Content-Type: application/json", NULL};
    static const char *const git[] = {"Content-Type: application/vnd.git-lfs+json",
                                      "Accept: application/vnd.git-lfs+json", NULL};
    mb_fetch_request q = {.url = url, .what = what, .heads = lfs ? git : json, .most = MOST_JSON};
    mb_fetch_answer a = {0};
    char *text;
    mb_status st;

    MB_TRY(mb_json_text(body, 0, &text, &q.body_n));
    q.body = text;
    st = mb_fetch(p->hub->fetcher, &q, &a);
    if (st == MB_OK && out != NULL)
        st = mb_json_parse(a.body != NULL ? a.body : "", a.n, what, 0, MB_EDATA, out);
    mb_fetch_answer_release(&a);
    mb_free(text);
    return st;
}

static mb_status describe(const mb_push_file *f, mb_json files)
{
    const size_t n = f->size < SAMPLE ? (size_t)f->size : SAMPLE;
    mb_bytes sample = {0};
    mb_json one;
    mb_status st;

    MB_TRY_GOTO(encoded(f, n, &sample), st, done);
    MB_TRY_GOTO(mb_json_set_object(files, NULL, &one), st, done);
    MB_TRY_GOTO(mb_json_set_string(one, "path", f->name), st, done);
    MB_TRY_GOTO(mb_json_set_int(one, "size", f->size), st, done);
    st = mb_json_set_string(one, "sample", sample.p);
done:
    mb_bytes_release(&sample);
    return st;
}

/* What the hub says of one file. An empty one is never large, whatever it says. */
static mb_status said(mb_push_file *f, mb_json one)
{
    const char *mode, *oid;
    char git[MB_DIGEST_HEX];

    MB_TRY(mb_json_get_string(one, "uploadMode", NULL, &mode));
    MB_TRY(mb_json_get_string(one, "oid", "", &oid));
    MB_TRY(mb_json_get_bool(one, "shouldIgnore", false, &f->ignored));
    if (mode == NULL || (strcmp(mode, "lfs") != 0 && strcmp(mode, "regular") != 0))
        return mb_json_fault(one, "says how %.100s is sent in no word we know: %.40s", f->name,
                             mode != NULL ? mode : "none");
    f->lfs = f->size > 0 && strcmp(mode, "lfs") == 0;
    MB_REQUIRE(f->lfs || f->size <= small_most, MB_ENOTSUP,
               "%s: the hub wants its %lld bytes inside a commit, at most %lld fit", f->name,
               (long long)f->size, (long long)small_most);
    f->same = false;
    if (oid[0] == '\0')
        return MB_OK;
    if (f->lfs) {
        MB_TRY(mb_push_file_sha256(f));
        f->same = strcmp(oid, f->sha256) == 0;
        return MB_OK;
    }
    MB_TRY(mb_push_file_git(f, git));
    f->same = strcmp(oid, git) == 0;
    return MB_OK;
}

static mb_status find(mb_push_file *files, size_t n, mb_json answer)
{
    const char *path;
    size_t found = 0;

    for (mb_json_it it = mb_json_first(mb_json_get(answer, "files")); mb_json_more(&it);
         mb_json_next(&it)) {
        MB_TRY(mb_json_get_string(it.value, "path", "", &path));
        for (size_t i = 0; i < n; i++)
            if (strcmp(files[i].name, path) == 0) {
                MB_TRY(said(&files[i], it.value));
                found++;
                break;
            }
    }
    MB_REQUIRE(found == n, MB_EDATA, "the hub says of %zu of %zu files how they are sent", found,
               n);
    return MB_OK;
}

mb_status mb_push_compare(mb_push_run *p, mb_push_file *files, size_t n)
{
    mb_json_doc *doc = NULL, *answer = NULL;
    char url[MB_HUB_URL_MAX];
    mb_json list;
    mb_status st;

    snprintf(url, sizeof url, "%s/api/%s/%s/preupload/%s", p->hub->endpoint, mb_hub_kind(&p->o->to),
             p->o->to.id, p->escaped);
    MB_TRY(mb_json_doc_new("files", &doc));
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "files", &list), st, done);
    for (size_t i = 0; i < n; i++)
        MB_TRY_GOTO(describe(&files[i], list), st, done);
    MB_TRY_GOTO(mb_push_post(p, url, "the comparison of files", mb_json_root(doc), false, &answer),
                st, done);
    st = find(files, n, mb_json_root(answer));
done:
    mb_json_free(doc);
    mb_json_free(answer);
    return st;
}

/* --- a commit: lines of JSON */

static mb_status put_line(mb_bytes *t, const char *key, mb_json value)
{
    mb_json_doc *doc;
    char *line = NULL;
    size_t n;
    mb_status st;

    MB_TRY(mb_json_doc_new("a commit", &doc));
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "key", key), st, done);
    MB_TRY_GOTO(mb_json_set(mb_json_root(doc), "value", value), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &line, &n), st, done);
    MB_TRY_GOTO(mb_bytes_add(t, line, n), st, done);
    st = mb_bytes_puts(t, "\n");
done:
    mb_free(line);
    mb_json_free(doc);
    return st;
}

static mb_status put_head(const mb_push_run *p, mb_bytes *t, const char *message)
{
    mb_json_doc *doc;
    mb_json v;
    mb_status st;

    MB_TRY(mb_json_doc_new("a commit", &doc));
    v = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(v, "summary", message), st, done);
    MB_TRY_GOTO(mb_json_set_string(v, "description", ""), st, done);
    if (p->parent[0] != '\0')
        MB_TRY_GOTO(mb_json_set_string(v, "parentCommit", p->parent), st, done);
    st = put_line(t, "header", v);
done:
    mb_json_free(doc);
    return st;
}

static mb_status put_file(mb_bytes *t, const mb_push_file *f)
{
    mb_json_doc *doc;
    mb_bytes content = {0};
    mb_json v;
    mb_status st;

    MB_TRY(mb_json_doc_new("a file", &doc));
    v = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(v, "path", f->name), st, done);
    if (f->lfs) {
        MB_TRY_GOTO(mb_json_set_string(v, "algo", "sha256"), st, done);
        MB_TRY_GOTO(mb_json_set_string(v, "oid", f->sha256), st, done);
        MB_TRY_GOTO(mb_json_set_int(v, "size", f->size), st, done);
    } else {
        MB_TRY_GOTO(encoded(f, (size_t)f->size, &content), st, done);
        MB_TRY_GOTO(mb_json_set_string(v, "encoding", "base64"), st, done);
        MB_TRY_GOTO(mb_json_set_string(v, "content", content.p), st, done);
    }
    st = put_line(t, f->lfs ? "lfsFile" : "file", v);
done:
    mb_bytes_release(&content);
    mb_json_free(doc);
    return st;
}

/* Is it all there, after a commit whose answer got lost? Then the branch's commit is looked up. */
static mb_status arrived(mb_push_run *p, mb_push_file *const *files, size_t n, bool *all)
{
    mb_push_file *copies;
    bool there;
    mb_status st;

    *all = true;
    MB_TRY(MB_NEW_ARRAY(&copies, n));
    for (size_t i = 0; i < n; i++)
        copies[i] = *files[i];
    MB_TRY_GOTO(mb_push_compare(p, copies, n), st, done);
    for (size_t i = 0; i < n; i++)
        *all = *all && copies[i].same;
    if (*all)
        st = mb_push_look(p, &there);
done:
    mb_free(copies);
    return st;
}

static mb_status accepted(mb_push_run *p, const mb_fetch_answer *a)
{
    mb_json_doc *doc;
    const char *oid;
    mb_status st;

    MB_TRY(mb_json_parse(a->body != NULL ? a->body : "", a->n, "the commit", 0, MB_EDATA, &doc));
    st = mb_json_get_string(mb_json_root(doc), "commitOid", "", &oid);
    if (st == MB_OK && !mb_hub_commit_is(oid))
        st = MB_RAISE(MB_EDATA, "the hub took a commit and names none");
    if (st == MB_OK)
        memcpy(p->parent, oid, MB_PUSH_COMMIT);
    mb_json_free(doc);
    return st;
}

static mb_status changed(const mb_push_run *p)
{
    return MB_RAISE(
        MB_EARG,
        "%s has changed since this push began (it was at %.12s): run it again, what was "
        "sent is kept",
        p->o->to.id, p->parent);
}

/* Sends the lines. A commit is made once: when no answer came, the hub is looked at before it is tried
 * again. */
static mb_status commit(mb_push_run *p, const mb_bytes *lines, mb_push_file *const *files, size_t n)
{
    static const char *const heads[] = {"Content-Type: application/x-ndjson", NULL};
    char url[MB_HUB_URL_MAX];
    const mb_fetch_request q = {
        .url = url, .what = "the commit", .heads = heads, .body = lines->p, .body_n = lines->n};
    mb_fetch_answer a = {0};
    char why[1024];
    bool lost = false;
    mb_status st;

    snprintf(url, sizeof url, "%s/api/%s/%s/commit/%s", p->hub->endpoint, mb_hub_kind(&p->o->to),
             p->o->to.id, p->escaped);
    for (int try = 1;; try++) {
        bool all = false;
        double pause;
        st = mb_fetch_once(p->hub->fetcher, &q, &a);
        if (st == MB_OK && a.status >= 200 && a.status < 300) {
            st = accepted(p, &a);
            break;
        }
        const bool passing = mb_fetch_may_pass(st, &a);
        if (st == MB_OK)
            st = a.status == 412 ? changed(p) : mb_fetch_judge(&q, &a);
        /* libcurl sends again by itself over a connection that had closed: 412 may be our own */
        if (!passing && !lost && a.status != 412)
            break;
        snprintf(why, sizeof why, "%s", mb_status_sentence());
        mb_status_clear();
        const mb_status looked = arrived(p, files, n, &all);
        if (looked == MB_OK && all) {
            st = MB_OK;
            break;
        }
        pause = passing ? mb_fetch_pause(p->hub->fetcher, &a, try) : -1.0;
        if (looked != MB_OK || pause < 0.0 || try >= TRIES) {
            mb_status_set(st, why);
            break;
        }
        lost = true;
        mb_log_warn("%s; trying again in %.0f s", why, pause);
        mb_fetch_sleep(pause);
    }
    mb_fetch_answer_release(&a);
    return st;
}

mb_status mb_push_commit(mb_push_run *p, mb_push_file *const *files, size_t n, const char *message)
{
    mb_bytes lines = {0};
    mb_status st = MB_OK;

    for (size_t at = 0; at < n && st == MB_OK;) {
        int64_t bytes = 0;
        size_t end = at;
        lines.n = 0;
        MB_TRY_GOTO(put_head(p, &lines, message), st, done);
        for (; end < n && end - at < MB_PUSH_GROUP; end++) {
            const int64_t more = files[end]->lfs ? 0 : files[end]->size;
            if (end > at && bytes + more > small_most)
                break;
            bytes += more;
            MB_TRY_GOTO(put_file(&lines, files[end]), st, done);
        }
        st = commit(p, &lines, files + at, end - at);
        p->commits++;
        p->added += (int)(end - at);
        at = end;
    }
done:
    mb_bytes_release(&lines);
    return st;
}
