/* recipes/serve/keeper.c - the thread that starts jobs, one at a time, stops them when asked, and says
 * what came of them. A job's status is OpenAI's: queued, running, succeeded, failed, cancelled.
 *
 * Asked to stop, a run gets SIGUSR1: it saves and ends (75). Then its last checkpoint is exported, so
 * that there is a model of it. One that does not end is sent SIGTERM, and in the end killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/jobs_inside.h"

enum { TAIL = 16384, EXPORT_SECONDS = 1800, EXPORT_TEXT = 1 << 20 };
static const double patience[] = {0, 120, 180}; /* seconds after which each signal is sent */
static const int signals[] = {SIGUSR1, SIGTERM, SIGKILL};

mb_status mb_tuning_save(const mb_jobs *j, const mb_tuning *t)
{
    char path[MB_PATH_MAX], *text = NULL;
    mb_status st;
    size_t n;

    MB_TRY(mb_jobs_path(j, "jobs", mb_jobs_text(mb_json_root(t->doc), "id"), ".json", path));
    MB_TRY(mb_json_text(mb_json_root(t->doc), 1, &text, &n));
    if (n <= MB_JOBS_JSON) /* what mb_jobs_load reads */
        st = mb_file_write_atomic(path, text, n);
    else
        st = MB_RAISE(MB_EARG, "a job of more than %d bytes cannot be kept", MB_JOBS_JSON);
    mb_free(text);
    return st;
}

void mb_tuning_free(mb_tuning *t)
{
    mb_json_free(t->doc);
    mb_free(t);
}

/* Last goes the file that a server which is started finds it by. A failure that is recorded stays so. */
void mb_tuning_drop(const mb_jobs *j, mb_tuning *t)
{
    static const char *const suffix[] = {".yaml", ".log", ".json"};
    const char *id = mb_jobs_text(mb_json_root(t->doc), "id");
    char path[MB_PATH_MAX];

    for (int i = 0; i < 3 && id[0] != '\0'; i++)
        if (snprintf(path, sizeof path, "%s/jobs/%s%s", j->state, id, suffix[i]) < MB_PATH_MAX &&
            unlink(path) != 0 && errno != ENOENT)
            mb_log_warn("jobs: %s%s is not removed: %s", id, suffix[i], strerror(errno));
    mb_tuning_free(t);
}

mb_tuning *mb_tuning_find(const mb_jobs *j, const char *id)
{
    for (size_t i = 0; id != NULL && i < j->n_jobs; i++)
        if (strcmp(mb_jobs_text(mb_json_root(j->job[i]->doc), "id"), id) == 0)
            return j->job[i];
    return NULL;
}

mb_tuning *mb_tuning_of_folder(const mb_jobs *j, const char *folder)
{
    for (size_t i = j->n_jobs; i-- > 0;)
        if (strcmp(mb_jobs_text(mb_json_root(j->job[i]->doc), "folder"), folder) == 0)
            return j->job[i];
    return NULL;
}

static bool is(const mb_tuning *t, const char *status)
{
    return strcmp(mb_jobs_text(mb_json_root(t->doc), "status"), status) == 0;
}

/* ---- after a restart ---------------------------------------------------------------------- */

/* What a job's file must say: the rest of this folder relies on it. */
static mb_status read_job(const char *path, const char *name, mb_tuning *t)
{
    const char *id;
    mb_json root;

    MB_TRY(mb_json_read(path, MB_EIO, MB_JOBS_JSON, &t->doc));
    root = mb_json_root(t->doc);
    id = mb_jobs_text(root, "id");
    MB_REQUIRE(mb_jobs_is_id(id, "ftjob-") && strncmp(name, id, strlen(id)) == 0 &&
                   strcmp(name + strlen(id), ".json") == 0,
               MB_EIO, "%s is not the job that it is called after", path);
    MB_TRY(mb_jobs_noted_child(root, &t->child));
    if (mb_json_is_set(mb_json_get(root, "asked")))
        t->asked = mb_clock();
    return MB_OK;
}

/* A file that cannot be read is left alone: the others go on without it. */
static mb_status take(mb_jobs *j, const char *dir, const char *name)
{
    char path[MB_PATH_MAX];
    mb_tuning *t;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, dir, name));
    MB_TRY(mb_grow((void **)&j->job, &j->jobs_capacity, j->n_jobs + 1, sizeof *j->job, "jobs"));
    MB_TRY(MB_NEW(&t));
    st = read_job(path, name, t);
    if (st == MB_OK) {
        j->job[j->n_jobs++] = t;
        return MB_OK;
    }
    mb_tuning_free(t);
    if (st == MB_ENOMEM)
        return st;
    mb_log_warn("this job is left out: %s", mb_status_sentence());
    mb_status_clear();
    return MB_OK;
}

int64_t mb_tuning_number(const mb_tuning *t)
{
    int64_t n = 0;

    if (mb_json_get_int(mb_json_root(t->doc), "number", 0, &n) != MB_OK)
        mb_status_clear();
    return n;
}

static int by_creation(const void *a, const void *b)
{
    const mb_tuning *x = *(mb_tuning *const *)a, *y = *(mb_tuning *const *)b;
    const int64_t p = mb_tuning_number(x), q = mb_tuning_number(y);

    return p < q ? -1 : p > q;
}

mb_status mb_jobs_load(mb_jobs *j)
{
    char dir[MB_PATH_MAX], **names;
    mb_status st = MB_OK;
    size_t n;

    MB_TRY(mb_path_join(dir, sizeof dir, j->state, "jobs"));
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++)
        if (mb_path_has_suffix(names[i], ".json"))
            st = take(j, dir, names[i]);
    mb_path_list_free(names, n);
    if (j->n_jobs > 1) /* names are random, and many are made within a second */
        qsort(j->job, j->n_jobs, sizeof(mb_tuning *), by_creation);
    return st;
}

/* ---- one job ------------------------------------------------------------------------------ */

static mb_status set_status(mb_jobs *j, mb_tuning *t, const char *status, const char *error)
{
    const mb_json root = mb_json_root(t->doc);

    MB_TRY(mb_json_set_string(root, "status", status));
    if (error != NULL && mb_json_set_string(root, "error", error) != MB_OK) { /* not UTF-8 */
        mb_status_clear();
        MB_TRY(mb_json_set_string(root, "error", "it failed"));
    }
    if (strcmp(status, "running") == 0)
        MB_TRY(mb_json_set_int(root, "started_at", (int64_t)time(NULL)));
    else if (strcmp(status, "queued") != 0)
        MB_TRY(mb_json_set_int(root, "finished_at", (int64_t)time(NULL)));
    return mb_tuning_save(j, t);
}

/* When a run's model was written; 0: it has none. */
static int64_t model_changed(const char *folder)
{
    char model[MB_PATH_MAX];

    return mb_run_model(folder, model) ? mb_path_changed(model) : 0;
}

static mb_status note_start(mb_jobs *j, mb_tuning *t)
{
    const mb_json root = mb_json_root(t->doc);

    MB_TRY(mb_jobs_note_child(root, &t->child));
    return set_status(j, t, "running", NULL);
}

static mb_status start(mb_jobs *j, mb_tuning *t)
{
    const mb_json root = mb_json_root(t->doc);
    const bool again = mb_json_is_set(mb_json_get(root, "resume"));
    char log[MB_PATH_MAX], **argv;
    mb_status st;

    MB_TRY(mb_jobs_path(j, "jobs", mb_jobs_text(root, "id"), ".log", log));
    MB_TRY(mb_json_set_int(root, "model_before", model_changed(mb_jobs_text(root, "folder"))));
    MB_TRY(mb_jobs_argv("train", mb_json_get(root, "words"),
                        again ? "resume_from_checkpoint=auto" : NULL, &argv));
    st = mb_child_start((const char *const *)argv, log, &t->child);
    mb_jobs_argv_free(argv);
    MB_TRY(st);
    t->asked = 0;
    t->signals = 0;
    st = note_start(j, t);
    if (st != MB_OK) { /* a run that is not written down would be lost to the next server */
        mb_child_end(&t->child);
        mb_json_remove(root, "pid");
        mb_json_remove(root, "begun");
    }
    return st;
}

static void send_signals(mb_tuning *t)
{
    const int n = (int)(sizeof signals / sizeof signals[0]);

    if (t->asked == 0)
        return;
    while (t->signals < n && mb_clock() - t->asked >= patience[t->signals]) {
        mb_child_signal(&t->child, signals[t->signals], signals[t->signals] == SIGKILL);
        t->signals++;
    }
}

/* What a failed run says last. The caller frees it. */
static char *last_words(const mb_jobs *j, const mb_tuning *t)
{
    char path[MB_PATH_MAX], *text = NULL, *said = NULL, *out = NULL;
    size_t n;

    if (mb_jobs_path(j, "jobs", mb_jobs_text(mb_json_root(t->doc), "id"), ".log", path) == MB_OK &&
        mb_jobs_tail(path, TAIL, &text, &n) == MB_OK)
        said = mb_child_sentence(text);
    if (mb_strdup(said != NULL ? said : "the run ended without saying why", &out) != MB_OK)
        out = NULL;
    mb_free(text);
    mb_status_clear();
    return out;
}

/* Without the lock: exports what a stopped run has saved. */
static void export_stopped(const mb_jobs *j, const char *folder)
{
    char checkpoint[MB_PATH_MAX], *text = NULL;
    const char *words[] = {"export", checkpoint, "overwrite_output_dir=true", NULL};
    size_t n;

    if (!mb_run_checkpoint(folder, checkpoint))
        return;
    if (mb_child_ask(words, EXPORT_SECONDS, EXPORT_TEXT, &j->ending, &text, &n) != MB_OK) {
        mb_log_warn("%s: no model could be written: %s", checkpoint, mb_status_sentence());
        mb_status_clear();
    }
    mb_free(text);
}

/* Without the lock: the model is served from now on. */
static bool offer(const mb_jobs *j, const char *folder, char *id, size_t size)
{
    char path[MB_PATH_MAX];

    if (!mb_run_model(folder, path))
        return false;
    if (j->o.offer == NULL || j->o.offer(j->o.arg, path, mb_path_base(folder), id, size) != MB_OK) {
        if (j->o.offer != NULL)
            mb_log_warn("%s is not served: %s", path, mb_status_sentence());
        mb_status_clear();
        return false;
    }
    return true;
}

/* How a run ended that another server has started: by what it left since then. */
static int code_of(const char *folder, mb_json job, bool stopped)
{
    const int64_t now = model_changed(folder);
    int64_t before = 0;

    if (mb_json_get_int(job, "model_before", 0, &before) != MB_OK)
        mb_status_clear();
    if (now != 0 && now != before)
        return 0;
    return stopped ? 75 : 1;
}

/* The run has ended: status, model, error. Called with the lock, which it gives back meanwhile. */
static mb_status finish(mb_jobs *j, mb_tuning *t, int code)
{
    const mb_json root = mb_json_root(t->doc);
    char folder[MB_PATH_MAX], model[MB_PATH_MAX], id[256], *why = NULL;
    bool made, stopped = t->asked > 0 || code == 75;
    mb_status st;

    snprintf(folder, sizeof folder, "%s", mb_jobs_text(root, "folder"));
    if (code == -1)
        code = code_of(folder, root, stopped);
    stopped = stopped && code != 0;
    pthread_mutex_unlock(&j->lock);
    if (stopped)
        export_stopped(j, folder);
    if (stopped && j->ending) { /* the next server exports it */
        pthread_mutex_lock(&j->lock);
        return MB_OK;
    }
    made = mb_run_model(folder, model);
    if (code != 0 && !stopped)
        why = last_words(j, t);
    made = made && (code == 0 || stopped) && offer(j, folder, id, sizeof id);
    pthread_mutex_lock(&j->lock);
    t->child = (mb_child){0};
    mb_json_remove(root, "pid");
    mb_json_remove(root, "asked");
    st = made ? mb_json_set_string(root, "fine_tuned_model", id) : MB_OK;
    if (st == MB_OK)
        st = set_status(j, t, stopped ? "cancelled" : code == 0 ? "succeeded" : "failed", why);
    mb_free(why);
    return st;
}

/* One look at a job. *busy: it runs. */
static mb_status look(mb_jobs *j, mb_tuning *t, bool *busy)
{
    int code;

    if (!is(t, "running"))
        return MB_OK;
    send_signals(t);
    if (!mb_child_runs(&t->child, &code))
        return finish(j, t, code);
    *busy = true;
    return MB_OK;
}

static void look_at_all(mb_jobs *j)
{
    bool busy = false;

    for (size_t i = 0; i < j->n_jobs && !j->ending; i++)
        if (look(j, j->job[i], &busy) != MB_OK) {
            mb_log_warn("jobs: %s", mb_status_sentence());
            mb_status_clear();
        }
    for (size_t i = 0; i < j->n_jobs && !busy && !j->ending; i++) {
        mb_tuning *t = j->job[i];

        if (!is(t, "queued"))
            continue;
        busy = true;
        if (start(j, t) == MB_OK)
            continue;
        if (set_status(j, t, "failed", mb_status_sentence()) != MB_OK)
            mb_log_warn("jobs: %s", mb_status_sentence());
        mb_status_clear();
        busy = false;
    }
}

static bool has_ended(const mb_tuning *t)
{
    return !is(t, "queued") && !is(t, "running");
}

/* The oldest jobs that have ended, but jobs_max of them. */
static void forget_ended(mb_jobs *j)
{
    int64_t many = -j->o.jobs_max;
    size_t kept = 0;

    for (size_t i = 0; i < j->n_jobs; i++)
        many += has_ended(j->job[i]);
    for (size_t i = 0; i < j->n_jobs; i++) {
        mb_tuning *t = j->job[i];

        if (many <= 0 || !has_ended(t)) {
            j->job[kept++] = t;
            continue;
        }
        many--;
        mb_tuning_drop(j, t);
    }
    j->n_jobs = kept;
}

void *mb_jobs_keep(void *jobs)
{
    mb_jobs *j = jobs;

    pthread_mutex_lock(&j->lock);
    while (!j->ending) {
        struct timespec until;

        (void)mb_export_runs(j);
        look_at_all(j);
        forget_ended(j);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 250000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (!j->ending)
            pthread_cond_timedwait(&j->wake, &j->lock, &until);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}
