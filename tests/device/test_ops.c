/* tests/device/test_ops.c - all samples of all ops, forward and backward, on the shadow exec: each
 * kernel they call is held against the CPU's in f32, bf16 and f16. No kernel may escape: one that no
 * sample calls must be in the list of those whose own tests run on the device.
 *
 * The bits of everything that the device wrote must not depend on the order in which the emulator
 * runs blocks, threads and streams: MBUYU_EMU_SEED. On a GPU the same runs only repeat.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/ops.h"
#include "core/path.h"
#include "tests/check.h"
#include "tests/device/mirror.h"
#include "tests/device/shadow.h"
#include "tests/long.h"

enum { MEMORY = 8 << 20, PROJECTION = 1 << 16 };

static const mb_dtype types[] = {MB_DTYPE_F32, MB_DTYPE_BF16, MB_DTYPE_F16};

static int n_types(void)
{
    return mb_test_device()->host_memory ? 1 : 3; /* the CPU's kernels know f32 alone */
}

/* Kernels whose own tests (tests/unit/test_<name>.c) run on the device, shadowed too where they have
 * a type: see tests/CMakeLists.txt. */
static const struct {
    int kernel;
    const char *name, *test;
} direct[] = {
#define DIRECT(kernel, test)               \
    {                                      \
        MB_SHADOW_##kernel, #kernel, #test \
    }
    DIRECT(copy, kernels_elementwise),
    DIRECT(axpy, kernels_elementwise),
    DIRECT(fill, kernels_elementwise),
    DIRECT(scale, kernels_elementwise),
    DIRECT(add_rmsnorm_fwd, kernels_norm),
    DIRECT(add_layernorm_fwd, kernels_norm),
    DIRECT(cast, kernels_cast),
    DIRECT(dequantise, dequantise),
    DIRECT(split_bf16, kernels_cast),
    DIRECT(join_bf16, kernels_cast),
    DIRECT(grain_sumsq, kernels_exact),
    DIRECT(exact_add, kernels_exact),
    DIRECT(exact_merge, kernels_exact),
    DIRECT(exact_take, kernels_exact),
    DIRECT(absmax, kernels_exact),
    DIRECT(adamw, kernels_adamw),
    DIRECT(adamw_bf16, kernels_adamw),
    DIRECT(adamw_8bit, kernels_adamw),
#undef DIRECT
};

static mb_arena *memory, *scratch;
static mb_tape *tape;

static int set_up(void **state)
{
    OK(mb_arena_new("step", MEMORY, &memory));
    OK(mb_arena_new("scratch", MEMORY, &scratch));
    OK(mb_tape_new(memory, &tape));
    return 0;
}

/* Forward, seed, backward of sample i; *there is false when the op has no such sample. */
static mb_status run_sample(mb_exec *ex, const mb_op *op, int i, bool *there)
{
    static float p[PROJECTION];
    mb_tensor seed;
    mb_var *y;

    *there = true;
    MB_TRY(mb_tape_begin(tape, ex, MB_TAPE_TRAIN, false, NULL));
    mb_sample_nudge(tape, -1, 0, 0.0f);
    MB_TRY(op->sample(tape, i, &y));
    *there = y != NULL;
    if (y == NULL)
        return MB_OK;
    MB_ASSERT(mb_tensor_count(&y->value) <= PROJECTION);
    for (int64_t k = 0; k < mb_tensor_count(&y->value); k++)
        p[k] = mb_sample_projection(k);
    seed = mb_tensor_of(p, MB_DTYPE_F32, y->value.ndim, y->value.dim);
    MB_TRY(mb_tape_seed(tape, y, 0.0f, &seed));
    return mb_tape_backward(tape);
}

/* How many samples failed; each is told. */
static int run_all(mb_dtype type)
{
    int failures = 0;

    for (int o = 0; mb_ops[o] != NULL; o++) {
        bool there = true;

        for (int i = 0; there; i++) {
            mb_exec ex = mb_shadow_exec(scratch, type, MB_SHADOW_GIVES_DEVICE);

            mb_arena_reset(scratch);
            if (run_sample(&ex, mb_ops[o], i, &there) == MB_OK)
                continue;
            printf("op %s, sample %d, %s: %s\n", mb_ops[o]->name, i, mb_dtype_name(type),
                   mb_status_sentence());
            mb_status_clear();
            failures++;
        }
    }
    return failures;
}

static void every_slot_of_the_table_is_filled(void **state)
{
    const mb_kernels *k = mb_test_device()->kernels;
    int empty = 0;

#define MB_KERNEL(name, params, args)            \
    if (k->name == NULL) {                       \
        printf("the device has no " #name "\n"); \
        empty++;                                 \
    }
#define MB_KERNEL_WS(name, params, args)                          \
    if (k->name == NULL || k->name##_workspace == NULL) {         \
        printf("the device has no " #name " or its workspace\n"); \
        empty++;                                                  \
    }
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
    assert_int_equal(empty, 0);
}

static void samples_of_ops_agree_with_the_cpu(void **state)
{
    int failures = 0;

    for (int t = 0; t < n_types(); t++)
        failures += run_all(types[t]);
    mb_shadow_print();
    assert_int_equal(failures, 0);
}

static const char *direct_test(int kernel)
{
    for (size_t i = 0; i < sizeof direct / sizeof direct[0]; i++)
        if (direct[i].kernel == kernel)
            return direct[i].test;
    return NULL;
}

static void no_kernel_escapes(void **state)
{
    int escaped = 0;

    for (int t = 0; t < n_types(); t++) {
        const mb_shadow_record *r = mb_shadow_records(types[t]);

        for (int k = 0; k < MB_SHADOW_KERNELS; k++) {
            if (r[k].calls > 0 || direct_test(k) != NULL ||
                (types[t] != MB_DTYPE_F32 && !mb_shadow_has_type(k)))
                continue;
            printf("%s in %s: no sample of an op calls it, no test of its own is listed\n",
                   r[k].kernel, mb_dtype_name(types[t]));
            escaped++;
        }
    }
    assert_int_equal(escaped, 0);
}

/* The tests in the list do call what they are listed for. */
static void listed_tests_call_their_kernels(void **state)
{
    static char text[1 << 16];

    for (size_t i = 0; i < sizeof direct / sizeof direct[0]; i++) {
        char path[MB_PATH_MAX], call[64];
        FILE *f;

        snprintf(path, sizeof path, MB_TEST_DATA "/../unit/test_%s.c", direct[i].test);
        snprintf(call, sizeof call, "ex, %s,", direct[i].name);
        f = fopen(path, "r");
        if (f == NULL) {
            print_message("%s is not here\n", path);
            skip();
            return;
        }
        text[fread(text, 1, sizeof text - 1, f)] = '\0';
        fclose(f);
        if (strstr(text, call) == NULL)
            fail_msg("%s does not call %s", path, direct[i].name);
    }
}

/* What this program prints as its digest under another seed. */
static void digest_of(int seed, char *text, size_t size)
{
    char program[MB_PATH_MAX], command[MB_PATH_MAX + 64];
    FILE *f;

    OK(mb_path_real("/proc/self/exe", program, sizeof program));
    snprintf(command, sizeof command, "MBUYU_EMU_SEED=%d '%s' --digest", seed, program);
    f = popen(command, "r");
    assert_non_null(f);
    text[fread(text, 1, size - 1, f)] = '\0';
    if (pclose(f) != 0)
        fail_msg("with seed %d: %s", seed, text);
}

static void order_changes_no_bit(void **state)
{
    const int seeds = is_long_run() ? 20 : 3;
    char first[4096], other[4096];

    digest_of(1, first, sizeof first);
    for (int s = 2; s <= seeds; s++) {
        digest_of(s, other, sizeof other);
        assert_string_equal(first, other);
    }
    print_message("%d seeds: %s", seeds, first);
}

static int print_digest(void)
{
    int failures = 0;

    set_up(NULL);
    for (int t = 0; t < n_types(); t++)
        failures += run_all(types[t]);
    printf("%016llx\n", (unsigned long long)mb_shadow_digest());
    return failures > 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_of_the_table_is_filled),
        cmocka_unit_test(samples_of_ops_agree_with_the_cpu),
        cmocka_unit_test(no_kernel_escapes),
        cmocka_unit_test(listed_tests_call_their_kernels),
        cmocka_unit_test(order_changes_no_bit),
    };

    if (argc > 1 && strcmp(argv[1], "--digest") == 0)
        return print_digest();
    mb_test_device();
    return cmocka_run_group_tests_name("ops on the device", tests, set_up, NULL);
}
