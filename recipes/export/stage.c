/* recipes/export/stage.c - see recipes/export/stage.h. */
#include "recipes/export/stage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"

mb_status mb_stage_open(const char *place, char stage[MB_PATH_MAX])
{
    const size_t n = strlen(place);
    size_t end = n;

    while (end > 1 && place[end - 1] == '/')
        end--;
    MB_REQUIRE(end + sizeof ".part" <= MB_PATH_MAX, MB_EARG, "the path %.60s... is too long",
               place);
    snprintf(stage, MB_PATH_MAX, "%.*s.part", (int)end, place);
    MB_TRY(mb_path_remove_tree(stage));
    return mb_path_mkdirs(stage);
}

static mb_status move(const char *from, const char *to)
{
    MB_REQUIRE(rename(from, to) == 0, MB_EIO, "%s cannot become %s: %s", from, to, strerror(errno));
    return MB_OK;
}

static mb_status move_each(const char *stage, const char *place)
{
    char from[MB_PATH_MAX], to[MB_PATH_MAX], **names;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(stage, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        st = mb_path_join(from, sizeof from, stage, names[i]);
        if (st == MB_OK)
            st = mb_path_join(to, sizeof to, place, names[i]);
        if (st == MB_OK && mb_path_is_dir(from) && mb_path_exists(to))
            st = mb_path_remove_tree(to);
        if (st == MB_OK)
            st = move(from, to);
    }
    mb_path_list_free(names, n);
    return st;
}

mb_status mb_stage_publish(const char *stage, const char *place)
{
    char above[MB_PATH_MAX];

    if (!mb_path_exists(place)) {
        MB_TRY(move(stage, place));
        MB_TRY(mb_path_dir(above, sizeof above, place));
        return mb_path_sync_dir(above);
    }
    MB_TRY(move_each(stage, place));
    MB_TRY(mb_path_sync_dir(place));
    return mb_path_remove_tree(stage);
}

void mb_stage_drop(const char *stage)
{
    if (mb_path_remove_tree(stage) != MB_OK) /* what failed before stays on record */
        mb_log_warn("%s could not be removed", stage);
}
