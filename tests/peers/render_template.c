/* tests/peers/render_template.c - helper of tests/peers/templates.py: Jinja texts rendered.
 *
 * Reads lines of JSON {"template": text, "values": {name: value}} and writes for each a line
 * {"text": ..., "generated": ...} or {"error": sentence}. "generated" is what was written inside
 * {% generation %}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/jinja/jinja.h"

static mb_status render(mb_json line, char **text, char **generated)
{
    mb_json values = mb_json_get(line, "values");
    mb_jinja *t = NULL;
    mb_jinja_run *r = NULL;
    mb_jinja_text out;
    const char *source;
    size_t n, at = 0;
    mb_status st;

    MB_TRY(mb_json_string(mb_json_get(line, "template"), &source, &n));
    MB_TRY(mb_jinja_parse(source, n, "template", &t));
    MB_TRY_GOTO(mb_jinja_run_new(t, NULL, &r), st, done);
    for (mb_json_it it = mb_json_first(values); mb_json_more(&it); mb_json_next(&it)) {
        mb_jinja_value v;

        MB_TRY_GOTO(mb_jinja_json(r, it.value, 1, &v), st, done);
        MB_TRY_GOTO(mb_jinja_set(r, it.key, v), st, done);
    }
    MB_TRY_GOTO(mb_jinja_render(r, &out), st, done);
    MB_TRY_GOTO(mb_strndup(out.text, out.n, text), st, done);
    MB_TRY_GOTO(mb_strndup(out.text, out.n, generated), st, done);
    for (size_t i = 0; i < out.n; i++) {
        if (out.origin[i] & MB_JINJA_GENERATED)
            (*generated)[at++] = out.text[i];
    }
    (*generated)[at] = '\0';
done:
    mb_jinja_run_free(r);
    mb_jinja_free(t);
    return st;
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;

    while ((n = getline(&line, &capacity, stdin)) > 0) {
        mb_json_doc *in, *out;
        char *text = NULL, *generated = NULL, *json = NULL;

        if (mb_json_parse(line, (size_t)n, "stdin", 0, MB_EDATA, &in) != MB_OK ||
            mb_json_doc_new("answer", &out) != MB_OK) {
            fprintf(stderr, "%s\n", mb_status_sentence());
            return 1;
        }
        mb_json root = mb_json_root(out);
        mb_status st = render(mb_json_root(in), &text, &generated);
        if (st == MB_OK)
            st = mb_json_set_string(root, "text", text);
        if (st == MB_OK)
            st = mb_json_set_string(root, "generated", generated);
        if (st != MB_OK && mb_json_set_string(root, "error", mb_status_sentence()) != MB_OK)
            return 1;
        mb_status_clear();
        if (mb_json_text(root, 0, &json, NULL) != MB_OK)
            return 1;
        puts(json);
        mb_free(json);
        mb_free(text);
        mb_free(generated);
        mb_json_free(in);
        mb_json_free(out);
    }
    free(line);
    return 0;
}
