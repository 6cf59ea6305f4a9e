/* recipes/generate/prompts.c - see recipes/generate/prompts.h. */
#include "recipes/generate/prompts.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"

enum { MOST_STDIN_BYTES = 64 << 20, READ_BYTES = 65536, PATIENCE_MS = 1000 };

static mb_status new_row(mb_prompt_rows *p, mb_prompt_row **out)
{
    MB_TRY(mb_grow((void **)&p->at, &p->capacity, p->n + 1, sizeof *p->at, "the prompts"));
    *out = &p->at[p->n++];
    return MB_OK;
}

/* The same failure as one of data. */
static mb_status as_data(mb_status st)
{
    char sentence[1024];

    if (st != MB_EARG)
        return st;
    strncpy(sentence, mb_status_sentence(), sizeof sentence - 1);
    sentence[sizeof sentence - 1] = '\0';
    mb_status_set(MB_EDATA, sentence);
    return MB_EDATA;
}

/* row->messages was made: the conversation in it, up to the last message that can be answered. */
static mb_status read_conversation(mb_prompt_row *row)
{
    char *text;
    size_t n;
    mb_status st;

    MB_TRY(mb_json_text(mb_json_root(row->messages), 0, &text, &n));
    st = as_data(mb_messages_parse(text, n, "messages", &row->chat));
    mb_free(text);
    if (st != MB_OK)
        return st;
    while (row->chat.n_messages > 0 &&
           row->chat.message[row->chat.n_messages - 1].role == MB_ROLE_ASSISTANT)
        row->chat.n_messages--;
    MB_REQUIRE(row->chat.n_messages > 0, MB_EDATA, "the conversation has no message to answer");
    return MB_OK;
}

static mb_status add_user_message(mb_prompt_row *row, const char *text)
{
    mb_json list, message;

    MB_TRY(mb_json_doc_new("prompt", &row->messages));
    MB_TRY(mb_json_set_array(mb_json_root(row->messages), "messages", &list));
    MB_TRY(mb_json_set_object(list, NULL, &message));
    MB_TRY(mb_json_set_string(message, "role", "user"));
    MB_TRY(mb_json_set_string(message, "content", text));
    return read_conversation(row);
}

mb_status mb_prompt_rows_add(mb_prompt_rows *p, const char *text, size_t n, bool as_chat)
{
    const int64_t fault = mb_utf8_fault(text, n);
    mb_prompt_row *row = NULL;

    MB_REQUIRE(fault < 0, MB_EDATA, "the prompt is not UTF-8 text: byte %lld", (long long)fault);
    MB_TRY(new_row(p, &row));
    MB_TRY(mb_strndup(text, n, &row->text));
    if (!as_chat)
        return MB_OK;
    MB_TRY(add_user_message(row, row->text));
    mb_free(row->text);
    row->text = NULL;
    return MB_OK;
}

/* ---- files -------------------------------------------------------------------------------- */

static const char *column(const mb_field_map *field, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(field[i].canonical, name) == 0)
            return field[i].column;
    return name;
}

static mb_status add_messages(mb_prompt_rows *p, mb_json list)
{
    mb_prompt_row *row = NULL;

    MB_TRY(new_row(p, &row));
    MB_TRY(mb_json_doc_new("prompt", &row->messages));
    MB_TRY(mb_json_set(mb_json_root(row->messages), "messages", list));
    return read_conversation(row);
}

/* The completion beside the prompt, where it is a text. */
static mb_status keep_reference(mb_prompt_rows *p, mb_json o, const char *name)
{
    const mb_json v = mb_json_get(o, name);
    const char *text;
    size_t n;

    if (!mb_json_is(v, MB_JSON_STRING))
        return MB_OK;
    MB_TRY(mb_json_string(v, &text, &n));
    return mb_strndup(text, n, &p->at[p->n - 1].reference);
}

static mb_status add_object(mb_prompt_rows *p, mb_json o, const mb_field_map *field, int n_fields,
                            bool as_chat)
{
    const char *names[] = {column(field, n_fields, "messages"), column(field, n_fields, "prompt")};
    const char *text;
    size_t n;

    for (int i = 0; i < 2; i++) {
        const mb_json v = mb_json_get(o, names[i]);

        if (mb_json_is(v, MB_JSON_ARRAY))
            return add_messages(p, v);
        if (mb_json_is_set(v)) {
            MB_TRY(mb_json_string(v, &text, &n));
            return mb_prompt_rows_add(p, text, n, as_chat);
        }
    }
    return MB_RAISE(MB_EDATA, "a row has neither \"%s\" nor \"%s\"", names[1], names[0]);
}

static mb_status add_row(mb_prompt_rows *p, mb_rowfile_kind kind, const mb_row_text *row,
                         const char *path, const mb_field_map *field, int n_fields, bool as_chat)
{
    mb_json_doc *doc;
    mb_status st;

    if (kind == MB_ROWFILE_TXT)
        return mb_prompt_rows_add(p, row->text, row->n, as_chat);
    MB_TRY(mb_json_parse(row->text, row->n, path, row->line - 1, MB_EDATA, &doc));
    st = add_object(p, mb_json_root(doc), field, n_fields, as_chat);
    if (st == MB_OK)
        st = keep_reference(p, mb_json_root(doc), column(field, n_fields, "completion"));
    mb_json_free(doc);
    return st;
}

mb_status mb_prompt_rows_read(mb_prompt_rows *p, const char *path, const mb_field_map *field,
                              int n_fields, bool as_chat)
{
    const size_t before = p->n;
    mb_rowfile_kind kind;
    mb_rowfile *f = NULL;
    mb_row_text row;
    bool more = true;
    mb_status st;

    MB_TRY(mb_rowfile_kind_of(path, &kind));
    MB_REQUIRE(kind != MB_ROWFILE_CSV && kind != MB_ROWFILE_TSV, MB_EDATA,
               "%s: prompts are read from .txt, .jsonl and .json files", path);
    MB_TRY(mb_rowfile_open(path, kind, MB_TEXT_LINE, &f));
    for (;;) {
        MB_TRY_GOTO(mb_rowfile_next(f, &row, &more), st, done);
        if (!more)
            break;
        st = add_row(p, kind, &row, path, field, n_fields, as_chat);
        if (st != MB_OK && strncmp(mb_status_sentence(), path, strlen(path)) != 0)
            mb_status_prefix(st, "%s:%lld: ", path, (long long)row.line);
        MB_TRY_GOTO(st, st, done);
    }
    if (p->n == before)
        st = MB_RAISE(MB_EDATA, "%s: there is no prompt in it", path);
done:
    mb_rowfile_close(f);
    return st;
}

mb_status mb_prompt_rows_stdin(mb_prompt_rows *p, bool as_chat)
{
    char *text = NULL;
    size_t n = 0, capacity = 0;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    ssize_t got;
    mb_status st = MB_OK;

    if (poll(&in, 1, PATIENCE_MS) == 0)
        mb_log_info("waiting for a text on standard input (or give prompt=TEXT)");
    do {
        MB_TRY_GOTO(mb_grow((void **)&text, &capacity, n + READ_BYTES, 1, "standard input"), st,
                    done);
        got = read(STDIN_FILENO, text + n, READ_BYTES);
        n += got > 0 ? (size_t)got : 0;
    } while (got > 0 && n < MOST_STDIN_BYTES);
    if (got != 0) {
        st = MB_RAISE(MB_EDATA, "standard input cannot be read, or has more than %d MiB",
                      MOST_STDIN_BYTES >> 20);
        goto done;
    }
    n -= n > 0 && text[n - 1] == '\n';
    st = mb_prompt_rows_add(p, text, n, as_chat);
done:
    mb_free(text);
    return st;
}

void mb_prompt_rows_release(mb_prompt_rows *p)
{
    for (size_t i = 0; i < p->n; i++) {
        mb_free(p->at[i].text);
        mb_record_release(&p->at[i].chat);
        mb_json_free(p->at[i].messages);
        mb_free(p->at[i].reference);
    }
    mb_free(p->at);
    *p = (mb_prompt_rows){0};
}

mb_record mb_prompt_row_record(const mb_prompt_row *row)
{
    if (row->text != NULL)
        return (mb_record){.kind = MB_RECORD_TEXT, .text = row->text};
    return row->chat;
}
