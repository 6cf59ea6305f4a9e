#!/usr/bin/env bash
# test_samples.sh - eval_samples: answers of a language model while it learns. They change nothing of
# the run, are what generate says of the final model, and are each there once after a resume.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start

for i in $(seq 40); do
    printf '{"messages": [{"role": "user", "content": "mti %d"}, {"role": "assistant", "content": "tree %d"}]}\n' "$i" "$i"
done >chat.jsonl
options=("model_name_or_path=$MB_TEST_DATA/reference/llama" 'datasets=["chat.jsonl"]' learning_rate=3e-3
    max_steps=30 per_device_train_batch_size=4 global_batch_size=8 save_steps=10 logging_steps=1
    max_length=64 chat_template=chatml val_set_size=4 eval_strategy=steps eval_steps=10
    reduction=exact)
samples=(eval_samples=2 max_new_tokens=12)

must_train 1 "${options[@]}" output_dir=plain
must_train 1 "${options[@]}" "${samples[@]}" output_dir=one
must_train 2 "${options[@]}" "${samples[@]}" output_dir=two
same <(curve plain) <(curve one) 'samples change nothing'
same one/logs/samples.jsonl two/logs/samples.jsonl 'samples of one and of two ranks'
[ "$(grep -c . one/logs/samples.jsonl)" -eq 6 ] || fail '3 evaluations of 2 samples each'

# the last samples are what the final model answers
while IFS= read -r line; do
    number=$(sed -E 's/.*mti ([0-9]+).*/\1/' <<<"$line")
    said=$("$MBUYU" generate one/final "prompt=mti $number" max_new_tokens=12 chat_template=chatml --chat 2>/dev/null)
    grep -qF "\"text\":\"$said\"" <<<"$line" || fail "generate says \"$said\", the sample is $line"
done < <(grep '"step":30' one/logs/samples.jsonl)

# resumed from step 10: the lines of steps 20 and 30 are written once more, not twice
rm -rf one/checkpoint-000020 one/checkpoint-000030 one/final
cp one/logs/samples.jsonl before
must_train 1 "${options[@]}" "${samples[@]}" output_dir=one resume_from_checkpoint=one/checkpoint-000010
same before one/logs/samples.jsonl 'samples after a resume'

finish
