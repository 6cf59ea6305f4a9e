/* recipes/data/image_list.h - which pictures a data set names, and their labels; see image_files.h. */
#ifndef MB_RECIPES_DATA_IMAGE_LIST_H
#define MB_RECIPES_DATA_IMAGE_LIST_H

#include "recipes/data/records.h"

/* One picture; texts are offsets into the list's. */
typedef struct mb_image_entry {
    int64_t path, label; /* label -1: none */
    int64_t line;        /* of the metadata file; 0: none */
    int64_t record;      /* the source's before it, within its split or not */
    int32_t source;
} mb_image_entry;

typedef struct mb_image_list {
    mb_image_entry *entry;
    int64_t n;
    char *text;
    int64_t n_text;
    size_t entry_capacity, text_capacity;
    int64_t other_files; /* in class folders, neither PNG nor JPEG by name */
} mb_image_list;

/* Appends a source's pictures, within its split, in order: of folders by name, of metadata by line.
 * MB_EDATA, MB_EARG name the folder, or file and line. */
mb_status mb_image_list_add(mb_image_list *l, const mb_source *s, int source) MB_MUST_USE;
/* The metadata file that names a source's pictures; "": a folder for each class does. */
mb_status mb_image_list_file(const mb_source *s, char out[MB_PATH_MAX]) MB_MUST_USE;
void mb_image_list_release(mb_image_list *l);

#endif
