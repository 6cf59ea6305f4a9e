/* core/memory.h - how much memory this process uses and how much it may use, in bytes.
 *
 * Use is read from /proc/self/status. What a run plans for is anonymous and shared memory: pages of
 * files (the program, its libraries) can be dropped by the system and are counted apart. What may
 * be used is the least of the machine's memory and the limits of the cgroups around the process
 * (version 2 and 1), which batch systems and containers set.
 */
#ifndef MB_CORE_MEMORY_H
#define MB_CORE_MEMORY_H

#include <stdint.h>

#include "core/status.h"

typedef struct mb_memory {
    int64_t anon, shmem, file; /* resident now: RssAnon, RssShmem, RssFile */
    int64_t rss, peak;         /* VmRSS, VmHWM: all three together, now and at most so far */
} mb_memory;

/* MB_EIO where the system has no such file. */
mb_status mb_memory_read(mb_memory *out) MB_MUST_USE;
/* Out of the text of a status file; a field that is not there stays 0. */
void mb_memory_parse(const char *text, mb_memory *out);
/* RssAnon + RssShmem now; 0 when it cannot be read. */
int64_t mb_memory_own(void);
/* Starts VmHWM again from the present; false where the system does not allow it. */
bool mb_memory_peak_reset(void);

typedef struct mb_memory_limit {
    int64_t machine;   /* MemTotal */
    int64_t available; /* MemAvailable, and no more than what the cgroup leaves */
    int64_t cgroup;    /* the tightest limit around us, INT64_MAX when none */
} mb_memory_limit;

/* `root` is "" for this machine; a test gives a folder that holds proc/ and sys/. */
mb_status mb_memory_limits(const char *root, mb_memory_limit *out) MB_MUST_USE;

#endif
