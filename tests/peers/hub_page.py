#!/usr/bin/env python3
# environment: page
"""The pages of `mbuyu hub` in headless Chromium that finds no host but this one, as on a phone: found by
search, read, nothing of a card is run, nothing axe objects to, nothing on the console.

hub_page.py MBUYU
"""

import importlib.util
import pathlib
import sys
import tempfile
import urllib.parse

from axe_selenium_python import Axe
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


def load(name):
    path = pathlib.Path(__file__).parent / "hub" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clients = load("clients")
step, must = clients.step, clients.must

CARD = """---
license: apache-2.0
tags: ["<img src=x onerror=alert(1)>"]
---
# Jaribio <script>document.title = 'run'</script>

| one | two |
|---|---|
| <img src=x onerror="document.title = 'run'"> | [a](javascript:document.title='run') |

```
a very long line of code """ + "x" * 300 + """
```
"""


def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]:
        options.add_argument(argument)
    options.add_experimental_option(
        "mobileEmulation", {"deviceMetrics": {"width": 360, "height": 640, "pixelRatio": 1}})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def hosts_asked(page):
    import json
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield urllib.parse.urlsplit(message["params"]["request"]["url"]).netloc


def until(page, what):
    """The first true value of what(): a click's page takes the place of the old one while one looks."""
    gone = [NoSuchElementException, StaleElementReferenceException]
    return WebDriverWait(page, 20, poll_frequency=0.05, ignored_exceptions=gone).until(lambda _: what())


def look(page, hub, path):
    page.get(hub.url + path)
    wide, window = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    must(wide <= window, f"{path}: {wide} pixels wide in a window of {window}")
    must(page.title != "run", f"{path}: a card's script was run")
    axe = Axe(page)
    axe.inject()
    found = axe.run()
    must(found["violations"] == [] and len(found["passes"]) > 10, str(found["violations"])[:400])
    severe = [line for line in page.get_log("browser") if line["level"] == "SEVERE"]
    must(severe == [], severe)


def main():
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for name in ["plain", "other"]:
            clients.plain_folder(work / f"hub/models/acme/{name}")
        (work / "hub/models/acme/plain/README.md").write_text(CARD)
        clients.plain_folder(work / "hub/datasets/acme/rows")
        hub = clients.Hub(sys.argv[1], work / "hub")
        page = browser()
        try:
            for path in ["/", "/acme/plain", "/datasets/acme/rows", "/?kind=spaces"]:
                with step(f"{path} at 360 x 640: no sideways scroll, axe, console"):
                    look(page, hub, path)
            with step("search, then a repository, then a file"):
                page.get(hub.url)
                page.find_element(By.NAME, "search").send_keys("plain")
                page.find_element(By.TAG_NAME, "button").click()
                until(page, lambda: [a.text for a in page.find_elements(By.CSS_SELECTOR, "ul.repos a")]
                      == ["acme/plain"])
                page.find_element(By.LINK_TEXT, "acme/plain").click()
                until(page, lambda: f"HF_ENDPOINT={hub.url}" in page.find_element(By.TAG_NAME, "pre").text)
                page.find_element(By.LINK_TEXT, "config.json").click()
                until(page, lambda: "llama" in page.find_element(By.TAG_NAME, "body").text)
            with step("no other host was asked"):
                must(set(hosts_asked(page)) <= {urllib.parse.urlsplit(hub.url).netloc, ""})
        finally:
            page.quit()
        clients.finish(hub)


main()
