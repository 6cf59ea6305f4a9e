/* recipes/metrics/ngrams.c - see ngrams.h.
 *
 * The places of a sequence are sorted once by the symbols that follow (as in a suffix array, but
 * only as far as the longest n-gram): then the n-grams of every order lie in order, equal ones
 * beside each other, and two sequences are compared by walking along both. No hashing, so nothing is
 * equal by chance.
 */
#include "recipes/metrics/ngrams.h"

#include <stdlib.h>

#include "core/alloc.h"

struct sorted {
    const mb_symbols *of;
    size_t *place;
    size_t next; /* of the walk */
};

static int compare(const mb_symbols *a, size_t i, const mb_symbols *b, size_t j, size_t longest)
{
    for (size_t k = 0; k < longest; k++) {
        const bool a_ends = i + k == a->n, b_ends = j + k == b->n;
        if (a_ends || b_ends)
            return b_ends - a_ends;
        if (a->at[i + k] != b->at[j + k])
            return a->at[i + k] < b->at[j + k] ? -1 : 1;
    }
    return 0;
}

static int by_symbols(const void *a, const void *b, void *of)
{
    return compare(of, *(const size_t *)a, of, *(const size_t *)b, MB_NGRAM_ORDERS);
}

static mb_status sort_places(const mb_symbols *of, struct sorted *s)
{
    s->of = of;
    MB_TRY(MB_NEW_ARRAY(&s->place, of->n));
    for (size_t i = 0; i < of->n; i++)
        s->place[i] = i;
    qsort_r(s->place, of->n, sizeof *s->place, by_symbols, (void *)(uintptr_t)of);
    return MB_OK;
}

/* Goes on to the next n-gram of n symbols; false at the end. */
static bool to_ngram(struct sorted *s, size_t n)
{
    while (s->next < s->of->n && s->place[s->next] + n > s->of->n)
        s->next++;
    return s->next < s->of->n;
}

/* How often the n-gram at `place` of `said` is in s, which is walked forward to it. */
static int64_t count_in(struct sorted *s, const mb_symbols *said, size_t place, size_t n)
{
    int64_t count = 0;
    int order;

    while (to_ngram(s, n) && (order = compare(s->of, s->place[s->next], said, place, n)) <= 0) {
        count += order == 0;
        s->next++;
    }
    return count;
}

static int64_t matches(struct sorted *said, struct sorted *reference, int n_references, size_t n)
{
    int64_t match = 0;

    said->next = 0;
    for (int r = 0; r < n_references; r++)
        reference[r].next = 0;
    while (to_ngram(said, n)) {
        const size_t place = said->place[said->next];
        int64_t most = 0;
        const int64_t here = count_in(said, said->of, place, n);
        for (int r = 0; r < n_references; r++) {
            const int64_t there = count_in(&reference[r], said->of, place, n);
            most = there > most ? there : most;
        }
        match += here < most ? here : most;
    }
    return match;
}

mb_status mb_ngram_matches(const mb_symbols *said, const mb_symbols *reference, int n_references,
                           int orders, int64_t *match)
{
    struct sorted own = {0}, *other = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&other, n_references));
    MB_TRY_GOTO(sort_places(said, &own), st, done);
    for (int r = 0; r < n_references; r++)
        MB_TRY_GOTO(sort_places(&reference[r], &other[r]), st, done);
    for (int k = 0; k < orders; k++)
        match[k] += matches(&own, other, n_references, (size_t)k + 1);
done:
    for (int r = 0; r < n_references; r++)
        mb_free(other[r].place);
    mb_free(other);
    mb_free(own.place);
    return st;
}

int64_t mb_ngram_count(const mb_symbols *s, int n)
{
    return s->n >= (size_t)n ? (int64_t)s->n - n + 1 : 0;
}
