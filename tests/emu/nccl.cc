/* tests/emu/nccl.cc - the part of NCCL that mbuyu uses, between processes without GPUs.
 *
 * Collectives are queued on the emulator's streams and run when it runs them. Bytes travel as
 * messages of MPI_COMM_WORLD with tags of our own (the program itself uses duplicates of it), always
 * from and to host copies. Nothing blocks: a collective that still waits for another rank says so and
 * is asked again. Sums are taken in rank order in the type of the values (16-bit floats: in f32), so
 * results are those of dist/comm_mpi.c, bit for bit. MAX and MIN ignore NaN, as NCCL's do.
 *
 * Stricter than the real one, which would hang or return numbers: before data moves, ranks compare
 * what they called; a communicator belongs to one stream; nothing may be queued while a call is in
 * progress, before a communicator is joined or after its end, nor in host memory; it ends only when
 * nothing is queued.
 * All of these are asynchronous errors or results with a sentence in ncclGetLastError. Every third
 * call of a communicator that does not block is "in progress" for a while.
 */
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <memory>
#include <mpi.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include "core/dtype.h"
#include "dist/nccl_abi.h"

#define DECLARE(name, parameters) mb_nccl_result nccl##name parameters;
MB_NCCL_FUNCTIONS(DECLARE)
#undef DECLARE
const char *ncclGetErrorString(mb_nccl_result r);
const char *ncclGetLastError(mb_nccl_comm *comm);
}

namespace {

enum { VERSION = 22809, ID_MAGIC = 0x6d626964, RANKS_MAX = 64, LIVE_MAX = 8 };
enum kind { ALL_REDUCE, REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, SEND, RECV };
enum { HEADERS, DATA, SEND_HEADERS, RECV_HEADERS, MESSAGES }; /* classes of tags */
const char *const kind_names[] = {"AllReduce", "Reduce", "ReduceScatter", "AllGather",
                                  "Broadcast", "Send",   "Recv"};
const char *const type_names[] = {"i8",  "u8",  "i32", "u32", "i64",
                                  "u64", "f16", "f32", "f64", "bf16"};
const size_t type_bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
const char *const op_names[] = {"sum", "?", "max", "min"};

char last_error[512];

void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void say(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(last_error, sizeof last_error, fmt, args);
    va_end(args);
}

#define REFUSE(result, ...) \
    do {                    \
        say(__VA_ARGS__);   \
        return (result);    \
    } while (0)

/* What a unique id carries: who collects the members, and the communicator's tags. */
struct id_content {
    uint32_t magic;
    int32_t root; /* rank of the world */
    int32_t tags;
};

struct member {
    int32_t rank, size, world;
};

/* What a rank called, compared before data moves. */
struct header {
    int32_t kind, type, op, root;
    uint64_t count;
    uint64_t number; /* of the communicator's collectives, or of its messages to one peer */
};

int tag_of(int tags, int what, uint64_t number)
{
    return tags << 21 | what << 18 | (int)(number & 0x3ffff);
}

int join_tag(int tags)
{
    return 1 << 30 | tags;
}

} // namespace

struct mb_nccl_comm {
    enum { JOINING, READY, FINALIZED, DESTROYED, ABORTED } state = JOINING;
    int rank = 0, size = 0, tags = 0;
    bool blocking = false;
    mb_nccl_result error = MB_NCCL_SUCCESS;
    char text[512] = "";
    std::vector<int> world; /* of every rank */
    cudaStream_t stream = nullptr;
    int queued = 0;
    uint64_t calls = 0, collectives = 0;
    int busy = 0; /* questions until the last call is no longer in progress */
    std::vector<uint64_t> sent, received;
    /* joining */
    int root = 0;
    std::vector<member> members;
    member mine{}, next{};
    std::vector<int32_t> table;
    std::vector<MPI_Request> requests;
    MPI_Request collecting = MPI_REQUEST_NULL, receiving = MPI_REQUEST_NULL;
};

namespace {

mb_nccl_result fail(mb_nccl_comm *c, mb_nccl_result r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
mb_nccl_result fail(mb_nccl_comm *c, mb_nccl_result r, const char *fmt, ...)
{
    va_list args;

    if (c->error == MB_NCCL_SUCCESS) {
        va_start(args, fmt);
        vsnprintf(c->text, sizeof c->text, fmt, args);
        va_end(args);
        snprintf(last_error, sizeof last_error, "%s", c->text);
        c->error = r;
    }
    return r;
}

/* ---- joining ---------------------------------------------------------------------------------- */

bool done(MPI_Request *r)
{
    int flag = 0;

    MPI_Test(r, &flag, MPI_STATUS_IGNORE);
    return flag != 0;
}

bool all_done(std::vector<MPI_Request> &r)
{
    int flag = 0;

    MPI_Testall((int)r.size(), r.data(), &flag, MPI_STATUSES_IGNORE);
    return flag != 0;
}

void collect_next(mb_nccl_comm *c)
{
    MPI_Irecv(&c->next, 3, MPI_INT32_T, MPI_ANY_SOURCE, join_tag(c->tags), MPI_COMM_WORLD,
              &c->collecting);
}

void receive_table(mb_nccl_comm *c)
{
    c->table.assign((size_t)c->size, -1);
    MPI_Irecv(c->table.data(), c->size, MPI_INT32_T, c->root, join_tag(c->tags) | 1 << 29,
              MPI_COMM_WORLD, &c->receiving);
}

/* Everyone tells the root who it is; the root tells everyone who all are. */
void start_joining(mb_nccl_comm *c)
{
    int me = 0;

    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    c->mine = {c->rank, c->size, me};
    c->requests.emplace_back();
    MPI_Isend(&c->mine, 3, MPI_INT32_T, c->root, join_tag(c->tags), MPI_COMM_WORLD,
              &c->requests.back());
    receive_table(c);
    if (me == c->root)
        collect_next(c);
}

void send_table(mb_nccl_comm *c)
{
    static std::vector<std::unique_ptr<std::vector<int32_t>>> kept; /* until MPI ends */

    kept.emplace_back(new std::vector<int32_t>((size_t)c->size, -1));
    std::vector<int32_t> &table = *kept.back();
    for (const member &m : c->members) {
        if (m.size != c->size || m.rank < 0 || m.rank >= c->size || table[(size_t)m.rank] >= 0) {
            fail(c, MB_NCCL_INVALID_USAGE,
                 "a rank joined as %d of %d where %d ranks are expected, each once", m.rank, m.size,
                 c->size);
            return;
        }
        for (int32_t other : table)
            if (other == m.world)
                fail(c, MB_NCCL_INVALID_USAGE, "Duplicate GPU detected: process %d joined twice",
                     m.world);
        table[(size_t)m.rank] = m.world;
    }
    for (int32_t world : table) {
        c->requests.emplace_back();
        MPI_Isend(table.data(), c->size, MPI_INT32_T, world, join_tag(c->tags) | 1 << 29,
                  MPI_COMM_WORLD, &c->requests.back());
    }
}

void join_further(mb_nccl_comm *c)
{
    if (c->state != mb_nccl_comm::JOINING || c->error != MB_NCCL_SUCCESS)
        return;
    while (c->collecting != MPI_REQUEST_NULL && done(&c->collecting)) {
        c->members.push_back(c->next);
        if ((int)c->members.size() == c->size)
            send_table(c);
        else
            collect_next(c);
    }
    if (c->receiving != MPI_REQUEST_NULL && !done(&c->receiving))
        return;
    if (!all_done(c->requests))
        return;
    c->world.assign(c->table.begin(), c->table.end());
    c->sent.assign((size_t)c->size, 0);
    c->received.assign((size_t)c->size, 0);
    c->state = mb_nccl_comm::READY;
}

/* ---- arithmetic ------------------------------------------------------------------------------- */

float widen(uint16_t x, int type)
{
    return type == MB_NCCL_BF16 ? mb_bf16_to_f32(x) : mb_f16_to_f32(x);
}

template <typename T> T fold_two(T a, T b, int op)
{
    if (op == MB_NCCL_SUM)
        return (T)(a + b);
    if (a != a)
        return b;
    return op == MB_NCCL_MAX ? (b > a ? b : a) : (b < a ? b : a);
}

/* to[i] = part[0][i] op part[1][i] op ... in this order. */
template <typename T> void fold(void *to, const std::vector<const char *> &part, uint64_t n, int op)
{
    for (uint64_t i = 0; i < n; i++) {
        T sum, x;
        memcpy(&sum, part[0] + i * sizeof(T), sizeof(T));
        for (size_t r = 1; r < part.size(); r++) {
            memcpy(&x, part[r] + i * sizeof(T), sizeof(T));
            sum = fold_two(sum, x, op);
        }
        memcpy(static_cast<char *>(to) + i * sizeof(T), &sum, sizeof(T));
    }
}

void fold_16(void *to, const std::vector<const char *> &part, uint64_t n, int op, int type)
{
    for (uint64_t i = 0; i < n; i++) {
        uint16_t x;
        memcpy(&x, part[0] + 2 * i, 2);
        float sum = widen(x, type);
        for (size_t r = 1; r < part.size(); r++) {
            memcpy(&x, part[r] + 2 * i, 2);
            sum = fold_two(sum, widen(x, type), op);
        }
        x = type == MB_NCCL_BF16 ? mb_f32_to_bf16(sum) : mb_f32_to_f16(sum);
        memcpy(static_cast<char *>(to) + 2 * i, &x, 2);
    }
}

void fold_any(void *to, const std::vector<const char *> &part, const header &h)
{
    switch (h.type) {
    case MB_NCCL_I8:
        return fold<int8_t>(to, part, h.count, h.op);
    case MB_NCCL_U8:
        return fold<uint8_t>(to, part, h.count, h.op);
    case MB_NCCL_I32:
        return fold<int32_t>(to, part, h.count, h.op);
    case MB_NCCL_U32:
        return fold<uint32_t>(to, part, h.count, h.op);
    case MB_NCCL_I64:
    case MB_NCCL_U64: /* the same bits, and sums may wrap */
        if (h.op == MB_NCCL_SUM || h.type == MB_NCCL_U64)
            return fold<uint64_t>(to, part, h.count, h.op);
        return fold<int64_t>(to, part, h.count, h.op);
    case MB_NCCL_F32:
        return fold<float>(to, part, h.count, h.op);
    case MB_NCCL_F64:
        return fold<double>(to, part, h.count, h.op);
    default:
        return fold_16(to, part, h.count, h.op, h.type);
    }
}

/* ---- one collective or message ----------------------------------------------------------------- */

struct operation {
    mb_nccl_comm *c;
    header mine;
    const char *from;
    char *to;
    int peer; /* of a message */
    enum { NEW, COMPARING, MOVING, OVER } phase = NEW;
    std::vector<MPI_Request> requests;
    std::vector<header> theirs;
    std::vector<std::vector<char>> out, in; /* per rank */

    bool message() const
    {
        return mine.kind == SEND || mine.kind == RECV;
    }

    bool with(int r) const
    {
        return r != c->rank && (!message() || r == peer);
    }

    size_t bytes() const
    {
        return mine.count * type_bytes[mine.type];
    }
};

void post(operation *o, bool send, int r, int what, void *p, size_t bytes)
{
    const int tag = tag_of(o->c->tags, what, o->mine.number), world = o->c->world[(size_t)r];

    o->requests.emplace_back();
    if (send)
        MPI_Isend(p, (int)bytes, MPI_BYTE, world, tag, MPI_COMM_WORLD, &o->requests.back());
    else
        MPI_Irecv(p, (int)bytes, MPI_BYTE, world, tag, MPI_COMM_WORLD, &o->requests.back());
}

void exchange_headers(operation *o)
{
    const int out = !o->message() ? HEADERS : o->mine.kind == SEND ? SEND_HEADERS : RECV_HEADERS;
    const int in = !o->message() ? HEADERS : o->mine.kind == SEND ? RECV_HEADERS : SEND_HEADERS;

    o->theirs.assign((size_t)o->c->size, header{});
    for (int r = 0; r < o->c->size; r++)
        if (o->with(r)) {
            post(o, false, r, in, &o->theirs[(size_t)r], sizeof(header));
            post(o, true, r, out, &o->mine, sizeof(header));
        }
    o->phase = operation::COMPARING;
}

void describe(const header &h, char *text, size_t size)
{
    char root[32] = "";

    if (h.kind == REDUCE || h.kind == BROADCAST)
        snprintf(root, sizeof root, ", root %d", h.root);
    snprintf(text, size, "%s of %llu %s%s%s%s", kind_names[h.kind], (unsigned long long)h.count,
             type_names[h.type], h.kind <= REDUCE_SCATTER ? " " : "",
             h.kind <= REDUCE_SCATTER ? op_names[h.op] : "", root);
}

bool headers_agree(operation *o)
{
    char here[128], there[128];

    for (int r = 0; r < o->c->size; r++) {
        const header &a = o->mine, &b = o->theirs[(size_t)r];
        const bool same = o->message() ? a.kind + b.kind == SEND + RECV : a.kind == b.kind;
        if (!o->with(r) || (same && a.type == b.type && a.op == b.op && a.root == b.root &&
                            a.count == b.count && a.number == b.number))
            continue;
        describe(a, here, sizeof here);
        describe(b, there, sizeof there);
        fail(o->c, MB_NCCL_INVALID_USAGE,
             "the ranks do not call the same: as number %llu rank %d called %s, rank %d %s",
             (unsigned long long)a.number + 1, o->c->rank, here, r, there);
        return false;
    }
    return true;
}

bool receives_from(const operation *o, int r)
{
    const int me = o->c->rank;

    switch (o->mine.kind) {
    case REDUCE:
        return me == o->mine.root && r != me;
    case BROADCAST:
        return r == o->mine.root && r != me;
    case SEND:
        return false;
    default:
        return o->with(r);
    }
}

bool sends_to(const operation *o, int r)
{
    const int me = o->c->rank;

    switch (o->mine.kind) {
    case REDUCE:
        return r == o->mine.root && r != me;
    case BROADCAST:
        return me == o->mine.root && r != me;
    case RECV:
        return false;
    default:
        return o->with(r);
    }
}

/* Device memory is read here and written in finish, both while the emulator allows it. */
void move(operation *o)
{
    const size_t n = o->bytes(), size = (size_t)o->c->size;
    const int what = o->message() ? MESSAGES : DATA;

    o->requests.clear();
    o->out.resize(size);
    o->in.resize(size);
    for (int i = 0; i < o->c->size; i++) {
        const size_t r = (size_t)i;
        if (sends_to(o, i) || (i == o->c->rank && o->from != nullptr)) {
            const char *p = o->from + (o->mine.kind == REDUCE_SCATTER ? r * n : 0);
            o->out[r].assign(p, p + n);
        }
        if (sends_to(o, i))
            post(o, true, i, what, o->out[r].data(), n);
        if (receives_from(o, i)) {
            o->in[r].resize(n);
            post(o, false, i, what, o->in[r].data(), n);
        }
    }
    o->phase = operation::MOVING;
}

void finish(operation *o)
{
    const size_t n = o->bytes(), me = (size_t)o->c->rank;
    std::vector<const char *> part;

    for (size_t r = 0; r < (size_t)o->c->size; r++)
        part.push_back(r == me ? o->out[r].data() : o->in[r].data());
    switch (o->mine.kind) {
    case REDUCE:
        if (o->c->rank != o->mine.root)
            break;
        /* fall through */
    case ALL_REDUCE:
    case REDUCE_SCATTER:
        fold_any(o->to, part, o->mine);
        break;
    case ALL_GATHER:
        for (size_t r = 0; r < part.size(); r++)
            memcpy(o->to + r * n, part[r], n);
        break;
    case BROADCAST:
        memcpy(o->to, part[(size_t)o->mine.root], n);
        break;
    case RECV:
        memcpy(o->to, part[(size_t)o->peer], n);
        break;
    default:
        break;
    }
}

/* What MPI may still write to or read from is left behind, not freed. */
void forget(operation *o)
{
    for (MPI_Request &r : o->requests)
        if (r != MPI_REQUEST_NULL) {
            MPI_Cancel(&r);
            MPI_Request_free(&r);
        }
    new operation(std::move(*o));
}

bool step(operation *o)
{
    if (o->phase == operation::OVER)
        return true;
    if (o->c->state != mb_nccl_comm::READY || o->c->error != MB_NCCL_SUCCESS) {
        forget(o);
        o->phase = operation::OVER;
        o->c->queued--;
        return true;
    }
    if (o->phase == operation::NEW)
        exchange_headers(o);
    if (o->phase == operation::COMPARING) {
        if (!all_done(o->requests))
            return false;
        if (!headers_agree(o))
            return step(o);
        move(o);
    }
    if (!all_done(o->requests))
        return false;
    finish(o);
    o->phase = operation::OVER;
    o->c->queued--;
    return true;
}

/* ---- queueing ---------------------------------------------------------------------------------- */

struct batch {
    std::vector<std::unique_ptr<operation>> list;
};

bool run_batch(void *arg)
{
    batch *b = static_cast<batch *>(arg);
    int main_thread = 0;
    bool all = true;

    MPI_Is_thread_main(&main_thread);
    if (!main_thread)
        return false; /* MPI belongs to the thread that started it */
    for (auto &o : b->list)
        all = step(o.get()) && all;
    if (all)
        delete b;
    return all;
}

typedef cudaError_t (*enqueue_function)(cudaStream_t stream, const char *what,
                                        bool (*fn)(void *arg), void *arg);

enqueue_function enqueue()
{
    static enqueue_function found;

    if (found == nullptr) {
        const char *path = getenv("MBUYU_CUDA_LIBRARY");
        void *emulator = path != nullptr ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : nullptr;
        if (emulator != nullptr)
            found = reinterpret_cast<enqueue_function>(dlsym(emulator, "mb_emu_enqueue"));
    }
    return found;
}

thread_local int depth;
thread_local std::vector<std::unique_ptr<operation>> group;

mb_nccl_result flush()
{
    while (!group.empty()) {
        mb_nccl_comm *c = group.front()->c;
        const cudaStream_t stream = c->stream;
        char what[64];
        std::unique_ptr<batch> b(new batch);
        std::vector<std::unique_ptr<operation>> rest;

        snprintf(what, sizeof what, "nccl%s", kind_names[group.front()->mine.kind]);
        for (auto &o : group)
            (o->c->stream == stream ? b->list : rest).push_back(std::move(o));
        group = std::move(rest);
        if (enqueue()(stream, what, run_batch, b.release()) != cudaSuccess)
            return fail(c, MB_NCCL_UNHANDLED_CUDA_ERROR, "the emulator does not take %s", what);
    }
    return MB_NCCL_SUCCESS;
}

/* Now and then a call that does not block is in progress for two questions. */
mb_nccl_result answer(mb_nccl_comm *c)
{
    if (c->blocking || depth > 0 || ++c->calls % 3 != 0)
        return MB_NCCL_SUCCESS;
    c->busy = 2;
    return MB_NCCL_IN_PROGRESS;
}

mb_nccl_result usable(mb_nccl_comm *c, const char *call)
{
    static const char *const states[] = {"not joined yet", "ready", "finalized", "destroyed",
                                         "aborted"};

    if (c == nullptr)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "nccl%s: no communicator", call);
    if (c->error != MB_NCCL_SUCCESS)
        return c->error;
    if (c->state != mb_nccl_comm::READY)
        REFUSE(MB_NCCL_INVALID_USAGE, "nccl%s on a communicator that is %s", call,
               states[c->state]);
    if (c->busy > 0)
        REFUSE(MB_NCCL_INVALID_USAGE, "nccl%s while the call before is in progress", call);
    return MB_NCCL_SUCCESS;
}

/* Device memory cannot be read here, between the emulator's operations. */
bool is_host_memory(const void *p)
{
    static int ends[2] = {-1, -1};
    char c;

    if (ends[0] < 0 && pipe(ends) != 0)
        return false;
    return write(ends[1], p, 1) == 1 && read(ends[0], &c, 1) == 1;
}

mb_nccl_result queue(kind k, const void *from, void *to, size_t n, mb_nccl_type type, mb_nccl_op op,
                     int root, int peer, mb_nccl_comm *c, void *stream)
{
    const mb_nccl_result r = usable(c, kind_names[k]);

    if (r != MB_NCCL_SUCCESS)
        return r;
    if (type > MB_NCCL_BF16 || op > MB_NCCL_MIN || op == 1)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "nccl%s: type %d, operation %d", kind_names[k], type, op);
    if (root < 0 || root >= c->size || peer < 0 || peer >= c->size)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "nccl%s: rank %d of %d", kind_names[k],
               peer != 0 ? peer : root, c->size);
    if ((k == SEND || k == RECV) && peer == c->rank)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "nccl%s: to and from oneself", kind_names[k]);
    if (n * type_bytes[type] * (size_t)c->size >= (size_t)1 << 31)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "nccl%s of %zu values is too much for the emulator",
               kind_names[k], n);
    if ((from == nullptr && k != RECV) || (to == nullptr && k != SEND))
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "nccl%s: no buffer", kind_names[k]);
    for (const void *p : {from, static_cast<const void *>(to)})
        if (p != nullptr && is_host_memory(p))
            REFUSE(MB_NCCL_INVALID_ARGUMENT, "nccl%s: %p is host memory", kind_names[k], p);
    if (stream == nullptr || (c->stream != nullptr && c->stream != stream))
        REFUSE(MB_NCCL_INVALID_USAGE, "nccl%s on another stream than before", kind_names[k]);
    if (enqueue() == nullptr)
        REFUSE(MB_NCCL_UNHANDLED_CUDA_ERROR, "the emulated GPU is not loaded (MBUYU_CUDA_LIBRARY)");
    c->stream = static_cast<cudaStream_t>(stream);
    if (n == 0)
        return answer(c);

    std::unique_ptr<operation> o(new operation);
    uint64_t &number = k == SEND   ? c->sent[(size_t)peer]
                       : k == RECV ? c->received[(size_t)peer]
                                   : c->collectives;
    o->c = c;
    o->mine = {k, type, op, root, n, number++};
    o->from = static_cast<const char *>(from);
    o->to = static_cast<char *>(to);
    o->peer = peer;
    c->queued++;
    group.push_back(std::move(o));
    const mb_nccl_result flushed = depth > 0 ? MB_NCCL_SUCCESS : flush();
    return flushed != MB_NCCL_SUCCESS ? flushed : answer(c);
}

} // namespace

/* ---- the interface ----------------------------------------------------------------------------- */

extern "C" {

mb_nccl_result ncclGetVersion(int *version)
{
    const char *other = getenv("MBUYU_EMU_NCCL_VERSION"); /* for tests of old ones */

    *version = other != nullptr ? (int)strtol(other, nullptr, 10) : VERSION;
    return MB_NCCL_SUCCESS;
}

mb_nccl_result ncclGetUniqueId(mb_nccl_id *id)
{
    static int made;
    id_content content = {ID_MAGIC, 0, 0};
    int started = 0, size = 0;

    MPI_Initialized(&started);
    if (!started)
        REFUSE(MB_NCCL_SYSTEM_ERROR, "the emulated NCCL needs MPI to run");
    MPI_Comm_rank(MPI_COMM_WORLD, &content.root);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size > RANKS_MAX)
        REFUSE(MB_NCCL_SYSTEM_ERROR, "the emulated NCCL knows at most %d ranks", RANKS_MAX);
    content.tags = content.root * LIVE_MAX + made++ % LIVE_MAX;
    memset(id, 0, sizeof *id);
    memcpy(id, &content, sizeof content);
    return MB_NCCL_SUCCESS;
}

mb_nccl_result ncclCommInitRankConfig(mb_nccl_comm **comm, int size, mb_nccl_id id, int rank,
                                      mb_nccl_config *config)
{
    id_content content;

    memcpy(&content, &id, sizeof content);
    if (content.magic != ID_MAGIC)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "this is not a unique id");
    if (rank < 0 || rank >= size)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "rank %d of %d", rank, size);
    if (config == nullptr || config->magic != 0xcafebeef || config->size < 44 ||
        config->version < MB_NCCL_VERSION_MIN || (config->blocking != 0 && config->blocking != 1) ||
        config->cga_cluster_size != INT_MIN || config->min_ctas != INT_MIN ||
        config->max_ctas != INT_MIN || config->net_name != nullptr ||
        config->split_share != INT_MIN || config->traffic_class != INT_MIN)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "a configuration that is not made by its initializer");

    mb_nccl_comm *c = new mb_nccl_comm;
    c->rank = rank;
    c->size = size;
    c->tags = content.tags;
    c->root = content.root;
    c->blocking = config->blocking == 1;
    start_joining(c);
    *comm = c;
    if (!c->blocking)
        return MB_NCCL_IN_PROGRESS;
    while (c->state == mb_nccl_comm::JOINING && c->error == MB_NCCL_SUCCESS) {
        join_further(c);
        sched_yield();
    }
    return c->error;
}

mb_nccl_result ncclCommGetAsyncError(mb_nccl_comm *c, mb_nccl_result *error)
{
    if (c == nullptr || c->state >= mb_nccl_comm::DESTROYED)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "ncclCommGetAsyncError on a communicator that is gone");
    join_further(c);
    *error = c->error != MB_NCCL_SUCCESS ? c->error
             : c->state == mb_nccl_comm::JOINING || (c->busy > 0 && c->busy-- > 0)
                 ? MB_NCCL_IN_PROGRESS
                 : MB_NCCL_SUCCESS;
    return MB_NCCL_SUCCESS;
}

mb_nccl_result ncclCommFinalize(mb_nccl_comm *c)
{
    const mb_nccl_result r = usable(c, "CommFinalize");

    if (r != MB_NCCL_SUCCESS)
        return r;
    if (c->queued > 0)
        REFUSE(MB_NCCL_INVALID_USAGE, "ncclCommFinalize with %d collectives queued", c->queued);
    c->state = mb_nccl_comm::FINALIZED;
    return answer(c);
}

/* Communicators that ended stay in memory, so that their use is noticed. */
mb_nccl_result ncclCommDestroy(mb_nccl_comm *c)
{
    if (c == nullptr || c->state != mb_nccl_comm::FINALIZED)
        REFUSE(MB_NCCL_INVALID_USAGE, "ncclCommDestroy without ncclCommFinalize");
    c->state = mb_nccl_comm::DESTROYED;
    return MB_NCCL_SUCCESS;
}

mb_nccl_result ncclCommAbort(mb_nccl_comm *c)
{
    if (c == nullptr || c->state >= mb_nccl_comm::DESTROYED)
        REFUSE(MB_NCCL_INVALID_ARGUMENT, "ncclCommAbort on a communicator that is gone");
    for (MPI_Request *r : {&c->collecting, &c->receiving})
        if (*r != MPI_REQUEST_NULL) {
            MPI_Cancel(r);
            MPI_Request_free(r);
        }
    c->state = mb_nccl_comm::ABORTED;
    return MB_NCCL_SUCCESS;
}

mb_nccl_result ncclGroupStart(void)
{
    depth++;
    return MB_NCCL_SUCCESS;
}

mb_nccl_result ncclGroupEnd(void)
{
    if (depth == 0)
        REFUSE(MB_NCCL_INVALID_USAGE, "ncclGroupEnd without ncclGroupStart");
    if (--depth > 0 || group.empty())
        return MB_NCCL_SUCCESS;
    mb_nccl_comm *c = group.front()->c;
    const mb_nccl_result r = flush();
    return r != MB_NCCL_SUCCESS ? r : answer(c);
}

mb_nccl_result ncclAllReduce(const void *from, void *to, size_t n, mb_nccl_type type, mb_nccl_op op,
                             mb_nccl_comm *comm, void *stream)
{
    return queue(ALL_REDUCE, from, to, n, type, op, 0, 0, comm, stream);
}

mb_nccl_result ncclReduce(const void *from, void *to, size_t n, mb_nccl_type type, mb_nccl_op op,
                          int root, mb_nccl_comm *comm, void *stream)
{
    return queue(REDUCE, from, to, n, type, op, root, 0, comm, stream);
}

mb_nccl_result ncclReduceScatter(const void *from, void *to, size_t n_out, mb_nccl_type type,
                                 mb_nccl_op op, mb_nccl_comm *comm, void *stream)
{
    return queue(REDUCE_SCATTER, from, to, n_out, type, op, 0, 0, comm, stream);
}

mb_nccl_result ncclAllGather(const void *from, void *to, size_t n_in, mb_nccl_type type,
                             mb_nccl_comm *comm, void *stream)
{
    return queue(ALL_GATHER, from, to, n_in, type, MB_NCCL_SUM, 0, 0, comm, stream);
}

mb_nccl_result ncclBroadcast(const void *from, void *to, size_t n, mb_nccl_type type, int root,
                             mb_nccl_comm *comm, void *stream)
{
    return queue(BROADCAST, from, to, n, type, MB_NCCL_SUM, root, 0, comm, stream);
}

mb_nccl_result ncclSend(const void *from, size_t n, mb_nccl_type type, int to, mb_nccl_comm *comm,
                        void *stream)
{
    return queue(SEND, from, nullptr, n, type, MB_NCCL_SUM, 0, to, comm, stream);
}

mb_nccl_result ncclRecv(void *to, size_t n, mb_nccl_type type, int from, mb_nccl_comm *comm,
                        void *stream)
{
    return queue(RECV, nullptr, to, n, type, MB_NCCL_SUM, 0, from, comm, stream);
}

const char *ncclGetErrorString(mb_nccl_result r)
{
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};

    return (unsigned)r < sizeof texts / sizeof *texts ? texts[r] : "unknown result code";
}

const char *ncclGetLastError(mb_nccl_comm *)
{
    return last_error;
}
}
