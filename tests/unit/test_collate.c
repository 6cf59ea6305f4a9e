/* tests/unit/test_collate.c - the arrays a model is given, and their shape classes. */
#include "data_test.h"
#include "recipes/data/collate.h"

/* Rows of 5, 3, 1 and 70 tokens; token t of row r is 100 r + t; the last two of a row are trained. */
static int32_t ids[79];
static uint8_t flags[79];
static int64_t offset[5] = {0, 5, 8, 9, 79};
static int32_t trained[4] = {2, 2, 0, 2}, label[4] = {1, 0, 2, 1}, source[4];
static int64_t line[4] = {1, 2, 3, 4};
static char *name[1];
static mb_store store = {.n_rows = 4,
                         .n_tokens = 79,
                         .ids = ids,
                         .flags = flags,
                         .offset = offset,
                         .trained = trained,
                         .label = label,
                         .source = source,
                         .line = line,
                         .source_name = name};

static int fill(void **state)
{
    static char path[] = "rows.jsonl";

    name[0] = path;
    for (int r = 0; r < 4; r++) {
        for (int64_t t = offset[r]; t < offset[r + 1]; t++) {
            ids[t] = (int32_t)(100 * r + (t - offset[r]));
            flags[t] = t >= offset[r + 1] - 2 && t > offset[r] ? MB_MARK_TRAINED : 0;
        }
    }
    flags[0] |= MB_MARK_SPECIAL;
    flags[4] |= MB_MARK_SECOND;
    return 0;
}

static const int64_t rows[] = {1, 0, 2};
static const int32_t ordinals[] = {40, 7, 41};
static const mb_micro micro = {.n_rows = 3, .tokens = 9, .row = rows, .ordinal = ordinals};

static void rows_lie_one_after_the_other(void **state)
{
    const mb_collate_options o = {.kind = MB_TARGET_NEXT, .seed = 5, .largest = 100};
    static const int32_t want[9] = {100, 101, 102, 0, 1, 2, 3, 4, 200};
    static const int32_t position[9] = {0, 1, 2, 0, 1, 2, 3, 4, 0};
    static const int32_t ordinal[9] = {40, 40, 40, 7, 7, 7, 7, 7, 41};
    static const int32_t start[] = {0, 3, 8}, len[] = {3, 5, 1};
    mb_batch *b;

    OK(mb_batch_new(100, 4, &b));
    memset(b->ids, 0xff, (size_t)b->tokens * 4); /* as an earlier batch left them */
    memset(b->target_row, 0x11, (size_t)b->max_targets * 4);
    OK(mb_collate(&o, &store, &micro, 9, b));
    assert_int_equal(b->tokens, 48);
    assert_int_equal(b->used, 9);
    assert_int_equal(b->n_seq, 3);
    assert_int_equal(b->max_len, 5);
    assert_int_equal(b->seed, 5);
    assert_int_equal(b->step, 9);
    assert_memory_equal(b->ids, want, sizeof want);
    assert_memory_equal(b->position, position, sizeof position);
    assert_memory_equal(b->ordinal, ordinal, sizeof ordinal);
    assert_memory_equal(b->start, start, sizeof start);
    assert_memory_equal(b->len, len, sizeof len);
    assert_memory_equal(b->k_start, start, sizeof start);
    assert_memory_equal(b->k_len, len, sizeof len);
    assert_memory_equal(b->seq_ordinal, ordinals, sizeof ordinals);
    assert_int_equal(b->segment[7], 1);
    assert_int_equal(b->segment[6], 0);
    for (int64_t t = 9; t < 48; t++)
        assert_true(b->ids[t] == 0 && b->position[t] == 0 && b->ordinal[t] == 0);
    mb_batch_free(b);
}

static void a_row_predicts_the_next_trained_token(void **state)
{
    const mb_collate_options o = {.kind = MB_TARGET_NEXT, .largest = 100};
    static const int32_t row[] = {0, 1, 5, 6}, want[] = {101, 102, 3, 4};
    mb_batch *b;

    OK(mb_batch_new(100, 4, &b));
    OK(mb_collate(&o, &store, &micro, 0, b));
    assert_int_equal(b->n_targets, 4);
    assert_memory_equal(b->target_row, row, sizeof row);
    assert_memory_equal(b->target_label, want, sizeof want);
    for (int i = 0; i < 4; i++)
        assert_true(b->target_weight[i] == 1.0f);
    for (int i = 4; i < MB_ROW_PAD; i++)
        assert_true(b->target_row[i] == -1 && b->target_label[i] == 0 &&
                    b->target_weight[i] == 0.0f);
    mb_batch_free(b);
}

static void a_sequence_has_its_class(void **state)
{
    const mb_collate_options o = {.kind = MB_TARGET_CLASS, .largest = 100};
    static const int32_t row[] = {0, 1, 2}, want[] = {0, 1, 2};
    mb_batch *b;

    OK(mb_batch_new(100, 4, &b));
    for (int i = 0; i < 4; i++) /* an earlier, larger batch */
        b->start[i] = b->len[i] = b->seq_ordinal[i] = 90;
    OK(mb_collate(&o, &store, &micro, 0, b));
    assert_true(b->start[3] == -1 && b->len[3] == 0 && b->seq_ordinal[3] == 0);
    assert_int_equal(b->n_targets, 3);
    assert_memory_equal(b->target_row, row, sizeof row);
    assert_memory_equal(b->target_label, want, sizeof want);
    mb_batch_free(b);
}

static void masking_hides_the_right_share_and_forgets_nothing(void **state)
{
    const mb_collate_options o = {
        .kind = MB_TARGET_MASKED, .seed = 3, .mask_id = 999, .vocab_size = 500, .largest = 100};
    int64_t chosen = 0, hidden = 0, kept = 0, counted = 0, again = 0;
    mb_batch *b;
    static const int64_t only[] = {3};

    OK(mb_batch_new(100, 4, &b));
    for (int32_t k = 0; k < 2000; k++) {
        const mb_micro m = {.n_rows = 1, .tokens = 70, .row = only, .ordinal = &k};
        const mb_step st = {.step = k / 100, .n_rows = 1, .row = only, .ordinal = &k};

        OK(mb_collate(&o, &store, &m, (uint32_t)(k / 100), b));
        for (int64_t i = 0; i < b->n_targets; i++) {
            const int32_t at = b->target_row[i];

            assert_int_equal(b->target_label[i], 300 + at); /* what stood there */
            hidden += b->ids[at] == 999;
            kept += b->ids[at] == 300 + at;
            assert_true(b->ids[at] == 999 || (b->ids[at] >= 0 && b->ids[at] < 500));
        }
        for (int64_t t = 0, i = 0; t < 70; t++) { /* the others stand */
            if (i < b->n_targets && b->target_row[i] == t)
                i++;
            else
                assert_int_equal(b->ids[t], 300 + t);
        }
        chosen += b->n_targets;
        counted += mb_masked_targets(&o, &store, &st);
        OK(mb_collate(&o, &store, &m, (uint32_t)(k / 100), b));
        again += b->n_targets;
    }
    assert_int_equal(counted, chosen);
    assert_int_equal(again, chosen);
    /* 140000 draws: within five standard deviations */
    assert_true(chosen > 21000 - 700 && chosen < 21000 + 700);
    assert_true(hidden > 0.8 * (double)chosen - 350 && hidden < 0.8 * (double)chosen + 350);
    assert_true(kept > 0.1 * (double)chosen - 250 && kept < 0.1 * (double)chosen + 280);
    mb_batch_free(b);
}

static void special_tokens_are_not_masked(void **state)
{
    const mb_collate_options o = {.kind = MB_TARGET_MASKED,
                                  .mask_id = 9,
                                  .vocab_size = 10,
                                  .masked_share = 1.0f,
                                  .largest = 100};
    mb_batch *b;

    OK(mb_batch_new(100, 4, &b));
    OK(mb_collate(&o, &store, &micro, 0, b));
    assert_int_equal(b->n_targets, 8); /* nine tokens, one special */
    for (int64_t i = 0; i < b->n_targets; i++)
        assert_int_not_equal(b->target_row[i], 3);
    mb_batch_free(b);
}

static void a_row_longer_than_the_positions_is_refused(void **state)
{
    const mb_collate_options o = {.kind = MB_TARGET_NEXT, .largest = 100, .max_positions = 4};
    mb_batch *b;

    OK(mb_batch_new(100, 4, &b));
    assert_int_equal(mb_collate(&o, &store, &micro, 0, b), MB_EDATA);
    assert_string_equal(mb_status_sentence(), "rows.jsonl:1: the row has 5 tokens, the model 4 "
                                              "positions");
    mb_status_clear();
    mb_batch_free(b);
}

static void shape_classes_are_few_and_hold_their_tokens(void **state)
{
    static const int64_t tops[] = {1, 64, 65, 500, 512, 513, 900, 2048, 5000, 16384, 100000};

    for (size_t k = 0; k < sizeof tops / sizeof tops[0]; k++) {
        const int64_t top = tops[k];
        int64_t classes = 0, last = 0;

        for (int64_t n = 0; n <= top; n++) {
            const int64_t c = mb_shape_class(n, top);

            assert_true(c >= n && c >= last && c % MB_ROW_PAD == 0 && c > 0);
            assert_true(c <= mb_shape_class(top, top));
            if (n > 0 && n <= 480)
                assert_true(c - n < 48);
            classes += c != last;
            last = c;
        }
        assert_true(classes <= 10 + 24);
        assert_true(mb_shape_class(top, top) - top < MB_ROW_PAD);
    }
}

static void collating_allocates_nothing(void **state)
{
    const mb_collate_options o = {.kind = MB_TARGET_NEXT, .largest = 100};
    mb_batch *b;
    int64_t before;

    OK(mb_batch_new(100, 4, &b));
    before = mb_alloc_count();
    for (int i = 0; i < 10; i++)
        OK(mb_collate(&o, &store, &micro, 0, b));
    assert_int_equal(mb_alloc_count(), before);
    mb_batch_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_lie_one_after_the_other),
        cmocka_unit_test(a_row_predicts_the_next_trained_token),
        cmocka_unit_test(a_sequence_has_its_class),
        cmocka_unit_test(masking_hides_the_right_share_and_forgets_nothing),
        cmocka_unit_test(special_tokens_are_not_masked),
        cmocka_unit_test(a_row_longer_than_the_positions_is_refused),
        cmocka_unit_test(shape_classes_are_few_and_hold_their_tokens),
        cmocka_unit_test(collating_allocates_nothing),
    };

    return cmocka_run_group_tests(tests, fill, NULL);
}
