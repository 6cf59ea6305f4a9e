/* recipes/cmd/hub.c - `mbuyu hub DIR`: models and datasets of a folder for a local network.
 *
 *     mbuyu hub DIR [--host ADDRESS] [--port N] [--read-write] [--token-file FILE] [--closed]
 *                   [--name NAME] [--also-called HOST[,...]] [--store DIR]
 *
 * The token that writes is read from the file's first line, or from MBUYU_HUB_TOKEN. The address and
 * what a neighbour types go to standard output. Ends at SIGINT or SIGTERM.
 */
#include "recipes/hub/hub.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/hub/depot.h"

enum { PORT = 5500, HOSTS_MAX = 16, TOKEN_MIN = 8, TOKEN_MAX = 512 };

struct wishes {
    mb_depot_options o;
    const char *token_file;
    char *also; /* owned; cut into hosts */
    const char *hosts[HOSTS_MAX + 1];
    char *token; /* owned */
};

static mb_status cut_hosts(struct wishes *w, const char *value)
{
    size_t n = 0;

    mb_free(w->also);
    w->also = NULL;
    MB_TRY(mb_strdup(value, &w->also));
    for (char *p = w->also; *p != '\0';) {
        MB_REQUIRE(n < HOSTS_MAX, MB_EARG, "--also-called names more than %d hosts", HOSTS_MAX);
        w->hosts[n++] = p;
        p += strcspn(p, ",");
        if (*p == ',')
            *p++ = '\0';
    }
    w->hosts[n] = NULL;
    w->o.hosts = w->hosts;
    return MB_OK;
}

static mb_status set_port(struct wishes *w, const char *value)
{
    char *end;
    const long port = strtol(value, &end, 10);

    MB_REQUIRE(end != value && *end == '\0' && port >= 0 && port <= 65535, MB_EARG,
               "--port is '%s', not a number from 0 to 65535", value);
    w->o.port = (int)port;
    return MB_OK;
}

static mb_status with_value(struct wishes *w, int argc, char **argv, int *i, bool *taken)
{
    const struct {
        const char *name;
        const char **to;
    } rows[] = {{"--host", &w->o.address},
                {"--token-file", &w->token_file},
                {"--name", &w->o.name},
                {"--store", &w->o.shelf.store}};
    char *value;

    *taken = true;
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        MB_TRY(mb_hub_value(argc, argv, i, rows[k].name, &value));
        if (value != NULL) {
            *rows[k].to = value;
            return MB_OK;
        }
    }
    MB_TRY(mb_hub_value(argc, argv, i, "--port", &value));
    if (value != NULL)
        return set_port(w, value);
    MB_TRY(mb_hub_value(argc, argv, i, "--also-called", &value));
    if (value != NULL)
        return cut_hosts(w, value);
    *taken = false;
    return MB_OK;
}

static mb_status parse(int argc, char **argv, struct wishes *w)
{
    bool taken;

    for (int i = 1; i < argc; i++) {
        MB_TRY(with_value(w, argc, argv, &i, &taken));
        if (taken)
            continue;
        if (strcmp(argv[i], "--read-write") == 0) {
            w->o.shelf.writable = true;
        } else if (strcmp(argv[i], "--closed") == 0) {
            w->o.closed = true;
        } else {
            MB_REQUIRE(argv[i][0] != '-', MB_EARG,
                       "hub has no option %s; `mbuyu help hub` shows those it has", argv[i]);
            MB_REQUIRE(w->o.shelf.dir == NULL, MB_EARG, "hub serves one folder, not '%s' and '%s'",
                       w->o.shelf.dir, argv[i]);
            w->o.shelf.dir = argv[i];
        }
    }
    MB_REQUIRE(
        w->o.shelf.dir != NULL, MB_EARG,
        "usage: mbuyu hub DIR [--host ADDRESS] [--port N] [--read-write] [--token-file FILE] "
        "[--closed] [--name NAME] [--also-called HOST[,...]] [--store DIR]");
    if (w->o.name != NULL)
        MB_REQUIRE(mb_shelf_is_id(w->o.name) && strchr(w->o.name, '/') == NULL, MB_EARG,
                   "--name is '%s'; it may have letters, digits, '-', '_' and '.'", w->o.name);
    return MB_OK;
}

static mb_status read_token(struct wishes *w)
{
    const char *said = getenv("MBUYU_HUB_TOKEN");
    size_t n;

    if (w->token_file != NULL)
        MB_TRY(mb_file_read_as(w->token_file, MB_EARG, 64 << 10, &w->token, &n));
    else if (said != NULL && said[0] != '\0')
        MB_TRY(mb_strdup(said, &w->token));
    if (w->token == NULL) {
        MB_REQUIRE(!w->o.shelf.writable && !w->o.closed, MB_EARG,
                   "%s wants a token: --token-file FILE, or MBUYU_HUB_TOKEN in the environment",
                   w->o.closed ? "--closed" : "--read-write");
        return MB_OK;
    }
    w->token[strcspn(w->token, "\r\n")] = '\0';
    n = strlen(w->token);
    MB_REQUIRE(n >= TOKEN_MIN && n <= TOKEN_MAX, MB_EARG,
               "the hub's token has %zu characters; it must have %d to %d", n, TOKEN_MIN,
               TOKEN_MAX);
    for (size_t i = 0; i < n; i++)
        MB_REQUIRE(w->token[i] > 32 && w->token[i] < 127, MB_EARG,
                   "the hub's token may have visible ASCII characters alone");
    w->o.token = w->token;
    return MB_OK;
}

static mb_status count(mb_shelf *s, mb_shelf_kind kind, size_t *n)
{
    mb_shelf_brief *list;

    MB_TRY(mb_shelf_list(s, kind, &list, n));
    for (size_t i = 0; i < *n; i++)
        mb_shelf_brief_release(&list[i]);
    mb_free(list);
    return MB_OK;
}

static bool is_any(const char *address)
{
    return address != NULL && (strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0);
}

static mb_status greet(const struct wishes *w, mb_depot *d)
{
    char machine[256] = "localhost", url[400];
    const char *host = w->o.address != NULL ? w->o.address : "127.0.0.1";
    size_t models, datasets;

    if (is_any(w->o.address) && gethostname(machine, sizeof machine - 1) == 0)
        host = machine;
    snprintf(url, sizeof url, strchr(host, ':') != NULL ? "http://[%s]:%d" : "http://%s:%d", host,
             mb_depot_port(d));
    MB_TRY(count(mb_depot_shelf(d), MB_SHELF_MODEL, &models));
    MB_TRY(count(mb_depot_shelf(d), MB_SHELF_DATASET, &datasets));
    printf("%s: %zu models, %zu datasets, %s\n", w->o.shelf.dir, models, datasets,
           w->o.shelf.writable ? "takes pushes with the token" : "read only");
    printf("hub at %s\n\n", url);
    printf("    export HF_ENDPOINT=%s\n    mbuyu pull ORG/NAME\n", url);
    fflush(stdout);
    return MB_OK;
}

static mb_status run(struct wishes *w)
{
    mb_depot *d = NULL;
    sigset_t wanted;
    int signal;
    mb_status st;

    /* before threads are made, so that they all leave these to us */
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &wanted, NULL);
    MB_TRY_GOTO(mb_depot_start(&w->o, &d), st, done);
    MB_TRY_GOTO(greet(w, d), st, done);
    while (sigwait(&wanted, &signal) != 0)
        continue;
    mb_log_info("stopping");
done:
    mb_depot_stop(d);
    pthread_sigmask(SIG_UNBLOCK, &wanted, NULL);
    return st;
}

mb_status mb_cmd_hub(int argc, char **argv)
{
    struct wishes w = {.o.port = PORT};
    mb_status st;

    st = parse(argc, argv, &w);
    if (st == MB_OK)
        st = read_token(&w);
    if (st == MB_OK)
        st = run(&w);
    mb_free(w.also);
    mb_free(w.token);
    return st;
}
