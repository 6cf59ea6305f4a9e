/* recipes/hub/shelf_name.c - see recipes/hub/shelf_name.h. */
#include "recipes/hub/shelf_name.h"

#include <string.h>

#include "core/path.h"

enum { PART_MAX = 96, DEEPEST = 32, REF_MAX = 200 };

static const char *const kinds[MB_SHELF_KINDS][2] = {
    {"model", "models"}, {"dataset", "datasets"}, {"space", "spaces"}};

const char *mb_shelf_kind_name(mb_shelf_kind kind)
{
    return kinds[kind][0];
}

const char *mb_shelf_kind_folder(mb_shelf_kind kind)
{
    return kinds[kind][1];
}

bool mb_shelf_kind_of(const char *word, mb_shelf_kind *out)
{
    for (int i = 0; i < MB_SHELF_KINDS; i++) {
        if (strcmp(word, kinds[i][0]) == 0 || strcmp(word, kinds[i][1]) == 0) {
            *out = (mb_shelf_kind)i;
            return true;
        }
    }
    return false;
}

static bool among(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static bool is_id_part(const char *s, size_t n)
{
    if (n == 0 || n > PART_MAX || among(s[0], "-.") || among(s[n - 1], "-.") ||
        (n >= 4 && memcmp(s + n - 4, ".git", 4) == 0))
        return false;
    for (size_t i = 0; i < n; i++) {
        const char c = s[i];
        const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || among(c, "-_.");
        if (!word || (i > 0 && c == s[i - 1] && among(c, "-.")))
            return false;
    }
    return true;
}

bool mb_shelf_is_id(const char *id)
{
    const char *slash = strchr(id, '/');

    if (slash == NULL)
        return is_id_part(id, strlen(id));
    return is_id_part(id, (size_t)(slash - id)) && is_id_part(slash + 1, strlen(slash + 1));
}

bool mb_shelf_is_path(const char *path)
{
    static const char *const ours[] = {".git", ".mbuyu-hub"};
    char part[256];
    int parts = 0;

    if (strlen(path) > MB_SHELF_FILE_MAX)
        return false;
    for (const char *at = path;;) {
        const size_t n = strcspn(at, "/");
        if (n >= sizeof part || ++parts > DEEPEST)
            return false;
        memcpy(part, at, n);
        part[n] = '\0';
        if (!mb_path_is_component(part))
            return false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            if (strcmp(part, ours[i]) == 0)
                return false;
        if (at[n] == '\0')
            return true;
        at += n + 1;
    }
}

bool mb_shelf_is_ref(const char *name)
{
    const size_t n = strlen(name);

    return n <= REF_MAX && mb_shelf_is_path(name) && strpbrk(name, " ~^:?*[\"<>|%#") == NULL &&
           strstr(name, "..") == NULL && name[0] != '-' && name[0] != '.' && name[n - 1] != '.';
}

bool mb_shelf_is_hex(const char *text, int digits)
{
    return strspn(text, "0123456789abcdef") == (size_t)digits && text[digits] == '\0';
}
