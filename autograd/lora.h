/* autograd/lora.h - what of a model is trained: everything, some of it, or low-rank adapters.
 *
 * LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA (Kalajdzievski 2023, arXiv:2312.03732): next to a
 * frozen W stand A(r,in) and B(out,r), scaled by alpha/r or alpha/sqrt(r). Adapter weights carry
 * PEFT's names on disk: "base_model.model.<module>.lora_A.weight". DoRA (Liu et al. 2024,
 * arXiv:2402.09353) adds a length per output, "<module>.lora_magnitude_vector".
 */
#ifndef MB_AUTOGRAD_LORA_H
#define MB_AUTOGRAD_LORA_H

#include "autograd/model.h"

typedef struct mb_lora_options {
    int64_t r;
    double alpha;
    float dropout;
    bool rslora, dora;
    /* Module names: each is a suffix of a module path at a dot ("q_proj"), as in PEFT or as in files, or, when it stands alone
     * and matches no module so, a regular expression over whole paths; "all-linear" is every linear
     * layer but the head. n_targets 0: the family's default. Borrowed. */
    const char *const *targets;
    int n_targets;
    /* Modules trained whole beside the adapters ("classifier"), by suffix, with everything inside
     * them. Heads that are new are always among them. */
    const char *const *save;
    int n_save;
    bool
        lenient; /* a name in `save` that the model lacks is no error (PEFT's own lists have such) */
} mb_lora_options;

/* Everything trained. */
void mb_model_train_all(mb_model *m);
/* Nothing but the last n layers, the final norm and the head trained (n < 0: no layer), plus weights
 * whose names match one of the regular expressions. MB_EARG when nothing is left to train. */
mb_status mb_model_train_some(mb_model *m, int64_t n_layers, const char *const *patterns,
                              int n_patterns) MB_MUST_USE;
/* Adds adapters and freezes the rest. MB_EARG names a target that no module has; a target on an
 * embedding or the head is MB_ENOTSUP. Call once, before layout. */
mb_status mb_model_add_lora(mb_model *m, const mb_lora_options *o) MB_MUST_USE;
/* After loading: A as PyTorch's kaiming_uniform(a=sqrt 5), i.e. uniform in +-1/sqrt(in), from the seed
 * and the weight's number; B zero; magnitudes the lengths of W's rows. */
mb_status mb_model_init_lora(mb_model *m, uint64_t seed) MB_MUST_USE;
/* W += scale B A (transposed for Conv1D), its rows brought to their magnitudes; adapters are zero in
 * effect afterwards. */
mb_status mb_model_merge_lora(mb_model *m, mb_exec *ex) MB_MUST_USE;
bool mb_model_has_lora(const mb_model *m);
/* Does any module's path end with these whole dotted parts? */
bool mb_model_has_module(const mb_model *m, const char *suffix);

/* The module path of a weight as PEFT has it: mostly its name without ".weight" / ".bias". */
void mb_weight_module(const mb_weight *w, char *out, size_t size);
/* The name a trained weight has in a PEFT adapter file. */
void mb_weight_peft_name(const mb_weight *w, char *out, size_t size);

#endif
