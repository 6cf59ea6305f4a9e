#!/bin/sh
# tests/emu/check_subset.sh - the kernels keep to what the emulator can check.
#
#     check_subset.sh <root>             core/cuda uses nothing outside the subset of core/cuda/dev.h
#     check_subset.sh <root> <library>   and the emulated back end holds and wants nothing of core/cpu
#     check_subset.sh --self             the rules find what they forbid
set -u

# One rule a line: name, files it does not hold for, extended regular expression. (gemm.cu waits and
# allocates where it times algorithms, outside of steps.)
rules() {
    cat <<'RULES'
PTX|dev.h|(^|[^_[:alnum:]])(asm|__asm__)([^_[:alnum:]]|$)
launch syntax|cuda.h|<<<
words of CUDA C++|dev.h|__(shared|global|device|host|constant|managed|launch_bounds|forceinline)__
shuffles and votes|dev.h|__(shfl|ballot|any|all|match|activemask|reduce)_?[a-z_]*\(|__syncwarp|__syncthreads_
fences and grids|dev.h|__threadfence|__nanosleep|cooperative_groups|grid_sync
atomics|dev.h|atomic(Add|Sub|Exch|Min|Max|Inc|Dec|CAS|And|Or|Xor)|__atomic_|std::atomic
a second dimension|none|(threadIdx|blockIdx|blockDim|gridDim)[[:space:]]*\.[[:space:]]*[yz]|dim3
printing|none|(^|[^_[:alnum:]])(printf|puts|putchar)[[:space:]]*\(
managed memory|none|cudaMallocManaged|cudaMemPrefetch|cudaMemAdvise
symbols and textures|none|cudaMemcpyToSymbol|cudaTextureObject|tex[123]D|__ldg
blocking copies|none|(cudaMemcpy|cudaMemset)[[:space:]]*\(
a body that waits|runtime.cu gemm.cu|cuda(Stream|Device|Event)Synchronize|cudaStreamQuery|cudaEventQuery
an edge made elsewhere|runtime.cu|cudaEventRecord|cudaStreamWaitEvent
memory taken elsewhere|runtime.cu gemm.cu|cuda(Malloc|Free|HostAlloc|MallocHost|FreeHost)[[:space:]]*\(
headers of CUDA|none|#[[:space:]]*include[[:space:]]*<(cuda_[bf][a-z]*[0-9]+|mma|cuda|cooperative_groups|cub|thrust)[./]
the CPU's kernels|none|core/cpu|mb_cpu_
RULES
}

# Prints what breaks a rule in one file; comments do not count, lines keep their numbers.
look() {
    base=$(basename "$1")
    text=$(${CXX:-g++} -x c++ -fpreprocessed -dD -E "$1" 2>/dev/null | sed '/^#pragma GCC/d')
    rules | while IFS='|' read -r name except expression; do
        case " $except " in *" $base "*) continue ;; esac
        printf '%s\n' "$text" | grep -E -n -- "$expression" | sed "s|^|$1: $name: |"
    done
}

self() {
    folder=$(mktemp -d) || exit 1
    trap 'rm -rf "$folder"' EXIT
    missed=0
    while IFS= read -r line; do
        printf '%s\n' "$line" >"$folder/kernel.cu"
        if [ -z "$(look "$folder/kernel.cu")" ]; then
            echo "not found: $line"
            missed=1
        fi
    done <<'PLANTED'
asm volatile("bar.sync 0;");
kernel<<<1, 32>>>(x);
__shared__ float a[3];
__device__ float f();
v = __shfl_xor_sync(0xffffffff, v, 1);
if (__any_sync(m, p)) return;
__syncwarp();
n = __syncthreads_count(p);
__threadfence();
atomicAdd(&sum, v);
i = threadIdx.y;
dim3 grid(2, 3);
printf("%d\n", i);
cudaMallocManaged(&p, n);
v = __ldg(p);
cudaMemcpy(a, b, n, cudaMemcpyDefault);
cudaStreamSynchronize(s);
cudaStreamWaitEvent(s, e, 0);
cudaMalloc(&p, n);
#include <cuda_bf16.h>
#include <cooperative_groups.h>
mb_cpu_copy(ex, y, x);
PLANTED
    printf '/* asm, atomicAdd and __shared__ are told of here. */\nint x;\n' >"$folder/kernel.cu"
    if [ -n "$(look "$folder/kernel.cu")" ]; then
        echo "a comment is taken for code"
        missed=1
    fi
    exit $missed
}

[ "$1" = --self ] && self
bad=$(for file in "$1"/core/cuda/*.cu "$1"/core/cuda/*.h; do look "$file"; done)
if [ -n "$bad" ]; then
    printf '%s\n' "$bad"
    exit 1
fi
if [ $# -gt 1 ]; then
    [ -f "$2" ] || exit 77
    if nm "$2" | grep 'mb_cpu_'; then
        echo "$2 has to do with core/cpu"
        exit 1
    fi
fi
