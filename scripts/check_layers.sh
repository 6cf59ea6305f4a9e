#!/usr/bin/env bash
# check_layers.sh - what the compiler does not say about who may use what. Prints every offending
# line and why it is one; the exit status says whether there was any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

offences=0

# report WHY: reads "file:line:text" lines
report() {
    local line
    while IFS= read -r line; do
        printf '%s\n    %s\n' "$line" "$1"
        offences=$((offences + 1))
    done
}

# The folders a folder may include, besides itself.
declare -A below=(
    [core]=''
    [autograd]='core'
    [optim]='core'
    [dist]='core autograd optim'
    [recipes]='core autograd optim dist'
)
for folder in "${!below[@]}"; do
    allowed=$folder
    for lower in ${below[$folder]}; do
        allowed+="|$lower"
    done
    report "$folder may include $folder ${below[$folder]}" < <(
        grep -rnE --include='*.[ch]' --include='*.cu' --include='*.def' '^ *# *include "' "$folder" |
            grep -vE "include \"($allowed)/|^core/cuda/dev.h:.*\"dev_emu.h\"" || true # under MB_EMU
    )
done

# A foreign header is included by the one file that wraps it.
wrappers='
    cblas.h       core/cpu/gemm_openblas.c
    cuda_runtime.h core/cuda/cuda.h
    cublasLt.h    core/cuda/gemm.cu
    dnnl.h        core/cpu/gemm_onednn.c
    malloc.h      core/alloc.c
    jansson.h     core/json.c
    openssl/evp.h core/digest.c
    mpi.h         dist/comm_mpi.c
    hdf5.h        dist/h5_inside.h
    yaml.h        recipes/config/yaml.c
    pcre2.h       recipes/tokenizers/regex.c
    utf8proc.h    recipes/tokenizers/unicode.c
    zlib.h        recipes/data/unpack.c
    zstd.h        recipes/data/zstd.c
    snappy-c.h    recipes/data/unpack.c
    sndfile.h     recipes/media/audio.c
    soxr.h        recipes/media/resample.c
    png.h         recipes/media/image_png.c
    jpeglib.h     recipes/media/image_jpeg.c
    jerror.h      recipes/media/image_jpeg.c
    curl/curl.h   recipes/hub/fetch.c
    microhttpd.h  recipes/serve/http_server.h
    lz4frame.h    recipes/hub/xet_chunk.c
'
known=''
while read -r header wrapper; do
    [ -n "$header" ] || continue
    known+="|${header//./\\.}"
    report "<$header> belongs to $wrapper alone" < <(
        grep -rnE --include='*.[ch]' --include='*.cu' "^ *# *include <${header//./\\.}>" core autograd optim dist recipes |
            grep -v "^$wrapper:" || true
    )
done <<<"$wrappers"

# Whatever else is included in <> is of the system.
system='arpa/inet|cpuid|ctype|dirent|dlfcn|emmintrin|endian|errno|fcntl|fenv|float|fnmatch|immintrin|inttypes|libgen|limits|locale|math|netinet/[a-z]+|omp|poll|pthread|regex|sanitizer/asan_interface|sched|semaphore|setjmp|signal|spawn|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|sys/[a-z]+|termios|time|unistd|wchar'
report 'a library that no wrapper in scripts/check_layers.sh stands for' < <(
    grep -rnE --include='*.[ch]' --include='*.cu' '^ *# *include <' core autograd optim dist recipes |
        grep -vE "include <(($system)\.h$known)>" || true
)

# Only some places may do these.
call() { # call WHY PATTERN EXCEPT FOLDER...: PATTERN as a whole word before "("
    local why=$1 pattern=$2 except=$3
    shift 3
    report "$why" < <(
        grep -rnE --include='*.[ch]' --include='*.cu' "(^|[^A-Za-z0-9_.>])($pattern)\(" "$@" |
            grep -vE "^($except):|:[0-9]+: \*|/\*.*($pattern)\(" || true
    )
}
call 'memory comes from core/alloc.h' 'malloc|calloc|realloc|free|strdup|strndup|asprintf|mmap|aligned_alloc|posix_memalign' \
    'core/alloc\.c' core autograd optim dist recipes
call 'only recipes/ talks on standard output' 'printf|puts|putchar' 'none' core autograd optim dist
call 'only main ends the process' 'exit|_exit|abort' 'recipes/main\.c|core/status\.c|dist/launch\.c|dist/ranks\.c|dist/stop\.c' core autograd optim dist recipes
call 'unsafe or not thread-safe' 'strcpy|strcat|sprintf|vsprintf|strtok|gets|atoi|atol|atof|rand|srand|gmtime|localtime|alloca|assert' \
    'none' core autograd optim dist recipes

call 'only recipes/hub and recipes/serve reach a network' 'socket|connect|bind|accept4|getaddrinfo|sendto|recvfrom' \
    'recipes/(hub|serve)/.*' core autograd optim dist recipes
report 'what trains cannot reach the network: only recipes/hub, recipes/serve and verbs use these two' < <(
    grep -rnE --include='*.[ch]' '^ *# *include "recipes/(hub|serve)/' recipes |
        grep -vE '^recipes/(hub|serve|cmd)/' || true
)

if [ "$offences" -gt 0 ]; then
    printf '%d offences\n' "$offences"
    exit 1
fi
echo 'layers: no offence'
