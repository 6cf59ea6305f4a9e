/* recipes/data/store.h - the token store: every row of a data set, tokenised once.
 *
 * Rows lie one after the other in flat arrays. A token is trained (its prediction is in the loss)
 * or not; that is decided while the row is rendered (recipes/data/render.h) and nowhere else.
 *
 *     mb_store_options o = mb_store_defaults();
 *     o.source = sources, o.n_sources = 1, o.tokenizer = tok, o.max_length = 1024;
 *     MB_TRY(mb_store_build(&o, comm, &store));
 *     mb_store_log(store, "train");
 *
 * Building reads every file on every rank (a cheap scan for the ends of rows), lets rank r parse and
 * tokenise each size-th chunk of rows on all its threads, and exchanges the results: afterwards all
 * ranks hold the same store, whatever their number. With a cache directory the result is kept in an
 * HDF5 file named by the digest of everything it depends on: the bytes of the files, the tokenizer,
 * the template and the options. A cache file that cannot be read is rebuilt.
 */
#ifndef MB_RECIPES_DATA_STORE_H
#define MB_RECIPES_DATA_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/digest.h"
#include "recipes/data/records.h"
#include "recipes/data/render.h"

typedef enum mb_excess {
    MB_EXCESS_DROP,     /* rows longer than max_length are left out and counted */
    MB_EXCESS_TRUNCATE, /* their first max_length tokens are kept, and counted */
    MB_EXCESS_RAISE,    /* an error that names the first such row */
    MB_EXCESS_SPLIT     /* cut into pieces of max_length, nothing is lost (for stage pt) */
} mb_excess;

typedef struct mb_store_options {
    const mb_source *source; /* borrowed */
    int n_sources;
    mb_render_options render; /* tokenizer, template, what is trained */
    int64_t max_length;       /* tokens per row; 0: unlimited */
    mb_excess excess;
    mb_want rows;        /* what a row is; of texts tokens are trained, else what comes with them */
    bool unlabelled;     /* rows without labels are taken: for predictions */
    int64_t doc_stride;  /* questions: tokens that neighbouring windows of a context share */
    double most_seconds; /* of a sound; 0: not looked at */
    const char *const *label_names; /* optional: the model's id2label, which labels must be in */
    int n_label_names;
    int64_t vocab_size;    /* ids must be below; 0: not checked */
    const char *cache_dir; /* optional: NULL or "" builds without a cache */
} mb_store_options;

typedef struct mb_store_stats {
    int64_t rows_read;   /* rows of the files, after split slicing */
    int64_t bad;         /* rows skipped because of bad_rows: skip */
    int64_t empty;       /* rows without a token, dropped */
    int64_t untrained;   /* rows without a trained token, dropped */
    int64_t dropped;     /* longer than max_length, dropped */
    int64_t long_sounds; /* about sounds longer than most_seconds, dropped */
    int64_t truncated;   /* longer than max_length, cut */
    int64_t duplicates;  /* kept rows equal to an earlier kept row */
    int64_t bos, eos;    /* tokens in kept rows */
    int64_t double_bos;  /* rows whose text brought a second BOS, which was left out */
    int64_t trained;     /* trained tokens in kept rows */
    int64_t min_length, max_length;
} mb_store_stats;

/* A row that is a picture. */
typedef struct mb_picture {
    int64_t width, height, bytes; /* as shown, in pixels; of the file */
} mb_picture;

typedef struct mb_store {
    int64_t n_rows, n_tokens;
    int32_t *ids;     /* (n_tokens) */
    uint8_t *flags;   /* (n_tokens) MB_MARK_* */
    int64_t *offset;  /* (n_rows+1) row r is tokens [offset[r], offset[r+1]) */
    int32_t *trained; /* (n_rows) trained tokens of the row, at least 1 for token tasks */
    int32_t *label;   /* (n_rows) class, -1 without labels */
    /* What else comes with a row: extra[extra_offset[r], extra_offset[r+1]).
     *     classes    the classes of the row, -1 first when it came without a list
     *     numbers    float bits; none when it came without
     *     words      the class at each token, -1: none is wanted there
     *     questions  first and last token of the answer (0 when it is not here), -1 when nobody knows;
     *                then two per token: bytes [from, to) of the context it stands for, -1
     *     sentences  tokens of each, then, when `scored`, float bits of the score */
    int32_t *extra;
    int64_t *extra_offset; /* (n_rows+1) */
    mb_want rows;
    int64_t n_values;    /* numbers of a row */
    int64_t n_sentences; /* most of a row; 1 for what is no list of them */
    bool scored;
    int32_t *source; /* (n_rows) index of the source */
    int64_t *line;   /* (n_rows) line its record begins at, from 1 */
    int64_t *record; /* (n_rows) records of its file before it: several may begin on a line */
    uint64_t *hash;  /* (n_rows) of the row's content: equal rows, equal hashes */
    char *media; /* (n_media) what rows are about, each with its zero: paths of files; of the first
                       * window of a context JSON: question, context, answers */
    int64_t n_media;
    int64_t *
        media_at; /* (n_rows+1) where row r's path begins; it has none where the next begins there */
    mb_picture
        *picture; /* (n_rows) of media; NULL: rows have tokens; else ids and flags are NULL */
    int n_sources;
    char **source_name; /* paths as given */
    int n_labels;
    char **label_name; /* label 0, 1, ...; their decimal numbers when labels were integers */
    mb_store_stats stats;
    char digest[MB_DIGEST_HEX]; /* sha256 of everything the content depends on */
    bool from_cache;
    bool dated; /* what rows say depends on render.now */
} mb_store;

/* Zeroed, with the defaults of recipes: truncate, train_on assistant, train_on_eos. */
mb_store_options mb_store_defaults(void);

/* Reads, renders and tokenises all sources. The caller owns *out. Collective; fails on all ranks or
 * none. MB_EDATA: bad rows ("file:line: ..."), no rows, nothing trained at all. */
mb_status mb_store_build(const mb_store_options *o, mb_comm *comm, mb_store **out) MB_MUST_USE;
void mb_store_free(mb_store *s); /* NULL is allowed */

/* One line per fact worth knowing: rows, tokens, trained share, and every count that is not 0. */
void mb_store_log(const mb_store *s, const char *what);

/* Splits rows into training and validation by a hash of (seed, content), so that equal rows are on
 * the same side. `size` below 1 is a fraction of the rows, else a number of rows; duplicates may
 * move the count a little. Both lists are ascending and owned by the caller. */
mb_status mb_store_split(const mb_store *s, double size, uint64_t seed, int64_t **train,
                         int64_t *n_train, int64_t **val, int64_t *n_val) MB_MUST_USE;

/* The file, or the question, that row r is about; NULL: none. Borrowed. */
static inline const char *mb_store_media(const mb_store *s, int64_t r)
{
    return s->media_at[r] < s->media_at[r + 1] ? s->media + s->media_at[r] : NULL;
}
/* The numbers or the score of row r. */
float mb_store_value(const mb_store *s, int64_t r, int64_t i);
/* Is it known what row r should give? */
bool mb_store_labelled(const mb_store *s, int64_t r);

enum { MB_STORE_PLACE = 4200 }; /* room for a place */

/* "file.jsonl:12" of row r, or a picture's path, into `text`, which is returned. */
const char *mb_store_place(const mb_store *s, int64_t r, char *text, size_t size);

#endif
