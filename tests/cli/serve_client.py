"""What the tests of `mbuyu serve` share: checks that are counted, a server of their own, a client.

    server = Server(f"tiny={llama}", "--runs", "runs")    # words of `mbuyu serve`
    server.start()                                        # again after a stop, also with more words
    status, body, headers = server.ask("/v1/completions", {"prompt": "a"})
    check("it answers", status == 200, body)
    server.stop()
    finish()

Scripts find it when `clients` of lib.sh runs them. A server goes with the process that started it.
"""
import atexit
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

MBUYU = os.environ["MBUYU"]
FORM = {"Content-Type": "multipart/form-data; boundary=----b"}
failures = 0


def check(what, good, seen=""):
    global failures
    failures += not good
    if not good:
        print("FAILED:", what, str(seen)[:600], flush=True)


def finish():
    sys.exit(failures > 0)


def until(what, seconds=120):
    """The first true value of what(), or its last."""
    end = time.time() + seconds
    while not (good := what()) and time.time() < end:
        time.sleep(0.05)
    return good


def ask(url, body=None, method=None, headers={}):
    """Status, body and headers of the answer, whatever they are. What is sent is JSON unless it is bytes."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=300) as a:
            return a.status, a.read(), a.headers
    except urllib.error.HTTPError as e:
        return e.code, e.read(), e.headers


def upload_head(name="a.jsonl", purpose="fine-tune"):
    """What comes before the content of an upload (FORM), and what comes after it is UPLOAD_END."""
    return (f'------b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n------b\r\n'
            f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n').encode()


UPLOAD_END = b"\r\n------b--\r\n"


class Server:
    def __init__(self, *words, key=None, log=None):
        self.words, self.key, self.log = words, key, log

    def start(self, *more):
        log = open(self.log, "a") if self.log else None
        self.process = subprocess.Popen([MBUYU, "serve", *self.words, *more, "--port", "0"], stdout=subprocess.PIPE, stderr=log, text=True)
        atexit.register(self.process.kill)
        self.url = self.process.stdout.readline().strip()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        check("the server ends", self.process.wait(20) == 0)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, path, body=None, method=None, headers={}, key=None):
        key = key or self.key
        return ask(self.url + path, body, method, ({"Authorization": "Bearer " + key} if key else {}) | headers)

    def upload(self, content, name="a.jsonl", purpose="fine-tune"):
        return self.ask("/v1/files", upload_head(name, purpose) + content + UPLOAD_END, headers=FORM)
