#!/bin/sh
# coverage.sh - builds with gcov, runs all tests and prints the line coverage of lib/src.
#
# Kernels are compiled once per instruction set; a line counts as covered if any of them ran it.
# BUILD_DIR (build-coverage) is where it builds, PARITY_DIR a folder of more parity cases.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc libc6-dev make cmake pkg-config libhdf5-dev hdf5-tools \
    zlib1g-dev libpng-dev check lcov
build=${BUILD_DIR:-build-coverage}
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS="--coverage -O1" \
    -DTAPELINE_EMULATE_AVX512="$(sh scripts/emulate_avx512.sh)" \
    -DTAPELINE_PARITY_DIR="${PARITY_DIR:-}" -DTAPELINE_BUILD_BENCH=OFF
cmake --build "$build" -j"$(nproc)"
ctest --test-dir "$build" --output-on-failure || echo "some tests failed; coverage follows"
lcov --quiet --capture --directory "$build" --base-directory . --no-external \
    --output-file "$build/coverage.info"
lcov --quiet --extract "$build/coverage.info" "$PWD/lib/src/*" \
    --output-file "$build/coverage.info"
lcov --list "$build/coverage.info"
echo "line coverage of lib/src: see Total above (at least 95% is wanted)"
