/* recipes/tokenizers/unicode.c - UTF-8, character classes and normal forms; the user of utf8proc.
 *
 * Normal forms are put together from utf8proc's tables: its own normaliser sorts combining marks
 * by exchanging neighbours, which takes hours for a megabyte of them. Here a run of marks is sorted
 * by counting (the class is a byte and the sort must be stable, Unicode chapter 3.11).
 */
#include "recipes/tokenizers/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "core/alloc.h"

/* The length of the sequence that begins at p if it is valid, else 0; *seen is how many bytes of
 * it are as they should be (a maximal subpart). RFC 3629: no overlong forms, no surrogates. */
static size_t sequence(const unsigned char *p, size_t n, size_t *seen)
{
    unsigned lo = 0x80, hi = 0xbf;
    size_t len;

    *seen = 1;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] == 0xe0)
        lo = 0xa0;
    else if (p[0] == 0xed)
        hi = 0x9f;
    else if (p[0] == 0xf0)
        lo = 0x90;
    else if (p[0] == 0xf4)
        hi = 0x8f;
    while (*seen < len) {
        if (*seen >= n || p[*seen] < lo || p[*seen] > hi)
            return 0;
        lo = 0x80;
        hi = 0xbf;
        ++*seen;
    }
    return len;
}

bool mb_utf8_check(const char *p, size_t n, size_t *bad)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t i = 0, seen;

    while (i < n) {
        uint64_t w;
        if (n - i >= 8 && (memcpy(&w, p + i, 8), (w & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        const size_t len = sequence(u + i, n - i, &seen);
        if (len == 0)
            break;
        i += len;
    }
    *bad = i;
    return i >= n;
}

size_t mb_utf8_get(const char *p, const char *end, uint32_t *c)
{
    const unsigned char *u = (const unsigned char *)p;
    const size_t left = (size_t)(end - p);

    if (u[0] < 0x80 || left < 2) {
        *c = u[0];
        return 1;
    }
    if (u[0] < 0xe0 || left < 3) {
        *c = (uint32_t)(u[0] & 0x1f) << 6 | (u[1] & 0x3f);
        return 2;
    }
    if (u[0] < 0xf0 || left < 4) {
        *c = (uint32_t)(u[0] & 0x0f) << 12 | (uint32_t)(u[1] & 0x3f) << 6 | (u[2] & 0x3f);
        return 3;
    }
    *c = (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3f) << 12 |
         (uint32_t)(u[2] & 0x3f) << 6 | (u[3] & 0x3f);
    return 4;
}

size_t mb_utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

mb_status mb_utf8_add(mb_bytes *t, uint32_t c)
{
    MB_TRY(mb_bytes_reserve(t, 4));
    t->n += mb_utf8_put(c, t->p + t->n);
    return MB_OK;
}

mb_status mb_utf8_add_lossy(mb_bytes *t, const char *p, size_t n)
{
    while (n > 0) {
        size_t good, seen;
        mb_utf8_check(p, n, &good);
        MB_TRY(mb_bytes_add(t, p, good));
        p += good;
        n -= good;
        if (n == 0)
            break;
        sequence((const unsigned char *)p, n, &seen);
        MB_TRY(mb_bytes_puts(t, "\xef\xbf\xbd"));
        p += seen;
        n -= seen;
    }
    return MB_OK;
}

size_t mb_utf8_unfinished(const char *p, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const unsigned char *u = (const unsigned char *)p + n - back;
        size_t seen;
        if ((*u & 0xc0) == 0x80)
            continue;
        return *u >= 0xc2 && *u <= 0xf4 && sequence(u, back, &seen) == 0 && seen == back ? back : 0;
    }
    return 0;
}

bool mb_char_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* What the peer's tables say of a code point, by class. */
enum peer_class { nonspacing, mark, punctuation, control, whole };
static const struct peer_range {
    enum peer_class class;
    bool is;
    uint32_t first, last;
} peer_ranges[] = {
#define PEER(class, is, first, last) {class, is, first, last},
#include "recipes/tokenizers/unicode_peer.def"
#undef PEER
};

/* Sorted by class, then by code point. True if there is something to say; *is is what. */
static bool peer_says(enum peer_class class, uint32_t c, bool *is)
{
    size_t lo = 0, hi = sizeof peer_ranges / sizeof *peer_ranges;

    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const struct peer_range *r = &peer_ranges[mid];
        if (r->class < class || (r->class == class && r->last < c))
            lo = mid + 1;
        else if (r->class > class || r->first > c)
            hi = mid;
        else {
            *is = r->is;
            return true;
        }
    }
    return false;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool mb_char_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    bool is;
    if (peer_says(punctuation, c, &is))
        return is;
    const utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool mb_char_is_number(uint32_t c)
{
    const utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool mb_char_is_mark(uint32_t c)
{
    bool is;

    if (c < 0x300)
        return false;
    if (peer_says(mark, c, &is))
        return is;
    const utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

bool mb_char_is_nonspacing(uint32_t c)
{
    bool is;

    if (c < 0x300)
        return false;
    return peer_says(nonspacing, c, &is) ? is : category(c) == UTF8PROC_CATEGORY_MN;
}

bool mb_char_is_control(uint32_t c)
{
    if (c < 0x80)
        return (c < 32 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f;
    bool is;
    if (peer_says(control, c, &is))
        return is;
    const utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

bool mb_char_is_cjk(uint32_t c)
{
    /* The fifth block begins at 2B920 there, not at 2B820; parity matters more than the typo. */
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

char mb_char_category(uint32_t c)
{
    return utf8proc_category_string((utf8proc_int32_t)c)[0];
}

bool mb_char_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '_' ||
               (c >= 'a' && c <= 'z');
    const utf8proc_category_t k = category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ME) || k == UTF8PROC_CATEGORY_ND ||
           k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_PC ||
           (c >= 0x24b6 && c <= 0x24e9) || /* circled letters are So but Alphabetic */
           (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d;
}

mb_status mb_lower_add(mb_bytes *t, uint32_t c)
{
    if (c < 0x80) {
        const char a = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        return mb_bytes_add(t, &a, 1);
    }
    if (c == 0x130) /* the one unconditional lower case of two code points */
        return mb_bytes_puts(t, "i\xcc\x87");
    return mb_utf8_add(t, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
}

mb_status mb_upper_add(mb_bytes *t, uint32_t c)
{
    if (c < 0x80) {
        const char a = (char)(c >= 'a' && c <= 'z' ? c - 32 : c);
        return mb_bytes_add(t, &a, 1);
    }
    if (c == 0xdf)
        return mb_bytes_puts(t, "SS");
    return mb_utf8_add(t, (uint32_t)utf8proc_toupper((utf8proc_int32_t)c));
}

static utf8proc_propval_t mark_class(utf8proc_int32_t c)
{
    return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
}

static void insertion_sort(utf8proc_int32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const utf8proc_int32_t x = c[i];
        size_t j = i;
        for (; j > 0 && mark_class(c[j - 1]) > mark_class(x); j--)
            c[j] = c[j - 1];
        c[j] = x;
    }
}

static mb_status counting_sort(utf8proc_int32_t *c, size_t n)
{
    size_t start[257] = {0};
    utf8proc_int32_t *copy = NULL;

    MB_TRY(MB_NEW_ARRAY(&copy, n));
    memcpy(copy, c, n * sizeof *c);
    for (size_t i = 0; i < n; i++)
        start[(uint8_t)mark_class(c[i]) + 1]++;
    for (size_t k = 1; k < 257; k++)
        start[k] += start[k - 1];
    for (size_t i = 0; i < n; i++)
        c[start[(uint8_t)mark_class(copy[i])]++] = copy[i];
    mb_free(copy);
    return MB_OK;
}

/* The canonical ordering: marks (class > 0) in a row are sorted by class, stably. */
static mb_status order_marks(utf8proc_int32_t *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t end = i;
        while (end < n && mark_class(c[end]) > 0)
            end++;
        if (end - i > 24)
            MB_TRY(counting_sort(c + i, end - i));
        else if (end - i > 1)
            insertion_sort(c + i, end - i);
        if (end > i)
            i = end - 1;
    }
    return MB_OK;
}

static mb_status normal_form(mb_bytes *t, const char *p, size_t n, mb_normal_form form)
{
    const bool compose = form == MB_NFC || form == MB_NFKC;
    const utf8proc_option_t how =
        (form == MB_NFKC || form == MB_NFKD ? UTF8PROC_COMPAT : 0) | UTF8PROC_DECOMPOSE;
    utf8proc_int32_t *c = NULL;
    size_t used = 0, capacity = 0;
    mb_status st = MB_OK;

    for (const char *at = p, *end = p + n; at < end;) {
        uint32_t x;
        int boundary = 0;
        bool stays = false;
        at += mb_utf8_get(at, end, &x);
        /* No code point decomposes to more than 18. */
        MB_TRY_GOTO(mb_grow((void **)&c, &capacity, used + 32, sizeof *c, "normal form"), st, done);
        const utf8proc_ssize_t k =
            x < 0x80 || (peer_says(whole, x, &stays) && stays)
                ? (c[used] = (utf8proc_int32_t)x, 1)
                : utf8proc_decompose_char((utf8proc_int32_t)x, c + used, 32, how, &boundary);
        if (k < 0 || k > 32) /* not assigned: stays as it is */
            c[used++] = (utf8proc_int32_t)x;
        else
            used += (size_t)k;
    }
    MB_TRY_GOTO(order_marks(c, used), st, done);
    if (compose && used > 0)
        used = (size_t)utf8proc_normalize_utf32(c, (utf8proc_ssize_t)used,
                                                UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (size_t i = 0; i < used; i++)
        MB_TRY_GOTO(mb_utf8_add(t, (uint32_t)c[i]), st, done);
done:
    mb_free(c);
    return st;
}

mb_status mb_normal_form_add(mb_bytes *t, const char *p, size_t n, mb_normal_form form)
{
    /* ASCII is its own normal form; only the stretch between the first and the last character
     * that is not ASCII (and the letter before it) has work to do. */
    size_t begin = 0, end = n;

    while (begin < n && (unsigned char)p[begin] < 0x80)
        begin++;
    if (begin == n)
        return mb_bytes_add(t, p, n);
    if (begin > 0)
        begin--;
    while ((unsigned char)p[end - 1] < 0x80)
        end--;
    MB_TRY(mb_bytes_add(t, p, begin));
    MB_TRY(normal_form(t, p + begin, end - begin, form));
    return mb_bytes_add(t, p + end, n - end);
}

size_t mb_grapheme_len(const char *p, const char *end, size_t limit)
{
    utf8proc_int32_t state = 0;
    uint32_t c, next;

    if (end - p == 1 || ((unsigned char)p[0] < 0x80 && p[0] != '\r' && (unsigned char)p[1] < 0x80))
        return 1;
    size_t n = mb_utf8_get(p, end, &c);
    while (p + n < end && n <= limit) {
        const size_t len = mb_utf8_get(p + n, end, &next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)c, (utf8proc_int32_t)next, &state))
            break;
        n += len;
        c = next;
    }
    return n;
}
