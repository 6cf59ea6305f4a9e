/* autograd/live_rows.c - see autograd/live_rows.h. */
#include "autograd/live_rows.h"

mb_status mb_live_rows_put(mb_tape *t, mb_var *table, const mb_live_rows *r)
{
    mb_exec *ex = mb_tape_exec(t);
    const void *kept;

    MB_REQUIRE(!table->needs_grad, MB_EBUG, "a table that is trained whole has no rows of its own");
    for (int i = 0; i < r->n_runs; i++) {
        const mb_row_run *run = &r->run[i];
        mb_tensor to = mb_tensor_rows(&table->value, run->first, run->n);
        const mb_tensor from = mb_tensor_rows(&r->var->value, run->row, run->n);

        MB_TRY(MB_RUN(ex, copy, &to, &from));
    }
    mb_tape_read(t, table);
    mb_tape_read(t, r->var);
    MB_TRY(mb_tape_attr(t, r, sizeof *r, &kept));
    table->live = kept;
    return MB_OK;
}

mb_var *mb_live_rows_of(const mb_var *table)
{
    return table->live != NULL ? table->live->var : NULL;
}

/* The trained row that stands for row `id` of the table; -1: none. */
static int64_t row_of(const mb_live_rows *r, int64_t id)
{
    for (int i = 0; i < r->n_runs; i++)
        if (id >= r->run[i].first && id < r->run[i].first + r->run[i].n)
            return r->run[i].row + id - r->run[i].first;
    return -1;
}

mb_status mb_live_rows_embedding_bwd(mb_tape *t, const mb_live_rows *r, mb_tensor *d_rows,
                                     const mb_tensor *ids, const mb_tensor *dy, int64_t skip)
{
    const int64_t n = mb_tensor_count(ids);
    mb_exec *ex = mb_tape_exec(t);
    mb_tensor slots;

    MB_TRY(mb_tape_temporary(t, MB_DTYPE_I32, 2, (const int64_t[]){n, 1}, &slots));
    MB_TRY(MB_RUN(ex, gather_rows, &slots, &r->slot, ids));
    const mb_tensor list = mb_tensor_1d(slots.data, MB_DTYPE_I32, n);
    return MB_RUN(ex, embedding_bwd, d_rows, &list, dy, row_of(r, skip));
}

mb_status mb_live_rows_linear_bwd(mb_tape *t, const mb_live_rows *r, mb_tensor *d_rows,
                                  const mb_tensor *dy, const mb_tensor *x, float beta)
{
    for (int i = 0; i < r->n_runs; i++) {
        const mb_row_run *run = &r->run[i];
        mb_tensor to = mb_tensor_rows(d_rows, run->row, run->n);
        const mb_tensor from = mb_tensor_columns(dy, run->first, run->n);

        MB_TRY(MB_RUN(mb_tape_exec(t), gemm, &to, &from, true, x, false, 1.0f, beta, NULL));
    }
    return MB_OK;
}

mb_status mb_live_rows_sample(mb_tape *t, int64_t v, int64_t d, mb_var **table)
{
    enum { MOST = 32 };
    static float numbers[MOST * MOST];
    static int32_t slot[MOST];
    static mb_row_run run[] = {{.row = 0, .n = 1}, {.first = 1, .row = 1, .n = 2}};
    const mb_tensor value = mb_tensor_2d(numbers, MB_DTYPE_F32, v, d);
    mb_live_rows r = {.slot = mb_tensor_2d(slot, MB_DTYPE_I32, v, 1), .run = run, .n_runs = 2};

    MB_REQUIRE(v >= 5 && v <= MOST && d <= MOST, MB_EBUG, "no sample of %lld rows", (long long)v);
    for (int64_t i = 0; i < v; i++)
        slot[i] = i == v - 1 ? 0 : i == 1 || i == 2 ? (int32_t)i : -1;
    for (int64_t i = 0; i < v * d; i++)
        numbers[i] = mb_sample_projection(i);
    run[0].first = v - 1;
    MB_TRY(mb_tape_constant(t, &value, table));
    MB_TRY(mb_sample_var(t, 3, d, &r.var));
    MB_TRY(mb_tape_seed(t, r.var, 0.0f, NULL));
    return mb_live_rows_put(t, *table, &r);
}
