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
export MBUYU_API_KEY=canary-4711 SOME_VARIABLE=canary-4712 MBUYU_HUB_TOKEN=canary-4713 SLURM_JWT=canary-4714 LC_TIME=C
printf 'canary-4715 {{ messages }}\n' >secret/template.jinja

cat >jobs.py <<'EOF'
import concurrent.futures, json, os, pathlib, re, sys, time
from serve_client import Server, check, finish, until

llama, tables = sys.argv[1:3]
server = Server(f"tiny={llama}", "--upload-max", "100000", key=os.environ["MBUYU_API_KEY"])


def ask(*request, **more):
    return server.ask(*request, **more)[:2]


def job(id):
    return json.loads(ask("/v1/fine_tuning/jobs/" + id)[1])


def wait(id, *states):
    until(lambda: job(id)["status"] in states)
    return job(id)


both = ("--runs", "runs", "--data", "data")
settings = {"chat_template": "chatml", "max_length": 64}
server.start(*both)
check("the page needs no key, the rest does", ask("/", key="x")[0] == 200 and ask("/mbuyu/runs", key="x")[0] == 401 and ask("/v1/files", key="x")[0] == 401)
check("scripts are gzipped for who wants them", ask("/page.js", headers={"Accept-Encoding": "gzip"})[1][:2] == b"\x1f\x8b" and ask("/page.js")[1][:2] != b"\x1f\x8b")
check("a recipe is not part of the page", ask("/chat-lora.yaml")[0] == 404)

rows = pathlib.Path("data/chat.jsonl").read_bytes()
status, body, _ = server.upload(rows, "../../rows.jsonl")
file = json.loads(body)
check("an upload has the last part of its name", status == 200 and file["filename"] == "rows.jsonl", body)
check("and is what was sent", ask(f"/v1/files/{file['id']}/content")[1] == rows)
check("too large an upload is refused", server.upload(b"x" * 100001)[0] == 400)
check("so is another purpose", server.upload(b"x", purpose="evil")[0] == 400)
until(lambda: len(list(pathlib.Path("runs/.serve/files").iterdir())) == 1, 10)  # it is removed after the answer
check("nothing of them is left", sorted(p.name for p in pathlib.Path("runs/.serve/files").iterdir()) == [file["id"]])
for id in ["file-none", "../jobs", "file-..%2f..", "%2e%2e"]:
    check(f"no file {id}", ask("/v1/files/" + id)[0] in (400, 404))

foreign = str(pathlib.Path("secret/chat.jsonl").resolve())
for bad in [{"training_file": foreign}, {"training_file": "data/../secret/chat.jsonl"}, {"training_file": "data/link.jsonl"}, {"training_file": "/dev/zero"},
            {"model": "/etc", "training_file": "data/chat.jsonl"}, {"training_file": "data/chat.jsonl", "suffix": "a/b"},
            {"training_file": "data/chat.jsonl", "suffix": ".serve"}, {"training_file": "data/chat.jsonl", "method": {"type": "dpo"}},
            *({"training_file": "data/chat.jsonl", "mbuyu": {"settings": s}} for s in
              [{"output_dir": "x"}, {"datasets": "x"}, {"predictions_file": "x"}, {"eval_datasets.path": "x"}, {"chat_template": "/etc/passwd"},
               {"a=b": 1}, {"~x": 1}, {"--ranks": 4}, {"max_length": "1\n2"},
               *({k: v} for k in ("system_prompt", "completion_suffix", "metrics", "field_map.x", "chat_template_kwargs")
                 for v in ("${env:SOME_VARIABLE}", "a $${HOME} b", '"$\\x7benv:SOME_VARIABLE}"', ["x", "${output_dir}"], {"a": ["${env:HOME}"]})),
               *({k: '{a: "\\u0024{env:HOME}"}'} for k in ("field_map", "field_map.x", "chat_template_kwargs", "metrics")),
               *({"chat_template": v} for v in
                 (foreign, "data/chat.jsonl", "config.json", "'/etc/passwd'", '"/etc/passwd"', '"\\x2fetc\\x2fpasswd"', "/etc/{passwd",
                  "[/etc/passwd]", ["/etc/passwd"], "{/etc/passwd}", "${env:HOME}/{{"))])]:
    status, body = ask("/v1/fine_tuning/jobs", {"model": "tiny", **bad})
    check(f"refused: {bad}", status == 400 and "root:" not in body.decode() and json.loads(body)["error"]["message"], (status, body))

# Every key that names a file, by all its names and with places inside: none is forgotten.
rows_of = lambda file, macro: [re.findall(r'"(?:[^"\\]|\\.)*"|[^,"\s][^,"]*', line[len(macro) + 1:-1])
                               for line in (pathlib.Path(tables) / file).read_text().splitlines() if line.startswith(macro + "(")]
keys = {row[1]: row[3].strip('"') for row in rows_of("recipe.def", "MB_KEY")}
names = {a.strip('"'): b.strip('"') for a, b, *_ in rows_of("aliases.def", "MB_ALIAS")} | {k: k for k in keys}
paths = {k for k, accepts in keys.items() if accepts.startswith("path")}
check("the tables were read", len(keys) > 100 and len(names) > 200 and len(paths) > 11, (len(keys), len(names), len(paths)))
check("what is called after a file is marked as one", {k for k in keys if re.search(r"(^|_)(path|files?|dirs?|folder|checkpoint|datasets?)$", k)} <= paths,
      {k for k in keys if re.search(r"(^|_)(path|files?|dirs?|folder|checkpoint|datasets?)$", k)} - paths)
n = 0
for name, canonical in names.items():
    for inside in ("", ".0", ".0.path", ".x.y") if canonical in paths else ():
        for route in ("/v1/fine_tuning/jobs", "/mbuyu/inspect"):
            settings = {name + inside: str(pathlib.Path("secret/template.jinja").resolve())}
            status, body = ask(route, {"model": "tiny", "training_file": "data/chat.jsonl", "data": "data/chat.jsonl", "settings": settings, "mbuyu": {"settings": settings}})
            check(f"{name + inside} is refused", status == 400 and b"canary" not in body and "settings" not in json.loads(body).get("mbuyu", {}), (status, body))
            n += 1
check("all were tried", n > 250, n)
for template in ("chatml", "auto", "'chatml'", "{% for m in messages %}{{ m.content }}{% endfor %}"):
    status, body = ask("/mbuyu/inspect", {"model": "tiny", "data": "data/chat.jsonl", "settings": {"template": template, "max_length": 64}})
    check(f"a template may be {template}", status == 200 or (template == "auto" and b"has no chat template" in body), (status, body))
settings = {"chat_template": "chatml", "max_length": 64}
for path in ["/mbuyu/run/log?id=0/..", "/mbuyu/run/file?id=0/../x&name=recipe", "/mbuyu/run/file?id=0/.serve&name=recipe", "/mbuyu/run/file?id=9/x&name=recipe",
             "/mbuyu/run/inspect?id=0/none", "/mbuyu/run/confusion?id=0/none"]:
    status, body = ask(path)
    check(f"nothing at {path}", status in (400, 404) or body == b"", (status, body))

# A log that ends before its length, as files of /sys do: reading it fails.
short = [p for p in map(pathlib.Path, ("/sys/devices/system/cpu/online", "/sys/kernel/uevent_seqnum", "/sys/power/state"))
         if p.is_file() and p.stat().st_size > len(p.read_bytes())]
check("the system has a file that is shorter than it says", short)
for p in short:
    logs = pathlib.Path("runs/odd/logs")
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "train.jsonl").unlink(missing_ok=True)
    (logs / "train.jsonl").symlink_to(p)
    for path in ("/mbuyu/runs", "/mbuyu/run/log?id=0/odd"):
        for _ in range(3):
            status, body = ask(path)
    check("a log that cannot be read is no end of the server", ask("/mbuyu/runs")[0] == 200 and ask("/health")[0] == 200, ask("/mbuyu/runs"))


def new(name, **more):
    return json.loads(ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": file["id"], "suffix": name, "mbuyu": {"settings": settings}, **more})[1])


def refused(what, **more):
    status, body = ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": file["id"], "mbuyu": {"settings": settings}, **more})
    check(f"{what} is refused", status == 400, (status, body))


refused("metadata with a list", metadata=["x"])
refused("metadata of 17 pairs", metadata={str(i): "x" for i in range(17)})
refused("a long key of metadata", metadata={"k" * 65: "x"})
refused("a long value of metadata", metadata={"k": "x" * 513})
refused("a value of metadata that is no text", metadata={"k": {"a": "b"}})
refused("a job of a megabyte", method={"type": "supervised", "note": "x" * 900000})
refused("one that is larger as it is kept", method={"type": "supervised", "note": [0] * 300000})
check("no job was made of these", list(pathlib.Path("runs/.serve/jobs").glob("*.json")) == [])

long = new("long", hyperparameters={"n_epochs": 100000})
second, third = new("short", hyperparameters={"n_epochs": 1}), new("never")
wait(long["id"], "running")
check("one runs, the others wait", [job(j["id"])["status"] for j in (long, second, third)] == ["running", "queued", "queued"])
pid = json.loads(pathlib.Path(f"runs/.serve/jobs/{long['id']}.json").read_text())["pid"]
environ = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
check("a child knows no key and nothing else of ours", b"canary" not in environ and b"PATH=" in environ and b"LC_TIME=C" in environ, environ)
ours = {str(i): "\u00e9" * 256 for i in range(16)}
kept = [new("queue", metadata=ours) for _ in range(62)]
check("metadata is kept", kept[0]["metadata"] == ours, kept[0])
check("and as many as may wait", all(k.get("status") == "queued" for k in kept))
status, body = ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": file["id"], "mbuyu": {"settings": settings}})
check("one more is too many", status == 429 and "64" in json.loads(body)["error"]["message"], (status, body))
for k in kept:
    ask(f"/v1/fine_tuning/jobs/{k['id']}/cancel", b"")
check("a job that waits is taken back", json.loads(ask(f"/v1/fine_tuning/jobs/{third['id']}/cancel", b"")[1])["status"] == "cancelled")
time.sleep(1)
server.stop()
server.start(*both)
check("the run went on", job(long["id"])["status"] == "running" and pathlib.Path(f"/proc/{pid}").exists())
ask(f"/v1/fine_tuning/jobs/{long['id']}/cancel", b"")
stopped = wait(long["id"], "cancelled", "failed", "succeeded")
check("it is stopped by a server that did not start it", stopped["status"] == "cancelled", stopped)
check("and has left an adapter", pathlib.Path("runs/long/final/adapter_model.safetensors").exists())
done = wait(second["id"], "succeeded", "failed")
check("the one that waited ran", done["status"] == "succeeded", done)
names = [m["id"] for m in json.loads(ask("/v1/models")[1])["data"]]
check("both models are served", {stopped["fine_tuned_model"], done["fine_tuned_model"]} <= set(names) and "short" in done["fine_tuned_model"], names)
logged = lambda: [json.loads(line)["step"] for line in ask("/mbuyu/run/log?id=0/long")[1].decode().splitlines() if "grad_norm" in line]
before = len(logged())
again = json.loads(ask(f"/v1/fine_tuning/jobs/{long['id']}/resume", b"")[1])
check("a stopped job can go on", again["status"] == "queued", again)
until(lambda: len(logged()) > before, 60)
steps = logged()
check("its log goes on without a gap", steps == list(range(1, len(steps) + 1)) and len(steps) > before, (before, steps))
ask(f"/v1/fine_tuning/jobs/{long['id']}/cancel", b"")
newer = wait(long["id"], "cancelled", "failed")
check("and its newer model is served beside the older", newer["fine_tuned_model"] not in (None, stopped["fine_tuned_model"]), newer)
bad = new("bad", mbuyu={"settings": settings | {"no_such_key": 1}})
failed = wait(bad["id"], "failed", "succeeded")
check("a run that fails says why", failed["status"] == "failed" and "no_such_key" in failed["error"]["message"], failed)

# A run that cannot be written down is not left alone; files of jobs that cannot be read are left out.
before = new("before", hyperparameters={"n_epochs": 100000})
wait(before["id"], "running")
orphan = new("orphan", hyperparameters={"n_epochs": 100000})
jobs_there = pathlib.Path("runs/.serve/jobs")
place = jobs_there / f"{orphan['id']}.json"
place.unlink()
(place / "in the way").mkdir(parents=True)
ask(f"/v1/fine_tuning/jobs/{before['id']}/cancel", b"")
check("a job that cannot be saved fails", wait(orphan["id"], "failed", "running")["status"] == "failed", job(orphan["id"]))
mine = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if orphan["mbuyu"]["folder"].encode() in (p.read_bytes() if p.exists() else b"")]
check("and its run is ended", (jobs_there / f"{orphan['id']}.log").exists() and mine == [], mine)
after = new("after", hyperparameters={"n_epochs": 1})
check("the next one runs", wait(after["id"], "succeeded", "failed")["status"] == "succeeded", job(after["id"]))
(jobs_there / "ftjob-large.json").write_text(json.dumps({"id": "ftjob-large", "status": "queued", "metadata": "x" * (1 << 20)}))
(jobs_there / "ftjob-cut.json").write_text('{"id": "ftjob-cu')
(jobs_there / "ftjob-other.json").write_text('{"id": "x", "status": "queued"}')
recipe = {"model": "tiny", "data": "data/chat.jsonl", "recipe": "chat-lora", "settings": settings}
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(lambda _: ask("/mbuyu/inspect", recipe), range(24)))
check("looks at one recipe at one time are answered", {a for a, _ in answers} <= {200, 429} and (200 in {a for a, _ in answers}), answers)
server.stop()
server.start(*both)
listed = {j["id"] for j in json.loads(ask("/v1/fine_tuning/jobs?limit=1000")[1])["data"]}
check("a server starts beside files it cannot read", {after["id"], long["id"]} <= listed and not {orphan["id"], "ftjob-large", "ftjob-cut", "x"} & listed, listed)
server.stop()
server.start("--data", "data")
for path in ("/mbuyu/run/file?id=0/tmp&name=recipe", "/mbuyu/run/file?id=0/etc&name=samples"):
    check(f"without --runs there is no {path}", ask(path)[0] == 404, ask(path))
server.stop()
finish()
EOF
clients jobs.py "$MB_TEST_DATA/reference/llama" "$MB_TEST_DATA/../../recipes/config" || fail 'jobs.py'
grep -rl canary runs && fail 'the key is in a file'

finish
