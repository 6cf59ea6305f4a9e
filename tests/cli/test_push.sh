#!/usr/bin/env bash
# tests/cli/test_push.sh - mbuyu push against a hub with faults: the cases are in push_cases.py.
set -u
command -v python3 >/dev/null || { echo "there is no python3 to play the hub"; exit 77; }
exec python3 "$(dirname "${BASH_SOURCE[0]}")/push_cases.py" "$MBUYU"
