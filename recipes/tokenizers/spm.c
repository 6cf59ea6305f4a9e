/* recipes/tokenizers/spm.c - reading a SentencePiece file. */
#include "recipes/tokenizers/spm.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/protobuf.h"

/* Field numbers of sentencepiece_model.proto. */
enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3, DENORMALIZER = 5 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { MODEL_TYPE = 3, WHITESPACE_AS_SUFFIX = 24, BYTE_FALLBACK = 35, UNK_SURFACE = 44 };
enum { CHARSMAP = 2, ADD_DUMMY_PREFIX = 3, REMOVE_EXTRA = 4, ESCAPE = 5 };
enum { UNIGRAM = 1, BPE = 2 };

static mb_status read_piece(tok_spm *m, mb_proto from)
{
    tok_spm_piece piece = {.type = TOK_PIECE_NORMAL};
    mb_field f;
    size_t bad;

    while (mb_proto_more(&from)) {
        MB_TRY(mb_proto_next(&from, &f));
        if (f.number == PIECE_TEXT && f.wire == MB_WIRE_BYTES) {
            piece.text = f.p;
            piece.n = f.n;
        } else if (f.number == PIECE_SCORE && f.wire == MB_WIRE_FIXED32) {
            piece.score = mb_field_float(&f);
        } else if (f.number == PIECE_TYPE && f.wire == MB_WIRE_VARINT) {
            MB_REQUIRE(f.value >= TOK_PIECE_NORMAL && f.value <= TOK_PIECE_BYTE, MB_EMODEL,
                       "%s: piece %zu has the type %llu", from.where, m->n,
                       (unsigned long long)f.value);
            piece.type = (int)f.value;
        }
    }
    MB_REQUIRE(piece.n > 0 && piece.n <= TOK_MAX_TOKEN_BYTES &&
                   mb_utf8_check(piece.text, piece.n, &bad) &&
                   memchr(piece.text, '\0', piece.n) == NULL,
               MB_EMODEL, "%s: piece %zu is not a text of 1 to %d bytes of UTF-8 without zeros",
               from.where, m->n, TOK_MAX_TOKEN_BYTES);
    MB_REQUIRE(isfinite(piece.score), MB_EMODEL, "%s: piece %zu has the score %g", from.where, m->n,
               (double)piece.score);
    if (piece.type == TOK_PIECE_UNKNOWN) {
        MB_REQUIRE(m->unknown < 0, MB_EMODEL, "%s: pieces %lld and %zu are both the unknown one",
                   from.where, (long long)m->unknown, m->n);
        m->unknown = (int64_t)m->n;
    }
    MB_TRY(mb_grow((void **)&m->piece, &m->capacity, m->n + 1, sizeof *m->piece, "pieces"));
    m->piece[m->n++] = piece;
    return MB_OK;
}

static mb_status read_trainer(tok_spm *m, mb_proto from)
{
    mb_field f;

    while (mb_proto_more(&from)) {
        MB_TRY(mb_proto_next(&from, &f));
        if (f.number == UNK_SURFACE && f.wire == MB_WIRE_BYTES) {
            m->surface = f.p;
            m->n_surface = f.n;
        }
        if (f.wire != MB_WIRE_VARINT)
            continue;
        if (f.number == MODEL_TYPE) {
            MB_REQUIRE(f.value == UNIGRAM || f.value == BPE, MB_ENOTSUP,
                       "%s: SentencePiece models of type %llu (word or char) are not supported",
                       from.where, (unsigned long long)f.value);
            m->bpe = f.value == BPE;
        } else if (f.number == WHITESPACE_AS_SUFFIX) {
            m->suffix = f.value != 0;
        } else if (f.number == BYTE_FALLBACK) {
            m->byte_fallback = f.value != 0;
        }
    }
    return MB_OK;
}

static mb_status read_normalizer(tok_spm *m, mb_proto from)
{
    mb_field f;

    while (mb_proto_more(&from)) {
        MB_TRY(mb_proto_next(&from, &f));
        if (f.number == CHARSMAP && f.wire == MB_WIRE_BYTES) {
            m->charsmap = f.p;
            m->n_charsmap = f.n;
        } else if (f.wire == MB_WIRE_VARINT) {
            bool *flag = f.number == ADD_DUMMY_PREFIX ? &m->prefix
                         : f.number == REMOVE_EXTRA   ? &m->shrink
                         : f.number == ESCAPE         ? &m->escape
                                                      : NULL;
            if (flag != NULL)
                *flag = f.value != 0;
        }
    }
    return MB_OK;
}

static mb_status refuse_denormalizer(mb_proto from)
{
    mb_field f;

    while (mb_proto_more(&from)) {
        MB_TRY(mb_proto_next(&from, &f));
        MB_REQUIRE(f.number != CHARSMAP || f.n == 0, MB_ENOTSUP,
                   "%s: a denormalizer is not supported", from.where);
    }
    return MB_OK;
}

static mb_status read_all(tok_spm *m, const char *bytes, size_t n, const char *where)
{
    mb_proto from = {bytes, bytes + n, where};
    mb_field f;

    while (mb_proto_more(&from)) {
        MB_TRY(mb_proto_next(&from, &f));
        const mb_proto inner = {f.p, f.p + f.n, where};
        if (f.wire != MB_WIRE_BYTES)
            continue;
        if (f.number == PIECES)
            MB_TRY(read_piece(m, inner));
        else if (f.number == TRAINER)
            MB_TRY(read_trainer(m, inner));
        else if (f.number == NORMALIZER)
            MB_TRY(read_normalizer(m, inner));
        else if (f.number == DENORMALIZER)
            MB_TRY(refuse_denormalizer(inner));
    }
    MB_REQUIRE(m->n > 0 && m->n < INT32_MAX / 16, MB_EMODEL,
               "%s: not a SentencePiece model: it has %zu pieces", where, m->n);
    MB_REQUIRE(m->unknown >= 0, MB_EMODEL, "%s: none of the %zu pieces is the unknown one", where,
               m->n);
    return MB_OK;
}

mb_status tok_spm_read(const char *bytes, size_t n, const char *where, tok_spm *out)
{
    static const char surface[] = " \xe2\x81\x87 ";

    *out = (tok_spm){.unknown = -1,
                     .prefix = true,
                     .shrink = true,
                     .escape = true,
                     .surface = surface,
                     .n_surface = sizeof surface - 1};
    const mb_status st = read_all(out, bytes, n, where);
    if (st != MB_OK)
        tok_spm_release(out);
    return st;
}

void tok_spm_release(tok_spm *m)
{
    mb_free(m->piece);
    *m = (tok_spm){0};
}
