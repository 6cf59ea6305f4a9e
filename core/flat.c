/* core/flat.c - see core/flat.h. */
#include "core/flat.h"

#include "core/kernels.h"

void mb_flat_bounds(const mb_flat *f, int size, int64_t *bounds)
{
    const int64_t grains = f->count / MB_GRAIN;

    MB_ASSERT(f->count % MB_GRAIN == 0);
    for (int r = 0; r <= size; r++)
        bounds[r] = grains * r / size * MB_GRAIN;
}
