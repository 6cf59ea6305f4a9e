/* core/path_below.h - paths that somebody else names, held to folders. */
#ifndef MB_CORE_PATH_BELOW_H
#define MB_CORE_PATH_BELOW_H

#include "core/path.h"

/* mb_path_real of what lies in or below one of these folders (NULL-terminated), wherever its links and dots
 * lead. MB_EARG, with one sentence for what is elsewhere and for what is not there at all. */
mb_status mb_path_real_below(const char *path, const char *const *folders, char *out,
                             size_t size) MB_MUST_USE;

#endif
