/* recipes/bundle/bag.c - files, order, places and tag files; see recipes/bundle/bag.h. Reading them
 * is in bag_read.c. */
#include "recipes/bundle/bag.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/data/rowfile.h"

const char *const mb_bag_tag[MB_BAG_TAGS] = {"bagit.txt", "bag-info.txt", "manifest-sha256.txt",
                                             "payload-sizes.txt", "tagmanifest-sha256.txt"};

void mb_bag_release(mb_bag *b)
{
    for (size_t i = 0; i < b->n; i++) {
        mb_free(b->file[i].path);
        mb_free(b->file[i].source);
        mb_free(b->file[i].text);
    }
    mb_free(b->file);
    *b = (mb_bag){0};
}

const char *mb_bag_path_fault(const char *path)
{
    char name[256];
    int depth = 0;

    if (strlen(path) > MB_TAR_MOST_PATH)
        return "is longer than 1024 bytes";
    if (mb_utf8_fault(path, strlen(path)) >= 0)
        return "is not UTF-8";
    if (strncmp(path, "data/", 5) != 0)
        return "is outside data/";
    for (const char *p = path;; p++) {
        const size_t n = strcspn(p, "/");
        if (n >= sizeof name)
            return "has a name of more than 255 bytes";
        memcpy(name, p, n);
        name[n] = '\0';
        if (!mb_path_is_component(name))
            return "has a part that is no file name (empty, ., .., control characters or \\)";
        if (strchr(name, '%') != NULL)
            return "has a %, which checksum tools and BagIt do not write alike";
        if (++depth > MB_BAG_DEEPEST)
            return "is nested deeper than 32 folders";
        p += n;
        if (*p == '\0')
            return NULL;
    }
}

mb_status mb_bag_add(mb_bag *b, const char *path, mb_bag_file **out)
{
    MB_REQUIRE(b->n < MB_BAG_MOST_FILES, MB_EARG, "more than %d files", MB_BAG_MOST_FILES);
    MB_TRY(mb_grow((void **)&b->file, &b->capacity, b->n + 1, sizeof *b->file, "a list of files"));
    MB_TRY(mb_strdup(path, &b->file[b->n].path));
    b->file[b->n].program = strncmp(path, "data/bin/", 9) == 0;
    *out = &b->file[b->n++];
    return MB_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const mb_bag_file *)a)->path, ((const mb_bag_file *)b)->path);
}

/* Is any of the folders of `path` a file of the (sorted) list? */
static bool is_below_a_file(const mb_bag *b, const char *path)
{
    char folder[MB_TAR_MOST_PATH + 1];
    const mb_bag_file wanted = {.path = folder};

    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        memcpy(folder, path, (size_t)(slash - path));
        folder[slash - path] = '\0';
        if (bsearch(&wanted, b->file, b->n, sizeof *b->file, by_path) != NULL)
            return true;
    }
    return false;
}

mb_status mb_bag_sort(mb_bag *b)
{
    if (b->n > 0)
        qsort(b->file, b->n, sizeof *b->file, by_path);
    for (size_t i = 0; i < b->n; i++) {
        const char *path = b->file[i].path, *fault = mb_bag_path_fault(path);

        MB_REQUIRE(fault == NULL, MB_EARG, "the path '%.200s' %s", path, fault);
        MB_REQUIRE(i == 0 || strcmp(b->file[i - 1].path, path) != 0, MB_EARG,
                   "two files would be %s: give one of them as ORG/NAME=PATH", path);
        MB_REQUIRE(!is_below_a_file(b, path), MB_EARG,
                   "%s needs a folder where there is a file of that name", path);
    }
    return MB_OK;
}

static void lay_out(mb_bag *b)
{
    int64_t at = 0, frame = 0;

    for (size_t i = 0; i < b->n; i++) {
        mb_bag_file *f = &b->file[i];
        f->at = at;
        f->frame = frame;
        f->head_n = (int64_t)mb_tar_head(f->path, f->size, f->program, NULL);
        const int64_t span = f->head_n + mb_tar_padded(f->size);
        f->frames = (span + MB_BAG_FRAME - 1) / MB_BAG_FRAME;
        at += span;
        frame += f->frames;
    }
    b->tar_bytes = at + MB_TAR_END;
    b->frames = frame + 1;
}

mb_bag_span mb_bag_frame(const mb_bag *b, int64_t frame)
{
    size_t lo = 0, hi = b->n; /* the last file whose first frame is not after it */

    if (frame == b->frames - 1)
        return (mb_bag_span){.n = MB_TAR_END};
    while (hi - lo > 1) {
        const size_t mid = (lo + hi) / 2;
        if (b->file[mid].frame <= frame)
            lo = mid;
        else
            hi = mid;
    }
    mb_bag_file *f = &b->file[lo];
    const int64_t at = (frame - f->frame) * MB_BAG_FRAME;
    const int64_t left = f->head_n + mb_tar_padded(f->size) - at;
    return (mb_bag_span){f, at, (size_t)(left < MB_BAG_FRAME ? left : MB_BAG_FRAME)};
}

/* ---- tag files ---------------------------------------------------------------------------- */

static mb_status take_text(mb_bag_file *f, const char *path, mb_text *t)
{
    f->size = (int64_t)t->n;
    MB_TRY(mb_text_take(t, &f->text));
    MB_TRY(mb_strdup(path, &f->path));
    return mb_digest_memory(f->text, (size_t)f->size, f->digest);
}

static void add_line(mb_text *t, const mb_bag_file *f)
{
    char hex[MB_DIGEST_HEX];

    mb_digest_hex(f->digest, hex);
    mb_text_add(t, "%s  %s\n", hex, f->path);
}

static mb_status make_tags(mb_bag_file tag[MB_BAG_TAGS], const mb_bag *b, const char *version,
                           const char *info)
{
    mb_text t[MB_BAG_TAGS] = {0};
    mb_status st = MB_OK;

    mb_text_add(&t[0], "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n");
    mb_text_add(&t[1], "Bag-Software-Agent: mbuyu %s\nMbuyu-Bundle-Format: 1\n", version);
    mb_text_add(&t[1], "Payload-Oxum: %lld.%zu\n%s", (long long)b->payload_bytes, b->n, info);
    for (size_t i = 0; i < b->n; i++) {
        add_line(&t[2], &b->file[i]);
        mb_text_add(&t[3], "%lld  %s\n", (long long)b->file[i].size, b->file[i].path);
    }
    for (int i = 0; i < MB_BAG_TAGS && st == MB_OK; i++) {
        st = take_text(&tag[i], mb_bag_tag[i], &t[i]);
        if (st == MB_OK && i + 1 < MB_BAG_TAGS)
            add_line(&t[MB_BAG_TAGS - 1], &tag[i]);
    }
    for (int i = 0; i < MB_BAG_TAGS; i++)
        mb_text_release(&t[i]);
    return st;
}

mb_status mb_bag_seal(mb_bag *b, const char *version, const char *info)
{
    mb_bag tags = {0};
    mb_status st;

    MB_TRY(mb_grow((void **)&tags.file, &tags.capacity, b->n + MB_BAG_TAGS, sizeof *tags.file,
                   "a list of files"));
    tags.n = MB_BAG_TAGS;
    b->payload_bytes = 0;
    for (size_t i = 0; i < b->n; i++)
        b->payload_bytes += b->file[i].size;
    MB_TRY_GOTO(make_tags(tags.file, b, version, info), st, fail);
    for (int i = 0; i < MB_BAG_TAGS; i++)
        if (tags.file[i].size > MB_BAG_MOST_TAG_BYTES) {
            st = MB_RAISE(MB_EARG, "the paths of %zu files are too long together", b->n);
            goto fail;
        }
    if (b->n > 0)
        memcpy(tags.file + MB_BAG_TAGS, b->file, b->n * sizeof *b->file);
    tags.n += b->n;
    tags.payload_bytes = b->payload_bytes;
    mb_free(b->file);
    *b = tags;
    lay_out(b);
    return MB_OK;
fail:
    mb_bag_release(&tags);
    return st;
}
