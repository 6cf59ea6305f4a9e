#!/usr/bin/env bash
# Puts what the program says about itself into the documents: the lines between
#
#     <!-- mbuyu ARGUMENTS: begin -->
#     <!-- mbuyu ARGUMENTS: end -->
#
# become the output of `mbuyu ARGUMENTS`.
#
#     scripts/make_reference_docs.sh           rewrites the documents
#     scripts/make_reference_docs.sh --check   exits 1, with the difference, when one is out of date
#
# MBUYU names the program; without it build/mbuyu.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
mbuyu=${MBUYU:-$root/build/mbuyu}
check=${1:-}
stale=0

fill() { # document on stdout, with fresh tables
    local line arguments skip=
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        '<!-- mbuyu '*': begin -->')
            arguments=${line#'<!-- mbuyu '}
            arguments=${arguments%': begin -->'}
            printf '%s\n' "$line"
            # shellcheck disable=SC2086  # several words
            "$mbuyu" $arguments
            skip=yes
            ;;
        '<!-- mbuyu '*': end -->')
            printf '%s\n' "$line"
            skip=
            ;;
        *)
            [ -n "$skip" ] || printf '%s\n' "$line"
            ;;
        esac
    done <"$1"
}

for document in "$root"/README.md "$root"/recipes/README.md "$root"/recipes/config/README.md; do
    [ -f "$document" ] || continue
    fresh=$(mktemp)
    fill "$document" >"$fresh"
    if ! cmp -s "$fresh" "$document"; then
        if [ "$check" = --check ]; then
            diff -u "$document" "$fresh" || true
            stale=1
        else
            cat "$fresh" >"$document"
            echo "updated ${document#"$root"/}"
        fi
    fi
    rm -f "$fresh"
done
exit $stale
