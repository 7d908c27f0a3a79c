#!/bin/sh
# test_parallel_programs.sh TRAIN_CLASSIFIER MPIRUN - training on several ranks follows training on one;
# it goes on with another number of ranks; a killed rank ends the job and leaves a valid checkpoint.
set -eu
train=$1
mpirun=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
. "$(dirname "$0")/support/expect.sh"
common="--dataset long-range --train-images 320 --test-images 70 --depth 4 --width 8
        --attention efficient --heads 2 --batch-size 32 --epochs 4 --seed 3"

# ranks N COMMAND...
ranks() {
    count=$1
    shift
    "$mpirun" -n "$count" "$@" </dev/null
}

# expect_ranks CODE TEXT N COMMAND...: as expect does, but launchers add lines of their own
expect_ranks() {
    code=$1
    text=$2
    shift 2
    status=0
    ranks "$@" >"$folder/out" 2>"$folder/err" || status=$?
    [ "$status" -eq "$code" ] || fail "exit code $status instead of $code: $* $(cat "$folder/err")"
    [ "$(cat "$folder/out" "$folder/err" | grep -c -- "$text")" -eq 1 ] ||
        fail "expected '$text' once in: $(cat "$folder/out" "$folder/err")"
    passed=$((passed + 1))
}

# numbers FILE: weights, running statistics and momentum
numbers() {
    for name in model/head/weight model/blocks/0/conv1/weight model/stem/bn/running_mean \
        model/stem/bn/running_var model/blocks/0/attention/keys/weight \
        optimizer/momentum_buffer/head/weight; do
        h5dump -y -w 1 -d "/$name" -m %.9g "$1" | sed -n 's/^ *\(-\{0,1\}[0-9][0-9.e+-]*\),\{0,1\}$/\1/p'
    done
}

# follows FILE FILE: equal to float tolerance
follows() {
    numbers "$1" >"$folder/a"
    numbers "$2" >"$folder/b"
    [ "$(wc -l <"$folder/a")" -gt 500 ] || fail "found no numbers in $1"
    paste "$folder/a" "$folder/b" | awk -v tolerance=1e-4 '
        { d = $1 - $2; d = d < 0 ? -d : d; if (NF != 2 || d > tolerance) { print; bad = 1 } }
        END { exit bad }' >"$folder/difference" ||
        fail "$1 and $2 differ: $(head -n 3 "$folder/difference")"
    passed=$((passed + 1))
}

# ---- one rank of two threads; two ranks of one and of two threads; four ranks of one
# shellcheck disable=SC2086
{
    expect 0 "" "$train" $common --threads 2 --checkpoint "$folder/one.h5" --log "$folder/one.csv"
    expect_ranks 0 "2 ranks of 1 threads, batch norm synchronized" 2 "$train" $common --threads 1 \
        --checkpoint "$folder/two.h5" --log "$folder/two.csv"
    expect_ranks 0 "2 ranks of 2 threads" 2 "$train" $common --threads 2 \
        --checkpoint "$folder/two-of-two.h5"
    expect_ranks 0 "4 ranks of 1 threads" 4 "$train" $common --threads 1 \
        --checkpoint "$folder/four.h5"
    expect_ranks 0 "batch norm local" 2 "$train" $common --threads 1 --batch-norm local \
        --checkpoint "$folder/local.h5"
}
follows "$folder/one.h5" "$folder/two.h5"
follows "$folder/one.h5" "$folder/four.h5"
[ "$(numbers "$folder/two.h5" | cksum)" = "$(numbers "$folder/two-of-two.h5" | cksum)" ] ||
    fail "threads of a rank change the results"
# epoch, accuracy on the test images: counted, so the same
[ "$(cut -d, -f1,5 "$folder/one.csv")" = "$(cut -d, -f1,5 "$folder/two.csv")" ] ||
    fail "the logs differ: $(cat "$folder/one.csv" "$folder/two.csv")"
if (follows "$folder/one.h5" "$folder/local.h5") >/dev/null; then
    fail "statistics of each rank's part give the run of the whole batch: the test sees nothing"
fi
expect_ranks 0 "on 70 images" 2 "$train" --evaluate "$folder/two.h5"

# ---- another number of ranks
# shellcheck disable=SC2086
expect_ranks 0 "epoch 2/4" 2 "$train" $common --stop-after 2 --checkpoint "$folder/part.h5"
expect 0 "resumed" "$train" --resume "$folder/part.h5" --checkpoint "$folder/part-one.h5"
expect_ranks 0 "resumed" 4 "$train" --resume "$folder/part.h5" --checkpoint "$folder/part-four.h5"
follows "$folder/one.h5" "$folder/part-one.h5"
follows "$folder/one.h5" "$folder/part-four.h5"

# ---- a rank that is asked to stop stops all, in the same step
# shellcheck disable=SC2086
long="$common --epochs 100000"
# running NAME: trains on two ranks in the background until there is a checkpoint
running() {
    rm -f "$folder/$1.h5"
    # shellcheck disable=SC2086
    "$mpirun" -n 2 "$train" $long --checkpoint "$folder/$1.h5" </dev/null >"$folder/out" \
        2>"$folder/err" &
    job=$!
    for _ in $(seq 600); do
        [ -s "$folder/$1.h5" ] && break
        sleep 0.1
    done
    [ -s "$folder/$1.h5" ] || fail "no checkpoint: $(cat "$folder/err")"
}
# rank_1: its process, known by its place in the environment
rank_1() {
    for process in /proc/[0-9]*; do
        if [ "$(readlink "$process/exe")" = "$(readlink -f "$train")" ] &&
            tr '\0' '\n' <"$process/environ" | grep -qx 'OMPI_COMM_WORLD_RANK=1\|PMI_RANK=1' &&
            tr '\0' '\n' <"$process/cmdline" | grep -q "^$folder/"; then
            basename "$process"
        fi
    done 2>/dev/null
}
running stopped
kill -INT "$(rank_1)"
status=0
wait "$job" || status=$?
[ "$status" -eq 130 ] || fail "exit code $status after an interrupt: $(cat "$folder/err")"
grep -q "interrupted after step" "$folder/out" || fail "no word of it: $(cat "$folder/out")"
expect 0 "on 70 images" "$train" --evaluate "$folder/stopped.h5"

# ---- a killed rank
running killed
kill -KILL "$(rank_1)"
status=0
wait "$job" || status=$?
[ "$status" -ne 0 ] || fail "a job with a killed rank ends with 0"
grep -qi "signal:\{0,1\} 9" "$folder/out" "$folder/err" ||
    fail "no word of it: $(cat "$folder/out" "$folder/err")"
expect 0 "on 70 images" "$train" --evaluate "$folder/killed.h5"

# ---- mistakes, once each
# shellcheck disable=SC2086
{
    expect_ranks 2 "batch-size 32 does not divide among 3 ranks; 33 would" 3 "$train" $common
    expect_ranks 2 "there are 320 training images" 2 "$train" $common --batch-size 322
    expect_ranks 2 "unknown option '--epoch'" 2 "$train" --epoch 3
    expect_ranks 1 "missing.h5" 2 "$train" --resume "$folder/missing.h5"
    expect_ranks 1 "nowhere/c.h5" 2 "$train" $common --checkpoint "$folder/nowhere/c.h5"
    expect_ranks 1 "rank 1: .*out of memory" 1 "$train" $common : -n 1 "$train" $common \
        --memory-limit 3M
    expect_ranks 1 "epoch 1, step .*finite" 2 "$train" $common --lr 1e6 --weight-decay 1e3 \
        --schedule constant
    expect_ranks 1 "expected the same values on all 2 ranks" 1 "$train" $common : -n 1 "$train" \
        $common --seed 4
}
echo "$passed passed, 0 failed"
