#!/usr/bin/env bash
# A bundle as other programs see it (zstd, tar, sha256sum), the same on two runs; unpacked from several
# places, killed and run again, with bytes flipped, with parts missing.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start
models=$MB_TEST_DATA/reference
for tool in zstd tar sha256sum; do
    command -v $tool >/dev/null || { echo "no $tool here"; exit 77; }
done

# --- what goes in: frames of several files, a file of several frames, names that ustar cannot have
mkdir -p in/models/acme/tiny 'in/rows/maneno ya kiswahili' runs/one/logs
cp "$models"/llama/* in/models/acme/tiny
cp "$rows" in/train.jsonl
head -c 9000000 /dev/urandom >in/rows/noise.bin
yes 'mti ni mrefu' | head -c 9000000 >in/rows/words.txt || true
: >in/rows/empty
long_name=$(printf 'n%.0s' $(seq 1 120))
for i in 1 2 3; do echo "$i" >"in/rows/maneno ya kiswahili/mbúyu-$i.txt"; done
echo x >"in/rows/$long_name"
echo hidden >in/rows/.secret
echo '{}' >runs/one/logs/train.jsonl
cat >sw.yaml <<END
model_name_or_path: in/models/acme/tiny
datasets: [in/train.jsonl]
eval_datasets:
  - path: ./in/../in/train.jsonl
    split: train[:10%]
finetuning_type: lora
max_steps: 2
output_dir: $work/out
END
bundle() { # bundle FOLDER ARG...
    local to=$1
    shift
    "$MBUYU" bundle sw.yaml --data in/rows --run runs/one --program --to "$to" --split 3MB "$@" >said 2>log ||
        fail "exit code $? of bundle: $(cat log)"
}
bundle a
OMP_NUM_THREADS=5 bundle b
same a/sw.sha256 b/sw.sha256 'a bundle on one thread and on five'
touch in/rows/* && chmod 600 in/rows/words.txt
OMP_NUM_THREADS=2 bundle c
same a/sw.sha256 c/sw.sha256 'a bundle of files with other times and modes'
parts=$(wc -l <a/sw.sha256)
[ "$parts" -gt 4 ] || fail "$parts parts"
grep -q "zstd $(zstd --version | grep -oE 'v[0-9.]+' | tr -d v)" said || fail "no version in: $(cat said)"
if grep -rq secret a; then fail 'a hidden file is in the bundle'; fi

# --- other programs
(cd a && sha256sum --quiet -c sw.sha256) || fail 'sha256sum of the parts'
mkdir bag
cat a/sw.mbuyu.tar.zst.0?? | zstd -dc | tar x -C bag || fail 'zstd and tar'
(cd bag && sha256sum --quiet -c manifest-sha256.txt tagmanifest-sha256.txt) || fail 'sha256sum of the bag'
cat a/sw.mbuyu.tar.zst.0?? >whole.zst
cat a/sw.mbuyu.tar.zst.0?? | zstd -dc | tar tv | awk '$2 != "0/0" || $4 != "1970-01-01"' | grep . &&
    fail 'owners or times in the tar'
zstd -lv whole.zst >listed 2>&1
grep -qE 'Skippable Frames: 1$' listed || fail "no seek table: $(cat listed)"
grep -qE 'Check: XXH64' listed || fail "no checksums: $(cat listed)"
frames=$(sed -nE 's/.*# Zstandard Frames: ([0-9]+)/\1/p' listed)
files=$(cat a/sw.mbuyu.tar.zst.0?? | zstd -dc | tar t | wc -l)
# a frame each, one more for noise.bin's and words.txt's every 8 MiB, the program's, and the end's
program=$(stat -Lc %s "$MBUYU")
[ "$frames" -eq $((files + 2 + (program + 512) / 8388608 + 1)) ] || fail "$frames frames for $files files"
cmp bag/data/bin/mbuyu "$MBUYU" || fail 'the program is another'
[ -x bag/data/bin/mbuyu ] || fail 'the program cannot be run'
for pair in in/models/acme/tiny=models/acme/tiny in/rows=datasets/local/rows; do
    diff -r -x .secret "${pair%=*}" "bag/data/${pair#*=}" || fail "$pair differs"
done
cmp in/train.jsonl bag/data/datasets/local/train/train.jsonl || fail 'train.jsonl differs'
[ -f bag/data/checkpoints/one/logs/train.jsonl ] || fail 'the run is not there'
(cd bag/data && "$MBUYU" validate recipes/sw.yaml >../../log 2>&1) || fail "the recipe in the bag: $(cat log)"
grep -q '^model_name_or_path: models/acme/tiny$' bag/data/recipes/sw.yaml || fail "$(cat bag/data/recipes/sw.yaml)"
grep -q '^output_dir: out/out$' bag/data/recipes/sw.yaml || fail 'output_dir is not of the bag'
grep -qE '^Mbuyu-Content: models/acme/tiny [0-9]+\.6 sha256:' bag/bag-info.txt || fail "$(cat bag/bag-info.txt)"
[ "$(sed -nE 's/^Mbuyu-Content: models.* sha256://p' bag/bag-info.txt)" = \
    "$(grep ' data/models/acme/tiny/' bag/manifest-sha256.txt | sha256sum | cut -c1-64)" ] ||
    fail 'the digest of the model is not that of its lines'

# --- out again, from several places and in any order
mkdir usb1 usb2
mv b/*.00[0246] b/sw.sha256 usb1
mv b/*.0?? usb2
"$MBUYU" unbundle usb1/sw.sha256 usb2 --to two >said 2>log || fail "from two places: $(cat log)"
diff -r bag two || fail 'from two places: another bag'
[ ! -e two.unbundling ] || fail 'two.unbundling is left'
"$MBUYU" unbundle usb1/sw.sha256 usb2 --to two >said 2>log || fail "again: $(cat log)"
grep -q 'is there already' said || fail "again: $(cat said)"
echo more >>two/data/recipes/sw.yaml
refused 2 'data/recipes/sw.yaml is not as in the bundle' unbundle usb1/sw.sha256 usb2 --to two
"$MBUYU" unbundle usb1/sw.mbuyu.tar.zst.000 --list >said 2>log || fail "the list: $(cat log)"
[ "$(grep -c . said)" -eq $((files - 5 + 1)) ] || fail "the list: $(cat said)"
grep -qE '^ +9000000  datasets/local/rows/noise.bin$' said || fail "the list: $(cat said)"
"$MBUYU" unbundle a/sw.sha256 --to some --only 'models/acme/*' --only datasets/local/train >said 2>log ||
    fail "some: $(cat log)"
[ "$(find some -type f | wc -l)" -eq 7 ] || fail "some: $(find some -type f)"
diff -r bag/data/models some/data/models || fail 'some: another model'
refused 2 'nothing in it is like' unbundle a/sw.sha256 --to none --only 'modles/*'
{ [ ! -e none ] && [ ! -e none.unbundling ]; } || fail 'something is left of nothing'

# one stick at a time, in both orders; sums beside each
for order in 'usb1 usb2' 'usb2 usb1'; do
    cp a/sw.sha256 usb1
    cp a/sw.sha256 usb2
    rm -rf sticks
    read -r first second <<<"$order"
    refused 3 "of the $parts parts [0-9]+ are missing and 0 bad" unbundle "$first/sw.sha256" --to sticks
    [ ! -e sticks ] || fail "$order: there before it was whole"
    "$MBUYU" unbundle "$second/sw.sha256" --to sticks >said 2>log || fail "$order: $(cat log)"
    diff -r bag sticks || fail "$order: another bag"
    [ ! -e sticks.unbundling ] || fail "$order: something is left"
done

# a part that is bad in one place and good in another; and in none
cp -r a d
flip() { # flip FILE BYTE
    local byte
    byte=$(dd if="$1" bs=1 skip="$2" count=1 status=none | od -An -tu1)
    # shellcheck disable=SC2059
    printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
flip d/sw.mbuyu.tar.zst.003 77777
refused 3 'bad part: sw.mbuyu.tar.zst.003' unbundle d/sw.sha256 --to e
{ [ -d e.unbundling ] && [ ! -e e ]; } || fail 'good parts were not read meanwhile'
kept=$(du -sm e.unbundling/kept | cut -f1)
[ "$kept" -le 12 ] || fail "$kept MB are kept for a part of 3 MB"
"$MBUYU" unbundle d/sw.sha256 a --to e >said 2>log || fail "with a good one elsewhere: $(cat log)"
diff -r bag e || fail 'with a good part elsewhere: another bag'
refused 3 'sw.mbuyu.tar.zst.003' unbundle d/sw.sha256 --to f --only datasets/local/rows
rm -rf f f.unbundling

# --- any flipped byte names its part
RANDOM=1
total=$(stat -c %s whole.zst)
last=$(stat -c %s "$(printf 'a/sw.mbuyu.tar.zst.%03d' $((parts - 1)))")
# the last bytes are the seek table's
for place in $(for _ in $(seq $((long == 1 ? 198 : 10))); do echo $(((RANDOM << 15 | RANDOM) % total)); done) \
    $((total - 1)) $((total - 30)); do
    part=$((place / 3000000)) byte=$((place % 3000000))
    name=$(printf 'sw.mbuyu.tar.zst.%03d' $part)
    rm -rf g g.unbundling h
    mkdir h
    for p in a/*; do ln "$p" h; done
    rm "h/$name"
    cp "a/$name" h
    flip "h/$name" $byte
    refused 3 "1 bad: $name" unbundle h/sw.sha256 --to g
    [ ! -e g ] || fail "byte $place is flipped, and there is a bag"
done
[ "$last" -gt 30 ] || fail 'the last part is too small for this test'
rm -rf g g.unbundling h

# --- killed anywhere, and run again
begin=$(seconds)
"$MBUYU" unbundle a/sw.sha256 --to k >said 2>log || fail "$(cat log)"
took=$(since "$begin")
kills=0
for i in $(seq 1 $((long == 1 ? 50 : 5))); do
    rm -rf k k.unbundling
    for try in 1 2; do
        "$MBUYU" unbundle a/sw.sha256 --to k >said 2>log &
        pid=$!
        sleep "$(awk -v t="$took" -v i="$i" -v n=$((long == 1 ? 50 : 5)) -v k=$try 'BEGIN { print t * (i - 0.5) / n / k }')"
        kill -9 $pid 2>/dev/null && kills=$((kills + 1))
        wait $pid 2>/dev/null || true
    done
    "$MBUYU" unbundle a/sw.sha256 --to k >said 2>log || fail "killed at $i, then: $(cat log)"
    diff -r bag k || fail "killed at $i, then another bag"
    [ ! -e k.unbundling ] || fail "killed at $i, then something is left"
done
[ "$kills" -gt 0 ] || fail 'nothing was killed'

# what was written is not trusted: a file changed behind its back is written again
cp -r a l && rm l/*.001
refused 3 '1 are missing' unbundle l/sw.sha256 --to m
mapfile -t written < <(find m.unbundling/bag -type f -size +2k | sort)
[ ${#written[@]} -ge 2 ] || fail "only these were written: ${written[*]}"
dd if=/dev/zero of="${written[0]}" bs=1 seek=999 count=1000 conv=notrunc status=none
echo x >"${written[-1]}"
printf 'torn' >>m.unbundling/journal
cp a/*.001 l
"$MBUYU" unbundle l/sw.sha256 --to m >said 2>log || fail "changed files: $(cat log)"
diff -r bag m || fail 'changed files: another bag'
rm -rf m

# a bundle that was killed has no sums, and the next one replaces it
rm -rf n
"$MBUYU" bundle sw.yaml --data in/rows --to n --split 1MB >said 2>log &
pid=$!
sleep 0.1
kill -9 $pid 2>/dev/null || true
wait $pid 2>/dev/null || true
[ ! -e n/sw.sha256 ] || echo 'it was too fast to be killed'
rm -f n/sw.sha256
bundle n
same a/sw.sha256 n/sw.sha256 'a bundle after one that was killed'
[ "$(find n -type f | wc -l)" -eq $((parts + 1)) ] || fail "leftovers: $(ls n)"
refused 2 'n/sw.sha256 is there already' bundle sw.yaml --to n

# --- one part has no number; and what is wrong
"$MBUYU" bundle --model you/small=in/models/acme/tiny --recipe sw.yaml --name one --to one >said 2>log || fail "$(cat log)"
tar --zstd -tf one/one.mbuyu.tar.zst >said || fail 'tar reads one part'
grep -q '^data/models/you/small/config.json$' said || fail "$(cat said)"
"$MBUYU" unbundle one/one.mbuyu.tar.zst --to one.out >said 2>log || fail "one part: $(cat log)"
refused 2 'bundle: of what' bundle
refused 4 "there is no model folder or .gguf file 'no-such'" bundle --model no-such
refused 3 "there is no data file or folder 'no-such'" bundle --data no-such
refused 2 'bundle has no option --modle' bundle --modle x
refused 2 'not a size' bundle sw.yaml --split big
refused 2 'two files would be data/datasets/local/train/train.jsonl' bundle --data in/train.jsonl \
    --data runs/one/logs/train.jsonl
refused 3 'no-such.sha256' unbundle no-such.sha256
refused 2 "there is no folder 'no-such'" unbundle a/sw.sha256 no-such
mkfifo in/rows/pipe
refused 3 'regular file is needed' bundle --data in/rows --to p
rm in/rows/pipe
ln -s ../rows in/rows/again
refused 2 'a link leads back into it' bundle --data in/rows --to p
rm in/rows/again
touch 'in/rows/100%'
refused 2 'has a %' bundle --data in/rows --to p
rm 'in/rows/100%'
[ -z "$(ls p 2>/dev/null)" ] || fail "something was written: $(ls p)"
finish
