/* recipes/config/schema.c - see recipes/config/schema.h. */
#include "recipes/config/schema.h"

#include <stdio.h>
#include <string.h>

#include "recipes/config/yaml.h"

const mb_key mb_recipe_keys[MB_N_KEYS] = {
#define MB_KEY_AT(type, field, path, deflt, check, help, section, resume) \
    {path,  MB_TYPE_##type, offsetof(mb_recipe, field), deflt,            \
     check, help,           MB_SECTION_##section,       MB_RESUME_##resume},
#include "recipes/config/recipe.def"
};

const mb_key mb_dataset_keys[MB_N_DATASET_KEYS] = {
#define MB_DATASET_KEY(type, name, deflt, check, help)                                     \
    {#name,           MB_TYPE_##type, offsetof(mb_dataset_spec, name), deflt, check, help, \
     MB_SECTION_DATA, MB_RESUME_MATCH},
#include "recipes/config/dataset.def"
};

const char *const mb_section_title[MB_SECTION_COUNT] = {
#define MB_KEY_AT(...)
#define MB_SECTION(name, title) title,
#include "recipes/config/recipe.def"
};

struct alias {
    const char *foreign, *canonical, *values;
};

static const struct alias aliases[] = {
#define MB_ALIAS(foreign, canonical, values) {foreign, canonical, values},
#include "recipes/config/aliases.def"
};

static const struct alias dataset_aliases[] = {
#define MB_DATASET_ALIAS(foreign, canonical, values) {#foreign, #canonical, values},
#include "recipes/config/dataset.def"
};

static const struct {
    mb_name_kind kind;
    const char *foreign, *note;
} notes[] = {
#define MB_AMBIGUOUS(foreign, note) {MB_NAME_AMBIGUOUS, foreign, note},
#define MB_LATER(foreign, note)     {MB_NAME_LATER, foreign, note},
#define MB_IGNORED(foreign, note)   {MB_NAME_IGNORED, foreign, note},
#include "recipes/config/aliases.def"
};

const mb_choice_row mb_choice_rows[] = {
#define MB_CHOICE(key, id, word)      {#key, word, MB_##id, false},
#define MB_CHOICE_ALSO(key, id, word) {#key, word, MB_##id, true},
#define MB_CHOICE_LATER(key, word)    {#key, word, MB_CHOICE_NONE, false},
#include "recipes/config/choices.def"
};

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

const int mb_n_choice_rows = COUNT(mb_choice_rows);

static const mb_key *find_key(const mb_key *keys, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static mb_name find_name(const mb_key *keys, int n_keys, const struct alias *also, int n_also,
                         const char *name)
{
    mb_name found = {.kind = MB_NAME_UNKNOWN, .values = "", .note = ""};

    found.key = find_key(keys, n_keys, name);
    for (int i = 0; i < n_also; i++)
        if (strcmp(also[i].foreign, name) == 0) {
            found.key = find_key(keys, n_keys, also[i].canonical);
            found.values = also[i].values;
            MB_ASSERT(found.key != NULL);
            break;
        }
    if (found.key != NULL)
        found.kind = MB_NAME_KEY;
    return found;
}

mb_name mb_name_find(const char *name)
{
    mb_name found = find_name(mb_recipe_keys, MB_N_KEYS, aliases, COUNT(aliases), name);

    for (int i = 0; i < COUNT(notes) && found.kind == MB_NAME_UNKNOWN; i++)
        if (strcmp(notes[i].foreign, name) == 0) {
            found.kind = notes[i].kind;
            found.note = notes[i].note;
        }
    return found;
}

mb_name mb_name_find_beginning(const char *path, size_t *n)
{
    char head[256];
    mb_name found = {.kind = MB_NAME_UNKNOWN, .values = "", .note = ""};

    for (*n = strlen(path); *n > 0;) {
        if (*n < sizeof head) {
            memcpy(head, path, *n);
            head[*n] = '\0';
            found = mb_name_find(head);
        }
        if (found.kind != MB_NAME_UNKNOWN)
            return found;
        while (*n > 0 && path[--*n] != '.')
            ;
    }
    return found;
}

mb_name mb_dataset_name_find(const char *name)
{
    return find_name(mb_dataset_keys, MB_N_DATASET_KEYS, dataset_aliases, COUNT(dataset_aliases),
                     name);
}

static const char *known_name(int i)
{
    if (i < MB_N_KEYS)
        return mb_recipe_keys[i].name;
    i -= MB_N_KEYS;
    return i < COUNT(aliases) ? aliases[i].foreign : notes[i - COUNT(aliases)].foreign;
}

enum { N_NAMES = MB_N_KEYS + COUNT(aliases) + COUNT(notes) };

bool mb_name_is_block(const char *name)
{
    const size_t n = strlen(name);

    for (int i = 0; i < N_NAMES; i++)
        if (strncmp(known_name(i), name, n) == 0 && known_name(i)[n] == '.')
            return true;
    return false;
}

/* Damerau-Levenshtein (adjacent letters swapped count once), '-' equal to '_'. */
static int edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    int d[3][MAX + 1];
    const int n = (int)strnlen(a, MAX + 1), m = (int)strnlen(b, MAX + 1);

    if (n > MAX || m > MAX)
        return MAX;
    for (int j = 0; j <= m; j++)
        d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *row = d[i % 3];
        const int *above = d[(i + 2) % 3], *above2 = d[(i + 1) % 3];

        row[0] = i;
        for (int j = 1; j <= m; j++) {
            const char x = a[i - 1] == '-' ? '_' : a[i - 1], y = b[j - 1] == '-' ? '_' : b[j - 1];
            int best = above[j - 1] + (x != y);

            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            row[j] = best;
        }
    }
    return d[n % 3][m];
}

const char *mb_nearest(const char *name, int n, const char *(*word)(int i))
{
    const int length = (int)strnlen(name, 64);
    int best = length / 3 + 1; /* further away it is another word */
    const char *nearest = NULL;

    for (int i = 0; i < n; i++) {
        const int d = edit_distance(name, word(i));

        if (d < best || (d == best && nearest == NULL && best < length)) {
            best = d;
            nearest = word(i);
        }
    }
    return nearest;
}

static const char *known_dataset_name(int i)
{
    return i < MB_N_DATASET_KEYS ? mb_dataset_keys[i].name
                                 : dataset_aliases[i - MB_N_DATASET_KEYS].foreign;
}

const char *mb_name_nearest(const char *name)
{
    return mb_nearest(name, N_NAMES, known_name);
}

const char *mb_dataset_name_nearest(const char *name)
{
    return mb_nearest(name, MB_N_DATASET_KEYS + COUNT(dataset_aliases), known_dataset_name);
}

const char *mb_values_rewrite(const char *rules, const char *text, char *buf, size_t size)
{
    bool given, rule_is;

    while (*rules != '\0') {
        const size_t rule = strcspn(rules, " "), from = strcspn(rules, "=");
        char word[128];

        snprintf(word, sizeof word, "%.*s", (int)from, rules);
        if (strcmp(word, text) == 0 || (mb_yaml_to_bool(text, &given) &&
                                        mb_yaml_to_bool(word, &rule_is) && given == rule_is)) {
            snprintf(buf, size, "%.*s", (int)(rule - from - 1), rules + from + 1);
            return buf;
        }
        rules += rule + (rules[rule] == ' ');
    }
    return NULL;
}

const char *mb_choice_word(mb_choice c)
{
    for (int i = 0; i < mb_n_choice_rows; i++)
        if (mb_choice_rows[i].value == c && c != MB_CHOICE_NONE)
            return mb_choice_rows[i].word;
    return "";
}

static const struct {
    const char *name, *expected;
} types[] = {
    [MB_TYPE_BOOL] = {"bool", "true or false"},
    [MB_TYPE_TRI] = {"auto or bool", "auto, true or false"},
    [MB_TYPE_INT] = {"int", "a whole number"},
    [MB_TYPE_NUM] = {"number", "a number"},
    [MB_TYPE_STEPS] = {"steps", "a number of steps (below 1: a fraction of all)"},
    [MB_TYPE_TIME] = {"time", "a time such as 1h30m, 90m, 01:30:00 or a number of seconds"},
    [MB_TYPE_SIZE] = {"size", "a size such as 5GB, 500MB, 1GiB or a number of bytes"},
    [MB_TYPE_STR] = {"text", "a text"},
    [MB_TYPE_CHOICE] = {"word", ""},
    [MB_TYPE_WORD] = {"word", ""},
    [MB_TYPE_LIST] = {"list", "a list of texts or one text"},
    [MB_TYPE_MAP] = {"map", "a map of texts"},
    [MB_TYPE_DATASETS] = {"blocks", "a list of blocks with a path each, or of paths"},
};

const char *mb_key_type_name(mb_key_type t)
{
    return types[t].name;
}

bool mb_key_is_path(const mb_key *k)
{
    return strcmp(k->check, "path") == 0;
}

bool mb_key_is_path_or_text(const mb_key *k)
{
    return strcmp(k->check, "path|text") == 0;
}

bool mb_key_has_words(const mb_key *k)
{
    return k->type == MB_TYPE_CHOICE || k->type == MB_TYPE_WORD ||
           (k->type == MB_TYPE_LIST && k->check[0] != '\0' && !mb_key_is_path(k));
}

static void add(char *buf, size_t size, const char *s, size_t n)
{
    const size_t used = strlen(buf);

    if (used < size)
        snprintf(buf + used, size - used, "%.*s", (int)n, s);
}

/* a|b|c -> "a, b or c". */
static void add_words(const char *list, char *buf, size_t size)
{
    while (*list != '\0') {
        const size_t n = strcspn(list, "|");

        add(buf, size, list, n);
        list += n + (list[n] == '|');
        if (*list != '\0')
            add(buf, size, strchr(list, '|') != NULL ? ", " : " or ", 4);
    }
}

static void choice_words(const char *key, char *list, size_t size)
{
    list[0] = '\0';
    for (int i = 0; i < mb_n_choice_rows; i++) {
        const mb_choice_row *c = &mb_choice_rows[i];

        if (strcmp(c->key, key) != 0 || c->also || c->value == MB_CHOICE_NONE)
            continue;
        if (list[0] != '\0')
            add(list, size, "|", 1);
        add(list, size, c->word, strlen(c->word));
    }
}

/* ">=0,<1|-1" -> ">= 0 and < 1, or -1". */
static void add_range(const char *check, char *buf, size_t size)
{
    for (const char *s = check; *s != '\0'; s++) {
        if (*s == ',')
            add(buf, size, " and ", 5);
        else if (*s == '|')
            add(buf, size, ", or ", 5);
        else
            add(buf, size, s, 1);
        if ((*s == '<' || *s == '>') && s[1] != '=')
            add(buf, size, " ", 1);
        if (*s == '=')
            add(buf, size, " ", 1);
    }
}

void mb_key_expected(const mb_key *k, char *buf, size_t size)
{
    char words[1024];

    snprintf(buf, size, "%s", types[k->type].expected);
    if (k->type == MB_TYPE_CHOICE) {
        choice_words(k->name, words, sizeof words);
        add_words(words, buf, size);
    } else if (k->type == MB_TYPE_WORD) {
        add_words(k->check, buf, size);
    } else if (k->type == MB_TYPE_LIST && mb_key_has_words(k)) {
        snprintf(buf, size, "a list of ");
        add_words(k->check, buf, size);
    } else if (k->check[0] != '\0' && k->type != MB_TYPE_STR && !mb_key_is_path(k)) {
        add(buf, size, " ", 1);
        add_range(k->check, buf, size);
    }
}
