/* core/sigstack.c - see core/sigstack.h. */
#include "core/sigstack.h"

#include <signal.h>
#include <stddef.h>

enum { BYTES = 64 << 10 }; /* a frame with all vector registers takes a few KiB */

void mb_signal_stack(void)
{
    static _Alignas(64) char memory[BYTES];
    stack_t now;

    if (sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) != 0)
        sigaltstack(&(stack_t){.ss_sp = memory, .ss_size = sizeof memory}, NULL);
}
