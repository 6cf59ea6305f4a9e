#!/usr/bin/env bash
# scripts/lib.sh - what the scripts share; sourced, not run. Sets `root` (the source folder) and:
#
#     need_packages PACKAGE...     install Debian packages that are missing
#     build FOLDER [CMAKE ARG...]  configure and build, saying how far it is
#     progress TOTAL               passes lines on and says how many of TOTAL there were
#     has_gpu                      is there an NVIDIA GPU?
#     stage NAME                   ends the stage before, prints its seconds, starts another
#     cores                        processors this process may use
#     peers_python [NAME]          prints the Python with PyTorch and the like: MB_PEERS, or the one
#                                  that install_peers makes; with NAME, that of scripts/peers-NAME.lock
#     install_peers [NAME]         makes it, if it is not there
#     die SENTENCE

# shellcheck disable=SC2034 # several of these are for those who source this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# shellcheck disable=SC2034
build_packages=(gcc libc6-dev cmake ninja-build pkg-config openmpi-bin libopenmpi-dev
    libopenblas-openmp-dev libdnnl-dev libhdf5-dev libjansson-dev libyaml-dev libpcre2-dev
    libutf8proc-dev libssl-dev libpng-dev libjpeg-dev libsndfile1-dev libsoxr-dev zlib1g-dev libzstd-dev
    libsnappy-dev liblz4-dev libcurl4-openssl-dev libmicrohttpd-dev)

# Open MPI refuses root unless told twice; in a container there is nobody else.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $* (neither root nor sudo is here)"
    fi
}

is_debian() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null
}

# A virtual package (or another version's name) counts when something installed provides it.
missing_packages() {
    local package
    for package; do
        dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            printf '%s\n' "$package"
    done
}

need_packages() {
    local missing
    if ! is_debian; then
        [ -n "${MB_PACKAGES_READY:-}" ] && return
        printf 'This is not Debian. Install the equivalents of these packages:\n\n  %s\n\n' "$*" >&2
        die 'then set MB_PACKAGES_READY=1 and run this again'
    fi
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -eq 0 ] && return
    printf 'installing: %s\n' "${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        "${missing[@]}" >/dev/null
}

cores() {
    nproc
}

has_gpu() {
    [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1
}

# On a terminal the last line of it, elsewhere a line for every tenth.
show_progress() { # show_progress DONE TOTAL WHAT
    if [ -t 2 ]; then
        printf '\r   %d of %d %s ' "$1" "$2" "$3" >&2
        [ "$1" -lt "$2" ] || printf '\n' >&2
    elif [ $(($1 * 10 / $2)) -gt $((($1 - 1) * 10 / $2)) ]; then
        printf '   %d of %d %s\n' "$1" "$2" "$3" >&2
    fi
}

progress() { # progress TOTAL WHAT
    local line done=0
    while IFS= read -r line; do
        printf '%s\n' "$line"
        done=$((done + 1))
        show_progress $done "$1" "$2"
    done
}

# Ninja's lines begin with [3/180], make's with [ 2%]; all of them go to the log.
watch_build() { # watch_build LOG
    local line shown=0
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$1"
        if [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]]; then
            show_progress "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" files
        elif [[ $line =~ ^\[\ *([0-9]+)%\] ]] && [ "${BASH_REMATCH[1]}" -gt "$shown" ]; then
            shown=${BASH_REMATCH[1]}
            show_progress "$shown" 100 percent
        fi
    done
}

build() {
    local folder=$1 generator=()
    shift
    mkdir -p "$folder"
    printf 'its log: %s\n' "$folder/build.log"
    : >"$folder/build.log"
    command -v ninja >/dev/null && [ ! -f "$folder/Makefile" ] && generator=(-G Ninja)
    {
        cmake -S "$root" -B "$folder" "${generator[@]}" "$@" &&
            cmake --build "$folder" -j "$(cores)" --target "${build_targets:-all}"
    } 2>&1 | watch_build "$folder/build.log" || {
        tail -n 60 "$folder/build.log" >&2
        die "the build in $folder failed; all of its output is in $folder/build.log"
    }
}

# The stages with their seconds are kept in $stages for a summary.
stages='' stage_name='' stage_start=0
stage() {
    local now=$SECONDS
    if [ -n "$stage_name" ]; then
        printf -- '-- %s: %d s\n' "$stage_name" $((now - stage_start))
        stages+=$(printf '%6d s  %s' $((now - stage_start)) "$stage_name")$'\n'
    fi
    stage_name=${1:-} stage_start=$now
    if [ -n "$stage_name" ]; then
        printf '\n== %s\n' "$stage_name"
    fi
}

check_sha256() { # check_sha256 HEX FILE
    printf '%s  %s\n' "$1" "$2" | sha256sum --check --quiet - >&2 ||
        die "$2 has another sha256 than $1"
}

materials_folder() {
    printf '%s\n' "${MB_MATERIALS:-${XDG_CACHE_HOME:-$HOME/.cache}/mbuyu/materials}"
}

# Virtual environments named by what is in them: scripts/peers.lock has most packages, a
# scripts/peers-NAME.lock those that cannot stand beside them (older clients, other programs).
peers_lock() { # peers_lock [NAME]
    printf '%s\n' "$root/scripts/peers${1:+-$1}.lock"
}

peers_folder() {
    local hash
    hash=$(sha256sum "$(peers_lock "${1:-}")" | cut -c1-16)
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/mbuyu/peers-${1:+$1-}$hash"
}

# MB_PEERS stands for the first of them alone.
peers_python() {
    if [ -z "${1:-}" ] && [ -n "${MB_PEERS:-}" ]; then
        printf '%s\n' "$MB_PEERS"
    else
        printf '%s\n' "$(peers_folder "${1:-}")/bin/python"
    fi
}

install_peers() { # install_peers [NAME]
    local folder
    folder=$(peers_folder "${1:-}")
    [ "$(peers_python "${1:-}")" = "$folder/bin/python" ] || return 0
    [ ! -f "$folder/complete" ] || return 0
    [ "${MB_OFFLINE:-0}" = 0 ] || return 1
    printf 'Python packages to compare with go to %s\n' "$folder" >&2
    rm -rf "$folder"
    python3 -m venv "$folder" &&
        "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps \
            -r "$(peers_lock "${1:-}")" &&
        touch "$folder/complete"
}
