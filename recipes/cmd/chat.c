/* recipes/cmd/chat.c - `mbuyu chat`: a conversation with a model.
 *
 *     mbuyu chat MODEL|RECIPE.yaml [key=value ...] [--verbose]
 *
 * On a terminal: answers appear as they come, Ctrl-C stops one, Ctrl-D leaves. From a pipe each line
 * is a message, and only answers go to standard output. Lines that begin with '/' are commands;
 * "//..." is a message that begins with one '/'. The whole conversation is rendered anew for each
 * turn, but only what is new in it is computed.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "core/sigstack.h"
#include "recipes/commands.h"
#include "recipes/generate/open.h"

enum { CONTEXT = 8192, ANSWER = 1024, MOST_LINE_BYTES = 16 << 20, READ_BYTES = 65536 };

struct input {
    char *text;
    size_t n, capacity, at; /* at: where the next line begins */
    bool ended;
};

struct talk {
    mb_writer writer;
    mb_message *message; /* their contents are owned */
    size_t n, capacity;
    mb_tokens tokens;
    struct input in;
    bool terminal, verbose, leave;
    bool newline; /* what was printed last ended with one */
};

/* Signals belong to the process. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = 1;
}

static void watch_interrupts(void)
{
    struct sigaction a = {.sa_handler = on_interrupt, .sa_flags = SA_ONSTACK};
    /* no SA_RESTART: reads are not taken up again */

    mb_signal_stack();
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
}

/* ---- input -------------------------------------------------------------------------------- */

/* The next line, zero-terminated, borrowed until the next call; NULL at the end or after Ctrl-C. */
static mb_status read_line(struct input *in, char **line)
{
    *line = NULL;
    memmove(in->text, in->text + in->at, in->n - in->at);
    in->n -= in->at;
    in->at = 0;
    for (size_t looked = 0;;) {
        char *end = memchr(in->text + looked, '\n', in->n - looked);
        ssize_t got;

        if (end != NULL || (in->ended && in->n > 0)) {
            in->at = end != NULL ? (size_t)(end - in->text) + 1 : in->n;
            in->text[end != NULL ? (size_t)(end - in->text) : in->n] = '\0';
            *line = in->text;
            return MB_OK;
        }
        if (in->ended)
            return MB_OK;
        MB_REQUIRE(in->n < MOST_LINE_BYTES, MB_EDATA, "a message has more than %d MiB",
                   MOST_LINE_BYTES >> 20);
        looked = in->n;
        MB_TRY(mb_grow((void **)&in->text, &in->capacity, in->n + READ_BYTES, 1, "a message"));
        got = read(STDIN_FILENO, in->text + in->n, READ_BYTES - 1);
        if (got < 0 && errno == EINTR) {
            in->n = 0;
            return MB_OK;
        }
        MB_REQUIRE(got >= 0, MB_EDATA, "standard input cannot be read: %s", strerror(errno));
        in->ended = got == 0;
        in->n += (size_t)got;
    }
}

/* ---- the conversation --------------------------------------------------------------------- */

static mb_status add_message(struct talk *t, mb_role role, const char *text)
{
    char *copy;

    MB_TRY(mb_grow((void **)&t->message, &t->capacity, t->n + 1, sizeof *t->message,
                   "the conversation"));
    MB_TRY(mb_strdup(text, &copy));
    t->message[t->n++] = (mb_message){.role = role, .content = copy};
    return MB_OK;
}

static void drop_message(struct talk *t)
{
    mb_free((void *)(uintptr_t)t->message[--t->n].content);
}

static void forget(struct talk *t, size_t keep)
{
    while (t->n > keep)
        drop_message(t);
}

static bool has_system(const struct talk *t)
{
    return t->n > 0 && t->message[0].role == MB_ROLE_SYSTEM;
}

static mb_status save(const struct talk *t, const char *path)
{
    mb_json_doc *doc;
    mb_json list, o;
    char *text = NULL, *line = NULL;
    size_t n;
    mb_status st;

    MB_TRY(mb_json_doc_new("conversation", &doc));
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "messages", &list), st, done);
    for (size_t i = 0; i < t->n; i++) {
        MB_TRY_GOTO(mb_json_set_object(list, NULL, &o), st, done);
        MB_TRY_GOTO(mb_json_set_string(o, "role", mb_role_name(t->message[i].role)), st, done);
        MB_TRY_GOTO(mb_json_set_string(o, "content", t->message[i].content), st, done);
    }
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, &n), st, done);
    MB_TRY_GOTO(mb_asprintf(&line, "%s\n", text), st, done);
    st = mb_file_write_atomic(path, line, n + 1);
done:
    mb_free(line);
    mb_free(text);
    mb_json_free(doc);
    return st;
}

/* ---- answers ------------------------------------------------------------------------------ */

static void print(struct talk *t, const char *text, size_t n)
{
    if (n > 0)
        t->newline = text[n - 1] == '\n';
    if (!mb_writer_print(text, n)) {
        t->leave = true;
        interrupted = 1;
    }
}

static mb_status print_piece(void *arg, int64_t prompt, const char *text, size_t n)
{
    print(arg, text, n);
    return MB_OK;
}

static mb_status take_answer(void *arg, const mb_answer *a)
{
    struct talk *t = arg;

    if (!t->newline)
        print(t, "\n", 1);
    if (a->finish == MB_FINISH_CONTEXT)
        fprintf(stderr, "(the context is full; /reset starts anew)\n");
    if (a->n == 0) { /* stopped before it began */
        drop_message(t);
        return MB_OK;
    }
    return add_message(t, MB_ROLE_ASSISTANT, a->text);
}

static mb_status answer(struct talk *t, const char *text)
{
    const int64_t context = mb_writer_context(&t->writer, CONTEXT);
    mb_generate_options o = mb_writer_options(&t->writer);
    mb_record rec = {.kind = MB_RECORD_CHAT};
    mb_prompt p;

    MB_REQUIRE(mb_utf8_fault(text, strlen(text)) < 0, MB_EDATA, "the message is not UTF-8 text");
    MB_TRY(add_message(t, MB_ROLE_USER, text));
    rec.message = t->message;
    rec.n_messages = (int64_t)t->n;
    MB_TRY(mb_writer_encode(&t->writer, &rec, &t->tokens));
    p = (mb_prompt){.id = t->tokens.ids.id, .n = (int64_t)t->tokens.ids.n, .sample = t->n / 2};
    MB_REQUIRE(
        p.n < context, MB_EDATA,
        "the conversation has %lld tokens and would not fit into %lld with an answer: /reset "
        "starts anew",
        (long long)p.n, (long long)context);
    if (!mb_recipe_is_set(t->writer.recipe, "max_new_tokens"))
        o.max_new_tokens = ANSWER;
    o.keep = true;
    o.cancel = &interrupted;
    o.arg = t;
    o.on_text = print_piece;
    o.on_answer = take_answer;
    t->newline = false;
    MB_TRY(mb_generator_run(t->writer.generator, &p, 1, &o));
    if (t->verbose)
        mb_writer_print_speed(&t->writer);
    return MB_OK;
}

/* ---- commands ----------------------------------------------------------------------------- */

static mb_status help(struct talk *t, const char *rest);

static mb_status reset(struct talk *t, const char *rest)
{
    forget(t, has_system(t) ? 1 : 0);
    return MB_OK;
}

static mb_status set_system(struct talk *t, const char *rest)
{
    forget(t, 0);
    return *rest != '\0' ? add_message(t, MB_ROLE_SYSTEM, rest) : MB_OK;
}

static mb_status save_to(struct talk *t, const char *rest)
{
    MB_REQUIRE(*rest != '\0', MB_EARG, "/save wants a file name");
    MB_TRY(save(t, rest));
    fprintf(stderr, "saved %zu messages to %s\n", t->n, rest);
    return MB_OK;
}

static mb_status leave(struct talk *t, const char *rest)
{
    t->leave = true;
    return MB_OK;
}

static const struct {
    const char *name, *help;
    mb_status (*run)(struct talk *t, const char *rest);
} commands[] = {
    {"/help", "             these lines", help},
    {"/reset", "            forget the conversation, but not the system message", reset},
    {"/system", " [TEXT]    begin anew with this system message, or the format's own", set_system},
    {"/save", " FILE        write the conversation as a line of a training file", save_to},
    {"/exit", "             leave (or /quit, or Ctrl-D)", leave},
    {"/quit", NULL, leave},
};

enum { N_COMMANDS = (int)(sizeof commands / sizeof commands[0]) };

static mb_status help(struct talk *t, const char *rest)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (commands[i].help != NULL)
            fprintf(stderr, "%s%s\n", commands[i].name, commands[i].help);
    fprintf(stderr, "Ctrl-C stops an answer; //text is a message that begins with /\n");
    return MB_OK;
}

static mb_status obey(struct talk *t, const char *line)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        const size_t n = strlen(commands[i].name);

        if (strncmp(line, commands[i].name, n) == 0 && (line[n] == '\0' || line[n] == ' '))
            return commands[i].run(t, line + n + strspn(line + n, " "));
    }
    fprintf(stderr, "there is no command %.40s; /help lists them\n", line);
    return MB_OK;
}

static mb_status one_line(struct talk *t, char *line)
{
    const size_t n = strlen(line), before = t->n;
    mb_status st;

    if (n > 0 && line[n - 1] == '\r')
        line[n - 1] = '\0';
    if (line[strspn(line, " \t")] == '\0')
        return MB_OK;
    interrupted = 0;
    st = line[0] == '/' && line[1] != '/' ? obey(t, line) : answer(t, line + (line[0] == '/'));
    if (st == MB_OK || !t->terminal || (st != MB_EDATA && st != MB_EARG && st != MB_EIO))
        return st;
    if (t->n > before) /* a person may say it otherwise */
        forget(t, before);
    fprintf(stderr, "%s\n", mb_status_sentence());
    mb_status_clear();
    return MB_OK;
}

/* ---- the verb ----------------------------------------------------------------------------- */

/* A format that cannot write conversations is found before the weights are read. */
static mb_status check_format(struct talk *t)
{
    mb_message m = {.role = MB_ROLE_USER, .content = "?"};
    const mb_record rec = {.kind = MB_RECORD_CHAT, .message = &m, .n_messages = 1};

    return mb_writer_encode(&t->writer, &rec, &t->tokens);
}

static mb_status converse(struct talk *t)
{
    char *line;

    if (t->terminal) {
        watch_interrupts();
        fprintf(stderr, "%s. /help lists commands.\n", t->writer.model);
    }
    while (!t->leave) {
        if (t->terminal)
            print(t, "> ", 2);
        interrupted = 0;
        MB_TRY(read_line(&t->in, &line));
        if (line != NULL) {
            MB_TRY(one_line(t, line));
        } else {
            if (t->terminal)
                print(t, "\n", 1);
            if (t->in.ended)
                return MB_OK;
            fprintf(stderr, "(Ctrl-D or /exit leaves)\n");
        }
    }
    return MB_OK;
}

mb_status mb_cmd_chat(int argc, char **argv)
{
    struct talk t = {.terminal = isatty(STDIN_FILENO) != 0};
    mb_recipe *r = NULL;
    mb_status st;
    int n = 0;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            t.verbose = true;
        else
            argv[n++] = argv[i];
    }
    MB_TRY(mb_recipe_load(n, argv, &r));
    MB_TRY_GOTO(mb_recipe_require(r, "chat", "model_name_or_path", NULL), st, done);
    MB_TRY_GOTO(mb_writer_open(r, &t.writer), st, done);
    MB_TRY_GOTO(check_format(&t), st, done);
    MB_TRY_GOTO(mb_writer_load(&t.writer, 1, mb_writer_context(&t.writer, CONTEXT)), st, done);
    MB_TRY_GOTO(mb_grow((void **)&t.in.text, &t.in.capacity, READ_BYTES, 1, "a message"), st, done);
    st = converse(&t);
done:
    forget(&t, 0);
    mb_free(t.message);
    mb_free(t.in.text);
    mb_tokens_release(&t.tokens);
    mb_writer_close(&t.writer);
    mb_recipe_free(r);
    return st;
}
