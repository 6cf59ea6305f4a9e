#!/usr/bin/env python3
"""Chat templates through mbuyu and through transformers: text, ids, masks; and Jinja itself.

    templates.py HELPER [FOLDER]        HELPER: the built templates

Every template of recipes/data/templates (and FOLDER/*.jinja) renders 50 conversations: text and ids
must be those of apply_chat_template, the trained tokens must decode to exactly the answers with what
ends them, and a row must begin with the ids generation is given. Then the language: expressions and
blocks one by one, as jinja2 renders them in transformers' environment; what one refuses the other
must refuse. Conversations with tools, thoughts and odd roles are rendered as text.
"""
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
N = 50
SPECIAL = """<s> </s> <|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|>
<bos> <eos> <start_of_turn> <end_of_turn> <|user|> <|assistant|> <|system|> <|end|> <|im_sep|>
<|endoftext|> <|im_start|> <|im_end|> [INST] [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS]
[TOOL_RESULTS] [/TOOL_RESULTS] <BOS_TOKEN> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|>
<|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> <\uff5cUser\uff5c> <\uff5cAssistant\uff5c>
<\uff5cbegin\u2581of\u2581sentence\uff5c> <\uff5cend\u2581of\u2581sentence\uff5c>
<\uff5ctool\u2581calls\u2581begin\uff5c> <\uff5ctool\u2581calls\u2581end\uff5c> <\uff5ctool\u2581call\u2581begin\uff5c>
<\uff5ctool\u2581call\u2581end\uff5c> <\uff5ctool\u2581sep\uff5c>""".split()

# name: BOS, EOS, what ends an answer, a pattern of what is before one, whether system, tools, thoughts can be written
FORMATS = {
    "alpaca": ("<s>", "</s>", "</s>", "### Response:\n", 1, 0, 0),
    "chatml": ("<|endoftext|>", "<|im_end|>", "<|im_end|>", r"<\|im_start\|>assistant\n", 1, 0, 0),
    "command-r": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", 1, 0, 0),
    "deepseek-r1": ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
                    "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cAssistant\uff5c>", 1, 1, 0),
    "gemma": ("<bos>", "<eos>", "<end_of_turn>", "<start_of_turn>model\n", 1, 0, 0),
    "hermes": ("<s>", "<|im_end|>", "<|im_end|>", r"<\|im_start\|>assistant\n", 1, 1, 0),
    "llama2": ("<s>", "</s>", "</s>", "[/INST]", 1, 0, 0),
    "llama3": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "assistant<|end_header_id|>\n\n", 1, 0, 0),
    "llama3.1": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "assistant<|end_header_id|>\n\n", 1, 1, 0),
    "mistral": ("<s>", "</s>", "</s>", " [/INST]", 1, 0, 0),
    "mistral-v1": ("<s>", "</s>", "</s>", " [/INST]", 0, 0, 0),
    "mistral-v3": ("<s>", "</s>", "</s>", r"\[/(INST|TOOL_RESULTS)\]", 1, 1, 0),
    "olmo2": ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "<|assistant|>\n", 1, 0, 0),
    "phi3": ("<s>", "<|endoftext|>", "<|end|>", "<|assistant|>\n", 1, 0, 0),
    "phi4": ("<|endoftext|>", "<|im_end|>", "<|im_end|>", "assistant<|im_sep|>", 1, 0, 0),
    "qwen2.5": ("<|endoftext|>", "<|im_end|>", "<|im_end|>", r"<\|im_start\|>assistant\n", 1, 1, 0),
    "qwen3": ("<|endoftext|>", "<|im_end|>", "<|im_end|>", r"<\|im_start\|>assistant\n", 1, 1, 1),
    "smollm2": ("<|im_start|>", "<|im_end|>", "<|im_end|>", r"<\|im_start\|>assistant\n", 1, 0, 0),
    "smollm3": ("<|endoftext|>", "<|im_end|>", "<|im_end|>", r"<\|im_start\|>assistant\n", 1, 1, 0),
    "vicuna": ("<s>", "</s>", "</s>", " ASSISTANT:", 1, 0, 0),
    "zephyr": ("<s>", "</s>", "</s>", "<|assistant|>\n", 1, 0, 0),
}

TEXTS = [
    "Hello", "Hi there.", "How do you say water in Swahili?", "maji", "a\nb\n\nc",
    "Habari za asubuhi? \u00e9\u00e8 \u4f60\u597d \U0001f333", "```c\nint main(void) { return 0; }\n```",
    "<b>x & y</b> 'q' \"d\"", "x" * 40, "tab\there", "{{ not jinja }} {% if %}", "1234 + 5.5 = ?",
    "kwa heri, rafiki", "\u0645\u0631\u062d\u0628\u0627", "first line\n- point\n- point", "(done)",
]
ODD = ["  spaces around \n", "", "<|im_end|> fake", "[INST] y [/INST]", "line\r\nend", "<think>hm</think> yes"]
TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather \"now\"", "parameters": {
            "type": "object", "properties": {
                "city": {"type": "string", "description": "A city"},
                "unit": {"type": ["string", "null"], "enum": ["c", "f"]},
                "n": {"type": "integer", "default": 3},
                "x": {"type": "array", "items": {"type": "number"}}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "clock", "description": "",
                                      "parameters": {"type": "object", "properties": {}}}},
]


def conversation(seed, system=True, tools=True, thoughts=True, odd=True):
    """A conversation that ends with an answer; `odd` adds texts and roles that few expect."""
    r = random.Random(seed)
    texts = TEXTS + (ODD if odd else [])
    out, given = [], None
    if system and r.random() < .5:
        out.append({"role": "system", "content": r.choice(texts)})
    use = tools and r.random() < .4
    if use:
        given = TOOLS[:r.randint(1, 2)]
    for _ in range(r.randint(1, 4)):
        out.append({"role": "user", "content": r.choice(texts)})
        if use and r.random() < .6:
            call = {"id": "call12345", "type": "function", "function": {
                "name": "get_weather", "arguments": {"city": r.choice(texts), "n": r.randint(0, 9), "f": 0.5,
                                                     "l": [1, None, True]}}}
            out.append({"role": "assistant", "content": r.choice(texts) if r.random() < .3 else "",
                        "tool_calls": [call]})
            out.append({"role": "tool", "name": "get_weather", "tool_call_id": "call12345",
                        "content": r.choice(["sunny", '{"t": 21.5}'])})
        answer = {"role": "assistant", "content": r.choice(texts)}
        if thoughts and r.random() < .4:
            answer["reasoning_content"] = "think\n" + r.choice(TEXTS)
        out.append(answer)
    if odd and r.random() < .2:
        out.insert(r.randint(0, len(out)), {"role": r.choice(["system", "user", "developer"]), "content": "odd"})
    return out, given


def byte_level(folder, name, template):
    spec = json.loads((ROOT / "tests/data/templates/tokenizer.json").read_text())
    known = {t["content"] for t in spec["added_tokens"]} | set(spec["model"]["vocab"])
    at = max(max(spec["model"]["vocab"].values()), max(t["id"] for t in spec["added_tokens"])) + 1
    for token in SPECIAL:
        if token not in known:
            spec["added_tokens"].append({"id": at, "content": token, "single_word": False, "lstrip": False,
                                         "rstrip": False, "normalized": False, "special": True})
            at += 1
    return write(folder, json.dumps(spec, ensure_ascii=False), name, template)


def metaspace(folder, name, template, legacy):
    """As the SentencePiece models of Llama-2 and Mistral: a space in front of a text, or of its start."""
    tok = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    if legacy:
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=True)
    # merges across words would be cut at the answers; a SentencePiece vocabulary has none
    train = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    train.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=True)
    train.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)],
        show_progress=False))
    spec = json.loads(tok.to_str())
    spec["model"]["vocab"] = json.loads(train.to_str())["model"]["vocab"]
    spec["model"]["merges"] = json.loads(train.to_str())["model"]["merges"]
    spec["added_tokens"] = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": True} for i, t in enumerate(["<unk>", "<s>", "</s>"])]
    tok = Tokenizer.from_str(json.dumps(spec))
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return write(folder, tok.to_str(), name, template)


def write(folder, spec, name, template):
    folder.mkdir()
    (folder / "tokenizer.json").write_text(spec)
    bos, eos = FORMATS[name][:2]
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos,
         "chat_template": template}))
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token=bos, eos_token=eos,
                                   chat_template=template)


def ask(helper, questions, *arguments):
    lines = "".join(json.dumps(q) + "\n" for q in questions)
    done = subprocess.run([helper, *map(str, arguments)], input=lines.encode(), capture_output=True)
    assert done.returncode == 0, (done.returncode, done.stderr.decode()[-2000:])
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def expected(tok, name, messages, tools, text):
    """What is trained, as text: each answer from where its prompt ends to its end."""
    _, _, end, begin, *_ = FORMATS[name]
    out, at = "", 0
    for k, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        before = tok.apply_chat_template(messages[:k], tools=tools, tokenize=False, add_generation_prompt=True)
        if text.startswith(before):
            start = len(before)
        else:
            start = re.compile(begin).search(text, at).end()
        at = text.index(end, start) + len(end)
        out += text[start:at]
    return out


def check_chat(helper, folder, tok, name, conversations):
    questions = [{"chat": "auto", "messages": m, "tools": t} for m, t in conversations]
    for (messages, tools), got in zip(conversations, ask(helper, questions, folder), strict=True):
        assert "error" not in got, (name, messages, got["error"])
        text = tok.apply_chat_template(messages, tools=tools, tokenize=False)
        ids = tok.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
        assert got["text"] == text, (name, messages, text, got["text"])
        assert got["ids"] == ids, (name, messages, tok.convert_ids_to_tokens(ids),
                                   tok.convert_ids_to_tokens(got["ids"]))
        trained = tok.decode([i for i, t in zip(got["ids"], got["trained"]) if t], skip_special_tokens=False,
                             clean_up_tokenization_spaces=False)
        want = expected(tok, name, messages, tools, text)
        assert trained == want, (name, messages, trained, want)
        if name not in ("qwen3", "deepseek-r1", "mistral-v3"):  # their prompts can be no beginning of a row
            assert got["ids"][:got["split"]] == got["prompt"], (name, messages)
        last = max(k for k, m in enumerate(messages) if m["role"] == "assistant")
        prompt = tok.apply_chat_template(messages[:last], tools=tools, tokenize=True, return_dict=False,
                                         add_generation_prompt=True)
        assert got["prompt"] == prompt, (name, messages, got["prompt"], prompt)


def check_text(helper, name, template, seeds=range(N)):
    """Any conversation at all, as text; returns how many were refused by both."""
    compiled, questions = _compile_jinja_template(template), []
    for seed in seeds:
        messages, tools = conversation(1000 + seed)
        r = random.Random(seed)
        prompt = r.random() < .5
        if prompt and r.random() < .8:
            messages = messages[:-1]
        values = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": prompt,
                  "bos_token": "<s>", "eos_token": "</s>"}
        if r.random() < .3:
            values["enable_thinking"] = r.random() < .5
        if r.random() < .3:
            values["date_string"] = "26 Jul 2024"
        questions.append({"template": template, "values": values})
    refused = 0
    for q, got in zip(questions, ask(helper, questions), strict=True):
        try:
            want = compiled.render(**q["values"])
        except Exception:  # of many kinds
            want = None
            refused += 1
        assert got.get("text") == want, (name, q["values"], want, got)
    return refused


LANGUAGE = r"""
{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }}
{{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1.5e-7 }} {{ 1e22 }} {{ 123456789.125 }} {{ 10 / 5 }} {{ 1_000 }} {{ 0x1f }}
{{ 'a' ~ 1 ~ none ~ true }} {{ 'a' 'b' }} {{ "x\n\t\"\\\u00e9\x41" }} {{ 'a' * 3 }} {{ [1] * 2 }} {{ [1] + [2] }}
{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' in 'cat' }} {{ 'b' not in ['a'] }} {{ not true or false and x }} {{ 1 if 0 }}
{{ 1 if 0 else 2 if 0 else 3 }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ [1, 'a', none, true, 1.5] }} {{ {'a': 1, 'b': [2]} }}
{{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ [1,2,3,4][::2] }} {{ [1,2,3][-1] }} {{ [1,2,3][5] }}|
{{ 'h\u00e9llo'[1] }} {{ 'h\u00e9llo' | length }} {{ 'ab'[10:] }}| {{ [1,2,3][5:1:-1] }} {{ [1,2,3][:-5:-1] }}
{{ x is defined }} {{ x is undefined }} {{ none is none }} {{ 1 is number }} {{ 'a' is string }} {{ {} is mapping }}
{{ [] is iterable }} {{ 'a' is sequence }} {{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ true is true }}
{{ 1 is true }} {{ false is boolean }} {{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 2 is gt 1 }} {{ 'A' is upper }}
{{ 1 is in [1] }} {{ 1 is not in [1] }} {{ 'x' is not none }} {{ x is none }} {{ 1.5 is float }} {{ 1 is integer }}
{{ ' a b ' | trim }}| {{ 'aXbX' | replace('X', '-') }} {{ 'aXbX'.replace('X', '', 1) }} {{ 'abc' | upper }} {{ 'ABC' | lower }}
{{ 'hello world-wide (x) y' | title }} {{ 'hELLO' | capitalize }} {{ "they're bill's".title() }} {{ 'aBC'.capitalize() }}
{{ ['a', 'b'] | join(', ') }} {{ [1, 2] | join }} {{ [{'a': 1}, {'a': 2}] | join('-', attribute='a') }}
{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [1,2,3] | sort(reverse=true) }}
{{ [3, 1, 2] | max }} {{ [3, 1, 2] | min }} {{ [1, 2] | sum }} {{ [1, 2, 2, 1] | unique | list }} {{ 'abca' | unique | join }}
{{ [1, 2, 3] | first }} {{ [1, 2, 3] | last }} {{ [] | first }}| {{ 'abc' | reverse }} {{ [1, 2] | reverse | list }} {{ 'abc' | list }}
{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value') }} {{ {'b': 1} | items | list }} {{ {'a': 1} | list }}
{{ x | default('d') }} {{ '' | default('d') }}| {{ '' | d('e', true) }} {{ none | default('n') }} {{ 'a,b,c'.split(',') }}
{{ 'a b  c'.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b '.split(' ') }} {{ 'a\nb\r\nc'.splitlines() }}
{{ ' x '.strip() }}| {{ 'xxaxx'.strip('x') }} {{ 'xxa'.lstrip('x') }} {{ 'axx'.rstrip('x') }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }}
{{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.count('b') }} {{ 'h\u00e9l'.find('l') }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }}
{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ '-'.join(['a', 'b']) }}
{{ '7'.zfill(3) }} {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }} {{ 'ab'.center(5, '*') }}
{{ '%s is %d and %.2f' | format('x', 3, 1.5) }} {{ '%05d|%x' % (42, 255) }} {{ '{}-{}'.format(1, 'a') }} {{ '{b}{{}}'.format(b=2) }}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b', 'z') }} {{ {'a': 1}.items() | list }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }}
{{ {'a': 'b'} | tojson }} {{ [1, 1.5, none, true, '\u00e9"\n/<'] | tojson }} {{ {} | tojson }} {{ [] | tojson(indent=2) }} {{ {'a': [1, {'b': 2}], 'c': {}} | tojson(indent=2) }}
{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ 'h\u00e9\U0001f333' | tojson(ensure_ascii=true) }} {{ {'a': 1} | tojson(separators=(',', ':')) }} {{ {1: 2, none: 3} | tojson }}
{{ '12' | int }} {{ 'x' | int }} {{ '3.7' | int }} {{ 3.9 | int }} {{ '0x1f' | int(base=16) }} {{ '1.5' | float }} {{ 'x' | float }} {{ -3 | abs }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.1 | round(method='ceil') }} {{ 5 | round }}
{{ [1,2,3,4,5] | batch(2) | list }} {{ [1,2,3] | batch(2, 0) | list }} {{ 'a b c' | wordcount }} {{ 'hello world foo' | truncate(10) }} {{ 'hello world foo' | truncate(8, true, '..', 0) }}
{{ '<a & "b">' | e }} {{ '<a>' | safe }} {{ 'a\nb\n\nc' | indent(2) }}| {{ 'a\nb' | indent(2, true) }} {{ 'a\n\nb\n' | indent(2, blank=true) }}| {{ 'a\nb' | indent('> ') }}
{{ ['a', 'b'] | map('upper') | list }} {{ [{'a': 1}, {}] | map(attribute='a', default=0) | list }} {{ [{'a': {'b': 3}}] | map(attribute='a.b') | list }} {{ [0, 1, ''] | select | list }}
{{ [1, 2, 3] | select('odd') | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ [{'r': 'u'}, {'r': 'a'}] | selectattr('r', 'equalto', 'a') | list }} {{ [{'r': 1}, {}] | rejectattr('r') | list }} {{ [{'r': 1}] | selectattr('r', 'defined') | list | length }}
{{ [{'g': 1, 'v': 'a'}, {'g': 2, 'v': 'b'}, {'g': 1, 'v': 'c'}] | groupby('g') | map('last') | list }} {{ range(5) | list }} {{ range(1, 10, 3) | list }} {{ range(5, 0, -2) | list }} {{ dict(a=1, b=2) }} {{ dict([('a', 1)]) }}
{% set x = 1 %}{{ x }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set y %}t{{ x }}{% endset %}{{ y }}{% set z | upper %}abc{% endset %}{{ z }}
{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %}{% for i in range(10) if i is even %}{{ i }}{{ loop.index }}{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% set ns = namespace(n=0) %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{% set v = 1 %}{% for i in [1] %}{% set v = 2 %}{% endfor %}{{ v }}{% if true %}{% set v = 3 %}{% endif %}{{ v }}
{% macro f(a, b=2) %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}{{ f(b=1, a=0) }}{% macro g() %}{{ caller() }}!{% endmacro %}{% call g() %}in{% endcall %}{% macro h() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ h(1, 2, k=3) }}
{% macro w(x) %}{{ x }}{{ outer }}{% endmacro %}{% set outer = 5 %}{{ w(1) }}{% macro c() %}{{ caller(7) }}{% endmacro %}{% call(n) c() %}{{ n }}{% endcall %}{{ f is defined }}{% with q = 1, p = 2 %}{{ q }}{{ p }}{% endwith %}{{ q is defined }}
{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}{{ loop.depth }}{{ loop(n.c) }}{% endfor %}{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{{ loop.cycle('a', 'b') }}{% endfor %}{% filter upper %}abc{{ 1 }}{% endfilter %}
{% raw %}{{ raw }} {% if %}{% endraw %} {# comment #} {#- x -#} {{- ' tight ' -}} a {%- if true -%}  b  {%- endif -%} c {{ "}}" }} {{ '%}' }} {% if 1 %} {% elif 2 %} {% else %} {% endif %}
{{ messages[0].role }} {{ messages[0]['content'] }} {{ messages[0].nothing }}| {{ messages[-1].role }} {{ messages | length }} {{ messages[1:] | length }} {{ messages[0].items is defined }} {{ 'role' in messages[0] }} {{ messages | selectattr('role', 'in', ['user']) | list | length }}
{% generation %}gen {{ 1 }}{% endgeneration %}{% if messages | selectattr('role', 'equalto', 'nobody') %}lazy{% endif %}{{ 'x' if messages[0].get('role') == 'user' else 'y' }}{{ "a" ~ ("b" if true) ~ ("c" if false) }}{{ [1, 2] == [1, 2] }}{{ {'a': 1} == {'a': 1} }}{{ none == false }}
{{ 1 | string ~ '2' }}{{ 'a' + 'b' | upper }}{{ ('a' + 'b') | upper }}{{ not 1 == 2 }}{{ -1 | abs }}{{ 'abc' | first }}{{ 3 in [1, 2, 3] and 'x' }}{{ '' or 'y' }}{{ 0 and 1 }}{{ true and none }}{{ (x.y is defined) if x is defined else 'no' }}{{ 'a' < 'b' }}{{ [1, 2] < [1, 3] }}
"""
REFUSED = r"""
{{ nobody.x }}
{{ nobody + 1 }}
{{ 1 + 'a' }}
{{ 'a' + 1 }}
{{ 1 / 0 }}
{{ raise_exception('no') }}
{{ [].append(1) }}
{{ {}.update({}) }}
{{ nobody() }}
{{ 1() }}
{% for a, b in [1] %}{% endfor %}
{% for a in 5 %}{% endfor %}
{{ 'a' | nope }}
{{ 'a' is nope }}
{% if %}{% endif %}
{% for %}{% endfor %}
{% endif %}
{{ 'open
{% if 1 %}
{{ 1 2 }}
{{ (1 }}
{{ ] }}
{% set 1 = 2 %}
{% break %}
{% macro m() %}{% endmacro %}{{ m(1, 2) }}
{{ range(1000000) | length }}
{{ 1 < 'a' }}
{{ [3, 'a'] | sort }}
{{ messages | tojson | fromjson }}
{% set messages.x = 1 %}
{{ nobody | tojson }}
{{ [1, 2] | map('nope') | list }}
{{ 5 | length }}
"""


def check_language(helper):
    values = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    good = [line for line in LANGUAGE.strip().split("\n")]
    # each piece alone too, so that one difference does not hide another
    pieces = [p for line in good for p in line.split("{{") if p.count("}}") == 1]
    good += ["{{" + p for p in pieces if "%}" not in p]
    good += ["  {% if 1 %}\n a\n  {%- if 1 %}\n  b\n  {% endif +%}\n c {% endif %} \n\n", "a\n  {# c #}\n  b\n",
             "  {%+ if 1 %}x{% endif %}\n\n", "{% if 1 %}\r\na\r\n{% endif %}\r\n", "a {%- raw -%}  b  {%- endraw -%} c",
             "\n\n{{ 1 }}\n", "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\nend", "\t{% set x = 1 %}\t{{ x }}"]
    bad = REFUSED.strip().split("\n")
    answers = ask(helper, [{"template": t, "values": values} for t in good + bad])
    checked = 0
    for t, got in zip(good + bad, answers, strict=True):
        try:
            want = _compile_jinja_template(t).render(**values)
            if " at 0x" in want:  # the address of a Python object
                continue
        except Exception:
            want = None
        assert got.get("text") == want, (t, want, got)
        assert t not in bad or want is None, t
        checked += 1
    return checked


def main():
    helper = sys.argv[1]
    more = sorted(pathlib.Path(sys.argv[2]).glob("*.jinja")) if len(sys.argv) > 2 else []
    files = sorted((ROOT / "recipes/data/templates").glob("*.jinja"))
    assert {f.stem for f in files} == set(FORMATS)
    print(f"language: {check_language(helper)} templates")
    with tempfile.TemporaryDirectory() as tmp:
        for at, f in enumerate(files):
            template = f.read_text()
            system, tools, thoughts = FORMATS[f.stem][4:]
            talks = [conversation(s, system, tools, thoughts, odd=False) for s in range(N)]
            kinds = {"byte-level": lambda p: byte_level(p, f.stem, template)}
            if f.stem in ("llama2", "mistral", "mistral-v1", "vicuna"):
                kinds["first"] = lambda p: metaspace(p, f.stem, template, False)
                kinds["legacy"] = lambda p: metaspace(p, f.stem, template, True)
            for kind, make in kinds.items():
                folder = pathlib.Path(tmp) / f"{at}-{kind}"
                check_chat(helper, folder, make(folder), f.stem, talks)
            refused = check_text(helper, f.stem, template)
            print(f"{f.stem:12} {N} conversations: text, ids, masks ({', '.join(kinds)}); "
                  f"{N} odd ones: text, {refused} refused by both")
    for f in more:
        refused = check_text(helper, f.name, f.read_text())
        print(f"{f.stem:12} {N} odd conversations: text, {refused} refused by both")
    return 0


if __name__ == "__main__":
    sys.exit(main())
