/* recipes/train/tensorboard.c - output_dir/runs/events.out.tfevents...: scalars for TensorBoard.
 *
 * Every start of a run opens a file of its own, whose name carries the time, the host and the
 * process; readers merge the files of a folder. Tags are those of transformers: train/loss,
 * train/learning_rate, eval/loss. The encoding is in recipes/train/tfevents.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/train/metrics.h"
#include "recipes/train/tfevents.h"

enum { TAG_MAX = 96 };

struct board {
    char *path;
    int fd;
    int64_t size;
    mb_bytes bytes; /* of the record being made */
};

static double wall_time(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static mb_status flush(struct board *b)
{
    MB_TRY(mb_pwrite_all(b->fd, b->bytes.data, b->bytes.n, b->size, b->path));
    b->size += (int64_t)b->bytes.n;
    b->bytes.n = 0;
    return MB_OK;
}

static mb_status board_close(void *state)
{
    struct board *b = state;
    const bool bad = b->fd >= 0 && close(b->fd) != 0;
    const mb_status st =
        bad ? MB_RAISE(MB_EIO, "%s cannot be closed: %s", b->path, strerror(errno)) : MB_OK;

    mb_free(b->bytes.data);
    mb_free(b->path);
    mb_free(b);
    return st;
}

static mb_status open_file(struct board *b, const char *dir)
{
    char host[256] = "localhost", name[512], path[MB_PATH_MAX];

    gethostname(host, sizeof host - 1);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "events.out.tfevents.%010lld.%s.%d.%d", (long long)time(NULL),
                 host, (int)getpid(), i);
        MB_TRY(mb_path_join(path, sizeof path, dir, name));
        b->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (b->fd >= 0)
            return mb_strdup(path, &b->path);
        MB_REQUIRE(errno == EEXIST, MB_EIO, "%s cannot be made: %s", path, strerror(errno));
    }
    return MB_RAISE(MB_EIO, "%s: no free name for an event file", dir);
}

static mb_status board_open(const mb_metric_run *run, void **state)
{
    const double now = wall_time();
    char dir[MB_PATH_MAX];
    mb_status st = MB_OK;
    struct board *b;

    MB_TRY(mb_path_join(dir, sizeof dir, run->output_dir, "runs"));
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(MB_NEW(&b));
    b->fd = -1;
    MB_TRY_GOTO(open_file(b, dir), st, failed);
    MB_TRY_GOTO(mb_tfevents_version(&b->bytes, now), st, failed);
    if (run->resume_dir != NULL)
        MB_TRY_GOTO(mb_tfevents_start(&b->bytes, now, run->resume_step + 1), st, failed);
    MB_TRY_GOTO(flush(b), st, failed);
    *state = b;
    return MB_OK;
failed:
    board_close(b);
    return st;
}

/* eval_loss -> eval/loss, loss -> train/loss */
static void make_tag(char tag[TAG_MAX], const char *name)
{
    const bool eval = strncmp(name, "eval_", 5) == 0;

    snprintf(tag, TAG_MAX, "%s/%s", eval ? "eval" : "train", eval ? name + 5 : name);
}

static mb_status board_log(void *state, const mb_metrics *m)
{
    char text[MB_METRICS_MAX + 1][TAG_MAX];
    const char *tags[MB_METRICS_MAX + 1];
    double values[MB_METRICS_MAX + 1];
    struct board *b = state;

    for (int i = 0; i < m->n; i++) {
        make_tag(text[i], m->item[i].name);
        tags[i] = text[i];
        values[i] = m->item[i].value;
    }
    tags[m->n] = "train/epoch";
    values[m->n] = m->epoch;
    b->bytes.n = 0;
    MB_TRY(mb_tfevents_scalars(&b->bytes, wall_time(), m->step, m->n + 1, tags, values));
    return flush(b);
}

const mb_sink_kind mb_sink_tensorboard = {
    .name = "tensorboard",
    .open = board_open,
    .log = board_log,
    .close = board_close,
};
