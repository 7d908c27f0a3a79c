#!/bin/sh
# test.sh - installs what is missing, builds everything with warnings as errors, runs all tests.
#
# BUILD_DIR (build-test) is where it builds, PARITY_DIR a folder of more parity cases,
# CMAKE_ARGUMENTS are passed on.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc libc6-dev make cmake pkg-config libhdf5-dev hdf5-tools \
    zlib1g-dev libpng-dev check
build=${BUILD_DIR:-build-test}
# Where the CPU has no AVX-512 its kernels are built as 64-byte vectors of AVX2, so that their
# blocking and their tails are tested all the same.
emulate=ON
if grep -q avx512vl /proc/cpuinfo || ! grep -q avx2 /proc/cpuinfo; then
    emulate=OFF
fi
# shellcheck disable=SC2086
cmake -S . -B "$build" -DTAPELINE_WERROR=ON -DTAPELINE_EMULATE_AVX512=$emulate \
    -DTAPELINE_PARITY_DIR="${PARITY_DIR:-}" \
    ${CMAKE_ARGUMENTS:-}
cmake --build "$build" -j"$(nproc)"
ctest --test-dir "$build" --output-on-failure
