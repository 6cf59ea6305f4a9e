/* core/plan/table.c - the planning device's kernels, generated from core/kernels.def. */
#include "core/plan/plan.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define MB_KERNEL(name, params, args)   \
    static mb_status plan_##name params \
    {                                   \
        return MB_OK;                   \
    }
#define MB_KERNEL_WS(name, params, args) MB_KERNEL(name, params, args)
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS

mb_exec mb_plan_exec(const mb_exec *target, mb_kernels *table, mb_arena *scratch)
{
    *table = (mb_kernels)
    {
        .device = "planning",
#define MB_KERNEL(name, params, args) .name = plan_##name,
#define MB_KERNEL_WS(name, params, args) \
    .name = plan_##name, .name##_workspace = target->kernels->name##_workspace,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
    };
    return (mb_exec){.kernels = table,
                     .scratch = scratch,
                     .threads = target->threads,
                     .rows_alike = target->rows_alike,
                     .planning = true};
}
