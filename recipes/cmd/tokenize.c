/* recipes/cmd/tokenize.c - `mbuyu tokenize`: what a model's tokenizer makes of a text.
 *
 *     mbuyu tokenize MODEL [FILE | --text TEXT | --messages JSON_FILE] [--ids] [--special]
 *                    [--parse-special] [--chat-template NAME]
 *
 * Without a text it is read from standard input. One line per token: id, tab, token as JSON text;
 * with --ids all ids on one line. --special adds what the post-processor adds, --parse-special makes
 * special tokens written in the text into tokens. --messages renders a conversation, as generate
 * and chat do up to where the model would answer when the last message is not the assistant's. The number of tokens goes to standard error.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/config/hub_path.h"
#include "recipes/data/template.h"

enum { MOST_BYTES = 256 << 20 };

struct wishes {
    const char *model, *file, *text, *messages, *chat;
    bool ids;
    unsigned flags;
};

static mb_status parse(int argc, char **argv, struct wishes *w)
{
    static const struct {
        const char *name;
        size_t at;
    } values[] = {
        {"--text", offsetof(struct wishes, text)},
        {"--messages", offsetof(struct wishes, messages)},
        {"--chat-template", offsetof(struct wishes, chat)},
    };

    for (int i = 1; i < argc; i++) {
        const char **value = NULL;

        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            if (strcmp(argv[i], values[k].name) == 0)
                value = (const char **)(void *)((char *)w + values[k].at);
        }
        if (value != NULL) {
            MB_REQUIRE(i + 1 < argc, MB_EARG, "%s wants a value", argv[i]);
            *value = argv[++i];
        } else if (strcmp(argv[i], "--ids") == 0) {
            w->ids = true;
        } else if (strcmp(argv[i], "--special") == 0) {
            w->flags |= MB_TOK_SPECIAL;
        } else if (strcmp(argv[i], "--parse-special") == 0) {
            w->flags |= MB_TOK_PARSE_SPECIAL;
        } else {
            MB_REQUIRE(strncmp(argv[i], "--", 2) != 0, MB_EARG, "tokenize has no option %s",
                       argv[i]);
            MB_REQUIRE(w->file == NULL, MB_EARG, "tokenize: \"%s\" is one argument too many",
                       argv[i]);
            if (w->model == NULL)
                w->model = argv[i];
            else
                w->file = argv[i];
        }
    }
    MB_REQUIRE(w->model != NULL, MB_EARG,
               "usage: mbuyu tokenize MODEL [FILE | --text TEXT | --messages JSON_FILE]");
    MB_REQUIRE((w->file != NULL) + (w->text != NULL) + (w->messages != NULL) <= 1, MB_EARG,
               "tokenize: give one of FILE, --text and --messages");
    return MB_OK;
}

/* All of standard input, or of a file; owned by the caller. */
static mb_status read_text(const char *path, char **text, size_t *n)
{
    size_t capacity = 0;

    *text = NULL;
    *n = 0;
    if (path != NULL && strcmp(path, "-") != 0)
        return mb_file_read_as(path, MB_EDATA, MOST_BYTES, text, n);
    for (;;) {
        MB_TRY(mb_grow((void **)text, &capacity, *n + 65536, 1, "standard input"));

        const ssize_t got = read(STDIN_FILENO, *text + *n, 65536);

        MB_REQUIRE(got >= 0 && *n < MOST_BYTES, MB_EDATA, "standard input cannot be read");
        if (got == 0)
            return MB_OK;
        *n += (size_t)got;
    }
}

static mb_status encode_messages(const struct wishes *w, const mb_tokenizer *tok, mb_tokens *out)
{
    mb_record rec = {0};
    mb_chat *chat = NULL;
    char *text = NULL;
    bool answered;
    size_t n;
    mb_status st;

    MB_TRY(mb_chat_open(&(mb_chat_options){.tokenizer = tok, .choice = w->chat}, &chat));
    MB_TRY_GOTO(read_text(w->messages, &text, &n), st, done);
    MB_TRY_GOTO(mb_messages_parse(text, n, w->messages, &rec), st, done);
    answered = rec.n_messages > 0 && rec.message[rec.n_messages - 1].role == MB_ROLE_ASSISTANT;
    const mb_conversation talk = mb_record_talk(&rec);
    st = mb_chat_render(chat, &talk, NULL, !answered, out);
done:
    mb_record_release(&rec);
    mb_free(text);
    mb_chat_free(chat);
    return st;
}

static mb_status encode(const struct wishes *w, const mb_tokenizer *tok, mb_tokens *out)
{
    char *text = NULL;
    size_t n = 0;
    mb_status st;

    if (w->messages != NULL)
        return encode_messages(w, tok, out);
    if (w->text != NULL)
        return mb_tokenizer_encode(tok, w->text, strlen(w->text), w->flags, &out->ids);
    st = read_text(w->file, &text, &n);
    if (st == MB_OK)
        st = mb_tokenizer_encode(tok, text, n, w->flags, &out->ids);
    mb_free(text);
    return st;
}

/* The bytes of one token as a JSON string; tokens that are half a character show U+FFFD. */
static mb_status print_token(const mb_tokenizer *tok, int32_t id, mb_json_doc *doc)
{
    char *text = NULL, *quoted = NULL;
    mb_status st;

    MB_TRY(mb_tokenizer_decode(tok, &id, 1, false, &text, NULL));
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "t", text), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_get(mb_json_root(doc), "t"), 0, &quoted, NULL), st, done);
    printf("%d\t%s\n", id, quoted);
done:
    mb_free(text);
    mb_free(quoted);
    return st;
}

static mb_status print(const struct wishes *w, const mb_tokenizer *tok, const mb_ids *ids)
{
    mb_json_doc *doc;
    mb_status st = MB_OK;

    for (size_t i = 0; i < ids->n && w->ids; i++)
        printf("%s%d", i > 0 ? " " : "", ids->id[i]);
    if (w->ids) {
        printf("\n");
        return MB_OK;
    }
    MB_TRY(mb_json_doc_new("token", &doc));
    for (size_t i = 0; i < ids->n && st == MB_OK; i++)
        st = print_token(tok, ids->id[i], doc);
    mb_json_free(doc);
    return st;
}

mb_status mb_cmd_tokenize(int argc, char **argv)
{
    struct wishes w = {0};
    mb_tokenizer *tok = NULL;
    mb_tokens out = {0};
    char model[MB_PATH_MAX];
    mb_status st;

    MB_TRY(parse(argc, argv, &w));
    MB_TRY(mb_hub_model(w.model, model, sizeof model));
    MB_TRY(mb_tokenizer_load(model, &tok));
    MB_TRY_GOTO(encode(&w, tok, &out), st, done);
    MB_TRY_GOTO(print(&w, tok, &out.ids), st, done);
    mb_log_info("%lld tokens", (long long)out.ids.n);
done:
    mb_tokens_release(&out);
    mb_tokenizer_free(tok);
    return st;
}
