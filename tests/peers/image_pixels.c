/* tests/peers/image_pixels.c - what pictures become before a model sees them, for tests/peers/images.py.
 *
 *     image_pixels FOLDER torchvision|pil HEIGHT WIDTH CHANNELS FILE...
 *
 * FOLDER holds a preprocessor_config.json. Standard output gets the float32 numbers (channels, height,
 * width) of one picture after the other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/media/image_processor.h"

static mb_status run(int argc, char **argv)
{
    const int64_t height = strtoll(argv[3], NULL, 10), width = strtoll(argv[4], NULL, 10),
                  channels = strtoll(argv[5], NULL, 10);
    mb_image_work work = {0};
    mb_image_processor p;
    float *planes = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_image_processor_read(argv[1], height, width, channels, &p));
    p.way = strcmp(argv[2], "pil") == 0 ? MB_RESIZE_PIL : MB_RESIZE_TORCHVISION;
    MB_TRY(MB_NEW_ARRAY(&planes, height * width * channels));
    for (int i = 6; i < argc && st == MB_OK; i++) {
        st = mb_image_read(argv[i], p.alpha, &work.image, NULL);
        if (st == MB_OK)
            st = mb_image_process(&p, &work, NULL, NULL, planes);
        if (st == MB_OK)
            fwrite(planes, sizeof *planes, (size_t)(height * width * channels), stdout);
    }
    mb_free(planes);
    mb_image_work_release(&work);
    return st;
}

int main(int argc, char **argv)
{
    if (argc < 7)
        return 2;
    const mb_status st = run(argc, argv);
    if (st != MB_OK)
        fprintf(stderr, "image_pixels: %s\n", mb_status_sentence());
    return st == MB_OK ? 0 : 1;
}
