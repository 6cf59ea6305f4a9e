/* recipes/hub/shelf_card.c - the front matter of README.md, as JSON. */
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/arena.h"
#include "core/path.h"
#include "recipes/config/yaml.h"
#include "recipes/hub/shelf_inside.h"

enum { ARENA = 32 << 20 };

static mb_status set(mb_json to, const char *key, const mb_yaml *y);

static mb_status set_scalar(mb_json to, const char *key, const mb_yaml *y)
{
    int64_t i;
    double x;
    bool b;

    if (mb_yaml_is_null(y))
        return mb_json_set_null(to, key);
    if (!y->quoted && mb_yaml_to_int(y->text, &i))
        return mb_json_set_int(to, key, i);
    if (!y->quoted && mb_yaml_to_num(y->text, &x))
        return mb_json_set_real(to, key, x);
    /* "no" is Norwegian here more often than it is false */
    if (!y->quoted && (strcmp(y->text, "true") == 0 || strcmp(y->text, "false") == 0) &&
        mb_yaml_to_bool(y->text, &b))
        return mb_json_set_bool(to, key, b);
    return mb_json_set_string(to, key, y->text);
}

static mb_status set_children(mb_json to, const mb_yaml *y)
{
    for (const mb_yaml *child = y->first; child != NULL; child = child->next)
        MB_TRY(set(to, y->kind == MB_YAML_MAP ? child->key : NULL, child));
    return MB_OK;
}

static mb_status set(mb_json to, const char *key, const mb_yaml *y)
{
    mb_json inside;

    if (y->kind == MB_YAML_SCALAR)
        return set_scalar(to, key, y);
    MB_TRY(y->kind == MB_YAML_MAP ? mb_json_set_object(to, key, &inside)
                                  : mb_json_set_array(to, key, &inside));
    return set_children(inside, y);
}

/* Between "---" lines at the beginning. */
static bool front_matter(const char *text, const char **start, size_t *n)
{
    size_t skip = strncmp(text, "---\n", 4) == 0 ? 4 : strncmp(text, "---\r\n", 5) == 0 ? 5 : 0;
    const char *end = skip > 0 ? strstr(text + skip - 1, "\n---") : NULL;

    if (end == NULL)
        return false;
    *start = text + skip;
    *n = end < *start ? 0 : (size_t)(end + 1 - *start);
    return true;
}

static mb_status to_json(const char *text, char **out)
{
    mb_arena *arena = NULL;
    mb_json_doc *doc = NULL;
    mb_yaml *y = NULL;
    const char *start;
    size_t n;
    mb_status st = MB_OK;

    if (!front_matter(text, &start, &n))
        return MB_OK;
    MB_TRY_GOTO(mb_arena_new("a model card", ARENA, &arena), st, done);
    MB_TRY_GOTO(mb_yaml_parse(arena, "README.md", start, n, &y), st, done);
    if (y == NULL)
        goto done;
    MB_TRY_GOTO(mb_json_doc_new("README.md", &doc), st, done);
    MB_TRY_GOTO(set_children(mb_json_root(doc), y), st, done);
    st = mb_json_text(mb_json_root(doc), 0, out, NULL);
done:
    mb_json_free(doc);
    mb_arena_free(arena);
    return st;
}

mb_status mb_shelf_tree_card(mb_shelf *s, mb_repo *r, mb_shelf_tree *t)
{
    const mb_shelf_file *f = mb_shelf_tree_find(t, "README.md");
    mb_shelf_miss miss;
    char *text = NULL;
    size_t n;
    mb_status st;
    int fd;

    if (f == NULL || f->size > MB_SHELF_README_MAX)
        return MB_OK;
    st = mb_shelf_open_in(s, r, t, f, &fd, &miss);
    if (st == MB_OK) {
        n = (size_t)f->size;
        st = mb_alloc(n + 1, "a model card", (void **)&text);
        if (st == MB_OK)
            st = mb_pread_all(fd, text, n, 0, "README.md");
        close(fd);
        if (st == MB_OK)
            st = to_json(text, &t->card);
    }
    mb_free(text);
    if (st != MB_OK && st != MB_ENOMEM) { /* a card that cannot be read is a card without data */
        mb_status_clear();
        st = MB_OK;
    }
    return st;
}
