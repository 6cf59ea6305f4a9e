/* recipes/export/gguf_types.c - which type a tensor gets, as llama.cpp's quantiser chooses (its
 * llama-quant.cpp, without measured importances; Q4_K means its mixture Q4_K_M). */
#include <stdio.h>
#include <string.h>

#include "recipes/export/gguf.h"

static const struct {
    mb_dtype want;
    uint32_t file_type;
    const char *word;
} files[] = {
    {MB_DTYPE_F32, 0, "F32"},      {MB_DTYPE_F16, 1, "F16"},   {MB_DTYPE_BF16, 32, "BF16"},
    {MB_DTYPE_Q4_0, 2, "Q4_0"},    {MB_DTYPE_Q4_1, 3, "Q4_1"}, {MB_DTYPE_Q8_0, 7, "Q8_0"},
    {MB_DTYPE_Q4_K, 15, "Q4_K_M"},
};

uint32_t mb_gguf_file_type(mb_dtype want)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (files[i].want == want)
            return files[i].file_type;
    MB_BUG("%s is no type of a file", mb_dtype_name(want));
}

const char *mb_gguf_type_word(mb_dtype want)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (files[i].want == want)
            return files[i].word;
    return mb_dtype_name(want);
}

/* Layers at the ends, and every third: they get more bits where it matters. */
static bool more_bits(int64_t layer, int64_t layers)
{
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

/* Where rows are no whole blocks. */
static mb_dtype fitting(mb_dtype d, int64_t row)
{
    static const struct {
        mb_dtype from, to;
    } less[] = {{MB_DTYPE_Q4_K, MB_DTYPE_Q5_0}, {MB_DTYPE_Q5_K, MB_DTYPE_Q5_1},
                {MB_DTYPE_Q6_K, MB_DTYPE_Q8_0}, {MB_DTYPE_Q4_0, MB_DTYPE_F16},
                {MB_DTYPE_Q4_1, MB_DTYPE_F16},  {MB_DTYPE_Q5_0, MB_DTYPE_F16},
                {MB_DTYPE_Q5_1, MB_DTYPE_F16},  {MB_DTYPE_Q8_0, MB_DTYPE_F16}};

    for (size_t i = 0; i < sizeof less / sizeof less[0]; i++)
        if (less[i].from == d && row % mb_dtype_block(d) != 0)
            return fitting(less[i].to, row);
    return d;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);

    return n >= k && strcmp(s + n - k, end) == 0;
}

static mb_dtype mixed(const mb_model *m, const mb_weight *v, const char *name)
{
    static const char *const sensitive[] = {".attn_v.weight", ".attn_qkv.weight",
                                            ".ffn_down.weight"};

    for (size_t i = 0; i < sizeof sensitive / sizeof sensitive[0]; i++)
        if (ends_with(name, sensitive[i]))
            return more_bits(v->layer, m->config.layers) ? MB_DTYPE_Q6_K : MB_DTYPE_Q4_K;
    return MB_DTYPE_Q4_K;
}

mb_dtype mb_gguf_type_of(const mb_model *m, const mb_weight *v, const char *name, mb_dtype want)
{
    static const char *const plain[] = {"position_embd.weight", "token_types.weight",
                                        ".attn_rel_b.weight"};
    const bool turned = (v->row->flags & MB_W_CONV1D) != 0;
    const bool output = strcmp(name, "output.weight") == 0 ||
                        (strcmp(name, "token_embd.weight") == 0 && m->config.tied);

    if (v->value.ndim < 2)
        return MB_DTYPE_F32;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (ends_with(name, plain[i]))
            return MB_DTYPE_F32;
    const int64_t row = v->value.dim[turned ? 0 : 1];
    if (!mb_dtype_is_quantised(want))
        return want;
    if (output && row % mb_dtype_block(want) != 0)
        return fitting(MB_DTYPE_Q8_0, row);
    if (output && want != MB_DTYPE_Q8_0)
        return fitting(MB_DTYPE_Q6_K, row);
    return fitting(want == MB_DTYPE_Q4_K ? mixed(m, v, name) : want, row);
}
