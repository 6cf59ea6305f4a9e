/* recipes/tokenizers/split.c - pre-tokenizers: cutting a text into the words a model looks at. */
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/steps.h"

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Turns found matches into pieces, as `behavior` says. */
static mb_status settle(enum tok_behavior behavior, const mb_spans *found, mb_spans *out)
{
    const size_t first = out->n;
    bool before = false;

    for (size_t i = 0; i < found->n; i++) {
        const mb_span f = found->at[i];
        mb_span *last = out->n > first ? &out->at[out->n - 1] : NULL;
        if (behavior == TOK_REMOVED && f.match)
            continue;
        if (behavior == TOK_CONTIGUOUS && last != NULL && last->match == f.match)
            last->end = f.end;
        else if (behavior == TOK_MERGED_WITH_PREVIOUS && last != NULL && f.match && !before)
            last->end = f.end;
        /* A match goes to the next stretch unless that is a match too. */
        else if (behavior == TOK_MERGED_WITH_NEXT && last != NULL && before && !f.match)
            last->end = f.end;
        else
            MB_TRY(mb_spans_push(out, f.begin, f.end, f.match));
        before = f.match;
    }
    return MB_OK;
}

static void swap_spans(tok_pieces *p)
{
    const mb_spans swap = p->span;
    p->span = p->spare_span;
    p->spare_span = swap;
}

static void swap_text(tok_pieces *p)
{
    const mb_bytes swap = p->own;
    p->own = p->spare;
    p->spare = swap;
    p->text = p->own.p;
    p->n = p->own.n;
}

static mb_status split_all(const tok_pattern *pattern, enum tok_behavior behavior, bool invert,
                           tok_pieces *p)
{
    p->spare_span.n = 0;
    for (size_t i = 0; i < p->span.n; i++) {
        const mb_span piece = p->span.at[i];
        p->found.n = 0;
        MB_TRY(tok_pattern_split(pattern, p->text + piece.begin, piece.end - piece.begin,
                                 piece.begin, &p->found));
        for (size_t k = 0; invert && k < p->found.n; k++)
            p->found.at[k].match = !p->found.at[k].match;
        MB_TRY(settle(behavior, &p->found, &p->spare_span));
    }
    swap_spans(p);
    return MB_OK;
}

/* Split and everything that is one: pattern, behavior, flag[0] = invert. */
static mb_status cut_split(const tok_stage *s, tok_pieces *p)
{
    return split_all(&s->pattern, s->behavior, s->flag[0], p);
}

static mb_status read_split(mb_json v, const char *where, tok_stage *s)
{
    MB_TRY(tok_read_pattern(v, where, &s->pattern));
    MB_TRY(mb_json_get_bool(v, "invert", false, &s->flag[0]));
    return tok_read_behavior(v, where, TOK_ISOLATED, &s->behavior);
}

static mb_status read_digits(mb_json v, const char *where, tok_stage *s)
{
    bool each;

    (void)where;
    MB_TRY(mb_json_get_bool(v, "individual_digits", false, &each));
    s->pattern.is = mb_char_is_number;
    s->behavior = each ? TOK_ISOLATED : TOK_CONTIGUOUS;
    return MB_OK;
}

static mb_status read_punctuation(mb_json v, const char *where, tok_stage *s)
{
    s->pattern.is = mb_char_is_punctuation;
    return tok_read_behavior(v, where, TOK_ISOLATED, &s->behavior);
}

static mb_status read_whitespace(mb_json v, const char *where, tok_stage *s)
{
    static const char words[] = "[\\w\\p{Join_Control}]+|[^\\w\\s\\p{Join_Control}]+";

    (void)v;
    s->behavior = TOK_REMOVED;
    s->flag[0] = true;
    return mb_regex_new(words, sizeof words - 1, where, &s->pattern.regex);
}

static mb_status read_whitespace_split(mb_json v, const char *where, tok_stage *s)
{
    (void)v, (void)where;
    s->pattern.is = mb_char_is_space;
    s->behavior = TOK_REMOVED;
    return MB_OK;
}

static mb_status read_delimiter(mb_json v, const char *where, tok_stage *s)
{
    mb_json delimiter;

    (void)where;
    MB_TRY(mb_json_need(v, "delimiter", MB_JSON_STRING, &delimiter));
    s->behavior = TOK_REMOVED;
    return tok_read_content(v, "delimiter", "", &s->pattern.literal);
}

static mb_status cut_bert(const tok_stage *s, tok_pieces *p)
{
    const tok_pattern space = {.is = mb_char_is_space}, mark = {.is = mb_char_is_punctuation};

    (void)s;
    MB_TRY(split_all(&space, TOK_REMOVED, false, p));
    return split_all(&mark, TOK_ISOLATED, false, p);
}

/* flag[0] = add_prefix_space, flag[1] = use_regex. */
static mb_status read_byte_level(mb_json v, const char *where, tok_stage *s)
{
    MB_TRY(mb_json_get_bool(v, "add_prefix_space", true, &s->flag[0]));
    MB_TRY(mb_json_get_bool(v, "use_regex", true, &s->flag[1]));
    return s->flag[1]
               ? mb_regex_new(gpt2_pattern, sizeof gpt2_pattern - 1, where, &s->pattern.regex)
               : MB_OK;
}

/* Rewrites every piece through `piece`, which adds it to p->spare. */
static mb_status rewrite(const tok_stage *s, tok_pieces *p,
                         mb_status (*piece)(const tok_stage *s, tok_pieces *p, mb_span at))
{
    p->spare.n = 0;
    p->spare_span.n = 0;
    for (size_t i = 0; i < p->span.n; i++) {
        const size_t begin = p->spare.n;
        MB_TRY(piece(s, p, p->span.at[i]));
        if (p->spare.n > begin)
            MB_TRY(mb_spans_push(&p->spare_span, begin, p->spare.n, false));
    }
    swap_spans(p);
    swap_text(p);
    return MB_OK;
}

static mb_status add_prefix_space(const tok_stage *s, tok_pieces *p, mb_span at)
{
    (void)s;
    if ((at.begin == at.end || p->text[at.begin] != ' ') && !(p->goes_on && at.begin == 0))
        MB_TRY(mb_bytes_add(&p->spare, " ", 1));
    return mb_bytes_add(&p->spare, p->text + at.begin, at.end - at.begin);
}

static mb_status add_byte_chars(const tok_stage *s, tok_pieces *p, mb_span at)
{
    (void)s;
    MB_TRY(mb_bytes_reserve(&p->spare, 2 * (at.end - at.begin)));
    char *out = p->spare.p + p->spare.n;
    for (size_t i = at.begin; i < at.end; i++) {
        const uint8_t byte = (uint8_t)p->text[i];
        if (byte > 32 && byte < 127)
            *out++ = (char)byte;
        else
            out += mb_utf8_put(tok_byte_to_char(byte), out);
    }
    p->spare.n = (size_t)(out - p->spare.p);
    return MB_OK;
}

static mb_status cut_byte_level(const tok_stage *s, tok_pieces *p)
{
    if (s->flag[0])
        MB_TRY(rewrite(s, p, add_prefix_space));
    if (s->flag[1])
        MB_TRY(split_all(&s->pattern, TOK_ISOLATED, false, p));
    return rewrite(s, p, add_byte_chars);
}

static mb_status add_metaspaces(const tok_stage *s, tok_pieces *p, mb_span at)
{
    const mb_bytes *mark = &s->content;
    const size_t n = at.end - at.begin;
    const bool starts = (n > 0 && p->text[at.begin] == ' ') ||
                        (n >= mark->n && memcmp(p->text + at.begin, mark->p, mark->n) == 0);

    const bool first = at.begin == 0;

    if (s->flag[0] && !starts && (s->flag[1] ? p->at_start && first : !(p->goes_on && first)))
        MB_TRY(mb_bytes_add(&p->spare, mark->p, mark->n));
    for (size_t i = at.begin; i < at.end; i++) {
        if (p->text[i] == ' ')
            MB_TRY(mb_bytes_add(&p->spare, mark->p, mark->n));
        else
            MB_TRY(mb_bytes_add(&p->spare, p->text + i, 1));
    }
    return MB_OK;
}

static mb_status cut_metaspace(const tok_stage *s, tok_pieces *p)
{
    const tok_pattern mark = {.literal = s->content};

    MB_TRY(rewrite(s, p, add_metaspaces));
    return s->flag[2] ? split_all(&mark, TOK_MERGED_WITH_NEXT, false, p) : MB_OK;
}

static const tok_step steps[] = {
    {.type = "BertPreTokenizer", .cut = cut_bert},
    {.type = "ByteLevel", .read = read_byte_level, .cut = cut_byte_level},
    {.type = "CharDelimiterSplit", .read = read_delimiter, .cut = cut_split},
    {.type = "Digits", .read = read_digits, .cut = cut_split},
    {.type = "Metaspace", .read = tok_read_metaspace, .cut = cut_metaspace},
    {.type = "Punctuation", .read = read_punctuation, .cut = cut_split},
    {.type = "Split", .read = read_split, .cut = cut_split},
    {.type = "Whitespace", .read = read_whitespace, .cut = cut_split},
    {.type = "WhitespaceSplit", .read = read_whitespace_split, .cut = cut_split},
};

const tok_family tok_pretokenizers = {"pre_tokenizer", "pretokenizers", steps,
                                      sizeof steps / sizeof *steps};

mb_status tok_cut(const tok_chain *c, tok_pieces *p)
{
    p->span.n = 0;
    if (p->n == 0)
        return MB_OK;
    MB_TRY(mb_spans_push(&p->span, 0, p->n, false));
    for (size_t i = 0; i < c->n; i++)
        MB_TRY(c->at[i].step->cut(&c->at[i], p));
    return MB_OK;
}

void tok_pieces_release(tok_pieces *p)
{
    mb_bytes_release(&p->own);
    mb_bytes_release(&p->spare);
    mb_spans_release(&p->span);
    mb_spans_release(&p->spare_span);
    mb_spans_release(&p->found);
}
