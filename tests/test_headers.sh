#!/bin/sh
# test_headers.sh SOURCE LIBRARY CC [CXX] - every public header compiles by itself, as C17 and as
# C++11, without a warning; tapeline.h includes them all; and the shared library exports exactly what
# they declare.
set -eu
source=$1
library=$2
cc=$3
cxx=${4:-}
include=$source/lib/include
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
warnings="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
failed=0
checked=0

# compile COMPILER FILE OPTION...
compile() {
    checked=$((checked + 1))
    if ! "$@" >"$folder/log" 2>&1; then
        cat "$folder/log" >&2
        failed=$((failed + 1))
    fi
}
for path in "$include"/tapeline/*.h; do
    header=$(basename "$path")
    printf '#include <tapeline/%s>\ntypedef int not_empty;\n' "$header" >"$folder/$header.c"
    cp "$folder/$header.c" "$folder/$header.cpp"
    # shellcheck disable=SC2086
    compile "$cc" -std=c17 $warnings -Wstrict-prototypes -I"$include" -fsyntax-only \
        "$folder/$header.c"
    if [ -n "$cxx" ]; then
        # shellcheck disable=SC2086
        compile "$cxx" -std=c++11 $warnings -Wold-style-cast -I"$include" -fsyntax-only \
            "$folder/$header.cpp"
    fi
    case $header in
    tapeline.h | export.h | real.h) ;; # the others include these
    *)
        grep -q "^#include <tapeline/$header>$" "$include/tapeline/tapeline.h" || {
            echo "tapeline.h does not include $header" >&2
            failed=$((failed + 1))
        }
        ;;
    esac
done

# TL_API functions, wherever their declarations break their lines
cat "$include"/tapeline/*.h | sed '/^#/d; /^ *\*/d; /^\/\*/d' | tr '\n' ' ' | tr ';' '\n' |
    grep TL_API | sed -n 's/[^(]*TL_API[^(]*[ *]\(tl_[a-z0-9_]*\)(.*/\1/p' |
    sort >"$folder/declared"
nm -D --defined-only "$library" | awk '{ print $3 }' | grep -v '^_' | sort >"$folder/exported"
checked=$((checked + $(wc -l <"$folder/declared")))
[ -s "$folder/declared" ] || { echo "found no declarations" >&2; failed=$((failed + 1)); }
if ! diff "$folder/declared" "$folder/exported" >"$folder/log"; then
    echo "declared (<) against exported (>):" >&2
    cat "$folder/log" >&2
    failed=$((failed + 1))
fi
echo "$checked checked, $failed failed"
[ "$failed" -eq 0 ]
