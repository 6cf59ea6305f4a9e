/* tests/peers/make_pictures.c - PNGs of three classes, for tests of whole runs.
 *
 *     make_pictures FOLDER N
 *
 * FOLDER/{bars,disc,ring}/00.png ...: N of each class, in sizes from 9 to 40 pixels, on grounds and in
 * colours that say nothing of the class. The same every time.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/path.h"
#include "core/rng.h"
#include "recipes/media/image.h"

enum { MOST = 40 };

static bool inside(int kind, double x, double y)
{
    const double r = x * x + y * y;

    if (kind == 0)
        return ((int)((y + 1.0) * 3.0) & 1) != 0;
    return kind == 1 ? r < 0.5 : r < 0.8 && r > 0.3;
}

static mb_status draw(const char *path, int kind, uint64_t key)
{
    static uint8_t pixels[MOST * MOST * 3];
    const int width = 9 + (int)mb_rng_below(key, 0, MOST - 8),
              height = 9 + (int)mb_rng_below(key, 1, MOST - 8);
    uint8_t *p = pixels;

    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                const bool in =
                    inside(kind, 2.0 * x / (width - 1) - 1.0, 2.0 * y / (height - 1) - 1.0);
                const uint64_t level = mb_rng_below(key, 2 + (uint64_t)c + (in ? 0u : 3u), 100);
                *p++ = (uint8_t)(level + (in ? 150 : 0));
            }
    return mb_image_write_png(path, width, height, pixels);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"bars", "disc", "ring"};
    char dir[MB_PATH_MAX], path[MB_PATH_MAX + 16];
    mb_status st = argc == 3 ? MB_OK : MB_EARG;

    for (int k = 0; k < 3 && st == MB_OK; k++) {
        st = mb_path_join(dir, sizeof dir, argv[1], names[k]);
        if (st == MB_OK)
            st = mb_path_mkdirs(dir);
        for (int i = 0; i < atoi(argv[2]) && st == MB_OK; i++) {
            snprintf(path, sizeof path, "%s/%02d.png", dir, i);
            st = draw(path, k, mb_rng_key(1, (uint64_t)k, (uint64_t)i));
        }
    }
    if (st != MB_OK)
        fprintf(stderr, "make_pictures: %s\n", mb_status_sentence());
    return st == MB_OK ? 0 : 1;
}
