/* dist/checkpoint_folder.c - the folders of a run: listing, lock, publishing, removing.
 *
 * Only rank 0 changes folders. A checkpoint has its name only while it is whole: it gets it by one
 * rename and loses it by one, to .trash-*, before its files go.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "dist/checkpoint_inside.h"

void mb_checkpoint_place(void)
{
    static int passed;
    const char *at = getenv("MBUYU_TEST_KILL_AT");

    if (at != NULL && ++passed == (int)strtol(at, NULL, 10))
        raise(SIGKILL);
}

mb_status mb_checkpoint_path(const char *output_dir, int64_t step, char *path, size_t size)
{
    char name[64];

    snprintf(name, sizeof name, "checkpoint-%06lld", (long long)step);
    return mb_path_join(path, size, output_dir, name);
}

/* The step of a folder called as mb_checkpoint_path calls it, -1 for any other name. */
static int64_t step_of(const char *name)
{
    static const char prefix[] = "checkpoint-";
    char again[64];

    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || strlen(name) > 40)
        return -1;
    const long long step = strtoll(name + sizeof prefix - 1, NULL, 10);
    snprintf(again, sizeof again, "checkpoint-%06lld", step);
    return step >= 0 && strcmp(again, name) == 0 ? step : -1;
}

static int by_step(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

mb_status mb_checkpoint_list(const char *output_dir, int64_t **steps, size_t *n)
{
    char **names = NULL, path[MB_PATH_MAX];
    size_t n_names = 0, found = 0;
    int64_t *list = NULL;
    mb_status st = MB_OK;

    if (mb_path_is_dir(output_dir))
        MB_TRY(mb_path_list(output_dir, &names, &n_names));
    MB_TRY_GOTO(MB_NEW_ARRAY(&list, n_names + 1), st, done);
    for (size_t i = 0; i < n_names; i++) {
        const int64_t step = step_of(names[i]);
        if (step < 0)
            continue;
        MB_TRY_GOTO(mb_path_join(path, sizeof path, output_dir, names[i]), st, done);
        if (mb_path_is_dir(path))
            list[found++] = step;
    }
    qsort(list, found, sizeof *list, by_step);
    *steps = list;
    *n = found;
    list = NULL;
done:
    mb_free(list);
    mb_path_list_free(names, n_names);
    return st;
}

/* Lock ----------------------------------------------------------------------------------------- */

/* A run that never began takes its lock file away with it: whoever waited for that has nothing. */
static bool is_still(int fd, const char *path)
{
    struct stat held, named;

    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

mb_status mb_folder_lock(const char *dir, int *fd)
{
    char path[MB_PATH_MAX], text[256] = "";

    MB_TRY(mb_path_join(path, sizeof path, dir, ".lock"));
    const int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    MB_REQUIRE(f >= 0, MB_EIO, "'%s' cannot be made: %s", path, strerror(errno));
    if (flock(f, LOCK_EX | LOCK_NB) != 0) {
        const int why = errno;
        const ssize_t n = why == EWOULDBLOCK ? pread(f, text, sizeof text - 1, 0) : 0;
        close(f);
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        MB_REQUIRE(why != EWOULDBLOCK, MB_EIO,
                   "output_dir '%s' is in use by another run (%s); choose another or end that one",
                   dir, text[0] != '\0' ? text : "it did not say which");
        mb_log_warn("'%s' cannot be locked (%s): see to it that only one run writes there", path,
                    strerror(why));
        *fd = -1;
        return MB_OK;
    }
    if (!is_still(f, path)) {
        close(f);
        return MB_RAISE(
            MB_EIO, "output_dir '%s' was removed by a run that ended just now: start again", dir);
    }
    char host[128] = "?";
    gethostname(host, sizeof host - 1);
    const int n = snprintf(text, sizeof text, "process %ld on %s\n", (long)getpid(), host);
    if (ftruncate(f, 0) != 0 || pwrite(f, text, (size_t)n, 0) != n)
        mb_log_debug("'%s' could not be written", path); /* the lock itself is what counts */
    *fd = f;
    return MB_OK;
}

void mb_folder_unlock(int fd)
{
    if (fd >= 0)
        close(fd); /* the file stays: removed, it could be locked by one and made anew by another */
}

/* Publishing and removing ---------------------------------------------------------------------- */

/* Takes the folder's name away, then its files. */
static mb_status discard(const char *dir, const char *name)
{
    char from[MB_PATH_MAX], trash[MB_PATH_MAX], hidden[300];

    snprintf(hidden, sizeof hidden, ".trash-%s", name);
    MB_TRY(mb_path_join(from, sizeof from, dir, name));
    MB_TRY(mb_path_join(trash, sizeof trash, dir, hidden));
    MB_TRY(mb_path_remove_tree(trash));
    mb_checkpoint_place();
    MB_REQUIRE(rename(from, trash) == 0, MB_EIO, "'%s' cannot be renamed to '%s': %s", from, trash,
               strerror(errno));
    mb_checkpoint_place();
    return mb_path_remove_tree(trash);
}

mb_status mb_folder_sweep(const char *dir)
{
    char **names = NULL, path[MB_PATH_MAX];
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n; i++) {
        const bool partial =
            strncmp(names[i], "checkpoint-", 11) == 0 && mb_path_has_suffix(names[i], ".partial");
        if (!partial && strncmp(names[i], ".trash-checkpoint-", 18) != 0)
            continue;
        MB_TRY_GOTO(mb_path_join(path, sizeof path, dir, names[i]), st, done);
        mb_log_info("removing %s, left by a run that was ended", path);
        MB_TRY_GOTO(mb_path_remove_tree(path), st, done);
    }
done:
    mb_path_list_free(names, n);
    return st;
}

mb_status mb_folder_publish(const char *dir, const char *path)
{
    char partial[MB_PATH_MAX + 16];

    snprintf(partial, sizeof partial, "%s.partial", path);
    mb_checkpoint_place();
    if (!mb_path_exists(path)) {
        MB_REQUIRE(rename(partial, path) == 0, MB_EIO, "'%s' cannot be renamed to '%s': %s",
                   partial, path, strerror(errno));
    } else if (renameat2(AT_FDCWD, partial, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        mb_checkpoint_place();
        MB_TRY(mb_path_remove_tree(partial)); /* now the old one */
    } else { /* a file system that cannot exchange: for a moment there is none of this step */
        MB_TRY(discard(dir, mb_path_base(path)));
        mb_checkpoint_place();
        MB_REQUIRE(rename(partial, path) == 0, MB_EIO, "'%s' cannot be renamed to '%s': %s",
                   partial, path, strerror(errno));
    }
    mb_checkpoint_place();
    return mb_path_sync_dir(dir);
}

mb_status mb_folder_retain(const char *dir, int keep, int64_t best_step)
{
    int64_t *steps = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_checkpoint_list(dir, &steps, &n));
    for (size_t i = 0; keep > 0 && i + (size_t)keep < n; i++) {
        char path[MB_PATH_MAX];
        if (steps[i] == best_step)
            continue;
        MB_TRY_GOTO(mb_checkpoint_path(dir, steps[i], path, sizeof path), st, done);
        MB_TRY_GOTO(discard(dir, mb_path_base(path)), st, done);
        mb_log_debug("removed %s", path);
    }
done:
    mb_free(steps);
    return st;
}
