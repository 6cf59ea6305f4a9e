/* dist/mesh.h - which ranks share parameters, and which hold copies of them.
 *
 * All ranks train the same model on other data. With hybrid sharding (Zhao et al., arXiv:2304.11277,
 * section 3.2) they stand in a grid; here 8 ranks on two nodes, shards of 4:
 *
 *                         dp inner: share one copy of the parameters
 *     node 0              0   1   2   3
 *     node 1              4   5   6   7
 *
 *     dp outer: 0 4, 1 5, 2 6, 3 7: hold the same part, each of another copy
 *
 * Gradients are reduce-scattered inside, where links are fast, and the parts that result summed
 * outside; parameters are gathered inside. Without hybrid sharding dp_inner is everybody and dp_outer
 * oneself.
 *
 * What is saved is cut once more, among the copies: on the ranks above rank 4 writes the second half
 * of what ranks 0 and 4 both hold. `parts` counts ranks in that order (0 4 1 5 2 6 3 7), and its rank
 * r of n has what rank r of n has without hybrid sharding, so checkpoints do not know of the mesh.
 *
 *     MB_TRY(mb_mesh_new(launch.world, device, &options, &mesh));
 *     ... mesh->dp_inner, mesh->dp_outer, mesh->parts ...
 *     mb_mesh_free(mesh);
 *
 * Ranks are ordered by node first, whatever order the launcher gave them, so that shards of a size
 * that divides a node's ranks stay inside nodes. Rank 0 of the world is rank 0 of all its
 * communicators.
 */
#ifndef MB_DIST_MESH_H
#define MB_DIST_MESH_H

#include "core/comm.h"

enum { MB_SHARD_ALL = 0, MB_SHARD_NODE = -1 };

typedef struct mb_mesh_options {
    int shard_size; /* ranks that share parameters; MB_SHARD_ALL: all, MB_SHARD_NODE: a node's */
    double timeout; /* seconds, of NCCL's communicators (dist/comm_nccl.h) */
    bool queue; /* host memory: the axes' collectives run behind the computing where MPI lets them
                     * (dist/comm_queue.h) */
    mb_dtype wire; /* host memory: mb_comm.wire of the axes */
} mb_mesh_options;

typedef struct mb_mesh {
    mb_comm *world; /* all ranks, host memory; borrowed */
    mb_comm *parts; /* all ranks in the order of what each saves, host memory */
    /* For the memory of the device: over NCCL where that is a GPU's, in host memory over MPI, queued
     * where that was asked for; mb_comm_host gives each one's twin for direct use. */
    mb_comm *dp_inner; /* rank: which part of the parameters is mine; size: into how many */
    mb_comm *dp_outer; /* rank: which copy I belong to; size: how many */
    mb_comm *owned[5]; /* what mb_mesh_free frees, in this order; NULL where two are the same */
} mb_mesh;

/* `world` (for host memory) and `device` (NULL: host memory) are borrowed and outlive *out, which
 * the caller owns. MB_EARG when the ranks cannot be divided so. Collective. */
mb_status mb_mesh_new(mb_comm *world, mb_device *device, const mb_mesh_options *options,
                      mb_mesh **out) MB_MUST_USE;
/* For a plan: `world` is on paper (core/comm.h), with `node_ranks` ranks on each machine. */
mb_status mb_mesh_on_paper(mb_comm *world, mb_device *device, int node_ranks,
                           const mb_mesh_options *options, mb_mesh **out) MB_MUST_USE;
void mb_mesh_free(mb_mesh *m); /* NULL is allowed; collective */

/* Payload bytes that left this rank, on the world's communicator and all of the mesh; of what is queued
 * in host memory as of the last wait. */
int64_t mb_mesh_bytes_sent(const mb_mesh *m);

/* All ranks of a communicator (borrowed) share parameters. Nothing to free. */
mb_mesh mb_mesh_of_one_axis(mb_comm *c);

#endif
