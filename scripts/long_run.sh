#!/bin/sh
# long_run.sh TRAIN_CLASSIFIER [MINUTES [FOLDER]] - trains a small network on Fashion-MNIST (Debian:
# dataset-fashion-mnist; without it on the long-range task) for so many MINUTES (60), saves it after
# every epoch, ends the training as Ctrl-C does, and says by memory_growth.sh whether memory grew
# after the first epoch. Exit code 1 if it did. Log and checkpoint are left in FOLDER, if one is given.
# THREADS: 0, all cores.
set -eu
train=$1
minutes=${2:-60}
folder=${3:-}
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"
data="--dataset fashion-mnist"
[ -d /usr/share/datasets/fashion-mnist ] || data="--dataset long-range --train-images 60000 --test-images 10000"
code=0
# more epochs than there is time for
# shellcheck disable=SC2086
timeout --preserve-status -s INT "${minutes}m" "$train" $data --depth 8 --width 8 \
    --attention efficient --heads 2 --optimizer adamw --schedule constant --epochs 100000 \
    --threads "${THREADS:-0}" --loader-threads 1 --checkpoint "$folder/long.h5" \
    --log "$folder/long.csv" >"$folder/out" 2>&1 || code=$?
[ "$code" -eq 130 ] || {
    echo "long_run: exit code $code: $(tail -3 "$folder/out")" >&2
    exit 1
}
sh "$(dirname "$0")/memory_growth.sh" "$folder/long.csv"
