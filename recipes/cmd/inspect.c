/* recipes/cmd/inspect.c - `mbuyu inspect`: rows as they will be trained, and what became of the rest.
 *
 *     mbuyu inspect recipe.yaml [key=value ...] [--rows N] [--row K] [--tokens] [--save FOLDER]
 *         [--json]
 *
 * The first N rows (3) or row K, then the counts. Data of which nothing would be trained is refused
 * as in train (exit code 3). Of pictures, --save writes PNGs of what the model is given in its first
 * step: resized, cropped and augmented.
 */
#include "recipes/data/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "recipes/commands.h"
#include "recipes/config/model_path.h"
#include "recipes/train/data.h"

struct wishes {
    int64_t rows, row; /* row -1: the first ones */
    bool tokens, json;
    const char *save; /* NULL: nowhere */
};

static mb_status number(const char *option, const char *text, int64_t *out)
{
    char *end = NULL;

    if (text != NULL)
        *out = strtoll(text, &end, 10);
    MB_REQUIRE(text != NULL && end != text && *end == '\0' && *out >= 0, MB_EARG,
               "%s wants a number of rows, not \"%s\"", option, text != NULL ? text : "");
    return MB_OK;
}

/* Takes our options out of argv; the rest is the recipe's. */
static mb_status take_options(int *argc, char **argv, struct wishes *w)
{
    int n = 0;

    for (int i = 0; i < *argc; i++) {
        const char *next = i + 1 < *argc ? argv[i + 1] : NULL;
        const bool row = strcmp(argv[i], "--row") == 0;

        if (strcmp(argv[i], "--tokens") == 0) {
            w->tokens = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            w->json = true;
        } else if (strcmp(argv[i], "--save") == 0) {
            MB_REQUIRE(next != NULL, MB_EARG, "--save wants a folder");
            w->save = argv[++i];
        } else if (row || strcmp(argv[i], "--rows") == 0) {
            MB_TRY(number(argv[i], next, row ? &w->row : &w->rows));
            i++;
        } else {
            argv[n++] = argv[i];
        }
    }
    *argc = n;
    return MB_OK;
}

/* {"rows": [...], "counts": [...]} as recipes/data/inspect.h says. */
static mb_status print_json(const mb_store *s, const mb_tokenizer *tok, int64_t from, int64_t end)
{
    mb_json_doc *doc;
    mb_json rows, counts;
    char *text = NULL;
    mb_status st;

    MB_TRY(mb_json_doc_new("inspect", &doc));
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "rows", &rows), st, done);
    for (int64_t r = from; r < end; r++)
        MB_TRY_GOTO(mb_inspect_row_json(s, tok, r, rows), st, done);
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "counts", &counts), st, done);
    MB_TRY_GOTO(mb_inspect_counts_json(s, counts), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, NULL), st, done);
    puts(text);
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

static mb_status show(const mb_inspect *to, const struct wishes *w, const mb_store *s,
                      const mb_tokenizer *tok)
{
    const int64_t from = w->row >= 0 ? w->row : 0;
    const int64_t to_row = w->row >= 0 ? w->row + 1 : w->rows < s->n_rows ? w->rows : s->n_rows;

    MB_REQUIRE(w->row < s->n_rows, MB_EARG, "--row %lld: the rows are 0 to %lld", (long long)w->row,
               (long long)s->n_rows - 1);
    if (w->json)
        return print_json(s, tok, from, to_row);
    for (int64_t r = from; r < to_row; r++)
        MB_TRY(s->picture != NULL ? mb_inspect_picture(to, s, r) : mb_inspect_row(to, s, tok, r));
    mb_inspect_counts(to, s);
    return MB_OK;
}

/* Of a task whose rows need more than a tokenizer: what the model's configuration says. */
static mb_status look_at_model(mb_recipe *r, const mb_task *task, mb_model_config *c)
{
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    *c = (mb_model_config){0};
    if (!mb_task_has_classes(task))
        return MB_OK;
    MB_TRY(mb_model_config_doc(r->model_name_or_path, &doc));
    if (mb_task_sees_images(task))
        st = mb_model_config_parse(doc, task->head, c);
    if (st == MB_OK && mb_task_sees_images(task))
        st = mb_task_fits(task, c, r->model_name_or_path);
    if (st == MB_OK)
        st = mb_data_adopt_labels(r, task, doc);
    mb_json_free(doc);
    return st;
}

static mb_status inspect(mb_recipe *r, const struct wishes *w)
{
    const mb_task *task;
    bool images;
    mb_inspect to = mb_inspect_to(stdout);
    mb_store_options o;
    mb_source *source = NULL;
    mb_tokenizer *tok = NULL;
    mb_store *store = NULL;
    mb_model_config model;
    mb_status st = MB_OK;

    MB_TRY(mb_recipe_check_model(r));
    MB_TRY(mb_task_adopt(r));
    MB_TRY(mb_recipe_expand_folders(r));
    task = mb_task_of(r);
    images = mb_task_sees_images(task);
    to.tokens = w->tokens;
    to.save = images ? w->save : NULL;
    to.seed = (uint64_t)r->seed;
    MB_TRY(look_at_model(r, task, &model));
    if (!images)
        MB_TRY(mb_tokenizer_load(r->model_name_or_path, &tok));
    MB_TRY_GOTO(mb_data_store_options(r, &r->datasets, task, tok, &o, &source), st, done);
    MB_TRY_GOTO(mb_data_make_store(&o, task, &model, mb_comm_self(), &store), st, done);
    if (to.save != NULL)
        MB_TRY_GOTO(mb_data_pictures(r, &model, store, NULL, &to.pictures), st, done);
    st = show(&to, w, store, tok);
done:
    mb_pictures_free(to.pictures);
    for (int64_t i = 0; source != NULL && i < r->datasets.n; i++)
        mb_free((void *)(uintptr_t)source[i].field);
    mb_free(source);
    mb_store_free(store);
    mb_tokenizer_free(tok);
    return st;
}

mb_status mb_cmd_inspect(int argc, char **argv)
{
    struct wishes w = {.rows = 3, .row = -1};
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(take_options(&argc, argv, &w));
    MB_TRY(mb_recipe_load(argc, argv, &r));
    st = mb_recipe_require(r, "inspect", "model_name_or_path", "datasets", NULL);
    if (st == MB_OK)
        st = mb_recipe_check_model(r);
    if (st == MB_OK)
        st = inspect(r, &w);
    mb_recipe_free(r);
    return st;
}
