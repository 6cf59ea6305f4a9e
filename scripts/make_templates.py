#!/usr/bin/env python3
"""Makes tests/data/templates: conversations as transformers' apply_chat_template tokenises them.

    python scripts/make_templates.py        # needs transformers and tokenizers

tokenizer.json is the byte-level BPE of tests/data/reference/gpt2 with the special tokens of all
formats added; templates.json has, for each format, the published template, BOS and EOS, and for each
conversation the rendered text, the ids of the whole, and the ids of the prompt for the last answer.
"""
import json
import pathlib

import transformers
from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "data" / "templates"
BASE = ROOT / "tests" / "data" / "reference" / "gpt2" / "tokenizer.json"
SPECIAL = ["<s>", "</s>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
           "<|end_header_id|>", "<|eot_id|>"]

CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
          " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|im_start|>assistant\n' }}{% endif %}")
SMOLLM2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
           "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
           "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
           "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
           "{{ '<|im_start|>assistant\n' }}{% endif %}")
QWEN2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
         "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
         "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
         "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
          "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | "
          "trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
          "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set "
          "system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
          "{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if "
          "(message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation "
          "roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 "
          "== 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + "
          "'\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}"
          "{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() "
          "+ ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' "
          "+ eos_token }}{% endif %}{% endfor %}")
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') }}
    {%- endif %}
{%- endfor %}
"""
MISTRAL_V1 = ("{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
              "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
              "user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}"
              "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == "
              "'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only "
              "user and assistant roles are supported!') }}{% endif %}{% endfor %}")

FORMATS = [  # our name, template, BOS, EOS, whether a system message can be written
    ("chatml", CHATML, "<|endoftext|>", "<|im_end|>", True),
    ("smollm2", SMOLLM2, "<|im_start|>", "<|im_end|>", True),
    ("chatml", QWEN2, "<|endoftext|>", "<|im_end|>", True),
    ("llama3", LLAMA3, "<|begin_of_text|>", "<|end_of_text|>", True),
    ("zephyr", ZEPHYR, "<s>", "</s>", True),
    ("llama2", LLAMA2, "<s>", "</s>", True),
    ("mistral", MISTRAL, "<s>", "</s>", True),
    ("mistral-v1", MISTRAL_V1, "<s>", "</s>", False),
]


def turns(*texts, system=None):
    roles = ["user", "assistant"]
    head = [{"role": "system", "content": system}] if system is not None else []
    return head + [{"role": roles[i % 2], "content": t} for i, t in enumerate(texts)]


CONVERSATIONS = [
    turns("Hello", "Hi there."),
    turns("How do you say water in Swahili?", "maji", "And tree?", "mti"),
    turns("Translate: baobab", "mbuyu", system="You translate to Swahili."),
    turns("a\nb\n\nc", "first line\nsecond line\n\n- point\n- point", "more", "(done)"),
    turns("  spaces around  ", "42", system="  Be brief.  "),
    turns("Habari za asubuhi? \u00e9\u00e8 \u4f60\u597d \U0001f333", "Nzuri sana! \U0001f30d"),
    turns("code?", "```c\nint main(void) { return 0; }\n```"),
    turns("x" * 40, "y " * 30 + "z", "one", "two", "three", "four"),
]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    spec = json.loads(BASE.read_text())
    size = max(spec["model"]["vocab"].values()) + 1
    for i, text in enumerate(SPECIAL):
        spec["added_tokens"].append(
            {"id": size + i, "content": text, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True})
    path = OUT / "tokenizer.json"
    path.write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n")
    formats = []
    for name, template, bos, eos, system in FORMATS:
        tok = PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token=bos, eos_token=eos,
                                      chat_template=template)
        cases = []
        for messages in CONVERSATIONS:
            if messages[0]["role"] == "system" and not system:
                continue
            text = tok.apply_chat_template(messages, tokenize=False)
            ids = tok(text, add_special_tokens=False).input_ids
            both = tok.apply_chat_template(messages, tokenize=True, return_dict=False)
            assert both == ids, (name, both, ids)
            prompt = tok.apply_chat_template(messages[:-1], tokenize=True, return_dict=False,
                                             add_generation_prompt=True)
            cases.append({"messages": messages, "text": text, "ids": ids, "prompt": prompt})
        formats.append({"name": name, "bos": bos, "eos": eos, "template": template, "cases": cases})
    out = {"transformers": transformers.__version__, "formats": formats}
    (OUT / "templates.json").write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) +
                                        "\n")
    print("wrote", OUT, sum(len(f["cases"]) for f in formats), "conversations")


if __name__ == "__main__":
    main()
