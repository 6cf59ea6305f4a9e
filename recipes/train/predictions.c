/* recipes/train/predictions.c - see predictions.h. */
#include "recipes/train/predictions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/tokenizers/bytes.h"

struct line {
    int64_t row,
        order;     /* order: in which lines of a rank were begun, after those of ranks before */
    int64_t at, n; /* its bytes, without the newline */
};

struct mb_predictions {
    mb_bytes text;
    struct line *line;
    size_t n, capacity;
    mb_json_doc *open; /* the row that is being filled; NULL: none */
    int64_t open_row;
};

mb_status mb_predictions_new(mb_predictions **out)
{
    return MB_NEW(out);
}

void mb_predictions_free(mb_predictions *p)
{
    if (p == NULL)
        return;
    mb_json_free(p->open);
    mb_bytes_release(&p->text);
    mb_free(p->line);
    mb_free(p);
}

static mb_status add_line(mb_predictions *p, int64_t row, const char *text, size_t n)
{
    const int64_t at = (int64_t)p->text.n;

    MB_TRY(mb_grow((void **)&p->line, &p->capacity, p->n + 1, sizeof *p->line, "predictions"));
    MB_TRY(mb_bytes_add(&p->text, text, n));
    MB_TRY(mb_bytes_puts(&p->text, "\n"));
    p->line[p->n] = (struct line){.row = row, .order = (int64_t)p->n, .at = at, .n = (int64_t)n};
    p->n++;
    return MB_OK;
}

static mb_status close_row(mb_predictions *p)
{
    char *text;
    size_t n;
    mb_status st;

    if (p->open == NULL)
        return MB_OK;
    MB_TRY(mb_json_text(mb_json_root(p->open), 0, &text, &n));
    mb_json_free(p->open);
    p->open = NULL;
    st = add_line(p, p->open_row, text, n);
    mb_free(text);
    return st;
}

mb_status mb_predictions_row(mb_predictions *p, int64_t row, mb_json *object)
{
    MB_TRY(close_row(p));
    MB_TRY(mb_json_doc_new("predictions", &p->open));
    p->open_row = row;
    *object = mb_json_root(p->open);
    return mb_json_set_int(*object, "row", row);
}

int64_t mb_predictions_count(const mb_predictions *p)
{
    return (int64_t)p->n;
}

const char *mb_predictions_line(const mb_predictions *p, int64_t i, size_t *n)
{
    *n = (size_t)p->line[i].n;
    return p->text.p + p->line[i].at;
}

/* ---- gathering ---------------------------------------------------------------------------- */

enum { LINES, BYTES, SIZES };

/* Every rank's number of lines and of bytes, on all of them. */
static mb_status exchange_sizes(const mb_predictions *p, mb_comm *comm, int64_t *sizes, int64_t *at)
{
    for (int r = 0; r <= comm->size; r++)
        at[r] = (int64_t)r * SIZES;
    sizes[at[comm->rank] + LINES] = (int64_t)p->n;
    sizes[at[comm->rank] + BYTES] = (int64_t)p->text.n;
    return comm->ops->all_gather(comm, sizes, at, MB_DTYPE_I64);
}

static mb_status make_room(mb_predictions *p, const mb_comm *comm, const int64_t *sizes)
{
    size_t lines = 0, bytes = 0;

    if (comm->rank != 0)
        return MB_OK;
    for (int r = 0; r < comm->size; r++) {
        lines += (size_t)sizes[r * SIZES + LINES];
        bytes += (size_t)sizes[r * SIZES + BYTES];
    }
    MB_TRY(mb_grow((void **)&p->line, &p->capacity, lines, sizeof *p->line, "predictions"));
    return mb_bytes_reserve(&p->text, bytes - p->text.n);
}

/* Appends the lines of another rank. */
static mb_status take_from(mb_predictions *p, mb_comm *comm, int from, int64_t lines, int64_t bytes)
{
    struct line *line = p->line + p->n;
    const int64_t at = (int64_t)p->text.n, order = (int64_t)p->n;

    if (lines == 0)
        return MB_OK;
    MB_TRY(comm->ops->recv(comm, line, lines * (int64_t)sizeof *line, from));
    MB_TRY(comm->ops->recv(comm, p->text.p + at, bytes, from));
    for (int64_t i = 0; i < lines; i++) {
        line[i].at += at;
        line[i].order += order;
    }
    p->n += (size_t)lines;
    p->text.n += (size_t)bytes;
    return MB_OK;
}

static mb_status move_to_first(mb_predictions *p, mb_comm *comm, const int64_t *sizes)
{
    if (comm->rank == 0) {
        for (int r = 1; r < comm->size; r++)
            MB_TRY(take_from(p, comm, r, sizes[r * SIZES + LINES], sizes[r * SIZES + BYTES]));
        return MB_OK;
    }
    if (p->n > 0) {
        MB_TRY(comm->ops->send(comm, p->line, (int64_t)(p->n * sizeof *p->line), 0));
        MB_TRY(comm->ops->send(comm, p->text.p, (int64_t)p->text.n, 0));
    }
    p->n = 0;
    p->text.n = 0;
    return MB_OK;
}

static int by_row(const void *a, const void *b)
{
    const struct line *x = a, *y = b;

    if (x->row != y->row)
        return x->row < y->row ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

mb_status mb_predictions_gather(mb_predictions *p, mb_comm *comm)
{
    int64_t *sizes = NULL, *at = NULL;
    mb_status st = close_row(p);

    if (st == MB_OK)
        st = MB_NEW_ARRAY(&sizes, comm->size * SIZES);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&at, comm->size + 1);
    MB_TRY_GOTO(mb_comm_agree(comm, st), st, done);
    MB_TRY_GOTO(exchange_sizes(p, comm, sizes, at), st, done);
    MB_TRY_GOTO(mb_comm_agree(comm, make_room(p, comm, sizes)), st, done);
    MB_TRY_GOTO(move_to_first(p, comm, sizes), st, done);
    if (p->n > 0)
        qsort(p->line, p->n, sizeof *p->line, by_row);
done:
    mb_free(at);
    mb_free(sizes);
    return st;
}

/* ---- what becomes of them ----------------------------------------------------------------- */

mb_status mb_predictions_write(const mb_predictions *p, const char *path)
{
    mb_bytes out = {0};
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_bytes_reserve(&out, p->text.n + 1), st, done);
    for (size_t i = 0; i < p->n; i++) /* the newline is behind the line */
        MB_TRY_GOTO(mb_bytes_add(&out, p->text.p + p->line[i].at, (size_t)p->line[i].n + 1), st,
                    done);
    st = mb_file_write_atomic(path, out.p, out.n);
done:
    mb_bytes_release(&out);
    return st;
}

static mb_status parse(const mb_predictions *p, mb_answers *rows)
{
    for (size_t i = 0; i < p->n; i++) {
        mb_json_doc *doc;
        mb_status st;
        MB_TRY(mb_json_parse(p->text.p + p->line[i].at, (size_t)p->line[i].n, "predictions",
                             (int64_t)i, MB_EBUG, &doc));
        st = mb_answers_add(rows, mb_json_root(doc));
        mb_json_free(doc);
        MB_TRY(st);
    }
    return MB_OK;
}

static mb_status score(const mb_answers *rows, const mb_metric *const *metric, int n,
                       const mb_metric_options *o, double *value)
{
    mb_scores s;

    for (int i = 0; i < n; i++) {
        MB_TRY(mb_metric_compute(metric[i], rows, o, &s));
        value[i] = s.at[0].value;
    }
    return MB_OK;
}

static mb_status score_group(const mb_answers *rows, int32_t id, const mb_metric *const *metric,
                             int n, const mb_metric_options *o, double *value)
{
    mb_answers *some;

    MB_TRY(mb_answers_of_group(rows, id, &some));
    const mb_status st = score(some, metric, n, o, value);
    value[n] = (double)some->n;
    mb_answers_free(some);
    return st;
}

static mb_status score_groups(const mb_answers *rows, const mb_metric *const *metric, int n,
                              const mb_metric_options *o, const mb_group_scores *groups)
{
    int32_t *id = NULL;
    int n_groups = 0;
    mb_status st;

    for (int i = 0; i < groups->n * (n + 1); i++)
        groups->value[i] = i % (n + 1) == n ? 0.0 : NAN;
    st = mb_answers_groups(rows, &id, &n_groups);
    for (int g = 0; g < n_groups && st == MB_OK; g++)
        for (int i = 0; i < groups->n && st == MB_OK; i++)
            if (strcmp(mb_answers_text(rows, id[g]), groups->name[i]) == 0)
                st = score_group(rows, id[g], metric, n, o, groups->value + i * (n + 1));
    mb_free(id);
    return st;
}

static mb_status score_all(const mb_predictions *p, const mb_metric *const *metric, int n,
                           const mb_metric_options *o, double *value, const mb_group_scores *groups)
{
    mb_answers *rows;
    mb_status st;

    MB_TRY(mb_answers_new(&rows));
    st = parse(p, rows);
    if (st == MB_OK)
        st = score(rows, metric, n, o, value);
    if (st == MB_OK && groups != NULL)
        st = score_groups(rows, metric, n, o, groups);
    mb_answers_free(rows);
    return st;
}

mb_status mb_predictions_score(const mb_predictions *p, mb_comm *comm,
                               const mb_metric *const *metric, int n, const mb_metric_options *o,
                               double *value, const mb_group_scores *groups)
{
    MB_TRY(
        mb_comm_agree(comm, comm->rank == 0 ? score_all(p, metric, n, o, value, groups) : MB_OK));
    MB_TRY(comm->ops->broadcast(comm, value, n * (int64_t)sizeof *value, 0));
    return groups == NULL
               ? MB_OK
               : comm->ops->broadcast(comm, groups->value,
                                      groups->n * (n + 1) * (int64_t)sizeof *groups->value, 0);
}
