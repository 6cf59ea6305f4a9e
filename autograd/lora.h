/* autograd/lora.h - what of a model is trained: everything, some of it, low-rank adapters, or rows of
 * single tokens.
 *
 * LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA (Kalajdzievski 2023, arXiv:2312.03732): next to a
 * frozen W stand A(r,in) and B(out,r), scaled by alpha/r or alpha/sqrt(r). Adapter weights carry
 * PEFT's names on disk: "base_model.model.<module>.lora_A.weight". DoRA (Liu et al. 2024,
 * arXiv:2402.09353) adds a length per output, "<module>.lora_magnitude_vector".
 *
 * Rows of single tokens (PEFT's trainable tokens) stand beside a frozen table and are written into it
 * before it is used (autograd/live_rows.h). They are values, not differences:
 * "<module>.token_adapter.trainable_tokens_delta", alone "<module>.trainable_tokens_delta".
 */
#ifndef MB_AUTOGRAD_LORA_H
#define MB_AUTOGRAD_LORA_H

#include "autograd/model.h"

/* Rows of one table to train: distinct ids, in the order the rows shall have. Borrowed. */
typedef struct mb_token_wish {
    const char *module; /* by suffix; NULL: the input embedding, and so a head tied to it */
    const int32_t *id;
    int64_t n;
} mb_token_wish;

typedef struct mb_lora_options {
    int64_t r; /* 0: no adapters, the rows of tokens alone */
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
    const mb_token_wish *tokens; /* of different tables */
    int n_tokens;
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
/* After loading: rows of tokens are the table's; A as PyTorch's kaiming_uniform(a=sqrt 5), i.e. uniform in
 * +-1/sqrt(in), from the seed
 * and the weight's number; B zero; magnitudes the lengths of W's rows. */
mb_status mb_model_init_lora(mb_model *m, uint64_t seed) MB_MUST_USE;
/* W += scale B A (transposed for Conv1D), its rows brought to their magnitudes; adapters are zero in
 * effect afterwards. Rows of tokens become the table's, which has none of its own from then on. */
mb_status mb_model_merge_lora(mb_model *m, mb_exec *ex) MB_MUST_USE;
/* Has it adapters or rows of tokens? */
bool mb_model_has_adapter(const mb_model *m);
/* Does any module's path end with these whole dotted parts? */
bool mb_model_has_module(const mb_model *m, const char *suffix);

/* By the path of its module, or the one that files and transformers before 5 give it. */
bool mb_weight_is_called(const mb_weight *w, const char *suffix);

/* Parts of the above (autograd/token_rows.c); the first after room was reserved for its weights. */
mb_status mb_model_add_token_rows(mb_model *m, const mb_lora_options *o) MB_MUST_USE;
mb_status mb_model_init_token_rows(const mb_model *m) MB_MUST_USE;
/* Writes the rows into their tables, which then need no gradient or device to be right. */
mb_status mb_model_write_token_rows(const mb_model *m) MB_MUST_USE;

/* The module path of a weight as PEFT has it: mostly its name without ".weight" / ".bias". */
void mb_weight_module(const mb_weight *w, char *out, size_t size);
/* The name a trained weight has in a PEFT adapter file. */
void mb_weight_peft_name(const mb_weight *w, char *out, size_t size);

#endif
