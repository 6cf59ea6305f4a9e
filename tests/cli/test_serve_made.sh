#!/usr/bin/env bash
# test_serve_made.sh - what a run made, taken away over HTTP: files of its model and nothing else, by ranges; and
# the same model as a GGUF file, with the comparison shown.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
export MBUYU_LOG=info MBUYU_API_KEY=canary-4711
cat >made.py <<'PYTHON'
import concurrent.futures, ctypes, json, os, pathlib, signal, sys, urllib.parse
from serve_client import Server, check, finish, until

runs = pathlib.Path("runs")
server = Server(f"tiny={sys.argv[1]}", "--runs", "runs", "--data", "data", key=os.environ["MBUYU_API_KEY"], log="log")
ask = server.ask


def made(run):
    return json.loads(ask("/mbuyu/run/made?id=0/" + run)[1])


def get(run, name, place="final", **more):
    return ask("/mbuyu/run/made/file?" + urllib.parse.urlencode({"id": "0/" + run, "place": place, "name": name}), **more)


pathlib.Path("data").mkdir()
pathlib.Path("data/chat.jsonl").write_text("".join(
    json.dumps({"messages": [{"role": "user", "content": f"mti {i}"}, {"role": "assistant", "content": f"tree {i}"}]}) + "\n" for i in range(16)))
server.start()
status, body, _ = ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": "data/chat.jsonl", "suffix": "trees",
                                               "mbuyu": {"settings": {"chat_template": "chatml", "max_length": 64, "max_steps": 2}}})
check("a run begins", status == 200, body)
job = json.loads(body)["id"]
check("and ends", until(lambda: json.loads(ask("/v1/fine_tuning/jobs/" + job)[1])["status"] == "succeeded"), ask("/v1/fine_tuning/jobs/" + job)[1])

# --- files
final = runs / "trees/final"
listed = {f["name"]: f["bytes"] for f in made("trees")["data"]}
check("all files of the model are listed", listed == {str(p.relative_to(final)): p.stat().st_size for p in final.rglob("*") if p.is_file()}, listed)
check("nothing was exported", made("trees")["gguf"] == {"state": "none", "said": ""}, made("trees"))
for name in listed:
    status, body, headers = get("trees", name)
    check(f"{name} comes as it is", status == 200 and body == (final / name).read_bytes() and headers["Content-Disposition"] == f'attachment; filename="{name}"', (status, headers))
weights = (final / "adapter_model.safetensors").read_bytes()
for given, want in (("bytes=0-0", weights[:1]), ("bytes=5-99", weights[5:100]), ("bytes=-7", weights[-7:]), ("bytes=100-", weights[100:])):
    status, body, headers = get("trees", "adapter_model.safetensors", headers={"Range": given})
    check(f"a part of it: {given}", status == 206 and body == want and headers["Content-Range"].endswith(f"/{len(weights)}"), (status, headers))
check("no part behind the end", get("trees", "adapter_model.safetensors", headers={"Range": f"bytes={len(weights)}-"})[0] == 416)
check("without the key nothing", get("trees", "adapter_config.json", key="x")[0] == 401 and ask("/mbuyu/run/made?id=0/trees", key="x")[0] == 401
      and ask("/mbuyu/run/made/gguf?id=0/trees", {"dtype": "q8_0"}, key="x")[0] == 401)

# --- nothing else
pathlib.Path("secret").mkdir()
pathlib.Path("secret/canary.txt").write_text("canary-4712")
(final / "link.txt").symlink_to(pathlib.Path("secret/canary.txt").resolve())
(final / "linked").symlink_to(pathlib.Path("secret").resolve())
(final / "inside").mkdir()
(final / "inside/a b.txt").write_text("here")
(final / ".hidden").write_text("canary-4712")
(runs / "trees/logs/notes.txt").write_text("canary-4712")
for name in ("../recipe.resolved.yaml", "../logs/notes.txt", "link.txt", "linked/canary.txt", ".hidden", "inside", "", "/etc/passwd", "inside/../../logs/notes.txt", "..", "inside/..",
             "inside/../adapter_config.json", "a/b/c", "none", "x" * 400, "\r\nX: y", str(pathlib.Path("secret/canary.txt").resolve())):
    for place in ("final", "gguf", "logs", "..", "", "final/../logs"):
        status, body, headers = get("trees", name, place)
        check(f"nothing at {place!r} {name[:60]!r}", status in (400, 404) and b"canary" not in body and "X" not in headers, (status, body))
for run in ("..", ".serve", "trees/final", "none", "../secret"):
    check(f"no run {run}", get(run, "canary.txt")[0] in (400, 404) and ask("/mbuyu/run/made?id=0/" + run)[0] in (400, 404))
check("what is inside a folder of the model can be had", get("trees", "inside/a b.txt")[1] == b"here" and 'filename="a_b.txt"' in get("trees", "inside/a b.txt")[2]["Content-Disposition"])
check("links are listed no more than given", "linked/canary.txt" not in {f["name"] for f in made("trees")["data"]} and get("trees", "link.txt")[0] == 404, made("trees"))
for p in (final / "link.txt", final / "linked", final / "inside/a b.txt"):
    p.unlink()

# --- as GGUF
for bad in ({}, {"dtype": "q9"}, {"dtype": ["f16"]}, {"dtype": "q8_0 output_dir=/tmp/x"}, []):
    check(f"refused: {bad}", ask("/mbuyu/run/made/gguf?id=0/trees", bad)[0] == 400, ask("/mbuyu/run/made/gguf?id=0/trees", bad))
check("no run, no export", ask("/mbuyu/run/made/gguf?id=0/none", {"dtype": "q8_0"})[0] == 404)
status, body, _ = ask("/mbuyu/run/made/gguf?id=0/trees", {"dtype": "q8_0"})
check("an export begins", status == 200 and json.loads(body)["gguf"]["state"] == "running", body)
status, body, _ = ask("/mbuyu/run/made/gguf?id=0/trees", {"dtype": "q8_0"})
check("one at a time", status == 429 or made("trees")["gguf"]["state"] != "running", (status, body))
until(lambda: made("trees")["gguf"]["state"] != "running")
gguf = made("trees")["gguf"]
check("it is made, and what was compared is shown", gguf["state"] == "succeeded" and "read again and compared on" in gguf["said"] and "perplexity" in gguf["said"], gguf)
files = [f["name"] for f in made("trees")["data"] if f["place"] == "gguf" and f["name"].endswith(".gguf")]
check("the file can be had", len(files) == 1 and get("trees", files[0], "gguf")[1] == (runs / "trees/gguf" / files[0]).read_bytes() and get("trees", files[0], "gguf")[1][:4] == b"GGUF", files)

# --- many who ask at once
with concurrent.futures.ThreadPoolExecutor(12) as pool:
    codes = [s for s, _, _ in pool.map(lambda _: ask("/mbuyu/run/made/gguf?id=0/trees", {"dtype": "f16"}), range(12))]
check("one is answered that it begins, the others that they are to wait", set(codes) == {200, 429} and codes.count(429) > 5, codes)
until(lambda: made("trees")["gguf"]["state"] != "running")


# --- exports, and servers that end
# A group of processes that stands still and whose last parent in the session goes is hung up: be that parent.
PR_SET_CHILD_SUBREAPER = 36
check("orphans come here", ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def held():
    """An export that has begun and goes no further; its process."""
    for _ in range(5):
        ask("/mbuyu/run/made/gguf?id=0/trees", {"dtype": "q8_0"})
        try:
            pid = json.loads((runs / ".serve/export.json").read_text())["pid"]
            os.kill(pid, signal.SIGSTOP)
        except OSError:  # it has ended
            continue
        if made("trees")["gguf"]["state"] == "running":
            return pid
    return 0


def lives(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


pid = held()
check("an export is held", pid > 0)
(runs / "trees/gguf.part").mkdir(exist_ok=True)
server.stop()
check("and with it the export, of which nothing is left", not lives(pid) and not (runs / "trees/gguf.part").exists() and not (runs / ".serve/export.json").exists())
server.start()
check("the next one knows that it failed", made("trees")["gguf"]["state"] == "failed", made("trees"))
pid = held()
check("another is held", pid > 0)
server.kill()
server.start()
check("of a server that was killed it goes on", made("trees")["gguf"]["state"] == "running", made("trees"))
check("and is the only one", ask("/mbuyu/run/made/gguf?id=0/trees", {"dtype": "f16"})[0] == 429)
server.stop()
check("but not what it did not begin", lives(pid))
server.start()
os.kill(pid, signal.SIGCONT)
until(lambda: made("trees")["gguf"]["state"] != "running")
check("it ends well", made("trees")["gguf"]["state"] == "succeeded" and not (runs / "trees/gguf.part").exists(), made("trees"))
(runs / ".serve/export.json").write_text("{")
server.stop()
server.start()
check("a note of it that cannot be read stops nobody", made("trees")["gguf"]["state"] == "succeeded", made("trees"))

# --- one that cannot be: what is there no more is said, also by the next server
(final / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
ask("/mbuyu/run/made/gguf?id=0/trees", {"dtype": "f16"})
until(lambda: made("trees")["gguf"]["state"] != "running")
gguf = made("trees")["gguf"]
check("a failure says why", gguf["state"] == "failed" and "adapter_model.safetensors" in gguf["said"] and not (runs / "trees/gguf").exists(), gguf)
server.stop()
server.start()
check("the next one knows it, too", made("trees")["gguf"] == gguf, made("trees")["gguf"])
server.stop()
finish()
PYTHON
clients made.py "$MB_TEST_DATA/reference/llama" || fail 'made.py'

finish
