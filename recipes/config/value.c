/* recipes/config/value.c - see recipes/config/value.h. One reader and one writer per type, in a
 * table. */
#include "recipes/config/value.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "recipes/config/hub_path.h"
#include "recipes/config/settings.h"

struct context {
    mb_arena *arena;
    const mb_key *key;
    const char *as; /* the name it was given under */
};

static mb_status wrong(const struct context *c, const mb_yaml *y)
{
    char place[256], found[160], expected[1200];
    const bool renamed = strstr(c->as, c->key->name) == NULL;

    mb_key_expected(c->key, expected, sizeof expected);
    return MB_RAISE(MB_EARG, "%s%s%s%s%s is %s, expected %s%s",
                    mb_yaml_place(y, place, sizeof place), c->as, renamed ? " (" : "",
                    renamed ? c->key->name : "", renamed ? ")" : "",
                    mb_yaml_describe(y, found, sizeof found), expected,
                    c->key->type == MB_TYPE_STR && y->kind == MB_YAML_SCALAR && !y->quoted
                        ? " (in quotes, if it is one)"
                        : "");
}

/* One comparison of a check: ">=0", "<1", "-1". */
static bool holds(const char *check, double v)
{
    const double bound = strtod(check + strspn(check, "<>="), NULL);

    if (check[0] == '>')
        return check[1] == '=' ? v >= bound : v > bound;
    if (check[0] == '<')
        return check[1] == '=' ? v <= bound : v < bound;
    return v == bound;
}

/* '|' joins alternatives, ',' joins what must hold together. */
static bool is_in_range(const char *check, double v)
{
    while (*check != '\0') {
        bool all = true;

        for (;;) {
            all = all && holds(check, v);
            check += strcspn(check, ",|");
            if (*check != ',')
                break;
            check++;
        }
        if (all)
            return true;
        if (*check == '\0')
            return false;
        check++;
    }
    return true;
}

static mb_status read_bool(const struct context *c, const mb_yaml *y, void *field)
{
    if (y->kind != MB_YAML_SCALAR || y->quoted || !mb_yaml_to_bool(y->text, field))
        return wrong(c, y);
    return MB_OK;
}

static mb_status read_tri(const struct context *c, const mb_yaml *y, void *field)
{
    bool b = false;

    if (y->kind == MB_YAML_SCALAR && strcmp(y->text, "auto") == 0) {
        *(mb_tri *)field = MB_AUTO;
        return MB_OK;
    }
    MB_TRY(read_bool(c, y, &b));
    *(mb_tri *)field = b ? MB_YES : MB_NO;
    return MB_OK;
}

static mb_status read_num(const struct context *c, const mb_yaml *y, void *field)
{
    double v;

    if (y->kind != MB_YAML_SCALAR || y->quoted || !mb_yaml_to_num(y->text, &v) ||
        !is_in_range(c->key->check, v))
        return wrong(c, y);
    *(double *)field = v;
    return MB_OK;
}

static mb_status read_int(const struct context *c, const mb_yaml *y, void *field)
{
    int64_t i;
    double v;

    if (y->kind != MB_YAML_SCALAR || y->quoted)
        return wrong(c, y);
    if (!mb_yaml_to_int(y->text, &i)) { /* 1e3 and 2.0 are whole numbers too */
        if (!mb_yaml_to_num(y->text, &v) || fabs(v) > 9007199254740992.0 || v != floor(v))
            return wrong(c, y);
        i = (int64_t)v;
    }
    if (!is_in_range(c->key->check, (double)i))
        return wrong(c, y);
    *(int64_t *)field = i;
    return MB_OK;
}

static mb_status read_steps(const struct context *c, const mb_yaml *y, void *field)
{
    double v = 0.0;

    MB_TRY(read_num(c, y, &v));
    if (v > 1.0 && v != floor(v))
        return wrong(c, y);
    *(double *)field = v;
    return MB_OK;
}

/* Numbers with units behind them ("1h30m"), each unit at most once, from large to small; or a
 * clock's 01:30:00 or 90:00. */
static bool to_seconds(const char *s, double *out)
{
    static const struct {
        char unit;
        double seconds;
    } units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    double total = 0.0;
    int hours, minutes, seconds, end = 0;

    if (sscanf(s, "%9d:%2d:%2d%n", &hours, &minutes, &seconds, &end) == 3 && s[end] == '\0' &&
        hours >= 0 && minutes >= 0 && seconds >= 0) {
        *out = hours * 3600.0 + minutes * 60.0 + seconds;
        return true;
    }
    if (mb_yaml_to_num(s, out))
        return *out >= 0.0;
    for (int u = 0; u < 4 && *s != '\0'; u++) {
        char *after;
        double v;

        if (strchr("0123456789.", *s) == NULL)
            return false;
        v = strtod(s, &after);
        if (*after != units[u].unit)
            continue;
        total += v * units[u].seconds;
        s = after + 1;
        if (*s == '\0') {
            *out = total;
            return isfinite(total);
        }
    }
    return false;
}

static mb_status read_time(const struct context *c, const mb_yaml *y, void *field)
{
    if (y->kind != MB_YAML_SCALAR || !to_seconds(y->text, field))
        return wrong(c, y);
    return MB_OK;
}

static const struct {
    const char *unit;
    double bytes;
} size_units[] = {
    {"", 1},
    {"B", 1},
    {"KB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
    {"KiB", 1024.0},
    {"MiB", 1048576.0},
    {"GiB", 1073741824.0},
    {"TiB", 1099511627776.0},
};

bool mb_recipe_size(const char *s, int64_t *out)
{
    const size_t n = strspn(s, "0123456789.");
    char number[32];
    double v;

    if (n == 0 || n >= sizeof number)
        return false;
    memcpy(number, s, n);
    number[n] = '\0';
    if (!mb_yaml_to_num(number, &v))
        return false;
    s += n + strspn(s + n, " ");
    for (size_t i = 0; i < sizeof size_units / sizeof size_units[0]; i++)
        if (strcasecmp(s, size_units[i].unit) == 0 && v * size_units[i].bytes < 9e18) {
            *out = (int64_t)(v * size_units[i].bytes);
            return true;
        }
    return false;
}

static mb_status read_size(const struct context *c, const mb_yaml *y, void *field)
{
    int64_t bytes;

    if (y->kind != MB_YAML_SCALAR || !mb_recipe_size(y->text, &bytes) ||
        !is_in_range(c->key->check, (double)bytes))
        return wrong(c, y);
    *(int64_t *)field = bytes;
    return MB_OK;
}

static mb_status read_str(const struct context *c, const mb_yaml *y, void *field)
{
    double v;
    bool b;

    if (y->kind != MB_YAML_SCALAR)
        return wrong(c, y);
    if (!y->quoted && !y->verbatim && (mb_yaml_to_num(y->text, &v) || mb_yaml_to_bool(y->text, &b)))
        return wrong(c, y);
    if (c->key->check[0] != '\0' && y->text[0] == '\0')
        return wrong(c, y);
    *(const char **)field = y->text;
    return MB_OK;
}

/* Letters without case, '_' the same as '-'. */
static bool same_word(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        const char x = (char)(*a == '_' ? '-' : *a | ((*a >= 'A' && *a <= 'Z') ? 32 : 0));
        const char y = (char)(*b == '_' ? '-' : *b | ((*b >= 'A' && *b <= 'Z') ? 32 : 0));

        if (x != y)
            return false;
    }
    return *a == *b;
}

static const mb_choice_row *find_choice(const char *key, const char *text)
{
    for (int i = 0; i < mb_n_choice_rows; i++)
        if (strcmp(mb_choice_rows[i].key, key) == 0 && same_word(mb_choice_rows[i].word, text))
            return &mb_choice_rows[i];
    return NULL;
}

static mb_status read_choice(const struct context *c, const mb_yaml *y, void *field)
{
    const mb_choice_row *row = NULL;
    char place[256], expected[1200];
    bool b;

    if (y->kind == MB_YAML_SCALAR)
        row = find_choice(c->key->name, y->text);
    if (row == NULL && y->kind == MB_YAML_SCALAR && !y->quoted && mb_yaml_to_bool(y->text, &b))
        row = find_choice(c->key->name, b ? "true" : "false"); /* off, No, ... */
    if (row == NULL)
        return wrong(c, y);
    mb_key_expected(c->key, expected, sizeof expected);
    MB_REQUIRE(row->value != MB_CHOICE_NONE, MB_EARG,
               "%s%s: '%s' is not available in this version, expected %s",
               mb_yaml_place(y, place, sizeof place), c->as, row->word, expected);
    *(mb_choice *)field = row->value;
    return MB_OK;
}

/* The word of "a|b|c" that is `text`, as written there; NULL when none is. */
static bool has_word(const char *list, const char *text)
{
    while (*list != '\0') {
        const size_t n = strcspn(list, "|");

        if (strlen(text) == n && strncmp(list, text, n) == 0)
            return true;
        list += n + (list[n] == '|');
    }
    return false;
}

static mb_status read_word(const struct context *c, const mb_yaml *y, void *field)
{
    if (y->kind != MB_YAML_SCALAR || !has_word(c->key->check, y->text))
        return wrong(c, y);
    *(const char **)field = y->text;
    return MB_OK;
}

static mb_status read_list(const struct context *c, const mb_yaml *y, void *field)
{
    mb_strings list = {.is_list = y->kind == MB_YAML_LIST};
    const mb_yaml *item = list.is_list ? y->first : y;
    void *p;

    if (y->kind == MB_YAML_MAP)
        return wrong(c, y);
    MB_TRY(mb_arena_take(c->arena, sizeof(char *) * (size_t)(y->n + 2), &p));
    list.at = p;
    for (; item != NULL; item = item->next) {
        if (item->kind != MB_YAML_SCALAR || (mb_yaml_is_null(item) && !item->quoted) ||
            (mb_key_has_words(c->key) && !has_word(c->key->check, item->text)))
            return wrong(c, item);
        list.at[list.n++] = item->text;
        if (!list.is_list)
            break;
    }
    list.at[list.n] = NULL;
    *(mb_strings *)field = list;
    return MB_OK;
}

static mb_status read_map(const struct context *c, const mb_yaml *y, void *field)
{
    mb_pairs pairs = {.n = 0};
    void *names, *values;

    if (y->kind != MB_YAML_MAP)
        return wrong(c, y);
    MB_TRY(mb_arena_take(c->arena, sizeof(char *) * (size_t)(y->n + 1), &names));
    MB_TRY(mb_arena_take(c->arena, sizeof(char *) * (size_t)(y->n + 1), &values));
    pairs.name = names;
    pairs.value = values;
    for (const mb_yaml *item = y->first; item != NULL; item = item->next) {
        if (item->kind != MB_YAML_SCALAR || (mb_yaml_is_null(item) && !item->quoted))
            return wrong(c, item);
        pairs.name[pairs.n] = item->key;
        pairs.value[pairs.n++] = item->text;
    }
    *(mb_pairs *)field = pairs;
    return MB_OK;
}

/* One key of a dataset's block. */
static mb_status read_dataset_key(const struct context *c, int64_t i, const mb_yaml *y,
                                  mb_dataset_spec *d, const mb_yaml **seen)
{
    const mb_name name = mb_dataset_name_find(y->key);
    const char *nearest = mb_dataset_name_nearest(y->key);
    char place[256], as[160];

    mb_yaml_place(y, place, sizeof place);
    MB_REQUIRE(name.kind == MB_NAME_KEY, MB_EARG, "%s%s[%lld]: unknown key '%.80s'%s%s%s", place,
               c->as, (long long)i, y->key, nearest != NULL ? "; did you mean '" : "",
               nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
    const mb_yaml **twin = &seen[name.key - mb_dataset_keys];
    MB_REQUIRE(*twin == NULL || mb_yaml_equal(*twin, y), MB_EARG,
               "%s%s[%lld]: %.60s and %.60s (line %d) both mean %s: keep one", place, c->as,
               (long long)i, y->key, (*twin)->key, (*twin)->line, name.key->name);
    *twin = y;
    if (mb_yaml_is_null(y))
        return MB_OK;
    snprintf(as, sizeof as, "%.60s[%lld].%.60s", c->as, (long long)i, y->key);
    return mb_value_read(c->arena, name.key, as, y, d);
}

static mb_status read_dataset(const struct context *c, int64_t i, const mb_yaml *y,
                              mb_dataset_spec *d)
{
    const mb_yaml *seen[MB_N_DATASET_KEYS] = {NULL};
    char place[256];
    void *where;

    for (int k = 0; k < MB_N_DATASET_KEYS; k++)
        MB_TRY(mb_value_default(c->arena, &mb_dataset_keys[k], d));
    mb_yaml_place(y, place, sizeof place);
    MB_TRY(mb_arena_take(c->arena, strlen(place) + 1, &where));
    memcpy(where, place, strlen(place) + 1);
    ((char *)where)[strlen(place) - 2] = '\0'; /* without ": " */
    d->where = where;
    if (y->kind == MB_YAML_LIST || (y->kind == MB_YAML_SCALAR && mb_yaml_is_null(y)))
        return wrong(c, y);
    if (y->kind == MB_YAML_SCALAR) {
        d->path = y->text;
    } else {
        for (const mb_yaml *item = y->first; item != NULL; item = item->next)
            MB_TRY(read_dataset_key(c, i, item, d, seen));
    }
    MB_REQUIRE(d->path != NULL && d->path[0] != '\0', MB_EARG, "%s%s[%lld] has no path", place,
               c->as, (long long)i);
    return MB_OK;
}

static mb_status read_datasets(const struct context *c, const mb_yaml *y, void *field)
{
    const bool list = y->kind == MB_YAML_LIST;
    mb_datasets sets = {.n = 0};
    void *p;

    MB_TRY(mb_arena_take(c->arena, sizeof(mb_dataset_spec) * (size_t)(list ? y->n + 1 : 1), &p));
    sets.at = p;
    for (const mb_yaml *item = list ? y->first : y; item != NULL; item = list ? item->next : NULL) {
        MB_TRY(read_dataset(c, sets.n, item, &sets.at[sets.n]));
        sets.n++;
    }
    *(mb_datasets *)field = sets;
    return MB_OK;
}

static const struct {
    mb_status (*read)(const struct context *c, const mb_yaml *y, void *field);
    size_t size;
} types[] = {
    [MB_TYPE_BOOL] = {read_bool, sizeof(bool)},
    [MB_TYPE_TRI] = {read_tri, sizeof(mb_tri)},
    [MB_TYPE_INT] = {read_int, sizeof(int64_t)},
    [MB_TYPE_NUM] = {read_num, sizeof(double)},
    [MB_TYPE_STEPS] = {read_steps, sizeof(double)},
    [MB_TYPE_TIME] = {read_time, sizeof(double)},
    [MB_TYPE_SIZE] = {read_size, sizeof(int64_t)},
    [MB_TYPE_STR] = {read_str, sizeof(char *)},
    [MB_TYPE_CHOICE] = {read_choice, sizeof(mb_choice)},
    [MB_TYPE_WORD] = {read_word, sizeof(char *)},
    [MB_TYPE_LIST] = {read_list, sizeof(mb_strings)},
    [MB_TYPE_MAP] = {read_map, sizeof(mb_pairs)},
    [MB_TYPE_DATASETS] = {read_datasets, sizeof(mb_datasets)},
};

mb_status mb_value_read(mb_arena *a, const mb_key *k, const char *as, const mb_yaml *y, void *base)
{
    const struct context c = {a, k, as};

    return types[k->type].read(&c, y, (char *)base + k->offset);
}

mb_status mb_value_default(mb_arena *a, const mb_key *k, void *base)
{
    mb_yaml *y;

    MB_TRY(mb_yaml_parse_value(a, "default", k->deflt, &y));
    if (!mb_yaml_is_null(y))
        return mb_value_read(a, k, k->name, y, base);
    memset((char *)base + k->offset, 0, types[k->type].size);
    return MB_OK;
}

static void write_list(const mb_strings *list, mb_text *out)
{
    if (!list->is_list && list->n == 1) {
        mb_text_add_yaml(out, list->at[0]);
        return;
    }
    mb_text_add(out, "[");
    for (int64_t i = 0; i < list->n; i++) {
        mb_text_add(out, "%s", i > 0 ? ", " : "");
        mb_text_add_yaml(out, list->at[i]);
    }
    mb_text_add(out, "]");
}

static void write_map(const mb_pairs *pairs, mb_text *out)
{
    mb_text_add(out, "{");
    for (int64_t i = 0; i < pairs->n; i++) {
        mb_text_add(out, "%s", i > 0 ? ", " : "");
        mb_text_add_yaml(out, pairs->name[i]);
        mb_text_add(out, ": ");
        mb_text_add_yaml(out, pairs->value[i]);
    }
    mb_text_add(out, "}");
}

static void write_datasets(const mb_datasets *sets, int indent, mb_text *out)
{
    mb_text_add(out, "%s", sets->n == 0 ? "[]" : "");
    for (int64_t i = 0; i < sets->n; i++)
        for (int k = 0; k < MB_N_DATASET_KEYS; k++) {
            mb_text_add(out, "\n%*s%s %s: ", indent + 2, "", k == 0 ? "-" : " ",
                        mb_dataset_keys[k].name);
            mb_value_write(&mb_dataset_keys[k], &sets->at[i], true, indent + 4, out);
        }
}

static void write_size(int64_t bytes, mb_text *out)
{
    for (int i = (int)(sizeof size_units / sizeof size_units[0]) - 1; i > 1; i--) {
        const int64_t unit = (int64_t)size_units[i].bytes;

        if (bytes >= unit && bytes % unit == 0) {
            mb_text_add(out, "%lld%s", (long long)(bytes / unit), size_units[i].unit);
            return;
        }
    }
    mb_text_add(out, "%lld", (long long)bytes);
}

static void write_number(double v, mb_text *out)
{
    if (v == floor(v) && fabs(v) < 1e15)
        mb_text_add(out, "%lld", (long long)v);
    else
        mb_text_add_num(out, v);
}

static bool is_zero(const void *p, size_t n)
{
    const char *c = p;

    while (n > 0 && c[n - 1] == 0)
        n--;
    return n == 0;
}

void mb_value_write(const mb_key *k, const void *base, bool given, int indent, mb_text *out)
{
    const void *f = (const char *)base + k->offset;
    char shown[2048];

    if (!given && strcmp(k->deflt, "null") == 0 && is_zero(f, types[k->type].size)) {
        mb_text_add(out, "null");
        return;
    }
    switch (k->type) {
    case MB_TYPE_BOOL:
        mb_text_add(out, *(const bool *)f ? "true" : "false");
        break;
    case MB_TYPE_TRI:
        mb_text_add(out, "%s",
                    *(const mb_tri *)f == MB_AUTO  ? "auto"
                    : *(const mb_tri *)f == MB_YES ? "true"
                                                   : "false");
        break;
    case MB_TYPE_INT:
        mb_text_add(out, "%lld", (long long)*(const int64_t *)f);
        break;
    case MB_TYPE_NUM:
        mb_text_add_num(out, *(const double *)f);
        break;
    case MB_TYPE_STEPS:
    case MB_TYPE_TIME:
        write_number(*(const double *)f, out);
        break;
    case MB_TYPE_SIZE:
        write_size(*(const int64_t *)f, out);
        break;
    case MB_TYPE_STR:
        mb_text_add_yaml(out, mb_hub_show(*(const char *const *)f, shown, sizeof shown));
        break;
    case MB_TYPE_WORD:
        mb_text_add_yaml(out, *(const char *const *)f);
        break;
    case MB_TYPE_CHOICE:
        mb_text_add_yaml(out, mb_choice_word(*(const mb_choice *)f));
        break;
    case MB_TYPE_LIST:
        write_list(f, out);
        break;
    case MB_TYPE_MAP:
        write_map(f, out);
        break;
    case MB_TYPE_DATASETS:
        write_datasets(f, indent, out);
        break;
    }
}
