/* recipes/export/card.h - README.md of a model: YAML front matter for the hub, then facts.
 *
 * Nothing in a card is opinion: what the model was made from, with what settings, on how much data,
 * and what was measured. Fields that are NULL or empty leave their line out.
 */
#ifndef MB_RECIPES_EXPORT_CARD_H
#define MB_RECIPES_EXPORT_CARD_H

#include "core/status.h"

typedef struct mb_card_row {
    const char *name, *value; /* both shown as they are; a name NULL ends a table */
} mb_card_row;

typedef struct mb_card {
    const char *title;
    const char *base_model;   /* hub id or path; only an id goes into the front matter */
    const char *library_name; /* "transformers" or "peft" */
    const char *pipeline_tag; /* "text-generation", "text-classification", "fill-mask" */
    const char *license;
    /* NULL-terminated lists; each may be NULL */
    const char *const *language, *const *datasets, *const *tags;
    const char *summary; /* one paragraph under the title */
    /* tables, each ended by a row whose name is NULL; each may be NULL */
    const mb_card_row *training, *data, *results;
} mb_card;

/* The tables of a card while its facts are gathered, and the values' texts. {0} has none; rows point into
 * it, so it stays where it is. */
enum { MB_CARD_ROWS = 16, MB_CARD_VALUE = 200 };

typedef struct mb_card_facts {
    mb_card_row training[MB_CARD_ROWS], data[MB_CARD_ROWS], results[MB_CARD_ROWS];
    char text[3 * MB_CARD_ROWS][MB_CARD_VALUE];
    int n_text;
} mb_card_facts;

/* A row more in one of the three tables, `rows`; a full one stays as it is. */
void mb_card_add(mb_card_facts *f, mb_card_row *rows, const char *name, const char *fmt, ...)
    MB_PRINTF(4, 5);

/* The text; the caller owns *out. */
mb_status mb_card_text(const mb_card *card, char **out) MB_MUST_USE;
/* Writes dir/README.md. */
mb_status mb_card_write(const char *dir, const mb_card *card) MB_MUST_USE;

#endif
