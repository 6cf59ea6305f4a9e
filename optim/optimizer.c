/* optim/optimizer.c - the registry behind optim/optimizer.h. */
#include "optim/optimizer.h"

#include <string.h>

#define MB_OPTIMIZER(kind, alias) extern const mb_optim_kind mb_optim_##kind;
#include "optim/optimizers.def"
#undef MB_OPTIMIZER

const mb_optim_kind *const mb_optim_kinds[] = {
#define MB_OPTIMIZER(kind, alias) &mb_optim_##kind,
#include "optim/optimizers.def"
#undef MB_OPTIMIZER
    NULL,
};

static const char *const aliases[] = {
#define MB_OPTIMIZER(kind, alias) alias,
#include "optim/optimizers.def"
#undef MB_OPTIMIZER
};

const mb_optim_kind *mb_optim_find(const char *name)
{
    for (int i = 0; mb_optim_kinds[i] != NULL; i++)
        if (strcmp(mb_optim_kinds[i]->name, name) == 0 || strcmp(aliases[i], name) == 0)
            return mb_optim_kinds[i];
    return NULL;
}
