/* autograd/model.h - a model: a configuration, a table of weights, a forward.
 *
 * A family is one file in autograd/models/ and one line in models.def. Its weight table is the only
 * list of its tensors: loading, saving, counting, adapter targets, splitting and the check for
 * missing and unknown tensors all read it. Several models may live in one process.
 *
 *     mb_model_new(&config, &m)            shapes only, no memory
 *     mb_model_add_lora / mb_model_train   what is trained (autograd/lora.h)
 *     mb_model_layout(m, &flat)            the flat order of what is trained
 *     mb_model_bind(m, arena, &flat)       memory; from a counting arena: only measures
 *     mb_model_load(m, file, ...)          values (autograd/load.h)
 *     m->family->forward(tape, m, batch, &out)
 */
#ifndef MB_AUTOGRAD_MODEL_H
#define MB_AUTOGRAD_MODEL_H

#include "autograd/batch.h"
#include "autograd/ops.h"
#include "core/device.h"
#include "core/flat.h"
#include "core/json.h"

struct mb_gguf; /* core/formats/gguf.h */

typedef struct mb_model mb_model;
typedef struct mb_weight mb_weight;
typedef struct mb_model_family mb_model_family;

typedef enum mb_head {
    MB_HEAD_CAUSAL_LM,
    MB_HEAD_MASKED_LM,
    MB_HEAD_SEQUENCE,
    MB_HEAD_TOKENS,  /* classes of tokens */
    MB_HEAD_SPAN,    /* first and last token of an answer */
    MB_HEAD_EMBED,   /* a vector per sequence: no weights, the mean of the hidden states */
    MB_HEAD_SEQ2SEQ, /* an encoder reads the source, a decoder predicts the next token */
    MB_HEAD_COUNT
} mb_head;

enum { MB_MAX_LAYERS = 4096 };

/* Some of a model's layers. */
typedef struct mb_layer_set {
    uint64_t bits[MB_MAX_LAYERS / 64];
} mb_layer_set;

static inline void mb_layer_set_add(mb_layer_set *s, int64_t layer)
{
    s->bits[layer / 64] |= (uint64_t)1 << layer % 64;
}

static inline bool mb_layer_set_has(const mb_layer_set *s, int64_t layer)
{
    return layer < MB_MAX_LAYERS && (s->bits[layer / 64] >> layer % 64 & 1) != 0;
}

/* How targets are judged; see autograd/batch.h for what they are. */
typedef enum mb_loss {
    MB_LOSS_SOFTMAX,   /* one of several classes or tokens */
    MB_LOSS_SIGMOID,   /* several classes at once: binary cross-entropy */
    MB_LOSS_SQUARED,   /* numbers */
    MB_LOSS_SPAN,      /* first and last token of an answer */
    MB_LOSS_CONTRAST,  /* an anchor's own candidate among all */
    MB_LOSS_SYMMETRIC, /* and a candidate's own anchor among all */
    MB_LOSS_SCORE,     /* the cosine of two vectors */
} mb_loss;

/* Its weights are made for the task, not part of what was pre-trained. */
static inline bool mb_head_is_task(mb_head h)
{
    return h == MB_HEAD_SEQUENCE || h == MB_HEAD_TOKENS || h == MB_HEAD_SPAN;
}

typedef enum mb_rope_type {
    MB_ROPE_NONE,
    MB_ROPE_DEFAULT,
    MB_ROPE_LINEAR,
    MB_ROPE_LLAMA3,
    MB_ROPE_LONG, /* a divisor for each frequency, and a factor for what turns */
} mb_rope_type;

/* Of angles position * frequency: (max_positions, rotated / 2) each. */
typedef struct mb_rope_table {
    mb_tensor cos, sin;
} mb_rope_table;

typedef struct mb_rope_config {
    mb_rope_type type;
    double theta, factor, low_freq_factor, high_freq_factor, original_positions;
    int64_t rotated; /* columns of a head; those behind stay as they are */
    double attention_factor;
    float divisor[128]; /* rotated / 2 of them */
} mb_rope_config;

/* How much slower than the plain rotation its i-th pair of columns turns. */
double mb_rope_divisor(const mb_rope_config *r, int64_t i);

/* Fixed tables of waves as positions: all sines of a row, then all cosines, of position times
 * 10000^(-i/half) (Marian; Vaswani et al. 2017) or 10000^(-i/(half-1)) (fairseq's). */
typedef enum mb_sinusoid { MB_SINUSOID_NONE, MB_SINUSOID_HALF, MB_SINUSOID_FAIRSEQ } mb_sinusoid;

/* What any family's configuration comes down to. Shape letters in weight tables: V vocab, D width,
 * H heads*head_dim, K kv_heads*head_dim, F ffn, P positions, S segments (token types), C labels,
 * 3 three times D, 1 one, I channels of an image, Q the side of its patches, G ffn of decoder layers,
 * N heads, B buckets of distances, M mel bins, A positions of sound, W the three frames of a
 * convolution over time. P has first_position more rows than there are positions; h is head_dim, q H + 2 K, 2 twice F. */
typedef struct mb_model_config {
    const mb_model_family *family;
    mb_head head;
    mb_loss loss;
    float temperature; /* of contrast */
    char model_type[32];
    int64_t vocab, width, layers, heads, kv_heads, head_dim, ffn, positions, segments, labels;
    int64_t window;         /* sliding attention, 0: none */
    int64_t first_position; /* the position table's row of position 0 */
    /* Of encoder-decoder models, else 0: `layers` are the encoder's, these the decoder's, which are
     * numbered on from them. */
    int64_t dec_layers, dec_ffn;
    int64_t buckets, max_distance; /* of distances between positions, as T5's bias; 0: none */
    mb_sinusoid sinusoid;          /* positions that are a fixed table of waves */
    int64_t padding_row;           /* of the embedding: gets no gradient from there; -1: none */
    float embed_scale;             /* embeddings times this; 0: as they are */
    float logit_scale;             /* logits times this; 0: as they are */
    bool gated, pre_norm;
    /* Of models that see images, else 0: height and width in pixels, channels, side of a patch, and
     * tokens in front of an image's patches. */
    int64_t image_height, image_width, channels, patch, image_prefix;
    mb_layer_set full;      /* layers that have no window */
    mb_layer_set unrotated; /* layers without rotary embedding */
    float attention_scale;  /* 0: 1/sqrt(head_dim) */
    /* Of models that hear, else 0: numbers of a frame of sound; positions of the encoder, each of two
     * frames. */
    int64_t mel_bins, source_positions;
    float init_std;     /* of matrices that start anew; 0: not given */
    float head_softcap; /* logits as cap*tanh(logits/cap); 0: as they are */
    float norm_eps;
    float norm_offset; /* added to RMSNorm's weights */
    mb_activation activation;
    bool tied; /* the output head is the embedding */
    bool qkv_bias, out_bias, mlp_bias;
    mb_rope_config rope;
    mb_rope_config rope_window; /* of layers with a window; type NONE: as the others */
    /* as the checkpoint says; drop_attention_out: of encoders, on what attention gives;
     * drop_activation: inside an encoder-decoder's feed-forward part */
    float drop_embed, drop_hidden, drop_attention, drop_attention_out, drop_classifier;
    float drop_activation;
    int64_t bos_id, eos_id, pad_id, decoder_start_id; /* -1: none */
} mb_model_config;

/* Flags of a weight table's row. */
enum {
    MB_W_LINEAR = 1,   /* a linear layer's matrix (out,in): an adapter may sit on it */
    MB_W_CONV1D = 2,   /* the same, stored (in,out) */
    MB_W_NO_DECAY = 4, /* biases and norms */
    MB_W_EMBED = 8,
    MB_W_HEAD = 16,   /* belongs to the task head: all-linear leaves it out */
    MB_W_NEW = 32,    /* may be missing from a file: then initialised, and said so */
    MB_W_ROPE_Q = 64, /* GGUF stores its rows permuted per head (interleaved rotation) */
    MB_W_ROPE_K = 128,
    MB_W_FIXED = 256,        /* a buffer: in files, never trained, zero when missing */
    MB_W_GGUF_PLUS_1 = 512,  /* GGUF stores it with 1 added */
    MB_W_GGUF_BEHIND = 1024, /* GGUF leaves out the rows before first_position */
};

typedef struct mb_weight_row {
    const char *name;  /* Hugging Face name; {l} is the layer */
    const char *gguf;  /* llama.cpp name, NULL: not in such files */
    const char *shape; /* letters, "H D" */
    size_t slot;       /* where its mb_weight * goes in the globals or the layer struct */
    unsigned flags;
    char split;                            /* tensor parallel: 'r' rows, 'c' columns, '-' whole */
    bool (*has)(const mb_model_config *c); /* NULL: always */
} mb_weight_row;

/* Rows of a frozen table, one per token, that are trained by themselves (autograd/live_rows.h). */
typedef struct mb_token_rows {
    mb_weight *values; /* (n, D): row i stands for row id[i] of the table */
    const char *twin;  /* the second name that files have for them, NULL: none */
    const int32_t *id; /* (n), distinct; the model's, as is run */
    const mb_row_run *run;
    int n_runs;
    mb_tensor slot; /* i32 (V, 1), the device's: where in `values` an id's row is; -1: nowhere */
} mb_token_rows;

struct mb_weight {
    const char *name;   /* full Hugging Face name, or PEFT's on disk for adapters; the model's */
    const char *module; /* path of its module in PEFT; NULL: the name without its ending */
    const mb_weight_row *row;
    int64_t layer;              /* -1: outside the layers */
    mb_tensor value;            /* data NULL until bound */
    mb_tensor grad;             /* f32; data NULL when frozen */
    bool trained, decay, fresh; /* fresh: initialised here, not read from a file */
    bool lent; /* value lies in memory of others, who have read it: only read here */
    bool
        blocks; /* value is of the file's block type (mb_model_keep_blocks): frozen, products only */
    int64_t offset;             /* in the flat order, -1 when frozen */
    mb_weight *lora_a, *lora_b; /* adapter on this matrix, NULL: none */
    mb_weight *lora_m;          /* its magnitudes (DoRA), one per output; NULL: none */
    mb_weight *lora_base;       /* of an adapter: the matrix it sits on */
    float lora_scale, lora_dropout;
    mb_token_rows *token_rows; /* of a frozen table; NULL: none */
};

typedef struct mb_output {
    mb_var *hidden;   /* (tokens, D) after the last norm; NULL where only features are made */
    mb_var *features; /* what the head reads: hidden, transformed hidden, or (max_seq, D) */
    mb_weight *head_w, *head_b; /* logits = features head_w^T + head_b; head_b may be NULL */
    float softcap, logit_scale;
} mb_output;

struct mb_model_family {
    const char *name;
    const char *const *model_types;          /* config.json's model_type; NULL-terminated */
    const char *architecture[MB_HEAD_COUNT]; /* class name per head, NULL: no such head */
    const char *gguf_arch;                   /* general.architecture, NULL: no such files */
    const char *gguf_tokenizer;      /* where two have one: which of them by tokenizer.ggml.model */
    const char *prefix;              /* "transformer.": may be missing in files */
    const char *const *ignore;       /* substrings of tensor names to leave out; NULL-term. */
    const char *const *lora_default; /* targets when none are given; NULL-terminated */
    const mb_weight_row *globals, *layer; /* tables, terminated by name NULL */
    const mb_weight_row *dec_layer;       /* of decoder layers; NULL: no such */
    size_t globals_size, layer_size;      /* of the structs the slots are in */
    size_t dec_layer_size;
    /* optional, NULL: old endings of tensors' names, and what they are called. {NULL,NULL}-terminated */
    const char *const (*rename)[2];
    /* optional, NULL: parts of tensors' names that modules in transformers (from 5) have otherwise,
     * changed in this order; PEFT knows modules by those. {NULL,NULL}-terminated */
    const char *const (*modules)[2];
    bool sees_images;                                      /* reads patches; has no vocabulary */
    mb_status (*config)(mb_json json, mb_model_config *c); /* reads config.json's root */
    /* optional, NULL: config.init_std for all. Standard deviation of a matrix that starts anew. */
    double (*init_std)(const mb_model_config *c, const mb_weight_row *row);
    /* optional, NULL when gguf_arch is: writes the config.json that such a file stands for */
    mb_status (*config_gguf)(const struct mb_gguf *g, mb_json out);
    mb_status (*forward)(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out);
};

struct mb_model {
    mb_model_config config;
    const mb_model_family *family;
    mb_weight *weight; /* all: globals before, layers, globals after; then adapters */
    int n_weights, capacity;
    void *globals; /* the family's structs of mb_weight * */
    char *layers, *dec_layers;
    int64_t max_positions; /* rows of the rotary tables: set before bind, <= config.positions */
    mb_tensor sinusoid;    /* (max_positions, D), of dtype: row p is of p + first_position */
    mb_tensor buckets[2]; /* i32 (2 max_positions - 1): of distance k - q at k - q + max_positions -
                           * 1; looking both ways, and back only */
    mb_rope_table rope[2]; /* [1]: of config.rope_window */
    mb_device *device; /* where values and gradients are, NULL: host memory; borrowed, as is flat */
    const mb_flat *flat; /* of the trained weights */
    mb_dtype dtype;      /* what weights and activations are computed in */
    int64_t open_layer;  /* weights of a layer may be used only while it is open; -1 */
    float dropout_scale; /* 1: the checkpoint's dropouts apply in training; 0: off */
    mb_arena *strings;   /* names */
};

extern const mb_model_family *const mb_model_families[]; /* NULL-terminated */

/* The config.json of a model: the file of a folder, or one made from a GGUF's metadata (path: the
 * .gguf or a folder holding only that). The caller frees *doc. */
mb_status mb_model_config_doc(const char *path, mb_json_doc **doc) MB_MUST_USE;
/* What it means, for a task's head. MB_EMODEL / MB_ENOTSUP name the file and the key. */
mb_status mb_model_config_parse(mb_json_doc *doc, mb_head head, mb_model_config *c) MB_MUST_USE;
/* MB_HEAD_... from "architectures", or `otherwise` when they name none. */
mb_head mb_model_config_head(mb_json_doc *doc, mb_head otherwise);

mb_status mb_model_new(const mb_model_config *c, mb_model **out) MB_MUST_USE;
void mb_model_free(mb_model *m);
/* By full name; NULL when there is none. Linear in the number of weights. */
mb_weight *mb_model_find(const mb_model *m, const char *name);
/* Adds an adapter's weight; pointers to weights change, so only before anything keeps them. */
mb_status mb_model_reserve(mb_model *m, int extra) MB_MUST_USE;
mb_status mb_model_append(mb_model *m, const char *name, int ndim, const int64_t *dim,
                          mb_weight **out) MB_MUST_USE;

/* The flat order over what is marked trained, and its units, whole on every rank (mb_flat_shard says
 * otherwise). Memory comes with bind; the caller frees flat->segment and flat->unit. */
mb_status mb_model_layout(mb_model *m, mb_flat *flat) MB_MUST_USE;
/* Weights and activations in F32, BF16 or F16; arithmetic, statistics and gradients of weights are f32
 * in any case. Between layout and bind. */
void mb_model_compute_in(mb_model *m, mb_dtype dtype);
/* Takes memory for weights (frozen ones one by one, trained ones as the flat order's stage says),
 * gradients, the exact accumulator when `exact`, and rotary tables; what is lent has its own. `run` is an arena of `device`
 * (NULL: host memory), which is borrowed, as is flat. */
mb_status mb_model_bind(mb_model *m, mb_device *device, mb_arena *run, mb_flat *flat,
                        bool exact) MB_MUST_USE;

/* Where gradients are that lie in a step's memory (flat->grad_in_step): bind gives them no place. */
void mb_model_place_gradients(mb_model *m, mb_flat *flat, float *grad);

/* Elements [from, from + n) of a weight, or its gradient, from and to host memory; waits for the device.
 * Of a sharded weight every rank writes the whole and keeps its part; reading needs flat->fetch. For loading,
 * saving and tools. */
mb_status mb_weight_write(const mb_model *m, const mb_weight *w, int64_t from, int64_t n,
                          const float *numbers) MB_MUST_USE;
mb_status mb_weight_zero(const mb_model *m, const mb_weight *w) MB_MUST_USE;
mb_status mb_weight_read(const mb_model *m, const mb_weight *w, int64_t from, int64_t n,
                         float *to) MB_MUST_USE;
mb_status mb_weight_read_grad(const mb_model *m, const mb_weight *w, float *to) MB_MUST_USE;
/* Is it a buffer, which nothing trains? */
static inline bool mb_weight_is_fixed(const mb_weight *w)
{
    return w->row != NULL && (w->row->flags & MB_W_FIXED) != 0;
}
/* Can the host use w->value as it is? */
bool mb_weight_is_here(const mb_model *m, const mb_weight *w);

/* The own range of whole F16 parameters from its master copy; nothing for others: BF16 are part of
 * theirs. */
mb_status mb_flat_round(mb_exec *ex, mb_flat *f) MB_MUST_USE;

int64_t mb_model_parameters(const mb_model *m, bool trained_only);

/* Helpers for families (autograd/layers/). */

/* Layers of a model: the encoder's, if it has two stacks, then the decoder's. */
static inline int64_t mb_model_layers(const mb_model_config *c)
{
    return c->layers + c->dec_layers;
}

/* The family's struct of layer l; of decoder layers those come after the encoder's. */
static inline void *mb_model_layer(const mb_model *m, int64_t l)
{
    const int64_t dec = l - m->config.layers;

    return dec < 0 ? m->layers + (size_t)l * m->family->layer_size
                   : m->dec_layers + (size_t)dec * m->family->dec_layer_size;
}

#endif
