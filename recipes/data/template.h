/* recipes/data/template.h - chat formats by name: conversations become tokens.
 *
 *     mb_chat *chat;
 *     MB_TRY(mb_chat_open("auto", NULL, tokenizer, &chat));
 *     mb_tokens row = {0};
 *     MB_TRY(mb_chat_render(chat, message, n, &train, false, &row));   // a training row
 *     MB_TRY(mb_chat_render(chat, message, n, NULL, true, &prompt));   // what generate feeds
 *
 * The tokens of an answer are marked as trained while they are written, from the place of their
 * message, never by searching. Text between two special tokens is encoded as one piece, as encoding
 * the rendered text would, except that an answer begins and ends a piece of its own: the prompt of
 * a training row is exactly what generation sees. Only the format writes special tokens: what users
 * wrote is encoded as plain text, whatever it looks like.
 *
 * Known: chatml, smollm2, llama2, llama3, mistral, zephyr. "auto" recognises the tokenizer's own
 * (Jinja) template among these by what it contains, and takes a ChatML template's default system
 * message from it; a template that is not recognised is MB_EMODEL with the list of names.
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
    size_t split; /* chat and pairs: where the last answer begins; 0 when there is none */
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

/* `choice`: a name, or NULL, "" or "auto" for the tokenizer's own. `system` (optional) stands in
 * for conversations that have no system message; NULL: the format's default, "": none. The
 * tokenizer is borrowed and must outlive *out, which the caller owns. MB_EARG: an unknown name;
 * MB_EMODEL: no or an unknown template. */
mb_status mb_chat_open(const char *choice, const char *system, const mb_tokenizer *tok,
                       mb_chat **out) MB_MUST_USE;
void mb_chat_free(mb_chat *c); /* NULL is allowed */
const char *mb_chat_name(const mb_chat *c);
/* Everything that decides the rendering, as text, for digests. */
const char *mb_chat_identity(const mb_chat *c);
/* "chatml, smollm2, ..." */
const char *mb_chat_names(void);

/* Appends the conversation to *out. `train` NULL marks nothing. With `prompt` the beginning of the
 * next answer follows. MB_EDATA: roles in an order or of a kind the format cannot write. May be
 * called from several threads at once. */
mb_status mb_chat_render(const mb_chat *c, const mb_message *message, int64_t n,
                         const mb_train_what *train, bool prompt, mb_tokens *out) MB_MUST_USE;
/* The ids that end an answer: the format's end-of-turn token and the tokenizer's EOS. Returns how
 * many were put into id[]. */
int mb_chat_stops(const mb_chat *c, int32_t id[2]);

#endif
