/* test_scores.c - metrics of predictions: numbers worked out by hand or printed by the packages that
 * define them, and rows that no metric can read. */
#include <math.h>

#include "recipes/media/image.h"
#include "recipes/metrics/classes.h"
#include "recipes/metrics/edits.h"
#include "recipes/metrics/metric.h"
#include "recipes/metrics/numbers.h"
#include "recipes/metrics/picture.h"
#include "recipes/metrics/ranking.h"
#include "recipes/metrics/report.h"
#include "recipes/metrics/rouge.h"
#include "recipes/metrics/squad.h"
#include "recipes/metrics/translation.h"
#include "tests/unit/data_test.h"

static mb_answers *read_rows(const char *lines)
{
    mb_answers *rows;

    OK(mb_answers_read(write_file("rows.jsonl", lines, strlen(lines)), &rows));
    return rows;
}

static double value(const char *lines, const char *metric, mb_metric_reads reads)
{
    mb_answers *rows = read_rows(lines);
    const mb_metric *m = mb_metric_find(metric, reads);
    mb_scores s;

    assert_non_null(m);
    OK(mb_metric_compute(m, rows, NULL, &s));
    assert_string_equal(s.at[0].name, m->name);
    mb_answers_free(rows);
    return s.at[0].value;
}

static void near(double x, double y)
{
    if (!(fabs(x - y) <= 1e-12 * fmax(1.0, fabs(y))))
        fail_msg("%.17g is not %.17g", x, y);
}
#define NEAR(x, y) near((x), (y))

/* ---- classes */

static const char *const three =
    "{\"prediction\": \"a\", \"label\": \"a\"}\n{\"prediction\": \"a\", \"label\": \"b\"}\n"
    "{\"prediction\": \"b\", \"label\": \"b\"}\n{\"prediction\": \"c\", \"label\": \"b\"}\n";

static void a_class_that_is_only_predicted_lowers_the_macro_mean(void **state)
{
    NEAR(value(three, "accuracy", MB_READS_CLASS), 0.5);
    NEAR(value(three, "f1", MB_READS_CLASS), (2.0 / 3.0 + 0.5 + 0.0) / 3.0);
    NEAR(value(three, "f1_micro", MB_READS_CLASS), 0.5);
    NEAR(value(three, "f1_weighted", MB_READS_CLASS), 0.25 * 2.0 / 3.0 + 0.75 * 0.5);
    NEAR(value(three, "recall", MB_READS_CLASS), (1.0 + 1.0 / 3.0 + 0.0) / 3.0);
    NEAR(value(three, "eval_precision", MB_READS_CLASS), (0.5 + 1.0 + 0.0) / 3.0);
}

static void equal_scores_count_half_under_the_curve(void **state)
{
    const double score[] = {0.1, 0.5, 0.5, 0.9};
    const bool positive[] = {false, false, true, true}, all[] = {true, true, true, true};
    double auc;

    OK(mb_roc_auc(score, positive, 4, &auc));
    NEAR(auc, 0.875);
    OK(mb_roc_auc(score, all, 4, &auc));
    assert_true(isnan(auc));
}

static void matthews_of_two_classes_is_the_correlation_of_the_table(void **state)
{
    /* tp 2, tn 1, fp 1, fn 1: (2*1 - 1*1) / sqrt(3*3*2*2) */
    const char *lines = "{\"prediction\": 1, \"label\": 1}\n{\"prediction\": 1, \"label\": 1}\n"
                        "{\"prediction\": 0, \"label\": 0}\n{\"prediction\": 1, \"label\": 0}\n"
                        "{\"prediction\": 0, \"label\": 1}\n";

    NEAR(value(lines, "matthews_correlation", MB_READS_CLASS), 1.0 / 6.0);
    NEAR(value(lines, "f1_binary", MB_READS_CLASS), 4.0 / 6.0);
}

static void several_classes_a_row_are_right_only_together(void **state)
{
    const char *lines = "{\"prediction\": [\"x\", \"y\"], \"label\": [\"y\", \"x\"]}\n"
                        "{\"prediction\": [], \"label\": []}\n"
                        "{\"prediction\": [\"x\"], \"label\": [\"x\", \"z\"]}\n";

    NEAR(value(lines, "accuracy", MB_READS_SETS), 2.0 / 3.0);
    NEAR(value(lines, "f1_micro", MB_READS_SETS), 6.0 / 7.0);
    NEAR(value(lines, "f1", MB_READS_SETS), 2.0 / 3.0);
}

static void tables_have_a_line_per_class_and_one_per_group(void **state)
{
    mb_answers *rows = read_rows("{\"prediction\": 0, \"label\": 0, \"group\": \"sw\"}\n"
                                 "{\"prediction\": 1, \"label\": 0, \"group\": \"en\"}\n");
    mb_json_doc *doc;
    int64_t cell;
    double x;

    OK(mb_json_doc_new("report", &doc));
    OK(mb_score_json(rows, NULL, 0, NULL, mb_json_root(doc)));
    const mb_json report = mb_json_root(doc), groups = mb_json_get(report, "groups");
    OK(mb_json_int(mb_json_at(mb_json_at(mb_json_get(report, "confusion_matrix"), 0), 1), &cell));
    assert_int_equal(cell, 1);
    OK(mb_json_get_real(mb_json_get(groups, "sw"), "accuracy", -1, &x));
    NEAR(x, 1.0);
    OK(mb_json_get_real(mb_json_get(groups, "en"), "accuracy", -1, &x));
    NEAR(x, 0.0);
    mb_json_free(doc);
    mb_answers_free(rows);
}

static void a_cell_is_as_dark_as_its_share(void **state)
{
    const char *path = write_file("matrix.png", "", 0);
    mb_answers *rows = read_rows(three);
    mb_image im = {0};
    mb_classes *c;
    int dark = 0;

    OK(mb_classes_of(rows, &c));
    OK(mb_confusion_picture(c, path));
    OK(mb_image_read(path, MB_ALPHA_DROP, &im, NULL));
    const mb_picture_grid g = mb_confusion_grid(c);
    assert_int_equal(im.width, g.width);
    assert_int_equal(im.height, g.height);
    for (int64_t i = 0; i < 9; i++) {
        const int64_t x = g.left + (i % 3) * g.cell, y = g.top + (i / 3) * g.cell;
        const int64_t labelled = c->count[i / 3].labelled;
        uint8_t rgb[3];
        mb_confusion_colour(labelled > 0 ? (double)c->confusion[i] / labelled : 0, rgb);
        assert_memory_equal(im.pixels + 3 * (y * im.width + x), rgb, 3);
    }
    for (int64_t i = 0; i < im.width * g.top; i++) /* the names above */
        dark += im.pixels[3 * i] == 0;
    assert_true(dark > 3 * 8);
    mb_image_release(&im);
    mb_classes_free(c);
    mb_answers_free(rows);
}

/* ---- numbers */

static void ranks_of_ties_are_their_mean(void **state)
{
    const double x[] = {1, 2, 2, 3}, y[] = {10, 20, 30, 40}, flat[] = {7, 7, 7, 7};
    double s;

    OK(mb_spearman(x, y, 4, &s));
    NEAR(s, 4.5 / sqrt(4.5 * 5.0));
    OK(mb_spearman(x, flat, 4, &s));
    assert_true(isnan(s));
    NEAR(mb_pearson(x, x, 4), 1.0);
    NEAR(mb_mean_squared_error(x, y, 4), (81 + 324 + 784 + 1369) / 4.0);
    NEAR(mb_mean_absolute_error(x, y, 4), (9 + 18 + 28 + 37) / 4.0);
}

static void cosine_of_nothing_is_zero(void **state)
{
    const float a[] = {3, 4, 0, 0}, b[] = {4, 3, 1, 1};
    double c[2];

    mb_cosine_of_rows(a, b, 2, 2, c);
    NEAR(c[0], 0.96);
    NEAR(c[1], 0.0);
}

/* ---- tags */

static void an_entity_counts_only_whole(void **state)
{
    const char *lines = "{\"prediction\": [\"B-PER\", \"I-PER\", \"O\", \"B-LOC\"],"
                        " \"label\": [\"B-PER\", \"I-PER\", \"I-PER\", \"B-LOC\"]}\n"
                        "{\"prediction\": [\"S-LOC\", \"O\"], \"label\": [\"B-LOC\", \"O\"]}\n";

    NEAR(value(lines, "f1", MB_READS_TAGS), 2.0 / 3.0);
    NEAR(value(lines, "accuracy", MB_READS_TAGS), 4.0 / 6.0);
    NEAR(value(lines, "f1_macro", MB_READS_TAGS), 0.5);
}

/* ---- texts */

static void words_of_answers_are_compared_without_articles_and_points(void **state)
{
    double exact, f1;

    OK(mb_squad_scores("The Rift-Valley!", "riftvalley", &exact, &f1));
    NEAR(exact, 1.0);
    OK(mb_squad_scores("a lake in Kenya", "the Lake of Kenya", &exact, &f1));
    NEAR(exact, 0.0);
    NEAR(f1, 2.0 / 3.0);
    OK(mb_squad_scores("the", "", &exact, &f1));
    NEAR(f1, 1.0);
}

static double bleu_of(const char *said, const char *reference, const char *tokenize)
{
    mb_bleu_tokenizer t;
    mb_bleu_stats sum = {0};

    OK(mb_bleu_tokenizer_find(tokenize, &t));
    OK(mb_bleu_add(t, false, said, &reference, 1, &sum));
    return mb_bleu_score(&sum, false);
}

static void bleu_is_sacrebleu_s(void **state)
{
    NEAR(bleu_of("The cat sat on the mat.", "The cat sat on the mat.", NULL), 100.0);
    /* as sacrebleu 2.6.0 prints */
    assert_true(fabs(bleu_of("It is a guide to action, which ensures obedience.",
                             "It is a guide to action that ensures obedience!", NULL) -
                     51.93071778680675) < 1e-9);
    assert_true(fabs(bleu_of("Bei: 1,000.50 (ya leo)", "Bei: 1,000.50 (ya jana)", "intl") -
                     64.34588841607616) < 1e-9);
    assert_true(bleu_of("", "x", NULL) == 0.0);
}

static void chrf_takes_the_reference_that_fits_best(void **state)
{
    const char *const references[] = {"something else", "habari ya asubuhi"};
    mb_chrf_stats sum = {0};

    OK(mb_chrf_add(0, false, "habari za asubuhi", references, 2, &sum));
    assert_true(fabs(mb_chrf_score(&sum, 0) - 69.53046953046953) < 1e-9);
}

static void rouge_counts_words_pairs_and_the_longest_sequence(void **state)
{
    double f;

    OK(mb_rouge(1, "The cat, on the mat", "the cat sat on a mat", &f));
    NEAR(f, 2.0 * 4 / 11);
    OK(mb_rouge(2, "The cat, on the mat", "the cat sat on a mat", &f));
    NEAR(f, 2.0 * 1 / 9);
    OK(mb_rouge(0, "mat the cat on", "the cat sat on a mat", &f));
    NEAR(f, 2.0 * 3 / 10);
    OK(mb_rouge(1, "", "", &f));
    NEAR(f, 0.0);
}

static void counts_of_equally_few_edits_are_jiwer_s(void **state)
{
    const char *lines = "{\"prediction\": \"b a\", \"reference\": \"a b\"}\n"
                        "{\"prediction\": \"one  two\", \"reference\": \"one two three\"}\n";
    mb_answers *rows = read_rows(lines);
    mb_scores s;

    OK(mb_metric_compute(mb_metric_find("wer", MB_READS_TEXT), rows, NULL, &s));
    NEAR(s.at[0].value, 3.0 / 5.0);
    assert_string_equal(s.at[1].name, "hits");
    NEAR(s.at[1].value, 3);
    NEAR(s.at[2].value, 0);
    NEAR(s.at[3].value, 2);
    NEAR(s.at[4].value, 1);
    mb_answers_free(rows);
}

/* ---- candidates */

static void the_earlier_of_equal_candidates_is_first(void **state)
{
    const double score[] = {0.5, 0.9, 0.5};

    assert_int_equal(mb_rank_of(score, 3, 1), 1);
    assert_int_equal(mb_rank_of(score, 3, 0), 2);
    assert_int_equal(mb_rank_of(score, 3, 2), 3);
    NEAR(value("{\"scores\": [0.5, 0.9, 0.5], \"label\": 2}\n{\"scores\": [1], \"label\": 0}\n",
               "mrr", MB_READS_RANK),
         2.0 / 3.0);
}

/* ---- the table and rows that do not fit it */

static void a_name_is_found_with_and_without_eval(void **state)
{
    assert_ptr_equal(mb_metric_find("eval_wer", MB_READS_TEXT),
                     mb_metric_find("wer", MB_READS_TEXT));
    assert_null(mb_metric_find("wer", MB_READS_CLASS));
    assert_false(mb_metric_find("wer", MB_READS_TEXT)->greater_is_better);
}

static mb_status kind_of(const char *lines, const char *metric, mb_metric_reads *reads)
{
    mb_answers *rows = read_rows(lines);
    const mb_status st = mb_metric_kind(rows, &metric, metric != NULL, reads);

    mb_answers_free(rows);
    return st;
}

/* Parts of speech: an evaluation knows that they are tags; of a file's rows they are when a class is there
 * twice, or when there are as many tokens. */
static void tags_need_not_be_of_entities(void **state)
{
    static const char *const lines =
        "{\"prediction\": [\"NOUN\", \"VERB\", \"DET\"], \"label\": [\"NOUN\", \"VERB\", \"NOUN\"]}\n";
    mb_metric_reads reads;

    NEAR(value(lines, "accuracy", MB_READS_TAGS), 2.0 / 3.0);
    NEAR(value(lines, "f1", MB_READS_TAGS), 2.0 * 2 / 6);
    OK(kind_of(lines, "f1", &reads));
    assert_int_equal(reads, MB_READS_TAGS);
    OK(kind_of("{\"prediction\": [\"NOUN\", \"VERB\"], \"label\": [\"NOUN\", \"DET\"]}\n", "f1",
               &reads));
    assert_int_equal(reads, MB_READS_SETS);
    OK(kind_of(
        "{\"tokens\": [\"a\", \"b\"], \"prediction\": [\"NOUN\", \"VERB\"], \"label\": [\"NOUN\", "
        "\"DET\"]}\n",
        "f1", &reads));
    assert_int_equal(reads, MB_READS_TAGS);
    OK(kind_of(
        "{\"tokens\": [\"a\"], \"prediction\": [\"NOUN\", \"VERB\"], \"label\": [\"NOUN\", \"DET\"]}\n",
        "f1", &reads));
    assert_int_equal(reads, MB_READS_SETS);
    OK(kind_of(lines, "eval_f1_macro", &reads));
    assert_int_equal(reads, MB_READS_TAGS);
}

static void rows_of_another_kind_than_the_metrics_are_refused(void **state)
{
    static const char *const names[] = {"f1", "exact_match"};
    mb_answers *rows = read_rows("{\"prediction\": [\"O\"], \"label\": [\"B-X\"]}\n");
    mb_metric_reads reads;

    assert_int_equal(mb_metric_kind(rows, names, 2, &reads), MB_EDATA);
    mb_status_clear();
    mb_answers_free(rows);
}

static void rows_tell_what_they_are(void **state)
{
    mb_metric_reads reads;

    OK(kind_of("{\"prediction\": [\"O\"], \"label\": [\"B-X\"]}\n", "f1", &reads));
    assert_int_equal(reads, MB_READS_TAGS);
    OK(kind_of("{\"prediction\": [\"news\"], \"label\": [\"news\", \"O\"]}\n", "f1", &reads));
    assert_int_equal(reads, MB_READS_SETS);
    OK(kind_of("{\"prediction\": 0.5, \"label\": 1}\n", NULL, &reads));
    assert_int_equal(reads, MB_READS_NUMBER);
    OK(kind_of("{\"prediction\": \"x\", \"reference\": [\"y\", \"z\"]}\n", NULL, &reads));
    assert_int_equal(reads, MB_READS_TEXT);
    assert_int_equal(kind_of("{\"prediction\": 1, \"label\": 1}\n", "bleu", &reads), MB_EDATA);
    assert_int_equal(kind_of("{\"prediction\": 1, \"label\": 1}\n", "blue", &reads), MB_EARG);
    mb_status_clear();
}

static void refused(const char *lines, const char *sentence)
{
    mb_answers *rows;

    mb_status_clear();
    assert_int_equal(mb_answers_read(write_file("bad.jsonl", lines, strlen(lines)), &rows),
                     MB_EDATA);
    if (strstr(mb_status_sentence(), sentence) == NULL)
        fail_msg("\"%s\" is not in: %s", sentence, mb_status_sentence());
    mb_status_clear();
}

static void what_is_missing_in_a_row_is_named_with_its_line(void **state)
{
    refused("{\"prediction\": 1, \"label\": 1}\n{\"label\": 1}\n", "line 2");
    refused("{\"prediction\": 1}\n", "has neither \"label\" nor \"reference\"");
    refused("{\"prediction\": {}, \"label\": 1}\n", "prediction must be a string");
    refused("{\"prediction\": [1, \"x\"], \"label\": [1]}\n", "prediction[1]");
    refused("", "no predictions");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_class_that_is_only_predicted_lowers_the_macro_mean),
        cmocka_unit_test(equal_scores_count_half_under_the_curve),
        cmocka_unit_test(matthews_of_two_classes_is_the_correlation_of_the_table),
        cmocka_unit_test(several_classes_a_row_are_right_only_together),
        cmocka_unit_test(tables_have_a_line_per_class_and_one_per_group),
        cmocka_unit_test(a_cell_is_as_dark_as_its_share),
        cmocka_unit_test(ranks_of_ties_are_their_mean),
        cmocka_unit_test(cosine_of_nothing_is_zero),
        cmocka_unit_test(an_entity_counts_only_whole),
        cmocka_unit_test(words_of_answers_are_compared_without_articles_and_points),
        cmocka_unit_test(bleu_is_sacrebleu_s),
        cmocka_unit_test(chrf_takes_the_reference_that_fits_best),
        cmocka_unit_test(rouge_counts_words_pairs_and_the_longest_sequence),
        cmocka_unit_test(counts_of_equally_few_edits_are_jiwer_s),
        cmocka_unit_test(the_earlier_of_equal_candidates_is_first),
        cmocka_unit_test(a_name_is_found_with_and_without_eval),
        cmocka_unit_test(tags_need_not_be_of_entities),
        cmocka_unit_test(rows_of_another_kind_than_the_metrics_are_refused),
        cmocka_unit_test(rows_tell_what_they_are),
        cmocka_unit_test(what_is_missing_in_a_row_is_named_with_its_line),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
