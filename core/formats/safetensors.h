/* core/formats/safetensors.h - reading and checking the header of a safetensors file.
 *
 *     u64 n | n bytes of JSON, '{' first, blanks may follow | data
 *     {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end)}, ...,
 *      "__metadata__": {"format": "pt"}}
 *
 * Little-endian, row-major; offsets count from the end of the header. A file is accepted only if
 * its tensors, sorted by offset, cover the data exactly, without gap, overlap or bytes left over,
 * and each has the bytes its shape and type need. (github.com/huggingface/safetensors)
 *
 * Models are read through core/formats/tensor_file.h, which calls this.
 */
#ifndef MB_CORE_FORMATS_SAFETENSORS_H
#define MB_CORE_FORMATS_SAFETENSORS_H

#include "core/formats/tensor_file.h"
#include "core/json.h"

enum { MB_TENSOR_NAME_MAX = 512 };

typedef struct mb_safetensors_header {
    mb_tensor_info *info; /* sorted by offset */
    size_t n;
    char *names;           /* what info[].name points into */
    mb_json_doc *metadata; /* an object of strings; NULL when there is none */
} mb_safetensors_header;

/* Reads the header of an open file of `size` bytes; `path` is for messages. On success *out is to
 * be freed; on failure nothing is left. */
mb_status mb_safetensors_open(const char *path, int fd, int64_t size,
                              mb_safetensors_header *out) MB_MUST_USE;
void mb_safetensors_header_free(mb_safetensors_header *h); /* all zeros is allowed */
/* A value of __metadata__, or NULL. */
const char *mb_safetensors_metadata(const mb_safetensors_header *h, const char *key);

#endif
