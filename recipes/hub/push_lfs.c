/* recipes/hub/push_lfs.c - contents of large files, by the protocol of Git LFS; see
 * recipes/hub/push_inside.h.
 *
 * The hub is asked for 256 of them at a time and answers, of those it lacks, where each goes: one
 * address (basic), or one for each part and one that puts them together (multipart). Addresses may
 * end while we send; then it is asked again. Our token goes with none of them but to the hub itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/push_inside.h"

enum { TIMES = 3, PARTS = 10000, ETAG = 256 };
static const int64_t part_least = 64 << 10;

static const char *const json_heads[] = {"Content-Type: application/vnd.git-lfs+json",
                                         "Accept: application/vnd.git-lfs+json", NULL};

struct part {
    const mb_push_file *file;
    int64_t at;
};

static mb_status read_part(void *arg, int64_t at, void *data, size_t n, size_t *got)
{
    const struct part *p = arg;

    MB_TRY(mb_push_file_read(p->file, p->at + at, data, n));
    *got = n;
    return MB_OK;
}

/* Only these answers of an address mean that it is the address that is wrong. */
static bool is_stale(int status)
{
    return status == 400 || status == 401 || status == 403 || status == 404 || status == 410;
}

/* --- sending */

/* The heads an action asks for, but the numbered addresses of parts and what curl sees to. */
static mb_status heads_of(mb_json header, char **heads, size_t most, size_t *n)
{
    for (mb_json_it it = mb_json_first(header); mb_json_more(&it); mb_json_next(&it)) {
        const char *value;
        if (it.key[strspn(it.key, "0123456789")] == '\0' || strcmp(it.key, "chunk_size") == 0 ||
            strcasecmp(it.key, "content-length") == 0 ||
            strcasecmp(it.key, "transfer-encoding") == 0)
            continue;
        MB_TRY(mb_json_string(it.value, &value, NULL));
        MB_REQUIRE(*n < most, MB_EDATA, "the hub wants more than %zu headers", most);
        MB_TRY(mb_asprintf(&heads[*n], "%s: %s", it.key, value));
        (*n)++;
    }
    return MB_OK;
}

/* PUT of some bytes of a file. *again: the address is no longer good. */
static mb_status put(mb_push_run *p, const char *url, struct part *part, int64_t n,
                     const char *const *heads, char *etag, bool *again)
{
    const mb_fetch_source source = {.read = read_part, .arg = part, .size = n};
    const mb_fetch_request q = {.method = "PUT",
                                .url = url,
                                .what = part->file->name,
                                .heads = heads,
                                .source = &source,
                                .no_token = true,
                                .any_status = true};
    mb_fetch_answer a = {0};
    mb_status st;

    *again = false;
    st = mb_fetch(p->hub->fetcher, &q, &a);
    if (st == MB_OK && (a.status < 200 || a.status >= 300)) {
        *again = is_stale(a.status);
        st = mb_fetch_judge(&q, &a);
    }
    if (st == MB_OK) {
        p->sent_bytes += n;
        if (etag != NULL && !mb_fetch_head(&a, "etag", etag, ETAG))
            st = MB_RAISE(MB_EDATA, "%s: a part was taken without an ETag", part->file->name);
    }
    mb_fetch_answer_release(&a);
    return st;
}

static mb_status basic(mb_push_run *p, const mb_push_file *f, mb_json upload, bool *again)
{
    struct part whole = {.file = f};
    char *heads[17] = {0};
    const char *href;
    size_t n = 0;
    mb_status st;

    MB_TRY(mb_json_get_string(upload, "href", NULL, &href));
    st = heads_of(mb_json_get(upload, "header"), heads, 16, &n);
    if (st == MB_OK)
        st = put(p, href, &whole, f->size, (const char *const *)heads, NULL, again);
    for (size_t i = 0; i < n; i++)
        mb_free(heads[i]);
    return st;
}

/* Sends every part; what the hub is told afterwards is in `parts`. */
static mb_status send_parts(mb_push_run *p, const mb_push_file *f, mb_json header, int64_t size,
                            mb_json parts, bool *again)
{
    const int64_t n = (f->size + size - 1) / size;

    MB_REQUIRE(n <= PARTS, MB_EDATA, "%s: the hub wants it in %lld parts", f->name, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        struct part part = {.file = f, .at = i * size};
        const int64_t bytes = f->size - part.at < size ? f->size - part.at : size;
        char number[24], etag[ETAG];
        mb_json url = {0}, one;
        const char *href;

        /* numbered from 1, with or without zeros before */
        for (int width = 1; width <= 6 && !mb_json_is_set(url); width++) {
            snprintf(number, sizeof number, "%0*lld", width, (long long)i + 1);
            url = mb_json_get(header, number);
        }
        MB_REQUIRE(mb_json_is(url, MB_JSON_STRING), MB_EDATA,
                   "%s: the hub names no address for part %lld of %lld", f->name, (long long)i + 1,
                   (long long)n);
        MB_TRY(mb_json_string(url, &href, NULL));
        MB_TRY(put(p, href, &part, bytes, NULL, etag, again));
        MB_TRY(mb_json_set_object(parts, NULL, &one));
        MB_TRY(mb_json_set_int(one, "partNumber", i + 1));
        MB_TRY(mb_json_set_string(one, "etag", etag));
    }
    return MB_OK;
}

/* POST to an address of an action. *again: what it is about is not there. */
static mb_status tell(mb_push_run *p, const mb_push_file *f, const char *url, mb_json body,
                      bool *again)
{
    mb_fetch_request q = {.url = url, .what = f->name, .heads = json_heads, .any_status = true};
    mb_fetch_answer a = {0};
    char *text;
    mb_status st;

    MB_TRY(mb_json_text(body, 0, &text, &q.body_n));
    q.body = text;
    st = mb_fetch(p->hub->fetcher, &q, &a);
    if (st == MB_OK && (a.status < 200 || a.status >= 300)) {
        *again = is_stale(a.status);
        st = *again ? MB_RAISE(MB_ENET, "%s: was sent, and %s answered %d afterwards", f->name,
                               a.url, a.status)
                    : mb_fetch_judge(&q, &a);
    }
    mb_fetch_answer_release(&a);
    mb_free(text);
    return st;
}

static mb_status multipart(mb_push_run *p, const mb_push_file *f, mb_json upload, bool *again)
{
    const mb_json header = mb_json_get(upload, "header"), size = mb_json_get(header, "chunk_size");
    const char *href, *digits;
    mb_json_doc *doc = NULL;
    int64_t bytes = 0;
    mb_json parts;
    mb_status st;

    if (mb_json_is(size, MB_JSON_STRING)) {
        MB_TRY(mb_json_string(size, &digits, NULL));
        bytes = strtoll(digits, NULL, 10);
    } else {
        MB_TRY(mb_json_int(size, &bytes));
    }
    MB_REQUIRE(bytes >= part_least || bytes >= f->size, MB_EDATA,
               "%s: the hub wants parts of %lld bytes, expected at least %lld", f->name,
               (long long)bytes, (long long)part_least);
    MB_TRY(mb_json_get_string(upload, "href", NULL, &href));
    MB_TRY(mb_json_doc_new("parts", &doc));
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "oid", f->sha256), st, done);
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "parts", &parts), st, done);
    MB_TRY_GOTO(send_parts(p, f, header, bytes, parts, again), st, done);
    st = tell(p, f, href, mb_json_root(doc), again);
done:
    mb_json_free(doc);
    return st;
}

static mb_status verify(mb_push_run *p, const mb_push_file *f, mb_json action, bool *again)
{
    mb_json_doc *doc = NULL;
    const char *href;
    mb_status st;

    if (!mb_json_is_set(action))
        return MB_OK;
    MB_TRY(mb_json_get_string(action, "href", NULL, &href));
    MB_REQUIRE(href != NULL, MB_EDATA, "%s: the hub wants it verified, but says not where",
               f->name);
    MB_TRY(mb_json_doc_new("a file", &doc));
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "oid", f->sha256), st, done);
    MB_TRY_GOTO(mb_json_set_int(mb_json_root(doc), "size", f->size), st, done);
    st = tell(p, f, href, mb_json_root(doc), again);
done:
    mb_json_free(doc);
    return st;
}

/* One object of the hub's answer: sent, put together, verified. */
static mb_status send_one(mb_push_run *p, const mb_push_file *f, mb_json object, bool *again)
{
    const mb_json actions = mb_json_get(object, "actions"), upload = mb_json_get(actions, "upload"),
                  size = mb_json_get(mb_json_get(upload, "header"), "chunk_size");
    const char *href;
    char text[32];

    *again = false;
    if (!mb_json_is_set(upload)) {
        p->had++;
        return MB_OK;
    }
    MB_TRY(mb_json_get_string(upload, "href", NULL, &href));
    MB_REQUIRE(href != NULL, MB_EDATA, "%s: the hub does not say where it goes", f->name);
    mb_log_info("sending %s, %s", f->name, mb_hub_size(f->size, text, sizeof text));
    MB_TRY(mb_json_is_set(size) ? multipart(p, f, upload, again) : basic(p, f, upload, again));
    MB_TRY(verify(p, f, mb_json_get(actions, "verify"), again));
    p->sent++;
    return MB_OK;
}

/* --- asking */

static mb_status question(const mb_push_run *p, mb_push_file *const *files, size_t n, mb_json q)
{
    mb_json transfers, objects, one, ref;

    MB_TRY(mb_json_set_string(q, "operation", "upload"));
    MB_TRY(mb_json_set_array(q, "transfers", &transfers));
    if (p->o->upload != MB_PUSH_MULTIPART)
        MB_TRY(mb_json_set_string(transfers, NULL, "basic"));
    if (p->o->upload != MB_PUSH_LFS)
        MB_TRY(mb_json_set_string(transfers, NULL, "multipart"));
    MB_TRY(mb_json_set_array(q, "objects", &objects));
    for (size_t i = 0; i < n; i++) {
        MB_TRY(mb_json_set_object(objects, NULL, &one));
        MB_TRY(mb_json_set_string(one, "oid", files[i]->sha256));
        MB_TRY(mb_json_set_int(one, "size", files[i]->size));
    }
    MB_TRY(mb_json_set_string(q, "hash_algo", "sha256"));
    MB_TRY(mb_json_set_object(q, "ref", &ref));
    return mb_json_set_string(ref, "name", p->revision);
}

static mb_status ask(mb_push_run *p, mb_push_file *const *files, size_t n, mb_json_doc **out)
{
    char url[MB_HUB_URL_MAX];
    mb_json_doc *doc = NULL;
    mb_status st;

    snprintf(url, sizeof url, "%s/%s%s.git/info/lfs/objects/batch", p->hub->endpoint,
             mb_hub_prefix(&p->o->to), p->o->to.id);
    MB_TRY(mb_json_doc_new("a batch", &doc));
    MB_TRY_GOTO(question(p, files, n, mb_json_root(doc)), st, done);
    st = mb_push_post(p, url, "the question for large files", mb_json_root(doc), true, out);
done:
    mb_json_free(doc);
    return st;
}

/* The object of the answer with this name; what the hub says against it is an error. */
static mb_status find(mb_json_doc *answer, const mb_push_file *f, mb_json *out)
{
    const mb_json objects = mb_json_get(mb_json_root(answer), "objects");
    char said[200];
    const char *oid, *message;

    for (mb_json_it it = mb_json_first(objects); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY(mb_json_get_string(it.value, "oid", "", &oid));
        if (strcmp(oid, f->sha256) != 0)
            continue;
        const mb_json error = mb_json_get(it.value, "error");
        if (mb_json_is_set(error)) {
            MB_TRY(mb_json_get_string(error, "message", "no reason", &message));
            return MB_RAISE(MB_EDENIED, "%s: the hub does not take it: %s", f->name,
                            mb_hub_printable(message, said, sizeof said));
        }
        *out = it.value;
        return MB_OK;
    }
    return MB_RAISE(MB_EDATA, "%s: the hub says nothing about it", f->name);
}

/* A file whose address is no longer good, or which is not there when it is verified: asked for again. */
static mb_status insist(mb_push_run *p, mb_push_file *f)
{
    mb_json_doc *answer = NULL;
    bool again = true;
    mb_json object;
    mb_status st = MB_OK;

    for (int i = 1; i < TIMES && again; i++) {
        mb_log_warn("%s; asking the hub for another address", mb_status_sentence());
        mb_status_clear();
        MB_TRY(ask(p, &f, 1, &answer));
        st = find(answer, f, &object);
        again = false;
        if (st == MB_OK)
            st = send_one(p, f, object, &again);
        mb_json_free(answer);
        answer = NULL;
    }
    return st;
}

static mb_status group(mb_push_run *p, mb_push_file *const *files, size_t n)
{
    mb_json_doc *answer;
    mb_json object;
    bool again;
    mb_status st = MB_OK;

    MB_TRY(ask(p, files, n, &answer));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        again = false;
        st = find(answer, files[i], &object);
        if (st == MB_OK)
            st = send_one(p, files[i], object, &again);
        if (st != MB_OK && again)
            st = insist(p, files[i]);
    }
    mb_json_free(answer);
    return st;
}

mb_status mb_push_contents(mb_push_run *p, mb_push_file *const *files, size_t n)
{
    mb_push_file *wanted[MB_PUSH_GROUP];
    size_t m = 0;

    for (size_t i = 0; i < n; i++) {
        bool twice = false;
        if (!files[i]->lfs)
            continue;
        MB_TRY(mb_push_file_sha256(files[i]));
        for (size_t k = 0; k < m && !twice; k++)
            twice = strcmp(wanted[k]->sha256, files[i]->sha256) == 0;
        if (!twice)
            wanted[m++] = files[i];
    }
    return m > 0 ? group(p, wanted, m) : MB_OK;
}
