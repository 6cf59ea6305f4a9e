#!/usr/bin/env bash
# tests/cli/test_hub.sh - mbuyu hub at the level of requests: ranges, tags, errors, pages, names that lead
# elsewhere, foreign hosts, writing without a token, broken uploads and commits, kill -9 during commits.
# The cases are in hub_cases.py. Under MB_LONG=1 it is killed twenty times instead of four.
set -u
command -v python3 >/dev/null || { echo "there is no python3 to play the clients"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
XDG_CACHE_HOME=$work/cache python3 "$(dirname "${BASH_SOURCE[0]}")/hub_cases.py" "$MBUYU" "$work"
