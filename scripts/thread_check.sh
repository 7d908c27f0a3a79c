#!/bin/sh
# thread_check.sh [TEST...] - runs tests under ThreadSanitizer. It must know how OpenMP synchronises, so
# the build is clang's with LLVM's libomp, which tells through the Archer tool. Default: all tests in
# which threads meet (every operation forward and backward, whole trainings, the loader,
# checkpoints), with the baseline's kernels: the others are the same text. BUILD_DIR (build-thread) is where it builds.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh clang libclang-rt-14-dev libomp-14-dev llvm make cmake pkg-config \
    libc6-dev libhdf5-dev zlib1g-dev libpng-dev check
build=${BUILD_DIR:-build-thread}
[ $# -gt 0 ] || set -- operations training loader checkpoint model gemm convolution tape
# shellcheck disable=SC2086
cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 \
    -DTAPELINE_SANITIZE=thread -DTAPELINE_BUILD_BENCH=OFF -DTAPELINE_BASELINE_ONLY=ON ${CMAKE_ARGUMENTS:-} >/dev/null
targets=
pattern=
for name in "$@"; do
    targets="$targets test_$name"
    pattern="$pattern${pattern:+|}test_$name"
done
# shellcheck disable=SC2086
cmake --build "$build" -j"$(nproc)" --target $targets >"$build/thread-build.log" 2>&1 || {
    tail -20 "$build/thread-build.log" >&2
    exit 1
}
archer=$(find /usr/lib/llvm-*/lib -name libarcher.so | sort -V | tail -1)
[ -n "$archer" ] || { echo "thread_check: libarcher.so is missing (libomp-14-dev)" >&2; exit 1; }
OMP_TOOL_LIBRARIES=$archer TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=0 \
exitcode=66" ctest --test-dir "$build" --output-on-failure -R "^($pattern)\$"
