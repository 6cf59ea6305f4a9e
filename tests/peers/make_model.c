/* make_model.c FOLDER [bf16] - writes FOLDER/model.safetensors with random weights for
 * FOLDER/config.json, in f32 or bf16: a model as large as a test or a benchmark wants it. */
#include <stdio.h>
#include <string.h>

#include "autograd/model.h"
#include "core/alloc.h"
#include "core/formats/safetensors_writer.h"
#include "core/rng.h"

/* Norms are 1, everything else normal with deviation 0.02, as Hugging Face does. */
static mb_status write_weight(mb_safetensors_writer *w, const mb_weight *weight, uint64_t number,
                              mb_dtype type)
{
    const int64_t n = mb_tensor_count(&weight->value);
    const uint64_t key = mb_rng_key(1, MB_SITE_INIT, number);
    const bool norm = weight->value.ndim == 1 && strstr(weight->name, ".bias") == NULL;
    float *x;

    MB_TRY(MB_NEW_ARRAY(&x, n));
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++)
        x[i] = norm ? 1.0f : 0.035f * (2.0f * mb_rng_unit(mb_rng_u32(key, (uint64_t)i)) - 1.0f);
    if (type == MB_DTYPE_BF16)
        for (int64_t i = 0; i < n; i++) /* in place: behind what is still to be read */
            ((uint16_t *)(void *)x)[i] = mb_f32_to_bf16(x[i]);
    const mb_status st = mb_safetensors_append(w, x, mb_dtype_bytes(type, n));
    mb_free(x);
    return st;
}

static mb_status write_all(const mb_model *m, const char *folder, mb_dtype type)
{
    mb_safetensors_writer *w = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_safetensors_writer_new(folder, "model", INT64_C(1) << 40, &w));
    for (int i = 0; i < m->n_weights; i++) {
        const mb_tensor *t = &m->weight[i].value;
        MB_TRY_GOTO(mb_safetensors_declare(w, m->weight[i].name, type, t->ndim, t->dim), st, done);
    }
    for (int i = 0; i < m->n_weights; i++)
        MB_TRY_GOTO(write_weight(w, &m->weight[i], (uint64_t)i, type), st, done);
    st = mb_safetensors_finish(w);
done:
    mb_safetensors_writer_free(w);
    return st;
}

static mb_status run(const char *folder, mb_dtype type)
{
    mb_json_doc *doc = NULL;
    mb_model_config c;
    mb_model *m = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_model_config_doc(folder, &doc));
    MB_TRY_GOTO(mb_model_config_parse(doc, mb_model_config_head(doc, MB_HEAD_CAUSAL_LM), &c), st,
                done);
    MB_TRY_GOTO(mb_model_new(&c, &m), st, done);
    MB_TRY_GOTO(write_all(m, folder, type), st, done);
    printf("%lld parameters\n", (long long)mb_model_parameters(m, false));
done:
    mb_model_free(m);
    mb_json_free(doc);
    return st;
}

int main(int argc, char **argv)
{
    const bool bf16 = argc == 3 && strcmp(argv[2], "bf16") == 0;

    if (argc != 2 && !bf16) {
        fprintf(stderr, "usage: make_model FOLDER [bf16]\n");
        return 2;
    }
    if (run(argv[1], bf16 ? MB_DTYPE_BF16 : MB_DTYPE_F32) == MB_OK)
        return 0;
    fprintf(stderr, "%s\n", mb_status_sentence());
    return 1;
}
