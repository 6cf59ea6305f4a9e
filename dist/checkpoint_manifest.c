/* dist/checkpoint_manifest.c - manifest.json: what a checkpoint consists of, and proof of it.
 *
 * The last member of the document is the sha256 of all bytes before its own digits, so that no byte
 * of the manifest can change unseen either. `sha256sum` checks the other files.
 */
#include <string.h>

#include "core/alloc.h"
#include "dist/checkpoint_inside.h"

static const char before_digest[] = ",\n \"sha256\": \"", after_digest[] = "\"\n}\n";

enum {
    HEX = MB_DIGEST_HEX - 1,
    BEFORE = sizeof before_digest - 1,
    AFTER = sizeof after_digest - 1,
    MANIFEST_MAX = 256 << 20,
    FILE_MAX = 1 << 30 /* pieces are far smaller; a manifest that asks for more is wrong */
};

mb_status mb_manifest_seal(mb_json root, char **text, size_t *n)
{
    static const char tail[] = "\n}\n";
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX], *plain = NULL, *sealed = NULL;
    size_t size = 0;
    void *p = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_json_text(root, 1, &plain, &size));
    if (size < sizeof tail || memcmp(plain + size - 3, tail, 3) != 0)
        MB_TRY_GOTO(MB_RAISE(MB_EBUG, "a manifest that does not end with a brace"), st, done);
    size -= 3;
    MB_TRY_GOTO(mb_alloc(size + BEFORE + HEX + AFTER + 1, "the manifest", &p), st, done);
    sealed = p;
    memcpy(sealed, plain, size);
    memcpy(sealed + size, before_digest, BEFORE);
    MB_TRY_GOTO(mb_digest_memory(sealed, size + BEFORE, digest), st, done);
    mb_digest_hex(digest, hex);
    memcpy(sealed + size + BEFORE, hex, HEX);
    memcpy(sealed + size + BEFORE + HEX, after_digest, AFTER);
    *text = sealed;
    *n = size + BEFORE + HEX + AFTER;
    sealed = NULL;
done:
    mb_free(plain);
    mb_free(sealed);
    return st;
}

static mb_status check_seal(const char *file, const char *text, size_t n)
{
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];

    MB_REQUIRE(n > BEFORE + HEX + AFTER && memcmp(text + n - AFTER, after_digest, AFTER) == 0 &&
                   memcmp(text + n - AFTER - HEX - BEFORE, before_digest, BEFORE) == 0,
               MB_EIO, "%s is cut short or changed: it does not end with its digest", file);
    MB_TRY(mb_digest_memory(text, n - AFTER - HEX, digest));
    mb_digest_hex(digest, hex);
    MB_REQUIRE(memcmp(hex, text + n - AFTER - HEX, HEX) == 0, MB_EIO,
               "%s was changed after it was written: its sha256 is %s, it says %.*s", file, hex,
               HEX, text + n - AFTER - HEX);
    return MB_OK;
}

mb_status mb_manifest_read(const char *path, mb_json_doc **out)
{
    char file[MB_PATH_MAX], *text = NULL;
    const char *format;
    mb_json_doc *doc = NULL;
    int64_t version;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(file, sizeof file, path, "manifest.json"));
    MB_TRY(mb_file_read_as(file, MB_EIO, MANIFEST_MAX, &text, &n));
    MB_TRY_GOTO(check_seal(file, text, n), st, done);
    MB_TRY_GOTO(mb_json_parse(text, n, file, 0, MB_EIO, &doc), st, done);
    MB_TRY_GOTO(mb_json_get_string(mb_json_root(doc), "format", "", &format), st, done);
    MB_TRY_GOTO(mb_json_need_int(mb_json_root(doc), "version", 0, INT32_MAX, &version), st, done);
    if (strcmp(format, "mbuyu-checkpoint") != 0 || version != MB_CHECKPOINT_VERSION)
        MB_TRY_GOTO(MB_RAISE(MB_EMODEL,
                             "%s has format '%s' version %lld; this mbuyu reads 'mbuyu-checkpoint' "
                             "version %d",
                             file, format, (long long)version, MB_CHECKPOINT_VERSION),
                    st, done);
    *out = doc;
    doc = NULL;
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

mb_status mb_manifest_entry(mb_json root, const char *path, const char *file, mb_json *out)
{
    for (mb_json_it it = mb_json_first(mb_json_get(root, "files")); mb_json_more(&it);
         mb_json_next(&it)) {
        const char *name;
        MB_TRY(mb_json_get_string(it.value, "name", "", &name));
        if (strcmp(name, file) == 0) {
            *out = it.value;
            return MB_OK;
        }
    }
    return MB_RAISE(MB_EIO, "%s/manifest.json does not list %s", path, file);
}

mb_status mb_manifest_file(const char *path, mb_json entry, char **bytes, size_t *n)
{
    char file[MB_PATH_MAX], hex[MB_DIGEST_HEX], *data = NULL;
    const char *name, *want;
    uint8_t digest[MB_DIGEST_BYTES];
    int64_t size;
    size_t got = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_json_get_string(entry, "name", "", &name));
    MB_TRY(mb_json_get_string(entry, "sha256", "", &want));
    MB_TRY(mb_json_need_int(entry, "bytes", 0, FILE_MAX, &size));
    MB_REQUIRE(mb_path_is_component(name), MB_EIO,
               "%s/manifest.json lists '%s', which is not a plain file name", path, name);
    MB_TRY(mb_path_join(file, sizeof file, path, name));
    MB_TRY(mb_file_read_as(file, MB_EIO, FILE_MAX, &data, &got));
    if (got != (size_t)size)
        MB_TRY_GOTO(MB_RAISE(MB_EIO, "%s has %zu bytes, its manifest says %lld", file, got,
                             (long long)size),
                    st, done);
    MB_TRY_GOTO(mb_digest_memory(data, got, digest), st, done);
    mb_digest_hex(digest, hex);
    if (strcmp(hex, want) != 0)
        MB_TRY_GOTO(MB_RAISE(MB_EIO,
                             "%s was changed after it was written: its sha256 is %s, its manifest "
                             "says %s",
                             file, hex, want),
                    st, done);
    *bytes = data;
    *n = got;
    data = NULL;
done:
    mb_free(data);
    return st;
}

mb_status mb_manifest_add_file(mb_json files, const char *name, const void *bytes, size_t n)
{
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];
    mb_json entry;

    MB_TRY(mb_digest_memory(bytes, n, digest));
    mb_digest_hex(digest, hex);
    MB_TRY(mb_json_set_object(files, NULL, &entry));
    MB_TRY(mb_json_set_string(entry, "name", name));
    MB_TRY(mb_json_set_int(entry, "bytes", (int64_t)n));
    return mb_json_set_string(entry, "sha256", hex);
}
