/* recipes/hub/lock.h - one process at a time, on file systems where flock lies.
 *
 *     MB_TRY(mb_lock_take(path, "org/name", &lock));
 *     ...    MB_TRY(mb_lock_beat(&lock)) before what others must not see twice
 *     mb_lock_give(&lock);
 *
 * The lock is a file made with O_EXCL that says whose it is: host, boot, process, when it started. One
 * whose process is gone is taken over: at once where that can be seen from here, else when the file
 * has not been touched for 90 seconds of our own clock (MBUYU_LOCK_SECONDS: another number of them).
 * Waits as long as the owner works: a thread touches the file every ten seconds while it is held. A
 * process that slept for long may find that it holds it no more; mb_lock_beat says so.
 */
#ifndef MB_RECIPES_HUB_LOCK_H
#define MB_RECIPES_HUB_LOCK_H

#include "core/path.h"

typedef struct mb_lock {
    char path[MB_PATH_MAX]; /* "" when nothing is held */
    char owner[512];
    struct mb_lock_beats *beats; /* the thread that touches it */
} mb_lock;

/* Makes the folder of `path`. `what` is for the line that says who is waited for. */
mb_status mb_lock_take(const char *path, const char *what, mb_lock *out) MB_MUST_USE;
/* Touches it. MB_EIO: somebody took it over (this process slept for long). Any thread. */
mb_status mb_lock_beat(const mb_lock *lock) MB_MUST_USE;
void mb_lock_give(mb_lock *lock);

/* How a process is named in locks; and whether one of that name, not this one, may still write to
 * files it has open: false when it is gone, and for "". */
void mb_owner_here(char *text, size_t size);
bool mb_owner_may_write(const char *owner);

/* An identity of this boot of this machine, "" where there is none. */
void mb_boot_id(char *text, size_t size);

#endif
