/* recipes/serve/runs.c - /mbuyu/runs and /mbuyu/run/...: folders of runs, read as they are written.
 *
 * A run's id is "N/NAME": the folder NAME in the N-th folder of runs ("." is that folder itself). It
 * is one that holds logs/train.jsonl or recipe.resolved.yaml, or that a job will make.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "recipes/serve/jobs_inside.h"

enum {
    RUNS_MAX = 500,
    PIECE = 1 << 20,  /* bytes of a log in one answer */
    TEXT = 256 << 10, /* bytes of a console or of samples */
    LATELY = 90,      /* seconds since a log of a run that goes on was written */
};

/* ---- folders and files -------------------------------------------------------------------- */

static bool in(const char *folder, const char *name, char out[MB_PATH_MAX])
{
    return snprintf(out, MB_PATH_MAX, "%s/%s", folder, name) < MB_PATH_MAX;
}

static bool holds(const char *folder, const char *name)
{
    char path[MB_PATH_MAX];

    return in(folder, name, path) && mb_path_is_file(path);
}

bool mb_run_model(const char *folder, char out[MB_PATH_MAX])
{
    return in(folder, "final", out) &&
           (holds(out, "config.json") || holds(out, "adapter_config.json"));
}

bool mb_run_checkpoint(const char *folder, char out[MB_PATH_MAX])
{
    char path[MB_PATH_MAX], *name = NULL;
    bool found = false;
    size_t n;

    if (in(folder, "latest", path) && mb_path_is_file(path) &&
        mb_file_read(path, 256, &name, &n) == MB_OK) {
        name[strcspn(name, "\r\n")] = '\0';
        found = mb_path_is_component(name) && in(folder, name, out) && mb_path_is_dir(out);
    }
    mb_free(name);
    mb_status_clear();
    return found;
}

mb_status mb_jobs_tail(const char *path, size_t most, char **out, size_t *n)
{
    int64_t size = 0, from;
    int fd = -1;
    mb_status st = MB_OK;

    if (!mb_path_is_file(path)) {
        *n = 0;
        return mb_strdup("", out);
    }
    MB_TRY(mb_file_open(path, MB_EIO, &fd, &size));
    from = size > (int64_t)most ? size - (int64_t)most : 0;
    *n = (size_t)(size - from);
    MB_TRY_GOTO(mb_alloc(*n + 1, "text", (void **)out), st, done);
    st = mb_pread_all(fd, *out, *n, from, path);
    if (st != MB_OK) {
        mb_free(*out);
        *out = NULL;
        goto done;
    }
    (*out)[*n] = '\0';
    if (from > 0) { /* from the beginning of a line */
        const char *line = memchr(*out, '\n', *n);
        const size_t cut = line != NULL ? (size_t)(line + 1 - *out) : 0;

        memmove(*out, *out + cut, *n - cut + 1);
        *n -= cut;
    }
done:
    close(fd);
    return st;
}

bool mb_run_folder(const mb_jobs *j, const char *id, char out[MB_PATH_MAX])
{
    const char *slash = id != NULL ? strchr(id, '/') : NULL;
    char *end;
    long n;

    if (slash == NULL || !isdigit((unsigned char)id[0]))
        return false;
    n = strtol(id, &end, 10);
    if (end != slash || n < 0)
        return false;
    for (long i = 0; i <= n; i++)
        if (j->runs[i] == NULL)
            return false;
    if (strcmp(slash + 1, ".") == 0)
        return snprintf(out, MB_PATH_MAX, "%s", j->runs[n]) < MB_PATH_MAX;
    return mb_path_is_component(slash + 1) && slash[1] != '.' && in(j->runs[n], slash + 1, out) &&
           mb_path_is_dir(out);
}

/* ---- what a run is ------------------------------------------------------------------------ */

struct run {
    int64_t step, total, modified;
    const char *state;
};

static int64_t number_after(const char *text, const char *key)
{
    const char *found = NULL;

    for (const char *p = text; (p = strstr(p, key)) != NULL; p++)
        found = p;
    return found != NULL ? strtoll(found + strlen(key), NULL, 10) : 0;
}

/* "step 3/12 ..." and "12 steps of 2 rows ..." are what a run says of its length. */
static int64_t total_in(const char *console)
{
    const char *slash, *p = strstr(console, " steps of ");

    for (const char *s = console; (s = strstr(s, "step ")) != NULL; s++) {
        const size_t digits = strspn(s + 5, "0123456789");

        slash = s + 5 + digits;
        if (digits > 0 && *slash == '/')
            return strtoll(slash + 1, NULL, 10);
    }
    if (p == NULL)
        return 0;
    while (p > console && isdigit((unsigned char)p[-1]))
        p--;
    return strtoll(p, NULL, 10);
}

static void look_at_log(const char *folder, struct run *r)
{
    char path[MB_PATH_MAX], *text = NULL;
    struct stat s;
    size_t n;

    if (in(folder, "logs/train.jsonl", path) && stat(path, &s) == 0 &&
        mb_jobs_tail(path, 4096, &text, &n) == MB_OK) {
        r->step = number_after(text, "\"step\":");
        r->modified = s.st_mtime;
    } else if (stat(folder, &s) == 0) {
        r->modified = s.st_mtime;
    }
    mb_free(text);
    text = NULL;
    if (in(folder, "trainer_state.json", path) && mb_jobs_tail(path, 65536, &text, &n) == MB_OK)
        r->total = number_after(text, "\"max_steps\":");
    mb_free(text);
    mb_status_clear();
}

static void look_at_console(const mb_jobs *j, const char *job, struct run *r)
{
    char path[MB_PATH_MAX], *text = NULL;
    int64_t total = 0;
    size_t n;

    if (mb_jobs_path(j, "jobs", job, ".log", path) == MB_OK &&
        mb_jobs_tail(path, 16384, &text, &n) == MB_OK)
        total = total_in(text);
    if (total > 0)
        r->total = total;
    mb_free(text);
    mb_status_clear();
}

/* Without a job it is not known who runs it, only whether it is written to. */
static const char *guess_state(const char *folder, const struct run *r)
{
    char path[MB_PATH_MAX];

    if (mb_run_model(folder, path))
        return "succeeded";
    return r->step > 0 && time(NULL) - r->modified < LATELY ? "running" : "cancelled";
}

/* Is a class said of each evaluation row, beside its label? */
static bool has_classes(const char *folder)
{
    char path[MB_PATH_MAX], line[4096];
    ssize_t n = 0;
    int64_t size;
    int fd;

    if (!in(folder, "logs/predictions.jsonl", path) || !mb_path_is_file(path) ||
        mb_file_open(path, MB_EIO, &fd, &size) != MB_OK) {
        mb_status_clear();
        return false;
    }
    n = read(fd, line, sizeof line - 1);
    close(fd);
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return strstr(line, "\"probabilities\":") != NULL && strstr(line, "\"label\":") != NULL &&
           strstr(line, "\"label\":[") == NULL; /* not sets of classes */
}

static mb_status add_files(const char *folder, bool console, mb_json run)
{
    char path[MB_PATH_MAX];
    const struct {
        const char *name;
        bool there;
    } files[] = {
        {"recipe", holds(folder, "recipe.resolved.yaml")},
        {"console", console},
        {"samples", holds(folder, "logs/samples.jsonl") || holds(folder, "logs/predictions.jsonl")},
        {"confusion", has_classes(folder)},
    };
    mb_json list;

    MB_TRY(mb_json_set_array(run, "files", &list));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (files[i].there)
            MB_TRY(mb_json_set_string(list, NULL, files[i].name));
    MB_TRY(mb_json_set_bool(run, "checkpoint", mb_run_checkpoint(folder, path)));
    return mb_json_set_bool(run, "model", mb_run_model(folder, path));
}

/* With the lock. */
static mb_status add_job(const mb_jobs *j, const mb_tuning *t, struct run *r, mb_json run)
{
    const mb_json job = mb_json_root(t->doc);

    r->state = mb_jobs_text(job, "status");
    if (strcmp(r->state, "running") == 0)
        look_at_console(j, mb_jobs_text(job, "id"), r);
    MB_TRY(mb_json_set_string(run, "job", mb_jobs_text(job, "id")));
    if (mb_jobs_text(job, "error")[0] != '\0')
        MB_TRY(mb_json_set_string(run, "error", mb_jobs_text(job, "error")));
    if (r->modified == 0 && mb_json_get_int(job, "created_at", 0, &r->modified) != MB_OK)
        mb_status_clear();
    return MB_OK;
}

static mb_status describe(const mb_jobs *j, const char *id, const char *folder, mb_json run)
{
    const mb_tuning *t = mb_tuning_of_folder(j, folder);
    const char *name = mb_path_base(folder);
    struct run r = {0};

    look_at_log(folder, &r);
    MB_TRY(mb_json_set_string(run, "id", id));
    MB_TRY(mb_json_set_string(run, "name", name));
    MB_TRY(mb_json_set_string(run, "folder", folder));
    if (t != NULL)
        MB_TRY(add_job(j, t, &r, run));
    else
        r.state = guess_state(folder, &r);
    MB_TRY(mb_json_set_string(run, "state", r.state));
    MB_TRY(mb_json_set_int(run, "step", r.step));
    MB_TRY(mb_json_set_int(run, "total", r.total > r.step ? r.total : r.step));
    MB_TRY(mb_json_set_int(run, "modified", r.modified));
    return add_files(folder, t != NULL, run);
}

/* ---- the list ----------------------------------------------------------------------------- */

static bool is_run(const char *folder)
{
    return holds(folder, "logs/train.jsonl") || holds(folder, "recipe.resolved.yaml");
}

static mb_status add_run(const mb_jobs *j, int root, const char *name, const char *folder,
                         mb_json data)
{
    char id[300];
    mb_json run;

    snprintf(id, sizeof id, "%d/%s", root, name);
    MB_TRY(mb_json_set_object(data, NULL, &run));
    if (describe(j, id, folder, run) != MB_OK) { /* a name that is not UTF-8: not shown */
        mb_status_clear();
        return mb_json_set_bool(run, "broken", true);
    }
    return MB_OK;
}

static mb_status add_root(const mb_jobs *j, int root, mb_json data)
{
    char folder[MB_PATH_MAX], **names;
    mb_status st = MB_OK;
    size_t n;

    if (is_run(j->runs[root]))
        MB_TRY(add_run(j, root, ".", j->runs[root], data));
    MB_TRY(mb_path_list(j->runs[root], &names, &n));
    for (size_t i = 0; i < n && st == MB_OK && mb_json_count(data) < RUNS_MAX; i++)
        if (names[i][0] != '.' && in(j->runs[root], names[i], folder) && is_run(folder))
            st = add_run(j, root, names[i], folder, data);
    mb_path_list_free(names, n);
    return st;
}

/* Jobs whose folder is not there yet, the ones that wait. */
static mb_status add_waiting(const mb_jobs *j, mb_json data)
{
    for (size_t i = 0; i < j->n_jobs; i++) {
        const mb_json job = mb_json_root(j->job[i]->doc);
        const char *folder = mb_jobs_text(job, "folder");

        if (!is_run(folder) && mb_tuning_of_folder(j, folder) == j->job[i])
            MB_TRY(add_run(j, 0, mb_path_base(folder), folder, data));
    }
    return MB_OK;
}

static int64_t when(mb_json run)
{
    int64_t n = 0;

    if (mb_json_get_int(run, "modified", 0, &n) != MB_OK)
        mb_status_clear();
    return n;
}

/* The latest first. */
static mb_status sort(mb_json from, mb_json to)
{
    const size_t n = mb_json_count(from);
    bool *done;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&done, n + 1));
    for (size_t k = 0; k < n && st == MB_OK; k++) {
        size_t best = n;

        for (size_t i = 0; i < n; i++)
            if (!done[i] && (best == n || when(mb_json_at(from, i)) > when(mb_json_at(from, best))))
                best = i;
        done[best] = true;
        if (!mb_json_is_set(mb_json_get(mb_json_at(from, best), "broken")))
            st = mb_json_set(to, NULL, mb_json_at(from, best));
    }
    mb_free(done);
    return st;
}

static mb_status runs(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    mb_json_doc *doc = NULL, *found;
    mb_json data;
    mb_status st;

    MB_TRY(mb_json_doc_new_array("runs", &found));
    pthread_mutex_lock(&j->lock);
    st = add_waiting(j, mb_json_root(found));
    for (int i = 0; st == MB_OK && j->runs[i] != NULL; i++)
        st = add_root(j, i, mb_json_root(found));
    pthread_mutex_unlock(&j->lock);
    if (st == MB_OK)
        st = mb_jobs_list(&doc, &data);
    if (st == MB_OK)
        st = sort(mb_json_root(found), data);
    mb_json_free(found);
    return mb_jobs_answer(q, st, doc);
}

/* ---- one run ------------------------------------------------------------------------------ */

static mb_status no_run(mb_http_request *q)
{
    return mb_http_refuse(q, 404, "not_found", "there is no such run");
}

static mb_status read_piece(const char *path, int64_t *from, char **text, size_t *n)
{
    int64_t size = 0;
    int fd;
    mb_status st = MB_OK;

    MB_TRY(mb_file_open(path, MB_EIO, &fd, &size));
    if (*from > size)
        *from = 0; /* the file was cut: from its beginning */
    *n = size - *from < PIECE ? (size_t)(size - *from) : PIECE;
    MB_TRY_GOTO(mb_alloc(*n + 1, "log", (void **)text), st, done);
    st = mb_pread_all(fd, *text, *n, *from, path);
    if (st != MB_OK) {
        mb_free(*text);
        *text = NULL;
        *n = 0;
    }
    while (*n > 0 && (*text)[*n - 1] != '\n') /* whole lines */
        --*n;
done:
    close(fd);
    return st;
}

static mb_status answer_log(mb_http_request *q, const char *text, size_t n, int64_t from)
{
    char number[24];

    snprintf(number, sizeof number, "%lld", (long long)from);
    MB_TRY(mb_http_add(q, "X-From", number));
    snprintf(number, sizeof number, "%lld", (long long)from + (long long)n);
    MB_TRY(mb_http_add(q, "X-Next", number));
    return mb_http_answer(q, 200, "application/jsonl", text, n);
}

/* Lines of logs/train.jsonl from byte `from` on; X-Next says where the next ones begin. */
static mb_status run_log(void *arg, mb_http_request *q)
{
    const char *where = mb_http_query(q, "from");
    char folder[MB_PATH_MAX], path[MB_PATH_MAX], *text = NULL;
    int64_t from = where != NULL ? strtoll(where, NULL, 10) : 0;
    size_t n = 0;
    mb_status st = MB_OK;

    if (!mb_run_folder(mb_jobs_of(arg), mb_http_query(q, "id"), folder))
        return answer_log(q, "", 0, 0); /* a job that waits has none yet */
    if (from < 0)
        from = 0;
    if (in(folder, "logs/train.jsonl", path) && mb_path_is_file(path))
        st = read_piece(path, &from, &text, &n);
    else
        from = 0;
    if (st == MB_OK)
        st = answer_log(q, text != NULL ? text : "", n, from);
    mb_free(text);
    return st;
}

/* The folder's job, its console's path into `path`; false: it has none. */
static bool console_of(mb_jobs *j, const char *folder, char path[MB_PATH_MAX])
{
    const mb_tuning *t;
    bool found;

    pthread_mutex_lock(&j->lock);
    t = mb_tuning_of_folder(j, folder);
    found = t != NULL && mb_jobs_path(j, "jobs", mb_jobs_text(mb_json_root(t->doc), "id"), ".log",
                                      path) == MB_OK;
    pthread_mutex_unlock(&j->lock);
    mb_status_clear();
    return found;
}

/* The first lines of a file, within TEXT. */
static mb_status head(const char *path, char **text, size_t *n)
{
    int64_t from = 0;

    MB_TRY(read_piece(path, &from, text, n));
    if (*n > TEXT)
        *n = TEXT;
    while (*n > 0 && (*text)[*n - 1] != '\n')
        --*n;
    return MB_OK;
}

static mb_status read_file(mb_jobs *j, const char *folder, const char *name, char **text, size_t *n)
{
    char path[MB_PATH_MAX];

    if (strcmp(name, "console") == 0 && console_of(j, folder, path))
        return mb_jobs_tail(path, TEXT, text, n);
    if (strcmp(name, "recipe") == 0 && in(folder, "recipe.resolved.yaml", path))
        return mb_jobs_tail(path, TEXT, text, n);
    if (strcmp(name, "samples") == 0 && in(folder, "logs/samples.jsonl", path) &&
        mb_path_is_file(path))
        return mb_jobs_tail(path, TEXT, text, n);
    if (strcmp(name, "samples") == 0 && in(folder, "logs/predictions.jsonl", path) &&
        mb_path_is_file(path))
        return head(path, text, n);
    *n = 0;
    return mb_strdup("", text);
}

static mb_status run_file(void *arg, mb_http_request *q)
{
    const char *name = mb_http_query(q, "name"), *id = mb_http_query(q, "id");
    mb_jobs *j = mb_jobs_of(arg);
    char folder[MB_PATH_MAX], *text = NULL;
    size_t n = 0;
    mb_status st;

    if (!mb_run_folder(j, id, folder) && /* a job that failed before it made one has a console */
        !(id != NULL && j->runs[0] != NULL && strncmp(id, "0/", 2) == 0 && id[2] != '.' &&
          mb_path_is_component(id + 2) && in(j->runs[0], id + 2, folder)))
        return no_run(q);
    MB_TRY(read_file(j, folder, name != NULL ? name : "", &text, &n));
    st = mb_http_answer(q, 200, "text/plain; charset=utf-8", text, n);
    mb_free(text);
    return st;
}

static mb_status confusion(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    char folder[MB_PATH_MAX], id[MB_JOBS_ID], rows[MB_PATH_MAX], word[MB_PATH_MAX + 32],
        *file = NULL, **argv = NULL;
    mb_json_doc *doc = NULL;
    mb_status st;

    if (!mb_run_folder(j, mb_http_query(q, "id"), folder) || !has_classes(folder))
        return no_run(q);
    MB_TRY(mb_jobs_new_id("picture-", id));
    MB_TRY(mb_path_join(rows, sizeof rows, folder, "logs/predictions.jsonl"));
    MB_TRY(mb_asprintf(&file, "%s/%s.png", j->state, id));
    snprintf(word, sizeof word, "confusion_matrix=%s", file);
    MB_TRY_GOTO(mb_json_doc_new_array("words", &doc), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), NULL, rows), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), NULL, word), st, done);
    MB_TRY_GOTO(mb_jobs_argv("score", mb_json_root(doc), "format=json", &argv), st, done);
    st = mb_jobs_ask(j, q, (mb_chore){.words = argv, .type = "image/png", .file = file});
    file = NULL;
done:
    mb_free(file);
    mb_json_free(doc);
    return st;
}

static mb_status run_inspect(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    char folder[MB_PATH_MAX], path[MB_PATH_MAX], **argv = NULL;
    mb_json_doc *doc;
    mb_status st;

    if (!mb_run_folder(j, mb_http_query(q, "id"), folder) ||
        !in(folder, "recipe.resolved.yaml", path) || !mb_path_is_file(path))
        return no_run(q);
    MB_TRY(mb_json_doc_new_array("words", &doc));
    st = mb_json_set_string(mb_json_root(doc), NULL, path);
    if (st == MB_OK)
        st = mb_jobs_argv("inspect", mb_json_root(doc), "--json", &argv);
    mb_json_free(doc);
    MB_TRY(st);
    return mb_jobs_ask(j, q, (mb_chore){.words = argv, .type = "application/json"});
}

static mb_status run_serve(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    char folder[MB_PATH_MAX], path[MB_PATH_MAX], *own;

    if (!mb_run_folder(j, mb_http_query(q, "id"), folder) || !mb_run_model(folder, path))
        return no_run(q);
    MB_REQUIRE(j->o.offer != NULL, MB_EARG, "this server serves no models");
    MB_TRY(mb_strdup(folder, &own));
    return mb_jobs_ask(j, q, (mb_chore){.folder = own, .type = "application/json"});
}

const mb_http_route mb_routes_runs[] = {
    {.method = "GET", .path = "/mbuyu/runs", .handler = runs},
    {.method = "GET", .path = "/mbuyu/run/log", .handler = run_log},
    {.method = "GET", .path = "/mbuyu/run/file", .handler = run_file},
    {.method = "GET", .path = "/mbuyu/run/confusion", .handler = confusion},
    {.method = "GET", .path = "/mbuyu/run/inspect", .handler = run_inspect},
    {.method = "POST", .path = "/mbuyu/run/serve", .handler = run_serve},
    {0},
};
