# expect.sh - for tests of programs; they source it with $folder set to a folder of their own.
passed=0

fail() {
    echo "FAILED: $*"
    exit 1
}

# expect CODE TEXT COMMAND...: its exit code, and a text (or "") in what it prints: to standard output
# if it succeeds, else to standard error, which is then one line
expect() {
    code=$1
    text=$2
    shift 2
    status=0
    "$@" >"$folder/out" 2>"$folder/err" || status=$?
    [ "$status" -eq "$code" ] || fail "exit code $status instead of $code: $* $(cat "$folder/err")"
    stream=err
    [ "$code" -ne 0 ] || stream=out
    [ -z "$text" ] || grep -q -- "$text" "$folder/$stream" ||
        fail "expected '$text' in: $(cat "$folder/$stream")"
    [ "$code" -eq 0 ] || [ "$(wc -l <"$folder/err")" -eq 1 ] || fail "more than one line: $*"
    passed=$((passed + 1))
}
