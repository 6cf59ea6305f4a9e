/* recipes/jinja/inside.h - what the files of this folder share: values, tree, run.
 *
 * A template's tree lives as long as the template and is only read. All that a run makes lives in
 * the run's memory, which is given back as a whole.
 */
#ifndef MB_RECIPES_JINJA_INSIDE_H
#define MB_RECIPES_JINJA_INSIDE_H

#include <stddef.h>

#include "recipes/jinja/jinja.h"

/* ---- memory --------------------------------------------------------------------------------- */

typedef struct jx_block jx_block;
typedef struct jx_memory {
    jx_block *block; /* the newest first */
    size_t used, most;
} jx_memory;

/* Zeroed bytes, aligned for any type. MB_EDATA: more than `most`. */
mb_status jx_take(jx_memory *m, size_t bytes, void **out) MB_MUST_USE;
void jx_memory_release(jx_memory *m);

/* ---- values --------------------------------------------------------------------------------- */

typedef mb_jinja_value jx_value;

enum jx_kind {
    JX_UNDEFINED, /* as.p: the jx_str that names it, or NULL */
    JX_NONE,
    JX_BOOL,
    JX_INT,
    JX_REAL,
    JX_STRING,
    JX_LIST,
    JX_DICT,
    JX_SPACE, /* namespace(): a dict that can be set */
    JX_LOOP,
    JX_MACRO,
    JX_FUNCTION, /* as.p: of functions[] */
    JX_METHOD,
};

enum jx_flavour { JX_PLAIN, JX_TUPLE, JX_LAZY, JX_VIEW }; /* of a list; `flag` of the value */

typedef struct jx_str {
    const char *p;
    size_t n;
    const uint16_t *origin; /* one per byte; NULL: all are `from` */
    uint16_t from;
} jx_str;

typedef struct jx_list {
    jx_value *at;
    size_t n, capacity;
} jx_list;

typedef struct jx_member {
    jx_value key, value;
} jx_member;

typedef struct jx_dict {
    jx_member *at;
    size_t n, capacity;
} jx_dict;

static inline const jx_str *jx_s(jx_value v)
{
    return v.as.p;
}
static inline jx_list *jx_l(jx_value v)
{
    return v.as.p;
}
static inline jx_dict *jx_d(jx_value v)
{
    return v.as.p;
}

/* ---- the tree ------------------------------------------------------------------------------- */

enum jx_type {
    /* expressions */
    JX_CONST,     /* value */
    JX_NAME,      /* name */
    JX_LIST_OF,   /* body */
    JX_TUPLE_OF,  /* body */
    JX_DICT_OF,   /* body: key, value, key, value ... */
    JX_ATTRIBUTE, /* a.name */
    JX_ITEM,      /* a[b] */
    JX_SLICE,     /* a[b:c:d] */
    JX_CALL,      /* a(body) */
    JX_FILTER,    /* a|name(body) */
    JX_TEST,      /* a is name(body) */
    JX_NEGATE,
    JX_POSITIVE,
    JX_NOT,
    JX_AND,
    JX_OR,
    JX_BINARY,  /* a op b */
    JX_COMPARE, /* a, then body: each a JX_OPERAND of op and a */
    JX_OPERAND,
    JX_IF_ELSE, /* a if b else c */
    JX_KEYWORD, /* name=a, in arguments */
    JX_STAR,    /* *a, in arguments */
    JX_STAR_STAR,
    /* statements */
    JX_TEXT,  /* value */
    JX_PRINT, /* a */
    JX_IF,    /* a, body, other */
    JX_FOR,   /* target a in b if c: body, else other */
    JX_SET,   /* target a = b */
    JX_SET_BLOCK,
    JX_DEFINE,     /* macro name(parameters) body */
    JX_CALL_BLOCK, /* call a, parameters, body */
    JX_FILTER_BLOCK,
    JX_WITH, /* parameters: JX_KEYWORD of names and values; body */
    JX_BREAK,
    JX_CONTINUE,
    JX_GENERATION,
    JX_DO,
};

typedef struct jx_node {
    enum jx_type type;
    int line;
    int op;           /* of JX_BINARY and JX_OPERAND: a token */
    bool recursive;   /* of JX_FOR */
    const char *name; /* interned: equal names are one pointer */
    const void *of;   /* the filter or test of `name` */
    jx_value value;
    struct jx_node *a, *b, *c, *d;
    struct jx_node *body, *other, *parameters;
    struct jx_node *next; /* in a list */
} jx_node;

typedef struct jx_name {
    struct jx_name *next;
    char text[];
} jx_name;

struct mb_jinja {
    jx_memory memory;
    char *text; /* with normal line ends */
    size_t n;
    const char *name;
    jx_name *names;
    jx_node *body;
    bool generates;
};

/* Interns p[0..n). */
mb_status jx_intern(mb_jinja *t, const char *p, size_t n, const char **out) MB_MUST_USE;
/* The interned pointer of a name the template has, NULL when it has it not. */
const char *jx_interned(const mb_jinja *t, const char *name);

/* ---- the lexer ------------------------------------------------------------------------------ */

enum jx_token_kind {
    JX_T_END,
    JX_T_TEXT,
    JX_T_BLOCK_BEGIN,
    JX_T_BLOCK_END,
    JX_T_PRINT_BEGIN,
    JX_T_PRINT_END,
    JX_T_NAME,
    JX_T_STRING,
    JX_T_INT,
    JX_T_REAL,
    /* operators: their characters, or these */
    JX_T_EQ = 256,
    JX_T_NE,
    JX_T_LE,
    JX_T_GE,
    JX_T_FLOOR,
    JX_T_POWER,
    JX_T_IN,
    JX_T_NOT_IN,
};

typedef struct jx_token {
    int kind;
    int line;
    const char *p; /* text, name; of a string what is between the quotes */
    size_t n;
    int64_t i;
    double r;
} jx_token;

typedef struct jx_lexer {
    mb_jinja *t;
    size_t at;
    int line;
    int inside;        /* 0 text, else the token that opened: JX_T_BLOCK_BEGIN, JX_T_PRINT_BEGIN */
    int open;          /* brackets not yet closed */
    char bracket[200]; /* which */
    bool line_start;   /* the last token ended a line, or none was there */
} jx_lexer;

mb_status jx_lex(jx_lexer *x, jx_token *out) MB_MUST_USE;
/* MB_EMODEL: "name:line: ..." */
mb_status jx_syntax(const mb_jinja *t, int line, const char *fmt, ...) MB_PRINTF(3, 4) MB_MUST_USE;

/* ---- a run ---------------------------------------------------------------------------------- */

typedef struct jx_out {
    char *p;
    uint16_t *origin;
    size_t n, capacity;
} jx_out;

typedef struct jx_variable {
    const char *name;
    jx_value value;
} jx_variable;

typedef struct jx_scope {
    struct jx_scope *up;
    jx_variable *at;
    size_t n, capacity;
} jx_scope;

typedef struct jx_loop {
    const jx_node *node;
    jx_scope *scope; /* around the loop */
    const jx_list *items;
    size_t at;
    int64_t depth;
    jx_value changed; /* the arguments of loop.changed */
    bool has_changed;
} jx_loop;

typedef struct jx_macro {
    const jx_node *node; /* JX_DEFINE or JX_CALL_BLOCK */
    jx_scope *scope;     /* where it was defined */
} jx_macro;

typedef struct jx_keyword {
    const char *name;
    jx_value value;
} jx_keyword;

/* Arguments of a call. */
typedef struct jx_args {
    jx_value *at;
    size_t n;
    jx_keyword *keyword;
    size_t n_keywords;
    size_t capacity, keyword_capacity;
} jx_args;

typedef struct jx_method {
    jx_value self;
    const void *of; /* of methods[] */
} jx_method;

struct mb_jinja_run {
    const mb_jinja *t;
    mb_jinja_limits limits;
    jx_memory given; /* values of the caller */
    jx_memory made;  /* by the rendering */
    bool rendering;
    jx_scope globals;
    jx_out *out;
    int64_t steps, depth, written;
    int line;
    int jump; /* 0, JX_BREAK or JX_CONTINUE */
    uint16_t generated;
    time_t now;
    bool has_now;
};

typedef mb_jinja_run jx_run;

/* MB_EDATA: "name:line: ..." */
mb_status jx_fail(jx_run *r, const char *fmt, ...) MB_PRINTF(2, 3) MB_MUST_USE;
mb_status jx_step(jx_run *r, size_t n) MB_MUST_USE; /* counts n steps */
mb_status jx_get(jx_run *r, size_t bytes, void **out) MB_MUST_USE;

/* value.c */
jx_value jx_undefined(const jx_str *name);
jx_value jx_real(double v);
mb_status jx_string_of(jx_run *r, const jx_str *s, jx_value *out) MB_MUST_USE; /* copies *s */
mb_status jx_literal(jx_run *r, const char *s, jx_value *out) MB_MUST_USE;     /* borrows s */
mb_status jx_new_list(jx_run *r, size_t capacity, int flavour, jx_value *out) MB_MUST_USE;
mb_status jx_push(jx_run *r, jx_value list, jx_value v) MB_MUST_USE;
mb_status jx_new_dict(jx_run *r, int kind, jx_value *out) MB_MUST_USE;
mb_status jx_dict_add(jx_run *r, jx_value dict, jx_value key, jx_value v) MB_MUST_USE;
mb_status jx_dict_find(jx_run *r, jx_value dict, jx_value key, jx_value *out,
                       bool *found) MB_MUST_USE;
bool jx_truth(jx_value v);
/* "str", "dict", ... as Python says it. */
const char *jx_type_name(jx_value v);
mb_status jx_equal(jx_run *r, jx_value a, jx_value b, bool *out) MB_MUST_USE;
/* -1, 0, 1; fails for what has no order. */
mb_status jx_order(jx_run *r, jx_value a, jx_value b, int *out) MB_MUST_USE;
bool jx_is_number(jx_value v); /* bool counts */
double jx_as_real(jx_value v);
bool jx_as_int(jx_value v, int64_t *out); /* of a bool or an int */
bool jx_str_is(const jx_str *s, const char *text);
uint16_t jx_origin_at(const jx_str *s, size_t i);
/* The bytes [from, to). */
jx_str jx_part(const jx_str *s, size_t from, size_t to);
size_t jx_length_chars(const jx_str *s);
/* Byte offset of the character `i`, n for the end. */
size_t jx_char_offset(const jx_str *s, size_t i);
bool jx_is_space(uint32_t c); /* str.isspace() */
/* The elements of what can be iterated: lists as they are, strings as characters, dicts as keys. */
mb_status jx_iterate(jx_run *r, jx_value v, const jx_list **out) MB_MUST_USE;

/* write.c: text of values */
mb_status jx_write(jx_run *r, jx_out *o, const char *p, size_t n, const uint16_t *origin,
                   uint16_t from) MB_MUST_USE;
mb_status jx_write_str(jx_run *r, jx_out *o, const jx_str *s) MB_MUST_USE;
mb_status jx_puts(jx_run *r, jx_out *o, const char *s) MB_MUST_USE; /* the template's own */
mb_status jx_finish(jx_run *r, const jx_out *o, jx_value *out) MB_MUST_USE;
mb_status jx_write_value(jx_run *r, jx_out *o, jx_value v) MB_MUST_USE; /* str(v) */
mb_status jx_to_str(jx_run *r, jx_value v, const jx_str **out) MB_MUST_USE;
typedef struct jx_json_style {
    int indent; /* -1: on one line */
    const char *item, *key;
    bool ascii, sort;
} jx_json_style;
mb_status jx_write_json(jx_run *r, jx_out *o, jx_value v, const jx_json_style *style,
                        int level) MB_MUST_USE;

/* parse.c */
mb_status jx_parse(mb_jinja *t) MB_MUST_USE;

/* eval.c */
mb_status jx_eval(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out) MB_MUST_USE;
mb_status jx_exec(jx_run *r, jx_scope *s, const jx_node *body) MB_MUST_USE;
mb_status jx_call(jx_run *r, jx_value f, const jx_args *args, jx_value *out) MB_MUST_USE;
mb_status jx_bind(jx_run *r, jx_scope *s, const char *name, jx_value v) MB_MUST_USE;
mb_status jx_attribute(jx_run *r, jx_value v, const char *name, jx_value *out) MB_MUST_USE;
mb_status jx_item(jx_run *r, jx_value v, jx_value key, jx_value *out) MB_MUST_USE;
mb_status jx_compare(jx_run *r, int op, jx_value a, jx_value b, bool *out) MB_MUST_USE;
mb_status jx_concat(jx_run *r, jx_value a, jx_value b, jx_value *out) MB_MUST_USE; /* strings */
mb_status jx_add(jx_run *r, jx_value a, jx_value b, jx_value *out) MB_MUST_USE;

/* filters.c, tests.c, methods.c: by name; NULL when there is none */
typedef struct jx_filter jx_filter;
typedef struct jx_check jx_check;
const jx_filter *jx_filter_named(const char *name);
const jx_check *jx_test_named(const char *name);
mb_status jx_apply(jx_run *r, const jx_filter *f, jx_value v, const jx_args *args,
                   jx_value *out) MB_MUST_USE;
mb_status jx_test(jx_run *r, const jx_check *f, jx_value v, const jx_args *args,
                  bool *out) MB_MUST_USE;
/* The method of a value of this kind, as a value; false when it has none. */
mb_status jx_method_of(jx_run *r, jx_value v, const char *name, jx_value *out,
                       bool *found) MB_MUST_USE;
mb_status jx_method_call(jx_run *r, const jx_method *m, const jx_args *args,
                         jx_value *out) MB_MUST_USE;
mb_status jx_function_named(const char *name, jx_value *out, bool *found) MB_MUST_USE;
mb_status jx_function_call(jx_run *r, jx_value f, const jx_args *args, jx_value *out) MB_MUST_USE;

/* text.c: what filters and methods do to strings */
enum { JX_LEFT = 1, JX_RIGHT = 2 };
jx_str jx_strip(const jx_str *s, const jx_str *chars, int sides); /* chars NULL: white space */
mb_status jx_split(jx_run *r, const jx_str *s, const jx_str *at, int64_t most, bool right,
                   jx_value *out) MB_MUST_USE;
mb_status jx_lines(jx_run *r, const jx_str *s, bool keep_ends, jx_value *out) MB_MUST_USE;
mb_status jx_replace(jx_run *r, const jx_str *s, const jx_str *old, const jx_str *by, int64_t most,
                     jx_value *out) MB_MUST_USE;
typedef enum jx_case { JX_LOWER, JX_UPPER, JX_CAPITAL, JX_TITLE_METHOD, JX_TITLE_FILTER } jx_case;
mb_status jx_recase(jx_run *r, const jx_str *s, jx_case how, jx_value *out) MB_MUST_USE;
mb_status jx_format(jx_run *r, const jx_str *s, const jx_list *args, jx_value *out) MB_MUST_USE;
/* Byte offset of the first (last) place of `what` in [from, n); -1. */
int64_t jx_find(const jx_str *s, const jx_str *what, size_t from, bool last);

/* arguments: by place or name; *given false when it is missing */
bool jx_arg(const jx_args *a, size_t at, const char *name, jx_value *out);
mb_status jx_arg_int(jx_run *r, const jx_args *a, size_t at, const char *name, int64_t otherwise,
                     int64_t *out) MB_MUST_USE;
mb_status jx_arg_str(jx_run *r, const jx_args *a, size_t at, const char *name, const jx_str **out,
                     const char *whose) MB_MUST_USE;

#endif
