/* recipes/data/nested.c - see recipes/data/nested.h. */
#include "recipes/data/nested.h"

#include <string.h>

#include "core/alloc.h"
#include "core/json.h"

struct mb_nested {
    mb_json_doc *doc;
    size_t paragraph, question;
    char *text; /* of the row given last */
};

static bool is_paragraph(mb_json p)
{
    return mb_json_is(mb_json_get(p, "context"), MB_JSON_STRING) &&
           mb_json_is(mb_json_get(p, "qas"), MB_JSON_ARRAY);
}

mb_status mb_nested_open(const char *text, size_t n, const char *name, int64_t line,
                         mb_nested **out)
{
    static const char key[] = "\"paragraphs\"";
    mb_json_doc *doc;
    mb_status st;

    *out = NULL;
    if (memmem(text, n, key, sizeof key - 1) == NULL)
        return MB_OK;
    MB_TRY(mb_json_parse(text, n, name, line, MB_EDATA, &doc));
    const mb_json list = mb_json_get(mb_json_root(doc), "paragraphs");
    if (mb_json_is(list, MB_JSON_ARRAY) &&
        (mb_json_count(list) == 0 || is_paragraph(mb_json_at(list, 0)))) {
        st = MB_NEW(out);
        if (st == MB_OK) {
            (*out)->doc = doc;
            return MB_OK;
        }
    } else {
        st = MB_OK;
    }
    mb_json_free(doc);
    return st;
}

void mb_nested_close(mb_nested *x)
{
    if (x == NULL)
        return;
    mb_json_free(x->doc);
    mb_free(x->text);
    mb_free(x);
}

static mb_status make_row(mb_json article, mb_json paragraph, mb_json question, char **text,
                          size_t *n)
{
    const mb_json title = mb_json_get(article, "title");
    mb_json_doc *row;
    mb_status st = MB_OK;

    MB_TRY(mb_json_doc_new("question", &row));
    if (mb_json_is_set(title))
        MB_TRY_GOTO(mb_json_set(mb_json_root(row), "title", title), st, done);
    MB_TRY_GOTO(mb_json_set(mb_json_root(row), "context", mb_json_get(paragraph, "context")), st,
                done);
    for (mb_json_it it = mb_json_first(question); mb_json_more(&it); mb_json_next(&it))
        MB_TRY_GOTO(mb_json_set(mb_json_root(row), it.key, it.value), st, done);
    st = mb_json_text(mb_json_root(row), 0, text, n);
done:
    mb_json_free(row);
    return st;
}

mb_status mb_nested_next(mb_nested *x, const char **text, size_t *n, bool *more)
{
    const mb_json article = mb_json_root(x->doc), list = mb_json_get(article, "paragraphs");

    mb_free(x->text);
    x->text = NULL;
    for (; x->paragraph < mb_json_count(list); x->paragraph++, x->question = 0) {
        const mb_json paragraph = mb_json_at(list, x->paragraph);
        const mb_json questions = mb_json_get(paragraph, "qas");
        if (!is_paragraph(paragraph))
            return mb_json_fault(paragraph, "has no \"context\" and \"qas\"");
        if (x->question >= mb_json_count(questions))
            continue;
        const mb_json question = mb_json_at(questions, x->question++);
        if (!mb_json_is(question, MB_JSON_OBJECT))
            return mb_json_fault(question, "must be an object");
        MB_TRY(make_row(article, paragraph, question, &x->text, n));
        *text = x->text;
        *more = true;
        return MB_OK;
    }
    *more = false;
    return MB_OK;
}
