/* recipes/config/help.c - see recipes/config/help.h. */
#include "recipes/config/help.h"

#include <string.h>

enum { NAME_WIDTH = 29, DEFAULT_WIDTH = 14, WIDTH = 100 };

/* Text from column `column` on, wrapped between words. */
static void print_wrapped(const char *text, int column, FILE *out)
{
    int at = column;

    while (*text != '\0') {
        const int n = (int)strcspn(text, " ");
        const bool first = at == column;

        if (!first && at + 1 + n > WIDTH) {
            fprintf(out, "\n%*s%.*s", column, "", n, text);
            at = column + n;
        } else {
            fprintf(out, "%s%.*s", first ? "" : " ", n, text);
            at += n + !first;
        }
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static const char *shown_default(const char *deflt)
{
    return strcmp(deflt, "null") == 0 ? "-" : deflt;
}

static void print_key(const mb_key *k, FILE *out)
{
    const int column = 2 + NAME_WIDTH + 1 + DEFAULT_WIDTH + 1;
    char expected[1200], words[1210];

    fprintf(out, "  %-*s", NAME_WIDTH, k->name);
    if (strlen(k->name) > NAME_WIDTH)
        fprintf(out, "\n  %*s", NAME_WIDTH, "");
    if (strlen(k->deflt) > DEFAULT_WIDTH)
        fprintf(out, " %s\n%*s", k->deflt, column, "");
    else
        fprintf(out, " %-*s ", DEFAULT_WIDTH, shown_default(k->deflt));
    print_wrapped(k->help, column, out);
    if (!mb_key_has_words(k))
        return;
    mb_key_expected(k, expected, sizeof expected);
    snprintf(words, sizeof words, "(%s)", expected);
    fprintf(out, "%*s", column, "");
    print_wrapped(words, column, out);
}

static void print_dataset_keys(FILE *out)
{
    fprintf(out, "\nA block of datasets and eval_datasets (a list, each item begins with '- ')\n");
    for (int i = 0; i < MB_N_DATASET_KEYS; i++)
        print_key(&mb_dataset_keys[i], out);
}

void mb_keys_print(unsigned sections, FILE *out)
{
    int section = -1;

    for (int k = 0; k < MB_N_KEYS; k++) {
        const mb_key *key = &mb_recipe_keys[k];

        if ((sections & (1U << key->section)) == 0)
            continue;
        if (section == MB_SECTION_DATA && key->section != MB_SECTION_DATA)
            print_dataset_keys(out);
        if ((int)key->section != section)
            fprintf(out, "\n%s\n", mb_section_title[key->section]);
        section = (int)key->section;
        print_key(key, out);
    }
}

void mb_keys_print_some(const char *names, FILE *out)
{
    while (*names != '\0') {
        const size_t n = strcspn(names, " ");

        for (int k = 0; k < MB_N_KEYS; k++)
            if (strncmp(mb_recipe_keys[k].name, names, n) == 0 && mb_recipe_keys[k].name[n] == '\0')
                print_key(&mb_recipe_keys[k], out);
        names += n + strspn(names + n, " ");
    }
}

bool mb_name_explain(const char *name, FILE *out)
{
    mb_name found = mb_name_find(name);

    if (found.kind == MB_NAME_UNKNOWN)
        found = mb_dataset_name_find(name);
    switch (found.kind) {
    case MB_NAME_KEY:
        if (strcmp(found.key->name, name) != 0)
            fprintf(out, "%s is %s here:\n", name, found.key->name);
        print_key(found.key, out);
        return true;
    case MB_NAME_AMBIGUOUS:
        fprintf(out, "%s has two meanings: write %s\n", name, found.note);
        return true;
    case MB_NAME_LATER:
        fprintf(out, "%s is not available in this version: %s\n", name, found.note);
        return true;
    case MB_NAME_IGNORED:
        fprintf(out, "%s is not used: %s\n", name, found.note);
        return true;
    case MB_NAME_UNKNOWN:
        break;
    }
    return false;
}

/* A table's cell: '|' would end it. */
static void print_cell(const char *text, FILE *out)
{
    for (; *text != '\0'; text++)
        fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
}

static void print_row(const mb_key *k, FILE *out)
{
    char expected[1200];

    mb_key_expected(k, expected, sizeof expected);
    fprintf(out, "| `%s` | ", k->name);
    if (strcmp(k->deflt, "null") != 0)
        fprintf(out, "`%s`", k->deflt);
    fprintf(out, " | ");
    print_cell(k->help, out);
    fprintf(out, " | ");
    print_cell(expected, out);
    fprintf(out, " |\n");
}

static void print_table_head(const char *title, FILE *out)
{
    fprintf(out, "\n#### %s\n\n| key | default | meaning | accepts |\n|---|---|---|---|\n", title);
}

void mb_keys_print_markdown(FILE *out)
{
    int section = -1;

    for (int k = 0; k < MB_N_KEYS; k++) {
        const mb_key *key = &mb_recipe_keys[k];

        if ((int)key->section != section)
            print_table_head(mb_section_title[key->section], out);
        section = (int)key->section;
        print_row(key, out);
    }
    print_table_head("A block of `datasets` and `eval_datasets`", out);
    for (int i = 0; i < MB_N_DATASET_KEYS; i++)
        print_row(&mb_dataset_keys[i], out);
    fprintf(out, "\n#### Names of other trainers\n\n"
                 "Accepted and printed under our name by `mbuyu config`.\n\n"
                 "| theirs | ours |\n|---|---|\n");
#define MB_ALIAS(foreign, canonical, values) \
    if (strcmp(foreign, canonical) != 0)     \
        fprintf(out, "| `%s` | `%s` |\n", foreign, canonical);
#include "recipes/config/aliases.def"
}
