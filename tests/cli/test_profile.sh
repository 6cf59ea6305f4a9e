#!/usr/bin/env bash
# tests/cli/test_profile.sh - profile: true tells where time went, and changes nothing else.
#
# Runs on one and two ranks, and on an emulated GPU where that was built, with and without it: the same
# weights, optimizer state and losses. Every table of logs/profile.txt adds up to the step,
# logs/trace.json is JSON of three steps per rank whose events nest and lie within the run.
set -u
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
start

common=(model_name_or_path="$MB_TEST_DATA/reference/llama" add_eos=true "datasets=[$rows]" max_length=120
    per_device_train_batch_size=2 global_batch_size=16 max_steps=7 learning_rate=1e-3 logging_steps=1
    save_steps=7 val_set_size=6 eval_strategy=steps eval_steps=3 report_to=jsonl)

# shares OUT: each table of profile.txt adds up to 100 %, and the first one to the step's time
shares() {
    awk '
        /^kind / { table = 1; next }
        /^part of a step/ { table = 2; next }
        /^call / { table = 3; next }
        /^step  / { step = $2; next }
        match($0, / [-0-9.]+ +[-0-9.]+%/) {
            split(substr($0, RSTART, RLENGTH), field, " ")
            ms[table] += field[1]
            share[table] += field[2]
            lines[table]++
        }
        END {
            for (t = 1; t <= 3; t++)
                if (lines[t] < 4 || share[t] < 98 || share[t] > 102 || ms[t] < 0.98 * step || ms[t] > 1.02 * step) {
                    printf "table %d: %d lines, %g %%, %g of %g ms\n", t, lines[t], share[t], ms[t], step
                    exit 1
                }
        }' "$1/logs/profile.txt" >said || fail "$1: $(cat said "$1/logs/profile.txt")"
}

# trace OUT RANKS SECONDS: what the events say
trace() {
    python3 - "$@" >said 2>&1 <<'END' || fail "$1: trace: $(tail -n 3 said)"
import json, sys

out, ranks, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
events = json.load(open(out + "/logs/trace.json"))["traceEvents"]
names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
assert names == {f"rank {r}" for r in range(ranks)}, names
for rank in range(ranks):
    mine = [e for e in events if e["ph"] == "X" and e["pid"] == rank]
    steps = [e for e in mine if e["name"] == "step"]
    assert len(steps) == 3, len(steps)
    open_until = []
    for e in mine:  # in the order of their begin
        begin, end = e["ts"], e["ts"] + e["dur"]
        assert 0 <= begin and 0 <= e["dur"] and end <= seconds * 1e6, e
        while open_until and open_until[-1][0] <= begin + 1e-4:
            open_until.pop()
        assert not open_until or end <= open_until[-1][0] + 1e-4, (e, open_until)
        inside = [name for _, name in open_until]
        open_until.append((end, e["name"]))
        assert e["cat"] == "part" or "step" in inside, (e, inside)
    for wanted in ("data", "forward", "backward", "reduction", "optimizer", "gemm", "attention_bwd", "adamw"):
        assert any(e["name"] == wanted for e in mine), (rank, wanted)
    forward = [e for e in mine if e["name"] == "gemm"][0]
    assert forward["args"]["shape"].split()[0].count("x") == 2, forward
    assert ranks == 1 or any(e["cat"] == "communication" for e in mine), rank
END
}

# both NAME RANKS KEY...: without and with a profile
both() {
    local name=$1 ranks=$2 begin
    shift 2
    must_train "$ranks" "${common[@]}" output_dir="$name" "$@"
    [ -e "$name/logs/profile.txt" ] && fail "$name: nobody asked for a profile"
    begin=$(seconds)
    MBUYU_LOG=info must_train "$ranks" "${common[@]}" output_dir="$name-profile" profile=true "$@"
    trace "$name-profile" "$ranks" "$(since "$begin")"
    shares "$name-profile"
    for out in "$name" "$name-profile"; do
        state "$out/checkpoint-000007" >"$out/state"
    done
    same_run "$name" "$name-profile" "$name with a profile"
    [ "$(grep -c '^profile: 5 steps after the first 2' log)" = 1 ] || fail "$name: the log: $(cat log)"
    [ "$(grep -c '^gemm  ' log)" -ge 1 ] || fail "$name: no table in the log: $(cat log)"
    grep -q '"num_step_allocations":0[,}]' "$name-profile/logs/train.jsonl" ||
        fail "$name: steps allocate: $(tail -n 1 "$name-profile/logs/train.jsonl")"
    grep -qE '^evaluation +3 times' "$name-profile/logs/profile.txt" || fail "$name: no evaluations"
    grep -qE '^checkpoint +1 times' "$name-profile/logs/profile.txt" || fail "$name: no checkpoint"
    if [ "$ranks" -gt 1 ]; then
        grep -qE '^communication .* on rank [01] .* on rank [01]$' "$name-profile/logs/profile.txt" ||
            fail "$name: the ranks are not compared: $(cat "$name-profile/logs/profile.txt")"
    fi
    printf '%-8s the same bits with a profile; tables add up, events nest\n' "$name"
}

both one 1 device=cpu
both two 2 device=cpu
both three 2 device=cpu reduction=exact zero_stage=3 gradient_checkpointing=true
if [ -e "${MBUYU_CUDA_LIBRARY:-}" ]; then
    both gpu 1 device=cuda
    both gpus 2 device=cuda reduction=exact zero_stage=3
    both overlap 2 device=cuda zero_stage=1
fi

# --- two steps are all warm-up; a file that cannot be written is not worth the run

MBUYU_LOG=info must_train 1 "${common[@]}" device=cpu output_dir=short profile=true max_steps=2
grep -q '^profile: there was no step after the first 2' log || fail "a run of two steps: $(cat log)"
mkdir -p blocked/logs/profile.txt/in blocked/logs/trace.json/in
must_train 2 "${common[@]}" device=cpu output_dir=blocked profile=true max_steps=4
[ "$(grep -c 'the profile was not written' log)" = 2 ] || fail "files in the way: $(cat log)"
[ -e blocked/final/model.safetensors ] || fail 'files in the way of a profile cost the model'
finish
