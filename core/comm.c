/* core/comm.c - the one-rank communicator, and agreement over any. */
#include "core/comm.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

static mb_status self_all_reduce(mb_comm *c, void *buf, int64_t n, mb_dtype d, mb_reduce op)
{
    (void)c, (void)buf, (void)n, (void)d, (void)op;
    return MB_OK;
}

static mb_status self_reduce_scatter(mb_comm *c, void *buf, const int64_t *at, mb_dtype d,
                                     void *work, size_t work_bytes)
{
    (void)c, (void)buf, (void)at, (void)d, (void)work, (void)work_bytes;
    return MB_OK;
}

static mb_status self_all_gather(mb_comm *c, void *buf, const int64_t *at, mb_dtype d)
{
    (void)c, (void)buf, (void)at, (void)d;
    return MB_OK;
}

static mb_status self_broadcast(mb_comm *c, void *buf, int64_t bytes, int root)
{
    (void)c, (void)buf, (void)bytes, (void)root;
    return MB_OK;
}

static mb_status self_send(mb_comm *c, const void *buf, int64_t bytes, int to)
{
    (void)c, (void)buf, (void)bytes;
    MB_BUG("one rank cannot send to rank %d", to);
}

static mb_status self_recv(mb_comm *c, void *buf, int64_t bytes, int from)
{
    (void)c, (void)buf, (void)bytes;
    MB_BUG("one rank cannot receive from rank %d", from);
}

static mb_status self_barrier(mb_comm *c)
{
    (void)c;
    return MB_OK;
}

static void self_free(mb_comm *c)
{
    if (c != mb_comm_self())
        mb_free(c);
}

static const mb_comm_ops self_ops = {
    .name = "self",
    .all_reduce = self_all_reduce,
    .reduce_scatter = self_reduce_scatter,
    .all_gather = self_all_gather,
    .broadcast = self_broadcast,
    .send = self_send,
    .recv = self_recv,
    .barrier = self_barrier,
    .free = self_free,
};

mb_comm *mb_comm_self(void)
{
    static mb_comm self = {.ops = &self_ops, .rank = 0, .size = 1};

    return &self;
}

mb_status mb_comm_one(mb_device *device, mb_comm **out)
{
    mb_comm *c = NULL;

    MB_TRY(MB_NEW(&c));
    *c = (mb_comm){.ops = &self_ops, .size = 1, .device = device, .host = mb_comm_self()};
    *out = c;
    return MB_OK;
}

mb_status mb_comm_on_paper(mb_device *device, int size, mb_comm **out)
{
    mb_comm *c = NULL;

    MB_TRY(MB_NEW(&c));
    *c = (mb_comm){.ops = &self_ops, .size = size, .device = device};
    *out = c;
    return MB_OK;
}

void mb_comm_free(mb_comm *c)
{
    if (c != NULL)
        c->ops->free(c);
}

static bool on_device(const mb_comm *c)
{
    return !mb_device_is_host(c->device);
}

bool mb_comm_queues(const mb_comm *c)
{
    return c->size > 1 && (on_device(c) || c->ops->before != NULL);
}

mb_status mb_comm_after(mb_comm *c, mb_stream s)
{
    return on_device(c) ? c->device->ops->after(c->device, MB_STREAM_COMM, s) : MB_OK;
}

mb_status mb_comm_before(mb_comm *c, mb_stream s)
{
    if (c->ops->before != NULL)
        return c->ops->before(c, s);
    return on_device(c) ? c->device->ops->after(c->device, s, MB_STREAM_COMM) : MB_OK;
}

mb_status mb_comm_wait(mb_comm *c, mb_stream s)
{
    if (c->ops->wait != NULL)
        return c->ops->wait(c, s);
    return on_device(c) ? c->device->ops->wait(c->device, s) : MB_OK;
}

mb_status mb_comm_group_begin(mb_comm *c)
{
    return c->ops->group_begin != NULL ? c->ops->group_begin(c) : MB_OK;
}

mb_status mb_comm_group_end(mb_comm *c)
{
    return c->ops->group_end != NULL ? c->ops->group_end(c) : MB_OK;
}

size_t mb_comm_work_bytes(const mb_comm *c, int64_t bytes)
{
    const int64_t most = (int64_t)4 << 20; /* per peer; larger gains nothing measurable */
    const int64_t one = bytes < most ? bytes : most;

    return c->size == 1 || on_device(c) ? 0 : (size_t)(one * c->size);
}

mb_status mb_comm_agree(mb_comm *c, mb_status st)
{
    /* The lowest failing rank wins, so that everybody repeats the same sentence. */
    int32_t first = st == MB_OK ? INT32_MAX : c->rank;
    struct {
        int32_t st;
        char sentence[1024];
    } what = {.st = (int32_t)st};

    c = mb_comm_host(c);
    if (c->size == 1)
        return st;
    mb_status mine = c->ops->all_reduce(c, &first, 1, MB_DTYPE_I32, MB_MIN);
    if (mine != MB_OK || first == INT32_MAX)
        return mine;
    snprintf(what.sentence, sizeof what.sentence, "%s", mb_status_sentence());
    mine = c->ops->broadcast(c, &what, sizeof what, first);
    if (mine != MB_OK)
        return mine;
    what.sentence[sizeof what.sentence - 1] = '\0';
    if (st == MB_OK) {
        char text[1100];
        snprintf(text, sizeof text, "rank %d: %s", (int)first, what.sentence);
        mb_status_set((mb_status)what.st, text);
    }
    return (mb_status)what.st;
}

mb_status mb_comm_broadcast_string(mb_comm *c, char **text, int root)
{
    int64_t n = c->rank == root ? (int64_t)strlen(*text) : 0;

    c = mb_comm_host(c);
    MB_TRY(c->ops->broadcast(c, &n, sizeof n, root));
    char *copy = NULL;
    mb_status st = c->rank != root ? mb_alloc((size_t)n + 1, "a string", (void **)&copy) : MB_OK;
    MB_TRY_GOTO(mb_comm_agree(c, st), st, failed);
    MB_TRY_GOTO(c->ops->broadcast(c, copy != NULL ? copy : *text, n, root), st, failed);
    if (copy != NULL)
        *text = copy;
    return MB_OK;
failed:
    mb_free(copy);
    return st;
}
