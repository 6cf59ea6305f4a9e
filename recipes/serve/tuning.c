/* recipes/serve/tuning.c - /v1/fine_tuning/jobs: OpenAI's routes over the jobs that keeper.c runs.
 *
 * Beside OpenAI's fields a request may have "mbuyu": {"recipe": "chat-lora", "settings": {key: value}},
 * and training_file may be the path of a file or folder below those the server was given.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/jobs_inside.h"

enum {
    RUN_NAME = 40,
    LOG_MAX = 8 << 20,
    JOB_MAX = MB_JOBS_JSON / 4, /* bytes of a new job's JSON: what is noted later has room */
    PAIRS = 16,                 /* of metadata, as OpenAI has it */
    PAIR_KEY = 64,
    PAIR_VALUE = 512,
};

/* ---- as OpenAI shows a job ---------------------------------------------------------------- */

static mb_status copy_or_null(mb_json to, const char *key, mb_json from)
{
    const mb_json v = mb_json_get(from, key);

    return mb_json_is_set(v) ? mb_json_set(to, key, v) : mb_json_set_null(to, key);
}

static mb_status show_error(mb_json to, mb_json job)
{
    mb_json error;

    if (mb_jobs_text(job, "error")[0] == '\0')
        return mb_json_set_null(to, "error");
    MB_TRY(mb_json_set_object(to, "error", &error));
    MB_TRY(mb_json_set_string(error, "code", "run_failed"));
    MB_TRY(mb_json_set_string(error, "message", mb_jobs_text(job, "error")));
    return mb_json_set_null(error, "param");
}

static mb_status show_hyperparameters(mb_json to, mb_json job)
{
    static const char *const keys[] = {"n_epochs", "batch_size", "learning_rate_multiplier"};
    mb_json h = mb_json_get(mb_json_get(mb_json_get(job, "method"), "supervised"),
                            "hyperparameters"),
            shown, method, inner;

    if (!mb_json_is_set(h))
        h = mb_json_get(job, "hyperparameters");
    MB_TRY(mb_json_set_object(to, "hyperparameters", &shown));
    for (int i = 0; i < 3; i++) {
        const mb_json v = mb_json_get(h, keys[i]);
        MB_TRY(mb_json_is_set(v) ? mb_json_set(shown, keys[i], v)
                                 : mb_json_set_string(shown, keys[i], "auto"));
    }
    MB_TRY(mb_json_set_object(to, "method", &method));
    MB_TRY(mb_json_set_string(method, "type", "supervised"));
    MB_TRY(mb_json_set_object(method, "supervised", &inner));
    return mb_json_set(inner, "hyperparameters", shown);
}

static mb_status show_ours(mb_json to, mb_json job)
{
    static const char *const keys[] = {"run", "folder", "recipe", "settings", "words"};
    mb_json ours;

    MB_TRY(mb_json_set_object(to, "mbuyu", &ours));
    for (int i = 0; i < 5; i++)
        MB_TRY(copy_or_null(ours, keys[i], job));
    return MB_OK;
}

static mb_status show(mb_json job, mb_json to)
{
    static const char *const same[] = {
        "id",     "created_at",    "finished_at",     "model",   "fine_tuned_model",
        "status", "training_file", "validation_file", "metadata"};
    mb_json empty;
    int64_t seed;

    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        MB_TRY(copy_or_null(to, same[i], job));
    MB_TRY(mb_json_set_string(to, "object", "fine_tuning.job"));
    MB_TRY(mb_json_set_string(to, "organization_id", "mbuyu"));
    MB_TRY(mb_json_set_array(to, "result_files", &empty));
    MB_TRY(mb_json_set_array(to, "integrations", &empty));
    MB_TRY(mb_json_set_null(to, "trained_tokens"));
    MB_TRY(mb_json_set_null(to, "estimated_finish"));
    MB_TRY(mb_json_get_int(job, "seed", 42, &seed)); /* the recipes' default */
    MB_TRY(mb_json_set_int(to, "seed", seed));
    MB_TRY(show_error(to, job));
    MB_TRY(show_hyperparameters(to, job));
    return show_ours(to, job);
}

/* With the lock. */
static mb_status make_answer(const mb_tuning *t, mb_json_doc **doc)
{
    mb_status st;

    MB_TRY(mb_json_doc_new("job", doc));
    st = show(mb_json_root(t->doc), mb_json_root(*doc));
    if (st != MB_OK)
        mb_json_free(*doc);
    return st;
}

/* ---- creating ----------------------------------------------------------------------------- */

static bool taken(const mb_jobs *j, const char *folder)
{
    return mb_path_exists(folder) || mb_tuning_of_folder(j, folder) != NULL;
}

/* A folder of its own for the run: SUFFIX, or the model's name, and a number where that is there. */
static mb_status choose_folder(const mb_jobs *j, mb_json request, const char *model, mb_json job)
{
    const char *suffix = mb_jobs_text(request, "suffix");
    char name[RUN_NAME + 1], folder[MB_PATH_MAX], run[80];
    size_t n = 0;

    for (const char *p = suffix; *p != '\0'; p++)
        MB_REQUIRE(isalnum((unsigned char)*p) || (p > suffix && strchr("._-", *p) != NULL), MB_EARG,
                   "suffix: letters, digits, dots, dashes and underlines only, not \"%.60s\"",
                   suffix);
    MB_REQUIRE(strlen(suffix) <= RUN_NAME, MB_EARG, "suffix: at most %d letters", RUN_NAME);
    if (suffix[0] == '\0')
        suffix = mb_path_base(model);
    for (const char *p = suffix; *p != '\0' && n < RUN_NAME; p++)
        name[n++] = isalnum((unsigned char)*p) || strchr("._-", *p) != NULL ? *p : '-';
    name[n] = '\0';
    for (int i = 1;; i++) {
        const int k =
            snprintf(run, sizeof run, i == 1 ? "%s" : "%s-%d", name[0] == '.' ? "run" : name, i);
        MB_REQUIRE(i < 10000 && k > 0, MB_EARG, "suffix: there are too many runs named %s", name);
        MB_TRY(mb_path_join(folder, sizeof folder, j->runs[0], run));
        if (!taken(j, folder))
            break;
    }
    MB_TRY(mb_json_set_string(job, "folder", folder));
    snprintf(folder, sizeof folder, "0/%s", run);
    return mb_json_set_string(job, "run", folder);
}

static mb_status check_metadata(mb_json m)
{
    const char *value;
    size_t n;

    MB_REQUIRE(!mb_json_is_set(m) || mb_json_is(m, MB_JSON_OBJECT), MB_EARG,
               "metadata must be an object of texts");
    MB_REQUIRE(mb_json_count(m) <= PAIRS, MB_EARG, "metadata: more than %d pairs", PAIRS);
    for (mb_json_it it = mb_json_first(m); mb_json_more(&it); mb_json_next(&it)) {
        MB_REQUIRE(strlen(it.key) <= PAIR_KEY, MB_EARG,
                   "metadata: the key \"%.64s...\" has more than %d bytes", it.key, PAIR_KEY);
        MB_REQUIRE(mb_json_is(it.value, MB_JSON_STRING), MB_EARG, "metadata: %s must be a text",
                   it.key);
        MB_TRY(mb_json_string(it.value, &value, &n));
        MB_REQUIRE(n <= PAIR_VALUE, MB_EARG, "metadata: %s has more than %d bytes", it.key,
                   PAIR_VALUE);
    }
    return MB_OK;
}

static mb_status check_size(mb_json job)
{
    char *text;
    size_t n;

    MB_TRY(mb_json_text(job, 1, &text, &n));
    mb_free(text);
    MB_REQUIRE(n <= JOB_MAX, MB_EARG, "the job needs %zu bytes to be described, more than %d", n,
               JOB_MAX);
    return MB_OK;
}

/* With the lock: as many jobs wait as may. */
static bool is_full(const mb_jobs *j)
{
    int n = 0;

    for (size_t i = 0; i < j->n_jobs; i++)
        n += strcmp(mb_jobs_text(mb_json_root(j->job[i]->doc), "status"), "queued") == 0;
    return n >= MB_JOBS_QUEUED;
}

static mb_status refuse_full(mb_http_request *q)
{
    MB_TRY(mb_http_add(q, "Retry-After", "60"));
    return mb_http_refuse(q, 429, "busy", "%d jobs wait already", MB_JOBS_QUEUED);
}

static mb_status copy_request(mb_json request, mb_json job)
{
    static const char *const keys[] = {"model",  "training_file",   "validation_file", "seed",
                                       "suffix", "hyperparameters", "method",          "metadata"};
    const mb_json ours = mb_json_get(request, "mbuyu");

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (mb_json_is_set(mb_json_get(request, keys[i])))
            MB_TRY(mb_json_set(job, keys[i], mb_json_get(request, keys[i])));
    if (mb_json_is_set(mb_json_get(ours, "recipe")))
        MB_TRY(mb_json_set(job, "recipe", mb_json_get(ours, "recipe")));
    if (mb_json_is_set(mb_json_get(ours, "settings")))
        MB_TRY(mb_json_set(job, "settings", mb_json_get(ours, "settings")));
    return MB_OK;
}

static mb_status add_word(mb_json words, const char *key, const char *folder, const char *rest)
{
    char word[MB_PATH_MAX + 64];

    MB_REQUIRE(snprintf(word, sizeof word, "%s=%s%s", key, folder, rest) < (int)sizeof word,
               MB_EARG, "the path of the run is too long");
    return mb_json_set_string(words, NULL, word);
}

/* With the lock. */
static mb_status describe(const mb_jobs *j, mb_json request, mb_json job)
{
    const mb_json method = mb_json_get(request, "method");
    char id[MB_JOBS_ID], recipe[MB_PATH_MAX], model[MB_PATH_MAX], adapter[MB_PATH_MAX];
    const char *folder;
    mb_json words;

    MB_REQUIRE(!mb_json_is_set(method) || strcmp(mb_jobs_text(method, "type"), "supervised") == 0,
               MB_EARG, "method: only supervised is known here, not \"%.40s\"",
               mb_jobs_text(method, "type"));
    MB_TRY(mb_jobs_new_id("ftjob-", id));
    MB_TRY(mb_json_set_string(job, "id", id));
    MB_TRY(mb_json_set_string(job, "status", "queued"));
    MB_TRY(mb_json_set_int(job, "created_at", (int64_t)time(NULL)));
    MB_TRY(mb_json_set_int(job, "number",
                           j->n_jobs > 0 ? mb_tuning_number(j->job[j->n_jobs - 1]) + 1 : 1));
    MB_TRY(check_metadata(mb_json_get(request, "metadata")));
    MB_TRY(copy_request(request, job));
    MB_TRY(mb_jobs_path(j, "jobs", id, ".yaml", recipe));
    MB_TRY(mb_json_set_array(job, "words", &words));
    MB_TRY(mb_jobs_words(j, job, recipe, words));
    MB_TRY(mb_jobs_model(j, mb_jobs_text(job, "model"), model, adapter));
    MB_TRY(choose_folder(j, request, model, job));
    folder = mb_jobs_text(job, "folder");
    MB_TRY(add_word(words, "output_dir", folder, ""));
    MB_TRY(add_word(words, "predictions_file", folder, "/logs/predictions.jsonl"));
    return check_size(job);
}

/* With the lock. */
static mb_status add_job(mb_jobs *j, mb_json request, mb_tuning **out)
{
    mb_tuning *t;
    mb_status st;

    MB_TRY(mb_grow((void **)&j->job, &j->jobs_capacity, j->n_jobs + 1, sizeof *j->job, "jobs"));
    MB_TRY(MB_NEW(&t));
    st = mb_json_doc_new("job", &t->doc);
    if (st == MB_OK)
        st = describe(j, request, mb_json_root(t->doc));
    if (st == MB_OK)
        st = mb_tuning_save(j, t);
    if (st != MB_OK) {
        mb_tuning_drop(j, t);
        return st;
    }
    j->job[j->n_jobs++] = t;
    pthread_cond_broadcast(&j->wake);
    *out = t;
    return MB_OK;
}

static mb_status create(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    mb_json_doc *request, *doc = NULL;
    mb_tuning *t = NULL;
    bool full;
    mb_status st = MB_OK;

    MB_TRY(mb_jobs_can_train(j));
    MB_TRY(mb_jobs_body(q, &request));
    pthread_mutex_lock(&j->lock);
    full = is_full(j);
    if (!full)
        st = mb_json_is(mb_json_root(request), MB_JSON_OBJECT)
                 ? add_job(j, mb_json_root(request), &t)
                 : MB_RAISE(MB_EARG, "the body must be an object");
    if (!full && st == MB_OK)
        st = make_answer(t, &doc);
    pthread_mutex_unlock(&j->lock);
    mb_json_free(request);
    MB_TRY(st);
    return full ? refuse_full(q) : mb_jobs_answer(q, MB_OK, doc);
}

/* ---- looking ------------------------------------------------------------------------------ */

static mb_status no_job(mb_http_request *q)
{
    return mb_http_refuse(q, 404, "not_found", "there is no job %.80s", mb_http_part(q, "id"));
}

static mb_status one(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;
    mb_tuning *t;

    pthread_mutex_lock(&j->lock);
    t = mb_tuning_find(j, mb_http_part(q, "id"));
    if (t != NULL)
        st = make_answer(t, &doc);
    pthread_mutex_unlock(&j->lock);
    MB_TRY(st);
    return doc != NULL ? mb_jobs_answer(q, MB_OK, doc) : no_job(q);
}

/* The latest first. With the lock. */
static mb_status fill_jobs(const mb_jobs *j, const mb_http_request *q, mb_json list, mb_json data)
{
    const int64_t most = mb_jobs_limit(q);
    const char *after = mb_http_query(q, "after");
    bool seen = after == NULL, more = false;

    for (size_t i = j->n_jobs; i-- > 0 && !more;) {
        const mb_json job = mb_json_root(j->job[i]->doc);
        mb_json_doc *doc;
        mb_status st;

        if (!seen) {
            seen = strcmp(mb_jobs_text(job, "id"), after) == 0;
            continue;
        }
        more = (int64_t)mb_json_count(data) == most;
        if (more)
            break;
        MB_TRY(make_answer(j->job[i], &doc));
        st = mb_json_set(data, NULL, mb_json_root(doc));
        mb_json_free(doc);
        MB_TRY(st);
    }
    return mb_jobs_list_end(list, data, more);
}

static mb_status all(void *arg, mb_http_request *q)
{
    mb_jobs *j = mb_jobs_of(arg);
    mb_json_doc *doc;
    mb_json data;
    mb_status st;

    MB_TRY(mb_jobs_list(&doc, &data));
    pthread_mutex_lock(&j->lock);
    st = fill_jobs(j, q, mb_json_root(doc), data);
    pthread_mutex_unlock(&j->lock);
    return mb_jobs_answer(q, st, doc);
}

/* What happened to a job, and of its log what the trainer measured. */
struct events {
    char id[MB_JOBS_ID];
    mb_json all; /* an array, the earliest first */
    int64_t n;
};

static mb_status add_event(struct events *e, int64_t when, const char *type, const char *message,
                           mb_json *data)
{
    char id[MB_JOBS_ID + 40];
    mb_json event;

    snprintf(id, sizeof id, "ftevent-%s-%06lld", e->id + strlen("ftjob-"), (long long)e->n++);
    MB_TRY(mb_json_set_object(e->all, NULL, &event));
    MB_TRY(mb_json_set_string(event, "id", id));
    MB_TRY(mb_json_set_string(event, "object", "fine_tuning.job.event"));
    MB_TRY(mb_json_set_int(event, "created_at", when));
    MB_TRY(mb_json_set_string(event, "level", strcmp(type, "error") == 0 ? "error" : "info"));
    MB_TRY(mb_json_set_string(event, "message", message));
    MB_TRY(mb_json_set_string(event, "type", strcmp(type, "metrics") == 0 ? "metrics" : "message"));
    return mb_json_set_object(event, "data", data);
}

static mb_status add_measured(struct events *e, mb_json line)
{
    static const struct {
        const char *ours, *theirs;
    } names[] = {{"loss", "train_loss"},
                 {"eval_loss", "valid_loss"},
                 {"eval_accuracy", "valid_mean_token_accuracy"},
                 {"learning_rate", "learning_rate"},
                 {"grad_norm", "grad_norm"},
                 {"tokens_per_second", "tokens_per_second"}};
    const mb_json loss = mb_json_get(line, "loss"), eval = mb_json_get(line, "eval_loss");
    char message[120];
    double when, value = 0;
    int64_t step;
    mb_json data;

    MB_TRY(mb_json_get_int(line, "step", 0, &step));
    MB_TRY(mb_json_get_real(line, "time", 0, &when));
    if (!mb_json_is_number(loss) && !mb_json_is_number(eval))
        return MB_OK; /* the last line is of the whole run */
    MB_TRY(mb_json_real(mb_json_is_number(loss) ? loss : eval, &value));
    snprintf(message, sizeof message, "Step %lld: %s loss=%.4f", (long long)step,
             mb_json_is_number(loss) ? "training" : "evaluation", value);
    MB_TRY(add_event(e, (int64_t)when, "metrics", message, &data));
    MB_TRY(mb_json_set_int(data, "step", step));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (mb_json_is_number(mb_json_get(line, names[i].ours)))
            MB_TRY(mb_json_set(data, names[i].theirs, mb_json_get(line, names[i].ours)));
    return MB_OK;
}

static mb_status add_log(struct events *e, const char *folder)
{
    char path[MB_PATH_MAX], *text, *rest, *line;
    mb_status st = MB_OK;
    size_t n;

    MB_TRY(mb_path_join(path, sizeof path, folder, "logs/train.jsonl"));
    MB_TRY(mb_jobs_tail(path, LOG_MAX, &text, &n));
    for (line = strtok_r(text, "\n", &rest); line != NULL && st == MB_OK;
         line = strtok_r(NULL, "\n", &rest)) {
        mb_json_doc *doc;

        if (mb_json_parse(line, strlen(line), "log", 0, MB_EIO, &doc) != MB_OK) {
            mb_status_clear(); /* half a line: it is being written */
            break;
        }
        st = add_measured(e, mb_json_root(doc));
        mb_json_free(doc);
    }
    mb_free(text);
    return st;
}

static mb_status add_state(struct events *e, mb_json job, const char *key, const char *message)
{
    const bool bad =
        strcmp(mb_jobs_text(job, "status"), "failed") == 0 && strcmp(key, "finished_at") == 0;
    int64_t when;
    mb_json data;

    MB_TRY(mb_json_get_int(job, key, 0, &when));
    return when == 0 ? MB_OK : add_event(e, when, bad ? "error" : "message", message, &data);
}

/* `job` is a copy: without the lock. */
static mb_status all_events(struct events *e, mb_json job)
{
    const char *status = mb_jobs_text(job, "status"), *error = mb_jobs_text(job, "error");
    char last[600];

    snprintf(e->id, sizeof e->id, "%s", mb_jobs_text(job, "id"));
    snprintf(last, sizeof last, "Fine-tuning job %s%s%.500s", status, error[0] != '\0' ? ": " : "",
             error);
    MB_TRY(add_state(e, job, "created_at", "Created fine-tuning job"));
    MB_TRY(add_state(e, job, "started_at", "Fine-tuning job started"));
    MB_TRY(add_log(e, mb_jobs_text(job, "folder")));
    return add_state(e, job, "finished_at", last);
}

/* The latest first, of what comes after (before in time) the event `after`. */
static mb_status page_of(const mb_http_request *q, mb_json from, mb_json list, mb_json data)
{
    const int64_t most = mb_jobs_limit(q);
    const char *after = mb_http_query(q, "after");
    size_t i = mb_json_count(from);

    if (after != NULL)
        while (i > 0 && strcmp(mb_jobs_text(mb_json_at(from, --i), "id"), after) != 0)
            ;
    for (; i > 0 && (int64_t)mb_json_count(data) < most; i--)
        MB_TRY(mb_json_set(data, NULL, mb_json_at(from, i - 1)));
    return mb_jobs_list_end(list, data, i > 0);
}

static mb_status copy_job(mb_jobs *j, mb_http_request *q, mb_json_doc **copy)
{
    mb_status st = MB_OK;
    mb_tuning *t;

    *copy = NULL;
    pthread_mutex_lock(&j->lock);
    t = mb_tuning_find(j, mb_http_part(q, "id"));
    if (t != NULL)
        st = mb_json_doc_new("job", copy);
    if (t != NULL && st == MB_OK)
        st = mb_json_set(mb_json_root(*copy), "job", mb_json_root(t->doc));
    pthread_mutex_unlock(&j->lock);
    return st;
}

static mb_status events(void *arg, mb_http_request *q)
{
    mb_json_doc *job, *all_of = NULL, *doc = NULL;
    struct events e = {.n = 0};
    mb_json data;
    mb_status st;

    MB_TRY(copy_job(mb_jobs_of(arg), q, &job));
    if (job == NULL)
        return no_job(q);
    MB_TRY_GOTO(mb_json_doc_new_array("events", &all_of), st, done);
    e.all = mb_json_root(all_of);
    MB_TRY_GOTO(all_events(&e, mb_json_get(mb_json_root(job), "job")), st, done);
    MB_TRY_GOTO(mb_jobs_list(&doc, &data), st, done);
    st = page_of(q, e.all, mb_json_root(doc), data);
done:
    mb_json_free(job);
    mb_json_free(all_of);
    return mb_jobs_answer(q, st, doc);
}

static mb_status add_checkpoint(mb_json job, const char *name, mb_json data)
{
    const char *id = mb_jobs_text(job, "id");
    const long long step = strtoll(name + strlen("checkpoint-"), NULL, 10);
    char text[MB_PATH_MAX];
    mb_json c, metrics;
    int64_t when;

    MB_TRY(mb_json_get_int(job, "created_at", 0, &when));
    MB_TRY(mb_json_set_object(data, NULL, &c));
    snprintf(text, sizeof text, "ftckpt-%s-%lld", id + strlen("ftjob-"), step);
    MB_TRY(mb_json_set_string(c, "id", text));
    MB_TRY(mb_json_set_string(c, "object", "fine_tuning.job.checkpoint"));
    MB_TRY(mb_json_set_int(c, "created_at", when));
    MB_TRY(mb_json_set_string(c, "fine_tuning_job_id", id));
    snprintf(text, sizeof text, "%.2000s/%.200s", mb_jobs_text(job, "folder"), name);
    MB_TRY(mb_json_set_string(c, "fine_tuned_model_checkpoint", text));
    MB_TRY(mb_json_set_int(c, "step_number", step));
    MB_TRY(mb_json_set_object(c, "metrics", &metrics));
    return mb_json_set_int(metrics, "step", step);
}

static mb_status checkpoints(void *arg, mb_http_request *q)
{
    mb_json_doc *copy, *doc = NULL;
    char **names = NULL;
    mb_json job, data;
    mb_status st;
    size_t n = 0;

    MB_TRY(copy_job(mb_jobs_of(arg), q, &copy));
    if (copy == NULL)
        return no_job(q);
    job = mb_json_get(mb_json_root(copy), "job");
    if (mb_path_list(mb_jobs_text(job, "folder"), &names, &n) != MB_OK) {
        mb_status_clear(); /* not begun */
        n = 0;
    }
    MB_TRY_GOTO(mb_jobs_list(&doc, &data), st, done);
    for (size_t i = n; i-- > 0;) /* the latest first: the numbers have zeros in front */
        if (strncmp(names[i], "checkpoint-", 11) == 0 && isdigit((unsigned char)names[i][11]) &&
            strspn(names[i] + 11, "0123456789") == strlen(names[i] + 11))
            MB_TRY_GOTO(add_checkpoint(job, names[i], data), st, done);
    st = mb_jobs_list_end(mb_json_root(doc), data, false);
done:
    if (n > 0)
        mb_path_list_free(names, n);
    mb_json_free(copy);
    return mb_jobs_answer(q, st, doc);
}

/* ---- stopping and going on ---------------------------------------------------------------- */

/* With the lock. MB_EARG: not in this state. */
static mb_status stop(mb_jobs *j, mb_tuning *t)
{
    const mb_json job = mb_json_root(t->doc);
    const char *status = mb_jobs_text(job, "status");
    const bool waits = strcmp(status, "queued") == 0;

    MB_REQUIRE(waits || strcmp(status, "running") == 0, MB_EARG, "the job is %s already", status);
    if (waits) {
        MB_TRY(mb_json_set_string(job, "status", "cancelled"));
        MB_TRY(mb_json_set_int(job, "finished_at", (int64_t)time(NULL)));
    } else if (t->asked == 0) {
        t->asked = mb_clock();
        MB_TRY(mb_json_set_bool(job, "asked", true));
    }
    return mb_tuning_save(j, t);
}

static mb_status go_on(mb_jobs *j, mb_tuning *t)
{
    const mb_json job = mb_json_root(t->doc);
    const char *status = mb_jobs_text(job, "status");
    char path[MB_PATH_MAX];

    MB_REQUIRE(strcmp(status, "cancelled") == 0 || strcmp(status, "failed") == 0, MB_EARG,
               "the job is %s: only one that was stopped or has failed can go on", status);
    if (mb_run_checkpoint(mb_jobs_text(job, "folder"), path))
        MB_TRY(mb_json_set_bool(job, "resume", true));
    mb_json_remove(job, "error");
    mb_json_remove(job, "finished_at");
    MB_TRY(mb_json_set_string(job, "status", "queued"));
    return mb_tuning_save(j, t);
}

static mb_status change(void *arg, mb_http_request *q, mb_status (*how)(mb_jobs *, mb_tuning *))
{
    mb_jobs *j = mb_jobs_of(arg);
    mb_json_doc *doc = NULL;
    bool full;
    mb_status st = MB_OK;
    mb_tuning *t;

    pthread_mutex_lock(&j->lock);
    t = mb_tuning_find(j, mb_http_part(q, "id"));
    full = t != NULL && how == go_on && is_full(j);
    if (t != NULL && !full)
        st = how(j, t);
    if (t != NULL && !full && st == MB_OK)
        st = make_answer(t, &doc);
    pthread_cond_broadcast(&j->wake);
    pthread_mutex_unlock(&j->lock);
    MB_TRY(st);
    if (full)
        return refuse_full(q);
    return doc != NULL ? mb_jobs_answer(q, MB_OK, doc) : no_job(q);
}

static mb_status cancel(void *arg, mb_http_request *q)
{
    return change(arg, q, stop);
}

static mb_status resume(void *arg, mb_http_request *q)
{
    return change(arg, q, go_on);
}

#define JOBS "/v1/fine_tuning/jobs"

const mb_http_route mb_routes_tuning[] = {
    {.method = "POST",
     .path = JOBS,
     .handler = create,
     .body = MB_HTTP_WHOLE,
     .body_max = MB_JOBS_JSON},
    {.method = "GET", .path = JOBS, .handler = all},
    {.method = "GET", .path = JOBS "/{id}", .handler = one},
    {.method = "GET", .path = JOBS "/{id}/events", .handler = events},
    {.method = "GET", .path = JOBS "/{id}/checkpoints", .handler = checkpoints},
    {.method = "POST",
     .path = JOBS "/{id}/cancel",
     .handler = cancel,
     .body = MB_HTTP_WHOLE,
     .body_max = MB_JOBS_JSON},
    {.method = "POST",
     .path = JOBS "/{id}/resume",
     .handler = resume,
     .body = MB_HTTP_WHOLE,
     .body_max = MB_JOBS_JSON},
    {.method = "POST", /* OpenAI's word for stopping in a way that can go on, as all of ours do */
     .path = JOBS "/{id}/pause",
     .handler = cancel,
     .body = MB_HTTP_WHOLE,
     .body_max = MB_JOBS_JSON},
    {0},
};
