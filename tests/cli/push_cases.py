#!/usr/bin/env python3
"""push_cases.py MBUYU [CASE ...] - mbuyu push against a hub that stands in for the real one.

The hub is two servers of this process, the hub itself and a storage at another origin, with faults to
order. Prints a line per case; the exit status says whether all went well.
"""
import base64
import hashlib
import http.server
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

TOKEN = "hf_" + "canary" + "0123456789" * 3
PART = 100_000


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """What is stored, what was asked, and what goes wrong (name -> how many times)."""

    def __init__(self, **faults):
        self.faults = faults
        self.repos = {}  # (kind, id) -> {branch: [commit]}; commit: {"sha", "files", "message"}
        self.private = {}
        self.objects = {}
        self.parts = {}
        self.log = []  # (origin, method, path, authorization, body length)
        self.lock = threading.Lock()
        self.hub = self.serve(HubHandler)
        self.storage = self.serve(StorageHandler)

    def serve(self, handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.hub = self
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def url(self, server):
        return f"http://127.0.0.1:{server.server_port}"

    def fails(self, name):
        with self.lock:
            left = self.faults.get(name, 0)
            if left:
                self.faults[name] = left - 1
            return left > 0

    def asked(self, part, method=None):
        return [r for r in self.log if part in r[2] and method in (None, r[1])]

    def commits(self, repo="models/org/name", branch="main"):
        return self.repos[repo][branch]

    def files(self, repo="models/org/name", branch="main"):
        head = self.commits(repo, branch)[-1]["files"]
        return {n: self.objects[v] if isinstance(v, str) else v for n, v in head.items()}

    def close(self):
        for server in (self.hub, self.storage):
            server.shutdown()
            server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):
            self.close_connection = True

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def note(self, length):
        self.server.hub.log.append((self.name, self.command, self.path, self.headers.get("Authorization"), length))

    def answer(self, status, value=None, **headers):
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def drop(self):
        self.close_connection = True
        self.connection.close()


class StorageHandler(Handler):
    name = "storage"

    def do_PUT(self):
        hub = self.server.hub
        size = int(self.headers["Content-Length"])
        if hub.fails("put_cut"):
            self.note(len(self.rfile.read(size // 2)))
            return self.drop()
        data = self.rfile.read(size)
        self.note(len(data))
        if hub.fails("put_500"):
            return self.answer(500, {"error": "InternalError"})
        if hub.fails("put_429"):
            return self.answer(429, None, Retry_After="1")
        if hub.fails("put_expired"):
            return self.answer(403, {"error": "Request has expired"})
        kind, oid, *part = self.path.strip("/").split("/")
        if kind == "part":
            hub.parts[oid, int(part[0])] = data
            return self.answer(200, None, ETag=f'"{hashlib.md5(data).hexdigest()}"')
        if hashlib.sha256(data).hexdigest() != oid:
            return self.answer(400, {"error": "another digest"})
        hub.objects[oid] = data
        self.answer(200)


class HubHandler(Handler):
    name = "hub"

    def do_GET(self):
        hub = self.server.hub
        self.note(0)
        kind, org, name, _, rev = (self.path.split("/", 6) + [""] * 7)[2:7]
        repo = f"{kind}/{org}/{name}"
        if repo not in hub.repos:
            return self.answer(404, {"error": "no"}, X_Error_Code="RepoNotFound")
        said = {} if hub.private[repo] is None else {"private": hub.private[repo]}
        if not rev:
            return self.answer(200, {"id": f"{org}/{name}"} | said)
        branch = hub.repos[repo].get(urllib.parse.unquote(rev))
        if branch is None:
            return self.answer(404, {"error": "no"}, X_Error_Code="RevisionNotFound")
        self.answer(200, {"id": f"{org}/{name}", "sha": branch[-1]["sha"], "siblings": []} | said)

    def do_POST(self):
        hub = self.server.hub
        data = self.body()
        self.note(len(data))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "/complete/" not in self.path:
            return self.answer(401, {"error": "token"})
        path = self.path
        if path == "/api/repos/create":
            return self.create(hub, json.loads(data))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(hub, json.loads(data))
        if path.startswith("/verify/"):
            return self.verify(hub, json.loads(data))
        if path.startswith("/complete/"):
            return self.complete(hub, json.loads(data))
        kind, org, name, call, rev = path.split("/", 6)[2:7]
        repo, rev = f"{kind}/{org}/{name}", urllib.parse.unquote(rev)
        if call == "branch":
            hub.repos[repo][rev] = list(hub.repos[repo]["main"])
            return self.answer(200)
        if call == "preupload":
            return self.preupload(hub, hub.repos[repo][rev], json.loads(data))
        assert call == "commit" and self.headers["Content-Type"] == "application/x-ndjson"
        self.commit(hub, hub.repos[repo][rev], [json.loads(line) for line in data.decode().splitlines()])

    def create(self, hub, q):
        repo = f"{q.get('type', 'model')}s/{q['organization']}/{q['name']}"
        if repo in hub.repos:
            return self.answer(409, {"error": "it exists", "url": hub.url(hub.hub) + "/" + repo})
        hub.repos[repo] = {"main": [{"sha": "0" * 40, "files": {}, "message": "start"}]}
        hub.private[repo] = q.get("private", False)
        self.answer(200, {"url": hub.url(hub.hub) + "/" + repo})

    def preupload(self, hub, branch, q):
        assert 0 < len(q["files"]) <= 256
        said, head = [], branch[-1]["files"]
        for f in q["files"]:
            sample = base64.b64decode(f["sample"])
            assert len(sample) == min(512, f["size"])
            lfs = f["size"] > 10_000 or f["path"].endswith(".safetensors")
            one = {"path": f["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": f["path"].endswith(".log")}
            at = head.get(f["path"])
            if at is not None:
                one["oid"] = at if isinstance(at, str) else git_oid(at)
            said.append(one)
        self.answer(200, {"files": said})

    def batch(self, hub, q):
        assert self.headers["Content-Type"] == self.headers["Accept"] == "application/vnd.git-lfs+json"
        assert q["operation"] == "upload" and q["hash_algo"] == "sha256" and q["ref"]["name"]
        if hub.fails("batch_500"):
            return self.answer(500)
        objects, base, store = [], hub.url(hub.hub), hub.url(hub.storage)
        for o in q["objects"]:
            one = dict(o)
            if o["oid"] not in hub.objects:
                if "multipart" in q["transfers"] and o["size"] > PART:
                    n = -(-o["size"] // PART)
                    header = {f"{i + 1:05d}": f"{store}/part/{o['oid']}/{i + 1}" for i in range(n)}
                    upload = {"href": f"{base}/complete/{o['oid']}", "header": {"chunk_size": str(PART), **header}}
                else:
                    upload = {"href": f"{store}/object/{o['oid']}", "header": {"X-Kept": "yes"}}
                one["actions"] = {"upload": upload, "verify": {"href": f"{base}/verify/{o['oid']}"}}
            objects.append(one)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def complete(self, hub, q):
        n = len(q["parts"])
        data = b"".join(hub.parts[q["oid"], i + 1] for i in range(n))
        tags = [f'"{hashlib.md5(hub.parts[q["oid"], i + 1]).hexdigest()}"' for i in range(n)]
        assert [p["partNumber"] for p in q["parts"]] == list(range(1, n + 1)) and [p["etag"] for p in q["parts"]] == tags
        if hashlib.sha256(data).hexdigest() != q["oid"]:
            return self.answer(400, {"error": "another digest"})
        hub.objects[q["oid"]] = data
        self.answer(200, {"success": True})

    def verify(self, hub, q):
        if hub.fails("verify_404"):
            hub.objects.pop(q["oid"], None)
            return self.answer(404, {"error": "not found"})
        assert len(hub.objects[q["oid"]]) == q["size"]
        self.answer(200)

    def commit(self, hub, branch, lines):
        head, *operations = lines
        assert head["key"] == "header" and 0 < len(operations) <= 256
        if hub.fails("commit_500"):
            return self.answer(500)
        if hub.fails("commit_moved"):
            branch.append({"sha": "f" * 40, "files": dict(branch[-1]["files"], other=b"x"), "message": "another's"})
        parent = head["value"].get("parentCommit")
        if parent is not None and parent != branch[-1]["sha"]:
            return self.answer(412, {"error": "the branch has moved"})
        files = dict(branch[-1]["files"])
        for o in operations:
            v = o["value"]
            if o["key"] == "lfsFile":
                assert v["algo"] == "sha256" and len(hub.objects[v["oid"]]) == v["size"]
                files[v["path"]] = v["oid"]
            else:
                assert o["key"] == "file" and v["encoding"] == "base64"
                files[v["path"]] = base64.b64decode(v["content"], validate=True)
        sha = hashlib.sha1(json.dumps([len(branch), sorted(files)]).encode()).hexdigest()
        branch.append({"sha": sha, "files": files, "message": head["value"]["summary"]})
        if hub.fails("commit_lost"):
            return self.drop()
        self.answer(200, {"success": True, "commitOid": sha, "commitUrl": f"{hub.url(hub.hub)}/org/name/commit/{sha}"})


# --- the cases


class Case:
    def __init__(self, program, work, **faults):
        self.program, self.hub, self.home = program, Hub(**faults), os.path.join(work, "home")
        self.dir = os.path.join(work, "folder")
        shutil.rmtree(self.dir, ignore_errors=True)
        self.said = ""

    def write(self, name, data):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())

    def model(self):
        self.write("README.md", "---\nlicense: mit\n---\n# A model\n")
        self.write("config.json", '{"architectures": ["LlamaForCausalLM"]}')
        self.write("a/deep folder/ñ.txt", "words\n" * 9)
        self.write("empty", b"")
        self.write("model.safetensors", bytes(range(256)) * 1800)  # 460 kB, 5 parts
        self.write("again.safetensors", bytes(range(256)) * 1800)  # the same content
        self.write("small.safetensors", b"12345")

    def environment(self):
        env = dict(os.environ, HF_ENDPOINT=self.hub.url(self.hub.hub), HF_TOKEN=TOKEN, HF_HOME=self.home, MBUYU_LOG="debug")
        env.pop("HF_HUB_OFFLINE", None)
        return env

    def push(self, *args, name="org/name", code=0, says=()):
        env = self.environment()
        run = subprocess.run([self.program, "push", self.dir, name, "--pause", "0.01", *args], env=env, capture_output=True, text=True, timeout=120)
        self.said = run.stdout + run.stderr
        assert run.returncode == code, f"exit code {run.returncode}, not {code}: {self.said}"
        for part in says:
            assert part in self.said, f"no {part!r} in: {self.said}"
        assert TOKEN not in self.said, "the token is in the output"
        return self

    def equal(self, repo="models/org/name", branch="main", without=(), extra=()):
        there, here = self.hub.files(repo, branch), {}
        for folder, _, names in os.walk(self.dir):
            for n in names:
                path = os.path.join(folder, n)
                with open(path, "rb") as f:
                    here[os.path.relpath(path, self.dir)] = f.read()
        for n in without:
            here.pop(n)
        for n in extra:
            there.pop(n)
        assert there == here, f"{sorted(there)} against {sorted(here)}"
        assert all(r[3] is None for r in self.hub.log if r[0] == "storage"), "the token went to the storage"


def case_whole(c):
    c.model()
    c.push("--message", "first", says=["7 files in 1 commit"]).equal()
    assert [x["message"] for x in c.hub.commits()] == ["start", "first"]
    assert len(c.hub.asked("/part/")) == 5 and len(c.hub.asked("/object/")) == 1  # one content, sent once
    asked = len(c.hub.log)
    c.push(says=["nothing to do, it has all 7 files"])
    assert len(c.hub.commits()) == 2 and len(c.hub.log) == asked + 2  # where it is, what is there


def case_lfs(c):
    c.model()
    c.push("--upload", "lfs").equal()
    assert len(c.hub.asked("/object/")) == 2 and not c.hub.asked("/part/")


def case_multipart(c):
    c.model()
    c.push("--upload", "multipart").equal()
    assert len(c.hub.asked("/part/")) == 5


def case_changed(c):
    c.model()
    c.push()
    c.write("config.json", "{}")
    c.push(says=["1 files in 1 commit", "6 files unchanged"]).equal()
    assert not c.hub.asked("/part/")[5:]
    c.write("new.safetensors", b"12345")  # content that is there under another name
    c.push(says=["1 of them were there"]).equal()


def case_dataset_private_branch(c):
    c.write("train.jsonl", '{"text": "a"}\n')
    c.push("--dataset", "--private", "--revision", "drafts/new").equal("datasets/org/name", "drafts/new")
    assert c.hub.private["datasets/org/name"] is True
    assert len(c.hub.commits("datasets/org/name", "main")) == 1


def case_private_is_not_public(c):
    c.model()
    c.push("--private").equal()
    c.push("--private", says=["nothing to do"])
    c.hub.private["models/org/name"] = False
    c.write("config.json", "{}")
    c.push("--private", code=2, says=["already and public", "nothing was sent"])
    c.push("--private", "--revision", "new", code=2, says=["already and public"])
    assert set(c.hub.repos["models/org/name"]) == {"main"}, "a branch was made"
    c.hub.private["models/org/name"] = None  # a hub that does not say
    c.push("--private", code=2, says=["does not say that it is private", "nothing was sent"])
    c.push("--private", "--revision", "new", code=2, says=["does not say that it is private"])
    assert len(c.hub.commits()) == 2
    c.push().equal()


def case_many_files(c):
    for i in range(600):
        c.write(f"data/{i:04d}.txt", f"{i}\n")
    c.push(name="dataset:org/name", says=["600 files in 3 commits"]).equal("datasets/org/name")
    assert [x["message"] for x in c.hub.commits("datasets/org/name")][1:] == [f"Upload with mbuyu (part {i} of 3)" for i in (1, 2, 3)]


def fault(name, times, *args, **expected):
    def run(c):
        c.hub.faults[name] = times
        c.model()
        c.push(*args, **expected).equal()

    run.__name__ = f"case_{name}_{'_'.join(a.strip('-') for a in args) or 'any'}"
    return run


def case_verify_404_always(c):
    c.hub.faults["verify_404"] = 99
    c.model()
    c.push(code=69, says=["again.safetensors: was sent", "answered 404"])
    assert len(c.hub.commits()) == 1
    c.hub.faults.clear()
    c.push().equal()


def case_put_500_always(c):
    c.hub.faults["put_500"] = 10**6
    c.model()
    c.push("--retries", "2", code=69, says=["again.safetensors", "500"])
    assert len(c.hub.asked("", "PUT")) == 3 and len(c.hub.commits()) == 1


def case_resumed(c):
    """A push that ends half way goes on without sending again what is there."""
    c.model()
    c.write("z.safetensors", b"z" * 50_000)
    c.hub.faults["commit_500"] = 99
    c.push("--retries", "0", code=69)
    sent = len(c.hub.asked("", "PUT"))
    c.hub.faults.clear()
    c.push(says=["3 of them were there"]).equal()
    assert len(c.hub.asked("", "PUT")) == sent


def case_killed(c):
    """At any moment, and run again: whole in the end, and no content twice."""
    c.model()
    for i in range(300):
        c.write(f"data/{i:03d}.bin", random.Random(i).randbytes(11_000))
    times, moments = (50 if os.environ.get("MB_LONG") == "1" else 8), random.Random(5)
    for _ in range(times):
        asked = len(c.hub.log)
        run = subprocess.Popen([c.program, "push", c.dir, "org/name"], env=c.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stop = asked + moments.randrange(1, 700 // times + 2)  # after so many requests
        while run.poll() is None and len(c.hub.log) < stop:
            time.sleep(0.0005)
        run.kill()
        run.wait()
    time.sleep(0.2)
    c.push().equal()
    assert len(c.hub.asked("/object/", "PUT")) + len(c.hub.asked("/part/", "PUT")) <= 306 + 5 * times


def case_moved(c):
    c.model()
    c.hub.faults["commit_moved"] = 1
    c.push(code=2, says=["has changed since this push began"])
    assert "config.json" not in c.hub.files()
    c.push().equal(extra=["other"])


def case_commit_lost(c):
    c.model()
    c.hub.faults["commit_lost"] = 1
    c.push().equal()
    assert len(c.hub.commits()) == 2  # not made twice


def case_ignored(c):
    c.model()
    c.write("run.log", "x")
    c.push().equal(without=["run.log"])


def case_patterns(c):
    c.model()
    c.write("optimizer.bin", "x")
    c.write(".git/config", "x")
    c.write(".cache/huggingface/x", "x")
    c.push("--exclude", "opt*", "--exclude", "a/*").equal(without=["optimizer.bin", "a/deep folder/ñ.txt", ".git/config", ".cache/huggingface/x"])


def case_links(c):
    c.model()
    os.symlink("config.json", os.path.join(c.dir, "link.json"))
    os.symlink("..", os.path.join(c.dir, "loop"))
    os.mkfifo(os.path.join(c.dir, "pipe"))
    c.push(says=["pipe: not sent"])
    assert c.hub.files()["link.json"] == c.hub.files()["config.json"] and not any("loop" in n for n in c.hub.files())


def case_secrets(c):
    c.model()
    secrets = {".env": "A=1", "deep/token": "x", "id_ed25519": "x", "notes.txt": "my token is " + TOKEN.replace("canary", "notyours") + ".",
               "key.txt": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "aws.json": '{"id": "AKIAIOSFODNN7EXAMPLE"}'}
    for name, text in secrets.items():
        c.write(name, text)
        c.push(code=3, says=["nothing was sent", name, "--exclude", "--allow"])
        os.unlink(os.path.join(c.dir, name))
    assert not c.hub.log
    c.write("vocab.txt", "hf_abc\nshf_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789\ntokens\n")  # none
    c.write("notes.txt", secrets["notes.txt"])
    c.push("--allow", "notes.txt").equal()


def case_dry_run(c):
    c.model()
    c.push("--dry-run", says=["(to be made)", "would get 7 of 7 files", "model.safetensors"])
    assert not c.hub.repos and all(r[1] == "GET" for r in c.hub.log)
    c.push()
    c.write("config.json", "{}")
    c.push("--dry-run", says=["would get 1 of 7 files", "config.json  (small, sent)", "the hub has it"])
    assert len(c.hub.commits()) == 2


def case_card(c):
    c.write("adapter_config.json", '{"base_model_name_or_path": "org/base", "task_type": "CAUSAL_LM", "r": 8}')
    c.write("adapter_model.safetensors", b"1")
    c.push("--license", "apache-2.0")
    card = c.hub.files()["README.md"].decode()
    for line in ("base_model: 'org/base'", "library_name: 'peft'", "license: 'apache-2.0'", "pipeline_tag: 'text-generation'", "# name"):
        assert line in card, card
    assert not os.path.exists(os.path.join(c.dir, "README.md"))
    c.push("--license", "apache-2.0", says=["nothing to do"])


def case_wrong(c):
    c.model()
    c.push(name="org", code=2)
    c.push(name="org/name/file", code=2, says=["ORG/NAME"])
    c.push("--upload", "ftp", code=2, says=["lfs or multipart"])
    c.push("--revision", "a..b", code=2)
    c.push("--revision", "0" * 40, code=2, says=["not to a commit"])
    c.push("--token", "hf_wrong", code=77, says=["401"])
    shutil.rmtree(c.dir)
    c.push(code=2, says=["no such folder"])
    os.mkdir(c.dir)
    c.push(code=2, says=["no file to send"])
    assert not c.hub.repos


FAULTS = [
    fault("put_cut", 2, "--upload", "lfs"),
    fault("put_cut", 2, "--upload", "multipart"),
    fault("put_500", 2, "--upload", "lfs"),
    fault("put_500", 2, "--upload", "multipart"),
    fault("put_429", 1, "--upload", "lfs"),
    fault("put_expired", 1, "--upload", "lfs"),
    fault("put_expired", 1, "--upload", "multipart"),
    fault("verify_404", 1, "--upload", "lfs"),
    fault("verify_404", 1, "--upload", "multipart"),
    fault("batch_500", 2),
    fault("commit_500", 2),
]


def main():
    program, wanted = os.path.abspath(sys.argv[1]), sys.argv[2:]
    cases = [v for n, v in globals().items() if n.startswith("case_")] + FAULTS
    failed = 0
    for case in cases:
        name = case.__name__[5:]
        if wanted and name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as work:
            c = Case(program, work)
            try:
                case(c)
                print(f"ok    {name} ({len(c.hub.log)} requests)")
            except Exception as e:  # noqa: BLE001 - any of them is the case's failure
                failed += 1
                print(f"FAIL  {name}: {type(e).__name__}: {e}\n{c.said}")
            c.hub.close()
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
