/* recipes/data/image_list.c - see recipes/data/image_list.h. */
#include "recipes/data/image_list.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/config/dataset_files.h"
#include "recipes/media/image.h"

enum { COLUMNS = 256, DEEPEST = 16 };

void mb_image_list_release(mb_image_list *l)
{
    mb_free(l->entry);
    mb_free(l->text);
    *l = (mb_image_list){0};
}

static mb_status put_text(mb_image_list *l, const char *s, int64_t *at)
{
    const int64_t n = (int64_t)strlen(s) + 1;

    MB_TRY(mb_grow((void **)&l->text, &l->text_capacity, (size_t)(l->n_text + n), 1,
                   "names of pictures"));
    memcpy(l->text + l->n_text, s, (size_t)n);
    *at = l->n_text;
    l->n_text += n;
    return MB_OK;
}

static mb_status put(mb_image_list *l, const mb_source *from, const char *named, const char *label,
                     int64_t line, int source)
{
    char path[MB_PATH_MAX];
    mb_image_entry *e;

    MB_TRY(mb_source_may_open(from, named, path));

    MB_TRY(
        mb_grow((void **)&l->entry, &l->entry_capacity, (size_t)(l->n + 1), sizeof *e, "pictures"));
    e = &l->entry[l->n];
    *e = (mb_image_entry){.label = -1, .line = line, .source = source};
    MB_TRY(put_text(l, path, &e->path));
    if (label != NULL)
        MB_TRY(put_text(l, label, &e->label));
    l->n++;
    return MB_OK;
}

/* ---- folders ------------------------------------------------------------------------------ */

/* All pictures at and below `dir`, which belong to the class. */
static mb_status class_folder(mb_image_list *l, const mb_source *from, const char *dir,
                              const char *label, int source, int depth)
{
    char path[MB_PATH_MAX], **names = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_REQUIRE(depth < DEEPEST, MB_EDATA, "%s: folders within folders, more than %d deep", dir,
               DEEPEST);
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        if (names[i][0] == '.')
            continue;
        st = mb_path_join(path, sizeof path, dir, names[i]);
        if (st == MB_OK && mb_path_is_dir(path))
            st = class_folder(l, from, path, label, source, depth + 1);
        else if (st == MB_OK && mb_image_has_ending(names[i]))
            st = put(l, from, path, label, 0, source);
        else
            l->other_files++;
    }
    mb_path_list_free(names, n);
    return st;
}

static mb_status class_folders(mb_image_list *l, const mb_source *from, const char *dir, int source)
{
    char path[MB_PATH_MAX], **names = NULL;
    const int64_t before = l->n;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        if (names[i][0] == '.')
            continue;
        st = mb_path_join(path, sizeof path, dir, names[i]);
        if (st == MB_OK && mb_path_is_dir(path))
            st = class_folder(l, from, path, names[i], source, 0);
        else if (st == MB_OK && mb_image_has_ending(names[i]))
            st = MB_RAISE(MB_EDATA,
                          "%s: the picture is in no class's folder, and there is no metadata.csv, "
                          ".tsv or .jsonl that gives its label",
                          path);
    }
    mb_path_list_free(names, n);
    if (st == MB_OK && l->n == before)
        st = MB_RAISE(MB_EDATA,
                      "%s: there are no pictures (a folder for each class with .png or .jpg files, "
                      "or a metadata.csv, .tsv or .jsonl)",
                      dir);
    return st;
}

/* ---- metadata ----------------------------------------------------------------------------- */

static const char *column_of(const mb_source *s, const char *canonical)
{
    for (int i = 0; i < s->n_fields; i++)
        if (strcmp(s->field[i].canonical, canonical) == 0)
            return s->field[i].column;
    return canonical;
}

/* A metadata file being read: where pictures are, and a table's columns. */
struct metadata {
    const mb_source *source;
    int number;
    const char *path;
    char folder[MB_PATH_MAX];
    mb_rowfile_kind kind;
    const char *file_column, *label_column;
    int file_at, label_at, n_columns; /* -1: no such column */
    char *fields;
    size_t fields_capacity;
};

static mb_status add_row(mb_image_list *l, const struct metadata *m, const char *file,
                         const char *label, int64_t line)
{
    char path[MB_PATH_MAX];
    mb_status st;

    MB_REQUIRE(file != NULL && file[0] != '\0', MB_EDATA, "%s:%lld: there is no %s", m->path,
               (long long)line, m->file_column);
    MB_REQUIRE(label != NULL && label[0] != '\0', MB_EDATA, "%s:%lld: there is no %s", m->path,
               (long long)line, m->label_column);
    MB_TRY(mb_path_join(path, sizeof path, m->folder, file));
    st = put(l, m->source, path, label, line, m->number);
    return st == MB_OK ? st : mb_status_prefix(st, "%s:%lld: ", m->path, (long long)line);
}

static mb_status json_row(mb_image_list *l, const struct metadata *m, const mb_row_text *row)
{
    const char *file = NULL, *label = NULL;
    char number[24];
    mb_json_doc *doc = NULL;
    int64_t id;
    mb_status st;

    MB_TRY(mb_json_parse(row->text, row->n, m->path, row->line, MB_EDATA, &doc));
    const mb_json root = mb_json_root(doc), v = mb_json_get(root, m->label_column);
    st = mb_json_get_string(root, m->file_column, NULL, &file);
    if (st == MB_OK && mb_json_is_number(v)) {
        st = mb_json_int(v, &id);
        snprintf(number, sizeof number, "%lld", (long long)id);
        label = number;
    } else if (st == MB_OK) {
        st = mb_json_get_string(root, m->label_column, NULL, &label);
    }
    if (st == MB_OK)
        st = add_row(l, m, file, label, row->line);
    mb_json_free(doc);
    return st;
}

static mb_status table_row(mb_image_list *l, struct metadata *m, const mb_row_text *row)
{
    const char *field[COLUMNS];
    const bool header = m->n_columns == 0;
    int n;

    MB_TRY(mb_grow((void **)&m->fields, &m->fields_capacity, row->n + 1, 1, "a row"));
    mb_status st = mb_rowfile_fields(row->text, row->n, m->kind == MB_ROWFILE_CSV ? ',' : '\t',
                                     m->fields, field, COLUMNS, &n);
    if (st != MB_OK)
        return mb_status_prefix(st, "%s:%lld: ", m->path, (long long)row->line);
    n = n < COLUMNS ? n : COLUMNS;
    if (!header) {
        MB_REQUIRE(n == m->n_columns, MB_EDATA, "%s:%lld: the row has %d fields, the header %d",
                   m->path, (long long)row->line, n, m->n_columns);
        return add_row(l, m, field[m->file_at], field[m->label_at], row->line);
    }
    m->n_columns = n;
    m->file_at = m->label_at = -1;
    for (int i = 0; i < n; i++) {
        m->file_at = strcmp(field[i], m->file_column) == 0 ? i : m->file_at;
        m->label_at = strcmp(field[i], m->label_column) == 0 ? i : m->label_at;
    }
    MB_REQUIRE(m->file_at >= 0, MB_EDATA,
               "%s: there is no column \"%s\" (field_map can name another)", m->path,
               m->file_column);
    MB_REQUIRE(m->label_at >= 0, MB_EDATA,
               "%s: there is no column \"%s\" (field_map can name another)", m->path,
               m->label_column);
    return MB_OK;
}

static mb_status read_metadata(mb_image_list *l, const mb_source *s, const char *path, int number)
{
    struct metadata m = {.source = s,
                         .number = number,
                         .path = path,
                         .file_column = column_of(s, "file_name"),
                         .label_column = column_of(s, "label")};
    const int64_t before = l->n;
    char real[MB_PATH_MAX];
    mb_rowfile *rows = NULL;
    mb_row_text row;
    bool more = true;
    mb_status st;

    MB_TRY(mb_source_may_open(s, path, real));
    MB_TRY(mb_path_dir(m.folder, sizeof m.folder, path));
    MB_TRY(mb_rowfile_kind_of(path, &m.kind));
    MB_REQUIRE(m.kind != MB_ROWFILE_TXT, MB_EDATA, "%s: a text file names no pictures", path);
    MB_TRY(mb_rowfile_open(path, m.kind, MB_TEXT_LINE, &rows));
    while (more) {
        MB_TRY_GOTO(mb_rowfile_next(rows, &row, &more), st, done);
        if (!more)
            break;
        if (m.kind == MB_ROWFILE_CSV || m.kind == MB_ROWFILE_TSV)
            st = table_row(l, &m, &row);
        else
            st = json_row(l, &m, &row);
        if (st != MB_OK)
            goto done;
    }
    st = l->n > before ? MB_OK : MB_RAISE(MB_EDATA, "%s: the file has no rows", path);
done:
    mb_rowfile_close(rows);
    mb_free(m.fields);
    return st;
}

/* ---- sources ------------------------------------------------------------------------------ */

/* The folder of the split, "train" of "train[:95%]": below the data set's, or that itself when the
 * split is the usual one. */
static mb_status split_folder(const mb_source *s, char *dir, size_t size)
{
    char name[64];
    const char *split = s->split != NULL ? s->split : "train";

    snprintf(name, sizeof name, "%.*s", (int)strcspn(split, "["), split);
    if (mb_path_is_component(name)) {
        MB_TRY(mb_path_join(dir, size, s->path, name));
        if (mb_path_is_dir(dir))
            return MB_OK;
    }
    MB_REQUIRE(strcmp(name, "train") == 0, MB_EDATA, "%s: there is no folder \"%s\" for split: %s",
               s->path, name, split);
    snprintf(dir, size, "%s", s->path);
    return MB_OK;
}

/* Counts the entries from `from` on, and keeps what is within the split's bounds. */
static mb_status cut_split(mb_image_list *l, const mb_source *s, int64_t from)
{
    int64_t first, end;

    for (int64_t i = from; i < l->n; i++)
        l->entry[i].record = i - from;
    if (s->split == NULL)
        return MB_OK;
    MB_TRY(mb_split_bounds(s->split, l->n - from, &first, &end));
    memmove(l->entry + from, l->entry + from + first, (size_t)(end - first) * sizeof *l->entry);
    l->n = from + end - first;
    MB_REQUIRE(end > first, MB_EDATA, "%s: split %s leaves no picture", s->path, s->split);
    return MB_OK;
}

/* The metadata file, or "" and the folder with one for each class. */
static mb_status find_list(const mb_source *s, char file[MB_PATH_MAX], char dir[MB_PATH_MAX])
{
    MB_REQUIRE(mb_path_exists(s->path), MB_EDATA, "%s: there is no such folder or file", s->path);
    if (!mb_path_is_dir(s->path))
        return mb_path_join(file, MB_PATH_MAX, "", s->path);
    MB_TRY(split_folder(s, dir, MB_PATH_MAX));
    if (!mb_dataset_metadata(dir, file, MB_PATH_MAX))
        file[0] = '\0';
    return MB_OK;
}

mb_status mb_image_list_file(const mb_source *s, char out[MB_PATH_MAX])
{
    char dir[MB_PATH_MAX];

    return find_list(s, out, dir);
}

mb_status mb_image_list_add(mb_image_list *l, const mb_source *s, int source)
{
    char dir[MB_PATH_MAX], file[MB_PATH_MAX];
    const int64_t from = l->n;

    MB_TRY(find_list(s, file, dir));
    if (file[0] != '\0')
        MB_TRY(read_metadata(l, s, file, source));
    else
        MB_TRY(class_folders(l, s, dir, source));
    return cut_split(l, s, from);
}
