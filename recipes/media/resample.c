/* recipes/media/resample.c - see recipes/media/resample.h. The only file that knows libsoxr. */
#include "recipes/media/resample.h"

#include <soxr.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/media/audio.h"

struct mb_resampler {
    soxr_t soxr; /* NULL: the rates are the same */
    float *out;
    int64_t at, n;
};

int64_t mb_resampled(int64_t n, int rate)
{
    const int64_t samples = (int64_t)((double)n * MB_AUDIO_RATE / rate + 0.5);

    return samples > 0 ? samples : 1;
}

mb_status mb_resampler_new(int from, int to, float *out, int64_t n, mb_resampler **r)
{
    const soxr_io_spec_t io = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
    const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    const soxr_runtime_spec_t runtime = soxr_runtime_spec(1);
    soxr_error_t failed = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(r));
    (*r)->out = out;
    (*r)->n = n;
    if (from != to)
        (*r)->soxr = soxr_create(from, to, 1, &failed, &io, &quality, &runtime);
    if (failed != NULL)
        st = MB_RAISE(MB_EDATA, "resampling from %d to %d Hz failed: %s", from, to, failed);
    if (st != MB_OK) {
        mb_resampler_free(*r);
        *r = NULL;
    }
    return st;
}

void mb_resampler_free(mb_resampler *r)
{
    if (r == NULL)
        return;
    soxr_delete(r->soxr);
    mb_free(r);
}

/* One call of soxr, which takes about as much input as the room left for output asks for. x NULL: no
 * more input. */
static mb_status run(mb_resampler *r, const float *x, int64_t n, size_t *used, size_t *given)
{
    const size_t room = (size_t)(r->n - r->at);
    const soxr_error_t failed =
        soxr_process(r->soxr, x, (size_t)n, used, r->out + r->at, room, given);

    MB_REQUIRE(failed == NULL, MB_EDATA, "resampling failed: %s", failed);
    r->at += (int64_t)*given;
    return MB_OK;
}

mb_status mb_resampler_put(mb_resampler *r, const float *x, int64_t n)
{
    size_t used = 1, given = 0;

    if (r->soxr == NULL) {
        const int64_t room = r->n - r->at, fits = n < room ? n : room;

        memcpy(r->out + r->at, x, (size_t)fits * sizeof *x);
        r->at += fits;
        return MB_OK;
    }
    while (n > 0 && r->at < r->n) {
        MB_TRY(run(r, x, n, &used, &given));
        MB_REQUIRE(used > 0 || given > 0, MB_EBUG, "the resampler takes no more samples");
        x += used;
        n -= (int64_t)used;
    }
    return MB_OK;
}

mb_status mb_resampler_end(mb_resampler *r)
{
    size_t used, given = r->soxr != NULL;

    while (given > 0 && r->at < r->n)
        MB_TRY(run(r, NULL, 0, &used, &given));
    return MB_OK;
}
