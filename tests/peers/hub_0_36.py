#!/usr/bin/env python3
# environment: hub-0-36
"""`mbuyu hub` with huggingface_hub 0.36: reading, and pushing by LFS, whole and in parts.

hub_0_36.py MBUYU
"""

import importlib.util
import pathlib
import sys
import tempfile


def load(name):
    path = pathlib.Path(__file__).parent / "hub" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clients = load("clients")


def main():
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        folder = work / "hub/models/acme/plain"
        names = clients.plain_folder(folder)
        hub = clients.Hub(sys.argv[1], work / "hub", "--read-write")
        clients.settings(work / "home", hub.url)
        import huggingface_hub
        print(f"huggingface_hub {huggingface_hub.__version__}")
        clients.reading(hub, folder, names)
        clients.push(hub, work, "by-lfs")
        clients.push(hub, work, "in-parts", size=(40 << 20) + 12345)
        clients.finish(hub)


main()
