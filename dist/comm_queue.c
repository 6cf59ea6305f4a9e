/* dist/comm_queue.c - see dist/comm_queue.h. */
#include "dist/comm_queue.h"

#include <errno.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/log.h"

enum { DEPTH = 256 };                        /* jobs that wait at most; who queues more waits */
enum { EAGER = 20, SOON = 50, LATER = 250 }; /* turns; microseconds between them, then and after */

typedef struct queued_comm {
    mb_comm base;
    struct queued_comm *next; /* of queue.live */
    mb_comm *inner;
} queued_comm;

enum what { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER };

struct job {
    enum what what;
    queued_comm *c;
    void *buf, *work;
    size_t work_bytes;
    int64_t n;
    mb_dtype dtype;
    mb_reduce op;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more, done; /* something was queued, or it ends; a job is over */
    pthread_t thread;
    queued_comm *live;
    struct job job[DEPTH];
    int64_t *at;      /* DEPTH times ranges */
    size_t at_room;   /* numbers there is room for */
    int64_t ranges;   /* numbers per job */
    int64_t n_queued; /* jobs so far ... */
    int64_t n_done;   /* ... and those that are over */
    bool ends, inside;
    mb_status failed;
    char sentence[1024];
    atomic_int waiting; /* threads that wait for jobs */
    atomic_bool halted;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER,
           .more = PTHREAD_COND_INITIALIZER,
           .done = PTHREAD_COND_INITIALIZER};

static _Thread_local bool here;

static queued_comm *of(mb_comm *c)
{
    return (queued_comm *)c;
}

/* ---- the thread --------------------------------------------------------------------------- */

bool mb_comm_queue_here(void)
{
    return here;
}

mb_status mb_comm_queue_turn(int64_t turn)
{
    const struct timespec pause = {.tv_nsec = 1000L * (turn < EAGER ? SOON : LATER)};

    if (atomic_load_explicit(&queue.halted, memory_order_relaxed))
        return MB_RAISE(MB_EPEER, "a collective was given up");
    if (atomic_load_explicit(&queue.waiting, memory_order_relaxed) > 0)
        sched_yield();
    else
        nanosleep(&pause, NULL);
    return MB_OK;
}

static mb_status run(const struct job *j, const int64_t *at)
{
    mb_comm *c = j->c->inner;

    switch (j->what) {
    case ALL_REDUCE:
        return c->ops->all_reduce(c, j->buf, j->n, j->dtype, j->op);
    case REDUCE_SCATTER:
        return c->ops->reduce_scatter(c, j->buf, at, j->dtype, j->work, j->work_bytes);
    case ALL_GATHER:
        return c->ops->all_gather(c, j->buf, at, j->dtype);
    }
    return MB_OK;
}

/* With the lock. */
static void note_failure(mb_status st, const char *sentence)
{
    if (queue.failed != MB_OK)
        return;
    queue.failed = st;
    snprintf(queue.sentence, sizeof queue.sentence, "%s", sentence);
}

static void *work_off(void *unused)
{
    here = true;
    omp_set_num_threads(1); /* the others compute */
    pthread_mutex_lock(&queue.lock);
    for (;;) {
        while (queue.n_done == queue.n_queued && !queue.ends)
            pthread_cond_wait(&queue.more, &queue.lock);
        if (queue.n_done == queue.n_queued)
            break;
        const int64_t slot = queue.n_done % DEPTH;
        if (queue.failed == MB_OK) {
            queue.inside = true;
            pthread_mutex_unlock(&queue.lock);
            const mb_status st = run(&queue.job[slot], queue.at + slot * queue.ranges);
            pthread_mutex_lock(&queue.lock);
            queue.inside = false;
            if (st != MB_OK)
                note_failure(st, mb_status_sentence());
        }
        queue.n_done++;
        pthread_cond_broadcast(&queue.done);
    }
    pthread_mutex_unlock(&queue.lock);
    return unused;
}

static mb_status start_thread(void)
{
    sigset_t all, had;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &had); /* signals are for the thread that computes */
    const int rc = pthread_create(&queue.thread, NULL, work_off, NULL);
    pthread_sigmask(SIG_SETMASK, &had, NULL);
    MB_REQUIRE(rc == 0, MB_ENOMEM, "no thread for collectives: %s", strerror(rc));
    return MB_OK;
}

static void stop_thread(void)
{
    pthread_mutex_lock(&queue.lock);
    queue.ends = true;
    pthread_cond_signal(&queue.more);
    pthread_mutex_unlock(&queue.lock);
    pthread_join(queue.thread, NULL);
    queue.ends = false;
    queue.failed = MB_OK;
    queue.n_queued = queue.n_done = 0;
    atomic_store(&queue.halted, false);
}

/* ---- the other side ----------------------------------------------------------------------- */

static mb_status outcome(void)
{
    return queue.failed == MB_OK ? MB_OK : MB_RAISE(queue.failed, "%s", queue.sentence);
}

/* With the lock: until `n` jobs are over. */
static void wait_until(int64_t n)
{
    atomic_fetch_add(&queue.waiting, 1);
    while (queue.n_done < n)
        pthread_cond_wait(&queue.done, &queue.lock);
    atomic_fetch_sub(&queue.waiting, 1);
}

mb_status mb_comm_queue_idle(void)
{
    if (here || queue.live == NULL)
        return MB_OK;
    pthread_mutex_lock(&queue.lock);
    wait_until(queue.n_queued);
    const mb_status st = outcome();
    for (queued_comm *c = queue.live; c != NULL; c = c->next)
        c->base.bytes_sent = c->inner->bytes_sent;
    pthread_mutex_unlock(&queue.lock);
    return st;
}

void mb_comm_queue_halt(void)
{
    struct timespec until;

    pthread_mutex_lock(&queue.lock);
    note_failure(MB_EPEER, "collectives were given up");
    atomic_store(&queue.halted, true);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 300000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (queue.inside && pthread_cond_timedwait(&queue.done, &queue.lock, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&queue.lock);
}

static mb_status put(const struct job *j, const int64_t *at)
{
    pthread_mutex_lock(&queue.lock);
    wait_until(queue.n_queued - DEPTH + 1);
    const mb_status st = outcome();
    if (st == MB_OK) {
        const int64_t slot = queue.n_queued % DEPTH;
        queue.job[slot] = *j;
        if (at != NULL)
            memcpy(queue.at + slot * queue.ranges, at, sizeof *at * (size_t)(j->c->base.size + 1));
        queue.n_queued++;
        pthread_cond_signal(&queue.more);
    }
    pthread_mutex_unlock(&queue.lock);
    return st;
}

static mb_status all_reduce(mb_comm *base, void *buf, int64_t n, mb_dtype d, mb_reduce op)
{
    return put(
        &(struct job){.what = ALL_REDUCE, .c = of(base), .buf = buf, .n = n, .dtype = d, .op = op},
        NULL);
}

static mb_status reduce_scatter(mb_comm *base, void *buf, const int64_t *at, mb_dtype d, void *work,
                                size_t work_bytes)
{
    return put(&(struct job){.what = REDUCE_SCATTER,
                             .c = of(base),
                             .buf = buf,
                             .dtype = d,
                             .work = work,
                             .work_bytes = work_bytes},
               at);
}

static mb_status all_gather(mb_comm *base, void *buf, const int64_t *at, mb_dtype d)
{
    return put(&(struct job){.what = ALL_GATHER, .c = of(base), .buf = buf, .dtype = d}, at);
}

/* The rest is not for the middle of a step: it is done at once, when nothing is queued. */
static mb_status broadcast(mb_comm *base, void *buf, int64_t bytes, int root)
{
    mb_comm *c = of(base)->inner;

    MB_TRY(mb_comm_queue_idle());
    return c->ops->broadcast(c, buf, bytes, root);
}

static mb_status send_to(mb_comm *base, const void *buf, int64_t bytes, int to)
{
    mb_comm *c = of(base)->inner;

    MB_TRY(mb_comm_queue_idle());
    return c->ops->send(c, buf, bytes, to);
}

static mb_status recv_from(mb_comm *base, void *buf, int64_t bytes, int from)
{
    mb_comm *c = of(base)->inner;

    MB_TRY(mb_comm_queue_idle());
    return c->ops->recv(c, buf, bytes, from);
}

static mb_status barrier(mb_comm *base)
{
    mb_comm *c = of(base)->inner;

    MB_TRY(mb_comm_queue_idle());
    return c->ops->barrier(c);
}

static mb_status wait_for(mb_comm *base, mb_stream s)
{
    (void)base, (void)s;
    return mb_comm_queue_idle();
}

static void comm_free(mb_comm *base)
{
    queued_comm *c = of(base);
    const bool failing = mb_status_recorded() != MB_OK;

    if (failing) /* the others may be elsewhere */
        mb_comm_queue_halt();
    if (mb_comm_queue_idle() != MB_OK && !failing) {
        mb_log_warn("%s", mb_status_sentence());
        mb_status_clear();
    }
    for (queued_comm **at = &queue.live; *at != NULL; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    if (queue.live == NULL) {
        stop_thread();
        mb_free(queue.at);
        queue.at = NULL;
        queue.at_room = 0;
        queue.ranges = 0;
    }
    mb_comm_free(c->inner);
    mb_free(c);
}

static const mb_comm_ops queue_ops = {
    .name = "queue",
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .send = send_to,
    .recv = recv_from,
    .barrier = barrier,
    .wait = wait_for,
    .before = wait_for,
    .free = comm_free,
};

mb_status mb_comm_queue_new(mb_comm *inner, mb_comm *host, const char *name, mb_comm **out)
{
    queued_comm *c = NULL;
    const int64_t ranges = inner->size + 1;
    mb_status st = mb_comm_queue_idle();

    if (st == MB_OK)
        st = MB_NEW(&c);
    if (st == MB_OK && ranges > queue.ranges)
        st = mb_grow((void **)&queue.at, &queue.at_room, (size_t)(DEPTH * ranges), sizeof *queue.at,
                     "the ranges of queued collectives");
    if (st == MB_OK && ranges > queue.ranges)
        queue.ranges = ranges;
    if (st == MB_OK && queue.live == NULL)
        st = start_thread();
    if (st != MB_OK) {
        mb_free(c);
        mb_comm_free(inner);
        return st;
    }
    c->base = (mb_comm){.ops = &queue_ops,
                        .rank = inner->rank,
                        .size = inner->size,
                        .host = host,
                        .name = name,
                        .wire = inner->wire};
    c->inner = inner;
    c->next = queue.live;
    queue.live = c;
    *out = &c->base;
    return MB_OK;
}
