/* recipes/data/records.c - see recipes/data/records.h.
 *
 * A row is seen through `struct mb_row`, which gives the value of a canonical field whether the row is
 * a JSON object or a line of a table; the formats are a table of the fields they need and a function
 * that builds the record.
 */
#include "recipes/data/records.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/data/hdf5.h"
#include "recipes/data/records_inside.h"

enum { MAX_COLUMNS = 1024 };

typedef mb_status (*build_fn)(const struct mb_row *row, mb_record *out);

struct format {
    const char *name;
    const char *need[3], *label[4]; /* all of these; one of those, where labels are needed */
    unsigned rows;                  /* what it gives: bits of mb_want */
    build_fn build;
};

struct mb_records {
    mb_source source;
    mb_rowfile *rows;
    mb_rowfile_kind kind;
    const struct format *format;
    char path[MB_PATH_MAX];  /* of the file; of a folder's metadata; of the source's side */
    char other[MB_PATH_MAX]; /* of the target's side */
    int64_t at, from, to;    /* row number; the split, or the part of it that is read */
    int64_t n_rows;          /* of the file, when the split is sliced; else -1 */
    int part, n_parts;       /* of a split with + in it */
    char *header;            /* a table's column names, one after the other */
    const char *column[MAX_COLUMNS];
    int n_columns;
};

/* Memory that lives as long as the record. */
struct block {
    struct block *next;
    char data[];
};

mb_status mb_record_take(mb_record *rec, size_t bytes, void **out)
{
    struct block *b;

    MB_TRY(mb_alloc(sizeof *b + bytes, "a row", (void **)&b));
    memset(b->data, 0, bytes);
    b->next = rec->memory;
    rec->memory = b;
    *out = b->data;
    return MB_OK;
}

/* A document that lives as long as the record. */
struct document {
    struct document *next;
    mb_json_doc *doc;
};

/* Takes `doc`, also when it fails. */
static mb_status keep(mb_record *rec, mb_json_doc *doc)
{
    struct document *d;
    void *p = NULL;
    const mb_status st = mb_record_take(rec, sizeof *d, &p);

    if (st != MB_OK) {
        mb_json_free(doc);
        return st;
    }
    d = p;
    *d = (struct document){rec->tree, doc};
    rec->tree = d;
    return MB_OK;
}

void mb_record_release(mb_record *rec)
{
    for (const struct document *d = rec->tree; d != NULL; d = d->next)
        mb_json_free(d->doc);
    for (struct block *b = rec->memory; b != NULL;) {
        struct block *next = b->next;

        mb_free(b);
        b = next;
    }
    *rec = (mb_record){0};
}

/* "a" + between + "b", owned by the record. */
static mb_status joined(mb_record *rec, const char *a, const char *between, const char *b,
                        const char **out)
{
    const size_t na = strlen(a), nm = strlen(between), nb = strlen(b);
    void *p = NULL;

    MB_TRY(mb_record_take(rec, na + nm + nb + 1, &p));
    memcpy(p, a, na);
    memcpy((char *)p + na, between, nm);
    memcpy((char *)p + na + nm, b, nb);
    *out = p;
    return MB_OK;
}

static const char *column_name(const mb_records *r, const char *canonical)
{
    for (int i = 0; i < r->source.n_fields; i++) {
        if (strcmp(r->source.field[i].canonical, canonical) == 0)
            return r->source.field[i].column;
    }
    return canonical;
}

/* Is there a value, and which? null counts as absent. */
bool mb_row_find(const struct mb_row *row, const char *canonical, struct mb_row_value *v)
{
    const char *name = column_name(row->r, canonical);

    *v = (struct mb_row_value){0};
    if (row->field == NULL) {
        v->json = mb_json_get(row->object, name);
        return mb_json_is_set(v->json);
    }
    for (int i = 0; i < row->r->n_columns; i++) {
        if (strcmp(row->r->column[i], name) == 0) {
            v->text = row->field[i];
            return true;
        }
    }
    return false;
}

mb_status mb_row_value_text(const struct mb_row_value *v, const char **out)
{
    if (v->text != NULL) {
        *out = v->text;
        return MB_OK;
    }
    return mb_json_string(v->json, out, NULL);
}

/* A field that must be there and be a text. */
mb_status mb_row_need_text(const struct mb_row *row, const char *canonical, const char **out)
{
    struct mb_row_value v;

    MB_REQUIRE(mb_row_find(row, canonical, &v), MB_EDATA, "the row has no %s",
               column_name(row->r, canonical));
    return mb_row_value_text(&v, out);
}

/* A field that may be missing: "" then. */
static mb_status maybe_text(const struct mb_row *row, const char *canonical, const char **out)
{
    struct mb_row_value v;

    *out = "";
    return mb_row_find(row, canonical, &v) ? mb_row_value_text(&v, out) : MB_OK;
}

static const struct {
    const char *name;
    mb_role role;
} role_names[] = {
    {"system", MB_ROLE_SYSTEM},       {"user", MB_ROLE_USER},
    {"assistant", MB_ROLE_ASSISTANT}, {"tool", MB_ROLE_TOOL},
    {"developer", MB_ROLE_DEVELOPER}, {"human", MB_ROLE_USER},
    {"gpt", MB_ROLE_ASSISTANT},       {"chatgpt", MB_ROLE_ASSISTANT},
    {"observation", MB_ROLE_TOOL},    {"function_call", MB_ROLE_ASSISTANT},
};

const char *mb_role_name(mb_role role)
{
    return role_names[role].name; /* the first five are in the order of the enum */
}

bool mb_role_from_name(const char *name, mb_role *out)
{
    for (size_t i = 0; i < sizeof role_names / sizeof role_names[0]; i++) {
        if (strcmp(role_names[i].name, name) == 0) {
            *out = role_names[i].role;
            return true;
        }
    }
    return false;
}

static mb_status add_message(mb_record *rec, mb_role role, const char *content)
{
    rec->message[rec->n_messages++] = (mb_message){.role = role, .content = content};
    return MB_OK;
}

static mb_status reserve_messages(mb_record *rec, size_t n)
{
    void *p = NULL;

    MB_TRY(mb_record_take(rec, n * sizeof(mb_message), &p));
    rec->message = p;
    rec->n_messages = 0;
    return MB_OK;
}

/* content: a string, or a list of {"type": "text", "text": ...} which are put together. */
static mb_status content_of(mb_json content, mb_record *rec, const char **out)
{
    if (!mb_json_is(content, MB_JSON_ARRAY))
        return mb_json_string(content, out, NULL);
    *out = "";
    for (mb_json_it it = mb_json_first(content); mb_json_more(&it); mb_json_next(&it)) {
        const char *type, *text;

        if (mb_json_is(it.value, MB_JSON_STRING)) {
            MB_TRY(mb_json_string(it.value, &text, NULL));
        } else {
            MB_TRY(mb_json_get_string(it.value, "type", "text", &type));
            if (strcmp(type, "text") != 0)
                return mb_json_fault(it.value, "is a part of type \"%s\"; only text can be trained",
                                     type);
            MB_TRY(mb_json_get_string(it.value, "text", "", &text));
        }
        MB_TRY(joined(rec, *out, "", text, out));
    }
    return MB_OK;
}

/* A sharegpt turn of function_call: a call, or a list of them, as JSON text. */
static mb_status calls_of(mb_json v, mb_record *rec, const char *text)
{
    mb_json_doc *read, *doc;
    mb_json call, list;

    if (mb_json_parse(text, strlen(text), "function_call", 0, MB_EDATA, &read) != MB_OK) {
        mb_status_clear();
        return mb_json_fault(v, "is a function_call whose value is not JSON");
    }
    MB_TRY(keep(rec, read));
    MB_TRY(mb_json_doc_new_array("tool_calls", &doc));
    MB_TRY(keep(rec, doc));
    list = mb_json_root(read);
    const bool several = mb_json_is(list, MB_JSON_ARRAY);
    for (size_t i = 0; i < (several ? mb_json_count(list) : 1); i++) {
        mb_json one = several ? mb_json_at(list, i) : list;

        if (!mb_json_is(mb_json_get(one, "name"), MB_JSON_STRING))
            return mb_json_fault(v, "is a function_call without a name");
        MB_TRY(mb_json_set_object(mb_json_root(doc), NULL, &call));
        MB_TRY(mb_json_set_string(call, "type", "function"));
        MB_TRY(mb_json_set(call, "function", one));
    }
    rec->message[rec->n_messages - 1].calls = mb_json_root(doc);
    rec->message[rec->n_messages - 1].no_content = true;
    rec->message[rec->n_messages - 1].content = "";
    return MB_OK;
}

static mb_status message_of(mb_json v, mb_record *rec)
{
    const bool sharegpt = mb_json_is_set(mb_json_get(v, "from"));
    const char *content_key = sharegpt ? "value" : "content";
    mb_json content = mb_json_get(v, content_key);
    const char *name, *text;
    mb_role role;

    if (!mb_json_is(v, MB_JSON_OBJECT))
        return mb_json_fault(v, "must be a message, an object with role and content");
    MB_TRY(mb_json_get_string(v, sharegpt ? "from" : "role", "", &name));
    if (!mb_role_from_name(name, &role))
        return mb_json_fault(v,
                             "has the role \"%s\"; known are system, user, assistant, tool, "
                             "developer",
                             name);
    const bool calls = mb_json_count(mb_json_get(v, "tool_calls")) > 0;
    if (!mb_json_is_set(content) && (!calls || role != MB_ROLE_ASSISTANT))
        return mb_json_fault(v, "has no %s", content_key);
    if (mb_json_is_set(content))
        MB_TRY(content_of(content, rec, &text));
    MB_TRY(add_message(rec, role, mb_json_is_set(content) ? text : ""));
    rec->message[rec->n_messages - 1].no_content = !mb_json_is_set(content);
    if (!sharegpt)
        rec->message[rec->n_messages - 1].given = v;
    return strcmp(name, "function_call") == 0 ? calls_of(v, rec, text) : MB_OK;
}

/* Appends the messages of `list`; room for them was reserved. */
static mb_status messages_of(mb_json list, mb_record *rec)
{
    if (!mb_json_is(list, MB_JSON_ARRAY))
        return mb_json_fault(list, "must be a list of messages");
    if (mb_json_count(list) == 0)
        return mb_json_fault(list, "is an empty list of messages");
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(message_of(it.value, rec));
    return MB_OK;
}

const char *mb_row_column(const struct mb_row *row, const char *canonical)
{
    return column_name(row->r, canonical);
}

mb_want mb_records_wanted(const mb_records *r)
{
    return r->source.rows;
}

const char *mb_row_first(const struct mb_row *row, const char *const *canonical,
                         struct mb_row_value *v)
{
    for (; *canonical != NULL; canonical++)
        if (mb_row_find(row, *canonical, v))
            return *canonical;
    return NULL;
}

mb_status mb_row_json(const struct mb_row_value *v, const char *canonical, mb_record *rec,
                      mb_json *out)
{
    mb_json_doc *doc;

    if (v->text == NULL) {
        *out = v->json;
        return MB_OK;
    }
    MB_TRY(mb_json_parse(v->text, strlen(v->text), canonical, 0, MB_EDATA, &doc));
    MB_TRY(keep(rec, doc));
    *out = mb_json_root(doc);
    return MB_OK;
}

static mb_status need_json(const struct mb_row *row, const char *canonical, mb_record *rec,
                           mb_json *out)
{
    struct mb_row_value v;

    MB_REQUIRE(mb_row_find(row, canonical, &v), MB_EDATA, "the row has no %s",
               column_name(row->r, canonical));
    return mb_row_json(&v, canonical, rec, out);
}

/* The same for a field that may be missing, and may be JSON inside a text; it must then be of this
 * type. */
static mb_status maybe_json(const struct mb_row *row, const char *canonical, mb_json_type type,
                            mb_record *rec, mb_json *out)
{
    struct mb_row_value v;
    const char *text;
    mb_json_doc *doc;

    *out = (mb_json){0};
    if (!mb_row_find(row, canonical, &v) || (v.text != NULL && v.text[0] == '\0'))
        return MB_OK;
    *out = v.json;
    if (v.text != NULL || mb_json_is(v.json, MB_JSON_STRING)) {
        MB_TRY(mb_row_value_text(&v, &text));
        *out = (mb_json){0};
        if (text[strspn(text, " \t\r\n")] == '\0')
            return MB_OK;
        MB_TRY(mb_json_parse(text, strlen(text), canonical, 0, MB_EDATA, &doc));
        MB_TRY(keep(rec, doc));
        *out = mb_json_root(doc);
    }
    MB_REQUIRE(mb_json_is(*out, type), MB_EDATA, "%s must be %s", column_name(row->r, canonical),
               type == MB_JSON_ARRAY ? "a list" : "an object");
    return MB_OK;
}

/* What a conversation brings besides its messages. */
static mb_status build_surroundings(const struct mb_row *row, mb_record *rec)
{
    MB_TRY(maybe_json(row, "tools", MB_JSON_ARRAY, rec, &rec->tools));
    MB_TRY(maybe_json(row, "documents", MB_JSON_ARRAY, rec, &rec->documents));
    return maybe_json(row, "chat_template_kwargs", MB_JSON_OBJECT, rec, &rec->values);
}

static mb_status build_chat(const struct mb_row *row, mb_record *rec, const char *field)
{
    const char *system;
    mb_json list;

    rec->kind = MB_RECORD_CHAT;
    MB_TRY(need_json(row, field, rec, &list));
    MB_TRY(maybe_text(row, "system", &system));
    MB_TRY(reserve_messages(rec, mb_json_count(list) + 1));
    if (system[0] != '\0')
        MB_TRY(add_message(rec, MB_ROLE_SYSTEM, system));
    MB_TRY(build_surroundings(row, rec));
    return messages_of(list, rec);
}

static mb_status build_messages(const struct mb_row *row, mb_record *rec)
{
    return build_chat(row, rec, "messages");
}

static mb_status build_sharegpt(const struct mb_row *row, mb_record *rec)
{
    return build_chat(row, rec, "conversations");
}

static mb_status build_history(const struct mb_row *row, mb_record *rec)
{
    struct mb_row_value v;

    if (!mb_row_find(row, "history", &v) || v.text != NULL)
        return MB_OK;
    for (mb_json_it it = mb_json_first(v.json); mb_json_more(&it); mb_json_next(&it)) {
        const char *question, *answer;

        if (mb_json_count(it.value) != 2)
            return mb_json_fault(it.value, "must be a pair [question, answer]");
        MB_TRY(mb_json_string(mb_json_at(it.value, 0), &question, NULL));
        MB_TRY(mb_json_string(mb_json_at(it.value, 1), &answer, NULL));
        MB_TRY(add_message(rec, MB_ROLE_USER, question));
        MB_TRY(add_message(rec, MB_ROLE_ASSISTANT, answer));
    }
    return MB_OK;
}

static mb_status build_alpaca(const struct mb_row *row, mb_record *rec)
{
    const char *instruction, *input, *output, *system;
    struct mb_row_value history;

    rec->kind = MB_RECORD_CHAT;
    MB_TRY(mb_row_need_text(row, "instruction", &instruction));
    MB_TRY(maybe_text(row, "input", &input));
    MB_TRY(mb_row_need_text(row, "output", &output));
    MB_TRY(maybe_text(row, "system", &system));
    mb_row_find(row, "history", &history);
    MB_TRY(reserve_messages(rec, 3 + 2 * mb_json_count(history.json)));
    if (system[0] != '\0')
        MB_TRY(add_message(rec, MB_ROLE_SYSTEM, system));
    MB_TRY(build_history(row, rec));
    if (input[0] != '\0')
        MB_TRY(joined(rec, instruction, "\n", input, &instruction));
    MB_TRY(add_message(rec, MB_ROLE_USER, instruction));
    return add_message(rec, MB_ROLE_ASSISTANT, output);
}

static mb_status build_pair(const struct mb_row *row, mb_record *rec)
{
    struct mb_row_value prompt, completion;

    MB_REQUIRE(mb_row_find(row, "prompt", &prompt), MB_EDATA, "the row has no %s",
               column_name(row->r, "prompt"));
    MB_REQUIRE(mb_row_find(row, "completion", &completion), MB_EDATA, "the row has no %s",
               column_name(row->r, "completion"));
    if (!mb_json_is(prompt.json, MB_JSON_ARRAY) && !mb_json_is(completion.json, MB_JSON_ARRAY)) {
        rec->kind = MB_RECORD_PAIR;
        MB_TRY(mb_row_value_text(&prompt, &rec->text));
        return mb_row_value_text(&completion, &rec->text2);
    }
    rec->kind = MB_RECORD_CHAT;
    MB_TRY(reserve_messages(rec, mb_json_count(prompt.json) + mb_json_count(completion.json)));
    MB_TRY(build_surroundings(row, rec));
    MB_TRY(messages_of(prompt.json, rec));

    const int64_t prompts = rec->n_messages;

    MB_TRY(messages_of(completion.json, rec));
    for (int64_t i = prompts; i < rec->n_messages; i++)
        rec->message[i].completion = true;
    return MB_OK;
}

static mb_status build_text(const struct mb_row *row, mb_record *rec)
{
    rec->kind = MB_RECORD_TEXT;
    return mb_row_need_text(row, "text", &rec->text);
}

static mb_status ids_of(mb_json list, const char *name, size_t n, mb_record *rec, int32_t **out)
{
    void *p = NULL;
    int32_t *id;

    MB_REQUIRE(mb_json_is(list, MB_JSON_ARRAY) && (n == 0 || mb_json_count(list) == n), MB_EDATA,
               n == 0 ? "%s must be a list of ids" : "%s must be a list as long as input_ids",
               name);
    MB_TRY(mb_record_take(rec, (mb_json_count(list) + 1) * sizeof *id, &p));
    id = p;
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        int64_t v;

        MB_TRY(mb_json_int(it.value, &v));
        if (v < INT32_MIN || v > INT32_MAX)
            return mb_json_fault(it.value, "is no token id");
        id[it.index] = (int32_t)v;
    }
    *out = id;
    return MB_OK;
}

/* Rows that were tokenised elsewhere; a label of -100 is not trained. Where attention_mask is 0 a
 * row was padded: that is cut off. */
static mb_status build_tokens(const struct mb_row *row, mb_record *rec)
{
    int32_t *id, *label = NULL, *mask;
    mb_json ids, labels, masks;

    rec->kind = MB_RECORD_TOKENS;
    MB_TRY(need_json(row, "input_ids", rec, &ids));
    MB_TRY(maybe_json(row, "labels", MB_JSON_ARRAY, rec, &labels));
    MB_TRY(maybe_json(row, "attention_mask", MB_JSON_ARRAY, rec, &masks));
    MB_TRY(ids_of(ids, column_name(row->r, "input_ids"), 0, rec, &id));
    rec->n_ids = (int64_t)mb_json_count(ids);
    if (mb_json_is_set(labels))
        MB_TRY(ids_of(labels, column_name(row->r, "labels"), (size_t)rec->n_ids, rec, &label));
    for (int64_t i = 0; i < rec->n_ids; i++) {
        MB_REQUIRE(id[i] >= 0, MB_EDATA, "input_ids has the id %d", id[i]);
        MB_REQUIRE(label == NULL || label[i] == -100 || label[i] == id[i], MB_EDATA,
                   "label %lld is %d; it must be -100 or the id at its place, %d", (long long)i,
                   label == NULL ? 0 : label[i], id[i]);
    }
    if (mb_json_is_set(masks)) {
        int64_t n = 0;

        MB_TRY(
            ids_of(masks, column_name(row->r, "attention_mask"), (size_t)rec->n_ids, rec, &mask));
        for (int64_t i = 0; i < rec->n_ids; i++) {
            if (mask[i] == 0)
                continue;
            id[n] = id[i];
            if (label != NULL)
                label[n] = label[i];
            n++;
        }
        rec->n_ids = n;
    }
    rec->ids = id;
    rec->labels = label;
    return MB_OK;
}

/* A whole decimal number, and nothing else. */
bool mb_text_is_integer(const char *s, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(s, &end, 10);
    return errno == 0 && end != s && *end == '\0' && *s != ' ' && *s != '+';
}

/* The first of these fields that is there, as a text. */
static mb_status any_text(const struct mb_row *row, const char *const *names, const char **out)
{
    struct mb_row_value v;

    for (; *names != NULL; names++)
        if (mb_row_find(row, *names, &v))
            return mb_row_value_text(&v, out);
    return mb_row_need_text(row, names[-1], out);
}

/* The first of both that may be opened. What lies elsewhere is spoken of as what is not there. */
static mb_status media_within(const mb_source *s, const char *path, const char *given,
                              mb_record *rec, const char **out)
{
    char real[MB_PATH_MAX];
    mb_status st = mb_source_may_open(s, path, real);

    if (st != MB_OK) {
        mb_status_clear();
        st = mb_source_may_open(s, given, real);
    }
    MB_TRY(st);
    MB_REQUIRE(mb_path_is_file(real), MB_EDATA, "%s is no file", given);
    return joined(rec, real, "", "", out);
}

/* The file that a row names: {"path": ...}, as an Audio feature of datasets has it, or the path itself;
 * from the folder of the data file, or as it is. */
static mb_status media_of(const struct mb_row *row, const char *const *names, mb_record *rec,
                          const char **out)
{
    char dir[MB_PATH_MAX], path[MB_PATH_MAX], file[MB_PATH_MAX];
    const char *given;
    struct mb_row_value v;

    while (!mb_row_find(row, *names, &v) && names[1] != NULL)
        names++;
    if (mb_json_is(v.json, MB_JSON_OBJECT))
        MB_TRY(mb_json_get_string(v.json, "path", "", &given));
    else
        MB_TRY(mb_row_need_text(row, *names, &given));
    MB_REQUIRE(given[0] != '\0', MB_EDATA, "the row names no file in %s",
               column_name(row->r, *names));
    mb_hdf5_file(row->r->path, file, sizeof file, NULL);
    MB_TRY(mb_path_dir(dir, sizeof dir, file));
    MB_TRY(mb_path_join(path, sizeof path, dir, given));
    if (row->r->source.within != NULL)
        return media_within(&row->r->source, path, given, rec, out);
    if (mb_path_is_file(path))
        return joined(rec, path, "", "", out);
    MB_REQUIRE(mb_path_is_file(given), MB_EDATA, "there is no file %s, nor %s", path, given);
    return joined(rec, given, "", "", out);
}

static mb_status build_sound(const struct mb_row *row, mb_record *rec)
{
    static const char *const sounds[] = {"audio", "file_name", NULL};
    static const char *const texts[] = {"transcription", "text", "sentence", NULL};

    rec->kind = MB_RECORD_SOUND;
    MB_TRY(any_text(row, texts, &rec->text));
    return media_of(row, sounds, rec, &rec->media);
}

/* One language of {"sw": ..., "en": ...}, or the column of that name. */
static mb_status language(const struct mb_row *row, mb_json texts, const char *key,
                          const char *lang, const char **out)
{
    MB_REQUIRE(lang != NULL, MB_EARG, "a translation needs %s, the key of its texts", key);
    if (!mb_json_is_set(texts))
        return mb_row_need_text(row, lang, out);
    MB_REQUIRE(mb_json_is_set(mb_json_get(texts, lang)), MB_EDATA,
               "the translation has no text in '%s' (%s)", lang, key);
    return mb_json_string(mb_json_get(texts, lang), out, NULL);
}

static mb_status build_translation(const struct mb_row *row, mb_record *rec)
{
    const mb_source *s = &row->r->source;
    mb_json texts = {0};
    struct mb_row_value v;

    rec->kind = MB_RECORD_PAIR;
    if (mb_row_find(row, "translation", &v))
        MB_TRY(need_json(row, "translation", rec, &texts));
    MB_TRY(language(row, texts, "source_lang", s->source_lang, &rec->text));
    return language(row, texts, "target_lang", s->target_lang, &rec->text2);
}

static mb_status build_summary(const struct mb_row *row, mb_record *rec)
{
    static const char *const texts[] = {"document", "text", NULL};

    rec->kind = MB_RECORD_PAIR;
    MB_TRY(any_text(row, texts, &rec->text));
    return mb_row_need_text(row, "summary", &rec->text2);
}

static mb_status build_sides(const struct mb_row *row, mb_record *rec)
{
    rec->kind = MB_RECORD_PAIR;
    MB_TRY(mb_row_need_text(row, "source", &rec->text));
    return mb_row_need_text(row, "target", &rec->text2);
}

#define TEXT      (1u << MB_WANT_TEXT)
#define PAIRS     (1u << MB_WANT_PAIRS)
#define CLASS     (1u << MB_WANT_CLASS | 1u << MB_WANT_CLASSES | 1u << MB_WANT_NUMBERS)
#define WORDS     (1u << MB_WANT_WORDS)
#define QUESTIONS (1u << MB_WANT_QUESTIONS)
#define SENTENCES (1u << MB_WANT_SENTENCES)
#define SOUND     (1u << MB_WANT_SOUND)
// clang-format off
static const struct format formats[] = {
    {"classification", {"text"}, {"label", "labels", "score"}, CLASS, mb_build_class},
    {"classification", {"sentence"}, {"label", "labels", "score"}, CLASS, mb_build_class},
    {"classification", {"sentence1"}, {"label", "labels", "score"}, CLASS, mb_build_class},
    {"words", {"tokens"}, {"ner_tags", "tags", "labels"}, WORDS, mb_build_words},
    {"question", {"question", "context"}, {"answers"}, QUESTIONS, mb_build_question},
    {"sentences", {"anchor", "positive"}, {NULL}, SENTENCES, mb_build_sentences},
    {"sentences", {"sentence1", "sentence2"}, {NULL}, SENTENCES, mb_build_sentences},
    {"tokens", {"input_ids"}, {NULL}, TEXT, build_tokens},
    {"messages", {"messages"}, {NULL}, TEXT, build_messages},
    {"sharegpt", {"conversations"}, {NULL}, TEXT, build_sharegpt},
    {"alpaca", {"instruction", "output"}, {NULL}, TEXT, build_alpaca},
    {"translation", {"translation"}, {NULL}, PAIRS, build_translation},
    {"prompt_completion", {"prompt", "completion"}, {NULL}, TEXT | PAIRS, build_pair},
    {"text", {"text"}, {NULL}, TEXT, build_text},
    {"summarization", {"document", "summary"}, {NULL}, PAIRS, build_summary},
    {"summarization", {"text", "summary"}, {NULL}, PAIRS, build_summary},
    {"pair", {"source", "target"}, {NULL}, PAIRS, build_sides},
    {"translation", {NULL}, {NULL}, PAIRS, build_translation},
    {"audiofolder", {"audio"}, {"transcription", "text", "sentence"}, SOUND, build_sound},
    {"audiofolder", {"file_name"}, {"transcription", "text", "sentence"}, SOUND, build_sound},
};
// clang-format on

enum { N_FORMATS = sizeof formats / sizeof formats[0] };

static bool is_auto(const char *type)
{
    return type == NULL || type[0] == '\0' || strcmp(type, "auto") == 0;
}

/* The names of the row's columns, for a message. */
static void list_columns(const struct mb_row *row, char *text, size_t size)
{
    size_t at = 0;

    text[0] = '\0';
    if (row->field != NULL) {
        for (int i = 0; i < row->r->n_columns && at < size; i++)
            at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", row->r->column[i]);
        return;
    }
    for (mb_json_it it = mb_json_first(row->object); mb_json_more(&it) && at < size;
         mb_json_next(&it))
        at += (size_t)snprintf(text + at, size - at, "%s%s", it.index ? ", " : "", it.key);
}

/* What tells rows of each kind, for messages. */
static const char *const told_by[] = {
    [MB_WANT_TEXT] =
        "known are messages | conversations | instruction, output | prompt, completion | text",
    [MB_WANT_PAIRS] =
        "a pair of texts has translation | prompt, completion | document, summary | text, summary "
        "| source, target, or columns called like source_lang and target_lang",
    [MB_WANT_CLASS] = "a labelled text has label and text, sentence or sentence1",
    [MB_WANT_CLASSES] = "a text of several classes has labels and text, sentence or sentence1",
    [MB_WANT_NUMBERS] = "a rated text has label, labels or score, and text, sentence or sentence1",
    [MB_WANT_WORDS] = "labelled words have tokens, and ner_tags, tags or labels",
    [MB_WANT_QUESTIONS] = "a question has question, context and answers",
    [MB_WANT_SENTENCES] = "known are anchor, positive | sentence1, sentence2",
    [MB_WANT_SOUND] = "a sound has audio or file_name and transcription, text or sentence",
};

static bool tells(const struct format *f, const struct mb_row *row)
{
    const mb_source *s = &row->r->source;
    struct mb_row_value v;

    if ((f->rows & 1u << s->rows) == 0)
        return false;
    if (f->need[0] == NULL) /* columns that are called like the languages */
        return s->source_lang != NULL && s->target_lang != NULL &&
               mb_row_find(row, s->source_lang, &v) && mb_row_find(row, s->target_lang, &v);
    for (int i = 0; i < 3 && f->need[i] != NULL; i++)
        if (!mb_row_find(row, f->need[i], &v))
            return false;
    return f->label[0] == NULL || s->unlabelled || mb_row_first(row, f->label, &v) != NULL;
}

static mb_status detect(const struct mb_row *row, const struct format **out)
{
    char columns[300];

    for (int f = 0; f < N_FORMATS; f++) {
        if (tells(&formats[f], row)) {
            *out = &formats[f];
            return MB_OK;
        }
    }
    list_columns(row, columns, sizeof columns);
    return MB_RAISE(MB_EDATA, "the fields are %s; %s (field_map names other columns)", columns,
                    told_by[row->r->source.rows]);
}

/* The row as a table of columns or a JSON object; its memory goes to `rec`. */
static mb_status open_row(const mb_records *r, const mb_row_text *text, mb_record *rec,
                          struct mb_row *row)
{
    *row = (struct mb_row){.r = r};
    if (r->kind == MB_ROWFILE_JSONL || r->kind == MB_ROWFILE_JSON ||
        r->kind == MB_ROWFILE_PARQUET || r->kind == MB_ROWFILE_HDF5 ||
        r->kind == MB_ROWFILE_SIDES) {
        mb_json_doc *doc;

        /* The parser puts file:line:column in front itself. */
        MB_TRY(mb_json_parse(text->text, text->n, r->source.path, text->line, MB_EDATA, &doc));
        MB_TRY(keep(rec, doc));
        row->object = mb_json_root(doc);
        MB_REQUIRE(mb_json_is(row->object, MB_JSON_OBJECT), MB_EDATA,
                   "a row must be a JSON object {...}");
        return MB_OK;
    }

    const int64_t fault = mb_utf8_fault(text->text, text->n);
    void *cells = NULL, *fields = NULL;
    int n = 0;

    MB_REQUIRE(fault < 0, MB_EDATA, "byte %lld of the row (0x%02x) is not UTF-8 text",
               (long long)fault + 1, (unsigned char)text->text[fault]);
    MB_TRY(mb_record_take(rec, text->n + 1, &cells));
    if (r->kind == MB_ROWFILE_TXT) {
        memcpy(cells, text->text, text->n);
        rec->text = cells;
        return MB_OK;
    }
    MB_TRY(mb_record_take(rec, MAX_COLUMNS * sizeof(char *), &fields));
    MB_TRY(mb_rowfile_fields(text->text, text->n, r->kind == MB_ROWFILE_CSV ? ',' : '\t', cells,
                             fields, MAX_COLUMNS, &n));
    MB_REQUIRE(n == r->n_columns, MB_EDATA, "the row has %d fields, the header %d", n,
               r->n_columns);
    row->field = fields;
    return MB_OK;
}

/* A sentence of the JSON parser already has file:line in front; the others get it here. */
static mb_status placed(const mb_records *r, int64_t line, mb_status st)
{
    char place[4200];
    const size_t n =
        (size_t)snprintf(place, sizeof place, "%s:%lld:", r->source.path, (long long)line);
    const char *rest;

    if (st == MB_OK || strncmp(mb_status_sentence(), place, n) == 0)
        return st;
    /* "file: key must be ..." of a JSON value, which does not know its line */
    rest = mb_status_sentence();
    snprintf(place, sizeof place, "%s: ", r->source.path);
    if (strncmp(rest, place, strlen(place)) == 0) {
        char *sentence = NULL;

        if (mb_asprintf(&sentence, "%s:%lld: %s", r->source.path, (long long)line,
                        rest + strlen(place)) == MB_OK)
            mb_status_set(st, sentence);
        mb_free(sentence);
        return st;
    }
    /* a value that spans lines: the parser named the line of the fault */
    snprintf(place, sizeof place, "%s:", r->source.path);
    if (strncmp(rest, place, strlen(place)) == 0 && rest[strlen(place)] >= '0' &&
        rest[strlen(place)] <= '9')
        return st;
    return mb_status_prefix(st, "%s:%lld: ", r->source.path, (long long)line);
}

mb_status mb_records_parse(const mb_records *r, const mb_row_text *text, mb_record *out)
{
    mb_record rec = {0};
    struct mb_row row;
    mb_status st = open_row(r, text, &rec, &row);

    if (st == MB_OK && r->kind == MB_ROWFILE_TXT) {
        rec.kind = MB_RECORD_TEXT;
        rec.whole_text = is_auto(r->source.type) || strcmp(r->source.type, "text") == 0;
    } else if (st == MB_OK) {
        st = r->format->build(&row, &rec);
    }
    if (st != MB_OK) {
        st = placed(r, text->line, st);
        mb_record_release(&rec);
        return st;
    }
    *out = rec;
    return MB_OK;
}

/* A column's value as a text of at least one byte, borrowed from the row or in `number`; "": none. */
static mb_status column_text(const struct mb_row *row, const char *column, char number[24],
                             const char **out)
{
    struct mb_row_value v;
    int64_t whole;
    bool truth;

    *out = "";
    if (!mb_row_find(row, column, &v))
        return MB_OK;
    if (v.text != NULL || mb_json_is(v.json, MB_JSON_STRING))
        return mb_row_value_text(&v, out);
    *out = number;
    if (mb_json_is(v.json, MB_JSON_BOOL)) {
        MB_TRY(mb_json_bool(v.json, &truth));
        snprintf(number, 24, "%s", truth ? "true" : "false");
        return MB_OK;
    }
    MB_TRY(mb_json_int(v.json, &whole));
    snprintf(number, 24, "%lld", (long long)whole);
    return MB_OK;
}

mb_status mb_records_column(const mb_records *r, const mb_row_text *text, const char *column,
                            char *out, size_t size)
{
    mb_record rec = {0};
    struct mb_row row;
    char number[24];
    const char *value = "";
    mb_status st = open_row(r, text, &rec, &row);

    if (st == MB_OK && r->kind != MB_ROWFILE_TXT)
        st = column_text(&row, column, number, &value);
    if (st == MB_OK && strlen(value) >= size)
        st = MB_RAISE(MB_EDATA, "%s has %zu bytes, at most %zu are read", column, strlen(value),
                      size - 1);
    if (st == MB_OK)
        snprintf(out, size, "%s", value);
    else
        st = placed(r, text->line, st);
    mb_record_release(&rec);
    return st;
}

mb_status mb_messages_parse(const char *json, size_t n, const char *name, mb_record *out)
{
    mb_record rec = {.kind = MB_RECORD_CHAT};
    mb_json_doc *doc;
    mb_json list;
    mb_status st;

    MB_TRY(mb_json_parse(json, n, name, 0, MB_EARG, &doc));
    MB_TRY(keep(&rec, doc));
    list = mb_json_root(doc);
    if (mb_json_is(list, MB_JSON_OBJECT)) {
        rec.tools = mb_json_get(list, "tools");
        rec.documents = mb_json_get(list, "documents");
        rec.values = mb_json_get(list, "chat_template_kwargs");
        list = mb_json_get(list, "messages");
    }
    MB_TRY_GOTO(reserve_messages(&rec, mb_json_count(list)), st, fail);
    if (!mb_json_is(list, MB_JSON_ARRAY)) {
        st = MB_RAISE(MB_EARG, "%s: a list of messages was expected", name);
        goto fail;
    }
    MB_TRY_GOTO(messages_of(list, &rec), st, fail);
    *out = rec;
    return MB_OK;
fail:
    mb_record_release(&rec);
    return st;
}

static mb_status read_header(mb_records *r, const mb_row_text *text)
{
    const int64_t fault = mb_utf8_fault(text->text, text->n);

    MB_REQUIRE(fault < 0, MB_EDATA, "the header is not UTF-8 text");
    if (r->header != NULL)
        return MB_OK; /* read when the format was looked for */
    MB_TRY(mb_alloc(text->n + 1, "a table's header", (void **)&r->header));
    MB_TRY(mb_rowfile_fields(text->text, text->n, r->kind == MB_ROWFILE_CSV ? ',' : '\t', r->header,
                             r->column, MAX_COLUMNS, &r->n_columns));
    MB_REQUIRE(r->n_columns <= MAX_COLUMNS, MB_EDATA,
               "the header has %d columns, at most %d can be "
               "read",
               r->n_columns, MAX_COLUMNS);
    for (int i = 0; i < r->n_columns; i++) {
        for (int k = 0; k < i; k++) {
            MB_REQUIRE(strcmp(r->column[i], r->column[k]) != 0, MB_EDATA,
                       "the header has the column \"%s\" twice", r->column[i]);
        }
    }
    return MB_OK;
}

/* Opens the file at its first row of data. */
static mb_status rewind_rows(mb_records *r)
{
    const char *type = r->source.type;
    mb_text_unit unit = MB_TEXT_FILE;
    mb_row_text row;
    bool more;

    mb_rowfile_close(r->rows);
    r->rows = NULL;
    r->at = 0;
    if (type != NULL && strcmp(type, "lines") == 0)
        unit = MB_TEXT_LINE;
    else if (type != NULL && strcmp(type, "paragraphs") == 0)
        unit = MB_TEXT_PARAGRAPH;
    MB_TRY(r->kind == MB_ROWFILE_SIDES ? mb_rowfile_open_sides(r->path, r->other, &r->rows)
                                       : mb_rowfile_open(r->path, r->kind, unit, &r->rows));
    if (r->kind != MB_ROWFILE_CSV && r->kind != MB_ROWFILE_TSV)
        return MB_OK;
    MB_TRY(mb_rowfile_next(r->rows, &row, &more));
    return more ? placed(r, row.line, read_header(r, &row)) : MB_OK;
}

/* The format by the source's type. */
static mb_status format_named(mb_records *r)
{
    const char *type = r->source.type;

    for (int f = 0; f < N_FORMATS; f++) {
        if (strcmp(formats[f].name, type) == 0) {
            r->format = &formats[f];
            return MB_OK;
        }
    }
    return MB_RAISE(
        MB_EARG,
        "datasets: %s: the type \"%s\" is not known; known are auto, messages, sharegpt, "
        "alpaca, prompt_completion, text, tokens, classification, words, question, sentences, "
        "audiofolder, translation, summarization, pair",
        r->source.path, type);
}

/* The format by the first row that can be read. */
static mb_status find_format(mb_records *r)
{
    mb_row_text text;
    struct mb_row row;
    bool more;

    for (;;) {
        mb_record rec = {0};
        mb_status st;

        MB_TRY(mb_rowfile_next(r->rows, &text, &more));
        MB_REQUIRE(more, MB_EDATA, "%s: the file has no rows", r->source.path);
        st = open_row(r, &text, &rec, &row);
        if (st == MB_EDATA && r->source.skip_bad) {
            mb_status_clear();
            mb_record_release(&rec);
            continue;
        }
        if (st == MB_OK && r->kind == MB_ROWFILE_TXT)
            st = r->source.rows == MB_WANT_TEXT ? MB_OK
                 : r->source.rows == MB_WANT_PAIRS
                     ? MB_RAISE(MB_EDATA, "a text file has no pairs; a .tsv has")
                 : r->source.rows == MB_WANT_SOUND
                     ? MB_RAISE(MB_EDATA, "a text file names no sounds")
                     : MB_RAISE(MB_EDATA, "a text file has no labels");
        else if (st == MB_OK && r->format == NULL)
            st = detect(&row, &r->format);
        mb_record_release(&rec);
        return placed(r, text.line, st);
    }
}

/* Counts the rows, for splits that need to know how many there are. */
static mb_status count_rows(mb_records *r, int64_t *n)
{
    mb_row_text row;
    bool more;

    for (*n = 0;; (*n)++) {
        MB_TRY(mb_rowfile_next(r->rows, &row, &more));
        if (!more)
            return MB_OK;
    }
}

/* The rows of part i of the split are those that come next. */
static mb_status choose_part(mb_records *r, int i)
{
    char part[200];

    r->part = i;
    if (r->n_rows < 0)
        return MB_OK;
    mb_split_part(r->source.split, i, part, sizeof part);
    MB_TRY(mb_split_bounds(part, r->n_rows, &r->from, &r->to));
    MB_REQUIRE(r->from < r->to, MB_EDATA, "%s: split \"%s\" of %lld rows is empty", r->source.path,
               part, (long long)r->n_rows);
    return MB_OK;
}

mb_status mb_records_open(const mb_source *source, mb_records **out)
{
    char file[MB_PATH_MAX];
    mb_records *r;
    mb_status st;

    MB_TRY(MB_NEW(&r));
    r->source = *source;
    r->to = INT64_MAX;
    MB_TRY_GOTO(mb_source_file(source, r->path, sizeof r->path), st, fail);
    r->source.path = r->path; /* what messages name */
    snprintf(file, sizeof file, "%s", r->path);
    if (mb_source_sides(source, file, r->path, r->other)) {
        r->kind = MB_ROWFILE_SIDES;
        MB_TRY_GOTO(mb_source_may_open(source, r->path, file), st, fail);
        MB_TRY_GOTO(mb_source_may_open(source, r->other, file), st, fail);
    } else {
        MB_TRY_GOTO(mb_rowfile_kind_of(r->path, &r->kind), st, fail);
    }
    if (r->kind != MB_ROWFILE_TXT && !is_auto(source->type))
        MB_TRY_GOTO(format_named(r), st, fail);
    MB_TRY_GOTO(rewind_rows(r), st, fail);
    if (!source->bare)
        MB_TRY_GOTO(find_format(r), st, fail);
    r->n_rows = -1;
    if (source->split != NULL && strchr(source->split, '[') != NULL) {
        MB_TRY_GOTO(rewind_rows(r), st, fail);
        MB_TRY_GOTO(count_rows(r, &r->n_rows), st, fail);
    }
    r->n_parts = r->n_rows >= 0 ? mb_split_part(source->split, 0, NULL, 0) : 1;
    MB_TRY_GOTO(rewind_rows(r), st, fail);
    for (int i = r->n_parts - 1; i >= 0; i--) /* all are looked at; the first stays */
        MB_TRY_GOTO(choose_part(r, i), st, fail);
    *out = r;
    return MB_OK;
fail:
    mb_records_close(r);
    return st;
}

void mb_records_close(mb_records *r)
{
    if (r == NULL)
        return;
    mb_rowfile_close(r->rows);
    mb_free(r->header);
    mb_free(r);
}

mb_status mb_records_next(mb_records *r, mb_row_text *row, bool *more)
{
    for (;;) {
        *more = false;
        if (r->at < r->to) {
            MB_TRY(mb_rowfile_next(r->rows, row, more));
            if (*more)
                row->record = r->at++;
            if (*more && row->record >= r->from)
                return MB_OK;
            if (*more)
                continue;
        }
        if (r->part + 1 >= r->n_parts)
            return MB_OK;
        MB_TRY(choose_part(r, r->part + 1));
        if (r->from < r->at)
            MB_TRY(rewind_rows(r));
    }
}

const char *mb_records_format(const mb_records *r)
{
    return r->format != NULL ? r->format->name : "text";
}

/* One bound of a slice: "", "12", "-5", "30%". */
static mb_status bound(const char *s, size_t len, int64_t n, int64_t otherwise, const char *split,
                       int64_t *out)
{
    char text[32];
    bool percent;

    *out = otherwise;
    if (len == 0)
        return MB_OK;
    MB_REQUIRE(len < sizeof text, MB_EARG, "split \"%s\" cannot be read", split);
    memcpy(text, s, len);
    text[len] = '\0';
    percent = text[len - 1] == '%';
    if (percent)
        text[len - 1] = '\0';
    MB_REQUIRE(mb_text_is_integer(text, out), MB_EARG,
               "split \"%s\": \"%s\" is not a number of rows or a percentage", split, text);
    if (percent) {
        MB_REQUIRE(*out >= -100 && *out <= 100, MB_EARG, "split \"%s\": %lld%% is outside 100%%",
                   split, (long long)*out);
        *out = (int64_t)rint((double)*out * (double)n / 100.0);
    }
    if (*out < 0)
        *out += n;
    *out = *out < 0 ? 0 : *out > n ? n : *out;
    return MB_OK;
}

int mb_split_part(const char *split, int i, char *part, size_t size)
{
    int n = 1;

    for (;; n++) {
        const size_t length = strcspn(split, "+");

        if (part != NULL && n - 1 == i) {
            size_t from = strspn(split, " "), to = length;

            while (to > from && split[to - 1] == ' ')
                to--;
            from = from < to ? from : to;
            snprintf(part, size, "%.*s", (int)(to - from), split + from);
        }
        if (split[length] == '\0')
            return n;
        split += length + 1;
    }
}

mb_status mb_split_bounds(const char *split, int64_t n, int64_t *from, int64_t *to)
{
    const char *open = strchr(split, '['), *colon, *close;

    *from = 0;
    *to = n;
    if (open == NULL)
        return MB_OK;
    colon = strchr(open, ':');
    close = strchr(open, ']');
    MB_REQUIRE(colon != NULL && close != NULL && colon < close && close[1] == '\0', MB_EARG,
               "split \"%s\" must look like train[:95%%] or train[100:200]", split);
    MB_TRY(bound(open + 1, (size_t)(colon - open - 1), n, 0, split, from));
    return bound(colon + 1, (size_t)(close - colon - 1), n, n, split, to);
}
