/* autograd/token_rows.c - rows of single tokens, trained beside a frozen table; see autograd/lora.h.
 *
 * PEFT gives the rows to the module that is named and, where the head is tied to the input embedding, to
 * the head as well (huggingface/peft, src/peft/utils/other.py, set_additional_trainable_modules); here both are
 * one table. Alone (peft_type TRAINABLE_TOKENS) it stores the rows of a tied head a second time.
 *
 * Encoder-decoder models have one embedding for both sides. With LoRA that is one module where the head is
 * tied, too; where the head is a table of its own PEFT leaves the sides' copies untrained, alone it stores four copies,
 * and of Marian it knows the encoder's copy only: these are refused.
 */
#include <stdio.h>
#include <string.h>

#include "autograd/lora.h"
#include "core/alloc.h"

enum { NAME_MAX_BYTES = 320 };

static const char *const key = "trainable_token_indices";

/* ---- which table -------------------------------------------------------------------------- */

static bool counts_tokens(const mb_weight_row *row)
{
    return strcmp(row->shape, "V D") == 0;
}

static mb_weight *find_table(const mb_model *m, const char *module)
{
    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];

        if (w->row == NULL || !counts_tokens(w->row))
            continue;
        if (module == NULL ? (w->row->flags & MB_W_EMBED) != 0 : mb_weight_is_called(w, module))
            return w;
    }
    return NULL;
}

/* The head that this model has in its embedding; its row NULL: none. */
static mb_weight tied_head(const mb_model *m)
{
    const mb_head h = m->config.head;
    const bool tied = m->config.tied && !mb_head_is_task(h) && h != MB_HEAD_EMBED;

    for (const mb_weight_row *r = m->family->globals; tied && r->name != NULL; r++)
        if (counts_tokens(r) && (r->flags & MB_W_HEAD) != 0)
            return (mb_weight){.name = r->name, .row = r};
    return (mb_weight){.row = NULL};
}

static bool names_tied_head(const mb_model *m, const char *module)
{
    const mb_weight head = tied_head(m);

    return head.row != NULL && module != NULL && mb_weight_is_called(&head, module);
}

static bool same_ids(const mb_token_wish *a, const mb_token_wish *b)
{
    return a->n == b->n && memcmp(a->id, b->id, (size_t)a->n * sizeof *a->id) == 0;
}

/* The embedding's rows are the tied head's. Others than these it cannot have. */
static mb_status check_tied(const mb_model *m, const mb_lora_options *o, const mb_token_wish *wish)
{
    for (int i = 0; i < o->n_tokens; i++)
        if (find_table(m, o->tokens[i].module) != NULL && same_ids(&o->tokens[i], wish))
            return MB_OK;
    return MB_RAISE(
        MB_ENOTSUP,
        "%s: '%s' is tied to the embedding of this %s model and has the same rows; name "
        "the embedding",
        key, wish->module, m->family->name);
}

/* What PEFT has no way to store so that it reads it again. */
static mb_status check_sides(const mb_model *m, const mb_lora_options *o)
{
    const char *name = m->family->name;

    if (m->family->dec_layer == NULL || m->config.mel_bins > 0)
        return MB_OK; /* of sound only the decoder has tokens */
    MB_REQUIRE(
        m->config.tied, MB_ENOTSUP,
        "%s: both sides of this %s model share one embedding and its head has another table; "
        "PEFT would train neither side's",
        key, name);
    MB_REQUIRE(o->r > 0, MB_ENOTSUP,
               "%s alone: PEFT stores a copy for each side of a %s model; use finetuning_type lora",
               key, name);
    MB_REQUIRE(strcmp(name, "marian") != 0 || m->config.pre_norm /* M2M-100 */, MB_ENOTSUP,
               "%s: PEFT gives rows to a Marian model's encoder alone; use finetuning_type full",
               key);
    return MB_OK;
}

static mb_status check_table(const mb_model *m, const mb_lora_options *o, const mb_weight *w)
{
    MB_REQUIRE(!w->trained, MB_EARG, "%s: %s is trained whole already", key, w->name);
    MB_REQUIRE(w->token_rows == NULL, MB_EARG, "%s: %s is named twice", key, w->name);
    MB_TRY(check_sides(m, o));
    MB_REQUIRE(o->r > 0 || !mb_head_is_task(m->config.head), MB_ENOTSUP,
               "%s alone: PEFT has no place beside them for the head of a classifier; use "
               "finetuning_type lora",
               key);
    return MB_OK;
}

/* ---- adding ------------------------------------------------------------------------------- */

static mb_status check_ids(const mb_weight *w, const mb_token_wish *wish)
{
    const int64_t v = w->value.dim[0];
    bool *seen = NULL;
    mb_status st = MB_OK;

    MB_REQUIRE(wish->n > 0, MB_EARG, "%s names no token of %s", key, w->name);
    MB_TRY(MB_NEW_ARRAY(&seen, v));
    for (int64_t i = 0; i < wish->n && st == MB_OK; i++) {
        const int32_t id = wish->id[i];

        if (id < 0 || id >= v)
            st = MB_RAISE(MB_EARG, "%s: %d is no row of %s, which has %lld", key, (int)id, w->name,
                          (long long)v);
        else if (seen[id])
            st = MB_RAISE(MB_EARG, "%s: %d is there twice", key, (int)id);
        else
            seen[id] = true;
    }
    mb_free(seen);
    return st;
}

/* Runs of neighbours; `run` NULL: only counts them. */
static int find_runs(const mb_token_wish *wish, mb_row_run *run)
{
    int n = 0;

    for (int64_t i = 0, k; i < wish->n; i = k) {
        for (k = i + 1; k < wish->n && wish->id[k] == wish->id[k - 1] + 1;)
            k++;
        if (run != NULL)
            run[n] = (mb_row_run){.first = wish->id[i], .row = i, .n = k - i};
        n++;
    }
    return n;
}

static void name_rows(const mb_weight *w, bool alone, char *out, size_t size)
{
    char module[NAME_MAX_BYTES];

    mb_weight_module(w, module, sizeof module);
    snprintf(out, size, "base_model.model.%s.%strainable_tokens_delta", module,
             alone ? "" : "token_adapter.");
}

static mb_status name_twin(mb_model *m, const mb_weight *w, mb_token_rows *r)
{
    const mb_weight head = tied_head(m);
    char name[NAME_MAX_BYTES + 64];

    if (head.row == NULL || (w->row->flags & MB_W_EMBED) == 0)
        return MB_OK;
    name_rows(&head, true, name, sizeof name);
    return mb_arena_strdup(m->strings, name, &r->twin);
}

static mb_status attach(mb_model *m, const mb_lora_options *o, mb_weight *w,
                        const mb_token_wish *wish)
{
    const int64_t dim[2] = {wish->n, w->value.dim[1]};
    const int n_runs = find_runs(wish, NULL);
    char name[NAME_MAX_BYTES + 64];
    void *rows, *id, *run;
    mb_token_rows *r;

    MB_TRY(mb_arena_take(m->strings, sizeof *r, &rows));
    MB_TRY(mb_arena_take(m->strings, (size_t)wish->n * sizeof *wish->id, &id));
    MB_TRY(mb_arena_take(m->strings, (size_t)n_runs * sizeof *r->run, &run));
    memcpy(id, wish->id, (size_t)wish->n * sizeof *wish->id);
    find_runs(wish, run);
    r = rows;
    *r = (mb_token_rows){.id = id, .run = run, .n_runs = n_runs};
    if (o->r == 0)
        MB_TRY(name_twin(m, w, r));
    name_rows(w, o->r == 0, name, sizeof name);
    MB_TRY(mb_model_append(m, name, 2, dim, &r->values));
    r->values->trained = true;
    w->token_rows = r;
    return MB_OK;
}

mb_status mb_model_add_token_rows(mb_model *m, const mb_lora_options *o)
{
    for (int i = 0; i < o->n_tokens; i++) {
        const mb_token_wish *wish = &o->tokens[i];
        mb_weight *w = find_table(m, wish->module);

        if (w == NULL && names_tied_head(m, wish->module)) {
            MB_TRY(check_tied(m, o, wish));
            continue;
        }
        MB_REQUIRE(w != NULL, MB_EARG, "%s: this %s model has no table of tokens%s%s", key,
                   m->family->name, wish->module != NULL ? " called " : "",
                   wish->module != NULL ? wish->module : "");
        MB_TRY(check_table(m, o, w));
        MB_TRY(check_ids(w, wish));
        MB_TRY(attach(m, o, w, wish));
    }
    return MB_OK;
}

/* ---- values ------------------------------------------------------------------------------- */

/* The rows out of the table, or into it. */
static mb_status move_rows(const mb_model *m, const mb_weight *table, bool into)
{
    const mb_token_rows *r = table->token_rows;
    const int64_t d = table->value.dim[1];
    float *row = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&row, d));
    for (int64_t i = 0; i < r->values->value.dim[0] && st == MB_OK; i++) {
        const int64_t at = r->id[i] * d;

        st = into ? mb_weight_read(m, r->values, i * d, d, row)
                  : mb_weight_read(m, table, at, d, row);
        if (st == MB_OK)
            st = into ? mb_weight_write(m, table, at, d, row)
                      : mb_weight_write(m, r->values, i * d, d, row);
    }
    mb_free(row);
    return st;
}

static mb_status move_all(const mb_model *m, bool into)
{
    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].token_rows != NULL)
            MB_TRY(move_rows(m, &m->weight[i], into));
    return MB_OK;
}

mb_status mb_model_init_token_rows(const mb_model *m)
{
    return move_all(m, false);
}

mb_status mb_model_write_token_rows(const mb_model *m)
{
    return move_all(m, true);
}
