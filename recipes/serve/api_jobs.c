/* recipes/serve/api_jobs.c - where models that are served and runs that make models meet. */
#include <stdio.h>
#include <string.h>

#include "core/path.h"
#include "recipes/serve/api_inside.h"

/* The folders of a model that is served, for a run that starts from it. */
static bool path_of(void *arg, const char *id, char *model, char *adapter, size_t size)
{
    const mb_offer *o = mb_api_find(arg, id);
    const char *of = o != NULL ? o->recipe->adapter_path : NULL;

    return o != NULL && snprintf(model, size, "%s", o->recipe->model_name_or_path) < (int)size &&
           snprintf(adapter, size, "%s", of != NULL ? of : "") < (int)size;
}

/* The model as it is now: one that was written again is another. */
static const mb_offer *offer_of(const mb_api *a, const char *path)
{
    const int64_t changed = mb_path_changed(path);

    for (int i = mb_api_offers(a); i-- > 0;) {
        const mb_offer *o = mb_api_offer_at(a, i);

        if (strcmp(o->path, path) == 0 && o->changed == changed)
            return o;
    }
    return NULL;
}

/* Names it after its folder; another that has this name already makes it NAME-2. */
static mb_status add(mb_api *a, const char *path, const char *name)
{
    char text[MB_PATH_MAX + 300], real[MB_PATH_MAX];
    mb_status st;

    MB_TRY(mb_path_real(path, real, sizeof real));
    MB_REQUIRE(strchr(real, '=') == NULL, MB_EARG, "%s: a path with '=' cannot be served", real);
    st = mb_api_offer(a, real, a->o.n_words, a->o.word);
    for (int i = 2; st == MB_EARG && i < 100; i++) {
        if (strstr(mb_status_sentence(), "two models are called") == NULL)
            break;
        snprintf(text, sizeof text, "%s-%d=%s", name, i, real);
        mb_status_clear();
        st = mb_api_offer(a, text, a->o.n_words, a->o.word);
    }
    return st;
}

static mb_status offer(void *arg, const char *path, const char *name, char *id, size_t size)
{
    mb_api *a = arg;
    const mb_offer *o;
    mb_status st = MB_OK;

    pthread_mutex_lock(&a->adding);
    o = offer_of(a, path);
    if (o == NULL) {
        st = add(a, path, name);
        if (st == MB_OK)
            o = mb_api_offer_at(a, mb_api_offers(a) - 1);
    }
    if (o != NULL)
        snprintf(id, size, "%s", o->id);
    pthread_mutex_unlock(&a->adding);
    return st;
}

mb_status mb_api_jobs_start(mb_api *a)
{
    return mb_jobs_open(&(mb_jobs_options){.runs = a->o.runs,
                                           .folders = a->o.folders,
                                           .upload_max = a->o.upload_max,
                                           .uploads_max = a->o.uploads_max,
                                           .files_max = a->o.files_max,
                                           .jobs_max = a->o.jobs_max,
                                           .arg = a,
                                           .path_of = path_of,
                                           .offer = offer},
                        &a->jobs);
}
