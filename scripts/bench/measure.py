#!/usr/bin/env python3
"""measure.py OUT COMMAND... - runs a command and writes {"seconds", "peak_bytes"} to OUT.

The peak is the largest resident set of the command or any process it waited for, files that it has
mapped included. Its own output goes through; its exit status is passed on.
"""
import json
import resource
import subprocess
import sys
import time

start = time.perf_counter()
status = subprocess.run(sys.argv[2:]).returncode
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
with open(sys.argv[1], "w") as out:
    json.dump(dict(seconds=round(seconds, 3), peak_bytes=peak), out)
sys.exit(status)
