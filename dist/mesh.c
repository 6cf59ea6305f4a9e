/* dist/mesh.c - see dist/mesh.h. */
#include "dist/mesh.h"

#include "core/alloc.h"
#include "dist/comm_mpi.h"
#include "dist/comm_nccl.h"
#include "dist/comm_queue.h"

/* My place when ranks are counted node by node, nodes by their lowest rank; and how many ranks this
 * node has. */
static mb_status find_place(mb_comm *world, int *place, int *node_size)
{
    mb_comm *node = NULL, *ordered = NULL;
    int32_t leader = world->rank;
    mb_status st;

    MB_TRY(mb_comm_mpi_node(world, &node));
    *node_size = node->size;
    MB_TRY_GOTO(node->ops->broadcast(node, &leader, sizeof leader, 0), st, done);
    MB_TRY_GOTO(mb_comm_mpi_split(world, 0, leader, &ordered), st, done);
    *place = ordered->rank;

done:
    mb_comm_free(ordered);
    mb_comm_free(node);
    return st;
}

/* How many ranks share parameters: a divisor of their number. The same on all ranks. */
static mb_status find_shard_size(mb_comm *world, int wanted, int node_size, int *out)
{
    int32_t least = node_size, most = node_size;

    *out = wanted == MB_SHARD_ALL ? world->size : wanted == MB_SHARD_NODE ? node_size : wanted;
    MB_REQUIRE(*out > 0, MB_EARG, "shard_size must be positive, not %d", wanted);
    if (wanted == MB_SHARD_NODE) {
        MB_TRY(world->ops->all_reduce(world, &least, 1, MB_DTYPE_I32, MB_MIN));
        MB_TRY(world->ops->all_reduce(world, &most, 1, MB_DTYPE_I32, MB_MAX));
        MB_REQUIRE(least == most, MB_EARG,
                   "sharding inside nodes wants as many ranks on each; there are from %d to %d: "
                   "start them evenly or give shard_size",
                   (int)least, (int)most);
    }
    MB_REQUIRE(world->size % *out == 0, MB_EARG,
               "%d ranks cannot be divided into groups of %d that share parameters", world->size,
               *out);
    return MB_OK;
}

/* What make() goes along with. */
struct building {
    mb_comm *world;
    mb_device *device;
    const mb_mesh_options *o;
    mb_mesh *mesh;
};

/* In host memory, one of its own for what is queued, or travels in another type. */
static mb_status put_host(const struct building *b, mb_comm *host, const char *name, mb_comm **out)
{
    const bool queue = b->o->queue && mb_mpi_may_queue();
    mb_comm *own = NULL;

    *out = host;
    if (host->size == 1 || (!queue && b->o->wire == host->wire))
        return MB_OK;
    MB_TRY(mb_comm_mpi_split(host, 0, host->rank, &own));
    own->name = name;
    own->host = host;
    own->wire = b->o->wire;
    *out = own;
    return queue ? mb_comm_queue_new(own, host, name, out) : MB_OK;
}

/* The communicator for device memory over `host`, which is that for host memory. All ranks of the
 * world know whether it was made before any goes on to the next. */
static mb_status put(struct building *b, int slot, mb_comm *host, const char *name, mb_comm **out)
{
    mb_status st = MB_OK;

    if (host != mb_comm_self())
        host->name = name;
    *out = host;
    if (!mb_device_is_host(b->device))
        st = mb_comm_nccl_new(host, b->device, b->o->timeout, name, out);
    else
        st = put_host(b, host, name, out);
    if (st == MB_OK && *out != host)
        b->mesh->owned[slot] = *out;
    return mb_comm_agree(b->world, st);
}

/* Communicators come in the same order on all ranks. owned[] has NCCL's and queues before MPI's, over
 * which they are made. */
static mb_status make(struct building *b, int shard_size)
{
    mb_mesh *m = b->mesh;
    int place = 0, node_size = 1, n = 1;

    m->world = m->parts = b->world;
    MB_TRY(find_place(b->world, &place, &node_size));
    MB_TRY(find_shard_size(b->world, shard_size, node_size, &n));
    if (n == b->world->size || n == 1) { /* one axis is everybody, the other oneself */
        const bool shared = n == b->world->size;
        MB_TRY(put(b, 0, b->world, "dp", shared ? &m->dp_inner : &m->dp_outer));
        return put(b, 1, mb_comm_self(), "oneself", shared ? &m->dp_outer : &m->dp_inner);
    }
    const int part = place % n, copy = place / n;
    MB_TRY(mb_comm_mpi_split(b->world, copy, place, &m->owned[2]));
    MB_TRY(mb_comm_mpi_split(b->world, part, place, &m->owned[3]));
    MB_TRY(mb_comm_mpi_split(b->world, 0, part * (b->world->size / n) + copy, &m->owned[4]));
    m->parts = m->owned[4];
    MB_TRY(put(b, 0, m->owned[2], "dp inner", &m->dp_inner));
    return put(b, 1, m->owned[3], "dp outer", &m->dp_outer);
}

mb_status mb_mesh_new(mb_comm *world, mb_device *device, const mb_mesh_options *options,
                      mb_mesh **out)
{
    mb_mesh *m = NULL;
    mb_status st = mb_comm_agree(world, MB_NEW(&m));
    struct building b = {world, device, options, m};

    if (st == MB_OK)
        st = make(&b, options->shard_size);
    if (st != MB_OK) {
        mb_mesh_free(m);
        return st;
    }
    *out = m;
    return MB_OK;
}

mb_status mb_mesh_on_paper(mb_comm *world, mb_device *device, int node_ranks,
                           const mb_mesh_options *options, mb_mesh **out)
{
    mb_mesh *m = NULL;
    int n;
    mb_status st;

    MB_TRY(find_shard_size(world, options->shard_size, node_ranks, &n));
    MB_TRY(MB_NEW(&m));
    m->world = m->parts = world;
    st = mb_comm_on_paper(device, n, &m->owned[0]);
    if (st == MB_OK)
        st = mb_comm_on_paper(device, world->size / n, &m->owned[1]);
    if (st != MB_OK) {
        mb_mesh_free(m);
        return st;
    }
    m->dp_inner = m->owned[0];
    m->dp_outer = m->owned[1];
    *out = m;
    return MB_OK;
}

void mb_mesh_free(mb_mesh *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < sizeof m->owned / sizeof *m->owned; i++)
        mb_comm_free(m->owned[i]);
    mb_free(m);
}

int64_t mb_mesh_bytes_sent(const mb_mesh *m)
{
    int64_t bytes = m->world->bytes_sent;

    for (size_t i = 0; i < sizeof m->owned / sizeof *m->owned; i++)
        bytes += m->owned[i] != NULL ? m->owned[i]->bytes_sent : 0;
    return bytes;
}

mb_mesh mb_mesh_of_one_axis(mb_comm *c)
{
    mb_comm *host = mb_comm_host(c);

    return (mb_mesh){.world = host, .parts = host, .dp_inner = c, .dp_outer = mb_comm_self()};
}
