/* recipes/export/verb.h - what the verbs export and merge share. */
#ifndef MB_RECIPES_EXPORT_VERB_H
#define MB_RECIPES_EXPORT_VERB_H

#include "core/status.h"

/* argv as a verb gets it; see recipes/cmd/export.c. */
mb_status mb_export_verb(int argc, char **argv, bool needs_adapter) MB_MUST_USE;

#endif
