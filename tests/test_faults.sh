#!/bin/sh
# test_faults.sh TRAIN_CLASSIFIER KILL_TEST - training programs when things go wrong: gradients that
# explode, losses that are not finite, disks and address spaces that are full, kills.
set -eu
train=$1
kill_test=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
. "$(dirname "$0")/support/expect.sh"
common="--dataset long-range --train-images 64 --test-images 32 --depth 4 --width 8
        --attention efficient --batch-size 32 --threads 1"

# The learning rate rises by 1/2 a step until the weights overflow.
# shellcheck disable=SC2086
expect 1 "epoch [0-9]*, step [0-9]*: the loss.*[a-z0-9_]*: the result has a NaN or an infinity); the last good checkpoint is $folder/up.h5; try" \
    "$train" $common --epochs 1000 --schedule constant --lr 1000 --warmup-epochs 1000 \
    --weight-decay 0.1 --checkpoint "$folder/up.h5" --log "$folder/up.csv"
# the checkpoint is good, and the log shows the explosion
expect 0 "test loss [0-9]" "$train" --evaluate "$folder/up.h5"
! grep -qi nan "$folder/out" || fail "the last good checkpoint gives NaN"
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    { norm = $column["grad_norm"] + 0 } NR == 2 { first = norm } norm > most { most = norm }
    END { exit !(NR > 2 && most > 10 * first) }' "$folder/up.csv" ||
    fail "the gradient's norm does not show the explosion: $(cut -d, -f10 "$folder/up.csv" | tail -3)"
passed=$((passed + 1))
# the same without a checkpoint
# shellcheck disable=SC2086
expect 1 "no checkpoint was saved" "$train" $common --epochs 1000 --schedule constant --lr 1000 \
    --warmup-epochs 1000 --weight-decay 0.1

# A disk that is full in the middle of a training: the checkpoint from before it stays.
# shellcheck disable=SC2086
expect 0 "" "$train" $common --epochs 4 --stop-after 2 --checkpoint "$folder/full.h5"
expect 0 "" "$train" --evaluate "$folder/full.h5"
cp "$folder/out" "$folder/before"
full() (
    trap '' XFSZ
    ulimit -f 8
    "$@"
)
expect 1 "cannot write its temporary file: File too large" full "$train" --resume "$folder/full.h5" \
    --checkpoint "$folder/full.h5"
expect 0 "" "$train" --evaluate "$folder/full.h5"
cmp -s "$folder/before" "$folder/out" || fail "the checkpoint changed"
[ ! -e "$folder/full.h5.tmp" ] || fail "a temporary file is left"
# shellcheck disable=SC2086
expect 1 "cannot write the log: No such file or directory" "$train" $common --epochs 1 \
    --log "$folder/nowhere/log.csv"

# A log tells whether memory grows. (AddressSanitizer must not keep freed memory for this.)
# shellcheck disable=SC2086
expect 0 "" env ASAN_OPTIONS="${ASAN_OPTIONS:-}:quarantine_size_mb=0:thread_local_quarantine_size_kb=0" \
    "$train" $common --epochs 8 --checkpoint "$folder/long.h5" --log "$folder/long.csv"
expect 0 "no growth" sh "$(dirname "$kill_test")/memory_growth.sh" "$folder/long.csv"
awk -F, -v OFS=, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "resident_bytes") c = i }
    NR > 1 { $c += 1e6 * NR } { print }' "$folder/long.csv" >"$folder/leak.csv"
! sh "$(dirname "$kill_test")/memory_growth.sh" "$folder/leak.csv" >"$folder/out" ||
    fail "growth of a megabyte an epoch went unnoticed"
passed=$((passed + 1))

expect 0 "all bits are those of the run without" sh "$kill_test" "$train" 12
echo "$passed passed, 0 failed"
