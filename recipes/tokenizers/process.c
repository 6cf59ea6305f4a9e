/* recipes/tokenizers/process.c - post-processors: what is put around one or two encoded texts.
 *
 * All kinds are read into two templates, one for a single text and one for a pair.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/model.h"

enum { A = -1, B = -2 };

static mb_status add_part(tok_template *t, int32_t id, int32_t type)
{
    MB_TRY(mb_grow((void **)&t->at, &t->capacity, t->n + 1, sizeof *t->at, "post-processor"));
    t->at[t->n++] = (tok_part){id, type};
    return MB_OK;
}

static void release(tok_template *t)
{
    mb_free(t->at);
    *t = (tok_template){0};
}

void tok_process_release(tok_process *p)
{
    release(&p->single);
    release(&p->pair);
}

/* {"SpecialToken": {"id": "[CLS]", "type_id": 0}} or {"Sequence": {"id": "A", "type_id": 0}} */
static mb_status read_piece(mb_json piece, mb_json special, bool pair, tok_template *out)
{
    mb_json v = mb_json_get(piece, "Sequence"), item;
    const bool is_text = mb_json_is_set(v);
    const char *name;
    int64_t type, id;

    if (!is_text)
        MB_TRY(mb_json_need(piece, "SpecialToken", MB_JSON_OBJECT, &v));
    MB_TRY(mb_json_need_int(v, "type_id", 0, INT32_MAX, &type));
    MB_TRY(mb_json_need(v, "id", MB_JSON_STRING, &item));
    MB_TRY(mb_json_string(item, &name, NULL));
    if (is_text) {
        if (strcmp(name, "A") != 0 && !(pair && strcmp(name, "B") == 0))
            return mb_json_fault(item, "must be \"A\"%s", pair ? " or \"B\"" : "");
        return add_part(out, *name == 'A' ? A : B, (int32_t)type);
    }
    const mb_json known = mb_json_get(special, name);
    if (!mb_json_is_set(known))
        return mb_json_fault(item, "is \"%.60s\", which is not in special_tokens", name);
    MB_TRY(mb_json_need(known, "ids", MB_JSON_ARRAY, &item));
    for (size_t i = 0; i < mb_json_count(item); i++) {
        MB_TRY(mb_json_int(mb_json_at(item, i), &id));
        if (id < 0 || id > INT32_MAX)
            return mb_json_fault(mb_json_at(item, i), "is not a token id");
        MB_TRY(add_part(out, (int32_t)id, (int32_t)type));
    }
    return MB_OK;
}

static mb_status read_template(mb_json v, const char *where, tok_process *out)
{
    mb_json pieces;
    const mb_json special = mb_json_get(v, "special_tokens");

    (void)where;
    MB_TRY(mb_json_need(v, "single", MB_JSON_ARRAY, &pieces));
    for (size_t i = 0; i < mb_json_count(pieces); i++)
        MB_TRY(read_piece(mb_json_at(pieces, i), special, false, &out->single));
    MB_TRY(mb_json_need(v, "pair", MB_JSON_ARRAY, &pieces));
    for (size_t i = 0; i < mb_json_count(pieces); i++)
        MB_TRY(read_piece(mb_json_at(pieces, i), special, true, &out->pair));
    return MB_OK;
}

/* "sep": ["[SEP]", 102] */
static mb_status read_token(mb_json v, const char *key, int32_t *out)
{
    mb_json pair;
    int64_t id;

    MB_TRY(mb_json_need(v, key, MB_JSON_ARRAY, &pair));
    MB_TRY(mb_json_int(mb_json_at(pair, 1), &id));
    if (id < 0 || id > INT32_MAX)
        return mb_json_fault(pair, "has no token id");
    *out = (int32_t)id;
    return MB_OK;
}

static mb_status add_parts(tok_template *t, size_t n, const tok_part *part)
{
    for (size_t i = 0; i < n; i++)
        MB_TRY(add_part(t, part[i].id, part[i].type));
    return MB_OK;
}

static mb_status read_bert(mb_json v, const char *where, tok_process *out)
{
    int32_t cls, sep;

    (void)where;
    MB_TRY(read_token(v, "cls", &cls));
    MB_TRY(read_token(v, "sep", &sep));
    MB_TRY(add_parts(&out->single, 3, (tok_part[]){{cls, 0}, {A, 0}, {sep, 0}}));
    return add_parts(&out->pair, 5, (tok_part[]){{cls, 0}, {A, 0}, {sep, 0}, {B, 1}, {sep, 1}});
}

static mb_status read_roberta(mb_json v, const char *where, tok_process *out)
{
    int32_t cls, sep;

    (void)where;
    MB_TRY(read_token(v, "cls", &cls));
    MB_TRY(read_token(v, "sep", &sep));
    MB_TRY(add_parts(&out->single, 3, (tok_part[]){{cls, 0}, {A, 0}, {sep, 0}}));
    return add_parts(&out->pair, 6,
                     (tok_part[]){{cls, 0}, {A, 0}, {sep, 0}, {sep, 0}, {B, 0}, {sep, 0}});
}

/* It only moves offsets, which are not kept here. */
static mb_status read_byte_level(mb_json v, const char *where, tok_process *out)
{
    (void)v, (void)where, (void)out;
    return MB_OK;
}

static const struct {
    const char *type;
    mb_status (*read)(mb_json v, const char *where, tok_process *out);
} kinds[] = {
    {"TemplateProcessing", read_template},
    {"BertProcessing", read_bert},
    {"RobertaProcessing", read_roberta},
    {"ByteLevel", read_byte_level},
};

static mb_status read_any(mb_json v, const char *where, int depth, tok_process *out)
{
    const char *type;
    mb_json item;

    MB_TRY(mb_json_need(v, "type", MB_JSON_STRING, &item));
    MB_TRY(mb_json_string(item, &type, NULL));
    if (strcmp(type, "Sequence") == 0) {
        MB_REQUIRE(depth < 16, MB_EMODEL, "%s: post-processors nested more than 16 deep", where);
        MB_TRY(mb_json_need(v, "processors", MB_JSON_ARRAY, &item));
        for (size_t i = 0; i < mb_json_count(item); i++)
            MB_TRY(read_any(mb_json_at(item, i), where, depth + 1, out));
        return MB_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) != 0)
            continue;
        MB_REQUIRE(out->single.n == 0 || kinds[i].read == read_byte_level, MB_ENOTSUP,
                   "%s: two post-processors that add tokens are not supported", where);
        return kinds[i].read(v, where, out);
    }
    return MB_RAISE(MB_ENOTSUP, "%s: the post_processor \"%.60s\" is not supported", where, type);
}

mb_status tok_process_read(mb_json v, const char *where, tok_process *out)
{
    if (mb_json_is_set(v))
        MB_TRY(read_any(v, where, 0, out));
    if (out->single.n == 0) {
        MB_TRY(add_part(&out->single, A, 0));
        MB_TRY(add_parts(&out->pair, 2, (tok_part[]){{A, 0}, {B, 1}}));
    }
    return MB_OK;
}
