/* core/profile.c - rows, spans and events; see core/profile.h. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/profile_inside.h"

enum { ROWS = 1024, EVENTS = 1 << 16 };

mb_status mb_profile_new(const mb_profile_options *o, mb_profile **out)
{
    mb_profile *p = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&p));
    p->max_rows = o->rows > 0 ? o->rows : ROWS;
    p->max_events = o->events > 0 ? o->events : EVENTS;
    for (p->n_slots = 2; p->n_slots < 2 * (uint32_t)p->max_rows;)
        p->n_slots *= 2;
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->row, p->max_rows), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->slot, p->n_slots), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->event, p->max_events), st, fail);
    p->row[0].key.operation = -1;
    p->n_rows = 1;
    *out = p;
    return MB_OK;
fail:
    mb_profile_free(p);
    return st;
}

void mb_profile_free(mb_profile *p)
{
    if (p == NULL)
        return;
    mb_profile_unwrap(p);
    mb_free(p->row);
    mb_free(p->slot);
    mb_free(p->event);
    mb_free(p);
}

int64_t mb_profile_bytes(const mb_profile *p)
{
    return p == NULL ? 0
                     : (int64_t)sizeof *p + p->max_rows * (int64_t)sizeof *p->row +
                           p->n_slots * (int64_t)sizeof *p->slot +
                           p->max_events * (int64_t)sizeof *p->event;
}

void mb_profile_start(mb_profile *p)
{
    p->origin = mb_clock();
}

/* ---- rows --------------------------------------------------------------------------------- */

static bool same(const mb_profile_key *a, const mb_profile_key *b)
{
    return a->operation == b->operation && a->flags == b->flags &&
           memcmp(a->dtype, b->dtype, sizeof a->dtype) == 0 &&
           memcmp(a->dim, b->dim, sizeof a->dim) == 0;
}

static uint32_t hash(const mb_profile_key *k)
{
    uint64_t h = (uint64_t)k->operation * 8 + k->flags;

    for (int i = 0; i < 3; i++)
        h = h * 64 + (uint64_t)k->dtype[i];
    for (int i = 0; i < 4; i++)
        h = (h ^ (uint64_t)k->dim[i]) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

/* The row of a key, made when there is room for it. */
static int row_of(mb_profile *p, const mb_profile_key *k)
{
    uint32_t at = hash(k) & (p->n_slots - 1);

    for (; p->slot[at] != 0; at = (at + 1) & (p->n_slots - 1))
        if (same(&p->row[p->slot[at]].key, k))
            return p->slot[at];
    if (p->n_rows == p->max_rows)
        return 0;
    p->row[p->n_rows].key = *k;
    p->slot[at] = p->n_rows;
    return p->n_rows++;
}

/* ---- events ------------------------------------------------------------------------------- */

/* -1: it is not kept. */
static int new_event(mb_profile *p, double from, int operation, int row)
{
    if (!p->tracing)
        return -1;
    if (p->n_events == p->max_events) {
        p->lost++;
        return -1;
    }
    p->event[p->n_events] = (mb_profile_event){
        .from = from - p->origin, .to = from - p->origin, .operation = operation, .row = row};
    return p->n_events++;
}

static void end_event(mb_profile *p, int event, double to)
{
    if (event >= 0)
        p->event[event].to = to - p->origin;
}

bool mb_profile_enter(mb_profile *p)
{
    if (!p->counting || p->busy)
        return false;
    p->busy = true;
    return true;
}

void mb_profile_leave(mb_profile *p, double from, double to, const mb_profile_row *call)
{
    const int row = row_of(p, &call->key);
    mb_profile_row *r = &p->row[row];

    r->calls++;
    r->seconds += to - from;
    r->flop += call->flop;
    r->bytes += call->bytes;
    p->kind_seconds[mb_profile_kind_of(call->key.operation)] += to - from;
    end_event(p, new_event(p, from, call->key.operation, row), to);
    p->busy = false;
}

/* ---- spans and steps ---------------------------------------------------------------------- */

static bool counts(const mb_profile *p, mb_span s)
{
    return p->counting || s >= MB_SPAN_STEP_PARTS;
}

void mb_profile_span_begin(mb_profile *p, mb_span s)
{
    const double now = mb_clock();

    MB_ASSERT(p->depth < MB_PROFILE_DEPTH);
    p->open[p->depth].span = s;
    p->open[p->depth].from = now;
    p->open[p->depth].event =
        counts(p, s) ? new_event(p, now, MB_OPERATION_SPANS + (int)s, -1) : -1;
    p->depth++;
}

void mb_profile_span_end(mb_profile *p, mb_span s)
{
    const double now = mb_clock();

    MB_ASSERT(p->depth > 0 && p->open[p->depth - 1].span == s);
    p->depth--;
    if (!counts(p, s))
        return;
    p->span_seconds[s] += now - p->open[p->depth].from;
    p->span_calls[s]++;
    end_event(p, p->open[p->depth].event, now);
}

/* What is queued belongs to what came before. A peer may be late for it. */
static mb_status settle(const mb_profile *p)
{
    if (!p->counting || mb_device_is_host(p->device))
        return MB_OK;
    return p->peers != NULL ? mb_comm_wait(p->peers, MB_STREAM_COMPUTE)
                            : p->device->ops->wait(p->device, MB_STREAM_COMPUTE);
}

mb_status mb_profile_step_begin(mb_profile *p)
{
    if (p == NULL)
        return MB_OK;
    p->counting = p->seen++ >= MB_PROFILE_WARMUP;
    p->tracing = p->counting && p->steps < MB_PROFILE_TRACED;
    MB_TRY(settle(p));
    mb_profile_span_begin(p, MB_SPAN_STEP);
    return MB_OK;
}

mb_status mb_profile_step_end(mb_profile *p)
{
    if (p == NULL)
        return MB_OK;
    MB_TRY(settle(p));
    mb_profile_span_end(p, MB_SPAN_STEP);
    p->steps += p->counting;
    p->counting = false;
    return MB_OK;
}

/* ---- what was noted ----------------------------------------------------------------------- */

int64_t mb_profile_steps(const mb_profile *p)
{
    return p->steps;
}

const mb_profile_row *mb_profile_rows(const mb_profile *p, int *n)
{
    *n = p->n_rows;
    return p->row;
}

const mb_profile_event *mb_profile_events(const mb_profile *p, int *n, int64_t *lost)
{
    *n = p->n_events;
    *lost = p->lost;
    return p->event;
}

double mb_profile_span_seconds(const mb_profile *p, mb_span s, int64_t *calls)
{
    *calls = p->span_calls[s];
    return p->span_seconds[s];
}

double mb_profile_kind_seconds(const mb_profile *p, mb_profile_kind k)
{
    double rest = p->span_seconds[MB_SPAN_STEP] - p->span_seconds[MB_SPAN_DATA];

    if (k == MB_PROFILE_DATA)
        return p->span_seconds[MB_SPAN_DATA];
    if (k != MB_PROFILE_REST)
        return p->kind_seconds[k];
    for (int i = 0; i < MB_PROFILE_KINDS; i++)
        rest -= p->kind_seconds[i];
    return rest;
}

/* ---- names -------------------------------------------------------------------------------- */

const char *mb_profile_kind_name(mb_profile_kind k)
{
    static const char *const names[] = {
        [MB_PROFILE_REST] = "not accounted for",
        [MB_PROFILE_GEMM] = "gemm",
        [MB_PROFILE_ATTENTION] = "attention",
        [MB_PROFILE_NORM] = "norm",
        [MB_PROFILE_ACTIVATION] = "activation",
        [MB_PROFILE_LOSS] = "loss",
        [MB_PROFILE_EMBEDDING] = "embedding",
        [MB_PROFILE_ELEMENTWISE] = "elementwise",
        [MB_PROFILE_EXACT] = "exact sums",
        [MB_PROFILE_OPTIMIZER] = "optimizer",
        [MB_PROFILE_COMMUNICATION] = "communication",
        [MB_PROFILE_DATA] = "data",
    };

    return names[k];
}

const char *mb_profile_operation_name(int operation)
{
    static const char *const names[] = {
#define MB_KERNEL(name, params, args)    #name,
#define MB_KERNEL_WS(name, params, args) #name,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
        [MB_OPERATION_all_reduce] = "all_reduce",
        [MB_OPERATION_reduce_scatter] = "reduce_scatter",
        [MB_OPERATION_all_gather] = "all_gather",
        [MB_OPERATION_broadcast] = "broadcast",
        [MB_OPERATION_send] = "send",
        [MB_OPERATION_recv] = "recv",
        [MB_OPERATION_barrier] = "barrier",
        [MB_OPERATION_group] = "collectives",
        [MB_OPERATION_wait] = "wait",
        [MB_OPERATION_SPANS + MB_SPAN_STEP] = "step",
        [MB_OPERATION_SPANS + MB_SPAN_DATA] = "data",
        [MB_OPERATION_SPANS + MB_SPAN_FORWARD] = "forward",
        [MB_OPERATION_SPANS + MB_SPAN_BACKWARD] = "backward",
        [MB_OPERATION_SPANS + MB_SPAN_REDUCE] = "reduction",
        [MB_OPERATION_SPANS + MB_SPAN_OPTIMIZER] = "optimizer",
        [MB_OPERATION_SPANS + MB_SPAN_PARAMETERS] = "new parameters",
        [MB_OPERATION_SPANS + MB_SPAN_EVALUATION] = "evaluation",
        [MB_OPERATION_SPANS + MB_SPAN_CHECKPOINT] = "checkpoint",
    };

    return operation < 0 ? "others" : names[operation];
}

static void lower(char *s)
{
    for (; *s != '\0'; s++)
        *s = (char)(*s >= 'A' && *s <= 'Z' ? *s - 'A' + 'a' : *s);
}

const char *mb_profile_shape(const mb_profile_key *k, char *text, size_t size)
{
    static const char *const transposed[] = {"nn", "tn", "nt", "tt"};
    const char *const type[] = {mb_dtype_name(k->dtype[0]), mb_dtype_name(k->dtype[1]),
                                mb_dtype_name(k->dtype[2])};
    const long long d[] = {k->dim[0], k->dim[1], k->dim[2], k->dim[3]};
    const mb_profile_kind kind = mb_profile_kind_of(k->operation);
    size_t n = 0;

    if (k->operation < 0)
        snprintf(text, size, "of all kinds, when the table was full");
    else if (kind == MB_PROFILE_COMMUNICATION)
        snprintf(text, size, "%lld bytes on %lld ranks", d[0], d[1]);
    else if (kind == MB_PROFILE_GEMM)
        snprintf(text, size, "%lldx%lldx%lld %s %s x %s -> %s", d[0], d[1], d[2],
                 transposed[k->flags & 3], type[0], type[1], type[2]);
    else if (kind == MB_PROFILE_ATTENTION)
        n = (size_t)snprintf(text, size, "%lldx%lldx%lld/%lld %s", d[0], d[3], d[1], d[2], type[0]);
    else if (d[0] == 1)
        n = (size_t)snprintf(text, size, "%lld %s", d[1], type[0]);
    else
        n = (size_t)snprintf(text, size, "%lldx%lld %s", d[0], d[1], type[0]);
    if (n > 0 && n < size && k->dtype[1] != k->dtype[0])
        snprintf(text + n, size - n, " -> %s", type[1]);
    lower(text);
    return text;
}
