#!/usr/bin/env bash
# Speech as a user meets it: a folder of sounds, a tiny Whisper that learns them by heart, transcripts of
# files, and what is said about rows that cannot be heard. MBUYU is the program, MB_TEST_DATA the data.
# shellcheck disable=SC2059 # bytes are made of text
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=verbs.sh
. "$(dirname "${BASH_SOURCE[0]}")/verbs.sh"
export OMP_NUM_THREADS=1 MBUYU_LOG=info
start

# --- a Whisper of 64 tokens, one a letter, that hears half a second
cp -r "$MB_TEST_DATA/reference/whisper" model
chmod -R u+w model
echo '{"is_multilingual": true, "eos_token_id": 2, "decoder_start_token_id": 3, "begin_suppress_tokens": [8, 2]}' >model/generation_config.json
echo '{"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 10}' >model/preprocessor_config.json

# --- sounds: a square wave of `half` samples up and down, 16 bits at 8 kHz
little() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 24 & 255)))"; }
wav() { # wav FILE HALF SAMPLES [CLAIMED BYTES]
    local up down
    up=$(printf '\\x00\\x20%.0s' $(seq "$2")) down=$(printf '\\x00\\xe0%.0s' $(seq "$2"))
    {
        printf RIFF
        little $((36 + 2 * $3))
        printf 'WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00'
        little 8000
        little 16000
        printf '\x02\x00\x10\x00data'
        little "${4:-$((2 * $3))}"
        for _ in $(seq $(($3 / (2 * $2) + 1))); do printf "$up$down"; done | head -c $((2 * $3)) || true # head leaves early
    } >"$1"
}
mkdir sounds
i=0
for word in baba mama dada kaka; do
    for length in 2000 2200 2400; do
        i=$((i + 1))
        wav "sounds/$i.wav" $((3 + 4 * (i / 3 % 4) + i % 3)) $length
        printf '{"file_name": "%s.wav", "transcription": "%s"}\n' $i $word
    done
done >sounds/metadata.jsonl
wav sounds/long.wav 5 8000
wav sounds/cut.wav 5 2000 9000
common=(model_name_or_path=model task=speech-recognition max_length=20 language=sw)

# --- learned by heart: evaluated with what it writes, exported with all that transformers wants
ok train "${common[@]}" 'datasets=[sounds]' 'eval_datasets=[sounds]' num_train_epochs=40 eval_strategy=no \
    per_device_train_batch_size=4 global_batch_size=8 learning_rate=1e-2 output_dir=run
grep -q '"num_step_allocations":0' run/logs/train.jsonl || fail 'a step took memory'
for file in preprocessor_config.json tokenizer.json; do
    cmp -s model/$file run/final/$file || fail "$file is not copied"
done
grep -q '"language": "sw"' run/final/generation_config.json || fail 'the language is named'
grep -q '"begin_suppress_tokens"' run/final/generation_config.json || fail 'and nothing else is lost'
ok eval model_name_or_path=run/final task=speech-recognition language=sw max_length=16 \
    max_target_length=1 'eval_datasets=[sounds]' predict_with_generate=true predictions_file=said.jsonl
at_most "$(number eval_wer)" 0.2 'WER of what was learned by heart'
[ "$(wc -l <said.jsonl)" -eq 12 ] || fail 'a prediction for every row'
grep -q '"audio":"sounds/1.wav"' said.jsonl || fail 'predictions name their sounds'

# --- the same with an adapter; on two ranks to the bit; threads change nothing
ok train "${common[@]}" 'datasets=[sounds]' finetuning_type=lora max_steps=3 output_dir=lora
ok eval "${common[@]}" adapter_path=lora/final 'eval_datasets=[sounds]'
short=(train "${common[@]}" 'datasets=[sounds]' max_steps=3 per_device_train_batch_size=2
    global_batch_size=6 reduction=exact seed=3)
ok "${short[@]}" output_dir=one
OMP_NUM_THREADS=3 ok "${short[@]}" output_dir=threads
mpirun --allow-run-as-root --oversubscribe --mca mpi_yield_when_idle 1 -np 2 "$MBUYU" "${short[@]}" \
    output_dir=two >out 2>log || fail 'training on two ranks'
for other in threads two; do
    cmp -s one/final/model.safetensors $other/final/model.safetensors || fail "weights of one and $other differ"
done

# --- files, one by one and in pieces
ok transcribe run/final sounds/1.wav sounds/12.wav # in the language that it was tuned for
[ "$(sed -n 1p out)" = "$(sed -nE '1s/.*"prediction":"([^"]*)".*/\1/p' said.jsonl)" ] ||
    fail "transcribe and eval differ: $(cat out)"
[ "$(wc -l <out)" -eq 2 ] || fail 'a line for every file'
ok transcribe run/final language=sw --json sounds/long.wav
grep -q '"seconds":1.0,.*"pieces":\[{"from":0.0,.*{"from":0.[45]' out || fail "pieces: $(cat out)"

# --- what cannot be heard
echo '{"audio": "sounds/cut.wav", "text": "baba"}' >cut.jsonl
refused 3 'cut.jsonl:1: .*cut.wav is cut short: its header promises 9000 bytes of sound, it holds 4000' \
    eval "${common[@]}" 'eval_datasets=[cut.jsonl]'
cat cut.jsonl sounds/metadata.jsonl | sed 's,"file_name": ",&sounds/,; s/"file_name"/"audio"/; s/"transcription"/"text"/' >mixed.jsonl
ok eval "${common[@]}" 'eval_datasets=[mixed.jsonl]' bad_rows=skip
grep -q '1 rows could not be read and were skipped' log || fail 'a row that is skipped is counted'
echo '{"audio": "sounds/long.wav", "text": "baba"}' >>mixed.jsonl
ok eval "${common[@]}" 'eval_datasets=[mixed.jsonl]' bad_rows=skip
grep -q '1 rows are about sounds longer than audio_seconds and were left out' log || fail 'a long sound is counted'
refused 3 'mixed.jsonl:14: .*long.wav lasts 1.00 seconds, expected at most 0.5' eval "${common[@]}" \
    'eval_datasets=[mixed.jsonl]' bad_rows=skip excess_length_strategy=raise
refused 2 'audio_seconds is 1; the model hears 0.5 seconds at most' eval "${common[@]}" \
    'eval_datasets=[sounds]' audio_seconds=1
refused 2 'language must say which one is spoken' eval model_name_or_path=model task=speech-recognition \
    'eval_datasets=[sounds]'
refused 2 "language is 'yo', which is no language of model" transcribe model language=yo sounds/1.wav
refused 2 'model reads sounds, not texts: mbuyu transcribe' generate model prompt=baba
echo '{"translation": {"en": "father", "sw": "baba"}}' >pairs.jsonl
refused 2 'its task is speech-recognition, not seq2seq' eval model_name_or_path=model task=seq2seq \
    'eval_datasets=[pairs.jsonl]' max_length=20
ok inspect "${common[@]}" 'datasets=[sounds]' --rows 1
grep -q baba out || fail "inspect: $(cat out)"
refused 2 'nothing to listen to' transcribe model language=sw
refused 3 'there is no .*none.wav|none.wav.*No such file' transcribe model language=sw none.wav
sed -i 's/10}/12}/' model/preprocessor_config.json
refused 4 'preprocessor_config.json: feature_size is 12; 10 is supported' transcribe model language=sw sounds/1.wav
refused 4 'hears nothing' transcribe "$MB_TEST_DATA/reference/t5" sounds/1.wav
echo 'sounds are learned, written down and refused as they should be'
