#!/usr/bin/env bash
# tests/cli/test_pull.sh - mbuyu pull over a link that breaks: the cases are in pull_cases.py. Under
# MB_LONG=1 it is killed at fifty moments instead of six.
set -u
command -v python3 >/dev/null || { echo "there is no python3 to play the hub"; exit 77; }
exec python3 "$(dirname "${BASH_SOURCE[0]}")/pull_cases.py" "$MBUYU"
