#!/usr/bin/env bash
# Pictures from folders to a classifier: learned, evaluated, exported, adapted; the same bits whatever
# the ranks and threads, and after a resume; what cannot be read is said or counted.
set -u
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
start
vit=$MB_TEST_DATA/reference/vit-cls
# a configuration that names no classes: those of the data are learned
mkdir bare
cp "$vit"/*.json bare
tr -d '\n' <"$vit/config.json" | sed -E 's/"(id2label|label2id)": *\{[^}]*\},?//g; s/"num_labels": *[0-9]+,?//' >bare/config.json

"$helpers/make_pictures" shapes/train 24 || fail 'no pictures'
"$helpers/make_pictures" shapes/test 8 || fail 'no pictures'

# --- learned, with names of classes; transformers' files beside the weights
run=(task=image-classification init=random model_name_or_path=bare 'datasets=[shapes]'
    per_device_train_batch_size=12 learning_rate=3e-3 reduction=exact)
ok train "${run[@]}" num_train_epochs=40 'eval_datasets=[{path: shapes, split: test}]' \
    eval_strategy=epoch image_flip=0.5 output_dir=full
grep -q '"ring"' full/final/config.json || fail 'the classes have no names in config.json'
grep -q 'ViTImageProcessor' full/final/preprocessor_config.json || fail 'no preprocessor_config.json'
[ ! -e full/final/tokenizer.json ] || fail 'a tokenizer, of a model that reads pictures'
ok eval model_name_or_path=full/final 'datasets=[{path: shapes, split: test}]' predictions_file=said.jsonl
at_most 0.9 "$(number eval_accuracy)" 'accuracy'
[ "$(wc -l <said.jsonl)" -eq 24 ] || fail "not a line for each picture: $(wc -l <said.jsonl)"
ok score said.jsonl metric=accuracy,f1 confusion_matrix=confused.png
[ "$(head -c 8 confused.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || fail 'no matrix'

# --- an adapter on it, evaluated, merged: the same numbers
ok train model_name_or_path=full/final task=image-classification 'datasets=[shapes]' \
    finetuning_type=lora max_steps=4 output_dir=lora
ok eval model_name_or_path=full/final adapter_path=lora/final task=image-classification \
    'datasets=[{path: shapes, split: test}]'
adapter=$(number eval_loss)
ok merge full/final adapter_path=lora/final task=image-classification output_dir=merged
ok eval model_name_or_path=merged task=image-classification 'datasets=[{path: shapes, split: test}]'
at_most "$(awk -v a="$adapter" -v b="$(number eval_loss)" 'BEGIN { d = a - b; print d < 0 ? -d : d }')" \
    1e-5 'adapter and merged model differ'

# --- every augmentation on: ranks, threads and a resume change no bit
drawn=("${run[@]}" image_crop=resized image_flip=0.5 image_rotation=15 image_color_jitter=0.3
    global_batch_size=12 per_device_train_batch_size=4 save_steps=4 max_steps=8 logging_steps=1)
must_train 1 "${drawn[@]}" output_dir=one
must_train 3 "${drawn[@]}" output_dir=three
OMP_NUM_THREADS=3 must_train 1 "${drawn[@]}" output_dir=threads
must_train 2 "${drawn[@]}" output_dir=resumed max_steps=8
rm -r resumed/checkpoint-000008
must_train 1 "${drawn[@]}" output_dir=resumed resume_from_checkpoint=auto
for other in three threads resumed; do
    same one/final/model.safetensors $other/final/model.safetensors "one rank and $other"
done
must_train 1 "${drawn[@]}" output_dir=padded image_crop=padded
cmp -s one/final/model.safetensors padded/final/model.safetensors && fail 'crops are all the same'

# --- a metadata file in place of folders: the same run
{
    echo 'label,file_name'
    for class in bars disc ring; do
        for file in "shapes/train/$class"/*; do echo "$class,$file"; done
    done
} >all.csv
must_train 1 "${drawn[@]}" 'datasets=[all.csv]' output_dir=table
same one/final/model.safetensors table/final/model.safetensors 'folders and a table'
ok eval model_name_or_path=full/final 'datasets=[{path: all.csv, split: "train[12:36]"}]' metrics_by=label
[ "$(number eval_bars_rows) $(number eval_disc_rows)" = '12 12' ] || fail "groups of a part of a table: $(cat out)"

# --- pictures that cannot be read
cp -r shapes broken
head -c 60 shapes/train/disc/03.png >broken/train/disc/03.png
echo 'not a picture' >broken/train/ring/00.png
refused 3 'broken/train/disc/03.png: the PNG cannot be read: the file ends early' \
    train "${run[@]}" 'datasets=[broken]' max_steps=1 output_dir=bad
MBUYU_LOG=info ok train "${run[@]}" 'datasets=[broken]' bad_rows=skip max_steps=1 output_dir=skipped
grep -q '2 rows could not be read and were skipped' log || fail "no count: $(cat log)"

# --- what does not fit together
refused 2 'needs a model that reads pictures' train task=image-classification \
    "model_name_or_path=$MB_TEST_DATA/reference/bert-cls" 'datasets=[shapes]' output_dir=bad
refused 2 'needs a model that reads text' train task=seq-classification "model_name_or_path=$vit" \
    'datasets=[shapes]' output_dir=bad
refused 3 'no folder "validation"' train "${run[@]}" \
    'datasets=[{path: shapes, split: validation}]' output_dir=bad
refused 3 'there are no pictures' train "${run[@]}" "datasets=[$MB_TEST_DATA/reference]" output_dir=bad
cp -r "$vit" other
echo '{"size": {"height": 32, "width": 32}}' >other/preprocessor_config.json
refused 4 'makes pictures of 32 by 32 pixels, the model reads 16 by 24' train "${run[@]}" \
    model_name_or_path=other output_dir=bad
refused 2 'packing is for language models' train "${run[@]}" packing=true output_dir=bad

# --- looked at before training
ok inspect "${run[@]}" --row 30 --save seen
grep -q 'row 30, shapes/train/disc/06.png: [0-9]* by [0-9]* pixels, label 1 (disc)' out ||
    fail "inspect: $(cat out)"
[ "$(head -c 8 seen/000030.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || fail 'no picture'
ok plan "${run[@]}"

finish
