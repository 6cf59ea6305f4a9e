#!/usr/bin/env python3
"""`mbuyu ls` and `mbuyu rm` on a cache that huggingface_hub 2.x wrote: several revisions that share
blobs, and repositories that share contents (its store below blobs/ of the cache).

hub_cache.py MBUYU
"""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile

path = pathlib.Path(__file__).parent / "hub" / "clients.py"
spec = importlib.util.spec_from_file_location("clients", path)
clients = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clients)
step, must = clients.step, clients.must
MBUYU = sys.argv[1]
LARGE = 3_000_000


def mbuyu(*words, code=0):
    done = subprocess.run([MBUYU, *words], capture_output=True, text=True, timeout=60)
    must(done.returncode == code, f"{words}: exit {done.returncode} {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def revisions(h, repo):
    (found,) = [r for r in h.scan_cache_dir().repos if r.repo_id == repo]
    return {r.commit_hash: {f.file_name: f.file_path for f in r.files} for r in found.revisions}


def sound(h, repos):
    """Nothing is missing, and the library's own reader has no complaints."""
    info = h.scan_cache_dir()
    must(not info.warnings, info.warnings)
    must(sorted(r.repo_id for r in info.repos) == sorted(repos), [r.repo_id for r in info.repos])
    for repo in info.repos:
        for revision in repo.revisions:
            for file in revision.files:
                must(file.file_path.read_bytes(), file.file_path)


def several_revisions(h, cache):
    api, commits = h.HfApi(), []
    api.create_repo("writer/many")
    big = os.urandom(LARGE)
    for i in range(3):  # the weights stay those of the first commit, the notes change
        files = {"notes.txt": b"version %d" % i, **({"weights.bin": big, "kept.txt": b"kept"} if i == 0 else {}),
                 **({"extra.bin": os.urandom(1000)} if i == 1 else {}),
                 **({"same.bin": big} if i == 2 else {})}
        changes = [h.CommitOperationAdd(p, d) for p, d in files.items()]
        changes += [h.CommitOperationDelete("extra.bin")] if i == 2 else []
        commits.append(api.create_commit("writer/many", changes, commit_message=f"commit {i}").oid)
        h.snapshot_download("writer/many", revision=commits[i] if i < 2 else "main")
    try:
        h.hf_hub_download("writer/many", "nothing.json", revision=commits[1])
    except h.errors.EntryNotFoundError:
        pass
    folder = cache / "models--writer--many"
    with step("ls: three revisions, each blob counted once"):
        line = next(x for x in mbuyu("ls").splitlines() if x.startswith("writer/many "))
        must("3.00 MB" in line and "main" in line, line)
        said = mbuyu("ls", "writer/many")
        must(all(c in said for c in commits) and said.count("weights.bin") == 3, said)
    with step("rm of one revision: its own blobs go, shared ones stay"):
        blobs = len(list((folder / "blobs").iterdir()))
        extra = revisions(h, "writer/many")[commits[1]]["extra.bin"].resolve()
        must((folder / ".no_exist" / commits[1]).exists(), "the library noted no missing file")
        mbuyu("rm", f"writer/many@{commits[1]}", "--yes")
        left = sorted(b.name for b in (folder / "blobs").iterdir())
        must(not extra.exists() and len(left) == blobs - 2, f"{blobs} blobs, then {left}")
        left = [p for p in folder.rglob("*") if commits[1] in p.name]
        must(not left, f"still of it: {left}")
        sound(h, ["writer/many"])
        must(set(revisions(h, "writer/many")) == {commits[0], commits[2]})
        must((folder / "refs/main").read_text() == commits[2])
    with step("rm of the branch: the first commit is left, whole"):
        mbuyu("rm", "writer/many@main", "--yes")
        sound(h, ["writer/many"])
        must(set(revisions(h, "writer/many")) == {commits[0]} and not (folder / "refs/main").exists())
        got = h.snapshot_download("writer/many", revision=commits[0], local_files_only=True)
        must((pathlib.Path(got) / "weights.bin").read_bytes() == big)
    with step("rm of a revision that is not there"):
        must("no revision" in mbuyu("rm", f"writer/many@{commits[1]}", "--yes", code=2))
    with step("rm of the last revision is rm of all"):
        mbuyu("rm", f"writer/many@{commits[0]}", "--yes")
        must(not folder.exists())
        sound(h, [])


def share(h, cache, repo, name, xet_hash):
    """As the library does after a download by Xet."""
    from huggingface_hub.utils import _shared_blobs
    (commit,) = revisions(h, repo)
    blob = pathlib.Path(os.path.abspath(revisions(h, repo)[commit][name].parent / os.readlink(
        revisions(h, repo)[commit][name])))
    must(_shared_blobs.publish_blob_to_shared_store(blob_path=str(blob), xet_hash=xet_hash, cache_dir=str(cache),
                                                    expected_size=blob.stat().st_size))
    must(blob.is_symlink())
    return _shared_blobs.shared_blob_path(cache, xet_hash)


def shared_contents(h, cache):
    api, big, xet_hash = h.HfApi(), os.urandom(LARGE), "ab" + "0123456789abcdef" * 3 + "01234567890123"
    for repo in ["writer/one", "writer/two"]:
        api.create_repo(repo)
        api.upload_file(repo_id=repo, path_or_fileobj=big, path_in_repo="weights.bin")
        h.snapshot_download(repo)
        stored = share(h, cache, repo, "weights.bin", xet_hash)
    names = ["writer/one", "writer/two"]
    with step("ls of contents that two repositories share: sizes of the files, not of links"):
        lines = [x for x in mbuyu("ls").splitlines() if x.startswith("writer/")]
        must(len(lines) == 2 and all("3.00 MB" in x for x in lines), lines)
        must("missing" not in mbuyu("ls", "writer/one"))
        sound(h, names)
    with step("pull of what is there as a link: nothing is fetched, --check agrees"):
        mbuyu("pull", "writer/one", "--check")
        must(stored.is_file() and h.scan_cache_dir().repos)
        blob = next((cache / "models--writer--one/blobs").iterdir())
        must(any(b.is_symlink() for b in blob.parent.iterdir()))
    with step("a cache with shared contents, served by mbuyu hub"):
        second = clients.Hub(MBUYU, cache, "--store", str(cache.parent / "second-store"))
        got = h.snapshot_download("writer/two", endpoint=second.url, local_dir=cache.parent / "served")
        second.stop()
        must((pathlib.Path(got) / "weights.bin").read_bytes() == big)
    with step("rm of the first: the second still has them"):
        said = mbuyu("rm", "writer/one", "--yes")
        must(re.search(r"removed writer/one, [0-9.]+ k?B", said), said)  # nothing much is freed
        must(stored.is_file())
        sound(h, names[1:])
    with step("rm of the second: the contents go, and the library sees nothing left to sweep"):
        said = mbuyu("rm", "writer/two", "--yes")
        must("3.00 MB" in said, said)
        must(not stored.exists() and not stored.with_name(stored.name + ".refs").exists())
        from huggingface_hub.utils import _shared_blobs
        must(not _shared_blobs.unreferenced_shared_blobs(cache))
        sound(h, [])
    with step("contents whose references are lost stay"):
        api.create_repo("writer/three")
        api.upload_file(repo_id="writer/three", path_or_fileobj=big, path_in_repo="weights.bin")
        h.snapshot_download("writer/three")
        stored = share(h, cache, "writer/three", "weights.bin", xet_hash)
        stored.with_name(stored.name + ".refs").unlink()
        mbuyu("rm", "writer/three", "--yes")
        must(stored.is_file())


def main():
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "hub").mkdir()
        hub = clients.Hub(MBUYU, work / "hub", "--read-write")
        clients.settings(work / "home", hub.url)
        import huggingface_hub as h
        print(f"huggingface_hub {h.__version__}")
        several_revisions(h, work / "home" / "hub")
        shared_contents(h, work / "home" / "hub")
        clients.finish(hub)


main()
