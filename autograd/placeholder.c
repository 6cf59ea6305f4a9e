/* placeholder.c - removed with the first real file of this folder. */
typedef int mb_placeholder;
