/* recipes/serve/multipart.c - see recipes/serve/multipart.h. */
#include "recipes/serve/multipart.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { BOUNDARY = 70, HEAD = 4096 };

/* The value of a parameter of a header: name=value or name="value". False: it is not there. */
static bool parameter(const char *header, size_t n, const char *name, char *out, size_t size)
{
    const size_t n_name = strlen(name);

    for (const char *p = header, *end = header + n; p < end; p++) {
        size_t length = 0;

        if (*p != ';')
            continue;
        for (p++; p < end && (*p == ' ' || *p == '\t'); p++)
            ;
        if ((size_t)(end - p) <= n_name || strncasecmp(p, name, n_name) != 0 || p[n_name] != '=') {
            p--;
            continue;
        }
        p += n_name + 1;
        const bool quoted = p < end && *p == '"';
        for (p += quoted; p < end && (quoted ? *p != '"' : *p != ';' && *p != ' '); p++) {
            if (*p == '\\' && quoted && p + 1 < end)
                p++;
            if (length + 1 >= size)
                return false;
            out[length++] = *p;
        }
        out[length] = '\0';
        return true;
    }
    return false;
}

static mb_status read_head(const char *p, size_t n, mb_form_field *f)
{
    static const char disposition[] = "content-disposition:";

    f->name[0] = f->file[0] = '\0';
    for (size_t at = 0; at < n;) {
        const char *line = p + at, *stop = memchr(line, '\n', n - at);
        const size_t length = stop != NULL ? (size_t)(stop - line) : n - at;

        if (length >= sizeof disposition - 1 &&
            strncasecmp(line, disposition, sizeof disposition - 1) == 0) {
            const size_t cr = length > 0 && line[length - 1] == '\r';

            if (!parameter(line, length - cr, "name", f->name, sizeof f->name))
                f->name[0] = '\0';
            if (!parameter(line, length - cr, "filename", f->file, sizeof f->file))
                f->file[0] = '\0';
        }
        at += length + 1;
    }
    MB_REQUIRE(f->name[0] != '\0', MB_EARG, "a field of the form has no name, or too long a one");
    return MB_OK;
}

mb_status mb_form_parse(const char *type, const char *body, size_t n, mb_form *out)
{
    char mark[BOUNDARY + 8] = "\r\n--";
    const char *p, *end = body + n, *next;
    size_t n_mark;

    out->n = 0;
    MB_REQUIRE(type != NULL && strncasecmp(type, "multipart/form-data", 19) == 0, MB_EARG,
               "a form is expected: Content-Type multipart/form-data");
    MB_REQUIRE(parameter(type, strlen(type), "boundary", mark + 4, BOUNDARY + 1) && mark[4] != '\0',
               MB_EARG, "the form's Content-Type names no boundary");
    n_mark = strlen(mark);
    /* the first mark may stand at the very beginning */
    if (n >= n_mark - 2 && memcmp(body, mark + 2, n_mark - 2) == 0) {
        p = body + n_mark - 2;
    } else {
        p = memmem(body, n, mark, n_mark);
        MB_REQUIRE(p != NULL, MB_EARG, "the form does not hold its boundary");
        p += n_mark;
    }
    for (;;) {
        mb_form_field *f = &out->field[out->n];
        const char *head;

        if (end - p >= 2 && p[0] == '-' && p[1] == '-')
            return MB_OK;
        MB_REQUIRE(end - p >= 2 && p[0] == '\r' && p[1] == '\n', MB_EARG,
                   "the form is broken behind a boundary");
        head = p + 2;
        MB_REQUIRE(out->n < MB_FORM_FIELDS, MB_EARG, "the form has more than %d fields",
                   MB_FORM_FIELDS);
        p = memmem(head, (size_t)(end - head) < HEAD ? (size_t)(end - head) : HEAD, "\r\n\r\n", 4);
        MB_REQUIRE(p != NULL, MB_EARG, "a field of the form has no end of its head");
        MB_TRY(read_head(head, (size_t)(p - head), f));
        f->value = p + 4;
        next =
            memmem(p + 2, (size_t)(end - p - 2), mark, n_mark); /* an empty value shares the \r\n */
        MB_REQUIRE(next != NULL, MB_EARG, "the form ends inside the field %.40s", f->name);
        f->n = next > f->value ? (size_t)(next - f->value) : 0;
        out->n++;
        p = next + n_mark;
    }
}

const mb_form_field *mb_form_find(const mb_form *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->field[i].name, name) == 0)
            return &f->field[i];
    return NULL;
}
