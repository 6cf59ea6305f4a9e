/* recipes/hub/depot_page.c - pages for people: the list of what is here, and a page for each repository. No
 * script; everything that others wrote is escaped, and the policy forbids scripts all the same. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/hub/depot_inside.h"
#include "recipes/hub/html.h"
#include "recipes/hub/hub.h"

enum { SHOWN = 200, FILES_SHOWN = 500, README_SHOWN = 256 << 10 };

static const char css[] =
    ":root{color-scheme:light dark;--line:#8884;--soft:#8881;--link:#0b5cad}"
    "@media(prefers-color-scheme:dark){:root{--link:#7cb7f5}}"
    "*{box-sizing:border-box}"
    "body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem;"
    "overflow-wrap:anywhere}"
    "a{color:var(--link)}h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2rem}"
    "nav a{margin-right:1rem;display:inline-block;padding:.4rem 0}"
    "form{display:flex;gap:.5rem;margin:1rem 0}"
    "input,button{font:inherit;padding:.5rem;border:1px solid #767676;border-radius:.3rem;"
    "min-width:0}input{flex:1}"
    "ul.repos{list-style:none;padding:0}"
    "ul.repos li{border:1px solid var(--line);border-radius:.5rem;padding:.7rem 1rem;margin:.6rem 0}"
    "ul.repos a{font-weight:600}small,.tags{opacity:.85}"
    ".tags span{border:1px solid var(--line);border-radius:.3rem;padding:0 .4rem;"
    "margin-right:.3rem;font-size:.85rem;display:inline-block}"
    "pre{background:var(--soft);padding:.7rem;overflow-x:auto;border-radius:.3rem}"
    "code{font-size:.92em}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);"
    "padding:.35rem .5rem;text-align:left;vertical-align:top}td.n{text-align:right;"
    "white-space:nowrap}.wide{overflow-x:auto}"
    "article{border-top:1px solid var(--line);margin-top:2rem}";

MB_DEPOT_HANDLER(style)
{
    MB_TRY(mb_http_add(q, "Cache-Control", "max-age=3600"));
    return mb_http_answer(q, 200, "text/css; charset=utf-8", css, sizeof css - 1);
}

static mb_status answer(mb_http_request *q, int status, const mb_bytes *h)
{
    MB_TRY(mb_http_add(q, "Content-Security-Policy",
                       "default-src 'none'; style-src 'self'; form-action 'self'; "
                       "base-uri 'none'; frame-ancestors 'none'"));
    return mb_http_answer(q, status, "text/html; charset=utf-8", h->p, h->n);
}

static mb_status head(mb_bytes *h, const mb_depot *d, const char *title)
{
    MB_TRY(mb_bytes_puts(h,
                         "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                         "<link rel=\"stylesheet\" href=\"/-/style.css\"><title>"));
    MB_TRY(mb_html_text(h, title));
    MB_TRY(mb_bytes_puts(h, "</title></head><body><header><nav aria-label=\"kinds\"><a href=\"/\">"
                            "<strong>"));
    MB_TRY(mb_html_text(h, d->name));
    return mb_bytes_puts(h, "</strong></a><a href=\"/?kind=models\">Models</a>"
                            "<a href=\"/?kind=datasets\">Datasets</a>"
                            "<a href=\"/?kind=spaces\">Spaces</a></nav></header><main>\n");
}

static mb_status foot(mb_bytes *h)
{
    return mb_bytes_puts(h, "</main></body></html>\n");
}

static int64_t bytes_of(const mb_shelf_tree *t)
{
    int64_t bytes = 0;

    for (size_t i = 0; t != NULL && i < t->n; i++)
        bytes += t->files[i].size;
    return bytes;
}

/* "/datasets/org/name": letters that need no escaping. */
static mb_status path_of(const mb_shelf_brief *b, mb_bytes *h)
{
    return mb_bytes_printf(h, "/%s%s%s",
                           b->kind == MB_SHELF_MODEL ? "" : mb_shelf_kind_folder(b->kind),
                           b->kind == MB_SHELF_MODEL ? "" : "/", b->id);
}

static mb_status tags(mb_bytes *h, const mb_shelf_brief *b)
{
    mb_json_doc *doc = NULL;
    const char *text;
    int n = 0;
    mb_status st;

    MB_TRY_GOTO(mb_json_doc_new("tags", &doc), st, done);
    MB_TRY_GOTO(mb_depot_set_repo(mb_json_root(doc), b, b->main, false), st, done);
    MB_TRY_GOTO(mb_bytes_puts(h, "<div class=\"tags\">"), st, done);
    for (mb_json_it it = mb_json_first(mb_json_get(mb_json_root(doc), "tags"));
         mb_json_more(&it) && n < 12; mb_json_next(&it), n++) {
        MB_TRY_GOTO(mb_json_string(it.value, &text, NULL), st, done);
        MB_TRY_GOTO(mb_bytes_puts(h, "<span>"), st, done);
        MB_TRY_GOTO(mb_html_text(h, text), st, done);
        MB_TRY_GOTO(mb_bytes_puts(h, "</span>"), st, done);
    }
    st = mb_bytes_puts(h, "</div>");
done:
    mb_json_free(doc);
    return st;
}

static mb_status repo_item(mb_bytes *h, const mb_shelf_brief *b)
{
    char when[32], size[32];

    MB_TRY(mb_bytes_puts(h, "<li><a href=\""));
    MB_TRY(path_of(b, h));
    MB_TRY(mb_bytes_printf(h, "\">%s</a> <small>%zu files, %s, %.10s%s</small>", b->id,
                           b->main != NULL ? b->main->n : 0,
                           mb_hub_size(bytes_of(b->main), size, sizeof size),
                           mb_depot_time(b->modified, when), b->hidden ? ", private" : ""));
    MB_TRY(tags(h, b));
    return mb_bytes_puts(h, "</li>\n");
}

static mb_status kind_part(mb_depot *d, mb_http_request *q, mb_shelf_kind kind, mb_bytes *h)
{
    static const char *const titles[] = {"Models", "Datasets", "Spaces"};
    mb_shelf_brief *list = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_depot_list(d, q, kind, &list, &n));
    if (n == 0 && kind == MB_SHELF_SPACE)
        goto done;
    MB_TRY_GOTO(mb_bytes_printf(h, "<h2>%s (%zu)</h2>\n", titles[kind], n), st, done);
    MB_TRY_GOTO(mb_bytes_puts(h, n > 0 ? "<ul class=\"repos\">\n" : "<p>None.</p>\n"), st, done);
    for (size_t i = 0; i < n && i < SHOWN; i++)
        MB_TRY_GOTO(repo_item(h, &list[i]), st, done);
    if (n > 0)
        MB_TRY_GOTO(mb_bytes_puts(h, "</ul>\n"), st, done);
    if (n > SHOWN)
        st = mb_bytes_printf(h, "<p>The first %d are shown; search for the others.</p>\n", SHOWN);
done:
    mb_depot_list_free(list, n);
    return st;
}

/* What loads it in Python. */
static mb_status in_python(mb_bytes *h, const mb_shelf_brief *b)
{
    const bool adapter =
        b->main != NULL && mb_shelf_tree_find(b->main, "adapter_config.json") != NULL;
    const bool model = b->main != NULL && mb_shelf_tree_find(b->main, "config.json") != NULL;
    const char *call = b->kind == MB_SHELF_DATASET ? "load_dataset(&quot;"
                       : adapter                   ? "PeftModel.from_pretrained(base, &quot;"
                       : model                     ? "AutoModel.from_pretrained(&quot;"
                                                   : "snapshot_download(&quot;";

    return mb_bytes_printf(h, "<p>In Python, with HF_ENDPOINT set: <code>%s%s&quot;)</code></p>\n",
                           call, b->id);
}

static mb_status how_to(mb_bytes *h, const mb_http_request *q, const mb_shelf_brief *b)
{
    char line[600];
    const char *id = b != NULL ? b->id : "ORG/NAME";
    const bool data = b != NULL && b->kind == MB_SHELF_DATASET;

    MB_TRY(mb_bytes_puts(h, "<h2>Use it</h2>\n<pre><code>"));
    snprintf(line, sizeof line, "export HF_ENDPOINT=%s\n", mb_http_origin(q));
    MB_TRY(mb_html_text(h, line));
    snprintf(line, sizeof line, "mbuyu pull %s%s\n", data ? "dataset:" : "", id);
    MB_TRY(mb_html_text(h, line));
    snprintf(line, sizeof line, "hf download %s%s\n", id, data ? " --repo-type dataset" : "");
    MB_TRY(mb_html_text(h, line));
    MB_TRY(mb_bytes_puts(h, "</code></pre>\n"));
    return b != NULL ? in_python(h, b) : MB_OK;
}

MB_DEPOT_HANDLER(home)
{
    mb_depot *d = arg;
    const char *search = mb_http_query(q, "search"), *only = mb_http_query(q, "kind");
    mb_bytes h = {0};
    mb_status st;

    MB_TRY_GOTO(head(&h, d, d->name), st, done);
    MB_TRY_GOTO(mb_bytes_puts(&h,
                              "<h1>What is on this hub</h1>\n<form action=\"/\" role=\"search\">"
                              "<input name=\"search\" aria-label=\"search\" type=\"search\" "
                              "value=\""),
                st, done);
    MB_TRY_GOTO(mb_html_text(&h, search != NULL ? search : ""), st, done);
    MB_TRY_GOTO(mb_bytes_puts(&h, "\"><button>Search</button></form>\n"), st, done);
    for (int k = 0; k < MB_SHELF_KINDS; k++)
        if (only == NULL || strcmp(only, mb_shelf_kind_folder((mb_shelf_kind)k)) == 0)
            MB_TRY_GOTO(kind_part(d, q, (mb_shelf_kind)k, &h), st, done);
    MB_TRY_GOTO(how_to(&h, q, NULL), st, done);
    MB_TRY_GOTO(foot(&h), st, done);
    st = answer(q, 200, &h);
done:
    mb_bytes_release(&h);
    return st;
}

static mb_status file_row(mb_bytes *h, const mb_shelf_brief *b, const mb_shelf_file *f)
{
    char size[32], *quoted = NULL;
    mb_status st;

    MB_TRY(mb_bytes_puts(h, "<tr><td><a href=\""));
    MB_TRY(path_of(b, h));
    MB_TRY(mb_depot_quote(f->path, &quoted));
    st = mb_bytes_printf(h, "/resolve/main/%s\">", quoted);
    mb_free(quoted);
    MB_TRY(st);
    MB_TRY(mb_html_text(h, f->path));
    return mb_bytes_printf(h, "</a></td><td class=\"n\">%s</td></tr>\n",
                           mb_hub_size(f->size, size, sizeof size));
}

static mb_status files(mb_bytes *h, const mb_shelf_brief *b)
{
    char size[32];
    const mb_shelf_tree *t = b->main;

    MB_TRY(mb_bytes_printf(h,
                           "<h2>Files (%zu, %s)</h2>\n<table><tr><th>name</th><th>size</th></tr>\n",
                           t->n, mb_hub_size(bytes_of(t), size, sizeof size)));
    for (size_t i = 0; i < t->n && i < FILES_SHOWN; i++)
        MB_TRY(file_row(h, b, &t->files[i]));
    MB_TRY(mb_bytes_puts(h, "</table>\n"));
    return t->n > FILES_SHOWN ? mb_bytes_printf(h, "<p>... and %zu more.</p>\n", t->n - FILES_SHOWN)
                              : MB_OK;
}

static mb_status readme(mb_depot *d, mb_bytes *h, const mb_shelf_brief *b)
{
    char *text = NULL;
    size_t n;

    if (mb_shelf_tree_find(b->main, "README.md") == NULL)
        return MB_OK;
    if (mb_shelf_file_text(d->shelf, b->kind, b->id, b->main, "README.md", README_SHOWN, &text,
                           &n) != MB_OK) {
        mb_status_clear();
        return MB_OK;
    }
    mb_status st = mb_bytes_puts(h, "<article>\n");
    if (st == MB_OK)
        st = mb_html_markdown(h, text, n);
    if (st == MB_OK)
        st = mb_bytes_puts(h, "</article>\n");
    mb_free(text);
    return st;
}

static mb_status repo_page(mb_depot *d, mb_http_request *q, const mb_shelf_brief *b)
{
    char when[32];
    mb_bytes h = {0};
    mb_status st;

    MB_TRY_GOTO(head(&h, d, b->id), st, done);
    MB_TRY_GOTO(mb_bytes_printf(&h, "<h1>%s</h1>\n<p>%s%s%s</p>\n", b->id,
                                mb_shelf_kind_name(b->kind), b->hidden ? ", private" : "",
                                b->copy ? ", a copy of another hub's" : ""),
                st, done);
    MB_TRY_GOTO(tags(&h, b), st, done);
    if (b->main != NULL)
        MB_TRY_GOTO(mb_bytes_printf(&h, "<p>Commit <code>%.8s</code> of %.10s</p>\n",
                                    b->main->commit, mb_depot_time(b->main->date, when)),
                    st, done);
    MB_TRY_GOTO(how_to(&h, q, b), st, done);
    if (b->main != NULL) {
        MB_TRY_GOTO(files(&h, b), st, done);
        MB_TRY_GOTO(readme(d, &h, b), st, done);
    }
    MB_TRY_GOTO(foot(&h), st, done);
    st = answer(q, 200, &h);
done:
    mb_bytes_release(&h);
    return st;
}

mb_status mb_depot_page(mb_depot *d, mb_http_request *q, mb_shelf_kind kind, const char *id)
{
    mb_shelf_brief b;
    bool found;

    MB_TRY(mb_depot_repo(d, q, kind, id, &b, &found));
    if (!found)
        return MB_OK;
    const mb_status st = repo_page(d, q, &b);
    mb_shelf_brief_release(&b);
    return st;
}
