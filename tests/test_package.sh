#!/bin/sh
# test_package.sh BUILD CPACK CC SOURCE - makes the Debian packages, unpacks them as they would be
# installed, and builds a program against them.
set -eu
build=$1
cpack=$2
cc=$3
source=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
    [ ! -f "$folder/log" ] || cat "$folder/log" >&2
    echo "test_package: $*" >&2
    exit 1
}
"$cpack" -G DEB --config "$build/CPackConfig.cmake" -B "$folder/packages" >"$folder/log" 2>&1 ||
    fail "cpack failed"
for package in libtapeline0.1 libtapeline-dev; do
    # shellcheck disable=SC2144
    [ -f "$folder"/packages/"$package"_*.deb ] || fail "no package $package"
done
depends=$(dpkg-deb -f "$folder"/packages/libtapeline0.1_*.deb Depends)
openmp=libgomp # the compiler's own
case $("$cc" --version) in *clang*) openmp=libomp ;; esac
for library in libhdf5 $openmp zlib1g libc6; do
    case $depends in *$library*) ;; *) fail "the dependency $library is missing: $depends" ;; esac
done
for package in "$folder"/packages/*.deb; do
    dpkg-deb -x "$package" "$folder/root" || fail "cannot unpack $package"
done
pc=$(find "$folder/root/usr" -name tapeline.pc)
library=$(dirname "$(dirname "$pc")")
# shellcheck disable=SC2046
"$cc" "$source/tests/consumers/c/main.c" -o "$folder/consumer" \
    $(PKG_CONFIG_PATH="$(dirname "$pc")" pkg-config --define-variable=prefix="$folder/root/usr" \
        --cflags --libs tapeline) >"$folder/log" 2>&1 || fail "cannot compile against the packages"
LD_LIBRARY_PATH=$library "$folder/consumer" || fail "the program failed"
echo "2 packages passed, 0 failed"
