/* recipes/train/device.c - see recipes/train/device.h. */
#include "recipes/train/device.h"

mb_status mb_recipe_open_device(const mb_recipe *r, int ordinal, int threads, mb_device **out)
{
    static const mb_device_kind kinds[] = {[MB_RUN_ON_AUTO] = MB_DEVICE_AUTO,
                                           [MB_RUN_ON_CPU] = MB_DEVICE_CPU,
                                           [MB_RUN_ON_CUDA] = MB_DEVICE_CUDA};

    return mb_device_open(kinds[r->device], ordinal, threads, out);
}

/* On CPUs `auto` takes bf16 to train in where the processor has instructions for it, but not at
 * stage 0, where parameters that are computed with are also kept. */
static bool auto_takes_bf16(const mb_recipe *r, const mb_device *d, bool trains)
{
    if (!mb_device_is_host(d))
        return d->has_bf16;
    return d->has_bf16 && trains && r->zero_stage > 0;
}

mb_status mb_recipe_dtype(const mb_recipe *r, const mb_device *d, bool trains, mb_dtype *out)
{
    const bool gpu = !mb_device_is_host(d);

    *out = MB_DTYPE_F32;
    MB_REQUIRE(gpu || r->fp16 != MB_YES, MB_ENOTSUP,
               "fp16: true is for GPUs; on CPUs write bf16: true, or fp16: auto");
    MB_REQUIRE(!gpu || r->bf16 != MB_YES || d->has_bf16, MB_ENOTSUP,
               "bf16: true, and %s has no bf16 arithmetic; write fp16: true", d->name);
    if (r->fp16 == MB_YES)
        *out = MB_DTYPE_F16;
    else if (r->bf16 == MB_YES || (r->bf16 == MB_AUTO && auto_takes_bf16(r, d, trains)))
        *out = MB_DTYPE_BF16;
    else if (gpu && r->bf16 == MB_AUTO && r->fp16 == MB_AUTO)
        *out = MB_DTYPE_F16;
    return MB_OK;
}
