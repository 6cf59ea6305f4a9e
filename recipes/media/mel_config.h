/* recipes/media/mel_config.h - preprocessor_config.json of speech models: what their features are. */
#ifndef MB_RECIPES_MEDIA_MEL_CONFIG_H
#define MB_RECIPES_MEDIA_MEL_CONFIG_H

#include <stdint.h>

#include "core/status.h"

/* Does the folder's file, if it has one, describe the features of recipes/media/mel.h with this many
 * bins? MB_ENOTSUP names the key that does not. */
mb_status mb_mel_config_check(const char *folder, int64_t bins) MB_MUST_USE;
/* Writes it: the base folder's own where there is one (base may be NULL), else a new one for sounds of
 * `seconds`. */
mb_status mb_mel_config_write(const char *base, int64_t bins, int64_t seconds,
                              const char *dir) MB_MUST_USE;

#endif
