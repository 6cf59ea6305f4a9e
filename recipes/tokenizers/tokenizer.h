/* recipes/tokenizers/tokenizer.h - text to token ids and back, as Hugging Face's files say.
 *
 * A tokenizer is a tokenizer.json: added tokens, normalizer, pre-tokenizer, model (BPE, Unigram,
 * WordPiece), post-processor, decoder. One that comes inside a GGUF file is translated to a tokenizer.json
 * first, and so is a SentencePiece file, so there is one way through the code.
 *
 *     mb_tokenizer *t;
 *     MB_TRY(mb_tokenizer_load("model-dir", &t));            // or "model.gguf"
 *     mb_ids ids = {0};
 *     MB_TRY(mb_tokenizer_encode(t, text, n, MB_TOK_SPECIAL, &ids));
 *     ...
 *     mb_ids_release(&ids);
 *     mb_tokenizer_free(t);
 *
 * Text is UTF-8 with its length (NUL is a character like others); bad UTF-8 is MB_EDATA with the
 * byte offset, never replaced. Text is plain text unless the caller asks for MB_TOK_PARSE_SPECIAL:
 * "<|im_start|>" typed by a user must not become the token.
 *
 * A loaded tokenizer does not change: encode and decode may be called from several threads at once.
 * Work space is kept inside, one piece per thread that is encoding at that moment.
 */
#ifndef MB_RECIPES_TOKENIZERS_TOKENIZER_H
#define MB_RECIPES_TOKENIZERS_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/formats/gguf_write.h"
#include "core/status.h"

typedef struct mb_tokenizer mb_tokenizer;

/* A growable list of ids; all zero is an empty one. */
typedef struct mb_ids {
    int32_t *id;
    size_t n, capacity;
} mb_ids;

mb_status mb_ids_push(mb_ids *ids, int32_t id) MB_MUST_USE;
mb_status mb_ids_append(mb_ids *ids, const int32_t *id, size_t n) MB_MUST_USE;
void mb_ids_clear(mb_ids *ids); /* keeps the capacity */
void mb_ids_release(mb_ids *ids);

enum {
    MB_TOK_SPECIAL = 1,       /* the post-processor adds its BOS, EOS, [CLS], [SEP] */
    MB_TOK_PARSE_SPECIAL = 2, /* special tokens written in the text are tokens */
    MB_TOK_TRUNCATE = 4,      /* apply the file's truncation setting */
};

typedef enum mb_token_role {
    MB_TOKEN_BOS,
    MB_TOKEN_EOS,
    MB_TOKEN_PAD,
    MB_TOKEN_UNK,
    MB_TOKEN_SEP,
    MB_TOKEN_CLS,
    MB_TOKEN_MASK,
    MB_TOKEN_ROLES
} mb_token_role;

/* The file's truncation and padding settings; encode never pads, and truncates only when asked. */
typedef struct mb_tok_limits {
    int64_t max_length; /* truncation: 0 when the file has none */
    int64_t stride;
    char strategy[16];  /* "LongestFirst", "OnlyFirst" or "OnlySecond" */
    bool truncate_left; /* drop from the start */
    bool pad;           /* the file has a padding setting */
    int64_t pad_fixed;  /* pad to this length; 0: to the longest of the batch */
    bool pad_left;
    int32_t pad_id;
    int32_t pad_type_id;
} mb_tok_limits;

/* `path` is a model directory with a tokenizer.json or a SentencePiece file (tokenizer.model,
 * spiece.model, sentencepiece.bpe.model, source.spm and target.spm; see spm_json.c) (and, for roles and the chat template,
 * tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json), a
 * tokenizer.json itself, a .model or .spm file by itself, a .gguf file, or a directory with exactly one .gguf file. MB_EMODEL for a
 * malformed file, MB_ENOTSUP for a kind of tokenizer or step that is not implemented, by name. */
mb_status mb_tokenizer_load(const char *path, mb_tokenizer **out) MB_MUST_USE;
/* The same for texts of the language that is translated into: Marian's target.spm, M2M-100's
 * tgt_lang in front. Where a folder makes no difference there is none. */
mb_status mb_tokenizer_load_target(const char *path, mb_tokenizer **out) MB_MUST_USE;
void mb_tokenizer_free(mb_tokenizer *t); /* NULL is allowed */

/* Appends the ids of text[0..n) to *out (nothing is appended on failure). MB_EDATA: bad UTF-8. */
mb_status mb_tokenizer_encode(const mb_tokenizer *t, const char *text, size_t n, unsigned flags,
                              mb_ids *out) MB_MUST_USE;
/* As mb_tokenizer_encode with MB_TOK_PARSE_SPECIAL, but special tokens are tokens only where none of
 * their bytes is data, that is, data[i] != 0 (n of them; NULL: none is). A text that `goes_on` after
 * one that was encoded before is no beginning: tokenizers that put a space in front do not here. */
mb_status mb_tokenizer_encode_marked(const mb_tokenizer *t, const char *text, size_t n,
                                     const uint8_t *data, bool goes_on, mb_ids *out) MB_MUST_USE;
/* A sentence and perhaps a second one (b NULL: none). type_ids, unless NULL, gets one per id. */
mb_status mb_tokenizer_encode_pair(const mb_tokenizer *t, const char *a, size_t n_a, const char *b,
                                   size_t n_b, unsigned flags, mb_ids *out,
                                   mb_ids *type_ids) MB_MUST_USE;

/* What the post-processor puts around one or two lists of ids (b NULL: none) that were encoded apart;
 * at[0], at[1]: where they begin in *out. */
mb_status mb_tokenizer_frame(const mb_tokenizer *t, const mb_ids *a, const mb_ids *b, mb_ids *out,
                             mb_ids *type_ids, size_t at[2]) MB_MUST_USE;

/* The text of ids, NUL-terminated, owned by the caller (mb_free); n_text may be NULL. Bytes that
 * are not UTF-8 become U+FFFD. MB_EDATA for an id that is not in the vocabulary. */
mb_status mb_tokenizer_decode(const mb_tokenizer *t, const int32_t *id, size_t n, bool skip_special,
                              char **text, size_t *n_text) MB_MUST_USE;

/* Decoding while ids arrive: what is ready is given out at once, an unfinished UTF-8 sequence is
 * held back. The pieces together are what mb_tokenizer_decode gives. *text is borrowed until the
 * next call (NUL-terminated). The tokenizer must outlive it. One thread. */
typedef struct mb_detokenizer mb_detokenizer;
mb_status mb_detokenizer_new(const mb_tokenizer *t, bool skip_special,
                             mb_detokenizer **out) MB_MUST_USE;
mb_status mb_detokenizer_push(mb_detokenizer *d, int32_t id, const char **text,
                              size_t *n) MB_MUST_USE;
/* What was held back (as U+FFFD); the detokenizer is then as new. */
mb_status mb_detokenizer_flush(mb_detokenizer *d, const char **text, size_t *n) MB_MUST_USE;
void mb_detokenizer_free(mb_detokenizer *d);

/* Rows an embedding needs: the largest id + 1 (ids without a token can lie below it). */
int32_t mb_tokenizer_vocab_size(const mb_tokenizer *t);
/* -1 when there is no such token. */
int32_t mb_tokenizer_token_to_id(const mb_tokenizer *t, const char *token, size_t n);
/* The token as it is stored ("\u0120the", "##ing"), borrowed; NULL when there is none. */
const char *mb_tokenizer_id_to_token(const mb_tokenizer *t, int32_t id);
bool mb_tokenizer_is_special(const mb_tokenizer *t, int32_t id);

int32_t mb_tokenizer_role(const mb_tokenizer *t, mb_token_role role); /* -1 when none */
/* What MB_TOK_SPECIAL does to a single sentence: its first id is BOS or [CLS], its last EOS or
 * [SEP]. A chat template that writes a BOS itself must then not be encoded with it. */
bool mb_tokenizer_adds_bos(const mb_tokenizer *t);
bool mb_tokenizer_adds_eos(const mb_tokenizer *t);
int64_t mb_tokenizer_max_length(const mb_tokenizer *t); /* model_max_length; -1 when not given */
const mb_tok_limits *mb_tokenizer_limits(const mb_tokenizer *t);
const char *mb_tokenizer_kind(const mb_tokenizer *t); /* "BPE", "Unigram", "WordPiece" */
/* 64 hex digits of everything that decides the ids (the tokenizer.json); for caches. */
const char *mb_tokenizer_sha256(const mb_tokenizer *t);
/* The Jinja text of the (default) chat template; NULL when there is none. Borrowed. */
const char *mb_tokenizer_chat_template(const mb_tokenizer *t);

/* Writes tokenizer.json, tokenizer_config.json and what came with them into a folder, which is
 * made if need be. Files of a Hugging Face folder are written back byte for byte. MB_EIO. */
mb_status mb_tokenizer_save(const mb_tokenizer *t, const char *dir) MB_MUST_USE;
/* Puts it into a GGUF file as llama.cpp knows it, with its chat template: `rows` tokens, as many as the
 * embedding has; `ends` are the tokens that end an answer; chat_template NULL: the tokenizer's own.
 * MB_ENOTSUP says what llama.cpp has no name for. */
mb_status mb_tokenizer_put_gguf(const mb_tokenizer *t, int64_t rows, const mb_ids *ends,
                                const char *chat_template, mb_gguf_writer *w) MB_MUST_USE;

#endif
