/* recipes/serve/made.c - /mbuyu/run/made...: what a run made, to be taken away, and as a GGUF file.
 *
 *     GET  /mbuyu/run/made?id=               {"data": [{"place", "name", "bytes"}], "gguf": {"state", "said"}}
 *     GET  /mbuyu/run/made/file?id=&place=&name=      the file; Range as RFC 9110 has it
 *     POST /mbuyu/run/made/gguf?id=          {"dtype": "q8_0"}: RUN/gguf is made by `mbuyu export`
 *
 * Places are the folders RUN/final and RUN/gguf: nothing else of a run is given, wherever links lead. One
 * export goes on at a time, as a child process that ends with the server; of a server that was killed it
 * goes on, and .serve/export.json, {"folder", "pid", "begun"}, tells the next of it. What it says, with the
 * comparison of what was written, is in RUN/logs/gguf.log. Whether it did well is seen from RUN/gguf, which is
 * made last: so it is known after a restart, too.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path_below.h"
#include "recipes/config/hub_path.h"
#include "recipes/export/stage.h"
#include "recipes/serve/jobs_inside.h"

enum { SAID = 4096, FILES_MAX = 1000 };

static const char *const places[] = {"final", "gguf", NULL};
static const char *const dtypes[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", NULL};

static bool is_one_of(const char *const *words, const char *word)
{
    while (*words != NULL && (word == NULL || strcmp(*words, word) != 0))
        words++;
    return *words != NULL;
}

static mb_status nothing_here(mb_http_request *q)
{
    return mb_http_refuse(q, 404, "not_found", "there is no such file of a run");
}

/* ---- files -------------------------------------------------------------------------------- */

/* "a.json", "1_Pooling/config.json" */
static bool is_name(const char *name)
{
    const char *slash = name != NULL ? strchr(name, '/') : NULL;

    return name != NULL && name[0] != '.' && mb_hub_file_is(name) &&
           (slash == NULL || (slash[1] != '.' && strchr(slash + 1, '/') == NULL));
}

/* Opens a file that lies in the place, wherever links lead. */
static bool open_file(const char *folder, const char *place, const char *name, int *fd,
                      int64_t *size)
{
    char root[MB_PATH_MAX], path[MB_PATH_MAX], real[MB_PATH_MAX];
    const char *const roots[] = {root, NULL};
    const bool opened = is_name(name) && mb_path_join(root, sizeof root, folder, place) == MB_OK &&
                        mb_path_join(path, sizeof path, root, name) == MB_OK &&
                        mb_path_real_below(path, roots, real, sizeof real) == MB_OK &&
                        mb_path_is_file(real) && mb_file_open(real, MB_EIO, fd, size) == MB_OK;

    if (!opened)
        mb_status_clear();
    return opened;
}

static mb_status add_file(const char *folder, const char *place, const char *name, mb_json data)
{
    int64_t size;
    mb_json one;
    int fd;

    if (mb_json_count(data) >= FILES_MAX || !open_file(folder, place, name, &fd, &size))
        return MB_OK;
    close(fd);
    MB_TRY(mb_json_set_object(data, NULL, &one));
    MB_TRY(mb_json_set_string(one, "place", place));
    MB_TRY(mb_json_set_string(one, "name", name));
    return mb_json_set_int(one, "bytes", size);
}

/* Of a place, and of the folders in it, which models of sentences have. */
static mb_status add_files(const char *folder, const char *place, const char *inside, mb_json data)
{
    char path[MB_PATH_MAX], name[600], **names;
    mb_status st = MB_OK;
    size_t n;

    if (snprintf(path, sizeof path, "%s/%s/%s", folder, place, inside) >= (int)sizeof path ||
        !mb_path_is_dir(path)) /* a run that made nothing; a file */
        return MB_OK;
    MB_TRY(mb_path_list(path, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        snprintf(name, sizeof name, "%s%s%s", inside, inside[0] != '\0' ? "/" : "", names[i]);
        st = add_file(folder, place, name, data);
        if (st == MB_OK && inside[0] == '\0' && names[i][0] != '.')
            st = add_files(folder, place, names[i], data);
    }
    mb_path_list_free(names, n);
    return st;
}

/* What a browser is to call it: letters that no header has to quote. */
static mb_status add_disposition(mb_http_request *q, const char *name)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    char text[340];
    const int n =
        snprintf(text, sizeof text, "attachment; filename=\"%.255s\"", mb_path_base(name));

    for (char *p = text + strlen("attachment; filename=\""); p < text + n - 1; p++)
        if (strchr(good, *p) == NULL)
            *p = '_';
    return mb_http_add(q, "Content-Disposition", text);
}

static mb_status made_file(void *arg, mb_http_request *q)
{
    const char *place = mb_http_query(q, "place"), *name = mb_http_query(q, "name");
    char folder[MB_PATH_MAX];
    int64_t size;
    mb_status st;
    int fd;

    if (!mb_run_folder(mb_jobs_of(arg), mb_http_query(q, "id"), folder) ||
        !is_one_of(places, place) || !open_file(folder, place, name, &fd, &size))
        return nothing_here(q);
    st = add_disposition(q, name);
    if (st != MB_OK) {
        close(fd);
        return st;
    }
    return mb_http_answer_file(q, fd, size, "application/octet-stream", NULL);
}

/* ---- as GGUF ------------------------------------------------------------------------------ */

static bool log_of(const char *folder, char out[MB_PATH_MAX])
{
    return snprintf(out, MB_PATH_MAX, "%s/logs/gguf.log", folder) < MB_PATH_MAX;
}

static bool note_of(const mb_jobs *j, char out[MB_PATH_MAX])
{
    return j->state != NULL && snprintf(out, MB_PATH_MAX, "%s/export.json", j->state) < MB_PATH_MAX;
}

static mb_status write_note(const mb_jobs *j)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_status st;

    MB_REQUIRE(note_of(j, path), MB_EARG, "%s: the path is too long", j->state);
    MB_TRY(mb_json_doc_new("export", &doc));
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "folder", j->exported), st, done);
    MB_TRY_GOTO(mb_jobs_note_child(mb_json_root(doc), &j->exporter), st, done);
    st = mb_json_write(mb_json_root(doc), 1, path);
done:
    mb_json_free(doc);
    return st;
}

static mb_status read_note(mb_jobs *j, const char *path)
{
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_json_read(path, MB_EIO, MB_JOBS_JSON, &doc));
    MB_TRY_GOTO(mb_jobs_noted_child(mb_json_root(doc), &j->exporter), st, done);
    snprintf(j->exported, sizeof j->exported, "%s", mb_jobs_text(mb_json_root(doc), "folder"));
    if (j->exporter.pid == 0 || j->exported[0] == '\0') {
        j->exporter = (mb_child){0};
        st = MB_RAISE(MB_EIO, "%s does not name a run and its process", path);
    }
done:
    mb_json_free(doc);
    return st;
}

void mb_export_load(mb_jobs *j)
{
    char path[MB_PATH_MAX];

    if (!note_of(j, path) || !mb_path_is_file(path) || read_note(j, path) == MB_OK)
        return;
    mb_log_warn("an export that may go on is not known: %s", mb_status_sentence());
    mb_status_clear();
}

static void forget(mb_jobs *j)
{
    char path[MB_PATH_MAX];

    j->exporter = (mb_child){0};
    j->own_export = false;
    if (note_of(j, path))
        unlink(path); /* what is left names a process that is no more */
}

bool mb_export_runs(mb_jobs *j)
{
    int code;

    if (j->exporter.pid > 0 && !mb_child_runs(&j->exporter, &code))
        forget(j);
    return j->exporter.pid > 0;
}

static bool goes_on(mb_jobs *j, const char *folder)
{
    bool is;

    pthread_mutex_lock(&j->lock);
    is = mb_export_runs(j) && strcmp(j->exported, folder) == 0;
    pthread_mutex_unlock(&j->lock);
    return is;
}

void mb_export_end(mb_jobs *j)
{
    char part[MB_PATH_MAX];

    if (!j->own_export)
        return;
    mb_child_end(&j->exporter);
    forget(j);
    if (snprintf(part, sizeof part, "%s/gguf.part", j->exported) < (int)sizeof part)
        mb_stage_drop(part);
}

static mb_status add_gguf(mb_jobs *j, const char *folder, mb_json root)
{
    char path[MB_PATH_MAX], *said = NULL;
    const char *state = "none";
    mb_json gguf;
    mb_status st;
    size_t n = 0;

    if (log_of(folder, path) && mb_path_is_file(path)) {
        MB_TRY(mb_jobs_tail(path, SAID, &said, &n));
        MB_TRY_GOTO(mb_path_join(path, sizeof path, folder, "gguf"), st, done);
        state = goes_on(j, folder) ? "running" : mb_path_is_dir(path) ? "succeeded" : "failed";
    }
    MB_TRY_GOTO(mb_json_set_object(root, "gguf", &gguf), st, done);
    MB_TRY_GOTO(mb_json_set_string(gguf, "state", state), st, done);
    st = mb_json_set_string(gguf, "said", said != NULL ? said : "");
    if (st != MB_OK) { /* not UTF-8 */
        mb_status_clear();
        st = mb_json_set_string(gguf, "said", "");
    }
done:
    mb_free(said);
    return st;
}

static mb_status made(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    char folder[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_json data;
    mb_status st;

    if (!mb_run_folder(j, mb_http_query(q, "id"), folder))
        return nothing_here(q);
    MB_TRY(mb_jobs_list(&doc, &data));
    st = add_gguf(j, folder, mb_json_root(doc)); /* first: then what has succeeded is listed */
    for (int i = 0; places[i] != NULL && st == MB_OK; i++)
        st = add_files(folder, places[i], "", data);
    return mb_jobs_answer(q, st, doc);
}

/* With the lock, while none goes on. */
static mb_status export_start(mb_jobs *j, const char *folder, const char *dtype)
{
    char log[MB_PATH_MAX], dir[MB_PATH_MAX], gguf[MB_PATH_MAX];
    char from[MB_PATH_MAX + 32], to[MB_PATH_MAX + 32], type[80];
    const char *const words[] = {
        "export", from, to, "export_format=gguf", type, "overwrite_output_dir=true", NULL};
    mb_status st;

    MB_REQUIRE(log_of(folder, log), MB_EARG, "%s: the path is too long", folder);
    MB_TRY(mb_path_dir(dir, sizeof dir, log));
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_path_join(gguf, sizeof gguf, folder, "gguf"));
    MB_TRY(mb_path_remove_tree(gguf));
    MB_TRY(mb_path_remove_tree(log));
    snprintf(from, sizeof from, "model_name_or_path=%s/final", folder);
    snprintf(to, sizeof to, "output_dir=%s", gguf);
    snprintf(type, sizeof type, "export_dtype=%s", dtype);
    MB_TRY(mb_child_start(words, log, &j->exporter));
    j->own_export = true;
    snprintf(j->exported, sizeof j->exported, "%s", folder);
    st = write_note(j);
    if (st != MB_OK) /* the next server would not know of it */
        mb_export_end(j);
    return st;
}

static mb_status read_dtype(mb_http_request *q, char *out, size_t size)
{
    mb_json_doc *doc;
    mb_status st = MB_OK;

    MB_TRY(mb_jobs_body(q, &doc));
    snprintf(out, size, "%s", mb_jobs_text(mb_json_root(doc), "dtype"));
    if (!is_one_of(dtypes, out))
        st = MB_RAISE(MB_EARG,
                      "dtype must be f32, f16, bf16, q8_0, q4_0, q4_1 or q4_k, not \"%.40s\"", out);
    mb_json_free(doc);
    return st;
}

static mb_status make_gguf(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    char folder[MB_PATH_MAX], path[MB_PATH_MAX], dtype[64];
    mb_status st = MB_OK;
    bool busy;

    MB_TRY(mb_jobs_can_train(j));
    if (!mb_run_folder(j, mb_http_query(q, "id"), folder) || !mb_run_model(folder, path))
        return nothing_here(q);
    MB_TRY(read_dtype(q, dtype, sizeof dtype));
    pthread_mutex_lock(&j->lock);
    busy = mb_export_runs(j);
    if (!busy)
        st = export_start(j, folder, dtype);
    pthread_mutex_unlock(&j->lock);
    MB_TRY(st);
    if (busy) {
        MB_TRY(mb_http_add(q, "Retry-After", "10"));
        return mb_http_refuse(q, 429, "busy", "another model is being exported; try again soon");
    }
    return made(arg, q);
}

const mb_http_route mb_routes_made[] = {
    {.method = "GET", .path = "/mbuyu/run/made", .handler = made},
    {.method = "GET", .path = "/mbuyu/run/made/file", .handler = made_file},
    {.method = "POST",
     .path = "/mbuyu/run/made/gguf",
     .handler = make_gguf,
     .body = MB_HTTP_WHOLE,
     .body_max = MB_JOBS_JSON},
    {0},
};
