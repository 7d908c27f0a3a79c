#!/bin/sh
# sanitize.sh [SANITIZERS] - builds everything with clang, warnings as errors, under sanitizers
# (address,undefined; the first brings the search for leaks with it) and runs all tests. BUILD_DIR
# (build-sanitize) is where it builds, CMAKE_ARGUMENTS and CTEST_ARGUMENTS are passed on.
set -eu
cd "$(dirname "$0")/.."
sanitizers=${1:-address,undefined}
sh scripts/install_packages.sh clang libclang-rt-14-dev libomp-14-dev llvm make cmake pkg-config \
    libc6-dev libhdf5-dev hdf5-tools zlib1g-dev libpng-dev check
build=${BUILD_DIR:-build-sanitize}
# shellcheck disable=SC2086
cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 \
    -DTAPELINE_WERROR=ON -DTAPELINE_SANITIZE="$sanitizers" -DTAPELINE_BUILD_BENCH=OFF \
    -DTAPELINE_EMULATE_AVX512="$(sh scripts/emulate_avx512.sh)" ${CMAKE_ARGUMENTS:-}
cmake --build "$build" -j"$(nproc)"
# shellcheck disable=SC2086
ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1 \
    UBSAN_OPTIONS=print_stacktrace=1 \
    LSAN_OPTIONS=suppressions=$PWD/scripts/leaks.supp:print_suppressions=0 \
    ctest --test-dir "$build" --output-on-failure ${CTEST_ARGUMENTS:-}
