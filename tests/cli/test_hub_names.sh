#!/usr/bin/env bash
# tests/cli/test_hub_names.sh - names on a hub where recipes take paths, and what the cache holds: pull
# from a hub on this machine, then train, predict and list with no network at all.
# shellcheck disable=SC2016 # backquotes are what is printed
set -u
# shellcheck source=tests/cli/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v python3 >/dev/null || { echo "there is no python3 to play the hub"; exit 77; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
start
hubs=()
trap 'kill "${hubs[@]}" 2>/dev/null; rm -rf "$work"' EXIT
export HF_HOME=$work/home MBUYU_LOG=info
unset HF_TOKEN HF_HUB_CACHE HF_ENDPOINT HF_HUB_OFFLINE TRANSFORMERS_OFFLINE

# says CODE PATTERN COMMAND...: exit code, and a line that matches on either output
says() {
    local code=$1 pattern=$2 got
    shift 2
    "$@" >"$work/said" 2>&1 </dev/null
    got=$?
    [ $got -eq "$code" ] || fail "exit code $got, not $code: $* -> $(tail -3 "$work/said")"
    grep -qE -e "$pattern" "$work/said" || fail "no '$pattern': $* -> $(tail -3 "$work/said")"
}

# hub FOLDER: a hub with these files at $url
hub() {
    python3 "$here/fake_hub.py" "$1" >"$work/url" &
    hubs+=($!)
    for _ in $(seq 300); do
        [ -s "$work/url" ] && break
        sleep 0.1
    done
    url=$(cat "$work/url")
    : >"$work/url"
}

mkdir data data/data
for i in 1 2 3 4 5 6 7 8; do
    printf '{"prompt": "Swahili: mti %d\\nEnglish:", "completion": " tree %d"}\n' $i $i
done >data/rows.jsonl
head -n 4 data/rows.jsonl >data/data/train-00000-of-00002.jsonl
tail -n 4 data/rows.jsonl >data/data/train-00001-of-00002.jsonl

# before anything is here: what to type
says 4 'command line: there is no folder org/tiny, and the cache does not have that model: `mbuyu pull org/tiny` fetches it' \
    "$MBUYU" train model_name_or_path=org/tiny datasets=data/rows.jsonl output_dir=out
says 4 '`mbuyu pull org/tiny` fetches it' "$MBUYU" tokenize org/tiny --text x
says 4 '`mbuyu pull org/tiny@v2` fetches it' "$MBUYU" generate org/tiny@v2 prompt=x

hub "$MB_TEST_DATA/reference/llama"
says 0 "/models--org--tiny/snapshots/[0-9a-f]{40}$" env HF_ENDPOINT="$url" "$MBUYU" pull org/tiny
commit=$(cat home/hub/models--org--tiny/refs/main)
says 3 'the cache does not have dataset:org/rows: `mbuyu pull dataset:org/rows` fetches it' \
    "$MBUYU" train model_name_or_path=org/tiny datasets=dataset:org/rows output_dir=out max_length=64
hub "$PWD/data"
says 0 'load_dataset\("/.*/datasets--org--rows/snapshots/[0-9a-f]{40}"\)' \
    env HF_ENDPOINT="$url" "$MBUYU" pull dataset:org/rows
kill "${hubs[@]}"

# a split of a folder: what README.md says, else the shards; each file becomes a block
mkdir -p sharded/data sharded/old
for i in 0 1 2; do head -n $((i + 1)) data/rows.jsonl >"sharded/data/train-0000$i-of-00003.jsonl"; done
cp data/rows.jsonl sharded/old/first.jsonl
tiny=$MB_TEST_DATA/reference/llama
# of VERB SPLIT [KEY=VALUE]...: with the rows of that split of the folder
of() { "$MBUYU" "$1" model_name_or_path="$tiny" "datasets=[{path: sharded, split: '$2'}]" "${@:3}"; }
says 0 'on 3 file\(s\)' of validate train output_dir=out
says 0 'rows read +6$|^rows kept +6$' of inspect train max_length=64
says 3 'the split train\[:50%\] is of 3 files of sharded' of inspect 'train[:50%]'
mv sharded/data/train-00001-of-00003.jsonl kept.jsonl
says 3 'sharded: there is no data/train-00001-of-00003.jsonl, which is one of 3 files' of inspect train
says 3 'there is no data/train-00001-of-00003.jsonl' of train train output_dir=out
mv kept.jsonl sharded/data/train-00001-of-00003.jsonl
mkdir -p val
head -n 2 data/rows.jsonl >val/val-00000-of-00002.jsonl
says 3 'val/val-00000-of-00002.jsonl is one of 2 files of the split validation' \
    "$MBUYU" inspect model_name_or_path="$tiny" 'datasets=[{path: val, split: validation}]'
printf -- '---\nlicense: mit\nconfigs:\n- config_name: en\n  data_files: x.csv\n- config_name: default\n  data_files:\n  - split: train\n    path: ["old/*", data/train-00001*]\n  - split: test\n    path: "**/first.jsonl"\n  - split: lost\n    path: nothing-*\n---\n# Rows\n' >sharded/README.md
says 0 'on 2 file\(s\)' of validate train output_dir=out
says 0 'rows read +10$|^rows kept +10$' of inspect train max_length=64
says 0 'rows read +4$|^rows kept +4$' of inspect 'test[:50%]' max_length=64
says 3 'sharded: no data file here is called nothing-\*, which its README.md names' of inspect lost
sed -i 's/config_name: default/config_name: sw/' sharded/README.md
says 3 'its README.md has the configs en, sw and none of them is the default' of inspect train

# another machine pulls from this one's cache, and from a folder of plain models
mkdir -p plain/models/org
cp -r "$MB_TEST_DATA/reference/llama" plain/models/org/tiny
for shelf in home/hub plain; do
    "$MBUYU" hub "$shelf" --port 0 >served 2>/dev/null &
    hubs+=($!)
    for _ in $(seq 300); do
        grep -q '^hub at ' served && break
        sleep 0.1
    done
    there=$(sed -n 's/^hub at //p' served)
    says 0 'org/tiny' env HF_ENDPOINT="$there" "$MBUYU" search tiny
    says 0 '' env HF_ENDPOINT="$there" HF_HOME="$work/of-$shelf" "$MBUYU" pull org/tiny
    got=$(tail -1 said)
    for file in "home/hub/models--org--tiny/snapshots/$commit"/*; do
        same "$file" "$got/${file##*/}" "from mbuyu hub $shelf"
    done
    kill "${hubs[-1]}"
done
[ "$(cat of-home/hub/hub/models--org--tiny/refs/main)" = "$commit" ] || fail 'the commit of a shared cache'
[ -e "of-home/hub/hub/models--org--tiny/snapshots/$commit" ] || fail 'the snapshot of a shared cache'

# with no network: names are as good as paths
alone=()
if unshare -rn true 2>/dev/null; then
    alone=(unshare -rn)
elif unshare -n true 2>/dev/null; then
    alone=(unshare -n)
else
    echo "unshare is not permitted here: what trains was not cut off from the network"
fi
recipe=(model_name_or_path=org/tiny finetuning_type=lora max_steps=2 max_length=64
    per_device_train_batch_size=2 save_strategy=no report_to=none)
says 0 'the model is in' "${alone[@]}" "$MBUYU" train "${recipe[@]}" output_dir=by-name \
    datasets=dataset:org/rows/rows.jsonl
says 0 'the model is in' "${alone[@]}" "$MBUYU" train "${recipe[@]}" output_dir=by-split \
    datasets=dataset:org/rows
"$MBUYU" train "${recipe[@]}" output_dir=by-path datasets=data/rows.jsonl \
    model_name_or_path="$MB_TEST_DATA/reference/llama" >"$work/said" 2>&1 || fail "$(cat "$work/said")"
same by-name/final/adapter_model.safetensors by-path/final/adapter_model.safetensors 'by name and by path'
same by-split/final/adapter_model.safetensors by-path/final/adapter_model.safetensors 'by split and by path'

# machines with caches of their own: one has it, the others receive it, once a cache
cat >node.sh <<'END'
export HF_HOME=$PWD/node-$((${OMPI_COMM_WORLD_RANK:-0} / 2))
exec "$@"
END
cp -r home node-0
timeout 300 "${mpi[@]}" -np 4 bash node.sh "$MBUYU" train "${recipe[@]}" output_dir=by-mpi \
    datasets=dataset:org/rows per_device_train_batch_size=1 >said 2>&1 ||
    fail "by MPI: $(tail -5 said)"
grep -q 'the caches of 2 ranks lack org/tiny: they receive it from rank 0' said || fail "nobody received: $(cat said)"
for file in "home/hub/models--org--tiny/snapshots/$commit"/*; do
    same "$file" "node-1/hub/models--org--tiny/snapshots/$commit/${file##*/}" 'by MPI'
done
[ -L "node-1/hub/models--org--tiny/snapshots/$commit/model.safetensors" ] || fail 'no link by MPI'
[ "$(cat node-1/hub/models--org--tiny/refs/main)" = "$commit" ] || fail 'no branch by MPI'
for file in rows.jsonl data/train-0000{0,1}-of-00002.jsonl; do # the folder is shared whole, then it is files
    same node-1/hub/datasets--org--rows/snapshots/*/"$file" "data/$file" 'data by MPI'
done
[ "$(grep -c 'path: "dataset:org/rows@[0-9a-f]*/data/train-0000[01]-of-00002.jsonl"$' by-mpi/recipe.resolved.yaml)" = 2 ] ||
    fail 'the data of the recipe by MPI'
grep -q "model_name_or_path: \"org/tiny@$commit\"" by-mpi/recipe.resolved.yaml || fail 'the recipe by MPI'
# a folder that is not the same on every machine
mkdir -p on-0/rows on-1/rows
head -n 4 data/rows.jsonl | tee on-0/rows/train-00000-of-00002.jsonl on-0/rows/train-00001-of-00002.jsonl \
    >on-1/rows/train-00000-of-00001.jsonl
cat >there.sh <<'END'
cd "on-${OMPI_COMM_WORLD_RANK:-0}" && exec "$@"
END
timeout 100 "${mpi[@]}" -np 2 bash there.sh "$MBUYU" train "${recipe[@]}" output_dir="$work/other" datasets=rows \
    model_name_or_path="$tiny" per_device_train_batch_size=1 >said 2>&1
[ $? = 2 ] || fail "other files on rank 1: $(tail -5 said)"
grep -q 'rank 1: the folders that datasets name, .* are not the same on this rank' said || fail "other files: $(cat said)"
# a cache that is damaged where it comes from
rm -rf node-1
printf x >>"$(readlink -f "node-0/hub/models--org--tiny/snapshots/$commit/config.json")"
timeout 100 "${mpi[@]}" -np 4 bash node.sh "$MBUYU" train "${recipe[@]}" output_dir=damaged \
    datasets=data/rows.jsonl per_device_train_batch_size=1 >said 2>&1
[ $? = 3 ] || fail "a damaged cache: $(tail -5 said)"
grep -q 'mbuyu: rank 2: a file of the cache came with digest' said || fail "a damaged cache: $(tail -5 said)"

# what is written names the model as everybody does, at the commit that was used
grep -q '"base_model_name_or_path": "org/tiny"' by-name/final/adapter_config.json || fail 'the base of the adapter'
grep -q "\"revision\": \"$commit\"" by-name/final/adapter_config.json || fail 'its commit'
grep -q "base_model: 'org/tiny'" by-name/final/README.md || fail 'the card'
grep -q "model_name_or_path: \"org/tiny@$commit\"\$" by-name/recipe.resolved.yaml || fail 'the recipe'
grep -q "path: \"dataset:org/rows@[0-9a-f]*/rows.jsonl\"\$" by-name/recipe.resolved.yaml || fail 'its data'
"$MBUYU" config --all by-name/recipe.resolved.yaml | cmp - by-name/recipe.resolved.yaml || fail 'no fixed point'
says 0 '' "$MBUYU" generate by-name/final prompt=mti max_new_tokens=2
says 0 '' "$MBUYU" generate org/tiny prompt=mti max_new_tokens=2
says 0 '' "$MBUYU" tokenize "org/tiny@$commit" --text mti

# ls and rm
says 0 'org/tiny +[0-9.]+ [kM]B' "$MBUYU" ls
says 0 'dataset:org/rows' "$MBUYU" ls
says 0 'model.safetensors' "$MBUYU" ls org/tiny
says 0 'rows.jsonl' "$MBUYU" ls dataset:org/rows
says 2 'nothing of org/none is in the cache' "$MBUYU" ls org/none
says 2 'nothing was removed' "$MBUYU" rm org/tiny
says 2 'has no revision v9' "$MBUYU" rm org/tiny@v9 --yes
says 0 'removed' "$MBUYU" rm dataset:org/rows --yes
[ ! -e home/hub/datasets--org--rows ] || fail 'rm left the data'
# a second revision keeps what both have
snapshots=home/hub/models--org--tiny/snapshots
other=$(printf 'b%.0s' $(seq 40))
cp -a "$snapshots/$commit" "$snapshots/$other"
printf more >"home/hub/models--org--tiny/blobs/$(printf 'c%.0s' $(seq 40))"
ln -s "../../blobs/$(printf 'c%.0s' $(seq 40))" "$snapshots/$other/more.txt"
printf %s "$other" >home/hub/models--org--tiny/refs/next
says 0 "$commit" "$MBUYU" ls org/tiny
says 0 'removed' "$MBUYU" rm org/tiny@next --yes
[ ! -e "$snapshots/$other" ] || fail 'rm left the revision'
[ ! -e "home/hub/models--org--tiny/blobs/$(printf 'c%.0s' $(seq 40))" ] || fail 'rm left its bytes'
[ -s "$snapshots/$commit/model.safetensors" ] || fail 'rm took what another revision needs'
says 0 'removed' "$MBUYU" rm "org/tiny@$commit" --yes
[ ! -e home/hub/models--org--tiny ] || fail 'rm left an empty repository'
finish
