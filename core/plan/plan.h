/* core/plan/plan.h - the planning device: the same model code, no arithmetic.
 *
 * mb_plan_exec() makes an exec whose kernels only take the workspace that the target device's
 * kernels would take, from a counting arena. Together with counting arenas for everything else a
 * whole training step runs in microseconds and says exactly what the real one will need.
 */
#ifndef MB_CORE_PLAN_PLAN_H
#define MB_CORE_PLAN_PLAN_H

#include "core/kernels.h"

/* `target` is the exec to plan for; `scratch` a counting arena, borrowed. */
mb_exec mb_plan_exec(const mb_exec *target, mb_kernels *table, mb_arena *scratch);

#endif
