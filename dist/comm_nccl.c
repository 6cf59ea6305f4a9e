/* dist/comm_nccl.c - see dist/comm_nccl.h. */
#include "dist/comm_nccl.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "dist/comm_mpi.h"
#include "dist/nccl_abi.h"

/* ---- the library ---------------------------------------------------------------------------- */

#define MEMBER(name, parameters) mb_nccl_result(*name) parameters;
static struct {
    MB_NCCL_FUNCTIONS(MEMBER)
    const char *(*GetErrorString)(mb_nccl_result r);
    const char *(*GetLastError)(mb_nccl_comm *comm);
    int version;
} nccl;
#undef MEMBER

static mb_status find(void *library, const char *path, const char *name, void *out)
{
    void *f = dlsym(library, name);

    MB_REQUIRE(f != NULL, MB_ENOTSUP, "%s is not an NCCL that mbuyu can use: it has no %s", path,
               name);
    memcpy(out, &f, sizeof f); /* ISO C has no cast from data to functions */
    return MB_OK;
}

static void version_text(int version, char *text, size_t size)
{
    const int major = version < 10000 ? version / 1000 : version / 10000; /* up to 2.8: 2708 */

    snprintf(text, size, "%d.%d.%d", major, version / 100 % (version < 10000 ? 10 : 100),
             version % 100);
}

/* Once per process: a library that was found stays. */
static mb_status load(void)
{
    const char *named = getenv("MBUYU_NCCL_LIBRARY");
    const char *path = named != NULL && named[0] != '\0' ? named : "libnccl.so.2";
    void *library;

    if (nccl.version != 0)
        return MB_OK;
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    MB_REQUIRE(library != NULL, MB_ENOTSUP,
               "several GPUs need NCCL, which cannot be loaded: %s (MBUYU_NCCL_LIBRARY names its "
               "file)",
               dlerror());
#define FIND(name, parameters) MB_TRY(find(library, path, "nccl" #name, &nccl.name));
    MB_NCCL_FUNCTIONS(FIND)
#undef FIND
    MB_TRY(find(library, path, "ncclGetErrorString", &nccl.GetErrorString));
    MB_TRY(find(library, path, "ncclGetLastError", &nccl.GetLastError));

    int version = 0;
    MB_REQUIRE(nccl.GetVersion(&version) == MB_NCCL_SUCCESS, MB_ENOTSUP,
               "%s does not tell its version", path);
    char text[32];
    version_text(version, text, sizeof text);
    MB_REQUIRE(version >= MB_NCCL_VERSION_MIN && version < 30000, MB_ENOTSUP,
               "%s is NCCL %s; mbuyu needs 2.18 or a later 2", path, text);
    nccl.version = version;
    return MB_OK;
}

void mb_nccl_probe(char *text, size_t size)
{
    char version[32];

    if (load() == MB_OK) {
        version_text(nccl.version, version, sizeof version);
        snprintf(text, size, "NCCL %s", version);
        return;
    }
    snprintf(text, size, "%s", mb_status_sentence());
    mb_status_clear();
}

/* ---- one communicator ------------------------------------------------------------------------ */

typedef struct nccl_comm {
    mb_comm base;
    struct nccl_comm *next; /* of `live` */
    mb_nccl_comm *comm;     /* NULL once given up */
    double timeout;
    bool grouping;
    int64_t queued, done; /* collectives so far; those the host has seen the end of */
    char last[96];        /* the newest: "reduce_scatter of 4096 F32" */
    char why[640];        /* why it was given up; "" while it is of use */
} nccl_comm;

/* Those of this process: inner and outer ones share a stream, so they wait, and fall, together. */
static nccl_comm *live;

static nccl_comm *of(mb_comm *c)
{
    return (nccl_comm *)c;
}

/* What the ranks may be stuck in, for a sentence. */
static void describe(const nccl_comm *c, char *text, size_t size)
{
    if (c->queued == c->done)
        snprintf(text, size, "after %lld collectives", (long long)c->done);
    else if (c->queued == c->done + 1)
        snprintf(text, size, "in collective %lld, %s", (long long)c->queued, c->last);
    else
        snprintf(text, size, "in collectives %lld to %lld, the last of them %s",
                 (long long)c->done + 1, (long long)c->queued, c->last);
}

static mb_status gone(const nccl_comm *c)
{
    return MB_RAISE(MB_EPEER, "%s", c->why);
}

/* Aborts c and all that share its stream, because `what` happened in c. What was queued ends without
 * a useful result. */
static mb_status give_up(nccl_comm *c, const char *what)
{
    char where[192];

    if (c->why[0] != '\0')
        return gone(c);
    describe(c, where, sizeof where);
    snprintf(c->why, sizeof c->why, "NCCL communicator \"%s\", rank %d of %d, %s: %s", c->base.name,
             c->base.rank, c->base.size, where, what);
    for (nccl_comm *other = live; other != NULL; other = other->next) {
        if (other->base.device != c->base.device)
            continue;
        if (other->comm != NULL)
            nccl.CommAbort(other->comm);
        other->comm = NULL;
        if (other != c && other->why[0] == '\0')
            snprintf(other->why, sizeof other->why, "%s", c->why);
    }
    return gone(c);
}

static mb_status failed(nccl_comm *c, mb_nccl_result r, const char *call)
{
    char what[400];
    const char *more = nccl.GetLastError(c->comm);
    const bool has_more = more != NULL && more[0] != '\0';

    snprintf(what, sizeof what, "%s failed: %s%s%s", call, nccl.GetErrorString(r),
             has_more ? ": " : "", has_more ? more : "");
    return give_up(c, what);
}

/* A turn of waiting: short ones first, the waits of a step are often microseconds. */
static void pause_turn(int64_t turn)
{
    if (turn < 2000)
        sched_yield();
    else
        usleep(turn < 20000 ? 20 : 200);
}

static mb_status late(nccl_comm *c, double since, const char *what)
{
    char text[256];
    const double waited = mb_clock() - since;

    if (c->timeout <= 0 || waited < c->timeout)
        return MB_OK;
    snprintf(text, sizeof text,
             "%s was not done after %.1f seconds; another rank is lost, stuck or on another path",
             what, waited);
    return give_up(c, text);
}

/* The communicator does not block: NCCL may still be at work on `call` when it returns. */
static mb_status settle(nccl_comm *c, mb_nccl_result r, const char *call)
{
    const double since = mb_clock();

    for (int64_t turn = 0; r == MB_NCCL_IN_PROGRESS; turn++) {
        const mb_nccl_result asked = nccl.CommGetAsyncError(c->comm, &r);
        if (asked != MB_NCCL_SUCCESS)
            return failed(c, asked, "ncclCommGetAsyncError");
        if (r != MB_NCCL_IN_PROGRESS)
            break;
        MB_TRY(late(c, since, call));
        pause_turn(turn);
    }
    return r == MB_NCCL_SUCCESS ? MB_OK : failed(c, r, call);
}

/* A call that queues; inside a group nothing happens before its end. */
static mb_status check(nccl_comm *c, mb_nccl_result r, const char *call)
{
    if (r == MB_NCCL_SUCCESS || (r == MB_NCCL_IN_PROGRESS && c->grouping))
        return MB_OK;
    return settle(c, r, call);
}

#define CALL(c, name, ...) check((c), nccl.name(__VA_ARGS__), "nccl" #name)

/* Before each collective: is the communicator alive, and what goes into messages. */
static mb_status start(nccl_comm *c, const char *what, int64_t n, mb_dtype d)
{
    if (c->comm == NULL)
        return gone(c);
    c->queued++;
    snprintf(c->last, sizeof c->last, "%s of %lld %s", what, (long long)n, mb_dtype_name(d));
    return MB_OK;
}

static void *stream_of(const nccl_comm *c)
{
    return c->base.device->native[MB_STREAM_COMM];
}

static mb_status type_of(mb_dtype d, mb_nccl_type *out)
{
    static const struct {
        mb_dtype dtype;
        mb_nccl_type type;
    } types[] = {{MB_DTYPE_F32, MB_NCCL_F32},  {MB_DTYPE_F64, MB_NCCL_F64},
                 {MB_DTYPE_I32, MB_NCCL_I32},  {MB_DTYPE_I64, MB_NCCL_I64},
                 {MB_DTYPE_U8, MB_NCCL_U8},    {MB_DTYPE_F16, MB_NCCL_F16},
                 {MB_DTYPE_BF16, MB_NCCL_BF16}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == d) {
            *out = types[i].type;
            return MB_OK;
        }
    return MB_RAISE(MB_EBUG, "communicator: %s values cannot be reduced", mb_dtype_name(d));
}

/* ---- the interface --------------------------------------------------------------------------- */

static mb_status all_reduce(mb_comm *base, void *buf, int64_t n, mb_dtype d, mb_reduce op)
{
    static const mb_nccl_op ops[] = {
        [MB_SUM] = MB_NCCL_SUM, [MB_MAX] = MB_NCCL_MAX, [MB_MIN] = MB_NCCL_MIN};
    nccl_comm *c = of(base);
    mb_nccl_type type = MB_NCCL_U8;

    if (n == 0)
        return MB_OK;
    MB_TRY(type_of(d, &type));
    MB_TRY(start(c, "all_reduce", n, d));
    base->bytes_sent += mb_comm_mpi_all_reduce_bytes(base, n, d);
    return CALL(c, AllReduce, buf, buf, (size_t)n, type, ops[op], c->comm, stream_of(c));
}

static mb_status group_begin(mb_comm *base)
{
    nccl_comm *c = of(base);

    MB_REQUIRE(!c->grouping, MB_EBUG, "communicator: a group inside a group");
    if (c->comm == NULL)
        return gone(c);
    MB_TRY(CALL(c, GroupStart));
    c->grouping = true;
    return MB_OK;
}

static mb_status group_end(mb_comm *base)
{
    nccl_comm *c = of(base);

    if (!c->grouping) /* also where begin failed */
        return c->comm == NULL ? gone(c) : MB_RAISE(MB_EBUG, "communicator: the end of no group");
    c->grouping = false;
    const mb_nccl_result r = nccl.GroupEnd(); /* always: NCCL counts them for the whole thread */
    return c->comm == NULL ? gone(c) : check(c, r, "ncclGroupEnd");
}

static bool equal_ranges(const int64_t *at, int size)
{
    for (int r = 1; r < size; r++)
        if (at[r + 1] - at[r] != at[1] - at[0])
            return false;
    return true;
}

/* Each range that is not empty is reduced to its owner, or broadcast from it (as bytes: nothing is
 * added), all queued as one. */
static mb_status over_ranges(nccl_comm *c, char *buf, const int64_t *at, int64_t el, bool reduce,
                             mb_nccl_type type)
{
    const bool own_group = !c->grouping;
    mb_status st = MB_OK;

    if (own_group)
        MB_TRY(group_begin(&c->base));
    for (int r = 0; r < c->base.size && st == MB_OK; r++) {
        const size_t n = (size_t)(at[r + 1] - at[r]);
        char *p = buf + at[r] * el;
        if (n > 0 && reduce)
            st = CALL(c, Reduce, p, p, n, type, MB_NCCL_SUM, r, c->comm, stream_of(c));
        else if (n > 0)
            st = CALL(c, Broadcast, p, p, n * (size_t)el, MB_NCCL_U8, r, c->comm, stream_of(c));
    }
    if (own_group) {
        const mb_status ended = group_end(&c->base);
        st = st != MB_OK ? st : ended;
    }
    return st;
}

static mb_status reduce_scatter(mb_comm *base, void *buf, const int64_t *at, mb_dtype d, void *work,
                                size_t work_bytes)
{
    nccl_comm *c = of(base);
    const int size = base->size, me = base->rank;
    const int64_t el = mb_dtype_bytes(d, 1), n = at[size] - at[0], mine = at[me + 1] - at[me];
    char *p = buf;
    mb_nccl_type type = MB_NCCL_U8;

    if (n == 0)
        return MB_OK;
    MB_TRY(type_of(d, &type));
    MB_TRY(start(c, "reduce_scatter", n, d));
    base->bytes_sent += el * (n - mine);
    if (!equal_ranges(at, size))
        return over_ranges(c, p, at, el, true, type);
    return CALL(c, ReduceScatter, p + at[0] * el, p + at[me] * el, (size_t)mine, type, MB_NCCL_SUM,
                c->comm, stream_of(c));
}

static mb_status all_gather(mb_comm *base, void *buf, const int64_t *at, mb_dtype d)
{
    nccl_comm *c = of(base);
    const int size = base->size, me = base->rank, right = (me + 1) % size;
    const int64_t el = mb_dtype_bytes(d, 1), n = at[size] - at[0], mine = at[me + 1] - at[me];
    char *p = buf;

    if (n == 0)
        return MB_OK;
    MB_TRY(start(c, "all_gather", n, d));
    base->bytes_sent += el * (n - (at[right + 1] - at[right]));
    if (!equal_ranges(at, size))
        return over_ranges(c, p, at, el, false, MB_NCCL_U8);
    return CALL(c, AllGather, p + at[me] * el, p + at[0] * el, (size_t)(mine * el), MB_NCCL_U8,
                c->comm, stream_of(c));
}

static mb_status broadcast(mb_comm *base, void *buf, int64_t bytes, int root)
{
    nccl_comm *c = of(base);

    if (bytes == 0)
        return MB_OK;
    MB_TRY(start(c, "broadcast", bytes, MB_DTYPE_U8));
    if (base->rank == root)
        base->bytes_sent += bytes * (base->size - 1);
    return CALL(c, Broadcast, buf, buf, (size_t)bytes, MB_NCCL_U8, root, c->comm, stream_of(c));
}

static mb_status send_to(mb_comm *base, const void *buf, int64_t bytes, int to)
{
    nccl_comm *c = of(base);

    if (bytes == 0)
        return MB_OK;
    MB_TRY(start(c, "send", bytes, MB_DTYPE_U8));
    base->bytes_sent += bytes;
    return CALL(c, Send, buf, (size_t)bytes, MB_NCCL_U8, to, c->comm, stream_of(c));
}

static mb_status recv_from(mb_comm *base, void *buf, int64_t bytes, int from)
{
    nccl_comm *c = of(base);

    if (bytes == 0)
        return MB_OK;
    MB_TRY(start(c, "recv", bytes, MB_DTYPE_U8));
    return CALL(c, Recv, buf, (size_t)bytes, MB_NCCL_U8, from, c->comm, stream_of(c));
}

/* What NCCL noticed by itself, in any communicator that shares the stream. */
static mb_status listen(nccl_comm *c)
{
    for (nccl_comm *other = live; other != NULL; other = other->next) {
        mb_nccl_result r = MB_NCCL_SUCCESS;
        if (other->base.device != c->base.device || other->comm == NULL)
            continue;
        const mb_nccl_result asked = nccl.CommGetAsyncError(other->comm, &r);
        if (asked != MB_NCCL_SUCCESS)
            return failed(other, asked, "ncclCommGetAsyncError");
        if (r != MB_NCCL_SUCCESS && r != MB_NCCL_IN_PROGRESS)
            return failed(other, r, "a collective");
    }
    return MB_OK;
}

/* Whose limit ran out: c, unless only another one has something queued. */
static nccl_comm *pending(nccl_comm *c)
{
    if (c->queued > c->done)
        return c;
    for (nccl_comm *other = live; other != NULL; other = other->next)
        if (other->base.device == c->base.device && other->queued > other->done)
            return other;
    return c;
}

static mb_status wait_for(mb_comm *base, mb_stream s)
{
    nccl_comm *c = of(base);
    mb_device *device = base->device;
    const double since = mb_clock();
    bool ready = false;

    MB_REQUIRE(!c->grouping, MB_EBUG, "communicator: a wait inside a group");
    for (int64_t turn = 0; !ready; turn++) {
        if (c->comm == NULL)
            return gone(c);
        MB_TRY(device->ops->ready(device, s, &ready));
        MB_TRY(listen(c));
        if (!ready) {
            MB_TRY(late(pending(c), since, "what the host waits for"));
            pause_turn(turn);
        }
    }
    for (nccl_comm *other = live; other != NULL && s == MB_STREAM_COMM; other = other->next)
        if (other->base.device == device)
            other->done = other->queued;
    return MB_OK;
}

static mb_status barrier(mb_comm *base)
{
    MB_TRY(wait_for(base, MB_STREAM_COMM));
    return base->host->ops->barrier(base->host);
}

/* What is queued is done first; ranks that are lost cost the limit once. */
static mb_status shut(nccl_comm *c)
{
    MB_TRY(wait_for(&c->base, MB_STREAM_COMM));
    MB_TRY(CALL(c, CommFinalize, c->comm));
    mb_nccl_comm *comm = c->comm;
    c->comm = NULL;
    const mb_nccl_result r = nccl.CommDestroy(comm);
    return r == MB_NCCL_SUCCESS ? MB_OK : failed(c, r, "ncclCommDestroy");
}

static void comm_free(mb_comm *base)
{
    nccl_comm *c = of(base);
    const bool failing = mb_status_recorded() != MB_OK;

    if (c->comm != NULL && shut(c) != MB_OK && !failing) {
        mb_log_warn("%s", mb_status_sentence());
        mb_status_clear();
    }
    for (nccl_comm **at = &live; *at != NULL; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    mb_free(c);
}

static const mb_comm_ops nccl_ops = {
    .name = "nccl",
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .send = send_to,
    .recv = recv_from,
    .barrier = barrier,
    .group_begin = group_begin,
    .group_end = group_end,
    .wait = wait_for,
    .free = comm_free,
};

/* ---- starting ---------------------------------------------------------------------------------*/

/* All ranks have a library, and the same one. */
static mb_status load_all(mb_comm *host)
{
    char least_text[32], most_text[32];

    MB_TRY(mb_comm_agree(host, load()));
    int32_t least = nccl.version, most = nccl.version;
    MB_TRY(host->ops->all_reduce(host, &least, 1, MB_DTYPE_I32, MB_MIN));
    MB_TRY(host->ops->all_reduce(host, &most, 1, MB_DTYPE_I32, MB_MAX));
    version_text(least, least_text, sizeof least_text);
    version_text(most, most_text, sizeof most_text);
    MB_REQUIRE(least == most, MB_ENOTSUP,
               "the ranks have different versions of NCCL, from %s to %s; MBUYU_NCCL_LIBRARY names "
               "the one to use",
               least_text, most_text);
    return MB_OK;
}

static mb_status make_id(mb_comm *host, mb_nccl_id *id)
{
    mb_status st = MB_OK;

    if (host->rank == 0) {
        const mb_nccl_result r = nccl.GetUniqueId(id);
        if (r != MB_NCCL_SUCCESS)
            st = MB_RAISE(MB_EPEER, "ncclGetUniqueId failed: %s: %s", nccl.GetErrorString(r),
                          nccl.GetLastError(NULL));
    }
    MB_TRY(mb_comm_agree(host, st));
    return host->ops->broadcast(host, id, sizeof *id, 0);
}

static mb_status join(nccl_comm *c, mb_nccl_id id)
{
    mb_nccl_config config = MB_NCCL_CONFIG;

    config.blocking = 0;
    return CALL(c, CommInitRankConfig, &c->comm, c->base.size, id, c->base.rank, &config);
}

mb_status mb_comm_nccl_new(mb_comm *host, mb_device *device, double timeout, const char *name,
                           mb_comm **out)
{
    nccl_comm *c = NULL;
    mb_nccl_id id = {{0}};

    if (host->size == 1) {
        MB_TRY(mb_comm_one(device, out));
        (*out)->name = name;
        return MB_OK;
    }
    MB_TRY(load_all(host));
    MB_TRY(make_id(host, &id));
    mb_status st = mb_comm_agree(host, MB_NEW(&c));
    if (st != MB_OK) {
        mb_free(c);
        return st;
    }
    c->base = (mb_comm){.ops = &nccl_ops,
                        .rank = host->rank,
                        .size = host->size,
                        .device = device,
                        .host = host,
                        .name = name};
    c->timeout = timeout;
    c->next = live;
    live = c;
    st = mb_comm_agree(host, join(c, id));
    if (st != MB_OK) {
        if (c->comm != NULL)
            (void)give_up(c, "another rank could not join");
        comm_free(&c->base);
        return st;
    }
    *out = &c->base;
    return MB_OK;
}
