/* recipes/serve/routes_transcriptions.c - POST /v1/audio/transcriptions: a form with a sound file.
 *
 * file, model, language?, response_format? (json, text, srt, vtt, verbose_json), stream?. The file is kept
 * in memory, decoded by the worker, and written down piece by piece: a segment is a piece.
 */
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/alloc.h"
#include "recipes/generate/transcriber.h"
#include "recipes/media/audio.h"
#include "recipes/serve/api.h"
#include "recipes/serve/params.h"

enum { MOST_SECONDS = 3600, MOST_BYTES = 64 << 20 };

typedef enum format { JSON, TEXT, SRT, VTT, VERBOSE, FORMATS } format;
static const char *const formats[FORMATS] = {"json", "text", "srt", "vtt", "verbose_json"};

struct piece {
    char *text;
    mb_ids ids;
};

struct asked {
    mb_offer *o;
    bool has_file;
    int fd; /* the file, in memory */
    format format;
    bool stream;
    char language[16];
    mb_heard heard;
    struct piece *piece; /* (heard.n_pieces) */
    int64_t first, n;    /* pieces that are written down */
    mb_bytes text;
    int64_t tokens;
};

/* ---- the model ---------------------------------------------------------------------------- */

static void let_others(void *scheduler)
{
    mb_scheduler_let_others(scheduler);
}

static mb_status open_speech(mb_api *a, mb_offer *o)
{
    mb_transcriber *t = NULL;

    MB_TRY(mb_transcriber_open(o->recipe, mb_api_bases(a), &t));
    mb_transcriber_between(t, let_others, mb_api_scheduler(a));
    o->own = t;
    return MB_OK;
}

static void close_speech(mb_offer *o)
{
    mb_transcriber_close(o->own);
    o->own = NULL;
}

const mb_offer_ops mb_offer_speech = {open_speech, close_speech};

/* ---- the form ----------------------------------------------------------------------------- */

static mb_status text_of(const mb_form *form, const char *name, char *out, size_t size, mb_fault *f)
{
    const mb_form_field *v = mb_form_find(form, name);

    out[0] = '\0';
    if (v == NULL)
        return MB_OK;
    mb_fault_set(f, 400, NULL, name);
    MB_REQUIRE(v->n < size && memchr(v->value, '\0', v->n) == NULL, MB_EARG,
               "%s is not a word this server knows", name);
    snprintf(out, size, "%.*s", (int)v->n, v->value);
    mb_fault_set(f, 0, NULL, NULL);
    return MB_OK;
}

static mb_status keep_file(const mb_form_field *v, struct asked *k, mb_fault *f)
{
    mb_fault_set(f, 400, NULL, "file");
    MB_REQUIRE(v != NULL && v->n > 0, MB_EARG, "the form has no file `file`, or an empty one");
    k->fd = memfd_create("sound", MFD_CLOEXEC);
    k->has_file = k->fd >= 0;
    MB_REQUIRE(k->has_file, MB_ENOMEM, "no memory for a sound file");
    for (size_t at = 0; at < v->n;) {
        const ssize_t n = write(k->fd, v->value + at, v->n - at);

        MB_REQUIRE(n > 0, MB_ENOMEM, "no memory for a sound file of %zu bytes", v->n);
        at += (size_t)n;
    }
    mb_fault_set(f, 0, NULL, NULL);
    return MB_OK;
}

static mb_status find_format(const char *word, struct asked *k, mb_fault *f)
{
    mb_fault_set(f, 400, NULL, "response_format");
    for (int i = 0; i < FORMATS; i++)
        if (strcmp(word, formats[i]) == 0 || (i == 0 && *word == '\0')) {
            k->format = (format)i;
            mb_fault_set(f, 0, NULL, NULL);
            return MB_OK;
        }
    return MB_RAISE(MB_EARG,
                    "response_format \"%.40s\" is not known: json, text, srt, vtt, verbose_json",
                    word);
}

static mb_status read_form(mb_api *a, const mb_form *form, void *own, mb_fault *f)
{
    struct asked *k = own;
    char model[256], word[64];
    mb_params p;

    MB_TRY(text_of(form, "model", model, sizeof model, f));
    MB_TRY(mb_api_choose(a, model, MB_OFFER_SPEECH, &k->o, f));
    MB_TRY(text_of(form, "language", k->language, sizeof k->language, f));
    MB_TRY(text_of(form, "response_format", word, sizeof word, f));
    MB_TRY(find_format(word, k, f));
    mb_params_default(MB_PARAM_SOUND, &p);
    for (const mb_param *row = mb_param_table; row->name != NULL; row++) {
        if (!(row->routes & MB_PARAM_SOUND) || mb_form_find(form, row->name) == NULL)
            continue;
        MB_TRY(text_of(form, row->name, word, sizeof word, f));
        MB_TRY(mb_params_read_text(row->name, word, MB_PARAM_SOUND, &p, f));
    }
    k->stream = p.stream;
    return keep_file(mb_form_find(form, "file"), k, f);
}

/* ---- what is said ------------------------------------------------------------------------- */

static mb_status keep_piece(void *arg, int64_t piece, const char *text, const int32_t *id,
                            int64_t n)
{
    struct asked *k = arg;

    MB_TRY(mb_strdup(text, &k->piece[piece].text));
    MB_TRY(mb_ids_append(&k->piece[piece].ids, id, (size_t)n));
    k->tokens += n;
    if (*text != '\0' && k->text.n > 0)
        MB_TRY(mb_bytes_puts(&k->text, " "));
    return mb_bytes_puts(&k->text, text);
}

/* On the scheduler's thread. */
static mb_status some(void *arg)
{
    struct asked *k = arg;

    return mb_transcriber_write(k->o->own, &k->heard, k->first, k->n,
                                k->language[0] != '\0' ? k->language : NULL, keep_piece, k);
}

static double seconds(const struct asked *k, int64_t cut)
{
    return (double)k->heard.cut[cut] / MB_AUDIO_RATE;
}

/* 00:01:02.500, with what srt or vtt puts before the thousandths. */
static mb_status add_time(double t, char point, mb_bytes *out)
{
    const long long ms = (long long)(t * 1000.0 + 0.5);

    return mb_bytes_printf(out, "%02lld:%02lld:%02lld%c%03lld", ms / 3600000, ms / 60000 % 60,
                           ms / 1000 % 60, point, ms % 1000);
}

static mb_status write_subtitles(const struct asked *k, mb_bytes *out)
{
    const char point = k->format == SRT ? ',' : '.';

    if (k->format == VTT)
        MB_TRY(mb_bytes_puts(out, "WEBVTT\n\n"));
    for (int64_t i = 0; i < k->heard.n_pieces; i++) {
        if (k->format == SRT)
            MB_TRY(mb_bytes_printf(out, "%lld\n", (long long)i + 1));
        MB_TRY(add_time(seconds(k, i), point, out));
        MB_TRY(mb_bytes_puts(out, " --> "));
        MB_TRY(add_time(seconds(k, i + 1), point, out));
        MB_TRY(mb_bytes_puts(out, "\n"));
        MB_TRY(mb_bytes_puts(out, k->piece[i].text));
        MB_TRY(mb_bytes_puts(out, "\n\n"));
    }
    return MB_OK;
}

static mb_status write_segment(const struct asked *k, int64_t i, mb_bytes *out)
{
    MB_TRY(mb_bytes_printf(
        out, "%s{\"id\":%lld,\"seek\":%lld,\"start\":%.3f,\"end\":%.3f,\"text\":", i > 0 ? "," : "",
        (long long)i, (long long)(k->heard.cut[i] / 160), seconds(k, i), seconds(k, i + 1)));
    MB_TRY(mb_bytes_json(out, k->piece[i].text, strlen(k->piece[i].text)));
    MB_TRY(mb_bytes_puts(out, ",\"tokens\":["));
    for (size_t t = 0; t < k->piece[i].ids.n; t++)
        MB_TRY(mb_bytes_printf(out, "%s%d", t > 0 ? "," : "", (int)k->piece[i].ids.id[t]));
    return mb_bytes_puts(out, "],\"temperature\":0.0}");
}

static mb_status write_json(const struct asked *k, mb_bytes *out)
{
    MB_TRY(mb_bytes_puts(out, "{\"text\":"));
    MB_TRY(mb_bytes_json(out, k->text.p != NULL ? k->text.p : "", k->text.n));
    if (k->format == VERBOSE) {
        MB_TRY(mb_bytes_printf(out, ",\"task\":\"transcribe\",\"duration\":%.3f,\"language\":",
                               seconds(k, k->heard.n_pieces)));
        MB_TRY(mb_bytes_json(out, k->language, strlen(k->language)));
        MB_TRY(mb_bytes_puts(out, ",\"segments\":["));
        for (int64_t i = 0; i < k->heard.n_pieces; i++)
            MB_TRY(write_segment(k, i, out));
        MB_TRY(mb_bytes_puts(out, "]"));
    }
    return mb_bytes_printf(out, ",\"usage\":{\"type\":\"duration\",\"seconds\":%.0f}}",
                           ceil(seconds(k, k->heard.n_pieces)));
}

static mb_status write_answer(const struct asked *k, mb_bytes *out)
{
    if (k->format == SRT || k->format == VTT)
        return write_subtitles(k, out);
    if (k->format == TEXT) {
        MB_TRY(mb_bytes_add(out, k->text.p != NULL ? k->text.p : "", k->text.n));
        return mb_bytes_puts(out, "\n");
    }
    return write_json(k, out);
}

/* transcript.text.delta with what is new, or .done with all. */
static mb_status send_event(const struct asked *k, mb_http_reply *r, size_t from, bool done)
{
    mb_bytes out = {0};
    mb_status st = mb_bytes_printf(&out, "data: {\"type\":\"transcript.text.%s\",\"%s\":",
                                   done ? "done" : "delta", done ? "text" : "delta");

    if (st == MB_OK)
        st = mb_bytes_json(&out, k->text.p != NULL ? k->text.p + from : "", k->text.n - from);
    if (st == MB_OK)
        st = mb_bytes_puts(&out, "}\n\n");
    if (st == MB_OK)
        mb_http_reply_write(r, out.p, out.n);
    mb_bytes_release(&out);
    return st;
}

static mb_status hear(struct asked *k)
{
    char path[40];
    mb_status st;

    snprintf(path, sizeof path, "/proc/self/fd/%d", k->fd);
    st = mb_transcriber_listen(k->o->own, path, MOST_SECONDS, &k->heard);
    if (st != MB_OK) { /* the name is no business of the client's */
        const char *why = strstr(mb_status_sentence(), path);
        char sentence[400];

        snprintf(sentence, sizeof sentence, "the sound file%s",
                 why != NULL ? why + strlen(path) : " cannot be read");
        mb_status_clear();
        return MB_RAISE(st, "%s", sentence);
    }
    return MB_NEW_ARRAY(&k->piece, k->heard.n_pieces);
}

/* As many pieces as are fastest together; one while texts are written, which wait for the encoder. */
static int64_t at_a_time(mb_api *a)
{
    return mb_scheduler_read(mb_api_scheduler(a)).running > 0 ? 1 : MB_TRANSCRIBER_AT_A_TIME;
}

/* False: nobody waits any more. */
static bool write_down(mb_api *a, struct asked *k, mb_http_reply *r, mb_status *st)
{
    *st = hear(k);
    if (*st == MB_OK && k->stream)
        mb_http_reply_begin(r, 200, "text/event-stream");
    for (k->first = 0; k->first < k->heard.n_pieces && *st == MB_OK; k->first += k->n) {
        const size_t from = k->text.n;

        k->n = at_a_time(a);

        if (mb_http_reply_gone(r))
            return false;
        *st = mb_scheduler_call(mb_api_scheduler(a), some, k);
        if (*st == MB_OK && k->stream)
            *st = send_event(k, r, from, false);
    }
    return true;
}

static void run(mb_api *a, void *own, mb_http_reply *r)
{
    struct asked *k = own;
    mb_bytes out = {0};
    mb_status st;

    if (!write_down(a, k, r, &st)) {
        mb_http_reply_drop(r);
        return;
    }
    mb_api_count(a, "transcriptions", 0, k->tokens);
    if (k->stream && k->piece != NULL) {
        if (st == MB_OK)
            st = send_event(k, r, 0, true);
        if (st == MB_OK)
            mb_http_reply_end(r);
        else
            mb_http_reply_drop(r);
        return;
    }
    if (st == MB_OK)
        st = write_answer(k, &out);
    mb_api_reply(r, st,
                 k->format == JSON || k->format == VERBOSE ? "application/json"
                 : k->format == VTT                        ? "text/vtt; charset=utf-8"
                                                           : "text/plain; charset=utf-8",
                 &out);
}

static void release(void *own)
{
    struct asked *k = own;

    for (int64_t i = 0; k->piece != NULL && i < k->heard.n_pieces; i++) {
        mb_free(k->piece[i].text);
        mb_ids_release(&k->piece[i].ids);
    }
    mb_free(k->piece);
    mb_heard_release(&k->heard);
    mb_bytes_release(&k->text);
    if (k->has_file)
        close(k->fd);
}

static const mb_work work = {
    .bytes = sizeof(struct asked), .form = read_form, .run = run, .release = release};

static mb_status transcribe(void *arg, mb_http_request *q)
{
    return mb_api_work(arg, q, &work);
}

const mb_http_route mb_routes_transcriptions[] = {
    {"POST", "/v1/audio/transcriptions", transcribe, .body = MB_HTTP_WHOLE, .body_max = MOST_BYTES},
    {.method = NULL},
};
