/* recipes/train/answer_span.c - answers found in texts.
 *
 * As transformers' example for SQuAD chooses them: of each window the SPAN_BEST likeliest first and last
 * tokens, all pairs of them that are in order, inside the context and at most MOST_TOKENS long, scored by
 * the sum of their logits; over all windows of a context the best pair wins. Where the data has questions
 * without an answer, "" wins over the best pair when the first token of the row scores higher.
 *
 * A window's pairs go with its row; mb_answer_join puts the windows of a context together.
 */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/train/answers.h"

enum { SPAN_BEST = 20, MOST_TOKENS = 30 };

/* The row that begins the context of `row`: the first of its windows. */
static int64_t first_window(const mb_store *s, int64_t row)
{
    while (row > 0 && mb_store_media(s, row) == NULL)
        row--;
    return row;
}

/* The SPAN_BEST largest of a column, the earlier first among equals. */
static int64_t largest(const mb_tensor *logits, int64_t from, int64_t n, int64_t col, int64_t *best)
{
    int64_t found = 0;

    for (int64_t t = 0; t < n; t++) {
        const float x = mb_row(logits, from + t)[col];
        int64_t k = found;

        while (k > 0 && mb_row(logits, from + best[k - 1])[col] < x)
            k--;
        if (k == SPAN_BEST)
            continue;
        if (found < SPAN_BEST)
            found++;
        memmove(best + k + 1, best + k, (size_t)(found - 1 - k) * sizeof *best);
        best[k] = t;
    }
    return found;
}

struct span {
    int64_t first, last;
    double score;
};

/* The best pair of a window; first -1: it has none. */
static struct span best_span(const mb_tensor *logits, int64_t from, int64_t n,
                             const int32_t *places)
{
    int64_t starts[SPAN_BEST], ends[SPAN_BEST];
    const int64_t n_starts = largest(logits, from, n, 0, starts),
                  n_ends = largest(logits, from, n, 1, ends);
    struct span best = {.first = -1};

    for (int64_t a = 0; a < n_starts; a++) {
        for (int64_t b = 0; b < n_ends; b++) {
            const int64_t i = starts[a], k = ends[b];
            const double score =
                (double)mb_row(logits, from + i)[0] + (double)mb_row(logits, from + k)[1];

            if (places[2 * i] < 0 || places[2 * k] < 0 || k < i || k - i + 1 > MOST_TOKENS)
                continue;
            if (best.first < 0 || score > best.score)
                best = (struct span){i, k, score};
        }
    }
    return best;
}

static mb_status say(const mb_job *j, const mb_tensor *logits, int64_t from, int64_t row,
                     mb_predictions *out)
{
    const mb_store *s = mb_answer_store(j);
    const int32_t *places = s->extra + s->extra_offset[row] + 2;
    const int64_t n = s->offset[row + 1] - s->offset[row], first = first_window(s, row);
    const struct span best = best_span(logits, from, n, places);
    mb_json object;

    MB_TRY(mb_predictions_row(out, first, &object));
    MB_TRY(mb_json_set_real(object, "no_answer",
                            (double)mb_row(logits, from)[0] + (double)mb_row(logits, from)[1]));
    if (row == first)
        MB_TRY(mb_json_set_string(object, "about", mb_store_media(s, first)));
    if (best.first >= 0) {
        MB_TRY(mb_json_set_real(object, "score", best.score));
        MB_TRY(mb_json_set_int(object, "from", places[2 * best.first]));
        MB_TRY(mb_json_set_int(object, "to", places[2 * best.last + 1]));
    }
    return mb_answer_group(j, row, object);
}

mb_status mb_answer_span(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    const mb_batch *b = j->data->batch;
    int32_t *list = NULL;
    mb_tensor logits;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&list, b->used));
    for (int64_t t = 0; t < b->used; t++)
        list[t] = (int32_t)t;
    const mb_tensor rows = mb_tensor_1d(list, MB_DTYPE_I32, b->used);
    st = mb_engine_logits(j->engine, b, &rows, &logits);
    for (int64_t q = 0; q < b->n_seq && st == MB_OK; q++)
        st = say(j, &logits, b->start[q], micro->row[q], out);
    mb_free(list);
    return st;
}

/* ---- windows of one context ---------------------------------------------------------------- */

struct context {
    mb_json_doc *line, *about;
    double score, no_answer;
    int64_t from, to;
    bool any;
    char *group;
};

static void forget(struct context *c)
{
    mb_json_free(c->about);
    mb_free(c->group);
    *c = (struct context){0};
}

static mb_status take_window(mb_json w, struct context *c)
{
    const char *about = NULL, *group = NULL;
    double score, no_answer;

    MB_TRY(mb_json_get_string(w, "about", NULL, &about));
    MB_TRY(mb_json_get_string(w, "group", NULL, &group));
    MB_TRY(mb_json_get_real(w, "no_answer", 0.0, &no_answer));
    MB_TRY(mb_json_get_real(w, "score", 0.0, &score));
    if (about != NULL)
        MB_TRY(mb_json_parse(about, strlen(about), "a question", 0, MB_EBUG, &c->about));
    if (group != NULL && c->group == NULL)
        MB_TRY(mb_strdup(group, &c->group));
    if (about != NULL || no_answer < c->no_answer)
        c->no_answer = no_answer;
    if (!mb_json_is_set(mb_json_get(w, "score")) || (c->any && score <= c->score))
        return MB_OK;
    c->any = true;
    c->score = score;
    MB_TRY(mb_json_get_int(w, "from", 0, &c->from));
    return mb_json_get_int(w, "to", 0, &c->to);
}

static mb_status answer_text(const struct context *c, bool may_be_none, char **out)
{
    const char *context;

    if (!c->any || (may_be_none && c->no_answer > c->score))
        return mb_strdup("", out);
    MB_TRY(mb_json_string(mb_json_get(mb_json_root(c->about), "context"), &context, NULL));
    return mb_asprintf(out, "%.*s", (int)(c->to - c->from), context + c->from);
}

static mb_status say_context(const struct context *c, int64_t row, bool may_be_none,
                             mb_predictions *out)
{
    const mb_json about = mb_json_root(c->about), answers = mb_json_get(about, "answers");
    mb_json object, list;
    char *text = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_predictions_row(out, row, &object));
    MB_TRY(answer_text(c, may_be_none, &text));
    MB_TRY_GOTO(mb_json_set(object, "question", mb_json_get(about, "question")), st, done);
    MB_TRY_GOTO(mb_json_set_string(object, "prediction", text), st, done);
    MB_TRY_GOTO(mb_json_set_real(object, "score", c->score), st, done);
    if (c->group != NULL)
        MB_TRY_GOTO(mb_json_set_string(object, "group", c->group), st, done);
    if (!mb_json_is_set(answers))
        goto done;
    MB_TRY_GOTO(mb_json_set_array(object, "reference", &list), st, done);
    for (mb_json_it it = mb_json_first(answers); mb_json_more(&it); mb_json_next(&it))
        MB_TRY_GOTO(mb_json_set(list, NULL, it.value), st, done);
    if (mb_json_count(answers) == 0)
        st = mb_json_set_string(list, NULL, "");
done:
    mb_free(text);
    return st;
}

/* Is there a question that is known to have no answer? */
static bool some_have_none(const mb_store *s)
{
    for (int64_t r = 0; r < s->n_rows; r++) {
        const char *about = mb_store_media(s, r);
        if (about != NULL && strstr(about, "\"answers\":[]") != NULL)
            return true;
    }
    return false;
}

mb_status mb_answer_join(mb_job *j, mb_predictions *windows, mb_predictions *out)
{
    const bool may_be_none = some_have_none(mb_answer_store(j));
    struct context c = {0};
    int64_t row = -1;
    mb_status st = MB_OK;

    for (int64_t i = 0; i < mb_predictions_count(windows) && st == MB_OK; i++) {
        mb_json_doc *doc = NULL;
        int64_t own;
        size_t n;
        const char *line = mb_predictions_line(windows, i, &n);

        MB_TRY_GOTO(mb_json_parse(line, n, "a prediction", 0, MB_EBUG, &doc), st, done);
        st = mb_json_get_int(mb_json_root(doc), "row", -1, &own);
        if (st == MB_OK && own != row && row >= 0) {
            st = say_context(&c, row, may_be_none, out);
            forget(&c);
        }
        row = own;
        if (st == MB_OK)
            st = take_window(mb_json_root(doc), &c);
        mb_json_free(doc);
    }
    if (st == MB_OK && row >= 0)
        st = say_context(&c, row, may_be_none, out);
done:
    forget(&c);
    return st;
}
