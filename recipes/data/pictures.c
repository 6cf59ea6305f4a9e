/* recipes/data/pictures.c - see recipes/data/pictures.h. */
#include "recipes/data/pictures.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/ahead.h"

struct thread {
    mb_image_work work;
    float *planes;
};

struct mb_pictures {
    mb_pictures_options o;
    struct thread *thread; /* (team) of the team; of those ahead o.threads and one more */
    struct thread *thread_ahead;
    int team;
    mb_ahead *ahead; /* NULL: none */
    const mb_store *store[2];
    int64_t most_pixels;
    char why[512]; /* of the first picture of a micro-batch that cannot be read */
};

static mb_status reserve_for(mb_pictures *p, const mb_store *s, mb_image_work *w)
{
    for (int64_t r = 0; s != NULL && r < s->n_rows; r++) {
        const mb_picture *x = &s->picture[r];
        const int64_t pixels = x->width * x->height;
        const mb_status st =
            mb_image_work_reserve(&p->o.processor, w, x->bytes, x->width, x->height);
        if (st != MB_OK)
            return mb_status_prefix(st, "%s: ", mb_store_media(s, r));
        p->most_pixels = pixels > p->most_pixels ? pixels : p->most_pixels;
    }
    return MB_OK;
}

static mb_status reserve(mb_pictures *p, int threads, struct thread **out)
{
    const mb_patches *q = &p->o.patches;

    MB_TRY(MB_NEW_ARRAY(out, threads));
    for (int i = 0; i < threads; i++) {
        struct thread *t = &(*out)[i];
        MB_TRY(MB_NEW_ARRAY(&t->planes, q->channels * q->height * q->width));
        for (int k = 0; k < 2; k++)
            MB_TRY(reserve_for(p, p->store[k], &t->work));
    }
    return MB_OK;
}

static void release(struct thread *threads, int n)
{
    for (int i = 0; threads != NULL && i < n; i++) {
        mb_image_work_release(&threads[i].work);
        mb_free(threads[i].planes);
    }
    mb_free(threads);
}

mb_status mb_pictures_new(const mb_pictures_options *o, const mb_store *a, const mb_store *b,
                          mb_pictures **out)
{
    mb_pictures *p = NULL;
    mb_status st;

    MB_TRY(MB_NEW(&p));
    p->o = *o;
    p->store[0] = a;
    p->store[1] = b;
    p->team = o->threads;
    st = reserve(p, o->threads, &p->thread);
    if (st == MB_OK)
        *out = p;
    else
        mb_pictures_free(p);
    return st;
}

void mb_pictures_free(mb_pictures *p)
{
    if (p == NULL)
        return;
    mb_ahead_free(p->ahead);
    release(p->thread, p->team);
    release(p->thread_ahead, p->o.threads + 1);
    mb_free(p);
}

const mb_pictures_options *mb_pictures_are(const mb_pictures *p)
{
    return &p->o;
}

int64_t mb_pictures_library_bytes(const mb_pictures *p)
{
    const int threads = p->o.threads * (p->ahead != NULL ? 2 : 1);

    return threads * mb_image_library_bytes(p->most_pixels);
}

static mb_status one(const mb_pictures *p, struct thread *t, const char *path,
                     const mb_augment *augment, const mb_draws *draws, float *rows)
{
    MB_TRY(mb_image_read(path, p->o.processor.alpha, &t->work.image, NULL));
    MB_TRY(mb_image_process(&p->o.processor, &t->work, augment, draws, t->planes));
    mb_patches_cut(&p->o.patches, t->planes, rows);
    return MB_OK;
}

/* ---- ahead -------------------------------------------------------------------------------- */

static mb_status make(void *ctx, int thread, const mb_ahead_row *row, float *to)
{
    const mb_pictures *p = ctx;
    const mb_draws draws = {row->seed, row->step, (uint32_t)row->ordinal};
    const mb_augment *augment = mb_augment_is_any(&p->o.augment) ? &p->o.augment : NULL;

    return one(p, &p->thread_ahead[thread], mb_store_media(row->store, row->row), augment, &draws,
               to);
}

mb_status mb_pictures_read_ahead(mb_pictures *p, int64_t places)
{
    const mb_patches *q = &p->o.patches;

    if (p->o.threads > MB_AHEAD_MOST_THREADS)
        p->o.threads = MB_AHEAD_MOST_THREADS; /* of either kind */
    MB_TRY(reserve(p, p->o.threads + 1, &p->thread_ahead));
    return mb_ahead_new(make, p, mb_patches_count(q) * mb_patches_cols(q), places, p->o.threads,
                        &p->ahead);
}

bool mb_pictures_reads_ahead(const mb_pictures *p)
{
    return p->ahead != NULL;
}

bool mb_pictures_idle(const mb_pictures *p)
{
    return p->ahead != NULL && mb_ahead_idle(p->ahead);
}

static mb_ahead_row row_of(const mb_store *s, const mb_micro *micro, int64_t i, uint64_t seed,
                           uint32_t step)
{
    return (mb_ahead_row){
        .store = s, .row = micro->row[i], .seed = seed, .step = step, .ordinal = micro->ordinal[i]};
}

void mb_pictures_expect(mb_pictures *p, const mb_store *s, const mb_micro *micro, uint64_t seed,
                        uint32_t step)
{
    for (int64_t i = 0; i < micro->n_rows; i++) {
        const mb_ahead_row row = row_of(s, micro, i, seed, step);
        if (!mb_ahead_expect(p->ahead, &row))
            return;
    }
}

/* When the first row is the next that was expected; what else was expected comes too late. */
static bool was_expected(mb_pictures *p, const mb_store *s, const mb_micro *micro, uint64_t seed,
                         uint32_t step)
{
    if (p->ahead == NULL || micro->n_rows == 0)
        return false;
    const mb_ahead_row row = row_of(s, micro, 0, seed, step);
    if (mb_ahead_is_next(p->ahead, &row))
        return true;
    mb_ahead_forget(p->ahead);
    return false;
}

static mb_status take(mb_pictures *p, const mb_store *s, const mb_micro *micro, uint64_t seed,
                      uint32_t step, mb_batch *b)
{
    for (int64_t i = 0; i < micro->n_rows; i++) {
        const mb_ahead_row row = row_of(s, micro, i, seed, step);
        MB_TRY(mb_ahead_take(p->ahead, &row, mb_patches_rows(&p->o.patches, b, i)));
    }
    return MB_OK;
}

mb_status mb_pictures_fill(mb_pictures *p, const mb_store *s, const mb_micro *micro, uint64_t seed,
                           uint32_t step, bool augmented, mb_batch *b)
{
    const mb_augment *augment =
        augmented && mb_augment_is_any(&p->o.augment) ? &p->o.augment : NULL;
    int64_t first = INT64_MAX;
    mb_status failed = MB_OK;

    for (int64_t i = 0; i < micro->n_rows; i++)
        mb_patches_append(&p->o.patches, b, micro->ordinal[i]);
    if (augmented && was_expected(p, s, micro, seed, step))
        return take(p, s, micro, seed, step, b);
#pragma omp parallel for num_threads(p->o.threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < micro->n_rows; i++) {
        const mb_draws draws = {seed, step, (uint32_t)micro->ordinal[i]};
        const char *path = mb_store_media(s, micro->row[i]);
        const mb_status st = one(p, &p->thread[omp_get_thread_num()], path, augment, &draws,
                                 mb_patches_rows(&p->o.patches, b, i));
        if (st == MB_OK)
            continue;
#pragma omp critical(mb_pictures_failed)
        if (i < first) {
            first = i;
            failed = st;
            snprintf(p->why, sizeof p->why, "%s", mb_status_sentence());
        }
        mb_status_clear();
    }
    return failed == MB_OK ? MB_OK : MB_RAISE(failed, "%s", p->why);
}
