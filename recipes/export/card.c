/* recipes/export/card.c - the text of a model card. */
#include "recipes/export/card.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"

void mb_card_add(mb_card_facts *f, mb_card_row *rows, const char *name, const char *fmt, ...)
{
    va_list ap;
    int n = 0;

    while (rows[n].name != NULL)
        n++;
    if (n + 1 >= MB_CARD_ROWS)
        return;
    va_start(ap, fmt);
    vsnprintf(f->text[f->n_text], MB_CARD_VALUE, fmt, ap);
    va_end(ap);
    rows[n] = (mb_card_row){.name = name, .value = f->text[f->n_text++]};
}

/* The text so far; the first failure sticks and later additions do nothing. */
struct text {
    char *at;
    size_t n, capacity;
    mb_status st;
};

static void put_bytes(struct text *t, const char *s, size_t n)
{
    if (t->st == MB_OK)
        t->st = mb_grow((void **)&t->at, &t->capacity, t->n + n + 1, 1, "model card");
    if (t->st != MB_OK)
        return;
    memcpy(t->at + t->n, s, n);
    t->n += n;
    t->at[t->n] = '\0';
}

static void put(struct text *t, const char *s)
{
    put_bytes(t, s, strlen(s));
}

/* A YAML scalar in single quotes: the only thing to escape is the quote, by doubling it. Line ends
 * would be folded, and other control characters are not allowed; both become spaces. */
static void put_quoted(struct text *t, const char *s)
{
    put(t, "'");
    for (; *s != '\0'; s++) {
        if (*s == '\'')
            put(t, "''");
        else if ((unsigned char)*s < 0x20 || *s == 0x7f)
            put(t, " ");
        else
            put_bytes(t, s, 1);
    }
    put(t, "'");
}

static void put_key(struct text *t, const char *key, const char *value)
{
    if (value == NULL || value[0] == '\0')
        return;
    put(t, key);
    put(t, ": ");
    put_quoted(t, value);
    put(t, "\n");
}

static void put_list(struct text *t, const char *key, const char *const *values)
{
    if (values == NULL || values[0] == NULL)
        return;
    put(t, key);
    put(t, ":\n");
    for (; *values != NULL; values++) {
        put(t, "- ");
        put_quoted(t, *values);
        put(t, "\n");
    }
}

/* A cell: bars would end it and line ends the row. */
static void put_cell(struct text *t, const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '|')
            put(t, "\\|");
        else
            put_bytes(t, *s == '\n' || *s == '\r' ? " " : s, 1);
    }
}

static void put_table(struct text *t, const char *heading, const mb_card_row *rows)
{
    if (rows == NULL || rows[0].name == NULL)
        return;
    put(t, "\n## ");
    put(t, heading);
    put(t, "\n\n| | |\n|---|---|\n");
    for (; rows->name != NULL; rows++) {
        put(t, "| ");
        put_cell(t, rows->name);
        put(t, " | ");
        put_cell(t, rows->value != NULL ? rows->value : "");
        put(t, " |\n");
    }
}

/* "name" or "owner/name" of letters, digits and "-_.": the hub refuses anything else. */
static bool is_hub_id(const char *s)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    const size_t owner = strspn(s, allowed);
    const char *name = s[owner] == '/' ? s + owner + 1 : s;
    const size_t n = strspn(name, allowed);

    return owner > 0 && n > 0 && name[n] == '\0' && s[0] != '.' && name[0] != '.' &&
           !mb_path_has_suffix(s, ".gguf");
}

/* PEFT's tag "base_model:adapter:<id>" links an adapter to its base on the hub. */
static void put_tags(struct text *t, const mb_card *c, bool known_base)
{
    const bool adapter = c->library_name != NULL && strcmp(c->library_name, "peft") == 0;
    char link[512];

    put(t, "tags:\n- 'mbuyu'\n");
    if (adapter)
        put(t, "- 'lora'\n- 'transformers'\n");
    if (adapter && known_base) {
        snprintf(link, sizeof link, "base_model:adapter:%s", c->base_model);
        put(t, "- ");
        put_quoted(t, link);
        put(t, "\n");
    }
    for (const char *const *tag = c->tags; tag != NULL && *tag != NULL; tag++) {
        put(t, "- ");
        put_quoted(t, *tag);
        put(t, "\n");
    }
}

mb_status mb_card_text(const mb_card *c, char **out)
{
    const bool known_base = c->base_model != NULL && is_hub_id(c->base_model);
    struct text t = {0};

    put(&t, "---\n");
    put_key(&t, "base_model", known_base ? c->base_model : NULL);
    put_list(&t, "datasets", c->datasets);
    put_list(&t, "language", c->language);
    put_key(&t, "library_name", c->library_name);
    put_key(&t, "license", c->license);
    put_key(&t, "pipeline_tag", c->pipeline_tag);
    put_tags(&t, c, known_base);
    put(&t, "---\n\n# ");
    put(&t, c->title != NULL && c->title[0] != '\0' ? c->title : "Model");
    put(&t, "\n\n");
    if (c->summary != NULL) {
        put(&t, c->summary);
        put(&t, "\n\n");
    }
    put(&t, c->base_model != NULL ? "Made from `" : "Made");
    if (c->base_model != NULL) {
        put(&t, c->base_model);
        put(&t, "`");
    }
    put(&t, " with mbuyu " MB_VERSION ".\n");
    put_table(&t, "Training", c->training);
    put_table(&t, "Data", c->data);
    put_table(&t, "Results", c->results);
    if (t.st != MB_OK)
        mb_free(t.at);
    *out = t.st == MB_OK ? t.at : NULL;
    return t.st;
}

mb_status mb_card_write(const char *dir, const mb_card *card)
{
    char path[MB_PATH_MAX], *text;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, dir, "README.md"));
    MB_TRY(mb_card_text(card, &text));
    st = mb_file_write_atomic(path, text, strlen(text));
    mb_free(text);
    return st;
}
