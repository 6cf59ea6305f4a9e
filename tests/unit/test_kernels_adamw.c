/* tests/unit/test_kernels_adamw.c - twenty steps against numbers from PyTorch, and steps with moments in
 * bf16 and 8 bits against double precision.
 *
 * torch 2.13, torch.optim.AdamW(foreach=False, fused=False), f32 on a CPU, one thread:
 * p[i] = ((29 i) mod 64 - 32)/16, gradient of step t = 1..20: ((37 i + 101 t) mod 97 - 48)/64.
 */
#include "core/code8.h"
#include "kernel_test.h"

enum { N = 24, STEPS = 20 };

static const struct golden {
    double lr, beta1, beta2, eps, weight_decay;
    float param[N], m[N], v[N];
} golden[] = {
    {1e-2,
     0.9,
     0.999,
     1e-8,
     0.1,
     {-1.84227502f,  -0.243514493f, 1.57545817f,   -0.500527382f, 1.11564016f,  -0.882585585f,
      0.831469417f,  -1.33273137f,  0.588320315f,  -1.74746871f,  0.119072936f, 1.92204785f,
      -0.344578713f, 1.66233063f,   -0.652121782f, 1.1299479f,    -0.90652889f, 0.675672591f,
      -1.33547699f,  0.423484564f,  -1.77687562f,  0.175760508f,  1.76767564f,  -0.327646911f},
     {0.0970693603f,  -0.105251878f, -0.0908249095f, 0.289224476f,  -0.131377876f,  0.016763648f,
      0.0706452057f,  -0.141155377f, 0.165696189f,   -0.117171586f, -0.0534034483f, 0.2062888f,
      -0.12146946f,   0.0421678908f, -0.0706572011f, -0.11105372f,  0.23432301f,    -0.121036626f,
      -0.0128614698f, 0.138509363f,  -0.153251126f,  0.110794723f,  -0.0915265158f, -0.0770995393f},
     {0.00273955893f, 0.00428138953f, 0.00416072365f, 0.00289300713f, 0.00455956394f,
      0.00340973027f, 0.00387745537f, 0.00445635151f, 0.00257670949f, 0.00442015007f,
      0.00393290259f, 0.00328888837f, 0.00457630679f, 0.00304395915f, 0.00412306236f,
      0.00430702418f, 0.00265569636f, 0.00451838458f, 0.00366713363f, 0.00364259118f,
      0.00453004055f, 0.00268764189f, 0.00430391915f, 0.00411914056f}},
    {3e-4,
     0.4,
     0.95,
     1e-6,
     0.0,
     {-1.9993093f,   -0.189822495f, 1.6254791f,    -0.564608634f, 1.24790311f,  -0.936929226f,
      0.87204951f,   -1.31247342f,  0.499753296f,  -1.69013429f,  0.12552999f,  1.93490982f,
      -0.251578629f, 1.56385958f,   -0.627273262f, 1.18773162f,   -1.00126326f, 0.809725404f,
      -1.37449718f,  0.4345918f,    -1.75036108f,  0.06301146f,   1.87242591f,  -0.312147856f},
     {0.458333343f,  -0.472958654f,  0.09895996f,   0.677083373f,  -0.260019362f, 0.317708433f,
      -0.522791684f, -0.0416564904f, 0.536458313f,  -0.398558468f, 0.177083984f,  -0.154166684f,
      -0.182132736f, 0.395833343f,   -0.52614665f,  0.0364624001f, 0.614583373f,  -0.321923375f,
      0.255208582f,  -0.439791679f,  -0.104141235f, 0.473958343f,  -0.457333654f, 0.11458496f},
     {0.0791811571f, 0.162525252f,  0.106867343f,  0.112970196f,  0.149959505f,  0.085388191f,
      0.156566635f,  0.124814726f,  0.0842007846f, 0.160148337f,  0.0979411751f, 0.133996174f,
      0.142068297f,  0.0808037519f, 0.161562547f,  0.114565007f,  0.097051397f,  0.155375078f,
      0.0904551148f, 0.149058565f,  0.132715121f,  0.0795586035f, 0.161945611f,  0.105004184f}}};

static float gradient(int64_t i, int t)
{
    return (float)((37 * i + 101 * t) % 97 - 48) / 64.0f;
}

static mb_adamw step_of(const struct golden *g, int t, float grad_scale)
{
    return (mb_adamw){
        .lr = g->lr,
        .beta1 = g->beta1,
        .beta2 = g->beta2,
        .eps = g->eps,
        .weight_decay = g->weight_decay,
        .correction1 = 1.0 - pow(g->beta1, t),
        .correction2 = 1.0 - pow(g->beta2, t),
        .grad_scale = grad_scale,
    };
}

/* The same N elements over and over; element i + k N must end like element i. */
static void train(mb_exec *ex, const struct golden *g, int64_t n, float grad_scale, mb_tensor *p,
                  mb_tensor *m, mb_tensor *v)
{
    mb_tensor grad = vector(n);

    *p = vector(n), *m = vector(n), *v = vector(n);
    RUN(ex, fill, m, 0.0f);
    RUN(ex, fill, v, 0.0f);
    for (int64_t i = 0; i < n; i++)
        mb_f32(p)[i] = (float)(i % N * 29 % 64 - 32) / 16.0f;
    for (int t = 1; t <= STEPS; t++) {
        const mb_adamw a = step_of(g, t, grad_scale);

        for (int64_t i = 0; i < n; i++)
            mb_f32(&grad)[i] = gradient(i % N, t) / grad_scale;
        RUN(ex, adamw, p, m, v, &grad, &a);
    }
}

static void check_close(const float *got, const float *want)
{
    for (int i = 0; i < N; i++)
        check_near(got[i], want[i], 3e-7 * fabs(want[i]) + 3e-8);
}

static void twenty_steps_agree_with_pytorch(void **state)
{
    (void)state;
    for (int k = 0; k < COUNT(golden); k++) {
        mb_exec ex = exec_with(1);
        mb_tensor p, m, v;

        train(&ex, &golden[k], N, 1.0f, &p, &m, &v);
        check_close(mb_f32(&p), golden[k].param);
        check_close(mb_f32(&m), golden[k].m);
        check_close(mb_f32(&v), golden[k].v);
    }
}

static void neither_place_nor_threads_nor_scale_change_bits(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const int64_t n = 3000 * N + 7;
        mb_exec ex = exec_with(team_sizes[i]);
        mb_tensor p, m, v, p1, m1, v1;

        train(&ex, &golden[0], N, 1.0f, &p1, &m1, &v1);
        train(&ex, &golden[0], n, 4.0f, &p, &m, &v);
        for (int64_t k = 0; k < n; k++) {
            assert_true(mb_f32(&p)[k] == mb_f32(&p1)[k % N]);
            assert_true(mb_f32(&m)[k] == mb_f32(&m1)[k % N]);
            assert_true(mb_f32(&v)[k] == mb_f32(&v1)[k % N]);
        }
        mb_arena_reset(memory);
    }
}

/* Whatever runs this test gives the CPU's bits: correctly rounded, in the same order, not contracted. */
static void bits_are_those_of_the_cpu(void **state)
{
    mb_exec cpu = mb_cpu_exec(scratch, 1), ex = exec_with(1);

    (void)state;
    for (int k = 0; k < COUNT(golden); k++) {
        const int64_t n = 5003;
        const mb_adamw a = step_of(&golden[k], 3, 0.37f);
        mb_tensor p = random_vector(n, 0.0f, 1.0f), m = random_vector(n, 0.0f, 0.1f);
        mb_tensor v = random_vector(n, 0.0f, 0.1f), grad = random_vector(n, 0.0f, 1.0f);

        for (int64_t i = 0; i < n; i++)
            mb_f32(&v)[i] *= mb_f32(&v)[i];
        mb_tensor p1 = copy_of(&p), m1 = copy_of(&m), v1 = copy_of(&v);
        RUN(&cpu, adamw, &p, &m, &v, &grad, &a);
        RUN(&ex, adamw, &p1, &m1, &v1, &grad, &a);
        check_same(&p1, &p), check_same(&m1, &m), check_same(&v1, &v);
    }
}

static void nothing_to_update_is_fine(void **state)
{
    mb_exec ex = exec_with(2);
    mb_tensor p, m, v;

    (void)state;
    train(&ex, &golden[0], 0, 1.0f, &p, &m, &v);
}

/* ---- moments of fewer bits ------------------------------------------------------------------ */

typedef enum kind { BF16, CODES, KINDS } kind;

/* n parameters and gradients, and moments that are there already; 8 bits: whole blocks of them. */
typedef struct problem {
    kind k;
    int64_t n;
    mb_tensor p, m, v, grad;
} problem;

static int64_t stored(kind k, int64_t n)
{
    return k == CODES ? (n + MB_CODE8_BLOCK - 1) / MB_CODE8_BLOCK * MB_CODE8_BLOCK : n;
}

static mb_tensor moment(kind k, int64_t n, bool first)
{
    const mb_dtype d = k == BF16 ? MB_DTYPE_BF16 : first ? MB_DTYPE_DYN8 : MB_DTYPE_DYNU8;

    return mb_tensor_1d(take(mb_dtype_bytes(d, stored(k, n))), d, stored(k, n));
}

static float *numbers_of(const mb_tensor *t)
{
    float *x = take(4 * mb_tensor_count(t));

    OK(mb_device_read_f32(NULL, x, t));
    return x;
}

/* Gradients and moments of many sizes, some of them nothing. */
static problem problem_of(kind k, int64_t n)
{
    problem q = {.k = k,
                 .n = n,
                 .p = random_vector(n, 0.0f, 1.0f),
                 .m = moment(k, n, true),
                 .v = moment(k, n, false),
                 .grad = vector(n)};
    const int64_t all = stored(k, n);
    float *m = take(4 * all), *v = take(4 * all);

    for (int64_t i = 0; i < all; i++) { /* a step must clear what is beyond n */
        const float size = expf(2.0f * next_normal());
        const float grad = i % 7 == 0 ? 0.0f : size * next_normal();

        v[i] = i % 11 == 0 ? 0.0f : size * size * fabsf(next_normal());
        m[i] = i % 5 == 0 || (v[i] == 0.0f && grad == 0.0f) ? 0.0f : 0.3f * size * next_normal();
        if (i < n)
            mb_f32(&q.grad)[i] = grad;
    }
    OK(mb_device_write_f32(NULL, &q.m, m));
    OK(mb_device_write_f32(NULL, &q.v, v));
    return q;
}

static mb_tensor bytes_of(const mb_tensor *t)
{
    mb_tensor c = *t;

    c.data = take(mb_tensor_bytes(t));
    memcpy(c.data, t->data, (size_t)mb_tensor_bytes(t));
    return c;
}

static problem twin_of(const problem *q)
{
    problem c = *q;

    c.p = copy_of(&q->p);
    c.m = bytes_of(&q->m);
    c.v = bytes_of(&q->v);
    return c;
}

/* Elements from..to of it, whose first is at `place`. */
static void step_part(mb_exec *ex, problem *q, int64_t from, int64_t to, int64_t place)
{
    mb_adamw a = step_of(&golden[0], 9, 0.37f);
    mb_tensor p = mb_tensor_columns(&q->p, from, to - from);
    mb_tensor grad = mb_tensor_columns(&q->grad, from, to - from);
    mb_tensor m = q->m, v = q->v;

    a.key = 0x123456789abcdefull;
    a.step = 9;
    a.place = place + from;
    m.dim[0] = v.dim[0] = stored(q->k, to - from);
    m.data = (char *)m.data + mb_dtype_bytes(m.dtype, from);
    v.data = (char *)v.data + mb_dtype_bytes(v.dtype, from);
    if (q->k == BF16)
        RUN(ex, adamw_bf16, &p, &m, &v, &grad, &a);
    else
        RUN(ex, adamw_8bit, &p, &m, &v, &grad, &a);
}

static void check_same_bits(const problem *a, const problem *b)
{
    check_same(&a->p, &b->p);
    assert_memory_equal(a->m.data, b->m.data, (size_t)mb_tensor_bytes(&a->m));
    assert_memory_equal(a->v.data, b->v.data, (size_t)mb_tensor_bytes(&a->v));
}

/* The step of one element, exactly. */
static void exact_step(double *p, double *m, double *v, double grad)
{
    const mb_adamw a = step_of(&golden[0], 9, 0.37f);
    const double g = grad * (double)a.grad_scale;

    *m += (1.0 - a.beta1) * (g - *m);
    *v = a.beta2 * *v + (1.0 - a.beta2) * g * g;
    *p = *p * (1.0 - a.lr * a.weight_decay) -
         a.lr / a.correction1 * *m / (sqrt(*v) / sqrt(a.correction2) + a.eps);
}

/* How far a stored number may be from x: of bf16, the distance of its neighbours; of 8 bits half a step
 * in its decade of the block's largest, of the next decade's steps near its end. */
static double room_of(const mb_tensor *t, double x, double largest)
{
    const int steps = t->dtype == MB_DTYPE_DYN8 ? 1 : 2;
    int decade = 0;

    if (t->dtype == MB_DTYPE_BF16)
        return fabs(x) * 0x1p-7;
    while (decade < 6 && fabs(x) > 0.9 * largest * pow(10.0, decade - 6))
        decade++;
    return 0.51 * largest * fmax(0.9 * pow(10.0, decade - 6) / (steps << decade), 7e-7);
}

static double largest_of_block(const float *x, int64_t i)
{
    const int64_t from = i / MB_CODE8_BLOCK * MB_CODE8_BLOCK;
    double most = 0.0;

    for (int64_t k = from; k < from + MB_CODE8_BLOCK; k++)
        most = fmax(most, fabs((double)x[k]));
    return most;
}

static void moments_of_fewer_bits_agree_with_double_precision(void **state)
{
    (void)state;
    for (kind k = BF16; k < KINDS; k++) {
        mb_exec ex = exec_with(2);
        problem q = problem_of(k, 5120 - 100);
        const mb_tensor p0 = copy_of(&q.p);
        const float *m0 = numbers_of(&q.m), *v0 = numbers_of(&q.v);

        step_part(&ex, &q, 0, q.n, 4096);
        const float *m1 = numbers_of(&q.m), *v1 = numbers_of(&q.v);
        for (int64_t i = 0; i < q.n - q.n % MB_CODE8_BLOCK; i++) {
            double p = (double)mb_f32(&p0)[i], m = (double)m0[i], v = (double)v0[i];

            exact_step(&p, &m, &v, (double)mb_f32(&q.grad)[i]);
            check_near((double)mb_f32(&q.p)[i], p, 2e-6 * (1.0 + fabs(p)));
            check_near((double)m1[i], m, room_of(&q.m, m, largest_of_block(m1, i)) + 1e-7);
            check_near((double)v1[i], v, room_of(&q.v, v, largest_of_block(v1, i)) + 1e-7);
            assert_true(v == 0.0 || v1[i] > 0.0f); /* or the next step would be huge */
        }
    }
}

/* The mean over many places of a number that is not one of bf16 is that number. */
static void rounding_by_chance_has_no_bias(void **state)
{
    enum { PLACES = 1 << 16 };
    mb_exec ex = exec_with(2);
    problem q = {.k = BF16,
                 .n = PLACES,
                 .p = vector(PLACES),
                 .m = moment(BF16, PLACES, true),
                 .v = moment(BF16, PLACES, false),
                 .grad = vector(PLACES)};
    double p = 0.5, m = 0.0, v = 0.25, mean_m = 0.0, mean_v = 0.0;
    int alike = 0;

    (void)state;
    for (int64_t i = 0; i < PLACES; i++) {
        mb_f32(&q.p)[i] = 0.5f;
        ((uint16_t *)q.v.data)[i] = mb_f32_to_bf16(0.25f);
        mb_f32(&q.grad)[i] = -0.123456f;
    }
    step_part(&ex, &q, 0, PLACES, 40960);
    const float *m1 = numbers_of(&q.m), *v1 = numbers_of(&q.v);
    exact_step(&p, &m, &v, (double)-0.123456f);
    for (int64_t i = 0; i < PLACES; i++) {
        mean_m += (double)m1[i] / PLACES;
        mean_v += (double)v1[i] / PLACES;
        alike += (fabs((double)m1[i]) > fabs(m)) == ((double)v1[i] > v);
    }
    /* a standard deviation is at most half the distance of neighbours, over 256 */
    check_near(mean_m, m, 5.0 * fabs(m) * 0x1p-8 / 256);
    check_near(mean_v, v, 5.0 * v * 0x1p-8 / 256);
    /* and those of m and of v have nothing to do with each other */
    const double m_up = fmod(fabs(m) / ldexp(1.0, ilogb(m) - 7), 1.0);
    const double v_up = fmod(v / ldexp(1.0, ilogb(v) - 7), 1.0);
    check_near((double)alike / PLACES, m_up * v_up + (1 - m_up) * (1 - v_up), 5.0 * 0.5 / 256);
}

static void neither_cuts_nor_threads_change_moments_of_fewer_bits(void **state)
{
    static const int64_t cuts[KINDS][2] = {[BF16] = {1, 20003}, [CODES] = {256, 20480}};

    (void)state;
    for (kind k = BF16; k < KINDS; k++)
        for (int t = 0; t < 3; t++)
            for (int64_t place = 0; place < 6; place += k == CODES ? 6 : 1) {
                mb_exec ex = exec_with(1), team = exec_with(team_sizes[t]);
                problem whole = problem_of(k, 40007), parts = twin_of(&whole);

                step_part(&ex, &whole, 0, whole.n, place);
                step_part(&team, &parts, cuts[k][1], parts.n, place);
                step_part(&team, &parts, 0, cuts[k][0], place);
                step_part(&team, &parts, cuts[k][0], cuts[k][1], place);
                check_same_bits(&parts, &whole);
                mb_arena_reset(memory);
            }
}

static void moments_of_fewer_bits_have_the_bits_of_the_cpu(void **state)
{
    static const int64_t n[] = {1, 3, 255, 256, 257, 5003};
    mb_exec cpu = mb_cpu_exec(scratch, 1), ex = exec_with(1);

    (void)state;
    for (kind k = BF16; k < KINDS; k++)
        for (int i = 0; i < COUNT(n); i++)
            for (int64_t place = 0; place < 4; place++) {
                problem here = problem_of(k, n[i]), there = twin_of(&here);

                for (int step = 0; step < 3; step++) {
                    step_part(&cpu, &here, 0, n[i], place + ((int64_t)1 << 34));
                    step_part(&ex, &there, 0, n[i], place + ((int64_t)1 << 34));
                    check_same_bits(&there, &here);
                }
            }
}

static void no_moments_of_fewer_bits_are_fine(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    for (kind k = BF16; k < KINDS; k++) {
        problem q = problem_of(k, 0);

        step_part(&ex, &q, 0, 0, 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(twenty_steps_agree_with_pytorch),
        KERNEL_TEST(neither_place_nor_threads_nor_scale_change_bits),
        KERNEL_TEST(bits_are_those_of_the_cpu),
        KERNEL_TEST(nothing_to_update_is_fine),
        KERNEL_TEST(moments_of_fewer_bits_agree_with_double_precision),
        KERNEL_TEST(rounding_by_chance_has_no_bias),
        KERNEL_TEST(neither_cuts_nor_threads_change_moments_of_fewer_bits),
        KERNEL_TEST(moments_of_fewer_bits_have_the_bits_of_the_cpu),
        KERNEL_TEST(no_moments_of_fewer_bits_are_fine),
    };

    return cmocka_run_group_tests_name("kernels: adamw", tests, NULL, kernel_teardown);
}
