# environment: page
"""screenshots.py MBUYU DATA MATERIALS PEFT_PYTHON FOLDER - the pictures of the page that the README shows: a small
language model learns to translate Swahili, a vision transformer learns Fashion-MNIST, and both are tried. Takes
some minutes. PEFT_PYTHON needs Pillow, which makes the pictures small.
"""
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests" / "peers"))
from page import MATERIALS, PEFT_PYTHON, By, Page, Server, answers, until  # noqa: E402

FOLDER = pathlib.Path(sys.argv[5])
SHRINK = ("import sys; from PIL import Image\n"
          "i = Image.open(sys.argv[1]).convert('RGB').quantize(96, dither=Image.Dither.NONE); i.save(sys.argv[1], optimize=True)")


def shot(p, name):
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / (name + ".png")
    p.d.save_screenshot(str(path))
    subprocess.run([PEFT_PYTHON, "-c", SHRINK, path], check=True)
    print(path, path.stat().st_size, flush=True)


def make_data(work):
    data = work / "data"
    data.mkdir()
    rows = [json.loads(line) for line in open(MATERIALS / "swahili" / "train.chat.jsonl")]
    short = [r for r in rows if sum(len(m["content"]) for m in r["messages"]) < 110]
    random.Random(4).shuffle(short)
    (data / "swahili.jsonl").write_text("".join(json.dumps(r) + "\n" for r in short[:600]))
    for kind in sorted((MATERIALS / "fashion-mnist" / "train").iterdir()):
        (data / "clothes" / kind.name).mkdir(parents=True)
        for picture in sorted(kind.iterdir())[:150]:
            shutil.copy(picture, data / "clothes" / kind.name)
    return data


def begin(p, model, data, recipe, name, **settings):
    p.open("start")
    until(lambda: p.d.find_elements(By.CSS_SELECTOR, "#base option"))
    p.choose("base", model)
    p.choose("recipe", recipe)
    for option in p.d.find_elements(By.CSS_SELECTOR, "#data option"):
        if option.text.startswith(data):
            option.click()
    p.type("suffix", name)
    p.type("more", "\n".join(f"{k}: {v}" for k, v in settings.items()))


def wait(p, word, seconds):
    if not until(lambda: p.text("run-state") == word, seconds, 1):
        raise SystemExit("the run is " + p.text("run-state") + " " + p.text("run-note") + p.text("run-console"))


def main():
    work = pathlib.Path(tempfile.mkdtemp())
    data = make_data(work)
    server = Server(work, "smollm2=" + str(MATERIALS / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"), "--data", data,
                    "--data", MATERIALS / "fashion-mnist" / "model", "--ctx", "1024", "--slots", "2")
    p = Page(server.url)
    try:
        begin(p, "model", "clothes", "fashion-mnist-vit", "clothes", max_steps=240, per_device_train_batch_size=32, eval_steps=60, save_steps=240,
              per_device_eval_batch_size=50)
        p.click("begin")
        until(lambda: "#runs/" in p.d.current_url)
        wait(p, "finished", 900)
        begin(p, "smollm2", "swahili.jsonl", "chat-lora", "kiswahili", max_length=96, packing=False, max_steps=60, eval_steps=15, save_steps=60,
              val_set_size=6, gradient_checkpointing=False, gradient_accumulation_steps=2, max_new_tokens=24)
        p.click("look")
        until(lambda: p.shows("look-card"))
        p.d.execute_script("document.querySelector('#start-form fieldset:nth-of-type(3)').scrollIntoView()")
        time.sleep(0.5)
        shot(p, "start")
        p.click("begin")
        until(lambda: "#runs/" in p.d.current_url)
        until(lambda: int(p.d.execute_script("return document.querySelector('#facts b')?.textContent.split('/')[0]") or 0) > 40, 1500, 2)
        p.d.execute_script("scrollTo(0, 150)")
        time.sleep(1)
        shot(p, "run")
        wait(p, "finished", 1500)
        p.click("run-try")
        until(lambda: "kiswahili" in p.id("model").get_attribute("value"), 120)
        tuned = p.id("model").get_attribute("value")
        p.choose("model", "smollm2")
        p.choose("other", tuned)
        asked = json.loads(open(data / "swahili.jsonl").readlines()[3])["messages"]
        p.d.execute_script("document.getElementById('most').value = 48; document.getElementById('temperature').value = 0")
        for message in asked:
            if message["role"] == "user":
                p.type("say", message["content"].replace("\n", " ") + "\n")
                break
        until(lambda: "·" in p.text("speed"), 300)
        print(answers(p))
        p.d.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
        shot(p, "compare")
        p.open("runs")
        until(lambda: len(p.d.find_elements(By.CSS_SELECTOR, "#run-list button")) == 2)
        [b for b in p.d.find_elements(By.CSS_SELECTOR, "#run-list button") if "clothes" in b.text][0].click()
        until(lambda: p.shows("run-try"))
        p.click("run-try")
        until(lambda: "clothes" in p.id("model").get_attribute("value"), 60)
        p.click("theme")
        p.id("picture-file").send_keys(str(sorted((MATERIALS / "fashion-mnist" / "test").glob("*oot*/*.png"))[3]))
        until(lambda: p.d.find_elements(By.CSS_SELECTOR, "#picture-out .bar"), 60)
        p.d.execute_script("document.getElementById('picture').style.width = '14rem'; document.activeElement.blur()")
        shot(p, "picture")
        p.d.quit()
        p = Page(server.url, phone=True)
        p.open("try")
        p.choose("language", "Kiswahili")
        p.open("runs")
        time.sleep(2)
        shot(p, "phone")
    finally:
        p.d.quit()
        server.end()
        shutil.rmtree(work, ignore_errors=True)


main()
