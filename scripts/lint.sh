#!/bin/sh
# lint.sh [TOOL [FILE...]] - static analysis: the format of all C files, and cppcheck, clang-tidy and
# gcc's -fanalyzer over lib/ and examples/ (default: all four, all files). TOOL: format, cppcheck,
# tidy, analyzer or all. Exit code 1 if one complains. What is switched off, and why, stands in
# .clang-tidy and below. Kernels are analysed once, for the baseline: the other instruction sets are
# the same text.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc clang clang-tidy clang-format-14 cppcheck libc6-dev libomp-14-dev \
    pkg-config libhdf5-dev zlib1g-dev libpng-dev
tools=${1:-all}
[ $# -eq 0 ] || shift
[ "$tools" != all ] || tools="format cppcheck tidy analyzer"
formatted=$*
sources=$*
if [ $# -eq 0 ]; then
    formatted=$(git ls-files '*.c' '*.h')
    # (transport_mpi.c needs an MPI)
    sources=$(git ls-files 'lib/src/*.c' 'examples/*.c' | grep -v transport_mpi)
fi
hdf5=$(pkg-config --cflags hdf5 2>/dev/null || pkg-config --cflags hdf5-serial)
flags="-D_DEFAULT_SOURCE -D_POSIX_C_SOURCE=200809L -DTL_ISA=baseline -DTL_BUILDING -DTL_ANALYSIS -Ilib/include \
    -Ilib/src -Iexamples $hdf5"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# cppcheck:
# uninitvar: takes the address of a structure that is to be filled for a use of what is in it.
# arrayIndexThenCheck: takes the comparison of two indices for the check of one.
# internalAstError (k_pooling): its parser does not know vectors of the compiler's.
# nullPointerArithmetic (k_layer_norm): weights that are NULL come with affine = false, a constant
# that the compiler folds, which cppcheck does not see.
cppcheck_off="--suppress=uninitvar --suppress=arrayIndexThenCheck --suppress=missingIncludeSystem
    --suppress=internalAstError:lib/src/kernels/k_pooling.c
    --suppress=nullPointerArithmetic:lib/src/kernels/k_layer_norm.c"

# clang-tidy, one by one:
# unix.Malloc (history.c): takes the doubled capacity of an array for 0, which realloc would free.
# uninitialized.Assign (long_range.c): does not see that fewer numbers are drawn than there are.
# uninitialized, CallAndMessage (reduce.c, shape.c): arrays that another file has filled to the rank.
# DivideZero (k_conv_sum.h): a weight gradient without values; the operation refuses 0 channels.
tidy_off='history.c.*unix.Malloc|long_range.c.*uninitialized.Assign'
tidy_off="$tidy_off|ops/(reduce|shape).c.*(core.uninitialized|core.CallAndMessage)|k_conv_sum.h.*core.DivideZero"

# gcc -fanalyzer:
# shift-count-overflow: takes the width of a shift of vectors for that of the vector's first lanes.
# malloc-leak (options_state.c): memory that a table of options owns and options_free() frees.
# null-dereference (pool.c): asks a second time for a neighbour that was found.
# null-argument (dataset.c): masks and targets, which are there if and only if the flag says so.
# null-dereference (stereo.c): the surface in front, of which there is at least one.
# use-of-uninitialized-value (k_transpose.h): a block of vectors, each set by a loop of constant length.
# null-dereference, null-argument (kernels): as clang's, lib/src/kernels/.clang-tidy says why.
analyzer_off="shift-count-overflow|options_state.c.*malloc-leak|pool.c.*null-dereference"
analyzer_off="$analyzer_off|dataset.c.*null-argument|stereo.c.*null-dereference"
analyzer_off="$analyzer_off|k_transpose.h.*use-of-uninitialized-value"
analyzer_off="$analyzer_off|lib/src/kernels/.*null-(dereference|argument)"

failed=0
# shellcheck disable=SC2086
for tool in $tools; do
    case $tool in
    format) clang-format-14 --dry-run -Werror $formatted >"$log" 2>&1 || true ;;
    cppcheck)
        cppcheck --enable=warning,performance,portability --std=c11 --quiet $cppcheck_off \
            -j"$(nproc)" -D__x86_64__ $flags $sources >"$log" 2>&1 || true
        ;;
    tidy)
        for file in $sources; do echo "$file"; done | xargs -P "$(nproc)" -I{} \
            clang-tidy --quiet {} -- -std=c17 -fopenmp $flags 2>/dev/null |
            grep -vE "$tidy_off" >"$log" || true
        ;;
    analyzer)
        for file in $sources; do echo "$file"; done | xargs -P "$(nproc)" -I{} gcc -std=c17 -O1 \
            -fanalyzer -fopenmp -Wno-psabi $flags -c {} -o /dev/null 2>&1 |
            grep -E ' (warning|error):' | grep -vE "$analyzer_off" >"$log" || true
        ;;
    *)
        echo "lint: unknown tool $tool (format, cppcheck, tidy, analyzer, all)" >&2
        exit 2
        ;;
    esac
    complaints=$(grep -E ' (warning|error|performance|portability|style):' "$log" | sort -u || true)
    if [ -n "$complaints" ]; then
        echo "$tool complains:"
        echo "$complaints" | head -n 40
        failed=1
    else
        echo "$tool: $(echo $sources | wc -w) files, no complaint"
    fi
done
exit $failed
