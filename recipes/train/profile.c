/* recipes/train/profile.c - profile: true, where the time of this run's steps goes.
 *
 * core/profile.h notes; here it is opened for a job and told at the end: tables by time in
 * <output_dir>/logs/profile.txt and, shorter, in the log; logs/trace.json in the trace-event format
 * that Perfetto and chrome://tracing read, one process per rank. Ranks count from a common barrier,
 * which is all that their clocks have in common. Rank 0 writes what the others send.
 */
#include "core/profile.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/config/text.h"
#include "recipes/train/job.h"

enum { LOGGED = 16, PIECE = 64 << 10 }; /* rows; bytes of a trace that go at once */

mb_status mb_job_profile_reserve(mb_job *j)
{
    return j->recipe->profile ? mb_profile_new(&(mb_profile_options){0}, &j->profile) : MB_OK;
}

mb_status mb_job_profile_start(mb_job *j)
{
    mb_comm *const comms[] = {j->mesh->dp_inner, j->mesh->dp_outer, j->mesh->parts, j->mesh->world,
                              j->comm};

    if (j->profile == NULL)
        return MB_OK;
    mb_profile_exec(j->profile, &j->engine->ex);
    for (size_t i = 0; i < sizeof comms / sizeof *comms; i++) {
        MB_TRY(mb_profile_comm(j->profile, comms[i]));
        MB_TRY(mb_profile_comm(j->profile, mb_comm_host(comms[i])));
    }
    MB_TRY(j->comm->ops->barrier(j->comm));
    mb_profile_start(j->profile);
    return MB_OK;
}

/* ---- tables ------------------------------------------------------------------------------- */

/* What the tables are made from; times in milliseconds per step. */
struct report {
    const mb_profile *profile;
    int64_t steps;
    int ranks;
    double *spent;       /* (ranks, MB_PROFILE_KINDS) */
    mb_profile_row *row; /* by time */
    int n_rows;
    double step; /* of rank 0 */
};

static double per_step(const struct report *r, double seconds)
{
    return 1e3 * seconds / (double)r->steps;
}

static double percent(const struct report *r, double ms)
{
    return 100.0 * ms / r->step;
}

static int longest_first(const void *a, const void *b)
{
    const double x = ((const mb_profile_row *)a)->seconds, y = ((const mb_profile_row *)b)->seconds;

    return (x < y) - (x > y);
}

static mb_status open_report(const mb_job *j, struct report *r)
{
    const mb_profile_row *rows;
    int64_t steps;

    *r = (struct report){.profile = j->profile, .ranks = j->comm->size};
    rows = mb_profile_rows(j->profile, &r->n_rows);
    r->steps = mb_profile_steps(j->profile);
    r->step = per_step(r, mb_profile_span_seconds(j->profile, MB_SPAN_STEP, &steps));
    MB_TRY(MB_NEW_ARRAY(&r->spent, r->ranks * MB_PROFILE_KINDS));
    MB_TRY(MB_NEW_ARRAY(&r->row, r->n_rows));
    for (int k = 0; k < MB_PROFILE_KINDS; k++)
        r->spent[j->comm->rank * MB_PROFILE_KINDS + k] =
            per_step(r, mb_profile_kind_seconds(j->profile, (mb_profile_kind)k));
    memcpy(r->row, rows, (size_t)r->n_rows * sizeof *rows);
    qsort(r->row, (size_t)r->n_rows, sizeof *r->row, longest_first);
    return MB_OK;
}

static void add_rates(mb_text *t, double flop, double bytes, double seconds)
{
    if (flop > 0 && seconds > 0)
        mb_text_add(t, " %9.1f", flop / seconds / 1e9);
    else
        mb_text_add(t, " %9s", "-");
    if (bytes > 0 && seconds > 0)
        mb_text_add(t, " %8.2f", bytes / seconds / 1e9);
    else
        mb_text_add(t, " %8s", "-");
}

/* The ranks on which a kind takes least and most. */
static void add_ranks(mb_text *t, const struct report *r, int kind)
{
    int least = 0, most = 0;

    for (int i = 1; i < r->ranks; i++) {
        const double ms = r->spent[i * MB_PROFILE_KINDS + kind];
        least = ms < r->spent[least * MB_PROFILE_KINDS + kind] ? i : least;
        most = ms > r->spent[most * MB_PROFILE_KINDS + kind] ? i : most;
    }
    if (r->ranks > 1)
        mb_text_add(t, "   %10.2f on rank %-4d %10.2f on rank %d",
                    r->spent[least * MB_PROFILE_KINDS + kind], least,
                    r->spent[most * MB_PROFILE_KINDS + kind], most);
}

static void add_kind(mb_text *t, const struct report *r, mb_profile_kind k)
{
    double flop = 0, bytes = 0, seconds = 0;

    if (k != MB_PROFILE_REST && k != MB_PROFILE_DATA && mb_profile_kind_seconds(r->profile, k) <= 0)
        return;
    for (int i = 0; i < r->n_rows && k != MB_PROFILE_REST; i++) {
        if (mb_profile_kind_of(r->row[i].key.operation) != k)
            continue;
        flop += r->row[i].flop;
        bytes += r->row[i].bytes;
        seconds += r->row[i].seconds;
    }
    mb_text_add(t, "%-18s %11.2f %7.2f%%", mb_profile_kind_name(k), r->spent[k],
                percent(r, r->spent[k]));
    add_rates(t, flop, bytes, seconds);
    add_ranks(t, r, (int)k);
    mb_text_add(t, "\n");
}

/* By time on rank 0; what is in no kind comes last. */
static void add_kinds(mb_text *t, const struct report *r)
{
    bool done[MB_PROFILE_KINDS] = {false};

    mb_text_add(t, "%-18s %11s %8s %9s %8s", "kind", "ms/step", "share", "GFLOP/s", "GB/s");
    mb_text_add(t, "%s\n", r->ranks > 1 ? "   ms/step on the fastest rank, the slowest" : "");
    for (int n = 1; n < MB_PROFILE_KINDS; n++) {
        int next = -1;
        for (int k = 1; k < MB_PROFILE_KINDS; k++)
            if (!done[k] && (next < 0 || r->spent[k] > r->spent[next]))
                next = k;
        done[next] = true;
        add_kind(t, r, (mb_profile_kind)next);
    }
    add_kind(t, r, MB_PROFILE_REST);
    mb_text_add(t, "%-18s %11.2f %7.2f%%\n", "step", r->step, 100.0);
}

static void add_spans(mb_text *t, const struct report *r)
{
    double rest = r->step;
    int64_t calls;

    mb_text_add(t, "\n%-18s %11s %8s\n", "part of a step", "ms/step", "share");
    for (int s = MB_SPAN_STEP + 1; s < MB_SPAN_STEP_PARTS; s++) {
        const double ms = per_step(r, mb_profile_span_seconds(r->profile, (mb_span)s, &calls));
        rest -= ms;
        if (calls > 0)
            mb_text_add(t, "%-18s %11.2f %7.2f%%\n",
                        mb_profile_operation_name(MB_OPERATION_SPANS + s), ms, percent(r, ms));
    }
    mb_text_add(t, "%-18s %11.2f %7.2f%%\n", "the rest", rest, percent(r, rest));
    for (int s = MB_SPAN_STEP_PARTS; s < MB_SPAN_COUNT; s++) {
        const double seconds = mb_profile_span_seconds(r->profile, (mb_span)s, &calls);
        if (calls > 0)
            mb_text_add(t, "%-18s %lld times, %.3f s in all, between steps\n",
                        mb_profile_operation_name(MB_OPERATION_SPANS + s), (long long)calls,
                        seconds);
    }
}

static void add_row(mb_text *t, const struct report *r, const mb_profile_row *row)
{
    char shape[128];
    const double ms = per_step(r, row->seconds);

    mb_text_add(t, "%-17s %-42s %8.1f %11.2f %7.2f%%",
                mb_profile_operation_name(row->key.operation),
                mb_profile_shape(&row->key, shape, sizeof shape),
                (double)row->calls / (double)r->steps, ms, percent(r, ms));
    add_rates(t, row->flop, row->bytes, row->seconds);
    mb_text_add(t, "\n");
}

/* The first `most` rows, the others in one line; data and what is in no row close the sum. */
static void add_rows(mb_text *t, const struct report *r, int most)
{
    double more = 0, calls = 0;
    int n_more = 0;

    mb_text_add(t, "\n%-17s %-42s %8s %11s %8s %9s %8s\n", "call", "shape", "a step", "ms/step",
                "share", "GFLOP/s", "GB/s");
    for (int i = 0; i < r->n_rows; i++) {
        if (i < most && r->row[i].calls > 0)
            add_row(t, r, &r->row[i]);
        if (i < most || r->row[i].calls == 0)
            continue;
        n_more++;
        more += per_step(r, r->row[i].seconds);
        calls += (double)r->row[i].calls / (double)r->steps;
    }
    if (n_more > 0)
        mb_text_add(t, "%-17d %-42s %8.1f %11.2f %7.2f%%\n", n_more, "more, in logs/profile.txt",
                    calls, more, percent(r, more));
    for (int k = MB_PROFILE_REST; k <= MB_PROFILE_DATA; k += MB_PROFILE_DATA - MB_PROFILE_REST)
        mb_text_add(t, "%-60s %8s %11.2f %7.2f%%\n", mb_profile_kind_name((mb_profile_kind)k), "",
                    r->spent[k], percent(r, r->spent[k]));
}

static void add_report(mb_text *t, const mb_job *j, const struct report *r, int rows)
{
    mb_text_add(t, "profile: %lld steps after the first %d, %.2f ms each", (long long)r->steps,
                MB_PROFILE_WARMUP, r->step);
    if (r->ranks > 1)
        mb_text_add(t, "; rank 0 of %d", r->ranks);
    mb_text_add(t, "%s\n\n",
                mb_device_is_host(j->device) ? ""
                                             : "; slower than without: kernels are waited for");
    add_kinds(t, r);
    add_spans(t, r);
    add_rows(t, r, rows);
}

static void log_lines(char *text)
{
    for (char *end; (end = strchr(text, '\n')) != NULL; text = end + 1) {
        *end = '\0';
        mb_log_info("%s", text);
    }
}

static mb_status tell(const mb_job *j, const struct report *r, const char *dir)
{
    char path[MB_PATH_MAX], *text = NULL;
    mb_text whole = {0}, brief = {0};
    mb_status st;

    add_report(&brief, j, r, LOGGED);
    MB_TRY(mb_text_take(&brief, &text));
    log_lines(text);
    mb_free(text);
    add_report(&whole, j, r, r->n_rows);
    MB_TRY(mb_text_take(&whole, &text));
    st = mb_path_join(path, sizeof path, dir, "profile.txt");
    if (st == MB_OK)
        st = mb_file_write_atomic(path, text, strlen(text));
    mb_free(text);
    return st;
}

/* ---- trace -------------------------------------------------------------------------------- */

struct trace {
    const mb_job *job;
    mb_text text; /* not passed on yet */
    mb_newfile file;
    int64_t offset;
    mb_status st; /* of the file: rank 0 takes what others send, whatever becomes of it */
};

static void write_piece(struct trace *t, const char *s, int64_t n)
{
    if (t->st == MB_OK && n > 0)
        t->st = mb_pwrite_all(t->file.fd, s, (size_t)n, t->offset, t->file.temporary);
    t->offset += n;
}

/* What has been added so far goes to the file, or to rank 0. */
static mb_status pass_on(struct trace *t)
{
    mb_comm *c = t->job->comm;
    int64_t n = (int64_t)t->text.n;

    if (n > 0 && c->rank == 0)
        write_piece(t, t->text.s, n);
    t->text.n = 0;
    if (n == 0 || c->rank == 0)
        return MB_OK;
    MB_TRY(c->ops->send(c, &n, sizeof n, 0));
    return c->ops->send(c, t->text.s, n, 0);
}

static void add_event(struct trace *t, const mb_profile_event *e, const mb_profile_row *rows)
{
    const int64_t from = (int64_t)(e->from * 1e9),
                  to = (int64_t)(e->to * 1e9); /* nested as noted */
    char shape[128];

    mb_text_add(
        &t->text,
        ",\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":%lld.%03d,\"dur\":%lld.%03d,"
        "\"pid\":%d,\"tid\":0",
        mb_profile_operation_name(e->operation),
        e->row < 0 ? "part" : mb_profile_kind_name(mb_profile_kind_of(e->operation)),
        (long long)(from / 1000), (int)(from % 1000), (long long)((to - from) / 1000),
        (int)((to - from) % 1000), t->job->comm->rank);
    if (e->row >= 0)
        mb_text_add(&t->text, ",\"args\":{\"shape\":\"%s\"}",
                    mb_profile_shape(&rows[e->row].key, shape, sizeof shape));
    mb_text_add(&t->text, "}");
}

static mb_status add_events(struct trace *t)
{
    const int rank = t->job->comm->rank;
    int n, n_rows;
    int64_t lost;
    const mb_profile_event *e = mb_profile_events(t->job->profile, &n, &lost);
    const mb_profile_row *rows = mb_profile_rows(t->job->profile, &n_rows);

    mb_text_add(&t->text,
                "%s{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":{\"name\":\"rank "
                "%d\"}},\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":0,\"args\":"
                "{\"name\":\"trainer\"}}",
                rank == 0 ? "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" : ",\n", rank, rank,
                rank);
    for (int i = 0; i < n; i++) {
        add_event(t, &e[i], rows);
        if (t->text.n > PIECE)
            MB_TRY(pass_on(t));
    }
    if (lost > 0)
        mb_log_warn("profile: the trace has room for %d calls, the last %lld of its steps are not "
                    "in it",
                    n, (long long)lost);
    return pass_on(t);
}

static mb_status take_events(struct trace *t, int rank)
{
    mb_comm *c = t->job->comm;
    int64_t n;
    char *s;

    for (;;) {
        MB_TRY(c->ops->recv(c, &n, sizeof n, rank));
        if (n == 0)
            return MB_OK;
        MB_TRY(mb_alloc((size_t)n, "a piece of the trace", (void **)&s));
        const mb_status st = c->ops->recv(c, s, n, rank);
        if (st == MB_OK)
            write_piece(t, s, n);
        mb_free(s);
        MB_TRY(st);
    }
}

static mb_status all_events(struct trace *t)
{
    static const char end[] = "\n]}\n";
    mb_comm *c = t->job->comm;
    const int64_t nothing = 0;

    MB_TRY(add_events(t));
    if (c->rank != 0)
        return c->ops->send(c, &nothing, sizeof nothing, 0);
    for (int r = 1; r < c->size; r++)
        MB_TRY(take_events(t, r));
    write_piece(t, end, sizeof end - 1);
    return MB_OK;
}

static mb_status open_trace(struct trace *t, const char *dir)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, dir, "trace.json"));
    return mb_newfile_open(path, &t->file);
}

/* *written: what became of the file. */
static mb_status write_trace(mb_job *j, const char *dir, mb_status *written)
{
    struct trace t = {.job = j, .file.fd = -1};
    mb_status st;

    if (j->comm->rank == 0)
        t.st = open_trace(&t, dir);
    st = all_events(&t);
    if (st == MB_OK)
        st = t.text.st;
    if (st == MB_OK && j->comm->rank == 0 && t.st == MB_OK)
        t.st = mb_newfile_sync(&t.file);
    if (st == MB_OK && j->comm->rank == 0 && t.st == MB_OK)
        t.st = mb_newfile_publish(&t.file);
    mb_newfile_abandon(&t.file);
    mb_text_release(&t.text);
    *written = t.st;
    return st;
}

/* ---- the end of a run --------------------------------------------------------------------- */

static mb_status folder(const mb_job *j, char *dir, size_t size)
{
    MB_TRY(mb_path_join(dir, size, j->recipe->output_dir, "logs"));
    return mb_path_mkdirs(dir);
}

/* Files of a profile are not worth the run. */
static void only_warn(mb_status st)
{
    if (st == MB_OK)
        return;
    mb_log_warn("the profile was not written: %s", mb_status_sentence());
    mb_status_clear();
}

mb_status mb_job_profile_tell(mb_job *j)
{
    char dir[MB_PATH_MAX] = "";
    struct report r = {0};
    mb_status st = MB_OK, written = MB_OK;

    if (j->profile == NULL)
        return MB_OK;
    if (mb_profile_steps(j->profile) == 0) {
        mb_log_info("profile: there was no step after the first %d, which are not looked at",
                    MB_PROFILE_WARMUP);
        return MB_OK;
    }
    MB_TRY_GOTO(mb_comm_agree(j->comm, open_report(j, &r)), st, done);
    MB_TRY_GOTO(j->comm->ops->all_reduce(j->comm, r.spent, r.ranks * MB_PROFILE_KINDS, MB_DTYPE_F64,
                                         MB_SUM),
                st, done);
    if (j->comm->rank == 0) {
        written = folder(j, dir, sizeof dir);
        only_warn(written == MB_OK ? tell(j, &r, dir) : written);
    }
    st = write_trace(j, dir, &written);
    if (st == MB_OK)
        only_warn(written);
done:
    mb_free(r.spent);
    mb_free(r.row);
    return st;
}
