#!/usr/bin/env python3
# environment: hub-1
"""`mbuyu hub` with huggingface_hub 1.x and datasets: reading, pushing by Xet and by LFS; load_dataset,
streaming and push_to_hub.

hub_1.py MBUYU
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile


def load(name):
    path = pathlib.Path(__file__).parent / "hub" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clients = load("clients")
step, must = clients.step, clients.must


def datasets_too(hub, work):
    import datasets
    print(f"datasets {datasets.__version__}")
    rows = {"sw": [f"neno {i}" for i in range(2000)], "n": list(range(2000))}
    with step("load_dataset of JSONL in a plain folder"):
        found = datasets.load_dataset("acme/rows", split="train")
        must(found.num_rows == 3 and found[2]["text"] == "row 2", found)
    with step("load_dataset, streaming"):
        found = list(datasets.load_dataset("acme/rows", split="train", streaming=True))
        must([r["text"] for r in found] == ["row 0", "row 1", "row 2"], found)
    with step("datasets.push_to_hub, then load_dataset elsewhere"):
        pushed = datasets.DatasetDict({
            "train": datasets.Dataset.from_dict(rows),
            "test": datasets.Dataset.from_dict({k: v[:100] for k, v in rows.items()})})
        pushed.push_to_hub("writer/maneno")
        hub.restart()
        found = datasets.load_dataset("writer/maneno", cache_dir=str(work / "elsewhere"))
        must(found["train"].num_rows == 2000 and found["test"][99]["sw"] == "neno 99", found)
        must(found["train"]["n"][:] == rows["n"])
    with step("pushed again with other rows"):
        datasets.Dataset.from_dict({k: v[:1500] for k, v in rows.items()}).push_to_hub(
            "writer/maneno", split="train")
        found = datasets.load_dataset("writer/maneno", split="train",
                                      cache_dir=str(work / "elsewhere-2"))
        must(found.num_rows == 1500, found)


def main():
    if len(sys.argv) > 3:  # again, with Xet switched off before the library is imported
        work, url = pathlib.Path(sys.argv[2]), sys.argv[3]
        hub = clients.Hub(sys.argv[1], work / "hub-lfs", "--read-write")
        clients.settings(work / "home-lfs", hub.url)
        os.environ["HF_HUB_DISABLE_XET"] = "1"
        clients.push(hub, work, "by-lfs", size=(33 << 20) + 1)
        clients.finish(hub)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        folder = work / "hub/models/acme/plain"
        names = clients.plain_folder(folder)
        rows = work / "hub/datasets/acme/rows/data"
        rows.mkdir(parents=True)
        (rows / "train.jsonl").write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(3)))
        clients.plain_folder(work / "hub-lfs/models/acme/plain")
        hub = clients.Hub(sys.argv[1], work / "hub", "--read-write")
        clients.settings(work / "home", hub.url)
        import huggingface_hub
        print(f"huggingface_hub {huggingface_hub.__version__}")
        clients.reading(hub, folder, names)
        clients.push(hub, work, "by-xet")
        datasets_too(hub, work)
        code = subprocess.run([sys.executable, "-P", __file__, sys.argv[1], str(work), hub.url]).returncode
        clients.check("the same by LFS (HF_HUB_DISABLE_XET=1)", code == 0)
        clients.finish(hub)


main()
