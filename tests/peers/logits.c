/* tests/peers/logits.c - a model's logits as JSON lines, for scripts that compare them.
 *
 *     logits MODEL
 *
 * Each line of standard input is a row of ids, as JSON: [504, 45654]. Each line printed is
 * {"first": [8 logits], "last": [8 logits], "top": [[id, logit], 8 times]}: the first eight of the
 * vocabulary behind the first and the last token, and the eight largest behind the last.
 */
#include <stdio.h>
#include <string.h>

#include "core/cpu/cpu.h"
#include "core/json.h"
#include "recipes/data/collate.h"
#include "recipes/train/session.h"

enum { MOST = 4096, SHOWN = 8 };

static void print_list(const char *name, const float *x)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < SHOWN; i++)
        printf("%s%.9g", i > 0 ? ", " : "", (double)x[i]);
    printf("], ");
}

static void print_top(const float *x, int64_t n)
{
    int64_t best[SHOWN];

    printf("\"top\": [");
    for (int k = 0; k < SHOWN; k++) {
        best[k] = -1;
        for (int64_t i = 0; i < n; i++) {
            bool taken = false;

            for (int j = 0; j < k; j++)
                taken = taken || best[j] == i;
            if (!taken && (best[k] < 0 || x[i] > x[best[k]]))
                best[k] = i;
        }
        printf("%s[%lld, %.9g]", k > 0 ? ", " : "", (long long)best[k], (double)x[best[k]]);
    }
    printf("]}\n");
}

static mb_status read_ids(const char *line, mb_batch *b)
{
    mb_json_doc *doc;
    int64_t id;
    mb_status st = MB_OK;

    MB_TRY(mb_json_parse(line, strlen(line), "standard input", 0, MB_EARG, &doc));
    b->used = 0;
    for (mb_json_it it = mb_json_first(mb_json_root(doc)); mb_json_more(&it); mb_json_next(&it)) {
        if (b->used == MOST) {
            st = MB_RAISE(MB_EARG, "more than %d ids", MOST);
            goto done;
        }
        MB_TRY_GOTO(mb_json_int(it.value, &id), st, done);
        b->position[b->used] = (int32_t)b->used;
        b->ids[b->used++] = (int32_t)id;
    }
    if (b->used == 0)
        st = MB_RAISE(MB_EARG, "no ids");
done:
    mb_json_free(doc);
    return st;
}

static mb_status one_row(mb_engine *e, mb_batch *b, const char *line)
{
    int32_t at[2] = {0, 0};
    mb_tensor rows = mb_tensor_1d(at, MB_DTYPE_I32, 2), y;

    MB_TRY(read_ids(line, b));
    b->tokens = b->used;
    b->len[0] = b->k_len[0] = at[1] = (int32_t)b->used;
    at[1]--;
    MB_TRY(mb_engine_plan_logits(e, b, b->tokens, 2));
    MB_TRY(mb_engine_logits(e, b, &rows, &y));
    printf("{");
    print_list("first", mb_row(&y, 0));
    print_list("last", mb_row(&y, 1));
    print_top(mb_row(&y, 1), mb_cols(&y));
    return fflush(stdout) == 0 ? MB_OK : MB_RAISE(MB_EIO, "standard output cannot be written");
}

static mb_status all_rows(const char *path)
{
    const mb_session_options o = {
        .path = path, .quiet = true, .engine = {.threads = mb_default_threads()}};
    static char line[MOST * 8];
    mb_batch *b = NULL;
    mb_engine *e = NULL;
    mb_status st;

    MB_TRY(mb_cpu_init());
    MB_TRY(mb_session_open(&o, &e, NULL));
    MB_TRY_GOTO(mb_batch_new(MOST, 1, &b), st, done);
    b->n_seq = 1;
    b->max_len = MOST;
    while (fgets(line, sizeof line, stdin) != NULL)
        MB_TRY_GOTO(one_row(e, b, line), st, done);
done:
    mb_batch_free(b);
    mb_engine_free(e);
    return st;
}

int main(int argc, char **argv)
{
    const mb_status st =
        argc == 2 ? all_rows(argv[1]) : MB_RAISE(MB_EARG, "usage: logits MODEL < rows of ids");

    if (st != MB_OK)
        fprintf(stderr, "%s\n", mb_status_sentence());
    return mb_status_exit_code(st);
}
