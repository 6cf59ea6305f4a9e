/* core/status.c - the per-thread failure record behind core/status.h. */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SENTENCE_MAX = 2048, PATH_MAX_BYTES = 2048 };

static _Thread_local struct {
    mb_status st;
    char sentence[SENTENCE_MAX];
    char path[PATH_MAX_BYTES];
} record;

static void (*bug_hook)(int exit_code);

static const struct {
    const char *name;
    int exit_code;
    const char *meaning;
} codes[] = {
#define X(code, exit_code, meaning) {#code, exit_code, meaning},
    MB_STATUS_LIST(X)
#undef X
};

const char *mb_status_name(mb_status st)
{
    return (unsigned)st < MB_STATUS_COUNT ? codes[st].name + 3 : "?";
}

int mb_status_exit_code(mb_status st)
{
    return (unsigned)st < MB_STATUS_COUNT ? codes[st].exit_code : 70;
}

const char *mb_status_meaning(mb_status st)
{
    return (unsigned)st < MB_STATUS_COUNT ? codes[st].meaning : "?";
}

static void add_path(const char *fmt, const char *file, int line, const char *call)
{
    const size_t used = strlen(record.path);

    if (used + 1 < sizeof record.path)
        snprintf(record.path + used, sizeof record.path - used, fmt, file, line, call);
}

mb_status mb_raise(mb_status st, const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    if (record.st != MB_OK)
        return st;
    record.st = st;
    record.path[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(record.sentence, sizeof record.sentence, fmt, ap);
    va_end(ap);
    add_path("  raised at %s:%d%s\n", file, line, "");
    return st;
}

mb_status mb_trace(mb_status st, const char *file, int line, const char *call)
{
    add_path("  through %s:%d  %.120s\n", file, line, call);
    return st;
}

mb_status mb_status_prefix(mb_status st, const char *fmt, ...)
{
    char head[SENTENCE_MAX], tail[SENTENCE_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(tail, record.sentence, sizeof tail);
    const size_t n = strlen(head);
    memcpy(record.sentence, head, n);
    snprintf(record.sentence + n, sizeof record.sentence - n, "%s", tail);
    return st;
}

const char *mb_status_sentence(void)
{
    return record.sentence;
}

const char *mb_status_path(void)
{
    return record.path;
}

mb_status mb_status_recorded(void)
{
    return record.st;
}

void mb_status_clear(void)
{
    record.st = MB_OK;
    record.sentence[0] = record.path[0] = '\0';
}

void mb_status_set(mb_status st, const char *sentence)
{
    record.st = st;
    record.path[0] = '\0';
    snprintf(record.sentence, sizeof record.sentence, "%s", sentence);
}

void mb_bug_hook_set(void (*hook)(int exit_code))
{
    bug_hook = hook;
}

void mb_bug(const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "mbuyu: a defect in mbuyu, please report it: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, " (%s:%d)\n", file, line);
    fflush(stderr);
    if (bug_hook != NULL)
        bug_hook(70);
    abort();
}
