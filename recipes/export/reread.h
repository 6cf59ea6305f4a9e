/* recipes/export/reread.h - does a folder hold what is in memory? Its tensors are read again, piece by piece.
 *
 * A copy of the model is not needed, and nothing is computed: every number of the model, in the type it was
 * written in, must have the bytes that the file has, and the file must have no others.
 */
#ifndef MB_RECIPES_EXPORT_REREAD_H
#define MB_RECIPES_EXPORT_REREAD_H

#include "recipes/export/model.h"

/* After mb_export_hf(e, dir), or, for an adapter, after mb_export_peft. Logs a line. MB_EIO names the first
 * tensor that differs; MB_EMODEL: the file cannot be read. */
mb_status mb_export_reread_hf(const mb_export *e, const char *dir) MB_MUST_USE;
mb_status mb_export_reread_peft(const mb_export *e, const char *dir) MB_MUST_USE;

#endif
