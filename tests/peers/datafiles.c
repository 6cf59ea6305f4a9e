/* tests/peers/datafiles.c - helper of tests/peers/datafiles.py: the rows of a file, one a line.
 *
 *     datafiles FILE          as recipes/data/rowfile.h gives them; a failure is "error: sentence"
 */
#include <stdio.h>

#include "core/path.h"
#include "recipes/data/rowfile.h"

static mb_status print_rows(const char *path)
{
    mb_rowfile_kind kind;
    mb_rowfile *f = NULL;
    mb_row_text row;
    bool more = true;
    mb_status st;

    MB_TRY(mb_rowfile_kind_of(path, &kind));
    MB_TRY(mb_rowfile_open(path, kind, MB_TEXT_LINE, &f));
    for (st = MB_OK; st == MB_OK && more;) {
        st = mb_rowfile_next(f, &row, &more);
        if (st == MB_OK && more) {
            fwrite(row.text, 1, row.n, stdout);
            putchar('\n');
        }
    }
    mb_rowfile_close(f);
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (print_rows(argv[1]) != MB_OK)
        printf("error: %s\n", mb_status_sentence());
    return 0;
}
