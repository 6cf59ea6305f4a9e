/* recipes/cmd/serve.c - `mbuyu serve`: models behind OpenAI's API.
 *
 *     mbuyu serve MODEL|RUN ... [NAME=MODEL ...] [--host ADDRESS] [--port N] [--key-file FILE]
 *                 [--name HOSTNAME ...] [--ctx N] [--slots N] [--queue N] [--cache TOKENS] [key=value ...]
 *                 [--runs DIR ...] [--data DIR ...] [--upload-max BYTES] [--uploads-max BYTES]
 *                 [--files-max N] [--jobs-max N]
 *
 * --runs: folders of runs; the page shows them, and new ones go into the first. --data: where models
 * and data may lie that runs are started with. --upload-max: bytes of a file (512 MiB), --uploads-max:
 * of all of them (16 GiB), --files-max: how many (1000), --jobs-max: ended jobs that are remembered (500).
 *
 * Prints the address on standard output once it listens; SIGINT or SIGTERM ends it. The key may also
 * be in MBUYU_API_KEY.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "core/sigstack.h"
#include "recipes/commands.h"
#include "recipes/serve/api.h"

enum { PORT = 8080, NAMES = 16, FOLDERS = 64, KEY_BYTES = 512 };

struct job {
    mb_api_options o;
    mb_http_options http;
    const char *key_file;
    const char *names[NAMES + 1];
    int n_names;
    const char *runs[FOLDERS + 1], *folders[FOLDERS + 1];
    int n_runs, n_folders;
    char **model, **word; /* borrowed from argv */
    int n_models, n_words;
    char key[KEY_BYTES];
};

static volatile sig_atomic_t stopped;
static pthread_t waiting; /* the thread that waits for signals */

/* The system may choose any thread: what it says wakes only the one that waits. */
static void on_stop(int number)
{
    stopped = number;
    if (!pthread_equal(pthread_self(), waiting))
        pthread_kill(waiting, number);
}

/* ---- arguments ---------------------------------------------------------------------------- */

static mb_status number(const char *name, const char *text, int64_t least, int64_t most,
                        int64_t *out)
{
    char *end;

    errno = 0;
    const long long v = strtoll(text, &end, 10);
    MB_REQUIRE(end != text && *end == '\0' && errno == 0 && v >= least && v <= most, MB_EARG,
               "%s wants a number from %lld to %lld, not \"%.40s\"", name, (long long)least,
               (long long)most, text);
    *out = v;
    return MB_OK;
}

/* NAME=PATH, where the path is there; else it is a key of recipes. */
static bool is_named_model(const char *word)
{
    const char *equals = strchr(word, '=');

    return equals != NULL && mb_path_exists(equals + 1) &&
           strncmp(word, "adapter_path=", 13) != 0 && strncmp(word, "model_name_or_path=", 19) != 0;
}

/* An option with its value; false: it is none. */
static mb_status option(struct job *j, const char *name, const char *value, bool *known)
{
    const struct {
        const char *name;
        int64_t least, most, *to;
    } numbers[] = {{"--ctx", 16, 1 << 20, &j->o.context},
                   {"--slots", 1, 256, &j->o.n_seq},
                   {"--queue", 1, 65536, &j->o.queue},
                   {"--cache", 64, (int64_t)1 << 32, &j->o.cache_tokens},
                   {"--upload-max", 1, (int64_t)1 << 40, &j->o.upload_max},
                   {"--uploads-max", 1, (int64_t)1 << 50, &j->o.uploads_max},
                   {"--files-max", 1, 1000000, &j->o.files_max},
                   {"--jobs-max", 1, 100000, &j->o.jobs_max}};
    const struct {
        const char *name, **to;
        int *n;
    } lists[] = {{"--runs", j->runs, &j->n_runs}, {"--data", j->folders, &j->n_folders}};
    int64_t port = 0;

    *known = true;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(name, numbers[i].name) == 0)
            return number(name, value, numbers[i].least, numbers[i].most, numbers[i].to);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        if (strcmp(name, lists[i].name) == 0) {
            MB_REQUIRE(*lists[i].n < FOLDERS, MB_EARG, "more than %d times %s", FOLDERS, name);
            lists[i].to[(*lists[i].n)++] = value;
            return MB_OK;
        }
    if (strcmp(name, "--host") == 0) {
        j->http.address = value;
    } else if (strcmp(name, "--port") == 0) {
        MB_TRY(number(name, value, 0, 65535, &port));
        j->http.port = (int)port;
    } else if (strcmp(name, "--key-file") == 0) {
        j->key_file = value;
    } else if (strcmp(name, "--name") == 0) {
        MB_REQUIRE(j->n_names < NAMES, MB_EARG, "more than %d times --name", NAMES);
        j->names[j->n_names++] = value;
    } else {
        *known = false;
    }
    return MB_OK;
}

static mb_status read_words(struct job *j, int argc, char **argv)
{
    bool known;

    MB_TRY(MB_NEW_ARRAY(&j->model, argc));
    MB_TRY(MB_NEW_ARRAY(&j->word, argc));
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            MB_TRY(option(j, argv[i], i + 1 < argc ? argv[i + 1] : "nothing", &known));
            MB_REQUIRE(!known || i + 1 < argc, MB_EARG, "%s wants a value", argv[i]);
            if (known) {
                i++;
                continue;
            }
        }
        if (argv[i][0] != '-' && argv[i][0] != '~' &&
            (strchr(argv[i], '=') == NULL || is_named_model(argv[i])))
            j->model[j->n_models++] = argv[i];
        else
            j->word[j->n_words++] = argv[i];
    }
    MB_REQUIRE(
        j->n_models + j->n_runs > 0, MB_EARG,
        "nothing to serve: mbuyu serve MODEL|RUN ... wants model folders, .gguf files or runs, or "
        "--runs DIR");
    return MB_OK;
}

static mb_status read_key(struct job *j)
{
    const char *given = getenv("MBUYU_API_KEY");
    size_t n;
    FILE *f;

    if (j->key_file == NULL) {
        if (given != NULL && *given != '\0')
            j->o.key = given;
        return MB_OK;
    }
    f = fopen(j->key_file, "re");
    MB_REQUIRE(f != NULL, MB_EARG, "--key-file %s cannot be read: %s", j->key_file,
               strerror(errno));
    n = fread(j->key, 1, sizeof j->key - 1, f);
    fclose(f);
    j->key[n] = '\0';
    j->key[strcspn(j->key, "\r\n")] = '\0';
    MB_REQUIRE(n < sizeof j->key - 1 && j->key[0] != '\0', MB_EARG,
               "--key-file %s: its first line must be the key, of at most %d bytes", j->key_file,
               KEY_BYTES - 2);
    j->o.key = j->key;
    return MB_OK;
}

/* ---- running ------------------------------------------------------------------------------ */

static void watch_signals(void)
{
    struct sigaction a = {.sa_handler = on_stop, .sa_flags = SA_ONSTACK};

    waiting = pthread_self();
    mb_signal_stack();
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

/* Until a signal comes; one that came while models were read counts, too. */
static void wait_for_signal(void)
{
    sigset_t these, before;

    sigemptyset(&these);
    sigaddset(&these, SIGINT);
    sigaddset(&these, SIGTERM);
    sigprocmask(SIG_BLOCK, &these, &before);
    while (!stopped)
        sigsuspend(&before);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static bool is_loopback(const char *host)
{
    return host == NULL || strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 ||
           strcmp(host, "::1") == 0;
}

static mb_status serve(struct job *j, mb_api *a)
{
    const char *host = j->http.address != NULL ? j->http.address : "127.0.0.1";
    const bool v6 = strchr(host, ':') != NULL;

    for (int i = 0; i < j->n_models && !stopped; i++)
        MB_TRY(mb_api_offer(a, j->model[i], j->n_words, j->word));
    if (stopped)
        return MB_OK;
    if (!is_loopback(j->http.address) && j->o.key == NULL)
        mb_log_warn("whoever reaches %s may use these models: --key-file FILE asks for a key",
                    host);
    MB_TRY(mb_api_start(a, &j->http));
    printf("http://%s%s%s:%d\n", v6 ? "[" : "", host, v6 ? "]" : "", mb_api_port(a));
    fflush(stdout);
    wait_for_signal();
    mb_log_info("stopping");
    return MB_OK;
}

/* Threads that wait for each other look for a while before they sleep; on a machine that does other
 * things, too, what they look for is then kept from running. The library that does it reads how long
 * when it is loaded, so the program starts again with a short while, unless the user has said. */
static void look_only_briefly(int argc, char **argv)
{
    char **word;

    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL ||
        setenv("GOMP_SPINCOUNT", "20000", 0) != 0 || MB_NEW_ARRAY(&word, argc + 2) != MB_OK)
        return;
    word[0] = argv[-1]; /* the program's name stands before the verb */
    memcpy(word + 1, argv, (size_t)argc * sizeof *word);
    execv("/proc/self/exe", word);
    mb_free(word); /* it goes on as it is */
}

mb_status mb_cmd_serve(int argc, char **argv)
{
    struct job j = {.http = {.port = PORT}};
    mb_api *a = NULL;
    mb_status st;

    look_only_briefly(argc, argv);
    j.http.hosts = j.names;
    watch_signals();
    MB_TRY_GOTO(read_words(&j, argc, argv), st, done);
    MB_TRY_GOTO(read_key(&j), st, done);
    j.o.runs = j.runs;
    j.o.folders = j.folders;
    j.o.n_words = j.n_words;
    j.o.word = j.word;
    MB_TRY_GOTO(mb_api_new(&j.o, &a), st, done);
    st = serve(&j, a);
done:
    mb_api_free(a);
    mb_free(j.model);
    mb_free(j.word);
    return st;
}
