#!/usr/bin/env bash
# test_serve_limits.sh - what clients leave with `mbuyu serve` is bounded: bytes and number of uploads, jobs that
# are remembered; and what a server finds that is started again after it was killed.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
cat >limits.py <<'PYTHON'
import concurrent.futures, ctypes, http.client, json, pathlib, signal, subprocess, sys, time, urllib.parse
from serve_client import FORM, MBUYU, Server, check, finish, until, upload_head

files, jobs = pathlib.Path("runs/.serve/files"), pathlib.Path("runs/.serve/jobs")
server = Server(f"tiny={sys.argv[1]}", "--runs", "runs")


def ask(*request, **more):
    status, text, _ = server.ask(*request, **more)
    return status, json.loads(text)


def upload(content):
    status, text, _ = server.upload(content)
    return status, json.loads(text)


def sentence(answer, part):
    return answer[0] == 400 and part in answer[1]["error"]["message"] and answer[1]["error"]["type"] == "invalid_request_error"


limits = ("--uploads-max", "100000", "--files-max", "4", "--jobs-max", "3", "--upload-max", "60000")
server.start(*limits)

# --- bytes of all uploads
check("a file that is too large is refused", sentence(upload(b"x" * 60001), "larger than 60000 bytes"))
status, one = upload(b"x" * 60000)
check("one within the limits is taken", status == 200, one)
check("nor one for which no room is left", sentence(upload(b"x" * 40001), "100000 bytes"))
check("nothing of it is left", until(lambda: [p.name for p in files.iterdir()] == [one["id"]]), list(files.iterdir()))
status, two = upload(b"x" * 40000)
check("what just fits is taken", status == 200, two)
check("and then nothing", sentence(upload(b"x"), "of which 0 are left"))
check("what was refused is not kept", until(lambda: sorted(p.name for p in files.iterdir()) == sorted([one["id"], two["id"]])), list(files.iterdir()))
status, gone = ask("/v1/files/" + one["id"], method="DELETE")
check("a file is deleted as OpenAI has it", (status, gone) == (200, {"id": one["id"], "object": "file", "deleted": True}), gone)
for method in ("DELETE", "GET"):
    check("and is gone", ask("/v1/files/" + one["id"], method=method)[0] == 404)
check("which makes room", upload(b"x" * 60000)[0] == 200)
for f in ask("/v1/files")[1]["data"]:
    ask("/v1/files/" + f["id"], method="DELETE")

# --- who reads while it is deleted finds it whole or not at all
def read_to_the_end(path):
    codes = [0]
    while codes[-1] in (0, 200):
        codes.append(ask(path)[0])
    return codes[-1]


for _ in range(30):
    id = upload(b"{}\n")[1]["id"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read_to_the_end, f"/v1/files/{id}{more}") for more in ("", "/content") * 4]
        time.sleep(0.02)
        ask("/v1/files/" + id, method="DELETE")
    codes = {r.result() for r in readers}
    check("a file that goes is not found", codes == {404}, codes)

# --- many at once share the room
with concurrent.futures.ThreadPoolExecutor(12) as pool:
    answers = list(pool.map(lambda _: upload(b"x" * 30000), range(12)))
check("three of 30000 bytes fit, whoever comes first", 1 <= [s for s, _ in answers].count(200) <= 3 and {s for s, _ in answers} <= {200, 400}, answers)
check("no more is on the disk than may be", sum(p.stat().st_size for p in files.rglob("data*")) <= 100000)
for f in ask("/v1/files")[1]["data"]:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        codes = sorted(s for s, _ in pool.map(lambda _: ask("/v1/files/" + f["id"], method="DELETE"), range(4)))
    check("one of four deletes it", codes == [200, 404, 404, 404], codes)
check("nothing is left", until(lambda: list(files.iterdir()) == []), list(files.iterdir()))

# --- their number, and an upload that is cut off
kept = [upload(b"{}\n")[1] for _ in range(4)]
check("four files are taken", all("id" in k for k in kept), kept)
check("a fifth is not", sentence(upload(b"{}\n"), "at most 4 uploaded files"))
check("they are listed", [f["id"] for f in ask("/v1/files")[1]["data"]] == sorted(k["id"] for k in kept))
ask("/v1/files/" + kept[0]["id"], method="DELETE")


def begin(length=50000):
    c = http.client.HTTPConnection(urllib.parse.urlparse(server.url).netloc)
    c.putrequest("POST", "/v1/files")
    for name, value in {**FORM, "Content-Length": str(length)}.items():
        c.putheader(name, value)
    c.endheaders()
    c.send(upload_head() + b"y" * 20000)
    return c


parts = lambda: [p for p in files.iterdir() if p.suffix == ".part"]
c = begin()
check("an upload has begun", until(lambda: any(p.stat().st_size > 10000 for d in parts() for p in d.iterdir())))
check("it counts", sentence(upload(b"{}\n"), "at most 4"))
c.close()
check("who hangs up leaves nothing", until(lambda: parts() == []), parts())
check("and gives the room back", until(lambda: upload(b"{}\n")[0] == 200))
ask("/v1/files/" + ask("/v1/files")[1]["data"][0]["id"], method="DELETE")
slow = begin(200000)
check("one has begun that will be too large", until(lambda: len(parts()) == 1))
slow.send(b"y" * 50000)
check("it is gone from the disk while its client still sends", until(lambda: parts() == [], 5), parts())
slow.send(b"y" * (130000 - len(upload_head())))
check("who hears the reason in the end", slow.getresponse().status == 400)
slow.close()
check("and its room is there", until(lambda: upload(b"{}\n")[0] == 200))
ask("/v1/files/" + ask("/v1/files")[1]["data"][0]["id"], method="DELETE")
c = begin()
check("another has begun", until(lambda: len(parts()) == 1))
listed = ask("/v1/files")[1]["data"]

# --- jobs: the last three that ended are remembered
rows = "".join(json.dumps({"messages": [{"role": "user", "content": "mti"}, {"role": "assistant", "content": f"tree {i}"}]}) + "\n" for i in range(8))
name = pathlib.Path("runs/rows.jsonl")
name.write_text(rows)
job = lambda **more: ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": str(name), "suffix": "run", "mbuyu": {"settings": {"no_such_key": 1}}, **more})
ended = lambda: [j["id"] for j in ask("/v1/fine_tuning/jobs?limit=100")[1]["data"] if j["status"] in ("failed", "succeeded", "cancelled")]
made = []
for _ in range(6):
    made.append(job()[1]["id"])
    until(lambda: made[-1] in ended())
check("the last three are known", until(lambda: ended() == made[:2:-1]), (ended(), made))
check("of the others nothing is kept", until(lambda: {p.name.split(".")[0] for p in jobs.iterdir()} == set(made[3:])), list(jobs.iterdir()))
check("nor can they be asked for", ask("/v1/fine_tuning/jobs/" + made[0])[0] == 404 and ask(f"/v1/fine_tuning/jobs/{made[0]}/events")[0] == 404)
check("a refused job leaves no recipe", job(mbuyu={"recipe": "chat-lora", "settings": {"output_dir": "x"}})[0] == 400 and len(list(jobs.glob("*.yaml"))) == 0, list(jobs.iterdir()))
good = {"settings": {"chat_template": "chatml", "max_length": 64, "max_steps": 1}}
last = job(mbuyu=good)[1]["id"]
check("one that works pushes out the oldest", until(lambda: ended() == [last, *made[:3:-1]], 120), (ended(), made))

# --- killed in the middle of an upload, with a job that waits
waits = [job(mbuyu={"settings": {**good["settings"], "max_steps": 100000}})[1]["id"] for _ in range(2)]
running = lambda: [j["id"] for j in ask("/v1/fine_tuning/jobs?limit=100")[1]["data"] if j["status"] == "running"]
check("one runs, one waits", until(lambda: running() == waits[:1]))
every = lambda: [j["id"] for j in ask("/v1/fine_tuning/jobs?limit=100")[1]["data"]]
before = every()
server.kill()
check("what came is there, half of it", len(parts()) == 1, parts())
(files.parent / "picture-x.png").write_bytes(b"x")
server.start(*limits)
check("the next server removes what is half", parts() == [] and not (files.parent / "picture-x.png").exists(), parts())
check("and has the files", ask("/v1/files")[1]["data"] == listed, listed)
check("and the jobs, in their order", before[:5] == [*reversed(waits), last, *made[:3:-1]] and every() == before, (before, every()))
check("room is counted from what is there", upload(b"{}\n")[0] == 200 and sentence(upload(b"{}\n"), "at most 4"))
for w in reversed(waits):
    ask(f"/v1/fine_tuning/jobs/{w}/cancel", b"", headers={"Content-Type": "application/json"})
check("they end", until(lambda: set(waits) <= set(ended()), 60), ended())
check("and three are remembered", until(lambda: len(ended()) == 3), ended())
server.stop()

# --- fewer are remembered by a server that is told so
server.start("--jobs-max", "1")
check("the rest is forgotten", until(lambda: len(ended()) == 1 and len(list(jobs.glob("*.json"))) == 1), ended())
check("runs stay", any(pathlib.Path("runs").glob("run*/final")), list(pathlib.Path("runs").iterdir()))
server.stop()


# --- the system may give a signal to any thread that has it not blocked
def takers(number):
    """All but the first thread, which waits for it."""
    tasks = pathlib.Path(f"/proc/{server.process.pid}/task")
    blocked = lambda t: int((t / "status").read_text().split("SigBlk:")[1].split()[0], 16)
    return [int(t.name) for t in tasks.iterdir() if int(t.name) != server.process.pid and not blocked(t) >> (number - 1) & 1]


for number in (signal.SIGINT, signal.SIGTERM):
    server.start()
    for t in takers(number)[:1] or [server.process.pid]:
        check("a thread is given a signal", ctypes.CDLL(None).tgkill(server.process.pid, t, number) == 0)
    check("and the server ends", server.process.wait(20) == 0)
for bad in (("--files-max", "0"), ("--jobs-max", "x"), ("--uploads-max", "-1")):
    check(f"refused: {bad}", subprocess.run([MBUYU, "serve", "--runs", "runs", *bad], capture_output=True).returncode == 2)
finish()
PYTHON
clients limits.py "$MB_TEST_DATA/reference/llama" || fail 'limits.py'

finish
