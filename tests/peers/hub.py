#!/usr/bin/env python3
"""`mbuyu hub` with huggingface_hub 2.x, transformers and PEFT, all unmodified: reading, pushing by Xet
and by LFS, models and adapters pushed and loaded again, `hf cache verify`; the cache that was filled
served again by another hub; and `mbuyu pull` from it.

hub.py MBUYU REFERENCE_DATA
"""

import importlib.util
import os
import pathlib
import shutil
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


def models(hub, work):
    import peft
    import torch
    import transformers
    print(f"transformers {transformers.__version__}, peft {peft.__version__}")
    ids = torch.tensor([[1, 5, 9, 2]])
    with step("AutoModel and AutoTokenizer.from_pretrained"):
        model = transformers.AutoModelForCausalLM.from_pretrained("acme/llama")
        tokenizer = transformers.AutoTokenizer.from_pretrained("acme/llama")
        here = transformers.AutoModelForCausalLM.from_pretrained(hub.folder / "models/acme/llama")
        with torch.no_grad():
            must(torch.equal(model(ids).logits, here(ids).logits))
        must(len(tokenizer("tree").input_ids) > 0)
    with step("model and tokenizer.push_to_hub, from_pretrained elsewhere"):
        with torch.no_grad():
            model.model.embed_tokens.weight += 0.25
        model.push_to_hub("writer/tuned")
        tokenizer.push_to_hub("writer/tuned")
        hub.restart()
        again = transformers.AutoModelForCausalLM.from_pretrained("writer/tuned",
                                                                  cache_dir=work / "elsewhere")
        transformers.AutoTokenizer.from_pretrained("writer/tuned", cache_dir=work / "elsewhere")
        with torch.no_grad():
            must(torch.equal(model(ids).logits, again(ids).logits))
    with step("PEFT: adapter.push_to_hub, PeftModel.from_pretrained"):
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        tuned = peft.get_peft_model(again, config)
        tuned.push_to_hub("writer/adapter")
        base = transformers.AutoModelForCausalLM.from_pretrained("writer/tuned",
                                                                 cache_dir=work / "elsewhere")
        loaded = peft.PeftModel.from_pretrained(base, "writer/adapter")
        with torch.no_grad():
            must(torch.equal(tuned(ids).logits, loaded(ids).logits))


def run(*command, **more):
    environment = os.environ | more.pop("env", {})
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True,
                          timeout=120)
    must(done.returncode == more.get("code", 0),
         f"{command}: exit {done.returncode}\n{done.stdout[-400:]}{done.stderr[-800:]}")
    return done.stdout


def cache(hub, work, mbuyu):
    """The cache that the clients filled, verified, then served by another hub."""
    import huggingface_hub as h
    hf = pathlib.Path(sys.executable).parent / "hf"
    with step("hf cache verify"):
        for repo in ["acme/plain", "acme/llama"]:
            h.snapshot_download(repo)
            run(hf, "cache", "verify", repo)
    source = pathlib.Path(h.snapshot_download("acme/plain"))
    with step("a cache served: read only, the same commit"):
        second = clients.Hub(mbuyu, work / "home/hub", "--read-write", "--store",
                             str(work / "second-store"))
        api = h.HfApi(endpoint=second.url)
        must(api.model_info("acme/plain").sha == source.name)
        got = h.snapshot_download("acme/plain", endpoint=second.url, local_dir=work / "from-cache")
        clients.same_folder(source, got, ["README.md", "weights.bin"])
        try:
            api.upload_file(repo_id="acme/plain", path_or_fileobj=b"x", path_in_repo="x")
            must(False, "a copy took a commit")
        except h.errors.HfHubHTTPError as error:
            must(error.response.status_code == 403, error)
    second.stop()
    with step("mbuyu pull into a folder and into a cache; hf cache verify of it"):
        home = {"HF_HOME": str(work / "pulled")}
        run(mbuyu, "pull", "acme/plain", "--to", work / "pulled-to", env=home)
        clients.same_folder(source, work / "pulled-to", ["README.md", "weights.bin"])
        run(mbuyu, "pull", "acme/plain", env=home)
        run(mbuyu, "pull", "writer/tuned", env=home)
        run(hf, "cache", "verify", "acme/plain", env=home)
        run(hf, "cache", "verify", "writer/tuned", env=home)


def pushed_by_mbuyu(hub, work, mbuyu, folder):
    import huggingface_hub as h
    for way in ["lfs", "multipart"]:
        with step(f"mbuyu push --upload {way}, fetched by huggingface_hub"):
            run(mbuyu, "push", folder, f"writer/mbuyu-{way}", "--upload", way)
            got = h.snapshot_download(f"writer/mbuyu-{way}")
            clients.same_folder(folder, got, ["README.md", "config.json", "model.safetensors"])


def changed_folder(hub, folder):
    """People change files in the folder while it is served."""
    import time
    import huggingface_hub as h
    with step("a file changed in the folder becomes a commit within seconds"):
        before = h.HfApi().model_info("acme/plain").sha
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
        (folder / "new.txt").write_text("mpya")
        for _ in range(100):
            time.sleep(0.1)
            if h.HfApi().model_info("acme/plain").sha != before:
                break
        must(h.HfApi().list_repo_commits("acme/plain")[1].commit_id == before)
        path = h.hf_hub_download("acme/plain", "config.json")
        must("gpt2" in pathlib.Path(path).read_text() and h.file_exists("acme/plain", "new.txt"))


def main():
    mbuyu, data = sys.argv[1:3]
    if len(sys.argv) > 3:  # again, with Xet switched off before the library is imported
        work = pathlib.Path(sys.argv[3])
        hub = clients.Hub(mbuyu, work / "hub-lfs", "--read-write")
        clients.settings(work / "home-lfs", hub.url)
        os.environ["HF_HUB_DISABLE_XET"] = "1"
        clients.push(hub, work, "by-lfs")
        clients.push(hub, work, "in-parts", size=(33 << 20) + 1)
        clients.finish(hub)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        folder = work / "hub/models/acme/plain"
        names = clients.plain_folder(folder)
        clients.plain_folder(work / "hub-lfs/models/acme/plain")
        shutil.copytree(pathlib.Path(data) / "reference/llama", work / "hub/models/acme/llama")
        hub = clients.Hub(mbuyu, work / "hub", "--read-write")
        clients.settings(work / "home", hub.url)
        import huggingface_hub
        print(f"huggingface_hub {huggingface_hub.__version__}")
        clients.reading(hub, folder, names)
        clients.push(hub, work, "by-xet")
        models(hub, work)
        cache(hub, work, mbuyu)
        source = work / "to-push"
        shutil.copytree(hub.folder / "models/acme/llama", source)
        (source / "README.md").write_text("# Llama\n")
        pushed_by_mbuyu(hub, work, mbuyu, source)
        changed_folder(hub, folder)
        code = subprocess.run([sys.executable, "-P", __file__, mbuyu, data, str(work)]).returncode
        clients.check("the same by LFS (HF_HUB_DISABLE_XET=1)", code == 0)
        clients.finish(hub)


main()
