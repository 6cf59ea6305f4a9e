/* checkpoint_digest.c CHECKPOINT [--shares] - one line per tensor of a checkpoint, put together from
 * the slices of all ranks' files: sha256, elements, dataset. Two checkpoints that print the same
 * hold the same bits, whatever the numbers of ranks that wrote them. Last comes the optimizer's
 * history. With --shares one line per rank instead: "rank-00001-of-00003", optimizer elements in its
 * files.
 *
 * Reads by the manifest alone, not as a resume does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/json.h"
#include "core/path.h"
#include "dist/checkpoint.h"
#include "dist/h5.h"

typedef struct slice {
    const char *dataset, *file;
    int64_t from, count;
} slice;

static int by_place(const void *a, const void *b)
{
    const slice *x = a, *y = b;
    const int names = strcmp(x->dataset, y->dataset);

    return names != 0 ? names : (x->from > y->from) - (x->from < y->from);
}

static mb_status read_list(mb_json_doc *doc, slice **out, size_t *n)
{
    const mb_json list = mb_json_get(mb_json_root(doc), "slices");

    *n = mb_json_count(list);
    MB_TRY(MB_NEW_ARRAY(out, *n + 1));
    for (size_t i = 0; i < *n; i++) {
        const mb_json entry = mb_json_at(list, i);
        slice *s = &(*out)[i];
        MB_TRY(mb_json_get_string(entry, "dataset", "", &s->dataset));
        MB_TRY(mb_json_get_string(entry, "file", "", &s->file));
        MB_TRY(mb_json_need_int(entry, "from", 0, INT64_MAX, &s->from));
        MB_TRY(mb_json_need_int(entry, "count", 1, INT64_MAX, &s->count));
    }
    qsort(*out, *n, sizeof **out, by_place);
    return MB_OK;
}

static mb_status add(const char *folder, const slice *s, mb_digest *d)
{
    char path[MB_PATH_MAX];
    float *data = NULL;
    mb_h5 *f = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, folder, s->file));
    MB_TRY_GOTO(MB_NEW_ARRAY(&data, s->count), st, done);
    MB_TRY_GOTO(mb_h5_open(path, MB_EIO, &f), st, done);
    MB_TRY_GOTO(mb_h5_read_range(f, s->dataset, MB_DTYPE_F32, 0, s->count, data), st, done);
    MB_TRY_GOTO(mb_digest_add(d, data, (size_t)s->count * sizeof *data), st, done);
done:
    mb_h5_close(f);
    mb_free(data);
    return st;
}

static mb_status print_tensor(const char *folder, const slice *s, size_t n, mb_digest *d)
{
    uint8_t bytes[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];
    int64_t at = 0;

    for (size_t i = 0; i < n; i++) {
        MB_REQUIRE(s[i].from == at, MB_EIO, "%s: elements %lld to %lld are missing or there twice",
                   s->dataset, (long long)at, (long long)s[i].from);
        MB_TRY(add(folder, &s[i], d));
        at += s[i].count;
    }
    MB_TRY(mb_digest_end(d, bytes));
    mb_digest_hex(bytes, hex);
    printf("%s %lld %s\n", hex, (long long)at, s->dataset);
    return MB_OK;
}

static mb_status print_tensors(const char *folder, const slice *s, size_t n)
{
    mb_digest *d;
    mb_status st = MB_OK;

    MB_TRY(mb_digest_new(&d));
    for (size_t from = 0, to; from < n && st == MB_OK; from = to) {
        for (to = from + 1; to < n && strcmp(s[to].dataset, s[from].dataset) == 0;)
            to++;
        st = print_tensor(folder, s + from, to - from, d);
    }
    mb_digest_free(d);
    return st;
}

static mb_status print_history(const char *folder)
{
    mb_checkpoint_info info = {0};

    MB_TRY(mb_checkpoint_read_info(folder, &info));
    printf("step %lld applied %lld max_abs %a skipped %lld\n", (long long)info.step,
           (long long)info.history.applied, info.history.max_abs, (long long)info.history.skipped);
    mb_checkpoint_info_release(&info);
    return MB_OK;
}

enum { RANK_NAME = sizeof "rank-00000-of-00000" - 1 };

static int by_file(const void *a, const void *b)
{
    return strcmp(((const slice *)a)->file, ((const slice *)b)->file);
}

static void print_shares(slice *s, size_t n)
{
    qsort(s, n, sizeof *s, by_file);
    for (size_t from = 0, to; from < n; from = to) {
        int64_t count = 0;
        for (to = from; to < n && strncmp(s[to].file, s[from].file, RANK_NAME) == 0; to++)
            if (strncmp(s[to].dataset, "/optim/", 7) == 0)
                count += s[to].count;
        printf("%.*s %lld\n", RANK_NAME, s[from].file, (long long)count);
    }
}

static mb_status run(const char *folder, bool shares)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    slice *s = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, folder, "manifest.json"));
    MB_TRY(mb_json_read(path, MB_EIO, 1 << 28, &doc));
    MB_TRY_GOTO(read_list(doc, &s, &n), st, done);
    if (shares) {
        print_shares(s, n);
        goto done;
    }
    MB_TRY_GOTO(print_tensors(folder, s, n), st, done);
    st = print_history(folder);
done:
    mb_free(s);
    mb_json_free(doc);
    return st;
}

int main(int argc, char **argv)
{
    const bool shares = argc == 3 && strcmp(argv[2], "--shares") == 0;

    if (argc != 2 && !shares) {
        fprintf(stderr, "usage: checkpoint_digest CHECKPOINT [--shares]\n");
        return 2;
    }
    if (run(argv[1], shares) == MB_OK)
        return 0;
    fprintf(stderr, "%s\n", mb_status_sentence());
    return 1;
}
