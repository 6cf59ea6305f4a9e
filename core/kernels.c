/* core/kernels.c - see core/kernels.h. */
#include "core/kernels.h"

mb_status mb_kernel_missing(const mb_exec *ex, const char *kernel)
{
    return MB_RAISE(MB_ENOTSUP, "device '%s' has no kernel '%s'", ex->kernels->device, kernel);
}
