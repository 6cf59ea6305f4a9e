#!/usr/bin/env python3
"""table.py FOLDER - the table and ratios of scripts/bench/cpu.sh out of what it left in FOLDER.

Files are KIND.SIDE.ROUND.{json,log}: json is from measure.py, log the tokens per second of each
step. Speeds are the median over the steps of all rounds, memory and start the median over rounds.
"""
import collections
import json
import pathlib
import statistics
import sys

folder = pathlib.Path(sys.argv[1])
speed, peak, start = (collections.defaultdict(list) for _ in range(3))
for path in sorted(folder.glob("*.json")):
    kind, side, _ = path.name.split(".", 2)
    facts = json.loads(path.read_text())
    if kind == "start":
        start[side].append(facts["seconds"])
        continue
    peak[kind, side].append(facts["peak_bytes"])
    speed[kind, side] += json.loads(path.with_suffix(".log").read_text())

middle = statistics.median
print(f"{'':6s} {'':14s} {'tokens/s':>9s} {'lowest':>8s} {'highest':>8s} {'peak GB':>8s}")
for kind, side in sorted(speed):
    s = speed[kind, side]
    print(
        f"{kind:6s} {side:14s} {middle(s):9.1f} {min(s):8.1f} {max(s):8.1f} "
        f"{middle(peak[kind, side]) / 1e9:8.2f}"
    )
print()
for side, seconds in sorted(start.items()):
    print(f"start to first forward, {side}: {middle(seconds):.2f} s")
print()
for kind, side in sorted(speed):
    if side != "mbuyu":
        ours = kind, "mbuyu"
        print(f"ratio {kind}-tokens-per-second-vs-{side} {middle(speed[ours]) / middle(speed[kind, side]):.3f}")
        print(f"ratio {kind}-peak-memory-vs-{side} {middle(peak[ours]) / middle(peak[kind, side]):.3f}")
for side, seconds in sorted(start.items()):
    if side != "mbuyu":
        print(f"ratio start-seconds-vs-{side} {middle(start['mbuyu']) / middle(seconds):.3f}")
