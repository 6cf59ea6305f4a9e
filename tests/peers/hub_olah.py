#!/usr/bin/env python3
# environment: hub-olah
"""olah, a mirror that others wrote, in front of `mbuyu hub`: huggingface_hub and `mbuyu pull` through it.

hub_olah.py MBUYU
"""

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request


def load(name):
    path = pathlib.Path(__file__).parent / "hub" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clients = load("clients")
step, must = clients.step, clients.must


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_olah(work, hub):
    port = free_port()
    there = hub.url.removeprefix("http://")
    here = f"127.0.0.1:{port}"
    log = open(work / "olah.log", "wb")
    process = subprocess.Popen(
        [pathlib.Path(sys.executable).parent / "olah-cli", "--host", "127.0.0.1", "--port", str(port),
         "--hf-scheme", "http", "--hf-netloc", there, "--hf-lfs-netloc", there,
         "--mirror-scheme", "http", "--mirror-netloc", here, "--mirror-lfs-netloc", here,
         "--repos-path", str(work / "olah"), "--log-path", str(work / "olah-logs")],
        stdout=log, stderr=log, cwd=work)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://{here}/", timeout=2)
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.1)
    return process, f"http://{here}"


def main():
    mbuyu = sys.argv[1]
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        folder = work / "hub/models/acme/plain"
        names = clients.plain_folder(folder)
        hub = clients.Hub(mbuyu, work / "hub")
        process, url = start_olah(work, hub)
        try:
            clients.settings(work / "home", url)
            import huggingface_hub as h
            print(f"olah in front, huggingface_hub {h.__version__}")
            with step("snapshot_download through olah"):
                clients.same_folder(folder, h.snapshot_download("acme/plain"), names)
            with step("model_info through olah"):
                must(h.HfApi().model_info("acme/plain").sha ==
                     h.HfApi(endpoint=hub.url).model_info("acme/plain").sha)
            with step("mbuyu pull through olah"):
                done = subprocess.run([mbuyu, "pull", "acme/plain", "--to", str(work / "to")],
                                      capture_output=True, text=True, timeout=120,
                                      env=os.environ | {"HF_HOME": str(work / "other")})
                must(done.returncode == 0, done.stdout[-500:] + done.stderr[-500:])
                clients.same_folder(folder, work / "to", names)
        finally:
            process.terminate()
            process.wait(20)
            if clients.failures:
                print((work / "olah.log").read_text()[-3000:])
        clients.finish(hub)


main()
