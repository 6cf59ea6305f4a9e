/* recipes/bundle/bundle.h - models, data and recipes in one checksummed archive, and out of it again.
 * README.md in this folder has the format.
 *
 *     mb_bundle_items items = {0};
 *     MB_TRY(mb_bundle_take_recipe(&items, "swahili.yaml", true));   // with its model and data
 *     MB_TRY(mb_bundle_write(&items, &(mb_bundle_options){.dir = "/media/usb", .name = "swahili"}));
 *
 *     MB_TRY(mb_unbundle(&(mb_unbundle_options){.sums = "swahili.sha256", ...}));
 */
#ifndef MB_RECIPES_BUNDLE_BUNDLE_H
#define MB_RECIPES_BUNDLE_BUNDLE_H

#include "recipes/bundle/bag.h"

/* What was given, and where it lies in the bag: "/home/a/models/org/name" and
 * "data/models/org/name", "/home/a/train.jsonl" and "data/datasets/local/train/train.jsonl". */
typedef struct mb_bundle_item {
    char *source, *place; /* owned; the source without links */
} mb_bundle_item;

typedef struct mb_bundle_items {
    mb_bag bag;
    mb_bundle_item *item;
    size_t n, capacity;
    int64_t hidden; /* files and folders left out because their names begin with a '.' */
} mb_bundle_items;

void mb_bundle_items_release(mb_bundle_items *b);

/* "PATH" or "ORG/NAME=PATH": a model folder or .gguf file; a data file or folder. Without ORG/NAME a
 * path that ends in models/ORG/NAME (datasets/ORG/NAME) or lies in the hub's cache has it, else it is
 * local/NAME. A name on the hub that the cache has will do. Taking the same again is fine. MB_EMODEL, MB_EDATA: not there. */
mb_status mb_bundle_take_model(mb_bundle_items *b, const char *what) MB_MUST_USE;
mb_status mb_bundle_take_data(mb_bundle_items *b, const char *what) MB_MUST_USE;
/* A run's folder, or one of its checkpoints or its final model. */
mb_status mb_bundle_take_run(mb_bundle_items *b, const char *what) MB_MUST_USE;
/* A recipe; `whole`: and the model, adapter and data it names. In the bundle its paths are relative
 * to the bag's data folder, where it can be run. */
mb_status mb_bundle_take_recipe(mb_bundle_items *b, const char *path, bool whole) MB_MUST_USE;
/* A program as data/bin/mbuyu. */
mb_status mb_bundle_take_program(mb_bundle_items *b, const char *path) MB_MUST_USE;
/* Any folder or file as this place of the bag. */
mb_status mb_bundle_take(mb_bundle_items *b, const char *place, const char *source) MB_MUST_USE;
/* A file made here; takes `text`. */
mb_status mb_bundle_take_text(mb_bundle_items *b, const char *place, char *text) MB_MUST_USE;
/* Where something that was taken (alone or in a folder) lies, relative to the bag's data folder;
 * false when it was not. */
bool mb_bundle_find(const mb_bundle_items *b, const char *path, bool is_data, char *out,
                    size_t size);

typedef struct mb_bundle_options {
    const char *dir;  /* where to; is made */
    const char *name; /* NAME of NAME.mbuyu.tar.zst */
    int64_t split;    /* bytes of a part; 0: 4,000,000,000 */
    int threads;
} mb_bundle_options;

/* Parts, and NAME.sha256 when all of them are on disk. What it wrote is said on stdout. A NAME.sha256
 * that is there already is MB_EARG; parts without one are leftovers and are replaced. */
mb_status mb_bundle_write(mb_bundle_items *b, const mb_bundle_options *o) MB_MUST_USE;

typedef struct mb_unbundle_options {
    const char *sums;         /* NAME.sha256 */
    const char *const *place; /* folders with parts, besides that of NAME.sha256 */
    size_t n_places;
    const char *to;          /* NULL: NAME, where we are */
    const char *const *only; /* patterns; none: everything */
    size_t n_only;
    int64_t most; /* bytes it may unpack to; 0: 1 GiB or 200 times its size */
    bool list;    /* say what is in it, write nothing */
    int threads;
} mb_unbundle_options;

/* MB_EDATA: parts that are missing or bad (each is named before), or an archive that is not what
 * mb_bundle_write writes. Then `to` is as it was, and what has been done is kept beside it. */
mb_status mb_unbundle(const mb_unbundle_options *o) MB_MUST_USE;

#endif
