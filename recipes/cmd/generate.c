/* recipes/cmd/generate.c - `mbuyu generate`: a model continues texts or answers conversations.
 *
 *     mbuyu generate MODEL|RECIPE.yaml [key=value ...] [--chat] [--json] [--verbose]
 *
 * Prompts come from prompt=..., from prompts_file=... (recipes/generate/prompts.h) or, when neither
 * is given, from standard input as one text. A text is continued as it is; --chat makes it the
 * message of a user. One answer is printed as it comes; several, or one with --json, as JSON lines in
 * the order of the prompts:
 *
 *     {"prompt": ..., "completion": ..., "tokens": [ids], "finish_reason": "stop" | "length" |
 *      "context"}
 *
 * "messages" stands in place of "prompt" for a conversation, and "sample" numbers the answers to one
 * prompt when num_samples is above 1. "tokens" includes the end token. "reference" is the completion
 * that a row of prompts_file brought: `mbuyu score` reads such lines.
 */
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/commands.h"
#include "recipes/generate/open.h"
#include "recipes/generate/prompts.h"

enum { AT_A_TIME = 8 };

struct job {
    bool chat, json, verbose;
    mb_writer writer;
    mb_prompt_rows rows;
    mb_tokens *tokens;  /* (rows.n) */
    mb_prompt *prompts; /* (n): num_samples for each row */
    int64_t n;
    char **line;          /* (n) answers that wait for an earlier one */
    int64_t printed;      /* lines */
    bool newline;         /* the text printed last ended with one */
    sig_atomic_t no_more; /* nobody reads what is printed */
};

/* ---- prompts ------------------------------------------------------------------------------ */

/* Takes what is not the recipe's out of argv. */
static int take_options(struct job *j, int argc, char **argv)
{
    const struct {
        const char *name;
        bool *set;
    } options[] = {{"--chat", &j->chat}, {"--json", &j->json}, {"--verbose", &j->verbose}};
    int n = 0;

    for (int i = 0; i < argc; i++) {
        bool taken = false;

        for (size_t k = 0; k < sizeof options / sizeof options[0]; k++)
            if (strcmp(argv[i], options[k].name) == 0)
                *options[k].set = taken = true;
        if (!taken)
            argv[n++] = argv[i];
    }
    return n;
}

static mb_status read_file(struct job *j, const mb_recipe *r)
{
    mb_field_map *field = NULL;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&field, r->field_map.n + 1));
    for (int64_t i = 0; i < r->field_map.n; i++)
        field[i] = (mb_field_map){r->field_map.name[i], r->field_map.value[i]};
    st = mb_prompt_rows_read(&j->rows, r->prompts_file, field, (int)r->field_map.n, j->chat);
    mb_free(field);
    return st;
}

static mb_status read_prompts(struct job *j, const mb_recipe *r)
{
    MB_REQUIRE(r->prompt == NULL || r->prompts_file == NULL, MB_EARG,
               "prompt and prompts_file are both given (%s, %s); one is enough",
               mb_recipe_where(r, "prompt"), mb_recipe_where(r, "prompts_file"));
    if (r->prompt != NULL && strstr(r->prompt, "\\n") != NULL)
        mb_log_warn("prompt has a backslash and an n, which is no line break; with double quotes "
                    "inside it is one: prompt='\"first line\\nsecond\"'");
    if (r->prompt != NULL)
        return mb_prompt_rows_add(&j->rows, r->prompt, strlen(r->prompt), j->chat);
    if (r->prompts_file != NULL)
        return read_file(j, r);
    MB_REQUIRE(
        !isatty(STDIN_FILENO), MB_EARG,
        "nothing to answer: give prompt=TEXT, prompts_file=FILE or a text on standard input");
    MB_TRY(mb_prompt_rows_stdin(&j->rows, j->chat));
    MB_REQUIRE(j->rows.at[0].text == NULL || j->rows.at[0].text[0] != '\0', MB_EDATA,
               "standard input is empty: give prompt=TEXT, prompts_file=FILE or a text there");
    return MB_OK;
}

/* Tokens of all prompts; *capacity is the room the longest of them and its answer need. */
static mb_status encode_prompts(struct job *j, const mb_recipe *r, int64_t *capacity)
{
    const int64_t context = mb_writer_context(&j->writer, j->writer.positions);
    int64_t longest = 0;

    MB_TRY(MB_NEW_ARRAY(&j->tokens, j->rows.n));
    j->n = (int64_t)j->rows.n * r->num_samples;
    MB_TRY(MB_NEW_ARRAY(&j->prompts, j->n));
    MB_TRY(MB_NEW_ARRAY(&j->line, j->n));
    for (size_t i = 0; i < j->rows.n; i++) {
        const mb_record rec = mb_prompt_row_record(&j->rows.at[i]);
        const mb_status st = mb_writer_encode(&j->writer, &rec, &j->tokens[i]);
        const int64_t n = (int64_t)j->tokens[i].ids.n;

        if (st != MB_OK)
            return mb_status_prefix(st, "prompt %zu: ", i + 1);
        MB_REQUIRE(n > 0, MB_EDATA, "prompt %zu is empty: there is nothing to continue", i + 1);
        MB_REQUIRE(n < context, MB_EDATA,
                   "prompt %zu has %lld tokens; with its answer it must fit into %lld (max_length, "
                   "or the model's positions)",
                   i + 1, (long long)n, (long long)context);
        longest = n > longest ? n : longest;
        for (int64_t s = 0; s < r->num_samples; s++) {
            const int64_t at = (int64_t)i * r->num_samples + s;

            j->prompts[at] = (mb_prompt){.id = j->tokens[i].ids.id, .n = n, .sample = (uint64_t)at};
        }
    }
    *capacity = longest + r->max_new_tokens < context ? longest + r->max_new_tokens : context;
    return MB_OK;
}

/* ---- answers ------------------------------------------------------------------------------ */

static void print(struct job *j, const char *text, size_t n)
{
    if (n > 0)
        j->newline = text[n - 1] == '\n';
    if (!mb_writer_print(text, n))
        j->no_more = 1;
}

static mb_status print_piece(void *arg, int64_t prompt, const char *text, size_t n)
{
    print(arg, text, n);
    return MB_OK;
}

static mb_status print_end(void *arg, const mb_answer *a)
{
    struct job *j = arg;

    if (!j->newline)
        print(j, "\n", 1);
    return MB_OK;
}

static mb_status make_line(struct job *j, const mb_answer *a, mb_json o)
{
    const int64_t samples = j->n / (int64_t)j->rows.n;
    const mb_prompt_row *row = &j->rows.at[a->prompt / samples];
    mb_json ids;

    if (row->text != NULL)
        MB_TRY(mb_json_set_string(o, "prompt", row->text));
    else
        MB_TRY(mb_json_set(o, "messages", mb_json_get(mb_json_root(row->messages), "messages")));
    if (samples > 1)
        MB_TRY(mb_json_set_int(o, "sample", a->prompt % samples));
    MB_TRY(mb_json_set_string(o, "completion", a->text));
    if (row->reference != NULL)
        MB_TRY(mb_json_set_string(o, "reference", row->reference));
    MB_TRY(mb_json_set_array(o, "tokens", &ids));
    for (int64_t i = 0; i < a->n; i++)
        MB_TRY(mb_json_set_int(ids, NULL, a->id[i]));
    MB_TRY(mb_json_set_string(o, "finish_reason", mb_finish_name(a->finish)));
    return mb_json_text(o, 0, &j->line[a->prompt], NULL);
}

static mb_status print_line(void *arg, const mb_answer *a)
{
    struct job *j = arg;
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_json_doc_new("answer", &doc));
    st = make_line(j, a, mb_json_root(doc));
    mb_json_free(doc);
    if (st != MB_OK)
        return st;
    for (; j->printed < j->n && j->line[j->printed] != NULL; j->printed++) {
        char **line = &j->line[j->printed];

        print(j, *line, strlen(*line));
        print(j, "\n", 1);
        mb_free(*line);
        *line = NULL;
    }
    return MB_OK;
}

static mb_status answer(struct job *j)
{
    mb_generate_options o = mb_writer_options(&j->writer);

    o.arg = j;
    o.cancel = &j->no_more;
    if (j->json || j->n > 1) {
        o.on_answer = print_line;
    } else {
        o.on_text = print_piece;
        o.on_answer = print_end;
    }
    MB_TRY(mb_generator_run(j->writer.generator, j->prompts, j->n, &o));
    if (j->verbose)
        mb_writer_print_speed(&j->writer);
    return MB_OK;
}

static void release(struct job *j)
{
    for (size_t i = 0; j->tokens != NULL && i < j->rows.n; i++)
        mb_tokens_release(&j->tokens[i]);
    for (int64_t i = 0; j->line != NULL && i < j->n; i++)
        mb_free(j->line[i]);
    mb_free(j->tokens);
    mb_free(j->prompts);
    mb_free(j->line);
    mb_prompt_rows_release(&j->rows);
    mb_writer_close(&j->writer);
}

mb_status mb_cmd_generate(int argc, char **argv)
{
    struct job j = {0};
    mb_recipe *r = NULL;
    int64_t capacity = 0;
    mb_status st;

    argc = take_options(&j, argc, argv);
    MB_TRY(mb_recipe_load(argc, argv, &r));
    MB_TRY_GOTO(mb_recipe_require(r, "generate", "model_name_or_path", NULL), st, done);
    MB_TRY_GOTO(read_prompts(&j, r), st, done);
    MB_TRY_GOTO(mb_writer_open(r, &j.writer), st, done);
    MB_TRY_GOTO(encode_prompts(&j, r, &capacity), st, done);
    MB_TRY_GOTO(mb_writer_load(&j.writer, j.n < AT_A_TIME ? j.n : AT_A_TIME, capacity), st, done);
    st = answer(&j);
done:
    release(&j);
    mb_recipe_free(r);
    return st;
}
