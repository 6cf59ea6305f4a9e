/* recipes/jinja/run.c - see recipes/jinja/jinja.h: templates and runs as others see them. */
#include <string.h>

#include "core/alloc.h"
#include "recipes/jinja/inside.h"

static const mb_jinja_limits usual = {
    .steps = 20000000, .depth = 300, .memory = 1LL << 30, .output = 64 << 20};

mb_status jx_intern(mb_jinja *t, const char *p, size_t n, const char **out)
{
    jx_name *name;
    void *v;

    for (name = t->names; name != NULL; name = name->next) {
        if (strlen(name->text) == n && memcmp(name->text, p, n) == 0) {
            *out = name->text;
            return MB_OK;
        }
    }
    MB_TRY(jx_take(&t->memory, sizeof *name + n + 1, &v));
    name = v;
    memcpy(name->text, p, n);
    name->next = t->names;
    t->names = name;
    *out = name->text;
    return MB_OK;
}

const char *jx_interned(const mb_jinja *t, const char *name)
{
    for (const jx_name *k = t->names; k != NULL; k = k->next) {
        if (strcmp(k->text, name) == 0)
            return k->text;
    }
    return NULL;
}

/* Copies the text with \n for \r\n and \r, and without a newline at its end. */
static void copy_text(mb_jinja *t, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n')
            continue;
        t->text[t->n++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (t->n > 0 && t->text[t->n - 1] == '\n')
        t->n--;
}

mb_status mb_jinja_parse(const char *text, size_t n, const char *name, mb_jinja **out)
{
    mb_jinja *t;
    mb_status st;
    char *copy;
    void *p;

    MB_TRY(MB_NEW(&t));
    MB_TRY_GOTO(jx_take(&t->memory, n + 1, &p), st, fail);
    t->text = p;
    copy_text(t, text, n);
    MB_TRY_GOTO(jx_take(&t->memory, strlen(name) + 1, &p), st, fail);
    copy = p;
    memcpy(copy, name, strlen(name));
    t->name = copy;
    MB_TRY_GOTO(jx_parse(t), st, fail);
    *out = t;
    return MB_OK;
fail:
    mb_jinja_free(t);
    return st;
}

void mb_jinja_free(mb_jinja *t)
{
    if (t == NULL)
        return;
    jx_memory_release(&t->memory);
    mb_free(t);
}

bool mb_jinja_reads(const mb_jinja *t, const char *name)
{
    return jx_interned(t, name) != NULL;
}

bool mb_jinja_generates(const mb_jinja *t)
{
    return t->generates;
}

mb_status mb_jinja_run_new(const mb_jinja *t, const mb_jinja_limits *limits, mb_jinja_run **out)
{
    mb_jinja_run *r;

    MB_TRY(MB_NEW(&r));
    r->t = t;
    r->limits = limits != NULL ? *limits : usual;
    r->limits.steps = r->limits.steps > 0 ? r->limits.steps : usual.steps;
    r->limits.depth = r->limits.depth > 0 ? r->limits.depth : usual.depth;
    r->limits.memory = r->limits.memory > 0 ? r->limits.memory : usual.memory;
    r->limits.output = r->limits.output > 0 ? r->limits.output : usual.output;
    r->given.most = r->made.most = (size_t)r->limits.memory;
    *out = r;
    return MB_OK;
}

void mb_jinja_run_free(mb_jinja_run *r)
{
    if (r == NULL)
        return;
    jx_memory_release(&r->given);
    jx_memory_release(&r->made);
    mb_free(r);
}

void mb_jinja_set_now(mb_jinja_run *r, time_t now)
{
    r->now = now;
    r->has_now = true;
}

mb_status mb_jinja_set(mb_jinja_run *r, const char *name, mb_jinja_value v)
{
    const char *known = jx_interned(r->t, name);

    return known != NULL ? jx_bind(r, &r->globals, known, v) : MB_OK; /* nobody would read it */
}

mb_status mb_jinja_render(mb_jinja_run *r, mb_jinja_text *out)
{
    jx_out o = {0};
    jx_scope *top;
    mb_status st;
    void *p;

    jx_memory_release(&r->made);
    r->steps = r->depth = 0;
    r->line = 1;
    r->jump = 0;
    r->generated = 0;
    r->out = &o;
    r->rendering = true;
    st = jx_get(r, sizeof *top, &p);
    if (st == MB_OK) {
        top = p;
        top->up = &r->globals;
        st = jx_exec(r, top, r->t->body);
    }
    r->rendering = false;
    r->out = NULL;
    MB_TRY(st);
    *out = (mb_jinja_text){.text = o.n > 0 ? o.p : "", .n = o.n, .origin = o.origin};
    return MB_OK;
}
