/* recipes/hub/lock.h - one process at a time, on file systems where flock lies.
 *
 *     MB_TRY(mb_lock_take(path, "org/name", &lock));
 *     ...    mb_lock_beat(&lock) now and then, at least every 20 seconds
 *     mb_lock_give(&lock);
 *
 * The lock is a file made with O_EXCL that says whose it is: host, boot, process, when it started. One
 * whose process is gone is taken over: at once where that can be seen from here, else when the file
 * has not been touched for 90 seconds of our own clock. Waits as long as the owner works.
 */
#ifndef MB_RECIPES_HUB_LOCK_H
#define MB_RECIPES_HUB_LOCK_H

#include "core/path.h"

typedef struct mb_lock {
    char path[MB_PATH_MAX]; /* "" when nothing is held */
    char owner[512];
} mb_lock;

/* The folder of `path` must be there. `what` is for the line that says who is waited for. */
mb_status mb_lock_take(const char *path, const char *what, mb_lock *out) MB_MUST_USE;
/* MB_EIO: somebody took it over (this process slept for long). */
mb_status mb_lock_beat(const mb_lock *lock) MB_MUST_USE;
void mb_lock_give(mb_lock *lock);

/* An identity of this boot of this machine, "" where there is none. */
void mb_boot_id(char *text, size_t size);

#endif
