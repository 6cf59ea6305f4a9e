#!/usr/bin/env python3
"""Exported image classifiers in transformers and PEFT: the loss of every export, computed there from the
same files, is the one mbuyu says.

image_models.py MBUYU MAKE_PICTURES REFERENCE_DATA
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

BOUND = 2e-5
CLASSES = ["bars", "disc", "ring"]


def mbuyu(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def their_loss(model, processor, folder):
    files = sorted(folder.glob("*/*.png"))
    pictures = [Image.open(file).convert("RGB") for file in files]
    labels = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    model.eval()
    with torch.no_grad():
        logits = model(**processor(pictures, return_tensors="pt")).logits
    return torch.nn.functional.cross_entropy(logits, labels).item()


def compare(what, ours, theirs):
    good = abs(ours - theirs) <= BOUND
    print(f"{what:32s} loss {ours:.6f}, transformers {theirs:.6f}" + ("" if good else "  FAIL"))
    return good


def our_loss(program, work, *model):
    out = mbuyu(program, "eval", "task=image-classification", f"datasets=[{work / 'test'}]", *model)
    return json.loads(out)["eval_loss"] if out.lstrip().startswith("{") else float(
        out.split('"eval_loss":')[1].split(",")[0]
    )


def check(program, work, base):
    name = base.name
    full, lora = work / name / "full", work / name / "lora"
    run = [program, "train", "task=image-classification", f"datasets=[{work / 'train'}]"]
    mbuyu(*run, f"model_name_or_path={base}", "max_steps=5", "learning_rate=1e-3", "num_labels=3",
          "init=random", f"output_dir={full}")
    final = full / "final"
    model = AutoModelForImageClassification.from_pretrained(final)
    processor = AutoImageProcessor.from_pretrained(final)
    assert model.config.id2label == dict(enumerate(CLASSES)), model.config.id2label
    theirs = their_loss(model, processor, work / "test")
    good = compare(f"{name}: full", our_loss(program, work, f"model_name_or_path={final}"), theirs)
    mbuyu(*run, f"model_name_or_path={final}", "max_steps=5", "learning_rate=1e-2",
          "finetuning_type=lora", "lora_r=4", f"output_dir={lora}")
    adapter = lora / "final"
    ours = our_loss(program, work, f"model_name_or_path={final}", f"adapter_path={adapter}")
    adapted = PeftModel.from_pretrained(model, adapter)
    processor = AutoImageProcessor.from_pretrained(adapter)
    good &= compare(f"{name}: LoRA", ours, their_loss(adapted, processor, work / "test"))
    return good


def main():
    program, make_pictures, data = map(pathlib.Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        mbuyu(make_pictures, work / "train", "12")
        mbuyu(make_pictures, work / "test", "7")
        good = [check(program, work, data / "reference" / name) for name in ("vit-cls", "deit-cls")]
    print("agrees" if all(good) else "differs")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
