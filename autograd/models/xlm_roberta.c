/* autograd/models/xlm_roberta.c - XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116), also of
 * multilingual E5 and BGE-M3: RoBERTa by other class names.
 */
#include "autograd/models/roberta.h"

static const char *const model_types[] = {"xlm-roberta", NULL};

const mb_model_family mb_model_xlm_roberta = {
    .name = "xlm-roberta",
    .model_types = model_types,
    .architecture = {[MB_HEAD_MASKED_LM] = "XLMRobertaForMaskedLM",
                     [MB_HEAD_SEQUENCE] = "XLMRobertaForSequenceClassification",
                     [MB_HEAD_TOKENS] = "XLMRobertaForTokenClassification",
                     [MB_HEAD_SPAN] = "XLMRobertaForQuestionAnswering",
                     [MB_HEAD_EMBED] = "XLMRobertaModel"},
    .gguf_arch = "bert",
    .gguf_tokenizer = "t5",
    .prefix = "roberta.",
    .ignore = mb_roberta_ignore,
    .rename = mb_roberta_rename,
    .lora_default = mb_roberta_lora,
    .globals = mb_roberta_globals,
    .layer = mb_roberta_layers,
    .globals_size = sizeof(struct mb_roberta_weights),
    .layer_size = sizeof(mb_encoder_layer),
    .config = mb_roberta_config,
    .config_gguf = mb_roberta_config_gguf,
    .forward = mb_roberta_forward,
};
