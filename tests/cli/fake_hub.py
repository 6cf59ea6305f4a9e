"""A hub on this machine whose link breaks in the ways links break, from the standard library.

    hub = FakeHub(files, token="hf_canary", cut_every=200_000)
    ... HF_ENDPOINT=hub.url ...
    hub.sent, hub.requests, hub.close()

It answers what `mbuyu pull` asks a hub for (revision, tree, files) at two origins: the hub's own and,
with redirect="cdn", one that files are fetched from. Every fault is a keyword, described where it is
acted out. Requests are kept as (origin, method, path, headers); `sent` counts bytes of file bodies.
"""
import gzip
import hashlib
import json
import random
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 32 << 10
PAGE = b"<!DOCTYPE html><html><head><title>Hotel Wi-Fi</title></head><body>Log in</body></html>" * 40


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path):
    return path.endswith((".safetensors", ".bin", ".parquet"))


def entry(path, data):
    e = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
    if is_lfs(path):
        e["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return e


class Cut(Exception):
    """The connection ends here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except (Cut, ConnectionError, TimeoutError):
            self.close_connection = True

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, origin = self.server.hub, self.server.origin
        with hub.lock:
            hub.requests.append((origin, self.command, self.path, dict(self.headers)))
        path, _, query = self.path.partition("?")
        if path.startswith("http://"):  # asked as a proxy
            path = "/" + path[7:].partition("/")[2]
        if hub.f("page_all"):
            return self.body(200, PAGE, {"Content-Type": "text/html"})
        if origin == "other":
            return self.body(200, b"nothing to see", {})
        if hub.wants_token and origin == "hub" and \
                self.headers.get("Authorization") != f"Bearer {hub.wants_token}":
            return self.error(401, "RepoNotFound")
        if path.startswith("/api/"):
            return self.api(hub, path, query)
        return self.file(hub, origin, path, query)

    # --- answers
    def spoil(self, data):
        """A few bytes of an answer become others."""
        data, chance = bytearray(data), self.server.hub.chance
        with self.server.hub.lock:
            for _ in range(chance.choice((0, 0, 1, 1, 2, 8)) if data else 0):
                at = chance.randrange(len(data))
                way = chance.randrange(4)
                if way == 0:
                    data[at] = chance.randrange(256)
                elif way == 1:
                    data[at] = ord(chance.choice('{}[]",:0-9./\\e '))
                elif way == 2:
                    del data[at:at + chance.randrange(1, 9)]
                else:
                    data[at:at] = data[at:at + chance.randrange(1, 40)] * chance.randrange(1, 4)
                if not data:
                    break
        return bytes(data)

    def body(self, status, data, heads):
        if self.server.hub.f("spoil"):
            data = self.spoil(data)
            heads = {k: "".join(c for c in self.spoil(v.encode()).decode("latin-1") if c >= " ")
                     for k, v in heads.items()}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **heads}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status, code=None, heads=None):
        heads = dict(heads or {})
        if code:
            heads.update({"X-Error-Code": code, "X-Error-Message": f"{code} (it says)"})
        self.body(status, b'{"error":"no"}', heads)

    def redirect(self, to, status=302):
        self.body(status, b"", {"Location": to})

    def cut(self, reset):
        if reset:  # RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        raise Cut

    def stall(self):
        self.connection.settimeout(60)
        self.connection.recv(1)  # until the client leaves
        raise Cut

    # --- the API
    def api(self, hub, path, query):
        if (fault := hub.turn("api_status")) is not None:
            return self.error(*fault)
        if hub.f("api_page"):
            return self.body(200, PAGE, {"Content-Type": "text/html"})
        if hub.f("api_drop"):
            self.cut(False)
        if "/revision/" in path:
            revision = path.rpartition("/")[2]
            sha = hub.refs.get(revision, revision)
            if sha not in hub.commits:
                return self.error(404, "RevisionNotFound")
            return self.json({"id": "org/name", "sha": hub.f("sha") or sha})
        if "/tree/" in path:
            sha = path.rpartition("/")[2]
            entries = hub.entries(sha)
            if hub.f("newcommit"):  # main moves on after the listing
                hub.refs["main"] = "f" * 40
            return self.pages(hub, path, query, entries)
        return self.error(404, "RepoNotFound")

    def pages(self, hub, path, query, entries):
        size = hub.f("page")
        if not size:
            return self.json(entries)
        at = int(query.rpartition("cursor=")[2]) if "cursor=" in query else 0
        heads = {}
        if at + size < len(entries) or hub.f("page_circle"):
            to = at if hub.f("page_circle") else at + size
            heads["Link"] = f'<{hub.url}{path}?recursive=true&cursor={to}>; rel="next"'
        return self.json(entries[at:at + size], heads)

    def json(self, value, heads=None):
        hub = self.server.hub
        data = json.dumps(value).encode()
        if (cut := hub.f("json_cut")) is not None:
            data = data[:cut]
        data = hub.f("json") or data
        heads = {"Content-Type": "application/json", **(heads or {})}
        if hub.f("json_gzip"):
            data = gzip.compress(data)
            heads["Content-Encoding"] = "gzip"
        if hub.f("json_endless"):
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"[" + b" " * PIECE)
        self.body(200, data, heads)

    # --- files
    def file(self, hub, origin, path, query):
        if (fault := hub.turn("status", origin)) is not None:
            return self.error(*fault)
        parts = path.split("/resolve/", 1)
        if len(parts) != 2:
            return self.error(404)
        sha, _, name = parts[1].partition("/")
        name = urllib.parse.unquote(name)
        data = hub.commits.get(sha, {}).get(name)
        if data is None:
            return self.error(404, "EntryNotFound")
        where = hub.f("redirect")
        if where == "loop":
            return self.redirect(path)
        if where == "long":
            n = int(query or 0)
            return self.redirect(f"{path}?{n + 1}")
        if where == "other":
            return self.redirect(hub.origins["other"] + "/x")
        if where == "plain":
            return self.redirect(hub.origins["other"].replace("https:", "http:") + "/x")
        if where == "scheme":
            return self.redirect("ftp://127.0.0.1/x")
        if where == "nowhere":
            return self.body(302, b"", {})
        if where == "cdn" and origin == "hub":
            return self.redirect(f"{hub.origins['cdn']}{path}?Signature=secret&Expires=1")
        if where == "relative" and not query:
            return self.redirect(path.rpartition("/")[2] + "?again")
        if hub.f("page_files"):
            return self.body(200, PAGE, {"Content-Type": "text/html"})
        if hub.turn("page_once"):
            return self.body(200, PAGE, {"Content-Type": "text/html"})
        if not is_lfs(name):  # what follows happens to large files
            return self.body(200, data, {})
        if hub.turn("drop"):
            self.cut(False)
        self.send_file(hub, name, data)

    def asked(self, size):
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes="):
            return None
        return int(asked[6:].split("-")[0])

    def send_file(self, hub, name, data):
        size, start = len(data), self.asked(len(data))
        if hub.turn("short"):
            data = data[:-1]
        if hub.turn("flip"):
            at = len(data) // 2
            data = data[:at] + bytes([data[at] ^ 4]) + data[at + 1:]
        if hub.turn("zeros"):
            data = data[:size // 2] + bytes(size - size // 2)
        if hub.turn("garbage"):
            data = hashlib.shake_256(b"garbage").digest(size)
        heads = {"Accept-Ranges": "bytes"}
        if not hub.f("nohdr"):
            heads.update({"ETag": f'"{git_sha1(data)}"', "X-Repo-Commit": hub.refs["main"]})
        status = 200
        if start is not None and not hub.f("norange"):
            if hub.f("r416") or start >= len(data):
                return self.body(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            first, wrong = start, hub.f("badrange")
            if wrong == "none":
                pass
            else:
                said = {None: start, "zero": 0, "late": start + 1000, "text": "x"}[wrong]
                heads["Content-Range"] = f"bytes {said}-{size - 1}/{size}"
            if wrong == "zero":
                first = 0
            if wrong == "late":
                first = start + 1000
            data = data[:len(data) - first] if hub.turn("lierange") else data[first:]
        if hub.f("gzip"):
            data = gzip.compress(data, 1)
            heads["Content-Encoding"] = "gzip"
        self.send_response(status)
        for key, value in heads.items():
            self.send_header(key, value)
        way = "chunked" if hub.f("chunked") else "close" if hub.f("nolength") or hub.f("endless") \
            else "length"
        if way == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif way == "close":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(data) + (hub.f("long") or 0)))
        for i in range(hub.f("heads") or 0):
            self.send_header(f"X-Filler-{i}", "x" * 1000)
        self.end_headers()
        if self.command != "HEAD":
            self.stream(hub, data + b"x" * (hub.f("long") or 0), way)

    def stream(self, hub, data, way):
        """The bytes, with what happens to them on the way."""
        limit = hub.f("cut_every") or (hub.turn("cut_once"))
        stop = hub.f("stall_every") or (hub.turn("stall_once"))
        at = 0
        while at < len(data) or hub.f("endless"):
            piece = data[at:at + PIECE] or b"z" * PIECE
            for edge in (limit, stop):
                if edge and at + len(piece) > edge:
                    piece = piece[:edge - at]
            if piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if way == "chunked" else piece)
            at += len(piece)
            with hub.lock:
                hub.sent += len(piece)
            if limit and at >= limit:
                time.sleep(hub.f("settle") or 0)
                self.cut(hub.f("reset"))
            if stop and at >= stop:
                self.stall()
            if hub.f("pace"):
                time.sleep(len(piece) / hub.f("pace"))
        if way == "chunked":
            self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, address):
        pass


class FakeHub:
    def __init__(self, files, wants_token=None, evil=None, tls=None, **faults):
        self.lock = threading.Lock()
        self.faults, self.turns = faults, {}
        self.requests, self.sent = [], 0
        self.wants_token = wants_token
        sha = hashlib.sha1(b"".join(sorted(p.encode() for p in files))).hexdigest()
        self.commits, self.refs = {sha: files}, {"main": sha, "v1": sha}
        if faults.get("newcommit"):
            self.commits["f" * 40] = {p: d[::-1] for p, d in files.items()}
        self.sha, self.evil = sha, evil
        self.chance = random.Random(faults.get("spoil"))
        self.servers, self.origins = [], {}
        for origin in ("hub", "cdn", "other"):
            server = Server(("127.0.0.1", 0), Handler)
            server.hub, server.origin = self, origin
            if tls:  # (certificate, key)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*tls)
                server.socket = context.wrap_socket(server.socket, server_side=True,
                                                    do_handshake_on_connect=False)
            self.origins[origin] = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.servers.append(server)
        self.url = self.origins["hub"]

    def f(self, name):
        return self.faults.get(name)

    def turn(self, name, origin="hub"):
        """A fault that is a list happens once for each of its elements; others always."""
        fault = self.faults.get(name)
        if isinstance(fault, dict):  # by origin
            fault = fault.get(origin)
        elif name == "status" and origin != "hub":
            return None
        if not isinstance(fault, list):
            return fault
        with self.lock:
            n = self.turns[name] = self.turns.get(name, -1) + 1
        return fault[n] if n < len(fault) else None

    def entries(self, sha):
        listed = [entry(p, d) for p, d in self.commits.get(sha, {}).items()]
        for e in self.evil or []:
            listed.append({**entry("evil.txt", b"evil"), **(e if isinstance(e, dict) else {"path": e})})
        return listed

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()


if __name__ == "__main__":
    import pathlib
    import sys

    folder = pathlib.Path(sys.argv[1])
    faults = {k: json.loads(v) for k, v in (a.split("=", 1) for a in sys.argv[2:])}
    hub = FakeHub({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*")
                   if p.is_file()}, **faults)
    print(hub.url, flush=True)
    threading.Event().wait()
