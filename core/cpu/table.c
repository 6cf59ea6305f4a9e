/* core/cpu/table.c - the CPU's kernel table, one slot per line of core/kernels.def. */
#include "core/cpu/cpu.h"

const mb_kernels mb_cpu_kernels = {
    .device = "cpu",
#define MB_KERNEL(name, params, args) .name = mb_cpu_##name,
#define MB_KERNEL_WS(name, params, args) \
    .name = mb_cpu_##name, .name##_workspace = mb_cpu_##name##_workspace,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
};

mb_exec mb_cpu_exec(mb_arena *scratch, int threads)
{
    return (mb_exec){.kernels = &mb_cpu_kernels, .scratch = scratch, .threads = threads};
}
