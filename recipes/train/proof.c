/* recipes/train/proof.c - see recipes/train/proof.h. */
#include "recipes/train/proof.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/data/collate.h"

enum { FILE_MOST = 1 << 20 };

/* Texts that no data set of a recipe is made of: written for this. */
static const char *const texts[] = {
    "Mvua ilinyesha usiku kucha, na asubuhi watoto walicheza kwenye matope karibu na mbuyu mkubwa.",
    "The old bridge was closed for repairs, so the farmers carried their maize across the river in boats.",
    "Bei ya mahindi imepanda mara mbili tangu Januari, kutoka shilingi 1,250 hadi 2,500 kwa kilo.",
    "Water boils at 100 degrees Celsius at sea level; at 3000 metres it boils at about 90 degrees.",
    "Le marché ouvre à six heures du matin et ferme quand le dernier client est parti.",
    "def area(width, height):\n    return width * height  # square metres\n",
    "Mwalimu aliwauliza wanafunzi: \"Ni nani anayeweza kueleza kwa nini anga ni la buluu?\"",
    "List three things a traveller should carry in the dry season: water, a hat, and patience.",
};

struct mb_proof {
    const mb_tokenizer *tokenizer;
    mb_head head;
    mb_dtype computed_in; /* what the logits were computed in */
    char *own;            /* the lines of a file, zeros between */
    char *run;            /* whose rows held out these are; NULL: they are texts */
    const char *text[MB_PROOF_TEXTS];
    mb_ids row[MB_PROOF_TEXTS];
    int n_texts, n_rows;
    float *logits; /* (lines, width) */
    int64_t lines, width;
};

/* ---- rows --------------------------------------------------------------------------------- */

static mb_status read_lines(mb_proof *p, const char *file)
{
    size_t n;

    MB_TRY(mb_file_read_as(file, MB_EARG, FILE_MOST, &p->own, &n));
    for (char *at = p->own; p->n_texts < MB_PROOF_TEXTS && *at != '\0';) {
        char *end = strchr(at, '\n');
        if (end != NULL)
            *end = '\0';
        if (*at != '\0')
            p->text[p->n_texts++] = at;
        at = end != NULL ? end + 1 : at + strlen(at);
    }
    MB_REQUIRE(p->n_texts > 0, MB_EARG, "%s holds no line of text", file);
    return MB_OK;
}

/* Rows of at most `most` tokens, MB_PROOF_TOKENS together. */
static mb_status cut_rows(mb_proof *p, int64_t positions)
{
    int64_t left = MB_PROOF_TOKENS;
    int kept = 0;

    for (int i = 0; i < p->n_rows; i++) {
        mb_ids *r = &p->row[i];
        const int64_t most = positions < left ? positions : left;

        r->n = (int64_t)r->n > most ? (size_t)most : r->n;
        left -= (int64_t)r->n;
        if (r->n < 2) {
            mb_ids_release(r);
            continue;
        }
        const mb_ids row = *r;
        *r = (mb_ids){0};
        p->row[kept++] = row;
    }
    p->n_rows = kept;
    MB_REQUIRE(kept > 0, MB_EARG, "there is no text of two tokens to compare an export on");
    return MB_OK;
}

static mb_status make_rows(mb_proof *p, const char *file, const mb_held_out *held,
                           int64_t positions)
{
    if (file != NULL)
        MB_TRY(read_lines(p, file));
    for (size_t i = 0; file == NULL && i < sizeof texts / sizeof texts[0]; i++)
        p->text[p->n_texts++] = texts[i];
    if (file == NULL && held != NULL && held->n > 0) {
        for (; p->n_rows < held->n && p->n_rows < MB_PROOF_TEXTS; p->n_rows++)
            MB_TRY(
                mb_ids_append(&p->row[p->n_rows], held->row[p->n_rows].id, held->row[p->n_rows].n));
        MB_TRY(mb_strdup(held->run, &p->run));
        return cut_rows(p, positions);
    }
    for (; p->n_rows < p->n_texts; p->n_rows++) {
        const char *text = p->text[p->n_rows];
        MB_TRY(mb_tokenizer_encode(p->tokenizer, text, strlen(text), MB_TOK_SPECIAL,
                                   &p->row[p->n_rows]));
    }
    return cut_rows(p, positions);
}

/* ---- forward ------------------------------------------------------------------------------ */

/* Rows one after the other; first >= 0: that token in front of each, whose last is left out. */
static void fill(mb_batch *b, const mb_proof *p, int32_t first)
{
    b->used = 0;
    b->max_len = 0;
    for (int s = 0; s < p->n_rows; s++) {
        const mb_ids *r = &p->row[s];

        b->start[s] = b->k_start[s] = (int32_t)b->used;
        b->len[s] = b->k_len[s] = (int32_t)r->n;
        for (size_t i = 0; i < r->n; i++) {
            b->ids[b->used] = first < 0 ? r->id[i] : i == 0 ? first : r->id[i - 1];
            b->position[b->used] = (int32_t)i;
            b->used++;
        }
        if (b->len[s] > b->max_len)
            b->max_len = b->len[s];
    }
    b->n_seq = p->n_rows;
    b->tokens = mb_shape_class(b->used, b->used);
}

static int64_t lines_of(const mb_engine *e, const mb_batch *b)
{
    const mb_head h = e->model->config.head;

    return h == MB_HEAD_SEQUENCE || h == MB_HEAD_EMBED ? b->n_seq : b->used;
}

static mb_status run_batch(mb_engine *e, mb_batch *b, float **logits, int64_t *lines,
                           int64_t *width)
{
    mb_tensor y;

    MB_TRY(mb_engine_reserve_for(e, b, false, 0));
    MB_TRY(mb_engine_logits(e, b, NULL, &y));
    *lines = lines_of(e, b);
    *width = mb_cols(&y);
    MB_TRY(mb_alloc((size_t)(*lines * *width) * sizeof(float), "logits", (void **)logits));
    for (int64_t i = 0; i < *lines; i++)
        memcpy(*logits + i * *width, mb_row(&y, i), (size_t)*width * sizeof(float));
    return MB_OK;
}

static mb_status run(mb_engine *e, const mb_proof *p, float **logits, int64_t *lines,
                     int64_t *width)
{
    const bool two_sides = e->model->config.head == MB_HEAD_SEQ2SEQ;
    mb_batch *b = NULL, *source = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_batch_new(MB_PROOF_TOKENS, MB_PROOF_TEXTS, &b), st, done);
    fill(b, p, two_sides ? (int32_t)e->model->config.decoder_start_id : -1);
    if (two_sides) {
        MB_TRY_GOTO(mb_batch_new(MB_PROOF_TOKENS, MB_PROOF_TEXTS, &source), st, done);
        fill(source, p, -1);
        b->source = source;
    }
    st = run_batch(e, b, logits, lines, width);
done:
    mb_batch_free(source);
    mb_batch_free(b);
    return st;
}

mb_status mb_proof_take(mb_engine *e, const mb_tokenizer *t, const char *file,
                        const mb_held_out *held, int64_t most, mb_proof **out)
{
    const mb_model_config *c = &e->model->config;
    mb_proof *p;
    mb_status st;

    *out = NULL;
    if (c->family->sees_images || c->mel_bins > 0 || t == NULL)
        return MB_OK;
    if (most == 0 || most > c->positions)
        most = c->positions;
    if (e->model->max_positions > 0 && most > e->model->max_positions)
        most = e->model->max_positions;
    MB_TRY(MB_NEW(&p));
    p->tokenizer = t;
    p->head = c->head;
    p->computed_in = e->model->dtype;
    st = make_rows(p, file, held, most);
    if (st == MB_OK)
        st = run(e, p, &p->logits, &p->lines, &p->width);
    if (st == MB_OK)
        *out = p;
    else
        mb_proof_free(p);
    return st;
}

void mb_proof_free(mb_proof *p)
{
    if (p == NULL)
        return;
    for (int i = 0; i < MB_PROOF_TEXTS; i++)
        mb_ids_release(&p->row[i]);
    mb_free(p->own);
    mb_free(p->run);
    mb_free(p->logits);
    mb_free(p);
}

/* ---- comparison --------------------------------------------------------------------------- */

/* How far apart the two may be, by the type that was written or computed in: the rougher of them. */
static const struct allowed {
    mb_dtype dtype;
    double divergence; /* mean, in nats */
    double perplexity; /* factor */
    double distance;   /* of numbers that are no logits of tokens: relative, root mean square */
    double logit;      /* times the largest logit, or 1; 0: not judged */
} allowances[] = {
    {MB_DTYPE_F32, 1e-6, 1.0005, 1e-4, 1e-3}, {MB_DTYPE_F16, 1e-3, 1.01, 1e-2, 0.0},
    {MB_DTYPE_BF16, 2e-2, 1.05, 5e-2, 0.0},   {MB_DTYPE_Q8_0, 2e-2, 1.05, 5e-2, 0.0},
    {MB_DTYPE_Q4_0, 0.6, 2.0, 0.6, 0.0},      {MB_DTYPE_Q4_1, 0.6, 2.0, 0.6, 0.0},
    {MB_DTYPE_Q4_K, 0.6, 2.0, 0.6, 0.0},
};

struct distance {
    double logit, largest;     /* difference; of the model's own */
    double squares, of_own;    /* sums: of differences, of the model's own */
    double divergence;         /* mean */
    double loss[2], predicted; /* sums of -log p: own, written; how many */
};

static double log_sum(const float *x, int64_t n)
{
    double most = (double)x[0], sum = 0.0;

    for (int64_t i = 1; i < n; i++)
        most = (double)x[i] > most ? (double)x[i] : most;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

static double divergence(const float *a, const float *b, int64_t n)
{
    const double za = log_sum(a, n), zb = log_sum(b, n);
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++) {
        const double p = (double)a[i] - za;
        sum += exp(p) * (p - ((double)b[i] - zb));
    }
    return sum;
}

static bool predicts_tokens(mb_head h)
{
    return h == MB_HEAD_CAUSAL_LM || h == MB_HEAD_SEQ2SEQ || h == MB_HEAD_MASKED_LM;
}

static void add_losses(const mb_proof *p, const float *x, int which, struct distance *d)
{
    int64_t line = 0;

    for (int s = 0; s < p->n_rows; s++)
        for (size_t i = 0; i < p->row[s].n; i++, line++) {
            const size_t next = p->head == MB_HEAD_CAUSAL_LM ? i + 1 : i;
            const float *at = x + line * p->width;

            if (next == p->row[s].n)
                continue;
            d->loss[which] += log_sum(at, p->width) - (double)at[p->row[s].id[next]];
            d->predicted += which == 0;
        }
}

static struct distance measure(const mb_proof *p, const float *written)
{
    const bool tokens = predicts_tokens(p->head);
    struct distance d = {0};

    for (int64_t i = 0; i < p->lines * p->width; i++) {
        const double own = (double)p->logits[i], off = fabs((double)written[i] - own);
        /* NaN counts as far */
        d.logit = off <= d.logit ? d.logit : isnan(off) ? INFINITY : off;
        d.largest = fabs(own) > d.largest ? fabs(own) : d.largest;
        d.squares += isnan(off) ? INFINITY : off * off;
        d.of_own += own * own;
    }
    for (int64_t l = 0; tokens && l < p->lines; l++)
        d.divergence += divergence(p->logits + l * p->width, written + l * p->width, p->width) /
                        (double)p->lines;
    if (p->head == MB_HEAD_CAUSAL_LM || p->head == MB_HEAD_SEQ2SEQ) {
        add_losses(p, p->logits, 0, &d);
        add_losses(p, written, 1, &d);
    }
    return d;
}

static double perplexity(const struct distance *d, int which)
{
    return exp(d->loss[which] / d->predicted);
}

static void say(const mb_proof *p, const struct distance *d)
{
    char line[512];
    int n = snprintf(line, sizeof line,
                     "read again and compared on %d %s%.200s, %lld places: largest "
                     "difference %.2g of %.3g",
                     p->n_rows, p->run != NULL ? "rows held out by " : "texts",
                     p->run != NULL ? p->run : "", (long long)p->lines, d->logit, d->largest);

    if (predicts_tokens(p->head))
        n += snprintf(line + n, sizeof line - (size_t)n, ", divergence %.2g", d->divergence);
    if (d->predicted > 0.0)
        snprintf(line + n, sizeof line - (size_t)n, ", perplexity %.4g -> %.4g (%+.3f %%)",
                 perplexity(d, 0), perplexity(d, 1),
                 100.0 * (perplexity(d, 1) / perplexity(d, 0) - 1.0));
    mb_log_info("%s", line);
}

static mb_status judge(const mb_proof *p, const struct distance *d, mb_dtype dtype)
{
    const struct allowed *a = &allowances[0];
    const double scale = d->largest > 1.0 ? d->largest : 1.0;

    for (size_t i = 0; i < sizeof allowances / sizeof allowances[0]; i++)
        if (allowances[i].dtype == dtype || allowances[i].dtype == p->computed_in)
            a = &allowances[i]; /* the last that fits */
    MB_REQUIRE(
        a->logit == 0.0 || d->logit <= a->logit * scale, MB_ENUM,
        "what was exported is not the model: a logit differs by %.3g, %.3g is allowed (check=false "
        "keeps it)",
        d->logit, a->logit * scale);
    if (!predicts_tokens(p->head)) {
        const double apart = sqrt(d->squares / (d->of_own > 0.0 ? d->of_own : 1.0));
        MB_REQUIRE(
            apart <= a->distance, MB_ENUM,
            "what was exported is not the model: it is %.3g away, %.3g is allowed (check=false "
            "keeps it)",
            apart, a->distance);
        return MB_OK;
    }
    MB_REQUIRE(
        d->divergence <= a->divergence, MB_ENUM,
        "what was exported is not the model: divergence %.3g, %.3g is allowed for %s (check=false "
        "keeps it)",
        d->divergence, a->divergence, mb_dtype_name(dtype));
    MB_REQUIRE(
        d->predicted == 0.0 || perplexity(d, 1) <= a->perplexity * perplexity(d, 0), MB_ENUM,
        "what was exported is not the model: perplexity %.4g instead of %.4g (check=false keeps "
        "it)",
        perplexity(d, 1), perplexity(d, 0));
    return MB_OK;
}

static mb_status same_ids(const mb_proof *p, const mb_tokenizer *t)
{
    mb_ids own = {0}, written = {0};
    mb_status st = MB_OK;

    for (int i = 0; i < p->n_texts && st == MB_OK; i++) {
        const size_t n = strlen(p->text[i]);

        mb_ids_clear(&own);
        mb_ids_clear(&written);
        st = mb_tokenizer_encode(p->tokenizer, p->text[i], n, MB_TOK_SPECIAL, &own);
        if (st == MB_OK)
            st = mb_tokenizer_encode(t, p->text[i], n, MB_TOK_SPECIAL, &written);
        if (st == MB_OK &&
            (own.n != written.n || memcmp(own.id, written.id, own.n * sizeof *own.id) != 0))
            st = MB_RAISE(
                MB_ENUM,
                "what was exported is not the model: its tokenizer makes %zu ids of \"%.60s\", "
                "the model's %zu, or others (check=false keeps it)",
                written.n, p->text[i], own.n);
    }
    mb_ids_release(&own);
    mb_ids_release(&written);
    return st;
}

static mb_status check_tokenizer(const mb_proof *p, const char *path, const char *own)
{
    mb_tokenizer *t = NULL;
    mb_status st;

    MB_TRY(mb_tokenizer_load(path, &t));
    st = same_ids(p, t);
    const char *written = mb_tokenizer_chat_template(t);
    if (own == NULL)
        own = mb_tokenizer_chat_template(p->tokenizer);
    if (st == MB_OK && own != NULL && (written == NULL || strcmp(own, written) != 0))
        st = MB_RAISE(MB_ENUM, "what was exported has another chat template than the model "
                               "(check=false keeps it)");
    mb_tokenizer_free(t);
    return st;
}

mb_status mb_proof_hold(const mb_proof *p, const mb_session_options *o, const char *tokenizer,
                        const char *chat_template, mb_dtype dtype)
{
    mb_session_options quiet = *o;
    mb_engine *e = NULL;
    float *written = NULL;
    int64_t lines = 0, width = 0;
    struct distance d = {0};
    mb_status st = MB_OK;

    if (tokenizer != NULL)
        MB_TRY(check_tokenizer(p, tokenizer, chat_template));
    quiet.quiet = true;
    quiet.head = p->head;
    quiet.trained = MB_TRAINED_NOTHING;
    MB_TRY(mb_session_open(&quiet, &e, NULL));
    MB_TRY_GOTO(run(e, p, &written, &lines, &width), st, done);
    if (lines != p->lines || width != p->width) {
        st = MB_RAISE(
            MB_ENUM,
            "what was exported is not the model: %lld x %lld logits instead of %lld x %lld",
            (long long)lines, (long long)width, (long long)p->lines, (long long)p->width);
        goto done;
    }
    d = measure(p, written);
    say(p, &d);
    st = judge(p, &d, dtype);
done:
    mb_free(written);
    mb_engine_free(e);
    return st;
}
