#!/usr/bin/env bash
# nvcc_log.sh COMMAND... - compiles a GPU source and keeps what ptxas says of its kernels.
#
# A build with tests puts it in front of nvcc -Xptxas=-v: lines of ptxas go to OBJECT.ptxas, where
# scripts/cuda_table.sh reads them, all others to stderr as ever.
set -uo pipefail

object=
for ((i = 1; i < $#; i++)); do
    [ "${!i}" = -o ] && next=$((i + 1)) && object=${!next}
done
[[ $object == *.o ]] || exec "$@"
"$@" 2>"$object.stderr"
status=$?
grep -E '^ptxas info|^ +[0-9]+ bytes (stack frame|cumulative)' "$object.stderr" >"$object.ptxas"
grep -vE '^ptxas info|^ +[0-9]+ bytes (stack frame|cumulative)' "$object.stderr" >&2
rm -f "$object.stderr"
exit $status
