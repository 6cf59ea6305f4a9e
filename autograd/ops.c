/* autograd/ops.c - the table of ops, generated from ops.def. */
#include "autograd/ops.h"

const mb_op *const mb_ops[] = {
#define MB_OP(name, params) &mb_op_##name,
#include "autograd/ops.def"
#undef MB_OP
    NULL,
};
