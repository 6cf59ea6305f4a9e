/* core/sigstack.h - a stack of their own for signal handlers.
 *
 * Generated matrix kernels (oneDNN's) use memory beyond the stack pointer, or the stack pointer for
 * something else: a handler that runs on the thread's stack while they compute writes into their
 * data or into the heap. So every handler is installed with SA_ONSTACK, after
 *
 *     mb_signal_stack();
 *
 * which gives the calling thread, the one that starts the program and that signals of the process
 * go to, another stack. Idempotent.
 */
#ifndef MB_CORE_SIGSTACK_H
#define MB_CORE_SIGSTACK_H

void mb_signal_stack(void);

#endif
