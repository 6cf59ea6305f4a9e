/* recipes/serve/page.c - the page's files (their content security policy is that of all answers, in
 * api.c), and what its stall of beginnings asks: models, data and
 * recipes to choose from, a look at what a run would do. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/alloc.h"
#include "recipes/serve/jobs_inside.h"
#include "recipes/serve/page_files.h"

enum { DEPTH = 4, CHOICES_MAX = 300, NAMES_MAX = 2000, LOOKS_MAX = 20000 };

/* ---- files -------------------------------------------------------------------------------- */

static const struct {
    const char *suffix, *type;
} types[] = {{".html", "text/html; charset=utf-8"},
             {".css", "text/css; charset=utf-8"},
             {".js", "text/javascript; charset=utf-8"},
             {".svg", "image/svg+xml"}};

static const char *type_of(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (mb_path_has_suffix(name, types[i].suffix))
            return types[i].type;
    return NULL; /* a recipe: not part of the page */
}

static mb_status file(void *arg, mb_http_request *q)
{
    const char *name = mb_http_part(q, "name"), *accepts = mb_http_head(q, "Accept-Encoding");
    const bool packed = accepts != NULL && strstr(accepts, "gzip") != NULL;

    (void)arg;
    if (name == NULL)
        name = "index.html";
    for (const mb_page_file *f = mb_page_files; f->name != NULL; f++) {
        if (strcmp(f->name, name) != 0 || type_of(name) == NULL)
            continue;
        MB_TRY(mb_http_add(q, "Cache-Control", "no-cache"));
        MB_TRY(mb_http_add(q, "Vary", "Accept-Encoding"));
        if (packed)
            MB_TRY(mb_http_add(q, "Content-Encoding", "gzip"));
        return mb_http_answer(q, 200, type_of(name), packed ? f->packed : f->plain,
                              packed ? f->n_packed : f->n_plain);
    }
    return mb_http_refuse(q, 404, "not_found", "there is no %.80s here", name);
}

static mb_status info(void *arg, mb_http_request *q)
{
    const mb_jobs *j = mb_jobs_of(arg);
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_json_doc_new("info", &doc));
    st = mb_json_set_string(mb_json_root(doc), "version", MB_VERSION);
    if (st == MB_OK)
        st = mb_json_set_bool(mb_json_root(doc), "can_train", j->state != NULL);
    if (st == MB_OK)
        st = mb_json_set_int(mb_json_root(doc), "upload_max", j->o.upload_max);
    return mb_jobs_answer(q, st, doc);
}

/* ---- choices ------------------------------------------------------------------------------ */

struct choices {
    mb_json models, data;
    const char *root; /* names are shown from here */
    int *looks;       /* that are left: a handler must not take long */
};

static mb_status add_choice(const struct choices *c, mb_json to, const char *path, int64_t bytes)
{
    const size_t n = strlen(c->root);
    mb_json choice;

    if (mb_json_count(to) >= CHOICES_MAX)
        return MB_OK;
    MB_TRY(mb_json_set_object(to, NULL, &choice));
    MB_TRY(mb_json_set_string(choice, "path", path));
    MB_TRY(mb_json_set_string(choice, "name", path[n] == '/' ? path + n + 1 : mb_path_base(path)));
    return bytes > 0 ? mb_json_set_int(choice, "bytes", bytes) : MB_OK;
}

static bool ends(const char *name, const char *const *suffix)
{
    for (; *suffix != NULL; suffix++)
        if (mb_path_has_suffix(name, *suffix))
            return true;
    return false;
}

static const char *const rows_suffix[] = {".jsonl",   ".jsonl.gz", ".jsonl.zst", ".csv", ".tsv",
                                          ".parquet", ".h5",       ".txt",       NULL};
static const char *const media_suffix[] = {".png", ".jpg", ".jpeg", ".wav", ".flac", NULL};

/* *media: there are pictures or sounds in the folder itself. */
static mb_status scan(const struct choices *c, const char *dir, int depth, bool *media);

static mb_status scan_name(const struct choices *c, const char *dir, const char *name, int depth,
                           bool *media, bool *below)
{
    char path[MB_PATH_MAX];
    struct stat s;
    bool inside = false;

    if (name[0] == '.' || --*c->looks < 0 ||
        snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path || lstat(path, &s) != 0)
        return MB_OK;
    if (S_ISDIR(s.st_mode) && depth > 0 && strncmp(name, "checkpoint-", 11) != 0 &&
        strcmp(name, "cache") != 0) {
        MB_TRY(scan(c, path, depth - 1, &inside));
        *below = *below || inside;
        return MB_OK;
    }
    if (!S_ISREG(s.st_mode))
        return MB_OK;
    if (mb_path_has_suffix(name, ".gguf"))
        return add_choice(c, c->models, path, s.st_size);
    if (ends(name, rows_suffix))
        return add_choice(c, c->data, path, s.st_size);
    *media = *media || ends(name, media_suffix);
    return MB_OK;
}

static mb_status scan(const struct choices *c, const char *dir, int depth, bool *media)
{
    char path[MB_PATH_MAX], **names;
    bool below = false;
    mb_status st = MB_OK;
    size_t n;

    *media = false;
    if (snprintf(path, sizeof path, "%s/config.json", dir) < (int)sizeof path &&
        mb_path_is_file(path))
        return add_choice(c, c->models, dir, 0);
    if (mb_path_list(dir, &names, &n) != MB_OK) {
        mb_status_clear(); /* not ours to read */
        return MB_OK;
    }
    for (size_t i = 0; i < n && i < NAMES_MAX && st == MB_OK; i++)
        st = scan_name(c, dir, names[i], depth, media, &below);
    mb_path_list_free(names, n);
    if (st == MB_OK && below && !*media) /* a folder of folders of pictures, one a class */
        st = add_choice(c, c->data, dir, 0);
    return st;
}

static mb_status scan_roots(struct choices *c, char *const *roots)
{
    bool media;

    for (; *roots != NULL; roots++) {
        c->root = *roots;
        MB_TRY(scan(c, *roots, DEPTH, &media));
    }
    return MB_OK;
}

static mb_status add_uploads(const mb_jobs *j, mb_json data)
{
    char dir[MB_PATH_MAX], **names;
    mb_status st = MB_OK;
    size_t n;

    if (j->state == NULL)
        return MB_OK;
    MB_TRY(mb_path_join(dir, sizeof dir, j->state, "files"));
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        mb_json_doc *doc = mb_jobs_file(j, names[i]);
        mb_json choice;

        if (doc == NULL)
            continue;
        st = mb_json_set_object(data, NULL, &choice);
        if (st == MB_OK)
            st = mb_json_set_string(choice, "path", names[i]);
        if (st == MB_OK)
            st = mb_json_set(choice, "name", mb_json_get(mb_json_root(doc), "filename"));
        if (st == MB_OK)
            st = mb_json_set(choice, "bytes", mb_json_get(mb_json_root(doc), "bytes"));
        mb_json_free(doc);
    }
    mb_path_list_free(names, n);
    return st;
}

/* The first comment of a recipe says what it does. */
static mb_status add_recipes(mb_json to)
{
    for (const mb_page_file *f = mb_page_files; f->name != NULL; f++) {
        char name[80], about[300];
        const char *from = f->plain + (strncmp(f->plain, "# ", 2) == 0 ? 2 : 0);
        mb_json r;

        if (!mb_path_has_suffix(f->name, ".yaml"))
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(strlen(f->name) - 5), f->name);
        snprintf(about, sizeof about, "%.*s", (int)strcspn(from, "\n"), from);
        MB_TRY(mb_json_set_object(to, NULL, &r));
        MB_TRY(mb_json_set_string(r, "name", name));
        MB_TRY(mb_json_set_string(r, "about", about));
        MB_TRY(mb_json_set_string(r, "text", f->plain));
    }
    return MB_OK;
}

static mb_status fill(const mb_jobs *j, mb_json root)
{
    int looks = LOOKS_MAX;
    struct choices c = {.looks = &looks};
    mb_json recipes;

    MB_TRY(mb_json_set_bool(root, "can_train", j->state != NULL));
    MB_TRY(mb_json_set_array(root, "models", &c.models));
    MB_TRY(mb_json_set_array(root, "data", &c.data));
    MB_TRY(mb_json_set_array(root, "recipes", &recipes));
    MB_TRY(add_uploads(j, c.data));
    MB_TRY(scan_roots(&c, j->folders));
    MB_TRY(scan_roots(&c, j->runs));
    return add_recipes(recipes);
}

static mb_status choices(void *arg, mb_http_request *q)
{
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_json_doc_new("choices", &doc));
    st = fill(mb_jobs_of(arg), mb_json_root(doc));
    return mb_jobs_answer(q, st, doc);
}

/* ---- looking ahead ------------------------------------------------------------------------ */

static mb_status look(void *arg, mb_http_request *q, const char *verb)
{
    mb_jobs *j = mb_jobs_of(arg);
    char recipe[MB_PATH_MAX], **argv = NULL;
    mb_json_doc *request, *words = NULL;
    mb_status st;

    MB_TRY(mb_jobs_can_train(j));
    MB_TRY(mb_jobs_body(q, &request));
    MB_TRY_GOTO(mb_json_doc_new_array("words", &words), st, done);
    MB_TRY_GOTO(
        mb_jobs_path(j, "recipes", mb_jobs_text(mb_json_root(request), "recipe"), ".yaml", recipe),
        st, done);
    pthread_mutex_lock(&j->lock); /* two requests write the same recipe */
    st = mb_jobs_words(j, mb_json_root(request), recipe, mb_json_root(words));
    pthread_mutex_unlock(&j->lock);
    if (st == MB_OK)
        st = mb_jobs_argv(verb, mb_json_root(words), "--json", &argv);
done:
    mb_json_free(request);
    mb_json_free(words);
    MB_TRY(st);
    return mb_jobs_ask(j, q, (mb_chore){.words = argv, .type = "application/json"});
}

static mb_status inspect(void *arg, mb_http_request *q)
{
    return look(arg, q, "inspect");
}

static mb_status plan(void *arg, mb_http_request *q)
{
    return look(arg, q, "plan");
}

const mb_http_route mb_routes_page[] = {
    {.method = "GET", .path = "/mbuyu/info", .handler = info},
    {.method = "GET", .path = "/mbuyu/choices", .handler = choices},
    {.method = "POST",
     .path = "/mbuyu/inspect",
     .handler = inspect,
     .body = MB_HTTP_WHOLE,
     .body_max = MB_JOBS_JSON},
    {.method = "POST",
     .path = "/mbuyu/plan",
     .handler = plan,
     .body = MB_HTTP_WHOLE,
     .body_max = MB_JOBS_JSON},
    {.method = "GET", .path = "/", .handler = file, .flags = MB_HTTP_OPEN},
    {.method = "GET", .path = "/{name}", .handler = file, .flags = MB_HTTP_OPEN},
    {0},
};
