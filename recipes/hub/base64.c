/* recipes/hub/base64.c - see recipes/hub/base64.h. */
#include "recipes/hub/base64.h"

static int value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool mb_base64_read(const char *text, size_t n, uint8_t *out, size_t *n_out)
{
    size_t made = 0;

    if (n % 4 != 0)
        return false;
    for (size_t i = 0; i < n; i += 4) {
        const bool last = i + 4 == n;
        const int pad = !last ? 0 : text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
        uint32_t bits = 0;
        for (int k = 0; k < 4; k++) {
            const int v = k >= 4 - pad ? 0 : value(text[i + (size_t)k]);
            if (v < 0)
                return false;
            bits = bits << 6 | (uint32_t)v;
        }
        for (int k = 0; k < 3 - pad; k++)
            out[made++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    *n_out = made;
    return true;
}
