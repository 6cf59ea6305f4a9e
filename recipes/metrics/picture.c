/* recipes/metrics/picture.c - see picture.h. */
#include "recipes/metrics/picture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/media/image.h"
#include "recipes/tokenizers/unicode.h"

enum {
    SCALE = 2, /* pixels of a font's pixel */
    STEP = 6 * SCALE,
    TALL = 7 * SCALE,
    MARGIN = 8,
    SMALL_CELL = 8,
    LONGEST = 24, /* letters of a name that are drawn */
};

static const uint8_t glyphs[][8] = {
#define MB_GLYPH(c, ...) {c, __VA_ARGS__},
#include "recipes/metrics/font.def"
#undef MB_GLYPH
};

static const uint8_t *rows_of(uint32_t c)
{
    static const uint8_t box[] = {0, 0x1f, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1f};

    for (size_t i = 0; i < sizeof glyphs / sizeof *glyphs; i++)
        if (glyphs[i][0] == c)
            return glyphs[i] + 1;
    return box + 1;
}

struct canvas {
    int64_t width, height;
    uint8_t *rgb;
};

static void fill(struct canvas *to, int64_t x, int64_t y, int64_t w, int64_t h,
                 const uint8_t rgb[3])
{
    for (int64_t j = y; j < y + h && j < to->height; j++)
        for (int64_t i = x; i < x + w && i < to->width; i++)
            if (i >= 0 && j >= 0)
                memcpy(to->rgb + 3 * (j * to->width + i), rgb, 3);
}

/* `up`: turned a quarter to the left, from (x, y) upwards. */
static void draw_letter(struct canvas *to, int64_t x, int64_t y, uint32_t letter, bool up,
                        const uint8_t rgb[3])
{
    const uint8_t *row = rows_of(letter);

    for (int j = 0; j < 7; j++)
        for (int i = 0; i < 5; i++)
            if (row[j] & (0x10 >> i))
                fill(to, up ? x + j * SCALE : x + i * SCALE,
                     up ? y - (i + 1) * SCALE : y + j * SCALE, SCALE, SCALE, rgb);
}

static int64_t letters_in(const char *text)
{
    int64_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n < LONGEST ? n : LONGEST;
}

static void draw(struct canvas *to, int64_t x, int64_t y, const char *text, bool up,
                 const uint8_t rgb[3])
{
    const char *end = text + strlen(text);

    for (int64_t n = 0; text < end && n < LONGEST; n++) {
        uint32_t c;
        text += mb_utf8_get(text, end, &c);
        draw_letter(to, up ? x : x + n * STEP, up ? y - n * STEP : y, c, up, rgb);
    }
}

static int64_t digits_in(const mb_classes *c)
{
    int64_t most = 0;

    for (int64_t i = 0; i < c->n * c->n; i++)
        most = c->confusion[i] > most ? c->confusion[i] : most;
    return snprintf(NULL, 0, "%lld", (long long)most);
}

mb_picture_grid mb_confusion_grid(const mb_classes *c)
{
    int64_t longest = 0, cell = SMALL_CELL;

    for (int64_t k = 0; k < c->n; k++)
        longest = letters_in(c->name[k]) > longest ? letters_in(c->name[k]) : longest;
    if (c->n <= MB_PICTURE_NUMBERS) {
        cell = digits_in(c) * STEP + 2 * MARGIN;
        cell = cell > 40 ? cell : 40;
    }
    const int64_t edge = (cell >= TALL ? longest * STEP : 0) + 2 * MARGIN;
    return (mb_picture_grid){.left = edge,
                             .top = edge,
                             .cell = cell,
                             .width = edge + c->n * cell + MARGIN,
                             .height = edge + c->n * cell + MARGIN};
}

void mb_confusion_colour(double share, uint8_t rgb[3])
{
    static const double dark[3] = {8, 48, 107};

    for (int k = 0; k < 3; k++)
        rgb[k] = (uint8_t)lround(245.0 - share * (245.0 - dark[k]));
}

static void draw_cell(struct canvas *to, const mb_picture_grid *g, const mb_classes *c, int64_t i,
                      int64_t j)
{
    static const uint8_t black[3] = {0}, white[3] = {255, 255, 255};
    const int64_t count = c->confusion[i * c->n + j], rows = c->count[i].labelled;
    const double share = rows > 0 ? (double)count / (double)rows : 0.0;
    uint8_t colour[3];
    char number[24];

    mb_confusion_colour(share, colour);
    fill(to, g->left + j * g->cell, g->top + i * g->cell, g->cell - 1, g->cell - 1, colour);
    if (g->cell < TALL)
        return;
    const int64_t width = snprintf(number, sizeof number, "%lld", (long long)count) * STEP;
    draw(to, g->left + j * g->cell + (g->cell - width) / 2,
         g->top + i * g->cell + (g->cell - TALL) / 2, number, false, share > 0.5 ? white : black);
}

static void draw_matrix(struct canvas *to, const mb_picture_grid *g, const mb_classes *c)
{
    static const uint8_t black[3] = {0};

    memset(to->rgb, 255, (size_t)(3 * g->width * g->height));
    for (int64_t i = 0; i < c->n; i++) {
        for (int64_t j = 0; j < c->n; j++)
            draw_cell(to, g, c, i, j);
        if (g->cell < TALL)
            continue;
        const int64_t middle = i * g->cell + (g->cell - TALL) / 2;
        draw(to, g->left - MARGIN - letters_in(c->name[i]) * STEP, g->top + middle, c->name[i],
             false, black);
        draw(to, g->left + middle, g->top - MARGIN, c->name[i], true, black);
    }
}

mb_status mb_confusion_picture(const mb_classes *c, const char *path)
{
    struct canvas to;
    mb_status st;

    MB_REQUIRE(c->confusion != NULL, MB_ENOTSUP, "%s: %lld classes; at most %d are drawn", path,
               (long long)c->n, MB_CONFUSION_MAX);
    const mb_picture_grid g = mb_confusion_grid(c);
    to.width = g.width;
    to.height = g.height;
    MB_TRY(mb_alloc_array((size_t)(g.width * g.height), 3, "a picture", (void **)&to.rgb));
    draw_matrix(&to, &g, c);
    st = mb_image_write_png(path, g.width, g.height, to.rgb);
    mb_free(to.rgb);
    return st;
}
