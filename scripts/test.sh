#!/bin/sh
# test.sh - installs what is missing, builds everything with warnings as errors, runs all tests.
#
# BUILD_DIR (build-test) is where it builds, PARITY_DIR a folder of more parity cases,
# CMAKE_ARGUMENTS are passed on. MPI=1: with MPI, and the tests of several ranks.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc g++ libc6-dev make cmake pkg-config libhdf5-dev hdf5-tools \
    zlib1g-dev libpng-dev check python3 python3-h5py
if [ "${MPI:-0}" != 0 ]; then
    sh scripts/install_packages.sh libopenmpi-dev openmpi-bin
    CMAKE_ARGUMENTS="-DTAPELINE_MPI=ON ${CMAKE_ARGUMENTS:-}"
fi
build=${BUILD_DIR:-build-test}
# shellcheck disable=SC2086
cmake -S . -B "$build" -DTAPELINE_WERROR=ON -DTAPELINE_EMULATE_AVX512="$(sh scripts/emulate_avx512.sh)" \
    -DTAPELINE_PARITY_DIR="${PARITY_DIR:-}" \
    ${CMAKE_ARGUMENTS:-}
cmake --build "$build" -j"$(nproc)"
ctest --test-dir "$build" -j"$(nproc)" --output-on-failure
