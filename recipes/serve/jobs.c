/* recipes/serve/jobs.c - see recipes/serve/jobs.h: opening, closing, and what may be named. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/alloc.h"
#include "core/path_below.h"
#include "recipes/serve/jobs_inside.h"

mb_jobs *mb_jobs_of(void *route_arg)
{
    return *(mb_jobs **)route_arg;
}

/* ---- opening ------------------------------------------------------------------------------ */

static void free_list(char **list)
{
    for (char **s = list; s != NULL && *s != NULL; s++)
        mb_free(*s);
    mb_free(list);
}

/* The real paths of a list; the first may be made. */
static mb_status real_list(const char *const *list, bool make, char ***out)
{
    size_t n = 0;

    while (list != NULL && list[n] != NULL)
        n++;
    MB_TRY(MB_NEW_ARRAY(out, n + 1));
    for (size_t i = 0; i < n; i++) {
        char path[MB_PATH_MAX];

        if (make && i == 0)
            MB_TRY(mb_path_mkdirs(list[i]));
        MB_REQUIRE(mb_path_is_dir(list[i]), MB_EARG, "there is no folder %s", list[i]);
        MB_TRY(mb_path_real(list[i], path, sizeof path));
        MB_TRY(mb_strdup(path, &(*out)[i]));
    }
    return MB_OK;
}

/* What was cut off by the end of a server: uploads, pictures. */
static void sweep(const char *dir, const char *suffix)
{
    char path[MB_PATH_MAX], **names;
    size_t n;

    if (mb_path_list(dir, &names, &n) != MB_OK) {
        mb_status_clear();
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (mb_path_has_suffix(names[i], suffix) &&
            mb_path_join(path, sizeof path, dir, names[i]) == MB_OK)
            (void)!mb_path_remove_tree(path);
    mb_path_list_free(names, n);
    mb_status_clear();
}

static mb_status open_state(mb_jobs *j)
{
    static const char *const parts[] = {"files", "jobs", "recipes"};
    char path[MB_PATH_MAX];

    MB_TRY(mb_asprintf(&j->state, "%s/.serve", j->runs[0]));
    for (int i = 0; i < 3; i++) {
        MB_TRY(mb_path_join(path, sizeof path, j->state, parts[i]));
        MB_TRY(mb_path_mkdirs(path));
        sweep(path, ".part");
    }
    sweep(j->state, ".png");
    mb_export_load(j);
    MB_TRY(mb_jobs_count_files(j));
    return mb_jobs_load(j);
}

static mb_status start_threads(mb_jobs *j)
{
    MB_REQUIRE(pthread_create(&j->asker, NULL, mb_jobs_ask_keep, j) == 0, MB_ENOMEM,
               "no thread for questions");
    if (pthread_create(&j->keeper, NULL, mb_jobs_keep, j) != 0) {
        pthread_mutex_lock(&j->lock);
        j->ending = true;
        pthread_cond_broadcast(&j->wake);
        pthread_mutex_unlock(&j->lock);
        pthread_join(j->asker, NULL);
        return MB_RAISE(MB_ENOMEM, "no thread for jobs");
    }
    j->threads = true;
    return MB_OK;
}

static void set_limits(mb_jobs_options *o)
{
    const struct {
        int64_t *limit, usual;
    } limits[] = {{&o->upload_max, (int64_t)512 << 20},
                  {&o->uploads_max, (int64_t)16 << 30},
                  {&o->files_max, 1000},
                  {&o->jobs_max, 500}};

    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (*limits[i].limit == 0)
            *limits[i].limit = limits[i].usual;
}

mb_status mb_jobs_open(const mb_jobs_options *o, mb_jobs **out)
{
    mb_jobs *j;
    mb_status st;

    MB_TRY(MB_NEW(&j));
    j->o = *o;
    set_limits(&j->o);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->wake, NULL);
    MB_TRY_GOTO(real_list(o->runs, true, &j->runs), st, fail);
    MB_TRY_GOTO(real_list(o->folders, false, &j->folders), st, fail);
    if (j->runs[0] != NULL)
        MB_TRY_GOTO(open_state(j), st, fail);
    MB_TRY_GOTO(start_threads(j), st, fail);
    *out = j;
    return MB_OK;
fail:
    mb_jobs_close(j);
    return st;
}

void mb_jobs_close(mb_jobs *j)
{
    if (j == NULL)
        return;
    pthread_mutex_lock(&j->lock);
    j->ending = true;
    pthread_cond_broadcast(&j->wake);
    pthread_mutex_unlock(&j->lock);
    if (j->threads) {
        pthread_join(j->keeper, NULL);
        pthread_join(j->asker, NULL);
    }
    mb_jobs_chores_drop(j);
    mb_export_end(j);
    for (size_t i = 0; i < j->n_jobs; i++)
        mb_tuning_free(j->job[i]);
    mb_free(j->job);
    free_list(j->runs);
    free_list(j->folders);
    mb_free(j->state);
    pthread_cond_destroy(&j->wake);
    pthread_mutex_destroy(&j->lock);
    mb_free(j);
}

mb_status mb_jobs_can_train(const mb_jobs *j)
{
    MB_REQUIRE(j->state != NULL, MB_EARG,
               "this server starts no runs and takes no files: it was started without a folder for "
               "them (--runs DIR)");
    return MB_OK;
}

/* ---- names and paths ---------------------------------------------------------------------- */

mb_status mb_jobs_new_id(const char *prefix, char out[MB_JOBS_ID])
{
    static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789"; /* 32 of them */
    unsigned char some[24];
    size_t n = strlen(prefix);

    MB_REQUIRE(getrandom(some, sizeof some, 0) == (ssize_t)sizeof some, MB_EIO,
               "the system gives no random numbers");
    MB_ASSERT(n + sizeof some < MB_JOBS_ID);
    memcpy(out, prefix, n);
    for (size_t i = 0; i < sizeof some; i++)
        out[n++] = letters[some[i] % 32];
    out[n] = '\0';
    return MB_OK;
}

bool mb_jobs_is_id(const char *id, const char *prefix)
{
    const size_t n = strlen(prefix);

    return id != NULL && strncmp(id, prefix, n) == 0 && id[n] != '\0' && strlen(id) < MB_JOBS_ID &&
           id[n + strspn(id + n, "abcdefghijklmnopqrstuvwxyz0123456789")] == '\0';
}

mb_status mb_jobs_path(const mb_jobs *j, const char *what, const char *id, const char *suffix,
                       char out[MB_PATH_MAX])
{
    const int n = snprintf(out, MB_PATH_MAX, "%s/%s/%s%s", j->state, what, id, suffix);

    MB_REQUIRE(n < MB_PATH_MAX, MB_EARG, "the path of %s is too long", id);
    return MB_OK;
}

mb_status mb_jobs_inside(const mb_jobs *j, const char *path, char out[MB_PATH_MAX])
{
    char *const *const given[] = {j->runs, j->folders};

    for (int i = 0; i < 2; i++) {
        if (mb_path_real_below(path, (const char *const *)given[i], out, MB_PATH_MAX) == MB_OK)
            return MB_OK;
        mb_status_clear();
    }
    return MB_RAISE(MB_EARG, "there is no %.200s below the folders that this server was given",
                    path[0] != '\0' ? path : "file without a name");
}

mb_status mb_jobs_model(const mb_jobs *j, const char *what, char out[MB_PATH_MAX],
                        char adapter[MB_PATH_MAX])
{
    adapter[0] = '\0';
    if (j->o.path_of != NULL && what[0] != '\0' &&
        j->o.path_of(j->o.arg, what, out, adapter, MB_PATH_MAX))
        return MB_OK;
    adapter[0] = '\0';
    return mb_jobs_inside(j, what, out);
}

mb_status mb_jobs_data(const mb_jobs *j, const char *what, char out[MB_PATH_MAX])
{
    char dir[MB_PATH_MAX], **names;
    bool found = false;
    size_t n;

    if (!mb_jobs_is_id(what, "file-") || j->state == NULL)
        return mb_jobs_inside(j, what, out);
    MB_TRY(mb_jobs_path(j, "files", what, "", dir));
    MB_REQUIRE(mb_path_is_dir(dir), MB_EARG, "there is no file %s", what);
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && !found; i++)
        found = strncmp(names[i], "data", 4) == 0 &&
                snprintf(out, MB_PATH_MAX, "%s/%s", dir, names[i]) < MB_PATH_MAX;
    mb_path_list_free(names, n);
    MB_REQUIRE(found, MB_EARG, "the file %s is not whole", what);
    return MB_OK;
}

/* ---- requests and answers ----------------------------------------------------------------- */

mb_status mb_jobs_body(mb_http_request *q, mb_json_doc **out)
{
    size_t n;
    const char *text = mb_http_whole(q, &n);

    return mb_json_parse(text, n, "body", 0, MB_EARG, out);
}

mb_status mb_jobs_answer(mb_http_request *q, mb_status st, mb_json_doc *doc)
{
    char *text = NULL;
    size_t n = 0;

    if (st == MB_OK)
        st = mb_json_text(mb_json_root(doc), 0, &text, &n);
    mb_json_free(doc);
    if (st == MB_OK)
        st = mb_http_answer(q, 200, "application/json", text, n);
    mb_free(text);
    return st;
}

mb_status mb_jobs_list(mb_json_doc **doc, mb_json *data)
{
    mb_status st;

    MB_TRY(mb_json_doc_new("list", doc));
    st = mb_json_set_string(mb_json_root(*doc), "object", "list");
    if (st == MB_OK)
        st = mb_json_set_array(mb_json_root(*doc), "data", data);
    if (st != MB_OK) {
        mb_json_free(*doc);
        *doc = NULL;
    }
    return st;
}

mb_status mb_jobs_list_end(mb_json list, mb_json data, bool more)
{
    const size_t n = mb_json_count(data);

    MB_TRY(mb_json_set_bool(list, "has_more", more));
    if (n == 0 || !mb_json_is(mb_json_get(mb_json_at(data, 0), "id"), MB_JSON_STRING))
        return MB_OK;
    MB_TRY(mb_json_set(list, "first_id", mb_json_get(mb_json_at(data, 0), "id")));
    return mb_json_set(list, "last_id", mb_json_get(mb_json_at(data, n - 1), "id"));
}

int64_t mb_jobs_limit(const mb_http_request *q)
{
    const char *text = mb_http_query(q, "limit");
    const long long n = text != NULL ? strtoll(text, NULL, 10) : 20;

    return n < 1 ? 1 : n > 1000 ? 1000 : n;
}

mb_status mb_jobs_note_child(mb_json object, const mb_child *c)
{
    MB_TRY(mb_json_set_int(object, "pid", c->pid));
    return mb_json_set_int(object, "begun", c->begun);
}

mb_status mb_jobs_noted_child(mb_json object, mb_child *out)
{
    int64_t pid = 0;

    *out = (mb_child){0};
    MB_TRY(mb_json_get_int(object, "pid", 0, &pid));
    MB_TRY(mb_json_get_int(object, "begun", 0, &out->begun));
    if (pid > 1 && pid <= INT32_MAX)
        out->pid = (pid_t)pid;
    return MB_OK;
}

const char *mb_jobs_text(mb_json object, const char *key)
{
    const mb_json v = mb_json_get(object, key);
    const char *s;

    if (!mb_json_is(v, MB_JSON_STRING) || mb_json_string(v, &s, NULL) != MB_OK)
        return "";
    return s;
}
