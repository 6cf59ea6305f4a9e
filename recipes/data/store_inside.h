/* recipes/data/store_inside.h - what the files that build a token store share; see store_build.c. */
#ifndef MB_RECIPES_DATA_STORE_INSIDE_H
#define MB_RECIPES_DATA_STORE_INSIDE_H

#include "recipes/data/store.h"

enum {
    MB_CHUNK_ROWS = 256,
    MB_STORE_PLACES = 3 /* rows named when nothing is trained */
};

/* What is known of a row besides its tokens; broadcast as bytes. */
struct mb_store_about {
    int64_t chunk, line, record;
    int32_t tokens, trained, label, source, extras, scored;
    int32_t media; /* bytes of what it is about with its zero; 0: none */
};

/* Row texts of one chunk. */
struct mb_store_chunk {
    int64_t number;
    char *text;
    size_t bytes, capacity;
    mb_row_text row[MB_CHUNK_ROWS];
    size_t at[MB_CHUNK_ROWS];
    int n;
};

/* What became of one row of a chunk; the buffers are used again. */
struct mb_store_result {
    mb_tokens tokens;
    mb_record record; /* owned when st is MB_OK */
    bool double_bos;
    double seconds; /* of a sound */
    mb_status st;
    char *sentence; /* owned; of a failure */
};

struct mb_names {
    char **at; /* in order of appearance, owned */
    size_t n, capacity;
    int32_t *sorted; /* indices of `at` by name */
    size_t sorted_capacity;
};

struct mb_store_builder {
    const mb_store_options *o;
    mb_comm *comm;
    mb_renderer *renderer;
    struct mb_store_chunk chunk;
    struct mb_store_result *result; /* MB_CHUNK_ROWS */
    struct mb_store_about *about;
    size_t n_rows, about_capacity;
    int32_t *ids;
    uint8_t *flags;
    int32_t *extra;
    size_t n_tokens, ids_capacity, flags_capacity, n_extra, extra_capacity;
    mb_ids row_extra; /* of the row at hand */
    mb_tokens window; /* likewise */
    char *media;      /* the rows' paths, each with its zero */
    size_t n_media, media_capacity;
    struct mb_names labels;
    bool integer_labels, word_labels;
    int64_t top_label;
    mb_store_stats stats;
    struct {
        int32_t source;
        int64_t line;
        const char *why;
    } untrained[MB_STORE_PLACES];
    int n_untrained;
    mb_store *store;
};

/* The number of a name, which is added when it is new. */
mb_status mb_names_id(struct mb_names *t, const char *name, int32_t *out) MB_MUST_USE;
void mb_names_release(struct mb_names *t);

int32_t mb_store_count_trained(const uint8_t *flags, int64_t n);
/* store_read.c: this rank's chunks of all sources into its part (about, ids, flags, labels, stats).
 * Not collective. */
mb_status mb_store_read(struct mb_store_builder *b) MB_MUST_USE;
/* store_join.c: all ranks' parts into every rank's store. Collective. */
mb_status mb_store_join(struct mb_store_builder *b) MB_MUST_USE;

#endif
