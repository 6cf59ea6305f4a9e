/* recipes/serve/reader.c - see recipes/serve/reader.h. */
#include "recipes/serve/reader.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "recipes/data/collate.h"
#include "recipes/generate/seq2seq.h"

static mb_status make_batch(mb_reader *d)
{
    const bool sees = d->config.patch > 0;
    const int64_t tokens = sees ? mb_patches_tokens(&d->patches) : MB_READER_TOKENS;
    const int64_t seq = sees ? 1 : MB_READER_SEQ;

    d->most =
        d->config.positions > 0 && d->config.positions < tokens ? d->config.positions : tokens;
    MB_TRY(mb_batch_new(tokens, seq, &d->batch));
    if (sees)
        MB_TRY(mb_patches_reserve(&d->patches, d->batch));
    d->batch->n_seq = seq;
    d->batch->max_len = sees ? tokens : d->most;
    for (int32_t i = 0; i < MB_READER_SEQ; i++)
        d->list[i] = i;
    return mb_engine_plan_logits(d->engine, d->batch, d->batch->tokens, seq);
}

static mb_status open_reader(mb_api *a, mb_offer *o, mb_head head, mb_reader *d)
{
    const char *path = o->recipe->model_name_or_path;

    MB_TRY(mb_cpu_init());
    MB_TRY(mb_model_config_parse(o->config, head, &d->config));
    if (d->config.patch > 0) {
        d->patches = mb_patches_of(&d->config);
        MB_TRY(mb_image_processor_read(path, d->config.image_height, d->config.image_width,
                                       d->config.channels, &d->processor));
        MB_TRY(MB_NEW_ARRAY(&d->planes,
                            d->config.channels * d->config.image_height * d->config.image_width));
    } else {
        MB_TRY(mb_tokenizer_load(path, &d->tokenizer));
    }
    MB_TRY(mb_search_open(o->recipe, head, 0, mb_api_bases(a), &d->device, &d->engine));
    MB_TRY(make_batch(d));
    o->context = d->most;
    return MB_OK;
}

mb_status mb_reader_open(mb_api *a, mb_offer *o, mb_head head)
{
    mb_reader *d;

    MB_TRY(MB_NEW(&d));
    o->own = d;
    return open_reader(a, o, head, d);
}

void mb_reader_close(mb_offer *o)
{
    mb_reader *d = o->own;

    if (d == NULL)
        return;
    mb_batch_free(d->batch);
    mb_engine_free(d->engine);
    mb_device_close(d->device);
    mb_tokenizer_free(d->tokenizer);
    mb_image_work_release(&d->work);
    mb_free(d->planes);
    mb_free(d);
    o->own = NULL;
}

/* ---- requests ------------------------------------------------------------------------------ */

static mb_status encode(void *arg, const char *text, size_t n, mb_ids *out)
{
    return mb_tokenizer_encode(arg, text, n, MB_TOK_SPECIAL, out);
}

mb_status mb_reader_input(const mb_reader *d, mb_json request, mb_texts *out, mb_fault *f)
{
    return mb_texts_read(mb_json_get(request, "input"), encode, d->tokenizer, d->config.vocab,
                         d->most, out, f);
}

/* ---- forwards ----------------------------------------------------------------------------- */

struct forward {
    mb_reader *d;
    float *to; /* (n_seq, cols) */
    int64_t cols;
};

/* On the scheduler's thread. */
static mb_status forward(void *arg)
{
    struct forward *f = arg;
    mb_batch *b = f->d->batch;
    const mb_tensor rows = mb_tensor_1d(f->d->list, MB_DTYPE_I32, b->n_seq);
    mb_tensor out;

    MB_TRY(mb_engine_logits(f->d->engine, b, &rows, &out));
    MB_REQUIRE(mb_cols(&out) == f->cols, MB_EBUG, "%lld numbers per sequence where %lld were meant",
               (long long)mb_cols(&out), (long long)f->cols);
    for (int64_t i = 0; i < b->n_seq; i++)
        memcpy(f->to + i * f->cols, mb_row(&out, i), (size_t)f->cols * sizeof(float));
    return MB_OK;
}

static void append(mb_batch *b, const mb_ids *ids)
{
    const int64_t s = b->n_seq++, n = (int64_t)ids->n;

    b->start[s] = b->k_start[s] = (int32_t)b->used;
    b->len[s] = b->k_len[s] = (int32_t)n;
    for (int64_t t = 0; t < n; t++) {
        b->ids[b->used + t] = ids->id[t];
        b->position[b->used + t] = (int32_t)t;
        b->segment[b->used + t] = 0;
    }
    b->max_len = n > b->max_len ? n : b->max_len;
    b->used += n;
}

/* Rows that belong to no sequence, and sequences that are none. */
static void pad(mb_batch *b, int64_t capacity)
{
    b->tokens = (b->used + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD;
    b->tokens = b->tokens < capacity ? b->tokens : capacity;
    for (int64_t t = b->used; t < b->tokens; t++)
        b->ids[t] = b->position[t] = b->segment[t] = 0;
    for (int64_t s = b->n_seq; s < b->max_seq; s++)
        b->start[s] = b->k_start[s] = b->len[s] = b->k_len[s] = 0;
}

mb_status mb_reader_texts(mb_api *a, mb_reader *d, const mb_ids *text, int64_t n, float **out,
                          int64_t *cols)
{
    struct forward f = {.d = d};

    f.cols = *cols = d->config.head == MB_HEAD_EMBED ? d->config.width : d->config.labels;
    MB_TRY(MB_NEW_ARRAY(out, n * f.cols));
    for (int64_t at = 0; at < n;) {
        mb_batch *b = d->batch;

        b->used = b->n_seq = b->max_len = 0;
        f.to = *out + at * f.cols;
        for (; at < n && b->n_seq < MB_READER_SEQ &&
               b->used + (int64_t)text[at].n <= MB_READER_TOKENS;
             at++)
            append(b, &text[at]);
        pad(b, MB_READER_TOKENS);
        MB_TRY(mb_scheduler_call(mb_api_scheduler(a), forward, &f));
    }
    return MB_OK;
}

mb_status mb_reader_picture(mb_api *a, mb_reader *d, const void *file, size_t n, float **out,
                            int64_t *cols)
{
    struct forward f = {.d = d};
    mb_batch *b = d->batch;

    f.cols = *cols = d->config.labels;
    MB_TRY(mb_image_decode(file, n, "the picture", d->processor.alpha, &d->work.image));
    MB_TRY(mb_image_process(&d->processor, &d->work, NULL, NULL, d->planes));
    b->used = b->n_seq = 0;
    mb_patches_append(&d->patches, b, 0);
    mb_patches_cut(&d->patches, d->planes, mb_patches_rows(&d->patches, b, 0));
    MB_TRY(MB_NEW_ARRAY(out, f.cols));
    f.to = *out;
    return mb_scheduler_call(mb_api_scheduler(a), forward, &f);
}

/* ---- classes ------------------------------------------------------------------------------ */

void mb_reader_shares(const mb_reader *r, float *row, int64_t n)
{
    float most = row[0];
    double sum = 0.0;

    if (r->config.loss == MB_LOSS_SQUARED)
        return;
    if (r->config.loss == MB_LOSS_SIGMOID) {
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)(1.0 / (1.0 + exp(-(double)row[i])));
        return;
    }
    for (int64_t i = 1; i < n; i++)
        most = row[i] > most ? row[i] : most;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)row[i] - most);
    for (int64_t i = 0; i < n; i++)
        row[i] = (float)(exp((double)row[i] - most) / sum);
}

const char *mb_reader_label(const mb_offer *o, int64_t class, char text[32])
{
    const mb_json names = mb_json_get(mb_json_root(o->config), "id2label");
    const char *name;

    snprintf(text, 32, "%lld", (long long)class);
    if (mb_json_get_string(names, text, NULL, &name) == MB_OK && name != NULL)
        return name;
    mb_status_clear();
    snprintf(text, 32, "LABEL_%lld", (long long)class);
    return text;
}

/* The place of the k-th largest that is not used yet. */
static int64_t largest(const float *row, int64_t n, const uint8_t *used)
{
    int64_t best = -1;

    for (int64_t i = 0; i < n; i++)
        if (!used[i] && (best < 0 || row[i] > row[best]))
            best = i;
    return best;
}

mb_status mb_reader_write_classes(const mb_offer *o, float *row, int64_t n, int64_t index,
                                  mb_bytes *out)
{
    uint8_t *used = NULL;
    char text[32];
    const char *name;
    mb_status st = MB_OK;

    mb_reader_shares(o->own, row, n);
    MB_TRY(MB_NEW_ARRAY(&used, n));
    for (int64_t k = 0; k < n && st == MB_OK; k++) {
        const int64_t i = largest(row, n, used);

        used[i] = 1;
        name = mb_reader_label(o, i, text);
        if (k == 0) {
            st = mb_bytes_printf(out, "{\"index\":%lld,\"label\":", (long long)index);
            if (st == MB_OK)
                st = mb_bytes_json(out, name, strlen(name));
            if (st == MB_OK)
                st = mb_bytes_puts(out, ",\"probabilities\":[");
        }
        if (st == MB_OK)
            st = mb_bytes_printf(out, "%s{\"label\":", k > 0 ? "," : "");
        if (st == MB_OK)
            st = mb_bytes_json(out, name, strlen(name));
        if (st == MB_OK)
            st = mb_bytes_printf(out, ",\"probability\":%.7g}", (double)row[i]);
    }
    mb_free(used);
    return st == MB_OK ? mb_bytes_puts(out, "]}") : st;
}

/* ---- kinds -------------------------------------------------------------------------------- */

static mb_status open_vectors(mb_api *a, mb_offer *o)
{
    return mb_reader_open(a, o, MB_HEAD_EMBED);
}

static mb_status open_classes(mb_api *a, mb_offer *o)
{
    return mb_reader_open(a, o, MB_HEAD_SEQUENCE);
}

const mb_offer_ops mb_offer_vectors = {open_vectors, mb_reader_close};
const mb_offer_ops mb_offer_classes = {open_classes, mb_reader_close};
const mb_offer_ops mb_offer_pictures = {open_classes, mb_reader_close};
