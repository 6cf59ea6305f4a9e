/* recipes/serve/child.c - see recipes/serve/child.h. */
#include "recipes/serve/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/tokenizers/bytes.h"

enum { LESS_URGENT = 5, WORDS_MAX = 256, SAID_MAX = 64 << 10 };

/* Field 22 of /proc/PID/stat; 0: there is no such process, or it has ended. */
static int64_t begun(pid_t pid)
{
    char path[64], text[2048], *p;
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    p = strrchr(text, ')'); /* the name before it may hold anything */
    if (p == NULL || p[1] == '\0' || p[2] == 'Z')
        return 0;
    for (int field = 2; field < 22 && p != NULL; field++)
        p = strchr(p + 1, ' ');
    return p != NULL ? strtoll(p, NULL, 10) : 0;
}

static mb_status actions(const char *log, const int pipes[2][2], posix_spawn_file_actions_t *a)
{
    int bad = posix_spawn_file_actions_addopen(a, 0, "/dev/null", O_RDONLY, 0);

    if (log != NULL) {
        bad |= posix_spawn_file_actions_addopen(a, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
        bad |= posix_spawn_file_actions_adddup2(a, 1, 2);
    } else {
        bad |= posix_spawn_file_actions_adddup2(a, pipes[0][1], 1);
        bad |= posix_spawn_file_actions_adddup2(a, pipes[1][1], 2);
    }
    bad |= posix_spawn_file_actions_addclosefrom_np(a, 3);
    MB_REQUIRE(bad == 0, MB_ENOMEM, "a child process cannot be described");
    return MB_OK;
}

static mb_status attributes(posix_spawnattr_t *a)
{
    sigset_t none, all;
    int bad = sigemptyset(&none);

    bad |= sigfillset(&all);
    bad |= posix_spawnattr_setsigmask(a, &none);
    bad |= posix_spawnattr_setsigdefault(a, &all);
    bad |= posix_spawnattr_setpgroup(a, 0);
    bad |= posix_spawnattr_setflags(a, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                           POSIX_SPAWN_SETPGROUP);
    MB_REQUIRE(bad == 0, MB_ENOMEM, "a child process cannot be described");
    return MB_OK;
}

/* What a child is told of our environment: what finds programs, places and hardware. Whoever makes one
 * print its environment finds no key there that we were started with. */
static const char *const told[] = {"PATH",
                                   "HOME",
                                   "TMPDIR",
                                   "USER",
                                   "LOGNAME",
                                   "TZ",
                                   "LANG",
                                   "LANGUAGE",
                                   "LC_*",
                                   "XDG_*",
                                   "TERM",
                                   "COLUMNS",
                                   "NO_COLOR",
                                   "SOURCE_DATE_EPOCH",
                                   "LD_LIBRARY_PATH",
                                   "LD_PRELOAD",
                                   "MALLOC_*",
                                   "MBUYU_*",
                                   "HF_HOME",
                                   "HF_HUB_CACHE",
                                   "HUGGINGFACE_HUB_CACHE",
                                   "HF_HUB_OFFLINE",
                                   "TRANSFORMERS_OFFLINE",
                                   "OMP_*",
                                   "GOMP_*",
                                   "OPENBLAS_*",
                                   "MKL_*",
                                   "ONEDNN_*",
                                   "DNNL_*",
                                   "CUDA_*",
                                   "NVIDIA_*",
                                   "NCCL_*",
                                   "OMPI_*",
                                   "PMIX_*",
                                   "PRTE_*",
                                   "UCX_*",
                                   "HWLOC_*",
                                   "SLURM_*",
                                   "ASAN_OPTIONS",
                                   "LSAN_OPTIONS",
                                   "UBSAN_OPTIONS",
                                   "TSAN_OPTIONS"};
static const char *const secret[] = {"KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "JWT"};

static bool is_told(const char *variable)
{
    const size_t n = strcspn(variable, "=");
    bool known = false;

    for (size_t i = 0; i < sizeof told / sizeof told[0] && !known; i++) {
        const size_t most = strcspn(told[i], "*");

        known = strncmp(variable, told[i], most) == 0 && (told[i][most] == '*' || most == n);
    }
    for (size_t i = 0; i < sizeof secret / sizeof secret[0] && known; i++) {
        const char *at = strstr(variable, secret[i]);

        known = at == NULL || at >= variable + n;
    }
    return known;
}

/* The caller frees the list alone. */
static mb_status environment(char ***out)
{
    size_t n = 0, kept = 0;

    while (environ[n] != NULL)
        n++;
    MB_TRY(MB_NEW_ARRAY(out, n + 1));
    for (size_t i = 0; i < n; i++)
        if (is_told(environ[i]))
            (*out)[kept++] = environ[i];
    return MB_OK;
}

static mb_status spawn(const char *const *words, const char *log, const int pipes[2][2],
                       mb_child *out)
{
    static const char program[] = "/proc/self/exe"; /* this one, also when its file was replaced */
    char name[] = "mbuyu", *argv[WORDS_MAX + 2], **env = NULL;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int n = 0, bad = 0;
    mb_status st;

    argv[n++] = name;
    for (; *words != NULL && n <= WORDS_MAX; words++)
        argv[n++] = (char *)(uintptr_t)*words;
    MB_REQUIRE(*words == NULL, MB_EARG, "more than %d words for a child process", WORDS_MAX);
    argv[n] = NULL;
    MB_REQUIRE(posix_spawn_file_actions_init(&files) == 0, MB_ENOMEM, "no memory for a process");
    if (posix_spawnattr_init(&attr) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return MB_RAISE(MB_ENOMEM, "no memory for a process");
    }
    MB_TRY_GOTO(actions(log, pipes, &files), st, done);
    MB_TRY_GOTO(attributes(&attr), st, done);
    MB_TRY_GOTO(environment(&env), st, done);
    bad = posix_spawn(&out->pid, program, &files, &attr, argv, env);
    if (bad != 0) {
        out->pid = 0;
        st = MB_RAISE(MB_EIO, "a child process cannot be started: %s", strerror(bad));
        goto done;
    }
    out->begun = begun(out->pid);
    setpriority(PRIO_PGRP, (id_t)out->pid, LESS_URGENT); /* a wish; nothing depends on it */
done:
    mb_free(env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return st;
}

mb_status mb_child_start(const char *const *words, const char *log, mb_child *out)
{
    const int none[2][2] = {{-1, -1}, {-1, -1}};

    *out = (mb_child){0};
    return spawn(words, log, none, out);
}

bool mb_child_runs(const mb_child *c, int *code)
{
    int status;
    pid_t got;

    *code = -1;
    if (c->pid <= 0)
        return false;
    got = waitpid(c->pid, &status, WNOHANG);
    if (got == 0)
        return true;
    if (got == c->pid) {
        *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        return false;
    }
    return c->begun != 0 && begun(c->pid) == c->begun; /* of a server before this one */
}

void mb_child_signal(const mb_child *c, int number, bool group)
{
    if (c->pid > 1 && c->begun != 0 && begun(c->pid) == c->begun)
        kill(group ? -c->pid : c->pid, number);
}

void mb_child_end(mb_child *c)
{
    if (c->pid > 1) {
        kill(-c->pid, SIGKILL);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    *c = (mb_child){0};
}

/* ---- asking ------------------------------------------------------------------------------- */

char *mb_child_sentence(char *text)
{
    char *found = NULL;

    for (char *p = text; (p = strstr(p, "mbuyu: ")) != NULL; p++)
        if (p == text || p[-1] == '\n')
            found = p + strlen("mbuyu: ");
    if (found != NULL)
        found[strcspn(found, "\n")] = '\0';
    return found;
}

struct asking {
    int fd[2]; /* what it prints; what it says besides */
    mb_bytes text[2];
    size_t most[2];
    double until;
    const atomic_bool *give_up;
};

/* One read of stream i. Past its bound the first is a failure, of the second the rest is dropped. */
static mb_status take(struct asking *a, int i)
{
    char some[16384];
    const ssize_t n = read(a->fd[i], some, sizeof some);

    if (n < 0 && errno == EINTR)
        return MB_OK;
    if (n <= 0) {
        close(a->fd[i]);
        a->fd[i] = -1;
        return MB_OK;
    }
    if (a->text[i].n + (size_t)n > a->most[i]) {
        MB_REQUIRE(i == 1, MB_EARG, "the answer is larger than %zu bytes", a->most[i]);
        return MB_OK;
    }
    return mb_bytes_add(&a->text[i], some, (size_t)n);
}

static mb_status listen_to(struct asking *a)
{
    while (a->fd[0] >= 0 || a->fd[1] >= 0) {
        struct pollfd p[2] = {{.fd = a->fd[0], .events = POLLIN},
                              {.fd = a->fd[1], .events = POLLIN}};
        const double left = a->until - mb_clock();

        MB_REQUIRE(left > 0, MB_EARG, "it took too long and was ended");
        MB_REQUIRE(!atomic_load(a->give_up), MB_EARG, "the server ends");
        if (poll(p, 2, 200) < 0 && errno != EINTR)
            return MB_RAISE(MB_EIO, "poll: %s", strerror(errno));
        for (int i = 0; i < 2; i++)
            if (a->fd[i] >= 0 && p[i].revents != 0)
                MB_TRY(take(a, i));
    }
    return MB_OK;
}

static mb_status judge(struct asking *a, int code, char **out, size_t *n)
{
    char *said;

    MB_TRY(mb_bytes_end(&a->text[0]));
    MB_TRY(mb_bytes_end(&a->text[1]));
    said = mb_child_sentence(a->text[1].p);
    MB_REQUIRE(code == 0, MB_EARG, "%s", said != NULL ? said : "it failed without saying why");
    *out = a->text[0].p;
    *n = a->text[0].n;
    a->text[0] = (mb_bytes){0};
    return MB_OK;
}

mb_status mb_child_ask(const char *const *words, int seconds, size_t most,
                       const atomic_bool *give_up, char **out, size_t *n)
{
    struct asking a = {.fd = {-1, -1}, .most = {most, SAID_MAX}, .give_up = give_up};
    int pipes[2][2] = {{-1, -1}, {-1, -1}}, status = 0, code;
    mb_child child = {0};
    mb_status st;

    a.until = mb_clock() + seconds;
    if (pipe2(pipes[0], O_CLOEXEC) != 0 || pipe2(pipes[1], O_CLOEXEC) != 0) {
        st = MB_RAISE(MB_EIO, "no pipe for a child process: %s", strerror(errno));
        goto done;
    }
    st = spawn(words, NULL, (const int(*)[2])pipes, &child);
    for (int i = 0; i < 2; i++) {
        a.fd[i] = pipes[i][0];
        close(pipes[i][1]);
        pipes[i][0] = pipes[i][1] = -1;
    }
    if (st == MB_OK)
        st = listen_to(&a);
    if (child.pid > 0) {
        if (st != MB_OK)
            kill(-child.pid, SIGKILL);
        while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    if (st == MB_OK)
        st = judge(&a, code, out, n);
done:
    for (int i = 0; i < 2; i++) {
        if (a.fd[i] >= 0)
            close(a.fd[i]);
        for (int k = 0; k < 2; k++)
            if (pipes[i][k] >= 0)
                close(pipes[i][k]);
        mb_bytes_release(&a.text[i]);
    }
    return st;
}
