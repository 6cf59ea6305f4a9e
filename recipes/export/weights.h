/* recipes/export/weights.h - the numbers of a model's weights, for whoever writes them to a file.
 *
 * A weight that was trained comes out of the model, which may hold it on a device or spread over ranks.
 * One that is frozen and that the model holds rounded comes from the base's file as it was.
 */
#ifndef MB_RECIPES_EXPORT_WEIGHTS_H
#define MB_RECIPES_EXPORT_WEIGHTS_H

#include "autograd/load.h"
#include "recipes/export/model.h"

/* The base's file, if any weight comes from it; else *out is NULL. */
mb_status mb_export_open_base(const mb_export *e, mb_tensor_file **out) MB_MUST_USE;
/* Gives all of `w` to `fn`, in order, in pieces of whole rows, of permuted ones whole heads. The numbers
 * of a piece are not fn's to change: they may be the model's own. */
mb_status mb_export_weight(const mb_export *e, const mb_weight *w, mb_tensor_file *base,
                           mb_piece_fn fn, void *ctx) MB_MUST_USE;

#endif
