#!/usr/bin/env bash
# tests/cli/test_serve.sh - `mbuyu serve` against clients that are wrong, hostile or gone: malformed
# requests, paths that climb, names that are not ours, streams that are cut. No client library.
set -u
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null; rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive LC_ALL=C.UTF-8
reference=$MB_TEST_DATA/reference

# refused CODE PATTERN WORDS...: serve ends by itself with this exit code and sentence
refused() {
    local code=$1 pattern=$2 out got
    shift 2
    out=$(timeout 60 "$MBUYU" serve "$@" 2>&1 </dev/null)
    got=$?
    [ $got -eq "$code" ] || fail "exit code $got, not $code: serve $* -> $out"
    grep -qF -e "$pattern" <<<"$out" || fail "no '$pattern' from: serve $* -> $out"
}

# begin WORDS...: starts a server; its address in $url
begin() {
    : >"$work/out"
    "$MBUYU" serve "$@" --port 0 >"$work/out" 2>"$work/log" </dev/null &
    server=$!
    for _ in $(seq 300); do
        read -r url <"$work/out" && return
        sleep 0.1
    done
    fail "serve $* does not start: $(cat "$work/log")"
    exit 1
}

refused 2 'nothing to serve'
refused 2 'nowhere' "$work/nowhere"
refused 2 '--port wants a number' "$reference/gpt2" --port 70000
refused 2 '--slots wants a number from 1 to 256, not "nothing"' "$reference/gpt2" --slots
refused 2 'two models are called gpt2' "$reference/gpt2" "$reference/gpt2"
refused 2 'is not an address of this machine' "$reference/gpt2" --host name.example --port 0
refused 2 '--key-file' "$reference/gpt2" --key-file "$work/no-key"
refused 4 'mbuyu predict' "$reference/bert-qa"

cp -r "$reference/bert-embed" "$work/e"
cp "$reference/bert-cls/tokenizer.json" "$work/e"
begin "$reference/gpt2" cls="$reference/bert-cls" pictures="$reference/vit-cls" e="$work/e" \
    t5="$reference/t5" whisper="$reference/whisper" --slots 4 --queue 16

cat >"$work/hostile.py" <<'PYTHON'
import concurrent.futures
import json
import os
import re
import socket
import sys
import time

host, port, pid = "127.0.0.1", int(sys.argv[1]), int(sys.argv[2])
wrong = 0


def fail(says):
    global wrong
    wrong += 1
    print("FAILED:", says, file=sys.stderr)


def raw(data, seconds=20, wait=True):
    s = socket.create_connection((host, port), timeout=seconds)
    try:
        s.sendall(data)
    except OSError:
        pass
    answer = b""
    while wait:
        try:
            piece = s.recv(65536)
        except OSError:
            break
        if not piece:
            break
        answer += piece
    s.close()
    return answer


def status(answer):
    m = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(m.group(1)) if m else 0


def ask(method, path, body=b"", headers=(), host_name="127.0.0.1"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host_name}", "Connection: close", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return raw("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


def expect(answer, code, says):
    got = status(answer)
    codes = code if isinstance(code, tuple) else (code,)
    if got not in codes:
        fail(f"{got}, not {code}: {says} -> {answer[:300]!r}")


def memory():
    text = ask("GET", "/metrics")
    return {m.group(1).decode(): float(m.group(2)) for m in re.finditer(rb"^(\w+) (\S+)$", text, re.M)}


post = [("/v1/chat/completions", "messages"), ("/v1/completions", "prompt"), ("/v1/embeddings", "input"),
        ("/v1/classifications", "input"), ("/v1/translations", "input"), ("/v1/images/classifications", "image"),
        ("/tokenize", "content"), ("/detokenize", "tokens")]
bodies = [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"a":1,"a":2}', b'{"model":7}', b"\xff\xfe", b"{} x",
          b"[" * 3000, b'{"a":' * 3000, b'{"model":"\\ud800"}', b"NaN", b"{'a':1}"]
requests = [(path, b) for path, _ in post for b in bodies]
for path, field in post:
    for value in ("null", "true", "{}", '{"a":[1,2]}', "1e400", "-1", '""', "[[]]"):
        if (field, value) in (("content", '""'), ("content", "null")):
            continue
        requests.append((path, b'{"%s":%s}' % (field.encode(), value.encode())))
forms = [b"", b"--x--\r\n", b"--x\r\n\r\n\r\n--x--", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--",
         b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nRIFF\r\n--x--",
         b"--x\r\n" + b"A: b\r\n" * 3000 + b"\r\n--x--", b"--y\r\n", b"--x\r\nContent-Disposition: form-data; name=\"" +
         b"n" * 5000 + b"\"\r\n\r\n\r\n--x--"]


def round_of_malformed():
    n = 0
    for path, body in requests:
        answer = ask("POST", path, body, ["Content-Type: application/json"])
        n += 1
        if not 400 <= status(answer) < 500:
            fail(f"{path} {body[:60]!r} -> {answer[:200]!r}")
            continue
        text = answer.split(b"\r\n\r\n", 1)[1]
        error = json.loads(text)["error"]
        if set(error) != {"message", "type", "param", "code"} or not error["message"]:
            fail(f"{path} {body[:60]!r}: {text!r}")
    for body in forms:
        n += 1
        expect(ask("POST", "/v1/audio/transcriptions", body, ["Content-Type: multipart/form-data; boundary=x"]),
               400, f"form {body[:40]!r}")
    for kind in ("text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary="
                 + "b" * 200):
        n += 1
        expect(ask("POST", "/v1/audio/transcriptions", b"--x--", [f"Content-Type: {kind}"]), 400, kind)
    return n


n = round_of_malformed()
before = memory()
for _ in range(3):
    n += round_of_malformed()
after = memory()
print(f"{n} malformed requests: {before['process_resident_memory_bytes'] / 1e6:.1f} MB, then "
      f"{after['process_resident_memory_bytes'] / 1e6:.1f} MB; descriptors {before['process_open_fds']:.0f}, "
      f"{after['process_open_fds']:.0f}")
if after["process_resident_memory_bytes"] > before["process_resident_memory_bytes"] + 4e6:
    fail("memory grew over malformed requests")
if after["process_open_fds"] > before["process_open_fds"] + 1:
    fail("descriptors grew over malformed requests")

# paths, methods, names
for path in ("/../../etc/passwd", "/v1/models/..", "/v1/models/%2e%2e", "/v1/models/..%2f..%2fetc", "/%00",
             "/v1/models/%ff", "/v1/models/%zz", "/v1/models/a/../../x", "/v1/models/..\\x"):
    expect(ask("GET", path), 400, path)
for path in ("/etc/passwd", "/v1", "/v1/models/", "/v1/files/x/y/z", "/v2/models"):
    expect(ask("GET", path), 404, path)
for method, path in (("GET", "/v1/chat/completions"), ("PUT", "/v1/models"), ("DELETE", "/health"),
                     ("OPTIONS", "/v1/models"), ("PATCH", "/tokenize")):
    answer = ask(method, path)
    expect(answer, 405, f"{method} {path}")
    if b"\r\nAllow: " not in answer:
        fail(f"405 without Allow: {method} {path}")
for name in ("evil.example", "localhost.evil.example", "192.0.2.7", "127.0.0.1.nip.io"):
    expect(ask("GET", "/v1/models", host_name=name), 403, f"Host {name}")
for name in ("localhost", "127.0.0.1:1", "[::1]", "LOCALHOST"):
    expect(ask("GET", "/v1/models", host_name=name), 200, f"Host {name}")
for origin in ("http://evil.example", "null", "http://localhost:1", "https://127.0.0.1.evil.example", "file://"):
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/completions"), ("OPTIONS", "/v1/completions")):
        answer = ask(method, path, b"{}" if method == "POST" else b"", [f"Origin: {origin}"])
        expect(answer, 403, f"Origin {origin}")
        if b"access-control-allow" in answer.lower():
            fail(f"CORS is granted to {origin}")
expect(ask("GET", "/v1/models", headers=["Origin: http://127.0.0.1"]), 200, "our own Origin")

# every answer has its policies, script comes back as text
answer = ask("GET", "/v1/models/<script>alert(1)</script>")
expect(answer, 404, "a script as a model")
for header in (b"content-security-policy: default-src 'none'", b"x-content-type-options: nosniff",
               b"referrer-policy: no-referrer", b"content-type: application/json"):
    if header not in answer.lower():
        fail(f"no {header!r}: {answer[:600]!r}")

# bodies that are too large, announced or not
expect(ask("POST", "/v1/chat/completions", b" " * (5 << 20)), 413, "5 MiB of chat")
chunked = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
expect(raw(chunked + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 80 + b"0\r\n\r\n"), 413, "5 MiB in chunks")
expect(raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100000 + b"\r\n\r\n"), (413, 431), "a long head")
expect(raw(b"GET /" + b"y" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"), (413, 414, 431), "a long line")

# it still answers
body = json.dumps({"model": "gpt2", "prompt": [[1, 2, 3]], "max_tokens": 4, "temperature": 0}).encode()
first = ask("POST", "/v1/completions", body)
expect(first, 200, "a completion")

# streams that are cut
long = json.dumps({"model": "gpt2", "prompt": [[1, 2, 3]], "max_tokens": 60, "stream": True,
                   "logit_bias": {}}).encode()
head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(long)


def cut(i):
    s = socket.create_connection((host, port), timeout=60)
    s.sendall(head + long)
    if i % 3:
        s.recv(1 if i % 3 == 1 else 300)
    s.close()


cuts = int(sys.argv[3])
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(cut, range(cuts)))
for _ in range(600):
    m = memory()
    if m["mbuyu_slots_busy"] == 0 and m["mbuyu_requests_waiting"] == 0:
        break
    time.sleep(0.05)
print(f"{cuts} cut streams: {m['mbuyu_asks_total']:.0f} asks, {m['mbuyu_asks_cancelled_total']:.0f} cancelled, "
      f"{m['mbuyu_slots_busy']:.0f} slots busy, {m['mbuyu_cache_blocks_used']:.0f} blocks used, "
      f"{m['process_open_fds']:.0f} descriptors, {m['process_resident_memory_bytes'] / 1e6:.1f} MB")
if m["mbuyu_slots_busy"] or m["mbuyu_requests_waiting"] or m["mbuyu_cache_blocks_used"]:
    fail("cut streams keep slots or blocks")
if m["process_open_fds"] > after["process_open_fds"] + 2:
    fail("cut streams keep descriptors")
again = ask("POST", "/v1/completions", body)
if json.loads(first.split(b"\r\n\r\n", 1)[1])["choices"] != json.loads(again.split(b"\r\n\r\n", 1)[1])["choices"]:
    fail("the same request has another answer after the storm")


# sounds that wait behind a long one: those whose clients hung up leave the queue, and its bytes are counted
def send_sound(seconds):
    second = bytes(range(0, 250, 2)) * 256
    n = (32000 * seconds).to_bytes(4, "little")
    body = (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF' + n + b"WAVEfmt \x10\0\0\0\1\0\1\0"
            + (16000).to_bytes(4, "little") + (32000).to_bytes(4, "little") + b"\2\0\x10\0data" + n
            + second * seconds + b"\r\n--x--\r\n")
    s = socket.create_connection((host, port), timeout=60)
    s.sendall(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
              b"boundary=x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return s


def answered(s, seconds):
    s.settimeout(seconds)
    try:
        return status(s.recv(100))
    except OSError:
        return 0


def refusals(sockets):
    return sum(answered(s, 0.1) == 429 for s in sockets)


long_one = send_sound(1500)
queue = [send_sound(1) for _ in range(40)]
refused = refusals(queue)
for s in queue:
    s.close()
for _ in range(10):
    s = send_sound(1)
    got = answered(s, 0.2)
    s.close()
    if got != 429:
        break
print(f"40 sounds behind a long one: {refused} are refused; after they hung up another is "
      f"{'refused' if got == 429 else 'taken'}")
if not 1 <= refused <= 24:  # 24 when the long one outlasts them all, fewer where it is soon heard
    fail(f"{refused} of 40 sounds are refused by a queue of 16")
if got == 429:
    fail("clients that hung up keep their places")
queue = [send_sound(1500) for _ in range(14)] if os.environ.get("MB_LONG") == "1" else []
if queue:
    refused = refusals(queue)
    print(f"14 sounds of 48 MB: {refused} are refused")
    if not 2 <= refused <= 4:
        fail("sounds of more than 512 MiB wait")
for s in queue + [long_one]:
    s.close()
sys.exit(1 if wrong else 0)
PYTHON
cuts=300
[ "${MB_LONG:-0}" = 1 ] && cuts=1000
python3 "$work/hostile.py" "${url##*:}" "$server" "$cuts" || fail "the server gave in"
kill -0 "$server" 2>/dev/null || fail "the server is dead: $(tail -n 5 "$work/log")"
grep -q '/tmp\|password' "$work/log" && fail "the log says too much: $(cat "$work/log")"
kill -TERM "$server"
wait "$server"
code=$?
[ $code -eq 0 ] || fail "SIGTERM: exit code $code: $(tail -n 5 "$work/log")"

# stopping while answers are written
begin "$reference/gpt2" --slots 2
port=${url##*:}
for _ in 1 2 3 4; do
    exec {c}<>"/dev/tcp/127.0.0.1/$port"
    body='{"model":"gpt2","prompt":[[1,2,3]],"max_tokens":60,"stream":true}'
    printf 'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body" >&"$c"
done
kill -INT "$server"
wait "$server"
code=$?
[ $code -eq 0 ] || fail "SIGINT in the middle: exit code $code: $(tail -n 5 "$work/log")"

# a stream goes on while a long sound is written down: between pieces and between their tokens
begin "$reference/gpt2" whisper="$reference/whisper" --slots 4
python3 - "$url" <<'PYTHON' || fail 'a long sound held a stream up'
import io
import json
import random
import sys
import threading
import time
import urllib.request
import wave

url = sys.argv[1]
sound = io.BytesIO()
with wave.open(sound, "wb") as w:
    w.setnchannels(1)
    w.setsampwidth(2)
    w.setframerate(16000)
    w.writeframes(random.Random(1).randbytes(2 * 16000 * 60))
form = b"".join(b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field for field in
                [(b"model", b"whisper"), (b"stream", b"true"), (b'file"; filename="a.wav', sound.getvalue())]) + b"--x--"
pieces, tokens = [], []
begun, over = threading.Event(), threading.Event()


def events(path, body, kind):
    request = urllib.request.Request(url + path, data=body, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=300) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                yield time.monotonic(), json.loads(line[6:])


def write_texts():
    body = json.dumps({"model": "gpt2", "prompt": [1, 2, 3], "max_tokens": 100, "stream": True, "logit_bias": {}}).encode()
    while not over.is_set():
        last = None
        for now, _ in events("/v1/completions", body, "application/json"):
            tokens.append((now, now - last if last is not None else 0.0))
            last = now
            begun.set()


writer = threading.Thread(target=write_texts)
writer.start()
begun.wait(60)
start = time.monotonic()
for now, event in events("/v1/audio/transcriptions", form, "multipart/form-data; boundary=x"):
    if event["type"].endswith("delta"):
        pieces.append(now)
over.set()
writer.join()
within = [gap for at, gap in tokens if pieces[0] < at < pieces[-1]]
longest = max(b - a for a, b in zip([start] + pieces, pieces))
print(f"{len(pieces)} pieces, the longest {longest:.3f} s; {len(within)} tokens meanwhile, at most {max(within):.3f} s apart")
# four pieces in one call had let two tokens through between their ends
sys.exit(not (len(pieces) >= 8 and len(within) > 5 * len(pieces) and max(within) < longest + 0.2))
PYTHON
kill "$server"
wait "$server" || fail 'the server of a sound and a text'

# a run's adapter beside its base: two models, two answers
mkdir "$work/run"
touch "$work/run/recipe.resolved.yaml"
cp -r "$reference/lora-llama" "$work/run/base"
cp -r "$reference/lora-llama/adapter-after-10-steps" "$work/run/final"
begin base="$work/run/base" "$work/run"
said=$(PYTHONPATH=$(dirname "${BASH_SOURCE[0]}") python3 - "$url" <<'PYTHON'
import json
import sys
from serve_client import ask


def said(path, body=None):
    return json.loads(ask(sys.argv[1] + path, body)[1])


ids = [m["id"] for m in said("/v1/models")["data"]]
lp = [said("/v1/completions", {"model": m, "prompt": [1, 2, 3], "max_tokens": 2, "temperature": 0, "logprobs": 0})
      ["choices"][0]["logprobs"]["token_logprobs"] for m in ids]
print(*ids, "differ" if lp[0] != lp[1] else "alike")
PYTHON
)
[ "$said" = "base base:run differ" ] || fail "a run beside its base: $said"
kill -TERM "$server"
wait "$server" || fail "SIGTERM beside an adapter"
[ $failures -eq 0 ]
