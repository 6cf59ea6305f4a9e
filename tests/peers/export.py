#!/usr/bin/env python3
"""What mbuyu writes beside the weights, read by those it is meant for: PEFT, transformers,
the Trainer's own state class, and a reader of event files written from the format's description.

    export.py HELPER        HELPER: the built export_files
"""
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.trainer_callback import TrainerState

BASE = pathlib.Path(__file__).resolve().parent.parent / "data" / "reference" / "llama"


# --- event files --------------------------------------------------------------------------------
def crc32c(data, table=[]):
    if not table:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
            table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def checked(data, masked):
    crc = crc32c(data)
    assert ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == masked, "a checksum is wrong"
    return data


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = {1: 8, 5: 4}[key & 7]
            value, at = struct.unpack("<d" if size == 8 else "<f", data[at : at + size])[0], at + size
        yield key >> 3, value


def events(path):
    data, at = path.read_bytes(), 0
    while at < len(data):
        size = struct.unpack("<Q", checked(data[at : at + 8], *struct.unpack_from("<I", data, at + 8)))[0]
        record = data[at + 12 : at + 12 + size]
        yield dict(fields(checked(record, *struct.unpack_from("<I", data, at + 12 + size)))), record
        at += size + 16


def scalars(folder):
    """step -> {tag: value} of all files, oldest first, honouring what restarts take back."""
    seen = {}
    files = sorted(folder.glob("events.out.tfevents.*"))
    assert len(files) == 2, files
    for path in files:
        for number, (event, record) in enumerate(events(path)):
            if number == 0:
                assert event[3] == b"brain.Event:2"
            if 7 in event:
                assert dict(fields(event[7])) == {1: 1}
                seen = {step: v for step, v in seen.items() if step < event[2]}
            for _, summary in (f for f in fields(record) if f[0] == 5):
                for _, value in fields(summary):
                    value = dict(fields(value))
                    seen.setdefault(event[2], {})[value[1].decode()] = value[2]
    return seen


def check_logs(out):
    seen = scalars(out / "runs")
    lines = [json.loads(line) for line in (out / "logs" / "train.jsonl").read_text().splitlines()]
    state = TrainerState.load_from_json(str(out / "trainer_state.json"))
    assert sorted(seen) == [line["step"] for line in lines] == list(range(10, 301, 10))
    assert [entry["step"] for entry in state.log_history] == sorted(seen)
    for line, entry in zip(lines, state.log_history):
        want = 5.0 - line["step"] / 100 + (line["step"] > 200)
        tags = seen[line["step"]]
        assert math.isclose(tags["train/loss"], want, rel_tol=1e-6)
        assert line["loss"] == entry["loss"] and math.isclose(line["loss"], want)
        assert math.isclose(tags["train/epoch"], line["epoch"], rel_tol=1e-6)
    assert math.isnan(seen[200]["eval/loss"]) and lines[19]["eval_loss"] is None
    assert seen[300]["eval/loss"] == 3.25
    assert (state.global_step, state.max_steps, state.train_batch_size) == (300, 300, 4)
    assert TrainerState.load_from_json(str(out / "checkpoint" / "trainer_state.json")).global_step == 200


# --- adapters and models ------------------------------------------------------------------------
def adapted(config):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), config)
    return {
        name.removeprefix("base_model.model."): (module.r["default"], module.scaling["default"])
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def check_adapters(out):
    listed = LoraConfig.from_pretrained(out / "adapter-list")
    assert (listed.r, listed.lora_alpha, listed.lora_dropout) == (8, 16, 0.05)
    assert listed.use_rslora and listed.inference_mode and listed.peft_type == "LORA"
    assert listed.modules_to_save == ["lm_head"] and listed.base_model_name_or_path == str(BASE)
    layers = adapted(listed)
    assert layers["model.layers.0.self_attn.q_proj"] == (4, 16 / 2)
    assert layers["model.layers.1.self_attn.q_proj"] == (8, 16 / 8**0.5)
    assert layers["model.layers.1.mlp.down_proj"] == (8, 3 / 8**0.5)
    assert len(layers) == 4

    everything = LoraConfig.from_pretrained(out / "adapter-all")
    assert everything.lora_alpha == 4.5 and everything.task_type is None
    assert len(adapted(everything)) == 14

    regex = LoraConfig.from_pretrained(out / "adapter-regex")
    assert sorted(adapted(regex)) == [f"model.layers.1.self_attn.{x}_proj" for x in "kv"]


def check_model(out):
    config, base = AutoConfig.from_pretrained(out / "model"), AutoConfig.from_pretrained(BASE)
    assert str(config.dtype).endswith("bfloat16") and config.num_labels == 3
    assert config.rope_parameters == base.rope_parameters
    assert config.hidden_size == base.hidden_size and config.architectures == base.architectures
    plain = json.loads((out / "model" / "config.json").read_text())
    assert plain["rope_theta"] == plain["rope_parameters"]["rope_theta"] == 100000.0
    assert plain["dtype"] == plain["torch_dtype"] == "bfloat16"
    assert GenerationConfig.from_pretrained(out / "model").eos_token_id == 2
    text = "Habari ya asubuhi"
    ids = [AutoTokenizer.from_pretrained(path)(text).input_ids for path in (out / "model", BASE)]
    assert ids[0] == ids[1] and ids[0]
    front = yaml.safe_load((out / "model" / "README.md").read_text().split("---\n")[1])
    assert front["base_model"] == "owner/base" and front["language"] == ["sw"]
    assert front["pipeline_tag"] == "text-generation" and "mbuyu" in front["tags"]


def main():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], folder, BASE], check=True)
        for check in (check_logs, check_adapters, check_model):
            check(pathlib.Path(folder))
            print("ok", check.__name__)


if __name__ == "__main__":
    main()
