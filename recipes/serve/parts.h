/* recipes/serve/parts.h - multipart/form-data, read piece by piece as it comes.
 *
 *     MB_TRY(mb_parts_new(mb_http_head(q, "Content-Type"), &calls, &m));
 *     MB_TRY(mb_parts_add(m, data, n));     // as often as there are pieces, of any size
 *     MB_TRY(mb_parts_end(m));              // MB_EARG: the last boundary did not come
 *     mb_parts_free(m);
 *
 * What is held is one part's header and as many bytes as could be the beginning of a boundary. Names
 * and file names are bounded and without control characters; they are the client's and no paths.
 * Every error is MB_EARG. Not thread-safe.
 */
#ifndef MB_RECIPES_SERVE_PARTS_H
#define MB_RECIPES_SERVE_PARTS_H

#include "core/status.h"

enum {
    MB_PARTS_HEAD = 8192, /* bytes of a part's header, at most */
    MB_PARTS_MOST = 64,
    MB_PARTS_NAME = 256, /* with the final zero */
};

typedef struct mb_parts mb_parts;

/* Of each part in its turn. A failure of one is that of mb_parts_add. */
typedef struct mb_parts_calls {
    void *arg;
    /* filename: NULL for a plain field. */
    mb_status (*begin)(void *arg, const char *name, const char *filename);
    mb_status (*data)(void *arg, const void *data, size_t n);
    mb_status (*end)(void *arg);
} mb_parts_calls;

/* `type` is the request's Content-Type, NULL where it has none. The caller owns *out. */
mb_status mb_parts_new(const char *type, const mb_parts_calls *calls, mb_parts **out) MB_MUST_USE;
mb_status mb_parts_add(mb_parts *m, const void *data, size_t n) MB_MUST_USE;
mb_status mb_parts_end(const mb_parts *m) MB_MUST_USE;
void mb_parts_free(mb_parts *m); /* NULL is allowed */

#endif
