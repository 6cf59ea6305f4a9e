/* recipes/data/pictures.c - see recipes/data/pictures.h. */
#include "recipes/data/pictures.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

struct thread {
    mb_image_work work;
    float *planes;
};

struct mb_pictures {
    mb_pictures_options o;
    struct thread *thread;
    int64_t most_pixels;
    char why[512]; /* of the first picture of a micro-batch that cannot be read */
};

static mb_status reserve_for(mb_pictures *p, const mb_store *s, mb_image_work *w)
{
    for (int64_t r = 0; s != NULL && r < s->n_rows; r++) {
        const mb_picture *x = &s->picture[r];
        const int64_t pixels = x->width * x->height;
        MB_TRY(mb_image_work_reserve(&p->o.processor, w, x->bytes, x->width, x->height));
        p->most_pixels = pixels > p->most_pixels ? pixels : p->most_pixels;
    }
    return MB_OK;
}

static mb_status reserve(mb_pictures *p, const mb_store *a, const mb_store *b)
{
    const mb_patches *q = &p->o.patches;

    MB_TRY(MB_NEW_ARRAY(&p->thread, p->o.threads));
    for (int i = 0; i < p->o.threads; i++) {
        MB_TRY(MB_NEW_ARRAY(&p->thread[i].planes, q->channels * q->height * q->width));
        MB_TRY(reserve_for(p, a, &p->thread[i].work));
        MB_TRY(reserve_for(p, b, &p->thread[i].work));
    }
    return MB_OK;
}

mb_status mb_pictures_new(const mb_pictures_options *o, const mb_store *a, const mb_store *b,
                          mb_pictures **out)
{
    mb_pictures *p = NULL;
    mb_status st;

    MB_TRY(MB_NEW(&p));
    p->o = *o;
    st = reserve(p, a, b);
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
    for (int i = 0; p->thread != NULL && i < p->o.threads; i++) {
        mb_image_work_release(&p->thread[i].work);
        mb_free(p->thread[i].planes);
    }
    mb_free(p->thread);
    mb_free(p);
}

const mb_pictures_options *mb_pictures_are(const mb_pictures *p)
{
    return &p->o;
}

int64_t mb_pictures_library_bytes(const mb_pictures *p)
{
    return p->o.threads * mb_image_library_bytes(p->most_pixels);
}

static mb_status one(const mb_pictures *p, struct thread *t, const char *path,
                     const mb_augment *augment, const mb_draws *draws, float *rows)
{
    MB_TRY(mb_image_read(path, p->o.processor.alpha, &t->work.image, NULL));
    MB_TRY(mb_image_process(&p->o.processor, &t->work, augment, draws, t->planes));
    mb_patches_cut(&p->o.patches, t->planes, rows);
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
