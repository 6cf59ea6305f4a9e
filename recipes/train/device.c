/* recipes/train/device.c - see recipes/train/device.h. */
#include "recipes/train/device.h"

mb_status mb_recipe_open_device(const mb_recipe *r, int ordinal, int threads, mb_device **out)
{
    static const mb_device_kind kinds[] = {[MB_RUN_ON_AUTO] = MB_DEVICE_AUTO,
                                           [MB_RUN_ON_CPU] = MB_DEVICE_CPU,
                                           [MB_RUN_ON_CUDA] = MB_DEVICE_CUDA};

    return mb_device_open(kinds[r->device], ordinal, threads, out);
}

/* On CPUs bf16 is what `auto` takes where the processor multiplies it faster; at stage 0 everybody
 * updates parameters that are computed with, which are float32. */
mb_status mb_recipe_dtype(const mb_recipe *r, const mb_device *d, mb_dtype *out)
{
    const bool gpu = !mb_device_is_host(d);
    const bool fast = d->has_bf16 && (gpu || r->zero_stage > 0);

    *out = MB_DTYPE_F32;
    MB_REQUIRE(gpu || r->fp16 != MB_YES, MB_ENOTSUP,
               "fp16: true is for GPUs; on CPUs write bf16: true, or fp16: auto");
    MB_REQUIRE(!gpu || r->bf16 != MB_YES || d->has_bf16, MB_ENOTSUP,
               "bf16: true, and %s has no bf16 arithmetic; write fp16: true", d->name);
    if (r->fp16 == MB_YES)
        *out = MB_DTYPE_F16;
    else if (r->bf16 == MB_YES || (r->bf16 == MB_AUTO && fast))
        *out = MB_DTYPE_BF16;
    else if (gpu && r->bf16 == MB_AUTO && r->fp16 == MB_AUTO)
        *out = MB_DTYPE_F16;
    return MB_OK;
}
