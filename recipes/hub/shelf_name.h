/* recipes/hub/shelf_name.h - which names of repositories, revisions and files are accepted, and the
 * three kinds of repositories.
 *
 * Everything here judges text that a client or a folder supplied; nothing touches a disk.
 */
#ifndef MB_RECIPES_HUB_SHELF_NAME_H
#define MB_RECIPES_HUB_SHELF_NAME_H

#include "core/status.h"

typedef enum mb_shelf_kind { MB_SHELF_MODEL, MB_SHELF_DATASET, MB_SHELF_SPACE } mb_shelf_kind;
enum { MB_SHELF_KINDS = 3, MB_SHELF_ID_MAX = 200, MB_SHELF_FILE_MAX = 1024, MB_SHELF_OID = 41 };

const char *mb_shelf_kind_name(mb_shelf_kind kind);   /* "model" */
const char *mb_shelf_kind_folder(mb_shelf_kind kind); /* "models" */
/* Of "model" or "models"; false: neither. */
bool mb_shelf_kind_of(const char *word, mb_shelf_kind *out);

/* "name" or "org/name" in letters, digits, '-', '_' and '.', at most 96 a part, without "--" and "..",
 * neither beginning nor ending with '-' or '.', and not ending with ".git". */
bool mb_shelf_is_id(const char *id);
/* A relative path of at most 32 parts and MB_SHELF_FILE_MAX bytes, each part a possible file name, and
 * none of them ".git" or a folder of our own. */
bool mb_shelf_is_path(const char *path);
/* A branch or tag: as a path, without blanks and the signs git forbids. */
bool mb_shelf_is_ref(const char *name);
bool mb_shelf_is_hex(const char *text, int digits); /* so many of 0-9a-f and nothing else */

#endif
