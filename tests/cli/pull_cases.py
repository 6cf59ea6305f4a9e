"""mbuyu pull over a link that breaks: one case a row of a table, run by test_pull.sh.

    pull_cases.py MBUYU [NAME...]

A case says what the hub does (tests/cli/fake_hub.py) and what must come of it: the right bytes, with
at most so many sent, or an exit code and one sentence. Whatever it is, the token is in no output and
no file, and reaches the hub's own origin only; nothing is published that is not right.
"""
import concurrent.futures
import hashlib
import os
import pathlib
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fake_hub import FakeHub, git_sha1, is_lfs  # noqa: E402

MBUYU = sys.argv[1]
LONG = os.environ.get("MB_LONG", "0") not in ("", "0")
CANARY = "hf_canary0123456789abcdef"
MB = 1000 * 1000
RANGE = 8 << 20


def noise(size, seed=b"1"):
    return hashlib.shake_256(seed + b"%d" % size).digest(size)


FILES = {
    "config.json": b'{"model_type": "none"}\n',
    "model.safetensors": noise(6 * MB),
    "sub/dir/notes one.txt": b"caf\xc3\xa9\n" * 50,
    "empty.txt": b"",
}
SIZE = sum(len(d) for d in FILES.values())
SMALL = {"config.json": FILES["config.json"], "model.safetensors": noise(300_000)}
TWINS = {"a.safetensors": noise(300_000), "b/c.safetensors": noise(300_000)}
LARGE = {"model.safetensors": noise(3 * RANGE + 1000)}
QUICK = ["--pause", "0.05", "--timeout", "20", "--retries", "4"]  # the machine may be busy

OK = 0
BAD, NET, DENIED, WRONG_NAME, USAGE, DISK = 3, 69, 77, 2, 2, 7

# name, the hub's faults, exit code, what the sentence says; in a dict: files=, most= (bytes of bodies
# sent), requests= (at most, of all kinds), args=, env=, name=, warns= (on stderr)
CASES = [
    ("plain", {}, OK, "", dict(most=SIZE, requests=2 + 3)),
    ("revision", {}, OK, "", dict(name="org/name@v1")),
    ("cut once at 1 MB", dict(cut_once=[MB]), OK, "", dict(most=1.03 * SIZE)),
    ("reset once at 1 MB", dict(cut_once=[MB], reset=True, settle=0.05), OK, "", dict(most=1.03 * SIZE)),
    ("reset at once", dict(cut_once=[MB], reset=True), OK, "", dict(most=1.5 * SIZE)),
    ("cut once at the CDN", dict(cut_once=[MB], redirect="cdn"), OK, "", dict(most=1.03 * SIZE)),
    ("cut every 200 kB", dict(cut_every=200_000), OK, "", dict(most=6.5 * MB)),
    ("reset every 200 kB", dict(cut_every=200_000, reset=True, settle=0.03), OK, "", dict(most=9 * MB)),
    ("cut every 200 kB, large", dict(cut_every=200_000), OK, "", dict(files=LARGE, most=26 * MB)),
    ("cut every 200 kB, no length", dict(cut_every=200_000, nolength=True), OK, "", dict(most=6.5 * MB)),
    ("cut every 200 kB, chunked", dict(cut_every=200_000, chunked=True), OK, "", dict(most=6.5 * MB)),
    ("cut and every second dropped", dict(cut_every=900_000, drop=[1, 0] * 20), OK, "", dict(most=6.5 * MB)),
    ("nothing ever comes", dict(drop=True), NET, r"tried 5 times: .*cut after 0 bytes.*are here and kept", {}),
    ("no hub at all", dict(gone=True), NET, "tried 5 times: .*cannot be reached", {}),
    ("no such host", dict(endpoint="https://hub.invalid"), NET, "is not known here", {}),
    ("listing dropped", dict(api_drop=True), NET, "tried 5 times", {}),
    ("stall once", dict(stall_once=[MB]), OK, "", dict(most=1.03 * SIZE, args=["--timeout", "2"])),
    ("stall every 2 MB", dict(stall_every=2 * MB), OK, "", dict(most=1.03 * SIZE, args=["--timeout", "2"])),
    ("stall at once, always", dict(stall_every=1), OK, "",
     dict(files={"model.safetensors": noise(3)}, args=["--timeout", "1"])),
    ("chunked", dict(chunked=True), OK, "", dict(most=SIZE)),
    ("no length", dict(nolength=True), OK, "", dict(most=SIZE)),
    ("short by a byte", dict(short=True), BAD, r"has 5999999 bytes, the listing says 6000000",
     dict(files={"model.safetensors": FILES["model.safetensors"]}, most=6 * MB, requests=4)),
    ("short by a byte, no length", dict(short=True, nolength=True), BAD, "has 5999999 bytes, the listing says 6000000",
     dict(files={"model.safetensors": FILES["model.safetensors"]}, most=6 * MB)),
    ("short by a byte, once", dict(short=[1], nolength=True), OK, "", dict(files=SMALL)),
    ("long", dict(long=1000), BAD, r"has \d+ bytes, the listing says", dict(files=SMALL)),
    ("endless", dict(endless=True), OK, "", dict(files=SMALL, most=20 * MB)),
    ("one bit, once", dict(flip=[1]), OK, "", dict(files=SMALL, most=700_000, warns="fetched once more")),
    ("one bit, always", dict(flip=True), BAD, r"fetched twice, .*digest is [0-9a-f]{40,64}, the listing says [0-9a-f]{40,64}",
     dict(files=SMALL)),
    ("one bit, always, 6 MB", dict(flip=True), BAD, "fetched twice",
     dict(files={"model.safetensors": FILES["model.safetensors"]}, most=13 * MB)),
    ("zeros", dict(zeros=True), BAD, "fetched twice", dict(files=SMALL)),
    ("garbage", dict(garbage=True), BAD, "fetched twice", dict(files=SMALL)),
    ("429 with RateLimit", dict(status=[(429, None, {"RateLimit": '"resolvers";r=0;t=1'})]), OK, "",
     dict(files=SMALL, least_seconds=2)),
    ("429 with Retry-After", dict(status=[(429, None, {"Retry-After": "1"})]), OK, "",
     dict(files=SMALL, least_seconds=1)),
    ("429 for an hour", dict(status=(429, None, {"Retry-After": "3600"})), NET, "asked to wait for 3600 seconds",
     dict(files=SMALL)),
    ("429 of the listing", dict(api_status=[(429, None, {"Retry-After": "1"})]), OK, "", dict(files=SMALL)),
    ("503 with Retry-After", dict(status=[(503, None, {"Retry-After": "1"})]), OK, "", dict(files=SMALL)),
    ("500 three times", dict(status=[(500,)] * 3), OK, "", dict(files=SMALL)),
    ("500 of the listing", dict(api_status=[(500,)] * 3), OK, "", dict(files=SMALL)),
    ("502 always", dict(status=(502,)), NET, "tried 5 times: .*answered 502, a failure of its own", dict(files=SMALL)),
    ("408", dict(status=[(408,)]), OK, "", dict(files=SMALL)),
    ("401", dict(api_status=(401,)), DENIED, "a token is wanted", dict(requests=1)),
    ("401 RepoNotFound", dict(api_status=(401, "RepoNotFound")), WRONG_NAME, "no such repository, or it is private",
     dict(requests=1)),
    ("403 gated", dict(api_status=(403, "GatedRepo")), DENIED, "gated: accept its terms", dict(requests=1)),
    ("403 of a file", dict(status=(403,)), DENIED, "no right to this", dict(files=SMALL, args=["--jobs", "1"], requests=3)),
    ("404 RevisionNotFound", {}, WRONG_NAME, "no such revision", dict(name="org/name@nothing", requests=1)),
    ("404 of a file", dict(status=(404, "EntryNotFound")), WRONG_NAME, "no such file",
     dict(files=SMALL, args=["--jobs", "1"], requests=3)),
    ("a token is wanted and there", dict(wants_token=CANARY), OK, "", dict(files=SMALL)),
    ("a token is wanted and wrong", dict(wants_token="hf_other"), WRONG_NAME, "or it is private", {}),
    ("redirect to the CDN", dict(redirect="cdn"), OK, "", {}),
    ("redirect, relative", dict(redirect="relative"), OK, "", {}),
    ("redirect to another host", dict(redirect="other"), BAD, "has 14 bytes, the listing says", dict(files=SMALL)),
    ("redirect in a circle", dict(redirect="loop"), NET, "redirects in a circle", dict(files=SMALL, requests=20)),
    ("redirects without end", dict(redirect="long"), NET, "more than 10 redirects", dict(files=SMALL, requests=30)),
    ("redirect to another scheme", dict(redirect="scheme"), WRONG_NAME, "no address that begins with https", dict(files=SMALL)),
    ("redirect to nowhere", dict(redirect="nowhere"), NET, "without saying where", dict(files=SMALL)),
    ("signed address expired", dict(redirect="cdn", status={"cdn": [(403,), (403,)]}), OK, "", dict(files=SMALL)),
    ("signed address always expired", dict(redirect="cdn", status={"cdn": (403,)}), DENIED, "address has expired",
     dict(files=SMALL)),
    ("main moves after the listing", dict(newcommit=True), OK, "", {}),
    ("main moves, and a cut", dict(newcommit=True, cut_every=2 * MB), OK, "", {}),
    ("gzip", dict(gzip=True, chunked=True), OK, "", dict(files=SMALL)),
    ("gzip of the listing", dict(json_gzip=True), OK, "", {}),
    ("gzip and cuts", dict(gzip=True, chunked=True, cut_once=[100_000]), OK, "", dict(files=SMALL)),
    ("ranges ignored", dict(cut_once=[MB], norange=True), OK, "", dict(most=7.1 * MB)),
    ("another range", dict(cut_once=[MB], badrange="zero"), OK, "", dict(most=7.1 * MB)),
    ("a later range", dict(cut_once=[MB], badrange="late"), OK, "", dict(most=14 * MB)),
    ("no Content-Range", dict(cut_once=[MB], badrange="none"), OK, "", dict(most=14 * MB)),
    ("a range that is none", dict(cut_once=[MB], badrange="text"), OK, "", dict(most=14 * MB)),
    ("a range that lies", dict(cut_once=[MB], lierange=[1]), OK, "", dict(most=13 * MB, warns="fetched once more")),
    ("416", dict(cut_once=[MB], r416=True), OK, "", dict(most=7.1 * MB)),
    ("login page for files", dict(page_files=True), BAD, "login page", dict(files=SMALL)),
    ("login page for the listing", dict(api_page=True), BAD, "login page", {}),
    ("login page for all", dict(page_all=True), BAD, "login page", {}),
    ("bad JSON", dict(json=b"{nonsense"), BAD, "org/name", {}),
    ("JSON of another kind", dict(json=b"[1, 2]"), BAD, "org/name", {}),
    ("half of the JSON", dict(json_cut=20), BAD, "org/name", {}),
    ("endless JSON", dict(json_endless=True), BAD, "more than 67108864 bytes", {}),
    ("a commit that is none", dict(sha="../../../etc"), BAD, "no commit", {}),
    ("no headers", dict(nohdr=True), OK, "", {}),
    ("headers without end", dict(heads=100), NET, "of headers", dict(files=SMALL)),
    ("pages", dict(page=1), OK, "", {}),
    ("pages in a circle", dict(page=1, page_circle=True), BAD, "in a circle|twice", {}),
    ("name: ../../evil", dict(evil=["../../evil"]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: /tmp/evil", dict(evil=["/tmp/evil"]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: a/../b", dict(evil=["a/../b"]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: a//b", dict(evil=["a//b"]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: empty", dict(evil=[""]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: backslash", dict(evil=["..\\evil"]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: newline", dict(evil=["a\nb"]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: .git/hooks", dict(evil=[".git/hooks/post-checkout"]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: long", dict(evil=["x" * 300]), BAD, "nothing of this repository is fetched", dict(most=0)),
    ("name: twice", dict(evil=["config.json"]), BAD, "twice", dict(most=0)),
    ("name: file and folder", dict(evil=["config.json/x"]), BAD, "as a file and as a folder", dict(most=0)),
    ("name: of a folder", dict(evil=[{"path": "../x", "type": "directory"}]), BAD, "nothing of this", dict(most=0)),
    ("name: ours, in a folder", dict(evil=[".cache/mbuyu/x"]), BAD, "mbuyu's own", dict(most=0, args=["--to", "DIR"])),
    ("digest that is none", dict(evil=[{"path": "x", "oid": "../../x"}]), BAD, "no digest", dict(most=0)),
    ("size below nothing", dict(evil=[{"path": "x", "size": -5}]), BAD, "size", dict(most=0)),
    ("more than the disk", dict(evil=[{"path": "x", "size": 1 << 49}]), DISK, "are free", dict(most=0)),
    ("a mirror instead", dict(mirror={}, drop=True), OK, "", dict(files=SMALL)),
    ("a mirror whose bytes are wrong", dict(mirror=dict(flip=True), drop=[1] * 8), OK, "",
     dict(files=SMALL, warns="fetched once more")),
    ("a mirror for the listing", dict(mirror={}, api_drop=True), OK, "", dict(files=SMALL, warns="that of the mirror")),
    ("to a folder", dict(cut_every=MB), OK, "", dict(args=["--to", "DIR"])),
    ("the same bytes twice", {}, OK, "", dict(files=TWINS, most=300_000, requests=3)),
    ("the same bytes twice, to a folder", {}, OK, "", dict(files=TWINS, most=300_000, args=["--to", "DIR"])),
    ("odd names", {}, OK, "", dict(files={"a b/é#?%41&+;=.safetensors": noise(1000), "-x": b"y"})),
    ("a page that is a file", {}, OK, "", dict(files={"index.html": b"<!DOCTYPE html><html></html>"})),
    ("some files", {}, OK, "", dict(args=["--include", "*.json", "--include", "sub/", "--exclude", "e*"],
                                   only=["config.json", "sub/dir/notes one.txt"], requests=4)),
    ("one file", {}, OK, "", dict(name="org/name/config.json", only=["config.json"], requests=3)),
    ("no file", {}, USAGE, "none of its 4 files", dict(args=["--include", "*.gguf"])),
    ("a dataset", {}, OK, "", dict(name="dataset:org/name")),
    ("a limited rate", {}, OK, "", dict(args=["--limit-rate", "3MB"], least_seconds=1.5)),
    ("an option that is none", {}, USAGE, "no option --nonsense", dict(args=["--nonsense"], requests=0)),
    ("a name that is none", {}, USAGE, "no name on a hub", dict(name="org/../name", requests=0)),
    ("a revision that is none", {}, USAGE, "no revision", dict(name="org/name@../x", requests=0)),
    ("hours that are none", {}, USAGE, "--at", dict(args=["--at", "25:00-06:00"], requests=0)),
    ("offline", {}, NET, "offline", dict(args=["--offline"], requests=0)),
    ("offline by environment", {}, NET, "offline", dict(env={"HF_HUB_OFFLINE": "1"}, requests=0)),
    ("dry run", {}, OK, "", dict(args=["--dry-run"], only=[], requests=2, says=r"6\.00 MB  model\.safetensors")),
    ("a folder without rights", dict(), DISK, "", dict(env={"HF_HUB_CACHE": "/proc/nothing"})),
]


def environment(work, hub, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))
           and not k.lower().endswith("_proxy")}
    env.update(HF_ENDPOINT=hub, HF_HOME=str(work / "home"), HF_TOKEN=CANARY, MBUYU_LOG="debug",
               ASAN_OPTIONS="detect_leaks=1", **more)
    return env


def files_below(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def wrong_bytes(work, folder, wanted, to_folder):
    """What is in the folder against what must be; then what a cache must look like."""
    there = {p: f.read_bytes() for p, f in files_below(folder).items() if not p.startswith(".cache/")}
    if there.keys() != wanted.keys():
        return f"files {sorted(there)} instead of {sorted(wanted)}"
    for path, data in wanted.items():
        if there[path] != data:
            return f"{path} has wrong bytes"
        link = folder / path
        if not to_folder and (not link.is_symlink() or os.path.isabs(os.readlink(link))):
            return f"{path} is no relative link"
    if not to_folder:
        for blob in (folder.parent.parent / "blobs").iterdir():
            data = blob.read_bytes()
            if blob.name not in (git_sha1(data), hashlib.sha256(data).hexdigest()):
                return f"blob {blob.name} is not what it is called"
    left = [p for p in files_below(work) if p.endswith((".part", ".mbuyu.json", ".lock", ".tmp"))]
    return f"left over: {left}" if left else None


def published(work):
    """Files under a final name whose bytes are not right."""
    for blobs in work.rglob("blobs"):
        for blob in blobs.iterdir():
            if len(blob.name) in (40, 64):
                data = blob.read_bytes()
                if blob.name not in (git_sha1(data), hashlib.sha256(data).hexdigest()):
                    return f"published: {blob.name}"
    for refs in work.rglob("refs"):
        if any(refs.rglob("*")):
            return "a branch is named though the pull failed"
    return None


def leaks(work, output, hubs):
    if CANARY in output or CANARY[:14] in output:
        return "the token is in the output"
    for path in work.rglob("*"):
        if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes():
            return f"the token is in {path}"
    for hub in hubs:
        for origin, method, path, heads in hub.requests:
            home = origin == "hub" and hub is hubs[0]
            if not home and any(CANARY in v for v in heads.values()):
                return f"the token went to {origin}"
            if CANARY in path:
                return "the token is in an address"
            if home and heads.get("Authorization") != f"Bearer {CANARY}":
                return "a request to the hub without the token"
    return None


def pull(work, hub_url, name="org/name", args=(), env=None, timeout=120, **more):
    args = [str(work / "to") if a == "DIR" else a for a in args]
    return subprocess.run([MBUYU, "pull", name, *QUICK, *args], capture_output=True, text=True,
                          env={**environment(work, hub_url), **(env or {})}, timeout=timeout,
                          errors="replace")


def judge(work, case, hubs, done, seconds):
    name, faults, code, sentence, more = case
    files, output = more.get("files", FILES), done.stdout + done.stderr
    if "Sanitizer" in output or "runtime error:" in output:
        return "a sanitizer's report"
    if done.returncode != code:
        return f"exit code {done.returncode} instead of {code}"
    said = [line for line in done.stderr.splitlines() if line.startswith("mbuyu: ")
            and not line.startswith(("mbuyu: warn", "mbuyu: debug"))]
    if len(said) != (code != 0):
        return f"{len(said)} sentences"
    if code and (not re.search(sentence, said[0]) or len(said[0]) > 1200):
        return f"no '{sentence}' in the sentence"
    for key, text in (("warns", done.stderr), ("says", done.stdout)):
        if key in more and not re.search(more[key], text):
            return f"no '{more[key]}'"
    if problem := leaks(work, output, hubs):
        return problem
    sent = sum(h.sent for h in hubs)
    if "most" in more and sent > more["most"]:
        return f"{sent} bytes sent"
    n = sum(len(h.requests) for h in hubs)
    if "requests" in more and n > more["requests"]:
        return f"{n} requests"
    if seconds < more.get("least_seconds", 0):
        return f"after {seconds:.1f} s already"
    if code:
        return published(work)
    wanted = {p: d for p, d in files.items() if p in more.get("only", files)}
    if not wanted:
        return f"a dry run wrote {list(work.rglob('*'))}" if any(work.rglob("*")) else None
    to_folder = "--to" in more.get("args", ())
    folder = pathlib.Path(done.stdout.strip())
    if not to_folder and folder.name != hubs[0].sha:
        return f"{folder} is no snapshot"
    ref = folder.parent.parent / "refs" / more.get("name", "@main").rpartition("@")[2].replace(
        more.get("name", "-"), "main")
    if not to_folder and ref.read_text() != hubs[0].sha:
        return "no branch"
    return wrong_bytes(work, folder, wanted, to_folder)


def run_case(case):
    name, faults, code, sentence, more = case
    faults = dict(faults)
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    mirror, endpoint = faults.pop("mirror", None), faults.pop("endpoint", None)
    gone = faults.pop("gone", False)
    files = more.get("files", FILES)
    hubs = [FakeHub(files, **faults)] + ([FakeHub(files, **mirror)] if mirror is not None else [])
    args = list(more.get("args", ()))
    if mirror is not None:
        args += ["--mirror", hubs[1].url]
    if gone:
        hubs[0].close()
    begun = time.monotonic()
    try:
        done = pull(work, endpoint or hubs[0].url, more.get("name", "org/name"), args, more.get("env"))
        problem = judge(work, case, hubs, done, time.monotonic() - begun)
        told = done.stderr
    except subprocess.TimeoutExpired:
        problem, told = "no end within two minutes", ""
    finally:
        if not gone:
            hubs[0].close()
        for hub in hubs[1:]:
            hub.close()
    shutil.rmtree(work, ignore_errors=True)
    return name, problem, told, sum(h.sent for h in hubs), sum(len(h.requests) for h in hubs)


# --- what takes more than one process -----------------------------------------------------------
def wait_until(true, what, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.02)


def read_until(pipe, text):
    """What a process writes into the pipe (not buffered), as far as the text."""
    said = b""
    while not said.endswith(text.encode()):
        byte = pipe.read(1)
        if not byte:
            break
        said += byte
    return said.decode()


def killed(moment, seed):
    """Killed after `moment` seconds, run again."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(LARGE if seed % 2 else FILES, pace=(20 if seed % 2 else 6) * MB)
    size = sum(len(d) for d in hub.commits[hub.sha].values())
    problem = None
    try:
        process = subprocess.Popen([MBUYU, "pull", "org/name", *QUICK], env=environment(work, hub.url),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        problem = published(work)
        done = pull(work, hub.url)
        if done.returncode:
            problem = done.stderr
        problem = problem or wrong_bytes(work, pathlib.Path(done.stdout.strip()),
                                         hub.commits[hub.sha], False)
        if hub.sent > size + 2 * MB:  # what was in the sockets of a busy machine is lost
            problem = problem or f"{hub.sent} bytes sent for {size}"
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return f"killed after {moment:.2f} s", problem, "", hub.sent, len(hub.requests)


def interrupted_by_power():
    """What the disk holds after a power cut: another boot, and a tail that is not what was written."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    first = FakeHub(LARGE, cut_once=[RANGE + 3 * MB], drop=[0] + [1] * 50)
    problem = None
    try:
        pull(work, first.url, args=["--retries", "1"])
        part, state = next(work.rglob("*.part")), next(work.rglob("*.mbuyu.json"))
        text = state.read_text()
        if '"boot":"' not in text:
            problem = "no boot in the state"
        state.write_text(re.sub(r'"boot":"[^"]*"', '"boot":"another"', text))
        with open(part, "r+b") as f:
            f.seek(RANGE + 100)
            f.write(bytes(1000))
            f.seek(0, 2)
            f.write(bytes(50_000))
        first.close()
        second = FakeHub(LARGE)
        done = pull(work, second.url)
        problem = problem or (done.stderr if done.returncode else None) or \
            wrong_bytes(work, pathlib.Path(done.stdout.strip()), LARGE, False)
        want = len(LARGE["model.safetensors"]) - RANGE
        if second.sent != want:
            problem = problem or f"{second.sent} bytes sent, {want} were missing"
        second.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return "power cut, a torn tail", problem, "", second.sent, len(second.requests)


def damaged_range():
    """A flipped bit on the disk in a range that is vouched for: fetched from there."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(LARGE, cut_once=[2 * RANGE + MB], drop=[0] + [1] * 2)
    problem = None
    try:
        pull(work, hub.url, args=["--retries", "0"])
        with open(next(work.rglob("*.part")), "r+b") as f:
            f.seek(RANGE + 5)
            byte = f.read(1)
            f.seek(RANGE + 5)
            f.write(bytes([byte[0] ^ 1]))
        before = hub.sent
        done = pull(work, hub.url)
        problem = (done.stderr if done.returncode else None) or \
            wrong_bytes(work, pathlib.Path(done.stdout.strip()), LARGE, False)
        if hub.sent - before != len(LARGE["model.safetensors"]) - RANGE:
            problem = problem or f"{hub.sent - before} bytes sent"
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "a bit flipped on the disk", problem, "", hub.sent, len(hub.requests)


def two_at_once():
    """Two processes, one repository: each byte comes once."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(FILES, pace=6 * MB)
    problem = None
    try:
        both = [subprocess.Popen([MBUYU, "pull", "org/name", *QUICK], env=environment(work, hub.url),
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                for _ in range(2)]
        told = [p.communicate(timeout=60) for p in both]
        if any(p.returncode for p in both):
            problem = str(told)
        elif hub.sent != len(FILES["model.safetensors"]):
            problem = f"{hub.sent} bytes sent"
        elif not any("waiting for process" in err for _, err in told):
            problem = "none says that it waits"
        else:
            problem = wrong_bytes(work, pathlib.Path(told[0][0].strip()), FILES, False)
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "two at once", problem, "", hub.sent, len(hub.requests)


def again():
    """A second pull of what is here: two requests. With --check a wrong file is found and replaced."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(FILES)
    problem = None
    try:
        pull(work, hub.url)
        n, sent = len(hub.requests), hub.sent
        done = pull(work, hub.url)
        if done.returncode or len(hub.requests) - n != 2 or hub.sent != sent:
            problem = f"{len(hub.requests) - n} requests"
        folder = pathlib.Path(done.stdout.strip())
        blob = (folder / "model.safetensors").resolve()
        data = bytearray(blob.read_bytes())
        data[77] ^= 1
        blob.write_bytes(data)
        done = pull(work, hub.url, args=["--check"])
        problem = problem or wrong_bytes(work, folder, FILES, False)
        off = pull(work, "http://127.0.0.1:1", args=["--offline"])
        if off.stdout != done.stdout:
            problem = problem or f"offline: {off}"
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "again, --check, offline", problem, "", hub.sent, len(hub.requests)


def through_a_proxy():
    """Names that only the proxy knows; a token is not given to it."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(SMALL)
    try:
        done = pull(work, "http://hub.invalid", env={"http_proxy": hub.url, "HF_TOKEN": ""})
        problem = (done.stderr if done.returncode else None) or \
            wrong_bytes(work, pathlib.Path(done.stdout.strip()), SMALL, False)
        n = len(hub.requests)
        done = pull(work, "http://hub.invalid", env={"http_proxy": hub.url})
        if done.returncode != NET or len(hub.requests) != n:
            problem = problem or "a token in plain words through a proxy"
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "through a proxy", problem, "", hub.sent, len(hub.requests)


def encrypted():
    """https: certificates are checked, nothing leads from it to http."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    tls, problem = (str(work / "cert"), str(work / "key")), None
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", tls[1], "-out", tls[0]], check=True, capture_output=True)
    good, plain = FakeHub(SMALL, tls=tls, redirect="cdn", cut_once=[100_000]), \
        FakeHub(SMALL, tls=tls, redirect="plain")
    trust = {"SSL_CERT_FILE": tls[0]}
    try:
        done = pull(work, good.url)
        if done.returncode != NET or "is not one to trust" not in done.stderr or good.requests:
            problem = f"a certificate nobody knows: {done.stderr}"
        done = pull(work, good.url, env=trust)
        problem = problem or (done.stderr if done.returncode else None) or \
            wrong_bytes(work / "home", pathlib.Path(done.stdout.strip()), SMALL, False) or \
            leaks(work, done.stdout + done.stderr, [good])
        done = pull(work, plain.url, args=["--to", str(work / "to")], env=trust)
        if done.returncode != NET or "to what is not encrypted" not in done.stderr:
            problem = problem or f"from https to http: {done.stderr}"
        problem = problem or leaks(work, done.stdout + done.stderr, [plain])
    finally:
        good.close()
        plain.close()
        shutil.rmtree(work, ignore_errors=True)
    return "https", problem, "", good.sent, len(good.requests)


def without_links():
    """File systems that know no links get files; another machine's lock is waited for."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(FILES)
    try:
        done = pull(work, hub.url, env={"HF_HUB_DISABLE_SYMLINKS": "1"})
        problem, folder = done.stderr if done.returncode else None, pathlib.Path(done.stdout.strip())
        there = {p: f.read_bytes() for p, f in files_below(folder).items() if not f.is_symlink()}
        if there != FILES:
            problem = problem or f"{sorted(there)}"
        lock = work / "home" / "hub" / ".locks" / "models--org--name" / "mbuyu.lock"
        lock.write_text("elsewhere/x/y 1 1")
        late = subprocess.Popen([MBUYU, "pull", "org/name", *QUICK], env=environment(work, hub.url),
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)
        told = read_until(late.stderr, "waiting for process 1 on elsewhere")
        time.sleep(1.5)
        if late.poll() is not None:
            problem = problem or "a lock of another machine was taken at once"
        lock.unlink()
        told += late.communicate(timeout=60)[1].decode()
        if late.returncode or "waiting for process 1 on elsewhere" not in told:
            problem = problem or f"after the lock was given back: {told}"
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "without links; another's lock", problem, "", hub.sent, len(hub.requests)


def taken_over():
    """A process sleeps, another takes its lock over and goes on with what is here; then it wakes up."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(LARGE, pace=6 * MB)
    hub.commits[hub.sha] = {**LARGE, "config.json": FILES["config.json"]}
    problem, both = None, []

    def start(**env):
        both.append(subprocess.Popen([MBUYU, "pull", "org/name", *QUICK], stdout=subprocess.PIPE, text=True,
                                     env=environment(work, hub.url, **env), stderr=subprocess.PIPE))
        return both[-1]

    try:
        sleeper = start()
        wait_until(lambda: any(p.stat().st_size > 3 * MB for p in work.rglob("*.part")), "no part")
        sleeper.send_signal(signal.SIGSTOP)
        part = next(work.rglob("*.part"))
        kept, inode, lock = part.stat().st_size, part.stat().st_ino, next(work.rglob("mbuyu.lock"))
        lock.write_text("elsewhere/x/y 1 1")  # as another machine's, which cannot be seen and beats no more
        late = start(MBUYU_LOCK_SECONDS="1")
        wait_until(lambda: part.exists() and part.stat().st_ino != inode and part.stat().st_size > kept,
                   "it was not taken over")
        sleeper.send_signal(signal.SIGCONT)
        told = [p.communicate(timeout=100) for p in both]
        if sleeper.returncode != DISK or "another process's now" not in told[0][1]:
            problem = f"who slept: {sleeper.returncode} {told[0]}"
        elif late.returncode:
            problem = f"who took over: {late.returncode} {told[1]}"
        else:
            problem = wrong_bytes(work, pathlib.Path(told[1][0].strip()), hub.commits[hub.sha], False)
    except AssertionError as e:
        problem = str(e)
    finally:
        for process in both:
            process.kill()
            process.communicate()
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "taken over from one who slept", problem, "", hub.sent, len(hub.requests)


def asked_rm(env, answers, between=None):
    """mbuyu rm of a person at a terminal: (exit code, what it said); `between` runs while it asks first."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([MBUYU, "rm", "org/name"], env=env, stdin=theirs, bufsize=0,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(theirs)
    asked = read_until(process.stderr, "[y/N] ")
    if between:
        between()
    os.write(ours, "".join(f"{a}\n" for a in answers).encode())
    out, err = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, out.decode() + asked + err.decode()


def removed():
    """rm asks without the lock, and again when what it asked about has changed; it waits for a pull, and
    who waits for it finds all it needs."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(FILES, pace=6 * MB)
    locks, problem, told = work / "home" / "hub" / ".locks" / "models--org--name", None, []
    env = environment(work, hub.url)
    env["MBUYU_LOG"] = "info"
    try:
        pull(work, hub.url, args=["--include", "config.json"])
        code, said = asked_rm(env, "yn", lambda: told.append(pull(work, hub.url)))
        full = told[0]
        if full.returncode or "waiting" in full.stderr:
            problem = f"a pull while rm asks: {full}"
        elif code != USAGE or said.count("remove org/name, ") != 2 or "nothing was removed" not in said:
            problem = f"rm of what grew while it asked: {code} {said}"
        problem = problem or wrong_bytes(work, pathlib.Path(full.stdout.strip()), FILES, False)
        (locks / "other.lock").touch()
        code, said = asked_rm(env, "y")
        if code or said.count("remove org/name, ") != 1 or (work / "home/hub/models--org--name").exists():
            problem = problem or f"rm: {code} {said}"
        if [p.name for p in locks.iterdir()] != ["other.lock"]:
            problem = problem or "a lock of others was removed"
        (locks / "other.lock").unlink()
        verbs = [["pull", "org/name", *QUICK], ["rm", "org/name", "--yes"], ["pull", "org/name", *QUICK],
                 ["pull", "org/name", *QUICK]]
        all_of_them = []
        for verb in verbs:
            all_of_them.append(subprocess.Popen([MBUYU, *verb], env=env, stdout=subprocess.PIPE,
                                                stderr=subprocess.PIPE, text=True))
            if len(all_of_them) == 1:
                wait_until(lambda: list((work / "home" / "hub").glob("models*")), "nothing was pulled")
            time.sleep(0.4)
        told = [p.communicate(timeout=100) for p in all_of_them]
        if any(p.returncode for p in all_of_them):
            problem = problem or f"pull, rm and two more pulls: {told}"
        done = pull(work, hub.url)
        problem = problem or wrong_bytes(work, pathlib.Path(done.stdout.strip()), FILES, False)
        last = subprocess.run([MBUYU, "rm", "org/name", "--yes"], env=env, capture_output=True, text=True)
        if last.returncode or locks.exists() or list((work / "home" / "hub").glob("models*")):
            problem = problem or f"rm left something: {last}"
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "rm, asked and under pulls", problem, "", hub.sent, len(hub.requests)


def spoilt(seed):
    """Answers with bytes that became others: a documented end, and nothing wrong is published."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub({**SMALL, "model.safetensors": noise(3000), "a/b.json": b"{}"}, spoil=seed, page=2,
                  redirect=[None, "cdn", "relative"][seed % 3])
    problem = None
    try:
        done = pull(work, hub.url, args=["--retries", "1", "--jobs", "1"], env={"MBUYU_LOG": "error"})
        if done.returncode not in (OK, USAGE, BAD, NET, DENIED, DISK) or "Sanitizer" in done.stderr or \
                len(done.stderr.splitlines()) != (done.returncode != OK):
            problem = f"exit code {done.returncode}: {done.stderr}"
        for blobs in work.rglob("blobs"):
            for blob in blobs.iterdir():
                data = blob.read_bytes()
                if len(blob.name) in (40, 64) and \
                        blob.name not in (git_sha1(data), hashlib.sha256(data).hexdigest()):
                    problem = problem or f"published: {blob.name}"
        outside = [p for p in files_below(work) if not p.startswith("home/hub/")]
        if outside:
            problem = problem or f"outside the cache: {outside}"
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return f"spoilt answers, {seed}", problem, "", hub.sent, len(hub.requests)


def hours():
    """Outside its hours nothing is asked for; inside they do not matter."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mb_pull_"))
    hub = FakeHub(SMALL)
    now, problem = time.localtime(), None
    at = now.tm_hour * 60 + now.tm_min

    def clock(minutes):
        return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"

    try:
        closed = subprocess.Popen([MBUYU, "pull", "org/name", "--at", f"{clock(at + 120)}-{clock(at + 180)}"],
                                  env=environment(work, hub.url), stderr=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL)
        time.sleep(1.5)
        closed.kill()
        closed.communicate()
        if hub.sent:
            problem = f"{hub.sent} bytes outside the hours"
        done = pull(work, hub.url, args=["--at", f"{clock(at - 60)}-{clock(at + 60)}"])
        problem = problem or (done.stderr if done.returncode else None) or \
            wrong_bytes(work, pathlib.Path(done.stdout.strip()), SMALL, False)
        if LONG:  # the hours end while bytes come: what is here stays, and no more comes
            slow, more = FakeHub(LARGE, pace=100_000), work / "more"
            now = time.localtime()
            at = now.tm_hour * 60 + now.tm_min
            process = subprocess.Popen([MBUYU, "pull", "org/name", "--to", str(more), "--at",
                                        f"{clock(at)}-{clock(at + 1)}"], stderr=subprocess.DEVNULL,
                                       env=environment(work, slow.url), stdout=subprocess.DEVNULL)
            time.sleep(65 - now.tm_sec)
            sent = slow.sent
            time.sleep(5)
            problem = problem or (f"{slow.sent - sent} bytes after the hours" if slow.sent != sent else None) \
                or ("it ended with the hours" if process.poll() is not None else None)
            process.kill()
            process.wait()
            if not any(more.rglob("*.part")):
                problem = problem or "nothing was kept"
            slow.close()
    finally:
        hub.close()
        shutil.rmtree(work, ignore_errors=True)
    return "hours", problem, "", hub.sent, len(hub.requests)


def main():
    only = sys.argv[2:]
    chance = random.Random(7)
    moments = [chance.uniform(0.05, 1.3) for _ in range(50 if LONG else 6)]
    jobs = [lambda c=c: run_case(c) for c in CASES if not only or c[0] in only]
    jobs += [c for c in (taken_over, removed) if c.__name__ in only]
    if not only:
        jobs += [lambda i=i, m=m: killed(m, i) for i, m in enumerate(moments)]
        jobs += [lambda i=i: spoilt(i) for i in range(400 if LONG else 20)]
        jobs += [interrupted_by_power, damaged_range, two_at_once, taken_over, removed, again, hours, through_a_proxy, without_links]
        if shutil.which("openssl"):
            jobs.append(encrypted)
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for name, problem, told, sent, requests in pool.map(lambda job: job(), jobs):
            print(f"{'FAILED' if problem else 'ok':6} {name:34} {sent / MB:8.2f} MB {requests:5} requests"
                  + (f": {problem}\n{told}" if problem else ""), flush=True)
            failures += problem is not None
    print(f"{len(jobs)} cases, {failures} failed")
    return failures > 0


sys.exit(main())
