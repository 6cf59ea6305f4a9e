/* tests/peers/peer_tokenize.c - what a tokenizer makes of texts, for tests/peers/token_ids.py.
 *
 *     peer_tokenize MODEL [--save DIR] [--facts] < lines.jsonl > lines.jsonl
 *
 * A line {"text": T, "pair": P?, "special": bool, "parse": bool, "truncate": bool} gives
 * {"ids": [...], "types": [...], "decoded": ..., "streamed": ...} or {"error": sentence}: the text
 * of the ids with nothing skipped, at once and piece by piece. Last on stderr: bytes per second.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/log.h"
#include "recipes/tokenizers/bytes.h"
#include "recipes/tokenizers/tokenizer.h"

struct row {
    const char *text, *pair;
    size_t n, n_pair;
    unsigned flags;
};

static mb_status read_row(mb_json root, struct row *r)
{
    static const struct {
        const char *key;
        unsigned flag;
    } flags[] = {{"special", MB_TOK_SPECIAL},
                 {"parse", MB_TOK_PARSE_SPECIAL},
                 {"truncate", MB_TOK_TRUNCATE}};

    *r = (struct row){0};
    MB_TRY(mb_json_string(mb_json_get(root, "text"), &r->text, &r->n));
    if (mb_json_is_set(mb_json_get(root, "pair")))
        MB_TRY(mb_json_string(mb_json_get(root, "pair"), &r->pair, &r->n_pair));
    for (size_t i = 0; i < 3; i++) {
        bool on;
        MB_TRY(mb_json_get_bool(root, flags[i].key, false, &on));
        r->flags |= on ? flags[i].flag : 0;
    }
    return MB_OK;
}

static mb_status stream(const mb_tokenizer *t, const mb_ids *ids, mb_bytes *out)
{
    mb_detokenizer *d = NULL;
    const char *piece;
    size_t n;
    mb_status st;

    MB_TRY(mb_detokenizer_new(t, false, &d));
    for (size_t i = 0; i < ids->n; i++) {
        MB_TRY_GOTO(mb_detokenizer_push(d, ids->id[i], &piece, &n), st, done);
        MB_TRY_GOTO(mb_bytes_add(out, piece, n), st, done);
    }
    MB_TRY_GOTO(mb_detokenizer_flush(d, &piece, &n), st, done);
    st = mb_bytes_add(out, piece, n);
done:
    mb_detokenizer_free(d);
    return st;
}

static mb_status put_ids(mb_bytes *out, const char *key, const mb_ids *ids)
{
    MB_TRY(mb_bytes_printf(out, "\"%s\":[", key));
    for (size_t i = 0; i < ids->n; i++)
        MB_TRY(mb_bytes_printf(out, "%s%d", i > 0 ? "," : "", (int)ids->id[i]));
    return mb_bytes_puts(out, "],");
}

static double seconds;
static size_t bytes;

static mb_status run_row(const mb_tokenizer *t, mb_json root, mb_bytes *out)
{
    mb_ids ids = {0}, types = {0};
    mb_bytes streamed = {0};
    char *decoded = NULL;
    size_t n;
    struct row r;
    mb_status st;

    MB_TRY(read_row(root, &r));
    const double start = mb_clock();
    MB_TRY_GOTO(mb_tokenizer_encode_pair(t, r.text, r.n, r.pair, r.n_pair, r.flags, &ids, &types),
                st, done);
    seconds += mb_clock() - start;
    bytes += r.n + r.n_pair;
    MB_TRY_GOTO(mb_tokenizer_decode(t, ids.id, ids.n, false, &decoded, &n), st, done);
    MB_TRY_GOTO(stream(t, &ids, &streamed), st, done);
    MB_TRY_GOTO(mb_bytes_puts(out, "{"), st, done);
    MB_TRY_GOTO(put_ids(out, "ids", &ids), st, done);
    MB_TRY_GOTO(put_ids(out, "types", &types), st, done);
    MB_TRY_GOTO(mb_bytes_puts(out, "\"decoded\":"), st, done);
    MB_TRY_GOTO(mb_bytes_json(out, decoded, n), st, done);
    MB_TRY_GOTO(mb_bytes_puts(out, ",\"streamed\":"), st, done);
    MB_TRY_GOTO(mb_bytes_json(out, streamed.p, streamed.n), st, done);
    st = mb_bytes_puts(out, "}\n");
done:
    mb_ids_release(&ids);
    mb_ids_release(&types);
    mb_bytes_release(&streamed);
    mb_free(decoded);
    return st;
}

static void run_line(const mb_tokenizer *t, const char *line, size_t n)
{
    mb_json_doc *doc = NULL;
    mb_bytes out = {0};

    mb_status st = mb_json_parse(line, n, "stdin", 0, MB_EDATA, &doc);
    if (st == MB_OK)
        st = run_row(t, mb_json_root(doc), &out);
    if (st != MB_OK) {
        out.n = 0;
        st = mb_bytes_puts(&out, "{\"error\":");
        if (st == MB_OK)
            st = mb_bytes_json(&out, mb_status_sentence(), strlen(mb_status_sentence()));
        if (st == MB_OK)
            st = mb_bytes_puts(&out, "}\n");
        mb_status_clear();
    }
    fwrite(out.p, 1, out.n, stdout);
    mb_json_free(doc);
    mb_bytes_release(&out);
}

static void print_facts(const mb_tokenizer *t)
{
    static const char *const names[] = {"bos", "eos", "pad", "unk", "sep", "cls", "mask"};

    printf("{\"kind\":\"%s\",\"vocab_size\":%d,\"adds_bos\":%d,\"adds_eos\":%d,"
           "\"max_length\":%lld,\"sha256\":\"%s\",\"chat_template\":%d",
           mb_tokenizer_kind(t), (int)mb_tokenizer_vocab_size(t), mb_tokenizer_adds_bos(t),
           mb_tokenizer_adds_eos(t), (long long)mb_tokenizer_max_length(t), mb_tokenizer_sha256(t),
           mb_tokenizer_chat_template(t) != NULL);
    for (int r = 0; r < MB_TOKEN_ROLES; r++)
        printf(",\"%s\":%d", names[r], (int)mb_tokenizer_role(t, (mb_token_role)r));
    printf("}\n");
}

int main(int argc, char **argv)
{
    mb_tokenizer *t = NULL;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    const double start = mb_clock();

    mb_status st = argc > 1 ? mb_tokenizer_load(argv[1], &t)
                            : MB_RAISE(MB_EARG, "peer_tokenize MODEL [--save DIR] [--facts]");
    fprintf(stderr, "loaded in %.3f s\n", mb_clock() - start);
    for (int i = 2; i < argc && st == MB_OK; i++) {
        if (strcmp(argv[i], "--facts") == 0)
            print_facts(t);
        else if (strcmp(argv[i], "--save") == 0 && i + 1 < argc)
            st = mb_tokenizer_save(t, argv[++i]);
    }
    if (st != MB_OK) {
        mb_log_error("%s", mb_status_sentence());
        mb_tokenizer_free(t);
        return mb_status_exit_code(st);
    }
    while ((n = getline(&line, &capacity, stdin)) > 0)
        run_line(t, line, (size_t)n);
    fprintf(stderr, "%zu bytes in %.3f s: %.2f MB/s\n", bytes, seconds,
            seconds > 0 ? (double)bytes / seconds / 1e6 : 0.0);
    free(line);
    mb_tokenizer_free(t);
    return 0;
}
