#!/usr/bin/env python3
"""A checkpoint as others see it: h5py and h5dump on model.h5, hashlib on the manifest.

    model_h5.py HELPER [PROGRAM DATA] [RANKS...]   HELPER: the built model_h5_save; ranks 1 2 3

With PROGRAM (mbuyu) and DATA (tests/data) also the checkpoints of real runs on two ranks, of a whole
model and of an adapter: each tensor must equal what the run exported, bit for bit.

Every tensor of model.h5 must be whole and right: from another working directory, after the folder
was moved, and from inside it. Every digest in the manifest must be what its definition says, and a
rank's file alone must hold what its attributes promise.
"""
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from safetensors.numpy import load_file

SHAPES = {
    "embed.weight": (700, 19),
    "norm.bias": (77,),
    "conv.weight": (5, 7, 11, 13),
    "one": (1,),
    "lm_head.lora_A.weight": (3, 1001, 2),
}
SETS = ["/param", "/optim/exp_avg", "/optim/exp_avg_sq"]
MPIRUN = "mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np".split()


def wanted():
    """{dataset: (offset in the flat order, values)}"""
    out, at = {}, 0
    for name, shape in SHAPES.items():
        n = int(np.prod(shape))
        for i, s in enumerate(SETS):
            values = np.arange(at, at + n, dtype=np.float64) + 0.25 * i
            out[f"{s}/{name}"] = (at, values.astype(np.float32).reshape(shape))
        at += n
    return out


def check_model(path, want):
    with h5py.File(path, "r") as f:
        found = []
        f.visititems(lambda name, x: found.append("/" + name) if isinstance(x, h5py.Dataset) else None)
        assert sorted(found) == sorted(want), found
        for name, (_, values) in want.items():
            x = f[name]
            assert x.is_virtual and x.dtype == np.dtype("<f4") and np.isnan(x.fillvalue)
            assert x.shape == values.shape, (name, x.shape)
            np.testing.assert_array_equal(x[...], values, err_msg=name)
            assert len(x.virtual_sources()) >= 1
            for source in x.virtual_sources():
                assert "/" not in source.file_name, "an absolute or foreign path"


def check_manifest(folder, want, ranks):
    raw = open(f"{folder}/manifest.json", "rb").read()
    m = json.loads(raw)
    mark = raw.rindex(b'"sha256": "') + len(b'"sha256": "')
    assert hashlib.sha256(raw[:mark]).hexdigest() == m["sha256"]
    assert raw[mark + 64 :] == b'"\n}\n'
    assert (m["step"], m["ranks"], m["run_id"]) == (7, ranks, "peer")
    assert m["states"] == ["exp_avg", "exp_avg_sq"] and m["optimizer"] == "adamw"
    assert {t["name"]: tuple(t["shape"]) for t in m["tensors"]} == SHAPES
    listed = {f["name"] for f in m["files"]} | {"manifest.json"}
    assert listed == set(os.listdir(folder)), listed ^ set(os.listdir(folder))
    for f in m["files"]:
        data = open(f"{folder}/{f['name']}", "rb").read()
        assert len(data) == f["bytes"] and hashlib.sha256(data).hexdigest() == f["sha256"]
        assert len(data) <= 128 << 20
        if f["name"].startswith("rank-"):
            assert re.fullmatch(r"rank-\d{5}-of-%05d\.\d{3}\.h5" % ranks, f["name"])
    covered = {name: np.zeros(v.size, int) for name, (_, v) in want.items()}
    for s in m["slices"]:
        offset, values = want[s["dataset"]]
        part = values.reshape(-1)[s["from"] : s["from"] + s["count"]]
        covered[s["dataset"]][s["from"] : s["from"] + s["count"]] += 1
        with h5py.File(f"{folder}/{s['file']}", "r") as f:
            x = f[s["dataset"]]
            np.testing.assert_array_equal(x[...], part)
            assert x.attrs["from"] == s["from"] and x.attrs["flat"] == offset + s["from"]
            assert tuple(x.attrs["shape"]) == values.shape and x.fletcher32 and x.chunks
        head = "mbuyu slice\npeer\n7\n%s\n%d\n%d\n" % (s["dataset"], s["from"], 4 * s["count"])
        assert hashlib.sha256(head.encode() + part.tobytes()).hexdigest() == s["sha256"]
    for name, n in covered.items():
        assert (n == 1).all(), name
    return len(m["files"]), len(m["slices"])


def check_state(folder):
    with h5py.File(f"{folder}/state.h5", "r") as f:
        assert f.attrs["step"] == 7 and f.attrs["run_id"] == b"peer"
        assert json.loads(f["trainer"][()]) == {"cursor": 3}
        assert f["optim"].attrs["kind"] == b"adamw" and f["optim"].attrs["applied"] == 0
    assert open(f"{folder}/recipe.yaml").read() == "a: 1\n"


def dumped(path):
    """The number of datasets that h5dump -H lists."""
    done = subprocess.run(["h5dump", "-H", path], check=True, capture_output=True, text=True)
    return done.stdout.count("DATASET")


def check_equal(path, exported):
    """Tensors and AdamW's states, whole and as exported."""
    with h5py.File(path, "r") as f:
        found = []
        f["param"].visititems(lambda name, x: found.append(name) if isinstance(x, h5py.Dataset) else None)
        assert sorted(found) == sorted(exported), (sorted(found), sorted(exported))
        for name, value in exported.items():
            np.testing.assert_array_equal(f[f"param/{name}"][...], value, err_msg=name)
            for state in ("exp_avg", "exp_avg_sq"):
                x = f[f"optim/{state}/{name}"]
                assert x.shape == value.shape and np.isfinite(x[...]).all() and x[...].any(), name


def check_runs(program, data, env):
    """A run's last checkpoint against what it exported, before and after moving."""
    for case, keys, file in (
        ("llama3-rope", [], "model"),
        ("gpt2", [], "model"),
        ("lora-llama", ["finetuning_type=lora", "lora_r=4"], "adapter_model"),
    ):
        with tempfile.TemporaryDirectory() as top:
            with open(f"{top}/rows.jsonl", "w") as rows:
                for i in range(12):
                    rows.write(json.dumps({"prompt": f"mti {i}:", "completion": f" tree {i}"}) + "\n")
            out = f"{top}/out"
            subprocess.run([*MPIRUN, "2", program, "train", f"model_name_or_path={data}/reference/{case}",
                            f"datasets={top}/rows.jsonl", f"output_dir={out}", "max_steps=4", "save_steps=2",
                            "per_device_train_batch_size=2", "max_length=64", "learning_rate=1e-2", *keys],
                           check=True, env=env, capture_output=True)
            exported = load_file(f"{out}/final/{file}.safetensors")
            folder = f"{out}/checkpoint-000004"
            assert any("-of-00002" in name for name in os.listdir(folder))
            os.chdir("/")
            check_equal(f"{folder}/model.h5", exported)
            os.makedirs(f"{top}/far/away")
            os.rename(folder, f"{top}/far/away/it")
            check_equal(f"{top}/far/away/it/model.h5", exported)
            n = dumped(f"{top}/far/away/it/model.h5")
            assert n == 3 * len(exported), n
            print(f"model.h5 of two ranks' run, {case}: {len(exported)} tensors equal {file}.safetensors, "
                  f"from elsewhere and moved; {n} in h5dump -H")


def main():
    helper = os.path.abspath(sys.argv[1])
    ranks_given = [int(a) for a in sys.argv[2:] if a.isdigit()]
    program, data = ([os.path.abspath(a) for a in sys.argv[2:] if not a.isdigit()] + [None, None])[:2]
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    want, home = wanted(), os.getcwd()
    for ranks in ranks_given or [1, 2, 3]:
        with tempfile.TemporaryDirectory() as top:
            subprocess.run([*MPIRUN, str(ranks), helper, f"{top}/out"], check=True, env=env)
            folder = f"{top}/out/checkpoint-000007"
            check_model(f"{folder}/model.h5", want)
            files, slices = check_manifest(folder, want, ranks)
            check_state(folder)
            moved = f"{top}/elsewhere/renamed"
            os.mkdir(f"{top}/elsewhere")
            os.rename(folder, moved)
            check_model(f"{moved}/model.h5", want)
            os.chdir(moved)
            check_model("model.h5", want)
            os.mkdir(f"{top}/decoy")  # files of the same names where we stand are not looked at
            for f in os.listdir(moved):
                open(f"{top}/decoy/{f}", "w").close()
            os.chdir(f"{top}/decoy")
            check_model(f"{moved}/model.h5", want)
            os.chdir(home)
            assert dumped(f"{moved}/model.h5") == len(want)
            print(f"model.h5: {ranks} ranks, {files} files, {slices} slices: "
                  f"{len(want)} tensors whole in h5py, {len(want)} in h5dump -H")
    if program:
        check_runs(program, data, env)


if __name__ == "__main__":
    main()
