#!/bin/sh
# test_trainers.sh TRAIN_DENSE TRAIN_STEREO - they learn a little; a run that was stopped and resumed
# equals one that was not, bit for bit and at any number of threads; mistakes are explained.
set -eu
dense=$1
stereo=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
. "$(dirname "$0")/support/expect.sh"

# weights FILE GROUP...: the digest of what h5dump prints of these datasets
weights() {
    file=$1
    shift
    for name in "$@"; do
        h5dump -d "$name" -m %.9g "$file" | sed 1d
    done | cksum
}

# same_run PROGRAM NAME "OPTIONS" "COLUMNS" DATASET...: whole and resumed runs are the same
same_run() {
    program=$1
    name=$2
    options=$3
    columns=$4
    shift 4
    # shellcheck disable=SC2086
    {
        expect 0 "" "$program" $options --threads 1 --checkpoint "$folder/$name.h5" \
            --log "$folder/$name.csv"
        expect 0 "" "$program" $options --threads 2 --stop-after 1 --checkpoint "$folder/part.h5"
        expect 0 "resumed" "$program" --resume "$folder/part.h5" --threads 3 \
            --checkpoint "$folder/part.h5" --log "$folder/part.csv"
    }
    [ "$(weights "$folder/$name.h5" "$@")" = "$(weights "$folder/part.h5" "$@")" ] ||
        fail "$name: resumed weights differ from uninterrupted ones"
    head -n 1 "$folder/$name.csv" | grep -qx "$columns" || fail "$name: the log's columns"
    [ "$(cut -d, -f1-7 "$folder/$name.csv")" = "$(cut -d, -f1-7 "$folder/part.csv")" ] ||
        fail "$name: the logs differ"
    expect 0 "on 8 " "$program" --evaluate "$folder/$name.h5"
}

common="--train-images 96 --test-images 8 --image-size 32 --depth 4 --width 8 --batch-size 16
        --attention efficient --heads 2 --epochs 3 --seed 3"
same_run "$dense" dense "$common" "epoch,train_loss,train_iou,train_pixel_accuracy,test_loss,\
test_iou,test_pixel_accuracy,seconds,step_seconds,peak_bytes,learning_rate,grad_norm,resident_bytes" \
    model/head/weight model/blocks/0/attention/keys/weight optimizer/first_moment/head/weight
awk -F, 'NR == 2 { first = $2 } END { exit !($2 < 0.8 * first) }' "$folder/dense.csv" ||
    fail "train_dense does not learn"
expect 2 "attention-blocks wants numbers from 0 to 0" "$dense" --depth 4 --attention-blocks 1
expect 2 "an even number, found 5" "$dense" --depth 5
expect 2 "heads: the checkpoint has 2" "$dense" --resume "$folder/dense.h5" --heads 4
# the map of 4,096 x 4,096 positions takes 67 MB an image; tiled, and efficient, fit
limit="--image-size 64 --train-images 2 --test-images 1 --batch-size 1 --epochs 1 --memory-limit 40M"
# shellcheck disable=SC2086
{
    expect 1 "the materialized map of 4096 x 4096 positions .* needs 134.22 MB.*the tiled implementation" "$dense" $limit --attention non-local \
        --implementation materialized
    expect 0 "iou" "$dense" $limit --attention non-local --implementation tiled
    expect 0 "iou" "$dense" $limit --attention efficient
}

common="--train-pairs 24 --test-pairs 8 --height 32 --width 64 --max-disparity 16 --channels 16
        --groups 4 --volume-channels 8 --batch-size 4 --attention efficient --heads 2
        --attention-places both --epochs 3 --seed 3"
same_run "$stereo" stereo "$common" "epoch,train_loss,train_end_point_error,train_bad_3,test_loss,\
test_end_point_error,test_bad_3,seconds,step_seconds,peak_bytes,learning_rate,grad_norm,resident_bytes" \
    model/volume/score/weight model/volume/attention/keys/weight model/features/conv/weight \
    model/volume/entry/bn/running_mean
awk -F, 'NR == 2 { first = $3 } END { exit !($3 < first) }' "$folder/stereo.csv" ||
    fail "train_stereo does not learn"
expect 2 "height wants a multiple of 4, found 33" "$stereo" --height 33
expect 2 "width: expected 64 to 2048" "$stereo" --width 32
expect 2 "even and a multiple of groups, found 30 and 8" "$stereo" --channels 30
expect 2 "a checkpoint of train_dense" "$stereo" --evaluate "$folder/dense.h5"
expect 2 "a checkpoint of train_stereo" "$dense" --evaluate "$folder/stereo.h5"
echo "$passed passed, 0 failed"
