/* recipes/tokenizers/save.c - writing a tokenizer beside the model it belongs to.
 *
 * The bytes are those that were read (or generated from GGUF), kept since: the folder they came
 * from may be gone, or be the one that is written.
 */
#include "core/path.h"
#include "recipes/tokenizers/model.h"

mb_status mb_tokenizer_save(const mb_tokenizer *t, const char *dir)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_mkdirs(dir));
    for (size_t i = 0; i < t->n_files; i++) {
        MB_TRY(mb_path_join(path, sizeof path, dir, t->file[i].name));
        MB_TRY(mb_file_write_atomic(path, t->file[i].text, t->file[i].n));
    }
    return MB_OK;
}
