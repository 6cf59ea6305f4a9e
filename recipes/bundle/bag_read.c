/* recipes/bundle/bag_read.c - the tag files of a bundle that came from elsewhere. Every line of them
 * is held against what mb_bag_seal would have written, so that there is one way to say a thing. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/bundle/bag.h"

static const int64_t MOST_FILE_BYTES = (int64_t)1 << 50;

struct lines {
    const char *file, *at;
    int64_t n;
};

/* Cuts the next line off in place: "VALUE  PATH". */
static mb_status next(struct lines *l, char **value, char **path)
{
    char *line = (char *)(uintptr_t)l->at;
    char *end = strchr(line, '\n'), *gap;

    l->n++;
    MB_REQUIRE(end != NULL, MB_EDATA, "%s:%lld: the line is not there or does not end", l->file,
               (long long)l->n);
    *end = '\0';
    gap = strstr(line, "  ");
    MB_REQUIRE(gap != NULL && gap > line, MB_EDATA, "%s:%lld: no \"VALUE  PATH\"", l->file,
               (long long)l->n);
    *gap = '\0';
    *value = line;
    *path = gap + 2;
    l->at = end + 1;
    return MB_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_digest(const char *hex, uint8_t digest[MB_DIGEST_BYTES])
{
    for (int i = 0; i < MB_DIGEST_BYTES; i++) {
        const int hi = hex_digit(hex[2 * i]), lo = hi < 0 ? -1 : hex_digit(hex[2 * i + 1]);
        if (lo < 0)
            return false;
        digest[i] = (uint8_t)(hi * 16 + lo);
    }
    return hex[2 * MB_DIGEST_BYTES] == '\0';
}

static bool read_size(const char *text, int64_t *size)
{
    int64_t v = 0;

    if (text[0] == '\0' || (text[0] == '0' && text[1] != '\0'))
        return false;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || v > MOST_FILE_BYTES)
            return false;
        v = v * 10 + (*p - '0');
    }
    *size = v;
    return v <= MOST_FILE_BYTES;
}

static mb_status read_file(struct lines *manifest, struct lines *sizes, mb_bag *b)
{
    char *hex, *digits, *path, *same;
    mb_bag_file *f;

    MB_TRY(next(manifest, &hex, &path));
    MB_TRY(next(sizes, &digits, &same));
    const char *fault = mb_bag_path_fault(path);
    MB_REQUIRE(fault == NULL, MB_EDATA, "%s:%lld: the path '%.200s' %s", manifest->file,
               (long long)manifest->n, path, fault);
    MB_REQUIRE(strcmp(path, same) == 0, MB_EDATA, "%s:%lld: is not of the file of the manifest's",
               sizes->file, (long long)sizes->n);
    MB_REQUIRE(b->n == 0 || strcmp(b->file[b->n - 1].path, path) < 0, MB_EDATA,
               "%s:%lld: '%.200s' is there twice or out of order", manifest->file,
               (long long)manifest->n, path);
    MB_TRY(mb_bag_add(b, path, &f));
    MB_REQUIRE(read_digest(hex, f->digest), MB_EDATA, "%s:%lld: '%.80s' is no sha256",
               manifest->file, (long long)manifest->n, hex);
    MB_REQUIRE(read_size(digits, &f->size), MB_EDATA,
               "%s:%lld: '%.80s' is no size of a file (at most 1 PiB)", sizes->file,
               (long long)sizes->n, digits);
    return MB_OK;
}

/* bag-info.txt as mb_bag_seal begins it; what follows the first three lines is for people. */
static mb_status check_info(const char *name, const char *info, char version[64], const char **rest)
{
    const char *line = strchr(info, '\n');

    MB_REQUIRE(line != NULL && strncmp(info, "Bag-Software-Agent: mbuyu ", 26) == 0 &&
                   line - info - 26 < 64,
               MB_EDATA, "%s: a bag, but not one that mbuyu wrote", name);
    snprintf(version, 64, "%.*s", (int)(line - info - 26), info + 26);
    MB_REQUIRE(strncmp(line, "\nMbuyu-Bundle-Format: ", 22) == 0, MB_EDATA,
               "%s: bag-info.txt does not say Mbuyu-Bundle-Format", name);
    MB_REQUIRE(strncmp(line + 22, "1\nPayload-Oxum: ", 16) == 0, MB_ENOTSUP,
               "%s: its Mbuyu-Bundle-Format is not 1, the one that this mbuyu reads", name);
    line = strchr(line + 24, '\n');
    MB_REQUIRE(line != NULL, MB_EDATA, "%s: bag-info.txt does not end", name);
    *rest = line + 1;
    return MB_OK;
}

static mb_status read_files(const char *name, char *const text[MB_BAG_TAGS], mb_bag *b)
{
    char where[2][300];
    struct lines manifest = {where[0], text[2], 0}, sizes = {where[1], text[3], 0};

    snprintf(where[0], sizeof where[0], "%.200s: %s", name, mb_bag_tag[2]);
    snprintf(where[1], sizeof where[1], "%.200s: %s", name, mb_bag_tag[3]);
    while (*manifest.at != '\0')
        MB_TRY(read_file(&manifest, &sizes, b));
    MB_REQUIRE(*sizes.at == '\0', MB_EDATA, "%s: has more lines than the manifest", sizes.file);
    for (size_t i = 0; i < b->n; i++) {
        b->payload_bytes += b->file[i].size;
        MB_REQUIRE(b->payload_bytes <= MOST_FILE_BYTES, MB_EDATA, "%s: more than 1 PiB together",
                   sizes.file);
    }
    return MB_OK;
}

mb_status mb_bag_parse(const char *name, char *const text[MB_BAG_TAGS], const size_t n[MB_BAG_TAGS],
                       mb_bag *b)
{
    char *kept[MB_BAG_TAGS] = {0};
    char version[64];
    const char *info = "";
    mb_status st = MB_OK;

    for (int i = 0; i < MB_BAG_TAGS; i++)
        MB_REQUIRE(strlen(text[i]) == n[i], MB_EDATA, "%s: %s has a zero byte", name,
                   mb_bag_tag[i]);
    MB_TRY(check_info(name, text[1], version, &info));
    for (int i = 2; i < 4; i++) /* lines are cut in place */
        MB_TRY_GOTO(mb_strndup(text[i], n[i], &kept[i]), st, done);
    MB_TRY_GOTO(read_files(name, kept, b), st, done);
    st = mb_bag_sort(b);
    if (st != MB_OK) { /* a file where others need a folder */
        st = MB_EDATA;
        mb_status_prefix(st, "%s: ", name);
        goto done;
    }
    MB_TRY_GOTO(mb_bag_seal(b, version, info), st, done);
    if (b->frames > MB_BAG_MOST_FRAMES) {
        st = MB_RAISE(MB_EDATA, "%s: more than %d frames", name, MB_BAG_MOST_FRAMES);
        goto done;
    }
    for (int i = 0; i < MB_BAG_TAGS && st == MB_OK; i++)
        if ((size_t)b->file[i].size != n[i] || memcmp(b->file[i].text, text[i], n[i]) != 0)
            st = MB_RAISE(MB_EDATA, "%s: %s does not fit the other tag files", name, mb_bag_tag[i]);
done:
    for (int i = 0; i < MB_BAG_TAGS; i++)
        mb_free(kept[i]);
    return st;
}
