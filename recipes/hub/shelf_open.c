/* recipes/hub/shelf_open.c - finding repositories in a folder, once and again every few seconds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

static mb_status random_hex(char *out, size_t digits)
{
    uint8_t bytes[32];
    const int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    const bool got = fd >= 0 && read(fd, bytes, digits / 2) == (ssize_t)(digits / 2);

    if (fd >= 0)
        close(fd);
    MB_REQUIRE(got, MB_EIO, "/dev/urandom: %s", strerror(errno));
    for (size_t i = 0; i < digits / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return MB_OK;
}

/* A line of hexadecimal digits that is made once. */
static mb_status lasting_hex(const char *dir, const char *name, int digits, char *out)
{
    char path[MB_PATH_MAX], *text = NULL;
    size_t n;

    MB_TRY(mb_path_join(path, sizeof path, dir, name));
    if (mb_path_is_file(path)) {
        MB_TRY(mb_file_read(path, 1000, &text, &n));
        text[strcspn(text, "\n")] = '\0';
        const bool good = mb_shelf_is_hex(text, digits);
        if (good)
            memcpy(out, text, (size_t)digits + 1);
        mb_free(text);
        MB_REQUIRE(good, MB_EDATA,
                   "%s is not %d hexadecimal digits; remove it to have it made again", path,
                   digits);
        return MB_OK;
    }
    MB_TRY(random_hex(out, (size_t)digits));
    const mode_t before = umask(077);
    const mb_status st = mb_file_write_atomic(path, out, (size_t)digits);
    umask(before);
    return st;
}

/* An archive as `mbuyu unbundle` and BagIt leave it has them below data/. */
static mb_status choose_dir(mb_shelf *s, const char *dir)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, dir, "bagit.txt"));
    if (!mb_path_is_file(path))
        return mb_strdup(dir, &s->dir);
    MB_TRY(mb_path_join(path, sizeof path, dir, "data"));
    return mb_strdup(mb_path_is_dir(path) ? path : dir, &s->dir);
}

/* Beside the repositories, or below the user's cache when they shall not be changed. */
static mb_status choose_store(mb_shelf *s, const mb_shelf_options *o)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char beside[MB_PATH_MAX], real[MB_PATH_MAX];
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];

    if (o->store != NULL)
        return mb_strdup(o->store, &s->store);
    MB_TRY(mb_path_join(beside, sizeof beside, s->dir, ".mbuyu-hub"));
    if (o->writable || mb_path_is_dir(beside))
        return mb_strdup(beside, &s->store);
    MB_TRY(mb_path_real(s->dir, real, sizeof real));
    MB_TRY(mb_digest_memory(real, strlen(real), digest));
    mb_digest_hex(digest, hex);
    if (cache != NULL && cache[0] == '/')
        return mb_asprintf(&s->store, "%s/mbuyu/hub/%.16s", cache, hex);
    MB_REQUIRE(home != NULL && home[0] == '/', MB_EARG,
               "HOME is not set; name a folder for digests and revisions with --store");
    return mb_asprintf(&s->store, "%s/.cache/mbuyu/hub/%.16s", home, hex);
}

static mb_status lock_store(mb_shelf *s)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, s->store, "lock"));
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    MB_REQUIRE(s->lock_fd >= 0, MB_EIO, "%s: %s", path, strerror(errno));
    MB_REQUIRE(flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0 || errno == ENOLCK || errno == ENOTSUP,
               MB_EIO, "%s is in use: another hub serves this folder", s->store);
    return MB_OK;
}

static bool is_known(mb_shelf *s, mb_shelf_kind kind, const char *id)
{
    pthread_mutex_lock(&s->lock);
    const bool known = mb_shelf_repo(s, kind, id) != NULL;
    pthread_mutex_unlock(&s->lock);
    return known;
}

/* A plain folder's record. One that is damaged takes its repository out, not the hub down: without its
 * branches, and without whether it is private, it must not be served. */
static mb_status load(mb_shelf *s, mb_repo *r)
{
    char path[MB_PATH_MAX];
    mb_status st = mb_repo_load(r);

    if (st == MB_OK)
        st = mb_path_join(path, sizeof path, r->records, "seen.json");
    if (st == MB_OK)
        st = mb_seen_load(path, &r->seen);
    if (st == MB_OK) {
        pthread_mutex_lock(&s->lock);
        r->gone = false;
        pthread_mutex_unlock(&s->lock);
        return MB_OK;
    }
    r->damaged = st == MB_EDATA; /* else the next look tries again */
    mb_shelf_refs_free(r->refs, r->n_refs);
    r->refs = NULL;
    r->n_refs = 0;
    mb_seen_release(&r->seen);
    if (st != MB_EDATA && st != MB_EIO)
        return st;
    mb_log_warn("%s is left out, its record cannot be read: %s", r->id, mb_status_sentence());
    mb_status_clear();
    return MB_OK;
}

/* With `writing` held. */
static mb_status add_new(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *cache)
{
    mb_repo *r;
    char *folder = NULL;

    if (is_known(s, kind, id))
        return MB_OK;
    if (cache != NULL)
        MB_TRY(mb_strdup(cache, &folder));
    pthread_mutex_lock(&s->lock);
    const mb_status st = mb_shelf_repo_add(s, kind, id, &r);
    if (st == MB_OK && cache != NULL) {
        r->cache = true;
        mb_free(r->folder);
        r->folder = folder;
    } else if (st == MB_OK) {
        r->gone = true; /* until its record is read */
    }
    pthread_mutex_unlock(&s->lock);
    if (st == MB_EDATA) { /* found damaged before, and said so */
        mb_free(folder);
        mb_status_clear();
        return MB_OK;
    }
    if (st != MB_OK)
        mb_free(folder);
    MB_TRY(st);
    return cache != NULL ? MB_OK : load(s, r);
}

static mb_status add(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *cache)
{
    if (is_known(s, kind, id))
        return MB_OK;
    pthread_mutex_lock(&s->writing);
    const mb_status st = add_new(s, kind, id, cache);
    pthread_mutex_unlock(&s->writing);
    return st;
}

/* Does a folder hold files, not only folders? Then it is a repository without an organisation. */
static bool holds_files(const char *dir)
{
    char path[MB_PATH_MAX];
    char **names = NULL;
    size_t n = 0;
    bool found = false;

    if (mb_path_list(dir, &names, &n) != MB_OK)
        n = 0;
    for (size_t i = 0; i < n && !found; i++)
        found = mb_path_join(path, sizeof path, dir, names[i]) == MB_OK && mb_path_is_file(path);
    mb_path_list_free(names, n);
    mb_status_clear();
    return found;
}

static mb_status find_folders(mb_shelf *s, mb_shelf_kind kind, const char *dir, const char *org)
{
    char path[MB_PATH_MAX], id[MB_PATH_MAX];
    char **names = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    if (!mb_path_is_dir(dir))
        return MB_OK;
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        MB_TRY_GOTO(mb_path_join(path, sizeof path, dir, names[i]), st, done);
        MB_TRY_GOTO(mb_path_join(id, sizeof id, org, names[i]), st, done);
        if (!mb_path_is_dir(path) || !mb_shelf_is_id(id))
            continue;
        if (org[0] == '\0' && !is_known(s, kind, id) && !holds_files(path))
            st = find_folders(s, kind, path, names[i]);
        else
            st = add(s, kind, id, NULL);
    }
done:
    mb_path_list_free(names, n);
    return st;
}

/* "models--org--name" -> kind, "org/name". */
static bool cache_name(const char *name, mb_shelf_kind *kind, char *id, size_t size)
{
    for (int k = 0; k < MB_SHELF_KINDS; k++) {
        const char *folder = mb_shelf_kind_folder((mb_shelf_kind)k);
        const size_t n = strlen(folder);
        if (strncmp(name, folder, n) != 0 || strncmp(name + n, "--", 2) != 0)
            continue;
        *kind = (mb_shelf_kind)k;
        snprintf(id, size, "%s", name + n + 2);
        char *dashes = strstr(id, "--");
        if (dashes != NULL) {
            *dashes = '/';
            memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
        }
        return mb_shelf_is_id(id);
    }
    return false;
}

static mb_status find_caches(mb_shelf *s, const char *dir)
{
    char path[MB_PATH_MAX], id[MB_SHELF_ID_MAX];
    mb_shelf_kind kind;
    char **names = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    if (!mb_path_is_dir(dir))
        return MB_OK;
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        MB_TRY_GOTO(mb_path_join(path, sizeof path, dir, names[i]), st, done);
        if (mb_path_is_dir(path) && strlen(names[i]) < MB_SHELF_ID_MAX &&
            cache_name(names[i], &kind, id, sizeof id))
            st = add(s, kind, id, path);
    }
done:
    mb_path_list_free(names, n);
    return st;
}

/* What the store knows and no folder holds: repositories that were made here. */
static mb_status find_records(mb_shelf *s)
{
    char dir[MB_PATH_MAX], state[MB_PATH_MAX], id[MB_SHELF_ID_MAX];
    mb_shelf_kind kind;
    char **names = NULL;
    size_t n = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(dir, sizeof dir, s->store, "repos"));
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_path_list(dir, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        if ((size_t)snprintf(state, sizeof state, "%s/%s/state.json", dir, names[i]) <
                sizeof state &&
            mb_path_is_file(state) && strlen(names[i]) < MB_SHELF_ID_MAX &&
            cache_name(names[i], &kind, id, sizeof id))
            st = add(s, kind, id, NULL);
    }
    mb_path_list_free(names, n);
    return st;
}

static mb_status find_all(mb_shelf *s)
{
    char path[MB_PATH_MAX];

    for (int k = 0; k < MB_SHELF_KINDS; k++) {
        MB_TRY(mb_path_join(path, sizeof path, s->dir, mb_shelf_kind_folder((mb_shelf_kind)k)));
        MB_TRY(find_folders(s, (mb_shelf_kind)k, path, ""));
    }
    MB_TRY(find_caches(s, s->dir));
    MB_TRY(mb_path_join(path, sizeof path, s->dir, "hub"));
    return find_caches(s, path);
}

static mb_status look(mb_shelf *s, bool patient)
{
    size_t n;

    MB_TRY(find_all(s));
    pthread_mutex_lock(&s->lock);
    n = s->n;
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < n && !s->stop; i++) {
        pthread_mutex_lock(&s->lock);
        mb_repo *r = i < s->n ? s->repos[i] : NULL;
        pthread_mutex_unlock(&s->lock);
        if (r == NULL || r->gone)
            continue;
        const mb_status st =
            r->cache ? mb_shelf_look_cache(s, r) : mb_shelf_look_folder(s, r, patient);
        if (st == MB_EDATA || (st == MB_EIO && patient)) { /* others are served all the same */
            mb_log_warn("%s: %s", r->id, mb_status_sentence());
            mb_status_clear();
        } else {
            MB_TRY(st);
        }
    }
    return MB_OK;
}

mb_status mb_shelf_look(mb_shelf *s)
{
    return look(s, false);
}

static void *watch(void *arg)
{
    mb_shelf *s = arg;
    struct timespec until;

    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        clock_gettime(CLOCK_REALTIME, &until);
        const double at = (double)until.tv_nsec / 1e9 + s->look_again;
        until.tv_sec += (time_t)at;
        until.tv_nsec = (long)((at - (double)(time_t)at) * 1e9);
        pthread_cond_timedwait(&s->wake, &s->lock, &until);
        if (s->stop)
            break;
        pthread_mutex_unlock(&s->lock);
        if (look(s, true) != MB_OK) {
            mb_log_warn("%s: %s", s->dir, mb_status_sentence());
            mb_status_clear();
        }
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

mb_status mb_shelf_open(const mb_shelf_options *o, mb_shelf **out)
{
    mb_shelf *s;
    mb_status st = MB_OK;

    MB_REQUIRE(mb_path_is_dir(o->dir), MB_EARG, "'%s' is no folder", o->dir);
    MB_TRY(MB_NEW(&s));
    s->lock_fd = -1;
    s->writable = o->writable;
    s->look_again = o->look_again == 0 ? 3 : o->look_again;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->writing, NULL);
    pthread_cond_init(&s->wake, NULL);
    MB_TRY_GOTO(choose_dir(s, o->dir), st, done);
    MB_TRY_GOTO(choose_store(s, o), st, done);
    MB_TRY_GOTO(mb_path_mkdirs(s->store), st, done);
    MB_TRY_GOTO(lock_store(s), st, done);
    MB_TRY_GOTO(lasting_hex(s->store, "id", 32, s->id), st, done);
    MB_TRY_GOTO(lasting_hex(s->store, "secret", 64, s->secret), st, done);
    MB_TRY_GOTO(mb_objects_open(s->store, &s->objects), st, done);
    MB_TRY_GOTO(find_records(s), st, done);
    MB_TRY_GOTO(look(s, false), st, done);
    if (s->look_again > 0) {
        if (pthread_create(&s->watcher, NULL, watch, s) != 0) {
            st = MB_RAISE(MB_ENOMEM, "no thread can be made");
            goto done;
        }
        s->watching = true;
    }
    *out = s;
    return MB_OK;
done:
    mb_shelf_close(s);
    return st;
}

static void free_repo(mb_repo *r)
{
    for (int i = 0; i < MB_SHELF_TREES; i++)
        mb_shelf_tree_unref(r->trees[i]);
    mb_shelf_refs_free(r->refs, r->n_refs);
    mb_seen_release(&r->seen);
    mb_free(r->id);
    mb_free(r->folder);
    mb_free(r->records);
    mb_free(r);
}

void mb_shelf_close(mb_shelf *s)
{
    if (s == NULL)
        return;
    if (s->watching) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->watcher, NULL);
    }
    for (size_t i = 0; i < s->n; i++)
        free_repo(s->repos[i]);
    mb_free(s->repos);
    mb_objects_close(s->objects);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->writing);
    pthread_cond_destroy(&s->wake);
    mb_free(s->store);
    mb_free(s->dir);
    mb_free(s);
}
