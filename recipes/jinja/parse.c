/* recipes/jinja/parse.c - tokens become a tree: recursive descent, one token ahead.
 *
 * Expressions bind, from loose to tight: if-else, or, and, not, comparisons, + -, ~, * / // %, **,
 * unary - +, then attributes, items, calls, and last filters and tests.
 */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/jinja/inside.h"
#include "recipes/tokenizers/unicode.h"

enum { MOST_NESTING = 150, MOST_BYTES = 4 << 20 };

struct parser {
    mb_jinja *t;
    jx_lexer lexer;
    jx_token token; /* the next one */
    int depth, loops;
};

static mb_status expression(struct parser *p, jx_node **out);
static mb_status statements(struct parser *p, const char *const *ends, jx_node **out);

static mb_status advance(struct parser *p)
{
    return jx_lex(&p->lexer, &p->token);
}

static mb_status node(struct parser *p, enum jx_type type, jx_node **out)
{
    void *v;

    MB_TRY(jx_take(&p->t->memory, sizeof(jx_node), &v));
    *out = v;
    (*out)->type = type;
    (*out)->line = p->token.line;
    return MB_OK;
}

static bool is_word(const jx_token *k, const char *word)
{
    return k->kind == JX_T_NAME && strlen(word) == k->n && memcmp(k->p, word, k->n) == 0;
}

static mb_status unexpected(struct parser *p, const char *wanted)
{
    const jx_token *k = &p->token;
    char what[80];

    if (k->kind == JX_T_END)
        snprintf(what, sizeof what, "the end of the template");
    else if (k->kind == JX_T_BLOCK_END || k->kind == JX_T_PRINT_END)
        snprintf(what, sizeof what, "%s", k->kind == JX_T_BLOCK_END ? "%}" : "}}");
    else if (k->kind == JX_T_NAME || k->kind == JX_T_STRING)
        snprintf(what, sizeof what, "\"%.*s\"", (int)(k->n < 40 ? k->n : 40), k->p);
    else if (k->kind > 32 && k->kind < 127)
        snprintf(what, sizeof what, "\"%c\"", k->kind);
    else
        snprintf(what, sizeof what, "something else");
    return jx_syntax(p->t, k->line, "%s was expected and %s found", wanted, what);
}

static mb_status expect(struct parser *p, int kind, const char *what)
{
    if (p->token.kind != kind)
        return unexpected(p, what);
    return advance(p);
}

static mb_status expect_word(struct parser *p, const char *word)
{
    char wanted[40];

    snprintf(wanted, sizeof wanted, "\"%s\"", word);
    if (!is_word(&p->token, word))
        return unexpected(p, wanted);
    return advance(p);
}

static mb_status accept(struct parser *p, int kind, bool *taken)
{
    *taken = p->token.kind == kind;
    return *taken ? advance(p) : MB_OK;
}

static mb_status accept_word(struct parser *p, const char *word, bool *taken)
{
    *taken = is_word(&p->token, word);
    return *taken ? advance(p) : MB_OK;
}

static mb_status enter(struct parser *p)
{
    if (++p->depth > MOST_NESTING)
        return jx_syntax(p->t, p->token.line, "the template is nested more than %d deep",
                         MOST_NESTING);
    return MB_OK;
}

/* ---- constants ------------------------------------------------------------------------------ */

static mb_status constant(struct parser *p, jx_value v, jx_node **out)
{
    MB_TRY(node(p, JX_CONST, out));
    (*out)->value = v;
    return MB_OK;
}

static mb_status template_string(struct parser *p, const char *s, size_t n, jx_value *out)
{
    void *v;

    MB_TRY(jx_take(&p->t->memory, sizeof(jx_str), &v));
    *(jx_str *)v = (jx_str){.p = s, .n = n};
    *out = (jx_value){.kind = JX_STRING, .as.p = v};
    return MB_OK;
}

static int hex_value(const char *p, size_t n, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        const char c = p[i];

        if (c >= '0' && c <= '9')
            *out = *out * 16 + (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            *out = *out * 16 + (uint32_t)((c | 32) - 'a' + 10);
        else
            return -1;
    }
    return 0;
}

/* What stands behind a backslash at s[0..n); writes up to 4 bytes and returns how many were read,
 * 0 for what is no character. */
static size_t escape(const char *s, size_t n, char *to, size_t *written)
{
    static const char from[] = "ntrabfv\\'\"", into[] = "\n\t\r\a\b\f\v\\'\"";
    const char *at = strchr(from, s[0]);
    const size_t digits = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0;
    uint32_t c = 0;

    *written = 1;
    if (s[0] == '\n') {
        *written = 0;
        return 1;
    }
    if (at != NULL && s[0] != '\0') {
        *to = into[at - from];
        return 1;
    }
    if (s[0] >= '0' && s[0] <= '7') {
        size_t k = 0;

        for (; k < 3 && k < n && s[k] >= '0' && s[k] <= '7'; k++)
            c = c * 8 + (uint32_t)(s[k] - '0');
        *written = mb_utf8_put(c, to);
        return c == 0 ? 0 : k;
    }
    if (digits == 0) { /* no escape: the backslash stays */
        to[0] = '\\';
        return 0;
    }
    if (n < digits + 1 || hex_value(s + 1, digits, &c) != 0 || c == 0 || c > 0x10ffff)
        return 0;
    if (c >= 0xd800 && c < 0xe000)
        return 0;
    *written = mb_utf8_put(c, to);
    return digits + 1;
}

/* Adjacent strings are one. */
static mb_status string(struct parser *p, jx_node **out)
{
    const int line = p->token.line;
    size_t n = 0, capacity = 0;
    void *text = NULL, *joined;
    jx_value v;

    while (p->token.kind == JX_T_STRING) {
        const char *s = p->token.p;
        const size_t left = p->token.n;

        if (capacity < n + left + 1) { /* the old piece stays in the template's memory */
            MB_TRY(jx_take(&p->t->memory, n + left + 1, &joined));
            if (n > 0)
                memcpy(joined, text, n);
            text = joined;
            capacity = n + left + 1;
        }
        for (size_t i = 0; i < left;) {
            char *to = (char *)text + n;
            size_t written = 1, read;

            if (s[i] != '\\') {
                *to = s[i++];
            } else {
                read = escape(s + i + 1, left - i - 1, to, &written);
                if (read == 0 && (written != 1 || *to != '\\' || strchr("xuU01234567", s[i + 1])))
                    return jx_syntax(p->t, line, "\\%c in a string names no character", s[i + 1]);
                i += 1 + read;
            }
            n += written;
        }
        MB_TRY(advance(p));
    }
    MB_TRY(template_string(p, n > 0 ? text : "", n, &v));
    return constant(p, v, out);
}

/* ---- expressions ---------------------------------------------------------------------------- */

static mb_status name_node(struct parser *p, enum jx_type type, jx_node **out)
{
    if (p->token.kind != JX_T_NAME)
        return unexpected(p, "a name");
    MB_TRY(node(p, type, out));
    MB_TRY(jx_intern(p->t, p->token.p, p->token.n, &(*out)->name));
    return advance(p);
}

/* Arguments up to the closing parenthesis, whose opening one was taken. */
static mb_status arguments(struct parser *p, jx_node **out)
{
    jx_node **last = out;
    bool comma = true, star;

    while (p->token.kind != ')') {
        jx_node *a = NULL, *k = NULL;

        if (!comma)
            return unexpected(p, "\",\" or \")\"");
        if (p->token.kind == '*' || p->token.kind == JX_T_POWER) {
            star = p->token.kind == '*';
            MB_TRY(node(p, star ? JX_STAR : JX_STAR_STAR, &k));
            MB_TRY(advance(p));
            MB_TRY(expression(p, &k->a));
            a = k;
        } else {
            MB_TRY(expression(p, &a));
            if (a->type == JX_NAME && p->token.kind == '=') {
                MB_TRY(node(p, JX_KEYWORD, &k));
                k->name = a->name;
                MB_TRY(advance(p));
                MB_TRY(expression(p, &k->a));
                a = k;
            }
        }
        *last = a;
        last = &a->next;
        MB_TRY(accept(p, ',', &comma));
    }
    return advance(p);
}

/* Elements up to `close`; *tuple says whether a comma was seen. */
static mb_status elements(struct parser *p, int close, jx_node **out, bool *tuple)
{
    jx_node **last = out;
    bool comma = true;

    *tuple = false;
    while (p->token.kind != close) {
        if (!comma)
            return unexpected(p, close == ')' ? "\",\" or \")\"" : "\",\" or \"]\"");
        MB_TRY(expression(p, last));
        last = &(*last)->next;
        MB_TRY(accept(p, ',', &comma));
        *tuple |= comma;
    }
    return advance(p);
}

static mb_status dict(struct parser *p, jx_node **out)
{
    jx_node **last;
    bool comma = true;

    MB_TRY(node(p, JX_DICT_OF, out));
    MB_TRY(advance(p));
    last = &(*out)->body;
    while (p->token.kind != '}') {
        if (!comma)
            return unexpected(p, "\",\" or \"}\"");
        MB_TRY(expression(p, last));
        last = &(*last)->next;
        MB_TRY(expect(p, ':', "\":\""));
        MB_TRY(expression(p, last));
        last = &(*last)->next;
        MB_TRY(accept(p, ',', &comma));
    }
    return advance(p);
}

static mb_status primary(struct parser *p, jx_node **out)
{
    static const struct {
        const char *word;
        jx_value value;
    } words[] = {
        {"true", {.kind = JX_BOOL, .as.b = true}},
        {"True", {.kind = JX_BOOL, .as.b = true}},
        {"false", {.kind = JX_BOOL, .as.b = false}},
        {"False", {.kind = JX_BOOL, .as.b = false}},
        {"none", {.kind = JX_NONE}},
        {"None", {.kind = JX_NONE}},
    };
    const jx_token k = p->token;
    bool tuple;

    switch (k.kind) {
    case JX_T_NAME:
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            if (is_word(&k, words[i].word)) {
                MB_TRY(constant(p, words[i].value, out));
                return advance(p);
            }
        }
        return name_node(p, JX_NAME, out);
    case JX_T_STRING:
        return string(p, out);
    case JX_T_INT:
    case JX_T_REAL:
        MB_TRY(constant(p, k.kind == JX_T_INT ? mb_jinja_int(k.i) : jx_real(k.r), out));
        return advance(p);
    case '(':
        MB_TRY(node(p, JX_TUPLE_OF, out));
        MB_TRY(advance(p));
        MB_TRY(elements(p, ')', &(*out)->body, &tuple));
        if (!tuple && (*out)->body != NULL)
            *out = (*out)->body; /* only parentheses */
        return MB_OK;
    case '[':
        MB_TRY(node(p, JX_LIST_OF, out));
        MB_TRY(advance(p));
        return elements(p, ']', &(*out)->body, &tuple);
    case '{':
        return dict(p, out);
    default:
        return unexpected(p, "an expression");
    }
}

/* Inside [ ]: an index, or a slice. */
static mb_status subscript(struct parser *p, jx_node *of, jx_node **out)
{
    jx_node **part[3];
    bool more;
    int k = 0;

    MB_TRY(node(p, JX_ITEM, out));
    (*out)->a = of;
    part[0] = &(*out)->b, part[1] = &(*out)->c, part[2] = &(*out)->d;
    MB_TRY(advance(p));
    for (;; k++) {
        if (p->token.kind != ':' && p->token.kind != ']')
            MB_TRY(expression(p, part[k]));
        if (k == 2)
            break;
        MB_TRY(accept(p, ':', &more));
        if (!more)
            break;
        (*out)->type = JX_SLICE;
    }
    if ((*out)->type == JX_ITEM && (*out)->b == NULL)
        return unexpected(p, "an index");
    return expect(p, ']', "\"]\"");
}

static mb_status postfix(struct parser *p, jx_node **out)
{
    for (;;) {
        jx_node *of = *out;

        if (p->token.kind == '.') {
            MB_TRY(advance(p));
            if (p->token.kind == JX_T_INT) {
                MB_TRY(node(p, JX_ITEM, out));
                MB_TRY(constant(p, mb_jinja_int(p->token.i), &(*out)->b));
                MB_TRY(advance(p));
            } else {
                MB_TRY(name_node(p, JX_ATTRIBUTE, out));
            }
            (*out)->a = of;
        } else if (p->token.kind == '[') {
            MB_TRY(subscript(p, of, out));
        } else if (p->token.kind == '(') {
            MB_TRY(node(p, JX_CALL, out));
            (*out)->a = of;
            MB_TRY(advance(p));
            MB_TRY(arguments(p, &(*out)->body));
        } else {
            return MB_OK;
        }
    }
}

static mb_status filter(struct parser *p, jx_node *of, jx_node **out)
{
    bool open;

    MB_TRY(name_node(p, JX_FILTER, out));
    (*out)->of = jx_filter_named((*out)->name);
    if ((*out)->of == NULL)
        return jx_syntax(p->t, (*out)->line, "there is no filter \"%s\"", (*out)->name);
    (*out)->a = of;
    MB_TRY(accept(p, '(', &open));
    return open ? arguments(p, &(*out)->body) : MB_OK;
}

static mb_status test(struct parser *p, jx_node *of, jx_node **out)
{
    static const int starts[] = {JX_T_NAME, JX_T_STRING, JX_T_INT, JX_T_REAL, '[', '{'};
    bool negated, open, argument = false;
    jx_node *is;

    MB_TRY(accept_word(p, "not", &negated));
    MB_TRY(name_node(p, JX_TEST, &is));
    is->a = of;
    is->of = jx_test_named(is->name);
    if (is->of == NULL)
        return jx_syntax(p->t, is->line, "there is no test \"%s\"", is->name);
    MB_TRY(accept(p, '(', &open));
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++)
        argument |= p->token.kind == starts[i];
    if (open) {
        MB_TRY(arguments(p, &is->body));
    } else if (argument && !is_word(&p->token, "else") && !is_word(&p->token, "or") &&
               !is_word(&p->token, "and") && !is_word(&p->token, "if") &&
               !is_word(&p->token, "is") && !is_word(&p->token, "not") &&
               !is_word(&p->token, "in")) {
        MB_TRY(primary(p, &is->body));
        MB_TRY(postfix(p, &is->body));
    }
    *out = is;
    if (negated) {
        MB_TRY(node(p, JX_NOT, out));
        (*out)->a = is;
    }
    return MB_OK;
}

static mb_status filters(struct parser *p, jx_node **out)
{
    for (;;) {
        jx_node *of = *out;

        if (p->token.kind == '|') {
            MB_TRY(advance(p));
            MB_TRY(filter(p, of, out));
        } else if (is_word(&p->token, "is")) {
            MB_TRY(advance(p));
            MB_TRY(test(p, of, out));
        } else if (p->token.kind == '(') {
            MB_TRY(node(p, JX_CALL, out));
            (*out)->a = of;
            MB_TRY(advance(p));
            MB_TRY(arguments(p, &(*out)->body));
        } else {
            return MB_OK;
        }
    }
}

static mb_status unary(struct parser *p, bool with_filters, jx_node **out)
{
    MB_TRY(enter(p));
    if (p->token.kind == '-' || p->token.kind == '+') {
        MB_TRY(node(p, p->token.kind == '-' ? JX_NEGATE : JX_POSITIVE, out));
        MB_TRY(advance(p));
        MB_TRY(unary(p, false, &(*out)->a));
    } else {
        MB_TRY(primary(p, out));
    }
    MB_TRY(postfix(p, out));
    if (with_filters)
        MB_TRY(filters(p, out));
    p->depth--;
    return MB_OK;
}

/* left op right op right ..., of the operators of one level. */
static mb_status chain(struct parser *p, int level, jx_node **out)
{
    static const int levels[][5] = {
        {'+', '-', 0}, {'~', 0}, {'*', '/', JX_T_FLOOR, '%', 0}, {JX_T_POWER, 0}};

    if (level == 4)
        return unary(p, true, out);
    MB_TRY(chain(p, level + 1, out));
    for (;;) {
        jx_node *left = *out;
        int op = 0;

        for (int i = 0; levels[level][i] != 0; i++)
            op = p->token.kind == levels[level][i] ? levels[level][i] : op;
        if (op == 0)
            return MB_OK;
        MB_TRY(node(p, JX_BINARY, out));
        (*out)->op = op;
        (*out)->a = left;
        MB_TRY(advance(p));
        MB_TRY(chain(p, level + 1, &(*out)->b));
    }
}

/* The comparison that comes next, 0 for none; its words are taken. */
static mb_status comparison(struct parser *p, int *op)
{
    static const int ops[] = {JX_T_EQ, JX_T_NE, '<', '>', JX_T_LE, JX_T_GE};

    *op = 0;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (p->token.kind == ops[i])
            *op = ops[i];
    }
    if (*op != 0)
        return advance(p);
    if (is_word(&p->token, "in")) {
        *op = JX_T_IN;
        return advance(p);
    }
    if (is_word(&p->token, "not")) {
        const jx_lexer lexer = p->lexer;
        const jx_token token = p->token;

        MB_TRY(advance(p));
        if (is_word(&p->token, "in")) {
            *op = JX_T_NOT_IN;
            return advance(p);
        }
        p->lexer = lexer;
        p->token = token;
    }
    return MB_OK;
}

static mb_status compare(struct parser *p, jx_node **out)
{
    jx_node *first, **last = NULL;
    int op;

    MB_TRY(chain(p, 0, &first));
    *out = first;
    for (;;) {
        const int line = p->token.line;

        MB_TRY(comparison(p, &op));
        if (op == 0)
            return MB_OK;
        if (last == NULL) {
            MB_TRY(node(p, JX_COMPARE, out));
            (*out)->line = line;
            (*out)->a = first;
            last = &(*out)->body;
        }
        MB_TRY(node(p, JX_OPERAND, last));
        (*last)->op = op;
        MB_TRY(chain(p, 0, &(*last)->a));
        last = &(*last)->next;
    }
}

static mb_status negation(struct parser *p, jx_node **out)
{
    if (!is_word(&p->token, "not"))
        return compare(p, out);
    MB_TRY(enter(p));
    MB_TRY(node(p, JX_NOT, out));
    MB_TRY(advance(p));
    MB_TRY(negation(p, &(*out)->a));
    p->depth--;
    return MB_OK;
}

static mb_status conjunction(struct parser *p, bool either, jx_node **out)
{
    const char *word = either ? "or" : "and";

    MB_TRY(either ? conjunction(p, false, out) : negation(p, out));
    while (is_word(&p->token, word)) {
        jx_node *left = *out;

        MB_TRY(node(p, either ? JX_OR : JX_AND, out));
        (*out)->a = left;
        MB_TRY(advance(p));
        MB_TRY(either ? conjunction(p, false, &(*out)->b) : negation(p, &(*out)->b));
    }
    return MB_OK;
}

static mb_status expression(struct parser *p, jx_node **out)
{
    bool more;

    MB_TRY(enter(p));
    MB_TRY(conjunction(p, true, out));
    while (is_word(&p->token, "if")) {
        jx_node *then = *out;

        MB_TRY(node(p, JX_IF_ELSE, out));
        (*out)->a = then;
        MB_TRY(advance(p));
        MB_TRY(conjunction(p, true, &(*out)->b));
        MB_TRY(accept_word(p, "else", &more));
        if (more)
            MB_TRY(expression(p, &(*out)->c));
    }
    p->depth--;
    return MB_OK;
}

/* An expression, or several with commas: a tuple. `loop`: no if-else, for `for x in ... if ...`. */
static mb_status tuple(struct parser *p, bool loop, jx_node **out)
{
    jx_node *first, **last;
    bool comma;

    MB_TRY(loop ? conjunction(p, true, &first) : expression(p, &first));
    *out = first;
    if (p->token.kind != ',')
        return MB_OK;
    MB_TRY(node(p, JX_TUPLE_OF, out));
    (*out)->body = first;
    last = &first->next;
    MB_TRY(accept(p, ',', &comma));
    while (comma && p->token.kind != JX_T_BLOCK_END && p->token.kind != JX_T_PRINT_END &&
           p->token.kind != '=' && !is_word(&p->token, "if") && !is_word(&p->token, "recursive")) {
        MB_TRY(loop ? conjunction(p, true, last) : expression(p, last));
        last = &(*last)->next;
        MB_TRY(accept(p, ',', &comma));
    }
    return MB_OK;
}

/* ---- statements ----------------------------------------------------------------------------- */

/* a, or a, b, or (a, b), or ns.a: what is assigned to. */
static mb_status target(struct parser *p, bool space, jx_node **out)
{
    jx_node **last, *first;
    bool comma, open;

    MB_TRY(enter(p));
    MB_TRY(accept(p, '(', &open));
    if (open) {
        MB_TRY(target(p, false, out));
        MB_TRY(expect(p, ')', "\")\""));
    } else {
        MB_TRY(name_node(p, JX_NAME, out));
    }
    if (space && p->token.kind == '.') {
        first = *out;
        MB_TRY(advance(p));
        MB_TRY(name_node(p, JX_ATTRIBUTE, out));
        (*out)->a = first;
        p->depth--;
        return MB_OK;
    }
    if (p->token.kind == ',') {
        first = *out;
        MB_TRY(node(p, JX_TUPLE_OF, out));
        (*out)->body = first;
        last = &first->next;
        for (;;) {
            MB_TRY(accept(p, ',', &comma));
            if (!comma || is_word(&p->token, "in") || p->token.kind == '=' || p->token.kind == ')')
                break;
            MB_TRY(accept(p, '(', &open));
            MB_TRY(open ? target(p, false, last) : name_node(p, JX_NAME, last));
            if (open)
                MB_TRY(expect(p, ')', "\")\""));
            last = &(*last)->next;
        }
    }
    p->depth--;
    return MB_OK;
}

static mb_status end_block(struct parser *p)
{
    return expect(p, JX_T_BLOCK_END, "\"%}\"");
}

/* The word that ended statements(), and its block. */
static mb_status end_word(struct parser *p, const char *word)
{
    MB_TRY(expect_word(p, word));
    return end_block(p);
}

static mb_status if_block(struct parser *p, jx_node **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    bool more;

    MB_TRY(enter(p));
    MB_TRY(node(p, JX_IF, out));
    MB_TRY(advance(p)); /* if or elif */
    MB_TRY(tuple(p, false, &(*out)->a));
    MB_TRY(end_block(p));
    MB_TRY(statements(p, ends, &(*out)->body));
    if (is_word(&p->token, "elif")) {
        MB_TRY(if_block(p, &(*out)->other));
    } else {
        MB_TRY(accept_word(p, "else", &more));
        if (more) {
            MB_TRY(end_block(p));
            MB_TRY(statements(p, last, &(*out)->other));
        }
        MB_TRY(end_word(p, "endif"));
    }
    p->depth--;
    return MB_OK;
}

static mb_status for_block(struct parser *p, jx_node **out)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    static const char *const last[] = {"endfor", NULL};
    bool more;

    MB_TRY(node(p, JX_FOR, out));
    MB_TRY(advance(p));
    MB_TRY(target(p, false, &(*out)->a));
    MB_TRY(expect_word(p, "in"));
    MB_TRY(tuple(p, true, &(*out)->b));
    MB_TRY(accept_word(p, "if", &more));
    if (more)
        MB_TRY(expression(p, &(*out)->c));
    MB_TRY(accept_word(p, "recursive", &(*out)->recursive));
    MB_TRY(end_block(p));
    p->loops++;
    MB_TRY(statements(p, ends, &(*out)->body));
    p->loops--;
    MB_TRY(accept_word(p, "else", &more));
    if (more) {
        MB_TRY(end_block(p));
        MB_TRY(statements(p, last, &(*out)->other));
    }
    return end_word(p, "endfor");
}

static mb_status set_block(struct parser *p, jx_node **out)
{
    static const char *const ends[] = {"endset", NULL};
    bool equals;

    MB_TRY(node(p, JX_SET, out));
    MB_TRY(advance(p));
    MB_TRY(target(p, true, &(*out)->a));
    MB_TRY(accept(p, '=', &equals));
    if (equals) {
        MB_TRY(tuple(p, false, &(*out)->b));
        return end_block(p);
    }
    (*out)->type = JX_SET_BLOCK;
    while (p->token.kind == '|') {
        jx_node *of = (*out)->b;

        MB_TRY(advance(p));
        MB_TRY(filter(p, of, &(*out)->b));
    }
    MB_TRY(end_block(p));
    MB_TRY(statements(p, ends, &(*out)->body));
    return end_word(p, "endset");
}

/* (a, b=1): JX_KEYWORD of names, with a default or without. */
static mb_status parameters(struct parser *p, jx_node **out)
{
    bool comma = true, equals;

    MB_TRY(expect(p, '(', "\"(\""));
    while (p->token.kind != ')') {
        if (!comma)
            return unexpected(p, "\",\" or \")\"");
        MB_TRY(name_node(p, JX_KEYWORD, out));
        MB_TRY(accept(p, '=', &equals));
        if (equals)
            MB_TRY(expression(p, &(*out)->a));
        out = &(*out)->next;
        MB_TRY(accept(p, ',', &comma));
    }
    return advance(p);
}

/* Statements of a block that is no loop body, though it may stand in one. */
static mb_status inner_statements(struct parser *p, const char *end, jx_node **out)
{
    const char *const ends[] = {end, NULL};
    const int loops = p->loops;

    p->loops = 0;
    MB_TRY(statements(p, ends, out));
    p->loops = loops;
    return end_word(p, end);
}

static mb_status macro_block(struct parser *p, jx_node **out)
{
    jx_node *name;

    MB_TRY(node(p, JX_DEFINE, out));
    MB_TRY(advance(p));
    MB_TRY(name_node(p, JX_NAME, &name));
    (*out)->name = name->name;
    MB_TRY(parameters(p, &(*out)->parameters));
    MB_TRY(end_block(p));
    return inner_statements(p, "endmacro", &(*out)->body);
}

static mb_status call_block(struct parser *p, jx_node **out)
{
    MB_TRY(node(p, JX_CALL_BLOCK, out));
    MB_TRY(advance(p));
    (*out)->name = "caller";
    if (p->token.kind == '(')
        MB_TRY(parameters(p, &(*out)->parameters));
    MB_TRY(expression(p, &(*out)->a));
    if ((*out)->a->type != JX_CALL)
        return jx_syntax(p->t, (*out)->line, "{%% call %%} wants a call of a macro");
    MB_TRY(end_block(p));
    return inner_statements(p, "endcall", &(*out)->body);
}

static mb_status filter_block(struct parser *p, jx_node **out)
{
    MB_TRY(node(p, JX_FILTER_BLOCK, out));
    MB_TRY(advance(p));
    MB_TRY(filter(p, NULL, &(*out)->b));
    while (p->token.kind == '|') {
        jx_node *of = (*out)->b;

        MB_TRY(advance(p));
        MB_TRY(filter(p, of, &(*out)->b));
    }
    MB_TRY(end_block(p));
    return inner_statements(p, "endfilter", &(*out)->body);
}

static mb_status with_block(struct parser *p, jx_node **out)
{
    static const char *const ends[] = {"endwith", NULL};
    jx_node **last;
    bool comma = true;

    MB_TRY(node(p, JX_WITH, out));
    MB_TRY(advance(p));
    last = &(*out)->parameters;
    while (p->token.kind != JX_T_BLOCK_END) {
        if (!comma)
            return unexpected(p, "\",\" or \"%}\"");
        MB_TRY(name_node(p, JX_KEYWORD, last));
        MB_TRY(expect(p, '=', "\"=\""));
        MB_TRY(expression(p, &(*last)->a));
        last = &(*last)->next;
        MB_TRY(accept(p, ',', &comma));
    }
    MB_TRY(end_block(p));
    MB_TRY(statements(p, ends, &(*out)->body));
    return end_word(p, "endwith");
}

static mb_status generation_block(struct parser *p, jx_node **out)
{
    MB_TRY(node(p, JX_GENERATION, out));
    p->t->generates = true;
    MB_TRY(advance(p));
    MB_TRY(end_block(p));
    return inner_statements(p, "endgeneration", &(*out)->body);
}

static mb_status jump(struct parser *p, jx_node **out)
{
    const bool leave = is_word(&p->token, "break");

    if (p->loops == 0)
        return jx_syntax(p->t, p->token.line, "%s stands outside a loop",
                         leave ? "break" : "continue");
    MB_TRY(node(p, leave ? JX_BREAK : JX_CONTINUE, out));
    MB_TRY(advance(p));
    return end_block(p);
}

static mb_status do_block(struct parser *p, jx_node **out)
{
    MB_TRY(node(p, JX_DO, out));
    MB_TRY(advance(p));
    MB_TRY(tuple(p, false, &(*out)->a));
    return end_block(p);
}

static mb_status statement(struct parser *p, jx_node **out)
{
    static const struct {
        const char *word;
        mb_status (*parse)(struct parser *p, jx_node **out);
    } kinds[] = {
        {"if", if_block},     {"for", for_block},
        {"set", set_block},   {"macro", macro_block},
        {"call", call_block}, {"filter", filter_block},
        {"with", with_block}, {"generation", generation_block},
        {"break", jump},      {"continue", jump},
        {"do", do_block},
    };

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (is_word(&p->token, kinds[i].word))
            return kinds[i].parse(p, out);
    }
    if (p->token.kind != JX_T_NAME)
        return unexpected(p, "the name of a block");
    return jx_syntax(p->t, p->token.line, "the block {%% %.*s %%} is not known here",
                     (int)(p->token.n < 40 ? p->token.n : 40), p->token.p);
}

/* Up to a block that begins with one of `ends` (NULL: to the end of the template), whose word is
 * then the next token. */
static mb_status statements(struct parser *p, const char *const *ends, jx_node **out)
{
    const int line = p->token.line;

    MB_TRY(enter(p));
    for (;;) {
        const jx_token k = p->token;
        jx_value text;

        if (k.kind == JX_T_END) {
            if (ends != NULL) {
                size_t last = 0;

                while (ends[last + 1] != NULL)
                    last++;
                return jx_syntax(p->t, line, "the block that begins here is never closed by %s",
                                 ends[last]);
            }
            break;
        }
        if (k.kind == JX_T_TEXT) {
            MB_TRY(node(p, JX_TEXT, out));
            MB_TRY(template_string(p, k.p, k.n, &text));
            (*out)->value = text;
            MB_TRY(advance(p));
        } else if (k.kind == JX_T_PRINT_BEGIN) {
            MB_TRY(node(p, JX_PRINT, out));
            MB_TRY(advance(p));
            MB_TRY(tuple(p, false, &(*out)->a));
            MB_TRY(expect(p, JX_T_PRINT_END, "\"}}\""));
        } else {
            bool ended = false;

            MB_TRY(advance(p));
            for (size_t i = 0; ends != NULL && ends[i] != NULL; i++)
                ended |= is_word(&p->token, ends[i]);
            if (ended)
                break;
            MB_TRY(statement(p, out));
        }
        out = &(*out)->next;
    }
    p->depth--;
    return MB_OK;
}

mb_status jx_parse(mb_jinja *t)
{
    struct parser p = {.t = t, .lexer = {.t = t, .line = 1, .line_start = true}};
    size_t bad;

    MB_REQUIRE(t->n <= MOST_BYTES, MB_EMODEL, "%s: a template of %zu bytes; at most %d are read",
               t->name, t->n, MOST_BYTES);
    if (!mb_utf8_check(t->text, t->n, &bad) || memchr(t->text, 0, t->n) != NULL)
        return jx_syntax(t, 1, "the template is not UTF-8 text");
    MB_TRY(advance(&p));
    return statements(&p, NULL, &t->body);
}
