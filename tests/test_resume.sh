#!/bin/sh
# test_resume.sh TRAIN_CLASSIFIER - a run that was stopped and resumed equals one that was not, bit
# for bit and at any number of threads; mistakes are explained with the right exit code.
set -eu
train=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
. "$(dirname "$0")/support/expect.sh"
common="--dataset long-range --train-images 160 --test-images 64 --depth 4 --width 8
        --attention efficient --heads 2 --batch-size 32 --epochs 4 --seed 3"

# weights FILE: the digest of all that h5dump prints below /model and /optimizer
weights() {
    h5dump -d /model/head/weight -d /model/blocks/0/conv1/weight -d /model/stem/bn/running_mean \
        -d /model/blocks/0/attention/keys/weight -m %.9g "$1" | sed 1d | cksum
}

# shellcheck disable=SC2086
{
    expect 0 "" "$train" $common --threads 1 --checkpoint "$folder/whole.h5" --log "$folder/whole.csv"
    expect 0 "" "$train" $common --threads 2 --stop-after 2 --checkpoint "$folder/part.h5"
    expect 0 "" "$train" --resume "$folder/part.h5" --threads 3 --checkpoint "$folder/part.h5" \
        --log "$folder/part.csv"
}
[ "$(weights "$folder/whole.h5")" = "$(weights "$folder/part.h5")" ] ||
    fail "resumed weights differ from uninterrupted ones"
head -n 1 "$folder/whole.csv" | grep -qx \
    "epoch,train_loss,train_accuracy,test_loss,test_accuracy,seconds,step_seconds,peak_bytes,learning_rate,grad_norm,resident_bytes" ||
    fail "the log's columns"
[ "$(cut -d, -f1-5 "$folder/whole.csv")" = "$(cut -d, -f1-5 "$folder/part.csv")" ] ||
    fail "the logs differ"
[ "$(wc -l <"$folder/part.csv")" -eq 5 ] || fail "the log has not one row per epoch"
expect 0 "" "$train" --evaluate "$folder/whole.h5"
expect 2 "batch-size: the checkpoint has 32" "$train" --resume "$folder/whole.h5" --batch-size 16
expect 2 "heads: the checkpoint has 2" "$train" --evaluate "$folder/whole.h5" --heads 4
expect 2 "unknown option '--epoch'" "$train" --epoch 3
expect 2 "an integer from 1" "$train" --epochs many
expect 2 "6n+2" "$train" --dataset cifar10 --data-dir "$folder" --depth 19
expect 1 "nowhere" "$train" --dataset cifar10 --data-dir "$folder/nowhere"
expect 1 "missing.h5" "$train" --evaluate "$folder/missing.h5"
# shellcheck disable=SC2086
{
    expect 0 "" "$train" $common --stop-after 1 --profile "$folder/trace.json"
    grep -q "^profile of 5 steps" "$folder/out" || fail "no table: $(cat "$folder/out")"
    grep -q "^conv2d " "$folder/out" || fail "no row for convolutions"
    head -c 1 "$folder/trace.json" | grep -q "{" || fail "no trace"
    expect 1 "nowhere/trace.json: cannot write the trace" "$train" $common --stop-after 1 \
        --profile "$folder/nowhere/trace.json"
}
expect 2 "evaluate does none" "$train" --evaluate "$folder/whole.h5" --profile "$folder/t.json"
head -c 3000 "$folder/whole.h5" >"$folder/cut.h5"
expect 1 "cut.h5" "$train" --evaluate "$folder/cut.h5"
echo "no checkpoint at all" >"$folder/text.h5"
expect 1 "text.h5" "$train" --resume "$folder/text.h5"
# shellcheck disable=SC2086
expect 1 "out of memory" "$train" $common --memory-limit 2M
echo "$passed passed, 0 failed"
