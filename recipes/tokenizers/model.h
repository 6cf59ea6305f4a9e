/* recipes/tokenizers/model.h - private: what a tokenizer model is, and the tokenizer itself. */
#ifndef MB_RECIPES_TOKENIZERS_MODEL_H
#define MB_RECIPES_TOKENIZERS_MODEL_H

#include <pthread.h>

#include "recipes/tokenizers/encoder.h"
#include "recipes/tokenizers/steps.h"
#include "recipes/tokenizers/tokenizer.h"

/* Longer tokens are taken for a broken file. */
enum { TOK_MAX_TOKEN_BYTES = 1 << 16 };

/* What a SentencePiece file says a piece is (ModelProto.SentencePiece.Type), and one that is a token
 * of the folder but of no SentencePiece file. */
enum {
    TOK_PIECE_NORMAL = 1,
    TOK_PIECE_UNKNOWN = 2,
    TOK_PIECE_CONTROL = 3,
    TOK_PIECE_USER = 4,
    TOK_PIECE_UNUSED = 5,
    TOK_PIECE_BYTE = 6,
    TOK_PIECE_OTHER = 7
};

/* A model gives ids to one word of a pre-tokenized text. Its object is made once and not changed;
 * `work`, zeroes at first, belongs to one call at a time: see encoder.h, which is who calls encode. */
typedef struct tok_model {
    const char *type;
    /* Reads "model" of tokenizer.json; `vocab` is filled from it and stays with the tokenizer. */
    mb_status (*load)(mb_json model, const char *where, mb_vocab *vocab, void **out);
    void (*free)(void *model);
    size_t work_bytes;
    void (*work_release)(void *work); /* what it points at */
    /* How much of word[0..n) is encoded by itself, then the rest; NULL: all. */
    mb_status (*part)(const void *model, const char *word, size_t n, size_t *len);
    /* Appends the ids of word[0..n), n > 0. `barred` marks ids that plain text must not give
     * (special tokens), by id; NULL: none. */
    mb_status (*encode)(const void *model, void *work, const char *word, size_t n,
                        const uint8_t *barred, mb_ids *out);
    /* The model's unknown token, "" when it has none. */
    const char *(*unknown)(const void *model);
} tok_model;

#define MB_TOKENIZER(name, type) extern const tok_model mb_tok_##name;
#include "recipes/tokenizers/tokenizers.def"
#undef MB_TOKENIZER

/* {"token": id, ...} into `vocab`, with every check on ids and lengths. */
mb_status tok_vocab_read(mb_json v, mb_vocab *vocab) MB_MUST_USE;

/* added.c - tokens found in the text before anything else looks at it. */
typedef struct tok_added {
    mb_bytes content;
    mb_bytes shown; /* what it decodes to: the content, normalised if `normalized` */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} tok_added;

typedef struct tok_trie tok_trie;
/* A matcher of the added tokens that are (not) normalized, by what they show as. *out is NULL when
 * there are none. The tokens are borrowed. */
mb_status tok_trie_new(const tok_added *token, size_t n, bool normalized,
                       tok_trie **out) MB_MUST_USE;
void tok_trie_free(tok_trie *trie);

/* A stretch of a text: an added token's id, or -1 for text in between. */
typedef struct tok_stretch {
    size_t begin, end;
    int32_t id;
} tok_stretch;
typedef struct tok_stretches {
    tok_stretch *at;
    size_t n, capacity;
} tok_stretches;
/* Cuts text[0..n) at added tokens; special ones only if `parse_special`, and where none of their
 * bytes is data (data[i] != 0; NULL: none is). trie may be NULL. */
mb_status tok_trie_cut(const tok_trie *trie, const char *text, size_t n, bool parse_special,
                       const uint8_t *data, tok_stretches *out) MB_MUST_USE;

/* process.c - what is put around one or two encoded texts. */
typedef struct tok_part {
    int32_t id;   /* a special token, or -1 - k for sequence k (0: A, 1: B) */
    int32_t type; /* type id */
} tok_part;
typedef struct tok_template {
    tok_part *at;
    size_t n, capacity;
} tok_template;
typedef struct tok_process {
    tok_template single, pair; /* without special tokens their sequences and type ids still hold */
} tok_process;
mb_status tok_process_read(mb_json v, const char *where, tok_process *out) MB_MUST_USE;
void tok_process_release(tok_process *p);

/* Work space of one call; kept in a list between calls. */
typedef struct tok_work {
    struct tok_work *next;
    tok_pieces pieces;
    tok_stretches raw, inner;
    mb_bytes normal, spare;
    mb_ids part[2];
    tok_encoder encoder;
} tok_work;

typedef struct tok_file {
    const char *name; /* a literal */
    char *text;
    size_t n;
} tok_file;
enum { TOK_MAX_FILES = 12 };

typedef struct tok_entry {
    const char *token; /* NULL: no such id; borrowed from the vocabulary or the added token */
    uint32_t n;
    int32_t added; /* index of the added token, -1: none */
    bool special;
} tok_entry;

struct mb_tokenizer {
    char *where; /* the file, for messages */
    const tok_model *model;
    void *model_data;
    mb_vocab *vocab; /* the model's */
    tok_added *added;
    size_t n_added, added_capacity;
    tok_trie *raw, *normalized;
    tok_chain normalizer, pretokenizer, decoder;
    tok_process process;
    mb_tok_limits limits;
    tok_entry *entry;
    uint8_t *barred;
    int32_t n_entries;
    int32_t role[MB_TOKEN_ROLES];
    int64_t max_length;
    char sha256[65];
    char *chat_template;
    tok_file file[TOK_MAX_FILES]; /* what save writes; the first is tokenizer.json */
    size_t n_files;
    pthread_mutex_t lock; /* guards idle */
    tok_work *idle;
};

/* load.c */
/* Everything that tokenizer.json says; `t->where` is set. */
mb_status tok_read(mb_tokenizer *t, const char *text, size_t n) MB_MUST_USE;
/* A file to save; takes `text`. */
mb_status tok_keep_file(mb_tokenizer *t, const char *name, char *text, size_t n) MB_MUST_USE;
int32_t tok_find(const mb_tokenizer *t, const char *token, size_t n);

/* A tokenizer from the text of a tokenizer.json. */
mb_status tok_from_text(const char *text, size_t n, const char *where,
                        mb_tokenizer **out) MB_MUST_USE;
/* Calls `take` for each word that a text is cut into: normalised, pre-tokenised, added tokens taken
 * for text. */
mb_status tok_each_word(const mb_tokenizer *t, const char *text, size_t n,
                        mb_status (*take)(void *with, const char *word, size_t n_word),
                        void *with) MB_MUST_USE;

/* gguf.c - the tokenizer of a GGUF file as texts of tokenizer.json and tokenizer_config.json. */
mb_status tok_from_gguf(const char *path, mb_bytes *tokenizer, mb_bytes *config) MB_MUST_USE;
/* What a name for the way text is cut (tokenizer.ggml.pre) stands for, in tokenizer.json's words; the
 * first of several that are the same is the one written. */
typedef struct tok_way {
    const char *name, *normalizer, *pre_tokenizer;
    bool ignore_merges, add_bos;
} tok_way;
extern const tok_way tok_ways[];
extern const size_t tok_n_ways;

#endif
