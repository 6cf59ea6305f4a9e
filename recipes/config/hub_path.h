/* recipes/config/hub_path.h - names on a hub, and where this machine keeps what they stand for.
 *
 *     MB_TRY(mb_hub_name_read("dataset:org/rows@v1/train.jsonl", false, &name));
 *     MB_TRY(mb_hub_path(&name, path, sizeof path));     "": not here
 *
 * The place is the Hugging Face cache, shared with Python's programs:
 *
 *     $HF_HUB_CACHE/models--org--name/refs/main                the commit, 40 hexadecimal digits
 *                                     snapshots/COMMIT/FILE    links to ../../blobs/DIGEST
 *
 * Nothing here reaches a network.
 */
#ifndef MB_RECIPES_CONFIG_HUB_PATH_H
#define MB_RECIPES_CONFIG_HUB_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

enum { MB_HUB_ID_MAX = 200, MB_HUB_REVISION_MAX = 256 };

typedef struct mb_hub_name {
    bool is_dataset;
    char id[MB_HUB_ID_MAX];             /* "org/name", or "name" alone (old ones) */
    char revision[MB_HUB_REVISION_MAX]; /* branch, tag or commit; "" : main */
    char file[1024];                    /* inside the repository; "" : all of it */
} mb_hub_name;

/* $HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface; and the cache of
 * repositories in it, $HF_HUB_CACHE or its hub/. */
mb_status mb_hub_home(char *path, size_t size) MB_MUST_USE;
mb_status mb_hub_cache(char *path, size_t size) MB_MUST_USE;
/* HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set. */
bool mb_hub_is_offline(void);

/* ORG/NAME[@REVISION][/FILE], "dataset:" in front of data; NAME alone only where `alone` says so.
 * MB_EARG: not such a name. */
mb_status mb_hub_name_read(const char *text, bool alone, mb_hub_name *out) MB_MUST_USE;
/* Could `text` be one at all? For callers that have paths too, and take those first. */
bool mb_hub_name_is(const char *text);
/* A valid repository id, a valid revision. */
bool mb_hub_id_is(const char *id);
bool mb_hub_revision_is(const char *revision);
bool mb_hub_commit_is(const char *text); /* 40 hexadecimal digits */
/* A path inside a repository that may be written below a folder: parts that are file names, none
 * of them .git, at most 1000 bytes. */
bool mb_hub_file_is(const char *path);

/* The folder of a repository in the cache, whether it is there or not: .../models--org--name. */
mb_status mb_hub_folder(const mb_hub_name *name, char *path, size_t size) MB_MUST_USE;
/* The commit that the cache has for the revision; "" when it has none. */
mb_status mb_hub_commit(const mb_hub_name *name, char commit[41]) MB_MUST_USE;
/* The snapshot's folder, or the file in it; "" when it is not in the cache. */
mb_status mb_hub_path(const mb_hub_name *name, char *path, size_t size) MB_MUST_USE;
/* For a text that may be a path or a name on a hub ("dataset:" in front of data): `path` is where the
 * cache has it; "" when something of that name is here, when it is no such name, or when the cache does
 * not have it. */
mb_status mb_hub_follow(const char *text, char *path, size_t size) MB_MUST_USE;
/* For verbs without a recipe: `path` is `text` itself, or where the cache has the model it names.
 * MB_EMODEL when that is not here: the command that fetches it. */
mb_status mb_hub_model(const char *text, char *path, size_t size) MB_MUST_USE;
/* A text that is neither here nor in the cache but may be a name on a hub: ORG/NAME where ORG is no
 * folder here, or anything after "dataset:". */
bool mb_hub_is_meant(const char *text);
/* The command that would fetch it, "mbuyu pull org/name", into `command`. */
const char *mb_hub_pull_command(const char *text, char *command, size_t size);
/* The way back: what repository and commit a path inside the cache belongs to; false: none. */
bool mb_hub_name_of_path(const char *path, mb_hub_name *out);
/* A path of this machine's cache as others would name it, "org/name@commit[/file]", in `text`; any
 * other path itself. */
const char *mb_hub_show(const char *path, char *text, size_t size);

#endif
