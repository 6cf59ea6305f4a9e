/* recipes/train/bases.c - see recipes/train/bases.h. */
#include "recipes/train/bases.h"

#include <string.h>

#include "autograd/load.h"
#include "core/alloc.h"

enum { PIECE = 1 << 18 }; /* numbers that are compared at a time; whole blocks of any type */

struct kept {
    char *name;
    mb_tensor value;
};

struct mb_base {
    mb_bases *all;
    mb_tensor_file *file;
    uint64_t stamp; /* of its files when they were opened */
    const mb_model_family *family;
    int64_t users;
    struct kept *kept;
    size_t n_kept, kept_capacity;
    mb_arena **arena; /* where they lie */
    size_t n_arenas, arena_capacity;
    mb_base *next;
};

struct mb_bases {
    mb_base *first;
};

mb_status mb_bases_new(mb_bases **out)
{
    return MB_NEW(out);
}

void mb_bases_free(mb_bases *b)
{
    if (b != NULL && b->first != NULL)
        MB_BUG("bases are freed before the %lld models on the first of them",
               (long long)b->first->users);
    mb_free(b);
}

size_t mb_bases_bytes(const mb_bases *b)
{
    size_t bytes = 0;

    for (const mb_base *x = b->first; x != NULL; x = x->next)
        for (size_t i = 0; i < x->n_kept; i++)
            bytes += (size_t)mb_tensor_bytes(&x->kept[i].value);
    return bytes;
}

/* ---- which one it is ---------------------------------------------------------------------- */

/* Does m have the files' values of it? */
static bool is_read(const mb_weight *w)
{
    return w->row != NULL && !w->trained && !w->fresh;
}

/* Can it lie in the base's memory? Not a table that gets an adapter's rows. */
static bool is_common(const mb_weight *w)
{
    return is_read(w) && w->token_rows == NULL;
}

/* The kept weight of this name and shape; of the same type, or of any. */
static const struct kept *find(const mb_base *b, const mb_weight *w, bool any_type)
{
    for (size_t i = 0; i < b->n_kept; i++)
        if (strcmp(b->kept[i].name, w->name) == 0 &&
            mb_tensor_same_shape(&b->kept[i].value, &w->value) &&
            (any_type || b->kept[i].value.dtype == w->value.dtype))
            return &b->kept[i];
    return NULL;
}

/* A weight of the base beside the same one of other files. */
struct beside {
    const mb_tensor *base;
    mb_exec *ex;
    float *numbers; /* (PIECE) of blocks */
    bool same;
};

static mb_status compare(void *ctx, int64_t from, int64_t n, float *x)
{
    struct beside *c = ctx;
    const mb_dtype d = c->base->dtype;

    for (int64_t at = 0; at < n && c->same; at += PIECE) {
        const int64_t k = n - at < PIECE ? n - at : PIECE;
        char *data = (char *)c->base->data + mb_dtype_bytes(d, from + at);
        const mb_tensor raw = mb_tensor_1d(data, d, k);
        mb_tensor numbers = mb_tensor_1d(data, MB_DTYPE_F32, k);

        if (d != MB_DTYPE_F32) {
            numbers.data = c->numbers;
            MB_TRY(MB_RUN(c->ex, dequantise, &numbers, &raw));
        }
        c->same = memcmp(numbers.data, x + at, (size_t)k * sizeof(float)) == 0;
    }
    return MB_OK;
}

static mb_status put(void *ctx, int64_t from, int64_t n, float *x)
{
    memcpy((float *)ctx + from, x, (size_t)n * sizeof *x);
    return MB_OK;
}

/* A weight that no model of the base keeps there, by its file. */
static mb_status same_in_files(const mb_base *b, mb_tensor_file *f, const mb_model *m,
                               const mb_weight *w, struct beside *c)
{
    const int64_t n = mb_tensor_count(&w->value);
    float *numbers;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&numbers, n));
    const mb_tensor base = mb_tensor_1d(numbers, MB_DTYPE_F32, n);
    c->base = &base;
    st = mb_model_read_file(m, w, b->file, mb_tensor_file_name(b->file), c->ex, put, numbers);
    if (st == MB_OK)
        st = mb_model_read_file(m, w, f, mb_tensor_file_name(f), c->ex, compare, c);
    mb_free(numbers);
    return st;
}

static mb_status same_weight(const mb_base *b, mb_tensor_file *f, const mb_model *m,
                             const mb_weight *w, struct beside *c)
{
    const struct kept *k = find(b, w, true);

    if (k == NULL)
        return same_in_files(b, f, m, w, c);
    c->same = k->value.dtype == MB_DTYPE_F32 || mb_dtype_is_quantised(k->value.dtype);
    if (!c->same)
        return MB_OK;
    c->base = &k->value;
    return mb_model_read_file(m, w, f, mb_tensor_file_name(f), c->ex, compare, c);
}

/* Does the base have all that m wants of the file, to the bit? What cannot be read is not the same: whoever
 * opens the file says why. */
static bool gives_the_same(const mb_base *b, mb_tensor_file *f, const mb_model *m, struct beside *c)
{
    mb_status st = MB_OK;

    c->same = b->n_kept > 0;
    for (int i = 0; i < m->n_weights && st == MB_OK && c->same; i++)
        if (is_read(&m->weight[i]))
            st = same_weight(b, f, m, &m->weight[i], c);
    mb_status_clear();
    return st == MB_OK && c->same;
}

/* By the files, then by their numbers; NULL: none. One whose files were written meanwhile is not asked. */
static mb_base *find_base(mb_bases *all, mb_tensor_file *f, uint64_t stamp, const mb_model *m,
                          struct beside *c)
{
    for (mb_base *b = all->first; b != NULL; b = b->next)
        if (b->stamp == stamp && b->family == m->family)
            return b;
    for (mb_base *b = all->first; b != NULL; b = b->next) {
        uint64_t now;

        if (b->family == m->family && mb_tensor_file_stamp(b->file, &now) == MB_OK &&
            now == b->stamp && gives_the_same(b, f, m, c))
            return b;
    }
    mb_status_clear();
    return NULL;
}

static mb_status add_base(mb_bases *all, mb_tensor_file *f, uint64_t stamp,
                          const mb_model_family *family, mb_base **out)
{
    mb_base *b;

    MB_TRY(MB_NEW(&b));
    *b = (mb_base){.all = all, .file = f, .stamp = stamp, .family = family, .next = all->first};
    all->first = b;
    *out = b;
    return MB_OK;
}

mb_status mb_base_enter(mb_bases *all, mb_tensor_file *f, const mb_model *m, mb_exec *ex,
                        mb_base **out)
{
    struct beside c = {.ex = ex};
    uint64_t stamp;
    mb_base *b = NULL;
    mb_status st;

    MB_TRY_GOTO(mb_tensor_file_stamp(f, &stamp), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&c.numbers, PIECE), st, done);
    b = find_base(all, f, stamp, m, &c);
    if (b == NULL) {
        MB_TRY_GOTO(add_base(all, f, stamp, m->family, &b), st, done);
        f = NULL; /* is the base's */
    }
    b->users++;
    *out = b;
done:
    mb_free(c.numbers);
    mb_tensor_file_close(f);
    return st;
}

mb_tensor_file *mb_base_file(const mb_base *b)
{
    return b->file;
}

/* ---- weights ------------------------------------------------------------------------------ */

static void forget(mb_base *b, size_t from)
{
    while (b->n_kept > from)
        mb_free(b->kept[--b->n_kept].name);
}

void mb_base_lend(const mb_base *b, mb_model *m)
{
    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];
        const struct kept *k = is_common(w) ? find(b, w, false) : NULL;

        if (k != NULL) {
            w->value.data = k->value.data;
            w->lent = true;
        }
    }
}

static mb_status keep(mb_base *b, const mb_weight *w)
{
    MB_TRY(mb_grow((void **)&b->kept, &b->kept_capacity, b->n_kept + 1, sizeof *b->kept,
                   "the weights of a base"));
    MB_TRY(mb_strdup(w->name, &b->kept[b->n_kept].name));
    b->kept[b->n_kept++].value = w->value;
    return MB_OK;
}

mb_status mb_base_keep(mb_base *b, const mb_model *m, mb_arena **run)
{
    const size_t before = b->n_kept;
    mb_status st = mb_grow((void **)&b->arena, &b->arena_capacity, b->n_arenas + 1,
                           sizeof *b->arena, "the weights of a base");

    for (int i = 0; i < m->n_weights && st == MB_OK; i++)
        if (is_common(&m->weight[i]) && !m->weight[i].lent)
            st = keep(b, &m->weight[i]);
    if (st != MB_OK) {
        forget(b, before);
        return st;
    }
    if (b->n_kept > before) {
        b->arena[b->n_arenas++] = *run;
        *run = NULL;
    }
    return MB_OK;
}

void mb_base_leave(mb_base *b)
{
    mb_base **at;

    if (b == NULL || --b->users > 0)
        return;
    for (at = &b->all->first; *at != b; at = &(*at)->next)
        ;
    *at = b->next;
    forget(b, 0);
    for (size_t i = 0; i < b->n_arenas; i++)
        mb_arena_free(b->arena[i]);
    mb_tensor_file_close(b->file);
    mb_free(b->kept);
    mb_free(b->arena);
    mb_free(b);
}
