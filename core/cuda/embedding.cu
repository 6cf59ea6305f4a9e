/* core/cuda/embedding.cu - rows picked by an index: embedding tables, gather and scatter.
 *
 * The gradient of a table adds rows that have the same id, in order of their rows, without atomics
 * and without looking at all rows for each id:
 *
 *     sort    one block sorts the rows by id: stable radix sort from the lowest digit, each warp
 *             ranks its part with ballots
 *     mark    each place of the sorted order learns whether a chunk begins there: runs of one id are
 *             cut every CHUNK rows, counted from the run's begin, so that one frequent id is not one
 *             thread's chain of additions
 *     chunks  a run that is one chunk is added to its row of the table, row after row; chunks of
 *             longer runs are summed into workspace
 *     runs    the chunks of a long run are added to its row of the table, in their order
 *
 * What an id gets depends on its own rows alone. Ids outside the table are left out.
 */
#include "core/cuda/each.h"

namespace {

/* ---- rows picked and added ------------------------------------------------------------------- */

template <typename U> struct pick_each {
    U *y;
    const U *x;
    const int32_t *index;
    int64_t y_stride, x_stride;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        const int64_t from = index[row];

        y[row * y_stride + col] = from < 0 ? U{} : x[from * x_stride + col];
    }
};

template <typename U>
mb_status pick_units(const mb_exec *ex, mb_tensor *y, const mb_tensor *x, const int32_t *index)
{
    const int64_t size = (int64_t)sizeof(U);
    const mb_each units = {mb_rows(y), mb_dtype_bytes(y->dtype, mb_cols(y)) / size, 1};

    return mb_each_launch<1>(ex, units,
                             pick_each<U>{static_cast<U *>(y->data),
                                          static_cast<const U *>(x->data), index,
                                          mb_dtype_bytes(y->dtype, mb_row_stride(y)) / size,
                                          mb_dtype_bytes(x->dtype, mb_row_stride(x)) / size});
}

/* y(i, :) = x(index[i], :), zeros where the index is negative. */
mb_status pick_rows(const char *kernel, const mb_exec *ex, mb_tensor *y, const mb_tensor *x,
                    const mb_tensor *index)
{
    const mb_tensor *const t[] = {y, x};

    MB_TRY(mb_each_alike(kernel, 2, t));
    MB_REQUIRE(mb_cols(x) == mb_cols(y) && mb_dtype_block(x->dtype) == 1 &&
                   index->dtype == MB_DTYPE_I32 && mb_tensor_count(index) == mb_rows(y),
               MB_EBUG, "%s: shapes that do not fit", kernel);
    const int width = mb_byte_width(2, mb_dtype_bytes(y->dtype, mb_cols(y)), 2, t);

    MB_BYTE_DISPATCH(width, return pick_units<U>(ex, y, x, mb_i32(index)));
    return MB_OK;
}

template <typename D, typename T> struct scatter_each {
    mb_mat<D> dx;
    mb_mat<const T> dy;
    const int32_t *index;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        const int64_t to = index[row];
        float a[N], b[N];

        if (to < 0)
            return;
        mb_load<N>(a, dx.row(to) + col);
        mb_load<N>(b, dy.row(row) + col);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            a[i] += b[i];
        mb_store<N>(dx.row(to) + col, a);
    }
};

template <int most, typename D, typename T>
mb_status scatter(const mb_exec *ex, mb_tensor *dx, const mb_tensor *dy, const int32_t *index)
{
    const mb_tensor *const to = dx;
    const int width = mb_vec_width<D>(1, &to, most) == most ? mb_vec_width<T>(1, &dy, most) : 1;
    const mb_each e = {mb_rows(dy), mb_cols(dy), width};

    return mb_each_run<most>(ex, e,
                             scatter_each<D, T>{mb_mat_of<D>(dx), mb_mat_of<const T>(dy), index});
}

/* ---- sort ------------------------------------------------------------------------------------ */

enum { SORT_BLOCK = 1024, SORT_WARPS = SORT_BLOCK / 32, DIGIT_BITS = 8, BINS = 1 << DIGIT_BITS };
constexpr int64_t CHUNK = 64; /* rows */

/* Ids and their rows, in some order. */
struct entries {
    int32_t *id, *row;
};

/* The lanes of the warp whose `bits` lowest bits of v are this lane's; lanes that are not `there`
 * are nobody's. */
MB_DEVICE uint32_t lanes_alike(uint32_t v, int bits, bool there)
{
    uint32_t same = mb_ballot(there);

    for (int b = 0; b < bits; b++) {
        const bool set = (v >> b & 1u) != 0;
        const uint32_t with = mb_ballot(set);

        same &= set ? with : ~with;
    }
    return same;
}

/* Turns count[warp][bin] into where the warp's first entry of the bin belongs: bins in order, in
 * each the warps in order. */
MB_DEVICE void places_of(int32_t *count, int32_t *part, int bins)
{
    const int bin = (int)threadIdx.x;
    int32_t sum = 0;

    __syncthreads();
    if (bin < bins) {
        for (int w = 0; w < SORT_WARPS; w++) {
            const int32_t n = count[w * BINS + bin];

            count[w * BINS + bin] = sum;
            sum += n;
        }
    }
    /* the sums of all bins before: within the warp, then over the warps */
    int32_t upto = sum;

    for (int by = 1; by < 32; by *= 2) {
        const int32_t before = mb_shfl_up(upto, by);

        upto += mb_lane() >= by ? before : 0;
    }
    if (mb_lane() == 31)
        part[mb_warp()] = upto;
    __syncthreads();
    if (bin < bins) {
        int32_t start = upto - sum;

        for (int w = 0; w < mb_warp(); w++)
            start += part[w];
        for (int w = 0; w < SORT_WARPS; w++)
            count[w * BINS + bin] += start;
    }
    __syncthreads();
}

/* One digit: from -> to, stable. With `ids` these are what is sorted and `from` is not read. */
MB_DEVICE void sort_digit(entries to, entries from, const int32_t *ids, int64_t rows, int32_t vocab,
                          int32_t skip, int shift, int bits, int32_t *count, int32_t *part)
{
    const int bins = 1 << bits;
    const int64_t each = (rows + SORT_BLOCK - 1) / SORT_BLOCK * 32;
    const int64_t begin = mb_warp() * each, end = begin + each < rows ? begin + each : rows;
    int32_t *mine = count + mb_warp() * BINS;

    for (int b = mb_lane(); b < bins; b += 32)
        mine[b] = 0;
    mb_syncwarp();
    for (int pass = 0; pass < 2; pass++) { /* counts, then moves */
        for (int64_t i = begin; i < end; i += 32) {
            const int64_t at = i + mb_lane();
            const bool there = at < end;
            int32_t id = 0, row = 0;

            if (there && ids != nullptr) {
                id = ids[at] < 0 || ids[at] > vocab || ids[at] == skip ? vocab : ids[at];
                row = (int32_t)at;
            } else if (there) {
                id = from.id[at];
                row = from.row[at];
            }
            const uint32_t digit = (uint32_t)id >> shift & (uint32_t)(bins - 1);
            const uint32_t same = lanes_alike(digit, bits, there);
            const uint32_t before = same & ((1u << mb_lane()) - 1u);

            if (there && pass == 1) {
                const int32_t place = mine[digit] + mb_popcount(before);

                to.id[place] = id;
                to.row[place] = row;
            }
            mb_syncwarp();
            if (there && before == 0)
                mine[digit] += mb_popcount(same);
            mb_syncwarp();
        }
        if (pass == 0)
            places_of(count, part, bins);
    }
    __syncthreads();
}

/* Sorts by id; `skip` and ids outside the table count as `vocab` and come last. The result is in a after an
 * odd number of digits, else in b. */
MB_GLOBAL void MB_BOUNDS(SORT_BLOCK)
    sort_kernel(entries a, entries b, const int32_t *ids, int64_t rows, int32_t vocab, int32_t skip,
                int digits, int bits)
{
    MB_SHARED(int32_t, count, SORT_WARPS * BINS);
    MB_SHARED(int32_t, part, SORT_WARPS);

    for (int d = 0; d < digits; d++)
        sort_digit(d % 2 == 0 ? a : b, d % 2 == 0 ? b : a, d == 0 ? ids : nullptr, rows, vocab,
                   skip, d * bits, bits, count, part);
}

/* ---- mark ------------------------------------------------------------------------------------ */

/* How many of id[0..n) are less than `than`. */
MB_DEVICE int64_t count_less(const int32_t *id, int64_t n, int32_t than)
{
    int64_t low = 0;

    while (low < n) {
        const int64_t mid = (low + n) / 2;

        if (id[mid] < than)
            low = mid + 1;
        else
            n = mid;
    }
    return low;
}

/* What begins at a place of the sorted order: a chunk's length, or nothing; is it the first of its
 * run, and has the run more. */
struct chunk {
    int16_t length;
    int8_t first, more;
};

/* The long run that begins in a window of CHUNK places; there is at most one. */
struct run {
    int32_t begin, chunks; /* none: 0 chunks */
};

/* Where the sum of a chunk stands. Of a window's places at most two begin chunks of long runs: the
 * last of one run, which is not its first, and the first of another. */
MB_DEVICE int64_t slot_of(int64_t place, bool first)
{
    return place / CHUNK * 2 + (first ? 1 : 0);
}

MB_GLOBAL void MB_BOUNDS(MB_EACH_BLOCK)
    mark_kernel(chunk *chunks, run *runs, const int32_t *id, int64_t rows, int32_t vocab)
{
    const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    for (int64_t i = first; i < rows; i += (int64_t)gridDim.x * blockDim.x) {
        const int32_t mine = id[i];
        const int64_t begin = count_less(id, i, mine);
        const bool last = i % CHUNK == CHUNK - 1 || i == rows - 1;
        chunk c = {0, 0, 0};

        if (mine < vocab && (i - begin) % CHUNK == 0) {
            const int64_t most = rows - i < CHUNK ? rows - i : CHUNK;

            c.length = (int16_t)count_less(id + i, most, mine + 1);
            c.first = i == begin;
            c.more = begin + CHUNK < rows && id[begin + CHUNK] == mine;
        }
        chunks[i] = c;
        if (last) { /* a long run that begins in this window is still there at its end */
            run r = {(int32_t)begin, 0};

            if (mine < vocab && begin / CHUNK == i / CHUNK && begin + CHUNK < rows &&
                id[begin + CHUNK] == mine) {
                const int64_t length = count_less(id + begin, rows - begin, mine + 1);

                r.chunks = (int32_t)((length + CHUNK - 1) / CHUNK);
            }
            runs[i / CHUNK] = r;
        }
    }
}

/* ---- chunks and runs ------------------------------------------------------------------------- */

template <typename T, int N>
MB_GLOBAL void MB_BOUNDS(MB_EACH_BLOCK)
    chunks_kernel(mb_mat<float> dw, float *partial, mb_mat<const T> dy, entries sorted,
                  const chunk *chunks, mb_walk w)
{
    for (auto p = w.first(); w.more(p); w.next(p)) {
        const int64_t place = p.row, col = p.unit * N;
        const chunk c = chunks[place];
        float *to = c.more ? partial + slot_of(place, c.first) * dw.cols : dw.row(sorted.id[place]);
        float sum[N] = {};

        if (c.length == 0)
            continue;
        if (!c.more)
            mb_load<N>(sum, to + col);
        MB_UNROLL_BY(4)
        for (int k = 0; k < c.length; k++) {
            float v[N];

            mb_load<N>(v, dy.row(sorted.row[place + k]) + col);
            MB_UNROLL
            for (int j = 0; j < N; j++)
                sum[j] += v[j];
        }
        mb_store<N>(to + col, sum);
    }
}

template <int N>
MB_GLOBAL void MB_BOUNDS(MB_EACH_BLOCK) runs_kernel(mb_mat<float> dw, const float *partial,
                                                    const int32_t *id, const run *runs, mb_walk w)
{
    for (auto p = w.first(); w.more(p); w.next(p)) {
        const int64_t col = p.unit * N;
        const run r = runs[p.row];
        float sum[N];

        if (r.chunks == 0)
            continue;
        float *to = dw.row(id[r.begin]) + col;

        mb_load<N>(sum, to);
        MB_UNROLL_BY(4)
        for (int k = 0; k < r.chunks; k++) {
            float v[N];

            mb_load<N>(v, partial + slot_of(r.begin + (int64_t)k * CHUNK, k == 0) * dw.cols + col);
            MB_UNROLL
            for (int j = 0; j < N; j++)
                sum[j] += v[j];
        }
        mb_store<N>(to, sum);
    }
}

/* What lies where in the workspace, or how much there is of it. */
struct places {
    entries a, b;
    chunk *chunks;
    run *runs;
    float *partial;
    size_t bytes;
    int64_t windows;
};

places places_in(void *workspace, int64_t rows, int64_t cols)
{
    char *const base = static_cast<char *>(workspace);
    places p = {};
    size_t used = 0;
    const auto take = [&](int64_t bytes) {
        char *const at = base == nullptr ? nullptr : base + used;

        used += ((size_t)bytes + 63) / 64 * 64;
        return static_cast<void *>(at);
    };

    p.windows = mb_div_up(rows, CHUNK);
    for (entries *e : {&p.a, &p.b}) {
        e->id = static_cast<int32_t *>(take(rows * 4));
        e->row = static_cast<int32_t *>(take(rows * 4));
    }
    p.chunks = static_cast<chunk *>(take(rows * (int64_t)sizeof(chunk)));
    p.runs = static_cast<run *>(take(p.windows * (int64_t)sizeof(run)));
    if (rows > CHUNK)
        p.partial = static_cast<float *>(take(2 * p.windows * cols * 4));
    p.bytes = used;
    return p;
}

template <typename T, int N>
mb_status add_sorted(const mb_exec *ex, mb_tensor *dw, const mb_tensor *dy, const places &p,
                     entries sorted)
{
    const mb_mat<float> to = mb_mat_of<float>(dw);
    const mb_walk all = mb_walk_of(mb_rows(dy), mb_cols(dy) / N);
    const mb_walk windows = mb_walk_of(p.windows, mb_cols(dy) / N);

    MB_LAUNCH(ex, (chunks_kernel<T, N>), all.blocks, MB_EACH_BLOCK, 0, to, p.partial,
              mb_mat_of<const T>(dy), sorted, p.chunks, all);
    if (p.partial == nullptr) /* no run can be long */
        return MB_OK;
    MB_LAUNCH(ex, (runs_kernel<N>), windows.blocks, MB_EACH_BLOCK, 0, to, p.partial, sorted.id,
              p.runs, windows);
    return MB_OK;
}

} // namespace

mb_status mb_cuda_embedding_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *ids, const mb_tensor *w)
{
    return pick_rows("embedding_fwd", ex, y, w, ids);
}

mb_status mb_cuda_gather_rows(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_tensor *index)
{
    return pick_rows("gather_rows", ex, y, x, index);
}

/* The sum may be f32 and what is added of another type. */
mb_status mb_cuda_scatter_rows(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy,
                               const mb_tensor *index)
{
    if (dx == nullptr)
        return MB_OK;
    const mb_tensor *const t[] = {dx, dy};
    const bool mixed = dx->dtype == MB_DTYPE_F32 && dy->dtype != MB_DTYPE_F32;

    MB_REQUIRE(mb_cols(dx) == mb_cols(dy) && index->dtype == MB_DTYPE_I32 &&
                   mb_tensor_count(index) == mb_rows(dy),
               MB_EBUG, "scatter_rows: shapes that do not fit");
    if (!mixed)
        MB_TRY(mb_each_alike("scatter_rows", 2, t));
    MB_CUDA_DISPATCH(dy->dtype, {
        if (mixed)
            return (scatter<4, float, T>(ex, dx, dy, mb_i32(index)));
        return (scatter<mb_each_wide<T>, T, T>(ex, dx, dy, mb_i32(index)));
    });
    return MB_OK;
}

size_t mb_cuda_embedding_bwd_workspace(mb_exec *ex, mb_tensor *dw, const mb_tensor *ids,
                                       const mb_tensor *dy, int64_t skip)
{
    (void)ex, (void)ids, (void)skip;
    return dw == nullptr ? 0 : places_in(nullptr, mb_rows(dy), mb_cols(dy)).bytes;
}

mb_status mb_cuda_embedding_bwd(mb_exec *ex, mb_tensor *dw, const mb_tensor *ids,
                                const mb_tensor *dy, int64_t skip)
{
    if (dw == nullptr)
        return MB_OK;
    const int64_t rows = mb_rows(dy), vocab = mb_rows(dw);

    MB_REQUIRE(mb_cols(dw) == mb_cols(dy) && dw->dtype == MB_DTYPE_F32 &&
                   ids->dtype == MB_DTYPE_I32 && mb_tensor_count(ids) == rows,
               MB_EBUG, "embedding_bwd: shapes or types that do not fit");
    MB_REQUIRE(rows < INT32_MAX && vocab < INT32_MAX, MB_EBUG, "embedding_bwd: too many rows");
    if (rows == 0)
        return MB_OK;
    const places p = places_in(ex->workspace, rows, mb_cols(dy));
    int width = 1; /* bits of 0 .. vocab */

    while ((vocab >> width) != 0)
        width++;
    const int digits = (int)mb_div_up(width, DIGIT_BITS), bits = (int)mb_div_up(width, digits);
    const entries sorted = digits % 2 != 0 ? p.a : p.b;

    MB_LAUNCH(ex, sort_kernel, 1, SORT_BLOCK, 0, p.a, p.b, mb_i32(ids), rows, (int32_t)vocab,
              (int32_t)(skip < 0 ? -1 : skip), digits, bits);
    MB_LAUNCH(ex, mark_kernel, mb_walk_of(rows, 1).blocks, MB_EACH_BLOCK, 0, p.chunks, p.runs,
              sorted.id, rows, (int32_t)vocab);
    MB_CUDA_DISPATCH(dy->dtype, {
        const mb_tensor *const t = dw;

        if (mb_vec_width<T>(1, &dy, 4) == 4 && mb_vec_width<float>(1, &t, 4) == 4)
            return (add_sorted<T, 4>(ex, dw, dy, p, sorted));
        return (add_sorted<T, 1>(ex, dw, dy, p, sorted));
    });
    return MB_OK;
}
