/* recipes/cmd/tokenizer.c - `mbuyu tokenizer`: learning tokenizers from local text.
 *
 *     mbuyu tokenizer train --kind bpe|llama|unigram --vocab-size N --output DIR
 *                           [--special TOKEN ...] [--coverage X] [--min-frequency N] [--max-words N] FILE ...
 *     mbuyu tokenizer extend MODEL --add N --output DIR [--max-words N] FILE ...
 *
 * Results on standard output. `extend` gives a model's tokenizer N more tokens and, where the folder
 * has weights, the embedding rows for them, each the mean of the rows of its old pieces.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/config/hub_path.h"
#include "recipes/export/vocabulary.h"
#include "recipes/tokenizers/train.h"

enum { MOST_NAMES = 4096 };

struct wishes {
    mb_tok_training how;
    const char *output;
    int64_t add;
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
    } else if (strcmp(name, "--add") == 0) {
        MB_TRY(number(name, value, 1, 1 << 22, &x));
        w->add = (int64_t)x;
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
    if (r.too_long > 0)
        printf("left out        %lld words of more than 64 KiB\n", (long long)r.too_long);
    printf("vocabulary      %lld tokens in %s\n", (long long)r.vocab_size, w->output);
    return MB_OK;
}

/* Whether the folder has weights to resize; a tokenizer may come alone. */
static bool has_weights(const char *dir)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    char path[MB_PATH_MAX];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (mb_path_join(path, sizeof path, dir, names[i]) == MB_OK && mb_path_is_file(path))
            return true;
    mb_status_clear();
    return false;
}

static mb_status extend_to(const struct wishes *w, const char *model, const mb_tok_extension *x)
{
    mb_resized resized;

    printf("read            %lld lines, every tenth held out\n", (long long)x->lines);
    printf("added           %d tokens, ids %d to %d\n", (int)x->n, (int)x->first,
           (int)(x->first + x->n - 1));
    if (x->held_words > 0)
        printf("tokens a word   %.3f before, %.3f after (%lld held-out words)\n",
               (double)x->tokens_before / (double)x->held_words,
               (double)x->tokens_after / (double)x->held_words, (long long)x->held_words);
    if (!has_weights(model)) {
        MB_TRY(mb_tokenizer_save(x->tokenizer, w->output));
        printf("written         the tokenizer to %s; '%s' has no safetensors weights to resize\n",
               w->output, model);
        return MB_OK;
    }
    MB_TRY(mb_resize_vocabulary(model, w->output, x, &resized));
    for (int i = 0; i < resized.n; i++)
        printf("resized         %s\n", resized.what[i]);
    printf("written         %s; vocab_size %lld before, %lld now\n", w->output,
           (long long)resized.before, (long long)resized.after);
    return MB_OK;
}

static mb_status extend(struct wishes *w)
{
    mb_tokenizer *t = NULL;
    mb_tok_extension x = {0};
    char model[MB_PATH_MAX];
    mb_status st = MB_OK;

    MB_REQUIRE(w->add > 0 && w->output != NULL && w->n_files > 1, MB_EARG,
               "usage: mbuyu tokenizer extend MODEL --add N --output DIR FILE ...");
    MB_TRY(mb_hub_model(w->file[0], model, sizeof model));
    MB_TRY_GOTO(mb_tokenizer_load(model, &t), st, done);
    MB_TRY_GOTO(mb_tokenizer_extend(t, w->add, w->how.max_words, w->file + 1, w->n_files - 1, &x),
                st, done);
    st = extend_to(w, model, &x);
done:
    mb_tok_extension_release(&x);
    mb_tokenizer_free(t);
    return st;
}

mb_status mb_cmd_tokenizer(int argc, char **argv)
{
    static const struct {
        const char *name;
        mb_status (*run)(struct wishes *w);
    } verbs[] = {{"train", train}, {"extend", extend}};
    struct wishes *w = NULL;
    size_t k = 0;
    mb_status st;

    while (argc > 1 && k < 2 && strcmp(argv[1], verbs[k].name) != 0)
        k++;
    MB_REQUIRE(argc > 1 && k < 2, MB_EARG,
               "usage: mbuyu tokenizer train|extend ... (`mbuyu help tokenizer` says how)");
    MB_TRY(MB_NEW(&w));
    w->how = (mb_tok_training){.coverage = 0.9995, .max_words = 4000000};
    st = parse(argc, argv, w);
    if (st == MB_OK)
        st = verbs[k].run(w);
    mb_free(w);
    return st;
}
