/* recipes/cmd/score.c - `mbuyu score`: metrics of predictions in a file.
 *
 *     mbuyu score predictions.jsonl [metric=bleu,chrf] [tokenize=13a] [lowercase=false] [format=text]
 *                 [confusion_matrix=FILE.png]
 *     mbuyu score said.txt reference=right.txt[,other.txt] metric=bleu,wer
 *
 * JSONL is what evaluations write (recipes/metrics/answers.h); text files have one segment a line and as
 * many lines as each other. Without `metric` it is all metrics that read such rows.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/data/rowfile.h"
#include "recipes/metrics/picture.h"
#include "recipes/metrics/report.h"
#include "recipes/metrics/translation.h"

enum { WORDS_MAX = 64, MOST_BYTES = 1 << 30 };

struct words {
    const char *at[WORDS_MAX];
    int n;
};

struct wishes {
    const char *file;
    struct words reference, metric;
    mb_metric_options options;
    const char *picture; /* NULL: none */
    bool text;
};

/* Cuts "a,b" in place. */
static mb_status cut(char *list, const char *key, const char *between, struct words *w)
{
    char *rest;

    for (char *word = strtok_r(list, between, &rest); word != NULL;
         word = strtok_r(NULL, between, &rest)) {
        MB_REQUIRE(w->n < WORDS_MAX, MB_EARG, "score: more than %d words in %s", WORDS_MAX, key);
        w->at[w->n++] = word;
    }
    MB_REQUIRE(w->n > 0, MB_EARG, "score: %s is empty", key);
    return MB_OK;
}

static mb_status one_of(const char *key, const char *value, const char *yes, const char *no,
                        bool *out)
{
    *out = strcmp(value, yes) == 0;
    MB_REQUIRE(*out || strcmp(value, no) == 0, MB_EARG, "score: %s must be %s or %s, not \"%s\"",
               key, yes, no, value);
    return MB_OK;
}

static mb_status take_key(const char *key, char *value, struct wishes *w)
{
    mb_bleu_tokenizer found;

    if (strcmp(key, "metric") == 0)
        return cut(value, key, ", []", &w->metric);
    if (strcmp(key, "reference") == 0)
        return cut(value, key, ",", &w->reference);
    if (strcmp(key, "lowercase") == 0)
        return one_of(key, value, "true", "false", &w->options.lowercase);
    if (strcmp(key, "format") == 0)
        return one_of(key, value, "text", "json", &w->text);
    if (strcmp(key, "confusion_matrix") == 0) {
        w->picture = value;
        return MB_OK;
    }
    MB_REQUIRE(strcmp(key, "tokenize") == 0, MB_EARG,
               "score: unknown key \"%s\"; there are metric, reference, tokenize, lowercase, "
               "format and confusion_matrix",
               key);
    w->options.tokenize = value;
    return mb_bleu_tokenizer_find(value, &found);
}

static mb_status take(int argc, char **argv, struct wishes *w)
{
    MB_REQUIRE(argc > 1, MB_EARG, "score: of which predictions? usage: mbuyu score FILE.jsonl");
    w->file = argv[1];
    for (int i = 2; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        MB_REQUIRE(equals != NULL, MB_EARG, "score: \"%s\" is one argument too many", argv[i]);
        *equals = '\0';
        MB_TRY(take_key(argv[i], equals + 1, w));
    }
    return MB_OK;
}

/* ---- text files --------------------------------------------------------------------------- */

struct lines {
    const char *path;
    char *text, *next;
    int64_t n; /* read so far */
};

static mb_status open_lines(const char *path, struct lines *l)
{
    size_t n;

    l->path = path;
    MB_TRY(mb_file_read_as(path, MB_EDATA, MOST_BYTES, &l->text, &n));
    const int64_t bad = mb_utf8_fault(l->text, n);
    MB_REQUIRE(bad < 0, MB_EDATA, "%s: byte %lld is not UTF-8, or zero", path, (long long)bad);
    l->next = l->text;
    return MB_OK;
}

/* NULL after the last line; a newline at the end of the file begins none. */
static const char *next_line(struct lines *l)
{
    char *line = l->next, *end;

    if (*line == '\0')
        return NULL;
    end = strchr(line, '\n');
    l->next = end != NULL ? end + 1 : line + strlen(line);
    if (end != NULL)
        *end = '\0';
    if (end != NULL && end > line && end[-1] == '\r')
        end[-1] = '\0';
    l->n++;
    return line;
}

static mb_status add_segment(const char *said, struct lines *reference, int n, mb_answers *rows)
{
    mb_json_doc *doc;
    mb_json list;
    mb_status st;

    MB_TRY(mb_json_doc_new("segment", &doc));
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "prediction", said), st, done);
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "reference", &list), st, done);
    for (int k = 0; k < n; k++) {
        const char *right = next_line(&reference[k]);
        if (right == NULL) {
            st = MB_RAISE(MB_EDATA, "%s has %lld lines, fewer than the predictions",
                          reference[k].path, (long long)reference[k].n);
            goto done;
        }
        MB_TRY_GOTO(mb_json_set_string(list, NULL, right), st, done);
    }
    st = mb_answers_add(rows, mb_json_root(doc));
done:
    mb_json_free(doc);
    return st;
}

static mb_status add_segments(const struct wishes *w, struct lines *said, struct lines *reference,
                              mb_answers *rows)
{
    MB_TRY(open_lines(w->file, said));
    for (int k = 0; k < w->reference.n; k++)
        MB_TRY(open_lines(w->reference.at[k], &reference[k]));
    for (const char *line = next_line(said); line != NULL; line = next_line(said))
        MB_TRY(add_segment(line, reference, w->reference.n, rows));
    MB_REQUIRE(rows->n > 0, MB_EDATA, "%s: no predictions in it", w->file);
    for (int k = 0; k < w->reference.n; k++)
        MB_REQUIRE(next_line(&reference[k]) == NULL, MB_EDATA,
                   "%s has more lines than the %lld predictions", reference[k].path,
                   (long long)rows->n);
    return MB_OK;
}

static mb_status read_segments(const struct wishes *w, mb_answers **out)
{
    struct lines said = {0}, reference[WORDS_MAX] = {0};
    mb_answers *rows = NULL;
    mb_status st;

    MB_TRY(mb_answers_new(&rows));
    st = add_segments(w, &said, reference, rows);
    mb_free(said.text);
    for (int k = 0; k < WORDS_MAX; k++)
        mb_free(reference[k].text);
    if (st == MB_OK)
        *out = rows;
    else
        mb_answers_free(rows);
    return st;
}

/* ---- */

static mb_status print(const struct wishes *w, const mb_answers *rows)
{
    mb_json_doc *doc = NULL;
    char *text = NULL;
    mb_status st;

    if (w->text) {
        MB_TRY(mb_score_text(rows, w->metric.at, w->metric.n, &w->options, &text));
        fputs(text, stdout);
        mb_free(text);
        return MB_OK;
    }
    MB_TRY(mb_json_doc_new("scores", &doc));
    MB_TRY_GOTO(mb_score_json(rows, w->metric.at, w->metric.n, &w->options, mb_json_root(doc)), st,
                done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 2, &text, NULL), st, done);
    fputs(text, stdout);
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

static mb_status draw(const struct wishes *w, const mb_answers *rows)
{
    mb_classes *c;
    mb_status st;

    if (w->picture == NULL)
        return MB_OK;
    MB_TRY(mb_classes_of(rows, &c));
    st = mb_confusion_picture(c, w->picture);
    mb_classes_free(c);
    return st;
}

mb_status mb_cmd_score(int argc, char **argv)
{
    struct wishes w = {0};
    mb_answers *rows;
    mb_status st;

    MB_TRY(take(argc, argv, &w));
    MB_TRY(w.reference.n > 0 ? read_segments(&w, &rows) : mb_answers_read(w.file, &rows));
    st = print(&w, rows);
    if (st == MB_OK)
        st = draw(&w, rows);
    mb_answers_free(rows);
    return st;
}
