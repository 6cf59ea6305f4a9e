#!/usr/bin/env bash
# test_serve_paths.sh - no request makes `mbuyu serve`, or a run it starts, open a file that lies elsewhere than
# the folders it was given: canary files are watched (inotify), and their text is looked for everywhere.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
cat >paths.py <<'PYTHON'
import ctypes, json, os, pathlib, shutil, struct, sys, time, wave, zlib
from serve_client import Server, check, finish

reference = pathlib.Path(sys.argv[1])
CANARY = b"canary-4711"


def sound(path):
    with wave.open(str(path), "wb") as w:
        w.setparams((1, 2, 8000, 0, "NONE", ""))
        w.writeframes(b"".join(struct.pack("<h", 8000 if i // 10 % 2 else -8000) for i in range(2400)))


def picture(path):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(16))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


# What lies elsewhere, and what may be read.
secret, data = pathlib.Path("secret").resolve(), pathlib.Path("data").resolve()
for folder in (secret, data):
    (folder / "sounds").mkdir(parents=True)
    (folder / "classes/a").mkdir(parents=True)
    sound(folder / "sounds/a.wav")
    picture(folder / "classes/a/a.png")
chat = [{"messages": [{"role": "user", "content": f"mti {i}"}, {"role": "assistant", "content": f"{CANARY.decode()} {i}"}]} for i in range(8)]
(secret / "chat.jsonl").write_text("".join(json.dumps(r) + "\n" for r in chat))
(secret / "text.txt").write_bytes(CANARY + b"\n" * 3)
(secret / "b.txt").write_bytes(CANARY + b"\n")
(secret / "template.jinja").write_bytes(b"{{ messages }} " + CANARY)
(secret / "recipe.resolved.yaml").write_bytes(b"system_prompt: " + CANARY)
shutil.copytree(reference / "llama", secret / "model")
shutil.copytree(reference / "lora-llama", secret / "adapter")
(data / "chat.jsonl").write_text("".join(json.dumps(r) + "\n" for r in chat).replace(CANARY.decode(), "mti"))
(data / "link.jsonl").symlink_to(secret / "chat.jsonl")
(data / "linked").symlink_to(secret)
(data / "linked-classes/a").mkdir(parents=True)
(data / "linked-classes/a/a.png").symlink_to(secret / "classes/a/a.png")
(data / "linked-train").mkdir()
(data / "linked-train/train.jsonl").symlink_to(secret / "chat.jsonl")
(data / "linked-metadata").mkdir()
(data / "linked-metadata/metadata.jsonl").symlink_to(secret / "chat.jsonl")
(data / "pairs.en").write_text("a\n")
(data / "pairs.x").mkdir()
(data / "pairs.y").symlink_to(secret / "b.txt")
whisper = data / "whisper"
shutil.copytree(reference / "whisper", whisper)
(whisper / "preprocessor_config.json").write_text('{"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 10}')
(whisper / "generation_config.json").chmod(0o644)
(whisper / "generation_config.json").write_text('{"is_multilingual": true, "eos_token_id": 2, "decoder_start_token_id": 3, "begin_suppress_tokens": [8, 2]}')

# Who opens a file that is watched is seen: also a child, also one that reads nothing.
libc = ctypes.CDLL(None, use_errno=True)
IN_OPEN = 0x20


def watch(paths):
    fd = libc.inotify_init1(os.O_NONBLOCK)
    named = {libc.inotify_add_watch(fd, os.fsencode(p), IN_OPEN): p for p in paths}
    assert fd >= 0 and -1 not in named, "inotify"
    return fd, named


def opened(watching):
    fd, named = watching
    seen = set()
    while True:
        try:
            events = os.read(fd, 1 << 16)
        except BlockingIOError:
            return seen
        while events:
            number, _, _, n = struct.unpack("iIII", events[:16])
            seen.add(str(named[number]))
            events = events[16 + n:]


canaries = watch(p for p in secret.rglob("*") if p.is_file())
allowed = watch([data / "chat.jsonl", data / "sounds/a.wav", data / "classes/a/a.png"])

server = Server(f"tiny={reference / 'llama'}", f"vit={reference / 'vit-cls'}", f"whisper={whisper}", "language=sw", "--runs", "runs", "--data", "data")
server.start()
answers = []


def ask(path, body=None):
    status, text, _ = server.ask(path, body)
    answers.append(text)
    return status, text


def upload(name, content):
    status, body, _ = server.upload(content, name)
    answers.append(body)
    check(f"{name} is uploaded", status == 200, body)
    return json.loads(body)["id"]


def lines(*rows):
    return "".join(json.dumps(r) + "\n" for r in rows).encode()


def look(model, file, **settings):
    return ask("/mbuyu/inspect", {"model": model, "data": file, "settings": settings})


def train(model, file, **settings):
    status, body = ask("/v1/fine_tuning/jobs", {"model": model, "training_file": file, "mbuyu": {"settings": settings}})
    job = json.loads(body)
    end = time.time() + 120
    while status == 200 and job["status"] not in ("succeeded", "failed") and time.time() < end:
        time.sleep(0.1)
        job = json.loads(ask("/v1/fine_tuning/jobs/" + job["id"])[1])
    return status, job


speech = {"task": "speech-recognition", "language": "sw", "max_length": 20}
images = {"task": "image-classification", "num_labels": 0}
pairs = {"task": "seq2seq", "max_length": 20}

# What may be read is read: the watch sees it, so silence below means something.
status, body = look("whisper", upload("s.jsonl", lines({"audio": str(data / "sounds/a.wav"), "text": "aba"})), **speech)
check("a sound in an allowed folder is looked at", status == 200, body)
status, body = look("vit", upload("p.jsonl", lines({"file_name": str(data / "classes/a/a.png"), "label": 1})), **images)
check("a picture in an allowed folder is looked at", status == 200, body)
check("a sound by its way through dots, too", look("whisper", upload("s.jsonl", lines({"audio": str(data / "classes/../sounds/a.wav"), "text": "aba"})), **speech)[0] == 200)
status, body = look("tiny", "data/chat.jsonl", chat_template="chatml", max_length=64)
check("and texts", status == 200, body)

# Rows of uploads that name files elsewhere: absolute, with dots, through a link, as an object, in a table, by a field map.
up = "../../../../secret/"
places = [lambda p: str(secret / p), lambda p: up + p, lambda p: str(data / "linked" / p), lambda p: str(data / ".." / "secret" / p), lambda p: os.path.relpath(secret / p)]
bad = []
for place in places:
    good = {"audio": str(data / "sounds/a.wav"), "text": "aba"}
    for name in ("sounds/a.wav", "text.txt", "none.wav"):
        bad.append(("whisper", "s.jsonl", lines(good, {"audio": place(name), "text": "aba"}), speech, 2))
    bad.append(("whisper", "s.jsonl", lines({"audio": {"path": place("sounds/a.wav"), "bytes": None}, "text": "aba"}), speech, 1))
    bad.append(("whisper", "s.csv", f"file_name,transcription\n{place('sounds/a.wav')},aba\n".encode(), speech, 2))
    bad.append(("whisper", "s.jsonl", lines({"x": place("sounds/a.wav"), "text": "aba"}), speech | {"field_map": {"audio": "x"}}, 1))
    bad.append(("vit", "p.jsonl", lines({"file_name": place("classes/a/a.png"), "label": 1}), images, 1))
    bad.append(("vit", "p.jsonl", lines({"file_name": place("text.txt"), "label": 1}), images, 1))
    bad.append(("vit", "p.csv", f"file_name,label\n{place('classes/a/a.png')},1\n".encode(), images, 2))
for model, name, content, settings, line in bad:
    status, body = look(model, upload(name, content), **settings)
    message = json.loads(body).get("error", {}).get("message", "") if status == 400 else ""
    check(f"refused: {content}", f":{line}: there is no " in message and "below the folders that may be read" in message, (status, body))
for model, name, content, settings, line in bad[:1] + bad[8:9]:
    status, job = train(model, upload(name, content), **settings)
    check(f"a job of it fails: {content}", job.get("status") == "failed" and f":{line}: there is no " in job["error"]["message"], job)
status, job = train("whisper", upload("s.jsonl", bad[0][2]), bad_rows="skip", max_steps=1, **speech)
check("where bad rows are left out the others are learned", job.get("status") == "succeeded", job)
seen = opened(allowed)
check("the watch sees what is opened", len(seen) == 3, seen)

# Data sets of the operator's folders with links that lead elsewhere, and a second side of pairs.
for model, where, settings in [("tiny", "linked-train", {"chat_template": "chatml"}), ("tiny", "linked-metadata", {"chat_template": "chatml"}), ("vit", "linked-classes", images),
                               ("tiny", "link.jsonl", {}), ("tiny", "linked/chat.jsonl", {}), ("tiny", "../secret/chat.jsonl", {}), ("vit", "linked/classes", images)]:
    status, body = look(model, f"data/{where}", **settings)
    check(f"refused: {where}", status == 400 and b"there is no" in body, (status, body))
for target in ("x/../../secret/b.txt", "y", "x/../linked/b.txt"):
    status, body = look("tiny", "data/pairs.en", source_lang="en", target_lang=target, **pairs)
    check(f"no second side {target}", status == 400, (status, body))

# Names of models, adapters, files and runs; keys that name files; what requests for answers carry.
for path in (secret / "model", secret / "adapter", data / "linked/model", "data/../secret/model"):
    check(f"no model {path}", look(str(path), "data/chat.jsonl")[0] == 400)
    check(f"nor to train {path}", train(str(path), "data/chat.jsonl")[0] == 400)
    for route, more in (("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}), ("/v1/completions", {"prompt": "a"}), ("/v1/embeddings", {"input": "a"}),
                        ("/v1/classifications", {"input": "a"}), ("/v1/images/classifications", {"image": "AA=="}), ("/v1/translations", {"input": "a"}), ("/tokenize", {"content": "a"})):
        status, body = ask(route, {"model": str(path), **more})
        check(f"{route} knows no {path}", status in (400, 404), (status, body))
for file in (str(secret / "chat.jsonl"), f"file://{secret}/chat.jsonl", "file-../../../../secret/chat.jsonl", f"dataset:{secret}", ["x"], {"path": str(secret)}):
    check(f"no training file {file}", ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": file})[0] == 400)
    if isinstance(file, str):
        check(f"no validation file {file}", ask("/v1/fine_tuning/jobs", {"model": "tiny", "training_file": "data/chat.jsonl", "validation_file": file})[0] == 400)
for settings in ({"chat_template": str(secret / "template.jinja")}, {"allowed_local_media_path": ["/"]}, {"allowed_local_media_path": []}, {"adapter_path": str(secret / "adapter")},
                 {"export_check_file": str(secret / "text.txt")}, {"prompts_file": str(secret / "text.txt")}, {"resume_from_checkpoint": str(secret)}):
    check(f"refused: {settings}", look("tiny", "data/chat.jsonl", **settings)[0] == 400)
check("no recipe by a path", ask("/mbuyu/inspect", {"model": "tiny", "data": "data/chat.jsonl", "recipe": str(secret / "recipe.resolved")})[0] == 400)
for part in ({"type": "image_url", "image_url": {"url": f"file://{secret}/classes/a/a.png"}}, {"type": "input_audio", "input_audio": {"data": str(secret / "sounds/a.wav"), "format": "wav"}},
             {"type": "file", "file": {"file_id": str(secret / "text.txt")}}):
    ask("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": [part]}], "max_tokens": 1})
for image in (f"file://{secret}/classes/a/a.png", str(secret / "classes/a/a.png"), f"data:{secret}/classes/a/a.png"):
    check(f"no picture {image}", ask("/v1/images/classifications", {"model": "vit", "image": image})[0] == 400)
for path in ("/mbuyu/choices", "/mbuyu/run/file?id=0/../../secret&name=recipe", "/mbuyu/run/inspect?id=0/..%2f..%2fsecret", "/v1/files/file-..%2f..%2f..%2fsecret/content", "/..%2fsecret/text.txt"):
    ask(path)

check("nobody opened a file that lies elsewhere", not opened(canaries), opened(canaries))
check("and no answer has its text", not any(CANARY in a for a in answers), [a for a in answers if CANARY in a])
server.stop()
found = [p for p in pathlib.Path("runs").rglob("*") if p.is_file() and not p.is_symlink() and CANARY in p.read_bytes()]
check("nor has a file of the runs", not found, found)
print(len(answers), "requests")
finish()
PYTHON
clients paths.py "$MB_TEST_DATA/reference" || fail 'paths.py'

finish
