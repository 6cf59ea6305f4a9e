/* dist/comm_mpi.c - see dist/comm_mpi.h. */
#include "dist/comm_mpi.h"

#include <mpi.h>
#include <string.h>

#include "core/alloc.h"

enum { CUT = 1 << 28 };           /* bytes of one MPI message at most: counts stay below 2^31 */
enum { PARALLEL_FROM = 1 << 16 }; /* elements worth a parallel loop */

typedef struct mpi_comm {
    mb_comm base;
    MPI_Comm comm;
    MPI_Request *request; /* 2 * size */
    int64_t *at;          /* size + 1: ranges of a large all_reduce */
    char *stage;          /* MB_COMM_SMALL * size */
} mpi_comm;

static char library_text[MPI_MAX_LIBRARY_VERSION_STRING];

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

/* y[i] = y[i] op x[i] for one type. The first NaN stays: `>` and `<` are false for it. */
#define FOLD(name, T)                                                                           \
    static void name(T *y, const T *x, int64_t n, mb_reduce op)                                 \
    {                                                                                           \
        if (op == MB_SUM) {                                                                     \
            _Pragma("omp parallel for simd if (n >= PARALLEL_FROM)") for (int64_t i = 0; i < n; \
                                                                          i++) y[i] =           \
                (T)(y[i] + x[i]);                                                               \
        } else {                                                                                \
            for (int64_t i = 0; i < n; i++)                                                     \
                if ((op == MB_MAX ? x[i] > y[i] : x[i] < y[i]) || !(x[i] == x[i]))              \
                    y[i] = x[i];                                                                \
        }                                                                                       \
    }
FOLD(fold_f32, float)
FOLD(fold_f64, double)
FOLD(fold_i32, int32_t)
FOLD(fold_i64, int64_t)
FOLD(fold_u8, uint8_t)

static mb_status fold(void *y, const void *x, int64_t n, mb_dtype d, mb_reduce op)
{
    switch (d) {
    case MB_DTYPE_F32:
        fold_f32(y, x, n, op);
        return MB_OK;
    case MB_DTYPE_F64:
        fold_f64(y, x, n, op);
        return MB_OK;
    case MB_DTYPE_I32:
        fold_i32(y, x, n, op);
        return MB_OK;
    case MB_DTYPE_I64:
        fold_i64(y, x, n, op);
        return MB_OK;
    case MB_DTYPE_U8:
        fold_u8(y, x, n, op);
        return MB_OK;
    default:
        return MB_RAISE(MB_EBUG, "communicator: %s values cannot be reduced", mb_dtype_name(d));
    }
}

/* n elements of my range: every other rank's contribution lies in its slot of `work`, mine in
 * `mine`, which becomes ((x0 + x1) + x2) + ... in rank order. */
static mb_status fold_ranks(const mpi_comm *c, char *mine, char *work, int64_t slot, int64_t n,
                            mb_dtype d, mb_reduce op)
{
    for (int r = 1; r < c->base.rank; r++)
        MB_TRY(fold(work, work + slot * r, n, d, op));
    if (c->base.rank > 0)
        MB_TRY(fold(mine, work, n, d, op));
    for (int r = c->base.rank + 1; r < c->base.size; r++)
        MB_TRY(fold(mine, work + slot * r, n, d, op));
    return MB_OK;
}

/* One round: elements [from, from+chunk) of every range go to its owner. */
static mb_status exchange(mpi_comm *c, const char *buf, const int64_t *at, int64_t el, int64_t from,
                          int64_t chunk, char *work)
{
    const int size = c->base.size, me = c->base.rank;
    const int64_t mine = least(chunk, at[me + 1] - at[me] - from);
    int n = 0;

    for (int step = 1; step < size && mine > 0; step++) {
        const int r = (me + size - step) % size;
        MB_TRY(check(MPI_Irecv(work + chunk * el * r, (int)(mine * el), MPI_BYTE, r, 1, c->comm,
                               &c->request[n++]),
                     "MPI_Irecv"));
    }
    for (int step = 1; step < size; step++) { /* everyone starts with another peer */
        const int r = (me + step) % size;
        const int64_t theirs = least(chunk, at[r + 1] - at[r] - from);
        if (theirs <= 0)
            continue;
        MB_TRY(check(MPI_Isend(buf + (at[r] + from) * el, (int)(theirs * el), MPI_BYTE, r, 1,
                               c->comm, &c->request[n++]),
                     "MPI_Isend"));
        c->base.bytes_sent += theirs * el;
    }
    return check(MPI_Waitall(n, c->request, MPI_STATUSES_IGNORE), "MPI_Waitall");
}

static mb_status reduce_scatter_op(mpi_comm *c, char *buf, const int64_t *at, mb_dtype d,
                                   mb_reduce op, char *work, size_t work_bytes)
{
    const int size = c->base.size, me = c->base.rank;
    const int64_t el = mb_dtype_bytes(d, 1);
    const int64_t chunk = least((int64_t)work_bytes / size, CUT) / el;
    int64_t longest = 0;

    for (int r = 0; r < size; r++)
        longest = at[r + 1] - at[r] > longest ? at[r + 1] - at[r] : longest;
    MB_REQUIRE(chunk > 0 || longest == 0 || size == 1, MB_EBUG,
               "reduce_scatter: %zu bytes of staging for %d ranks", work_bytes, size);
    for (int64_t from = 0; from < longest && size > 1; from += chunk) {
        const int64_t mine = least(chunk, at[me + 1] - at[me] - from);
        MB_TRY(exchange(c, buf, at, el, from, chunk, work));
        if (mine > 0)
            MB_TRY(fold_ranks(c, buf + (at[me] + from) * el, work, chunk * el, mine, d, op));
    }
    return MB_OK;
}

static mb_status reduce_scatter(mb_comm *base, void *buf, const int64_t *at, mb_dtype d, void *work,
                                size_t work_bytes)
{
    return reduce_scatter_op(of(base), buf, at, d, MB_SUM, work, work_bytes);
}

/* One hop of the ring: `out` goes right while `in` comes from the left, in cuts. */
static mb_status hop(mpi_comm *c, const char *out, int64_t out_bytes, char *in, int64_t in_bytes)
{
    const int right = (c->base.rank + 1) % c->base.size;
    const int left = (c->base.rank + c->base.size - 1) % c->base.size;

    for (int64_t at = 0; at < out_bytes || at < in_bytes; at += CUT) {
        const int n_out = at < out_bytes ? (int)least(CUT, out_bytes - at) : 0;
        const int n_in = at < in_bytes ? (int)least(CUT, in_bytes - at) : 0;
        MB_TRY(check(MPI_Sendrecv(n_out > 0 ? out + at : out, n_out, MPI_BYTE,
                                  n_out > 0 ? right : MPI_PROC_NULL, 2, n_in > 0 ? in + at : in,
                                  n_in, MPI_BYTE, n_in > 0 ? left : MPI_PROC_NULL, 2, c->comm,
                                  MPI_STATUS_IGNORE),
                     "MPI_Sendrecv"));
    }
    c->base.bytes_sent += out_bytes;
    return MB_OK;
}

static mb_status all_gather(mb_comm *base, void *buf, const int64_t *at, mb_dtype d)
{
    const int64_t el = mb_dtype_bytes(d, 1);
    const int size = base->size;
    char *p = buf;

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

    MB_TRY(check(MPI_Allgather(buf, (int)bytes, MPI_BYTE, c->stage, (int)bytes, MPI_BYTE, c->comm),
                 "MPI_Allgather"));
    for (int r = 1; r < c->base.size; r++)
        MB_TRY(fold(c->stage, c->stage + bytes * r, n, d, op));
    memcpy(buf, c->stage, (size_t)bytes);
    c->base.bytes_sent += bytes * (c->base.size - 1);
    return MB_OK;
}

static int64_t even_cut(int64_t n, int size, int r)
{
    return n / size * r + least(r, n % size);
}

int64_t mb_comm_mpi_all_reduce_bytes(int rank, int size, int64_t n, mb_dtype d)
{
    const int right = (rank + 1) % size;

    if (mb_dtype_bytes(d, n) <= MB_COMM_SMALL)
        return mb_dtype_bytes(d, n) * (size - 1);
    return mb_dtype_bytes(d, 2 * n - (even_cut(n, size, rank + 1) - even_cut(n, size, rank)) -
                                 (even_cut(n, size, right + 1) - even_cut(n, size, right)));
}

static mb_status all_reduce(mb_comm *base, void *buf, int64_t n, mb_dtype d, mb_reduce op)
{
    mpi_comm *c = of(base);

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

    for (int64_t at = 0; at < bytes; at += CUT)
        MB_TRY(check(MPI_Send(p + at, (int)least(CUT, bytes - at), MPI_BYTE, to, 3, of(base)->comm),
                     "MPI_Send"));
    base->bytes_sent += bytes;
    return MB_OK;
}

static mb_status recv_from(mb_comm *base, void *buf, int64_t bytes, int from)
{
    char *p = buf;

    for (int64_t at = 0; at < bytes; at += CUT)
        MB_TRY(check(MPI_Recv(p + at, (int)least(CUT, bytes - at), MPI_BYTE, from, 3,
                              of(base)->comm, MPI_STATUS_IGNORE),
                     "MPI_Recv"));
    return MB_OK;
}

static mb_status barrier(mb_comm *base)
{
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
    MB_TRY_GOTO(MB_NEW_ARRAY(&c->request, 2 * c->base.size), st, fail);
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
    MB_TRY(check(MPI_Comm_split_type(of(parent)->comm, MPI_COMM_TYPE_SHARED, parent->rank,
                                     MPI_INFO_NULL, &comm),
                 "MPI_Comm_split_type"));
    return wrap(comm, out);
}

mb_status mb_mpi_init(int *argc, char ***argv)
{
    int level = 0, n = 0;

    MB_TRY(check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level), "MPI_Init_thread"));
    MB_REQUIRE(level >= MPI_THREAD_FUNNELED, MB_ENOTSUP,
               "this MPI library does not allow threads beside the one that calls it");
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
    if (mb_mpi_is_running())
        MPI_Abort(MPI_COMM_WORLD, exit_code);
}

const char *mb_mpi_library(void)
{
    return library_text;
}
