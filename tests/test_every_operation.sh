#!/bin/sh
# test_every_operation.sh REPOSITORY - every operation in the public headers (a function that takes
# a tape first and returns a tensor) is named in a gradient check, in the list that
# test_operations.c walks (bits on any number of threads, NaN, large inputs) and in the tables of
# docs/operations.md, which name nothing else; every layer's forward is named in a test. A new one
# without them fails here.
set -eu
cd "$1"
operations=$(grep -hoE 'tl_tensor \*tl_[a-z0-9_]+\(tl_tape' lib/include/tapeline/*.h |
    grep -oE 'tl_[a-z0-9_]+\(' | tr -d '(' | sort -u)
# in no table: what only puts values on the tape
inputs="tl_input tl_input_with_grad"
# without gradient: what is for looking at
exempt="$inputs tl_non_local_map tl_efficient_attention_maps"
checked=0
missing=
for name in $operations; do
    case " $inputs " in *" $name "*) continue ;; esac
    grep -q "^| \`$name\` |" docs/operations.md || missing="$missing $name (docs/operations.md)"
    case " $exempt " in *" $name "*) continue ;; esac
    checked=$((checked + 1))
    grep -qrw "$name" tests/gradients || missing="$missing $name (gradient check)"
    grep -q "CASE($name," tests/support/operation_list.c || missing="$missing $name (operation list)"
done
for name in $(sed -nE 's/^\| `(tl_[a-z0-9_]+)` \|.*/\1/p' docs/operations.md); do
    echo "$operations" | grep -qx "$name" || missing="$missing $name (header, for its line in the table)"
done
layers=0
for name in $(grep -hoE 'tl_[a-z0-9_]+_layer_forward\(' lib/include/tapeline/*.h | tr -d '(' | sort -u); do
    layers=$((layers + 1))
    grep -qrw "$name" tests --include='*.c' || missing="$missing $name (any test)"
done
[ "$checked" -gt 0 ] && [ "$layers" -gt 0 ] || { echo "found no operations in lib/include"; exit 1; }
[ -z "$missing" ] || { echo "missing:$missing"; exit 1; }
echo "$((checked + layers)) passed, 0 failed"
