/* recipes/tokenizers/added.c - finding added tokens in a text: leftmost, then longest.
 *
 * A trie over bytes: children of a node are a list of siblings, the root has a table. At each
 * position the walk goes as deep as the text allows and remembers the last token it passed.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/model.h"

struct node {
    uint32_t child, sibling; /* node numbers; 0: none (the root is nobody's child) */
    int32_t token;           /* index into the added tokens, -1: none ends here */
    uint8_t byte;
};

struct tok_trie {
    const tok_added *token;
    struct node *node;
    size_t n, capacity;
    uint32_t first[256]; /* the root's children */
};

static mb_status new_node(tok_trie *t, uint8_t byte, uint32_t sibling, uint32_t *out)
{
    MB_REQUIRE(t->n < UINT32_MAX, MB_EMODEL, "the added tokens have more than 4 GiB");
    MB_TRY(mb_grow((void **)&t->node, &t->capacity, t->n + 1, sizeof *t->node, "added tokens"));
    t->node[t->n] = (struct node){0, sibling, -1, byte};
    *out = (uint32_t)t->n++;
    return MB_OK;
}

static uint32_t child_of(const tok_trie *t, uint32_t node, uint8_t byte)
{
    if (node == 0)
        return t->first[byte];
    uint32_t c = t->node[node].child;
    while (c != 0 && t->node[c].byte != byte)
        c = t->node[c].sibling;
    return c;
}

static mb_status insert(tok_trie *t, const char *p, size_t n, int32_t token)
{
    uint32_t at = 0, next;

    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)p[i];
        next = child_of(t, at, byte);
        if (next == 0) {
            MB_TRY(new_node(t, byte, at == 0 ? 0 : t->node[at].child, &next));
            if (at == 0)
                t->first[byte] = next;
            else
                t->node[at].child = next;
        }
        at = next;
    }
    if (t->node[at].token < 0) /* of two that normalise to the same, the first */
        t->node[at].token = token;
    return MB_OK;
}

mb_status tok_trie_new(const tok_added *token, size_t n, bool normalized, tok_trie **out)
{
    tok_trie *t = NULL;
    uint32_t root;
    mb_status st = MB_OK;

    *out = NULL;
    MB_TRY(MB_NEW(&t));
    t->token = token;
    MB_TRY_GOTO(new_node(t, 0, 0, &root), st, done);
    for (size_t i = 0; i < n; i++)
        if (token[i].normalized == normalized && token[i].shown.n > 0)
            MB_TRY_GOTO(insert(t, token[i].shown.p, token[i].shown.n, (int32_t)i), st, done);
    if (t->n > 1) {
        *out = t;
        t = NULL;
    }
done:
    tok_trie_free(t);
    return st;
}

void tok_trie_free(tok_trie *t)
{
    if (t == NULL)
        return;
    mb_free(t->node);
    mb_free(t);
}

/* The longest token at text[at..n), -1 when there is none. */
static int32_t longest_at(const tok_trie *t, const char *text, size_t at, size_t n, size_t *end)
{
    int32_t best = -1;
    uint32_t node = 0;

    while (at < n && (node = child_of(t, node, (uint8_t)text[at])) != 0) {
        at++;
        if (t->node[node].token >= 0) {
            best = t->node[node].token;
            *end = at;
        }
    }
    return best;
}

/* The character that ends at `end` (> 0) begins here. */
static size_t char_before(const char *text, size_t end)
{
    do
        end--;
    while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80);
    return end;
}

static bool stands_alone(const char *text, size_t begin, size_t end, size_t n)
{
    uint32_t c;

    if (begin > 0) {
        mb_utf8_get(text + char_before(text, begin), text + begin, &c);
        if (mb_char_is_word(c))
            return false;
    }
    if (end < n) {
        mb_utf8_get(text + end, text + n, &c);
        if (mb_char_is_word(c))
            return false;
    }
    return true;
}

/* Widens a match over white space to its left (not before `floor`) and right. */
static void take_spaces(const tok_added *token, const char *text, size_t n, size_t floor,
                        size_t *begin, size_t *end)
{
    uint32_t c;

    while (token->lstrip && *begin > floor) {
        const size_t before = char_before(text, *begin);
        mb_utf8_get(text + before, text + *begin, &c);
        if (!mb_char_is_space(c))
            break;
        *begin = before;
    }
    while (token->rstrip && *end < n) {
        const size_t len = mb_utf8_get(text + *end, text + n, &c);
        if (!mb_char_is_space(c))
            break;
        *end += len;
    }
}

static mb_status push(tok_stretches *out, size_t begin, size_t end, int32_t id)
{
    MB_TRY(mb_grow((void **)&out->at, &out->capacity, out->n + 1, sizeof *out->at, "stretches"));
    out->at[out->n++] = (tok_stretch){begin, end, id};
    return MB_OK;
}

static bool any(const uint8_t *data, size_t begin, size_t end)
{
    while (begin < end && data[begin] == 0)
        begin++;
    return begin < end;
}

mb_status tok_trie_cut(const tok_trie *t, const char *text, size_t n, bool parse_special,
                       const uint8_t *data, tok_stretches *out)
{
    size_t last = 0, end = 0;

    for (size_t at = 0; t != NULL && at < n;) {
        const uint8_t byte = (uint8_t)text[at];
        const int32_t k = t->first[byte] == 0 ? -1 : longest_at(t, text, at, n, &end);
        if (k < 0) {
            at++;
            continue;
        }
        const tok_added *token = &t->token[k];
        size_t begin = at;
        at = end; /* also when the match is not wanted */
        if ((token->special && (!parse_special || (data != NULL && any(data, begin, end)))) ||
            (token->single_word && !stands_alone(text, begin, end, n)))
            continue;
        take_spaces(token, text, n, last, &begin, &end);
        if (begin > last)
            MB_TRY(push(out, last, begin, -1));
        MB_TRY(push(out, begin, end, token->id));
        last = end;
        if (at < end)
            at = end;
    }
    return last < n ? push(out, last, n, -1) : MB_OK;
}
