/* recipes/serve/json_rule.c - see recipes/serve/json_rule.h. RFC 8259 as a machine of bytes. */
#include "recipes/serve/json_rule.h"

#include <string.h>

enum {
    START, /* the object's brace */
    VALUE,
    FIRST_VALUE, /* or ] */
    FIRST_KEY,   /* or } */
    KEY,
    COLON,
    AFTER, /* a value: comma, or what closes */
    STRING,
    ESCAPE,
    HEX,
    MINUS,
    ZERO,
    INTEGER,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_DIGIT,
    LITERAL,
    DONE
};

enum { MOST_SPACES = 20 };

void mb_json_rule_begin(mb_json_rule *r)
{
    memset(r, 0, sizeof *r);
}

bool mb_json_rule_complete(const mb_json_rule *r)
{
    return r->state == DONE;
}

static bool open_one(mb_json_rule *r, char c)
{
    if (r->depth == MB_JSON_RULE_DEPTH)
        return false;
    r->open[r->depth++] = c;
    r->state = c == '{' ? FIRST_KEY : FIRST_VALUE;
    return true;
}

static bool close_one(mb_json_rule *r, char c)
{
    if (r->depth == 0 || r->open[r->depth - 1] != (c == '}' ? '{' : '['))
        return false;
    r->depth--;
    r->state = r->depth == 0 ? DONE : AFTER;
    return true;
}

static bool begin_string(mb_json_rule *r, bool key)
{
    r->state = STRING;
    r->key = key;
    r->more = 0;
    return true;
}

static bool begin_value(mb_json_rule *r, char c)
{
    switch (c) {
    case '{':
    case '[':
        return open_one(r, c);
    case '"':
        return begin_string(r, false);
    case '-':
        r->state = MINUS;
        return true;
    case '0':
        r->state = ZERO;
        return true;
    case 't':
        r->literal = "rue";
        break;
    case 'f':
        r->literal = "alse";
        break;
    case 'n':
        r->literal = "ull";
        break;
    default:
        r->state = INTEGER;
        return c >= '1' && c <= '9';
    }
    r->state = LITERAL;
    return true;
}

static bool in_string(mb_json_rule *r, unsigned char c)
{
    if (r->more > 0) { /* of a character */
        r->more--;
        return c >= 0x80 && c < 0xc0;
    }
    if (c >= 0x80) {
        r->more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        return c >= 0xc2 && c <= 0xf4;
    }
    if (c == '\\')
        r->state = ESCAPE;
    else if (c == '"')
        r->state = r->key ? COLON : AFTER;
    return c >= 0x20;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool after(mb_json_rule *r, char c)
{
    if (c == ',') {
        r->state = r->open[r->depth - 1] == '{' ? KEY : VALUE;
        return true;
    }
    return (c == '}' || c == ']') && close_one(r, c);
}

/* Inside a number: one more sign of it, or what follows a number. */
static bool in_number(mb_json_rule *r, char c)
{
    const uint8_t s = r->state;
    const bool ends = s == ZERO || s == INTEGER || s == FRACTION || s == EXPONENT_DIGIT;

    if (is_digit(c)) {
        if (s == ZERO)
            return false;
        r->state = s == MINUS   ? (c == '0' ? ZERO : INTEGER)
                   : s == POINT ? FRACTION
                   : s == EXPONENT || s == EXPONENT_SIGN || s == EXPONENT_DIGIT ? EXPONENT_DIGIT
                                                                                : s;
        return true;
    }
    if (c == '.' && (s == ZERO || s == INTEGER)) {
        r->state = POINT;
        return true;
    }
    if ((c == 'e' || c == 'E') && (s == ZERO || s == INTEGER || s == FRACTION)) {
        r->state = EXPONENT;
        return true;
    }
    if ((c == '+' || c == '-') && s == EXPONENT) {
        r->state = EXPONENT_SIGN;
        return true;
    }
    if (!ends)
        return false;
    r->state = AFTER;
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || after(r, c);
}

static bool take(mb_json_rule *r, char c)
{
    const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';

    if (r->state <= AFTER || r->state == DONE) {
        if (space)
            return r->state != DONE && ++r->spaces <= MOST_SPACES;
        r->spaces = 0;
    }
    switch (r->state) {
    case START:
        return c == '{' && open_one(r, c);
    case FIRST_VALUE:
        if (c == ']')
            return close_one(r, c);
        return begin_value(r, c);
    case VALUE:
        return begin_value(r, c);
    case FIRST_KEY:
        if (c == '}')
            return close_one(r, c);
        return c == '"' && begin_string(r, true);
    case KEY:
        return c == '"' && begin_string(r, true);
    case COLON:
        r->state = VALUE;
        return c == ':';
    case AFTER:
        return after(r, c);
    case STRING:
        return in_string(r, (unsigned char)c);
    case ESCAPE:
        r->state = c == 'u' ? HEX : STRING;
        r->more = c == 'u' ? 4 : 0;
        return c != '\0' && strchr("\"\\/bfnrtu", c) != NULL;
    case HEX:
        if (--r->more == 0)
            r->state = STRING;
        return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
    case LITERAL:
        if (c != *r->literal)
            return false;
        if (*++r->literal == '\0')
            r->state = AFTER;
        return true;
    case DONE:
        return false;
    default:
        return in_number(r, c);
    }
}

bool mb_json_rule_take(mb_json_rule *r, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!take(r, p[i]))
            return false;
    return true;
}
