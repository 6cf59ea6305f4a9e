/* recipes/train/samples.c - see recipes/train/samples.h. */
#include "recipes/train/samples.h"

#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/generate/generate.h"
#include "recipes/generate/seq2seq.h"
#include "recipes/train/answers.h"

enum {
    SAMPLES_MAX = MB_GENERATOR_SEQ_MAX,
    PROMPT = 256, /* tokens, at most */
    OF_TEXT = 16, /* tokens of a prompt where all of a row are trained */
    CHUNK = 64,   /* rows of a forward: far below a step's */
    FILE_MAX = 64 << 20,
    ENDS = 32,
};

struct mb_samples {
    mb_generator *generator;
    int64_t n, capacity, bytes;
    mb_json_doc *lines; /* of this evaluation: an array */
    int64_t row[SAMPLES_MAX];
    mb_prompt prompt[SAMPLES_MAX];
};

/* Tokens of the row that are given; 0: it is no row to ask. */
static int64_t prompt_of(const mb_store *s, int64_t row)
{
    const int64_t from = s->offset[row], n = s->offset[row + 1] - from;
    int64_t k = 0;

    while (k < n && !(s->flags[from + k] & MB_MARK_TRAINED))
        k++;
    if (k <= 1) /* a text: all of it but perhaps BOS is trained */
        k = n > 2 * OF_TEXT ? OF_TEXT : n / 2;
    return k <= PROMPT && k < n ? k : 0;
}

/* The first evaluation rows that can be asked. */
static mb_status choose(mb_job *j, struct mb_samples *x)
{
    const mb_store *s = mb_answer_store(j);
    mb_step step;

    MB_TRY(mb_sampler_step(j->data->eval, 0, &step));
    for (int64_t i = 0; i < step.n_rows && x->n < j->recipe->eval_samples; i++) {
        const int64_t row = step.row[i], n = prompt_of(s, row);

        if (n == 0)
            continue;
        x->row[x->n] = row;
        x->prompt[x->n++] = (mb_prompt){.id = s->ids + s->offset[row], .n = n};
    }
    return MB_OK;
}

static bool wanted(const mb_job *j)
{
    return j->recipe->eval_samples > 0 && j->task->id == MB_TASK_CAUSAL_LM &&
           j->data->eval != NULL && (j->use == MB_JOB_TRAIN || j->use == MB_JOB_PLAN);
}

mb_status mb_samples_open(mb_job *j)
{
    const mb_model_config *c = &j->engine->model->config;
    const int64_t most = PROMPT + j->recipe->max_new_tokens,
                  positions = j->engine->model->max_positions;
    struct mb_samples *x;

    if (!wanted(j) || j->comm->rank != 0 || j->samples != NULL)
        return MB_OK;
    MB_REQUIRE(j->recipe->zero_stage < 3, MB_ENOTSUP,
               "eval_samples: answers need the whole model on a rank; use zero_stage 2 or below");
    MB_TRY(MB_NEW(&x));
    j->samples = x;
    MB_TRY(choose(j, x));
    if (x->n == 0)
        return MB_OK;
    x->capacity = most < positions ? most : positions;
    x->bytes = mb_dtype_bytes(j->engine->model->dtype,
                              2 * c->layers * x->n * x->capacity * c->kv_heads * c->head_dim);
    return mb_generator_new(
        j->engine, j->data->tokenizer,
        &(mb_generator_options){.n_seq = x->n, .capacity = x->capacity, .chunk = CHUNK},
        &x->generator);
}

void mb_samples_close(mb_job *j)
{
    if (j->samples == NULL)
        return;
    mb_generator_free(j->samples->generator);
    mb_free(j->samples);
    j->samples = NULL;
}

int64_t mb_samples_bytes(const mb_job *j)
{
    return j->samples != NULL ? j->samples->bytes : 0;
}

/* ---- writing ------------------------------------------------------------------------------ */

static mb_status set_text(const mb_job *j, const int32_t *id, int64_t n, mb_json line,
                          const char *key)
{
    char *text = NULL;
    size_t bytes;
    mb_status st;

    MB_TRY(mb_answer_decode(j->data->tokenizer, id, n, &text, &bytes));
    st = mb_json_set_string(line, key, text);
    if (st != MB_OK) { /* a letter that was cut */
        mb_status_clear();
        st = mb_json_set_string(line, key, "");
    }
    mb_free(text);
    return st;
}

static mb_status say(void *arg, const mb_answer *a)
{
    mb_job *j = arg;
    const struct mb_samples *x = j->samples;
    const mb_store *s = mb_answer_store(j);
    const int64_t row = x->row[a->prompt], n = x->prompt[a->prompt].n, from = s->offset[row];
    mb_json line;

    MB_TRY(mb_json_set_object(mb_json_root(x->lines), NULL, &line));
    MB_TRY(mb_json_set_int(line, "step", j->at.step));
    MB_TRY(mb_json_set_int(line, "row", row));
    MB_TRY(set_text(j, s->ids + from, n, line, "prompt"));
    MB_TRY(set_text(j, a->id, a->n, line, "text"));
    return set_text(j, s->ids + from + n, s->offset[row + 1] - from - n, line, "reference");
}

/* EOS, and the special tokens that the rows' answers end with. */
static int64_t find_ends(const mb_job *j, int32_t ends[ENDS])
{
    const mb_store *s = mb_answer_store(j);
    const int64_t eos = mb_tokenizer_role(j->data->tokenizer, MB_TOKEN_EOS);
    int64_t n = 0;

    if (eos >= 0)
        ends[n++] = (int32_t)eos;
    for (int64_t i = 0; i < j->samples->n; i++) {
        const int64_t row = j->samples->row[i];

        for (int64_t t = s->offset[row + 1] - 1; t >= s->offset[row] && n < ENDS; t--)
            if ((s->flags[t] & MB_MARK_TRAINED) && (s->flags[t] & MB_MARK_SPECIAL)) {
                ends[n++] = s->ids[t];
                break;
            }
    }
    return n;
}

/* Lines of the file that are of steps before this one; `kept` is theirs. */
static mb_status keep_before(const char *path, int64_t step, char **kept, size_t *n)
{
    size_t at = 0;

    *n = 0;
    if (!mb_path_is_file(path))
        return mb_strdup("", kept);
    MB_TRY(mb_file_read(path, FILE_MAX, kept, n));
    while (at < *n) {
        const char *end = memchr(*kept + at, '\n', *n - at);
        mb_json_doc *doc;
        int64_t of = -1;

        if (end == NULL)
            break;
        if (mb_json_parse(*kept + at, (size_t)(end - *kept) - at, "samples", 0, MB_EIO, &doc) ==
            MB_OK) {
            if (mb_json_get_int(mb_json_root(doc), "step", -1, &of) != MB_OK)
                of = -1;
            mb_json_free(doc);
        }
        mb_status_clear();
        if (of < 0 || of >= step)
            break;
        at = (size_t)(end - *kept) + 1;
    }
    *n = at;
    return MB_OK;
}

/* The lines kept and the new ones, under the file's name once all are there. */
static mb_status write_lines(mb_job *j, mb_json lines)
{
    char path[MB_PATH_MAX], *kept = NULL;
    mb_newfile f = {.fd = -1};
    int64_t at;
    size_t n;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, j->recipe->output_dir, "logs"));
    MB_TRY(mb_path_mkdirs(path));
    MB_TRY(mb_path_join(path, sizeof path, j->recipe->output_dir, "logs/samples.jsonl"));
    MB_TRY(keep_before(path, j->at.step, &kept, &n));
    MB_TRY_GOTO(mb_newfile_open(path, &f), st, done);
    MB_TRY_GOTO(mb_pwrite_all(f.fd, kept, n, 0, path), st, done);
    at = (int64_t)n;
    for (mb_json_it it = mb_json_first(lines); mb_json_more(&it); mb_json_next(&it)) {
        char *text;

        MB_TRY_GOTO(mb_json_text(it.value, 0, &text, &n), st, done);
        text[n] = '\n'; /* in the place of its final zero */
        st = mb_pwrite_all(f.fd, text, n + 1, at, path);
        mb_free(text);
        if (st != MB_OK)
            goto done;
        at += (int64_t)n + 1;
    }
    MB_TRY_GOTO(mb_newfile_sync(&f), st, done);
    st = mb_newfile_publish(&f);
done:
    mb_newfile_abandon(&f);
    mb_free(kept);
    return st;
}

static mb_status write_samples(mb_job *j)
{
    struct mb_samples *x = j->samples;
    int32_t ends[ENDS];
    mb_status st;

    if (x == NULL || x->generator == NULL)
        return MB_OK;
    const mb_generate_options o = {.max_new_tokens = j->recipe->max_new_tokens,
                                   .pick = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                                   .end = ends,
                                   .n_end = find_ends(j, ends),
                                   .arg = j,
                                   .on_answer = say};
    MB_TRY(mb_json_doc_new_array("samples", &x->lines));
    st = mb_generator_run(x->generator, x->prompt, x->n, &o);
    if (st == MB_OK)
        st = write_lines(j, mb_json_root(x->lines));
    mb_json_free(x->lines);
    x->lines = NULL;
    return st;
}

mb_status mb_samples_write(mb_job *j)
{
    return wanted(j) ? mb_comm_agree(j->comm, write_samples(j)) : MB_OK;
}
