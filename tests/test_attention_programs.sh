#!/bin/sh
# test_attention_programs.sh ATTENTION_COST [TRAIN_CLASSIFIER SHOW_ATTENTION IMAGE.png] - tables,
# sheets, messages and exit codes of the programs about attention. Without libpng there is no
# show_attention.
set -eu
cost=$1
train=${2:-}
show=${3:-}
image=${4:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
. "$(dirname "$0")/support/expect.sh"

# size_of FILE.png: "width height", from its header
size_of() {
    od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4, $7 * 256 + $8 }'
}

expect 0 "n = 4096 positions" "$cost"
expect 0 "n = 25088 positions" "$cost" --size 8x56x56 --channels 64 --batch 2 --heads 4
expect 0 "yes, no" "$cost" --memory-limit 100M --csv "$folder/cost.csv"
[ "$(wc -l <"$folder/cost.csv")" -eq 4 ] || fail "the table has not one row per module"
grep -q '^non-local materialized,.*,no,' "$folder/cost.csv" || fail "the table does not say no"
grep -q '^efficient,134217728,268435456,.*,yes,' "$folder/cost.csv" || fail "FLOPs of the table"
expect 0 "positions would fit, or the tiled implementation" "$cost" --size 1200 --channels 16 \
    --memory-limit 9M --measure --seconds 0 --threads 2
grep -q "^  training .* ms .* ms .* - .* ms" "$folder/out" || fail "what fits was not measured"
# what the context counts is what the system counts, within 10% (a sanitizer holds more)
expect 0 "the system's view" "$cost" --size 64x64 --channels 32 --measure --seconds 0 \
    --module materialized --csv "$folder/cost.csv"
if [ -r /proc/self/status ] && [ -z "${ASAN_OPTIONS:-}" ]; then
    awk -F, '/^non-local materialized/ { exit !($14 > 0.9 * $13 && $14 < 1.1 * $13) }' \
        "$folder/cost.csv" || fail "the system's view: $(cat "$folder/cost.csv")"
fi
grep -q '^efficient,.*,,,,,$' "$folder/cost.csv" || fail "another module was measured"
expect 2 "--size wants HxW" "$cost" --size 64x
expect 2 "heads must divide" "$cost" --heads 7
expect 2 "unknown option '--sise'" "$cost" --sise 3
expect 1 "No such file" "$cost" --csv "$folder/none/cost.csv"

[ -n "$show" ] || {
    echo "$passed passed, 0 failed"
    exit 0
}
common="--dataset long-range --train-images 64 --test-images 32 --depth 6 --width 8 --heads 2
        --batch-size 32 --epochs 1 --attention-every-block"
# shellcheck disable=SC2086
"$train" $common --attention efficient --checkpoint "$folder/efficient.h5" >"$folder/out"
# shellcheck disable=SC2086
"$train" $common --attention non-local --checkpoint "$folder/non-local.h5" >"$folder/out"
expect 0 "resized to 32x32" "$show" --checkpoint "$folder/efficient.h5" --image "$image" \
    --output "$folder/sheet.png"
# two modules of two heads with two key channels each; a line has the image and its two maps, and
# the titles are wider than that
[ "$(size_of "$folder/sheet.png" | cut -d' ' -f2)" -gt 256 ] || fail "lines are missing"
grep -q "blocks.0.attention: efficient" "$folder/out" || fail "a module is missing"
grep -q "prediction: " "$folder/out" || fail "no prediction"
whole=$(size_of "$folder/sheet.png" | cut -d' ' -f2)
expect 0 "blocks.1.attention: efficient" "$show" --checkpoint "$folder/efficient.h5" \
    --image "$image" --output "$folder/part.png" --block 1
part=$(size_of "$folder/part.png" | cut -d' ' -f2)
[ "$part" -lt "$whole" ] || fail "--block does not leave out modules"
expect 0 "query 5,14, head 1" "$show" --checkpoint "$folder/non-local.h5" --image "$image" \
    --output "$folder/sheet.png" --query 3,3:5,14
expect 2 "the model has blocks.0.attention, blocks.1.attention" "$show" --stage 1 \
    --checkpoint "$folder/efficient.h5" --image "$image" --output "$folder/sheet.png"
expect 2 "--query wants Y,X" "$show" --checkpoint "$folder/non-local.h5" --image "$image" \
    --query 32,0
expect 2 "are needed" "$show" --image "$image"
expect 1 "missing.png: No such file" "$show" --checkpoint "$folder/efficient.h5" \
    --image "$folder/missing.png"
expect 1 "not a PNG file" "$show" --checkpoint "$folder/efficient.h5" --image "$0"
head -c 200 "$image" >"$folder/cut.png"
expect 1 "cut.png: damaged PNG file" "$show" --checkpoint "$folder/efficient.h5" \
    --image "$folder/cut.png"
expect 1 "No such file" "$show" --checkpoint "$folder/none.h5" --image "$image"
expect 1 "No such file" "$show" --checkpoint "$folder/efficient.h5" --image "$image" \
    --output "$folder/none/sheet.png"
echo "$passed passed, 0 failed"
