/* tests/peers/forward.c - the logits that mbuyu computes, for exports.py to compare.
 *
 *     forward MODEL OUT [ADAPTER [CLASSES]] < ROWS      a row: token ids with spaces between them
 *
 * CLASSES makes a classifier of that many classes of a model that is none.
 *
 * Models of two sides read a row on both. All rows go through the model as one batch. OUT receives the logits as float32: of every token of
 * every row in order, or one line per row of a classifier. Prints "lines width".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpu/cpu.h"
#include "recipes/data/collate.h"
#include "recipes/train/session.h"

enum { TOKENS_MAX = 65536, ROWS_MAX = 256 };

static mb_status read_rows(mb_batch *b, int64_t vocab)
{
    static char line[1 << 20];

    while (fgets(line, sizeof line, stdin) != NULL) {
        const int64_t s = b->n_seq, from = b->used;
        MB_REQUIRE(s < b->max_seq, MB_EARG, "more than %d rows", ROWS_MAX);
        for (char *at = line, *end;; at = end) {
            const long id = strtol(at, &end, 10);
            if (end == at)
                break;
            MB_REQUIRE(id >= 0 && id < vocab && b->used < TOKENS_MAX, MB_EARG,
                       "id %ld, vocabulary of %lld", id, (long long)vocab);
            b->ids[b->used] = (int32_t)id;
            b->position[b->used] = (int32_t)(b->used - from);
            b->used++;
        }
        b->start[s] = b->k_start[s] = (int32_t)from;
        b->len[s] = b->k_len[s] = (int32_t)(b->used - from);
        if (b->len[s] > b->max_len)
            b->max_len = b->len[s];
        b->n_seq++;
    }
    b->tokens = mb_shape_class(b->used, b->used);
    return MB_OK;
}

/* The rows go to the encoder, too, and to the decoder behind its first token, without their last. */
static mb_status add_source(mb_batch *b, int32_t first, mb_batch **out)
{
    mb_batch *source;

    MB_TRY(mb_batch_new(TOKENS_MAX, ROWS_MAX, &source));
    *out = source;
    b->source = source;
    source->n_seq = b->n_seq;
    source->used = b->used;
    source->tokens = b->tokens;
    source->max_len = b->max_len;
    for (int64_t i = 0; i < b->used; i++) {
        source->ids[i] = b->ids[i];
        source->position[i] = b->position[i];
    }
    for (int64_t s = 0; s < ROWS_MAX; s++) {
        source->start[s] = source->k_start[s] = b->start[s];
        source->len[s] = source->k_len[s] = b->len[s];
    }
    for (int64_t i = 0; i < b->used; i++)
        b->ids[i] = b->position[i] == 0 ? first : source->ids[i - 1];
    return MB_OK;
}

static mb_status write_logits(const mb_batch *b, const mb_tensor *y, bool per_row, const char *path)
{
    const int64_t lines = per_row ? b->n_seq : b->used, width = mb_cols(y);
    FILE *f = fopen(path, "wb");

    MB_REQUIRE(f != NULL, MB_EIO, "%s cannot be written", path);
    const bool whole =
        fwrite(mb_f32(y), sizeof(float), (size_t)(lines * width), f) == (size_t)(lines * width);
    MB_REQUIRE(fclose(f) == 0 && whole, MB_EIO, "%s cannot be written", path);
    printf("%lld %lld\n", (long long)lines, (long long)width);
    return MB_OK;
}

static mb_status run(mb_session_options *o, const char *out)
{
    mb_json_doc *doc = NULL;
    mb_engine *e = NULL;
    mb_batch *b = NULL, *source = NULL;
    mb_tensor y;

    MB_TRY(mb_cpu_init());
    MB_TRY(mb_model_config_doc(o->path, &doc));
    o->head = o->labels > 0 ? MB_HEAD_SEQUENCE : mb_model_config_head(doc, MB_HEAD_CAUSAL_LM);
    mb_json_free(doc);
    MB_TRY(mb_session_open(o, &e, NULL));
    MB_TRY(mb_batch_new(TOKENS_MAX, ROWS_MAX, &b));
    for (int s = 0; s < ROWS_MAX; s++)
        b->start[s] = -1;
    MB_TRY(read_rows(b, e->model->config.vocab));
    if (o->head == MB_HEAD_SEQ2SEQ)
        MB_TRY(add_source(b, (int32_t)e->model->config.decoder_start_id, &source));
    MB_TRY(mb_engine_reserve_for(e, b, false, 0));
    MB_TRY(mb_engine_logits(e, b, NULL, &y));
    MB_TRY(write_logits(b, &y, o->head == MB_HEAD_SEQUENCE, out));
    mb_batch_free(source);
    mb_batch_free(b);
    mb_engine_free(e);
    return MB_OK;
}

int main(int argc, char **argv)
{
    mb_session_options o = {
        .trained = MB_TRAINED_NOTHING, .quiet = true, .engine = {.threads = mb_default_threads()}};
    mb_status st;

    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: forward MODEL OUT [ADAPTER [CLASSES]] < ROWS\n");
        return 2;
    }
    o.path = argv[1];
    o.adapter_path = argc > 3 ? argv[3] : NULL;
    o.labels = argc > 4 ? strtol(argv[4], NULL, 10) : 0;
    st = run(&o, argv[2]);
    if (st != MB_OK)
        fprintf(stderr, "forward: %s\n", mb_status_sentence());
    return mb_status_exit_code(st);
}
