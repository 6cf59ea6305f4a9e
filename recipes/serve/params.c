/* recipes/serve/params.c - see recipes/serve/params.h. */
#include "recipes/serve/params.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const mb_param mb_param_table[] = {
#define MB_PARAM(routes, field, name, kind, least, most, otherwise, help)                 \
    {MB_PARAM_##routes, name, MB_PARAM_##kind,           (double)(least), (double)(most), \
     otherwise,         help, offsetof(mb_params, field)},
#include "recipes/serve/params.def"
    {0},
};

static void put(mb_params *p, const mb_param *row, int64_t i, double x)
{
    char *to = (char *)p + row->at;

    if (row->kind == MB_PARAM_INT)
        memcpy(to, &i, sizeof i);
    else if (row->kind == MB_PARAM_REAL)
        memcpy(to, &x, sizeof x);
    else
        *(bool *)to = i != 0;
}

void mb_params_default(mb_param_route route, mb_params *out)
{
    *out = (mb_params){.n = 1};
    for (const mb_param *row = mb_param_table; row->name != NULL; row++)
        if (row->routes & route)
            put(out, row, (int64_t)row->otherwise, row->otherwise);
}

static mb_status out_of_range(const mb_param *row, double x, mb_fault *f)
{
    mb_fault_set(f, 400, NULL, row->name);
    return MB_RAISE(MB_EARG, "%s is %.15g; it must be from %.15g to %.15g", row->name, x,
                    row->least, row->most);
}

static mb_status take_real(const mb_param *row, double x, mb_params *p, mb_fault *f)
{
    if (!(x >= row->least && x <= row->most))
        return out_of_range(row, x, f);
    put(p, row, 0, x);
    return MB_OK;
}

static mb_status take_int(const mb_param *row, int64_t i, mb_params *p, mb_fault *f)
{
    /* a seed has all 64 bits */
    if (row->most < (double)INT64_MAX && !((double)i >= row->least && (double)i <= row->most))
        return out_of_range(row, (double)i, f);
    put(p, row, i, 0.0);
    if (strcmp(row->name, "seed") == 0)
        p->has_seed = true;
    return MB_OK;
}

static mb_status take(const mb_param *row, mb_json v, mb_params *p, mb_fault *f)
{
    int64_t i;
    double x;
    bool yes;

    mb_fault_set(f, 400, NULL, row->name);
    if (row->kind == MB_PARAM_BOOL) {
        MB_TRY(mb_json_bool(v, &yes));
        put(p, row, yes, 0.0);
        return MB_OK;
    }
    if (row->kind == MB_PARAM_INT) {
        MB_TRY(mb_json_int(v, &i));
        return take_int(row, i, p, f);
    }
    MB_TRY(mb_json_real(v, &x));
    return take_real(row, x, p, f);
}

mb_status mb_params_read(mb_json object, mb_param_route route, mb_params *out, mb_fault *f)
{
    mb_params_default(route, out);
    for (const mb_param *row = mb_param_table; row->name != NULL; row++) {
        const mb_json v = mb_json_get(object, row->name);

        if ((row->routes & route) && mb_json_is_set(v))
            MB_TRY(take(row, v, out, f));
    }
    mb_fault_set(f, 0, NULL, NULL);
    return MB_OK;
}

mb_status mb_params_read_text(const char *name, const char *text, mb_param_route route,
                              mb_params *p, mb_fault *f)
{
    for (const mb_param *row = mb_param_table; row->name != NULL; row++) {
        char *end;
        double x;

        if (!(row->routes & route) || strcmp(row->name, name) != 0)
            continue;
        mb_fault_set(f, 400, NULL, name);
        if (row->kind == MB_PARAM_BOOL) {
            const bool yes =
                strcmp(text, "true") == 0 || strcmp(text, "True") == 0 || strcmp(text, "1") == 0;

            MB_REQUIRE(yes || strcmp(text, "false") == 0 || strcmp(text, "False") == 0 ||
                           strcmp(text, "0") == 0,
                       MB_EARG, "%s must be true or false, not \"%.40s\"", name, text);
            put(p, row, yes, 0.0);
        } else {
            errno = 0;
            x = strtod(text, &end);
            MB_REQUIRE(end != text && *end == '\0' && errno == 0, MB_EARG,
                       "%s must be a number, not \"%.40s\"", name, text);
            MB_TRY(take_real(row, x, p, f));
            if (row->kind == MB_PARAM_INT)
                put(p, row, (int64_t)x, 0.0);
        }
        mb_fault_set(f, 0, NULL, NULL);
        return MB_OK;
    }
    return MB_OK;
}

mb_status mb_params_describe(mb_bytes *out)
{
    static const char *const kinds[] = {"integer", "number", "boolean"};
    static const char *const routes[] = {"chat", "completions", "transcriptions", "embeddings"};
    bool first = true;

    MB_TRY(mb_bytes_puts(out, "["));
    for (const mb_param *row = mb_param_table; row->name != NULL; row++) {
        MB_TRY(mb_bytes_printf(out, "%s{\"name\":\"%s\",\"type\":\"%s\",\"routes\":[",
                               first ? "" : ",", row->name, kinds[row->kind]));
        first = true;
        for (int i = 0; i < 4; i++) {
            if (row->routes >> i & 1) {
                MB_TRY(mb_bytes_printf(out, "%s\"%s\"", first ? "" : ",", routes[i]));
                first = false;
            }
        }
        MB_TRY(mb_bytes_puts(out, "]"));
        if (row->kind != MB_PARAM_BOOL && row->most < (double)INT64_MAX)
            MB_TRY(mb_bytes_printf(out, ",\"minimum\":%.15g,\"maximum\":%.15g", row->least,
                                   row->most));
        MB_TRY(mb_bytes_puts(out, ",\"help\":"));
        MB_TRY(mb_bytes_json(out, row->help, strlen(row->help)));
        MB_TRY(mb_bytes_puts(out, "}"));
        first = false;
    }
    return mb_bytes_puts(out, "]");
}
