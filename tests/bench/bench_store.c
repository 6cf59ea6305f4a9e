/* tests/bench/bench_store.c - how fast rows become tokens.
 *
 *     bench_store MODEL ROWS [max_length]         (OMP_NUM_THREADS, and under mpirun)
 *
 * Builds the token store of a file three times, without a cache, and prints the best time and the
 * digest of the ids, which is the same on any number of threads and ranks.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/log.h"
#include "dist/launch.h"
#include "recipes/data/store.h"

static mb_status bench(const mb_launch *l, const char *model, const char *rows, int64_t max_length)
{
    const mb_source source = {.path = rows};
    mb_store_options o = mb_store_defaults();
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];
    mb_tokenizer *tok;
    double best = 1e30;

    const double begin = mb_clock();

    MB_TRY(mb_tokenizer_load(model, &tok));
    const double loaded = mb_clock() - begin;

    o.source = &source;
    o.n_sources = 1;
    o.render.tokenizer = tok;
    o.max_length = max_length;
    for (int round = 0; round < 3; round++) {
        const double start = mb_clock();
        mb_store *s;

        MB_TRY(mb_store_build(&o, l->world, &s));
        const double seconds = mb_clock() - start;

        best = seconds < best ? seconds : best;
        if (round == 2 && l->rank == 0) {
            MB_TRY(mb_digest_memory(s->ids, (size_t)s->n_tokens * sizeof *s->ids, digest));
            mb_digest_hex(digest, hex);
            printf("%d ranks, %d threads: tokenizer in %.3f s, %lld rows, %lld tokens in %.3f s, "
                   "%.2f million tokens/s, ids %.16s\n",
                   l->size, l->threads, loaded, (long long)s->n_rows, (long long)s->n_tokens, best,
                   1e-6 * (double)s->n_tokens / best, hex);
        }
        mb_store_free(s);
    }
    mb_tokenizer_free(tok);
    return MB_OK;
}

int main(int argc, char **argv)
{
    mb_launch launch;
    mb_status st;

    if (argc < 3) {
        fprintf(stderr, "usage: bench_store MODEL ROWS [max_length]\n");
        return 2;
    }
    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    st = bench(&launch, argv[1], argv[2], argc > 3 ? atoll(argv[3]) : 1024);
    if (st != MB_OK)
        fprintf(stderr, "%s\n", mb_status_sentence());
    return mb_launch_end(&launch, st) != 0 || st != MB_OK;
}
