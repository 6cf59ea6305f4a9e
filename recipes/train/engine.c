/* recipes/train/engine.c - see recipes/train/engine.h. */
#include "recipes/train/engine.h"

#include <omp.h>
#include <string.h>

#include "autograd/layers.h"
#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/plan/plan.h"
#include "core/profile.h"

static mb_status measure_run(mb_engine *e, bool exact, size_t *bytes)
{
    mb_arena *counting = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_arena_new("run", SIZE_MAX, &counting));
    MB_TRY_GOTO(mb_model_bind(e->model, e->device, counting, &e->flat, exact), st, done);
    *bytes = mb_arena_peak(counting);
done:
    mb_arena_free(counting);
    return st;
}

mb_status mb_engine_new(mb_model *m, const mb_engine_options *o, mb_engine **out)
{
    mb_engine *e = NULL;
    mb_status st = MB_NEW(&e);

    if (st != MB_OK) {
        mb_model_free(m);
        mb_base_leave(o->base);
        return st;
    }
    e->model = m;
    e->base = o->base;
    e->recompute = o->recompute;
    e->grad_scale = 1.0f;
    if (o->max_positions > 0 && o->max_positions < m->max_positions)
        m->max_positions = o->max_positions;
    e->device = o->device;
    e->host = mb_cpu_exec(NULL, o->threads);
    e->ex = mb_device_is_host(e->device) ? e->host : mb_device_exec(e->device, NULL);
    if (!mb_device_is_host(e->device))
        MB_TRY_GOTO(mb_feed_new(e->device, &e->feed), st, fail);
    MB_TRY_GOTO(mb_model_layout(m, &e->flat), st, fail);
    mb_model_compute_in(m, o->dtype);
    if (e->base != NULL)
        mb_base_lend(e->base, m);
    if (o->size > 0)
        mb_flat_shard(&e->flat, o->zero_stage, o->rank, o->size);
    e->flat.grad_in_step = o->grads_in_step && e->flat.stage < 2;
    MB_TRY_GOTO(measure_run(e, o->exact, &e->run_bytes), st, fail);
    MB_TRY_GOTO(mb_device_arena(e->device, "run", e->run_bytes + 4096, &e->run), st, fail);
    MB_TRY_GOTO(mb_model_bind(m, e->device, e->run, &e->flat, o->exact), st, fail);
    *out = e;
    return MB_OK;
fail:
    mb_engine_free(e);
    return st;
}

void mb_engine_free(mb_engine *e)
{
    if (e == NULL)
        return;
    for (int i = 0; i < e->n_classes; i++)
        mb_tape_plan_release(&e->class_plan[i].plan);
    for (int i = 0; i < 2; i++)
        mb_tape_plan_release(&e->logits_plan[i].plan);
    mb_free(e->class_plan);
    mb_tape_free(e->tape);
    mb_arena_free(e->scratch);
    mb_arena_free(e->step);
    mb_arena_free(e->run);
    mb_replay_free(e->replay);
    mb_feed_free(e->feed);
    mb_free(e->wide);
    mb_free(e->queued);
    mb_free(e->queued_weight);
    mb_free(e->queued_targets);
    mb_free(e->flat.segment);
    mb_free(e->flat.unit);
    mb_model_free(e->model);
    mb_base_leave(e->base);
    mb_free(e);
}

mb_status mb_engine_zero_grad(mb_engine *e)
{
    mb_tensor grad = mb_tensor_1d(e->flat.grad, MB_DTYPE_F32, e->flat.count);

    if (e->flat.grad_in_step)
        return mb_tape_clear_gradients(e->tape, &e->ex);
    return MB_RUN(&e->ex, fill, &grad, 0.0f);
}

int mb_default_threads(void)
{
    return omp_get_max_threads();
}

/* ---- one micro-step ----------------------------------------------------------------------- */

static mb_status head_args(mb_engine *e, mb_tape *t, const mb_batch *b, const mb_output *o,
                           mb_head_args *a)
{
    const int64_t rows = mb_rows(&o->features->value);

    *a = (mb_head_args){.n = b->n_targets,
                        .capacity = (rows + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD,
                        .row = b->target_row,
                        .label = b->target_label,
                        .weight = b->target_weight,
                        .grad_scale = e->grad_scale,
                        .softcap = o->softcap,
                        .logit_scale = o->logit_scale};
    MB_TRY(mb_weight_var(t, e->model, o->head_w, &a->w));
    return mb_weight_var(t, e->model, o->head_b, &a->bias);
}

/* d(loss) / d(logprob), loss = scale * sum weight * -logprob. */
static mb_status seed(mb_tape *t, mb_exec *ex, const mb_batch *b, float scale, mb_var *logprob)
{
    const mb_tensor weight =
        mb_tensor_1d(b->target_weight, MB_DTYPE_F32, mb_tensor_count(&logprob->value));
    mb_tensor *d;
    bool acc;

    MB_TRY(mb_tape_grad(t, logprob, &d, &acc));
    return MB_RUN(ex, scale, d, -scale, &weight);
}

static mb_status run_step(mb_engine *e, mb_tape *t, mb_exec *ex, const mb_batch *b, bool train,
                          const mb_tape_plan *plan, mb_var **logprob)
{
    const bool fused = e->model->config.loss == MB_LOSS_SOFTMAX;
    mb_head_args a;
    mb_output o;
    mb_var *result;

    mb_profile_begin(ex->profile, MB_SPAN_FORWARD);
    MB_TRY(mb_tape_begin(t, ex, train ? MB_TAPE_TRAIN : MB_TAPE_EVAL, e->recompute, plan));
    MB_TRY(e->model->family->forward(t, e->model, b, &o));
    if (fused) {
        MB_TRY(head_args(e, t, b, &o, &a));
        MB_TRY(mb_lm_head_ce(t, o.features, &a, logprob));
    } else {
        MB_TRY(mb_layer_result(t, e->model, b, &o, &result));
        MB_TRY(mb_layer_loss(t, e->model, b, &o, result, logprob));
        mb_tape_keep(t, *logprob);
    }
    mb_profile_end(ex->profile, MB_SPAN_FORWARD);
    if (!train)
        return MB_OK;
    mb_profile_begin(ex->profile, MB_SPAN_BACKWARD);
    if (!fused)
        MB_TRY(seed(t, ex, b, e->grad_scale, *logprob));
    MB_TRY(mb_tape_backward(t));
    mb_profile_end(ex->profile, MB_SPAN_BACKWARD);
    return MB_OK;
}

static int64_t source_tokens(const mb_batch *b)
{
    return b->source != NULL ? b->source->tokens : 0;
}

static const mb_engine_class *find_class(const mb_engine *e, int64_t tokens, const mb_batch *b,
                                         bool train)
{
    for (int i = 0; i < e->n_classes; i++)
        if (e->class_plan[i].tokens == tokens && e->class_plan[i].train == train &&
            e->class_plan[i].source_tokens == source_tokens(b))
            return &e->class_plan[i];
    return NULL;
}

/* The batch where the device can read it; `there` is room for it. */
static mb_status send(mb_engine *e, const mb_batch **b, mb_batch *there)
{
    if (e->feed == NULL)
        return MB_OK;
    MB_TRY(mb_feed_send(e->feed, *b, there));
    *b = there;
    return MB_OK;
}

/* A tensor of results where the host can read it. */
static mb_status receive(mb_engine *e, mb_tensor *t)
{
    float *here;

    if (e->feed == NULL && t->dtype == MB_DTYPE_F32)
        return MB_OK;
    if (e->feed != NULL) {
        MB_TRY(mb_feed_read(e->feed, t, &here));
    } else {
        MB_TRY(mb_grow((void **)&e->wide, &e->wide_capacity, (size_t)mb_tensor_count(t),
                       sizeof *e->wide, "results in float32"));
        here = e->wide;
        MB_TRY(mb_device_read_f32(e->device, here, t));
    }
    t->data = here;
    t->dtype = MB_DTYPE_F32;
    return MB_OK;
}

/* Sums in target order, in double: the same on any number of ranks. */
static void sum_up(const mb_batch *b, const float *logprob, mb_micro_result *out)
{
    *out = (mb_micro_result){.logprob = logprob};
    for (int64_t i = 0; i < b->n_targets; i++) {
        out->loss -= (double)b->target_weight[i] * (double)logprob[i];
        out->weight += (double)b->target_weight[i];
    }
}

mb_status mb_engine_micro(mb_engine *e, const mb_batch *b, bool train, mb_micro_result *out)
{
    const mb_engine_class *c = find_class(e, b->tokens, b, train);
    const mb_batch *mine = b;
    mb_var *logprob;
    mb_batch there;

    MB_REQUIRE(c != NULL || e->n_classes == 0, MB_EBUG, "no plan for a micro-batch of %lld tokens",
               (long long)b->tokens);
    MB_TRY(send(e, &b, &there));
    MB_TRY(run_step(e, e->tape, &e->ex, b, train, c != NULL ? &c->plan : NULL, &logprob));
    MB_TRY(receive(e, &logprob->value));
    sum_up(mine, mb_f32(&logprob->value), out);
    return MB_OK;
}

mb_status mb_engine_reserve_queue(mb_engine *e, int64_t slots, int64_t targets)
{
    e->n_queued = slots;
    e->queue_targets = targets;
    MB_TRY(MB_NEW_ARRAY(&e->queued, slots));
    if (e->feed == NULL)
        return MB_OK;
    MB_TRY(MB_NEW_ARRAY(&e->queued_targets, slots));
    MB_TRY(MB_NEW_ARRAY(&e->queued_weight, slots * targets));
    return mb_feed_reserve_results(e->feed, slots, targets);
}

/* Dropout draws with the number of the step, which kernels get by value. */
static bool changes_from_step_to_step(const mb_model *m)
{
    const mb_model_config *c = &m->config;
    const float most = c->drop_embed + c->drop_hidden + c->drop_attention + c->drop_attention_out +
                       c->drop_classifier + c->drop_activation;

    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].lora_a != NULL && m->weight[i].lora_dropout > 0.0f)
            return true;
    return most * m->dropout_scale > 0.0f;
}

mb_status mb_engine_replay(mb_engine *e)
{
    if (e->feed == NULL || e->replay != NULL || e->device->ops->graph_begin == NULL ||
        changes_from_step_to_step(e->model))
        return MB_OK;
    return mb_replay_new(e->device, &e->replay);
}

/* As run_step, recorded or replayed where that is possible. What depends on the batch alone is taken at
 * its bounds: more sequences, all of them empty, and targets of weight 0. */
static mb_status run_queued(mb_engine *e, const mb_batch *b, const mb_engine_class *c,
                            mb_tensor *logprob)
{
    mb_replay_way way = MB_REPLAY_EAGER;
    mb_batch bounds = *b, source;
    mb_replay_key key;
    mb_var *out = NULL;
    mb_status st;

    bounds.n_seq = b->max_seq;
    bounds.max_len = c->max_len;
    bounds.n_targets = (b->n_targets + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD;
    if (b->source != NULL) {
        source = *b->source;
        source.n_seq = source.max_seq;
        source.max_len = c->source_max_len;
        bounds.source = &source;
    }
    key = (mb_replay_key){.tokens = b->tokens,
                          .source_tokens = source_tokens(b),
                          .targets = bounds.n_targets,
                          .grad_scale = e->grad_scale};
    if (e->replay != NULL)
        MB_TRY(mb_replay_try(e->replay, &key, &way, logprob));
    if (way == MB_REPLAY_DONE)
        return MB_OK;
    if (way == MB_REPLAY_RECORD)
        MB_TRY(mb_replay_begin(e->replay));
    st = run_step(e, e->tape, &e->ex, e->replay != NULL ? &bounds : b, true, &c->plan, &out);
    if (st == MB_OK)
        *logprob = out->value;
    if (way == MB_REPLAY_RECORD)
        MB_TRY(mb_replay_end(e->replay, &key, logprob, st != MB_OK));
    return st;
}

mb_status mb_engine_queue(mb_engine *e, const mb_batch *b, int64_t slot)
{
    const mb_engine_class *c = find_class(e, b->tokens, b, true);
    const mb_batch *mine = b;
    mb_tensor logprob;
    mb_batch there;

    MB_REQUIRE(slot < e->n_queued && b->n_targets <= e->queue_targets && c != NULL, MB_EBUG,
               "no room or plan for micro-batch %lld of %lld tokens", (long long)slot,
               (long long)b->tokens);
    e->queue_waited = false;
    MB_TRY(send(e, &b, &there));
    MB_TRY(run_queued(e, b, c, &logprob));
    if (e->feed == NULL) {
        sum_up(mine, mb_f32(&logprob), &e->queued[slot]);
        return MB_OK;
    }
    e->queued_targets[slot] = mine->n_targets;
    memcpy(e->queued_weight + slot * e->queue_targets, mine->target_weight,
           (size_t)mine->n_targets * sizeof(float));
    const mb_tensor wanted = mb_tensor_1d(logprob.data, MB_DTYPE_F32, mine->n_targets);
    return mine->n_targets > 0 ? mb_feed_fetch(e->feed, slot, &wanted) : MB_OK;
}

mb_status mb_engine_result(mb_engine *e, int64_t slot, mb_micro_result *out)
{
    if (e->feed != NULL) {
        const mb_batch b = {.n_targets = e->queued_targets[slot],
                            .target_weight = e->queued_weight + slot * e->queue_targets};
        if (!e->queue_waited)
            MB_TRY(mb_feed_wait(e->feed));
        e->queue_waited = true;
        sum_up(&b, mb_feed_result(e->feed, slot), &e->queued[slot]);
    }
    *out = e->queued[slot];
    out->logprob = NULL;
    return MB_OK;
}

/* ---- planning ----------------------------------------------------------------------------- */

struct dry {
    mb_arena *step, *scratch;
    mb_kernels table;
    mb_exec ex;
};

static mb_status dry_begin(const mb_engine *e, struct dry *d)
{
    *d = (struct dry){0};
    MB_TRY(mb_arena_new("planned step", SIZE_MAX, &d->step));
    MB_TRY(mb_arena_new("planned scratch", SIZE_MAX, &d->scratch));
    d->ex = mb_plan_exec(&e->ex, &d->table, d->scratch);
    return MB_OK;
}

static void dry_end(struct dry *d)
{
    mb_arena_free(d->step);
    mb_arena_free(d->scratch);
}

mb_status mb_engine_plan(mb_engine *e, mb_batch *b, int64_t tokens, bool train)
{
    const int64_t saved_tokens = b->tokens;
    mb_engine_class *c;
    struct dry d;
    mb_tape *t = NULL;
    mb_var *logprob;
    mb_status st = MB_OK;
    size_t capacity = (size_t)e->n_classes;

    if (find_class(e, tokens, b, train) != NULL)
        return MB_OK;
    MB_TRY_GOTO(dry_begin(e, &d), st, done);
    MB_TRY_GOTO(mb_tape_new(d.step, &t), st, done);
    if (train && e->flat.grad_in_step)
        MB_TRY_GOTO(mb_tape_hold_gradients(t, &e->flat), st, done);
    MB_TRY_GOTO(mb_grow((void **)&e->class_plan, &capacity, capacity + 1, sizeof *c, "the plans"),
                st, done);
    if (mb_feed_batch_bytes(b, tokens) > e->batch_bytes)
        e->batch_bytes = mb_feed_batch_bytes(b, tokens);
    b->tokens = tokens;
    st = run_step(e, t, &d.ex, b, train, NULL, &logprob);
    b->tokens = saved_tokens;
    if (st != MB_OK)
        goto done;
    c = &e->class_plan[e->n_classes];
    *c = (mb_engine_class){.tokens = tokens,
                           .max_len = b->max_len,
                           .source_tokens = source_tokens(b),
                           .source_max_len = b->source != NULL ? b->source->max_len : 0,
                           .train = train,
                           .scratch = mb_arena_peak(d.scratch),
                           .calls = mb_tape_calls_peak(t)};
    MB_TRY_GOTO(mb_tape_make_plan(t, &c->plan), st, done);
    e->n_classes++;
    if (c->plan.peak > e->step_bytes)
        e->step_bytes = c->plan.peak;
    if (c->scratch > e->scratch_bytes)
        e->scratch_bytes = c->scratch;
done:
    mb_tape_free(t);
    dry_end(&d);
    return st;
}

void mb_engine_rest(mb_engine *e)
{
    mb_arena_free(e->step);
    mb_arena_free(e->scratch);
    mb_tape_free(e->tape);
    e->step = e->scratch = e->ex.scratch = NULL;
    e->tape = NULL;
}

/* Where steps will begin. */
static mb_status place_gradients(mb_engine *e)
{
    const size_t bytes = (size_t)e->flat.count * sizeof(float);
    void *p;

    MB_REQUIRE(e->step_bytes >= bytes, MB_EBUG, "no training step has been planned");
    MB_TRY(mb_arena_take(e->step, bytes, &p));
    mb_arena_reset(e->step);
    mb_model_place_gradients(e->model, &e->flat, p);
    return mb_tape_hold_gradients(e->tape, &e->flat);
}

mb_status mb_engine_reserve(mb_engine *e)
{
    mb_engine_rest(e);
    MB_TRY(mb_device_arena(e->device, "step", e->step_bytes + 4096, &e->step));
    MB_TRY(mb_device_arena(e->device, "workspace", e->scratch_bytes + 4096, &e->scratch));
    if (e->feed != NULL)
        MB_TRY(mb_feed_reserve(e->feed, e->batch_bytes));
    MB_TRY(mb_tape_new(e->step, &e->tape));
    if (e->flat.grad_in_step)
        MB_TRY(place_gradients(e));
    e->ex.scratch = e->scratch;
    for (int i = 0; i < e->n_classes; i++)
        MB_TRY(mb_tape_reserve(e->tape, e->class_plan[i].calls,
                               (size_t)e->class_plan[i].plan.n_buffers));
    return MB_OK;
}

/* ---- whole logits ------------------------------------------------------------------------- */

/* What the fused head does with logits on its way. */
static mb_status finish_logits(mb_tape *t, const mb_output *o, mb_var **y)
{
    if (o->logit_scale != 1.0f)
        MB_TRY(mb_scale(t, *y, o->logit_scale, y));
    if (o->softcap == 0.0f)
        return MB_OK;
    MB_TRY(mb_scale(t, *y, 1.0f / o->softcap, y));
    MB_TRY(mb_activate(t, *y, MB_ACT_TANH, y));
    return mb_scale(t, *y, o->softcap, y);
}

static mb_status run_logits(mb_engine *e, mb_tape *t, mb_exec *ex, const mb_batch *b,
                            const mb_tensor *rows, const mb_tape_plan *plan, mb_tensor *logits)
{
    const bool pooled = e->model->config.head == MB_HEAD_EMBED; /* rows are vectors then */
    mb_output o;
    mb_var *y;

    MB_TRY(mb_tape_begin(t, ex, MB_TAPE_EVAL, false, plan));
    MB_TRY(e->model->family->forward(t, e->model, b, &o));
    if (rows != NULL && !pooled)
        MB_TRY(mb_gather_rows(t, o.features, rows, &o.features));
    MB_TRY(mb_layer_result(t, e->model, b, &o, &y));
    if (rows != NULL && pooled)
        MB_TRY(mb_gather_rows(t, y, rows, &y));
    MB_TRY(finish_logits(t, &o, &y));
    *logits = y->value;
    return MB_OK;
}

mb_status mb_engine_logits(mb_engine *e, const mb_batch *b, const mb_tensor *rows,
                           mb_tensor *logits)
{
    const int kind = b->source_cached;
    const mb_engine_class *c = &e->logits_plan[kind];
    const bool planned =
        rows != NULL && b->tokens <= c->tokens && mb_tensor_count(rows) <= e->logits_rows[kind] &&
        (b->source == NULL || b->source_cached ||
         (b->source->tokens <= c->source_tokens && b->source->max_len <= c->source_max_len));

    mb_batch there;
    mb_tensor list;

    MB_TRY(send(e, &b, &there));
    if (e->feed != NULL && rows != NULL) {
        MB_TRY(mb_feed_send_list(e->feed, rows, &list));
        rows = &list;
    }
    MB_TRY(run_logits(e, e->tape, &e->ex, b, rows, planned ? &c->plan : NULL, logits));
    return receive(e, logits);
}

/* One dry run; *plan (optional) receives where the buffers go. */
static mb_status dry_logits(mb_engine *e, const mb_batch *b, const mb_tensor *rows,
                            mb_tape_plan *plan, size_t *scratch)
{
    struct dry d;
    mb_tape *t = NULL;
    mb_tensor y;
    mb_status st = MB_OK;

    MB_TRY_GOTO(dry_begin(e, &d), st, done);
    MB_TRY_GOTO(mb_tape_new(d.step, &t), st, done);
    MB_TRY_GOTO(run_logits(e, t, &d.ex, b, rows, NULL, &y), st, done);
    if (plan != NULL)
        MB_TRY_GOTO(mb_tape_make_plan(t, plan), st, done);
    if (mb_arena_peak(d.scratch) > *scratch)
        *scratch = mb_arena_peak(d.scratch);
done:
    mb_tape_free(t);
    dry_end(&d);
    return st;
}

/* Fewer tokens need the same buffers, smaller, but not always less workspace: a number of rows that
 * fills the tiles of a product needs none for the last one. */
mb_status mb_engine_plan_logits(mb_engine *e, mb_batch *b, int64_t tokens, int64_t rows)
{
    const int64_t saved_tokens = b->tokens;
    const mb_tensor list = mb_tensor_1d(b->ids, MB_DTYPE_I32, rows);
    mb_tape_plan plan = {0};
    size_t scratch = 0;
    mb_status st;

    if (mb_feed_batch_bytes(b, tokens) > e->batch_bytes)
        e->batch_bytes = mb_feed_batch_bytes(b, tokens);
    b->tokens = tokens;
    st = dry_logits(e, b, &list, &plan, &scratch);
    b->tokens = tokens > 1 ? tokens - 1 : 1;
    if (st == MB_OK)
        st = dry_logits(e, b, &list, NULL, &scratch);
    b->tokens = saved_tokens;
    if (st != MB_OK) {
        mb_tape_plan_release(&plan);
        return st;
    }
    mb_tape_plan_release(&e->logits_plan[b->source_cached].plan);
    e->logits_plan[b->source_cached] =
        (mb_engine_class){.tokens = tokens,
                          .source_tokens = source_tokens(b),
                          .source_max_len = b->source != NULL ? b->source->max_len : 0,
                          .plan = plan,
                          .scratch = scratch};
    e->logits_rows[b->source_cached] = rows;
    if (plan.peak > e->step_bytes)
        e->step_bytes = plan.peak;
    if (scratch > e->scratch_bytes)
        e->scratch_bytes = scratch;
    return mb_engine_reserve(e);
}

static mb_status run_plain(mb_engine *e, mb_tape *t, mb_exec *ex, const mb_batch *b, double divisor,
                           mb_var **logits, mb_var **logprob)
{
    mb_output o;

    MB_TRY(mb_tape_begin(t, ex, MB_TAPE_TRAIN, e->recompute, NULL));
    MB_TRY(e->model->family->forward(t, e->model, b, &o));
    MB_TRY(mb_layer_result(t, e->model, b, &o, logits));
    MB_TRY(mb_layer_loss(t, e->model, b, &o, *logits, logprob));
    MB_TRY(seed(t, ex, b, (float)(1.0 / divisor), *logprob));
    return mb_tape_backward(t);
}

mb_status mb_engine_plain(mb_engine *e, const mb_batch *b, double divisor, mb_tensor *logits,
                          mb_micro_result *out)
{
    const mb_batch *mine = b;
    mb_var *whole, *logprob;
    mb_batch there;

    MB_TRY(send(e, &b, &there));
    MB_TRY(run_plain(e, e->tape, &e->ex, b, divisor, &whole, &logprob));
    *logits = whole->value;
    MB_TRY(receive(e, &logprob->value));
    sum_up(mine, mb_f32(&logprob->value), out);
    return receive(e, logits);
}

mb_status mb_engine_reserve_for(mb_engine *e, mb_batch *b, bool train, int64_t logit_rows)
{
    struct dry d;
    mb_tape *t = NULL;
    mb_var *logits, *logprob;
    mb_tensor y;
    mb_status st = MB_OK;

    MB_TRY_GOTO(dry_begin(e, &d), st, done);
    MB_TRY_GOTO(mb_tape_new(d.step, &t), st, done);
    if (train) {
        MB_TRY_GOTO(run_plain(e, t, &d.ex, b, 1.0, &logits, &logprob), st, done);
        MB_TRY_GOTO(run_step(e, t, &d.ex, b, true, NULL, &logprob), st, done);
    } else {
        const mb_tensor rows = mb_tensor_1d(b->ids, MB_DTYPE_I32, logit_rows);
        const mb_tensor *list = logit_rows > 0 ? &rows : NULL;
        MB_TRY_GOTO(run_logits(e, t, &d.ex, b, list, NULL, &y), st, done);
        if (b->tokens > 1) { /* a ragged number of rows may take more workspace */
            b->tokens--;
            st = run_logits(e, t, &d.ex, b, list, NULL, &y);
            b->tokens++;
        }
    }
    if (st != MB_OK)
        goto done;
    if (mb_arena_peak(d.step) > e->step_bytes)
        e->step_bytes = mb_arena_peak(d.step);
    if (mb_arena_peak(d.scratch) > e->scratch_bytes)
        e->scratch_bytes = mb_arena_peak(d.scratch);
    if (mb_feed_batch_bytes(b, b->tokens) > e->batch_bytes)
        e->batch_bytes = mb_feed_batch_bytes(b, b->tokens);
    st = mb_engine_reserve(e);
done:
    mb_tape_free(t);
    dry_end(&d);
    return st;
}
