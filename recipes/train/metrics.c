/* recipes/train/metrics.c - records, and handing them to every open sink. */
#include "recipes/train/metrics.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"

#define MB_SINK(kind) extern const mb_sink_kind mb_sink_##kind;
#include "recipes/train/sinks.def"
#undef MB_SINK

const mb_sink_kind *const mb_sink_kinds[] = {
#define MB_SINK(kind) &mb_sink_##kind,
#include "recipes/train/sinks.def"
#undef MB_SINK
    NULL,
};

enum { KINDS = sizeof mb_sink_kinds / sizeof mb_sink_kinds[0] - 1 };

struct mb_sinks {
    struct {
        const mb_sink_kind *kind; /* NULL: not open */
        void *state;
    } sink[KINDS];
};

void mb_metrics_add(mb_metrics *m, const char *name, double value)
{
    MB_ASSERT(m->n < MB_METRICS_MAX);
    m->item[m->n].name = name;
    m->item[m->n++].value = value;
}

void mb_metrics_add_of_group(mb_metrics *m, const char *name, double value)
{
    mb_metrics_add(m, name, value);
    m->item[m->n - 1].of_group = true;
}

/* Is it a number of things? */
static bool counts(const char *name)
{
    const size_t n = strlen(name);

    return strncmp(name, "num_", 4) == 0 || (n > 5 && strcmp(name + n - 5, "_rows") == 0);
}

const double *mb_metrics_get(const mb_metrics *m, const char *name)
{
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->item[i].name, name) == 0)
            return &m->item[i].value;
    return NULL;
}

mb_status mb_metrics_to_json(const mb_metrics *m, mb_json object)
{
    for (int i = 0; i < m->n; i++) {
        const double v = m->item[i].value;

        if (counts(m->item[i].name) && fabs(v) < 9e15)
            MB_TRY(mb_json_set_int(object, m->item[i].name, (int64_t)v));
        else
            MB_TRY(mb_json_set_real(object, m->item[i].name, v));
    }
    return MB_OK;
}

static bool listed(const char *const *names, const char *name)
{
    for (; names != NULL && *names != NULL; names++)
        if (strcmp(*names, name) == 0 || strcmp(*names, "all") == 0)
            return true;
    return false;
}

static mb_status check_names(const char *const *names)
{
    for (; names != NULL && *names != NULL; names++) {
        bool known = strcmp(*names, "none") == 0 || strcmp(*names, "all") == 0;

        for (int k = 0; k < KINDS; k++)
            known = known || strcmp(mb_sink_kinds[k]->name, *names) == 0;
        MB_REQUIRE(known, MB_EARG, "report_to: \"%s\" is not one of jsonl, tensorboard, all, none",
                   *names);
    }
    return MB_OK;
}

mb_status mb_sinks_open(const mb_metric_run *run, const char *const *names, mb_sinks **out)
{
    mb_status st = MB_OK;
    mb_sinks *s;

    MB_TRY(check_names(names));
    MB_TRY(MB_NEW(&s));
    for (int k = 0; k < KINDS; k++) {
        if (!mb_sink_kinds[k]->always && !listed(names, mb_sink_kinds[k]->name))
            continue;
        MB_TRY_GOTO(mb_sink_kinds[k]->open(run, &s->sink[k].state), st, failed);
        s->sink[k].kind = mb_sink_kinds[k];
    }
    *out = s;
    return MB_OK;
failed:
    mb_sinks_close(&s);
    return st;
}

mb_status mb_sinks_log(mb_sinks *s, const mb_metrics *m)
{
    for (int k = 0; k < KINDS; k++)
        if (s->sink[k].kind != NULL && s->sink[k].kind->log != NULL)
            MB_TRY(s->sink[k].kind->log(s->sink[k].state, m));
    return MB_OK;
}

void mb_sinks_progress(mb_sinks *s, const mb_progress *p)
{
    for (int k = 0; k < KINDS; k++)
        if (s->sink[k].kind != NULL && s->sink[k].kind->progress != NULL)
            s->sink[k].kind->progress(s->sink[k].state, p);
}

void mb_sinks_best(mb_sinks *s, double metric, const char *checkpoint)
{
    for (int k = 0; k < KINDS; k++)
        if (s->sink[k].kind != NULL && s->sink[k].kind->best != NULL)
            s->sink[k].kind->best(s->sink[k].state, metric, checkpoint);
}

mb_status mb_sinks_checkpoint(mb_sinks *s, const char *dir, int64_t step)
{
    for (int k = 0; k < KINDS; k++)
        if (s->sink[k].kind != NULL && s->sink[k].kind->checkpoint != NULL)
            MB_TRY(s->sink[k].kind->checkpoint(s->sink[k].state, dir, step));
    return MB_OK;
}

mb_status mb_sinks_close(mb_sinks **s)
{
    mb_status first = MB_OK;

    if (*s == NULL)
        return MB_OK;
    for (int k = KINDS - 1; k >= 0; k--) {
        if ((*s)->sink[k].kind == NULL)
            continue;

        const mb_status st = (*s)->sink[k].kind->close((*s)->sink[k].state);

        first = first == MB_OK ? st : first;
    }
    mb_free(*s);
    *s = NULL;
    return first;
}
