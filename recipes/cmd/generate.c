/* recipes/cmd/generate.c - `mbuyu generate`: a model continues texts or answers conversations.
 *
 *     mbuyu generate MODEL|RECIPE.yaml [key=value ...] [--chat] [--json] [--verbose]
 *
 * A model with an encoder and a decoder reads each prompt as its source and writes what it becomes.
 * num_beams searches for the likeliest answer, of any model.
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
#include "core/cpu/cpu.h"
#include "core/log.h"
#include "recipes/commands.h"
#include "recipes/config/model_path.h"
#include "recipes/data/collate.h"
#include "recipes/generate/open.h"
#include "recipes/generate/prompts.h"
#include "recipes/generate/seq2seq.h"
#include "recipes/train/device.h"
#include "recipes/train/session.h"

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

/* ---- sources ------------------------------------------------------------------------------ */

/* An encoder-decoder model, or a search. */
struct search {
    struct job *j;
    const mb_tokenizer *target;
    mb_rules rules;
    mb_search_options o;
    int64_t first; /* answer of the run's first prompt */
    int64_t each;  /* answers to a prompt of a run */
};

static mb_status found(void *arg, int64_t number, int64_t rank, const int32_t *id, int64_t n,
                       double score)
{
    struct search *s = arg;
    mb_answer a = {.prompt = s->first + number * s->each + rank, .id = id, .n = n};
    char *text = NULL;
    mb_status st = MB_OK;

    (void)score;
    a.finish = n > 0 && mb_rules_ends(&s->rules, id[n - 1]) ? MB_FINISH_END : MB_FINISH_LENGTH;
    MB_TRY(mb_answer_decode(s->target, id, n, &text, &a.n_text));
    a.text = text;
    if (s->j->json || s->j->n > 1) {
        st = print_line(s->j, &a);
    } else {
        print(s->j, text, a.n_text);
        st = print_end(s->j, &a);
    }
    mb_free(text);
    return st;
}

/* Prompts as sources, AT_A_TIME at a time; `start` begins each answer. */
static mb_status answer_sources(struct search *s, mb_engine *e, int32_t start)
{
    struct job *j = s->j;
    const int64_t runs = j->n / s->each; /* prompts that are run: more than rows when drawn */
    const mb_ids *rows[AT_A_TIME];
    mb_search_prompt prompt[AT_A_TIME];
    mb_search *search = NULL;
    mb_batch *source = NULL;
    int64_t longest = 1;
    mb_status st = MB_OK;

    for (size_t i = 0; i < j->rows.n; i++)
        longest = (int64_t)j->tokens[i].ids.n > longest ? (int64_t)j->tokens[i].ids.n : longest;
    s->o.prompts = runs < AT_A_TIME ? runs : AT_A_TIME;
    s->o.prompt_rows = s->o.prompts;
    MB_TRY(mb_source_batch(NULL, 0, longest * s->o.prompts, s->o.prompts, &source));
    source->n_seq = s->o.prompts;
    source->max_len = longest;
    MB_TRY_GOTO(mb_search_new(e, &s->o, source, &search), st, done);
    for (int64_t at = 0; at < runs && !j->no_more; at += s->o.prompts) {
        const int64_t n = runs - at < s->o.prompts ? runs - at : s->o.prompts;
        int64_t tokens = 0;

        for (int64_t i = 0; i < n; i++) {
            rows[i] = &j->tokens[(at + i) * (int64_t)j->rows.n / runs].ids;
            tokens += (int64_t)rows[i]->n;
            prompt[i] = (mb_search_prompt){.id = &start, .n = 1, .sample = (uint64_t)(at + i)};
        }
        mb_batch_free(source);
        source = NULL;
        MB_TRY_GOTO(mb_source_batch(rows, n, tokens, n, &source), st, done);
        s->first = at * s->each;
        MB_TRY_GOTO(mb_search_run(search, source, prompt, n, &s->rules, found, s), st, done);
    }
done:
    mb_search_free(search);
    mb_batch_free(source);
    return st;
}

static mb_status encode_sources(struct job *j, const mb_recipe *r, const mb_tokenizer *tok,
                                const mb_model_config *c)
{
    const mb_render_options o = {
        .tokenizer = tok, .source_prefix = r->source_prefix, .source_lang = r->source_lang};
    const int64_t most = mb_recipe_is_set(r, "max_length") ? r->max_length : c->positions;

    MB_TRY(MB_NEW_ARRAY(&j->tokens, j->rows.n));
    j->n = (int64_t)j->rows.n * r->num_samples;
    MB_TRY(MB_NEW_ARRAY(&j->line, j->n));
    for (size_t i = 0; i < j->rows.n; i++) {
        const char *text = j->rows.at[i].text;

        MB_REQUIRE(text != NULL, MB_EDATA,
                   "prompt %zu is a conversation; an encoder-decoder model reads a text", i + 1);
        MB_TRY(mb_render_source(&o, text, &j->tokens[i]));
        MB_REQUIRE(j->tokens[i].ids.n > 0 && (int64_t)j->tokens[i].ids.n <= most, MB_EDATA,
                   "prompt %zu has %zu tokens; 1 to %lld are possible (max_length, or the model's "
                   "positions)",
                   i + 1, j->tokens[i].ids.n, (long long)most);
    }
    return MB_OK;
}

static int64_t most_positions(const struct job *j, const struct search *s)
{
    int64_t n = s->o.capacity;

    for (size_t i = 0; i < j->rows.n; i++)
        n = (int64_t)j->tokens[i].ids.n > n ? (int64_t)j->tokens[i].ids.n : n;
    return n;
}

static mb_status translate(struct job *j, const mb_recipe *r, const mb_model_config *c)
{
    const char *model = r->model_name_or_path;
    struct search s = {.j = j};
    mb_tokenizer *source = NULL, *target = NULL;
    mb_device *device = NULL;
    mb_engine *e = NULL;
    mb_status st = MB_OK;

    MB_REQUIRE(c->decoder_start_id >= 0, MB_EMODEL,
               "%s: config.json has no decoder_start_token_id, with which every answer begins",
               model);
    MB_TRY_GOTO(mb_cpu_init(), st, done);
    MB_TRY_GOTO(mb_tokenizer_load(model, &source), st, done);
    MB_TRY_GOTO(mb_tokenizer_load_target(model, &target), st, done);
    MB_TRY_GOTO(mb_search_settings(r, model, target, &s.rules, &s.o), st, done);
    MB_TRY_GOTO(encode_sources(j, r, source, c), st, done);
    s.target = target;
    s.each = s.o.beam.beams > 1 ? r->num_samples : 1;
    s.o.answers = s.each;
    s.o.capacity = 1 + r->max_new_tokens < c->positions ? 1 + r->max_new_tokens : c->positions;
    MB_TRY_GOTO(mb_search_open(r, MB_HEAD_SEQ2SEQ, most_positions(j, &s), NULL, &device, &e), st,
                done);
    st = answer_sources(&s, e, (int32_t)c->decoder_start_id);
done:
    mb_rules_release(&s.rules);
    mb_engine_free(e);
    mb_device_close(device);
    mb_tokenizer_free(source);
    mb_tokenizer_free(target);
    return st;
}

/* ---- a decoder alone, by beams ------------------------------------------------------------- */

static mb_status search_rows(struct search *s, mb_engine *e)
{
    struct job *j = s->j;
    const int64_t rows = (int64_t)j->rows.n;
    mb_search_prompt prompt[AT_A_TIME];
    mb_search *search = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_search_new(e, &s->o, NULL, &search));
    for (int64_t at = 0; at < rows && !j->no_more; at += s->o.prompts) {
        const int64_t n = rows - at < s->o.prompts ? rows - at : s->o.prompts;

        for (int64_t i = 0; i < n; i++) {
            const mb_ids *ids = &j->tokens[at + i].ids;

            prompt[i] = (mb_search_prompt){
                .id = ids->id, .n = (int64_t)ids->n, .sample = (uint64_t)(at + i)};
        }
        s->first = at * s->each;
        MB_TRY_GOTO(mb_search_run(search, NULL, prompt, n, &s->rules, found, s), st, done);
    }
done:
    mb_search_free(search);
    return st;
}

/* Tokens of the longest runs of AT_A_TIME prompts. */
static int64_t most_prompt_rows(const struct job *j)
{
    int64_t most = 0;

    for (size_t at = 0; at < j->rows.n; at += AT_A_TIME) {
        int64_t n = 0;

        for (size_t i = at; i < j->rows.n && i < at + AT_A_TIME; i++)
            n += (int64_t)j->tokens[i].ids.n;
        most = n > most ? n : most;
    }
    return most;
}

/* The likeliest answers to j's encoded prompts, of at most `capacity` tokens each. */
static mb_status search_answers(struct job *j, const mb_recipe *r, int64_t capacity)
{
    struct search s = {.j = j, .target = j->writer.tokenizer, .each = r->num_samples};
    mb_device *device = NULL;
    mb_engine *e = NULL;
    mb_status st = MB_OK;

    MB_REQUIRE(
        r->stop.n == 0, MB_ENOTSUP,
        "stop texts (%s) and num_beams %lld: an answer found by beams ends with an end token",
        mb_recipe_where(r, "stop"), (long long)r->num_beams);
    MB_TRY_GOTO(mb_search_settings(r, r->model_name_or_path, s.target, &s.rules, &s.o), st, done);
    for (size_t i = 0; i < j->writer.end.n; i++)
        if (!mb_rules_ends(&s.rules, j->writer.end.id[i]))
            MB_TRY_GOTO(mb_ids_push(&s.rules.end, j->writer.end.id[i]), st, done);
    s.o.answers = s.each;
    s.o.capacity = capacity;
    s.o.prompts = (int64_t)j->rows.n < AT_A_TIME ? (int64_t)j->rows.n : AT_A_TIME;
    s.o.prompt_rows = most_prompt_rows(j);
    MB_TRY_GOTO(mb_search_open(r, MB_HEAD_CAUSAL_LM, capacity, NULL, &device, &e), st, done);
    st = search_rows(&s, e);
done:
    mb_rules_release(&s.rules);
    mb_engine_free(e);
    mb_device_close(device);
    return st;
}

/* ---- the verb ------------------------------------------------------------------------------ */

/* Is the model one with an encoder and a decoder, and which? */
static mb_status find_config(mb_recipe *r, bool *two_stacks, mb_model_config *c)
{
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_recipe_follow_adapter(r));
    MB_TRY(mb_recipe_check_model(r));
    MB_TRY(mb_model_config_doc(r->model_name_or_path, &doc));
    *two_stacks = mb_model_config_head(doc, MB_HEAD_CAUSAL_LM) == MB_HEAD_SEQ2SEQ;
    if (*two_stacks)
        st = mb_model_config_parse(doc, MB_HEAD_SEQ2SEQ, c);
    mb_json_free(doc);
    return st;
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
    mb_model_config c;
    bool two_stacks;
    mb_status st;

    argc = take_options(&j, argc, argv);
    MB_TRY(mb_recipe_load(argc, argv, &r));
    MB_TRY_GOTO(mb_recipe_require(r, "generate", "model_name_or_path", NULL), st, done);
    MB_TRY_GOTO(read_prompts(&j, r), st, done);
    MB_TRY_GOTO(find_config(r, &two_stacks, &c), st, done);
    if (two_stacks && c.mel_bins > 0) {
        st = MB_RAISE(MB_EARG, "%s reads sounds, not texts: mbuyu transcribe %s SOUND...",
                      r->model_name_or_path, r->model_name_or_path);
        goto done;
    }
    if (two_stacks) {
        st = translate(&j, r, &c);
        goto done;
    }
    MB_TRY_GOTO(mb_writer_open(r, &j.writer), st, done);
    MB_TRY_GOTO(encode_prompts(&j, r, &capacity), st, done);
    if (r->num_beams > 1) {
        st = search_answers(&j, r, capacity);
        goto done;
    }
    MB_TRY_GOTO(mb_writer_load(&j.writer, j.n < AT_A_TIME ? j.n : AT_A_TIME, capacity), st, done);
    st = answer(&j);
done:
    release(&j);
    mb_recipe_free(r);
    return st;
}
