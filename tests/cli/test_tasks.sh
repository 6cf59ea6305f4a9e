#!/usr/bin/env bash
# Every task from start to end, as a user goes through it: train, evaluate, keep the best, export a
# checkpoint, continue, evaluate with an adapter, merge. MBUYU is the program, MB_TEST_DATA the data.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
export OMP_NUM_THREADS=1 MBUYU_LOG=info
start
models=$MB_TEST_DATA/reference

without_clocks() { # what a clock or the machine decides
    sed -E 's/"(time|tokens_per_second|step_time|train_runtime|train_tokens_per_second|num_(peak|planned|library|memory)_bytes)":[^,}]*//g' "$1"
}
for i in $(seq 1 48); do
    set -- good bad fair
    shift $((i % 3))
    printf '{"text": "the maize of field %d is %s today", "label": "%s"}\n' "$((i % 7))" "$1" "$1"
done >classes.jsonl
for i in $(seq 1 40); do
    printf '{"prompt": "Swahili: maji %d\\nEnglish:", "completion": " water %d"}\n' "$((i % 9))" "$((i % 9))"
done >pairs.jsonl

# --- classification: learned, evaluated, named, the best exported
ok train "model_name_or_path=$models/bert-cls" task=seq-classification 'datasets=[classes.jsonl]' \
    val_set_size=9 eval_strategy=epoch save_strategy=epoch num_train_epochs=6 learning_rate=1e-3 \
    max_length=64 load_best_model_at_end=true metric_for_best_model=accuracy output_dir=cls
grep -q '"good"' cls/final/config.json || fail 'the classes have no names in config.json'
ok eval model_name_or_path=cls/final task=seq-classification 'datasets=[classes.jsonl]' max_length=64
at_most 0.9 "$(number eval_accuracy)" 'accuracy after training'
refused 2 'metric_for_best_model' train "model_name_or_path=$models/bert-cls" task=seq-classification \
    'datasets=[classes.jsonl]' val_set_size=9 eval_strategy=epoch metric_for_best_model=bleu output_dir=bad

# --- the same with an adapter on an encoder that has no classifier: evaluated, merged, the same
ok train "model_name_or_path=$models/bert-mlm" task=seq-classification finetuning_type=lora \
    lora_modules_to_save=pooler.dense 'datasets=[classes.jsonl]' num_train_epochs=8 \
    learning_rate=5e-3 max_length=64 output_dir=cls-lora
ok eval "model_name_or_path=$models/bert-mlm" adapter_path=cls-lora/final task=seq-classification \
    'datasets=[classes.jsonl]' max_length=64
adapter=$(number eval_loss)
at_most 0.9 "$(number eval_accuracy)" 'accuracy with the adapter'
ok merge "$models/bert-mlm" adapter_path=cls-lora/final task=seq-classification output_dir=cls-merged
ok eval model_name_or_path=cls-merged task=seq-classification 'datasets=[classes.jsonl]' max_length=64
at_most "$(awk -v a="$adapter" -v b="$(number eval_loss)" 'BEGIN { d = a - b; print d < 0 ? -d : d }')" \
    1e-5 'adapter and merged model differ'

# --- masked words, rows so short that chance alone would leave steps without a target
ok train "model_name_or_path=$models/bert-mlm" task=masked-lm \
    'datasets=[{path: classes.jsonl, type: text}]' per_device_train_batch_size=1 max_steps=40 \
    learning_rate=1e-3 max_length=16 val_set_size=6 eval_strategy=steps eval_steps=20 output_dir=mlm

# --- causal: a checkpoint exported beside a run leaves the run as it was
run=("model_name_or_path=$models/llama" 'datasets=[pairs.jsonl]' add_eos=true max_length=64
    per_device_train_batch_size=2 global_batch_size=8 learning_rate=2e-3 reduction=exact
    save_steps=5 logging_steps=4 max_steps=15)
ok train "${run[@]}" output_dir=lm
find lm -type f -exec sha256sum {} + | sort >before
ok export lm/checkpoint-000010 output_dir=lm-10
find lm -type f -exec sha256sum {} + | sort >after
cmp before after || fail 'exporting a checkpoint changed the run'
ok train "${run[@]}" lr_scheduler_type=constant output_dir=lm-constant
ok train "${run[@]}" lr_scheduler_type=constant output_dir=lm-ten max_steps=10
ok export lm-constant/checkpoint-000010 output_dir=lm-constant-10
cmp lm-ten/final/model.safetensors lm-constant-10/final/model.safetensors ||
    fail 'an exported checkpoint is not what training to its step gives'

# --- a resumed run: the same weights and the same log; other data is refused
ok train "${run[@]}" output_dir=again
without_clocks lm/logs/train.jsonl >one
without_clocks again/logs/train.jsonl >two
cmp one two || fail 'two equal runs log differently'
rm -r again/checkpoint-000010 again/checkpoint-000015
ok train "${run[@]}" output_dir=again resume_from_checkpoint=auto
without_clocks again/logs/train.jsonl >two
cmp one two || fail 'the log of a resumed run is not that of an undisturbed one'
cmp lm/final/model.safetensors again/final/model.safetensors || fail 'a resumed run ends elsewhere'
cp again/logs/train.jsonl finished
ok train "${run[@]}" output_dir=again resume_from_checkpoint=auto
cmp finished again/logs/train.jsonl || fail 'a finished run, started again, logs what it did not do'
sed -i '1s/water/vatten/' pairs.jsonl
rm -r again/checkpoint-000015
refused 3 'training data is not what' train "${run[@]}" output_dir=again resume_from_checkpoint=auto

# --- adapters go on from adapters
ok train "${run[@]}" finetuning_type=lora lora_target_modules='.*layers\.0\..*(q|v)_proj' \
    output_dir=lora-1
ok train "${run[@]}" finetuning_type=lora adapter_path=lora-1/final output_dir=lora-2
ok eval "model_name_or_path=$models/llama" adapter_path=lora-2/final 'datasets=[pairs.jsonl]' \
    add_eos=true max_length=64
second=$(number eval_loss)
ok eval "model_name_or_path=$models/llama" adapter_path=lora-1/final 'datasets=[pairs.jsonl]' \
    add_eos=true max_length=64
at_most "$second" "$(number eval_loss)" 'the continued adapter is worse'

# --- what cannot work is said
refused 4 'tied' train "${run[@]}" finetuning_type=lora lora_modules_to_save=embed_tokens \
    output_dir=bad
ok train "${run[@]}" finetuning_type=freeze freeze_trainable_layers=1 output_dir=frozen

echo 'every task from start to end'
