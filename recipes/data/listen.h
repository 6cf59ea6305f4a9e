/* recipes/data/listen.h - the sounds of rows as frames of features, made ahead of the step by threads of
 * its own.
 *
 *     mb_listener_new(&frames, rows, threads, &l);
 *     mb_listener_expect(l, store, row, n);      // in the order in which they will be taken
 *     mb_listener_take(l, store, row[0], to);    // waits until it is there
 *
 * What was not expected, or not in this order, is made when it is taken. A row's features do not depend
 * on who makes them. expect and take belong to one thread.
 */
#ifndef MB_RECIPES_DATA_LISTEN_H
#define MB_RECIPES_DATA_LISTEN_H

#include "recipes/data/frames.h"
#include "recipes/data/store.h"

typedef struct mb_listener mb_listener;

/* Keeps up to `ahead` rows beforehand. The caller owns *out. */
mb_status mb_listener_new(const mb_frames *f, int64_t ahead, int threads,
                          mb_listener **out) MB_MUST_USE;
void mb_listener_free(mb_listener *l); /* NULL is allowed */

/* Rows of the store, borrowed until they are taken. More than `ahead` at a time are forgotten. */
void mb_listener_expect(mb_listener *l, const mb_store *s, const int64_t *row, int64_t n);
/* The same where nothing is expected yet: threads share the rows that are wanted now. */
void mb_listener_need(mb_listener *l, const mb_store *s, const int64_t *row, int64_t n);
bool mb_listener_idle(const mb_listener *l); /* is nothing expected? */
/* (2 tokens, bins) of row r's sound, padded with silence. MB_EDATA: the file cannot be read or lasts
 * longer than the frames; begins with the row's place. */
mb_status mb_listener_take(mb_listener *l, const mb_store *s, int64_t row, float *to) MB_MUST_USE;

#endif
