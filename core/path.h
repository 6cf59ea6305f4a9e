/* core/path.h - paths, whole files, and writing so that a reader never sees half a file.
 *
 *     char path[MB_PATH_MAX];
 *     MB_TRY(mb_path_join(path, sizeof path, dir, "config.json"));
 *     MB_TRY(mb_file_read(path, 1 << 20, &text, &n));
 *
 * Reading opens regular files only: a FIFO, a device or a folder is an error, never a hang. Writing
 * goes to `path`.mbuyu-HOST-N.tmp, is flushed to disk and renamed, so that after a crash there is the old
 * file or the new one; several may write one path at once, and the last one to finish wins. Every error names the path and says what the system said.
 *
 * Functions that read take the code their errors have, because a missing file is a wrong recipe
 * (MB_EARG), bad data (MB_EDATA) or a bad model (MB_EMODEL) depending on who asks.
 */
#ifndef MB_CORE_PATH_H
#define MB_CORE_PATH_H

#include <stdint.h>

#include "core/status.h"

struct stat;

enum { MB_PATH_MAX = 4096 };

/* out = a/b; b alone when b is absolute or a is "". MB_EARG when it does not fit in `size`. */
mb_status mb_path_join(char *out, size_t size, const char *a, const char *b) MB_MUST_USE;
/* What follows the last '/'; borrowed from `path`. */
const char *mb_path_base(const char *path);
/* The folder a path is in: "a/b" -> "a", "b" -> ".", "/b" -> "/". */
mb_status mb_path_dir(char *out, size_t size, const char *path) MB_MUST_USE;
bool mb_path_has_suffix(const char *path, const char *suffix);

/* The absolute path without links or dots; MB_EIO when there is nothing there. */
mb_status mb_path_real(const char *path, char *out, size_t size) MB_MUST_USE;

/* These follow symbolic links. */
bool mb_path_exists(const char *path);
bool mb_path_is_dir(const char *path);
bool mb_path_is_file(const char *path); /* a regular file */
/* When what is there was last written: nanoseconds since 1970, in the file system's ticks of some
 * milliseconds. 0: nothing is there. */
int64_t mb_path_changed(const char *path);
int64_t mb_stat_changed(const struct stat *s); /* likewise, of one that was looked at already */

/* True if `name`, which came from a file or a network, may be used as a file name inside a folder:
 * 1 to 255 bytes, no '/', '\\' or control characters, neither "." nor "..". */
bool mb_path_is_component(const char *name);

/* Makes a folder and those above it; one that exists is fine. */
mb_status mb_path_mkdirs(const char *path) MB_MUST_USE;
/* Removes a file or a whole folder. Symbolic links inside are removed, not followed; a path that
 * does not exist is fine. */
mb_status mb_path_remove_tree(const char *path) MB_MUST_USE;
/* Flushes a folder's entries to disk, so that a rename in it survives a power loss. */
mb_status mb_path_sync_dir(const char *path) MB_MUST_USE;

/* The names in a folder without "." and "..", sorted by bytes. The caller frees with
 * mb_path_list_free. */
mb_status mb_path_list(const char *dir, char ***names, size_t *n) MB_MUST_USE;
void mb_path_list_free(char **names, size_t n);

/* Opens a regular file for reading; the caller closes *fd. Errors have `code`. */
mb_status mb_file_open(const char *path, mb_status code, int *fd, int64_t *size) MB_MUST_USE;
/* The whole file, with a zero byte after it that is not counted; owned by the caller. A larger file
 * than max_bytes is refused before anything is allocated. Errors are MB_EIO, or `code`. */
mb_status mb_file_read(const char *path, size_t max_bytes, char **text, size_t *n) MB_MUST_USE;
mb_status mb_file_read_as(const char *path, mb_status code, size_t max_bytes, char **text,
                          size_t *n) MB_MUST_USE;
/* Replaces `path` by these bytes: temporary file, fsync, rename, fsync of the folder. */
mb_status mb_file_write_atomic(const char *path, const void *data, size_t n) MB_MUST_USE;

/* All n bytes at `offset` or an error; `path` is only for messages. Reading past the end is
 * MB_EIO and says that the file was cut short. */
mb_status mb_pread_all(int fd, void *dst, size_t n, int64_t offset, const char *path) MB_MUST_USE;
mb_status mb_pwrite_all(int fd, const void *src, size_t n, int64_t offset,
                        const char *path) MB_MUST_USE;

/* A file that appears under its name only when it is complete.
 *
 *     MB_TRY(mb_newfile_open(path, &f));
 *     MB_TRY_GOTO(mb_pwrite_all(f.fd, data, n, 0, path), st, done);
 *     MB_TRY_GOTO(mb_newfile_sync(&f), st, done);      // durable, still under its temporary name
 *     MB_TRY_GOTO(mb_newfile_publish(&f), st, done);   // renamed, folder flushed
 * done:
 *     mb_newfile_abandon(&f);                          // nothing to do after publish
 */
typedef struct mb_newfile {
    char *path, *temporary; /* owned; NULL when there is nothing to abandon */
    int fd;                 /* -1 once synced */
    int lock;               /* says that its writer lives; there while `temporary` is */
} mb_newfile;

/* What a temporary name has after the file's own: is it that? */
bool mb_newfile_is_suffix(const char *text);

mb_status mb_newfile_open(const char *path, mb_newfile *f) MB_MUST_USE;
mb_status mb_newfile_sync(mb_newfile *f) MB_MUST_USE;
mb_status mb_newfile_publish(mb_newfile *f) MB_MUST_USE;
void mb_newfile_abandon(mb_newfile *f);

#endif
