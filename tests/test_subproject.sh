#!/bin/sh
# test_subproject.sh SOURCE CMAKE CC CXX [OPTION...] - builds and runs tests/consumers/subproject,
# which compiles the library as a part of itself. OPTIONs go to CMake.
set -eu
source=$1
cmake=$2
cc=$3
cxx=$4
shift 4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{
    "$cmake" -S "$source/tests/consumers/subproject" -B "$folder/build" \
        -DTAPELINE_SOURCE_DIR="$source" -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" "$@" &&
        "$cmake" --build "$folder/build" --parallel "$(nproc)"
} >"$folder/log" 2>&1 || {
    tail -n 50 "$folder/log" >&2
    exit 1
}
# a project inside another builds the library alone, optimised, and leaves the other's type alone
[ ! -e "$folder/build/_deps/tapeline-build/tests" ] || { echo "it built the tests too" >&2; exit 1; }
grep -q '^CMAKE_BUILD_TYPE:STRING=$' "$folder/build/CMakeCache.txt" ||
    { echo "it set the other project's CMAKE_BUILD_TYPE" >&2; exit 1; }
"$folder/build/consumer_c" "$folder/line.h5"
"$folder/build/consumer_cpp"
