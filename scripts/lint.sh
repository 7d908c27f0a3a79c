#!/bin/sh
# lint.sh [TOOL...] - static analysis of lib/ and examples/: clang-tidy, cppcheck and gcc's -fanalyzer
# (default: all three), and the format. Exit code 1 if one complains. What is switched off, and why,
# stands in .clang-tidy, below, and in docs/reliability.md. BUILD_DIR: build-lint.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc clang clang-tidy clang-format-14 cppcheck libc6-dev libomp-14-dev \
    make cmake pkg-config libhdf5-dev zlib1g-dev libpng-dev check
[ $# -gt 0 ] || set -- format cppcheck tidy analyzer
build=${BUILD_DIR:-build-lint}
cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug -DTAPELINE_BUILD_BENCH=OFF \
    >/dev/null
sources=$(git ls-files 'lib/src/*.c' 'examples/*.c')
hdf5=$(pkg-config --cflags hdf5 2>/dev/null || pkg-config --cflags hdf5-serial)
includes="-Ilib/include -Ilib/src -Iexamples $hdf5"
failed=0
for tool in "$@"; do
    log=$build/$tool.log
    case $tool in
    format)
        # shellcheck disable=SC2046
        clang-format-14 --dry-run -Werror $(git ls-files '*.c' '*.h') >"$log" 2>&1 || true
        ;;
    cppcheck)
        # uninitvar: it does not follow values that a callee sets through a pointer when the status
        # that goes with them is tested; the compilers and the sanitizers do
        # shellcheck disable=SC2086
        cppcheck --enable=warning,performance,portability --inline-suppr --std=c11 --quiet \
            --error-exitcode=0 --suppress=missingIncludeSystem -j"$(nproc)" \
            -D__x86_64__ -DTL_ISA=baseline -DTL_BUILDING $includes $sources >"$log" 2>&1 || true
        ;;
    tidy)
        # the kernels once (baseline); their other instruction sets are the same text
        # shellcheck disable=SC2086
        printf '%s\n' $sources | xargs -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet \
            >"$log.all" 2>/dev/null || true
        grep -E '(warning|error):' "$log.all" | sort -u >"$log" || true
        ;;
    analyzer)
        # shellcheck disable=SC2086
        printf '%s\n' $sources | xargs -P "$(nproc)" -I{} gcc -std=c17 -O1 -fanalyzer -fopenmp \
            -D_DEFAULT_SOURCE -D_POSIX_C_SOURCE=200809L -DTL_ISA=baseline -DTL_BUILDING $includes \
            -Wno-psabi -c {} -o /dev/null >"$log.all" 2>&1 || true
        grep -E '(warning|error):' "$log.all" | sort -u >"$log" || true
        ;;
    *)
        echo "lint: unknown tool $tool (format, cppcheck, tidy, analyzer)" >&2
        exit 2
        ;;
    esac
    count=$(grep -cE '(warning|error|performance|portability):' "$log" || true)
    echo "$tool: $count complaints"
    if [ "$count" -gt 0 ]; then
        head -n 40 "$log"
        failed=1
    fi
done
exit $failed
