/* recipes/cmd/help.c - `mbuyu help`: the first screen, a verb's keys, and tables for the README. */
#include "recipes/config/help.h"

#include <stdlib.h>
#include <string.h>

#include "recipes/commands.h"

static const char *const group_titles[] = {
#define X(name, title) title,
    MB_CMD_GROUP_LIST(X)
#undef X
};

static const struct {
    int code;
    const char *meaning;
} statuses[] = {
#define X(status, code, meaning) {code, meaning},
    MB_STATUS_LIST(X)
#undef X
};

static const struct {
    const char *name, *help;
} environment[] = {
    {"MBUYU_LOG", "error, warn, info or debug: how much is said on stderr"},
    {"MBUYU_DEBUG", "1: a failure also shows its path through the source"},
    {"MBUYU_CACHE", "where tokenised data is kept; without it output_dir/cache"},
    {"MBUYU_GEMM", "openblas or onednn: who multiplies matrices; without it mbuyu chooses"},
    {"MBUYU_GPU", "n: the GPU of every rank; without it rank i of a machine takes GPU i"},
    {"MBUYU_CUDA_LIBRARY", "the file of the GPU back end; without it the one beside the program"},
    {"MBUYU_NCCL_LIBRARY", "the file of NCCL; without it libnccl.so.2 of the system"},
    {"MBUYU_ALLOC_FAIL_AT", "n: the n-th request for memory fails, for tests"},
    {"OMP_NUM_THREADS", "threads of a rank; without it its share of the cores"},
};

static const struct {
    const char *line, *what;
} examples[] = {
    {"mbuyu train my.yaml", "train as the recipe says"},
    {"mpirun -np 4 mbuyu train my.yaml max_steps=100", "on four ranks, with one key changed"},
    {"mbuyu chat out/final", "talk to the result"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void print_verbs(FILE *out)
{
    for (int g = 0; g < MB_CMD_GROUP_COUNT; g++) {
        bool titled = false;

        for (int i = 0; i < mb_n_cmds; i++) {
            if ((int)mb_cmds[i].group != g)
                continue;
            if (!titled)
                fprintf(out, "\n%s\n", group_titles[g]);
            titled = true;
            fprintf(out, "  %-10s %s\n", mb_cmds[i].verb, mb_cmds[i].help);
        }
    }
}

/* Several statuses share a code: their meanings stand on one line. */
static void print_exit_codes(const char *line, const char *between, const char *end, FILE *out)
{
    for (size_t i = 0; i < COUNT(statuses); i++) {
        if (i > 0 && statuses[i].code == statuses[i - 1].code)
            continue;
        fprintf(out, line, statuses[i].code);
        for (size_t j = i; j < COUNT(statuses) && statuses[j].code == statuses[i].code; j++)
            fprintf(out, "%s%s", j > i ? between : "", statuses[j].meaning);
        fprintf(out, "%s\n", end);
    }
    fprintf(out, line, 130);
    fprintf(out, "interrupted at once (a second SIGINT)%s\n", end);
    fprintf(out, line, 143);
    fprintf(out, "ended at once (a second SIGTERM)%s\n", end);
}

void mb_cmd_print_overview(FILE *out)
{
    fprintf(
        out,
        "mbuyu %s - fine-tunes language models on CPUs, on one machine or many over MPI.\n"
        "A Hugging Face or GGUF model goes in; a Hugging Face model or PEFT adapter comes out.\n"
        "\nUsage: mbuyu VERB [RECIPE.yaml] [key=value ...]\n\n",
        MB_VERSION);
    for (size_t i = 0; i < COUNT(examples); i++)
        fprintf(out, "  %-48s %s\n", examples[i].line, examples[i].what);
    print_verbs(out);
    fprintf(out, "\nA recipe is a YAML file of keys; the command line wins over it. "
                 "`mbuyu help VERB` lists a verb's\nkeys with their defaults, "
                 "`mbuyu help keys` all of them.\n\nExit codes\n");
    print_exit_codes("  %-4d", ";\n      ", "", out);
    fprintf(out, "\nEnvironment\n");
    for (size_t i = 0; i < COUNT(environment); i++)
        fprintf(out, "  %-20s %s\n", environment[i].name, environment[i].help);
}

static unsigned sections_of(mb_cmd_keys keys)
{
#define BIT(s) (1U << MB_SECTION_##s)
    static const unsigned sections[] = {
        [MB_CMD_KEYS_NONE] = 0,
        [MB_CMD_KEYS_ALL] = MB_SECTIONS_ALL,
        [MB_CMD_KEYS_TRAIN] = MB_SECTIONS_ALL & ~BIT(GENERATE),
        [MB_CMD_KEYS_EVAL] = BIT(MODEL) | BIT(LORA) | BIT(DATA) | BIT(BATCH) | BIT(RUN),
        [MB_CMD_KEYS_GENERATE] = BIT(MODEL) | BIT(DATA) | BIT(RUN) | BIT(GENERATE),
        [MB_CMD_KEYS_EXPORT] = BIT(MODEL) | BIT(RUN) | BIT(SAVE),
    };
#undef BIT
    return sections[keys];
}

mb_status mb_cmd_print_help(const mb_cmd *cmd, FILE *out)
{
    const unsigned sections = sections_of(cmd->keys);

    fprintf(out, "mbuyu %s - %s\n\nUsage: %smbuyu %s %s\n", cmd->verb, cmd->help,
            cmd->ranks != NULL && sections != 0 ? "[mpirun -np N] " : "", cmd->verb, cmd->usage);
    if (sections == 0)
        return MB_OK;
    fprintf(out, "\nKeys, as 'key: value' in RECIPE.yaml, or on the command line as key=value, "
                 "a.b=value,\n--key value, ~key (forget it). Steps below 1 are a fraction of all; "
                 "'-' has no default.\n");
    mb_keys_print(sections, out);
    return MB_OK;
}

static void print_keys(bool markdown)
{
    if (markdown)
        mb_keys_print_markdown(stdout);
    else
        mb_keys_print(MB_SECTIONS_ALL, stdout);
}

static void print_codes(bool markdown)
{
    if (markdown)
        printf("| code | meaning |\n|---|---|\n");
    print_exit_codes(markdown ? "| %d | " : "  %-4d", markdown ? "; " : ";\n      ",
                     markdown ? " |" : "", stdout);
}

static void print_verb_table(bool markdown)
{
    if (!markdown) {
        print_verbs(stdout);
        return;
    }
    printf("| verb | what it does |\n|---|---|\n");
    for (int g = 0; g < MB_CMD_GROUP_COUNT; g++)
        for (int i = 0; i < mb_n_cmds; i++)
            if ((int)mb_cmds[i].group == g)
                printf("| `mbuyu %s` | %s |\n", mb_cmds[i].verb, mb_cmds[i].help);
}

static void print_environment(bool markdown)
{
    if (markdown)
        printf("| variable | meaning |\n|---|---|\n");
    for (size_t i = 0; i < COUNT(environment); i++)
        printf(markdown ? "| `%s` | %s |\n" : "  %-20s %s\n", environment[i].name,
               environment[i].help);
}

static const struct {
    const char *topic;
    void (*print)(bool markdown);
} topics[] = {
    {"keys", print_keys},
    {"exit-codes", print_codes},
    {"verbs", print_verb_table},
    {"environment", print_environment},
};

mb_status mb_cmd_help(int argc, char **argv)
{
    const char *about = NULL;
    bool markdown = false;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--markdown") == 0)
            markdown = true;
        else if (about == NULL)
            about = argv[i];
        else
            return MB_RAISE(MB_EARG, "help explains one thing, not '%.60s' too", argv[i]);
    }
    if (about == NULL) {
        mb_cmd_print_overview(stdout);
        return MB_OK;
    }
    for (size_t i = 0; i < COUNT(topics); i++)
        if (strcmp(topics[i].topic, about) == 0) {
            topics[i].print(markdown);
            return MB_OK;
        }
    if (mb_cmd_find(about) == NULL)
        return mb_cmd_unknown(about);
    return mb_cmd_print_help(mb_cmd_find(about), stdout);
}
