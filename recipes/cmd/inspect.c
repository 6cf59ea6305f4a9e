/* recipes/cmd/inspect.c - `mbuyu inspect`: rows as they will be trained, and what became of the rest.
 *
 *     mbuyu inspect recipe.yaml [key=value ...] [--rows N] [--row K] [--tokens]
 *
 * The first N rows (3) or row K, then the counts. Data of which nothing would be trained is refused
 * as in train (exit code 3).
 */
#include "recipes/data/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/commands.h"
#include "recipes/config/model_path.h"
#include "recipes/train/data.h"

struct wishes {
    int64_t rows, row; /* row -1: the first ones */
    bool tokens;
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

static mb_status show(const mb_inspect *to, const struct wishes *w, const mb_store *s,
                      const mb_tokenizer *tok)
{
    const int64_t from = w->row >= 0 ? w->row : 0;
    const int64_t to_row = w->row >= 0 ? w->row + 1 : w->rows < s->n_rows ? w->rows : s->n_rows;

    MB_REQUIRE(w->row < s->n_rows, MB_EARG, "--row %lld: the rows are 0 to %lld", (long long)w->row,
               (long long)s->n_rows - 1);
    for (int64_t r = from; r < to_row; r++)
        MB_TRY(mb_inspect_row(to, s, tok, r));
    mb_inspect_counts(to, s);
    return MB_OK;
}

static mb_status adopt_labels(mb_recipe *r, const mb_task *task)
{
    mb_json_doc *config = NULL;
    mb_status st;

    if (!task->labelled) /* then a tokenizer is all that is looked at */
        return MB_OK;
    MB_TRY(mb_model_config_doc(r->model_name_or_path, &config));
    st = mb_data_adopt_labels(r, task, config);
    mb_json_free(config);
    return st;
}

static mb_status inspect(mb_recipe *r, const struct wishes *w)
{
    const mb_task *task = mb_task_find(r->task);
    mb_inspect to = mb_inspect_to(stdout);
    mb_store_options o;
    mb_source *source = NULL;
    mb_tokenizer *tok = NULL;
    mb_store *store = NULL;
    mb_status st;

    to.tokens = w->tokens;
    MB_TRY(adopt_labels(r, task));
    MB_TRY(mb_tokenizer_load(r->model_name_or_path, &tok));
    MB_TRY_GOTO(mb_data_store_options(r, &r->datasets, task, tok, &o, &source), st, done);
    MB_TRY_GOTO(mb_store_build(&o, mb_comm_self(), &store), st, done);
    st = show(&to, w, store, tok);
done:
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
