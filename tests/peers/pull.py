#!/usr/bin/env python3
"""What `mbuyu pull` leaves in the shared cache, read by those who share it: huggingface_hub's own
`hf cache verify` and `scan_cache_dir`, transformers and PEFT offline; and data by its path.

    pull.py MBUYU TEST_DATA

The hub is tests/cli/fake_hub.py, whose link is cut every 200 kB.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

MBUYU, DATA = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from fake_hub import FakeHub  # noqa: E402

work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_peer_"))
os.environ.update(HF_HOME=str(work / "home"), HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_ENDPOINT"):
    os.environ.pop(name, None)

import huggingface_hub  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def online(url):
    env = {**os.environ, "HF_ENDPOINT": url, "MBUYU_LOG": "warn"}
    env.pop("HF_HUB_OFFLINE")
    return env


def pull(hub, *words):
    done = subprocess.run([MBUYU, "pull", *words, "--pause", "0.05"], env=online(hub.url), text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return pathlib.Path(done.stdout.strip())


def hf(hub, *words):
    tool = pathlib.Path(sys.executable).parent / "hf"
    done = subprocess.run([tool, *words], env=online(hub.url), text=True, capture_output=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def verified(hub):
    code, said = hf(hub, "cache", "verify", "org/name")
    return code == 0 and "Verified" in said, said


def main():
    model = DATA / "reference" / "llama"
    wanted = files_of(model)
    hub = FakeHub({p: d for p, d in wanted.items() if "/" not in p}, cut_every=200_000)
    folder = pull(hub, "org/name")
    good, said = verified(hub)
    assert good, said
    print("hf cache verify:", next(line for line in said.splitlines() if "Verified" in line))

    info = huggingface_hub.scan_cache_dir()
    assert not info.warnings and [r.repo_id for r in info.repos] == ["org/name"], info
    (repo,) = info.repos
    assert {r.commit_hash: r.refs for r in repo.revisions} == {hub.sha: frozenset({"main"})}
    assert huggingface_hub.snapshot_download("org/name") == str(folder)

    net = transformers.AutoModelForCausalLM.from_pretrained("org/name")
    here = transformers.AutoModelForCausalLM.from_pretrained(model)
    ids = torch.arange(1, 20)[None]
    assert torch.equal(net(ids).logits, here(ids).logits)
    if any(p.startswith("tokenizer") for p in wanted):
        transformers.AutoTokenizer.from_pretrained("org/name")
    print("transformers", transformers.__version__, "opens org/name offline; logits are those of the folder")

    # and once more by the library itself: nothing is fetched again
    before = hub.sent
    code, said = hf(hub, "download", "org/name", "--revision", hub.sha)
    assert code == 0 and hub.sent == before, said
    print("hf download: nothing to fetch")

    # an adapter trained on it by name is found by name
    rows = work / "rows.jsonl"
    rows.write_text('{"prompt": "mti", "completion": " tree"}\n' * 8)
    done = subprocess.run([MBUYU, "train", "model_name_or_path=org/name", f"datasets={rows}", "max_steps=2",
                           "finetuning_type=lora", "max_length=64", f"output_dir={work}/out",
                           "report_to=none"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    tuned = peft.AutoPeftModelForCausalLM.from_pretrained(work / "out" / "final")
    assert tuned.peft_config["default"].base_model_name_or_path == "org/name"
    print("peft", peft.__version__, "finds the adapter's base by its name")

    # one byte changed: the verifier sees it, and so does pull --check
    blob = (folder / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert not verified(hub)[0]
    pull(hub, "org/name", "--check")
    assert verified(hub)[0]

    # to a folder
    to = pull(hub, "org/name", "--to", str(work / "folder"))
    code, said = hf(hub, "cache", "verify", "org/name", "--local-dir", str(to))
    assert code == 0, said
    before = hub.sent
    code, said = hf(hub, "download", "org/name", "--local-dir", str(to))
    assert code == 0 and hub.sent == before, f"{said} {hub.sent - before} bytes"
    print("hf cache verify --local-dir, hf download --local-dir: nothing to fetch")
    hub.close()

    # data, by the path that pull prints
    save_file({"x": torch.arange(3.0)}, work / "x.safetensors")
    hub = FakeHub({"train.jsonl": rows.read_bytes(), "x.safetensors": (work / "x.safetensors").read_bytes()})
    folder = pull(hub, "dataset:org/rows")
    assert torch.equal(load_file(folder / "x.safetensors")["x"], torch.arange(3.0))
    assert (folder / "train.jsonl").read_bytes() == rows.read_bytes()
    try:
        import datasets
    except ImportError:
        pass
    else:
        assert datasets.load_dataset(str(folder), split="train").num_rows == 8
        print("datasets", datasets.__version__, "opens the path")
    hub.close()
    print("huggingface_hub", huggingface_hub.__version__, "and mbuyu share one cache")


try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
