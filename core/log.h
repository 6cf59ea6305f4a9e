/* core/log.h - one line per event, on stderr, with the rank when there are several.
 *
 *     mb_log_info("resuming from %s", dir);      // rank 0 only
 *     mb_log_warn("...");                        // every rank
 *
 * A line that has a progress bar above it is printed after the bar is erased: whoever draws one
 * registers mb_log_before_line(). Thread-safe.
 */
#ifndef MB_CORE_LOG_H
#define MB_CORE_LOG_H

#include "core/status.h"

typedef enum mb_log_level { MB_LOG_ERROR, MB_LOG_WARN, MB_LOG_INFO, MB_LOG_DEBUG } mb_log_level;

void mb_log_level_set(mb_log_level level); /* default INFO; MBUYU_LOG=debug|info|warn|error */
void mb_log_rank_set(int rank, int size);
int mb_log_rank(void);
void mb_log_before_line(void (*hook)(void));

void mb_log(mb_log_level level, const char *fmt, ...) MB_PRINTF(2, 3);
#define mb_log_error(...) mb_log(MB_LOG_ERROR, __VA_ARGS__)
#define mb_log_warn(...)  mb_log(MB_LOG_WARN, __VA_ARGS__)
#define mb_log_info(...)  mb_log(MB_LOG_INFO, __VA_ARGS__) /* printed by rank 0 only */
#define mb_log_debug(...) mb_log(MB_LOG_DEBUG, __VA_ARGS__)

/* Seconds on the monotonic clock. */
double mb_clock(void);

#endif
