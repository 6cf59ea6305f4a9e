/* recipes/export/stage.h - a folder that is filled beside its place, and put there when it is right.
 *
 *     MB_TRY(mb_stage_open("out/model", stage));        stage is out/model.part, empty
 *     ... files are written into it, and checked ...
 *     MB_TRY(mb_stage_publish(stage, "out/model"));     or mb_stage_drop(stage)
 *
 * Where the place exists already (an export into a folder that has something else, or with
 * overwrite_output_dir) files are moved into it one by one, each whole.
 */
#ifndef MB_RECIPES_EXPORT_STAGE_H
#define MB_RECIPES_EXPORT_STAGE_H

#include "core/path.h"

/* Makes the folder; what an earlier process left of it is removed. */
mb_status mb_stage_open(const char *place, char stage[MB_PATH_MAX]) MB_MUST_USE;
mb_status mb_stage_publish(const char *stage, const char *place) MB_MUST_USE;
/* Removes it; a failure to do so is a line in the log. */
void mb_stage_drop(const char *stage);

#endif
