/* recipes/train/share.c - see recipes/train/share.h. */
#include "recipes/train/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/json.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/config/hub_path.h"
#include "recipes/config/model_path.h"

enum { PIECE = 8 << 20, MOST_DEPTH = 16, MOST_LIST = 64 << 20 };

/* ---- what the recipe names ----------------------------------------------------------------- */

struct field {
    const char *text;      /* as the recipe has it on this rank */
    int64_t lacks, holder; /* ranks that lack it; the lowest rank that has it, or the size */
    bool mine;             /* this rank lacks it */
};

static int64_t count_fields(const mb_recipe *r)
{
    return 2 + r->datasets.n + r->eval_datasets.n;
}

static void collect(const mb_recipe *r, struct field *f)
{
    const mb_datasets *const sets[] = {&r->datasets, &r->eval_datasets};

    (f++)->text = r->model_name_or_path;
    (f++)->text = r->adapter_path;
    for (int i = 0; i < 2; i++)
        for (int64_t k = 0; k < sets[i]->n; k++)
            (f++)->text = sets[i]->at[k].path;
}

/* `asked` has room for two numbers of each field. */
static mb_status ask_all(mb_comm *c, struct field *f, int64_t n, int64_t *asked)
{
    int64_t *lacks = asked, *holder = asked + n;
    mb_hub_name name;

    for (int64_t i = 0; i < n; i++) {
        f[i].mine = f[i].text != NULL && mb_hub_is_meant(f[i].text);
        lacks[i] = f[i].mine;
        holder[i] =
            f[i].text != NULL && mb_hub_name_of_path(f[i].text, &name) && mb_path_exists(f[i].text)
                ? c->rank
                : c->size;
    }
    MB_TRY(c->ops->all_reduce(c, lacks, n, MB_DTYPE_I64, MB_SUM));
    MB_TRY(c->ops->all_reduce(c, holder, n, MB_DTYPE_I64, MB_MIN));
    for (int64_t i = 0; i < n; i++) {
        f[i].lacks = lacks[i];
        f[i].holder = holder[i];
    }
    return MB_OK;
}

/* ---- the list, on the rank that has it ----------------------------------------------------- */

static mb_status add_file(mb_json list, const char *root, const char *name)
{
    char path[MB_PATH_MAX], target[MB_PATH_MAX];
    struct stat s;
    ssize_t got;
    mb_json v;

    MB_TRY(mb_path_join(path, sizeof path, root, name));
    if (stat(path, &s) != 0 || !S_ISREG(s.st_mode))
        return MB_OK;
    got = readlink(path, target, sizeof target - 1);
    target[got > 0 ? got : 0] = '\0';
    MB_TRY(mb_json_set_object(list, NULL, &v));
    MB_TRY(mb_json_set_string(v, "path", name));
    MB_TRY(mb_json_set_string(v, "blob", mb_path_base(target)));
    return mb_json_set_int(v, "size", s.st_size);
}

static mb_status list_files(mb_json list, const char *root, const char *below, int depth)
{
    char dir[MB_PATH_MAX], name[MB_PATH_MAX], path[MB_PATH_MAX], **names = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(dir, sizeof dir, root, below));
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        MB_TRY_GOTO(mb_path_join(name, sizeof name, below, names[i]), st, done);
        MB_TRY_GOTO(mb_path_join(path, sizeof path, root, name), st, done);
        if (mb_path_is_dir(path))
            st = depth < MOST_DEPTH ? list_files(list, root, name, depth + 1) : MB_OK;
        else
            st = add_file(list, root, name);
    }
done:
    mb_path_list_free(names, n);
    return st;
}

static mb_status make_list(const char *text, char **out)
{
    mb_hub_name name;
    char folder[MB_PATH_MAX], file[sizeof name.file];
    mb_json_doc *doc = NULL;
    mb_json list;
    mb_status st;

    MB_REQUIRE(mb_hub_name_of_path(text, &name), MB_EBUG, "%s is not in the cache", text);
    snprintf(file, sizeof file, "%s", name.file);
    name.file[0] = '\0';
    MB_TRY(mb_hub_path(&name, folder, sizeof folder));
    MB_TRY(mb_json_doc_new("a shared repository", &doc));
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "folder", folder), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "id", name.id), st, done);
    MB_TRY_GOTO(mb_json_set_string(mb_json_root(doc), "commit", name.revision), st, done);
    MB_TRY_GOTO(mb_json_set_bool(mb_json_root(doc), "dataset", name.is_dataset), st, done);
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "files", &list), st, done);
    MB_TRY_GOTO(file[0] != '\0' ? add_file(list, folder, file) : list_files(list, folder, "", 0),
                st, done);
    st = mb_json_text(mb_json_root(doc), 0, out, NULL);
done:
    mb_json_free(doc);
    return st;
}

/* ---- sending and writing ------------------------------------------------------------------- */

struct sharing {
    mb_comm *c;
    int root;
    bool writes; /* this rank puts it into a cache */
    mb_hub_name name;
    char source[MB_PATH_MAX];                        /* the root's snapshot */
    char folder[MB_PATH_MAX], snapshot[MB_PATH_MAX]; /* of the writer's cache */
    void *piece;
    int64_t *keys; /* one for each rank */
};

/* The lowest of the ranks that lack it in one cache: same machine, same folder. */
static mb_status choose_writer(struct sharing *s, bool mine)
{
    char place[MB_PATH_MAX + 256] = "";
    uint8_t digest[MB_DIGEST_BYTES];
    int64_t *keys = s->keys, key = 0;

    gethostname(place, 255);
    snprintf(place + strlen(place), sizeof place - strlen(place), " %s", s->folder);
    if (mine) {
        if (mb_digest_memory(place, strlen(place), digest) != MB_OK)
            MB_BUG("no digest of a path");
        memcpy(&key, digest, sizeof key);
        keys[s->c->rank] = key | 1; /* never 0, which stands for ranks that have it */
    }
    MB_TRY(s->c->ops->all_reduce(s->c, keys, s->c->size, MB_DTYPE_I64, MB_SUM));
    s->writes = mine;
    for (int i = 0; mine && i < s->c->rank; i++)
        s->writes = s->writes && keys[i] != keys[s->c->rank];
    return MB_OK;
}

static mb_status check_digest(mb_digest *d, const char *blob)
{
    char found[MB_DIGEST_HEX];

    if (d == NULL)
        return MB_OK;
    MB_TRY(mb_digest_end_hex(d, found));
    MB_REQUIRE(strcmp(found, blob) == 0, MB_EDATA,
               "a file of the cache came with digest %s instead of %s: `mbuyu pull --check`, where "
               "it comes from, repairs it",
               found, blob);
    return MB_OK;
}

static mb_status make_above(const char *path)
{
    char dir[MB_PATH_MAX];

    MB_TRY(mb_path_dir(dir, sizeof dir, path));
    return mb_path_mkdirs(dir);
}

/* Where the bytes go: blobs/DIGEST, or the snapshot itself for files without one. */
static mb_status open_target(const struct sharing *s, const char *path, const char *blob,
                             int64_t size, mb_newfile *f, mb_digest **d)
{
    char dir[MB_PATH_MAX], to[MB_PATH_MAX];
    const size_t n = strlen(blob);

    MB_REQUIRE(mb_hub_file_is(path) && (n == 0 || n == 40 || n == 64) &&
                   strspn(blob, "0123456789abcdef") == n,
               MB_EDATA, "%s: a name in a shared cache that is none", path);
    MB_TRY(mb_path_join(dir, sizeof dir, s->folder, "blobs"));
    MB_TRY(n > 0 ? mb_path_join(to, sizeof to, dir, blob)
                 : mb_path_join(to, sizeof to, s->snapshot, path));
    MB_TRY(make_above(to));
    if (n > 0)
        MB_TRY(n == 64 ? mb_digest_new(d) : mb_digest_new_git_blob(size, d));
    return mb_newfile_open(to, f);
}

static mb_status name_it(const struct sharing *s, const char *path, const char *blob)
{
    char link[MB_PATH_MAX], target[MB_PATH_MAX];
    size_t n = 0;

    if (blob[0] == '\0')
        return MB_OK;
    MB_TRY(mb_path_join(link, sizeof link, s->snapshot, path));
    MB_TRY(make_above(link));
    for (const char *c = path; c != NULL; c = strchr(c + 1, '/'))
        n += (size_t)snprintf(target + n, sizeof target - n, "../");
    snprintf(target + n, sizeof target - n, "../blobs/%s", blob);
    unlink(link);
    /* one that is there already is of another machine with the same disk, for the same file */
    MB_REQUIRE(symlink(target, link) == 0 || errno == EEXIST, MB_EIO, "%s cannot be made: %s", link,
               strerror(errno));
    return MB_OK;
}

mb_status mb_share_publish(mb_newfile *f, int64_t size)
{
    struct stat at;
    const mb_status st = mb_newfile_publish(f);

    if (st == MB_OK || f->path == NULL || mb_path_exists(f->temporary) || stat(f->path, &at) != 0 ||
        at.st_size != size)
        return st;
    mb_status_clear();
    return MB_OK;
}

/* A rank's failure is kept until the file has passed, for the others go on sending. */
static mb_status share_file(struct sharing *s, mb_json file)
{
    mb_newfile f = {.fd = -1};
    mb_digest *d = NULL;
    const char *path, *blob;
    char from[MB_PATH_MAX];
    int64_t size, there;
    mb_status st = MB_OK, link = MB_OK;
    int fd = -1;

    MB_TRY(mb_json_get_string(file, "path", "", &path));
    MB_TRY(mb_json_get_string(file, "blob", "", &blob));
    MB_TRY(mb_json_get_int(file, "size", 0, &size));
    if (s->c->rank == s->root) {
        st = mb_path_join(from, sizeof from, s->source, path);
        if (st == MB_OK)
            st = mb_file_open(from, MB_EIO, &fd, &there);
    } else if (s->writes) {
        st = open_target(s, path, blob, size, &f, &d);
    }
    for (int64_t at = 0; at < size && link == MB_OK; at += PIECE) {
        const int64_t n = size - at < PIECE ? size - at : PIECE;

        if (fd >= 0 && st == MB_OK)
            st = mb_pread_all(fd, s->piece, (size_t)n, at, from);
        link = s->c->ops->broadcast(s->c, s->piece, n, s->root);
        if (link == MB_OK && st == MB_OK && s->writes)
            st = mb_pwrite_all(f.fd, s->piece, (size_t)n, at, path);
        if (link == MB_OK && st == MB_OK && d != NULL)
            st = mb_digest_add(d, s->piece, (size_t)n);
    }
    if (link == MB_OK && st == MB_OK && s->writes)
        st = check_digest(d, blob);
    if (link == MB_OK && st == MB_OK && s->writes)
        st = mb_share_publish(&f, size);
    if (link == MB_OK && st == MB_OK && s->writes)
        st = name_it(s, path, blob);
    mb_newfile_abandon(&f);
    mb_digest_free(d);
    if (fd >= 0)
        close(fd);
    MB_TRY(link);
    return mb_comm_agree(s->c, st);
}

static mb_status write_ref(const struct sharing *s, const char *text, const char *commit)
{
    char refs[MB_PATH_MAX], path[MB_PATH_MAX];
    mb_hub_name asked;

    if (!s->writes)
        return MB_OK;
    MB_TRY(mb_hub_name_read(text, true, &asked));
    if (mb_hub_commit_is(asked.revision))
        return MB_OK;
    MB_TRY(mb_path_join(refs, sizeof refs, s->folder, "refs"));
    MB_TRY(
        mb_path_join(path, sizeof path, refs, asked.revision[0] != '\0' ? asked.revision : "main"));
    MB_TRY(make_above(path));
    return mb_file_write_atomic(path, commit, strlen(commit));
}

static mb_status read_list(struct sharing *s, mb_json root)
{
    const char *id, *commit, *folder;
    char dir[MB_PATH_MAX];

    MB_TRY(mb_json_get_string(root, "id", "", &id));
    MB_TRY(mb_json_get_string(root, "commit", "", &commit));
    MB_TRY(mb_json_get_string(root, "folder", "", &folder));
    MB_TRY(mb_json_get_bool(root, "dataset", false, &s->name.is_dataset));
    MB_REQUIRE(mb_hub_id_is(id) && mb_hub_commit_is(commit) && strlen(id) < sizeof s->name.id,
               MB_EDATA, "a shared repository without a name");
    snprintf(s->name.id, sizeof s->name.id, "%s", id);
    snprintf(s->name.revision, sizeof s->name.revision, "%s", commit);
    snprintf(s->source, sizeof s->source, "%s", folder);
    MB_TRY(mb_hub_folder(&s->name, s->folder, sizeof s->folder));
    MB_TRY(mb_path_join(dir, sizeof dir, s->folder, "snapshots"));
    return mb_path_join(s->snapshot, sizeof s->snapshot, dir, commit);
}

static mb_status share(mb_comm *c, const struct field *f)
{
    struct sharing s = {.c = c, .root = (int)f->holder};
    char *text = NULL;
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    if (c->rank == s.root)
        st = make_list(f->text, &text);
    MB_TRY_GOTO(mb_comm_agree(c, st), st, done);
    MB_TRY_GOTO(mb_comm_broadcast_string(c, &text, s.root), st, done);
    st = mb_json_parse(text, strlen(text), "a shared repository", 0, MB_EDATA, &doc);
    if (st == MB_OK)
        st = read_list(&s, mb_json_root(doc));
    if (st == MB_OK)
        st = mb_alloc(PIECE, "a piece of a file", &s.piece);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&s.keys, c->size);
    MB_TRY_GOTO(mb_comm_agree(c, st), st, done);
    MB_TRY_GOTO(choose_writer(&s, f->mine), st, done);
    if (c->rank == 0)
        mb_log_info("the caches of %lld ranks lack %s: they receive it from rank %d",
                    (long long)f->lacks, s.name.id, s.root);
    for (mb_json_it it = mb_json_first(mb_json_get(mb_json_root(doc), "files")); mb_json_more(&it);
         mb_json_next(&it))
        MB_TRY_GOTO(share_file(&s, it.value), st, done);
    st = mb_comm_agree(c, write_ref(&s, f->text, s.name.revision));
done:
    mb_free(s.piece);
    mb_free(s.keys);
    mb_json_free(doc);
    mb_free(text);
    return st;
}

static mb_status share_fields(mb_comm *c, mb_recipe *r, struct field *f, int64_t n, int64_t *asked)
{
    collect(r, f);
    MB_TRY(ask_all(c, f, n, asked));
    for (int64_t i = 0; i < n; i++) {
        if (f[i].lacks == 0 || f[i].holder == c->size)
            continue;
        MB_TRY(share(c, &f[i]));
        MB_TRY(mb_comm_agree(c, mb_recipe_follow_hub(r)));
        collect(r, f);
        MB_TRY(ask_all(c, f, n, asked)); /* several fields may be of one repository */
    }
    return MB_OK;
}

mb_status mb_share_hub(mb_comm *world, mb_recipe *r)
{
    mb_comm *c = mb_comm_host(world);
    const int64_t n = count_fields(r);
    int64_t counts[2] = {n, -n}, *asked = NULL;
    struct field *f = NULL;
    mb_status st;

    if (c->size == 1)
        return MB_OK;
    MB_TRY(c->ops->all_reduce(c, counts, 2, MB_DTYPE_I64, MB_MAX));
    if (counts[0] != -counts[1])
        return MB_OK; /* other recipes: for those who compare them to say */
    st = MB_NEW_ARRAY(&f, n);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&asked, 2 * n);
    st = mb_comm_agree(c, st);
    if (st == MB_OK)
        st = share_fields(c, r, f, n, asked);
    mb_free(f);
    mb_free(asked);
    return st;
}
