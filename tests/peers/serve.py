"""tests/peers/serve.py - mbuyu serve, asked by the clients people use: openai, LangChain, LiteLLM,
lm-evaluation-harness, prometheus_client.

    python serve.py MBUYU TEST_DATA MATERIALS

Every case is a line; the last one says how many were right. Small made-up models say nothing sensible but
must obey all rules; with MB_LONG=1 a SmolLM2, a MiniLM and a Whisper take their places.
"""

# environment: serve

import atexit
import base64
import concurrent.futures
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("OPENAI_API_KEY", "none")

import openai  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

MBUYU, DATA, MATERIALS = sys.argv[1:4]
KEY = "canary-key-5f1e"
CASES = []


def case(function):
    CASES.append(function)
    return function


def expect(condition, says="not so"):
    if not condition:
        raise AssertionError(says)


def refused(kind, function, *, status=None, param=None, code=None):
    """The client's exception of this kind, with OpenAI's fields."""
    try:
        function()
    except kind as e:
        body = e.body if isinstance(e.body, dict) else {}
        expect(set(body) >= {"message", "type", "param", "code"}, f"error body {e.body}")
        expect(body["message"], "an error without a sentence")
        if status is not None:
            expect(e.status_code == status, f"status {e.status_code}, wanted {status}")
        if param is not None:
            expect(body["param"] == param, f"param {body['param']}, wanted {param}")
        if code is not None:
            expect(body["code"] == code, f"code {body['code']}, wanted {code}")
        return
    raise AssertionError(f"{kind.__name__} was not raised")


class Server:
    def __init__(self, *words, key=None, environment=None):
        self.folder = tempfile.TemporaryDirectory()
        if key:
            path = os.path.join(self.folder.name, "key")
            with open(path, "w", encoding="utf-8") as f:
                f.write(key + "\n")
            words += ("--key-file", path)
        self.log = open(os.path.join(self.folder.name, "log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen([MBUYU, "serve", *words, "--port", "0"], text=True,
                                        stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, **(environment or {})})
        self.url = self.process.stdout.readline().strip()
        expect(self.url.startswith("http://127.0.0.1:"), "it does not start: " + self.said())

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def client(self, key="none", **more):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=300, **more)

    def get(self, path, data=None, headers=None, method=None):
        r = urllib.request.Request(self.url + path, data=data, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(r, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as e:
            return e.code, e.read(), dict(e.headers)

    def metrics(self):
        text = self.get("/metrics")[1].decode()
        return {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples
                if not s.labels}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        expect(self.process.wait(60) == 0, f"it ended with {self.process.returncode}: {self.said()}")


def material(path, otherwise):
    there = os.path.join(MATERIALS, path)
    if os.environ.get("MB_LONG", "0") == "1" and os.path.exists(there):
        return there
    return os.path.join(DATA, "reference", otherwise)


def letters(folder):
    """A tokenizer whose tokens are ASCII's signs, so that every answer is a text."""
    signs = ["\n"] + [chr(c) for c in range(32, 127)]
    vocab = {{"\n": "\u010a", " ": "\u0120"}.get(sign, sign): i for i, sign in enumerate(signs)}
    end = {"id": len(vocab), "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
                   "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
                   "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                             "vocab": vocab, "merges": []}}, f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast", "chat_template":
                   "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"}, f)
    return len(vocab)


def writer():
    if os.environ.get("MB_LONG", "0") == "1":
        path = os.path.join(MATERIALS, "smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
        if os.path.exists(path):
            return path
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    shutil.copy(os.path.join(DATA, "reference", "smollm3", "model.safetensors"), folder)
    end = letters(folder)
    with open(os.path.join(DATA, "reference", "smollm3", "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    config.update(max_position_embeddings=512, eos_token_id=end, bos_token_id=None)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    return folder


def embedder():
    """A made-up BERT with the tokenizer of another, whose vocabulary is larger."""
    if os.environ.get("MB_LONG", "0") == "1" and os.path.exists(os.path.join(MATERIALS, "minilm")):
        return os.path.join(MATERIALS, "minilm")
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    for name in os.listdir(os.path.join(DATA, "reference", "bert-cls")):
        shutil.copy(os.path.join(DATA, "reference", "bert-cls", name), folder)
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["architectures"] = ["BertModel"]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    return folder


TEXT = writer()
VECTORS = embedder()
SPEECH = material("whisper-tiny", "whisper")  # made up: hears half a second at a time
SAYS = [{"role": "user", "content": "Name three animals of the savanna, one a line."}]


# ---- models, health ------------------------------------------------------------------------

@case
def models_are_listed(s, c):
    ids = [m.id for m in c.models.list()]
    expect({"text", "vectors", "speech", "pictures", "classes", "translator"} <= set(ids), ids)


@case
def a_model_is_retrieved(s, c):
    m = c.models.retrieve("text")
    expect(m.id == "text" and m.object == "model" and m.created > 0 and m.owned_by)


@case
def an_unknown_model_is_404(s, c):
    refused(openai.NotFoundError, lambda: c.models.retrieve("org/nothing"), code="model_not_found")
    refused(openai.NotFoundError, lambda: c.chat.completions.create(model="gpt-4", messages=SAYS),
            param="model", code="model_not_found")


@case
def a_model_for_something_else_is_400(s, c):
    refused(openai.BadRequestError, lambda: c.chat.completions.create(model="vectors", messages=SAYS))
    refused(openai.BadRequestError, lambda: c.embeddings.create(model="text", input="a"))


@case
def health_and_props(s, c):
    expect(json.loads(s.get("/health")[1]) == {"status": "ok"})
    props = json.loads(s.get("/props")[1])
    expect(props["total_slots"] == 8 and props["default_generation_settings"]["n_ctx"] == 512)
    expect({p["name"] for p in props["parameters"]} >= {"temperature", "top_p", "n", "seed"})


@case
def the_key_of_a_table_is_the_parsers(s, c):
    """Each number just inside its range is taken, just outside refused: from the server's own table."""
    for p in json.loads(s.get("/props")[1])["parameters"]:
        if "chat" not in p["routes"] or p["type"] == "boolean" or "minimum" not in p:
            continue
        step = 1 if p["type"] == "integer" else 0.01
        for value, right in ((p["minimum"], True), (p["maximum"], True),
                             (p["minimum"] - step, False), (p["maximum"] + step, False)):
            body = {"model": "text", "messages": SAYS, "max_tokens": 1, p["name"]: value}
            if p["name"] == "top_logprobs":
                body["logprobs"] = True
            if p["name"].startswith("max_") and value < 0 or p["name"] == "n" and value > 8:
                if right:
                    continue
            if p["name"].startswith("max_") and right and value > 100:
                body["stop"] = ["e", "a", "i", "o"]
            status, text, _ = s.get("/v1/chat/completions", json.dumps(body).encode())
            expect(status == (200 if right else 400), f"{p['name']}={value}: {status} {text[:200]}")


# ---- chat ----------------------------------------------------------------------------------

@case
def plain_chat(s, c):
    r = c.chat.completions.create(model="text", messages=SAYS, max_tokens=12, temperature=0)
    expect(r.id.startswith("chatcmpl-") and r.object == "chat.completion" and r.model == "text")
    ch = r.choices[0]
    expect(ch.index == 0 and ch.message.role == "assistant" and ch.finish_reason in ("stop", "length"))
    expect(r.usage.prompt_tokens > 0 and 0 < r.usage.completion_tokens <= 12)
    expect(r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens)


@case
def without_max_tokens_it_goes_to_its_end(s, c):
    r = c.chat.completions.create(model="text", temperature=0,
                                  messages=[{"role": "user", "content": "Say only: yes"}])
    expect(r.usage.completion_tokens > 0)
    expect(r.choices[0].finish_reason == "stop" or r.usage.total_tokens >= 511, r)


@case
def max_completion_tokens_is_max_tokens(s, c):
    r = c.chat.completions.create(model="text", messages=SAYS, max_completion_tokens=3, temperature=0)
    expect(r.usage.completion_tokens == 3 and r.choices[0].finish_reason == "length")


@case
def a_stream_is_the_answer(s, c):
    whole = c.chat.completions.create(model="text", messages=SAYS, max_tokens=16, temperature=0)
    chunks = list(c.chat.completions.create(model="text", messages=SAYS, max_tokens=16, temperature=0,
                                            stream=True))
    expect(len({k.id for k in chunks}) == 1 and all(k.object == "chat.completion.chunk" for k in chunks))
    expect(chunks[0].choices[0].delta.role == "assistant")
    expect(all(k.choices[0].delta.role is None for k in chunks[1:]), "the role came twice")
    expect(all(k.choices[0].finish_reason is None for k in chunks[:-1]))
    expect(chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason)
    text = "".join(k.choices[0].delta.content or "" for k in chunks)
    expect(text == whole.choices[0].message.content, f"{text!r} is not {whole.choices[0].message.content!r}")
    expect(all(k.usage is None for k in chunks))


@case
def inner_chunks_say_finish_reason_null_and_no_timings(s, c):
    body = {"model": "text", "messages": SAYS, "max_tokens": 3, "stream": True}
    text = s.get("/v1/chat/completions", json.dumps(body).encode())[1].decode()
    lines = [line for line in text.split("\n\n") if line]
    expect(lines[-1] == "data: [DONE]", lines[-1])
    for line in lines[:-1]:
        chunk = json.loads(line[len("data: "):])
        expect("finish_reason" in chunk["choices"][0] and "timings" not in chunk and "usage" not in chunk)


@case
def usage_comes_last_with_no_choices(s, c):
    chunks = list(c.chat.completions.create(model="text", messages=SAYS, max_tokens=5, temperature=0,
                                            stream=True, stream_options={"include_usage": True}))
    expect(chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 5)
    expect(all(k.usage is None for k in chunks[:-1]))


@case
def stream_options_without_a_stream_are_400(s, c):
    refused(openai.BadRequestError, lambda: c.chat.completions.create(
        model="text", messages=SAYS, stream_options={"include_usage": True}), param="stream_options")


@case
def a_stop_text_is_never_shown(s, c):
    whole = c.chat.completions.create(model="text", messages=SAYS, max_tokens=24, temperature=0)
    text = whole.choices[0].message.content
    for stop in ([text[6:9]], [text[10:14], "zzzz"], text[3:5]):
        first = min(text.find(x) for x in ([stop] if isinstance(stop, str) else stop) if x in text)
        r = c.chat.completions.create(model="text", messages=SAYS, max_tokens=24, temperature=0, stop=stop)
        expect(r.choices[0].message.content == text[:first], (stop, r.choices[0].message.content, text))
        expect(r.choices[0].finish_reason == "stop")
        streamed = "".join(k.choices[0].delta.content or "" for k in c.chat.completions.create(
            model="text", messages=SAYS, max_tokens=24, temperature=0, stop=stop, stream=True))
        expect(streamed == text[:first], f"streamed {streamed!r}")


@case
def n_answers_have_their_numbers(s, c):
    r = c.chat.completions.create(model="text", messages=SAYS, max_tokens=6, n=3, seed=5)
    expect([k.index for k in r.choices] == [0, 1, 2])
    one = c.chat.completions.create(model="text", messages=SAYS, max_tokens=6, seed=5)
    expect(r.usage.prompt_tokens == one.usage.prompt_tokens, "the prompt is counted once")
    expect(6 < r.usage.completion_tokens <= 18)
    expect(r.choices[0].message.content == one.choices[0].message.content, "the first of n is the only of 1")
    chunks = list(c.chat.completions.create(model="text", messages=SAYS, max_tokens=6, n=3, seed=5,
                                            stream=True))
    texts = ["", "", ""]
    for k in chunks:
        texts[k.choices[0].index] += k.choices[0].delta.content or ""
    expect(texts == [k.message.content for k in r.choices], texts)


@case
def a_seed_repeats_and_another_differs(s, c):
    def say(seed):
        return c.chat.completions.create(model="text", messages=SAYS, max_tokens=24, temperature=1.5,
                                         seed=seed).choices[0].message.content
    expect(say(1) == say(1))
    expect(len({say(k) for k in (1, 2, 3)}) > 1)
    expect(len({c.chat.completions.create(model="text", messages=SAYS, max_tokens=24, temperature=1.5)
                .choices[0].message.content for _ in range(3)}) > 1, "without a seed all are alike")


@case
def logprobs_of_chat(s, c):
    r = c.chat.completions.create(model="text", messages=SAYS, max_tokens=12, temperature=0, logprobs=True,
                                  top_logprobs=4)
    content = r.choices[0].logprobs.content
    text = b"".join(bytes(t.bytes) for t in content).decode()
    expect(text == r.choices[0].message.content, (text, r.choices[0].message.content))
    for t in content:
        expect(t.logprob <= 0 and len(t.top_logprobs) == 4)
        lp = [k.logprob for k in t.top_logprobs]
        expect(lp == sorted(lp, reverse=True))
        expect(t.top_logprobs[0].token == t.token and abs(lp[0] - t.logprob) < 1e-6, "greedy is the first")
    streamed = []
    for k in c.chat.completions.create(model="text", messages=SAYS, max_tokens=12, temperature=0,
                                       logprobs=True, top_logprobs=4, stream=True):
        if k.choices[0].logprobs:
            streamed += k.choices[0].logprobs.content
    expect([t.token for t in streamed] == [t.token for t in content])


@case
def logprobs_end_where_a_stop_text_ends_the_text(s, c):
    text = c.chat.completions.create(model="text", messages=SAYS, max_tokens=24,
                                     temperature=0).choices[0].message.content
    r = c.chat.completions.create(model="text", messages=SAYS, max_tokens=24, temperature=0,
                                  stop=[text[8:12]], logprobs=True)
    said = b"".join(bytes(t.bytes) for t in r.choices[0].logprobs.content).decode()
    expect(said.startswith(r.choices[0].message.content) and len(said) < len(text) + 1)


@case
def top_logprobs_wants_logprobs_and_a_range(s, c):
    def ask(**more):
        return lambda: c.chat.completions.create(model="text", messages=SAYS, max_tokens=1, **more)
    refused(openai.BadRequestError, ask(top_logprobs=2), param="top_logprobs")
    refused(openai.BadRequestError, ask(logprobs=True, top_logprobs=21), param="top_logprobs")


@case
def logit_bias_forbids_and_forces(s, c):
    first = c.chat.completions.create(model="text", messages=SAYS, max_tokens=1, temperature=0)
    ids = json.loads(s.get("/tokenize", json.dumps({"model": "text", "content":
                                                    first.choices[0].message.content}).encode())[1])["tokens"]
    r = c.chat.completions.create(model="text", messages=SAYS, max_tokens=1, temperature=0,
                                  logit_bias={str(ids[0]): -100})
    expect(r.choices[0].message.content != first.choices[0].message.content)
    other = json.loads(s.get("/tokenize", json.dumps({"model": "text", "content": "tree"}).encode())[1])
    r = c.chat.completions.create(model="text", messages=SAYS, max_tokens=2, temperature=0,
                                  logit_bias={str(other["tokens"][0]): 100})
    back = json.loads(s.get("/detokenize", json.dumps({"model": "text", "tokens": other["tokens"][:1] * 2})
                            .encode())[1])["content"]
    expect(r.choices[0].message.content.strip() == back.strip(), (r.choices[0].message.content, back))
    refused(openai.BadRequestError, lambda: c.chat.completions.create(
        model="text", messages=SAYS, logit_bias={"99999999": 1}), param="logit_bias")
    refused(openai.BadRequestError, lambda: c.chat.completions.create(
        model="text", messages=SAYS, logit_bias={"1": 101}), param="logit_bias")


@case
def json_mode_writes_an_object(s, c):
    for seed in range(3):
        r = c.chat.completions.create(
            model="text", temperature=1.2, seed=seed, max_tokens=60, response_format={"type": "json_object"},
            messages=[{"role": "user", "content": "Give name and age of a person as JSON."}])
        if r.choices[0].finish_reason == "stop":
            expect(isinstance(json.loads(r.choices[0].message.content), dict), r.choices[0].message.content)
        else:
            expect(r.choices[0].message.content.lstrip().startswith("{"), r.choices[0].message.content)
    refused(openai.BadRequestError, lambda: c.chat.completions.create(
        model="text", messages=SAYS, response_format={"type": "xml"}), param="response_format")


@case
def penalties_change_what_is_said(s, c):
    def say(**more):
        return c.chat.completions.create(model="text", messages=SAYS, max_tokens=40, temperature=0, **more
                                         ).choices[0].message.content
    expect(say(frequency_penalty=2) != say() or say(presence_penalty=2) != say())


@case
def parts_and_tools_are_taken(s, c):
    parts = [{"role": "system", "content": "Be brief."},
             {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    r = c.chat.completions.create(model="text", messages=parts, max_tokens=2, tools=[
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])
    expect(r.usage.completion_tokens > 0)
    refused(openai.BadRequestError, lambda: c.chat.completions.create(
        model="text", messages=SAYS, tool_choice="required"), param="tool_choice")


@case
def what_is_wrong_with_chat_is_400(s, c):
    def ask(messages=SAYS, **more):
        return lambda: c.chat.completions.create(**{"model": "text", "messages": messages, "max_tokens": 1,
                                                    **more})
    refused(openai.BadRequestError, ask([]), param="messages")
    refused(openai.BadRequestError, ask([{"role": "nobody", "content": "x"}]), param="messages")
    refused(openai.BadRequestError, ask("hello"), param="messages")
    refused(openai.BadRequestError, ask(temperature="hot"), param="temperature")
    refused(openai.BadRequestError, ask(temperature=3), param="temperature")
    refused(openai.BadRequestError, ask(max_tokens=-5), param="max_tokens")
    refused(openai.BadRequestError, ask(top_p=1.5), param="top_p")
    refused(openai.BadRequestError, ask(n=0), param="n")
    refused(openai.BadRequestError, ask(seed="x"), param="seed")
    refused(openai.BadRequestError, ask(stop=[""]), param="stop")
    refused(openai.BadRequestError, ask(stop=[7]), param="stop")


@case
def too_long_a_prompt_says_so(s, c):
    long = [{"role": "user", "content": "word " * 600}]
    refused(openai.BadRequestError, lambda: c.chat.completions.create(model="text", messages=long),
            code="context_length_exceeded", param="messages")


@case
def temperature_0_and_top_p_0_are_alike(s, c):
    a, b = (c.chat.completions.create(model="text", messages=SAYS, max_tokens=8, **k).choices[0].message.content
            for k in ({"temperature": 0}, {"top_p": 0}))
    expect(a == b)


# ---- completions ---------------------------------------------------------------------------

def ids_of(s, text):
    return json.loads(s.get("/tokenize", json.dumps({"model": "text", "content": text}).encode())[1])["tokens"]


@case
def a_prompt_is_continued(s, c):
    r = c.completions.create(model="text", prompt="The capital of France is", max_tokens=4, temperature=0)
    expect(r.object == "text_completion" and r.id.startswith("cmpl-"))
    expect(r.choices[0].text and r.choices[0].logprobs is None and r.usage.completion_tokens == 4)


@case
def sixteen_tokens_are_the_default(s, c):
    r = c.completions.create(model="text", prompt="Once upon a time", temperature=0)
    expect(r.usage.completion_tokens <= 16)


@case
def lists_and_ids_are_prompts(s, c):
    texts = ["The sun is", "A river"]
    r = c.completions.create(model="text", prompt=texts, max_tokens=4, temperature=0)
    expect([k.index for k in r.choices] == [0, 1])
    alone = [c.completions.create(model="text", prompt=t, max_tokens=4, temperature=0).choices[0].text
             for t in texts]
    expect([k.text for k in r.choices] == alone)
    ids = [ids_of(s, t) for t in texts]
    expect(c.completions.create(model="text", prompt=ids[0], max_tokens=4, temperature=0).choices[0].text
           == alone[0])
    r = c.completions.create(model="text", prompt=ids, max_tokens=4, temperature=0)
    expect([k.text for k in r.choices] == alone)
    r = c.completions.create(model="text", prompt=texts, n=2, max_tokens=4, seed=1)
    expect([k.index for k in r.choices] == [0, 1, 2, 3])


@case
def completions_stream(s, c):
    whole = c.completions.create(model="text", prompt="A river", max_tokens=8, temperature=0)
    chunks = list(c.completions.create(model="text", prompt="A river", max_tokens=8, temperature=0,
                                       stream=True, stream_options={"include_usage": True}))
    expect("".join(k.choices[0].text for k in chunks if k.choices) == whole.choices[0].text)
    expect(chunks[-1].usage.completion_tokens == 8 and chunks[-1].choices == [])


@case
def echo_gives_the_prompt_back(s, c):
    plain = c.completions.create(model="text", prompt="A river", max_tokens=4, temperature=0)
    r = c.completions.create(model="text", prompt="A river", max_tokens=4, temperature=0, echo=True)
    expect(r.choices[0].text == "A river" + plain.choices[0].text)
    chunks = list(c.completions.create(model="text", prompt="A river", max_tokens=4, temperature=0, echo=True,
                                       stream=True))
    expect("".join(k.choices[0].text for k in chunks) == r.choices[0].text)


@case
def old_logprobs(s, c):
    r = c.completions.create(model="text", prompt="The sun is", max_tokens=6, temperature=0, logprobs=3)
    lp = r.choices[0].logprobs
    expect(len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset))
    expect(len(lp.tokens) == r.usage.completion_tokens, "a token without a place, the end token included")
    expect("".join(lp.tokens).startswith(r.choices[0].text))
    expect(all(len(t) == 3 for t in lp.top_logprobs))
    for i, t in enumerate(lp.tokens):
        expect(abs(max(lp.top_logprobs[i].values()) - lp.token_logprobs[i]) < 1e-6)
        expect(r.choices[0].text[lp.text_offset[i]:].startswith(t), (i, lp.text_offset))


@case
def a_text_is_scored(s, c):
    text = "The sun is a star and the moon is not"
    for tokens in (0, 1):
        r = c.completions.create(model="text", prompt=text, max_tokens=tokens, echo=True, logprobs=1,
                                 temperature=0)
        lp = r.choices[0].logprobs
        n = len(ids_of(s, text))
        expect(len(lp.tokens) == n + tokens, (len(lp.tokens), n))
        expect(lp.token_logprobs[0] is None and lp.top_logprobs[0] is None)
        expect(all(x <= 0 for x in lp.token_logprobs[1:]))
        expect("".join(lp.tokens[:n]) == text and "".join(lp.tokens).startswith(r.choices[0].text))
        expect(r.usage.completion_tokens == tokens)
    expect(r.choices[0].finish_reason == "length")


@case
def every_choice_has_the_scores_of_its_prompt(s, c):
    text = ["The sun is a star", "A river"]
    more = {"model": "text", "echo": True, "logprobs": 2, "max_tokens": 2, "temperature": 0}
    alone = [c.completions.create(prompt=t, **more).choices[0] for t in text]
    whole = c.completions.create(prompt=text, n=3, **more).choices
    streamed = [{"text": "", "tokens": [], "token_logprobs": [], "text_offset": []} for _ in whole]
    for chunk in c.completions.create(prompt=text, n=3, stream=True, **more):
        k = chunk.choices[0]
        streamed[k.index]["text"] += k.text
        for name in ("tokens", "token_logprobs", "text_offset") if k.logprobs else ():
            streamed[k.index][name] += getattr(k.logprobs, name)
    for i, k in enumerate(whole):
        expect(k.text == alone[i // 3].text and k.logprobs == alone[i // 3].logprobs, (i, k))
        expect(streamed[i]["text"] == k.text, (i, streamed[i]))
        for name in ("tokens", "token_logprobs", "text_offset"):
            expect(streamed[i][name] == getattr(k.logprobs, name), (i, name, streamed[i]))


@case
def a_long_prompt_comes_back_in_a_stream(s, c):
    ids = (ids_of(s, "The sun is ") * 200)[:440]
    got = [0] * 16
    for chunk in c.completions.create(model="text", prompt=ids, n=16, echo=True, logprobs=20, max_tokens=2,
                                      stream=True):
        for k in chunk.choices:
            got[k.index] += len(k.logprobs.tokens) if k.logprobs else 0
    expect(all(440 < n <= 442 for n in got), got)


@case
def an_answer_of_more_than_64_mib_is_400(s, c):
    refused(openai.BadRequestError, lambda: c.completions.create(
        model="text", prompt=[ids_of(s, "The sun is ") * 40] * 24, n=32, echo=True, logprobs=20, max_tokens=0))
    expect(s.metrics()["process_resident_memory_bytes"] < 2e9)


@case
def what_is_wrong_with_completions_is_400(s, c):
    def ask(prompt="x", **more):
        return lambda: c.completions.create(**{"model": "text", "prompt": prompt, "max_tokens": 1, **more})
    refused(openai.BadRequestError, ask([]), param="prompt")
    refused(openai.BadRequestError, ask([-1]), param="prompt")
    refused(openai.BadRequestError, ask([10 ** 9]), param="prompt")
    refused(openai.BadRequestError, ask({"a": 1}), param="prompt")
    refused(openai.BadRequestError, ask(suffix="y"), param="suffix")
    refused(openai.BadRequestError, ask(logprobs=21), param="logprobs")
    refused(openai.BadRequestError, ask(best_of=3), param="best_of")
    refused(openai.BadRequestError, ask("word " * 2000), param="prompt", code="context_length_exceeded")


# ---- embeddings ----------------------------------------------------------------------------

@case
def vectors_as_base64_and_numbers(s, c):
    texts = ["hello world", "jua linawaka"]
    r = c.embeddings.create(model="vectors", input=texts)  # the client asks for base64
    f = c.embeddings.create(model="vectors", input=texts, encoding_format="float")
    raw = json.loads(s.get("/v1/embeddings", json.dumps(
        {"model": "vectors", "input": texts, "encoding_format": "base64"}).encode())[1])
    for i in range(2):
        expect(r.data[i].index == i and r.data[i].embedding == f.data[i].embedding, "base64 is not float")
        b = base64.b64decode(raw["data"][i]["embedding"])
        expect(list(struct.unpack(f"<{len(b) // 4}f", b)) == r.data[i].embedding)
        expect(abs(sum(x * x for x in r.data[i].embedding) - 1) < 1e-5)
    expect(r.usage.prompt_tokens == r.usage.total_tokens > 0)


@case
def vectors_of_ids_and_of_fewer_numbers(s, c):
    one = c.embeddings.create(model="vectors", input=[5, 6, 7], encoding_format="float").data[0].embedding
    two = c.embeddings.create(model="vectors", input=[[5, 6, 7], [8]], encoding_format="float")
    expect(max(abs(a - b) for a, b in zip(one, two.data[0].embedding)) < 1e-5 and len(two.data) == 2)
    few = c.embeddings.create(model="vectors", input=[5, 6, 7], dimensions=4).data[0].embedding
    norm = sum(x * x for x in one[:4]) ** 0.5
    expect(len(few) == 4 and max(abs(a - b / norm) for a, b in zip(few, one)) < 1e-5)


@case
def what_is_wrong_with_embeddings_is_400(s, c):
    def ask(input, **more):
        return lambda: c.embeddings.create(model="vectors", input=input, **more)
    refused(openai.BadRequestError, ask([]), param="input")
    refused(openai.BadRequestError, ask(""), param="input")
    refused(openai.BadRequestError, ask([[]]), param="input")
    refused(openai.BadRequestError, ask([10 ** 8]), param="input")
    refused(openai.BadRequestError, ask("x", dimensions=100000), param="dimensions")
    refused(openai.BadRequestError, ask("x", encoding_format="hex"), param="encoding_format")
    refused(openai.BadRequestError, ask("word " * 3000), code="context_length_exceeded")


# ---- sound, pictures, texts ----------------------------------------------------------------

def silence(seconds=1.0, rate=16000):
    n = int(seconds * rate)
    data = b"".join(struct.pack("<h", (i * 7919) % 600 - 300) for i in range(n))
    return b"RIFF" + struct.pack("<I", 36 + 2 * n) + b"WAVEfmt " + struct.pack(
        "<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16) + b"data" + struct.pack("<I", 2 * n) + data


@case
def a_sound_is_written_down(s, c):
    sound = ("a.wav", silence())
    r = c.audio.transcriptions.create(model="speech", file=sound)
    text = c.audio.transcriptions.create(model="speech", file=sound, response_format="text")
    expect(text.strip() == r.text.strip(), (text, r.text))
    v = c.audio.transcriptions.create(model="speech", file=sound, response_format="verbose_json")
    expect(v.text == r.text and abs(v.duration - 1) < 0.01 and v.segments[0].start == 0)
    expect(v.segments[-1].end == v.duration and " ".join(k.text for k in v.segments).strip() == r.text)
    end = f"{v.segments[0].end:.3f}"
    srt = c.audio.transcriptions.create(model="speech", file=sound, response_format="srt")
    expect(srt.startswith("1\n00:00:00,000 --> 00:00:0" + end.replace(".", ",") + "\n"), srt)
    vtt = c.audio.transcriptions.create(model="speech", file=sound, response_format="vtt")
    expect(vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:0" + end + "\n"), vtt)
    events = list(c.audio.transcriptions.create(model="speech", file=sound, stream=True))
    expect(events[-1].type == "transcript.text.done" and events[-1].text == r.text)
    expect("".join(e.delta for e in events[:-1]) == r.text)


@case
def what_is_no_sound_is_400(s, c):
    def ask(data, **more):
        return lambda: c.audio.transcriptions.create(model="speech", file=("a.wav", data), **more)
    refused(openai.BadRequestError, ask(b"not a sound"))
    refused(openai.BadRequestError, ask(silence()[:5000]))
    refused(openai.BadRequestError, ask(silence(), response_format="mp3"), param="response_format")
    refused(openai.BadRequestError, ask(silence(), language="klingon"))


@case
def classes_and_translations(s, c):
    r = json.loads(s.get("/v1/classifications", json.dumps({"model": "classes", "input": ["a", "b"]}).encode())[1])
    for d in r["data"]:
        p = [x["probability"] for x in d["probabilities"]]
        expect(p == sorted(p, reverse=True) and abs(sum(p) - 1) < 1e-5 and d["label"] == d["probabilities"][0]["label"])
    status, text, _ = s.get("/v1/translations", json.dumps({"model": "translator", "input": "a b"}).encode())
    expect(status == 200 and "text" in json.loads(text)["data"][0])
    status, text, _ = s.get("/v1/images/classifications", json.dumps({"image": "!!"}).encode())
    expect(status == 400 and json.loads(text)["error"]["param"] == "image", text)


# ---- many at once --------------------------------------------------------------------------

@case
def thirty_two_at_once_are_as_alone(s, c):
    def say(i):
        return c.chat.completions.create(
            model="text", max_tokens=12, temperature=0 if i % 2 else 0.9, seed=i,
            messages=[{"role": "user", "content": f"Tell me about number {i % 8}."}]).choices[0].message.content
    alone = [say(i) for i in range(16)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(say, list(range(16)) * 2))
    expect(together == alone * 2, [(a, b) for a, b in zip(together, alone * 2) if a != b][:2])


@case
def a_full_queue_is_429(s, c):
    full = Server(f"text={DATA}/reference/gpt2", "--slots", "1", "--queue", "2")

    def ask(_):
        r = full.get("/v1/completions", json.dumps({"prompt": [[1, 2, 3]], "n": 2, "max_tokens": 100}).encode())
        return r[0], r[2].get("Retry-After"), json.loads(r[1])
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        said = list(pool.map(ask, range(128)))
    expect({a for a, _, _ in said} == {200, 429}, {a for a, _, _ in said})
    expect(all(int(b) >= 1 and e["error"]["type"] == "rate_limit_error" for a, b, e in said if a == 429))
    many = json.dumps({"prompt": [[1, 2, 3]] * 12, "max_tokens": 2}).encode()
    a, text, _ = full.get("/v1/completions", many)
    expect(a == 200 and len(json.loads(text)["choices"]) == 12, "more prompts than places, while nobody waits")
    full.stop()


@case
def cut_streams_lose_no_slot(s, c):
    for _ in range(30):
        stream = c.chat.completions.create(model="text", messages=SAYS, max_tokens=200, stream=True)
        next(iter(stream))
        stream.close()
    for _ in range(200):
        m = s.metrics()
        if m["mbuyu_slots_busy"] == 0 and m["mbuyu_requests_waiting"] == 0:
            break
        time.sleep(0.05)
    expect(m["mbuyu_slots_busy"] == 0 and m["mbuyu_requests_waiting"] == 0, m)
    expect(m["mbuyu_asks_cancelled_total"] >= 25, m["mbuyu_asks_cancelled_total"])
    expect(m["mbuyu_cache_blocks_used"] == 0)


# ---- other clients -------------------------------------------------------------------------

@case
def langchain_streams_with_usage(s, c):
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    m = ChatOpenAI(base_url=s.url + "/v1", api_key="none", model="text", temperature=0, max_tokens=8,
                   stream_usage=True, max_retries=0)
    whole = m.invoke("Name an animal.")
    text, usage = "", None
    for k in m.stream("Name an animal."):
        text += k.content
        usage = k.usage_metadata or usage
    expect(text == whole.content and usage["output_tokens"] == whole.usage_metadata["output_tokens"] == 8)
    e = OpenAIEmbeddings(base_url=s.url + "/v1", api_key="none", model="vectors", check_embedding_ctx_length=False)
    expect(len(e.embed_documents(["a", "b"])) == 2)


@case
def litellm_streams_with_usage(s, c):
    import litellm
    litellm.telemetry = False
    r = litellm.completion(model="openai/text", api_base=s.url + "/v1", api_key="none", messages=SAYS,
                           max_tokens=8, temperature=0)
    text, usage = "", None
    for k in litellm.completion(model="openai/text", api_base=s.url + "/v1", api_key="none", messages=SAYS,
                                max_tokens=8, temperature=0, stream=True,
                                stream_options={"include_usage": True}):
        if k.choices:
            text += k.choices[0].delta.content or ""
        usage = getattr(k, "usage", None) or usage
    expect(text == r.choices[0].message.content, (text, r.choices[0].message.content))
    expect(usage.completion_tokens == r.usage.completion_tokens == 8)


# ---- the key -------------------------------------------------------------------------------

def with_a_key():
    s = Server(TEXT, "--ctx", "128", "--slots", "1", key=KEY)
    refused(openai.AuthenticationError, lambda: s.client("wrong").models.list(), status=401,
            code="invalid_api_key")
    refused(openai.AuthenticationError, lambda: s.client(KEY[:-1]).models.list(), status=401)
    expect(len(s.client(KEY).models.list().data) == 1)
    expect(s.get("/health")[0] == 200 and s.get("/metrics")[0] == 401 and s.get("/v1/models")[0] == 401)
    expect(KEY not in s.said(), "the key is in the log")
    s.stop()
    s = Server(TEXT, "--ctx", "128", "--slots", "1", environment={"MBUYU_API_KEY": KEY})
    refused(openai.AuthenticationError, lambda: s.client("wrong").models.list())
    expect(len(s.client(KEY).models.list().data) == 1)
    s.stop()


def main():
    only = sys.argv[4:]
    print("openai", openai.__version__)
    reference = os.path.join(DATA, "reference")
    s = Server(f"text={TEXT}", f"vectors={VECTORS}", f"speech={SPEECH}", f"pictures={reference}/vit-cls",
               f"classes={reference}/bert-cls", f"translator={reference}/t5", "--ctx", "512", "--slots", "8",
               "--queue", "64")
    wrong = []
    for function in CASES + [with_a_key]:
        if only and function.__name__ not in only:
            continue
        started = time.monotonic()
        try:
            function(*(() if function is with_a_key else (s, s.client())))
        except Exception as e:  # noqa: BLE001 - every case is reported
            wrong.append(function.__name__)
            print(f"FAILED {function.__name__}: {type(e).__name__}: {str(e)[:600]}", flush=True)
        else:
            print(f"ok     {function.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
    s.stop()
    if wrong:
        print(s.said())
    print(f"{len(CASES) + 1 - len(wrong)} of {len(CASES) + 1} right")
    sys.exit(1 if wrong else 0)


main()
