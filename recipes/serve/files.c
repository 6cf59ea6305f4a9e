/* recipes/serve/files.c - /v1/files: uploaded files, each a folder .serve/files/ID with the data under a
 * name of ours and file.json, which is OpenAI's object. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "recipes/serve/jobs_inside.h"
#include "recipes/serve/parts.h"

enum { PURPOSE = 64, UPLOAD_MOST = INT32_MAX, SUFFIX = 24 };

/* ---- uploading ---------------------------------------------------------------------------- */

struct upload {
    mb_jobs *jobs;
    mb_parts *form;
    char id[MB_JOBS_ID], dir[MB_PATH_MAX]; /* dir: .serve/files/ID.part; "" once it is named ID */
    char purpose[PURPOSE], filename[MB_PARTS_NAME];
    size_t n_purpose;
    bool in_purpose, in_file, has_file;
    mb_newfile file;
    int64_t files, n; /* its room: 1 once it is counted; bytes */
};

/* ".jsonl", ".csv.gz": the last one or two endings, of which the kind of data is told. */
static void ending(const char *filename, char out[SUFFIX])
{
    const char *base = mb_path_base(filename), *dot = strrchr(base, '.');

    out[0] = '\0';
    if (dot == NULL || dot == base)
        return;
    if (strcmp(dot, ".gz") == 0 || strcmp(dot, ".zst") == 0)
        for (const char *p = dot - 1; p > base; p--)
            if (*p == '.') {
                dot = p;
                break;
            }
    if (strlen(dot) >= SUFFIX)
        return;
    for (const char *p = dot; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && *p != '.')
            return;
    snprintf(out, SUFFIX, "%s", dot);
}

/* An upload, or `n` more bytes of one. MB_EARG: there is no room for it. */
static mb_status take_room(struct upload *u, int64_t files, int64_t n)
{
    mb_jobs *j = u->jobs;
    mb_status st = MB_OK;

    pthread_mutex_lock(&j->lock);
    if (j->n_files + files > j->o.files_max)
        st = MB_RAISE(MB_EARG,
                      "this server keeps at most %lld uploaded files; DELETE /v1/files/ID makes "
                      "room",
                      (long long)j->o.files_max);
    else if (j->upload_bytes + n > j->o.uploads_max)
        st = MB_RAISE(MB_EARG,
                      "all uploaded files together may have %lld bytes, of which %lld are left; "
                      "DELETE /v1/files/ID makes room",
                      (long long)j->o.uploads_max, (long long)(j->o.uploads_max - j->upload_bytes));
    if (st == MB_OK) {
        j->n_files += files;
        j->upload_bytes += n;
        u->files += files;
        u->n += n;
    }
    pthread_mutex_unlock(&j->lock);
    return st;
}

static void give_room(mb_jobs *j, int64_t files, int64_t n)
{
    pthread_mutex_lock(&j->lock);
    j->n_files -= files;
    j->upload_bytes -= n;
    pthread_mutex_unlock(&j->lock);
}

static mb_status begin_part(void *arg, const char *name, const char *filename)
{
    struct upload *u = arg;
    char path[MB_PATH_MAX], suffix[SUFFIX], base[SUFFIX + 8];

    u->in_purpose = strcmp(name, "purpose") == 0;
    u->in_file = strcmp(name, "file") == 0;
    if (!u->in_file)
        return MB_OK;
    MB_REQUIRE(!u->has_file, MB_EARG, "the form has two files");
    u->has_file = true;
    snprintf(u->filename, sizeof u->filename, "%s",
             filename != NULL && filename[0] != '\0' ? mb_path_base(filename) : "data");
    ending(u->filename, suffix);
    snprintf(base, sizeof base, "data%s", suffix);
    MB_TRY(mb_path_mkdirs(u->dir));
    MB_TRY(mb_path_join(path, sizeof path, u->dir, base));
    return mb_newfile_open(path, &u->file);
}

static mb_status file_data(struct upload *u, const void *data, size_t n)
{
    MB_REQUIRE(u->n + (int64_t)n <= u->jobs->o.upload_max, MB_EARG,
               "the file is larger than %lld bytes, the most this server takes",
               (long long)u->jobs->o.upload_max);
    MB_TRY(take_room(u, 0, (int64_t)n));
    return mb_pwrite_all(u->file.fd, data, n, u->n - (int64_t)n, u->file.path);
}

/* What came of it is removed, then its room is there for others; what cannot be removed keeps it. */
static bool let_go(struct upload *u)
{
    mb_newfile_abandon(&u->file);
    if (mb_path_remove_tree(u->dir) != MB_OK)
        return false;
    give_room(u->jobs, 0, u->n);
    u->n = 0;
    return true;
}

static mb_status part_data(void *arg, const void *data, size_t n)
{
    struct upload *u = arg;
    mb_status st = MB_OK;

    if (u->in_purpose) {
        MB_REQUIRE(u->n_purpose + n < sizeof u->purpose, MB_EARG, "purpose: at most %d bytes",
                   PURPOSE - 1);
        memcpy(u->purpose + u->n_purpose, data, n);
        u->n_purpose += n;
    } else if (u->in_file) {
        st = file_data(u, data, n);
    }
    if (st != MB_OK) /* whoever hears that it was refused finds its room free */
        let_go(u);
    return st;
}

static mb_status end_part(void *arg)
{
    struct upload *u = arg;

    if (!u->in_file)
        return MB_OK;
    MB_TRY(mb_newfile_sync(&u->file));
    return mb_newfile_publish(&u->file);
}

static void drop(void *state)
{
    struct upload *u = state;

    if (u == NULL)
        return;
    mb_parts_free(u->form);
    if (u->dir[0] != '\0' && !let_go(u))
        mb_status_clear();
    give_room(u->jobs, u->files, u->n);
    mb_free(u);
}

static mb_status begin(void *arg, mb_http_request *q, void **state)
{
    struct upload *u;
    mb_status st;

    MB_TRY(mb_jobs_can_train(mb_jobs_of(arg)));
    MB_TRY(MB_NEW(&u));
    u->jobs = mb_jobs_of(arg);
    u->file.fd = -1;
    const mb_parts_calls calls = {u, begin_part, part_data, end_part};
    MB_TRY_GOTO(mb_parts_new(mb_http_head(q, "Content-Type"), &calls, &u->form), st, fail);
    MB_TRY_GOTO(mb_jobs_new_id("file-", u->id), st, fail);
    MB_TRY_GOTO(mb_jobs_path(u->jobs, "files", u->id, ".part", u->dir), st, fail);
    MB_TRY_GOTO(take_room(u, 1, 0), st, fail);
    *state = u;
    return MB_OK;
fail:
    drop(u);
    return st;
}

static mb_status piece(void *state, const void *data, size_t n)
{
    struct upload *u = state;

    return mb_parts_add(u->form, data, n);
}

static mb_status describe(const struct upload *u, mb_json to)
{
    MB_TRY(mb_json_set_string(to, "id", u->id));
    MB_TRY(mb_json_set_string(to, "object", "file"));
    MB_TRY(mb_json_set_int(to, "bytes", u->n));
    MB_TRY(mb_json_set_int(to, "created_at", (int64_t)time(NULL)));
    if (mb_json_set_string(to, "filename", u->filename) != MB_OK) { /* not UTF-8 */
        mb_status_clear();
        MB_TRY(mb_json_set_string(to, "filename", "data"));
    }
    MB_TRY(mb_json_set_string(to, "purpose", u->purpose));
    return mb_json_set_string(to, "status", "processed");
}

/* The folder gets its name once all of it is there. */
static mb_status publish(struct upload *u, mb_json_doc *doc)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, u->dir, "file.json"));
    MB_TRY(mb_json_write(mb_json_root(doc), 1, path));
    MB_TRY(mb_jobs_path(u->jobs, "files", u->id, "", path));
    MB_REQUIRE(rename(u->dir, path) == 0, MB_EIO, "%s cannot be named", path);
    u->dir[0] = '\0';
    u->files = u->n = 0; /* the room is the file's now */
    return MB_OK;
}

static mb_status uploaded(void *arg, mb_http_request *q)
{
    struct upload *u = mb_http_state(q);
    mb_json_doc *doc;
    mb_status st;

    (void)arg;
    MB_TRY(mb_parts_end(u->form));
    MB_REQUIRE(u->has_file, MB_EARG, "the form has no part named file");
    MB_REQUIRE(strcmp(u->purpose, "fine-tune") == 0 || strcmp(u->purpose, "user_data") == 0,
               MB_EARG, "purpose must be fine-tune or user_data, not \"%.60s\"", u->purpose);
    MB_TRY(mb_json_doc_new("file", &doc));
    st = describe(u, mb_json_root(doc));
    if (st == MB_OK)
        st = publish(u, doc);
    return mb_jobs_answer(q, st, doc);
}

/* ---- what is there ------------------------------------------------------------------------ */

static mb_status no_file(mb_http_request *q)
{
    return mb_http_refuse(q, 404, "not_found", "there is no file %.80s", mb_http_part(q, "id"));
}

/* The object of a file; false: answered that there is none. */
static bool find(const mb_jobs *j, mb_http_request *q, char dir[MB_PATH_MAX], mb_json_doc **doc,
                 mb_status *st)
{
    const char *id = mb_http_part(q, "id");
    char path[MB_PATH_MAX];

    *doc = NULL;
    if (j->state == NULL || !mb_jobs_is_id(id, "file-") ||
        mb_jobs_path(j, "files", id, "", dir) != MB_OK ||
        mb_path_join(path, sizeof path, dir, "file.json") != MB_OK || !mb_path_is_file(path)) {
        mb_status_clear();
        *st = no_file(q);
        return false;
    }
    *st = mb_json_read(path, MB_EIO, MB_JOBS_JSON, doc);
    if (*st != MB_OK && !mb_path_is_file(path)) { /* deleted meanwhile */
        mb_status_clear();
        *st = no_file(q);
        return false;
    }
    return *st == MB_OK;
}

static mb_status one(void *arg, mb_http_request *q)
{
    char dir[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_status st;

    return find(mb_jobs_of(arg), q, dir, &doc, &st) ? mb_jobs_answer(q, MB_OK, doc) : st;
}

static mb_status content(void *arg, mb_http_request *q)
{
    char dir[MB_PATH_MAX], path[MB_PATH_MAX];
    mb_json_doc *doc;
    int64_t size;
    int fd;
    mb_status st;

    if (!find(mb_jobs_of(arg), q, dir, &doc, &st))
        return st;
    mb_json_free(doc);
    st = mb_jobs_data(mb_jobs_of(arg), mb_http_part(q, "id"), path);
    if (st == MB_OK)
        st = mb_file_open(path, MB_EIO, &fd, &size);
    if (st != MB_OK && !mb_path_is_dir(dir)) { /* deleted meanwhile */
        mb_status_clear();
        return no_file(q);
    }
    MB_TRY(st);
    MB_TRY(mb_http_add(q, "Content-Disposition", "attachment"));
    return mb_http_answer_file(q, fd, size, "application/octet-stream", NULL);
}

/* First it has no name any more, then it is removed: what is left of it by the end of the server is
 * swept by the next, and of two who ask for it one is answered that there is none. */
static mb_status take_away(mb_jobs *j, const char *id, const char *dir, int64_t bytes, bool *gone)
{
    char part[MB_PATH_MAX];

    MB_TRY(mb_jobs_path(j, "files", id, ".part", part));
    *gone = rename(dir, part) == 0;
    MB_REQUIRE(*gone || errno == ENOENT, MB_EIO, "%s cannot be removed: %s", dir, strerror(errno));
    if (!*gone)
        return MB_OK;
    MB_TRY(mb_path_remove_tree(part));
    give_room(j, 1, bytes);
    return MB_OK;
}

static mb_status removed(void *arg, mb_http_request *q)
{
    char dir[MB_PATH_MAX];
    mb_json_doc *doc;
    int64_t bytes = 0;
    bool gone = false;
    mb_status st;

    if (!find(mb_jobs_of(arg), q, dir, &doc, &st))
        return st;
    st = mb_json_get_int(mb_json_root(doc), "bytes", 0, &bytes);
    mb_json_free(doc);
    MB_TRY(st);
    MB_TRY(take_away(mb_jobs_of(arg), mb_http_part(q, "id"), dir, bytes, &gone));
    if (!gone)
        return no_file(q);
    MB_TRY(mb_json_doc_new("file", &doc));
    st = mb_json_set_string(mb_json_root(doc), "id", mb_http_part(q, "id"));
    if (st == MB_OK)
        st = mb_json_set_string(mb_json_root(doc), "object", "file");
    if (st == MB_OK)
        st = mb_json_set_bool(mb_json_root(doc), "deleted", true);
    return mb_jobs_answer(q, st, doc);
}

mb_json_doc *mb_jobs_file(const mb_jobs *j, const char *id)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;

    if (!mb_jobs_is_id(id, "file-"))
        return NULL;
    if (mb_jobs_path(j, "files", id, "/file.json", path) != MB_OK ||
        mb_json_read(path, MB_EIO, MB_JOBS_JSON, &doc) != MB_OK)
        mb_status_clear();
    return doc;
}

static mb_status add_file(const mb_jobs *j, const char *id, const char *purpose, mb_json data)
{
    mb_json_doc *doc = mb_jobs_file(j, id);
    mb_status st = MB_OK;

    if (doc == NULL)
        return MB_OK;
    if (purpose == NULL || strcmp(purpose, mb_jobs_text(mb_json_root(doc), "purpose")) == 0)
        st = mb_json_set(data, NULL, mb_json_root(doc));
    mb_json_free(doc);
    return st;
}

mb_status mb_jobs_count_files(mb_jobs *j)
{
    char dir[MB_PATH_MAX], **names;
    int64_t bytes;
    size_t n;

    MB_TRY(mb_path_join(dir, sizeof dir, j->state, "files"));
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n; i++) {
        mb_json_doc *doc = mb_jobs_file(j, names[i]);

        if (doc == NULL)
            continue;
        if (mb_json_get_int(mb_json_root(doc), "bytes", 0, &bytes) == MB_OK) {
            j->n_files++;
            j->upload_bytes += bytes;
        }
        mb_json_free(doc);
    }
    mb_path_list_free(names, n);
    mb_status_clear(); /* what cannot be read is not there for clients either */
    return MB_OK;
}

static mb_status fill_list(const mb_jobs *j, const mb_http_request *q, mb_json list, mb_json data)
{
    const char *after = mb_http_query(q, "after"), *purpose = mb_http_query(q, "purpose");
    const size_t most = mb_http_query(q, "limit") != NULL ? (size_t)mb_jobs_limit(q) : 10000;
    char dir[MB_PATH_MAX], **names;
    bool more = false;
    mb_status st = MB_OK;
    size_t n;

    if (j->state == NULL)
        return mb_jobs_list_end(list, data, false);
    MB_TRY(mb_path_join(dir, sizeof dir, j->state, "files"));
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK && !more; i++) {
        if (!mb_jobs_is_id(names[i], "file-") ||
            (after != NULL && strcmp(names[i], after) <= 0)) /* in the order of ids */
            continue;
        more = mb_json_count(data) == most;
        if (!more)
            st = add_file(j, names[i], purpose, data);
    }
    mb_path_list_free(names, n);
    return st == MB_OK ? mb_jobs_list_end(list, data, more) : st;
}

static mb_status all(void *arg, mb_http_request *q)
{
    mb_json_doc *doc;
    mb_json data;
    mb_status st;

    MB_TRY(mb_jobs_list(&doc, &data));
    st = fill_list(mb_jobs_of(arg), q, mb_json_root(doc), data);
    return mb_jobs_answer(q, st, doc);
}

const mb_http_route mb_routes_files[] = {
    {.method = "POST",
     .path = "/v1/files",
     .handler = uploaded,
     .body = MB_HTTP_PIECES,
     .body_max = (int64_t)UPLOAD_MOST << 10,
     .begin = begin,
     .piece = piece,
     .drop = drop},
    {.method = "GET", .path = "/v1/files", .handler = all},
    {.method = "GET", .path = "/v1/files/{id}", .handler = one},
    {.method = "GET", .path = "/v1/files/{id}/content", .handler = content},
    {.method = "DELETE", .path = "/v1/files/{id}", .handler = removed},
    {0},
};
