/* recipes/hub/push_secrets.c - files that nobody means to publish; see recipes/hub/push_inside.h. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/push_inside.h"

enum { LOOKED_AT = 1 << 20, NAMED = 5 };

static const char *const names[] = {
    ".env",          ".env.*",     ".netrc",
    "_netrc",        ".npmrc",     ".pypirc",
    "token",         "token.txt",  "*.pem",
    "*.key",         "*.p12",      "*.pfx",
    "*.kdbx",        "*.keystore", "id_rsa",
    "id_dsa",        "id_ecdsa",   "id_ed25519",
    "credentials",   ".htpasswd",  ".git-credentials",
    "stored_tokens", "secrets.*",  "*_token",
    "kubeconfig",    ".dockercfg",
};

/* A beginning, and how many letters, digits, '-' or '_' follow it in a real one. */
static const struct {
    const char *start;
    size_t least;
    const char *what;
} marks[] = {
    {"hf_", 30, "a Hugging Face token"},
    {"ghp_", 30, "a GitHub token"},
    {"github_pat_", 30, "a GitHub token"},
    {"glpat-", 20, "a GitLab token"},
    {"AKIA", 16, "an AWS key"},
    {"sk-proj-", 40, "an OpenAI key"},
    {"sk-ant-", 40, "an Anthropic key"},
    {"AIza", 35, "a Google key"},
    {"xoxb-", 30, "a Slack token"},
};

static size_t word(const char *at, const char *end)
{
    size_t n = 0;

    while (at + n < end && ((at[n] >= 'a' && at[n] <= 'z') || (at[n] >= 'A' && at[n] <= 'Z') ||
                            (at[n] >= '0' && at[n] <= '9') || at[n] == '-' || at[n] == '_'))
        n++;
    return n;
}

/* What a text holds; NULL: nothing known. A token stands at the beginning of a word and has digits. */
static const char *held(const char *text, size_t n)
{
    const char *end = text + n;

    if (memmem(text, n, "PRIVATE KEY-----", 16) != NULL)
        return "a private key";
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        const size_t m = strlen(marks[i].start);
        for (const char *at = text;
             (at = memmem(at, (size_t)(end - at), marks[i].start, m)) != NULL; at += m) {
            const size_t length = word(at + m, end);
            bool digit = false;
            for (size_t k = 0; k < length; k++)
                digit |= at[m + k] >= '0' && at[m + k] <= '9';
            if (length >= marks[i].least && length <= 256 && digit &&
                (at == text || word(at - 1, at) == 0))
                return marks[i].what;
        }
    }
    return NULL;
}

static const char *called(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (fnmatch(names[i], mb_path_base(name), FNM_CASEFOLD) == 0)
            return "the name of a file with keys or tokens";
    return NULL;
}

static bool is_allowed(const mb_push_options *o, const char *name)
{
    for (int i = 0; i < o->allow.n; i++)
        if (fnmatch(o->allow.at[i], name, 0) == 0)
            return true;
    return false;
}

static mb_status look(const mb_push_file *f, char *buffer, const char **what)
{
    *what = called(f->name);
    if (*what != NULL || f->size == 0 || f->size > LOOKED_AT)
        return MB_OK;
    MB_TRY(mb_push_file_read(f, 0, buffer, (size_t)f->size));
    *what = held(buffer, (size_t)f->size);
    return MB_OK;
}

mb_status mb_push_secrets(const mb_push_options *o, const mb_push_list *l)
{
    char list[1024] = "", *buffer;
    size_t used = 0;
    mb_status st = MB_OK;
    int found = 0;

    MB_TRY(mb_alloc(LOOKED_AT, "a file", (void **)&buffer));
    for (size_t i = 0; i < l->n && st == MB_OK; i++) {
        const mb_push_file *f = &l->at[i];
        const char *what = NULL;
        if (is_allowed(o, f->name))
            continue;
        st = look(f, buffer, &what);
        if (st == MB_OK && what != NULL && found++ < NAMED && used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%.150s (%s)",
                                     used > 0 ? ", " : "", f->name, what);
    }
    explicit_bzero(buffer, LOOKED_AT);
    mb_free(buffer);
    MB_TRY(st);
    MB_REQUIRE(found == 0, MB_EDATA,
               "nothing was sent: %d of the files look%s like a secret: %s%s. Leave them out with "
               "--exclude PATTERN, or send them all the same with --allow PATTERN",
               found, found == 1 ? "s" : "", list, found > NAMED ? ", and more" : "");
    return MB_OK;
}
