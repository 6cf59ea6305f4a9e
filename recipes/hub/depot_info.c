/* recipes/hub/depot_info.c - repositories and files as the hub's JSON says them; and which fit a search. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/depot_inside.h"

mb_status mb_depot_card(const mb_shelf_tree *t, mb_json_doc **out)
{
    if (t == NULL || t->card == NULL)
        return mb_json_doc_new("README.md", out);
    return mb_json_parse(t->card, strlen(t->card), "README.md", 0, MB_EDATA, out);
}

static const char *word_of(mb_json card, const char *key)
{
    mb_json v = mb_json_get(card, key);
    const char *text;

    if (!mb_json_is(v, MB_JSON_STRING) || mb_json_string(v, &text, NULL) != MB_OK)
        return NULL;
    return text;
}

const char *mb_depot_pipeline(mb_json card)
{
    return word_of(card, "pipeline_tag");
}

const char *mb_depot_library(mb_json card, const mb_shelf_tree *t)
{
    const char *word = word_of(card, "library_name");

    if (word != NULL || t == NULL)
        return word;
    if (mb_shelf_tree_find(t, "adapter_config.json") != NULL)
        return "peft";
    return mb_shelf_tree_find(t, "config.json") != NULL ? "transformers" : NULL;
}

static mb_status add_tag(mb_json tags, const char *prefix, const char *word)
{
    char text[300];

    snprintf(text, sizeof text, "%s%.250s", prefix, word);
    return mb_json_set_string(tags, NULL, text);
}

/* A text or a list of texts. */
static mb_status add_tags(mb_json tags, mb_json card, const char *key, const char *prefix)
{
    mb_json v = mb_json_get(card, key);
    const char *text;

    if (mb_json_is(v, MB_JSON_STRING)) {
        MB_TRY(mb_json_string(v, &text, NULL));
        return add_tag(tags, prefix, text);
    }
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        if (!mb_json_is(it.value, MB_JSON_STRING))
            continue;
        MB_TRY(mb_json_string(it.value, &text, NULL));
        MB_TRY(add_tag(tags, prefix, text));
    }
    return MB_OK;
}

static bool has_suffix(const mb_shelf_tree *t, const char *suffix)
{
    for (size_t i = 0; t != NULL && i < t->n; i++)
        if (mb_path_has_suffix(t->files[i].path, suffix))
            return true;
    return false;
}

static mb_status set_tags(mb_json to, mb_json card, const mb_shelf_tree *t)
{
    static const struct {
        const char *key, *prefix;
    } rows[] = {{"pipeline_tag", ""},
                {"tags", ""},
                {"language", ""},
                {"license", "license:"},
                {"datasets", "dataset:"},
                {"base_model", "base_model:"},
                {"task_categories", "task_categories:"}};
    const char *library = mb_depot_library(card, t);
    mb_json tags;

    MB_TRY(mb_json_set_array(to, "tags", &tags));
    if (library != NULL)
        MB_TRY(add_tag(tags, "", library));
    if (has_suffix(t, ".safetensors"))
        MB_TRY(add_tag(tags, "", "safetensors"));
    if (has_suffix(t, ".gguf"))
        MB_TRY(add_tag(tags, "", "gguf"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        MB_TRY(add_tags(tags, card, rows[i].key, rows[i].prefix));
    return MB_OK;
}

mb_status mb_depot_set_file(mb_json to, const mb_shelf_file *f, bool tree_form)
{
    char oid[MB_SHELF_OID];
    int64_t pointer;
    mb_json lfs;

    MB_TRY(mb_json_set_int(to, "size", f->size));
    MB_TRY(mb_json_set_string(to, tree_form ? "oid" : "blobId", f->oid));
    if (!f->lfs)
        return MB_OK;
    MB_TRY(mb_shelf_pointer(f->sha256, f->size, oid, &pointer));
    MB_TRY(mb_json_set_object(to, "lfs", &lfs));
    MB_TRY(mb_json_set_string(lfs, tree_form ? "oid" : "sha256", f->sha256));
    MB_TRY(mb_json_set_int(lfs, "size", f->size));
    return mb_json_set_int(lfs, "pointerSize", pointer);
}

mb_status mb_depot_set_siblings(mb_json to, const mb_shelf_tree *t, bool blobs)
{
    mb_json list, o;

    MB_TRY(mb_json_set_array(to, "siblings", &list));
    for (size_t i = 0; t != NULL && i < t->n; i++) {
        MB_TRY(mb_json_set_object(list, NULL, &o));
        MB_TRY(mb_json_set_string(o, "rfilename", t->files[i].path));
        if (blobs)
            MB_TRY(mb_depot_set_file(o, &t->files[i], false));
    }
    return MB_OK;
}

static mb_status set_words(mb_json to, mb_json card, const mb_shelf_brief *b,
                           const mb_shelf_tree *t)
{
    const char *pipeline = mb_depot_pipeline(card), *library = mb_depot_library(card, t);

    MB_TRY(set_tags(to, card, t));
    if (b->kind == MB_SHELF_MODEL && pipeline != NULL)
        MB_TRY(mb_json_set_string(to, "pipeline_tag", pipeline));
    if (b->kind == MB_SHELF_MODEL && library != NULL)
        MB_TRY(mb_json_set_string(to, "library_name", library));
    return MB_OK;
}

mb_status mb_depot_set_repo(mb_json to, const mb_shelf_brief *b, const mb_shelf_tree *t, bool full)
{
    const char *slash = strchr(b->id, '/');
    char author[MB_SHELF_ID_MAX] = "", when[32];
    mb_json_doc *card = NULL;
    int64_t bytes = 0;
    mb_status st;

    if (slash != NULL)
        snprintf(author, sizeof author, "%.*s", (int)(slash - b->id), b->id);
    for (size_t i = 0; t != NULL && i < t->n; i++)
        bytes += t->files[i].size;
    MB_TRY(mb_json_set_string(to, "_id", b->id));
    MB_TRY(mb_json_set_string(to, "id", b->id));
    if (b->kind == MB_SHELF_MODEL)
        MB_TRY(mb_json_set_string(to, "modelId", b->id));
    MB_TRY(mb_json_set_string(to, "author", author));
    if (t != NULL)
        MB_TRY(mb_json_set_string(to, "sha", t->commit));
    MB_TRY(mb_json_set_string(to, "lastModified", mb_depot_time(b->modified, when)));
    MB_TRY(mb_json_set_string(to, "createdAt", mb_depot_time(b->created, when)));
    MB_TRY(mb_json_set_bool(to, "private", b->hidden));
    MB_TRY(mb_json_set_bool(to, "gated", false));
    MB_TRY(mb_json_set_bool(to, "disabled", false));
    MB_TRY(mb_json_set_int(to, "downloads", 0));
    MB_TRY(mb_json_set_int(to, "likes", 0));
    MB_TRY(mb_json_set_int(to, "usedStorage", bytes));
    MB_TRY_GOTO(mb_depot_card(t, &card), st, done);
    MB_TRY_GOTO(set_words(to, mb_json_root(card), b, t), st, done);
    if (full && t != NULL && t->card != NULL)
        MB_TRY_GOTO(mb_json_set(to, "cardData", mb_json_root(card)), st, done);
done:
    mb_json_free(card);
    return st;
}

/* Is `part` in `text`, whatever the case of ASCII letters? */
static bool is_in(const char *text, const char *part)
{
    return strcasestr(text, part) != NULL;
}

/* Every word of a search must be in the name or the card. */
static bool has_words(const mb_shelf_brief *b, const char *search)
{
    const char *card = b->main != NULL && b->main->card != NULL ? b->main->card : "";
    char word[100];

    while (*(search += strspn(search, " ")) != '\0') {
        const size_t n = strcspn(search, " ");
        if (n >= sizeof word)
            return false;
        memcpy(word, search, n);
        word[n] = '\0';
        if (!is_in(b->id, word) && !is_in(card, word))
            return false;
        search += n;
    }
    return true;
}

static bool has_tag(const mb_shelf_brief *b, const char *filter)
{
    mb_json_doc *doc = NULL, *card = NULL;
    const char *text;
    bool found = false;

    if (mb_json_doc_new("tags", &doc) == MB_OK && mb_depot_card(b->main, &card) == MB_OK &&
        set_tags(mb_json_root(doc), mb_json_root(card), b->main) == MB_OK)
        for (mb_json_it it = mb_json_first(mb_json_get(mb_json_root(doc), "tags"));
             !found && mb_json_more(&it); mb_json_next(&it))
            found = mb_json_string(it.value, &text, NULL) == MB_OK && strcmp(text, filter) == 0;
    mb_status_clear();
    mb_json_free(doc);
    mb_json_free(card);
    return found;
}

bool mb_depot_fits(const mb_shelf_brief *b, const char *search, const char *author,
                   const char *filter)
{
    const size_t n = author != NULL ? strlen(author) : 0;

    if (n > 0 && (strncasecmp(b->id, author, n) != 0 || b->id[n] != '/'))
        return false;
    if (search != NULL && !has_words(b, search))
        return false;
    return filter == NULL || filter[0] == '\0' || has_tag(b, filter);
}

static int by_date(const void *a, const void *b)
{
    const mb_shelf_brief *x = a, *y = b;

    if (x->modified != y->modified)
        return x->modified > y->modified ? -1 : 1;
    return strcmp(x->id, y->id);
}

mb_status mb_depot_list(mb_depot *d, const mb_http_request *q, mb_shelf_kind kind,
                        mb_shelf_brief **out, size_t *n)
{
    const bool knows = mb_depot_knows(d, q);
    const char *sort = mb_http_query(q, "sort"), *filter = mb_http_query(q, "filter");
    size_t all, kept = 0;

    if (filter == NULL)
        filter = mb_http_query(q, "pipeline_tag");
    MB_TRY(mb_shelf_list(d->shelf, kind, out, &all));
    for (size_t i = 0; i < all; i++) {
        mb_shelf_brief *b = &(*out)[i];
        if ((b->hidden && !knows) ||
            !mb_depot_fits(b, mb_http_query(q, "search"), mb_http_query(q, "author"), filter))
            mb_shelf_brief_release(b);
        else
            (*out)[kept++] = *b;
    }
    if (sort == NULL || strcmp(sort, "id") != 0) /* nobody counts downloads here: newest first */
        qsort(*out, kept, sizeof **out, by_date);
    *n = kept;
    return MB_OK;
}

void mb_depot_list_free(mb_shelf_brief *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mb_shelf_brief_release(&list[i]);
    mb_free(list);
}
