#!/usr/bin/env python3
"""slower.py RUN OTHER PERCENT - exit code 0: the steps of RUN are slower by more than that."""
import json
import pathlib
import statistics
import sys

run, other = (statistics.median(json.loads(pathlib.Path(p).read_text())["speeds"]) for p in sys.argv[1:3])
sys.exit(run * (1 + float(sys.argv[3]) / 100) >= other)
