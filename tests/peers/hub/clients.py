"""What the tests of `mbuyu hub` with the hub's own clients share: a server, and what every version of
huggingface_hub must be able to do with it. Loaded by tests/peers/hub*.py; never run alone."""

import contextlib
import hashlib
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

TOKEN = "hub-canary-0123456789"
failures = []
made = 0


def check(what, good, detail=""):
    global made
    made += 1
    print(f"{'ok  ' if good else 'FAIL'} {what} {detail if not good else ''}".rstrip(), flush=True)
    if not good:
        failures.append(what)


@contextlib.contextmanager
def step(what):
    """A step that raises is one failed check, and the next is taken all the same."""
    started = time.time()
    try:
        yield
        check(f"{what} ({time.time() - started:.1f} s)", True)
    except Exception as error:  # whatever a client makes of an answer
        check(what, False, f"{type(error).__name__}: {str(error)[:600]}")


def must(good, why=""):
    if not good:
        raise AssertionError(why)


class Hub:
    """mbuyu hub over a folder, on a port that stays when it is started again."""

    def __init__(self, mbuyu, folder, *options):
        self.mbuyu, self.folder, self.options, self.port = mbuyu, folder, options, 0
        self.log = open(str(folder) + ".log", "ab")
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.mbuyu, "hub", str(self.folder), "--port", str(self.port), *self.options],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | {"MBUYU_HUB_TOKEN": TOKEN, "ASAN_OPTIONS": "detect_leaks=0"})
        for line in self.process.stdout:
            if line.startswith("hub at "):
                self.url = line.split()[2]
                self.port = int(self.url.rsplit(":", 1)[1])
                return
        raise SystemExit("mbuyu hub did not start: "
                         + pathlib.Path(str(self.folder) + ".log").read_text()[-2000:])

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.process.stdout.close()
        return code

    def restart(self, how=signal.SIGTERM):
        self.stop(how)
        self.start()

    def text(self, path):
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return answer.read()


def settings(home, url):
    """Before huggingface_hub is imported, for it reads them once."""
    for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))]:
        del os.environ[name]
    os.environ |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_TOKEN": TOKEN,
                   "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                   "NO_PROXY": "*"}


def noise(n, seed=1):
    """Bytes that do not compress, the same for the same seed."""
    out = io.BytesIO()
    block = hashlib.sha256(str(seed).encode()).digest()
    while out.tell() < n:
        block = hashlib.sha512(block).digest()
        out.write(block * 16 if seed < 0 else block)
    return out.getvalue()[:n]


def same_folder(a, b, names):
    for name in names:
        must((pathlib.Path(a) / name).read_bytes() == (pathlib.Path(b) / name).read_bytes(),
             f"{name} differs")


def plain_folder(folder):
    """A repository as people copy them: small text, a large file, folders."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: sw\ntags:\n- mbuyu\n"
                                      "pipeline_tag: text-generation\n---\n# Jaribio\n")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "weights.bin").write_bytes(noise(3 << 20))
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "sub/deep/na jina refu.txt").write_text("habari\n")
    return ["README.md", "config.json", "weights.bin", "sub/deep/na jina refu.txt"]


def reading(hub, folder, names):
    """What every version asks of a repository that lies in a plain folder."""
    import huggingface_hub as h
    api = h.HfApi()
    with step("snapshot_download"):
        got = h.snapshot_download("acme/plain")
        same_folder(folder, got, names)
    with step("snapshot_download to a folder"):
        got = h.snapshot_download("acme/plain", local_dir=str(folder) + "-local")
        same_folder(folder, got, names)
    with step("hf_hub_download by commit, and of what is not there"):
        sha = api.model_info("acme/plain").sha
        path = h.hf_hub_download("acme/plain", "config.json", revision=sha)
        same_folder(folder, pathlib.Path(path).parent, ["config.json"])
        must(not h.file_exists("acme/plain", "nothing.txt"))
        try:
            h.hf_hub_download("acme/plain", "nothing.txt")
            must(False, "a file that is not there")
        except h.errors.EntryNotFoundError:
            pass
        for name, error in [("acme/none", h.errors.RepositoryNotFoundError)]:
            try:
                api.model_info(name)
                must(False, "a repository that is not there")
            except error:
                pass
        try:
            api.model_info("acme/plain", revision="no-such")
            must(False, "a revision that is not there")
        except h.errors.RevisionNotFoundError:
            pass
    with step("list_models, search, author, paging"):
        must([m.id for m in api.list_models(search="plai")] == ["acme/plain"])
        must("acme/plain" in [m.id for m in api.list_models(author="acme", limit=5, full=True)])
        must([m.id for m in api.list_models(author="acm")] == [])
        must([m.id for m in api.list_models(search="nothing-like-it")] == [])
    with step("model_info with files and card"):
        info = api.model_info("acme/plain", files_metadata=True)
        must({s.rfilename for s in info.siblings} == set(names))
        large = next(s for s in info.siblings if s.rfilename == "weights.bin")
        must(large.size == 3 << 20)
        must(large.lfs["sha256"] == hashlib.sha256((folder / "weights.bin").read_bytes()).hexdigest())
        must(info.pipeline_tag == "text-generation" and info.card_data.license == "apache-2.0")
        must("mbuyu" in info.tags and info.library_name == "transformers")
    with step("list_repo_tree, get_paths_info, refs, commits"):
        tree = list(api.list_repo_tree("acme/plain", recursive=True, expand=True))
        must({t.path for t in tree} == set(names) | {"sub", "sub/deep"})
        must({t.path for t in api.list_repo_tree("acme/plain", "sub")} == {"sub/deep"})
        paths = api.get_paths_info("acme/plain", ["config.json", "sub", "none", names[3]])
        must({p.path for p in paths} == {"config.json", "sub", names[3]})
        must(api.list_repo_refs("acme/plain").branches[0].target_commit == info.sha)
        must(api.list_repo_commits("acme/plain")[0].commit_id == info.sha)
        must(api.repo_exists("acme/plain") and not api.repo_exists("acme/none"))
        api.auth_check("acme/plain")
        must(api.whoami()["name"] == "mbuyu")
    with step("HfFileSystem: ranges"):
        with h.HfFileSystem().open("acme/plain/weights.bin", "rb") as file:
            file.seek(1 << 20)
            must(file.read(1000) == (folder / "weights.bin").read_bytes()[1 << 20:][:1000])


def push(hub, work, name, size=5 << 20, kinds=("model",)):
    """A folder pushed, fetched, changed, pushed again, with restarts between."""
    import huggingface_hub as h
    api = h.HfApi()
    repo, source = f"writer/{name}", work / name
    source.mkdir()
    (source / "README.md").write_text("# Yangu\n")
    (source / "small.json").write_text("{}")
    data = bytearray(noise(size, 7))
    (source / "large.bin").write_bytes(data)
    (source / "sub").mkdir()
    (source / "sub/other.bin").write_bytes(noise(70000, 8))
    names = ["README.md", "small.json", "large.bin", "sub/other.bin"]

    def fetched(round_):
        got = h.snapshot_download(repo, local_dir=work / f"{name}-{round_}", force_download=True)
        same_folder(source, got, names)

    with step(f"{name}: create_repo, upload_folder"):
        url = api.create_repo(repo)
        must(url.repo_id == repo, url)
        api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=source, commit_message="kwanza")
        fetched("first")
    hub.restart(signal.SIGKILL)
    with step(f"{name}: all of it is there after kill -9 and a restart"):
        fetched("again")
        must([c.title for c in api.list_repo_commits(repo)][0] == "kwanza")
    with step(f"{name}: a changed file pushed from the same HF_HOME"):
        data[size // 2:size // 2 + 10] = b"0123456789"
        (source / "large.bin").write_bytes(data)
        before = api.model_info(repo).sha
        api.upload_folder(repo_id=repo, folder_path=source, commit_message="pili")
        must(api.model_info(repo).sha != before)
        fetched("changed")
    with step(f"{name}: nothing changed, no commit"):
        before = api.model_info(repo).sha
        api.upload_folder(repo_id=repo, folder_path=source)
        must(api.model_info(repo).sha == before)
    with step(f"{name}: the old commit still has the old file"):
        old = api.list_repo_commits(repo)[1].commit_id
        path = h.hf_hub_download(repo, "large.bin", revision=old)
        must(pathlib.Path(path).read_bytes() == noise(size, 7))
    with step(f"{name}: branch, tag, delete a file, a pinned parent"):
        sha = api.model_info(repo).sha
        api.create_tag(repo, tag="v1.0")
        api.create_branch(repo, branch="jaribio/moja")
        api.upload_file(repo_id=repo, path_or_fileobj=b"tawi", path_in_repo="tawi.txt",
                        revision="jaribio/moja")
        must(api.file_exists(repo, "tawi.txt", revision="jaribio/moja"))
        must(not api.file_exists(repo, "tawi.txt"))
        api.delete_file("small.json", repo)
        must(not api.file_exists(repo, "small.json") and api.file_exists(repo, "small.json", revision="v1.0"))
        try:
            api.upload_file(repo_id=repo, path_or_fileobj=b"x", path_in_repo="x", parent_commit=sha)
            must(False, "a commit after one that is not the last")
        except h.errors.HfHubHTTPError as error:
            must(error.response.status_code == 412, error)
        must({b.name for b in api.list_repo_refs(repo).branches} == {"main", "jaribio/moja"})
        api.delete_branch(repo, branch="jaribio/moja")
        api.delete_tag(repo, tag="v1.0")
    with step(f"{name}: the folder beside the store follows"):
        folder = pathlib.Path(hub.folder) / "models" / repo
        same_folder(source, folder, ["README.md", "large.bin", "sub/other.bin"])
        must(not (folder / "small.json").exists())
    with step(f"{name}: moved, deleted"):
        api.move_repo(repo, f"writer/{name}-2")
        must(api.file_exists(f"writer/{name}-2", "large.bin") and not api.repo_exists(repo))
        api.delete_repo(f"writer/{name}-2")
        must(not api.repo_exists(f"writer/{name}-2"))
    with step(f"{name}: without the token nothing is written"):
        try:
            h.HfApi(token="hf_wrong").upload_file(repo_id="acme/plain", path_or_fileobj=b"x",
                                                  path_in_repo="x.txt")
            must(False, "it was written")
        except h.errors.HfHubHTTPError as error:
            must(error.response.status_code == 401, error)


def finish(hub):
    log = pathlib.Path(str(hub.folder) + ".log").read_text()
    check("the token is in no line the hub wrote", TOKEN not in log)
    code = hub.stop()
    check("mbuyu hub ends well at SIGTERM", code == 0, f"exit code {code}\n{log[-1500:]}")
    print(f"{made} checks, {len(failures)} failed")
    sys.exit(1 if failures else 0)
