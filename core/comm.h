/* core/comm.h - communicators: what a group of ranks can do together.
 *
 * The interface is here, with the one-rank form; dist/ provides MPI. Every function but mb_comm_free
 * is collective: all ranks of the communicator call it, in the same order, from the same thread.
 * Counts are int64_t; implementations cut messages below 2^31 bytes.
 */
#ifndef MB_CORE_COMM_H
#define MB_CORE_COMM_H

#include "core/dtype.h"

typedef enum mb_reduce { MB_SUM, MB_MAX, MB_MIN } mb_reduce;

typedef struct mb_comm mb_comm;

typedef struct mb_comm_ops {
    const char *name;
    /* In place. F32, F64, I32, I64, U8. Float sums are taken in rank order: repeatable for a given
     * size. */
    mb_status (*all_reduce)(mb_comm *c, void *buf, int64_t n, mb_dtype d, mb_reduce op);
    /* Element range [at[r], at[r+1]) of every rank's `buf` is summed into rank r's buf at the same
     * place, in rank order; the rest of buf is unspecified after. at has size+1 entries. Float and
     * I64. `work` holds work_bytes of staging (see mb_comm_work_bytes). */
    mb_status (*reduce_scatter)(mb_comm *c, void *buf, const int64_t *at, mb_dtype d, void *work,
                                size_t work_bytes);
    /* Every rank's range [at[r], at[r+1]) of buf reaches all ranks' buf. */
    mb_status (*all_gather)(mb_comm *c, void *buf, const int64_t *at, mb_dtype d);
    mb_status (*broadcast)(mb_comm *c, void *buf, int64_t bytes, int root);
    mb_status (*send)(mb_comm *c, const void *buf, int64_t bytes, int to); /* not collective */
    mb_status (*recv)(mb_comm *c, void *buf, int64_t bytes, int from);     /* not collective */
    mb_status (*barrier)(mb_comm *c);
    void (*free)(mb_comm *c);
} mb_comm_ops;

struct mb_comm {
    const mb_comm_ops *ops;
    int rank, size;
    int64_t bytes_sent; /* payload that left this rank through all_reduce/reduce_scatter/... */
};

/* The communicator of one rank; nothing is ever sent. Static, freeing it does nothing. */
mb_comm *mb_comm_self(void);
void mb_comm_free(mb_comm *c); /* NULL is allowed */

/* Staging that reduce_scatter of `bytes` in all wants: bounded, whatever the size. */
size_t mb_comm_work_bytes(const mb_comm *c, int64_t bytes);

/* All ranks get the worst status of any, and, where they had none, that rank's sentence with
 * "rank r: " in front. Nothing may branch on a local failure before this. Collective. */
mb_status mb_comm_agree(mb_comm *c, mb_status st);

/* Sends a host string from root to all; *text is owned by the caller on the other ranks. */
mb_status mb_comm_broadcast_string(mb_comm *c, char **text, int root) MB_MUST_USE;

#endif
