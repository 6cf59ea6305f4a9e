/* autograd/layers/run.c - all layers of a model, one after the other.
 *
 * A layer's weights may be used only between its begin and its end. That is where recomputation
 * sits now (mb_tape_layer) and where gathering of sharded weights and profiling belong.
 */
#include "autograd/layers.h"

struct run {
    mb_model *m;
    const mb_batch *b;
    mb_model_layer_fn fn;    /* or */
    mb_stack_layer_fn stack; /* ... with */
    mb_shared_vars with;
};

static mb_status one_layer(mb_tape *t, const void *arg, int64_t layer, mb_var *x, mb_var **y)
{
    const struct run *r = arg;
    mb_status st;

    r->m->open_layer = layer; /* layer begin */
    if (r->fn != NULL)
        st = r->fn(t, r->m, r->b, layer, x, y);
    else
        st = r->stack(t, r->m, r->b, &r->with, layer, x, y);
    r->m->open_layer = -1; /* layer end */
    return st;
}

static mb_status run_layers(mb_tape *t, const struct run *r, int64_t from, int64_t to, mb_var *x,
                            mb_var **y)
{
    const void *arg;

    MB_TRY(mb_tape_attr(t, r, sizeof *r, &arg)); /* the backward may run a layer again */
    for (int64_t l = from; l < to; l++)
        MB_TRY(mb_tape_layer(t, one_layer, arg, l, x, &x));
    *y = x;
    return MB_OK;
}

mb_status mb_model_run_layers(mb_tape *t, mb_model *m, const mb_batch *b, mb_model_layer_fn fn,
                              mb_var *x, mb_var **y)
{
    const struct run r = {.m = m, .b = b, .fn = fn};

    return run_layers(t, &r, 0, m->config.layers, x, y);
}

mb_status mb_model_run_encoder(mb_tape *t, mb_model *m, const mb_batch *b, mb_stack_layer_fn fn,
                               const mb_shared_vars *with, mb_var *x, mb_var **y)
{
    const struct run r = {.m = m, .b = b, .stack = fn, .with = *with};

    return run_layers(t, &r, 0, m->config.layers, x, y);
}

/* All layers read the encoder's output, and in the backward again: it is kept, not made anew. */
mb_status mb_model_run_decoder(mb_tape *t, mb_model *m, const mb_batch *b, mb_stack_layer_fn fn,
                               const mb_shared_vars *with, mb_var *x, mb_var **y)
{
    const struct run r = {.m = m, .b = b, .stack = fn, .with = *with};

    if (with->source != NULL)
        with->source->maker = -1;
    return run_layers(t, &r, m->config.layers, mb_model_layers(&m->config), x, y);
}
