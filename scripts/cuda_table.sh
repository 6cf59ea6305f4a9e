#!/usr/bin/env bash
# cuda_table.sh [--write] BUILD - what every kernel of core/cuda takes of a GPU.
#
# Prints a table of what ptxas said while BUILD (with MB_TESTS) was built: kernel, architecture,
# registers of a thread, bytes spilled, static shared memory of a block (MB_SMEM comes on top). Then
# compares it with tests/golden/cuda_kernels.txt and fails, with a line for each reason, when
#
#     a hot kernel (below) spills, on sm_75 more than OLD_SPILL
#     a kernel takes over SLACK registers, or any spills or shared memory, more than it did
#     a kernel is new or gone, for an architecture that the golden table has
#
# --write makes the table the golden one instead. Another nvcc allocates registers otherwise: then
# only spills of hot kernels count. Exit status 77: BUILD has no GPU back end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly golden=tests/golden/cuda_kernels.txt SLACK=8
# bytes: f16 attention with heads over 64 on sm_75, which has no cp.async and holds tiles in registers
readonly OLD_SPILL=128
# files whose kernels are most of a step; all but the sort of a batch's ids, one block long
readonly hot=' attention attention_bwd rmsnorm layernorm rope activation elementwise softmax_xent embedding dropout adamw '

write=0
[ "${1:-}" = --write ] && write=1 && shift
[ $# -eq 1 ] || { echo 'usage: cuda_table.sh [--write] BUILD' >&2 && exit 2; }
build=$1
objects=$build/CMakeFiles/mbuyu_cuda.dir/core/cuda
if ! [ -d "$objects" ]; then
    echo "$build has no GPU back end (nvcc builds it)" >&2
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# rows LOG: a line per kernel and architecture. Names are demangled, without parameters and the name
# of the file's anonymous namespace.
rows() {
    local name
    name=$(basename "$1" .cu.o.ptxas)
    c++filt -p <"$1" | awk -v file="$name" '
        /Compiling entry function/ {
            split($0, part, "\047")
            kernel = part[2]
            arch = substr(part[4], 4)
        }
        /spill stores/ { spilled = $5 + $9 }
        /: Used [0-9]+ registers/ {
            registers = shared = 0
            n = split($0, part, ",")
            for (i = 1; i <= n; i++) {
                if (match(part[i], /Used [0-9]+ registers/))
                    registers = substr(part[i], RSTART + 5) + 0
                if (match(part[i], /[0-9]+ bytes smem/))
                    shared = substr(part[i], RSTART) + 0
            }
            printf "%s\t%s\t%s\t%d\t%d\t%d\n", file, kernel, arch, registers, spilled, shared
        }' | sed -E 's/\(anonymous namespace\):://g; s/_(GLOBAL|INTERNAL)_[A-Za-z0-9_]*:://g; s/\tvoid /\t/; s/, /,/g'
}

for source in core/cuda/*.cu; do
    log=$objects/$(basename "$source").o.ptxas
    [ -f "$log" ] || { echo "there is no $log: build with -DMB_TESTS=ON" >&2 && exit 1; }
    rows "$log"
done >"$work/rows"
compiler=$(sed -nE 's/^CMAKE_CUDA_COMPILER:[A-Z]+=//p' "$build/CMakeCache.txt")
version=$("$compiler" --version | sed -nE 's/.*, (V[0-9.]+).*/\1/p')
{
    printf '# nvcc %s; written by scripts/cuda_table.sh --write\n' "$version"
    printf '# file\tkernel\tarchitecture\tregisters\tspilled\tshared\n'
    LC_ALL=C sort "$work/rows"
} >"$work/table"
column -t -s $'\t' "$work/table"

if [ "$write" -eq 1 ]; then
    mkdir -p "$(dirname "$golden")"
    cp "$work/table" "$golden"
fi

awk -F '\t' -v slack="$SLACK" -v OLD_SPILL="$OLD_SPILL" -v hot="$hot" -v version="nvcc $version;" '
    BEGIN { complaints = 0 }
    function complain(text) {
        print text
        complaints++
    }
    FNR == 1 { file_no++; if (file_no == 1) same = index($0, version) > 0 }
    /^#/ { next }
    { key = $1 "\t" $2 "\t" $3 }
    file_no == 1 {
        registers[key] = $4
        spilled[key] = $5
        shared[key] = $6
        known[$3] = 1
        next
    }
    {
        seen[key] = asked[$3] = 1
        name = $2 " (" $1 ".cu, sm_" $3 ")"
        if ($5 > ($3 < 80 ? OLD_SPILL : 0) && index(hot, " " $1 " ") && $2 != "sort_kernel")
            complain(name " is hot and spills " $5 " bytes")
        if (!same || !($3 in known))
            next
        if (!(key in registers))
            complain(name " is not in the golden table")
        else if ($4 > registers[key] + slack)
            complain(name " takes " $4 " registers, once " registers[key])
        else if ($5 > spilled[key])
            complain(name " spills " $5 " bytes, once " spilled[key])
        else if ($6 > shared[key])
            complain(name " takes " $6 " bytes of shared memory, once " shared[key])
    }
    END {
        for (key in registers) {
            split(key, part, "\t")
            if (same && (part[3] in asked) && !(key in seen))
                complain(part[2] " (" part[1] ".cu, sm_" part[3] ") is gone")
        }
        if (!same)
            print "the golden table is of another nvcc: only spills of hot kernels were looked at"
        exit complaints > 0
    }' "$golden" "$work/table"
