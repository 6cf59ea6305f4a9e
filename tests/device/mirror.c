/* tests/device/mirror.c - see tests/device/mirror.h.
 *
 * The arguments' spans of host memory are merged where they overlap; each merged region gets a place
 * in an image, between guards. The image is built on the host, copied to the device in one piece and
 * back in one piece.
 */
#include "tests/device/mirror.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "tests/device/shadow.h"
#include "tests/long.h"

enum {
    TENSORS = 12,
    REGIONS = 20,
    GUARD = 512,      /* bytes */
    POISON = 1 << 20, /* so much of the workspace is filled before a call */
    MAPPED = 16,      /* an address keeps its place within so many bytes */
};

typedef struct region {
    const char *from, *to; /* host */
    bool typed;            /* f32 here, `type` there */
    const char *name;      /* of the first tensor in it */
    size_t at, bytes;      /* in the image */
    size_t reference_at;
} region;

typedef struct argument {
    const mb_tensor *key; /* the caller's struct */
    const char *name;
    bool out;
    mb_tensor there, reference;
} argument;

/* The call under way: kernels under test are called one at a time. */
static struct {
    const char *kernel, *roles;
    mb_dtype type;
    int position; /* in roles */
    argument arg[TENSORS];
    int n_args;
    region region[REGIONS];
    int n_regions;
    const mb_attention *attention;
    mb_attention attention_there;
    mb_dropout dropout_there;
    size_t bytes;                  /* of the image */
    char *sent, *back, *reference; /* host */
    unsigned char *covered;        /* which bytes are outputs' */
    size_t capacity, reference_capacity;
    char *block; /* device */
    size_t block_capacity;
    char *workspace; /* device; guards on both sides */
    size_t workspace_capacity, workspace_bytes;
    mb_exec exec, cpu;
    const mb_kernels *reference_table;
    mb_call_output output;
    char names[TENSORS + 1][24];
} now;

static mb_device *device;
static bool bits; /* a test is about the device's own bits */

/* ---- the device --------------------------------------------------------------------------- */

static const char *wanted(void)
{
    const char *name = getenv("MB_TEST_DEVICE");

    return name != NULL && name[0] != '\0' ? name : NULL;
}

bool mb_test_on_device(void)
{
    return wanted() != NULL;
}

static MB_NO_RETURN void give_up(void)
{
    const bool needed = getenv("MB_NEED_DEVICE") != NULL;

    printf("%s: there is no device to test on: %s\n", needed ? "failed" : "skipped",
           mb_status_sentence());
    fflush(stdout);
    _Exit(needed ? 1 : 77);
}

mb_device *mb_test_device(void)
{
    const bool cpu = wanted() != NULL && strcmp(wanted(), "cpu") == 0;

    if (device != NULL)
        return device;
    if ((cpu && mb_cpu_init() != MB_OK) ||
        mb_device_open(cpu ? MB_DEVICE_CPU : MB_DEVICE_CUDA, 0, 2, &device) != MB_OK)
        give_up();
    return device;
}

void mb_test_bits(bool on)
{
    bits = on;
}

mb_exec mb_test_exec(mb_arena *scratch, int threads)
{
    const char *name = getenv("MB_TEST_DTYPE");

    const char *rare = getenv("MB_TEST_LONG");
    mb_exec ex;

    if (rare != NULL && !is_long_run()) {
        printf("skipped: this is for long runs, MB_LONG=1\n");
        fflush(stdout);
        _Exit(77);
    }
    if (!mb_test_on_device())
        return mb_cpu_exec(scratch, threads);
    if (name == NULL || name[0] == '\0')
        ex = mb_mirror_exec(scratch);
    else
        ex = mb_shadow_exec(scratch, mb_shadow_dtype(name),
                            bits ? MB_SHADOW_GIVES_DEVICE : MB_SHADOW_GIVES_CPU);
    if (mb_device_is_host(mb_test_device()))
        ex.threads = threads;
    return ex;
}

/* ---- noting ------------------------------------------------------------------------------- */

void mb_call_begin(const char *kernel, const char *roles, mb_dtype type)
{
    now.kernel = kernel;
    now.roles = roles;
    now.type = type;
    now.position = now.n_args = now.n_regions = 0;
    now.attention = NULL;
    now.workspace_bytes = 0;
    now.bytes = 0;
}

/* Name and role of the next tensor; without roles it stays as it is. */
static bool next_role(const char **name)
{
    const char *at = now.roles;
    char role = 'F';

    MB_ASSERT(now.position < TENSORS);
    *name = now.names[now.position];
    snprintf(now.names[now.position], sizeof now.names[0], "tensor %d", now.position);
    for (int i = 0; at != NULL && i < now.position; i++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    if (now.roles != NULL && now.roles[0] != '\0') {
        if (at == NULL || sscanf(at, "%23[a-z_0-9]:%c", now.names[now.position], &role) != 2)
            MB_BUG("%s has more tensors than \"%s\"", now.kernel, now.roles);
    }
    now.position++;
    return role == 'T';
}

static void note_span(const char *from, size_t bytes, bool typed, const char *name)
{
    region r = {.from = from, .to = from + bytes, .typed = typed, .name = name};

    for (int i = 0; i < now.n_regions; i++) {
        const region *o = &now.region[i];

        if (r.from >= o->to || o->from >= r.to || o->typed != r.typed) {
            if (r.from < o->to && o->from < r.to)
                MB_BUG("%s: %s and %s share memory and have different types", now.kernel, r.name,
                       o->name);
            continue;
        }
        r.from = o->from < r.from ? o->from : r.from;
        r.to = o->to > r.to ? o->to : r.to;
        r.name = o->name;
        now.region[i] = now.region[--now.n_regions];
        i = -1; /* what it grew over may touch others */
    }
    MB_ASSERT(now.n_regions < REGIONS);
    now.region[now.n_regions++] = r;
}

static size_t span_bytes(const mb_tensor *t)
{
    if (mb_tensor_count(t) == 0)
        return 0;
    return (size_t)mb_dtype_bytes(t->dtype, (mb_rows(t) - 1) * mb_row_stride(t) + mb_cols(t));
}

static void note(const mb_tensor *t, bool out)
{
    const char *name;
    const bool typed = next_role(&name) && t != NULL && t->dtype == MB_DTYPE_F32;

    if (t == NULL)
        return;
    MB_ASSERT(now.n_args < TENSORS);
    now.arg[now.n_args++] =
        (argument){.key = t, .name = name, .out = out, .there = *t, .reference = *t};
    if (typed)
        now.arg[now.n_args - 1].there.dtype = now.type;
    if (t->data != NULL)
        note_span(t->data, span_bytes(t), typed, name);
}

void mb_note_in(const mb_tensor *t)
{
    note(t, false);
}

void mb_note_out(const mb_tensor *t)
{
    note(t, true);
}

static void note_ints(const int32_t *x, int64_t n, const char *name)
{
    if (x != NULL)
        note_span((const char *)x, sizeof *x * (size_t)n, false, name);
}

void mb_note_attention(const mb_attention *at)
{
    int64_t rows = 0;

    now.attention = at;
    note_ints(at->q_start, at->n_seq, "q_start");
    note_ints(at->q_len, at->n_seq, "q_len");
    note_ints(at->k_start, at->n_seq, "k_start");
    note_ints(at->k_len, at->n_seq, "k_len");
    for (int64_t s = 0; s < at->n_seq; s++)
        if (at->q_start[s] + at->q_len[s] > rows)
            rows = at->q_start[s] + at->q_len[s];
    note_ints(at->ordinal, rows, "ordinal");
    if (at->bias != NULL)
        note_span((const char *)at->bias,
                  sizeof *at->bias * (size_t)(at->heads * (2 * at->max_len - 1)), false, "bias");
}

void mb_note_dropout(const mb_dropout *d)
{
    const int64_t rows = now.n_args > 0 ? mb_rows(now.arg[0].key) : 0;

    note_ints(d->ordinal, rows, "ordinal");
    note_ints(d->position, rows, "position");
}

/* ---- sending ------------------------------------------------------------------------------ */

static float round_to(float x, mb_dtype type)
{
    switch (type) {
    case MB_DTYPE_BF16:
        return mb_bf16_to_f32(mb_f32_to_bf16(x));
    case MB_DTYPE_F16:
        return mb_f16_to_f32(mb_f32_to_f16(x));
    default:
        return x;
    }
}

void mb_call_round(mb_tensor *t)
{
    for (int64_t r = 0; r < mb_rows(t); r++)
        for (int64_t c = 0; c < mb_cols(t); c++)
            mb_row(t, r)[c] = round_to(mb_row(t, r)[c], now.type);
}

static void convert(char *to, const char *from, size_t n, mb_dtype type)
{
    const float *x = (const float *)(const void *)from;

    if (type == MB_DTYPE_F32) {
        memcpy(to, from, 4 * n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        ((uint16_t *)(void *)to)[i] =
            type == MB_DTYPE_BF16 ? mb_f32_to_bf16(x[i]) : mb_f32_to_f16(x[i]);
}

static size_t align_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static mb_status grow_host(void)
{
    if (now.bytes <= now.capacity)
        return MB_OK;
    mb_free(now.sent);
    mb_free(now.back);
    mb_free(now.covered);
    now.sent = now.back = NULL;
    now.covered = NULL;
    now.capacity = 0;
    MB_TRY(mb_alloc(2 * now.bytes, "image sent", (void **)&now.sent));
    MB_TRY(mb_alloc(2 * now.bytes, "image received", (void **)&now.back));
    MB_TRY(mb_alloc(2 * now.bytes, "bytes of outputs", (void **)&now.covered));
    now.capacity = 2 * now.bytes;
    return MB_OK;
}

static mb_status grow_device(char **block, size_t *capacity, size_t bytes, const char *what)
{
    mb_device *d = mb_test_device();
    void *p;

    if (bytes <= *capacity)
        return MB_OK;
    if (*block != NULL)
        d->ops->free(d, *block, *capacity);
    *block = NULL;
    *capacity = 0;
    MB_TRY(d->ops->alloc(d, 2 * bytes, what, &p));
    *block = p;
    *capacity = 2 * bytes;
    return MB_OK;
}

static const region *region_of(const void *data)
{
    const char *p = data;

    for (int i = 0; i < now.n_regions; i++)
        if (p >= now.region[i].from && p < now.region[i].to)
            return &now.region[i];
    for (int i = 0; i < now.n_regions; i++) /* empty, or the end of one */
        if (p >= now.region[i].from && p <= now.region[i].to)
            return &now.region[i];
    MB_BUG("%s: an argument was not noted", now.kernel);
}

/* Where the byte at `data` is in the image. */
static size_t place_of(const void *data)
{
    const region *r = region_of(data);
    const size_t offset = (size_t)((const char *)data - r->from);

    return r->at + (r->typed && now.type != MB_DTYPE_F32 ? offset / 2 : offset);
}

static const int32_t *ints_there(const int32_t *x)
{
    return x == NULL ? NULL : (const int32_t *)(const void *)(now.block + place_of(x));
}

static size_t lay_out(void)
{
    size_t at = 0, reference = 0;

    for (int i = 0; i < now.n_regions; i++) {
        region *r = &now.region[i];
        const bool half = r->typed && now.type != MB_DTYPE_F32;
        const size_t off = (uintptr_t)r->from % MAPPED, bytes = (size_t)(r->to - r->from);

        r->at = align_up(at + GUARD, 256) + (half ? off / 2 : off);
        r->bytes = half ? bytes / 2 : bytes;
        r->reference_at = align_up(reference, 64) + (uintptr_t)r->from % 64;
        at = r->at + r->bytes;
        reference = r->reference_at + bytes + 64;
    }
    now.bytes = align_up(at + GUARD, 256);
    return reference;
}

static mb_status fill(size_t reference_bytes)
{
    if (now.roles != NULL && reference_bytes > now.reference_capacity) {
        mb_free(now.reference);
        now.reference = NULL;
        now.reference_capacity = 0;
        MB_TRY(mb_alloc(2 * reference_bytes, "reference", (void **)&now.reference));
        now.reference_capacity = 2 * reference_bytes;
    }
    memset(now.sent, 0xff, now.bytes);
    for (int i = 0; i < now.n_regions; i++) {
        const region *r = &now.region[i];
        const size_t bytes = (size_t)(r->to - r->from);

        if (r->typed)
            convert(now.sent + r->at, r->from, bytes / 4, now.type);
        else
            memcpy(now.sent + r->at, r->from, bytes);
        if (now.roles == NULL)
            continue;
        memcpy(now.reference + r->reference_at, r->from, bytes);
        for (size_t k = 0; r->typed && k < bytes / 4; k++) {
            float *x = (float *)(void *)(now.reference + r->reference_at) + k;
            *x = round_to(*x, now.type);
        }
    }
    return MB_OK;
}

mb_status mb_call_send(void)
{
    mb_device *d = mb_test_device();
    const size_t reference_bytes = lay_out();

    MB_TRY(grow_host());
    MB_TRY(grow_device(&now.block, &now.block_capacity, now.bytes, "arguments of a kernel"));
    MB_TRY(fill(reference_bytes));
    for (int i = 0; i < now.n_args; i++) {
        argument *a = &now.arg[i];

        if (a->key->data == NULL)
            continue;
        a->there.data = now.block + place_of(a->key->data);
        if (now.roles != NULL) {
            const region *r = region_of(a->key->data);
            a->reference.data =
                now.reference + r->reference_at + ((const char *)a->key->data - r->from);
        }
    }
    now.exec = mb_device_exec(d, NULL);
    return d->ops->copy(d, MB_STREAM_COMPUTE, now.block, now.sent, now.bytes);
}

mb_status mb_call_workspace(size_t bytes)
{
    static unsigned char ones[POISON + 2 * GUARD];
    mb_device *d = mb_test_device();
    const size_t filled = bytes < POISON ? bytes : POISON;

    MB_TRY(grow_device(&now.workspace, &now.workspace_capacity, bytes + 2 * GUARD, "workspace"));
    memset(ones, 0xff, sizeof ones);
    MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, now.workspace, ones, GUARD + filled));
    MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, now.workspace + GUARD + bytes, ones, GUARD));
    now.workspace_bytes = bytes;
    now.exec.workspace = now.workspace + GUARD;
    return MB_OK;
}

mb_exec *mb_call_exec(void)
{
    return &now.exec;
}

/* ---- receiving ---------------------------------------------------------------------------- */

static void cover(const mb_tensor *t)
{
    const size_t from = (size_t)((char *)t->data - now.block);

    for (int64_t r = 0; r < mb_rows(t) && mb_cols(t) > 0; r++)
        memset(now.covered + from + mb_dtype_bytes(t->dtype, r * mb_row_stride(t)), 1,
               (size_t)mb_dtype_bytes(t->dtype, mb_cols(t)));
}

/* A sentence on byte `at` of the image, which changed. */
static mb_status changed(size_t at)
{
    const region *before = NULL;

    for (int i = 0; i < now.n_regions; i++) {
        const region *r = &now.region[i];

        if (r->at <= at && (before == NULL || before->at < r->at))
            before = r;
        if (at >= r->at && at < r->at + r->bytes)
            return MB_RAISE(MB_EBUG,
                            "%s wrote where it should not: byte %zu of the %zu of %s is an input's "
                            "or between rows",
                            now.kernel, at - r->at, r->bytes, r->name);
    }
    if (before == NULL)
        return MB_RAISE(MB_EBUG, "%s wrote before its first argument", now.kernel);
    return MB_RAISE(MB_EBUG, "%s wrote %zu bytes after the end of %s", now.kernel,
                    at - before->at - before->bytes, before->name);
}

static mb_status check_guards(void)
{
    memset(now.covered, 0, now.bytes);
    for (int i = 0; i < now.n_args; i++)
        if (now.arg[i].out && now.arg[i].key->data != NULL)
            cover(&now.arg[i].there);
    for (size_t i = 0; i < now.bytes; i++)
        if (now.back[i] != now.sent[i] && !now.covered[i])
            return changed(i);
    return MB_OK;
}

static mb_status check_workspace(void)
{
    mb_device *d = mb_test_device();
    unsigned char guard[2][GUARD];

    MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, guard[0], now.workspace, GUARD));
    MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, guard[1], now.workspace + GUARD + now.workspace_bytes,
                        GUARD));
    MB_TRY(d->ops->wait(d, MB_STREAM_COMPUTE));
    for (int i = 0; i < GUARD; i++) {
        MB_REQUIRE(guard[0][i] == 0xff, MB_EBUG, "%s wrote before its workspace", now.kernel);
        MB_REQUIRE(guard[1][i] == 0xff, MB_EBUG, "%s wrote %d bytes after its workspace of %zu",
                   now.kernel, i, now.workspace_bytes);
    }
    return MB_OK;
}

mb_status mb_call_end(mb_status st)
{
    mb_device *d = mb_test_device();

    if (st != MB_OK) {
        (void)!d->ops->wait(d, MB_STREAM_COMPUTE);
        return st;
    }
    MB_TRY(d->ops->wait(d, MB_STREAM_COMPUTE));
    MB_TRY(d->ops->copy(d, MB_STREAM_COMPUTE, now.back, now.block, now.bytes));
    MB_TRY(d->ops->wait(d, MB_STREAM_COMPUTE));
    MB_TRY(check_guards());
    return now.workspace_bytes > 0 ? check_workspace() : MB_OK;
}

const mb_call_output *mb_call_output_at(int i)
{
    for (int k = 0; k < now.n_args; k++) {
        const argument *a = &now.arg[k];

        if (!a->out || i-- > 0)
            continue;
        now.output = (mb_call_output){
            .name = a->name, .host = *a->key, .reference = a->reference, .there = a->there};
        if (a->key->data != NULL)
            now.output.there.data = now.back + place_of(a->key->data);
        return &now.output;
    }
    return NULL;
}

const mb_attention *mb_call_attention(void)
{
    return now.attention;
}

void mb_call_give_back(void)
{
    const mb_call_output *o;

    for (int i = 0; (o = mb_call_output_at(i)) != NULL; i++) {
        const mb_tensor *h = &o->host, *t = &o->there;

        for (int64_t r = 0; h->data != NULL && r < mb_rows(h) && mb_cols(h) > 0; r++) {
            char *to = (char *)h->data + mb_dtype_bytes(h->dtype, r * mb_row_stride(h));
            const char *from = (char *)t->data + mb_dtype_bytes(t->dtype, r * mb_row_stride(t));

            if (t->dtype == h->dtype) {
                memcpy(to, from, (size_t)mb_dtype_bytes(h->dtype, mb_cols(h)));
                continue;
            }
            for (int64_t c = 0; c < mb_cols(h); c++) {
                const uint16_t x = ((const uint16_t *)(const void *)from)[c];
                ((float *)(void *)to)[c] =
                    t->dtype == MB_DTYPE_BF16 ? mb_bf16_to_f32(x) : mb_f16_to_f32(x);
            }
        }
    }
}

uint64_t mb_call_digest(uint64_t before)
{
    uint64_t h = before;

    for (size_t i = 0; i < now.bytes; i++) /* FNV-1a; what is not an output is as it was */
        if (now.covered[i])
            h = (h ^ (unsigned char)now.back[i]) * 0x100000001b3ull;
    return h;
}

/* ---- mapping ------------------------------------------------------------------------------ */

static argument *argument_of(const mb_tensor *t)
{
    for (int i = 0; i < now.n_args; i++)
        if (now.arg[i].key == t)
            return &now.arg[i];
    MB_BUG("%s: a tensor was not noted", now.kernel);
}

mb_exec *mb_there_exec(mb_exec *ex)
{
    if (mb_device_is_host(device))
        now.exec.threads = ex->threads;
    return &now.exec;
}

mb_tensor *mb_there_out(const mb_tensor *t)
{
    return t == NULL ? NULL : &argument_of(t)->there;
}

const mb_tensor *mb_there_in(const mb_tensor *t)
{
    return mb_there_out(t);
}

const mb_attention *mb_there_attention(const mb_attention *at)
{
    now.attention_there = *at;
    now.attention_there.q_start = ints_there(at->q_start);
    now.attention_there.q_len = ints_there(at->q_len);
    now.attention_there.k_start = ints_there(at->k_start);
    now.attention_there.k_len = ints_there(at->k_len);
    now.attention_there.ordinal = ints_there(at->ordinal);
    if (at->bias != NULL)
        now.attention_there.bias = (const float *)(const void *)(now.block + place_of(at->bias));
    return &now.attention_there;
}

const mb_dropout *mb_there_dropout(const mb_dropout *d)
{
    now.dropout_there = *d;
    now.dropout_there.ordinal = ints_there(d->ordinal);
    now.dropout_there.position = ints_there(d->position);
    return &now.dropout_there;
}

void mb_reference_table(const mb_kernels *table)
{
    now.reference_table = table;
}

mb_exec *mb_reference_exec(mb_exec *ex)
{
    now.cpu = mb_cpu_exec(ex->scratch, ex->threads);
    if (now.reference_table != NULL)
        now.cpu.kernels = now.reference_table;
    return &now.cpu;
}

mb_tensor *mb_reference_out(const mb_tensor *t)
{
    return t == NULL ? NULL : &argument_of(t)->reference;
}

const mb_tensor *mb_reference_in(const mb_tensor *t)
{
    return mb_reference_out(t);
}

/* ---- the mirrored table ------------------------------------------------------------------- */

#define MIRROR(name, params, args, call_there)    \
    static mb_status mirror_##name params         \
    {                                             \
        mb_status st;                             \
                                                  \
        mb_call_begin(#name, NULL, MB_DTYPE_F32); \
        MB_EACH(MB_NOTE, args);                   \
        MB_TRY(mb_call_send());                   \
        call_there(st, name, args);               \
        MB_TRY(mb_call_end(st));                  \
        mb_call_give_back();                      \
        return MB_OK;                             \
    }
#define MB_KERNEL(name, params, args) MIRROR(name, params, args, MB_CALL_THERE)
#define MB_KERNEL_WS(name, params, args)           \
    MIRROR(name, params, args, MB_CALL_THERE_WS)   \
    static size_t mirror_##name##_workspace params \
    {                                              \
        return 0; /* the device's own is used */   \
    }
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS

static const mb_kernels mirrored = {
    .device = "mirror",
#define MB_KERNEL(name, params, args) .name = mirror_##name,
#define MB_KERNEL_WS(name, params, args) \
    .name = mirror_##name, .name##_workspace = mirror_##name##_workspace,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
};

mb_exec mb_mirror_exec(mb_arena *scratch)
{
    mb_test_device();
    return (mb_exec){.kernels = &mirrored, .scratch = scratch, .threads = 1};
}
