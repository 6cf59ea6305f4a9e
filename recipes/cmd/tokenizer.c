/* recipes/cmd/tokenizer.c - `mbuyu tokenizer`: learning tokenizers from local text.
 *
 *     mbuyu tokenizer train --kind bpe|llama|unigram --vocab-size N --output DIR
 *                           [--special TOKEN ...] [--coverage X] [--min-frequency N] [--max-words N] FILE ...
 *
 * Results on standard output: what was read, the size of the vocabulary and how many tokens a word
 * takes (of the files themselves).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/commands.h"
#include "recipes/tokenizers/train.h"

enum { MOST_NAMES = 4096 };

struct wishes {
    mb_tok_training how;
    const char *output;
    const char *special[MOST_NAMES], *file[MOST_NAMES];
    size_t n_files;
};

static mb_status number(const char *name, const char *text, double lo, double hi, double *out)
{
    char *end;

    *out = strtod(text, &end);
    MB_REQUIRE(end != text && *end == '\0' && *out >= lo && *out <= hi, MB_EARG,
               "%s is \"%s\", not a number from %g to %g", name, text, lo, hi);
    return MB_OK;
}

static mb_status option(struct wishes *w, const char *name, const char *value)
{
    double x;

    if (strcmp(name, "--kind") == 0) {
        w->how.kind = value;
    } else if (strcmp(name, "--output") == 0) {
        w->output = value;
    } else if (strcmp(name, "--special") == 0) {
        MB_REQUIRE(w->how.n_special < MOST_NAMES && *value != '\0', MB_EARG,
                   "%s is empty, or one of more than %d", name, MOST_NAMES);
        w->special[w->how.n_special++] = value;
    } else if (strcmp(name, "--vocab-size") == 0) {
        MB_TRY(number(name, value, 8, 1 << 24, &x));
        w->how.vocab_size = (int64_t)x;
    } else if (strcmp(name, "--min-frequency") == 0) {
        MB_TRY(number(name, value, 0, 1e12, &x));
        w->how.min_frequency = (int64_t)x;
    } else if (strcmp(name, "--max-words") == 0) {
        MB_TRY(number(name, value, 1000, 1e9, &x));
        w->how.max_words = (int64_t)x;
    } else if (strcmp(name, "--coverage") == 0) {
        MB_TRY(number(name, value, 0, 1, &w->how.coverage));
    } else {
        return MB_RAISE(MB_EARG, "tokenizer has no option %s", name);
    }
    return MB_OK;
}

static mb_status parse(int argc, char **argv, struct wishes *w)
{
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            MB_REQUIRE(i + 1 < argc, MB_EARG, "%s wants a value", argv[i]);
            MB_TRY(option(w, argv[i], argv[i + 1]));
            i++;
            continue;
        }
        MB_REQUIRE(w->n_files < MOST_NAMES, MB_EARG, "more than %d files", MOST_NAMES);
        w->file[w->n_files++] = argv[i];
    }
    return MB_OK;
}

static mb_status train(struct wishes *w)
{
    mb_tok_report r;

    MB_REQUIRE(w->how.kind != NULL && w->how.vocab_size > 0 && w->output != NULL && w->n_files > 0,
               MB_EARG,
               "usage: mbuyu tokenizer train --kind bpe|llama|unigram --vocab-size N --output DIR "
               "FILE ...");
    w->how.special = w->special;
    MB_TRY(mb_tokenizer_train(&w->how, w->file, w->n_files, w->output, &r));
    printf("read            %lld lines, %lld bytes, %lld words, %lld of them different\n",
           (long long)r.lines, (long long)r.bytes, (long long)r.words, (long long)r.distinct);
    if (r.dropped > 0)
        printf("dropped         %lld occurrences of rare words, to keep within --max-words %lld\n",
               (long long)r.dropped, (long long)w->how.max_words);
    printf("vocabulary      %lld tokens in %s\n", (long long)r.vocab_size, w->output);
    return MB_OK;
}

mb_status mb_cmd_tokenizer(int argc, char **argv)
{
    struct wishes *w = NULL;
    mb_status st;

    MB_REQUIRE(argc > 1 && strcmp(argv[1], "train") == 0, MB_EARG,
               "usage: mbuyu tokenizer train ... (`mbuyu help tokenizer` says how)");
    MB_TRY(MB_NEW(&w));
    w->how = (mb_tok_training){.coverage = 0.9995, .max_words = 4000000};
    st = parse(argc, argv, w);
    if (st == MB_OK)
        st = train(w);
    mb_free(w);
    return st;
}
