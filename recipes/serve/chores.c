/* recipes/serve/chores.c - questions that a child process answers: what a run would learn, what it
 * would take, a picture of a confusion matrix. One at a time, by a thread of their own. */
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "recipes/serve/jobs_inside.h"

enum { SECONDS = 300, ANSWER_MAX = 4 << 20 };

static void release(mb_chore *c)
{
    if (c->file != NULL)
        unlink(c->file);
    mb_free(c->file);
    mb_free(c->folder);
    mb_jobs_argv_free(c->words);
}

mb_status mb_jobs_ask(mb_jobs *j, mb_http_request *q, mb_chore c)
{
    bool full;
    mb_status st;

    pthread_mutex_lock(&j->lock);
    full = j->n_chores == MB_CHORES_MAX;
    st = full ? MB_OK : mb_http_later(q, &c.reply);
    if (!full && st == MB_OK) {
        j->chore[j->n_chores++] = c;
        pthread_cond_broadcast(&j->wake);
    }
    pthread_mutex_unlock(&j->lock);
    if (!full && st == MB_OK)
        return MB_OK;
    release(&c);
    MB_TRY(st);
    MB_TRY(mb_http_add(q, "Retry-After", "5"));
    return mb_http_refuse(q, 429, "busy", "other questions wait for an answer; try again soon");
}

/* The model of a run is served from now on, if it was not; its id. */
static mb_status serve(const mb_jobs *j, const char *folder, char **text, size_t *n)
{
    char path[MB_PATH_MAX], id[256];
    mb_json_doc *doc;
    mb_status st;

    MB_REQUIRE(mb_run_model(folder, path), MB_EARG, "%s holds no model yet", folder);
    MB_TRY(j->o.offer(j->o.arg, path, mb_path_base(folder), id, sizeof id));
    MB_TRY(mb_json_doc_new("model", &doc));
    st = mb_json_set_string(mb_json_root(doc), "id", id);
    if (st == MB_OK)
        st = mb_json_text(mb_json_root(doc), 0, text, n);
    mb_json_free(doc);
    return st;
}

static mb_status read_answer(const mb_jobs *j, const mb_chore *c, char **text, size_t *n)
{
    char *printed;

    if (c->folder != NULL)
        return serve(j, c->folder, text, n);
    MB_TRY(
        mb_child_ask((const char *const *)c->words, SECONDS, ANSWER_MAX, &j->ending, &printed, n));
    if (c->file == NULL) {
        *text = printed;
        return MB_OK;
    }
    mb_free(printed);
    return mb_file_read(c->file, ANSWER_MAX, text, n);
}

static void fail(mb_http_reply *r, mb_status st)
{
    const int status = st == MB_EIO || st == MB_EBUG || st == MB_ENOMEM ? 500 : 400;
    mb_json_doc *doc = NULL;
    mb_json error;
    char *text = NULL;
    size_t n = 0;

    if (mb_json_doc_new("error", &doc) != MB_OK ||
        mb_json_set_object(mb_json_root(doc), "error", &error) != MB_OK ||
        mb_json_set_string(error, "message", mb_status_sentence()) != MB_OK ||
        mb_json_set_string(error, "type",
                           status == 400 ? "invalid_request_error" : "server_error") != MB_OK ||
        mb_json_set_null(error, "param") != MB_OK || mb_json_set_null(error, "code") != MB_OK ||
        mb_json_text(mb_json_root(doc), 0, &text, &n) != MB_OK)
        n = 0;
    mb_http_reply_send(r, status, "application/json", text, text != NULL ? n : 0);
    mb_free(text);
    mb_json_free(doc);
    mb_status_clear();
}

static void do_chore(const mb_jobs *j, mb_chore *c)
{
    char *text = NULL;
    size_t n = 0;
    mb_status st;

    if (mb_http_reply_gone(c->reply)) {
        mb_http_reply_drop(c->reply);
    } else {
        st = read_answer(j, c, &text, &n);
        if (st == MB_OK)
            mb_http_reply_send(c->reply, 200, c->type, text, n);
        else
            fail(c->reply, st);
    }
    mb_free(text);
    release(c);
}

void *mb_jobs_ask_keep(void *jobs)
{
    mb_jobs *j = jobs;

    pthread_mutex_lock(&j->lock);
    while (!j->ending) {
        mb_chore c;

        if (j->n_chores == 0) {
            pthread_cond_wait(&j->wake, &j->lock);
            continue;
        }
        c = j->chore[0];
        memmove(j->chore, j->chore + 1, (size_t)--j->n_chores * sizeof c);
        pthread_mutex_unlock(&j->lock);
        do_chore(j, &c);
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

void mb_jobs_chores_drop(mb_jobs *j)
{
    for (int i = 0; i < j->n_chores; i++) {
        mb_http_reply_drop(j->chore[i].reply);
        release(&j->chore[i]);
    }
    j->n_chores = 0;
}
