/* recipes/data/template.h - conversations become tokens, as a chat template writes them.
 *
 *     mb_chat *chat;
 *     MB_TRY(mb_chat_open(&(mb_chat_options){.tokenizer = tokenizer}, &chat));
 *     mb_tokens row = {0};
 *     MB_TRY(mb_chat_render(chat, &talk, &train, false, &row));    // a training row
 *     MB_TRY(mb_chat_render(chat, &talk, NULL, true, &prompt));    // what generate feeds
 *
 * A template is a Jinja text (recipes/jinja): the tokenizer's own, one of a file or of the recipe,
 * or one that comes with the program under a name. It sees what transformers' apply_chat_template
 * would show it: messages (as they are in the file, thinking and tool_calls included), tools,
 * documents, add_generation_prompt, bos_token and the other special tokens, and the recipe's
 * chat_template_kwargs.
 *
 * An answer begins where rendering the messages before it, with the generation prompt, ends: the
 * prompt of a training row is, id for id, what generation is given. It ends with the last character
 * of its message, what the template puts behind that up to the end-of-turn token, and that token
 * itself as train_on_eos says. Where the prompt is not the beginning of the row (templates that
 * open a <think> which they drop from history), the answer is found by its own characters, and a
 * warning says so once. A template with {% generation %} blocks decides by them.
 *
 * Text between answers is encoded as one piece, as encoding the rendered text would, except that an
 * answer begins and ends a piece of its own. Special tokens are only what the template itself
 * writes: the characters of messages, tools and documents are plain text, whatever they look like.
 */
#ifndef MB_RECIPES_DATA_TEMPLATE_H
#define MB_RECIPES_DATA_TEMPLATE_H

#include "recipes/data/records.h"
#include "recipes/tokenizers/tokenizer.h"

/* What is known of a token in a row. */
enum {
    MB_MARK_TRAINED = 1, /* its prediction is in the loss */
    MB_MARK_SECOND = 2,  /* of the second sentence: token type 1 */
    MB_MARK_SPECIAL = 4, /* a special token of the tokenizer */
};

/* Ids with a mark each; all zero is an empty one. */
typedef struct mb_tokens {
    mb_ids ids;
    uint8_t *mark;
    size_t mark_capacity;
    size_t split; /* chat and pairs: where the last answer begins; questions: the context; else 0 */
    mb_ids extra; /* labelled rows: see mb_render */
} mb_tokens;

void mb_tokens_clear(mb_tokens *t); /* keeps the capacity */
void mb_tokens_release(mb_tokens *t);
/* Gives the ids from the old end on this mark (and MB_MARK_SPECIAL where due). */
mb_status mb_tokens_mark(mb_tokens *t, const mb_tokenizer *tok, size_t from,
                         uint8_t mark) MB_MUST_USE;

typedef enum mb_train_on {
    MB_TRAIN_ASSISTANT,  /* every assistant message; of a marked completion only that */
    MB_TRAIN_COMPLETION, /* the last assistant message */
    MB_TRAIN_ALL,        /* every token */
} mb_train_on;

typedef enum mb_train_eos {
    MB_EOS_TURN, /* the end-of-turn token of every trained message */
    MB_EOS_LAST, /* of the last trained message only */
    MB_EOS_ALL,  /* of every message */
    MB_EOS_NONE,
} mb_train_eos;

typedef struct mb_train_what {
    mb_train_on on;
    mb_train_eos eos;
} mb_train_what;

typedef struct mb_chat mb_chat;

typedef struct mb_chat_options {
    const mb_tokenizer *tokenizer; /* borrowed; must outlive the chat */
    const char *choice;            /* NULL, "" or "auto": the tokenizer's own. A name of
                                    * mb_chat_names, a file, or a text with {{ or {% in it */
    const char *system;            /* optional: the system message of conversations without one */
    int64_t n_values;              /* chat_template_kwargs: names, and JSON values or texts */
    const char *const *value_name, *const *value;
    int64_t now; /* what strftime_now says, in seconds since 1970; 0: mb_chat_today() */
} mb_chat_options;

/* SOURCE_DATE_EPOCH where it is set, else the present. */
int64_t mb_chat_today(void);

/* The caller owns *out. MB_EARG: an unknown name or file; MB_EMODEL: no template, or a text that is
 * not a template ("chat_template:12: ..."). */
mb_status mb_chat_open(const mb_chat_options *o, mb_chat **out) MB_MUST_USE;
void mb_chat_free(mb_chat *c); /* NULL is allowed */
const char *mb_chat_name(const mb_chat *c);
/* Its Jinja text. */
const char *mb_chat_source(const mb_chat *c);
/* Does its text read strftime_now? */
bool mb_chat_says_date(const mb_chat *c);
/* Everything that decides the rendering, as text, for digests. */
const char *mb_chat_identity(const mb_chat *c);
/* "alpaca, chatml, ..." */
const char *mb_chat_names(void);
/* The Jinja text of a name, NULL when there is none. */
const char *mb_chat_named(const char *name);

/* Appends the conversation to *out. `train` NULL marks nothing. With `prompt` the beginning of the
 * next answer follows. MB_EDATA: what the template refuses or cannot write. May be called from
 * several threads at once. */
mb_status mb_chat_render(const mb_chat *c, const mb_conversation *talk, const mb_train_what *train,
                         bool prompt, mb_tokens *out) MB_MUST_USE;
/* The text alone, as apply_chat_template(tokenize=False) gives it; owned by the caller. */
mb_status mb_chat_text(const mb_chat *c, const mb_conversation *talk, bool prompt,
                       char **out) MB_MUST_USE;
/* The ids that end an answer: the format's end-of-turn token and the tokenizer's EOS. Returns how
 * many were put into id[]. */
int mb_chat_stops(const mb_chat *c, int32_t id[2]);

#endif
