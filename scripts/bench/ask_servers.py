"""ask_servers.py --rounds N --tokens N --requests N --clients "1 8 32" NAME=URL[=VERSION]=PID... - see serve.sh."""
import argparse
import http.client
import json
import statistics
import sys
import threading
import time
import urllib.parse

WORDS = ("river mountain teacher market bread window letter garden soldier winter engine silver island doctor "
         "music forest paper village storm bridge").split()


def prompt_of(number):
    some = [WORDS[(number * 7 + i * (number + 3)) % len(WORDS)] for i in range(12)]
    return f"Story {number}. Write about a {some[0]} and a {some[1]}: {' '.join(some)}. Once upon a time"


class Server:
    def __init__(self, text):
        parts = text.split("=")
        self.name, self.url, self.pid = parts[0], urllib.parse.urlsplit(parts[1]), int(parts[-1])
        self.version = parts[2] if len(parts) > 3 else ""

    def complete(self, prompt, tokens):
        c = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=1200)
        body = {"model": "served", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = c.getresponse()
        text = reply.read()
        c.close()
        if reply.status != 200:
            raise SystemExit(f"{self.name}: {reply.status} {text[:300]!r}")
        answer = json.loads(text)
        return answer["usage"]["completion_tokens"], answer["choices"][0]["text"]

    def peak(self):
        for line in open(f"/proc/{self.pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0


def ask(server, first, clients, requests, tokens):
    """Tokens a second, and the answers by number."""
    answers, counts = {}, []

    def client(k):
        for r in range(requests):
            number = first + k * requests + r
            n, answers[number] = server.complete(prompt_of(number), tokens)
            counts.append(n)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    start = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(counts) / (time.monotonic() - start), answers


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rounds", type=int)
    a.add_argument("--tokens", type=int)
    a.add_argument("--requests", type=int)
    a.add_argument("--clients")
    a.add_argument("--same", action="store_true")
    a.add_argument("server", nargs="+", type=Server)
    o = a.parse_args()
    clients = [int(c) for c in o.clients.split()]
    speed = {(s.name, c): [] for s in o.server for c in clients}
    number = 0
    for s in o.server:
        s.complete("Once", 4)
    for r in range(o.rounds):
        for c in clients:
            for s in o.server if r % 2 == 0 else o.server[::-1]:
                speed[s.name, c].append(ask(s, number, c, o.requests, o.tokens)[0])
                print(f"round {r + 1}, {c} clients, {s.name}: {speed[s.name, c][-1]:.1f} tokens/s", file=sys.stderr)
            number += c * o.requests
    names = [f"{s.name} {s.version}".strip() for s in o.server]
    print("clients | " + " | ".join(f"{n}, tokens/s" for n in names) + " | ratio of medians")
    for c in clients:
        rows = [speed[s.name, c] for s in o.server]
        ratio = statistics.median(rows[0]) / statistics.median(rows[1])
        print(f"{c:7} | " + " | ".join(f"{statistics.median(x):.1f} ({min(x):.1f}-{max(x):.1f})" for x in rows)
              + f" | {ratio:.2f}", flush=True)
    for s in o.server:
        print(f"{s.name}: {s.peak():.0f} MiB at most")
    most = max(clients)
    for s in o.server if o.same else []:
        together = ask(s, 10000, most, 1, o.tokens)[1]
        same = sum(s.complete(prompt_of(n), o.tokens)[1] == text for n, text in together.items())
        print(f"{s.name}: {same} of {most} answers are equal alone and among {most}", flush=True)


main()
