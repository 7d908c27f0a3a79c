#!/bin/sh
# kill_test.sh TRAIN_CLASSIFIER [KILLS] - kills a training KILLS times (200) at random moments and
# resumes it each time, until it is through; then compares the last checkpoint with that of a run
# that was left alone: weights, running statistics, the optimizer's state and the log's figures must
# be the same bits. A third of the kills comes a moment after Ctrl-C, while the middle of an epoch is
# being saved. SEED (1) chooses the moments. Needs h5dump (hdf5-tools).
set -eu
train=$1
kills=${2:-200}
seed=${SEED:-1}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# enough short epochs that the run is not through before it was killed often enough
epochs=$((kills / 2 + 10))
options="--dataset long-range --train-images 320 --test-images 32 --depth 4 --width 8 --threads 1
    --attention efficient --heads 2 --batch-size 16 --optimizer adamw --seed 5 --epochs $epochs"

fail() {
    echo "kill_test: $*" >&2
    exit 1
}

# content FILE: the digest of every bit below /model and /optimizer, and of the history but its times
content() {
    for group in /model /optimizer; do
        h5dump -m %.17g -g $group "$1" | sed 1d
    done | cksum
    for column in epoch train_loss train_accuracy test_loss test_accuracy learning_rate grad_norm; do
        h5dump -m %.17g -d "/training/history/$column" "$1" | sed 1d
    done | cksum
}

# random BELOW: the next number of a generator (Park and Miller) that every shell can compute
random() {
    seed=$((seed * 16807 % 2147483647))
    drawn=$((seed % $1))
}

milliseconds() {
    sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
}

started=$(date +%s%N)
# shellcheck disable=SC2086
"$train" $options --checkpoint "$folder/whole.h5" >"$folder/out" 2>&1 ||
    fail "the run that is left alone failed: $(tail -3 "$folder/out")"
# moments are spread over three epochs' time
span=$((($(date +%s%N) - started) / 1000000 * 3 / epochs + 20))
killed=0
finished_early=0
stopped=0
saves=0
command="$train $options --checkpoint $folder/killed.h5"
while [ "$killed" -lt "$kills" ]; do
    $command >"$folder/out" 2>&1 &
    process=$!
    random "$span"
    milliseconds "$drawn"
    if [ $((killed % 3)) -eq 0 ]; then
        kill -INT "$process" 2>/dev/null || true
        random 12
        milliseconds "$drawn"
    fi
    kill -KILL "$process" 2>/dev/null || true
    code=0
    wait "$process" 2>/dev/null || code=$?
    case $code in
    137) killed=$((killed + 1)) ;;                # what was wanted
    130) stopped=$((stopped + 1)) ;;              # Ctrl-C was faster: saved, and left by itself
    0) finished_early=$((finished_early + 1)) ;;  # through: begin anew, and go on killing
    *) fail "exit code $code after $killed kills: $(tail -3 "$folder/out")" ;;
    esac
    if [ "$code" -eq 0 ]; then
        [ "$(content "$folder/whole.h5")" = "$(content "$folder/killed.h5")" ] ||
            fail "after $killed kills the weights are others than without"
        rm -f "$folder/killed.h5"
    fi
    [ "$(find "$folder" -name 'killed.h5*' | wc -l)" -le 2 ] || fail "files are left behind"
    command="$train $options --checkpoint $folder/killed.h5"
    if [ -e "$folder/killed.h5" ]; then
        saves=$((saves + 1))
        command="$train --resume $folder/killed.h5 --checkpoint $folder/killed.h5 --threads 1"
    fi
    [ ! -t 1 ] || printf '\r%d of %d kills ' "$killed" "$kills"
done
[ ! -t 1 ] || printf '\r'
$command >"$folder/out" 2>&1 || fail "the last part failed: $(tail -3 "$folder/out")"
[ "$(content "$folder/whole.h5")" = "$(content "$folder/killed.h5")" ] ||
    fail "after $killed kills the weights are others than without"
[ "$saves" -gt 0 ] || fail "no checkpoint was ever resumed from"
[ ! -e "$folder/killed.h5.tmp" ] || fail "a temporary file is left"
echo "$killed kills, $stopped clean stops, $saves times resumed, through $((finished_early + 1))" \
    "times: all bits are those of the run without"
