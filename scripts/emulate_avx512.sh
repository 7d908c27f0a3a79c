#!/bin/sh
# emulate_avx512.sh - prints ON where the tests should build the AVX-512 kernels as 64-byte vectors of
# AVX2 (the CPU has AVX2 and no AVX-512), so that their blocking and their tails are tested all the
# same; else OFF. EMULATE_AVX512 in the environment decides otherwise.
if [ -n "${EMULATE_AVX512:-}" ]; then
    echo "$EMULATE_AVX512"
elif grep -q avx2 /proc/cpuinfo && ! grep -q avx512vl /proc/cpuinfo; then
    echo ON
else
    echo OFF
fi
