"""Configurations with keys missing or null: mbuyu reads out of them what transformers does.

    config_defaults.py CONFIG_DEFAULTS DATA

CONFIG_DEFAULTS is the helper program, DATA the folder tests/data. Of each family's reference configuration
every key is taken away, one at a time and all that may be missing at once, and set to null; transformers'
configuration class says what is then meant. A key that mbuyu wants (a width, a count) must be refused by name.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

FOLDERS = ["llama", "llama3-rope", "mistral-sliding", "qwen2", "qwen3", "smollm3", "phi3", "olmo2", "gemma3", "gpt2",
           "bert-mlm", "roberta-mlm", "distilbert-mlm"]
WANTED = {"model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "n_embd", "n_layer", "n_head", "n_positions", "max_position_embeddings", "dim", "hidden_dim", "n_layers", "n_heads"}
# written for other readers, or of no matter for what is computed
OTHER = {"architectures", "transformers_version", "dtype", "torch_dtype", "model_type", "use_cache", "_name_or_path"}
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3}
EXTRA = {  # what references of this repository do not have
    "llama": [{"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
               "low_freq_factor": 1.0, "high_freq_factor": 4.0}}],
    "mistral-sliding": [{"num_attention_heads": 32, "hidden_size": 1024}],
    "qwen2": [{"num_attention_heads": 32, "hidden_size": 1024}, {"use_sliding_window": True, "max_window_layers": 1, "layer_types": None}],
    "qwen3": [{"num_attention_heads": 32}, {"use_sliding_window": True, "max_window_layers": 1, "layer_types": None, "sliding_window": 8}],
    "smollm3": [{"use_sliding_window": True, "sliding_window": 8, "layer_types": None}],
    "phi3": [{"max_position_embeddings": 8192, "rope_parameters": None, "rope_scaling": {"type": "longrope",
              "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}}],
}


def windows(c, layers):
    types, window = getattr(c, "layer_types", None), getattr(c, "sliding_window", None) or 0
    if types is None or c.model_type in ("mistral", "phi3"):
        return [window] * layers
    return [window if t == "sliding_attention" else 0 for t in types]


def decoder(c):
    layers, heads = c.num_hidden_layers, c.num_attention_heads
    rope = c.rope_parameters
    full = rope.get("full_attention", rope)
    kind = full["rope_type"]
    head = getattr(c, "head_dim", None) or c.hidden_size // heads
    e = dict(kv_heads=c.num_key_value_heads, head_dim=head, norm_eps=c.rms_norm_eps, tied=c.tie_word_embeddings,
             drop_attention=c.attention_dropout, theta=full["rope_theta"], windows=windows(c, layers),
             activation=ACTIVATIONS[getattr(c, "hidden_activation", None) or c.hidden_act],
             theta_window=rope.get("sliding_attention", rope)["rope_theta"], positions=c.max_position_embeddings,
             rotated=int(head * full.get("partial_rotary_factor", 1.0)),
             rotation=[int(x) for x in getattr(c, "no_rope_layers", None) or [1] * layers])
    if kind in ("longrope", "llama3"):
        e["original"] = full["original_max_position_embeddings"]
    if kind == "longrope":
        e["attention_factor"] = ROPE_INIT_FUNCTIONS[kind](c, "cpu")[1]
        e["positions"] = min(e["positions"], int(e["original"]))
    if hasattr(c, "attention_bias"):
        e["qkv_bias"] = c.attention_bias
    if hasattr(c, "mlp_bias"):
        e["mlp_bias"] = c.mlp_bias
    if hasattr(c, "final_logit_softcapping"):
        e["head_softcap"] = c.final_logit_softcapping or 0
    return e


def gpt2(c):
    return dict(norm_eps=c.layer_norm_epsilon, drop_attention=c.attn_pdrop, drop_hidden=c.resid_pdrop,
                drop_embed=c.embd_pdrop, tied=c.tie_word_embeddings, activation=ACTIVATIONS[c.activation_function])


def bert(c):
    return dict(norm_eps=c.layer_norm_eps, drop_attention=c.attention_probs_dropout_prob, segments=c.type_vocab_size,
                drop_hidden=c.hidden_dropout_prob, tied=c.tie_word_embeddings, activation=ACTIVATIONS[c.hidden_act])


def distilbert(c):
    return dict(drop_attention=c.attention_dropout, drop_hidden=c.dropout, tied=c.tie_word_embeddings,
                activation=ACTIVATIONS[c.activation])


def reader(model_type):
    return {"gpt2": gpt2, "bert": bert, "roberta": bert, "distilbert": distilbert}.get(model_type, decoder)


def variants(base):
    yield "as it is", base
    may = [k for k in base if k not in WANTED | OTHER]
    for k in base:
        if k not in OTHER:
            yield f"without {k}", {a: b for a, b in base.items() if a != k}
    for k in may:
        yield f"{k} null", base | {k: None}
    yield "with nothing that may be missing", {a: b for a, b in base.items() if a not in may}
    for k, v in base.items():
        if isinstance(v, dict) and k.startswith("rope"):
            for inner in v:
                yield f"without {k}.{inner}", base | {k: {a: b for a, b in v.items() if a != inner}}


def differ(mine, theirs):
    if isinstance(theirs, list):
        return mine != theirs
    theirs = theirs or 0  # null
    return abs(float(mine) - float(theirs)) > 1e-6 * max(1.0, abs(float(theirs)))


def main():
    helper, data = sys.argv[1], pathlib.Path(sys.argv[2]) / "reference"
    with tempfile.TemporaryDirectory() as name:
        cases = []
        for folder in FOLDERS:
            first = json.loads((data / folder / "config.json").read_text())
            bases = [first] + [first | extra for extra in EXTRA.get(folder, [])]
            for base in bases:
                for what, config in variants(base):
                    at = pathlib.Path(name) / str(len(cases))
                    at.mkdir()
                    (at / "config.json").write_text(json.dumps(config))
                    cases.append((folder, what, base, at))
        out = subprocess.run([helper, *(str(c[3]) for c in cases)], capture_output=True, text=True, check=True).stdout
        same = refused = theirs_fail = 0
        wrong = []
        for (folder, what, base, at), line in zip(cases, out.splitlines(), strict=True):
            mine = json.loads(line)
            key = what.removeprefix("without ")
            if "error" in mine and key in WANTED and key in mine["error"]:
                refused += 1
                continue
            try:
                theirs = reader(base["model_type"])(AutoConfig.from_pretrained(at))
            except Exception:  # their own check refuses it
                theirs_fail += 1
                continue
            if theirs.get("theta", 1) is None or (folder, what) == ("gemma3", "sliding_window null"):
                theirs_fail += 1  # later, when the model is made
                continue
            if "cannot share" in mine.get("error", "") and base["num_attention_heads"] % theirs["kv_heads"] != 0:
                refused += 1
                continue
            if "error" in mine:
                wrong.append(f"{folder} {what}: {mine['error']}")
                continue
            bad = {k: (mine[k], v) for k, v in theirs.items() if differ(mine[k], v)}
            same += not bad
            if bad:
                wrong.append(f"{folder} {what}: ours, theirs: {bad}")
        for w in wrong:
            print(w)
        print(f"{len(cases)} configurations of {len(FOLDERS)} models: {same} read alike, {refused} refused for a count that is missing "
              f"or does not fit, {theirs_fail} that transformers refuses")
        sys.exit(bool(wrong))


main()
