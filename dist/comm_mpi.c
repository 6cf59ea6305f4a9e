/* dist/comm_mpi.c - see dist/comm_mpi.h. */
#include "dist/comm_mpi.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/strip.h"
#include "dist/comm_queue.h"

enum { CUT = 1 << 28 };           /* bytes of one MPI message at most: counts stay below 2^31 */
enum { PARALLEL_FROM = 1 << 16 }; /* elements worth a parallel loop */
enum { STRIP = 1024 };            /* elements that are added up before the next are looked at */

typedef struct mpi_comm {
    mb_comm base;
    MPI_Comm comm;
    MPI_Request *request;
    int64_t *at; /* size + 1: ranges of a large all_reduce */
    char *stage; /* MB_COMM_SMALL * size */
    /* Nodes, and their ranks in order; a rank's place among those of its node. */
    int n_nodes, my_node;
    int *node;       /* size: of a rank */
    int *member;     /* size: ranks, node by node */
    int *first;      /* n_nodes + 1: where a node's start */
    int *place;      /* size */
    int most_pieces; /* staging of a reduce_scatter in pieces, on the rank that needs most */
} mpi_comm;

static char library_text[MPI_MAX_LIBRARY_VERSION_STRING];
static bool may_queue;

static mpi_comm *of(mb_comm *c)
{
    return (mpi_comm *)c;
}

static mb_status check(int rc, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;

    if (rc == MPI_SUCCESS)
        return MB_OK;
    MPI_Error_string(rc, text, &n);
    return MB_RAISE(MB_EPEER, "%s failed: %s", call, text);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* All of c->request[0..n). Behind the computing MPI is asked in turns; it would spin. */
static mb_status wait_all(mpi_comm *c, int n)
{
    int done = 0;

    if (!mb_comm_queue_here())
        return check(MPI_Waitall(n, c->request, MPI_STATUSES_IGNORE), "MPI_Waitall");
    for (int64_t turn = 0;; turn++) {
        MB_TRY(check(MPI_Testall(n, c->request, &done, MPI_STATUSES_IGNORE), "MPI_Testall"));
        if (done)
            return MB_OK;
        MB_TRY(mb_comm_queue_turn(turn));
    }
}

/* ---- sums --------------------------------------------------------------------------------- */

/* y[i] = y[i] op x[i] for one type. The first NaN stays: `>` and `<` are false for it. */
#define FOLD(name, T)                                                              \
    static void name(T *restrict y, const T *restrict x, int64_t n, mb_reduce op)  \
    {                                                                              \
        if (op == MB_SUM) {                                                        \
            for (int64_t i = 0; i < n; i++)                                        \
                y[i] = (T)(y[i] + x[i]);                                           \
        } else {                                                                   \
            for (int64_t i = 0; i < n; i++)                                        \
                if ((op == MB_MAX ? x[i] > y[i] : x[i] < y[i]) || !(x[i] == x[i])) \
                    y[i] = x[i];                                                   \
        }                                                                          \
    }
FOLD(fold_f32, float)
FOLD(fold_f64, double)
FOLD(fold_i32, int32_t)
FOLD(fold_i64, int64_t)
FOLD(fold_u8, uint8_t)

static void fold(void *y, const void *x, int64_t n, mb_dtype d, mb_reduce op)
{
    switch (d) {
    case MB_DTYPE_F32:
        fold_f32(y, x, n, op);
        return;
    case MB_DTYPE_F64:
        fold_f64(y, x, n, op);
        return;
    case MB_DTYPE_I32:
        fold_i32(y, x, n, op);
        return;
    case MB_DTYPE_I64:
        fold_i64(y, x, n, op);
        return;
    default:
        fold_u8(y, x, n, op);
        return;
    }
}

static mb_status can_be_reduced(mb_dtype d)
{
    MB_REQUIRE(d == MB_DTYPE_F32 || d == MB_DTYPE_F64 || d == MB_DTYPE_I32 || d == MB_DTYPE_I64 ||
                   d == MB_DTYPE_U8,
               MB_EBUG, "communicator: %s values cannot be reduced", mb_dtype_name(d));
    return MB_OK;
}

/* Contributions to one range: that of `mine` is in its place, the others' in slots of staging, as
 * values of d or, `wire`, of what those travel as. */
struct parts {
    char *own;
    const char *slot;
    int64_t slot_bytes;
    int n, mine;
    mb_dtype d, wire;
    mb_reduce op;
};

/* Elements [from, from + n) of part i, n <= STRIP. */
static const void *part(const struct parts *p, int i, int64_t from, int64_t n, float *wide)
{
    if (i == p->mine)
        return p->own + mb_dtype_bytes(p->d, from);
    const char *x = p->slot + p->slot_bytes * i + mb_dtype_bytes(p->wire, from);
    if (p->wire == p->d)
        return x;
    mb_cpu_widen(wide, x, p->wire, n);
    return wide;
}

/* own becomes ((part 0 + part 1) + part 2) + ..., whoever's they are. */
static void add_up(const struct parts *p, int64_t n)
{
    const int64_t strips = (n + STRIP - 1) / STRIP;

#pragma omp parallel for if (n >= PARALLEL_FROM)
    for (int64_t s = 0; s < strips; s++) {
        const int64_t from = s * STRIP, count = least(STRIP, n - from);
        union {
            float f32[STRIP];
            double f64[STRIP];
            int64_t i64[STRIP];
        } sum;
        float wide[STRIP];
        memcpy(&sum, part(p, 0, from, count, wide), (size_t)mb_dtype_bytes(p->d, count));
        for (int i = 1; i < p->n; i++)
            fold(&sum, part(p, i, from, count, wide), count, p->d, p->op);
        memcpy(p->own + mb_dtype_bytes(p->d, from), &sum, (size_t)mb_dtype_bytes(p->d, count));
    }
}

/* n floats become values of 16 bits, in the first half of their place. */
static void narrow_in_place(char *at, mb_dtype to, int64_t n)
{
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t count = least(STRIP, n - from);
        uint16_t half[STRIP];
        mb_cpu_narrow(half, to, (const float *)at + from, count);
        memcpy(at + 2 * from, half, 2 * (size_t)count);
    }
}

/* ---- reduce_scatter ----------------------------------------------------------------------- */

/* Who on node n collects that node's contributions to rank r's range. */
static int collector(const mpi_comm *c, int n, int r)
{
    return c->member[c->first[n] + c->place[r] % (c->first[n + 1] - c->first[n])];
}

/* One round: elements [from, from + chunk) of every range. */
struct round {
    mpi_comm *c;
    char *buf, *work;
    const int64_t *at;
    int64_t from, chunk;
    mb_dtype d, wire;
    mb_reduce op;
    int n_requests;
};

static int64_t count_of(const struct round *x, int r)
{
    const int64_t n = least(x->chunk, x->at[r + 1] - x->at[r] - x->from);

    return n > 0 ? n : 0;
}

static char *place_of(const struct round *x, int r)
{
    return x->buf + mb_dtype_bytes(x->d, x->at[r] + x->from);
}

static mb_status post_send(struct round *x, int r, int to)
{
    const int64_t n = count_of(x, r), bytes = mb_dtype_bytes(x->wire, n);

    if (n == 0)
        return MB_OK;
    if (x->wire != x->d)
        narrow_in_place(place_of(x, r), x->wire, n);
    x->c->base.bytes_sent += bytes;
    return check(MPI_Isend(place_of(x, r), (int)bytes, MPI_BYTE, to, 1, x->c->comm,
                           &x->c->request[x->n_requests++]),
                 "MPI_Isend");
}

static int64_t slot_bytes(const struct round *x)
{
    return mb_dtype_bytes(x->wire, x->chunk);
}

static mb_status post_recv(struct round *x, int r, int from, int slot)
{
    const int64_t n = count_of(x, r);

    if (n == 0)
        return MB_OK;
    return check(MPI_Irecv(x->work + slot_bytes(x) * slot, (int)mb_dtype_bytes(x->wire, n),
                           MPI_BYTE, from, 1, x->c->comm, &x->c->request[x->n_requests++]),
                 "MPI_Irecv");
}

static void add_parts(const struct round *x, int r, int slot, int n, int mine)
{
    const struct parts p = {.own = place_of(x, r),
                            .slot = x->work + slot_bytes(x) * slot,
                            .slot_bytes = slot_bytes(x),
                            .n = n,
                            .mine = mine,
                            .d = x->d,
                            .wire = x->wire,
                            .op = x->op};

    if (n > 1)
        add_up(&p, count_of(x, r));
}

/* Inside the node: of every range, the node's sum goes to its collector there. */
static mb_status inside_node(struct round *x)
{
    mpi_comm *c = x->c;
    const int *mate = c->member + c->first[c->my_node];
    const int n = c->first[c->my_node + 1] - c->first[c->my_node], me = c->base.rank,
              size = c->base.size, my_place = c->place[me];
    int collected = 0;

    x->n_requests = 0;
    for (int r = 0; r < size; r++)
        if (collector(c, c->my_node, r) == me) {
            for (int i = 0; i < n; i++)
                if (i != my_place)
                    MB_TRY(post_recv(x, r, mate[i], collected * n + i));
            collected++;
        }
    for (int step = 1; step < n; step++) { /* everyone starts with another mate */
        const int to = mate[(my_place + step) % n];
        for (int r = 0; r < size; r++)
            if (collector(c, c->my_node, r) == to)
                MB_TRY(post_send(x, r, to));
    }
    MB_TRY(wait_all(c, x->n_requests));
    collected = 0;
    for (int r = 0; r < size; r++)
        if (collector(c, c->my_node, r) == me)
            add_parts(x, r, n * collected++, n, my_place);
    return MB_OK;
}

/* Between nodes: collectors send their node's sums to the owners. */
static mb_status between_nodes(struct round *x)
{
    mpi_comm *c = x->c;
    const int me = c->base.rank, size = c->base.size;

    x->n_requests = 0;
    for (int n = 0; n < c->n_nodes; n++)
        if (n != c->my_node)
            MB_TRY(post_recv(x, me, collector(c, n, me), n));
    for (int step = 1; step < size; step++) { /* everyone starts with another owner */
        const int r = (me + step) % size;
        if (c->node[r] != c->my_node && collector(c, c->my_node, r) == me)
            MB_TRY(post_send(x, r, r));
    }
    MB_TRY(wait_all(c, x->n_requests));
    add_parts(x, me, 0, c->n_nodes, c->my_node);
    return MB_OK;
}

static mb_status reduce_scatter_op(mpi_comm *c, char *buf, const int64_t *at, mb_dtype d,
                                   mb_reduce op, char *work, size_t work_bytes)
{
    const int size = c->base.size;
    struct round x = {.c = c, .buf = buf, .work = work, .at = at, .d = d, .wire = d, .op = op};
    int64_t longest = 0;

    MB_TRY(can_be_reduced(d));
    if (d == MB_DTYPE_F32)
        x.wire = c->base.wire;
    x.chunk = least((int64_t)work_bytes / c->most_pieces, CUT) / mb_dtype_bytes(x.wire, 1);
    for (int r = 0; r < size; r++)
        longest = at[r + 1] - at[r] > longest ? at[r + 1] - at[r] : longest;
    MB_REQUIRE(x.chunk > 0 || longest == 0 || size == 1, MB_EBUG,
               "reduce_scatter: %zu bytes of staging for %d ranks", work_bytes, size);
    for (; x.from < longest && size > 1; x.from += x.chunk) {
        MB_TRY(inside_node(&x));
        if (c->n_nodes > 1)
            MB_TRY(between_nodes(&x));
    }
    return MB_OK;
}

static mb_status reduce_scatter(mb_comm *base, void *buf, const int64_t *at, mb_dtype d, void *work,
                                size_t work_bytes)
{
    MB_TRY(mb_comm_queue_idle());
    return reduce_scatter_op(of(base), buf, at, d, MB_SUM, work, work_bytes);
}

/* ---- the rest ----------------------------------------------------------------------------- */

/* One hop of the ring: `out` goes right while `in` comes from the left, in cuts. */
static mb_status hop(mpi_comm *c, const char *out, int64_t out_bytes, char *in, int64_t in_bytes)
{
    const int right = (c->base.rank + 1) % c->base.size;
    const int left = (c->base.rank + c->base.size - 1) % c->base.size;

    for (int64_t at = 0; at < out_bytes || at < in_bytes; at += CUT) {
        int n = 0;
        if (at < in_bytes)
            MB_TRY(check(MPI_Irecv(in + at, (int)least(CUT, in_bytes - at), MPI_BYTE, left, 2,
                                   c->comm, &c->request[n++]),
                         "MPI_Irecv"));
        if (at < out_bytes)
            MB_TRY(check(MPI_Isend(out + at, (int)least(CUT, out_bytes - at), MPI_BYTE, right, 2,
                                   c->comm, &c->request[n++]),
                         "MPI_Isend"));
        MB_TRY(wait_all(c, n));
    }
    c->base.bytes_sent += out_bytes;
    return MB_OK;
}

static mb_status all_gather(mb_comm *base, void *buf, const int64_t *at, mb_dtype d)
{
    const int64_t el = mb_dtype_bytes(d, 1);
    const int size = base->size;
    char *p = buf;

    MB_TRY(mb_comm_queue_idle());
    for (int step = 0; step + 1 < size; step++) {
        const int out = (base->rank + size - step) % size;
        const int in = (base->rank + size - step - 1) % size;
        MB_TRY(hop(of(base), p + at[out] * el, (at[out + 1] - at[out]) * el, p + at[in] * el,
                   (at[in + 1] - at[in]) * el));
    }
    return MB_OK;
}

static mb_status all_reduce_small(mpi_comm *c, void *buf, int64_t n, mb_dtype d, mb_reduce op)
{
    const int64_t bytes = mb_dtype_bytes(d, n);

    MB_TRY(can_be_reduced(d));
    MB_TRY(check(MPI_Iallgather(buf, (int)bytes, MPI_BYTE, c->stage, (int)bytes, MPI_BYTE, c->comm,
                                c->request),
                 "MPI_Iallgather"));
    MB_TRY(wait_all(c, 1));
    for (int r = 1; r < c->base.size; r++)
        fold(c->stage, c->stage + bytes * r, n, d, op);
    memcpy(buf, c->stage, (size_t)bytes);
    c->base.bytes_sent += bytes * (c->base.size - 1);
    return MB_OK;
}

static int64_t even_cut(int64_t n, int size, int r)
{
    return n / size * r + least(r, n % size);
}

int64_t mb_comm_mpi_all_reduce_bytes(const mb_comm *c, int64_t n, mb_dtype d)
{
    const int size = c->size, rank = c->rank, right = (rank + 1) % size;

    if (mb_dtype_bytes(d, n) <= MB_COMM_SMALL)
        return mb_dtype_bytes(d, n) * (size - 1);
    return mb_dtype_bytes(d == MB_DTYPE_F32 ? c->wire : d,
                          n - (even_cut(n, size, rank + 1) - even_cut(n, size, rank))) +
           mb_dtype_bytes(d, n - (even_cut(n, size, right + 1) - even_cut(n, size, right)));
}

static mb_status all_reduce(mb_comm *base, void *buf, int64_t n, mb_dtype d, mb_reduce op)
{
    mpi_comm *c = of(base);

    MB_TRY(mb_comm_queue_idle());
    if (base->size == 1 || n == 0)
        return MB_OK;
    if (mb_dtype_bytes(d, n) <= MB_COMM_SMALL)
        return all_reduce_small(c, buf, n, d, op);
    for (int r = 0; r <= base->size; r++)
        c->at[r] = even_cut(n, base->size, r);
    MB_TRY(reduce_scatter_op(c, buf, c->at, d, op, c->stage, (size_t)MB_COMM_SMALL * base->size));
    return all_gather(base, buf, c->at, d);
}

static mb_status broadcast(mb_comm *base, void *buf, int64_t bytes, int root)
{
    char *p = buf;

    MB_TRY(mb_comm_queue_idle());
    for (int64_t at = 0; at < bytes; at += CUT)
        MB_TRY(check(MPI_Bcast(p + at, (int)least(CUT, bytes - at), MPI_BYTE, root, of(base)->comm),
                     "MPI_Bcast"));
    if (base->rank == root)
        base->bytes_sent += bytes * (base->size - 1);
    return MB_OK;
}

static mb_status send_to(mb_comm *base, const void *buf, int64_t bytes, int to)
{
    const char *p = buf;

    MB_TRY(mb_comm_queue_idle());
    for (int64_t at = 0; at < bytes; at += CUT)
        MB_TRY(check(MPI_Send(p + at, (int)least(CUT, bytes - at), MPI_BYTE, to, 3, of(base)->comm),
                     "MPI_Send"));
    base->bytes_sent += bytes;
    return MB_OK;
}

static mb_status recv_from(mb_comm *base, void *buf, int64_t bytes, int from)
{
    char *p = buf;

    MB_TRY(mb_comm_queue_idle());
    for (int64_t at = 0; at < bytes; at += CUT)
        MB_TRY(check(MPI_Recv(p + at, (int)least(CUT, bytes - at), MPI_BYTE, from, 3,
                              of(base)->comm, MPI_STATUS_IGNORE),
                     "MPI_Recv"));
    return MB_OK;
}

static mb_status barrier(mb_comm *base)
{
    MB_TRY(mb_comm_queue_idle());
    return check(MPI_Barrier(of(base)->comm), "MPI_Barrier");
}

static void comm_free(mb_comm *base)
{
    mpi_comm *c = of(base);

    if (mb_mpi_is_running())
        MPI_Comm_free(&c->comm);
    mb_free(c->request);
    mb_free(c->at);
    mb_free(c->stage);
    mb_free(c->node);
    mb_free(c->member);
    mb_free(c->first);
    mb_free(c->place);
    mb_free(c);
}

static const mb_comm_ops mpi_ops = {
    .name = "mpi",
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .send = send_to,
    .recv = recv_from,
    .barrier = barrier,
    .free = comm_free,
};

/* ---- nodes -------------------------------------------------------------------------------- */

/* Which node a rank counts as being on, for tests: "0,0,1" by rank of the world. -1: as it is. */
static int pretended_node(void)
{
    const char *s = getenv("MBUYU_TEST_NODES");
    int rank = 0;

    if (s == NULL)
        return -1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int i = 0; i < rank && s != NULL; i++) {
        s = strchr(s, ',');
        s = s != NULL ? s + 1 : NULL;
    }
    return s != NULL ? (int)strtol(s, NULL, 10) : 0;
}

/* The ranks of `comm` on this one's node, in their order. */
static mb_status split_by_node(MPI_Comm comm, int rank, MPI_Comm *out)
{
    const int node = pretended_node();

    if (node >= 0)
        return check(MPI_Comm_split(comm, node, rank, out), "MPI_Comm_split");
    return check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, out),
                 "MPI_Comm_split_type");
}

/* c->node[r] becomes the lowest rank on r's node. */
static mb_status find_leaders(mpi_comm *c)
{
    MPI_Comm node;
    int leader = c->base.rank;

    MB_TRY(split_by_node(c->comm, c->base.rank, &node));
    mb_status st = check(MPI_Bcast(&leader, 1, MPI_INT, 0, node), "MPI_Bcast");
    MPI_Comm_free(&node);
    MB_TRY(st);
    return check(MPI_Allgather(&leader, 1, MPI_INT, c->node, 1, MPI_INT, c->comm), "MPI_Allgather");
}

/* Nodes are counted by their lowest rank. */
static void count_nodes(mpi_comm *c)
{
    const int size = c->base.size;

    for (int r = 0; r < size; r++)
        if (c->node[r] == r) {
            int n = 0;
            for (int i = r; i < size; i++)
                if (c->node[i] == r) {
                    c->place[i] = n;
                    c->member[c->first[c->n_nodes] + n++] = i;
                }
            c->first[c->n_nodes + 1] = c->first[c->n_nodes] + n;
            c->n_nodes++;
        }
    for (int n = 0; n < c->n_nodes; n++)
        for (int i = c->first[n]; i < c->first[n + 1]; i++)
            c->node[c->member[i]] = n;
    c->my_node = c->node[c->base.rank];
}

/* Staging and requests: the most any rank needs, so that all cut alike. */
static int most_pieces(const mpi_comm *c)
{
    int most = c->n_nodes;

    for (int m = 0; m < c->base.size; m++) {
        const int node = c->node[m], mates = c->first[node + 1] - c->first[node];
        int collected = 0;
        for (int r = 0; r < c->base.size; r++)
            collected += collector(c, node, r) == m;
        most = collected * mates > most ? collected * mates : most;
    }
    return most;
}

static mb_status find_nodes(mpi_comm *c)
{
    MB_TRY(MB_NEW_ARRAY(&c->node, c->base.size));
    MB_TRY(MB_NEW_ARRAY(&c->member, c->base.size));
    MB_TRY(MB_NEW_ARRAY(&c->first, c->base.size + 1));
    MB_TRY(MB_NEW_ARRAY(&c->place, c->base.size));
    MB_TRY(find_leaders(c));
    count_nodes(c);
    c->most_pieces = most_pieces(c);
    return MB_NEW_ARRAY(&c->request, c->most_pieces + c->n_nodes + 2 * c->base.size);
}

/* ---- communicators ------------------------------------------------------------------------ */

/* Takes `comm`, which is freed with the result or on failure. */
static mb_status wrap(MPI_Comm comm, mb_comm **out)
{
    mpi_comm *c = NULL;
    mb_status st = MB_NEW(&c);

    if (st != MB_OK) {
        MPI_Comm_free(&comm);
        return st;
    }
    c->comm = comm;
    c->base.ops = &mpi_ops;
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm, &c->base.rank);
    MPI_Comm_size(comm, &c->base.size);
    MB_TRY_GOTO(find_nodes(c), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&c->at, c->base.size + 1), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&c->stage, (size_t)MB_COMM_SMALL * c->base.size), st, fail);
    *out = &c->base;
    return MB_OK;

fail:
    comm_free(&c->base);
    return st;
}

mb_status mb_comm_mpi_world(mb_comm **out)
{
    MPI_Comm comm;

    if (!mb_mpi_is_running()) {
        *out = mb_comm_self();
        return MB_OK;
    }
    MB_TRY(mb_comm_queue_idle());
    MB_TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup"));
    return wrap(comm, out);
}

mb_status mb_comm_mpi_split(mb_comm *parent, int color, int key, mb_comm **out)
{
    MPI_Comm comm;

    if (parent->ops != &mpi_ops) {
        *out = color < 0 ? NULL : mb_comm_self();
        return MB_OK;
    }
    MB_TRY(mb_comm_queue_idle());
    MB_TRY(check(MPI_Comm_split(of(parent)->comm, color < 0 ? MPI_UNDEFINED : color, key, &comm),
                 "MPI_Comm_split"));
    *out = NULL;
    return comm == MPI_COMM_NULL ? MB_OK : wrap(comm, out);
}

mb_status mb_comm_mpi_node(mb_comm *parent, mb_comm **out)
{
    MPI_Comm comm;

    if (parent->ops != &mpi_ops) {
        *out = mb_comm_self();
        return MB_OK;
    }
    MB_TRY(mb_comm_queue_idle());
    MB_TRY(split_by_node(of(parent)->comm, parent->rank, &comm));
    return wrap(comm, out);
}

mb_status mb_mpi_init(int *argc, char ***argv)
{
    int level = 0, n = 0;

    MB_TRY(check(MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &level), "MPI_Init_thread"));
    MB_REQUIRE(level >= MPI_THREAD_FUNNELED, MB_ENOTSUP,
               "this MPI library does not allow threads beside the one that calls it");
    may_queue = level >= MPI_THREAD_SERIALIZED;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Get_library_version(library_text, &n);
    library_text[strcspn(library_text, ",\n")] = '\0';
    return MB_OK;
}

bool mb_mpi_is_running(void)
{
    int started = 0, ended = 0;

    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    return started && !ended;
}

void mb_mpi_finish(void)
{
    if (mb_mpi_is_running())
        MPI_Finalize();
}

void mb_mpi_abort(int exit_code)
{
    if (mb_mpi_is_running() && !mb_comm_queue_here())
        mb_comm_queue_halt();
    if (mb_mpi_is_running())
        MPI_Abort(MPI_COMM_WORLD, exit_code);
}

bool mb_mpi_may_queue(void)
{
    return may_queue;
}

const char *mb_mpi_library(void)
{
    return library_text;
}
