/* recipes/train/changes.c - see recipes/train/changes.h.
 *
 * Times are estimates from arithmetic: of three products a weight takes in a step (forward, towards
 * the input, towards the weight) recomputation makes the first again and LoRA leaves the third out;
 * a micro-batch costs as if it had OVERHEAD more tokens, for weights that are brought up and
 * gradients that are added whatever its size.
 */
#include "recipes/train/changes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

enum { OVERHEAD = 64, EDITS = 16, MACHINES_MOST = 64, PROPOSALS_MAX = 24 };

/* What a change does to a run. */
struct edit {
    struct {
        const char *key;
        char value[24];
    } set[EDITS];
    int n;
    double time;
    int fewer;    /* ranks of this machine are divided by this */
    int machines; /* as many times */
    const char *note;
};

static struct edit *set(struct edit *e, const char *key, const char *value)
{
    e->set[e->n].key = key;
    snprintf(e->set[e->n++].value, sizeof e->set->value, "%s", value);
    return e;
}

static void set_number(struct edit *e, const char *key, int64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%lld", (long long)value);
    set(e, key, text);
}

/* Another number of ranks or rows at once must not change what a step is. */
static void keep_step(const mb_job *j, struct edit *e)
{
    set_number(e, "global_batch_size", j->at.step_units);
}

static bool is_full(const mb_job *j)
{
    return j->recipe->finetuning_type == MB_FINETUNING_FULL;
}

/* ---- the changes: attempt 0, 1 ... of each, ever stronger; false: no more ------------------ */

static bool in_bf16(const mb_job *j, int attempt, struct edit *e)
{
    if (attempt > 0 || j->dtype != MB_DTYPE_F32 || !j->device->has_bf16 ||
        j->recipe->zero_stage == 0)
        return false;
    set(e, "bf16", "true")->time = j->device->fast_bf16 ? 0.6 : 1.0;
    return true;
}

static bool adapters(const mb_job *j, int attempt, struct edit *e)
{
    if (attempt > 0 || !is_full(j))
        return false;
    set(e, "finetuning_type", "lora")->time = 0.75;
    e->note = "trains adapters, not every weight";
    return true;
}

static bool small_moments(const mb_job *j, int attempt, struct edit *e)
{
    static const char *const kinds[] = {"adamw", "adamw_bf16", "adamw_8bit"};
    int now = 0;

    while (now < 3 && strcmp(j->recipe->optim, kinds[now]) != 0)
        now++;
    if (now + 1 + attempt >= 3)
        return false;
    set(e, "optim", kinds[now + 1 + attempt]);
    return true;
}

static bool no_copy(const mb_job *j, int attempt, struct edit *e)
{
    if (attempt > 0 || j->recipe->save_async != MB_YES || j->recipe->save_strategy == MB_SAVE_NO)
        return false;
    set(e, "save_async", "false");
    e->note = "steps wait while a checkpoint is written";
    return true;
}

static bool small_evaluation(const mb_job *j, int attempt, struct edit *e)
{
    const int64_t rows = j->recipe->per_device_eval_batch_size >> (attempt + 1);

    if (rows < 1 || j->data->eval == NULL)
        return false;
    set_number(e, "per_device_eval_batch_size", rows);
    return true;
}

static bool small_micro_batch(const mb_job *j, int attempt, struct edit *e)
{
    const int64_t rows = j->at.micro_units >> (attempt + 1);
    const double tokens = (double)j->data->collate.largest,
                 now = tokens * (double)rows / (double)j->at.micro_units;

    if (rows < 1)
        return false;
    set_number(e, "per_device_train_batch_size", rows);
    keep_step(j, e);
    e->time = (1 + OVERHEAD / now) / (1 + OVERHEAD / tokens);
    return true;
}

static bool recomputed(const mb_job *j, int attempt, struct edit *e)
{
    if (attempt > 0 || j->recipe->gradient_checkpointing)
        return false;
    set(e, "gradient_checkpointing", "true")->time = is_full(j) ? 4.0 / 3 : 3.0 / 2;
    return true;
}

static bool fewer_ranks(const mb_job *j, int attempt, struct edit *e)
{
    if (j->launch->local_size != j->comm->size || j->comm->size >> (attempt + 1) < 1)
        return false;
    e->fewer = 2 << attempt;
    keep_step(j, e);
    e->note = "each rank gets more of this machine";
    return true;
}

static bool more_shared(const mb_job *j, int attempt, struct edit *e)
{
    const int64_t stage = (j->recipe->zero_stage > 1 ? j->recipe->zero_stage : 1) + 1 + attempt;

    if (j->comm->size == 1 || stage > 3)
        return false;
    set_number(e, "zero_stage", stage);
    e->time = stage == 3 ? 1.1 : 1.05;
    e->note = "more goes between the ranks";
    return true;
}

static bool more_machines(const mb_job *j, int attempt, struct edit *e)
{
    e->machines = 2 << attempt;
    if (e->machines > MACHINES_MOST)
        return false;
    set(e, "zero_stage", "3")->time = 1.1 / e->machines;
    keep_step(j, e);
    return true;
}

enum { SAME_RUN = 0, OTHER_TRAINING = 1, OTHER_MACHINES = 2 };

static const struct change {
    bool (*at)(const mb_job *j, int attempt, struct edit *e);
    int kind;
} changes[] = {
    {in_bf16, SAME_RUN},           {small_moments, SAME_RUN},
    {no_copy, SAME_RUN},           {small_evaluation, SAME_RUN},
    {fewer_ranks, SAME_RUN},       {more_shared, SAME_RUN},
    {small_micro_batch, SAME_RUN}, {recomputed, SAME_RUN},
    {adapters, OTHER_TRAINING},    {more_machines, OTHER_MACHINES},
};
enum { N = sizeof changes / sizeof *changes };

/* ---- planning them -------------------------------------------------------------------------- */

struct search {
    const mb_job *j;
    mb_memory_room room;
    mb_recipe_again again;
    void *ctx;
    mb_memory_plan now;
    int strongest[N]; /* the last attempt that can be planned; -1: none */
    bool helps[N];    /* by itself it takes less than now */
    mb_proposal *found;
    int n;
};

static struct edit of(const struct search *s, int change, int attempt)
{
    struct edit e = {.time = 1.0, .fewer = 1, .machines = 1, .note = ""};

    changes[change].at(s->j, attempt, &e);
    return e;
}

/* Of two changes of one key the later counts. */
static void merge(struct edit *all, const struct edit *e, mb_proposal *p)
{
    for (int i = 0; i < e->n; i++) {
        int at = 0;
        while (at < all->n && strcmp(all->set[at].key, e->set[i].key) != 0)
            at++;
        all->set[at] = e->set[i];
        all->n += at == all->n;
    }
    all->time *= e->time;
    all->fewer *= e->fewer;
    all->machines *= e->machines;
    if (e->note[0] != '\0') {
        const size_t n = strlen(p->note);
        snprintf(p->note + n, sizeof p->note - n, "%s%s", n > 0 ? "; " : "", e->note);
    }
}

static void describe(const struct search *s, const struct edit *all, const mb_launch *l,
                     mb_proposal *p)
{
    const mb_launch *now = s->j->launch;
    size_t n = 0;

    for (int i = 0; i < all->n; i++)
        n += (size_t)snprintf(p->keys + n, sizeof p->keys - n, "%s%s=%s", n > 0 ? " " : "",
                              all->set[i].key, all->set[i].value);
    if (all->fewer > 1)
        snprintf(p->keys + n, sizeof p->keys - n, " --ranks %d", l->size);
    n = strlen(p->note);
    if (all->machines > 1)
        snprintf(p->note + n, sizeof p->note - n,
                 "%son %d machines, not %d; the network decides the time", n > 0 ? "; " : "",
                 l->size / l->local_size, now->size / now->local_size);
}

/* The plan of the recipe with these keys, on these ranks. */
static mb_status plan_keys(struct search *s, const struct edit *all, const mb_launch *l,
                           mb_proposal *p)
{
    mb_recipe *r = NULL;
    mb_job *j = NULL;
    mb_status st;

    MB_TRY(s->again(s->ctx, &r));
    st = MB_OK;
    for (int k = 0; k < all->n && st == MB_OK; k++)
        st = mb_recipe_set(r, all->set[k].key, all->set[k].value, "a change that is tried");
    if (st == MB_OK)
        st = mb_recipe_check(r);
    if (st == MB_OK)
        st = mb_job_open_like(s->j, r, l, &j);
    if (st == MB_OK)
        mb_job_memory_in(j, &p->room, &p->plan);
    mb_job_close(j);
    mb_recipe_free(r);
    return st;
}

/* `attempt` of each change, -1: left out. *possible: that is a run that can be started. */
static mb_status plan(struct search *s, const int *attempt, mb_proposal *p, bool *possible)
{
    struct edit all = {.time = 1.0, .fewer = 1, .machines = 1};
    mb_launch l = *s->j->launch;
    mb_status st;

    *p = (mb_proposal){.room = s->room};
    for (int i = 0; i < N; i++) {
        if (attempt[i] < 0)
            continue;
        const struct edit e = of(s, i, attempt[i]);
        merge(&all, &e, p);
    }
    l.world = NULL;
    l.rank = l.local_rank = 0;
    l.local_size /= all.fewer;
    l.size = s->j->comm->size / all.fewer * all.machines;
    if (mb_device_is_host(s->j->device))
        p->room.host *= all.fewer;
    p->time = all.time;
    p->more_machines = all.machines > 1;
    describe(s, &all, &l, p);
    st = plan_keys(s, &all, &l, p);
    *possible = st == MB_OK;
    if (st == MB_ENOMEM)
        return st;
    mb_status_clear();
    return MB_OK;
}

static bool fits(const mb_proposal *p)
{
    return mb_memory_fits(&p->plan, &p->room);
}

static void keep(struct search *s, const mb_proposal *p)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->found[i].keys, p->keys) == 0)
            return;
    if (s->n < PROPOSALS_MAX)
        s->found[s->n++] = *p;
}

static void none(int *attempt)
{
    for (int i = 0; i < N; i++)
        attempt[i] = -1;
}

/* Does p need less than what is planned so far, or is there more for it? */
static bool gains(const mb_proposal *p, const mb_proposal *so_far)
{
    return p->plan.host < so_far->plan.host || p->plan.device < so_far->plan.device ||
           p->room.host > so_far->room.host;
}

/* The weakest attempt of one change that is enough by itself. */
static mb_status alone(struct search *s, int change)
{
    int attempt[N];

    none(attempt);
    s->strongest[change] = -1;
    for (int k = 0;; k++) {
        struct edit e = {0};
        bool possible;
        mb_proposal p;
        if (!changes[change].at(s->j, k, &e))
            return MB_OK;
        attempt[change] = k;
        MB_TRY(plan(s, attempt, &p, &possible));
        if (!possible)
            return MB_OK;
        s->strongest[change] = k;
        s->helps[change] =
            s->helps[change] || gains(&p, &(mb_proposal){.plan = s->now, .room = s->room});
        if (fits(&p)) {
            keep(s, &p);
            return MB_OK;
        }
    }
}

/* The change of the least time that is allowed, helps and is not used yet; -1: none. */
static int next(const struct search *s, const int *attempt, int allowed)
{
    int best = -1;

    for (int i = 0; i < N; i++) {
        if (attempt[i] >= 0 || s->strongest[i] < 0 || !s->helps[i] ||
            (changes[i].kind & ~allowed) != 0)
            continue;
        if (best < 0 || of(s, i, s->strongest[i]).time < of(s, best, s->strongest[best]).time)
            best = i;
    }
    return best;
}

/* Drops what is not needed and saves no time, the dearest first, and weakens the rest. */
static mb_status trim(struct search *s, int *attempt, mb_proposal *p)
{
    bool tried[N] = {false};

    for (int round = 0; round < N; round++) {
        int dearest = -1;
        for (int i = 0; i < N; i++)
            if (attempt[i] >= 0 && !tried[i] && of(s, i, attempt[i]).time >= 1.0 &&
                (dearest < 0 || of(s, i, attempt[i]).time > of(s, dearest, attempt[dearest]).time))
                dearest = i;
        if (dearest < 0)
            break;
        tried[dearest] = true;
        const int strong = attempt[dearest];
        for (int k = -1; k <= strong; k++) {
            bool possible;
            mb_proposal q;
            attempt[dearest] = k;
            MB_TRY(plan(s, attempt, &q, &possible));
            if (possible && fits(&q)) {
                *p = q;
                break;
            }
        }
    }
    return MB_OK;
}

/* Changes of the kinds allowed, one after the other, until it fits. */
static mb_status together(struct search *s, int allowed)
{
    mb_proposal p, so_far = {.plan = s->now, .room = s->room};
    int attempt[N], i;

    none(attempt);
    while ((i = next(s, attempt, allowed)) >= 0) {
        bool possible;
        attempt[i] = s->strongest[i];
        MB_TRY(plan(s, attempt, &p, &possible));
        if (!possible || !gains(&p, &so_far)) {
            attempt[i] = -1;
            s->helps[i] = false; /* not beside these */
            continue;
        }
        so_far = p;
        if (!fits(&p))
            continue;
        MB_TRY(trim(s, attempt, &p));
        keep(s, &p);
        return MB_OK;
    }
    return MB_OK;
}

static int by_time(const void *a, const void *b)
{
    const mb_proposal *x = a, *y = b;

    if (x->more_machines != y->more_machines)
        return x->more_machines ? 1 : -1;
    return x->time != y->time ? (x->time > y->time) - (x->time < y->time)
                              : (x->plan.most > y->plan.most) - (x->plan.most < y->plan.most);
}

static mb_status search(struct search *s)
{
    static const int allowed[] = {SAME_RUN, OTHER_TRAINING, OTHER_TRAINING | OTHER_MACHINES};
    bool same = false;

    for (int i = 0; i < N; i++) {
        const int before = s->n;
        MB_TRY(alone(s, i));
        same = same || (changes[i].kind == SAME_RUN && s->n > before);
    }
    if (!same) /* whoever trains every weight on this machine wants to go on doing so */
        MB_TRY(together(s, SAME_RUN));
    for (size_t i = 1; i < sizeof allowed / sizeof *allowed && s->n == 0; i++)
        MB_TRY(together(s, allowed[i]));
    return MB_OK;
}

mb_status mb_job_changes(const mb_job *j, const mb_memory_room *room, mb_recipe_again again,
                         void *ctx, mb_proposal **out, int *n)
{
    struct search s = {.j = j, .room = *room, .again = again, .ctx = ctx};
    mb_status st;

    mb_job_memory(j, &s.now);
    MB_TRY(MB_NEW_ARRAY(&s.found, PROPOSALS_MAX));
    st = search(&s);
    if (st != MB_OK) {
        mb_free(s.found);
        return st;
    }
    qsort(s.found, (size_t)s.n, sizeof *s.found, by_time);
    *out = s.found;
    *n = s.n;
    return MB_OK;
}
