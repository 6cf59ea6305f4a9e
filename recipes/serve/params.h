/* recipes/serve/params.h - the numbers of a request, within the ranges of params.def. */
#ifndef MB_RECIPES_SERVE_PARAMS_H
#define MB_RECIPES_SERVE_PARAMS_H

#include "core/json.h"
#include "recipes/serve/fault.h"
#include "recipes/tokenizers/bytes.h"

typedef enum mb_param_route {
    MB_PARAM_CHAT = 1,
    MB_PARAM_TEXT = 2,
    MB_PARAM_BOTH = 3,
    MB_PARAM_SOUND = 4,
    MB_PARAM_VECTOR = 8,
} mb_param_route;

typedef enum mb_param_kind { MB_PARAM_INT, MB_PARAM_REAL, MB_PARAM_BOOL } mb_param_kind;

typedef struct mb_params {
    int64_t max_tokens, max_completion_tokens, top_k, n, seed, top_logprobs, logprobs, best_of;
    int64_t dimensions;
    double temperature, top_p, presence_penalty, frequency_penalty, repetition_penalty;
    bool want_logprobs, echo, stream, timings_per_token;
    bool has_seed;
} mb_params;

typedef struct mb_param {
    unsigned routes;
    const char *name;
    mb_param_kind kind;
    double least, most, otherwise;
    const char *help;
    size_t at; /* in mb_params */
} mb_param;

extern const mb_param mb_param_table[]; /* ended by a name NULL */

/* What the object says, of the parameters of a route; others are not looked at. MB_EARG. */
mb_status mb_params_read(mb_json object, mb_param_route route, mb_params *out,
                         mb_fault *f) MB_MUST_USE;
/* The same for one field of a form, as text. */
mb_status mb_params_read_text(const char *name, const char *text, mb_param_route route,
                              mb_params *p, mb_fault *f) MB_MUST_USE;
void mb_params_default(mb_param_route route, mb_params *out);
/* The table as JSON: [{"name":...,"routes":[...],"type":...,"minimum":...}]. */
mb_status mb_params_describe(mb_bytes *out) MB_MUST_USE;

#endif
