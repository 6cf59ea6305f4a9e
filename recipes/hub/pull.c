/* recipes/hub/pull.c - see recipes/hub/pull.h: the listing, what of it is here, threads that fetch the
 * rest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/part.h"
#include "recipes/hub/pull_inside.h"

static const double beat_seconds = 10.0;

/* ---- what is to be done -------------------------------------------------------------------- */

/* From the hub's own address, or, when that fails, from a mirror's. */
static mb_status read_listing(mb_pull_run *r)
{
    mb_status first = MB_OK;
    char sentence[1500] = "";

    for (size_t i = 0; i < r->n_bases; i++) {
        const mb_status st = mb_hub_listing_read(r->hub, r->base[i], &r->o->name, &r->listing);

        if (st == MB_OK) {
            if (i > 0)
                mb_log_warn("%s; the listing is that of the mirror %s", sentence, r->base[i]);
            atomic_store(&r->base_at, i);
            return MB_OK;
        }
        if (first == MB_OK) {
            first = st;
            snprintf(sentence, sizeof sentence, "%s", mb_status_sentence());
        }
        mb_status_clear();
    }
    mb_status_set(first, sentence);
    return first;
}

static mb_status check_names(const mb_pull_run *r)
{
    for (size_t i = 0; !r->place.is_cache && i < r->listing.n; i++)
        MB_REQUIRE(
            strncasecmp(r->listing.file[i].path, ".cache/", 7) != 0, MB_EDATA,
            "%s: the listing has the name '%s', which is mbuyu's own in a folder; nothing of "
            "this repository is fetched",
            r->o->name.id, r->listing.file[i].path);
    return MB_OK;
}

static int by_digest(const void *a, const void *b)
{
    const mb_pull_job *x = a, *y = b;
    const int order = strcmp(x->file->digest, y->file->digest);

    return order != 0 ? order : strcmp(x->file->path, y->file->path);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mb_pull_job *)a)->file->path, ((const mb_pull_job *)b)->file->path);
}

/* One job for each wanted file; of several with the same bytes one is fetched. */
static mb_status make_jobs(mb_pull_run *r)
{
    MB_TRY(MB_NEW_ARRAY(&r->job, r->listing.n));
    for (size_t i = 0; i < r->listing.n; i++)
        if (r->listing.file[i].wanted)
            r->job[r->n_jobs++].file = &r->listing.file[i];
    MB_REQUIRE(r->n_jobs > 0, MB_EARG, "%s: none of its %zu files is wanted (--include, --exclude)",
               r->o->name.id, r->listing.n);
    qsort(r->job, r->n_jobs, sizeof *r->job, by_digest);
    for (size_t i = 1; i < r->n_jobs; i++)
        if (strcmp(r->job[i].file->digest, r->job[i - 1].file->digest) == 0 &&
            r->job[i].file->size == r->job[i - 1].file->size)
            r->job[i].twin = r->job[i - 1].twin != NULL ? r->job[i - 1].twin : r->job[i - 1].file;
    qsort(r->job, r->n_jobs, sizeof *r->job, by_name);
    for (size_t i = 0; i < r->n_jobs; i++)
        r->bytes += r->job[i].twin == NULL ? r->job[i].file->size : 0;
    return MB_OK;
}

/* What of it is here. */
static mb_status look(mb_pull_run *r)
{
    char base[MB_PATH_MAX];

    for (size_t i = 0; i < r->n_jobs; i++) {
        mb_pull_job *j = &r->job[i];

        MB_TRY(mb_place_has(&r->place, j->file, r->listing.commit, r->o->check, &j->has));
        MB_TRY(mb_place_part(&r->place, j->file, base));
        j->kept = j->has ? j->file->size : mb_part_kept(base, j->file->size);
    }
    return MB_OK;
}

static int64_t missing(const mb_pull_run *r)
{
    int64_t n = 0;

    for (size_t i = 0; i < r->n_jobs; i++)
        if (r->job[i].twin == NULL || !r->place.is_cache)
            n += r->job[i].file->size - r->job[i].kept;
    return n;
}

static mb_status check_space(const mb_pull_run *r)
{
    const int64_t need = missing(r);
    struct statvfs s;
    char a[32], b[32];

    if (statvfs(r->place.parts, &s) != 0 || s.f_frsize == 0)
        return MB_OK;
    MB_REQUIRE((uint64_t)need / s.f_frsize < s.f_bavail, MB_EIO,
               "%s needs %s more in %s, where %s are free", r->o->name.id,
               mb_hub_size(need, a, sizeof a), r->place.root,
               mb_hub_size((int64_t)(s.f_bavail * s.f_frsize), b, sizeof b));
    return MB_OK;
}

static void print_plan(const mb_pull_run *r, FILE *out)
{
    char size[32], total[32];

    for (size_t i = 0; i < r->n_jobs; i++) {
        const mb_pull_job *j = &r->job[i];
        char state[64] = "";

        if (j->has)
            snprintf(state, sizeof state, "is here");
        else if (j->twin != NULL)
            snprintf(state, sizeof state, "same bytes as another");
        else if (j->kept > 0)
            snprintf(state, sizeof state, "%s are here", mb_hub_size(j->kept, total, sizeof total));
        fprintf(out, "%10s  %s%s%s%s\n", mb_hub_size(j->file->size, size, sizeof size),
                j->file->path, state[0] != '\0' ? "  (" : "", state, state[0] != '\0' ? ")" : "");
    }
    fprintf(out, "%10s  in %zu files of %s at %s; %s to fetch\n",
            mb_hub_size(r->bytes, size, sizeof size), r->n_jobs, r->o->name.id, r->listing.commit,
            mb_hub_size(missing(r), total, sizeof total));
}

/* ---- fetching ------------------------------------------------------------------------------ */

static void *work(void *arg)
{
    mb_pull_run *r = arg;

    while (!atomic_load(&r->stop)) {
        const size_t i = atomic_fetch_add(&r->next, 1);
        mb_status st;

        if (i >= r->n_jobs)
            break;
        if (r->job[i].has || r->job[i].twin != NULL)
            continue;
        st = mb_pull_file(r, &r->job[i]);
        if (st == MB_OK)
            continue;
        pthread_mutex_lock(&r->mutex);
        if (r->st == MB_OK) {
            r->st = st;
            snprintf(r->sentence, sizeof r->sentence, "%s", mb_status_sentence());
        }
        pthread_mutex_unlock(&r->mutex);
        mb_status_clear();
        atomic_store(&r->stop, true);
    }
    atomic_fetch_sub(&r->running, 1);
    return NULL;
}

/* Watches the threads: draws, and stops them when the place has become another process's. */
static mb_status watch(mb_pull_run *r)
{
    double beat = mb_clock();
    mb_status st = MB_OK;

    while (atomic_load(&r->running) > 0) {
        mb_fetch_sleep(0.02);
        mb_pull_show(r);
        if (st == MB_OK && mb_clock() - beat > beat_seconds) {
            st = mb_lock_beat(&r->lock);
            beat = mb_clock();
            if (st != MB_OK)
                atomic_store(&r->stop, true);
        }
    }
    return st;
}

static mb_status fetch(mb_pull_run *r)
{
    const int most = r->o->jobs > 0 ? r->o->jobs : 4;
    pthread_t thread[MB_PULL_MAX_JOBS];
    char kept[32], all[32];
    int n = 0;
    mb_status st;

    mb_pull_show_begin();
    atomic_store(&r->running, most);
    while (n < most && pthread_create(&thread[n], NULL, work, r) == 0)
        n++;
    atomic_fetch_sub(&r->running, most - n);
    st = n > 0 ? watch(r) : MB_RAISE(MB_ENOMEM, "no thread can be started");
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    mb_pull_show_end();
    MB_TRY(st);
    if (r->st == MB_OK)
        return MB_OK;
    snprintf(r->sentence + strlen(r->sentence), sizeof r->sentence - strlen(r->sentence),
             "; %s of %s are here and kept%s",
             mb_hub_size(atomic_load(&r->here), kept, sizeof kept),
             mb_hub_size(r->bytes, all, sizeof all),
             r->st == MB_ENET ? ", the same command goes on from there" : "");
    mb_status_set(r->st, r->sentence);
    return r->st;
}

/* Names for what was here before, and for files with the bytes of another. */
static mb_status name_the_rest(const mb_pull_run *r)
{
    char base[MB_PATH_MAX];

    for (size_t i = 0; i < r->n_jobs; i++) {
        const mb_pull_job *j = &r->job[i];

        if (j->has) {
            MB_TRY(mb_place_part(&r->place, j->file, base));
            mb_part_forget(base);
        }
        if (j->has)
            MB_TRY(mb_place_name(&r->place, j->file, r->listing.commit));
        else if (j->twin != NULL)
            MB_TRY(mb_place_again(&r->place, j->twin, j->file, r->listing.commit));
    }
    return MB_OK;
}

static mb_status lock_path(const mb_pull_run *r, char *path)
{
    char cache[MB_PATH_MAX], locks[MB_PATH_MAX], dir[MB_PATH_MAX];

    if (!r->place.is_cache)
        return mb_path_join(path, MB_PATH_MAX, r->place.parts, "lock");
    MB_TRY(mb_path_dir(cache, sizeof cache, r->place.root));
    MB_TRY(mb_path_join(locks, sizeof locks, cache, ".locks"));
    MB_TRY(mb_path_join(dir, sizeof dir, locks, mb_path_base(r->place.root)));
    return mb_path_join(path, MB_PATH_MAX, dir, "mbuyu.lock");
}

static mb_status fetch_locked(mb_pull_run *r)
{
    char path[MB_PATH_MAX];
    mb_status st;

    MB_TRY(lock_path(r, path));
    MB_TRY(mb_lock_take(path, r->o->name.id, &r->lock));
    MB_TRY_GOTO(mb_place_make(&r->place), st,
                done);              /* now: who had the lock may have removed all */
    MB_TRY_GOTO(look(r), st, done); /* what is here now */
    MB_TRY_GOTO(check_space(r), st, done);
    for (size_t i = 0; i < r->n_jobs; i++)
        if (r->job[i].has && r->job[i].twin == NULL)
            atomic_fetch_add(&r->here, r->job[i].file->size);
    for (size_t i = 0; i < r->n_jobs; i++)
        if (r->job[i].has || r->job[i].twin != NULL)
            atomic_fetch_add(&r->whole, 1);
    MB_TRY_GOTO(fetch(r), st, done);
    MB_TRY_GOTO(mb_lock_beat(&r->lock), st, done);
    MB_TRY_GOTO(name_the_rest(r), st, done);
    MB_TRY_GOTO(mb_lock_beat(&r->lock), st, done);
    st = mb_place_ref(&r->place, &r->o->name, r->listing.commit);
done:
    mb_lock_give(&r->lock);
    return st;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static void tell(const mb_pull_options *o, const char *path, FILE *out)
{
    if (o->name.is_dataset)
        mb_log_info("in Python: load_dataset(\"%s\"); in recipes: dataset:%s/FILE", path,
                    o->name.id);
    fprintf(out, "%s\n", path);
}

static mb_status run(mb_pull_run *r, FILE *out)
{
    char size[32];

    MB_TRY(read_listing(r));
    mb_hub_listing_choose(&r->listing, r->o->include, r->o->n_include, r->o->exclude,
                          r->o->n_exclude);
    MB_TRY(mb_place_open(r->o, r->listing.commit, &r->place));
    MB_TRY(check_names(r));
    MB_TRY(make_jobs(r));
    if (r->o->dry_run) {
        MB_TRY(look(r));
        print_plan(r, out);
        return MB_OK;
    }
    MB_TRY(fetch_locked(r));
    mb_log_info("%s: %zu files, %s, at %s", r->o->name.id, r->n_jobs,
                mb_hub_size(r->bytes, size, sizeof size), r->listing.commit);
    tell(r->o, r->place.snapshot, out);
    return MB_OK;
}

mb_status mb_pull(const mb_hub *hub, const mb_pull_options *o, FILE *out)
{
    mb_pull_run *r = NULL;
    mb_status st;

    MB_TRY(MB_NEW(&r));
    r->hub = hub;
    r->o = o;
    r->base[r->n_bases++] = hub->endpoint;
    for (size_t i = 0; i < o->n_mirrors; i++)
        r->base[r->n_bases++] = o->mirror[i];
    pthread_mutex_init(&r->mutex, NULL);
    st = run(r, out);
    pthread_mutex_destroy(&r->mutex);
    mb_hub_listing_release(&r->listing);
    mb_free(r->job);
    mb_free(r);
    return st;
}

mb_status mb_pull_offline(const mb_pull_options *o, FILE *out)
{
    char path[MB_PATH_MAX];

    MB_REQUIRE(o->to == NULL, MB_ENET, "offline nothing can be fetched to %s", o->to);
    MB_TRY(mb_hub_path(&o->name, path, sizeof path));
    MB_REQUIRE(path[0] != '\0', MB_ENET, "offline, and the cache does not have %s%s%s", o->name.id,
               o->name.revision[0] != '\0' ? " at " : "", o->name.revision);
    tell(o, path, out);
    return MB_OK;
}
