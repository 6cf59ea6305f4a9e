/* model_h5_save.c FOLDER - saves a checkpoint whose element i of the flat order is i + 0.25 * set, on
 * as many ranks as mpirun starts; model_h5.py reads it. */
#include <stdlib.h>

#include "core/log.h"
#include "dist/checkpoint.h"
#include "dist/launch.h"

static mb_flat_segment segments[] = {
    {.name = "embed.weight", .ndim = 2, .dim = {700, 19}},
    {.name = "norm.bias", .ndim = 1, .dim = {77}},
    {.name = "conv.weight", .ndim = 4, .dim = {5, 7, 11, 13}},
    {.name = "one", .ndim = 1, .dim = {1}},
    {.name = "lm_head.lora_A.weight", .ndim = 3, .dim = {3, 1001, 2}},
};
enum { N = sizeof segments / sizeof *segments };

static mb_status save(mb_launch *l, mb_flat *flat, const char *folder)
{
    static const mb_kernels none = {.device = "none"};
    const mb_optim_hyper hyper = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    const mb_zero_options zo = {.stage = 1, .n_metrics = 2, .max_micro = 1};
    const mb_checkpoints_options co = {.output_dir = folder, .piece_bytes = 32 << 10};
    const mb_checkpoint_info info = {
        .step = 7, .run_id = "peer", .state_json = "{\"cursor\": 3}", .recipe_yaml = "a: 1\n"};
    const mb_mesh mesh = mb_mesh_of_one_axis(l->world);
    mb_exec ex = {.kernels = &none, .threads = 1};
    mb_save_outcome outcome;
    mb_checkpoints *c;
    mb_zero *z;
    int64_t from, to;

    MB_TRY(mb_zero_new(&mesh, &ex, flat, mb_optim_find("adamw"), &hyper, &zo, &z));
    mb_zero_own(z, &from, &to);
    for (int s = 0; s < 2; s++) {
        const mb_tensor own = mb_zero_own_set(z, 1 + s);
        for (int64_t i = from; i < to; i++)
            mb_f32(&own)[i - from] = (float)i + 0.25f * (float)(s + 1);
    }
    MB_TRY(mb_checkpoints_open(l->world, &co, &c));
    MB_TRY(mb_checkpoints_begin(c, z, &info, -1, true));
    MB_TRY(mb_checkpoints_wait(c, &outcome));
    MB_REQUIRE(outcome == MB_SAVE_PUBLISHED, MB_EIO, "not published: %s",
               mb_checkpoints_failure(c));
    mb_checkpoints_close(c);
    mb_zero_free(z);
    return MB_OK;
}

int main(int argc, char **argv)
{
    mb_flat flat = {.n_segments = N, .segment = segments};
    mb_launch l;

    if (mb_launch_init(&argc, &argv, &l) != MB_OK || argc != 2)
        return 2;
    for (int i = 0; i < N; i++) {
        segments[i].offset = flat.count;
        segments[i].count = 1;
        for (int k = 0; k < segments[i].ndim; k++)
            segments[i].count *= segments[i].dim[k];
        flat.count += segments[i].count;
    }
    flat.count = (flat.count + MB_GRAIN - 1) / MB_GRAIN * MB_GRAIN;
    flat.param = calloc((size_t)flat.count, sizeof(float));
    flat.grad = calloc((size_t)flat.count, sizeof(float));
    if (flat.param == NULL || flat.grad == NULL)
        return 5;
    for (int64_t i = 0; i < flat.count; i++)
        flat.param[i] = (float)i;
    const mb_status st = mb_comm_agree(l.world, save(&l, &flat, argv[1]));
    free(flat.param);
    free(flat.grad);
    return mb_launch_end(&l, st);
}
