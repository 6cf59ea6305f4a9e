#!/usr/bin/env python3
"""Pushes to `mbuyu hub`: those of `mbuyu push` as huggingface_hub, transformers and PEFT see them, and
huggingface_hub's own of large files by Xet, with a restart in between.

push.py MBUYU REFERENCE_DATA
"""

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOKEN = "hf_canary_of_this_test"
SIZE = 60_000_000

mbuyu, data = sys.argv[1], pathlib.Path(sys.argv[2]) / "reference"
work = pathlib.Path(tempfile.mkdtemp())
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET"):
    os.environ.pop(name, None)
os.environ.update(HF_HOME=str(work / "home"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_TELEMETRY="1",
                  HF_HUB_DISABLE_PROGRESS_BARS="1", HF_XET_HIGH_PERFORMANCE="0")
(work / "token").write_text(TOKEN + "\n")
failures = 0


class Hub:
    def __init__(self):
        (work / "hub").mkdir(exist_ok=True)
        self.port = 0
        self.start()

    def start(self):
        self.log = open(work / "hub.log", "a")
        self.process = subprocess.Popen(
            [mbuyu, "hub", str(work / "hub"), "--port", str(self.port), "--read-write", "--token-file",
             str(work / "token"), "--store", str(work / "store")],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.process.stdout:
            if line.startswith("hub at "):
                self.url = line.split()[-1]
                self.port = int(self.url.rsplit(":", 1)[1])
                return
        sys.exit("mbuyu hub did not start: " + (work / "hub.log").read_text())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, (work / "hub.log").read_text()


def check(what, right, said=""):
    global failures
    failures += not right
    print(f"{'ok   ' if right else 'FAIL '} {what} {said}", flush=True)


def run(*arguments):
    done = subprocess.run([mbuyu, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {arguments}\n{done.stdout}{done.stderr}")
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in pathlib.Path(folder).rglob("*")
            if p.is_file() and ".cache" not in p.parts}


hub = Hub()
os.environ["HF_ENDPOINT"] = hub.url

import huggingface_hub  # noqa: E402 - it reads the environment when it is imported
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

api = huggingface_hub.HfApi()
print("huggingface_hub", huggingface_hub.__version__, "transformers", transformers.__version__, "peft", peft.__version__)

# --- mbuyu push: the folder comes back, and is not pushed twice
folder = work / "folder"
shutil.copytree(data / "llama", folder)
(folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
(folder / "a folder").mkdir()
(folder / "a folder" / "maelezo é.txt").write_text("maji\n")
(folder / "empty.txt").write_text("")
(folder / "large.bin").write_bytes(random.Random(3).randbytes(13_000_000))
for way in ("", "lfs", "multipart"):
    name = "org/model" + way
    extra = ["--upload", way] if way else []
    run("push", folder, name, "--message", "kwanza", *extra)
    got = huggingface_hub.snapshot_download(name, local_dir=work / f"got{way}")
    theirs = contents(got)
    theirs.pop(".gitattributes", None)
    check(f"mbuyu push {way or 'any'}: snapshot_download equals the folder", theirs == contents(folder))
    commits = [c.title for c in api.list_repo_commits(name)]
    said = run("push", folder, name, *extra)
    check("pushed again: no commit", "nothing to do" in said and [c.title for c in api.list_repo_commits(name)] == commits and "kwanza" in commits)

# --- an adapter, loaded from the hub on its base from the hub
adapter = work / "adapter"
shutil.copytree(data / "lora-llama" / "adapter-after-10-steps", adapter)
config = json.loads((adapter / "adapter_config.json").read_text())
config["base_model_name_or_path"] = "org/base"
(adapter / "adapter_config.json").write_text(json.dumps(config))
run("push", data / "lora-llama", "org/base", "--exclude", "adapter*", "--exclude", "golden*", "--exclude", "merged*")
run("push", adapter, "org/adapter", "--private")
ids = torch.tensor([[1, 5, 9, 30, 2]])
with torch.no_grad():
    model = peft.AutoPeftModelForCausalLM.from_pretrained("org/adapter")
    here = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(data / "lora-llama"), adapter)
    bare = transformers.AutoModelForCausalLM.from_pretrained("org/base")
    check("PEFT loads the adapter and its base from the hub", torch.equal(model(ids).logits, here(ids).logits))
    check("and it does something", not torch.equal(model(ids).logits, bare(ids).logits))
card = pathlib.Path(huggingface_hub.hf_hub_download("org/adapter", "README.md")).read_text()
check("its card names the base", "base_model: 'org/base'" in card and huggingface_hub.ModelCard(card).data.base_model == "org/base")


# --- huggingface_hub by Xet
def disk(below):
    return sum(p.stat().st_size for p in (work / "store" / below).rglob("*") if p.is_file())


def xorbs():
    return disk("xet/xorbs")


def fetched(name):
    path = huggingface_hub.hf_hub_download("org/large", name, local_dir=work / "back")
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


large = work / "large"
large.mkdir()
bits = bytearray(random.Random(1).randbytes(SIZE))
(large / "large.bin").write_bytes(bits)
(large / "weights.safetensors").write_bytes(torch.randn(300_000, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16).view(torch.int16).numpy().tobytes())
api.create_repo("org/large", exist_ok=True)
begun = time.time()
api.upload_folder(repo_id="org/large", folder_path=large)
first = xorbs()
check("60 MB by Xet", fetched("large.bin") == hashlib.sha256(bits).hexdigest(), f"{time.time() - begun:.1f} s")
check("its bytes are kept once", 0 < first < SIZE // 100, f"{disk('objects')} bytes of objects, {first} of xorbs")
check("bfloat16 weights by Xet", fetched("weights.safetensors") == hashlib.sha256((large / "weights.safetensors").read_bytes()).hexdigest())

hub.stop()
hub.start()
bits[SIZE // 2:SIZE // 2 + 10] = b"0123456789"
(large / "large.bin").write_bytes(bits)
api.upload_folder(repo_id="org/large", folder_path=large)
check("ten bytes changed, after a restart of the hub", fetched("large.bin") == hashlib.sha256(bits).hexdigest())
check("what was sent was little, and is kept once", 0 < xorbs() - first < 10_000, f"{disk('objects')} bytes of objects, {xorbs()} of xorbs")

hub.stop()
shutil.rmtree(work / "store" / "xet")  # room made: clients must begin again, and do
hub.start()
(large / "large.bin").write_bytes(bits[: SIZE // 2])
api.upload_folder(repo_id="org/large", folder_path=large)
check("after the store of chunks was removed", fetched("large.bin") == hashlib.sha256(bits[: SIZE // 2]).hexdigest(), f"{xorbs()} bytes sent")

# --- the hub is killed at any moment of a push; what clients think it has, it has
kills = 50 if os.environ.get("MB_LONG") == "1" else 3
pusher = "import huggingface_hub, sys; huggingface_hub.HfApi().upload_folder(repo_id='org/large', folder_path=sys.argv[1])"
for i in range(kills):
    for k in range(6):
        bits[k * SIZE // 8 + i * 10_000:k * SIZE // 8 + i * 10_000 + 2_000] = random.Random(1000 * i + k).randbytes(2_000)
    (large / "large.bin").write_bytes(bits)
    client = subprocess.Popen([sys.executable, "-P", "-c", pusher, str(large)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = xorbs()
    deadline = time.time() + 60  # from the first byte of this push on, a little later each time
    while xorbs() == seen and not any((work / "store" / "xet" / "tmp").iterdir()) and client.poll() is None and time.time() < deadline:
        time.sleep(0.002)
    time.sleep(random.Random(i).random() * 0.2)
    hub.process.kill()
    hub.process.wait()
    time.sleep(0.05)
    hub.start()
    client.kill()
    client.wait()
api.upload_folder(repo_id="org/large", folder_path=large)
check(f"killed {kills} times while taking a push, then pushed again", fetched("large.bin") == hashlib.sha256(bits).hexdigest())
hub.stop()
check("the token is in no log", TOKEN not in (work / "hub.log").read_text())
shutil.rmtree(work)
sys.exit(failures > 0)
