#!/usr/bin/env python3
"""table.py FOLDER REPORT - what scripts/bench/cpu.sh left in FOLDER becomes a table, lines "ratio NAME
VALUE", and report.md, report.svg and results.json in the folder REPORT.

KIND.SIDE.ROUND.json is from measure.py: seconds and peak memory of a process. KIND.SIDE.ROUND.run is
JSON of what it computed: the speed of each step, and of mbuyu the planned over the measured memory. A
round's speed is the median over its steps. Ratios are of medians over rounds, in brackets of the best
rounds, to the faster of PyTorch's sides.
"""
import collections
import json
import pathlib
import statistics
import sys

source, report = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
middle = statistics.median
speed, peak, plan, seconds, facts = (collections.defaultdict(list) for _ in range(5))


def read(path):
    return json.loads(path.read_text())


def share(kind, side):
    """Tokens that are no padding."""
    path = source / f"{kind}.{side}.share"
    return read(path) if path.exists() else 1.0


for path in sorted(source.glob("*.run")):
    kind, side, _ = path.name.split(".", 2)
    run = read(path) if kind != "loss" else None
    if kind == "loss":
        facts[kind, side] = read(path.with_name(f"loss.{side}.run"))
    elif kind.startswith("gemm"):
        facts[kind, side].append(run)
    else:
        speed[kind, side].append(middle(run["speeds"]) * share(kind, side))
        plan[kind, side] += [run["planned"]] if "planned" in run else []
for path in sorted(source.glob("*.json")):
    kind, side, _ = path.name.split(".", 2)
    (seconds if kind == "start" else peak)[kind, side].append(
        read(path)["seconds" if kind == "start" else "peak_bytes"]
    )


def ours_first(key):
    kind, side = key
    order = ["full-f32", "full-bf16", "lora-bf16", "llama1b-lora", "bert-bf16", "packing", "scaling"]
    return order.index(kind), side.startswith("torch"), side


sides = sorted(speed, key=ours_first)
kinds = list(dict.fromkeys(kind for kind, _ in sides))


def fastest(kind, prefix="torch"):
    theirs = [side for k, side in sides if k == kind and side.startswith(prefix)]
    return max(theirs, key=lambda side: middle(speed[kind, side]), default=None)


# --- ratios: (name, value, what it is)

ratios = []


def compare(name, ours, theirs):
    value = middle(speed[ours]) / middle(speed[theirs])
    best = max(speed[ours]) / max(speed[theirs])
    ratios.append((name, value, f"{best:.3f} of the best rounds; over {theirs[1]}"))


for kind in kinds:
    theirs = fastest(kind)
    if theirs is None or (kind, "mbuyu") not in speed:
        continue
    compare(f"{kind}-tokens-per-second", (kind, "mbuyu"), (kind, theirs))
    memory = middle(peak[kind, "mbuyu"]) / middle(peak[kind, theirs])
    ratios.append((f"{kind}-peak-memory", memory, f"over {theirs}"))
    ratios.append(
        (f"{kind}-planned-memory", middle(plan[kind, "mbuyu"]), "planned over measured")
    )
if ("packing", "mbuyu-packed") in speed:
    packed = "packing", "mbuyu-packed"
    for pad in "longest", "128":
        compare(f"packing-over-{pad}", packed, ("packing", fastest("packing", f"torch-pad-{pad}")))
        compare(f"packing-over-own-{pad}", packed, ("packing", f"mbuyu-pad-{pad}"))
    compare("packing-over-own-rows", packed, ("packing", "mbuyu-rows"))
if ("scaling", "ranks-2") in speed:
    compare("scaling-2-ranks", ("scaling", "ranks-2"), ("scaling", "ranks-1"))


def gflop_per_token(kind):
    """What training must multiply, forward and backward: 6 for each weight of a product that is trained,
    4 for one that is not (the head's table once, norms and the look-up of embeddings none), and
    attention of 512 tokens, 6 L H d T, causal: half of all pairs; BERT's of 128, 12 L H d T."""
    c = read(source / f"{kind}.model")
    width, layers = c["hidden_size"], c["num_hidden_layers"]
    heads, inner = c["num_attention_heads"], c["intermediate_size"]
    if kind == "bert-bf16":
        return 1e-9 * layers * (6 * (4 * width * width + 2 * width * inner) + 12 * width * 128)
    head = c.get("head_dim") or width // heads
    q, kv = head * heads, head * c["num_key_value_heads"]
    linear = [(width, q), (width, kv), (width, kv), (q, width)] + 2 * [(width, inner)] + [(inner, width)]
    weights = layers * sum(a * b for a, b in linear) + width * c["vocab_size"]
    lora = layers * sum(16 * (a + b) for a, b in linear) if "lora" in kind else 0
    return 1e-9 * ((4 if lora else 6) * weights + 6 * lora + 6 * layers * q * 512)


peaks = {}
for name in sorted({name for name, _ in facts if name.startswith("gemm-")}):
    best, side = max((max(found), side) for (other, side), found in facts.items() if other == name)
    peaks[name] = best
    ratios.append((name, best, f"GFLOP/s of the fastest product, {side}'s"))
for kind in kinds:
    peak_of = peaks.get("gemm-f32" if kind == "full-f32" else "gemm-bf16")
    if peak_of is None or not (source / f"{kind}.model").exists():
        continue
    gflop, theirs = gflop_per_token(kind), fastest(kind)
    value = middle(speed[kind, "mbuyu"]) * gflop / peak_of
    ratios.append((f"{kind}-gemm-share", value, f"{gflop:.3f} GFLOP a token"))
    if theirs:
        value = middle(speed[kind, theirs]) * gflop / peak_of
        ratios.append((f"{kind}-gemm-share-of-pytorch", value, theirs))
        ratios.append((f"{kind}-tokens-per-second-limit", 1 / value, "all of that rate over PyTorch's step"))
if ("start", "mbuyu") in seconds:
    start, other = middle(seconds["start", "mbuyu"]), middle(seconds["start", "torch"])
    ratios.append(("start-seconds", start, f"seconds; best {min(seconds['start', 'mbuyu']):.3f}"))
    ratios.append(("start", start / other, f"over PyTorch's {other:.2f} s"))
for side in "lora", "full":
    if ("loss", side) in facts:
        found = facts["loss", side]
        ratios.append((f"loss-{side}-apart", found["apart"], "bf16 and f32, the worst mean of 20 steps"))

# --- table, plot, report

columns = ("", "", "tokens/s", "best", "lowest", "peak GB", "planned")
table = []
for key in sides:
    s, planned = speed[key], plan[key]
    table.append(
        (*key, f"{middle(s):.1f}", f"{max(s):.1f}", f"{min(s):.1f}", f"{middle(peak[key]) / 1e9:.2f}",
         f"{100 * middle(planned):.1f} %" if planned else "")
    )


def text_lines():
    wide = [max(len(row[i]) for row in [columns, *table]) for i in range(len(columns))]
    for row in [columns, *table] if table else []:
        yield "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, wide)))


def plot():
    """Bars for each side of each row, as a share of PyTorch's fastest: speed left, memory right."""
    line, top, left, wide, gap = 18, 46, 250, 300, 90
    rows = [(kind, side) for kind, side in sides if fastest(kind)]
    if not rows:
        return None
    height = top + len(rows) * line + len({kind for kind, _ in rows}) * 10 + 20
    total = left + 2 * wide + 2 * gap
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" '
        f'viewBox="0 0 {total} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{total}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="20" font-weight="bold">tokens/s, PyTorch\'s fastest = 1</text>',
        f'<text x="{left + wide + gap}" y="20" font-weight="bold">peak memory, the same = 1</text>',
    ]
    relative = {}
    for kind, side in rows:
        base = kind, fastest(kind)
        relative[kind, side] = (
            middle(speed[kind, side]) / middle(speed[base]),
            middle(peak[kind, side]) / middle(peak[base]),
        )
    scale = [wide / max(values[i] for values in relative.values()) for i in range(2)]
    y, last = top - 10, None
    for kind, side in rows:
        y += line + (10 if kind != last else 0)
        name = f"{kind}, {side}" if kind != last else side
        last = kind
        colour = "#1b7a43" if side.startswith("mbuyu") else "#8a8f98"
        out.append(f'<text x="{left - 8}" y="{y}" text-anchor="end">{name}</text>')
        labels = (f"{middle(speed[kind, side]):.0f}", f"{middle(peak[kind, side]) / 1e9:.2f} GB")
        for i in range(2):
            x, bar = left + i * (wide + gap), relative[kind, side][i] * scale[i]
            out.append(f'<rect x="{x}" y="{y - 11}" width="{bar:.1f}" height="13" fill="{colour}"/>')
            out.append(f'<text x="{x + bar + 4:.1f}" y="{y}">{relative[kind, side][i]:.2f} ({labels[i]})</text>')
    for i in range(2):
        x = left + i * (wide + gap) + scale[i]
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 16}" y2="{height - 16}" stroke="black"/>')
    return "\n".join([*out, "</svg>\n"])


def markdown(picture):
    about = (source / "about").read_text().splitlines()
    load = (source / "load").read_text().split()[0]
    yield "# mbuyu and PyTorch on this CPU\n"
    yield from (f"- {fact}" for fact in about)
    yield f"- load of the machine when it began: {load}\n"
    if picture:
        yield "![speed and memory](report.svg)\n"
    if table:
        yield "Tokens/s are medians of rounds (a round's speed is the median of its steps), of tokens that"
        yield "are no padding; peak memory is that of the whole process; planned is mbuyu's plan over what"
        yield "it measured.\n"
        yield "| row | side | tokens/s | best round | lowest | peak GB | planned |\n|---|---|---|---|---|---|---|"
        yield from ("| " + " | ".join(row) + " |" for row in table)
        yield ""
    yield "| ratio | value | |\n|---|---|---|"
    yield from (f"| {name} | {value:.4g} | {note} |" for name, value, note in ratios)


picture = plot()
(report / "report.md").write_text("\n".join(markdown(picture)) + "\n")
if picture:
    (report / "report.svg").write_text(picture)
(report / "results.json").write_text(
    json.dumps(
        dict(
            about=(source / "about").read_text().splitlines(),
            runs={path.name: read(path) for path in sorted(source.glob("*.run"))},
            processes={path.name: read(path) for path in sorted(source.glob("*.json"))},
            ratios={name: value for name, value, _ in ratios},
        ),
        indent=1,
    )
    + "\n"
)
print((source / "about").read_text())
print("\n".join(text_lines()))
print(f"\nreport: {report / 'report.md'}\n")
for name, value, note in ratios:
    print(f"ratio {name} {value:.4g} ({note})")
