/* dist/checkpoint_load.c - checking and reading checkpoints; see dist/checkpoint.h.
 *
 * Each rank reads the slices that meet its own range, whoever wrote them, and the parameters then
 * go round. HDF5 sees a file only as bytes whose sha256 is the manifest's.
 */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "dist/checkpoint_inside.h"
#include "dist/h5.h"

/* Verifying ------------------------------------------------------------------------------------ */

static mb_status verify_share(mb_comm *comm, const char *path)
{
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;
    int i = 0;

    MB_TRY(mb_manifest_read(path, &doc));
    for (mb_json_it it = mb_json_first(mb_json_get(mb_json_root(doc), "files"));
         mb_json_more(&it) && st == MB_OK; mb_json_next(&it), i++) {
        char *bytes = NULL;
        size_t n;
        if (i % comm->size != comm->rank)
            continue;
        st = mb_manifest_file(path, it.value, &bytes, &n);
        mb_free(bytes);
    }
    mb_json_free(doc);
    return st;
}

mb_status mb_checkpoint_verify(mb_comm *comm, const char *path)
{
    return mb_comm_agree(comm, verify_share(comm, path));
}

/* Rank 0's list of steps on all ranks. */
static mb_status share_list(mb_comm *comm, const char *dir, int64_t **steps, int64_t *n)
{
    size_t found = 0;

    MB_TRY(mb_comm_agree(comm, comm->rank == 0 ? mb_checkpoint_list(dir, steps, &found) : MB_OK));
    *n = (int64_t)found;
    MB_TRY(comm->ops->broadcast(comm, n, sizeof *n, 0));
    mb_status st = MB_OK;
    if (comm->rank != 0)
        st = MB_NEW_ARRAY(steps, *n + 1);
    MB_TRY(mb_comm_agree(comm, st));
    return comm->ops->broadcast(comm, *steps, *n * (int64_t)sizeof **steps, 0);
}

mb_status mb_checkpoint_find(mb_comm *comm, const char *output_dir, char **path)
{
    char name[MB_PATH_MAX];
    int64_t *steps = NULL, n = 0;
    mb_status st = MB_OK, bad = MB_OK;

    *path = NULL;
    MB_TRY_GOTO(share_list(comm, output_dir, &steps, &n), st, done);
    for (int64_t i = n - 1; i >= 0; i--) {
        MB_TRY_GOTO(mb_checkpoint_path(output_dir, steps[i], name, sizeof name), st, done);
        bad = mb_checkpoint_verify(comm, name);
        if (bad == MB_OK) {
            st = mb_comm_agree(comm, mb_strdup(name, path));
            goto done;
        }
        if (comm->rank == 0)
            mb_log_warn("%s cannot be used: %s%s", name, mb_status_sentence(),
                        i > 0 ? "; going back to the one before" : "");
        mb_status_clear();
    }
    if (n > 0)
        st = MB_RAISE(MB_EIO,
                      "none of the %lld checkpoints in %s can be used (see above); move them away "
                      "to start from the beginning",
                      (long long)n, output_dir);
done:
    mb_free(steps);
    return st;
}

/* Texts and counters --------------------------------------------------------------------------- */

/* Opens one of the checkpoint's HDF5 files after its digest agreed; *bytes must outlive *f. */
static mb_status open_file(mb_json root, const char *path, const char *file, char **bytes,
                           mb_h5 **f)
{
    mb_json entry;
    size_t n;

    MB_TRY(mb_manifest_entry(root, path, file, &entry));
    MB_TRY(mb_manifest_file(path, entry, bytes, &n));
    const mb_status st = mb_h5_open_image(file, *bytes, n, MB_EIO, f);
    if (st != MB_OK) {
        mb_free(*bytes);
        *bytes = NULL;
    }
    return st;
}

static mb_status get_state(mb_h5 *f, mb_checkpoint_info *out)
{
    mb_zero_history *h = &out->history;
    int64_t ranks;
    char *text;

    MB_TRY(mb_h5_get_ints(f, "/", "step", 0, &out->step));
    MB_TRY(mb_h5_get_ints(f, "/", "ranks", 0, &ranks));
    out->ranks = (int)ranks;
    MB_TRY(mb_h5_get_text(f, "/", "run_id", &text));
    out->run_id = text;
    MB_TRY(mb_h5_read_text(f, "/trainer", &text));
    out->state_json = text;
    MB_TRY(mb_h5_get_ints(f, "/optim", "applied", 0, &h->applied));
    MB_TRY(mb_h5_get_ints(f, "/optim", "skipped", 0, &h->skipped));
    MB_TRY(mb_h5_get_ints(f, "/optim", "skipped_row", 0, &h->skipped_row));
    MB_TRY(mb_h5_get_ints(f, "/optim", "repeated", 0, &h->repeated));
    MB_TRY(mb_h5_get_real(f, "/optim", "loss_scale", &h->loss_scale));
    MB_TRY(mb_h5_get_ints(f, "/optim", "unscaled", 0, &h->unscaled));
    return mb_h5_get_real(f, "/optim", "max_abs", &h->max_abs);
}

mb_status mb_checkpoint_read_info(const char *path, mb_checkpoint_info *out)
{
    mb_checkpoint_info info = {0};
    mb_json_doc *doc = NULL;
    mb_json entry;
    char *bytes = NULL, *recipe = NULL;
    mb_h5 *f = NULL;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY(mb_manifest_read(path, &doc));
    MB_TRY_GOTO(open_file(mb_json_root(doc), path, "state.h5", &bytes, &f), st, done);
    MB_TRY_GOTO(get_state(f, &info), st, done);
    MB_TRY_GOTO(mb_manifest_entry(mb_json_root(doc), path, "recipe.yaml", &entry), st, done);
    MB_TRY_GOTO(mb_manifest_file(path, entry, &recipe, &n), st, done);
    info.recipe_yaml = recipe;
    *out = info;
    info = (mb_checkpoint_info){0};
done:
    mb_h5_close(f);
    mb_free(bytes);
    mb_json_free(doc);
    mb_checkpoint_info_release(&info);
    return st;
}

static void free_text(const char **text)
{
    void *p;

    memcpy(&p, text, sizeof p); /* owned here, borrowed by others: hence the const */
    mb_free(p);
    *text = NULL;
}

void mb_checkpoint_info_release(mb_checkpoint_info *info)
{
    free_text(&info->run_id);
    free_text(&info->state_json);
    free_text(&info->recipe_yaml);
}

/* Tensors -------------------------------------------------------------------------------------- */

struct span {
    int64_t from, to; /* flat */
};

/* A part of the own range of one set. Sets of f32 in host memory are one window and are read into their
 * place; others go through a buffer, in whole blocks. */
struct window {
    int set;
    int64_t from, to; /* flat */
    float *data;      /* to - from numbers */
};

struct loader {
    const char *path;
    mb_zero *z;
    mb_layout layout; /* for the names of datasets */
    mb_json root;
    int64_t from, to; /* own range */
    const mb_flat_segment **by_name;
    struct window w;
    struct span *done[MB_SETS_MAX]; /* what was read of each set */
    size_t n_done[MB_SETS_MAX], room[MB_SETS_MAX];
};

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const mb_flat_segment *const *)a)->name,
                  (*(const mb_flat_segment *const *)b)->name);
}

static const mb_flat_segment *segment_named(const struct loader *l, const char *name)
{
    const mb_flat_segment key = {.name = name}, *k = &key;
    const mb_flat_segment **found = bsearch(&k, l->by_name, (size_t)l->layout.flat->n_segments,
                                            sizeof *l->by_name, compare_names);

    return found != NULL ? *found : NULL;
}

static mb_status check_shape(const struct loader *l, mb_json shape, const mb_flat_segment *s)
{
    bool same = mb_json_count(shape) == (size_t)s->ndim;
    char *text = NULL;

    for (int i = 0; same && i < s->ndim; i++) {
        int64_t d;
        MB_TRY(mb_json_int(mb_json_at(shape, (size_t)i), &d));
        same = d == s->dim[i];
    }
    if (same)
        return MB_OK;
    MB_TRY(mb_json_text(shape, 0, &text, NULL));
    const mb_status st = MB_RAISE(MB_EMODEL,
                                  "%s: tensor '%s' has shape %s there, %lld elements in "
                                  "%d dimensions here",
                                  l->path, s->name, text, (long long)s->count, s->ndim);
    mb_free(text);
    return st;
}

/* The same tensors of the same shapes, and an optimizer with the same states. */
static mb_status check_tensors(struct loader *l)
{
    const mb_flat *flat = l->layout.flat;
    const mb_json tensors = mb_json_get(l->root, "tensors"),
                  states = mb_json_get(l->root, "states");
    const char *kind;

    MB_TRY(mb_json_get_string(l->root, "optimizer", "", &kind));
    bool same = mb_json_count(states) == (size_t)l->layout.kind->n_states;
    for (int i = 0; same && i < l->layout.kind->n_states; i++) {
        const char *name;
        MB_TRY(mb_json_string(mb_json_at(states, (size_t)i), &name, NULL));
        same = strcmp(name, l->layout.kind->state[i]) == 0;
    }
    MB_REQUIRE(same, MB_EMODEL, "%s was saved with optim '%s', this run has '%s'", l->path, kind,
               l->layout.kind->name);
    for (mb_json_it it = mb_json_first(tensors); mb_json_more(&it); mb_json_next(&it)) {
        const char *name;
        MB_TRY(mb_json_get_string(it.value, "name", "", &name));
        const mb_flat_segment *s = segment_named(l, name);
        MB_REQUIRE(s != NULL, MB_EMODEL, "%s has tensor '%s', which this run does not train",
                   l->path, name);
        MB_TRY(check_shape(l, mb_json_get(it.value, "shape"), s));
    }
    for (int i = 0; mb_json_count(tensors) != (size_t)flat->n_segments && i < flat->n_segments;
         i++) {
        bool there = false;
        for (mb_json_it it = mb_json_first(tensors); mb_json_more(&it); mb_json_next(&it)) {
            const char *name;
            MB_TRY(mb_json_get_string(it.value, "name", "", &name));
            there = there || strcmp(name, flat->segment[i].name) == 0;
        }
        MB_REQUIRE(there, MB_EMODEL, "%s does not have tensor '%s', which this run trains", l->path,
                   flat->segment[i].name);
    }
    return MB_OK;
}

/* Splits "/param/<tensor>" or "/optim/<state>/<tensor>"; -1 for a set this optimizer has not. */
static int set_of(const struct loader *l, const char *dataset, const char **tensor)
{
    for (int set = 0; set < mb_layout_sets(&l->layout); set++) {
        char head[MB_DATASET_MAX];
        if (mb_layout_dataset(&l->layout, set, "", head) != MB_OK)
            return -1;
        if (strncmp(dataset, head, strlen(head)) == 0) {
            *tensor = dataset + strlen(head);
            return set;
        }
    }
    return -1;
}

/* What a manifest's slice has that belongs into the window. */
struct want {
    const char *file, *dataset;
    int64_t from;    /* in the slice */
    struct span own; /* flat; empty when nothing is wanted */
};

static mb_status want_of(const struct loader *l, mb_json entry, struct want *w)
{
    const char *tensor;
    int64_t from, count;

    MB_TRY(mb_json_get_string(entry, "file", "", &w->file));
    MB_TRY(mb_json_get_string(entry, "dataset", "", &w->dataset));
    const int set = set_of(l, w->dataset, &tensor);
    const mb_flat_segment *s = set >= 0 ? segment_named(l, tensor) : NULL;
    MB_REQUIRE(s != NULL, MB_EMODEL, "%s has '%s', which this run does not", l->path, w->dataset);
    MB_TRY(mb_json_need_int(entry, "from", 0, s->count, &from));
    MB_TRY(mb_json_need_int(entry, "count", 0, s->count - from, &count));
    const int64_t a = s->offset + from, b = a + count;
    w->own.from = a > l->w.from ? a : l->w.from;
    w->own.to = set != l->w.set ? w->own.from : b < l->w.to ? b : l->w.to;
    w->from = w->own.from - a;
    return MB_OK;
}

static mb_status read_slice(struct loader *l, mb_h5 *f, const struct want *w)
{
    const int set = l->w.set;

    MB_TRY(mb_h5_read_range(f, w->dataset, MB_DTYPE_F32, w->from, w->own.to - w->own.from,
                            l->w.data + (w->own.from - l->w.from)));
    MB_TRY(mb_grow((void **)&l->done[set], &l->room[set], l->n_done[set] + 1, sizeof(struct span),
                   "ranges read"));
    l->done[set][l->n_done[set]++] = w->own;
    return MB_OK;
}

/* All slices of the window; those of one file stand together in the manifest, so each is read once. */
static mb_status read_slices(struct loader *l)
{
    char *bytes = NULL;
    const char *open = "";
    mb_h5 *f = NULL;
    mb_status st = MB_OK;

    for (mb_json_it it = mb_json_first(mb_json_get(l->root, "slices")); mb_json_more(&it);
         mb_json_next(&it)) {
        struct want w;
        MB_TRY_GOTO(want_of(l, it.value, &w), st, done);
        if (w.own.from >= w.own.to)
            continue;
        if (strcmp(open, w.file) != 0) {
            mb_h5_close(f);
            mb_free(bytes);
            f = NULL;
            bytes = NULL;
            MB_TRY_GOTO(open_file(l->root, l->path, w.file, &bytes, &f), st, done);
            open = w.file;
        }
        MB_TRY_GOTO(read_slice(l, f, &w), st, done);
    }
done:
    mb_h5_close(f);
    mb_free(bytes);
    return st;
}

enum { WINDOW = 8 << 20 }; /* elements: a full piece, so that a file is read once */

static bool in_place(const struct loader *l, const mb_tensor *own)
{
    return own->data != NULL && own->dtype == MB_DTYPE_F32 &&
           mb_device_is_host(mb_zero_device(l->z));
}

/* One window after the other. What belongs to no tensor is zero in the buffer. */
static mb_status read_set(struct loader *l, int set, float *buffer)
{
    const mb_tensor own = mb_zero_own_set(l->z, set);
    const int64_t most = in_place(l, &own) ? l->to - l->from : WINDOW;

    for (int64_t from = l->from; from < l->to; from = l->w.to) {
        const int64_t to = l->to - from < most ? l->to : from + most;
        void *data = own.data != NULL ? mb_element(own.data, own.dtype, from - l->from) : NULL;
        const mb_tensor place = mb_tensor_1d(data, own.dtype, to - from);
        l->w = (struct window){.set = set, .from = from, .to = to, .data = buffer};
        if (in_place(l, &own))
            l->w.data = data;
        else
            memset(buffer, 0, (size_t)(to - from) * sizeof *buffer);
        MB_TRY(read_slices(l));
        if (data == NULL)
            MB_TRY(mb_flat_write_halves(mb_zero_device(l->z), mb_zero_flat(l->z), from, to - from,
                                        buffer));
        else if (!in_place(l, &own))
            MB_TRY(mb_device_write_f32(mb_zero_device(l->z), &place, buffer));
    }
    return MB_OK;
}

static mb_status read_sets(struct loader *l)
{
    const int64_t own = l->to - l->from, n = own < WINDOW ? own : WINDOW;
    float *buffer = NULL;
    mb_status st = MB_OK;

    for (int set = 0; set < mb_layout_sets(&l->layout); set++) {
        const mb_tensor t = mb_zero_own_set(l->z, set);
        if (!in_place(l, &t) && buffer == NULL)
            MB_TRY(
                mb_pages((size_t)n * sizeof(float), "numbers of a checkpoint", (void **)&buffer));
        MB_TRY_GOTO(read_set(l, set, buffer), st, done);
    }
done:
    mb_pages_free(buffer, (size_t)n * sizeof(float));
    return st;
}

static int by_start(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    return (x->from > y->from) - (x->from < y->from);
}

/* Every wanted element was read exactly once. */
static mb_status check_cover(struct loader *l)
{
    for (int set = 0; set < mb_layout_sets(&l->layout); set++) {
        struct span *d = l->done[set];
        size_t k = 0;
        int next = 0;
        mb_slice s;
        if (l->n_done[set] > 0)
            qsort(d, l->n_done[set], sizeof *d, by_start);
        while (mb_layout_slice(&l->layout, l->from, l->to, &next, &s)) {
            int64_t at = s.flat;
            for (; k < l->n_done[set] && d[k].from < s.flat + s.count; k++) {
                MB_REQUIRE(d[k].from == at, MB_EIO, "%s: the slices of '%s' %s", l->path,
                           s.segment->name, d[k].from < at ? "overlap" : "have a gap");
                at = d[k].to;
            }
            MB_REQUIRE(at == s.flat + s.count, MB_EIO, "%s: the slices of '%s' have a gap", l->path,
                       s.segment->name);
        }
    }
    return MB_OK;
}

static mb_status load_own(struct loader *l)
{
    const mb_flat *flat = l->layout.flat;

    MB_TRY(MB_NEW_ARRAY(&l->by_name, flat->n_segments));
    for (int i = 0; i < flat->n_segments; i++)
        l->by_name[i] = &flat->segment[i];
    qsort(l->by_name, (size_t)flat->n_segments, sizeof *l->by_name, compare_names);
    MB_TRY(check_tensors(l));
    MB_TRY(read_sets(l));
    return check_cover(l);
}

size_t mb_checkpoint_load_bytes(const mb_flat *flat, const mb_optim_kind *kind)
{
    const int64_t piece = flat->count < WINDOW ? flat->count : WINDOW,
                  own = flat->own_to - flat->own_from, part = own < WINDOW ? own : WINDOW;
    bool widened = mb_flat_in_halves(flat);

    for (int i = 0; i < kind->n_states; i++)
        widened = widened || kind->dtype[i] != MB_DTYPE_F32;
    return (size_t)(piece + (widened ? part : 0)) * sizeof(float);
}

mb_status mb_checkpoint_load(const char *path, mb_zero *z)
{
    mb_comm *comm = mb_zero_parts(z);
    struct loader l = {.path = path, .z = z};
    mb_checkpoint_info info = {0};
    mb_json_doc *doc = NULL;
    mb_status st = mb_manifest_read(path, &doc);

    l.layout = (mb_layout){.flat = mb_zero_flat(z), .kind = mb_zero_kind(z), .size = comm->size};
    if (st == MB_OK) {
        l.root = mb_json_root(doc);
        mb_zero_own(z, &l.from, &l.to);
        st = load_own(&l);
    }
    if (st == MB_OK)
        st = mb_checkpoint_read_info(path, &info);
    for (int i = 0; i < MB_SETS_MAX; i++)
        mb_free(l.done[i]);
    mb_free(l.by_name);
    mb_json_free(doc);
    mb_h5_tidy();
    st = mb_comm_agree(comm, st);
    if (st == MB_OK) {
        *mb_zero_history_of(z) = info.history;
        st = mb_zero_spread(z);
    }
    mb_checkpoint_info_release(&info);
    return st;
}
