/* recipes/hub/base64.h - base64 (RFC 4648, padded) back to bytes. */
#ifndef MB_RECIPES_HUB_BASE64_H
#define MB_RECIPES_HUB_BASE64_H

#include <stdint.h>

#include "core/status.h"

/* n letters become *n_out bytes at `out`, which has room for n / 4 * 3 and may be `text`. False: not
 * base64. */
bool mb_base64_read(const char *text, size_t n, uint8_t *out, size_t *n_out);

#endif
