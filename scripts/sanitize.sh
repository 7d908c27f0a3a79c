#!/bin/sh
# sanitize.sh [SANITIZERS] - builds everything under sanitizers (address,undefined; the first brings the
# search for leaks with it) and runs all tests. With gcc, which takes a minute or two for the
# kernels where clang takes a quarter of an hour. BUILD_DIR (build-sanitize) is where it builds,
# PARITY_DIR a folder of more parity cases; CMAKE_ARGUMENTS are passed on.
set -eu
cd "$(dirname "$0")/.."
sanitizers=${1:-address,undefined}
sh scripts/install_packages.sh gcc libc6-dev make cmake pkg-config libhdf5-dev hdf5-tools zlib1g-dev \
    libpng-dev check python3 python3-h5py
build=${BUILD_DIR:-build-sanitize}
# shellcheck disable=SC2086
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DTAPELINE_WERROR=ON \
    -DTAPELINE_SANITIZE="$sanitizers" -DTAPELINE_BUILD_BENCH=OFF \
    -DTAPELINE_EMULATE_AVX512="$(sh scripts/emulate_avx512.sh)" \
    -DTAPELINE_PARITY_DIR="${PARITY_DIR:-}" ${CMAKE_ARGUMENTS:-}
cmake --build "$build" -j"$(nproc)"
# allocator_may_return_null: a test asks for more than there is. detect_stack_use_after_return: gcc 12
# puts vectors of 64 bytes into its frames for it without their alignment (GCC PR 110027).
ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:allocator_may_return_null=1:\
detect_stack_use_after_return=0 \
    UBSAN_OPTIONS=print_stacktrace=1 \
    ctest --test-dir "$build" -j"$(nproc)" --output-on-failure
