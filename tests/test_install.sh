#!/bin/sh
# test_install.sh BUILD SOURCE CMAKE CC [CXX] - installs the library into a folder, moves it, and
# builds and runs the projects in tests/consumers against it, found by CMake and by pkg-config. CXX
# may be missing: then the C++ project is left out.
set -eu
build=$1
source=$2
cmake=$3
cc=$4
cxx=${5:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "test_install: $*" >&2
    exit 1
}

passed=0
# runs COMMAND..., quietly unless it fails
step() {
    what=$1
    shift
    "$@" >"$folder/log" 2>&1 || {
        cat "$folder/log" >&2
        fail "$what failed"
    }
    passed=$((passed + 1))
}

# ------------------------------------------------------------------ the tree
step "cmake --install" "$cmake" --install "$build" --prefix "$folder/first place"
mv "$folder/first place" "$folder/moved"
prefix=$folder/moved
for header in "$source"/lib/include/tapeline/*.h; do
    [ -f "$prefix/include/tapeline/$(basename "$header")" ] || fail "$header was not installed"
done
pc=$(find "$prefix" -name tapeline.pc)
library=$(dirname "$(dirname "$pc")")
for file in libtapeline.so libtapeline.a; do
    [ -f "$library/$file" ] || fail "$file is not in $library"
done
# nothing remembers where it was built or first installed
if grep -rnE "$build|$source|first place" "$library/cmake" "$pc"; then
    fail "installed files name the folders of the build"
fi
version=$(sed -n 's/^Version: //p' "$pc")
case $version in
0.*) wanted=libtapeline.so.$(echo "$version" | cut -d . -f 1-2) ;;
*) wanted=libtapeline.so.$(echo "$version" | cut -d . -f 1) ;;
esac
if command -v objdump >/dev/null 2>&1; then
    soname=$(objdump -p "$library/libtapeline.so" | awk '$1 == "SONAME" { print $2 }')
    [ "$soname" = "$wanted" ] || fail "SONAME: expected $wanted, found $soname"
fi

# ------------------------------------------------------------------ found by CMake
# consumer NAME PROJECT [OPTION...]
consumer() {
    name=$1
    project=$2
    shift 2
    step "configuring $name" "$cmake" -S "$source/tests/consumers/$project" -B "$folder/$name" \
        -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" "$@"
    step "building $name" "$cmake" --build "$folder/$name"
}
consumer cmake-shared c
step "running cmake-shared" "$folder/cmake-shared/consumer" "$folder/shared.h5"
consumer cmake-static c -DCONSUMER_STATIC=ON
step "running cmake-static" "$folder/cmake-static/consumer" "$folder/static.h5"
[ -s "$folder/shared.h5" ] && [ -s "$folder/static.h5" ] || fail "no checkpoint was written"
if [ -n "$cxx" ]; then
    consumer cmake-cpp cpp -DCMAKE_CXX_COMPILER="$cxx"
    step "running cmake-cpp" "$folder/cmake-cpp/consumer"
fi
# another minor version before 1.0.0 is another interface: it must not be accepted
mkdir "$folder/wrong"
cat >"$folder/wrong/CMakeLists.txt" <<'TEXT'
cmake_minimum_required(VERSION 3.18)
project(wrong LANGUAGES NONE)
find_package(Tapeline 99.1 REQUIRED)
TEXT
if "$cmake" -S "$folder/wrong" -B "$folder/wrong/build" -DCMAKE_PREFIX_PATH="$prefix" \
    >"$folder/log" 2>&1; then
    fail "find_package accepted version 99.1"
fi

# ------------------------------------------------------------------ found by pkg-config
if command -v pkg-config >/dev/null 2>&1; then
    PKG_CONFIG_PATH=$library/pkgconfig
    export PKG_CONFIG_PATH
    c_source=$source/tests/consumers/c/main.c
    # shellcheck disable=SC2046
    step "pkg-config, shared" "$cc" "$c_source" -o "$folder/pc-shared" \
        $(pkg-config --cflags --libs tapeline)
    step "running pc-shared" env LD_LIBRARY_PATH="$library" "$folder/pc-shared"
    mkdir "$folder/static"
    cp "$library/libtapeline.a" "$folder/static"
    # a folder with the static library alone comes first, so that -ltapeline is that
    # shellcheck disable=SC2046
    step "pkg-config, static" "$cc" "$c_source" -o "$folder/pc-static" "-L$folder/static" \
        $(pkg-config --static --cflags --libs tapeline)
    step "running pc-static" env -u LD_LIBRARY_PATH "$folder/pc-static"
    if [ -n "$cxx" ]; then
        # shellcheck disable=SC2046
        step "pkg-config, C++" "$cxx" "$source/tests/consumers/cpp/main.cpp" -o "$folder/pc-cpp" \
            $(pkg-config --cflags --libs tapeline)
        step "running pc-cpp" env LD_LIBRARY_PATH="$library" "$folder/pc-cpp"
    fi
fi
echo "$passed passed, 0 failed"
