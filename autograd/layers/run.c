/* autograd/layers/run.c - all layers of a model, one after the other.
 *
 * A layer's weights may be used only between its begin and its end. That is where recomputation
 * sits now (mb_tape_layer) and where gathering of sharded weights and profiling belong.
 */
#include "autograd/layers.h"

struct run {
    mb_model *m;
    const mb_batch *b;
    mb_model_layer_fn fn;
};

static mb_status one_layer(mb_tape *t, const void *arg, int64_t layer, mb_var *x, mb_var **y)
{
    const struct run *r = arg;

    r->m->open_layer = layer; /* layer begin */
    const mb_status st = r->fn(t, r->m, r->b, layer, x, y);
    r->m->open_layer = -1; /* layer end */
    return st;
}

mb_status mb_model_run_layers(mb_tape *t, mb_model *m, const mb_batch *b, mb_model_layer_fn fn,
                              mb_var *x, mb_var **y)
{
    const struct run r = {.m = m, .b = b, .fn = fn};
    const void *arg;

    MB_TRY(mb_tape_attr(t, &r, sizeof r, &arg)); /* the backward may run a layer again */
    for (int64_t l = 0; l < m->config.layers; l++)
        MB_TRY(mb_tape_layer(t, one_layer, arg, l, x, &x));
    *y = x;
    return MB_OK;
}
