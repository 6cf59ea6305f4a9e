/* recipes/train/device.h - which device a recipe's arithmetic runs on, and in what type.
 *
 *     device   auto: the GPU when there is one that can be used; cpu; cuda
 *     bf16     auto: where the device has bf16 tensor cores; fp16: auto where it has none
 *
 * CPUs compute in f32.
 */
#ifndef MB_RECIPES_TRAIN_DEVICE_H
#define MB_RECIPES_TRAIN_DEVICE_H

#include "core/device.h"
#include "recipes/config/recipe.h"

/* `ordinal`: the GPU of this process. The caller owns *out. MB_ENOTSUP says what is not there. */
mb_status mb_recipe_open_device(const mb_recipe *r, int ordinal, int threads,
                                mb_device **out) MB_MUST_USE;
/* F32, BF16 or F16, to train in or only to look. MB_ENOTSUP when the recipe insists on what the device has not. */
mb_status mb_recipe_dtype(const mb_recipe *r, const mb_device *d, bool trains,
                          mb_dtype *out) MB_MUST_USE;

#endif
