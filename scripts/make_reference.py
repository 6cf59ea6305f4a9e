#!/usr/bin/env python3
"""Makes or checks tests/data/reference: tiny Hugging Face models and what PyTorch computes with them.

    PYTHON scripts/make_reference.py [--out DIR] [--only llama,rslora-bert] [--check]

PYTHON has the packages of scripts/peers.lock. Without --check the cases are written; with it they
are computed again and compared with what is stored, and the exit status says whether they agree.

A case is a checkpoint folder (config.json, model.safetensors, tokenizer.json) with
golden.safetensors beside it, all float32, made with one thread on the CPU and dropout off:

    in.NAME         input_ids, attention_mask, labels (int32)
    out.logits      compare them where attention_mask is 1
    out.loss        mean over the labels that are not -100
    grad.TENSOR     d loss / d tensor, named as on disk
    train.losses    [10] the loss before each of ten AdamW steps on the same batch
    param.TENSOR    the trained tensors after the third step

AdamW: lr 1e-3, betas 0.9 and 0.999, eps 1e-8, weight decay 0.01 on everything, no clipping. An
encoder-decoder case has generate.json: what transformers' generate() gives for a batch of sources,
with the options of each run. An
adapter case adds adapter-before (the golden numbers are of base plus that), adapter-after-10-steps
and merged.safetensors, the logits after merging the latter. tests/data/schedules.json holds the
learning rates of transformers' schedules over 100 steps at base rate 1e-3.
"""
import argparse
import json
import pathlib
import shutil
import sys
import tempfile

import peft
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
WIDTH, INNER, LAYERS, HEADS = 64, 160, 2, 4
BPE_SIZE, SMALL_BPE_SIZE, WORDPIECE_SIZE = 384, 270, 400
ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
STEPS, SNAPSHOT = 10, 3
VERSIONS = dict(
    torch=torch.__version__,
    transformers=transformers.__version__,
    tokenizers=tokenizers.__version__,
)


# --- tokenizers ---------------------------------------------------------------------------------
def corpus():
    return json.loads((HERE / "reference" / "corpus.json").read_text()) * 8


def letters():
    """64 pieces, for models whose embeddings shall be small: letters, digits, a few pairs."""
    pieces = ["<pad>", "</s>", "<unk>"]
    pairs = ["ma", "ku", "wa", "ni", "th", "er", "an", "in", "\u2581m", "\u2581k", "\u2581the"]
    single = list("\u2581abcdefghijklmnopqrstuvwxyz0123456789.,:'?-THM") + ["oo", "ee"]
    vocab = [(piece, 0.0) for piece in pieces]
    vocab += [(piece, -3.0 - k / 64) for k, piece in enumerate(single + pairs)]
    tok = tokenizers.Tokenizer(models.Unigram(vocab[:SMALL_VOCAB], unk_id=2))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    tok.add_special_tokens(pieces)
    tok.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tok


def byte_bpe(size=BPE_SIZE):
    tok = tokenizers.Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(corpus(), trainer)
    return tok


def small_bpe():
    return byte_bpe(SMALL_BPE_SIZE)


def wordpiece():
    tok = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=WORDPIECE_SIZE,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    tok.train_from_iterator(corpus(), trainer)
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tok.decoder = decoders.WordPiece()
    return tok


def letters():
    """A Whisper's tokenizer in small: its special tokens, then one token a letter."""
    tokens = (
        "startofprev unused endoftext startoftranscript sw transcribe translate notimestamps"
    ).split()
    vocab = {f"<|{token}|>": i for i, token in enumerate(tokens)}
    vocab |= {c: len(vocab) + i for i, c in enumerate("Ġabcdefghijklmnopqrstuvwxyz")}
    tok = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([f"<|{token}|>" for token in tokens])
    return tok


# --- batches ------------------------------------------------------------------------------------
def causal_batch(length, vocab=BPE_SIZE):
    """Two rows: the first with an untrained prompt, the second ending in padding."""
    ids = torch.randint(3, vocab, (2, length))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[0, :5] = -100
    labels[1, -4:] = -100
    mask[1, -4:] = 0
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def small_batch():
    return causal_batch(24, SMALL_BPE_SIZE)


def image_batch(height, width):
    """Three images, a class each."""
    return dict(pixel_values=torch.randn(3, 3, height, width), labels=torch.tensor([0, 3, 1]))


def encoder_rows(vocab, pad):
    """Three rows, the last one padded after 14 tokens."""
    ids = torch.randint(5, vocab, (3, 20))
    mask = torch.ones_like(ids)
    mask[2, 14:] = 0
    ids[2, 14:] = pad
    return dict(input_ids=ids, attention_mask=mask)


def encoder_batch(make_labels, vocab=WORDPIECE_SIZE, pad=0):
    rows = encoder_rows(vocab, pad)
    labels = make_labels(rows["input_ids"])
    if labels.shape == rows["input_ids"].shape:
        labels[rows["attention_mask"] == 0] = -100
    return dict(rows, labels=labels)


def span_batch(vocab):
    """One answer is a single token, one begins the row, one ends it. No padding: transformers lets
    padded places take part in the softmax, which no row of its own knows."""
    rows = dict(encoder_rows(vocab, 5), attention_mask=torch.ones(3, 20, dtype=torch.long))
    starts, ends = torch.tensor([4, 0, 17]), torch.tensor([4, 2, 19])
    return dict(rows, start_positions=starts, end_positions=ends)


def embedding_batch(vocab):
    """Two anchors, their positives, a negative: rows of different lengths."""
    ids, mask = torch.randint(5, vocab, (5, 12)), torch.ones(5, 12, dtype=torch.long)
    for row, length in enumerate((12, 7, 9, 12, 1)):
        mask[row, length:] = 0
    return dict(input_ids=ids, attention_mask=mask)


def classes(ids):
    return torch.tensor([0, 2, 1])


def numbers(ids):
    return torch.tensor([0.5, -1.25, 3.0])


def several_classes(ids):
    return torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])


def classes_of_tokens(ids):
    return torch.where(torch.rand(ids.shape) < 0.2, -100, ids % 5)


def sequence_pairs(pad, source=40, target=24):
    """Long enough that some distances share a bucket of T5's."""
    ids = torch.randint(3, SMALL_VOCAB, (3, source))
    labels = torch.randint(3, SMALL_VOCAB, (3, target))
    mask = torch.ones_like(ids)
    for row, (n, m) in enumerate(((source, target), (25, 17), (1, 2))):
        mask[row, n:] = 0
        ids[row, n:] = pad
        labels[row, m:] = -100
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def sound_batch(bins, frames):
    """Three sounds of one length; transcripts of several."""
    labels = torch.randint(3, SMALL_VOCAB, (3, 12))
    for row, n in enumerate((12, 7, 1)):
        labels[row, n:] = -100
    return dict(input_features=torch.randn(3, bins, frames), labels=labels)


def masked_words(ids):
    return torch.where(torch.rand(ids.shape) < 0.3, ids, -100)


# --- models -------------------------------------------------------------------------------------
DECODER = dict(
    vocab_size=BPE_SIZE,
    hidden_size=WIDTH,
    intermediate_size=INNER,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=0,
    eos_token_id=2,
    pad_token_id=2,
)
SMALL_DECODER = dict(
    DECODER,
    vocab_size=SMALL_BPE_SIZE,
    hidden_size=16,
    intermediate_size=24,
)
ENCODER = dict(
    vocab_size=WORDPIECE_SIZE,
    hidden_size=WIDTH,
    intermediate_size=INNER,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    max_position_embeddings=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
SMALL_VOCAB = 64
SMALL = dict(
    ENCODER,
    vocab_size=SMALL_VOCAB,
    hidden_size=16,
    intermediate_size=24,
    max_position_embeddings=24,
)
ROBERTA = dict(SMALL, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
DISTILBERT = dict(
    vocab_size=SMALL_VOCAB,
    dim=16,
    hidden_dim=24,
    n_layers=LAYERS,
    n_heads=HEADS,
    max_position_embeddings=24,
    dropout=0,
    attention_dropout=0,
    seq_classif_dropout=0,
    qa_dropout=0,
)
GPT2 = dict(
    vocab_size=BPE_SIZE,
    n_embd=WIDTH,
    n_layer=LAYERS,
    n_head=HEADS,
    n_positions=128,
    resid_pdrop=0,
    embd_pdrop=0,
    attn_pdrop=0,
    bos_token_id=0,
    eos_token_id=0,
)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)

VISION = dict(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=40,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=4,
)

T5 = dict(
    vocab_size=SMALL_VOCAB,
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=3,
    num_decoder_layers=2,
    num_heads=4,
    dropout_rate=0,
    decoder_start_token_id=0,
    pad_token_id=0,
    eos_token_id=1,
)
MARIAN = dict(
    vocab_size=SMALL_VOCAB,
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=24,
    decoder_ffn_dim=40,
    max_position_embeddings=64,
    dropout=0,
    attention_dropout=0,
    scale_embedding=True,
)

WHISPER = dict(
    vocab_size=SMALL_VOCAB,
    num_mel_bins=10,
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=24,
    decoder_ffn_dim=40,
    max_source_positions=25,
    max_target_positions=20,
    dropout=0,
    decoder_start_token_id=3,
    pad_token_id=2,
    bos_token_id=0,
    eos_token_id=2,
    suppress_tokens=None,
    begin_suppress_tokens=None,
)

# name: seed, model class, config class, config, tokenizer (None: images), batch
CASES = {
    "gpt2": (0, "GPT2LMHeadModel", "GPT2Config", GPT2, byte_bpe, lambda: causal_batch(24)),
    "llama": (
        1,
        "LlamaForCausalLM",
        "LlamaConfig",
        dict(DECODER, tie_word_embeddings=True, rope_theta=100000.0),
        byte_bpe,
        lambda: causal_batch(24),
    ),
    "llama3-rope": (
        2,
        "LlamaForCausalLM",
        "LlamaConfig",
        dict(
            DECODER,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            rope_theta=500000.0,
            rope_scaling=LLAMA3_ROPE,
        ),
        byte_bpe,
        lambda: causal_batch(80),
    ),
    "mistral-sliding": (
        3,
        "MistralForCausalLM",
        "MistralConfig",
        dict(DECODER, sliding_window=16, head_dim=24),
        byte_bpe,
        lambda: causal_batch(48),
    ),
    "qwen2": (
        11,
        "Qwen2ForCausalLM",
        "Qwen2Config",
        dict(
            SMALL_DECODER,
            tie_word_embeddings=True,
            rope_theta=1e6,
            use_sliding_window=True,
            sliding_window=8,
            max_window_layers=1,
        ),
        small_bpe,
        small_batch,
    ),
    "qwen3": (
        12,
        "Qwen3ForCausalLM",
        "Qwen3Config",
        dict(SMALL_DECODER, head_dim=8, attention_bias=True, tie_word_embeddings=False, rope_theta=1e6),
        small_bpe,
        small_batch,
    ),
    "gemma3": (
        13,
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        dict(
            SMALL_DECODER,
            num_hidden_layers=2,
            hidden_size=32,
            head_dim=8,
            query_pre_attn_scalar=12,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
                sliding_attention=dict(rope_type="default", rope_theta=1e4),
            ),
            final_logit_softcapping=3.0,
        ),
        small_bpe,
        small_batch,
    ),
    "phi3": (
        14,
        "Phi3ForCausalLM",
        "Phi3Config",
        dict(
            SMALL_DECODER,
            hidden_size=32,
            max_position_embeddings=256,
            original_max_position_embeddings=64,
            sliding_window=12,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.25, 2.0],
                long_factor=[1.5, 4.0, 8.0],
                original_max_position_embeddings=64,
            ),
        ),
        small_bpe,
        small_batch,
    ),
    "smollm3": (
        16,
        "SmolLM3ForCausalLM",
        "SmolLM3Config",
        dict(
            SMALL_DECODER,
            no_rope_layers=[1, 0],
            use_sliding_window=True,
            sliding_window=8,
            attention_bias=True,
            mlp_bias=True,
        ),
        small_bpe,
        small_batch,
    ),
    "olmo2": (
        15,
        "Olmo2ForCausalLM",
        "Olmo2Config",
        dict(SMALL_DECODER, rope_theta=5e5),
        small_bpe,
        small_batch,
    ),
    "bert-cls": (
        7,
        "BertForSequenceClassification",
        "BertConfig",
        dict(ENCODER, num_labels=3),
        wordpiece,
        lambda: encoder_batch(classes),
    ),
    "bert-mlm": (
        8,
        "BertForMaskedLM",
        "BertConfig",
        ENCODER,
        wordpiece,
        lambda: encoder_batch(masked_words),
    ),
    "vit-cls": (
        9,
        "ViTForImageClassification",
        "ViTConfig",
        dict(VISION, image_size=[16, 24], patch_size=8),
        None,
        lambda: image_batch(16, 24),
    ),
    "deit-cls": (
        10,
        "DeiTForImageClassification",
        "DeiTConfig",
        dict(VISION, image_size=15, patch_size=4, qkv_bias=False),
        None,
        lambda: image_batch(15, 15),
    ),
}


class Embedder(transformers.BertModel):
    """Means over the tokens of each row; the first rows are anchors, then their positives."""

    ANCHORS, TEMPERATURE = 2, 0.05

    def __init__(self, config):
        super().__init__(config, add_pooling_layer=False)

    def forward(self, input_ids, attention_mask):
        hidden = super().forward(input_ids, attention_mask).last_hidden_state
        mask = attention_mask[..., None].float()
        means = (hidden * mask).sum(1) / mask.sum(1)
        unit = torch.nn.functional.normalize(means)
        scores = unit[: self.ANCHORS] @ unit[self.ANCHORS :].T / self.TEMPERATURE
        loss = torch.nn.functional.cross_entropy(scores, torch.arange(self.ANCHORS))
        return transformers.utils.ModelOutput(logits=means, loss=loss)


Embedder.__name__ = "BertModel"  # what config.json shall say


def small(seed, model, config, labels, pad=0):
    batch = lambda: encoder_batch(labels, SMALL_VOCAB, pad)
    return seed, model, config[0], config[1], None, batch


BERT = ("BertConfig", SMALL)
CASES |= {
    "bert-regression": small(
        11, "BertForSequenceClassification", (BERT[0], dict(SMALL, num_labels=1)), numbers
    ),
    "bert-multi-label": small(
        12,
        "BertForSequenceClassification",
        (BERT[0], dict(SMALL, num_labels=4, problem_type="multi_label_classification")),
        several_classes,
    ),
    "bert-qa": (13, "BertForQuestionAnswering", *BERT, None, lambda: span_batch(SMALL_VOCAB)),
    "bert-embed": (14, Embedder, *BERT, None, lambda: embedding_batch(SMALL_VOCAB)),
    "distilbert-cls": small(
        15,
        "DistilBertForSequenceClassification",
        ("DistilBertConfig", dict(DISTILBERT, num_labels=3)),
        classes,
    ),
    "distilbert-mlm": small(
        16, "DistilBertForMaskedLM", ("DistilBertConfig", DISTILBERT), masked_words
    ),
    "distilbert-qa": (
        17,
        "DistilBertForQuestionAnswering",
        "DistilBertConfig",
        DISTILBERT,
        None,
        lambda: span_batch(SMALL_VOCAB),
    ),
    "roberta-cls": small(
        18,
        "RobertaForSequenceClassification",
        ("RobertaConfig", dict(ROBERTA, num_labels=3)),
        classes,
        pad=1,
    ),
    "roberta-mlm": small(
        19, "RobertaForMaskedLM", ("RobertaConfig", ROBERTA), masked_words, pad=1
    ),
    "xlm-roberta-token-cls": small(
        20,
        "XLMRobertaForTokenClassification",
        ("XLMRobertaConfig", dict(ROBERTA, num_labels=5)),
        classes_of_tokens,
        pad=1,
    ),
}
CASES |= {
    "t5": (
        21,
        "T5ForConditionalGeneration",
        "T5Config",
        dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        letters,
        lambda: sequence_pairs(0),
    ),
    "t5-v1-relu-tied": (
        22,
        "T5ForConditionalGeneration",
        "T5Config",
        dict(T5, feed_forward_proj="relu", tie_word_embeddings=True),
        None,
        lambda: sequence_pairs(0),
    ),
    "marian": (
        23,
        "MarianMTModel",
        "MarianConfig",
        dict(
            MARIAN,
            activation_function="swish",
            pad_token_id=63,
            eos_token_id=0,
            bos_token_id=None,
            decoder_start_token_id=63,
            forced_eos_token_id=0,
        ),
        None,
        lambda: sequence_pairs(63),
    ),
    "m2m100": (
        24,
        "M2M100ForConditionalGeneration",
        "M2M100Config",
        dict(
            MARIAN,
            activation_function="relu",
            decoder_layerdrop=0,
            encoder_layerdrop=0,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
        ),
        None,
        lambda: sequence_pairs(1),
    ),
}
CASES["whisper"] = (
    25,
    "WhisperForConditionalGeneration",
    "WhisperConfig",
    WHISPER,
    letters,
    lambda: sound_batch(10, 50),
)
# What generate() is asked for; greedy unless num_beams says otherwise.
GENERATE = (
    dict(),
    dict(num_beams=4),
    dict(num_beams=3, length_penalty=2.0),
    dict(num_beams=3, length_penalty=0.4, early_stopping=True),
    dict(num_beams=4, early_stopping="never", length_penalty=-0.5),
    dict(num_beams=4, no_repeat_ngram_size=2),
    dict(no_repeat_ngram_size=1),
    dict(num_beams=2, forced_bos_token_id=7),
    dict(num_beams=3, bad_words_ids=[[11], [5, 9]], suppress_tokens=[12, 13]),
    dict(num_beams=3, begin_suppress_tokens=[20, 21, 22], min_new_tokens=6),
    dict(num_beams=3, repetition_penalty=1.4),
    dict(num_beams=5, num_return_sequences=3),
)
LLAMA_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name: base case, PEFT task type, LoraConfig
ADAPTERS = {
    "lora-llama": ("llama", "CAUSAL_LM", dict(target_modules=LLAMA_LINEAR)),
    "lora-gpt2-conv1d": (
        "gpt2",
        "CAUSAL_LM",
        dict(target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
    ),
    "dora-qwen2": (
        "qwen2",
        "CAUSAL_LM",
        dict(target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True),
    ),
    "rslora-bert": (
        "bert-cls",
        "SEQ_CLS",
        dict(target_modules=["query", "value"], use_rslora=True, modules_to_save=["classifier"]),
    ),
}
ADAPTER_SEED = 7
SCHEDULES = (
    ("constant", 0, None),
    ("constant_with_warmup", 10, None),
    ("linear", 10, None),
    ("cosine", 10, None),
    ("cosine", 0, None),
    ("cosine_with_restarts", 10, dict(num_cycles=3)),
    ("polynomial", 10, None),
    ("inverse_sqrt", 10, None),
    ("cosine_with_min_lr", 10, dict(min_lr=1e-5)),
    ("warmup_stable_decay", 10, dict(num_decay_steps=30)),
)


def build(name, seed=None):
    own_seed, model_class, config_class, config, tokenizer, batch = CASES[name]
    torch.manual_seed(own_seed if seed is None else seed)
    config = getattr(transformers, config_class)(**config)
    made_here = isinstance(model_class, type)
    model = (model_class if made_here else getattr(transformers, model_class))(config)
    tok, rows = tokenizer and tokenizer(), batch()
    enlarge(model)
    return model, tok, rows


@torch.no_grad()
def enlarge(model):
    """Weights large enough that every term of every gradient stands well above rounding."""
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue  # Marian's table of positions, which no file holds
        if p.dim() >= 2:
            p.normal_(0, 0.6 / p.shape[-1] ** 0.5)
        elif "bias" in name:
            p.normal_(0, 0.05)
        else:
            p.add_(torch.randn_like(p) * 0.1)


# --- what is stored -----------------------------------------------------------------------------
def name_on_disk(name, parameter, checkpoint):
    """PEFT leaves the adapter's name and its wrappers out; a tied tensor has one of its names."""
    short = name.replace("magnitude_vector.default.weight", "magnitude_vector")
    short = short.replace(".default.", ".").replace("modules_to_save.", "")
    if short in checkpoint or short.startswith("base_model.") or not parameter.requires_grad:
        return short
    for key, value in checkpoint.items():
        if value.shape == parameter.shape and torch.equal(value, parameter.detach()):
            return key
    raise KeyError(name)


def golden(model, batch, folder, **notes):
    checkpoint = load_file(folder / "model.safetensors")
    trained = [
        (name_on_disk(name, p, checkpoint), p)
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    model.train()
    model.zero_grad()
    result = model(**batch)
    result.loss.backward()
    store = {
        "in." + name: value if value.is_floating_point() else value.to(torch.int32)
        for name, value in batch.items()
    }
    if "start_logits" in result:
        store["out.logits"] = torch.stack([result.start_logits, result.end_logits], -1)
    else:
        store["out.logits"] = result.logits
    store["out.loss"] = result.loss.reshape(1)
    store.update({"grad." + name: p.grad.clone() for name, p in trained if p.grad is not None})

    adamw = torch.optim.AdamW([p for _, p in trained], **ADAMW)
    losses = []
    for step in range(STEPS):
        adamw.zero_grad()
        loss = model(**batch).loss
        losses.append(loss.item())
        loss.backward()
        adamw.step()
        if step + 1 == SNAPSHOT:
            store.update({"param." + name: p.detach().clone() for name, p in trained})
    store["train.losses"] = torch.tensor(losses)
    save_file(
        {name: t.detach().contiguous().clone() for name, t in store.items()},
        folder / "golden.safetensors",
    )
    facts = dict(versions=VERSIONS, seed=0, adamw=ADAMW, losses=losses, **notes)
    (folder / "golden.json").write_text(json.dumps(facts, indent=1))
    return losses


@torch.no_grad()
def generations(model, batch):
    model.eval()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    runs = []
    for options in GENERATE:
        ids = model.generate(**inputs, max_new_tokens=14, **options)
        runs.append(dict(options=options, ids=ids.tolist()))
    return dict(
        versions=VERSIONS,
        max_new_tokens=14,
        sources=[
            ids[: mask.sum()].tolist()
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"])
        ],
        runs=runs,
    )


def write_case(name, folder):
    model, tok, batch = build(name)
    model.save_pretrained(folder)
    if model.config.is_encoder_decoder and "input_ids" in batch:
        (folder / "generate.json").write_text(json.dumps(generations(model, batch)))
    losses = golden(model, batch, folder)
    if tok:
        tok.save(str(folder / "tokenizer.json"))
    return losses


def write_adapter_case(name, folder):
    base, task, config = ADAPTERS[name]
    model, tok, batch = build(base, ADAPTER_SEED)
    model.save_pretrained(folder)
    tok.save(str(folder / "tokenizer.json"))
    config = peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, task_type=task, **config)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter, p in adapted.named_parameters():
            if "lora_B" in parameter:  # PEFT starts it at zero, which hides half of the gradients
                p.normal_(0, 0.05)
    adapted.save_pretrained(folder / "adapter-before")
    losses = golden(adapted, batch, folder, peft=True)
    adapted.save_pretrained(folder / "adapter-after-10-steps")
    merged = adapted.merge_and_unload().eval()
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        logits = merged(**inputs).logits
    save_file({"merged.logits": logits.contiguous()}, folder / "merged.safetensors")
    for card in folder.glob("adapter-*/README.md"):
        card.unlink()
    return losses


def schedules():
    rates = {}
    for name, warmup, keywords in SCHEDULES:
        adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        schedule = transformers.get_scheduler(
            name,
            adamw,
            num_warmup_steps=warmup,
            num_training_steps=100,
            scheduler_specific_kwargs=keywords,
        )
        row = []
        for _ in range(100):
            row.append(schedule.get_last_lr()[0])
            adamw.step()
            schedule.step()
        key = f"{name}/warmup={warmup}" + (f"/{json.dumps(keywords)}" if keywords else "")
        rates[key] = row
    return dict(base_lr=1e-3, num_training_steps=100, versions=VERSIONS, lr=rates)


# --- comparing ----------------------------------------------------------------------------------
def differences(new, old):
    """Tensors that are missing on one side or further apart than rounding explains."""
    for path in sorted(new.rglob("*.safetensors")):
        stored = old / path.relative_to(new)
        if not stored.exists():
            yield f"{stored} is missing"
            continue
        a, b = load_file(path), load_file(stored)
        for name in sorted(a.keys() ^ b.keys()):
            yield f"{stored}: {name} is on one side only"
        for name in sorted(a.keys() & b.keys()):
            gap = (a[name].double() - b[name].double()).abs().max().item()
            if gap > 1e-5 * max(1.0, b[name].double().abs().max().item()):
                yield f"{stored}: {name} differs by {gap:.3g}"
    for path in sorted(new.rglob("tokenizer.json")):
        stored = old / path.relative_to(new)
        a, b = json.loads(path.read_text()), json.loads(stored.read_text())
        if a["model"]["type"] == "WordPiece":
            continue  # its trainer breaks ties differently each time
        if a != b:
            yield f"{stored} differs"


def schedule_differences(new, old):
    for key, row in new["lr"].items():
        gap = max(abs(a - b) for a, b in zip(row, old["lr"].get(key, [float("inf")] * 100)))
        if not gap <= 1e-12:
            yield f"schedule {key} differs by {gap:.3g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--only", default="", help="cases, separated by commas")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    wanted = list(filter(None, args.only.split(","))) or [*CASES, *ADAPTERS, "schedules"]
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    bad = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in wanted:
            if name == "schedules":
                stored, new = args.out / "schedules.json", schedules()
                if args.check:
                    bad += schedule_differences(new, json.loads(stored.read_text()))
                else:
                    stored.write_text(json.dumps(new))
                continue
            folder = pathlib.Path(scratch) / name
            folder.mkdir()
            losses = (write_adapter_case if name in ADAPTERS else write_case)(name, folder)
            print(f"{name:18s} loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)
            target = args.out / "reference" / name
            if args.check:
                bad += differences(folder, target)
            else:
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(folder, target)
    for line in bad:
        print("differs:", line)
    print("differs" if bad else "agrees" if args.check else "written")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
