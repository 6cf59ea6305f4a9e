/* dist/checkpoint_publish.c - from files that are all on disk to a checkpoint with a name. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "dist/checkpoint_inside.h"

/* Appends the members of a rank's list to the manifest's. */
static mb_status add_list(mb_json root, const char *text, size_t n, int rank)
{
    static const char *const arrays[] = {"files", "slices"};
    char name[64];
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    snprintf(name, sizeof name, "the list of rank %d", rank);
    MB_TRY(mb_json_parse(text, n, name, 0, MB_EBUG, &doc));
    for (int a = 0; a < 2 && st == MB_OK; a++)
        for (mb_json_it it = mb_json_first(mb_json_get(mb_json_root(doc), arrays[a]));
             mb_json_more(&it) && st == MB_OK; mb_json_next(&it))
            st = mb_json_set(mb_json_get(root, arrays[a]), NULL, it.value);
    mb_json_free(doc);
    return st;
}

/* Rank 0 receives every rank's list, even after a failure: the others do send. */
static mb_status collect(mb_comm *comm, mb_json_doc *mine, mb_json root)
{
    mb_status st = MB_OK;
    char *text = NULL;
    size_t n = 0;
    int64_t bytes;

    const mb_status local = mb_json_text(mb_json_root(mine), 0, &text, &n);
    if (comm->rank > 0) {
        bytes = local == MB_OK ? (int64_t)n : -1;
        MB_TRY_GOTO(comm->ops->send(comm, &bytes, sizeof bytes, 0), st, done);
        if (bytes >= 0)
            MB_TRY_GOTO(comm->ops->send(comm, text, bytes, 0), st, done);
        st = local;
        goto done;
    }
    st = local;
    if (st == MB_OK)
        st = add_list(root, text, n, 0);
    for (int r = 1; r < comm->size; r++) {
        void *theirs = NULL;
        MB_TRY_GOTO(comm->ops->recv(comm, &bytes, sizeof bytes, r), st, done);
        if (bytes < 0) {
            st = st == MB_OK ? MB_RAISE(MB_EIO, "rank %d could not list its files", r) : st;
            continue;
        }
        MB_TRY_GOTO(mb_alloc((size_t)bytes + 1, "a rank's list", &theirs), st, done);
        const mb_status got = comm->ops->recv(comm, theirs, bytes, r);
        if (st == MB_OK)
            st = got != MB_OK ? got : add_list(root, theirs, (size_t)bytes, r);
        mb_free(theirs);
    }
done:
    mb_free(text);
    return st;
}

static mb_status describe(const struct mb_save_job *j, mb_json root)
{
    mb_json list, tensor, shape;

    MB_TRY(mb_json_set_string(root, "format", "mbuyu-checkpoint"));
    MB_TRY(mb_json_set_int(root, "version", MB_CHECKPOINT_VERSION));
    MB_TRY(mb_json_set_string(root, "mbuyu", MB_VERSION));
    MB_TRY(mb_json_set_string(root, "run_id", j->info.run_id));
    MB_TRY(mb_json_set_int(root, "step", j->info.step));
    MB_TRY(mb_json_set_int(root, "ranks", j->layout.size));
    MB_TRY(mb_json_set_string(root, "digest", "sha256"));
    MB_TRY(mb_json_set_string(root, "optimizer", j->layout.kind->name));
    MB_TRY(mb_json_set_array(root, "states", &list));
    for (int i = 0; i < j->layout.kind->n_states; i++)
        MB_TRY(mb_json_set_string(list, NULL, j->layout.kind->state[i]));
    MB_TRY(mb_json_set_array(root, "tensors", &list));
    for (int i = 0; i < j->layout.flat->n_segments; i++) {
        const mb_flat_segment *s = &j->layout.flat->segment[i];
        MB_TRY(mb_json_set_object(list, NULL, &tensor));
        MB_TRY(mb_json_set_string(tensor, "name", s->name));
        MB_TRY(mb_json_set_array(tensor, "shape", &shape));
        for (int k = 0; k < s->ndim; k++)
            MB_TRY(mb_json_set_int(shape, NULL, s->dim[k]));
    }
    MB_TRY(mb_json_set_array(root, "files", &list));
    return mb_json_set_array(root, "slices", &list);
}

static mb_status write_manifest(const struct mb_save_job *j, mb_json root)
{
    char path[MB_PATH_MAX], *text = NULL;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, j->partial, "manifest.json"));
    MB_TRY(mb_manifest_seal(root, &text, &n));
    mb_checkpoint_place();
    MB_TRY_GOTO(mb_file_write_atomic(path, text, n), st, done);
done:
    mb_free(text);
    return st;
}

/* A file with a checkpoint's name, for people and scripts; nothing here reads it. */
static void name_file(const char *dir, const char *file, int64_t step)
{
    char path[MB_PATH_MAX], text[64];
    const int n = snprintf(text, sizeof text, "checkpoint-%06lld\n", (long long)step);
    mb_status st = mb_path_join(path, sizeof path, dir, file);

    if (st == MB_OK)
        st = mb_file_write_atomic(path, text, (size_t)n);
    if (st != MB_OK) {
        mb_log_warn("%s", mb_status_sentence());
        mb_status_clear();
    }
}

mb_status mb_save_publish(mb_comm *comm, const char *dir, struct mb_save_job *j)
{
    mb_json_doc *doc = NULL;
    mb_status st = mb_json_doc_new("manifest.json", &doc);

    if (st == MB_OK)
        st = describe(j, mb_json_root(doc));
    st = mb_comm_agree(comm, st); /* from here every rank sends, and rank 0 receives */
    if (st == MB_OK)
        st = collect(comm, j->list, mb_json_root(doc));
    if (st == MB_OK && comm->rank == 0)
        st = write_manifest(j, mb_json_root(doc));
    st = mb_comm_agree(comm, st);
    if (st == MB_OK && comm->rank == 0)
        st = mb_folder_publish(dir, j->path);
    mb_json_free(doc);
    return mb_comm_agree(comm, st);
}

void mb_save_tidy(const char *dir, int keep, const struct mb_save_job *j)
{
    name_file(dir, "latest", j->info.step);
    if (j->best_step >= 0)
        name_file(dir, "best", j->best_step);
    if (mb_folder_retain(dir, keep, j->best_step) != MB_OK) {
        mb_log_warn("an old checkpoint could not be removed: %s", mb_status_sentence());
        mb_status_clear();
    }
}
