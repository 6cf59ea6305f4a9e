/* recipes/train/groups.c - see recipes/train/groups.h. */
#include "recipes/train/groups.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/config/dataset_files.h"
#include "recipes/data/image_list.h"

/* An evaluation row by the record it is of. */
struct place {
    int32_t source;
    int64_t record, row;
};

struct reading {
    const char *column;
    const mb_store *store;
    struct place *place; /* (n) sorted */
    int64_t n;
    mb_groups *g;
};

void mb_groups_free(mb_groups *g)
{
    if (g == NULL)
        return;
    for (int i = 0; i < g->n; i++)
        mb_free(g->name[i]);
    mb_free(g->of);
    mb_free(g);
}

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->source != y->source)
        return x->source < y->source ? -1 : 1;
    if (x->record != y->record)
        return x->record < y->record ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static mb_status places(struct reading *r, const mb_data *d)
{
    const mb_store *s = r->store;

    r->n = mb_data_eval_rows(d);
    MB_TRY(MB_NEW_ARRAY(&r->place, r->n));
    for (int64_t i = 0; i < r->n; i++) {
        const int64_t row = mb_data_eval_row(d, i);

        r->place[i] = (struct place){s->source[row], s->record[row], row};
    }
    qsort(r->place, (size_t)r->n, sizeof *r->place, by_place);
    return MB_OK;
}

/* The first place that is not before this one. */
static int64_t first_at(const struct reading *r, int32_t source, int64_t record)
{
    const struct place wanted = {source, record, -1};
    int64_t low = 0, high = r->n;

    while (low < high) {
        const int64_t middle = (low + high) / 2;

        if (by_place(&r->place[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_of(const struct place *p, int32_t source, int64_t record)
{
    return p->source == source && p->record == record;
}

static mb_status group_of(struct reading *r, const char *name, int32_t *out)
{
    mb_groups *g = r->g;

    for (*out = 0; *out < g->n; ++*out)
        if (strcmp(g->name[*out], name) == 0)
            return MB_OK;
    MB_REQUIRE(g->n < MB_GROUPS_MAX, MB_EDATA,
               "metrics_by: the column \"%s\" has more than %d values in the evaluation's rows",
               r->column, MB_GROUPS_MAX);
    MB_TRY(mb_strdup(name, &g->name[g->n]));
    g->n++;
    return MB_OK;
}

/* The rows of a record. */
static mb_status note(struct reading *r, const mb_records *file, int32_t source,
                      const mb_row_text *row)
{
    int64_t i = first_at(r, source, row->record);
    char value[MB_GROUP_BYTES];
    int32_t group;

    if (i == r->n || !is_of(&r->place[i], source, row->record))
        return MB_OK;
    MB_TRY(mb_records_column(file, row, r->column, value, sizeof value));
    if (value[0] == '\0')
        return MB_OK;
    MB_TRY(group_of(r, value, &group));
    for (; i < r->n && is_of(&r->place[i], source, row->record); i++)
        r->g->of[r->place[i].row] = group;
    return MB_OK;
}

static mb_status read_source(struct reading *r, const mb_source *given, int32_t number,
                             bool pictures)
{
    char file[MB_PATH_MAX], split[100];
    const int64_t first = first_at(r, number, 0);
    mb_source source = *given;
    mb_records *rows;
    mb_row_text row;
    bool more = true;
    mb_status st = MB_OK;

    if (first == r->n || r->place[first].source != number)
        return MB_OK;
    source.bare = true;
    source.type = NULL;
    source.n_fields = 0; /* the column is meant by its name in the file */
    if (pictures) {
        MB_TRY(mb_image_list_file(given, file));
        source.path = file;
        source.split = NULL;
    }
    if (source.split !=
        NULL) { /* records are counted from the file's first: no bounds are needed */
        mb_dataset_split_name(given->split, split, sizeof split);
        source.split = split;
    }
    if (source.path[0] == '\0') /* a folder for each class has no columns */
        return MB_OK;
    MB_TRY(mb_records_open(&source, &rows));
    while (st == MB_OK && more) {
        st = mb_records_next(rows, &row, &more);
        if (st == MB_OK && more)
            st = note(r, rows, number, &row);
    }
    mb_records_close(rows);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Groups get their numbers by name, whatever the order in which rows brought them. */
static mb_status sort_groups(struct reading *r)
{
    mb_groups *g = r->g;
    char *before[MB_GROUPS_MAX];
    int32_t now[MB_GROUPS_MAX] = {0}, none = -1;

    MB_REQUIRE(g->n > 0, MB_EDATA,
               "metrics_by: no row of the evaluation has a column \"%s\" with a value", r->column);
    for (int64_t i = 0; i < r->n; i++) {
        int32_t *const of = &g->of[r->place[i].row];

        if (*of < 0 && none < 0)
            MB_TRY(group_of(r, "(none)", &none));
        *of = *of < 0 ? none : *of;
    }
    memcpy(before, g->name, sizeof before);
    qsort(g->name, (size_t)g->n, sizeof *g->name, by_name);
    for (int i = 0; i < g->n; i++)
        for (int32_t k = 0; k < g->n; k++)
            if (g->name[k] == before[i])
                now[i] = k;
    for (int64_t i = 0; i < r->n; i++)
        g->of[r->place[i].row] = now[g->of[r->place[i].row]];
    return MB_OK;
}

static mb_status read_all(const mb_recipe *r, const mb_task *task, const mb_data *d, mb_groups *g)
{
    struct reading reading = {
        .column = r->metrics_by,
        .store = mb_data_eval_store(d),
        .g = g,
    };
    const mb_datasets *sets = d->eval_store != NULL ? &r->eval_datasets : &r->datasets;
    mb_store_options o;
    mb_source *source = NULL;
    mb_status st;

    st = mb_data_store_options(r, sets, task, d->tokenizer, &o, &source);
    if (st == MB_OK)
        st = places(&reading, d);
    for (int64_t i = 0; i < sets->n && st == MB_OK; i++)
        st = read_source(&reading, &source[i], (int32_t)i, mb_task_sees_images(task));
    if (st == MB_OK)
        st = sort_groups(&reading);
    mb_data_free_sources(source, sets->n);
    mb_free(reading.place);
    return st;
}

/* What rank 0 read, on all ranks. */
static mb_status share(mb_groups *g, mb_comm *comm)
{
    int64_t n = g->n;

    MB_TRY(comm->ops->broadcast(comm, &n, sizeof n, 0));
    for (g->n = 0; g->n < n; g->n++)
        MB_TRY(mb_comm_broadcast_string(comm, &g->name[g->n], 0));
    return comm->ops->broadcast(comm, g->of, g->n_rows * (int64_t)sizeof *g->of, 0);
}

static mb_status new_groups(const mb_data *d, mb_groups **out)
{
    mb_groups *g;

    MB_TRY(MB_NEW(&g));
    g->n_rows = mb_data_eval_store(d)->n_rows;
    const mb_status st = MB_NEW_ARRAY(&g->of, g->n_rows);
    if (st != MB_OK) {
        mb_groups_free(g);
        return st;
    }
    memset(g->of, 0xff, (size_t)g->n_rows * sizeof *g->of);
    *out = g;
    return MB_OK;
}

mb_status mb_groups_open(const mb_recipe *r, const mb_task *task, const mb_data *d, mb_comm *comm,
                         mb_groups **out)
{
    mb_groups *g = NULL;
    mb_status st = mb_comm_agree(comm, new_groups(d, &g));

    if (st == MB_OK)
        st = mb_comm_agree(comm, comm->rank == 0 ? read_all(r, task, d, g) : MB_OK);
    if (st == MB_OK)
        st = share(g, comm);
    if (st != MB_OK)
        mb_groups_free(g);
    else
        *out = g;
    return st;
}
