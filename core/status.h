/* core/status.h - how anything that can fail says so.
 *
 * A function that can fail returns mb_status. On failure it has recorded one sentence for people
 * (MB_RAISE) and every MB_TRY it passed through adds one line of path for developers:
 *
 *     MB_REQUIRE(n == w->dim[0], MB_ESHAPE, "rmsnorm: weight has %lld entries, the input's last "
 *                "axis %lld", (long long)w->dim[0], (long long)n);
 *     MB_TRY(mb_arena_take(a, bytes, 64, &p));
 *     MB_TRY_GOTO(write_tensor(f, t), st, done);
 *
 * The record is per thread and belongs to the first failure: cleanup code never overwrites it.
 * mb_status_clear() forgets it, for callers that handle a failure and go on.
 */
#ifndef MB_CORE_STATUS_H
#define MB_CORE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

/* code, process exit code, meaning. Callers branch on codes; people read sentences. */
#define MB_STATUS_LIST(X)                                                             \
    X(MB_OK, 0, "done")                                                               \
    X(MB_EARG, 2, "a wrong argument, recipe or usage")                                \
    X(MB_EDATA, 3, "bad data: datasets, rows, tokenizer input")                       \
    X(MB_EMODEL, 4, "bad model, tokenizer or file format")                            \
    X(MB_ESHAPE, 4, "shapes that do not fit together")                                \
    X(MB_ENOTSUP, 4, "something valid that mbuyu does not do")                        \
    X(MB_ENOMEM, 5, "not enough memory")                                              \
    X(MB_EPEER, 6, "another rank was lost or failed")                                 \
    X(MB_EIO, 7, "output, disk or lock")                                              \
    X(MB_ENUM, 8, "numerics: non-finite values, a failed check")                      \
    X(MB_ENET, 69, "network: no answer, a broken one, a host that fails")             \
    X(MB_EBUG, 70, "a defect in mbuyu")                                               \
    X(MB_EREQUEUE, 75,                                                                \
      "stopped and saved; the same command with resume_from_checkpoint=auto goes on") \
    X(MB_EDENIED, 77, "refused: a token, key or right is missing or wrong")

typedef enum mb_status {
#define X(code, exit_code, meaning) code,
    MB_STATUS_LIST(X)
#undef X
        MB_STATUS_COUNT
} mb_status;

#define MB_MUST_USE                __attribute__((warn_unused_result))
#define MB_NO_RETURN               __attribute__((noreturn))
#define MB_PRINTF(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))

/* "MB_ESHAPE" without the prefix, e.g. "ESHAPE"; the documented exit code; its meaning. */
const char *mb_status_name(mb_status st);
int mb_status_exit_code(mb_status st);
const char *mb_status_meaning(mb_status st);

/* Records a sentence unless one is already recorded; returns `st`. Use MB_RAISE. */
mb_status mb_raise(mb_status st, const char *file, int line, const char *fmt, ...) MB_PRINTF(4, 5);
/* Adds a line of path to the record; returns `st`. Use MB_TRY. */
mb_status mb_trace(mb_status st, const char *file, int line, const char *call);
/* Puts `fmt` in front of the recorded sentence ("recipe.yaml:3: ..."); returns `st`. */
mb_status mb_status_prefix(mb_status st, const char *fmt, ...) MB_PRINTF(2, 3);

const char *mb_status_sentence(void); /* "" when nothing is recorded */
const char *mb_status_path(void);     /* "  raised at ...\n  through ...\n" */
mb_status mb_status_recorded(void);   /* the code of the record, MB_OK when none */
void mb_status_clear(void);
/* Replaces the record by one that came from elsewhere (another rank or thread). */
void mb_status_set(mb_status st, const char *sentence);

#define MB_RAISE(st, ...) mb_raise((st), __FILE__, __LINE__, __VA_ARGS__)

#define MB_TRY(call)                                            \
    do {                                                        \
        mb_status mb_st_ = (call);                              \
        if (mb_st_ != MB_OK)                                    \
            return mb_trace(mb_st_, __FILE__, __LINE__, #call); \
    } while (0)

#define MB_TRY_GOTO(call, st, label)                   \
    do {                                               \
        (st) = (call);                                 \
        if ((st) != MB_OK) {                           \
            mb_trace((st), __FILE__, __LINE__, #call); \
            goto label;                                \
        }                                              \
    } while (0)

#define MB_REQUIRE(cond, code, ...)               \
    do {                                          \
        if (!(cond))                              \
            return MB_RAISE((code), __VA_ARGS__); \
    } while (0)

/* A broken contract inside mbuyu: prints and ends the process (all ranks, through the hook). */
void mb_bug(const char *file, int line, const char *fmt, ...) MB_NO_RETURN MB_PRINTF(3, 4);
#define MB_BUG(...) mb_bug(__FILE__, __LINE__, __VA_ARGS__)
#define MB_ASSERT(cond)                    \
    do {                                   \
        if (!(cond))                       \
            MB_BUG("not true: %s", #cond); \
    } while (0)
/* Called by mb_bug before it ends the process; dist sets it to abort every rank. */
void mb_bug_hook_set(void (*hook)(int exit_code));

#endif
