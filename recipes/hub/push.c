/* recipes/hub/push.c - see recipes/hub/push.h: the repository, then groups of files. */
#include "recipes/hub/push.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/push_inside.h"

/* --- the repository and its branch */

/* Who asks for a private repository must not publish into one that is there already. What does not say
 * that it is private is not. */
static mb_status still_private(const mb_push_run *p, mb_json info)
{
    bool is_private;

    if (!p->o->is_private)
        return MB_OK;
    MB_REQUIRE(
        mb_json_is(mb_json_get(info, "private"), MB_JSON_BOOL), MB_EARG,
        "%s is there already and does not say that it is private, as --private wants: nothing "
        "was sent",
        p->o->to.id);
    MB_TRY(mb_json_get_bool(info, "private", false, &is_private));
    MB_REQUIRE(is_private, MB_EARG,
               "%s is there already and public: --private makes a new one private, and nothing was "
               "sent",
               p->o->to.id);
    return MB_OK;
}

/* The same of a repository without the branch, whose own answer says it. */
static mb_status whole_private(const mb_push_run *p)
{
    char url[MB_HUB_URL_MAX];
    const mb_fetch_request q = {.url = url, .what = p->o->to.id};
    mb_fetch_answer a = {0};
    mb_json_doc *doc = NULL;
    mb_status st;

    if (!p->o->is_private)
        return MB_OK;
    snprintf(url, sizeof url, "%s/api/%s/%s", p->hub->endpoint, mb_hub_kind(&p->o->to),
             p->o->to.id);
    MB_TRY_GOTO(mb_fetch(p->hub->fetcher, &q, &a), st, done);
    MB_TRY_GOTO(mb_json_parse(a.body != NULL ? a.body : "", a.n, p->o->to.id, 0, MB_EDATA, &doc),
                st, done);
    st = still_private(p, mb_json_root(doc));
done:
    mb_json_free(doc);
    mb_fetch_answer_release(&a);
    return st;
}

mb_status mb_push_look(mb_push_run *p, bool *there)
{
    char url[MB_HUB_URL_MAX], code[64] = "";
    const mb_fetch_request q = {.url = url, .what = p->o->to.id, .any_status = true};
    mb_fetch_answer a = {0};
    mb_json_doc *doc = NULL;
    const char *sha = "";
    mb_status st;

    snprintf(url, sizeof url, "%s/api/%s/%s/revision/%s", p->hub->endpoint, mb_hub_kind(&p->o->to),
             p->o->to.id, p->escaped);
    p->parent[0] = '\0';
    MB_TRY_GOTO(mb_fetch(p->hub->fetcher, &q, &a), st, done);
    mb_fetch_head(&a, "x-error-code", code, sizeof code);
    *there = a.status == 200 || strcmp(code, "RevisionNotFound") == 0;
    if (a.status == 200) {
        MB_TRY_GOTO(
            mb_json_parse(a.body != NULL ? a.body : "", a.n, p->o->to.id, 0, MB_EDATA, &doc), st,
            done);
        MB_TRY_GOTO(mb_json_get_string(mb_json_root(doc), "sha", "", &sha), st, done);
        if (mb_hub_commit_is(sha))
            memcpy(p->parent, sha, MB_PUSH_COMMIT);
        st = still_private(p, mb_json_root(doc));
    } else if (*there) {
        st = whole_private(p);
    } else if (a.status != 404 && strcmp(code, "RepoNotFound") != 0) {
        st = mb_fetch_judge(&q, &a);
    }
done:
    mb_json_free(doc);
    mb_fetch_answer_release(&a);
    return st;
}

static mb_status create(mb_push_run *p)
{
    const char *slash = strchr(p->o->to.id, '/');
    char url[MB_HUB_URL_MAX], owner[MB_HUB_ID_MAX];
    mb_json_doc *doc = NULL;
    mb_json body;
    mb_status st;

    snprintf(url, sizeof url, "%s/api/repos/create", p->hub->endpoint);
    snprintf(owner, sizeof owner, "%.*s", (int)(slash - p->o->to.id), p->o->to.id);
    MB_TRY(mb_json_doc_new("a repository", &doc));
    body = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(body, "name", slash + 1), st, done);
    MB_TRY_GOTO(mb_json_set_string(body, "organization", owner), st, done);
    if (p->o->to.is_dataset)
        MB_TRY_GOTO(mb_json_set_string(body, "type", "dataset"), st, done);
    if (p->o->is_private) {
        MB_TRY_GOTO(mb_json_set_bool(body, "private", true), st, done);
        MB_TRY_GOTO(mb_json_set_string(body, "visibility", "private"), st, done);
    }
    st = mb_push_post(p, url, "making the repository", body, false, NULL);
    if (st == MB_OK)
        mb_log_info("%s is made", p->o->to.id);
done:
    mb_json_free(doc);
    return st;
}

static mb_status branch(mb_push_run *p)
{
    char url[MB_HUB_URL_MAX];
    mb_json_doc *doc;
    mb_status st;

    snprintf(url, sizeof url, "%s/api/%s/%s/branch/%s", p->hub->endpoint, mb_hub_kind(&p->o->to),
             p->o->to.id, p->escaped);
    MB_TRY(mb_json_doc_new("a branch", &doc));
    st = mb_push_post(p, url, "making the branch", mb_json_root(doc), false, NULL);
    mb_json_free(doc);
    return st;
}

/* The repository and the branch are there, and p->parent is its commit. */
static mb_status prepare(mb_push_run *p, bool *there)
{
    MB_TRY(mb_push_look(p, there));
    if (p->o->dry_run)
        return MB_OK;
    if (!*there) {
        const mb_status st = create(p);
        bool now = false;
        /* somebody else made it meanwhile, or may write there though not create */
        if (st != MB_OK && (mb_push_look(p, &now) != MB_OK || !now))
            return st;
        mb_status_clear();
        MB_TRY(mb_push_look(p, there));
    }
    if (p->parent[0] == '\0' && strcmp(p->revision, "main") != 0) {
        MB_TRY(branch(p));
        MB_TRY(mb_push_look(p, there));
    }
    return MB_OK;
}

/* --- files */

static mb_status card(mb_push_run *p)
{
    char *text;

    for (size_t i = 0; i < p->files.n; i++)
        if (strcmp(p->files.at[i].name, "README.md") == 0)
            return MB_OK;
    if (p->o->to.is_dataset)
        return MB_OK;
    MB_TRY(mb_push_card(p->o, &text));
    mb_log_info("%s has no README.md: a model card is made from what is there", p->o->dir);
    return mb_push_list_add_text(&p->files, "README.md", text);
}

static mb_status group(mb_push_run *p, mb_push_file *files, size_t n, const char *message)
{
    mb_push_file *changed[MB_PUSH_GROUP];
    size_t m = 0;

    MB_TRY(mb_push_compare(p, files, n));
    for (size_t i = 0; i < n; i++) {
        p->same += files[i].same;
        if (!files[i].same && !files[i].ignored)
            changed[m++] = &files[i];
    }
    if (m == 0 || p->o->dry_run)
        return MB_OK;
    MB_TRY(mb_push_contents(p, changed, m));
    return mb_push_commit(p, changed, m, message);
}

static mb_status groups(mb_push_run *p)
{
    const size_t n = (p->files.n + MB_PUSH_GROUP - 1) / MB_PUSH_GROUP;
    char message[512];

    for (size_t i = 0; i < n; i++) {
        const size_t at = i * MB_PUSH_GROUP,
                     m = p->files.n - at < MB_PUSH_GROUP ? p->files.n - at : MB_PUSH_GROUP;
        const char *said = p->o->message != NULL ? p->o->message : "Upload with mbuyu";
        if (n == 1)
            snprintf(message, sizeof message, "%s", said);
        else
            snprintf(message, sizeof message, "%.450s (part %zu of %zu)", said, i + 1, n);
        MB_TRY(group(p, p->files.at + at, m, message));
    }
    return MB_OK;
}

/* --- what is said */

static void say_plan(const mb_push_run *p, bool there, FILE *out)
{
    char size[32];
    int64_t bytes = 0;
    int n = 0;

    for (size_t i = 0; i < p->files.n; i++) {
        const mb_push_file *f = &p->files.at[i];
        const char *what = !there       ? "new"
                           : f->same    ? "the hub has it"
                           : f->ignored ? "ignored by the repository"
                           : f->lfs     ? "large, sent unless the hub has its content"
                                        : "small, sent";
        fprintf(out, "%10s  %s  (%s)\n", mb_hub_size(f->size, size, sizeof size), f->name, what);
        if (!f->same && !f->ignored) {
            bytes += f->size;
            n++;
        }
    }
    fprintf(out, "%s of %s%s%s would get %d of %zu files, %s\n", p->revision,
            p->o->to.is_dataset ? "dataset:" : "", p->o->to.id, there ? "" : " (to be made)", n,
            p->files.n, mb_hub_size(bytes, size, sizeof size));
}

static void say_done(const mb_push_run *p, FILE *out)
{
    char size[32];

    if (p->commits == 0) {
        fprintf(out, "%s/%s%s: nothing to do, it has all %zu files\n", p->hub->endpoint,
                mb_hub_prefix(&p->o->to), p->o->to.id, p->files.n);
        return;
    }
    fprintf(out,
            "%s/%s%s: %d files in %d commit%s on %s, now %.12s; %s of large files sent, %d of them "
            "were there; %d files unchanged\n",
            p->hub->endpoint, mb_hub_prefix(&p->o->to), p->o->to.id, p->added, p->commits,
            p->commits == 1 ? "" : "s", p->revision, p->parent,
            mb_hub_size(p->sent_bytes, size, sizeof size), p->had, p->same);
}

mb_status mb_push(const mb_hub *hub, const mb_push_options *o, FILE *out)
{
    mb_push_run p = {
        .hub = hub, .o = o, .revision = o->to.revision[0] != '\0' ? o->to.revision : "main"};
    bool there = false;
    mb_status st;

    MB_TRY(mb_fetch_escape(p.revision, false, p.escaped, sizeof p.escaped));
    MB_TRY_GOTO(mb_push_list_read(o, &p.files), st, done);
    MB_TRY_GOTO(mb_push_secrets(o, &p.files), st, done);
    MB_TRY_GOTO(card(&p), st, done);
    MB_TRY_GOTO(prepare(&p, &there), st, done);
    if (there)
        MB_TRY_GOTO(groups(&p), st, done);
    if (o->dry_run) {
        say_plan(&p, there, out);
        goto done;
    }
    if (p.commits > 0 && p.parent[0] == '\0') /* a commit whose answer got lost */
        MB_TRY_GOTO(mb_push_look(&p, &there), st, done);
    say_done(&p, out);
done:
    mb_push_list_release(&p.files);
    return st;
}
