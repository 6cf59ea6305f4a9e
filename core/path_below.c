/* core/path_below.c - see core/path_below.h. */
#include "core/path_below.h"

#include <string.h>

static bool is_below(const char *real, const char *folder)
{
    const size_t n = strlen(folder);

    return strncmp(real, folder, n) == 0 && (real[n] == '/' || real[n] == '\0' || n == 1);
}

mb_status mb_path_real_below(const char *path, const char *const *folders, char *out, size_t size)
{
    char folder[MB_PATH_MAX];
    bool found = false;

    if (path[0] != '\0' && mb_path_real(path, out, size) == MB_OK)
        for (; *folders != NULL && !found; folders++)
            found = mb_path_real(*folders, folder, sizeof folder) == MB_OK && is_below(out, folder);
    if (found)
        return MB_OK;
    mb_status_clear();
    return MB_RAISE(MB_EARG, "there is no %.200s below the folders that may be read",
                    path[0] != '\0' ? path : "file without a name");
}
