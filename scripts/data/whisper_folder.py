#!/usr/bin/env python3
"""whisper_folder.py CT2_FOLDER OUT - a Whisper in CTranslate2's format becomes a Hugging Face folder.

Reads model.bin (version 6, float16), config.json and tokenizer.json; writes model.safetensors with the
same bits, config.json, generation_config.json, preprocessor_config.json and the tokenizer. Projections
that CTranslate2 keeps in one matrix (queries, keys and values; keys and values) are parted again. Needs
Python alone.
"""
import json
import os
import shutil
import struct
import sys

F16 = 4  # CTranslate2's number of the type


class Reader:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 0

    def number(self, kind):
        value, = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def text(self):
        n = self.number("H")
        self.at += n
        return self.data[self.at - n:self.at].rstrip(b"\0").decode()

    def bytes(self, n):
        self.at += n
        return self.data[self.at - n:self.at]


def read_model(path):
    """name -> (shape, bytes) of all float16 variables."""
    r = Reader(path)
    version, spec, _ = r.number("I"), r.text(), r.number("I")
    if version != 6 or spec != "WhisperSpec":
        sys.exit(f"{path}: version {version} of {spec}, expected 6 of WhisperSpec")
    variables = {}
    for _ in range(r.number("I")):
        name = r.text()
        shape = [r.number("I") for _ in range(r.number("B"))]
        kind = r.number("B")
        content = r.bytes(r.number("I"))
        if kind == F16:
            variables[name] = (shape, content)
    for _ in range(r.number("I")):  # other names for the same
        name, of = r.text(), r.text()
        if of in variables:
            variables[name] = variables[of]
    if r.at != len(r.data):
        sys.exit(f"{path}: {len(r.data) - r.at} bytes after the last variable")
    return variables


def part(tensor, i, n):
    """The i-th of n equal blocks of rows."""
    shape, content = tensor
    size = len(content) // n
    return [shape[0] // n] + shape[1:], content[i * size:(i + 1) * size]


def layer(variables, side, i, out):
    theirs, ours = f"{side}/layer_{i}", f"model.{side}.layers.{i}"

    def linear(to, of, k=0, n=1, bias=True):
        out[f"{ours}.{to}.weight"] = part(variables[f"{theirs}/{of}/weight"], k, n)
        b = part(variables[f"{theirs}/{of}/bias"], k, n)
        if bias:
            out[f"{ours}.{to}.bias"] = b
        elif any(b[1]):
            sys.exit(f"{theirs}/{of} has a bias where Whisper has none")

    def norm(to, of):
        out[f"{ours}.{to}.weight"] = variables[f"{theirs}/{of}/gamma"]
        out[f"{ours}.{to}.bias"] = variables[f"{theirs}/{of}/beta"]

    for k, name in enumerate("qkv"):
        linear(f"self_attn.{name}_proj", "self_attention/linear_0", k, 3, name != "k")
    linear("self_attn.out_proj", "self_attention/linear_1")
    norm("self_attn_layer_norm", "self_attention/layer_norm")
    if side == "decoder":
        linear("encoder_attn.q_proj", "attention/linear_0")
        linear("encoder_attn.k_proj", "attention/linear_1", 0, 2, False)
        linear("encoder_attn.v_proj", "attention/linear_1", 1, 2)
        linear("encoder_attn.out_proj", "attention/linear_2")
        norm("encoder_attn_layer_norm", "attention/layer_norm")
    linear("fc1", "ffn/linear_0")
    linear("fc2", "ffn/linear_1")
    norm("final_layer_norm", "ffn/layer_norm")


def convert(variables):
    out, layers = {}, {}
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            out[f"model.encoder.{conv}.{kind}"] = variables[f"encoder/{conv}/{kind}"]
    for side in ("encoder", "decoder"):
        out[f"model.{side}.embed_positions.weight"] = variables[
            f"{side}/position_encodings/encodings"]
        out[f"model.{side}.layer_norm.weight"] = variables[f"{side}/layer_norm/gamma"]
        out[f"model.{side}.layer_norm.bias"] = variables[f"{side}/layer_norm/beta"]
        layers[side] = 0
        while f"{side}/layer_{layers[side]}/ffn/linear_0/weight" in variables:
            layer(variables, side, layers[side], out)
            layers[side] += 1
    out["model.decoder.embed_tokens.weight"] = variables["decoder/embeddings/weight"]
    return out, layers


def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        shape, content = tensors[name]
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            f.write(tensors[name][1])
    os.replace(path + ".part", path)


def configs(tensors, layers, theirs, tokens):
    vocab, width = tensors["model.decoder.embed_tokens.weight"][0]
    ids = {t["content"]: t["id"] for t in tokens["added_tokens"]}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    heads = width // 64
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end,
               "decoder_start_token_id": start}
    config = {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper",
        "d_model": width, "vocab_size": vocab, "num_hidden_layers": layers["encoder"],
        "encoder_layers": layers["encoder"], "decoder_layers": layers["decoder"],
        "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width,
        "num_mel_bins": tensors["model.encoder.conv1.weight"][0][1],
        "max_source_positions": tensors["model.encoder.embed_positions.weight"][0][0],
        "max_target_positions": tensors["model.decoder.embed_positions.weight"][0][0],
        "activation_function": "gelu", "scale_embedding": False, "dropout": 0.0,
        "attention_dropout": 0.0, "activation_dropout": 0.0, "is_encoder_decoder": True,
        "tie_word_embeddings": True, "use_cache": True, "torch_dtype": "float16", **special}
    # multilingual models have one token for each language more
    multilingual = vocab >= 51865
    generation = {
        **special, "max_length": 448, "is_multilingual": multilingual,
        "return_timestamps": False, "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"], "max_initial_timestamp_index": 50,
        "suppress_tokens": theirs["suppress_ids"],
        "begin_suppress_tokens": theirs["suppress_ids_begin"],
        "alignment_heads": theirs["alignment_heads"]}
    if multilingual:
        generation["lang_to_id"] = {t: i for t, i in ids.items() if i in set(theirs["lang_ids"])}
        generation["task_to_id"] = {t: ids[f"<|{t}|>"] for t in ("transcribe", "translate")}
    preprocessor = {
        "feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor",
        "feature_size": config["num_mel_bins"], "sampling_rate": 16000, "hop_length": 160,
        "n_fft": 400, "chunk_length": 30, "n_samples": 480000, "nb_max_frames": 3000,
        "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False}
    tokenizer = {
        "tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor",
        "model_max_length": 1024,
        **{f"{role}_token": "<|endoftext|>" for role in ("bos", "eos", "unk", "pad")}}
    return {"config.json": config, "generation_config.json": generation,
            "preprocessor_config.json": preprocessor, "tokenizer_config.json": tokenizer}


def main(source, target):
    def read(name):
        with open(os.path.join(source, name), encoding="utf-8") as f:
            return json.load(f)

    tensors, layers = convert(read_model(os.path.join(source, "model.bin")))
    os.makedirs(target, exist_ok=True)
    for name, content in configs(tensors, layers, read("config.json"),
                                 read("tokenizer.json")).items():
        with open(os.path.join(target, name), "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1)
    shutil.copyfile(os.path.join(source, "tokenizer.json"), os.path.join(target, "tokenizer.json"))
    write_safetensors(os.path.join(target, "model.safetensors"), tensors)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
