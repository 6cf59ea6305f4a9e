/* recipes/jinja/jinja.h - the template language of chat formats, as transformers runs it.
 *
 *     mb_jinja *t;
 *     MB_TRY(mb_jinja_parse(text, n, "chat_template", &t));     // once; any number of threads may
 *     mb_jinja_run *r;                                          // then render it, each with its own
 *     MB_TRY(mb_jinja_run_new(t, NULL, &r));
 *     MB_TRY_GOTO(mb_jinja_json(r, messages, 1, &v), st, done);
 *     MB_TRY_GOTO(mb_jinja_set(r, "messages", v), st, done);
 *     MB_TRY_GOTO(mb_jinja_render(r, &out), st, done);          // may be called again
 * done:
 *     mb_jinja_run_free(r);
 *
 * It is Jinja2 with trim_blocks, lstrip_blocks and loop controls, the globals raise_exception and
 * strftime_now, a tojson that writes what json.dumps(ensure_ascii=False) writes, and the block
 * {% generation %}. A template computes with the values it is given and with nothing else: there
 * are no attributes but those of the language's own types, no files, no environment, no includes,
 * and values never change (lists have no append). Steps, nesting, memory and output are limited.
 *
 * Every byte that is written knows where it came from: 0 for what the template itself says, else
 * the number its value was given. So what a user wrote cannot pass for a special token, and the
 * bytes of a message are found wherever the template puts them.
 *
 * Left out, each with a sentence of its own: include, import, extends, block, autoescape, and the
 * filters no published chat template was seen to use (wordwrap, urlize, xmlattr, ...).
 *
 * Sources: the template designer's documentation of Jinja2 3.1 and the behaviour of its program.
 */
#ifndef MB_RECIPES_JINJA_JINJA_H
#define MB_RECIPES_JINJA_JINJA_H

#include <stdint.h>
#include <time.h>

#include "core/json.h"
#include "core/status.h"

typedef struct mb_jinja mb_jinja;
typedef struct mb_jinja_run mb_jinja_run;

/* A value of a run; small, copied freely, good as long as the run. */
typedef struct mb_jinja_value {
    uint8_t kind;
    uint8_t flag;
    union {
        bool b;
        int64_t i;
        double r;
        void *p;
    } as;
} mb_jinja_value;

/* Limits of one rendering; 0: the usual one. */
typedef struct mb_jinja_limits {
    int64_t steps;  /* 20 million */
    int64_t depth;  /* 300: nested expressions, blocks and calls */
    int64_t memory; /* 1 GiB */
    int64_t output; /* 64 MiB */
} mb_jinja_limits;

/* Where bytes came from: the low bits are a number >= 0, and one bit says that they are inside
 * {% generation %}. */
enum {
    MB_JINJA_TEMPLATE = 0,
    MB_JINJA_MOST_ORIGINS = 0x7fff,
    MB_JINJA_GENERATED = 0x8000,
};

typedef struct mb_jinja_text {
    const char *text; /* not zero-terminated; borrowed until the run renders again */
    size_t n;
    const uint16_t *origin; /* (n) */
} mb_jinja_text;

/* Copies the text. `name` stands in front of messages: "chat_template:12: ...". MB_EMODEL: what
 * is not Jinja, or a part of it that is left out. */
mb_status mb_jinja_parse(const char *text, size_t n, const char *name, mb_jinja **out) MB_MUST_USE;
void mb_jinja_free(mb_jinja *t); /* NULL is allowed */
/* Does the template read a variable or call a function of this name? */
bool mb_jinja_reads(const mb_jinja *t, const char *name);
/* Has it a {% generation %} block? */
bool mb_jinja_generates(const mb_jinja *t);

mb_status mb_jinja_run_new(const mb_jinja *t, const mb_jinja_limits *limits,
                           mb_jinja_run **out) MB_MUST_USE;
void mb_jinja_run_free(mb_jinja_run *r); /* NULL is allowed */
/* What strftime_now counts from; without it the present. */
void mb_jinja_set_now(mb_jinja_run *r, time_t now);

/* Values. Texts are copied; every byte of them gets `origin`. */
mb_jinja_value mb_jinja_none(void);
mb_jinja_value mb_jinja_bool(bool b);
mb_jinja_value mb_jinja_int(int64_t i);
mb_status mb_jinja_string(mb_jinja_run *r, const char *s, size_t n, uint16_t origin,
                          mb_jinja_value *out) MB_MUST_USE;
mb_status mb_jinja_list(mb_jinja_run *r, mb_jinja_value *out) MB_MUST_USE;
mb_status mb_jinja_dict(mb_jinja_run *r, mb_jinja_value *out) MB_MUST_USE;
mb_status mb_jinja_append(mb_jinja_run *r, mb_jinja_value list, mb_jinja_value v) MB_MUST_USE;
/* Replaces a value of the same key in its place. The key's bytes get `origin` too. */
mb_status mb_jinja_put(mb_jinja_run *r, mb_jinja_value dict, const char *key, uint16_t origin,
                       mb_jinja_value v) MB_MUST_USE;
/* The first `n` elements of a list, as a list of its own. */
mb_status mb_jinja_head(mb_jinja_run *r, mb_jinja_value list, size_t n,
                        mb_jinja_value *out) MB_MUST_USE;
/* Any JSON value; an absent one is undefined. */
mb_status mb_jinja_json(mb_jinja_run *r, mb_json v, uint16_t origin,
                        mb_jinja_value *out) MB_MUST_USE;
/* A variable of the template. */
mb_status mb_jinja_set(mb_jinja_run *r, const char *name, mb_jinja_value v) MB_MUST_USE;

/* MB_EDATA: what the template makes of these values is an error, or raise_exception was called. */
mb_status mb_jinja_render(mb_jinja_run *r, mb_jinja_text *out) MB_MUST_USE;

#endif
