/* core/formats/tensor_file.h - the tensors of a model on disk, whatever format it is in.
 *
 *     MB_TRY(mb_tensor_file_open("SmolLM2", &f));
 *     const int64_t i = mb_tensor_file_find(f, "model.norm.weight");
 *     const mb_tensor_info *t = mb_tensor_file_info(f, i);
 *     MB_TRY_GOTO(mb_tensor_file_read(f, i, dst, 0, t->bytes), st, done);
 * done:
 *     mb_tensor_file_close(f);
 *
 * Opening reads and checks headers only: names, shapes, offsets against the length of the file.
 * After that every tensor listed is known to lie inside its file, and reading is a plain pread into
 * the caller's memory. Nothing is mapped: a file that is cut short meanwhile gives an error, not a
 * signal. Shapes are in torch's order (the last dimension varies fastest) for every format; GGUF
 * block types come as raw blocks.
 *
 * Bad files give MB_EMODEL, or MB_ENOTSUP for what is valid but not read here, with one sentence
 * that begins with the path. After opening, an object may be read by several threads.
 */
#ifndef MB_CORE_FORMATS_TENSOR_FILE_H
#define MB_CORE_FORMATS_TENSOR_FILE_H

#include "core/tensor.h"

typedef struct mb_tensor_file mb_tensor_file;
typedef struct mb_gguf mb_gguf;

typedef struct mb_tensor_info {
    const char *name; /* borrowed from the file object */
    mb_dtype dtype;
    int ndim;
    int64_t dim[MB_MAX_DIMS];
    int64_t bytes;  /* of the whole tensor in the file */
    int part;       /* private: which of the files */
    int64_t offset; /* private: from the beginning of that file */
} mb_tensor_info;

/* `path` is
 *   a folder with model.safetensors, or model.safetensors.index.json and its shards, or else with
 *   exactly one .gguf file;
 *   or a .safetensors file; or a .gguf file (told apart by content).
 * Pickled weights (pytorch_model.bin, *.pt, *.pth) are refused with how to convert them. The caller
 * owns *out. */
mb_status mb_tensor_file_open(const char *path, mb_tensor_file **out) MB_MUST_USE;
void mb_tensor_file_close(mb_tensor_file *f); /* NULL is allowed */

int64_t mb_tensor_file_count(const mb_tensor_file *f);
/* 0 <= i < count; in the order of the data in the files. Borrowed. */
const mb_tensor_info *mb_tensor_file_info(const mb_tensor_file *f, int64_t i);
/* The index of a name, or -1. Binary search: no input makes it slow. */
int64_t mb_tensor_file_find(const mb_tensor_file *f, const char *name);

/* Bytes [from, from+bytes) of tensor i into dst. */
mb_status mb_tensor_file_read(const mb_tensor_file *f, int64_t i, void *dst, int64_t from,
                              int64_t bytes) MB_MUST_USE;

/* The file tensor i is in, for messages; the path given to open. Borrowed. */
const char *mb_tensor_file_path(const mb_tensor_file *f, int64_t i);
const char *mb_tensor_file_name(const mb_tensor_file *f);

/* A number for what is on disk: equal for the same files (by device and number, length, and time of the
 * last change), by whatever path they were opened. MB_EIO. */
mb_status mb_tensor_file_stamp(const mb_tensor_file *f, uint64_t *stamp) MB_MUST_USE;

/* The key-value pairs of a GGUF file; NULL for safetensors. Borrowed. */
const mb_gguf *mb_tensor_file_gguf(const mb_tensor_file *f);
/* A value of safetensors' __metadata__ (of the first file that has the key), or NULL. Borrowed. */
const char *mb_tensor_file_metadata(const mb_tensor_file *f, const char *key);

#endif
