/* recipes/tokenizers/pieces.c - the pieces of the two models SentencePiece has. */
#include "recipes/tokenizers/pieces.h"

#include <string.h>

#include "core/alloc.h"

static mb_status read_piece(tok_piece_list *l, mb_json v, size_t i, mb_vocab *vocab)
{
    int64_t type = TOK_PIECE_NORMAL, id = (int64_t)i;
    tok_piece *piece = &l->at[i];
    bool added;
    size_t n;

    if (!mb_json_is(v, MB_JSON_ARRAY) || mb_json_count(v) < (l->sentencepiece ? 4u : 2u))
        return mb_json_fault(v, "must be [piece, score]");
    MB_TRY(mb_json_string(mb_json_at(v, 0), &piece->text, &n));
    MB_TRY(mb_json_real(mb_json_at(v, 1), &piece->score));
    if (l->sentencepiece) {
        MB_TRY(mb_json_int(mb_json_at(v, 2), &type));
        MB_TRY(mb_json_int(mb_json_at(v, 3), &id));
    }
    const bool nameless = l->by_name && id == -1; /* a piece that vocab.json does not know */
    if (n > TOK_MAX_TOKEN_BYTES || (id < 0 && !nameless) || id > (int64_t)l->n * 8 + 65536)
        return mb_json_fault(v, "is a piece of %zu bytes with the id %lld", n, (long long)id);
    piece->n = (uint32_t)n;
    piece->id = (int32_t)id;
    piece->type = (uint8_t)type;
    if (nameless)
        return MB_OK;
    MB_TRY(mb_vocab_add(vocab, piece->text, n, piece->id, &added));
    return added || l->sentencepiece
               ? MB_OK
               : mb_json_fault(v, "gives the piece \"%.60s\" a second id", piece->text);
}

static mb_status read_pieces(mb_json model, mb_vocab *vocab, tok_piece_list *l)
{
    mb_json v;
    int64_t unk;
    size_t i = 0;

    MB_TRY(mb_json_need(model, "vocab", MB_JSON_ARRAY, &v));
    l->n = mb_json_count(v);
    if (l->n == 0 || l->n > INT32_MAX / 16)
        return mb_json_fault(v, "has %zu pieces", l->n);
    MB_TRY(mb_json_get_bool(model, "sentencepiece", false, &l->sentencepiece));
    MB_TRY(mb_json_get_bool(model, "by_name", false, &l->by_name));
    MB_TRY(mb_json_get_bool(model, "byte_fallback", false, &l->byte_fallback));
    MB_TRY(mb_json_get_int(model, "unk_id", -1, &unk));
    if (unk < -1 || unk >= (int64_t)l->n ||
        (unk < 0 && mb_json_is_set(mb_json_get(model, "unk_id"))))
        return mb_json_fault(mb_json_get(model, "unk_id"), "is %lld, but there are %zu pieces",
                             (long long)unk, l->n);
    if (l->by_name && unk < 0) /* whose id stands for pieces without one */
        return mb_json_fault(v, "is by name, and no unk_id says which piece is the unknown one");
    MB_TRY(MB_NEW_ARRAY(&l->at, l->n));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(read_piece(l, it.value, i++, vocab));
    l->vocab = vocab;
    l->unknown_id = -1;
    if (unk >= 0) {
        l->unknown_id = l->at[unk].id;
        if (l->unknown_id < 0)
            return mb_json_fault(v, "has no id for the unknown piece");
        for (i = 0; i < l->n; i++)
            l->at[i].id = l->at[i].id < 0 ? l->unknown_id : l->at[i].id;
        MB_TRY(mb_bytes_add(&l->unknown, l->at[unk].text, l->at[unk].n));
    }
    tok_byte_ids(vocab, l->of_byte);
    return mb_bytes_end(&l->unknown);
}

mb_status tok_piece_list_read(mb_json model, mb_vocab *vocab, tok_piece_list *out)
{
    *out = (tok_piece_list){0};
    const mb_status st = read_pieces(model, vocab, out);
    if (st != MB_OK)
        tok_piece_list_release(out);
    return st;
}

void tok_piece_list_release(tok_piece_list *l)
{
    mb_free(l->at);
    mb_bytes_release(&l->unknown);
    *l = (tok_piece_list){0};
}

mb_status tok_piece_unknown(const tok_piece_list *l, const char *text, size_t n,
                            const uint8_t *barred, mb_ids *out)
{
    bool bytes = l->byte_fallback;

    if (!l->sentencepiece || (l->by_name && !bytes)) {
        const int32_t id = mb_vocab_find(l->vocab, text, n);
        if (id >= 0 && (barred == NULL || !barred[id]))
            return mb_ids_push(out, id);
    }
    for (size_t i = 0; bytes && i < n; i++)
        bytes = l->of_byte[(uint8_t)text[i]] >= 0;
    for (size_t i = 0; bytes && i < n; i++)
        MB_TRY(mb_ids_push(out, l->of_byte[(uint8_t)text[i]]));
    if (bytes)
        return MB_OK;
    MB_REQUIRE(l->unknown_id >= 0, MB_EMODEL,
               "the text has \"%.*s\", for which the tokenizer has no piece, and it has no "
               "unknown token",
               (int)(n < 60 ? n : 60), text);
    return mb_ids_push(out, l->unknown_id);
}
