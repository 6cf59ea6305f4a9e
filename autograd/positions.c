/* autograd/positions.c - see autograd/positions.h. */
#include "autograd/positions.h"

#include <math.h>

#include "core/alloc.h"

int32_t mb_position_bucket(int64_t distance, bool both_ways, int64_t buckets, int64_t max_distance)
{
    const int64_t n = both_ways ? buckets / 2 : buckets, exact = n / 2;
    const int64_t first = both_ways && distance > 0 ? n : 0;
    const int64_t far = distance < 0 ? -distance : both_ways ? distance : 0;

    if (far < exact)
        return (int32_t)(first + far);
    const float share = logf((float)far / (float)exact) /
                        (float)log((double)max_distance / (double)exact) * (float)(n - exact);
    const int64_t bucket = exact + (int64_t)share;
    return (int32_t)(first + (bucket < n ? bucket : n - 1));
}

/* Of fairseq's waves; in f32, as PyTorch has it. */
static float frequency(int64_t i, int64_t half)
{
    const float step = (float)(log(10000.0) / (double)(half > 1 ? half - 1 : 1));

    return expf((float)i * -step);
}

float mb_position_wave(int64_t position, int64_t column, int64_t width)
{
    const int64_t half = width / 2;
    const double angle = (double)((float)position * frequency(half > 0 ? column % half : 0, half));

    return (float)(column < half ? sin(angle) : cos(angle));
}

/* Row p: sines, then cosines, of (p + offset) times falling frequencies. Each kind is computed in the
 * precision its checkpoints were made with. */
static void fill_waves(const mb_model *m, float *table)
{
    const mb_model_config *c = &m->config;
    const int64_t half = c->width / 2;

    for (int64_t i = 0; i < half; i++) {
        const double f = pow(10000.0, -(double)i / (double)half);
        const float g = frequency(i, half);

        for (int64_t p = 0; p < m->max_positions; p++) {
            const int64_t at = p + c->first_position;
            const double angle =
                c->sinusoid == MB_SINUSOID_HALF ? (double)at * f : (double)((float)at * g);
            table[p * c->width + i] = (float)sin(angle);
            table[p * c->width + half + i] = (float)cos(angle);
        }
    }
}

static mb_status bind_waves(mb_model *m, mb_arena *run)
{
    const int64_t n = m->max_positions * m->config.width;
    float *table = NULL;
    mb_status st;
    void *p;

    MB_REQUIRE(m->config.width % 2 == 0, MB_EMODEL,
               "positions that are waves need an even width, not %lld", (long long)m->config.width);
    MB_TRY(mb_arena_take(run, (size_t)mb_dtype_bytes(m->dtype, n), &p));
    m->sinusoid = mb_tensor_2d(p, m->dtype, m->max_positions, m->config.width);
    if (mb_arena_is_counting(run))
        return MB_OK;
    MB_TRY(MB_NEW_ARRAY(&table, n));
    fill_waves(m, table);
    st = mb_device_write_f32(m->device, &m->sinusoid, table);
    mb_free(table);
    return st;
}

static mb_status bind_buckets(mb_model *m, mb_arena *run, bool both_ways, mb_tensor *out)
{
    const mb_model_config *c = &m->config;
    const int64_t n = 2 * m->max_positions - 1;
    int32_t *table = NULL;
    mb_status st;
    void *p;

    MB_TRY(mb_arena_take(run, (size_t)n * sizeof *table, &p));
    *out = mb_tensor_1d(p, MB_DTYPE_I32, n);
    if (mb_arena_is_counting(run))
        return MB_OK;
    MB_TRY(MB_NEW_ARRAY(&table, n));
    for (int64_t i = 0; i < n; i++)
        table[i] =
            mb_position_bucket(i - m->max_positions + 1, both_ways, c->buckets, c->max_distance);
    st = mb_device_write(m->device, out, table);
    mb_free(table);
    return st;
}

mb_status mb_positions_bind(mb_model *m, mb_arena *run)
{
    if (m->config.sinusoid != MB_SINUSOID_NONE)
        MB_TRY(bind_waves(m, run));
    for (int i = 0; i < 2 && m->config.buckets > 0; i++)
        MB_TRY(bind_buckets(m, run, i == 0, &m->buckets[i]));
    return MB_OK;
}
