/* dist/checkpoint_save.c - writing a checkpoint; see dist/checkpoint.h.
 *
 * Order of events: rank 0 makes <path>.partial · every rank writes its pieces, each fsynced and
 * renamed · the votes say that all have · the ranks' lists go to rank 0 · manifest.json · the
 * folder's one rename · its parent flushed · old checkpoints go.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/memory.h"
#include "dist/checkpoint_inside.h"
#include "dist/h5.h"

enum { PIECE_BYTES = 32 << 20, PIECE_BYTES_MAX = 120 << 20 };
enum { WRITING, WRITTEN, FAILED };

struct mb_checkpoints {
    mb_comm *comm;
    char *dir;
    int keep, lock;
    int64_t piece_bytes;
    bool saving, threaded;
    pthread_t thread;
    _Atomic int progress;
    int64_t peak;
    struct mb_save_job job;
    char failure[1024];
};

static size_t window_bytes(const struct mb_save_job *j)
{
    const int64_t own = j->to - j->from;

    return (size_t)(own < j->layout.piece ? own : j->layout.piece) * sizeof(float);
}

/* Writing -------------------------------------------------------------------------------------- */

static mb_status check_finite(const char *dataset, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        MB_REQUIRE(isfinite(x[i]), MB_ENUM, "%s has a value that is not finite, at element %lld",
                   dataset, (long long)i);
    return MB_OK;
}

/* data: the numbers of the piece */
static mb_status put_slice(struct mb_save_job *j, mb_h5 *f, const mb_piece *p, const float *data,
                           const mb_slice *s, mb_json slices)
{
    char dataset[MB_DATASET_MAX], hex[MB_DIGEST_HEX];
    mb_json entry;

    data += s->flat - p->from;
    MB_TRY(mb_layout_dataset(&j->layout, p->set, s->segment->name, dataset));
    MB_TRY(check_finite(dataset, data, s->count));
    MB_TRY(mb_h5_put(f, dataset, MB_DTYPE_F32, s->count, data));
    MB_TRY(mb_h5_set_ints(f, dataset, "from", 0, &s->from));
    MB_TRY(mb_h5_set_ints(f, dataset, "flat", 0, &s->flat));
    if (s->segment->ndim > 0)
        MB_TRY(mb_h5_set_ints(f, dataset, "shape", s->segment->ndim, s->segment->dim));
    MB_TRY(mb_slice_digest(j->info.run_id, j->info.step, dataset, s->from, data, s->count, hex));
    MB_TRY(mb_json_set_object(slices, NULL, &entry));
    MB_TRY(mb_json_set_string(entry, "file", p->file));
    MB_TRY(mb_json_set_string(entry, "dataset", dataset));
    MB_TRY(mb_json_set_int(entry, "from", s->from));
    MB_TRY(mb_json_set_int(entry, "count", s->count));
    return mb_json_set_string(entry, "sha256", hex);
}

/* The numbers of a piece: where they are, or widened into j->window. */
static mb_status numbers(struct mb_save_job *j, const mb_piece *p, const float **data)
{
    const mb_tensor *set = &j->set[p->set];
    const int64_t n = p->to - p->from;
    const bool in_halves = set->data == NULL;
    const mb_tensor part =
        in_halves
            ? *set
            : mb_tensor_1d(mb_element(set->data, set->dtype, p->from - j->from), set->dtype, n);

    *data = part.data;
    if (set->dtype == MB_DTYPE_F32 && !in_halves)
        return MB_OK;
    if (j->window == NULL)
        MB_TRY(mb_pages(window_bytes(j), "numbers of a checkpoint's piece", (void **)&j->window));
    *data = j->window;
    return in_halves ? mb_flat_read(NULL, j->layout.flat, p->from, n, j->window)
                     : mb_device_read_f32(NULL, j->window, &part);
}

static mb_status put_piece(struct mb_save_job *j, mb_h5 *f, const mb_piece *p, mb_json slices)
{
    const float *data;
    mb_slice s;
    int next = 0;

    MB_TRY(numbers(j, p, &data));
    MB_TRY(mb_h5_set_text(f, "/", "format", "mbuyu-checkpoint"));
    MB_TRY(mb_h5_set_text(f, "/", "run_id", j->info.run_id));
    MB_TRY(mb_h5_set_ints(f, "/", "step", 0, &j->info.step));
    while (mb_layout_slice(&j->layout, p->from, p->to, &next, &s))
        MB_TRY(put_slice(j, f, p, data, &s, slices));
    return MB_OK;
}

/* Notes and writes one file of this rank; `bytes` are freed. */
static mb_status write_file(struct mb_save_job *j, const char *name, void *bytes, size_t n)
{
    const mb_json files = mb_json_get(mb_json_root(j->list), "files");
    char path[MB_PATH_MAX];
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_manifest_add_file(files, name, bytes, n), st, done);
    MB_TRY_GOTO(mb_path_join(path, sizeof path, j->partial, name), st, done);
    mb_checkpoint_place();
    MB_TRY_GOTO(mb_file_write_atomic(path, bytes, n), st, done);
    mb_checkpoint_place();
done:
    mb_free(bytes);
    return st;
}

/* Headers take below a KiB of each tensor, sums and tables of chunks below a 64th of the data. */
static size_t image_bytes(const mb_flat *flat, size_t data)
{
    return data + data / 64 + (size_t)flat->n_segments * (2 << 10) + (64 << 10);
}

static void note_memory(struct mb_save_job *j)
{
    const int64_t own = mb_memory_own();

    if (own > j->peak)
        j->peak = own;
}

static mb_status write_pieces(struct mb_save_job *j)
{
    const mb_json slices = mb_json_get(mb_json_root(j->list), "slices");
    const int64_t n = mb_layout_pieces(&j->layout, j->rank);

    for (int64_t i = 0; i < n; i++) {
        mb_h5 *f = NULL;
        mb_piece p;
        void *bytes;
        size_t size;
        mb_layout_piece(&j->layout, j->rank, i, &p);
        MB_TRY(mb_h5_create_image(
            p.file, image_bytes(j->layout.flat, (size_t)(p.to - p.from) * sizeof(float)), &f));
        const mb_status st = put_piece(j, f, &p, slices);
        if (st != MB_OK) {
            mb_h5_close(f);
            return st;
        }
        MB_TRY(mb_h5_close_image(f, &bytes, &size));
        note_memory(j);
        MB_TRY(write_file(j, p.file, bytes, size));
    }
    return MB_OK;
}

static mb_status write_common(struct mb_save_job *j)
{
    void *bytes;
    char *text;
    size_t n;

    MB_TRY(mb_state_image(&j->info, &j->layout, &bytes, &n));
    MB_TRY(write_file(j, "state.h5", bytes, n));
    MB_TRY(mb_model_image(&j->layout, &j->info, &bytes, &n));
    note_memory(j);
    MB_TRY(write_file(j, "model.h5", bytes, n));
    MB_TRY(mb_strdup(j->info.recipe_yaml, &text));
    return write_file(j, "recipe.yaml", text, strlen(text));
}

static mb_status write_all(struct mb_save_job *j)
{
    mb_json ignored;

    MB_TRY(mb_json_doc_new("manifest.json", &j->list));
    MB_TRY(mb_json_set_array(mb_json_root(j->list), "files", &ignored));
    MB_TRY(mb_json_set_array(mb_json_root(j->list), "slices", &ignored));
    MB_TRY(write_pieces(j));
    return j->rank == 0 ? write_common(j) : MB_OK;
}

/* The background thread, or the caller's own. The failure record is a thread's: take it along. */
static void *run(void *arg)
{
    mb_checkpoints *c = arg;
    struct mb_save_job *j = &c->job;

    j->st = write_all(j);
    if (j->st != MB_OK) {
        snprintf(j->sentence, sizeof j->sentence, "%s", mb_status_sentence());
        mb_status_clear();
    }
    mb_h5_tidy();
    atomic_store(&c->progress, j->st == MB_OK ? WRITTEN : FAILED);
    return NULL;
}

/* Starting ------------------------------------------------------------------------------------- */

static void job_release(struct mb_save_job *j)
{
    for (int i = 0; i < MB_SETS_MAX && j->copied; i++)
        if (j->set[i].data != NULL)
            mb_pages_free(j->set[i].data, (size_t)mb_tensor_bytes(&j->set[i]));
    mb_pages_free(j->window, window_bytes(j));
    mb_checkpoint_info_release(&j->info);
    mb_json_free(j->list);
    memset(j, 0, sizeof *j);
}

static mb_status job_texts(struct mb_save_job *j, const mb_checkpoint_info *info)
{
    char *p;

    MB_TRY(mb_strdup(info->run_id, &p));
    j->info.run_id = p;
    MB_TRY(mb_strdup(info->state_json, &p));
    j->info.state_json = p;
    MB_TRY(mb_strdup(info->recipe_yaml, &p));
    j->info.recipe_yaml = p;
    return MB_OK;
}

static mb_status job_init(mb_checkpoints *c, mb_zero *z, const mb_checkpoint_info *info,
                          int64_t best_step)
{
    struct mb_save_job *j = &c->job;

    memset(j, 0, sizeof *j);
    j->layout = (mb_layout){.flat = mb_zero_flat(z),
                            .kind = mb_zero_kind(z),
                            .size = c->comm->size,
                            .piece = c->piece_bytes / (int64_t)sizeof(float)};
    j->rank = c->comm->rank;
    j->best_step = best_step;
    mb_zero_own(z, &j->from, &j->to);
    j->info.step = info->step;
    j->info.history = *mb_zero_history_of(z);
    MB_TRY(job_texts(j, info));
    MB_TRY(mb_checkpoint_path(c->dir, info->step, j->path, sizeof j->path - 16));
    snprintf(j->partial, sizeof j->partial, "%.*s.partial", (int)(sizeof j->partial - 16), j->path);
    for (int i = 0; i < mb_layout_sets(&j->layout); i++)
        j->set[i] = mb_zero_own_set(z, i);
    return MB_OK;
}

/* What is in halves is joined on its way. */
static mb_status copy_aside(struct mb_save_job *j, mb_device *device)
{
    mb_tensor live[MB_SETS_MAX];

    memcpy(live, j->set, sizeof live);
    memset(j->set, 0, sizeof j->set);
    j->copied = true;
    for (int i = 0; i < mb_layout_sets(&j->layout); i++) {
        mb_tensor copy = live[i];
        MB_TRY(mb_pages((size_t)mb_tensor_bytes(&copy), "the checkpoint's copy", &copy.data));
        j->set[i] = copy;
        MB_TRY(live[i].data != NULL
                   ? mb_device_read(device, copy.data, &live[i])
                   : mb_flat_read(device, j->layout.flat, j->from, j->to - j->from, copy.data));
    }
    return MB_OK;
}

static mb_status make_partial(const struct mb_save_job *j)
{
    MB_TRY(mb_path_remove_tree(j->partial));
    mb_checkpoint_place();
    MB_REQUIRE(mkdir(j->partial, 0777) == 0, MB_EIO, "'%s' cannot be made: %s", j->partial,
               strerror(errno));
    mb_checkpoint_place();
    return MB_OK;
}

/* What may fail on one rank alone, before anything is written. */
static mb_status prepare(mb_checkpoints *c, mb_zero *z, const mb_checkpoint_info *info,
                         int64_t best_step, bool async)
{
    MB_TRY(job_init(c, z, info, best_step));
    if (async || !mb_device_is_host(mb_zero_device(z)))
        MB_TRY(copy_aside(&c->job, mb_zero_device(z)));
    return c->comm->rank == 0 ? make_partial(&c->job) : MB_OK;
}

mb_status mb_checkpoints_begin(mb_checkpoints *c, mb_zero *z, const mb_checkpoint_info *info,
                               int64_t best_step, bool async)
{
    MB_REQUIRE(!c->saving, MB_EBUG, "a save began while another was running");
    const mb_status st = mb_comm_agree(c->comm, prepare(c, z, info, best_step, async));
    if (st != MB_OK) {
        job_release(&c->job);
        return st;
    }
    c->saving = true;
    atomic_store(&c->progress, WRITING);
    c->threaded = async && pthread_create(&c->thread, NULL, run, c) == 0;
    if (!c->threaded)
        run(c);
    return MB_OK;
}

/* Ending --------------------------------------------------------------------------------------- */

/* Every rank's thread has ended and all know whether one failed. */
static mb_status finish(mb_checkpoints *c, mb_save_outcome *outcome)
{
    struct mb_save_job *j = &c->job;
    mb_status st = j->st;

    if (c->threaded)
        pthread_join(c->thread, NULL);
    c->saving = c->threaded = false;
    if (j->peak > c->peak)
        c->peak = j->peak;
    if (st != MB_OK)
        mb_status_set(st, j->sentence);
    st = mb_comm_agree(c->comm, st);
    if (st == MB_OK)
        st = mb_save_publish(c->comm, c->dir, j);
    if (st == MB_OK) {
        *outcome = MB_SAVE_PUBLISHED;
        if (c->comm->rank == 0)
            mb_save_tidy(c->dir, c->keep, j);
    } else {
        *outcome = MB_SAVE_FAILED;
        snprintf(c->failure, sizeof c->failure, "%s", mb_status_sentence());
        mb_status_clear();
        if (c->comm->rank == 0) {
            mb_log_warn("checkpoint of step %lld was not saved: %s", (long long)j->info.step,
                        c->failure);
            if (mb_path_remove_tree(j->partial) != MB_OK)
                mb_log_warn("%s", mb_status_sentence());
            mb_status_clear();
        }
    }
    job_release(j);
    return MB_OK;
}

bool mb_checkpoints_is_saving(const mb_checkpoints *c)
{
    return c->saving;
}

void mb_checkpoints_vote(mb_checkpoints *c, double votes[MB_CHECKPOINT_VOTES])
{
    const int progress = c->saving ? atomic_load(&c->progress) : WRITING;

    votes[0] = progress != WRITING;
    votes[1] = progress == FAILED;
}

mb_status mb_checkpoints_poll(mb_checkpoints *c, const double votes[MB_CHECKPOINT_VOTES],
                              mb_save_outcome *outcome)
{
    *outcome = MB_SAVE_NONE;
    if (!c->saving || votes[0] < c->comm->size)
        return MB_OK;
    return finish(c, outcome);
}

mb_status mb_checkpoints_wait(mb_checkpoints *c, mb_save_outcome *outcome)
{
    *outcome = MB_SAVE_NONE;
    if (!c->saving)
        return MB_OK;
    if (c->threaded)
        pthread_join(c->thread, NULL);
    c->threaded = false;
    MB_TRY(c->comm->ops->barrier(c->comm));
    return finish(c, outcome);
}

const char *mb_checkpoints_failure(const mb_checkpoints *c)
{
    return c->failure;
}

int64_t mb_checkpoints_peak(const mb_checkpoints *c)
{
    return c->peak;
}

/* The object ----------------------------------------------------------------------------------- */

static size_t piece_bytes(const mb_checkpoints_options *o)
{
    int64_t bytes = o->piece_bytes > 0 ? o->piece_bytes : PIECE_BYTES;

    bytes = bytes < PIECE_BYTES_MAX ? bytes : PIECE_BYTES_MAX;
    bytes = bytes / (MB_GRAIN * (int64_t)sizeof(float)) * (MB_GRAIN * (int64_t)sizeof(float));
    return (size_t)(bytes > 0 ? bytes : MB_GRAIN * (int64_t)sizeof(float));
}

/* Elements of each set. */
static int64_t own_count(const mb_flat *flat, int rank, int size)
{
    return mb_flat_bound(flat, size, rank + 1) - mb_flat_bound(flat, size, rank);
}

size_t mb_checkpoint_aside_bytes(const mb_flat *flat, const mb_optim_kind *kind, int rank, int size)
{
    const int64_t own = own_count(flat, rank, size);

    return (size_t)own * sizeof(float) + mb_optim_state_bytes(kind, own);
}

/* model.h5 while HDF5 holds it open: so much for each tensor of each set, as measured. */
static size_t model_bytes(const mb_flat *flat, const mb_optim_kind *kind)
{
    return (size_t)flat->n_segments * (size_t)(1 + kind->n_states) * (21 << 10);
}

size_t mb_checkpoint_image_bytes(const mb_checkpoints_options *options, const mb_flat *flat,
                                 const mb_optim_kind *kind, int rank, int size, bool aside)
{
    const size_t own = (size_t)own_count(flat, rank, size) * sizeof(float);
    const size_t piece = piece_bytes(options), data = own < piece ? own : piece;
    bool widened = mb_flat_in_halves(flat) && !aside; /* a copy aside is joined already */

    for (int i = 0; i < kind->n_states; i++)
        widened = widened || kind->dtype[i] != MB_DTYPE_F32;
    const size_t pieces = image_bytes(flat, data) + (widened ? data : 0);
    const size_t model = rank == 0 ? model_bytes(flat, kind) : 0;
    return pieces > model ? pieces : model;
}

static mb_status open_folder(mb_checkpoints *c)
{
    MB_TRY(mb_path_mkdirs(c->dir));
    MB_TRY(mb_folder_lock(c->dir, &c->lock));
    return mb_folder_sweep(c->dir);
}

mb_status mb_checkpoints_open(mb_comm *comm, const mb_checkpoints_options *options,
                              mb_checkpoints **out)
{
    mb_checkpoints *c = NULL;
    mb_status st = MB_NEW(&c);

    if (st == MB_OK) {
        c->comm = comm;
        c->keep = options->keep;
        c->lock = -1;
        c->piece_bytes = (int64_t)piece_bytes(options);
        st = mb_strdup(options->output_dir, &c->dir);
    }
    if (st == MB_OK && comm->rank == 0)
        st = open_folder(c);
    st = mb_comm_agree(comm, st);
    if (st != MB_OK) {
        mb_checkpoints_close(c);
        return st;
    }
    *out = c;
    return MB_OK;
}

void mb_checkpoints_close(mb_checkpoints *c)
{
    if (c == NULL)
        return;
    if (c->saving && c->threaded)
        pthread_join(c->thread, NULL);
    job_release(&c->job);
    mb_folder_unlock(c->lock);
    mb_free(c->dir);
    mb_free(c);
}

static mb_status supersede(mb_checkpoints *c, int64_t step)
{
    int64_t *steps = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_checkpoint_list(c->dir, &steps, &n));
    for (size_t i = 0; i < n; i++) {
        char path[MB_PATH_MAX], away[MB_PATH_MAX + 16];
        if (steps[i] <= step)
            continue;
        MB_TRY_GOTO(mb_checkpoint_path(c->dir, steps[i], path, sizeof path), st, done);
        snprintf(away, sizeof away, "%s.superseded", path);
        MB_TRY_GOTO(mb_path_remove_tree(away), st, done);
        if (rename(path, away) != 0)
            MB_TRY_GOTO(
                MB_RAISE(MB_EIO, "'%s' cannot be renamed to '%s': %s", path, away, strerror(errno)),
                st, done);
        mb_log_info("%s is newer than step %lld and was renamed to %s", path, (long long)step,
                    mb_path_base(away));
    }
done:
    mb_free(steps);
    return st;
}

mb_status mb_checkpoints_supersede(mb_checkpoints *c, int64_t step)
{
    return mb_comm_agree(c->comm, c->comm->rank == 0 ? supersede(c, step) : MB_OK);
}
