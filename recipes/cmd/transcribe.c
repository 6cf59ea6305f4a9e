/* recipes/cmd/transcribe.c - `mbuyu transcribe`: a speech model writes down what is said in files.
 *
 *     mbuyu transcribe MODEL SOUND... [language=CODE] [key=value ...] [--json]
 *
 * One line per file, or a JSON object:
 *
 *     {"audio": path, "seconds": 12.3, "text": ..., "pieces": [{"from": 0.0, "text": ...}, ...]}
 *
 * How long sounds are cut: recipes/generate/transcriber.h.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/commands.h"
#include "recipes/config/model_path.h"
#include "recipes/generate/open.h"
#include "recipes/generate/transcriber.h"
#include "recipes/media/audio.h"
#include "recipes/tokenizers/bytes.h"

enum { MOST_SECONDS = 4 * 3600 };

struct job {
    char **file; /* borrowed */
    int n_files;
    bool json;
    mb_transcriber *t;
    /* of the file at hand */
    mb_heard heard;
    mb_json_doc *doc;
    mb_json pieces;
    mb_bytes text;
};

/* Takes the files and options out of argv: the first argument is a model or a recipe. */
static int take_files(struct job *j, int argc, char **argv)
{
    int n = 0, plain = 0;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            j->json = true;
        else if (i > 0 && argv[i][0] != '-' && argv[i][0] != '~' && strchr(argv[i], '=') == NULL &&
                 plain++ > 0)
            j->file[j->n_files++] = argv[i];
        else
            argv[n++] = argv[i];
    }
    return n;
}

static mb_status add_piece(void *arg, int64_t piece, const char *text, const int32_t *id, int64_t n)
{
    struct job *j = arg;
    mb_json o;

    if (*text != '\0' && j->text.n > 0)
        MB_TRY(mb_bytes_add(&j->text, " ", 1));
    MB_TRY(mb_bytes_puts(&j->text, text));
    MB_TRY(mb_json_set_object(j->pieces, NULL, &o));
    MB_TRY(mb_json_set_real(o, "from", (double)j->heard.cut[piece] / MB_AUDIO_RATE));
    return mb_json_set_string(o, "text", text);
}

static mb_status print(struct job *j)
{
    const mb_json root = mb_json_root(j->doc);
    char *line = NULL;

    MB_TRY(mb_bytes_end(&j->text));
    if (!j->json) {
        mb_writer_print(j->text.p, j->text.n);
        mb_writer_print("\n", 1);
        return MB_OK;
    }
    MB_TRY(mb_json_set_string(root, "text", j->text.p));
    MB_TRY(mb_json_text(root, 0, &line, NULL));
    mb_writer_print(line, strlen(line));
    mb_writer_print("\n", 1);
    mb_free(line);
    return MB_OK;
}

static mb_status begin_file(struct job *j, const char *path)
{
    mb_json root;

    mb_heard_release(&j->heard);
    mb_json_free(j->doc);
    j->doc = NULL;
    j->text.n = 0;
    MB_TRY(mb_transcriber_listen(j->t, path, MOST_SECONDS, &j->heard));
    MB_TRY(mb_json_doc_new("a transcript", &j->doc));
    root = mb_json_root(j->doc);
    MB_TRY(mb_json_set_string(root, "audio", path));
    MB_TRY(mb_json_set_real(root, "seconds", (double)j->heard.n / MB_AUDIO_RATE));
    MB_TRY(mb_json_set_string(root, "text", ""));
    return mb_json_set_array(root, "pieces", &j->pieces);
}

static mb_status write_down(struct job *j, const char *path)
{
    MB_TRY(begin_file(j, path));
    for (int64_t i = 0; i < j->heard.n_pieces; i += MB_TRANSCRIBER_AT_A_TIME)
        MB_TRY(
            mb_transcriber_write(j->t, &j->heard, i, MB_TRANSCRIBER_AT_A_TIME, NULL, add_piece, j));
    return print(j);
}

static mb_status transcribe(struct job *j, mb_recipe *r)
{
    MB_REQUIRE(j->n_files > 0, MB_EARG,
               "nothing to listen to: mbuyu transcribe MODEL SOUND... wants sound files");
    MB_TRY(mb_recipe_follow_adapter(r));
    MB_TRY(mb_recipe_check_model(r));
    MB_TRY(mb_transcriber_open(r, NULL, &j->t));
    for (int i = 0; i < j->n_files; i++)
        MB_TRY(write_down(j, j->file[i]));
    return MB_OK;
}

static void release(struct job *j)
{
    mb_transcriber_close(j->t);
    mb_heard_release(&j->heard);
    mb_json_free(j->doc);
    mb_bytes_release(&j->text);
    mb_free(j->file);
}

mb_status mb_cmd_transcribe(int argc, char **argv)
{
    struct job j = {0};
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&j.file, argc));
    argc = take_files(&j, argc, argv);
    MB_TRY_GOTO(mb_recipe_load(argc, argv, &r), st, done);
    MB_TRY_GOTO(mb_recipe_require(r, "transcribe", "model_name_or_path", NULL), st, done);
    st = transcribe(&j, r);
done:
    release(&j);
    mb_recipe_free(r);
    return st;
}
