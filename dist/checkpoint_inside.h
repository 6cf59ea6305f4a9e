/* dist/checkpoint_inside.h - what the files checkpoint_*.c share; nobody else includes it. */
#ifndef MB_DIST_CHECKPOINT_INSIDE_H
#define MB_DIST_CHECKPOINT_INSIDE_H

#include "core/digest.h"
#include "core/json.h"
#include "core/path.h"
#include "dist/checkpoint.h"

enum { MB_DATASET_MAX = 1024, MB_FILE_NAME_MAX = 64, MB_SETS_MAX = 1 + MB_OPTIM_STATES_MAX };

/* Which numbers stand in which file: a function of the flat order, the states' names, the number of
 * ranks and the piece size. Set 0 is the parameters, set i + 1 the optimizer's state i. */
typedef struct mb_layout {
    const mb_flat *flat;
    const mb_optim_kind *kind;
    int size;
    int64_t piece; /* elements of a full piece, whole grains */
} mb_layout;

/* One file: a window [from, to) of the flat order in one set. */
typedef struct mb_piece {
    char file[MB_FILE_NAME_MAX];
    int set;
    int64_t from, to;
} mb_piece;

/* The part of one tensor in a window. */
typedef struct mb_slice {
    const mb_flat_segment *segment;
    int64_t from, count; /* elements of the tensor */
    int64_t flat;        /* where it stands in the flat order */
} mb_slice;

int mb_layout_sets(const mb_layout *l);
int64_t mb_layout_pieces(const mb_layout *l, int rank);
void mb_layout_piece(const mb_layout *l, int rank, int64_t number, mb_piece *out);
/* The first slice of a window at or after segment *next; false when there is none left. */
bool mb_layout_slice(const mb_layout *l, int64_t from, int64_t to, int *next, mb_slice *out);
/* "/param/<tensor>", "/optim/<state>/<tensor>". */
mb_status mb_layout_dataset(const mb_layout *l, int set, const char *tensor,
                            char out[MB_DATASET_MAX]) MB_MUST_USE;

/* sha256 of a slice: of what it is as well as of its bytes, so that it cannot stand elsewhere. */
mb_status mb_slice_digest(const char *run_id, int64_t step, const char *dataset, int64_t from,
                          const float *data, int64_t count, char out[MB_DIGEST_HEX]) MB_MUST_USE;

/* The manifest's text with its own digest at the end; checked and parsed. */
mb_status mb_manifest_seal(mb_json root, char **text, size_t *n) MB_MUST_USE;
mb_status mb_manifest_read(const char *path, mb_json_doc **out) MB_MUST_USE;
/* A file of a checkpoint whole in memory, if it is as the manifest's entry says. */
mb_status mb_manifest_file(const char *path, mb_json entry, char **bytes, size_t *n) MB_MUST_USE;
/* The entry of a file by name; MB_EIO when the manifest has none. */
mb_status mb_manifest_entry(mb_json root, const char *path, const char *file,
                            mb_json *out) MB_MUST_USE;
/* Adds {name, bytes, sha256} of a file to an array. */
mb_status mb_manifest_add_file(mb_json files, const char *name, const void *bytes,
                               size_t n) MB_MUST_USE;

/* state.h5 and model.h5 as bytes, owned by the caller. */
mb_status mb_state_image(const mb_checkpoint_info *info, const mb_layout *l, void **bytes,
                         size_t *n) MB_MUST_USE;
mb_status mb_model_image(const mb_layout *l, const mb_checkpoint_info *info, void **bytes,
                         size_t *n) MB_MUST_USE;

/* One save of this rank. Between begin and the end of the thread only the thread touches it, but for
 * `progress`. */
struct mb_save_job {
    mb_layout layout;
    mb_checkpoint_info info; /* with copied texts */
    int64_t best_step;
    int rank;
    int64_t from, to;           /* own range of the flat order */
    mb_tensor set[MB_SETS_MAX]; /* own range of each set, in host memory */
    bool copied;                /* sets are ours */
    float *window;              /* f32 numbers of a piece of a set of another type */
    char path[MB_PATH_MAX];     /* published */
    char partial[MB_PATH_MAX];  /* until then */
    mb_json_doc *list;          /* what this rank wrote: {files, slices} */
    int64_t peak;               /* memory of this process when it held a file: mb_memory_own */
    mb_status st;
    char sentence[1024];
};

/* All ranks have written: lists to rank 0, manifest, rename. Collective; the same status on all. */
mb_status mb_save_publish(mb_comm *comm, const char *dir, struct mb_save_job *j) MB_MUST_USE;
/* Rank 0, after a checkpoint was published; what fails here costs disk space only. */
void mb_save_tidy(const char *dir, int keep, const struct mb_save_job *j);

/* The lock on a folder. *fd is -1 on file systems without locks. */
mb_status mb_folder_lock(const char *dir, int *fd) MB_MUST_USE;
void mb_folder_unlock(int fd);
/* Removes *.partial and .trash-* folders that a killed run left. */
mb_status mb_folder_sweep(const char *dir) MB_MUST_USE;
/* Publishes <path>.partial as <path>; a folder that is already there goes. */
mb_status mb_folder_publish(const char *dir, const char *path) MB_MUST_USE;
/* Removes all but the newest `keep` and `best_step`. */
mb_status mb_folder_retain(const char *dir, int keep, int64_t best_step) MB_MUST_USE;

/* For tests that kill a process at a given place: MBUYU_TEST_KILL_AT=n is the n-th place passed. */
void mb_checkpoint_place(void);

#endif
