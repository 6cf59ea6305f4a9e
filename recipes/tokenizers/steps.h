/* recipes/tokenizers/steps.h - private: the steps a tokenizer.json strings together.
 *
 * Normalizers, pre-tokenizers and decoders are all lists of steps: a "Sequence" is flattened when it
 * is read, nothing is an empty list. Each family has a table of steps in its own file; a row reads
 * its settings into a tok_stage and says what it does with it. A type that is in no table is
 * MB_ENOTSUP by name.
 */
#ifndef MB_RECIPES_TOKENIZERS_STEPS_H
#define MB_RECIPES_TOKENIZERS_STEPS_H

#include "core/json.h"
#include "recipes/tokenizers/bytes.h"
#include "recipes/tokenizers/charsmap.h"
#include "recipes/tokenizers/regex.h"
#include "recipes/tokenizers/unicode.h"

/* What a Split or Replace looks for: exactly one of the three is set. */
typedef struct tok_pattern {
    mb_regex *regex;
    mb_bytes literal;
    mb_char_class is; /* every such character is a match of its own */
} tok_pattern;

/* Appends spans covering text[0..n), offset by base, matches and what lies between. */
mb_status tok_pattern_split(const tok_pattern *p, const char *text, size_t n, size_t base,
                            mb_spans *out) MB_MUST_USE;

/* What becomes of the matches of a Split. */
enum tok_behavior {
    TOK_REMOVED,
    TOK_ISOLATED,
    TOK_MERGED_WITH_PREVIOUS,
    TOK_MERGED_WITH_NEXT,
    TOK_CONTIGUOUS
};

/* Text and the pieces it is cut into. A step that changes the text writes it to `spare` and swaps. */
typedef struct tok_pieces {
    const char *text; /* borrowed: the input, or own.p */
    size_t n;
    mb_bytes own, spare;
    mb_spans span, spare_span, found;
    bool at_start; /* the text is the beginning of what the caller gave */
    bool goes_on;  /* it goes on after other text: nothing is put in front of it */
} tok_pieces;

/* Tokens on their way to being text. */
typedef struct tok_tokens {
    mb_bytes text, spare;
    mb_spans span, spare_span;
    bool raw; /* keep bytes that are not UTF-8, for streaming */
} tok_tokens;

typedef struct tok_stage tok_stage;

typedef struct tok_step {
    const char *type;
    mb_status (*read)(mb_json v, const char *where, tok_stage *s); /* NULL: it has no settings */
    /* One of: a text from `in` added to `out`; pieces cut up; tokens rewritten. */
    mb_status (*normalize)(const tok_stage *s, const mb_bytes *in, mb_bytes *out);
    mb_status (*cut)(const tok_stage *s, tok_pieces *p);
    mb_status (*decode)(const tok_stage *s, tok_tokens *t);
    void (*free)(void *data); /* of s->data */
} tok_step;

struct tok_stage {
    const tok_step *step;
    bool flag[4]; /* meaning: see the step */
    enum tok_behavior behavior;
    size_t start, stop;
    tok_pattern pattern;
    mb_bytes content;
    mb_charsmap charsmap;
    void *data; /* the step's own */
};

typedef struct tok_chain {
    tok_stage *at;
    size_t n, capacity;
} tok_chain;

typedef struct tok_family {
    const char *name;   /* "pre_tokenizer" */
    const char *plural; /* the key of its Sequence: "pretokenizers" */
    const tok_step *step;
    size_t n;
} tok_family;

extern const tok_family tok_normalizers, tok_pretokenizers, tok_decoders;

/* Reads a step or null into *out, which is empty; `where` names the file. */
mb_status tok_chain_read(const tok_family *f, mb_json v, const char *where,
                         tok_chain *out) MB_MUST_USE;
void tok_chain_release(tok_chain *c);

/* Settings: a pattern {"String": ...} or {"Regex": ...}; a string; a behaviour's name. */
mb_status tok_read_pattern(mb_json object, const char *where, tok_pattern *out) MB_MUST_USE;
mb_status tok_read_content(mb_json object, const char *key, const char *otherwise,
                           mb_bytes *out) MB_MUST_USE;
mb_status tok_read_behavior(mb_json object, const char *where, enum tok_behavior otherwise,
                            enum tok_behavior *out) MB_MUST_USE;
/* The Metaspace settings: content = replacement, flag[0] = prepend, flag[1] = only at the start of
 * the text, flag[2] = split. Shared by its pre-tokenizer and decoder. */
mb_status tok_read_metaspace(mb_json v, const char *where, tok_stage *s) MB_MUST_USE;

/* sentencepiece.c - the steps of a SentencePiece file; rows of the normalizers' and decoders' tables. */
mb_status tok_spm_read_normalizer(mb_json v, const char *where, tok_stage *s) MB_MUST_USE;
mb_status tok_spm_normalize(const tok_stage *s, const mb_bytes *in, mb_bytes *out) MB_MUST_USE;
/* The same for a text that goes on after other text. */
mb_status tok_spm_normalize_on(const tok_stage *s, const mb_bytes *in, mb_bytes *out) MB_MUST_USE;
void tok_spm_free_normalizer(void *data);
mb_status tok_spm_read_decoder(mb_json v, const char *where, tok_stage *s) MB_MUST_USE;
mb_status tok_spm_decode(const tok_stage *s, tok_tokens *t) MB_MUST_USE;
/* "<0x0A>" -> 10; -1 for any other token. */
int tok_fallback_byte(const char *p, size_t n);

/* Adds in[0..n) with every match of s->pattern replaced by s->content. */
mb_status tok_replace(const tok_stage *s, const char *in, size_t n, mb_bytes *out) MB_MUST_USE;

/* Adds text[0..n) normalised to *out; `spare` is work space. What goes on after other text gets
 * nothing in front. */
mb_status tok_normalize(const tok_chain *c, const char *text, size_t n, bool goes_on, mb_bytes *out,
                        mb_bytes *spare) MB_MUST_USE;
/* Cuts p->text into p->span. */
mb_status tok_cut(const tok_chain *c, tok_pieces *p) MB_MUST_USE;
void tok_pieces_release(tok_pieces *p);
/* Runs the decoder over t; with no steps, tokens are joined by spaces. The result is t->text. */
mb_status tok_decode(const tok_chain *c, tok_tokens *t) MB_MUST_USE;
void tok_tokens_clear(tok_tokens *t);
mb_status tok_tokens_add(tok_tokens *t, const char *p, size_t n) MB_MUST_USE;
void tok_tokens_release(tok_tokens *t);

/* The byte-level alphabet: a printable code point for every byte, and back (-1: none). */
uint32_t tok_byte_to_char(uint8_t byte);
int tok_char_to_byte(uint32_t c);
/* The ids of "<0x00>" to "<0xFF>", -1 for those a vocabulary has not. */
void tok_byte_ids(const mb_vocab *vocab, int32_t of_byte[256]);

#endif
