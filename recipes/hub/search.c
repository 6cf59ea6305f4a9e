/* recipes/hub/search.c - see recipes/hub/search.h. */
#include "recipes/hub/search.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"

static mb_status print_one(mb_json v, FILE *out)
{
    const char *id, *task, *changed;
    char a[300], b[100], c[16];
    int64_t downloads;

    MB_TRY(mb_json_get_string(v, "id", NULL, &id));
    if (id == NULL)
        return mb_json_fault(v, "has no id");
    MB_TRY(mb_json_get_int(v, "downloads", -1, &downloads));
    MB_TRY(mb_json_get_string(v, "pipeline_tag", "", &task));
    MB_TRY(mb_json_get_string(v, "lastModified", "", &changed));
    fprintf(out, "%-48s ", mb_hub_printable(id, a, sizeof a));
    if (downloads >= 0)
        fprintf(out, "%10lld", (long long)downloads);
    else
        fprintf(out, "%10s", "-");
    fprintf(out, "  %-24s %s\n", mb_hub_printable(task[0] != '\0' ? task : "-", b, sizeof b),
            mb_hub_printable(changed, c, sizeof c));
    return MB_OK;
}

mb_status mb_hub_search(const mb_hub *hub, const char *text, bool datasets, int limit, FILE *out)
{
    char words[2048], url[MB_HUB_URL_MAX];
    mb_json_doc *doc = NULL;
    int n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_fetch_escape(text, false, words, sizeof words));
    snprintf(url, sizeof url, "%s/api/%s?search=%s&limit=%d&sort=downloads", hub->endpoint,
             datasets ? "datasets" : "models", words, limit);
    MB_TRY(mb_hub_json(hub, url, "the search", &doc, NULL));
    if (!mb_json_is(mb_json_root(doc), MB_JSON_ARRAY))
        MB_TRY_GOTO(mb_json_fault(mb_json_root(doc), "is not a list"), st, done);
    for (mb_json_it it = mb_json_first(mb_json_root(doc)); mb_json_more(&it) && n < limit;
         mb_json_next(&it), n++) {
        if (n == 0)
            fprintf(out, "%-48s %10s  %-24s %s\n", datasets ? "dataset" : "model", "downloads",
                    "task", "changed");
        MB_TRY_GOTO(print_one(it.value, out), st, done);
    }
    if (n == 0)
        mb_log_info("nothing on %s is called like '%s'", hub->endpoint, text);
done:
    mb_json_free(doc);
    return st;
}
