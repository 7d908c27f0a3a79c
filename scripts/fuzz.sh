#!/bin/sh
# fuzz.sh [SECONDS [FUZZER...]] - runs each fuzzer of tests/fuzz for a while (default: 60 seconds)
# under AddressSanitizer and UndefinedBehaviorSanitizer, from the seeds, from what earlier runs found
# (BUILD_DIR/corpus) and from tests/fuzz/regressions. Needs clang. Prints one line a fuzzer; exit code
# 1 if one found something, which then lies in BUILD_DIR/crashes. BUILD_DIR: build-fuzz.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
build=${BUILD_DIR:-build-fuzz}
sh scripts/install_packages.sh clang libclang-rt-14-dev libomp-14-dev llvm make cmake pkg-config \
    libhdf5-dev zlib1g-dev libpng-dev check
cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_C_FLAGS="-O1" -DTAPELINE_FUZZ=ON -DTAPELINE_SANITIZE=address,undefined \
    -DTAPELINE_BUILD_BENCH=OFF -DTAPELINE_BASELINE_ONLY=ON ${CMAKE_ARGUMENTS:-} >/dev/null
fuzzers=$(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//' | grep -v '^support$')
[ $# -eq 0 ] || fuzzers=$*
targets=make_seeds
for fuzzer in $fuzzers; do
    targets="$targets fuzz_$fuzzer"
done
# shellcheck disable=SC2086
cmake --build "$build" -j"$(nproc)" --target $targets >"$build/fuzz-build.log" 2>&1 || {
    tail -20 "$build/fuzz-build.log" >&2
    exit 1
}
"$build/tests/fuzz/make_seeds" "$build/seeds"
mkdir -p "$build/crashes"
failed=0
for fuzzer in $fuzzers; do
    mkdir -p "$build/corpus/$fuzzer"
    set -- "$build/corpus/$fuzzer" "$build/seeds/$fuzzer"
    [ ! -d "tests/fuzz/regressions/$fuzzer" ] || set -- "$@" "tests/fuzz/regressions/$fuzzer"
    log=$build/crashes/$fuzzer.log
    result="no problem"
    OMP_NUM_THREADS=1 "$build/tests/fuzz/fuzz_$fuzzer" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=2048 -max_len=20000 -close_fd_mask=3 -print_final_stats=1 \
        -artifact_prefix="$build/crashes/$fuzzer-" "$@" >"$log" 2>&1 || {
        result="FAILED, see $log"
        failed=1
    }
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
    echo "$fuzzer: ${executions:-0} executions in $seconds s, ${covered:-cov: ?}: $result"
done
exit $failed
