/* core/cpu/attention_paged.h - attention through blocks of keys and values (mb_kv_pages), forward.
 *
 * The arithmetic is that of core/cpu/attention.c, block of 64 keys by block from the sequence's start,
 * with every sum in the order of its terms and in f32. A query's bits depend on it and its keys alone:
 * not on how many queries there are, nor on how the keys came into their blocks.
 */
#ifndef MB_CORE_CPU_ATTENTION_PAGED_H
#define MB_CORE_CPU_ATTENTION_PAGED_H

#include "core/kernels.h"

size_t mb_att_paged_workspace(const mb_exec *ex, const mb_tensor *q, const mb_attention *at);
/* As the kernel attention_fwd, whose at->pages is not NULL. */
mb_status mb_att_paged(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                       const mb_tensor *k, const mb_tensor *v, const mb_attention *at) MB_MUST_USE;

#endif
