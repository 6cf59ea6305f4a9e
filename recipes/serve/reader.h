/* recipes/serve/reader.h - private to offers that read and do not write: an engine whose forwards give a
 * row of numbers per sequence (vectors, classes), for texts and for pictures.
 */
#ifndef MB_RECIPES_SERVE_READER_H
#define MB_RECIPES_SERVE_READER_H

#include "recipes/data/patches.h"
#include "recipes/media/image_processor.h"
#include "recipes/serve/texts.h"

enum { MB_READER_TOKENS = 2048, MB_READER_SEQ = 64 };

typedef struct mb_reader {
    mb_model_config config;
    mb_device *device;
    mb_engine *engine;
    mb_tokenizer *tokenizer; /* of texts */
    mb_batch *batch;
    int64_t most; /* tokens of a sequence */
    int32_t list[MB_READER_SEQ];
    /* of pictures */
    mb_patches patches;
    mb_image_processor processor;
    mb_image_work work;
    float *planes;
} mb_reader;

/* Opens o->recipe's model with this head and leaves the reader in o->own. */
mb_status mb_reader_open(mb_api *a, mb_offer *o, mb_head head) MB_MUST_USE;
void mb_reader_close(mb_offer *o);

/* The texts of the member `input` of a request, as mb_texts_read has them. */
mb_status mb_reader_input(const mb_reader *r, mb_json request, mb_texts *out,
                          mb_fault *f) MB_MUST_USE;

/* On the worker's thread: numbers of n sequences, out(n, cols) grown by the callee; each has 1 to
 * reader->most ids. */
mb_status mb_reader_texts(mb_api *a, mb_reader *r, const mb_ids *text, int64_t n, float **out,
                          int64_t *cols) MB_MUST_USE;
mb_status mb_reader_picture(mb_api *a, mb_reader *r, const void *file, size_t n, float **out,
                            int64_t *cols) MB_MUST_USE;

/* Probabilities of the classes of a row, in place; and the model's name of one (borrowed or in `text`). */
void mb_reader_shares(const mb_reader *r, float *row, int64_t n);
const char *mb_reader_label(const mb_offer *o, int64_t class, char text[32]);
/* {"label":...,"probabilities":[{"label":...,"probability":...}, ... best first]} */
mb_status mb_reader_write_classes(const mb_offer *o, float *row, int64_t n, int64_t index,
                                  mb_bytes *out) MB_MUST_USE;

#endif
