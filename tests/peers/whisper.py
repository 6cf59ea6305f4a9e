#!/usr/bin/env python3
"""whisper.py - Whisper tiny.en on real speech, against transformers and PEFT.

Five LibriVox clips: mbuyu writes down what transformers does; the loss on them agrees; what mbuyu trained
a step, whole and as an adapter, is read by transformers with its processor, and by PEFT, and gives the
loss that mbuyu gives. Runs with MB_LONG=1 only: it wants the model (scripts/fetch_materials.sh
whisper-tiny librivox) and some minutes.
"""
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

if os.environ.get("MB_LONG") != "1":
    print("left out: it runs with MB_LONG=1")
    sys.exit(0)

import peft
import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

MBUYU = os.environ["MBUYU"]
MODEL = os.path.join(os.environ["MB_MATERIALS"], "whisper-tiny")
CLIPS = os.path.join(os.environ["MB_MATERIALS"], "librivox")
failures = 0


def check(right, sentence):
    global failures
    if not right:
        print("FAILED:", sentence)
        failures += 1


def mbuyu(*args):
    done = subprocess.run([MBUYU, *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"mbuyu {' '.join(args)}: {done.stderr}")
    return done.stdout


def said():
    with open(os.path.join(CLIPS, "transcription"), encoding="utf-8") as f:
        for line in f:
            text, name = re.fullmatch(r"<s> (.*) </s> \((.*)\)\n", line).groups()
            yield os.path.join(CLIPS, name + ".wav"), text


@torch.no_grad()
def loss_of(model, processor, rows):
    """Per trained token, as transformers' own fine-tuning counts them."""
    total = count = 0
    for path, text in rows:
        sound, rate = soundfile.read(path, dtype="float32")
        labels = processor.tokenizer(text, return_tensors="pt").input_ids[:, 1:]
        features = processor(sound, sampling_rate=rate, return_tensors="pt").input_features
        total += model(input_features=features, labels=labels).loss.item() * labels.numel()
        count += labels.numel()
    return total / count


def transcripts(model, processor, files):
    for path in files:
        sound, rate = soundfile.read(path, dtype="float32")
        features = processor(sound, sampling_rate=rate, return_tensors="pt").input_features
        ids = model.generate(features, num_beams=1)
        yield processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


def load(folder):
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def main():
    torch.set_num_threads(2)
    rows = list(said())
    files = sorted(glob.glob(os.path.join(CLIPS, "*.wav")))
    processor, model = WhisperProcessor.from_pretrained(MODEL), load(MODEL)
    with tempfile.TemporaryDirectory() as work:
        data = os.path.join(work, "rows.jsonl")
        with open(data, "w", encoding="utf-8") as f:
            for path, text in rows:
                f.write(json.dumps({"audio": path, "text": text}) + "\n")
        task = ["task=speech-recognition", "max_length=100", "per_device_eval_batch_size=1",
                "per_device_train_batch_size=1", "bf16=false"]
        loss = lambda *args: json.loads(
            mbuyu("eval", *args, *task, f"eval_datasets=[{data}]"))["eval_loss"]

        ours = mbuyu("transcribe", MODEL, *files).splitlines()
        theirs = list(transcripts(model, processor, files))
        check(ours == theirs, f"transcripts differ:\n{ours}\n{theirs}")
        compared = [("as it came", loss(MODEL), loss_of(model, processor, rows))]

        out = os.path.join(work, "full")
        mbuyu("train", f"model_name_or_path={MODEL}", *task, f"datasets=[{data}]", "max_steps=1",
              "global_batch_size=5", "learning_rate=1e-4", f"output_dir={out}")
        final = os.path.join(out, "final")
        compared.append(("trained whole", loss(final),
                         loss_of(load(final), WhisperProcessor.from_pretrained(final), rows)))

        out = os.path.join(work, "lora")
        mbuyu("train", f"model_name_or_path={MODEL}", *task, f"datasets=[{data}]", "max_steps=2",
              "global_batch_size=5", "learning_rate=1e-2", "finetuning_type=lora", "lora_r=4",
              f"output_dir={out}")
        final = os.path.join(out, "final")
        adapted = peft.PeftModel.from_pretrained(model, final).eval()
        compared.append(("with an adapter", loss(MODEL, f"adapter_path={final}"),
                         loss_of(adapted.base_model.model, processor, rows)))
    for what, mine, theirs in compared:
        check(abs(mine - theirs) < 1e-4, f"{what}: loss {mine}, transformers' {theirs}")
        print(f"{what}: loss {mine:.6f}, transformers' {theirs:.6f}")
    check(len({round(mine, 3) for _, mine, _ in compared}) == 3, "training changed nothing")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
