#!/usr/bin/env bash
# test_jobs.sh - files, jobs and runs of `mbuyu serve` at the level of requests: what may be named, what is
# refused, what a child's environment holds, a queue, and what a server finds that is started again.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
mkdir data secret
for i in $(seq 24); do
    printf '{"messages": [{"role": "user", "content": "mti %d"}, {"role": "assistant", "content": "tree %d"}]}\n' "$i" "$i"
done | tee data/chat.jsonl >secret/chat.jsonl
ln -s ../secret/chat.jsonl data/link.jsonl
export MBUYU_API_KEY=canary-4711

cat >jobs.py <<'EOF'
import json, os, pathlib, signal, subprocess, sys, time, urllib.error, urllib.request

mbuyu, llama = sys.argv[1], sys.argv[2]
key = os.environ["MBUYU_API_KEY"]
failures = 0


def check(what, good, seen=""):
    global failures
    failures += not good
    if not good:
        print("FAILED:", what, str(seen)[:400])


def start():
    p = subprocess.Popen([mbuyu, "serve", f"tiny={llama}", "--port", "0", "--runs", "runs", "--data", "data", "--upload-max", "100000"],
                         stdout=subprocess.PIPE, text=True)
    return p, p.stdout.readline().strip()


def ask(path, body=None, method=None, headers={}, key=key):
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    q = urllib.request.Request(url + path, data, {"Authorization": "Bearer " + key, **headers}, method=method)
    try:
        with urllib.request.urlopen(q) as a:
            return a.status, a.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def job(id):
    return json.loads(ask("/v1/fine_tuning/jobs/" + id)[1])


def wait(id, *states):
    end = time.time() + 120
    while job(id)["status"] not in states and time.time() < end:
        time.sleep(0.2)
    return job(id)


def form(name, content, purpose="fine-tune"):
    b = "----b"
    return ask("/v1/files", (f'--{b}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n--{b}\r\nContent-Disposition: form-data; '
                             f'name="file"; filename="{name}"\r\n\r\n').encode() + content + f"\r\n--{b}--\r\n".encode(),
               headers={"Content-Type": f"multipart/form-data; boundary={b}"})


settings = {"chat_template": "chatml", "max_length": 64}
server, url = start()
check("the page needs no key, the rest does", ask("/", key="x")[0] == 200 and ask("/mbuyu/runs", key="x")[0] == 401 and ask("/v1/files", key="x")[0] == 401)
check("scripts are gzipped for who wants them", ask("/page.js", headers={"Accept-Encoding": "gzip"})[1][:2] == b"\x1f\x8b" and ask("/page.js")[1][:2] != b"\x1f\x8b")
check("a recipe is not part of the page", ask("/chat-lora.yaml")[0] == 404)

rows = pathlib.Path("data/chat.jsonl").read_bytes()
status, body = form("../../rows.jsonl", rows)
file = json.loads(body)
check("an upload has the last part of its name", status == 200 and file["filename"] == "rows.jsonl", body)
check("and is what was sent", ask(f"/v1/files/{file['id']}/content")[1] == rows)
check("too large an upload is refused", form("large.jsonl", b"x" * 100001)[0] == 400)
check("so is another purpose", form("a.jsonl", b"x", "evil")[0] == 400)
check("nothing of them is left", sorted(p.name for p in pathlib.Path("runs/.serve/files").iterdir()) == [file["id"]])
for id in ["file-none", "../jobs", "file-..%2f..", "%2e%2e"]:
    check(f"no file {id}", ask("/v1/files/" + id)[0] in (400, 404))

foreign = str(pathlib.Path("secret/chat.jsonl").resolve())
for bad in [{"training_file": foreign}, {"training_file": "data/../secret/chat.jsonl"}, {"training_file": "data/link.jsonl"}, {"training_file": "/dev/zero"},
            {"model": "/etc", "training_file": "data/chat.jsonl"}, {"training_file": "data/chat.jsonl", "suffix": "a/b"},
            {"training_file": "data/chat.jsonl", "suffix": ".serve"}, {"training_file": "data/chat.jsonl", "method": {"type": "dpo"}},
            *({"training_file": "data/chat.jsonl", "mbuyu": {"settings": s}} for s in
              [{"output_dir": "x"}, {"datasets": "x"}, {"predictions_file": "x"}, {"eval_datasets.path": "x"}, {"chat_template": "/etc/passwd"},
               {"a=b": 1}, {"~x": 1}, {"--ranks": 4}, {"max_length": "1\n2"}])]:
    status, body = ask("/v1/fine_tuning/jobs", {"model": "tiny", **bad})
    check(f"refused: {bad}", status == 400 and "root:" not in body.decode() and json.loads(body)["error"]["message"], (status, body))
for path in ["/mbuyu/run/log?id=0/..", "/mbuyu/run/file?id=0/../x&name=recipe", "/mbuyu/run/file?id=0/.serve&name=recipe", "/mbuyu/run/file?id=9/x&name=recipe",
             "/mbuyu/run/inspect?id=0/none", "/mbuyu/run/confusion?id=0/none"]:
    status, body = ask(path)
    check(f"nothing at {path}", status in (400, 404) or body == b"", (status, body))


def new(name, **more):
    return json.loads(ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": file["id"], "suffix": name, "mbuyu": {"settings": settings}, **more})[1])


long = new("long", hyperparameters={"n_epochs": 100000})
second, third = new("short", hyperparameters={"n_epochs": 1}), new("never")
wait(long["id"], "running")
check("one runs, the others wait", [job(j["id"])["status"] for j in (long, second, third)] == ["running", "queued", "queued"])
pid = json.loads(pathlib.Path(f"runs/.serve/jobs/{long['id']}.json").read_text())["pid"]
check("a child knows no key", key.encode() not in pathlib.Path(f"/proc/{pid}/environ").read_bytes())
check("a job that waits is taken back", json.loads(ask(f"/v1/fine_tuning/jobs/{third['id']}/cancel", b"")[1])["status"] == "cancelled")
time.sleep(1)
server.send_signal(signal.SIGTERM)
check("the server ends at once", server.wait(20) == 0)
server, url = start()
check("the run went on", job(long["id"])["status"] == "running" and pathlib.Path(f"/proc/{pid}").exists())
ask(f"/v1/fine_tuning/jobs/{long['id']}/cancel", b"")
stopped = wait(long["id"], "cancelled", "failed", "succeeded")
check("it is stopped by a server that did not start it", stopped["status"] == "cancelled", stopped)
check("and has left an adapter", pathlib.Path("runs/long/final/adapter_model.safetensors").exists())
done = wait(second["id"], "succeeded", "failed")
check("the one that waited ran", done["status"] == "succeeded", done)
names = [m["id"] for m in json.loads(ask("/v1/models")[1])["data"]]
check("both models are served", {stopped["fine_tuned_model"], done["fine_tuned_model"]} <= set(names) and "short" in done["fine_tuned_model"], names)
log = lambda: ask("/mbuyu/run/log?id=0/long")[1].decode().splitlines()
before = len(log())
again = json.loads(ask(f"/v1/fine_tuning/jobs/{long['id']}/resume", b"")[1])
check("a stopped job can go on", again["status"] == "queued", again)
end = time.time() + 60
while len(log()) <= before and time.time() < end:
    time.sleep(0.2)
steps = [json.loads(line)["step"] for line in log() if "grad_norm" in line]
check("its log goes on without a gap", steps == list(range(1, len(steps) + 1)) and len(steps) > before, (before, steps))
ask(f"/v1/fine_tuning/jobs/{long['id']}/cancel", b"")
newer = wait(long["id"], "cancelled", "failed")
check("and its newer model is served beside the older", newer["fine_tuned_model"] not in (None, stopped["fine_tuned_model"]), newer)
bad = new("bad", mbuyu={"settings": settings | {"no_such_key": 1}})
failed = wait(bad["id"], "failed", "succeeded")
check("a run that fails says why", failed["status"] == "failed" and "no_such_key" in failed["error"]["message"], failed)
server.send_signal(signal.SIGTERM)
check("the server ends", server.wait(20) == 0)
sys.exit(failures > 0)
EOF
timeout 280 python3 -P jobs.py "$MBUYU" "$MB_TEST_DATA/reference/llama" || fail 'jobs.py'
grep -rl canary-4711 runs && fail 'the key is in a file'

finish
