/* tests/peers/tensor_files.c - the C half of formats.py.
 *
 *     tensor_files list < PATHS            one line of JSON per path: what is in that file
 *     tensor_files copy FILE FOLDER BYTES  the tensors of FILE as safetensors, shards of BYTES
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/formats/gguf.h"
#include "core/formats/safetensors_writer.h"
#include "core/json.h"

static mb_status read_tensor(const mb_tensor_file *f, int64_t i, void **data)
{
    const int64_t bytes = mb_tensor_file_info(f, i)->bytes;

    MB_TRY(mb_alloc((size_t)bytes, "a tensor", data));
    return mb_tensor_file_read(f, i, *data, 0, bytes);
}

static mb_status list_tensors(const mb_tensor_file *f, mb_json list)
{
    for (int64_t i = 0; i < mb_tensor_file_count(f); i++) {
        const mb_tensor_info *t = mb_tensor_file_info(f, i);
        uint8_t digest[MB_DIGEST_BYTES];
        char hex[MB_DIGEST_HEX];
        mb_json o, shape;
        void *data = NULL;
        MB_TRY(read_tensor(f, i, &data));
        MB_TRY(mb_digest_memory(data, (size_t)t->bytes, digest));
        mb_free(data);
        mb_digest_hex(digest, hex);
        MB_TRY(mb_json_set_object(list, NULL, &o));
        MB_TRY(mb_json_set_string(o, "name", t->name));
        MB_TRY(mb_json_set_string(o, "dtype", mb_dtype_name(t->dtype)));
        MB_TRY(mb_json_set_string(o, "sha256", hex));
        MB_TRY(mb_json_set_array(o, "shape", &shape));
        for (int d = 0; d < t->ndim; d++)
            MB_TRY(mb_json_set_int(shape, NULL, t->dim[d]));
    }
    return MB_OK;
}

/* Strings as hex digits, because they may be any bytes. */
static mb_status set_bytes(mb_json to, const char *key, const char *s, size_t n)
{
    char *hex;

    MB_TRY(mb_alloc(2 * n + 1, "hex digits", (void **)&hex));
    for (size_t i = 0; i < n; i++)
        sprintf(hex + 2 * i, "%02x", (unsigned char)s[i]);
    MB_TRY(mb_json_set_string(to, key, hex));
    mb_free(hex);
    return MB_OK;
}

static mb_status set_value(const mb_gguf *g, const char *key, mb_json pairs)
{
    mb_gguf_array a;
    mb_json list;
    const char *s;
    size_t n;
    int64_t i;
    uint64_t u;
    double d;
    bool b;

    if (mb_gguf_string(g, key, &s, &n) == MB_OK)
        return set_bytes(pairs, key, s, n);
    if (mb_gguf_bool(g, key, &b) == MB_OK)
        return mb_json_set_bool(pairs, key, b);
    if (mb_gguf_i64(g, key, &i) == MB_OK)
        return mb_json_set_int(pairs, key, i);
    if (mb_gguf_u64(g, key, &u) == MB_OK) /* more than JSON's integers hold */
        return mb_json_set_string(pairs, key, "more than 2^63");
    if (mb_gguf_f64(g, key, &d) == MB_OK)
        return mb_json_set_real(pairs, key, d);
    MB_TRY(mb_json_set_array(pairs, key, &list));
    if (mb_gguf_strings(g, key, &a) == MB_OK) {
        for (uint64_t k = 0; k < a.n; k++) {
            s = mb_gguf_string_at(&a, k, &n);
            MB_TRY(set_bytes(list, NULL, s, n));
        }
    } else if (mb_gguf_ints(g, key, &a) == MB_OK) {
        for (uint64_t k = 0; k < a.n; k++)
            MB_TRY(mb_json_set_int(list, NULL, mb_gguf_int_at(&a, k)));
    } else {
        MB_TRY(mb_gguf_reals(g, key, &a));
        for (uint64_t k = 0; k < a.n; k++)
            MB_TRY(mb_json_set_real(list, NULL, mb_gguf_real_at(&a, k)));
    }
    return MB_OK;
}

static mb_status list_pairs(const mb_gguf *g, mb_json pairs)
{
    for (uint64_t i = 0; i < mb_gguf_count(g); i++) {
        mb_status_clear();
        const mb_status st = set_value(g, mb_gguf_key(g, i), pairs);
        if (st != MB_OK)
            return st;
        mb_status_clear();
    }
    return MB_OK;
}

static mb_status list_file(const char *path, mb_json root)
{
    mb_tensor_file *f = NULL;
    mb_json o;

    const mb_status st = mb_tensor_file_open(path, &f);
    MB_TRY(mb_json_set_string(root, "status", mb_status_name(st)));
    MB_TRY(mb_json_set_string(root, "sentence", mb_status_sentence()));
    mb_status_clear();
    if (st != MB_OK)
        return MB_OK;
    MB_TRY(mb_json_set_array(root, "tensors", &o));
    MB_TRY(list_tensors(f, o));
    if (mb_tensor_file_gguf(f) != NULL) {
        MB_TRY(mb_json_set_object(root, "pairs", &o));
        MB_TRY(list_pairs(mb_tensor_file_gguf(f), o));
    }
    mb_tensor_file_close(f);
    return MB_OK;
}

static mb_status list(void)
{
    char path[4096], *text;

    while (fgets(path, sizeof path, stdin) != NULL) {
        mb_json_doc *doc = NULL;
        path[strcspn(path, "\n")] = '\0';
        MB_TRY(mb_json_doc_new(path, &doc));
        MB_TRY(list_file(path, mb_json_root(doc)));
        MB_TRY(mb_json_text(mb_json_root(doc), 0, &text, NULL));
        puts(text);
        fflush(stdout);
        mb_free(text);
        mb_json_free(doc);
    }
    return MB_OK;
}

static mb_status copy(const char *file, const char *folder, int64_t max_shard)
{
    mb_tensor_file *f = NULL;
    mb_safetensors_writer *w = NULL;

    MB_TRY(mb_tensor_file_open(file, &f));
    MB_TRY(mb_safetensors_writer_new(folder, "model", max_shard, &w));
    for (int64_t i = 0; i < mb_tensor_file_count(f); i++) {
        const mb_tensor_info *t = mb_tensor_file_info(f, i);
        MB_TRY(mb_safetensors_declare(w, t->name, t->dtype, t->ndim, t->dim));
    }
    for (int64_t i = 0; i < mb_tensor_file_count(f); i++) {
        void *data = NULL;
        MB_TRY(read_tensor(f, i, &data));
        MB_TRY(mb_safetensors_append(w, data, mb_tensor_file_info(f, i)->bytes));
        mb_free(data);
    }
    MB_TRY(mb_safetensors_finish(w));
    mb_safetensors_writer_free(w);
    mb_tensor_file_close(f);
    return MB_OK;
}

int main(int argc, char **argv)
{
    mb_status st;

    if (argc == 2 && strcmp(argv[1], "list") == 0)
        st = list();
    else if (argc == 5 && strcmp(argv[1], "copy") == 0)
        st = copy(argv[2], argv[3], strtoll(argv[4], NULL, 10));
    else
        st = MB_RAISE(MB_EARG, "usage: tensor_files list | copy FILE FOLDER BYTES");
    if (st != MB_OK)
        fprintf(stderr, "%s\n", mb_status_sentence());
    return mb_status_exit_code(st);
}
