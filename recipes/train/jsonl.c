/* recipes/train/jsonl.c - output_dir/logs/train.jsonl: one JSON object per record.
 *
 *     {"step":10,"epoch":0.05,"time":1764000000.123,"loss":4.1,"learning_rate":0.0002}
 *
 * `time` is seconds since 1970. The file is appended to. When a run starts, everything from the
 * first line on that is past the step it starts from, or is not a whole record, is cut off: a crash
 * may have left steps that will be done again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/train/metrics.h"

enum { LOG_MAX_BYTES = 1 << 30 };

struct jsonl {
    char *path;
    int fd;
    int64_t size;
};

/* The step of a line of n bytes, -1 if it is not a record. */
static int64_t step_of(const char *line, size_t n)
{
    mb_json_doc *doc;
    int64_t step = -1;

    if (mb_json_parse(line, n, "log", 0, MB_EIO, &doc) != MB_OK ||
        mb_json_get_int(mb_json_root(doc), "step", -1, &step) != MB_OK)
        step = -1;
    mb_json_free(doc);
    mb_status_clear();
    return step;
}

/* Bytes of the leading lines that are records up to `last`. */
static size_t kept(const char *text, size_t n, int64_t last)
{
    size_t at = 0;

    while (at < n) {
        const char *end = memchr(text + at, '\n', n - at);

        if (end == NULL)
            return at;

        const int64_t step = step_of(text + at, (size_t)(end - text) - at);

        if (step < 0 || step > last)
            return at;
        at = (size_t)(end - text) + 1;
    }
    return at;
}

static mb_status open_file(struct jsonl *s, int64_t resume_step)
{
    size_t n = 0;
    char *text = NULL;

    if (resume_step > 0 && mb_path_exists(s->path)) {
        MB_TRY(mb_file_read(s->path, LOG_MAX_BYTES, &text, &n));
        n = kept(text, n, resume_step);
        mb_free(text);
    }
    s->fd = open(s->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    MB_REQUIRE(s->fd >= 0, MB_EIO, "%s cannot be opened: %s", s->path, strerror(errno));
    MB_REQUIRE(ftruncate(s->fd, (off_t)n) == 0, MB_EIO, "%s cannot be cut to %zu bytes: %s",
               s->path, n, strerror(errno));
    s->size = (int64_t)n;
    return MB_OK;
}

static mb_status jsonl_close(void *state)
{
    struct jsonl *s = state;
    const bool bad = s->fd >= 0 && close(s->fd) != 0;
    const mb_status st =
        bad ? MB_RAISE(MB_EIO, "%s cannot be closed: %s", s->path, strerror(errno)) : MB_OK;

    mb_free(s->path);
    mb_free(s);
    return st;
}

static mb_status jsonl_open(const mb_metric_run *run, void **state)
{
    char dir[MB_PATH_MAX], path[MB_PATH_MAX];
    mb_status st = MB_OK;
    struct jsonl *s;

    MB_TRY(mb_path_join(dir, sizeof dir, run->output_dir, "logs"));
    MB_TRY(mb_path_join(path, sizeof path, dir, "train.jsonl"));
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(MB_NEW(&s));
    s->fd = -1;
    MB_TRY_GOTO(mb_strdup(path, &s->path), st, failed);
    MB_TRY_GOTO(open_file(s, run->resume_step), st, failed);
    *state = s;
    return MB_OK;
failed:
    jsonl_close(s);
    return st;
}

static mb_status fill(mb_json line, const mb_metrics *m)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    MB_TRY(mb_json_set_int(line, "step", m->step));
    MB_TRY(mb_json_set_real(line, "epoch", m->epoch));
    MB_TRY(mb_json_set_real(line, "time",
                            (double)now.tv_sec + (double)(now.tv_nsec / 1000000) * 1e-3));
    return mb_metrics_to_json(m, line);
}

static mb_status jsonl_log(void *state, const mb_metrics *m)
{
    struct jsonl *s = state;
    mb_status st = MB_OK;
    char *text = NULL;
    mb_json_doc *doc;
    size_t n;

    MB_TRY(mb_json_doc_new("log", &doc));
    MB_TRY_GOTO(fill(mb_json_root(doc), m), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, &n), st, done);
    text[n] = '\n'; /* in the place of its final zero: a line goes out in one write */
    MB_TRY_GOTO(mb_pwrite_all(s->fd, text, n + 1, s->size, s->path), st, done);
    s->size += (int64_t)n + 1;
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

const mb_sink_kind mb_sink_jsonl = {
    .name = "jsonl",
    .open = jsonl_open,
    .log = jsonl_log,
    .close = jsonl_close,
};
