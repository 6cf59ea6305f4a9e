"""The cases of test_hub.sh. hub_cases.py MBUYU FOLDER"""

import base64
import hashlib
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

MBUYU, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
TOKEN = "hub-canary-0123456789"
WRITE = {"Authorization": f"Bearer {TOKEN}"}
CONTENT = bytes(range(256)) * 40
failures = checks = 0


def check(what, good, detail=""):
    global failures, checks
    checks += 1
    if not good:
        failures += 1
        print(f"FAILED: {what} {detail}", flush=True)


class Hub:
    def __init__(self, folder, *options, token=TOKEN):
        self.folder, self.options, self.port, self.token = folder, options, 0, token
        self.start()

    def start(self):
        environment = os.environ | ({"MBUYU_HUB_TOKEN": self.token} if self.token else {})
        self.process = subprocess.Popen(
            [MBUYU, "hub", str(self.folder), "--port", str(self.port), *self.options],
            stdout=subprocess.PIPE, stderr=open(WORK / "hub.log", "ab"), text=True, env=environment)
        for line in self.process.stdout:
            if line.startswith("hub at "):
                self.port = int(line.rsplit(":", 1)[1])
                return
        raise SystemExit("mbuyu hub did not start: " + (WORK / "hub.log").read_text()[-2000:])

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.process.stdout.close()
        return code

    def ask(self, method, path, body=None, headers=(), timeout=30):
        """status, headers (names in lower case), body. The path goes as it is."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.putrequest(method, path, skip_host="Host" in dict(headers), skip_accept_encoding=True)
            for name, value in dict(headers).items():
                c.putheader(name, value)
            if body is not None:
                c.putheader("Content-Length", str(len(body)))
            c.endheaders()
            try:
                if body is not None:
                    c.send(body)
            except OSError:
                pass  # refused before it was read
            answer = c.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            c.close()

    def get(self, path, **headers):
        return self.ask("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def json(self, method, path, value, headers=WRITE):
        return self.ask(method, path, json.dumps(value).encode(), headers)

    def sha(self, repo="acme/plain"):
        return json.loads(self.get(f"/api/models/{repo}")[2])["sha"]

    def commit(self, repo, lines, rev="main", headers=WRITE, **header):
        text = [json.dumps({"key": "header", "value": {"summary": "jaribio"} | header})]
        text += [line if isinstance(line, str) else json.dumps(line) for line in lines]
        return self.ask("POST", f"/api/models/{repo}/commit/{rev}", "\n".join(text).encode(), headers)


def file_line(path, content=b"x"):
    return {"key": "file", "value": {"path": path, "content": base64.b64encode(content).decode(),
                                     "encoding": "base64"}}


def make_folder():
    folder = WORK / "share/models/acme/plain"
    (folder / "sub").mkdir(parents=True)
    (folder / "data.bin").write_bytes(CONTENT)
    (folder / "<script>alert(1)</script>.txt".replace("/", "_")).write_text("x")
    (folder / "sub/a b%c.txt").write_text("habari")
    (folder / "README.md").write_text("---\ntags: ['\"><script>alert(2)</script>']\n---\n"
                                      "<script>alert(3)</script> [x](javascript:alert(4))\n")
    (WORK / "share/models/acme-2/empty").mkdir(parents=True)
    for i in range(5):
        other = WORK / f"share/models/acme/m{i}"
        other.mkdir()
        (other / "config.json").write_text(str(i))
    (WORK / "share/secret.txt").write_text("not for you")
    (WORK / "share/datasets/acme/rows").mkdir(parents=True)
    (WORK / "share/datasets/acme/rows/train.jsonl").write_text("{}\n")


def ranges(hub):
    path = "/acme/plain/resolve/main/data.bin"
    n = len(CONTENT)
    for asked, status, want in [(None, 200, CONTENT), ("bytes=0-9", 206, CONTENT[:10]),
                                ("bytes=-10", 206, CONTENT[-10:]), ("bytes=10000-", 206, CONTENT[10000:]),
                                ("bytes=5-5", 206, CONTENT[5:6]), (f"bytes=0-{n + 99}", 206, CONTENT),
                                (f"bytes={n}-", 416, None), ("bytes=9-5", 200, CONTENT),
                                ("lines=1-2", 200, CONTENT)]:
        got, head, body = hub.get(path, **({"Range": asked} if asked else {}))
        check(f"range {asked}", got == status and (want is None or body == want), f"{got}, {len(body)} bytes")
        if status == 206:
            check(f"Content-Range of {asked}", head["content-range"].endswith(f"/{n}"), head)
        if status == 416:
            check("416 says the size", head.get("content-range") == f"bytes */{n}", head)
    _, head, _ = hub.get(path)
    etag = head["etag"]
    check("an ETag is the sha256 of what is not text", etag == f'"{hashlib.sha256(CONTENT).hexdigest()}"', etag)
    check("a commit is named", len(head["x-repo-commit"]) == 40)
    check("304", hub.get(path, If_None_Match=etag)[0] == 304)
    check("another tag", hub.get(path, If_None_Match='"x"')[0] == 200)
    check("If-Range of another", hub.get(path, Range="bytes=0-1", If_Range='"x"')[0] == 200)
    check("If-Range", hub.get(path, Range="bytes=0-1", If_Range=etag)[0] == 206)
    text = hub.get("/acme/plain/resolve/main/sub/a%20b%25c.txt")
    git = hashlib.sha1(b"blob 6\0habari").hexdigest()
    check("the name of small text is git's", text[2] == b"habari" and text[1]["etag"] == f'"{git}"', text)


def heads(hub):
    for path in ["/", "/acme/plain", "/acme/plain/resolve/main/data.bin", "/api/models", "/api/models/acme/plain",
                 "/api/models/acme/plain/revision/main", "/api/models/acme/plain/tree/main?recursive=true",
                 "/api/models/acme/plain/refs", "/api/models/acme/plain/commits/main",
                 "/datasets/acme/rows/resolve/main/train.jsonl", "/api/datasets/acme/rows"]:
        got, one = hub.get(path), hub.ask("HEAD", path)
        check(f"HEAD {path}", got[0] == one[0] == 200 and one[2] == b""
              and {**got[1], "date": ""} == {**one[1], "date": ""}, (got[:2], one))


def errors(hub):
    for path, code in [("/api/models/acme/none", "RepoNotFound"), ("/acme/none/resolve/main/x", "RepoNotFound"),
                       ("/api/models/acme/plain/revision/none", "RevisionNotFound"),
                       ("/acme/plain/resolve/none/x", "RevisionNotFound"),
                       ("/acme/plain/resolve/" + "a" * 300, "RevisionNotFound"),
                       ("/acme/plain/resolve/" + "a" * 300 + "/x", "RevisionNotFound"),
                       ("/acme/plain/raw/" + "a" * 3000 + "/x", "RevisionNotFound"),
                       ("/api/models/acme/plain/tree/" + "a" * 299 + "/x", "RevisionNotFound"),
                       ("/api/models/acme/plain/tree/" + "a" * 300, "RevisionNotFound"),
                       ("/api/models/acme-2/empty", "RevisionNotFound"),
                       ("/acme/plain/resolve/" + "0" * 40 + "/x", "RevisionNotFound"),
                       ("/acme/plain/resolve/main/none", "EntryNotFound"),
                       ("/api/models/acme/plain/tree/main/none", "EntryNotFound")]:
        status, head, body = hub.get(path)
        check(f"{path} is {code}", status == 404 and head.get("x-error-code") == code
              and json.loads(body)["error"] and head["x-error-message"], (status, head, body))
    check("a missing file names the commit", "x-repo-commit" in hub.get("/acme/plain/resolve/main/none")[1])
    check("no such thing", hub.get("/api/nothing")[0] == 404 and hub.get("/api/nothing/a/b")[0] == 404)
    check("another method", hub.ask("PUT", "/api/models")[0] == 405)


def elsewhere(hub):
    for path in ["/acme/plain/resolve/main/../../../secret.txt", "/acme/plain/resolve/main/%2e%2e/%2e%2e/secret.txt",
                 "/acme/plain/resolve/main/..%2f..%2f..%2fsecret.txt", "/acme/plain/resolve/main//etc/passwd",
                 "/acme/plain/resolve/main/%2fetc%2fpasswd", "/../secret.txt", "/%2e%2e/secret.txt",
                 "/acme/plain/resolve/..%2f..%2fx/data.bin", "/acme/plain/resolve/main/data.bin%00.txt",
                 "/api/models/..%2f..%2fsecret", "/api/models/acme/plain/tree/main/..", "/secret.txt",
                 "/acme/plain/resolve/main/.git/config", "/api/models/" + "a" * 5000, "/" + "a/" * 200]:
        status, _, body = hub.get(path)
        check(f"{path[:80]}", status in (400, 404, 414, 431) and b"not for you" not in body and b"root:" not in body,
              (status, body[:100]))
    for headers in [{"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Origin": "http://evil.example"},
                    {"Origin": "null"}, {"Host": f"127.0.0.1:{hub.port}", "Origin": f"http://127.0.0.1:{hub.port + 1}"}]:
        check(f"{headers} is refused", hub.ask("GET", "/api/models", headers=headers)[0] == 403)
    check("localhost is not", hub.ask("GET", "/", headers={"Host": f"localhost:{hub.port}"})[0] == 200)


def pages(hub):
    for path in ["/", "/?search=%22%3E%3Cscript%3E", "/acme/plain"]:
        status, head, body = hub.get(path)
        check(f"page {path}", status == 200 and head["content-type"].startswith("text/html")
              and b"<script" not in body.lower() and b"javascript:" not in body.replace(b"(javascript:", b""),
              body[:200])
        check(f"policy of {path}", "default-src 'none'" in head["content-security-policy"])
    body = hub.get("/acme/plain")[2].decode()
    check("a page says how to use it", f"HF_ENDPOINT=http://127.0.0.1:{hub.port}" in body
          and "mbuyu pull acme/plain" in body and "data.bin" in body)
    status, head, _ = hub.get("/acme/plain/resolve/main/README.md")
    check("files are never pages", head["content-type"].startswith("text/plain")
          and "sandbox" in head["content-security-policy"] and head["x-content-type-options"] == "nosniff")
    check("search", b"acme/m3" in hub.get("/?search=m3")[2] and b"acme/m4" not in hub.get("/?search=m3")[2])


def paging(hub):
    seen, path, turns = [], "/api/models?author=acme&limit=2&sort=id", 0
    while path and turns < 10:
        _, head, body = hub.get(path)
        seen += [m["id"] for m in json.loads(body)]
        link = head.get("link", "")
        path = link.split(">")[0].removeprefix(f"<http://127.0.0.1:{hub.port}") if link else None
        turns += 1
    check("pages of repositories", seen == [f"acme/m{i}" for i in range(5)] + ["acme/plain"] and turns == 3, seen)
    seen, path, turns = [], "/api/models/acme/plain/tree/main?recursive=true&limit=1", 0
    while path and turns < 20:
        _, head, body = hub.get(path)
        seen += [f["path"] for f in json.loads(body)]
        link = head.get("link", "")
        path = link.split(">")[0].removeprefix(f"<http://127.0.0.1:{hub.port}") + "&limit=1" if link else None
        turns += 1
    check("pages of files", "sub" in seen and "sub/a b%c.txt" in seen and len(seen) == len(set(seen)) == 5, seen)


def paths_info(hub):
    def ask(n, path="sub"):
        return hub.ask("POST", "/api/models/acme/plain/paths-info/main", "&".join([f"paths={path}"] * n).encode(),
                       {"Content-Type": "application/x-www-form-urlencoded"})
    status, _, body = ask(1000)
    got = json.loads(body)
    check("1000 paths", status == 200 and len(got) == 1000 and got[0]["type"] == "directory"
          and all(g == got[0] for g in got), (status, body[:200]))
    check("1001 paths", ask(1001)[0] == 400)
    check("1001 paths that are not there", ask(1001, "none")[0] == 400)
    got = hub.ask("POST", "/api/models/acme/plain/paths-info/main", json.dumps({"paths": ["none"] * 1001}).encode(),
                  {"Content-Type": "application/json"})
    check("1001 paths as JSON", got[0] == 400, got[:2])


def rights(hub):
    before = hub.sha()
    for headers in [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
                    {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Bearer {TOKEN[:-1]}"}]:
        for status, path, method, body in [
                (401, "/api/repos/create", "POST", b'{"name": "x"}'),
                (401, "/api/repos/delete", "DELETE", b'{"name": "acme/plain"}'),
                (401, "/api/repos/move", "POST", b'{"fromRepo": "acme/plain", "toRepo": "a/b"}'),
                (401, "/api/models/acme/plain/preupload/main", "POST", b'{"files": []}'),
                (401, "/api/models/acme/plain/xet-write-token/main", "GET", None),
                (401, "/api/models/acme/plain/tag/main", "POST", b'{"tag": "t"}'),
                (401, "/api/models/acme/plain/branch/b", "POST", None),
                (401, "/api/models/acme/plain/settings", "PUT", b'{"private": true}'),
                (401, "/acme/plain.git/info/lfs/objects/batch", "POST", b'{"operation": "upload"}')]:
            got = hub.ask(method, path, body, headers)
            check(f"{method} {path} with {headers}", got[0] == status, got)
        check(f"commit with {headers}", hub.commit("acme/plain", [file_line("x.txt")], headers=headers)[0] == 401)
    check("nothing was written", hub.sha() == before)


def uploads(hub):
    data = os.urandom(100000)
    oid = hashlib.sha256(data).hexdigest()

    def batch(size=len(data), name=oid, transfers=("basic",)):
        return hub.json("POST", "/acme/m0.git/info/lfs/objects/batch",
                        {"operation": "upload", "transfers": list(transfers),
                         "objects": [{"oid": name, "size": size}]})
    actions = json.loads(batch()[2])["objects"][0]["actions"]
    href = actions["upload"]["href"].removeprefix(f"http://127.0.0.1:{hub.port}")
    for what, path, body in [("another oid", href.replace(oid, "0" * 64), data),
                             ("another size", href.replace("size=100000", "size=900000"), data),
                             ("a later end", href.replace("until=", "until=9"), data),
                             ("another signature", href[:-1] + ("0" if href[-1] != "0" else "1"), data),
                             ("no signature", href.split("&sign")[0], data)]:
        check(f"upload with {what}", hub.ask("PUT", path, body)[0] == 403)
    check("wrong bytes", hub.ask("PUT", href, data[:-1] + b"!")[0] == 400)
    check("too few", hub.ask("PUT", href, data[:-1])[0] == 400)
    check("too many", hub.ask("PUT", href, data + b"!")[0] in (400, 413))
    line = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid, "size": len(data)}}
    check("a commit of what did not come", hub.commit("acme/m0", [line])[0] == 400)
    check("the right bytes", hub.ask("PUT", href, data)[0] == 200)
    verify = actions["verify"]["href"].removeprefix(f"http://127.0.0.1:{hub.port}")
    check("verified", hub.json("POST", verify, {"oid": oid, "size": len(data)}, {})[0] == 200)
    nothing = hashlib.sha256(b"").hexdigest()
    answer = json.loads(batch(0, nothing, ("basic", "multipart"))[2])["objects"][0]["actions"]
    end = answer["verify"]["href"].removeprefix(f"http://127.0.0.1:{hub.port}").replace("/verify?", "/complete?")
    check("to verify is not to complete", hub.json("POST", end, {}, {})[0] == 403)
    check("known now", "actions" not in json.loads(batch()[2])["objects"][0])
    check("a commit of another size", hub.commit("acme/m0", [line | {"value": line["value"] | {"size": 5}}])[0] == 400)
    check("committed", hub.commit("acme/m0", [line])[0] == 200)
    check("fetched", hub.get("/acme/m0/resolve/main/w.bin")[2] == data)
    check("asked for again under another size", "actions" in json.loads(batch(5)[2])["objects"][0])
    for value in [b"", b"[]", b"{}", b'{"operation": "download", "objects": []}', b"{" * 100,
                  b'{"operation": "upload", "objects": [{"oid": "../../x", "size": 1}]}',
                  b'{"operation": "upload", "objects": [{"oid": "%s", "size": -1}]}' % oid.encode()]:
        check(f"batch {value[:40]}", hub.ask("POST", "/acme/m0.git/info/lfs/objects/batch", value, WRITE)[0] == 400)


def commits(hub):
    before = hub.sha("acme/m1")
    bad = [
        [file_line("../x")], [file_line("/etc/x")], [file_line("a/../../x")], [file_line("a//b")], [file_line("")],
        [file_line(".git/hooks/x")], [file_line("a\\b")], [file_line("a\u0007")], [file_line("config.json/below")],
        [file_line("x" * 2000)], ["{"], ["[]"], ['{"key": "file"}'], ['{"key": "unknown", "value": {}}'],
        [{"key": "file", "value": {"path": "x", "content": "%%%%"}}],
        [{"key": "file", "value": {"path": "x", "content": "abc"}}],
        [{"key": "file", "value": {"path": "x", "content": "YQ==", "encoding": "utf-8"}}],
        [{"key": "lfsFile", "value": {"path": "x", "oid": "short", "size": 1}}],
        [file_line("x"), file_line("x/y")], ['{"key":' * 80],
    ]
    for lines in bad:
        got = hub.commit("acme/m1", lines)
        check(f"commit of {str(lines)[:70]}", got[0] == 400, got)
    check("deleting what is not there", hub.commit("acme/m1", [{"key": "deletedFile", "value": {"path": "none"}}])[0] == 404)
    check("no header", hub.ask("POST", "/api/models/acme/m1/commit/main", b"", WRITE)[0] == 400)
    check("no branch", hub.commit("acme/m1", [file_line("x")], rev="none")[0] == 404)
    check("another parent", hub.commit("acme/m1", [file_line("x")], parentCommit="0" * 40)[0] == 412)
    check("a pull request", hub.ask("POST", "/api/models/acme/m1/commit/main?create_pr=1", b"{}", WRITE)[0] == 400)
    line = b'{"key": "file", "value": {"path": "x", "content": "' + b"A" * (34 << 20)
    check("a line of 34 MB", hub.ask("POST", "/api/models/acme/m1/commit/main", line, WRITE)[0] == 400)
    check("none of them was made", hub.sha("acme/m1") == before)
    got = hub.commit("acme/m1", [file_line("a/b.txt", b"moja"), file_line("c.txt", b"mbili")])
    check("a right one", got[0] == 200 and json.loads(got[2])["commitOid"] == hub.sha("acme/m1"), got)
    copy = {"key": "copyFile", "value": {"path": "d.txt", "srcPath": "c.txt"}}
    hub.commit("acme/m1", [copy, {"key": "deletedFolder", "value": {"path": "a/"}}])
    names = {s["rfilename"] for s in json.loads(hub.get("/api/models/acme/m1")[2])["siblings"]}
    check("copied and deleted", names == {"config.json", "c.txt", "d.txt"}, names)
    for name in ["../x", "a/b/c", "", "a b", ".git"]:
        check(f"create {name!r}", hub.json("POST", "/api/repos/create", {"name": name})[0] == 400)


def hidden(hub):
    got = hub.json("POST", "/api/repos/create", {"name": "siri", "organization": "acme", "private": True})
    check("a private repository", got[0] == 200, got)
    for path in ["/api/models/acme/siri", "/acme/siri", "/acme/siri/resolve/main/x", "/api/models/acme/siri/refs"]:
        check(f"{path} without the token", hub.get(path)[0] == 404)
    check("it is in no list", b"siri" not in hub.get("/api/models")[2] + hub.get("/")[2])
    check("with the token", hub.get("/api/models/acme/siri", **WRITE)[0] == 200)


def kill_during_commits(hub):
    """Several clients commit; the hub is killed; what it said is done is there afterwards."""
    rng = random.Random(5)
    for round_ in range(20 if os.environ.get("MB_LONG", "0") not in ("", "0") else 4):
        done, stop = [], threading.Event()

        def write(who):
            for i in range(10000):
                path = f"k{round_}/{who}-{i}.txt"
                try:
                    status = hub.commit("acme/m2", [file_line(path, path.encode())])[0]
                except (OSError, http.client.HTTPException):
                    return
                if status == 200:
                    done.append(path)
                if stop.is_set():
                    return
        threads = [threading.Thread(target=write, args=(w,)) for w in range(4)]
        for t in threads:
            t.start()
        for _ in range(400):  # slow disks: it is killed once something is done
            time.sleep(0.05)
            if done:
                break
        time.sleep(rng.random())
        hub.stop(signal.SIGKILL)
        stop.set()
        for t in threads:
            t.join()
        hub.start()
        names = {f["rfilename"] for f in json.loads(hub.get("/api/models/acme/m2")[2])["siblings"]}
        check(f"kill {round_}: commits were made", len(done) > 0)
        check(f"kill {round_}: all are there", set(done) <= names, set(done) - names)
        for path in rng.sample(sorted(names), min(10, len(names))):
            body = hub.get(f"/acme/m2/resolve/main/{path}")[2]
            check(f"{path} is whole", body == (path.encode() if path != "config.json" else b"2"), body)


def fails(code, *arguments, env=()):
    done = subprocess.run([MBUYU, "hub", *map(str, arguments)], capture_output=True, text=True, timeout=20,
                          env={k: v for k, v in os.environ.items() if k != "MBUYU_HUB_TOKEN"} | dict(env))
    check(f"mbuyu hub {arguments}", done.returncode == code and len(done.stderr.strip().splitlines()) == 1,
          f"{done.returncode} {done.stderr}")


def main():
    make_folder()
    hub = Hub(WORK / "share", token=None)
    ranges(hub)
    heads(hub)
    errors(hub)
    elsewhere(hub)
    pages(hub)
    paging(hub)
    paths_info(hub)
    check("read only", hub.commit("acme/plain", [file_line("x")])[0] == 403)
    check("a folder that is only read is not written to", not (WORK / "share/.mbuyu-hub").exists())
    sha = hub.sha()
    check("ends well", hub.stop() == 0)

    hub = Hub(WORK / "share", "--read-write")
    check("the same commit in another store", hub.sha() == sha)
    rights(hub)
    uploads(hub)
    commits(hub)
    hidden(hub)
    kill_during_commits(hub)
    fails(7, WORK / "share", "--read-write", "--port", 0, env={"MBUYU_HUB_TOKEN": TOKEN}.items())
    check("ends well", hub.stop() == 0)

    bag = WORK / "bag"
    (bag / "data/models/acme/bagged").mkdir(parents=True)
    (bag / "bagit.txt").write_text("BagIt-Version: 1.0\n")
    (bag / "data/models/acme/bagged/config.json").write_text("{}")
    hub = Hub(bag, token=None)
    check("an unpacked bag is served from its data", hub.get("/acme/bagged/resolve/main/config.json")[2] == b"{}")
    hub.stop()
    check("and not written to", sorted(os.listdir(bag / "data")) == ["models"])

    hub = Hub(WORK / "share", "--host", "0.0.0.0", "--also-called", "hub.example,vitabu.local", token=None)
    for name, status in [("hub.example", 200), (f"vitabu.local:{hub.port}", 200), ("10.1.2.3", 200),
                         (socket.gethostname(), 200), ("evil.example", 403), ("hub.example.evil", 403)]:
        check(f"a hub for a network, called {name}", hub.ask("GET", "/api/models", headers={"Host": name})[0] == status)
    got = hub.ask("GET", "/api/models?limit=1", headers={"Host": f"vitabu.local:{hub.port}"})
    check("pages go on under the name it was called", f"<http://vitabu.local:{hub.port}/" in got[1]["link"], got)
    hub.stop()

    hub = Hub(WORK / "share", "--closed")
    check("closed", hub.get("/api/models")[0] == 401 and hub.get("/")[0] == 401
          and hub.get("/acme/plain/resolve/main/data.bin")[0] == 401)
    check("open to the token", hub.get("/api/models", **WRITE)[0] == 200)
    hub.stop()
    fails(2, WORK / "nothing")
    fails(2)
    fails(2, WORK / "share", "--read-write")
    fails(2, WORK / "share", "--port", "many")
    fails(2, WORK / "share", "--read-write", env={"MBUYU_HUB_TOKEN": "short"}.items())
    fails(2, WORK / "share", "--no-such")
    check("the token is in no log", TOKEN not in (WORK / "hub.log").read_text())
    print(f"{checks} checks, {failures} failed")
    sys.exit(1 if failures else 0)


main()
