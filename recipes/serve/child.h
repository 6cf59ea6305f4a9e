/* recipes/serve/child.h - this program again, as a child process: what takes long or may fail is done
 * there and not in the server.
 *
 * A child has its own process group, /dev/null as standard input, no descriptor of ours but those
 * named, default signals, and of our environment what is on a list (child.c): no keys. It outlives
 * the server.
 */
#ifndef MB_RECIPES_SERVE_CHILD_H
#define MB_RECIPES_SERVE_CHILD_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/status.h"

typedef struct mb_child {
    pid_t pid;     /* 0: none */
    int64_t begun; /* when the system says it began: with pid the name of a process for good */
} mb_child;

/* Starts `mbuyu words...` (NULL-terminated, without the program's name); what it says is appended to
 * the file `log`. It is a little less urgent than the server. */
mb_status mb_child_start(const char *const *words, const char *log, mb_child *out) MB_MUST_USE;
/* Is it still there? Of one that this process started, *code is its exit code once it is not (128 and
 * more: ended by a signal); of others -1. */
bool mb_child_runs(const mb_child *c, int *code);
/* To the process itself, or to its whole group. */
void mb_child_signal(const mb_child *c, int number, bool group);
/* Kills one that this process started and has not yet seen the end of, with its group, and waits. */
void mb_child_end(mb_child *c);

/* Runs `mbuyu words...` to its end and returns what it prints, with a zero byte after it; the caller
 * frees *out. A child that fails gives its own sentence as MB_EARG; one that takes more than `seconds`
 * or prints more than `most` bytes is ended, and so it is when *give_up becomes true. Waits: not for
 * handlers. */
mb_status mb_child_ask(const char *const *words, int seconds, size_t most,
                       const atomic_bool *give_up, char **out, size_t *n) MB_MUST_USE;
/* The last line "mbuyu: ..." of a text, without that; NULL: there is none. Cuts `text`. */
char *mb_child_sentence(char *text);

#endif
