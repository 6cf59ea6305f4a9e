/* recipes/cmd/plan.c - `mbuyu plan`: what a run will take, before it takes it.
 *
 *     mbuyu plan recipe.yaml [key=value ...] [--memory SIZE] [--probe] [--json]
 *
 * Memory of a rank by part and phase; with --probe how long the run will be, from its first steps;
 * where it does not fit into what the machine has, or into --memory, what to change.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "recipes/commands.h"
#include "recipes/train/changes.h"

enum { NAME = 16, COLUMN = 12, PROBE_STEPS = 20 };

struct wishes {
    int64_t memory; /* 0: what is free */
    bool probe, json;
    int argc; /* the words that are left: the recipe */
    char **argv;
};

static mb_status take_memory(const char *text, int64_t *out)
{
    MB_REQUIRE(
        text != NULL && mb_recipe_size(text, out) && *out >= 1 << 20, MB_EARG,
        "--memory wants the memory of a machine (of a GPU, where those are used), as 8GiB or "
        "500MiB, not \"%.60s\"",
        text != NULL ? text : "");
    return MB_OK;
}

/* Takes our options out of argv, and the folder of the run, which a plan neither reads nor writes:
 * argv ends with a NULL, which makes room for a word. */
static mb_status take_options(int *argc, char **argv, struct wishes *w)
{
    int n = 0;

    for (int i = 0; i < *argc; i++) {
        if (strcmp(argv[i], "--probe") == 0) {
            w->probe = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            w->json = true;
        } else if (strcmp(argv[i], "--memory") == 0) {
            MB_TRY(take_memory(i + 1 < *argc ? argv[i + 1] : NULL, &w->memory));
            i++;
        } else if (strncmp(argv[i], "--memory=", 9) == 0) {
            MB_TRY(take_memory(argv[i] + 9, &w->memory));
        } else {
            argv[n++] = argv[i];
        }
    }
    argv[n++] = (char *)(uintptr_t) "~output_dir";
    *argc = n;
    w->argc = n;
    w->argv = argv;
    return MB_OK;
}

static double mib(int64_t bytes)
{
    return (double)bytes / 1048576.0;
}

static void print_row(const char *name, const int64_t bytes[MB_MEMORY_PHASES], int marked)
{
    printf("  %-*s", NAME - 2, name);
    for (int i = 0; i < MB_MEMORY_PHASES; i++)
        printf("%*.1f%s", COLUMN - 1, mib(bytes[i]), i == marked ? "*" : " ");
    printf("\n");
}

/* Parts by phases; the total of the phase that takes most is marked. */
static void print_memory(const mb_job *j, const mb_memory_plan *p)
{
    printf("memory of each of %d %s, MiB:\n%-*s", j->comm->size,
           j->comm->size == 1 ? "rank" : "ranks", NAME, "");
    for (int i = 0; i < MB_MEMORY_PHASES; i++)
        printf("%*s ", COLUMN - 1, mb_memory_phase_names[i]);
    printf("\n");
    for (int k = 0; k < MB_MEMORY_PARTS; k++) {
        int64_t of[MB_MEMORY_PHASES], any = 0;
        for (int i = 0; i < MB_MEMORY_PHASES; i++)
            any |= of[i] = p->bytes[i][k];
        if (any != 0 || k != MB_PART_EXACT)
            print_row(mb_memory_part_names[k], of, -1);
    }
    print_row("total", p->total, (int)p->peak);
}

static void print_run(const mb_job *j)
{
    const mb_model *m = j->engine->model;
    const mb_store_stats *s = &j->data->store->stats;

    printf("%s (%s), %s, computed in %s\n", j->recipe->model_name_or_path, m->family->name,
           mb_choice_word(j->recipe->finetuning_type), mb_dtype_name(j->dtype));
    printf("  parameters %lld, trained %lld\n", (long long)mb_model_parameters(m, false),
           (long long)mb_model_parameters(m, true));
    printf("  rows %lld, trained tokens %lld, longest row %lld\n", (long long)j->data->n_train,
           (long long)s->trained, (long long)s->max_length);
    printf("  steps %lld of %lld %s, micro-batches of %lld, largest of %lld tokens\n",
           (long long)j->total_steps, (long long)j->at.step_units,
           j->recipe->packing ? "bins" : "rows", (long long)j->at.micro_units,
           (long long)j->data->collate.largest);
}

static void print_room(const mb_job *j, const mb_memory_plan *p, const mb_memory_room *room,
                       bool given)
{
    const bool gpu = !mb_device_is_host(j->device),
               save_waits = j->recipe->save_async == MB_AUTO && !j->save_aside;

    if (save_waits)
        printf("  without a copy of the state: steps wait while a checkpoint is written\n");
    if (gpu)
        printf("  on each GPU %.1f MiB of %.1f; ", mib(p->device), mib(room->device));
    else
        printf("  ");
    printf("%.1f MiB in %s; %.1f MiB %s for each rank%s\n", mib(gpu ? p->host : p->most),
           gpu ? "host memory" : mb_memory_phase_names[p->peak], mib(room->host),
           given && !gpu ? "given" : "free", gpu ? " in host memory" : "");
}

static void print_hours(const char *what, double hours)
{
    static const struct {
        const char *name;
        double in_an_hour;
    } units[] = {{"hours", 1}, {"minutes", 60}, {"seconds", 3600}};
    int u = 0;

    while (u < 2 && hours * units[u].in_an_hour < 2)
        u++;
    printf("  %-14s %10.1f %-7s", what, hours * units[u].in_an_hour, units[u].name);
}

static const char *plural(int64_t n)
{
    return n == 1 ? "" : "s";
}

static void print_probe(const mb_job *j, const mb_probe *b, const mb_memory_plan *p)
{
    printf("probe: %lld step%s, the last %lld timed: %.1f tokens/s, %.3g s a step\n",
           (long long)b->steps, plural(b->steps), (long long)b->timed, b->tokens_per_second,
           b->step_seconds);
    print_hours("training", b->train_hours);
    printf("   %lld step%s\n", (long long)j->total_steps, plural(j->total_steps));
    if (b->evaluations > 0) {
        print_hours("evaluation", (double)b->evaluations * b->evaluation_seconds / 3600);
        printf("   %lld time%s %.3g s\n", (long long)b->evaluations, plural(b->evaluations),
               b->evaluation_seconds);
    }
    print_hours("the run", b->hours);
    if (b->saves > 0)
        printf("   and %lld checkpoint%s of %.0f MiB, not tried", (long long)b->saves,
               plural(b->saves), mib(b->save_bytes));
    printf("\n  memory after steps: %.1f MiB, planned %.1f\n", mib(b->peak_bytes),
           mib(p->total[MB_PHASE_TRAINING]));
}

static void print_changes(const mb_job *j, const mb_proposal *c, int n, const mb_probe *b)
{
    const bool gpu = !mb_device_is_host(j->device);

    if (n == 0) {
        printf("no change that is known here makes it fit: a smaller model, or shorter rows "
               "(max_length)\n");
        return;
    }
    printf("it does not fit; with these changes it does, the least time first (times are "
           "estimates):\n%10s %10s  change\n",
           "MiB", "time");
    for (int i = 0; i < n; i++) {
        char time[32];
        snprintf(time, sizeof time, "x%.2f", c[i].time);
        if (b->timed > 0)
            snprintf(time, sizeof time, "%.2f h", b->hours + b->train_hours * (c[i].time - 1));
        printf("%10.1f %10s  %s", mib(gpu ? c[i].plan.device : c[i].plan.host), time, c[i].keys);
        printf(c[i].note[0] != '\0' ? "   (%s)\n" : "%s\n", c[i].note);
    }
}

static mb_status again(void *ctx, mb_recipe **out)
{
    const struct wishes *w = ctx;

    return mb_recipe_load(w->argc, w->argv, out);
}

static mb_status suggest(const mb_job *j, struct wishes *w, const mb_memory_room *room,
                         const mb_probe *b)
{
    mb_proposal *c = NULL;
    int n = 0;

    MB_TRY(mb_job_changes(j, room, again, w, &c, &n));
    print_changes(j, c, n, b);
    mb_free(c);
    return MB_OK;
}

/* On every rank. */
static mb_status all_fit(const mb_job *j, const mb_memory_plan *p, const mb_memory_room *room,
                         bool *all)
{
    int32_t fits = mb_memory_fits(p, room);

    *all = false;
    MB_TRY(j->comm->ops->all_reduce(j->comm, &fits, 1, MB_DTYPE_I32, MB_MIN));
    *all = fits != 0;
    return MB_OK;
}

/* ---- as JSON: the same numbers, bytes and hours ------------------------------------------- */

static mb_status json_memory(const mb_memory_plan *p, mb_json to)
{
    mb_json phases, parts, part, bytes, total;

    MB_TRY(mb_json_set_array(to, "phases", &phases));
    for (int i = 0; i < MB_MEMORY_PHASES; i++)
        MB_TRY(mb_json_set_string(phases, NULL, mb_memory_phase_names[i]));
    MB_TRY(mb_json_set_array(to, "parts", &parts));
    for (int k = 0; k < MB_MEMORY_PARTS; k++) {
        MB_TRY(mb_json_set_object(parts, NULL, &part));
        MB_TRY(mb_json_set_string(part, "name", mb_memory_part_names[k]));
        MB_TRY(mb_json_set_array(part, "bytes", &bytes));
        for (int i = 0; i < MB_MEMORY_PHASES; i++)
            MB_TRY(mb_json_set_int(bytes, NULL, p->bytes[i][k]));
    }
    MB_TRY(mb_json_set_array(to, "total", &total));
    for (int i = 0; i < MB_MEMORY_PHASES; i++)
        MB_TRY(mb_json_set_int(total, NULL, p->total[i]));
    return mb_json_set_int(to, "peak", p->peak);
}

static mb_status json_run(const mb_job *j, mb_json to)
{
    const mb_model *m = j->engine->model;
    const mb_store_stats *s = &j->data->store->stats;
    const struct {
        const char *name;
        int64_t n;
    } counts[] = {{"parameters", mb_model_parameters(m, false)},
                  {"trained", mb_model_parameters(m, true)},
                  {"rows", j->data->n_train},
                  {"trained_tokens", s->trained},
                  {"longest_row", s->max_length},
                  {"steps", j->total_steps},
                  {"step_rows", j->at.step_units},
                  {"ranks", j->comm->size}};

    MB_TRY(mb_json_set_string(to, "model", j->recipe->model_name_or_path));
    MB_TRY(mb_json_set_string(to, "family", m->family->name));
    MB_TRY(mb_json_set_string(to, "dtype", mb_dtype_name(j->dtype)));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        MB_TRY(mb_json_set_int(to, counts[i].name, counts[i].n));
    return MB_OK;
}

static mb_status json_changes(const mb_job *j, const mb_proposal *c, int n, mb_json to)
{
    const bool gpu = !mb_device_is_host(j->device);
    mb_json list, change;

    MB_TRY(mb_json_set_array(to, "changes", &list));
    for (int i = 0; i < n; i++) {
        MB_TRY(mb_json_set_object(list, NULL, &change));
        MB_TRY(mb_json_set_string(change, "keys", c[i].keys));
        MB_TRY(mb_json_set_string(change, "note", c[i].note));
        MB_TRY(mb_json_set_int(change, "needed", gpu ? c[i].plan.device : c[i].plan.host));
        MB_TRY(mb_json_set_real(change, "time", c[i].time));
    }
    return MB_OK;
}

static mb_status json_all(const mb_job *j, struct wishes *w, const mb_memory_plan *p,
                          const mb_memory_room *room, const mb_probe *b, bool fits, mb_json to)
{
    const bool gpu = !mb_device_is_host(j->device);
    mb_proposal *c = NULL;
    mb_status st;
    int n = 0;

    MB_TRY(json_run(j, to));
    MB_TRY(json_memory(p, to));
    MB_TRY(mb_json_set_int(to, "needed", gpu ? p->device : p->most));
    MB_TRY(mb_json_set_int(to, "free", gpu ? room->device : room->host));
    MB_TRY(mb_json_set_bool(to, "fits", fits));
    if (b->timed > 0) {
        MB_TRY(mb_json_set_real(to, "hours", b->hours));
        MB_TRY(mb_json_set_real(to, "tokens_per_second", b->tokens_per_second));
    }
    if (!fits)
        MB_TRY(mb_job_changes(j, room, again, w, &c, &n));
    st = json_changes(j, c, n, to);
    mb_free(c);
    return st;
}

static mb_status print_json(const mb_job *j, struct wishes *w, const mb_memory_plan *p,
                            const mb_memory_room *room, const mb_probe *b, bool fits)
{
    mb_json_doc *doc;
    char *text = NULL;
    mb_status st;

    MB_TRY(mb_json_doc_new("plan", &doc));
    st = json_all(j, w, p, room, b, fits, mb_json_root(doc));
    if (st == MB_OK)
        st = mb_json_text(mb_json_root(doc), 0, &text, NULL);
    if (st == MB_OK)
        puts(text);
    mb_free(text);
    mb_json_free(doc);
    return st;
}

static mb_status show(mb_job *j, struct wishes *w)
{
    const bool first = j->comm->rank == 0;
    mb_memory_room room, here;
    mb_memory_plan p;
    mb_probe probe = {0};
    bool fits, fits_here;

    MB_TRY(mb_comm_agree(j->comm, mb_job_room(j, 0, &here)));
    MB_TRY(mb_comm_agree(j->comm, mb_job_room(j, w->memory, &room)));
    mb_job_memory_in(j, &room, &p);
    MB_TRY(all_fit(j, &p, &room, &fits));
    MB_TRY(all_fit(j, &p, &here, &fits_here));
    if (first && !w->json) {
        print_run(j);
        print_memory(j, &p);
        print_room(j, &p, &room, w->memory > 0);
        fflush(stdout);
    }
    if (w->probe && fits_here)
        MB_TRY(mb_job_probe(j, PROBE_STEPS, &probe));
    if (w->json)
        return mb_comm_agree(j->comm, first ? print_json(j, w, &p, &room, &probe, fits) : MB_OK);
    if (first && probe.timed > 0)
        print_probe(j, &probe, &p);
    else if (first && w->probe)
        printf("no probe: the run does not fit into this machine\n");
    return mb_comm_agree(j->comm, fits || !first ? MB_OK : suggest(j, w, &room, &probe));
}

static mb_status run(mb_launch *launch, mb_recipe *r, void *ctx)
{
    mb_job *j = NULL;
    mb_status st;

    MB_TRY(mb_job_open(r, launch, MB_JOB_PLAN, &j));
    st = show(j, ctx);
    mb_job_close(j);
    return st;
}

mb_status mb_cmd_plan(mb_launch *launch, int argc, char **argv)
{
    struct wishes w = {0};

    MB_TRY(take_options(&argc, argv, &w));
    return mb_job_verb(launch, argc, argv, run, &w);
}
