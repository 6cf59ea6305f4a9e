/* recipes/metrics/edits.c - see edits.h. */
#include "recipes/metrics/edits.h"

#include "core/alloc.h"
#include "recipes/metrics/metric.h"

/* Cells whose directions are kept at once, and the least size worth cutting: rapidfuzz's bounds. */
enum { WHOLE_CELLS = 1 << 22, WHOLE_REFERENCE = 65, WHOLE_SAID = 10 };
enum { UP = 1, DOWN = 2 }; /* of a cell against its neighbour before in the reference */

/* A stretch of a sequence. */
struct part {
    const int32_t *at;
    int64_t n;
};

static int64_t least(int64_t a, int64_t b, int64_t c)
{
    const int64_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* Row of `said` symbol x: distance[i] for the first i of the reference, in place. */
static void next_row(struct part reference, int32_t x, int64_t *distance, uint8_t *direction)
{
    int64_t corner = distance[0]++;

    for (int64_t i = 1; i <= reference.n; i++) {
        const int64_t above = distance[i];
        distance[i] = least(above + 1, distance[i - 1] + 1, corner + (reference.at[i - 1] != x));
        corner = above;
        if (direction != NULL)
            direction[i - 1] = (uint8_t)((distance[i] > distance[i - 1] ? UP : 0) |
                                         (distance[i] < distance[i - 1] ? DOWN : 0));
    }
}

static void first_row(int64_t n, int64_t *distance)
{
    for (int64_t i = 0; i <= n; i++)
        distance[i] = i;
}

static void walk_back(struct part reference, struct part said, const uint8_t *direction,
                      mb_edits *out)
{
    int64_t i = reference.n, j = said.n;

    while (i > 0 && j > 0) {
        if (direction[(j - 1) * reference.n + i - 1] & UP) {
            i--;
            out->deletions++;
        } else if (--j > 0 && (direction[(j - 1) * reference.n + i - 1] & DOWN)) {
            out->insertions++;
        } else {
            i--;
            if (reference.at[i] == said.at[j])
                out->hits++;
            else
                out->substitutions++;
        }
    }
    out->deletions += i;
    out->insertions += j;
}

static mb_status align_whole(struct part reference, struct part said, mb_edits *out)
{
    int64_t *distance = NULL;
    uint8_t *direction = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(MB_NEW_ARRAY(&distance, reference.n + 1), st, done);
    MB_TRY_GOTO(
        mb_alloc_array((size_t)reference.n, (size_t)said.n, "an alignment", (void **)&direction),
        st, done);
    first_row(reference.n, distance);
    for (int64_t j = 0; j < said.n; j++)
        next_row(reference, said.at[j], distance, direction + j * reference.n);
    walk_back(reference, said, direction, out);
done:
    mb_free(direction);
    mb_free(distance);
    return st;
}

static struct part strip(struct part *a, struct part *b, mb_edits *out)
{
    while (a->n > 0 && b->n > 0 && a->at[0] == b->at[0]) {
        a->at++, a->n--;
        b->at++, b->n--;
        out->hits++;
    }
    while (a->n > 0 && b->n > 0 && a->at[a->n - 1] == b->at[b->n - 1]) {
        a->n--, b->n--;
        out->hits++;
    }
    return *a;
}

static void reverse(const struct part *p, int32_t *out)
{
    for (int64_t i = 0; i < p->n; i++)
        out[i] = p->at[p->n - 1 - i];
}

/* Where to cut the reference when `said` is cut in its middle: the first place with least edits.
 * head, tail: (reference.n + 1); turned: room for both sequences. *edits: of the two halves. */
static int64_t cut_of(struct part reference, struct part said, int64_t *head, int64_t *tail,
                      int32_t *turned, int64_t edits[2])
{
    const int64_t middle = said.n / 2;
    const struct part back = {turned, reference.n};
    int32_t *said_back = turned + reference.n;
    int64_t best = 1;

    reverse(&reference, turned);
    reverse(&said, said_back);
    first_row(reference.n, head);
    first_row(reference.n, tail);
    for (int64_t j = 0; j < middle; j++)
        next_row(reference, said.at[j], head, NULL);
    for (int64_t j = 0; j < said.n - middle; j++)
        next_row(back, said_back[j], tail, NULL);
    for (int64_t i = 2; i <= reference.n; i++)
        if (head[i] + tail[reference.n - i] < head[best] + tail[reference.n - best])
            best = i;
    edits[0] = head[best];
    edits[1] = tail[reference.n - best];
    return best;
}

/* `most`: a bound of the edits; with it rapidfuzz sizes the band of cells it keeps. */
static mb_status align(struct part reference, struct part said, int64_t most, mb_edits *out)
{
    int64_t *rows = NULL, edits[2], cut;
    int32_t *turned = NULL;
    mb_status st = MB_OK;

    strip(&reference, &said, out);
    const int64_t longer = reference.n > said.n ? reference.n : said.n;
    most = most < longer ? most : longer;
    const int64_t band = 2 * most + 1 < reference.n ? 2 * most + 1 : reference.n;
    if (2 * band * said.n / 8 < WHOLE_CELLS / 4 || reference.n < WHOLE_REFERENCE ||
        said.n < WHOLE_SAID)
        return align_whole(reference, said, out);
    MB_TRY_GOTO(MB_NEW_ARRAY(&rows, 2 * (reference.n + 1)), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&turned, reference.n + said.n), st, done);
    cut = cut_of(reference, said, rows, rows + reference.n + 1, turned, edits);
    const int64_t middle = said.n / 2;
    MB_TRY_GOTO(
        align((struct part){reference.at, cut}, (struct part){said.at, middle}, edits[0], out), st,
        done);
    MB_TRY_GOTO(align((struct part){reference.at + cut, reference.n - cut},
                      (struct part){said.at + middle, said.n - middle}, edits[1], out),
                st, done);
done:
    mb_free(rows);
    mb_free(turned);
    return st;
}

mb_status mb_edits_count(const mb_symbols *reference, const mb_symbols *said, mb_edits *out)
{
    const struct part a = {reference->at, (int64_t)reference->n}, b = {said->at, (int64_t)said->n};

    return align(a, b, INT64_MAX / 4, out);
}

double mb_error_rate(const mb_edits *e)
{
    const int64_t symbols = e->hits + e->substitutions + e->deletions;
    const double edits = (double)(e->substitutions + e->deletions + e->insertions);

    return symbols > 0 ? edits / (double)symbols : edits;
}

mb_status mb_spoken_words(const char *text, bool lower, mb_vocab *words, mb_symbols *letters,
                          mb_symbols *out)
{
    size_t n = 0, from = 0;

    MB_TRY(mb_letters_of(text, lower, letters));
    for (size_t i = 0; i < letters->n;) { /* two spaces or more are one */
        size_t j = i;
        while (j < letters->n && mb_is_space(letters->at[j]))
            j++;
        letters->at[n++] = j - i >= 2 ? ' ' : letters->at[i];
        i = j - i >= 2 ? j : i + 1;
    }
    letters->n = n;
    mb_letters_strip(letters);
    out->n = 0;
    for (size_t i = 0; i <= letters->n; i++)
        if (i == letters->n || letters->at[i] == ' ') {
            if (i > from)
                MB_TRY(mb_word_push(words, letters, from, i, out));
            from = i + 1;
        }
    return MB_OK;
}

/* ---- of rows ------------------------------------------------------------------------------ */

struct sides {
    mb_vocab *words;
    mb_symbols letters, side[2];
};

static mb_status symbols_of(const char *text, bool of_words, bool lower, struct sides *s,
                            mb_symbols *out)
{
    if (of_words)
        return mb_spoken_words(text, lower, s->words, &s->letters, out);
    MB_TRY(mb_letters_of(text, lower, out));
    mb_letters_strip(out);
    return MB_OK;
}

/* Of several references the one with the lowest rate counts, the first of equals. */
static mb_status count_row(const mb_answers *r, const mb_answer_row *row, bool of_words, bool lower,
                           struct sides *s, mb_edits *sum)
{
    mb_edits best = {0};

    MB_TRY(symbols_of(mb_answers_text(r, r->id[row->said.first]), of_words, lower, s, &s->side[1]));
    for (int64_t k = 0; k < row->right.n; k++) {
        mb_edits e = {0};
        MB_TRY(symbols_of(mb_answers_text(r, r->id[row->right.first + k]), of_words, lower, s,
                          &s->side[0]));
        MB_TRY(mb_edits_count(&s->side[0], &s->side[1], &e));
        if (k == 0 || mb_error_rate(&e) < mb_error_rate(&best))
            best = e;
    }
    sum->hits += best.hits;
    sum->substitutions += best.substitutions;
    sum->deletions += best.deletions;
    sum->insertions += best.insertions;
    return MB_OK;
}

static mb_status error_rate(const mb_answers *r, const char *name, bool of_words,
                            const mb_metric_options *o, mb_scores *out)
{
    struct sides s = {0};
    mb_edits sum = {0};
    mb_status st = MB_OK;

    MB_TRY(mb_vocab_new(1024, &s.words));
    for (int64_t i = 0; i < r->n; i++)
        MB_TRY_GOTO(count_row(r, &r->row[i], of_words, o->lowercase, &s, &sum), st, done);
    mb_scores_add(out, name, mb_error_rate(&sum));
    mb_scores_count(out, "hits", sum.hits);
    mb_scores_count(out, "substitutions", sum.substitutions);
    mb_scores_count(out, "deletions", sum.deletions);
    mb_scores_count(out, "insertions", sum.insertions);
done:
    mb_vocab_free(s.words);
    mb_symbols_release(&s.letters);
    mb_symbols_release(&s.side[0]);
    mb_symbols_release(&s.side[1]);
    return st;
}

mb_status mb_metric_wer(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return error_rate(rows, "wer", true, o, out);
}

mb_status mb_metric_cer(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return error_rate(rows, "cer", false, o, out);
}
