#!/usr/bin/env bash
# gpu_bundle.sh [--arch "90"] [--out FOLDER] [--build FOLDER] - all that scripts/gpu_check.sh needs
# on a GPU machine without Debian's packages or a compiler, as FOLDER/mbuyu-gpu/ and
# FOLDER/mbuyu-gpu.tar.xz (FOLDER: build-bundle). There:
#
#     tar xf mbuyu-gpu.tar.xz && mbuyu-gpu/gpu_check.sh
#
# In it: mbuyu and its GPU back end for the architectures named ("80;90"), test programs and data,
# Open MPI with mpirun, and every library but glibc's and NVIDIA's. The machine brings a driver,
# cudart, cuBLASLt and NCCL, of a toolkit or of Python's wheels, and a glibc as new as the one here.
# Fails when the archive is over 64 MiB.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

architectures=90 out=$root/build-bundle build_folder=''
while [ $# -gt 0 ]; do
    case $1 in
    --arch) architectures=$2 && shift ;;
    --out) out=$2 && shift ;;
    --build) build_folder=$2 && shift ;;
    *) die "unknown option $1" ;;
    esac
    shift
done
build_folder=${build_folder:-$out/build}
need_packages "${build_packages[@]}" libcmocka-dev xz-utils binutils
mkdir -p "$out" "$build_folder"
{
    cmake -S "$root" -B "$build_folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMB_CUDA=ON \
        "-DMB_CUDA_ARCHITECTURES=$architectures" -DMB_TESTS=ON -DMB_TEST_DATA=tests/data \
        -DCMAKE_SKIP_RPATH=ON &&
        cmake --build "$build_folder" -j "$(cores)" --target mbuyu mbuyu_cuda device_tests \
            bench_device make_model checkpoint_digest
} >"$out/build.log" 2>&1 || {
    tail -n 40 "$out/build.log" >&2
    die "the build failed; all of its output is in $out/build.log"
}

bundle=$out/mbuyu-gpu
rm -rf "$bundle"
mkdir -p "$bundle"/{build/tests,lib/compiler,scripts/bench,tests/cli,tests/data} \
    "$bundle"/mpi/{bin,lib/openmpi,lib/pmix,share/openmpi}

# --- our own
programs=(bench_device make_model checkpoint_digest test_dist_comm_nccl_np3)
mapfile -t -O ${#programs[@]} programs < <(awk '{ print $2 }' "$build_folder/tests/device_tests.txt" | sort -u)
cp "$build_folder"/{mbuyu,libmbuyu_cuda.so} "$bundle/build/"
for program in "${programs[@]}"; do
    cp "$build_folder/tests/$program" "$bundle/build/tests/"
done
cp "$build_folder/tests/device_tests.txt" "$bundle/build/tests/"
cp "$root"/scripts/{gpu_check.sh,lib.sh} "$bundle/scripts/"
cp "$root"/scripts/bench/{gpu.sh,gpu_peer.py} "$bundle/scripts/bench/"
cp -r "$root"/tests/data/{reference,rows,dequantise.bin} "$bundle/tests/data/"
for file in lib.sh test_device.sh; do
    [ ! -f "$root/tests/cli/$file" ] || cp "$root/tests/cli/$file" "$bundle/tests/cli/"
done
cp "$root/LICENSE" "$bundle/"
cat >"$bundle/gpu_check.sh" <<'START'
#!/bin/sh
exec "$(dirname "$0")/scripts/gpu_check.sh" "$@"
START
chmod +x "$bundle/gpu_check.sh"

# --- Open MPI: what works inside one machine; nothing for networks of other kinds
mpi_folder=$(dirname "$(find -L /usr/lib /usr/local/lib /opt -name mca_pml_ob1.so 2>/dev/null | head -n 1)")
pmix_folder=$(dirname "$(find -L /usr/lib /usr/local/lib /opt -name 'pmix_mca_*.so' 2>/dev/null | head -n 1)")
[ "$mpi_folder" != . ] || die 'the plug-ins of Open MPI were not found'
other_networks='libucp|libucs|libuct|libfabric|libpsm|libibverbs|librdmacm|libosm|libflux|libslurm|libnl-'
plugins() { # plugins FOLDER PATTERN TO
    local file
    for file in "$1"/$2; do
        [ -e "$file" ] || continue
        # the whole output is read before grep decides
        ldd "$file" >"$out/ldd" 2>/dev/null
        grep -qE "$other_networks" "$out/ldd" || cp -L "$file" "$3/"
    done
}
plugins "$mpi_folder" 'mca_*.so' "$bundle/mpi/lib/openmpi"
[ "$pmix_folder" = . ] || plugins "$pmix_folder" 'pmix_mca_*.so' "$bundle/mpi/lib/pmix"
rm -f "$bundle"/mpi/lib/openmpi/mca_{pmix_flux,schizo_flux,schizo_jsm,ras_*,io_romio*,memheap_*,s[cp]*ll_*,sshmem_*}.so
for program in mpirun orted; do
    cp "$(readlink -f "$(command -v "$program")")" "$bundle/mpi/bin/$program"
done
for help in /usr/share/openmpi "$mpi_folder/../../share/openmpi"; do
    [ ! -d "$help" ] || cp "$help"/help-*.txt "$bundle/mpi/share/openmpi/"
done

# --- every library that all of this asks for
glibc='^(ld-linux.*|linux-vdso|libc|libm|libdl|libpthread|librt|libresolv|libutil|libmvec|libanl|libnsl|libBrokenLocale)\.so'
nvidia='^(libcuda|libcudart|libcublas|libcublasLt|libnccl|libnvrtc|libnvJitLink)\.so'
find "$bundle/build" "$bundle/mpi" -type f \( -perm -u+x -o -name '*.so' \) -exec sh -c 'ldd "$@" 2>/dev/null' - {} + |
    awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u >"$out/libraries"
needs=()
while read -r name file; do
    if [[ $name =~ $nvidia ]] || [[ $name =~ $glibc ]]; then
        continue
    elif [[ $name =~ ^(libstdc\+\+|libgcc_s)\.so ]]; then
        cp -L "$file" "$bundle/lib/compiler/$name"
    else
        cp -L "$file" "$bundle/lib/$name"
    fi
done <"$out/libraries"
mapfile -t needs < <(readelf -d "$bundle/build/libmbuyu_cuda.so" |
    sed -nE 's/.*\(NEEDED\).*\[((libcudart|libcublasLt)[^]]*)\]/\1/p')
{
    echo "$("$build_folder/mbuyu" version), of $(date -u '+%Y-%m-%d')"
    echo "architectures $architectures"
    printf 'needs %s\n' "${needs[@]}"
    git -C "$root" rev-parse HEAD 2>/dev/null | sed 's/^/commit /'
} >"$bundle/BUNDLE"
find "$bundle" -type f \( -name '*.so*' -o -perm -u+x \) ! -name '*.sh' ! -name '*.py' \
    -exec strip --strip-unneeded {} + 2>/dev/null || true

# --- one file
tar -C "$out" --sort=name --owner=0 --group=0 -cf - mbuyu-gpu | xz -6 -T "$(cores)" >"$out/mbuyu-gpu.tar.xz"
size=$(stat -c %s "$out/mbuyu-gpu.tar.xz")
du -sh "$bundle" | cut -f 1 | sed 's/$/ unpacked/'
printf '%s: %d bytes\n' "$out/mbuyu-gpu.tar.xz" "$size"
[ "$size" -le $((64 * 1024 * 1024)) ] || die 'the archive is over 64 MiB'
