/* recipes/data/records.h - what a row of a data file says: a text, a pair, a conversation, or something
 * with labels.
 *
 *     mb_records *r;
 *     MB_TRY(mb_records_open(&source, &r));          // finds the format from the first row
 *     while (mb_records_next(r, &row, &more) == MB_OK && more) {
 *         MB_TRY(mb_records_parse(r, &row, &record)); // from any thread
 *         ...
 *         mb_record_release(&record);
 *     }
 *
 * Formats, those looked for that give what the task wants:
 *
 *     tokens             input_ids, labels?, attention_mask?: rows that were tokenised elsewhere
 *     messages           messages: [{role, content}], content a string or a list of text parts
 *     sharegpt           conversations: [{from, value}], system?
 *     alpaca             instruction, input?, output, system?, history?: [[question, answer], ...]
 *     prompt_completion  prompt, completion: strings, or lists of messages
 *     text               text
 *     classification     text, or sentence, or sentence1 and sentence2?; label: an integer or a string;
 *                        for several classes at once label or labels: a list of them; for numbers
 *                        label, labels or score: a number or a list of numbers
 *     words              tokens: [word, ...], and as many ner_tags, tags or labels
 *     question           question, context, answers: {text: [...], answer_start: [...]} or
 *                        [{text, answer_start}, ...]; none: it has no answer. answer_start counts
 *                        characters
 *     sentences          anchor, positive, negative?: a text or a list of texts; or sentence1,
 *                        sentence2, score?
 *
 * for tasks that turn one text into another:
 *
 *     translation        translation: {sw: ..., en: ...}, of which source_lang and target_lang are
 *                        taken, or columns of these names
 *     summarization      text or document, and summary
 *     prompt_completion  prompt, completion
 *     pair               source, target; or two text files of as many lines, train.sw and train.en, of
 *                        which one is named and source_lang and target_lang are sw and en
 *
 * and for tasks about sounds, whose rows name a file:
 *
 *     audiofolder        audio or file_name; transcription, text or sentence
 *
 * Such a path is taken from the folder of the data file, or as it is where there is no such file. A
 * folder stands for its metadata.jsonl, metadata.csv or metadata.tsv. field_map gives the column in the file for a field named above. Errors about a row are MB_EDATA
 * and begin with "file:line: ".
 */
#ifndef MB_RECIPES_DATA_RECORDS_H
#define MB_RECIPES_DATA_RECORDS_H

#include "core/json.h"
#include "core/path.h"
#include "recipes/data/rowfile.h"

typedef struct mb_field_map {
    const char *canonical, *column;
} mb_field_map;

/* What rows are wanted. */
typedef enum mb_want {
    MB_WANT_TEXT,  /* to be continued: texts, pairs, conversations */
    MB_WANT_PAIRS, /* a text and what becomes of it */
    MB_WANT_CLASS,
    MB_WANT_CLASSES, /* several at once */
    MB_WANT_NUMBERS,
    MB_WANT_WORDS, /* a class each */
    MB_WANT_QUESTIONS,
    MB_WANT_SENTENCES,
    MB_WANT_SOUND, /* files, and what is said in them */
} mb_want;

typedef struct mb_source {
    const char *path;
    const char *type;          /* optional: a format above, NULL or "auto"; for .txt also lines,
                                  * paragraphs */
    const char *split;         /* optional: "train", "train[10:]", "train[:95%]", and several
                                * with + between them */
    const mb_field_map *field; /* optional */
    int n_fields;
    mb_want rows;
    bool unlabelled;                       /* labels may be missing: rows are only predicted */
    const char *source_lang, *target_lang; /* of pairs: keys of a translation; NULL: not given */
    bool skip_bad;                         /* bad_rows: skip; for mb_store_build */
    bool bare; /* rows of any kind, for mb_records_column alone: no format is looked for */
    /* Folders that the file, and those its rows name, must lie in; NULL-terminated; NULL: anywhere. */
    const char *const *within;
} mb_source;

typedef enum mb_record_kind {
    MB_RECORD_TEXT,     /* text */
    MB_RECORD_PAIR,     /* text is the prompt, text2 the completion */
    MB_RECORD_CHAT,     /* message */
    MB_RECORD_CLASS,    /* text, perhaps text2; label, labels or values */
    MB_RECORD_WORDS,    /* text[]; labels, one each */
    MB_RECORD_QUESTION, /* text, text2 the context; text[] the answers, answer_start of the first */
    MB_RECORD_SENTENCES, /* text[]: anchor, its own candidate, candidates of nobody; values: a score */
    MB_RECORD_TOKENS,    /* ids, labels */
    MB_RECORD_SOUND,     /* media is a sound, text what is said */
} mb_record_kind;

typedef enum mb_role {
    MB_ROLE_SYSTEM,
    MB_ROLE_USER,
    MB_ROLE_ASSISTANT,
    MB_ROLE_TOOL,
    MB_ROLE_DEVELOPER,
    MB_ROLE_COUNT
} mb_role;

typedef struct mb_message {
    mb_role role;
    const char *content; /* UTF-8, zero-terminated; "" when there is none */
    bool completion;     /* part of a completion: the only messages trained when any is marked */
    bool no_content;     /* the message has none: a call of tools alone */
    mb_json given; /* as it was read, with all its members; absent: role and content are all */
    mb_json calls; /* tool_calls that are not in `given`; absent: none */
} mb_message;

/* What a chat template is given. Borrowed. */
typedef struct mb_conversation {
    const mb_message *message;
    int64_t n;
    mb_json tools, documents; /* lists; absent: none */
    mb_json values;           /* chat_template_kwargs of the row: an object; absent: none */
} mb_conversation;

/* A class by its name, or by its number where that is NULL. */
typedef struct mb_label {
    const char *name;
    int64_t id;
} mb_label;

/* All texts are owned by the record. */
typedef struct mb_record {
    mb_record_kind kind;
    const char *text, *text2; /* text2 may be NULL for MB_RECORD_CLASS */
    const char *media;        /* path of a file the row is about, NULL: none */
    mb_message *message;
    int64_t n_messages;
    const int32_t *ids, *labels; /* n_ids each; labels: -100 or the id; NULL: all are trained */
    int64_t n_ids;
    mb_json tools, documents, values; /* of a conversation; see mb_conversation */
    const char **list;                /* words, answers or sentences */
    int64_t n_list;
    mb_label *label;
    int64_t n_labels;
    float *value;
    int64_t n_values;
    int64_t answer_start; /* characters before the answer in the context; -1: there is none */
    bool labelled;        /* what the task learns is there, if only as an empty list */
    bool whole_text;      /* a piece of a text file: split it, do not truncate */
    void *tree;           /* private */
    void *memory;
} mb_record;

static inline mb_conversation mb_record_talk(const mb_record *r)
{
    return (mb_conversation){r->message, r->n_messages, r->tools, r->documents, r->values};
}

typedef struct mb_records mb_records;

/* The file that has the rows of a source: its path, or of a folder the metadata in it, or the file of
 * the split (recipes/data/folder.c); of an HDF5 file the group with the rows, rows.h5/train. */
mb_status mb_source_file(const mb_source *source, char *out, size_t size) MB_MUST_USE;
/* What may be opened for `path`, which the data set or a row of it names: the path itself, or where the
 * source has `within` its real path. MB_EDATA: it is not below those folders, or not there. */
mb_status mb_source_may_open(const mb_source *source, const char *path,
                             char out[MB_PATH_MAX]) MB_MUST_USE;
/* Is `file` one side of a pair as Moses has them, train.sw beside train.en (perhaps with .gz or .zst
 * behind), by the names of source_lang and target_lang? Then both sides, of MB_PATH_MAX bytes. */
bool mb_source_sides(const mb_source *source, const char *file, char *from, char *to);
/* Opens the file and decides its format. MB_EDATA: missing, not a regular file, empty, no known
 * format; MB_EARG: a type, split or field that does not exist. The caller owns *out. */
mb_status mb_records_open(const mb_source *source, mb_records **out) MB_MUST_USE;
void mb_records_close(mb_records *r); /* NULL is allowed */
/* The next row inside the split; *row is borrowed until the next call. */
mb_status mb_records_next(mb_records *r, mb_row_text *row, bool *more) MB_MUST_USE;
/* May be called from several threads at once. The caller releases *out on success. */
mb_status mb_records_parse(const mb_records *r, const mb_row_text *row, mb_record *out) MB_MUST_USE;
void mb_record_release(mb_record *record);
/* What the row has in a column, by its name in the file, as a text: a text, a whole number, true or false;
 * "" where it has none. MB_EDATA: another value, or one of `size` bytes and more. */
mb_status mb_records_column(const mb_records *r, const mb_row_text *row, const char *column,
                            char *out, size_t size) MB_MUST_USE;

const char *mb_records_format(const mb_records *r); /* "alpaca" */
const char *mb_role_name(mb_role role);             /* "assistant" */
/* "user" or "human" gives MB_ROLE_USER, ...; false for what is not a role. */
bool mb_role_from_name(const char *name, mb_role *out);
/* Messages of an OpenAI-style list in JSON text, for commands. Owned by the record. MB_EARG. */
mb_status mb_messages_parse(const char *json, size_t n, const char *name,
                            mb_record *out) MB_MUST_USE;

/* HF's slicing grammar: name, name[from:to], bounds as rows or percents (rounded), negative ones
 * from the end. [*from, *to) of n rows. MB_EARG for anything else. Of a split with + in it ("a[:10]+
 * a[20:]") mb_split_part gives the parts, one after the other: how many there are with `part` NULL. */
mb_status mb_split_bounds(const char *split, int64_t n, int64_t *from, int64_t *to) MB_MUST_USE;
/* "a[:10]+a[20:]" has two parts: part i, without blanks around it, into `part` (NULL: nothing).
 * Returns how many there are. */
int mb_split_part(const char *split, int i, char *part, size_t size);
int mb_split_part(const char *split, int i, char *part, size_t size);

#endif
