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
    {"MBUYU_GEMM", "own, openblas or onednn: who multiplies matrices; without it mbuyu chooses"},
    {"MBUYU_GPU", "n: the GPU of every rank; without it rank i of a machine takes GPU i"},
    {"MBUYU_CUDA_LIBRARY", "the file of the GPU back end; without it the one beside the program"},
    {"MBUYU_NCCL_LIBRARY", "the file of NCCL; without it libnccl.so.2 of the system"},
    {"MBUYU_ALLOC_FAIL_AT", "n: the n-th request for memory fails, for tests"},
    {"MBUYU_HUB_TOKEN", "mbuyu hub: who has it may write"},
    {"MBUYU_LOCK_SECONDS", "pull, rm: take over a lock that nobody touched for so long (90)"},
    {"MBUYU_API_KEY", "mbuyu serve: who has it may ask"},
    {"HF_ENDPOINT", "the hub's address; without it https://huggingface.co"},
    {"HF_TOKEN", "the token for that address; without it the file HF_TOKEN_PATH, $HF_HOME/token"},
    {"HF_HOME", "with the cache in hub/ (HF_HUB_CACHE); without it ~/.cache/huggingface"},
    {"HF_HUB_OFFLINE", "1: pull, push and search ask no network"},
    {"HTTPS_PROXY", "the proxy for them; http_proxy, ALL_PROXY and NO_PROXY count too"},
    {"OMP_NUM_THREADS", "threads of a rank; without it its share of the cores"},
};

static const struct {
    const char *line, *what;
} examples[] = {
    {"mbuyu train my.yaml", "train as the recipe says"},
    {"mbuyu train my.yaml max_steps=100 --ranks 2", "on two ranks, with one key changed"},
    {"mpirun -np 8 mbuyu train my.yaml", "on the ranks of several machines"},
    {"mbuyu generate out/final prompt='Once'", "use the result"},
};

/* What a verb's screen begins with: examples, its own options, the keys most people want. */
static const struct {
    const char *verb, *keys, *text;
} guides[] = {
    {"train",
     "model_name_or_path datasets eval_datasets output_dir finetuning_type learning_rate "
     "num_train_epochs per_device_train_batch_size global_batch_size max_length eval_strategy "
     "resume_from_checkpoint",
     "  mbuyu train my.yaml\n"
     "  mbuyu train my.yaml --ranks 2                  two ranks here; Ctrl-C stops and saves\n"
     "  mpirun -np 8 mbuyu train my.yaml               ranks on many machines\n"
     "  mbuyu train my.yaml resume_from_checkpoint=auto    go on from the last checkpoint\n"},
    {"eval", "model_name_or_path adapter_path eval_datasets datasets val_set_size max_length task",
     "  mbuyu eval my.yaml adapter_path=out/final\n"
     "  mbuyu eval models/gpt2 eval_datasets=[valid.jsonl]\n"},
    {"export",
     "model_name_or_path output_dir export_dtype max_shard_size adapter_path overwrite_output_dir",
     "  mbuyu export model.gguf output_dir=models/mine          a GGUF file as a folder\n"
     "  mbuyu export out/checkpoint-000200 output_dir=out/200   a run as it was at step 200\n"},
    {"merge",
     "model_name_or_path adapter_path output_dir export_dtype max_shard_size overwrite_output_dir",
     "  mbuyu merge out/final output_dir=out/merged             an adapter knows its base\n"
     "  mbuyu merge models/gpt2 adapter_path=out/final output_dir=out/merged\n"},
    {"generate",
     "model_name_or_path adapter_path prompt prompts_file max_new_tokens stop do_sample "
     "temperature num_samples chat_template",
     "  mbuyu generate models/gpt2 prompt='Once upon a time'\n"
     "  mbuyu generate out/final prompt='\"Swahili: maji\\nEnglish:\"' 'stop=[\"\\n\"]'\n"
     "                                        in double quotes inside the value \\n is a line break\n"
     "  mbuyu generate out/final prompts_file=valid.jsonl >answers.jsonl\n"
     "  echo 'Once upon a time' | mbuyu generate models/gpt2\n"
     "\n"
     "  --chat      a text is the message of a user, in the model's chat format; without it a text\n"
     "              is continued as it is\n"
     "  --json      the answer as a JSON line with its tokens; several answers are always lines\n"
     "  --verbose   tokens per second, on standard error\n"},
    {"chat",
     "model_name_or_path adapter_path system_prompt chat_template chat_template_kwargs max_new_tokens do_sample "
     "temperature top_k top_p",
     "  mbuyu chat models/SmolLM2-135M-Instruct\n"
     "  mbuyu chat out/final do_sample=true temperature=0.7     an adapter knows its base\n"
     "\n"
     "  --verbose   tokens per second, on standard error\n"
     "  A model that was trained on prompts and completions is asked with `mbuyu generate`.\n"},
    {"pull", "",
     "  mbuyu pull HuggingFaceTB/SmolLM2-135M-Instruct       into the cache that Python shares\n"
     "  mbuyu pull org/name@v1.0 --to models/name            one revision, into a folder\n"
     "  mbuyu pull dataset:org/name --include 'data/*'       data, a part of it\n"
     "  mbuyu pull org/large --at 22:00-06:00 --limit-rate 200kB\n"
     "\n"
     "  The same command goes on where a pull was cut, stopped or killed.\n"
     "\n"
     "  --include PATTERN   only files like this, e.g. '*.safetensors' or 'onnx/'; may be repeated\n"
     "  --exclude PATTERN   no files like this; may be repeated\n"
     "  --to DIR            into a folder, not the cache\n"
     "  --jobs N            files fetched at once; 4\n"
     "  --mirror URL        asked where HF_ENDPOINT fails, without the token; may be repeated\n"
     "  --limit-rate BYTES  a second, all files together, e.g. 200kB\n"
     "  --at HH:MM-HH:MM    only in these hours; waits outside them\n"
     "  --dry-run           say what would be fetched, with sizes\n"
     "  --check             hash what is here, and fetch what is wrong again\n"
     "  --offline           only say where the cache has it\n"
     "  --token TOKEN       instead of HF_TOKEN\n"
     "  --timeout SECONDS   without a byte until a connection counts as dead; 30\n"
     "  --retries N         in a row without a byte; 4\n"
     "  --pause SECONDS     before the first of them, doubled each time; 1\n"},
    {"verify", "",
     "  mbuyu verify tests/data/reference/llama tests/data/reference/llama/golden.safetensors\n"
     "\n"
     "  golden.safetensors holds what PyTorch computed with the same model; scripts/make_reference.py\n"
     "  wrote those in tests/data/reference.\n"
     "\n"
     "  --adapter DIR    a PEFT adapter to verify with (otherwise MODEL/adapter-before, if there)\n"
     "  --device NAME    auto, cpu or cuda\n"
     "  --dtype NAME     f32, bf16 or f16: what is computed in; bounds are wider in 16 bits\n"},
    {"tokenize", "",
     "  mbuyu tokenize models/gpt2 --text 'Habari yako'\n"
     "  mbuyu tokenize models/gpt2 notes.txt --ids\n"
     "  mbuyu tokenize models/SmolLM2-135M-Instruct --messages conversation.json\n"
     "\n"
     "  --text TEXT           this text; without it and FILE, standard input\n"
     "  --messages FILE       a JSON list of messages, in the model's chat format\n"
     "  --ids                 all ids on one line\n"
     "  --special             with what the tokenizer puts around a text (BOS, EOS)\n"
     "  --parse-special       special tokens written in the text are tokens\n"
     "  --chat-template NAME  a name (chatml, llama3, qwen3, ...) or a Jinja file\n"},
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
        "mbuyu %s - fine-tunes models of language, speech and pictures on CPUs and NVIDIA GPUs.\n"
        "A Hugging Face or GGUF model goes in; a Hugging Face model or PEFT adapter comes out.\n"
        "\nUsage: mbuyu VERB [RECIPE.yaml] [key=value ...]\n\n",
        MB_VERSION);
    for (size_t i = 0; i < COUNT(examples); i++)
        fprintf(out, "  %-48s %s\n", examples[i].line, examples[i].what);
    print_verbs(out);
    fprintf(out, "\nA recipe is a YAML file of keys; the command line wins over it. "
                 "`mbuyu help VERB` lists a verb's\nkeys with their defaults, "
                 "`mbuyu help KEY` explains one, `mbuyu help keys` all of them.\n\nExit codes\n");
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
        [MB_CMD_KEYS_EVAL] = BIT(MODEL) | BIT(LORA) | BIT(DATA) | BIT(BATCH) | BIT(RUN) | BIT(EVAL),
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
    for (size_t i = 0; i < COUNT(guides); i++)
        if (strcmp(guides[i].verb, cmd->verb) == 0) {
            fprintf(out, "\n%s", guides[i].text);
            if (guides[i].keys[0] != '\0')
                fprintf(out, "\nMost used\n");
            mb_keys_print_some(guides[i].keys, out);
        }
    if (sections == 0)
        return MB_OK;
    fprintf(out, "\nAll keys, as 'key: value' in RECIPE.yaml, or on the command line as key=value, "
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
    if (mb_cmd_find(about) == NULL && mb_name_explain(about, stdout))
        return MB_OK;
    if (mb_cmd_find(about) == NULL)
        return mb_cmd_unknown(about);
    return mb_cmd_print_help(mb_cmd_find(about), stdout);
}
