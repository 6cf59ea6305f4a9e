/* tests/unit/test_safetensors.c - safetensors and folders of them: read, written, malformed. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/formats/safetensors.h"
#include "core/formats/safetensors_writer.h"
#include "core/json.h"
#include "core/path.h"
#include "tests/unit/root_test.h"

static char file[MB_PATH_MAX]; /* root/t.safetensors */

/* length, header, zeros: a safetensors file, or nearly */
static void write_as(const char *path, uint64_t length, const char *header, size_t data)
{
    const size_t n = 8 + strlen(header) + data;
    char *p = calloc(1, n);

    memcpy(p, &length, 8);
    memcpy(p + 8, header, strlen(header));
    assert_int_equal(mb_file_write_atomic(path, p, n), MB_OK);
    free(p);
}

static void write_file(const char *header, size_t data)
{
    write_as(file, strlen(header), header, data);
}

/* One sentence on one line that names the file. */
static void expect_at(const char *path, mb_status wanted, const char *says)
{
    mb_tensor_file *f = NULL;
    const mb_status st = mb_tensor_file_open(path, &f);

    if (st != wanted || strstr(mb_status_sentence(), says) == NULL)
        fail_msg("expected %s '%s', got %s '%s'", mb_status_name(wanted), says, mb_status_name(st),
                 mb_status_sentence());
    assert_null(f);
    if (st != MB_OK)
        assert_non_null(strstr(mb_status_sentence(), mb_path_base(path)));
    assert_null(strchr(mb_status_sentence(), '\n'));
    mb_status_clear();
}

static mb_tensor_file *opened(const char *path)
{
    mb_tensor_file *f = NULL;

    if (mb_tensor_file_open(path, &f) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    return f;
}

#define T(name, dtype, shape, offsets) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define A T("a", "F32", "[2,3]", "[0,24]")

/* Everything here is a file of a hostile or careless writer. `data` bytes follow the header. */
static const struct {
    const char *header;
    size_t data;
    mb_status st;
    const char *says;
} malformed[] = {
    /* not JSON, or not of this kind */
    {"", 0, MB_EMODEL, "a header of 0 bytes"},
    {"{", 0, MB_EMODEL, "a header of 1 bytes"},
    {"[]", 0, MB_EMODEL, "does not begin with '{'"},
    {" {}", 0, MB_EMODEL, "does not begin with '{'"},
    {"12", 0, MB_EMODEL, "does not begin with '{'"},
    {"{}x", 0, MB_EMODEL, "not valid JSON"},
    {"{}{}", 0, MB_EMODEL, "not valid JSON"},
    {"{\"a\"}", 0, MB_EMODEL, "not valid JSON"},
    {"{\"a\":1,}", 0, MB_EMODEL, "not valid JSON"},
    {"{" A ",}", 24, MB_EMODEL, "not valid JSON"},
    {"{" A "," A "}", 24, MB_EMODEL, "duplicate object key"},
    {"{\"\xff\":1}", 0, MB_EMODEL, "not valid JSON"},
    {"{\"\\ud800\":1}", 0, MB_EMODEL, "not valid JSON"},
    {"{\"a\\u0000b\":1}", 0, MB_EMODEL, "not valid JSON"},
    {"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 0, MB_EMODEL,
     "nested deeper"},
    {"{\"a\":1}", 0, MB_EMODEL, "a must be an object"},
    {"{\"a\":null}", 0, MB_EMODEL, "a must be an object"},
    {"{\"a\":[]}", 0, MB_EMODEL, "a must be an object"},
    {"{\"a\":{}}", 0, MB_EMODEL, "a.dtype is missing"},
    /* names */
    {"{" T("", "F32", "[]", "[0,4]") "}", 4, MB_EMODEL, "empty name"},
    {"{" T("a\\nb", "F32", "[]", "[0,4]") "}", 4, MB_EMODEL, "control character"},
    {"{" T("a\\u007f", "F32", "[]", "[0,4]") "}", 4, MB_EMODEL, "control character"},
    /* dtypes */
    {"{\"a\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, MB_EMODEL, "a.dtype is missing"},
    {"{\"a\":{\"dtype\":7,\"shape\":[],\"data_offsets\":[0,4]}}", 4, MB_EMODEL,
     "a.dtype must be a string"},
    {"{" T("a", "F33", "[]", "[0,4]") "}", 4, MB_EMODEL, "unknown dtype 'F33'"},
    {"{" T("a", "f32", "[]", "[0,4]") "}", 4, MB_EMODEL, "unknown dtype 'f32'"},
    {"{" T("a", "", "[]", "[0,4]") "}", 4, MB_EMODEL, "unknown dtype"},
    {"{" T("a", "Q8_0", "[32]", "[0,34]") "}", 34, MB_EMODEL, "unknown dtype 'Q8_0'"},
    {"{" T("a", "F8_E4M3", "[4]", "[0,4]") "}", 4, MB_ENOTSUP, "F8_E4M3"},
    {"{" T("a", "F8_E5M2", "[4]", "[0,4]") "}", 4, MB_ENOTSUP, "F8_E5M2"},
    {"{" T("a", "C64", "[1]", "[0,8]") "}", 8, MB_ENOTSUP, "C64"},
    /* shapes */
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, MB_EMODEL, "a.shape is missing"},
    {"{" T("a", "F32", "4", "[0,4]") "}", 4, MB_EMODEL, "a.shape must be a list"},
    {"{" T("a", "F32", "[-1]", "[0,4]") "}", 4, MB_EMODEL, "a.shape[0] is negative"},
    {"{" T("a", "F32", "[1.0]", "[0,4]") "}", 4, MB_EMODEL, "a.shape[0] must be an integer"},
    {"{" T("a", "F32", "[1e308]", "[0,4]") "}", 4, MB_EMODEL, "a.shape[0] must be an integer"},
    {"{" T("a", "F32", "[\"1\"]", "[0,4]") "}", 4, MB_EMODEL, "a.shape[0] must be an integer"},
    {"{" T("a", "F32", "[null]", "[0,4]") "}", 4, MB_EMODEL, "a.shape[0] must be an integer"},
    {"{" T("a", "F32", "[[1]]", "[0,4]") "}", 4, MB_EMODEL, "a.shape[0] must be an integer"},
    {"{" T("a", "F32", "[18446744073709551616]", "[0,4]") "}", 4, MB_EMODEL, "too big"},
    {"{" T("a", "F32", "[9223372036854775807]", "[0,4]") "}", 4, MB_EMODEL, "more than 2^63"},
    {"{" T("a", "F32", "[4611686018427387904,4]", "[0,0]") "}", 0, MB_EMODEL, "more than 2^63"},
    {"{" T("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, MB_EMODEL, "more than 2^63"},
    {"{" T("a", "U8", "[1,1,1,1,1,1]", "[0,1]") "}", 1, MB_ENOTSUP, "has 6 dimensions"},
    {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, MB_ENOTSUP, "has 9 dimensions"},
    {"{" T("a", "F32", "[2]", "[0,4]") "}", 4, MB_EMODEL, "has 4 bytes of data"},
    {"{" T("a", "F32", "[1]", "[0,8]") "}", 8, MB_EMODEL, "has 8 bytes of data"},
    {"{" T("a", "F32", "[0]", "[0,4]") "}", 4, MB_EMODEL, "has 4 bytes of data"},
    {"{" T("a", "BOOL", "[3]", "[0,4]") "}", 4, MB_EMODEL, "has 4 bytes of data"},
    /* offsets */
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, MB_EMODEL, "a.data_offsets is missing"},
    {"{" T("a", "F32", "[]", "4") "}", 4, MB_EMODEL, "a.data_offsets must be a list"},
    {"{" T("a", "F32", "[]", "[]") "}", 4, MB_EMODEL, "a.data_offsets must be two numbers"},
    {"{" T("a", "F32", "[]", "[0]") "}", 4, MB_EMODEL, "a.data_offsets must be two numbers"},
    {"{" T("a", "F32", "[]", "[0,4,4]") "}", 4, MB_EMODEL, "a.data_offsets must be two numbers"},
    {"{" T("a", "F32", "[]", "[0,4.0]") "}", 4, MB_EMODEL, "must be an integer"},
    {"{" T("a", "F32", "[]", "[-4,0]") "}", 4, MB_EMODEL, "a.data_offsets[0] is negative"},
    {"{" T("a", "F32", "[]", "[4,0]") "}", 4, MB_EMODEL, "has data_offsets [4, 0]"},
    {"{" T("a", "F32", "[]", "[0,9223372036854775807]") "}", 4, MB_EMODEL, "has data_offsets"},
    {"{" T("a", "F32", "[]", "[9223372036854775804,9223372036854775807]") "}", 4, MB_EMODEL,
     "has data_offsets"},
    {"{" T("a", "F32", "[]", "[0,4]") "}", 3, MB_EMODEL, "the file holds 3 bytes of data"},
    {"{" T("a", "F32", "[]", "[0,4]") "}", 0, MB_EMODEL, "the file holds 0 bytes of data"},
    {"{" T("a", "F32", "[]", "[4,8]") "}", 8, MB_EMODEL, "nothing describes the bytes from 0"},
    {"{" T("a", "F32", "[]", "[0,4]") "}", 5, MB_EMODEL, "1 bytes after the last tensor"},
    {"{" A "," T("b", "F32", "[6]", "[0,24]") "}", 24, MB_EMODEL, "inside another that ends at 24"},
    {"{" A "," T("b", "F32", "[1]", "[20,24]") "}", 24, MB_EMODEL, "inside another"},
    {"{" A "," T("b", "F32", "[1]", "[28,32]") "}", 32, MB_EMODEL,
     "nothing describes the bytes from 24"},
    {"{" T("b", "F32", "[1]", "[28,32]") "," A "}", 32, MB_EMODEL, "nothing describes"},
    {"{" A "," T("b", "F32", "[0]", "[12,12]") "}", 24, MB_EMODEL, "inside another"},
    {"{}", 1, MB_EMODEL, "1 bytes after the last tensor"},
    /* metadata */
    {"{\"__metadata__\":1}", 0, MB_EMODEL, "__metadata__ must be an object of strings"},
    {"{\"__metadata__\":{\"x\":1}}", 0, MB_EMODEL, "__metadata__.x must be a string"},
    {"{\"__metadata__\":{\"x\":{}}}", 0, MB_EMODEL, "__metadata__.x must be a string"},
    {"{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}", 0, MB_EMODEL, "duplicate"},
};

static void malformed_files_are_refused_with_a_sentence(void **state)
{
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        write_file(malformed[i].header, malformed[i].data);
        expect_at(file, malformed[i].st, malformed[i].says);
    }
    assert_true(sizeof malformed / sizeof malformed[0] >= 60);
}

static void a_wrong_header_length_is_refused(void **state)
{
    static const uint64_t lengths[] = {
        0,
        1,
        7,
        61,
        63,
        64,
        1000,
        99999999,
        100000000,
        100000001,
        1u << 31,
        UINT32_MAX,
        1ull << 32,
        1ull << 62,
        1ull << 63,
        UINT64_MAX,
        UINT64_MAX - 7,
    };
    const char *header = "{" T("a", "F32", "[]", "[0,4]") "}";

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        if (lengths[i] == strlen(header))
            continue;
        write_as(file, lengths[i], header, 4);
        expect_at(file, MB_EMODEL, "");
    }
}

static void long_names_are_refused(void **state)
{
    for (size_t n = 511; n <= 514; n++) {
        char name[600], header[800];
        memset(name, 'n', n);
        name[n] = '\0';
        snprintf(header, sizeof header,
                 "{\"%s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", name);
        write_file(header, 1);
        if (n <= MB_TENSOR_NAME_MAX)
            mb_tensor_file_close(opened(file));
        else
            expect_at(file, MB_EMODEL, "at most 512");
    }
}

static void a_file_cut_at_any_length_is_refused(void **state)
{
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"}," A "," T("b", "I64", "[2]", "[24,40]") "}   ";
    const off_t whole = (off_t)(8 + strlen(header) + 40);

    write_file(header, 40);
    mb_tensor_file_close(opened(file));
    for (off_t n = whole - 1; n >= 0; n--) {
        assert_int_equal(truncate(file, n), 0);
        expect_at(file, MB_EMODEL, "");
    }
}

static void valid_files_give_names_shapes_and_bytes(void **state)
{
    static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    /* data order differs from header order; an empty tensor, a scalar, five dimensions */
    const char *header = "{" T("z", "U8", "[2,1,2,1,1]", "[10,14]") "," T(
        "none", "F32", "[0,7]",
        "[2,2]") ",\"__metadata__\":{\"format\":\"pt\",\"who\":\"\\u00e9\"}," T("half", "BF16",
                                                                                "[]",
                                                                                "[0,2]") "," T("long.name/with.things",
                                                                                               "I64",
                                                                                               "[1]",
                                                                                               "[2,10]") "}     ";
    char bytes[512];
    const uint64_t n = strlen(header);
    uint8_t got[8];

    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    memcpy(bytes + 8 + n, data, sizeof data);
    assert_int_equal(mb_file_write_atomic(file, bytes, 8 + n + sizeof data), MB_OK);
    mb_tensor_file *f = opened(file);
    assert_int_equal(mb_tensor_file_count(f), 4);
    assert_string_equal(mb_tensor_file_info(f, 0)->name, "half");
    assert_int_equal(mb_tensor_file_info(f, 0)->ndim, 0);
    assert_int_equal(mb_tensor_file_info(f, 0)->dtype, MB_DTYPE_BF16);
    assert_string_equal(mb_tensor_file_info(f, 1)->name, "none");
    assert_int_equal(mb_tensor_file_info(f, 1)->bytes, 0);
    assert_int_equal(mb_tensor_file_find(f, "nope"), -1);
    assert_int_equal(mb_tensor_file_find(f, ""), -1);
    const int64_t z = mb_tensor_file_find(f, "z");
    const mb_tensor_info *t = mb_tensor_file_info(f, z);
    assert_int_equal(t->ndim, 5);
    assert_int_equal(t->dim[0], 2);
    assert_int_equal(t->dim[2], 2);
    assert_int_equal(t->bytes, 4);
    assert_int_equal(mb_tensor_file_read(f, z, got, 1, 3), MB_OK);
    assert_memory_equal(got, data + 11, 3);
    assert_int_equal(mb_tensor_file_read(f, z, got, 2, 3), MB_EBUG);
    mb_status_clear();
    const int64_t l = mb_tensor_file_find(f, "long.name/with.things");
    assert_int_equal(mb_tensor_file_read(f, l, got, 0, 8), MB_OK);
    assert_memory_equal(got, data + 2, 8);
    assert_string_equal(mb_tensor_file_metadata(f, "who"), "\xc3\xa9");
    assert_null(mb_tensor_file_metadata(f, "other"));
    assert_null(mb_tensor_file_gguf(f));

    /* cut while open: an error, not a signal */
    assert_int_equal(truncate(file, (off_t)(8 + n + 3)), 0);
    assert_int_equal(mb_tensor_file_read(f, z, got, 0, 4), MB_EIO);
    assert_non_null(strstr(mb_status_sentence(), "was cut short"));
    mb_status_clear();
    mb_tensor_file_close(f);

    write_file("{}", 0);
    f = opened(file);
    assert_int_equal(mb_tensor_file_count(f), 0);
    assert_int_equal(mb_tensor_file_find(f, "a"), -1);
    mb_tensor_file_close(f);
}

static void ten_thousand_tensors_are_found(void **state)
{
    enum { N = 10000 };
    char *header = malloc(N * 96), name[32];
    size_t n = 0;

    for (int i = 0; i < N; i++)
        n += (size_t)sprintf(header + n,
                             "%s\"layer.%d.w\":{\"dtype\":\"U8\",\"shape\":[1],"
                             "\"data_offsets\":[%d,%d]}",
                             i == 0 ? "{" : ",", i, i, i + 1);
    strcpy(header + n, "}");
    write_file(header, N);
    free(header);
    mb_tensor_file *f = opened(file);
    assert_int_equal(mb_tensor_file_count(f), N);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "layer.%d.w", i);
        assert_int_equal(mb_tensor_file_find(f, name), i); /* by offset */
    }
    mb_tensor_file_close(f);
}

static void what_a_folder_may_hold(void **state)
{
    const char *dir = in_root("dir");
    char path[MB_PATH_MAX], path_2[MB_PATH_MAX];

    assert_int_equal(mb_path_mkdirs(dir), MB_OK);
    expect_at(dir, MB_EMODEL, "has neither model.safetensors");
    assert_int_equal(mb_path_join(path, sizeof path, dir, "training_args.bin"), MB_OK);
    assert_int_equal(mb_file_write_atomic(path, "x", 1), MB_OK);
    expect_at(dir, MB_EMODEL, "has neither model.safetensors");
    assert_int_equal(mb_path_join(path, sizeof path, dir, "pytorch_model.bin"), MB_OK);
    assert_int_equal(mb_file_write_atomic(path, "PK\3\4", 4), MB_OK);
    expect_at(dir, MB_ENOTSUP, "save_pretrained(folder, safe_serialization=True)");
    expect_at(path, MB_ENOTSUP, "'pytorch_model.bin' holds pickled weights");
    /* a pickle by content under another name */
    assert_int_equal(mb_file_write_atomic(in_root("x.safetensors"), "PK\3\4....", 8), MB_OK);
    expect_at(in_root("x.safetensors"), MB_ENOTSUP, "pickled");
    assert_int_equal(mb_path_join(path, sizeof path, dir, "a.gguf"), MB_OK);
    assert_int_equal(mb_file_write_atomic(path, "GGUF", 4), MB_OK);
    assert_int_equal(mb_path_join(path_2, sizeof path_2, dir, "b.gguf"), MB_OK);
    assert_int_equal(mb_file_write_atomic(path_2, "GGUF", 4), MB_OK);
    expect_at(dir, MB_EMODEL, "several .gguf files ('a.gguf', 'b.gguf')");
    unlink(path_2);
    expect_at(path, MB_EMODEL, "not a complete GGUF file");
    assert_int_equal(mb_path_join(path, sizeof path, dir, "model.safetensors"), MB_OK);
    write_as(path, 2, "{}", 0);
    mb_tensor_file_close(opened(dir)); /* safetensors win */
    expect_at(in_root("missing"), MB_EMODEL, "cannot be opened");
    assert_int_equal(mkfifo(in_root("fifo.safetensors"), 0600), 0);
    expect_at(in_root("fifo.safetensors"), MB_EMODEL, "pipe or device");
}

static void an_index_is_checked_against_its_shards(void **state)
{
    static const struct {
        const char *index, *says;
    } rows[] = {
        {"{}", "weight_map is missing"},
        {"[]", "must be an object"},
        {"{\"weight_map\":[]}", "weight_map must be an object"},
        {"{\"weight_map\":{\"a\":1}}", "weight_map.a must be a string"},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "weight_map.a is not the name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "weight_map.a is not the name"},
        {"{\"weight_map\":{\"a\":\"sub/1.safetensors\"}}", "weight_map.a is not the name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "weight_map.a is not the name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "weight_map.a is not the name"},
        {"{\"weight_map\":{\"a\":\"1.bin\"}}", "weight_map.a is not the name"},
        {"{\"weight_map\":{\"a\":\"3.safetensors\"}}", "cannot be opened"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"1.safetensors\"}}",
         "weight_map.c says '1.safetensors', which does not hold this tensor"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}",
         "weight_map.b says '1.safetensors'"},
        {"{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}", "weight_map.a says"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"again.safetensors\"}}",
         "tensor 'a' is also in"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"g.safetensors\"}}",
         "not a complete GGUF"},
    };
    const char *dir = in_root("sharded");
    char path[MB_PATH_MAX];

    assert_int_equal(mb_path_mkdirs(dir), MB_OK);
    assert_int_equal(mb_path_join(path, sizeof path, dir, "1.safetensors"), MB_OK);
    write_as(path, strlen("{" A "}"), "{" A "}", 24);
    assert_int_equal(mb_path_join(path, sizeof path, dir, "again.safetensors"), MB_OK);
    write_as(path, strlen("{" A "}"), "{" A "}", 24);
    assert_int_equal(mb_path_join(path, sizeof path, dir, "g.safetensors"), MB_OK);
    assert_int_equal(mb_file_write_atomic(path, "GGUF", 4), MB_OK);
    assert_int_equal(mb_path_join(path, sizeof path, dir, "2.safetensors"), MB_OK);
    write_as(path, strlen("{" T("b", "U8", "[3]", "[0,3]") "}"),
             "{" T("b", "U8", "[3]", "[0,3]") "}", 3);
    assert_int_equal(mb_path_join(path, sizeof path, dir, "model.safetensors.index.json"), MB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mb_tensor_file *f = NULL;
        assert_int_equal(mb_file_write_atomic(path, rows[i].index, strlen(rows[i].index)), MB_OK);
        const mb_status st = mb_tensor_file_open(dir, &f);
        if (st != MB_EMODEL || strstr(mb_status_sentence(), rows[i].says) == NULL)
            fail_msg("row %zu: %s '%s'", i, mb_status_name(st), mb_status_sentence());
        mb_status_clear();
    }
    const char *good = "{\"metadata\":{\"total_size\":27},\"weight_map\":{\"b\":\"2.safetensors\","
                       "\"a\":\"1.safetensors\"}}";
    assert_int_equal(mb_file_write_atomic(path, good, strlen(good)), MB_OK);
    mb_tensor_file *f = opened(dir);
    assert_int_equal(mb_tensor_file_count(f), 2);
    assert_true(
        mb_path_has_suffix(mb_tensor_file_path(f, mb_tensor_file_find(f, "b")), "/2.safetensors"));
    mb_tensor_file_close(f);
}

/* Writes three tensors of 12, 40 and 0 bytes in pieces of `piece`. */
static void write_model(const char *dir, int64_t max_shard, int64_t piece)
{
    static const int64_t three[] = {3}, grid[] = {5, 2}, none[] = {4, 0};
    mb_safetensors_writer *w = NULL;
    uint8_t data[52];

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i + 1);
    assert_int_equal(mb_path_mkdirs(dir), MB_OK);
    assert_int_equal(mb_safetensors_writer_new(dir, "model", max_shard, &w), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "first", MB_DTYPE_F32, 1, three), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "second \"q\"", MB_DTYPE_F32, 2, grid), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "empty", MB_DTYPE_BF16, 2, none), MB_OK);
    for (int64_t at = 0; at < 52; at += piece)
        assert_int_equal(mb_safetensors_append(w, data + at, 52 - at < piece ? 52 - at : piece),
                         MB_OK);
    assert_int_equal(mb_safetensors_finish(w), MB_OK);
    mb_safetensors_writer_free(w);
}

static void check_model(const char *dir)
{
    uint8_t got[40];
    mb_tensor_file *f = opened(dir);

    assert_int_equal(mb_tensor_file_count(f), 3);
    const int64_t i = mb_tensor_file_find(f, "second \"q\"");
    assert_int_equal(mb_tensor_file_info(f, i)->dim[0], 5);
    assert_int_equal(mb_tensor_file_read(f, i, got, 0, 40), MB_OK);
    for (int k = 0; k < 40; k++)
        assert_int_equal(got[k], 13 + k);
    assert_int_equal(mb_tensor_file_info(f, mb_tensor_file_find(f, "empty"))->bytes, 0);
    assert_string_equal(mb_tensor_file_metadata(f, "format"), "pt");
    for (int64_t k = 0; k < 3; k++)
        assert_int_equal(mb_tensor_file_info(f, k)->offset % 4, 0);
    mb_tensor_file_close(f);
}

static void what_is_written_is_read_again(void **state)
{
    static const int64_t pieces[] = {1, 7, 12, 13, 52};
    char **names;
    size_t n;

    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        write_model(in_root("out"), 0, pieces[i]);
        check_model(in_root("out"));
        write_model(in_root("out_shards"), 40, pieces[i]);
        check_model(in_root("out_shards"));
    }
    assert_int_equal(mb_path_list(in_root("out"), &names, &n), MB_OK);
    assert_int_equal(n, 1);
    assert_string_equal(names[0], "model.safetensors");
    mb_path_list_free(names, n);
    assert_int_equal(mb_path_list(in_root("out_shards"), &names, &n), MB_OK);
    assert_int_equal(n, 3);
    assert_string_equal(names[0], "model-00001-of-00002.safetensors");
    assert_string_equal(names[1], "model-00002-of-00002.safetensors");
    assert_string_equal(names[2], "model.safetensors.index.json");
    mb_path_list_free(names, n);

    mb_json_doc *doc = NULL;
    int64_t total;
    assert_int_equal(
        mb_json_read(in_root("out_shards/model.safetensors.index.json"), MB_EMODEL, 1000, &doc),
        MB_OK);
    assert_int_equal(
        mb_json_get_int(mb_json_get(mb_json_root(doc), "metadata"), "total_size", 0, &total),
        MB_OK);
    assert_int_equal(total, 52);
    mb_json_free(doc);
}

static void a_new_form_takes_the_place_of_the_old(void **state)
{
    write_model(in_root("swap"), 0, 52);
    write_model(in_root("swap"), 40, 52);
    assert_false(mb_path_exists(in_root("swap/model.safetensors")));
    check_model(in_root("swap"));
    write_model(in_root("swap"), 0, 52);
    assert_false(mb_path_exists(in_root("swap/model.safetensors.index.json")));
    check_model(in_root("swap"));
}

static void an_unfinished_writer_leaves_the_old_files(void **state)
{
    static const int64_t dim[] = {3};
    mb_safetensors_writer *w = NULL;
    char **names;
    size_t n;

    write_model(in_root("keep"), 0, 52);
    assert_int_equal(mb_safetensors_writer_new(in_root("keep"), "model", 12, &w), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "x", MB_DTYPE_F32, 1, dim), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "y", MB_DTYPE_F32, 1, dim), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "q", MB_DTYPE_Q4_0, 1, dim), MB_ENOTSUP);
    mb_status_clear();
    assert_int_equal(mb_safetensors_append(w, "0123456789abcdef", 16), MB_OK);
    assert_int_equal(mb_safetensors_finish(w), MB_EBUG); /* eight bytes are missing */
    mb_status_clear();
    mb_safetensors_writer_free(w);
    assert_int_equal(mb_path_list(in_root("keep"), &names, &n), MB_OK);
    assert_int_equal(n, 1);
    mb_path_list_free(names, n);
    check_model(in_root("keep"));

    assert_int_equal(mb_safetensors_writer_new(in_root("keep"), "model", 0, &w), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "x", MB_DTYPE_F32, 1, dim), MB_OK);
    assert_int_equal(mb_safetensors_declare(w, "x", MB_DTYPE_F32, 1, dim), MB_OK);
    assert_int_equal(mb_safetensors_append(w, "0123456789ab", 12), MB_EBUG); /* twice the same */
    mb_status_clear();
    mb_safetensors_writer_free(w);
    check_model(in_root("keep"));
}

static void random_damage_never_crashes(void **state)
{
    static const char letters[] = "0123456789-.eE\"\\{}[],: tfnu\xff";
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"}," A
        "," T("b.c", "I64", "[2]", "[24,40]") "," T("h", "BF16", "[1,2,1]", "[40,44]") "}  ";
    const size_t n = 8 + strlen(header) + 44;
    uint64_t x = 20260101;
    int accepted = 0;
    char whole[512];

    write_file(header, 44);
    const int fd = open(file, O_RDWR);
    assert_int_equal(pread(fd, whole, sizeof whole, 0), (ssize_t)n);
    for (int i = 0; i < 20000; i++) {
        char copy[512], bytes[64];
        mb_tensor_file *f = NULL;
        memcpy(copy, whole, n);
        for (int k = 0; k <= i % 5; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            const size_t at = (x >> 33) % (i % 3 == 0 ? 16 : n);
            copy[at] =
                (x & 1024) != 0 ? letters[(x >> 20) % (sizeof letters - 1)] : (char)(x >> 25);
        }
        assert_int_equal(pwrite(fd, copy, n, 0), (ssize_t)n);
        if (mb_tensor_file_open(file, &f) == MB_OK) {
            accepted++;
            for (int64_t t = 0; t < mb_tensor_file_count(f); t++)
                assert_int_equal(
                    mb_tensor_file_read(f, t, bytes, 0, mb_tensor_file_info(f, t)->bytes), MB_OK);
        } else {
            assert_true(mb_status_sentence()[0] != '\0');
        }
        mb_tensor_file_close(f);
        mb_status_clear();
    }
    close(fd);
    assert_in_range(accepted, 1, 19999);
}

static int make_file(void **state)
{
    return make_root(state) != 0 || mb_path_join(file, sizeof file, root, "t.safetensors") != MB_OK;
}

static int remove_file(void **state)
{
    return remove_root(state) != 0 || mb_alloc_live() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_files_are_refused_with_a_sentence),
        cmocka_unit_test(a_wrong_header_length_is_refused),
        cmocka_unit_test(long_names_are_refused),
        cmocka_unit_test(a_file_cut_at_any_length_is_refused),
        cmocka_unit_test(valid_files_give_names_shapes_and_bytes),
        cmocka_unit_test(ten_thousand_tensors_are_found),
        cmocka_unit_test(what_a_folder_may_hold),
        cmocka_unit_test(an_index_is_checked_against_its_shards),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(a_new_form_takes_the_place_of_the_old),
        cmocka_unit_test(an_unfinished_writer_leaves_the_old_files),
        cmocka_unit_test(random_damage_never_crashes),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
