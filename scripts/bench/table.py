#!/usr/bin/env python3
"""table.py FOLDER - the table and ratios of scripts/bench/cpu.sh out of what it left in FOLDER.

Files are KIND.SIDE.ROUND.{json,log}: json is from measure.py; the log's first line is the tokens per
second of each step, its second (mbuyu's) the planned over the measured memory. Speeds are the median
over the steps of all rounds, memory and start the median over rounds. Ratios are to the faster of
PyTorch's sides.
"""
import collections
import json
import pathlib
import statistics
import sys

folder = pathlib.Path(sys.argv[1])
speed, peak, start, plan = (collections.defaultdict(list) for _ in range(4))
for path in sorted(folder.glob("*.json")):
    kind, side, _ = path.name.split(".", 2)
    facts = json.loads(path.read_text())
    if kind == "start":
        start[side].append(facts["seconds"])
        continue
    lines = path.with_suffix(".log").read_text().splitlines()
    peak[kind, side].append(facts["peak_bytes"])
    speed[kind, side] += json.loads(lines[0])
    plan[kind, side] += map(json.loads, lines[1:])

middle = statistics.median
kinds = sorted({kind for kind, _ in speed})
print(f"{'':12s} {'':14s} {'tokens/s':>9s} {'lowest':>8s} {'highest':>8s} {'peak GB':>8s}")
for kind, side in sorted(speed):
    s = speed[kind, side]
    print(
        f"{kind:12s} {side:14s} {middle(s):9.1f} {min(s):8.1f} {max(s):8.1f} "
        f"{middle(peak[kind, side]) / 1e9:8.2f}"
    )
print()
for side, seconds in sorted(start.items()):
    print(f"start to first forward, {side}: {middle(seconds):.2f} s")
print()
for kind in kinds:
    theirs = [side for k, side in speed if k == kind and side.startswith("torch")]
    if not theirs or (kind, "mbuyu") not in speed:
        continue
    best = max(theirs, key=lambda side: middle(speed[kind, side]))
    ours = kind, "mbuyu"
    print(f"ratio {kind}-tokens-per-second {middle(speed[ours]) / middle(speed[kind, best]):.3f} ({best})")
    print(f"ratio {kind}-peak-memory {middle(peak[ours]) / middle(peak[kind, best]):.3f} ({best})")
    print(f"ratio {kind}-planned-memory {middle(plan[ours]):.3f} (of the measured)")
if ("scaling", "ranks-2") in speed:
    both = middle(speed["scaling", "ranks-2"]) / middle(speed["scaling", "ranks-1"])
    print(f"ratio scaling-2-ranks {both:.3f} (2 ranks over 1, a thread each)")
for side, seconds in sorted(start.items()):
    if side != "mbuyu":
        print(f"ratio start-seconds {middle(start['mbuyu']) / middle(seconds):.3f} ({side})")
